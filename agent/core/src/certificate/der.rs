//! The walk through encoded elements (X.690), for everything that asks more of an encoding than the parser does.
//!
//! [`header`] reads BER, since some readers of certificates do; [`split`] takes DER alone. What each reader demands of a
//! certificate is in [`readers`](crate::certificate::readers).

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

/// The subject of a certificate, with its tag and length.
pub(crate) fn subject(certificate: &[u8]) -> Option<&[u8]> {
    let (_, mut tbs) = signed_part(certificate)?;
    // signature algorithm, issuer, validity
    for _ in 0..3 {
        (_, _, tbs) = split(tbs)?;
    }
    let (_, _, rest) = split(tbs)?;
    tbs.get(..tbs.len() - rest.len())
}

/// The part of a certificate that is signed, and the signature, both with their headers.
pub(crate) fn signed_and_signature(certificate: &[u8]) -> Option<(&[u8], &[u8])> {
    let (0x30, content, _) = split(certificate)? else { return None };
    let (0x30, _, rest) = split(content)? else { return None };
    let (0x30, _, signature) = split(rest)? else { return None };
    Some((&content[..content.len() - rest.len()], signature))
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

/// The head of an element in BER.
#[derive(Clone, Copy)]
pub(crate) struct Header {
    /// 0 universal, 1 application, 2 context-specific, 3 private.
    pub(crate) class: u8,
    pub(crate) constructed: bool,
    pub(crate) number: u32,
    /// Bytes of the head itself.
    pub(crate) size: usize,
    /// Bytes of the content; None: it goes on to an end mark.
    pub(crate) length: Option<usize>,
}

impl Header {
    /// Whether it is of this class and number, constructed or not.
    pub(crate) fn is(&self, class: u8, number: u32) -> bool {
        (self.class, self.number) == (class, number)
    }
}

/// Reads an element's head; None if it is cut off or its numbers are beyond all bounds. The content may be cut off.
pub(crate) fn header(ber: &[u8]) -> Option<Header> {
    let (&first, mut rest) = ber.split_first()?;
    let mut number = u32::from(first & 0x1f);
    if number == 0x1f {
        number = 0;
        loop {
            let (&byte, after) = rest.split_first()?;
            rest = after;
            number = number.checked_mul(128)?.checked_add(u32::from(byte & 0x7f)).filter(|n| *n <= i32::MAX as u32)?;
            if byte & 0x80 == 0 {
                break;
            }
        }
    }
    let (&length, mut rest) = rest.split_first()?;
    let length = match length {
        0..=0x7f => Some(usize::from(length)),
        0x80 => None,
        _ => {
            let (digits, after) = rest.split_at_checked(usize::from(length & 0x7f))?;
            rest = after;
            Some(digits.iter().try_fold(0usize, |sum, byte| Some(sum.checked_mul(256)? | usize::from(*byte)))?)
        }
    };
    let size = ber.len() - rest.len();
    Some(Header { class: first >> 6, constructed: first & 0x20 != 0, number, size, length })
}

/// Tag, content and what follows the first element; None if it is cut off, or its tag or length is not in its shortest form.
pub(crate) fn split(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
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
