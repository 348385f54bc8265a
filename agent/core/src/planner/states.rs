//! Where each anchor of ours stands: desired, in grace, retired or denied.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    certificate::fingerprint::Fingerprint,
    fleet::removal::{RemovalRule, RemovalWait},
    ledger::{AnchorState, Ledger, LedgerAnchor},
    observed::Observed,
    plan::TargetAnchor,
    source::{Resolved, SourceStatus, policy::Policy},
    store::anchor_file::file_name,
    time::Moment,
};

/// Seconds for which a removed anchor is remembered: far longer than any run of a tool.
pub const REMEMBER_GONE: u64 = 600;

/// Forgets removed anchors that have stayed away for [`REMEMBER_GONE`].
pub(super) fn forget_gone(ledger: &mut Ledger, observed: &Observed, now: i64) {
    ledger.anchors.retain(|fingerprint, entry| {
        let back = observed.effective.set.contains(fingerprint);
        let long_ago = entry.gone.is_some_and(|gone| now.abs_diff(gone) >= REMEMBER_GONE);
        back || !long_ago
    });
}

/// What becomes of the anchors.
pub(super) struct Decided {
    /// Those that are to be trusted.
    pub(super) targets: BTreeMap<Fingerprint, TargetAnchor>,
    /// Those of them whose grace is over, and why they stay.
    pub(super) waiting: BTreeMap<Fingerprint, RemovalWait>,
}

/// Brings the ledger's anchors to their new states. Without a rule, an anchor leaves when its grace is over.
pub(super) fn decide_states(
    resolved: &Resolved,
    observed: &Observed,
    policy: &Policy,
    now: &Moment,
    next: &mut Ledger,
    rule: Option<RemovalRule<'_>>,
) -> Decided {
    let latest = next.updated;
    let denied = |fingerprint: &Fingerprint| policy.forbids(fingerprint);
    let state = |fingerprint: &Fingerprint| if denied(fingerprint) { AnchorState::Denied } else { AnchorState::Grace };
    adopt_own_files(observed, next, state);
    let mut targets = desire(resolved, observed, next);
    // A source that cannot be read, and whose last set is not known, may want any of them: no grace begins.
    let has = |status| resolved.sources.iter().any(|source| source.status == status);
    let (failed, absent) = (has(SourceStatus::Failed), has(SourceStatus::Absent));
    let (mut lost, mut waiting) = (Vec::new(), BTreeMap::new());
    for (fingerprint, entry) in &mut next.anchors {
        if targets.contains_key(fingerprint) {
            continue;
        }
        entry.state = match entry.state {
            _ if denied(fingerprint) => AnchorState::Denied,
            AnchorState::Retired => AnchorState::Retired,
            // no longer denied, and no source wants it
            AnchorState::Denied => AnchorState::Retired,
            AnchorState::Desired | AnchorState::Grace => {
                // An unknown file may have come from an optional source that was never seen.
                if !(failed || absent && entry.adopted) {
                    // A clock behind what was written down must not make the grace seem to have begun long ago.
                    entry.unwanted_since.get_or_insert_with(|| Moment { wall: now.wall.max(latest), ..now.clone() });
                }
                let is_over = |since: &&Moment| now.elapsed_since(since, latest) >= policy.removal_grace;
                match entry.unwanted_since.as_ref().filter(is_over) {
                    None => AnchorState::Grace,
                    Some(since) => match rule.and_then(|rule| rule.wait(fingerprint, since.wall)) {
                        None => AnchorState::Retired,
                        Some(wait) => {
                            waiting.insert(*fingerprint, wait);
                            AnchorState::Grace
                        }
                    },
                }
            }
        };
        if entry.state == AnchorState::Grace {
            let own = observed.ours.get(&file_name(observed.store, fingerprint)).and_then(|file| file.anchor.clone());
            let own = own.filter(|own| own.fingerprint == *fingerprint);
            match own.map_or_else(|| entry.decode(fingerprint).map(Arc::new), Ok) {
                // The store leaves it out, so no program trusts it, and its grace protects nobody.
                Ok(anchor)
                    if entry.unwanted_since.is_some()
                        && observed.store.leaves_out(&anchor).is_some()
                        && !observed.effective.set.contains(fingerprint) =>
                {
                    entry.state = AnchorState::Retired;
                }
                Ok(anchor) => {
                    targets.insert(*fingerprint, TargetAnchor { anchor, state: AnchorState::Grace });
                }
                // An older version accepted it, and it would break readers of the bundle: it gets no grace.
                Err(Some(_)) => entry.state = AnchorState::Retired,
                // Neither the host nor the ledger has its certificate: nothing is left to keep.
                Err(None) => lost.push(*fingerprint),
            }
        }
    }
    for fingerprint in lost {
        next.anchors.remove(&fingerprint);
    }
    waiting.retain(|fingerprint, _| targets.contains_key(fingerprint)); // some leave for another reason
    Decided { targets, waiting }
}

/// Enters what the sources want into the ledger, as targets.
fn desire(resolved: &Resolved, observed: &Observed, next: &mut Ledger) -> BTreeMap<Fingerprint, TargetAnchor> {
    let mut targets = BTreeMap::new();
    for (fingerprint, wanted) in &resolved.desired {
        let entry = next.anchors.entry(*fingerprint).or_insert_with(|| LedgerAnchor {
            shared: observed.effective.set.contains(fingerprint),
            copied: observed.foreign_copy(fingerprint),
            ..LedgerAnchor::new(&wanted.anchor, AnchorState::Desired)
        });
        if matches!(entry.state, AnchorState::Retired | AnchorState::Denied) {
            entry.settled = false; // it comes back: from now on it is new
        }
        entry.state = AnchorState::Desired;
        entry.adopted = false;
        entry.unwanted_since = None;
        entry.gone = None;
        targets.insert(*fingerprint, TargetAnchor { anchor: wanted.anchor.clone(), state: AnchorState::Desired });
    }
    targets
}

/// Enters own files into the ledger that it does not know: the ledger was lost, or another installation left them. A file that holds
/// another certificate than its name says was not written by us, and is not entered.
pub(super) fn adopt_own_files(observed: &Observed, next: &mut Ledger, state: impl Fn(&Fingerprint) -> AnchorState) {
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
