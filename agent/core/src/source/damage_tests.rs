//! What comes in place of an anchor is taken for damage if it looks like it, for as long as the source says so.

use std::sync::Arc;

use rcgen::{CertificateParams, DnType, Issuer, KeyPair};

use super::*;
use crate::{
    ledger::{AnchorState, LedgerAnchor},
    source::{Resolved, SourceStatus, resolve::resolve},
    testing::{NOW, anchor, ca, files, fixed, params, source, source_of, unchecked},
};

fn at() -> Circumstances<'static> {
    Circumstances { drops_not_ca: Some(false), installed: &|_| false, now: NOW }
}

/// A node's memory from cycle to cycle.
struct Memory {
    ledger: Ledger,
    policy: Policy,
}

impl Default for Memory {
    fn default() -> Self {
        Self { ledger: Ledger::new(), policy: Policy::default() }
    }
}

impl Memory {
    /// One cycle over these sources; what it desires.
    fn cycle(&mut self, snapshots: &[Snapshot]) -> Resolved {
        let resolved = resolve(snapshots, &self.ledger, &self.policy, at());
        for wanted in resolved.desired.values() {
            let entry = LedgerAnchor::new(&wanted.anchor, AnchorState::Desired);
            self.ledger.anchors.insert(wanted.anchor.fingerprint, entry);
        }
        self.ledger.sources = crate::source::resolve::remember(&resolved, &self.ledger, NOW);
        self.ledger = Ledger::parse(&self.ledger.to_bytes()).unwrap(); // a restart
        resolved
    }
}

fn desired(resolved: &Resolved) -> BTreeSet<Fingerprint> {
    resolved.desired.keys().copied().collect()
}

fn prints(anchors: &[&Arc<Anchor>]) -> BTreeSet<Fingerprint> {
    anchors.iter().map(|anchor| anchor.fingerprint).collect()
}

fn named(name: &str) -> CertificateParams {
    params(|params| params.distinguished_name.push(DnType::CommonName, name))
}

/// A root of this name whose own signature was made by another key.
fn mixed_up(name: &str) -> Arc<Anchor> {
    let params = named(name);
    let other = KeyPair::generate().unwrap();
    let made = params.signed_by(&KeyPair::generate().unwrap(), &Issuer::from_params(&params, &other)).unwrap();
    let made = anchor(made.der());
    assert_eq!(made.self_signature(), SelfSignature::Wrong);
    made
}

/// A root of this name whose own signature cannot be checked here.
fn uncheckable(name: &str) -> Arc<Anchor> {
    let made = named(name).self_signed(&KeyPair::generate().unwrap()).unwrap();
    let made = anchor(&unchecked(made.der()));
    assert_eq!(made.self_signature(), SelfSignature::Unchecked);
    made
}

/// Every single-bit flip of three ordinary roots, in place of the root: it stays trusted, whatever the flip has made of it.
#[test]
fn no_flipped_bit_takes_a_root_away() {
    let other = fixed("inspection");
    for root in [fixed("corp-2026"), fixed("rsa-2048"), fixed("corp-2021")] {
        let mut before = Memory::default();
        before.cycle(&[source("org", &[&root, &other])]);
        let (mut accepted, mut lost) = (0, Vec::new());
        for bit in 0..root.der().len() * 8 {
            let mut der = root.der().to_vec();
            der[bit / 8] ^= 1 << (bit % 8);
            let Ok(flipped) = Anchor::from_der(&der) else { continue };
            accepted += 1;
            let content = files(&[&other.pem(), &flipped.pem()]);
            let found = resolve(&[source_of("org", content)], &before.ledger, &before.policy, at());
            if desired(&found) != prints(&[&root, &other]) {
                lost.push(format!("bit {bit}: {:?}", found.sources[0].rejections));
            }
        }
        assert!(accepted > 500, "{accepted} flips were read at all");
        assert_eq!(lost, [""; 0], "of {accepted}");
    }
}

#[test]
fn what_comes_in_place_of_its_namesake_is_refused_until_the_source_changes_again() {
    for newcomer in [mixed_up("Corp Root"), uncheckable("Corp Root")] {
        let (old, other) = (ca("Corp Root"), ca("Other"));
        let mut node = Memory::default();
        node.cycle(&[source("org", &[&old, &other])]);
        let remembered = node.ledger.sources.clone();
        for cycle in 0..3 {
            let found = node.cycle(&[source("org", &[&newcomer, &other])]);
            assert_eq!(desired(&found), prints(&[&old, &other]), "cycle {cycle}");
            let state = &found.sources[0];
            assert_eq!((state.status, state.rejections.len()), (SourceStatus::Ok, 1));
            let rejection = &state.rejections[0];
            assert_eq!((rejection.reason, rejection.sha256), (RejectReason::SelfSignature, Some(newcomer.fingerprint)));
            let text = &rejection.detail;
            assert!(text.contains("Corp Root") && text.contains(&old.fingerprint.fp16()), "{text}");
            assert!(text.contains("damaged copy") && text.contains("put both into the source"), "{text}");
            assert_eq!(node.ledger.sources, remembered, "the memory of what it said holds");
        }
        // The advice in the text works.
        let found = node.cycle(&[source("org", &[&newcomer, &old, &other])]);
        assert_eq!(desired(&found), prints(&[&newcomer, &old, &other]));
        assert_eq!(desired(&node.cycle(&[source("org", &[&newcomer, &other])])), prints(&[&newcomer, &other]));
    }
}

