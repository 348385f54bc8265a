//! The ledger's file.

use std::{io, sync::Arc};

use nodetrust_core::{
    certificate::fingerprint::content_digest,
    ledger::Ledger,
    source::{Content, Snapshot},
};

use super::{
    file::{FileKind, is_missing},
    own_paths,
    root::HostRoot,
};

/// The name of its temporary file.
const TEMP_NAME: &str = ".ledger.json.tmp";
/// Largest ledger that is read, in bytes: 10,000 anchors are about 20 MB.
const LIMIT: u64 = 64 << 20;

/// What reading the ledger gave.
#[derive(Debug)]
pub enum LedgerRead {
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
pub fn read(root: &HostRoot) -> io::Result<LedgerRead> {
    read_again(root, &mut LedgerCache::default(), &[])
}

/// Reads the ledger. The same content is not decoded again, and a certificate that a source holds too is kept in memory once.
///
/// # Errors
/// If it is there and cannot be read.
pub fn read_again(root: &HostRoot, cache: &mut LedgerCache, sources: &[Snapshot]) -> io::Result<LedgerRead> {
    match root.own_read(own_paths::LEDGER, LIMIT) {
        Ok(bytes) => {
            let digest = content_digest(&bytes);
            if let Some((known, ledger)) = &cache.0
                && *known == digest
            {
                return Ok(LedgerRead::Good(ledger.clone()));
            }
            let mut ledger = match Ledger::parse(&bytes) {
                Ok(ledger) => ledger,
                Err(why) => return Ok(LedgerRead::Damaged(why)),
            };
            for source in sources {
                if let Content::Files(parts) = &source.content {
                    ledger.share(parts.iter().flat_map(|part| &part.anchors).map(|(_, anchor)| anchor));
                }
            }
            let ledger = Arc::new(ledger);
            cache.0 = Some((digest, ledger.clone()));
            Ok(LedgerRead::Good(ledger))
        }
        Err(error) if is_missing(&error) => Ok(LedgerRead::Good(Arc::new(Ledger::new()))),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(LedgerRead::Damaged(error.to_string())),
        Err(error) => Err(error),
    }
}

/// Moves a damaged ledger out of the way. What holds nothing, such as a link, is removed.
///
/// # Errors
/// As `rename(2)`.
pub fn set_aside(root: &HostRoot) -> io::Result<()> {
    root.create_dir_all(own_paths::DIR)?;
    match root.own_meta(own_paths::LEDGER)?.map(|meta| meta.kind) {
        None => Ok(()),
        Some(FileKind::Link | FileKind::Other) => root.remove_file(own_paths::LEDGER),
        Some(FileKind::File | FileKind::Directory) => {
            root.remove_file(format!("{}/{}", own_paths::DIR, own_paths::LEDGER_DAMAGED))?;
            root.rename(own_paths::LEDGER, own_paths::LEDGER_DAMAGED)
        }
    }
}

/// Writes the ledger.
///
/// # Errors
/// As [`HostRoot::write_atomic`].
pub fn write(root: &HostRoot, ledger: &Ledger) -> io::Result<()> {
    root.create_dir_all(own_paths::DIR)?;
    root.write_atomic(own_paths::LEDGER, own_paths::DIR, TEMP_NAME, 0o600, &ledger.to_bytes())
}

/// Removes the ledger and its directory.
///
/// # Errors
/// As `unlink(2)`; a directory with somebody else's files in it stays.
pub fn remove(root: &HostRoot) -> io::Result<()> {
    root.remove_file(own_paths::LEDGER)?;
    root.remove_file(format!("{}/{}", own_paths::DIR, own_paths::LEDGER_DAMAGED))?;
    root.remove_file(own_paths::LEDGER_TEMP)?;
    root.remove_file(format!("{}/{}", own_paths::DIR, own_paths::ADOPTED_TEMP))?;
    root.remove_file(own_paths::ADOPTED_DIR)?; // empty by now
    root.remove_file(own_paths::NO_HOOKS)?;
    root.remove_tree(own_paths::TEMP_DIR)?;
    match root.remove_dir(own_paths::DIR) {
        // somebody else's files are in it
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
        result => result,
    }
}
