//! A call to the API server that failed: whose fault it seems to be, and what a person can do.

use std::{borrow::Cow, time::Duration};

use hyper::StatusCode;

use crate::error::with_causes;

/// Longest text of an error that is quoted, in characters.
const SHOWN: usize = 400;

/// A call that failed.
#[derive(Debug, Clone)]
pub(super) struct ApiFailure {
    /// What failed, and why.
    pub(super) text: String,
    /// Whose fault it seems to be.
    pub(super) cause: FailureCause,
    /// The call was about an event, not about the Node.
    pub(super) of_event: bool,
    /// The call was to remove a startup taint whose key does not begin with `nodetrust.io/`.
    pub(super) of_foreign_taint: bool,
    /// The policy or webhook of the cluster's admission that refused it, in words.
    pub(super) denied_by: Option<String>,
    /// When the server wants to be asked again.
    pub(super) retry_after: Option<Duration>,
}

/// Whose fault a failure seems to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FailureCause {
    /// The pod has no account that can be used.
    Account,
    /// Nobody answers.
    NoAnswer,
    /// The server refuses.
    Refused(StatusCode),
    /// The answer is not what was asked for.
    Content,
}

/// The message of a `Status` object.
pub(super) fn message(body: &[u8]) -> Option<String> {
    let status: serde_json::Value = serde_json::from_slice(body).ok()?;
    Some(status.get("message")?.as_str()?.to_owned())
}

/// Which part of a cluster's admission a message is from: a policy (validating/dispatcher.go of k8s.io/apiserver) or a webhook
/// (admission/plugin/webhook/errors/statuserror.go). None for every other refusal, such as a missing right.
pub(super) fn denied_by(message: &str) -> Option<String> {
    let named = |what: &str, quote: char| {
        let name = message.split_once(&format!("{what} {quote}"))?.1.split(quote).next()?;
        Some(format!("the {what} `{}`", shown(name)))
    };
    if message.contains(" denied request") {
        return named("ValidatingAdmissionPolicy", '\'');
    }
    message.contains(" denied the request").then(|| named("admission webhook", '"')).flatten()
}

/// What an API server that refuses says in words, for tests/fuzz.
pub(crate) fn words_of_refusal(body: &[u8]) -> String {
    let message = message(body);
    let denied_by = message.as_deref().and_then(denied_by).unwrap_or_default();
    message.map(|message| format!(": {}{denied_by}", shown(&message))).unwrap_or_default()
}

/// What others send, made fit for a log.
pub(super) fn shown(text: &str) -> String {
    let text: String = text.chars().take(SHOWN).map(|c| if c.is_control() { ' ' } else { c }).collect();
    nodetrust_core::certificate::name::shown(&text)
}

impl ApiFailure {
    /// A failure with every cause of an error; a cause that repeats the text before it is left out.
    pub(super) fn of(cause: FailureCause, what: &str, error: Option<&dyn std::error::Error>) -> Self {
        let text = with_causes(what, error);
        Self { text: shown(&text), cause, of_event: false, of_foreign_taint: false, denied_by: None, retry_after: None }
    }

    /// Whether any other call would fail now for the same reason.
    pub(super) fn next_call_would_fail(&self) -> bool {
        !matches!(self.cause, FailureCause::Refused(_))
    }

    /// Whether the log has told this already with another failure. The words may differ: there are many for a server that does not
    /// answer.
    pub(super) fn is_same_news(&self, other: &Self) -> bool {
        let is_same_refusal = self.of_event == other.of_event && self.denied_by == other.denied_by;
        self.cause == other.cause && (self.cause == FailureCause::NoAnswer || is_same_refusal)
    }

    /// What a person can do about it.
    pub(super) fn next(&self) -> Cow<'static, str> {
        match (self.cause, &self.denied_by) {
            (FailureCause::Refused(_), Some(by)) if self.of_foreign_taint => format!(
                "{by} of the cluster forbids it. The policy of this installation lets the agent take away taints that begin with \
                 nodetrust.io/ only: give the taint such a name, in `kubernetes.startupTaint` and where nodes get it (the \
                 kubelet's registerWithTaints, the node template), or have the policy allow this one"
            )
            .into(),
            (FailureCause::Refused(_), Some(by)) => format!(
                "{by} of the cluster forbids it, in the words that it is quoted with: have it allow this, or switch it off under \
                 `kubernetes` in the configuration"
            )
            .into(),
            (cause, _) => cause.next().into(),
        }
    }

    pub(super) fn while_trying_to(mut self, what: &str) -> Self {
        if self.cause != FailureCause::NoAnswer {
            self.text = format!("failed to {what}: {}", self.text);
        }
        self
    }
}

impl FailureCause {
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
            let failure = ApiFailure::of(FailureCause::Refused(status), "no", None);
            ApiFailure { denied_by: denied_by.map(str::to_owned), of_foreign_taint, ..failure }.next().into_owned()
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
