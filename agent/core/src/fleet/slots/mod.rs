//! The slots: how nodes agree, over the cluster's own Leases, that only so many of them restart at a time.
//!
//! A slot is a Lease. A node takes one by a compare-and-swap on its resourceVersion, reads all Leases again, and begins its restart only if that
//! list shows its own slot and no halt. It renews the slot while it is in use and clears it after. What is kept in mind:
//!
//! - Clocks of other nodes are never trusted. A slot has expired if *this* node has seen the same resourceVersion for the lease time and a
//!   margin, by its own clock. Its holder counts from the moment when it *sent* the write, so it stops before anybody takes over.
//! - A write whose answer is missing may have been carried out, or may still be. Nothing follows from it but a read. A slot that is ours
//!   without an acknowledged write gives no permission before a renewal has been acknowledged.
//! - A halt on any slot stops everybody who has not begun, and outlives every Lease.
//! - Many nodes that wait for one slot must not all write when it gets free: see [`timing`].
//!
//! [`Slots`] is the state of one node. [`Slots::step`] takes an event and a time and gives the request to be made, at most one at a time; it
//! does nothing else. The caller makes each request once and brings exactly one answer, [`SlotAnswer::Unknown`] after a time-out.

mod message;
mod sightings;
mod timing;

use std::time::Duration;

use self::{sightings::Sightings, timing::Lots};
pub use message::{SlotAnswer, SlotEvent, SlotRequest, SlotStanding, SlotWish};
pub use timing::SlotTiming;

use super::{
    lease::{FleetLeases, Halt, ResourceVersion, SlotChange, SlotHolder, SlotLease},
    limit::MAX_SLOTS,
};
use crate::certificate::name::sentence;

/// How often the pause after a list without an answer is doubled at most: to sixteen times.
const MAX_DOUBLINGS: u32 = 4;

/// What a node is doing with its restart.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum SlotWork {
    /// Nothing.
    Rest,
    /// It restarts, or has restarted and is not known to be healthy.
    Running,
    /// It is not healthy, and the halt is not written yet.
    Failed(Halt),
}

/// A slot that is ours as far as we know.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct HeldSlot {
    index: usize,
    version: ResourceVersion,
    /// Nobody takes it over before; zero if none of our writes was acknowledged since we found it.
    until: Duration,
    /// When it is to be renewed; a permission to begin ends there.
    renew_at: Duration,
    /// A consistent list, asked for after the last acknowledged write, showed it ours and nothing that speaks against a restart.
    confirmed: bool,
    /// Something speaks against a restart: it is given back.
    unfit: bool,
}

/// A request that is open.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct OpenRequest {
    request: SlotRequest,
    sent: Duration,
}

/// The slots as one node knows them. Times are of a clock of this node that never jumps and counts while it sleeps (CLOCK_BOOTTIME), since
/// any fixed moment.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Slots {
    node: String,
    timing: SlotTiming,
    lots: Lots,
    limit: usize,
    wish: SlotWish,
    work: SlotWork,
    hold: Option<HeldSlot>,
    open: Option<OpenRequest>,
    /// When the next request is to be made; None if only an event makes one due.
    due: Option<Duration>,
    /// Something may be ours, or may not: a consistent list comes before anything else.
    unsettled: bool,
    /// The last list showed a slot that we may take; we take it if the next list still does.
    offered: bool,
    /// A list is wanted for people.
    look: bool,
    /// The last list showed a halt of this node.
    halted: bool,
    /// The last list showed a halt of any node: it is looked at until it is over, so that nobody is told of it for longer.
    sees_halt: bool,
    /// No list has come since the start: a slot may be ours from before a crash, and is given back only once it is found.
    fresh: bool,
    /// The last list showed a further slot in our name, by a write that came late: it is given back too.
    another: bool,
    sightings: Sightings,
    seen: Option<FleetLeases>,
    unreachable: Option<(Duration, String)>,
    /// Lists in a row that brought no answer, as far as they lengthen the pause.
    unanswered: u32,
}

