//! The page of a fleet: one file that can be attached to a change ticket. Bounded, whatever the number of nodes and anchors.

use nodetrust_core::{
    text::plural,
    time::Time,
    topology::{Fleet, FleetAnchor, FleetFinding, FleetRestarts, FleetVerdict, Group, Nodes, Severity},
};

use super::screen::{AFTER_HALT, made_from, restart_rows, short_digest, usual_step};
use crate::text::{
    html::{document, escape, prose, table},
    time::day,
    wrap::shorten,
};

/// Anchors that have a row.
const ANCHORS: usize = 500;
/// Groups of nodes that have a column and a row.
const GROUPS: usize = 12;
/// Findings that are shown.
const FINDINGS: usize = 50;
/// Nodes that are named at once.
const NAMES: usize = 5;
/// Nodes that are named on request, of a group or a finding.
const MORE_NAMES: usize = 100;
/// Longest common name and longest name of a node, in characters.
const NAME: usize = 120;

/// Longest sentence about a restart, in characters: whoever may write a Lease chooses its words.
const SENTENCE: usize = 1_000;

/// A fleet as a page, as of a time.
pub(super) fn page(cluster: &str, fleet: &Fleet, now: Time) -> String {
    let is_halted = fleet.restarts.as_ref().is_some_and(FleetRestarts::is_halted);
    let (verdict, class) = match fleet.verdict {
        _ if is_halted => ("HALTED", "bad"),
        FleetVerdict::Uniform => ("UNIFORM", "good"),
        FleetVerdict::Split => ("SPLIT", "warn"),
        FleetVerdict::Violation => ("VIOLATION", "bad"),
    };
    let mut body = format!(
        "<h1>{} <b class=\"{class}\">{verdict}</b></h1>\n<p>{}</p>\n\
         <p class=\"quiet\">{}, {} reporting, as of {now}. Made by nodetrust {} from the annotations of the nodes.</p>\n",
        escape(cluster),
        escape(&fleet.headline),
        plural(fleet.nodes, "node"),
        fleet.reporting,
        escape(env!("CARGO_PKG_VERSION")),
    );
    body.push_str(&next_steps(fleet, is_halted));
    body.push_str(&restarts(fleet));
    body.push_str(&findings(fleet));
    body.push_str(&groups(fleet));
    body.push_str(&anchors(fleet, now));
    document(&format!("{cluster}: {verdict}"), &body)
}

/// How to go on: the steps of the findings, worst first, each once. A halt comes before them.
fn next_steps(fleet: &Fleet, is_halted: bool) -> String {
    let mut steps: Vec<&str> = is_halted.then_some(AFTER_HALT).into_iter().collect();
    for finding in fleet.findings.iter().take(FINDINGS) {
        if !steps.contains(&finding.next.as_str()) {
            steps.push(&finding.next);
        }
    }
    if steps.is_empty() {
        steps.push(usual_step(fleet));
    }
    let items: String = steps.iter().map(|step| format!("<li>{}</li>\n", prose(step))).collect();
    format!("<h2>Next</h2>\n<ol>\n{items}</ol>\n")
}

/// Who restarts now, and what stops the others.
fn restarts(fleet: &Fleet) -> String {
    let rows = fleet.restarts.as_ref().map(restart_rows).unwrap_or_default();
    if rows.is_empty() {
        return String::new();
    }
    let cells = rows.iter().map(|(label, text)| {
        let class = if matches!(*label, "HALTED" | "PAUSED") { "bad" } else { "quiet" };
        vec![format!("<b class=\"{class}\">{}</b>", label.to_lowercase()), prose(&shorten(text, SENTENCE))]
    });
    format!("<h2>Restarts</h2>\n{}", table(&["", "WHAT"], cells))
}

fn findings(fleet: &Fleet) -> String {
    if fleet.findings.is_empty() {
        return String::new();
    }
    let row = |finding: &FleetFinding| {
        let (word, class) = match finding.severity {
            Severity::Violation => ("violation", "bad"),
            Severity::Split => ("split", "warn"),
            Severity::Note => ("note", "quiet"),
        };
        vec![
            format!("<b class=\"{class}\">{word}</b>"),
            prose(&format!("{}{}", finding.text, made_from(finding))),
            finding.nodes.count.to_string(),
            all_names(&finding.nodes),
        ]
    };
    let text = table(&["", "WHAT", "#NODES", "WHERE"], fleet.findings.iter().take(FINDINGS).map(row));
    format!("<h2>Findings</h2>\n{text}{}", left_out(fleet.findings.len().saturating_sub(FINDINGS), "finding"))
}

