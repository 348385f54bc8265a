//! The answer: verdict, headline and advice, drawn from the rest of a report.

use std::collections::{BTreeMap, BTreeSet};

use super::model::{AnchorRow, Behind, NodeVerdict, Report, RuntimeView, SourceRow};
use crate::{
    action::{Action, ServiceAction},
    fleet::removal::RemovalWait,
    fleet::view::FleetView,
    ledger::AnchorState,
    problem::{Problem, ProblemKind},
    runtime::{record::Lag, services::ServiceState, trust::RuntimeState},
    source::SourceStatus,
    text::{certificates_or_blocks, plural},
};

/// Anchors that the runtime cannot use and that get a line of advice each.
const SHOWN: usize = 5;

fn joined<const N: usize>(parts: [Option<String>; N]) -> String {
    parts.into_iter().flatten().collect::<Vec<_>>().join("; ")
}

/// What people call an anchor.
fn called(row: &AnchorRow) -> String {
    format!("{} ({})", row.common_name, row.sha256.fp16())
}

fn in_bundle(anchors: usize) -> String {
    format!("{} in the extracted bundle", plural(anchors, "anchor"))
}

impl SourceRow {
    /// What to do about a source that says nothing, if it does. What to do about rejections is said with each of them.
    pub fn advice(&self) -> Option<String> {
        let Self { name, detail, origin, .. } = self;
        match self.status {
            SourceStatus::Ok | SourceStatus::Absent => None,
            SourceStatus::Held | SourceStatus::Failed if !self.rejections.is_empty() => {
                Some(format!("source {name}: {detail} ({origin})"))
            }
            SourceStatus::Held | SourceStatus::Failed => {
                Some(format!("source {name}: {detail}: see that its certificates are in {origin}"))
            }
        }
    }
}

impl Report {
    /// Adds a problem and draws the conclusions anew.
    pub fn add_problem(&mut self, problem: Problem) {
        if problem.kind.is_failure() {
            self.converged = false;
        }
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
        self.conclude();
    }

    /// Says how the fleet's restarts stand. That this node halts them is a problem.
    pub fn add_fleet(&mut self, fleet: FleetView) {
        if let Some(halt) = fleet.halted.as_ref().filter(|halt| halt.own) {
            let text = format!("this node halts the restarts of the whole fleet: {}", halt.reason);
            let next = "mend this node, then: nodetrust topology --resume";
            self.add_problem(Problem::new(ProblemKind::FleetHalted, text, next));
        }
        self.fleet = Some(fleet);
    }

    /// Draws verdict, headline and advice from the rest.
    pub(super) fn conclude(&mut self) {
        (self.verdict, self.headline) = self.judge();
        self.next = self.advice();
    }

    fn judge(&self) -> (NodeVerdict, String) {
        let is_unsupported = self.problems.iter().any(|problem| problem.kind == ProblemKind::UnsupportedStore);
        // A host that could not be looked at may well have a store.
        if self.store.family.is_none() && is_unsupported {
            let parts = [Some(self.first_problem().unwrap_or_default()), self.still_in_bundle()];
            return (NodeVerdict::UnsupportedStore, joined(parts));
        }
        if !self.converged {
            return self.not_converged();
        }
        // The fault lies in what is not ours, and nothing is left for us to do.
        if let Some(problem) = self.problems.iter().find(|problem| problem.kind.is_about_trust()) {
            return (NodeVerdict::NotTrusted, problem.text.clone());
        }
        if let Some(runtime) = self.runtime.as_ref().filter(|runtime| runtime.stale) {
            let parts = [Some(self.runtime_headline(runtime)), self.beyond_runtime_text()];
            return (NodeVerdict::NotTrustedByRuntime, joined(parts));
        }
        let wanted = self.wanted().count();
        if wanted == 0 && self.sources.iter().any(|source| source.status == SourceStatus::Failed) {
            return (NodeVerdict::NotTrusted, "no source gives a usable certificate".into());
        }
        let nothing = "no source asks for an anchor".to_owned();
        if self.runtime_trust.state == RuntimeState::Unknown {
            let first = if wanted == 0 { nothing } else { in_bundle(wanted) };
            let doubt = format!("whether pulls follow is {}", self.runtime_trust.why);
            let parts = [Some(first), Some(doubt), self.finding(), self.beyond_runtime_text()];
            return (NodeVerdict::RuntimeUnknown, joined(parts));
        }
        if self.has_findings() || !self.problems.is_empty() || self.lingers() {
            let parts = [Some(in_bundle(wanted)), self.finding(), self.beyond_runtime_text()];
            return (NodeVerdict::TrustedWithFindings, joined(parts));
        }
        match wanted {
            0 => (NodeVerdict::NothingDesired, nothing),
            wanted => (NodeVerdict::Trusted, format!("{}, proven by fingerprint", in_bundle(wanted))),
        }
    }

