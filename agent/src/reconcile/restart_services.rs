//! The part of a cycle after the store: the services that read the bundle when they start are made to follow it.
//!
//! What is done is written down before: a crash at any point leads to the same end.

use std::io;

use nodetrust_core::{
    action::{Action, ServiceAction},
    certificate::fingerprint::SetDigest,
    problem::{Problem, ProblemKind},
    runtime::{
        attempts::AttemptOutcome,
        service_plan::ServicePlan,
        services::{Runtime, Services},
        staleness::failure,
    },
};

use super::{ledger_writer::LedgerWriter, observe::Decision, run::CycleRun};
use crate::{
    host::{
        self,
        exec::HostExec,
        obstacle::{way_out_or, write_problem},
        own_paths,
        root::HostRoot,
    },
    runtime,
};

impl CycleRun<'_> {
    /// Does what is due for the services, given the bundle as it was just read, and looks again if something was done.
    pub(super) fn restart_services(&mut self) {
        let mut told = Vec::new();
        self.follow_bundle(&mut told);
        self.problems.append(&mut self.decision.seen.problems);
        self.problems.extend(told);
    }

    /// `told`: what went wrong.
    fn follow_bundle(&mut self, told: &mut Vec<Problem>) {
        let Some(mut due) = self.decision.services_due(self.settings) else { return };
        if due.actions.is_empty() {
            self.decision.service_plan = Some(due);
            return;
        }
        // first what may make a restart needless
        self.write_registry_files(&due, told);
        let has_files = due.actions.iter().any(|action| !action.is_restart());
        let unwritten = !told.is_empty();
        // what the last look found of a restart that failed is told with the end of its log instead
        let mut known_failure = None;
        if due.actions.iter().any(ServiceAction::is_restart) || unwritten {
            if has_files || !self.decision.seen.services_asked {
                // somebody else may have restarted it while the tool ran
                self.look_again();
            }
            let runtime = self.decision.seen.observed.as_mut().and_then(|seen| seen.services.runtime.as_mut());
            if let Some(runtime) = runtime.filter(|_| unwritten) {
                // a file that cannot be written makes up for nothing
                runtime.certs.unwritten = true;
            }
            match self.decision.services_due(self.settings) {
                Some(fresh) => due = fresh,
                None => return,
            }
            known_failure = self.restart(&due, told);
        }
        self.look_again();
        self.record_processes(told);
        self.decision.service_plan = self.decision.services_due(self.settings);
        self.decision.seen.problems.retain(|problem| Some(problem) != known_failure.as_ref());
    }

    /// Writes and removes our files in registry directories.
    fn write_registry_files(&mut self, due: &ServicePlan, told: &mut Vec<Problem>) {
        let Some(plan) = &self.decision.plan else { return };
        let root = &self.observer.root;
        let mut writer = self.observer.ledger_writer(&self.decision.seen);
        writer.follow_services(plan);
        for action in &due.actions {
            let result = match action {
                ServiceAction::WriteRegistryCerts { path, .. } => begin_registry_file(root, &mut writer, path)
                    .and_then(|()| {
                        let served = plan.targets.iter().filter(|(print, _)| due.serves.contains(print));
                        runtime::write_file(root, path, served.map(|(_, target)| &target.anchor))
                            .map_err(|error| certs_problem(path, &error))
                    }),
                ServiceAction::RemoveRegistryCerts { path } => runtime::remove_file(root, path)
                    .map_err(|error| certs_problem(path, &error))
                    .and_then(|()| writer.forget_registry_file(path).map_err(|error| ledger_problem(&error))),
                ServiceAction::Restart { .. } => continue,
            };
            match result {
                Ok(()) => self.done.push(Action::Service(action.clone())),
                Err(problem) => told.push(problem),
            }
        }
    }

    /// Restarts what is due until one fails: what comes after the runtime builds on it. Returns the problem that the next look has of a
    /// restart that failed.
    fn restart(&mut self, due: &ServicePlan, told: &mut Vec<Problem>) -> Option<Problem> {
        let Decision { plan: Some(plan), seen, .. } = &self.decision else { return None };
        let observed = seen.observed.as_ref()?;
        let set = SetDigest::of(&plan.in_force(observed, &observed.effective.set));
        let limit = self.settings.extract_timeout;
        let exec = HostExec { root: &self.observer.root, lock: Some(self.lock), limit };
        let mut writer = self.observer.ledger_writer(&self.decision.seen);
        writer.follow_services(plan);
        for action in &due.actions {
            let ServiceAction::Restart { unit, .. } = action else { continue };
            if let Err(hold) = self.observer.permit.begin() {
                tracing::info!(unit, "the restart is held back: {}", hold.why); // the next look reports it
                return None;
            }
            let runtime = runtime_of(&observed.services, unit);
            let refuses = runtime.and_then(|runtime| Some((runtime.service.process.as_ref()?, &set)));
            if let Err(error) = writer.record_restart_attempt(&seen.now, self.restarts.is_empty(), refuses) {
                // what cannot be written down is not done: nothing would keep it from being done again and again
                told.push(ledger_problem(&error));
                return None;
            }
            tracing::info!(unit, "restarting a service that read the bundle as it was");
            let restarted = runtime::restart(&exec, unit, runtime);
            told.extend(restarted.problems);
            self.restarts.push(restarted.failed.is_none());
            let outcome = restarted.failed.clone().map_or(AttemptOutcome::Done, AttemptOutcome::Failed);
            if let Err(error) = writer.record_restart_outcome(outcome) {
                told.push(ledger_problem(&error));
                return None;
            }
            if let Some(why) = restarted.failed {
                told.push(failure(unit, format!("{why}{}", restarted.log)));
                return Some(failure(unit, why));
            }
            self.done.push(Action::Service(action.clone()));
        }
        None
    }

    /// Writes down which processes run now.
    fn record_processes(&mut self, told: &mut Vec<Problem>) {
        let Decision { plan: Some(plan), seen, .. } = &self.decision else { return };
        if plan.changes_store() || plan.ledger.same_as(&seen.ledger) {
            return;
        }
        let mut writer = self.observer.ledger_writer(&self.decision.seen);
        match writer.record_processes(plan) {
            Ok(()) => {
                let ledger = writer.into_ledger();
                self.follow_ledger(ledger);
            }
            Err(error) => told.push(ledger_problem(&error)),
        }
    }
}

fn begin_registry_file(root: &HostRoot, writer: &mut LedgerWriter<'_>, path: &str) -> Result<(), Problem> {
    let missing = host::missing_directories(root, path).map_err(|error| certs_problem(path, &error))?;
    writer.begin_registry_file(path, missing).map_err(|error| ledger_problem(&error))
}

fn runtime_of<'a>(services: &'a Services, unit: &str) -> Option<&'a Runtime> {
    services.runtime.as_ref().filter(|runtime| runtime.service.unit == unit)
}

fn certs_problem(path: &str, error: &io::Error) -> Problem {
    let text = format!("failed to write {path}: {error}");
    let next = way_out_or(error, "look at the directory on the host; the agent tries again");
    Problem::new(ProblemKind::RegistryCerts, text, next)
}

fn ledger_problem(error: &io::Error) -> Problem {
    write_problem(own_paths::LEDGER, error)
}
