use super::{testing::SimulatedLeases, *};
use crate::fleet::{lease::HALTED, view::FleetView};

const START: Duration = Duration::from_secs(1_000);

/// A node over simulated Leases that answer at once.
struct SlotNode {
    slots: Slots,
    now: Duration,
}

impl SlotNode {
    fn new(name: &str, begun: bool) -> Self {
        let seed = u64::from(name.as_bytes()[0]);
        Self { slots: Slots::new(name, seed, SlotTiming::default(), begun, START), now: START }
    }

    /// Sends an event, and carries out what follows at once. Gives the writes.
    fn send(&mut self, api: &mut SimulatedLeases, event: SlotEvent) -> Vec<SlotRequest> {
        let mut writes = Vec::new();
        let mut request = self.slots.step(event, self.now);
        while let Some(open) = request {
            let answer = api.execute(&open);
            if !matches!(open, SlotRequest::List { .. }) {
                writes.push(open);
            }
            request = self.slots.step(SlotEvent::Answered(answer), self.now);
        }
        writes
    }

    /// Lets time pass, and does what is due in it.
    fn wait(&mut self, api: &mut SimulatedLeases, time: Duration) -> Vec<SlotRequest> {
        let end = self.now + time;
        let mut writes = Vec::new();
        while let Some(due) = self.slots.due().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            writes.extend(self.send(api, SlotEvent::Elapsed));
        }
        self.now = end;
        writes
    }

    /// A node that wants a slot and has waited long enough to get one that is free.
    fn wanting(name: &str, api: &mut SimulatedLeases) -> Self {
        let mut node = Self::new(name, false);
        node.send(api, SlotEvent::Wish(SlotWish::Slot));
        node.wait(api, Duration::from_secs(6));
        node
    }
}

fn held(api: &SimulatedLeases, index: usize) -> SlotHolder {
    api.leases.slot(index).unwrap().holder.clone()
}

fn halt() -> Halt {
    Halt { node: String::new(), reason: "not Ready".into(), since: String::new() }
}

fn edit(api: &mut SimulatedLeases, index: usize, edit: impl FnOnce(&mut SlotLease)) {
    api.versions += 1;
    let version = ResourceVersion(api.versions.to_string());
    let slot = api.leases.slots.iter_mut().find(|slot| slot.index == index).unwrap();
    edit(slot);
    slot.version = version;
}

#[test]
fn one_restart_costs_two_writes_and_leaves_the_slot_free() {
    let mut api = SimulatedLeases::default();
    let mut node = SlotNode::new("a", false);
    node.send(&mut api, SlotEvent::Wish(SlotWish::Slot));
    let writes = node.wait(&mut api, Duration::from_secs(6));
    assert!(matches!(&writes[..], [SlotRequest::Create { index: 0, .. }]), "{writes:?}");
    assert!(node.slots.may_begin(node.now));
    assert_eq!(node.send(&mut api, SlotEvent::Began), []);
    node.now += Duration::from_secs(10);
    let writes = node.send(&mut api, SlotEvent::Healthy);
    assert!(matches!(&writes[..], [SlotRequest::Update { change: SlotChange::Release, .. }]), "{writes:?}");
    assert_eq!(held(&api, 0), SlotHolder::Nobody);
    assert_eq!(node.wait(&mut api, Duration::from_secs(3_600)), [], "at rest nothing is written");
    assert_eq!((node.slots.standing(), node.slots.due()), (SlotStanding::Rest, None), "and nothing is asked");
}

#[test]
fn a_slot_in_use_is_renewed_at_a_third_of_its_lease_time() {
    let mut api = SimulatedLeases::default();
    let mut node = SlotNode::wanting("a", &mut api);
    node.send(&mut api, SlotEvent::Began);
    let writes = node.wait(&mut api, Duration::from_secs(60));
    assert_eq!(writes.len(), 3, "{writes:?}");
    assert!(writes.iter().all(|write| matches!(write, SlotRequest::Update { change: SlotChange::Renew { .. }, .. })));
}

