//! Comments: which set a text holds, and whose certificates these are. A name in a certificate is anybody's text, and some formats
//! take ASCII only, so everything else is escaped.

use std::fmt::Write as _;

use super::FirstBoot;
use crate::{certificate::anchor::Anchor, text::plural, time::Time};

/// The line that names the set.
pub(super) fn set_line(set: &FirstBoot<'_>) -> String {
    format!("nodetrust: {}, set {}", plural(set.anchors.len(), "anchor"), set.digest)
}

/// The line that names an anchor.
pub(super) fn anchor_line(anchor: &Anchor) -> String {
    let end = Time(anchor.not_after).date();
    format!("{}  {}  until {end}", anchor.fingerprint.fp16(), ascii(&anchor.subject.common))
}

/// The lines that name the set and its anchors, each behind `# `.
pub(super) fn head(set: &FirstBoot<'_>) -> String {
    let anchors = set.anchors.iter().map(|anchor| format!("# {}\n", anchor_line(anchor)));
    std::iter::once(format!("# {}\n", set_line(set))).chain(anchors).collect()
}

/// A text in printable ASCII. Braces become question marks: Cluster API sends cloud-init's files through Jinja.
fn ascii(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '{' | '}' => out.push('?'),
            ' '..='~' => out.push(c),
            _ => {
                let _ = write!(out, "U+{:04X}", u32::from(c)); // writing to a `String` cannot fail
            }
        }
    }
    out
}
