//! What a cluster is told of a node, for each way a node can stand.
//!
//! Long because the ways share one node, from which each differs in a line.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{
    action::{Action, Drift, RemoveReason, StoreAction, WriteReason},
    certificate::{
        anchor::Authority,
        fingerprint::{Fingerprint, SetDigest},
        pem::RejectReason as Refusal,
    },
    cycle::{CycleOutcome, Trigger},
    fleet::view::{FleetView, HaltView},
    ledger::AnchorState,
    problem::{Problem, ProblemKind},
    report::{AnchorRow, Cycle, HoldView, LastRestart, NodeVerdict, Report, RuntimeView, SourceRow, StoreView},
    runtime::{
        attempts::AttemptOutcome,
        kinds::RuntimeKind,
        services::{HoldReason, ServiceState},
        trust::{RuntimeState, RuntimeTrust},
    },
    source::{Rejection, SourceStatus},
    store::Family,
    time::Time,
};

const NOW: i64 = 1_796_083_200; // 2026-12-01T00:00:00Z

fn row(name: &str, trusted: bool) -> AnchorRow {
    AnchorRow {
        sha256: Fingerprint::of_der(name.as_bytes()),
        common_name: name.into(),
        subject: format!("CN={name}"),
        issuer_common_name: name.into(),
        serial: "01".into(),
        key: "ECDSA P-256".into(),
        authority: Authority::Ca,
        state: AnchorState::Desired,
        trusted,
        runtime: None,
        go_refuses: None,
        not_before: Time(0),
        not_after: Time(2_082_758_400),
        grace_end: None,
        needs_approval: false,
        waits: None,
        sources: vec!["org".into()],
        warnings: Vec::new(),
    }
}

fn source(status: SourceStatus, rejections: usize) -> SourceRow {
    let rejection = Rejection {
        file: "ca.crt".into(),
        line: 3,
        reason: Refusal::Expired,
        detail: "expired in 2020".into(),
        sha256: None,
        subject: None,
    };
    SourceRow {
        name: "org".into(),
        origin: "/sources/org".into(),
        status,
        awaited: false,
        anchors: 1,
        changed: None,
        detail: "it is empty".into(),
        rejections: vec![rejection; rejections],
        notes: Vec::new(),
    }
}

fn runtime(stale: bool, held: Option<HoldReason>) -> RuntimeView {
    RuntimeView {
        kind: RuntimeKind::Containerd,
        because: String::new(),
        version: "1.7".into(),
        unit: "containerd.service".into(),
        state: ServiceState::Active,
        socket: String::new(),
        started: None,
        sick: None,
        certs_dir: String::new(),
        not_covered: Vec::new(),
        stale,
        missing: Vec::new(),
        lingering: Vec::new(),
        unproven: Vec::new(),
        covered: Vec::new(),
        cannot: Vec::new(),
        why: "restart needed: 1 anchor newer than the process".into(),
        held: held.map(|reason| HoldView { reason, why: "the last restart was 43 s ago".into(), next: String::new() }),
        last_restart: None,
    }
}

/// A node that trusts what it should.
fn good() -> Report {
    let anchors = vec![row("Corp Root", true), row("Inspection CA", true)];
    let digest = SetDigest::of(&anchors.iter().map(|row| row.sha256).collect());
    Report {
        version: 1,
        node: "a17".into(),
        time: Time(NOW),
        verdict: NodeVerdict::Trusted,
        headline: "2 anchors in the extracted bundle, proven by fingerprint".into(),
        converged: true,
        desired_digest: digest,
        sources_digest: digest,
        effective_digest: digest,
        sources: vec![source(SourceStatus::Ok, 0)],
        anchors,
        store: StoreView { family: Some(Family::Debian), was_read: true, ..StoreView::default() },
        runtime: None,
        runtime_trust: RuntimeTrust::default(),
        export: None,
        export_pkcs12: None,
        foreign: Vec::new(),
        distrusted: Vec::new(),
        fleet: None,
        problems: Vec::new(),
        pending: Vec::new(),
        next: Vec::new(),
        cycle: None,
        changed: Some(Time(NOW - 60)),
    }
}

fn with(change: impl FnOnce(&mut Report)) -> Report {
    let mut report = good();
    change(&mut report);
    report
}

fn stale(held: Option<HoldReason>) -> Report {
    with(|report| {
        report.verdict = NodeVerdict::NotTrustedByRuntime;
        report.runtime = Some(runtime(true, held));
    })
}

