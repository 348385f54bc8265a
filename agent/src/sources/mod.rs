//! Reading the sources: mounted volumes, directories, files, inline text.
//!
//! They lie in the agent's own view (the pod's mounts), not in the host root. A volume of the kubelet is read through one opened
//! `..data` directory, so that a snapshot is of one generation even while the link is swapped (facts D). A file is decoded once and
//! kept while its bytes stay the same.

pub mod subpath;

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
    certificate::{
        fingerprint::{Fingerprint, content_digest},
        name::{sentence, shown},
        pem::{MAX_CERTIFICATES, MAX_FILE_BYTES, RejectReason},
    },
    source::{Content, KubeletVolume, Snapshot, SourceFile, SourceLayout},
};

use crate::{
    config::{Settings, Source, SourceLocation},
    host::file::{FileKind, is_missing, kind_of, read_regular, reopen},
};

/// Files that are read in one directory.
const MAX_FILES: usize = 10_000;
/// Bytes that are read of one source: 10,000 certificates in PEM are about 20 MB.
const MAX_SOURCE_BYTES: usize = 64 << 20;
/// The folder of a file system's own that lies in its root.
const LOST_AND_FOUND: &str = "lost+found";
/// How often a volume is read anew because it was swapped meanwhile.
const MAX_SWAPS: usize = 100;

/// Reads sources, and remembers what their files held.
#[derive(Debug, Default)]
pub struct SourceReader {
    /// by path and digest of the content
    parts: ParsedFiles,
}

impl SourceReader {
    /// Reads every source of a configuration.
    pub fn read(&mut self, settings: &Settings) -> Vec<Snapshot> {
        let before = std::mem::take(&mut self.parts);
        let mounts = subpath::Mounts::read();
        settings.sources.iter().map(|source| self.read_one(source, &before, &mounts)).collect()
    }

    fn read_one(&mut self, source: &Source, before: &ParsedFiles, mounts: &subpath::Mounts) -> Snapshot {
        let layout = SourceLayout::default();
        let mut reading =
            Reading { now: &mut self.parts, before, parts: Vec::new(), bytes: 0, certificates: 0, layout };
        let (origin, read, notes) = match &source.from {
            SourceLocation::Inline(text) => {
                let read = reading.take(Path::new("inline"), text.as_bytes());
                ("inline".to_owned(), read, Vec::new())
            }
            SourceLocation::Path(path) => {
                let read = reading.path(path);
                if let Some(volume) = &mut reading.layout.volume {
                    *volume = mounts.volume(path);
                }
                (shown(&path.display().to_string()), read, mounts.notes(path))
            }
        };
        let (content, layout) = reading.end(read);
        Snapshot { name: source.name.clone(), origin, optional: source.optional, content, layout, notes }
    }
}

/// Parsed files, by path and digest of the content.
type ParsedFiles = HashMap<(PathBuf, [u8; 32]), Arc<SourceFile>>;

/// One source while it is being read.
struct Reading<'a> {
    now: &'a mut ParsedFiles,
    before: &'a ParsedFiles,
    /// what was found so far, and how much that is
    parts: Vec<Arc<SourceFile>>,
    bytes: usize,
    certificates: usize,
    layout: SourceLayout,
}

/// Why a source is not read to its end.
enum Stop {
    Failed(io::Error),
    Excess(RejectReason, String),
}

impl<E: Into<io::Error>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

impl Reading<'_> {
    fn end(self, read: Result<(), Stop>) -> (Content, SourceLayout) {
        let content = match read {
            Ok(()) => Content::Files(self.parts),
            Err(Stop::Failed(error)) if is_missing(&error) => Content::Missing,
            Err(Stop::Failed(error)) => Content::Unreadable(sentence(&error.to_string())),
            Err(Stop::Excess(reason, detail)) => Content::Excess(reason, detail),
        };
        (content, self.layout)
    }

    fn path(&mut self, path: &Path) -> Result<(), Stop> {
        let fd = match at(path)? {
            SourceEntry::Directory(fd) => fd,
            SourceEntry::File(file) => return self.file(path, file),
        };
        // One generation of a kubelet volume; a plain directory has no such link. The old generation is removed after the swap, so
        // what was read while the link changed may be a part only.
        for _ in 0..MAX_SWAPS {
            (self.parts, self.bytes, self.certificates) = (Vec::new(), 0, 0);
            self.layout = SourceLayout::default();
            let generation = readlinkat(&fd, "..data").ok();
            let read = generation_in(&fd).and_then(|(dir, volume)| {
                self.layout.volume = volume;
                self.directory(path, &dir)
            });
            if readlinkat(&fd, "..data").ok() == generation {
                return read;
            }
        }
        Err(io::Error::other("it changes faster than it can be read").into())
    }

    fn directory(&mut self, path: &Path, dir: &OwnedFd) -> Result<(), Stop> {
        for name in names(dir.try_clone()?)? {
            match entry(dir, &name)? {
                Some(SourceEntry::Directory(_)) if name != LOST_AND_FOUND => {
                    self.layout.folders.push(&name.to_string_lossy());
                }
                Some(SourceEntry::File(file)) => self.file(&path.join(name), file)?,
                Some(SourceEntry::Directory(_)) | None => {}
            }
        }
        Ok(())
    }

    fn file(&mut self, path: &Path, file: OwnedFd) -> Result<(), Stop> {
        match read_regular(file, MAX_FILE_BYTES as u64) {
            Ok(bytes) => {
                self.layout.files += 1;
                if bytes.is_empty() {
                    self.layout.blank.push(&path.file_name().unwrap_or_default().to_string_lossy());
                }
                self.take(path, &bytes)
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                self.layout.files += 1;
                self.parts.push(Arc::new(SourceFile::too_large(&path.display().to_string())));
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
            None => Arc::new(SourceFile::parse(&path.display().to_string(), bytes)),
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
            return Err(Stop::Excess(RejectReason::TooLarge, detail));
        }
        if self.certificates > MAX_CERTIFICATES {
            let detail = format!("more than the limit of {MAX_CERTIFICATES} certificates");
            return Err(Stop::Excess(RejectReason::TooMany, detail));
        }
        Ok(())
    }
}

