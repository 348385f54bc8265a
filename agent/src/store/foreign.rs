//! Other people's files in the anchor directory: the certificates in them, and what a run of the tool would do with them.

use std::{collections::HashMap, sync::Arc};

use nodetrust_core::{
    certificate::{anchor::Anchor, fingerprint::content_digest},
    observed::{ForeignFile, Hazard, Observed, SourceHazard},
    source::SourceFile,
    store::{TrustStore, anchor_file::is_own_name},
};

use crate::{
    host::{file::FileKind, own_paths, root::HostRoot},
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
}

impl ForeignCache {
    /// Adds what lies in the anchor directory and is not ours to `observed`. `names` are those in the directory itself.
    ///
    /// # Errors
    /// If a file or directory is there and cannot be read.
    pub(crate) fn look(
        &mut self,
        root: &HostRoot,
        names: &[(String, FileKind)],
        observed: &mut Observed,
    ) -> Result<(), ObserveError> {
        let mut look = ForeignLook { root, before: &mut self.0, after: HashMap::new() };
        look.directory(observed.store.anchors_dir, names, 0, observed)?;
        self.0 = look.after;
        Ok(())
    }
}

struct ForeignLook<'a> {
    root: &'a HostRoot,
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
            self.file(path, store.takes.matches(name), observed)?;
        }
        Ok(())
    }

    fn file(&mut self, path: String, taken: bool, observed: &mut Observed) -> Result<(), ObserveError> {
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
            observed.foreign.push(ForeignFile { path: path.clone(), anchors, taken, hazard });
        }
        self.after.insert(path, (digest, read));
        Ok(())
    }
}

fn read(path: &str, bytes: &[u8], taken: bool, store: &TrustStore) -> ReadForeign {
    let part = SourceFile::parse(path, bytes);
    let hazards = match taken && store.pastes_files {
        true => hazards::of_part(&part, bytes),
        false => Vec::new(),
    };
    ReadForeign { anchors: part.anchors.into_iter().map(|(_, anchor)| anchor).collect(), hazards }
}
