//! Tables.

use nodetrust_core::certificate::name::visible;

use super::{
    colour::Style,
    wrap::{shorten, width_of, wrap},
};

/// Columns that the last cell of a row needs beside the others. With less it goes below them.
const LAST_WIDTH: usize = 30;
/// Blanks before a cell that goes below the others.
const BELOW_INDENT: usize = 4;
/// Columns that a column is never shortened below.
const LEAST_COLUMN: usize = 20;

/// Aligned columns; the first row is the header, the last column wraps.
pub(crate) fn columns(rows: &[Vec<String>], style: Style) -> String {
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|cell| visible(cell)).collect()).collect();
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| width_of(cell)).max().unwrap_or(0);
    let widths: Vec<usize> = (0..count).map(width).collect();
    let mut out = String::new();
    for (index, row) in rows.iter().enumerate() {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            if column + 1 == count {
                let cell = last(cell, width_of(&line), style);
                if cell.starts_with('\n') {
                    line.truncate(line.trim_end().len());
                }
                line.push_str(&cell);
            } else {
                line.push_str(cell);
                line.push_str(&" ".repeat(widths[column].saturating_sub(width_of(cell)) + 2));
            }
        }
        let line = line.trim_end();
        out.push_str(&if index == 0 { style.paint("1", line) } else { line.to_owned() });
        out.push('\n');
    }
    out
}

/// The last cell of a row, behind so many columns or below them.
fn last(cell: &str, before: usize, style: Style) -> String {
    let room = style.width().saturating_sub(before);
    if room >= LAST_WIDTH || width_of(cell) <= room {
        return wrap(cell, room, before);
    }
    format!("\n{:BELOW_INDENT$}{}", "", wrap(cell, style.width() - BELOW_INDENT, BELOW_INDENT))
}

/// Shortens the cells of one column until the table fits the width; its last column can wrap, and does not count.
pub(crate) fn narrow(rows: &mut [Vec<String>], column: usize, style: Style) {
    let length = |cell: &String| width_of(&visible(cell));
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(length).max().unwrap_or(0);
    let others: usize =
        (0..count.saturating_sub(1)).filter(|other| *other != column).map(|other| width(other) + 2).sum();
    let last = width(count.saturating_sub(1)).min(LAST_WIDTH / 2);
    let room = style.width().saturating_sub(others + last + 2).max(LEAST_COLUMN);
    for cell in rows.iter_mut().filter_map(|row| row.get_mut(column)) {
        *cell = shorten(&visible(cell), room);
    }
}

/// A row of fixed texts.
pub(crate) fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells(cells: &[&str]) -> Vec<String> {
        cells.iter().map(|cell| (*cell).to_owned()).collect()
    }

    #[test]
    fn columns_stay_aligned_with_wide_characters() {
        let text = columns(&[row(["NAME", "STATE"]), row(["企業根", "ok"]), row(["abcdef", "ok"])], Style::plain());
        assert_eq!(text, "NAME    STATE\n企業根  ok\nabcdef  ok\n");
    }

    #[test]
    fn a_last_cell_without_room_goes_below_its_row() {
        let rows = [cells(&["NAME", "DETAIL"]), cells(&[&"n".repeat(63), "the source is held since this morning"])];
        let text = columns(&rows, Style::of_width(80));
        assert!(text.ends_with(&format!("{}\n    the source is held since this morning\n", "n".repeat(63))), "{text}");
        assert!(columns(&rows, Style::of_width(104)).lines().count() == 2);
    }

    #[test]
    fn a_table_is_narrowed_to_the_terminal() {
        let name = "Corp Issuing CA of the Department of Everything 2026";
        let mut rows = [row(["ANCHOR", "SHA-256", "NOT AFTER"]), row([name, "9f3c51d2ab77e014", "2036-01-02"])];
        narrow(&mut rows, 0, Style::of_width(60));
        let text = columns(&rows, Style::of_width(60));
        assert!(text.lines().all(|line| width_of(line) <= 60), "{text}");
        assert!(text.contains("Corp Issuing CA of the De"), "{text}");
    }
}
