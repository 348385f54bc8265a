//! Time that has surely passed, the ledger's file, and which names are ours.

use super::*;
use crate::testing::{NOW, at, fixed};

#[test]
fn in_one_boot_only_the_clock_that_never_jumps_counts() {
    let since = at(NOW, 100, "one");
    for wall in [i64::MIN, 0, NOW, NOW + 1_000_000, i64::MAX] {
        assert_eq!(at(wall, 160, "one").elapsed_since(&since, NOW), 60, "{wall}");
    }
    assert_eq!(at(NOW, 40, "one").elapsed_since(&since, NOW), 0);
}

#[test]
fn over_a_reboot_the_wall_clock_counts_unless_it_is_behind_the_ledger() {
    let since = at(NOW, 100, "one");
    assert_eq!(at(NOW + 60, 5, "two").elapsed_since(&since, NOW), 60);
    assert_eq!(at(NOW + 60, 5, "two").elapsed_since(&since, NOW + 61), 5, "behind the last entry: the time since boot");
    assert_eq!(at(NOW - 10, 5, "two").elapsed_since(&since, i64::MIN), 5, "before it began");
    assert_eq!(at(i64::MAX, 5, "two").elapsed_since(&at(i64::MIN, 0, "one"), 0), i64::MAX as u64);
}

#[test]
fn a_ledger_is_read_as_it_was_written() {
    let root = fixed("corp-2026");
    let mut ledger =
        Ledger { updated: NOW, family: Some(Family::Suse), pending: true, changed: Some(NOW), ..Ledger::new() };
    let entry =
        LedgerAnchor { left: Some(at(NOW, 7, "one")), shared: true, ..LedgerAnchor::new(&root, AnchorState::Grace) };
    ledger.anchors.insert(root.fingerprint, entry);
    ledger.sources.insert("org".into(), LedgerSource { anchors: [root.fingerprint].into(), changed: NOW });
    ledger.created.insert("/x".into());
    ledger.hooks.insert(root.fingerprint, false);
    let bytes = ledger.to_bytes();
    assert!(bytes.ends_with(b"}\n"));
    assert_eq!(Ledger::parse(&bytes), Ok(ledger.clone()));
    assert_eq!(ledger.anchors[&root.fingerprint].anchor().as_ref(), Some(&*root), "an anchor can be healed from it");
    assert!(ledger.same_as(&Ledger { updated: 0, ..ledger.clone() }) && !ledger.is_blank());
}

#[test]
fn a_damaged_ledger_is_an_error_and_never_a_guess() {
    let good = Ledger::new().to_bytes();
    for length in 0..good.len() - 2 {
        assert!(Ledger::parse(&good[..length]).is_err(), "{length}");
    }
    assert!(Ledger::parse(br#"{"version":2}"#).unwrap_err().contains("version 2"));
    assert!(Ledger::parse(br#"{"version":1,"anchors":{"zz":{}}}"#).is_err());
    assert!(Ledger::parse(br#"{"version":1}"#).unwrap().is_blank());
    let root = fixed("corp-2026");
    for der in ["AAAA", "", "no base64"] {
        let entry =
            format!(r#"{{"version":1,"anchors":{{"{}":{{"state":"desired","der":"{der}"}}}}}}"#, root.fingerprint);
        let ledger = Ledger::parse(entry.as_bytes()).unwrap();
        assert_eq!(ledger.anchors[&root.fingerprint].anchor(), None, "{der}");
    }
}

#[test]
fn only_names_that_we_give_are_ours() {
    let store = Family::Debian.store();
    assert!(is_own_name(store, &file_name(store, &fixed("corp-2026").fingerprint)));
    for foreign in [
        "nodetrust-0123456789abcdef.pem",
        "nodetrust-0123456789ABCDEF.crt",
        "nodetrust-0123456789abcde.crt",
        "nodetrust-0123456789abcdef0.crt",
        "nodetrust-0123456789abcdefcrt",
        "nodetrust-corp-root-ca-old.crt",
        "nodetrust-.crt",
        "xnodetrust-0123456789abcdef.crt",
        "nodetrust-0123456789abcdef.crt~",
        "a/nodetrust-0123456789abcdef.crt",
        "",
    ] {
        assert!(!is_own_name(store, foreign), "{foreign}");
    }
}
