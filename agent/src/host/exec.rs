//! Running the host's own programs in the host's own root.
//!
//! The program is never run from our root: it needs the host's loader and libraries. Our binary is run again as a helper
//! (`nodetrust __host-exec`), which changes its root and starts the program; so nothing is needed in the image, no shell is
//! involved and nothing unsafe is done between fork and exec. The helper's standard input is the lock: it is held until the
//! program ends, also if the agent is killed meanwhile.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, Read},
    os::unix::process::{CommandExt, ExitStatusExt},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, sync_channel},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nix::{
    sys::{
        signal::{SigSet, Signal, killpg},
        wait::{Id, WaitPidFlag, WaitStatus, waitid},
    },
    unistd::{Pid, getpgrp},
};

use super::{ledger, lock::HostLock, root::HostRoot};

/// The hidden command by which the binary calls itself.
pub const HELPER: &str = "__host-exec";

/// Output that is kept for messages, in bytes: the last ones.
const KEPT: usize = 4096;
/// Output that is kept where it is what is wanted, in bytes.
const WHOLE: usize = 1 << 20;
/// Time between SIGTERM and SIGKILL.
const LAST_CHANCE: Duration = Duration::from_secs(5);
/// How often a program is looked at whose output stays open.
const PAUSE: Duration = Duration::from_millis(50);

/// How a program ended.
#[derive(Debug)]
pub struct Finished {
    /// Its exit code, None if a signal ended it.
    pub code: Option<i32>,
    /// The end of what it printed.
    pub output: String,
    /// The part of it that was its standard output.
    pub stdout: String,
    /// How long it ran.
    pub duration: Duration,
}

/// A program that could not be run or did not end in time.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// It could not be started.
    #[error("failed to start `{program}`")]
    Start {
        /// Which.
        program: String,
        #[source]
        /// Why.
        source: io::Error,
    },
    /// It ran too long and was ended.
    #[error("`{program}` had not ended after {} s and was stopped", limit.as_secs_f32())]
    TimedOut {
        /// Which.
        program: String,
        /// How long it was allowed.
        limit: Duration,
    },
}

/// Runs programs on a host.
#[derive(Debug)]
pub struct HostExec<'a> {
    /// The host.
    pub root: &'a HostRoot,
    /// The lock under which they run, None for programs that only look.
    pub lock: Option<&'a HostLock>,
    /// How long one may run.
    pub limit: Duration,
}

impl HostExec<'_> {
    /// Runs a program, absolute on the host, with the content of a file of the host, or nothing, as its input.
    ///
    /// The environment is small and fixed: variables that change what the tools do (`TRANSACTIONAL_UPDATE`, `SSL_CERT_FILE`,
    /// `P11_KIT_…`) do not reach them (facts A.16).
    ///
    /// # Errors
    /// If it cannot be started or does not end in time. An exit code other than 0 is no error here.
    pub fn run(&self, program: &str, args: &[&str], input: Option<&str>) -> Result<Finished, ExecError> {
        self.run_keeping(KEPT, program, args, input)
    }

    /// The same for a program whose output is what is wanted: all of it is kept, up to 1 MiB.
    ///
    /// # Errors
    /// As [`HostExec::run`].
    pub fn ask(&self, program: &str, args: &[&str]) -> Result<Finished, ExecError> {
        self.run_keeping(WHOLE, program, args, None)
    }

    fn run_keeping(
        &self,
        kept: usize,
        program: &str,
        args: &[&str],
        input: Option<&str>,
    ) -> Result<Finished, ExecError> {
        let start_error = |source| ExecError::Start { program: program.to_owned(), source };
        let started = Instant::now();
        let mut command = Command::new("/proc/self/exe");
        command
            .arg(HELPER)
            .arg(self.root.path())
            .arg(input.unwrap_or(""))
            .arg(program)
            .args(args)
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("LC_ALL", "C")
            .env("HOME", "/root")
            .env("TMPDIR", ledger::TEMP)
            .stdin(match self.lock {
                Some(lock) => Stdio::from(lock.share().map_err(start_error)?),
                None => Stdio::null(),
            })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        let mut child = command.spawn().map_err(start_error)?;
        let output = collect(&mut child, kept);
        match wait(&mut child, &output, started + self.limit).map_err(start_error)? {
            Some((status, (stdout, stderr))) => {
                let output = format!("{stdout}{stderr}");
                Ok(Finished { code: status.code(), output, stdout, duration: started.elapsed() })
            }
            None => Err(ExecError::TimedOut { program: program.to_owned(), limit: self.limit }),
        }
    }
}

