//! The runtime's part of a report.

use serde::{Serialize, Serializer};

use super::{AnchorRow, Report};
use crate::{
    action::Action,
    certificate::fingerprint::Fingerprint,
    ledger::{AnchorState, Ledger},
    runtime::{
        attempts::AttemptOutcome,
        kinds::RuntimeKind,
        record::Lag,
        service_plan::ServicePlan,
        services::{HoldReason, Runtime, ServiceState},
        trust::{RuntimeState, RuntimeTrust},
    },
    time::{Moment, Time},
};

/// The container runtime, for people and metrics.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RuntimeView {
    /// Which.
    pub kind: RuntimeKind,
    /// The fact that decided.
    pub because: String,
    /// Its version; empty if it does not say.
    pub version: String,
    /// Its unit.
    pub unit: String,
    /// Its unit's state.
    pub state: String,
    /// Its CRI socket on the host.
    pub socket: String,
    /// When the process that pulls started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started: Option<Time>,
    /// Why it does not work; None if it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sick: Option<String>,
    /// Its registry directory, or why there is none to use.
    pub certs_dir: String,
    /// Hosts whose own directory in it hides our anchors.
    pub not_covered: Vec<String>,
    /// Its process does not know what the bundle says, and nothing makes up for it.
    pub stale: bool,
    /// Anchors that it does not trust yet.
    pub missing: Vec<Fingerprint>,
    /// Removed anchors that it may still trust.
    pub lingering: Vec<Fingerprint>,
    /// Anchors of which nobody knows whether they were there when its process started.
    pub unproven: Vec<Fingerprint>,
    /// Anchors newer than its process that every pull gets from the registry directory.
    pub covered: Vec<Fingerprint>,
    /// Anchors that it cannot read, so that no restart would help.
    pub cannot: Vec<Fingerprint>,
    /// The fact that decided whether it must be restarted.
    pub why: String,
    /// Why a restart that is due is not made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held: Option<HoldView>,
    /// Our last try to restart it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_restart: Option<LastRestart>,
}

/// A restart that is held back.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HoldView {
    /// Why, in a word.
    pub reason: HoldReason,
    /// Why.
    pub why: String,
    /// What a person should do.
    pub next: String,
}

/// A try to restart.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LastRestart {
    /// When.
    pub time: Time,
    /// `done`, `failed: …`, or `unknown` if the agent was killed meanwhile.
    pub outcome: String,
}

/// Whether pulls by the container runtime trust an anchor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ByRuntime {
    /// They do.
    Yes,
    /// Not yet.
    No,
    /// Nobody knows: it was in the bundle before the process was first seen.
    Unknown,
    /// They never will: the runtime cannot read it.
    Cannot,
}

impl ByRuntime {
    /// The word on a screen.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::No => "no",
            Self::Unknown => "unknown",
            Self::Cannot => "cannot",
        }
    }
}

impl Serialize for ByRuntime {
    /// A truth value, or the word `unknown` or `cannot`.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Yes | Self::No => serializer.serialize_bool(*self == Self::Yes),
            Self::Unknown | Self::Cannot => serializer.serialize_str(self.as_str()),
        }
    }
}

/// What pulls do not trust yet although the store does, and what becomes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Behind {
    /// The anchors.
    pub missing: Vec<Fingerprint>,
    /// Why, and whether a restart follows, in a sentence.
    pub why: String,
    /// What to do.
    pub next: String,
}

