//! When the node's store becomes another one: what is ours is taken out of the old store, and then the new one is filled.
//!
//! The first cycle that sees the change retires the old store before it does anything else, since stores may share directories and
//! bundles. The ledger names the old store until nothing of ours is found there, so neither a crash nor a tool that fails makes it
//! forgotten. A failure there does not keep the new store waiting.

use std::collections::{BTreeMap, BTreeSet};

use super::actions::{ForeignPlan, retirements, store_plan};
use crate::{
    action::{RemoveReason, StoreAction},
    certificate::fingerprint::Fingerprint,
    ledger::Ledger,
    observed::Observed,
    plan::{Plan, TargetAnchor},
    store::Family,
};

/// The plan that takes everything of ours out of an old store; `observed` is that store. The ledger keeps the anchors, for the new
/// store.
pub fn plan_retire(observed: &Observed, ledger: &Ledger) -> Plan {
    let mut plan =
        store_plan(observed, ledger, ledger.clone(), BTreeMap::new(), RemoveReason::StoreLeft, ForeignPlan::default());
    // It is a part of another plan, whose ledger is the one that is written.
    plan.actions.retain(|action| *action != StoreAction::RecordLedger);
    plan
}

/// The store to retire before anything else is done: the change is new, and the old store can be retired.
pub(super) fn retire_first(observed: &Observed, ledger: &Ledger) -> Option<Family> {
    let old = ledger.family.filter(|old| *old != observed.store.family && !ledger.old_families.contains(old))?;
    observed.old.iter().any(|store| store.family == old && store.can_be_left).then_some(old)
}

/// A plan that only retires old stores. What is to be done in the new one is decided after the next observation.
pub(super) fn only_retire(
    observed: &Observed,
    ledger: &Ledger,
    family: Family,
    targets: BTreeMap<Fingerprint, TargetAnchor>,
) -> Plan {
    let mut next = ledger.clone();
    next.old_families.insert(family);
    let mut actions = vec![StoreAction::RecordLedger];
    actions.extend(retirements(observed));
    Plan {
        actions,
        held: Vec::new(),
        awaits: None,
        targets,
        waiting: BTreeMap::new(),
        retired: BTreeSet::new(),
        refused: Vec::new(),
        distrusted: BTreeSet::new(),
        problems: Vec::new(),
        ledger: next,
    }
}

/// Writes the node's store down. After a change, what was known of the old one's bundle says nothing about the new one.
pub(super) fn follow_family(next: &mut Ledger, observed: &Observed) {
    let family = observed.store.family;
    let before = next.family.replace(family).filter(|before| *before != family);
    next.old_families.extend(before);
    next.old_families.retain(|family| observed.old.iter().any(|store| store.family == *family));
    if before.is_none() {
        return;
    }
    for (fingerprint, entry) in &mut next.anchors {
        entry.settled = false;
        entry.gone = None;
        // While the old store still has it, it may be in this bundle because of us.
        entry.shared = observed.old.is_empty() && observed.effective.set.contains(fingerprint);
    }
    next.foreign.clear();
    (next.gone, next.gone_since) = (BTreeSet::new(), None);
    next.linkless.clear();
    next.repeated = None;
    next.hooks.clear();
    next.hook_names.clear();
}

#[cfg(test)]
#[path = "old_store_tests.rs"]
mod tests;
