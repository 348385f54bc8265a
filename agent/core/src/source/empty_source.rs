//! What it means when a source says nothing (it is missing, empty, unreadable or wholly rejected): its last good set stays in force.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    Accepted, Content, Snapshot, SourceState, SourceStatus,
    policy::{Circumstances, EmptySource, Policy, judge},
};
use crate::{certificate::fingerprint::Fingerprint, ledger::Ledger};

/// The anchors of a source that says nothing, and its state. `why` says in what way it says nothing.
pub(super) fn answer(
    why: &str,
    snapshot: &Snapshot,
    ledger: &Ledger,
    policy: &Policy,
    at: Circumstances<'_>,
    state: &mut SourceState,
) -> Accepted {
    let last = ledger.sources.get(&snapshot.name).map(|source| &source.anchors);
    let may_be_missing = snapshot.optional && matches!(snapshot.content, Content::Missing);
    let may_be_nothing = snapshot.optional && is_of_nothing(snapshot);
    // Rejections are no statement that a set is empty, and a source that has never spoken may be a typing error.
    let may_empty = policy.empty_source == EmptySource::Remove && last.is_some() && state.rejections.is_empty();
    match last.filter(|anchors| !anchors.is_empty()) {
        None if may_be_missing || may_be_nothing => {
            state.status = SourceStatus::Absent;
            state.detail = format!("{why}, which is allowed (optional)");
        }
        _ if may_empty && !may_be_missing => {
            state.detail = format!("{why}; it has no anchors any more (policy.emptySource: remove)");
        }
        Some(held) => {
            state.status = SourceStatus::Held;
            state.detail = format!("{why}; its last good set stays in force");
            return hold(held, ledger, policy, at, &mut state.notes);
        }
        None => {
            state.status = SourceStatus::Failed;
            state.awaited = !snapshot.optional;
            state.detail = format!("{why}, and there is no earlier set to hold");
        }
    }
    Accepted::new()
}

/// Whether it is the empty volume that the kubelet mounts for a ConfigMap or Secret that need not exist, or has nothing in it. Which of
/// the two cannot be told, so `policy.emptySource: remove` counts for it.
fn is_of_nothing(snapshot: &Snapshot) -> bool {
    matches!(&snapshot.content, Content::Files(files) if files.is_empty()) && snapshot.layout.is_of_nothing()
}

/// The anchors of a held set, as the ledger kept them. Denials apply to them all the same.
pub(super) fn hold(
    held: &BTreeSet<Fingerprint>,
    ledger: &Ledger,
    policy: &Policy,
    at: Circumstances<'_>,
    notes: &mut Vec<String>,
) -> Accepted {
    let mut accepted = Accepted::new();
    for fingerprint in held {
        let anchor = match ledger.anchors.get(fingerprint).map(|entry| entry.decode(fingerprint)) {
            Some(Ok(anchor)) => anchor,
            Some(Err(Some(refused))) => {
                notes.push(format!("{}: in the last good set, now refused ({refused})", fingerprint.fp16()));
                continue;
            }
            Some(Err(None)) | None => {
                let text = "in the last good set, but the ledger has lost its certificate";
                notes.push(format!("{}: {text}", fingerprint.fp16()));
                continue;
            }
        };
        match judge(&anchor, policy, Circumstances { installed: &|_| true, ..at }) {
            Ok(warnings) => {
                accepted.insert(*fingerprint, (Arc::new(anchor), warnings));
            }
            Err((reason, _)) => {
                notes.push(format!("{}: in the last good set, now refused ({reason})", fingerprint.fp16()))
            }
        }
    }
    accepted
}
