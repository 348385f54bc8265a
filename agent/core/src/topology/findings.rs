//! What is not as it should be in a fleet, worst first.

use std::collections::BTreeMap;

use fixedbitset::FixedBitSet;

use super::{
    count::{Count, Tally, members},
    fleet::{FindingKind, FleetFinding, Severity},
};
use crate::{ledger::AnchorState, node_status::NAME_LIMIT, text::plural, time::Time};

/// Most different details that are told apart for one kind; further nodes come under one heading.
const DETAILS: usize = 10;
/// Anchors that are named in a sentence.
const NAMED: usize = 3;
/// Most anchors with a finding of their own, for each kind.
const ANCHORS: usize = 20;

/// All findings.
pub(super) fn all(count: &Count, leading: Option<&str>, now: i64) -> Vec<FleetFinding> {
    let mut findings = Vec::new();
    grace_needed(count, &mut findings);
    same_name(count, &mut findings);
    expired(count, now, &mut findings);
    sets(count, leading, &mut findings);
    leaves_some(count, &mut findings);
    marks(count, &mut findings);
    findings.sort_by_key(|finding| (finding.severity, finding.kind)); // stable: then as they were found
    findings
}

/// An anchor leaves (it is in grace on a node that wants others), and a node that still trusts it lacks one of those others: what is
/// issued under the new one fails there, so the old one must stay everywhere. An anchor of the same name counts as the one that
/// replaces it; without one, everything that those nodes want.
fn grace_needed(count: &Count, findings: &mut Vec<FleetFinding>) {
    let mut rest = Rest::default();
    for (fp16, leaving) in &count.anchors {
        let Some(in_grace) = leaving.states.get(&AnchorState::Grace) else { continue };
        let comes = |(other, tally): &(&String, &Tally)| {
            *other != fp16 && tally.states.get(&AnchorState::Desired).is_some_and(|nodes| !nodes.is_disjoint(in_grace))
        };
        let coming: Vec<(&String, &Tally)> = count.anchors.iter().filter(comes).collect();
        let namesake = |tally: &Tally| leaving.name().is_some() && tally.name() == leaving.name();
        let namesakes = coming.iter().any(|(_, tally)| namesake(tally));
        let mut needed_on = FixedBitSet::default();
        let mut missing = Vec::new();
        for (other, tally) in coming.into_iter().filter(|(_, tally)| !namesakes || namesake(tally)) {
            let lacks = &count.lacking(tally) & &leaving.listed();
            if !lacks.is_clear() {
                needed_on.union_with(&lacks);
                missing.push(called(other, tally));
            }
        }
        if missing.is_empty() || rest.is_full() {
            rest.add(&needed_on);
            continue;
        }
        let text = format!(
            "{} leaves (in grace on {}), and {} that still {} it {} {}",
            called(fp16, leaving),
            plural(members(in_grace), "node"),
            plural(members(&needed_on), "node"),
            if members(&needed_on) == 1 { "has" } else { "have" },
            if members(&needed_on) == 1 { "lacks" } else { "lack" },
            list(&missing),
        );
        let next = "issue nothing under the new CA yet; see why those nodes lack it, and put the old one back into the sources if its grace ends first";
        findings.push(finding(count, FindingKind::GraceNeeded, text, next, &needed_on));
        rest.shown += 1;
    }
    rest.tell(count, FindingKind::GraceNeeded, findings);
}

