//! The API server of the tests: the Leases of the fleet and what a request does to them.

use super::{
    super::lease::{FleetLeases, ResourceVersion, SlotChange, SlotHolder, SlotLease},
    SlotAnswer, SlotRequest,
};

/// Leases with the compare-and-swap of the API server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct SimulatedLeases {
    pub(super) leases: FleetLeases,
    pub(super) versions: u64,
}

impl SimulatedLeases {
    /// Carries out a request.
    pub(super) fn execute(&mut self, request: &SlotRequest) -> SlotAnswer {
        match request {
            SlotRequest::List { .. } => SlotAnswer::Listed(self.leases.clone()),
            SlotRequest::Create { index, change } => {
                if self.leases.slot(*index).is_some() {
                    return SlotAnswer::Conflict;
                }
                let slot = SlotLease {
                    index: *index,
                    version: ResourceVersion(String::new()),
                    holder: SlotHolder::Nobody,
                    transitions: 0,
                    halt: None,
                    pause: None,
                    acquired: None,
                };
                self.leases.slots.push(slot);
                self.leases.slots.sort_by_key(|slot| slot.index);
                self.change(*index, change)
            }
            SlotRequest::Update { index, expect, change } => match self.leases.slot(*index) {
                None => SlotAnswer::NotFound,
                Some(slot) if slot.version != *expect => SlotAnswer::Conflict,
                Some(_) => self.change(*index, change),
            },
        }
    }

    /// What the patches and objects of [`SlotChange`] do, see the tests of `lease`.
    fn change(&mut self, index: usize, change: &SlotChange) -> SlotAnswer {
        self.versions += 1;
        let version = ResourceVersion(self.versions.to_string());
        let slot = self.leases.slots.iter_mut().find(|slot| slot.index == index).unwrap();
        slot.version = version.clone();
        match change {
            SlotChange::Take { node, transitions } => {
                assert_eq!(slot.halt, None, "nobody takes a slot with a halt");
                slot.holder = SlotHolder::Node(node.clone());
                slot.transitions = *transitions;
            }
            SlotChange::Renew { node } => slot.holder = SlotHolder::Node(node.clone()),
            SlotChange::Release => {
                assert_eq!(slot.halt, None, "nobody releases a slot with a halt");
                slot.holder = SlotHolder::Nobody;
            }
            SlotChange::Halt(halt) => {
                slot.holder = SlotHolder::Node(halt.node.clone());
                slot.halt = Some(halt.clone());
            }
            SlotChange::Resume => slot.halt = None,
        }
        SlotAnswer::Written(version)
    }
}
