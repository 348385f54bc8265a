//! What is to be done with the trust store, as data.

use crate::{
    action::{Drift, ExtractReason, RemoveReason, StoreAction, WriteReason},
    certificate::{
        anchor::Anchor,
        fingerprint::{Fingerprint, SetDigest},
    },
    fleet::removal::RemovalWait,
    ledger::{AnchorState, Ledger},
    observed::{ForeignFile, Observed},
    problem::Problem,
    runtime::service_plan::{Hold, ServiceGoal},
    store::TrustStore,
};
use serde::Serialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// An action that is due and held back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Held {
    /// The action, in a word.
    pub what: &'static str,
    /// The reason, in a sentence.
    pub why: String,
    /// What a person should do.
    pub next: String,
}

/// A file that `store.adopt` names and that is not taken over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedFile {
    /// Absolute path.
    pub path: String,
    /// The reason, in a sentence.
    pub why: String,
    /// What a person should do.
    pub next: String,
}

/// An anchor that is to be trusted after the plan.
#[derive(Debug, Clone)]
pub struct TargetAnchor {
    /// The certificate.
    pub anchor: Arc<Anchor>,
    /// Desired or in grace.
    pub state: AnchorState,
}

/// What to do, and what is then expected.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The actions, in order.
    pub actions: Vec<StoreAction>,
    /// What is held back.
    pub held: Vec<Held>,
    /// What holds back the restart of the runtime that the change would bring with it, and so the change.
    pub awaits: Option<Hold>,
    /// What must be in the bundle afterwards.
    pub targets: BTreeMap<Fingerprint, TargetAnchor>,
    /// Anchors whose grace is over and that stay, and why.
    pub waiting: BTreeMap<Fingerprint, RemovalWait>,
    /// What must not be in it afterwards.
    pub retired: BTreeSet<Fingerprint>,
    /// Files that `store.adopt` names and that stay.
    pub refused: Vec<RefusedFile>,
    /// Roots of the distribution that are distrusted.
    pub distrusted: BTreeSet<Fingerprint>,
    /// What is wrong with what the configuration asks for.
    pub problems: Vec<Problem>,
    /// The ledger to write before anything else is done.
    pub ledger: Ledger,
}

impl Plan {
    /// What the plan repairs that somebody else changed. Nothing is drift while a change of ours is unfinished.
    pub fn drift(&self, before: &Ledger) -> BTreeSet<Drift> {
        let mut kinds = BTreeSet::new();
        if before.pending {
            return kinds;
        }
        // What this plan removes is still in the bundle, and that is not somebody's change.
        let removes = self.actions.iter().any(|action| matches!(action, StoreAction::RemoveAnchor { .. }));
        let is_refused =
            |action: &StoreAction| matches!(action, StoreAction::RemoveAnchor { why: RemoveReason::Refused, .. });
        let had_refused = self.actions.iter().any(is_refused);
        for action in &self.actions {
            match action {
                StoreAction::WriteAnchor { why: WriteReason::Missing, .. } => kinds.extend([Drift::AnchorDeleted]),
                StoreAction::WriteAnchor { why: WriteReason::Altered, .. } => kinds.extend([Drift::AnchorAltered]),
                StoreAction::Extract { why, .. } => kinds.extend(why.iter().filter_map(|why| match why {
                    ExtractReason::RemovedStillInBundle if removes => None,
                    ExtractReason::BundleBroken if had_refused => None,
                    ExtractReason::BundleMissing
                    | ExtractReason::AnchorNotInBundle
                    | ExtractReason::RemovedStillInBundle
                    | ExtractReason::BundleBroken
                    | ExtractReason::BundleRepeats
                    | ExtractReason::ForeignMissing
                    | ExtractReason::KeyInBundle => Some(Drift::Bundle),
                    ExtractReason::LinkMissing | ExtractReason::ForeignLinkMissing => Some(Drift::Link),
                    ExtractReason::AnchorsChange | ExtractReason::Unfinished => None,
                })),
                _ => {}
            }
        }
        kinds
    }

    /// Whether an anchor may leave once the runtime is known to follow the store.
    pub fn asks_runtime(&self) -> bool {
        self.waiting.values().any(|wait| *wait == RemovalWait::RuntimeNotJudged)
    }

