//! The calls to the API server: few, small, and each over within [`PATIENCE`].

use std::{env, path::Path, time::Duration};

use http_body_util::{BodyExt as _, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER},
};
use kube::client::{Body, ClientBuilder};
use nodetrust_core::node::{Event, NodeObject, Write};

/// How long one call may take, from the connection to the last byte.
const PATIENCE: Duration = Duration::from_secs(10);
/// Largest answer, in bytes: etcd takes objects of 1.5 MiB.
const LIMIT: usize = 4 << 20;
/// Longest text of an error that is quoted, in characters.
const SHOWN: usize = 200;
/// Where a pod finds its token and the API server's CA.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// A call that failed.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    /// What and why.
    pub(super) text: String,
    /// What the server answered, if it did.
    pub(super) status: Option<StatusCode>,
    /// When it wants to be asked again.
    pub(super) retry_after: Option<Duration>,
}

/// A way to the API server, for the calls that are due together. Each has token and CA as they are now: both get renewed.
pub(super) struct Api {
    client: kube::Client,
    node: String,
}

/// Whether this looks like a pod that was given its node's name and a token.
pub(super) fn is_in_cluster() -> bool {
    let set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
    set("NODE_NAME") && set("KUBERNETES_SERVICE_HOST") && Path::new(ACCOUNT).join("token").exists()
}

impl Api {
    /// Gets ready, without any call. The server's address comes from the environment: no name is resolved.
    pub(super) fn new(node: &str) -> Result<Self, Failure> {
        let failure = |error: &dyn std::error::Error| Failure::of("the pod's service account is not usable", error);
        let mut config = kube::Config::incluster_env().map_err(|error| failure(&error))?;
        config.connect_timeout = Some(PATIENCE);
        config.default_retry = false; // when to try again is decided by the caller
        let builder = ClientBuilder::try_from(config).map_err(|error| failure(&error))?;
        Ok(Self { client: builder.build(), node: node.to_owned() })
    }

    /// Reads our Node; `cached` takes what the server has at hand, which costs it nothing and may be a moment old.
    pub(super) async fn read(&self, cached: bool) -> Result<NodeObject, Failure> {
        let query = if cached { "?resourceVersion=0" } else { "" };
        let path = format!("/api/v1/nodes/{}{query}", self.node);
        self.object("read the Node", self.call(Method::GET, &path, None).await)
    }

    /// Patches our Node, and returns it as it is now.
    pub(super) async fn write(&self, write: &Write) -> Result<NodeObject, Failure> {
        let subresource = write.subresource.map(|part| format!("/{part}")).unwrap_or_default();
        let path = format!("/api/v1/nodes/{}{subresource}", self.node);
        let body = Some((write.content_type, write.patch.to_string()));
        let what = format!("write the Node's {}", write.what);
        self.object(&what, self.call(Method::PATCH, &path, body).await)
    }

    /// Sends an event. One that the server has already, from a try whose answer got lost, is as good.
    pub(super) async fn tell(&self, event: &Event) -> Result<(), Failure> {
        let body = Some(("application/json", event.object(&self.node).to_string()));
        match self.call(Method::POST, "/api/v1/namespaces/default/events", body).await {
            Ok(_) => Ok(()),
            Err(failure) if failure.status == Some(StatusCode::CONFLICT) => Ok(()),
            Err(failure) => Err(failure.while_trying_to("send an event")),
        }
    }

    fn object(&self, what: &str, answer: Result<Vec<u8>, Failure>) -> Result<NodeObject, Failure> {
        let node = answer.and_then(|body| {
            let node: NodeObject =
                serde_json::from_slice(&body).map_err(|error| Failure::of("the answer is no Node", &error))?;
            if node.metadata.name == self.node {
                return Ok(node);
            }
            Err(Failure::new(format!("the answer is another object, `{}`", shown(&node.metadata.name))))
        });
        node.map_err(|failure| failure.while_trying_to(what))
    }

    async fn call(&self, method: Method, path: &str, body: Option<(&str, String)>) -> Result<Vec<u8>, Failure> {
        let mut request = Request::builder().method(method).uri(path).header(ACCEPT, "application/json");
        let mut bytes = Vec::new();
        if let Some((content_type, text)) = body {
            request = request.header(CONTENT_TYPE, content_type);
            bytes = text.into_bytes();
        }
        let request =
            request.body(Body::from(bytes)).map_err(|error| Failure::of("the request cannot be made", &error))?;
        let answer = tokio::time::timeout(PATIENCE, async {
            let response = self.client.send(request).await.map_err(|error| Failure::of("no answer", &error))?;
            receive(response).await
        });
        answer.await.unwrap_or_else(|_| Err(Failure::new(format!("no answer within {} s", PATIENCE.as_secs()))))
    }
}

async fn receive(response: Response<Body>) -> Result<Vec<u8>, Failure> {
    let status = response.status();
    let seconds = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    let body = Limited::new(response.into_body(), LIMIT).collect().await;
    if !status.is_success() {
        let body = body.map(|body| body.to_bytes()).unwrap_or_default();
        let text = format!("the API server answers {}{}", status.as_u16(), reason(&body));
        return Err(Failure { text, status: Some(status), retry_after: seconds.map(Duration::from_secs) });
    }
    let body = body.map_err(|error| Failure::of("the answer was cut off", error.as_ref()))?;
    Ok(body.to_bytes().to_vec())
}

/// The message of a `Status` object.
fn reason(body: &[u8]) -> String {
    let status: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let message = status.as_ref().and_then(|status| status.get("message")?.as_str());
    message.map(|message| format!(": {}", shown(message))).unwrap_or_default()
}

/// What others send, fit for a log.
fn shown(text: &str) -> String {
    text.chars().take(SHOWN).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

impl Failure {
    pub(super) fn new(text: String) -> Self {
        Self { text, status: None, retry_after: None }
    }

    /// With every cause; causes that repeat the sentence before are left out.
    fn of(what: &str, error: &dyn std::error::Error) -> Self {
        let mut text = format!("{what}: {error}");
        let mut cause = error.source();
        while let Some(error) = cause {
            let more = error.to_string();
            if !text.contains(&more) {
                text.push_str(": ");
                text.push_str(&more);
            }
            cause = error.source();
        }
        Self::new(shown(&text))
    }

    fn while_trying_to(mut self, what: &str) -> Self {
        self.text = format!("failed to {what}: {}", self.text);
        self
    }
}
