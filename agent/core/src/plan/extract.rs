//! Whether the store's tool must run, and whether it may.

use std::collections::{BTreeMap, BTreeSet};

use super::{ExtractReason, Held, Target};
use crate::{
    fingerprint::Fingerprint,
    state::{Hazard, Ledger, Observed},
    store::Tool,
};

/// Every reason to run the tool. `changes`: the plan changes anchor files.
pub(super) fn extract_reasons(
    observed: &Observed,
    ledger: &Ledger,
    next: &Ledger,
    targets: &BTreeMap<Fingerprint, Target>,
    retired: &BTreeSet<Fingerprint>,
    changes: bool,
) -> BTreeSet<ExtractReason> {
    let mut why = BTreeSet::new();
    let mut add = |holds: bool, reason| {
        if holds {
            why.insert(reason);
        }
    };
    let effective = &observed.effective;
    if matches!(observed.store.tool, Tool::None) {
        return why; // nothing to run: the files are what consumers read
    }
    add(changes, ExtractReason::AnchorsChange);
    add(ledger.pending, ExtractReason::Unfinished);
    add(!effective.present, ExtractReason::BundleMissing);
    if effective.present {
        let files: BTreeSet<Fingerprint> =
            observed.ours.values().filter_map(|own| own.anchor.as_ref().map(|a| a.fingerprint)).collect();
        let lacks = |fingerprint: &&Fingerprint| !effective.set.contains(fingerprint) && files.contains(fingerprint);
        add(targets.keys().any(|fingerprint| lacks(&fingerprint)), ExtractReason::AnchorNotInBundle);
        let lingers = |fingerprint: &Fingerprint| {
            effective.set.contains(fingerprint)
                && !next.anchors.get(fingerprint).is_some_and(|entry| entry.shared)
                && !foreign_copy(observed, fingerprint)
        };
        add(retired.iter().any(lingers), ExtractReason::RemovedStillInBundle);
        add(observed.unlinked.iter().any(|fingerprint| targets.contains_key(fingerprint)), ExtractReason::LinkMissing);
        let broken_by_others = observed.foreign.iter().any(|file| matches!(file.hazard, Some(Hazard::Broken(_))));
        add(!effective.faults.is_empty() && !broken_by_others, ExtractReason::BundleBroken);
        let doubled = effective.repeated() > ledger.repeated.unwrap_or(0).max(foreign_repeats(observed));
        add(!observed.lost.is_empty(), ExtractReason::ForeignMissing);
        add(doubled, ExtractReason::BundleRepeats);
        let key_by_others = observed.foreign.iter().any(|file| matches!(file.hazard, Some(Hazard::PrivateKey(_))));
        add(effective.private_key && !key_by_others, ExtractReason::KeyInBundle);
    }
    why
}

/// Somebody else's file in the anchor directory holds it too.
pub(crate) fn foreign_copy(observed: &Observed, fingerprint: &Fingerprint) -> bool {
    observed
        .foreign
        .iter()
        .any(|file| file.taken && file.anchors.iter().any(|anchor| anchor.fingerprint == *fingerprint))
}

/// How many repetitions in the bundle come from several files that hold one certificate, ours included (facts A.3).
pub fn foreign_repeats(observed: &Observed) -> usize {
    observed.foreign.iter().filter(|file| file.taken).map(|file| file.anchors.len()).sum::<usize>()
        + observed.ours.len()
}

/// Foreign files that a run of the tool would turn into damage that is not there yet. Damage that is already done is no
/// reason to hold back.
pub(super) fn hazards(observed: &Observed) -> Vec<Held> {
    if !observed.store.pastes_files {
        return Vec::new();
    }
    let effective = &observed.effective;
    let tool = observed.store.tool.programs().first().copied().unwrap_or("the tool");
    observed
        .foreign
        .iter()
        .filter_map(|file| match &file.hazard {
            Some(Hazard::PrivateKey(line)) if !effective.private_key => Some(Held {
                what: "extract",
                why: format!(
                    "{}:{line} holds a private key, which {tool} would copy into the world-readable {}",
                    file.path, observed.store.bundle
                ),
                next: format!("take the key out of {}, or move the file away", file.path),
            }),
            Some(Hazard::Broken(fault)) if effective.present && effective.faults.is_empty() => Some(Held {
                what: "extract",
                why: format!(
                    "{}:{} is broken ({}), and {tool} would copy it into {}, which OpenSSL could then not load at all",
                    file.path, fault.line, fault.detail, observed.store.bundle
                ),
                next: format!("mend {}, or move it away", file.path),
            }),
            _ => None,
        })
        .collect()
}
