//! A strict scanner for certificate files: PEM (RFC 7468) or one DER certificate.
//!
//! In: the bytes of a file. Out: the DER of each block that is beyond doubt, and for everything else a [`Fault`] with a
//! reason and a line. Scanning never fails as a whole and never guesses: a block that one consumer reads and another one
//! drops (facts E.1) is a fault here, so that what gets installed is trusted by all of them or by none.
//!
//! The rule behind the scanner: every `-----BEGIN` in the file ends as exactly one block, one fault, or one note.
//!
//! A sentence or comment that mentions a BEGIN is a note, if no block follows it: RFC 7468 allows any text between blocks.
//!
//! A private key anywhere makes the whole file a single fault, and nothing of the file is returned.

mod block;
mod boundary;
mod content;
mod encode;
mod fault;
mod kinds;
mod scan;
mod secret;
mod text;

pub use content::{Block, Label, MAX_CERTIFICATES, MAX_FAULTS, MAX_FILE_BYTES, MAX_NOTES, Scan};
pub use encode::encode;
pub use fault::{Fault, RejectReason};
pub use scan::scan;
pub(crate) use text::lines;

#[cfg(test)]
mod people_tests;
#[cfg(test)]
mod tests;
