//! One decision: may this node restart its runtime now, and if not, why, and what a person can do.

use std::time::Duration;

use super::{
    canary::CanaryState,
    lease::{HALTED, PAUSE, SlotHolder, SlotLease, slot_name},
    slots::{SlotStanding, SlotWish, Slots},
    window::WindowState,
};
use crate::{certificate::name::sentence, runtime::services::HoldReason, text::plural, time::Time};

/// Label of a Node that holds its restarts, whatever its value.
pub const HOLD_LABEL: &str = "nodetrust.io/hold";
/// Nodes that are named in a text.
const NAMED: usize = 5;

/// `fleet.whenApiUnavailable`: what a node does that cannot reach the API server for `fleet.apiTimeout`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApiOutage {
    /// It waits on, unless pulls fail by x509 meanwhile: then the API server itself may be what cannot be pulled.
    Wait,
    /// It goes on.
    Proceed,
}

/// What is known of a node whose restart is due, and of its fleet.
#[derive(Debug, Clone)]
pub struct GateFacts<'a> {
    /// CRI lists no running container but ours and static pods, and none of them is etcd.
    pub exempt: bool,
    /// The value of the Node's label [`HOLD_LABEL`], as it was last read.
    pub hold_label: Option<&'a str>,
    /// The window; None if there is none.
    pub window: Option<WindowState>,
    /// The canary for which this node waits; None if it is one itself, or none is configured.
    pub canary: Option<CanaryState>,
    /// The slots.
    pub slots: &'a Slots,
    /// What happens while the API server cannot be reached.
    pub outage: OutageFacts<'a>,
    /// Now, by the clock that [`Slots`] goes by.
    pub now: Duration,
}

/// What a node does that cannot reach the API server.
#[derive(Debug, Clone)]
pub struct OutageFacts<'a> {
    /// What is configured.
    pub policy: ApiOutage,
    /// `fleet.apiTimeout`.
    pub timeout: Duration,
    /// What this node waits beyond it, so that not all go on at once: another time on each node.
    pub jitter: Duration,
    /// A witness or a pull of the kubelet has failed by x509 since the API server is out of reach: its words.
    pub x509: Option<&'a str>,
}

/// Whether the restart may be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FleetGate {
    /// Yes, now.
    Open(Passage),
    /// No.
    Held(FleetHold),
}

/// Why a restart may be made now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Passage {
    /// Nothing runs on the node that a restart could disturb.
    Exempt,
    /// The node holds this slot.
    Slot(usize),
    /// The API server has been out of reach for too long: in a sentence.
    Outage(String),
}

/// A restart that the fleet holds back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FleetHold {
    /// The reason.
    pub reason: HoldReason,
    /// The reason in a sentence.
    pub why: String,
    /// What a person can do; empty where waiting is enough.
    pub next: String,
    /// What the node wants of the slots meanwhile.
    pub wish: SlotWish,
    /// When to look again at the latest, from now; None if a change of the facts is enough.
    pub again: Option<Duration>,
}

/// Decides whether the restart may be made now.
///
/// A person's word for this node comes first. A node on which nothing runs needs no permission beyond that. The window is the node's own to
/// keep, so it holds without an API server too; what the Leases say comes last.
pub fn decide(facts: &GateFacts<'_>) -> FleetGate {
    if let Some(value) = facts.hold_label {
        let value = if value.is_empty() { String::new() } else { format!(": {}", sentence(value)) };
        let next = format!("take the label away when it may restart: kubectl label node NODE {HOLD_LABEL}-");
        let why = format!("the Node has the label {HOLD_LABEL}{value}");
        return held(HoldReason::NodeHeld, why, next, SlotWish::Nothing);
    }
    if facts.exempt {
        return FleetGate::Open(Passage::Exempt);
    }
    if let Some(WindowState::Closed { until }) = facts.window {
        return window_closed(until);
    }
    let slots = facts.slots;
    if let SlotStanding::Works(_) = slots.standing() {
        let why = "a restart of this node is not over yet";
        return held(HoldReason::Slot, why.into(), String::new(), SlotWish::Nothing);
    }
    if let Some(hold) = halted(slots).or_else(|| paused(slots)) {
        return FleetGate::Held(hold);
    }
    let held_slot = match slots.standing() {
        SlotStanding::Holds(index) if slots.may_begin(facts.now) => Some(index),
        _ => None,
    };
    // also with a slot in hand: the mark may have changed since it was taken
    if let Some(state) = &facts.canary
        && let Some(hold) = canary(state)
    {
        return outage(facts, slots, SlotWish::Watch).unwrap_or(FleetGate::Held(hold));
    }
    match held_slot {
        Some(index) => FleetGate::Open(Passage::Slot(index)),
        None => outage(facts, slots, SlotWish::Slot).unwrap_or_else(|| waiting(slots, facts.now)),
    }
}

fn held(reason: HoldReason, why: String, next: String, wish: SlotWish) -> FleetGate {
    FleetGate::Held(FleetHold { reason, why, next, wish, again: None })
}

