//! The rules on certificates with one oddity each. What is expected is what the real readers do: `tests/it/readers.rs` asks them
//! about the same certificates.

use super::*;
use crate::{
    certificate::{anchor::Anchor, der::encode, oid},
    source::policy::{Circumstances, Policy, judge},
    testing::{NOW, data},
};

/// The odd certificates by name.
fn cases() -> Vec<(String, Vec<u8>)> {
    let text = data("readers/certificates.pem");
    let names = text.lines().filter_map(|line| line.strip_prefix("# "));
    let blocks = crate::certificate::pem::scan(text.as_bytes()).blocks;
    names.map(str::to_owned).zip(blocks.into_iter().map(|block| block.der)).collect()
}

#[test]
fn every_odd_certificate_has_the_verdict_of_the_real_readers() {
    let mut seen = String::new();
    for (name, der) in cases() {
        let verdict = verdict(&der);
        let word = |fault: &Option<String>, reader: &str| fault.as_ref().map(|why| format!("  {reader}: {why}\n"));
        seen.push_str(&format!("{name}\n"));
        for line in [word(&verdict.openssl, "OpenSSL"), word(&verdict.gnutls, "GnuTLS"), word(&verdict.go, "Go")] {
            seen.push_str(&line.unwrap_or_default());
        }
    }
    assert!(seen.lines().count() > 150);
    crate::testing::assert_golden("readers/verdicts.txt", &seen);
}

#[test]
fn what_breaks_a_bundle_is_refused_with_the_readers_name_and_the_rest_accepted() {
    let (mut accepted, mut refused) = (0, 0);
    for (name, der) in cases() {
        let verdict = verdict(&der);
        match Anchor::from_der(&der) {
            Ok(anchor) => {
                assert_eq!((verdict.bundle_fault(), &anchor.go_refuses), (None, &verdict.go), "{name}");
                accepted += 1;
            }
            Err(error) => {
                let by_name = error.detail.contains("OpenSSL") || error.detail.contains("GnuTLS");
                let other = ["signature does not match", "basicConstraints", "not an X.509 certificate"];
                assert!(by_name || other.iter().any(|known| error.detail.contains(known)), "{name}: {error}");
                refused += 1;
            }
        }
    }
    assert!(accepted > 90 && refused > 20, "{accepted}, {refused}");
}

#[test]
fn what_only_go_does_not_read_is_warned_about() {
    let (_, der) = cases().into_iter().find(|(name, _)| name == "spki-no-null").unwrap();
    let anchor = Anchor::from_der(&der).unwrap();
    let at = Circumstances { drops_not_ca: None, installed: &|_| false, now: NOW };
    let warnings = judge(&anchor, &Policy::default(), at).unwrap();
    let expected = "Go does not read it (public key: an RSA key without its NULL): containerd and other Go programs will not trust it";
    assert!(warnings.iter().any(|warning| warning.starts_with(expected)), "{warnings:?}");
}

/// Parts of a certificate, each encoded; what is not set is as it should be.
#[derive(Default)]
struct Parts {
    version: Option<Vec<u8>>,
    serial: Option<Vec<u8>>,
    inner: Option<Vec<u8>>,
    outer: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    not_after: Option<Vec<u8>>,
    key: Option<Vec<u8>>,
    behind_key: Vec<u8>,
    extensions: Option<Vec<u8>>,
    signature: Option<Vec<u8>>,
}

fn extension(oid: &[u8], value: &[u8]) -> Vec<u8> {
    encode(0x30, &[encode(6, oid), encode(4, value)].concat())
}

