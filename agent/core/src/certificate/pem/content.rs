//! What a scan finds in a file, within its limits.

use super::fault::{Fault, RejectReason};
use crate::certificate::der::element;

/// Largest file that is read, in bytes. A ConfigMap holds 1 MiB; Mozilla's whole set is 0.22 MB.
pub const MAX_FILE_BYTES: usize = 4 << 20;
/// Largest number of certificates in one source.
pub const MAX_CERTIFICATES: usize = 10_000;
/// Faults kept for one file, so that a hostile file cannot make a report of any size.
pub const MAX_FAULTS: usize = 1_000;
/// Notes kept for one file.
pub const MAX_NOTES: usize = 20;

/// One accepted block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// 1-based line of its BEGIN; 0 in a DER file.
    pub line: usize,
    /// The label it had, which says how to read the DER.
    pub label: Label,
    /// Its decoded content.
    pub der: Vec<u8>,
}

impl Block {
    /// The certificate in it, without the trust settings that may follow under `TRUSTED CERTIFICATE`.
    pub fn certificate(&self) -> &[u8] {
        match self.label {
            Label::Certificate | Label::Legacy => &self.der,
            Label::Trusted => element(&self.der).map_or(&self.der, |first| first.whole),
        }
    }
}

/// The labels that can hold a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Label {
    /// `CERTIFICATE`, or a file that is DER itself.
    Certificate,
    /// `X509 CERTIFICATE`, `X.509 CERTIFICATE`: OpenSSL reads it, Go and p11-kit do not; same content.
    Legacy,
    /// `TRUSTED CERTIFICATE`, OpenSSL's own: auxiliary trust data follows the certificate.
    Trusted,
}

impl Label {
    /// The label that a BEGIN has; None for that of something else.
    pub(crate) fn of(text: &[u8]) -> Option<Self> {
        match text {
            b"CERTIFICATE" => Some(Self::Certificate),
            b"X509 CERTIFICATE" | b"X.509 CERTIFICATE" => Some(Self::Legacy),
            b"TRUSTED CERTIFICATE" => Some(Self::Trusted),
            _ => None,
        }
    }
}

/// What a file holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scan {
    /// Blocks in the order of the file.
    pub blocks: Vec<Block>,
    /// Everything that was not accepted, in the order of the file.
    pub faults: Vec<Fault>,
    /// Harmless oddities that other readers may trip over, e.g. a byte order mark.
    pub notes: Vec<String>,
}

impl Scan {
    /// The scan of a file that holds a private key: this one fault and nothing else.
    pub(super) fn of_key(line: usize, detail: &str) -> Self {
        Self {
            faults: vec![Fault { line, reason: RejectReason::PrivateKey, detail: detail.to_owned() }],
            ..Self::default()
        }
    }

    pub(super) fn note(&mut self, note: String) {
        match self.notes.len() {
            0..MAX_NOTES => self.notes.push(note),
            MAX_NOTES => self.notes.push("and more of the kind".into()),
            _ => {}
        }
    }

    pub(super) fn fault(&mut self, line: usize, reason: RejectReason, detail: impl Into<String>) {
        match self.faults.len() {
            0..MAX_FAULTS => self.faults.push(Fault { line, reason, detail: detail.into() }),
            MAX_FAULTS => {
                let detail = format!("more than {MAX_FAULTS} faults; the rest is not listed");
                self.faults.push(Fault { line, reason: RejectReason::TooMany, detail });
            }
            _ => {}
        }
    }
}
