//! The bytes that Go still has to read, as `cryptobyte.String` gives them out.

use std::borrow::Cow;

use crate::certificate::{
    der::{is_integer, is_oid, split},
    readers::fault::{BAD_BITS, BAD_BOOLEAN, BAD_OID, Decoded, PADDED},
};

const CUT: &str = "cut off, not strict DER, or of another type";

/// What is left of an element's content.
#[derive(Clone, Copy)]
pub(super) struct Text<'a>(pub(super) &'a [u8]);

impl<'a> Text<'a> {
    pub(super) fn any(&mut self) -> Decoded<(u8, &'a [u8])> {
        let (tag, content, rest) = split(self.0).ok_or(CUT)?;
        self.0 = rest;
        Ok((tag, content))
    }

    /// The next element, whole.
    pub(super) fn element(&mut self) -> Decoded<&'a [u8]> {
        let all = self.0;
        self.any()?;
        Ok(&all[..all.len() - self.0.len()])
    }

    pub(super) fn peek(&self, tag: u8) -> bool {
        self.0.first() == Some(&tag)
    }

    pub(super) fn read(&mut self, tag: u8) -> Decoded<Text<'a>> {
        match self.any()? {
            (found, content) if found == tag => Ok(Text(content)),
            _ => Err(CUT),
        }
    }

    pub(super) fn skip_optional(&mut self, tag: u8) -> Decoded<()> {
        if self.peek(tag) { self.read(tag).map(|_| ()) } else { Ok(()) }
    }

    pub(super) fn sequence(&mut self) -> Decoded<Text<'a>> {
        self.read(0x30)
    }

    /// The content of an INTEGER, not empty.
    pub(super) fn integer(&mut self) -> Decoded<&'a [u8]> {
        let content = self.read(0x02)?.0;
        if is_integer(content) { Ok(content) } else { Err(PADDED) }
    }

    /// A number of 64 bits with its sign.
    pub(super) fn small_integer(&mut self, tag: u8) -> Decoded<()> {
        let content = self.read(tag)?.0;
        if is_integer(content) && content.len() <= 8 { Ok(()) } else { Err(PADDED) }
    }

    pub(super) fn boolean(&mut self) -> Decoded<bool> {
        match self.read(0x01)?.0 {
            [0] => Ok(false),
            [0xff] => Ok(true),
            [_] => Err("a truth value that is neither of the two"),
            _ => Err(BAD_BOOLEAN),
        }
    }

    /// Parts beyond 31 bits it does not take.
    pub(super) fn oid(&mut self) -> Decoded<&'a [u8]> {
        let content = self.read(0x06)?.0;
        let small = content.split_inclusive(|byte| byte & 0x80 == 0).all(|part| match part {
            [first, _, _, _, _] => *first <= 0x87,
            _ => part.len() < 5,
        });
        if is_oid(content) && small { Ok(content) } else { Err(BAD_OID) }
    }

    /// The bytes of a BIT STRING, aligned to the right; unused bits must be zero.
    pub(super) fn bits(&mut self) -> Decoded<Cow<'a, [u8]>> {
        let [unused @ 0..=7, bytes @ ..] = self.read(0x03)?.0 else { return Err(BAD_BITS) };
        let mask = (1u8 << unused) - 1;
        match bytes.last() {
            None if *unused > 0 => Err(BAD_BITS),
            Some(last) if last & mask != 0 => Err(BAD_BITS),
            _ if *unused == 0 => Ok(bytes.into()),
            _ => {
                let before = std::iter::once(&0).chain(bytes);
                Ok(before.zip(bytes).map(|(high, low)| (u16::from_be_bytes([*high, *low]) >> unused) as u8).collect())
            }
        }
    }
}
