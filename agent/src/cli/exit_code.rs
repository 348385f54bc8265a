//! Exit codes.

/// Everything is as it should be.
pub(super) const OK: u8 = 0;
/// It failed.
pub(super) const FAILURE: u8 = 1;
/// It worked, and there is something to look at: actions pending, rejections, not healthy.
pub(super) const FINDINGS: u8 = 2;
/// Wrong usage or configuration (EX_USAGE of sysexits.h).
pub(super) const USAGE: u8 = 64;
