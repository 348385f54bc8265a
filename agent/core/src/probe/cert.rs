//! A certificate as a reader takes it apart while it verifies a chain: leniently, since what others use need not be what
//! nodetrust would install.

use std::{ops::Range, sync::Arc};

use x509_parser::{
    prelude::FromDer,
    x509::{SubjectPublicKeyInfo, X509Name},
};

use crate::certificate::{
    anchor::{Key, Name},
    fingerprint::Fingerprint,
    signature,
};

/// Extensions of one certificate that are looked at.
const MAX_EXTENSIONS: usize = 100;

/// One certificate.
#[derive(Debug, Clone)]
pub(super) struct Cert {
    der: Arc<[u8]>,
    signed: Range<usize>,
    algorithm: Range<usize>,
    inner_algorithm: Range<usize>,
    signature: Range<usize>,
    key_info: Range<usize>,
    pub(super) fingerprint: Fingerprint,
    pub(super) subject: Name,
    pub(super) issuer: Name,
    /// 1, 2 or 3
    pub(super) version: u64,
    serial: Range<usize>,
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
    pub(super) oid: Vec<u8>,
    pub(super) critical: bool,
    value: Vec<u8>,
}

/// An element: its tag, where its content lies and where it ends.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) tag: u8,
    start: usize,
    pub(super) content: Range<usize>,
}

/// The elements in a range of bytes, of any definite length; it ends where one is cut off, and tells so by [`Items::end_whole`].
#[derive(Debug, Clone)]
pub(super) struct Items<'a> {
    der: &'a [u8],
    at: usize,
    end: usize,
    broken: bool,
}

impl<'a> Items<'a> {
    pub(super) fn of(der: &'a [u8]) -> Self {
        Self { der, at: 0, end: der.len(), broken: false }
    }

    pub(super) fn within(der: &'a [u8], range: &Range<usize>) -> Self {
        Self { der, at: range.start, end: range.end, broken: false }
    }

    /// Whether every byte belongs to an element.
    pub(super) fn end_whole(mut self) -> bool {
        self.by_ref().for_each(drop);
        !self.broken
    }

    fn head(&self) -> Option<Item> {
        let bytes = self.der.get(self.at..self.end)?;
        let (tag, first) = (*bytes.first()?, *bytes.get(1)?);
        let (head, length) = match first {
            0..=0x7f => (2, usize::from(first)),
            0x81..=0x84 => {
                let count = usize::from(first & 0x7f);
                let digits = bytes.get(2..2 + count)?;
                (2 + count, digits.iter().fold(0, |sum, digit| sum << 8 | usize::from(*digit)))
            }
            _ => return None,
        };
        let start = self.at + head;
        let end = start.checked_add(length).filter(|end| *end <= self.end)?;
        Some(Item { tag, start: self.at, content: start..end })
    }
}

impl Iterator for Items<'_> {
    type Item = Item;

    fn next(&mut self) -> Option<Item> {
        if self.broken || self.at >= self.end {
            return None;
        }
        let item = self.head();
        match &item {
            Some(item) => self.at = item.content.end,
            None => self.broken = true,
        }
        item
    }
}

impl Item {
    fn whole(&self) -> Range<usize> {
        self.start..self.content.end
    }
}