fn unknown(verdict: NodeVerdict) -> Report {
    with(|report| {
        report.verdict = verdict;
        report.headline = "2 anchors in the extracted bundle; whether pulls follow is not known: a test says so".into();
        report.runtime_trust.state = RuntimeState::Unknown;
    })
}

fn problem(kind: ProblemKind) -> Problem {
    Problem::new(kind, "a test says so", "")
}

#[test]
fn each_state_has_its_reason() {
    let findings = |status, rejections| {
        with(|report| {
            report.verdict = NodeVerdict::TrustedWithFindings;
            report.sources[0] = source(status, rejections);
        })
    };
    let untrue = |kind| {
        with(|report| {
            report.verdict = NodeVerdict::NotTrusted;
            report.anchors[0].trusted = false;
            report.problems.push(problem(kind));
        })
    };
    let nothing = |rejections| {
        with(|report| {
            report.verdict = NodeVerdict::NotTrusted;
            report.anchors.clear();
            report.sources = vec![source(SourceStatus::Failed, rejections)];
        })
    };
    let second = |rejections| {
        with(|report| {
            report.verdict = NodeVerdict::TrustedWithFindings;
            report.sources.push(source(SourceStatus::Failed, rejections));
        })
    };
    let unfinished = |kind| {
        with(|report| {
            report.verdict = NodeVerdict::NotConverged;
            report.problems.push(problem(kind));
        })
    };
    use ConditionStatus::{False, True, Unknown};
    let table = [
        (good(), True, ConditionReason::Trusted),
        (with(|report| report.verdict = NodeVerdict::NothingDesired), True, ConditionReason::Trusted),
        (findings(SourceStatus::Ok, 1), True, ConditionReason::SourceRejected),
        (findings(SourceStatus::Held, 0), True, ConditionReason::SourceUnavailable),
        (findings(SourceStatus::Held, 1), True, ConditionReason::SourceUnavailable),
        (findings(SourceStatus::Ok, 0), True, ConditionReason::Trusted),
        (nothing(0), False, ConditionReason::SourceUnavailable),
        (nothing(1), False, ConditionReason::SourceRejected),
        // One source has spoken; the anchors of the other one are unknown.
        (second(0), False, ConditionReason::SourceUnavailable),
        (second(1), False, ConditionReason::SourceRejected),
        (untrue(ProblemKind::NotTrusted), False, ConditionReason::NotTrusted),
        (untrue(ProblemKind::BundleBroken), False, ConditionReason::NotTrusted),
        (untrue(ProblemKind::Extract), False, ConditionReason::ExtractFailed),
        (untrue(ProblemKind::ForeignLost), False, ConditionReason::ExtractFailed),
        // All anchors are in the bundle, whatever is left to do.
        (unfinished(ProblemKind::Lock), True, ConditionReason::Trusted),
        (unfinished(ProblemKind::Extract), True, ConditionReason::ExtractFailed),
        (stale(None), False, ConditionReason::RuntimeStale),
        (stale(Some(HoldReason::Policy)), False, ConditionReason::RestartHeld),
        (unknown(NodeVerdict::RuntimeUnknown), Unknown, ConditionReason::RuntimeUnknown),
        // Other findings do not make it known.
        (unknown(NodeVerdict::NotConverged), Unknown, ConditionReason::RuntimeUnknown),
        (with(|report| report.verdict = NodeVerdict::UnsupportedStore), False, ConditionReason::UnsupportedStore),
    ];
    let mut seen = BTreeSet::new();
    for (report, status, reason) in table {
        let is = condition(&report);
        assert_eq!((is.status, is.reason), (status, reason), "{report:#?}");
        assert!(!is.message.is_empty());
        seen.insert(reason);
    }
    assert_eq!(seen.len(), ConditionReason::ALL.len());
    let both = with(|report| {
        report.verdict = NodeVerdict::NotConverged;
        report.runtime = Some(runtime(true, None));
    });
    assert_eq!(condition(&both).status, False, "work that is left does not hide the runtime");
}

#[test]
fn a_message_holds_no_age() {
    let message = condition(&stale(Some(HoldReason::RateLimit))).message;
    assert_eq!(message, "restart needed: 1 anchor newer than the process; a restart is held (rate-limit)");
    let long = with(|report| report.headline = "ä".repeat(5000));
    let message = condition(&long).message;
    assert!(message.len() <= MESSAGE_LIMIT && message.ends_with('…'));
}

