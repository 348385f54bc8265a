//! A certificate as it is decoded to verify a chain. The decoding is lenient: servers use certificates that nodetrust would not
//! install.

use x509_parser::{
    prelude::FromDer,
    x509::{SubjectPublicKeyInfo, X509Name},
};

use crate::certificate::{
    anchor::{Key, Name},
    der::{Element, Elements, content_of, element, elements},
    fingerprint::Fingerprint,
    oid, signature,
};

/// Extensions of one certificate that are looked at.
const MAX_EXTENSIONS: usize = 100;

/// One certificate. What is encoded in it is kept as it came.
#[derive(Debug, Clone)]
pub(super) struct Cert {
    der: Box<[u8]>,
    /// the signed part, with its head
    signed: Box<[u8]>,
    /// the signature's algorithm, with its head, behind the signed part and in it
    algorithm: Box<[u8]>,
    inner_algorithm: Box<[u8]>,
    /// the content of the signature's BIT STRING
    signature: Box<[u8]>,
    /// SubjectPublicKeyInfo, with its head
    key_info: Box<[u8]>,
    pub(super) fingerprint: Fingerprint,
    pub(super) subject: Name,
    pub(super) issuer: Name,
    /// 1, 2 or 3
    pub(super) version: u64,
    pub(super) serial: Box<[u8]>,
    /// seconds since the epoch
    pub(super) not_before: i64,
    pub(super) not_after: i64,
    /// both times are written as RFC 5280 wants it
    pub(super) plain_times: bool,
    pub(super) key: Key,
    pub(super) extensions: Vec<Extension>,
}

/// One of its extensions.
#[derive(Debug, Clone)]
pub(super) struct Extension {
    pub(super) oid: Box<[u8]>,
    pub(super) critical: bool,
    value: Box<[u8]>,
}

