//! Small fleets of simulated nodes, over a simulated API server with delays, losses and crashes by a seed. The nodes' own code is the real one.

use std::{cmp::Reverse, collections::BinaryHeap};

use super::{testing::SimulatedLeases, timing::Lots, *};

const LEASE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_secs(15);
/// An agent gives up on a request after so long.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The longest run; none comes near it.
const END: Duration = Duration::from_secs(400_000);

/// What happens in a run.
#[derive(Debug, Clone)]
struct FleetCase {
    seed: u64,
    nodes: usize,
    slots: usize,
    /// Requests or answers in a thousand that are lost, or are carried out late.
    lost: u64,
    /// Steps in a thousand after which an agent crashes.
    crashing: u64,
    /// The step after which an agent crashes whatever the odds.
    crash_at: Option<u64>,
    /// The node that is not healthy after its restart.
    failing: Option<usize>,
    /// The node that dies for good while it holds a slot.
    dying: Option<usize>,
    /// How long a restart takes, at least; at most twice as long.
    restart: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum FleetMoment {
    Timer(usize, u64),
    Arrives(usize, u64),
    Answer(usize, u64),
    Give(usize, u64),
    Start(usize),
    Ends(usize, u64),
    Resumes,
}

#[derive(Debug, Clone, Default)]
struct SimulatedNode {
    slots: Option<Slots>,
    /// Counts lives and requests, so that what belongs to an earlier one is known as such.
    life: u64,
    /// The number of its timer; older ones count no more.
    timer: u64,
    working: bool,
    done: bool,
    failed: bool,
    dead: bool,
    /// Until when the slot is honoured with which it works.
    honoured: Duration,
    /// The number of the request that is open.
    request: Option<u64>,
    answer: Option<SlotAnswer>,
    writes: u64,
}

/// What a run showed.
#[derive(Debug, Default)]
struct FleetRun {
    now: Duration,
    steps: u64,
    most_at_work: usize,
    writes: u64,
    takes: u64,
    refused: u64,
    lists: u64,
    done: usize,
    begun_after_halt: usize,
    died_at: Option<Duration>,
    taken_over_at: Option<Duration>,
    halted_at: Option<Duration>,
}

struct SimulatedFleet {
    case: FleetCase,
    api: SimulatedLeases,
    nodes: Vec<SimulatedNode>,
    queue: BinaryHeap<Reverse<(Duration, u64, FleetMoment)>>,
    /// Requests under way, by their number.
    sent: std::collections::HashMap<u64, SlotRequest>,
    numbers: u64,
    lots: Lots,
    run: FleetRun,
    /// Nodes that held a slot when the halt was written.
    holders_at_halt: Vec<usize>,
    dead_slot: Option<usize>,
}

impl SimulatedFleet {
    fn new(case: FleetCase) -> Self {
        let mut fleet = Self {
            api: SimulatedLeases::default(),
            nodes: vec![SimulatedNode::default(); case.nodes],
            queue: BinaryHeap::new(),
            sent: std::collections::HashMap::new(),
            numbers: 0,
            lots: Lots::new(case.seed.wrapping_mul(0x9e37) ^ 0x5eed),
            run: FleetRun::default(),
            holders_at_halt: Vec::new(),
            dead_slot: None,
            case,
        };
        for node in 0..fleet.case.nodes {
            let spread = fleet.millis(0, 2_000);
            fleet.at(spread, FleetMoment::Start(node));
        }
        fleet
    }

    fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.lots.draw() % (to - from + 1))
    }

    fn chance(&mut self, in_thousand: u64) -> bool {
        self.lots.draw() % 1_000 < in_thousand
    }

    fn at(&mut self, after: Duration, moment: FleetMoment) {
        self.numbers += 1;
        self.queue.push(Reverse((self.run.now + after, self.numbers, moment)));
    }

    fn run(mut self) -> FleetRun {
        while !self.nodes.iter().all(|node| node.done || node.dead)
            || self.case.failing.is_some() && self.run.halted_at.is_none()
        {
            let Some(Reverse((now, _, moment))) = self.queue.pop() else {
                panic!("nothing happens any more: {:?}", self.case)
            };
            assert!(now < END, "it does not end: {:?}", self.case);
            self.run.now = now;
            self.happen(moment);
            let now = self.run.now;
            let at_work = self.nodes.iter().filter(|node| node.working && node.honoured > now).count();
            self.run.most_at_work = self.run.most_at_work.max(at_work);
        }
        self.run.writes = self.nodes.iter().map(|node| node.writes).sum();
        self.run
    }

    fn happen(&mut self, moment: FleetMoment) {
        match moment {
            FleetMoment::Start(index) => self.start(index),
            FleetMoment::Timer(index, timer) if self.nodes[index].timer == timer => {
                self.step(index, SlotEvent::Elapsed)
            }
            FleetMoment::Arrives(index, number) => {
                let Some(request) = self.sent.remove(&number) else { return };
                let answer = self.execute(index, &request);
                if self.chance(self.case.lost) {
                    return;
                }
                let latency = self.millis(1, 25);
                if self.nodes[index].request == Some(number) {
                    self.nodes[index].answer = Some(answer);
                    let life = self.nodes[index].life;
                    self.at(latency, FleetMoment::Answer(index, life));
                }
            }
            FleetMoment::Answer(index, life) if self.nodes[index].life == life => {
                if let Some(answer) = self.nodes[index].answer.take() {
                    self.nodes[index].request = None;
                    self.step(index, SlotEvent::Answered(answer));
                }
            }
            FleetMoment::Give(index, life) if self.nodes[index].life == life && self.nodes[index].answer.is_none() => {
                self.nodes[index].request = None;
                self.step(index, SlotEvent::Answered(SlotAnswer::Unknown("time-out".into())));
            }
            FleetMoment::Ends(index, life) if self.nodes[index].life >= life => self.end(index),
            FleetMoment::Resumes => self.resume(),
            _ => {}
        }
    }

    fn start(&mut self, index: usize) {
        let now = self.run.now;
        let node = &mut self.nodes[index];
        let timing = SlotTiming::new(LEASE, POLL);
        let seed = (index as u64 + 1).wrapping_mul(0x1234_5678_9abc_def1) ^ self.case.seed;
        node.life += 1;
        node.slots = Some(Slots::new(&format!("node-{index}"), seed, timing, node.working, now));
        let (working, done, life) = (node.working, node.done, node.life);
        self.step(index, SlotEvent::Limit(self.case.slots));
        if working {
            let left = self.millis(100, 5_000);
            self.at(left, FleetMoment::Ends(index, life));
        } else if !done {
            self.step(index, SlotEvent::Wish(SlotWish::Slot));
        }
    }

    /// One step of an agent, with the request that follows; and perhaps its crash.
    fn step(&mut self, index: usize, event: SlotEvent) {
        let now = self.run.now;
        let node = &mut self.nodes[index];
        let Some(slots) = &mut node.slots else { return };
        let request = slots.step(event, now);
        // a slot beyond the limit is found again only by a restart that has lost its own
        if let Some((_, until)) = slots.held_until().filter(|(slot, _)| *slot < self.case.slots) {
            node.honoured = node.honoured.max(until);
        }
        // its halt is written
        if node.failed && node.working && !matches!(slots.standing(), SlotStanding::Works(_)) {
            node.working = false;
            node.done = true;
        }
        self.run.steps += 1;
        if let Some(request) = request {
            self.send(index, request);
        }
        let dies = self.case.dying == Some(index) && self.nodes[index].working;
        let crashes = self.case.crash_at == Some(self.run.steps) || self.chance(self.case.crashing);
        if dies || crashes && !self.nodes[index].dead {
            self.crash(index, dies);
            return;
        }
        self.begin(index);
        let node = &self.nodes[index];
        if let Some(due) = node.slots.as_ref().and_then(Slots::due) {
            // a timer never fires early, and mostly somewhat late
            let late = self.millis(1, 5);
            self.numbers += 1;
            let timer = self.numbers;
            self.nodes[index].timer = timer;
            self.at(due.saturating_sub(now) + late, FleetMoment::Timer(index, timer));
        }
    }

    fn crash(&mut self, index: usize, dies: bool) {
        let node = &mut self.nodes[index];
        self.run.died_at = self.run.died_at.or(dies.then_some(self.run.now));
        if dies {
            self.dead_slot = node.slots.as_ref().and_then(Slots::held_until).map(|(slot, _)| slot);
        }
        node.dead |= dies;
        node.timer = 0;
        node.slots = None;
        node.life += 1;
        node.request = None;
        node.answer = None;
        if !dies {
            let down = self.millis(100, 150_000);
            self.at(down, FleetMoment::Start(index));
        }
    }

    fn begin(&mut self, index: usize) {
        let now = self.run.now;
        let node = &mut self.nodes[index];
        if node.working || !node.slots.as_ref().is_some_and(|slots| slots.may_begin(now)) {
            return;
        }
        node.working = true;
        let life = node.life;
        if self.run.halted_at.is_some() {
            self.run.begun_after_halt += 1;
            assert!(self.holders_at_halt.contains(&index), "it took its slot after the halt: {:?}", self.case);
        }
        let restart = u64::try_from(self.case.restart.as_millis()).unwrap();
        let lasts = self.millis(restart, 2 * restart);
        self.at(lasts, FleetMoment::Ends(index, life));
        self.step(index, SlotEvent::Began);
    }

    fn end(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        if node.slots.is_none() || !node.working {
            return;
        }
        if self.case.failing == Some(index) {
            node.failed = true;
            let halt = Halt { node: String::new(), reason: "not Ready".into(), since: String::new() };
            self.step(index, SlotEvent::Unhealthy(halt));
        } else {
            node.working = false;
            node.done = true;
            self.run.done += 1;
            self.step(index, SlotEvent::Healthy);
        }
    }

    fn send(&mut self, index: usize, request: SlotRequest) {
        let (latency, number) = (self.millis(1, 25), self.numbers);
        let node = &mut self.nodes[index];
        node.request = Some(number);
        node.life += 1;
        let life = node.life;
        if let SlotRequest::List { .. } = request {
            self.run.lists += 1;
        } else {
            node.writes += 1;
        }
        self.at(TIMEOUT, FleetMoment::Give(index, life));
        if self.chance(self.case.lost) {
            return;
        }
        let late = if self.chance(self.case.lost) { self.millis(1, 90_000) } else { Duration::ZERO };
        self.sent.insert(number, request);
        self.at(latency + late, FleetMoment::Arrives(index, number));
    }

    fn execute(&mut self, index: usize, request: &SlotRequest) -> SlotAnswer {
        let answer = self.api.execute(request);
        let (SlotRequest::Create { index: slot, change } | SlotRequest::Update { index: slot, change, .. }) = request
        else {
            return answer;
        };
        if !matches!(answer, SlotAnswer::Written(_)) {
            self.run.refused += 1;
            return answer;
        }
        if let SlotChange::Take { .. } = change {
            self.run.takes += 1;
            if self.dead_slot == Some(*slot) && self.case.dying != Some(index) {
                self.run.taken_over_at.get_or_insert(self.run.now);
            }
        }
        if let SlotChange::Halt(_) = change
            && self.run.halted_at.is_none()
        {
            self.run.halted_at = Some(self.run.now);
            let holds =
                |index: &usize| self.nodes[*index].slots.as_ref().is_some_and(|slots| slots.held_until().is_some());
            self.holders_at_halt = (0..self.nodes.len()).filter(holds).collect();
            self.at(Duration::from_secs(600), FleetMoment::Resumes);
        }
        answer
    }

    fn resume(&mut self) {
        let halts: Vec<_> = self.api.leases.halts().map(|(slot, _)| (slot.index, slot.version.clone())).collect();
        assert!(!halts.is_empty(), "a halt ends by a person only");
        for (index, expect) in halts {
            self.api.execute(&SlotRequest::Update { index, expect, change: SlotChange::Resume });
        }
        self.run.halted_at = None;
        self.case.failing = None;
    }
}

