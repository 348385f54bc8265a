//! The canary: a few Nodes restart first, and say with which set they are healthy; the others wait for it.
//!
//! How long it has been healthy is measured by each node that waits, by its own clock, from the moment when it saw the mark.

use std::time::Duration;

use super::lease::{CanaryLease, CanaryMark};
use crate::time::Time;

/// The mark as this node has seen it: which digest, and since when.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CanaryWatch {
    seen: Option<(CanaryMark, Duration)>,
}

/// What the canary's mark means for a node that waits for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CanaryState {
    /// It has been healthy with this node's set for long enough, or a person let the others go on.
    Passed,
    /// It is healthy with this node's set, and has to stay so for this long.
    Soaking(Duration),
    /// It speaks of another set, which has this digest.
    Other(String),
    /// There is no mark.
    Silent,
}

impl CanaryWatch {
    /// Takes note of the canary's Lease, as a list that arrived at `now` showed it.
    pub fn note(&mut self, lease: Option<&CanaryLease>, now: Duration) {
        let mark = lease.and_then(|lease| lease.mark.as_ref());
        let before = self.seen.take();
        self.seen = mark.map(|mark| {
            let since = before.filter(|(seen, _)| seen.digest == mark.digest).map(|(_, since)| since);
            (mark.clone(), since.unwrap_or(now))
        });
    }

    /// What it means for a node with this desired set.
    pub fn state(&self, desired: &str, soak: Duration, now: Duration) -> CanaryState {
        let Some((mark, since)) = &self.seen else { return CanaryState::Silent };
        if mark.digest != desired {
            return CanaryState::Other(mark.digest.clone());
        }
        let left = soak.saturating_sub(now.saturating_sub(*since));
        if mark.passed || left.is_zero() { CanaryState::Passed } else { CanaryState::Soaking(left) }
    }
}

/// The mark that a canary has to write, if any: it is healthy with its desired set since a time by its wall clock, nobody has said so yet, and
/// it has not said so itself before. `written` is the digest that it wrote last: it writes once for each set, so that two canaries that
/// receive a set at different times do not overwrite each other's marks again and again.
pub fn mark_to_write(
    desired: &str,
    healthy_since: Time,
    present: Option<&CanaryMark>,
    written: Option<&str>,
) -> Option<CanaryMark> {
    let said = present.is_some_and(|mark| mark.digest == desired) || written == Some(desired);
    let mark = || CanaryMark { digest: desired.to_owned(), healthy_since: healthy_since.to_string(), passed: false };
    (!said).then(mark)
}

#[cfg(test)]
mod tests {
    use super::{super::lease::ResourceVersion, *};

    const SOAK: Duration = Duration::from_secs(600);

    fn lease(digest: &str) -> CanaryLease {
        let mark = CanaryMark { digest: digest.into(), healthy_since: "2026-11-30T07:00:00Z".into(), passed: false };
        CanaryLease { version: ResourceVersion("1".into()), mark: Some(mark) }
    }

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn others_wait_until_they_have_seen_the_mark_for_the_soak_time_by_their_own_clock() {
        let mut watch = CanaryWatch::default();
        assert_eq!(watch.state("new", SOAK, seconds(0)), CanaryState::Silent);
        watch.note(Some(&lease("old")), seconds(10));
        assert_eq!(watch.state("new", SOAK, seconds(9_999)), CanaryState::Other("old".into()));
        watch.note(Some(&lease("new")), seconds(10_000));
        assert_eq!(watch.state("new", SOAK, seconds(10_000)), CanaryState::Soaking(SOAK));
        watch.note(Some(&lease("new")), seconds(10_300));
        assert_eq!(watch.state("new", SOAK, seconds(10_300)), CanaryState::Soaking(seconds(300)));
        assert_eq!(watch.state("new", SOAK, seconds(10_600)), CanaryState::Passed);
    }

    #[test]
    fn a_mark_that_went_away_begins_anew() {
        let mut watch = CanaryWatch::default();
        watch.note(Some(&lease("new")), seconds(0));
        watch.note(Some(&lease("other")), seconds(300));
        watch.note(Some(&lease("new")), seconds(500));
        assert_eq!(watch.state("new", SOAK, seconds(600)), CanaryState::Soaking(seconds(500)));
        watch.note(None, seconds(700));
        assert_eq!(watch.state("new", SOAK, seconds(9_999)), CanaryState::Silent);
        watch.note(Some(&CanaryLease { mark: None, ..lease("new") }), seconds(800));
        assert_eq!(watch.state("new", SOAK, seconds(9_999)), CanaryState::Silent, "a mark that cannot be read is none");
    }

    #[test]
    fn nobody_waits_once_a_person_let_the_others_go_on() {
        let mut watch = CanaryWatch::default();
        let mut passed = lease("new");
        passed.mark.as_mut().unwrap().passed = true;
        watch.note(Some(&passed), seconds(0));
        assert_eq!(watch.state("new", SOAK, seconds(0)), CanaryState::Passed);
        assert_eq!(watch.state("newer", SOAK, seconds(0)), CanaryState::Other("new".into()));
    }

    #[test]
    fn two_canaries_with_different_sets_write_once_each() {
        let new = mark_to_write("new", Time(0), None, None).unwrap();
        assert_eq!((new.digest.as_str(), new.healthy_since.as_str()), ("new", "1970-01-01T00:00:00Z"));
        assert_eq!(mark_to_write("new", Time(5), Some(&new), None), None, "another canary was first");
        let old = mark_to_write("old", Time(0), Some(&new), None).unwrap();
        assert_eq!(mark_to_write("new", Time(5), Some(&old), Some("new")), None);
        assert_eq!(mark_to_write("old", Time(5), Some(&new), Some("old")), None);
    }
}
