//! What a run of the store's tool replaces, kept at hand to be put back.

use std::{ffi::OsString, io, path::Path};

use nodetrust_core::store::TrustStore;

use crate::{
    host::{
        own::RESTORE,
        root::{HostRoot, Kind},
    },
    observe::MAX_BUNDLE_BYTES,
};

/// How much is put back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// What is gone or changed.
    All,
    /// What is gone.
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
    Link(OsString),
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
            for (name, meta) in root.list(path).ok().flatten().unwrap_or_default() {
                let path = format!("{path}/{name}");
                match meta.kind {
                    // other files in such a directory are not the tool's
                    Kind::File if name.ends_with(".pem") => save(path, meta.mode),
                    Kind::Link => links.extend(root.link_target(&path).map(|target| (path, Output::Link(target)))),
                    _ => {}
                }
            }
        }
        saved.extend(links); // after the files that they lead to
        Self { temp_dir: Path::new(store.bundle).parent().and_then(Path::to_str).unwrap_or("/"), saved }
    }

    /// Puts back as much as can be; the first path that could not be, and why.
    pub(crate) fn put_back(&self, root: &HostRoot, extent: Extent) -> Result<(), (&str, io::Error)> {
        let mut result = Ok(());
        for (path, output) in &self.saved {
            let put = match output {
                Output::File(bytes, mode) => match root.read(path, MAX_BUNDLE_BYTES) {
                    Ok(now) if extent == Extent::Missing || now == *bytes => continue,
                    _ => root.write_atomic(path, self.temp_dir, RESTORE, *mode, bytes),
                },
                Output::Link(target) => match root.link_target(path) {
                    Some(now) if extent == Extent::Missing || now == *target => continue,
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
