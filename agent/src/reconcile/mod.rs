//! One cycle: look, decide, do, look again, report.
//!
//! A cycle cannot fail: what went wrong is in the [`Report`]. Every trigger runs the same full cycle.
//! One task owns the host, and the lock keeps it the only one on the node.

mod cycle;
pub mod execute;
mod pod_bundle;
mod restart_services;
mod uninstall;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use nodetrust_core::{
    action::{Action, Drift, StoreAction, WriteReason},
    certificate::fingerprint::Fingerprint,
    cycle::{CycleOutcome, Trigger},
    ledger::Ledger,
    observed::Observed,
    plan::Plan,
    planner::{plan, settle},
    pod_bundle::PodBundlePlan,
    problem::{Problem, ProblemKind},
    report::{self, Cycle, Report, ReportInputs},
    runtime::{service_plan::ServicePlan, services::Services, staleness::decide},
    source::{Resolved, Snapshot, policy::Circumstances, resolve::resolve},
    store::{Detection, anchor_file::file_name, os_release::OsRelease, where_read_only},
    time::{Moment, Time},
    verify::verify,
};

pub use cycle::CycleResult;
pub(crate) use cycle::{Failures, read_note};
use cycle::{last_cycle, note_cycle};

use crate::{
    config::Settings,
    error::chain,
    host::{
        self,
        exec::HostExec,
        ledger_file,
        lock::{self, HostLock},
        obstacle::{way_out_or, write_problem},
        own,
        root::HostRoot,
    },
    reconcile::execute::apply,
    runtime::{self, witness::Subject},
    sources::{Said, SourceReader, state_of},
    store::{
        detect,
        namesakes::NamesakeCache,
        observe::{StoreCache, observe, old_stores},
        other_runs::await_other_runs,
    },
};

/// Rounds in a cycle: a second one when the first did not lead to what was wanted.
const ROUNDS: usize = 2;
/// How long looking waits for a cycle that is running.
const PATIENCE_TO_LOOK: Duration = Duration::from_secs(3);

/// Owns a host.
#[derive(Debug)]
pub struct Reconciler {
    root: HostRoot,
    node: String,
    reader: SourceReader,
    cache: StoreCache,
    remembered: ledger_file::LedgerCache,
    services: runtime::RuntimeCache,
    namesakes: NamesakeCache,
    /// the sources as they are followed, and what they say
    followed: Option<(Vec<Snapshot>, Said)>,
    /// a change that was seen once
    candidate: Option<Said>,
    /// drift whose repair has not succeeded yet
    unrepaired: BTreeSet<Drift>,
    /// how the last cycles ended
    failures: Failures,
    /// the runtime that can be asked, by the last look that was reported
    subject: Option<Subject>,
}

/// A look at a host, and what follows from it.
struct Look {
    now: Moment,
    os: OsRelease,
    detection: Detection,
    ledger: Arc<Ledger>,
    resolved: Resolved,
    observed: Option<Observed>,
    plan: Option<Plan>,
    outlook: Option<ServicePlan>,
    export: PodBundlePlan,
    problems: Vec<Problem>,
    /// the ledger's file is there and damaged
    damaged: Option<String>,
}

impl Reconciler {
    /// Takes a host.
    ///
    /// # Errors
    /// If the host root cannot be opened.
    pub fn new(host_root: &Path) -> std::io::Result<Self> {
        let root = HostRoot::open(host_root)?;
        let node = host::node_name(&root);
        Ok(Self {
            root,
            node,
            reader: SourceReader::default(),
            cache: StoreCache::default(),
            remembered: ledger_file::LedgerCache::default(),
            services: runtime::RuntimeCache::default(),
            namesakes: NamesakeCache::default(),
            followed: None,
            candidate: None,
            unrepaired: BTreeSet::new(),
            failures: Failures::default(),
            subject: None,
        })
    }

    /// The host.
    pub fn root(&self) -> &HostRoot {
        &self.root
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
        let ledger = match ledger_file::read(&self.root) {
            Ok(ledger_file::LedgerRead::Good(ledger)) => ledger,
            _ => Arc::new(Ledger::new()), // `look` reports it
        };
        let in_place = ledger.exports.iter().find(|path| nodetrust_core::pod_bundle::is_in_place(path));
        let export = in_place.or(ledger.exports.first()).cloned();
        let runtime = ledger.runtime.clone().unwrap_or_default().into();
        let mut settings = Settings { family: ledger.family, export, runtime, ..Settings::default() };
        settings.policy.removal_grace = ledger.removal_grace.unwrap_or(settings.policy.removal_grace);
        let snapshots: Vec<Snapshot> =
            ledger.sources.iter().map(|(name, source)| Snapshot::remembered(name, source, &ledger)).collect();
        self.inspect_snapshots(&settings, &snapshots)
    }

