//! The screen of a fleet: readable with five nodes and with five thousand.

use nodetrust_core::{
    text::plural,
    topology::{Fleet, FleetAnchor, FleetFinding, FleetRestarts, FleetVerdict, Group, Nodes, Severity},
};

use crate::text::{
    colour::Style,
    table::{columns, narrow, row},
    time::day,
    wrap::{answer, labelled, section, shorten},
};

/// Nodes that are named in one place.
const NAMES: usize = 5;
/// Anchors that have a row.
const ANCHORS: usize = 40;
/// Groups that have a row.
const GROUPS: usize = 8;
/// Findings that are shown.
const FINDINGS: usize = 20;
/// Longest common name, in characters.
const NAME: usize = 30;

/// A fleet, for people.
pub(super) fn screen(cluster: &str, fleet: &Fleet, style: Style) -> String {
    let is_halted = fleet.restarts.as_ref().is_some_and(FleetRestarts::is_halted);
    let verdict = match fleet.verdict {
        _ if is_halted => ("HALTED", "1;31"),
        FleetVerdict::Uniform => ("UNIFORM", "1;32"),
        FleetVerdict::Split => ("SPLIT", "1;33"),
        FleetVerdict::Violation => ("VIOLATION", "1;31"),
    };
    let mut out = answer(cluster, verdict, &fleet.headline, style);
    if !fleet.anchors.is_empty() {
        let mut rows = vec![row(["ANCHOR", "SHA-256", "STATE", "TRUSTED", "NOT AFTER", ""])];
        rows.extend(fleet.anchors.iter().take(ANCHORS).map(|anchor| anchor_row(anchor, fleet.nodes)));
        narrow(&mut rows, 0, style);
        let mut text = columns(&rows, style);
        let hidden = fleet.anchors.len().saturating_sub(ANCHORS) + fleet.anchors_left_out;
        if hidden > 0 {
            text.push_str(&format!("and {} (-o json)\n", plural(hidden, "more anchor")));
        }
        section(&mut out, &text);
    }
    if !fleet.groups.is_empty() {
        let mut rows = vec![row(["NODES", "DESIRED", "IN FORCE", "ANCHORS", ""])];
        rows.extend(fleet.groups.iter().take(GROUPS).map(group_row));
        let mut text = columns(&rows, style);
        let hidden = fleet.groups.len().saturating_sub(GROUPS) + fleet.groups_left_out;
        if hidden > 0 {
            text.push_str(&format!("and {} (-o json)\n", plural(hidden, "more group")));
        }
        section(&mut out, &text);
    }
    if let Some(restarts) = &fleet.restarts {
        section(&mut out, &restart_lines(restarts, style));
    }
    section(&mut out, &findings(fleet, style));
    out
}

/// The step that ends a halt.
pub(super) const AFTER_HALT: &str = "mend that node, then: nodetrust topology --resume";

/// Who restarts now, and what stops the others; nothing where nobody does and nothing does.
fn restart_lines(restarts: &FleetRestarts, style: Style) -> String {
    let mut out: String = restart_rows(restarts).iter().map(|(label, text)| labelled(label, text, style)).collect();
    if restarts.is_halted() {
        out.push_str(&labelled("NEXT", AFTER_HALT, style));
    }
    out
}

/// The same as labels and sentences, what stops all others first.
pub(super) fn restart_rows(restarts: &FleetRestarts) -> Vec<(&'static str, String)> {
    let mut rows = Vec::new();
    for halt in &restarts.halts {
        let since = if halt.since.is_empty() { String::new() } else { format!(" since {}", halt.since) };
        let text = format!("{} halts the restarts of all nodes{since}: {} ({})", halt.node, halt.reason, halt.lease);
        rows.push(("HALTED", text));
    }
    if let Some(text) = &restarts.paused {
        rows.push(("PAUSED", format!("somebody has paused the restarts of all nodes: {text}")));
    }
    if !restarts.held.is_empty() {
        rows.push(("RESTART", first_names(restarts.held.iter().map(|slot| slot.node.as_str()), restarts.held.len())));
    }
    if let Some(mark) = &restarts.canary {
        let digest = short_digest(&mark.digest);
        let text = match mark.passed {
            true => format!("nobody waits for one with the set {digest}"),
            false => format!("healthy with the set {digest} since {}", mark.healthy_since),
        };
        rows.push(("CANARY", text));
    }
    if let Some(selector) = &restarts.no_canary {
        let text = format!(
            "no Node matches fleet.canarySelector ({selector}): nobody restarts until one does, or `nodetrust topology --resume`"
        );
        rows.push(("CANARY", text));
    }
    rows
}

