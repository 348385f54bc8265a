//! What is rendered.

use std::sync::Arc;

use crate::{
    certificate::{anchor::Anchor, fingerprint::SetDigest},
    source::{
        Resolved,
        policy::{NotCa, Policy},
    },
    store::Family,
};

/// The anchors that new nodes are to trust, and what is known of these nodes.
#[derive(Debug, Clone)]
pub struct FirstBoot<'a> {
    /// The anchors, by ascending fingerprint.
    pub(super) anchors: Vec<&'a Arc<Anchor>>,
    /// The digest of their set.
    pub digest: SetDigest,
    /// `store.family`; None to detect it on the node.
    pub(super) family: Option<Family>,
    /// `policy.notCa`.
    not_ca: NotCa,
}

impl<'a> FirstBoot<'a> {
    /// The set that the sources and the policy want.
    pub fn new(resolved: &'a Resolved, policy: &Policy, family: Option<Family>) -> Self {
        Self {
            anchors: resolved.desired.values().map(|wanted| &wanted.anchor).collect(),
            digest: SetDigest::of(&resolved.desired.keys().copied().collect()),
            family,
            not_ca: policy.not_ca,
        }
    }

    /// Whether there is no anchor.
    pub fn is_empty(&self) -> bool {
        self.anchors.is_empty()
    }

    /// Whether the agent would not install an anchor where the store drops what is not a CA for servers.
    pub(super) fn is_left_out(&self, anchor: &Anchor) -> bool {
        self.not_ca != NotCa::Accept && anchor.dropped_by_p11_kit().is_some()
    }

    /// The anchors as one text of PEM.
    pub(super) fn pem(&self) -> String {
        self.anchors.iter().map(|anchor| anchor.pem()).collect()
    }
}
