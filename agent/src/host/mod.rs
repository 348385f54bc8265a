//! The host: its files, its programs, its lock. Everything that is done to a node goes through here.

mod change;
pub mod directory;
pub mod exec;
pub mod file;
pub mod http;
pub mod ledger_file;
pub mod lock;
pub mod obstacle;
pub mod openrc;
mod output;
pub mod own_paths;
pub(crate) mod processes;
mod relay;
pub mod root;
pub mod socket;
pub mod systemd;
pub mod threads;
mod tree;

use std::{io, path::Path, time::SystemTime};

use nix::time::{ClockId, clock_gettime};
use nodetrust_core::time::{Moment, Uptime};

use file::FileKind;
use root::HostRoot;

/// The present moment in the host's clocks.
///
/// # Errors
/// If the kernel does not tell its boot id, without which times cannot be compared over a reboot.
pub fn moment(root: &HostRoot) -> io::Result<Moment> {
    const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
    // the host's own view first: nodes that are containers have a boot id of their own
    let boot_id = match root.read(BOOT_ID, 256) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(_) => std::fs::read_to_string(BOOT_ID)?,
    };
    let boottime = clock_gettime(ClockId::CLOCK_BOOTTIME)?;
    Ok(Moment {
        wall: wall(),
        boottime: u64::try_from(boottime.tv_sec()).unwrap_or(0),
        boot_id: boot_id.trim().to_owned(),
    })
}

/// Milliseconds since the host's boot, by the clock that does not jump.
///
/// # Errors
/// As [`moment`].
pub fn uptime(root: &HostRoot) -> io::Result<Uptime> {
    let boot_id = moment(root)?.boot_id;
    Ok(uptime_in(boot_id))
}

/// The same, of the present boot, whose id is known: nothing is read. 0 where the kernel has no such clock, which [`moment`] has told.
pub fn uptime_in(boot_id: String) -> Uptime {
    let milliseconds = clock_gettime(ClockId::CLOCK_BOOTTIME)
        .map_or(0, |now| now.tv_sec().saturating_mul(1000).saturating_add(now.tv_nsec() / 1_000_000));
    Uptime { boot_id, milliseconds: u64::try_from(milliseconds).unwrap_or(0) }
}

/// Milliseconds since the epoch.
pub fn wall_milliseconds() -> i64 {
    match SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
        Err(_) => 0, // before 1970
    }
}

/// Seconds since the epoch.
pub fn wall() -> i64 {
    match SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        Err(before) => -i64::try_from(before.duration().as_secs()).unwrap_or(i64::MAX),
    }
}

/// Directories above a file of ours that do not exist yet, to be removed by `uninstall`.
///
/// # Errors
/// If one of them cannot be looked at: one that is not noted would stay behind.
pub fn missing_directories(root: &HostRoot, path: &str) -> io::Result<Vec<String>> {
    let mut missing = Vec::new();
    for dir in Path::new(path).ancestors().skip(1).filter(|dir| *dir != Path::new("/")) {
        let is_there = match own_paths::directories_above(dir) {
            // something else in its place is removed for it
            Some(_) => root.own_meta(dir)?.is_some_and(|meta| meta.kind == FileKind::Directory),
            None => root.stat(dir)?.is_some(),
        };
        if is_there {
            break;
        }
        missing.push(dir.display().to_string());
    }
    Ok(missing)
}

/// The node's name: `NODE_NAME`, which a pod gets from the downward API, else the host's name.
pub fn node_name(root: &HostRoot) -> String {
    let name = std::env::var("NODE_NAME").ok().filter(|name| !name.is_empty());
    name.or_else(|| {
        let bytes = root.read("/etc/hostname", 256).ok()?;
        Some(String::from_utf8_lossy(&bytes).trim().to_owned()).filter(|name| !name.is_empty())
    })
    .or_else(|| nix::unistd::gethostname().ok().map(|name| name.to_string_lossy().into_owned()))
    .unwrap_or_else(|| "node".to_owned())
}
