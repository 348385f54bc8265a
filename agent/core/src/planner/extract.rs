//! Whether the store's tool must run, and whether it may.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    action::ExtractReason,
    certificate::fingerprint::Fingerprint,
    ledger::Ledger,
    observed::{BundleReader, Hazard, Observed},
    plan::{Held, TargetAnchor},
    store::Tool,
};

/// Every reason to run the tool. `changes`: the plan changes anchor files.
pub(crate) fn extract_reasons(
    observed: &Observed,
    ledger: &Ledger,
    next: &Ledger,
    targets: &BTreeMap<Fingerprint, TargetAnchor>,
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
        // no run brings in what the store leaves out
        let lacks = |(fingerprint, target): (&Fingerprint, &TargetAnchor)| {
            !effective.set.contains(fingerprint)
                && files.contains(fingerprint)
                && observed.store.leaves_out(&target.anchor).is_none()
        };
        add(targets.iter().any(lacks), ExtractReason::AnchorNotInBundle);
        let lingers = |fingerprint: &Fingerprint| {
            effective.set.contains(fingerprint)
                && !next.anchors.get(fingerprint).is_some_and(|entry| entry.shared)
                && !observed.foreign_copy(fingerprint)
        };
        add(retired.iter().any(lingers), ExtractReason::RemovedStillInBundle);
        add(observed.unlinked.iter().any(|fingerprint| targets.contains_key(fingerprint)), ExtractReason::LinkMissing);
        add(!lost_links(observed, next).is_empty(), ExtractReason::ForeignLinkMissing);
        // a file of somebody else's that breaks it would break it again
        let can_be_mended =
            |reader: BundleReader| !reader.loads(effective) && observed.broken_for(reader).next().is_none();
        add(BundleReader::ALL.into_iter().any(can_be_mended), ExtractReason::BundleBroken);
        let doubled = effective.repeated() > ledger.repeated.unwrap_or(0).max(foreign_repeats(observed));
        add(!observed.lost.is_empty(), ExtractReason::ForeignMissing);
        add(doubled, ExtractReason::BundleRepeats);
        let key_by_others = observed.all_hazards().any(|(_, hazard)| matches!(hazard, Hazard::PrivateKey(_)));
        add(effective.private_key && !key_by_others, ExtractReason::KeyInBundle);
    }
    why
}

/// How many repetitions in the bundle come from several files that hold one certificate, ours included (facts A.3).
pub fn foreign_repeats(observed: &Observed) -> usize {
    observed.foreign.iter().filter(|file| file.taken).map(|file| file.anchors.len()).sum::<usize>()
        + observed.ours.len()
}

/// Certificates of the bundle that are not ours, whose link in OpenSSL's directory is gone. The tool makes none for some, e.g. those
/// that share a file: a thorough run has shown which, and the ledger names them.
pub(crate) fn lost_links(observed: &Observed, ledger: &Ledger) -> BTreeSet<Fingerprint> {
    let is_lost = |print: &&Fingerprint| !ledger.linkless.contains(print) && !ledger.anchors.contains_key(print);
    observed.unlinked_foreign.iter().filter(is_lost).copied().collect()
}

/// Source files that are not ours and that a run of the tool would turn into damage that is not there yet. Damage that is already
/// done is no reason to hold back.
pub(crate) fn hazards(observed: &Observed) -> Vec<Held> {
    // where we join the files ourselves, only certificates that can be read get in
    if !observed.store.pastes_files || matches!(observed.store.tool, Tool::Concatenate { .. }) {
        return Vec::new();
    }
    let effective = &observed.effective;
    let (bundle, tool) = (observed.store.bundle, observed.store.tool.programs().first().copied().unwrap_or("the tool"));
    let held = |(path, hazard): (&str, &Hazard)| {
        let (why, next) = match hazard {
            Hazard::PrivateKey(line) if !effective.private_key => (
                format!("{path}:{line} holds a private key, which {tool} would copy into the world-readable {bundle}"),
                format!("take the key out of {path}, or move the file away"),
            ),
            Hazard::Broken(fault) | Hazard::BrokenGnuTls(fault) => {
                let would_break =
                    |reader: &BundleReader| hazard.fault_for(*reader).is_some() && reader.loads(effective);
                let reader = BundleReader::ALL.into_iter().find(would_break)?;
                let (line, detail) = (fault.line, &fault.detail);
                (
                    format!(
                        "{path}:{line} is broken ({detail}), and {tool} would copy it into {bundle}, which {reader} could then not load at all"
                    ),
                    format!("mend {path}, or move it away"),
                )
            }
            Hazard::PrivateKey(_) => return None,
        };
        Some(Held { what: "extract", why, next })
    };
    observed.all_hazards().filter_map(held).collect()
}

#[cfg(test)]
#[path = "extract_tests.rs"]
mod tests;
