//! The runtime's part of a report.

use super::model::{AnchorRow, ByRuntime, HoldView, LastRestart, RuntimeView};
use crate::{
    certificate::name::shown,
    ledger::{AnchorState, Ledger},
    runtime::{service_plan::ServicePlan, services::Runtime, trust::RuntimeState},
    time::{Moment, Time},
};

/// The runtime's part of a report.
pub(super) fn runtime_view(runtime: &Runtime, outlook: &ServicePlan, ledger: &Ledger, now: &Moment) -> RuntimeView {
    let started = runtime.service.process.as_ref().map(|process| {
        let age = now.boottime.saturating_sub(process.started.milliseconds / 1000);
        Time(now.wall.saturating_sub(i64::try_from(age).unwrap_or(0)))
    });
    let last_restart = ledger
        .attempts
        .last()
        .map(|attempt| LastRestart { time: Time(attempt.at.wall), outcome: attempt.outcome.clone() });
    RuntimeView {
        kind: runtime.kind,
        because: runtime.because.clone(),
        version: shown(&runtime.version),
        unit: runtime.service.unit.clone(),
        state: runtime.service.state.clone(),
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

/// Whether pulls trust an anchor; None if nothing is `known` of the process that would tell.
pub(super) fn by_runtime(runtime: &RuntimeView, row: &AnchorRow, known: bool) -> Option<ByRuntime> {
    let is_wanted = matches!(row.state, AnchorState::Desired | AnchorState::Grace);
    if row.go_refuses.is_some() {
        // neither does it trust one that should be gone
        return if is_wanted { Some(ByRuntime::Cannot) } else { known.then_some(ByRuntime::No) };
    }
    if known && runtime.unproven.contains(&row.sha256) {
        return Some(ByRuntime::Unknown);
    }
    let trusts = runtime.lingering.contains(&row.sha256) || row.trusted && !runtime.missing.contains(&row.sha256);
    known.then_some(if trusts { ByRuntime::Yes } else { ByRuntime::No })
}
