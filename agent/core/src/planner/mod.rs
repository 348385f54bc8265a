//! What to do: a pure function of what is wanted, what is there and what was written down.
//!
//! In: [`Resolved`], [`Observed`], [`Ledger`], policy, time. Out: a [`Plan`]: actions in the order in which they are done, each
//! with its reason; the ledger that records them; and what is held back, and why.
//!
//! Invariants (tests hold them for all inputs): only files with our kind of name are touched; additions come before
//! removals; an anchor in the target set is never removed; a source that says nothing removes nothing; planning again after
//! the actions were done gives no action.

mod extract;
mod old_store;
mod orphans;

pub use crate::action::{Action, Drift, ExtractReason, RemoveReason, WriteReason};
pub use extract::foreign_repeats;
pub(crate) use extract::lost_links;
pub use old_store::plan_retire;
pub use orphans::{Orphans, orphans};

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
};

use extract::{extract_reasons, hazards, note_gone};
use old_store::{follow_family, leave_actions, leave_first};

use crate::{
    certificate::fingerprint::Fingerprint,
    ledger::{AnchorState, Ledger, LedgerAnchor},
    observed::Observed,
    plan::{Plan, TargetAnchor},
    runtime::{
        record::{BundleHistory, follow_all},
        services::Runtime,
        settings::RuntimeChoice,
    },
    source::{Resolved, SourceStatus, policy::Policy},
    store::{ExtractMode, Tool, TrustStore, anchor_file::file_name},
    time::Moment,
};

/// Seconds for which a removed anchor is remembered: far longer than any run of a tool.
pub const REMEMBER_GONE: u64 = 600;

/// Decides. See the module's description.
pub fn plan(resolved: &Resolved, observed: &Observed, ledger: &Ledger, policy: &Policy, now: &Moment) -> Plan {
    let mut next = ledger.clone();
    next.version = crate::ledger::LEDGER_VERSION;
    let leave = leave_first(observed, ledger);
    follow_family(&mut next, observed);
    next.removal_grace = Some(policy.removal_grace);
    forget_gone(&mut next, observed, now.wall);
    next.sources = crate::source::resolve::remember(resolved, ledger, now.wall);
    let targets = decide_states(resolved, observed, policy, now, &mut next);
    match leave {
        Some(family) => old_store::only(observed, ledger, family, targets),
        None => act(observed, ledger, next, targets, RemoveReason::GraceOver),
    }
}

/// The plan that removes all that is ours. What remains in the ledger is gone from the host; the file itself may go then.
pub fn plan_uninstall(observed: &Observed, ledger: &Ledger) -> Plan {
    let mut next = ledger.clone();
    next.version = crate::ledger::LEDGER_VERSION;
    next.sources.clear();
    adopt_own_files(observed, &mut next, |_| AnchorState::Retired);
    for entry in next.anchors.values_mut() {
        entry.state = AnchorState::Retired;
    }
    act(observed, ledger, next, BTreeMap::new(), RemoveReason::Uninstall)
}

