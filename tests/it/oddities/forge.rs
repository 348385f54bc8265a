//! Certificates with a fault wherever one is wanted: each part is DER that a test may replace before the whole is signed.

use std::process::{Command, Stdio};

use nodetrust_core::certificate::pem;
use rcgen::{KeyPair, PublicKeyData, SigningKey};

/// DER of this tag, with the length in its shortest form.
pub fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let head = match length {
        0..=0x7f => vec![tag, length as u8],
        0x80..=0xff => vec![tag, 0x81, length as u8],
        0x100..=0xffff => vec![tag, 0x82, (length >> 8) as u8, length as u8],
        _ => vec![tag, 0x83, (length >> 16) as u8, (length >> 8) as u8, length as u8],
    };
    [head, content.to_vec()].concat()
}

pub fn seq(parts: &[Vec<u8>]) -> Vec<u8> {
    tlv(0x30, &parts.concat())
}

/// An object identifier by its numbers, of which the first two are one byte.
pub fn oid(numbers: &[u64]) -> Vec<u8> {
    let mut content = vec![(numbers[0] * 40 + numbers[1]) as u8];
    for number in &numbers[2..] {
        let mut digits = vec![(number & 0x7f) as u8];
        let mut rest = number >> 7;
        while rest > 0 {
            digits.push((rest & 0x7f) as u8 | 0x80);
            rest >>= 7;
        }
        content.extend(digits.iter().rev());
    }
    tlv(0x06, &content)
}

/// A name with one attribute (2.5.4.`kind`) of this type of string.
pub fn name_of(kind: u64, tag: u8, text: &[u8]) -> Vec<u8> {
    seq(&[tlv(0x31, &seq(&[oid(&[2, 5, 4, kind]), tlv(tag, text)]))])
}

pub fn common_name(text: &str) -> Vec<u8> {
    name_of(3, 0x0c, text.as_bytes())
}

/// An extension, critical or not.
pub fn extension(numbers: &[u64], critical: bool, value: &[u8]) -> Vec<u8> {
    let critical = if critical { tlv(0x01, &[0xff]) } else { Vec::new() };
    seq(&[oid(numbers), critical, tlv(0x04, value)])
}

pub const CONSTRAINTS: &[u64] = &[2, 5, 29, 19];
pub const USAGE: &[u64] = &[2, 5, 29, 15];
pub const PURPOSES: &[u64] = &[2, 5, 29, 37];
pub const NAMES: &[u64] = &[2, 5, 29, 17];
pub const LIMITS: &[u64] = &[2, 5, 29, 30];
pub const KEY_ID: &[u64] = &[2, 5, 29, 14];
pub const SIGNER_ID: &[u64] = &[2, 5, 29, 35];

/// A key, and how it signs.
pub enum CertKey {
    /// A key that this process holds.
    Own(KeyPair),
    /// A key that OpenSSL signs with: the private key in PEM, and the digest; None for algorithms without one.
    OpenSsl(String, Option<&'static str>),
}

impl CertKey {
    pub fn new() -> Self {
        Self::Own(KeyPair::generate().unwrap())
    }

    /// A key that OpenSSL makes from these arguments of `genpkey`.
    pub fn made(args: &[&str], digest: Option<&'static str>) -> Self {
        let done = Command::new("openssl").arg("genpkey").args(args).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        Self::OpenSsl(String::from_utf8(done.stdout).unwrap(), digest)
    }

    pub fn pem(&self) -> String {
        match self {
            Self::Own(pair) => pair.serialize_pem(),
            Self::OpenSsl(text, _) => text.clone(),
        }
    }

