//! DER as a tree of elements that can be changed and encoded again.

/// An element and what is in it. Contents of OCTET STRINGs and BIT STRINGs that are elements themselves are opened too.
#[derive(Clone, Debug)]
pub(super) struct DerElement {
    pub(super) tag: u8,
    /// bytes before the inner elements: the count of unused bits of a BIT STRING
    pub(super) head: Vec<u8>,
    pub(super) content: DerContent,
    pub(super) form: Form,
}

#[derive(Clone, Debug)]
pub(super) enum DerContent {
    Bytes(Vec<u8>),
    Elements(Vec<DerElement>),
}

/// How the length is written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Form {
    Shortest,
    Padded,
    Open,
}

impl DerElement {
    pub(super) fn new(tag: u8, bytes: &[u8]) -> Self {
        Self { tag, head: Vec::new(), content: DerContent::Bytes(bytes.to_vec()), form: Form::Shortest }
    }

    pub(super) fn of(tag: u8, elements: Vec<Self>) -> Self {
        Self { tag, head: Vec::new(), content: DerContent::Elements(elements), form: Form::Shortest }
    }

    /// All elements of some bytes, if they are elements to the end.
    pub(super) fn parse_all(mut der: &[u8], depth: usize) -> Option<Vec<Self>> {
        let mut all = Vec::new();
        while !der.is_empty() {
            let (&[tag, first], rest) = der.split_first_chunk::<2>()?;
            let (length, rest) = match first {
                0..=0x7f => (usize::from(first), rest),
                0x81..=0x83 => {
                    let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                    (digits.iter().fold(0usize, |sum, byte| sum << 8 | usize::from(*byte)), rest)
                }
                _ => return None,
            };
            if tag & 0x1f == 0x1f {
                return None;
            }
            let (content, rest) = rest.split_at_checked(length)?;
            der = rest;
            let (head, inner) = match tag {
                3 if content.first() == Some(&0) => content.split_at(1),
                _ => (&[][..], content),
            };
            let opened = match tag {
                _ if depth == 0 => None,
                0x20.. if tag & 0x20 != 0 => Some(Self::parse_all(inner, depth - 1)?),
                3 | 4 if inner.len() > 1 => Self::parse_all(inner, depth - 1),
                _ => None,
            };
            all.push(match opened {
                Some(elements) => {
                    Self { tag, head: head.to_vec(), content: DerContent::Elements(elements), form: Form::Shortest }
                }
                None => Self::new(tag, content),
            });
        }
        Some(all)
    }

    pub fn parse(der: &[u8]) -> Option<Self> {
        match <[Self; 1]>::try_from(Self::parse_all(der, 20)?) {
            Ok([one]) => Some(one),
            Err(_) => None,
        }
    }

    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut inner = self.head.clone();
        match &self.content {
            DerContent::Bytes(bytes) => inner.extend_from_slice(bytes),
            DerContent::Elements(elements) => elements.iter().for_each(|element| element.encode(&mut inner)),
        }
        out.push(self.tag);
        match (self.form, inner.len()) {
            (Form::Open, _) => {
                out.push(0x80);
                inner.extend_from_slice(&[0, 0]);
            }
            (Form::Padded, length) => out.extend_from_slice(&[&[0x84], &(length as u32).to_be_bytes()[..]].concat()),
            (_, length @ 0..0x80) => out.push(length as u8),
            (_, length) => {
                let bytes = (length as u32).to_be_bytes();
                let significant = &bytes[bytes.iter().position(|byte| *byte != 0).unwrap_or(3)..];
                out.push(0x80 | significant.len() as u8);
                out.extend_from_slice(significant);
            }
        }
        out.extend_from_slice(&inner);
    }

    pub(super) fn count(&self) -> usize {
        1 + match &self.content {
            DerContent::Bytes(_) => 0,
            DerContent::Elements(elements) => elements.iter().map(Self::count).sum(),
        }
    }

    /// The n-th element in the order of their heads.
    pub(super) fn nth(&mut self, n: &mut usize) -> Option<&mut Self> {
        if *n == 0 {
            return Some(self);
        }
        *n -= 1;
        let DerContent::Elements(elements) = &mut self.content else { return None };
        elements.iter_mut().find_map(|element| element.nth(n))
    }

    pub(super) fn elements(&mut self) -> Option<&mut Vec<Self>> {
        match &mut self.content {
            DerContent::Elements(elements) => Some(elements),
            DerContent::Bytes(_) => None,
        }
    }

    pub(super) fn path(&mut self, path: &[usize]) -> Option<&mut Self> {
        match path {
            [] => Some(self),
            [first, rest @ ..] => self.elements()?.get_mut(*first)?.path(rest),
        }
    }

    /// The list of extensions.
    pub(super) fn extensions(&mut self) -> Option<&mut Vec<Self>> {
        let signed = self.path(&[0])?.elements()?;
        signed.iter_mut().find(|element| element.tag == 0xa3)?.path(&[0])?.elements()
    }
}
