//! The ConfigMap of the approvals, through the API server: read, create, replace. What else `topology` writes are halts that it ends: `leases`.

use anyhow::anyhow;
use hyper::{Method, StatusCode};
use nodetrust_core::fleet::removal::{APPROVALS_CONFIG_MAP, APPROVALS_FILE, Approvals};
use serde_json::{Map, Value, json};

use super::cluster::{Cluster, words_of_refusal};

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
        let (status, body) =
            self.call(Method::GET, &self.approvals_path(), None, &format!("read {}", self.approvals_name())).await?;
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
        let (status, body) =
            self.call(method, &path, Some(object.into()), &format!("{doing} {}", self.approvals_name())).await?;
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
