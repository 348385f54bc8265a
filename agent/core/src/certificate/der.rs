//! Encoded elements (X.690): the one reader of their heads, for everything that asks more of an encoding than the parser does.
//!
//! [`header`] reads BER in every form, since some readers of certificates do. [`element`] takes the forms that are met in certificates.
//! [`split`] takes DER alone. What each reader demands of a certificate is in [`readers`](crate::certificate::readers).

/// Bytes of a length beyond its first one that [`element`] takes: lengths of up to 4 GiB.
const MAX_LENGTH_DIGITS: usize = 4;

/// The class of tags of X.690 itself.
pub(crate) const UNIVERSAL: u8 = 0;
/// The class of tags whose meaning depends on the place.
pub(crate) const CONTEXT: u8 = 2;

/// The head of an element in BER.
#[derive(Clone, Copy)]
pub(crate) struct Header {
    /// [`UNIVERSAL`], 1 for application, [`CONTEXT`], or 3 for private.
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
    let (length, rest) = length(rest)?;
    let size = ber.len() - rest.len();
    Some(Header { class: first >> 6, constructed: first & 0x20 != 0, number, size, length })
}

/// A length, None if it is left open, and what follows it.
fn length(ber: &[u8]) -> Option<(Option<usize>, &[u8])> {
    let (&first, rest) = ber.split_first()?;
    match first {
        0..=0x7f => Some((Some(usize::from(first)), rest)),
        0x80 => Some((None, rest)),
        _ => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            let length =
                digits.iter().try_fold(0usize, |sum, byte| Some(sum.checked_mul(256)? | usize::from(*byte)))?;
            Some((Some(length), rest))
        }
    }
}

/// An element whose tag is one byte and whose length is given in at most five, in its shortest form or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Element<'a> {
    pub(crate) tag: u8,
    pub(crate) content: &'a [u8],
    /// With its tag and length.
    pub(crate) whole: &'a [u8],
    /// What follows it.
    pub(crate) rest: &'a [u8],
}

/// Reads the first element; None if it is cut off or of another form.
pub(crate) fn element(ber: &[u8]) -> Option<Element<'_>> {
    let (tag, length, content) = short_head(ber)?;
    let (content, rest) = content.split_at_checked(length?)?;
    Some(Element { tag, content, whole: &ber[..ber.len() - rest.len()], rest })
}

/// What follows the first element; None if that is not all there.
pub(crate) fn after(ber: &[u8]) -> Option<&[u8]> {
    element(ber).map(|element| element.rest)
}

/// Tag and content of the first element as far as it is there; a length that is left open goes to the end.
pub(crate) fn element_begun(ber: &[u8]) -> Option<(u8, &[u8])> {
    let (tag, length, content) = short_head(ber)?;
    Some((tag, length.and_then(|length| content.get(..length)).unwrap_or(content)))
}

/// The tag of one byte, the length in up to five, and everything behind.
fn short_head(ber: &[u8]) -> Option<(u8, Option<usize>, &[u8])> {
    let (&tag, rest) = ber.split_first()?;
    let digits = rest.first()?.checked_sub(0x80).map_or(0, usize::from);
    let (length, content) = length(rest)?;
    (digits <= MAX_LENGTH_DIGITS).then_some((tag, length, content))
}

/// The elements in some bytes, as [`element`] takes them; they end where one is cut off.
#[derive(Debug, Clone)]
pub(crate) struct Elements<'a>(&'a [u8]);

/// The elements in some bytes.
pub(crate) fn elements(ber: &[u8]) -> Elements<'_> {
    Elements(ber)
}

impl<'a> Elements<'a> {
    /// Whether every byte that is left belongs to an element.
    pub(crate) fn are_whole(mut self) -> bool {
        self.by_ref().for_each(drop);
        self.0.is_empty()
    }

    /// The next element if it has this tag; else it stays the next.
    pub(crate) fn next_if(&mut self, tag: u8) -> Option<Element<'a>> {
        let next = element(self.0).filter(|next| next.tag == tag)?;
        self.0 = next.rest;
        Some(next)
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = Element<'a>;