/// The ledger after a cycle whose result was read back: what is settled, what is gone for good, what others keep alive.
/// `carried_out`: every action was done without an error. Whether it had its effect is judged here.
pub fn settle(plan: &Plan, after: &Observed, carried_out: bool, now: i64) -> Ledger {
    let mut ledger = plan.ledger.clone();
    let trusted = &after.effective.set;
    let had_extract = plan.actions.iter().any(|action| matches!(action, Action::Extract { .. }));
    let removed = |file: &str| {
        plan.actions.iter().any(|action| matches!(action, Action::RemoveAnchor { file: gone, .. } if gone == file))
    };
    let mut changed = false;
    let mut unfinished = !carried_out || !plan.held.is_empty();
    for fingerprint in plan.targets.keys() {
        unfinished |= !trusted.contains(fingerprint) || after.unlinked.contains(fingerprint);
        let entry = ledger.anchors.get_mut(fingerprint).filter(|entry| !entry.settled && trusted.contains(fingerprint));
        if let Some(entry) = entry {
            entry.settled = true;
            changed = true;
        }
    }
    let own: BTreeSet<Fingerprint> =
        after.ours.values().filter_map(|file| file.anchor.as_ref().map(|anchor| anchor.fingerprint)).collect();
    for fingerprint in
        plan.retired.iter().filter(|fingerprint| trusted.contains(fingerprint) && !after.foreign_copy(fingerprint))
    {
        let Some(entry) = ledger.anchors.get_mut(fingerprint) else { continue };
        // Our file was gone before the tool ran, and it is still trusted: the distribution ships it, or somebody's copy lies
        // where we do not look. That takes a second run to believe, and no third one.
        let second_run = had_extract && carried_out && !removed(&file_name(after.store, fingerprint));
        entry.shared |= second_run && !own.contains(fingerprint);
        unfinished |= !entry.shared;
    }
    for (fingerprint, entry) in &mut ledger.anchors {
        let gone = plan.retired.contains(fingerprint)
            && !own.contains(fingerprint)
            && after.effective.present
            && !trusted.contains(fingerprint);
        if gone && entry.gone.is_none() {
            entry.gone = Some(now);
            entry.settled = false;
            changed = true;
        }
    }
    let thoroughly = |action: &Action| matches!(action, Action::Extract { mode: ExtractMode::Fresh, .. });
    if carried_out && plan.actions.iter().any(thoroughly) {
        // a run that makes every link has made none to these
        ledger.linkless = after.unlinked_foreign.clone();
    }
    if after.effective.present && carried_out && after.lost.is_empty() && !ledger.is_blank() {
        note_gone(after, &mut ledger, now);
        ledger.foreign = foreign_in_bundle(after, &ledger);
        ledger.repeated = if had_extract { Some(after.effective.repeated()) } else { ledger.repeated };
    }
    ledger.pending &= unfinished;
    if plan.actions.iter().any(Action::may_change_bundle) || ledger.bundle() != plan.ledger.bundle() {
        ledger.published = Some(after.at.clone());
    }
    for record in ledger.services.values_mut() {
        record.note_served(plan.targets.keys().filter(|fingerprint| trusted.contains(fingerprint)).copied());
    }
    if changed {
        // what was read back counts, also when something else is still wrong: it is not seen as a change a second time
        ledger.changed = Some(now);
    }
    ledger
}

/// What is known of the processes that read the bundle when they start, and since when it is as it is.
fn follow_services(
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
        return; // nothing can be told from a bundle that is not there
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
    // a runtime never had what Go does not read; what else the further units are made of is not known
    let go_reads = |fingerprint: &Fingerprint| {
        let entry = next.anchors.get(fingerprint);
        entry.is_none_or(|entry| entry.decode(fingerprint).is_ok_and(|anchor| anchor.go_reads()))
    };
    for (unit, record) in &mut next.services {
        record.note_served(targets.keys().filter(|print| observed.effective.set.contains(print)).copied());
        let is_runtime = !observed.services.also.contains_key(unit);
        record.note_left(retired, denied, |fingerprint| {
            targets.contains_key(fingerprint) || is_runtime && !go_reads(fingerprint)
        });
    }
    if let Some(known) = observed.services.runtime.as_ref().and_then(Runtime::known_setting) {
        next.registry = Some(known);
    }
    // a file of our name there is ours, also when the ledger was lost
    next.certs_files.extend(observed.services.runtime.iter().flat_map(|runtime| runtime.certs.own.keys().cloned()));
    if next.published.is_none() || next.bundle() != before {
        next.published = Some(observed.at.clone());
    }
}

/// Certificates in the bundle that are not ours.
fn foreign_in_bundle(observed: &Observed, ledger: &Ledger) -> BTreeSet<Fingerprint> {
    let ours = |fingerprint: &&Fingerprint| ledger.anchors.get(fingerprint).is_some_and(|entry| !entry.shared);
    observed.effective.set.iter().filter(|fingerprint| !ours(fingerprint)).copied().collect()
}

/// Removed anchors are forgotten when they have stayed away long enough, and found again when they are back. What others
/// add to the bundle and take from it, with its source, is followed.
fn forget_gone(ledger: &mut Ledger, observed: &Observed, now: i64) {
    ledger.anchors.retain(|fingerprint, entry| {
        let back = observed.effective.set.contains(fingerprint);
        let long_ago = entry.gone.is_some_and(|gone| now.abs_diff(gone) >= REMEMBER_GONE);
        back || !long_ago
    });
    if observed.effective.present && observed.lost.is_empty() && !ledger.is_blank() {
        note_gone(observed, ledger, now);
        ledger.foreign = foreign_in_bundle(observed, ledger);
    }
    // what has a link now must not lose it again
    ledger.linkless.retain(|fingerprint| observed.unlinked_foreign.contains(fingerprint));
}

