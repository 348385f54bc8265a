//! The clock by which a node counts the times of its slots: one that never jumps and counts while the machine sleeps.

use std::{sync::Arc, time::Duration};

use nix::time::{ClockId, clock_gettime};

/// A clock, and how fast it runs.
#[derive(Clone)]
pub struct FleetClock {
    now: Arc<dyn Fn() -> Duration + Send + Sync>,
    /// Seconds of this clock in a real second.
    rate: f64,
}

impl FleetClock {
    /// CLOCK_BOOTTIME of this machine (clock_gettime(2)).
    pub fn of_machine() -> Self {
        let now = || {
            // the clock is there in every kernel since 2.6.39; without it no time would pass, and no slot would be taken
            let now = clock_gettime(ClockId::CLOCK_BOOTTIME).unwrap_or(nix::sys::time::TimeSpec::new(0, 0));
            Duration::from(now)
        };
        Self { now: Arc::new(now), rate: 1.0 }
    }

    /// The same, running faster or slower: for simulated nodes.
    #[must_use]
    pub fn at_rate(self, rate: f64) -> Self {
        let now = self.now;
        Self { now: Arc::new(move || now().mul_f64(rate)), rate: self.rate * rate }
    }

    /// Time since some fixed moment.
    pub fn now(&self) -> Duration {
        (self.now)()
    }

    /// How much real time a time by this clock is.
    pub fn real(&self, time: Duration) -> Duration {
        time.div_f64(self.rate)
    }
}
