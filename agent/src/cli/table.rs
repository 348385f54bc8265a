//! Text for people: the first line is the answer, everything fits 100 columns or wraps by itself.

use std::{fmt::Write as _, io::IsTerminal};

use nodetrust_core::{
    action::Action,
    certificate::name::visible,
    ledger::AnchorState,
    report::{ByRuntime, NodeVerdict, Report, RuntimeView},
    runtime::trust::RuntimeState,
    source::{Rejection, SourceStatus},
    text::plural,
    time::Time,
};

use super::inspect::Inspection;

/// Columns that text is wrapped at.
const WIDTH: usize = 100;
/// Columns of a label.
const INDENT: usize = 10;
/// Rejections shown for a source, and hosts; the rest is counted.
const SHOWN: usize = 10;

/// How text may look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    colour: bool,
}

impl Style {
    /// No colour.
    pub fn plain() -> Self {
        Self { colour: false }
    }

    /// Colour on a terminal, unless NO_COLOR says otherwise (no-color.org).
    pub fn of_stdout() -> Self {
        Self {
            colour: std::io::stdout().is_terminal()
                && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
        }
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// `nodetrust status`.
pub fn status(report: &Report, style: Style) -> String {
    let mut out = headline(report, style);
    let now = report.time;
    if !report.sources.is_empty() {
        let mut rows = vec![row(["SOURCE", "STATE", "ANCHORS", "CHANGED", "DETAIL"])];
        for source in &report.sources {
            let detail = if source.detail.is_empty() {
                source.origin.clone()
            } else {
                format!("{}: {}", source.origin, source.detail)
            };
            let changed = source.changed.map_or_else(|| "-".into(), |time| ago(now, time));
            rows.push(vec![
                source.name.clone(),
                source.status.as_str().into(),
                source.anchors.to_string(),
                changed,
                detail,
            ]);
        }
        section(&mut out, &columns(&rows, style));
        let mut findings = String::new();
        for source in &report.sources {
            for rejection in source.rejections.iter().take(SHOWN) {
                findings.push_str(&labelled("REJECTED", &rejection_text(rejection), style));
            }
            if source.rejections.len() > SHOWN {
                let rest = format!(
                    "and {} more in source {} (-o json shows all)",
                    source.rejections.len() - SHOWN,
                    source.name
                );
                findings.push_str(&labelled("REJECTED", &rest, style));
            }
            for note in &source.notes {
                findings.push_str(&labelled("NOTE", &format!("source {}: {note}", source.name), style));
            }
        }
        section(&mut out, &findings);
    }
    if !report.anchors.is_empty() {
        let judged = report.anchors.iter().any(|anchor| anchor.runtime.is_some());
        let runtime_column = if judged { "RUNTIME" } else { "" };
        let mut rows = vec![row(["ANCHOR", "SHA-256", "STATE", "TRUSTED", runtime_column, "NOT AFTER", ""])];
        for anchor in &report.anchors {
            let remark = anchor.grace_end.map_or(String::new(), |end| format!("leaves in {}", span(end.0 - now.0)));
            let yes = |holds: bool| if holds { "yes" } else { "no" };
            rows.push(vec![
                shorten(&anchor.common_name, 38),
                anchor.sha256.fp16(),
                anchor.state.as_str().into(),
                yes(anchor.trusted).into(),
                anchor.runtime.map_or("", ByRuntime::as_str).into(),
                day(anchor.not_after),
                remark,
            ]);
        }
        section(&mut out, &columns(&rows, style));
        let mut warnings = String::new();
        for anchor in &report.anchors {
            for warning in &anchor.warnings {
                warnings.push_str(&labelled(
                    "NOTE",
                    &format!("{} ({}): {warning}", anchor.common_name, anchor.sha256.fp16()),
                    style,
                ));
            }
        }
        section(&mut out, &warnings);
    }
    let mut tail = labelled("STORE", &store_text(report), style);
    match &report.runtime {
        Some(runtime) => tail.push_str(&runtime_text(runtime, now, style)),
        None if report.runtime_trust.state == RuntimeState::Unknown => {
            tail.push_str(&labelled("RUNTIME", &report.runtime_trust.why, style));
        }
        None => {}
    }
    if let Some(export) = &report.export {
        let what = plural(export.certificates, "certificate");
        let how = if export.current { "as the extracted bundle" } else { &export.detail };
        tail.push_str(&labelled("EXPORT", &format!("{}  {what}, {how}", export.path), style));
    }
    for problem in &report.problems {
        tail.push_str(&labelled("PROBLEM", &problem.text, style));
    }
    for foreign in &report.foreign {
        tail.push_str(&labelled("FOREIGN", &format!("{}: {}", foreign.path, foreign.text), style));
    }
    if let Some(cycle) = &report.cycle {
        // what starts a cycle by a change in the store is mostly our own work, or another run of the tool
        let why = match &*cycle.trigger {
            "drift" if cycle.drift.is_empty() => "something in the store was touched",
            trigger => trigger,
        };
        let text = format!("{} ({why}), {}, took {} ms", cycle.outcome, ago(now, cycle.time), cycle.milliseconds);
        tail.push_str(&labelled("CYCLE", &text, style));
    }
    if report.next.is_empty() {
        tail.push_str(&labelled("NEXT", "nothing to do", style));
    }
    for next in &report.next {
        tail.push_str(&labelled("NEXT", next, style));
    }
    section(&mut out, &tail);
    out
}

/// `nodetrust plan`.
pub fn plan(report: &Report, style: Style) -> String {
    let mut out = match report.pending.len() {
        0 if report.problems.is_empty() && report.runtime_trust.state.is_green() => "nothing to do\n".to_owned(),
        0 => "nothing can be done\n".to_owned(),
        n => format!("{} to be done\n", plural(n, "action")),
    };
    section(&mut out, &actions(&report.pending));
    if let Some(held) = report.runtime.as_ref().and_then(|runtime| runtime.held.as_ref()) {
        section(&mut out, &labelled("HELD", &format!("a restart of the runtime: {}", held.why), style));
    }
    // what the actions are about to mend is no finding
    let mut left = report.clone();
    left.problems.retain(|problem| !problem.next.is_empty());
    let trust = &report.runtime_trust;
    left.next.retain(|next| *next == trust.next || left.problems.iter().any(|problem| problem.next == *next));
    section(&mut out, &findings(&left, style));
    out
}

/// `nodetrust apply`.
pub fn applied(report: &Report, style: Style) -> String {
    let mut out = headline(report, style);
    if let Some(cycle) = &report.cycle {
        section(&mut out, &actions(&cycle.actions));
    }
    section(&mut out, &findings(report, style));
    out
}

/// `nodetrust uninstall`.
pub fn uninstalled(report: &Report, style: Style) -> String {
    let mut out = match (report.anchors.len(), report.problems.is_empty()) {
        (0, true) => "nothing of nodetrust is left on this node\n".to_owned(),
        (0, false) => "no anchor of nodetrust is known to be left, but:\n".to_owned(),
        (n, _) => format!("{} of nodetrust still there\n", plural(n, "anchor")),
    };
    section(&mut out, &findings(report, style));
    out
}

/// `nodetrust inspect`.
pub(super) fn inspection(inspection: &Inspection, now: i64, style: Style) -> String {
    let accepted: usize = inspection.files.iter().map(|file| file.certificates.len()).sum();
    let rejected: usize = inspection.files.iter().map(|file| file.rejections.len()).sum();
    let mut out = format!("{accepted} accepted, {rejected} rejected\n");
    for file in &inspection.files {
        let mut rows = vec![row(["LINE", "CERTIFICATE", "SHA-256", "KEY", "NOT AFTER"])];
        for certificate in &file.certificates {
            let anchor = &certificate.row;
            let expiry = match anchor.not_after.0 < now {
                true => format!("{} (expired)", day(anchor.not_after)),
                false => day(anchor.not_after),
            };
            let line = match certificate.line {
                0 => "DER".to_owned(),
                line => line.to_string(),
            };
            rows.push(vec![line, anchor.common_name.clone(), anchor.sha256.fp16(), anchor.key.clone(), expiry]);
        }
        let _ = write!(out, "\n{}\n", style.paint("1", &visible(&file.file))); // a String takes everything
        if rows.len() > 1 {
            narrow(&mut rows, 1);
            out.push_str(&columns(&rows, style));
        }
        for certificate in &file.certificates {
            for warning in &certificate.row.warnings {
                out.push_str(&labelled(
                    "NOTE",
                    &format!("line {}: {}: {warning}", certificate.line, certificate.row.common_name),
                    style,
                ));
            }
        }
        for note in &file.notes {
            out.push_str(&labelled("NOTE", note, style));
        }
        for rejection in &file.rejections {
            out.push_str(&labelled("REJECTED", &rejection_text(rejection), style));
        }
        if file.certificates.is_empty() && file.rejections.is_empty() && !file.is_directory {
            out.push_str("empty: it says nothing\n");
        }
    }
    out
}

/// The first line of a screen: about what, the answer, and the answer in a sentence.
pub(super) fn answer(about: &str, (verdict, colour): (&str, &str), text: &str, style: Style) -> String {
    let start = format!("{}   {verdict}   ", visible(about));
    let indent = start.chars().count().min(WIDTH / 2);
    let text = wrap(text, WIDTH - indent, indent);
    format!("{}   {}   {text}\n", visible(about), style.paint(colour, verdict))
}

/// Aligned columns; the first row is the header, the last column wraps.
pub fn columns(rows: &[Vec<String>], style: Style) -> String {
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|cell| visible(cell)).collect()).collect();
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..count).map(width).collect();
    let mut out = String::new();
    for (index, row) in rows.iter().enumerate() {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            if column + 1 == count {
                let indent = line.chars().count();
                let text = wrap(cell, WIDTH.saturating_sub(indent).max(30), indent);
                line.push_str(&text);
            } else {
                let _ = write!(line, "{cell:<0$}  ", widths[column]);
            }
        }
        let line = line.trim_end();
        out.push_str(&if index == 0 { style.paint("1", line) } else { line.to_owned() });
        out.push('\n');
    }
    out
}