impl Cert {
    /// Takes a certificate apart; None if it has not the frame of one.
    pub(super) fn decode(der: &[u8]) -> Option<Self> {
        let mut outer = elements(content_of(0x30, der)?);
        let (signed, algorithm, bits) = (outer.next()?, outer.next()?, outer.next()?);
        if (signed.tag, algorithm.tag, bits.tag) != (0x30, 0x30, 0x03) {
            return None;
        }
        let mut fields = elements(signed.content);
        let version = match fields.next_if(0xa0) {
            Some(tagged) => {
                let number = element(tagged.content)?.content;
                number.iter().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte)).saturating_add(1)
            }
            None => 1,
        };
        let serial = fields.next_if(0x02)?;
        let (inner, issuer, validity, subject, key) =
            (fields.next()?, fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        if [inner, issuer, validity, subject, key].iter().any(|element| element.tag != 0x30) {
            return None;
        }
        let mut times = elements(validity.content);
        let (from, to) = (times.next()?, times.next()?);
        let (before, after) = (time(from.tag, from.content)?, time(to.tag, to.content)?);
        let extensions = fields.find(|element| element.tag == 0xa3).map(|tagged| extensions(tagged.content));
        Some(Self {
            fingerprint: Fingerprint::of_der(der),
            subject: name(subject.whole),
            issuer: name(issuer.whole),
            version,
            serial: serial.content.into(),
            not_before: before.0,
            not_after: after.0,
            plain_times: before.1 && after.1,
            key: kind_of_key(key),
            extensions: extensions.unwrap_or_default(),
            signed: signed.whole.into(),
            algorithm: algorithm.whole.into(),
            inner_algorithm: inner.whole.into(),
            signature: bits.content.into(),
            key_info: key.whole.into(),
            der: der.into(),
        })
    }

    pub(super) fn der(&self) -> &[u8] {
        &self.der
    }

    /// The value of an extension; the first if it is there twice.
    pub(super) fn extension(&self, oid: &[u8]) -> Option<&[u8]> {
        self.extensions.iter().find(|extension| *extension.oid == *oid).map(|extension| &*extension.value)
    }

    /// The elements in the value of an extension, none if it is not there.
    fn fields_of(&self, oid: &[u8]) -> Elements<'_> {
        elements(self.extension(oid).and_then(element).map_or(&[], |outer| outer.content))
    }

    /// basicConstraints: whether it is a CA, and the length of a path below it. None: there is none that can be read.
    pub(super) fn constraints(&self) -> Option<(bool, Option<i64>)> {
        let mut fields = elements(content_of(0x30, self.extension(oid::BASIC_CONSTRAINTS)?)?);
        let is_ca = fields.next_if(0x01).is_some_and(|boolean| boolean.content.iter().any(|byte| *byte != 0));
        let length = fields.next_if(0x02).and_then(|integer| number(integer.content));
        Some((is_ca, length))
    }

    /// keyUsage's bits, the first in the highest place of the first byte; None: there is none.
    pub(super) fn usage(&self) -> Option<u16> {
        let bits = content_of(0x03, self.extension(oid::KEY_USAGE)?)?;
        let bytes = bits.get(1..).unwrap_or_default();
        Some(u16::from_be_bytes([bytes.first().copied().unwrap_or(0), bytes.get(1).copied().unwrap_or(0)]))
    }

    /// Whether keyUsage is there and lacks keyCertSign.
    pub(super) fn cannot_sign(&self) -> bool {
        self.usage().is_some_and(|usage| usage & KEY_CERT_SIGN == 0)
    }

    /// extendedKeyUsage's purposes, encoded; None: there is none.
    pub(super) fn purposes(&self) -> Option<Vec<&[u8]>> {
        let purposes = element(self.extension(oid::EXTENDED_KEY_USAGE)?)?;
        Some(elements(purposes.content).map(|purpose| purpose.content).collect())
    }

    /// Whether extendedKeyUsage is there and has neither serverAuth nor anyExtendedKeyUsage.
    pub(super) fn not_for_servers(&self) -> bool {
        self.purposes().is_some_and(|purposes| {
            !purposes.iter().any(|purpose| [oid::SERVER_AUTH, oid::ANY_PURPOSE].contains(purpose))
        })
    }

    /// subjectKeyIdentifier.
    pub(super) fn key_id(&self) -> Option<&[u8]> {
        content_of(0x04, self.extension(oid::SUBJECT_KEY_ID)?)
    }

    /// The fields of authorityKeyIdentifier: key id, issuer's names, serial number.
    pub(super) fn authority_key(&self) -> AuthorityKey<'_> {
        let mut fields = AuthorityKey::default();
        for field in self.fields_of(oid::AUTHORITY_KEY_ID) {
            match field.tag {
                0x80 => fields.key_id = Some(field.content),
                0xa1 => fields.names = Some(field.content),
                0x82 => fields.serial = Some(field.content),
                _ => {}
            }
        }
        fields
    }

    /// The names in subjectAltName: the number of their kind and their content.
    pub(super) fn alternative_names(&self) -> Vec<(u8, &[u8])> {
        self.fields_of(oid::SUBJECT_NAMES).map(|name| (name.tag & 0x1f, name.content)).collect()
    }

    /// nameConstraints: what is permitted, and what is excluded.
    pub(super) fn subtrees(&self) -> Option<[Vec<Subtree<'_>>; 2]> {
        let constraints = element(self.extension(oid::NAME_CONSTRAINTS)?)?;
        let mut both = [Vec::new(), Vec::new()];
        for list in elements(constraints.content) {
            let subtrees = match list.tag {
                0xa0 => &mut both[0],
                0xa1 => &mut both[1],
                _ => continue,
            };
            for subtree in elements(list.content) {
                let mut fields = elements(subtree.content);
                let Some(base) = fields.next() else { continue };
                let has_distances = fields.next().is_some();
                subtrees.push(Subtree { kind: base.tag & 0x1f, base: base.content, has_distances });
            }
        }
        Some(both)
    }

    /// Whether another certificate is of the same name, key and alternative names.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.subject.raw == other.subject.raw
            && self.key_info == other.key_info
            && self.extension(oid::SUBJECT_NAMES) == other.extension(oid::SUBJECT_NAMES)
    }

    /// Whether subject and issuer are the same bytes.
    pub(super) fn is_self_issued(&self) -> bool {
        self.subject.raw == self.issuer.raw
    }

    /// The end of a chain: it is its own issuer, and does not name another key as its signer.
    pub(super) fn is_root(&self) -> bool {
        let (own, signer) = (self.key_id(), self.authority_key().key_id);
        self.is_self_issued() && !(own.is_some() && signer.is_some() && own != signer)
    }

    /// Why it is not a CA by the rules of Go; None if it is one.
    pub(super) fn no_authority(&self) -> Option<&'static str> {
        match self.constraints() {
            Some((true, _)) => None,
            Some((false, _)) => Some("is not a CA (CA:FALSE)"),
            None if self.version == 3 => Some("does not say that it is a CA (no basicConstraints)"),
            None => None,
        }
    }

    /// Its signature's algorithm, as the object identifier's bytes.
    pub(super) fn algorithm(&self) -> &[u8] {
        first_within(&self.algorithm).unwrap_or_default()
    }

    /// Whether it names one signature algorithm in the signed part and behind it.
    pub(super) fn has_one_algorithm(&self) -> bool {
        self.algorithm == self.inner_algorithm
    }

    /// The kind of key as its algorithm's object identifier.
    pub(super) fn key_algorithm(&self) -> &[u8] {
        element(&self.key_info).and_then(|info| first_within(info.content)).unwrap_or_default()
    }

    /// The content of its key's algorithm, and the key's bits.
    pub(super) fn key_parts(&self) -> Option<(Vec<u8>, Vec<u8>)> {
        let mut parts = elements(element(&self.key_info)?.content);
        let (algorithm, bits) = (parts.next()?, parts.next()?);
        Some((algorithm.content.to_vec(), bits.content.get(1..)?.to_vec()))
    }

    /// Whether this one's key has signed another certificate; None: the algorithm or key size is not supported here.
    pub(super) fn has_signed(&self, child: &Self) -> Option<bool> {
        let (unused, signature) = child.signature.split_first()?;
        if *unused != 0 {
            return Some(false);
        }
        signature::verify(&child.algorithm, &self.key_info, &child.signed, signature)
    }

    /// A signature that is broken, by the name of its algorithm.
    pub(super) fn weak_signature(&self) -> Option<&'static str> {
        signature::weakness_of(&self.algorithm)
    }
}

