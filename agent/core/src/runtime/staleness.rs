//! Whether a process is behind the bundle, and what is to be done about it (facts C.8).
//!
//! Nothing in a process shows which roots it has read. What can be known is which certificates were in the bundle when it
//! started. The ledger records that once for each process, from facts that a crash or a reboot does not change. Each cycle compares
//! the record with the bundle. The need for a restart itself is not remembered, so no crash forgets or repeats it.

use std::collections::BTreeSet;

use super::{
    attempts::{AFTER_FAILURE, ATTEMPTS_WINDOW, AttemptOutcome, BETWEEN_ATTEMPTS, MAX_ATTEMPTS, RestartAttempt},
    evidence::judge,
    record::Lag,
    registry_dir::{OwnRegistryFile, Setting},
    service_plan::{Hold, LOOK_AGAIN, ServiceGoal, ServicePlan},
    services::{HoldReason, Runtime, Service, ServiceState, Services},
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

/// Decides what is to be done so that the services follow a bundle, given the ledger that knows their processes.
pub fn decide(
    services: &Services,
    ledger: &Ledger,
    wanted: &ServiceGoal,
    policy: &RuntimeSettings,
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
        match rate(&ledger.attempts, now, ledger.updated) {
            Some(hold) if runtime_is_due => outlook.hold = Some(hold),
            Some(_) => {} // the further units are restarted in one of the next cycles
            None => outlook.actions.extend(due),
        }
    }
    outlook.trust = judge(services, ledger, &outlook, &testimony, now);
    outlook
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
            Some(BETWEEN_ATTEMPTS),
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

/// Why a restart must wait, by the attempts so far; None if it may be made now.
fn rate(attempts: &[RestartAttempt], now: &Moment, latest: i64) -> Option<Hold> {
    let ages: Vec<(u64, &RestartAttempt)> =
        attempts.iter().map(|attempt| (now.elapsed_since(&attempt.at, latest), attempt)).collect();
    let (age, last) = ages.iter().min_by_key(|(age, _)| *age)?;
    let hold =
        |reason, why: String, next: &str, wait: u64| Hold { reason, why, next: next.into(), wait: Some(wait.max(1)) };
    if let Some(AttemptOutcome::Failed(why)) = &last.outcome
        && *age < AFTER_FAILURE
    {
        let why = format!("the last restart failed: {why}");
        return Some(hold(HoldReason::Failed, why, "look at the unit's log before the next try", AFTER_FAILURE - age));
    }
    if *age < BETWEEN_ATTEMPTS {
        let why = format!("the last restart was {age} s ago");
        return Some(hold(HoldReason::RateLimit, why, "", BETWEEN_ATTEMPTS - age));
    }
    let mut within: Vec<u64> = ages.iter().map(|(age, _)| *age).filter(|age| *age < ATTEMPTS_WINDOW).collect();
    within.sort_unstable();
    let oldest = within.get(MAX_ATTEMPTS - 1)?;
    let why = format!("{MAX_ATTEMPTS} restarts in the last hour");
    Some(hold(HoldReason::RateLimit, why, "find out what changes the certificates so often", ATTEMPTS_WINDOW - oldest))
}

/// The problem of a failed restart.
pub fn failure(unit: &str, why: String) -> Problem {
    let pause = AFTER_FAILURE / 60;
    let next =
        format!("look at it on the node: systemctl status {unit}; it is tried again in {pause} minutes if it runs");
    Problem::new(ProblemKind::Restart, why, next)
}

/// The problem of our last restart, if it failed and the runtime does not work yet. A runtime that does not run has no lag that would
/// show it.
pub fn aftermath(runtime: &Runtime, attempts: &[RestartAttempt]) -> Option<Problem> {
    let works = runtime.service.state == ServiceState::Active && runtime.health.is_ok();
    match &attempts.last()?.outcome {
        Some(AttemptOutcome::Failed(why)) if !works => Some(failure(&runtime.service.unit, why.clone())),
        _ => None,
    }
}

#[cfg(test)]
#[path = "staleness_tests.rs"]
mod tests;