/// The helper: changes root, runs the program, exits as it did. Never returns.
///
/// Arguments: root, input file or an empty word, program, its arguments.
pub fn helper(mut args: impl Iterator<Item = OsString>) -> i32 {
    let (Some(root), Some(input), Some(program)) = (args.next(), args.next(), args.next()) else {
        return 64;
    };
    match run_in_root(Path::new(&root), Path::new(&input), Path::new(&program), args) {
        // as shells do
        Ok(status) => status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)),
        Err(error) => {
            // this process's standard error is what the agent reads
            #[expect(clippy::print_stderr)]
            {
                eprintln!("cannot run {} in {}: {error}", Path::new(&program).display(), Path::new(&root).display());
            }
            127
        }
    }
}

fn run_in_root(
    root: &Path,
    input: &Path,
    program: &Path,
    args: impl Iterator<Item = OsString>,
) -> io::Result<ExitStatus> {
    if root != Path::new("/") {
        nix::unistd::chroot(root)?;
    }
    nix::unistd::chdir("/")?;
    let input = if input.as_os_str().is_empty() { Stdio::null() } else { Stdio::from(File::open(input)?) };
    // a SIGTERM to the group is for the program; the helper stays until it has ended (std empties the child's mask)
    SigSet::from_iter([Signal::SIGTERM]).thread_block()?;
    // our own standard input, the lock, stays open here and does not reach the program
    let status = Command::new(program).args(args).stdin(input).status()?;
    if !status.success() {
        // A shell that was killed leaves its current command behind, which could still publish what it saw. The lock goes with us,
        // so that has to end before; the signal does not reach ourselves, see above.
        let _ = killpg(getpgrp(), Signal::SIGTERM); // usually nobody is left to hear it
    }
    Ok(status)
}

/// Collects the ends of both outputs; the receiver hears once when both are closed.
fn collect(child: &mut Child, kept: usize) -> Receiver<(String, String)> {
    let (sender, receiver) = sync_channel(1);
    let stdout = child.stdout.take().map(|stream| thread::spawn(move || last_bytes(stream, kept)));
    let stderr = child.stderr.take().map(|stream| thread::spawn(move || last_bytes(stream, kept)));
    thread::spawn(move || {
        let text = |reader: Option<JoinHandle<Vec<u8>>>| {
            let bytes = reader.and_then(|reader| reader.join().ok()).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let _ = sender.send((text(stdout), text(stderr))); // nobody listens after a time-out
    });
    receiver
}

fn last_bytes(mut stream: impl Read, kept: usize) -> Vec<u8> {
    let mut last = Vec::new();
    let mut chunk = [0; KEPT];
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => return last,
            Ok(n) => {
                last.extend_from_slice(&chunk[..n]);
                let excess = last.len().saturating_sub(kept);
                last.drain(..excess);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return last,
        }
    }
}

/// Waits until the child ends, None if it had to be stopped. A daemon that the program left behind may keep the output open;
/// what was printed until then is then not waited for.
fn wait(
    child: &mut Child,
    output: &Receiver<(String, String)>,
    end: Instant,
) -> io::Result<Option<(ExitStatus, (String, String))>> {
    let mut text = None;
    while Instant::now() < end {
        match text {
            None => match output.recv_timeout(PAUSE) {
                Ok(all) => text = Some(all),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            },
            Some(_) => thread::sleep(Duration::from_millis(1)),
        }
        if let Some(status) = child.try_wait()? {
            if !status.success() {
                // The helper was killed, or something in the middle was: what is left of the run must not go on beside the next
                // one, which writes the same files. After a success, a daemon that was left on purpose lives.
                let _ = killpg(group(child), Signal::SIGKILL); // usually nothing is left
            }
            let text = text.or_else(|| output.recv_timeout(PAUSE).ok()).unwrap_or_default();
            return Ok(Some((status, text)));
        }
    }
    stop(child)?;
    Ok(None)
}

/// The process group of a helper and all that it starts. Its number is not given to others while one of them lives.
fn group(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap_or(0))
}

/// Ends the child's whole process group: first kindly, since a tool may clean up after itself.
fn stop(child: &mut Child) -> io::Result<()> {
    let group = group(child);
    let _ = killpg(group, Signal::SIGTERM); // gone already is fine
    let end = Instant::now() + LAST_CHANCE;
    while Instant::now() < end {
        // not reaped yet, so that the group's number stays ours
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        if !matches!(waitid(Id::Pid(group), flags), Ok(WaitStatus::StillAlive)) {
            break;
        }
        thread::sleep(PAUSE);
    }
    let _ = killpg(group, Signal::SIGKILL);
    child.wait().map(|_| ())
}
