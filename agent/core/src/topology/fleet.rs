//! The result: all nodes of a cluster side by side.

use std::collections::BTreeMap;

use serde::Serialize;

use super::restarts::FleetRestarts;
use crate::time::Time;

/// Most names of nodes in one list.
pub const NAMES: usize = 100;
/// Most different anchors that are told apart; annotations hold about a hundred each.
pub const ANCHORS: usize = 1000;
/// Most groups of nodes in the result.
pub const GROUPS: usize = 100;

/// Most templates that a finding names.
pub(super) const TEMPLATES: usize = 5;

/// The answer to "does every node trust the same, and is a rotation safe?".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FleetVerdict {
    /// Every node reports, and trusts one and the same set.
    Uniform,
    /// Some nodes differ, are not done, or do not report.
    Split,
    /// Something would break connections when a rotation goes on, or has to be cleaned up.
    Violation,
}

/// All nodes side by side.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Fleet {
    /// Version of this format.
    pub version: u32,
    /// The answer.
    pub verdict: FleetVerdict,
    /// The answer in a sentence.
    pub headline: String,
    /// Nodes of the cluster.
    pub nodes: usize,
    /// Nodes whose annotation can be read.
    pub reporting: usize,
    /// Nodes that want the set which most want, have it in force, and whose runtime follows it.
    pub agreeing: usize,
    /// Digest of the set that the sources of most nodes want; None if no node says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sources_digest: Option<String>,
    /// The anchors, those that some node lacks first.
    pub anchors: Vec<FleetAnchor>,
    /// Different anchors beyond [`ANCHORS`], at least.
    pub anchors_left_out: usize,
    /// Nodes by what they want and have, biggest first.
    pub groups: Vec<Group>,
    /// Groups beyond [`GROUPS`].
    pub groups_left_out: usize,
    /// What is not as it should be, worst first.
    pub findings: Vec<FleetFinding>,
    /// The restarts, as the Leases tell them; None if they could not be listed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restarts: Option<FleetRestarts>,
}

/// One anchor, over all nodes.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FleetAnchor {
    /// First 16 digits of its fingerprint.
    pub fp16: String,
    /// Its common name, as far as the annotations tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub common_name: Option<String>,
    /// Nodes by the state in which they have it.
    pub states: BTreeMap<&'static str, usize>,
    /// End of its validity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Time>,
    /// Nodes on which it is proven to be trusted.
    pub trusted: usize,
    /// Of each group in the result, the nodes on which it is proven to be trusted.
    #[serde(skip)]
    pub trusted_by_group: Vec<usize>,
    /// Nodes that report and do not trust it.
    pub lacking: Nodes,
    /// Nodes that do not say: they do not report, or have more anchors than fit into their annotation.
    pub unknown: usize,
}

/// Nodes that want and have the same.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Group {
    /// Digest of what they want.
    pub desired_digest: String,
    /// Digest of what they have.
    pub effective_digest: String,
    /// How many anchors the first of them has.
    pub anchors: usize,
    /// The nodes.
    pub nodes: Nodes,
}

/// Some nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Nodes {
    /// How many.
    pub count: usize,
    /// The first [`NAMES`] of them, sorted.
    pub names: Vec<String>,
}

/// Something that is not as it should be.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FleetFinding {
    /// What kind of thing.
    pub kind: FindingKind,
    /// How bad.
    pub severity: Severity,
    /// What exactly.
    pub text: String,
    /// What to do about it.
    pub next: String,
    /// Where.
    pub nodes: Nodes,
    /// The templates from which those nodes were made, at most five of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub templates: Vec<TemplateCount>,
}

/// A template from which nodes were made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TemplateCount {
    /// What the Nodes call it, as `KEY=VALUE` of a label or annotation.
    pub name: String,
    /// How many of the nodes were made from it.
    pub nodes: usize,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// See [`FleetVerdict::Violation`].
    Violation,
    /// See [`FleetVerdict::Split`].
    Split,
    /// Good to know.
    Note,
}

/// Kinds of findings, the worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FindingKind {
    /// An anchor is leaving, and a node that still has it lacks one that comes.
    GraceNeeded,
    /// Two anchors with one name, and nodes that trust only one of them.
    SameName,
    /// An anchor that has expired and is still trusted.
    Expired,
    /// Nodes want different sets.
    SourcesDiffer,
    /// An anchor leaves some nodes while others want it.
    LeavesSome,
    /// A set that only one node wants.
    LoneDigest,
    /// What is in force is not what is wanted.
    NotConverged,
    /// The container runtime is older than the set in force.
    RuntimeStale,
    /// Whether the container runtime follows the store is not known.
    RuntimeUnknown,
    /// The agent says that trust is not ready, for another reason.
    TrustNotReady,
    /// An agent of another version wrote the annotation.
    OtherVersion,
    /// The annotation cannot be read.
    Unreadable,
    /// No agent has reported.
    NoAgent,
    /// The agent says that trust is ready, and that something is worth a look.
    TrustedWithFindings,
    /// A file that is not ours holds a stale copy of a CA.
    StaleCopy,
    /// The node itself is not ready: what it reported may be old.
    NodeNotReady,
}
