//! What the readers of bundles make of a bundle.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use super::known::KnownBlocks;
use crate::certificate::{
    fingerprint::{Fingerprint, content_digest},
    pem::Fault,
};

/// Marks a key identifier; nearly always two have two marks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyIdMark([u8; 8]);

impl KeyIdMark {
    /// The mark of a subjectKeyIdentifier.
    pub fn of(id: &[u8]) -> Self {
        let [a, b, c, d, e, f, g, h, ..] = content_digest(id);
        Self([a, b, c, d, e, f, g, h])
    }
}

/// The extracted bundle as its readers see it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Effective {
    /// It exists and can be read.
    pub present: bool,
    /// Fingerprint of every certificate that both Go and OpenSSL read.
    pub set: BTreeSet<Fingerprint>,
    /// The key identifiers of those that have one.
    pub key_ids: BTreeMap<Fingerprint, KeyIdMark>,
    /// Number of certificates, with repetitions.
    pub count: usize,
    /// What keeps OpenSSL from loading the file.
    pub faults: Vec<Fault>,
    /// What keeps GnuTLS from loading the file: after one such certificate it trusts nothing.
    pub gnutls_faults: Vec<Fault>,
    /// It holds a private key.
    pub private_key: bool,
    /// Its blocks that are in order, for the next reading of the same ones.
    pub known: KnownBlocks,
}

impl Effective {
    /// How many certificates repeat an earlier one.
    pub fn repeated(&self) -> usize {
        self.count - self.set.len().min(self.count)
    }
}

/// A library that loads the whole bundle or nothing of it. Go is none of them: it skips what it cannot read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BundleReader {
    /// OpenSSL: Python, curl, most programs of a distribution.
    OpenSsl,
    /// GnuTLS: apt, wget.
    GnuTls,
}

impl BundleReader {
    /// Both.
    pub const ALL: [Self; 2] = [Self::OpenSsl, Self::GnuTls];

    /// What keeps it from loading this bundle.
    pub fn faults(self, bundle: &Effective) -> &[Fault] {
        match self {
            Self::OpenSsl => &bundle.faults,
            Self::GnuTls => &bundle.gnutls_faults,
        }
    }

    /// Whether it loads this bundle.
    pub fn loads(self, bundle: &Effective) -> bool {
        bundle.present && self.faults(bundle).is_empty()
    }
}

impl fmt::Display for BundleReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OpenSsl => "OpenSSL",
            Self::GnuTls => "GnuTLS",
        })
    }
}
