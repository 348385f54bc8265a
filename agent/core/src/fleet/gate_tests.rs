use super::*;
use crate::fleet::{
    lease::{FleetLeases, Halt, ResourceVersion},
    slots::{SlotAnswer, SlotEvent, SlotRequest, SlotTiming},
};

const TIMEOUT: Duration = Duration::from_secs(3_600);

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn slot(index: usize, holder: &str) -> SlotLease {
    let holder = if holder.is_empty() { SlotHolder::Nobody } else { SlotHolder::Node(holder.into()) };
    let version = ResourceVersion(format!("{index}"));
    SlotLease { index, version, holder, transitions: 0, halt: None, pause: None, acquired: None }
}

/// Slots of a node that wants one and has just listed these.
fn listed(slots: Vec<SlotLease>) -> Slots {
    let mut state = Slots::new("node-z", 1, SlotTiming::default(), false, Duration::ZERO);
    let _ = state.step(SlotEvent::Wish(SlotWish::Slot), Duration::ZERO);
    let request = state.step(SlotEvent::Elapsed, seconds(10));
    assert_eq!(request, Some(SlotRequest::List { consistent: false }));
    let answer = SlotAnswer::Listed(FleetLeases { slots, canary: None });
    let _ = state.step(SlotEvent::Answered(answer), seconds(10));
    state
}

fn outage() -> OutageFacts<'static> {
    OutageFacts { policy: ApiOutage::Wait, timeout: TIMEOUT, jitter: seconds(60), x509: None }
}

fn facts(slots: &Slots) -> GateFacts<'_> {
    GateFacts { exempt: false, hold_label: None, window: None, canary: None, slots, outage: outage(), now: seconds(10) }
}

fn hold(facts: &GateFacts<'_>) -> FleetHold {
    match decide(facts) {
        FleetGate::Held(hold) => hold,
        FleetGate::Open(passage) => panic!("{passage:?}"),
    }
}

#[test]
fn a_node_that_runs_nothing_needs_no_slot() {
    let slots = listed(vec![slot(0, "node-a")]);
    let facts = GateFacts { exempt: true, window: Some(WindowState::Closed { until: None }), ..facts(&slots) };
    assert_eq!(decide(&facts), FleetGate::Open(Passage::Exempt));
}

#[test]
fn a_persons_label_holds_even_a_node_that_runs_nothing() {
    let slots = listed(Vec::new());
    let held = hold(&GateFacts { exempt: true, hold_label: Some("disk swap"), ..facts(&slots) });
    assert_eq!(held.reason, HoldReason::NodeHeld);
    assert_eq!(held.why, "the Node has the label nodetrust.io/hold: disk swap");
    assert_eq!(held.wish, SlotWish::Nothing, "it keeps no slot from others");
}

#[test]
fn outside_of_the_window_a_node_says_when_it_opens_and_keeps_no_slot_from_others() {
    let slots = listed(Vec::new());
    let held = hold(&GateFacts { window: Some(WindowState::Closed { until: Some(1_796_022_000) }), ..facts(&slots) });
    assert_eq!((held.reason, held.wish), (HoldReason::Window, SlotWish::Nothing));
    assert_eq!(held.why, "outside of the window, which opens at 2026-11-30T07:00:00Z");
    let open = GateFacts { window: Some(WindowState::Open { until: None }), ..facts(&slots) };
    assert_eq!(hold(&open).reason, HoldReason::Slot);
}

#[test]
fn who_waits_for_a_slot_says_how_many_are_in_use_and_by_whom() {
    let held = hold(&facts(&listed(vec![slot(0, "node-a"), slot(1, "")])));
    assert_eq!((held.reason, held.wish), (HoldReason::Slot, SlotWish::Slot));
    assert_eq!(held.why, "waiting for a slot: 1 of 1 in use (node-a)");
    let many = listed((0..8).map(|index| slot(index, &format!("node-{index}"))).collect());
    assert_eq!(
        hold(&facts(&many)).why,
        "waiting for a slot: 8 of 1 in use (node-0, node-1, node-2, node-3, node-4, 3 others)"
    );
}

#[test]
fn a_halt_is_told_with_its_node_its_reason_and_the_way_out() {
    let halt =
        Halt { node: "node-a".into(), reason: "the Node is not Ready".into(), since: "2026-11-30T07:00:00Z".into() };
    let slots = listed(vec![SlotLease { halt: Some(halt), ..slot(3, "node-a") }]);
    let held = hold(&facts(&slots));
    assert_eq!(held.reason, HoldReason::Halted);
    assert_eq!(held.why, "all restarts are halted by node node-a since 2026-11-30T07:00:00Z: the Node is not Ready");
    assert!(held.next.contains("topology --resume") && held.next.contains("nodetrust-restart-3"), "{}", held.next);
}

#[test]
fn a_pause_is_told_with_its_text() {
    let slots = listed(vec![SlotLease { pause: Some("change freeze".into()), ..slot(0, "") }]);
    let held = hold(&facts(&slots));
    assert_eq!((held.reason, held.why.as_str()), (HoldReason::Paused, "all restarts are paused: change freeze"));
}

