//! Explores every state that a small fleet can get into, over the very function that the agents run.
//!
//! Simulated: the API server (a compare-and-swap), the network and time. Requests are carried out or lost, answers are delivered or lost,
//! a request may be carried out long after its sender gave up; agents crash and come back; time passes in steps or stands still. What a node
//! does by a timer it may do at any moment, so every order of polls and delays is in. Times are kept relative to now and versions are
//! renumbered, which makes the graph finite without a bound on time.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    hash::{DefaultHasher, Hash, Hasher},
};

use super::{testing::SimulatedLeases, *};
use crate::fleet::lease::SlotHolder;

const TICK: Duration = Duration::from_secs(1);
/// Now, in every state.
const NOW: Duration = Duration::from_secs(1_000);
/// Seeds whose first number is even and odd: they pick the first and the second of two slots.
const EVEN: u64 = 2;
const ODD: u64 = 0;
const NAMES: [&str; 3] = ["a", "b", "c"];

/// How much is explored.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    nodes: usize,
    slots: usize,
    /// Ticks after which a slot expires.
    lease: u32,
    crashes: u8,
    /// Requests and answers that are lost.
    losses: u8,
    /// Requests that are carried out after their sender has given up.
    late: u8,
    /// Nodes that are not healthy after their restart.
    failures: u8,
}

