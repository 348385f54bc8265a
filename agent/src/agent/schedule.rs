//! When the next cycle runs, and why: settling, resync, grace times, retries, fights. It knows the time and starts nothing.

use std::{
    collections::{BTreeSet, VecDeque},
    time::Duration,
};

use nodetrust_core::{
    cycle::{CycleOutcome, Trigger},
    problem::{Problem, ProblemKind},
};
use tokio::time::Instant;

use crate::{
    config::Settings,
    jitter::part_of,
    reconcile::{CycleResult, Failures},
};

/// A cycle waits for a stream of hints to end for no longer than this many times `settle`.
const MAX_SETTLES: u32 = 10;
/// Drift repairs within this time that count as a fight.
const FIGHT_WINDOW: Duration = Duration::from_secs(600);
/// How many of them.
const FIGHT_REPAIRS: usize = 5;
/// First pause after a failed cycle. It doubles up to `resync`, and twice as fast where the tool ran and the cycle failed like the one
/// before.
const FIRST_RETRY: Duration = Duration::from_secs(5);
/// Longest pause before a tool is run again that has failed in the same way, where `resync` is shorter.
const LONGEST_RETRY: Duration = Duration::from_secs(300);
/// Longest time between two cycles where the kernel does not tell of every change: no inotify instance or watch is left.
const BLIND_RESYNC: Duration = Duration::from_secs(30);

/// The time over which the nodes of a fleet are spread that get the same new sources. Their kubelets bring a changed ConfigMap within about a
/// minute of each other; this is for what comes to all at once, such as a shared directory.
const SOURCE_SPREAD: Duration = Duration::from_secs(5);

/// When the next cycle runs, and why.
#[derive(Debug)]
pub(super) struct Schedule {
    node: String,
    settle: Duration,
    /// by how much later than settled sources count: a part of [`SOURCE_SPREAD`] in a fleet
    spread: Duration,
    resync: Duration,
    /// hints that wait for things to settle
    hints: BTreeSet<Trigger>,
    first_hint: Option<Instant>,
    last_hint: Option<Instant>,
    /// the next cycle without any hint
    next: (Instant, Trigger),
    failures: u32,
    ended: Failures,
    repairs: VecDeque<Instant>,
    pub(super) running: bool,
    /// who has answered since the last cycle began
    answered: Option<Trigger>,
    /// the kernel does not tell of every change
    pub(super) is_blind: bool,
}

impl Schedule {
    /// A schedule without any hint.
    pub(super) fn new(node: &str, settings: &Settings) -> Self {
        Self {
            node: node.to_owned(),
            settle: settings.settle,
            spread: spread(node, settings),
            resync: settings.resync,
            hints: BTreeSet::new(),
            first_hint: None,
            last_hint: None,
            next: (Instant::now() + settings.resync, Trigger::Resync),
            failures: 0,
            ended: Failures::default(),
            repairs: VecDeque::new(),
            running: false,
            answered: None,
            is_blind: false,
        }
    }

    /// Follows other settings.
    pub(super) fn follow(&mut self, settings: &Settings) {
        (self.settle, self.resync) = (settings.settle, settings.resync);
        self.spread = spread(&self.node, settings);
    }

    /// Time until a cycle that nothing asks for.
    fn resync(&self) -> Duration {
        if self.is_blind { self.resync.min(BLIND_RESYNC) } else { self.resync }
    }

    /// A cycle is due at once.
    pub(super) fn now(&mut self, trigger: Trigger) {
        self.next = (Instant::now(), trigger);
    }

    /// The runtime or the fleet has answered: a cycle is due at once, or when the one that runs has ended.
    pub(super) fn answered(&mut self, who: Trigger) {
        self.answered = Some(who);
        if !self.running {
            self.now(who);
        }
    }

    /// Something happened that asks for a cycle, once things have settled.
    pub(super) fn hint(&mut self, hints: &BTreeSet<Trigger>) {
        let now = Instant::now();
        self.hints.extend(hints);
        self.first_hint.get_or_insert(now);
        self.last_hint = Some(now);
    }

    /// When hints have settled.
    fn settled(&self) -> Option<Instant> {
        let (first, last) = (self.first_hint?, self.last_hint?);
        let only_drift = self.hints.iter().all(|hint| *hint == Trigger::Drift);
        if only_drift && self.failures > 0 {
            // A cycle that fails leaves traces in the store. They must not shorten the pause before the next try.
            return Some((last + self.settle).max(self.next.0));
        }
        let settle = if only_drift && self.is_fight() { self.fight_pause() } else { self.settle };
        let spread = if self.hints.contains(&Trigger::Source) { self.spread } else { Duration::ZERO };
        Some((last + settle).min(first + settle.saturating_mul(MAX_SETTLES)) + spread)
    }

