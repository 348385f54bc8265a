//! Reads the extracted bundle without a pause during a test.

use std::{
    collections::BTreeSet,
    fs,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use nodetrust_core::certificate::bundle;

/// A thread that reads the bundle over and over: each version that it sees must be one that OpenSSL loads whole, with every
/// certificate once and with all of those that were never meant to leave.
pub struct Watchman {
    goes_on: Arc<AtomicBool>,
    versions: Arc<AtomicUsize>,
    found: Arc<Mutex<Vec<String>>>,
    thread: Option<JoinHandle<()>>,
}

impl Watchman {
    /// Starts to read a bundle that must always have these certificates.
    pub fn start(bundle: PathBuf, always: BTreeSet<String>) -> Self {
        let (goes_on, versions, found) =
            (Arc::new(AtomicBool::new(true)), Arc::<AtomicUsize>::default(), Arc::<Mutex<Vec<String>>>::default());
        let (go, count, faults) = (goes_on.clone(), versions.clone(), found.clone());
        let thread = thread::spawn(move || {
            let mut last = Vec::new();
            while go.load(Ordering::Relaxed) {
                let bytes = fs::read(&bundle).unwrap_or_default();
                if bytes != last {
                    count.fetch_add(1, Ordering::Relaxed);
                    faults.lock().unwrap().extend(judge(&bytes, &always));
                    last = bytes;
                }
                thread::sleep(Duration::from_millis(1));
            }
        });
        Self { goes_on, versions, found, thread: Some(thread) }
    }

    /// Ends, and fails the test if any version was wrong. Returns how many there were.
    #[track_caller]
    pub fn stop(mut self) -> usize {
        self.goes_on.store(false, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
        let found = self.found.lock().unwrap();
        assert!(found.is_empty(), "{} bad bundles were seen: {found:#?}", found.len());
        self.versions.load(Ordering::Relaxed)
    }
}

impl Drop for Watchman {
    fn drop(&mut self) {
        self.goes_on.store(false, Ordering::Relaxed);
    }
}

/// What is wrong with a bundle, if anything is.
pub fn judge(bytes: &[u8], always: &BTreeSet<String>) -> Option<String> {
    let read = bundle::read(bytes);
    let has: BTreeSet<String> = read.set.iter().map(ToString::to_string).collect();
    let lacks = always.difference(&has).count();
    let wrong = lacks > 0 || !read.faults.is_empty() || read.repeated() > 0 || read.private_key;
    wrong.then(|| {
        format!(
            "{} bytes, {} certificates: {lacks} missing, {} repeated, faults {:?}",
            bytes.len(),
            read.count,
            read.repeated(),
            read.faults.first()
        )
    })
}
