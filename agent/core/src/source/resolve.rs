//! From what the sources hold to what is desired.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    certificate::{
        anchor::Anchor,
        fingerprint::Fingerprint,
        pem::{MAX_CERTIFICATES, RejectReason},
    },
    ledger::{Ledger, LedgerSource},
    source::{
        Accepted, Content, DesiredAnchor, Rejection, Resolved, Snapshot, SourceFile, SourceState, SourceStatus,
        damage::{self, Damage},
        empty_source,
        policy::{Circumstances, OnRejection, Policy, judge},
    },
};

/// Anchors of one name that a warning about them names; the rest is counted.
pub(crate) const MAX_NAMESAKES: usize = 5;

type Damaged = BTreeMap<Fingerprint, Damage>;

/// Resolves all sources.
pub fn resolve(snapshots: &[Snapshot], ledger: &Ledger, policy: &Policy, at: Circumstances<'_>) -> Resolved {
    let mut resolved = Resolved::default();
    check_signatures(snapshots, ledger);
    let damaged = damage::find(snapshots, ledger, policy, at);
    for snapshot in snapshots {
        let (state, accepted) = resolve_one(snapshot, ledger, policy, at, &damaged);
        for (fingerprint, (anchor, warnings)) in accepted {
            let wanted = resolved.desired.entry(fingerprint).or_insert_with(|| DesiredAnchor {
                anchor,
                sources: BTreeSet::new(),
                warnings,
            });
            wanted.sources.insert(snapshot.name.clone());
        }
        resolved.sources.push(state);
    }
    warn_about_shared_names(&mut resolved.desired);
    resolved
}

/// Checks the own signatures that are asked for below, all at once, but for those that the ledger knows to match.
fn check_signatures(snapshots: &[Snapshot], ledger: &Ledger) {
    let mut new = Vec::new();
    for anchor in snapshots.iter().flat_map(Snapshot::anchors) {
        match ledger.anchors.get(&anchor.fingerprint) {
            Some(entry) if entry.verified => anchor.was_verified(),
            _ => new.push(anchor),
        }
    }
    Anchor::check_signatures(&new);
}

/// Writes what the sources say into the ledger's memory. A source that is held keeps its entry; one that is no longer
/// configured loses it.
pub fn remember(resolved: &Resolved, ledger: &Ledger, now: i64) -> BTreeMap<String, LedgerSource> {
    let mut memory = BTreeMap::new();
    for source in &resolved.sources {
        let before = ledger.sources.get(&source.name);
        match (source.status, before) {
            (SourceStatus::Held, Some(before)) => {
                memory.insert(source.name.clone(), before.clone());
            }
            (SourceStatus::Ok, Some(before)) if before.anchors == source.anchors => {
                memory.insert(source.name.clone(), before.clone());
            }
            (SourceStatus::Ok, _) => {
                memory.insert(source.name.clone(), LedgerSource { anchors: source.anchors.clone(), changed: now });
            }
            (SourceStatus::Held | SourceStatus::Absent | SourceStatus::Failed, _) => {}
        }
    }
    memory
}

pub(crate) fn resolve_one(
    snapshot: &Snapshot,
    ledger: &Ledger,
    policy: &Policy,
    at: Circumstances<'_>,
    damaged: &Damaged,
) -> (SourceState, Accepted) {
    let mut state = SourceState {
        name: snapshot.name.clone(),
        origin: snapshot.origin.clone(),
        status: SourceStatus::Ok,
        awaited: false,
        anchors: BTreeSet::new(),
        detail: String::new(),
        rejections: Vec::new(),
        notes: snapshot.notes.clone(),
    };
    let mut accepted = Accepted::new();
    let silent = match &snapshot.content {
        Content::Missing => Some("missing".to_owned()),
        Content::Unreadable(why) => Some(format!("unreadable: {why}")),
        Content::Excess(reason, detail) => Some(refuse(&mut state, *reason, detail.clone())),
        Content::Files(parts) if parts.iter().all(|part| part.anchors.is_empty() && part.faults.is_empty()) => {
            note_parts(parts, &mut state);
            Some(snapshot.layout.emptiness())
        }
        Content::Files(parts) => judge_parts(parts, policy, at, damaged, &mut state, &mut accepted),
    };
    match silent {
        Some(why) => accepted = empty_source::answer(&why, snapshot, ledger, policy, at, &mut state),
        None => {
            let originals = state.rejections.iter().filter_map(|rejection| damaged.get(&rejection.sha256?));
            let originals = originals.map(|damage| damage.original).collect();
            accepted.extend(empty_source::hold(&originals, ledger, policy, at, &mut state.notes));
        }
    }
    if let Some(folders) = snapshot.layout.passed_over() {
        state.detail = if state.detail.is_empty() { folders } else { format!("{}; {folders}", state.detail) };
    }
    state.anchors = accepted.keys().copied().collect();
    (state, accepted)
}

