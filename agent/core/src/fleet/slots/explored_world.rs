//! A small fleet as a value, with every step that it can take: what an exploration goes through.
//!
//! Simulated: the API server (a compare-and-swap), the network and time. Requests are carried out or lost, answers are delivered or lost,
//! a request may be carried out long after its sender gave up; agents crash and come back; time passes in steps or stands still. What a node
//! does by a timer it may do at any moment, so every order of polls and delays is in. Times are kept relative to now and versions are
//! renumbered, which makes the graph finite without a bound on time.

use super::{testing::SimulatedLeases, *};
use crate::fleet::lease::{SlotHolder, SlotLease};

pub(super) const TICK: Duration = Duration::from_secs(1);
/// Now, in every state.
pub(super) const NOW: Duration = Duration::from_secs(1_000);
/// Seeds whose first number is even and odd: they pick the first and the second of two slots.
pub(super) const EVEN: u64 = 2;
pub(super) const ODD: u64 = 0;
pub(super) const NAMES: [&str; 3] = ["a", "b", "c"];

/// How much is explored.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) nodes: usize,
    pub(super) slots: usize,
    /// Ticks after which a slot expires.
    pub(super) lease: u32,
    pub(super) crashes: u8,
    /// Requests and answers that are lost.
    pub(super) losses: u8,
    /// Requests that are carried out after their sender has given up.
    pub(super) late: u8,
    /// Nodes that are not healthy after their restart.
    pub(super) failures: u8,
}

impl Bounds {
    fn timing(self) -> SlotTiming {
        SlotTiming { lease: TICK * self.lease, margin: Duration::ZERO, poll: TICK }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum ModelWork {
    Due,
    Working,
    Done,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum ModelWire {
    Idle,
    Sent(SlotRequest),
    Answered(SlotAnswer),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct ModelNode {
    /// None while the agent is down.
    pub(super) slots: Option<Slots>,
    pub(super) work: ModelWork,
    pub(super) fails: bool,
    pub(super) wire: ModelWire,
    /// Until when the slot is honoured that the node began with; its restart goes on while the agent is down.
    pub(super) honoured: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct ModelWorld {
    pub(super) api: SimulatedLeases,
    pub(super) nodes: Vec<ModelNode>,
    pub(super) late: Vec<SlotRequest>,
    pub(super) crashes: u8,
    pub(super) losses: u8,
    pub(super) late_left: u8,
    pub(super) failures: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ModelStep {
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
    pub(super) fn is_another_lot(self) -> bool {
        matches!(self, Self::Timer(_, 1..) | Self::Deliver(_, 1..))
    }
}

impl ModelWorld {
    pub(super) fn new(bounds: Bounds) -> Self {
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

    pub(super) fn steps(&self, bounds: Bounds) -> Vec<ModelStep> {
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
    pub(super) fn apply(&mut self, step: ModelStep, bounds: Bounds) -> bool {
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

    /// What must hold in every state.
    pub(super) fn check(&self, bounds: Bounds) -> Result<(), String> {
        let at_work = self.nodes.iter().filter(|node| node.work == ModelWork::Working && node.honoured > NOW).count();
        if at_work > bounds.slots {
            return Err(format!("{at_work} nodes restart with a slot that is honoured"));
        }
        Ok(())
    }

    /// Whether all is over. A request that is carried out late may leave a slot in the name of a node that rests: it expires, and stands in
    /// nobody's way.
    pub(super) fn is_done(&self, bounds: Bounds) -> bool {
        let was_late = self.late_left < bounds.late;
        let is_free = |slot: &SlotLease| slot.halt.is_none() && (was_late || slot.holder == SlotHolder::Nobody);
        let free = self.late.is_empty() && self.api.leases.slots.iter().all(is_free);
        let at_rest = |node: &ModelNode| {
            node.work == ModelWork::Done
                && node.slots.as_ref().is_some_and(|slots| slots.standing() == SlotStanding::Rest)
        };
        free && self.nodes.iter().all(at_rest)
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
}