/// Two CAs of one name: a chain that ends in that name is good on one node and bad on the other.
fn same_name(count: &Count, findings: &mut Vec<FleetFinding>) {
    let mut named: BTreeMap<&str, Vec<(&String, &Tally)>> = BTreeMap::new();
    for (fp16, tally) in count.anchors.iter().filter(|(_, tally)| !tally.trusted.is_clear()) {
        // a name that was cut may be another one
        if let Some(name) = tally.name().filter(|name| name.chars().count() < NAME_LIMIT) {
            named.entry(name).or_default().push((fp16, tally));
        }
    }
    let mut rest = Rest::default();
    for (name, anchors) in named.into_iter().filter(|(_, anchors)| anchors.len() > 1) {
        let mut some = FixedBitSet::default();
        for (_, tally) in &anchors {
            some.union_with(&tally.trusted);
        }
        let mut not_all = FixedBitSet::default();
        for (_, tally) in &anchors {
            not_all.union_with(&(&count.lacking(tally) & &some));
        }
        if not_all.is_clear() {
            continue;
        }
        if rest.is_full() {
            rest.add(&not_all);
            continue;
        }
        let digits: Vec<String> = anchors.iter().map(|(fp16, _)| (*fp16).clone()).collect();
        let text = format!(
            "{} CAs are called {name} ({}), and {} trust only some of them: the same chain is good on one node and fails on another",
            anchors.len(),
            list(&digits),
            plural(members(&not_all), "node"),
        );
        let next = "bring both to all nodes before anything is issued under the newer one, and look at fingerprints, not at names";
        findings.push(finding(count, FindingKind::SameName, text, next, &not_all));
        rest.shown += 1;
    }
    rest.tell(count, FindingKind::SameName, findings);
}

fn expired(count: &Count, now: i64, findings: &mut Vec<FleetFinding>) {
    let mut rest = Rest::default();
    for (fp16, tally) in &count.anchors {
        let Some(end) = tally.end().filter(|end| *end < now && !tally.trusted.is_clear()) else { continue };
        if rest.is_full() {
            rest.add(&tally.trusted);
            continue;
        }
        let text = format!("{} expired at {} and is still trusted", called(fp16, tally), Time(end));
        let next = "take it out of the sources; time alone removes no anchor";
        findings.push(finding(count, FindingKind::Expired, text, next, &tally.trusted));
        rest.shown += 1;
    }
    rest.tell(count, FindingKind::Expired, findings);
}

/// Nodes that want another set than most.
fn sets(count: &Count, leading: Option<&str>, findings: &mut Vec<FleetFinding>) {
    let wanted = count.wanted();
    let (Some(leading), true) = (leading, wanted.len() > 1) else { return };
    let mut others = FixedBitSet::default();
    let mut alone = FixedBitSet::default();
    for (_, nodes) in wanted.iter().filter(|(digest, _)| **digest != leading) {
        others.union_with(nodes);
        if members(nodes) == 1 && wanted.get(leading).is_some_and(|nodes| members(nodes) > 1) {
            alone.union_with(nodes);
        }
    }
    let text = format!(
        "{} different sets are wanted; {} {} another one than most",
        wanted.len(),
        plural(members(&others), "node"),
        if members(&others) == 1 { "wants" } else { "want" },
    );
    let next = "compare the sources of these nodes (NODE_STATUS) with those of the others: nodes of one cluster usually mount the same ConfigMap, and a change reaches all within two minutes";
    findings.push(finding(count, FindingKind::SourcesDiffer, text, next, &others));
    if !alone.is_clear() {
        let text = format!(
            "{} a set that no other node wants",
            if members(&alone) == 1 { "1 node wants".into() } else { format!("{} nodes each want", members(&alone)) }
        );
        let next = "look at its sources with NODE_STATUS: a hostPath source that nobody maintains, or a mount that stands still?";
        findings.push(finding(count, FindingKind::LoneDigest, text, next, &alone));
    }
}

