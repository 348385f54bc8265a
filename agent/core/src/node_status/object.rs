//! The Node object, as far as it is read.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::{annotation::ANNOTATION, condition::CONDITION};

/// What we read of a Node; everything else is passed over.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct NodeObject {
    /// Name, annotations, version.
    pub metadata: ObjectMetadata,
    /// Taints.
    #[serde(default)]
    pub spec: ObjectSpec,
    /// Conditions.
    #[serde(default)]
    pub status: ObjectStatus,
}

/// A Node's metadata.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectMetadata {
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
    /// Labels.
    #[serde(default)]
    pub labels: Option<BTreeMap<String, String>>,
}

/// A Node's spec.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct ObjectSpec {
    /// Taints, with every field, since the list is written as a whole.
    #[serde(default)]
    pub taints: Option<Vec<Value>>,
}

/// A Node's status.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct ObjectStatus {
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
    /// The reason in one word.
    #[serde(default)]
    pub reason: String,
    /// The reason in a sentence.
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

    /// Whether the kubelet calls the node Ready, and in which words; None if the Node does not say.
    pub fn ready(&self) -> Option<(bool, String)> {
        let condition = self.status.conditions.iter().flatten().find(|condition| condition.kind == "Ready")?;
        let words = if condition.message.is_empty() { &condition.reason } else { &condition.message };
        Some((condition.status == "True", words.clone()))
    }

    /// Our annotation.
    pub fn annotation(&self) -> Option<&str> {
        self.metadata.annotations.as_ref()?.get(ANNOTATION).map(String::as_str)
    }
}