pub(crate) fn note_parts(parts: &[Arc<SourceFile>], state: &mut SourceState) {
    for part in parts {
        state.notes.extend(part.notes.iter().map(|note| format!("{}: {note}", part.file)));
    }
}

/// Fills in rejections and accepted anchors; Some(why) if the source as a whole says nothing usable.
pub(crate) fn judge_parts(
    parts: &[Arc<SourceFile>],
    policy: &Policy,
    at: Circumstances<'_>,
    damaged: &Damaged,
    state: &mut SourceState,
    accepted: &mut Accepted,
) -> Option<String> {
    let total: usize = parts.iter().map(|part| part.anchors.len()).sum();
    if total > MAX_CERTIFICATES {
        let detail = format!("more than the limit of {MAX_CERTIFICATES} certificates");
        return Some(refuse(state, RejectReason::TooMany, detail));
    }
    for part in parts {
        state.rejections.extend(part.faults.iter().map(|fault| Rejection {
            file: part.file.clone(),
            line: fault.line,
            reason: fault.reason,
            detail: fault.detail.clone(),
            subject: None,
            sha256: None,
        }));
        for (line, anchor) in &part.anchors {
            let judged = match damaged.get(&anchor.fingerprint) {
                Some(damage) => Err((damage.reason(), damage.text(anchor))),
                None => judge(anchor, policy, at),
            };
            match judged {
                Ok(warnings) => {
                    accepted.entry(anchor.fingerprint).or_insert_with(|| (anchor.clone(), warnings));
                }
                Err((reason, detail)) => state.rejections.push(Rejection {
                    file: part.file.clone(),
                    line: *line,
                    reason,
                    detail,
                    subject: Some(anchor.subject.text.clone()),
                    sha256: Some(anchor.fingerprint),
                }),
            }
        }
    }
    note_parts(parts, state);
    match (accepted.is_empty(), state.rejections.len()) {
        (true, n) => Some(format!("nothing in it was accepted ({n} rejected)")),
        (false, 0) => None,
        (false, n) if policy.on_rejection == OnRejection::Hold => {
            Some(format!("{n} rejected (policy.onRejection: hold)"))
        }
        (false, _) => None,
    }
}

/// Rejects a source as a whole, and says why.
pub(crate) fn refuse(state: &mut SourceState, reason: RejectReason, detail: String) -> String {
    let file = state.origin.clone();
    state.rejections.push(Rejection { file, line: 0, reason, detail: detail.clone(), subject: None, sha256: None });
    detail
}

/// Facts E.4 and E.5: several anchors of one name are a rotation and fine, but OpenSSL picks by name alone where a
/// certificate does not say which key signed it.
pub(crate) fn warn_about_shared_names(desired: &mut BTreeMap<Fingerprint, DesiredAnchor>) {
    let mut by_name: BTreeMap<&[u8], Vec<Fingerprint>> = BTreeMap::new();
    for (fingerprint, wanted) in desired.iter() {
        by_name.entry(&wanted.anchor.subject.raw).or_default().push(*fingerprint);
    }
    let shared: Vec<Vec<Fingerprint>> = by_name.into_values().filter(|same| same.len() > 1).collect();
    for same in shared {
        let keyless =
            same.iter().any(|fingerprint| desired.get(fingerprint).is_some_and(|w| w.anchor.key_id().is_none()));
        for fingerprint in &same {
            let others = same.iter().filter(|other| *other != fingerprint);
            let named: Vec<String> = others.take(MAX_NAMESAKES).map(Fingerprint::fp16).collect();
            let more = match same.len().saturating_sub(1 + named.len()) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            let Some(wanted) = desired.get_mut(fingerprint) else { continue };
            let mut text = format!("same subject as {}{more}: taken for a rotation", named.join(", "));
            if keyless {
                text.push_str(
                    "; one of them has no subjectKeyIdentifier, so certificates may not say which key signed them, and OpenSSL would try only the first",
                );
            }
            wanted.warnings.push(text);
        }
    }
}
