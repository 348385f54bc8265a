//! Equal worlds in the same form: times relative to now, versions by their age, nodes by what they are in.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::{
    explored_world::{Bounds, ModelNode, ModelWire, ModelWork, ModelWorld, NAMES, NOW, TICK},
    testing::SimulatedLeases,
    *,
};
use crate::fleet::lease::SlotHolder;

impl ModelWorld {
    /// Brings equal worlds to the same form.
    pub(super) fn normalise(&mut self, bounds: Bounds) {
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
}

impl ModelNode {
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
