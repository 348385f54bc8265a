//! What a node tells its cluster: a condition, an annotation, events, and whether its startup taint may go.
//!
//! In: the [`Report`], and what the Node object says already. Out: values, and the patches that make the object say them. At
//! rest there is nothing to write: no signal holds the time of a cycle or an age.

mod annotation;
mod events;
mod object;

pub use annotation::{AnchorMark, NAME_LIMIT, NodeStatus};
pub use events::{EventKind, NodeEvent, events, taint_without_proof};
pub use object::{BadTaint, NodeCondition, NodeObject, TAINT, Taint, Write, pause, writes};

use std::time::Duration;

use crate::{
    problem::ProblemKind,
    report::{NodeVerdict, Report},
    runtime::{services::HoldReason, trust::RuntimeState},
    source::SourceStatus,
    time::Time,
};

/// Type of the condition.
pub const CONDITION: &str = "nodetrust.io/TrustReady";
/// Key of the annotation.
pub const ANNOTATION: &str = "nodetrust.io/status";
/// Who sends the events.
pub const REPORTER: &str = "nodetrust";
/// Longest annotation, in bytes.
pub const ANNOTATION_LIMIT: usize = 8 << 10;
/// How long a startup taint stays at most, once the store is proven, while it is not known whether the runtime trusts: a node must not stay
/// out of use for a doubt that nobody may be able to settle.
pub const TAINT_PATIENCE: Duration = Duration::from_secs(600);
/// Longest message of a condition or event, in bytes: what the API takes for an event.
pub const MESSAGE_LIMIT: usize = 1000;

/// Why the condition is as it is; also the reason in the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConditionReason {
    /// Every anchor that should be trusted is.
    Trusted,
    /// A source gives nothing usable.
    SourceUnavailable,
    /// A source has something that was not accepted.
    SourceRejected,
    /// The store's tool did not do its work.
    ExtractFailed,
    /// The bundle lacks an anchor, or cannot be used.
    NotTrusted,
    /// The runtime's process is older than the bundle.
    RuntimeStale,
    /// So it is, and its restart is held back.
    RestartHeld,
    /// Whether the runtime's process knows what the bundle says cannot be told.
    RuntimeUnknown,
    /// There is no store that can be written.
    UnsupportedStore,
}

impl ConditionReason {
    /// Every reason.
    pub const ALL: [Self; 9] = [
        Self::Trusted,
        Self::SourceUnavailable,
        Self::SourceRejected,
        Self::ExtractFailed,
        Self::NotTrusted,
        Self::RuntimeStale,
        Self::RestartHeld,
        Self::RuntimeUnknown,
        Self::UnsupportedStore,
    ];

    /// The public name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trusted => "Trusted",
            Self::SourceUnavailable => "SourceUnavailable",
            Self::SourceRejected => "SourceRejected",
            Self::ExtractFailed => "ExtractFailed",
            Self::NotTrusted => "NotTrusted",
            Self::RuntimeStale => "RuntimeStale",
            Self::RestartHeld => "RestartHeld",
            Self::RuntimeUnknown => "RuntimeUnknown",
            Self::UnsupportedStore => "UnsupportedStore",
        }
    }
}

/// The status of a condition, in the API's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not.
    False,
    /// It is not known whether it does.
    Unknown,
}

impl ConditionStatus {
    /// The public name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// The condition [`CONDITION`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// Whether every anchor that should be trusted is in the extracted bundle, and the runtime's process is not older than that. Unknown: the
    /// first half is true.
    pub status: ConditionStatus,
    /// Why; where the status is True, what is worth a look all the same.
    pub reason: ConditionReason,
    /// The same in a sentence.
    pub message: String,
}

impl Condition {
    /// Whether all anchors are surely in the extracted bundle, whatever the runtime does.
    pub fn proves_store(&self) -> bool {
        self.status != ConditionStatus::False
            || matches!(self.reason, ConditionReason::RuntimeStale | ConditionReason::RestartHeld)
    }
}

