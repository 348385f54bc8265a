//! The fleet: what all nodes of a cluster say of their trust, side by side, and whether a rotation is safe there.
//!
//! In: of each node its name, two conditions and the text of its annotation, which is somebody else's and may be anything.
//! Out: a [`Fleet`]. Counts are exact; lists are bounded, and say how much was left out. Pure, and linear in nodes × anchors.

mod bits;
mod findings;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use serde::{Deserialize, Serialize};

use self::bits::Bits;
use crate::{
    certificate::name::visible,
    ledger::AnchorState,
    node_status::{ANNOTATION, ANNOTATION_LIMIT, NodeObject, NodeStatus},
    text::plural,
    time::Time,
};

/// Most names of nodes in one list.
pub const NAMES: usize = 100;
/// Most different anchors that are told apart; annotations hold about a hundred each.
pub const ANCHORS: usize = 1000;
/// Most groups of nodes in the result.
pub const GROUPS: usize = 100;

/// A node, as the API server shows it.
#[derive(Debug, Clone, Default)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Its condition `Ready`; None if it has none.
    pub ready: Option<bool>,
    /// Its condition [`crate::node_status::CONDITION`], if it has one.
    pub trust_ready: Option<TrustReady>,
    /// Its annotation [`crate::node_status::ANNOTATION`], if it has one.
    pub annotation: Option<String>,
}

/// The condition that the agent sets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustReady {
    /// Its status is `True`.
    pub holds: bool,
    /// Its reason.
    pub reason: String,
}

/// The answer to "does every node trust the same, and is a rotation safe?".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
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
    pub verdict: Verdict,
    /// The answer in a sentence.
    pub headline: String,
    /// Nodes of the cluster.
    pub nodes: usize,
    /// Nodes whose annotation can be read.
    pub reporting: usize,
    /// Nodes that want the set which most want, have it in force, and whose runtime follows it.
    pub agreeing: usize,
    /// The anchors, those that some node lacks first.
    pub anchors: Vec<AnchorRow>,
    /// Different anchors beyond [`ANCHORS`], at least.
    pub anchors_left_out: usize,
    /// Nodes by what they want and have, biggest first.
    pub groups: Vec<Group>,
    /// Groups beyond [`GROUPS`].
    pub groups_left_out: usize,
    /// What is not as it should be, worst first.
    pub findings: Vec<Finding>,
}

/// One anchor, over all nodes.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AnchorRow {
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
pub struct Finding {
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
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// See [`Verdict::Violation`].
    Violation,
    /// See [`Verdict::Split`].
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
    /// The node itself is not ready: what it reported may be old.
    NodeNotReady,
}

/// One anchor while nodes are counted.
#[derive(Debug, Default)]
struct Tally {
    names: BTreeMap<String, usize>,
    ends: BTreeMap<i64, usize>,
    states: BTreeMap<AnchorState, Bits>,
    trusted: Bits,
}

/// Everything that was counted.
#[derive(Debug, Default)]
struct Count {
    /// The names, by index.
    names: Vec<String>,
    anchors: BTreeMap<String, Tally>,
    left_out: BTreeSet<String>,
    /// By what they want, then by what they have.
    groups: BTreeMap<(String, String), Bits>,
    /// How many anchors the first node says to have that wants a set.
    sizes: BTreeMap<String, usize>,
    /// Nodes whose annotation can be read.
    reporting: Bits,
    /// Those whose annotation has all their anchors.
    complete: Bits,
    /// What else is to be said of nodes, with details where there are several kinds.
    marks: BTreeMap<(FindingKind, String), Bits>,
}

/// Puts the nodes side by side, as of a time in seconds since the epoch.
pub fn fleet(mut members: Vec<Member>, now: i64) -> Fleet {
    members.sort_by(|one, two| one.name.cmp(&two.name));
    let mut count = Count::default();
    for (index, member) in members.into_iter().enumerate() {
        count.take(index, member);
    }
    let leading = count.leading().map(str::to_owned);
    let agreeing = count.agreeing(leading.as_deref());
    let findings = findings::all(&count, leading.as_deref(), now);
    let verdict = match findings.first().map(|finding| finding.severity) {
        _ if count.names.is_empty() => Verdict::Split,
        Some(Severity::Violation) => Verdict::Violation,
        Some(Severity::Split) => Verdict::Split,
        Some(Severity::Note) | None => Verdict::Uniform,
    };
    let mut groups: Vec<Group> = count
        .groups
        .iter()
        .map(|((desired, effective), nodes)| Group {
            desired_digest: desired.clone(),
            effective_digest: effective.clone(),
            anchors: count.sizes.get(desired).copied().unwrap_or(0),
            nodes: count.nodes(nodes),
        })
        .collect();
    groups.sort_by_key(|group| Reverse(group.nodes.count)); // stable: then by digest
    let groups_left_out = groups.len().saturating_sub(GROUPS);
    groups.truncate(GROUPS);
    let mut fleet = Fleet {
        version: 1,
        verdict,
        headline: String::new(),
        nodes: count.names.len(),
        reporting: count.reporting.count(),
        agreeing,
        anchors: count.rows(),
        anchors_left_out: count.left_out.len(),
        groups,
        groups_left_out,
        findings,
    };
    fleet.headline = headline(&fleet);
    fleet
}

