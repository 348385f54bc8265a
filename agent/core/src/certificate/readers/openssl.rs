//! OpenSSL: what `d2i_X509`, `d2i_X509_AUX` and `d2i_X509_CRL` decode (crypto/asn1/tasn_dec.c, crypto/x509/x_name.c).
//!
//! It reads BER: it accepts other lengths than DER's, constructed texts and end marks. It decodes the outer structure only, whose
//! content must be right. Extensions and keys are decoded when they are used, and a fault in one harms no other certificate.

use std::borrow::Cow;

use super::fault::{
    At, BAD_BITS, BAD_BOOLEAN, BAD_NULL, BAD_OID, BAD_TEXT, Checked, Decoded, MALFORMED, MISSING, OTHER_TYPE, PADDED,
    ReaderFault, TRAILING,
};
use crate::certificate::der::{CONTEXT, Header, UNIVERSAL, header, is_integer, is_oid};

/// Levels of texts within texts (`ASN1_MAX_STRING_NEST`).
const MAX_TEXT_DEPTH: usize = 5;
/// Bytes of an encoded name (`X509_NAME_MAX`).
const MAX_NAME_BYTES: usize = 1 << 20;
/// Bytes of an object identifier that can be shown as text, as is done with a key's (RFC 2578, 3.5).
const MAX_KEY_OID_BYTES: usize = 586;

/// The elements that are left in an element.
#[derive(Clone, Copy)]
struct Fields<'a> {
    rest: &'a [u8],
    /// They go on to an end mark.
    open: bool,
}

pub(crate) fn certificate(der: &[u8]) -> Checked {
    consumed(der).map(|_| ())
}

/// Why OpenSSL does not decode a `TRUSTED CERTIFICATE`: a certificate, and perhaps settings behind it.
pub fn trusted_fault(der: &[u8]) -> Option<String> {
    let settings = |rest: &[u8]| -> Checked {
        let mut all = Fields { rest, open: false };
        all.constructed(UNIVERSAL, 16, |all| {
            if all.next_is(UNIVERSAL, 16)? {
                all.each(UNIVERSAL, 16, Fields::oid)?;
            }
            if all.next_is(CONTEXT, 0)? {
                all.each(CONTEXT, 0, Fields::oid)?;
            }
            if all.next_is(UNIVERSAL, 12)? {
                all.text(UNIVERSAL, 12)?;
            }
            if all.next_is(UNIVERSAL, 4)? {
                all.text(UNIVERSAL, 4)?;
            }
            if all.next_is(CONTEXT, 1)? { all.each(CONTEXT, 1, |all| algorithm(all).map(|_| ())) } else { Ok(()) }
        })
        .at("trust settings")
    };
    let checked = consumed(der).and_then(|at| if at < der.len() { settings(&der[at..]) } else { Ok(()) });
    checked.err().map(|fault| fault.to_string())
}

/// Why OpenSSL does not decode a revocation list.
pub fn crl_fault(der: &[u8]) -> Option<String> {
    let mut all = Fields { rest: der, open: false };
    let list = |list: &mut Fields<'_>| {
        if list.next_is(UNIVERSAL, 2)? {
            list.integer()?;
        }
        algorithm(list)?;
        name(list)?;
        time(list)?;
        if list.next_is(UNIVERSAL, 23)? || list.next_is(UNIVERSAL, 24)? {
            time(list)?;
        }
        if list.next_is(UNIVERSAL, 16)? {
            list.each(UNIVERSAL, 16, |all| {
                all.constructed(UNIVERSAL, 16, |entry| {
                    entry.integer()?;
                    time(entry)?;
                    if entry.next_is(UNIVERSAL, 16)? { entry.each(UNIVERSAL, 16, extension) } else { Ok(()) }
                })
            })?;
        }
        if list.next_is(CONTEXT, 0)? {
            list.constructed(CONTEXT, 0, |tagged| tagged.each(UNIVERSAL, 16, extension))?;
        }
        Ok(())
    };
    let checked = all.constructed(UNIVERSAL, 16, |signed| {
        signed.constructed(UNIVERSAL, 16, list)?;
        algorithm(signed)?;
        signed.bits(UNIVERSAL, 3)
    });
    checked.err().map(str::to_owned)
}

