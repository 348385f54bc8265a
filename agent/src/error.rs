//! Errors in words.

use std::error::Error;

/// An error with its causes, on one line. A cause that repeats what was said is left out.
pub fn chain(error: &dyn Error) -> String {
    with_causes(&error.to_string(), error.source())
}

/// A sentence with the causes of what it says, as [`chain`].
pub fn with_causes(sentence: &str, cause: Option<&dyn Error>) -> String {
    let mut text = sentence.to_owned();
    let mut next = cause;
    while let Some(error) = next {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        next = error.source();
    }
    text
}