fn window_closed(until: Option<i64>) -> FleetGate {
    let why = match until {
        Some(until) => format!("outside of the window, which opens at {}", Time(until)),
        None => "outside of the window, which does not open within a week".to_owned(),
    };
    held(HoldReason::Window, why, String::new(), SlotWish::Nothing)
}

fn halted(slots: &Slots) -> Option<FleetHold> {
    let (slot, halt) = slots.leases()?.halts().next()?;
    let node = if halt.node.is_empty() { "somebody".to_owned() } else { format!("node {}", halt.node) };
    let since = if halt.since.is_empty() { String::new() } else { format!(" since {}", halt.since) };
    Some(FleetHold {
        reason: HoldReason::Halted,
        why: sentence(&format!("all restarts are halted by {node}{since}: {}", halt.reason)),
        next: format!(
            "mend that node, then: nodetrust topology --resume; or take the annotation {HALTED} away from the Lease {}",
            slot_name(slot.index)
        ),
        wish: SlotWish::Slot,
        again: None,
    })
}

fn paused(slots: &Slots) -> Option<FleetHold> {
    let text = slots.leases()?.pause()?;
    let text = if text.is_empty() { String::new() } else { format!(": {text}") };
    Some(FleetHold {
        reason: HoldReason::Paused,
        why: format!("all restarts are paused{text}"),
        next: format!("take the annotation {PAUSE} away from the Lease {} when they may go on", slot_name(0)),
        wish: SlotWish::Slot,
        again: None,
    })
}

fn canary(state: &CanaryState) -> Option<FleetHold> {
    let (why, again) = match state {
        CanaryState::Passed => return None,
        CanaryState::Soaking(left) => {
            (format!("the canary is healthy with this set, and is watched for {} s more", left.as_secs()), Some(*left))
        }
        CanaryState::Other(digest) => {
            (format!("waiting for the canary, which is healthy with another set ({})", sentence(digest)), None)
        }
        CanaryState::Silent => ("waiting for the canary, which has said nothing yet".to_owned(), None),
    };
    let next = match again {
        Some(_) => "",
        None => {
            "see whether the Nodes of fleet.canarySelector are healthy: nodetrust topology; without them: topology --resume"
        }
    };
    Some(FleetHold { reason: HoldReason::Canary, why, next: next.into(), wish: SlotWish::Watch, again })
}

/// What follows if the API server cannot be reached; None if it can. `wish`: what the node wants of it when it can again.
fn outage(facts: &GateFacts<'_>, slots: &Slots, wish: SlotWish) -> Option<FleetGate> {
    let (since, why) = slots.unreachable()?;
    let OutageFacts { policy, timeout, jitter, x509 } = facts.outage;
    let (lasts, limit) = (facts.now.saturating_sub(since), timeout + jitter);
    let down = format!("the API server has not answered for {} s ({why})", lasts.as_secs());
    let left = limit.saturating_sub(lasts);
    match (policy, x509) {
        (ApiOutage::Proceed, _) if left.is_zero() => Some(FleetGate::Open(Passage::Outage(down))),
        (ApiOutage::Wait, Some(pull)) if left.is_zero() => {
            Some(FleetGate::Open(Passage::Outage(format!("{down}, and pulls fail meanwhile: {}", sentence(pull)))))
        }
        _ => {
            let then = match (policy, left.is_zero()) {
                (_, true) => "it goes on without it only if a pull fails by x509".to_owned(),
                (ApiOutage::Wait, false) => {
                    format!("in {} s it goes on without it if a pull has failed by x509", left.as_secs())
                }
                (ApiOutage::Proceed, false) => format!("in {} s it goes on without it", left.as_secs()),
            };
            Some(FleetGate::Held(FleetHold {
                reason: HoldReason::ApiUnavailable,
                why: format!("{down}; {then}"),
                next: "see whether the API server can be reached from this node, and whether the agent may list Leases"
                    .into(),
                wish,
                again: (!left.is_zero()).then_some(left),
            }))
        }
    }
}

fn waiting(slots: &Slots, now: Duration) -> FleetGate {
    let why = match slots.standing() {
        SlotStanding::Holds(index) => format!("slot {index} is taken, and is read once more before the restart"),
        _ => {
            let in_use = slots.in_use(now);
            let limit = slots.limit();
            format!("waiting for a slot: {} of {limit} in use{}", in_use.len(), holders(&in_use))
        }
    };
    held(HoldReason::Slot, why, String::new(), SlotWish::Slot)
}

/// The holders in brackets, some of them if there are many.
fn holders(slots: &[&SlotLease]) -> String {
    let name = |slot: &&SlotLease| match &slot.holder {
        SlotHolder::Node(node) => sentence(node),
        SlotHolder::Nobody => format!("{} without a holder", slot_name(slot.index)),
        SlotHolder::Unreadable(why) => format!("{}, which cannot be read: {why}", slot_name(slot.index)),
    };
    let mut names: Vec<String> = slots.iter().take(NAMED).map(name).collect();
    if slots.len() > NAMED {
        names.push(plural(slots.len() - NAMED, "other"));
    }
    if names.is_empty() { String::new() } else { format!(" ({})", names.join(", ")) }
}

#[cfg(test)]
#[path = "gate_tests.rs"]
mod tests;