/// Anchors in grace on some nodes, whose sources have them no longer, and wanted by the sources of others, where all else that these nodes want is the
/// same: what is in grace belongs to it.
fn leaves_some(count: &Count, findings: &mut Vec<FleetFinding>) {
    let mut rest = Rest::default();
    for (fp16, tally) in &count.anchors {
        let (Some(leaves), Some(stays)) =
            (tally.states.get(&AnchorState::Grace), tally.states.get(&AnchorState::Desired))
        else {
            continue;
        };
        let mut leaves = leaves.clone();
        if let Some(silent) = count.by_sources.get(&None) {
            leaves.difference_with(silent); // whether their sources want it they do not say
        }
        let leaves = &leaves;
        let mut alike: BTreeMap<&str, (bool, bool)> = BTreeMap::new();
        for ((desired, _), nodes) in &count.groups {
            let (some_leave, some_stay) = alike.entry(desired).or_default();
            *some_leave |= !nodes.is_disjoint(leaves);
            *some_stay |= !nodes.is_disjoint(stays);
        }
        if !alike.values().any(|(some_leave, some_stay)| *some_leave && *some_stay) {
            continue;
        }
        if rest.is_full() {
            rest.add(leaves);
            continue;
        }
        let text = format!(
            "{} leaves {} after its grace, and the sources of {} want it",
            called(fp16, tally),
            plural(members(leaves), "node"),
            plural(members(stays), "node"),
        );
        let next = "make the sources equal: put it back into those of the nodes that it leaves, or take it out of the others'. NODE_STATUS says when it leaves";
        findings.push(finding(count, FindingKind::LeavesSome, text, next, leaves));
        rest.shown += 1;
    }
    rest.tell(count, FindingKind::LeavesSome, findings);
}

/// Nodes whose sources want another set than those of most, and those that do not say, for whoever decides about a removal. Anchors in
/// grace do not count.
pub(super) fn sources(count: &Count) -> Vec<FleetFinding> {
    let mut findings = Vec::new();
    if let Some(silent) = count.by_sources.get(&None) {
        let text = format!(
            "the agents of {} do not say what their sources want without the anchors in grace: their version is older",
            plural(members(silent), "node")
        );
        let next = "wait for the end of the rollout of this version";
        findings.push(finding(count, FindingKind::OtherVersion, text, next, silent));
    }
    let sets: Vec<&FixedBitSet> =
        count.by_sources.iter().filter(|(digest, _)| digest.is_some()).map(|(_, n)| n).collect();
    let Some(most) = sets.iter().map(|nodes| members(nodes)).max().filter(|_| sets.len() > 1) else { return findings };
    let leading = sets.iter().position(|nodes| members(nodes) == most);
    let mut others = FixedBitSet::default();
    for (_, nodes) in sets.iter().enumerate().filter(|(index, _)| Some(*index) != leading) {
        others.union_with(nodes);
    }
    let text = format!(
        "the sources want {} different sets; {} {} another one than most",
        sets.len(),
        plural(members(&others), "node"),
        if members(&others) == 1 { "wants" } else { "want" },
    );
    let next = "wait until a changed source has reached every node, or find out with NODE_STATUS why it does not";
    findings.push(finding(count, FindingKind::SourcesDiffer, text, next, &others));
    findings
}

fn marks(count: &Count, findings: &mut Vec<FleetFinding>) {
    let mut by_kind: BTreeMap<FindingKind, Vec<(&str, FixedBitSet)>> = BTreeMap::new();
    for ((kind, detail), nodes) in &count.marks {
        let details = by_kind.entry(*kind).or_default();
        if details.len() < DETAILS {
            details.push((detail, FixedBitSet::default()));
        } else if let Some((last, _)) = details.last_mut() {
            *last = "several reasons";
        }
        if let Some((_, together)) = details.last_mut() {
            together.union_with(nodes);
        }
    }
    for (kind, details) in by_kind {
        for (detail, nodes) in details {
            let (text, next) = marked(kind, detail, members(&nodes));
            findings.push(finding(count, kind, text, next, &nodes));
        }
    }
}

