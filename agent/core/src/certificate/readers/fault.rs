//! What a reader finds wrong with a certificate.

use std::fmt;

/// Where a certificate is wrong, and what is wrong there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ReaderFault {
    place: &'static str,
    what: &'static str,
}

impl fmt::Display for ReaderFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

/// What a step through an encoding gives, or what is wrong there.
pub(super) type Decoded<T> = Result<T, &'static str>;
/// Whether a certificate can be decoded.
pub(super) type Checked = Result<(), ReaderFault>;

/// Adds to what is wrong the place where it is wrong.
pub(super) trait At<T> {
    fn at(self, place: &'static str) -> Result<T, ReaderFault>;
}

impl<T> At<T> for Result<T, &'static str> {
    fn at(self, place: &'static str) -> Result<T, ReaderFault> {
        self.map_err(|what| ReaderFault { place, what })
    }
}

impl<T> At<T> for Option<T> {
    fn at(self, place: &'static str) -> Result<T, ReaderFault> {
        self.ok_or(ReaderFault { place, what: MALFORMED })
    }
}

pub(super) const MALFORMED: &str = "damaged or not encoded as it must be";
pub(super) const MISSING: &str = "missing or of another type";
pub(super) const PADDED: &str = "a number that is empty or not in its shortest form";
pub(super) const BAD_OID: &str = "an object identifier that is empty, cut off or not in its shortest form";
pub(super) const BAD_BITS: &str = "a bit string without its count of unused bits, or with a wrong one";
pub(super) const BAD_BOOLEAN: &str = "a truth value of another length than one byte";
pub(super) const BAD_NULL: &str = "a NULL with content";
pub(super) const BAD_TEXT: &str = "a text whose bytes do not fit its type";
pub(super) const OTHER_TYPE: &str = "a value of a type that is none of texts";
pub(super) const TRAILING: &str = "more than belongs there";
