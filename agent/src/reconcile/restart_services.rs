//! The last part of a cycle: the services that read the bundle when they start are made to follow it.
//!
//! The store is as it will be when this begins. What is done is written down before: a crash at any point leads to the same end.

use nodetrust_core::{
    action::ServiceAction,
    certificate::fingerprint::SetDigest,
    ledger::Ledger,
    problem::{Problem, ProblemKind},
    runtime::{
        attempts::{AttemptOutcome, with_attempt},
        service_plan::ServicePlan,
        services::{Runtime, Services},
        staleness::{decide, failure},
        testimony::note_restart,
    },
    source::Snapshot,
};

use super::{Look, Reconciler};
use crate::{
    config::Settings,
    host::{
        self,
        exec::HostExec,
        lock::HostLock,
        obstacle::{way_out_or, write_problem},
        own,
    },
    runtime,
};

/// What was done for the services.
#[derive(Debug, Default)]
pub(super) struct Followed {
    pub(super) done: Vec<ServiceAction>,
    pub(super) problems: Vec<Problem>,
    /// for each restart that was tried, whether the service works since
    pub(super) restarts: Vec<bool>,
}

impl Reconciler {
    /// Does what is due for the services, given the bundle as it was just read, and looks again if something was done.
    pub(super) fn follow_services(
        &mut self,
        settings: &Settings,
        snapshots: &[Snapshot],
        lock: &HostLock,
        look: &mut Look,
    ) -> Followed {
        let mut followed = Followed::default();
        let Some(mut outlook) = now_due(settings, look) else { return followed };
        if outlook.actions.is_empty() {
            look.outlook = Some(outlook);
            return followed;
        }
        // first what may make a restart needless
        self.carry_out(settings, lock, look, &outlook, Part::Files, &mut followed);
        let unwritten = !followed.problems.is_empty();
        if outlook.actions.iter().any(ServiceAction::is_restart) || unwritten {
            // somebody else may have restarted it while the tool ran
            *look = self.look(settings, snapshots, None);
            let runtime = look.observed.as_mut().and_then(|observed| observed.services.runtime.as_mut());
            if let Some(runtime) = runtime.filter(|_| unwritten) {
                // a file that cannot be written makes up for nothing
                runtime.certs.unwritten = true;
            }
            match now_due(settings, look) {
                Some(fresh) => outlook = fresh,
                None => return followed,
            }
            self.carry_out(settings, lock, look, &outlook, Part::Restarts, &mut followed);
        }
        *look = self.look(settings, snapshots, None);
        self.record_processes(settings, snapshots, look, &mut followed);
        look.outlook = now_due(settings, look);
        if followed.restarts.contains(&false) {
            // It was reported just now, with the end of the unit's log.
            look.problems.retain(|problem| problem.kind != ProblemKind::Restart);
        }
        followed
    }

