//! The host's file system, seen through one directory handle.
//!
//! Every path is resolved inside the host root, also where a link on the host is absolute: `/etc/ssl/certs` that points to
//! `/etc/pki/tls/certs` is the host's, not the container's. `openat2(2)` does that in the kernel; where it is missing (before
//! Linux 5.6, e.g. EL 8) the same walk is done here. Everything that changes the host's files is in this module.

use std::{
    collections::VecDeque,
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Read, Write},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Component, Path, PathBuf},
};

use nix::{
    dir::Dir,
    errno::Errno,
    fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2, readlinkat, renameat},
    sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, fstatat, mkdirat},
    unistd::{Gid, Uid, UnlinkatFlags, fchown, symlinkat, unlinkat},
};

use super::directory::HostDirectory;

/// Links that are followed on one path before it counts as a loop, as in the kernel.
const MAX_LINKS: usize = 40;

/// Levels of a tree that is removed.
const MAX_DEPTH: usize = 16;

/// A handle on the host's `/`.
#[derive(Debug)]
pub struct HostRoot {
    dir: OwnedFd,
    path: PathBuf,
    kernel_resolves: bool,
}

/// What a name in a directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
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
pub struct Meta {
    /// What it is.
    pub kind: Kind,
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
    /// When its inode last changed, milliseconds since the epoch; unlike the other, nobody can set it.
    pub changed: i64,
    /// Device, inode, and nanoseconds of `changed`: whoever writes the file, replaces it or sets its times leaves another one.
    pub stamp: (u64, u64, i64),
}

