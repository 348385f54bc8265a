//! One open directory of the host: its names and its own files, without walking the whole path for each of thousands.

use std::{
    ffi::{OsStr, OsString},
    io,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
};

use nix::{
    dir::{Dir, Type},
    errno::Errno,
    fcntl::{AtFlags, OFlag, openat, readlinkat},
    sys::stat::{Mode, fstatat},
};

use super::file::{FileKind, FileMeta, read_into};

/// A directory that was opened once: what is read in it is of that directory, whatever its path leads to by now.
#[derive(Debug)]
pub struct HostDirectory(OwnedFd);

impl HostDirectory {
    /// Takes an open directory.
    pub(super) fn new(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// The names in it with what they are, links not followed, sorted.
    ///
    /// # Errors
    /// As `readdir(3)`.
    pub fn names(&self) -> io::Result<Vec<(String, FileKind)>> {
        let mut names = Vec::new();
        for entry in Dir::from_fd(self.0.try_clone()?)?.iter() {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if matches!(name.as_bytes(), b"." | b"..") {
                continue;
            }
            let kind = match entry.file_type() {
                Some(Type::File) => FileKind::File,
                Some(Type::Directory) => FileKind::Directory,
                Some(Type::Symlink) => FileKind::Link,
                Some(_) => FileKind::Other,
                // a file system that does not tell
                None => match fstatat(&self.0, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
                    Ok(stat) => FileMeta::new(&stat).kind,
                    Err(Errno::ENOENT) => continue, // gone meanwhile
                    Err(error) => return Err(error.into()),
                },
            };
            // a name that is no UTF-8 is nobody's anchor; its escaped form is only shown
            names.push((name.to_string_lossy().into_owned(), kind));
        }
        names.sort_unstable_by(|a: &(String, FileKind), b| a.0.cmp(&b.0));
        Ok(names)
    }

    /// What a name in it is, a link not followed.
    ///
    /// # Errors
    /// As `stat(2)`.
    pub fn meta(&self, name: &str) -> io::Result<FileMeta> {
        Ok(FileMeta::new(&fstatat(&self.0, name, AtFlags::AT_SYMLINK_NOFOLLOW)?))
    }

    /// The target of a link in it; None if the name is no link or does not exist.
    ///
    /// # Errors
    /// As `readlink(2)`, except that it does not exist.
    pub fn link_target(&self, name: impl AsRef<OsStr>) -> io::Result<Option<OsString>> {
        match readlinkat(&self.0, name.as_ref()) {
            // readlink(2): EINVAL is the answer for what is no link
            Err(Errno::EINVAL | Errno::ENOENT) => Ok(None),
            target => Ok(Some(target?)),
        }
    }

    /// Reads a whole regular file in it; a link is not followed. `bytes` is for use again and again.
    ///
    /// # Errors
    /// As `open(2)`, `ELOOP` for a link, and `read(2)`; `InvalidData` if it is no regular file or has more than `limit` bytes.
    pub fn read(&self, name: &str, limit: u64, bytes: &mut Vec<u8>) -> io::Result<FileMeta> {
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        read_into(openat(&self.0, name, flags, Mode::empty())?, limit, bytes)
    }
}
