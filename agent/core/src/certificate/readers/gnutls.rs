//! GnuTLS: what `gnutls_x509_crt_import` takes (lib/x509/x509.c, and libtasn1's lib/decoding.c with strict DER).
//!
//! libtasn1 keeps one position in the whole encoding. An element may reach beyond the sequence that it is in, but after its last
//! element the position must be where the sequence ends. The content of numbers, bits and texts is not checked. Then GnuTLS itself
//! reads alternative names and times, and refuses an extension that is there twice.

use super::fault::{At, BAD_BOOLEAN, BAD_OID, Checked, Decoded, MALFORMED, MISSING, TRAILING};
use crate::certificate::{
    der::{CONTEXT, Header, UNIVERSAL, header},
    oid,
};

/// Characters of an extension's object identifier as text that fit GnuTLS's buffer.
const MAX_OID_TEXT: usize = 126;

/// Characters of a time.
const MAX_TIME_BYTES: usize = 62;

/// libtasn1's walk: the whole encoding, and the position in it.
struct Walk<'a> {
    der: &'a [u8],
    at: usize,
}

/// An algorithm's object identifier, if it has one, and its parameters, empty where they are absent or NULL.
type Algorithm<'a> = (Option<&'a [u8]>, &'a [u8]);

pub(crate) fn certificate(der: &[u8]) -> Checked {
    let mut walk = Walk { der, at: 0 };
    let mut place = "certificate";
    let mut parts = CertificateParts::default();
    let walked = walk.sequence(16, |walk, _| {
        walk.sequence(16, |walk, end| signed_part(walk, end, &mut place, &mut parts))?;
        place = "signature algorithm behind the signed part";
        parts.outer = algorithm(walk)?;
        place = "signature";
        walk.primitive(UNIVERSAL, 3).map(|_| ())
    });
    walked.at(place)?;
    if walk.at != der.len() {
        return Err(TRAILING).at("certificate");
    }
    parts.check()
}

