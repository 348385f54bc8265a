//! What is remembered of a file that was taken over: enough to put it back byte for byte.
//!
//! Each file has a record of its own beside the ledger, which outlives a damaged ledger and versions that know nothing of it.

use std::{collections::BTreeSet, sync::Arc};

use data_encoding::BASE64;
use serde::{Deserialize, Serialize};

use crate::{
    certificate::{
        bundle,
        fingerprint::{Fingerprint, content_digest, hex},
    },
    store::{Family, TrustStore},
};

/// Largest file that is taken over, in bytes.
pub const MAX_ADOPTED_BYTES: usize = 1 << 20;
/// Most files that are taken over on a node.
pub const MAX_ADOPTED_FILES: usize = 64;
/// Largest record, in bytes: the file in base64, and its path.
pub const MAX_RECORD_BYTES: u64 = 2 << 20;
/// Format version of a record.
const VERSION: u32 = 1;

/// A file of root's that was taken over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdoptedFile {
    /// Absolute path on the host, in the anchor directory of a store.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// Its bytes.
    pub content: Arc<[u8]>,
}

/// The same as it is written.
#[derive(Serialize, Deserialize)]
struct AdoptedRecord {
    version: u32,
    path: String,
    mode: u32,
    content: String,
}

impl AdoptedFile {
    /// The name of its record.
    pub fn record_name(path: &str) -> String {
        format!("{}.json", &hex(&content_digest(path.as_bytes()))[..16])
    }

    /// Reads a record. None for what is no record of a file in an anchor directory.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let AdoptedRecord { version, path, mode, content } = serde_json::from_slice(bytes).ok()?;
        let content = BASE64.decode(content.as_bytes()).ok()?.into();
        let file = Self { path, mode: mode & 0o7777, content };
        (version == VERSION && file.store().is_some()).then_some(file)
    }

    /// The record's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let content = BASE64.encode(&self.content);
        let record = AdoptedRecord { version: VERSION, path: self.path.clone(), mode: self.mode, content };
        // A structure of strings and numbers cannot fail to serialise.
        let mut bytes = serde_json::to_vec_pretty(&record).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }

    /// The store in whose anchor directory it lay. None for a path that is in none.
    pub fn store(&self) -> Option<&'static TrustStore> {
        let (dir, name) = self.path.rsplit_once('/')?;
        let is_name = !matches!(name, "" | "." | "..") && !name.contains('\0');
        let mut stores = Family::ALL.into_iter().map(Family::store);
        stores.find(|store| is_name && store.has_foreign_files() && store.anchors_dir == dir)
    }

    /// The certificates in it.
    pub fn certificates(&self) -> BTreeSet<Fingerprint> {
        bundle::read(&self.content).set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_gives_back_every_byte() {
        let content: Arc<[u8]> = (0..=255).collect::<Vec<u8>>().into();
        let file = AdoptedFile { path: "/usr/local/share/ca-certificates/My CA.crt".into(), mode: 0o600, content };
        assert_eq!(AdoptedFile::parse(&file.to_bytes()), Some(file.clone()));
        assert_eq!(file.store().map(|store| store.family), Some(Family::Debian));
    }

    /// Whoever could write a record is root; all the same none leads anywhere else.
    #[test]
    fn a_record_leads_to_an_anchor_directory_only() {
        let at = |path: &str| AdoptedFile { path: path.into(), mode: 0o644, content: Arc::from([]) };
        for path in [
            "/etc/shadow",
            "/etc/ssl/certs/a.pem",
            "/usr/local/share/ca-certificates/",
            "/usr/local/share/ca-certificates/..",
            "/usr/local/share/ca-certificates/sub/a.crt",
            "domain.crt",
        ] {
            assert_eq!(AdoptedFile::parse(&at(path).to_bytes()), None, "{path}");
        }
        assert_eq!(AdoptedFile::parse(b"{}"), None);
    }
}
