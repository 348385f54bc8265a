//! Lines that begin or end a block, and lines that only look like it.

use memchr::{memchr, memmem};

use super::text::{self, Lines};

pub(super) const BEGIN: &[u8] = b"-----BEGIN ";
const END: &[u8] = b"-----END ";
const DASHES: &[u8] = b"-----";

/// What a line is among the boundaries of blocks.
pub(super) enum Boundary<'a> {
    None,
    Begin(&'a [u8]),
    End(&'a [u8]),
    /// Looks like a boundary and is none.
    Odd(&'static str),
    /// A line whose author meant a boundary, without the five dashes that all readers look for.
    LookAlike(text::Side, &'static str),
    /// A sentence or comment with a BEGIN or END in it.
    Mention(Mention),
}

/// What a line with a BEGIN or END in its text is, if it is no boundary.
#[derive(Clone, Copy)]
pub(super) struct Mention {
    pub(super) is_comment: bool,
    begins: bool,
}

impl Mention {
    /// Returns a note about the line.
    ///
    /// # Errors
    /// If the body of a block follows: why the line does not begin it.
    pub(super) fn what(self, lines: Lines<'_>) -> Result<&'static str, &'static str> {
        match (self.begins && is_followed_by_body(lines), self.is_comment) {
            (true, true) => {
                Err("the BEGIN line is commented out, and the block behind it is not; comment out all of it or nothing")
            }
            (true, false) => Err("a BEGIN or END line with something else on it; each must stand alone on its line"),
            (false, true) => Ok("a BEGIN or END that is commented out; not taken for a block"),
            (false, false) => Ok("text that mentions BEGIN or END; not taken for a block"),
        }
    }
}

/// Reads a line as a boundary.
pub(super) fn boundary(line: &[u8]) -> Boundary<'_> {
    // nearly all lines are base64, which has no dash
    if memchr(b'-', line).is_none() && line.is_ascii() {
        return Boundary::None;
    }
    if !contains(line, b"-----BEGIN") && !contains(line, b"-----END") {
        let is_comment = text::commented(line).is_some();
        return match text::look_alike(line) {
            Some((side, why)) if !is_comment => Boundary::LookAlike(side, why),
            _ => Boundary::None,
        };
    }
    let label = |prefix| {
        let label = line.strip_prefix(prefix)?.strip_suffix(DASHES)?;
        let clean = label.iter().all(|byte| (b' '..=b'~').contains(byte) && *byte != b'-');
        (clean && !label.is_empty()).then_some(label)
    };
    match (label(BEGIN), label(END)) {
        (Some(label), _) => Boundary::Begin(label),
        (_, Some(label)) => Boundary::End(label),
        _ => no_boundary(line),
    }
}

/// What a line is that has a BEGIN or END of five dashes and does not consist of it.
fn no_boundary(line: &[u8]) -> Boundary<'static> {
    let begins = contains(line, b"-----BEGIN");
    if text::commented(line).is_some() {
        return Boundary::Mention(Mention { is_comment: true, begins });
    }
    let trimmed = line.trim_ascii_start();
    let is_whole = trimmed.ends_with(DASHES) && (trimmed.starts_with(BEGIN) || trimmed.starts_with(END));
    if trimmed.len() != line.len() && is_whole {
        return Boundary::Odd(
            "the BEGIN or END line is indented, as in YAML; give the text without its indentation, most readers would silently find nothing here",
        );
    }
    if contains(line, b"\\n") {
        return Boundary::Odd("line ends written as \\n, as in JSON; give the text itself, with real line ends");
    }
    if text::unescaped(line).split(u8::is_ascii_whitespace).any(text::is_body) {
        return Boundary::Odd("the lines of the block have become one line; give the text with its line ends");
    }
    match text::look_alike(line) {
        Some((_, why)) => Boundary::Odd(why),
        None if is_sentence(line) => Boundary::Mention(Mention { is_comment: false, begins }),
        None => Boundary::Odd("a BEGIN or END line with something else on it; each must stand alone on its line"),
    }
}

/// Whether a line has words outside of its BEGIN and END.
fn is_sentence(line: &[u8]) -> bool {
    let mut outside = Vec::new();
    let mut rest = line;
    while let Some(at) = memmem::find(rest, DASHES) {
        outside.extend_from_slice(&rest[..at]);
        outside.push(b' ');
        let label = &rest[at..];
        let label = &label[label.iter().take_while(|byte| **byte == b'-').count()..];
        // the label ends at its five dashes; one that has none goes to the end of the line
        let end = memmem::find(label, DASHES).map_or(label.len(), |end| end + DASHES.len());
        rest = &label[end..];
    }
    outside.extend_from_slice(rest);
    outside.iter().any(u8::is_ascii_alphabetic)
}

/// The label behind the last BEGIN of a line that is not a proper boundary.
pub(super) fn odd_label(line: &[u8]) -> &[u8] {
    let at = memmem::rfind(line, BEGIN).map_or(line.len(), |at| at + BEGIN.len());
    let label = &line[at..];
    label.strip_suffix(DASHES).unwrap_or(label)
}

/// Whether the next line that is not empty could be the body of a block.
pub(super) fn is_followed_by_body(mut lines: Lines<'_>) -> bool {
    let is_text = |line: &&[u8]| !line.trim_ascii().is_empty();
    lines.by_ref().map(|(_, line)| line).find(is_text).is_some_and(|line| {
        let line = line.trim_ascii_start();
        text::is_body(line.strip_prefix(b"> ").or_else(|| line.strip_prefix(b">")).unwrap_or(line))
    })
}

pub(super) fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    memmem::find(haystack, needle).is_some()
}
