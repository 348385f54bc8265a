//! Finds private keys in every form: behind a BEGIN that is misspelt, as bare base64, within JSON and YAML, and encoded twice.
//!
//! Base64 counts as a key only by the structure of what it decodes to (PKCS#8, RFC 5958; PKCS#1, RFC 8017; SEC 1, RFC 5915;
//! OpenSSH; OpenPGP, RFC 4880), so that no certificate is taken for one.

use data_encoding::BASE64_NOPAD;
use memchr::memmem;

use super::text::{self, lines};
use crate::certificate::der::{after, element_begun};

/// Levels of base64 within base64 that are decoded.
const MAX_LEVELS: usize = 3;
/// Base64 digits that are decoded to look at the beginning of what they encode.
const PREFIX_DIGITS: usize = 128;
/// Base64 digits of the shortest word that is decoded.
const LEAST_DIGITS: usize = 24;
/// Characters of a private value in a JSON web key; an Ed25519 key has 43.
const LEAST_JWK_DIGITS: usize = 16;

/// The line of the first private key in a text.
pub(crate) fn line(bytes: &[u8]) -> Option<usize> {
    if bytes.contains(&0) {
        // a part in UTF-16, or NUL bytes between
        let without: Vec<u8> = bytes.iter().copied().filter(|byte| *byte != 0).collect();
        return find(&without, 0);
    }
    find(bytes, 0)
}

/// Whether bytes are a private key, or begin as one.
pub(crate) fn is_key(bytes: &[u8]) -> bool {
    is_der_key(bytes) || bytes.starts_with(b"openssh-key-v1\0") || is_pgp_key(bytes)
}

fn find(bytes: &[u8], level: usize) -> Option<usize> {
    if let Some(line) = web_key(bytes).or_else(|| xml_key(bytes)) {
        return Some(line);
    }
    let mut search = KeySearch { level, mention: None, run: None };
    for (number, line) in lines(bytes) {
        let line = text::unescaped(line);
        for piece in line.split(|byte| *byte == b'\n') {
            if let Some(found) = search.take(number, piece) {
                return Some(found);
            }
        }
    }
    search.end_run()
}

struct KeySearch {
    level: usize,
    /// the line of a sentence or comment that mentions the BEGIN of a key: what follows decides
    mention: Option<usize>,
    run: Option<Run>,
}

/// Base64 that goes on from line to line.
struct Run {
    line: usize,
    digits: Vec<u8>,
    /// it begins as DER: only its beginning is kept, and every further line is checked by itself
    is_der: bool,
    ended: bool,
}

impl KeySearch {
    fn take(&mut self, number: usize, piece: &[u8]) -> Option<usize> {
        let piece = piece.trim_ascii();
        if piece.is_empty() {
            return None;
        }
        // nearly all lines are within a certificate
        if self.mention.is_none()
            && self.run.as_ref().is_some_and(|run| run.is_der && !run.ended && run.digits.len() >= PREFIX_DIGITS)
            && text::are_digits(piece)
        {
            return is_key_at_start(piece).then_some(number);
        }
        if let Some(begun) = self.mention.take()
            && text::is_body(text::commented(piece).unwrap_or(piece))
        {
            return Some(begun);
        }
        let digits = unmarked(piece);
        // a BEGIN without blanks, and age's own form, have no other characters than base64 for URLs
        let is_armour = digits.contains(&b'-') && matches!(armour(digits), Armour::Key);
        let is_base64 = !is_armour && digits.iter().all(is_digit) && digits.iter().any(u8::is_ascii_alphanumeric);
        // an assignment, as in a shell's variables, is not padding
        let padding = digits.iter().position(|byte| *byte == b'=').unwrap_or(digits.len());
        if is_base64 && digits[padding..].iter().all(|byte| *byte == b'=') {
            return self.take_digits(number, digits);
        }
        let before = self.end_run();
        if before.is_some() {
            return before;
        }
        match armour(piece) {
            Armour::Key => return Some(number),
            Armour::Mention => self.mention = Some(number),
            Armour::None => {}
        }
        for word in piece.split(|byte| !is_digit(byte) || *byte == b'=').filter(|word| word.len() >= LEAST_DIGITS) {
            let found = self.take_digits(number, word).or_else(|| self.end_run());
            if found.is_some() {
                return found;
            }
        }
        None
    }

