//! One node of a fleet: what it knows, what it asks next, and what its cycles may do.
//!
//! All that happens goes through [`FleetMember::turn`], which asks `nodetrust_core::fleet` and sets the permit. The permit is taken back before
//! anything else is done, so that no restart begins while its ground may be going away.

use std::time::Duration;

use nodetrust_core::{
    fleet::{
        canary::{CanaryWatch, mark_to_write},
        gate::{FleetGate, GateFacts, HOLD_LABEL, OutageFacts, Passage, decide},
        health::{HealthFacts, NodeReadiness, RestartHealth},
        lease::{CanaryMark, Halt, ResourceVersion},
        slots::{SlotAnswer, SlotEvent, SlotRequest, SlotStanding, SlotTiming, SlotWish, Slots},
        view::FleetView,
    },
    node_status::NodeObject,
    runtime::{service_plan::Hold, services::HoldReason},
    time::Time,
};

use super::{
    call::{FleetAnswer, FleetCall},
    clock::FleetClock,
    facts::NodeFacts,
    line::FleetLine,
    permit::PermitState,
    work::Work,
};
use crate::{config::FleetSettings, jitter::part_of};

/// How old the Node may be that a restart is based on.
const NODE_AGE: Duration = Duration::from_secs(30);
/// Pause between two looks at the Node while its readiness is waited for, or its labels hold a restart.
const NODE_PAUSE: Duration = Duration::from_secs(10);
/// Pause before the number of nodes is read again, and before the containers are listed again.
const COUNT_PAUSE: Duration = Duration::from_secs(300);
const WORKLOAD_PAUSE: Duration = Duration::from_secs(60);
/// How long a restart may begin after it was seen that nothing runs here, or that the API server is out of reach.
const UNSLOTTED: Duration = Duration::from_secs(10);
/// How long a node is watched after its restart at least, so that the runtime can be asked about a registry.
const WATCHED: Duration = Duration::from_secs(5);
/// Pause between two cycles while a node is watched after its restart.
const WATCH_PAUSE: Duration = Duration::from_secs(5);
/// How old the cycle may be by which a node is judged after its restart.
const FACTS_AGE: Duration = Duration::from_secs(30);
/// The part of `fleet.apiTimeout` over which nodes are spread that go on without the API server: one in so many.
const OUTAGE_SPREAD: u32 = 4;
/// How long the task sleeps at most.
const IDLE: Duration = Duration::from_secs(3600);

/// A value that was read, and when it is to be read again.
#[derive(Debug, Clone)]
struct Read<T> {
    value: Option<T>,
    at: Duration,
}

/// One node of a fleet.
pub(super) struct FleetMember {
    node: String,
    line: FleetLine,
    clock: FleetClock,
    timing: SlotTiming,
    settings: Option<FleetSettings>,
    facts: Option<NodeFacts>,
    slots: Option<Slots>,
    request: Option<SlotRequest>,
    canary: CanaryWatch,
    /// The digest with which this node has called itself healthy as a canary.
    marked: Option<String>,
    /// When the mark may be written again that could not be written.
    mark_after: Duration,
    object: Read<NodeObject>,
    count: Read<u32>,
    nothing_runs: Read<bool>,
    work: Option<Work>,
    /// The reason that the last cycle was told.
    told: Option<HoldReason>,
    /// When the last facts came.
    facts_at: Duration,
    /// The last look at the Node has failed.
    is_object_old: bool,
    /// The permit was given, and not taken back for a reason.
    is_open: bool,
    /// The last cycle was told that the fleet is halted.
    is_halt_told: bool,
    /// What is looked at again, beside what the slots want.
    again: Option<Duration>,
}

impl<T> Read<T> {
    fn never() -> Self {
        Self { value: None, at: Duration::ZERO }
    }

    /// Whether it is older than this, or was never read.
    fn is_older(&self, than: Duration, now: Duration) -> bool {
        self.at.is_zero() || now.saturating_sub(self.at) >= than
    }
}

