//! Where the fields of a configuration stand in its text, and which field stands at a place. Only errors ask, so the text is
//! read once more for them, up to the place, and nothing is kept: it may be a big one that is no configuration at all.

use std::{borrow::Cow, fmt::Write as _};

use granit_parser::{Event, Parser};

/// A list or mapping that has begun.
enum Open<'a> {
    /// with the number of its items so far
    List(usize),
    Map {
        /// the last one
        key: Cow<'a, str>,
        /// which of the two comes next
        value_is_next: bool,
    },
}

/// The field that begins at a place, such as `sources[0].name`; the outermost. None for the text as a whole. Lines and columns are
/// counted from 1.
pub(super) fn field_at(text: &str, line: u64, column: u64) -> Option<String> {
    let mut found = None;
    each_field(text, |place, open| {
        let is_it = place == (line, column);
        if is_it {
            found = Some(name(open));
        }
        is_it
    });
    found.filter(|field| !field.is_empty())
}

/// The line of a field.
pub(super) fn line_of(text: &str, field: &str) -> Option<u64> {
    let mut found = None;
    each_field(text, |(line, _), open| {
        let is_it = name(open) == field;
        if is_it {
            found = Some(line);
        }
        is_it
    });
    found
}

/// Calls a function with each key and each value, a list before its items and so on, until it returns true or the text is no YAML
/// any more: with the place where it begins, and with what it is in.
fn each_field(text: &str, mut is_enough: impl FnMut((u64, u64), &[Open<'_>]) -> bool) {
    let mut open: Vec<Open<'_>> = Vec::new();
    for (event, span) in Parser::new_from_str(text).map_while(Result::ok) {
        let (key, inner) = match event {
            Event::Scalar(text, ..) => (text, None),
            Event::Alias(_) => (Cow::Borrowed("?"), None),
            Event::SequenceStart(..) => (Cow::Borrowed("?"), Some(Open::List(0))),
            Event::MappingStart(..) => {
                (Cow::Borrowed("?"), Some(Open::Map { key: Cow::Borrowed(""), value_is_next: false }))
            }
            Event::SequenceEnd | Event::MappingEnd => {
                open.pop();
                end_of_node(&mut open);
                continue;
            }
            _ => continue,
        };
        match open.last_mut() {
            Some(Open::List(items)) => *items += 1,
            Some(Open::Map { key: last, value_is_next: false }) => *last = key,
            Some(Open::Map { value_is_next: true, .. }) | None => {}
        }
        // the parser counts columns from 0
        if is_enough((span.start.line() as u64, span.start.col() as u64 + 1), &open) {
            return;
        }
        match inner {
            Some(inner) => open.push(inner),
            None => end_of_node(&mut open),
        }
    }
}

fn end_of_node(open: &mut [Open<'_>]) {
    if let Some(Open::Map { value_is_next, .. }) = open.last_mut() {
        *value_is_next = !*value_is_next;
    }
}

fn name(open: &[Open<'_>]) -> String {
    let mut name = String::new();
    for open in open {
        match open {
            Open::List(items) => {
                let _ = write!(name, "[{}]", items.saturating_sub(1)); // a String takes everything
            }
            Open::Map { key, .. } => {
                if !name.is_empty() {
                    name.push('.');
                }
                name.push_str(key);
            }
        }
    }
    name
}
