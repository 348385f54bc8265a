//! Hints that something changed: inotify(7) on directories.
//!
//! A hint only starts a cycle earlier; what counts is what the cycle reads, and the slow poll of `resync` comes anyway. Only
//! directories are watched, since a kubelet volume changes by a rename inside one (facts D). Opening and reading are not asked
//! for: every program that uses TLS reads the bundle, and the agent must sleep through that.

use std::{
    collections::{BTreeMap, BTreeSet},
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

/// Watches directories and tells why a cycle should run.
#[derive(Debug)]
pub struct Watcher {
    inotify: Arc<Inotify>,
    events: UnboundedReceiver<Event>,
    watched: BTreeMap<PathBuf, (WatchDescriptor, Trigger)>,
}

/// Something happened in a directory; None if the kernel lost count of what.
type Event = Option<WatchDescriptor>;

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
        Ok(Self { inotify, events, watched: BTreeMap::new() })
    }

    /// Watches exactly these directories from now on. One that does not exist is stood in for by the nearest one above it, so
    /// that its appearance is noticed. A directory that was replaced under its name is watched anew.
    pub fn watch(&mut self, wanted: &[(PathBuf, Trigger)]) {
        let mut now = BTreeMap::new();
        for (path, trigger) in wanted {
            if let Some((path, descriptor)) = self.add(path) {
                now.insert(path, (descriptor, *trigger));
            }
        }
        let kept: BTreeSet<WatchDescriptor> = now.values().map(|(descriptor, _)| *descriptor).collect();
        for (descriptor, _) in self.watched.values().filter(|(descriptor, _)| !kept.contains(descriptor)) {
            // a watch whose directory is gone has ended by itself
            let _ = self.inotify.rm_watch(*descriptor);
        }
        self.watched = now;
    }

    /// Waits for hints; returns the triggers of all that are there, None if the thread has ended and only polling is left.
    pub async fn next(&mut self) -> Option<BTreeSet<Trigger>> {
        loop {
            let mut events = BTreeSet::from([self.events.recv().await?]);
            while let Ok(event) = self.events.try_recv() {
                events.insert(event);
            }
            let concerns = |wd: &WatchDescriptor| events.contains(&None) || events.contains(&Some(*wd));
            let triggers: BTreeSet<Trigger> =
                self.watched.values().filter(|(wd, _)| concerns(wd)).map(|(_, trigger)| *trigger).collect();
            if !triggers.is_empty() {
                return Some(triggers);
            }
        }
    }

    fn add(&self, path: &Path) -> Option<(PathBuf, WatchDescriptor)> {
        let mask = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_MODIFY
            | AddWatchFlags::IN_ATTRIB
            | AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF;
        for dir in path.ancestors() {
            match self.inotify.add_watch(dir, mask | AddWatchFlags::IN_ONLYDIR) {
                Ok(descriptor) => return Some((dir.to_owned(), descriptor)),
                Err(Errno::ENOENT | Errno::ENOTDIR) => {}
                Err(error) => {
                    tracing::warn!(path = %dir.display(), %error, "cannot watch; changes are noticed at the next resync");
                    return None;
                }
            }
        }
        None
    }
}

/// Passes the kernel's events on, one for each directory that a batch is about.
fn read(inotify: &Inotify, sender: &UnboundedSender<Event>) {
    loop {
        match inotify.read_events() {
            Ok(batch) => {
                let lost = |mask: AddWatchFlags| mask.contains(AddWatchFlags::IN_Q_OVERFLOW);
                let events: BTreeSet<Event> =
                    batch.iter().map(|event| (!lost(event.mask)).then_some(event.wd)).collect();
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