/// Decodes a certificate at the front of some bytes, and returns its length.
fn consumed(der: &[u8]) -> Result<usize, ReaderFault> {
    let mut all = Fields { rest: der, open: false };
    let mut place = "certificate";
    let decoded = all.constructed(UNIVERSAL, 16, |certificate| {
        certificate.constructed(UNIVERSAL, 16, |signed| {
            place = "version";
            if signed.next_is(CONTEXT, 0)? {
                signed.constructed(CONTEXT, 0, Fields::integer)?;
            }
            place = "serial number";
            signed.integer()?;
            place = "signature algorithm";
            algorithm(signed)?;
            place = "issuer";
            name(signed)?;
            place = "validity";
            signed.constructed(UNIVERSAL, 16, |validity| {
                time(validity)?;
                time(validity)
            })?;
            place = "subject";
            name(signed)?;
            place = "public key";
            signed.constructed(UNIVERSAL, 16, |key| {
                if algorithm(key)? > MAX_KEY_OID_BYTES {
                    return Err("an object identifier that is too long");
                }
                key.bits(UNIVERSAL, 3)
            })?;
            place = "unique ids";
            for number in [1, 2] {
                if signed.next_is(CONTEXT, number)? {
                    signed.bits(CONTEXT, number)?;
                }
            }
            place = "extensions";
            if signed.next_is(CONTEXT, 3)? {
                signed.constructed(CONTEXT, 3, |tagged| tagged.each(UNIVERSAL, 16, extension))?;
            }
            place = "end of the signed part";
            Ok(())
        })?;
        place = "signature algorithm behind the signed part";
        algorithm(certificate)?;
        place = "signature";
        certificate.bits(UNIVERSAL, 3)
    });
    decoded.at(place)?;
    Ok(der.len() - all.rest.len())
}

/// Returns the length of its object identifier.
fn algorithm(fields: &mut Fields<'_>) -> Decoded<usize> {
    let mut length = 0;
    fields.constructed(UNIVERSAL, 16, |algorithm| {
        let (_, content) = algorithm.primitive(UNIVERSAL, 6)?;
        if !is_oid(content) {
            return Err(BAD_OID);
        }
        length = content.len();
        if algorithm.more()? { algorithm.anything() } else { Ok(()) }
    })?;
    Ok(length)
}

fn name(fields: &mut Fields<'_>) -> Decoded<()> {
    let before = fields.rest.len();
    fields.each(UNIVERSAL, 16, |rdns| {
        rdns.each(UNIVERSAL, 17, |attributes| {
            attributes.constructed(UNIVERSAL, 16, |attribute| {
                attribute.oid()?;
                attribute_value(attribute)
            })
        })
    })?;
    if before - fields.rest.len() > MAX_NAME_BYTES { Err("it is longer than 1 MiB") } else { Ok(()) }
}

/// An attribute's value: a type of `B_ASN1_PRINTABLE`. Texts are converted to UTF-8 for the canonical form.
fn attribute_value(fields: &mut Fields<'_>) -> Decoded<()> {
    if !fields.more()? {
        return Err(MISSING);
    }
    let head = fields.head()?;
    match (head.class, head.number) {
        (UNIVERSAL, 16) => {
            if !head.constructed {
                return Err(MALFORMED);
            }
            fields.skip()
        }
        (UNIVERSAL, 3) => fields.bits(UNIVERSAL, 3),
        (UNIVERSAL, number @ (7..=9 | 11..=15 | 18..=20 | 22 | 28..=30)) => {
            let content = fields.text(UNIVERSAL, number)?;
            let fits = match number {
                12 => is_utf8(&content),
                28 => is_unicode(&content, 4),
                30 => is_unicode(&content, 2),
                _ => true,
            };
            if fits { Ok(()) } else { Err(BAD_TEXT) }
        }
        _ => Err(OTHER_TYPE),
    }
}

fn is_utf8(text: &[u8]) -> bool {
    std::str::from_utf8(text).is_ok()
}

/// Whether a text of big-endian characters of this width can be converted: surrogates have no UTF-8.
fn is_unicode(text: &[u8], width: usize) -> bool {
    text.chunks(width).all(|bytes| {
        let point = bytes.iter().fold(0u32, |sum, byte| sum << 8 | u32::from(*byte));
        bytes.len() == width && char::from_u32(point).is_some()
    })
}

