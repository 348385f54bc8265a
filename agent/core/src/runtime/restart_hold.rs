//! What holds back a restart that is due: the configuration, the state of the runtime, what a restart would cost, and how many there were.

use super::{
    attempts::{AFTER_FAILURE, ATTEMPTS_WINDOW, AttemptOutcome, BETWEEN_ATTEMPTS, MAX_ATTEMPTS, RestartAttempt},
    registry_dir::Setting,
    service_plan::{Hold, LOOK_AGAIN},
    services::{HoldReason, Runtime, ServiceState},
    settings::OnChange,
};
use crate::time::Moment;

/// Why the runtime may not be restarted although that is due.
pub(super) fn hold(runtime: &Runtime, on_change: OnChange) -> Option<Hold> {
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

/// The same where no runtime was found that could be asked.
pub(super) fn forbidden(on_change: OnChange) -> Option<Hold> {
    let word = match on_change {
        OnChange::Never => "never",
        OnChange::Report => "report",
        OnChange::Registry => "registry",
        OnChange::Auto | OnChange::Restart => return None,
    };
    let why = format!("runtime.onChange is {word}");
    Some(Hold { reason: HoldReason::Policy, why, next: String::new(), wait: None })
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
pub(super) fn rate(attempts: &[RestartAttempt], now: &Moment, latest: i64) -> Option<Hold> {
    let ages: Vec<(u64, &RestartAttempt)> =
        attempts.iter().map(|attempt| (now.elapsed_since(&attempt.at, latest), attempt)).collect();
    let (age, last) = ages.iter().min_by_key(|(age, _)| *age)?;
    let hold =
        |reason, why: String, next: &str, wait: u64| Hold { reason, why, next: next.into(), wait: Some(wait.max(1)) };
    if let Some(AttemptOutcome::Failed(why)) = &last.outcome
        && *age < AFTER_FAILURE
    {
        let why = format!("the last restart failed: {why}");
        let next = "mend what it failed by; the agent tries again 10 minutes after the failure";
        return Some(hold(HoldReason::Failed, why, next, AFTER_FAILURE - age));
    }
    if *age < BETWEEN_ATTEMPTS {
        let why = format!("the last restart was {age} s ago");
        return Some(hold(HoldReason::RateLimit, why, "", BETWEEN_ATTEMPTS - age));
    }
    let mut within: Vec<u64> = ages.iter().map(|(age, _)| *age).filter(|age| *age < ATTEMPTS_WINDOW).collect();
    within.sort_unstable();
    let oldest = within.get(MAX_ATTEMPTS - 1)?;
    let why = format!("{MAX_ATTEMPTS} restarts in the last hour");
    let next = "find out what changes the certificates so often; the agent restarts it when the hour is over";
    Some(hold(HoldReason::RateLimit, why, next, ATTEMPTS_WINDOW - oldest))
}