    /// The answer while something is wrong with the store, or still to be done there.
    fn not_converged(&self) -> (NodeVerdict, String) {
        let (wanted, missing) = (self.wanted().count(), self.wanted().filter(|row| !row.trusted).count());
        let untrue = missing > 0 || self.problems.iter().any(|problem| problem.kind.is_about_trust());
        let so_far = if untrue || wanted == 0 { String::new() } else { format!("{}, but ", in_bundle(wanted)) };
        let why = self.first_problem().unwrap_or_else(|| {
            let to_do = format!("{} still to be done", plural(self.pending.len(), "action"));
            match (missing, self.pending.iter().find(|action| !action.only_records())) {
                (0, Some(action)) => {
                    // the columns of the text for people are closed up
                    let action = action.to_string();
                    let words: Vec<&str> = action.split_whitespace().collect();
                    format!("{to_do}: {}", words.join(" "))
                }
                (0, None) => to_do,
                (n, _) => format!("{} of {wanted} not in the extracted bundle", plural(n, "anchor")),
            }
        });
        let verdict = if untrue { NodeVerdict::NotTrusted } else { NodeVerdict::NotConverged };
        (verdict, format!("{so_far}{why}"))
    }

    /// What of the desired set the bundle of a store without its tool has; None where no bundle could be read.
    fn still_in_bundle(&self) -> Option<String> {
        let (wanted, trusted) = (self.wanted().count(), self.wanted().filter(|row| row.trusted).count());
        let is_read = self.store.certificates > 0;
        is_read.then(|| format!("{trusted} of {} in the bundle as it is", plural(wanted, "anchor")))
    }

    /// The text of the first failure, or of the first problem if nothing failed.
    fn first_problem(&self) -> Option<String> {
        let first = self.problems.iter().find(|problem| problem.kind.is_failure()).or(self.problems.first());
        first.map(|problem| problem.text.clone())
    }

    /// The anchors that should be trusted.
    fn wanted(&self) -> impl Iterator<Item = &AnchorRow> {
        self.anchors.iter().filter(|row| matches!(row.state, AnchorState::Desired | AnchorState::Grace))
    }

    /// Whether an anchor is trusted that should be gone.
    fn lingers(&self) -> bool {
        self.anchors.iter().any(|row| matches!(row.state, AnchorState::Retired | AnchorState::Denied))
    }

    /// Why the runtime does not follow, and what becomes of it.
    fn runtime_headline(&self, runtime: &RuntimeView) -> String {
        let planned = |is: fn(&ServiceAction, &str) -> bool| {
            self.pending.iter().any(|action| matches!(action, Action::Service(action) if is(action, &runtime.unit)))
        };
        let then = match &runtime.held {
            Some(held) => format!("its restart is held: {}", held.why),
            None if planned(|action, unit| matches!(action, ServiceAction::Restart { unit: of, .. } if of == unit)) => {
                "a restart is due".into()
            }
            None if planned(|action, _| matches!(action, ServiceAction::WriteRegistryCerts { .. })) => {
                "its registry directory is written next".into()
            }
            None => "no restart is planned".into(),
        };
        let lag = Lag {
            missing: runtime.missing.iter().copied().collect(),
            lingering: runtime.lingering.iter().copied().collect(),
            ..Lag::default()
        };
        let trust = &self.runtime_trust;
        if !lag.is_none() {
            return format!("{}: {}; {then}", runtime.kind, lag.text());
        }
        match trust.next.is_empty() {
            true => format!("{}: {}; {then}", runtime.kind, trust.why),
            // there is advice where a restart does not help
            false => format!("{}: {}", runtime.kind, trust.why),
        }
    }

    /// What the running container runtime does not know yet; None if there is none, it is down, or nothing is missing.
    pub fn behind(&self) -> Option<Behind> {
        let lags = |runtime: &&RuntimeView| runtime.state == ServiceState::Active && !runtime.missing.is_empty();
        let runtime = self.runtime.as_ref().filter(lags)?;
        let next = match &runtime.held {
            Some(held) if !held.next.is_empty() => held.next.clone(),
            _ => "the agent restarts it by itself as soon as it may, or run `nodetrust apply`".to_owned(),
        };
        let why = format!("{} does not yet: {}", runtime.unit, self.runtime_headline(runtime));
        Some(Behind { missing: runtime.missing.clone(), why, next })
    }

