//! Our subject hash against OpenSSL's own, for names that its canonical form changes and for real roots.

use rcgen::{DnType, DnValue};

use crate::{
    certificate::{anchor::Anchor, pem},
    testing::{anchor, data, self_signed},
};

#[test]
fn the_subject_hash_is_openssl_s() {
    let table = data("pem/subject-hashes");
    assert!(table.lines().count() > 40);
    for line in table.lines() {
        let [hash, sha256, file] = line.split(' ').collect::<Vec<_>>().try_into().unwrap();
        let scan = pem::scan(data(&format!("pem/{file}")).as_bytes());
        let anchor =
            Anchor::from_block(scan.blocks[0].label, &scan.blocks[0].der).unwrap_or_else(|e| panic!("{file}: {e}"));
        assert_eq!(format!("{:08x}", anchor.subject.hash), hash, "{file}: {}", anchor.subject.text);
        assert_eq!(anchor.fingerprint.to_string(), sha256, "{file}");
    }
}

/// OpenSSL hashes the text, not its encoding.
#[test]
fn the_encoding_of_a_text_does_not_change_its_hash() {
    let hash = |value: DnValue| {
        anchor(&self_signed(|params| params.distinguished_name.push(DnType::CommonName, value))).subject.hash
    };
    let text = "Corp  Root CA";
    let want = hash(DnValue::Utf8String("corp root ca".into()));
    for value in [
        DnValue::Utf8String(text.into()),
        DnValue::PrintableString(text.try_into().unwrap()),
        DnValue::Ia5String(text.try_into().unwrap()),
        DnValue::TeletexString(text.try_into().unwrap()),
        DnValue::BmpString(text.try_into().unwrap()),
        DnValue::UniversalString(text.try_into().unwrap()),
    ] {
        assert_eq!(hash(value.clone()), want, "{value:?}");
    }
    assert_ne!(
        hash(DnValue::Utf8String("CORP ROOT CÄ".into())),
        hash(DnValue::Utf8String("corp root cä".into())),
        "only ASCII folds"
    );
}

#[test]
fn a_name_is_shown_in_the_order_of_the_certificate() {
    let text = |file: &str| {
        let scan = pem::scan(data(&format!("pem/{file}.pem")).as_bytes());
        anchor(&scan.blocks[0].der).subject.text.clone()
    };
    assert_eq!(text("name-umlaut-utf8"), "C=DE, O=Bäcker & Söhne  GmbH, CN=Größe   ÄÖÜ CA");
    assert_eq!(text("name-umlaut-t61"), "O=Bäcker, CN=Grün CA");
    assert_eq!(text("name-bmp"), "O=Ελλάς  ΑΕ, CN=Žluťoučký  KŮŇ");
    assert_eq!(text("name-mail-and-dc"), "DC=COM, DC=Example, CN=Mail CA, Email=Admin@Example.COM");
    assert_eq!(text("name-empty"), "");
}
