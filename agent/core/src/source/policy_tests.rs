//! What each rule lets through, refuses and warns of.

use std::sync::Arc;

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose};

use super::*;
use crate::testing::{NOW, anchor, fixed, self_signed};

type Judgement = Result<Vec<String>, (RejectReason, String)>;

fn made(edit: fn(&mut CertificateParams)) -> Arc<Anchor> {
    anchor(&self_signed(|params| {
        params.distinguished_name.push(rcgen::DnType::CommonName, "made");
        edit(params);
    }))
}

fn judged(anchor: &Anchor, policy: &Policy, drops_not_ca: Option<bool>) -> Judgement {
    judge(anchor, policy, Circumstances { drops_not_ca, installed: &|_| false, now: NOW })
}

fn verdict(judgement: &Judgement) -> Option<RejectReason> {
    judgement.as_ref().err().map(|(reason, _)| *reason)
}

#[test]
fn a_good_root_gets_in_without_a_word() {
    assert_eq!(judged(&fixed("corp-2026"), &Policy::default(), Some(true)), Ok(vec![]));
}

/// Every combination of policy.notCa, store and certificate.
#[test]
fn what_is_no_ca_is_judged_by_policy_and_store() {
    let leaf = made(|params| params.is_ca = IsCa::ExplicitNoCa);
    let unmarked = made(|params| params.is_ca = IsCa::NoCa);
    let not_for_servers = made(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]);
    for (not_ca, drops, no_ca_passes, client_ca_passes) in [
        (NotCa::Auto, Some(false), true, true),
        (NotCa::Auto, Some(true), false, false),
        (NotCa::Auto, None, true, true),
        (NotCa::Accept, Some(false), true, true),
        (NotCa::Accept, Some(true), true, true),
        (NotCa::Accept, None, true, true),
        (NotCa::Reject, Some(false), false, true),
        (NotCa::Reject, Some(true), false, false),
        (NotCa::Reject, None, false, true),
    ] {
        let policy = Policy { not_ca, ..Policy::default() };
        for (anchor, passes) in [(&leaf, no_ca_passes), (&unmarked, no_ca_passes), (&not_for_servers, client_ca_passes)]
        {
            let judgement = judged(anchor, &policy, drops);
            assert_eq!(
                verdict(&judgement),
                (!passes).then_some(RejectReason::NotCa),
                "{not_ca:?} {drops:?} {anchor:?}"
            );
            if let Ok(warnings) = judgement {
                assert!(warnings[0].contains("p11-kit"), "{warnings:?}");
            }
        }
        assert_eq!(verdict(&judged(&fixed("version-1"), &policy, drops)), None, "{not_ca:?}");
    }
}

#[test]
fn time_refuses_only_what_is_not_installed_yet() {
    let old = made(|params| params.not_after = rcgen::date_time_ymd(2021, 1, 1));
    let early = made(|params| params.not_before = rcgen::date_time_ymd(2039, 1, 1));
    let policy = Policy::default();
    assert_eq!(verdict(&judged(&old, &policy, None)), Some(RejectReason::Expired));
    let installed = |fingerprint: &Fingerprint| *fingerprint == old.fingerprint;
    let at = |now| Circumstances { drops_not_ca: None, installed: &installed, now };
    assert!(judge(&old, &policy, at(NOW)).unwrap()[0].contains("expired"));
    assert!(
        judged(&old, &Policy { expired: Acceptance::Accept, ..policy.clone() }, None).unwrap()[0].contains("expired")
    );
    assert!(judged(&early, &policy, None).unwrap()[0].contains("not valid yet"));
    assert_eq!(judge(&old, &policy, at(old.not_after)), Ok(vec![]), "the last second counts as valid");
    assert_eq!(judge(&early, &policy, at(early.not_before)), Ok(vec![]));
}

#[test]
fn weakness_is_told_and_refused_only_if_told_to() {
    let strict = Policy { weak: Acceptance::Reject, ..Policy::default() };
    for (name, word) in [("rsa-1024", "RSA 1024"), ("intermediate-sha1", "SHA-1")] {
        let weak = fixed(name);
        assert!(
            judged(&weak, &Policy::default(), None).unwrap().iter().any(|warning| warning.contains(word)),
            "{name}"
        );
        assert_eq!(verdict(&judged(&weak, &strict, None)), Some(RejectReason::Weak), "{name}");
    }
    for name in ["rsa-sha1", "rsa-md5", "rsa-2048"] {
        assert_eq!(
            verdict(&judged(&fixed(name), &strict, None)),
            None,
            "nobody verifies a root's own signature: {name}"
        );
    }
}

#[test]
fn lists_of_fingerprints_come_first() {
    let (root, other) = (fixed("corp-2026"), fixed("corp-2021"));
    let only = Policy { allowed: [root.fingerprint].into(), ..Policy::default() };
    assert_eq!(verdict(&judged(&root, &only, None)), None);
    assert_eq!(verdict(&judged(&other, &only, None)), Some(RejectReason::NotAllowed));
    let both = Policy { denied: [root.fingerprint].into(), ..only };
    assert_eq!(verdict(&judged(&root, &both, None)), Some(RejectReason::Denied), "a denial beats an allowance");
    let installed = |fingerprint: &Fingerprint| *fingerprint == root.fingerprint;
    let at = Circumstances { drops_not_ca: None, installed: &installed, now: NOW };
    assert_eq!(verdict(&judge(&root, &both, at)), Some(RejectReason::Denied), "also what is installed");
}

/// A root whose own signature is damaged.
fn wrongly_signed() -> Arc<Anchor> {
    let mut der = made(|_| {}).der().to_vec();
    *der.last_mut().unwrap() ^= 1;
    anchor(&der)
}

#[test]
fn what_its_own_signature_does_not_prove_is_accepted_unless_told_otherwise() {
    let strict = Policy { self_signature: Unproven::Reject, ..Policy::default() };
    for root in [wrongly_signed(), fixed("ed448")] {
        assert!(judged(&root, &Policy::default(), None).unwrap()[0].contains("own signature"), "{root:?}");
        assert_eq!(verdict(&judged(&root, &strict, None)), Some(RejectReason::SelfSignature), "{root:?}");
    }
    // Either there is nothing to prove, or the signature is proven.
    for name in ["corp-2026", "intermediate-sha1", "version-1"] {
        assert_eq!(verdict(&judged(&fixed(name), &strict, None)), None, "{name}");
    }
}

#[test]
fn every_oddity_is_told() {
    let word = |anchor: &Anchor, word: &str| {
        let warnings = judged(anchor, &Policy::default(), Some(false)).unwrap();
        assert!(warnings.iter().any(|warning| warning.contains(word)), "{word}: {warnings:?}");
    };
    word(&made(|params| params.key_usages = vec![KeyUsagePurpose::CrlSign]), "keyCertSign");
    word(&anchor(&self_signed(|_| {})), "subject is empty");
    word(&fixed("intermediate-sha1"), "intermediate");
    word(&fixed("ed448"), "could not be checked");
    word(&wrongly_signed(), "signature does not match");
    word(&fixed("ec-k256"), "Go does not read it (");
    let unknown = || rcgen::CustomExtension::from_oid_content(&[1, 2, 3], vec![5, 0]);
    let critical = anchor(&self_signed(|params| {
        let mut unknown = unknown();
        unknown.set_criticality(true);
        params.custom_extensions = vec![unknown];
    }));
    word(&critical, "1.2.3");
}
