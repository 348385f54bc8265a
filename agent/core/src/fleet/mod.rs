//! The fleet: when this node may restart its runtime, with respect to the others.
//!
//! In: the Leases of the cluster, the time by this node's own clock, and facts about this node. Out: requests to the API server, and one
//! decision with its reason. [`slots`] is the protocol, [`gate`] puts everything that holds a restart together; [`removal`] says which removals
//! the fleet has approved.

pub mod canary;
pub mod exempt;
pub mod gate;
pub mod health;
pub mod lease;
pub mod limit;
pub mod removal;
pub mod selector;
pub mod slots;
pub mod view;
pub mod window;