/// What the Node object should say. What is None is not ours to say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Signals {
    /// The condition, and since when its status is what it is.
    pub condition: Option<(Condition, Time)>,
    /// The annotation's text.
    pub annotation: Option<String>,
    /// The startup taint that has done its work.
    pub done_with: Option<Taint>,
}

impl Signals {
    /// Whether the startup taint that has to go has another's name.
    pub fn takes_foreign_taint(&self) -> bool {
        self.done_with.as_ref().is_some_and(|taint| !taint.is_own())
    }
}

/// The condition that a report asks for.
pub fn condition(report: &Report) -> Condition {
    let (status, reason) = judge(report);
    Condition { status, reason, message: clip(&message(report), MESSAGE_LIMIT) }
}

fn judge(report: &Report) -> (ConditionStatus, ConditionReason) {
    use ConditionStatus::{False, True, Unknown};
    let of = |status| report.sources.iter().any(move |source| source.status == status);
    let rejected = report.sources.iter().any(|source| !source.rejections.is_empty());
    let stale = report.runtime.as_ref().filter(|runtime| runtime.stale);
    match report.verdict {
        NodeVerdict::UnsupportedStore => (False, ConditionReason::UnsupportedStore),
        NodeVerdict::NotTrusted if report.anchors.is_empty() && of(SourceStatus::Failed) => (False, silence(report)),
        NodeVerdict::NotTrusted => {
            (False, if tool_failed(report) { ConditionReason::ExtractFailed } else { ConditionReason::NotTrusted })
        }
        // what such a source would want is unknown, and it is not there
        _ if of(SourceStatus::Failed) => (False, silence(report)),
        _ if let Some(runtime) = stale => {
            (False, if runtime.held.is_some() { ConditionReason::RestartHeld } else { ConditionReason::RuntimeStale })
        }
        _ if report.runtime_trust.state == RuntimeState::Unknown => (Unknown, ConditionReason::RuntimeUnknown),
        NodeVerdict::NotConverged if tool_failed(report) => (True, ConditionReason::ExtractFailed),
        _ if of(SourceStatus::Held) => (True, ConditionReason::SourceUnavailable),
        _ if rejected => (True, ConditionReason::SourceRejected),
        _ => (True, ConditionReason::Trusted),
    }
}

/// A source that never gave anything: was everything refused, or was there nothing?
fn silence(report: &Report) -> ConditionReason {
    let mut failed = report.sources.iter().filter(|source| source.status == SourceStatus::Failed);
    if failed.all(|source| !source.rejections.is_empty()) {
        ConditionReason::SourceRejected
    } else {
        ConditionReason::SourceUnavailable
    }
}

fn tool_failed(report: &Report) -> bool {
    let is = |kind| matches!(kind, ProblemKind::Extract | ProblemKind::ForeignLost | ProblemKind::Write);
    report.problems.iter().any(|problem| is(problem.kind))
}

/// The headline, but for what it may say of ages: they would change the object at each cycle.
fn message(report: &Report) -> String {
    if let Some(runtime) = &report.runtime
        && report.verdict == NodeVerdict::NotTrustedByRuntime
        && let Some(held) = runtime.held.as_ref().filter(|held| held.reason == HoldReason::RateLimit)
    {
        return format!("{}; a restart is held ({})", runtime.why, held.reason.as_str());
    }
    let failed = report.sources.iter().find(|source| source.status == SourceStatus::Failed);
    match failed {
        Some(source) if !matches!(report.verdict, NodeVerdict::NotTrusted | NodeVerdict::UnsupportedStore) => {
            format!("source {} gives nothing usable: {}", source.name, source.detail)
        }
        _ => report.headline.clone(),
    }
}

/// A text of at most `limit` bytes.
fn clip(text: &str, limit: usize) -> String {
    if text.len() <= limit {
        return text.to_owned();
    }
    const MORE: &str = "…";
    let end = (0..=limit.saturating_sub(MORE.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    format!("{}{MORE}", &text[..end])
}

#[cfg(test)]
mod tests;
