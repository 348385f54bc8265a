//! Why a cycle runs, how it ends, what it tells, and the note of it that `status` reads.

use std::{collections::BTreeSet, fmt, path::PathBuf, time::Duration};

use nodetrust_core::{
    action::Drift,
    certificate::fingerprint::Fingerprint,
    problem::ProblemKind,
    report::{Cycle, Report},
    time::Time,
};
use serde::Serialize;

use crate::{
    host::{
        lock::{self, HostLock},
        root::HostRoot,
    },
    runtime::witness::Subject,
};

/// Why a cycle runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trigger {
    /// The agent has started.
    Start,
    /// A source changed.
    Source,
    /// The configuration changed.
    Config,
    /// Something changed in the store.
    Drift,
    /// A grace time ends.
    Grace,
    /// The last cycle did not get there.
    Retry,
    /// Nothing happened for `resync`.
    Resync,
    /// The runtime has answered when it was asked about a registry.
    Witness,
    /// A person or a script ran a command.
    Command,
}

impl Trigger {
    /// Every trigger, for metrics.
    pub const ALL: [Self; 9] = [
        Self::Start,
        Self::Source,
        Self::Config,
        Self::Drift,
        Self::Grace,
        Self::Retry,
        Self::Resync,
        Self::Witness,
        Self::Command,
    ];

    /// The public name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Source => "source",
            Self::Config => "config",
            Self::Drift => "drift",
            Self::Grace => "grace",
            Self::Retry => "retry",
            Self::Resync => "resync",
            Self::Witness => "witness",
            Self::Command => "command",
        }
    }
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How a cycle ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Nothing was to be done.
    Unchanged,
    /// Something was done, and the second look agrees.
    Changed,
    /// The node does not trust what it should, or still trusts what it should not.
    Failed,
}

impl Outcome {
    /// Every outcome, for metrics.
    pub const ALL: [Self; 3] = [Self::Unchanged, Self::Changed, Self::Failed];

    /// The public name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unchanged => "unchanged",
            Self::Changed => "changed",
            Self::Failed => "failed",
        }
    }
}

/// Everything that a cycle tells the rest of the agent.
#[derive(Debug, Clone)]
pub struct CycleResult {
    /// What everybody sees.
    pub report: Report,
    /// Why it ran.
    pub trigger: Trigger,
    /// How it ended.
    pub outcome: Outcome,
    /// How long it took.
    pub duration: Duration,
    /// How long the store's tool ran, None if it did not run.
    pub extract: Option<Duration>,
    /// What others had changed and this cycle repaired.
    pub drift: BTreeSet<Drift>,
    /// Restarts that were tried: whether the service works since.
    pub restarts: Vec<bool>,
    /// Seconds until the next grace time ends.
    pub next_grace: Option<u64>,
    /// Seconds until a restart that is held may be made.
    pub next_try: Option<u64>,
    /// A source has changed and must be looked at again before it counts.
    pub unsettled: bool,
    /// Directories on the host to watch, in our own view.
    pub watch: Vec<PathBuf>,
    /// The runtime that can be asked.
    pub subject: Option<Subject>,
}

/// Cycles that failed one after the other, and whether in the same way.
#[derive(Debug, Default)]
pub(crate) struct Failures {
    /// kinds, not words: tools put random names into their messages
    last: BTreeSet<(ProblemKind, Option<Fingerprint>)>,
    alike: u32,
}

impl Failures {
    /// Takes note of how a cycle ended.
    pub(crate) fn note(&mut self, report: &Report) {
        let failing = report.problems.iter().filter(|problem| problem.kind.is_failure());
        let now: BTreeSet<_> = failing.map(|problem| (problem.kind, problem.sha256)).collect();
        self.alike = if !now.is_empty() && now == self.last { self.alike.saturating_add(1) } else { 0 };
        self.last = now;
    }

    /// How many cycles have failed in the same way as the one before them.
    pub(crate) fn alike(&self) -> u32 {
        self.alike
    }
}

/// Notes the cycle for `status`; without the note it only says less.
pub(super) fn note_cycle(lock: &mut HostLock, report: &Report) {
    let Some(cycle) = &report.cycle else { return };
    let note = serde_json::json!({
        "trigger": cycle.trigger, "outcome": cycle.outcome, "time": report.time.0, "milliseconds": cycle.milliseconds,
        "extractMilliseconds": cycle.extract_milliseconds,
    });
    if let Err(error) = lock.note(&note.to_string()) {
        tracing::debug!(%error, "the last cycle could not be noted in the lock file");
    }
}

/// What the last cycle noted, without its actions.
pub(super) fn last_cycle(root: &HostRoot) -> Option<Cycle> {
    read_note(&lock::last_note(root)?)
}

/// Reads the note of a cycle. One with a word that no cycle uses was damaged, and says nothing.
pub(crate) fn read_note(text: &str) -> Option<Cycle> {
    let note: serde_json::Value = serde_json::from_str(text).ok()?;
    let (trigger, outcome) = (note.get("trigger")?.as_str()?, note.get("outcome")?.as_str()?);
    Some(Cycle {
        trigger: Trigger::ALL.into_iter().find(|known| known.as_str() == trigger)?.to_string(),
        outcome: Outcome::ALL.into_iter().find(|known| known.as_str() == outcome)?.as_str().to_owned(),
        time: Time(note.get("time")?.as_i64()?),
        milliseconds: note.get("milliseconds")?.as_u64()?,
        extract_milliseconds: note.get("extractMilliseconds")?.as_u64()?,
        actions: Vec::new(),
        drift: BTreeSet::new(),
    })
}
