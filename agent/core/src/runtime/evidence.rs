//! Whether pulls through the container runtime follow the bundle, by evidence: the four states, and what would make an unknown one known.
//!
//! [`staleness`](super::staleness) infers what is to be done, from units, times and configuration files. That cannot be complete, so it
//! is not enough to call a node trusted. A runtime is `current` if its process is younger than the last change, or verifiably reads what it lacks from
//! a registry directory, or has itself testified. What is not known is said to be unknown.

use super::{
    attempts::BETWEEN_ATTEMPTS,
    process::ServiceProcess,
    registry_dir::Setting,
    service_plan::{LOOK_AGAIN, ServicePlan},
    services::{HoldReason, Runtime, ServiceState, Services},
    testimony::Testimony,
    trust::{RuntimeState, RuntimeTrust},
};
use crate::{action::ServiceAction, certificate::name::sentence, ledger::Ledger, text::plural, time::Moment};

/// Decides on the state of the runtime, from what is there, what is remembered and what is to be done. `testimony` is about the process that
/// runs, and empty if none was found.
pub fn judge(
    services: &Services,
    ledger: &Ledger,
    outlook: &ServicePlan,
    testimony: &Testimony<'_>,
    now: &Moment,
) -> RuntimeTrust {
    if services.choice.ignored {
        return RuntimeTrust::of(RuntimeState::None, "runtime.kind is none: nobody asks");
    }
    let in_pod = services.in_pod || ledger.pod.as_ref() == Some(&now.boot_id);
    let Some(runtime) = &services.runtime else { return absent(services, in_pod) };
    let unit = &runtime.service.unit;
    match &runtime.service.state {
        ServiceState::Failed(word) => {
            let next = format!("mend it: systemctl status {unit}; journalctl -u {unit}");
            let trust = RuntimeTrust::unknown(format!("not known: {unit} is {word}"), next);
            return RuntimeTrust { again: Some(BETWEEN_ATTEMPTS), ..trust };
        }
        ServiceState::Down(word) if in_pod || services.sign.is_some() => {
            let sign = services.sign.as_deref().unwrap_or(POD);
            return RuntimeTrust::unknown(format!("not known: {unit} is {word}, and {sign}"), NAME_IT);
        }
        ServiceState::Down(_) => {
            return RuntimeTrust::of(RuntimeState::None, "no restart needed: it reads the bundle when it starts");
        }
        ServiceState::Changing => {
            let trust = RuntimeTrust::unknown(
                "not known yet: it is starting or stopping",
                format!("wait until {unit} has started; it is looked at again in {LOOK_AGAIN} s"),
            );
            return RuntimeTrust { again: Some(LOOK_AGAIN), ..trust };
        }
        ServiceState::Active => {}
    }
    let inferred = infer(services, runtime, ledger, outlook, testimony);
    match testimony.refusal() {
        Some(_) => refused(runtime, outlook, testimony, inferred),
        None => inferred,
    }
}

/// A pod of this node as evidence.
const POD: &str = "this agent runs in a pod, so the node has a container runtime that runs";
/// How to name a runtime that was not found.
const NAME_IT: &str =
    "set runtime.kind and runtime.unit to what pulls images on this node; runtime.kind: none if nobody should ask";

/// No unit of a runtime was found.
fn absent(services: &Services, in_pod: bool) -> RuntimeTrust {
    match &services.sign {
        Some(sign) => RuntimeTrust::unknown(format!("not known: {sign}"), NAME_IT),
        None if in_pod => RuntimeTrust::unknown(format!("not known: {POD}, and none was found"), NAME_IT),
        None => RuntimeTrust::of(RuntimeState::None, "no unit, socket, process or kubelet setting speaks of a runtime"),
    }
}

/// What follows for a unit that runs, without a refusal.
fn infer(
    services: &Services,
    runtime: &Runtime,
    ledger: &Ledger,
    outlook: &ServicePlan,
    testimony: &Testimony<'_>,
) -> RuntimeTrust {
    let unit = &runtime.service.unit;
    let Some(process) = &runtime.service.process else {
        let next = format!("see what {unit} runs: systemctl status {unit}; {NAME_IT}");
        let trust = RuntimeTrust::unknown("not known: the process that pulls was not found", next);
        return RuntimeTrust { again: Some(BETWEEN_ATTEMPTS), ..trust };
    };
    let lag = &outlook.lag;
    if let Setting::Unknown(why) = &runtime.certs.setting
        && lag.lingering.is_empty()
        && !lag.missing.is_empty()
    {
        let why = format!(
            "not known: {}, and whether a registry directory makes up for that cannot be told: {why}",
            lag.text()
        );
        return RuntimeTrust::unknown(why, unless_held(outlook, &ask_or_restart(unit)));
    }
    if !lag.is_none() {
        let written = outlook.actions.iter().any(|action| matches!(action, ServiceAction::WriteRegistryCerts { .. }));
        let cure = if written && lag.lingering.is_empty() { "registry directory is behind" } else { "restart needed" };
        return RuntimeTrust::of(RuntimeState::Stale, format!("{cure}: {}", lag.text()));
    }
    if let Err(sick) = &runtime.health {
        let next = format!("mend it: journalctl -u {unit}; it is not restarted while it does not work");
        let trust = RuntimeTrust::unknown(format!("not known: {} does not work: {sick}", runtime.kind), next);
        return RuntimeTrust { again: Some(BETWEEN_ATTEMPTS), ..trust };
    }
    if let Some(sign) = &services.sign {
        return RuntimeTrust::unknown(format!("not known: {unit} runs, and {sign}"), NAME_IT);
    }
    let is_known = ledger.services.get(unit).is_some_and(|record| record.process == *process);
    if !is_known {
        let next = "run `nodetrust apply`, or wait for the agent's next cycle";
        return RuntimeTrust::unknown("not known: nothing is remembered of its process", next);
    }
    if !lag.unproven.is_empty() {
        return unproven(runtime, outlook, testimony);
    }
    RuntimeTrust::of(RuntimeState::Current, format!("no restart needed: {}", fact(process, ledger, outlook)))
}