impl Member {
    /// What concerns us of a Node.
    pub fn of(mut node: NodeObject) -> Self {
        let conditions = node.status.conditions.as_deref().unwrap_or_default();
        let ready = conditions.iter().find(|condition| condition.kind == "Ready").map(|ready| ready.status == "True");
        let trust_ready = node
            .condition()
            .map(|condition| TrustReady { holds: condition.status == "True", reason: condition.reason.clone() });
        let annotation = node.metadata.annotations.as_mut().and_then(|annotations| annotations.remove(ANNOTATION));
        Self { name: node.metadata.name, ready, trust_ready, annotation }
    }
}

impl Count {
    fn take(&mut self, index: usize, member: Member) {
        // names of objects are checked by the API server; what comes from elsewhere does not draw on a terminal either
        self.names.push(visible(&member.name));
        if member.ready != Some(true) {
            self.mark(FindingKind::NodeNotReady, "", index);
        }
        let status = match member.annotation.as_deref().map(read) {
            None if member.trust_ready.is_none() => return self.mark(FindingKind::NoAgent, "", index),
            None => return self.mark(FindingKind::Unreadable, "there is the condition and no annotation", index),
            Some(Err((kind, why))) => return self.mark(kind, why, index),
            Some(Ok(status)) => status,
        };
        self.reporting.insert(index);
        if status.more == 0 {
            self.complete.insert(index);
        }
        match member.trust_ready {
            _ if status.desired != status.effective => self.mark(FindingKind::NotConverged, "", index),
            _ if status.runtime_stale => self.mark(FindingKind::RuntimeStale, "", index),
            _ if status.runtime_unknown => self.mark(FindingKind::RuntimeUnknown, "", index),
            Some(condition) if !condition.holds => self.mark(FindingKind::TrustNotReady, &condition.reason, index),
            _ => {}
        }
        for anchor in &status.anchors {
            if !self.anchors.contains_key(&anchor.fp16) && self.anchors.len() >= ANCHORS {
                if self.left_out.len() < ANCHORS {
                    self.left_out.insert(anchor.fp16.clone());
                }
                continue;
            }
            let tally = self.anchors.entry(anchor.fp16.clone()).or_default();
            if !anchor.cn.is_empty() {
                *tally.names.entry(visible(&anchor.cn)).or_default() += 1;
            }
            *tally.ends.entry(anchor.not_after.0).or_default() += 1;
            tally.states.entry(anchor.state).or_default().insert(index);
            if anchor.trusted {
                tally.trusted.insert(index);
            }
        }
        self.sizes.entry(status.desired.clone()).or_insert(status.anchors.len().saturating_add(status.more));
        self.groups.entry((status.desired, status.effective)).or_default().insert(index);
    }

    fn mark(&mut self, kind: FindingKind, detail: &str, index: usize) {
        self.marks.entry((kind, short(detail))).or_default().insert(index);
    }

    /// The digest that most nodes want; the smallest of several.
    fn leading(&self) -> Option<&str> {
        let wanted = self.wanted();
        let most = wanted.values().map(Bits::count).max()?;
        wanted.into_iter().find(|(_, nodes)| nodes.count() == most).map(|(digest, _)| digest)
    }

    /// Nodes by what they want.
    fn wanted(&self) -> BTreeMap<&str, Bits> {
        let mut wanted: BTreeMap<&str, Bits> = BTreeMap::new();
        for ((desired, _), nodes) in &self.groups {
            wanted.entry(desired).or_default().add(nodes);
        }
        wanted
    }

    fn agreeing(&self, leading: Option<&str>) -> usize {
        let Some(leading) = leading else { return 0 };
        let Some(there) = self.groups.get(&(leading.to_owned(), leading.to_owned())) else { return 0 };
        let held_up = |kind: &FindingKind| {
            matches!(kind, FindingKind::RuntimeStale | FindingKind::RuntimeUnknown | FindingKind::TrustNotReady)
        };
        let mut there = there.clone();
        for ((_, _), nodes) in self.marks.iter().filter(|((kind, _), _)| held_up(kind)) {
            there = there.without(nodes);
        }
        there.count()
    }

    fn nodes(&self, nodes: &Bits) -> Nodes {
        let names = nodes.iter().take(NAMES).filter_map(|index| self.names.get(index).cloned()).collect();
        Nodes { count: nodes.count(), names }
    }

