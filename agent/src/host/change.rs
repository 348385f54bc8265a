//! Every change of a file on the host, and the reading of files that are ours.
//!
//! What is changed, and what is ours, is reached only through directories that root owns and nobody else can write. From our first own
//! directory down no link is entered ([`own_paths`](super::own_paths)). Each step is made from the handle of the one before.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Write},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{AtFlags, Flock, FlockArg, OFlag, openat, renameat},
    sys::stat::{Mode, fchmod, fstat, mkdirat},
    unistd::{Gid, Uid, UnlinkatFlags, fchown, linkat, symlinkat, unlinkat},
};

use super::{
    file::{FileKind, FileMeta, is_missing, kind_of, look_at, read_into, read_regular},
    obstacle::Obstacle,
    own_paths,
    root::{DIRECTORY, HostRoot, WayCheck, check_owner, names},
    tree::{self, remove_entry},
};

impl HostRoot {
    /// What a file or directory of ours is, not following a link; None if it does not exist, or if what should be a directory of
    /// ours on the way is none.
    ///
    /// # Errors
    /// As `stat(2)`; an [`Obstacle`] if others than root can change the way there.
    pub fn own_meta(&self, path: impl AsRef<Path>) -> io::Result<Option<FileMeta>> {
        match self.parent(path.as_ref(), IfMissing::Fail) {
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

    /// The same, with what the file is.
    ///
    /// # Errors
    /// As [`HostRoot::own_read`].
    pub fn own_read_with_meta(&self, path: impl AsRef<Path>, limit: u64) -> io::Result<(FileMeta, Vec<u8>)> {
        let mut bytes = Vec::new();
        let meta = read_into(self.open_own(path.as_ref())?.into(), limit, &mut bytes)?;
        Ok((meta, bytes))
    }

    /// Opens a file of ours for reading, not following a link.
    ///
    /// # Errors
    /// As `open(2)`; `InvalidData` for a link or anything else that is no regular file.
    pub fn open_own(&self, path: impl AsRef<Path>) -> io::Result<File> {
        let (parent, name) = self.parent(path.as_ref(), IfMissing::Fail)?;
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        match openat(&parent, name.as_os_str(), flags, Mode::empty()) {
            Ok(fd) if kind_of(&fd)? == FileKind::File => Ok(fd.into()),
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
        let (parent, name) = self.parent(path, IfMissing::Fail)?;
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let open = || openat(&parent, name.as_os_str(), flags, Mode::from_bits_truncate(0o600));
        let is_good = |fd: &OwnedFd| {
            fstat(fd).is_ok_and(|stat| FileMeta::new(&stat).kind == FileKind::File && stat.st_nlink <= 1)
        };
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
        if let Some(above) = own_paths::directories_above(path) {
            let first = prefix(path, above);
            if self.stat(&first)?.is_none() {
                self.create_dir_all(&first)?;
            }
            return self.own_directory(path, above, IfMissing::Make).map(drop);
        }
        if self.stat(path)?.is_some_and(|meta| meta.kind == FileKind::Directory) {
            return Ok(());
        }
        if let Some(above) = path.parent() {
            self.create_dir_all(above)?;
        }
        let (parent, name) = self.parent(path, IfMissing::Fail)?;
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
        let (parent, name) = self.parent(path, IfMissing::Fail)?;
        let temp_dir = self.temporary(temp_dir.as_ref(), temp_name)?;
        let written = write_whole(&temp_dir, temp_name, mode, bytes)
            .and_then(|()| put(&temp_dir, temp_name, &parent, &name, path));
        if written.is_err() {
            // the first error is the one to tell
            let _ = remove_entry(&temp_dir, OsStr::new(temp_name), UnlinkatFlags::NoRemoveDir);
            return written;
        }
        sync(parent)
    }

    /// The same for a name that nothing has; what has it is not touched. Whether the file was put there.
    ///
    /// # Errors
    /// As [`HostRoot::write_atomic`].
    pub fn write_new(
        &self,
        path: impl AsRef<Path>,
        temp_dir: impl AsRef<Path>,
        temp_name: &str,
        mode: u32,
        bytes: &[u8],
    ) -> io::Result<bool> {
        let (parent, name) = self.parent(path.as_ref(), IfMissing::Fail)?;
        let temp_dir = self.temporary(temp_dir.as_ref(), temp_name)?;
        let linked = write_whole(&temp_dir, temp_name, mode, bytes).and_then(|()| {
            match linkat(&temp_dir, temp_name, &parent, name.as_os_str(), AtFlags::empty()) {
                Err(Errno::EEXIST) => Ok(false),
                linked => Ok(linked.map(|()| true)?),
            }
        });
        let removed = remove_entry(&temp_dir, OsStr::new(temp_name), UnlinkatFlags::NoRemoveDir);
        let is_there = linked?;
        removed?;
        sync(parent)?;
        Ok(is_there)
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
        let (parent, name) = self.parent(path, IfMissing::Fail)?;
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
        let (dir, _) = self.parent(&dir.join(to), IfMissing::Fail)?;
        renameat(&dir, from, &dir, to)?;
        sync(dir)
    }

    /// Sets the permission bits of somebody's regular file, links to it followed.
    ///
    /// # Errors
    /// As `open(2)` and `chmod(2)`; an [`Obstacle`] if others than root can change the way there.
    pub fn set_mode(&self, path: impl AsRef<Path>, mode: u32) -> io::Result<()> {
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let file = self.walk(path.as_ref(), flags, WayCheck::RootOnly)?;
        if kind_of(&file)? != FileKind::File {
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
            Some(FileKind::Directory) => remove_entry(&parent, &name, UnlinkatFlags::RemoveDir)?,
            Some(FileKind::Link) if own_paths::directories_above(path).is_some() => {
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
        let (parent, name) = self.parent(path.as_ref(), IfMissing::Fail)?;
        renameat(&parent, name.as_os_str(), &parent, to)?;
        sync(parent)
    }

    /// The directory of a temporary file, in which nothing has its name.
    fn temporary(&self, dir: &Path, name: &str) -> io::Result<OwnedFd> {
        let path = dir.join(name);
        let (dir, name) = self.parent(&path, IfMissing::Fail)?;
        clear(&dir, &name, &path)?;
        Ok(dir)
    }

    /// The directory that holds a path's last name, and that name: for a change, or for something that is ours.
    fn parent(&self, path: &Path, missing: IfMissing) -> io::Result<(OwnedFd, OsString)> {
        let name = path.file_name().ok_or(Errno::EISDIR)?.to_owned();
        let dir = path.parent().unwrap_or(Path::new("/"));
        let fd = match own_paths::directories_above(path) {
            Some(above) => self.own_directory(dir, above, missing)?,
            None => self.walk(dir, DIRECTORY, WayCheck::RootOnly)?,
        };
        Ok((fd, name))
    }

    /// The same; None if there is no such directory, so that nothing of ours can be in it.
    fn parent_if_any(&self, path: &Path) -> io::Result<Option<(OwnedFd, OsString)>> {
        match self.parent(path, IfMissing::Fail) {
            Ok(found) => Ok(Some(found)),
            Err(error) if is_missing(&error) || is_replaced(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A directory of which all but the first so many names are ours.
    fn own_directory(&self, path: &Path, above: usize, missing: IfMissing) -> io::Result<OwnedFd> {
        let mut so_far = prefix(path, above);
        let mut dir = self.walk(&so_far, DIRECTORY, WayCheck::RootOnly)?;
        for name in names(path).into_iter().skip(above) {
            so_far.push(&name);
            let flags = DIRECTORY | OFlag::O_NOFOLLOW;
            let next = match openat(&dir, name.as_os_str(), flags, Mode::empty()) {
                Ok(next) => next,
                Err(Errno::ELOOP | Errno::ENOTDIR | Errno::ENXIO) if missing == IfMissing::Fail => {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, Replaced(so_far)));
                }
                Err(Errno::ENOENT | Errno::ELOOP | Errno::ENOTDIR | Errno::ENXIO) if missing == IfMissing::Make => {
                    make_directory(&dir, &name, &so_far)?
                }
                Err(error) => return Err(error.into()),
            };
            check_owner(&next, &so_far)?;
            dir = next;
        }
        Ok(dir)
    }
}

/// What is done about a directory of ours that is missing, or that something else stands in the place of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum IfMissing {
    /// It is an error.
    Fail,
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

/// Makes a directory, mode 0755 whatever the umask. Where the name is ours, what is lost without loss is removed for it: a link, a
/// pipe, a socket.
fn make_directory(parent: &OwnedFd, name: &OsStr, path: &Path) -> io::Result<OwnedFd> {
    let open = || openat(parent, name, DIRECTORY | OFlag::O_NOFOLLOW, Mode::empty());
    let make = || mkdirat(parent, name, Mode::from_bits_truncate(0o755));
    match make() {
        Err(Errno::EEXIST) => match look_at(parent, name)?.map(|meta| meta.kind) {
            Some(FileKind::Directory) => return Ok(open()?), // somebody else has made it meanwhile
            Some(FileKind::Link | FileKind::Other) if own_paths::directories_above(path).is_some() => {
                remove_entry(parent, name, UnlinkatFlags::NoRemoveDir)?;
                make()?;
            }
            Some(FileKind::Link) => return Err(Obstacle::no_directory(path, "a link that leads to no directory")),
            Some(FileKind::File) => return Err(Obstacle::no_directory(path, "a file")),
            _ => return Err(Obstacle::no_directory(path, "no directory")),
        },
        made => made?,
    }
    let made = open()?;
    fchmod(&made, Mode::from_bits_truncate(0o755))?;
    sync(parent.try_clone()?)?;
    Ok(made)
}

/// Writes a new file of root's with its bytes and mode, and brings it to the disk.
fn write_whole(dir: &OwnedFd, name: &str, mode: u32, bytes: &[u8]) -> io::Result<()> {
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut file = File::from(openat(dir, name, flags, Mode::from_bits_truncate(0o600))?);
    file.write_all(bytes)?;
    fchown(&file, Some(Uid::from_raw(0)), Some(Gid::from_raw(0))).or_else(|error| {
        // only root can give a file to root; anyone else has made it as himself, which is what tests do
        if nix::unistd::geteuid().is_root() { Err(error) } else { Ok(()) }
    })?;
    fchmod(&file, Mode::from_bits_truncate(mode))?;
    file.sync_all()
}

/// Frees a name: a file, link, pipe or socket is removed, and an empty directory if the name is ours.
fn clear(dir: &OwnedFd, name: &OsStr, path: &Path) -> io::Result<()> {
    match unlinkat(dir, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        // POSIX has EPERM for it
        Err(error @ (Errno::EISDIR | Errno::EPERM)) => {
            let is_dir = look_at(dir, name)?.is_some_and(|meta| meta.kind == FileKind::Directory);
            match is_dir && own_paths::is_own(path) {
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
        Err(Errno::EISDIR) if own_paths::is_own(path) => {
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

/// Brings a directory's names to the disk.
fn sync(dir: OwnedFd) -> io::Result<()> {
    match nix::unistd::fsync(&dir) {
        // file systems that cannot synchronise a directory have nothing to lose
        Ok(()) | Err(Errno::EINVAL) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
