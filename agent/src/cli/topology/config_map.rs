//! The ConfigMap of the approvals, through the API server: read, create, replace. Nothing else is written by `topology`.

use std::time::Duration;

use anyhow::anyhow;
use http_body_util::{BodyExt as _, Limited};
use hyper::{
    Method, Request, StatusCode,
    body::Bytes,
    header::{ACCEPT, CONTENT_TYPE, USER_AGENT},
};
use kube::client::Body;
use nodetrust_core::fleet::removal::{APPROVALS_CONFIG_MAP, APPROVALS_FILE, Approvals};
use serde_json::{Map, Value, json};

use super::cluster::{Cluster, causes, words_of_refusal};
use crate::kubernetes::USER_AGENT_NAME;

/// How long one call may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Largest answer, in bytes: etcd takes objects of 1.5 MiB.
const LIMIT: usize = 4 << 20;

/// The ConfigMap as it is.
pub(super) struct ApprovalsObject {
    /// The whole object; None if there is none yet.
    object: Option<Map<String, Value>>,
    /// What it says; a damaged one says nothing, and is replaced.
    pub(super) approvals: Approvals,
    /// Why it could not be read.
    pub(super) damaged: Option<String>,
}

/// What came of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WriteEnd {
    Written,
    /// Somebody else has written it meanwhile.
    Conflict,
}

impl Cluster {
    /// Reads the approvals.
    pub(super) async fn approvals(&self) -> anyhow::Result<ApprovalsObject> {
        let (status, body) = self.call(Method::GET, &self.approvals_path(), None, "read").await?;
        if status == StatusCode::NOT_FOUND {
            return Ok(ApprovalsObject { object: None, approvals: Approvals::default(), damaged: None });
        }
        if !status.is_success() {
            return Err(self.not_allowed(status, &body, "read"));
        }
        let object: Map<String, Value> = serde_json::from_slice(&body).map_err(|error| {
            anyhow!("failed to read {}: the answer is no ConfigMap: {error}", self.approvals_name())
        })?;
        let read =
            data_of(&object).get(APPROVALS_FILE).and_then(Value::as_str).map(|text| Approvals::parse(text.as_bytes()));
        let (approvals, damaged) = match read {
            None => (Approvals::default(), None),
            Some(Ok(approvals)) => (approvals, None),
            Some(Err(why)) => (Approvals::default(), Some(why)),
        };
        Ok(ApprovalsObject { object: Some(object), approvals, damaged })
    }

    /// Writes the approvals over what was read, if nobody else has written meanwhile.
    pub(super) async fn write_approvals(&self, over: ApprovalsObject, new: &Approvals) -> anyhow::Result<WriteEnd> {
        let (method, path, doing, mut object) = match over.object {
            Some(object) => (Method::PUT, self.approvals_path(), "replace", object),
            None => (Method::POST, self.config_maps_path(), "create", self.new_object()),
        };
        // the version that was read stays in the object, so that the server refuses it if there is a newer one
        let mut data = data_of(&object);
        data.insert(APPROVALS_FILE.to_owned(), new.text().into());
        object.insert("data".to_owned(), data.into());
        let (status, body) = self.call(method, &path, Some(object.into()), doing).await?;
        match status {
            StatusCode::CONFLICT => Ok(WriteEnd::Conflict),
            // it was deleted since it was read
            StatusCode::NOT_FOUND if doing == "replace" => Ok(WriteEnd::Conflict),
            status if status.is_success() => Ok(WriteEnd::Written),
            status => Err(self.not_allowed(status, &body, doing)),
        }
    }

    fn new_object(&self) -> Map<String, Value> {
        let metadata = json!({
            "name": APPROVALS_CONFIG_MAP, "namespace": self.namespace, "labels": {"app.kubernetes.io/name": "nodetrust"},
        });
        let fields = [("apiVersion", "v1".into()), ("kind", "ConfigMap".into()), ("metadata", metadata)];
        fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    fn config_maps_path(&self) -> String {
        format!("/api/v1/namespaces/{}/configmaps", self.namespace)
    }

    fn approvals_path(&self) -> String {
        format!("{}/{APPROVALS_CONFIG_MAP}", self.config_maps_path())
    }

    fn approvals_name(&self) -> String {
        format!("the ConfigMap {}/{APPROVALS_CONFIG_MAP}", self.namespace)
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
        doing: &str,
    ) -> anyhow::Result<(StatusCode, Bytes)> {
        let uri = if body.is_some() { format!("{path}?fieldManager=nodetrust") } else { path.to_owned() };
        let request = Request::builder()
            .method(method)
            .uri(uri)
            .header(ACCEPT, "application/json")
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, USER_AGENT_NAME);
        let bytes = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
        let request = request.body(Body::from(bytes))?;
        let what = self.approvals_name();
        let exchange = async {
            let response = self.client.send(request).await.map_err(|error| {
                anyhow!("failed to {doing} {what}: no answer from {}: {}", self.server, causes(&error))
            })?;
            let status = response.status();
            let body = Limited::new(response.into_body(), LIMIT).collect().await.map_err(|error| {
                anyhow!("failed to {doing} {what}: the answer of {} was cut off: {}", self.server, causes(&*error))
            })?;
            anyhow::Ok((status, body.to_bytes()))
        };
        tokio::time::timeout(PATIENCE, exchange).await.map_err(|_| {
            anyhow!("failed to {doing} {what}: {} gave no answer within {} s", self.server, PATIENCE.as_secs())
        })?
    }

    fn not_allowed(&self, status: StatusCode, body: &[u8], doing: &str) -> anyhow::Error {
        let advice = match status {
            StatusCode::FORBIDDEN if doing == "create" => {
                "manifests/components/approve-removals and the chart's `approveRemovals` create it; or have an administrator do it"
            }
            StatusCode::FORBIDDEN => "have an administrator allow get, create and update of that ConfigMap",
            StatusCode::UNAUTHORIZED => "log in again, or choose another --context",
            StatusCode::NOT_FOUND => "is there such a namespace? Name that of nodetrust with --namespace",
            _ => "try again",
        };
        let (what, code) = (self.approvals_name(), status.as_u16());
        anyhow!("failed to {doing} {what}: {} answers {code}{}; {advice}", self.server, words_of_refusal(body))
    }
}

/// The data of a ConfigMap.
fn data_of(object: &Map<String, Value>) -> Map<String, Value> {
    object.get("data").and_then(Value::as_object).cloned().unwrap_or_default()
}
