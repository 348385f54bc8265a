//! Our files in the anchor directory as they are now, and what killed runs have left of ours.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    path::Path,
    sync::{Arc, LazyLock},
};

use nodetrust_core::{
    certificate::{anchor::Anchor, fingerprint::content_digest, pem},
    observed::OwnAnchorFile,
    parallel::in_shares,
    source::{Content, Resolved, Snapshot, SourceFile},
    store::{
        Tool, TrustStore,
        anchor_file::{file_name, is_own_name},
    },
};

use crate::{
    host::{
        directory::HostDirectory,
        file::{FileKind, FileMeta, is_missing},
        own_paths,
        root::HostRoot,
    },
    store::read::{Digest, ObserveError, at, usable},
};

/// Fewer files than this are not worth a thread: about 10 ms of work.
const FILES_PER_THREAD: usize = 1024;

/// Our files that were decoded last, and what the sources hold. The same content is not decoded again.
#[derive(Debug, Default)]
pub(crate) struct OwnFileCache {
    decoded: HashMap<Digest, DecodedFile>,
    /// Our files are made of these.
    sources: Vec<Arc<SourceFile>>,
}

/// A file that holds one certificate.
#[derive(Debug, Clone)]
struct DecodedFile {
    anchor: Arc<Anchor>,
    /// The content is to the byte what we write for this anchor.
    as_written: bool,
}

impl OwnFileCache {
    /// Takes note of what the sources hold, so that a file with the same certificate need not be decoded.
    pub(crate) fn expect(&mut self, snapshots: &[Snapshot]) {
        let parts = snapshots.iter().filter_map(|snapshot| match &snapshot.content {
            Content::Files(parts) => Some(parts),
            _ => None,
        });
        self.sources = parts.flatten().cloned().collect();
    }

    /// Keeps one copy of an anchor that is in a source and in a file of ours, the source's.
    pub(crate) fn share(&mut self, resolved: &Resolved) {
        for file in self.decoded.values_mut() {
            if let Some(wanted) = resolved.desired.get(&file.anchor.fingerprint) {
                file.anchor.clone_from(&wanted.anchor);
            }
        }
    }

    /// The anchor whose file, as we write it, has these bytes; None if it was not read before.
    pub(crate) fn anchor_of(&self, bytes: &[u8]) -> Option<&Anchor> {
        let file = self.decoded.get(&content_digest(bytes)).filter(|file| file.as_written)?;
        Some(&file.anchor)
    }
}

/// Our files as they are now.
///
/// # Errors
/// If the directory or one of them is there and cannot be read.
pub(crate) fn read_own_files(
    root: &HostRoot,
    store: &TrustStore,
    cache: &mut OwnFileCache,
) -> Result<BTreeMap<String, OwnAnchorFile>, ObserveError> {
    let Some(dir) = root.directory(store.anchors_dir).map_err(at(store.anchors_dir))? else {
        return Ok(BTreeMap::new());
    };
    let names = dir.names().map_err(at(store.anchors_dir))?;
    own_files(&dir, store, &names, cache)
}

/// The files with our kind of name. `names` are those in the directory.
///
/// # Errors
/// If one of them is there and cannot be read.
pub(crate) fn own_files(
    dir: &HostDirectory,
    store: &TrustStore,
    names: &[(String, FileKind)],
    cache: &mut OwnFileCache,
) -> Result<BTreeMap<String, OwnAnchorFile>, ObserveError> {
    let known = std::mem::take(&mut cache.decoded);
    let sources = &cache.sources;
    let by_name: LazyLock<HashMap<String, &Arc<Anchor>>, _> = LazyLock::new(|| {
        let anchors = sources.iter().flat_map(|part| &part.anchors);
        anchors.map(|(_, anchor)| (file_name(store, &anchor.fingerprint), anchor)).collect()
    });
    let look = OwnFiles { dir, store, known: &known };
    let own: Vec<&(String, FileKind)> = names.iter().filter(|(name, _)| is_own_name(store, name)).collect();
    let files = in_shares(&own, FILES_PER_THREAD, |share| {
        let mut bytes = Vec::new();
        let expected = |name: &str| by_name.get(name).copied();
        share.iter().map(|(name, kind)| look.file(name, *kind, expected, &mut bytes)).collect()
    });
    let read = own.into_iter().zip(files).filter_map(|((name, _), file)| match file {
        // somebody has removed it since the directory was listed
        Err(error) if is_missing(&error) => None,
        file => Some((name, file.map_err(at(&format!("{}/{name}", store.anchors_dir))))),
    });
    let read = read.map(|(name, file)| {
        let file = file?.map_or(OwnAnchorFile { anchor: None, intact: false }, |(file, digest, own)| {
            cache.decoded.insert(digest, own);
            file
        });
        Ok((name.clone(), file))
    });
    read.collect()
}