    /// Whether the plan changes the trust store. Neither the ledger nor the hooks are a part of it.
    pub fn changes_store(&self) -> bool {
        self.actions.iter().any(|action| !matches!(action, StoreAction::RecordLedger | StoreAction::RunHooks { .. }))
    }

    /// Whether the plan restarts the container runtime, since the store applies a change so. Before the runtime runs, nothing is restarted.
    pub fn restarts_runtime(&self, observed: &Observed) -> bool {
        let is_change =
            |action: &StoreAction| matches!(action, StoreAction::WriteAnchor { .. } | StoreAction::RemoveAnchor { .. });
        observed.store.is_behind_api() && observed.services.has_runtime() && self.actions.iter().any(is_change)
    }

    /// Whether the plan changes more than the ledger.
    pub fn changes_host(&self) -> bool {
        self.actions.iter().any(|action| !matches!(action, StoreAction::RecordLedger))
    }

    /// Our anchors that are trusted over this bundle: targets, and removed ones that are in it because of us. Their digest names the set in
    /// force.
    pub fn in_force(&self, observed: &Observed, bundle: &BTreeSet<Fingerprint>) -> BTreeSet<Fingerprint> {
        // an anchor that somebody else's copy keeps in the bundle is not ours
        let lingers = |print: &&Fingerprint| {
            !self.ledger.anchors.get(print).is_some_and(|entry| entry.shared) && !observed.foreign_copy(print)
        };
        let all = self.targets.keys().chain(self.retired.iter().filter(lingers));
        all.filter(|print| bundle.contains(print)).copied().collect()
    }

    /// What services are to follow, over this bundle.
    pub fn wanted(&self, observed: &Observed, bundle: BTreeSet<Fingerprint>) -> ServiceGoal {
        let set = SetDigest::of(&self.in_force(observed, &bundle));
        let readable = self.targets.iter().filter(|(_, target)| target.anchor.go_reads());
        ServiceGoal {
            anchors: self.targets.keys().copied().collect(),
            readable: readable.map(|(fingerprint, _)| *fingerprint).collect(),
            bundle,
            set,
        }
    }

    /// The targets that a run of this store's tool must bring into the bundle: all but those that the store leaves out.
    pub fn due(&self, store: &TrustStore) -> impl Iterator<Item = &Fingerprint> {
        let taken = |target: &TargetAnchor| store.leaves_out(&target.anchor).is_none();
        self.targets.iter().filter(move |(_, target)| taken(target)).map(|(fingerprint, _)| fingerprint)
    }

    /// Whether the plan takes a file of somebody else's over.
    pub fn adopts(&self, observed: &Observed, file: &ForeignFile) -> bool {
        let name = observed.base_name(file);
        let is_it =
            |action: &StoreAction| matches!(action, StoreAction::AdoptFile { file, .. } if Some(file.as_str()) == name);
        self.actions.iter().any(is_it)
    }

    /// Certificates that the plan wants gone without being ours: those of files that it takes over.
    pub fn leaving(&self, observed: &Observed) -> BTreeSet<Fingerprint> {
        let adopted = observed.foreign.iter().filter(|file| self.adopts(observed, file));
        let leaving = adopted.flat_map(|file| &file.anchors).map(|anchor| anchor.fingerprint);
        leaving.chain(observed.adopted_certificates()).collect()
    }

    /// Whether the plan is about to distrust a root.
    pub fn distrusts(&self, print: &Fingerprint) -> bool {
        self.actions.iter().any(|action| matches!(action, StoreAction::DistrustRoot { sha256, .. } if sha256 == print))
    }

    /// What the bundle is to hold after the plan.
    pub fn expected_bundle(&self, observed: &Observed) -> BTreeSet<Fingerprint> {
        let mut bundle = observed.effective.set.clone();
        if self.changes_store() && self.held.is_empty() {
            let kept = |f: &Fingerprint| {
                observed.foreign.iter().any(|file| file.gives(f) && !self.adopts(observed, file))
                    || self.ledger.anchors.get(f).is_some_and(|entry| entry.shared)
            };
            bundle.retain(|fingerprint| !self.retired.contains(fingerprint) || kept(fingerprint));
            bundle.retain(|fingerprint| !self.distrusts(fingerprint));
            bundle.extend(self.due(observed.store));
        }
        bundle
    }
}
