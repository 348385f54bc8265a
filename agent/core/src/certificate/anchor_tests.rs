//! Which bytes become an anchor, with which facts, and that no bytes whatever do harm.

use rcgen::{
    CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, NameConstraints, SerialNumber, SigningKey,
};

use super::*;
use crate::{
    certificate::pem,
    testing::{anchor, data, fixed, params, self_signed, unchecked},
};

/// The object identifier of basicConstraints.
const BASIC_CONSTRAINTS: &[u64] = &[2, 5, 29, 19];

fn reason(der: &[u8]) -> RejectReason {
    Anchor::from_der(der).unwrap_err().reason
}

fn extension(oid: &[u64], critical: bool, content: &[u8]) -> CustomExtension {
    let mut extension = CustomExtension::from_oid_content(oid, content.to_vec());
    extension.set_criticality(critical);
    extension
}

/// A self-signed Ed25519 certificate with `from` in its signed part replaced by `to`, and signed anew: well formed but for
/// that. Its signature always is the last 64 bytes.
fn forged(params: &CertificateParams, from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let mut der = params.self_signed(&key).unwrap().der().to_vec();
    let mut at = 0;
    while let Some(found) = der[at..].windows(from.len()).position(|window| window == from) {
        der[at + found..][..from.len()].copy_from_slice(to);
        at += found + from.len();
    }
    assert_ne!(at, 0, "nothing to replace");
    let tbs = crate::certificate::der::element(&der[4..]).unwrap().whole.len();
    let signature = key.sign(&der[4..4 + tbs]).unwrap();
    let end = der.len() - signature.len();
    der[end..].copy_from_slice(&signature);
    der
}

#[test]
fn many_blocks_are_decoded_as_one_by_one() {
    // The number is enough for several threads, with a smaller share for the last one.
    let kinds: Vec<Vec<u8>> = (0..7)
        .map(|n| self_signed(|params| params.distinguished_name.push(DnType::CommonName, format!("Root {n}"))))
        .chain([b"\x30\x03\x02\x01\x05".to_vec()])
        .collect();
    let blocks: Vec<Block> = (0..3 * BLOCKS_PER_THREAD + 5)
        .map(|n| Block { line: n, label: Label::Certificate, der: kinds[n * n % kinds.len()].clone() })
        .collect();
    let one_by_one: Vec<_> = blocks.iter().map(|block| Anchor::from_block(block.label, &block.der)).collect();
    assert!(one_by_one.iter().any(Result::is_ok));
    assert_eq!(Anchor::from_blocks(&blocks), one_by_one);
    assert_eq!(Anchor::from_blocks(&[]), []);
}

#[test]
fn a_good_root_has_all_its_facts() {
    let root = fixed("corp-2026");
    assert_eq!(root.subject.text, "O=Corp, CN=Corp Root CA");
    assert_eq!(root.subject.common, "Corp Root CA");
    assert_eq!(root.issuer, root.subject);
    assert_eq!(root.serial, "2026");
    assert_eq!(root.key.to_string(), "EC 256");
    assert_eq!((root.authority, root.self_signature()), (Authority::Ca, SelfSignature::Verified));
    assert!(root.key_id().is_some() && root.is_root() && root.dropped_by_p11_kit().is_none());
    assert!(!(root.cannot_sign || root.not_for_servers || root.constraints_not_critical || root.name_constraints));
    assert_eq!((root.weak_signature, root.unknown_critical.as_slice()), (None, &[][..]));
    assert_eq!(root.not_after - root.not_before, 3650 * 86_400);
    assert_eq!(root.pem(), data("pem/corp-2026.pem"), "what is written to a host is what OpenSSL would write");
    assert_eq!(*anchor(root.der()), *root);
}

#[test]
fn what_p11_kit_would_drop_is_known() {
    let authority = |edit: fn(&mut CertificateParams)| anchor(&self_signed(edit)).authority;
    assert_eq!(authority(|_| {}), Authority::Ca);
    assert_eq!(authority(|params| params.is_ca = IsCa::ExplicitNoCa), Authority::Leaf);
    assert_eq!(authority(|params| params.is_ca = IsCa::NoCa), Authority::Unmarked);
    assert_eq!(fixed("version-1").authority, Authority::Version1);
    let not_for_servers = |usages: &[ExtendedKeyUsagePurpose]| {
        anchor(&self_signed(|params| params.extended_key_usages = usages.to_vec())).dropped_by_p11_kit().is_some()
    };
    assert!(!not_for_servers(&[]));
    assert!(!not_for_servers(&[ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth]));
    assert!(!not_for_servers(&[ExtendedKeyUsagePurpose::Any]));
    assert!(not_for_servers(&[ExtendedKeyUsagePurpose::ClientAuth]));
    for name in ["is_ca", "version-1"] {
        let fine = if name == "is_ca" { anchor(&self_signed(|_| {})) } else { fixed(name) };
        assert_eq!(fine.dropped_by_p11_kit(), None, "{name}");
    }
    for (is_ca, why) in [(IsCa::ExplicitNoCa, "CA:FALSE"), (IsCa::NoCa, "no basicConstraints")] {
        let text = anchor(&self_signed(|params| params.is_ca = is_ca)).dropped_by_p11_kit().unwrap();
        assert!(text.contains(why), "{text}");
    }
}

