//! Is a process behind the bundle, and what is to be done about it (facts C.8).
//!
//! Nothing in a process shows which roots it has read. What can be known: which certificates were in the bundle when it
//! started. That is written down once for each process, from facts that a crash or a reboot does not change, and compared with
//! the bundle from then on. So the need for a restart is never remembered, it is seen: no crash forgets it or repeats it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{
    HoldReason, Kind, Process, Runtime, Service, ServiceState, Services, Uptime,
    certs_d::{OwnFile, Setting},
};
use crate::{
    fingerprint::Fingerprint,
    plan::Action,
    report::plural,
    state::{Ledger, Moment},
    verify::{Problem, ProblemKind},
};

/// Seconds between two tries.
pub const BETWEEN_TRIES: u64 = 60;
/// Tries within [`TRIES_WINDOW`].
pub const MAX_TRIES: usize = 3;
/// Seconds that tries are counted in.
pub const TRIES_WINDOW: u64 = 3600;
/// Seconds after a failed try: somebody should look first.
pub const AFTER_FAILURE: u64 = 600;
/// Seconds after which a service that is on the way up or down is looked at again.
const LOOK_AGAIN: u64 = 5;

/// What is known of a service's process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Which process.
    pub process: Process,
    /// In the bundle when it started: it has them, or will read them.
    pub has: BTreeSet<Fingerprint>,
    /// In the bundle perhaps.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub doubt: BTreeSet<Fingerprint>,
    /// Ours, and put into the bundle while it ran: it has them if it verified TLS for the first time after that.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub later: BTreeSet<Fingerprint>,
    /// Those among them that were ours and are to be trusted no more.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub left: BTreeSet<Fingerprint>,
}

/// A try to restart, written down before it is made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Try {
    /// When.
    pub at: Moment,
    /// What became of it; None until that is known, and for ever if the agent was killed meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<TryOutcome>,
}

/// What became of a try.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TryOutcome {
    /// The service runs anew and works.
    Done,
    /// It does not, or never stopped.
    Failed(String),
}

/// What may be done about a change.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnChange {
    /// Keep the registry directory, restart for what that does not cover.
    #[default]
    Auto,
    /// Keep the registry directory; report what that does not cover, and never restart.
    Registry,
    /// Restart.
    Restart,
    /// Say it.
    Report,
    /// Nothing, as wanted.
    Never,
}

/// What the configuration says of the runtime.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// Nobody looks at a runtime.
    pub ignored: bool,
    /// Which, None to detect it.
    pub kind: Option<Kind>,
    /// Its unit, if it has another name.
    pub unit: Option<String>,
    /// What may be done.
    pub on_change: OnChange,
    /// Further units.
    pub also: Vec<String>,
}

/// A service's lag behind the bundle.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lag {
    /// In the bundle, wanted, and newer than the process.
    pub missing: BTreeSet<Fingerprint>,
    /// Removed, and the process started with them.
    pub lingering: BTreeSet<Fingerprint>,
}

impl Lag {
    /// None at all.
    pub fn is_none(&self) -> bool {
        self.missing.is_empty() && self.lingering.is_empty()
    }

    /// The lag in words.
    pub fn text(&self) -> String {
        let newer = format!("{} newer than the process", plural(self.missing.len(), "anchor"));
        let older = format!("{} that it started with", plural(self.lingering.len(), "removed anchor"));
        match (self.missing.is_empty(), self.lingering.is_empty()) {
            (true, true) => "nothing of ours changed since it started".into(),
            (false, true) => newer,
            (true, false) => older,
            (false, false) => format!("{newer}, {older}"),
        }
    }
}

/// A restart that is due and not made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// Why.
    pub reason: HoldReason,
    /// Why, in a sentence.
    pub why: String,
    /// What a person should do; empty where waiting is enough.
    pub next: String,
    /// Seconds until it is worth looking again by itself.
    pub wait: Option<u64>,
}

