//! Files by their open handles: what they are, and reading regular ones to their end under a limit.

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, Read},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::Path,
};

use nix::{
    dir::Dir,
    errno::Errno,
    fcntl::{AtFlags, OFlag},
    sys::stat::{FileStat, Mode, SFlag, fstat, fstatat},
};

/// What a name in a directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// Anything else.
    Other,
}

/// What the host says about a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileMeta {
    /// What it is.
    pub kind: FileKind,
    /// Permission bits.
    pub mode: u32,
    /// Owner and group.
    pub owner: (u32, u32),
    /// Names that it has.
    pub links: u64,
    /// Bytes.
    pub size: u64,
    /// Time of last modification, seconds since the epoch.
    pub modified: i64,
    /// When its inode last changed, milliseconds since the epoch. No system call can set this time.
    pub changed: i64,
    /// Device and inode number.
    pub id: (u64, u64),
}

impl FileMeta {
    pub(super) fn new(stat: &FileStat) -> Self {
        let kind = match SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) {
            SFlag::S_IFREG => FileKind::File,
            SFlag::S_IFDIR => FileKind::Directory,
            SFlag::S_IFLNK => FileKind::Link,
            _ => FileKind::Other,
        };
        Self {
            kind,
            mode: stat.st_mode & 0o7777,
            owner: (stat.st_uid, stat.st_gid),
            links: stat.st_nlink,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            modified: stat.st_mtime,
            changed: stat.st_ctime.saturating_mul(1000).saturating_add(stat.st_ctime_nsec / 1_000_000),
            id: (stat.st_dev, stat.st_ino),
        }
    }
}

/// Whether an error says that a path does not exist.
pub fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// What an open file is.
///
/// # Errors
/// As `fstat(2)`.
pub fn kind_of(fd: &OwnedFd) -> io::Result<FileKind> {
    Ok(FileMeta::new(&fstat(fd)?).kind)
}

/// Opens for reading what a handle without rights (`O_PATH`) has found, and nothing else: to open a device can do something.
///
/// # Errors
/// As `open(2)`.
pub fn reopen(found: &OwnedFd, flags: OFlag) -> io::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", found.as_raw_fd());
    Ok(nix::fcntl::open(path.as_str(), flags | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC, Mode::empty())?)
}

/// Reads a regular file in our own view to its end. Nothing but a regular file is opened.
///
/// # Errors
/// As `open(2)` and [`read_regular`].
pub fn read_file(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let found = nix::fcntl::open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
    if kind_of(&found)? != FileKind::File {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not a regular file"));
    }
    read_regular(reopen(&found, OFlag::O_RDONLY)?, limit)
}

/// Reads a regular file to its end.
///
/// # Errors
/// As `read(2)`; `InvalidData` if it is no regular file or has more than `limit` bytes.
pub fn read_regular(fd: OwnedFd, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    read_into(fd, limit, &mut bytes)?;
    Ok(bytes)
}

/// The same into a buffer that is there already; says what the file is.
pub(super) fn read_into(fd: OwnedFd, limit: u64, bytes: &mut Vec<u8>) -> io::Result<FileMeta> {
    let meta = FileMeta::new(&fstat(&fd)?);
    let invalid = |text: String| io::Error::new(io::ErrorKind::InvalidData, text);
    if meta.kind != FileKind::File {
        return Err(invalid("not a regular file".into()));
    }
    let too_large = || invalid(format!("larger than {limit} bytes"));
    if meta.size > limit {
        return Err(too_large());
    }
    bytes.clear();
    bytes.reserve(usize::try_from(meta.size).unwrap_or(0) + 1);
    let mut file = File::from(fd).take(meta.size);
    file.read_to_end(bytes)?;
    // nobody needs to ask for the end of a file of which everything was read; one in /proc has no size
    if meta.size == 0 || bytes.len() as u64 != meta.size {
        file.set_limit(limit + 1 - bytes.len() as u64);
        file.read_to_end(bytes)?;
    }
    if bytes.len() as u64 > limit {
        return Err(too_large());
    }
    Ok(meta)
}

/// The names in an open directory with what they are, sorted.
///
/// # Errors
/// As `readdir(3)`.
pub fn list_directory(fd: OwnedFd) -> io::Result<Vec<(String, FileMeta)>> {
    let mut dir = Dir::from_fd(fd)?;
    let mut names = Vec::new();
    for entry in dir.iter() {
        let name = entry?.file_name().to_owned();
        if !matches!(name.to_bytes(), b"." | b"..") {
            names.push(name);
        }
    }
    let mut entries = Vec::with_capacity(names.len());
    for name in names {
        match fstatat(dir.as_fd(), name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
            // a name that is no UTF-8 is nobody's anchor; its escaped form is only shown
            Ok(stat) => entries.push((name.to_string_lossy().into_owned(), FileMeta::new(&stat))),
            Err(Errno::ENOENT) => {} // gone between the two looks
            Err(error) => return Err(error.into()),
        }
    }
    entries.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(entries)
}

/// What a name in a directory is, a link not followed.
pub(super) fn look_at(dir: &OwnedFd, name: &OsStr) -> io::Result<Option<FileMeta>> {
    match fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(FileMeta::new(&stat))),
        Err(Errno::ENOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
