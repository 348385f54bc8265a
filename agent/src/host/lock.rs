//! The lock that serialises cycles on a host, whoever runs them: the agent, `apply`, a second agent by mistake.
//!
//! It is an open file description lock, so it can be handed to a child process: while a tool that outlived a killed agent
//! still runs, its helper keeps the lock, and the next agent waits. The file also holds a line about the last cycle, for
//! `status`; it lies in `/run` and is gone at a reboot.

use std::{
    fs::File,
    io::{self, Read, Seek, Write},
    os::unix::fs::FileExt,
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};

use super::{own_paths, root::HostRoot};

/// Time between two tries.
const PAUSE: Duration = Duration::from_millis(50);

/// The held lock.
#[derive(Debug)]
pub struct HostLock(Flock<File>);

impl HostLock {
    /// Takes the lock, waiting no longer than `patience`.
    ///
    /// # Errors
    /// `TimedOut` if somebody else keeps it; else as `open(2)`.
    pub fn take(root: &HostRoot, patience: Duration) -> io::Result<Self> {
        let end = Instant::now() + patience;
        let open = || loop {
            match root.open_lock(own_paths::LOCK) {
                // somebody else just removes what is in its place
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < end => thread::sleep(PAUSE),
                opened => return opened,
            }
        };
        let mut file = open()?;
        loop {
            file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) if root.is_same_file(own_paths::LOCK, &lock) => return Ok(Self(lock)),
                Ok(_) => open()?, // `uninstall` has removed it meanwhile: a lock without a name locks nobody out
                Err((file, Errno::EWOULDBLOCK | Errno::EINTR)) if Instant::now() < end => file,
                Err((_, Errno::EWOULDBLOCK)) => return Err(io::ErrorKind::TimedOut.into()),
                Err((_, error)) => return Err(error.into()),
            };
            thread::sleep(PAUSE);
        }
    }

    /// A second handle on the same lock, for a child process.
    ///
    /// # Errors
    /// As `dup(2)`.
    pub fn share(&self) -> io::Result<File> {
        self.0.try_clone()
    }

    /// Notes the last cycle.
    ///
    /// # Errors
    /// As `write(2)`.
    pub fn note(&mut self, text: &str) -> io::Result<()> {
        self.0.set_len(0)?;
        self.0.rewind()?;
        self.0.write_all_at(text.as_bytes(), 0)?;
        self.0.flush()
    }
}

/// Whether a cycle is still running on the host after `patience`. Where there is no lock file, or it cannot be read, none is known.
pub fn is_busy(root: &HostRoot, patience: Duration) -> bool {
    let end = Instant::now() + patience;
    let Ok(mut file) = root.open_own(own_paths::LOCK) else { return false };
    loop {
        file = match Flock::lock(file, FlockArg::LockSharedNonblock) {
            Err((file, Errno::EWOULDBLOCK | Errno::EINTR)) if Instant::now() < end => file,
            result => return matches!(result, Err((_, Errno::EWOULDBLOCK))),
        };
        thread::sleep(PAUSE);
    }
}

/// What the last cycle noted, if there was one since boot.
pub fn last_note(root: &HostRoot) -> Option<String> {
    let mut text = String::new();
    root.own_read(own_paths::LOCK, 1 << 20).ok()?.as_slice().read_to_string(&mut text).ok()?;
    Some(text).filter(|text| !text.is_empty())
}
