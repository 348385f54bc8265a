//! Distinguished names: for people, and as OpenSSL's directory links hash them (facts E.6).

use sha1::{Digest, Sha1};
use x509_parser::{
    der_parser::asn1_rs::{Any, Tag, ToDer},
    objects::{oid_registry, oid2abbrev},
    x509::X509Name,
};

use crate::certificate::{der, fingerprint::hex};

/// Characters of one text that somebody else wrote, escapes included: a name, an address, a path, the output of a program. A
/// longer one loses its middle. Metrics labels, the report and every screen rest on it.
pub const MAX_TEXT_CHARS: usize = 400;
/// Characters of a sentence that has such texts in it.
pub const MAX_SENTENCE_CHARS: usize = 2_000;

/// `CN=…, O=…`, in the order of the certificate, as [`shown`].
pub(crate) fn display(name: &X509Name<'_>) -> String {
    let mut out = String::new();
    for attribute in name.iter_attributes() {
        if out.len() > 4 * MAX_TEXT_CHARS {
            out.push_str(", \u{2026}"); // there can be thousands
            break;
        }
        if !out.is_empty() {
            out.push_str(", ");
        }
        match oid2abbrev(attribute.attr_type(), oid_registry()) {
            Ok(short) => out.push_str(short),
            Err(_) => out.push_str(&cut(attribute.attr_type().to_id_string(), MAX_TEXT_CHARS)),
        }
        out.push('=');
        out.push_str(&text(attribute.attr_value()).unwrap_or_else(|| "?".into()));
    }
    cut(out, MAX_TEXT_CHARS)
}

/// An attribute's value as text, None where its type is no text or its bytes do not fit its type.
pub(crate) fn text(value: &Any<'_>) -> Option<String> {
    Some(shown(&utf8(value).flatten()?))
}

/// A text that somebody else wrote, as it may stand in a report, a label or on a screen: [`visible`], and of at most
/// [`MAX_TEXT_CHARS`] characters.
pub fn shown(text: &str) -> String {
    bounded(text, MAX_TEXT_CHARS)
}

/// A sentence with such texts in it: [`visible`], and of at most [`MAX_SENTENCE_CHARS`] characters.
pub fn sentence(text: &str) -> String {
    bounded(text, MAX_SENTENCE_CHARS)
}

fn bounded(text: &str, most: usize) -> String {
    // what is cut out is not escaped first: it can be of megabytes
    match text.char_indices().nth(2 * most) {
        None => cut(visible(text), most),
        Some(_) => {
            let start = text.char_indices().nth(most).map_or(text, |(at, _)| &text[..at]);
            let end = text.char_indices().rev().nth(most).map_or("", |(at, _)| &text[at..]);
            cut(visible(&format!("{start}{end}")), most)
        }
    }
}

/// A text without its middle, if it is longer than this many characters.
fn cut(text: String, most: usize) -> String {
    let count = if text.len() <= most { 0 } else { text.chars().count() };
    if count <= most {
        return text;
    }
    let tail = most / 3;
    let head: String = text.chars().take(most - tail - 1).collect();
    let tail: String = text.chars().skip(count - tail).collect();
    format!("{head}\u{2026}{tail}")
}

/// Digits of a number in hexadecimal, such as a serial number.
pub(crate) fn shown_hex(bytes: &[u8]) -> String {
    match bytes.len() {
        0..=MAX_SERIAL_BYTES => hex(bytes),
        length => {
            let (head, tail) = (&bytes[..MAX_SERIAL_BYTES / 2], &bytes[length - MAX_SERIAL_BYTES / 2..]);
            format!("{}\u{2026}{}", hex(head), hex(tail))
        }
    }
}

/// Bytes of a serial number that are shown; RFC 5280, 4.1.2.2, allows 20.
const MAX_SERIAL_BYTES: usize = 64;

/// A text that somebody else wrote, such that it cannot draw on a terminal, nor hide or turn around what stands beside it:
/// control characters, and those that have no width or set the direction of writing, are escaped.
pub fn visible(text: &str) -> String {
    let is_hidden = |c: char| {
        c.is_control()
            || matches!(c, '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
                | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
                | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
    };
    if text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return text.to_owned(); // nearly always
    }
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_hidden(c) { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

/// OpenSSL's `X509_NAME_hash`: the first four bytes of SHA-1 over the canonical form, read as little-endian.
///
/// # Errors
/// If a text does not fit its type: OpenSSL refuses to load such a certificate, and with it the whole file.
pub(crate) fn openssl_hash(name: &X509Name<'_>) -> Result<u32, String> {
    let mut hash = Sha1::new();
    for rdn in name.iter_rdn() {
        let mut attributes: Vec<Vec<u8>> = Vec::new();
        for attribute in rdn.iter() {
            let value = attribute.attr_value();
            let canonical = match utf8(value) {
                Some(Some(text)) => der::encode(0x0c, canonical(&text).as_bytes()),
                Some(None) => {
                    return Err("a text in one of its names does not fit its type; OpenSSL would refuse it".into());
                }
                None => value.to_der_vec().map_err(|_| "a value in one of its names cannot be encoded".to_owned())?,
            };
            let oid = attribute
                .attr_type()
                .to_der_vec()
                .map_err(|_| "a type in one of its names cannot be encoded".to_owned())?;
            attributes.push(der::encode(0x30, &[oid, canonical].concat()));
        }
        attributes.sort();
        hash.update(der::encode(0x31, &attributes.concat()));
    }
    let digest = hash.finalize();
    Ok(u32::from_le_bytes([digest[0], digest[1], digest[2], digest[3]]))
}

/// None: not one of the string types that OpenSSL converts. Some(None): one of them, with bytes that do not fit.
fn utf8(value: &Any<'_>) -> Option<Option<String>> {
    let data = value.data;
    Some(match value.tag() {
        Tag::Utf8String => std::str::from_utf8(data).ok().map(str::to_owned),
        // OpenSSL takes every single-byte type as Latin-1
        Tag::PrintableString | Tag::Ia5String | Tag::T61String | Tag::VisibleString => {
            Some(data.iter().map(|byte| char::from(*byte)).collect())
        }
        Tag::BmpString => data
            .len()
            .is_multiple_of(2)
            .then(|| {
                data.chunks_exact(2)
                    .map(|pair| char::from_u32(u32::from(u16::from_be_bytes([pair[0], pair[1]]))))
                    .collect()
            })
            .flatten(),
        Tag::UniversalString => data
            .len()
            .is_multiple_of(4)
            .then(|| {
                data.chunks_exact(4)
                    .map(|four| char::from_u32(u32::from_be_bytes([four[0], four[1], four[2], four[3]])))
                    .collect()
            })
            .flatten(),
        _ => return None,
    })
}

/// Blanks trimmed and runs of them made one space, ASCII letters in lower case.
fn canonical(text: &str) -> String {
    let blank = |c: char| matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c');
    let mut out = String::with_capacity(text.len());
    let mut gap = false;
    for c in text.trim_matches(blank).chars() {
        if blank(c) {
            gap = true;
            continue;
        }
        if std::mem::take(&mut gap) {
            out.push(' ');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

#[cfg(test)]
#[path = "name_tests.rs"]
mod tests;
