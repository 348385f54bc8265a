//! Where the fields of a configuration stand in its text, and which field stands at a place. Only errors ask, so the text is
//! read once more for them.

use granit_parser::{Event, Parser};

/// The fields of a text, each before those in it. What follows a mistake in the YAML is not among them.
#[derive(Debug, Default)]
pub(super) struct Places(Vec<Place>);

#[derive(Debug)]
struct Place {
    line: u64,
    column: u64,
    field: String,
}

/// A list or mapping that has begun, and what its next value is called.
enum Open {
    List {
        field: String,
        index: usize,
    },
    /// with its last key, if that has no value yet
    Map {
        field: String,
        key: Option<String>,
    },
}

impl Places {
    /// Finds them.
    pub(super) fn of(text: &str) -> Self {
        let mut places = Vec::new();
        let mut open: Vec<Open> = Vec::new();
        for (event, span) in Parser::new_from_str(text).map_while(Result::ok) {
            // lines are counted from 1, columns from 0
            let (line, column) = (span.start.line() as u64, span.start.col() as u64 + 1);
            let mut add = |field: &str| places.push(Place { line, column, field: field.to_owned() });
            match event {
                Event::Scalar(text, ..) => match open.last_mut() {
                    Some(Open::Map { field, key: key @ None }) => {
                        let dot = if field.is_empty() { "" } else { "." };
                        let name = format!("{field}{dot}{text}");
                        add(&name);
                        *key = Some(name);
                    }
                    _ => add(&next_value(&mut open)),
                },
                Event::Alias(_) => add(&next_value(&mut open)),
                Event::SequenceStart(..) => {
                    let field = next_value(&mut open);
                    add(&field);
                    open.push(Open::List { field, index: 0 });
                }
                Event::MappingStart(..) => {
                    let field = next_value(&mut open);
                    add(&field);
                    open.push(Open::Map { field, key: None });
                }
                Event::SequenceEnd | Event::MappingEnd => {
                    open.pop();
                }
                _ => {}
            }
        }
        Self(places)
    }

    /// The field that begins at a place, such as `sources[0].name`; the outermost, and None for the text as a whole.
    pub(super) fn field_at(&self, line: u64, column: u64) -> Option<&str> {
        let place = self.0.iter().find(|place| (place.line, place.column) == (line, column))?;
        Some(place.field.as_str()).filter(|field| !field.is_empty())
    }

    /// The line of a field.
    pub(super) fn line_of(&self, field: &str) -> Option<u64> {
        self.0.iter().find(|place| place.field == field).map(|place| place.line)
    }
}

/// What the value that begins now is called; nothing for the text as a whole, or where it is a key itself.
fn next_value(open: &mut [Open]) -> String {
    match open.last_mut() {
        Some(Open::List { field, index }) => {
            let name = format!("{field}[{index}]");
            *index += 1;
            name
        }
        Some(Open::Map { key, .. }) => key.take().unwrap_or_default(),
        None => String::new(),
    }
}
