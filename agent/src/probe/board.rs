//! The last answer of each configured probe, for metrics and HTTP.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
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
pub struct Board(Mutex<BTreeMap<String, Result>>);

impl Board {
    /// Shows an answer.
    pub fn show(&self, result: Result) {
        self.lock().insert(result.probe.target.clone(), result);
    }

    /// Drops what is not configured any more.
    pub fn keep_only(&self, targets: &BTreeSet<&str>) {
        self.lock().retain(|target, _| targets.contains(target.as_str()));
    }

    /// The answers, in the order of the targets.
    pub fn all(&self) -> Vec<Result> {
        self.lock().values().cloned().collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Result>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
