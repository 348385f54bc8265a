//! What a run of the store's tool replaces, kept at hand to be put back.

use std::{collections::BTreeSet, ffi::OsString, io, path::Path};

use nodetrust_core::{fingerprint::Fingerprint, store::TrustStore};

use crate::{
    host::{
        own::RESTORE,
        root::{HostRoot, Kind},
    },
    links,
    observe::MAX_BUNDLE_BYTES,
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
    /// What cannot be read is not saved: the tool may still do its work, and mostly does.
    pub(crate) fn save(root: &HostRoot, store: &'static TrustStore) -> Self {
        let mut saved = Vec::new();
        let mut save = |path: String, mode: u32| {
            if let Ok(bytes) = root.read(&path, MAX_BUNDLE_BYTES) {
                saved.push((path, Output::File(bytes, mode)));
            }
        };
        let mut links = Vec::new();
        for path in std::iter::once(&store.bundle).chain(store.outputs) {
            let Ok(Some(meta)) = root.stat(path) else { continue };
            if meta.kind == Kind::File {
                save((*path).to_owned(), meta.mode);
                continue;
            }
            let is_source = *path == store.anchors_dir;
            for (name, meta) in root.list(path).ok().flatten().unwrap_or_default() {
                let path = format!("{path}/{name}");
                match meta.kind {
                    // other files in such a directory are not the tool's, and where it reads them, none is
                    Kind::File if name.ends_with(".pem") && !is_source => save(path, meta.mode),
                    // one that leads nowhere is nobody's loss
                    Kind::Link if root.stat(&path).ok().flatten().is_some() => {
                        links.extend(root.link_target(&path).map(|target| {
                            let bytes = root.read(&path, MAX_BUNDLE_BYTES).unwrap_or_default();
                            (path, Output::Link(target, links::certificates(&bytes)))
                        }));
                    }
                    _ => {}
                }
            }
        }
        saved.extend(links); // after the files that they lead to
        Self { temp_dir: Path::new(store.bundle).parent().and_then(Path::to_str).unwrap_or("/"), saved }
    }

    /// How many links, but for hash links, are gone though what they led to is there and trusted.
    pub(crate) fn lost_names(&self, root: &HostRoot, trusted: &BTreeSet<Fingerprint>) -> usize {
        let is_lost = |(path, output): &&(String, Output)| {
            let Output::Link(target, certificates) = output else { return false };
            let (dir, name) = path.rsplit_once('/').unwrap_or_default();
            let leads = || root.stat(Path::new(dir).join(target)).ok().flatten().is_some();
            !links::is_hash_link(name)
                && !certificates.is_disjoint(trusted)
                && root.link_target(path).is_none()
                && leads()
        };
        self.saved.iter().filter(is_lost).count()
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
                Output::Link(target, certificates) => match root.link_target(path) {
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
