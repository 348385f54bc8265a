//! Removing all that is ours, also where the ledger is lost.
//!
//! Without a ledger nothing but evidence counts. A certificate of the bundle that lies in no file that the store's tool reads was put
//! there by a file that is gone. It was ours if the tool's link to a file of ours is still there, or if a source of the configuration
//! holds it. Whose the others were cannot be told.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    actions::{ForeignPlan, store_plan},
    distrust,
    states::adopt_own_files,
};
use crate::{
    action::RemoveReason,
    certificate::fingerprint::Fingerprint,
    ledger::{AnchorState, LEDGER_VERSION, Ledger},
    observed::Observed,
    plan::Plan,
};

/// The plan that removes all that is ours. What remains in its ledger is gone from the host, so the ledger's file may go afterwards.
pub fn plan_uninstall(observed: &Observed, ledger: &Ledger) -> Plan {
    let mut next = Ledger { version: LEDGER_VERSION, ..ledger.clone() };
    next.sources.clear();
    adopt_own_files(observed, &mut next, |_| AnchorState::Retired);
    for entry in next.anchors.values_mut() {
        entry.state = AnchorState::Retired;
    }
    let others = ForeignPlan { distrust: distrust::undo(observed, &mut next), ..ForeignPlan::default() };
    store_plan(observed, ledger, next, BTreeMap::new(), RemoveReason::Uninstall, others)
}

/// Certificates of a bundle without a source, by what is known of them.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Orphans {
    /// They were ours.
    pub ours: BTreeSet<Fingerprint>,
    /// They may have been ours.
    pub unproven: BTreeSet<Fingerprint>,
}

/// Tells which certificates of a bundle were ours. `sourceless`: in the bundle, and in no file that the tool reads. `linked`: the first
/// 16 digits in the names of links that lead to files of ours that are gone. `named`: what the sources of the configuration hold.
pub fn orphans(
    sourceless: &BTreeSet<Fingerprint>,
    linked: &BTreeSet<String>,
    named: &BTreeSet<Fingerprint>,
) -> Orphans {
    let is_ours = |print: &Fingerprint| named.contains(print) || linked.contains(&print.fp16());
    let (ours, unproven) = sourceless.iter().copied().partition(is_ours);
    Orphans { ours, unproven }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_evidence_makes_a_certificate_ours() {
        let [linked, named, both, unknown, elsewhere] =
            [b"linked", b"named!", b"both!!", b"unknow", b"elsewh"].map(|bytes| Fingerprint::of_der(bytes));
        let sourceless = BTreeSet::from([linked, named, both, unknown]);
        // a link or a source for what is not in the bundle, or has a file of somebody's, says nothing about the bundle
        let links = [linked, both, elsewhere].map(|print| print.fp16()).into();
        let found = orphans(&sourceless, &links, &[named, both, elsewhere].into());
        assert_eq!(found, Orphans { ours: [linked, named, both].into(), unproven: [unknown].into() });
        assert_eq!(orphans(&BTreeSet::new(), &links, &[named].into()), Orphans::default());
    }
}
