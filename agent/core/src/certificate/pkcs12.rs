//! A trust store for Java: certificates in one PKCS #12 file (RFC 7292).
//!
//! In: certificates, DER. Out: the file. The same certificates make the same bytes: what is elsewhere random, the salt, is made of them.
//! There is nothing to keep secret: the certificates are public, and so is the password. So they are not encrypted, and Java reads
//! them with the password and without one; the seal (MAC) over them shows damage to whoever gives the password (decision 20).

use aws_lc_rs::hmac;
use sha2::{Digest, Sha256};
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

use super::{der::encode, fingerprint::Fingerprint, name, oid};

/// The password that programs give, as for Java's own trust store.
pub const PASSWORD: &str = "changeit";

/// Rounds of the derivation of the seal's key: OpenSSL's number. No number would protect what is public.
const ROUNDS: u32 = 2048;
/// Bytes of the salt.
const SALT_BYTES: usize = 20;
/// Characters of a certificate's name in its alias.
const MAX_NAME_CHARS: usize = 64;
/// Stands in the alias of each entry: a file without it is not ours.
const MARK: &str = " [nodetrust ";

/// `data` of PKCS #7.
const DATA: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x07\x01";
/// `certBag`.
const CERT_BAG: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x0c\x0a\x01\x03";
/// `x509Certificate` of PKCS #9.
const X509_CERTIFICATE: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x09\x16\x01";
/// `friendlyName`: Java's alias.
const FRIENDLY_NAME: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x09\x14";
/// `trustedKeyUsage` of Oracle, 2.16.840.1.113894.746875.1.1: without it a certificate is no trusted entry to Java.
const TRUSTED_KEY_USAGE: &[u8] = b"\x60\x86\x48\x01\x86\xf9\x66\xad\xca\x7b\x01\x01";
/// `sha256`.
const SHA256: &[u8] = b"\x60\x86\x48\x01\x65\x03\x04\x02\x01";

const INTEGER: u8 = 0x02;
const OCTETS: u8 = 0x04;
const NULL: u8 = 0x05;
const OID: u8 = 0x06;
const BMP_STRING: u8 = 0x1e;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
/// The tag `[0]`, explicit.
const TAGGED: u8 = 0xa0;

/// The file with these certificates, each a trusted entry of its own alias, in their order.
pub fn trust_store<'a>(certificates: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let bags: Vec<u8> = certificates.flat_map(bag).collect();
    let safe = encode(SEQUENCE, &data(&encode(SEQUENCE, &bags)));
    let salt = &Sha256::digest(&safe)[..SALT_BYTES];
    let key = hmac::Key::new(hmac::HMAC_SHA256, &mac_key(salt));
    let seal = hmac::sign(&key, &safe);
    let algorithm = encode(SEQUENCE, &[encode(OID, SHA256), encode(NULL, &[])].concat());
    let digest = encode(SEQUENCE, &[algorithm, encode(OCTETS, seal.as_ref())].concat());
    let rounds = encode(INTEGER, &(ROUNDS as u16).to_be_bytes());
    let mac = encode(SEQUENCE, &[digest, encode(OCTETS, salt), rounds].concat());
    encode(SEQUENCE, &[encode(INTEGER, &[3]), data(&safe), mac].concat())
}

/// Entries in bytes that [`trust_store`] has written, also where they were damaged since; 0 if they are not ours.
pub fn entries(bytes: &[u8]) -> usize {
    memchr::memmem::find_iter(bytes, &bmp(MARK)).count()
}

/// A certificate as a `SafeBag`.
fn bag(certificate: &[u8]) -> Vec<u8> {
    let value = [encode(OID, X509_CERTIFICATE), encode(TAGGED, &encode(OCTETS, certificate))].concat();
    let attribute = |oid: &[u8], value: Vec<u8>| encode(SEQUENCE, &[encode(OID, oid), encode(SET, &value)].concat());
    let mut attributes = [
        attribute(FRIENDLY_NAME, encode(BMP_STRING, &bmp(&alias(certificate)))),
        attribute(TRUSTED_KEY_USAGE, encode(OID, oid::ANY_PURPOSE)),
    ];
    attributes.sort(); // a set in DER
    let parts = [encode(OID, CERT_BAG), encode(TAGGED, &encode(SEQUENCE, &value)), encode(SET, &attributes.concat())];
    encode(SEQUENCE, &parts.concat())
}

