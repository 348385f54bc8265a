//! The graph of all states that an exploration reaches: each kept in 24 bytes, with its way back.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    hash::Hash,
    rc::Rc,
};

use super::{
    SlotRequest,
    explored_world::{Bounds, ModelNode, ModelStep, ModelWorld, NAMES},
    testing::SimulatedLeases,
};

/// Values that many states share, each kept once.
struct Interner<T> {
    ids: HashMap<Rc<T>, u32>,
    values: Vec<Rc<T>>,
}

impl<T: Hash + Eq> Interner<T> {
    fn new() -> Self {
        Self { ids: HashMap::new(), values: Vec::new() }
    }

    fn id(&mut self, value: T) -> u32 {
        if let Some(id) = self.ids.get(&value) {
            return *id;
        }
        let (id, value) = (u32::try_from(self.values.len()).unwrap(), Rc::new(value));
        self.values.push(Rc::clone(&value));
        self.ids.insert(value, id);
        id
    }
}

/// A [`ModelWorld`] in 24 bytes: its parts by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct CompactWorld {
    api: u32,
    nodes: [u32; NAMES.len()],
    late: u32,
    counts: [u8; 4],
}

/// The parts of all worlds.
struct WorldParts {
    apis: Interner<SimulatedLeases>,
    nodes: Interner<ModelNode>,
    late: Interner<Vec<SlotRequest>>,
}

impl WorldParts {
    fn new() -> Self {
        Self { apis: Interner::new(), nodes: Interner::new(), late: Interner::new() }
    }

    fn compact(&mut self, world: ModelWorld) -> CompactWorld {
        let ModelWorld { api, nodes, late, crashes, losses, late_left, failures } = world;
        let mut ids = [u32::MAX; NAMES.len()];
        for (id, node) in ids.iter_mut().zip(nodes) {
            *id = self.nodes.id(node);
        }
        let counts = [crashes, losses, late_left, failures];
        CompactWorld { api: self.apis.id(api), nodes: ids, late: self.late.id(late), counts }
    }

    fn world(&self, compact: CompactWorld) -> ModelWorld {
        let nodes = compact.nodes.iter().filter(|id| **id != u32::MAX);
        let [crashes, losses, late_left, failures] = compact.counts;
        ModelWorld {
            api: SimulatedLeases::clone(&self.apis.values[compact.api as usize]),
            nodes: nodes.map(|id| ModelNode::clone(&self.nodes.values[*id as usize])).collect(),
            late: self.late.values[compact.late as usize].to_vec(),
            crashes,
            losses,
            late_left,
            failures,
        }
    }
}

/// The explored graph: of each state its predecessors, and how it was reached first.
#[derive(Default)]
pub(super) struct ModelGraph {
    known: HashMap<CompactWorld, u32>,
    /// The state before, and which of its steps it was.
    pub(super) first: Vec<(u32, u8)>,
    pub(super) edges: Vec<(u32, u32)>,
    pub(super) done: Vec<u32>,
}

impl ModelGraph {
    pub(super) fn way_to(&self, mut state: u32, bounds: Bounds) -> Vec<ModelStep> {
        let mut chosen = Vec::new();
        while state != 0 {
            let (before, step) = self.first[state as usize];
            chosen.push(step);
            state = before;
        }
        let mut world = ModelWorld::new(bounds);
        let mut go = |chosen: u8| {
            let step = world.steps(bounds)[usize::from(chosen)];
            world.apply(step, bounds);
            step
        };
        chosen.into_iter().rev().map(&mut go).collect()
    }

    pub(super) fn explore(bounds: Bounds) -> Self {
        let (mut graph, mut parts) = (Self::default(), WorldParts::new());
        let start = parts.compact(ModelWorld::new(bounds));
        graph.known.insert(start, 0);
        graph.first.push((0, 0));
        let mut queue = VecDeque::from([(0, start)]);
        while let Some((from, compact)) = queue.pop_front() {
            let world = parts.world(compact);
            let mut picked = true;
            for (chosen, step) in (0..).zip(world.steps(bounds)) {
                if !picked && step.is_another_lot() {
                    continue; // the number picked nothing: it would be the same again
                }
                let mut next = world.clone();
                picked = next.apply(step, bounds);
                let (checked, is_done) = (next.check(bounds), next.is_done(bounds));
                let fresh = u32::try_from(graph.first.len()).unwrap();
                let compact = parts.compact(next);
                let to = match graph.known.entry(compact) {
                    Entry::Occupied(known) => *known.get(),
                    Entry::Vacant(vacant) => {
                        vacant.insert(fresh);
                        graph.first.push((from, chosen));
                        if let Err(why) = checked {
                            panic!("{why}: {:?}\n{:#?}", graph.way_to(fresh, bounds), parts.world(compact));
                        }
                        if is_done {
                            graph.done.push(fresh);
                        }
                        queue.push_back((fresh, compact));
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
    pub(super) fn dead_end(&self) -> Option<u32> {
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
