//! What the ledger records of the processes that read the bundle when they start.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    certificate::fingerprint::Fingerprint,
    ledger::{AnchorState, Ledger},
    observed::Observed,
    plan::TargetAnchor,
    runtime::{
        record::{BundleHistory, follow_all},
        services::Runtime,
        settings::RuntimeChoice,
    },
};

/// Records which processes run, which anchors they have read, and since when the bundle holds what it holds.
pub(super) fn record_services(
    observed: &Observed,
    ledger: &Ledger,
    next: &mut Ledger,
    targets: &BTreeMap<Fingerprint, TargetAnchor>,
    retired: &BTreeSet<Fingerprint>,
) {
    let choice = &observed.services.choice;
    next.runtime = (*choice != RuntimeChoice::default()).then(|| choice.clone());
    if observed.services.in_pod {
        next.pod = Some(observed.at.boot_id.clone());
    }
    if !observed.effective.present {
        return; // without a bundle nothing can be said of what a process has read
    }
    let before = ledger.bundle();
    let by_us = ledger.anchors.iter().filter(|(_, entry)| !entry.shared && !entry.adopted);
    let ours = by_us.map(|(fingerprint, _)| *fingerprint).collect();
    let bundle = BundleHistory {
        before: before.as_ref(),
        since: ledger.published.as_ref(),
        begun: ledger.begun.as_ref(),
        ours: &ours,
        now: &observed.effective.set,
    };
    next.services = follow_all(&observed.services, &ledger.services, bundle, &observed.at);
    let denied = |fingerprint: &Fingerprint| {
        next.anchors.get(fingerprint).is_some_and(|entry| entry.state == AnchorState::Denied)
    };
    // A runtime is a Go program and never had what Go does not read. The further units may be any programs.
    let go_reads = |fingerprint: &Fingerprint| {
        let entry = next.anchors.get(fingerprint);
        entry.is_none_or(|entry| entry.decode(fingerprint).is_ok_and(|anchor| anchor.go_reads()))
    };
    for (unit, record) in &mut next.services {
        record.note_served(targets.keys().filter(|print| observed.effective.set.contains(print)).copied());
        let is_runtime = !observed.services.also.contains_key(unit);
        record.note_revoked(retired, denied, |fingerprint| {
            targets.contains_key(fingerprint) || is_runtime && !go_reads(fingerprint)
        });
    }
    if let Some(known) = observed.services.runtime.as_ref().and_then(Runtime::known_setting) {
        next.registry = Some(known);
    }
    // A file of our name there is ours, even if the ledger was lost.
    next.certs_files.extend(observed.services.runtime.iter().flat_map(|runtime| runtime.certs.own.keys().cloned()));
    if next.published.is_none() || next.bundle() != before {
        next.published = Some(observed.at.clone());
    }
}
