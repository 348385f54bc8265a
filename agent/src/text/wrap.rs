//! Lines of text: wrapped at a width, behind a label, in sections. Widths are in columns of a terminal: a Chinese character has two.

use std::fmt::Write as _;

use nodetrust_core::certificate::name::visible;
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use super::colour::Style;

/// Columns of a label.
const LABEL_WIDTH: usize = 10;

/// Columns of a text.
pub(crate) fn width_of(text: &str) -> usize {
    text.width()
}

/// The first line of a screen: what it is about, the answer, and the answer in a sentence.
pub(crate) fn answer(about: &str, (verdict, colour): (&str, &str), text: &str, style: Style) -> String {
    let start = format!("{}   {verdict}   ", visible(about));
    let indent = width_of(&start).min(style.width() / 2);
    let text = wrap(text, style.width() - indent, indent);
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
    format!("{padded}{}\n", wrap(text, style.width() - LABEL_WIDTH, LABEL_WIDTH))
}

/// Lines with as many parts as fit behind a label, two blanks between them.
pub(crate) fn pack(parts: &[String], style: Style) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for part in parts {
        match lines.last_mut() {
            Some(line) if width_of(line) + 2 + width_of(part) <= style.width() - LABEL_WIDTH => {
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
        let length = width_of(word);
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
    if width_of(text) <= width {
        return text.to_owned();
    }
    let mut used = 1; // the ellipsis
    let fits = |c: &char| {
        used += c.width().unwrap_or(0);
        used <= width
    };
    text.chars().take_while(fits).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_wraps_at_blanks_and_keeps_its_indent() {
        assert_eq!(wrap("one two three", 8, 2), "one two\n  three");
        assert_eq!(wrap("a-word-that-is-too-long x", 4, 0), "a-word-that-is-too-long\nx");
    }

    #[test]
    fn a_wide_character_counts_two_columns() {
        assert_eq!(wrap("企業 根証 明書", 9, 0), "企業 根証\n明書");
        assert_eq!(shorten("企業根証明書", 8), "企業根…");
        assert_eq!(shorten("企業根証", 8), "企業根証");
        assert_eq!(shorten("Corp Root CA", 8), "Corp Ro…");
    }

    #[test]
    fn every_line_fits_a_narrow_terminal() {
        let style = Style::of_width(80);
        let text = "word ".repeat(60);
        let screen = answer("node", ("TRUSTED", "1"), &text, style) + &labelled("NEXT", &text, style);
        assert!(screen.lines().all(|line| width_of(line) <= 80), "{screen}");
        let lines = pack(&["a".repeat(40), "b".repeat(35)], style);
        assert_eq!(lines.len(), 2);
        assert_eq!(pack(&["a".repeat(40), "b".repeat(35)], Style::plain()).len(), 1);
    }
}
