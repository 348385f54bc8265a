//! Hints that something changed: inotify(7) on directories, and the table of mounts.
//!
//! A hint only starts a cycle earlier; what counts is what the cycle reads, and the slow poll of `resync` comes anyway. Only
//! directories are watched, since a kubelet volume changes by a rename inside one (facts D). Opening and reading are not asked
//! for: every program that uses TLS reads the bundle, and the agent must sleep through that. inotify says nothing of a mount over
//! a directory: when the table of mounts changes, the paths are watched anew, and one that leads elsewhere is a hint.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fs::File,
    io,
    os::fd::{AsFd, AsRawFd, RawFd},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor},
};
use tokio::io::{Interest, unix::AsyncFd};

use crate::reconcile::Trigger;

/// Hints, for as long as the kernel gives them: on a node where every inotify instance is taken, trust comes by polling.
#[derive(Debug, Default)]
pub struct Hints {
    watcher: Option<Watcher>,
    wanted: Vec<(PathBuf, Trigger)>,
    is_told: bool,
}

impl Hints {
    /// As [`Watcher::watch`]. Where there is no watcher, one is tried again each time.
    pub fn watch(&mut self, wanted: &[(PathBuf, Trigger)]) -> BTreeSet<Trigger> {
        self.wanted = wanted.to_vec();
        if self.watcher.is_none() {
            match Watcher::new() {
                Ok(watcher) => (self.watcher, self.is_told) = (Some(watcher), false),
                Err(error) if !self.is_told => {
                    let next = match error.raw_os_error().map(Errno::from_raw) {
                        Some(Errno::EMFILE) => {
                            "raise fs.inotify.max_user_instances on the host, or the agent's limit of open files"
                        }
                        _ => "see the error",
                    };
                    tracing::warn!(%error, next, "inotify cannot be started; the node is polled until it can");
                    self.is_told = true;
                }
                Err(_) => {}
            }
        }
        self.watcher.as_mut().map(|watcher| watcher.watch(wanted)).unwrap_or_default()
    }

    /// Waits for hints; for ever where there is no watcher, None once when it has ended.
    pub async fn next(&mut self) -> Option<BTreeSet<Trigger>> {
        loop {
            let Some(watcher) = &mut self.watcher else { return std::future::pending().await };
            match watcher.next().await {
                Some(Hint::Changed(triggers)) => return Some(triggers),
                Some(Hint::Mounts) => {
                    let wanted = std::mem::take(&mut self.wanted);
                    let elsewhere = self.watch(&wanted);
                    if !elsewhere.is_empty() {
                        return Some(elsewhere);
                    }
                }
                None => {
                    self.watcher = None;
                    return None;
                }
            }
        }
    }

    /// Whether every change in what is watched will be told.
    pub fn see_all(&self) -> bool {
        self.watcher.as_ref().is_some_and(|watcher| watcher.unwatched.is_empty())
    }
}

/// What the kernel tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hint {
    /// A cycle should run, for these reasons.
    Changed(BTreeSet<Trigger>),
    /// Something was mounted or unmounted: paths may lead elsewhere.
    Mounts,
}

/// Watches directories and tells why a cycle should run.
#[derive(Debug)]
pub struct Watcher {
    inotify: AsyncFd<Handle>,
    /// None where the kernel does not tell
    mounts: Option<AsyncFd<File>>,
    /// what to conclude from an event in a directory: with a name, only if the event is about that name
    watched: BTreeMap<WatchDescriptor, BTreeSet<(Option<OsString>, Trigger)>>,
    /// directories that could not be watched
    unwatched: BTreeSet<PathBuf>,
}

/// nix's type has no raw descriptor, which tokio wants.
#[derive(Debug)]
struct Handle(Inotify);

impl AsRawFd for Handle {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// Waits for a descriptor.
#[expect(
    deprecated,
    reason = "its successor is unsafe; both types that are used here own the descriptor that they give"
)]
fn register<T: AsRawFd>(owner: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    AsyncFd::with_interest(owner, interest)
}

/// Something happened to a name in a directory; None if the kernel lost count of what.
type Event = Option<(WatchDescriptor, Option<OsString>)>;

