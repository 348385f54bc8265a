//! Blocks that are known to be in order, so that none of them is decoded a second time.

use std::collections::BTreeMap;

use data_encoding::BASE64;
use memchr::memmem;

use super::blanks::without_blanks;
use crate::certificate::fingerprint::{Fingerprint, content_digest};

const FIRST: &[u8] = b"-----BEGIN CERTIFICATE-----\n";
const LAST: &[u8] = b"-----END CERTIFICATE-----\n";
const DASHES: &[u8] = b"-----";

/// Certificates that OpenSSL, GnuTLS and Go all read, by the SHA-256 of the whole text of their block.
///
/// What the three make of such a text that begins a line follows from its bytes alone: nothing before or behind it matters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KnownBlocks(BTreeMap<[u8; 32], Fingerprint>);

/// A block of a file that is known to be in order.
pub(super) struct KnownBlock<'a> {
    /// From its BEGIN to behind its END line.
    pub(super) text: &'a [u8],
    digest: [u8; 32],
    pub(super) fingerprint: Fingerprint,
}

impl KnownBlock<'_> {
    /// The certificate, DER. None for no block that was known: all three readers have decoded it.
    pub(super) fn der(&self) -> Option<Vec<u8>> {
        let body = self.text.get(FIRST.len()..self.text.len() - LAST.len())?;
        BASE64.decode(&without_blanks(body, |byte| byte.is_ascii_whitespace())).ok()
    }
}

impl KnownBlocks {
    /// The known block that begins here.
    pub(super) fn at<'a>(&self, bytes: &'a [u8]) -> Option<KnownBlock<'a>> {
        if self.0.is_empty() {
            return None;
        }
        let text = whole(bytes)?;
        let digest = content_digest(text);
        self.0.get(&digest).map(|fingerprint| KnownBlock { text, digest, fingerprint: *fingerprint })
    }

    /// Takes over one that was known before.
    pub(super) fn keep(&mut self, block: &KnownBlock<'_>) {
        self.0.insert(block.digest, block.fingerprint);
    }

    /// Takes a block that all three read. One in another form than most is left out, and decoded each time.
    pub(super) fn add(&mut self, text: &[u8], fingerprint: Fingerprint) {
        if whole(text) == Some(text) {
            self.0.insert(content_digest(text), fingerprint);
        }
    }
}

/// The text from BEGIN to behind the END line, if it begins here and no other dashes are in it.
fn whole(bytes: &[u8]) -> Option<&[u8]> {
    let body = bytes.strip_prefix(FIRST)?;
    let dashes = memmem::find(body, DASHES)?;
    body[dashes..].starts_with(LAST).then(|| &bytes[..FIRST.len() + dashes + LAST.len()])
}
