//! The helper between a program of the host and the agent: it reads what the program prints and passes it on.
//!
//! A program that writes into a pipe without a reader is ended by the kernel, in the middle of whatever it does. So its reader is the
//! helper, which goes on to the end, also when the agent was killed and nobody hears what is passed on.

use std::{
    io::{self, Read, Write},
    os::fd::{AsFd, BorrowedFd},
    process::{Command, ExitStatus, Stdio},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

/// How often it is looked whether the program has ended while something that it started keeps its output open, in milliseconds.
const LOOK: u16 = 50;
/// What is read at once, in bytes.
const CHUNK: usize = 16 << 10;
/// What is still passed on after the program's end, in bytes: others that have its output may print for ever.
const AFTERWARDS: usize = 1 << 20;

/// One of the program's outputs, and ours that it goes to.
struct RelayedStream {
    /// None at its end
    from: Option<Box<dyn ReadableOutput>>,
    /// None once nobody hears it
    to: Option<Box<dyn Write>>,
}

trait ReadableOutput: Read + AsFd {}
impl<T: Read + AsFd> ReadableOutput for T {}

/// Runs a program to its end and passes on what it prints.
///
/// # Errors
/// If it cannot be started or waited for.
pub(super) fn run(command: &mut Command) -> io::Result<ExitStatus> {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let output = child.stdout.take().map(|from| Box::new(from) as Box<dyn ReadableOutput>);
    let errors = child.stderr.take().map(|from| Box::new(from) as Box<dyn ReadableOutput>);
    let mut streams = [
        RelayedStream { from: output, to: Some(Box::new(io::stdout())) },
        RelayedStream { from: errors, to: Some(Box::new(io::stderr())) },
    ];
    while streams.iter().any(|stream| stream.from.is_some()) {
        pass_on(&mut streams, PollTimeout::from(LOOK))?;
        if let Some(status) = child.try_wait()? {
            let mut passed = 0;
            loop {
                match pass_on(&mut streams, PollTimeout::ZERO)? {
                    0 => return Ok(status),
                    more if passed + more > AFTERWARDS => return Ok(status),
                    more => passed += more,
                }
            }
        }
    }
    child.wait()
}

/// Waits until something is printed and passes it on: how many bytes.
fn pass_on(streams: &mut [RelayedStream; 2], limit: PollTimeout) -> io::Result<usize> {
    let mut ready = [false; 2];
    {
        let open = streams.iter().enumerate();
        let open: Vec<(usize, BorrowedFd<'_>)> =
            open.filter_map(|(n, stream)| Some((n, stream.from.as_ref()?.as_fd()))).collect();
        let mut fds: Vec<PollFd<'_>> = open.iter().map(|(_, fd)| PollFd::new(*fd, PollFlags::POLLIN)).collect();
        match poll(&mut fds, limit) {
            Ok(_) => {}
            Err(Errno::EINTR) => return Ok(0),
            Err(error) => return Err(error.into()),
        }
        for ((n, _), fd) in open.iter().zip(&fds) {
            // also its end, or an error: reading tells
            ready[*n] = fd.any().unwrap_or(true);
        }
    }
    let mut passed = 0;
    for (stream, _) in streams.iter_mut().zip(ready).filter(|(_, ready)| *ready) {
        passed += stream.pass_on();
    }
    Ok(passed)
}

impl RelayedStream {
    /// Reads once what is there.
    fn pass_on(&mut self) -> usize {
        let mut chunk = [0; CHUNK];
        let Some(from) = &mut self.from else { return 0 };
        match from.read(&mut chunk) {
            Ok(0) => self.from = None,
            Ok(n) => {
                if let Some(to) = &mut self.to
                    && to.write_all(&chunk[..n]).and_then(|()| to.flush()).is_err()
                {
                    self.to = None; // the agent is gone; the program is read to its end all the same
                }
                return n;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => self.from = None,
        }
        0
    }
}