/// What a source may be, or have in its directory.
enum SourceEntry {
    File(OwnedFd),
    Directory(OwnedFd),
}

/// What lies at a source's path.
fn at(path: &Path) -> Result<SourceEntry, Stop> {
    let found = open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
    match kind_of(&found)? {
        FileKind::Directory => Ok(SourceEntry::Directory(reopen(&found, OFlag::O_RDONLY)?)),
        FileKind::File => Ok(SourceEntry::File(reopen(&found, OFlag::O_RDONLY)?)),
        FileKind::Link | FileKind::Other => Err(io::Error::other("neither a file nor a directory").into()),
    }
}

/// The directory that holds the files: the present generation of a kubelet volume, or the directory itself.
fn generation_in(dir: &OwnedFd) -> Result<(OwnedFd, Option<KubeletVolume>), Stop> {
    match openat(dir, "..data", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty()) {
        Ok(data) => Ok((data, Some(KubeletVolume::Unknown))),
        Err(Errno::ENOENT | Errno::ENOTDIR) => Ok((dir.try_clone()?, None)),
        Err(error) => Err(error.into()),
    }
}

/// A file or folder in a source's directory; None for what is neither, or gone.
fn entry(dir: &OwnedFd, name: &OsStr) -> Result<Option<SourceEntry>, Stop> {
    // a link to elsewhere is followed, as every reader of such a directory does
    let found = match openat(dir, name, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()) {
        Ok(found) => found,
        Err(Errno::ENOENT) => return Ok(None), // gone again, or a dangling link
        Err(error) => return Err(io::Error::other(format!("{}: {error}", name.display())).into()),
    };
    match kind_of(&found)? {
        FileKind::Directory => Ok(Some(SourceEntry::Directory(found))),
        FileKind::File => {
            let file = reopen(&found, OFlag::O_RDONLY);
            let file = file.map_err(|error| io::Error::other(format!("{}: {error}", name.display())))?;
            Ok(Some(SourceEntry::File(file)))
        }
        FileKind::Link | FileKind::Other => Ok(None),
    }
}

/// The files in a directory that a source at this path would read, by path, and how they lie there. None if it is no directory.
///
/// # Errors
/// If something there cannot be looked at, or there are more files than are read of a source.
pub fn files_in(path: &Path) -> io::Result<Option<(Vec<PathBuf>, SourceLayout)>> {
    let listed = || {
        let SourceEntry::Directory(dir) = at(path)? else { return Ok(None) };
        let (dir, volume) = generation_in(&dir)?;
        let (mut files, mut layout) = (Vec::new(), SourceLayout { volume, ..SourceLayout::default() });
        for name in names(dir.try_clone()?)? {
            match entry(&dir, &name)? {
                Some(SourceEntry::Directory(_)) if name != LOST_AND_FOUND => {
                    layout.folders.push(&name.to_string_lossy())
                }
                Some(SourceEntry::File(_)) => files.push(path.join(name)),
                Some(SourceEntry::Directory(_)) | None => {}
            }
        }
        layout.volume = volume.map(|_| subpath::Mounts::read().volume(path));
        layout.files = files.len();
        Ok(Some((files, layout)))
    };
    listed().map_err(|stop| match stop {
        Stop::Failed(error) => error,
        Stop::Excess(_, detail) => io::Error::other(detail),
    })
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
            return Err(Stop::Excess(RejectReason::TooMany, format!("more than the limit of {MAX_FILES} files")));
        }
    }
    Ok(names)
}

/// What each source says, in a form that compares: its certificates, and what else there is to tell.
pub type SourceDigest = BTreeMap<String, (BTreeSet<Fingerprint>, BTreeSet<String>)>;

/// What a set of snapshots says, for telling whether a source is still changing. Order of files does not matter.
pub fn state_of(snapshots: &[Snapshot]) -> SourceDigest {
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