fn rsa_key(modulus_bytes: usize) -> Vec<u8> {
    let number = [vec![0, 0x80], vec![1; modulus_bytes - 1]].concat();
    let key = encode(0x30, &[encode(2, &number), encode(2, &[1, 0, 1])].concat());
    let algorithm = encode(0x30, b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00");
    encode(0x30, &[algorithm, encode(3, &[vec![0], key].concat())].concat())
}

impl Parts {
    fn der(self) -> Vec<u8> {
        let algorithm = || encode(0x30, b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b\x05\x00");
        let value = self.value.unwrap_or_else(|| encode(12, b"Corp Root"));
        let attribute = encode(0x30, &[encode(6, b"\x55\x04\x03"), value].concat());
        let name = encode(0x30, &encode(0x31, &attribute));
        let other = encode(0x30, &encode(0x31, &encode(0x30, b"\x06\x03\x55\x04\x03\x0c\x05Other")));
        let time = encode(0x17, b"350101000000Z");
        let constraints = extension(oid::BASIC_CONSTRAINTS, b"\x30\x03\x01\x01\xff");
        let extensions = self.extensions.unwrap_or(constraints);
        let signed = [
            self.version.unwrap_or_else(|| b"\xa0\x03\x02\x01\x02".to_vec()),
            self.serial.unwrap_or_else(|| encode(2, &[5])),
            self.inner.unwrap_or_else(algorithm),
            other,
            encode(0x30, &[encode(0x17, b"250101000000Z"), self.not_after.unwrap_or(time)].concat()),
            name,
            self.key.unwrap_or_else(|| rsa_key(256)),
            self.behind_key,
            if extensions.is_empty() { Vec::new() } else { encode(0xa3, &encode(0x30, &extensions)) },
        ];
        let signature = self.signature.unwrap_or_else(|| encode(3, &[0; 257]));
        encode(0x30, &[encode(0x30, &signed.concat()), self.outer.unwrap_or_else(algorithm), signature].concat())
    }
}

/// The readers that refuse it: o, g and G for OpenSSL, GnuTLS and Go.
fn who(der: &[u8]) -> String {
    let verdict = verdict(der);
    [(verdict.openssl, 'o'), (verdict.gnutls, 'g'), (verdict.go, 'G')]
        .into_iter()
        .filter_map(|(fault, letter)| fault.map(|_| letter))
        .collect()
}

#[test]
fn an_ordinary_certificate_is_read_by_all() {
    let der = Parts::default().der();
    assert_eq!(who(&der), "");
    assert!(Anchor::from_der(&der).unwrap().go_reads());
    assert_eq!(who(&der[..der.len() - 1]), "ogG");
    assert_eq!(who(&[&der[..], &[0]].concat()), "gG", "OpenSSL does not look behind it");
    assert_eq!(who(b""), "ogG");
}

/// The kinds of faults that the odd certificates do not have, or have in one place only.
#[test]
fn each_kind_of_fault_is_put_down_to_its_readers() {
    let of = |change: &dyn Fn(&mut Parts)| {
        let mut parts = Parts::default();
        change(&mut parts);
        who(&parts.der())
    };
    let value = |tag: u8, content: &[u8]| who(&Parts { value: Some(encode(tag, content)), ..Parts::default() }.der());
    let time =
        |tag: u8, text: &str| who(&Parts { not_after: Some(encode(tag, text.as_bytes())), ..Parts::default() }.der());
    let names = |names: &[u8]| {
        let extensions = extension(oid::SUBJECT_NAMES, &encode(0x30, names));
        who(&Parts { extensions: Some(extensions), ..Parts::default() }.der())
    };
    let part = |oid: &[u8], value: &[u8]| encode(0x31, &encode(0x30, &[&encode(6, oid), value].concat()));
    let directory_name = |parts: &[&[u8]]| encode(0xa4, &encode(0x30, &parts.concat()));
    let empty_text = part(b"\x55\x04\x03", b"\x0c\x00");
    let of_extension = |oid: &[u8], content: &[u8]| {
        who(&Parts { extensions: Some(extension(oid, content)), ..Parts::default() }.der())
    };
    for (what, seen, expected) in [
        ("serial with padding", of(&|parts| parts.serial = Some(encode(2, &[0, 5]))), "oG"),
        ("serial empty", of(&|parts| parts.serial = Some(encode(2, &[]))), "oG"),
        ("serial padded below zero", of(&|parts| parts.serial = Some(encode(2, &[0xff, 0xfe]))), "oG"),
        ("serial negative", of(&|parts| parts.serial = Some(encode(2, &[0xfe]))), "G"),
        ("version 4", of(&|parts| parts.version = Some(b"\xa0\x03\x02\x01\x03".to_vec())), "G"),
        ("version below zero", of(&|parts| parts.version = Some(b"\xa0\x03\x02\x01\xff".to_vec())), "gG"),
        ("version 2 with extensions", of(&|parts| parts.version = Some(b"\xa0\x03\x02\x01\x01".to_vec())), "g"),
        ("version 1 with extensions", of(&|parts| parts.version = Some(Vec::new())), "g"),
        (
            "version 1 with a unique id",
            of(&|parts| {
                (parts.version, parts.extensions) = (Some(Vec::new()), Some(Vec::new()));
                parts.behind_key = encode(0x82, &[0, 1]);
            }),
            "g",
        ),
        ("version 3 with a unique id", of(&|parts| parts.behind_key = encode(0x82, &[0, 1])), ""),
        ("unique id without its first byte", of(&|parts| parts.behind_key = encode(0x81, &[])), "o"),
        ("an element too many", of(&|parts| parts.behind_key = b"\x05\x00".to_vec()), "og"),
        ("other algorithm outside", of(&|parts| parts.outer = Some(encode(0x30, b"\x06\x03\x2a\x03\x04"))), "gG"),
        (
            "NULL outside only",
            of(&|parts| parts.inner = Some(encode(0x30, b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b"))),
            "G",
        ),
        (
            "algorithm cut off",
            of(&|parts| {
                parts.inner = Some(encode(0x30, b"\x06\x03\x2a\x03\x84"));
                parts.outer = parts.inner.clone();
            }),
            "oG",
        ),
        (
            "NULL with content",
            of(&|parts| {
                parts.inner = Some(encode(0x30, b"\x06\x03\x2a\x03\x04\x05\x01\x00"));
                parts.outer = parts.inner.clone();
            }),
            "o",
        ),
        (
            "two parameters",
            of(&|parts| {
                parts.inner = Some(encode(0x30, b"\x06\x03\x2a\x03\x04\x05\x00\x05\x00"));
                parts.outer = parts.inner.clone();
            }),
            "og",
        ),
        ("signature without its first byte", of(&|parts| parts.signature = Some(encode(3, &[]))), "oG"),
        ("signature with 8 unused bits", of(&|parts| parts.signature = Some(encode(3, &[8, 0]))), "oG"),
        ("signature in pieces", of(&|parts| parts.signature = Some(encode(0x23, &encode(3, &[0, 1])))), "gG"),
        ("VisibleString", value(26, b"x"), "oG"),
        ("VideotexString", value(21, b"x"), "oG"),
        ("GeneralString", value(27, b"x"), "oG"),
        ("INTEGER in a name", value(2, b"\x05"), "oG"),
        ("NULL in a name", value(5, b""), "oG"),
        ("BIT STRING in a name", value(3, b"\x00\x01"), "G"),
        ("BIT STRING in a name, empty", value(3, b""), "oG"),
        ("UTF-8 that is none", value(12, b"\xff"), "oG"),
        ("surrogate as UTF-8", value(12, b"\xed\xa0\x80"), "oG"),
        ("BMPString of odd length", value(30, b"\x00"), "oG"),
        ("BMPString with a surrogate", value(30, b"\xd8\x00"), "oG"),
        ("UniversalString of three bytes", value(28, b"\0\0\0"), "oG"),
        ("UniversalString", value(28, b"\0\0\0A"), "G"),
        ("T61String", value(20, b"\xe4"), ""),
        ("IA5String with an umlaut", value(22, b"\xe4"), "G"),
        ("NumericString with a letter", value(18, b"a"), "G"),
        ("text in pieces", value(0x2c, &encode(12, b"x")), "G"),
        ("seconds missing", time(0x17, "3501010000Z"), "o"),
        ("seconds missing, GeneralizedTime", time(0x18, "203501010000Z"), "oG"),
        ("fraction of a second", time(0x18, "20350101000000.5Z"), "gG"),
        ("offset", time(0x17, "350101000000+0100"), "g"),
        ("no zone", time(0x18, "20350101000000"), "ogG"),
        ("month 13", time(0x17, "351301000000Z"), "gG"),
        ("30 February", time(0x17, "350230000000Z"), "G"),
        ("second 60", time(0x17, "350101000060Z"), "G"),
        ("second 61", time(0x17, "350101000061Z"), "gG"),
        ("four digits of the year in UTCTime", time(0x17, "20350101000000Z"), "gG"),
        ("before 1970 and out of range", time(0x17, "601301000000Z"), "G"),
        ("another type for a time", time(0x16, "350101000000Z"), "ogG"),
        ("empty names", names(b""), ""),
        ("an empty dNSName", names(&encode(0x82, b"")), "g"),
        (
            "an empty directoryName and then an empty dNSName",
            names(&[encode(0xa4, b"\x30\x00"), encode(0x82, b"")].concat()),
            "",
        ),
        ("an empty text in a directoryName", names(&directory_name(&[&empty_text])), "g"),
        (
            "the same beside another text",
            names(&directory_name(&[&part(b"\x55\x04\x0a", b"\x0c\x01x"), &empty_text])),
            "g",
        ),
        (
            "the same behind a directoryName without parts",
            names(&[directory_name(&[]), directory_name(&[&empty_text])].concat()),
            "",
        ),
        ("an empty country in a directoryName", names(&directory_name(&[&part(b"\x55\x04\x06", b"\x13\x00")])), ""),
        ("a part of a directoryName without a text", names(&directory_name(&[b"\x31\x00"])), "g"),
        ("the same beside a text", names(&directory_name(&[b"\x31\x00", &part(b"\x55\x04\x03", b"\x0c\x01x")])), ""),
        ("an x400Address", names(&encode(0xa3, b"\x05\x00")), "g"),
        ("an empty otherName", names(&encode(0xa0, b"")), "g"),
        ("a registeredID", names(&encode(0x88, b"\x2a\x03")), ""),
        ("a registeredID that is none", names(&encode(0x88, b"\x80")), "g"),
        ("umlaut in a dNSName", names(&encode(0x82, b"\xe4")), "G"),
        ("a URI that is none", names(&encode(0x86, b"http://a.example/%zz")), "G"),
        ("an IPv6 address in a URI", names(&encode(0x86, b"http://[::1]:80/")), ""),
        ("three bytes of IP", names(&encode(0x87, b"\x0a\0\0")), "G"),
        ("IPv4 as IPv6", names(&encode(0x87, b"\0\0\0\0\0\0\0\0\0\0\xff\xff\x0a\0\0\x01")), "G"),
        ("issuerAltName empty", of_extension(oid::ISSUER_NAMES, b""), "g"),
        ("subjectAltName that is none", of_extension(oid::SUBJECT_NAMES, b"\x05\x00"), "gG"),
        ("a path length below zero", of_extension(oid::BASIC_CONSTRAINTS, b"\x30\x06\x01\x01\xff\x02\x01\xff"), "G"),
        ("keyUsage that is none", of_extension(oid::KEY_USAGE, b"\x05\x00"), "G"),
        (
            "a policy twice",
            of_extension(oid::POLICIES, b"\x30\x0c\x30\x04\x06\x02\x2a\x03\x30\x04\x06\x02\x2a\x03"),
            "G",
        ),
        ("no name constraints", of_extension(oid::NAME_CONSTRAINTS, b"\x30\x00"), "G"),
        ("an extension that nobody knows", of_extension(b"\x2a\x03", b"\xff"), ""),
        ("an extension with an object identifier cut off", of_extension(b"\x2a\x84", b""), "oG"),
        ("an extension with padding in its object identifier", of_extension(b"\x2a\x80\x01", b""), "ogG"),
        (
            "an extension twice",
            of(&|parts| {
                parts.extensions = Some([extension(b"\x2a\x03", b""), extension(b"\x2a\x03", b"")].concat());
            }),
            "gG",
        ),
        (
            "an extension with something behind it",
            of(&|parts| {
                parts.extensions =
                    Some(encode(0x30, &[encode(6, b"\x2a\x03"), encode(4, b""), encode(5, b"")].concat()));
            }),
            "og",
        ),
        (
            "critical of two bytes",
            of(&|parts| {
                parts.extensions =
                    Some(encode(0x30, &[encode(6, b"\x2a\x03"), encode(1, &[0, 0]), encode(4, b"")].concat()));
            }),
            "ogG",
        ),
        (
            "critical, neither true nor false",
            of(&|parts| {
                parts.extensions =
                    Some(encode(0x30, &[encode(6, b"\x2a\x03"), encode(1, &[1]), encode(4, b"")].concat()));
            }),
            "G",
        ),
        (
            "key without its first byte",
            of(&|parts| {
                parts.key = Some(encode(0x30, &[encode(0x30, b"\x06\x02\x2a\x03"), encode(3, b"")].concat()));
            }),
            "oG",
        ),
        (
            "key of a kind that nobody knows",
            of(&|parts| {
                parts.key = Some(encode(0x30, &[encode(0x30, b"\x06\x02\x2a\x03"), encode(3, b"\0")].concat()));
            }),
            "",
        ),
    ] {
        assert_eq!(seen, expected, "{what}");
    }
}

#[test]
fn an_rsa_key_that_no_reader_can_use_is_refused() {
    let of = |bytes: usize| Parts { key: Some(rsa_key(bytes)), ..Parts::default() }.der();
    assert_eq!(Anchor::from_der(&of(2048)).unwrap().key.bits, 16_384);
    let error = Anchor::from_der(&of(2049)).unwrap_err();
    assert_eq!(error.reason, crate::certificate::pem::RejectReason::MalformedCertificate);
    assert!(error.detail.contains("16392 bits"), "{error}");
}

/// Other lengths than DER's, and ends that are marked instead of counted: OpenSSL takes both, GnuTLS the first, Go neither.
#[test]
fn forms_of_lengths_are_a_matter_of_the_reader() {
    let der = Parts::default().der();
    let padded = [&[0x30, 0x84, 0, 0], &der[2..]].concat();
    assert_eq!((der[1], who(&padded)), (0x82, "G".into()));
    let open = [&[0x30, 0x80], &der[4..], &[0, 0]].concat();
    assert_eq!(who(&open), "gG");
    assert_eq!(who(&open[..open.len() - 1]), "ogG");
}

/// OpenSSL 3.0.19 refuses a length of several bytes where nothing follows it: seen with the NULL of an algorithm.
#[test]
fn an_empty_element_with_a_long_length_at_the_end_is_refused() {
    let der = |null: &[u8]| {
        let number = [vec![0, 0x80], vec![1; 255]].concat();
        let key = encode(0x30, &[encode(2, &number), encode(2, &[1, 0, 1])].concat());
        let algorithm = encode(0x30, &[b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01".as_slice(), null].concat());
        let key = encode(0x30, &[algorithm, encode(3, &[vec![0], key].concat())].concat());
        Parts { key: Some(key), ..Parts::default() }.der()
    };
    assert_eq!(who(&der(&[5, 0])), "");
    assert!(who(&der(&[5, 0x84, 0, 0, 0, 0])).contains('o'));
    assert!(who(&der(&[5, 0x81, 0])).contains('o'));
}

#[test]
fn trust_settings_and_revocation_lists_are_read_as_openssl_does() {
    let der = Parts::default().der();
    let with = |settings: &[u8]| trusted_fault(&[&der[..], settings].concat());
    assert_eq!(with(b""), None);
    assert_eq!(with(b"\x30\x0c\x30\x0a\x06\x08\x2b\x06\x01\x05\x05\x07\x03\x01"), None);
    assert!(with(b"\x30\x03\x30\x01\x06").is_some());
    assert!(with(b"\0").is_some());
    assert!(crl_fault(b"\x30\x00").is_some());
}