    fn next(&mut self) -> Option<Element<'a>> {
        let next = element(self.0)?;
        self.0 = next.rest;
        Some(next)
    }
}

/// The content of the first element if it has this tag.
pub(crate) fn content_of(tag: u8, ber: &[u8]) -> Option<&[u8]> {
    element(ber).filter(|element| element.tag == tag).map(|element| element.content)
}

/// Tag, content and what follows the first element in DER; None if it is cut off, or its tag or length is not in its shortest form.
pub(crate) fn split(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let Element { tag, content, whole, rest } = element(der)?;
    let is_shortest = whole.len() - content.len() == 1 + encoded_length(content.len()).len();
    (tag & 0x1f != 0x1f && is_shortest).then_some((tag, content, rest))
}

/// An element in DER.
pub(crate) fn encode(tag: u8, content: &[u8]) -> Vec<u8> {
    [&[tag], encoded_length(content.len()).as_slice(), content].concat()
}

fn encoded_length(length: usize) -> Vec<u8> {
    if let Some(short) = u8::try_from(length).ok().filter(|length| *length < 0x80) {
        return vec![short];
    }
    let digits: Vec<u8> = length.to_be_bytes().into_iter().skip_while(|byte| *byte == 0).collect();
    [&[0x80 | digits.len() as u8], digits.as_slice()].concat()
}

/// An INTEGER's content is in its shortest form.
pub(crate) fn is_integer(content: &[u8]) -> bool {
    match content {
        [] => false,
        [_] => true,
        [0, second, ..] => second & 0x80 != 0,
        [0xff, second, ..] => second & 0x80 == 0,
        _ => true,
    }
}

/// An OBJECT IDENTIFIER's content: each part is complete and in its shortest form.
pub(crate) fn is_oid(content: &[u8]) -> bool {
    content.last().is_some_and(|last| last & 0x80 == 0)
        && content.iter().enumerate().all(|(at, byte)| *byte != 0x80 || (at > 0 && content[at - 1] & 0x80 != 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_of_reading_takes_its_forms() {
        for (ber, by_header, by_element, by_split) in [
            (&b"\x04\x02ab!"[..], true, true, true),
            (b"\x04\x81\x02ab!", true, true, false),
            (b"\x04\x85\0\0\0\0\x02ab!", true, false, false),
            (b"\x24\x80\x04\x01a\0\0", true, false, false),
            (b"\x1f\x02ab!", true, true, false),
            (b"\x04\x03ab", true, false, false),
            (b"\x04\x82\x02", false, false, false),
            (b"\x04", false, false, false),
            (b"", false, false, false),
        ] {
            assert_eq!(header(ber).is_some(), by_header, "{ber:x?}");
            assert_eq!(element(ber).is_some(), by_element, "{ber:x?}");
            assert_eq!(split(ber).is_some(), by_split, "{ber:x?}");
        }
        assert_eq!(split(b"\x04\x02ab!"), Some((4, &b"ab"[..], &b"!"[..])));
        assert_eq!(element_begun(b"\x30\x09ab"), Some((0x30, &b"ab"[..])));
        assert_eq!(element_begun(b"\x30\x80ab"), Some((0x30, &b"ab"[..])));
    }

    #[test]
    fn what_is_encoded_is_read_back() {
        for length in [0, 1, 0x7f, 0x80, 0xff, 0x100, 0xffff, 0x1_0000] {
            let content = vec![7; length];
            let der = encode(0x04, &content);
            assert_eq!(split(&der), Some((0x04, content.as_slice(), &[][..])), "{length}");
        }
    }

    #[test]
    fn elements_end_where_one_is_cut_off() {
        let whole = b"\x02\x01a\x04\x01b";
        let tags = |bytes| elements(bytes).map(|element| element.tag).collect::<Vec<_>>();
        assert_eq!(tags(whole), [2, 4]);
        assert_eq!(tags(&whole[..5]), [2]);
        assert!(elements(whole).are_whole() && !elements(&whole[..5]).are_whole() && elements(b"").are_whole());
        let mut fields = elements(whole);
        assert!(fields.next_if(4).is_none() && fields.next_if(2).is_some() && fields.next_if(4).is_some());
    }
}
