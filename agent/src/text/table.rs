//! Tables.

use std::fmt::Write as _;

use nodetrust_core::certificate::name::visible;

use super::{
    colour::Style,
    wrap::{WIDTH, shorten, wrap},
};

/// Aligned columns; the first row is the header, the last column wraps.
pub(crate) fn columns(rows: &[Vec<String>], style: Style) -> String {
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|cell| visible(cell)).collect()).collect();
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..count).map(width).collect();
    let mut out = String::new();
    for (index, row) in rows.iter().enumerate() {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            if column + 1 == count {
                let indent = line.chars().count();
                let text = wrap(cell, WIDTH.saturating_sub(indent).max(30), indent);
                line.push_str(&text);
            } else {
                let _ = write!(line, "{cell:<0$}  ", widths[column]);
            }
        }
        let line = line.trim_end();
        out.push_str(&if index == 0 { style.paint("1", line) } else { line.to_owned() });
        out.push('\n');
    }
    out
}

/// Shortens the cells of one column until the table fits the width.
pub(crate) fn narrow(rows: &mut [Vec<String>], column: usize) {
    let length = |cell: &String| visible(cell).chars().count();
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(length).max().unwrap_or(0);
    let others: usize = (0..count).filter(|other| *other != column).map(|other| width(other) + 2).sum();
    let room = WIDTH.saturating_sub(others).max(20);
    for cell in rows.iter_mut().filter_map(|row| row.get_mut(column)) {
        *cell = shorten(&visible(cell), room);
    }
}

/// A row of fixed texts.
pub(crate) fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).to_vec()
}
