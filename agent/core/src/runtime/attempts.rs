//! Attempts to restart services, which the ledger keeps, and how close together they may be.

use serde::{Deserialize, Serialize};

use crate::time::Moment;

/// Seconds between two attempts.
pub const BETWEEN_ATTEMPTS: u64 = 60;
/// Attempts within [`ATTEMPTS_WINDOW`].
pub const MAX_ATTEMPTS: usize = 3;
/// Seconds over which attempts are counted.
pub const ATTEMPTS_WINDOW: u64 = 3600;
/// Seconds after a failed attempt: a person should look first.
pub const AFTER_FAILURE: u64 = 600;

/// An attempt to restart services. It is written down before it is made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RestartAttempt {
    /// When it was made.
    pub at: Moment,
    /// How it ended; None until that is known, and for ever if the agent was killed meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<AttemptOutcome>,
}

/// How an attempt to restart ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AttemptOutcome {
    /// The service runs anew and works.
    Done,
    /// It does not work, or never stopped: why.
    Failed(String),
}

/// The attempts that still count, with a new one.
pub fn with_attempt(attempts: &[RestartAttempt], at: &Moment) -> Vec<RestartAttempt> {
    let mut kept: Vec<RestartAttempt> = attempts.iter().rev().take(MAX_ATTEMPTS - 1).rev().cloned().collect();
    kept.push(RestartAttempt { at: at.clone(), outcome: None });
    kept
}
