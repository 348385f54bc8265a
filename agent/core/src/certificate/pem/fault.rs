//! What is wrong with a file, and the public reasons for it.

use serde::{Deserialize, Serialize};

/// Why a block, a file or a certificate was not accepted. The names are part of the public interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RejectReason {
    /// Neither PEM nor DER, or PEM whose structure is broken.
    NotPemOrDer,
    /// Readable, but there is no certificate in it.
    NoCertificate,
    /// The file holds a private key; nothing of it is used.
    PrivateKey,
    /// The content of a block is no X.509 certificate, or one that would break readers of the bundle.
    MalformedCertificate,
    /// Bytes follow the certificate inside its block or file.
    TrailingData,
    /// Not a CA certificate, and the store or the policy refuses those.
    NotCa,
    /// Expired, and not installed yet.
    Expired,
    /// A weak key or signature, refused by policy.
    Weak,
    /// It names itself as issuer, and its own signature does not match or cannot be checked: refused by policy, or taken for a
    /// damaged copy of an anchor that leaves with the same change.
    SelfSignature,
    /// Its fingerprint is in `deniedFingerprints`.
    Denied,
    /// `allowedFingerprints` is set and does not have it.
    NotAllowed,
    /// The file exceeds [`MAX_FILE_BYTES`](super::MAX_FILE_BYTES), or the source what is read of one.
    TooLarge,
    /// The source exceeds [`MAX_CERTIFICATES`](super::MAX_CERTIFICATES), or a directory has too many files.
    TooMany,
}

impl RejectReason {
    /// Every reason, in the order of the documentation; metrics have a series for each.
    pub const ALL: [Self; 13] = [
        Self::NotPemOrDer,
        Self::NoCertificate,
        Self::PrivateKey,
        Self::MalformedCertificate,
        Self::TrailingData,
        Self::NotCa,
        Self::Expired,
        Self::Weak,
        Self::SelfSignature,
        Self::Denied,
        Self::NotAllowed,
        Self::TooLarge,
        Self::TooMany,
    ];

    /// The public name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotPemOrDer => "not-pem-or-der",
            Self::NoCertificate => "no-certificate",
            Self::PrivateKey => "private-key",
            Self::MalformedCertificate => "malformed-certificate",
            Self::TrailingData => "trailing-data",
            Self::NotCa => "not-ca",
            Self::Expired => "expired",
            Self::Weak => "weak",
            Self::SelfSignature => "self-signature",
            Self::Denied => "denied",
            Self::NotAllowed => "not-allowed",
            Self::TooLarge => "too-large",
            Self::TooMany => "too-many",
        }
    }
}

impl std::fmt::Display for RejectReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Something in a file that was not accepted. Never quotes the file's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// 1-based line where it begins; 0 for the file as a whole.
    pub line: usize,
    /// The public reason.
    pub reason: RejectReason,
    /// What exactly, and what to do, in a sentence without its full stop.
    pub detail: String,
}
