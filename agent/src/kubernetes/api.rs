//! The calls to the API server: few, small, and each over within [`PATIENCE`].

use std::{error::Error as _, time::Duration};

use http_body_util::{BodyExt as _, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER, USER_AGENT},
};
use kube::client::{Body, ClientBuilder};
use nodetrust_core::node_status::{NodeEvent, NodeObject, REPORTER, Write};
use serde_json::Value;

use super::failure::{ApiFailure, FailureCause, denied_by, message, shown};
use crate::host::threads;

/// How long one call may take, from the connection to the last byte.
const PATIENCE: Duration = Duration::from_secs(10);
/// Largest answer, in bytes: etcd takes objects of 1.5 MiB.
const LIMIT: usize = 4 << 20;
/// How every request names the program.
pub(crate) const USER_AGENT_NAME: &str = concat!("nodetrust/", env!("CARGO_PKG_VERSION"));

/// A client of the API server, for one round of calls. It reads token and CA when it is made: both get renewed.
pub(super) struct Api {
    client: kube::Client,
    /// host and port
    server: String,
    node: String,
    /// in which the pod runs
    namespace: String,
}

impl Api {
    /// Makes a client, without any call.
    pub(super) fn new(node: &str) -> Result<Self, ApiFailure> {
        let failure = |error: &dyn std::error::Error| {
            ApiFailure::of(FailureCause::Account, "the pod's service account is not usable", Some(error))
        };
        let mut config = kube::Config::incluster_env().map_err(|error| failure(&error))?;
        // The library looks names up on a thread, and ends the program if it cannot start one.
        let host = config.cluster_url.host().unwrap_or_default().trim_matches(['[', ']']);
        if host.parse::<std::net::IpAddr>().is_err() {
            threads::are_left().map_err(|error| {
                ApiFailure::of(
                    FailureCause::NoAnswer,
                    "no thread can be started to look up the API server's name",
                    Some(&error),
                )
            })?;
        }
        config.connect_timeout = Some(PATIENCE);
        config.default_retry = false; // when to try again is decided by the caller
        let server = config.cluster_url.authority().map(ToString::to_string).unwrap_or_default();
        let namespace = config.default_namespace.clone();
        let builder = ClientBuilder::try_from(config).map_err(|error| failure(&error))?;
        Ok(Self { client: builder.build(), server, node: node.to_owned(), namespace })
    }

    /// Calls by a client that is there already.
    pub(super) fn with(client: kube::Client, node: &str, namespace: &str) -> Self {
        Self { client, server: "the API server".to_owned(), node: node.to_owned(), namespace: namespace.to_owned() }
    }

    /// The namespace in which the pod runs.
    pub(super) fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Reads an object by its path and query.
    pub(super) async fn get(&self, path: &str) -> Result<Vec<u8>, ApiFailure> {
        self.call(Method::GET, path, None).await
    }

    /// Creates an object.
    pub(super) async fn create(&self, path: &str, object: &Value) -> Result<Vec<u8>, ApiFailure> {
        self.call(Method::POST, path, Some(("application/json", object.to_string()))).await
    }

    /// Changes an object by a merge patch (RFC 7386). One that names a resourceVersion is refused (409) if the object has changed since.
    pub(super) async fn patch(&self, path: &str, patch: &Value) -> Result<Vec<u8>, ApiFailure> {
        self.call(Method::PATCH, path, Some(("application/merge-patch+json", patch.to_string()))).await
    }

    /// Reads our Node. `cached`: from the server's cache, which spares etcd and may be a moment old.
    pub(super) async fn read(&self, cached: bool) -> Result<NodeObject, ApiFailure> {
        let query = if cached { "?resourceVersion=0" } else { "" };
        let path = format!("/api/v1/nodes/{}{query}", self.node);
        self.object("read the Node", self.call(Method::GET, &path, None).await)
    }