    /// Advises first to look for the agent, if no cycle has run for more than `patience` seconds.
    pub fn doubt_agent(&mut self, patience: u64) {
        let silence = match &self.cycle {
            Some(cycle) => {
                let seconds = self.time.0.saturating_sub(cycle.time.0);
                if u64::try_from(seconds).is_ok_and(|seconds| seconds > patience) {
                    format!("no cycle since {}", cycle.time)
                } else {
                    return;
                }
            }
            None if self.anchors.is_empty() => return,
            None => "no cycle since the node booted".to_owned(),
        };
        let next = format!("{silence}: if an agent should run on this node, see why it does not");
        self.next.insert(0, next);
    }

    /// The most important finding in a few words; what the runtime cannot use is left out.
    fn finding(&self) -> Option<String> {
        let of = |status| {
            self.sources.iter().filter(move |source| source.status == status).map(|source| source.name.as_str())
        };
        if let Some(problem) = self.problems.first() {
            return Some(problem.text.clone());
        }
        if let Some(name) = of(SourceStatus::Failed).next() {
            return Some(format!("source {name} gives nothing usable"));
        }
        if let Some(name) = of(SourceStatus::Held).next() {
            return Some(format!("source {name} is held at its last good set"));
        }
        match self.rejections().values().sum::<usize>() {
            0 => self.lingers().then(|| "a removed anchor is kept trusted by a file that is not ours".into()),
            n => Some(format!("{} not accepted", certificates_or_blocks(n))),
        }
    }

    /// What the runtime cannot use, by name, and why.
    fn beyond_runtime_text(&self) -> Option<String> {
        let mut rows = self.beyond_runtime();
        let (first, runtime) = (rows.next()?, self.runtime.as_ref()?);
        let more = match rows.count() {
            0 => String::new(),
            n => format!(" and {n} more"),
        };
        let why = first.go_refuses.as_deref().unwrap_or_default();
        Some(format!("{} cannot use {} ({}){more}: {why}", runtime.kind, first.common_name, first.sha256.fp16()))
    }

    /// What removals wait for, one line for each reason, with the next step.
    pub fn waiting_removals(&self) -> impl Iterator<Item = String> {
        let mut by_reason: BTreeMap<RemovalWait, Vec<&AnchorRow>> = BTreeMap::new();
        for row in &self.anchors {
            if let Some(wait) = row.waits {
                by_reason.entry(wait).or_default().push(row);
            }
        }
        by_reason.into_iter().map(|(wait, rows)| {
            let named: Vec<String> = rows.iter().take(SHOWN).map(|row| called(row)).collect();
            let more = match rows.len().saturating_sub(SHOWN) {
                0 => String::new(),
                n => format!(" and {n} more"),
            };
            let verb = if rows.len() == 1 { "stays" } else { "stay" };
            let next = if wait.next().is_empty() { String::new() } else { format!("; {}", wait.next()) };
            format!("{}{more} {verb} trusted although the grace is over: {}{next}", named.join(", "), wait.why())
        })
    }

    fn advice(&self) -> Vec<String> {
        let runtime = Some(&self.runtime_trust.next).filter(|_| !self.runtime_trust.state.is_green());
        let problems = self.problems.iter().map(|problem| &problem.next);
        let mut next: Vec<String> =
            runtime.into_iter().chain(problems).filter(|next| !next.is_empty()).cloned().collect();
        for source in &self.sources {
            next.extend(source.advice());
            // one of each kind: what is mended for one may leave the other
            let mut kinds = BTreeSet::new();
            for rejection in source.rejections.iter().filter(|rejection| kinds.insert(rejection.reason)).take(SHOWN) {
                let line = if rejection.line > 0 { format!(":{}", rejection.line) } else { String::new() };
                next.push(format!("source {}: {}{line}: {}", source.name, rejection.file, rejection.detail));
            }
        }
        if let Some(runtime) = &self.runtime {
            next.extend(runtime.held.as_ref().map(|held| held.next.clone()).filter(|next| !next.is_empty()));
        }
        if let Some(runtime) = &self.runtime {
            next.extend(self.beyond_runtime().take(SHOWN).map(|row| {
                format!(
                    "{} ({}): have this CA issued anew so that programs in Go read it; until then pulls from registries behind it fail, and a restart of {} would not help",
                    row.common_name,
                    row.sha256.fp16(),
                    runtime.kind
                )
            }));
        }
        next.extend(self.waiting_removals());
        for row in &self.foreign {
            next.push(format!("{}: {}", row.path, row.text));
        }
        if self.store.family.is_some() && self.pending.iter().any(|action| !action.only_records()) {
            next.push(format!(
                "{} to be done: the agent does it by itself, or run `nodetrust apply`",
                plural(self.pending.len(), "action")
            ));
        }
        let mut seen = BTreeSet::new();
        next.retain(|text| seen.insert(text.clone()));
        next
    }
}
