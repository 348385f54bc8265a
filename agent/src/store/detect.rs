//! Which trust store the host has.

use std::{collections::BTreeMap, io};

use nodetrust_core::store::{self, Detection, Family, PathKind, os_release::OsRelease};

use crate::{
    error::chain,
    host::{
        file::{FileKind, is_missing},
        root::HostRoot,
    },
    store::read::{ObserveError, at, usable},
};

/// Largest program or os-release that is read, in bytes: the tools that are scripts are small.
const MAX_FILE: u64 = 1 << 20;

/// Reads os-release; without one, nothing is known of the system.
///
/// # Errors
/// If it is there and cannot be read.
pub fn os_release(root: &HostRoot) -> Result<OsRelease, ObserveError> {
    // os-release(5): the first that exists
    for path in ["/etc/os-release", "/usr/lib/os-release"] {
        match root.read(path, MAX_FILE) {
            Ok(bytes) => return Ok(OsRelease::parse(&String::from_utf8_lossy(&bytes))),
            Err(error) if is_missing(&error) => {}
            Err(error) => return Err(at(path)(error)),
        }
    }
    Ok(OsRelease::parse(""))
}

/// Finds the host's trust store.
///
/// # Errors
/// If one of the paths that decide could not be looked at: it may be there or not.
pub fn detect(root: &HostRoot, os: &OsRelease, wanted: Option<Family>) -> Result<Detection, ObserveError> {
    let mut found = BTreeMap::new();
    for path in store::PROBES {
        let what = match root.stat(path).map_err(at(path))?.map(|meta| meta.kind) {
            Some(FileKind::Directory) => PathKind::Directory,
            Some(FileKind::File) => kind_of_program(root, path).map_err(at(path))?,
            // nothing else than a socket is made there
            Some(FileKind::Other) if *path == store::SETTINGS_SOCKET => PathKind::Socket,
            Some(FileKind::Link | FileKind::Other) | None => continue,
        };
        found.insert(*path, what);
    }
    let mut detection = store::detect(os, &found, wanted);
    if let Err(unsupported) = &mut detection.family
        && found.is_empty()
        && *os == OsRelease::parse("")
    {
        unsupported.reason.push_str(&format!(" (in {})", root.path().display()));
    }
    Ok(detection)
}

/// os-release and the trust store; where one of them cannot be read, a detection that says so, with which nothing is done.
pub fn system(root: &HostRoot, wanted: Option<Family>) -> (OsRelease, Detection) {
    let unreadable = |error: &ObserveError| {
        let next = error.next("look at the path on the host; nothing is changed until it can be read");
        Detection::unreadable(chain(error), next)
    };
    match os_release(root) {
        Ok(os) => {
            let detection = detect(root, &os, wanted).unwrap_or_else(|error| unreadable(&error));
            (os, detection)
        }
        Err(error) => (OsRelease::parse(""), unreadable(&error)),
    }
}

fn kind_of_program(root: &HostRoot, path: &str) -> io::Result<PathKind> {
    let bytes = usable(root.read(path, MAX_FILE))?.unwrap_or_default();
    Ok(match bytes.as_slice() {
        script if store::is_debian_script(script) => PathKind::DebianScript,
        script if script.starts_with(b"#!") => PathKind::Script,
        _ => PathKind::File,
    })
}
