//! Hints that something changed: the `notify` crate on directories, and the table of mounts.
//!
//! A hint only starts a cycle earlier. What counts is what the cycle reads, and the slow poll of `resync` comes anyway. Only
//! directories are watched, since a kubelet volume changes by a rename inside one (facts D). Opening and reading are not subscribed
//! to: every program that uses TLS reads the bundle, and the agent must sleep through that. The kernel tells nothing of a mount over
//! a directory: when the table of mounts changes, the paths are watched anew, and one that leads elsewhere is a hint.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use nix::errno::Errno;
use notify::{Config, EventKind, EventKindMask, INotifyWatcher, RecursiveMode, Watcher as _, event::ModifyKind};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::Notify,
};

use crate::host::threads;
use nodetrust_core::cycle::Trigger;

/// Hints, for as long as the kernel gives them: where no inotify instance or thread is left, the node is polled.
#[derive(Debug, Default)]
pub struct Hints {
    watcher: Option<DirectoryWatcher>,
    wanted: Vec<(PathBuf, Trigger)>,
    /// the log has why there is no watcher
    is_told: bool,
}

impl Hints {
    /// As [`DirectoryWatcher::watch`]. Where there is no watcher, each call tries to start one.
    pub fn watch(&mut self, wanted: &[(PathBuf, Trigger)]) -> BTreeSet<Trigger> {
        self.wanted = wanted.to_vec();
        if self.watcher.is_none() {
            match DirectoryWatcher::new() {
                Ok(watcher) => (self.watcher, self.is_told) = (Some(watcher), false),
                Err(error) if !self.is_told => {
                    let next = match error.raw_os_error().map(Errno::from_raw) {
                        Some(Errno::EMFILE) => {
                            "raise fs.inotify.max_user_instances on the host, or the agent's limit of open files"
                        }
                        Some(Errno::EAGAIN) => "raise pids.max of the pod's or unit's cgroup",
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

    /// Waits for hints; for ever where there is no watcher, None once when it has failed.
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

/// Why a directory is watched: with a name, only events of that name count.
type WatchReason = (Option<OsString>, Trigger);

/// A directory, whatever its name: device and inode.
type DirectoryId = (u64, u64);

/// Watches directories and tells why a cycle should run.
#[derive(Debug)]
pub struct DirectoryWatcher {
    inotify: INotifyWatcher,
    inbox: Arc<Inbox>,
    /// None where the kernel does not tell
    mounts: Option<AsyncFd<File>>,
    /// the path under which each directory is watched, and why; one path only, since an event names one only
    watched: BTreeMap<DirectoryId, (PathBuf, BTreeSet<WatchReason>)>,
    /// directories that could not be watched
    unwatched: BTreeSet<PathBuf>,
}

/// What the thread of `notify` hands to the agent's loop.
#[derive(Debug, Default)]
struct Inbox {
    state: Mutex<InboxState>,
    filled: Notify,
}

#[derive(Debug, Default)]
struct InboxState {
    /// what to conclude from an event in a directory
    reasons: BTreeMap<PathBuf, BTreeSet<WatchReason>>,
    /// what was concluded and not taken yet
    triggers: BTreeSet<Trigger>,
    /// directories that were removed, moved or unmounted: their watch has ended, or is on another path now
    lost: BTreeSet<PathBuf>,
    failed: Option<String>,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, InboxState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an event over; wakes the agent's loop if the event is a reason for a cycle.
    fn put(&self, event: notify::Result<notify::Event>) {
        let mut state = self.lock();
        match event {
            Err(error) => state.failed = Some(error.to_string()),
            // the kernel's queue has overflowed: anything may have happened
            Ok(event) if event.need_rescan() => {
                let all: Vec<Trigger> = state.reasons.values().flatten().map(|(_, trigger)| *trigger).collect();
                state.triggers.extend(all);
            }
            Ok(event) => {
                let is_gone = matches!(event.kind, EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_)));
                for path in &event.paths {
                    state.conclude(path, is_gone);
                }
            }
        }
        if !state.triggers.is_empty() || state.failed.is_some() {
            self.filled.notify_one();
        }
    }
}

impl InboxState {
    fn conclude(&mut self, path: &Path, is_gone: bool) {
        let mut triggers = BTreeSet::new();
        if let Some(reasons) = self.reasons.get(path) {
            // the directory itself
            triggers.extend(reasons.iter().filter(|(name, _)| name.is_none()).map(|(_, trigger)| *trigger));
            if is_gone {
                self.lost.insert(path.to_owned());
            }
        }
        if let (Some(reasons), Some(name)) = (path.parent().and_then(|dir| self.reasons.get(dir)), path.file_name()) {
            let fits = |wanted: &Option<OsString>| wanted.as_deref().is_none_or(|wanted| wanted == name);
            triggers.extend(reasons.iter().filter(|(wanted, _)| fits(wanted)).map(|(_, trigger)| *trigger));
        }
        self.triggers.extend(triggers);
    }
}

impl DirectoryWatcher {
    /// A watcher of nothing.
    ///
    /// # Errors
    /// If the kernel has no inotify instance left (`fs.inotify.max_user_instances`), or no thread can be started (`pids.max`).
    pub fn new() -> io::Result<Self> {
        threads::are_left()?;
        let inbox = Arc::new(Inbox::default());
        let kinds = EventKindMask::CORE | EventKindMask::ACCESS_CLOSE; // closing after a write; no opening, no reading
        let config = Config::default().with_event_kinds(kinds);
        let filled = inbox.clone();
        let inotify = INotifyWatcher::new(move |event| filled.put(event), config).map_err(io_error)?;
        // The crate does not tell whether its thread was started; it answers only if it was. Without the thread its `drop` panics.
        if let Err(error) = inotify.watched_paths() {
            std::mem::forget(inotify);
            return Err(io_error(error));
        }
        // proc(5): the table of mounts is ready with priority when it has changed
        let mounts = File::open("/proc/self/mountinfo").and_then(watch_priority);
        if let Err(error) = &mounts {
            tracing::warn!(%error, "the table of mounts cannot be watched; a mount is noticed at the next resync");
        }
        Ok(Self { inotify, inbox, mounts: mounts.ok(), watched: BTreeMap::new(), unwatched: BTreeSet::new() })
    }

    /// Watches exactly these directories from now on. Instead of one that does not exist, the nearest existing directory above it is
    /// watched, where only the appearance of what is missing counts. A directory that was replaced under its name is watched anew.
    ///
    /// Returns what was not watched until now: what happened there after it was last read, nobody has told.
    pub fn watch(&mut self, wanted: &[(PathBuf, Trigger)]) -> BTreeSet<Trigger> {
        let lost = std::mem::take(&mut self.inbox.lock().lost);
        let mut before = std::mem::take(&mut self.watched);
        before.retain(|_, (path, _)| {
            let is_lost = lost.contains(path);
            if is_lost {
                let _ = self.inotify.unwatch(path); // most often it has ended by itself
            }
            !is_lost
        });
        let mut now = directories(wanted, &before);
        // from here on events are judged by the new reasons: none may get lost that comes between the calls below
        self.inbox.lock().reasons = now.values().cloned().collect();
        for (id, (path, _)) in &before {
            if now.get(id).is_none_or(|(kept, _)| kept != path) {
                let _ = self.inotify.unwatch(path); // fails if its directory is gone, and with it the watch
            }
        }
        let was_unwatched = std::mem::take(&mut self.unwatched);
        now.retain(|id, (path, _)| {
            if before.get(id).is_some_and(|(known, _)| known == path) {
                return true;
            }
            match self.inotify.watch(path, RecursiveMode::NonRecursive) {
                // between the look and the watch another one may have taken its place
                Ok(()) if directory_id(path) == Some(*id) => true,
                Ok(()) => {
                    let _ = self.inotify.unwatch(path);
                    self.unwatched.insert(path.clone());
                    false
                }
                Err(error) if matches!(error.kind, notify::ErrorKind::PathNotFound) => false,
                Err(error) => {
                    if !was_unwatched.contains(path) {
                        let next = match error.kind {
                            notify::ErrorKind::MaxFilesWatch => "raise fs.inotify.max_user_watches on the host",
                            _ => "look at the path",
                        };
                        tracing::warn!(path = %path.display(), %error, next, "cannot watch a directory; the node is polled until it can");
                    }
                    self.unwatched.insert(path.clone());
                    false
                }
            }
        });
        self.watched = now;
        let is_new = |id: &DirectoryId, reason: &WatchReason| {
            !before.get(id).is_some_and(|(_, reasons)| reasons.contains(reason))
        };
        let reasons = self.watched.iter().flat_map(|(id, (_, reasons))| reasons.iter().map(move |reason| (id, reason)));
        reasons.filter(|(id, reason)| is_new(id, reason)).map(|(_, (_, trigger))| *trigger).collect()
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
                () = self.inbox.filled.notified() => {
                    let mut state = self.inbox.lock();
                    if let Some(error) = &state.failed {
                        tracing::error!(error, "inotify failed; the node is polled until it can be started again");
                        return None;
                    }
                    let triggers = std::mem::take(&mut state.triggers);
                    if !triggers.is_empty() {
                        return Some(Hint::Changed(triggers));
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
}

/// The directories to watch, each under one path: under the one before if that still leads to it.
fn directories(
    wanted: &[(PathBuf, Trigger)],
    before: &BTreeMap<DirectoryId, (PathBuf, BTreeSet<WatchReason>)>,
) -> BTreeMap<DirectoryId, (PathBuf, BTreeSet<WatchReason>)> {
    let mut directories: BTreeMap<DirectoryId, (PathBuf, BTreeSet<WatchReason>)> = BTreeMap::new();
    for (path, trigger) in wanted {
        let Some(dir) = path.ancestors().find(|dir| dir.is_dir()) else { continue };
        let Some(id) = directory_id(dir) else { continue };
        let missing = path.strip_prefix(dir).ok().and_then(|rest| rest.components().next());
        let name = missing.map(|name| name.as_os_str().to_owned());
        let (known, reasons) = directories.entry(id).or_insert_with(|| (dir.to_owned(), BTreeSet::new()));
        reasons.insert((name, *trigger));
        if before.get(&id).is_some_and(|(path, _)| path == dir) {
            dir.clone_into(known);
        }
    }
    directories
}

/// Which directory a path leads to; None if it leads to none.
fn directory_id(path: &Path) -> Option<DirectoryId> {
    fs::metadata(path).ok().filter(fs::Metadata::is_dir).map(|meta| (meta.dev(), meta.ino()))
}

fn io_error(error: notify::Error) -> io::Error {
    match error.kind {
        notify::ErrorKind::Io(error) => error,
        kind => io::Error::other(notify::Error::new(kind)),
    }
}

/// Waits for a file to be ready with priority.
#[expect(deprecated, reason = "its successor is unsafe; a `File` owns the descriptor that it gives")]
fn watch_priority(file: File) -> io::Result<AsyncFd<File>> {
    AsyncFd::with_interest(file, Interest::PRIORITY)
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