    fn inspect_snapshots(&mut self, settings: &Settings, snapshots: &[Snapshot]) -> Report {
        // in the middle of a cycle the host is neither as it was nor as it will be
        let busy = lock::is_busy(&self.root, PATIENCE_TO_LOOK);
        let mut look = self.look(settings, snapshots, None);
        if let (Some(plan), Some(observed)) = (&look.plan, &look.observed) {
            look.problems.extend(verify(plan, observed));
        }
        let mut report = self.report(&look, settings);
        report.cycle = last_cycle(&self.root);
        if busy {
            report.next.insert(0, "a cycle is running on this node right now: look again in a moment".to_owned());
        }
        report
    }

    /// One full cycle.
    pub fn cycle(&mut self, settings: &Arc<Settings>, trigger: Trigger) -> CycleResult {
        let started = Instant::now();
        let mut lock = match HostLock::take(&self.root, patience(settings)) {
            Ok(lock) => lock,
            Err(error) => return self.without_lock(settings, trigger, started, &error),
        };
        self.cache.set_asks(Some(settings.extract_timeout));
        // under the lock: what was read before a long wait may be old, and whoever kept it may have followed what is new
        let (snapshots, settled) = self.read_sources(settings, trigger);
        let mut look = self.look(settings, &snapshots, None);
        let (mut drift, mut undone_meanwhile) = (BTreeSet::new(), BTreeSet::new());
        let mut extract = None;
        let mut done = Vec::new();
        let mut problems = std::mem::take(&mut look.problems);
        if let Some(why) = look.damaged.take() {
            problems.push(self.set_ledger_aside(&why));
        }
        let exec_limit = settings.extract_timeout;
        for round in 0..self.rounds(trigger) {
            let (Some(plan), Some(observed)) = (&look.plan, &look.observed) else { break };
            if plan.actions.is_empty() || (round > 0 && !plan.changes_store()) {
                break;
            }
            // in a second round: what somebody has done after the first was seen to be complete
            drift.extend(plan.drift(&look.ledger));
            let applied = {
                let exec = HostExec { root: &self.root, lock: Some(&lock), limit: exec_limit };
                apply(plan, observed, &exec, look.now.wall)
            };
            if applied.extract > Duration::ZERO {
                *extract.get_or_insert(Duration::ZERO) += applied.extract;
            }
            if round > 0 {
                // the second round's word counts
                problems.retain(|problem| {
                    matches!(
                        problem.kind,
                        ProblemKind::Ledger | ProblemKind::Observe | ProblemKind::Services | ProblemKind::RegistryCerts
                    )
                });
            }
            let failed = applied.problems.iter().any(|problem| problem.kind.is_failure());
            problems.extend(applied.problems.iter().cloned());
            done.extend(applied.done.iter().cloned().map(Action::Store));
            let before = plan.clone();
            let hooks_done = applied.hooks_done;
            await_other_runs(&self.root, observed.store);
            match observe(&self.root, observed.store, &look.ledger.known_foreign(), &mut self.cache) {
                Ok(mut after) => {
                    after.at = host::uptime(&self.root).unwrap_or_default();
                    let mut ledger = settle(&before, &after, !failed, look.now.wall);
                    if hooks_done {
                        ledger.hooks.clear();
                    }
                    if !ledger.same_as(&before.ledger)
                        && let Err(error) = self.write_ledger(&ledger, look.now.wall)
                    {
                        problems.push(write_problem(own::LEDGER, &error));
                    }
                }
                Err(error) => {
                    let next = error.next("look at the path on the host");
                    problems.push(Problem::new(ProblemKind::Observe, chain(&error), next))
                }
            }
            let services = observed.services.clone();
            let mut next = self.look(settings, &snapshots, Some(&services));
            if let (Some(undone), Some(plan), Some(observed), 0) = (&next.plan, &look.plan, &look.observed, round) {
                undone_meanwhile.extend(undone_since(plan, observed, &done, undone));
            }
            problems.append(&mut next.problems);
            look = next;
            if applied.retry_is_pointless || (failed && done.is_empty()) {
                break; // a second round would end the same
            }
        }
        let followed = self.follow_services(settings, &snapshots, &lock, &mut look);
        let (exported, unexported) = self.follow_export(settings, &mut look);
        problems.append(&mut look.problems);
        problems.extend(followed.problems.into_iter().chain(unexported));
        done.extend(followed.done.into_iter().map(Action::Service).chain(exported.into_iter().map(Action::PodBundle)));
        if let (Some(plan), Some(observed)) = (&look.plan, &look.observed) {
            problems.extend(verify(plan, observed));
        }
        let mut seen = BTreeSet::new();
        problems.retain(|problem| seen.insert((problem.kind, problem.text.clone())));
        refine_advice(&mut problems, &look.os);
        look.problems = problems;
        self.cache.set_asks(None); // from here on nothing is looked at, and the lock goes
        let mut report = self.report(&look, settings);
        self.failures.note(&report);
        let outcome = match (report.converged, done.iter().any(|action| !action.only_records())) {
            (false, _) => CycleOutcome::Failed,
            (true, true) => CycleOutcome::Changed,
            (true, false) => CycleOutcome::Unchanged,
        };
        let duration = started.elapsed();
        report.cycle = Some(Cycle {
            trigger,
            outcome,
            time: Time(look.now.wall),
            milliseconds: millis(duration),
            extract_milliseconds: extract.map_or(0, millis),
            actions: done,
            drift: BTreeSet::new(),
        });
        note_cycle(&mut lock, &report);
        // a repair counts when it has come about, be it at a later try, to which it looks like unfinished work
        drift.append(&mut self.unrepaired);
        if outcome == CycleOutcome::Failed {
            self.unrepaired = std::mem::take(&mut drift);
        }
        drift.extend(undone_meanwhile);
        if let Some(cycle) = &mut report.cycle {
            cycle.drift.clone_from(&drift);
        }
        let result = self.result(report, &look, settings, trigger, outcome, duration, extract, drift);
        CycleResult { unsettled: !settled, restarts: followed.restarts, ..result }
    }

