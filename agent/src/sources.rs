//! Reading the sources: mounted volumes, directories, files, inline text.
//!
//! These lie in our own view (the pod's mounts), not in the host root. The kubelet's volumes are read through one opened
//! `..data` directory, so that a snapshot is of one generation even while the link is being swapped (facts D). What a file
//! holds is decoded once and kept while its bytes stay the same.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ffi::{OsStr, OsString},
    io,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use nix::{
    dir::Dir,
    errno::Errno,
    fcntl::{OFlag, open, openat, readlinkat},
    sys::stat::Mode,
};
use nodetrust_core::{
    fingerprint::{Fingerprint, content_digest},
    name::{sentence, shown},
    pem::{MAX_CERTIFICATES, MAX_FILE_BYTES, Reason},
    source::{Content, Part, Snapshot},
};

use crate::{
    config::{From, Settings, Source},
    host::root::{Kind, is_missing, kind_of, read_regular, reopen},
    mounts,
};

/// Files that are read in one directory.
const MAX_FILES: usize = 10_000;
/// Bytes that are read of one source: 10,000 certificates in PEM are about 20 MB.
const MAX_SOURCE_BYTES: usize = 64 << 20;
/// How often a volume is read anew because it was swapped meanwhile.
const MAX_SWAPS: usize = 100;

/// Reads sources, and remembers what their files held.
#[derive(Debug, Default)]
pub struct SourceReader {
    /// by path and digest of the content
    parts: Parts,
}

impl SourceReader {
    /// Reads every source of a configuration.
    pub fn read(&mut self, settings: &Settings) -> Vec<Snapshot> {
        let before = std::mem::take(&mut self.parts);
        let mounts = mounts::Mounts::read();
        settings.sources.iter().map(|source| self.read_one(source, &before, &mounts)).collect()
    }

    fn read_one(&mut self, source: &Source, before: &Parts, mounts: &mounts::Mounts) -> Snapshot {
        let mut reading = Reading { now: &mut self.parts, before, parts: Vec::new(), bytes: 0, certificates: 0 };
        let (origin, content, notes) = match &source.from {
            From::Inline(text) => {
                let read = reading.take(Path::new("inline"), text.as_bytes());
                ("inline".to_owned(), reading.content(read), Vec::new())
            }
            From::Path(path) => {
                let read = reading.path(path);
                (shown(&path.display().to_string()), reading.content(read), mounts.notes(path))
            }
        };
        Snapshot { name: source.name.clone(), origin, optional: source.optional, content, notes }
    }
}

/// Files and what they held.
type Parts = HashMap<(PathBuf, [u8; 32]), Arc<Part>>;

/// One source while it is being read.
struct Reading<'a> {
    now: &'a mut Parts,
    before: &'a Parts,
    /// what was found so far, and how much that is
    parts: Vec<Arc<Part>>,
    bytes: usize,
    certificates: usize,
}

/// Why a source is not read to its end.
enum Stop {
    Failed(io::Error),
    Excess(Reason, String),
}

impl<E: Into<io::Error>> std::convert::From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

