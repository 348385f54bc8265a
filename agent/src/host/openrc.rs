//! OpenRC, on hosts without systemd.
//!
//! Its tools look after processes by signals, which reach only their own PID namespace: from a pod without the host's, `rc-service`
//! calls a service that runs under supervise-daemon dead, and would stop it in vain. So the state is read from OpenRC's own
//! files, and a restart is made only from the host's PID namespace.

use std::io;

use super::{
    exec::{ExecError, HostExec},
    root::HostRoot,
    systemd::JobResult,
};

/// Present where OpenRC is the init system; its notes on each service.
const STATE: &str = "/run/openrc";
/// Where the services are.
const SERVICES: &str = "/etc/init.d";
/// Where it lies on Alpine and Gentoo, and on Debian.
const PROGRAMS: [&str; 2] = ["/sbin/rc-service", "/usr/sbin/rc-service"];

/// How a service is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenRcState {
    /// It was started and not stopped.
    Started,
    /// It is on the way up or down.
    Changing,
    /// It does not run.
    Stopped,
    /// There is none of this name.
    Absent,
}

/// Why OpenRC could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum OpenRcError {
    /// OpenRC without its tool.
    #[error("the host has no {}", PROGRAMS.join(" and no "))]
    NoProgram,
    /// Signals would not arrive, or at somebody else.
    #[error("OpenRC restarts services only from the host's PID namespace")]
    OtherProcesses,
    /// The host's files cannot be seen.
    #[error("failed to look at {STATE} and {SERVICES} of the host")]
    Look(#[source] io::Error),
    /// The tool did not run.
    #[error(transparent)]
    Exec(#[from] ExecError),
}

impl OpenRcError {
    /// What to do about it.
    pub fn next(&self) -> &'static str {
        match self {
            Self::Look(_) => "mount the host's / with its /run",
            Self::NoProgram => "restart the runtime by hand",
            Self::OtherProcesses => "restart it by hand, or give the agent the host's PID namespace (hostPID)",
            Self::Exec(_) => "run rc-service on the host by hand and look at what it says",
        }
    }
}

/// Whether the host runs OpenRC.
///
/// # Errors
/// If the host's files cannot be seen.
pub fn is_booted(root: &HostRoot) -> Result<bool, OpenRcError> {
    exists(root, STATE)
}

/// How a service is.
///
/// # Errors
/// If the host's files cannot be seen.
pub fn status(root: &HostRoot, service: &str) -> Result<OpenRcState, OpenRcError> {
    let noted = |state: &str| exists(root, &format!("{STATE}/{state}/{service}"));
    Ok(match () {
        () if !exists(root, &format!("{SERVICES}/{service}"))? => OpenRcState::Absent,
        () if noted("starting")? || noted("stopping")? => OpenRcState::Changing,
        () if noted("started")? => OpenRcState::Started,
        () => OpenRcState::Stopped,
    })
}

/// Whether we see the host's processes under the host's numbers. The host's /proc knows us by the number that we have there.
pub fn shares_processes(root: &HostRoot) -> bool {
    let ours = root.read("/proc/self/stat", 4096).unwrap_or_default();
    let number = String::from_utf8_lossy(&ours).split(' ').next().and_then(|number| number.parse::<u32>().ok());
    number == Some(std::process::id())
}

/// Restarts a service if it runs.
///
/// # Errors
/// If OpenRC cannot be asked, or the restart had not ended in time.
pub fn try_restart(exec: &HostExec<'_>, service: &str) -> Result<JobResult, OpenRcError> {
    if !shares_processes(exec.root) {
        return Err(OpenRcError::OtherProcesses);
    }
    let there = |program: &&str| matches!(exec.root.stat(program), Ok(Some(_)));
    let program = PROGRAMS.iter().copied().find(there).ok_or(OpenRcError::NoProgram)?;
    let finished = exec.run(program, &["--ifstarted", service, "restart"], None)?;
    Ok(match finished.code {
        Some(0) => JobResult::Done,
        _ => JobResult::Failed(finished.output.trim().to_owned()),
    })
}

fn exists(root: &HostRoot, path: &str) -> Result<bool, OpenRcError> {
    Ok(root.stat(path).map_err(OpenRcError::Look)?.is_some())
}
