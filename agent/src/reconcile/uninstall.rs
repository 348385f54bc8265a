//! Taking everything of ours off a host.

use std::{path::Path, sync::Arc};

use nodetrust_core::{
    plan::{plan_uninstall, settle},
    report::Report,
    verify::{Problem, ProblemKind, verify},
};

use super::{ROUNDS, Reconciler, lock_problem, patience};
use crate::{
    apply::apply,
    config::Settings,
    extract::{chain, write_problem},
    host::{
        exec::HostExec,
        ledger,
        lock::{self, HostLock},
    },
    observe::{await_other_runs, observe},
};

impl Reconciler {
    /// Removes all that is ours, and proves it.
    pub fn uninstall(&mut self, settings: &Settings) -> Report {
        let empty = Settings { sources: Vec::new(), ..settings.clone() };
        let lock = match HostLock::take(&self.root, patience(settings)) {
            Ok(lock) => lock,
            Err(error) => {
                let mut report = self.inspect(&empty);
                report.add_problem(lock_problem(&error));
                return report;
            }
        };
        self.cache.set_asks(Some(settings.extract_timeout));
        let mut problems = Vec::new();
        for _ in 0..ROUNDS {
            let mut look = self.look(&empty, &[], None);
            problems.append(&mut look.problems);
            let Some(observed) = &look.observed else {
                if let Err(unsupported) = &look.detection.family {
                    let text = format!("what is ours cannot be found without the trust store: {}", unsupported.reason);
                    let kind = match unsupported.is_unknown {
                        true => ProblemKind::Observe,
                        false => ProblemKind::UnsupportedStore,
                    };
                    problems.push(Problem::new(kind, text, unsupported.advice.clone()));
                }
                break;
            };
            let plan = plan_uninstall(observed, &look.ledger);
            if !plan.changes_host() {
                // A run that would do harm is not even planned, in a second call as little as in the first: what is left stays ours.
                let left = verify(&plan, observed);
                if left.iter().any(|problem| problem.kind == ProblemKind::StillTrusted) {
                    let left = left.into_iter().filter(|problem| problem.kind.is_failure());
                    let new: Vec<Problem> = left.filter(|problem| !problems.contains(problem)).collect();
                    problems.extend(new);
                }
                break;
            }
            problems.clear();
            let exec = HostExec { root: &self.root, lock: Some(&lock), limit: settings.extract_timeout };
            let applied = apply(&plan, observed, &exec, look.now.wall);
            let failed = applied.problems.iter().any(|problem| problem.kind.is_failure());
            problems.extend(applied.problems);
            await_other_runs(&self.root, observed.store);
            match observe(&self.root, observed.store, &look.ledger.known_foreign(), &mut self.cache) {
                Ok(after) => {
                    let wrong = verify(&plan, &after);
                    let mut ledger = settle(&plan, &after, !failed, look.now.wall);
                    if applied.hooks_done {
                        ledger.hooks.clear();
                    }
                    problems.extend(wrong);
                    if let Err(error) = self.write_ledger(&ledger, look.now.wall) {
                        problems.push(write_problem(ledger::PATH, &error));
                    }
                }
                Err(error) => {
                    let next = error.next("look at the path on the host");
                    problems.push(Problem::new(ProblemKind::Observe, chain(&error), next));
                }
            }
        }
        if !problems.iter().any(|problem| problem.kind.is_failure())
            && let Err(error) = self.remove_own_directories(settings)
        {
            problems.push(write_problem(ledger::DIR, &error));
        }
        self.cache.set_asks(None);
        drop(lock); // looking waits for it
        let mut report = self.inspect(&empty);
        for problem in problems {
            report.add_problem(problem);
        }
        report
    }

    fn remove_own_directories(&self, settings: &Settings) -> std::io::Result<()> {
        let ledger = match ledger::read(&self.root)? {
            ledger::Read::Good(ledger) => ledger,
            ledger::Read::Damaged(_) => Arc::default(), // told; what is known without it goes all the same
        };
        let mut created = ledger.created.clone();
        // one that the ledger has lost too
        for path in ledger.exports.iter().chain(&settings.export) {
            crate::export::remove(&self.root, path)?;
            let dirs = Path::new(path).ancestors().skip(1);
            let own = dirs.take_while(|dir| dir.starts_with(ledger::DIR) && *dir != Path::new(ledger::DIR));
            created.extend(own.map(|dir| dir.display().to_string()));
        }
        for path in &ledger.certs_files {
            crate::services::remove_file(&self.root, path)?;
        }
        // the deepest first
        for dir in created.iter().rev() {
            match self.root.remove_dir(dir) {
                Err(error) if error.kind() == std::io::ErrorKind::DirectoryNotEmpty => {}
                result => result?,
            }
        }
        ledger::remove(&self.root)?;
        self.root.remove_file(lock::PATH)
    }
}
