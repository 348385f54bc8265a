//! What is watched from when on: nothing that happens may fall between reading a directory and watching it.

use std::fs;

use super::*;

fn drift(path: &Path) -> Vec<(PathBuf, Trigger)> {
    vec![(path.to_owned(), Trigger::Drift)]
}

#[tokio::test]
async fn what_is_watched_for_the_first_time_must_be_read_again() {
    let base = tempfile::tempdir().unwrap();
    let dir = base.path().join("anchors");
    fs::create_dir(&dir).unwrap();
    let mut watcher = Watcher::new().unwrap();
    // this is after the directory was read and before it is watched: no event will tell
    fs::write(dir.join("early"), "x").unwrap();
    assert_eq!(watcher.watch(&drift(&dir)), [Trigger::Drift].into());
    assert_eq!(watcher.watch(&drift(&dir)), BTreeSet::new(), "the same again is nothing new");
    fs::write(dir.join("late"), "x").unwrap();
    assert_eq!(watcher.next().await, Some(Hint::Changed([Trigger::Drift].into())));

    // the same directory for another reason
    let both = [drift(&dir), vec![(dir.clone(), Trigger::Source)]].concat();
    assert_eq!(watcher.watch(&both), [Trigger::Source].into());
    assert_eq!(watcher.watch(&drift(&dir)), BTreeSet::new(), "less is nothing new");
}

#[tokio::test]
async fn a_directory_that_was_replaced_or_has_appeared_is_new() {
    let base = tempfile::tempdir().unwrap();
    let dir = base.path().join("anchors");
    let mut watcher = Watcher::new().unwrap();
    assert_eq!(watcher.watch(&drift(&dir)), [Trigger::Drift].into(), "the one above stands in");
    fs::create_dir(&dir).unwrap();
    assert_eq!(watcher.next().await, Some(Hint::Changed([Trigger::Drift].into())));
    assert_eq!(watcher.watch(&drift(&dir)), [Trigger::Drift].into(), "it may have been filled already");
    fs::rename(&dir, base.path().join("old")).unwrap();
    fs::create_dir(&dir).unwrap();
    assert_eq!(watcher.watch(&drift(&dir)), [Trigger::Drift].into(), "another one of the same name");
    assert_eq!(watcher.watch(&drift(&dir)), BTreeSet::new());
}