/// P-521 with SHA-256 is what OpenSSL makes of `-newkey ec:P-521` without more.
#[test]
fn a_new_key_of_every_curve_that_can_be_checked_takes_its_place_at_once() {
    for algorithm in [
        &rcgen::PKCS_ECDSA_P256_SHA256,
        &rcgen::PKCS_ECDSA_P384_SHA384,
        &rcgen::PKCS_ECDSA_P521_SHA256,
        &rcgen::PKCS_ECDSA_P521_SHA384,
        &rcgen::PKCS_ECDSA_P521_SHA512,
    ] {
        let made = || anchor(named("Corp Root").self_signed(&KeyPair::generate_for(algorithm).unwrap()).unwrap().der());
        let (old, new) = (made(), made());
        let mut node = Memory::default();
        node.cycle(&[source("org", &[&old])]);
        let found = node.cycle(&[source("org", &[&new])]);
        assert_eq!((desired(&found), found.sources[0].rejections.len()), (prints(&[&new]), 0), "{algorithm:?}");
    }
}

#[test]
fn the_original_goes_when_the_source_has_neither() {
    let (old, other, newcomer) = (ca("Corp Root"), ca("Other"), mixed_up("Corp Root"));
    let mut node = Memory::default();
    node.cycle(&[source("org", &[&old, &other])]);
    node.cycle(&[source("org", &[&newcomer, &other])]);
    assert_eq!(desired(&node.cycle(&[source("org", &[&other])])), prints(&[&other]));
    // Alone it makes the source unusable.
    let mut node = Memory::default();
    node.cycle(&[source("org", &[&old])]);
    for _ in 0..2 {
        let found = node.cycle(&[source("org", &[&newcomer])]);
        assert_eq!((found.sources[0].status, desired(&found)), (SourceStatus::Held, prints(&[&old])));
    }
}

#[test]
fn a_newcomer_that_replaces_nothing_is_accepted_with_a_finding() {
    let (other, root) = (ca("Other"), mixed_up("Corp Root"));
    let mut node = Memory::default();
    node.cycle(&[source("org", &[&other])]);
    let found = node.cycle(&[source("org", &[&root])]);
    assert_eq!(desired(&found), prints(&[&root]), "what left has another name");
    let warnings = found.desired[&root.fingerprint].warnings.join("\n");
    assert!(warnings.contains("signature does not match") && !found.has_findings(), "{warnings}");
    // A real rotation keeps the name.
    let renewed = ca("Corp Root");
    assert_eq!(desired(&node.cycle(&[source("org", &[&renewed])])), prints(&[&renewed]));
}

#[test]
fn a_policy_that_refuses_them_keeps_the_original_all_the_same() {
    let (old, other, newcomer) = (ca("Corp Root"), ca("Other"), mixed_up("Corp Root"));
    for policy in [
        Policy { self_signature: crate::source::policy::Unproven::Reject, ..Policy::default() },
        Policy { allowed: prints(&[&old, &other]), ..Policy::default() },
    ] {
        let mut node = Memory { policy, ..Memory::default() };
        node.cycle(&[source("org", &[&old, &other])]);
        assert_eq!(desired(&node.cycle(&[source("org", &[&newcomer, &other])])), prints(&[&old, &other]));
    }
    let mut node = Memory::default();
    node.cycle(&[source("org", &[&old, &other])]);
    node.policy.denied = prints(&[&old]);
    let found = node.cycle(&[source("org", &[&newcomer, &other])]);
    assert_eq!(desired(&found), prints(&[&newcomer, &other]), "what is denied stays for nobody's sake");
}

/// RFC 4210, 4.4: the new key signed by the old one, and the other way round, without an authorityKeyIdentifier that says so.
#[test]
fn the_links_between_two_generations_of_a_name_are_no_damage() {
    let (old_key, new_key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let params = named("Corp Root");
    let issuer = |key| Issuer::from_params(&params, key);
    let (old, new) = (params.self_signed(&old_key).unwrap(), params.self_signed(&new_key).unwrap());
    let new_with_old = anchor(params.signed_by(&new_key, &issuer(&old_key)).unwrap().der());
    let old_with_new = anchor(params.signed_by(&old_key, &issuer(&new_key)).unwrap().der());
    let (old, new) = (anchor(old.der()), anchor(new.der()));
    for link in [new_with_old, old_with_new] {
        assert_eq!(link.self_signature(), SelfSignature::Wrong);
        let mut node = Memory::default();
        node.cycle(&[source("org", &[&old])]);
        assert_eq!(desired(&node.cycle(&[source("org", &[&new, &link])])), prints(&[&new, &link]));
    }
}

#[test]
fn a_change_may_go_over_several_sources() {
    let (old, other, newcomer) = (ca("Corp Root"), ca("Other"), mixed_up("Corp Root"));
    let mut node = Memory::default();
    node.cycle(&[source("a", &[&old, &other]), source("b", &[&other])]);
    let moved = [source("a", &[&other]), source("b", &[&other, &newcomer])];
    for _ in 0..2 {
        assert_eq!(desired(&node.cycle(&moved)), prints(&[&old, &other]));
    }
    // The source was renamed in the configuration.
    let mut node = Memory::default();
    node.cycle(&[source("a", &[&old, &other])]);
    for _ in 0..2 {
        assert_eq!(desired(&node.cycle(&[source("z", &[&newcomer, &other])])), prints(&[&old, &other]));
    }
    // Another source still wants it, so nothing has left.
    let mut node = Memory::default();
    node.cycle(&[source("a", &[&old]), source("b", &[&old, &other])]);
    let found = node.cycle(&[source("a", &[&newcomer]), source("b", &[&old, &other])]);
    assert_eq!(desired(&found), prints(&[&old, &other, &newcomer]));
}
