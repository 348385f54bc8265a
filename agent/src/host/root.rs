//! The host's file system, seen through one directory handle.
//!
//! Every path is resolved inside the host root, also where a link on the host is absolute: `/etc/ssl/certs` that points to
//! `/etc/pki/tls/certs` is the host's, not the container's. `openat2(2)` does that in the kernel; where it is missing (before
//! Linux 5.6, e.g. EL 8) the same walk is done here. This module reads; `change` writes.

use std::{
    collections::VecDeque,
    ffi::OsString,
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Component, Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, OpenHow, ResolveFlag, openat, openat2, readlinkat},
    sys::stat::{Mode, fstat},
};

use super::{
    directory::HostDirectory,
    file::{FileKind, FileMeta, is_missing, list_directory, read_regular},
    obstacle::Obstacle,
};

/// Links that are followed on one path before it counts as a loop, as in the kernel.
const MAX_LINKS: usize = 40;

/// The group of Debian's `staff`, which may write below `/usr/local` on systems that began before Debian 7: whoever is in it can
/// replace programs that root runs, and counts as root (Debian policy 9.1.2).
const STAFF: u32 = 50;

/// A handle on the host's `/`.
#[derive(Debug)]
pub struct HostRoot {
    dir: OwnedFd,
    path: PathBuf,
    kernel_resolves: bool,
}

impl HostRoot {
    /// Opens a host root.
    ///
    /// # Errors
    /// If the path is no directory that can be opened.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let dir = nix::fcntl::open(path, flags, Mode::empty()).map_err(|error| Obstacle::host_root(path, error))?;
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
    pub fn stat(&self, path: impl AsRef<Path>) -> io::Result<Option<FileMeta>> {
        match self.resolve(path.as_ref(), OFlag::O_PATH | OFlag::O_CLOEXEC) {
            Ok(fd) => Ok(Some(FileMeta::new(&fstat(&fd)?))),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The names in a directory with what they are, links not followed, sorted; None if it does not exist.
    ///
    /// # Errors
    /// As `open(2)` and `readdir(3)`.
    pub fn list(&self, path: impl AsRef<Path>) -> io::Result<Option<Vec<(String, FileMeta)>>> {
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
    pub fn names(&self, path: impl AsRef<Path>) -> io::Result<Vec<(String, FileKind)>> {
        self.directory(path)?.map_or(Ok(Vec::new()), |dir| dir.names())
    }

    /// The target of a link; None if the path is no link or does not exist.
    ///
    /// # Errors
    /// As `open(2)` and `readlink(2)`, except that something on the path is missing.
    pub fn link_target(&self, path: impl AsRef<Path>) -> io::Result<Option<OsString>> {
        let path = path.as_ref();
        let Some(name) = path.file_name() else { return Ok(None) };
        let parent = self.directory(path.parent().unwrap_or(Path::new("/")))?;
        parent.map_or(Ok(None), |parent| parent.link_target(name))
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

    fn resolve(&self, path: &Path, flags: OFlag) -> io::Result<OwnedFd> {
        if self.kernel_resolves {
            return Ok(self.open_in_kernel(path, flags)?);
        }
        self.walk(path, flags, WayCheck::None)
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
    pub(super) fn walk(&self, path: &Path, flags: OFlag, way: WayCheck) -> io::Result<OwnedFd> {
        let at = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        // what the host calls the last of these directories
        let called = |dirs: &[(OsString, OwnedFd)]| dirs.iter().map(|(name, _)| name).collect::<PathBuf>();
        let mut dirs = vec![(OsString::from("/"), openat(&self.dir, ".", at, Mode::empty())?)];
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
            let (_, top) = dirs.last().ok_or(Errno::ENOENT)?;
            if way == WayCheck::RootOnly {
                check_owner(top, &called(&dirs))?;
            }
            let fd = openat(top, name.as_os_str(), at, Mode::empty())?;
            match FileMeta::new(&fstat(&fd)?).kind {
                FileKind::Link => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(Errno::ELOOP.into());
                    }
                    let target = readlinkat(top, name.as_os_str())?;
                    if target.as_bytes().starts_with(b"/") {
                        dirs.truncate(1);
                    }
                    for name in self::names(Path::new(&target)).into_iter().rev() {
                        names.push_front(name);
                    }
                }
                FileKind::Directory if !names.is_empty() || way == WayCheck::RootOnly => dirs.push((name, fd)),
                _ if names.is_empty() => {
                    return Ok(openat(top, name.as_os_str(), flags | OFlag::O_NOFOLLOW, Mode::empty())?);
                }
                _ => return Err(Errno::ENOTDIR.into()),
            }
        }
        let (_, top) = dirs.last().ok_or(Errno::ENOENT)?;
        if way == WayCheck::RootOnly {
            check_owner(top, &called(&dirs))?;
        }
        Ok(openat(top, ".", flags, Mode::empty())?)
    }
}

/// Flags for opening a directory that is read, or in which something is changed.
pub(super) const DIRECTORY: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_CLOEXEC);

/// What is asked of the directories that a path leads through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WayCheck {
    /// Nothing.
    None,
    /// Root owns them, and nobody else can write them.
    RootOnly,
}

/// Refuses a directory that others than root can write: they could lead us elsewhere. `path` is for the message.
///
/// # Errors
/// An [`Obstacle`] that names the directory.
pub(super) fn check_owner(dir: &OwnedFd, path: &Path) -> io::Result<()> {
    let stat = fstat(dir)?;
    let owned = stat.st_uid == 0 || stat.st_uid == nix::unistd::geteuid().as_raw();
    let by_group = stat.st_mode & 0o020 != 0 && stat.st_gid != 0;
    let by_staff = stat.st_gid == STAFF && path.starts_with("/usr/local");
    if owned && stat.st_mode & 0o002 == 0 && (!by_group || by_staff) {
        return Ok(());
    }
    let (path, mode) = (path.display(), stat.st_mode & 0o7777);
    Err(Obstacle::error(
        io::ErrorKind::PermissionDenied,
        format!(
            "others than root can write {path} (mode {mode:04o}, owner {}:{}): nothing is written, read or removed by way of it",
            stat.st_uid, stat.st_gid
        ),
        format!("on the host: `chown root:root {path}; chmod go-w {path}`, or remove the link that leads there"),
    ))
}

/// The names of a path, `..` among them and `.` at the end of a path that ends with a slash.
pub(super) fn names(path: &Path) -> VecDeque<OsString> {
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
