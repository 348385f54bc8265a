//! What a person reads of a configuration that is not understood: the words of configurations, not those of the library that reads
//! YAML, and the name that was probably meant.

use std::borrow::Cow;

use serde_saphyr::{Error, MessageFormatter, UserMessageFormatter};

/// Names that differ by more letters than this are not mixed up.
const MOST_LETTERS: usize = 3;
/// A word of so many letters may stand for a longer name that has it.
const LEAST_PART: usize = 4;

/// Words of the library, and what people call that. Longer ones first.
const WORDS: [(&str, &str); 25] = [
    ("empty mapping start", "an empty section"),
    ("sequence start", "a list"),
    ("mapping start", "a section of fields"),
    ("sequence end", "the end of a list"),
    ("mapping end", "the end of a section"),
    ("escape sequence", "escape"),
    ("flow sequence", "list in [ ]"),
    ("flow mapping", "section in { }"),
    ("flow construct", "list or section in brackets"),
    ("block sequence", "list"),
    ("block mapping", "section"),
    ("block collection", "section or list"),
    ("mapping values are", "a field and its value are"),
    ("mapping keys are", "a field is"),
    ("simple key", "name of a field"),
    ("block scalar", "text of several lines"),
    ("plain scalar", "text"),
    ("quoted scalar", "quoted text"),
    ("node content", "content"),
    ("single YAML node", "one value"),
    ("node", "value"),
    ("scalar", "value"),
    ("sequence", "list"),
    ("mapping", "section"),
    ("EOF", "end of the text"),
];

/// The messages.
pub(super) struct PlainWords;

impl MessageFormatter for PlainWords {
    fn format_message<'a>(&self, error: &'a Error) -> Cow<'a, str> {
        Cow::Owned(match error {
            // of our own values, or of the parser
            Error::Message { msg, .. } if msg.contains('`') => return Cow::Borrowed(msg),
            Error::SerdeUnknownField { field, expected, .. } => {
                let known = expected.join(", ");
                format!("unknown field `{field}`, expected one of {known}{}", did_you_mean(field, expected))
            }
            Error::SerdeMissingField { field, .. } => format!("the field `{field}` is missing"),
            Error::DuplicateMappingKey { key: Some(key), .. } => format!("the field `{key}` stands twice"),
            Error::DuplicateMappingKey { key: None, .. } => "a field stands twice".to_owned(),
            Error::Unexpected { expected, .. } => format!("expected {}", kind(expected)),
            Error::InvalidScalar { ty, .. } => format!("expected {}", kind(ty)),
            Error::InvalidBooleanStrict { .. } => "expected true or false".to_owned(),
            Error::NullIntoString { .. } => "expected a text, found no value".to_owned(),
            Error::SerdeInvalidType { unexpected, expected, .. } => {
                format!("expected {}, found {}", kind(expected), kind(unexpected))
            }
            Error::Eof { .. } => "the text ends too early".to_owned(),
            Error::MultipleDocuments { .. } => "expected one document, found several (---)".to_owned(),
            Error::UnknownAnchor { .. } => "an alias (*name) without its anchor (&name)".to_owned(),
            Error::Budget { .. } => "the text is too large, or too deep".to_owned(),
            other => in_plain_words(&UserMessageFormatter.format_message(other)),
        })
    }
}

/// What kind of value the library means by a word of its own, or of Rust.
fn kind(word: &str) -> String {
    match word {
        "bool" | "boolean" | "a boolean" => "true or false".to_owned(),
        "unit" | "unit value" | "null" => "no value".to_owned(),
        "string" | "a string" | "string scalar" => "a text".to_owned(),
        "scalar" => "a value".to_owned(),
        "map" | "a map" => "a section of fields".to_owned(),
        word if word.starts_with("struct ") => "a section of fields".to_owned(),
        word => in_plain_words(word),
    }
}

fn in_plain_words(text: &str) -> String {
    WORDS.iter().fold(text.to_owned(), |text, (theirs, ours)| text.replace(theirs, ours))
}

/// `; did you mean …?` with the name that was probably meant; empty if none is near.
pub(super) fn did_you_mean(given: &str, known: &[&str]) -> String {
    let plain = |text: &str| text.to_lowercase().replace(['-', '_', ' '], "");
    let given = plain(given);
    let letters = given.chars().count();
    if letters == 0 || letters > 40 {
        return String::new();
    }
    let distance = |name: &&&str| {
        let name = plain(name);
        let is_part =
            letters.min(name.chars().count()) >= LEAST_PART && (name.contains(&given) || given.contains(&name));
        let differs = strsim::osa_distance(&given, &name);
        // a word of few letters is near to everything
        let limit = MOST_LETTERS.min(letters.max(name.chars().count()).saturating_sub(1) / 2);
        (is_part || differs <= limit).then_some((differs, is_part))
    };
    let nearest = known.iter().filter_map(|name| Some((distance(&name)?, name))).min();
    nearest.map(|(_, name)| format!("; did you mean `{name}`?")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_that_was_meant_is_found_and_no_other() {
        let known = ["sources", "policy", "rotation", "removalGrace", "notCa", "settle", "store"];
        let cases = [
            ("sorces", "sources"),
            ("source", "sources"),
            ("Policy", "policy"),
            ("not_ca", "notCa"),
            ("removal-grace", "removalGrace"),
            ("grace", "removalGrace"),
            ("stroe", "store"),
        ];
        for (given, name) in cases {
            assert_eq!(did_you_mean(given, &known), format!("; did you mean `{name}`?"), "{given}");
        }
        for given in ["noSuchField", "x", "", "interval", &"s".repeat(1000)] {
            assert_eq!(did_you_mean(given, &known), "", "{given}");
        }
        assert_eq!(did_you_mean("drop", &["skip", "hold"]), "");
        assert_eq!(did_you_mean("rejct", &["accept", "reject"]), "; did you mean `reject`?");
    }
}