impl Bounds {
    fn timing(self) -> SlotTiming {
        SlotTiming { lease: TICK * self.lease, margin: Duration::ZERO, poll: TICK }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum ModelWork {
    Due,
    Working,
    Done,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum ModelWire {
    Idle,
    Sent(SlotRequest),
    Answered(SlotAnswer),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct ModelNode {
    /// None while the agent is down.
    slots: Option<Slots>,
    work: ModelWork,
    fails: bool,
    wire: ModelWire,
    /// Until when the slot is honoured that the node began with; its restart goes on while the agent is down.
    honoured: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct ModelWorld {
    api: SimulatedLeases,
    nodes: Vec<ModelNode>,
    late: Vec<SlotRequest>,
    crashes: u8,
    losses: u8,
    late_left: u8,
    failures: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ModelStep {
    Tick,
    /// A timer of the node's fires; it draws this number.
    Timer(usize, u64),
    Execute(usize),
    Deliver(usize, u64),
    /// The request or its answer is lost.
    Lose(usize),
    /// The sender gives up; the request stays under way.
    GiveUp(usize),
    Late(usize),
    Crash(usize),
    /// As `Crash`, with the request under way.
    CrashSending(usize),
    Start(usize),
    Begin(usize),
    Recover(usize),
    Fail(usize),
    Resume,
}

impl ModelStep {
    /// Whether it differs from the step before only in the number that is drawn.
    fn is_another_lot(self) -> bool {
        matches!(self, Self::Timer(_, 1..) | Self::Deliver(_, 1..))
    }
}

impl ModelWorld {
    fn new(bounds: Bounds) -> Self {
        let node = |index: usize| {
            let mut slots = Slots::new(NAMES[index], 0, bounds.timing(), false, NOW);
            slots.limit = bounds.slots;
            slots.look = false;
            slots.wish = SlotWish::Slot;
            ModelNode {
                slots: Some(slots),
                work: ModelWork::Due,
                fails: false,
                wire: ModelWire::Idle,
                honoured: Duration::ZERO,
            }
        };
        let mut world = Self {
            api: SimulatedLeases::default(),
            nodes: (0..bounds.nodes).map(node).collect(),
            late: Vec::new(),
            crashes: bounds.crashes,
            losses: bounds.losses,
            late_left: bounds.late,
            failures: bounds.failures,
        };
        world.normalise(bounds);
        world
    }

    fn steps(&self, bounds: Bounds) -> Vec<ModelStep> {
        let lots = 0..bounds.slots as u64;
        let mut steps = vec![ModelStep::Tick];
        if self.api.leases.halts().next().is_some() {
            steps.push(ModelStep::Resume);
        }
        steps.extend((0..self.late.len()).map(ModelStep::Late));
        for (index, node) in self.nodes.iter().enumerate() {
            let Some(slots) = &node.slots else {
                steps.push(ModelStep::Start(index));
                continue;
            };
            match &node.wire {
                ModelWire::Idle if slots.due.is_some() => {
                    steps.extend(lots.clone().map(|lot| ModelStep::Timer(index, lot)));
                }
                ModelWire::Idle => {}
                ModelWire::Sent(_) => steps.push(ModelStep::Execute(index)),
                ModelWire::Answered(_) => steps.extend(lots.clone().map(|lot| ModelStep::Deliver(index, lot))),
            }
            if node.wire != ModelWire::Idle && self.losses > 0 {
                steps.push(ModelStep::Lose(index));
            }
            let writes = matches!(node.wire, ModelWire::Sent(_));
            if writes && self.late_left > 0 {
                steps.push(ModelStep::GiveUp(index));
            }
            if self.crashes > 0 {
                steps.push(ModelStep::Crash(index));
                if writes && self.late_left > 0 {
                    steps.push(ModelStep::CrashSending(index));
                }
            }
            match node.work {
                ModelWork::Due if slots.may_begin(NOW) => steps.push(ModelStep::Begin(index)),
                ModelWork::Working if slots.work == SlotWork::Running => {
                    if !node.fails {
                        steps.push(ModelStep::Recover(index));
                    }
                    if node.fails || self.failures > 0 {
                        steps.push(ModelStep::Fail(index));
                    }
                }
                _ => {}
            }
        }
        steps
    }

    /// Gives whether a node picked a slot.
    fn apply(&mut self, step: ModelStep, bounds: Bounds) -> bool {
        match step {
            ModelStep::Tick => self.pass(TICK),
            ModelStep::Timer(index, lot) => self.send(index, SlotEvent::Elapsed, lot),
            ModelStep::Execute(index) => {
                if let ModelWire::Sent(request) = self.nodes[index].wire.clone() {
                    self.nodes[index].wire = ModelWire::Answered(self.api.execute(&request));
                }
            }
            ModelStep::Deliver(index, lot) => {
                if let ModelWire::Answered(answer) = std::mem::replace(&mut self.nodes[index].wire, ModelWire::Idle) {
                    self.send(index, SlotEvent::Answered(answer), lot);
                }
            }
            ModelStep::Lose(index) => {
                self.losses -= 1;
                self.give_up(index);
            }
            ModelStep::GiveUp(index) => {
                self.keep_late(index);
                self.give_up(index);
            }
            ModelStep::Late(at) => {
                let request = self.late.remove(at);
                self.api.execute(&request);
            }
            ModelStep::Crash(index) => self.crash(index),
            ModelStep::CrashSending(index) => {
                self.keep_late(index);
                self.crash(index);
            }
            ModelStep::Start(index) => self.start(index, bounds),
            ModelStep::Begin(index) => {
                self.nodes[index].work = ModelWork::Working; // the ledger is written before the restart
                self.send(index, SlotEvent::Began, 0);
            }
            ModelStep::Recover(index) => {
                self.nodes[index].work = ModelWork::Done;
                self.send(index, SlotEvent::Healthy, 0);
            }
            ModelStep::Fail(index) => {
                let node = &mut self.nodes[index];
                self.failures -= u8::from(!node.fails);
                node.fails = true;
                let halt = Halt { node: NAMES[index].into(), reason: String::new(), since: String::new() };
                self.send(index, SlotEvent::Unhealthy(halt), 0);
            }
            ModelStep::Resume => self.resume(),
        }
        for node in &mut self.nodes {
            let Some(slots) = &node.slots else { continue };
            // the halt is written: the ledger forgets the restart
            if node.fails && node.work == ModelWork::Working && slots.work == SlotWork::Rest {
                node.work = ModelWork::Done;
            }
            // a slot beyond the limit is found again only by a restart that has lost its own
            if let Some(hold) = slots.hold.as_ref().filter(|hold| hold.index < bounds.slots) {
                node.honoured = node.honoured.max(hold.until);
            }
        }
        // times are drawn too, but they make no difference here
        let picked = match step {
            ModelStep::Timer(index, _) | ModelStep::Deliver(index, _) => self.nodes[index].takes(),
            _ => false,
        };
        self.normalise(bounds);
        picked
    }

    fn send(&mut self, index: usize, event: SlotEvent, lot: u64) {
        let node = &mut self.nodes[index];
        let slots = node.slots.as_mut().unwrap();
        slots.lots = Lots::new([EVEN, ODD][usize::try_from(lot).unwrap()]);
        let halted = slots.leases().is_some_and(|leases| leases.halts().next().is_some());
        assert!(!(halted && event == SlotEvent::Began), "a node that has seen a halt does not begin");
        if let Some(request) = slots.step(event, NOW) {
            assert_eq!(node.wire, ModelWire::Idle, "one request at a time");
            node.wire = match request {
                // whatever happens before it is carried out can as well happen before it is sent
                SlotRequest::List { .. } => ModelWire::Answered(self.api.execute(&request)),
                write => ModelWire::Sent(write),
            };
        }
    }

    fn give_up(&mut self, index: usize) {
        self.nodes[index].wire = ModelWire::Idle;
        self.send(index, SlotEvent::Answered(SlotAnswer::Unknown(String::new())), 0);
    }

    fn keep_late(&mut self, index: usize) {
        self.late_left -= 1;
        if let ModelWire::Sent(request) = self.nodes[index].wire.clone() {
            self.late.push(request);
        }
    }

    fn crash(&mut self, index: usize) {
        self.crashes -= 1;
        self.nodes[index].slots = None;
        self.nodes[index].wire = ModelWire::Idle;
    }

    fn start(&mut self, index: usize, bounds: Bounds) {
        let node = &mut self.nodes[index];
        let begun = node.work == ModelWork::Working;
        let mut slots = Slots::new(NAMES[index], 0, bounds.timing(), begun, NOW);
        slots.limit = bounds.slots;
        if node.work == ModelWork::Due {
            slots.wish = SlotWish::Slot;
        }
        node.slots = Some(slots);
    }

    fn resume(&mut self) {
        let halts: Vec<_> = self.api.leases.halts().map(|(slot, _)| (slot.index, slot.version.clone())).collect();
        for (index, expect) in halts {
            self.api.execute(&SlotRequest::Update { index, expect, change: SlotChange::Resume });
        }
    }

    /// Lets time pass, by moving everything that was into the past.
    fn pass(&mut self, time: Duration) {
        for node in &mut self.nodes {
            node.honoured = node.honoured.saturating_sub(time);
            let Some(slots) = &mut node.slots else { continue };
            if let Some(hold) = &mut slots.hold {
                hold.until = hold.until.saturating_sub(time);
                hold.renew_at = hold.renew_at.saturating_sub(time);
            }
            if let Some(open) = &mut slots.open {
                open.sent -= time;
            }
            slots.sightings.each(|_, _, since| *since -= time);
        }
    }

    /// Brings equal worlds to the same form.
    fn normalise(&mut self, bounds: Bounds) {
        let past = |time: &mut Duration| {
            if *time <= NOW {
                *time = Duration::ZERO;
            }
        };
        for node in &mut self.nodes {
            past(&mut node.honoured);
            let Some(slots) = &mut node.slots else { continue };
            slots.lots = Lots::new(0);
            slots.unreachable = None;
            // kept for the check that nobody begins who has seen a halt
            slots.seen = slots.seen.take().filter(|leases| leases.halts().next().is_some()).map(|_| halted());
            slots.due = slots.due.map(|_| NOW);
            if let Some(hold) = &mut slots.hold {
                past(&mut hold.until);
                past(&mut hold.renew_at);
            }
            let oldest = NOW - TICK * bounds.lease;
            if let Some(open) = &mut slots.open {
                let lasts = !matches!(open.request, SlotRequest::List { .. });
                open.sent = if lasts { open.sent.max(oldest) } else { NOW };
            }
            slots.sightings.each(|_, _, since| *since = (*since).max(oldest));
            if node.work != ModelWork::Due {
                slots.sightings = Sightings::default(); // it takes no slot any more
            }
            if node.work != ModelWork::Working {
                node.honoured = Duration::ZERO;
            }
        }
        self.renumber();
        for node in &mut self.nodes {
            if let Some(slots) = &mut node.slots {
                // what was seen of versions that match nothing, and of free slots, makes no difference
                let held = |index: usize, version: &ResourceVersion| {
                    let slot = self.api.leases.slot(index).filter(|slot| slot.version == *version);
                    slot.is_none_or(|slot| slot.holder != SlotHolder::Nobody)
                };
                slots.sightings.retain(|index, version| version.0 != "0" && held(index, version));
            }
        }
        self.sort_nodes();
        self.late.sort_by_cached_key(|request| format!("{request:?}"));
    }

    /// Gives every version that a list shows, or may show, a number by its age. All others are the same: they match nothing any more.
    fn renumber(&mut self) {
        let mut known: Vec<(usize, u64)> = Vec::new();
        let mut note = |leases: &FleetLeases| {
            known.extend(leases.slots.iter().map(|slot| (slot.index, slot.version.0.parse::<u64>().unwrap())));
        };
        note(&self.api.leases);
        for node in &self.nodes {
            if let ModelWire::Answered(SlotAnswer::Listed(leases)) = &node.wire {
                note(leases);
            }
        }
        known.sort_unstable();
        known.dedup();
        self.api.versions = known.len() as u64 + 1;
        self.each_version(&mut |index, version| {
            let number = (index, version.0.parse().unwrap());
            let first = known.partition_point(|known| known.0 < index);
            version.0 = known.binary_search(&number).map_or(0, |at| at + 1 - first).to_string();
        });
        // a request that expects such a version is refused, whenever it arrives, as is the creation of what is there
        let api = &self.api.leases;
        self.late.retain(|request| match request {
            SlotRequest::Update { index, expect, .. } => api.slot(*index).is_some_and(|slot| slot.version == *expect),
            SlotRequest::Create { index, .. } => api.slot(*index).is_none(),
            SlotRequest::List { .. } => false,
        });
    }

    fn each_version(&mut self, f: &mut dyn FnMut(usize, &mut ResourceVersion)) {
        let of_list = |leases: &mut FleetLeases, f: &mut dyn FnMut(usize, &mut ResourceVersion)| {
            for slot in &mut leases.slots {
                f(slot.index, &mut slot.version);
                slot.transitions = 0;
            }
        };
        let of_request = |request: &mut SlotRequest, f: &mut dyn FnMut(usize, &mut ResourceVersion)| {
            if let SlotRequest::Update { index, expect, .. } = request {
                f(*index, expect);
            }
            if let SlotRequest::Update { change: SlotChange::Take { transitions, .. }, .. } = request {
                *transitions = 0;
            }
        };
        of_list(&mut self.api.leases, f);
        for request in &mut self.late {
            of_request(request, f);
        }
        for node in &mut self.nodes {
            let written = node.slots.as_ref().and_then(|slots| match &slots.open.as_ref()?.request {
                SlotRequest::Create { index, .. } | SlotRequest::Update { index, .. } => Some(*index),
                SlotRequest::List { .. } => None,
            });
            match (&mut node.wire, written) {
                (ModelWire::Sent(request), _) => of_request(request, f),
                (ModelWire::Answered(SlotAnswer::Listed(leases)), _) => of_list(leases, f),
                (ModelWire::Answered(SlotAnswer::Written(version)), Some(index)) => f(index, version),
                _ => {}
            }
            let Some(slots) = &mut node.slots else { continue };
            if let Some(open) = &mut slots.open {
                of_request(&mut open.request, f);
            }
            if let Some(hold) = &mut slots.hold {
                f(hold.index, &mut hold.version);
            }
            slots.sightings.each(|index, version, _| f(index, version));
        }
    }

    /// Numbers the nodes by what they are in: which of them is called how makes no difference.
    fn sort_nodes(&mut self) {
        let key = |node: &ModelNode, name: &str| {
            let mut node = node.clone();
            node.each_name(&mut |found| *found = if found == name { "it" } else { "another" }.to_owned());
            let mut hasher = DefaultHasher::new();
            node.hash(&mut hasher);
            hasher.finish()
        };
        let mut order: Vec<usize> = (0..self.nodes.len()).collect();
        order.sort_by_cached_key(|index| key(&self.nodes[*index], NAMES[*index]));
        if order.is_sorted() {
            return;
        }
        self.nodes = order.iter().map(|index| self.nodes[*index].clone()).collect();
        let mut rename = |name: &mut String| {
            let before = NAMES.iter().position(|known| known == name).unwrap();
            *name = NAMES[order.iter().position(|index| *index == before).unwrap()].to_owned();
        };
        each_name_of_leases(&mut self.api.leases, &mut rename);
        self.late.iter_mut().for_each(|request| each_name_of_request(request, &mut rename));
        self.nodes.iter_mut().for_each(|node| node.each_name(&mut rename));
    }

    /// What must hold in every state.
    fn check(&self, bounds: Bounds) -> Result<(), String> {
        let at_work = self.nodes.iter().filter(|node| node.work == ModelWork::Working && node.honoured > NOW).count();
        if at_work > bounds.slots {
            return Err(format!("{at_work} nodes restart with a slot that is honoured"));
        }
        Ok(())
    }

    fn is_done(&self) -> bool {
        let free = self.api.leases.slots.iter().all(|slot| slot.holder == SlotHolder::Nobody && slot.halt.is_none());
        let at_rest = |node: &ModelNode| {
            node.work == ModelWork::Done
                && node.slots.as_ref().is_some_and(|slots| slots.standing() == SlotStanding::Rest)
        };
        free && self.nodes.iter().all(at_rest)
    }

    /// Of ten million states, two have the same digest with a probability of one in 370,000.
    fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        hasher.finish()
    }
}

impl ModelNode {
    /// Whether it is about to take a slot.
    fn takes(&self) -> bool {
        let ModelWire::Sent(SlotRequest::Create { change, .. } | SlotRequest::Update { change, .. }) = &self.wire
        else {
            return false;
        };
        matches!(change, SlotChange::Take { .. })
    }

    fn each_name(&mut self, f: &mut dyn FnMut(&mut String)) {
        match &mut self.wire {
            ModelWire::Sent(request) => each_name_of_request(request, f),
            ModelWire::Answered(SlotAnswer::Listed(leases)) => each_name_of_leases(leases, f),
            _ => {}
        }
        let Some(slots) = &mut self.slots else { return };
        f(&mut slots.node);
        if let SlotWork::Failed(halt) = &mut slots.work {
            f(&mut halt.node);
        }
        if let Some(open) = &mut slots.open {
            each_name_of_request(&mut open.request, f);
        }
    }
}

fn each_name_of_request(request: &mut SlotRequest, f: &mut dyn FnMut(&mut String)) {
    let (SlotRequest::Create { change, .. } | SlotRequest::Update { change, .. }) = request else { return };
    match change {
        SlotChange::Take { node, .. } | SlotChange::Renew { node } => f(node),
        SlotChange::Halt(halt) => f(&mut halt.node),
        SlotChange::Release | SlotChange::Resume => {}
    }
}

fn each_name_of_leases(leases: &mut FleetLeases, f: &mut dyn FnMut(&mut String)) {
    for slot in &mut leases.slots {
        if let SlotHolder::Node(node) = &mut slot.holder {
            f(node);
        }
        if let Some(halt) = &mut slot.halt {
            f(&mut halt.node);
        }
    }
}

/// Leases that stand for every list with a halt in it.
fn halted() -> FleetLeases {
    let mut api = SimulatedLeases::default();
    let halt = Halt { node: String::new(), reason: String::new(), since: String::new() };
    api.execute(&SlotRequest::Create { index: 0, change: SlotChange::Halt(halt) });
    api.leases
}

/// The explored graph: of each state its predecessors, and how it was reached first.
#[derive(Default)]
struct ModelGraph {
    known: HashMap<u64, u32>,
    first: Vec<(u32, ModelStep)>,
    edges: Vec<(u32, u32)>,
    done: Vec<u32>,
}

impl ModelGraph {
    fn way_to(&self, mut state: u32) -> Vec<ModelStep> {
        let mut steps = Vec::new();
        while state != 0 {
            let (before, step) = self.first[state as usize];
            steps.push(step);
            state = before;
        }
        steps.reverse();
        steps
    }

    fn explore(bounds: Bounds) -> Self {
        let mut graph = Self::default();
        let start = ModelWorld::new(bounds);
        graph.known.insert(start.digest(), 0);
        graph.first.push((0, ModelStep::Tick));
        let mut queue = VecDeque::from([(0, start)]);
        while let Some((from, world)) = queue.pop_front() {
            let mut picked = true;
            for step in world.steps(bounds) {
                if !picked && step.is_another_lot() {
                    continue; // the number picked nothing: it would be the same again
                }
                let mut next = world.clone();
                picked = next.apply(step, bounds);
                let fresh = u32::try_from(graph.first.len()).unwrap();
                let to = match graph.known.entry(next.digest()) {
                    Entry::Occupied(known) => *known.get(),
                    Entry::Vacant(vacant) => {
                        vacant.insert(fresh);
                        graph.first.push((from, step));
                        if let Err(why) = next.check(bounds) {
                            panic!("{why}: {:?}\n{next:#?}", graph.way_to(fresh));
                        }
                        if next.is_done() {
                            graph.done.push(fresh);
                        }
                        queue.push_back((fresh, next));
                        fresh
                    }
                };
                if to != from {
                    graph.edges.push((to, from));
                }
            }
        }
        graph
    }

    /// A state from which no end can be reached, if there is one: found backwards from the ends.
    fn dead_end(&self) -> Option<u32> {
        let states = self.first.len();
        let mut begins = vec![0_usize; states + 1];
        for (to, _) in &self.edges {
            begins[*to as usize + 1] += 1;
        }
        for state in 0..states {
            begins[state + 1] += begins[state];
        }
        let (mut filled, mut before) = (begins.clone(), vec![0_u32; self.edges.len()]);
        for (to, from) in &self.edges {
            before[filled[*to as usize]] = *from;
            filled[*to as usize] += 1;
        }
        let mut ends = vec![false; states];
        let mut open = self.done.clone();
        for state in &self.done {
            ends[*state as usize] = true;
        }
        while let Some(state) = open.pop() {
            for from in &before[begins[state as usize]..begins[state as usize + 1]] {
                if !std::mem::replace(&mut ends[*from as usize], true) {
                    open.push(*from);
                }
            }
        }
        ends.iter().position(|ends| !ends).and_then(|state| u32::try_from(state).ok())
    }
}

#[expect(clippy::print_stderr, reason = "bounds and states are what a reader of an exploration wants to know")]
fn explore(bounds: Bounds) {
    let graph = ModelGraph::explore(bounds);
    eprintln!("{bounds:?}: {} states, {} steps, {} ends", graph.first.len(), graph.edges.len(), graph.done.len());
    assert!(!graph.done.is_empty());
    if let Some(state) = graph.dead_end() {
        panic!("no end can be reached after {:?}", graph.way_to(state));
    }
}

#[test]
fn two_nodes_never_restart_over_one_slot_and_always_can_finish_in_every_order_of_a_fault() {
    let bounds = Bounds { nodes: 2, slots: 1, lease: 2, crashes: 0, losses: 0, late: 0, failures: 0 };
    explore(Bounds { crashes: 1, ..bounds });
    explore(Bounds { losses: 1, lease: 1, ..bounds });
}

#[test]
#[ignore = "minutes: cargo test -p nodetrust-core --lib -- --ignored --nocapture in_every_order_of_several_faults"]
fn two_nodes_never_restart_over_one_slot_and_always_can_finish_in_every_order_of_several_faults() {
    let bounds = Bounds { nodes: 2, slots: 1, lease: 2, crashes: 0, losses: 0, late: 0, failures: 0 };
    explore(Bounds { losses: 2, ..bounds });
    explore(Bounds { crashes: 1, losses: 1, ..bounds });
    explore(Bounds { crashes: 1, late: 1, ..bounds });
    explore(Bounds { crashes: 2, failures: 1, ..bounds });
    explore(Bounds { losses: 1, late: 1, failures: 1, ..bounds });
    explore(Bounds { lease: 3, crashes: 1, losses: 1, ..bounds });
}

/// Ten minutes and several GB with optimisation:
/// `cargo --config profile.dev.package.nodetrust-core.opt-level=2 test -p nodetrust-core --lib -- --ignored --nocapture three_nodes`
#[test]
#[ignore = "hours without optimisation"]
fn three_nodes_never_restart_beyond_two_slots_and_always_can_finish_in_every_order_of_a_fault() {
    let bounds = Bounds { nodes: 3, slots: 2, lease: 1, crashes: 0, losses: 0, late: 0, failures: 0 };
    explore(bounds);
    explore(Bounds { crashes: 1, ..bounds });
    explore(Bounds { late: 1, ..bounds });
    explore(Bounds { losses: 1, ..bounds });
    explore(Bounds { failures: 1, ..bounds });
}

#[test]
fn the_two_seeds_pick_either_of_two_slots() {
    assert_eq!((Lots::new(EVEN).draw() % 2, Lots::new(ODD).draw() % 2), (0, 1));
}
