//! A store behind an API: applying a change restarts the container runtime, so what holds back a restart holds back the change.

use super::actions::record_first;
use crate::{
    action::ServiceAction,
    ledger::Ledger,
    observed::Observed,
    plan::{Held, Plan},
    problem::{Problem, ProblemKind},
    runtime::{
        service_plan::{Hold, RestartGate, ServicePlan},
        services::HoldReason,
        settings::{OnChange, RuntimeSettings},
        staleness::holds_back,
    },
    time::Moment,
};

/// What decides whether the runtime may be restarted now.
#[derive(Debug, Clone, Copy)]
pub struct RestartFacts<'a> {
    /// What is on the host.
    pub observed: &'a Observed,
    /// The ledger in force.
    pub ledger: &'a Ledger,
    /// The configuration.
    pub policy: &'a RuntimeSettings,
    /// What the fleet says.
    pub gate: &'a RestartGate,
    /// Now.
    pub now: &'a Moment,
}

/// Holds back a change of the store whose restart of the runtime is held back, and names that restart in both plans otherwise.
pub fn tie_to_restart(plan: &mut Plan, services: &mut ServicePlan, facts: RestartFacts<'_>) {
    let RestartFacts { observed, ledger, policy, gate, now } = facts;
    if !plan.restarts_runtime(observed) {
        return;
    }
    match holds_back(&observed.services, ledger, policy, gate, now) {
        Some(hold) => {
            let hold = Hold { next: way_out(&hold), ..hold };
            services.actions.retain(|action| !action.is_restart());
            services.hold = Some(hold.clone());
            wait(plan, observed, ledger, hold);
        }
        None => {
            let unit = observed.services.runtime.as_ref().map(|runtime| runtime.service.unit.clone());
            if !services.actions.iter().any(ServiceAction::is_restart) {
                services.actions.extend(unit.map(|unit| restart_by_change(observed, unit)));
            }
        }
    }
}

/// The restart of the runtime that comes with a change, for reports.
pub fn restart_by_change(observed: &Observed, unit: String) -> ServiceAction {
    ServiceAction::Restart { unit, why: format!("a change of {} restarts it", observed.store.anchors_dir) }
}

/// Why an uninstall may not take the settings back: it asks no fleet, and is often told to all nodes at once. Who has configured
/// `restart` means it.
pub fn uninstall_problem(plan: &Plan, observed: &Observed, policy: &RuntimeSettings) -> Option<Problem> {
    if !plan.restarts_runtime(observed) || policy.on_change == OnChange::Restart {
        return None;
    }
    let text = format!(
        "taking our entries of {} back restarts the container runtime of this node, and uninstall asks no other node whether it may",
        observed.store.anchors_dir
    );
    let next = "have the agents take them back in turn: policy.emptySource: remove, rotation.removalGrace: 0s, and empty the sources; then uninstall. For this node alone: uninstall with runtime.onChange: restart";
    Some(Problem::new(ProblemKind::Held, text, next))
}

/// Leaves of the plan what it notes in the ledger.
fn wait(plan: &mut Plan, observed: &Observed, ledger: &Ledger, hold: Hold) {
    plan.actions.clear();
    plan.ledger.pending = ledger.pending;
    plan.ledger.begun.clone_from(&ledger.begun);
    record_first(&mut plan.actions, ledger, &plan.ledger);
    let why = format!(
        "a change of {} restarts the container runtime, and that is held back: {}",
        observed.store.anchors_dir, hold.why
    );
    plan.held.push(Held { what: "change", why, next: hold.next.clone() });
    plan.awaits = Some(hold);
}

/// What a person can do: by hand, nothing is gained by a restart before the change.
fn way_out(hold: &Hold) -> String {
    match hold.reason {
        HoldReason::Policy => "set runtime.onChange to auto or restart for these nodes".to_owned(),
        _ => hold.next.clone(),
    }
}

#[cfg(test)]
#[path = "behind_api_tests.rs"]
mod tests;
