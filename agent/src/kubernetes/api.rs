//! The calls to the API server: few, small, and each over within [`PATIENCE`].

use std::{borrow::Cow, env, error::Error as _, path::Path, time::Duration};

use http_body_util::{BodyExt as _, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER, USER_AGENT},
};
use kube::client::{Body, ClientBuilder};
use nodetrust_core::node_status::{NodeEvent, NodeObject, REPORTER, Write};

use super::account::ACCOUNT;
use crate::{error::with_causes, host::threads};

/// How long one call may take, from the connection to the last byte.
const PATIENCE: Duration = Duration::from_secs(10);
/// Largest answer, in bytes: etcd takes objects of 1.5 MiB.
const LIMIT: usize = 4 << 20;
/// Longest text of an error that is quoted, in characters.
const SHOWN: usize = 400;

/// A call that failed.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    /// What and why.
    pub(super) text: String,
    /// Whose fault it seems to be.
    pub(super) cause: Cause,
    /// It is an event that could not be told, not the Node.
    pub(super) of_event: bool,
    /// It is a startup taint whose key is not one of ours.
    pub(super) of_foreign_taint: bool,
    /// What of the cluster's admission has refused it, for people.
    pub(super) denied_by: Option<String>,
    /// When the server wants to be asked again.
    pub(super) retry_after: Option<Duration>,
}

/// Whose fault a failure seems to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// The pod has no account that can be used.
    Account,
    /// Nobody answers.
    NoAnswer,
    /// The server refuses.
    Refused(StatusCode),
    /// It answers, and not what it was asked.
    Content,
}

/// A way to the API server, for the calls that are due together. Each has token and CA as they are now: both get renewed.
pub(super) struct Api {
    client: kube::Client,
    /// host and port
    server: String,
    node: String,
}

/// Whether this looks like a pod that was given its node's name and a token.
pub(crate) fn is_in_cluster() -> bool {
    let set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
    set("NODE_NAME") && set("KUBERNETES_SERVICE_HOST") && Path::new(ACCOUNT).join("token").exists()
}

impl Api {
    /// Gets ready, without any call. The server's address comes from the environment: no name is resolved.
    pub(super) fn new(node: &str) -> Result<Self, Failure> {
        let failure = |error: &dyn std::error::Error| {
            Failure::of(Cause::Account, "the pod's service account is not usable", Some(error))
        };
        let mut config = kube::Config::incluster_env().map_err(|error| failure(&error))?;
        // the library looks a name up on a thread, and ends the program if there is none
        let host = config.cluster_url.host().unwrap_or_default().trim_matches(['[', ']']);
        if host.parse::<std::net::IpAddr>().is_err() {
            threads::are_left().map_err(|error| {
                Failure::of(Cause::NoAnswer, "no thread can be started to look up the API server's name", Some(&error))
            })?;
        }
        config.connect_timeout = Some(PATIENCE);
        config.default_retry = false; // when to try again is decided by the caller
        let server = config.cluster_url.authority().map(ToString::to_string).unwrap_or_default();
        let builder = ClientBuilder::try_from(config).map_err(|error| failure(&error))?;
        Ok(Self { client: builder.build(), server, node: node.to_owned() })
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
        let path = format!("/api/v1/nodes/{}{subresource}?fieldManager={REPORTER}", self.node);
        let body = Some((write.content_type, write.patch.to_string()));
        let what = format!("write the Node's {}", write.what);
        self.object(&what, self.call(Method::PATCH, &path, body).await)
    }

    /// Sends an event. One that the server has already, from a try whose answer got lost, is as good.
    pub(super) async fn tell(&self, event: &NodeEvent) -> Result<(), Failure> {
        let body = Some(("application/json", event.object(&self.node).to_string()));
        let path = format!("/api/v1/namespaces/default/events?fieldManager={REPORTER}");
        match self.call(Method::POST, &path, body).await {
            Ok(_) => Ok(()),
            Err(failure) if failure.cause == Cause::Refused(StatusCode::CONFLICT) => Ok(()),
            Err(failure) => Err(Failure { of_event: true, ..failure.while_trying_to("send an event") }),
        }
    }