    /// How often a cycle may try. When the last two failed alike, and nothing that is wanted has changed, a second run of the tool would
    /// end as all before it.
    fn rounds(&self, trigger: Trigger) -> usize {
        let is_again = matches!(trigger, Trigger::Retry | Trigger::Drift | Trigger::Resync | Trigger::Witness);
        if is_again && self.failures.alike() > 0 { 1 } else { ROUNDS }
    }

    /// Reads the sources. One that has changed since the last cycle must be seen unchanged a second time, `settle` later, before
    /// it counts; until then what was read before does, and the answer is false. After a source's event the agent has waited
    /// already, and at the start and for commands sources count as they are.
    fn read_sources(&mut self, settings: &Settings, trigger: Trigger) -> (Vec<Snapshot>, bool) {
        let snapshots = self.reader.read(settings);
        let said = state_of(&snapshots);
        let at_once = matches!(trigger, Trigger::Start | Trigger::Command | Trigger::Config | Trigger::Source);
        let seen_twice = self.candidate.take().is_some_and(|candidate| candidate == said);
        match &self.followed {
            Some((followed, known)) if !at_once && !seen_twice && *known != said => {
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

    /// Looks at the host, and thinks. Services are not asked again if they are `known`.
    fn look(&mut self, settings: &Settings, snapshots: &[Snapshot], known: Option<&Services>) -> Look {
        let mut problems = Vec::new();
        let (os, detection) = detect::system(&self.root, settings.family);
        let now = host::moment(&self.root).unwrap_or_else(|error| {
            problems.push(Problem::new(
                ProblemKind::Observe,
                format!("failed to read the host's boot id: {error}"),
                way_out_or(&error, "is /proc mounted?"),
            ));
            Moment { wall: host::wall(), boottime: 0, boot_id: String::new() }
        });
        let mut damaged = None;
        let ledger = match ledger_file::read_again(&self.root, &mut self.remembered, snapshots) {
            Ok(ledger_file::LedgerRead::Good(ledger)) => ledger,
            Ok(ledger_file::LedgerRead::Damaged(why)) => {
                damaged = Some(why);
                Arc::new(Ledger::new())
            }
            Err(error) => {
                let text = format!("failed to read {}: {error}", own::LEDGER);
                problems.push(Problem::new(ProblemKind::Observe, text, way_out_or(&error, "run as root on the host")));
                Arc::new(Ledger::new())
            }
        };
        self.cache.expect(snapshots);
        let mut observed = match detection.family {
            Ok(family) => observe(&self.root, family.store(), &ledger.known_foreign(), &mut self.cache)
                .and_then(|observed| {
                    let old = old_stores(&self.root, family.store(), &ledger)?;
                    Ok(Observed { old, ..observed })
                })
                .map_err(|error| {
                    problems.push(Problem::new(
                        ProblemKind::Observe,
                        chain(&error),
                        error.next("run as root; look at the path on the host"),
                    ))
                })
                .ok(),
            Err(_) => None,
        };
        match host::uptime(&self.root) {
            Ok(at) => {
                if let Some(observed) = &mut observed {
                    observed.services = known.cloned().unwrap_or_else(|| {
                        let exec = HostExec { root: &self.root, lock: None, limit: PATIENCE_TO_LOOK };
                        let cache = &mut self.services;
                        let (services, odd) = runtime::look(&exec, &settings.runtime, &ledger, &at, cache);
                        problems.extend(odd);
                        Services { choice: (&settings.runtime).into(), in_pod: is_in_pod(settings), ..services }
                    });
                    observed.at = at;
                }
            }
            Err(error) => tracing::debug!(%error, "the host's boot id cannot be read"), // told above
        }
        let installed = |fingerprint: &Fingerprint| {
            let is_there = |observed: &Observed| {
                let file = observed.ours.get(&file_name(observed.store, fingerprint));
                file.and_then(|own| own.anchor.as_ref()).is_some_and(|anchor| anchor.fingerprint == *fingerprint)
            };
            ledger.anchors.get(fingerprint).is_some_and(|entry| entry.settled)
                || observed.as_ref().is_some_and(is_there)
        };
        let drops_not_ca = detection.family.as_ref().ok().map(|family| family.store().drops_not_ca);
        let at = Circumstances { drops_not_ca, installed: &installed, now: now.wall };
        let mut resolved = resolve(snapshots, &ledger, &settings.policy, at);
        if let Some(observed) = &observed {
            self.namesakes.warn(&self.root, observed, &ledger, &mut resolved);
        }
        self.cache.share(&resolved);
        // an unreadable ledger must not be taken for an empty one
        let blind = problems.iter().any(|problem| problem.kind == ProblemKind::Observe);
        let plan = match &observed {
            Some(observed) if !blind => Some(plan(&resolved, observed, &ledger, &settings.policy, &now)),
            _ => None,
        };
        let outlook = plan.as_ref().zip(observed.as_ref()).map(|(plan, observed)| {
            let bundle = plan.expected_bundle(observed);
            decide(&observed.services, &plan.ledger, &plan.wanted(observed, bundle), &settings.runtime, &now)
        });
        let export = self.look_at_export(settings, &ledger, observed.as_ref(), plan.as_ref());
        Look { now, os, detection, ledger, resolved, observed, plan, outlook, export, problems, damaged }
    }

    fn report(&mut self, look: &Look, settings: &Settings) -> Report {
        let mut report = report::build(ReportInputs {
            node: &self.node,
            now: &look.now,
            os: &look.os,
            detection: &look.detection,
            resolved: &look.resolved,
            observed: look.observed.as_ref(),
            plan: look.plan.as_ref(),
            outlook: look.outlook.as_ref(),
            export: Some(&look.export),
            ledger: &look.ledger,
            policy: &settings.policy,
            problems: &look.problems,
        });
        if let Some(why) = &look.damaged {
            report.add_problem(damaged_problem(why));
        }
        self.subject = look.observed.as_ref().and_then(|observed| {
            let has_anchors = report.anchors.iter().any(|row| row.trusted);
            Subject::of(&observed.services, report.effective_digest, has_anchors, &look.ledger)
        });
        report
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one value, at the one place where it is made")]
    fn result(
        &self,
        report: Report,
        look: &Look,
        settings: &Settings,
        trigger: Trigger,
        outcome: CycleOutcome,
        duration: Duration,
        extract: Option<Duration>,
        drift: BTreeSet<Drift>,
    ) -> CycleResult {
        let next_grace = look.plan.as_ref().and_then(|plan| {
            let left =
                plan.ledger.anchors.values().filter(|entry| entry.state == nodetrust_core::ledger::AnchorState::Grace);
            left.filter_map(|entry| entry.left.as_ref())
                .map(|left| {
                    settings.policy.removal_grace.saturating_sub(look.now.elapsed_since(left, look.ledger.updated))
                })
                .min()
        });
        let mut watch = look.observed.as_ref().map(|observed| self.watch_list(observed)).unwrap_or_default();
        watch.extend(self.export_directory(look));
        let next_try = look.outlook.as_ref().and_then(|outlook| {
            let held = outlook.hold.as_ref().and_then(|hold| hold.wait);
            held.into_iter().chain(outlook.trust.again).min()
        });
        let restarts = Vec::new();
        CycleResult {
            report,
            trigger,
            outcome,
            duration,
            extract,
            drift,
            restarts,
            next_grace,
            next_try,
            unsettled: false,
            watch,
            subject: self.subject.clone(),
        }
    }

    /// Where drift would show.
    fn watch_list(&self, observed: &Observed) -> Vec<PathBuf> {
        let store = observed.store;
        let bundle_dir = Path::new(store.bundle).parent().unwrap_or(Path::new("/"));
        let dirs = [Path::new(store.anchors_dir), bundle_dir, Path::new(store.hash_dir.unwrap_or(store.anchors_dir))];
        let mut places: BTreeSet<PathBuf> = dirs.iter().filter_map(|dir| self.root.location(dir).ok()).collect();
        places
            .extend(observed.services.runtime.iter().flat_map(|runtime| runtime::watched(&self.root, &runtime.certs)));
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
        let look = self.look(settings, &snapshots, None);
        let mut report = self.report(&look, settings);
        report.add_problem(lock_problem(error));
        self.result(report, &look, settings, trigger, CycleOutcome::Failed, started.elapsed(), None, BTreeSet::new())
    }

    fn write_ledger(&self, ledger: &Ledger, wall: i64) -> std::io::Result<()> {
        ledger_file::write(&self.root, &Ledger { updated: wall, ..ledger.clone() })
    }

    fn set_ledger_aside(&self, why: &str) -> Problem {
        let mut problem = damaged_problem(why);
        if let Err(error) = ledger_file::set_aside(&self.root) {
            problem.text = format!("{}; it could not be set aside: {error}", problem.text);
        }
        problem
    }
}

/// What somebody has undone while the cycle was running. The ledger cannot tell, since the change is still pending; that a file must
/// be written that was right at the first look, or has been written since, can.
fn undone_since(plan: &Plan, observed: &Observed, done: &[Action], next: &Plan) -> BTreeSet<Drift> {
    let is_write =
        |action: &StoreAction, name: &str| matches!(action, StoreAction::WriteAnchor { file, .. } if file == name);
    let was_written =
        |name: &str| done.iter().any(|action| matches!(action, Action::Store(action) if is_write(action, name)));
    let was_right = |name: &str| {
        let at_first = observed.ours.get(name).is_some_and(|own| own.intact)
            && !plan.actions.iter().any(|action| is_write(action, name));
        at_first || was_written(name)
    };
    let undone = next.actions.iter().filter_map(|action| match action {
        StoreAction::WriteAnchor { file, why, .. } if was_right(file) => Some(*why),
        _ => None,
    });
    undone
        .map(|why| match why {
            WriteReason::Altered => Drift::AnchorAltered,
            WriteReason::Missing | WriteReason::New => Drift::AnchorDeleted,
        })
        .collect()
}

/// Whether this is the agent in a pod of the node: then the node has a container runtime.
fn is_in_pod(settings: &Settings) -> bool {
    #[cfg(feature = "kubernetes")]
    return settings.kubernetes.enabled != Some(false) && crate::kubernetes::is_in_cluster();
    #[cfg(not(feature = "kubernetes"))]
    return false;
}

/// How long another cycle is waited for: its tool, and a restart that it makes.
pub(crate) fn patience(settings: &Settings) -> Duration {
    runtime::longest_cycle(settings.extract_timeout)
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

fn damaged_problem(why: &str) -> Problem {
    let text = format!("{} is damaged ({why}); it is set aside and made anew from what is on the host", own::LEDGER);
    Problem::new(ProblemKind::Ledger, text, "anchors that no source has any more begin their grace time again")
}

fn lock_problem(error: &std::io::Error) -> Problem {
    let (text, next) = match error.kind() {
        std::io::ErrorKind::TimedOut => (
            format!("another nodetrust, or a tool that it started, keeps {}", own::LOCK),
            "look for its process on the host".to_owned(),
        ),
        _ => (
            format!("failed to take {}: {error}", own::LOCK),
            way_out_or(error, "run as root; is /run of the host mounted and writable?"),
        ),
    };
    Problem::new(ProblemKind::Lock, text, next)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