/// Brings the ledger's anchors to their new states and returns those that are to be trusted.
fn decide_states(
    resolved: &Resolved,
    observed: &Observed,
    policy: &Policy,
    now: &Moment,
    next: &mut Ledger,
) -> BTreeMap<Fingerprint, TargetAnchor> {
    let latest = next.updated;
    let denied = |fingerprint: &Fingerprint| policy.forbids(fingerprint);
    let state = |fingerprint: &Fingerprint| if denied(fingerprint) { AnchorState::Denied } else { AnchorState::Grace };
    adopt_own_files(observed, next, state);
    // a source that cannot be read, and whose last set is not known, may want any of them: no grace begins
    let has = |status| resolved.sources.iter().any(|source| source.status == status);
    let (failed, absent) = (has(SourceStatus::Failed), has(SourceStatus::Absent));
    let mut targets = BTreeMap::new();
    for (fingerprint, wanted) in &resolved.desired {
        let entry = next.anchors.entry(*fingerprint).or_insert_with(|| LedgerAnchor {
            shared: observed.effective.set.contains(fingerprint),
            ..LedgerAnchor::new(&wanted.anchor, AnchorState::Desired)
        });
        if matches!(entry.state, AnchorState::Retired | AnchorState::Denied) {
            entry.settled = false; // it comes back: from now on it is new
        }
        entry.state = AnchorState::Desired;
        entry.adopted = false;
        entry.left = None;
        entry.gone = None;
        targets.insert(*fingerprint, TargetAnchor { anchor: wanted.anchor.clone(), state: AnchorState::Desired });
    }
    let mut lost = Vec::new();
    for (fingerprint, entry) in &mut next.anchors {
        if targets.contains_key(fingerprint) {
            continue;
        }
        entry.state = match entry.state {
            _ if denied(fingerprint) => AnchorState::Denied,
            AnchorState::Retired => AnchorState::Retired,
            // no longer denied, and nobody wants it
            AnchorState::Denied => AnchorState::Retired,
            AnchorState::Desired | AnchorState::Grace => {
                // an optional source that was never seen may be the one that an unknown file came from
                if !(failed || absent && entry.adopted) {
                    // a clock that is behind what was written down would make the grace seem to have begun long ago
                    entry.left.get_or_insert_with(|| Moment { wall: now.wall.max(latest), ..now.clone() });
                }
                let passed = entry.left.as_ref().map(|left| now.elapsed_since(left, latest));
                if passed.is_some_and(|passed| passed >= policy.removal_grace) {
                    AnchorState::Retired
                } else {
                    AnchorState::Grace
                }
            }
        };
        if entry.state == AnchorState::Grace {
            let own = observed.ours.get(&file_name(observed.store, fingerprint)).and_then(|file| file.anchor.clone());
            let own = own.filter(|own| own.fingerprint == *fingerprint);
            match own.map_or_else(|| entry.decode(fingerprint).map(Arc::new), Ok) {
                Ok(anchor) => {
                    targets.insert(*fingerprint, TargetAnchor { anchor, state: AnchorState::Grace });
                }
                // an older version took it, and it would break readers: it gets no grace
                Err(Some(_)) => entry.state = AnchorState::Retired,
                // neither the host nor the ledger has its certificate: nothing is left to keep
                Err(None) => lost.push(*fingerprint),
            }
        }
    }
    for fingerprint in lost {
        next.anchors.remove(&fingerprint);
    }
    targets
}

/// Own files that the ledger does not know (it was lost, or another installation left them) enter it. A file that holds
/// another certificate than its name says was never written by us, and gets no grace.
fn adopt_own_files(observed: &Observed, next: &mut Ledger, state: impl Fn(&Fingerprint) -> AnchorState) {
    for (file, own) in &observed.ours {
        let Some(anchor) = own.anchor.as_ref().filter(|anchor| *file == file_name(observed.store, &anchor.fingerprint))
        else {
            continue;
        };
        next.anchors.entry(anchor.fingerprint).or_insert_with(|| LedgerAnchor {
            settled: true,
            adopted: true,
            ..LedgerAnchor::new(anchor, state(&anchor.fingerprint))
        });
    }
}

/// Whether a file of ours is that of an anchor which an older version took, and which is none by today's rules.
fn holds_refused(store: &TrustStore, ledger: &Ledger, file: &str) -> bool {
    let mut entries = ledger.anchors.iter().filter(|(fingerprint, _)| *file == file_name(store, fingerprint));
    entries.any(|(fingerprint, entry)| matches!(entry.decode(fingerprint), Err(Some(_))))
}

