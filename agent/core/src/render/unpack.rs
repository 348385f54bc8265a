//! The encodings in which templates hold text: base64, gzip, and the escapes of strings and of mail.

use std::io::Read as _;

use data_encoding::{BASE64, HEXLOWER_PERMISSIVE};
use flate2::read::MultiGzDecoder;

/// The first bytes of a gzip stream (RFC 1952, 2.3.1).
const GZIP: &[u8] = b"\x1f\x8b";

/// Whether bytes are compressed by gzip.
pub(super) fn is_gzip(bytes: &[u8]) -> bool {
    bytes.starts_with(GZIP)
}

/// The content of a gzip stream, of at most `most` bytes; None if it is damaged. A longer content is cut.
pub(super) fn gunzip(bytes: &[u8], most: usize) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let most = u64::try_from(most).unwrap_or(u64::MAX);
    MultiGzDecoder::new(bytes).take(most).read_to_end(&mut out).ok()?;
    Some(out)
}

/// What base64 digits stand for. The padding may be left out.
pub(super) fn base64(digits: &[u8]) -> Option<Vec<u8>> {
    let bare = digits.len() - digits.iter().rev().take_while(|byte| **byte == b'=').count();
    let mut digits = digits.get(..bare)?.to_vec();
    while digits.len() % 4 != 0 {
        digits.push(b'=');
    }
    BASE64.decode(&digits).ok()
}

/// A text whose `\n` and `\r`, two characters each, are the line ends that they stand for in JSON, YAML and TOML.
pub(super) fn with_line_ends(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, tail)) = rest.split_first() {
        let (byte, used) = match (first, tail.first()) {
            (b'\\', Some(b'n')) => (b'\n', 1),
            (b'\\', Some(b'r')) => (b'\r', 1),
            (b'\\', Some(b'"' | b'/')) => (tail[0], 1),
            _ => (*first, 0),
        };
        out.push(byte);
        rest = &tail[used..];
    }
    out
}

/// The base64 digits between a BEGIN and an END, out of a YAML block, a JSON or TOML string, or a quoted-printable part of a mail; None
/// if anything else stands there.
pub(super) fn body_digits(body: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(body.len());
    let mut rest = body;
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        match first {
            byte if byte.is_ascii_whitespace() => {}
            byte if byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/') => out.push(*byte),
            b'\\' => rest = escaped(tail, &mut out)?,
            b'=' => rest = equals_sign(tail, &mut out),
            _ => return None,
        }
    }
    Some(out)
}

/// What follows a backslash: a line end in some form, a slash, or a character by its number.
fn escaped<'a>(tail: &'a [u8], out: &mut Vec<u8>) -> Option<&'a [u8]> {
    let more = tail.iter().take_while(|byte| **byte == b'\\').count(); // a string inside of a string
    let (first, rest) = tail[more..].split_first()?;
    match first {
        b'n' | b'r' | b't' | b'\n' | b'\r' | b' ' => {}
        b'/' => out.push(b'/'),
        b'u' => {
            let byte = hexadecimal(rest.strip_prefix(b"00")?.get(..2)?)?;
            if !byte.is_ascii_whitespace() {
                out.push(byte);
            }
            return rest.get(4..);
        }
        _ => return None,
    }
    Some(rest)
}

/// What follows an equals sign: in quoted-printable `=3D` is the sign itself, and one at the end of a line joins it with the next one
/// (RFC 2045, 6.7). Else it is padding.
fn equals_sign<'a>(tail: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
    match tail.get(..2).and_then(hexadecimal) {
        Some(b'=') => {
            out.push(b'=');
            &tail[2..]
        }
        _ => {
            let goes_on = tail
                .trim_ascii_start()
                .first()
                .is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'+' || *byte == b'/');
            let is_joint = goes_on && tail.first().is_some_and(|byte| matches!(byte, b'\r' | b'\n'));
            if !is_joint {
                out.push(b'=');
            }
            tail
        }
    }
}

fn hexadecimal(digits: &[u8]) -> Option<u8> {
    HEXLOWER_PERMISSIVE.decode(digits).ok()?.first().copied()
}