#[derive(Default)]
struct CertificateParts<'a> {
    version: Option<&'a [u8]>,
    inner: Algorithm<'a>,
    outer: Algorithm<'a>,
    times: [Option<(u32, &'a [u8])>; 2],
    unique_ids: [Option<&'a [u8]>; 2],
    has_extensions: bool,
    /// Object identifiers and values.
    extensions: Vec<(&'a [u8], &'a [u8])>,
}

fn signed_part<'a>(
    walk: &mut Walk<'a>,
    end: usize,
    place: &mut &'static str,
    parts: &mut CertificateParts<'a>,
) -> Decoded<()> {
    *place = "version";
    if walk.at < end
        && let Some(inside) = walk.explicit(0)
        && walk.head_at(inside).is_ok_and(|head| head.is(UNIVERSAL, 2) && !head.constructed)
    {
        walk.at = inside;
        parts.version = Some(walk.primitive(UNIVERSAL, 2)?);
    }
    *place = "serial number";
    walk.primitive(UNIVERSAL, 2)?;
    *place = "signature algorithm";
    parts.inner = algorithm(walk)?;
    *place = "issuer";
    name(walk)?;
    *place = "validity";
    walk.sequence(16, |walk, _| {
        for time in &mut parts.times {
            let head = walk.head()?;
            if !(head.is(UNIVERSAL, 23) || head.is(UNIVERSAL, 24)) {
                return Err("a time of another type");
            }
            *time = Some((head.number, walk.primitive(UNIVERSAL, head.number)?));
        }
        Ok(())
    })?;
    *place = "subject";
    name(walk)?;
    *place = "public key";
    walk.sequence(16, |walk, _| {
        algorithm(walk)?;
        walk.primitive(UNIVERSAL, 3).map(|_| ())
    })?;
    *place = "unique ids";
    for (id, number) in parts.unique_ids.iter_mut().zip([1, 2]) {
        if walk.at < end && walk.head().is_ok_and(|head| head.is(CONTEXT, number) && !head.constructed) {
            *id = Some(walk.primitive(CONTEXT, number)?);
        }
    }
    *place = "extensions";
    if walk.at < end
        && let Some(inside) = walk.explicit(3)
        && walk.head_at(inside).is_ok_and(|head| head.is(UNIVERSAL, 16) && head.constructed)
    {
        walk.at = inside;
        parts.has_extensions = true;
        // after an empty extension GnuTLS looks at no other one
        let mut ended = false;
        walk.each(16, |walk| {
            let mut found = None;
            walk.sequence(16, |walk, end| {
                let oid = walk.oid()?;
                if walk.at < end && walk.head().is_ok_and(|head| head.is(UNIVERSAL, 1) && !head.constructed) {
                    walk.boolean()?;
                }
                found = Some((oid, walk.primitive(UNIVERSAL, 4)?));
                Ok(())
            })?;
            match found {
                Some(extension) if !ended => parts.extensions.push(extension),
                _ => ended = true,
            }
            Ok(())
        })?;
    }
    Ok(())
}

impl CertificateParts<'_> {
    /// What GnuTLS wants of what it has read.
    fn check(&self) -> Checked {
        self.check_algorithms().at("signature algorithm")?;
        for (names, place) in [(oid::SUBJECT_NAMES, "subjectAltName"), (oid::ISSUER_NAMES, "issuerAltName")] {
            self.check_names(names).at(place)?;
        }
        let version = match self.version {
            None => 1,
            Some([number @ ..0x80]) => u32::from(*number) + 1,
            Some(_) => return Err("a number that is none of a version").at("version"),
        };
        if version < 3 && self.has_extensions {
            return Err("there are some, but its version is not 3").at("extensions");
        }
        if version < 2 && self.unique_ids.iter().flatten().any(|id| id.len() > 1) {
            return Err("there is one, but its version is 1").at("unique ids");
        }
        if version >= 3 {
            let mut oids: Vec<&[u8]> = self.extensions.iter().map(|(oid, _)| *oid).collect();
            oids.sort_unstable();
            if oids.windows(2).any(|pair| pair[0] == pair[1]) {
                return Err("one of them is there twice").at("extensions");
            }
        }
        let fine = |time: &Option<(u32, &[u8])>| time.is_some_and(|(kind, text)| is_time(kind, text));
        if self.times.iter().all(fine) { Ok(()) } else { Err("a time that it cannot read").at("validity") }
    }

    fn check_algorithms(&self) -> Decoded<()> {
        let ((Some(inner), inner_parameters), (Some(outer), outer_parameters)) = (self.inner, self.outer) else {
            return Err(MISSING);
        };
        if (inner, inner_parameters) == (outer, outer_parameters) {
            Ok(())
        } else {
            Err("another one behind the signed part")
        }
    }

    /// The first extension of this kind holds names. All that stand before it must have object identifiers that fit.
    fn check_names(&self, wanted: &[u8]) -> Decoded<()> {
        for (oid, value) in &self.extensions {
            if oid_text_length(oid) > MAX_OID_TEXT {
                return Err("an extension's object identifier is too long");
            }
            if *oid == wanted {
                return general_names(value);
            }
        }
        Ok(())
    }
}

/// What GnuTLS makes of one alternative name.
#[derive(Clone, Copy, PartialEq)]
enum AlternativeName {
    /// It has a text.
    Named,
    /// Its text is empty.
    Empty,
    /// A directory name without parts: GnuTLS looks at no further name and reports no error.
    NoParts,
    /// A directory name with a value that cannot be made a text.
    Unreadable,
}

impl AlternativeName {
    fn of_bytes(text: &[u8]) -> Self {
        if text.is_empty() { Self::Empty } else { Self::Named }
    }
}

fn general_names(value: &[u8]) -> Decoded<()> {
    const UNKNOWN: &str = "an empty name, or one of a kind that it does not know";
    let mut walk = Walk { der: value, at: 0 };
    let mut names = Vec::new();
    walk.each(16, |walk| {
        let head = walk.head()?;
        let name = match (head.class, head.constructed, head.number) {
            (CONTEXT, true, 0) => {
                walk.at += head.size;
                let end = walk.at + head.length.ok_or(MALFORMED)?;
                walk.oid()?;
                walk.at = walk.explicit(0).ok_or(MISSING)?;
                walk.skip()?;
                if walk.at != end {
                    return Err(TRAILING);
                }
                AlternativeName::Named
            }
            (CONTEXT, false, number @ (1 | 2 | 6 | 7)) => AlternativeName::of_bytes(walk.primitive(CONTEXT, number)?),
            (CONTEXT, true, 4) => {
                walk.at = walk.explicit(4).ok_or(MALFORMED)?;
                directory_name(walk)?
            }
            (CONTEXT, false, 8) => {
                let content = walk.primitive(CONTEXT, 8)?;
                if is_oid(content) { AlternativeName::of_bytes(content) } else { return Err(BAD_OID) }
            }
            _ => return Err(UNKNOWN),
        };
        names.push(name);
        Ok(())
    })?;
    if walk.at != value.len() {
        return Err(TRAILING);
    }
    let mut read = names.iter().take_while(|name| **name != AlternativeName::NoParts);
    read.try_for_each(|name| match name {
        AlternativeName::Named | AlternativeName::NoParts => Ok(()),
        AlternativeName::Empty => Err(UNKNOWN),
        AlternativeName::Unreadable => Err("a directory name with an empty text in it"),
    })
}

