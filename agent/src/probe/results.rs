//! The last answer of each configured probe, for metrics and HTTP.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use nodetrust_core::{
    probe::{Probe, Through},
    time::Time,
};
use serde::Serialize;

/// One answer.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Result {
    /// The answer.
    #[serde(flatten)]
    pub probe: Probe,
    /// When it was given.
    pub time: Time,
    /// How long it took.
    pub milliseconds: u64,
}

/// What is asked, and who.
pub type Question = (String, Through);

/// The last answer to each question; one that has not been answered yet has none.
#[derive(Debug, Default)]
pub struct Board(Mutex<BTreeMap<Question, Result>>, AtomicU64);

impl Board {
    /// Shows an answer.
    pub fn show(&self, result: Result) {
        self.lock().insert((result.probe.target.clone(), result.probe.through), result);
        self.1.fetch_add(1, Ordering::Release);
    }

    /// Drops what is not configured any more.
    pub fn keep_only(&self, questions: &BTreeSet<Question>) {
        self.lock().retain(|question, _| questions.contains(question));
        self.1.fetch_add(1, Ordering::Release);
    }

    /// How often the answers have changed.
    pub fn changes(&self) -> u64 {
        self.1.load(Ordering::Acquire)
    }

    /// The answers, in the order of the targets.
    pub fn all(&self) -> Vec<Result> {
        self.lock().values().cloned().collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Question, Result>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
