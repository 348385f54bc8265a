//! Explores every state that a small fleet can get into, over the very function that the agents run. See `explored_world` for what is
//! simulated.

use super::{
    Lots,
    explored_graph::ModelGraph,
    explored_world::{Bounds, EVEN, ODD},
};

#[expect(clippy::print_stderr, reason = "bounds and states are what a reader of an exploration wants to know")]
fn explore(bounds: Bounds) {
    let graph = ModelGraph::explore(bounds);
    eprintln!("{bounds:?}: {} states, {} steps, {} ends", graph.first.len(), graph.edges.len(), graph.done.len());
    assert!(!graph.done.is_empty());
    if let Some(state) = graph.dead_end() {
        panic!("no end can be reached after {:?}", graph.way_to(state, bounds));
    }
}

#[test]
fn two_nodes_never_restart_over_one_slot_and_always_can_finish_in_every_order_of_a_fault() {
    let bounds = Bounds { nodes: 2, slots: 1, lease: 2, crashes: 0, losses: 0, late: 0, failures: 0 };
    explore(Bounds { crashes: 1, ..bounds });
    explore(Bounds { losses: 1, lease: 1, ..bounds });
}

#[test]
#[ignore = "minutes: cargo test -p nodetrust-core --lib -- --ignored --nocapture in_every_order_of_several_faults"]
fn two_nodes_never_restart_over_one_slot_and_always_can_finish_in_every_order_of_several_faults() {
    let bounds = Bounds { nodes: 2, slots: 1, lease: 2, crashes: 0, losses: 0, late: 0, failures: 0 };
    explore(Bounds { losses: 2, ..bounds });
    explore(Bounds { crashes: 1, losses: 1, ..bounds });
    explore(Bounds { crashes: 1, late: 1, ..bounds });
    explore(Bounds { crashes: 2, failures: 1, ..bounds });
    explore(Bounds { losses: 1, late: 1, failures: 1, ..bounds });
    explore(Bounds { lease: 3, crashes: 1, losses: 1, ..bounds });
}

const THREE: Bounds = Bounds { nodes: 3, slots: 2, lease: 1, crashes: 0, losses: 0, late: 0, failures: 0 };

/// With optimisation 2 to 13 minutes and 1 to 2 GB each, the late request 46 minutes and 9 GB:
/// `cargo --config profile.dev.package.nodetrust-core.opt-level=3 test -p nodetrust-core --lib -- --ignored --nocapture --test-threads=1 three_nodes`
#[test]
#[ignore = "an hour without optimisation"]
fn three_nodes_never_restart_beyond_two_slots_and_always_can_finish() {
    explore(THREE);
}

#[test]
#[ignore = "hours without optimisation"]
fn three_nodes_never_restart_beyond_two_slots_and_always_can_finish_in_every_order_of_a_crash() {
    explore(Bounds { crashes: 1, ..THREE });
}

#[test]
#[ignore = "hours without optimisation"]
fn three_nodes_never_restart_beyond_two_slots_and_always_can_finish_in_every_order_of_a_loss() {
    explore(Bounds { losses: 1, ..THREE });
}

#[test]
#[ignore = "hours without optimisation"]
fn three_nodes_never_restart_beyond_two_slots_and_always_can_finish_in_every_order_of_a_late_request() {
    explore(Bounds { late: 1, ..THREE });
}

#[test]
#[ignore = "hours without optimisation"]
fn three_nodes_never_restart_beyond_two_slots_and_always_can_finish_in_every_order_of_a_failure() {
    explore(Bounds { failures: 1, ..THREE });
}

#[test]
fn the_two_seeds_pick_either_of_two_slots() {
    assert_eq!((Lots::new(EVEN).draw() % 2, Lots::new(ODD).draw() % 2), (0, 1));
}
