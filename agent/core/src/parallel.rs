//! Work on many things, shared out among threads.

use std::thread;

/// Threads at a time, whatever the number of cores: with fewer cores they take turns.
const MAX_THREADS: usize = 8;

/// Does some work on all items, in shares of at least so many; fewer are not worth a thread. The results in order.
pub fn in_shares<T: Sync, R: Send>(items: &[T], least: usize, work: impl Fn(&[T]) -> Vec<R> + Sync) -> Vec<R> {
    let work = &work;
    let threads = (items.len() / least.max(1)).clamp(1, MAX_THREADS);
    let mut shares = items.chunks(items.len().div_ceil(threads).max(1));
    let own = shares.next().unwrap_or_default();
    thread::scope(|scope| {
        let others: Vec<_> =
            shares.map(|share| (share, thread::Builder::new().spawn_scoped(scope, move || work(share)))).collect();
        let mut all = work(own);
        for (share, thread) in others {
            // without a thread the work is done here
            let done = thread.ok().and_then(|thread| thread.join().ok());
            all.extend(done.unwrap_or_else(|| work(share)));
        }
        all
    })
}
