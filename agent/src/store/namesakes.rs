//! Warnings about anchors that pose as certificates of the distribution: read from the bundle, and only when what is in it and not
//! ours has changed.

use std::collections::BTreeSet;

use nodetrust_core::{
    certificate::{
        bundle::{self, KeyIdMark},
        fingerprint::Fingerprint,
        namesake::Others,
    },
    ledger::Ledger,
    observed::{Effective, Observed},
    source::Resolved,
    store::TrustStore,
};

use crate::{host::root::HostRoot, store::bundle::bundle_bytes};

/// Those of the bundle's other certificates that have the key identifier of a desired anchor, as they were read last.
#[derive(Debug, Default)]
pub struct NamesakeCache {
    made_for: BTreeSet<Fingerprint>,
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
        let key_ids = resolved.desired.values().filter_map(|wanted| wanted.anchor.key_id().map(KeyIdMark::of));
        let key_ids: BTreeSet<KeyIdMark> = key_ids.collect();
        let alike = observed.effective.key_ids.iter().filter(|(print, id)| key_ids.contains(id) && !is_ours(print));
        let alike: BTreeSet<Fingerprint> = alike.map(|(print, _)| *print).collect();
        if alike != self.made_for {
            let is_alike = |print: &Fingerprint| alike.contains(print);
            // nearly always there is none, and nothing is read
            self.others = match alike.is_empty() {
                true => Others::default(),
                false => others(root, observed.store, &observed.effective, is_alike),
            };
            self.made_for = alike;
        }
        for wanted in resolved.desired.values_mut() {
            wanted.warnings.extend(self.others.warning(&wanted.anchor));
        }
    }
}

/// Those certificates of a host's bundle that are `wanted`. Empty where the bundle cannot be read: that is told elsewhere. `earlier`: the
/// bundle, if it was read before.
pub fn others(
    root: &HostRoot,
    store: &TrustStore,
    earlier: &Effective,
    wanted: impl Fn(&Fingerprint) -> bool,
) -> Others {
    let bytes = bundle_bytes(root, store).ok().flatten().unwrap_or_default();
    let certificates = bundle::certificates_after(&bytes, earlier);
    Others::of(certificates.iter().filter(|der| wanted(&Fingerprint::of_der(der))).map(Vec::as_slice))
}