#[test]
fn a_slot_is_given_back_when_something_else_holds_the_restart() {
    let mut api = SimulatedLeases::default();
    for wish in [SlotWish::Nothing, SlotWish::Watch] {
        let mut node = SlotNode::wanting("a", &mut api);
        assert!(node.slots.may_begin(node.now));
        node.send(&mut api, SlotEvent::Wish(wish));
        assert_eq!(held(&api, 0), SlotHolder::Nobody);
        assert!(!node.slots.may_begin(node.now));
        node.wait(&mut api, Duration::from_secs(60));
        assert_eq!(held(&api, 0), SlotHolder::Nobody, "{wish:?}");
    }
}

#[test]
fn a_second_node_waits_until_the_first_is_done() {
    let mut api = SimulatedLeases::default();
    let mut first = SlotNode::wanting("a", &mut api);
    first.send(&mut api, SlotEvent::Began);
    let mut second = SlotNode::wanting("b", &mut api);
    assert_eq!(second.slots.standing(), SlotStanding::Waiting);
    assert_eq!(second.slots.in_use(second.now).len(), 1);
    first.send(&mut api, SlotEvent::Healthy);
    second.wait(&mut api, Duration::from_secs(20));
    assert_eq!(second.slots.standing(), SlotStanding::Holds(0));
}

#[test]
fn a_slot_that_this_node_has_not_seen_changing_for_the_lease_time_is_taken_over() {
    let mut api = SimulatedLeases::default();
    let _dead = SlotNode::wanting("a", &mut api);
    let mut waiting = SlotNode::wanting("b", &mut api);
    waiting.wait(&mut api, Duration::from_secs(59));
    assert_eq!(held(&api, 0), SlotHolder::Node("a".into()), "it has seen it for less than the lease time");
    waiting.wait(&mut api, Duration::from_secs(30));
    assert_eq!(held(&api, 0), SlotHolder::Node("b".into()));
    assert_eq!(api.leases.slot(0).unwrap().transitions, 1);
}

#[test]
fn a_slot_whose_holder_cannot_be_read_is_never_taken_over() {
    let mut api = SimulatedLeases::default();
    let _holder = SlotNode::wanting("a", &mut api);
    edit(&mut api, 0, |slot| slot.holder = SlotHolder::Unreadable("a number".into()));
    let mut waiting = SlotNode::wanting("b", &mut api);
    assert_eq!(waiting.wait(&mut api, Duration::from_secs(3_600)), []);
}

#[test]
fn a_pause_lets_nobody_take_a_slot_and_nobody_begin() {
    let mut api = SimulatedLeases::default();
    let mut holder = SlotNode::wanting("a", &mut api);
    edit(&mut api, 0, |slot| slot.pause = Some("freeze".into()));
    holder.wait(&mut api, Duration::from_secs(25));
    assert_eq!(held(&api, 0), SlotHolder::Nobody, "given back at the next look");
    assert!(!holder.slots.may_begin(holder.now));
    assert_eq!(holder.wait(&mut api, Duration::from_secs(600)), []);
    edit(&mut api, 0, |slot| slot.pause = None);
    holder.wait(&mut api, Duration::from_secs(25));
    assert!(holder.slots.may_begin(holder.now));
}

#[test]
fn a_halt_outlives_the_lease_and_ends_when_a_person_takes_it_away() {
    let mut api = SimulatedLeases::default();
    let mut sick = SlotNode::wanting("a", &mut api);
    sick.send(&mut api, SlotEvent::Began);
    let writes = sick.send(&mut api, SlotEvent::Unhealthy(halt()));
    assert!(matches!(&writes[..], [SlotRequest::Update { index: 0, change: SlotChange::Halt(_), .. }]), "{writes:?}");
    assert_eq!(api.leases.slot(0).unwrap().halt.as_ref().unwrap().node, "a", "{HALTED} names the node");
    let mut waiting = SlotNode::new("b", false);
    waiting.send(&mut api, SlotEvent::Limit(5));
    waiting.send(&mut api, SlotEvent::Wish(SlotWish::Slot));
    assert_eq!(waiting.wait(&mut api, Duration::from_secs(86_400)), []);
    assert_eq!(sick.wait(&mut api, Duration::from_secs(86_400)), []);
    assert_eq!(sick.slots.standing(), SlotStanding::Halted);
    edit(&mut api, 0, |slot| slot.halt = None);
    sick.wait(&mut api, Duration::from_secs(20));
    assert_eq!((held(&api, 0), sick.slots.standing()), (SlotHolder::Nobody, SlotStanding::Rest));
    waiting.wait(&mut api, Duration::from_secs(20));
    assert!(matches!(waiting.slots.standing(), SlotStanding::Holds(_)));
}