fn calm(seed: u64, nodes: usize, slots: usize) -> FleetCase {
    FleetCase {
        seed,
        nodes,
        slots,
        lost: 0,
        crashing: 0,
        crash_at: None,
        failing: None,
        dying: None,
        restart: Duration::from_secs(5),
    }
}

#[test]
fn a_thousand_simulated_fleets_never_restart_more_nodes_at_once_than_they_may_whatever_crashes() {
    let mut steps = 0;
    for seed in 0..1_000 {
        let slots = 1 + usize::try_from(seed % 2).unwrap();
        // the agent that makes the step crashes: at each of the first steps in some run, and by chance after it
        let case = FleetCase { lost: 30, crashing: 15, crash_at: Some(1 + seed / 3), ..calm(seed, 4, slots) };
        let run = SimulatedFleet::new(case.clone()).run();
        assert!((1..=slots).contains(&run.most_at_work), "{run:?} {case:?}");
        steps += run.steps;
    }
    assert!(steps > 50_000, "crashes fell into {steps} steps");
}

#[test]
fn a_simulated_fleet_in_which_a_node_fails_goes_on_only_with_restarts_in_flight_until_it_is_resumed() {
    for seed in 0..300 {
        let slots = 1 + usize::try_from(seed % 3).unwrap();
        let case = FleetCase { lost: 20, crashing: 5, failing: Some(2), ..calm(seed, 8, slots) };
        let run = SimulatedFleet::new(case.clone()).run();
        assert!((1..=slots).contains(&run.most_at_work), "{run:?} {case:?}");
        assert!(run.begun_after_halt < slots, "{run:?} {case:?}");
    }
}

