//! The text of a certificate file, before anything of it is taken for a block: its encoding, characters that nobody sees, and
//! lines that only look like a BEGIN or END.

use std::borrow::Cow;

use memchr::{memchr2, memmem};

/// Bytes at the beginning of a file that show its encoding.
const HEAD_BYTES: usize = 64;
/// Base64 digits that a line must have to be the body of a block and not a word of a sentence.
const LEAST_BODY_DIGITS: usize = 20;

/// Lines with their 1-based numbers, without line ends (LF, CRLF or CR) and trailing blanks.
pub(crate) fn lines(bytes: &[u8]) -> Lines<'_> {
    Lines { rest: Some(bytes), number: 0 }
}

/// See [`lines`].
#[derive(Debug, Clone)]
pub(crate) struct Lines<'a> {
    rest: Option<&'a [u8]>,
    number: usize,
}

impl<'a> Iterator for Lines<'a> {
    type Item = (usize, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let bytes = self.rest?;
        self.number += 1;
        let line = match memchr2(b'\n', b'\r', bytes) {
            Some(end) => {
                let skip = if bytes[end..].starts_with(b"\r\n") { 2 } else { 1 };
                self.rest = Some(&bytes[end + skip..]);
                &bytes[..end]
            }
            None => {
                self.rest = None;
                bytes
            }
        };
        Some((self.number, line.trim_ascii_end()))
    }
}

/// The name of an encoding that is not ASCII or UTF-8, and the text in UTF-8.
pub(crate) fn foreign_encoding(bytes: &[u8]) -> Option<(&'static str, String)> {
    type ReadUnit = fn(&[u8]) -> u32;
    let wide_little: ReadUnit = |four| u32::from_le_bytes([four[0], four[1], four[2], four[3]]);
    let wide_big: ReadUnit = |four| u32::from_be_bytes([four[0], four[1], four[2], four[3]]);
    let head = &bytes[..bytes.len().min(HEAD_BYTES)];
    // whether of every `step` bytes those `at` these places are nearly always zero and the others are not, as in Latin text
    let zeros = |step: usize, at: &[usize]| {
        let all = head.len() / step;
        let zero = |at: usize| head.iter().skip(at).step_by(step).filter(|byte| **byte == 0).count();
        all >= 4
            && (0..step)
                .all(|place| if at.contains(&place) { zero(place) * 4 >= all * 3 } else { zero(place) * 4 <= all })
    };
    if bytes.starts_with(b"\xff\xfe\0\0") || zeros(4, &[1, 2, 3]) {
        Some(("UTF-32", wide(bytes, wide_little)))
    } else if bytes.starts_with(b"\0\0\xfe\xff") || zeros(4, &[0, 1, 2]) {
        Some(("UTF-32", wide(bytes, wide_big)))
    } else if bytes.starts_with(b"\xff\xfe") || zeros(2, &[1]) {
        Some(("UTF-16", narrow(bytes, u16::from_le_bytes)))
    } else if bytes.starts_with(b"\xfe\xff") || zeros(2, &[0]) {
        Some(("UTF-16", narrow(bytes, u16::from_be_bytes)))
    } else {
        None
    }
}

