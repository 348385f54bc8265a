//! What is to be done so that services follow the bundle, as data.

use std::collections::BTreeSet;

use super::{record::Lag, services::HoldReason, trust::RuntimeTrust};
use crate::{
    action::ServiceAction,
    certificate::fingerprint::{Fingerprint, SetDigest},
};

/// Seconds after which a service that is on the way up or down is looked at again.
pub const LOOK_AGAIN: u64 = 5;

/// A restart that is due and held back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// The reason.
    pub reason: HoldReason,
    /// The reason in a sentence.
    pub why: String,
    /// What a person should do; empty where waiting is enough.
    pub next: String,
    /// Seconds until the agent should look again; None if only a change makes a difference.
    pub wait: Option<u64>,
}

/// Whether the fleet lets this node restart services now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum RestartGate {
    /// It does, or this node belongs to no fleet.
    #[default]
    Open,
    /// It does not, and why.
    Closed(Hold),
}

/// What is to be done so that services follow the bundle.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServicePlan {
    /// In order.
    pub actions: Vec<ServiceAction>,
    /// The restart that is held back.
    pub hold: Option<Hold>,
    /// The runtime's lag, without what the registry directory covers and what is proven.
    pub lag: Lag,
    /// Anchors that the runtime's process does not have and every pull gets from the registry directory.
    pub covered: BTreeSet<Fingerprint>,
    /// What our file in the registry directory is to hold.
    pub serves: BTreeSet<Fingerprint>,
    /// Wanted anchors that the runtime cannot read: no restart is due for them, and they make nothing stale.
    pub cannot: BTreeSet<Fingerprint>,
    /// The registry by which the runtime has proven that it trusts what it was not known to have; None if no such proof was needed.
    pub witnessed: Option<String>,
    /// Whether pulls follow, and which fact decided.
    pub trust: RuntimeTrust,
}

/// What the services are to follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceGoal {
    /// Anchors that are to be trusted.
    pub anchors: BTreeSet<Fingerprint>,
    /// Those among them that Go reads. The runtime can trust no others, whatever is done, and a registry file without any of these
    /// would fail every pull.
    pub readable: BTreeSet<Fingerprint>,
    /// What is in the bundle.
    pub bundle: BTreeSet<Fingerprint>,
    /// Digest of the set of ours that is in force over this bundle.
    pub set: SetDigest,
}
