//! The fleet: the trust of all nodes of a cluster side by side, and whether a rotation is safe there.
//!
//! In: of each node its name, two conditions and the text of its annotation, which is somebody else's and may be anything.
//! Out: a [`Fleet`]. Counts are exact; lists are bounded, and say how much was left out. Pure, and linear in nodes × anchors.

mod approval;
mod count;
mod findings;
mod fleet;
mod member;
mod progress;
mod restarts;
mod template;

use std::cmp::Reverse;

use fixedbitset::FixedBitSet;

use self::count::{Count, members};
pub use approval::{ApprovedAnchor, RENEW_AFTER, RemovalDecision, RemovalRequest, RemovalVerdict, decide_removal};
pub use fleet::{
    ANCHORS, FindingKind, Fleet, FleetAnchor, FleetFinding, FleetVerdict, GROUPS, Group, NAMES, Nodes, Severity,
    TemplateCount,
};
pub use member::{Member, TrustReady};
pub use progress::{RotationPace, RotationProgress};
pub use restarts::{FleetRestarts, HaltRow, HeldSlotRow};

use crate::text::plural;

/// Puts the nodes side by side, as of a time in seconds since the epoch.
pub fn fleet(nodes: Vec<Member>, now: i64) -> Fleet {
    let count = Count::of(nodes);
    let leading = count.leading().map(str::to_owned);
    let agreeing = count.agreeing(leading.as_deref());
    let findings = findings::all(&count, leading.as_deref(), now);
    let verdict = match findings.first().map(|finding| finding.severity) {
        _ if count.names.is_empty() => FleetVerdict::Split,
        Some(Severity::Violation) => FleetVerdict::Violation,
        Some(Severity::Split) => FleetVerdict::Split,
        Some(Severity::Note) | None => FleetVerdict::Uniform,
    };
    let mut groups: Vec<_> = count.groups.iter().collect();
    groups.sort_by_key(|(_, nodes)| Reverse(members(nodes))); // stable: then by digest
    let groups_left_out = groups.len().saturating_sub(GROUPS);
    groups.truncate(GROUPS);
    let mut fleet = Fleet {
        version: 1,
        verdict,
        headline: String::new(),
        nodes: count.names.len(),
        reporting: members(&count.reporting),
        agreeing,
        sources_digest: count.wanted_by_most(),
        anchors: count.rows(&groups.iter().map(|(_, nodes)| *nodes).collect::<Vec<_>>()),
        anchors_left_out: count.left_out.len(),
        groups: groups
            .into_iter()
            .map(|((desired, effective), nodes)| group(&count, desired, effective, nodes))
            .collect(),
        groups_left_out,
        findings,
        restarts: None,
    };
    fleet.headline = headline(&fleet);
    fleet
}

fn group(count: &Count, desired: &str, effective: &str, nodes: &FixedBitSet) -> Group {
    Group {
        desired_digest: desired.to_owned(),
        effective_digest: effective.to_owned(),
        anchors: count.sizes.get(desired).copied().unwrap_or(0),
        nodes: count.nodes(nodes),
    }
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
        Some(group) if fleet.agreeing == fleet.nodes && fleet.groups.len() == 1 => {
            format!("all {nodes} trust the same {}", plural(group.anchors, "anchor"))
        }
        Some(_) if fleet.agreeing == fleet.nodes => {
            format!(
                "all {nodes} trust what their sources want, the same everywhere; some have anchors in grace beside it"
            )
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
