//! OpenRC, on hosts without systemd: `rc-service` of the host.

use std::io;

use super::{
    exec::{ExecError, Finished, HostExec},
    root::HostRoot,
    systemd::JobResult,
};

/// Present where OpenRC is the init system.
const BOOTED: &str = "/run/openrc";
/// Where it lies on Alpine and Gentoo.
const PROGRAMS: [&str; 2] = ["/sbin/rc-service", "/usr/sbin/rc-service"];

/// How a service is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It runs, as far as OpenRC knows.
    Started,
    /// It does not, or not yet, or not any more.
    Stopped,
    /// It was started and is gone.
    Crashed,
    /// There is none of this name.
    Absent,
}

/// Why OpenRC could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum OpenRcError {
    /// Another init system, or the host's `/run` is not there.
    #[error("the host does not run OpenRC: it has no {BOOTED}")]
    NoOpenRc,
    /// OpenRC without its tool.
    #[error("the host has no {}", PROGRAMS.join(" and no "))]
    NoProgram,
    /// The host's files cannot be seen.
    #[error("failed to look at {BOOTED} of the host")]
    Look(#[source] io::Error),
    /// The tool said something unexpected.
    #[error("rc-service failed: {0}")]
    Answer(String),
    /// The tool did not run.
    #[error(transparent)]
    Exec(#[from] ExecError),
}

impl OpenRcError {
    /// What to do about it.
    pub fn next(&self) -> &'static str {
        match self {
            Self::NoOpenRc | Self::Look(_) => {
                "where the host does run OpenRC, mount the host's / with its /run; elsewhere restart the runtime by hand"
            }
            Self::NoProgram => "restart the runtime by hand",
            Self::Answer(_) | Self::Exec(_) => "run rc-service on the host by hand and look at what it says",
        }
    }
}

/// Whether the host runs OpenRC.
///
/// # Errors
/// If the host's files cannot be seen.
pub fn is_booted(root: &HostRoot) -> Result<bool, OpenRcError> {
    Ok(root.stat(BOOTED).map_err(OpenRcError::Look)?.is_some())
}

/// How a service is.
///
/// # Errors
/// If OpenRC cannot be asked.
pub fn status(exec: &HostExec<'_>, service: &str) -> Result<Status, OpenRcError> {
    let exists = rc_service(exec, &["--exists", service])?;
    match exists.code {
        Some(0) => {}
        Some(1) => return Ok(Status::Absent),
        _ => return Err(OpenRcError::Answer(exists.output.trim().to_owned())),
    }
    // the codes of OpenRC's own `status`
    let status = rc_service(exec, &[service, "status"])?;
    match status.code {
        Some(0) => Ok(Status::Started),
        Some(32) => Ok(Status::Crashed),
        Some(3 | 4 | 8 | 16) => Ok(Status::Stopped),
        _ => Err(OpenRcError::Answer(status.output.trim().to_owned())),
    }
}

/// Restarts a service if it runs.
///
/// # Errors
/// If OpenRC cannot be asked, or the restart had not ended in time.
pub fn try_restart(exec: &HostExec<'_>, service: &str) -> Result<JobResult, OpenRcError> {
    let finished = rc_service(exec, &["--ifstarted", service, "restart"])?;
    Ok(match finished.code {
        Some(0) => JobResult::Done,
        _ => JobResult::Failed(finished.output.trim().to_owned()),
    })
}

fn rc_service(exec: &HostExec<'_>, args: &[&str]) -> Result<Finished, OpenRcError> {
    if !is_booted(exec.root)? {
        return Err(OpenRcError::NoOpenRc);
    }
    let there = |program: &&str| matches!(exec.root.stat(program), Ok(Some(_)));
    let program = PROGRAMS.iter().copied().find(there).ok_or(OpenRcError::NoProgram)?;
    Ok(exec.run(program, args, None)?)
}
