//! Why a cycle runs, how it ends, what it tells, and the note of it that `status` reads.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use nodetrust_core::{
    action::Drift,
    certificate::fingerprint::Fingerprint,
    cycle::{CycleOutcome, Trigger},
    problem::{Problem, ProblemKind},
    report::{Cycle, HoldView, Report},
    runtime::service_plan::{Hold, RestartGate},
    time::Time,
};
use serde::Deserialize;

use crate::{
    host::{
        lock::{self, HostLock},
        root::HostRoot,
    },
    runtime::witness::Subject,
};

/// Everything that a cycle tells the rest of the agent.
#[derive(Debug, Clone)]
pub struct CycleResult {
    /// What everybody sees.
    pub report: Report,
    /// Why it ran.
    pub trigger: Trigger,
    /// How it ended.
    pub outcome: CycleOutcome,
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

/// Problems of a cycle that are noted.
const NOTED: usize = 4;

/// Notes the cycle for `status`; without the note it only says less.
pub(super) fn note_cycle(lock: &mut HostLock, report: &Report) {
    let Some(cycle) = &report.cycle else { return };
    let note = serde_json::json!({
        "trigger": cycle.trigger, "outcome": cycle.outcome, "time": report.time.0, "milliseconds": cycle.milliseconds,
        "extractMilliseconds": cycle.extract_milliseconds,
        "problems": report.problems.iter().filter(|problem| problem.kind.is_failure()).take(NOTED).collect::<Vec<_>>(),
        "held": report.runtime.as_ref().and_then(|runtime| runtime.held.as_ref()),
    });
    if let Err(error) = lock.note(&note.to_string()) {
        tracing::debug!(%error, "the last cycle could not be noted in the lock file");
    }
}

/// What the last cycle noted, without its actions.
pub(super) fn last_cycle(root: &HostRoot) -> Option<Cycle> {
    read_note(&lock::last_note(root)?)
}

/// What the fleet said of a restart in the last cycle.
pub(super) fn last_gate(root: &HostRoot) -> RestartGate {
    let held = || -> Option<HoldView> {
        let note: serde_json::Value = serde_json::from_str(&lock::last_note(root)?).ok()?;
        HoldView::deserialize(note.get("held")?).ok()
    };
    match held().filter(|held| held.reason.is_of_fleet()) {
        Some(HoldView { reason, why, next }) => RestartGate::Closed(Hold { reason, why, next, wait: None }),
        None => RestartGate::Open,
    }
}

/// Reads the note of a cycle. One with a word that no cycle uses was damaged, and says nothing.
pub(crate) fn read_note(text: &str) -> Option<Cycle> {
    let note: serde_json::Value = serde_json::from_str(text).ok()?;
    Some(Cycle {
        trigger: Trigger::deserialize(note.get("trigger")?).ok()?,
        outcome: CycleOutcome::deserialize(note.get("outcome")?).ok()?,
        time: Time(note.get("time")?.as_i64()?),
        milliseconds: note.get("milliseconds")?.as_u64()?,
        extract_milliseconds: note.get("extractMilliseconds")?.as_u64()?,
        actions: Vec::new(),
        drift: BTreeSet::new(),
        problems: note
            .get("problems")
            .and_then(serde_json::Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(read_problem)
            .collect(),
    })
}

/// A problem of a kind that there is.
fn read_problem(problem: &serde_json::Value) -> Option<Problem> {
    let word = |name: &str| problem.get(name).and_then(serde_json::Value::as_str);
    let kind = ProblemKind::ALL.into_iter().find(|kind| Some(kind.as_str()) == word("kind"))?;
    Some(Problem::new(kind, word("text")?, word("next").unwrap_or_default()))
}
