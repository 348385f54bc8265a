//! The anchors of a report.

use super::{inputs::ReportInputs, model::AnchorRow};
use crate::{
    certificate::{anchor::Anchor, fingerprint::Fingerprint},
    ledger::AnchorState,
    plan::Plan,
    source::policy,
    time::{Moment, Time},
};

/// The rows of everything that is to be trusted, and of what is trusted and should be gone.
pub(super) fn anchor_rows(plan: &Plan, inputs: ReportInputs<'_>) -> Vec<AnchorRow> {
    let trusted = |fingerprint: &Fingerprint| {
        inputs.observed.is_some_and(|observed| observed.effective.set.contains(fingerprint))
    };
    let mut targets: Vec<_> = plan
        .targets
        .iter()
        .map(|(fingerprint, target)| {
            let wanted = inputs.resolved.desired.get(fingerprint);
            let since = plan.ledger.anchors.get(fingerprint).and_then(|entry| entry.unwanted_since.as_ref());
            (target, trusted(fingerprint), wanted, since)
        })
        .collect();
    targets.sort_unstable_by_key(|(target, ..)| {
        (target.state, &target.anchor.subject.common, target.anchor.not_after, target.anchor.fingerprint)
    });
    let mut rows = Vec::with_capacity(targets.len());
    for (target, trusted, wanted, since) in targets {
        let mut row = anchor_row(&target.anchor, target.state, trusted);
        if let Some(wanted) = wanted {
            row.sources = wanted.sources.iter().cloned().collect();
            row.warnings.clone_from(&wanted.warnings);
        } else {
            row.warnings.extend(policy::go_warning(&target.anchor));
        }
        if target.state == AnchorState::Grace && since.is_none() {
            row.warnings
                .push("its grace has not begun: a source that is missing or gives nothing usable may want it".into());
        }
        row.grace_end = since.map(|since| grace_end(since, inputs));
        row.needs_approval = target.state == AnchorState::Grace && plan.ledger.fleet_gate;
        row.waits = plan.waiting.get(&target.anchor.fingerprint).copied();
        rows.push(row);
    }
    for fingerprint in plan.retired.iter().filter(|fingerprint| trusted(fingerprint)) {
        let Some(entry) = plan.ledger.anchors.get(fingerprint) else { continue };
        let Some(anchor) = entry.anchor() else { continue };
        let mut row = anchor_row(&anchor, entry.state, true);
        if entry.shared {
            row.warnings.push("still trusted: the distribution or somebody else's file has it too".into());
        }
        rows.push(row);
    }
    sort(&mut rows);
    rows
}

/// Without a plan, what the sources want and what was in grace, and whether it is in the bundle of a store whose tool is missing.
pub(super) fn unplanned_rows(inputs: ReportInputs<'_>) -> Vec<AnchorRow> {
    let trusted =
        |fingerprint: &Fingerprint| inputs.without_tool.is_some_and(|store| store.effective.set.contains(fingerprint));
    let desired = inputs.resolved.desired.values().map(|wanted| AnchorRow {
        sources: wanted.sources.iter().cloned().collect(),
        warnings: wanted.warnings.clone(),
        ..anchor_row(&wanted.anchor, AnchorState::Desired, trusted(&wanted.anchor.fingerprint))
    });
    let in_grace = unplanned_grace(inputs).map(|(anchor, since)| AnchorRow {
        grace_end: since.map(|since| grace_end(since, inputs)),
        needs_approval: inputs.ledger.fleet_gate,
        ..anchor_row(&anchor, AnchorState::Grace, trusted(&anchor.fingerprint))
    });
    let mut rows: Vec<AnchorRow> = desired.chain(in_grace).collect();
    sort(&mut rows);
    rows
}

/// What was in grace when there was a plan last, and no source wants now, each with the time since when: it stays where nothing can be
/// removed.
fn unplanned_grace(inputs: ReportInputs<'_>) -> impl Iterator<Item = (Anchor, Option<&Moment>)> {
    let in_grace = inputs.ledger.anchors.iter().filter(|(_, entry)| entry.state == AnchorState::Grace);
    let unwanted = in_grace.filter(move |(fingerprint, _)| !inputs.resolved.desired.contains_key(*fingerprint));
    unwanted.filter_map(|(fingerprint, entry)| Some((entry.decode(fingerprint).ok()?, entry.unwanted_since.as_ref())))
}

fn grace_end(since: &Moment, inputs: ReportInputs<'_>) -> Time {
    let passed = inputs.now.elapsed_since(since, inputs.ledger.updated);
    let remains = inputs.policy.removal_grace.saturating_sub(passed);
    Time(inputs.now.wall.saturating_add(i64::try_from(remains).unwrap_or(i64::MAX)))
}

fn sort(rows: &mut [AnchorRow]) {
    rows.sort_by(|a, b| {
        (a.state, &a.common_name, b.not_after, a.sha256).cmp(&(b.state, &b.common_name, a.not_after, b.sha256))
    });
}

/// The row of a certificate.
pub fn anchor_row(anchor: &Anchor, state: AnchorState, trusted: bool) -> AnchorRow {
    AnchorRow {
        sha256: anchor.fingerprint,
        common_name: anchor.subject.common.clone(),
        subject: anchor.subject.text.clone(),
        issuer_common_name: anchor.issuer.common.clone(),
        serial: anchor.serial.clone(),
        key: anchor.key.to_string(),
        authority: anchor.authority,
        state,
        trusted,
        runtime: None,
        go_refuses: anchor.go_refuses.clone(),
        not_before: Time(anchor.not_before),
        not_after: Time(anchor.not_after),
        grace_end: None,
        needs_approval: false,
        waits: None,
        sources: Vec::new(),
        warnings: Vec::new(),
    }
}
