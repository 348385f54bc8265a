//! A PEM file as OpenSSL's loader reads it: `PEM_X509_INFO_read_bio` over `PEM_read_bio_ex` (crypto/pem/pem_info.c, pem_lib.c)
//! and `EVP_DecodeUpdate` (crypto/evp/encode.c).
//!
//! It reads lines of up to 254 bytes. Text between blocks does no harm, but each block of whatever kind must be in order, or
//! nothing of the file is loaded.

use std::{ffi::c_char, sync::LazyLock};

use data_encoding::{BASE64, Encoding, Specification};
use memchr::{memchr, memchr_iter, memmem};

use super::{
    blanks::without_blanks,
    known::{KnownBlock, KnownBlocks},
};
use crate::certificate::readers;

/// Bytes of a line: `LINESIZE` without the NUL byte that ends a text in C.
const LINE_BYTES: usize = 254;
/// Bytes of a line of base64 behind headers or a blank line.
const BODY_LINE_BYTES: usize = 64;

const BEGIN: &[u8] = b"-----BEGIN ";
const END: &[u8] = b"-----END ";
const DASHES: &[u8] = b"-----";

/// One block that is in order.
pub(crate) struct LoadedBlock<'a> {
    /// Where it begins, in bytes.
    pub(crate) at: usize,
    pub(crate) label: &'a [u8],
    pub(crate) der: Vec<u8>,
    /// From its BEGIN to behind its END line.
    pub(crate) text: &'a [u8],
    /// It begins where a line begins.
    pub(crate) begins_line: bool,
}

/// What [`read`] finds, in the order of the file. Lines are counted from 1.
pub(crate) enum BundleItem<'a> {
    Block(LoadedBlock<'a>),
    /// A known block, which is in order, and where it begins.
    Known(usize, KnownBlock<'a>),
    Fault(usize, String),
    /// A private key begins; a block or a fault of it follows.
    PrivateKey,
}

/// Reads a file and calls `each` for everything in it. OpenSSL itself stops at the first fault.
pub(crate) fn read<'a>(bytes: &'a [u8], known: &KnownBlocks, mut each: impl FnMut(BundleItem<'a>)) {
    let mut lines = BioLines { bytes, at: 0, number: 0, ended: true };
    let mut is_first = true;
    while let Some(line) = lines.next() {
        if line.is_end {
            // OpenSSL takes a NUL byte at the start of a line for the end of the file
            if memmem::find(&bytes[line.at..], b"-----BEGIN").is_some() {
                each(BundleItem::Fault(
                    line.number,
                    "OpenSSL reads nothing behind the NUL byte that this line begins with".into(),
                ));
            }
            return;
        }
        let text = match line.text.strip_prefix(b"\xef\xbb\xbf") {
            // OpenSSL removes a byte order mark from the first line only
            Some(rest) if is_first && !rest.is_empty() => rest,
            _ => line.text,
        };
        is_first = false;
        let Some(label) = text.strip_prefix(BEGIN).and_then(|rest| rest.strip_suffix(DASHES)) else { continue };
        if let Some(block) = known.at(&bytes[line.at..]).filter(|_| line.begins) {
            lines.pass(line.at, block.text);
            each(BundleItem::Known(line.at, block));
            is_first = true;
            continue;
        }
        let is_key = label.ends_with(b"PRIVATE KEY");
        if is_key {
            each(BundleItem::PrivateKey);
        }
        match block(&mut lines, label) {
            Ok(der) => each(BundleItem::Block(LoadedBlock {
                at: line.at,
                label,
                der,
                text: &bytes[line.at..lines.line_end()],
                begins_line: line.begins && text.len() == line.text.len(),
            })),
            Err(why) => each(BundleItem::Fault(line.number, why)),
        }
        is_first = true;
    }
}

#[derive(Clone, Copy)]
struct Line<'a> {
    at: usize,
    number: usize,
    /// Without the blanks and control characters at its end.
    text: &'a [u8],
    has_colon: bool,
    /// It begins where a line of the file begins.
    begins: bool,
    /// The line of the file goes on behind it.
    is_part: bool,
    /// It begins with a NUL byte, which reads as the end of the file.
    is_end: bool,
}

/// Lines as `BIO_gets` returns them.
struct BioLines<'a> {
    bytes: &'a [u8],
    at: usize,
    number: usize,
    ended: bool,
}

impl<'a> BioLines<'a> {
    /// Where the current line of the file ends.
    fn line_end(&self) -> usize {
        let rest = &self.bytes[self.at..];
        if self.ended { self.at } else { self.at + memchr(b'\n', rest).map_or(rest.len(), |end| end + 1) }
    }

    /// Goes on behind whole lines, of which the first, at this offset, was read.
    fn pass(&mut self, at: usize, lines: &[u8]) {
        self.at = at + lines.len();
        self.number += memchr_iter(b'\n', lines).count() - 1;
    }