    /// Patches our Node, and returns it as it is now.
    pub(super) async fn write(&self, write: &Write) -> Result<NodeObject, ApiFailure> {
        let subresource = write.subresource.map(|part| format!("/{part}")).unwrap_or_default();
        let path = format!("/api/v1/nodes/{}{subresource}?fieldManager={REPORTER}", self.node);
        let body = Some((write.content_type, write.patch.to_string()));
        let what = format!("write the Node's {}", write.what);
        self.object(&what, self.call(Method::PATCH, &path, body).await)
    }

    /// Sends an event. That the server has it already is no error: the answer to an earlier try was lost.
    pub(super) async fn tell(&self, event: &NodeEvent) -> Result<(), ApiFailure> {
        let body = Some(("application/json", event.object(&self.node).to_string()));
        let path = format!("/api/v1/namespaces/default/events?fieldManager={REPORTER}");
        match self.call(Method::POST, &path, body).await {
            Ok(_) => Ok(()),
            Err(failure) if failure.cause == FailureCause::Refused(StatusCode::CONFLICT) => Ok(()),
            Err(failure) => Err(ApiFailure { of_event: true, ..failure.while_trying_to("send an event") }),
        }
    }

    fn object(&self, what: &str, answer: Result<Vec<u8>, ApiFailure>) -> Result<NodeObject, ApiFailure> {
        let node = answer.and_then(|body| {
            let node: NodeObject = serde_json::from_slice(&body)
                .map_err(|error| ApiFailure::of(FailureCause::Content, "the answer is no Node", Some(&error)))?;
            if node.metadata.name == self.node {
                return Ok(node);
            }
            let text = format!("the answer is another object, `{}`", shown(&node.metadata.name));
            Err(ApiFailure::of(FailureCause::Content, &text, None))
        });
        node.map_err(|failure| failure.while_trying_to(what))
    }

    async fn call(&self, method: Method, path: &str, body: Option<(&str, String)>) -> Result<Vec<u8>, ApiFailure> {
        let mut request = Request::builder().method(method).uri(path).header(ACCEPT, "application/json");
        request = request.header(USER_AGENT, USER_AGENT_NAME);
        let mut bytes = Vec::new();
        if let Some((content_type, text)) = body {
            request = request.header(CONTENT_TYPE, content_type);
            bytes = text.into_bytes();
        }
        let request = request
            .body(Body::from(bytes))
            .map_err(|error| ApiFailure::of(FailureCause::Content, "the request cannot be made", Some(&error)))?;
        // The same text for every call, so that an outage is logged once.
        let silence = format!("no answer from the API server at {}", self.server);
        let answer = tokio::time::timeout(PATIENCE, async {
            let response = self.client.send(request).await;
            // Without the names that the library gives its layers.
            receive(response.map_err(|error| ApiFailure::of(FailureCause::NoAnswer, &silence, error.source()))?).await
        });
        answer.await.unwrap_or_else(|_| {
            let text = format!("{silence} within {} s", PATIENCE.as_secs());
            Err(ApiFailure::of(FailureCause::NoAnswer, &text, None))
        })
    }
}

async fn receive(response: Response<Body>) -> Result<Vec<u8>, ApiFailure> {
    let status = response.status();
    let seconds = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    let body = Limited::new(response.into_body(), LIMIT).collect().await;
    if !status.is_success() {
        let body = body.map(|body| body.to_bytes()).unwrap_or_default();
        let message = message(&body);
        let said = message.as_ref().map(|message| format!(": {}", shown(message))).unwrap_or_default();
        let text = format!("the API server answers {}{said}", status.as_u16());
        let retry_after = seconds.map(Duration::from_secs);
        let denied_by = message.as_deref().and_then(denied_by);
        return Err(ApiFailure {
            retry_after,
            denied_by,
            ..ApiFailure::of(FailureCause::Refused(status), &text, None)
        });
    }
    let body =
        body.map_err(|error| ApiFailure::of(FailureCause::Content, "the answer was cut off", Some(error.as_ref())))?;
    Ok(body.to_bytes().to_vec())
}
