//! Other runs of the store's tool: by apt, a dpkg trigger, a path unit.

use std::{
    io, thread,
    time::{Duration, Instant},
};

use nodetrust_core::store::{Tool, TrustStore};

use crate::host::{self, root::HostRoot};

/// A temporary file of the tool that nobody has written to for this long was left by a run that was killed: far longer than
/// any step of the tool, since taking the file from under a live run would make that run install a short bundle.
pub(crate) const STALE_AFTER: Duration = Duration::from_secs(600);
/// A temporary file that nobody has written to for this long is not waited for: each step of the tool is far shorter.
const IDLE: Duration = Duration::from_secs(10);
/// How long another run of the tool is waited for altogether. On a slow node it takes ten seconds and more.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until no other run of the tool is in flight, so that what is read next is not about to be replaced by what that run
/// saw earlier. Bounded: a temporary file that nobody writes to counts as left behind.
pub fn await_other_runs(root: &HostRoot, store: &TrustStore) {
    let Tool::Staged { foreign_temp, .. } = store.tool else { return };
    let end = Instant::now() + PATIENCE;
    // what cannot be looked at is not waited for: the look that follows says so
    let is_written = || age(root, foreign_temp).ok().flatten().is_some_and(|age| age < IDLE);
    while Instant::now() < end && is_written() {
        thread::sleep(Duration::from_millis(5));
    }
}

/// How long ago the file was written, None if it does not exist. A time in the future counts as a distance too: a clock that was
/// set back must not make a dead file look alive for ever.
pub(crate) fn age(root: &HostRoot, path: &str) -> io::Result<Option<Duration>> {
    let now = host::wall();
    Ok(root.stat(path)?.map(|meta| Duration::from_secs(now.abs_diff(meta.modified))))
}