    fn object(&self, what: &str, answer: Result<Vec<u8>, Failure>) -> Result<NodeObject, Failure> {
        let node = answer.and_then(|body| {
            let node: NodeObject = serde_json::from_slice(&body)
                .map_err(|error| Failure::of(Cause::Content, "the answer is no Node", Some(&error)))?;
            if node.metadata.name == self.node {
                return Ok(node);
            }
            let text = format!("the answer is another object, `{}`", shown(&node.metadata.name));
            Err(Failure::of(Cause::Content, &text, None))
        });
        node.map_err(|failure| failure.while_trying_to(what))
    }

    async fn call(&self, method: Method, path: &str, body: Option<(&str, String)>) -> Result<Vec<u8>, Failure> {
        let mut request = Request::builder().method(method).uri(path).header(ACCEPT, "application/json");
        request = request.header(USER_AGENT, super::AGENT);
        let mut bytes = Vec::new();
        if let Some((content_type, text)) = body {
            request = request.header(CONTENT_TYPE, content_type);
            bytes = text.into_bytes();
        }
        let request = request
            .body(Body::from(bytes))
            .map_err(|error| Failure::of(Cause::Content, "the request cannot be made", Some(&error)))?;
        // the same words whatever was asked for: an outage is one piece of news
        let silence = format!("no answer from the API server at {}", self.server);
        let answer = tokio::time::timeout(PATIENCE, async {
            let response = self.client.send(request).await;
            // without what the library calls each of its layers
            receive(response.map_err(|error| Failure::of(Cause::NoAnswer, &silence, error.source()))?).await
        });
        answer.await.unwrap_or_else(|_| {
            let text = format!("{silence} within {} s", PATIENCE.as_secs());
            Err(Failure::of(Cause::NoAnswer, &text, None))
        })
    }
}

async fn receive(response: Response<Body>) -> Result<Vec<u8>, Failure> {
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
        return Err(Failure { retry_after, denied_by, ..Failure::of(Cause::Refused(status), &text, None) });
    }
    let body = body.map_err(|error| Failure::of(Cause::Content, "the answer was cut off", Some(error.as_ref())))?;
    Ok(body.to_bytes().to_vec())
}

/// The message of a `Status` object.
fn message(body: &[u8]) -> Option<String> {
    let status: serde_json::Value = serde_json::from_slice(body).ok()?;
    Some(status.get("message")?.as_str()?.to_owned())
}

/// What of a cluster's admission speaks in a message: a policy (validating/dispatcher.go of k8s.io/apiserver) or a webhook
/// (admission/plugin/webhook/errors/statuserror.go). None for every other refusal, such as a missing right.
fn denied_by(message: &str) -> Option<String> {
    let named = |what: &str, quote: char| {
        let name = message.split_once(&format!("{what} {quote}"))?.1.split(quote).next()?;
        Some(format!("the {what} `{}`", shown(name)))
    };
    if message.contains(" denied request") {
        return named("ValidatingAdmissionPolicy", '\'');
    }
    message.contains(" denied the request").then(|| named("admission webhook", '"')).flatten()
}

/// Reads bytes as the answer to a call that was refused, for tests/fuzz: what is said of it.
pub(super) fn reason(body: &[u8]) -> String {
    let message = message(body);
    let denied_by = message.as_deref().and_then(denied_by).unwrap_or_default();
    message.map(|message| format!(": {}{denied_by}", shown(&message))).unwrap_or_default()
}

/// What others send, fit for a log.
fn shown(text: &str) -> String {
    let text: String = text.chars().take(SHOWN).map(|c| if c.is_control() { ' ' } else { c }).collect();
    nodetrust_core::certificate::name::shown(&text)
}

impl Failure {
    /// A failure with every cause of it.
    pub(super) fn of(cause: Cause, what: &str, error: Option<&dyn std::error::Error>) -> Self {
        let text = with_causes(what, error);
        Self { text: shown(&text), cause, of_event: false, of_foreign_taint: false, denied_by: None, retry_after: None }
    }

    /// Whether the next call, whatever it is, would meet the same.
    pub(super) fn is_final(&self) -> bool {
        !matches!(self.cause, Cause::Refused(_))
    }

