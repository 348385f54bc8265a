//! The latest result of each configured probe, for metrics and HTTP.

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

/// One result.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LatestResult {
    /// The verdict, with its reasons.
    #[serde(flatten)]
    pub probe: Probe,
    /// When the probe ended.
    pub time: Time,
    /// How long the probe took.
    pub milliseconds: u64,
}

/// A target, and who is asked whether it trusts it.
pub type Question = (String, Through);

/// The latest result of each question; one that was not asked yet has none.
#[derive(Debug, Default)]
pub struct LatestResults(Mutex<BTreeMap<Question, LatestResult>>, AtomicU64);

impl LatestResults {
    /// Replaces the result of a question.
    pub fn show(&self, result: LatestResult) {
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
    pub fn all(&self) -> Vec<LatestResult> {
        self.lock().values().cloned().collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Question, LatestResult>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
