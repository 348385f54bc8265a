//! OpenSSL's directory of hash links: which certificates it leads to, and how a link of ours leaves it.
//!
//! OpenSSL looks for `HASH.0`, `HASH.1` … and stops at the first number that is missing or leads nowhere. So a link that only vanished,
//! or whose file did, would hide other certificates of the same name behind it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    io,
    path::Path,
};

use nodetrust_core::{
    certificate::{
        bundle,
        fingerprint::{Fingerprint, content_digest},
        pem,
    },
    observed::{Effective, Observed},
    store::{
        Family, TrustStore,
        anchor_file::{PREFIX, is_own_name},
        hash_link,
    },
};

use crate::{
    host::{directory::HostDirectory, exec::SEARCH_PATH, file::FileKind, root::HostRoot},
    store::{
        own_files::OwnFileCache,
        read::{Digest, ObserveError, at, usable},
    },
};

/// Links of one hash that are looked through.
const MAX_LINKS: usize = 64;

/// The certificates in files that links lead to, by the digest of their content. The same content is not decoded again.
#[derive(Debug, Default)]
pub(crate) struct LinkCache(HashMap<Digest, BTreeSet<Fingerprint>>);

/// The certificates that OpenSSL finds, by directory.
pub(crate) type Linked = BTreeMap<&'static str, BTreeSet<Fingerprint>>;

impl LinkCache {
    /// As [`linked`].
    ///
    /// # Errors
    /// As [`linked`].
    pub(crate) fn linked(
        &mut self,
        root: &HostRoot,
        store: &TrustStore,
        effective: &Effective,
    ) -> Result<Linked, ObserveError> {
        let before = std::mem::take(&mut self.0);
        let mut certificates_of = |bytes: &[u8]| {
            let digest = content_digest(bytes);
            let known = || before.get(&digest).cloned().unwrap_or_else(|| certificates_after(bytes, effective));
            self.0.entry(digest).or_insert_with(known).clone()
        };
        let mut found = Linked::new();
        for path in directories(store) {
            let Some(dir) = usable(root.directory(path)).map_err(at(path))?.flatten() else { continue };
            let linked = linked_in(root, store, path, &dir, &mut certificates_of)?;
            found.extend(linked.map(|linked| (path, linked)));
        }
        Ok(found)
    }
}

/// The certificates that OpenSSL finds in each of the store's directories that is in use. Most of them are in the bundle, too.
///
/// # Errors
/// If a directory or what a link leads to is there and cannot be read.
pub(crate) fn linked(root: &HostRoot, store: &TrustStore, effective: &Effective) -> Result<Linked, ObserveError> {
    LinkCache::default().linked(root, store, effective)
}

/// Where the store may have hash links.
fn directories(store: &TrustStore) -> BTreeSet<&'static str> {
    store.hash_dir.into_iter().chain(store.outputs.iter().copied()).collect()
}

fn linked_in(
    root: &HostRoot,
    store: &TrustStore,
    path: &str,
    dir: &HostDirectory,
    certificates_of: &mut impl FnMut(&[u8]) -> BTreeSet<Fingerprint>,
) -> Result<Option<BTreeSet<Fingerprint>>, ObserveError> {
    let mut by_hash: BTreeMap<String, BTreeSet<usize>> = BTreeMap::new();
    for (name, _) in dir.names().map_err(at(path))? {
        if let Some((hash, number)) = split_hash_link(&name) {
            by_hash.entry(hash.to_owned()).or_default().insert(number);
        }
    }
    // Debian's tool always makes them; the others' only if a program is there that does
    if by_hash.is_empty() && store.family != Family::Debian {
        return Ok(None);
    }
    let mut found = BTreeSet::new();
    for (hash, numbers) in by_hash {
        for number in (0..MAX_LINKS).take_while(|number| numbers.contains(number)) {
            let link = format!("{path}/{hash}.{number}");
            let read = usable(root.read(&link, pem::MAX_FILE_BYTES as u64)).map_err(at(&link))?;
            let Some(bytes) = read else { break };
            found.extend(certificates_of(&bytes));
        }
    }
    Ok(Some(found))
}