/// What a node tells of a halt must not outlive it: its metric would keep an alert firing.
#[test]
fn a_node_at_rest_that_has_seen_a_halt_sees_its_end_too() {
    let mut api = SimulatedLeases::default();
    let mut sick = SlotNode::wanting("a", &mut api);
    sick.send(&mut api, SlotEvent::Began);
    sick.send(&mut api, SlotEvent::Unhealthy(halt()));
    let mut other = SlotNode::new("b", false);
    other.send(&mut api, SlotEvent::Wish(SlotWish::Slot));
    other.wait(&mut api, Duration::from_secs(60));
    other.send(&mut api, SlotEvent::Wish(SlotWish::Nothing)); // its restart is not due any more
    other.wait(&mut api, Duration::from_secs(60));
    let sees_halt = |node: &SlotNode| node.slots.leases().is_some_and(|leases| leases.halts().next().is_some());
    assert!(sees_halt(&other));
    edit(&mut api, 0, |slot| slot.halt = None);
    other.wait(&mut api, Duration::from_secs(60));
    assert!(!sees_halt(&other));
    assert_eq!(other.slots.due(), None, "and nothing is asked any more");
}

#[test]
fn a_node_that_lost_its_slot_halts_the_fleet_on_another() {
    let mut api = SimulatedLeases::default();
    let mut sick = SlotNode::wanting("a", &mut api);
    sick.send(&mut api, SlotEvent::Began);
    edit(&mut api, 0, |slot| slot.holder = SlotHolder::Node("b".into()));
    sick.wait(&mut api, Duration::from_secs(30));
    assert_eq!(sick.slots.standing(), SlotStanding::Works(None), "the restart goes on");
    sick.send(&mut api, SlotEvent::Unhealthy(halt()));
    assert_eq!(held(&api, 0), SlotHolder::Node("b".into()), "what is not ours stays");
    assert_eq!(api.leases.slot(1).unwrap().halt.as_ref().unwrap().node, "a", "beyond the limit of one");
}

#[test]
fn a_slot_that_was_lost_is_not_released() {
    let mut api = SimulatedLeases::default();
    let mut node = SlotNode::wanting("a", &mut api);
    node.send(&mut api, SlotEvent::Began);
    edit(&mut api, 0, |slot| slot.holder = SlotHolder::Node("b".into()));
    node.send(&mut api, SlotEvent::Healthy);
    assert_eq!((held(&api, 0), node.slots.standing()), (SlotHolder::Node("b".into()), SlotStanding::Rest));
}

#[test]
fn after_a_crash_the_slot_of_a_restart_that_had_begun_is_ours_again_and_another_is_given_back() {
    for begun in [true, false] {
        let mut api = SimulatedLeases::default();
        let _crashed = SlotNode::wanting("a", &mut api);
        let mut again = SlotNode::new("a", begun);
        let writes = again.wait(&mut api, Duration::from_secs(5));
        if begun {
            assert!(
                matches!(&writes[..], [SlotRequest::Update { change: SlotChange::Renew { .. }, .. }]),
                "{writes:?}"
            );
            assert_eq!(again.slots.standing(), SlotStanding::Works(Some(0)));
        } else {
            assert!(matches!(&writes[..], [SlotRequest::Update { change: SlotChange::Release, .. }]), "{writes:?}");
        }
    }
}

