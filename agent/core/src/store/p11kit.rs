//! What p11-kit's sources say: which certificates are anchors for servers (facts A.4, p11-kit's `trust` module).
//!
//! In: the files of the source directories, each with its place. Out: which certificates p11-kit takes for anchors. That a
//! certificate lies there does not make it one: distributions ship one `.p11-kit` file with trusted and distrusted objects, and
//! distrust counts wherever it is said, for the certificate's issuer and serial number or for its key.
//!
//! This reading is for looks that may start no program; where one may be started, p11-kit itself is asked.

use std::collections::{BTreeMap, BTreeSet};

use data_encoding::BASE64;
use memchr::memmem;

use crate::certificate::{
    anchor::Anchor,
    bundle,
    der::element,
    encoded::Identity,
    fingerprint::Fingerprint,
    pem::{self, Label},
};

/// What a `.p11-kit` file has at the beginning of each object.
const HEADER: &[u8] = b"[p11-kit-object-v1]";
/// The extension extendedKeyUsage, and those of its values that include servers, as encoded object identifiers.
const KEY_USAGE: &[u8] = b"\x06\x03\x55\x1d\x25";
const SERVERS: [&[u8]; 2] = [b"\x06\x08\x2b\x06\x01\x05\x05\x07\x03\x01", b"\x06\x04\x55\x1d\x25\x00"];

/// The part of a source directory in which a file lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrustDirectory {
    /// `anchors/`: trusted, unless an object says otherwise.
    Anchors,
    /// `blocklist/`, formerly `blacklist/`: distrusted.
    Blocklist,
    /// The directory itself: a plain certificate is neither, an object is what its attributes say.
    Top,
}

/// What all files of the source directories say together.
#[derive(Debug, Default)]
pub struct TrustSources {
    /// certificates that some file trusts
    trusted: BTreeMap<Fingerprint, Vec<u8>>,
    /// issuer and serial number, encoded, of what is distrusted
    distrusted: BTreeSet<(Vec<u8>, Vec<u8>)>,
    distrusted_keys: BTreeSet<Vec<u8>>,
    /// keys to which an extension is stapled that allows other uses only
    not_for_servers: BTreeSet<Vec<u8>>,
}

impl TrustSources {
    /// Takes note of a file.
    pub fn add(&mut self, place: TrustDirectory, bytes: &[u8]) {
        if memmem::find(bytes, HEADER).is_some() {
            for object in objects(bytes) {
                self.add_object(place, object);
            }
            return;
        }
        let scanned = pem::scan(bytes).blocks;
        let plain = scanned.iter().filter(|block| block.label != Label::Trusted).map(|block| block.der.clone());
        // also those of a file that the scanner gives nothing of, such as one with a key
        let plain: Vec<Vec<u8>> = plain.chain(bundle::certificates(bytes)).collect();
        for der in plain {
            match place {
                TrustDirectory::Anchors => self.trust(der),
                TrustDirectory::Blocklist => self.distrust(&der),
                TrustDirectory::Top => {}
            }
        }
        for block in scanned.iter().filter(|block| block.label == Label::Trusted) {
            match (place, Anchor::from_block(block.label, &block.der)) {
                (TrustDirectory::Blocklist, _) => self.distrust(&block.der),
                (_, Ok(anchor)) => self.trust(anchor.der().to_vec()),
                (_, Err(_)) => {} // its settings exclude servers
            }
        }
    }

    /// Whether p11-kit takes this certificate for an anchor for servers.
    pub fn is_anchor(&self, fingerprint: &Fingerprint) -> bool {
        let Some(der) = self.trusted.get(fingerprint) else { return false };
        // what cannot be decoded is nothing to p11-kit either
        let Some(identity) = Identity::of(der) else { return false };
        let by_name = (identity.issuer.to_vec(), identity.serial.to_vec());
        !self.distrusted.contains(&by_name)
            && !self.distrusted_keys.contains(identity.key)
            && !self.not_for_servers.contains(identity.key)
    }

    /// Whether some file trusts this certificate, and another one, or another object, keeps it from being an anchor for servers.
    pub fn is_overruled(&self, fingerprint: &Fingerprint) -> bool {
        self.trusted.contains_key(fingerprint) && !self.is_anchor(fingerprint)
    }

    fn trust(&mut self, der: Vec<u8>) {
        self.trusted.insert(Fingerprint::of_der(&der), der);
    }

