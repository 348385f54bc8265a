//! When a call that failed is tried again.

use std::time::Duration;

use nodetrust_core::node_status;
use tokio::time::Instant;

use super::failure::ApiFailure;

/// Longest pause that the server can ask for.
const LONGEST_WISH: Duration = Duration::from_secs(600);

/// Failures in a row, and when to try again.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    pub(super) failures: u32,
    pub(super) not_before: Option<Instant>,
    pub(super) error: Option<ApiFailure>,
}

impl Backoff {
    /// Whether the next try may be made.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.not_before.is_none_or(|not_before| not_before <= now)
    }

    /// Counts a failure and puts the next try off: longer with each failure in a row, and at least as long as the server asks.
    pub(super) fn failed(&mut self, now: Instant, node: &str, failure: ApiFailure) {
        self.failures = self.failures.saturating_add(1);
        let wish = failure.retry_after.unwrap_or_default().min(LONGEST_WISH);
        self.not_before = Some(now + node_status::pause(node, self.failures).max(wish));
        self.error = Some(failure);
    }
}
