//! The page at `/`: what `nodetrust status` says, for people with a browser. It needs no script, and its ages are those of the request.

use nodetrust_core::{
    report::{AnchorRow, ByRuntime, NodeVerdict, Report, RuntimeView, SourceRow},
    source::SourceStatus,
    text::plural,
    time::Time,
};

use crate::{
    probe::LatestResult,
    serve::metrics::ApiState,
    text::{
        html::{document, escape, prose, table},
        report::{rejection_text, verdict_word},
        status::store_text,
        time::{ago, day, span},
    },
};

/// Anchors that have a row.
const ANCHORS: usize = 1000;
/// Lines about rejections, notes, warnings or files of others, each.
const LINES: usize = 50;
/// Actions of a cycle, or actions that are still to be done.
const ACTIONS: usize = 20;

/// What the page is made of.
pub(super) struct PageFacts<'a> {
    /// The last report; None before the first cycle has ended.
    pub(super) report: Option<&'a Report>,
    /// The configured probes.
    pub(super) probes: &'a [LatestResult],
    /// How the last calls to the Kubernetes API went.
    pub(super) api: Option<&'a ApiState>,
    /// The time of the request.
    pub(super) now: Time,
}

/// The page.
pub(super) fn page(facts: &PageFacts<'_>) -> String {
    let mut body = String::new();
    match facts.report {
        None => body.push_str("<h1>nodetrust</h1>\n<p>no cycle has ended yet</p>\n"),
        Some(report) => body.push_str(&top(report, facts.now)),
    }
    if let Some(report) = facts.report {
        body.push_str(&next_steps(report));
        body.push_str(&problems(report));
        body.push_str(&sources(report, facts.now));
        body.push_str(&anchors(report, facts.now));
        body.push_str(&store_and_runtime(report, facts.now));
    }
    body.push_str(&probes(facts));
    body.push_str(&kubernetes(facts));
    if let Some(report) = facts.report {
        body.push_str(&foreign(report));
        body.push_str(&last_cycle(report, facts.now));
    }
    body.push_str(
        "<p><a href=\"/status\">/status</a> <a href=\"/metrics\">/metrics</a> <a href=\"/readyz\">/readyz</a></p>\n",
    );
    document(facts.report.map_or("nodetrust", |report| &report.node), &body)
}

fn top(report: &Report, now: Time) -> String {
    let class = match report.verdict {
        NodeVerdict::Trusted | NodeVerdict::NothingDesired => "good",
        NodeVerdict::TrustedWithFindings | NodeVerdict::RuntimeUnknown | NodeVerdict::NotConverged => "warn",
        NodeVerdict::NotTrusted | NodeVerdict::NotTrustedByRuntime | NodeVerdict::UnsupportedStore => "bad",
    };
    format!(
        "<h1>{} <b class=\"{class}\">{}</b></h1>\n<p>{}</p>\n<p class=\"quiet\">looked at {}</p>\n",
        escape(&report.node),
        verdict_word(report.verdict),
        prose(&report.headline),
        when(now, report.time),
    )
}

/// An age with its time beside it.
fn when(now: Time, then: Time) -> String {
    format!("{} (<time>{then}</time>)", ago(now, then))
}

fn next_steps(report: &Report) -> String {
    if report.next.is_empty() {
        return "<h2>Next</h2>\n<p>nothing to do</p>\n".into();
    }
    let items: String = report.next.iter().map(|step| format!("<li>{}</li>\n", prose(step))).collect();
    format!("<h2>Next</h2>\n<ol>\n{items}</ol>\n")
}

fn problems(report: &Report) -> String {
    if report.problems.is_empty() {
        return String::new();
    }
    let rows = report.problems.iter().map(|problem| {
        let kind = format!("<b class=\"bad\">{}</b>", problem.kind.as_str());
        vec![kind, prose(&problem.text), prose(&problem.next)]
    });
    format!("<h2>Problems</h2>\n{}", table(&["KIND", "WHAT", "NEXT"], rows))
}

