//! The status screen.

use nodetrust_core::{
    report::{HoldView, LastRestart},
    runtime::{attempts::AttemptOutcome, kinds::RuntimeKind, services::HoldReason, services::ServiceState},
};

use super::*;
use crate::text::colour::WIDTH;

/// An ordinary containerd.
fn fine() -> RuntimeView {
    RuntimeView {
        kind: RuntimeKind::Containerd,
        because: "containerd.service is active".into(),
        version: "1.7.24".into(),
        unit: "containerd.service".into(),
        state: ServiceState::Active,
        socket: "/run/containerd/containerd.sock".into(),
        started: Some(Time(1000)),
        sick: None,
        certs_dir: "not configured".into(),
        not_covered: Vec::new(),
        stale: false,
        missing: Vec::new(),
        lingering: Vec::new(),
        unproven: Vec::new(),
        covered: Vec::new(),
        cannot: Vec::new(),
        why: "no restart needed: the process is younger than the last change".into(),
        held: None,
        last_restart: None,
    }
}

/// The screen after four hours; each line fits into 100 columns.
#[track_caller]
fn assert_runtime(view: &RuntimeView, lines: &[&str]) {
    let text = runtime_text(view, Time(1000 + 4 * 3600), Style::plain());
    assert_eq!(text.lines().collect::<Vec<_>>(), lines);
    assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
}

#[test]
fn a_runtime_that_follows_takes_two_lines() {
    assert_runtime(
        &fine(),
        &[
            "RUNTIME   containerd 1.7.24  containerd.service, running for 4 h  certs.d: not configured",
            "          no restart needed: the process is younger than the last change",
        ],
    );
}

#[test]
fn what_the_runtime_cannot_read_is_told() {
    let view =
        RuntimeView { cannot: vec![nodetrust_core::certificate::fingerprint::Fingerprint::of_der(b"one")], ..fine() };
    let text = runtime_text(&view, Time(1000), Style::plain());
    assert!(text.ends_with("          cannot read 1 anchor, and no restart would help\n"), "{text}");
}

#[test]
fn a_restart_that_is_held_says_by_what_and_a_failed_one_why() {
    let held = HoldView {
        reason: HoldReason::Failed,
        why: "the last restart failed".into(),
        next: "mend what it failed by; the agent tries again 10 minutes after the failure".into(),
    };
    let why = "containerd.service runs again and does not work: the CRI plug-in is not loaded; its log ends \
                   with: invalid plugin config";
    let view = RuntimeView {
        why: "restart needed: 2 anchors newer than the process".into(),
        stale: true,
        held: Some(held),
        last_restart: Some(LastRestart { time: Time(15_300), outcome: Some(AttemptOutcome::Failed(why.into())) }),
        ..fine()
    };
    assert_runtime(
        &view,
        &[
            "RUNTIME   containerd 1.7.24  containerd.service, running for 4 h  certs.d: not configured",
            "          restart needed: 2 anchors newer than the process",
            "          restart held: the last restart failed",
            "          restart by nodetrust 100 s ago failed: containerd.service runs again and does not work:",
            "          the CRI plug-in is not loaded; its log ends with: invalid plugin config",
        ],
    );
}

/// Who reads of a failure of an hour ago wants to know whether it still matters.
#[test]
fn a_failed_restart_of_a_runtime_that_works_now_says_so() {
    let outcome = Some(AttemptOutcome::Failed("containerd.service has not come back".into()));
    let view = RuntimeView { last_restart: Some(LastRestart { time: Time(15_300), outcome }), ..fine() };
    let text = runtime_text(&view, Time(15_400), Style::plain());
    let told = "restart by nodetrust 100 s ago failed: containerd.service has not come back; it works now";
    assert!(text.split_whitespace().collect::<Vec<_>>().join(" ").ends_with(told), "{text}");
    let text = runtime_text(&RuntimeView { sick: Some("no answer".into()), ..view }, Time(15_400), Style::plain());
    assert!(!text.contains("it works now"), "{text}");
}

#[test]
fn a_registry_directory_names_the_hosts_that_it_does_not_reach() {
    let view = RuntimeView {
        kind: RuntimeKind::K3s,
        unit: "k3s-agent.service".into(),
        certs_dir: "/var/lib/rancher/k3s/agent/etc/containerd/certs.d".into(),
        why: "no restart needed: every pull reads 1 anchor newer than the process from the registry directory".into(),
        not_covered: (1..=12).map(|n| format!("mirror{n}.test")).collect(),
        last_restart: Some(LastRestart { time: Time(1000), outcome: Some(AttemptOutcome::Done) }),
        ..fine()
    };
    assert_runtime(
        &view,
        &[
            "RUNTIME   k3s 1.7.24  k3s-agent.service, running for 4 h",
            "          certs.d: /var/lib/rancher/k3s/agent/etc/containerd/certs.d",
            "          no restart needed: every pull reads 1 anchor newer than the process from the registry",
            "          directory",
            "          certs.d does not reach hosts with a directory of their own: mirror1.test, mirror2.test,",
            "          mirror3.test, mirror4.test, mirror5.test, mirror6.test, mirror7.test, mirror8.test,",
            "          mirror9.test, mirror10.test and 2 more",
            "          restarted by nodetrust 4 h ago",
        ],
    );
}

#[test]
fn a_runtime_that_is_down_or_sick_says_so() {
    let view = RuntimeView {
        version: String::new(),
        state: ServiceState::Failed("failed (start-limit-hit)".into()),
        sick: Some("it does not run".into()),
        why: "no restart needed: it reads the bundle when it starts".into(),
        ..fine()
    };
    assert_runtime(
        &view,
        &[
            "RUNTIME   containerd  containerd.service is failed (start-limit-hit)  certs.d: not configured",
            "          no restart needed: it reads the bundle when it starts",
        ],
    );
    let sick = "containerd does not answer: /run/containerd/containerd.sock had not answered after 5 s";
    let view = RuntimeView { sick: Some(sick.into()), ..fine() };
    assert_runtime(
        &view,
        &[
            "RUNTIME   containerd 1.7.24  containerd.service, running for 4 h  certs.d: not configured",
            "          does not work: containerd does not answer: /run/containerd/containerd.sock had not",
            "          answered after 5 s",
            "          no restart needed: the process is younger than the last change",
        ],
    );
}
