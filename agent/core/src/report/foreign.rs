//! What people should know of files that are not ours.

use super::model::{DistrustedRow, ForeignRow, StaleCopy, StaleReason};
use crate::{
    certificate::{
        anchor::Anchor,
        fingerprint::Fingerprint,
        name::{sentence, shown},
    },
    ledger::AnchorState,
    observed::{ForeignFile, Hazard, Observed},
    plan::Plan,
    planner::successor,
    source::policy::Policy,
    store::distrust::means_at,
    time::{Moment, Time},
};

/// The files in the anchor directory that are not ours and that are worth a word.
pub(super) fn foreign_rows(observed: &Observed, plan: Option<&Plan>, policy: &Policy, now: &Moment) -> Vec<ForeignRow> {
    let mut rows = Vec::new();
    let row =
        |file: &ForeignFile, text: String, stale| ForeignRow { path: shown(&file.path), text: sentence(&text), stale };
    for file in &observed.foreign {
        match &file.hazard {
            Some(Hazard::PrivateKey(line)) => {
                rows.push(row(file, format!("line {line}: a private key lies in the anchor directory"), None));
            }
            Some(Hazard::Broken(fault) | Hazard::BrokenGnuTls(fault)) => {
                rows.push(row(file, format!("line {}: {}", fault.line, fault.detail), None));
            }
            None => {}
        }
        for anchor in &file.anchors {
            let Some(plan) = plan else { continue };
            if let Some((reason, text)) = staleness(anchor, plan, policy, now.wall) {
                rows.push(row(file, text, Some(StaleCopy { sha256: anchor.fingerprint, reason })));
            }
        }
        if file.taken && file.anchors.len() > 1 && observed.store.pastes_files {
            let text = format!(
                "{} certificates in one file: OpenSSL's directory gets a link to none of them",
                file.anchors.len()
            );
            rows.push(row(file, text, None));
        }
    }
    rows
}

/// The roots of the distribution that are distrusted, and by which means.
pub(super) fn distrusted_rows(observed: &Observed, plan: &Plan) -> Vec<DistrustedRow> {
    let row = |print: &Fingerprint| {
        let places = plan.ledger.distrusted.get(print).into_iter().flat_map(|root| &root.places);
        let means: Vec<String> = places.map(|place| shown(&means_at(place))).collect();
        let text = match means.is_empty() {
            true => "it was distrusted on the host before".to_owned(),
            false => format!("by {}", means.join(" and ")),
        };
        DistrustedRow { sha256: *print, trusted: observed.effective.set.contains(print), text: sentence(&text) }
    };
    plan.distrusted.iter().map(row).collect()
}

/// Why somebody else's copy of a certificate should not be there any more, in a word and in a sentence.
fn staleness(anchor: &Anchor, plan: &Plan, policy: &Policy, now: i64) -> Option<(StaleReason, String)> {
    let (print, name) = (&anchor.fingerprint, &anchor.subject.common);
    let was_denied = || plan.ledger.anchors.get(print).is_some_and(|entry| entry.state == AnchorState::Denied);
    let is_denied = policy.denied.contains(print);
    if is_denied || plan.retired.contains(print) {
        let (reason, word) = match is_denied || was_denied() {
            true => (StaleReason::Denied, "denied by policy"),
            false => (StaleReason::Retired, "retired"),
        };
        let text = format!(
            "a copy of {name} ({}), which is {word}, keeps it trusted; not ours, so it stays: remove it by hand",
            print.fp16()
        );
        return Some((reason, text));
    }
    let desired = plan.targets.values().filter(|target| target.state == AnchorState::Desired);
    let successor = successor(anchor, desired.map(|target| &target.anchor));
    let expiry = (anchor.not_after < now).then(|| format!("expired {}", Time(anchor.not_after).date()));
    let replaced = successor.map(|successor| {
        format!(
            "same subject as {name} ({}), which the sources have in its place: left by a node template?",
            successor.fingerprint.fp16()
        )
    });
    let text = match (expiry, replaced) {
        (Some(expiry), Some(replaced)) => (StaleReason::Expired, format!("{expiry}, {replaced}")),
        (Some(expiry), None) => (StaleReason::Expired, format!("{expiry}: {name} ({})", print.fp16())),
        (None, Some(replaced)) => (StaleReason::Superseded, replaced),
        (None, None) => return None,
    };
    Some(text)
}
