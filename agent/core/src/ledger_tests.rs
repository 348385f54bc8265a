//! The ledger's file.

use super::*;
use crate::testing::{NOW, at, fixed};

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