#[test]
fn a_slot_that_the_node_finds_in_its_own_name_gives_no_permission_before_it_is_renewed_and_confirmed() {
    let mut api = SimulatedLeases::default();
    let _crashed = SlotNode::wanting("a", &mut api);
    let mut again = SlotNode::new("a", false);
    let _ = again.slots.step(SlotEvent::Wish(SlotWish::Slot), again.now);
    let list = again.slots.step(SlotEvent::Elapsed, again.now + Duration::from_secs(5)).unwrap();
    again.now += Duration::from_secs(5);
    let listed = api.execute(&list);
    let renewal = again.slots.step(SlotEvent::Answered(listed), again.now).unwrap();
    assert!(
        matches!(renewal, SlotRequest::Update { change: SlotChange::Renew { .. }, .. })
            && !again.slots.may_begin(again.now)
    );
    let written = api.execute(&renewal);
    let list = again.slots.step(SlotEvent::Answered(written), again.now).unwrap();
    assert_eq!((&list, again.slots.may_begin(again.now)), (&SlotRequest::List { consistent: true }, false));
    let listed = api.execute(&list);
    assert_eq!(again.slots.step(SlotEvent::Answered(listed), again.now), None);
    assert!(again.slots.may_begin(again.now));
}

#[test]
fn a_write_without_an_answer_is_settled_by_reading() {
    for carried_out in [true, false] {
        let mut api = SimulatedLeases::default();
        let mut node = SlotNode::wanting("a", &mut api);
        node.send(&mut api, SlotEvent::Began);
        node.now += Duration::from_secs(21);
        let renewal = node.slots.step(SlotEvent::Elapsed, node.now).unwrap();
        if carried_out {
            api.execute(&renewal);
        }
        assert_eq!(node.slots.step(SlotEvent::Answered(SlotAnswer::Unknown("timed out".into())), node.now), None);
        assert_eq!(node.slots.unreachable(), Some((node.now, "timed out")));
        node.wait(&mut api, Duration::from_secs(15));
        assert_eq!(node.slots.unreachable(), None);
        let (slot, until) = node.slots.held_until().unwrap();
        assert!(slot == 0 && until > node.now + Duration::from_secs(30), "renewed");
    }
}

#[test]
fn when_the_limit_falls_slots_beyond_it_count_until_they_are_free() {
    let mut api = SimulatedLeases::default();
    let take = |node: &str| SlotChange::Take { node: node.into(), transitions: 0 };
    api.execute(&SlotRequest::Create { index: 4, change: take("x") });
    let mut node = SlotNode::wanting("a", &mut api);
    assert_eq!(node.slots.standing(), SlotStanding::Waiting, "one is at work, and one may be");
    node.send(&mut api, SlotEvent::Limit(2));
    node.wait(&mut api, Duration::from_secs(20));
    assert!(matches!(node.slots.standing(), SlotStanding::Holds(_)));
    node.send(&mut api, SlotEvent::Limit(1));
    node.wait(&mut api, Duration::from_secs(25));
    assert_eq!(node.slots.standing(), SlotStanding::Waiting, "given back at the next look");
}

#[test]
fn a_restart_without_a_slot_can_halt_the_fleet_too() {
    let mut api = SimulatedLeases::default();
    let mut node = SlotNode::new("a", false);
    node.send(&mut api, SlotEvent::Began);
    assert_eq!(node.slots.standing(), SlotStanding::Works(None));
    node.send(&mut api, SlotEvent::Unhealthy(halt()));
    assert!(api.leases.halts().next().is_some());
}

#[test]
fn an_answer_that_nobody_waits_for_changes_nothing() {
    let mut node = SlotNode::new("a", false);
    let before = node.slots.clone();
    for answer in
        [SlotAnswer::Conflict, SlotAnswer::Written(ResourceVersion("1".into())), SlotAnswer::Unknown(String::new())]
    {
        assert_eq!(node.slots.step(SlotEvent::Answered(answer), node.now), None);
        assert_eq!(node.slots, before);
    }
}

