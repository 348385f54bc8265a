//! Time that has surely passed.

use crate::testing::{NOW, at};

#[test]
fn in_one_boot_only_the_clock_that_never_jumps_counts() {
    let since = at(NOW, 100, "one");
    for wall in [i64::MIN, 0, NOW, NOW + 1_000_000, i64::MAX] {
        assert_eq!(at(wall, 160, "one").elapsed_since(&since, NOW), 60, "{wall}");
    }
    assert_eq!(at(NOW, 40, "one").elapsed_since(&since, NOW), 0);
}

#[test]
fn over_a_reboot_the_wall_clock_counts_unless_it_is_behind_the_ledger() {
    let since = at(NOW, 100, "one");
    assert_eq!(at(NOW + 60, 5, "two").elapsed_since(&since, NOW), 60);
    assert_eq!(at(NOW + 60, 5, "two").elapsed_since(&since, NOW + 61), 5, "behind the last entry: the time since boot");
    assert_eq!(at(NOW - 10, 5, "two").elapsed_since(&since, i64::MIN), 5, "before it began");
    assert_eq!(at(i64::MAX, 5, "two").elapsed_since(&at(i64::MIN, 0, "one"), 0), i64::MAX as u64);
}
