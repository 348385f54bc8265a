use std::sync::Arc;

use super::*;
use crate::{
    certificate::anchor::Anchor,
    ledger::{AnchorState, LedgerAnchor},
    planner::{plan, plan_uninstall},
    runtime::{
        attempts::AttemptOutcome,
        kinds::RuntimeKind,
        process::ServiceProcess,
        registry_dir::RegistryCerts,
        services::{Runtime, Service, ServiceState},
    },
    source::{
        policy::{Circumstances, Policy},
        resolve::resolve,
    },
    store::Family,
    testing::{NOW, at, fixed, host, source},
    time::Uptime,
};

/// A node behind an API with a running containerd.
fn node(family: Family, ours: &[&Arc<Anchor>]) -> Observed {
    let started = Uptime { boot_id: "one".into(), milliseconds: 1_000 };
    let process = ServiceProcess { invocation: "1".into(), started };
    let mut observed = host(family, ours);
    observed.services.runtime = Some(Runtime {
        kind: RuntimeKind::Containerd,
        because: "it is active".into(),
        version: "2.1.9".into(),
        socket: "/run/containerd/containerd.sock".into(),
        service: Service { unit: "containerd.service".into(), state: ServiceState::Active, process: Some(process) },
        health: Ok(()),
        spares: Ok(()),
        certs: RegistryCerts::default(),
        elsewhere: None,
    });
    observed
}

/// The plan for these wanted anchors, tied to its restart.
fn tied(
    observed: &Observed,
    ledger: &Ledger,
    wanted: &[&Arc<Anchor>],
    on_change: OnChange,
    gate: &RestartGate,
) -> (Plan, ServicePlan) {
    let (policy, now) = (Policy::default(), at(NOW, 1_000, "one"));
    let at_now = Circumstances { drops_not_ca: Some(false), installed: &|_| false, now: NOW };
    let resolved = resolve(&[source("org", wanted)], ledger, &policy, at_now);
    let mut plan = plan(&resolved, observed, ledger, &policy, &now, Default::default());
    let mut services = ServicePlan::default();
    let settings = RuntimeSettings { on_change, ..RuntimeSettings::default() };
    let facts = RestartFacts { observed, ledger, policy: &settings, gate, now: &now };
    tie_to_restart(&mut plan, &mut services, facts);
    (plan, services)
}

fn closed() -> RestartGate {
    let why = "waiting for a slot: 1 of 1 in use (node-2)".to_owned();
    RestartGate::Closed(Hold { reason: HoldReason::Slot, why, next: String::new(), wait: None })
}

#[test]
fn a_change_waits_for_what_holds_back_its_restart() {
    let (wanted, observed) = (fixed("corp-2026"), node(Family::Bottlerocket, &[]));
    let mut recent = Ledger::new();
    recent.begin_restart_attempt(&at(NOW - 10, 990, "one"));
    recent.end_restart_attempt(AttemptOutcome::Done);
    for (ledger, on_change, gate, reason) in [
        (Ledger::new(), OnChange::Auto, closed(), HoldReason::Slot),
        (Ledger::new(), OnChange::Report, RestartGate::Open, HoldReason::Policy),
        (recent, OnChange::Auto, RestartGate::Open, HoldReason::RateLimit),
    ] {
        let (plan, services) = tied(&observed, &ledger, &[&wanted], on_change, &gate);
        assert!(!plan.changes_host() && !plan.ledger.pending, "{:?}", plan.actions);
        assert_eq!(plan.held.len(), 1);
        assert_eq!(services.hold.map(|hold| hold.reason), Some(reason), "so the fleet hears that this node waits");
        assert_eq!(plan.awaits.as_ref().map(|hold| hold.reason), Some(reason));
        let then = plan.expected_bundle(&observed);
        assert_eq!(then, observed.effective.set, "nothing is expected of what is not done");
    }
}

#[test]
fn a_change_that_may_be_made_names_the_restart() {
    let (wanted, observed) = (fixed("corp-2026"), node(Family::Bottlerocket, &[]));
    let (plan, services) = tied(&observed, &Ledger::new(), &[&wanted], OnChange::Auto, &RestartGate::Open);
    assert!(plan.restarts_runtime(&observed) && plan.held.is_empty());
    assert!(
        matches!(services.actions.as_slice(), [ServiceAction::Restart { unit, .. }] if unit == "containerd.service")
    );
}

#[test]
fn an_uninstall_that_would_restart_every_node_at_once_is_not_carried_out() {
    let ours = fixed("corp-2026");
    let refused = |observed: &Observed, on_change| {
        let mut ledger = Ledger::new();
        ledger.anchors.insert(ours.fingerprint, LedgerAnchor::new(&ours, AnchorState::Desired));
        let policy = RuntimeSettings { on_change, ..RuntimeSettings::default() };
        uninstall_problem(&plan_uninstall(observed, &ledger), observed, &policy).is_some()
    };
    let observed = node(Family::Bottlerocket, &[&ours]);
    assert!(refused(&observed, OnChange::Auto) && refused(&observed, OnChange::Report));
    assert!(!refused(&observed, OnChange::Restart), "who says it may");
    assert!(!refused(&host(Family::Bottlerocket, &[&ours]), OnChange::Auto), "no runtime runs");
    assert!(!refused(&node(Family::Bottlerocket, &[]), OnChange::Auto), "nothing is left to take back");
    assert!(!refused(&node(Family::Debian, &[&ours]), OnChange::Auto));
}

#[test]
fn what_changes_no_setting_asks_nobody() {
    let wanted = fixed("corp-2026");
    let observed = node(Family::Bottlerocket, &[&wanted]);
    let mut ledger = Ledger { pending: true, ..Ledger::new() }; // a change whose end was not written down
    ledger.anchors.insert(wanted.fingerprint, LedgerAnchor::new(&wanted, AnchorState::Desired));
    let (plan, services) = tied(&observed, &ledger, &[&wanted], OnChange::Report, &closed());
    assert!(plan.held.is_empty() && services.hold.is_none() && !plan.restarts_runtime(&observed));

    let debian = node(Family::Debian, &[]);
    let (plan, services) = tied(&debian, &Ledger::new(), &[&wanted], OnChange::Report, &closed());
    assert!(plan.changes_store() && plan.held.is_empty() && services.hold.is_none(), "a tool restarts nothing");
}
