//! Go: what `x509.ParseCertificate` parses (crypto/x509/parser.go, and golang.org/x/crypto/cryptobyte), by the stricter of Go 1.19
//! and Go 1.27.
//!
//! It wants strict DER, but ignores what follows the elements that it knows. Unlike the others it looks into keys, names, times
//! and the extensions that it uses.

use super::{
    At, BAD_BITS, BAD_BOOLEAN, BAD_OID, BAD_TEXT, Checked, MALFORMED, OTHER_TYPE, PADDED, TRAILING, curve, extension,
    is_integer, is_oid, url,
};
use crate::certificate::der::split;

type Done<T> = Result<T, &'static str>;

const CUT: &str = "cut off, not strict DER, or of another type";

/// What is left of an element's content.
#[derive(Clone, Copy)]
struct Text<'a>(&'a [u8]);

pub(crate) fn certificate(der: &[u8]) -> Checked {
    let mut all = Text(der);
    let mut certificate = all.sequence().at("certificate")?;
    if !all.0.is_empty() {
        return Err(TRAILING).at("certificate");
    }
    let mut signed = certificate.sequence().at("signed part")?;
    let version = version(&mut signed).at("version")?;
    let serial = signed.integer().at("serial number")?;
    if serial[0] & 0x80 != 0 {
        return Err("it is negative").at("serial number");
    }
    let inner = signed.sequence().at("signature algorithm")?;
    let outer = certificate.sequence().at("signature algorithm")?;
    if inner.0 != outer.0 {
        return Err("another one behind the signed part").at("signature algorithm");
    }
    algorithm(inner).at("signature algorithm")?;
    name(signed.sequence().at("issuer")?).at("issuer")?;
    validity(&mut signed).at("validity")?;
    name(signed.sequence().at("subject")?).at("subject")?;
    public_key(&mut signed).at("public key")?;
    if version >= 1 {
        signed.skip_optional(0x81).at("unique ids")?;
        signed.skip_optional(0x82).at("unique ids")?;
    }
    if version == 2 && signed.peek(0xa3) {
        extensions(signed.read(0xa3).at("extensions")?)?;
    }
    certificate.bits().at("signature").map(|_| ())
}

fn version(signed: &mut Text<'_>) -> Done<u8> {
    if !signed.peek(0xa0) {
        return Ok(0);
    }
    let mut tagged = signed.read(0xa0)?;
    match (tagged.integer()?, tagged.0) {
        ([version @ 0..=2], []) => Ok(*version),
        (_, []) => Err("none that it knows"),
        _ => Err(MALFORMED),
    }
}

/// An object identifier and what follows it.
fn algorithm(mut algorithm: Text<'_>) -> Done<(&[u8], &[u8])> {
    let oid = algorithm.oid()?;
    let parameters = if algorithm.0.is_empty() { &[][..] } else { algorithm.element()? };
    Ok((oid, parameters))
}

fn name(mut name: Text<'_>) -> Done<()> {
    while !name.0.is_empty() {
        let mut set = name.read(0x31)?;
        while !set.0.is_empty() {
            let mut attribute = set.sequence()?;
            attribute.oid()?;
            let (tag, text) = attribute.any()?;
            let fits = match tag {
                0x0c => std::str::from_utf8(text).is_ok(),
                0x12 => text.iter().all(|byte| byte.is_ascii_digit() || *byte == b' '),
                0x13 => text.iter().all(|byte| byte.is_ascii_alphanumeric() || b" '()+,-./:=?*&".contains(byte)),
                0x14 => true,
                0x16 => text.is_ascii(),
                0x1e => is_bmp(text),
                _ => return Err(OTHER_TYPE),
            };
            if !fits {
                return Err(BAD_TEXT);
            }
        }
    }
    Ok(())
}

/// No surrogates, and none of the characters that are none.
fn is_bmp(text: &[u8]) -> bool {
    let text = text.strip_suffix(&[0, 0]).unwrap_or(text);
    text.len().is_multiple_of(2)
        && text.chunks(2).all(|pair| {
            !matches!(u16::from_be_bytes([pair[0], pair[1]]), 0xfffe | 0xffff | 0xfdd0..=0xfdef | 0xd800..=0xdfff)
        })
}