impl FleetMember {
    pub(super) fn new(node: String, line: FleetLine, clock: FleetClock, timing: SlotTiming) -> Self {
        Self {
            node,
            line,
            clock,
            timing,
            settings: None,
            facts: None,
            slots: None,
            request: None,
            canary: CanaryWatch::default(),
            marked: None,
            mark_after: Duration::ZERO,
            object: Read::never(),
            count: Read::never(),
            nothing_runs: Read::never(),
            work: None,
            told: None,
            facts_at: Duration::ZERO,
            is_object_old: false,
            is_open: false,
            is_halt_told: false,
            again: None,
        }
    }

    /// Follows a configuration.
    pub(super) fn follow(&mut self, settings: Option<FleetSettings>) {
        self.settings = settings;
    }

    /// Takes what a cycle has found.
    pub(super) fn take(&mut self, facts: NodeFacts) {
        self.withdraw(); // a restart that has ended meanwhile is what the facts may be about
        if let Some(work) = &mut self.work
            && facts.lost.is_some()
        {
            work.lost.clone_from(&facts.lost);
        }
        if !facts.wants_restart {
            self.nothing_runs = Read::never();
        }
        self.facts = Some(facts);
        self.facts_at = self.now();
    }

    /// The time by which everything here goes.
    pub(super) fn now(&self) -> Duration {
        self.clock.now()
    }

    /// How long may be slept.
    pub(super) fn sleep(&self) -> Duration {
        let slots = self.slots.as_ref().and_then(Slots::due);
        let next = slots.into_iter().chain(self.again).min();
        next.map_or(IDLE, |next| next.saturating_sub(self.now())).min(IDLE)
    }

    /// What is to be called now; the protocol of the slots comes first.
    pub(super) fn next_call(&mut self) -> Option<FleetCall> {
        if let Some(request) = self.request.take() {
            return Some(FleetCall::Slot(request));
        }
        let (settings, facts, now) = (self.settings.as_ref()?, self.facts.as_ref()?, self.now());
        let slots = self.slots.as_ref()?;
        let watches = self.work.as_ref().is_some_and(|work| work.ended);
        let may_be_canary =
            !settings.canary.is_empty() && facts.is_healthy && self.marked.as_ref() != Some(&facts.digest);
        if facts.wants_restart || watches || may_be_canary {
            let age = if watches || self.held_by_label() { NODE_PAUSE } else { NODE_AGE };
            let is_needed = watches
                || may_be_canary
                || !matches!(slots.standing(), SlotStanding::Waiting)
                || self.object.value.is_none();
            if is_needed && self.object.is_older(age, now) {
                return Some(FleetCall::Node);
            }
        }
        if facts.wants_restart && settings.limit.needs_nodes() && self.count.is_older(COUNT_PAUSE, now) {
            return Some(FleetCall::Count);
        }
        if facts.wants_restart
            && self.nothing_runs.is_older(WORKLOAD_PAUSE, now)
            && let Some(socket) = &facts.socket
        {
            return Some(FleetCall::Workload(socket.clone()));
        }
        self.mark().map(|(mark, version)| FleetCall::Mark(mark, version))
    }

    fn held_by_label(&self) -> bool {
        self.labels().is_some_and(|labels| labels.contains_key(HOLD_LABEL))
    }

    fn labels(&self) -> Option<&std::collections::BTreeMap<String, String>> {
        self.object.value.as_ref()?.metadata.labels.as_ref()
    }

    fn is_canary(&self) -> bool {
        let selector = self.settings.as_ref().map(|settings| &settings.canary);
        selector.zip(self.labels()).is_some_and(|(selector, labels)| selector.matches(labels))
    }

    /// The mark that this canary has to write, and the version of the Lease that it goes on.
    fn mark(&self) -> Option<(CanaryMark, Option<ResourceVersion>)> {
        let facts = self.facts.as_ref()?;
        let leases = self.slots.as_ref()?.leases()?;
        if !self.is_canary() || !facts.is_healthy || self.work.is_some() || self.now() < self.mark_after {
            return None;
        }
        let lease = leases.canary.as_ref();
        let present = lease.and_then(|lease| lease.mark.as_ref());
        let mark = mark_to_write(&facts.digest, Time(facts.time), present, self.marked.as_deref())?;
        Some((mark, lease.map(|lease| lease.version.clone())))
    }