/// Our anchors in the bundle to which OpenSSL's directory has no link; none where that directory is not in use.
///
/// # Errors
/// If the directory or what a link leads to is there and cannot be read.
pub(crate) fn unlinked(
    root: &HostRoot,
    observed: &Observed,
    files: &OwnFileCache,
) -> Result<BTreeSet<Fingerprint>, ObserveError> {
    let Some(dir) = observed.store.hash_dir else { return Ok(BTreeSet::new()) };
    let names = root.names(dir).map_err(at(dir))?;
    // in a directory that only p11-kit fills, files without links have lost them
    let is_filled = matches!(observed.store.family, Family::Redhat | Family::Suse)
        && names.iter().any(|(name, _)| name.ends_with(".pem"));
    let names: HashSet<String> = names.into_iter().map(|(name, _)| name).filter(|name| is_hash_link(name)).collect();
    if names.is_empty() && observed.store.drops_not_ca && !is_filled {
        return Ok(BTreeSet::new()); // stores over p11-kit: the older scripts make none
    }
    let mut unlinked = BTreeSet::new();
    let own = observed.ours.values().filter_map(|file| file.anchor.as_ref());
    for anchor in own.filter(|anchor| observed.effective.set.contains(&anchor.fingerprint)) {
        let links = (0..MAX_LINKS).map(|n| format!("{:08x}.{n}", anchor.subject.hash));
        let mut is_linked = false;
        // OpenSSL counts up and stops at the first number that is missing
        for link in links.take_while(|link| names.contains(link)) {
            let path = format!("{dir}/{link}");
            let bytes = usable(root.read(&path, pem::MAX_FILE_BYTES as u64)).map_err(at(&path))?.unwrap_or_default();
            is_linked = match files.anchor_of(&bytes) {
                Some(own) => own.fingerprint == anchor.fingerprint,
                None => hash_link::trusted(&bytes).contains(&anchor.fingerprint),
            };
            if is_linked {
                break;
            }
        }
        if !is_linked {
            unlinked.insert(anchor.fingerprint);
        }
    }
    Ok(unlinked)
}

/// Certificates of the bundle that are not in files of ours and to which one of OpenSSL's directories does not lead. Those that share a
/// file get no link from a tool that pastes files.
///
/// # Errors
/// As [`linked`].
pub(crate) fn unlinked_foreign(
    root: &HostRoot,
    observed: &Observed,
    cache: &mut LinkCache,
) -> Result<BTreeSet<Fingerprint>, ObserveError> {
    let mut linked = cache.linked(root, observed.store, &observed.effective)?.into_values();
    let Some(mut known) = linked.next() else { return Ok(BTreeSet::new()) };
    for other in linked {
        known.retain(|fingerprint| other.contains(fingerprint));
    }
    known.extend(observed.ours.values().filter_map(|file| Some(file.anchor.as_ref()?.fingerprint)));
    let shared = observed.foreign.iter().filter(|file| file.anchors.len() > 1 && observed.store.pastes_files);
    known.extend(shared.flat_map(|file| &file.anchors).map(|anchor| anchor.fingerprint));
    Ok(observed.effective.set.difference(&known).copied().collect())
}

/// The program that the store's tool calls to make the links, if the host has it nowhere on the tool's search path.
///
/// # Errors
/// If one of its places cannot be looked at.
pub(crate) fn missing_program(root: &HostRoot, store: &TrustStore) -> io::Result<Option<&'static str>> {
    const OPENSSL: &str = "openssl";
    // of the others' tools it is not known what they call
    if store.family != Family::Debian {
        return Ok(None);
    }
    for dir in SEARCH_PATH.split(':') {
        if usable(root.stat(format!("{dir}/{OPENSSL}")))?.flatten().is_some() {
            return Ok(None);
        }
    }
    Ok(Some(OPENSSL))
}

/// The certificates of a file as OpenSSL reads them, under each of its labels.
pub(crate) fn certificates(bytes: &[u8]) -> BTreeSet<Fingerprint> {
    certificates_after(bytes, &Effective::default())
}

/// The same after the bundle was read: what is in it is not decoded again.
fn certificates_after(bytes: &[u8], effective: &Effective) -> BTreeSet<Fingerprint> {
    let mut found = bundle::read_after(bytes, effective).set;
    if found.is_empty() {
        found.extend(pem::scan(bytes).blocks.iter().map(|block| Fingerprint::of_der(block.certificate())));
    }
    found
}

/// Whether a name is one of OpenSSL's.
pub(crate) fn is_hash_link(name: &str) -> bool {
    split_hash_link(name).is_some()
}

/// `HASH.NUMBER`.
fn split_hash_link(name: &str) -> Option<(&str, usize)> {
    let (hash, number) = name.split_once('.')?;
    let is_hash = hash.len() == 8 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_number = number.bytes().all(|byte| byte.is_ascii_digit());
    (is_hash && is_number).then_some(())?;
    Some((hash, number.parse().ok()?))
}

/// Takes the links to a file of ours out of OpenSSL's directory, before the file itself goes. Others of the same hash stay reachable
/// throughout.
///
/// # Errors
/// As `rename(2)` and `unlink(2)`; then the tool's next run is what mends the links.
pub(crate) fn retire(root: &HostRoot, store: &TrustStore, file: &str) -> io::Result<()> {
    let Some(stem) = Path::new(file).file_stem().and_then(|stem| stem.to_str()) else { return Ok(()) };
    // as Debian's and Flatcar's, and as Alpine's tool name it
    let names = [format!("{stem}.pem"), format!("ca-cert-{stem}.pem")];
    retire_where(root, store, |name| names.iter().any(|own| own == name))
}

