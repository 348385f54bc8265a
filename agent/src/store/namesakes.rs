//! Warnings about anchors that pose as certificates of the distribution: read from the bundle, and only when what is in it and not
//! ours has changed.

use std::collections::BTreeSet;

use nodetrust_core::{
    certificate::{
        bundle,
        fingerprint::{Fingerprint, SetDigest},
        namesake::Others,
    },
    ledger::Ledger,
    observed::Observed,
    source::Resolved,
    store::TrustStore,
};

use crate::{host::root::HostRoot, store::bundle::bundle_bytes};

/// The certificates that are not ours, as they were read last.
#[derive(Debug, Default)]
pub struct NamesakeCache {
    /// digest of the set that it was made for
    made_for: Option<SetDigest>,
    others: Others,
}

impl NamesakeCache {
    /// Adds warnings to the desired anchors.
    pub fn warn(&mut self, root: &HostRoot, observed: &Observed, ledger: &Ledger, resolved: &mut Resolved) {
        if resolved.desired.is_empty() || !observed.effective.present {
            return;
        }
        let is_ours = |print: &Fingerprint| {
            resolved.desired.contains_key(print) || ledger.anchors.get(print).is_some_and(|entry| !entry.shared)
        };
        let foreign: BTreeSet<Fingerprint> =
            observed.effective.set.iter().filter(|print| !is_ours(print)).copied().collect();
        let key = SetDigest::of(&foreign);
        if self.made_for != Some(key) {
            self.others = others(root, observed.store, is_ours);
            self.made_for = Some(key);
        }
        for wanted in resolved.desired.values_mut() {
            wanted.warnings.extend(self.others.warning(&wanted.anchor));
        }
    }
}

/// What is in a host's bundle and not ours. Empty where the bundle cannot be read: that is told elsewhere.
pub fn others(root: &HostRoot, store: &TrustStore, ours: impl Fn(&Fingerprint) -> bool) -> Others {
    let bytes = bundle_bytes(root, store).ok().flatten().unwrap_or_default();
    let certificates = bundle::certificates(&bytes);
    let foreign = certificates.iter().filter(|der| !ours(&Fingerprint::of_der(der)));
    Others::of(foreign.map(Vec::as_slice))
}
