//! What a terminal can show: colour, and how many columns.

use std::{
    ffi::{OsStr, OsString},
    io::{IsTerminal, stdout},
};

use terminal_size::{Width, terminal_size_of};

/// Columns that text is wrapped at where nothing says how many there are; and no more than that on a wide terminal.
pub(crate) const WIDTH: usize = 100;
/// Columns that a screen needs: on a narrower terminal the terminal wraps.
pub(crate) const LEAST_WIDTH: usize = 80;

/// How text is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Style {
    colour: bool,
    width: usize,
}

impl Style {
    /// No colour, and the usual width.
    #[cfg(test)]
    pub(crate) fn plain() -> Self {
        Self::of_width(WIDTH)
    }

    /// No colour, and so many columns.
    #[cfg(test)]
    pub(crate) fn of_width(width: usize) -> Self {
        Self { colour: false, width }
    }

    /// What standard output can show.
    pub(crate) fn of_stdout() -> Self {
        let columns = terminal_size_of(stdout()).map(|(Width(columns), _)| columns);
        Self { colour: may_be_coloured(stdout().is_terminal()), width: fitting(columns) }
    }

    /// The text in a colour, by the parameters of its escape sequence (ECMA-48, SGR).
    pub(crate) fn paint(self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// Columns that text is wrapped at.
    pub(crate) fn width(self) -> usize {
        self.width
    }
}

/// Whether what is written to a terminal, or to something else, has colour: not if `NO_COLOR` says no (no-color.org), nor on a
/// terminal that calls itself dumb, which would show the escape sequences as text.
pub(crate) fn may_be_coloured(is_terminal: bool) -> bool {
    is_terminal && has_colour(std::env::var_os("NO_COLOR"), std::env::var_os("TERM"))
}

fn has_colour(no_color: Option<OsString>, term: Option<OsString>) -> bool {
    no_color.is_none_or(|value| value.is_empty()) && term.as_deref() != Some(OsStr::new("dumb"))
}

/// The columns that are used of a terminal that has so many. A pseudo-terminal that nobody has given a size has none.
fn fitting(columns: Option<u16>) -> usize {
    columns.filter(|columns| *columns > 0).map_or(WIDTH, |columns| usize::from(columns).clamp(LEAST_WIDTH, WIDTH))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dumb_terminal_and_no_color_have_no_colour() {
        let has =
            |no_color: Option<&str>, term: Option<&str>| has_colour(no_color.map(Into::into), term.map(Into::into));
        assert!(has(None, Some("xterm-256color")) && has(None, None) && has(Some(""), Some("linux")));
        assert!(!has(None, Some("dumb")));
        assert!(!has(Some("1"), Some("xterm")) && !has(Some("0"), None));
    }

    #[test]
    fn the_width_follows_the_terminal_from_80_to_100_columns() {
        let widths = [None, Some(0), Some(40), Some(80), Some(93), Some(100), Some(240)].map(fitting);
        assert_eq!(widths, [100, 100, 80, 80, 93, 100, 100]);
    }
}
