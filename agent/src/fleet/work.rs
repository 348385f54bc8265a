//! A restart of this node's runtime, from its beginning until the node is known to be healthy or not.

use std::time::Duration;

/// A restart that is under way, or is watched since.
#[derive(Debug, Clone)]
pub(super) struct Work {
    /// The cycle that restarts has ended.
    pub(super) ended: bool,
    /// When it began, and after its end, when it ended.
    pub(super) since: Duration,
    /// Containers that did not outlive it, in a sentence.
    pub(super) lost: Option<String>,
    /// When a cycle was asked for last.
    pub(super) looked: Duration,
    /// Since when something is wrong at every look.
    wrong_since: Option<Duration>,
}

impl Work {
    /// One that began, or has ended, now.
    pub(super) fn new(ended: bool, now: Duration) -> Self {
        Self { ended, since: now, lost: None, looked: now, wrong_since: None }
    }

    /// How long something has been wrong, after one more look; `is_wrong` is None if it could not be looked.
    pub(super) fn wrong_for(&mut self, is_wrong: Option<bool>, now: Duration) -> Duration {
        match is_wrong {
            Some(true) => return now.saturating_sub(*self.wrong_since.get_or_insert(now)),
            Some(false) => self.wrong_since = None,
            None => {}
        }
        Duration::ZERO
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_wrong_without_a_pause_lasts() {
        let at = Duration::from_secs;
        let mut work = Work::new(true, at(0));
        let mut look = |is_wrong, seconds| work.wrong_for(is_wrong, at(seconds)).as_secs();
        assert_eq!([look(Some(true), 10), look(None, 20), look(Some(true), 30)], [0, 0, 20]);
        assert_eq!([look(Some(false), 40), look(Some(true), 50), look(Some(true), 110)], [0, 0, 60], "well in between");
    }
}
