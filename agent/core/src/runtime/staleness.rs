//! Whether a process is behind the bundle, and what is to be done about it (facts C.8).
//!
//! Nothing in a process shows which roots it has read. What can be known is which certificates were in the bundle when it
//! started. The ledger records that once for each process, from facts that a crash or a reboot does not change. Each cycle compares
//! the record with the bundle. The need for a restart itself is not remembered, so no crash forgets or repeats it.

use std::collections::BTreeSet;

use super::{
    attempts::{AFTER_FAILURE, AttemptOutcome, RestartAttempt},
    evidence::judge,
    record::Lag,
    registry_dir::{OwnRegistryFile, Setting},
    restart_hold::{forbidden, hold, rate},
    service_plan::{Hold, RestartGate, ServiceGoal, ServicePlan},
    services::{Runtime, Service, ServiceState, Services},
    settings::{OnChange, RuntimeSettings},
    testimony::Testimony,
};
use crate::{
    action::ServiceAction,
    certificate::fingerprint::Fingerprint,
    ledger::Ledger,
    problem::{Problem, ProblemKind},
    time::Moment,
};

/// Decides what is to be done so that the services follow a bundle, given the ledger that knows their processes. The fleet is asked last: a
/// node whose restart is held back for a reason of its own needs no slot.
pub fn decide(
    services: &Services,
    ledger: &Ledger,
    wanted: &ServiceGoal,
    policy: &RuntimeSettings,
    gate: &RestartGate,
    now: &Moment,
) -> ServicePlan {
    let mut outlook = ServicePlan::default();
    let record_of = |service: &Service| {
        let record = ledger.services.get(&service.unit);
        record.filter(|record| service.process.as_ref() == Some(&record.process))
    };
    let lag_of = |service: &Service, of: &BTreeSet<Fingerprint>| {
        record_of(service).map(|record| record.lag(of, &wanted.bundle)).unwrap_or_default()
    };
    let process = services.runtime.as_ref().and_then(|runtime| runtime.service.process.as_ref());
    let testimony = process.map(|process| Testimony::of(&ledger.witnesses, process, &wanted.set)).unwrap_or_default();
    let mut due: Vec<ServiceAction> = Vec::new();
    if let Some(runtime) = &services.runtime {
        outlook.cannot = &wanted.anchors - &wanted.readable;
        let lag = match &runtime.elsewhere {
            None => lag_of(&runtime.service, &wanted.readable),
            // It reads other roots when it starts: what it has is not known, and a restart would not help.
            Some(_) => Lag { unproven: &wanted.readable & &wanted.bundle, ..Lag::default() },
        };
        let known = record_of(&runtime.service).is_some();
        outlook.serves = serves(runtime, wanted, known.then_some(&lag), policy.on_change);
        outlook.actions = certs_actions(runtime, ledger, &outlook.serves);
        let proven = testimony.proven(&runtime.certs.setting);
        // what the process still lacks when the registry directory is written
        let mut after = lag.clone();
        outlook.lag = lag;
        if runtime.certs.covers().is_ok() {
            after.covered_by(&outlook.serves);
            outlook.covered = outlook.lag.covered_by(&runtime.certs.served());
        }
        let together = runtime.elsewhere.is_none();
        after.proven(&proven, together);
        if outlook.lag.proven(&proven, together) {
            outlook.witnessed = testimony.trusting().map(str::to_owned);
        }
        let wants_restart = testimony.wants_restart() && runtime.elsewhere.is_none();
        let refusal = testimony.curable().filter(|_| wants_restart && outlook.actions.is_empty());
        let why = match refusal {
            _ if !after.is_none() => Some(after.text()),
            Some((host, _)) => Some(format!("it refuses {host}, which the bundle trusts")),
            None => None,
        };
        if let Some(why) = why {
            match hold(runtime, policy.on_change) {
                Some(hold) => outlook.hold = Some(hold),
                None => due.push(ServiceAction::Restart { unit: runtime.service.unit.clone(), why }),
            }
        }
    }
    let runtime_is_due = !due.is_empty();
    for service in services.also.values().filter(|service| service.state == ServiceState::Active) {
        // A further unit may be no Go program and read what a runtime cannot.
        let lag = lag_of(service, &wanted.anchors);
        if !lag.is_none() && matches!(policy.on_change, OnChange::Auto | OnChange::Restart) {
            due.push(ServiceAction::Restart { unit: service.unit.clone(), why: lag.text() });
        }
    }
    if !due.is_empty() {
        match (rate(&ledger.attempts, now, ledger.updated), gate) {
            (Some(hold), _) if runtime_is_due => outlook.hold = Some(hold),
            (Some(_), _) => {} // the further units are restarted in one of the next cycles
            (None, RestartGate::Closed(hold)) => outlook.hold = Some(hold.clone()),
            (None, RestartGate::Open) => outlook.actions.extend(due),
        }
    }
    outlook.trust = judge(services, ledger, &outlook, &testimony, now);
    outlook
}

