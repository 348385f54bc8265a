//! The answer about one target.

use serde::Serialize;

use super::target::Target;
use crate::{
    certificate::{fingerprint::Fingerprint, name::sentence},
    ledger::AnchorState,
    time::Time,
};

/// The answer for one target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Probe {
    /// The target, as it was asked for.
    pub target: String,
    /// Who was asked.
    pub through: Through,
    /// The answer.
    pub verdict: ProbeVerdict,
    /// Why not; the most important reason, None if it is trusted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<ProbeReason>,
    /// The answer in a sentence.
    pub text: String,
    /// What the server presented, in its order.
    pub chain: Vec<ChainCertificate>,
    /// What the chain ends in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub anchor: Option<ChainAnchor>,
    /// The earliest end of validity in the chain that was used, anchor included; of what was presented if none was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Time>,
    /// What else is to be known.
    pub notes: Vec<String>,
    /// What to do, most important first.
    pub next: Vec<String>,
}

/// Whether a target is trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProbeVerdict {
    /// Its chain ends in the host's bundle, and its name fits.
    Trusted,
    /// Programs that read the host's bundle trust it, the running container runtime does not yet.
    NotTrustedByRuntime,
    /// The running container runtime pulls from it, in a way that does not prove trust in its CA.
    PullsWork,
    /// It showed its certificates, and programs on this host refuse them.
    NotTrusted,
    /// It showed no certificates.
    NotReached,
}

/// Why a target is not trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProbeReason {
    /// Nobody here knows the CA in which the chain ends.
    UnknownIssuer,
    /// The store has a CA of that name, with another key.
    OtherKey,
    /// The CA is known to nodetrust, and not in the store.
    NotInstalled,
    /// The server leaves out certificates between its own and the root.
    IncompleteChain,
    /// The server's certificate has signed itself and is not in the store.
    SelfSigned,
    /// A certificate of the chain has expired.
    Expired,
    /// A certificate of the chain is not valid yet.
    NotYetValid,
    /// The server's certificate is for other names.
    NameMismatch,
    /// A certificate says that it is not for this use.
    WrongUsage,
    /// A limit that a CA set is not kept: names, length, an extension that must be understood.
    Constraint,
    /// A signature does not match.
    BadSignature,
    /// A key or signature that Go or OpenSSL refuse.
    Weak,
    /// An algorithm that is not supported here.
    Unsupported,
    /// The server's certificate cannot be decoded.
    Malformed,
    /// The store trusts it, the running container runtime does not yet.
    RuntimeStale,
    /// The running container runtime was asked, and refuses a certificate.
    RuntimeRefuses,
    /// The running container runtime was asked, and did not reach it.
    RuntimeNotReached,
    /// The running container runtime goes to a mirror, or verifies no certificate.
    NotVerified,
    /// The host's bundle cannot be read.
    NoBundle,
    /// The name cannot be resolved.
    Dns,
    /// Nobody listens there.
    Refused,
    /// No answer in time.
    Timeout,
    /// The network does not lead there.
    Unreachable,
    /// The proxy does not let us through.
    Proxy,
    /// It answers, and not with TLS.
    NotTls,
    /// It speaks no TLS that is still accepted.
    TlsVersion,
    /// It ended the handshake.
    Handshake,
}

/// One certificate of a chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ChainCertificate {
    /// Its place in what was presented, from 0.
    pub index: usize,
    /// Its common name.
    pub common_name: String,
    /// Its subject.
    pub subject: String,
    /// Its issuer's common name.
    pub issuer_common_name: String,
    /// Its identity.
    pub sha256: Fingerprint,
    /// Its key.
    pub key: String,
    /// Start of validity.
    pub not_before: Time,
    /// End of validity.
    pub not_after: Time,
}

/// The anchor in which a chain ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ChainAnchor {
    /// Its common name.
    pub common_name: String,
    /// Its subject.
    pub subject: String,
    /// Its identity.
    pub sha256: Fingerprint,
    /// End of validity.
    pub not_after: Time,
    /// Its state if it is ours, None if it is the distribution's or somebody else's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<AnchorState>,
    /// When its grace ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grace_end: Option<Time>,
}

/// Who is asked whether a server is trusted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Through {
    /// The bundle that programs of the host read.
    #[default]
    Host,
    /// The container runtime, by a pull of an image that cannot be.
    Runtime,
}

impl Through {
    /// The public name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Runtime => "runtime",
        }
    }
}

/// A reason with its sentence and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ProbeFinding {
    pub(super) reason: ProbeReason,
    pub(super) text: String,
    pub(super) next: String,
}

impl ProbeFinding {
    pub(super) fn new(reason: ProbeReason, text: impl Into<String>, next: impl Into<String>) -> Self {
        Self { reason, text: sentence(&text.into()), next: sentence(&next.into()) }
    }
}

impl Probe {
    /// A trusted target about which nothing is known yet.
    pub(super) fn new(target: &Target) -> Self {
        Self::named(target.text().to_owned())
    }

    pub(super) fn named(target: String) -> Self {
        Self {
            target,
            through: Through::Host,
            verdict: ProbeVerdict::Trusted,
            reason: None,
            text: String::new(),
            chain: Vec::new(),
            anchor: None,
            not_after: None,
            notes: Vec::new(),
            next: Vec::new(),
        }
    }

    /// A target that cannot be judged, since the host's bundle cannot be read.
    pub fn without_bundle(target: &Target, why: &str) -> Self {
        let finding =
            ProbeFinding::new(ProbeReason::NoBundle, why, "look at `nodetrust stores` and `nodetrust status`");
        Self { verdict: ProbeVerdict::NotReached, ..Self::new(target).refused([finding]) }
    }

    /// Whether it is trusted.
    pub fn is_trusted(&self) -> bool {
        self.verdict == ProbeVerdict::Trusted
    }

    /// Whether those whom it asked about trust it: programs on the host do, also where only the runtime is behind.
    pub fn is_trusted_there(&self) -> bool {
        self.is_trusted() || self.through == Through::Host && self.verdict == ProbeVerdict::NotTrustedByRuntime
    }

    /// Adds what speaks against it. The first finding of a target that was trusted becomes its reason and its sentence, every other
    /// one a note.
    pub(super) fn refused(mut self, findings: impl IntoIterator<Item = ProbeFinding>) -> Self {
        for finding in findings {
            if self.verdict == ProbeVerdict::Trusted {
                self.verdict = ProbeVerdict::NotTrusted;
                self.reason = Some(finding.reason);
                self.text = finding.text;
            } else {
                self.notes.push(finding.text);
            }
            self.next.extend(Some(finding.next).filter(|next| !next.is_empty()));
        }
        self
    }
}

impl ProbeVerdict {
    /// The public name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trusted => "trusted",
            Self::NotTrustedByRuntime => "not-trusted-by-runtime",
            Self::PullsWork => "pulls-work",
            Self::NotTrusted => "not-trusted",
            Self::NotReached => "not-reached",
        }
    }
}

impl ChainAnchor {
    /// The anchor in a sentence.
    pub(super) fn sentence(&self) -> String {
        let whose = match (self.state, self.grace_end) {
            (None, _) => "not one of ours".to_owned(),
            (Some(state), None) => state.as_str().to_owned(),
            (Some(state), Some(end)) => format!("{} until {end}", state.as_str()),
        };
        format!("by \"{}\" (sha256 {}), {whose}", self.common_name, self.sha256.fp16())
    }
}
