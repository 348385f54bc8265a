//! The ledger's file.

use super::*;
use crate::testing::{NOW, at, fixed};

#[test]
fn a_ledger_is_read_as_it_was_written() {
    let root = fixed("corp-2026");
    let mut ledger =
        Ledger { updated: NOW, family: Some(Family::Suse), pending: true, changed: Some(NOW), ..Ledger::new() };
    let entry = LedgerAnchor {
        unwanted_since: Some(at(NOW, 7, "one")),
        shared: true,
        ..LedgerAnchor::new(&root, AnchorState::Grace)
    };
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
fn a_signature_that_matched_is_not_checked_again_and_no_other_passes_for_one() {
    let root = fixed("corp-2026");
    let entry = LedgerAnchor::new(&root, AnchorState::Desired);
    assert!(entry.verified, "it is written down when the anchor is entered");
    let mut der = root.der().to_vec();
    *der.last_mut().unwrap() ^= 1;
    let wrong = Anchor::from_der(&der).unwrap();
    let mut wrong_entry = LedgerAnchor::new(&wrong, AnchorState::Desired);
    assert!(!wrong_entry.verified);
    assert_eq!(wrong_entry.decode(&wrong.fingerprint).unwrap().self_signature(), SelfSignature::Wrong);
    wrong_entry.verified = true; // only to see that it is believed
    assert_eq!(wrong_entry.decode(&wrong.fingerprint).unwrap().self_signature(), SelfSignature::Verified);
    let older = LedgerAnchor { verified: false, ..entry };
    assert_eq!(older.decode(&root.fingerprint).unwrap().self_signature(), SelfSignature::Verified);
}

#[test]
fn one_failed_restart_makes_the_whole_try_a_failure() {
    let mut ledger = Ledger::new();
    ledger.end_restart_attempt(AttemptOutcome::Done);
    assert!(ledger.attempts.is_empty(), "nothing was tried");
    ledger.begin_restart_attempt(&at(NOW, 7, "one"));
    assert_eq!(ledger.attempts.last().map(|last| last.outcome.clone()), Some(None), "written down before it is made");
    for (outcome, known) in [
        (AttemptOutcome::Done, AttemptOutcome::Done),
        (AttemptOutcome::Failed("a".into()), AttemptOutcome::Failed("a".into())),
        (AttemptOutcome::Done, AttemptOutcome::Failed("a".into())),
        (AttemptOutcome::Failed("b".into()), AttemptOutcome::Failed("a".into())),
    ] {
        ledger.end_restart_attempt(outcome);
        assert_eq!(ledger.attempts.last().unwrap().outcome, Some(known));
    }
}

#[test]
fn files_that_are_written_are_known_with_their_directories_until_they_are_gone() {
    let mut ledger = Ledger::new();
    ledger.begin_registry_file("/certs.d/_default/a.crt", vec!["/certs.d".into(), "/certs.d/_default".into()]);
    ledger.begin_export("/export/a.pem", vec!["/export".into()]);
    assert_eq!(ledger.created.len(), 3);
    assert!(ledger.certs_files.contains("/certs.d/_default/a.crt") && ledger.exports.contains("/export/a.pem"));
    ledger.forget_registry_file("/certs.d/_default/a.crt");
    ledger.forget_export("/export/a.pem");
    assert!(ledger.certs_files.is_empty() && ledger.exports.is_empty());
    assert_eq!(ledger.created.len(), 3, "uninstall removes the directories");
}

#[test]
fn what_a_plan_knows_of_the_services_is_taken_over_and_nothing_else() {
    let mut planned = Ledger { pending: true, changed: Some(NOW), ..Ledger::new() };
    planned.certs_files.insert("/a".into());
    planned.hooks.insert(Fingerprint::of_der(b"a"), true);
    let taken = Ledger { updated: NOW, ..Ledger::new() }.with_services_of(&planned);
    let mut expected = Ledger { updated: NOW, ..Ledger::new() };
    expected.certs_files.insert("/a".into());
    assert_eq!(taken, expected);
    planned.hooks_done();
    assert!(planned.hooks.is_empty());
}