impl Slots {
    /// The state of a node that has just started, with one slot until it is told otherwise. `seed` differs from node to node. `begun`: by
    /// what the node has written down, a restart has begun and was not seen to end; the slot for it, if there is one, is ours again.
    pub fn new(node: &str, seed: u64, timing: SlotTiming, begun: bool, now: Duration) -> Self {
        let mut lots = Lots::new(seed);
        let due = if begun { now } else { now + lots.spread(timing) };
        Self {
            node: node.to_owned(),
            timing,
            lots,
            limit: 1,
            wish: SlotWish::Nothing,
            work: if begun { SlotWork::Running } else { SlotWork::Rest },
            hold: None,
            open: None,
            due: Some(due),
            unsettled: begun,
            offered: false,
            look: true,
            halted: false,
            sees_halt: false,
            fresh: true,
            another: false,
            sightings: Sightings::default(),
            seen: None,
            unreachable: None,
            unanswered: 0,
        }
    }

    /// Whether the restart may begin at this moment.
    pub fn may_begin(&self, now: Duration) -> bool {
        self.wish == SlotWish::Slot
            && self.work == SlotWork::Rest
            && self.hold.as_ref().is_some_and(|hold| hold.confirmed && !hold.unfit && now < hold.renew_at)
    }

    /// Until when the restart may begin, from this moment on; None if it may not.
    pub fn begin_before(&self, now: Duration) -> Option<Duration> {
        self.hold.as_ref().filter(|_| self.may_begin(now)).map(|hold| hold.renew_at)
    }

    /// When [`SlotEvent::Elapsed`] is to be sent; None while a request is open, and at rest.
    pub fn due(&self) -> Option<Duration> {
        if self.open.is_some() { None } else { self.due }
    }

    /// How many slots there are.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Where the node stands.
    pub fn standing(&self) -> SlotStanding {
        let held = self.hold.as_ref().map(|hold| hold.index);
        match (&self.work, held) {
            (SlotWork::Running | SlotWork::Failed(_), held) => SlotStanding::Works(held),
            (SlotWork::Rest, Some(held)) => SlotStanding::Holds(held),
            (SlotWork::Rest, None) if self.halted => SlotStanding::Halted,
            (SlotWork::Rest, None) if self.wish != SlotWish::Nothing => SlotStanding::Waiting,
            (SlotWork::Rest, None) => SlotStanding::Rest,
        }
    }

    /// The slot that this node holds, and until when nobody takes it over; None without one. Zero as long as none of our writes to it was
    /// acknowledged.
    pub fn held_until(&self) -> Option<(usize, Duration)> {
        self.hold.as_ref().map(|hold| (hold.index, hold.until))
    }

    /// The Leases as the last list showed them; None before the first.
    pub fn leases(&self) -> Option<&FleetLeases> {
        self.seen.as_ref()
    }

    /// The slots of the last list that somebody holds, this node or another, without those that have expired.
    pub fn in_use(&self, now: Duration) -> Vec<&SlotLease> {
        let slots = self.seen.iter().flat_map(|leases| &leases.slots);
        slots.filter(|slot| self.is_in_use(slot, now)).collect()
    }

    /// Since when the API server has not answered, and what went wrong first; None if it answered last.
    pub fn unreachable(&self) -> Option<(Duration, &str)> {
        self.unreachable.as_ref().map(|(since, why)| (*since, why.as_str()))
    }