/// A file of ours as it was read: what it is, and what is to be remembered of it.
type ReadOwnFile = (OwnAnchorFile, Digest, DecodedFile);

/// What our files are read with.
struct OwnFiles<'a> {
    dir: &'a HostDirectory,
    store: &'a TrustStore,
    known: &'a HashMap<Digest, DecodedFile>,
}

impl OwnFiles<'_> {
    /// A file with our kind of name, and what is to be remembered of it; None if it does not hold exactly one certificate. What is
    /// known by its digest, or to the byte what a source's certificate gives under this name, is not decoded. `NotFound` if it is gone.
    fn file<'a>(
        &self,
        name: &str,
        kind: FileKind,
        expected: impl Fn(&str) -> Option<&'a Arc<Anchor>>,
        bytes: &mut Vec<u8>,
    ) -> io::Result<Option<ReadOwnFile>> {
        if kind != FileKind::File {
            return Ok(None);
        }
        let Some((meta, digest, own)) = self.read(name, expected, bytes)? else { return Ok(None) };
        let right_name = file_name(self.store, &own.anchor.fingerprint) == name;
        let right_owner = meta.owner == (0, 0) || !nix::unistd::geteuid().is_root();
        let intact = right_name && right_owner && meta.mode == 0o644 && meta.links == 1 && own.as_written;
        let anchor = right_name.then(|| own.anchor.clone());
        Ok(Some((OwnAnchorFile { anchor, intact }, digest, own)))
    }

    fn read<'a>(
        &self,
        name: &str,
        expected: impl Fn(&str) -> Option<&'a Arc<Anchor>>,
        bytes: &mut Vec<u8>,
    ) -> io::Result<Option<(FileMeta, Digest, DecodedFile)>> {
        let read = match self.dir.read(name, pem::MAX_FILE_BYTES as u64, bytes) {
            Err(error) if is_missing(&error) => return Err(error),
            read => usable(read)?,
        };
        let Some(meta) = read else { return Ok(None) };
        let digest = content_digest(bytes);
        let as_expected = || {
            let anchor = expected(name).filter(|anchor| anchor.pem().as_bytes() == bytes.as_slice())?;
            Some(DecodedFile { anchor: Arc::clone(anchor), as_written: true })
        };
        let own = match self.known.get(&digest).cloned().or_else(as_expected) {
            Some(own) => own,
            None => match SourceFile::parse(name, bytes).anchors.as_slice() {
                [(_, anchor)] => {
                    DecodedFile { anchor: anchor.clone(), as_written: anchor.pem().as_bytes() == bytes.as_slice() }
                }
                _ => return Ok(None),
            },
        };
        Ok(Some((meta, digest, own)))
    }
}

/// Temporary files of ours that a killed run left behind. `names` are those in the anchor directory.
///
/// # Errors
/// If a directory that may have one cannot be read.
pub(crate) fn leftovers(
    root: &HostRoot,
    store: &TrustStore,
    names: &[(String, FileKind)],
) -> Result<BTreeSet<String>, ObserveError> {
    let mut left = BTreeSet::new();
    let elsewhere;
    let names = if store.temp_dir == store.anchors_dir {
        names
    } else {
        elsewhere = root.names(store.temp_dir).map_err(at(store.temp_dir))?;
        &elsewhere
    };
    for (name, _) in names {
        if name.starts_with(own_paths::HIDDEN) && name.ends_with(".tmp") {
            left.insert(format!("{}/{name}", store.temp_dir));
        }
    }
    if !matches!(store.tool, Tool::None) {
        let outputs = store.outputs.iter().chain([&store.bundle]);
        let dirs: BTreeSet<&Path> = outputs.filter_map(|path| Path::new(path).parent()).collect();
        for dir in dirs {
            let dir = dir.display().to_string();
            for (name, _) in root.names(&dir).map_err(at(&dir))? {
                if name.starts_with(".nodetrust-") {
                    left.insert(format!("{dir}/{name}"));
                }
            }
        }
    }
    let adopted_temp = format!("{}/{}", own_paths::DIR, own_paths::ADOPTED_TEMP);
    let selection_temp = format!("{}/{}", own_paths::SELECTION_TEMP_DIR, own_paths::SELECTION_TEMP);
    for path in [own_paths::TEMP_DIR, own_paths::LEDGER_TEMP, &adopted_temp, &selection_temp] {
        if root.own_meta(path).map_err(at(path))?.is_some() {
            left.insert(path.to_owned());
        }
    }
    Ok(left)
}