impl Reading<'_> {
    fn content(self, read: Result<(), Stop>) -> Content {
        match read {
            Ok(()) => Content::Files(self.parts),
            Err(Stop::Failed(error)) if is_missing(&error) => Content::Missing,
            Err(Stop::Failed(error)) => Content::Unreadable(sentence(&error.to_string())),
            Err(Stop::Excess(reason, detail)) => Content::Excess(reason, detail),
        }
    }

    fn path(&mut self, path: &Path) -> Result<(), Stop> {
        let found = open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
        let fd = match kind_of(&found)? {
            Kind::Directory => reopen(&found, OFlag::O_RDONLY)?,
            Kind::File => return self.file(path, reopen(&found, OFlag::O_RDONLY)?),
            Kind::Link | Kind::Other => return Err(io::Error::other("neither a file nor a directory").into()),
        };
        // One generation of a kubelet volume; a plain directory has no such link. The old generation is removed after the swap, so
        // what was read while the link changed may be a part only.
        for _ in 0..MAX_SWAPS {
            (self.parts, self.bytes, self.certificates) = (Vec::new(), 0, 0);
            let generation = readlinkat(&fd, "..data").ok();
            let data = openat(&fd, "..data", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty());
            let read = match data {
                Ok(dir) => self.directory(path, dir),
                Err(Errno::ENOENT | Errno::ENOTDIR) => self.directory(path, fd.try_clone()?),
                Err(error) => Err(error.into()),
            };
            if readlinkat(&fd, "..data").ok() == generation {
                return read;
            }
        }
        Err(io::Error::other("it changes faster than it can be read").into())
    }

    fn directory(&mut self, path: &Path, dir: OwnedFd) -> Result<(), Stop> {
        for name in names(dir.try_clone()?)? {
            // a link to elsewhere is followed, as every reader of such a directory does
            let found = match openat(&dir, name.as_os_str(), OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()) {
                Ok(found) => found,
                Err(Errno::ENOENT) => continue, // gone again, or a dangling link
                Err(error) => return Err(io::Error::other(format!("{}: {error}", name.display())).into()),
            };
            if kind_of(&found)? == Kind::File {
                let file = reopen(&found, OFlag::O_RDONLY);
                let file = file.map_err(|error| io::Error::other(format!("{}: {error}", name.display())))?;
                self.file(&path.join(name), file)?;
            }
        }
        Ok(())
    }

    fn file(&mut self, path: &Path, file: OwnedFd) -> Result<(), Stop> {
        match read_regular(file, MAX_FILE_BYTES as u64) {
            Ok(bytes) => self.take(path, &bytes),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                self.parts.push(Arc::new(Part::too_large(&path.display().to_string())));
                self.count(MAX_FILE_BYTES, 0) // it was read that far
            }
            Err(error) => Err(io::Error::other(format!("{}: {error}", path.display())).into()),
        }
    }

    fn take(&mut self, path: &Path, bytes: &[u8]) -> Result<(), Stop> {
        self.count(bytes.len(), 0)?;
        let key = (path.to_owned(), content_digest(bytes));
        let part = match self.before.get(&key) {
            Some(part) => part.clone(),
            None => Arc::new(Part::parse(&path.display().to_string(), bytes)),
        };
        self.now.insert(key, part.clone());
        let certificates = part.anchors.len();
        if !(part.anchors.is_empty() && part.faults.is_empty()) {
            self.parts.push(part);
        }
        self.count(0, certificates)
    }

    /// Adds to what was read; a source that exceeds a limit is read no further.
    fn count(&mut self, bytes: usize, certificates: usize) -> Result<(), Stop> {
        self.bytes += bytes;
        self.certificates += certificates;
        if self.bytes > MAX_SOURCE_BYTES {
            let detail = format!("more than the limit of {MAX_SOURCE_BYTES} bytes in all its files");
            return Err(Stop::Excess(Reason::TooLarge, detail));
        }
        if self.certificates > MAX_CERTIFICATES {
            let detail = format!("more than the limit of {MAX_CERTIFICATES} certificates");
            return Err(Stop::Excess(Reason::TooMany, detail));
        }
        Ok(())
    }
}

/// The names in a directory that do not begin with a dot, sorted. A name need not be UTF-8.
fn names(dir: OwnedFd) -> Result<BTreeSet<OsString>, Stop> {
    let mut names = BTreeSet::new();
    for entry in Dir::from_fd(dir)?.iter() {
        let name = OsStr::from_bytes(entry?.file_name().to_bytes()).to_owned();
        if name.as_bytes().starts_with(b".") {
            continue;
        }
        names.insert(name);
        if names.len() > MAX_FILES {
            return Err(Stop::Excess(Reason::TooMany, format!("more than the limit of {MAX_FILES} files")));
        }
    }
    Ok(names)
}

/// What each source says, in a form that compares: its certificates, and what else there is to tell.
pub type Said = BTreeMap<String, (BTreeSet<Fingerprint>, BTreeSet<String>)>;

/// What a set of snapshots says, for telling whether a source is still changing. Order of files does not matter.
pub fn state_of(snapshots: &[Snapshot]) -> Said {
    snapshots
        .iter()
        .map(|snapshot| {
            let said = match &snapshot.content {
                Content::Missing => (BTreeSet::new(), ["missing".to_owned()].into()),
                Content::Unreadable(why) => (BTreeSet::new(), [why.clone()].into()),
                Content::Excess(reason, detail) => (BTreeSet::new(), [format!("{reason}: {detail}")].into()),
                Content::Files(parts) => {
                    let anchors = parts.iter().flat_map(|part| &part.anchors);
                    let faults = parts.iter().flat_map(|part| {
                        part.faults.iter().map(|fault| format!("{}:{} {}", part.file, fault.line, fault.detail))
                    });
                    (anchors.map(|(_, anchor)| anchor.fingerprint).collect(), faults.collect())
                }
            };
            (snapshot.name.clone(), said)
        })
        .collect()
}
