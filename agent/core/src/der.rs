//! What OpenSSL and Go demand of a certificate's encoding, and the parser overlooks.
//!
//! One block that OpenSSL cannot decode makes it refuse a whole bundle, so the encoding is checked before anything is believed.

/// Levels of elements in a certificate; real ones have about eight.
const MAX_DEPTH: usize = 32;

/// What is wrong with a certificate's frame. It must be strict DER: definite lengths in their shortest form, types that are
/// constructed or primitive as they must be; and the signature's algorithm outside as inside (RFC 5280, 4.1.1.2).
pub(crate) fn frame_fault(der: &[u8]) -> Option<&'static str> {
    if !is_strict(der, MAX_DEPTH) {
        return Some("its encoding is not strict DER; OpenSSL or Go would refuse it");
    }
    match has_one_algorithm(der) {
        Some(true) => None,
        _ => Some("it names two different signature algorithms, inside and outside; Go would refuse it"),
    }
}

/// Whether the settings that OpenSSL appends to a `TRUSTED CERTIFICATE` (x509(1), "trust settings") exclude servers: a list of
/// rejected uses has them, or there is a list of trusted uses without them. Settings that cannot be read exclude everything.
pub(crate) fn is_distrusted_for_servers(settings: &[u8]) -> bool {
    // serverAuth and anyExtendedKeyUsage, as encoded object identifiers
    const SERVERS: [&[u8]; 2] = [b"\x2b\x06\x01\x05\x05\x07\x03\x01", b"\x55\x1d\x25\x00"];
    if settings.is_empty() {
        return false;
    }
    let Some((0x30, mut elements, [])) = split(settings) else { return true };
    while !elements.is_empty() {
        let Some((tag, mut uses, rest)) = split(elements) else { return true };
        elements = rest;
        if !matches!(tag, 0x30 | 0xa0) {
            continue; // an alias, a key id
        }
        let mut has_servers = false;
        while !uses.is_empty() {
            let Some((_, oid, rest)) = split(uses) else { return true };
            has_servers |= SERVERS.contains(&oid);
            uses = rest;
        }
        if has_servers == (tag == 0xa0) {
            return true;
        }
    }
    false
}

/// What follows the part that is signed, and that part behind version and serial number.
fn signed_part(certificate: &[u8]) -> Option<(&[u8], &[u8])> {
    let (0x30, certificate, _) = split(certificate)? else { return None };
    let (0x30, tbs, rest) = split(certificate)? else { return None };
    let serial = match split(tbs)? {
        (0xa0, _, rest) => rest, // the version
        _ => tbs,
    };
    let (0x02, _, tbs) = split(serial)? else { return None };
    Some((rest, tbs))
}

fn is_strict(mut der: &[u8], depth: usize) -> bool {
    while !der.is_empty() {
        let Some((tag, content, rest)) = split(der) else { return false };
        let constructed = tag & 0x20 != 0;
        let universal = tag & 0xc0 == 0;
        if universal && constructed != matches!(tag & 0x1f, 0x10 | 0x11) {
            return false; // SEQUENCE and SET are constructed, and nothing else is
        }
        if constructed && (depth == 0 || !is_strict(content, depth - 1)) {
            return false;
        }
        der = rest;
    }
    true
}

fn has_one_algorithm(der: &[u8]) -> Option<bool> {
    let (0x30, _, []) = split(der)? else { return None };
    let (rest, tbs) = signed_part(der)?;
    let (0x30, outer, rest) = split(rest)? else { return None };
    let (0x03, _, []) = split(rest)? else { return None };
    let (0x30, inner, _) = split(tbs)? else { return None };
    Some(inner == outer)
}

/// Tag, content and what follows the first element; None if it is cut off, or its tag or length is not in its shortest form.
fn split(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let [tag, length, rest @ ..] = der else { return None };
    let head = match length {
        0..=0x7f => 0,
        0x81..=0x84 => usize::from(length & 0x7f),
        _ => return None,
    };
    let digits = rest.get(..head)?;
    let long = digits.iter().fold(0usize, |sum, byte| sum << 8 | usize::from(*byte));
    if tag & 0x1f == 0x1f || (head > 0 && (digits[0] == 0 || long < 0x80)) {
        return None;
    }
    let length = if head == 0 { usize::from(*length) } else { long };
    let content = rest.get(head..)?;
    Some((*tag, content.get(..length)?, content.get(length..)?))
}
