//! A PEM file as GnuTLS's loader reads it: `gnutls_x509_crt_list_import` over `_gnutls_fbase64_decode` (lib/x509/x509.c,
//! lib/x509_b64.c) and nettle's base64.
//!
//! It searches the text for the words that begin a certificate and does not read lines. It ignores other kinds of blocks, except
//! `CERTIFICATE REQUEST`, which begins with the same words.

use std::collections::BTreeSet;

use memchr::memmem::{self, Finder};

use super::blanks::without_blanks;
use crate::certificate::readers;

const PLAIN: &[u8] = b"-----BEGIN CERTIFICATE";
const LEGACY: &[u8] = b"-----BEGIN X509 CERTIFICATE";
const DASHES: &[u8] = b"-----";
const END: &[u8] = b"-----END ";

/// Calls `each` with the offset of every block that GnuTLS reads by itself, and with the offset and the text of everything for which it
/// refuses the file. GnuTLS itself stops at the first. The blocks that begin at `known` are in order.
pub(crate) fn read(bytes: &[u8], known: &BTreeSet<usize>, mut each: impl FnMut(usize, Result<(), String>)) {
    let mut ends = Places { bytes, finder: Finder::new(END), found: None, looked: false };
    let mut legacy = Places { bytes, finder: Finder::new(LEGACY), found: None, looked: false };
    let mut at = 0;
    // the last block under the other label that was tried, and whether it is in order
    let mut other: Option<(usize, bool)> = None;
    let plain = Finder::new(PLAIN);
    while let Some(begin) = plain.find(&bytes[at..]).map(|found| at + found) {
        at = begin + 1;
        if known.contains(&begin) {
            continue;
        }
        let result = block(bytes, begin, PLAIN.len(), &mut ends);
        // a block that it cannot decode is looked for under the other label
        if let (Err(Wrong::Armour(_)), Some(place)) = (&result, legacy.from(begin)) {
            if other.is_none_or(|(tried, _)| tried != place) {
                let mut ends = Places { looked: false, ..ends.clone() };
                other = Some((place, block(bytes, place, LEGACY.len(), &mut ends).is_ok()));
            }
            if other.is_some_and(|(_, fine)| fine) {
                continue;
            }
        }
        each(begin, result.map_err(|(Wrong::Armour(why) | Wrong::Content(why))| why));
    }
    while let Some(begin) = legacy.from(at) {
        at = begin + 1;
        if let Err(Wrong::Armour(why) | Wrong::Content(why)) = block(bytes, begin, LEGACY.len(), &mut ends) {
            each(begin, Err(why));
        }
    }
}

enum Wrong {
    Armour(String),
    Content(String),
}

fn block(bytes: &[u8], begin: usize, label: usize, ends: &mut Places<'_>) -> Result<(), Wrong> {
    let armour = |why: &str| Wrong::Armour(format!("GnuTLS cannot read the block: {why}"));
    let body = begin
        + label
        + memmem::find(&bytes[begin + label..], DASHES).ok_or_else(|| armour("its first line has no end"))?
        + DASHES.len();
    let end = ends.from(body).ok_or_else(|| armour("it has no END"))?;
    let der = base64(&bytes[body..end])
        .ok_or_else(|| armour("broken base64: cut off, or a character that does not belong there"))?;
    match readers::gnutls_fault(&der) {
        None => Ok(()),
        Some(why) => Err(Wrong::Content(format!("GnuTLS does not decode what is in the block ({why})"))),
    }
}

/// Finds the places of a word. Each search begins where the last one ended, so the offsets that are asked for must not decrease.
#[derive(Clone)]
struct Places<'a> {
    bytes: &'a [u8],
    finder: Finder<'a>,
    /// The last place found.
    found: Option<usize>,
    looked: bool,
}

impl Places<'_> {
    /// The first place at or behind this one.
    fn from(&mut self, at: usize) -> Option<usize> {
        if !self.looked || self.found.is_some_and(|found| found < at) {
            self.looked = true;
            self.found = self.bytes.get(at..).and_then(|rest| self.finder.find(rest)).map(|found| at + found);
        }
        self.found
    }
}

/// Decodes base64 as nettle does: skips blanks and line ends, stops at a dash, and refuses unused bits that are set.
fn base64(text: &[u8]) -> Option<Vec<u8>> {
    if text.len() < 4 {
        return None;
    }
    let text = memchr::memchr(b'-', text).map_or(text, |end| &text[..end]);
    let words = without_blanks(text, |byte| matches!(byte, b' ' | b'\t'..=b'\r'));
    let padding = memchr::memchr(b'=', &words).map_or(&[][..], |at| &words[at..]);
    if padding.iter().any(|byte| *byte != b'=') {
        return None;
    }
    data_encoding::BASE64.decode(&words).ok().filter(|der| !der.is_empty())
}
