//! Reading the sources: mounted volumes, directories, files, inline text.
//!
//! These lie in our own view (the pod's mounts), not in the host root. The kubelet's volumes are read through one opened
//! `..data` directory, so that a snapshot is of one generation even while the link is being swapped (facts D). What a file
//! holds is decoded once and kept while its bytes stay the same.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, open, openat, readlinkat},
    sys::stat::Mode,
};
use nodetrust_core::{
    fingerprint::content_digest,
    pem::MAX_FILE_BYTES,
    source::{Content, Part, Snapshot},
};

use crate::{
    config::{From, Settings, Source},
    host::root::{Kind, is_missing, kind_of, list_directory, read_regular},
    mounts,
};

/// Files that are read in one directory.
const MAX_FILES: usize = 10_000;
/// How often a volume is read anew because it was swapped meanwhile.
const MAX_SWAPS: usize = 100;

/// Reads sources, and remembers what their files held.
#[derive(Debug, Default)]
pub struct SourceReader {
    /// by path and digest of the content
    parts: HashMap<(PathBuf, [u8; 32]), Arc<Part>>,
}

impl SourceReader {
    /// Reads every source of a configuration.
    pub fn read(&mut self, settings: &Settings) -> Vec<Snapshot> {
        let before = std::mem::take(&mut self.parts);
        let mounts = mounts::Mounts::read();
        settings.sources.iter().map(|source| self.read_one(source, &before, &mounts)).collect()
    }

    fn read_one(
        &mut self,
        source: &Source,
        before: &HashMap<(PathBuf, [u8; 32]), Arc<Part>>,
        mounts: &mounts::Mounts,
    ) -> Snapshot {
        let (origin, content, notes) = match &source.from {
            From::Inline(text) => {
                let part = self.part(Path::new("inline"), text.as_bytes(), before);
                let empty = part.anchors.is_empty() && part.faults.is_empty();
                ("inline".to_owned(), Content::Files(if empty { Vec::new() } else { vec![part] }), Vec::new())
            }
            From::Path(path) => {
                let content = match self.read_path(path, before) {
                    Ok(parts) => Content::Files(parts),
                    Err(error) if is_missing(&error) => Content::Missing,
                    Err(error) => Content::Unreadable(error.to_string()),
                };
                (path.display().to_string(), content, mounts.notes(path))
            }
        };
        Snapshot { name: source.name.clone(), origin, optional: source.optional, content, notes }
    }

    fn read_path(
        &mut self,
        path: &Path,
        before: &HashMap<(PathBuf, [u8; 32]), Arc<Part>>,
    ) -> io::Result<Vec<Arc<Part>>> {
        let fd = open(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC, Mode::empty())?;
        if kind_of(&fd)? != Kind::Directory {
            let mut parts = Vec::new();
            self.add(path, fd, before, &mut parts)?;
            return Ok(parts);
        }
        // One generation of a kubelet volume; a plain directory has no such link. The old generation is removed after the swap, so
        // what was read while the link changed may be a part only.
        for _ in 0..MAX_SWAPS {
            let generation = readlinkat(&fd, "..data").ok();
            let data = openat(&fd, "..data", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty());
            let read = match data {
                Ok(dir) => self.read_directory(path, dir, before),
                Err(Errno::ENOENT | Errno::ENOTDIR) => self.read_directory(path, fd.try_clone()?, before),
                Err(error) => Err(error.into()),
            };
            if readlinkat(&fd, "..data").ok() == generation {
                return read;
            }
        }
        Err(io::Error::other("it changes faster than it can be read"))
    }

    fn read_directory(
        &mut self,
        path: &Path,
        dir: OwnedFd,
        before: &HashMap<(PathBuf, [u8; 32]), Arc<Part>>,
    ) -> io::Result<Vec<Arc<Part>>> {
        let mut parts = Vec::new();
        let names = list_directory(dir.as_fd().try_clone_to_owned()?)?;
        if names.len() > MAX_FILES {
            return Err(io::Error::other(format!("{} files are more than the limit of {MAX_FILES}", names.len())));
        }
        for (name, _) in names.iter().filter(|(name, _)| !name.starts_with('.')) {
            let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
            // a link to elsewhere is followed, as every reader of such a directory does
            let file = match openat(&dir, name.as_str(), flags, Mode::empty()) {
                Ok(file) => file,
                Err(Errno::ENOENT | Errno::ENXIO) => continue, // gone again, a dangling link, or a socket
                Err(error) => return Err(io::Error::other(format!("{name}: {error}"))),
            };
            if kind_of(&file)? == Kind::File {
                self.add(&path.join(name), file, before, &mut parts)?;
            }
        }
        Ok(parts)
    }

    fn add(
        &mut self,
        path: &Path,
        file: OwnedFd,
        before: &HashMap<(PathBuf, [u8; 32]), Arc<Part>>,
        parts: &mut Vec<Arc<Part>>,
    ) -> io::Result<()> {
        // one byte more than the limit: the scanner then says `too-large`
        let bytes = match read_regular(file, MAX_FILE_BYTES as u64) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                parts.push(Arc::new(Part::too_large(&path.display().to_string())));
                return Ok(());
            }
            Err(error) => return Err(io::Error::other(format!("{}: {error}", path.display()))),
        };
        let part = self.part(path, &bytes, before);
        if !(part.anchors.is_empty() && part.faults.is_empty()) {
            parts.push(part);
        }
        Ok(())
    }

    fn part(&mut self, path: &Path, bytes: &[u8], before: &HashMap<(PathBuf, [u8; 32]), Arc<Part>>) -> Arc<Part> {
        let key = (path.to_owned(), content_digest(bytes));
        let part = match before.get(&key) {
            Some(part) => part.clone(),
            None => Arc::new(Part::parse(&path.display().to_string(), bytes)),
        };
        self.parts.insert(key, part.clone());
        part
    }
}

/// What each source says, in a form that compares.
pub type Said = BTreeMap<String, Vec<String>>;

/// What a set of snapshots says, for telling whether a source is still changing. Order of files does not matter.
pub fn state_of(snapshots: &[Snapshot]) -> Said {
    snapshots
        .iter()
        .map(|snapshot| {
            let mut said = match &snapshot.content {
                Content::Missing => vec!["missing".to_owned()],
                Content::Unreadable(why) => vec![why.clone()],
                Content::Files(parts) => parts
                    .iter()
                    .flat_map(|part| {
                        let anchors = part.anchors.iter().map(|(_, anchor)| anchor.fingerprint.to_string());
                        anchors.chain(
                            part.faults.iter().map(|fault| format!("{}:{} {}", part.file, fault.line, fault.detail)),
                        )
                    })
                    .collect(),
            };
            said.sort();
            said.dedup();
            (snapshot.name.clone(), said)
        })
        .collect()
}