    /// Takes an event at a time. Gives the request to be made now, if there is one; then none follows before its answer. Any event may bring
    /// one about.
    #[must_use = "the request is open until its answer is brought: it must be made"]
    pub fn step(&mut self, event: SlotEvent, now: Duration) -> Option<SlotRequest> {
        match event {
            SlotEvent::Elapsed => {}
            SlotEvent::Look => {
                self.look = true;
                self.due.get_or_insert(now);
            }
            SlotEvent::Limit(limit) => self.limit = limit.clamp(1, MAX_SLOTS),
            SlotEvent::Wish(wish) => self.want(wish, now),
            SlotEvent::Answered(answer) => {
                if let Some(write) = self.answered(answer, now) {
                    return self.send(write, now);
                }
            }
            SlotEvent::Began => {
                self.work = SlotWork::Running;
                self.due = if self.unsettled { Some(now) } else { self.hold.as_ref().map(|hold| hold.renew_at) };
            }
            SlotEvent::Healthy => self.end(SlotWork::Rest, now),
            SlotEvent::Unhealthy(halt) => {
                let halt = Halt { node: self.node.clone(), ..halt };
                self.end(SlotWork::Failed(halt), now);
            }
        }
        self.decide(now)
    }

    fn want(&mut self, wish: SlotWish, now: Duration) {
        if wish == self.wish {
            return;
        }
        self.wish = wish;
        self.offered = false;
        if self.hold.is_some() {
            self.due = Some(now);
        } else if wish != SlotWish::Nothing && !self.unsettled {
            self.due = Some(now + self.lots.spread(self.timing));
        }
    }

    fn end(&mut self, work: SlotWork, now: Duration) {
        self.work = work;
        self.wish = SlotWish::Nothing;
        self.offered = false;
        self.due = Some(now);
    }

    /// Whether it lists the Leases again and again.
    fn polls(&self) -> bool {
        self.work == SlotWork::Rest && (self.wish != SlotWish::Nothing || self.halted || self.sees_halt)
    }

    /// The request that is due, if none is open.
    fn decide(&mut self, now: Duration) -> Option<SlotRequest> {
        if self.open.is_some() || self.due.is_none_or(|due| now < due) {
            return None;
        }
        self.due = None;
        let request = if self.unsettled {
            Some(SlotRequest::List { consistent: true })
        } else if let Some(hold) = self.hold.clone() {
            self.with_slot(hold, now)
        } else {
            let lost = matches!(self.work, SlotWork::Failed(_));
            (lost || self.polls() || self.look).then_some(SlotRequest::List { consistent: lost })
        };
        self.send(request?, now)
    }

    fn send(&mut self, request: SlotRequest, now: Duration) -> Option<SlotRequest> {
        self.open = Some(OpenRequest { request: request.clone(), sent: now });
        Some(request)
    }

    /// What is due of a node that holds a slot.
    fn with_slot(&mut self, hold: HeldSlot, now: Duration) -> Option<SlotRequest> {
        let change = match &self.work {
            SlotWork::Failed(halt) => SlotChange::Halt(halt.clone()),
            SlotWork::Rest if self.wish != SlotWish::Slot || hold.unfit => SlotChange::Release,
            SlotWork::Rest | SlotWork::Running if now >= hold.renew_at => SlotChange::Renew { node: self.node.clone() },
            SlotWork::Rest if !hold.confirmed => return Some(SlotRequest::List { consistent: true }),
            SlotWork::Rest | SlotWork::Running => {
                self.due = Some(hold.renew_at);
                return None;
            }
        };
        Some(SlotRequest::Update { index: hold.index, expect: hold.version, change })
    }

    /// The answer to the open request. Gives the write that follows at once, if there is one.
    fn answered(&mut self, answer: SlotAnswer, now: Duration) -> Option<SlotRequest> {
        let OpenRequest { request, sent } = self.open.take()?;
        if let SlotAnswer::Unknown(why) = &answer {
            self.unreachable.get_or_insert_with(|| (now, sentence(why)));
        } else {
            self.unreachable = None;
        }
        match (request, answer) {
            (SlotRequest::List { consistent }, SlotAnswer::Listed(leases)) => {
                self.unanswered = 0;
                return self.listed(leases, consistent, now);
            }
            (SlotRequest::List { .. }, _) => {
                // a list that only people want is not tried again: while the API server is down, nodes at rest leave it alone
                let is_needed =
                    self.fresh || self.unsettled || self.hold.is_some() || self.work != SlotWork::Rest || self.polls();
                self.look &= is_needed;
                self.due = is_needed.then(|| now + self.pause());
            }
            (SlotRequest::Create { index, change } | SlotRequest::Update { index, change, .. }, answer) => match answer
            {
                SlotAnswer::Written(version) => self.written(index, change, version, sent, now),
                SlotAnswer::Conflict | SlotAnswer::NotFound => self.refused(index, &change, now),
                SlotAnswer::Listed(_) | SlotAnswer::Unknown(_) => {
                    self.unsettled = true;
                    self.due = Some(now + self.lots.retry(self.timing));
                }
            },
        }
        None
    }