/// The actions that bring the host from what is observed to the targets.
fn act(
    observed: &Observed,
    ledger: &Ledger,
    mut next: Ledger,
    targets: BTreeMap<Fingerprint, TargetAnchor>,
    over: RemoveReason,
) -> Plan {
    let store = observed.store;
    let mut actions = Vec::new();
    let retired: BTreeSet<Fingerprint> =
        next.anchors.keys().filter(|key| !targets.contains_key(key)).copied().collect();
    follow_services(observed, ledger, &mut next, &targets, &retired);

    if !observed.anchors_dir_exists && !targets.is_empty() {
        actions.push(Action::CreateDirectory { path: store.anchors_dir.to_owned() });
        next.created.insert(store.anchors_dir.to_owned());
    }
    for path in &observed.leftovers {
        actions.push(Action::RemoveTemporary { path: path.clone(), why: "left by a run of ours that was killed" });
    }
    if let Some(path) = observed.stale_temp.as_ref().filter(|_| !targets.is_empty() || !ledger.is_blank()) {
        let why = "left by a run of the tool that was killed; the next run would append to it";
        actions.push(Action::RemoveTemporary { path: path.clone(), why });
    }

    let mut changes = false;
    let mut wanted_files: HashSet<String> = HashSet::new();
    for fingerprint in targets.keys() {
        let file = file_name(store, fingerprint);
        let settled = next.anchors.get(fingerprint).is_some_and(|entry| entry.settled);
        let why = match observed.ours.get(&file) {
            Some(own) if own.intact && own.anchor.as_ref().is_some_and(|a| a.fingerprint == *fingerprint) => None,
            Some(_) => Some(WriteReason::Altered),
            None if settled => Some(WriteReason::Missing),
            None => Some(WriteReason::New),
        };
        if let Some(why) = why {
            actions.push(Action::WriteAnchor { sha256: *fingerprint, file: file.clone(), why });
            next.hooks.insert(*fingerprint, true);
            changes = true;
        }
        wanted_files.insert(file);
    }
    for (file, own) in &observed.ours {
        if wanted_files.contains(file) {
            continue;
        }
        let fingerprint = own.anchor.as_ref().map(|anchor| anchor.fingerprint);
        let named = fingerprint.filter(|fingerprint| *file == file_name(store, fingerprint));
        let why = match named.and_then(|fingerprint| next.anchors.get(&fingerprint)).map(|entry| entry.state) {
            Some(AnchorState::Denied) => RemoveReason::Denied,
            Some(_) => over,
            None if over == RemoveReason::GraceOver && holds_refused(store, &next, file) => RemoveReason::Refused,
            None => RemoveReason::Damaged,
        };
        actions.push(Action::RemoveAnchor { file: file.clone(), why });
        if let Some(fingerprint) = fingerprint.filter(|fingerprint| !targets.contains_key(fingerprint)) {
            next.hooks.insert(fingerprint, false);
        }
        changes = true;
    }

    let concerned = !targets.is_empty() || !ledger.is_blank() || changes;
    let why =
        if concerned { extract_reasons(observed, ledger, &next, &targets, &retired, changes) } else { BTreeSet::new() };
    let mut held = Vec::new();
    if !why.is_empty() {
        held = hazards(observed);
        next.pending = true;
        if held.is_empty() {
            let plain = why.iter().all(|why| match why {
                // another content under the same name keeps its old link in a plain run (facts 0.3); what is removed takes its
                // links along
                ExtractReason::AnchorsChange => {
                    !actions.iter().any(|a| matches!(a, Action::WriteAnchor { why: WriteReason::Altered, .. }))
                }
                ExtractReason::AnchorNotInBundle
                | ExtractReason::BundleMissing
                | ExtractReason::RemovedStillInBundle => true,
                _ => false,
            });
            let mode = if plain { ExtractMode::Plain } else { ExtractMode::Fresh };
            actions.push(Action::Extract { mode, why });
        }
    }
    if !matches!(store.tool, Tool::Staged { .. }) {
        next.hooks.clear(); // the tool of this store runs its hooks itself
    } else if !next.hooks.is_empty() && held.is_empty() {
        actions.push(Action::RunHooks { changes: next.hooks.len() });
    }
    if over != RemoveReason::StoreLeft {
        actions.extend(leave_actions(observed));
    }
    if actions.iter().any(Action::may_change_bundle) {
        next.begun = Some(observed.at.clone());
    }
    let both_blank = next.is_blank() && ledger.is_blank();
    if !next.same_as(ledger) && !both_blank {
        actions.insert(0, Action::RecordLedger);
    }
    Plan { actions, held, targets, retired, ledger: next }
}

#[cfg(test)]
mod tests;
