//! Running the host's own programs in the host's own root.
//!
//! The program is never run from our root: it needs the host's loader and libraries. Our binary is run again as a helper
//! (`nodetrust __host-exec`), which changes its root and starts the program; so nothing is needed in the image, no shell is
//! involved and nothing unsafe is done between fork and exec. The helper's standard input is the lock: it is held until the
//! program ends, also if the agent is killed meanwhile; and the helper reads what the program prints, so that it comes to its end then.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs::File,
    io::{self, Write},
    os::unix::process::{CommandExt, ExitStatusExt},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::{
        prctl::set_child_subreaper,
        signal::{SigSet, Signal, killpg},
        stat::{Mode, umask},
        wait::{Id, WaitPidFlag, WaitStatus, waitid},
    },
    unistd::{Pid, getpgrp},
};

use super::{lock::HostLock, output::ChildOutput, own_paths, processes::ProcessTable, relay, root::HostRoot};

/// Where the host's programs find others.
pub const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The hidden command by which the binary calls itself.
pub const HELPER: &str = "__host-exec";

/// Output that is kept for messages, in bytes: the last ones.
const KEPT: usize = 4096;
/// Output that is kept where it is what is wanted, in bytes.
const WHOLE: usize = 1 << 20;
/// Time between SIGTERM and SIGKILL.
const LAST_CHANCE: Duration = Duration::from_secs(5);
/// How often a program is looked at.
const PAUSE: Duration = Duration::from_millis(50);
/// How soon one that has closed its outputs is looked at first; then after twice as long, and so on, up to [`PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_micros(50);

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
        /// The program on the host.
        program: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// It ran too long and was ended.
    #[error("`{program}` had not ended after {} s and was stopped", limit.as_secs_f32())]
    TimedOut {
        /// The program on the host.
        program: String,
        /// How long it was allowed.
        limit: Duration,
    },
}

/// The helper's exit code where it could not run the program, as shells have it.
const NOT_RUN_CODE: i32 = 127;
/// How the helper begins to say so.
const NOT_RUN_WORDS: &str = "cannot run";
/// How it says that it may not change its root.
const NO_CHROOT_WORDS: &str = "the root cannot be changed";

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
            .env("PATH", SEARCH_PATH)
            .env("LC_ALL", "C")
            .env("HOME", "/root")
            .env("TMPDIR", own_paths::TEMP_DIR)
            .stdin(match self.lock {
                Some(lock) => Stdio::from(lock.share().map_err(start_error)?),
                None => Stdio::null(),
            })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        let mut child = command.spawn().map_err(start_error)?;
        let ended = ChildOutput::of(&mut child, kept).and_then(|output| wait(&mut child, output, started + self.limit));
        match ended.map_err(start_error)? {
            Some((status, (stdout, stderr))) => {
                let output = format!("{stdout}{stderr}");
                Ok(Finished { code: status.code(), output, stdout, duration: started.elapsed() })
            }
            None => Err(ExecError::TimedOut { program: program.to_owned(), limit: self.limit }),
        }
    }
}

impl Finished {
    /// What helps if the helper could not run the program at all; None if the program has run.
    pub fn why_not_run(&self) -> Option<&'static str> {
        let said = self.output.lines().next_back().filter(|said| said.starts_with(NOT_RUN_WORDS))?;
        let next = match said.contains(NO_CHROOT_WORDS) {
            true => "give the container the capability SYS_CHROOT, as the shipped DaemonSet has it",
            false => {
                "see on the host whether the program, its interpreter and its libraries are there and may be executed"
            }
        };
        (self.code == Some(NOT_RUN_CODE)).then_some(next)
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
            // this process's standard error is what the agent reads, if it still lives
            let (program, root) = (Path::new(&program).display(), Path::new(&root).display());
            let _ = writeln!(io::stderr(), "{NOT_RUN_WORDS} {program} in {root}: {error}");
            NOT_RUN_CODE
        }
    }
}

