//! The condition: whether the node trusts what it should, in the API's words.

use crate::{
    problem::ProblemKind,
    report::{NodeVerdict, Report},
    runtime::{services::HoldReason, trust::RuntimeState},
    source::SourceStatus,
    text::clip,
};

/// Type of the condition.
pub const CONDITION: &str = "nodetrust.io/TrustReady";
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

/// The headline, but for what it may say of ages, or of who else restarts now: they would change the object again and again.
fn message(report: &Report) -> String {
    if let Some(runtime) = &report.runtime
        && report.verdict == NodeVerdict::NotTrustedByRuntime
        && let Some(held) = &runtime.held
        && (held.reason == HoldReason::RateLimit || held.reason.is_of_fleet())
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