    fn next(&mut self) -> Option<Line<'a>> {
        let rest = self.bytes.get(self.at..).filter(|rest| !rest.is_empty())?;
        let window = &rest[..rest.len().min(LINE_BYTES)];
        let raw = memchr(b'\n', window).map_or(window, |end| &window[..=end]);
        let (at, begins) = (self.at, self.ended);
        self.number += usize::from(begins);
        self.at += raw.len();
        self.ended = raw.ends_with(b"\n");
        // a text in C ends at a NUL byte
        let whole = memchr(0, raw).map_or(raw, |end| &raw[..end]);
        let is_part = whole.len() == LINE_BYTES && !whole.ends_with(b"\n");
        // bytes above 0x7f are negative where C's char is signed
        let goes = |byte: &u8| *byte <= b' ' || (c_char::MIN != 0 && *byte >= 0x80);
        let length = whole.iter().rposition(|byte| !goes(byte)).map_or(0, |last| last + 1);
        let has_colon = memchr(b':', whole).is_some();
        Some(Line {
            at,
            number: self.number,
            text: &whole[..length],
            has_colon,
            begins,
            is_part,
            is_end: whole.is_empty(),
        })
    }
}

#[derive(PartialEq)]
enum HeaderState {
    Perhaps,
    Within,
    Behind,
}

/// Reads to the END of a block and decodes its content.
fn block(lines: &mut BioLines<'_>, label: &[u8]) -> Result<Vec<u8>, String> {
    let mut header = HeaderState::Perhaps;
    let (mut before, mut body) = (Vec::new(), Vec::new());
    let (mut was_part, mut is_last) = (false, false);
    loop {
        let start = (lines.at, lines.number, lines.ended);
        let line = lines.next().filter(|line| !line.is_end).ok_or("the block has no END")?;
        let follows_part = std::mem::replace(&mut was_part, line.is_part);
        if header == HeaderState::Perhaps && line.has_colon {
            header = HeaderState::Within;
        }
        if line.text.is_empty() {
            if !follows_part {
                if header == HeaderState::Behind {
                    return Err("blank lines inside the block".into());
                }
                header = HeaderState::Behind;
            }
            continue;
        }
        if let Some(rest) = line.text.strip_prefix(END) {
            if rest.strip_suffix(DASHES) != Some(label) {
                return Err("its END does not fit its BEGIN".into());
            }
            break;
        }
        if line.text.starts_with(BEGIN) && line.text.ends_with(DASHES) {
            // OpenSSL would read to the next END, and lose at least one certificate
            (lines.at, lines.number, lines.ended) = start;
            return Err("the block has no END before the next BEGIN".into());
        }
        if is_last {
            return Err("a short line before the last, behind a blank line or headers".into());
        }
        if header == HeaderState::Behind {
            body.extend_from_slice(line.text);
            if line.text.len() > BODY_LINE_BYTES {
                return Err("a line of more than 64 characters, behind a blank line or headers".into());
            }
            is_last = line.text.len() < BODY_LINE_BYTES;
        } else {
            before.extend_from_slice(line.text);
        }
    }
    if header == HeaderState::Perhaps {
        body = std::mem::take(&mut before);
    }
    if body.is_empty() {
        let why =
            if before.is_empty() { "an empty block" } else { "a blank line at the end of the block, or headers alone" };
        return Err(why.into());
    }
    let der = base64(&body).ok_or("broken base64: cut off, or a character that does not belong there")?;
    check(label, &der, !before.is_empty())?;
    Ok(der)
}

/// Checks what OpenSSL decodes as soon as it has read a block.
fn check(label: &[u8], der: &[u8], has_header: bool) -> Result<(), String> {
    let fault = match label {
        b"CERTIFICATE" | b"X509 CERTIFICATE" => readers::openssl_fault(der),
        b"TRUSTED CERTIFICATE" => readers::trusted_fault(der),
        b"X509 CRL" => readers::crl_fault(der),
        _ if is_key(label) => {
            let plain = !has_header && !label.starts_with(b"ENCRYPTED PRIVATE KEY");
            (plain && !is_like_key(der)).then(|| "no private key".to_owned())
        }
        _ => return Ok(()), // passed over
    };
    if has_header && !is_key(label) {
        return Err("header lines, or a blank line, inside the block".into());
    }
    match fault {
        None => Ok(()),
        Some(why) => Err(format!("OpenSSL does not decode what is in the block ({why})")),
    }
}

fn is_key(label: &[u8]) -> bool {
    memmem::find(label, b"PRIVATE KEY").is_some()
}

/// Whether DER begins as a private key does: a sequence whose first element is a number.
fn is_like_key(der: &[u8]) -> bool {
    matches!(crate::certificate::der::split(der), Some((0x30, [0x02, ..], _)))
}

/// Decodes base64 as `EVP_DecodeUpdate` and `EVP_DecodeFinal` do: a dash ends it, and unused bits may have any value.
fn base64(text: &[u8]) -> Option<Vec<u8>> {
    static LENIENT: LazyLock<Option<Encoding>> = LazyLock::new(|| {
        let mut spec: Specification = BASE64.specification();
        spec.check_trailing_bits = false;
        spec.encoding().ok()
    });
    let text = memchr(b'-', text).map_or(text, |end| &text[..end]);
    let words = without_blanks(text, |byte| matches!(byte, b' ' | b'\t' | b'\r'));
    decode(LENIENT.as_ref(), &words).filter(|der| !der.is_empty())
}

fn decode(encoding: Option<&Encoding>, text: &[u8]) -> Option<Vec<u8>> {
    // OpenSSL takes padding at the end only; the library would decode what follows it
    let padding = memchr(b'=', text).map_or(&[][..], |at| &text[at..]);
    if padding.iter().any(|byte| *byte != b'=') {
        return None;
    }
    encoding.unwrap_or(&BASE64).decode(text).ok()
}