fn anchor_row(anchor: &FleetAnchor, nodes: usize) -> Vec<String> {
    let mut notes = Vec::new();
    let mut states = anchor.states.iter();
    let state = match (states.next(), states.next()) {
        (Some((state, _)), None) => (*state).to_owned(),
        _ => {
            let counts: Vec<String> =
                anchor.states.iter().map(|(state, count)| format!("{state} on {count}")).collect();
            notes.push(counts.join(", "));
            "mixed".to_owned()
        }
    };
    if anchor.lacking.count > 0 {
        notes.push(format!("lacking on {}: {}", anchor.lacking.count, names(&anchor.lacking)));
    }
    if anchor.unknown > 0 {
        notes.push(format!("unknown on {}", anchor.unknown));
    }
    vec![
        shorten(anchor.common_name.as_deref().unwrap_or("-"), NAME),
        anchor.fp16.clone(),
        state,
        format!("{}/{nodes}", anchor.trusted),
        anchor.not_after.map_or_else(|| "-".into(), day),
        notes.join("; "),
    ]
}

fn group_row(group: &Group) -> Vec<String> {
    let in_force = match group.effective_digest == group.desired_digest {
        true => "the same".to_owned(),
        false => short_digest(&group.effective_digest),
    };
    vec![
        group.nodes.count.to_string(),
        short_digest(&group.desired_digest),
        in_force,
        group.anchors.to_string(),
        names(&group.nodes),
    ]
}

/// The part of a set's digest that people are shown.
pub(super) fn short_digest(digest: &str) -> String {
    digest.chars().take(16).collect()
}

/// What is to be done where no finding says it.
pub(super) fn usual_step(fleet: &Fleet) -> &'static str {
    if fleet.reporting == 0 { "install nodetrust, or choose another --context" } else { "nothing to do" }
}

/// The lines of findings, and what to do about them.
pub(super) fn finding_lines(findings: &[FleetFinding], style: Style) -> (String, Vec<&str>) {
    let mut out = String::new();
    let mut nexts: Vec<&str> = Vec::new();
    for finding in findings.iter().take(FINDINGS) {
        let label = match finding.severity {
            Severity::Violation => "VIOLATION",
            Severity::Split => "SPLIT",
            Severity::Note => "NOTE",
        };
        let text = format!("{} [{}]{}", finding.text, names(&finding.nodes), made_from(finding));
        out.push_str(&labelled(label, &text, style));
        if !nexts.contains(&finding.next.as_str()) {
            nexts.push(&finding.next);
        }
    }
    if findings.len() > FINDINGS {
        let more = format!("and {} (-o json)", plural(findings.len() - FINDINGS, "more finding"));
        out.push_str(&labelled("", &more, style));
    }
    (out, nexts)
}

/// The templates from which the nodes of a finding were made; nothing if their Nodes do not tell.
pub(super) fn made_from(finding: &FleetFinding) -> String {
    let each: Vec<String> =
        finding.templates.iter().map(|template| format!("{} ({})", template.name, template.nodes)).collect();
    if each.is_empty() { String::new() } else { format!("; made from {}", each.join(", ")) }
}

fn findings(fleet: &Fleet, style: Style) -> String {
    let (mut out, mut nexts) = finding_lines(&fleet.findings, style);
    if nexts.is_empty() {
        nexts.push(usual_step(fleet));
    }
    for next in nexts {
        out.push_str(&labelled("NEXT", next, style));
    }
    out
}

fn names(nodes: &Nodes) -> String {
    first_names(nodes.names.iter().map(String::as_str), nodes.count)
}

/// The first of so many names, and how many more there are.
fn first_names<'a>(names: impl Iterator<Item = &'a str>, count: usize) -> String {
    let shown: Vec<&str> = names.take(NAMES).collect();
    match count.saturating_sub(shown.len()) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}