/// Shortens the cells of one column so far that the table is no wider than it may be.
fn narrow(rows: &mut [Vec<String>], column: usize) {
    let length = |cell: &String| visible(cell).chars().count();
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(length).max().unwrap_or(0);
    let others: usize = (0..count).filter(|other| *other != column).map(|other| width(other) + 2).sum();
    let room = WIDTH.saturating_sub(others).max(20);
    for cell in rows.iter_mut().filter_map(|row| row.get_mut(column)) {
        *cell = shorten(&visible(cell), room);
    }
}

pub(super) fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).to_vec()
}

pub(super) fn section(out: &mut String, text: &str) {
    if !text.is_empty() {
        out.push('\n');
        out.push_str(text);
    }
}

fn headline(report: &Report, style: Style) -> String {
    let (verdict, colour) = match report.verdict {
        NodeVerdict::Trusted => ("TRUSTED", "1;32"),
        NodeVerdict::TrustedWithFindings => ("TRUSTED, WITH FINDINGS", "1;33"),
        NodeVerdict::NotTrusted => ("NOT TRUSTED", "1;31"),
        NodeVerdict::NotTrustedByRuntime => ("NOT TRUSTED BY THE RUNTIME", "1;31"),
        NodeVerdict::RuntimeUnknown => ("RUNTIME UNKNOWN", "1;33"),
        NodeVerdict::NotConverged => ("NOT CONVERGED", "1;33"),
        NodeVerdict::NothingDesired => ("NOTHING TO TRUST", "1"),
        NodeVerdict::UnsupportedStore => ("UNSUPPORTED", "1;31"),
    };
    answer(&report.node, (verdict, colour), &report.headline, style)
}

