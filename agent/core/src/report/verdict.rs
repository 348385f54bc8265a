//! The answer: verdict, headline and advice, drawn from the rest of a report.

use super::Report;
use crate::report::NodeVerdict;
use crate::{
    action::Action, ledger::AnchorState, problem::ProblemKind, runtime::trust::RuntimeState, source::SourceStatus,
    text::plural,
};

/// Anchors that the runtime cannot use and that get a line of advice each.
const SHOWN: usize = 5;

fn joined<const N: usize>(parts: [Option<String>; N]) -> String {
    parts.into_iter().flatten().collect::<Vec<_>>().join("; ")
}

impl Report {
    /// Verdict, headline and advice from the rest.
    pub(super) fn conclude(&mut self) {
        let failed = self.sources.iter().any(|source| source.status == SourceStatus::Failed);
        let wanted =
            self.anchors.iter().filter(|row| matches!(row.state, AnchorState::Desired | AnchorState::Grace)).count();
        let missing = self
            .anchors
            .iter()
            .filter(|row| matches!(row.state, AnchorState::Desired | AnchorState::Grace) && !row.trusted)
            .count();
        let lingering =
            self.anchors.iter().filter(|row| matches!(row.state, AnchorState::Retired | AnchorState::Denied)).count();
        let first = self.problems.iter().find(|problem| problem.kind.is_failure()).or(self.problems.first());
        let first = first.map(|problem| problem.text.clone());
        let anchors = |n: usize| format!("{n} anchor{}", if n == 1 { "" } else { "s" });
        let stale = self.runtime.as_ref().filter(|runtime| runtime.stale);
        let findings = self.has_findings() || !self.problems.is_empty() || lingering > 0;
        let is_unsupported = self.problems.iter().any(|problem| problem.kind == ProblemKind::UnsupportedStore);
        (self.verdict, self.headline) = match () {
            // a host that could not be looked at may well have a store
            () if self.store.family.is_none() && is_unsupported => {
                (NodeVerdict::UnsupportedStore, first.unwrap_or_default())
            }
            () if !self.converged => {
                let untrue = missing > 0 || self.problems.iter().any(|problem| problem.kind.is_about_trust());
                let held = if untrue || wanted == 0 {
                    String::new()
                } else {
                    format!("{} in the extracted bundle, but ", anchors(wanted))
                };
                let why = first.unwrap_or_else(|| {
                    match (missing, self.pending.iter().find(|a| **a != Action::RecordLedger)) {
                        (0, Some(action)) => {
                            let action = action.to_string();
                            let words: Vec<&str> = action.split_whitespace().collect();
                            format!("{} still to be done: {}", plural(self.pending.len(), "action"), words.join(" "))
                        }
                        (0, None) => format!("{} still to be done", plural(self.pending.len(), "action")),
                        (n, _) => format!("{} of {wanted} not in the extracted bundle", anchors(n)),
                    }
                });
                let verdict = if untrue { NodeVerdict::NotTrusted } else { NodeVerdict::NotConverged };
                (verdict, format!("{held}{why}"))
            }
            () if let Some(problem) = self.problems.iter().find(|problem| problem.kind.is_about_trust()) => {
                (NodeVerdict::NotTrusted, problem.text.clone()) // by what is not ours, and nothing is left for us to do
            }
            () if let Some(runtime) = stale => {
                let parts = [Some(runtime.headline(&self.pending, &self.runtime_trust)), self.beyond_runtime_text()];
                (NodeVerdict::NotTrustedByRuntime, joined(parts))
            }
            () if wanted == 0 && failed => (NodeVerdict::NotTrusted, "no source gives a usable certificate".into()),
            () if self.runtime_trust.state == RuntimeState::Unknown => {
                let first = match wanted {
                    0 => "no source asks for an anchor".into(),
                    wanted => format!("{} in the extracted bundle", anchors(wanted)),
                };
                let doubt = format!("whether pulls follow is {}", self.runtime_trust.why);
                let parts = [Some(first), Some(doubt), self.finding(), self.beyond_runtime_text()];
                (NodeVerdict::RuntimeUnknown, joined(parts))
            }
            () if wanted == 0 && !findings => (NodeVerdict::NothingDesired, "no source asks for an anchor".into()),
            () if findings => {
                let first = format!("{} in the extracted bundle", anchors(wanted));
                (NodeVerdict::TrustedWithFindings, joined([Some(first), self.finding(), self.beyond_runtime_text()]))
            }
            () => (NodeVerdict::Trusted, format!("{} in the extracted bundle, proven by fingerprint", anchors(wanted))),
        };
        self.next = self.advice();
    }

    /// Puts first what to look after if nothing has run here for so many seconds that no agent can be there.
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

    /// The most important finding in a few words, but for what the runtime cannot use.
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
        let lingers = self.anchors.iter().any(|row| matches!(row.state, AnchorState::Retired | AnchorState::Denied));
        match self.rejections().values().sum::<usize>() {
            0 => lingers.then(|| "a removed anchor is kept trusted by a file that is not ours".into()),
            n => Some(format!("{} not accepted", plural(n, "certificate or block"))),
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

    fn advice(&self) -> Vec<String> {
        let runtime = Some(&self.runtime_trust.next).filter(|_| !self.runtime_trust.state.is_green());
        let problems = self.problems.iter().map(|problem| &problem.next);
        let mut next: Vec<String> =
            runtime.into_iter().chain(problems).filter(|next| !next.is_empty()).cloned().collect();
        for source in &self.sources {
            match source.status {
                SourceStatus::Held | SourceStatus::Failed => {
                    next.push(format!("source {}: {} ({})", source.name, source.detail, source.origin));
                }
                SourceStatus::Ok | SourceStatus::Absent => {}
            }
            if let Some(rejection) = source.rejections.first() {
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
        for row in &self.foreign {
            next.push(format!("{}: {}", row.path, row.text));
        }
        if self.store.family.is_some() && self.pending.iter().any(|action| *action != Action::RecordLedger) {
            next.push(format!(
                "{} to be done: the agent does it by itself, or run `nodetrust apply`",
                plural(self.pending.len(), "action")
            ));
        }
        let mut seen = std::collections::BTreeSet::new();
        next.retain(|text| seen.insert(text.clone()));
        next
    }
}
