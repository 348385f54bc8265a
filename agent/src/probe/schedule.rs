//! The agent's own probes: each at its interval, and all of them after a change of the set that is in force, or of what the runtime
//! does not know of it yet.
//!
//! They run beside the cycles: the agent's loop waits for the network, and a thread reads files and verifies signatures.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use nodetrust_core::{
    certificate::fingerprint::{Fingerprint, SetDigest},
    probe::{Probe, Target, Through},
    report::{Behind, Report},
    runtime::{process::ServiceProcess, registry::Registry},
    time::Time,
};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep_until},
};

use super::{LatestResult, LatestResults, answer, ask};
use crate::{
    config::{ProbeSettings, Settings},
    host::{self, root::HostRoot, threads},
    jitter::part_of,
    runtime::{
        self,
        witness::{self, RuntimeLine},
    },
};

/// Probes that run at the same time.
const AT_ONCE: usize = 4;
/// The nodes of a fleet spread their probes after a change over this time.
const SPREAD: Duration = Duration::from_secs(5);
/// How long the loop sleeps without a probe that is due.
const IDLE: Duration = Duration::from_secs(3600);

/// A probe and when it runs next.
struct PlannedProbe {
    wanted: ProbeSettings,
    due: Instant,
    running: bool,
    rounds: u64,
}

/// What all probes share.
struct ProbeContext {
    root: HostRoot,
    line: RuntimeLine,
}

/// Runs the probes until the agent ends, from the first cycle on.
pub async fn serve(
    root: HostRoot,
    node: String,
    mut settings: watch::Receiver<Arc<Settings>>,
    mut report: watch::Receiver<Option<Arc<Report>>>,
    results: Arc<LatestResults>,
    line: RuntimeLine,
) {
    let common = Arc::new(ProbeContext { root, line });
    if report.wait_for(Option::is_some).await.is_err() {
        return;
    }
    let mut in_force: Option<(SetDigest, Vec<Fingerprint>, Option<ServiceProcess>)> = None;
    let mut planned: VecDeque<PlannedProbe> = VecDeque::new();
    let mut running = JoinSet::new();
    follow(&mut planned, &settings.borrow_and_update().probes, &results);
    loop {
        let latest = report.borrow_and_update().clone();
        let behind = latest.as_ref().and_then(|report| report.behind());
        let missing = behind.as_ref().map(|behind| behind.missing.clone()).unwrap_or_default();
        let process = common.line.subjects.borrow().as_ref().map(|subject| subject.process.clone());
        let now_in_force = latest.map(|report| (report.effective_digest, missing, process));
        if now_in_force != in_force {
            in_force = now_in_force;
            for probe in &mut planned {
                probe.due = Instant::now() + probe.jitter(&node, SPREAD);
            }
        }
        start(&mut planned, &mut running, &common, &settings.borrow().clone(), behind.as_ref(), &node);
        let next = planned.iter().filter(|probe| !probe.running).map(|probe| probe.due).min();
        tokio::select! {
            changed = settings.changed() => {
                if changed.is_err() {
                    return;
                }
                follow(&mut planned, &settings.borrow_and_update().probes, &results);
            }
            changed = report.changed() => if changed.is_err() { return },
            () = sleep_until(next.unwrap_or_else(|| Instant::now() + IDLE)), if running.len() < AT_ONCE => {}
            Some(done) = running.join_next() => {
                let (wanted, result): (ProbeSettings, LatestResult) = match done {
                    Ok(done) => done,
                    Err(error) => {
                        tracing::error!(%error, "a probe has ended without an answer");
                        planned.iter_mut().for_each(|probe| probe.running = false);
                        continue;
                    }
                };
                let Some(probe) = planned.iter_mut().find(|probe| probe.wanted == wanted) else { continue };
                probe.running = false;
                tracing::debug!(target = result.probe.target, through = wanted.through.as_str(), verdict = result.probe.verdict.as_str(), "{}", result.probe.text);
                results.show(result);
            }
        }
    }
}