/// A name inside of an alternative name is made a text, unlike subject and issuer.
fn directory_name(walk: &mut Walk<'_>) -> Decoded<AlternativeName> {
    let mut name = AlternativeName::NoParts;
    walk.each(16, |walk| {
        if name == AlternativeName::NoParts {
            name = AlternativeName::Empty;
        }
        walk.each(17, |walk| {
            name = match (name, attribute(walk)?) {
                (AlternativeName::Unreadable, _) => AlternativeName::Unreadable,
                (_, Some((oid, [_, 0]))) if is_of_directory_string(oid) => AlternativeName::Unreadable,
                (_, Some(_)) => AlternativeName::Named,
                (before, None) => before,
            };
            Ok(())
        })
    })?;
    Ok(name)
}

/// Whether values of this attribute are a DirectoryString to GnuTLS (`_oid2str` in lib/x509/common.c), which refuses an empty one.
fn is_of_directory_string(oid: &[u8]) -> bool {
    match oid {
        [0x55, 0x04, number] => matches!(number, 3 | 4 | 7..=13 | 15 | 17 | 41..=44 | 65),
        // placeOfBirth, UID, and two of the jurisdiction of incorporation
        b"\x2b\x06\x01\x05\x05\x07\x09\x02"
        | b"\x09\x92\x26\x89\x93\xf2\x2c\x64\x01\x01"
        | b"\x2b\x06\x01\x04\x01\x82\x37\x3c\x02\x01\x01"
        | b"\x2b\x06\x01\x04\x01\x82\x37\x3c\x02\x01\x02" => true,
        _ => false,
    }
}

fn algorithm<'a>(walk: &mut Walk<'a>) -> Decoded<Algorithm<'a>> {
    let mut parts = (None, &[][..]);
    walk.sequence(16, |walk, end| {
        parts.0 = Some(walk.oid()?);
        if walk.at < end {
            parts.1 = walk.skip()?;
        }
        if parts.1 == b"\x05\x00" {
            parts.1 = &[];
        }
        Ok(())
    })?;
    Ok(parts)
}

fn name(walk: &mut Walk<'_>) -> Decoded<()> {
    walk.each(16, |walk| walk.each(17, |walk| attribute(walk).map(|_| ())))
}

/// Object identifier and value, a whole element; None of an empty sequence.
fn attribute<'a>(walk: &mut Walk<'a>) -> Decoded<Option<(&'a [u8], &'a [u8])>> {
    let mut parts = None;
    walk.sequence(16, |walk, _| {
        parts = Some((walk.oid()?, walk.skip()?));
        Ok(())
    })?;
    Ok(parts)
}

impl<'a> Walk<'a> {
    fn head(&self) -> Decoded<Header> {
        self.head_at(self.at)
    }

    /// The head of the element there; its content is there, and its length definite.
    fn head_at(&self, at: usize) -> Decoded<Header> {
        let rest = self.der.get(at..).ok_or(MALFORMED)?;
        let head = header(rest).ok_or(MALFORMED)?;
        let length = head.length.ok_or("a length that is not given")?;
        let fits = head.size.checked_add(length).is_some_and(|end| end <= rest.len());
        if fits { Ok(head) } else { Err("cut off, or longer than what it is in") }
    }

    /// Where the content of an explicit tag begins. libtasn1 does not check where it ends.
    fn explicit(&self, number: u32) -> Option<usize> {
        let head = self.head().ok()?;
        (head.is(CONTEXT, number) && head.constructed).then_some(self.at + head.size)
    }