/// Object identifiers of extensions, encoded.
pub(super) mod oid {
    pub(in super::super) const SUBJECT_KEY: &[u8] = b"\x55\x1d\x0e";
    pub(in super::super) const KEY_USAGE: &[u8] = b"\x55\x1d\x0f";
    pub(in super::super) const SUBJECT_NAMES: &[u8] = b"\x55\x1d\x11";
    pub(in super::super) const BASIC_CONSTRAINTS: &[u8] = b"\x55\x1d\x13";
    pub(in super::super) const NAME_CONSTRAINTS: &[u8] = b"\x55\x1d\x1e";
    pub(in super::super) const CRL_POINTS: &[u8] = b"\x55\x1d\x1f";
    pub(in super::super) const POLICIES: &[u8] = b"\x55\x1d\x20";
    pub(in super::super) const POLICY_MAPPINGS: &[u8] = b"\x55\x1d\x21";
    pub(in super::super) const AUTHORITY_KEY: &[u8] = b"\x55\x1d\x23";
    pub(in super::super) const POLICY_CONSTRAINTS: &[u8] = b"\x55\x1d\x24";
    pub(in super::super) const EXTENDED_USAGE: &[u8] = b"\x55\x1d\x25";
    pub(in super::super) const INHIBIT_ANY: &[u8] = b"\x55\x1d\x36";
    pub(in super::super) const AUTHORITY_INFO: &[u8] = b"\x2b\x06\x01\x05\x05\x07\x01\x01";
    pub(in super::super) const NETSCAPE_TYPE: &[u8] = b"\x60\x86\x48\x01\x86\xf8\x42\x01\x01";
    pub(in super::super) const NO_CHECK: &[u8] = b"\x2b\x06\x01\x05\x05\x07\x30\x01\x05";
    pub(in super::super) const PROXY_INFO: &[u8] = b"\x2b\x06\x01\x05\x05\x07\x01\x0e";
    pub(in super::super) const ADDRESS_BLOCKS: &[u8] = b"\x2b\x06\x01\x05\x05\x07\x01\x07";
    pub(in super::super) const AS_NUMBERS: &[u8] = b"\x2b\x06\x01\x05\x05\x07\x01\x08";
    /// purposes
    pub(in super::super) const SERVER: &[u8] = b"\x2b\x06\x01\x05\x05\x07\x03\x01";
    pub(in super::super) const ANY_PURPOSE: &[u8] = b"\x55\x1d\x25\x00";
}