fn marked(kind: FindingKind, detail: &str, count: usize) -> (String, &'static str) {
    let nodes = plural(count, "node");
    let (has, is) = if count == 1 { ("has", "is") } else { ("have", "are") };
    match kind {
        FindingKind::NotConverged => (
            format!("{nodes} {has} not in force what {} sources want", if count == 1 { "its" } else { "their" }),
            "run NODE_STATUS: the first line says why",
        ),
        FindingKind::RuntimeStale => (
            format!("the container runtime of {nodes} does not follow the store yet"),
            "it waits for a restart; NODE_STATUS says when it comes, or why not",
        ),
        FindingKind::RuntimeUnknown => (
            format!("whether the container runtime of {nodes} follows the store is not known"),
            "run NODE_STATUS: NEXT says what would make it known",
        ),
        FindingKind::TrustNotReady => {
            (format!("{nodes} {is} not ready to trust: {detail}"), "run NODE_STATUS: the first line says why")
        }
        FindingKind::OtherVersion => (
            format!("the annotation of {nodes} was written by another version of nodetrust"),
            "wait for the end of the rollout, or use this command in the version of the agents",
        ),
        FindingKind::Unreadable => (
            format!("the annotation of {nodes} cannot be read: {detail}"),
            "see `kubectl get node NAME -o yaml`; the agent writes it anew when it starts. Who else may patch nodes?",
        ),
        FindingKind::TrustedWithFindings => (
            format!(
                "{nodes} {} what {} should, and something wants a look: {detail}",
                if count == 1 { "trusts" } else { "trust" },
                if count == 1 { "it" } else { "they" }
            ),
            "run NODE_STATUS: the first line says what",
        ),
        FindingKind::StaleCopy => (
            format!("{nodes} {has} a stale copy of a CA in a file that is not ours: {detail}"),
            "mend the node template that leaves it (`nodetrust render --check` compares), then remove the file there, or name it in store.adopt",
        ),
        FindingKind::NoAgent => (
            format!("{nodes} {has} no report of nodetrust"),
            "see whether the DaemonSet has a pod there and what it logs: `kubectl -n nodetrust get pods -o wide`",
        ),
        _ => (
            format!("{nodes} {is} not ready in Kubernetes: what was reported there may be old"),
            "nothing to do for nodetrust: it goes on when the node does",
        ),
    }
}

/// Findings beyond the limit, as one.
#[derive(Default)]
struct Rest {
    shown: usize,
    more: usize,
    nodes: FixedBitSet,
}

impl Rest {
    fn is_full(&self) -> bool {
        self.shown >= ANCHORS
    }

    fn add(&mut self, nodes: &FixedBitSet) {
        if !nodes.is_clear() {
            self.more += 1;
            self.nodes.union_with(nodes);
        }
    }

    fn tell(self, count: &Count, kind: FindingKind, findings: &mut Vec<FleetFinding>) {
        if self.more > 0 {
            let text = format!("the same of {}", plural(self.more, "further anchor"));
            findings.push(finding(count, kind, text, "mend what is named first", &self.nodes));
        }
    }
}

/// `NODE_STATUS` in the next step stands for the command that asks the first of the nodes.
fn finding(count: &Count, kind: FindingKind, text: String, next: &str, nodes: &FixedBitSet) -> FleetFinding {
    let first = nodes.ones().next().and_then(|index| count.names.get(index)).map_or("NODE", String::as_str);
    FleetFinding {
        kind,
        severity: severity(kind),
        text,
        next: next.replace("NODE_STATUS", &format!("`kubectl nodetrust status {first}`")),
        nodes: count.nodes(nodes),
        templates: count.templates_of(nodes),
    }
}

fn severity(kind: FindingKind) -> Severity {
    match kind {
        FindingKind::GraceNeeded | FindingKind::SameName | FindingKind::Expired => Severity::Violation,
        FindingKind::TrustedWithFindings | FindingKind::StaleCopy | FindingKind::NodeNotReady => Severity::Note,
        _ => Severity::Split,
    }
}

/// What people call an anchor.
fn called(fp16: &str, tally: &Tally) -> String {
    match tally.name() {
        Some(name) => format!("{name} ({fp16})"),
        None => fp16.to_owned(),
    }
}

fn list(names: &[String]) -> String {
    let shown = names.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(NAMED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
