//! Makes a member's calls: to the API server, and to the node's own runtime.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use nodetrust_core::{
    fleet::{
        exempt::runs_nothing,
        lease::{CANARY_LEASE, FleetLease, FleetLeases, ResourceVersion, slot_name},
        slots::{SlotAnswer, SlotRequest, SlotTiming},
    },
    time::MicroTime,
};
use serde_json::Value;

use super::call::{Caller, FleetAnswer, FleetCall};
use crate::{
    host::{self, root::HostRoot, threads},
    kubernetes::{FleetApi, FleetCallFailure, LeaseWritten, namespace},
    runtime::cri,
};

/// How long the runtime may take to list what runs.
const LISTING: Duration = Duration::from_secs(10);

/// Who makes a client of the API server.
pub type Connect = Box<dyn Fn() -> Result<FleetApi, FleetCallFailure> + Send + Sync>;

/// Calls the API server, with one client as long as it answers, and the runtime of a host.
pub struct ClusterCaller {
    connect: Connect,
    api: Option<Arc<FleetApi>>,
    timing: SlotTiming,
    /// None: nobody looks whether anything runs on the node
    root: Option<Arc<HostRoot>>,
    /// The last failure that the log was told.
    told: Option<FleetCallFailure>,
}

impl ClusterCaller {
    /// A caller that makes its clients so. Without a host nobody looks whether anything runs there.
    pub fn new(connect: Connect, timing: SlotTiming, root: Option<Arc<HostRoot>>) -> Self {
        Self { connect, api: None, timing, root, told: None }
    }

    async fn make(&mut self, call: FleetCall) -> FleetAnswer {
        match call {
            FleetCall::Slot(request) => {
                let timing = self.timing;
                let answer = self.ask(|api| async move { carry_out(&api, request, timing).await }).await;
                FleetAnswer::Slot(answer.unwrap_or_else(|failure| SlotAnswer::Unknown(failure.text)))
            }
            FleetCall::Node => {
                FleetAnswer::Node(self.ask(|api| async move { api.node().await }).await.ok().map(Box::new))
            }
            FleetCall::Count => {
                FleetAnswer::Count(self.ask(|api| async move { api.nodes().await }).await.ok().flatten())
            }
            FleetCall::Mark(mark, version) => {
                let body = version.as_ref().map_or_else(|| mark.object(), |version| mark.patch(version));
                let write = |api: Arc<FleetApi>| async move {
                    if version.is_some() { api.patch(CANARY_LEASE, &body).await } else { api.create(&body).await }
                };
                let written = self.ask(write).await;
                FleetAnswer::Mark(mark, matches!(written, Ok(LeaseWritten::Written(_))))
            }
            FleetCall::Workload(socket) => FleetAnswer::Workload(self.nothing_runs(socket).await),
        }
    }

    /// Asks the API server. No call takes longer than a sixth of a slot's lease, so that a holder has tries left before it runs out.
    async fn ask<T, F>(&mut self, call: impl FnOnce(Arc<FleetApi>) -> F + Send) -> Result<T, FleetCallFailure>
    where
        F: Future<Output = Result<T, FleetCallFailure>> + Send,
    {
        let limit = self.timing.lease / 6;
        let result = match self.api.take().map_or_else(|| (self.connect)().map(Arc::new), Ok) {
            Ok(api) => match tokio::time::timeout(limit, call(api.clone())).await {
                Ok(Ok(answer)) => {
                    self.api = Some(api);
                    Ok(answer)
                }
                // a refusal may be cured by another token, an outage by another connection
                Ok(Err(failure)) => Err(failure),
                Err(_) => Err(FleetCallFailure::silence(limit)),
            },
            Err(failure) => Err(failure),
        };
        match &result {
            Ok(_) if self.told.take().is_some() => tracing::info!("the API server answers the fleet's calls again"),
            Ok(_) => {}
            Err(failure) if self.told.as_ref().is_some_and(|told| told.next == failure.next) => {}
            Err(failure) => {
                tracing::warn!(
                    error = failure.text,
                    next = failure.next,
                    "the fleet cannot be asked; it is tried again"
                );
                self.told = Some(failure.clone());
            }
        }
        result
    }

    /// Whether nothing runs on the node; false where that cannot be told.
    async fn nothing_runs(&self, socket: String) -> bool {
        let Some(root) = self.root.clone() else { return false };
        let Some(namespace) = namespace() else { return false };
        let containers = threads::beside(move || cri::workload(&root, &socket, LISTING)).await;
        matches!(containers, Ok(Ok(containers)) if runs_nothing(&containers, &namespace))
    }
}

impl Caller for ClusterCaller {
    fn call(&mut self, call: FleetCall) -> Pin<Box<dyn Future<Output = FleetAnswer> + Send + '_>> {
        Box::pin(self.make(call))
    }
}

async fn carry_out(api: &FleetApi, request: SlotRequest, timing: SlotTiming) -> Result<SlotAnswer, FleetCallFailure> {
    let now = MicroTime(host::wall_milliseconds().saturating_mul(1000));
    match request {
        SlotRequest::List { consistent } => {
            let items = api.leases(!consistent).await?;
            Ok(SlotAnswer::Listed(FleetLeases::read(&items)))
        }
        SlotRequest::Create { index, change } => {
            let object = change.object(index, timing.lease_seconds(), now);
            api.create(&object).await.map(|written| answer(&written))
        }
        SlotRequest::Update { index, expect, change } => {
            let patch = change.patch(&expect, timing.lease_seconds(), now);
            api.patch(&slot_name(index), &patch).await.map(|written| answer(&written))
        }
    }
}

fn answer(written: &LeaseWritten) -> SlotAnswer {
    match written {
        LeaseWritten::Conflict => SlotAnswer::Conflict,
        LeaseWritten::NotFound => SlotAnswer::NotFound,
        LeaseWritten::Written(lease) => match version(lease) {
            Some(version) => SlotAnswer::Written(version),
            None => SlotAnswer::Unknown("the answer to a write is no slot".to_owned()),
        },
    }
}

fn version(lease: &Value) -> Option<ResourceVersion> {
    match FleetLease::read(lease) {
        FleetLease::Slot(slot) => Some(slot.version),
        FleetLease::Canary(_) | FleetLease::Foreign => None,
    }
}