fn validity(signed: &mut Text<'_>) -> Done<()> {
    let mut validity = signed.sequence()?;
    for _ in 0..2 {
        let fits = match validity.any()? {
            (0x17, text) => is_time(text, 2, true),
            (0x18, text) => is_time(text, 4, false),
            _ => return Err("a time of another type"),
        };
        if !fits {
            return Err("a time that it does not know in this form");
        }
    }
    Ok(())
}

/// Digits of the year, then two each of month, day, hour, minute and second, and a zone that is written as Go would write it.
fn is_time(text: &[u8], year_digits: usize, seconds_may_lack: bool) -> bool {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, zone) = text.split_at(digits);
    let lacks = digits.len() == year_digits + 8;
    if digits.len() != year_digits + 10 && !(seconds_may_lack && lacks) {
        return false;
    }
    let number = |digits: &[u8]| digits.iter().fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0'));
    let year = number(&digits[..year_digits]);
    let mut parts = digits[year_digits..].chunks(2).map(number);
    let mut next = || parts.next().unwrap_or(0);
    let (month, day, hour, minute, second) = (next(), next(), next(), next(), next());
    let leap = year.is_multiple_of(4) && (year_digits == 2 || !year.is_multiple_of(100) || year.is_multiple_of(400));
    let days = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return false,
    };
    let zone_fits = match zone {
        [b'Z'] => true,
        [b'+' | b'-', offset @ ..] if offset.len() == 4 && offset.iter().all(u8::is_ascii_digit) => {
            let (hours, minutes) = (number(&offset[..2]), number(&offset[2..]));
            hours <= 24 && minutes < 60 && hours + minutes > 0
        }
        _ => false,
    };
    (1..=days).contains(&day) && hour < 24 && minute < 60 && second < 60 && zone_fits
}

const RSA: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01";
const EC: &[u8] = b"\x2a\x86\x48\xce\x3d\x02\x01";
const DSA: &[u8] = b"\x2a\x86\x48\xce\x38\x04\x01";
const ED25519: &[u8] = b"\x2b\x65\x70";
/// ML-DSA-44, -65 and -87 with the length of their keys.
const ML_DSA: [(&[u8], usize); 3] = [
    (b"\x60\x86\x48\x01\x65\x03\x04\x03\x11", 1312),
    (b"\x60\x86\x48\x01\x65\x03\x04\x03\x12", 1952),
    (b"\x60\x86\x48\x01\x65\x03\x04\x03\x13", 2592),
];

fn public_key(signed: &mut Text<'_>) -> Done<()> {
    const NOT_POSITIVE: &str = "a number that is not positive";
    let mut info = signed.sequence()?;
    let (oid, parameters) = algorithm(info.sequence()?)?;
    let key = info.bits()?;
    if oid == RSA {
        if parameters != b"\x05\x00" {
            return Err("an RSA key without its NULL");
        }
        let mut key = Text(&key).sequence()?;
        let modulus = key.integer()?;
        let exponent = key.integer()?;
        let positive = |number: &[u8]| number[0] & 0x80 == 0 && number != [0];
        return match positive(modulus) && positive(exponent) {
            true if exponent.len() <= 8 => Ok(()),
            true => Err("an RSA key with an exponent that is too large"),
            false => Err(NOT_POSITIVE),
        };
    }
    if oid == EC {
        let curve = Text(parameters).oid()?;
        return match curve::is_known(curve) {
            false => Err("an elliptic curve that Go does not have"),
            true if curve::has_point(curve, &key) => Ok(()),
            true => Err("a point that is compressed, or not on its elliptic curve"),
        };
    }
    let lengths = [(ED25519, 32)].into_iter().chain(ML_DSA);
    if let Some((_, length)) = lengths.into_iter().find(|(known, _)| *known == oid) {
        return if parameters.is_empty() && key.len() == length { Ok(()) } else { Err("a key of another form") };
    }
    if oid == DSA {
        let mut numbers = vec![Text(&key).integer()?];
        let mut parameters = Text(parameters).sequence()?;
        for _ in 0..3 {
            numbers.push(parameters.integer()?);
        }
        if numbers.iter().any(|number| number[0] & 0x80 != 0 || *number == [0]) {
            return Err(NOT_POSITIVE);
        }
    }
    Ok(())
}