    /// The public key with its algorithm.
    pub fn info(&self) -> Vec<u8> {
        match self {
            Self::Own(pair) => pair.subject_public_key_info(),
            Self::OpenSsl(text, _) => openssl(&["pkey", "-pubout", "-outform", "DER"], text.as_bytes()),
        }
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        let (key, data) = (dir.path().join("key"), dir.path().join("data"));
        match self {
            Self::Own(pair) => pair.sign(message).unwrap(),
            Self::OpenSsl(text, digest) => {
                std::fs::write(&key, text).unwrap();
                std::fs::write(&data, message).unwrap();
                let (key, data) = (key.display().to_string(), data.display().to_string());
                match digest {
                    Some(digest) => openssl(&["dgst", digest, "-sign", &key, &data], b""),
                    None => openssl(&["pkeyutl", "-sign", "-rawin", "-inkey", &key, "-in", &data], b""),
                }
            }
        }
    }
}

fn openssl(args: &[&str], input: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut child = Command::new("openssl")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let done = child.wait_with_output().unwrap();
    assert!(done.status.success(), "openssl {args:?}: {}", String::from_utf8_lossy(&done.stderr));
    done.stdout
}

/// A certificate before it is signed: every part is a whole element, or nothing.
#[derive(Clone)]
pub struct CertDraft {
    pub version: Vec<u8>,
    pub serial: Vec<u8>,
    pub algorithm: Vec<u8>,
    pub issuer: Vec<u8>,
    pub validity: Vec<u8>,
    pub subject: Vec<u8>,
    pub key: Vec<u8>,
    /// unique identifiers
    pub more: Vec<u8>,
    pub extensions: Vec<Vec<u8>>,
}

pub fn ecdsa_sha256() -> Vec<u8> {
    seq(&[oid(&[1, 2, 840, 10045, 4, 3, 2])])
}

pub fn utc(text: &str) -> Vec<u8> {
    tlv(0x17, text.as_bytes())
}

pub fn key_id_of(name: &[u8]) -> Vec<u8> {
    let sum = name.iter().fold([0u8; 8], |mut sum, byte| {
        sum.rotate_left(1);
        sum[0] = sum[0].wrapping_mul(31).wrapping_add(*byte);
        sum
    });
    tlv(0x04, &sum)
}

impl CertDraft {
    /// A CA without a fault, of this common name.
    pub fn ca(name: &str, key: &CertKey) -> Self {
        let subject = common_name(name);
        Self {
            version: tlv(0xa0, &tlv(0x02, &[2])),
            serial: tlv(0x02, &[0x11, 0x22, 0x33]),
            algorithm: ecdsa_sha256(),
            issuer: subject.clone(),
            validity: seq(&[utc("200101000000Z"), utc("450101000000Z")]),
            key: key.info(),
            more: Vec::new(),
            extensions: vec![
                extension(CONSTRAINTS, true, &seq(&[tlv(0x01, &[0xff])])),
                extension(USAGE, true, &[0x03, 0x02, 0x01, 0x06]),
                extension(KEY_ID, false, &key_id_of(&subject)),
            ],
            subject,
        }
    }

    /// A server's certificate without a fault, for localhost, below a CA.
    pub fn leaf(above: &Self, key: &CertKey) -> Self {
        let subject = common_name("localhost");
        Self {
            version: tlv(0xa0, &tlv(0x02, &[2])),
            serial: tlv(0x02, &[0x44, 0x55]),
            algorithm: ecdsa_sha256(),
            issuer: above.subject.clone(),
            validity: seq(&[utc("240101000000Z"), utc("440101000000Z")]),
            subject,
            key: key.info(),
            more: Vec::new(),
            extensions: vec![
                extension(PURPOSES, false, &seq(&[oid(&[1, 3, 6, 1, 5, 5, 7, 3, 1])])),
                extension(NAMES, false, &seq(&[tlv(0x82, b"localhost")])),
                extension(
                    SIGNER_ID,
                    false,
                    &seq(&[{
                        let mut id = key_id_of(&above.subject);
                        id[0] = 0x80;
                        id
                    }]),
                ),
            ],
        }
    }

    /// Replaces an extension, or adds it; an empty one is left out.
    pub fn set(&mut self, numbers: &[u64], whole: Vec<u8>) {
        let prefix = oid(numbers);
        let is = |extension: &Vec<u8>| extension.windows(prefix.len()).take(8).any(|window| window == prefix);
        let at = self.extensions.iter().position(is);
        match at {
            Some(at) if whole.is_empty() => drop(self.extensions.remove(at)),
            Some(at) => self.extensions[at] = whole,
            None if whole.is_empty() => {}
            None => self.extensions.push(whole),
        }
    }

    /// The certificate, signed by a key.
    pub fn signed(&self, by: &CertKey) -> Vec<u8> {
        let extensions = match self.extensions.is_empty() {
            true => Vec::new(),
            false => tlv(0xa3, &seq(&[self.extensions.concat()])),
        };
        let to_be_signed = seq(&[
            self.version.clone(),
            self.serial.clone(),
            self.algorithm.clone(),
            self.issuer.clone(),
            self.validity.clone(),
            self.subject.clone(),
            self.key.clone(),
            self.more.clone(),
            extensions,
        ]);
        let signature = [&[0], by.sign(&to_be_signed).as_slice()].concat();
        seq(&[to_be_signed, self.algorithm.clone(), tlv(0x03, &signature)])
    }

    pub fn pem(&self, by: &CertKey) -> String {
        pem::encode(&self.signed(by))
    }
}
