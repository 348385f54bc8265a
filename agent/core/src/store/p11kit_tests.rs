//! Files of p11-kit's source directories, and what is an anchor then. Real p11-kit judges the same in tests/it/stories.rs.

use super::*;
use crate::testing::ca;

const EMAIL: &str = "%30%13%06%03%55%1d%25%04%0c%30%0a%06%08%2b%06%01%05%05%07%03%04";
const SERVER: &str = "%30%13%06%03%55%1d%25%04%0c%30%0a%06%08%2b%06%01%05%05%07%03%01";

fn object(attributes: &str, blocks: &str) -> String {
    format!("[p11-kit-object-v1]\nlabel: \"A: label\"\n{attributes}modifiable: false\n{blocks}\n")
}

fn quoted(der: &[u8]) -> String {
    der.iter().map(|byte| format!("%{byte:02x}")).collect()
}

fn public_key(anchor: &Anchor) -> String {
    let key = Identity::of(anchor.der()).unwrap().key;
    format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", BASE64.encode(key))
}

fn stapled(anchor: &Anchor, value: &str) -> String {
    let attributes = format!("class: x-certificate-extension\nobject-id: 2.5.29.37\nvalue: \"{value}\"\n");
    object(&attributes, &public_key(anchor))
}

#[test]
fn an_object_is_what_its_attributes_say() {
    let root = ca("Root");
    let pem = root.pem();
    let value = format!("class: certificate\ntrusted: true\nvalue: \"{}\"\n", quoted(root.der()));
    let trusted = object("trusted: true\nnss-server-distrust-after: \"%32%36\"\n", &pem);
    let identity = Identity::of(root.der()).unwrap();
    let by_name = format!(
        "class: certificate\nx-distrusted: true\nissuer: \"{}\"\nserial-number: \"{}\"\n",
        quoted(identity.issuer),
        quoted(identity.serial)
    );
    for (what, text, place, is_anchor) in [
        ("trusted", trusted.clone(), TrustDirectory::Top, true),
        (
            "trusted, in CRLF, behind a comment",
            format!("# x\n{trusted}").replace('\n', "\r\n"),
            TrustDirectory::Top,
            true,
        ),
        ("trusted, as a value", object(&value, ""), TrustDirectory::Top, true),
        ("no attribute", object("", &pem), TrustDirectory::Top, false),
        ("no attribute, among the anchors", object("", &pem), TrustDirectory::Anchors, true),
        ("not trusted", object("trusted: false\n", &pem), TrustDirectory::Top, false),
        ("distrusted", object("x-distrusted: true\n", &pem), TrustDirectory::Top, false),
        ("distrusted, among the anchors", object("x-distrusted: true\n", &pem), TrustDirectory::Anchors, false),
        ("trusted, in the blocklist", trusted.clone(), TrustDirectory::Blocklist, false),
        ("for e-mail", trusted.clone() + &stapled(&root, EMAIL), TrustDirectory::Top, false),
        ("for servers", trusted.clone() + &stapled(&root, SERVER), TrustDirectory::Top, true),
        ("another one is for e-mail", trusted.clone() + &stapled(&ca("Other"), EMAIL), TrustDirectory::Top, true),
        ("distrusted by its name", trusted.clone() + &object(&by_name, ""), TrustDirectory::Top, false),
        (
            "distrusted by its key",
            trusted + &object("class: public-key\nx-distrusted: true\n", &public_key(&root)),
            TrustDirectory::Top,
            false,
        ),
        ("a plain file", pem.clone(), TrustDirectory::Top, false),
        ("a plain file, among the anchors", pem.clone(), TrustDirectory::Anchors, true),
        ("with OpenSSL's label", pem.replace("CERTIFICATE", "TRUSTED CERTIFICATE"), TrustDirectory::Top, true),
        ("cut off", object("trusted: true\n", &pem[..200]), TrustDirectory::Top, false),
    ] {
        let mut sources = TrustSources::default();
        sources.add(place, text.as_bytes());
        assert_eq!(sources.is_anchor(&root.fingerprint), is_anchor, "{what}:\n{text}");
    }
}

#[test]
fn distrust_counts_wherever_it_is_said() {
    let (root, other) = (ca("Root"), ca("Other"));
    let mut sources = TrustSources::default();
    sources.add(TrustDirectory::Anchors, (root.pem() + &other.pem()).as_bytes());
    assert!(sources.is_anchor(&root.fingerprint) && sources.is_anchor(&other.fingerprint));
    assert!(!sources.is_overruled(&root.fingerprint));
    sources.add(TrustDirectory::Blocklist, root.der());
    assert!(sources.is_overruled(&root.fingerprint) && !sources.is_overruled(&other.fingerprint));
    assert!(!sources.is_anchor(&root.fingerprint) && sources.is_anchor(&other.fingerprint));
}