    /// How long a list is not asked for again that nobody has answered. Of a node that holds no slot and does no work it doubles each time: a
    /// server that is slow because thousands ask it would stay so.
    fn pause(&mut self) -> Duration {
        let pause = self.lots.retry(self.timing);
        if self.hold.is_some() || self.work != SlotWork::Rest {
            return pause;
        }
        let doubled = pause * 2u32.pow(self.unanswered);
        self.unanswered = (self.unanswered + 1).min(MAX_DOUBLINGS);
        doubled
    }

    /// A write of ours was carried out.
    fn written(&mut self, index: usize, change: SlotChange, version: ResourceVersion, sent: Duration, now: Duration) {
        match change {
            SlotChange::Take { .. } | SlotChange::Renew { .. } => {
                let until = sent + self.timing.lease.saturating_sub(self.timing.margin);
                let renew_at = sent + self.timing.renew_after();
                self.hold = Some(HeldSlot { index, version, until, renew_at, confirmed: false, unfit: false });
                self.due = Some(now);
            }
            SlotChange::Halt(_) => {
                self.hold = None;
                self.work = SlotWork::Rest;
                self.halted = true;
                self.due = Some(now + self.lots.poll(self.timing));
            }
            SlotChange::Release | SlotChange::Resume => {
                self.hold = None;
                self.look |= self.another;
                self.due = Some(if self.another { now } else { now + self.lots.poll(self.timing) });
            }
        }
    }

    /// A write of ours was not carried out, since the Lease is another one than we knew.
    fn refused(&mut self, index: usize, change: &SlotChange, now: Duration) {
        self.sightings.forget(index);
        self.offered = false;
        if let SlotChange::Take { .. } = change {
            self.due = Some(now + self.lots.poll(self.timing));
        } else {
            self.unsettled = true;
            self.due = Some(now);
        }
    }

    /// The Leases are these. Gives the write that follows at once, if there is one.
    fn listed(&mut self, leases: FleetLeases, consistent: bool, now: Duration) -> Option<SlotRequest> {
        self.sightings.note(&leases.slots, now);
        (self.look, self.fresh) = (false, false);
        self.unsettled &= !consistent;
        self.sees_halt = leases.halts().next().is_some();
        self.halted = leases.halts().any(|(slot, halt)| halt.node == self.node || slot.is_held_by(&self.node));
        if self.halted && matches!(self.work, SlotWork::Failed(_)) {
            self.work = SlotWork::Rest; // the halt was written, though its answer was lost
        }
        self.find_own(&leases, consistent, now);
        let write = if self.hold.is_some() || self.unsettled {
            self.due = Some(now);
            None
        } else {
            self.without_slot(&leases, now)
        };
        self.seen = Some(leases);
        write
    }

