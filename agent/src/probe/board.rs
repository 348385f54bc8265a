//! The last answer of each configured probe, for metrics and HTTP.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use nodetrust_core::{probe::Probe, report::Time};
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

/// The last answer by target; a target that has not answered yet has none.
#[derive(Debug, Default)]
pub struct Board(Mutex<BTreeMap<String, Result>>, AtomicU64);

impl Board {
    /// Shows an answer.
    pub fn show(&self, result: Result) {
        self.lock().insert(result.probe.target.clone(), result);
        self.1.fetch_add(1, Ordering::Release);
    }

    /// Drops what is not configured any more.
    pub fn keep_only(&self, targets: &BTreeSet<&str>) {
        self.lock().retain(|target, _| targets.contains(target.as_str()));
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

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Result>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
