//! Java: what `CertificateFactory` surely parses (sun.security.x509). One certificate that it does not parse, and it reads nothing of a
//! trust store.
//!
//! Rather too strict than too lenient, as what is left out is one certificate: what Go does not parse is refused here too, although Java takes some of that, and so is what
//! Java alone refuses. `readers::java` in the tests loads a store of all that passes into the real Java.

use super::{
    fault::{At, Checked, Decoded, MALFORMED, MISSING, TRAILING},
    go,
};
use crate::certificate::{
    der::{self, encode},
    oid::{self, EC, ED25519, RSA},
    signature::significant_bits,
};

/// Elements within elements that are followed; certificates have about ten.
const MAX_DEPTH: usize = 24;

const BOOLEAN: u8 = 0x01;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OID: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
// The tags of general names (RFC 5280, 4.2.1.6).
const MAIL: u8 = 0x81;
const DOMAIN: u8 = 0x82;
const NAME: u8 = 0xa4;
const URI: u8 = 0x86;
const ADDRESS: u8 = 0x87;

const RSA_PSS: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0a";
const MGF1: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x08";
const ED448: &[u8] = b"\x2b\x65\x71";

/// An element's tag and content.
type Part<'a> = (u8, &'a [u8]);

pub(crate) fn certificate(whole: &[u8]) -> Checked {
    go::certificate(whole)?;
    if !is_strict(whole, MAX_DEPTH) {
        return Err(MALFORMED).at("certificate");
    }
    let [(_, certificate)] = exactly(whole).at("certificate")?;
    let [(_, signed), (_, algorithm), _] = exactly(certificate).at("certificate")?;
    let mut parts = parts(signed).at("signed part")?.into_iter().peekable();
    let version = parts.next_if(|(tag, _)| *tag == 0xa0).and_then(|(_, version)| version.last().copied()).unwrap_or(0);
    let mut next = |place| parts.next().map(|(_, content)| content).ok_or(MISSING).at(place);
    next("serial number")?;
    for algorithm in [next("signature algorithm")?, algorithm] {
        self::algorithm(algorithm).at("signature algorithm")?;
    }
    name(next("issuer")?).at("issuer")?;
    validity(next("validity")?).at("validity")?;
    name(next("subject")?).at("subject")?;
    public_key(next("public key")?).at("public key")?;
    match parts.collect::<Vec<Part<'_>>>()[..] {
        [] => Ok(()),
        [(0xa3, _)] if version != 2 => Err("there are some, but its version is not 3").at("extensions"),
        [(0xa3, list)] => extensions(list),
        _ => Err(TRAILING).at("signed part"), // unique ids, which nobody uses, too
    }
}

/// Whether all of this is DER, and whatever is within its elements. An object identifier must not be cut off in its last part.
fn is_strict(mut text: &[u8], depth: usize) -> bool {
    while !text.is_empty() {
        let Some((tag, content, rest)) = der::split(text) else { return false };
        if tag & 0x20 != 0 && (depth == 0 || !is_strict(content, depth - 1)) {
            return false;
        }
        if tag == OID && content.last().is_none_or(|last| last & 0x80 != 0) {
            return false;
        }
        text = rest;
    }
    true
}

fn parts(text: &[u8]) -> Decoded<Vec<Part<'_>>> {
    let elements = der::elements(text);
    if !elements.clone().are_whole() {
        return Err(MALFORMED);
    }
    Ok(elements.map(|element| (element.tag, element.content)).collect())
}

