//! Removing files and whole trees by handles: no step resolves a path that could lead elsewhere by now.

use std::{
    ffi::{OsStr, OsString},
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use nix::{
    dir::Dir,
    errno::Errno,
    fcntl::{OFlag, openat},
    sys::stat::{Mode, fstat},
    unistd::{UnlinkatFlags, unlinkat},
};

use super::obstacle::Obstacle;

/// Levels of a tree that is removed.
const MAX_DEPTH: usize = 16;

/// Removes what has a name in a directory, with all that is in it. `path` is for messages.
///
/// # Errors
/// As [`HostRoot::remove_tree`](super::root::HostRoot::remove_tree).
pub(super) fn remove(parent: &OwnedFd, name: &OsStr, path: &Path) -> io::Result<()> {
    remove_below(parent, name, path, MAX_DEPTH)
}

fn remove_below(parent: &OwnedFd, name: &OsStr, path: &Path, depth: usize) -> io::Result<()> {
    let depth = depth.checked_sub(1).ok_or(Errno::ELOOP)?;
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let dir = match openat(parent, name, flags, Mode::empty()) {
        Ok(dir) => dir,
        Err(Errno::ENOENT) => return Ok(()),
        // a link, a file, a pipe, a socket
        Err(Errno::ELOOP | Errno::ENOTDIR | Errno::ENXIO) => return remove_other(parent, name, path),
        Err(error) => return Err(error.into()),
    };
    if mount_of(&dir)? != mount_of(parent)? {
        return Err(Obstacle::mount(path));
    }
    for name in names(&dir)? {
        let path = path.join(&name);
        remove_below(&dir, &name, &path, depth)?;
    }
    match unlinkat(parent, name, UnlinkatFlags::RemoveDir) {
        Err(Errno::EBUSY) => Err(Obstacle::mount(path)),
        Err(Errno::ENOENT) => Ok(()),
        result => Ok(result?),
    }
}

fn remove_other(parent: &OwnedFd, name: &OsStr, path: &Path) -> io::Result<()> {
    match remove_entry(parent, name, UnlinkatFlags::NoRemoveDir) {
        Err(error) if error.raw_os_error() == Some(Errno::EBUSY as i32) => Err(Obstacle::mount(path)),
        result => result,
    }
}

/// Which file system an open directory is on, and by which mount it was reached: a bind mount has the device of its source.
fn mount_of(dir: &OwnedFd) -> io::Result<(u64, Option<String>)> {
    // proc(5); where it cannot be read, the device alone has to tell
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", dir.as_raw_fd())).unwrap_or_default();
    let mount = info.lines().find_map(|line| line.strip_prefix("mnt_id:")).map(|id| id.trim().to_owned());
    Ok((fstat(dir)?.st_dev, mount))
}

fn names(dir: &OwnedFd) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    // a handle of its own, which reads from the beginning
    let again = openat(dir, ".", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    for entry in Dir::from_fd(again)?.iter() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if !matches!(name, b"." | b"..") {
            names.push(OsStr::from_bytes(name).to_owned());
        }
    }
    Ok(names)
}

/// Removes a name from a directory. Being gone already is no error.
pub(super) fn remove_entry(dir: &OwnedFd, name: &OsStr, flag: UnlinkatFlags) -> io::Result<()> {
    match unlinkat(dir, name, flag) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
