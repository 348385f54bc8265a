//! What goes into the protocol of a node, and what comes out: events, requests, answers.

use super::super::lease::{FleetLeases, Halt, ResourceVersion, SlotChange, SlotHolder};

/// What happens to a node, as far as slots are concerned.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SlotEvent {
    /// Time has passed: to be sent at [`Slots::due`](super::Slots::due), or any time.
    Elapsed,
    /// The caller wants a list of the Leases soon, for people.
    Look,
    /// How many slots there are from now on: [`RestartLimit::slots`](super::super::limit::RestartLimit::slots).
    Limit(usize),
    /// What the node wants of the slots from now on.
    Wish(SlotWish),
    /// The answer to the request that is open.
    Answered(SlotAnswer),
    /// The restart begins now. [`Slots::may_begin`](super::Slots::may_begin) was true at this very moment; or the restart needs no slot.
    Began,
    /// The restart has ended: the runtime is healthy, or the fleet need not be halted for it. The wish is [`SlotWish::Nothing`] from here on.
    Healthy,
    /// The restart has ended, the runtime is not healthy, and this is to be said to the fleet.
    Unhealthy(Halt),
}

/// What a node wants of the slots. The last wish counts; one that is repeated changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SlotWish {
    /// Nothing: no restart is due, or something else than the fleet holds it back. A slot that is held and not used is given back.
    Nothing,
    /// To learn when the fleet lets it go on, such as while it waits for the canary: it lists the Leases and takes none.
    Watch,
    /// A slot: a restart is due and nothing else holds it back.
    Slot,
}

/// What is to be asked of the API server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SlotRequest {
    /// All Leases of the namespace.
    List {
        /// The list must be of now (no `resourceVersion`). Otherwise the API server's cache is enough (`resourceVersion=0`).
        consistent: bool,
    },
    /// Creates the Lease of a slot: [`SlotChange::object`].
    Create {
        /// The slot.
        index: usize,
        /// What it holds.
        change: SlotChange,
    },
    /// Changes the Lease of a slot if it still has that version: [`SlotChange::patch`].
    Update {
        /// The slot.
        index: usize,
        /// The version on which the change was decided.
        expect: ResourceVersion,
        /// The change.
        change: SlotChange,
    },
}

/// How the API server answered.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SlotAnswer {
    /// The list.
    Listed(FleetLeases),
    /// The write was carried out; the object has this version now.
    Written(ResourceVersion),
    /// 409 `Conflict` on an update, or `AlreadyExists` on a creation: somebody else was faster.
    Conflict,
    /// 404: there is no such Lease.
    NotFound,
    /// No answer in time, or any other error, with its text: the request may have been carried out, or may be still.
    Unknown(String),
}

/// Where a node stands, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotStanding {
    /// It wants nothing and holds nothing.
    Rest,
    /// It waits for a slot, or watches.
    Waiting,
    /// It holds this slot, and has not begun.
    Holds(usize),
    /// It restarts; None if it does not hold its slot (any more), or needed none.
    Works(Option<usize>),
    /// Its own halt stops the fleet, until a person takes it away.
    Halted,
}

impl SlotRequest {
    /// Writes a halt where it takes no slot away from anybody: the first slot that nobody holds, whether it is within the limit or not.
    pub(super) fn halt(leases: &FleetLeases, halt: Halt) -> Self {
        let mut index = 0;
        let change = SlotChange::Halt(halt);
        while let Some(slot) = leases.slot(index) {
            if slot.holder == SlotHolder::Nobody && slot.halt.is_none() {
                return Self::Update { index, expect: slot.version.clone(), change };
            }
            index += 1;
        }
        Self::Create { index, change }
    }
}
