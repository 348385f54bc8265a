//! The identity of a certificate: SHA-256 over its DER encoding.
//!
//! In: DER bytes, or 64 hexadecimal digits from a configuration. Out: a value that sorts, prints and hashes the same
//! everywhere. `openssl x509 -fingerprint -sha256` and `sha256sum` of the DER give the same digits (facts E.2).

use std::{cmp::Ordering, collections::BTreeSet, fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use sha2::{Digest, Sha256};

/// SHA-256 over the DER encoding of a certificate.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

/// The digest of a set of anchors: SHA-256 over the raw 32 bytes of each fingerprint, in ascending order.
///
/// Two nodes with the same digest trust the same anchors of ours, whatever the order of their sources.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SetDigest([u8; 32]);

/// A text that is not a SHA-256 fingerprint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a SHA-256 fingerprint: want 64 hexadecimal digits, with or without colons")]
pub struct BadFingerprint(pub String);

impl Fingerprint {
    /// The fingerprint of a certificate, given its DER encoding.
    pub fn of_der(der: &[u8]) -> Self {
        Self(Sha256::digest(der).into())
    }

    /// The first 16 hexadecimal digits: the part that names files and table rows.
    pub fn fp16(&self) -> String {
        hex(&self.0[..8])
    }

    /// The raw digest.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// A fingerprint from a raw digest.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl Ord for Fingerprint {
    /// As their digits. The first eight bytes decide nearly always: sets of thousands are looked through by it.
    fn cmp(&self, other: &Self) -> Ordering {
        let head = |print: &Self| print.0.first_chunk().map(|head| u64::from_be_bytes(*head));
        head(self).cmp(&head(other)).then_with(|| self.0.cmp(&other.0))
    }
}

impl PartialOrd for Fingerprint {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl SetDigest {
    /// The digest of a set.
    pub fn of(set: &BTreeSet<Fingerprint>) -> Self {
        let mut hash = Sha256::new();
        for fingerprint in set {
            hash.update(fingerprint.0);
        }
        Self(hash.finalize().into())
    }
}

/// SHA-256 of any bytes, for telling whether a content changed.
pub fn content_digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// Lower-case hexadecimal digits of some bytes.
pub fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for SetDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for SetDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Fingerprint {
    type Err = BadFingerprint;

    fn from_str(text: &str) -> Result<Self, BadFingerprint> {
        let digits: Vec<u8> = text.trim().bytes().filter(|byte| *byte != b':').collect();
        let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(&digits).map_err(|_| BadFingerprint(text.to_owned()))?;
        Ok(Self(bytes.try_into().map_err(|_| BadFingerprint(text.to_owned()))?))
    }
}

impl Serialize for Fingerprint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for SetDigest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SetDigest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl FromStr for SetDigest {
    type Err = BadFingerprint;

    fn from_str(text: &str) -> Result<Self, BadFingerprint> {
        text.parse::<Fingerprint>().map(|digest| Self(digest.0))
    }
}

impl<'de> Deserialize<'de> for Fingerprint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_the_sha256_of_the_der() {
        // sha256 of "abc", FIPS 180-4
        let fingerprint = Fingerprint::of_der(b"abc");
        assert_eq!(fingerprint.to_string(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(fingerprint.fp16(), "ba7816bf8f01cfea");
    }

    #[test]
    fn reads_what_openssl_prints() {
        let fingerprint = Fingerprint::of_der(b"abc");
        let openssl: Vec<String> = fingerprint.as_bytes().iter().map(|byte| format!("{byte:02X}")).collect();
        assert_eq!(openssl.join(":").parse(), Ok(fingerprint));
        for bad in ["", "ba78", "zz7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"] {
            assert!(bad.parse::<Fingerprint>().is_err(), "{bad}");
        }
    }

    #[test]
    fn sorts_as_its_digits_do() {
        let mut all: Vec<Fingerprint> = (0..200u8).map(|n| Fingerprint::of_der(&[n])).collect();
        let (mut same_head, mut other) = ([7; 32], [7; 32]);
        (same_head[31], other[31]) = (200, 100);
        all.extend([Fingerprint::from_bytes(same_head), Fingerprint::from_bytes(other)]);
        all.sort();
        assert!(all.windows(2).all(|pair| pair[0].to_string() < pair[1].to_string()));
    }

    #[test]
    fn a_set_has_one_digest() {
        let (a, b) = (Fingerprint::of_der(b"a"), Fingerprint::of_der(b"b"));
        assert_eq!(SetDigest::of(&[a, b].into()), SetDigest::of(&[b, a].into()));
        assert_ne!(SetDigest::of(&[a].into()), SetDigest::of(&[a, b].into()));
    }
}