fn kinds(report: &Report, previous: Option<&Report>) -> Vec<EventKind> {
    events(report, previous).into_iter().map(|event| event.kind).collect()
}

#[test]
fn events_tell_what_is_new_and_only_that() {
    use EventKind as E;
    let good = good();
    assert_eq!(kinds(&good, None), [], "an agent that starts has nothing to tell");
    assert_eq!(kinds(&good, Some(&good)), []);

    let grown = with(|report| report.anchors.push(row("Corp Root 2026", true)));
    let [event] = &events(&grown, Some(&good))[..] else { panic!("one event") };
    let print = Fingerprint::of_der(b"Corp Root 2026").fp16();
    assert_eq!(event.message, format!("+Corp Root 2026 ({print}); 3 anchors in force"));
    assert_eq!((event.kind, event.warning), (E::TrustAnchorsChanged, false));
    let [event] = &events(&good, Some(&grown))[..] else { panic!("one event") };
    assert_eq!(event.message, format!("-Corp Root 2026 ({print}); 2 anchors in force"));
    let lost = with(|report| report.anchors[0].trusted = false);
    let [event] = &events(&lost, Some(&good))[..] else { panic!("one event") };
    assert!(event.warning, "what should be trusted and is not any more");

    let cycle = |actions: Vec<StoreAction>, drift: &[Drift]| Cycle {
        trigger: Trigger::Start,
        outcome: CycleOutcome::Changed,
        time: Time(NOW),
        milliseconds: 4200,
        extract_milliseconds: 0,
        actions: Vec::into_iter(actions).map(Action::Store).collect(),
        drift: drift.iter().copied().collect(),
        problems: Vec::new(),
    };
    let write =
        |why| StoreAction::WriteAnchor { sha256: Fingerprint::of_der(b"x"), file: "nodetrust-x.crt".into(), why };
    let installed = with(|report| report.cycle = Some(cycle(vec![write(WriteReason::New)], &[])));
    assert_eq!(kinds(&installed, None), [E::TrustAnchorsChanged], "a first install is told");
    let remove =
        |n: u8| StoreAction::RemoveAnchor { file: format!("nodetrust-{n:016x}.crt"), why: RemoveReason::GraceOver };
    let first = with(|report| {
        report.anchors.push(row("Corp Root 2026", true));
        let sha256 = Fingerprint::of_der(b"Corp Root 2026");
        let write = StoreAction::WriteAnchor { sha256, file: "nodetrust-x.crt".into(), why: WriteReason::New };
        report.cycle = Some(cycle([write].into_iter().chain((1..=6).map(remove)).collect(), &[]));
    });
    let left = "-0000000000000001, -0000000000000002, -0000000000000003, -0000000000000004, -2 more";
    assert_eq!(events(&first, None)[0].message, format!("+Corp Root 2026 ({print}), {left}; 3 anchors in force"));
    let healed = with(|report| report.cycle = Some(cycle(vec![write(WriteReason::Missing)], &[Drift::AnchorDeleted])));
    assert_eq!(kinds(&healed, Some(&good)), [E::DriftRepaired]);
    assert_eq!(kinds(&healed, None), [E::DriftRepaired]);

    let rejecting = with(|report| report.sources = vec![source(SourceStatus::Ok, 1)]);
    assert_eq!(kinds(&rejecting, Some(&good)), [E::SourceRejected]);
    assert_eq!(kinds(&rejecting, Some(&rejecting)), []);
    let more = with(|report| report.sources = vec![source(SourceStatus::Ok, 2)]);
    assert_eq!(kinds(&more, Some(&rejecting)), [E::SourceRejected]);
    assert_eq!(kinds(&rejecting, Some(&more)), [], "fewer are no news");

    let held = stale(Some(HoldReason::Policy));
    assert_eq!(kinds(&held, Some(&stale(None))), [E::RestartHeld]);
    assert_eq!(kinds(&held, Some(&held)), []);
    assert_eq!(kinds(&stale(Some(HoldReason::Unhealthy)), Some(&held)), [E::RestartHeld], "another reason");
    assert_eq!(kinds(&good, Some(&held)), []);

    let restarted = |outcome: Option<&AttemptOutcome>, ago| {
        with(|report| {
            let last = LastRestart { time: Time(NOW - ago), outcome: outcome.cloned() };
            report.runtime = Some(RuntimeView { last_restart: Some(last), ..runtime(false, None) });
            report.cycle = Some(cycle(Vec::new(), &[]));
        })
    };
    let (done, failed) = (Some(&AttemptOutcome::Done), AttemptOutcome::Failed("it is dead".into()));
    assert_eq!(kinds(&restarted(done, 2), Some(&good)), [E::RuntimeRestarted]);
    assert_eq!(kinds(&restarted(done, 2), None), [E::RuntimeRestarted], "in the first cycle of an agent");
    assert_eq!(kinds(&restarted(done, 600), None), [], "long before it");
    assert_eq!(kinds(&restarted(done, 2), Some(&restarted(done, 2))), []);
    let [event] = &events(&restarted(Some(&failed), 2), Some(&good))[..] else { panic!("one event") };
    assert_eq!((event.kind, event.warning), (E::RuntimeRestartFailed, true));
    assert_eq!(event.message, "containerd.service: it is dead");
    assert_eq!(kinds(&restarted(None, 2), Some(&good)), []);
}

