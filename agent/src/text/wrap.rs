//! Lines of text: wrapped at a width, behind a label, in sections.

use std::fmt::Write as _;

use nodetrust_core::certificate::name::visible;

use super::colour::Style;

/// Columns that text is wrapped at.
pub(crate) const WIDTH: usize = 100;
/// Columns of a label.
const LABEL_WIDTH: usize = 10;

/// The first line of a screen: what it is about, the answer, and the answer in a sentence.
pub(crate) fn answer(about: &str, (verdict, colour): (&str, &str), text: &str, style: Style) -> String {
    let start = format!("{}   {verdict}   ", visible(about));
    let indent = start.chars().count().min(WIDTH / 2);
    let text = wrap(text, WIDTH - indent, indent);
    format!("{}   {}   {text}\n", visible(about), style.paint(colour, verdict))
}

/// Adds a section, if it has any text.
pub(crate) fn section(out: &mut String, text: &str) {
    if !text.is_empty() {
        out.push('\n');
        out.push_str(text);
    }
}

/// A text behind a label. An empty label continues the one before.
pub(crate) fn labelled(label: &str, text: &str, style: Style) -> String {
    let padded = format!("{label:<0$}", LABEL_WIDTH);
    let padded = if label.is_empty() { padded } else { style.paint("1", &padded) };
    format!("{padded}{}\n", wrap(text, WIDTH - LABEL_WIDTH, LABEL_WIDTH))
}

/// Lines with as many parts as fit behind a label, two blanks between them.
pub(crate) fn pack(parts: &[String]) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for part in parts {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 2 + part.chars().count() <= WIDTH - LABEL_WIDTH => {
                line.push_str("  ");
                line.push_str(part);
            }
            _ => lines.push(part.clone()),
        }
    }
    lines
}

/// Breaks a text at blanks; the lines after the first are indented. Control characters are made visible: a text may quote what others
/// wrote.
pub(crate) fn wrap(text: &str, width: usize, indent: usize) -> String {
    let mut out = String::new();
    let mut used = 0;
    for word in visible(text).split(' ') {
        let length = word.chars().count();
        if used > 0 && used + 1 + length > width {
            out.truncate(out.trim_end_matches(' ').len());
            let _ = write!(out, "\n{:indent$}", "");
            used = 0;
        } else if used > 0 {
            out.push(' ');
            used += 1;
        }
        out.push_str(word);
        used += length;
    }
    out
}

/// The text, or its beginning with an ellipsis.
pub(crate) fn shorten(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_wraps_at_blanks_and_keeps_its_indent() {
        assert_eq!(wrap("one two three", 8, 2), "one two\n  three");
        assert_eq!(wrap("a-word-that-is-too-long x", 4, 0), "a-word-that-is-too-long\nx");
    }
}
