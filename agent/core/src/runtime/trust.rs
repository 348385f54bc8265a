//! Whether pulls through the container runtime trust what the bundle says: the four answers.

use serde::Serialize;

/// What is known of pulls through the runtime; also the label `state` of `nodetrust_runtime_state`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RuntimeState {
    /// They follow the bundle, and there is evidence of that.
    Current,
    /// They do not.
    Stale,
    /// It is not known whether they do.
    Unknown,
    /// There is no runtime, it does not run yet, or nobody asks.
    #[default]
    None,
}

impl RuntimeState {
    /// Every state, for metrics.
    pub const ALL: [Self; 4] = [Self::Current, Self::Stale, Self::Unknown, Self::None];

    /// The public name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Stale => "stale",
            Self::Unknown => "unknown",
            Self::None => "none",
        }
    }

    /// Whether a node may be called trusted.
    pub fn is_green(self) -> bool {
        matches!(self, Self::Current | Self::None)
    }
}

/// The answer about the runtime, with its reason.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RuntimeTrust {
    /// The answer.
    pub state: RuntimeState,
    /// The fact that decided, in a sentence.
    pub why: String,
    /// What would make it known, or would cure it; empty where nothing is to be done, or the restart that is due or held says it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub next: String,
    /// What was inferred and turned out to be wrong by the runtime's own word; None if nothing did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub misled: Option<String>,
    /// The registry whose certificate the runtime refuses although programs that start now trust it; None if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refuses: Option<String>,
    /// Seconds until it is worth looking again; None if only a change or an answer makes a difference.
    #[serde(skip)]
    pub again: Option<u64>,
}

impl RuntimeTrust {
    /// An answer without advice.
    pub(crate) fn of(state: RuntimeState, why: impl Into<String>) -> Self {
        Self { state, why: why.into(), ..Self::default() }
    }

    /// The answer for a node that could not be looked at.
    pub fn unseen() -> Self {
        Self::of(RuntimeState::Unknown, "not known: the node could not be looked at")
    }

    /// [`RuntimeState::Unknown`], and what would make it known.
    pub(crate) fn unknown(why: impl Into<String>, next: impl Into<String>) -> Self {
        Self { next: next.into(), ..Self::of(RuntimeState::Unknown, why) }
    }
}