    /// When to look again whether a cycle is due.
    pub(super) fn wake(&self) -> Instant {
        self.settled().map_or(self.next.0, |settled| settled.min(self.next.0))
    }

    /// The trigger of a cycle that is due now, if no cycle is running.
    pub(super) fn due(&mut self) -> Option<Trigger> {
        if self.running || self.wake() > Instant::now() {
            return None;
        }
        let by_hint = self.settled().is_some_and(|settled| settled <= Instant::now());
        let trigger = if by_hint {
            let hints = std::mem::take(&mut self.hints);
            (self.first_hint, self.last_hint) = (None, None);
            // Traces of a failed cycle are no drift.
            let other = if self.failures > 0 { Trigger::Retry } else { Trigger::Drift };
            // The configuration comes first: it says where the sources are.
            [Trigger::Config, Trigger::Source, Trigger::Grace]
                .into_iter()
                .find(|trigger| hints.contains(trigger))
                .unwrap_or(other)
        } else {
            self.next.1
        };
        self.running = true;
        self.answered = None;
        self.next = (Instant::now() + self.resync, Trigger::Resync);
        Some(trigger)
    }

    /// A cycle has ended. Returns a problem if somebody keeps undoing what the agent does.
    pub(super) fn done(&mut self, result: &CycleResult) -> Option<Problem> {
        let now = Instant::now();
        self.running = false;
        self.next = (now + self.resync(), Trigger::Resync);
        if let Some(seconds) = result.next_grace {
            // One second more: the clock of grace times counts whole seconds.
            let ends = now + Duration::from_secs(seconds.saturating_add(1).min(self.resync.as_secs() + 1));
            if ends < self.next.0 {
                self.next = (ends, Trigger::Grace);
            }
        }
        if let Some(seconds) = result.next_try {
            let again = now + Duration::from_secs(seconds.saturating_add(1));
            if again < self.next.0 {
                self.next = (again, Trigger::Retry);
            }
        }
        if result.unsettled && now + self.settle < self.next.0 {
            self.next = (now + self.settle, Trigger::Resync);
        }
        self.ended.note(&result.report);
        if result.outcome == CycleOutcome::Failed {
            let again = if result.extract.is_some() { self.ended.alike() } else { 0 };
            let doublings = self.failures.saturating_add(again).min(16);
            let pause = FIRST_RETRY.saturating_mul(2u32.saturating_pow(doublings));
            self.failures += 1;
            // However short `resync` is, the tool is not run over and over to fail in the same way.
            let nothing_else_waits = self.next.1 == Trigger::Resync && !result.unsettled && !self.is_blind;
            let is_again = again > 0 && nothing_else_waits;
            let pause = pause.min(if is_again { self.resync.max(LONGEST_RETRY) } else { self.resync });
            if is_again || now + pause < self.next.0 {
                self.next = (now + pause, Trigger::Retry);
            }
        } else {
            self.failures = 0;
        }
        if let Some(who) = self.answered {
            self.now(who);
        }
        if !result.drift.is_empty() {
            self.repairs.push_back(now);
        }
        while self.repairs.front().is_some_and(|first| now.duration_since(*first) > FIGHT_WINDOW) {
            self.repairs.pop_front();
        }
        self.is_fight().then(|| {
            let text = format!(
                "the store was repaired {} times in {} minutes: somebody keeps undoing it",
                self.repairs.len(),
                FIGHT_WINDOW.as_secs() / 60
            );
            let next = "find the other owner of the anchor directory or bundle (configuration management, an image's own service) and let one of the two do it";
            Problem::new(ProblemKind::DriftFight, text, next)
        })
    }

    fn is_fight(&self) -> bool {
        self.repairs.len() >= FIGHT_REPAIRS
    }

    /// While two owners fight, repairs come more and more rarely.
    fn fight_pause(&self) -> Duration {
        let excess = u32::try_from(self.repairs.len() - FIGHT_REPAIRS.min(self.repairs.len())).unwrap_or(16);
        self.settle.max(Duration::from_secs(1)).saturating_mul(2u32.saturating_pow(excess.min(16) + 1)).min(self.resync)
    }
}

/// By how much later than settled this node follows a new source.
fn spread(node: &str, settings: &Settings) -> Duration {
    if settings.fleet.is_none() { Duration::ZERO } else { part_of(SOURCE_SPREAD, &format!("{node} follows a source")) }
}

#[cfg(test)]
#[path = "schedule_tests.rs"]
mod tests;