fn time(fields: &mut Fields<'_>) -> Decoded<()> {
    if !fields.more()? {
        return Err(MISSING);
    }
    match fields.head()? {
        Header { class: UNIVERSAL, number: number @ (23 | 24), .. } => {
            let text = fields.text(UNIVERSAL, number)?;
            if is_long_enough(number, &text) { Ok(()) } else { Err(SHORT_TIME) }
        }
        _ => Err("a time of another type"),
    }
}

/// OpenSSL 3.0.19, not 3.0.22, wants a byte after a length that is written in several bytes, be there content or not.
pub(crate) const LONG_EMPTY: &str = "no content, and a length of several bytes at the end of what it is in";

/// Whether the length in a header of this size is written in more than one byte.
fn is_length_long(bytes: &[u8], size: usize) -> bool {
    let high = bytes.first().is_some_and(|first| first & 0x1f == 0x1f);
    let more = if high { 1 + bytes[1..].iter().take_while(|byte| *byte & 0x80 != 0).count() } else { 0 };
    size > 1 + more + 1
}

const SHORT_TIME: &str = "a time that is too short";

/// What OpenSSL wants of a time since 3.5: YYMMDDhhmmssZ or YYYYMMDDhhmmssZ, at least in length.
fn is_long_enough(number: u32, time: &[u8]) -> bool {
    time.len() >= if number == 23 { 13 } else { 15 }
}

fn extension(fields: &mut Fields<'_>) -> Decoded<()> {
    fields.constructed(UNIVERSAL, 16, |extension| {
        extension.oid()?;
        if extension.next_is(UNIVERSAL, 1)? && extension.primitive(UNIVERSAL, 1)?.1.len() != 1 {
            return Err(BAD_BOOLEAN);
        }
        extension.text(UNIVERSAL, 4).map(|_| ())
    })
}

impl<'a> Fields<'a> {
    /// Whether an element follows. An end mark ends what is open, and stays; it is wrong elsewhere.
    fn more(&self) -> Decoded<bool> {
        match (self.rest, self.open) {
            ([], _) => Ok(false),
            ([0, 0, ..], open) => {
                if open {
                    Ok(false)
                } else {
                    Err(MALFORMED)
                }
            }
            _ => Ok(true),
        }
    }

    /// The head of the next element, whose content is there.
    fn head(&self) -> Decoded<Header> {
        let head = header(self.rest).ok_or(MALFORMED)?;
        let fits = match head.length {
            Some(length) => head.size.checked_add(length).is_some_and(|end| end <= self.rest.len()),
            None => head.constructed,
        };
        if !fits {
            return Err("cut off, or longer than what it is in");
        }
        if head.size == self.rest.len() && head.length == Some(0) && is_length_long(self.rest, head.size) {
            return Err(LONG_EMPTY);
        }
        Ok(head)
    }

    fn next_is(&self, class: u8, number: u32) -> Decoded<bool> {
        Ok(self.more()? && self.head()?.is(class, number))
    }

