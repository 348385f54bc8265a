//! The Node object as far as it concerns us, and the patches that make it say what it should.

use std::{collections::BTreeMap, fmt, str::FromStr, time::Duration};

use serde::Deserialize;
use serde_json::{Value, json};

use super::{ANNOTATION, CONDITION, Signals};
use crate::{certificate::fingerprint::content_digest, time::Time};

/// First pause after a failure.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// What we read of a Node; everything else is passed over.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct NodeObject {
    /// Name, annotations, version.
    pub metadata: Metadata,
    /// Taints.
    #[serde(default)]
    pub spec: Spec,
    /// Conditions.
    #[serde(default)]
    pub status: Status,
}

/// A Node's metadata.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    /// Its name.
    pub name: String,
    /// Another for each object of the same name.
    #[serde(default)]
    pub uid: String,
    /// Another after each change.
    #[serde(default)]
    pub resource_version: String,
    /// Annotations.
    #[serde(default)]
    pub annotations: Option<BTreeMap<String, String>>,
}

/// A Node's spec.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Spec {
    /// Taints, with every field, since the list is written as a whole.
    #[serde(default)]
    pub taints: Option<Vec<Value>>,
}

/// A Node's status.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Status {
    /// Conditions.
    #[serde(default)]
    pub conditions: Option<Vec<NodeCondition>>,
}

/// A condition in a Node object.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeCondition {
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    #[serde(default)]
    pub status: String,
    /// Why.
    #[serde(default)]
    pub reason: String,
    /// Why, for people.
    #[serde(default)]
    pub message: String,
    /// Since when the status is what it is.
    #[serde(default)]
    pub last_transition_time: Option<String>,
}

impl NodeObject {
    /// Our condition.
    pub fn condition(&self) -> Option<&NodeCondition> {
        self.status.conditions.iter().flatten().find(|condition| condition.kind == CONDITION)
    }

    /// Our annotation.
    pub fn annotation(&self) -> Option<&str> {
        self.metadata.annotations.as_ref()?.get(ANNOTATION).map(String::as_str)
    }
}

/// A taint that a node starts with, `key[=value][:effect]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taint {
    key: String,
    value: Option<String>,
    effect: Option<String>,
}

/// A text that is not a taint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a taint: want key[=value][:effect], such as nodetrust.io/not-ready:NoSchedule")]
pub struct BadTaint(pub String);

impl Taint {
    /// Whether it has a name of ours. Others may be forbidden to the agent: the admission policy of the installation does that.
    pub fn is_own(&self) -> bool {
        self.key.starts_with(OWN)
    }

    /// Whether a taint of a Node is this one; what is not said here may be anything there.
    fn is(&self, taint: &Value) -> bool {
        let field = |name: &str| taint.get(name).and_then(Value::as_str).unwrap_or_default();
        field("key") == self.key
            && self.value.as_ref().is_none_or(|value| field("value") == value)
            && self.effect.as_ref().is_none_or(|effect| field("effect") == effect)
    }
}

impl FromStr for Taint {
    type Err = BadTaint;

    fn from_str(text: &str) -> Result<Self, BadTaint> {
        let bad = || BadTaint(text.to_owned());
        let (rest, effect) = match text.split_once(':') {
            Some((rest, effect)) => (rest, Some(effect)),
            None => (text, None),
        };
        let (key, value) = match rest.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (rest, None),
        };
        let (prefix, name) = key.rsplit_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let ends = |text: &str| {
            let edge = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
            edge(text.bytes().next()) && edge(text.bytes().last()) && text.bytes().all(inner) && text.len() <= 63
        };
        let domain =
            |text: &str| text.len() <= 253 && text.split('.').all(|part| ends(part) && !part.contains(['_', '.']));
        let fits = ends(name)
            && prefix.is_none_or(domain)
            && value.is_none_or(|value| value.is_empty() || ends(value))
            && effect.is_none_or(|effect| ["NoSchedule", "PreferNoSchedule", "NoExecute"].contains(&effect));
        let own = |text: Option<&str>| text.map(str::to_owned);
        fits.then(|| Self { key: key.to_owned(), value: own(value), effect: own(effect) }).ok_or_else(bad)
    }
}

impl fmt::Display for Taint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.key)?;
        self.value.iter().try_for_each(|value| write!(f, "={value}"))?;
        self.effect.iter().try_for_each(|effect| write!(f, ":{effect}"))
    }
}

/// One patch of the Node object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// What it is about, for logs.
    pub what: &'static str,
    /// The part of the object: `status`, or none.
    pub subresource: Option<&'static str>,
    /// The kind of patch.
    pub content_type: &'static str,
    /// The patch.
    pub patch: Value,
}

/// What a patch is about that takes the startup taint away.
pub const TAINT: &str = "startup taint";
/// How names of ours in the cluster begin.
const OWN: &str = "nodetrust.io/";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const MERGE: &str = "application/merge-patch+json";

/// The patches after which the object says what it should; none where it does already.
pub fn writes(signals: &Signals, node: &NodeObject, now: Time) -> Vec<Write> {
    let mut writes = Vec::new();
    if let Some((wanted, since)) = &signals.condition {
        let status = wanted.status.as_str();
        let is = node.condition();
        let same = is.is_some_and(|is| {
            (is.status.as_str(), is.reason.as_str(), &is.message) == (status, wanted.reason.as_str(), &wanted.message)
        });
        if !same {
            let kept = is.filter(|is| is.status == status).and_then(|is| is.last_transition_time.clone());
            // patches of this list are merged by `type`: other conditions stay as they are
            let patch = json!({"status": {"conditions": [{
                "type": CONDITION,
                "status": status,
                "reason": wanted.reason.as_str(),
                "message": wanted.message,
                "lastHeartbeatTime": now.to_string(),
                "lastTransitionTime": kept.unwrap_or_else(|| since.to_string()),
            }]}});
            writes.push(Write { what: "condition", subresource: Some("status"), content_type: STRATEGIC, patch });
        }
    }
    if let Some(text) = &signals.annotation
        && node.annotation() != Some(text)
    {
        let patch = json!({"metadata": {"annotations": {ANNOTATION: text}}});
        writes.push(Write { what: "annotation", subresource: None, content_type: MERGE, patch });
    }
    if let Some(taint) = &signals.done_with {
        let all: Vec<&Value> = node.spec.taints.iter().flatten().collect();
        let stay: Vec<&Value> = all.iter().filter(|known| !taint.is(known)).copied().collect();
        if stay.len() < all.len() {
            // the list is written as a whole: the version sees to it that nobody else's change gets lost
            let version = &node.metadata.resource_version;
            let patch = json!({"metadata": {"resourceVersion": version}, "spec": {"taints": stay}});
            writes.push(Write { what: TAINT, subresource: None, content_type: MERGE, patch });
        }
    }
    writes
}

/// How long to wait after so many failures in a row: doubling, at another time on each node.
pub fn pause(node: &str, failures: u32) -> Duration {
    let whole = FIRST_PAUSE.saturating_mul(2u32.saturating_pow(failures.saturating_sub(1).min(16))).min(LONGEST_PAUSE);
    let seed = content_digest(format!("{node}\n{failures}").as_bytes());
    let share = u32::from(u16::from_be_bytes([seed[0], seed[1]]));
    whole / 2 + (whole / 2) * share / u32::from(u16::MAX)
}