fn wide(bytes: &[u8], unit: fn(&[u8]) -> u32) -> String {
    bytes.chunks_exact(4).map(|four| char::from_u32(unit(four)).unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
}

fn narrow(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> String {
    let units: Vec<u16> = bytes.chunks_exact(2).map(|pair| unit([pair[0], pair[1]])).collect();
    String::from_utf16_lossy(&units)
}

/// The line of a BEGIN in UTF-16 within a file that is not UTF-16, as PowerShell appends it.
pub(crate) fn utf16_begin(bytes: &[u8]) -> Option<usize> {
    let at = memmem::find(bytes, b"B\0E\0G\0I\0N\0").or_else(|| memmem::find(bytes, b"\0B\0E\0G\0I\0N"))?;
    Some(1 + bytes[..at].iter().filter(|byte| **byte == b'\n').count())
}

/// Invisible characters that editors and tools leave at the ends of lines, with their names.
const INVISIBLE: [(&[u8], &str); 10] = [
    ("\u{feff}".as_bytes(), "a byte order mark (BOM)"),
    ("\u{a0}".as_bytes(), "a no-break space"),
    ("\u{200b}".as_bytes(), "a zero-width space"),
    ("\u{200e}".as_bytes(), "a direction mark"),
    ("\u{200f}".as_bytes(), "a direction mark"),
    ("\u{2060}".as_bytes(), "a word joiner"),
    (b"\x1a", "a Ctrl-Z, the end mark of DOS"),
    (b"\x0c", "a form feed"),
    (b"\x0b", "a vertical tab"),
    (b"\0", "a NUL byte"),
];

/// A line without [`INVISIBLE`] characters at its ends, and the name of one that was there.
pub(crate) fn without_invisible(line: &[u8]) -> (&[u8], Option<&'static str>) {
    let mut rest = line;
    let mut name = None;
    loop {
        let graphic = |byte: Option<&u8>| byte.is_none_or(u8::is_ascii_graphic);
        if graphic(rest.first()) && graphic(rest.last()) {
            return (rest, name);
        }
        let found = INVISIBLE.iter().find_map(|(bytes, name)| {
            rest.strip_prefix(*bytes).or_else(|| rest.strip_suffix(*bytes)).map(|rest| (rest, *name))
        });
        match found {
            Some((less, what)) => {
                name = name.or(Some(what));
                rest = less.trim_ascii_end();
            }
            None => return (rest, name),
        }
    }
}

/// The name of an [`INVISIBLE`] character in a text.
pub(crate) fn invisible_in(text: &[u8]) -> Option<&'static str> {
    INVISIBLE.iter().find(|(bytes, _)| memmem::find(text, bytes).is_some()).map(|(_, name)| *name)
}

/// The rest of a line behind the sign of a comment, as configuration files and scripts write it.
pub(crate) fn commented(line: &[u8]) -> Option<&[u8]> {
    let line = line.trim_ascii_start();
    let signs: [&[u8]; 10] = [b"#", b";", b"//", b"/*", b"<!--", b"%", b"-- ", b"rem ", b"REM ", b"* "];
    signs.into_iter().find_map(|sign| line.strip_prefix(sign))
}

/// Whether a line could be in the body of a block: base64 digits alone, or one of the headers of old keys.
pub(crate) fn is_body(line: &[u8]) -> bool {
    let line = line.trim_ascii();
    let line = line.strip_suffix(b"=").unwrap_or(line);
    let line = line.strip_suffix(b"=").unwrap_or(line);
    let headers: [&[u8]; 4] = [b"Proc-Type:", b"DEK-Info:", b"Version:", b"Comment:"];
    line.len() >= LEAST_BODY_DIGITS && are_digits(line) || headers.iter().any(|header| line.starts_with(header))
}

/// Whether there is nothing but digits of base64. Every line of every certificate is asked this, and nearly all are: without a way out in
/// the middle, the compiler looks at many bytes at once.
pub(crate) fn are_digits(line: &[u8]) -> bool {
    line.iter().fold(true, |all, byte| all & (byte.is_ascii_alphanumeric() | matches!(byte, b'+' | b'/')))
}

/// A dash of any script.
pub(crate) fn is_dash(c: char) -> bool {
    matches!(
        c,
        '-' | '\u{ad}' | '\u{2010}'
            ..='\u{2015}' | '\u{2212}' | '\u{2500}' | '\u{2501}' | '\u{fe58}' | '\u{fe63}' | '\u{ff0d}'
    )
}

/// A line in capitals with ASCII dashes, ASCII blanks, and without characters that have no width.
pub(crate) fn plain(line: &[u8]) -> String {
    String::from_utf8_lossy(line)
        .chars()
        .filter(|c| !matches!(c, '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}' | '\0'))
        .map(|c| match c {
            c if is_dash(c) => '-',
            c if c.is_whitespace() => ' ',
            c => c.to_ascii_uppercase(),
        })
        .collect()
}

/// What is wrong with a line that its author meant as the BEGIN or END of a certificate; None if it is something else.
pub(crate) fn look_alike(line: &[u8]) -> Option<(Side, &'static str)> {
    let lower = line.to_ascii_lowercase();
    let has = |word: &[u8]| memmem::find(&lower, word).is_some();
    if !(has(b"begin") || has(b"end")) || !(has(b"cert") || has(b"pkcs") || has(b"crl")) {
        return None;
    }
    let ascii = plain(line);
    let marks = |c: char| {
        c == ' '
            || matches!(
                c,
                '"' | '\'' | ',' | ';' | '`' | '\u{201c}' | '\u{201d}' | '\u{2018}' | '\u{2019}' | '\u{ab}' | '\u{bb}'
            )
    };
    let bare = ascii.trim_matches(marks);
    let inner = bare.trim_matches('-');
    let (before, after) =
        (bare.len() - bare.trim_start_matches('-').len(), bare.len() - bare.trim_end_matches('-').len());
    let words = inner.trim();
    let (side, label) = match (words.strip_prefix("BEGIN"), words.strip_prefix("END")) {
        (Some(label), _) => (Side::Begin, label),
        (_, Some(label)) => (Side::End, label),
        _ => return None,
    };
    let is_label = |c: char| c.is_ascii_alphanumeric() || matches!(c, ' ' | '.' | '#' | '_');
    if before + after == 0 || !label.chars().all(is_label) {
        return None;
    }
    let text = String::from_utf8_lossy(line);
    let why = if text.chars().any(|c| c != '-' && is_dash(c)) {
        "its dashes are not ASCII hyphens, as a word processor writes them; write -----BEGIN CERTIFICATE----- and -----END CERTIFICATE-----"
    } else if before != 5 || after != 5 {
        "it has not five dashes on both sides; write -----BEGIN CERTIFICATE----- and -----END CERTIFICATE-----"
    } else if bare.len() != ascii.trim().len() {
        "a quotation mark or comma stands beside it; each BEGIN and END must stand alone on its line"
    } else {
        "its words or blanks are not as they must be; write -----BEGIN CERTIFICATE----- and -----END CERTIFICATE-----"
    };
    Some((side, why))
}

/// Which end of a block a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Begin,
    End,
}