    fn take_digits(&mut self, number: usize, digits: &[u8]) -> Option<usize> {
        if is_key_at_start(digits) {
            return Some(number);
        }
        let goes_on = self.run.as_ref().is_some_and(|run| !run.ended);
        if !goes_on && let Some(found) = self.end_run() {
            return Some(found);
        }
        let run = self.run.get_or_insert_with(|| Run {
            line: number,
            digits: Vec::new(),
            is_der: digits.starts_with(b"MI"),
            ended: false,
        });
        let most = if run.is_der { PREFIX_DIGITS.saturating_sub(run.digits.len()) } else { digits.len() };
        run.digits.extend_from_slice(&digits[..digits.len().min(most)]);
        run.ended = digits.ends_with(b"=");
        None
    }

    /// Looks into what a run of base64 encodes.
    fn end_run(&mut self) -> Option<usize> {
        let run = self.run.take()?;
        let prefix = decoded(&run.digits[..run.digits.len().min(PREFIX_DIGITS)])?;
        if is_key(&prefix) {
            return Some(run.line);
        }
        let is_text = text::foreign_encoding(&prefix).is_some() || is_text(&prefix);
        if !is_text || self.level + 1 >= MAX_LEVELS {
            return None;
        }
        let inner = decoded(&run.digits)?;
        let found = match text::foreign_encoding(&inner) {
            Some((_, text)) => find(text.as_bytes(), self.level + 1),
            None => find(&inner, self.level + 1),
        };
        found.map(|_| run.line)
    }
}

/// Whether digits begin as a key in DER does; an escape that was not taken back may stand before the first one.
fn is_key_at_start(digits: &[u8]) -> bool {
    (0..4).any(|at| {
        digits.get(at) == Some(&b'M')
            && digits.get(at + 1).is_some_and(|next| (b'A'..=b'P').contains(next))
            && decoded(&digits[at..digits.len().min(at + PREFIX_DIGITS)]).is_some_and(|der| is_der_key(&der))
    })
}

/// Whether bytes, which may end within a character, begin as a text does.
fn is_text(bytes: &[u8]) -> bool {
    let head = &bytes[..bytes.len().min(LEAST_DIGITS)];
    let text = match std::str::from_utf8(head) {
        Ok(text) => text,
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(&head[..error.valid_up_to()]).unwrap_or_default() // it ends within a character
        }
        Err(_) => return false,
    };
    text.len() >= 8 && !text.chars().any(|c| c.is_control() && !c.is_whitespace())
}

/// A digit of base64 or of its form for URLs, or padding.
fn is_digit(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_' | b'=')
}

/// A line without the signs of comments, lists and quotations around it.
fn unmarked(piece: &[u8]) -> &[u8] {
    let front = |byte: &u8| {
        byte.is_ascii_whitespace() || matches!(byte, b'#' | b';' | b'>' | b'*' | b'|' | b'"' | b'\'' | b',' | b'(')
    };
    let back = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b'"' | b'\'' | b',' | b';' | b'\\' | b')');
    let start = piece.iter().position(|byte| !front(byte)).unwrap_or(piece.len());
    let end = piece.iter().rposition(|byte| !back(byte)).map_or(start, |at| at + 1);
    let rest = piece.get(start..end).unwrap_or_default();
    rest.strip_prefix(b"// ").unwrap_or(rest)
}

