//! What a run of the store's tool replaces, kept at hand to be put back.

use std::{collections::BTreeSet, ffi::OsString, io, path::Path};

use nodetrust_core::{certificate::fingerprint::Fingerprint, store::TrustStore};

use crate::{
    host::{file::FileKind, own::RESTORE, root::HostRoot},
    store::{
        hash_links,
        observe::{MAX_BUNDLE_BYTES, ObserveError, at, usable},
    },
};

/// How much is put back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// What is gone or changed.
    All,
    /// Links that are gone or changed, and files that are gone.
    Links,
    /// What is gone, but for links to certificates that are not trusted any more: somebody has deselected them.
    Missing,
}

/// What a run of the tool replaces, as it was: the store's files, and the files and links in its directories.
#[derive(Debug)]
pub(crate) struct Outputs {
    /// on the outputs' file system, and looked through for what a killed run left
    temp_dir: &'static str,
    saved: Vec<(String, Output)>,
}

#[derive(Debug)]
enum Output {
    File(Vec<u8>, u32),
    /// where it leads, and the certificates there
    Link(OsString, BTreeSet<Fingerprint>),
}

impl Outputs {
    /// Reads them. What no tool could use (a socket, a link to itself, a huge file) is nobody's loss.
    ///
    /// # Errors
    /// If one of them is there and cannot be read: it could not be put back.
    pub(crate) fn save(root: &HostRoot, store: &'static TrustStore) -> Result<Self, ObserveError> {
        let mut saved = Vec::new();
        let mut links = Vec::new();
        let read = |path: &str| usable(root.read(path, MAX_BUNDLE_BYTES)).map_err(at(path));
        for path in std::iter::once(&store.bundle).chain(store.outputs) {
            let Some(meta) = usable(root.stat(path)).map_err(at(path))?.flatten() else { continue };
            if meta.kind == FileKind::File {
                saved.extend(read(path)?.map(|bytes| ((*path).to_owned(), Output::File(bytes, meta.mode))));
                continue;
            }
            let is_source = *path == store.anchors_dir;
            for (name, meta) in root.list(path).map_err(at(path))?.unwrap_or_default() {
                let path = format!("{path}/{name}");
                match meta.kind {
                    // other files in such a directory are not the tool's, and where it reads them, none is
                    FileKind::File if name.ends_with(".pem") && !is_source => {
                        saved.extend(read(&path)?.map(|bytes| (path, Output::File(bytes, meta.mode))));
                    }
                    FileKind::Link => {
                        // one that leads nowhere is nobody's loss
                        if usable(root.stat(&path)).map_err(at(&path))?.flatten().is_some()
                            && let Some(target) = root.link_target(&path).map_err(at(&path))?
                        {
                            let certificates = hash_links::certificates(&read(&path)?.unwrap_or_default());
                            links.push((path, Output::Link(target, certificates)));
                        }
                    }
                    FileKind::File | FileKind::Directory | FileKind::Other => {}
                }
            }
        }
        saved.extend(links); // after the files that they lead to
        Ok(Self { temp_dir: Path::new(store.bundle).parent().and_then(Path::to_str).unwrap_or("/"), saved })
    }

    /// How many links, but for hash links, are gone though what they led to is there and trusted.
    ///
    /// # Errors
    /// If a link, or what it led to, cannot be looked at.
    pub(crate) fn lost_names(&self, root: &HostRoot, trusted: &BTreeSet<Fingerprint>) -> Result<usize, ObserveError> {
        let mut lost = 0;
        for (path, output) in &self.saved {
            let Output::Link(target, certificates) = output else { continue };
            let (dir, name) = path.rsplit_once('/').unwrap_or_default();
            if hash_links::is_hash_link(name)
                || certificates.is_disjoint(trusted)
                || root.link_target(path).map_err(at(path))?.is_some()
            {
                continue;
            }
            let leads = usable(root.stat(Path::new(dir).join(target))).map_err(at(path))?.flatten().is_some();
            lost += usize::from(leads);
        }
        Ok(lost)
    }

    /// Puts back as much as can be; the first path that could not be, and why. `trusted` is in the bundle now.
    pub(crate) fn put_back(
        &self,
        root: &HostRoot,
        extent: Extent,
        trusted: &BTreeSet<Fingerprint>,
    ) -> Result<(), (&str, io::Error)> {
        let mut result = Ok(());
        for (path, output) in &self.saved {
            let put = match output {
                Output::File(bytes, mode) => match root.read(path, MAX_BUNDLE_BYTES) {
                    Ok(now) if extent != Extent::All || now == *bytes => continue,
                    _ => root.write_atomic(path, self.temp_dir, RESTORE, *mode, bytes),
                },
                // what cannot be read is written anew
                Output::Link(target, certificates) => match root.link_target(path).unwrap_or_default() {
                    Some(now) if extent == Extent::Missing || now == *target => continue,
                    None if extent == Extent::Missing
                        && !certificates.is_empty()
                        && certificates.is_disjoint(trusted) =>
                    {
                        continue;
                    }
                    _ => root.link_atomic(path, self.temp_dir, RESTORE, target),
                },
            };
            if let (Ok(()), Err(error)) = (&result, put) {
                result = Err((path.as_str(), error));
            }
        }
        result
    }
}