    /// Takes an answer.
    pub(super) fn answered(&mut self, answer: FleetAnswer) {
        let now = self.now();
        match answer {
            FleetAnswer::Slot(answer) => {
                if let SlotAnswer::Listed(leases) = &answer {
                    self.canary.note(leases.canary.as_ref(), now);
                }
                self.withdraw();
                self.feed(SlotEvent::Answered(answer), now);
            }
            // what was known stays known while the API server does not answer
            FleetAnswer::Node(object) => {
                self.is_object_old = object.is_none();
                self.object = Read { value: object.map(|object| *object).or(self.object.value.take()), at: now };
            }
            FleetAnswer::Count(count) => self.count = Read { value: count.or(self.count.value), at: now },
            FleetAnswer::Workload(nothing) => self.nothing_runs = Read { value: Some(nothing), at: now },
            FleetAnswer::Mark(mark, true) => self.marked = Some(mark.digest),
            FleetAnswer::Mark(..) => {
                // somebody else was faster, or it is not allowed: what does the Lease say?
                self.mark_after = now + self.timing.poll;
                self.feed(SlotEvent::Look, now);
            }
        }
    }

    fn feed(&mut self, event: SlotEvent, now: Duration) {
        if let Some(slots) = &mut self.slots
            && let Some(request) = slots.step(event, now)
        {
            self.request = Some(request);
        }
    }

    /// Takes back a permit that was not used; a restart that has begun is told to the slots.
    fn withdraw(&mut self) {
        let permit = self.line.permit.clone();
        if let PermitState::Granted(_) = permit.now() {
            let why = "the slot is being looked at again".to_owned();
            let hold = Hold { reason: HoldReason::Slot, why, next: String::new(), wait: None };
            permit.set(PermitState::Refused(hold)); // without effect on a restart that has just begun
        }
        let now = self.now();
        match permit.now() {
            PermitState::AtWork | PermitState::Ended if self.work.is_none() => {
                self.work = Some(Work::new(false, now));
                self.feed(SlotEvent::Began, now);
            }
            _ => {}
        }
        if permit.now() == PermitState::Ended
            && let Some(work) = self.work.as_mut().filter(|work| !work.ended)
        {
            (work.ended, work.since) = (true, now);
            self.object = Read { at: Duration::ZERO, ..self.object.clone() };
            self.line.word.notify_one(); // how is the node now?
        }
    }

    /// Everything that follows from what is known now.
    pub(super) fn turn(&mut self) {
        let now = self.now();
        self.again = None;
        self.withdraw();
        let Some(facts) = self.facts.clone() else { return };
        let Some(settings) = self.settings.clone() else { return self.leave(now) };
        if self.slots.is_none() {
            self.join(&facts, &settings, now);
        }
        self.feed(SlotEvent::Limit(settings.limit.slots(self.count.value)), now);
        self.feed(SlotEvent::Elapsed, now);
        if self.work.is_some() {
            self.judge(&facts, &settings, now);
        }
        if self.work.is_none() {
            self.ask(&facts, &settings, now);
        }
        if self.is_canary() && facts.is_healthy && self.marked.as_ref() != Some(&facts.digest) {
            match self.slots.as_ref().and_then(Slots::leases) {
                None => self.feed(SlotEvent::Look, now),
                Some(leases) => {
                    let said = leases.canary.as_ref().and_then(|lease| lease.mark.as_ref());
                    if said.is_some_and(|mark| mark.digest == facts.digest) {
                        self.marked = Some(facts.digest.clone());
                    } else {
                        self.wake_at(now + self.timing.poll);
                    }
                }
            }
        }
        self.show(now);
    }