    fn carry_out(
        &self,
        settings: &Settings,
        lock: &HostLock,
        look: &Look,
        outlook: &ServicePlan,
        part: Part,
        followed: &mut Followed,
    ) {
        let (Some(plan), Some(observed)) = (&look.plan, &look.observed) else { return };
        let mut known = Ledger {
            services: plan.ledger.services.clone(),
            published: plan.ledger.published.clone(),
            certs_files: plan.ledger.certs_files.clone(),
            registry: plan.ledger.registry.clone(),
            ..Ledger::clone(&look.ledger)
        };
        for action in outlook.actions.iter().filter(|action| action.is_restart() == (part == Part::Restarts)) {
            let result = match action {
                ServiceAction::WriteRegistryCerts { path, .. } => {
                    let missing =
                        host::missing_directories(&self.root, path).map_err(|error| certs_problem(path, &error));
                    known.certs_files.insert(path.clone());
                    let served = plan.targets.iter().filter(|(print, _)| outlook.serves.contains(print));
                    let noted = missing.and_then(|missing| {
                        known.created.extend(missing);
                        self.note(&known, look)
                    });
                    noted.and_then(|()| {
                        let anchors = served.map(|(_, target)| &target.anchor);
                        runtime::write_file(&self.root, path, anchors).map_err(|error| certs_problem(path, &error))
                    })
                }
                ServiceAction::RemoveRegistryCerts { path } => {
                    let removed = runtime::remove_file(&self.root, path).map_err(|error| certs_problem(path, &error));
                    removed.and_then(|()| {
                        known.certs_files.remove(path);
                        self.note(&known, look)
                    })
                }
                ServiceAction::Restart { unit, .. } => {
                    // the restarts of one cycle count as one attempt
                    if followed.restarts.is_empty() {
                        known.attempts = with_attempt(&known.attempts, &look.now);
                    }
                    let runtime = runtime_of(&observed.services, unit);
                    if let Some(process) = runtime.and_then(|runtime| runtime.service.process.as_ref()) {
                        let in_force = plan.in_force(observed, &observed.effective.set);
                        note_restart(&mut known, process, &SetDigest::of(&in_force));
                    }
                    // what cannot be written down is not done: nothing would keep it from being done again and again
                    self.note(&known, look).and_then(|()| {
                        let exec = HostExec { root: &self.root, lock: Some(lock), limit: settings.extract_timeout };
                        tracing::info!(unit, "restarting a service that read the bundle as it was");
                        let restarted = runtime::restart(&exec, unit, runtime);
                        followed.problems.extend(restarted.problems);
                        followed.restarts.push(restarted.failed.is_none());
                        let outcome = restarted.failed.clone().map_or(AttemptOutcome::Done, AttemptOutcome::Failed);
                        if let Some(last) = known.attempts.last_mut() {
                            let failed_before = matches!(last.outcome, Some(AttemptOutcome::Failed(_)));
                            last.outcome = if failed_before { last.outcome.take() } else { Some(outcome) };
                        }
                        self.note(&known, look)?;
                        let log = restarted.log;
                        restarted.failed.map_or(Ok(()), |why| Err(failure(unit, why + &log)))
                    })
                }
            };
            match result {
                Ok(()) => followed.done.push(action.clone()),
                Err(problem) => {
                    followed.problems.push(problem);
                    if part == Part::Restarts {
                        break; // what comes after the runtime builds on it
                    }
                }
            }
        }
    }

    /// Writes down which processes run now.
    fn record_processes(
        &mut self,
        settings: &Settings,
        snapshots: &[Snapshot],
        look: &mut Look,
        followed: &mut Followed,
    ) {
        let Some(plan) = &look.plan else { return };
        if plan.changes_store() || plan.ledger.same_as(&look.ledger) {
            return;
        }
        match self.note(&plan.ledger, look) {
            Ok(()) => {
                let services = look.observed.as_ref().map(|observed| observed.services.clone());
                *look = self.look(settings, snapshots, services.as_ref());
            }
            Err(problem) => followed.problems.push(problem),
        }
    }

    fn note(&self, ledger: &Ledger, look: &Look) -> Result<(), Problem> {
        self.write_ledger(ledger, look.now.wall).map_err(|error| write_problem(own::LEDGER, &error))
    }
}

/// What of an outlook is carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Files,
    Restarts,
}

/// What is due for the services, over the bundle that is there.
fn now_due(settings: &Settings, look: &Look) -> Option<ServicePlan> {
    let (plan, observed) = (look.plan.as_ref()?, look.observed.as_ref()?);
    let wanted = plan.wanted(observed, observed.effective.set.clone());
    Some(decide(&observed.services, &plan.ledger, &wanted, &settings.runtime, &look.now))
}

fn runtime_of<'a>(services: &'a Services, unit: &str) -> Option<&'a Runtime> {
    services.runtime.as_ref().filter(|runtime| runtime.service.unit == unit)
}

fn certs_problem(path: &str, error: &std::io::Error) -> Problem {
    let text = format!("failed to write {path}: {error}");
    let next = way_out_or(error, "look at the directory on the host; the agent tries again");
    Problem::new(ProblemKind::RegistryCerts, text, next)
}
