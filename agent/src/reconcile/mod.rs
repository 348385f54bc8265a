//! One cycle: observe, decide, execute, confirm, report.
//!
//! A cycle cannot fail: what went wrong is in the [`Report`]. Every trigger runs the same full cycle.
//! One task owns the host, and the lock keeps it the only one on the node.

mod cycle;
pub mod execute;
pub mod ledger_writer;
mod observe;
mod pod_bundle;
mod restart_services;
mod run;
mod uninstall;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use nodetrust_core::{
    action::{Action, Drift},
    cycle::{CycleOutcome, Trigger},
    fleet::removal::RemovalWait,
    ledger::{AnchorState, Ledger},
    problem::{Problem, ProblemKind},
    report::{self, Cycle, Report, ReportInputs},
    source::{Snapshot, policy::RemovalGate},
    store::{os_release::OsRelease, where_read_only},
    time::Time,
    verify::verify,
};

pub use cycle::CycleResult;
pub(crate) use cycle::{Failures, read_note};
use cycle::{last_cycle, last_gate, note_cycle};
use ledger_writer::damaged_problem;
use observe::{Deciding, Decision, Earlier, Observer, PATIENCE_TO_LOOK};
use run::CycleRun;

use crate::{
    config::Settings,
    fleet::permit::RestartPermit,
    host::{
        self, ledger_file,
        lock::{self, HostLock},
        obstacle::way_out_or,
        own_paths,
        root::HostRoot,
    },
    runtime::{self, witness::Subject},
    sources::{SourceDigest, SourceReader, state_of},
};

/// Rounds in a cycle: a second one when the first did not lead to what was wanted.
const ROUNDS: usize = 2;

/// Owns a host.
#[derive(Debug)]
pub struct Reconciler {
    observer: Observer,
    node: String,
    reader: SourceReader,
    /// The sources as they are followed, and what they say.
    followed: Option<(Vec<Snapshot>, SourceDigest)>,
    /// A change of the sources that was seen once.
    candidate: Option<SourceDigest>,
    /// Drift whose repair has not succeeded yet.
    unrepaired: BTreeSet<Drift>,
    /// How the last cycles ended.
    failures: Failures,
    /// The runtime that can be asked, by the last look that was reported.
    subject: Option<Subject>,
}

impl Reconciler {
    /// Takes a host.
    ///
    /// # Errors
    /// If the host root cannot be opened.
    pub fn new(host_root: &Path) -> std::io::Result<Self> {
        let observer = Observer::new(host_root)?;
        let node = host::node_name(&observer.root);
        Ok(Self {
            observer,
            node,
            reader: SourceReader::default(),
            followed: None,
            candidate: None,
            unrepaired: BTreeSet::new(),
            failures: Failures::default(),
            subject: None,
        })
    }

    /// Asks the fleet before each restart.
    pub fn follow_permit(&mut self, permit: Arc<RestartPermit>) {
        self.observer.permit = permit;
    }

    /// The host.
    pub fn root(&self) -> &HostRoot {
        &self.observer.root
    }

    /// The runtime that can be asked, as the last report has it.
    pub fn subject(&self) -> Option<&Subject> {
        self.subject.as_ref()
    }

    /// Looks and reports; changes nothing, takes no lock.
    pub fn inspect(&mut self, settings: &Settings) -> Report {
        let snapshots = self.reader.read(settings);
        self.inspect_snapshots(settings, &snapshots)
    }

    /// Looks and reports without a configuration, as in a debug session: what the ledger says of the sources stands for them.
    pub fn inspect_by_ledger(&mut self) -> Report {
        let ledger = match ledger_file::read(&self.observer.root) {
            Ok(ledger_file::LedgerRead::Good(ledger)) => ledger,
            _ => Arc::new(Ledger::new()), // `look` reports it
        };
        let export = crate::pod_bundle::by_ledger(&self.observer.root, &ledger);
        let runtime = ledger.runtime.clone().unwrap_or_default().into();
        let mut settings = Settings { family: ledger.family, export, runtime, ..Settings::default() };
        settings.policy.distrust = ledger.distrusted.keys().copied().collect();
        if ledger.fleet_gate {
            settings.policy.removal_gate = RemovalGate::Fleet;
            settings.approvals = None; // whoever has no configuration is not in the agent's pod
        }
        settings.policy.removal_grace = ledger.removal_grace.unwrap_or(settings.policy.removal_grace);
        let snapshots: Vec<Snapshot> =
            ledger.sources.iter().map(|(name, source)| Snapshot::remembered(name, source, &ledger)).collect();
        self.inspect_snapshots(&settings, &snapshots)
    }

