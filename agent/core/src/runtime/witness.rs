//! What the runtime itself answered when it was asked to pull a digest that nobody can have (facts C.9).
//!
//! Everything else that is known of a runtime is inferred: from units, times and configuration files. This is not. "Not found" and
//! "denied" come from a registry, so the runtime has trusted its certificate; an x509 error says that it has not.

use serde::{Deserialize, Serialize};

use crate::{
    certificate::fingerprint::{Fingerprint, SetDigest},
    runtime::process::ServiceProcess,
    time::Moment,
};

/// What an answer proves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WitnessAnswer {
    /// The registry answered: the runtime trusts its certificate.
    Trusts,
    /// The runtime refused the registry's certificate.
    Refuses,
    /// Neither: the registry could not be reached, or the answer has no known meaning.
    NotReached,
}

impl WitnessAnswer {
    /// The public name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trusts => "trusts",
            Self::Refuses => "refuses",
            Self::NotReached => "not-reached",
        }
    }
}

/// The last answer about one registry. The ledger keeps it, so that a command without an agent says what the agent says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Witness {
    /// The runtime's process that answered. An answer of another process says nothing.
    pub process: ServiceProcess,
    /// The set of our anchors that was in force when it was asked. An answer about another set says nothing.
    pub set: SetDigest,
    /// What it proves.
    pub answer: WitnessAnswer,
    /// The runtime's own words, bounded and escaped.
    pub words: String,
    /// The runtime reaches this registry by TLS that it verifies, without a mirror. Where this is false, the answer proves that pulls
    /// work, not that the CA is trusted.
    pub verifies_tls: bool,
    /// The anchor of ours in which the registry's chain ends, by our own handshake with the bundle in force. None if it ends elsewhere, or
    /// the handshake failed: then trust in this registry says nothing of our anchors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anchor: Option<Fingerprint>,
    /// For this host the runtime reads no certificates from a registry directory, neither ours nor somebody else's: the answer is about
    /// the roots that the process has read itself. False where that could not be told.
    #[serde(default)]
    pub own_roots: bool,
    /// Our own handshake with the same host, made the same way with the bundle in force and Go's rules: None if it succeeded, else why
    /// not. Only where it succeeds can a restart help.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handshake_error: Option<String>,
    /// When it was asked.
    pub at: Moment,
    /// The process that was restarted, or was about to be, when the runtime refused this registry with this set in force. If another one
    /// runs now, the restart did not help and is not made a second time. Set by [`note_restart`](super::testimony::note_restart).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restarted: Option<ServiceProcess>,
}

impl Witness {
    /// It is worth asking again: the registry was not reached, or the runtime refused what our own handshake trusted a moment later, which may
    /// be about a certificate that was just replaced.
    pub fn is_open(&self) -> bool {
        match self.answer {
            WitnessAnswer::Trusts => false,
            WitnessAnswer::Refuses => self.handshake_error.is_none(),
            WitnessAnswer::NotReached => true,
        }
    }
}
