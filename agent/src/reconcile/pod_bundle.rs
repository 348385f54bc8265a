//! After the store and its readers: the bundle that pods mount follows the extracted one.

use std::{path::Path, sync::Arc};

use nodetrust_core::{
    action::PodBundleAction,
    ledger::Ledger,
    observed::Observed,
    plan::Plan,
    pod_bundle::PodBundlePlan,
    problem::{Problem, ProblemKind},
};

use super::{Look, Reconciler};
use crate::{
    config::Settings,
    host::{
        self,
        obstacle::{way_out_or, write_problem},
        own,
    },
    pod_bundle,
};

impl Reconciler {
    /// What is to be done about it, as things are.
    pub(super) fn look_at_export(
        &self,
        settings: &Settings,
        ledger: &Ledger,
        observed: Option<&Observed>,
        plan: Option<&Plan>,
    ) -> PodBundlePlan {
        let (Some(observed), Some(plan)) = (observed, plan) else { return PodBundlePlan::default() };
        pod_bundle::look(&self.root, settings.export.as_deref(), ledger, observed, plan.changes_store())
    }

    /// Does it. What is written is recorded before, so that `uninstall` finds it whatever happens.
    pub(super) fn follow_export(&self, settings: &Settings, look: &mut Look) -> (Vec<PodBundleAction>, Vec<Problem>) {
        let (mut done, mut problems) = (Vec::new(), Vec::new());
        let Some(observed) = &look.observed else { return (done, problems) };
        if look.plan.is_none() {
            return (done, problems); // what was read does not suffice for a decision
        }
        // also while the store is not as it should be: the bundle that is there is what programs on the node follow
        let due = pod_bundle::look(&self.root, settings.export.as_deref(), &look.ledger, observed, false);
        if due.actions.is_empty() {
            look.export = due; // it may have found an obstacle that was not there before
            return (done, problems);
        }
        for action in &due.actions {
            let mut known = Ledger::clone(&look.ledger);
            let result = match action {
                // an earlier file goes only when the new one has come; until then it is what pods read
                PodBundleAction::Remove { path } if !problems.is_empty() && !due.content.is_empty() => {
                    pod_bundle::write(&self.root, path, &due.content).map_err(|error| problem("write", path, &error))
                }
                PodBundleAction::Remove { .. } if !problems.is_empty() => Ok(()),
                PodBundleAction::Write { path, .. } => {
                    let missing =
                        host::missing_directories(&self.root, path).map_err(|error| problem("write", path, &error));
                    known.exports.insert(path.clone());
                    let noted = missing.and_then(|missing| {
                        // the ledger's own directory goes with the ledger
                        known.created.extend(missing.into_iter().filter(|dir| dir != own::DIR));
                        self.note_export(&known, look)
                    });
                    noted.and_then(|()| {
                        pod_bundle::write(&self.root, path, &due.content)
                            .map_err(|error| problem("write", path, &error))
                    })
                }
                PodBundleAction::Remove { path } => {
                    let removed = pod_bundle::remove(&self.root, path).map_err(|error| problem("remove", path, &error));
                    removed.and_then(|()| {
                        known.exports.remove(path);
                        self.note_export(&known, look)
                    })
                }
            };
            match result {
                Ok(()) if problems.is_empty() => done.push(action.clone()),
                Ok(()) => {}
                Err(problem) => problems.push(problem),
            }
        }
        look.export = self.look_at_export(settings, &look.ledger, look.observed.as_ref(), look.plan.as_ref());
        (done, problems)
    }

    fn note_export(&self, known: &Ledger, look: &mut Look) -> Result<(), Problem> {
        if !known.same_as(&look.ledger) {
            self.write_ledger(known, look.now.wall).map_err(|error| write_problem(own::LEDGER, &error))?;
        }
        look.ledger = Arc::new(known.clone());
        Ok(())
    }

    /// Where a change of it would show, in our own view.
    pub(super) fn export_directory(&self, look: &Look) -> Option<std::path::PathBuf> {
        let view = look.export.view.as_ref()?;
        self.root.location(Path::new(&view.path).parent()?).ok()
    }
}

fn problem(what: &str, path: &str, error: &std::io::Error) -> Problem {
    let text = format!("failed to {what} {path}: {error}");
    Problem::new(
        ProblemKind::Export,
        text,
        way_out_or(error, "look at its directory on the host; the agent tries again"),
    )
}
