//! Text for people, for the terminal (`html`: for browsers): the first line is the answer; everything fits the terminal, from 80 to
//! 100 columns, or wraps.

pub(crate) mod colour;
pub(crate) mod html;
pub(crate) mod report;
pub(crate) mod status;
pub(crate) mod table;
pub(crate) mod time;
pub(crate) mod wrap;