/// What holds back a restart of the runtime that comes with a change of the store, whatever the runtime lacks.
pub fn holds_back(
    services: &Services,
    ledger: &Ledger,
    policy: &RuntimeSettings,
    gate: &RestartGate,
    now: &Moment,
) -> Option<Hold> {
    let own = match &services.runtime {
        Some(runtime) => hold(runtime, policy.on_change),
        None => forbidden(policy.on_change),
    };
    own.or_else(|| rate(&ledger.attempts, now, ledger.updated)).or_else(|| match gate {
        RestartGate::Closed(hold) => Some(hold.clone()),
        RestartGate::Open => None,
    })
}

/// What our file in the registry directory is to hold. A wanted anchor that pulls may rely on stays in it, even if the bundle has lost
/// the anchor or the policy has changed.
fn serves(runtime: &Runtime, wanted: &ServiceGoal, lag: Option<&Lag>, on_change: OnChange) -> BTreeSet<Fingerprint> {
    let there = &runtime.certs.served() & &wanted.readable;
    match (on_change, lag) {
        (OnChange::Auto | OnChange::Registry, _) => &(&wanted.readable & &wanted.bundle) | &there,
        (_, Some(lag)) => &there & &(&lag.missing | &lag.unproven),
        (_, None) => there,
    }
}

/// What to do with our files in registry directories.
fn certs_actions(runtime: &Runtime, ledger: &Ledger, serves: &BTreeSet<Fingerprint>) -> Vec<ServiceAction> {
    let path = runtime.certs.path().filter(|_| !serves.is_empty());
    let mut actions = Vec::new();
    if let Some(path) = &path
        && runtime.certs.own.get(path) != Some(&OwnRegistryFile::Holds(serves.clone()))
    {
        actions.push(ServiceAction::WriteRegistryCerts { path: path.clone(), anchors: serves.len() });
    }
    // While the configuration is not known, a file that pulls may be reading stays.
    let judged = !matches!(runtime.certs.setting, Setting::Unknown(_) | Setting::ChangedSince(_));
    for old in runtime.certs.own.keys().filter(|old| Some(*old) != path.as_ref()) {
        if judged && (ledger.certs_files.contains(old) || runtime.certs.path().as_ref() == Some(old)) {
            actions.push(ServiceAction::RemoveRegistryCerts { path: old.clone() });
        }
    }
    actions
}

/// The problem of a failed restart.
pub fn failure(unit: &str, why: String) -> Problem {
    let pause = AFTER_FAILURE / 60;
    let next =
        format!("look at it on the node: systemctl status {unit}; it is tried again in {pause} minutes if it runs");
    Problem::new(ProblemKind::Restart, why, next)
}

/// The problem of our last restart, if it failed and the runtime does not work yet. A runtime that does not run has no lag that would
/// show it. A failure before this boot is over, whatever the runtime does now.
pub fn aftermath(runtime: &Runtime, attempts: &[RestartAttempt], boot_id: &str) -> Option<Problem> {
    let works = runtime.service.state == ServiceState::Active && runtime.health.is_ok();
    let last = attempts.last().filter(|last| last.at.boot_id == boot_id)?;
    match &last.outcome {
        Some(AttemptOutcome::Failed(why)) if !works => Some(failure(&runtime.service.unit, why.clone())),
        _ => None,
    }
}

#[cfg(test)]
#[path = "staleness_tests.rs"]
mod tests;