fn findings(report: &Report, style: Style) -> String {
    let mut out = String::new();
    for source in &report.sources {
        if matches!(source.status, SourceStatus::Held | SourceStatus::Failed) {
            out.push_str(&labelled(
                "SOURCE",
                &format!("{} is {}: {}", source.name, source.status.as_str(), source.detail),
                style,
            ));
        }
        for rejection in source.rejections.iter().take(SHOWN) {
            out.push_str(&labelled("REJECTED", &rejection_text(rejection), style));
        }
    }
    for problem in &report.problems {
        out.push_str(&labelled("PROBLEM", &problem.text, style));
    }
    for next in &report.next {
        out.push_str(&labelled("NEXT", next, style));
    }
    out
}

fn actions(actions: &[Action]) -> String {
    let mut out = String::new();
    for action in actions {
        let _ = writeln!(out, "  {}", visible(&action.to_string())); // a String takes everything
    }
    out
}

fn rejection_text(rejection: &Rejection) -> String {
    let place = match rejection.line {
        0 => rejection.file.clone(),
        line => format!("{}:{line}", rejection.file),
    };
    let who = rejection.subject.as_ref().map(|subject| format!("{subject}: ")).unwrap_or_default();
    format!("{place}: {}: {who}{}", rejection.reason, rejection.detail)
}