impl Cert {
    /// Takes a certificate apart; None if it has not the frame of one.
    pub(super) fn decode(der: &[u8]) -> Option<Self> {
        let all = Items::of(der).next().filter(|item| item.tag == 0x30)?;
        let mut outer = Items::within(der, &all.content);
        let (signed, algorithm, bits) = (outer.next()?, outer.next()?, outer.next()?);
        if (signed.tag, algorithm.tag, bits.tag) != (0x30, 0x30, 0x03) {
            return None;
        }
        let mut fields = Items::within(der, &signed.content).peekable();
        let version = match fields.next_if(|item| item.tag == 0xa0) {
            Some(tagged) => {
                let number = Items::within(der, &tagged.content).next()?;
                der[number.content].iter().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte)).saturating_add(1)
            }
            None => 1,
        };
        let serial = fields.next().filter(|item| item.tag == 0x02)?;
        let (inner, issuer, validity, subject, key) =
            (fields.next()?, fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        if [&inner, &issuer, &validity, &subject, &key].iter().any(|item| item.tag != 0x30) {
            return None;
        }
        let mut times = Items::within(der, &validity.content);
        let (from, to) = (times.next()?, times.next()?);
        let (before, after) = (time(from.tag, &der[from.content])?, time(to.tag, &der[to.content])?);
        let extensions =
            fields.find(|item| item.tag == 0xa3).map(|tagged| extensions(der, &tagged)).unwrap_or_default();
        Some(Self {
            fingerprint: Fingerprint::of_der(der),
            subject: name(&der[subject.whole()]),
            issuer: name(&der[issuer.whole()]),
            version,
            serial: serial.content,
            not_before: before.0,
            not_after: after.0,
            plain_times: before.1 && after.1,
            key: kind_of_key(der, &key),
            extensions,
            signed: signed.whole(),
            algorithm: algorithm.whole(),
            inner_algorithm: inner.whole(),
            signature: bits.content,
            key_info: key.whole(),
            der: der.into(),
        })
    }

    pub(super) fn der(&self) -> &[u8] {
        &self.der
    }

    pub(super) fn serial(&self) -> &[u8] {
        &self.der[self.serial.clone()]
    }

    /// The value of an extension; the first if it is there twice.
    pub(super) fn extension(&self, oid: &[u8]) -> Option<&[u8]> {
        self.extensions.iter().find(|extension| extension.oid == oid).map(|extension| extension.value.as_slice())
    }

    /// basicConstraints: whether it is a CA, and the length of a path below it. None: there is none that can be read.
    pub(super) fn constraints(&self) -> Option<(bool, Option<i64>)> {
        let value = self.extension(oid::BASIC_CONSTRAINTS)?;
        let outer = Items::of(value).next().filter(|item| item.tag == 0x30)?;
        let mut fields = Items::within(value, &outer.content).peekable();
        let is_ca = fields
            .next_if(|item| item.tag == 0x01)
            .is_some_and(|item| value[item.content].iter().any(|byte| *byte != 0));
        let length = fields.next_if(|item| item.tag == 0x02).and_then(|item| number(&value[item.content]));
        Some((is_ca, length))
    }

    /// keyUsage's bits, the first in the highest place of the first byte; None: there is none.
    pub(super) fn usage(&self) -> Option<u16> {
        let value = self.extension(oid::KEY_USAGE)?;
        let bits = Items::of(value).next().filter(|item| item.tag == 0x03)?;
        let bytes = value[bits.content].get(1..).unwrap_or_default();
        Some(u16::from_be_bytes([bytes.first().copied().unwrap_or(0), bytes.get(1).copied().unwrap_or(0)]))
    }

    /// keyUsage is there and lacks keyCertSign.
    pub(super) fn cannot_sign(&self) -> bool {
        self.usage().is_some_and(|usage| usage & KEY_CERT_SIGN == 0)
    }

    /// extendedKeyUsage's purposes, encoded; None: there is none.
    pub(super) fn purposes(&self) -> Option<Vec<&[u8]>> {
        let value = self.extension(oid::EXTENDED_USAGE)?;
        let outer = Items::of(value).next()?;
        Some(Items::within(value, &outer.content).map(|item| &value[item.content]).collect())
    }

    /// extendedKeyUsage is there and has neither serverAuth nor any purpose.
    pub(super) fn not_for_servers(&self) -> bool {
        self.purposes()
            .is_some_and(|purposes| !purposes.iter().any(|purpose| [oid::SERVER, oid::ANY_PURPOSE].contains(purpose)))
    }

    /// subjectKeyIdentifier.
    pub(super) fn key_id(&self) -> Option<&[u8]> {
        let value = self.extension(oid::SUBJECT_KEY)?;
        Items::of(value).next().filter(|item| item.tag == 0x04).map(|item| &value[item.content])
    }

    /// The fields of authorityKeyIdentifier: key id, issuer's names, serial number.
    pub(super) fn authority_key(&self) -> AuthorityKey<'_> {
        let mut fields = AuthorityKey::default();
        let Some(value) = self.extension(oid::AUTHORITY_KEY) else { return fields };
        let Some(outer) = Items::of(value).next() else { return fields };
        for item in Items::within(value, &outer.content) {
            let content = &value[item.content];
            match item.tag {
                0x80 => fields.key_id = Some(content),
                0xa1 => fields.names = Some(content),
                0x82 => fields.serial = Some(content),
                _ => {}
            }
        }
        fields
    }

    /// The names in subjectAltName: the number of their kind and their content.
    pub(super) fn alternative_names(&self) -> Vec<(u8, &[u8])> {
        let Some(value) = self.extension(oid::SUBJECT_NAMES) else { return Vec::new() };
        let Some(outer) = Items::of(value).next() else { return Vec::new() };
        Items::within(value, &outer.content).map(|item| (item.tag & 0x1f, &value[item.content])).collect()
    }

    /// nameConstraints: what is permitted, and what is excluded.
    pub(super) fn subtrees(&self) -> Option<[Vec<Subtree<'_>>; 2]> {
        let value = self.extension(oid::NAME_CONSTRAINTS)?;
        let outer = Items::of(value).next()?;
        let mut both = [Vec::new(), Vec::new()];
        for item in Items::within(value, &outer.content) {
            let list = match item.tag {
                0xa0 => &mut both[0],
                0xa1 => &mut both[1],
                _ => continue,
            };
            for subtree in Items::within(value, &item.content) {
                let mut fields = Items::within(value, &subtree.content);
                let Some(base) = fields.next() else { continue };
                list.push(Subtree {
                    kind: base.tag & 0x1f,
                    base: &value[base.content],
                    has_distances: fields.next().is_some(),
                });
            }
        }
        Some(both)
    }

    /// Whether another certificate is of the same name, key and alternative names.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.subject.raw == other.subject.raw
            && self.der[self.key_info.clone()] == other.der[other.key_info.clone()]
            && self.extension(oid::SUBJECT_NAMES) == other.extension(oid::SUBJECT_NAMES)
    }

    /// Subject and issuer are the same bytes.
    pub(super) fn is_self_issued(&self) -> bool {
        self.subject.raw == self.issuer.raw
    }

    /// The end of a chain: it is its own issuer, and does not name another key as its signer.
    pub(super) fn is_root(&self) -> bool {
        let (own, signer) = (self.key_id(), self.authority_key().key_id);
        self.is_self_issued() && !(own.is_some() && signer.is_some() && own != signer)
    }

    /// What a certificate that is not a CA says of that; None: it is one, by the rules of Go.
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
        let sequence = &self.der[self.algorithm.clone()];
        let outer = Items::of(sequence).next();
        let oid = outer.and_then(|outer| Items::within(sequence, &outer.content).next());
        oid.map_or(&[], |oid| &sequence[oid.content])
    }

    /// It names one algorithm inside and outside.
    pub(super) fn has_one_algorithm(&self) -> bool {
        self.der[self.algorithm.clone()] == self.der[self.inner_algorithm.clone()]
    }

    /// The kind of key as its algorithm's object identifier.
    pub(super) fn key_algorithm(&self) -> &[u8] {
        let info = &self.der[self.key_info.clone()];
        let outer = Items::of(info).next();
        let algorithm = outer.and_then(|outer| Items::within(info, &outer.content).next());
        let oid = algorithm.and_then(|algorithm| Items::within(info, &algorithm.content).next());
        oid.map_or(&[], |oid| &info[oid.content])
    }

    /// The content of its key's algorithm, and the key's bits.
    pub(super) fn key_parts(&self) -> Option<(Vec<u8>, Vec<u8>)> {
        let info = &self.der[self.key_info.clone()];
        let outer = Items::of(info).next()?;
        let mut parts = Items::within(info, &outer.content);
        let (algorithm, bits) = (parts.next()?, parts.next()?);
        Some((info[algorithm.content].to_vec(), info[bits.content].get(1..)?.to_vec()))
    }

    /// Whether this one's key has signed another certificate; None: the algorithm or key size is not supported here.
    pub(super) fn has_signed(&self, child: &Self) -> Option<bool> {
        let bits = &child.der[child.signature.clone()];
        let (unused, signature) = bits.split_first()?;
        if *unused != 0 {
            return Some(false);
        }
        signature::verify(
            &child.der[child.algorithm.clone()],
            &self.der[self.key_info.clone()],
            &child.der[child.signed.clone()],
            signature,
        )
    }

    /// A signature that is broken, by the name of its algorithm.
    pub(super) fn weak_signature(&self) -> Option<&'static str> {
        signature::weakness_of(&self.der[self.algorithm.clone()])
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