/// A line with the escapes of JSON, YAML and URLs taken back: `\n` and `%0A` become line ends. Borrowed where there is none.
pub(crate) fn unescaped(line: &[u8]) -> Cow<'_, [u8]> {
    if memchr2(b'\\', b'%', line).is_none() {
        return Cow::Borrowed(line); // nearly always
    }
    let percent = [b"%0", b"%2", b"%3"].iter().any(|escape| memmem::find(line, *escape).is_some());
    if !percent && !line.contains(&b'\\') {
        return Cow::Borrowed(line);
    }
    let mut out = Vec::with_capacity(line.len());
    let mut rest = line;
    while let [first, tail @ ..] = rest {
        let hex = |digits: Option<&[u8]>| u8::from_str_radix(std::str::from_utf8(digits?).ok()?, 16).ok();
        rest = match (first, tail) {
            (b'\\', [b'n' | b'r', tail @ ..]) => {
                out.push(b'\n');
                tail
            }
            (b'\\', [b't', tail @ ..]) => {
                out.push(b' ');
                tail
            }
            (b'\\', [b'u', b'0', b'0', tail @ ..]) if hex(tail.get(..2)).is_some() => {
                out.push(hex(tail.get(..2)).unwrap_or(b'?'));
                &tail[2..]
            }
            (b'\\', tail) => tail, // what follows stands for itself: \/ \" \\
            (b'%', tail) if percent && hex(tail.get(..2)).is_some() => {
                let byte = hex(tail.get(..2)).unwrap_or(b'?');
                out.push(if byte == b'\r' { b'\n' } else { byte });
                &tail[2..]
            }
            (byte, tail) => {
                out.push(*byte);
                tail
            }
        };
    }
    Cow::Owned(out)
}
