//! What is watched from when on: nothing that happens may fall between reading a directory and watching it.

use std::{io::Read as _, time::Duration};

use tokio::time::timeout;

use super::*;

/// How long an event may take to arrive.
const SOON: Duration = Duration::from_secs(30);
/// How long to wait for an event that must not come.
const QUIET: Duration = Duration::from_millis(300);

fn drift(path: &Path) -> Vec<(PathBuf, Trigger)> {
    vec![(path.to_owned(), Trigger::Drift)]
}

async fn next(watcher: &mut DirectoryWatcher) -> Hint {
    timeout(SOON, watcher.next()).await.expect("no event").expect("inotify failed")
}

/// Lets events pass until none comes.
async fn drain(watcher: &mut DirectoryWatcher) {
    while timeout(QUIET, watcher.next()).await.is_ok() {}
}

#[tokio::test]
async fn what_is_watched_for_the_first_time_must_be_read_again() {
    let base = tempfile::tempdir().unwrap();
    let dir = base.path().join("anchors");
    fs::create_dir(&dir).unwrap();
    let mut watcher = DirectoryWatcher::new().unwrap();
    // The directory was read and is not watched yet, so no event comes.
    fs::write(dir.join("early"), "x").unwrap();
    assert_eq!(watcher.watch(&drift(&dir)), [Trigger::Drift].into());
    assert_eq!(watcher.watch(&drift(&dir)), BTreeSet::new(), "the same again is nothing new");
    fs::write(dir.join("late"), "x").unwrap();
    assert_eq!(next(&mut watcher).await, Hint::Changed([Trigger::Drift].into()));

    // The same directory is watched for another reason and under another name.
    let link = base.path().join("link");
    std::os::unix::fs::symlink(&dir, &link).unwrap();
    let both = [drift(&dir), vec![(link, Trigger::Source)]].concat();
    assert_eq!(watcher.watch(&both), [Trigger::Source].into());
    drain(&mut watcher).await;
    fs::write(dir.join("late"), "y").unwrap();
    assert_eq!(next(&mut watcher).await, Hint::Changed([Trigger::Drift, Trigger::Source].into()));
    assert_eq!(watcher.watch(&drift(&dir)), BTreeSet::new(), "less is nothing new");
}

#[tokio::test]
async fn a_directory_that_was_replaced_or_has_appeared_is_new() {
    let base = tempfile::tempdir().unwrap();
    let dir = base.path().join("anchors");
    let mut watcher = DirectoryWatcher::new().unwrap();
    assert_eq!(watcher.watch(&drift(&dir)), [Trigger::Drift].into(), "the one above stands in");
    fs::write(base.path().join("other"), "x").unwrap();
    assert!(timeout(QUIET, watcher.next()).await.is_err(), "what else happens above does not count");
    fs::create_dir(&dir).unwrap();
    assert_eq!(next(&mut watcher).await, Hint::Changed([Trigger::Drift].into()));
    assert_eq!(watcher.watch(&drift(&dir)), [Trigger::Drift].into(), "it may have been filled already");
    fs::rename(&dir, base.path().join("old")).unwrap();
    fs::create_dir(&dir).unwrap();
    assert_eq!(watcher.watch(&drift(&dir)), [Trigger::Drift].into(), "another one of the same name");
    for _ in 0..2 {
        // Events of the move may come late and renew the watch once more.
        drain(&mut watcher).await;
        watcher.watch(&drift(&dir));
    }
    assert_eq!(watcher.watch(&drift(&dir)), BTreeSet::new());
    fs::write(dir.join("file"), "x").unwrap();
    assert_eq!(next(&mut watcher).await, Hint::Changed([Trigger::Drift].into()), "the new one is watched");
    fs::remove_dir_all(&dir).unwrap();
    fs::create_dir(&dir).unwrap();
    assert_eq!(next(&mut watcher).await, Hint::Changed([Trigger::Drift].into()));
    drain(&mut watcher).await;
    assert_eq!(watcher.watch(&drift(&dir)), [Trigger::Drift].into(), "also if it has the number of the one before");
}

/// Every program that uses TLS opens the bundle.
#[tokio::test]
async fn the_agent_sleeps_while_others_read_what_is_watched() {
    let dir = tempfile::tempdir().unwrap();
    let bundle = dir.path().join("bundle");
    fs::write(&bundle, "x").unwrap();
    let mut watcher = DirectoryWatcher::new().unwrap();
    watcher.watch(&drift(dir.path()));
    for _ in 0..1000 {
        File::open(&bundle).unwrap().read_to_end(&mut Vec::new()).unwrap();
    }
    assert!(timeout(QUIET, watcher.next()).await.is_err(), "it was woken");

    // The kernel does not wake the thread either: no mask of the directory has IN_ACCESS, IN_CLOSE_NOWRITE or IN_OPEN (inotify(7)).
    let inode = format!(" ino:{:x} ", fs::metadata(dir.path()).unwrap().ino());
    let mut masks = Vec::new();
    for entry in fs::read_dir("/proc/self/fdinfo").unwrap().flatten() {
        let text = fs::read_to_string(entry.path()).unwrap_or_default();
        let lines = text.lines().filter(|line| line.starts_with("inotify ") && line.contains(&inode));
        let mask = |line: &str| line.split(" mask:").nth(1)?.split(' ').next().map(str::to_owned);
        masks.extend(lines.filter_map(mask).map(|mask| u32::from_str_radix(&mask, 16).unwrap()));
    }
    assert!(!masks.is_empty() && masks.iter().all(|mask| mask & (0x1 | 0x10 | 0x20) == 0), "{masks:x?}");

    fs::write(&bundle, "y").unwrap();
    assert_eq!(next(&mut watcher).await, Hint::Changed([Trigger::Drift].into()));
}
