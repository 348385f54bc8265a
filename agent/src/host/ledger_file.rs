//! The ledger's file.

use std::{io, sync::Arc};

use nodetrust_core::{
    certificate::fingerprint::content_digest,
    ledger::Ledger,
    source::{Content, Snapshot},
};

use super::root::{HostRoot, Kind, is_missing};

/// Its directory on the host.
pub const DIR: &str = "/var/lib/nodetrust";
/// The file.
pub const PATH: &str = "/var/lib/nodetrust/ledger.json";
/// Where a damaged one is set aside; one is kept.
pub const DAMAGED: &str = "ledger.json.damaged";
/// Temporary files of the store's tool, under the lock.
pub const TEMP: &str = "/var/lib/nodetrust/tmp";
/// The ledger's own temporary file.
pub const TEMP_FILE: &str = "/var/lib/nodetrust/.ledger.json.tmp";
const TEMP_NAME: &str = ".ledger.json.tmp";
/// 10,000 anchors are about 20 MB.
const LIMIT: u64 = 64 << 20;

/// What reading the ledger gave.
#[derive(Debug)]
pub enum Read {
    /// It is there, or there is none yet.
    Good(Arc<Ledger>),
    /// It is damaged; the sentence says how.
    Damaged(String),
}

/// The ledger that was decoded last, with the digest of its file.
#[derive(Debug, Default)]
pub struct LedgerCache(Option<([u8; 32], Arc<Ledger>)>);

/// Reads the ledger.
///
/// # Errors
/// If it is there and cannot be read.
pub fn read(root: &HostRoot) -> io::Result<Read> {
    read_again(root, &mut LedgerCache::default(), &[])
}

/// Reads the ledger. The same content is not decoded again, and a certificate that a source holds too is kept in memory once.
///
/// # Errors
/// If it is there and cannot be read.
pub fn read_again(root: &HostRoot, cache: &mut LedgerCache, sources: &[Snapshot]) -> io::Result<Read> {
    match root.own_read(PATH, LIMIT) {
        Ok(bytes) => {
            let digest = content_digest(&bytes);
            if let Some((known, ledger)) = &cache.0
                && *known == digest
            {
                return Ok(Read::Good(ledger.clone()));
            }
            let mut ledger = match Ledger::parse(&bytes) {
                Ok(ledger) => ledger,
                Err(why) => return Ok(Read::Damaged(why)),
            };
            for source in sources {
                if let Content::Files(parts) = &source.content {
                    ledger.share(parts.iter().flat_map(|part| &part.anchors).map(|(_, anchor)| anchor));
                }
            }
            let ledger = Arc::new(ledger);
            cache.0 = Some((digest, ledger.clone()));
            Ok(Read::Good(ledger))
        }
        Err(error) if is_missing(&error) => Ok(Read::Good(Arc::new(Ledger::new()))),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(Read::Damaged(error.to_string())),
        Err(error) => Err(error),
    }
}

/// Moves a damaged ledger out of the way. What holds nothing, such as a link, is removed.
///
/// # Errors
/// As `rename(2)`.
pub fn set_aside(root: &HostRoot) -> io::Result<()> {
    root.create_dir_all(DIR)?;
    match root.own_meta(PATH)?.map(|meta| meta.kind) {
        None => Ok(()),
        Some(Kind::Link | Kind::Other) => root.remove_file(PATH),
        Some(Kind::File | Kind::Directory) => {
            root.remove_file(format!("{DIR}/{DAMAGED}"))?;
            root.rename(PATH, DAMAGED)
        }
    }
}

/// Writes the ledger.
///
/// # Errors
/// As [`HostRoot::write_atomic`].
pub fn write(root: &HostRoot, ledger: &Ledger) -> io::Result<()> {
    root.create_dir_all(DIR)?;
    root.write_atomic(PATH, DIR, TEMP_NAME, 0o600, &ledger.to_bytes())
}

/// Removes the ledger and its directory.
///
/// # Errors
/// As `unlink(2)`; a directory with somebody else's files in it stays.
pub fn remove(root: &HostRoot) -> io::Result<()> {
    root.remove_file(PATH)?;
    root.remove_file(format!("{DIR}/{DAMAGED}"))?;
    root.remove_file(TEMP_FILE)?;
    root.remove_file(super::own::NO_HOOKS)?;
    root.remove_tree(TEMP)?;
    match root.remove_dir(DIR) {
        // somebody else's files are in it
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
        result => result,
    }
}