/// The same for links to somebody else's file that is taken over.
///
/// # Errors
/// As [`retire`].
pub(crate) fn retire_links_to(root: &HostRoot, store: &TrustStore, path: &str) -> io::Result<()> {
    let dir = store.hash_dir.unwrap_or_default();
    let leads_there = |name: &str| {
        root.link_target(format!("{dir}/{name}")).is_ok_and(|target| target.is_some_and(|target| target == path))
    };
    retire_where(root, store, leads_there)
}

/// The same for links to files of ours that are gone already: a run that was killed has left them.
///
/// # Errors
/// As [`retire`].
pub(crate) fn retire_dangling(root: &HostRoot, store: &TrustStore) -> io::Result<()> {
    let dir = store.hash_dir.unwrap_or_default();
    retire_where(root, store, |name| {
        own_digits(store, name).is_some() && matches!(root.stat(format!("{dir}/{name}")), Ok(None))
    })
}

/// The 16 digits in the names of links to files of ours that are gone.
///
/// # Errors
/// If the directory, or where one of them leads, is there and cannot be read.
pub(crate) fn dangling(root: &HostRoot, store: &TrustStore) -> Result<BTreeSet<String>, ObserveError> {
    let Some(dir) = store.hash_dir else { return Ok(BTreeSet::new()) };
    let mut found = BTreeSet::new();
    for (name, kind) in root.names(dir).map_err(at(dir))? {
        let digits = own_digits(store, &name).filter(|_| kind == FileKind::Link);
        let path = format!("{dir}/{name}");
        if let Some(digits) = digits
            && root.stat(&path).map_err(at(&path))?.is_none()
        {
            found.insert(digits.to_owned());
        }
    }
    Ok(found)
}

/// The 16 digits in the name of a link to a file of ours, as Debian's and Flatcar's, and as Alpine's tool name it.
fn own_digits<'a>(store: &TrustStore, name: &'a str) -> Option<&'a str> {
    let stem = Path::new(name.strip_prefix("ca-cert-").unwrap_or(name)).file_stem()?.to_str()?;
    let digits = stem.strip_prefix(PREFIX)?;
    is_own_name(store, &format!("{stem}.{}", store.extension)).then_some(digits)
}

/// Debian's tool asks `basename` for a link's name and does not look how that ended: where it was killed, the link is called `.pem`,
/// and hash links lead to it. Takes these out, so that the next run makes them under their names. Whether there was one.
///
/// # Errors
/// As [`retire`].
pub(crate) fn retire_nameless(root: &HostRoot, store: &TrustStore) -> io::Result<bool> {
    const NAMELESS: &str = ".pem";
    let Some(dir) = store.hash_dir.filter(|_| store.family == Family::Debian) else { return Ok(false) };
    let target = root.link_target(format!("{dir}/{NAMELESS}"))?;
    let sources = ["/usr/share/ca-certificates", store.anchors_dir];
    let is_the_tools = target.is_some_and(|target| sources.iter().any(|source| Path::new(&target).starts_with(source)));
    if is_the_tools {
        retire_where(root, store, |name| name == NAMELESS)?;
    }
    Ok(is_the_tools)
}

/// Takes out the links with these names, and the hash links to them.
fn retire_where(root: &HostRoot, store: &TrustStore, is_leaving: impl Fn(&str) -> bool) -> io::Result<()> {
    let Some(dir) = store.hash_dir else { return Ok(()) };
    let Some(links) = root.directory(dir)? else { return Ok(()) };
    let names = links.names()?;
    let mut by_hash: BTreeMap<&str, BTreeMap<usize, bool>> = BTreeMap::new();
    let mut leaving: BTreeMap<String, bool> = BTreeMap::new();
    for (name, kind) in &names {
        let Some((hash, number)) = split_hash_link(name) else { continue };
        let target = match kind {
            FileKind::Link => links.link_target(name)?,
            _ => None,
        };
        let target = target.as_deref().map(Path::new).and_then(Path::file_name).and_then(|name| name.to_str());
        let leaves =
            target.is_some_and(|target| *leaving.entry(target.to_owned()).or_insert_with(|| is_leaving(target)));
        by_hash.entry(hash).or_default().insert(number, leaves);
    }
    for (hash, mut numbers) in by_hash {
        let path = |number: usize| format!("{dir}/{hash}.{number}");
        while let Some(gap) = numbers.iter().find(|(_, leaves)| **leaves).map(|(number, _)| *number) {
            // the last one closes the gap in one step
            match numbers.pop_last() {
                Some((last, false)) if last != gap => {
                    root.rename(path(last), &format!("{hash}.{gap}"))?;
                    numbers.insert(gap, false);
                }
                Some((last, _)) => root.remove_file(path(last))?,
                None => break,
            }
        }
    }
    for (name, kind) in &names {
        if *kind == FileKind::Link && split_hash_link(name).is_none() && is_leaving(name) {
            root.remove_file(format!("{dir}/{name}"))?;
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "hash_links_tests.rs"]
mod tests;
