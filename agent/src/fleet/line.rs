//! What the fleet's task shares with the agent's loop.

use std::sync::Arc;

use nodetrust_core::fleet::view::FleetView;
use tokio::sync::{Notify, watch};

use super::{
    facts::NodeFacts,
    permit::{PermitState, RestartPermit},
};
use crate::config::FleetSettings;

/// What the fleet's task shares with the agent's loop.
#[derive(Debug, Clone)]
pub struct FleetLine {
    /// Whether this node may restart now.
    pub permit: Arc<RestartPermit>,
    /// Notified when a cycle is worth running: the permit was given, the reason of a hold is another one, or the node is watched.
    pub word: Arc<Notify>,
    /// What the report says of the fleet.
    pub view: Arc<watch::Sender<Option<FleetView>>>,
}

impl FleetLine {
    /// Before the first cycle, by the `fleet` section of the configuration.
    pub fn at_start(settings: Option<&FleetSettings>) -> Self {
        let permit = Arc::new(RestartPermit::new(PermitState::at_start(settings)));
        Self { permit, word: Arc::default(), view: Arc::new(watch::channel(None).0) }
    }
}

/// What the fleet's task follows.
#[derive(Debug, Clone)]
pub struct FleetInputs {
    /// The `fleet` section of the configuration.
    pub settings: watch::Receiver<Option<FleetSettings>>,
    /// What the last cycle has found.
    pub facts: watch::Receiver<Option<NodeFacts>>,
}