    /// Begins to take part. A restart that was made shortly before the agent started is watched to its end.
    fn join(&mut self, facts: &NodeFacts, settings: &FleetSettings, now: Duration) {
        let ago = facts.last_restart.as_ref().map(|last| facts.time.saturating_sub(last.time.0));
        let within = i64::try_from(settings.healthy_within.as_secs()).unwrap_or(i64::MAX);
        let begun = ago.is_some_and(|ago| (0..within).contains(&ago));
        let seed = nodetrust_core::certificate::fingerprint::content_digest(self.node.as_bytes());
        let seed = u64::from_be_bytes(std::array::from_fn(|index| seed[index]));
        self.slots = Some(Slots::new(&self.node, seed, self.timing, begun, now));
        if begun {
            self.work = Some(Work::new(true, now));
        }
    }

    /// The configuration has no `fleet` section (any more): a slot that is held is given back, and nobody is asked.
    fn leave(&mut self, now: Duration) {
        if !self.line.permit.set(PermitState::NotNeeded) {
            return;
        }
        self.work = None;
        self.feed(SlotEvent::Healthy, now);
        let rests = |slots: &Slots| matches!(slots.standing(), SlotStanding::Rest | SlotStanding::Halted);
        if self.slots.as_ref().is_some_and(rests) && self.request.is_none() {
            self.slots = None;
        }
        self.told = None;
        self.line.view.send_replace(None);
    }

    /// Is the node healthy after its restart?
    fn judge(&mut self, facts: &NodeFacts, settings: &FleetSettings, now: Duration) {
        let node = self.readiness();
        let Some(work) = self.work.as_mut().filter(|work| work.ended) else { return };
        let age = now.saturating_sub(work.since);
        let (lost, refuses) = (work.lost.clone(), facts.refuses.clone());
        let mut health = HealthFacts { sick: facts.sick.clone(), lost, node, refuses, age, wrong_for: Duration::ZERO };
        let is_cycle_new = self.facts_at > work.since && now.saturating_sub(self.facts_at) < FACTS_AGE;
        let is_seen = is_cycle_new && !self.object.is_older(NODE_PAUSE * 2, now);
        health.wrong_for = work.wrong_for(is_seen.then(|| health.is_wrong()), now);
        let end = match health.judge(settings.healthy_within) {
            // what was not looked at since the restart proves nothing, neither that the node is well nor that it is not
            _ if !is_seen => return self.watch_on(now),
            RestartHealth::NotYet(_) => return self.watch_on(now),
            RestartHealth::Healthy if age < WATCHED => return self.watch_on(now),
            RestartHealth::Healthy => {
                let restarted = facts.last_restart.as_ref().map(|last| last.time.to_string());
                tracing::info!(restarted, "the node is well after the restart of its runtime");
                SlotEvent::Healthy
            }
            RestartHealth::Unhealthy(why) if settings.halt_on_failure => {
                tracing::warn!(why, "the node is not healthy after its restart: the restarts of the fleet are halted");
                SlotEvent::Unhealthy(Halt::new(&self.node, &why, Time(facts.time)))
            }
            RestartHealth::Unhealthy(why) => {
                tracing::warn!(why, "the node is not healthy after its restart; haltOnFailure is false");
                SlotEvent::Healthy
            }
        };
        self.feed(end, now);
        self.work = None;
        self.line.permit.set(PermitState::not_asked());
        self.line.word.notify_one();
    }

    /// The node is watched on after its restart: a cycle looks at it now and then.
    fn watch_on(&mut self, now: Duration) {
        if let Some(work) = self.work.as_mut().filter(|work| now.saturating_sub(work.looked) >= WATCH_PAUSE) {
            work.looked = now;
            self.line.word.notify_one();
        }
        self.wake_at(now + WATCH_PAUSE);
    }

    /// Looks again at this time at the latest.
    fn wake_at(&mut self, at: Duration) {
        self.again = Some(self.again.map_or(at, |again| again.min(at)));
    }