    /// A SEQUENCE. The content of an empty one is not checked.
    fn sequence(&mut self, number: u32, body: impl FnOnce(&mut Self, usize) -> Decoded<()>) -> Decoded<()> {
        let head = self.head()?;
        if !head.is(UNIVERSAL, number) || !head.constructed {
            return Err(MISSING);
        }
        self.at += head.size;
        let end = self.at + head.length.unwrap_or(0);
        if self.at < end {
            body(self, end)?;
        }
        if self.at == end { Ok(()) } else { Err(TRAILING) }
    }

    /// A SEQUENCE OF or SET OF.
    fn each(&mut self, number: u32, mut body: impl FnMut(&mut Self) -> Decoded<()>) -> Decoded<()> {
        self.sequence(number, |walk, end| {
            while walk.at < end {
                body(walk)?;
            }
            Ok(())
        })
    }

    fn primitive(&mut self, class: u8, number: u32) -> Decoded<&'a [u8]> {
        let head = self.head()?;
        if !head.is(class, number) || head.constructed {
            return Err(MISSING);
        }
        self.take(head.size)?;
        self.take(head.length.unwrap_or(0))
    }

    /// A BOOLEAN, whose length is one byte in one byte.
    fn boolean(&mut self) -> Decoded<()> {
        if matches!(self.take(3)?, [_, 1, _]) { Ok(()) } else { Err(BAD_BOOLEAN) }
    }

    /// An object identifier, without its last part where that is cut off.
    fn oid(&mut self) -> Decoded<&'a [u8]> {
        let content = self.primitive(UNIVERSAL, 6)?;
        let whole = content.iter().rposition(|byte| byte & 0x80 == 0).map_or(0, |last| last + 1);
        if is_oid(content) { Ok(&content[..whole]) } else { Err(BAD_OID) }
    }

    /// Any element, whole.
    fn skip(&mut self) -> Decoded<&'a [u8]> {
        let head = self.head()?;
        self.take(head.size + head.length.unwrap_or(0))
    }

    fn take(&mut self, length: usize) -> Decoded<&'a [u8]> {
        let taken = self.der.get(self.at..).and_then(|rest| rest.get(..length)).ok_or(MALFORMED)?;
        self.at += length;
        Ok(taken)
    }
}

/// libtasn1 takes a cut-off last part, but none that begins with padding or is beyond 64 bits.
fn is_oid(content: &[u8]) -> bool {
    let mut value = 0u64;
    let mut begins = true;
    for byte in content {
        if (begins && *byte == 0x80) || value > u64::MAX >> 7 {
            return false;
        }
        value = value << 7 | u64::from(byte & 0x7f);
        begins = byte & 0x80 == 0;
        if begins {
            value = 0;
        }
    }
    !content.is_empty()
}

/// Characters of an object identifier in digits and dots.
fn oid_text_length(content: &[u8]) -> usize {
    if content.len() <= 30 {
        return 0; // at most four characters a byte
    }
    let mut value = 0u64;
    let mut length = 0;
    let digits = |value: u64| value.checked_ilog10().map_or(1, |log| log as usize + 1);
    for byte in content {
        value = value << 7 | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            length += match length {
                0 => match value {
                    0..40 => 2 + digits(value),
                    40..80 => 2 + digits(value - 40),
                    _ => 2 + digits(value - 80),
                },
                _ => 1 + digits(value),
            };
            value = 0;
        }
    }
    length
}

/// Digits and a Z, as libtasn1 wants them, in parts as `_gnutls_x509_get_time` takes them.
fn is_time(kind: u32, text: &[u8]) -> bool {
    let [digits @ .., b'Z'] = text else { return false };
    if text.len() > MAX_TIME_BYTES || !digits.iter().all(u8::is_ascii_digit) {
        return false;
    }
    let number = |digits: &[u8]| {
        digits.iter().take_while(|byte| **byte != b'Z').fold(0, |sum, byte| sum * 10 + u32::from(byte - b'0'))
    };
    let (year, rest) = match kind {
        23 if text.len() >= 10 => {
            let year = number(&text[..2]);
            (if year > 49 { year + 1900 } else { year + 2000 }, &text[2..])
        }
        24 if text.len() >= 12 => (number(&text[..4]), &text[4..]),
        _ => return false,
    };
    let part = |at: usize| rest.get(at..at + 2).map_or(0, number);
    let (month, day, hour, minute, second) = (part(0), part(2), part(4), part(6), part(8));
    // what is before 1970 is taken for the year 1970
    year < 1970 || ((1..=12).contains(&month) && (1..=31).contains(&day) && hour <= 23 && minute <= 59 && second <= 60)
}