fn extensions(mut tagged: Text<'_>) -> Checked {
    let mut all = tagged.sequence().at("extensions")?;
    let mut seen: Vec<(&[u8], bool, Text<'_>)> = Vec::new();
    while !all.0.is_empty() {
        let mut extension = all.sequence().at("extensions")?;
        let oid = extension.oid().at("extensions")?;
        let critical = extension.peek(0x01) && extension.boolean().at("extensions")?;
        let value = extension.read(0x04).at("extensions")?;
        if seen.iter().any(|(known, ..)| *known == oid) {
            return Err("one of them is there twice").at("extensions");
        }
        seen.push((oid, critical, value));
    }
    for (oid, critical, value) in seen {
        let (place, checked) = match oid {
            extension::KEY_USAGE => ("keyUsage", { value }.bits().map(|_| ())),
            extension::BASIC_CONSTRAINTS => ("basicConstraints", basic_constraints(value)),
            extension::SUBJECT_NAMES => ("subjectAltName", alternative_names(value)),
            extension::NAME_CONSTRAINTS => ("nameConstraints", name_constraints(value)),
            extension::CRL_POINTS => ("cRLDistributionPoints", crl_points(value)),
            extension::AUTHORITY_KEY_ID => ("authorityKeyIdentifier", authority_key(value, critical)),
            extension::POLICY_CONSTRAINTS => ("policyConstraints", policy_constraints(value)),
            extension::EXTENDED_KEY_USAGE => ("extendedKeyUsage", key_purposes(value)),
            extension::SUBJECT_KEY_ID if critical => ("subjectKeyIdentifier", Err(CRITICAL)),
            extension::SUBJECT_KEY_ID => ("subjectKeyIdentifier", { value }.read(0x04).map(|_| ())),
            extension::POLICIES => ("certificatePolicies", policies(value)),
            extension::POLICY_MAPPINGS => ("policyMappings", policy_mappings(value)),
            extension::INHIBIT_ANY_POLICY => ("inhibitAnyPolicy", { value }.small_integer(0x02)),
            extension::AUTHORITY_INFO => ("authorityInfoAccess", authority_info(value, critical)),
            _ => continue,
        };
        checked.at(place)?;
    }
    Ok(())
}

const CRITICAL: &str = "it is marked as critical";

fn basic_constraints(mut value: Text<'_>) -> Done<()> {
    let mut constraints = value.sequence()?;
    if constraints.peek(0x01) {
        constraints.boolean()?;
    }
    if constraints.peek(0x02) {
        let length = constraints.integer()?;
        if length.len() > 8 || length[0] & 0x80 != 0 {
            return Err("a path length that is negative or too large");
        }
    }
    Ok(())
}

fn alternative_names(mut value: Text<'_>) -> Done<()> {
    let mut names = value.sequence()?;
    while !names.0.is_empty() {
        match names.any()? {
            (0x81 | 0x82 | 0x86, text) if !text.is_ascii() => {
                return Err("a mail address, domain name or URI with other characters than ASCII's");
            }
            (0x86, uri) if !url::is_uri(uri) => return Err("a URI that it cannot parse"),
            (0x87, address) => match address.len() {
                4 => {}
                16 if is_mapped(address) => return Err("an IPv4 address written as IPv6"),
                16 => {}
                _ => return Err("an IP address of another length"),
            },
            _ => {}
        }
    }
    Ok(())
}

fn is_mapped(address: &[u8]) -> bool {
    address.starts_with(b"\0\0\0\0\0\0\0\0\0\0\xff\xff")
}

fn name_constraints(mut value: Text<'_>) -> Done<()> {
    let mut constraints = value.sequence()?;
    let mut parts = [Text(&[]); 2];
    for (part, tag) in parts.iter_mut().zip([0xa0, 0xa1]) {
        if constraints.peek(tag) {
            *part = constraints.read(tag)?;
        }
    }
    if !constraints.0.is_empty() || !value.0.is_empty() {
        return Err(TRAILING);
    }
    if parts.iter().all(|part| part.0.is_empty()) {
        return Err("there are none in it");
    }
    for mut part in parts {
        while !part.0.is_empty() {
            let (tag, text) = part.sequence()?.any()?;
            let fits = match tag {
                0x81 => {
                    text.is_ascii() && if text.contains(&b'@') { is_mailbox(text) } else { url::is_domain(text, true) }
                }
                0x82 => text.is_ascii() && url::is_domain(text, true),
                0x86 => {
                    let text_of = |text| std::str::from_utf8(text).unwrap_or_default();
                    // an address with a zone is none for Go either
                    let address = text_of(text).parse::<std::net::IpAddr>().is_ok();
                    text.is_ascii() && !address && url::is_domain(text, true)
                }
                0x87 if matches!(text.len(), 8 | 32) => {
                    let (address, mask) = text.split_at(text.len() / 2);
                    is_mask(mask) && !(address.len() == 16 && is_mapped(address))
                }
                0x87 => return Err("an IP address of another length"),
                _ => true,
            };
            if !fits {
                return Err("a name that it cannot parse");
            }
        }
    }
    Ok(())
}

/// Ones, then zeros.
fn is_mask(mask: &[u8]) -> bool {
    let ones = mask.iter().take_while(|byte| **byte == 0xff).count();
    let (edge, zeros) = mask[ones..].split_first().map_or((0, &[][..]), |(edge, zeros)| (*edge, zeros));
    edge.leading_ones() + edge.trailing_zeros() == 8 && zeros.iter().all(|byte| *byte == 0)
}

/// `parseRFC2821Mailbox`.
fn is_mailbox(text: &[u8]) -> bool {
    let mut rest = text;
    if let Some(quoted) = rest.strip_prefix(b"\"") {
        rest = quoted;
        loop {
            let [byte, after @ ..] = rest else { return false };
            rest = after;
            match byte {
                b'"' => break,
                b'\\' => match rest {
                    [11 | 12 | 1..=9 | 14..=127, after @ ..] => rest = after,
                    _ => return false,
                },
                11 | 12 | 32 | 33 | 127 | 1..=8 | 14..=31 | 35..=91 | 93..=126 => {}
                _ => return false,
            }
        }
    } else {
        let mut local = Vec::new();
        while let [byte, after @ ..] = rest {
            match (byte, after) {
                (b'\\', [escaped, after @ ..]) => {
                    local.push(*escaped);
                    rest = after;
                }
                (b'\\', []) => return false,
                _ if byte.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~.".contains(byte) => {
                    local.push(*byte);
                    rest = after;
                }
                _ => break,
            }
        }
        let dots = local.starts_with(b".") || local.ends_with(b".") || local.windows(2).any(|pair| pair == b"..");
        if local.is_empty() || dots {
            return false;
        }
    }
    let Some(domain) = rest.strip_prefix(b"@") else { return false };
    url::is_domain(domain, false) && !domain.contains(&b'@')
}