    fn readiness(&self) -> NodeReadiness {
        let Some(object) = self.object.value.as_ref().filter(|_| !self.is_object_old) else {
            return NodeReadiness::Unknown;
        };
        match object.ready() {
            Some((true, _)) => NodeReadiness::Ready,
            Some((false, why)) => NodeReadiness::NotReady(why),
            None => NodeReadiness::Unknown,
        }
    }

    /// May this node restart now?
    fn ask(&mut self, facts: &NodeFacts, settings: &FleetSettings, now: Duration) {
        if !facts.wants_restart {
            self.feed(SlotEvent::Wish(SlotWish::Nothing), now);
            self.line.permit.set(PermitState::not_asked());
            self.told = None;
            self.is_open = false;
            return;
        }
        let hold_label = self.labels().and_then(|labels| labels.get(HOLD_LABEL)).cloned();
        let waits_for_canary = !settings.canary.is_empty() && !self.is_canary();
        let seed = format!("{} without the API server", self.node);
        let refuses = facts.refuses.as_ref().map(|host| format!("the runtime refuses {host}"));
        let Some(slots) = &self.slots else { return }; // joined before
        let gate = decide(&GateFacts {
            exempt: self.nothing_runs.value == Some(true) && !self.nothing_runs.is_older(UNSLOTTED, now),
            hold_label: hold_label.as_deref(),
            window: settings.window.as_ref().map(|window| window.state(crate::host::wall())),
            canary: waits_for_canary.then(|| self.canary.state(&facts.digest, settings.canary_soak, now)),
            slots,
            outage: OutageFacts {
                policy: settings.outage,
                timeout: settings.api_timeout,
                jitter: part_of(settings.api_timeout / OUTAGE_SPREAD, &seed),
                x509: refuses.as_deref(),
            },
            now,
        });
        match gate {
            FleetGate::Open(passage) => self.open(&passage, now),
            FleetGate::Held(held) => {
                self.is_open = false;
                self.feed(SlotEvent::Wish(held.wish), now);
                if let Some(again) = held.again {
                    self.wake_at(now + again.min(IDLE));
                }
                if matches!(held.reason, HoldReason::Window | HoldReason::NodeHeld) {
                    self.wake_at(now + NODE_PAUSE);
                }
                let reason = held.reason;
                let hold = Hold { reason, why: held.why, next: held.next, wait: None };
                self.line.permit.set(PermitState::Refused(hold));
                if self.told.replace(reason) != Some(reason) {
                    self.line.word.notify_one(); // so that the report says it
                }
            }
        }
    }

    /// Lets the next cycle restart.
    fn open(&mut self, passage: &Passage, now: Duration) {
        let until = match passage {
            Passage::Slot(_) => match self.slots.as_ref().and_then(|slots| slots.begin_before(now)) {
                Some(until) if !self.object.is_older(NODE_AGE, now) => until,
                _ => return, // the Node is read once more before
            },
            Passage::Exempt | Passage::Outage(_) => now + UNSLOTTED,
        };
        match passage {
            _ if self.is_open => {} // told already
            Passage::Slot(index) => tracing::info!(slot = index, "this node may restart its runtime now"),
            Passage::Exempt => tracing::info!("nothing runs on this node yet: its runtime is restarted without a slot"),
            Passage::Outage(why) => tracing::warn!("the runtime is restarted without a slot: {why}"),
        }
        let left = self.clock.real(until.saturating_sub(now));
        self.line.permit.set(PermitState::Granted(std::time::Instant::now() + left));
        self.wake_at(until);
        self.told = None;
        self.is_open = true;
        self.line.word.notify_one();
    }

    /// Publishes what the report says of the fleet.
    fn show(&mut self, now: Duration) {
        let view = self.slots.as_ref().and_then(|slots| FleetView::of(slots, &self.node, now));
        let is_halted = view.as_ref().is_some_and(|view| view.halted.is_some());
        self.line.view.send_replace(view);
        if is_halted != std::mem::replace(&mut self.is_halt_told, is_halted) {
            self.line.word.notify_one();
        }
    }
}