/// What is to be done so that services follow the bundle.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outlook {
    /// In order.
    pub actions: Vec<Action>,
    /// What is held back.
    pub hold: Option<Hold>,
    /// The runtime's lag that nothing covers.
    pub lag: Lag,
    /// Anchors that the runtime's process does not have and every pull gets from the registry directory.
    pub covered: BTreeSet<Fingerprint>,
    /// What our file in the registry directory is to hold.
    pub serves: BTreeSet<Fingerprint>,
    /// Wanted anchors that the runtime cannot read: no restart is due for them, and they make nothing stale.
    pub cannot: BTreeSet<Fingerprint>,
    /// Which fact decided.
    pub why: String,
}

/// The bundle, as a process that starts may have found it.
#[derive(Debug, Clone, Copy)]
pub struct Bundle<'a> {
    /// What was in it at the last verified look, None if there was none.
    pub before: Option<&'a BTreeSet<Fingerprint>>,
    /// Since when that has been so.
    pub since: Option<&'a Uptime>,
    /// When we last began to change it.
    pub begun: Option<&'a Uptime>,
    /// What is in it now.
    pub now: &'a BTreeSet<Fingerprint>,
    /// When the file was last replaced, in milliseconds after this boot; None if before.
    pub replaced: Option<u64>,
}

/// What is known of a process, from what was known and what is seen.
pub fn follow(record: Option<&Record>, process: &Process, bundle: Bundle<'_>) -> Record {
    if let Some(known) = record.filter(|record| record.process == *process) {
        return known.clone();
    }
    let started = process.started.milliseconds;
    let same_boot = |time: &Uptime| time.boot_id == process.started.boot_id;
    // it started over the bundle that was verified last, or over what came after that
    let before =
        bundle.before.filter(|_| bundle.since.is_some_and(|since| !same_boot(since) || started > since.milliseconds));
    let ran_before_us = bundle.begun.is_some_and(|begun| same_boot(begun) && started <= begun.milliseconds);
    let younger = !ran_before_us && bundle.replaced.is_none_or(|replaced| replaced < started);
    if before == Some(bundle.now) || younger {
        return Record { has: bundle.now.clone(), ..Record::unknown(process) };
    }
    // the bundle changed since it started, or while it did: it may have read the one or the other
    let has = before.map(|before| before & bundle.now).unwrap_or_default();
    let mut doubt = bundle.before.map_or_else(|| bundle.now.clone(), |before| before | bundle.now);
    doubt.extend(record.iter().flat_map(|record| &record.left));
    doubt.retain(|fingerprint| !has.contains(fingerprint));
    Record { has, doubt, ..Record::unknown(process) }
}

impl Record {
    fn unknown(process: &Process) -> Self {
        Self {
            process: process.clone(),
            has: BTreeSet::new(),
            doubt: BTreeSet::new(),
            later: BTreeSet::new(),
            left: BTreeSet::new(),
        }
    }

    /// Notes which of ours are in the bundle now.
    pub fn note_served(&mut self, ours: impl Iterator<Item = Fingerprint>) {
        self.later.extend(ours.filter(|fingerprint| !self.has.contains(fingerprint)));
    }

    /// Notes which of our anchors are to be trusted no more, and which of these are denied; those that are `wanted`, or that the
    /// process cannot have read, do not count. One that it started with, it may have. One that came later, it may have if it verified TLS for the first time after that: for a denied one that is
    /// reason enough, since nobody can tell.
    pub fn note_left(
        &mut self,
        retired: &BTreeSet<Fingerprint>,
        denied: impl Fn(&Fingerprint) -> bool,
        wanted: impl Fn(&Fingerprint) -> bool,
    ) {
        let may_have = |fingerprint: &&Fingerprint| {
            self.has.contains(fingerprint)
                || self.doubt.contains(fingerprint)
                || denied(fingerprint) && self.later.contains(fingerprint)
        };
        let left: Vec<Fingerprint> = retired.iter().filter(may_have).copied().collect();
        self.left.extend(left);
        self.left.retain(|fingerprint| !wanted(fingerprint));
    }