    fn distrust(&mut self, der: &[u8]) {
        if let Some(identity) = Identity::of(der) {
            self.distrusted.insert((identity.issuer.to_vec(), identity.serial.to_vec()));
            self.distrusted_keys.insert(identity.key.to_vec());
        }
    }

    fn add_object(&mut self, place: TrustDirectory, object: Object) {
        let distrusted = place == TrustDirectory::Blocklist || object.distrusted;
        if object.is_extension {
            let value = object.value.unwrap_or_default();
            let is_key_usage = object.object_id == "2.5.29.37" || memmem::find(&value, KEY_USAGE).is_some();
            if is_key_usage && !SERVERS.iter().any(|oid| memmem::find(&value, oid).is_some()) {
                self.not_for_servers.extend(object.key);
            }
            return;
        }
        let certificate = object.certificate.or(object.value);
        if distrusted {
            if let Some(der) = &certificate {
                self.distrust(der);
            }
            // without the certificate, its names or its key are enough
            self.distrusted.extend(object.issuer.zip(object.serial));
            self.distrusted_keys.extend(object.key);
        } else if place == TrustDirectory::Anchors || object.trusted {
            certificate.into_iter().for_each(|der| self.trust(der));
        }
    }
}

/// One object of a `.p11-kit` file, as far as trust depends on it.
#[derive(Debug, Default)]
struct Object {
    is_extension: bool,
    trusted: bool,
    distrusted: bool,
    certificate: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    issuer: Option<Vec<u8>>,
    serial: Option<Vec<u8>>,
    key: Option<Vec<u8>>,
    object_id: String,
}

fn objects(bytes: &[u8]) -> Vec<Object> {
    let mut all: Vec<Object> = Vec::new();
    // a block that has begun: its label, and its base64
    let mut block: Option<(Vec<u8>, Vec<u8>)> = None;
    for (_, line) in pem::lines(bytes) {
        let line = line.trim_ascii();
        if line == HEADER {
            all.push(Object::default());
            block = None;
            continue;
        }
        let Some(object) = all.last_mut() else { continue };
        if let Some(label) = boundary(line, b"-----BEGIN ") {
            block = Some((label.to_vec(), Vec::new()));
        } else if boundary(line, b"-----END ").is_some() {
            if let Some((label, text)) = block.take() {
                object.set_block(&label, BASE64.decode(&text).ok());
            }
        } else if let Some((_, text)) = &mut block {
            text.extend(line.iter().filter(|byte| !byte.is_ascii_whitespace()));
        } else if !line.starts_with(b"#")
            && let Some(colon) = line.iter().position(|byte| *byte == b':')
        {
            object.set(line[..colon].trim_ascii(), line[colon + 1..].trim_ascii());
        }
    }
    all
}

impl Object {
    fn set(&mut self, name: &[u8], value: &[u8]) {
        match name {
            b"class" => self.is_extension = value == b"x-certificate-extension",
            b"trusted" => self.trusted = value == b"true",
            b"x-distrusted" => self.distrusted = value == b"true",
            b"value" => self.value = Some(unquote(value)),
            b"issuer" => self.issuer = Some(unquote(value)),
            b"serial-number" => self.serial = Some(unquote(value)),
            b"public-key-info" | b"x-public-key-info" => self.key = Some(unquote(value)),
            b"object-id" => self.object_id = String::from_utf8_lossy(value).trim_matches('"').to_owned(),
            _ => {}
        }
    }

    fn set_block(&mut self, label: &[u8], der: Option<Vec<u8>>) {
        match label {
            b"CERTIFICATE" | b"X509 CERTIFICATE" | b"TRUSTED CERTIFICATE" => {
                // without the settings that may follow
                self.certificate = der.as_deref().and_then(element).map(|certificate| certificate.whole.to_vec());
            }
            b"PUBLIC KEY" => self.key = der,
            _ => {}
        }
    }
}

fn boundary<'a>(line: &'a [u8], start: &[u8]) -> Option<&'a [u8]> {
    line.strip_prefix(start)?.strip_suffix(b"-----")
}

/// A value in quotes, where a byte may stand as `%` and two hexadecimal digits.
fn unquote(value: &[u8]) -> Vec<u8> {
    let value = value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(value);
    let mut out = Vec::with_capacity(value.len() / 3);
    let mut rest = value;
    while let [first, more @ ..] = rest {
        let digits = more.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = digits.filter(|_| *first == b'%').and_then(|digits| u8::from_str_radix(digits, 16).ok());
        out.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &more[2..] } else { more };
    }
    out
}

#[cfg(test)]
#[path = "p11kit_tests.rs"]
mod tests;
