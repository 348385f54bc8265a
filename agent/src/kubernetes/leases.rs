//! The calls of a fleet's restart slots: the Leases of the agent's own namespace, its DaemonSet, and its Node.
//!
//! One client lasts as long as the node waits or works: a connection for each poll would cost the API server more than the polls.

use std::time::Duration;

use hyper::StatusCode;
use nodetrust_core::node_status::{NodeObject, REPORTER};
use serde::Deserialize;
use serde_json::Value;

use super::{
    api::Api,
    failure::{ApiFailure, FailureCause},
};

/// The DaemonSet of the shipped manifests, in the agent's own namespace.
const DAEMON_SET: &str = "nodetrust";
/// The variable that names the DaemonSet where it is called otherwise, as the chart sets it.
const DAEMON_SET_VARIABLE: &str = "NODETRUST_DAEMONSET";

/// A client for the calls of a fleet.
pub struct FleetApi {
    api: Api,
    /// `/apis/coordination.k8s.io/v1/namespaces/…/leases`
    leases: String,
    daemon_set: String,
}

/// What became of a write of a Lease.
#[derive(Debug)]
pub(crate) enum LeaseWritten {
    /// It was written, and is now this object.
    Written(Value),
    /// Somebody else was faster: the object has another version, or exists already.
    Conflict,
    /// There is no such object.
    NotFound,
}

/// A call of a fleet that failed, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FleetCallFailure {
    /// What failed, and why.
    pub text: String,
    /// What a person can do about it.
    pub next: String,
}

impl FleetCallFailure {
    /// There was no answer within this time.
    pub(crate) fn silence(limit: Duration) -> Self {
        let text = format!("no answer from the API server within {} ms", limit.as_millis());
        Self { text, next: "see that this node reaches the API server, and that the server is well".to_owned() }
    }
}

#[derive(Deserialize)]
struct LeaseList {
    #[serde(default)]
    items: Vec<Value>,
}

impl FleetApi {
    /// Makes a client, without any call.
    ///
    /// # Errors
    /// If the pod has no service account that can be used.
    pub fn new(node: &str) -> Result<Self, FleetCallFailure> {
        Api::new(node).map(Self::of).map_err(|failure| told(&failure))
    }

    /// Calls by a client that is there already, as this node and in this namespace.
    pub fn with(client: kube::Client, node: &str, namespace: &str) -> Self {
        let api = Api::with(client, node, namespace);
        Self::of(api)
    }

    fn of(api: Api) -> Self {
        let namespace = api.namespace();
        let leases = format!("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases");
        let name = daemon_set_name(std::env::var(DAEMON_SET_VARIABLE).ok());
        let daemon_set = format!("/apis/apps/v1/namespaces/{namespace}/daemonsets/{name}");
        Self { api, leases, daemon_set }
    }

    /// Every Lease of the namespace. `cached`: from the server's cache, which may be a moment old.
    pub(crate) async fn leases(&self, cached: bool) -> Result<Vec<Value>, FleetCallFailure> {
        let query = if cached { "?resourceVersion=0" } else { "" };
        let path = format!("{}{query}", self.leases);
        let list = self.api.get(&path).await.and_then(|body| read::<LeaseList>(&body));
        list.map(|list| list.items).map_err(|failure| told(&failure.while_trying_to("list the restart slots")))
    }

    /// Creates a Lease.
    pub(crate) async fn create(&self, lease: &Value) -> Result<LeaseWritten, FleetCallFailure> {
        let path = format!("{}?fieldManager={REPORTER}", self.leases);
        written(self.api.create(&path, lease).await)
    }

    /// Changes a Lease by a merge patch, if it still has the version that the patch names.
    pub(crate) async fn patch(&self, name: &str, patch: &Value) -> Result<LeaseWritten, FleetCallFailure> {
        let path = format!("{}/{name}?fieldManager={REPORTER}", self.leases);
        written(self.api.patch(&path, patch).await)
    }

    /// How many nodes the DaemonSet is for; None if it does not say.
    pub(crate) async fn nodes(&self) -> Result<Option<u32>, FleetCallFailure> {
        let answer = self.api.get(&self.daemon_set).await.and_then(|body| read::<Value>(&body));
        let set = answer.map_err(|failure| told(&failure.while_trying_to("read the agent's DaemonSet")))?;
        let count = set.pointer("/status/desiredNumberScheduled").and_then(Value::as_u64);
        Ok(count.and_then(|count| u32::try_from(count).ok()))
    }

    /// This node's Node, from the server's cache.
    pub(crate) async fn node(&self) -> Result<NodeObject, FleetCallFailure> {
        self.api.read(true).await.map_err(|failure| told(&failure))
    }
}

fn daemon_set_name(named: Option<String>) -> String {
    named.filter(|name| !name.is_empty()).unwrap_or_else(|| DAEMON_SET.to_owned())
}

fn written(answer: Result<Vec<u8>, ApiFailure>) -> Result<LeaseWritten, FleetCallFailure> {
    match answer.and_then(|body| read(&body)) {
        Ok(lease) => Ok(LeaseWritten::Written(lease)),
        Err(failure) => match failure.cause {
            FailureCause::Refused(StatusCode::CONFLICT) => Ok(LeaseWritten::Conflict),
            FailureCause::Refused(StatusCode::NOT_FOUND) => Ok(LeaseWritten::NotFound),
            _ => Err(told(&failure.while_trying_to("write a restart slot"))),
        },
    }
}

fn read<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, ApiFailure> {
    serde_json::from_slice(body)
        .map_err(|error| ApiFailure::of(FailureCause::Content, "the answer is not what was asked for", Some(&error)))
}

fn told(failure: &ApiFailure) -> FleetCallFailure {
    FleetCallFailure { text: failure.text.clone(), next: failure.next().into_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pod_may_say_which_daemon_set_it_is_of() {
        let names = [None, Some(String::new()), Some("edge-nodetrust".to_owned())].map(daemon_set_name);
        assert_eq!(names, ["nodetrust", "nodetrust", "edge-nodetrust"]);
    }
}