/// Decodes base64, or that of URLs, as far as its digits go.
fn decoded(digits: &[u8]) -> Option<Vec<u8>> {
    let standard: Vec<u8> = digits
        .iter()
        .take_while(|byte| **byte != b'=')
        .map(|byte| match byte {
            b'-' => b'+',
            b'_' => b'/',
            byte => *byte,
        })
        .collect();
    BASE64_NOPAD.decode(&standard[..standard.len() / 4 * 4]).ok()
}

enum Armour {
    None,
    Key,
    Mention,
}

/// Whether a line begins a key as PEM does, however its dashes, blanks and letters are written.
fn armour(line: &[u8]) -> Armour {
    let lower = line.to_ascii_lowercase();
    let has = |word: &[u8]| memmem::find(&lower, word).is_some();
    // PuTTY's and age's own files, and a key that OpenSSL has printed as text
    let own: [&[u8]; 4] = [b"putty-user-key-file", b"age-secret-key-1", b"private-key: (", b"privateexponent:"];
    // the first line of that text for a key without a size, as `ED25519 Private-Key:`
    let is_title = line.trim_ascii().strip_suffix(b" Private-Key:").is_some_and(|algorithm| {
        algorithm.rsplit(u8::is_ascii_whitespace).next().is_some_and(|word| word.iter().any(u8::is_ascii_digit))
    });
    if is_title || own.iter().any(|word| has(word)) {
        return Armour::Key;
    }
    if !has(b"begin") || !has(b"private") {
        return Armour::None;
    }
    let squeezed: String = text::plain(line).chars().filter(|c| !matches!(c, ' ' | '_')).collect();
    let Some(at) = squeezed.find("PRIVATEKEY") else { return Armour::None };
    let Some(begin) = squeezed[..at].rfind("BEGIN") else { return Armour::None };
    if !squeezed[begin..at].bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Armour::None; // the BEGIN of something else, and the words stand elsewhere on the line
    }
    let before = squeezed[..begin].trim_end_matches('-');
    let dashes = begin - before.len();
    let after = squeezed[at + "PRIVATEKEY".len()..].trim_start_matches("BLOCK");
    let behind = after.trim_start_matches('-');
    let is_word = |c: char| c.is_alphanumeric();
    // the key of a mapping, a comment's sign and the END of another block say nothing about what was meant
    let before = match before.rfind("-----END") {
        Some(end) if !before[end + 8..].contains(['.', ',', ':']) => "",
        _ => before.trim_end_matches(['"', '\'', '`', '|', '>']),
    };
    let in_prose = !before.is_empty() && !before.ends_with([':', '=', '{', '[', '(']) && before.chars().any(is_word);
    let is_comment = text::commented(line).is_some();
    let is_alone = dashes >= 2 && !in_prose && !is_comment && !behind.chars().any(is_word);
    let has_digits = dashes >= 1 && line.split(|byte| !is_digit(byte)).any(is_no_word);
    if is_alone || has_digits { Armour::Key } else { Armour::Mention }
}

/// Whether letters are digits of base64 and no word of a sentence or a path.
fn is_no_word(letters: &[u8]) -> bool {
    letters.len() >= LEAST_DIGITS
        && letters.iter().any(u8::is_ascii_uppercase)
        && letters.iter().any(u8::is_ascii_lowercase)
}

