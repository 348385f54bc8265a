//! Times of the protocol, and how they are spread over the nodes.
//!
//! When a slot gets free, thousands of nodes that wait for it learn that within one poll. If each wrote at once, all but one write would be in
//! vain. So a node that sees a free slot draws a delay, looks again, and writes only if the slot is still free. The delays are drawn from a
//! truncated exponential distribution whose density *grows*: few nodes draw a short one. Whatever the number of nodes, the first of them
//! are few, and the others see at their second look that the slot is gone. (Known as exponential timers from the suppression of feedback
//! in multicast: Nonnenmacher and Biersack, "Scalable feedback for large groups", 1999.)

use std::time::Duration;

/// The part of a poll over which first lists and delays before a take are spread: one in so many.
const SPREAD: u32 = 5;
/// How fast the density of delays grows: its natural logarithm over the whole spread. That of the nodes of the largest cluster (5,000) suits.
const GROWTH: f64 = 8.5;
/// The part by which polls differ from their mean, up and down: one in so many.
const POLL_JITTER: u32 = 10;

/// The times that all nodes of a fleet agree on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SlotTiming {
    /// A slot that was not renewed for this long may be taken over.
    pub lease: Duration,
    /// By how much earlier its holder stops to count on it, and by how much later others take it over: the clocks of two nodes may run at
    /// rates that differ by it.
    pub margin: Duration,
    /// Mean time between two lists while a node waits.
    pub poll: Duration,
}

impl SlotTiming {
    /// The lease time of the product.
    pub const LEASE: Duration = Duration::from_secs(60);
    /// The mean time between two lists of the product.
    pub const POLL: Duration = Duration::from_secs(15);

    /// Times with a margin of a tenth of the lease.
    pub fn new(lease: Duration, poll: Duration) -> Self {
        Self { lease, margin: lease / 10, poll }
    }

    /// How long after a write the next renewal is due.
    pub(super) fn renew_after(self) -> Duration {
        self.lease / 3
    }

    /// `leaseDurationSeconds` to be written, for people: whole seconds, at least one.
    pub fn lease_seconds(self) -> u32 {
        u32::try_from(self.lease.as_millis().div_ceil(1_000)).unwrap_or(u32::MAX).max(1)
    }
}

impl Default for SlotTiming {
    fn default() -> Self {
        Self::new(Self::LEASE, Self::POLL)
    }
}

/// The numbers that a node draws: other ones on each node, and the same ones again for the same seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Lots {
    seed: u64,
    drawn: u64,
}

impl Lots {
    pub(super) fn new(seed: u64) -> Self {
        Self { seed, drawn: 0 }
    }

    /// The next number (SplitMix64).
    pub(super) fn draw(&mut self) -> u64 {
        self.drawn = self.drawn.wrapping_add(1);
        let mut z = self.seed.wrapping_add(self.drawn.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A part from 0 to 1.
    fn part(&mut self) -> f64 {
        f64::from(u32::try_from(self.draw() >> 32).unwrap_or(0)) / f64::from(u32::MAX)
    }

    /// Until a first list: from none to the whole spread.
    pub(super) fn spread(&mut self, timing: SlotTiming) -> Duration {
        (timing.poll / SPREAD).mul_f64(self.part())
    }

    /// Until the next list of a node that waits.
    pub(super) fn poll(&mut self, timing: SlotTiming) -> Duration {
        let jitter = timing.poll / POLL_JITTER;
        timing.poll - jitter + (2 * jitter).mul_f64(self.part())
    }

    /// Until the next try after a request without an answer.
    pub(super) fn retry(&mut self, timing: SlotTiming) -> Duration {
        let whole = timing.poll.min(timing.lease / 6);
        whole / 2 + (whole / 2).mul_f64(self.part())
    }

    /// Between seeing a free slot and taking it.
    pub(super) fn delay(&mut self, timing: SlotTiming) -> Duration {
        let part = (1.0 + self.part() * (GROWTH.exp() - 1.0)).ln() / GROWTH;
        (timing.poll / SPREAD).mul_f64(part.clamp(0.0, 1.0))
    }
}
