//! May an anchor that is in grace leave the nodes? Asked of the whole fleet, for `nodetrust topology --approve-removal`.
//!
//! It may if every Node reports, the sources of all want the same set, every Node has that set in force, and no runtime is stale or unknown.
//! Then nothing that the fleet trusts depends on an anchor in grace any more.

use std::collections::{BTreeMap, BTreeSet};

use fixedbitset::FixedBitSet;
use serde::Serialize;

use super::{
    count::{Count, Tally, members},
    findings,
    fleet::{FindingKind, FleetFinding},
    member::Member,
};
use crate::{
    certificate::fingerprint::SetDigest,
    fleet::removal::{AnchorKey, Approval, Approvals, CLOCK_SKEW, MAX_APPROVALS},
    ledger::AnchorState,
    text::plural,
    time::Time,
};

/// An approval of this age, in seconds, is given anew while its anchor is still in grace somewhere: a node counts no approval that is
/// older than the grace there, and a grace begins anew where a ledger was lost.
pub const RENEW_AFTER: i64 = 3600;
/// Most different sets for which a removal is approved against the findings.
const SETS: usize = 20;

/// What somebody wants to approve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RemovalRequest {
    /// Every anchor that is in grace on some node.
    All,
    /// This one.
    One(AnchorKey),
}

/// The answer to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RemovalVerdict {
    /// The removal is safe.
    Approved,
    /// It is not known to be safe, and was approved all the same.
    Overridden,
    /// It is not known to be safe.
    Refused,
    /// There is nothing to approve.
    NothingToDo,
}

/// An anchor that may leave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ApprovedAnchor {
    /// First 16 digits of its fingerprint, or all of them if the request had all.
    pub fingerprint: AnchorKey,
    /// Its common name, as far as the annotations tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub common_name: Option<String>,
    /// The sets with which it may leave: one, unless findings were overridden.
    pub desired_digests: BTreeSet<SetDigest>,
    /// Nodes that have it in grace.
    pub in_grace: usize,
}

/// What is decided about a request.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RemovalDecision {
    /// Version of this format.
    pub version: u32,
    /// The answer.
    pub verdict: RemovalVerdict,
    /// The answer in a sentence.
    pub headline: String,
    /// The anchors that may leave; empty if it was refused.
    pub anchors: Vec<ApprovedAnchor>,
    /// What stands against it, with the nodes, worst first.
    pub blocking: Vec<FleetFinding>,
    /// Anchors that are in grace on some node, by their first 16 digits.
    #[serde(skip)]
    in_grace: BTreeSet<String>,
}

/// Decides about a request, as of a time in seconds since the epoch. `force` approves whatever stands against it.
pub fn decide_removal(nodes: Vec<Member>, request: &RemovalRequest, force: bool, now: i64) -> RemovalDecision {
    let count = Count::of(nodes);
    let blocking = blocking(&count, now);
    let in_grace = |tally: &Tally| tally.states.get(&AnchorState::Grace).is_some_and(|nodes| !nodes.is_clear());
    let graced: BTreeSet<String> =
        count.anchors.iter().filter(|(_, tally)| in_grace(tally)).map(|(fp16, _)| fp16.clone()).collect();
    let meant = |fp16: &&String| match request {
        RemovalRequest::All => true,
        RemovalRequest::One(key) => key.fp16() == fp16.as_str(),
    };
    let anchors: Vec<ApprovedAnchor> =
        graced.iter().filter(meant).filter_map(|fp16| approved(&count, fp16, request)).take(MAX_APPROVALS).collect();
    let mut decision = RemovalDecision {
        version: 1,
        verdict: RemovalVerdict::Refused,
        headline: String::new(),
        anchors,
        blocking,
        in_grace: graced,
    };
    decision.conclude(&count, request, force);
    decision
}

impl RemovalDecision {
    fn conclude(&mut self, count: &Count, request: &RemovalRequest, force: bool) {
        let nodes = plural(count.names.len(), "node");
        let findings = self.blocking.len();
        if self.anchors.is_empty() {
            (self.verdict, self.headline) = nothing_in_grace(count, request);
            return;
        }
        let (what, is) = match self.anchors.as_slice() {
            [one] => (format!("the removal of {}", one.called()), "is"),
            many => (format!("{} removals", many.len()), "are"),
        };
        if findings == 0 {
            self.verdict = RemovalVerdict::Approved;
            self.headline = format!("{what} {is} safe: {nodes} hold every anchor that the sources want");
        } else if force && self.anchors.iter().any(|anchor| !anchor.desired_digests.is_empty()) {
            self.verdict = RemovalVerdict::Overridden;
            self.headline = format!("{what} {is} approved against {}", plural(findings, "finding"));
        } else {
            self.headline = format!("{what} would not be safe: {} in the way", plural(findings, "finding"));
            self.anchors.clear();
        }
    }