/// Others had put wanted anchors into the bundle before the process was first seen.
fn unproven(runtime: &Runtime, outlook: &ServicePlan, testimony: &Testimony<'_>) -> RuntimeTrust {
    let anchors = plural(outlook.lag.unproven.len(), "anchor");
    let mut why = match &runtime.elsewhere {
        Some(elsewhere) => format!("not known: {elsewhere}, so nothing tells whether it has {anchors}"),
        None => format!(
            "not known: {anchors} and the process were there before nodetrust first looked, and nothing tells which came first"
        ),
    };
    if let Some(host) = testimony.only_works() {
        why += &format!("; pulls from {host} work, without a check of its CA");
    } else if let Some((host, witness)) = testimony.unreached() {
        why += &format!("; {host} was not reached: {}", sentence(&witness.words));
    }
    let next = match &runtime.elsewhere {
        Some(_) => ASK_OR_CHANGE.to_owned(),
        None => ask_or_restart(&runtime.service.unit),
    };
    RuntimeTrust::unknown(why, next)
}

/// What a person can do about a process that reads other roots.
const ASK_OR_CHANGE: &str = "have the unit read the node's bundle, or ask the runtime about a registry behind each of these anchors: nodetrust probe --through runtime HOST";

/// What a person can do where nothing but the runtime's own word, or a restart, helps.
fn ask_or_restart(unit: &str) -> String {
    format!(
        "ask the runtime about a registry behind one of these anchors: nodetrust probe --through runtime HOST; or restart it when it suits: systemctl restart {unit}"
    )
}

/// A piece of advice, where no hold gives its own.
fn unless_held(outlook: &ServicePlan, next: &str) -> String {
    let is_held = outlook.hold.as_ref().is_some_and(|hold| !hold.next.is_empty() && hold.reason != HoldReason::Policy);
    if is_held { String::new() } else { next.to_owned() }
}

/// The process refuses a registry, whatever was inferred.
fn refused(
    runtime: &Runtime,
    outlook: &ServicePlan,
    testimony: &Testimony<'_>,
    inferred: RuntimeTrust,
) -> RuntimeTrust {
    let Some((host, witness)) = testimony.refusal() else { return inferred };
    let words = sentence(&witness.words);
    let mut trust = RuntimeTrust::of(RuntimeState::Stale, format!("it refuses {host}: {words}"));
    trust.refuses = testimony.curable().map(|(host, _)| host.to_owned());
    match &witness.handshake_error {
        _ if !outlook.lag.is_none() => trust.why = format!("{}; {}", inferred.why, trust.why),
        Some(error) => {
            let error = sentence(error);
            trust.why += &format!("; no restart would help: programs that start now do not trust it either: {error}");
            trust.next = format!("look at the registry first: {error}; nodetrust probe {host} shows its chain");
        }
        None if let Some(elsewhere) = &runtime.elsewhere => {
            trust.why += &format!("; no restart would help: {elsewhere}");
            trust.next = "have the unit read the node's bundle, or put the anchors where it reads its roots".into();
        }
        None if testimony.restarted => {
            trust.why += "; a restart did not help";
            trust.next = format!("{UNCURED} ({host})");
        }
        None => {}
    }
    if inferred.state.is_green() {
        let started = runtime.service.process.as_ref().map_or(0, |process| process.started.milliseconds / 1000);
        trust.misled = Some(format!(
            "inferred: {}; {} started {started} s after boot; registry directory: {}",
            inferred.why, runtime.service.unit, runtime.certs.setting
        ));
    }
    trust
}

/// What a restart does not cure.
const UNCURED: &str = "no further restart is made. Likely causes: the registry's certificate has expired or is for another name, its \
                       server sends no intermediate, somebody's `ca` in the registry directory replaces nothing and is another one, or \
                       its token server elsewhere has another CA";

/// Which evidence there is.
fn fact(process: &ServiceProcess, ledger: &Ledger, outlook: &ServicePlan) -> String {
    if !outlook.covered.is_empty() {
        let anchors = plural(outlook.covered.len(), "anchor");
        return format!("every pull reads {anchors} newer than the process from the registry directory");
    }
    if let Some(host) = &outlook.witnessed {
        return format!("the runtime trusts {host}, as it says itself");
    }
    let younger = ledger.published.as_ref().is_some_and(|since| {
        since.boot_id != process.started.boot_id || since.milliseconds < process.started.milliseconds
    });
    let fact = if younger {
        "the process is younger than the last change"
    } else {
        "nothing of ours changed since it started"
    };
    fact.into()
}

#[cfg(test)]
#[path = "evidence_tests.rs"]
mod tests;