/// What an entry is called: Java keeps one entry of each alias, so the fingerprint is in it.
fn alias(certificate: &[u8]) -> String {
    let parsed = X509Certificate::from_der(certificate);
    let name = parsed.ok().and_then(|(_, parsed)| {
        let common = parsed.subject().iter_common_name().next().and_then(|common| name::text(common.attr_value()));
        common.or_else(|| Some(name::display(parsed.subject())).filter(|name| !name.is_empty()))
    });
    let name: String = name.as_deref().unwrap_or("a certificate").chars().take(MAX_NAME_CHARS).collect();
    format!("{name}{MARK}{}]", Fingerprint::of_der(certificate))
}

/// A `ContentInfo` that holds these bytes as they are.
fn data(content: &[u8]) -> Vec<u8> {
    encode(SEQUENCE, &[encode(OID, DATA), encode(TAGGED, &encode(OCTETS, content))].concat())
}

/// The characters of two bytes; the others are not in a `BMPString`, and become `?`.
fn bmp(text: &str) -> Vec<u8> {
    text.chars().flat_map(|c| u16::try_from(u32::from(c)).unwrap_or(u16::from(b'?')).to_be_bytes()).collect()
}

/// The key of the seal (RFC 7292, B.2, with SHA-256 and the purpose 3): as many bytes as the hash has, which is one block of them.
fn mac_key(salt: &[u8]) -> [u8; 32] {
    const BLOCK: usize = 64;
    let password = [bmp(PASSWORD), vec![0, 0]].concat();
    let filled =
        |text: &[u8]| -> Vec<u8> { text.iter().copied().cycle().take(text.len().div_ceil(BLOCK) * BLOCK).collect() };
    let first = Sha256::new().chain_update([3; BLOCK]).chain_update(filled(salt)).chain_update(filled(&password));
    (1..ROUNDS).fold(first.finalize(), |key, _| Sha256::digest(key)).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        certificate::der,
        testing::{ca, fixed},
    };

    #[test]
    fn the_same_certificates_make_the_same_bytes() {
        let (one, two) = (ca("One"), ca("Two"));
        let store = |all: &[&[u8]]| trust_store(all.iter().copied());
        let both = store(&[one.der(), two.der()]);
        assert_eq!(both, store(&[one.der(), two.der()]));
        assert_ne!(both, store(&[two.der(), one.der()]));
        assert_eq!(der::split(&both).map(|(tag, _, rest)| (tag, rest.len())), Some((SEQUENCE, 0)));
        assert_eq!((entries(&both), entries(&store(&[]))), (2, 0));
    }

    #[test]
    fn what_is_left_of_a_damaged_file_is_still_known_as_ours() {
        let (one, two) = (ca("One"), ca("Two"));
        let both = trust_store([one.der(), two.der()].into_iter());
        assert_eq!(entries(&both[..both.len() / 2]), 1);
        assert_eq!(entries(one.der()) + entries(b"") + entries(b"nodetrust"), 0);
    }

    #[test]
    fn each_entry_has_an_alias_of_its_own_that_people_can_read() {
        let root = fixed("rsa-2048");
        let same = [ca("Corp Root"), ca("Corp Root")];
        assert_ne!(alias(same[0].der()), alias(same[1].der()));
        assert_eq!(alias(same[0].der()), format!("Corp Root [nodetrust {}]", same[0].fingerprint));
        assert!(alias(root.der()).ends_with(&format!(" [nodetrust {}]", root.fingerprint)));
        let long = ca(&"\u{1f512}".repeat(64));
        assert_eq!(alias(long.der()).chars().take_while(|c| *c == '\u{1f512}').count(), MAX_NAME_CHARS);
        assert!(bmp(&alias(long.der())).starts_with(b"\0?\0?"));
        assert!(alias(b"nonsense").starts_with("a certificate [nodetrust "));
    }
}