impl HostRoot {
    /// Opens a host root.
    ///
    /// # Errors
    /// If the path is no directory that can be opened.
    pub fn open(path: &Path) -> io::Result<Self> {
        let dir = nix::fcntl::open(path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
        let mut root = Self { dir, path: path.to_owned(), kernel_resolves: true };
        // ENOSYS: an old kernel; EPERM: an old container runtime's seccomp filter
        if let Err(Errno::ENOSYS | Errno::EPERM) = root.open_in_kernel(Path::new("."), OFlag::O_PATH | OFlag::O_CLOEXEC)
        {
            root.kernel_resolves = false;
        }
        Ok(root)
    }

    /// The same root, with paths resolved here instead of in the kernel.
    pub fn without_openat2(mut self) -> Self {
        self.kernel_resolves = false;
        self
    }

    /// Where the root lies in our own view.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads a whole regular file.
    ///
    /// # Errors
    /// As `open(2)` and `read(2)`; `InvalidData` if it is no regular file or has more than `limit` bytes.
    pub fn read(&self, path: impl AsRef<Path>, limit: u64) -> io::Result<Vec<u8>> {
        // O_NONBLOCK: a FIFO must not keep us waiting
        let fd = self.resolve(path.as_ref(), OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC)?;
        read_regular(fd, limit)
    }

    /// What a path is, links followed; None if it does not exist.
    ///
    /// # Errors
    /// As `stat(2)`, except that something on the path is missing.
    pub fn stat(&self, path: impl AsRef<Path>) -> io::Result<Option<Meta>> {
        match self.resolve(path.as_ref(), OFlag::O_PATH | OFlag::O_CLOEXEC) {
            Ok(fd) => Ok(Some(Meta::new(&fstat(&fd)?))),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The names in a directory with what they are, links not followed, sorted; None if it does not exist.
    ///
    /// # Errors
    /// As `open(2)` and `readdir(3)`.
    pub fn list(&self, path: impl AsRef<Path>) -> io::Result<Option<Vec<(String, Meta)>>> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        match self.resolve(path.as_ref(), flags) {
            Ok(fd) => list_directory(fd).map(Some),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Opens a directory for reading; None if it does not exist.
    ///
    /// # Errors
    /// As `open(2)`.
    pub fn directory(&self, path: impl AsRef<Path>) -> io::Result<Option<HostDirectory>> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        match self.resolve(path.as_ref(), flags) {
            Ok(fd) => Ok(Some(HostDirectory::new(fd))),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The names in a directory with what they are, links not followed, sorted; none if it does not exist.
    ///
    /// # Errors
    /// As `open(2)` and `readdir(3)`.
    pub fn names(&self, path: impl AsRef<Path>) -> io::Result<Vec<(String, Kind)>> {
        self.directory(path)?.map_or(Ok(Vec::new()), |dir| dir.names())
    }

    /// The target of a link; None if the path is no link or does not exist.
    pub fn link_target(&self, path: impl AsRef<Path>) -> Option<OsString> {
        let (parent, name) = self.parent(path.as_ref()).ok()?;
        readlinkat(&parent, name.as_os_str()).ok()
    }

    /// Where a path of the host really lies in our own view, links resolved. For watching only: it may change.
    ///
    /// # Errors
    /// If the path does not exist.
    pub fn location(&self, path: impl AsRef<Path>) -> io::Result<PathBuf> {
        let fd = self.resolve(path.as_ref(), OFlag::O_PATH | OFlag::O_CLOEXEC)?;
        std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))
    }

    /// A handle on whatever a path leads to, links followed, which opens nothing: a socket can be reached through it.
    ///
    /// # Errors
    /// If the path does not exist.
    pub fn handle(&self, path: impl AsRef<Path>) -> io::Result<OwnedFd> {
        self.resolve(path.as_ref(), OFlag::O_PATH | OFlag::O_CLOEXEC)
    }

    /// Opens a file for the lock, making it if needed.
    ///
    /// # Errors
    /// As `open(2)`.
    pub fn open_lock(&self, path: impl AsRef<Path>) -> io::Result<File> {
        let (parent, name) = self.parent(path.as_ref())?;
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        Ok(openat(&parent, name.as_os_str(), flags, Mode::from_bits_truncate(0o600))?.into())
    }

    /// Whether a path still is this open file.
    pub fn is_same_file(&self, path: impl AsRef<Path>, file: &File) -> bool {
        let there = self.resolve(path.as_ref(), OFlag::O_PATH | OFlag::O_CLOEXEC).ok().and_then(|fd| fstat(&fd).ok());
        let here = fstat(file).ok();
        there.zip(here).is_some_and(|(there, here)| (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino))
    }

    /// Opens a file that exists, for reading.
    ///
    /// # Errors
    /// As `open(2)`.
    pub fn open_existing(&self, path: impl AsRef<Path>) -> io::Result<File> {
        Ok(self.resolve(path.as_ref(), OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC)?.into())
    }

    /// Makes a directory and what is missing above it, mode 0755 whatever the umask.
    ///
    /// # Errors
    /// As `mkdir(2)`.
    pub fn create_dir_all(&self, path: impl AsRef<Path>) -> io::Result<()> {
        let path = path.as_ref();
        if self.stat(path)?.is_some_and(|meta| meta.kind == Kind::Directory) {
            return Ok(());
        }
        if let Some(above) = path.parent() {
            self.create_dir_all(above)?;
        }
        let (parent, name) = self.parent(path)?;
        match mkdirat(&parent, name.as_os_str(), Mode::from_bits_truncate(0o755)) {
            Ok(()) => {}
            Err(Errno::EEXIST) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        let made =
            openat(&parent, name.as_os_str(), OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
        fchmod(&made, Mode::from_bits_truncate(0o755))?;
        sync(parent)
    }

    /// Puts a file in place at once or not at all: a temporary file in `temp_dir`, synchronised, then renamed. Readers see the
    /// old bytes or the new ones; what had the name (a file, a link) is replaced, not followed.
    ///
    /// # Errors
    /// As `open(2)`, `write(2)`, `rename(2)`; the temporary file is gone then. `EXDEV` if `temp_dir` is on another file system.
    pub fn write_atomic(
        &self,
        path: impl AsRef<Path>,
        temp_dir: impl AsRef<Path>,
        temp_name: &str,
        mode: u32,
        bytes: &[u8],
    ) -> io::Result<()> {
        let (parent, name) = self.parent(path.as_ref())?;
        let temp_dir = self.resolve(temp_dir.as_ref(), OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)?;
        remove_entry(&temp_dir, OsStr::new(temp_name), UnlinkatFlags::NoRemoveDir)?;
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mut file = File::from(openat(&temp_dir, temp_name, flags, Mode::from_bits_truncate(0o600))?);
        let written = (|| {
            file.write_all(bytes)?;
            fchown(&file, Some(Uid::from_raw(0)), Some(Gid::from_raw(0))).or_else(|error| {
                // only root can give a file to root; anyone else has made it as himself, which is what tests do
                if nix::unistd::geteuid().is_root() { Err(error) } else { Ok(()) }
            })?;
            fchmod(&file, Mode::from_bits_truncate(mode))?;
            file.sync_all()?;
            renameat(&temp_dir, temp_name, &parent, name.as_os_str())?;
            Ok(())
        })();
        if written.is_err() {
            // the first error is the one to tell
            let _ = remove_entry(&temp_dir, OsStr::new(temp_name), UnlinkatFlags::NoRemoveDir);
            return written;
        }
        sync(parent)
    }

    /// Puts a link in place, by way of a temporary one in `temp_dir` if the name is taken; what had it is replaced, not followed.
    ///
    /// # Errors
    /// As `symlink(2)` and `rename(2)`; the temporary link is gone then.
    pub fn link_atomic(
        &self,
        path: impl AsRef<Path>,
        temp_dir: impl AsRef<Path>,
        temp_name: &str,
        target: &OsStr,
    ) -> io::Result<()> {
        let (parent, name) = self.parent(path.as_ref())?;
        match symlinkat(target, &parent, name.as_os_str()) {
            Err(Errno::EEXIST) => {}
            made => return Ok(made?),
        }
        let temp_dir = self.resolve(temp_dir.as_ref(), OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)?;
        remove_entry(&temp_dir, OsStr::new(temp_name), UnlinkatFlags::NoRemoveDir)?;
        symlinkat(target, &temp_dir, temp_name)?;
        if let Err(error) = renameat(&temp_dir, temp_name, &parent, name.as_os_str()) {
            // the first error is the one to tell
            let _ = remove_entry(&temp_dir, OsStr::new(temp_name), UnlinkatFlags::NoRemoveDir);
            return Err(error.into());
        }
        Ok(())
    }

    /// Gives a file that is complete another name in its directory, after bringing it to the disk.
    ///
    /// # Errors
    /// As `open(2)`, `fsync(2)`, `rename(2)`.
    pub fn publish(&self, dir: impl AsRef<Path>, from: &str, to: &str) -> io::Result<()> {
        let dir = self.resolve(dir.as_ref(), OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)?;
        let file = openat(&dir, from, OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())?;
        File::from(file).sync_all()?;
        renameat(&dir, from, &dir, to)?;
        sync(dir)
    }

    /// Removes a file or link, not following it. Being gone already is no error.
    ///
    /// # Errors
    /// As `unlink(2)`.
    pub fn remove_file(&self, path: impl AsRef<Path>) -> io::Result<()> {
        let (parent, name) = match self.parent(path.as_ref()) {
            Err(error) if is_missing(&error) => return Ok(()),
            parent => parent?,
        };
        remove_entry(&parent, &name, UnlinkatFlags::NoRemoveDir)?;
        sync(parent)
    }

    /// Removes a directory if it is empty. Being gone already is no error.
    ///
    /// # Errors
    /// As `rmdir(2)`, `ENOTEMPTY` included.
    pub fn remove_dir(&self, path: impl AsRef<Path>) -> io::Result<()> {
        let (parent, name) = match self.parent(path.as_ref()) {
            Err(error) if is_missing(&error) => return Ok(()),
            parent => parent?,
        };
        remove_entry(&parent, &name, UnlinkatFlags::RemoveDir)?;
        sync(parent)
    }

    /// Removes a directory of ours with all that tools have left in it. Links are removed, not followed.
    ///
    /// # Errors
    /// As `unlink(2)` and `rmdir(2)`; `ELOOP` if it is deeper than anything that a tool makes.
    pub fn remove_tree(&self, path: impl AsRef<Path>) -> io::Result<()> {
        self.remove_below(path.as_ref(), MAX_DEPTH)
    }

    fn remove_below(&self, path: &Path, depth: usize) -> io::Result<()> {
        let depth = depth.checked_sub(1).ok_or(Errno::ELOOP)?;
        for (name, meta) in self.list(path)?.unwrap_or_default() {
            match meta.kind {
                Kind::Directory => self.remove_below(&path.join(name), depth)?,
                Kind::File | Kind::Link | Kind::Other => self.remove_file(path.join(name))?,
            }
        }
        self.remove_dir(path)
    }

    /// Renames a file within its directory.
    ///
    /// # Errors
    /// As `rename(2)`.
    pub fn rename(&self, path: impl AsRef<Path>, to: &str) -> io::Result<()> {
        let (parent, name) = self.parent(path.as_ref())?;
        renameat(&parent, name.as_os_str(), &parent, to)?;
        sync(parent)
    }

    /// The directory that holds a path's last name, and that name.
    fn parent(&self, path: &Path) -> io::Result<(OwnedFd, OsString)> {
        let name = path.file_name().ok_or(Errno::EISDIR)?.to_owned();
        let above = path.parent().unwrap_or(Path::new("/"));
        Ok((self.resolve(above, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)?, name))
    }

    fn resolve(&self, path: &Path, flags: OFlag) -> io::Result<OwnedFd> {
        if self.kernel_resolves {
            return Ok(self.open_in_kernel(path, flags)?);
        }
        Ok(self.walk(path, flags)?)
    }

    fn open_in_kernel(&self, path: &Path, flags: OFlag) -> nix::Result<OwnedFd> {
        let resolve = ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS;
        let how = OpenHow::new().flags(flags).resolve(resolve);
        for _ in 0..8 {
            match openat2(&self.dir, path, how) {
                Err(Errno::EAGAIN) => {} // a rename raced with the look-up
                result => return result,
            }
        }
        Err(Errno::EAGAIN)
    }

    /// What `openat2(RESOLVE_IN_ROOT)` does, one name at a time.
    fn walk(&self, path: &Path, flags: OFlag) -> nix::Result<OwnedFd> {
        let at = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mut dirs = vec![openat(&self.dir, ".", at, Mode::empty())?];
        let mut names: VecDeque<OsString> = names(path);
        let mut links = 0;
        while let Some(name) = names.pop_front() {
            if name == "." {
                continue;
            }
            if name == ".." {
                if dirs.len() > 1 {
                    dirs.pop();
                }
                continue;
            }
            let top = dirs.last().ok_or(Errno::ENOENT)?;
            let fd = openat(top, name.as_os_str(), at, Mode::empty())?;
            match Meta::new(&fstat(&fd)?).kind {
                Kind::Link => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(Errno::ELOOP);
                    }
                    let target = readlinkat(top, name.as_os_str())?;
                    if target.as_bytes().starts_with(b"/") {
                        dirs.truncate(1);
                    }
                    for name in self::names(Path::new(&target)).into_iter().rev() {
                        names.push_front(name);
                    }
                }
                _ if names.is_empty() => {
                    return openat(top, name.as_os_str(), flags | OFlag::O_NOFOLLOW, Mode::empty());
                }
                Kind::Directory => dirs.push(fd),
                _ => return Err(Errno::ENOTDIR),
            }
        }
        openat(dirs.last().ok_or(Errno::ENOENT)?, ".", flags, Mode::empty())
    }
}

impl Meta {
    pub(super) fn new(stat: &FileStat) -> Self {
        let kind = match SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) {
            SFlag::S_IFREG => Kind::File,
            SFlag::S_IFDIR => Kind::Directory,
            SFlag::S_IFLNK => Kind::Link,
            _ => Kind::Other,
        };
        Self {
            kind,
            mode: stat.st_mode & 0o7777,
            owner: (stat.st_uid, stat.st_gid),
            links: stat.st_nlink,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            modified: stat.st_mtime,
            changed: stat.st_ctime.saturating_mul(1000).saturating_add(stat.st_ctime_nsec / 1_000_000),
            stamp: (stat.st_dev, stat.st_ino, stat.st_ctime_nsec),
        }
    }
}

/// What has changed in the last so many seconds may change once more at the same time: kernels count that in steps of up to 10 ms,
/// some file systems in seconds.
pub const TICK: i64 = 3;

impl Meta {
    /// Whether a later change would leave another stamp.
    pub fn tells(&self, now: i64) -> bool {
        self.changed / 1000 < now.saturating_sub(TICK)
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
pub fn kind_of(fd: &OwnedFd) -> io::Result<Kind> {
    Ok(Meta::new(&fstat(fd)?).kind)
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
pub(super) fn read_into(fd: OwnedFd, limit: u64, bytes: &mut Vec<u8>) -> io::Result<Meta> {
    let meta = Meta::new(&fstat(&fd)?);
    let invalid = |text: String| io::Error::new(io::ErrorKind::InvalidData, text);
    if meta.kind != Kind::File {
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
pub fn list_directory(fd: OwnedFd) -> io::Result<Vec<(String, Meta)>> {
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
            Ok(stat) => entries.push((name.to_string_lossy().into_owned(), Meta::new(&stat))),
            Err(Errno::ENOENT) => {} // gone between the two looks
            Err(error) => return Err(error.into()),
        }
    }
    entries.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(entries)
}

fn names(path: &Path) -> VecDeque<OsString> {
    // with a slash at its end, a path leads to a directory or nowhere
    let end = path.as_os_str().as_bytes().ends_with(b"/").then(|| OsString::from("."));
    path.components()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
        })
        .chain(end)
        .collect()
}

fn remove_entry(dir: &OwnedFd, name: &OsStr, flag: UnlinkatFlags) -> io::Result<()> {
    match unlinkat(dir, name, flag) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Brings a directory's names to the disk.
fn sync(dir: OwnedFd) -> io::Result<()> {
    match nix::unistd::fsync(&dir) {
        // file systems that cannot synchronise a directory have nothing to lose
        Ok(()) | Err(Errno::EINVAL) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
