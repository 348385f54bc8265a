//! A cycle that is under way: what it has decided and done so far.
//!
//! Each round has four phases with one observation each: observe, decide, execute, confirm. What `confirm` sees is what the next
//! decision is made of.

use std::{collections::BTreeSet, time::Duration};

use nodetrust_core::{
    action::{Action, Drift, StoreAction, WriteReason},
    ledger::Ledger,
    observed::Observed,
    plan::Plan,
    planner::restart_by_change,
    problem::{Problem, ProblemKind},
    runtime::attempts::AttemptOutcome,
    source::Snapshot,
};

use super::{
    execute::{Applied, apply},
    ledger_writer::{CarriedOut, LedgerWriter},
    observe::{Deciding, Decision, Earlier, Observation, Observer},
};
use crate::{
    config::Settings,
    host::{exec::HostExec, lock::HostLock, obstacle::write_problem, own_paths},
    store::other_runs::await_other_runs,
};

/// A cycle that is under way.
#[derive(Debug)]
pub(super) struct CycleRun<'a> {
    pub(super) observer: &'a mut Observer,
    pub(super) settings: &'a Settings,
    pub(super) snapshots: &'a [Snapshot],
    pub(super) lock: &'a HostLock,
    /// What was decided last.
    pub(super) decision: Decision,
    pub(super) done: Vec<Action>,
    pub(super) problems: Vec<Problem>,
    /// How long the store's tool ran; None if it did not.
    pub(super) extract: Option<Duration>,
    /// What others had changed before the cycle.
    pub(super) drift: BTreeSet<Drift>,
    /// What others have undone while the cycle ran.
    pub(super) undone: BTreeSet<Drift>,
    /// For each restart that was tried, whether the service works since.
    pub(super) restarts: Vec<bool>,
}

impl<'a> CycleRun<'a> {
    /// Observes and decides for the first time.
    pub(super) fn begin(
        observer: &'a mut Observer,
        settings: &'a Settings,
        snapshots: &'a [Snapshot],
        lock: &'a HostLock,
    ) -> Self {
        let seen = observer.observe(settings, snapshots, &Earlier::default());
        let mut decision = observer.decide(settings, snapshots, seen, Deciding::First);
        let mut problems = std::mem::take(&mut decision.seen.problems);
        if let Some(why) = decision.seen.damaged.take() {
            problems.push(LedgerWriter::set_aside(&observer.root, &why));
        }
        Self {
            observer,
            settings,
            snapshots,
            lock,
            decision,
            done: Vec::new(),
            problems,
            extract: None,
            drift: BTreeSet::new(),
            undone: BTreeSet::new(),
            restarts: Vec::new(),
        }
    }

    /// Brings the store to what was decided, in at most so many rounds.
    pub(super) fn change_store(&mut self, rounds: usize) {
        for round in 0..rounds {
            let Some(plan) = &self.decision.plan else { return };
            if plan.actions.is_empty() || (round > 0 && !plan.changes_store()) {
                return;
            }
            let Some(applied) = self.execute(round == 0) else { return };
            let failed = applied.problems.iter().any(|problem| problem.kind.is_failure());
            self.confirm(&applied, failed, round == 0);
            if applied.retry_is_pointless || (failed && self.done.is_empty()) {
                return; // a second round would end the same
            }
        }
    }

    /// Carries out the plan for the store.
    fn execute(&mut self, is_first: bool) -> Option<Applied> {
        let Decision { plan: Some(plan), seen, .. } = &mut self.decision else { return None };
        let observed = seen.observed.as_ref()?;
        if plan.restarts_runtime(observed) {
            if let Err(hold) = self.observer.permit.begin() {
                tracing::info!("the change is held back with its restart: {}", hold.why); // the next look reports it
                return None;
            }
            plan.ledger.begin_restart_attempt(&seen.now); // written down with the change
        }
        // in a second round: what somebody has done after the first was seen to be complete
        self.drift.extend(plan.drift(&seen.ledger));
        let limit = self.settings.extract_timeout;
        let exec = HostExec { root: &self.observer.root, lock: Some(self.lock), limit };
        let mut applied = apply(plan, observed, &exec, seen.now.wall);
        if applied.extract > Duration::ZERO {
            *self.extract.get_or_insert(Duration::ZERO) += applied.extract;
        }
        if !is_first {
            // the second round's word counts
            self.problems.retain(|problem| {
                matches!(
                    problem.kind,
                    ProblemKind::Ledger | ProblemKind::Observe | ProblemKind::Services | ProblemKind::RegistryCerts
                )
            });
        }
        self.problems.extend(applied.problems.iter().cloned());
        self.done.extend(applied.done.iter().cloned().map(Action::Store));
        if let Some((unit, failed)) = applied.restarted.take() {
            self.restarts.push(failed.is_none());
            if failed.is_none() {
                self.done.push(Action::Service(restart_by_change(observed, unit)));
            }
            plan.ledger.end_restart_attempt(failed.map_or(AttemptOutcome::Done, AttemptOutcome::Failed));
        }
        Some(applied)
    }

    /// Looks at what has come about, writes it down, and decides anew. The services are not asked: the store's tool does not change them.
    fn confirm(&mut self, applied: &Applied, failed: bool, is_first: bool) {
        let Decision {
            plan: Some(plan), seen: Observation { observed: Some(observed), ledger: before, now, .. }, ..
        } = &self.decision
        else {
            return;
        };
        await_other_runs(&self.observer.root, observed.store);
        let known = before.known_foreign();
        let earlier = Earlier { services: Some(&observed.services), foreign: &known | &plan.ledger.known_foreign() };
        let mut seen = self.observer.observe(self.settings, self.snapshots, &earlier);
        if let Some(after) = &mut seen.observed {
            // what has come about is judged by what was known before
            let (lost, gone) = (after.lost.clone(), after.gone.clone());
            after.lost = &lost & &known;
            after.gone = &gone & &known;
            let seen_earlier = applied.published.as_ref().filter(|(_, then)| *then == after.effective.set);
            let published = seen_earlier.map(|(at, _)| at.clone());
            let carried_out = CarriedOut { without_error: !failed, hooks_done: applied.hooks_done, published };
            let settled = LedgerWriter::settle(&self.observer.root, plan, after, carried_out, now.wall);
            (after.lost, after.gone) = (lost, gone);
            match settled {
                Ok(Some(ledger)) => seen.follow(ledger),
                Ok(None) => seen.forget_unknown_foreign(),
                Err(error) => {
                    seen.forget_unknown_foreign();
                    self.problems.push(write_problem(own_paths::LEDGER, &error));
                }
            }
        }
        let mut next = self.observer.decide(self.settings, self.snapshots, seen, Deciding::Within);
        if let (true, Some(undone)) = (is_first, &next.plan) {
            self.undone.extend(undone_since(plan, observed, &self.done, undone));
        }
        self.problems.append(&mut next.seen.problems);
        self.decision = next;
    }

    /// Observes and decides anew; the services are asked.
    pub(super) fn look_again(&mut self) {
        let seen = self.observer.observe(self.settings, self.snapshots, &Earlier::default());
        self.decision = self.observer.decide(self.settings, self.snapshots, seen, Deciding::Within);
    }

    /// Decides anew after the ledger was written, without another look.
    pub(super) fn follow_ledger(&mut self, ledger: Ledger) {
        let mut seen = self.decision.seen.clone();
        seen.follow(ledger);
        self.decision = self.observer.decide(self.settings, self.snapshots, seen, Deciding::Within);
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
