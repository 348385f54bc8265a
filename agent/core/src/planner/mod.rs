//! The decision for the trust store: a pure function of what is wanted, what is there and what was written down.
//!
//! In: [`Resolved`], [`Observed`], [`Ledger`], policy, time. Out: a [`Plan`]: actions in the order in which they are done, each
//! with its reason; the ledger that records them; and what is held back, and why.
//!
//! Invariants (tests hold them for all inputs): only files with our kind of name are touched; additions come before
//! removals; an anchor in the target set is never removed; a source that says nothing removes nothing; planning again after
//! the actions were done gives no action.

mod actions;
mod adoption;
mod behind_api;
mod distrust;
mod extract;
mod foreign;
mod old_store;
mod service_records;
mod settle;
mod states;
mod uninstall;

pub use adoption::successor;
pub use behind_api::{RestartFacts, restart_by_change, tie_to_restart, uninstall_problem};
pub use extract::foreign_repeats;
pub(crate) use extract::lost_links;
pub use old_store::plan_retire;
pub use settle::settle;
pub use states::REMEMBER_GONE;
pub use uninstall::{Orphans, orphans, plan_uninstall};

use actions::ForeignPlan;
use states::Decided;

use crate::{
    action::RemoveReason,
    certificate::fingerprint::SetDigest,
    fleet::removal::{RemovalFacts, RemovalRule},
    ledger::{LEDGER_VERSION, Ledger},
    observed::Observed,
    plan::Plan,
    source::{
        Resolved,
        policy::{Policy, RemovalGate},
        resolve::remember,
    },
    time::Moment,
};

/// The plan that brings the host to what the sources and the policy want. What is known of the fleet's consent matters only where the
/// policy asks for it.
pub fn plan(
    resolved: &Resolved,
    observed: &Observed,
    ledger: &Ledger,
    policy: &Policy,
    now: &Moment,
    removal: RemovalFacts<'_>,
) -> Plan {
    let mut next = Ledger { version: LEDGER_VERSION, ..ledger.clone() };
    let retired_first = old_store::retire_first(observed, ledger);
    old_store::follow_family(&mut next, observed);
    next.removal_grace = Some(policy.removal_grace);
    states::forget_gone(&mut next, observed, now.wall);
    foreign::follow_copies(observed, &mut next);
    foreign::follow_foreign(observed, &mut next, now.wall);
    next.sources = remember(resolved, ledger, now.wall);
    next.fleet_gate = policy.removal_gate == RemovalGate::Fleet;
    let rule = next.fleet_gate.then(|| RemovalRule {
        facts: removal,
        desired: SetDigest::of(&resolved.desired.keys().copied().collect()),
        now: now.wall,
    });
    let adoption = adoption::judge(resolved, observed, &next, policy, now.wall);
    adoption.enter(observed, policy, &mut next);
    let Decided { targets, waiting } = states::decide_states(resolved, observed, policy, now, &mut next, rule);
    let plan = match retired_first {
        Some(family) => old_store::only_retire(observed, ledger, family, targets),
        None => {
            let distrust = distrust::plan(&policy.distrust, resolved, observed, &mut next);
            let others = ForeignPlan { adoption, distrust };
            actions::store_plan(observed, ledger, next, targets, RemoveReason::GraceOver, others)
        }
    };
    Plan { waiting, ..plan }
}

#[cfg(test)]
mod tests;