    /// Compares what is ours as far as we know with a list.
    fn find_own(&mut self, leases: &FleetLeases, consistent: bool, now: Duration) {
        let known = self.hold.take();
        let is_ours = |slot: &&SlotLease| slot.halt.is_none() && slot.is_held_by(&self.node);
        let slot = match &known {
            Some(hold) => leases.slot(hold.index).filter(is_ours),
            None => None,
        };
        // a slot in our name that we know nothing of: from before a crash, or of a write that came late
        self.another = leases.slots.iter().filter(is_ours).count() > 1;
        let Some(slot) = slot.or_else(|| leases.slots.iter().find(is_ours)) else { return };
        let unfit = self.speaks_against(leases, slot.index, now);
        let same = known.filter(|hold| hold.index == slot.index && hold.version == slot.version);
        self.hold = Some(match same {
            Some(hold) => HeldSlot { confirmed: consistent, unfit, ..hold },
            None => HeldSlot {
                index: slot.index,
                version: slot.version.clone(),
                until: Duration::ZERO,
                renew_at: Duration::ZERO,
                confirmed: false,
                unfit,
            },
        });
    }

    /// What follows from a list that shows no slot of ours.
    fn without_slot(&mut self, leases: &FleetLeases, now: Duration) -> Option<SlotRequest> {
        let offered = std::mem::take(&mut self.offered);
        self.due = None;
        match &self.work {
            SlotWork::Running => None,
            SlotWork::Failed(halt) => Some(SlotRequest::halt(leases, halt.clone())),
            SlotWork::Rest => {
                let free = if self.wish == SlotWish::Slot { self.free_slot(leases, now) } else { None };
                if offered && free.is_some() {
                    return free;
                }
                self.offered = free.is_some();
                if self.offered {
                    self.due = Some(now + self.lots.delay(self.timing));
                } else if self.polls() {
                    self.due = Some(now + self.lots.poll(self.timing));
                }
                None
            }
        }
    }

    /// Whether a restart must not begin with this slot.
    fn speaks_against(&self, leases: &FleetLeases, index: usize, now: Duration) -> bool {
        let halted = leases.halts().next().is_some() || leases.pause().is_some();
        halted || index >= self.limit || self.count_in_use(leases, now) > self.limit
    }

    /// The request that takes a free slot, if there is one and nothing speaks against it.
    fn free_slot(&mut self, leases: &FleetLeases, now: Duration) -> Option<SlotRequest> {
        let halted = leases.halts().next().is_some() || leases.pause().is_some();
        if halted || self.count_in_use(leases, now) >= self.limit {
            return None;
        }
        let is_free = |index: &usize| leases.slot(*index).is_none_or(|slot| !self.is_in_use(slot, now));
        let free: Vec<usize> = (0..self.limit).filter(is_free).collect();
        let count = u64::try_from(free.len()).ok().filter(|count| *count > 0)?;
        let index = *free.get(usize::try_from(self.lots.draw() % count).ok()?)?;
        let node = self.node.clone();
        Some(match leases.slot(index) {
            Some(slot) => SlotRequest::Update {
                index,
                expect: slot.version.clone(),
                change: SlotChange::Take { node, transitions: slot.transitions.saturating_add(1) },
            },
            None => SlotRequest::Create { index, change: SlotChange::Take { node, transitions: 0 } },
        })
    }

    /// Slots in use, those beyond the limit too: they were taken when it was higher. A Lease there that nobody can read takes no slot away.
    fn count_in_use(&self, leases: &FleetLeases, now: Duration) -> usize {
        let counts = |slot: &&SlotLease| {
            let readable = !matches!(slot.holder, SlotHolder::Unreadable(_));
            (readable || slot.index < self.limit) && self.is_in_use(slot, now)
        };
        leases.slots.iter().filter(counts).count()
    }

    fn is_in_use(&self, slot: &SlotLease, now: Duration) -> bool {
        let expires = self.timing.lease + self.timing.margin;
        match &slot.holder {
            _ if slot.halt.is_some() => true,
            SlotHolder::Nobody => false,
            SlotHolder::Unreadable(_) => true,
            SlotHolder::Node(_) => !self.sightings.unchanged_for(slot, expires, now),
        }
    }
}

#[cfg(test)]
mod explored_forms;
#[cfg(test)]
mod explored_graph;
#[cfg(test)]
mod explored_world;
#[cfg(test)]
mod explorer_tests;
#[cfg(test)]
mod fleet_tests;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