fn crl_points(mut value: Text<'_>) -> Done<()> {
    let mut points = value.sequence()?;
    while !points.0.is_empty() {
        let mut point = points.sequence()?;
        if !point.peek(0xa0) {
            continue;
        }
        let mut names = point.read(0xa0)?.read(0xa0)?;
        while names.peek(0x86) {
            names.read(0x86)?;
        }
    }
    Ok(())
}

fn authority_key(mut value: Text<'_>, critical: bool) -> Done<()> {
    if critical {
        return Err(CRITICAL);
    }
    value.sequence()?.skip_optional(0x80)
}

fn policy_constraints(mut value: Text<'_>) -> Done<()> {
    let mut constraints = value.sequence()?;
    for tag in [0x80, 0x81] {
        if constraints.peek(tag) {
            constraints.small_integer(tag)?;
        }
    }
    Ok(())
}

fn key_purposes(mut value: Text<'_>) -> Done<()> {
    let mut purposes = value.sequence()?;
    while !purposes.0.is_empty() {
        purposes.oid()?;
    }
    Ok(())
}

fn policies(mut value: Text<'_>) -> Done<()> {
    let mut policies = value.sequence()?;
    let mut seen: Vec<&[u8]> = Vec::new();
    while !policies.0.is_empty() {
        let oid = policies.sequence()?.oid()?;
        if seen.contains(&oid) {
            return Err("one of them is there twice");
        }
        seen.push(oid);
    }
    Ok(())
}

