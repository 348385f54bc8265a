//! What a member of a fleet asks, and what is answered.

use std::{future::Future, pin::Pin};

use nodetrust_core::{
    fleet::{
        lease::{CanaryMark, ResourceVersion},
        slots::{SlotAnswer, SlotRequest},
    },
    node_status::NodeObject,
};

/// What is to be called next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FleetCall {
    /// A request of the slots' protocol.
    Slot(SlotRequest),
    /// The Node.
    Node,
    /// The number of nodes.
    Count,
    /// The canary's mark, on the Lease of this version, or on a new one.
    Mark(CanaryMark, Option<ResourceVersion>),
    /// Whether anything runs on this node, asked of the runtime at this socket.
    Workload(String),
}

/// What came of a call.
#[derive(Debug)]
pub enum FleetAnswer {
    /// To a request of the slots' protocol.
    Slot(SlotAnswer),
    /// The Node; None if it could not be read.
    Node(Option<Box<NodeObject>>),
    /// The number of nodes; None if it could not be read.
    Count(Option<u32>),
    /// The canary's mark, and whether it was written.
    Mark(CanaryMark, bool),
    /// Whether nothing runs on the node.
    Workload(bool),
}

/// Makes the calls of a member.
pub trait Caller: Send {
    /// Makes a call, which ends by itself, and says what came of it.
    fn call(&mut self, call: FleetCall) -> Pin<Box<dyn Future<Output = FleetAnswer> + Send + '_>>;
}
