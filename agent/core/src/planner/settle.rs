//! What the ledger learns from the observation after a plan was carried out.

use std::collections::BTreeSet;

use super::{
    distrust::forget_undone,
    foreign::{foreign_in_bundle, note_gone},
};
use crate::{
    action::StoreAction, certificate::fingerprint::Fingerprint, ledger::Ledger, observed::Observed, plan::Plan,
    store::anchor_file::file_name,
};

/// The ledger after the actions of a plan were carried out and the host was observed again. It settles anchors that are trusted now,
/// notes anchors that are gone, and notes anchors that somebody else's copy keeps trusted. `carried_out`: no action failed; whether
/// the actions had their effect is judged here.
pub fn settle(plan: &Plan, after: &Observed, carried_out: bool, now: i64) -> Ledger {
    let mut ledger = plan.ledger.clone();
    let trusted = &after.effective.set;
    let had_extract = plan.actions.iter().any(|action| matches!(action, StoreAction::Extract { .. }));
    let new_settled = settle_targets(plan, after, &mut ledger);
    let own: BTreeSet<Fingerprint> =
        after.ours.values().filter_map(|file| file.anchor.as_ref().map(|anchor| anchor.fingerprint)).collect();
    let lingering = note_shared(plan, after, &own, carried_out && had_extract, &mut ledger);
    let newly_gone = note_removed(plan, after, &own, now, &mut ledger);
    if carried_out && plan.actions.iter().any(StoreAction::is_fresh_extract) {
        // A thorough run makes every link that the tool makes at all.
        ledger.linkless = after.unlinked_foreign.clone();
    }
    if after.effective.present && carried_out && after.lost.is_empty() && !ledger.is_blank() {
        note_gone(after, &mut ledger, now);
        ledger.foreign = foreign_in_bundle(after, &ledger);
        ledger.repeated = if had_extract { Some(after.effective.repeated()) } else { ledger.repeated };
    }
    forget_undone(&plan.distrusted, after, &mut ledger);
    let is_missed = |print: &Fingerprint| !trusted.contains(print) || after.unlinked.contains(print);
    let unfinished = !carried_out || !plan.held.is_empty() || lingering || plan.due(after.store).any(is_missed);
    ledger.pending &= unfinished;
    if plan.actions.iter().any(StoreAction::may_change_bundle) || ledger.bundle() != plan.ledger.bundle() {
        ledger.published = Some(after.at.clone());
    }
    for record in ledger.services.values_mut() {
        record.note_served(plan.targets.keys().filter(|fingerprint| trusted.contains(fingerprint)).copied());
    }
    if new_settled || newly_gone {
        // Also when something else is still wrong: what was read back is not taken for a change a second time.
        ledger.changed = Some(now);
    }
    ledger
}

/// Settles the targets that are trusted; returns whether one is trusted for the first time.
fn settle_targets(plan: &Plan, after: &Observed, ledger: &mut Ledger) -> bool {
    let mut changed = false;
    for fingerprint in plan.targets.keys().filter(|fingerprint| after.effective.set.contains(fingerprint)) {
        if let Some(entry) = ledger.anchors.get_mut(fingerprint).filter(|entry| !entry.settled) {
            entry.settled = true;
            changed = true;
        }
    }
    changed
}

/// Notes which retired anchors are still trusted although our file is gone: the distribution ships them, or somebody's copy lies where
/// we do not look. It takes a second run of the tool to believe that, since the first one may have begun before our file went.
/// Returns whether an anchor is still trusted for no known reason.
fn note_shared(
    plan: &Plan,
    after: &Observed,
    own: &BTreeSet<Fingerprint>,
    extracted: bool,
    ledger: &mut Ledger,
) -> bool {
    let removed = |file: &str| {
        plan.actions.iter().any(|action| matches!(action, StoreAction::RemoveAnchor { file: gone, .. } if gone == file))
    };
    let lingers = |print: &&Fingerprint| after.effective.set.contains(*print) && !after.foreign_copy(print);
    let mut unexplained = false;
    for fingerprint in plan.retired.iter().filter(lingers) {
        let Some(entry) = ledger.anchors.get_mut(fingerprint) else { continue };
        let is_second_run = extracted && !removed(&file_name(after.store, fingerprint));
        entry.shared |= is_second_run && !own.contains(fingerprint);
        unexplained |= !entry.shared;
    }
    unexplained
}

/// Notes which retired anchors are gone from the host; returns whether one has just gone.
fn note_removed(plan: &Plan, after: &Observed, own: &BTreeSet<Fingerprint>, now: i64, ledger: &mut Ledger) -> bool {
    let mut changed = false;
    for (fingerprint, entry) in &mut ledger.anchors {
        let gone = plan.retired.contains(fingerprint)
            && !own.contains(fingerprint)
            && after.effective.present
            && !after.effective.set.contains(fingerprint);
        if gone && entry.gone.is_none() {
            entry.gone = Some(now);
            entry.settled = false;
            changed = true;
        }
    }
    changed
}