/// A name constraint.
#[derive(Debug, Clone, Copy)]
pub(super) struct Subtree<'a> {
    pub(super) kind: u8,
    pub(super) base: &'a [u8],
    /// minimum or maximum are there
    pub(super) has_distances: bool,
}

fn extensions(der: &[u8], tagged: &Item) -> Vec<Extension> {
    let Some(outer) = Items::within(der, &tagged.content).next() else { return Vec::new() };
    let extension = |item: Item| {
        let mut fields = Items::within(der, &item.content).peekable();
        let oid = fields.next().filter(|item| item.tag == 0x06)?;
        let critical = fields.next_if(|item| item.tag == 0x01);
        let value = fields.next().filter(|item| item.tag == 0x04)?;
        Some(Extension {
            oid: der[oid.content].to_vec(),
            critical: critical.is_some_and(|item| der[item.content].iter().any(|byte| *byte != 0)),
            value: der[value.content].to_vec(),
        })
    };
    Items::within(der, &outer.content).take(MAX_EXTENSIONS).filter_map(extension).collect()
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

fn kind_of_key(der: &[u8], info: &Item) -> Key {
    let unreadable = || Key { kind: "a key that cannot be read".into(), bits: 0 };
    let key =
        SubjectPublicKeyInfo::from_der(&der[info.whole()]).map_or_else(|_| unreadable(), |(_, info)| Key::of(&info));
    match Items::within(der, &info.content).nth(1) {
        // a curve without a name here: its size is that of a point's coordinates
        Some(bits) if key.kind == "EC" && key.bits == 0 => {
            let point = bits.content.len().saturating_sub(2);
            let is_compressed = matches!(der[bits.content].get(1), Some(2 | 3));
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
    let value = |range: Range<usize>| {
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