fn run_in_root(
    root: &Path,
    input: &Path,
    program: &Path,
    args: impl Iterator<Item = OsString>,
) -> io::Result<ExitStatus> {
    // What the program leaves behind becomes our child, whatever group or session it is in, so that it can be found and ended. Where
    // that cannot be had, its group is what can be ended.
    let _ = set_child_subreaper(true);
    let processes = ProcessTable::open().ok();
    if root != Path::new("/") {
        nix::unistd::chroot(root).map_err(|error| {
            let error = io::Error::from(error);
            io::Error::new(error.kind(), format!("{NO_CHROOT_WORDS}: {error}"))
        })?;
    }
    nix::unistd::chdir("/")?;
    let input = if input.as_os_str().is_empty() { Stdio::null() } else { Stdio::from(File::open(input)?) };
    // what the tools make by `>` is for everybody to read, whatever the umask of the shell or unit that we were started from
    umask(Mode::S_IWGRP | Mode::S_IWOTH);
    // a SIGTERM to the group is for the program; the helper stays until it has ended (std empties the child's mask)
    SigSet::from_iter([Signal::SIGTERM]).thread_block()?;
    // our own standard input, the lock, stays open here and does not reach the program
    let status = relay::run(Command::new(program).args(args).stdin(input))?;
    if !status.success() {
        // A shell that was killed leaves its current command behind, which could still publish what it saw. The lock goes with us,
        // so that has to end before; the signal does not reach ourselves, see above.
        let _ = killpg(getpgrp(), Signal::SIGTERM); // usually nobody is left to hear it
        if let Some(processes) = processes {
            end_all_below(&processes, Pid::this());
        }
    }
    Ok(status)
}

/// Ends what a program that failed has left, kindly at first.
fn end_all_below(processes: &ProcessTable, ancestor: Pid) {
    let end = Instant::now() + LAST_CHANCE / 5;
    processes.signal(&processes.below(ancestor), Signal::SIGTERM);
    loop {
        let left = processes.below(ancestor);
        if left.is_empty() {
            return;
        }
        if Instant::now() > end {
            processes.signal(&left, Signal::SIGKILL);
            return;
        }
        thread::sleep(PAUSE / 10);
    }
}

/// Waits until the child ends, None if it had to be stopped. A daemon that the program left behind may keep the output open;
/// what was printed until then is then not waited for.
fn wait(
    child: &mut Child,
    mut output: ChildOutput,
    end: Instant,
) -> io::Result<Option<(ExitStatus, (String, String))>> {
    let mut pause = FIRST_PAUSE;
    while Instant::now() < end {
        if output.collect(PAUSE.min(end.saturating_duration_since(Instant::now())))? {
            // mostly it is about to end
            thread::sleep(pause);
            pause = PAUSE.min(2 * pause);
        }
        if let Some(status) = child.try_wait()? {
            if !status.success() {
                // The helper was killed, or something in the middle was: what is left of the run must not go on beside the next
                // one, which writes the same files. After a success, a daemon that was left on purpose lives.
                let _ = killpg(group(child), Signal::SIGKILL); // usually nothing is left
            }
            output.collect(PAUSE)?;
            return Ok(Some((status, output.texts())));
        }
    }
    stop(child)?;
    Ok(None)
}

/// The process group of a helper and all that it starts. Its number is not given to others while one of them lives.
fn group(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap_or(0))
}

/// Ends the helper and all that descends from it: first kindly, since a tool may clean up after itself. What has left the group is
/// found below the helper, which takes in all orphans.
fn stop(child: &mut Child) -> io::Result<()> {
    let group = group(child);
    let processes = ProcessTable::open();
    let mut below = BTreeSet::new();
    let mut look = || {
        if let Ok(processes) = &processes {
            below.extend(processes.below(group)); // also those of a moment ago: the helper may be gone before them
        }
    };
    look();
    let _ = killpg(group, Signal::SIGTERM); // gone already is fine
    let end = Instant::now() + LAST_CHANCE;
    while Instant::now() < end {
        look();
        // not reaped yet, so that the group's number stays ours
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        if !matches!(waitid(Id::Pid(group), flags), Ok(WaitStatus::StillAlive)) {
            break;
        }
        thread::sleep(PAUSE);
    }
    look();
    // the helper last: as long as it lives, what loses its parent stays below it
    let end = Instant::now() + LAST_CHANCE;
    if let Ok(processes) = &processes {
        while processes.signal(&below, Signal::SIGKILL) && Instant::now() < end {
            thread::sleep(PAUSE / 10);
            below.extend(processes.below(group));
        }
    }
    let _ = killpg(group, Signal::SIGKILL);
    child.wait().map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_was_not_run_says_what_the_helper_lacks() {
        let next = |code, output: &str| {
            let finished = Finished {
                code: Some(code),
                output: output.to_owned(),
                stdout: String::new(),
                duration: Duration::ZERO,
            };
            finished.why_not_run()
        };
        let chroot =
            "cannot run /usr/sbin/x in /host: the root cannot be changed: Operation not permitted (os error 1)\n";
        assert!(next(127, chroot).is_some_and(|next| next.contains("SYS_CHROOT")));
        let loader = "cannot run /usr/sbin/x in /host: No such file or directory (os error 2)\n";
        assert!(next(127, loader).is_some_and(|next| next.contains("interpreter")));
        assert_eq!(next(127, "sh: cannot run it: not found\n"), None, "the program's own");
        assert_eq!(next(1, chroot), None);
    }
}
