//! The screen of `nodetrust status`.

use std::fmt::Write as _;

use nodetrust_core::{
    cycle::Trigger,
    ledger::AnchorState,
    problem::Problem,
    report::{ByRuntime, Report, RuntimeView},
    runtime::{attempts::AttemptOutcome, services::ServiceState, trust::RuntimeState},
    text::plural,
    time::Time,
};

use super::{
    colour::Style,
    report::{SHOWN, headline, rejection_text},
    table::{columns, narrow, row},
    time::{ago, day, span},
    wrap::{labelled, pack, section},
};

/// `nodetrust status`.
pub(crate) fn screen(report: &Report, style: Style) -> String {
    let mut out = headline(report, style);
    if !report.sources.is_empty() {
        section(&mut out, &source_table(report, style));
        section(&mut out, &source_findings(report, style));
    }
    if !report.anchors.is_empty() {
        section(&mut out, &anchor_table(report, style));
        section(&mut out, &anchor_warnings(report, style));
    }
    section(&mut out, &labelled_lines(report, style));
    out
}

fn source_table(report: &Report, style: Style) -> String {
    let mut rows = vec![row(["SOURCE", "STATE", "ANCHORS", "CHANGED", "DETAIL"])];
    for source in &report.sources {
        let detail = if source.detail.is_empty() {
            source.origin.clone()
        } else {
            format!("{}: {}", source.origin, source.detail)
        };
        let changed = source.changed.map_or_else(|| "-".into(), |time| ago(report.time, time));
        rows.push(vec![
            source.name.clone(),
            source.status.as_str().into(),
            source.anchors.to_string(),
            changed,
            detail,
        ]);
    }
    columns(&rows, style)
}

/// What was rejected, and notes on how the sources lie there.
fn source_findings(report: &Report, style: Style) -> String {
    let mut findings = String::new();
    for source in &report.sources {
        for rejection in source.rejections.iter().take(SHOWN) {
            findings.push_str(&labelled("REJECTED", &rejection_text(rejection), style));
        }
        if source.rejections.len() > SHOWN {
            let rest =
                format!("and {} more in source {} (-o json shows all)", source.rejections.len() - SHOWN, source.name);
            findings.push_str(&labelled("REJECTED", &rest, style));
        }
        for note in &source.notes {
            findings.push_str(&labelled("NOTE", &format!("source {}: {note}", source.name), style));
        }
    }
    findings
}

fn anchor_table(report: &Report, style: Style) -> String {
    let judged = report.anchors.iter().any(|anchor| anchor.runtime.is_some());
    let runtime_column = if judged { "RUNTIME" } else { "" };
    let mut rows = vec![row(["ANCHOR", "SHA-256", "STATE", "TRUSTED", runtime_column, "NOT AFTER", ""])];
    for anchor in &report.anchors {
        let remark = match (anchor.waits, anchor.grace_end.map(|end| span(end.0 - report.time.0))) {
            (Some(wait), _) => format!("stays: {}", wait.why()),
            (None, Some(time)) if anchor.needs_approval => format!("leaves in {time}, if approved"),
            (None, Some(time)) => format!("leaves in {time}"),
            (None, None) => String::new(),
        };
        let yes = |holds: bool| if holds { "yes" } else { "no" };
        rows.push(vec![
            anchor.common_name.clone(),
            anchor.sha256.fp16(),
            anchor.state.as_str().into(),
            yes(anchor.trusted).into(),
            anchor.runtime.map_or("", ByRuntime::as_str).into(),
            day(anchor.not_after),
            remark,
        ]);
    }
    narrow(&mut rows, 0, style);
    columns(&rows, style)
}

fn anchor_warnings(report: &Report, style: Style) -> String {
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
    warnings
}

