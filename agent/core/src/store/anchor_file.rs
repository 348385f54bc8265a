//! The names of our files in an anchor directory.

use crate::{certificate::fingerprint::Fingerprint, store::TrustStore};

/// The beginning of the names of all our files on a host.
pub const PREFIX: &str = "nodetrust-";

/// The name of an anchor's file.
pub fn file_name(store: &TrustStore, fingerprint: &Fingerprint) -> String {
    let dot = if store.extension.is_empty() { "" } else { "." };
    [PREFIX, &fingerprint.fp16(), dot, store.extension].concat()
}

/// Whether a name in the anchor directory is one that we give: anything else is not ours, whatever it begins with.
pub fn is_own_name(store: &TrustStore, name: &str) -> bool {
    let digits = name.strip_prefix(PREFIX).and_then(|rest| match store.extension {
        "" => Some(rest),
        extension => rest.strip_suffix(extension)?.strip_suffix('.'),
    });
    digits.is_some_and(|digits| {
        digits.len() == 16 && digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    })
}

/// What Debian's tool calls the link to a file, without the extension.
pub fn link_stem(name: &str) -> String {
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
    stem.chars()
        .map(|c| match c {
            ' ' | ',' => '_',
            '(' | ')' => '=',
            c => c,
        })
        .collect()
}

#[cfg(test)]
#[path = "anchor_file_tests.rs"]
mod tests;