#[test]
fn extensions_that_verifiers_trip_over_are_seen() {
    let no_sign = anchor(&self_signed(|params| params.key_usages = vec![KeyUsagePurpose::DigitalSignature]));
    assert!(no_sign.cannot_sign);
    assert!(!anchor(&self_signed(|params| params.key_usages.clear())).cannot_sign, "no keyUsage allows everything");
    let constrained = anchor(&self_signed(|params| {
        let permitted_subtrees = vec![GeneralSubtree::DnsName("corp.example".into())];
        params.name_constraints = Some(NameConstraints { permitted_subtrees, excluded_subtrees: Vec::new() });
    }));
    assert!(constrained.name_constraints);
    let lax = anchor(&self_signed(|params| {
        params.is_ca = IsCa::NoCa;
        params.custom_extensions = vec![extension(BASIC_CONSTRAINTS, false, &[0x30, 3, 1, 1, 0xff])];
    }));
    assert!(lax.authority == Authority::Ca && lax.constraints_not_critical && lax.key_id().is_none());
    let unknown = |critical| {
        let own = extension(&[1, 2, 3, 4], critical, &[5, 0]);
        anchor(&self_signed(|params| params.custom_extensions = vec![own])).unknown_critical.clone()
    };
    assert_eq!(unknown(true), ["1.2.3.4"]);
    assert_eq!(unknown(false), [""; 0]);
}

#[test]
fn basic_constraints_that_cannot_be_read_are_no_guess() {
    let der = self_signed(|params| {
        params.is_ca = IsCa::NoCa;
        params.custom_extensions = vec![extension(BASIC_CONSTRAINTS, true, &[0x30, 9, 1])];
    });
    assert_eq!(reason(&der), RejectReason::MalformedCertificate);
}

#[test]
fn every_common_key_verifies_its_own_signature() {
    for (algorithm, key) in [
        (&rcgen::PKCS_ECDSA_P256_SHA256, "EC 256"),
        (&rcgen::PKCS_ECDSA_P384_SHA384, "EC 384"),
        (&rcgen::PKCS_ECDSA_P521_SHA256, "EC 521"),
        (&rcgen::PKCS_ECDSA_P521_SHA384, "EC 521"),
        (&rcgen::PKCS_ECDSA_P521_SHA512, "EC 521"),
        (&rcgen::PKCS_ED25519, "Ed25519 256"),
    ] {
        let pair = KeyPair::generate_for(algorithm).unwrap();
        let made = anchor(params(|_| {}).self_signed(&pair).unwrap().der());
        assert_eq!((made.key.to_string().as_str(), made.self_signature()), (key, SelfSignature::Verified));
    }
    for (name, key) in [
        ("rsa-1024", "RSA 1024"),
        ("rsa-2048", "RSA 2048"),
        ("rsa-sha1", "RSA 2048"),
        ("rsa-pss-signature", "RSA 2048"),
    ] {
        let root = fixed(name);
        assert_eq!((root.key.to_string().as_str(), root.self_signature()), (key, SelfSignature::Verified), "{name}");
    }
    assert!(fixed("rsa-1024").key.is_weak() && !fixed("rsa-2048").key.is_weak());
}

/// OpenSSL verifies each of them, so none may be called damaged.
#[test]
fn a_signature_that_cannot_be_checked_is_not_taken_for_wrong() {
    for name in [
        "rsa-md5",
        "rsa-sha224",
        "rsa-large-exponent",
        "rsa-pss-mgf",
        "rsa-pss-key",
        "ec-p224",
        "ec-k256",
        "ec-explicit",
        "ed448",
        "dsa",
    ] {
        let root = fixed(name);
        assert_ne!(root.self_signature(), SelfSignature::Wrong, "{name}");
        assert_eq!(root.authority, Authority::Ca, "{name}");
    }
    assert_eq!(anchor(&unchecked(&self_signed(|_| {}))).self_signature(), SelfSignature::Unchecked);
}