    fn inspect_snapshots(&mut self, settings: &Settings, snapshots: &[Snapshot]) -> Report {
        self.observer.permit = Arc::new(RestartPermit::of(last_gate(&self.observer.root)));
        // in the middle of a cycle the host is neither as it was nor as it will be
        let busy = lock::is_busy(&self.observer.root, PATIENCE_TO_LOOK);
        let mut decision = self.look(settings, snapshots);
        let wrong = unverified(&decision);
        decision.seen.problems.extend(wrong);
        let mut report = self.report(&decision, settings);
        report.cycle = last_cycle(&self.observer.root);
        if busy {
            report.next.insert(0, "a cycle is running on this node right now: look again in a moment".to_owned());
        }
        report
    }

    /// Observes and decides; does nothing.
    fn look(&mut self, settings: &Settings, snapshots: &[Snapshot]) -> Decision {
        let seen = self.observer.observe(settings, snapshots, &Earlier::default());
        self.observer.decide(settings, snapshots, seen, Deciding::First)
    }

    /// One full cycle: the store first, then the services that read it, then the bundle for pods.
    pub fn cycle(&mut self, settings: &Settings, trigger: Trigger) -> CycleResult {
        let started = Instant::now();
        let mut lock = match HostLock::take(&self.observer.root, runtime::longest_cycle(settings.extract_timeout)) {
            Ok(lock) => lock,
            Err(error) => return self.without_lock(settings, trigger, started, &error),
        };
        self.observer.store.set_asks(Some(settings.extract_timeout));
        // under the lock: what was read before a long wait may be old, and whoever kept it may have followed what is new
        let (snapshots, settled) = self.read_sources(settings, trigger);
        let rounds = self.rounds(trigger);
        let mut run = CycleRun::begin(&mut self.observer, settings, &snapshots, &lock);
        run.change_store(rounds);
        run.restart_services();
        run.follow_pod_bundle();
        let ended = EndedCycle::of(run);
        self.observer.permit.end();
        self.observer.store.set_asks(None); // from here on nothing is looked at, and the lock goes
        let mut result = self.finish(ended, settings, trigger, started);
        result.unsettled = !settled;
        note_cycle(&mut lock, &result.report);
        result
    }

    /// Reports what a cycle has led to.
    fn finish(&mut self, ended: EndedCycle, settings: &Settings, trigger: Trigger, started: Instant) -> CycleResult {
        let EndedCycle { decision, done, extract, mut drift, undone, restarts } = ended;
        let mut report = self.report(&decision, settings);
        self.failures.note(&report);
        let outcome = match (report.converged, done.iter().any(|action| !action.only_records())) {
            (false, _) => CycleOutcome::Failed,
            (true, true) => CycleOutcome::Changed,
            (true, false) => CycleOutcome::Unchanged,
        };
        // a repair counts when it has come about, be it at a later try, to which it looks like unfinished work
        drift.append(&mut self.unrepaired);
        if outcome == CycleOutcome::Failed {
            self.unrepaired = std::mem::take(&mut drift);
        }
        drift.extend(undone);
        let duration = started.elapsed();
        report.cycle = Some(Cycle {
            trigger,
            outcome,
            time: Time(decision.seen.now.wall),
            milliseconds: millis(duration),
            extract_milliseconds: extract.map_or(0, millis),
            actions: done,
            drift: drift.clone(),
            problems: Vec::new(),
        });
        let result = self.result(report, &decision, settings, trigger);
        CycleResult { outcome, duration, extract, drift, restarts, ..result }
    }