/// keyUsage: keyCertSign.
pub(super) const KEY_CERT_SIGN: u16 = 0x0400;
/// keyUsage: digitalSignature, keyEncipherment, keyAgreement; OpenSSL wants one of them of a server.
pub(super) const SERVER_USAGES: u16 = 0x8000 | 0x2000 | 0x0800;

/// See [`Cert::authority_key`].
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct AuthorityKey<'a> {
    pub(super) key_id: Option<&'a [u8]>,
    pub(super) names: Option<&'a [u8]>,
    pub(super) serial: Option<&'a [u8]>,
}

impl<'a> AuthorityKey<'a> {
    /// The first directory name among the issuer's own issuer's names (RFC 5280, 4.2.1.1).
    pub(super) fn directory_name(&self) -> Option<&'a [u8]> {
        elements(self.names?).find(|name| name.tag == 0xa4).map(|name| name.content)
    }
}

/// A name constraint.
#[derive(Debug, Clone, Copy)]
pub(super) struct Subtree<'a> {
    pub(super) kind: u8,
    pub(super) base: &'a [u8],
    /// minimum or maximum are there
    pub(super) has_distances: bool,
}

/// The content of the first element in a first element.
fn first_within(der: &[u8]) -> Option<&[u8]> {
    Some(element(element(der)?.content)?.content)
}