fn groups(fleet: &Fleet) -> String {
    if fleet.groups.is_empty() {
        return String::new();
    }
    let row = |(index, group): (usize, &Group)| {
        let in_force = match group.effective_digest == group.desired_digest {
            true => "<span class=\"good\">the same</span>".to_owned(),
            false => format!("<span class=\"bad\"><code>{}</code></span>", digest(&group.effective_digest)),
        };
        vec![
            letter(index),
            group.nodes.count.to_string(),
            format!("<code>{}</code>", digest(&group.desired_digest)),
            in_force,
            group.anchors.to_string(),
            all_names(&group.nodes),
        ]
    };
    let rows = fleet.groups.iter().take(GROUPS).enumerate().map(row);
    let text = table(&["GROUP", "#NODES", "WANTED SET", "IN FORCE", "#ANCHORS", "WHO"], rows);
    let hidden = fleet.groups.len().saturating_sub(GROUPS) + fleet.groups_left_out;
    format!("<h2>Nodes by what they want and have</h2>\n{text}{}", left_out(hidden, "group"))
}

/// Anchors × groups of nodes: how many nodes of each group trust each anchor.
fn anchors(fleet: &Fleet, now: Time) -> String {
    if fleet.anchors.is_empty() {
        return String::new();
    }
    let shown: Vec<&Group> = fleet.groups.iter().take(GROUPS).collect();
    let mut titles = ["ANCHOR", "SHA-256", "STATE", "ENDS", "#TRUSTED"].map(str::to_owned).to_vec();
    titles.extend((0..shown.len()).map(|index| format!("#{}", letter(index))));
    titles.push("MISSING ON".to_owned());
    let row = |anchor: &FleetAnchor| {
        let ended = anchor.not_after.is_some_and(|end| end.0 < now.0);
        let end = anchor.not_after.map_or_else(|| "–".to_owned(), |end| format!("<time>{}</time>", day(end)));
        let states: Vec<String> = match anchor.states.len() {
            1 => anchor.states.keys().map(|state| (*state).to_owned()).collect(),
            _ => anchor.states.iter().map(|(state, count)| format!("{state} on {count}")).collect(),
        };
        let mut cells = vec![
            escape(&shorten(anchor.common_name.as_deref().unwrap_or("–"), NAME)),
            format!("<code>{}</code>", escape(&anchor.fp16)),
            states.join(", "),
            if ended { format!("<span class=\"bad\">{end}</span>") } else { end },
            share(anchor.trusted, fleet.nodes),
        ];
        let counts = shown.iter().zip(&anchor.trusted_by_group);
        cells.extend(counts.map(|(group, trusted)| share(*trusted, group.nodes.count)));
        let unknown = if anchor.unknown > 0 { format!(" (unknown on {})", anchor.unknown) } else { String::new() };
        cells.push(format!("{}{unknown}", first_names(&anchor.lacking)));
        cells
    };
    let text = table(&titles, fleet.anchors.iter().take(ANCHORS).map(row));
    let hidden = fleet.anchors.len().saturating_sub(ANCHORS) + fleet.anchors_left_out;
    format!("<h2>Anchors, and the nodes of each group that trust them</h2>\n{text}{}", left_out(hidden, "anchor"))
}

/// `3/7`, and whether that is all.
fn share(part: usize, whole: usize) -> String {
    let class = if part == whole { "good" } else { "bad" };
    format!("<span class=\"{class}\">{part}/{whole}</span>")
}

/// The name of a group on this page.
fn letter(index: usize) -> String {
    let letters = b'A'..=b'Z';
    letters.clone().nth(index).map_or_else(|| (index + 1).to_string(), |letter| char::from(letter).to_string())
}

fn digest(digest: &str) -> String {
    escape(&short_digest(digest))
}

fn listed(nodes: &Nodes, limit: usize) -> String {
    let names: Vec<String> = nodes.names.iter().take(limit).map(|name| escape(&shorten(name, NAME))).collect();
    match nodes.count.saturating_sub(names.len()) {
        0 => names.join(", "),
        more => format!("{} and {more} more", names.join(", ")),
    }
}

/// The first few nodes.
fn first_names(nodes: &Nodes) -> String {
    listed(nodes, NAMES)
}

/// The first few nodes, and on request the next hundred; that needs no script.
fn all_names(nodes: &Nodes) -> String {
    if nodes.count <= NAMES {
        return first_names(nodes);
    }
    format!("<details><summary>{}</summary>{}</details>", first_names(nodes), listed(nodes, MORE_NAMES))
}

fn left_out(count: usize, what: &str) -> String {
    match count {
        0 => String::new(),
        count => format!("<p class=\"quiet\">and {} (-o json)</p>\n", plural(count, &format!("more {what}"))),
    }
}

#[cfg(test)]
#[path = "page_tests.rs"]
mod tests;
