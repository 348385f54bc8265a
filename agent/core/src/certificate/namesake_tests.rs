//! Tests of certificates that have a public root's name and key identifier, and another key.

use rcgen::{CertificateParams, DnType, KeyIdMethod, KeyPair};

use super::*;
use crate::testing::{anchor, params};

fn named(name: &str, id: &[u8]) -> CertificateParams {
    params(|params| {
        params.distinguished_name.push(DnType::CommonName, name);
        params.key_identifier_method = KeyIdMethod::PreSpecified(id.to_vec());
    })
}

#[test]
fn a_ca_that_poses_as_a_root_of_the_distribution_is_told() {
    let key = KeyPair::generate().unwrap();
    let root = anchor(named("Public Root", b"12345678901234567890").self_signed(&key).unwrap().der());
    let other_root = anchor(named("Another Root", b"09876543210987654321").self_signed(&key).unwrap().der());
    let others = Others::of([root.der(), other_root.der(), b"\x30\x03garbage"].into_iter());
    let fresh = |name, id: &[u8]| anchor(named(name, id).self_signed(&KeyPair::generate().unwrap()).unwrap().der());
    for name in ["Public Root", "public  ROOT"] {
        // OpenSSL treats both as one name.
        let warning = others.warning(&fresh(name, b"12345678901234567890")).unwrap();
        assert!(warning.contains(&root.fingerprint.fp16()) && warning.contains("another key"), "{warning}");
    }
    assert_eq!(others.warning(&fresh("Public Root", b"another identifier")), None, "a namesake as in any rotation");
    assert_eq!(others.warning(&fresh("My Root", b"12345678901234567890")), None, "another name");
    let reissued = anchor(named("Public Root", b"12345678901234567890").self_signed(&key).unwrap().der());
    assert_eq!(others.warning(&reissued), None, "the same key");
    assert_eq!(others.warning(&root), None, "itself");
}