/// The store, the runtime, problems, the last cycle, and what to do next.
fn labelled_lines(report: &Report, style: Style) -> String {
    let now = report.time;
    let mut tail = labelled("STORE", &store_text(report), style);
    match &report.runtime {
        Some(runtime) => tail.push_str(&runtime_text(runtime, now, style)),
        None if report.runtime_trust.state == RuntimeState::Unknown => {
            tail.push_str(&labelled("RUNTIME", &report.runtime_trust.why, style));
        }
        None => {}
    }
    for export in report.export.iter().chain(&report.export_pkcs12) {
        let what = plural(export.certificates, "certificate");
        tail.push_str(&labelled("EXPORT", &format!("{}  {what}, {}", export.path, export.how()), style));
    }
    for problem in &report.problems {
        tail.push_str(&labelled("PROBLEM", &problem.text, style));
    }
    for root in &report.distrusted {
        let still = if root.trusted { "still trusted, " } else { "" };
        tail.push_str(&labelled("DISTRUST", &format!("{}: {still}{}", root.sha256.fp16(), root.text), style));
    }
    for foreign in &report.foreign {
        tail.push_str(&labelled("FOREIGN", &format!("{}: {}", foreign.path, foreign.text), style));
    }
    if let Some(cycle) = &report.cycle {
        // A change in the store that is no drift is our own work, or another run of the tool.
        let why = match cycle.trigger {
            Trigger::Drift if cycle.drift.is_empty() => "something in the store was touched",
            trigger => trigger.as_str(),
        };
        let text = format!("{} ({why}), {}, took {} ms", cycle.outcome, ago(now, cycle.time), cycle.milliseconds);
        tail.push_str(&labelled("CYCLE", &text, style));
    }
    let failed = of_the_last_cycle(report);
    for problem in &failed {
        tail.push_str(&labelled("", &format!("{}: {}", problem.kind.as_str(), problem.text), style));
    }
    for next in
        failed.iter().map(|problem| &problem.next).filter(|next| !next.is_empty() && !report.next.contains(next))
    {
        tail.push_str(&labelled("NEXT", next, style));
    }
    if report.next.is_empty() && failed.is_empty() {
        tail.push_str(&labelled("NEXT", "nothing to do", style));
    }
    for next in &report.next {
        tail.push_str(&labelled("NEXT", next, style));
    }
    tail
}

/// Why the last cycle failed, as far as what is there now does not show it: a tool that failed, a file that could not be written.
fn of_the_last_cycle(report: &Report) -> Vec<&Problem> {
    let noted = report.cycle.iter().flat_map(|cycle| &cycle.problems);
    noted.filter(|noted| report.problems.iter().all(|problem| problem.kind != noted.kind)).collect()
}

/// The trust store in a sentence.
pub(crate) fn store_text(report: &Report) -> String {
    let store = &report.store;
    let Some(family) = store.family else {
        return match store.bundle.is_empty() {
            true => format!("{}: unsupported", store.os_name),
            false => {
                let count = plural(store.certificates, "certificate");
                format!("{}: its tool is missing; {} has {count}", store.os_name, store.bundle)
            }
        };
    };
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

/// The runtime: what it is, then one line for each thing to say about it.
fn runtime_text(runtime: &RuntimeView, now: Time, style: Style) -> String {
    let running = runtime.state == ServiceState::Active;
    let works = running && runtime.sick.is_none() && !runtime.stale;
    let what = format!("{} {}", runtime.kind, runtime.version).trim_end().to_owned();
    let unit = match runtime.started.filter(|_| running) {
        Some(started) => format!("{}, running for {}", runtime.unit, span(now.0 - started.0)),
        None => format!("{} is {}", runtime.unit, runtime.state),
    };
    let mut lines = pack(&[what, unit, format!("certs.d: {}", runtime.certs_dir)], style);
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
    lines.extend(runtime.last_restart.as_ref().map(|last| match &last.outcome {
        Some(AttemptOutcome::Done) => format!("restarted by nodetrust {}", ago(now, last.time)),
        Some(AttemptOutcome::Failed(why)) => {
            let since = if works { "; it works now" } else { "" };
            format!("restart by nodetrust {} failed: {why}{since}", ago(now, last.time))
        }
        None => format!("nodetrust began to restart it {}, and is still at it or was killed", ago(now, last.time)),
    }));
    let label = |index| if index == 0 { "RUNTIME" } else { "" };
    lines.iter().enumerate().map(|(index, line)| labelled(label(index), line, style)).collect()
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
