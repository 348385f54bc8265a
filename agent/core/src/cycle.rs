//! Why a cycle runs, and how it ends.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a cycle runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
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
    /// A grace time ends, or the fleet's approvals changed.
    Grace,
    /// The last cycle did not reach its goal.
    Retry,
    /// Nothing happened for `resync`.
    Resync,
    /// The runtime has answered when it was asked about a registry.
    Witness,
    /// The fleet lets this node restart its runtime, or waits for word of how it is.
    Fleet,
    /// A person or a script ran a command.
    Command,
}

impl Trigger {
    /// Every trigger, for metrics.
    pub const ALL: [Self; 10] = [
        Self::Start,
        Self::Source,
        Self::Config,
        Self::Drift,
        Self::Grace,
        Self::Retry,
        Self::Resync,
        Self::Witness,
        Self::Fleet,
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
            Self::Fleet => "fleet",
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CycleOutcome {
    /// Nothing was to be done.
    Unchanged,
    /// Something was done, and the observation after it agrees.
    Changed,
    /// The node does not trust what it should, or still trusts what it should not.
    Failed,
}

impl CycleOutcome {
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

impl fmt::Display for CycleOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_json_and_of_metrics_are_the_same() {
        for trigger in Trigger::ALL {
            assert_eq!(serde_json::to_value(trigger).unwrap(), trigger.as_str());
        }
        for outcome in CycleOutcome::ALL {
            assert_eq!(serde_json::to_value(outcome).unwrap(), outcome.as_str());
        }
    }
}