fn exactly<const N: usize>(text: &[u8]) -> Decoded<[Part<'_>; N]> {
    <[Part<'_>; N]>::try_from(parts(text)?).map_err(|parts| if parts.len() > N { TRAILING } else { MISSING })
}

fn at_most(most: usize, text: &[u8]) -> Decoded<()> {
    if parts(text)?.len() <= most { Ok(()) } else { Err(TRAILING) }
}

/// A name of one part at least, each of which is a type and a value.
fn name(name: &[u8]) -> Decoded<()> {
    let sets = parts(name)?;
    if sets.is_empty() {
        return Err("it is empty");
    }
    for (tag, set) in sets {
        let attributes = parts(set)?;
        if tag != SET || attributes.is_empty() {
            return Err(MISSING);
        }
        for (tag, attribute) in attributes {
            let [(OID, _), _] = exactly(attribute)? else { return Err(MISSING) };
            if tag != SEQUENCE {
                return Err(MISSING);
            }
        }
    }
    Ok(())
}

/// Two times, which Java takes in the zone Z alone, with seconds.
fn validity(validity: &[u8]) -> Decoded<()> {
    let times = exactly::<2>(validity)?;
    let is_whole = |(_, time): &Part<'_>| time.ends_with(b"Z") && time.len() >= 13;
    if times.iter().all(is_whole) { Ok(()) } else { Err("a time that is not given in UTC, with seconds") }
}

/// A type and its parameters, which for RSASSA-PSS must be those that everybody uses.
fn algorithm(algorithm: &[u8]) -> Decoded<&[u8]> {
    at_most(2, algorithm)?;
    let [(OID, id), parameters @ ..] = &parts(algorithm)?[..] else { return Err(MISSING) };
    let is_usual = || [(1, 32), (2, 48), (3, 64)].iter().any(|(hash, salt)| algorithm == pss(*hash, *salt));
    if *id == RSA_PSS && !parameters.is_empty() && !is_usual() {
        return Err("parameters of RSASSA-PSS that Java may not know");
    }
    Ok(id)
}

/// RSASSA-PSS with SHA-256, 384 or 512, by the last number of its identifier, and a salt of the same length (RFC 4055).
fn pss(hash: u8, salt: u8) -> Vec<u8> {
    let hash = [b"\x60\x86\x48\x01\x65\x03\x04\x02".as_slice(), &[hash]].concat();
    let hash = encode(SEQUENCE, &[encode(OID, &hash), encode(0x05, &[])].concat());
    let mask = encode(SEQUENCE, &[encode(OID, MGF1), hash.clone()].concat());
    let parts = [encode(0xa0, &hash), encode(0xa1, &mask), encode(0xa2, &encode(INTEGER, &[salt]))];
    [encode(OID, RSA_PSS), encode(SEQUENCE, &parts.concat())].concat()
}

fn public_key(key: &[u8]) -> Decoded<()> {
    let [(SEQUENCE, algorithm), (BIT_STRING, [0, key @ ..])] = exactly(key)? else { return Err(MISSING) };
    match (self::algorithm(algorithm)?, key.len()) {
        (RSA | RSA_PSS, _) => {
            let [(SEQUENCE, numbers)] = exactly(key)? else { return Err(MISSING) };
            let [(INTEGER, modulus), (INTEGER, exponent)] = exactly(numbers)? else { return Err(MISSING) };
            let is_small = matches!(exponent, [] | [0..=2] | [0x80..=0xff, ..]);
            match significant_bits(modulus) {
                512..=16_384 if !is_small => Ok(()),
                _ => Err("an RSA key of a size that Java refuses"),
            }
        }
        // Go has looked at curve and point
        (EC, _) | (ED25519, 32) | (ED448, 57) => Ok(()),
        _ => Err("a key of a type that Java may not know"),
    }
}

/// Java passes over an extension that it does not parse unless it is marked as critical.
fn extensions(list: &[u8]) -> Checked {
    let [(_, list)] = exactly(list).at("extensions")?;
    for (_, extension) in parts(list).at("extensions")? {
        let parts = parts(extension).at("extensions")?;
        let [(_, id), (BOOLEAN, [0xff]), (_, value)] = parts[..] else {
            if parts.len() > 3 {
                return Err(TRAILING).at("extensions");
            }
            continue;
        };
        if !is_strict(value, MAX_DEPTH) {
            return Err(MALFORMED).at("extensions");
        }
        match id {
            oid::BASIC_CONSTRAINTS => basic_constraints(value).at("basicConstraints")?,
            oid::KEY_USAGE => exactly::<1>(value).at("keyUsage").map(|_| ())?,
            oid::NAME_CONSTRAINTS => name_constraints(value).at("nameConstraints")?,
            oid::EXTENDED_KEY_USAGE => purposes(value).at("extendedKeyUsage")?,
            _ => return Err("one that Java may not parse is marked as critical").at("extensions"),
        }
    }
    Ok(())
}

fn purposes(value: &[u8]) -> Decoded<()> {
    let [(_, purposes)] = exactly(value)?;
    if parts(purposes)?.iter().all(|(tag, _)| *tag == OID) { Ok(()) } else { Err(MISSING) }
}

/// A truth value and a length, each of which may lack, and nothing else.
fn basic_constraints(value: &[u8]) -> Decoded<()> {
    let [(_, content)] = exactly(value)?;
    match parts(content)?[..] {
        [] | [(BOOLEAN | INTEGER, _)] | [(BOOLEAN, _), (INTEGER, _)] => Ok(()),
        _ => Err(TRAILING),
    }
}

/// Domains, mail addresses, IP addresses and names as Go takes them too; URIs that are hosts.
fn name_constraints(value: &[u8]) -> Decoded<()> {
    let is_host = |text: &[u8]| text.iter().all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(byte));
    let [(_, lists)] = exactly(value)?;
    for (_, list) in parts(lists)? {
        for (_, subtree) in parts(list)? {
            let [(tag, subtree)] = exactly(subtree)?;
            match tag {
                MAIL | DOMAIN | ADDRESS => {}
                URI if !subtree.is_empty() && is_host(subtree) => {}
                URI => return Err("a URI that is no host"),
                NAME => {
                    let [(SEQUENCE, subtree)] = exactly(subtree)? else { return Err(MISSING) };
                    name(subtree)?;
                }
                _ => return Err("a name of another type"),
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificate::pem;

    #[test]
    fn what_java_alone_refuses_is_known() {
        let cases = include_str!("../../../../../tests/data/readers/certificates.pem");
        let fault = |name: &str| {
            let (_, text) = cases.split_once(&format!("# {name}\n")).unwrap();
            let der = &pem::scan(text.as_bytes()).blocks[0].der;
            certificate(der).err().map(|fault| fault.to_string())
        };
        assert_eq!(fault("00-plain"), None);
        assert_eq!(fault("00-rsa"), None);
        assert!(is_strict(b"\x30\x05\x06\x03\x55\x04\x0a", 1));
        assert!(!is_strict(b"\x30\x06\x06\x04\x55\x04\x0a\x9b", 1), "an object identifier that is cut off");
        for (name, expected) in [
            ("name-empty", "issuer: it is empty"),
            ("bc-trailing", "basicConstraints: more than belongs there"),
            ("nc-uri-slash", "nameConstraints: a URI that is no host"),
            ("v1-with-exts", "extensions: there are some, but its version is not 3"),
        ] {
            assert_eq!(fault(name).as_deref(), Some(expected), "{name}");
        }
    }
}
