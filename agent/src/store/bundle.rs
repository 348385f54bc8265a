//! The bundle as it is now: what consumers read.

use std::{
    collections::{BTreeMap, HashMap},
    io,
};

use nodetrust_core::{
    certificate::{bundle, fingerprint::content_digest},
    observed::{Effective, OwnAnchorFile},
    store::{Tool, TrustStore},
};

use crate::{
    host::{
        file::{FileKind, is_missing},
        root::HostRoot,
    },
    store::read::{Digest, MAX_BUNDLE_BYTES, ObserveError, at, usable},
};

/// The bundle that was decoded last. What is in it to the byte again is not decoded again.
#[derive(Debug, Default)]
pub(crate) struct BundleCache {
    bundle: Effective,
    /// The files of others, where a directory itself is what consumers read.
    files: HashMap<Digest, Effective>,
}

/// The bundle as it is now.
///
/// # Errors
/// If it is there and cannot be read.
pub(crate) fn effective(root: &HostRoot, store: &TrustStore, cache: &mut BundleCache) -> io::Result<Effective> {
    let Some(bytes) = bundle_bytes(root, store)? else { return Ok(Effective::default()) };
    cache.bundle = bundle::read_after(&bytes, &cache.bundle);
    Ok(cache.bundle.clone())
}

/// What consumers read, None if it does not exist.
///
/// # Errors
/// If it is there and cannot be read.
pub fn bundle_bytes(root: &HostRoot, store: &TrustStore) -> io::Result<Option<Vec<u8>>> {
    match store.tool {
        Tool::None => directory_bytes(root, store.bundle).map(Some),
        _ => match root.read(store.bundle, MAX_BUNDLE_BYTES) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(error),
        },
    }
}

/// Where a directory itself is what consumers read: all its files, one after the other.
fn directory_bytes(root: &HostRoot, dir: &str) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    for (name, _) in root.names(dir)? {
        if let Some(bytes) = usable(root.read(format!("{dir}/{name}"), MAX_BUNDLE_BYTES))?
            && stands_for_itself(&bundle::read(&bytes))
        {
            all.extend_from_slice(&bytes);
            all.push(b'\n');
        }
    }
    Ok(all)
}

/// What is in [`directory_bytes`], with our files as they were just read.
pub(crate) fn directory_effective(
    root: &HostRoot,
    store: &TrustStore,
    names: &[(String, FileKind)],
    ours: &BTreeMap<String, OwnAnchorFile>,
    cache: &mut BundleCache,
) -> Result<Effective, ObserveError> {
    let before = std::mem::take(&mut cache.files);
    let mut all = Vec::new();
    let mut count = 0;
    let mut key_ids = BTreeMap::new();
    for (name, _) in names {
        if let Some(OwnAnchorFile { anchor: Some(anchor), intact: true }) = ours.get(name) {
            all.push(anchor.fingerprint);
            count += 1;
            continue;
        }
        let path = format!("{}/{name}", store.bundle);
        if let Some(bytes) = usable(root.read(&path, MAX_BUNDLE_BYTES)).map_err(at(&path))? {
            let digest = content_digest(&bytes);
            let read = cache.files.entry(digest).or_insert_with(|| match before.get(&digest) {
                Some(known) => known.clone(),
                None => bundle::read(&bytes),
            });
            if stands_for_itself(read) {
                all.extend(&read.set);
                key_ids.extend(&read.key_ids);
                count += read.count;
            }
        }
    }
    Ok(Effective { present: true, set: all.into_iter().collect(), key_ids, count, ..Effective::default() })
}

/// Each file of such a directory stands for itself: what breaks one does not break the next, and a key in one is not in a bundle.
fn stands_for_itself(read: &Effective) -> bool {
    read.faults.is_empty() && !read.private_key
}

/// What programs can read of the bundle now; None if a tool could not use what is there.
///
/// # Errors
/// If it is there and cannot be read.
pub(crate) fn usable_bundle(root: &HostRoot, store: &TrustStore) -> Result<Option<Vec<u8>>, ObserveError> {
    usable(root.read(store.bundle, MAX_BUNDLE_BYTES)).map_err(at(store.bundle))
}