    /// Enters the next element, which must be a constructed one of this tag, and leaves it at its end.
    fn constructed(
        &mut self,
        class: u8,
        number: u32,
        body: impl FnOnce(&mut Fields<'a>) -> Decoded<()>,
    ) -> Decoded<()> {
        let head = self.expect(class, number)?;
        if !head.constructed {
            return Err(MALFORMED);
        }
        self.enter(head, body)
    }

    fn enter(&mut self, head: Header, body: impl FnOnce(&mut Fields<'a>) -> Decoded<()>) -> Decoded<()> {
        let content = &self.rest[head.size..];
        let (content, after) = match head.length {
            Some(length) => content.split_at(length),
            None => (content, &[][..]),
        };
        let mut inner = Fields { rest: content, open: head.length.is_none() };
        body(&mut inner)?;
        self.rest = match (inner.open, inner.rest) {
            (false, []) => after,
            (true, [0, 0, rest @ ..]) => rest,
            _ => return Err(TRAILING),
        };
        Ok(())
    }

    /// A SEQUENCE OF or SET OF, marked as constructed or not.
    fn each(&mut self, class: u8, number: u32, mut body: impl FnMut(&mut Fields<'a>) -> Decoded<()>) -> Decoded<()> {
        let head = self.expect(class, number)?;
        self.enter(head, |all| {
            while all.more()? {
                body(all)?;
            }
            Ok(())
        })
    }

    /// The head of the next element, which must have this tag.
    fn expect(&self, class: u8, number: u32) -> Decoded<Header> {
        if !self.more()? {
            return Err(MISSING);
        }
        let head = self.head()?;
        if head.is(class, number) { Ok(head) } else { Err(MISSING) }
    }

    /// A primitive element that has no constructed form.
    fn primitive(&mut self, class: u8, number: u32) -> Decoded<(Header, &'a [u8])> {
        let head = self.expect(class, number)?;
        let (false, Some(length)) = (head.constructed, head.length) else { return Err(MALFORMED) };
        let (content, after) = self.rest[head.size..].split_at(length);
        self.rest = after;
        Ok((head, content))
    }

    /// A text, or anything else that may come in pieces.
    fn text(&mut self, class: u8, number: u32) -> Decoded<Cow<'a, [u8]>> {
        let head = self.expect(class, number)?;
        if !head.constructed {
            return self.primitive(class, number).map(|(_, content)| content.into());
        }
        let mut all = Vec::new();
        self.enter(head, |pieces| pieces.collect(&mut all, 0))?;
        Ok(all.into())
    }

    fn collect(&mut self, all: &mut Vec<u8>, depth: usize) -> Decoded<()> {
        while self.more()? {
            let head = self.head()?;
            if head.constructed {
                if depth >= MAX_TEXT_DEPTH {
                    return Err("a text in too many pieces");
                }
                self.enter(head, |pieces| pieces.collect(all, depth + 1))?;
            } else {
                let (content, after) = self.rest[head.size..].split_at(head.length.unwrap_or(0));
                all.extend_from_slice(content);
                self.rest = after;
            }
        }
        Ok(())
    }

    /// Passes over an element, whatever is in it.
    fn skip(&mut self) -> Decoded<()> {
        let mut open = 0u32;
        loop {
            if open > 0 && self.rest.starts_with(&[0, 0]) {
                self.rest = &self.rest[2..];
                open -= 1;
            } else {
                let head = self.head()?;
                match head.length {
                    Some(length) => self.rest = &self.rest[head.size + length..],
                    None => {
                        self.rest = &self.rest[head.size..];
                        open += 1;
                    }
                }
            }
            if open == 0 {
                return Ok(());
            }
        }
    }

    fn integer(&mut self) -> Decoded<()> {
        if is_integer(self.primitive(UNIVERSAL, 2)?.1) { Ok(()) } else { Err(PADDED) }
    }

    fn oid(&mut self) -> Decoded<()> {
        if is_oid(self.primitive(UNIVERSAL, 6)?.1) { Ok(()) } else { Err(BAD_OID) }
    }

    fn bits(&mut self, class: u8, number: u32) -> Decoded<()> {
        match self.text(class, number)?.first() {
            Some(0..=7) => Ok(()),
            _ => Err(BAD_BITS),
        }
    }

    /// An `ASN1_ANY`: universal types are checked, the content of sequences and sets is not.
    fn anything(&mut self) -> Decoded<()> {
        let head = self.head()?;
        match (head.class, head.number) {
            (UNIVERSAL, 16 | 17) if !head.constructed => Err(MALFORMED),
            (UNIVERSAL, 1) => {
                if self.primitive(UNIVERSAL, 1)?.1.len() == 1 {
                    Ok(())
                } else {
                    Err(BAD_BOOLEAN)
                }
            }
            (UNIVERSAL, number @ (2 | 10)) => {
                if is_integer(self.primitive(UNIVERSAL, number)?.1) {
                    Ok(())
                } else {
                    Err(PADDED)
                }
            }
            (UNIVERSAL, 3) => self.bits(UNIVERSAL, 3),
            (UNIVERSAL, 5) => {
                if self.primitive(UNIVERSAL, 5)?.1.is_empty() {
                    Ok(())
                } else {
                    Err(BAD_NULL)
                }
            }
            (UNIVERSAL, 6) => self.oid(),
            (UNIVERSAL, 16 | 17) => self.skip(),
            (UNIVERSAL, number) => {
                let content = self.text(UNIVERSAL, number)?;
                match number {
                    30 if !content.len().is_multiple_of(2) => Err(BAD_TEXT),
                    28 if !content.len().is_multiple_of(4) => Err(BAD_TEXT),
                    23 | 24 if !is_long_enough(number, &content) => Err(SHORT_TIME),
                    _ => Ok(()),
                }
            }
            _ => self.skip(),
        }
    }
}
