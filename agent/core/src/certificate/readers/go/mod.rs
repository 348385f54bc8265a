//! Go: what `x509.ParseCertificate` parses (crypto/x509/parser.go, and golang.org/x/crypto/cryptobyte), by the stricter of Go 1.19
//! and Go 1.27.
//!
//! It demands strict DER, but ignores what follows the elements that it knows. Unlike the other readers it decodes keys, names,
//! times and the extensions that it uses.

mod curve;
mod extensions;
mod text;
mod url;

use super::fault::{At, BAD_TEXT, Checked, Decoded, MALFORMED, OTHER_TYPE, TRAILING};
use extensions::extensions;
use text::Text;

use crate::certificate::oid::{EC, ED25519, RSA};

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

fn version(signed: &mut Text<'_>) -> Decoded<u8> {
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
fn algorithm(mut algorithm: Text<'_>) -> Decoded<(&[u8], &[u8])> {
    let oid = algorithm.oid()?;
    let parameters = if algorithm.0.is_empty() { &[][..] } else { algorithm.element()? };
    Ok((oid, parameters))
}

fn name(mut name: Text<'_>) -> Decoded<()> {
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

fn validity(signed: &mut Text<'_>) -> Decoded<()> {
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

const DSA: &[u8] = b"\x2a\x86\x48\xce\x38\x04\x01";
/// ML-DSA-44, -65 and -87 with the length of their keys.
const ML_DSA: [(&[u8], usize); 3] = [
    (b"\x60\x86\x48\x01\x65\x03\x04\x03\x11", 1312),
    (b"\x60\x86\x48\x01\x65\x03\x04\x03\x12", 1952),
    (b"\x60\x86\x48\x01\x65\x03\x04\x03\x13", 2592),
];

fn public_key(signed: &mut Text<'_>) -> Decoded<()> {
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
