//! What a log tells of reports that follow one another.

use super::*;
use crate::{runtime::services::HoldReason, source::Rejection, source::SourceStatus};

/// A report of a cycle that had nothing to do.
fn plain_report() -> Report {
    let report = good().report();
    let cycle = Cycle {
        trigger: Trigger::Resync,
        outcome: CycleOutcome::Unchanged,
        time: report.time,
        milliseconds: 1,
        extract_milliseconds: 0,
        actions: Vec::new(),
        drift: BTreeSet::new(),
        problems: Vec::new(),
    };
    Report { cycle: Some(cycle), ..report }
}

fn rejection(file: &str, reason: RejectReason) -> Rejection {
    Rejection { file: file.into(), line: 3, reason, detail: "what exactly".into(), subject: None, sha256: None }
}

/// Each line in a few words.
fn words(lines: &[LogLine]) -> Vec<String> {
    lines
        .iter()
        .map(|line| format!("{} {} {}", if line.over { "over" } else { "begun" }, line.kind, line.about))
        .collect()
}

#[test]
fn a_state_that_lasts_is_told_once_and_its_end_once() {
    let mut memory = LogMemory::default();
    assert_eq!(memory.take(&plain_report()), []);
    let bad = |text: &str| {
        let mut report = plain_report();
        report.problems.push(Problem::new(ProblemKind::Extract, format!("the tool said {text}"), "look at it"));
        report.sources[0].rejections.push(rejection("ca.crt", RejectReason::PrivateKey));
        report
    };
    let lines = memory.take(&bad("xQ7"));
    assert_eq!(words(&lines), ["begun extract ", "begun rejection org private-key"]);
    assert_eq!((lines[0].text.as_str(), lines[0].next.as_str()), ("the tool said xQ7", "look at it"));
    assert_eq!(lines[1].text, "source org: ca.crt line 3: private-key: what exactly");
    assert_eq!(memory.take(&bad("aB3")), [], "a tool's random words make nothing new");
    let over = memory.take(&plain_report());
    assert_eq!(words(&over), ["over extract ", "over rejection org private-key"]);
    assert_eq!(memory.take(&plain_report()), []);
    assert_eq!(memory.take(&bad("xQ7")).len(), 2, "it may come again");
}

#[test]
fn a_source_that_says_nothing_and_a_held_restart_are_told() {
    let mut memory = LogMemory::default();
    let mut report = plain_report();
    report.sources[0].status = SourceStatus::Held;
    report.sources[0].detail = "it is empty".into();
    assert_eq!(memory.take(&report)[0].text, "source org is held: it is empty");
    let mut runtime = runtime::with_runtime(&["corp-2026", "inspection"]).report().runtime.unwrap();
    let held = |reason, why: &str| Some(HoldView { reason, why: why.into(), next: String::new() });
    runtime.held = held(HoldReason::Slot, "1 of 1 slots in use");
    report.runtime = Some(runtime);
    assert_eq!(words(&memory.take(&report)), ["begun restart-held slot"]);
    let runtime = report.runtime.as_mut().unwrap();
    runtime.held = held(HoldReason::Slot, "1 of 1 slots in use, by another node");
    assert_eq!(memory.take(&report), [], "who holds the slot changes all the time");
    report.runtime.as_mut().unwrap().held = held(HoldReason::Window, "opens at 22:00");
    assert_eq!(words(&memory.take(&report)), ["over restart-held slot", "begun restart-held window"]);
}

#[test]
fn a_file_with_a_thousand_bad_blocks_fills_no_log() {
    let mut report = plain_report();
    let mut all = vec![rejection("ca.crt", RejectReason::Expired); 1000];
    all.push(rejection("key.pem", RejectReason::PrivateKey));
    report.sources[0].rejections = all;
    let lines = LogMemory::default().take(&report);
    assert_eq!(words(&lines), ["begun rejection org expired", "begun rejection org private-key"]);
    assert!(lines[0].text.ends_with("(1000 of this kind)"), "{}", lines[0].text);
    for number in 0..1000 {
        let mut source = report.sources[0].clone();
        source.name = format!("source-{number}");
        report.sources.push(source);
    }
    let lines = LogMemory::default().take(&report);
    assert_eq!(lines.len(), 21);
    assert!(lines[20].text.contains("further changes"), "{}", lines[20].text);
}

#[test]
fn a_failed_cycle_is_news_when_the_one_before_was_good_or_said_something_else() {
    let report = |outcome, headline: &str| Report {
        headline: headline.into(),
        cycle: plain_report().cycle.map(|cycle| Cycle { outcome, ..cycle }),
        ..plain_report()
    };
    let mut memory = LogMemory::default();
    let mut fails = |outcome, headline| memory.fails_anew(&report(outcome, headline));
    assert!(!fails(CycleOutcome::Unchanged, "good"));
    assert!(fails(CycleOutcome::Failed, "bad"));
    assert!(!fails(CycleOutcome::Failed, "bad"));
    assert!(fails(CycleOutcome::Failed, "worse"));
    assert!(!fails(CycleOutcome::Changed, "good"));
    assert!(fails(CycleOutcome::Failed, "worse"));
}