/// A node whose store could not be looked at for a while has lost and restarted nothing.
#[test]
fn what_could_not_be_seen_is_no_event() {
    let good = with(|report| {
        let last = LastRestart { time: Time(NOW - 600), outcome: Some(AttemptOutcome::Done) };
        report.runtime = Some(RuntimeView { last_restart: Some(last), ..runtime(false, None) });
    });
    let blind = with(|report| {
        report.runtime = None;
        report.store.was_read = false;
        report.anchors.iter_mut().for_each(|row| row.trusted = false);
    });
    assert_eq!(kinds(&blind, Some(&good)), []);
    assert_eq!(kinds(&good, Some(&blind)), []);
    let mut without_tool = good.clone();
    without_tool.runtime = None;
    assert_eq!((kinds(&without_tool, Some(&good)), kinds(&good, Some(&without_tool))), (vec![], vec![]));
    without_tool.anchors[0].trusted = false;
    assert_eq!(kinds(&without_tool, Some(&good)), [EventKind::TrustAnchorsChanged], "its bundle is read");
}

/// The node that stops a fleet says so itself; those that wait say that they are held.
#[test]
fn a_node_that_halts_the_fleet_says_it_once() {
    let halted = |own| {
        let halt = HaltView { node: "b".into(), reason: "the Node is not Ready".into(), since: "noon".into(), own };
        let fleet = FleetView { slots: 1, slots_held: 1, halted: Some(halt), paused: None };
        with(|report| report.fleet = Some(fleet))
    };
    let good = with(|_| {});
    let [event] = &events(&halted(true), Some(&good))[..] else { panic!("one event") };
    assert_eq!((event.kind, event.warning), (EventKind::RuntimeRestartFailed, true));
    assert!(event.message.ends_with("halts the restarts of the whole fleet since: the Node is not Ready"), "{event:?}");
    assert_eq!(events(&halted(true), Some(&halted(true))), []);
    assert_eq!(events(&halted(false), Some(&good)), []);
}

#[test]
fn two_events_of_a_kind_become_one_that_tells_both() {
    let event =
        |kind, warning, message: &str| NodeEvent { kind, warning, message: message.to_owned(), time: Time(NOW) };
    let changed = |message: &str| event(EventKind::TrustAnchorsChanged, false, message);
    let later = |event: NodeEvent, earlier: &NodeEvent| NodeEvent { time: Time(NOW + 5), ..event }.after(earlier);
    let both = later(changed("+B"), &changed("+A"));
    assert_eq!((both.message.as_str(), both.time), ("+A; then +B", Time(NOW + 5)));
    assert_eq!(later(changed("+C"), &both).message, "+A; then +B; then +C");
    assert_eq!(later(changed("+B"), &both).message, "+A; then +B", "once more the same");
    let long = later(changed("+B"), &changed(&"A".repeat(MESSAGE_LIMIT)));
    assert!(long.message.ends_with("+B") && long.message.len() <= MESSAGE_LIMIT, "{}", long.message);
    let failed = event(EventKind::RuntimeRestartFailed, true, "it does not come back");
    assert!(NodeEvent { warning: false, message: "it works".into(), ..failed.clone() }.after(&failed).warning);
    let rejected = |message: &str| event(EventKind::SourceRejected, true, message);
    assert_eq!(later(rejected("now"), &rejected("before")).message, "now", "as it stands");
}