    /// How far the process is behind.
    pub fn lag(&self, wanted: &BTreeSet<Fingerprint>, bundle: &BTreeSet<Fingerprint>) -> Lag {
        Lag {
            missing: wanted.iter().filter(|f| bundle.contains(f) && !self.has.contains(f)).copied().collect(),
            lingering: self.left.difference(bundle).copied().collect(),
        }
    }
}

/// What the services are to follow.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Anchors that are to be trusted.
    pub anchors: BTreeSet<Fingerprint>,
    /// Those among them that Go reads. The runtime can trust no others, whatever is done, and a registry file without any of these
    /// would fail every pull.
    pub readable: BTreeSet<Fingerprint>,
    /// What is in the bundle.
    pub bundle: BTreeSet<Fingerprint>,
}

/// Decides what is to be done so that the services follow a bundle, given the ledger that knows their processes.
pub fn decide(services: &Services, ledger: &Ledger, wanted: &Wanted, policy: &Policy, now: &Moment) -> Outlook {
    let mut outlook = Outlook::default();
    let record_of = |service: &Service| {
        let record = ledger.services.get(&service.unit);
        record.filter(|record| service.process.as_ref() == Some(&record.process))
    };
    let lag_of = |service: &Service, of: &BTreeSet<Fingerprint>| {
        record_of(service).map(|record| record.lag(of, &wanted.bundle)).unwrap_or_default()
    };
    let mut due: Vec<Action> = Vec::new();
    if let Some(runtime) = &services.runtime {
        outlook.cannot = &wanted.anchors - &wanted.readable;
        outlook.lag = lag_of(&runtime.service, &wanted.readable);
        let there = runtime.certs.served();
        let known = record_of(&runtime.service).is_some();
        outlook.serves = serves(runtime, wanted, known.then_some(&outlook.lag), policy.on_change);
        outlook.actions = certs_actions(runtime, ledger, &outlook.serves);
        let covers = runtime.certs.covers().is_ok();
        // what the process has too little after a file that is to be written
        let mut after = outlook.lag.clone();
        if covers {
            after.missing.retain(|fingerprint| !outlook.serves.contains(fingerprint));
            outlook.covered = &outlook.lag.missing & &there;
            outlook.lag.missing.retain(|fingerprint| !there.contains(fingerprint));
        }
        outlook.why = reason(runtime, ledger, &outlook);
        if !after.is_none() {
            match hold(runtime, policy.on_change) {
                Some(hold) => outlook.hold = Some(hold),
                None => due.push(Action::Restart { unit: runtime.service.unit.clone(), why: after.text() }),
            }
        }
    }
    let runtime_is_due = !due.is_empty();
    for service in services.also.values().filter(|service| service.state == ServiceState::Active) {
        // one that is no Go program may read what a runtime cannot
        let lag = lag_of(service, &wanted.anchors);
        if !lag.is_none() && matches!(policy.on_change, OnChange::Auto | OnChange::Restart) {
            due.push(Action::Restart { unit: service.unit.clone(), why: lag.text() });
        }
    }
    if !due.is_empty() {
        match rate(&ledger.tries, now, ledger.updated) {
            Some(hold) if runtime_is_due => outlook.hold = Some(hold),
            Some(_) => {} // the further units come with one of the next cycles
            None => outlook.actions.extend(due),
        }
    }
    outlook
}

/// What our file in the registry directory is to hold. An anchor that is wanted, and that pulls may rest on, does not leave it:
/// not because the bundle has lost it, nor because the policy changed.
fn serves(runtime: &Runtime, wanted: &Wanted, lag: Option<&Lag>, on_change: OnChange) -> BTreeSet<Fingerprint> {
    let there = &runtime.certs.served() & &wanted.readable;
    match (on_change, lag) {
        (OnChange::Auto | OnChange::Registry, _) => &(&wanted.readable & &wanted.bundle) | &there,
        (_, Some(lag)) => &there & &lag.missing,
        (_, None) => there,
    }
}

