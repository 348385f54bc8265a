//! How a containerd was started: by which program, with which configuration, at which socket.

use std::path::Path;

use nodetrust_core::runtime::{containerd::option, kinds::RuntimeKind};

use super::processes;
use crate::host::{file::FileKind, root::HostRoot, systemd::Unit};

/// What the command line of a containerd says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Launch {
    /// Its configuration, absolute on the host.
    pub(crate) config: String,
    /// The command line names it. A file that it does not name may be missing.
    pub(crate) names_config: bool,
    /// The socket that the command line names, which then counts before the one in the configuration.
    pub(crate) address: Option<String>,
    /// Programs that are this containerd, the one that runs first. `/proc/PID/exe` of a process of the host cannot be read with the
    /// pod's rights, so its command line says it, if the host runs it as root and only root can write the file: it is started to be
    /// asked. Another containerd that lies in a usual place is never taken for this one.
    pub(crate) programs: Vec<String>,
    /// The one that a restart would start, if the unit says so.
    pub(crate) next_program: Option<String>,
}

/// How the containerd of a unit was started; None for a runtime that is no containerd. `pid` is the process that pulls.
pub(crate) fn launch(root: &HostRoot, kind: RuntimeKind, pid: Option<u32>, unit: &Unit) -> Option<Launch> {
    let row = kind.row();
    let usual = row.config?;
    // the unit of a distribution runs the distribution
    let of_unit: &[String] = if row.child.is_some() { &[] } else { &unit.command };
    let running = pid.and_then(|pid| processes::command(root, pid).ok()).unwrap_or_default();
    let command = if running.is_empty() { of_unit } else { &running };
    let named = option(command, &["config", "c"]).filter(|file| file.starts_with('/'));
    let config = named.unwrap_or(usual).to_owned();
    let is_ours_to_ask = |program: &&String| is_containerd(program) && only_root_writes(root, program);
    let next_program = of_unit.first().filter(is_ours_to_ask).cloned();
    let bundled = row.program.and_then(|program| Some(format!("{}/{program}", data_dir(kind, &config)?)));
    let is_root = pid.is_some_and(|pid| processes::is_of_the_host(root, pid));
    let first = running.first().filter(|program| is_root && is_ours_to_ask(program)).cloned();
    let bundled = bundled.filter(|program| only_root_writes(root, program));
    let mut programs: Vec<String> = first.into_iter().chain(next_program.clone()).chain(bundled).collect();
    programs.dedup();
    let address = option(command, &["address", "a"]).map(str::to_owned);
    Some(Launch { config, names_config: named.is_some(), address, programs, next_program })
}

/// A program of that name, from the root. What is started by way of a shell has the shell's name.
fn is_containerd(program: &str) -> bool {
    let name = Path::new(program).file_name().and_then(|name| name.to_str()).unwrap_or_default();
    program.starts_with('/') && name.contains("containerd")
}

fn only_root_writes(root: &HostRoot, program: &str) -> bool {
    let meta = root.stat(program).ok().flatten();
    meta.is_some_and(|meta| meta.kind == FileKind::File && meta.owner.0 == 0 && meta.mode & 0o022 == 0)
}

/// The directory of a distribution's data. k3s and RKE2 write containerd's configuration below it.
fn data_dir(kind: RuntimeKind, config: &str) -> Option<&str> {
    match kind {
        RuntimeKind::K3s | RuntimeKind::Rke2 => config.strip_suffix("/agent/etc/containerd/config.toml"),
        RuntimeKind::K0s => Some("/var/lib/k0s"),
        _ => None,
    }
}