#[test]
fn an_event_is_the_same_object_at_each_try() {
    let grown = with(|report| report.anchors.push(row("Corp Root 2026", true)));
    let event = events(&grown, Some(&good())).remove(0);
    let object = event.object("a17");
    assert_eq!(object, event.object("a17"));
    assert_eq!(object["reason"], "TrustAnchorsChanged");
    assert_eq!(object["involvedObject"]["name"], "a17");
    assert_eq!(object["metadata"]["namespace"], "default");
    let later = NodeEvent { time: Time(NOW + 1), ..event.clone() };
    assert_ne!(object["metadata"]["name"], later.object("a17")["metadata"]["name"]);
    let name = event.object(&"n".repeat(253))["metadata"]["name"].as_str().unwrap().len();
    assert!(name <= 253, "{name}");
}

#[test]
fn the_annotation_is_short_and_reads_back() {
    let text = NodeStatus::of(&good()).text();
    let print = Fingerprint::of_der(b"Corp Root").fp16();
    let value: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        value["anchors"][0],
        json!({"fp16": print, "cn": "Corp Root", "state": "desired", "notAfter": "2036-01-01T00:00:00Z"})
    );
    assert_eq!(value["v"], 1);
    assert_eq!((&value["runtimeStale"], &value["since"]), (&json!(false), &json!("2026-11-30T23:59:00Z")));
    assert_eq!(value["desired"], value["effective"]);
    assert_eq!(NodeStatus::parse(&text).unwrap(), NodeStatus::of(&good()));
    for other in ["", "{}", "null", "{\"v\":2}", &text.replace("\"v\":1", "\"v\":7")] {
        assert_eq!(NodeStatus::parse(other), None, "{other}");
    }
    let later = with(|report| report.time = Time(NOW + 300));
    assert_eq!(NodeStatus::of(&later).text(), text, "the time of a cycle does not change it");
}

#[test]
fn ten_thousand_anchors_fit() {
    let many = with(|report| {
        report.anchors = (0..10_000).map(|n| row(&format!("Corp Root {n} \"with\" quotes"), n != 9_999)).collect();
    });
    let text = NodeStatus::of(&many).text();
    assert!(text.len() < ANNOTATION_LIMIT, "{}", text.len());
    let status = NodeStatus::parse(&text).unwrap();
    assert_eq!(status.anchors.len() + status.more, 10_000);
    assert!(status.anchors.len() > 80, "{}", status.anchors.len());
    assert!(!status.anchors[0].trusted && status.anchors[1].trusted, "what is wrong comes first");
}

proptest! {
    #[test]
    fn an_annotation_is_never_too_long(names in prop::collection::vec(".{0,80}", 0..300)) {
        let report = with(|report| report.anchors = names.iter().map(|name| row(name, name.len() % 7 != 0)).collect());
        let text = NodeStatus::of(&report).text();
        prop_assert!(text.len() < ANNOTATION_LIMIT);
        let status = NodeStatus::parse(&text).unwrap();
        prop_assert_eq!(status.anchors.len() + status.more, names.len());
    }

    #[test]
    fn no_text_panics_as_a_taint(text in "[a-z:=/.A-Z]{0,40}") {
        if let Ok(taint) = text.parse::<Taint>() {
            prop_assert_eq!(taint.to_string(), text);
        }
    }
}

fn node(value: Value) -> NodeObject {
    serde_json::from_value(value).unwrap()
}

fn signals(report: &Report, taint: Option<&str>) -> Signals {
    let condition = condition(report);
    Signals {
        done_with: taint.map(|taint| taint.parse().unwrap()).filter(|_| condition.status == ConditionStatus::True),
        condition: Some((condition, report.time)),
        annotation: Some(NodeStatus::of(report).text()),
    }
}

#[test]
fn a_bare_node_gets_condition_and_annotation() {
    let bare = node(json!({"metadata": {"name": "a17"}, "spec": {}, "status": {"images": [1, 2]}}));
    let writes = writes(&signals(&good(), None), &bare, Time(NOW + 5));
    let what: Vec<_> = writes.iter().map(|write| (write.what, write.subresource, write.content_type)).collect();
    assert_eq!(
        what,
        [
            ("condition", Some("status"), "application/strategic-merge-patch+json"),
            ("annotation", None, "application/merge-patch+json")
        ]
    );
    assert_eq!(
        writes[0].patch,
        json!({"status": {"conditions": [{
            "type": "nodetrust.io/TrustReady", "status": "True", "reason": "Trusted",
            "message": "2 anchors in the extracted bundle, proven by fingerprint",
            "lastHeartbeatTime": "2026-12-01T00:00:05Z", "lastTransitionTime": "2026-12-01T00:00:00Z",
        }]}})
    );
}

