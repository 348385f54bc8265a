//! Threads for work that would hold up others. None is needed to go on: where the node or the pod has no more (`pids.max`), the work
//! is done at once by whoever asks for it.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use tokio::sync::oneshot::{self, Receiver};

/// Does some work on a thread of its own, or here and now. The receiver gets the result, and nothing if the work panicked.
pub fn beside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Receiver<T> {
    let (done, result) = oneshot::channel();
    let work = Arc::new(Mutex::new(Some((work, done))));
    let todo = work.clone();
    let run = move || {
        let todo = todo.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((work, done)) = todo {
            let _ = done.send(work()); // whoever has asked may be gone by now
        }
    };
    if let Err(error) = thread::Builder::new().spawn(run) {
        tracing::warn!(%error, "no thread can be started: see pids.max of the pod's or unit's cgroup; work goes on without");
        let todo = work.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((work, done)) = todo {
            let _ = done.send(work());
        }
    }
    result
}

/// Whether a thread can be started now.
///
/// # Errors
/// As `pthread_create(3)`.
pub fn are_left() -> io::Result<()> {
    thread::Builder::new().spawn(|| ()).map(drop)
}