/// What to do with our files in registry directories.
fn certs_actions(runtime: &Runtime, ledger: &Ledger, serves: &BTreeSet<Fingerprint>) -> Vec<Action> {
    let path = runtime.certs.path().filter(|_| !serves.is_empty());
    let mut actions = Vec::new();
    if let Some(path) = &path
        && runtime.certs.own.get(path) != Some(&OwnFile::Holds(serves.clone()))
    {
        actions.push(Action::WriteRegistryCerts { path: path.clone(), anchors: serves.len() });
    }
    // while the configuration cannot be judged, what pulls may be reading stays
    let judged = !matches!(runtime.certs.setting, Setting::Unknown(_) | Setting::ChangedSince(_));
    for old in runtime.certs.own.keys().filter(|old| Some(*old) != path.as_ref()) {
        if judged && (ledger.certs_files.contains(old) || runtime.certs.path().as_ref() == Some(old)) {
            actions.push(Action::RemoveRegistryCerts { path: old.clone() });
        }
    }
    actions
}

/// The fact that decided, for people.
fn reason(runtime: &Runtime, ledger: &Ledger, outlook: &Outlook) -> String {
    match &runtime.service.state {
        ServiceState::Down(_) => return "no restart needed: it reads the bundle when it starts".into(),
        ServiceState::Changing => return "not known yet: it is starting or stopping".into(),
        ServiceState::Active if runtime.service.process.is_none() => {
            return "not known: the process that pulls was not found".into();
        }
        ServiceState::Active => {}
    }
    if !outlook.lag.is_none() {
        let written = outlook.actions.iter().any(|action| matches!(action, Action::WriteRegistryCerts { .. }));
        let cure =
            if written && outlook.lag.lingering.is_empty() { "registry directory is behind" } else { "restart needed" };
        return format!("{cure}: {}", outlook.lag.text());
    }
    if !outlook.covered.is_empty() {
        let anchors = plural(outlook.covered.len(), "anchor");
        return format!(
            "no restart needed: every pull reads {anchors} newer than the process from the registry directory"
        );
    }
    let younger = ledger.published.as_ref().zip(runtime.service.process.as_ref()).is_some_and(|(since, process)| {
        since.boot_id != process.started.boot_id || since.milliseconds < process.started.milliseconds
    });
    let fact = if younger {
        "the process is younger than the last change"
    } else {
        "nothing of ours changed since it started"
    };
    format!("no restart needed: {fact}")
}

/// Why the runtime may not be restarted although that is due.
fn hold(runtime: &Runtime, on_change: OnChange) -> Option<Hold> {
    let unit = &runtime.service.unit;
    let held = |reason, why: String, next: String, wait| Some(Hold { reason, why, next, wait });
    match on_change {
        OnChange::Never | OnChange::Report | OnChange::Registry => {
            let why = match on_change {
                OnChange::Never => "runtime.onChange is never".to_owned(),
                OnChange::Registry => format!("runtime.onChange is registry, {}", beyond_registry(runtime)),
                _ => "runtime.onChange is report".to_owned(),
            };
            let next = format!("when it suits: systemctl restart {unit}");
            return held(HoldReason::Policy, why, next, None);
        }
        OnChange::Auto | OnChange::Restart => {}
    }
    if runtime.service.state == ServiceState::Changing {
        return held(HoldReason::Busy, format!("{unit} is starting or stopping"), String::new(), Some(LOOK_AGAIN));
    }
    if let Err(sick) = &runtime.health {
        let next = format!("mend it first: journalctl -u {unit}; it is not restarted while it does not work");
        return held(
            HoldReason::Unhealthy,
            format!("{} does not work: {sick}", runtime.kind),
            next,
            Some(BETWEEN_TRIES),
        );
    }
    if let Err((reason, why)) = &runtime.spares {
        let next = match reason {
            HoldReason::NoAccess => {
                let service = unit.trim_end_matches(".service");
                format!("when it suits: rc-service {service} restart; or give the agent the host's PID namespace")
            }
            _ => format!("drain the node, then: systemctl restart {unit}"),
        };
        return held(*reason, why.clone(), next, None);
    }
    None
}