#[test]
fn a_broken_algorithm_counts_only_where_it_is_verified() {
    assert_eq!(fixed("rsa-sha1").weak_signature, None);
    assert_eq!(fixed("rsa-md5").weak_signature, None);
    assert_eq!(fixed("intermediate-sha1").weak_signature, Some("SHA-1"));
}

#[test]
fn an_intermediate_is_no_self_signed_certificate() {
    let (root_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let root = params(|params| params.distinguished_name.push(DnType::CommonName, "root"));
    let issuer = Issuer::from_params(&root, &root_key);
    let below = params(|params| params.distinguished_name.push(DnType::CommonName, "below"));
    let below = anchor(below.signed_by(&key, &issuer).unwrap().der());
    assert_eq!(below.self_signature(), SelfSignature::NotSelfIssued);
    assert_eq!((below.subject.common.as_str(), below.issuer.common.as_str()), ("below", "root"));
}

#[test]
fn a_self_signature_that_does_not_match_is_a_fact_and_no_error() {
    let mut der = self_signed(|_| {});
    *der.last_mut().unwrap() ^= 1;
    assert_eq!(anchor(&der).self_signature(), SelfSignature::Wrong);
    // Another certificate's key stands under this one's name.
    let params = params(|params| params.distinguished_name.push(DnType::CommonName, "mixed up"));
    let other = KeyPair::generate().unwrap();
    let mixed = params.signed_by(&KeyPair::generate().unwrap(), &Issuer::from_params(&params, &other)).unwrap();
    let mixed = anchor(mixed.der());
    assert_eq!((mixed.self_signature(), mixed.is_root()), (SelfSignature::Wrong, true), "readers take it for a root");
}

#[test]
fn a_flipped_byte_never_passes_for_the_original() {
    let root = fixed("corp-2026");
    let mut passed = Vec::new();
    for at in 0..root.der().len() {
        for mask in [0x01, 0x20, 0x80, 0xff] {
            let mut der = root.der().to_vec();
            der[at] ^= mask;
            if Anchor::from_der(&der).is_ok_and(|other| other.self_signature() == SelfSignature::Verified) {
                passed.push(format!("byte {at}: {:#04x} for {:#04x}", der[at], root.der()[at]));
            }
        }
    }
    assert_eq!(passed, [""; 0]);
}

#[test]
fn a_cut_certificate_is_malformed_at_every_length() {
    let root = fixed("corp-2026");
    for length in 0..root.der().len() {
        assert_eq!(reason(&root.der()[..length]), RejectReason::MalformedCertificate, "{length}");
        // Under OpenSSL's own label a cut certificate is refused as well.
        assert!(Anchor::from_block(Label::Trusted, &root.der()[..length]).is_err(), "{length}");
    }
}

#[test]
fn trailing_data_is_refused_but_for_openssl_s_own_label() {
    let root = fixed("corp-2021");
    let mut der = root.der().to_vec();
    der.extend_from_slice(b"\x30\x0c\x30\x0a\x06\x08\x2b\x06\x01\x05\x05\x07\x03\x01"); // trusted for serverAuth
    for label in [Label::Certificate, Label::Legacy] {
        assert_eq!(Anchor::from_block(label, &der).unwrap_err().reason, RejectReason::TrailingData);
    }
    assert_eq!(Anchor::from_block(Label::Trusted, &der).unwrap(), *root);
    assert_eq!(*fixed("trusted"), *root, "as OpenSSL wrote it, with an alias");
    let scan = pem::scan(data("pem/trusted.pem").as_bytes());
    assert_eq!(scan.blocks[0].label, Label::Trusted);
    assert_ne!(scan.blocks[0].der.len(), root.der().len());
    let twice = [root.der(), root.der()].concat();
    assert_eq!(reason(&twice), RejectReason::TrailingData);
}

#[test]
fn a_length_that_lies_is_an_error() {
    for der in
        [&b"\x30\x84\xff\xff\xff\xff"[..], b"\x30\x80", b"\x30", b"", b"\x30\x85\x01\x01\x01\x01\x01", b"\x30\x82\x01"]
    {
        for label in [Label::Certificate, Label::Trusted] {
            assert_eq!(
                Anchor::from_block(label, der).unwrap_err().reason,
                RejectReason::MalformedCertificate,
                "{der:x?}"
            );
        }
    }
}

#[test]
fn a_text_that_is_not_what_its_type_says_is_malformed() {
    let named = |text: &str| params(|params| params.distinguished_name.push(DnType::CommonName, text));
    anchor(&forged(&named("Plain"), b"Plain", b"Other")); // the forged certificate itself is valid
    let error = Anchor::from_der(&forged(&named("Plain"), b"Plain", b"P\xff\xfein")).unwrap_err();
    assert_eq!(error.reason, RejectReason::MalformedCertificate);
    assert!(error.detail.contains("OpenSSL would refuse it"), "{error}");
    // A BMPString with half a surrogate pair.
    let bmp = rcgen::DnValue::BmpString("ab".try_into().unwrap());
    let bmp = params(|params| params.distinguished_name.push(DnType::CommonName, bmp));
    assert_eq!(reason(&forged(&bmp, b"\0a\0b", b"\xd8\x00\0b")), RejectReason::MalformedCertificate);
}

#[test]
fn names_are_safe_and_useful_for_people() {
    let named = |pairs: &[(DnType, &str)]| {
        let add = |params: &mut CertificateParams| {
            for (kind, text) in pairs {
                params.distinguished_name.push(kind.clone(), *text);
            }
        };
        anchor(&self_signed(add)).subject.clone()
    };
    let colour = named(&[(DnType::CommonName, "\u{1b}[31mred\nline")]);
    assert!(!colour.text.contains(['\u{1b}', '\n']) && !colour.common.contains(['\u{1b}', '\n']), "{colour:?}");
    assert!(colour.text.contains("red"));
    let unit = named(&[(DnType::OrganizationName, "Corp"), (DnType::OrganizationalUnitName, "Security")]);
    assert_eq!((unit.common.as_str(), unit.text.as_str()), ("Security", "O=Corp, OU=Security"));
    assert_eq!(named(&[(DnType::CountryName, "AT")]).common, "C=AT");
    let empty = named(&[]);
    assert!(empty.is_empty() && empty.common == "(no name)");
}

#[test]
fn validity_is_read_also_beyond_2050() {
    let long = anchor(&self_signed(|params| {
        params.not_before = rcgen::date_time_ymd(1970, 1, 1);
        params.not_after = rcgen::date_time_ymd(9999, 12, 31);
    }));
    assert_eq!((long.not_before, long.not_after), (0, 253_402_214_400));
}

#[test]
fn a_serial_number_is_printed_with_all_its_digits() {
    let serial = SerialNumber::from_slice(&[0x0a, 0x00, 0xff]);
    assert_eq!(anchor(&self_signed(|params| params.serial_number = Some(serial))).serial, "0a00ff");
}

#[test]
fn debug_output_is_short() {
    assert_eq!(format!("{:?}", fixed("corp-2021")), "Anchor(34821745756e23e3 O=Corp, CN=Corp Root CA)");
}

proptest::proptest! {
    /// Any bytes, and any bytes behind a plausible header.
    #[test]
    fn no_bytes_do_harm(mut bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300), headed in proptest::bool::ANY) {
        if headed {
            let length = bytes.len();
            bytes.splice(0..0, [0x30, 0x82, (length >> 8) as u8, length as u8]);
        }
        proptest::prop_assert!(Anchor::from_der(&bytes).is_err());
        proptest::prop_assert!(Anchor::from_block(Label::Trusted, &bytes).is_err());
    }

    /// A valid certificate with a piece replaced gives an answer, and never the original.
    #[test]
    fn a_damaged_certificate_is_never_the_original(
        at in 0usize..380, piece in proptest::collection::vec(proptest::num::u8::ANY, 1..40), cut in 0usize..40,
    ) {
        let root = fixed("corp-2026");
        let mut der = root.der().to_vec();
        let at = at.min(der.len());
        let end = (at + cut).min(der.len());
        der.splice(at..end, piece);
        if let Ok(other) = Anchor::from_der(&der) {
            proptest::prop_assert!(other.der() == root.der() || other.fingerprint != root.fingerprint);
        }
    }
}

/// The settings as `openssl x509 -trustout` with -addtrust, -addreject and -setalias writes them.
#[test]
fn openssl_s_trust_settings_are_heeded() {
    let root = fixed("corp-2026");
    let with = |settings: &[u8]| Anchor::from_block(Label::Trusted, &[root.der(), settings].concat());
    let (servers, mail) = (b"\x06\x08\x2b\x06\x01\x05\x05\x07\x03\x01", b"\x06\x08\x2b\x06\x01\x05\x05\x07\x03\x04");
    let settings = |list: u8, oid: &[u8]| [&[0x30, 12, list, 10], oid].concat();
    assert!(with(&settings(0x30, servers)).is_ok(), "trusted for servers");
    assert!(with(&settings(0xa0, mail)).is_ok(), "rejected for mail only");
    assert!(with(b"\x30\x03\x0c\x01x").is_ok(), "an alias");
    for excluded in [settings(0xa0, servers), settings(0x30, mail), vec![0x30, 12, 0xa0]] {
        assert_eq!(with(&excluded).unwrap_err().reason, RejectReason::NotCa, "{excluded:02x?}");
    }
}
