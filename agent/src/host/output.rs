//! What a child prints, collected by the one thread that waits for it: a node that has no more threads can still run its tool.

use std::{
    io::{self, Read},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    process::Child,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

/// Read at a time, in bytes.
const CHUNK: usize = 4096;
/// Chunks that are read of one stream before the other has its turn.
const TURN: usize = 16;

/// The ends of a child's two outputs.
#[derive(Debug)]
pub(super) struct ChildOutput([ChildStream; 2]);

#[derive(Debug)]
struct ChildStream {
    /// None when it was closed
    pipe: Option<std::fs::File>,
    last: Vec<u8>,
    kept: usize,
}

impl ChildOutput {
    /// Takes a child's pipes; of each, the last `kept` bytes are kept.
    ///
    /// # Errors
    /// As `fcntl(2)`.
    pub(super) fn of(child: &mut Child, kept: usize) -> io::Result<Self> {
        let stdout = child.stdout.take().map(OwnedFd::from);
        let stderr = child.stderr.take().map(OwnedFd::from);
        Ok(Self([ChildStream::new(stdout, kept)?, ChildStream::new(stderr, kept)?]))
    }

    /// Reads what comes within this time; returns whether both are closed.
    ///
    /// # Errors
    /// As `poll(2)`.
    pub(super) fn collect(&mut self, limit: Duration) -> io::Result<bool> {
        let end = Instant::now() + limit;
        loop {
            let mut open: Vec<PollFd<'_>> = self
                .0
                .iter()
                .filter_map(|stream| stream.pipe.as_ref())
                .map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN))
                .collect();
            if open.is_empty() {
                return Ok(true);
            }
            // in whole milliseconds, rounded up: with a part of one, poll(2) would return at once, again and again until it is over
            let left = end.saturating_duration_since(Instant::now()) + Duration::from_micros(999);
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            let ready: Vec<i32> = match poll(&mut open, timeout) {
                Ok(_) => open.iter().filter(|fd| fd.any() == Some(true)).map(|fd| fd.as_fd().as_raw_fd()).collect(),
                Err(Errno::EINTR) => Vec::new(),
                Err(error) => return Err(error.into()),
            };
            for stream in &mut self.0 {
                if stream.pipe.as_ref().is_some_and(|pipe| ready.contains(&pipe.as_raw_fd())) {
                    stream.read();
                }
            }
            if Instant::now() >= end {
                return Ok(self.0.iter().all(|stream| stream.pipe.is_none()));
            }
        }
    }

    /// What was read: standard output and standard error.
    pub(super) fn texts(&self) -> (String, String) {
        let text = |stream: &ChildStream| String::from_utf8_lossy(&stream.last).into_owned();
        (text(&self.0[0]), text(&self.0[1]))
    }
}

impl ChildStream {
    fn new(pipe: Option<OwnedFd>, kept: usize) -> io::Result<Self> {
        if let Some(pipe) = &pipe {
            // of our end only: the child's writes block as ever
            fcntl(pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        }
        Ok(Self { pipe: pipe.map(Into::into), last: Vec::new(), kept })
    }

    fn read(&mut self) {
        let mut chunk = [0; CHUNK];
        for _ in 0..TURN {
            let Some(pipe) = &mut self.pipe else { return };
            match pipe.read(&mut chunk) {
                Ok(0) => self.pipe = None,
                Ok(n) => {
                    self.last.extend_from_slice(&chunk[..n]);
                    let excess = self.last.len().saturating_sub(self.kept);
                    self.last.drain(..excess);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.pipe = None, // what was read until then is what there is
            }
        }
    }
}
