//! Hints that something changed: inotify(7) on directories.
//!
//! A hint only starts a cycle earlier; what counts is what the cycle reads, and the slow poll of `resync` comes anyway. Only
//! directories are watched, since a kubelet volume changes by a rename inside one (facts D). Opening and reading are not asked
//! for: every program that uses TLS reads the bundle, and the agent must sleep through that.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use nix::{
    errno::Errno,
    sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor},
};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::reconcile::Trigger;

/// Hints, for as long as the kernel gives them: on a node where every inotify instance is taken, trust comes by polling.
#[derive(Debug, Default)]
pub struct Hints {
    watcher: Option<Watcher>,
    is_told: bool,
}

impl Hints {
    /// As [`Watcher::watch`]. Where there is no watcher, one is tried again each time.
    pub fn watch(&mut self, wanted: &[(PathBuf, Trigger)]) -> BTreeSet<Trigger> {
        if self.watcher.is_none() {
            match Watcher::new() {
                Ok(watcher) => self.watcher = Some(watcher),
                Err(error) if !self.is_told => {
                    let next = "raise fs.inotify.max_user_instances on the host";
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
        let Some(watcher) = &mut self.watcher else { return std::future::pending().await };
        let hints = watcher.next().await;
        if hints.is_none() {
            self.watcher = None;
        }
        hints
    }

    /// Whether every change in what is watched will be told.
    pub fn see_all(&self) -> bool {
        self.watcher.as_ref().is_some_and(|watcher| watcher.sees_all)
    }

    /// Whether nothing will be told.
    pub fn are_missing(&self) -> bool {
        self.watcher.is_none()
    }
}

/// Watches directories and tells why a cycle should run.
#[derive(Debug)]
pub struct Watcher {
    inotify: Arc<Inotify>,
    events: UnboundedReceiver<Event>,
    /// what to conclude from an event in a directory: with a name, only if the event is about that name
    watched: BTreeMap<WatchDescriptor, BTreeSet<(Option<OsString>, Trigger)>>,
    /// no directory could not be watched
    sees_all: bool,
}

/// Something happened to a name in a directory; None if the kernel lost count of what.
type Event = Option<(WatchDescriptor, Option<OsString>)>;

impl Watcher {
    /// A watcher of nothing. A thread of its own waits for the kernel.
    ///
    /// # Errors
    /// If the kernel has no inotify instance left (`fs.inotify.max_user_instances`).
    pub fn new() -> std::io::Result<Self> {
        let inotify = Arc::new(Inotify::init(InitFlags::IN_CLOEXEC)?);
        let (sender, events) = unbounded_channel();
        let reader = inotify.clone();
        thread::Builder::new().name("inotify".to_owned()).spawn(move || read(&reader, &sender))?;
        Ok(Self { inotify, events, watched: BTreeMap::new(), sees_all: true })
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
        self.sees_all = true;
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
            match self.inotify.add_watch(dir, mask | AddWatchFlags::IN_ONLYDIR) {
                Ok(descriptor) => now.entry(descriptor).or_default().extend(reasons),
                Err(Errno::ENOENT | Errno::ENOTDIR) => {} // gone again
                Err(error) => {
                    self.sees_all = false;
                    tracing::warn!(path = %dir.display(), %error, "cannot watch; changes are noticed at the next resync");
                }
            }
        }
        for descriptor in self.watched.keys().filter(|descriptor| !now.contains_key(descriptor)) {
            // a watch whose directory is gone has ended by itself
            let _ = self.inotify.rm_watch(*descriptor);
        }
        let before = std::mem::replace(&mut self.watched, now);
        let is_new = |descriptor: &WatchDescriptor, reason: &(Option<OsString>, Trigger)| {
            !before.get(descriptor).is_some_and(|reasons| reasons.contains(reason))
        };
        let reasons = self.watched.iter().flat_map(|(at, reasons)| reasons.iter().map(move |reason| (at, reason)));
        reasons.filter(|(at, reason)| is_new(at, reason)).map(|(_, (_, trigger))| *trigger).collect()
    }

    /// Waits for hints; returns the triggers of all that are there, None if the thread has ended and only polling is left.
    pub async fn next(&mut self) -> Option<BTreeSet<Trigger>> {
        loop {
            let mut events = BTreeSet::from([self.events.recv().await?]);
            while let Ok(event) = self.events.try_recv() {
                events.insert(event);
            }
            let triggers: BTreeSet<Trigger> = events.iter().flat_map(|event| self.conclude(event)).collect();
            if !triggers.is_empty() {
                return Some(triggers);
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

/// Passes the kernel's events on, one for each name that a batch is about.
fn read(inotify: &Inotify, sender: &UnboundedSender<Event>) {
    loop {
        match inotify.read_events() {
            Ok(batch) => {
                let lost = |mask: AddWatchFlags| mask.contains(AddWatchFlags::IN_Q_OVERFLOW);
                let events: BTreeSet<Event> =
                    batch.into_iter().map(|event| (!lost(event.mask)).then_some((event.wd, event.name))).collect();
                if events.into_iter().any(|event| sender.send(event).is_err()) {
                    return; // the agent stops
                }
            }
            Err(Errno::EINTR) => {}
            Err(error) => {
                tracing::error!(%error, "inotify failed; changes are noticed at the next resync");
                return;
            }
        }
    }
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
