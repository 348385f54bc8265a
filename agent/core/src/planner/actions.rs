//! The actions that bring a store to its targets, and the ledger that records them.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::{
    adoption::Adoption,
    distrust::Distrust,
    extract::{extract_reasons, hazards},
    service_records::record_services,
};
use crate::{
    action::{ExtractReason, RemoveReason, StoreAction, WriteReason},
    certificate::fingerprint::Fingerprint,
    ledger::{AnchorState, Ledger},
    observed::Observed,
    plan::{Plan, TargetAnchor},
    store::{
        ExtractMode, Tool, TrustStore,
        adopted::AdoptedFile,
        anchor_file::{file_name, link_stem},
    },
};

/// What is done about files and roots that are not ours.
#[derive(Debug, Default)]
pub(super) struct ForeignPlan<'a> {
    pub(super) adoption: Adoption<'a>,
    pub(super) distrust: Distrust,
}

/// The plan that brings the observed store to the targets: additions first, then removals, then one run of the tool. `ledger` is the
/// one in force, `next` the one that the plan records. `over`: why an anchor that is no target goes, if it is not denied.
pub(super) fn store_plan(
    observed: &Observed,
    ledger: &Ledger,
    mut next: Ledger,
    targets: BTreeMap<Fingerprint, TargetAnchor>,
    over: RemoveReason,
    others: ForeignPlan<'_>,
) -> Plan {
    let ForeignPlan { adoption, distrust } = others;
    let retired: BTreeSet<Fingerprint> =
        next.anchors.keys().filter(|key| !targets.contains_key(key)).copied().collect();
    record_services(observed, ledger, &mut next, &targets, &retired);

    let mut actions = preparations(observed, ledger, &mut next, !targets.is_empty());
    let mut files = anchor_writes(observed, &mut next, &targets);
    files.extend(anchor_removals(observed, &mut next, &targets, over));
    files.extend(returns(observed, &mut next, over));
    let harmless = hazards(observed).is_empty(); // nothing is taken over that the tool could not follow
    let is_harmless = |action: &StoreAction| harmless || !matches!(action, StoreAction::DistrustRoot { .. });
    files.extend(distrust.actions.iter().filter(|action| is_harmless(action)).cloned());
    note_distrust(&files, &mut next);
    files.extend(adoption.files.iter().filter(|_| harmless).map(|file| file.action(&mut next)));
    let changes = !files.is_empty();
    actions.append(&mut files);

    let concerned = !targets.is_empty() || !ledger.is_blank() || changes;
    let why =
        if concerned { extract_reasons(observed, ledger, &next, &targets, &retired, changes) } else { BTreeSet::new() };
    let mut held = Vec::new();
    if !why.is_empty() {
        held = hazards(observed);
        next.pending = true;
        if held.is_empty() {
            actions.push(StoreAction::Extract { mode: extract_mode(&why, &actions), why });
        }
    }
    if !matches!(observed.store.tool, Tool::Staged { .. }) {
        next.hooks_done(); // the tool of this store runs its hooks itself
    } else if next.untold_hooks() > 0 && held.is_empty() {
        actions.push(StoreAction::RunHooks { changes: next.untold_hooks() });
    }
    if over != RemoveReason::StoreLeft {
        actions.extend(retirements(observed));
    }
    if actions.iter().any(StoreAction::may_change_bundle) {
        next.begun = Some(observed.at.clone());
    }
    record_first(&mut actions, ledger, &next);
    let Distrust { roots: distrusted, problems, .. } = distrust;
    let (refused, waiting) = (adoption.refused, BTreeMap::new());
    Plan { actions, held, awaits: None, targets, waiting, retired, refused, distrusted, problems, ledger: next }
}

/// Has the ledger written before all else, if the next one says something else than the one in force.
pub(super) fn record_first(actions: &mut Vec<StoreAction>, ledger: &Ledger, next: &Ledger) {
    let both_blank = next.is_blank() && ledger.is_blank();
    if !next.same_as(ledger) && !both_blank {
        actions.insert(0, StoreAction::RecordLedger);
    }
}

/// The anchor directory, and what killed runs have left behind.
fn preparations(observed: &Observed, ledger: &Ledger, next: &mut Ledger, has_targets: bool) -> Vec<StoreAction> {
    let mut actions = Vec::new();
    if !observed.anchors_dir_exists && has_targets {
        let path = observed.store.anchors_dir.to_owned();
        next.created.insert(path.clone());
        actions.push(StoreAction::CreateDirectory { path });
    }
    for path in &observed.leftovers {
        let why = "left by a run of ours that was killed";
        actions.push(StoreAction::RemoveTemporary { path: path.clone(), why });
    }
    if let Some(path) = observed.stale_temp.as_ref().filter(|_| has_targets || !ledger.is_blank()) {
        let why = "left by a run of the tool that was killed; the next run would append to it";
        actions.push(StoreAction::RemoveTemporary { path: path.clone(), why });
    }
    actions
}

