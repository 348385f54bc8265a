//! The agent's own probes: each at its interval, and all of them after the set that is in force has changed, or what of it the
//! runtime does not know yet.
//!
//! They run beside the cycles and never in their way: the network is waited for on the agent's loop, files and signatures are
//! read on a thread of their own.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use nodetrust_core::{
    certificate::fingerprint::{Fingerprint, SetDigest},
    probe::{Probe, Proxy, Target, Through},
    report::Behind,
    runtime::{process::ServiceProcess, registry::Registry},
    time::Time,
};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep_until},
};

use super::{Board, ProbeResult, answer, ask};
use crate::{
    config::Settings,
    host::{self, root::HostRoot, threads},
    jitter::part_of,
    runtime::{
        self,
        witness::{self, RuntimeLine},
    },
    serve::Latest,
};

/// Probes that may be configured.
pub const MAX_PROBES: usize = 32;
/// Probes that run at the same time.
const AT_ONCE: usize = 4;
/// Within this time the nodes of a fleet probe after a change, so that they do not all come at once.
const SPREAD: Duration = Duration::from_secs(5);
/// How long a loop sleeps that has nothing to do.
const IDLE: Duration = Duration::from_secs(3600);

/// A probe that is repeated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Every {
    /// What is asked.
    pub target: Target,
    /// Who is asked.
    pub through: Through,
    /// How often.
    pub interval: Duration,
    /// Through which proxy.
    pub proxy: Option<Proxy>,
}

/// A probe and when it runs next.
struct Planned {
    every: Every,
    due: Instant,
    running: bool,
    rounds: u64,
}

/// What all probes share.
struct Common {
    root: HostRoot,
    line: RuntimeLine,
}

/// Probes for ever. The first time after the first cycle.
pub async fn serve(
    root: HostRoot,
    node: String,
    mut settings: watch::Receiver<Arc<Settings>>,
    mut report: Latest,
    board: Arc<Board>,
    line: RuntimeLine,
) {
    let common = Arc::new(Common { root, line });
    if report.wait_for(Option::is_some).await.is_err() {
        return;
    }
    let mut in_force: Option<(SetDigest, Vec<Fingerprint>, Option<ServiceProcess>)> = None;
    let mut planned: VecDeque<Planned> = VecDeque::new();
    let mut running = JoinSet::new();
    follow(&mut planned, &settings.borrow_and_update().probes, &board);
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
                follow(&mut planned, &settings.borrow_and_update().probes, &board);
            }
            changed = report.changed() => if changed.is_err() { return },
            () = sleep_until(next.unwrap_or_else(|| Instant::now() + IDLE)), if running.len() < AT_ONCE => {}
            Some(done) = running.join_next() => {
                let (every, result): (Every, ProbeResult) = match done {
                    Ok(done) => done,
                    Err(error) => {
                        tracing::error!(%error, "a probe has ended without an answer");
                        planned.iter_mut().for_each(|probe| probe.running = false);
                        continue;
                    }
                };
                let Some(probe) = planned.iter_mut().find(|probe| probe.every == every) else { continue };
                probe.running = false;
                tracing::debug!(target = result.probe.target, through = every.through.as_str(), verdict = result.probe.verdict.as_str(), "{}", result.probe.text);
                board.show(result);
            }
        }
    }
}

/// Takes over the configured probes; those that stay keep their time.
fn follow(planned: &mut VecDeque<Planned>, probes: &[Every], board: &Board) {
    planned.retain(|known| probes.contains(&known.every));
    for every in probes {
        if !planned.iter().any(|known| known.every == *every) {
            planned.push_back(Planned { every: every.clone(), due: Instant::now(), running: false, rounds: 0 });
        }
    }
    board.keep_only(
        &probes.iter().map(|every| (every.target.text().to_owned(), every.through)).collect::<BTreeSet<_>>(),
    );
}

/// Starts what is due, whoever has waited longest first.
fn start(
    planned: &mut VecDeque<Planned>,
    running: &mut JoinSet<(Every, ProbeResult)>,
    common: &Arc<Common>,
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
        probe.due = now + probe.every.interval + probe.jitter(node, Duration::MAX);
        running.spawn(once(probe.every.clone(), common.clone(), settings.clone(), behind.cloned()));
    }
}

async fn once(
    every: Every,
    common: Arc<Common>,
    settings: Arc<Settings>,
    behind: Option<Behind>,
) -> (Every, ProbeResult) {
    let started = Instant::now();
    let target = every.target.clone();
    let (judged, milliseconds) = match every.through {
        Through::Host => {
            let presented = ask(&target, every.proxy.as_ref()).await;
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
        match every.through {
            Through::Host => Probe::without_bundle(&every.target, &why),
            Through::Runtime => Probe::without_runtime(every.target.text(), &why),
        }
    });
    (every, ProbeResult { probe, time: Time(host::wall()), milliseconds })
}

fn milliseconds_since(started: Instant) -> u64 {
    u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// Asks the runtime, and writes its answer down.
fn through_runtime(target: &Target, common: &Common, settings: &Settings) -> Probe {
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

impl Planned {
    /// Up to a tenth of the interval, and no more than `most`: the same target at another time on each node.
    fn jitter(&self, node: &str, most: Duration) -> Duration {
        let (target, through) = (self.every.target.text(), self.every.through.as_str());
        part_of((self.every.interval / 10).min(most), &format!("{node}\n{target}\n{through}\n{}", self.rounds))
    }
}
