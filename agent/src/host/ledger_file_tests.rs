//! A glance at the ledger sees what reading it would see.

use std::{fs, thread, time::Duration};

use super::*;
use crate::host::root::TICK;

#[test]
fn a_ledger_that_is_altered_is_seen_though_its_time_was_set_back() {
    let dir = tempfile::tempdir().unwrap();
    let root = HostRoot::open(dir.path()).unwrap();
    let path = dir.path().join(PATH.trim_start_matches('/'));
    write(&root, &Ledger { changed: Some(1), ..Ledger::new() }).unwrap();
    thread::sleep(Duration::from_secs(TICK as u64 + 2));
    let mut cache = Cache::default();
    let mut changed = |glances| {
        cache.glances = glances;
        let read = read_again(&root, &mut cache, &[]).unwrap();
        let Read::Good(ledger) = read else { panic!("{read:?}") };
        (ledger.changed, cache.meta.is_some())
    };
    assert_eq!(changed(false), (Some(1), true), "a glance is enough from now on");
    assert_eq!(changed(true), (Some(1), true));
    let before = fs::metadata(&path).unwrap().modified().unwrap();
    let text = fs::read_to_string(&path)
        .unwrap()
        .replace("\"changed\":1", "\"changed\":2")
        .replace("\"changed\": 1", "\"changed\": 2");
    fs::write(&path, text).unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_modified(before).unwrap();
    assert_eq!(changed(true), (Some(2), false), "too young for a glance");
    fs::remove_file(&path).unwrap();
    assert_eq!(changed(true).0, None);
}