/// Reads the extensions within their tag. What is none is passed over.
fn extensions(tagged: &[u8]) -> Vec<Extension> {
    let Some(all) = element(tagged) else { return Vec::new() };
    let extension = |extension: Element<'_>| {
        let mut fields = elements(extension.content);
        let oid = fields.next_if(0x06)?.content.into();
        let critical = fields.next_if(0x01).is_some_and(|critical| critical.content.iter().any(|byte| *byte != 0));
        let value = fields.next_if(0x04)?.content.into();
        Some(Extension { oid, critical, value })
    };
    elements(all.content).take(MAX_EXTENSIONS).filter_map(extension).collect()
}

fn name(raw: &[u8]) -> Name {
    let parsed = X509Name::from_der(raw).ok().and_then(|(_, name)| Name::new(&name).ok());
    parsed.unwrap_or_else(|| Name {
        text: "?".into(),
        common: "(a name that cannot be read)".into(),
        hash: 0,
        raw: raw.into(),
    })
}

fn kind_of_key(info: Element<'_>) -> Key {
    let unreadable = || Key { kind: "a key that cannot be read".into(), bits: 0 };
    let key = SubjectPublicKeyInfo::from_der(info.whole).map_or_else(|_| unreadable(), |(_, info)| Key::of(&info));
    match elements(info.content).nth(1) {
        // a curve without a name here: its size is that of a point's coordinates
        Some(bits) if key.kind == "EC" && key.bits == 0 => {
            let point = bits.content.len().saturating_sub(2);
            let is_compressed = matches!(bits.content.get(1), Some(2 | 3));
            Key { bits: if is_compressed { point * 8 } else { point * 4 }, ..key }
        }
        _ => key,
    }
}

/// A small number; None if it is negative or large.
fn number(bytes: &[u8]) -> Option<i64> {
    match bytes {
        [first, ..] if first & 0x80 != 0 => None,
        [] => None,
        bytes if bytes.len() <= 4 => Some(bytes.iter().fold(0, |sum, byte| sum << 8 | i64::from(*byte))),
        _ => None,
    }
}

/// Seconds since the epoch, and whether the time is written as RFC 5280 wants it: to the second, and in UTC.
fn time(tag: u8, text: &[u8]) -> Option<(i64, bool)> {
    let years = match tag {
        0x17 => 2,
        0x18 => 4,
        _ => return None,
    };
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, zone) = text.split_at(digits);
    let value = |range: std::ops::Range<usize>| {
        digits.get(range).map(|digits| digits.iter().fold(0i64, |sum, digit| sum * 10 + i64::from(digit - b'0')))
    };
    let year = match (tag, value(0..years)?) {
        (0x17, year @ 50..) => 1900 + year,
        (0x17, year) => 2000 + year,
        (_, year) => year,
    };
    let part = |at: usize| value(years + 2 * at..years + 2 * at + 2);
    let (month, day, hour, minute) = (part(0)?, part(1)?, part(2)?, part(3)?);
    let second = part(4).unwrap_or(0);
    let in_range = (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second < 60;
    let plain = digits.len() == years + 10 && zone == b"Z" && in_range;
    // days of the civil calendar since 1970-01-01, with years that begin in March
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days =
        365 * y + y.div_euclid(4) - y.div_euclid(100) + y.div_euclid(400) + (153 * m + 2) / 5 + day - 1 - 719_468;
    let offset = match zone {
        [sign @ (b'+' | b'-'), offset @ ..] if offset.len() == 4 && offset.iter().all(u8::is_ascii_digit) => {
            let of = |digits: &[u8]| i64::from(digits[0] - b'0') * 10 + i64::from(digits[1] - b'0');
            let seconds = of(&offset[..2]) * 3600 + of(&offset[2..]) * 60;
            if *sign == b'+' { seconds } else { -seconds }
        }
        _ => 0,
    };
    Some((days * 86_400 + hour * 3600 + minute * 60 + second - offset, plain))
}
