//! The figures of many judged compositions, and the text of each that went wrong.

use std::collections::BTreeMap;

use super::{
    judge::{Checkpoint, JudgedLayout, Needless, PullOutcome},
    layout::NodeLayout,
};

/// What is counted, in the order of the table.
const ROWS: [&str; 11] = [
    "combinations",
    "verdicts",
    "pulls good",
    "pulls x509",
    "pulls failed",
    "green",
    "violations",
    "green, broken",
    "restarts",
    "needless",
    "false alarms",
];

/// The figures.
#[derive(Debug, Default)]
pub struct LayoutTally {
    /// by kind of machine, and by what is counted
    counts: BTreeMap<&'static str, BTreeMap<&'static str, usize>>,
    /// not green although the pull worked, by reason
    alarms: BTreeMap<String, usize>,
    /// not green, and the pull did not work, by reason
    honest: BTreeMap<String, usize>,
    needless: Vec<String>,
    /// what makes the run fail
    wrong: Vec<String>,
}

impl LayoutTally {
    /// Adds another's figures.
    pub fn add(&mut self, other: Self) {
        for (kind, counts) in other.counts {
            let own = self.counts.entry(kind).or_default();
            counts.into_iter().for_each(|(what, count)| *own.entry(what).or_default() += count);
        }
        other.alarms.into_iter().for_each(|(reason, count)| *self.alarms.entry(reason).or_default() += count);
        other.honest.into_iter().for_each(|(reason, count)| *self.honest.entry(reason).or_default() += count);
        self.needless.extend(other.needless);
        self.wrong.extend(other.wrong);
    }

    /// Counts and prints one composition.
    pub fn count(&mut self, judged: &JudgedLayout) {
        let layout = &judged.layout;
        let counts = self.counts.entry(layout.kind.name()).or_default();
        let mut add = |what| *counts.entry(what).or_default() += 1;
        add("combinations");
        if judged.restarted {
            add("restarts");
        }
        for checkpoint in &judged.checkpoints {
            let Checkpoint { said, pulled, .. } = checkpoint;
            add("verdicts");
            add(match pulled {
                PullOutcome::Good => "pulls good",
                PullOutcome::Untrusted(_) => "pulls x509",
                PullOutcome::Failed(_) => "pulls failed",
            });
            if said.is_green() {
                add("green");
            } else if *pulled == PullOutcome::Good {
                add("false alarms");
                *self.alarms.entry(said.reason()).or_default() += 1;
            } else {
                *self.honest.entry(said.reason()).or_default() += 1;
            }
            if checkpoint.is_violation() {
                add("violations");
            } else if checkpoint.is_broken() {
                add("green, broken");
            }
            println!("{}", line(layout, checkpoint));
        }
        self.wrong.extend(faults(judged));
        if let Some(needless) = judged.needless {
            add("needless");
            let why = match needless {
                Needless::Pulled => "the pull had worked before",
                Needless::PulledByTheirs => "the pull had worked before, by somebody else's file",
                Needless::Directory => "the registry directory would have done",
            };
            self.needless.push(format!("needless restart, {why}: {}\n  {layout}", name(layout)));
        }
        let before = judged.before.as_ref().map(|end| format!(", before apply: {end}")).unwrap_or_default();
        let restarted = if judged.restarted { ", restarted by nodetrust" } else { "" };
        println!("     {:.1} s{before}{restarted}", judged.seconds);
    }

    /// Notes a composition that could not be judged.
    pub fn count_unjudged(&mut self, layout: &NodeLayout) {
        self.wrong.push(format!("NOT JUDGED: {}\n  layout: {layout}", name(layout)));
    }

    /// Notes the simplest composition that is still wrong.
    pub fn count_simplest(&mut self, judged: &JudgedLayout) {
        self.wrong.extend(faults(judged).into_iter().map(|fault| format!("SIMPLEST {fault}")));
    }

    /// What makes the run fail, one text each.
    pub fn wrong(&self) -> &[String] {
        &self.wrong
    }

    /// The figures as a table, with the reasons below.
    pub fn table(&self) -> String {
        let mut total: BTreeMap<&str, usize> = BTreeMap::new();
        for counts in self.counts.values() {
            counts.iter().for_each(|(what, count)| *total.entry(what).or_default() += count);
        }
        let mut text = format!("{:15}", "");
        let kinds: Vec<&str> = self.counts.keys().copied().collect();
        kinds.iter().for_each(|kind| text += &format!("{kind:>14}"));
        text += &format!("{:>14}\n", "all");
        for what in ROWS {
            text += &format!("{what:15}");
            kinds.iter().for_each(|kind| text += &format!("{:>14}", self.counts[kind].get(what).unwrap_or(&0)));
            text += &format!("{:>14}\n", total.get(what).unwrap_or(&0));
        }
        let list = |title: &str, reasons: &BTreeMap<String, usize>| {
            let lines = reasons.iter().map(|(reason, count)| format!("  {count:4} {reason}\n"));
            format!("{title}\n{}", lines.collect::<String>())
        };
        text += &list("not green although the pull worked:", &self.alarms);
        text += &list("not green, and the pull failed:", &self.honest);
        text + &self.needless.join("\n")
    }
}

/// The command that repeats a composition.
fn name(layout: &NodeLayout) -> String {
    let (seed, kind) = (layout.seed, layout.kind.name());
    format!("scripts/layouts --seed {seed} --count 1 {kind} ({})", layout.subject.words())
}

fn line(layout: &NodeLayout, checkpoint: &Checkpoint) -> String {
    let Checkpoint { when, said, pulled } = checkpoint;
    let color = if said.is_green() { "GREEN".to_owned() } else { said.reason() };
    format!("{:4} {:12} {color}; {pulled}; {layout}; {when}", layout.seed, layout.kind.name())
}

/// What is wrong with the verdicts, one text each.
fn faults(judged: &JudgedLayout) -> Vec<String> {
    let text = |checkpoint: &Checkpoint| {
        let (word, end) = match &checkpoint.pulled {
            PullOutcome::Untrusted(end) if checkpoint.is_violation() => ("VIOLATION", end),
            PullOutcome::Failed(end) if checkpoint.is_broken() => ("GREEN, BUT PULLS FAIL", end),
            _ => return None,
        };
        let (layout, facts) = (&judged.layout, checkpoint.said.facts());
        let when = checkpoint.when;
        Some(format!("{word}: {}\n  layout: {layout}\n  {when}: {facts}\n  pull: {end}", name(layout)))
    };
    judged.checkpoints.iter().filter_map(text).collect()
}
