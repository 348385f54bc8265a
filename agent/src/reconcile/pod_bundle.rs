//! The last part of a cycle: the files that pods mount follow the extracted bundle.

use std::{collections::BTreeSet, sync::Arc};

use nodetrust_core::{
    action::{Action, ExportFormat, PodBundleAction},
    pod_bundle::PodBundlePlan,
    problem::{Problem, ProblemKind},
};

use super::{ledger_writer::LedgerWriter, run::CycleRun};
use crate::{
    host::{
        self,
        obstacle::{way_out_or, write_problem},
        own_paths,
        root::HostRoot,
    },
    pod_bundle,
};

impl CycleRun<'_> {
    /// Writes and removes exported files. What is written is recorded before, so that `uninstall` finds it whatever happens.
    pub(super) fn follow_pod_bundle(&mut self) {
        let (Some(plan), Some(observed)) = (&self.decision.plan, &self.decision.seen.observed) else { return };
        let root = &self.observer.root;
        let export = &self.settings.export;
        // also while the store is not as it should be: the bundle that is there is what programs on the node follow
        let due = match plan.changes_store() {
            true => pod_bundle::look(root, export, &self.decision.seen.ledger, observed, false),
            false => self.decision.pod_bundle.clone(),
        };
        if due.actions.is_empty() {
            self.decision.pod_bundle = due; // it may have found an obstacle that was not there before
            return;
        }
        let mut writer = self.observer.ledger_writer(&self.decision.seen);
        let mut problems = Vec::new();
        let mut failed = BTreeSet::new(); // forms of which a file could not be written
        for action in &due.actions {
            let result = match action {
                PodBundleAction::Write { path, format, .. } => {
                    let written = begin_export(root, &mut writer, path).and_then(|()| write(root, path, *format, &due));
                    if written.is_err() {
                        failed.insert(*format);
                    }
                    written.map(|()| true)
                }
                // an earlier file goes only when the new one has come; until then it is what pods read
                PodBundleAction::Remove { path, format: Some(format) } if failed.contains(format) => {
                    write(root, path, *format, &due).map(|()| false)
                }
                PodBundleAction::Remove { path, .. } => remove(root, &mut writer, path).map(|()| true),
            };
            match result {
                Ok(true) => self.done.push(Action::PodBundle(action.clone())),
                Ok(false) => {}
                Err(problem) => problems.push(problem),
            }
        }
        let ledger = writer.into_ledger();
        self.decision.pod_bundle = pod_bundle::look(root, export, &ledger, observed, plan.changes_store());
        self.decision.seen.ledger = Arc::new(ledger);
        self.problems.extend(problems);
    }
}

fn write(root: &HostRoot, path: &str, format: ExportFormat, due: &PodBundlePlan) -> Result<(), Problem> {
    match due.contents.get(&format) {
        Some(content) => pod_bundle::write(root, path, &content.bytes).map_err(|error| problem("write", path, &error)),
        None => Ok(()), // not known while the store changes: not met here
    }
}

fn remove(root: &HostRoot, writer: &mut LedgerWriter<'_>, path: &str) -> Result<(), Problem> {
    pod_bundle::remove(root, path).map_err(|error| problem("remove", path, &error))?;
    writer.forget_export(path).map_err(|error| write_problem(own_paths::LEDGER, &error))
}

fn begin_export(root: &HostRoot, writer: &mut LedgerWriter<'_>, path: &str) -> Result<(), Problem> {
    let missing = host::missing_directories(root, path).map_err(|error| problem("write", path, &error))?;
    // the ledger's own directory goes with the ledger
    let missing = missing.into_iter().filter(|dir| dir != own_paths::DIR).collect();
    writer.begin_export(path, missing).map_err(|error| write_problem(own_paths::LEDGER, &error))
}

fn problem(what: &str, path: &str, error: &std::io::Error) -> Problem {
    let text = format!("failed to {what} {path}: {error}");
    Problem::new(
        ProblemKind::Export,
        text,
        way_out_or(error, "look at its directory on the host; the agent tries again"),
    )
}