    /// Whether approvals are to be given, or old ones forgotten.
    pub fn is_effective(&self) -> bool {
        self.verdict != RemovalVerdict::Refused
    }

    /// The approvals after this decision, of those that are known; None if they stay as they are. Those for anchors that are in grace
    /// nowhere any more go.
    pub fn merge(&self, known: &Approvals, now: i64) -> Option<Approvals> {
        let mut next: BTreeMap<(String, SetDigest), Approval> = BTreeMap::new();
        let is_decided = |fp16: &str| self.anchors.iter().any(|anchor| anchor.fingerprint.fp16() == fp16);
        for approval in &known.0 {
            let fp16 = approval.fingerprint.fp16();
            if self.in_grace.contains(fp16) && !is_decided(fp16) {
                next.insert((fp16.to_owned(), approval.desired), approval.clone());
            }
        }
        for anchor in &self.anchors {
            for desired in &anchor.desired_digests {
                let fp16 = anchor.fingerprint.fp16();
                let is_fresh = |approval: &&Approval| {
                    approval.fingerprint.fp16() == fp16
                        && approval.desired == *desired
                        && (now.saturating_sub(RENEW_AFTER)..=now.saturating_add(CLOCK_SKEW)).contains(&approval.time.0)
                };
                let fresh = known.0.iter().find(is_fresh).cloned();
                let new = || Approval { fingerprint: anchor.fingerprint.clone(), desired: *desired, time: Time(now) };
                next.insert((fp16.to_owned(), *desired), fresh.unwrap_or_else(new));
            }
        }
        let next = Approvals(next.into_values().take(MAX_APPROVALS).collect());
        (next != *known).then_some(next)
    }
}

impl ApprovedAnchor {
    /// What people call it.
    pub fn called(&self) -> String {
        match &self.common_name {
            Some(name) => format!("{name} ({})", self.fingerprint.fp16()),
            None => self.fingerprint.to_string(),
        }
    }
}

fn approved(count: &Count, fp16: &str, request: &RemovalRequest) -> Option<ApprovedAnchor> {
    let tally = count.anchors.get(fp16)?;
    let in_grace = tally.states.get(&AnchorState::Grace)?;
    let there = |nodes: &FixedBitSet| !nodes.is_disjoint(in_grace);
    let digests = count.by_sources.iter().filter(|(_, nodes)| there(nodes));
    let fingerprint = match request {
        RemovalRequest::One(key) => key.clone(),
        RemovalRequest::All => fp16.parse().ok()?, // it was read as 16 digits
    };
    Some(ApprovedAnchor {
        fingerprint,
        common_name: tally.name().map(str::to_owned),
        desired_digests: digests.filter_map(|(digest, _)| digest.as_ref()?.parse().ok()).take(SETS).collect(),
        in_grace: members(in_grace),
    })
}

/// What is to be said where no anchor that is meant is in grace.
fn nothing_in_grace(count: &Count, request: &RemovalRequest) -> (RemovalVerdict, String) {
    let RemovalRequest::One(key) = request else {
        return (RemovalVerdict::NothingToDo, "no anchor is in grace on any node that reports".into());
    };
    let Some(tally) = count.anchors.get(key.fp16()) else {
        let cut = members(&count.reporting) - members(&count.complete); // who is complete reports
        let hidden = match cut {
            0 => String::new(),
            n => format!(
                "; {} more anchors than fit into an annotation",
                if n == 1 { "1 node has".into() } else { format!("{n} nodes have") }
            ),
        };
        return (
            RemovalVerdict::Refused,
            format!("no node that reports has {key}: it has left, or was never there{hidden}"),
        );
    };
    match tally.states.get(&AnchorState::Desired).map_or(0, members) {
        0 => (RemovalVerdict::NothingToDo, format!("{key} is on its way out already")),
        n => (
            RemovalVerdict::Refused,
            format!("{key} is in grace on no node: the sources of {} want it", plural(n, "node")),
        ),
    }
}

/// What stands against any removal.
fn blocking(count: &Count, now: i64) -> Vec<FleetFinding> {
    let leading = count.leading().map(str::to_owned);
    let mut found = findings::all(count, leading.as_deref(), now);
    // Sets are compared below, without anchors in grace. What has expired, or is called like another, is no reason to stay.
    found.retain(|finding| {
        matches!(
            finding.kind,
            FindingKind::GraceNeeded
                | FindingKind::NotConverged
                | FindingKind::RuntimeStale
                | FindingKind::RuntimeUnknown
                | FindingKind::TrustNotReady
                | FindingKind::OtherVersion
                | FindingKind::Unreadable
                | FindingKind::NoAgent
        )
    });
    found.extend(findings::sources(count));
    found.sort_by_key(|finding| (finding.severity, finding.kind));
    found
}

#[cfg(test)]
#[path = "approval_tests.rs"]
mod tests;