#[test]
fn a_node_at_rest_leaves_an_api_server_alone_that_does_not_answer() {
    let mut slots = Slots::new("a", 7, SlotTiming::default(), false, START);
    let at = slots.due().unwrap();
    let list = Some(SlotRequest::List { consistent: false });
    let down = || SlotEvent::Answered(SlotAnswer::Unknown("it is down".into()));
    assert_eq!(slots.step(SlotEvent::Elapsed, at), list);
    assert_eq!(slots.step(down(), at), None);
    let at = slots.due().expect("a slot may be its own from before a crash: it asks again");
    assert_eq!(slots.step(SlotEvent::Elapsed, at), list);
    let listed = SlotAnswer::Listed(FleetLeases::default());
    assert_eq!((slots.step(SlotEvent::Answered(listed), at), slots.due()), (None, None));

    assert_eq!(slots.step(SlotEvent::Look, at), list, "for people");
    assert_eq!((slots.step(down(), at), slots.due()), (None, None));
    assert_eq!(slots.step(SlotEvent::Wish(SlotWish::Slot), at), None);
    let at = slots.due().unwrap();
    assert!(slots.step(SlotEvent::Elapsed, at).is_some());
    assert_eq!(slots.step(down(), at), None);
    assert!(slots.due().is_some(), "a node that waits asks again");
}

/// Each of several nodes that halt the fleet says so itself, whoever was first.
#[test]
fn a_node_names_its_own_halt_first() {
    let mut api = SimulatedLeases::default();
    for (index, node) in ["a", "b"].into_iter().enumerate() {
        let halt = Halt { node: node.into(), reason: String::new(), since: String::new() };
        api.execute(&SlotRequest::Create { index, change: SlotChange::Halt(halt) });
    }
    for (name, is_own) in [("a", true), ("b", true), ("c", false)] {
        let mut node = SlotNode::new(name, false);
        node.wait(&mut api, Duration::from_secs(60));
        let halted = FleetView::of(&node.slots, name, node.now).and_then(|view| view.halted);
        assert_eq!(halted.map(|halt| halt.own), Some(is_own), "{name}");
    }
}

/// Two of its halts were written, one of them late; a person has ended both.
#[test]
fn every_slot_in_a_nodes_name_is_given_back() {
    let mut api = SimulatedLeases::default();
    let mut node = SlotNode::new("a", false);
    for index in [0, 1] {
        let halt = Halt { node: "a".into(), reason: String::new(), since: String::new() };
        api.execute(&SlotRequest::Create { index, change: SlotChange::Halt(halt) });
    }
    node.wait(&mut api, Duration::from_secs(60));
    for index in [0, 1] {
        edit(&mut api, index, |slot| slot.halt = None);
    }
    node.wait(&mut api, Duration::from_secs(60));
    assert_eq!((held(&api, 0), held(&api, 1)), (SlotHolder::Nobody, SlotHolder::Nobody));
    assert_eq!(node.slots.due(), None);
}

/// Thousands of nodes that ask a server again and again which is too slow to answer them keep it slow.
#[test]
fn a_list_that_nobody_answers_is_asked_for_more_and_more_rarely_unless_a_slot_is_at_stake() {
    let pauses = |node: &mut SlotNode| {
        let mut pauses = Vec::new();
        for _ in 0..8 {
            let due = node.slots.due().unwrap();
            pauses.push((due - node.now).as_secs());
            node.now = due;
            assert!(matches!(node.slots.step(SlotEvent::Elapsed, due), Some(SlotRequest::List { .. })));
            let slow = SlotAnswer::Unknown("no answer within 10 s".into());
            assert_eq!(node.slots.step(SlotEvent::Answered(slow), node.now), None);
        }
        pauses
    };
    let mut node = SlotNode::new("a", false);
    assert_eq!(node.slots.step(SlotEvent::Wish(SlotWish::Slot), node.now), None);
    let waited = pauses(&mut node);
    assert!((5..=10).contains(&waited[1]) && (80..=160).contains(&waited[7]), "{waited:?}");
    let mut api = SimulatedLeases::default();
    node.wait(&mut api, Duration::from_secs(160));
    let next = node.slots.due().unwrap() - node.now;
    assert!(next < Duration::from_secs(20), "after an answer it is as before: {next:?}");
    // a restart that is under way has a lease to keep
    let mut working = SlotNode::new("b", true);
    let waited = pauses(&mut working);
    assert!(waited.iter().all(|pause| *pause <= 10), "{waited:?}");
}
