//! Whether a file of the host changed after a process started.
//!
//! The only time that nobody can set is the one at which an inode changed last, and it is a time of day, while starts are counted from
//! boot. A clock that was set between the two makes one of two comparisons wrong, never both: a file is older than a process only
//! if its age is more than the process's, and its time is before the time of day at which the process started, where that is known.

use std::{collections::VecDeque, io};

use nodetrust_core::runtime::process::ServiceProcess;

use super::processes;
use crate::host::{
    self,
    file::{FileKind, FileMeta, is_missing},
    root::HostRoot,
    systemd::Unit,
};

/// A file that changed this much after a process started may still have been read by it, since starts are rounded down to the clock
/// tick: milliseconds.
const TICK: i64 = 10;
/// How exactly the time of day of a start is known, in milliseconds: it is computed from another process's where a child counts.
const SLACK: i64 = 1000;
/// Links on one path, as in the kernel.
const MAX_LINKS: usize = 40;

/// The start of a process, by both clocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Since<'a> {
    root: &'a HostRoot,
    process: &'a ServiceProcess,
    /// milliseconds since the epoch, where the service manager has noted it
    wall: Option<i64>,
}

impl<'a> Since<'a> {
    /// The start of a unit's process that counts: its main one or a child of that.
    pub(crate) fn new(root: &'a HostRoot, process: &'a ServiceProcess, unit: &Unit) -> Self {
        let main = unit.main_pid.and_then(|pid| processes::started(root, pid));
        let later = main.and_then(|main| i64::try_from(process.started.milliseconds.checked_sub(main)?).ok());
        let noted = unit.started_at.and_then(|noted| i64::try_from(noted.as_millis()).ok());
        Self { root, process, wall: noted.zip(later).map(|(noted, later)| noted.saturating_add(later)) }
    }

    /// Whether a file or directory, or a link on the way to it, changed after that. What is not there has not changed; what cannot be looked
    /// at may have.
    pub(crate) fn changed(&self, path: &str) -> bool {
        let Ok(now) = host::uptime(self.root) else { return true };
        let runs = now.milliseconds.saturating_sub(self.process.started.milliseconds);
        let runs = i64::try_from(runs).unwrap_or(i64::MAX);
        let wall = host::wall_milliseconds();
        let Ok(metas) = on_the_way(self.root, path) else { return true };
        metas.iter().any(|meta| {
            let age = wall.saturating_sub(meta.changed);
            age < runs.saturating_sub(TICK)
                || self.wall.is_some_and(|started| meta.changed > started.saturating_add(SLACK))
        })
    }
}

/// The links on the way to a path, and what it leads to.
fn on_the_way(root: &HostRoot, path: &str) -> io::Result<Vec<FileMeta>> {
    let names =
        |path: &str| -> Vec<String> { path.split('/').filter(|name| !name.is_empty()).map(str::to_owned).collect() };
    let mut metas = Vec::new();
    let mut place = String::new();
    let mut rest = VecDeque::from(names(path));
    let mut links = 0;
    if rest.is_empty() {
        return Ok(root.stat("/")?.into_iter().collect());
    }
    while let Some(name) = rest.pop_front() {
        match name.as_str() {
            "." => continue,
            ".." => {
                place.truncate(place.rfind('/').unwrap_or(0));
                continue;
            }
            _ => {}
        }
        let dir = if place.is_empty() { "/" } else { &place };
        let Some(parent) = root.directory(dir)? else { return Ok(metas) };
        let meta = match parent.meta(&name) {
            Ok(meta) => meta,
            Err(error) if is_missing(&error) => return Ok(metas),
            Err(error) => return Err(error),
        };
        let whole = format!("{place}/{name}");
        if meta.kind == FileKind::Link {
            links += 1;
            let Some(target) = root.link_target(&whole)?.filter(|_| links <= MAX_LINKS) else { return Ok(metas) };
            let target = target.to_string_lossy().into_owned();
            for name in names(&target).into_iter().rev() {
                rest.push_front(name);
            }
            if target.starts_with('/') {
                place.clear();
            }
            metas.push(meta);
        } else {
            place = whole;
            if rest.is_empty() {
                metas.push(meta);
            }
        }
    }
    Ok(metas)
}

#[cfg(test)]
mod tests {
    use nodetrust_core::time::Uptime;

    use super::*;

    #[test]
    fn a_change_after_the_start_is_seen_by_either_clock() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.toml"), "").unwrap();
        std::os::unix::fs::symlink("a.toml", dir.path().join("b.toml")).unwrap();
        let root = HostRoot::open(dir.path()).unwrap();
        let now = host::uptime(&root).unwrap();
        let process = |ago: u64| ServiceProcess {
            invocation: String::new(),
            started: Uptime { milliseconds: now.milliseconds - ago, ..now.clone() },
        };
        let changed = |ago, wall, path| Since { root: &root, process: &process(ago), wall }.changed(path);
        let today = host::wall_milliseconds();
        for path in ["/a.toml", "/b.toml", "/./b.toml", "/", "/../a.toml"] {
            assert!(changed(60_000, None, path), "{path}: it ran for a minute before the file was made");
            assert!(!changed(0, None, path), "{path}: it started after that");
            assert!(!changed(0, Some(today), path), "{path}: and both clocks say so");
            // it says that it started a minute before the file was made; a clock that was set forward hides that from ages
            assert!(changed(0, Some(today - 60_000), path), "{path}");
        }
        assert!(!changed(60_000, Some(today - 60_000), "/missing"), "its directory tells");
        std::os::unix::fs::symlink("loop", dir.path().join("loop")).unwrap();
        assert!(changed(60_000, None, "/loop"), "and it ends");
    }
}
