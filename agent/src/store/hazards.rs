//! Source files that are not ours and that a run of the store's tool would turn into damage.
//!
//! The tools of Debian, Alpine and Flatcar paste files as they are. Such a file is found before the run, wherever it lies, and named.

use std::collections::{BTreeSet, HashMap};

use nodetrust_core::{
    certificate::{bundle, fingerprint::content_digest, pem},
    observed::{BundleReader, Effective, Hazard, SourceHazard},
    source::SourceFile,
    store::{Family, TrustStore, anchor_file::is_own_name, harm::blocks},
};

use crate::{
    host::{file::FileKind, root::HostRoot},
    store::{
        distribution::{SHIPPED, p11_kit_directories, selected},
        read::{Digest, MAX_BUNDLE_BYTES, ObserveError, at, usable},
    },
};

/// How deep sources are looked through for a certificate.
const MAX_DEPTH: usize = 8;

/// What was found in pasted files, by path, with the digest of their content. The same content is not decoded again.
#[derive(Debug, Default)]
pub(crate) struct PastedCache(HashMap<String, (Digest, PastedFile)>);

/// What a file that the tool pastes has in it.
#[derive(Debug, Default)]
struct PastedFile {
    hazards: Vec<Hazard>,
    /// there is no certificate in it
    hollow: bool,
}

/// Everything that pasting these bytes into the bundle would do.
pub(crate) fn of_file(bytes: &[u8]) -> Vec<Hazard> {
    of_faults(&pem::scan(bytes).faults, bundle::read(bytes))
}

/// The same for a file that has been scanned already.
pub(crate) fn of_part(part: &SourceFile, bytes: &[u8]) -> Vec<Hazard> {
    of_faults(&part.faults, bundle::read(bytes))
}

/// `as_bundle`: what the readers of bundles make of the file alone.
fn of_faults(faults: &[pem::Fault], as_bundle: Effective) -> Vec<Hazard> {
    // also a key that is indented, or in DER: whoever can read the bundle can read that
    let key = faults.iter().find(|fault| fault.reason == pem::RejectReason::PrivateKey);
    let mut found = Vec::new();
    if as_bundle.private_key || key.is_some() {
        found.push(Hazard::PrivateKey(key.map_or(0, |fault| fault.line)));
    }
    let Effective { faults, gnutls_faults, .. } = as_bundle;
    found.extend(faults.into_iter().next().map(Hazard::Broken));
    found.extend(gnutls_faults.into_iter().next().map(Hazard::BrokenGnuTls));
    found
}

/// What is wrong with files of others that the tool pastes and that are not in an anchor directory of its own.
#[derive(Debug, Default)]
pub(crate) struct Elsewhere {
    /// What a run of the tool would do with them.
    pub(crate) hazards: Vec<SourceHazard>,
    /// The paths of those that the distribution's list selects, that are there and hold no certificate.
    pub(crate) hollow: Vec<String>,
    /// What the list names in a last line that the tool passes over.
    pub(crate) passed_over: Option<String>,
}

/// Looks at the files that the tool pastes and that are not in an anchor directory of its own: what the distribution's list selects, and
/// what lies beside our files in the directory of links.
///
/// # Errors
/// If one of them is there and cannot be read.
pub(crate) fn elsewhere(
    root: &HostRoot,
    store: &TrustStore,
    effective: &Effective,
    cache: &mut PastedCache,
) -> Result<Elsewhere, ObserveError> {
    if !store.pastes_files {
        return Ok(Elsewhere::default());
    }
    let mut passed_over = None;
    let has_list = matches!(store.family, Family::Debian | Family::Alpine);
    let paths: Vec<String> = match store.family {
        Family::Debian | Family::Alpine => {
            let selection = selected(root, store.family)?;
            passed_over = selection.passed_over;
            selection.names.iter().map(|name| format!("{SHIPPED}/{name}")).collect()
        }
        _ => {
            let names = root.names(store.anchors_dir).map_err(at(store.anchors_dir))?;
            let pasted = names.into_iter().filter(|(name, kind)| {
                matches!(kind, FileKind::File | FileKind::Link)
                    && store.takes.matches(name)
                    && !is_own_name(store, name)
            });
            pasted.map(|(name, _)| format!("{}/{name}", store.anchors_dir)).collect()
        }
    };
    let mut before = std::mem::take(&mut cache.0);
    let (mut found, mut hollow) = (Vec::new(), Vec::new());
    for path in paths {
        let Some(bytes) = usable(root.read(&path, MAX_BUNDLE_BYTES)).map_err(at(&path))? else { continue };
        let digest = content_digest(&bytes);
        let file = match before.remove(&path) {
            Some((known, file)) if known == digest => file,
            _ => {
                let hollow = has_list && !bytes.split(|byte| *byte == b'\n').any(begins_certificate);
                PastedFile { hazards: in_place(store, &bytes, effective), hollow }
            }
        };
        found.extend(file.hazards.iter().map(|hazard| SourceHazard { path: path.clone(), hazard: hazard.clone() }));
        hollow.extend(file.hollow.then(|| path.clone()));
        cache.0.insert(path, (digest, file));
    }
    Ok(Elsewhere { hazards: found, hollow, passed_over })
}