    /// How often a cycle may try. When the last two failed alike, and nothing that is wanted has changed, a second run of the tool would
    /// end as all before it.
    fn rounds(&self, trigger: Trigger) -> usize {
        let is_again = matches!(trigger, Trigger::Retry | Trigger::Drift | Trigger::Resync | Trigger::Witness);
        if is_again && self.failures.alike() > 0 { 1 } else { ROUNDS }
    }

    /// Reads the sources. One that has changed since the last cycle must be seen unchanged a second time, `settle` later, before
    /// it counts; until then what was read before does, and the answer is false. After a source's event the agent has waited
    /// already, and at the start and for commands sources count as they are. So does what a command has followed meanwhile: otherwise its
    /// work would be undone until then.
    fn read_sources(&mut self, settings: &Settings, trigger: Trigger) -> (Vec<Snapshot>, bool) {
        let snapshots = self.reader.read(settings);
        let said = state_of(&snapshots);
        let at_once = matches!(trigger, Trigger::Start | Trigger::Command | Trigger::Config | Trigger::Source);
        let seen_twice = self.candidate.take().is_some_and(|candidate| candidate == said);
        match &self.followed {
            Some((followed, known))
                if !at_once
                    && !seen_twice
                    && *known != said
                    && !self.observer.is_followed_already(settings, &snapshots, followed) =>
            {
                self.candidate = Some(said);
                (followed.clone(), false)
            }
            Some((_, known)) if *known == said => (snapshots, true),
            _ => {
                self.followed = Some((snapshots.clone(), said));
                (snapshots, true)
            }
        }
    }

    fn report(&mut self, decision: &Decision, settings: &Settings) -> Report {
        let seen = &decision.seen;
        let mut report = report::build(ReportInputs {
            node: &self.node,
            now: &seen.now,
            os: &seen.os,
            detection: &seen.detection,
            resolved: &decision.resolved,
            observed: seen.observed.as_ref(),
            without_tool: seen.without_tool.as_ref(),
            plan: decision.plan.as_ref(),
            outlook: decision.service_plan.as_ref(),
            export: Some(&decision.pod_bundle),
            ledger: &seen.ledger,
            policy: &settings.policy,
            problems: &seen.problems,
        });
        if let Some(why) = &seen.damaged {
            report.add_problem(damaged_problem(why));
        }
        self.subject = seen.observed.as_ref().and_then(|observed| {
            let has_anchors = report.anchors.iter().any(|row| row.trusted);
            Subject::of(&observed.services, report.effective_digest, has_anchors, &seen.ledger)
        });
        report
    }

    /// What a cycle tells that has done nothing.
    fn result(&self, report: Report, decision: &Decision, settings: &Settings, trigger: Trigger) -> CycleResult {
        CycleResult {
            report,
            trigger,
            outcome: CycleOutcome::Failed,
            duration: Duration::ZERO,
            extract: None,
            drift: BTreeSet::new(),
            restarts: Vec::new(),
            next_grace: next_grace(decision, settings),
            next_try: next_try(decision),
            unsettled: false,
            watch: self.watch_list(decision),
            subject: self.subject.clone(),
        }
    }

    /// Where drift would show, in our own view.
    fn watch_list(&self, decision: &Decision) -> Vec<PathBuf> {
        let root = &self.observer.root;
        let mut places = BTreeSet::new();
        if let Some(observed) = &decision.seen.observed {
            let store = observed.store;
            let bundle_dir = Path::new(store.bundle).parent().unwrap_or(Path::new("/"));
            let dirs =
                [Path::new(store.anchors_dir), bundle_dir, Path::new(store.hash_dir.unwrap_or(store.anchors_dir))];
            places.extend(dirs.iter().filter_map(|dir| root.location(dir).ok()));
            let runtimes = observed.services.runtime.iter();
            places.extend(runtimes.flat_map(|runtime| runtime::watched(root, &runtime.certs)));
        }
        let exported = decision.pod_bundle.views.values().filter_map(|view| Path::new(&view.path).parent());
        places.extend(exported.filter_map(|dir| root.location(dir).ok()));
        places.into_iter().collect()
    }