impl Watcher {
    /// A watcher of nothing. No thread waits for the kernel: the agent's loop does.
    ///
    /// # Errors
    /// If the kernel has no inotify instance left (`fs.inotify.max_user_instances`).
    pub fn new() -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        let inotify = register(Handle(inotify), Interest::READABLE)?;
        // proc(5): the table of mounts is ready with priority when it has changed
        let mounts = File::open("/proc/self/mountinfo");
        let mounts = mounts.and_then(|file| register(file, Interest::PRIORITY));
        if let Err(error) = &mounts {
            tracing::warn!(%error, "the table of mounts cannot be watched; a mount is noticed at the next resync");
        }
        Ok(Self { inotify, mounts: mounts.ok(), watched: BTreeMap::new(), unwatched: BTreeSet::new() })
    }

    /// Watches exactly these directories from now on. One that does not exist is stood in for by the nearest one above it, where
    /// only the appearance of what is missing counts. A directory that was replaced under its name is watched anew.
    ///
    /// Returns what was not watched until now: what happened there after it was last read, nobody has told.
    pub fn watch(&mut self, wanted: &[(PathBuf, Trigger)]) -> BTreeSet<Trigger> {
        let mut dirs: BTreeMap<&Path, BTreeSet<(Option<OsString>, Trigger)>> = BTreeMap::new();
        for (path, trigger) in wanted {
            let Some(dir) = path.ancestors().find(|dir| dir.is_dir()) else { continue };
            let missing = path.strip_prefix(dir).ok().and_then(|rest| rest.components().next());
            let name = missing.map(|name| name.as_os_str().to_owned());
            dirs.entry(dir).or_default().insert((name, *trigger));
        }
        let mut now: BTreeMap<WatchDescriptor, BTreeSet<(Option<OsString>, Trigger)>> = BTreeMap::new();
        let before = std::mem::take(&mut self.unwatched);
        for (dir, reasons) in dirs {
            let appears = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO;
            let changes = appears
                | AddWatchFlags::IN_DELETE
                | AddWatchFlags::IN_MODIFY
                | AddWatchFlags::IN_ATTRIB
                | AddWatchFlags::IN_CLOSE_WRITE
                | AddWatchFlags::IN_MOVED_FROM
                | AddWatchFlags::IN_DELETE_SELF
                | AddWatchFlags::IN_MOVE_SELF;
            let stands_in = reasons.iter().all(|(name, _)| name.is_some());
            let mask = if stands_in { appears } else { changes };
            match self.inotify.get_ref().0.add_watch(dir, mask | AddWatchFlags::IN_ONLYDIR) {
                Ok(descriptor) => now.entry(descriptor).or_default().extend(reasons),
                Err(Errno::ENOENT | Errno::ENOTDIR) => {} // gone again
                Err(error) => {
                    self.unwatched.insert(dir.to_owned());
                    if !before.contains(dir) {
                        let next = if error == Errno::ENOSPC {
                            "raise fs.inotify.max_user_watches on the host"
                        } else {
                            "look at the path"
                        };
                        tracing::warn!(path = %dir.display(), %error, next, "cannot watch a directory; the node is polled until it can");
                    }
                }
            }
        }
        for descriptor in self.watched.keys().filter(|descriptor| !now.contains_key(descriptor)) {
            // a watch whose directory is gone has ended by itself
            let _ = self.inotify.get_ref().0.rm_watch(*descriptor);
        }
        let before = std::mem::replace(&mut self.watched, now);
        let is_new = |descriptor: &WatchDescriptor, reason: &(Option<OsString>, Trigger)| {
            !before.get(descriptor).is_some_and(|reasons| reasons.contains(reason))
        };
        let reasons = self.watched.iter().flat_map(|(at, reasons)| reasons.iter().map(move |reason| (at, reason)));
        reasons.filter(|(at, reason)| is_new(at, reason)).map(|(_, (_, trigger))| *trigger).collect()
    }

    /// Waits for a hint; None if inotify has failed and only polling is left.
    pub async fn next(&mut self) -> Option<Hint> {
        loop {
            let mounted = async {
                match &self.mounts {
                    Some(mounts) => mounts.ready(Interest::PRIORITY).await.map(|mut ready| ready.clear_ready()),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                ready = self.inotify.readable() => {
                    let mut ready = ready.ok()?;
                    match ready.get_inner().0.read_events() {
                        Ok(batch) => {
                            // the events of one name in a batch count once
                            let lost = |mask: AddWatchFlags| mask.contains(AddWatchFlags::IN_Q_OVERFLOW);
                            let events: BTreeSet<Event> = batch
                                .into_iter()
                                .map(|event| (!lost(event.mask)).then_some((event.wd, event.name)))
                                .collect();
                            let triggers: BTreeSet<Trigger> =
                                events.iter().flat_map(|event| self.conclude(event)).collect();
                            if !triggers.is_empty() {
                                return Some(Hint::Changed(triggers));
                            }
                        }
                        Err(Errno::EAGAIN) => ready.clear_ready(),
                        Err(Errno::EINTR) => {}
                        Err(error) => {
                            tracing::error!(%error, "inotify failed; the node is polled until it can be started again");
                            return None;
                        }
                    }
                }
                ready = mounted => match ready {
                    Ok(()) => return Some(Hint::Mounts),
                    Err(error) => {
                        tracing::warn!(%error, "the table of mounts can no longer be watched");
                        self.mounts = None;
                    }
                },
            }
        }
    }

    fn conclude(&self, event: &Event) -> BTreeSet<Trigger> {
        match event {
            None => self.watched.values().flatten().map(|(_, trigger)| *trigger).collect(),
            Some((descriptor, name)) => {
                let reasons = self.watched.get(descriptor).into_iter().flatten();
                let fits = |wanted: &Option<OsString>| wanted.is_none() || wanted == name;
                reasons.filter(|(wanted, _)| fits(wanted)).map(|(_, trigger)| *trigger).collect()
            }
        }
    }
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