fn sources(report: &Report, now: Time) -> String {
    if report.sources.is_empty() {
        return String::new();
    }
    let row = |source: &SourceRow| {
        let class = match source.status {
            SourceStatus::Ok => "good",
            SourceStatus::Absent => "quiet",
            SourceStatus::Held => "warn",
            SourceStatus::Failed => "bad",
        };
        let detail = match source.detail.is_empty() {
            true => escape(&source.origin),
            false => format!("{}: {}", escape(&source.origin), prose(&source.detail)),
        };
        vec![
            escape(&source.name),
            format!("<b class=\"{class}\">{}</b>", source.status.as_str()),
            source.anchors.to_string(),
            source.changed.map_or_else(|| "–".into(), |time| when(now, time)),
            detail,
        ]
    };
    let mut out = String::from("<h2>Sources</h2>\n");
    out.push_str(&table(&["SOURCE", "STATE", "#ANCHORS", "CHANGED", "WHERE"], report.sources.iter().map(row)));
    let rejected = report.sources.iter().flat_map(|source| {
        source.rejections.iter().map(|rejection| format!("{}: {}", source.name, rejection_text(rejection)))
    });
    out.push_str(&lines("Rejected", rejected));
    let notes =
        report.sources.iter().flat_map(|source| source.notes.iter().map(|note| format!("{}: {note}", source.name)));
    out.push_str(&lines("Notes", notes));
    out
}

fn anchors(report: &Report, now: Time) -> String {
    if report.anchors.is_empty() {
        return String::new();
    }
    let row = |anchor: &AnchorRow| {
        let runtime = match anchor.runtime {
            Some(ByRuntime::Yes) => "good",
            Some(ByRuntime::Unknown) => "warn",
            Some(ByRuntime::No | ByRuntime::Cannot) => "bad",
            None => "quiet",
        };
        let ends = match anchor.not_after.0 - now.0 {
            ..=0 => format!("<b class=\"bad\">{} – expired</b>", day(anchor.not_after)),
            left => format!("<time>{}</time> – in {}", day(anchor.not_after), span(left)),
        };
        vec![
            escape(&anchor.common_name),
            format!("<code title=\"{}\">{}</code>", anchor.sha256, anchor.sha256.fp16()),
            match anchor.grace_end {
                Some(end) => {
                    let left = span(end.0 - now.0);
                    format!("{}, leaves in {left} (<time>{end}</time>)", anchor.state.as_str())
                }
                None => anchor.state.as_str().to_owned(),
            },
            yes_or_no(anchor.trusted),
            format!("<b class=\"{runtime}\">{}</b>", anchor.runtime.map_or("–", ByRuntime::as_str)),
            ends,
            escape(&anchor.sources.join(", ")),
        ]
    };
    let head = ["ANCHOR", "SHA-256", "STATE", "TRUSTED", "RUNTIME", "ENDS", "SOURCES"];
    let mut out = format!("<h2>Anchors</h2>\n{}", table(&head, report.anchors.iter().take(ANCHORS).map(row)));
    if report.anchors.len() > ANCHORS {
        let more = plural(report.anchors.len() - ANCHORS, "more anchor");
        out.push_str(&format!("<p class=\"quiet\">and {more}: see /status</p>\n"));
    }
    let warnings = report.anchors.iter().flat_map(|anchor| {
        let who = format!("{} ({})", anchor.common_name, anchor.sha256.fp16());
        anchor.warnings.iter().map(move |warning| format!("{who}: {warning}"))
    });
    out.push_str(&lines("Odd about anchors", warnings));
    out
}

fn yes_or_no(holds: bool) -> String {
    match holds {
        true => "<b class=\"good\">yes</b>".into(),
        false => "<b class=\"bad\">no</b>".into(),
    }
}

fn store_and_runtime(report: &Report, now: Time) -> String {
    let mut rows = vec![vec!["Store".to_owned(), prose(&store_text(report))]];
    match &report.runtime {
        Some(runtime) => {
            rows.extend(runtime_lines(runtime, now).into_iter().map(|(title, text)| vec![title.into(), text]))
        }
        None => rows.push(vec!["Runtime".into(), "none was found".into()]),
    }
    let trust = &report.runtime_trust;
    rows.push(vec!["Pulls".into(), format!("<b>{}</b>: {}", trust.state.as_str(), prose(&trust.why))]);
    for (title, export) in [("Bundle for pods", &report.export), ("Trust store for Java", &report.export_pkcs12)] {
        let Some(export) = export else { continue };
        let certificates = plural(export.certificates, "certificate");
        let text = format!("{}: {certificates}, {}", escape(&export.path), prose(&export.how()));
        rows.push(vec![title.into(), text]);
    }
    format!("<h2>Store and runtime</h2>\n{}", table(&["", ""], rows))
}

