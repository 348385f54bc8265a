//! The host's file system, seen through one directory handle.
//!
//! Every path is resolved inside the host root, also where a link on the host is absolute: `/etc/ssl/certs` that points to
//! `/etc/pki/tls/certs` is the host's, not the container's. `openat2(2)` does that in the kernel; where it is missing (before
//! Linux 5.6, e.g. EL 8) the same walk is done here. Everything that changes the host's files is in this module.
//!
//! What is changed, and what is ours, is always reached by that walk: it goes only through directories that root owns and nobody else
//! can write, and enters no link from our first own directory down (`own`). Each step is made from the handle of the one before.

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
    fcntl::{AtFlags, Flock, FlockArg, OFlag, OpenHow, ResolveFlag, openat, openat2, readlinkat, renameat},
    sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, fstatat, mkdirat},
    unistd::{Gid, Uid, UnlinkatFlags, fchown, symlinkat, unlinkat},
};

use super::{directory::HostDirectory, obstacle::Obstacle, own, tree};

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
    /// When its inode last changed, milliseconds since the epoch. No system call can set this time.
    pub changed: i64,
    /// Device and inode number.
    pub id: (u64, u64),
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
    ///
    /// # Errors
    /// As `open(2)` and `readlink(2)`, except that something on the path is missing.
    pub fn link_target(&self, path: impl AsRef<Path>) -> io::Result<Option<OsString>> {
        let path = path.as_ref();
        let Some(name) = path.file_name() else { return Ok(None) };
        let parent = match self.resolve(path.parent().unwrap_or(Path::new("/")), DIRECTORY) {
            Err(error) if is_missing(&error) => return Ok(None),
            opened => opened?,
        };
        match readlinkat(&parent, name) {
            // readlink(2): EINVAL is the answer for what is no link
            Err(Errno::EINVAL | Errno::ENOENT) => Ok(None),
            target => Ok(Some(target?)),
        }
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

    /// What a file or directory of ours is, not following a link; None if it does not exist, or if what should be a directory of
    /// ours on the way is none.
    ///
    /// # Errors
    /// As `stat(2)`; an [`Obstacle`] if others than root can change the way there.
    pub fn own_meta(&self, path: impl AsRef<Path>) -> io::Result<Option<Meta>> {
        match self.parent(path.as_ref(), Own::Enter) {
            Ok((parent, name)) => look_at(&parent, &name),
            Err(error) if is_missing(&error) || is_replaced(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads a regular file of ours, not following a link.
    ///
    /// # Errors
    /// As [`HostRoot::read`]; `InvalidData` also for a link, there or in the place of a directory of ours.
    pub fn own_read(&self, path: impl AsRef<Path>, limit: u64) -> io::Result<Vec<u8>> {
        read_regular(self.open_own(path.as_ref())?.into(), limit)
    }

    /// Opens a file of ours for reading, not following a link.
    ///
    /// # Errors
    /// As `open(2)`; `InvalidData` for a link or anything else that is no regular file.
    pub fn open_own(&self, path: impl AsRef<Path>) -> io::Result<File> {
        let (parent, name) = self.parent(path.as_ref(), Own::Enter)?;
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        match openat(&parent, name.as_os_str(), flags, Mode::empty()) {
            Ok(fd) if kind_of(&fd)? == Kind::File => Ok(fd.into()),
            Ok(_) | Err(Errno::ENXIO) => Err(io::Error::new(io::ErrorKind::InvalidData, "not a regular file")),
            Err(Errno::ELOOP) => Err(io::Error::new(io::ErrorKind::InvalidData, "a link, not a regular file")),
            Err(error) => Err(error.into()),
        }
    }

    /// Opens a file for the lock, making it if needed. What is there and is no file of its own (a link, a pipe, another name of a
    /// file) is removed.
    ///
    /// # Errors
    /// As `open(2)`; an [`Obstacle`] for a directory that is not empty.
    pub fn open_lock(&self, path: impl AsRef<Path>) -> io::Result<File> {
        let path = path.as_ref();
        let (parent, name) = self.parent(path, Own::Enter)?;
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let open = || openat(&parent, name.as_os_str(), flags, Mode::from_bits_truncate(0o600));
        let is_good =
            |fd: &OwnedFd| fstat(fd).is_ok_and(|stat| Meta::new(&stat).kind == Kind::File && stat.st_nlink <= 1);
        match open() {
            Ok(fd) if is_good(&fd) => return Ok(fd.into()),
            Ok(_) | Err(Errno::ELOOP | Errno::EISDIR | Errno::ENXIO) => {}
            Err(error) => return Err(error.into()),
        }
        // one at a time: the second would remove what the first has made
        let one = match Flock::lock(parent.try_clone()?, FlockArg::LockExclusiveNonblock) {
            Ok(one) => one,
            Err((_, error)) => return Err(error.into()),
        };
        match open() {
            Ok(fd) if is_good(&fd) => return Ok(fd.into()),
            _ => clear(&parent, &name, path)?,
        }
        let made = openat(&parent, name.as_os_str(), flags | OFlag::O_EXCL, Mode::from_bits_truncate(0o600))?;
        drop(one);
        Ok(made.into())
    }

    /// Whether a path still is this open file, not following a link.
    pub fn is_same_file(&self, path: impl AsRef<Path>, file: &File) -> bool {
        let there = self.own_meta(path).ok().flatten();
        let here = fstat(file).ok();
        there.zip(here).is_some_and(|(there, here)| there.id == (here.st_dev, here.st_ino))
    }

    /// Makes a directory and what is missing above it, mode 0755 whatever the umask. A link, pipe or socket in the place of a directory
    /// of ours is removed.
    ///
    /// # Errors
    /// As `mkdir(2)`; an [`Obstacle`] if something else is in its place.
    pub fn create_dir_all(&self, path: impl AsRef<Path>) -> io::Result<()> {
        let path = path.as_ref();
        if let Some(above) = own::directories_above(path) {
            let first = prefix(path, above);
            if self.stat(&first)?.is_none() {
                self.create_dir_all(&first)?;
            }
            return self.own_directory(path, above, Own::Make).map(drop);
        }
        if self.stat(path)?.is_some_and(|meta| meta.kind == Kind::Directory) {
            return Ok(());
        }
        if let Some(above) = path.parent() {
            self.create_dir_all(above)?;
        }
        let (parent, name) = self.parent(path, Own::Enter)?;
        make_directory(&parent, &name, path).map(drop)
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
        let path = path.as_ref();
        let (parent, name) = self.parent(path, Own::Enter)?;
        let temp_dir = self.temporary(temp_dir.as_ref(), temp_name)?;
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
            put(&temp_dir, temp_name, &parent, &name, path)
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
        let path = path.as_ref();
        let (parent, name) = self.parent(path, Own::Enter)?;
        match symlinkat(target, &parent, name.as_os_str()) {
            Err(Errno::EEXIST) => {}
            made => return Ok(made?),
        }
        let temp_dir = self.temporary(temp_dir.as_ref(), temp_name)?;
        symlinkat(target, &temp_dir, temp_name)?;
        let put = put(&temp_dir, temp_name, &parent, &name, path);
        if put.is_err() {
            // the first error is the one to tell
            let _ = remove_entry(&temp_dir, OsStr::new(temp_name), UnlinkatFlags::NoRemoveDir);
        }
        put
    }

    /// Gives a file that is complete another name in its directory, after bringing it to the disk. Everybody can read it, only its
    /// owner write it, whatever whoever made it has left.
    ///
    /// # Errors
    /// As `open(2)`, `chmod(2)`, `fsync(2)`, `rename(2)`.
    pub fn publish(&self, dir: impl AsRef<Path>, from: &str, to: &str) -> io::Result<()> {
        let dir = dir.as_ref();
        let file = self.open_own(dir.join(from))?;
        fchmod(&file, Mode::from_bits_truncate(0o644))?;
        file.sync_all()?;
        let (dir, _) = self.parent(&dir.join(to), Own::Enter)?;
        renameat(&dir, from, &dir, to)?;
        sync(dir)
    }

    /// Sets the permission bits of somebody's regular file, links to it followed.
    ///
    /// # Errors
    /// As `open(2)` and `chmod(2)`; an [`Obstacle`] if others than root can change the way there.
    pub fn set_mode(&self, path: impl AsRef<Path>, mode: u32) -> io::Result<()> {
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let file = self.walk(path.as_ref(), flags, Through::Root)?;
        if kind_of(&file)? != Kind::File {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not a regular file"));
        }
        Ok(fchmod(&file, Mode::from_bits_truncate(mode))?)
    }

    /// Removes a file or link, not following it; an empty directory too, where the name is ours. Being gone already is no error.
    ///
    /// # Errors
    /// As `unlink(2)`; an [`Obstacle`] for a directory that is not empty.
    pub fn remove_file(&self, path: impl AsRef<Path>) -> io::Result<()> {
        let path = path.as_ref();
        let Some((parent, name)) = self.parent_if_any(path)? else { return Ok(()) };
        clear(&parent, &name, path)?;
        sync(parent)
    }

    /// Removes a directory if it is empty. Being gone already is no error, nor is something else in its place: that is not ours. A
    /// link in the place of a directory of ours is removed.
    ///
    /// # Errors
    /// As `rmdir(2)`, `ENOTEMPTY` included.
    pub fn remove_dir(&self, path: impl AsRef<Path>) -> io::Result<()> {
        let path = path.as_ref();
        let Some((parent, name)) = self.parent_if_any(path)? else { return Ok(()) };
        match look_at(&parent, &name)?.map(|meta| meta.kind) {
            Some(Kind::Directory) => remove_entry(&parent, &name, UnlinkatFlags::RemoveDir)?,
            Some(Kind::Link) if own::directories_above(path).is_some() => {
                remove_entry(&parent, &name, UnlinkatFlags::NoRemoveDir)?;
            }
            _ => return Ok(()),
        }
        sync(parent)
    }

    /// Removes a directory of ours with all that tools have left in it. Links are removed, not followed, at its top too; what is
    /// mounted in it is not touched.
    ///
    /// # Errors
    /// As `unlink(2)` and `rmdir(2)`; `ELOOP` if it is deeper than anything that a tool makes; an [`Obstacle`] for a mount.
    pub fn remove_tree(&self, path: impl AsRef<Path>) -> io::Result<()> {
        let path = path.as_ref();
        let Some((parent, name)) = self.parent_if_any(path)? else { return Ok(()) };
        tree::remove(&parent, &name, path)?;
        sync(parent)
    }

    /// Renames a file within its directory.
    ///
    /// # Errors
    /// As `rename(2)`.
    pub fn rename(&self, path: impl AsRef<Path>, to: &str) -> io::Result<()> {
        let (parent, name) = self.parent(path.as_ref(), Own::Enter)?;
        renameat(&parent, name.as_os_str(), &parent, to)?;
        sync(parent)
    }

    /// The directory of a temporary file, in which nothing has its name.
    fn temporary(&self, dir: &Path, name: &str) -> io::Result<OwnedFd> {
        let path = dir.join(name);
        let (dir, name) = self.parent(&path, Own::Enter)?;
        clear(&dir, &name, &path)?;
        Ok(dir)
    }

    /// The directory that holds a path's last name, and that name: for a change, or for something that is ours.
    fn parent(&self, path: &Path, own: Own) -> io::Result<(OwnedFd, OsString)> {
        let name = path.file_name().ok_or(Errno::EISDIR)?.to_owned();
        let dir = path.parent().unwrap_or(Path::new("/"));
        let fd = match own::directories_above(path) {
            Some(above) => self.own_directory(dir, above, own)?,
            None => self.walk(dir, DIRECTORY, Through::Root)?,
        };
        Ok((fd, name))
    }

    /// The same; None if there is no such directory, so that nothing of ours can be in it.
    fn parent_if_any(&self, path: &Path) -> io::Result<Option<(OwnedFd, OsString)>> {
        match self.parent(path, Own::Enter) {
            Ok(found) => Ok(Some(found)),
            Err(error) if is_missing(&error) || is_replaced(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A directory of which all but the first so many names are ours.
    fn own_directory(&self, path: &Path, above: usize, own: Own) -> io::Result<OwnedFd> {
        let mut so_far = prefix(path, above);
        let mut dir = self.walk(&so_far, DIRECTORY, Through::Root)?;
        for name in names(path).into_iter().skip(above) {
            so_far.push(&name);
            let flags = DIRECTORY | OFlag::O_NOFOLLOW;
            let next = match openat(&dir, name.as_os_str(), flags, Mode::empty()) {
                Ok(next) => next,
                Err(Errno::ELOOP | Errno::ENOTDIR | Errno::ENXIO) if own == Own::Enter => {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, Replaced(so_far)));
                }
                Err(Errno::ENOENT | Errno::ELOOP | Errno::ENOTDIR | Errno::ENXIO) if own == Own::Make => {
                    make_directory(&dir, &name, &so_far)?
                }
                Err(error) => return Err(error.into()),
            };
            check(&next, &so_far)?;
            dir = next;
        }
        Ok(dir)
    }

    fn resolve(&self, path: &Path, flags: OFlag) -> io::Result<OwnedFd> {
        if self.kernel_resolves {
            return Ok(self.open_in_kernel(path, flags)?);
        }
        self.walk(path, flags, Through::Any)
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
    fn walk(&self, path: &Path, flags: OFlag, through: Through) -> io::Result<OwnedFd> {
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
            if through == Through::Root {
                check(top, &called(&dirs))?;
            }
            let fd = openat(top, name.as_os_str(), at, Mode::empty())?;
            match Meta::new(&fstat(&fd)?).kind {
                Kind::Link => {
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
                Kind::Directory if !names.is_empty() || through == Through::Root => dirs.push((name, fd)),
                _ if names.is_empty() => {
                    return Ok(openat(top, name.as_os_str(), flags | OFlag::O_NOFOLLOW, Mode::empty())?);
                }
                _ => return Err(Errno::ENOTDIR.into()),
            }
        }
        let (_, top) = dirs.last().ok_or(Errno::ENOENT)?;
        if through == Through::Root {
            check(top, &called(&dirs))?;
        }
        Ok(openat(top, ".", flags, Mode::empty())?)
    }
}

/// A directory that is read, or in which something is changed.
const DIRECTORY: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_CLOEXEC);

/// Which directories a path may lead through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Through {
    /// All that there are.
    Any,
    /// Those that root owns and nobody else can write.
    Root,
}

/// What becomes of a directory of ours that is missing, or has something else in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Own {
    /// It is an error.
    Enter,
    /// It is made.
    Make,
}

/// Something else is in the place of a directory of ours.
#[derive(Debug, thiserror::Error)]
#[error("{} is no directory", .0.display())]
struct Replaced(PathBuf);

fn is_replaced(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<Replaced>())
}

/// Whoever can write a directory on the way can lead us elsewhere.
fn check(dir: &OwnedFd, path: &Path) -> io::Result<()> {
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

/// What a name in a directory is, a link not followed.
fn look_at(dir: &OwnedFd, name: &OsStr) -> io::Result<Option<Meta>> {
    match fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(Meta::new(&stat))),
        Err(Errno::ENOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Makes a directory, mode 0755 whatever the umask. Where the name is ours, what is lost without loss is removed for it: a link, a
/// pipe, a socket.
fn make_directory(parent: &OwnedFd, name: &OsStr, path: &Path) -> io::Result<OwnedFd> {
    let open = || openat(parent, name, DIRECTORY | OFlag::O_NOFOLLOW, Mode::empty());
    let make = || mkdirat(parent, name, Mode::from_bits_truncate(0o755));
    match make() {
        Err(Errno::EEXIST) => match look_at(parent, name)?.map(|meta| meta.kind) {
            Some(Kind::Directory) => return Ok(open()?), // somebody else has made it meanwhile
            Some(Kind::Link | Kind::Other) if own::directories_above(path).is_some() => {
                remove_entry(parent, name, UnlinkatFlags::NoRemoveDir)?;
                make()?;
            }
            Some(Kind::Link) => return Err(Obstacle::no_directory(path, "a link that leads to no directory")),
            Some(Kind::File) => return Err(Obstacle::no_directory(path, "a file")),
            _ => return Err(Obstacle::no_directory(path, "no directory")),
        },
        made => made?,
    }
    let made = open()?;
    fchmod(&made, Mode::from_bits_truncate(0o755))?;
    sync(parent.try_clone()?)?;
    Ok(made)
}

/// Frees a name: a file, link, pipe or socket is removed, and an empty directory if the name is ours.
fn clear(dir: &OwnedFd, name: &OsStr, path: &Path) -> io::Result<()> {
    match unlinkat(dir, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        // POSIX has EPERM for it
        Err(error @ (Errno::EISDIR | Errno::EPERM)) => {
            let is_dir = look_at(dir, name)?.is_some_and(|meta| meta.kind == Kind::Directory);
            match is_dir && own::is_own(path) {
                true => remove_empty(dir, name, path),
                false => Err(error.into()),
            }
        }
        Err(error) => Err(error.into()),
    }
}

fn remove_empty(dir: &OwnedFd, name: &OsStr, path: &Path) -> io::Result<()> {
    match unlinkat(dir, name, UnlinkatFlags::RemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(Errno::ENOTEMPTY | Errno::EEXIST) => Err(Obstacle::directory(path)),
        Err(Errno::EBUSY) => Err(Obstacle::mount(path)),
        Err(error) => Err(error.into()),
    }
}

/// Gives a temporary file its name. An empty directory of that name goes, if the name is ours.
fn put(from_dir: &OwnedFd, from: &str, to_dir: &OwnedFd, to: &OsStr, path: &Path) -> io::Result<()> {
    match renameat(from_dir, from, to_dir, to) {
        Err(Errno::EISDIR) if own::is_own(path) => {
            remove_empty(to_dir, to, path)?;
            Ok(renameat(from_dir, from, to_dir, to)?)
        }
        Err(Errno::EISDIR) => Err(Obstacle::directory(path)),
        result => Ok(result?),
    }
}

/// The first so many names of a path.
fn prefix(path: &Path, count: usize) -> PathBuf {
    Path::new("/").join(names(path).into_iter().take(count).collect::<PathBuf>())
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
pub fn kind_of(fd: &OwnedFd) -> io::Result<Kind> {
    Ok(Meta::new(&fstat(fd)?).kind)
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
    if kind_of(&found)? != Kind::File {
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

pub(super) fn remove_entry(dir: &OwnedFd, name: &OsStr, flag: UnlinkatFlags) -> io::Result<()> {
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
