//! Other people's files in the anchor directory: the certificates in them, and what a run of the tool would do with them.

use std::{collections::HashMap, io, sync::Arc};

use nodetrust_core::{
    certificate::{anchor::Anchor, fingerprint::content_digest},
    observed::{FileForm, ForeignFile, Hazard, Observed, SourceHazard},
    source::SourceFile,
    store::{TrustStore, anchor_file::is_own_name},
};

use crate::{
    host::{
        directory::HostDirectory,
        file::{FileKind, is_missing},
        own_paths,
        root::HostRoot,
    },
    store::{
        hazards,
        read::{Digest, MAX_BUNDLE_BYTES, ObserveError, at, leads_to_directory, usable},
    },
};

/// How deep other people's anchors are looked for below a directory that the tool searches.
const MAX_DEPTH: usize = 8;

/// What other people's files held, by path, with the digest of their content. The same content is not decoded again: to decode 4 MiB
/// takes seconds.
#[derive(Debug, Default)]
pub(crate) struct ForeignCache(HashMap<String, (Digest, ReadForeign)>);

/// What a file of somebody else's holds.
#[derive(Debug, Default)]
struct ReadForeign {
    anchors: Vec<Arc<Anchor>>,
    /// Empty where the tool does not take the file, or does not paste files.
    hazards: Vec<Hazard>,
    /// The first thing in it that is no certificate.
    other: Option<String>,
}

impl ForeignCache {
    /// Adds what lies in the anchor directory and is not ours to `observed`. `names` are those in the directory itself.
    ///
    /// # Errors
    /// If a file or directory is there and cannot be read.
    pub(crate) fn look(
        &mut self,
        root: &HostRoot,
        dir: &HostDirectory,
        names: &[(String, FileKind)],
        observed: &mut Observed,
    ) -> Result<(), ObserveError> {
        let mut look = ForeignLook { root, anchors_dir: dir, before: &mut self.0, after: HashMap::new() };
        look.directory(observed.store.anchors_dir, names, 0, observed)?;
        self.0 = look.after;
        Ok(())
    }
}

struct ForeignLook<'a> {
    root: &'a HostRoot,
    anchors_dir: &'a HostDirectory,
    before: &'a mut HashMap<String, (Digest, ReadForeign)>,
    after: HashMap<String, (Digest, ReadForeign)>,
}

impl ForeignLook<'_> {
    fn directory(
        &mut self,
        dir: &str,
        names: &[(String, FileKind)],
        depth: usize,
        observed: &mut Observed,
    ) -> Result<(), ObserveError> {
        let store = observed.store;
        for (name, kind) in names {
            let own = depth == 0 && is_own_name(store, name) || name.starts_with(own_paths::HIDDEN);
            if own && *kind != FileKind::Directory {
                continue;
            }
            let path = format!("{dir}/{name}");
            // the tool follows links to directories
            let is_directory = match kind {
                FileKind::Directory => true,
                FileKind::Link => leads_to_directory(self.root, &path)?,
                FileKind::File | FileKind::Other => false,
            };
            if is_directory {
                if store.recursive && depth < MAX_DEPTH {
                    let names = self.root.names(&path).map_err(at(&path))?;
                    self.directory(&path, &names, depth + 1, observed)?;
                }
                continue;
            }
            let within = (depth == 0).then_some((name.as_str(), *kind));
            self.file(path, within, store.takes.matches(name), observed)?;
        }
        Ok(())
    }

    /// `within`: its name and kind, if it lies in the anchor directory itself.
    fn file(
        &mut self,
        path: String,
        within: Option<(&str, FileKind)>,
        taken: bool,
        observed: &mut Observed,
    ) -> Result<(), ObserveError> {
        let Some(bytes) = usable(self.root.read(&path, MAX_BUNDLE_BYTES)).map_err(at(&path))? else { return Ok(()) };
        let digest = content_digest(&bytes);
        let read = match self.before.remove(&path) {
            Some((before, known)) if before == digest => known,
            _ => read(&path, &bytes, taken, observed.store),
        };
        let mut hazards = read.hazards.iter().cloned();
        let hazard = hazards.next();
        observed.hazards.extend(hazards.map(|hazard| SourceHazard { path: path.clone(), hazard }));
        if taken || !read.anchors.is_empty() {
            let anchors = read.anchors.clone();
            let form = match within {
                Some((name, kind)) => self.form(name, kind, &bytes, digest, &read).map_err(at(&path))?,
                None => None,
            };
            observed.foreign.push(ForeignFile { path: path.clone(), anchors, taken, hazard, form });
        }
        self.after.insert(path, (digest, read));
        Ok(())
    }

    /// What a file of the anchor directory itself is; None if it is gone by now.
    fn form(
        &self,
        name: &str,
        kind: FileKind,
        bytes: &[u8],
        digest: Digest,
        read: &ReadForeign,
    ) -> io::Result<Option<FileForm>> {
        let meta = match self.anchors_dir.meta(name) {
            Err(error) if is_missing(&error) => return Ok(None),
            meta => meta?,
        };
        Ok(Some(FileForm {
            regular: kind == FileKind::File && meta.kind == FileKind::File,
            links: meta.links,
            owned_by_root: meta.owner == (0, 0) || !nix::unistd::geteuid().is_root(),
            size: bytes.len(),
            digest,
            other: read.other.clone(),
        }))
    }
}

fn read(path: &str, bytes: &[u8], taken: bool, store: &TrustStore) -> ReadForeign {
    let part = SourceFile::parse(path, bytes);
    let hazards = match taken && store.pastes_files {
        true => hazards::of_part(&part, bytes),
        false => Vec::new(),
    };
    let other = part.faults.first().map(|fault| format!("line {}: {}", fault.line, fault.detail));
    ReadForeign { anchors: part.anchors.into_iter().map(|(_, anchor)| anchor).collect(), hazards, other }
}
