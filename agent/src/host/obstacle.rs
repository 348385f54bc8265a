//! What is in the way of a change on a host, and the way out.
//!
//! An error of the system says what went wrong, not at which name nor what to do. Where we know both, an [`Obstacle`] is the
//! error's content; for the errors of the system that a person can do something about, [`way_out`] says what.

use std::{fmt, io, path::Path};

use nix::{errno::Errno, unistd::geteuid};
use nodetrust_core::problem::{Problem, ProblemKind};

/// Something in the way.
#[derive(Debug)]
pub struct Obstacle {
    text: String,
    next: String,
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Obstacle {}

impl Obstacle {
    /// An error with what is in the way and what to do.
    pub fn error(kind: io::ErrorKind, text: impl Into<String>, next: impl Into<String>) -> io::Error {
        io::Error::new(kind, Self { text: text.into(), next: next.into() })
    }

    /// The host root cannot be opened.
    pub(super) fn host_root(path: &Path, error: Errno) -> io::Error {
        let error = io::Error::from(error);
        let usual = "name the directory at which the node's / is mounted: --host-root or NODETRUST_HOST_ROOT";
        let next = match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => usual.to_owned(),
            _ => way_out_or(&error, usual),
        };
        Self::error(error.kind(), format!("the host root {} cannot be opened: {error}", path.display()), next)
    }

    /// A directory, or a mount, has the name of a file of ours.
    pub(super) fn directory(path: &Path) -> io::Error {
        let path = path.display();
        Self::error(
            io::ErrorKind::IsADirectory,
            format!("{path} is a directory with something in it, and nodetrust needs the name for a file"),
            format!("see what is in {path} on the host and move it away"),
        )
    }

    /// Something else has the name of a directory.
    pub(super) fn no_directory(path: &Path, what: &str) -> io::Error {
        let path = path.display();
        Self::error(
            io::ErrorKind::InvalidData,
            format!("{path} is {what}, and nodetrust needs the name for a directory"),
            format!("see what {path} is on the host and move it away"),
        )
    }

    /// Something is mounted where nobody should have mounted anything.
    pub(super) fn mount(path: &Path) -> io::Error {
        let path = path.display();
        Self::error(
            io::ErrorKind::ResourceBusy,
            format!("something is mounted at {path}, in a directory of nodetrust's: what is in it was not touched"),
            format!("unmount {path} on the host"),
        )
    }
}

/// What a person can do about an error on a host's file; None if nothing better than a look at it is known.
pub fn way_out(error: &io::Error) -> Option<String> {
    if let Some(obstacle) = error.get_ref().and_then(|inner| inner.downcast_ref::<Obstacle>()) {
        return Some(obstacle.next.clone());
    }
    let errno = Errno::from_raw(error.raw_os_error()?);
    let next = match errno {
        Errno::ENOSPC | Errno::EDQUOT => "free space on the host's file system (`df`, and `df -i` for inodes)",
        Errno::EROFS => "the directory is on a read-only file system: use the system's own way to add a CA",
        Errno::EACCES | Errno::EPERM => refused(geteuid().is_root()),
        Errno::EMFILE => "nodetrust may open too few files: raise its limit (`ulimit -n`, LimitNOFILE= of its unit)",
        Errno::ENFILE => "the node has too many files open: raise fs.file-max, or find who keeps them open (`lsof`)",
        Errno::EAGAIN => "the pod or the node may have no more processes: see pids.max of its cgroup and `ulimit -u`",
        Errno::ENOMEM => "the pod or the node has no memory left: see memory.max of its cgroup",
        Errno::EIO => "the disk or the network file system reports errors: look at `dmesg` on the host",
        Errno::ELOOP => "the path leads through links in a circle: repair the links on the host",
        Errno::EBUSY => "something is mounted there: see `findmnt` on the host",
        _ => return None,
    };
    Some(next.to_owned())
}

/// What helps where the system refuses: not to be root, if one is root already.
fn refused(is_root: bool) -> &'static str {
    match is_root {
        false => {
            "run as root; with SELinux the container needs the type spc_t; `lsattr` shows files that were made immutable"
        }
        true => {
            "root is refused too: the container needs the capability DAC_OVERRIDE, and with SELinux the type spc_t; `lsattr` shows files \
             that were made immutable"
        }
    }
}

/// The same for an error with causes, of which one may be an error of the system.
pub fn way_out_of(error: &anyhow::Error) -> Option<String> {
    error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>()).find_map(way_out)
}

/// The same, or something for all other cases.
pub fn way_out_or(error: &io::Error, otherwise: &str) -> String {
    way_out(error).unwrap_or_else(|| otherwise.to_owned())
}

/// A file of the host could not be written.
pub fn write_problem(path: &str, error: &io::Error) -> Problem {
    let next = way_out_or(error, "look at the path on the host");
    Problem::new(ProblemKind::Write, format!("failed to write {path}: {error}"), next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_not_told_to_be_root() {
        assert!(refused(false).starts_with("run as root"));
        assert!(!refused(true).contains("run as root") && refused(true).contains("DAC_OVERRIDE"));
    }
}
