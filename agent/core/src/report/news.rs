//! What an operator should read in a log: what has gone wrong since the last report, and what is over.
//!
//! In: reports, one after the other. Out: one line for each change. A state that lasts is told once, whatever the number of cycles.

use std::collections::BTreeMap;

use super::model::Report;
use crate::{cycle::CycleOutcome, runtime::trust::RuntimeState, source::SourceStatus, text::plural};

/// Largest number of lines for one report; what is beyond it is counted in a last line.
const MAX_LINES: usize = 20;

/// What is told of one thing that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Trouble {
    text: String,
    next: String,
}

/// What a trouble is about: its kind, and which source, anchor or reason.
type TroubleKey = (&'static str, String);

/// What the log has told so far.
#[derive(Debug, Default)]
pub struct LogMemory {
    told: BTreeMap<TroubleKey, Trouble>,
    /// the answer of the last report, if it was one of a failed cycle
    failing: Option<String>,
}

/// A line for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// It is over; otherwise it has begun.
    pub over: bool,
    /// The kind of trouble: a kind of problem, or `rejection`, `source`, `restart-held`, `runtime-unknown`, `runtime-misled`.
    pub kind: &'static str,
    /// What it is about: a source, an anchor, a reason; empty where the kind says all.
    pub about: String,
    /// What is wrong, or was.
    pub text: String,
    /// What a person should do; empty where nothing is to be done.
    pub next: String,
}

impl LogMemory {
    /// Whether a failed cycle is news: the one before has not failed, or its answer was another one.
    pub fn fails_anew(&mut self, report: &Report) -> bool {
        let is_failed = report.cycle.as_ref().is_some_and(|cycle| cycle.outcome == CycleOutcome::Failed);
        let now = is_failed.then(|| report.headline.clone());
        let is_news = now.is_some() && now != self.failing;
        self.failing = now;
        is_news
    }

    /// The lines that a report gives the log, with what is over first.
    pub fn take(&mut self, report: &Report) -> Vec<LogLine> {
        let now = troubles(report);
        let line = |over: bool, (kind, about): &TroubleKey, trouble: &Trouble| LogLine {
            over,
            kind,
            about: about.clone(),
            text: trouble.text.clone(),
            next: if over { String::new() } else { trouble.next.clone() },
        };
        let over = self.told.iter().filter(|(key, _)| !now.contains_key(*key)).map(|(key, was)| line(true, key, was));
        let begun = now.iter().filter(|(key, _)| !self.told.contains_key(*key)).map(|(key, is)| line(false, key, is));
        let mut lines: Vec<LogLine> = over.chain(begun).collect();
        let beyond = lines.len().saturating_sub(MAX_LINES);
        if beyond > 0 {
            lines.truncate(MAX_LINES);
            let text = format!("{} are not told here: see `nodetrust status`", plural(beyond, "further change"));
            lines.push(LogLine { over: false, kind: "more", about: String::new(), text, next: String::new() });
        }
        self.told = now;
        lines
    }
}

/// Everything in a report that is not as it should be, each under a key that stays the same while it lasts: words such as a tool's
/// output differ from cycle to cycle.
fn troubles(report: &Report) -> BTreeMap<TroubleKey, Trouble> {
    let mut all = BTreeMap::new();
    let mut add = |kind, about: String, text: String, next: String| {
        all.entry((kind, about)).or_insert(Trouble { text, next });
    };
    for problem in &report.problems {
        let about = problem.sha256.map(|print| print.to_string()).unwrap_or_default();
        add(problem.kind.as_str(), about, problem.text.clone(), problem.next.clone());
    }
    for source in &report.sources {
        if matches!(source.status, SourceStatus::Held | SourceStatus::Failed) {
            let text = format!("source {} is {}: {}", source.name, source.status.as_str(), source.detail);
            add("source", source.name.clone(), text, String::new());
        }
        for rejection in &source.rejections {
            let alike = source.rejections.iter().filter(|other| other.reason == rejection.reason).count();
            let at = if rejection.line > 0 { format!(" line {}", rejection.line) } else { String::new() };
            let more = if alike > 1 { format!(" ({alike} of this kind)") } else { String::new() };
            let text = format!(
                "source {}: {}{at}: {}: {}{more}",
                source.name, rejection.file, rejection.reason, rejection.detail
            );
            add("rejection", format!("{} {}", source.name, rejection.reason), text, String::new());
        }
    }
    let trust = &report.runtime_trust;
    if let Some(inferred) = &trust.misled {
        let text = format!("the runtime's own word contradicts what was inferred ({inferred}): {}", trust.why);
        add("runtime-misled", String::new(), text, trust.next.clone());
    }
    match trust.state {
        RuntimeState::Unknown => {
            add("runtime-unknown", String::new(), format!("whether pulls follow is {}", trust.why), trust.next.clone());
        }
        RuntimeState::Stale => {
            add(
                "runtime-stale",
                String::new(),
                format!("the runtime does not follow: {}", trust.why),
                trust.next.clone(),
            );
        }
        RuntimeState::Current | RuntimeState::None => {}
    }
    if let Some(held) = report.runtime.as_ref().and_then(|runtime| runtime.held.as_ref()) {
        add("restart-held", held.reason.as_str().to_owned(), held.why.clone(), held.next.clone());
    }
    all
}
