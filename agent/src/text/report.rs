//! The report as a screen: after `apply`, `plan` and `uninstall`; and the parts that `status` has in common with them.

use std::fmt::Write as _;

use nodetrust_core::{
    action::Action,
    certificate::name::visible,
    report::{NodeVerdict, Report},
    source::{Rejection, SourceStatus},
    text::plural,
};

use super::{
    colour::Style,
    wrap::{answer, labelled, section},
};

/// Rejections shown of a source, and hosts; the rest is counted.
pub(crate) const SHOWN: usize = 10;

/// `nodetrust plan`.
pub(crate) fn plan(report: &Report, style: Style) -> String {
    let mut out = match report.pending.len() {
        0 if report.awaited_source().is_some() => {
            let awaited = report.sources.iter().filter(|source| source.awaited).map(|source| source.name.as_str());
            format!("nothing can be done: no certificate yet from {}\n", awaited.collect::<Vec<_>>().join(", "))
        }
        0 if report.problems.is_empty() && report.runtime_trust.state.is_green() => "nothing to do\n".to_owned(),
        0 => "nothing can be done\n".to_owned(),
        n => format!("{} to be done\n", plural(n, "action")),
    };
    section(&mut out, &actions(&report.pending));
    if let Some(held) = report.runtime.as_ref().and_then(|runtime| runtime.held.as_ref()) {
        section(&mut out, &labelled("HELD", &format!("a restart of the runtime: {}", held.why), style));
    }
    let waiting = report.waiting_removals().map(|text| labelled("WAITS", &text, style));
    section(&mut out, &waiting.collect::<String>());
    // A problem that the actions fix is no finding.
    let mut left = report.clone();
    left.problems.retain(|problem| !problem.next.is_empty());
    let trust = &report.runtime_trust;
    let is_awaited = |next: &str| {
        let mut awaited = report.sources.iter().filter(|source| source.awaited);
        awaited.any(|source| source.advice().as_deref() == Some(next))
    };
    let is_left = |next: &String| *next == trust.next || left.problems.iter().any(|problem| problem.next == *next);
    left.next.retain(|next| is_left(next) || is_awaited(next));
    section(&mut out, &findings(&left, style));
    out
}

/// `nodetrust apply`.
pub(crate) fn applied(report: &Report, style: Style) -> String {
    let mut out = headline(report, style);
    if let Some(cycle) = &report.cycle {
        section(&mut out, &actions(&cycle.actions));
    }
    section(&mut out, &findings(report, style));
    out
}

/// `nodetrust uninstall`.
pub(crate) fn uninstalled(report: &Report, style: Style) -> String {
    let mut out = match (report.anchors.len(), report.problems.is_empty()) {
        (0, true) => "nothing of nodetrust is left on this node\n".to_owned(),
        (0, false) => "no anchor of nodetrust is known to be left, but:\n".to_owned(),
        (n, _) => format!("{} of nodetrust still there\n", plural(n, "anchor")),
    };
    section(&mut out, &findings(report, style));
    out
}

/// The first line.
pub(crate) fn headline(report: &Report, style: Style) -> String {
    let colour = match report.verdict {
        NodeVerdict::Trusted => "1;32",
        NodeVerdict::TrustedWithFindings | NodeVerdict::RuntimeUnknown | NodeVerdict::NotConverged => "1;33",
        NodeVerdict::NotTrusted | NodeVerdict::NotTrustedByRuntime | NodeVerdict::UnsupportedStore => "1;31",
        NodeVerdict::NothingDesired => "1",
    };
    answer(&report.node, (verdict_word(report.verdict), colour), &report.headline, style)
}

/// A verdict as people read it.
pub(crate) fn verdict_word(verdict: NodeVerdict) -> &'static str {
    match verdict {
        NodeVerdict::Trusted => "TRUSTED",
        NodeVerdict::TrustedWithFindings => "TRUSTED, WITH FINDINGS",
        NodeVerdict::NotTrusted => "NOT TRUSTED",
        NodeVerdict::NotTrustedByRuntime => "NOT TRUSTED BY THE RUNTIME",
        NodeVerdict::RuntimeUnknown => "RUNTIME UNKNOWN",
        NodeVerdict::NotConverged => "NOT CONVERGED",
        NodeVerdict::NothingDesired => "NOTHING TO TRUST",
        NodeVerdict::UnsupportedStore => "UNSUPPORTED",
    }
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
        let _ = writeln!(out, "  {}", visible(&action.to_string())); // writing to a `String` cannot fail
    }
    out
}

/// A rejection in one sentence.
pub(crate) fn rejection_text(rejection: &Rejection) -> String {
    let place = match rejection.line {
        0 => rejection.file.clone(),
        line => format!("{}:{line}", rejection.file),
    };
    let who = match (&rejection.subject, &rejection.sha256) {
        (Some(subject), Some(sha256)) => format!("{subject} ({}): ", sha256.fp16()),
        (Some(subject), None) => format!("{subject}: "),
        (None, _) => String::new(),
    };
    format!("{place}: {}: {who}{}", rejection.reason, rejection.detail)
}