/// The anchor files that are not there, or not as they should be.
fn anchor_writes(
    observed: &Observed,
    next: &mut Ledger,
    targets: &BTreeMap<Fingerprint, TargetAnchor>,
) -> Vec<StoreAction> {
    let mut actions = Vec::new();
    for fingerprint in targets.keys() {
        let file = file_name(observed.store, fingerprint);
        let settled = next.anchors.get(fingerprint).is_some_and(|entry| entry.settled);
        let why = match observed.ours.get(&file) {
            Some(own) if own.intact && own.anchor.as_ref().is_some_and(|a| a.fingerprint == *fingerprint) => continue,
            Some(_) => WriteReason::Altered,
            None if settled => WriteReason::Missing,
            None => WriteReason::New,
        };
        next.hooks.insert(*fingerprint, true);
        actions.push(StoreAction::WriteAnchor { sha256: *fingerprint, file, why });
    }
    actions
}

/// The files with our kind of name that no target has.
fn anchor_removals(
    observed: &Observed,
    next: &mut Ledger,
    targets: &BTreeMap<Fingerprint, TargetAnchor>,
    over: RemoveReason,
) -> Vec<StoreAction> {
    let store = observed.store;
    let wanted: HashSet<String> = targets.keys().map(|fingerprint| file_name(store, fingerprint)).collect();
    let mut actions = Vec::new();
    for (file, own) in observed.ours.iter().filter(|(file, _)| !wanted.contains(*file)) {
        let fingerprint = own.anchor.as_ref().map(|anchor| anchor.fingerprint);
        let named = fingerprint.filter(|fingerprint| *file == file_name(store, fingerprint));
        let why = match named.and_then(|fingerprint| next.anchors.get(&fingerprint)).map(|entry| entry.state) {
            Some(AnchorState::Denied) => RemoveReason::Denied,
            Some(_) => over,
            None if over == RemoveReason::GraceOver && holds_refused(store, next, file) => RemoveReason::Refused,
            None => RemoveReason::Damaged,
        };
        if let Some(fingerprint) = fingerprint.filter(|fingerprint| !targets.contains_key(fingerprint)) {
            next.hooks.insert(fingerprint, false);
        }
        actions.push(StoreAction::RemoveAnchor { file: file.clone(), why });
    }
    actions
}

/// The store's hooks hear of a root's link that goes or comes.
fn note_distrust(files: &[StoreAction], next: &mut Ledger) {
    for action in files {
        let (place, added) = match action {
            StoreAction::DistrustRoot { place, .. } => (place, false),
            StoreAction::TrustRoot { place } => (place, true),
            _ => continue,
        };
        next.hook_names.insert(link_stem(place.rsplit('/').next().unwrap_or(place)), added);
    }
}

/// Files that were taken over and go back to where they were: all of them, or those of the store that is left.
fn returns(observed: &Observed, next: &mut Ledger, over: RemoveReason) -> Vec<StoreAction> {
    let of_store =
        |file: &&AdoptedFile| file.store().is_some_and(|store| store.anchors_dir == observed.store.anchors_dir);
    let back: Vec<&AdoptedFile> = match over {
        RemoveReason::Uninstall => observed.adopted.values().collect(),
        RemoveReason::StoreLeft => observed.adopted.values().filter(of_store).collect(),
        _ => Vec::new(),
    };
    for name in back.iter().filter_map(|file| file.path.rsplit('/').next()) {
        next.hook_names.insert(link_stem(name), true);
    }
    back.into_iter().map(|file| StoreAction::ReturnFile { path: file.path.clone() }).collect()
}

/// Whether a file of ours is that of an anchor which an older version accepted and which today's rules reject.
fn holds_refused(store: &TrustStore, ledger: &Ledger, file: &str) -> bool {
    let mut entries = ledger.anchors.iter().filter(|(fingerprint, _)| *file == file_name(store, fingerprint));
    entries.any(|(fingerprint, entry)| matches!(entry.decode(fingerprint), Err(Some(_))))
}

/// How thoroughly the tool must run.
fn extract_mode(why: &BTreeSet<ExtractReason>, actions: &[StoreAction]) -> ExtractMode {
    let is_altered =
        |action: &StoreAction| matches!(action, StoreAction::WriteAnchor { why: WriteReason::Altered, .. });
    let suffices = |why: &ExtractReason| match why {
        // A plain run keeps the old link of a file whose content changed (facts 0.3). It does take away the links of a removed file.
        ExtractReason::AnchorsChange => !actions.iter().any(is_altered),
        ExtractReason::AnchorNotInBundle | ExtractReason::BundleMissing | ExtractReason::RemovedStillInBundle => true,
        ExtractReason::Unfinished
        | ExtractReason::LinkMissing
        | ExtractReason::ForeignLinkMissing
        | ExtractReason::BundleBroken
        | ExtractReason::BundleRepeats
        | ExtractReason::KeyInBundle
        | ExtractReason::ForeignMissing => false,
    };
    if why.iter().all(suffices) { ExtractMode::Plain } else { ExtractMode::Fresh }
}

/// One action for each old store that can be retired.
pub(super) fn retirements(observed: &Observed) -> impl Iterator<Item = StoreAction> {
    let stores = observed.old.iter().filter(|store| store.can_be_left);
    stores.map(|store| StoreAction::RetireStore { family: store.family, files: store.files.clone() })
}