/// Takes over the configured probes; a probe that was there before keeps its next time.
fn follow(planned: &mut VecDeque<PlannedProbe>, probes: &[ProbeSettings], results: &LatestResults) {
    planned.retain(|known| probes.contains(&known.wanted));
    for wanted in probes {
        if !planned.iter().any(|known| known.wanted == *wanted) {
            planned.push_back(PlannedProbe { wanted: wanted.clone(), due: Instant::now(), running: false, rounds: 0 });
        }
    }
    results.keep_only(
        &probes.iter().map(|wanted| (wanted.target.text().to_owned(), wanted.through)).collect::<BTreeSet<_>>(),
    );
}

/// Starts the probes that are due, the longest waiting first.
fn start(
    planned: &mut VecDeque<PlannedProbe>,
    running: &mut JoinSet<(ProbeSettings, LatestResult)>,
    common: &Arc<ProbeContext>,
    settings: &Arc<Settings>,
    behind: Option<&Behind>,
    node: &str,
) {
    planned.make_contiguous().sort_by_key(|probe| probe.due);
    let now = Instant::now();
    for probe in planned.iter_mut().filter(|probe| !probe.running && probe.due <= now) {
        if running.len() >= AT_ONCE {
            return;
        }
        probe.running = true;
        probe.rounds += 1;
        probe.due = now + probe.wanted.interval + probe.jitter(node, Duration::MAX);
        running.spawn(once(probe.wanted.clone(), common.clone(), settings.clone(), behind.cloned()));
    }
}

async fn once(
    wanted: ProbeSettings,
    common: Arc<ProbeContext>,
    settings: Arc<Settings>,
    behind: Option<Behind>,
) -> (ProbeSettings, LatestResult) {
    let started = Instant::now();
    let target = wanted.target.clone();
    let (judged, milliseconds) = match wanted.through {
        Through::Host => {
            let presented = ask(&target, wanted.proxy.as_ref()).await;
            let milliseconds = milliseconds_since(started);
            let judge = move || answer(&target, &presented, &common.root, Some(&settings), behind.as_ref());
            (threads::beside(judge).await, milliseconds)
        }
        Through::Runtime => {
            let asked = threads::beside(move || through_runtime(&target, &common, &settings)).await;
            (asked, milliseconds_since(started))
        }
    };
    let probe = judged.unwrap_or_else(|error| {
        let why = format!("the answer could not be judged: {error}");
        match wanted.through {
            Through::Host => Probe::without_bundle(&wanted.target, &why),
            Through::Runtime => Probe::without_runtime(wanted.target.text(), &why),
        }
    });
    (wanted, LatestResult { probe, time: Time(host::wall()), milliseconds })
}

fn milliseconds_since(started: Instant) -> u64 {
    u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// Asks the runtime, and writes its answer down.
fn through_runtime(target: &Target, common: &ProbeContext, settings: &Settings) -> Probe {
    let subject = common.line.subjects.borrow().clone();
    let Some(subject) = subject else {
        return Probe::without_runtime(target.text(), "no container runtime that works is known on this node");
    };
    let asked = witness::ask(&common.root, Some(settings), &subject, &Registry::of(target));
    let probe = Probe { target: target.text().to_owned(), ..asked.probe.clone() };
    match witness::remember(&common.root, &[asked], runtime::longest_cycle(settings.extract_timeout)) {
        Ok(true) => common.line.answered.notify_one(),
        Ok(false) => {}
        Err(error) => tracing::warn!(%error, "the runtime's answer could not be written down"),
    }
    probe
}

impl PlannedProbe {
    /// A delay of up to a tenth of the interval and at most `most`, so that each node probes a target at another time.
    fn jitter(&self, node: &str, most: Duration) -> Duration {
        let (target, through) = (self.wanted.target.text(), self.wanted.through.as_str());
        part_of((self.wanted.interval / 10).min(most), &format!("{node}\n{target}\n{through}\n{}", self.rounds))
    }
}