/// A Node that says what a report asks for.
fn told(report: &Report) -> Value {
    let condition = condition(report);
    json!({
        "metadata": {"name": "a17", "resourceVersion": "7", "annotations": {ANNOTATION: NodeStatus::of(report).text()}},
        "spec": {"taints": [
            {"key": "corp.test/no-trust", "value": "yes", "effect": "NoSchedule"},
            {"key": "corp.test/no-trust", "value": "yes", "effect": "NoExecute", "timeAdded": "2026-01-01T00:00:00Z"},
            {"key": "other", "effect": "NoSchedule"},
        ]},
        "status": {"conditions": [
            {"type": "Ready", "status": "True"},
            {"type": CONDITION, "status": condition.status.as_str(), "reason": condition.reason.as_str(),
             "message": condition.message, "lastTransitionTime": "2026-01-01T00:00:00Z"},
        ]},
    })
}

#[test]
fn what_the_node_says_already_is_not_written() {
    let good = good();
    assert_eq!(writes(&signals(&good, None), &node(told(&good)), Time(NOW)), []);
    assert_eq!(writes(&Signals::default(), &node(json!({"metadata": {"name": "a17"}})), Time(NOW)), []);
}

#[test]
fn the_transition_time_stays_until_the_status_turns() {
    let good = good();
    let time = |signals: &Signals, is: &Report| {
        let writes = writes(signals, &node(told(is)), Time(NOW));
        writes[0].patch["status"]["conditions"][0]["lastTransitionTime"].as_str().unwrap().to_owned()
    };
    let rejected = with(|report| report.sources[0].rejections = source(SourceStatus::Ok, 1).rejections);
    assert_eq!(time(&signals(&rejected, None), &good), "2026-01-01T00:00:00Z", "another reason");
    assert_eq!(time(&signals(&stale(None), None), &good), "2026-12-01T00:00:00Z", "another status");
}

#[test]
fn only_the_startup_taint_goes_and_only_from_the_version_that_was_read() {
    let good = good();
    let node = node(told(&good));
    let stay = |taint: &str| {
        let writes = writes(&signals(&good, Some(taint)), &node, Time(NOW));
        writes.first().map(|write| {
            assert_eq!((write.what, writes.len()), ("startup taint", 1));
            assert_eq!(write.patch["metadata"]["resourceVersion"], "7");
            write.patch["spec"]["taints"].as_array().unwrap().len()
        })
    };
    assert_eq!(stay("corp.test/no-trust=yes:NoSchedule"), Some(2));
    assert_eq!(stay("corp.test/no-trust:NoExecute"), Some(2));
    assert_eq!(stay("corp.test/no-trust"), Some(1));
    assert_eq!(stay("corp.test/no-trust=no"), None);
    assert_eq!(stay("absent:NoSchedule"), None);
    assert_eq!(signals(&stale(None), Some("other")).done_with, None, "not before the node trusts what it should");
}

#[test]
fn taints_have_a_form() {
    for good in ["a", "a=b", "a:NoSchedule", "nodetrust.io/not-ready=true:NoExecute", "a=:PreferNoSchedule"] {
        assert_eq!(good.parse::<Taint>().map(|taint| taint.to_string()), Ok(good.to_owned()));
    }
    for bad in ["", ":NoSchedule", "a:noschedule", "a=b=c", "-a", "a/b/c", "a b", "a:", "=b", "/a", "a_b/c"] {
        assert!(bad.parse::<Taint>().is_err(), "{bad}");
    }
    assert!("x y".parse::<Taint>().unwrap_err().to_string().contains("key[=value][:effect]"));
}

#[test]
fn pauses_double_up_to_five_minutes_and_differ_between_nodes() {
    let pauses: Vec<u128> = (1..20).map(|failures| pause("a17", failures).as_millis()).collect();
    assert!((500..=1000).contains(&pauses[0]), "{pauses:?}");
    for (index, pause) in pauses.iter().enumerate() {
        let whole = (1000u128 << index).min(300_000);
        assert!((whole / 2..=whole).contains(pause), "{pauses:?}");
    }
    assert!(pause("a17", u32::MAX) <= std::time::Duration::from_secs(300));
    assert_ne!(pause("a17", 5), pause("a18", 5));
}
