//! What the fleet's task is told of its node by each cycle.

use nodetrust_core::{
    problem::ProblemKind,
    report::{LastRestart, Report},
    runtime::services::ServiceState,
};

/// A node after a cycle, as far as it matters to its fleet.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeFacts {
    /// A restart is due, and nothing but the fleet holds it back.
    pub wants_restart: bool,
    /// Digest of the set that the sources want: without anchors in grace, which differ between nodes.
    pub digest: String,
    /// Everything that should be trusted is, by the runtime too.
    pub is_healthy: bool,
    /// Why the runtime does not work; None if it does, or there is none.
    pub sick: Option<String>,
    /// The registry that the runtime refuses although the node's bundle trusts it, by the runtime's own word.
    pub refuses: Option<String>,
    /// Containers that did not outlive a restart in this cycle, in a sentence.
    pub lost: Option<String>,
    /// The last try to restart it.
    pub last_restart: Option<LastRestart>,
    /// The runtime's CRI socket on the host; None if there is no runtime.
    pub socket: Option<String>,
    /// When the host was looked at, in seconds since the epoch.
    pub time: i64,
}

impl NodeFacts {
    /// What a report says.
    pub fn of(report: &Report) -> Self {
        let runtime = report.runtime.as_ref();
        let held = runtime.and_then(|runtime| runtime.held.as_ref());
        let sick = runtime.and_then(|runtime| match &runtime.state {
            ServiceState::Active => runtime.sick.clone(),
            ServiceState::Changing => Some(format!("{} is starting or stopping", runtime.unit)),
            ServiceState::Down(state) | ServiceState::Failed(state) => Some(format!("{} is {state}", runtime.unit)),
        });
        let trust = &report.runtime_trust;
        let lost = report.problems.iter().find(|problem| problem.kind == ProblemKind::ContainersEnded);
        Self {
            wants_restart: held.is_some_and(|held| held.reason.is_of_fleet()),
            digest: report.sources_digest.to_string(),
            is_healthy: report.converged && trust.state.is_green() && sick.is_none(),
            sick,
            refuses: trust.refuses.clone(),
            lost: lost.map(|problem| problem.text.clone()),
            last_restart: runtime.and_then(|runtime| runtime.last_restart.clone()),
            socket: runtime.map(|runtime| runtime.socket.clone()),
            time: report.time.0,
        }
    }
}
