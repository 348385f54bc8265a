//! Problems: what can be wrong, each with a kind, a text and what to do next.

use crate::certificate::fingerprint::Fingerprint;
use serde::Serialize;

/// Something that is wrong on the node. What is wrong with a source is a [`Rejection`](crate::source::Rejection) instead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// The kind.
    pub kind: ProblemKind,
    /// The anchor that it is about, if it is about a single one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Fingerprint>,
    /// What is wrong, in a sentence.
    pub text: String,
    /// What a person should do; empty where the agent does it by itself.
    pub next: String,
}

/// The kinds of problems; also the label `reason` of `nodetrust_errors_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProblemKind {
    /// The host has no store that can be written.
    UnsupportedStore,
    /// The configuration is invalid; the last good one is in force.
    Config,
    /// A file or directory of the host could not be read.
    Observe,
    /// A file of the host could not be written or removed.
    Write,
    /// Another process kept the lock.
    Lock,
    /// The tool could not be run, failed, or ran too long.
    Extract,
    /// A hook of the store failed.
    Hook,
    /// An anchor is not in the bundle.
    NotTrusted,
    /// A removed anchor is still in the bundle.
    StillTrusted,
    /// OpenSSL's directory has no link to an anchor.
    NotLinked,
    /// The bundle does not exist, or OpenSSL cannot load it.
    BundleBroken,
    /// The bundle holds a private key.
    BundlePrivateKey,
    /// A run of the tool lost certificates that are not ours; the bundle was put back.
    ForeignLost,
    /// A file that is not ours keeps a reader from loading the bundle, and did so before us.
    ForeignBroken,
    /// Most certificates that are not ours have left the bundle at once, and not because of us.
    ForeignGone,
    /// A private key lies in a file that is not ours, where the distribution's own way would copy it into the bundle.
    ForeignPrivateKey,
    /// Containers did not outlive a restart of the runtime.
    ContainersEnded,
    /// The restarts of the fleet are halted because of this node.
    FleetHalted,
    /// What is due is held back because of a foreign file.
    Held,
    /// Somebody else keeps undoing what the agent does.
    DriftFight,
    /// The ledger was damaged and has been made anew.
    Ledger,
    /// The host's services cannot be looked at.
    Services,
    /// A service could not be restarted, or does not work since.
    Restart,
    /// The runtime's registry directory is not as it should be.
    RegistryCerts,
    /// A store that was in use before still has something of ours.
    OldStore,
    /// A certificate in `policy.deniedFingerprints` is trusted, and not because of us.
    DeniedTrusted,
    /// A file that `store.adopt` names stays, or could not be put back: it is not what may be taken over, or something else has its name.
    NotAdopted,
    /// A root that `policy.distrust` names is still trusted, or is none of the distribution's, or cannot be distrusted here.
    NotDistrusted,
    /// The bundle for pods could not be written.
    Export,
    /// The fleet's approvals of removals cannot be used; no anchor leaves by them.
    Approvals,
    /// The Kubernetes API cannot be written to. It is counted in metrics and is not a part of reports.
    Kubernetes,
}

impl ProblemKind {
    /// Every kind, for metrics.
    pub const ALL: [Self; 31] = [
        Self::UnsupportedStore,
        Self::Config,
        Self::Observe,
        Self::Write,
        Self::Lock,
        Self::Extract,
        Self::Hook,
        Self::NotTrusted,
        Self::StillTrusted,
        Self::NotLinked,
        Self::BundleBroken,
        Self::BundlePrivateKey,
        Self::ForeignLost,
        Self::ForeignBroken,
        Self::ForeignGone,
        Self::ForeignPrivateKey,
        Self::Held,
        Self::DriftFight,
        Self::Ledger,
        Self::Services,
        Self::Restart,
        Self::ContainersEnded,
        Self::FleetHalted,
        Self::RegistryCerts,
        Self::OldStore,
        Self::DeniedTrusted,
        Self::NotAdopted,
        Self::NotDistrusted,
        Self::Export,
        Self::Approvals,
        Self::Kubernetes,
    ];

    /// The public name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UnsupportedStore => "unsupported-store",
            Self::Config => "config",
            Self::Observe => "observe",
            Self::Write => "write",
            Self::Lock => "lock",
            Self::Extract => "extract",
            Self::Hook => "hook",
            Self::NotTrusted => "not-trusted",
            Self::StillTrusted => "still-trusted",
            Self::NotLinked => "not-linked",
            Self::BundleBroken => "bundle-broken",
            Self::BundlePrivateKey => "bundle-private-key",
            Self::ForeignLost => "foreign-lost",
            Self::ForeignBroken => "foreign-broken",
            Self::ForeignGone => "foreign-gone",
            Self::ForeignPrivateKey => "foreign-private-key",
            Self::Held => "held",
            Self::DriftFight => "drift-fight",
            Self::Ledger => "ledger",
            Self::Services => "services",
            Self::Restart => "restart",
            Self::ContainersEnded => "containers-ended",
            Self::FleetHalted => "fleet-halted",
            Self::RegistryCerts => "registry-certs",
            Self::OldStore => "old-store",
            Self::DeniedTrusted => "denied-trusted",
            Self::NotAdopted => "not-adopted",
            Self::NotDistrusted => "not-distrusted",
            Self::Export => "export",
            Self::Approvals => "approvals",
            Self::Kubernetes => "kubernetes",
        }
    }

    /// Whether some client does not trust what it should, or trusts what it should not, while this holds.
    pub fn is_about_trust(self) -> bool {
        matches!(
            self,
            Self::NotTrusted | Self::StillTrusted | Self::NotLinked | Self::BundleBroken | Self::ForeignBroken
        )
    }

    /// Whether the store is not as it should be while this holds. The other kinds are reported and do not affect trust in the store.
    pub fn is_failure(self) -> bool {
        !matches!(
            self,
            Self::Config
                | Self::Hook
                | Self::ForeignBroken
                | Self::ForeignGone
                | Self::ForeignPrivateKey
                | Self::Ledger
                | Self::DriftFight
                | Self::Services
                | Self::Restart
                | Self::ContainersEnded
                | Self::FleetHalted
                | Self::RegistryCerts
                | Self::OldStore
                | Self::DeniedTrusted
                | Self::NotAdopted
                | Self::NotDistrusted
                | Self::Export
                | Self::Approvals
                | Self::Kubernetes
        )
    }
}

impl Problem {
    /// A problem that is about no single anchor.
    pub fn new(kind: ProblemKind, text: impl Into<String>, next: impl Into<String>) -> Self {
        // The texts may hold output of a tool, or the name of a file.
        let bounded = |text: String| crate::certificate::name::sentence(&text);
        Self { kind, sha256: None, text: bounded(text.into()), next: bounded(next.into()) }
    }
}