fn store_text(report: &Report) -> String {
    let store = &report.store;
    let Some(family) = store.family else { return format!("{}: unsupported", store.os_name) };
    let lasting = report
        .anchors
        .iter()
        .filter(|anchor| matches!(anchor.state, AnchorState::Retired | AnchorState::Denied))
        .count();
    let mut text = format!(
        "{family} ({})  {} → {}  {}, {} ours",
        store.os_name,
        store.anchors_dir,
        store.bundle,
        plural(store.certificates, "certificate"),
        store.ours
    );
    if store.foreign_files > 0 {
        let _ = write!(text, ", {} of others in the anchor directory", plural(store.foreign_files, "file"));
    }
    if lasting > 0 {
        let _ = write!(text, ", {lasting} that should be gone");
    }
    text
}

/// The runtime: what it is, then one line for each thing that is to be said of it.
fn runtime_text(runtime: &RuntimeView, now: Time, style: Style) -> String {
    let running = runtime.state == "active";
    let what = format!("{} {}", runtime.kind, runtime.version).trim_end().to_owned();
    let unit = match runtime.started.filter(|_| running) {
        Some(started) => format!("{}, running for {}", runtime.unit, span(now.0 - started.0)),
        None => format!("{} is {}", runtime.unit, runtime.state),
    };
    let mut lines = pack(&[what, unit, format!("certs.d: {}", runtime.certs_dir)]);
    lines.extend(runtime.sick.iter().filter(|_| running).map(|sick| format!("does not work: {sick}")));
    lines.push(runtime.why.clone());
    if !runtime.cannot.is_empty() {
        lines.push(format!("cannot read {}, and no restart would help", plural(runtime.cannot.len(), "anchor")));
    }
    lines.extend(runtime.held.iter().map(|held| format!("restart held: {}", held.why)));
    if !runtime.not_covered.is_empty() {
        let hosts = runtime.not_covered.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
        let more = match runtime.not_covered.len().saturating_sub(SHOWN) {
            0 => String::new(),
            n => format!(" and {n} more"),
        };
        lines.push(format!("certs.d does not reach hosts with a directory of their own: {hosts}{more}"));
    }
    lines.extend(runtime.last_restart.as_ref().map(|last| match last.outcome.as_str() {
        "done" => format!("restarted by nodetrust {}", ago(now, last.time)),
        "unknown" => format!("nodetrust was killed while it restarted it, {}", ago(now, last.time)),
        failed => format!("restart by nodetrust {} {failed}", ago(now, last.time)),
    }));
    let label = |index| if index == 0 { "RUNTIME" } else { "" };
    lines.iter().enumerate().map(|(index, line)| labelled(label(index), line, style)).collect()
}

/// As many parts on a line as fit, two blanks between them.
fn pack(parts: &[String]) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for part in parts {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 2 + part.chars().count() <= WIDTH - INDENT => {
                line.push_str("  ");
                line.push_str(part);
            }
            _ => lines.push(part.clone()),
        }
    }
    lines
}

pub(super) fn labelled(label: &str, text: &str, style: Style) -> String {
    let padded = format!("{label:<0$}", INDENT);
    let padded = if label.is_empty() { padded } else { style.paint("1", &padded) };
    format!("{padded}{}\n", wrap(text, WIDTH - INDENT, INDENT))
}

/// Breaks a text at blanks; what follows the first line is indented. What others wrote is made visible.
fn wrap(text: &str, width: usize, indent: usize) -> String {
    let mut out = String::new();
    let mut used = 0;
    for word in visible(text).split(' ') {
        let length = word.chars().count();
        if used > 0 && used + 1 + length > width {
            out.truncate(out.trim_end_matches(' ').len());
            let _ = write!(out, "\n{:indent$}", "");
            used = 0;
        } else if used > 0 {
            out.push(' ');
            used += 1;
        }
        out.push_str(word);
        used += length;
    }
    out
}

pub(super) fn shorten(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width - 1).chain(['…']).collect()
}

pub(super) fn day(time: Time) -> String {
    time.to_string().chars().take(10).collect()
}

fn ago(now: Time, then: Time) -> String {
    match now.0 - then.0 {
        ..0 => "in the future".into(),
        0..5 => "now".into(),
        seconds => format!("{} ago", span(seconds)),
    }
}

/// A span of time in its biggest unit.
fn span(seconds: i64) -> String {
    match seconds {
        ..120 => format!("{} s", seconds.max(0)),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