/// A certificate of whatever label; what is wrong with its content is a hazard of its own.
fn begins_certificate(line: &[u8]) -> bool {
    line.starts_with(b"-----BEGIN ") && line.trim_ascii_end().ends_with(b"CERTIFICATE-----")
}

/// What a file would do, given that the tool takes it. Most of them are in the bundle already.
fn in_place(store: &TrustStore, bytes: &[u8], effective: &Effective) -> Vec<Hazard> {
    let as_bundle = bundle::read_after(bytes, effective);
    // Flatcar's tool pastes what gets a hash link, and what has no certificate that can be read gets none
    if store.family == Family::Flatcar && as_bundle.set.is_empty() {
        return Vec::new();
    }
    of_faults(&pem::scan(bytes).faults, as_bundle)
}

/// Which source files the faults of a bundle come from, where the tool reads them instead of pasting: those that hold the certificates.
///
/// # Errors
/// If one of them is there and cannot be read.
pub(crate) fn holders(
    root: &HostRoot,
    store: &TrustStore,
    bundle: &[u8],
    read: &Effective,
) -> Result<Vec<SourceHazard>, ObserveError> {
    let at_line = |line: usize| blocks(bundle).into_iter().find(|block| (block.begin..=block.end).contains(&line));
    let mut found = Vec::new();
    for reader in BundleReader::ALL {
        let faults = reader.faults(read);
        let wanted: BTreeSet<Vec<u8>> = faults.iter().filter_map(|fault| Some(at_line(fault.line)?.content)).collect();
        let (Some(first), false) = (faults.first(), wanted.is_empty()) else { continue };
        let mut places = Vec::new();
        for dir in p11_kit_directories(store.family) {
            holders_below(root, store, dir, 0, &wanted, &mut places)?;
        }
        found.extend(places.into_iter().map(|(path, line)| {
            let fault = pem::Fault { line, ..first.clone() };
            let hazard = match reader {
                BundleReader::OpenSsl => Hazard::Broken(fault),
                BundleReader::GnuTls => Hazard::BrokenGnuTls(fault),
            };
            SourceHazard { path, hazard }
        }));
    }
    Ok(found)
}

/// Files below a directory that hold one of these certificates, with its line; none of ours.
fn holders_below(
    root: &HostRoot,
    store: &TrustStore,
    dir: &str,
    depth: usize,
    wanted: &BTreeSet<Vec<u8>>,
    found: &mut Vec<(String, usize)>,
) -> Result<(), ObserveError> {
    for (name, kind) in root.names(dir).map_err(at(dir))? {
        let path = format!("{dir}/{name}");
        if kind == FileKind::Directory {
            if depth < MAX_DEPTH {
                holders_below(root, store, &path, depth + 1, wanted, found)?;
            }
            continue;
        }
        if dir == store.anchors_dir && is_own_name(store, &name) {
            continue;
        }
        let Some(bytes) = usable(root.read(&path, MAX_BUNDLE_BYTES)).map_err(at(&path))? else { continue };
        if wanted.contains(&bytes) {
            found.push((path.clone(), 1)); // DER
        }
        let held = blocks(&bytes).into_iter().filter(|block| wanted.contains(&block.content));
        found.extend(held.map(|block| (path.clone(), block.begin)));
    }
    Ok(())
}

/// Names the files that keep a reader from loading the bundle, or hold a key: at most three, the rest is counted.
pub(crate) fn name_them<'a>(found: impl Iterator<Item = (&'a str, usize, &'a str)>) -> String {
    const SHOWN: usize = 3;
    let all: BTreeSet<(&str, usize, &str)> = found.collect();
    let mut names: Vec<String> = all
        .iter()
        .take(SHOWN)
        .map(
            |(path, line, detail)| {
                if detail.is_empty() { format!("{path}:{line}") } else { format!("{path}:{line} ({detail})") }
            },
        )
        .collect();
    if all.len() > SHOWN {
        names.push(format!("{} more", all.len() - SHOWN));
    }
    names.join(", ")
}
