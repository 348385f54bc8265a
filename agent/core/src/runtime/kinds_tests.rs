//! The table of runtimes.

use super::*;

#[test]
fn every_kind_has_its_row() {
    for row in &TABLE {
        assert_eq!(row.kind.row().kind, row.kind);
        assert!(!row.units.is_empty() && !row.sockets.is_empty());
    }
}