    /// Whether this is the same news as another, though maybe in other words: that nobody answers has many, and what is
    /// forbidden is met at each call.
    pub(super) fn is_as(&self, other: &Self) -> bool {
        let is_same_refusal = self.of_event == other.of_event && self.denied_by == other.denied_by;
        self.cause == other.cause && (self.cause == Cause::NoAnswer || is_same_refusal)
    }

    /// What a person can do about it.
    pub(super) fn next(&self) -> Cow<'static, str> {
        match (self.cause, &self.denied_by) {
            (Cause::Refused(_), Some(by)) if self.of_foreign_taint => format!(
                "{by} of the cluster forbids it. The policy of this installation lets the agent take away taints that begin with \
                 nodetrust.io/ only: give the taint such a name, in `kubernetes.startupTaint` and where nodes get it (the \
                 kubelet's registerWithTaints, the node template), or have the policy allow this one"
            )
            .into(),
            (Cause::Refused(_), Some(by)) => format!(
                "{by} of the cluster forbids it, in the words that it is quoted with: have it allow this, or switch it off under \
                 `kubernetes` in the configuration"
            )
            .into(),
            (cause, _) => cause.next().into(),
        }
    }

    fn while_trying_to(mut self, what: &str) -> Self {
        if self.cause != Cause::NoAnswer {
            self.text = format!("failed to {what}: {}", self.text);
        }
        self
    }
}

impl Cause {
    /// What a person can do about it.
    fn next(self) -> &'static str {
        match self {
            Self::Account => {
                "see that the pod has a ServiceAccount and its token mounted (automountServiceAccountToken)"
            }
            Self::NoAnswer => "see that this node reaches the API server, and that the server is well",
            Self::Refused(StatusCode::UNAUTHORIZED) => {
                "see that the pod's ServiceAccount exists; then delete the pod, so that it gets a new token"
            }
            Self::Refused(StatusCode::FORBIDDEN) => {
                "give the pod's ServiceAccount its rights: apply the Roles, the ClusterRole and the bindings of the installation"
            }
            Self::Refused(StatusCode::NOT_FOUND) => "see that NODE_NAME is what this node is called in the cluster",
            Self::Refused(StatusCode::CONFLICT) => {
                "others change this Node all the time: see who, by its managedFields; it is tried again"
            }
            Self::Refused(_) | Self::Content => "nothing is to be done on this node: look at the API server",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_by_who_has_refused() {
        let policy = "nodes \"a17\" is forbidden: ValidatingAdmissionPolicy 'nodetrust' with binding 'nodetrust' denied request: no";
        let webhook = "admission webhook \"nodes.corp.test\" denied the request: no";
        let silent = "admission webhook \"nodes.corp.test\" denied the request without explanation";
        for (message, by) in [
            (policy, Some("the ValidatingAdmissionPolicy `nodetrust`")),
            (webhook, Some("the admission webhook `nodes.corp.test`")),
            (silent, Some("the admission webhook `nodes.corp.test`")),
            ("nodes \"a17\" is forbidden: User \"x\" cannot patch resource \"nodes\" in API group \"\"", None),
            ("ValidatingAdmissionPolicy denied request", None),
            ("", None),
        ] {
            assert_eq!(denied_by(message).as_deref(), by, "{message}");
        }
        let of = |status, denied_by: Option<&str>, of_foreign_taint| {
            let failure = Failure::of(Cause::Refused(status), "no", None);
            Failure { denied_by: denied_by.map(str::to_owned), of_foreign_taint, ..failure }.next().into_owned()
        };
        for status in [StatusCode::UNPROCESSABLE_ENTITY, StatusCode::FORBIDDEN] {
            let taint = of(status, Some("the ValidatingAdmissionPolicy `x`"), true);
            assert!(
                taint.contains("`x`") && taint.contains("startupTaint") && taint.contains("nodetrust.io/"),
                "{taint}"
            );
            let other = of(status, Some("the ValidatingAdmissionPolicy `x`"), false);
            assert!(other.contains("`x`") && !other.contains("startupTaint") && !other.contains("Roles"), "{other}");
        }
        assert!(of(StatusCode::FORBIDDEN, None, true).contains("Roles"), "a missing right");
    }
}