/// The runtime's view.
pub(super) fn view(runtime: &Runtime, outlook: &ServicePlan, ledger: &Ledger, now: &Moment) -> RuntimeView {
    let started = runtime.service.process.as_ref().map(|process| {
        let age = now.boottime.saturating_sub(process.started.milliseconds / 1000);
        Time(now.wall.saturating_sub(i64::try_from(age).unwrap_or(0)))
    });
    let last_restart = ledger.tries.last().map(|tried| LastRestart {
        time: Time(tried.at.wall),
        outcome: match &tried.outcome {
            Some(AttemptOutcome::Done) => "done".into(),
            Some(AttemptOutcome::Failed(why)) => format!("failed: {why}"),
            None => "unknown".into(),
        },
    });
    RuntimeView {
        kind: runtime.kind,
        because: runtime.because.clone(),
        version: crate::certificate::name::shown(&runtime.version),
        unit: runtime.service.unit.clone(),
        state: match &runtime.service.state {
            ServiceState::Active => "active".into(),
            ServiceState::Changing => "starting or stopping".into(),
            ServiceState::Down(state) => state.clone(),
        },
        socket: runtime.socket.clone(),
        started,
        sick: runtime.health.as_ref().err().cloned(),
        certs_dir: runtime.certs.setting.to_string(),
        not_covered: runtime.certs.elsewhere.clone(),
        stale: outlook.trust.state == RuntimeState::Stale,
        missing: outlook.lag.missing.iter().copied().collect(),
        lingering: outlook.lag.lingering.iter().copied().collect(),
        unproven: outlook.lag.unproven.iter().copied().collect(),
        covered: outlook.covered.iter().copied().collect(),
        cannot: outlook.cannot.iter().copied().collect(),
        why: outlook.trust.why.clone(),
        held: outlook.hold.as_ref().map(|hold| HoldView {
            reason: hold.reason,
            why: hold.why.clone(),
            next: hold.next.clone(),
        }),
        last_restart,
    }
}

impl RuntimeView {
    /// Whether pulls trust an anchor; None if nothing is `known` of the process that would tell.
    pub(super) fn of(&self, row: &AnchorRow, known: bool) -> Option<ByRuntime> {
        let is_wanted = matches!(row.state, AnchorState::Desired | AnchorState::Grace);
        if row.go_refuses.is_some() {
            // neither does it trust one that should be gone
            return if is_wanted { Some(ByRuntime::Cannot) } else { known.then_some(ByRuntime::No) };
        }
        if known && self.unproven.contains(&row.sha256) {
            return Some(ByRuntime::Unknown);
        }
        let trusts = self.lingering.contains(&row.sha256) || row.trusted && !self.missing.contains(&row.sha256);
        known.then_some(if trusts { ByRuntime::Yes } else { ByRuntime::No })
    }

    /// The answer's second half: why the runtime does not follow, and what becomes of it.
    pub(super) fn headline(&self, pending: &[Action], trust: &RuntimeTrust) -> String {
        let restart = pending.iter().any(|action| matches!(action, Action::Restart { unit, .. } if *unit == self.unit));
        let then = match &self.held {
            Some(held) => format!("its restart is held: {}", held.why),
            None if restart => "a restart is due".into(),
            None if pending.iter().any(|action| matches!(action, Action::WriteRegistryCerts { .. })) => {
                "its registry directory is written next".into()
            }
            None => "no restart is planned".into(),
        };
        let lag = Lag {
            missing: self.missing.iter().copied().collect(),
            lingering: self.lingering.iter().copied().collect(),
            ..Lag::default()
        };
        match lag.is_none() {
            false => format!("{}: {}; {then}", self.kind, lag.text()),
            // what a restart does not cure
            true if !trust.next.is_empty() => format!("{}: {}", self.kind, trust.why),
            true => format!("{}: {}; {then}", self.kind, trust.why),
        }
    }
}

impl Report {
    /// What the running container runtime does not know yet; None if there is none, it is down, or nothing is missing.
    pub fn behind(&self) -> Option<Behind> {
        let runtime =
            self.runtime.as_ref().filter(|runtime| runtime.state == "active" && !runtime.missing.is_empty())?;
        let next = match &runtime.held {
            Some(held) if !held.next.is_empty() => held.next.clone(),
            _ => "the agent restarts it by itself as soon as it may, or run `nodetrust apply`".to_owned(),
        };
        let why = format!("{} does not yet: {}", runtime.unit, runtime.headline(&self.pending, &self.runtime_trust));
        Some(Behind { missing: runtime.missing.clone(), why, next })
    }
}