/// Why the registry directory does not do what a restart would.
fn beyond_registry(runtime: &Runtime) -> String {
    match &runtime.certs.setting {
        Setting::Unsupported => format!("and {} has no registry directory for all registries", runtime.kind),
        Setting::NotConfigured => format!("and {} has no registry directory configured", runtime.kind),
        setting => match runtime.certs.covers() {
            Ok(()) => format!("and what the process started with stays in it, whatever is in {setting}"),
            Err(why) => format!("and {why}"),
        },
    }
}

/// Why not now.
fn rate(tries: &[Try], now: &Moment, latest: i64) -> Option<Hold> {
    let ages: Vec<(u64, &Try)> = tries.iter().map(|tried| (now.elapsed_since(&tried.at, latest), tried)).collect();
    let (age, last) = ages.iter().min_by_key(|(age, _)| *age)?;
    let hold =
        |reason, why: String, next: &str, wait: u64| Hold { reason, why, next: next.into(), wait: Some(wait.max(1)) };
    if let Some(TryOutcome::Failed(why)) = &last.outcome
        && *age < AFTER_FAILURE
    {
        let why = format!("the last restart failed: {why}");
        return Some(hold(HoldReason::Failed, why, "look at the unit's log before the next try", AFTER_FAILURE - age));
    }
    if *age < BETWEEN_TRIES {
        let why = format!("the last restart was {age} s ago");
        return Some(hold(HoldReason::RateLimit, why, "", BETWEEN_TRIES - age));
    }
    let mut within: Vec<u64> = ages.iter().map(|(age, _)| *age).filter(|age| *age < TRIES_WINDOW).collect();
    within.sort_unstable();
    let oldest = within.get(MAX_TRIES - 1)?;
    let why = format!("{MAX_TRIES} restarts in the last hour");
    Some(hold(HoldReason::RateLimit, why, "find out what changes the certificates so often", TRIES_WINDOW - oldest))
}

/// What a failed restart is told with.
pub fn failure(unit: &str, why: String) -> Problem {
    let pause = AFTER_FAILURE / 60;
    let next =
        format!("look at it on the node: systemctl status {unit}; it is tried again in {pause} minutes if it runs");
    Problem::new(ProblemKind::Restart, why, next)
}

/// A restart of ours that failed is told until the runtime works again: what does not run has no lag that would show.
pub fn aftermath(runtime: &Runtime, tries: &[Try]) -> Option<Problem> {
    let works = runtime.service.state == ServiceState::Active && runtime.health.is_ok();
    match &tries.last()?.outcome {
        Some(TryOutcome::Failed(why)) if !works => Some(failure(&runtime.service.unit, why.clone())),
        _ => None,
    }
}

/// The tries that still count, with a new one.
pub fn with_try(tries: &[Try], at: &Moment) -> Vec<Try> {
    let mut kept: Vec<Try> = tries.iter().rev().take(MAX_TRIES - 1).rev().cloned().collect();
    kept.push(Try { at: at.clone(), outcome: None });
    kept
}

/// What is known of all services' processes. What cannot be seen just now stays known, as long as this boot lasts.
pub fn follow_all(
    services: &Services,
    known: &BTreeMap<String, Record>,
    bundle: Bundle<'_>,
    now: &Uptime,
) -> BTreeMap<String, Record> {
    let mut records = known.clone();
    records.retain(|_, record| record.process.started.boot_id == now.boot_id);
    let all = services.runtime.iter().map(|runtime| &runtime.service).chain(services.also.values());
    for service in all {
        if let Some(process) = &service.process {
            let record = follow(known.get(&service.unit), process, bundle);
            records.insert(service.unit.clone(), record);
        }
    }
    records
}

#[cfg(test)]
#[path = "rule_tests.rs"]
mod tests;