#[test]
fn a_simulated_node_that_dies_with_its_slot_blocks_the_others_no_longer_than_two_lease_times_and_a_poll() {
    let mut taken_over = 0;
    for seed in 0..200 {
        let case = FleetCase { dying: Some(0), ..calm(seed, 4, 1) };
        let run = SimulatedFleet::new(case.clone()).run();
        if let (Some(died), Some(taken)) = (run.died_at, run.taken_over_at) {
            taken_over += 1;
            assert!(taken - died <= 2 * LEASE + POLL, "{:?} {case:?}", taken - died);
        }
    }
    assert!(taken_over > 100, "{taken_over}");
}

#[test]
#[expect(clippy::print_stderr, reason = "the figures are what the documentation quotes")]
fn five_thousand_simulated_nodes_that_wait_for_few_slots_write_hardly_more_than_they_must() {
    for (nodes, slots) in [(5_000, 1), (5_000, 50)] {
        let mut fleet = SimulatedFleet::new(calm(7, nodes, slots));
        let enough = 12;
        while fleet.run.done < enough {
            let Reverse((now, _, moment)) = fleet.queue.pop().unwrap();
            fleet.run.now = now;
            fleet.happen(moment);
        }
        let (run, seconds) = (&fleet.run, fleet.run.now.as_secs());
        eprintln!(
            "{nodes} nodes, {slots} slots: {} takes, {} refused writes, {} lists in {seconds} s",
            run.takes, run.refused, run.lists
        );
        // a take and a release for each; what is refused comes on top, and must not grow with the number of nodes
        assert!(run.refused <= 2 * run.takes, "{run:?}");
    }
}

#[test]
#[expect(clippy::print_stderr, reason = "the figures are what the documentation quotes")]
fn a_rotation_of_a_simulated_fleet_costs_each_node_no_more_than_four_writes_in_the_mean() {
    let case = calm(11, 600, 6);
    let restart = case.restart;
    let run = SimulatedFleet::new(case).run();
    let mean = run.writes as f64 / 600.0;
    eprintln!("600 nodes, 6 slots: {mean:.2} writes and {} lists a node, {} s", run.lists / 600, run.now.as_secs());
    assert_eq!(run.takes, 600);
    assert!(mean <= 4.0, "{mean}");
    let bound = (restart * 2 + POLL) * 100;
    assert!(run.now <= bound + bound / 10, "{:?}", run.now);
}