    /// Nodes that say that they do not trust it.
    fn lacking(&self, tally: &Tally) -> Bits {
        let mut lacking = self.complete.clone();
        lacking.add(&tally.listed()); // it is listed, and still not proven
        lacking.without(&tally.trusted)
    }

    fn rows(&self) -> Vec<AnchorRow> {
        let row = |(fp16, tally): (&String, &Tally)| {
            let lacking = self.lacking(tally);
            let trusted = tally.trusted.count();
            AnchorRow {
                fp16: fp16.clone(),
                common_name: tally.name().map(str::to_owned),
                states: tally.states.iter().map(|(state, nodes)| (state.as_str(), nodes.count())).collect(),
                not_after: tally.end().map(Time),
                trusted,
                unknown: self.names.len() - trusted - lacking.count(), // both are sets of nodes, and have none in common
                lacking: self.nodes(&lacking),
            }
        };
        let mut rows: Vec<AnchorRow> = self.anchors.iter().map(row).collect();
        rows.sort_by(|one, two| {
            let key =
                |row: &AnchorRow| (row.lacking.count == 0, row.common_name.clone(), row.not_after, row.fp16.clone());
            key(one).cmp(&key(two))
        });
        rows
    }
}

impl Tally {
    /// Nodes that have it in any state.
    fn listed(&self) -> Bits {
        let mut listed = Bits::default();
        for nodes in self.states.values() {
            listed.add(nodes);
        }
        listed
    }

    /// The name that most nodes give.
    fn name(&self) -> Option<&str> {
        most(&self.names).map(String::as_str)
    }

    /// The end of validity that most nodes give.
    fn end(&self) -> Option<i64> {
        most(&self.ends).copied()
    }
}

/// Reads an annotation that anybody may have written who can patch nodes.
fn read(text: &str) -> Result<NodeStatus, (FindingKind, &'static str)> {
    #[derive(Deserialize)]
    struct Version {
        v: u64,
    }
    if text.len() > ANNOTATION_LIMIT {
        return Err((FindingKind::Unreadable, "it is larger than the agent makes it"));
    }
    let Some(status) = NodeStatus::parse(text) else {
        return Err(match serde_json::from_str(text) {
            Ok(Version { v }) if v != 1 => (FindingKind::OtherVersion, ""),
            _ => (FindingKind::Unreadable, "it is not the JSON that the agent writes"),
        });
    };
    let digits = |text: &str, count: usize| {
        text.len() == count && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let names: BTreeSet<&str> = status.anchors.iter().map(|anchor| anchor.fp16.as_str()).collect();
    let sound = digits(&status.desired, 64)
        && digits(&status.effective, 64)
        && names.len() == status.anchors.len()
        && names.iter().all(|name| digits(name, 16));
    if sound { Ok(status) } else { Err((FindingKind::Unreadable, "its digests are not what the agent writes")) }
}

/// The key with the highest count; the first of several.
fn most<K>(counts: &BTreeMap<K, usize>) -> Option<&K> {
    let highest = counts.values().max()?;
    counts.iter().find(|(_, count)| *count == highest).map(|(key, _)| key)
}

/// The first 200 characters, made visible.
fn short(text: &str) -> String {
    visible(text).chars().take(200).collect()
}

fn headline(fleet: &Fleet) -> String {
    let nodes = plural(fleet.nodes, "node");
    if fleet.nodes == 0 {
        return "the cluster has no nodes".into();
    }
    if fleet.reporting == 0 {
        return format!("none of {nodes} reports: is the agent installed, and may it patch its node?");
    }
    let agreeing = match fleet.groups.first() {
        Some(group) if fleet.agreeing == 1 && fleet.nodes == 1 => {
            format!("the only node trusts {}", plural(group.anchors, "anchor"))
        }
        Some(group) if fleet.agreeing == fleet.nodes => {
            format!("all {nodes} trust the same {}", plural(group.anchors, "anchor"))
        }
        _ => format!("{} of {nodes} trust the same and are done", fleet.agreeing),
    };
    let violations = fleet.findings.iter().filter(|finding| finding.severity == Severity::Violation).count();
    let silent = fleet.nodes - fleet.reporting; // reporting nodes are nodes
    let mut text = match violations {
        0 => agreeing,
        n => format!("{}; {agreeing}", plural(n, "violation")),
    };
    let differ = fleet.reporting - fleet.agreeing; // who agrees has reported
    if differ > 0 {
        text.push_str(&format!(", {differ} {} not done", if differ == 1 { "differs or is" } else { "differ or are" }));
    }
    if silent > 0 {
        text.push_str(&format!(", {silent} {} not report", if silent == 1 { "does" } else { "do" }));
    }
    text
}

#[cfg(test)]
mod tests;