/// PKCS#8, encrypted or not, PKCS#1, SEC 1 and OpenSSL's own form for DSA, by their first elements; the rest may be cut off.
fn is_der_key(der: &[u8]) -> bool {
    let Some((0x30, content)) = element_begun(der) else { return false };
    match element_begun(content) {
        Some((0x02, [0 | 1])) => {
            let Some(rest) = after(content) else { return false };
            match element_begun(rest) {
                // an algorithm, and the key behind it
                Some((0x30, algorithm)) => {
                    algorithm.first() == Some(&0x06)
                        && after(rest).is_none_or(|key| matches!(key.first(), None | Some(0x04)))
                }
                Some((0x02, _)) => matches!(rest.get(1), Some(0x20..=0x7f | 0x81 | 0x82)),
                Some((0x04, _)) => content.get(..3) == Some(b"\x02\x01\x01") && matches!(rest.get(1), Some(10..=80)),
                _ => false,
            }
        }
        // a password's algorithm of PKCS#5 or PKCS#12, and what it has encrypted
        Some((0x30, algorithm)) => {
            let is_password = algorithm.starts_with(b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x05")
                || algorithm.starts_with(b"\x06\x0a\x2a\x86\x48\x86\xf7\x0d\x01\x0c\x01");
            is_password && after(content).is_none_or(|key| matches!(key.first(), None | Some(0x04)))
        }
        _ => false,
    }
}

/// A secret key packet of OpenPGP, version 4 (RFC 4880, 5.5.3): its tag, its time, its algorithm and the size of its first number.
fn is_pgp_key(bytes: &[u8]) -> bool {
    let body = match bytes {
        [0x94 | 0x9c, _, body @ ..] | [0x95 | 0x9d, _, _, body @ ..] | [0x96 | 0x9e, _, _, _, _, body @ ..] => body,
        [0xc5 | 0xc7, 0..=191, body @ ..]
        | [0xc5 | 0xc7, 192..=223, _, body @ ..]
        | [0xc5 | 0xc7, 255, _, _, _, _, body @ ..] => body,
        _ => return false,
    };
    match body {
        [4, _, _, _, _, 1..=3 | 16 | 17, high, low, first, ..] => {
            let bits = u32::from(*high) << 8 | u32::from(*low);
            let top = (bits + 7) % 8 + 1; // bits of its first byte
            (512..=16_384).contains(&bits) && 8 - first.leading_zeros() == top
        }
        // an elliptic curve: the length of its object identifier
        [4, _, _, _, _, 18 | 19 | 22, 5..=10, 0x2a | 0x2b, ..] => true,
        _ => false,
    }
}

/// The line of the private member of a JSON web key (RFC 7517), in JSON or YAML.
fn web_key(bytes: &[u8]) -> Option<usize> {
    member(bytes, b"kty", 2)?;
    let at = member(bytes, b"d", LEAST_JWK_DIGITS).or_else(|| member(bytes, b"k", LEAST_JWK_DIGITS))?;
    Some(line_at(bytes, at))
}

/// The line of .NET's form of a key.
fn xml_key(bytes: &[u8]) -> Option<usize> {
    let at = memmem::find(bytes, b"<RSAKeyValue").or_else(|| memmem::find(bytes, b"<RSAKeyPair"))?;
    memmem::find(&bytes[at..], b"<D>")?;
    Some(line_at(bytes, at))
}

fn line_at(bytes: &[u8], at: usize) -> usize {
    1 + bytes[..at].iter().filter(|byte| **byte == b'\n').count()
}

/// Where a member of this name has a value of at least this many digits.
fn member(bytes: &[u8], name: &[u8], least: usize) -> Option<usize> {
    let is_mark = |byte: &u8| matches!(byte, b'"' | b'\'' | b'\\');
    memmem::find_iter(bytes, name).find(|at| {
        let before = at.checked_sub(1).and_then(|before| bytes.get(before));
        let starts =
            before.is_none_or(|byte| is_mark(byte) || byte.is_ascii_whitespace() || matches!(byte, b'{' | b','));
        let rest = &bytes[at + name.len()..];
        let rest = rest.iter().position(|byte| !is_mark(byte)).map_or(&[][..], |from| &rest[from..]);
        let Some(value) = rest.trim_ascii_start().strip_prefix(b":") else { return false };
        let value = value.trim_ascii_start();
        let value = value.iter().position(|byte| !is_mark(byte)).map_or(&[][..], |from| &value[from..]);
        starts && value.iter().take_while(|byte| is_digit(byte)).count() >= least
    })
}

#[cfg(test)]
#[path = "secret_tests.rs"]
mod tests;
