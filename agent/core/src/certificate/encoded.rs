//! Parts of an encoded certificate, found without decoding it.

use super::{
    der::{element, elements, split},
    oid,
};

/// The subject of a certificate in DER, with its tag and length.
pub(crate) fn subject(certificate: &[u8]) -> Option<&[u8]> {
    let (0x30, certificate, _) = split(certificate)? else { return None };
    let (0x30, tbs, _) = split(certificate)? else { return None };
    let serial = match split(tbs)? {
        (0xa0, _, rest) => rest, // the version
        _ => tbs,
    };
    let (0x02, _, mut fields) = split(serial)? else { return None };
    // signature algorithm, issuer, validity
    for _ in 0..3 {
        (_, _, fields) = split(fields)?;
    }
    let (_, _, rest) = split(fields)?;
    fields.get(..fields.len() - rest.len())
}

/// What a certificate's issuer has signed, and how.
pub(crate) struct SignedParts<'a> {
    /// What is signed, a whole element.
    pub(crate) content: &'a [u8],
    /// The algorithm, a whole element.
    pub(crate) algorithm: &'a [u8],
    /// The signature.
    pub(crate) signature: &'a [u8],
    /// Bits of its last byte that do not count; 0 in every sound one.
    pub(crate) unused_bits: u8,
}

impl<'a> SignedParts<'a> {
    /// Takes a certificate apart; None if it has not the frame of one.
    pub(crate) fn of(certificate: &'a [u8]) -> Option<Self> {
        let mut parts = elements(element(certificate)?.content);
        let (content, algorithm, signature) = (parts.next()?, parts.next()?, parts.next()?);
        let (unused_bits, signature) = signature.content.split_first()?;
        Some(Self { content: content.whole, algorithm: algorithm.whole, signature, unused_bits: *unused_bits })
    }
}

/// The subjectKeyIdentifier of a certificate in DER, if it has one.
pub(crate) fn key_id(certificate: &[u8]) -> Option<&[u8]> {
    let signed = element(element(certificate)?.content)?;
    let extensions = elements(signed.content).find(|field| field.tag == 0xa3)?;
    elements(element(extensions.content)?.content).find_map(|extension| {
        let mut parts = elements(extension.content);
        parts.next().filter(|id| id.content == oid::SUBJECT_KEY_ID)?;
        Some(element(parts.last()?.content)?.content)
    })
}

/// What p11-kit names a certificate by: its serial number and issuer, or its key. Each is a whole element.
pub(crate) struct Identity<'a> {
    pub(crate) serial: &'a [u8],
    pub(crate) issuer: &'a [u8],
    pub(crate) key: &'a [u8],
}

impl<'a> Identity<'a> {
    /// Reads them from a certificate; None if it has not the frame of one.
    pub(crate) fn of(certificate: &'a [u8]) -> Option<Self> {
        let signed = element(element(certificate)?.content)?;
        let mut fields = elements(signed.content);
        // the version may be left out
        let first = fields.next()?;
        let serial = if first.tag == 0xa0 { fields.next()? } else { first };
        let (_algorithm, issuer) = (fields.next()?, fields.next()?);
        let (_validity, _subject, key) = (fields.next()?, fields.next()?, fields.next()?);
        Some(Self { serial: serial.whole, issuer: issuer.whole, key: key.whole })
    }
}

/// Whether the settings that OpenSSL appends to a `TRUSTED CERTIFICATE` (x509(1), "trust settings") exclude servers: a list of
/// rejected uses has them, or there is a list of trusted uses without them. Settings that cannot be read exclude everything.
pub(crate) fn is_distrusted_for_servers(settings: &[u8]) -> bool {
    if settings.is_empty() {
        return false;
    }
    let Some((0x30, mut lists, [])) = split(settings) else { return true };
    while !lists.is_empty() {
        let Some((tag, mut uses, rest)) = split(lists) else { return true };
        lists = rest;
        if !matches!(tag, 0x30 | 0xa0) {
            continue; // an alias, a key id
        }
        let mut has_servers = false;
        while !uses.is_empty() {
            let Some((_, purpose, rest)) = split(uses) else { return true };
            has_servers |= [oid::SERVER_AUTH, oid::ANY_PURPOSE].contains(&purpose);
            uses = rest;
        }
        if has_servers == (tag == 0xa0) {
            return true;
        }
    }
    false
}