fn policy_mappings(mut value: Text<'_>) -> Done<()> {
    let mut mappings = value.sequence()?;
    while !mappings.0.is_empty() {
        let mut mapping = mappings.sequence()?;
        mapping.read(0x06)?;
        mapping.read(0x06)?;
    }
    Ok(())
}

fn authority_info(mut value: Text<'_>, critical: bool) -> Done<()> {
    if critical {
        return Err(CRITICAL);
    }
    let mut all = value.sequence()?;
    while !all.0.is_empty() {
        let mut info = all.sequence()?;
        info.oid()?;
        info.skip_optional(0x86)?;
    }
    Ok(())
}

impl<'a> Text<'a> {
    fn any(&mut self) -> Done<(u8, &'a [u8])> {
        let (tag, content, rest) = split(self.0).ok_or(CUT)?;
        self.0 = rest;
        Ok((tag, content))
    }

    /// The next element, whole.
    fn element(&mut self) -> Done<&'a [u8]> {
        let all = self.0;
        self.any()?;
        Ok(&all[..all.len() - self.0.len()])
    }

    fn peek(&self, tag: u8) -> bool {
        self.0.first() == Some(&tag)
    }

    fn read(&mut self, tag: u8) -> Done<Text<'a>> {
        match self.any()? {
            (found, content) if found == tag => Ok(Text(content)),
            _ => Err(CUT),
        }
    }

    fn skip_optional(&mut self, tag: u8) -> Done<()> {
        if self.peek(tag) { self.read(tag).map(|_| ()) } else { Ok(()) }
    }

    fn sequence(&mut self) -> Done<Text<'a>> {
        self.read(0x30)
    }

    /// The content of an INTEGER, not empty.
    fn integer(&mut self) -> Done<&'a [u8]> {
        let content = self.read(0x02)?.0;
        if is_integer(content) { Ok(content) } else { Err(PADDED) }
    }

    /// A number of 64 bits with its sign.
    fn small_integer(&mut self, tag: u8) -> Done<()> {
        let content = self.read(tag)?.0;
        if is_integer(content) && content.len() <= 8 { Ok(()) } else { Err(PADDED) }
    }

    fn boolean(&mut self) -> Done<bool> {
        match self.read(0x01)?.0 {
            [0] => Ok(false),
            [0xff] => Ok(true),
            [_] => Err("a truth value that is neither of the two"),
            _ => Err(BAD_BOOLEAN),
        }
    }

    /// Parts beyond 31 bits it does not take.
    fn oid(&mut self) -> Done<&'a [u8]> {
        let content = self.read(0x06)?.0;
        let small = content.split_inclusive(|byte| byte & 0x80 == 0).all(|part| match part {
            [first, _, _, _, _] => *first <= 0x87,
            _ => part.len() < 5,
        });
        if is_oid(content) && small { Ok(content) } else { Err(BAD_OID) }
    }

    /// The bytes of a BIT STRING, aligned to the right; unused bits must be zero.
    fn bits(&mut self) -> Done<std::borrow::Cow<'a, [u8]>> {
        let [unused @ 0..=7, bytes @ ..] = self.read(0x03)?.0 else { return Err(BAD_BITS) };
        let mask = (1u8 << unused) - 1;
        match bytes.last() {
            None if *unused > 0 => Err(BAD_BITS),
            Some(last) if last & mask != 0 => Err(BAD_BITS),
            _ if *unused == 0 => Ok(bytes.into()),
            _ => {
                let before = std::iter::once(&0).chain(bytes);
                Ok(before.zip(bytes).map(|(high, low)| (u16::from_be_bytes([*high, *low]) >> unused) as u8).collect())
            }
        }
    }
}