    fn without_lock(
        &mut self,
        settings: &Settings,
        trigger: Trigger,
        started: Instant,
        error: &std::io::Error,
    ) -> CycleResult {
        let snapshots = self.reader.read(settings);
        let decision = self.look(settings, &snapshots);
        let mut report = self.report(&decision, settings);
        report.add_problem(lock_problem(error));
        CycleResult { duration: started.elapsed(), ..self.result(report, &decision, settings, trigger) }
    }
}

/// What a cycle has led to.
struct EndedCycle {
    /// The last decision, with every problem that the cycle has to tell.
    decision: Decision,
    done: Vec<Action>,
    extract: Option<Duration>,
    drift: BTreeSet<Drift>,
    undone: BTreeSet<Drift>,
    restarts: Vec<bool>,
}

impl EndedCycle {
    fn of(run: CycleRun<'_>) -> Self {
        let CycleRun { mut decision, done, mut problems, extract, drift, undone, restarts, .. } = run;
        problems.append(&mut decision.seen.problems);
        problems.extend(unverified(&decision));
        let mut seen = BTreeSet::new();
        problems.retain(|problem| seen.insert((problem.kind, problem.text.clone())));
        refine_advice(&mut problems, &decision.seen.os);
        decision.seen.problems = problems;
        Self { decision, done, extract, drift, undone, restarts }
    }
}

/// What is not as the plan wants it.
fn unverified(decision: &Decision) -> Vec<Problem> {
    match (&decision.plan, &decision.seen.observed) {
        (Some(plan), Some(observed)) => verify(plan, observed),
        _ => Vec::new(),
    }
}

/// Seconds until the next grace time ends.
fn next_grace(decision: &Decision, settings: &Settings) -> Option<u64> {
    let (plan, seen) = (decision.plan.as_ref()?, &decision.seen);
    // What waits for an approval, or for the runtime, is decided when that changes.
    let waits = |fingerprint| plan.waiting.get(fingerprint).is_some_and(|wait| *wait != RemovalWait::RuntimeNotJudged);
    let in_grace = plan.ledger.anchors.iter().filter(|(_, entry)| entry.state == AnchorState::Grace);
    let elapsed = in_grace
        .filter(|(fingerprint, _)| !waits(fingerprint))
        .filter_map(|(_, entry)| Some(seen.now.elapsed_since(entry.unwanted_since.as_ref()?, seen.ledger.updated)));
    elapsed.map(|elapsed| settings.policy.removal_grace.saturating_sub(elapsed)).min()
}

/// Seconds until a restart that is held may be made.
fn next_try(decision: &Decision) -> Option<u64> {
    let service_plan = decision.service_plan.as_ref()?;
    let held = service_plan.hold.as_ref().and_then(|hold| hold.wait);
    held.into_iter().chain(service_plan.trust.again).min()
}

/// Where a directory is read-only on a system that has its own way to add a CA, that way is what helps.
fn refine_advice(problems: &mut [Problem], os: &OsRelease) {
    let Some(way) = where_read_only(os) else { return };
    let read_only = std::io::Error::from_raw_os_error(nix::libc::EROFS).to_string();
    for problem in problems {
        if problem.kind == ProblemKind::Write && problem.text.ends_with(&read_only) {
            problem.next = way.to_owned();
        }
    }
}

fn lock_problem(error: &std::io::Error) -> Problem {
    let (text, next) = match error.kind() {
        std::io::ErrorKind::TimedOut => (
            format!("another nodetrust, or a tool that it started, keeps {}", own_paths::LOCK),
            "look for its process on the host".to_owned(),
        ),
        _ => (
            format!("failed to take {}: {error}", own_paths::LOCK),
            way_out_or(error, "is /run of the host mounted and writable?"),
        ),
    };
    Problem::new(ProblemKind::Lock, text, next)
}

/// In whole milliseconds, rounded.
fn millis(duration: Duration) -> u64 {
    u64::try_from((duration + Duration::from_micros(500)).as_millis()).unwrap_or(u64::MAX)
}
