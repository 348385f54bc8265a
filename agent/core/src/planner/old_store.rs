//! When the node's store becomes another one: what is ours is taken out of the old store, and then the new one is filled.
//!
//! The first cycle that sees the change leaves the old store before it does anything else, since stores may share directories and
//! bundles. The ledger names the old store until nothing of ours is found there: a crash, or a tool that fails, is not forgotten,
//! and does not keep the new store waiting.

use std::collections::{BTreeMap, BTreeSet};

use super::act;
use crate::action::{Action, RemoveReason};
use crate::plan::{Plan, TargetAnchor};
use crate::{certificate::fingerprint::Fingerprint, ledger::Ledger, observed::Observed, store::Family};

/// The plan that takes everything of ours out of an old store; `observed` is that store. The ledger keeps its anchors, for the
/// new store.
pub fn plan_retire(observed: &Observed, ledger: &Ledger) -> Plan {
    let mut plan = act(observed, ledger, ledger.clone(), BTreeMap::new(), RemoveReason::StoreLeft);
    // it is a part of another plan, which records what counts
    plan.actions.retain(|action| *action != Action::RecordLedger);
    plan
}

/// The store to leave before anything else is done: the change is new, and it can be left.
pub(crate) fn leave_first(observed: &Observed, ledger: &Ledger) -> Option<Family> {
    let old = ledger.family.filter(|old| *old != observed.store.family && !ledger.left.contains(old))?;
    observed.old.iter().any(|store| store.family == old && store.can_be_left).then_some(old)
}

/// A plan that only leaves the old store. What is to be done in the new one is decided by the look after it.
pub(crate) fn only(
    observed: &Observed,
    ledger: &Ledger,
    family: Family,
    targets: BTreeMap<Fingerprint, TargetAnchor>,
) -> Plan {
    let mut next = ledger.clone();
    next.left.insert(family);
    let mut actions = vec![Action::RecordLedger];
    actions.extend(leave_actions(observed));
    Plan { actions, held: Vec::new(), targets, retired: BTreeSet::new(), ledger: next }
}

/// One action for each old store that can be left.
pub(crate) fn leave_actions(observed: &Observed) -> impl Iterator<Item = Action> {
    let stores = observed.old.iter().filter(|store| store.can_be_left);
    stores.map(|store| Action::LeaveStore { family: store.family, files: store.files.clone() })
}

/// Writes the node's store down. After a change, what was known of the old one's bundle says nothing about the new one.
pub(crate) fn follow_family(next: &mut Ledger, observed: &Observed) {
    let family = observed.store.family;
    let before = next.family.replace(family).filter(|before| *before != family);
    next.left.extend(before);
    next.left.retain(|left| observed.old.iter().any(|store| store.family == *left));
    if before.is_none() {
        return;
    }
    for (fingerprint, entry) in &mut next.anchors {
        entry.settled = false;
        entry.gone = None;
        // while the old store still has it, it may be in this bundle because of us
        entry.shared = observed.old.is_empty() && observed.effective.set.contains(fingerprint);
    }
    next.foreign.clear();
    (next.gone, next.gone_since) = (BTreeSet::new(), None);
    next.linkless.clear();
    next.repeated = None;
    next.hooks.clear();
}

#[cfg(test)]
#[path = "old_store_tests.rs"]
mod tests;