#[test]
fn who_waits_for_the_canary_watches_and_takes_no_slot() {
    let slots = listed(Vec::new());
    for state in [CanaryState::Silent, CanaryState::Other("ab".into()), CanaryState::Soaking(seconds(90))] {
        let held = hold(&GateFacts { canary: Some(state.clone()), ..facts(&slots) });
        assert_eq!((held.reason, held.wish), (HoldReason::Canary, SlotWish::Watch), "{state:?}");
        assert_eq!(held.again.is_some(), matches!(state, CanaryState::Soaking(_)));
    }
    let passed = GateFacts { canary: Some(CanaryState::Passed), ..facts(&slots) };
    assert_eq!(hold(&passed).reason, HoldReason::Slot);
}

#[test]
fn a_confirmed_slot_opens_the_gate() {
    let mut slots = listed(Vec::new());
    let due = slots.due().unwrap();
    assert!(slots.step(SlotEvent::Elapsed, due).is_some());
    let free = SlotAnswer::Listed(FleetLeases::default());
    let Some(SlotRequest::Create { index: 0, .. }) = slots.step(SlotEvent::Answered(free), due) else {
        panic!("{slots:?}")
    };
    let now = |slots: &Slots| decide(&GateFacts { now: due, ..facts(slots) });
    let written = SlotAnswer::Written(ResourceVersion("0".into()));
    assert_eq!(slots.step(SlotEvent::Answered(written), due), Some(SlotRequest::List { consistent: true }));
    assert!(matches!(now(&slots), FleetGate::Held(_)), "not before the list");
    let own = SlotAnswer::Listed(FleetLeases { slots: vec![slot(0, "node-z")], canary: None });
    let _ = slots.step(SlotEvent::Answered(own), due);
    assert_eq!(now(&slots), FleetGate::Open(Passage::Slot(0)));
    let silent = GateFacts { canary: Some(CanaryState::Silent), now: due, ..facts(&slots) };
    assert_eq!(hold(&silent).reason, HoldReason::Canary, "the canary's mark has gone meanwhile");
    let late = GateFacts { now: due + SlotTiming::LEASE, ..facts(&slots) };
    assert_eq!(hold(&late).reason, HoldReason::Slot, "the permission has a time");
    let _ = slots.step(SlotEvent::Began, due);
    assert_eq!(hold(&GateFacts { now: due, ..facts(&slots) }).wish, SlotWish::Nothing);
}

/// A node whose first list has no answer, at 10 s.
fn cut_off() -> Slots {
    let mut slots = Slots::new("node-z", 1, SlotTiming::default(), false, Duration::ZERO);
    let _ = slots.step(SlotEvent::Wish(SlotWish::Slot), Duration::ZERO);
    let _ = slots.step(SlotEvent::Elapsed, seconds(10));
    let _ = slots.step(SlotEvent::Answered(SlotAnswer::Unknown("connection refused".into())), seconds(10));
    slots
}

#[test]
fn a_node_without_the_api_server_waits_and_goes_on_after_its_time_only_if_a_pull_fails_by_x509() {
    let slots = cut_off();
    let at = |now: u64, x509| {
        let outage = OutageFacts { x509, ..outage() };
        decide(&GateFacts { outage, now: seconds(now), ..facts(&slots) })
    };
    let FleetGate::Held(held) = at(20, Some("x509")) else { panic!() };
    assert_eq!((held.reason, held.again), (HoldReason::ApiUnavailable, Some(seconds(3_650))));
    assert!(held.why.starts_with("the API server has not answered for 10 s (connection refused)"), "{}", held.why);
    assert!(matches!(at(3_669, Some("x509")), FleetGate::Held(_)), "the jitter comes on top");
    assert!(matches!(at(99_999, None), FleetGate::Held(_)));
    let FleetGate::Open(Passage::Outage(why)) = at(3_670, Some("pull of etcd: unknown authority")) else { panic!() };
    assert!(why.contains("unknown authority"), "{why}");
}

#[test]
fn a_node_that_is_to_proceed_goes_on_without_the_api_server_after_its_time() {
    let slots = cut_off();
    let outage = OutageFacts { policy: ApiOutage::Proceed, ..outage() };
    let at = |now| decide(&GateFacts { outage: outage.clone(), now: seconds(now), ..facts(&slots) });
    assert!(matches!(at(3_669), FleetGate::Held(_)));
    assert!(matches!(at(3_670), FleetGate::Open(Passage::Outage(_))));
    let closed = GateFacts { window: Some(WindowState::Closed { until: None }), now: seconds(9_999), ..facts(&slots) };
    assert_eq!(hold(&closed).reason, HoldReason::Window, "the window is the node's own to keep");
}

#[test]
fn a_halt_that_was_seen_last_holds_without_the_api_server() {
    let halt = Halt { node: "node-a".into(), reason: "not Ready".into(), since: String::new() };
    let mut slots = listed(vec![SlotLease { halt: Some(halt), ..slot(0, "node-a") }]);
    let due = slots.due().unwrap();
    assert!(slots.step(SlotEvent::Elapsed, due).is_some());
    let _ = slots.step(SlotEvent::Answered(SlotAnswer::Unknown("timed out".into())), due);
    let outage = OutageFacts { policy: ApiOutage::Proceed, ..outage() };
    let held = hold(&GateFacts { outage, now: seconds(99_999), ..facts(&slots) });
    assert_eq!(held.reason, HoldReason::Halted);
}
