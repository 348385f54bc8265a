//! A glance at our files sees what reading them would see.

use std::{
    fs::{self, File, FileTimes},
    io::Write,
    path::PathBuf,
    thread,
    time::Duration,
};

use super::*;
use crate::host::root::TICK;

/// A root with one file of ours in it.
struct Root {
    dir: tempfile::TempDir,
    file: PathBuf,
    name: String,
    cache: Cache,
}

impl Root {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Family::Debian.store();
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let anchor = Anchor::from_der(params.self_signed(&key).unwrap().der()).unwrap();
        let anchors_dir = dir.path().join(store.anchors_dir.trim_start_matches('/'));
        fs::create_dir_all(&anchors_dir).unwrap();
        let name = file_name(store, &anchor.fingerprint);
        let file = anchors_dir.join(&name);
        fs::write(&file, anchor.pem()).unwrap();
        fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
        Self { dir, file, name, cache: Cache::default() }
    }

    fn is_intact(&mut self, glances: bool) -> bool {
        let root = HostRoot::open(self.dir.path()).unwrap();
        self.cache.set_glances(glances);
        let observed = observe(&root, Family::Debian.store(), &BTreeSet::new(), &mut self.cache).unwrap();
        observed.ours.get(&self.name).is_some_and(|file| file.intact)
    }

    /// One byte becomes another; size, inode and time of modification stay.
    fn alter(&self) {
        let before = fs::metadata(&self.file).unwrap();
        let mut text = fs::read(&self.file).unwrap();
        let byte = &mut text[40];
        *byte = if *byte == b'A' { b'B' } else { b'A' };
        let mut file = File::options().write(true).open(&self.file).unwrap();
        file.write_all(&text).unwrap();
        file.set_times(FileTimes::new().set_modified(before.modified().unwrap())).unwrap();
    }
}

#[test]
fn a_file_that_is_altered_just_after_it_was_read_is_read_again() {
    let mut root = Root::new();
    assert!(root.is_intact(true));
    root.alter(); // perhaps within one tick of the clock for inodes
    assert!(!root.is_intact(true));
}

#[test]
fn a_file_that_is_altered_long_after_it_was_read_is_seen_though_its_time_was_set_back() {
    let mut root = Root::new();
    thread::sleep(Duration::from_secs(TICK as u64 + 2));
    assert!(root.is_intact(false));
    assert!(root.cache.stamps.contains_key(&root.name) && root.cache.names.is_some(), "a glance is enough from now on");
    assert!(root.is_intact(true) && root.is_intact(true));
    root.alter();
    assert!(!root.is_intact(true));
}

#[test]
fn a_glance_sees_a_mode_another_name_and_another_file() {
    let changes: [fn(&Root); 4] = [
        |root| fs::set_permissions(&root.file, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap(),
        |root| fs::hard_link(&root.file, root.dir.path().join("other")).unwrap(),
        |root| {
            fs::write(root.dir.path().join("other"), "x").unwrap();
            fs::rename(root.dir.path().join("other"), &root.file).unwrap();
        },
        |root| fs::remove_file(&root.file).unwrap(),
    ];
    let mut roots: Vec<Root> = changes.iter().map(|_| Root::new()).collect();
    thread::sleep(Duration::from_secs(TICK as u64 + 2));
    for (root, change) in roots.iter_mut().zip(changes) {
        assert!(root.is_intact(false) && root.is_intact(true));
        change(root);
        assert!(!root.is_intact(true));
    }
}
