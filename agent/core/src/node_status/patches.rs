//! The patches that make the Node object say what it should.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    annotation::ANNOTATION,
    condition::{CONDITION, Condition},
    object::NodeObject,
    taint::Taint,
};
use crate::{certificate::fingerprint::content_digest, time::Time};

/// First pause after a failure.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// What the Node object should say. What is None is not ours to say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Signals {
    /// The condition, and since when its status is what it is.
    pub condition: Option<(Condition, Time)>,
    /// The annotation's text.
    pub annotation: Option<String>,
    /// The startup taint that has done its work.
    pub done_with: Option<Taint>,
}

impl Signals {
    /// Whether the startup taint that has to go has another's name.
    pub fn takes_foreign_taint(&self) -> bool {
        self.done_with.as_ref().is_some_and(|taint| !taint.is_own())
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