fn runtime_lines(runtime: &RuntimeView, now: Time) -> Vec<(&'static str, String)> {
    let what = format!("{} {}", runtime.kind, runtime.version);
    let started = runtime.started.map_or_else(String::new, |time| format!(", started {}", when(now, time)));
    let unit = format!("{}, {} is {}{started}", escape(what.trim_end()), escape(&runtime.unit), runtime.state);
    let mut lines =
        vec![("Runtime", unit), ("Registry directory", prose(&runtime.certs_dir)), ("Restart", prose(&runtime.why))];
    lines.extend(runtime.sick.iter().map(|sick| ("Does not work", prose(sick))));
    lines.extend(runtime.held.iter().map(|held| ("Restart held", prose(&held.why))));
    if let Some(last) = &runtime.last_restart {
        lines.push(("Last restart by nodetrust", format!("{}, {}", when(now, last.time), prose(&last.outcome_text()))));
    }
    lines
}

fn probes(facts: &PageFacts<'_>) -> String {
    if facts.probes.is_empty() {
        return String::new();
    }
    let rows = facts.probes.iter().map(|result| {
        let class = if result.probe.is_trusted() { "good" } else { "bad" };
        vec![
            escape(&result.probe.target),
            result.probe.through.as_str().to_owned(),
            format!("<b class=\"{class}\">{}</b>", result.probe.verdict.as_str()),
            prose(&result.probe.text),
            when(facts.now, result.time),
        ]
    });
    format!("<h2>Probes</h2>\n{}", table(&["TARGET", "THROUGH", "VERDICT", "DETAIL", "ASKED"], rows))
}

fn kubernetes(facts: &PageFacts<'_>) -> String {
    let Some(ApiState { error: Some(error), next, since }) = facts.api else { return String::new() };
    let next = next.as_deref().map_or_else(String::new, |next| format!("<p>{}</p>\n", prose(next)));
    format!(
        "<h2>Kubernetes</h2>\n<p><b class=\"warn\">cannot be told</b> since {}: {}</p>\n{next}",
        when(facts.now, *since),
        prose(error),
    )
}

fn foreign(report: &Report) -> String {
    lines("Files of others", report.foreign.iter().map(|row| format!("{}: {}", row.path, row.text)))
}

fn last_cycle(report: &Report, now: Time) -> String {
    let mut out = String::new();
    out.push_str(&lines("Still to be done", report.pending.iter().take(ACTIONS).map(ToString::to_string)));
    let Some(cycle) = &report.cycle else { return out };
    out.push_str(&format!(
        "<h2>Last cycle</h2>\n<p>{} ({}), {}, took {} ms, the store's tool {} ms of it</p>\n",
        cycle.outcome,
        cycle.trigger.as_str(),
        when(now, cycle.time),
        cycle.milliseconds,
        cycle.extract_milliseconds,
    ));
    out.push_str(&list(cycle.actions.iter().take(ACTIONS).map(ToString::to_string)));
    if let Some(changed) = report.changed {
        out.push_str(&format!("<p>The set in force last changed {}.</p>\n", when(now, changed)));
    }
    out
}

/// A heading with a line for each; nothing without lines.
fn lines(title: &str, all: impl Iterator<Item = String>) -> String {
    let all: Vec<String> = all.take(LINES + 1).collect();
    if all.is_empty() {
        return String::new();
    }
    let more = if all.len() > LINES { "<p class=\"quiet\">and more: see /status</p>\n" } else { "" };
    format!("<h2>{title}</h2>\n{}{more}", list(all.into_iter().take(LINES)))
}

fn list(all: impl Iterator<Item = String>) -> String {
    let items: String = all.map(|line| format!("<li>{}</li>\n", prose(&line))).collect();
    if items.is_empty() { items } else { format!("<ul>\n{items}</ul>\n") }
}
