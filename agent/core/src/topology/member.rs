//! A node as the API server shows it, and its annotation, which anybody may have written who can patch nodes.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::{fleet::FindingKind, template::template_of};
use crate::node_status::{ANNOTATION, ANNOTATION_LIMIT, NodeObject, NodeStatus};

/// A node, as the API server shows it.
#[derive(Debug, Clone, Default)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Its condition `Ready`; None if it has none.
    pub ready: Option<bool>,
    /// Its condition [`crate::node_status::CONDITION`], if it has one.
    pub trust_ready: Option<TrustReady>,
    /// Its annotation [`crate::node_status::ANNOTATION`], if it has one.
    pub annotation: Option<String>,
    /// The template or group from which it was made, as `KEY=VALUE`, if something on its Node tells.
    pub template: Option<String>,
}

/// The condition that the agent sets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustReady {
    /// Its status is `True`.
    pub holds: bool,
    /// Its reason.
    pub reason: String,
}

impl Member {
    /// What concerns us of a Node.
    pub fn of(mut node: NodeObject) -> Self {
        let conditions = node.status.conditions.as_deref().unwrap_or_default();
        let ready = conditions.iter().find(|condition| condition.kind == "Ready").map(|ready| ready.status == "True");
        let trust_ready = node
            .condition()
            .map(|condition| TrustReady { holds: condition.status == "True", reason: condition.reason.clone() });
        let template = template_of(&node.metadata);
        let annotation = node.metadata.annotations.as_mut().and_then(|annotations| annotations.remove(ANNOTATION));
        Self { name: node.metadata.name, ready, trust_ready, annotation, template }
    }
}

/// Reads an annotation that anybody may have written who can patch nodes.
pub(super) fn read(text: &str) -> Result<NodeStatus, (FindingKind, &'static str)> {
    #[derive(Deserialize)]
    struct FormatVersion {
        v: u64,
    }
    if text.len() > ANNOTATION_LIMIT {
        return Err((FindingKind::Unreadable, "it is larger than the agent makes it"));
    }
    let Some(status) = NodeStatus::parse(text) else {
        return Err(match serde_json::from_str(text) {
            Ok(FormatVersion { v }) if v != 1 => (FindingKind::OtherVersion, ""),
            _ => (FindingKind::Unreadable, "it is not the JSON that the agent writes"),
        });
    };
    let digits = |text: &str, count: usize| {
        text.len() == count && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let names: BTreeSet<&str> = status.anchors.iter().map(|anchor| anchor.fp16.as_str()).collect();
    let sound = digits(&status.desired, 64)
        && digits(&status.effective, 64)
        && status.sources_digest.as_deref().is_none_or(|digest| digits(digest, 64))
        && names.len() == status.anchors.len()
        && names.iter().all(|name| digits(name, 16));
    if sound { Ok(status) } else { Err((FindingKind::Unreadable, "its digests are not what the agent writes")) }
}
