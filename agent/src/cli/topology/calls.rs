//! One call to the API server, for a small object.

use std::time::Duration;

use anyhow::anyhow;
use http_body_util::{BodyExt as _, Limited};
use hyper::{
    Method, Request, StatusCode,
    body::Bytes,
    header::{ACCEPT, CONTENT_TYPE, USER_AGENT},
};
use kube::client::Body;
use serde_json::Value;

use super::cluster::{Cluster, causes};
use crate::kubernetes::USER_AGENT_NAME;

/// How long one call may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Largest answer, in bytes: etcd takes objects of 1.5 MiB, and a list of a thousand Leases has less than a kilobyte for each.
const LIMIT: usize = 4 << 20;

impl Cluster {
    /// Makes a call: a PATCH is a merge patch. `doing`: what it is for, such as `read the ConfigMap x`.
    ///
    /// # Errors
    /// If there is no whole answer. A refusal is an answer.
    pub(super) async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
        doing: &str,
    ) -> anyhow::Result<(StatusCode, Bytes)> {
        let uri = if body.is_some() { format!("{path}?fieldManager=nodetrust") } else { path.to_owned() };
        let kind = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
        let request = Request::builder()
            .method(method)
            .uri(uri)
            .header(ACCEPT, "application/json")
            .header(CONTENT_TYPE, kind)
            .header(USER_AGENT, USER_AGENT_NAME);
        let bytes = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
        let request = request.body(Body::from(bytes))?;
        let exchange = async {
            let response =
                self.client.send(request).await.map_err(|error| {
                    anyhow!("failed to {doing}: no answer from {}: {}", self.server, causes(&error))
                })?;
            let status = response.status();
            let body = Limited::new(response.into_body(), LIMIT).collect().await.map_err(|error| {
                anyhow!("failed to {doing}: the answer of {} was cut off: {}", self.server, causes(&*error))
            })?;
            anyhow::Ok((status, body.to_bytes()))
        };
        tokio::time::timeout(PATIENCE, exchange)
            .await
            .map_err(|_| anyhow!("failed to {doing}: {} gave no answer within {} s", self.server, PATIENCE.as_secs()))?
    }
}
