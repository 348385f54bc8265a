//! Reading what counts for the trust store. What cannot be read is an error and never taken for absent.

use std::{io, path::Path};

use nodetrust_core::problem::{Problem, ProblemKind};

use crate::{
    error::chain,
    host::{
        file::{FileKind, is_missing},
        obstacle::way_out_or,
        root::HostRoot,
    },
};

/// Largest bundle that is read, in bytes: 30,000 certificates or more.
pub const MAX_BUNDLE_BYTES: u64 = 64 << 20;

/// SHA-256 of a file's content.
pub(crate) type Digest = [u8; 32];

/// A path of the host that could not be read.
#[derive(Debug, thiserror::Error)]
#[error("failed to read `{path}` on the host")]
pub struct ObserveError {
    path: String,
    source: io::Error,
}

impl ObserveError {
    /// What a person can do about it; `otherwise` where nothing better is known.
    pub fn next(&self, otherwise: &str) -> String {
        way_out_or(&self.source, otherwise)
    }

    /// The problem for the report.
    pub fn problem(&self) -> Problem {
        Problem::new(ProblemKind::Observe, chain(self), self.next("look at the path on the host"))
    }
}

/// Adds the path to an error of reading it.
pub(crate) fn at(path: &str) -> impl FnOnce(io::Error) -> ObserveError {
    let path = path.to_owned();
    move |source| ObserveError { path, source }
}

/// What was read; None if a tool could not use it either: a dangling link or one to itself, a socket, a huge file.
///
/// # Errors
/// Every other error of reading.
pub(crate) fn usable<T>(read: io::Result<T>) -> io::Result<Option<T>> {
    use nix::libc::{ELOOP, ENODEV, ENXIO};
    match read {
        Ok(read) => Ok(Some(read)),
        Err(error) if is_missing(&error) || error.kind() == io::ErrorKind::InvalidData => Ok(None),
        Err(error) if matches!(error.raw_os_error(), Some(ELOOP | ENXIO | ENODEV)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether a path of a listing leads to a directory.
///
/// # Errors
/// If where it leads cannot be looked at.
pub(crate) fn leads_to_directory(root: &HostRoot, path: &str) -> Result<bool, ObserveError> {
    let meta = usable(root.stat(Path::new(path))).map_err(at(path))?.flatten();
    Ok(meta.is_some_and(|meta| meta.kind == FileKind::Directory))
}
