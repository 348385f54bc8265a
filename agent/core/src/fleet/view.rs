//! What a node's report says of its fleet.

use std::time::Duration;

use serde::Serialize;

use super::slots::Slots;

/// The fleet's restarts, as this node saw them last. It looks while it waits, restarts, or halts the fleet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FleetView {
    /// How many nodes may restart at once.
    pub slots: usize,
    /// How many do, as far as this node knows.
    pub slots_held: usize,
    /// Why all restarts are halted; None if they are not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub halted: Option<HaltView>,
    /// The text of the pause; None if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paused: Option<String>,
}

/// A halt of all restarts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HaltView {
    /// The node that is not healthy.
    pub node: String,
    /// What is wrong there.
    pub reason: String,
    /// Since when, by that node's clock.
    pub since: String,
    /// That node is this one.
    pub own: bool,
}

impl FleetView {
    /// What the slots of a node say; None before it has seen any list.
    pub fn of(slots: &Slots, node: &str, now: Duration) -> Option<Self> {
        let leases = slots.leases()?;
        // each node that halts the fleet says so itself, whoever was first
        let own = leases.halts().find(|(_, halt)| halt.node == node);
        let halted = own.or_else(|| leases.halts().next()).map(|(_, halt)| HaltView {
            node: halt.node.clone(),
            reason: halt.reason.clone(),
            since: halt.since.clone(),
            own: halt.node == node,
        });
        Some(Self {
            slots: slots.limit(),
            slots_held: slots.in_use(now).len(),
            halted,
            paused: leases.pause().map(str::to_owned),
        })
    }
}
