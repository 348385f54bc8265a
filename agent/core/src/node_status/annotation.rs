//! The annotation: a node's trust in a few hundred bytes, for those who look at a whole fleet.

use serde::{Deserialize, Serialize};

use crate::{
    ledger::AnchorState,
    report::{AnchorRow, ForeignRow, Report, StaleReason},
    runtime::trust::RuntimeState,
    time::Time,
};

/// Key of the annotation.
pub const ANNOTATION: &str = "nodetrust.io/status";
/// Longest annotation, in bytes.
pub const ANNOTATION_LIMIT: usize = 8 << 10;
/// Longest common name in it, in characters.
pub const NAME_LIMIT: usize = 48;

/// Most stale copies in it.
const STALE_LIMIT: usize = 5;
/// Longest path in it, in characters; of a longer one the end is there.
const PATH_LIMIT: usize = 128;

/// What the annotation says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    /// Version of this format: 1.
    pub v: u32,
    /// Digest of the set that should be trusted: what the sources want, and anchors in grace.
    pub desired: String,
    /// Digest of what the sources want alone; left out where it is the same, and in versions that did not know it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sources_digest: Option<String>,
    /// Digest of our anchors that are trusted.
    pub effective: String,
    /// The anchors, as many as fit: those that are not trusted first, then those that leave.
    pub anchors: Vec<AnchorMark>,
    /// How many more there are.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub more: usize,
    /// The runtime's process does not know what the bundle says.
    pub runtime_stale: bool,
    /// It is not known whether the runtime's process knows what the bundle says; left out where it is known.
    #[serde(default, skip_serializing_if = "is_false")]
    pub runtime_unknown: bool,
    /// Stale copies of CAs in files of others, the first few; left out where there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stale: Vec<StaleMark>,
    /// When the set in force last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
}

/// A stale copy of a CA in somebody else's file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StaleMark {
    /// The file.
    pub path: String,
    /// The first 16 digits of the certificate's fingerprint.
    pub fp16: String,
    /// What makes it stale.
    pub reason: StaleReason,
}

/// One anchor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AnchorMark {
    /// The first 16 digits of its fingerprint.
    pub fp16: String,
    /// Its common name, clipped; left out where there are too many anchors.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cn: String,
    /// Where it stands.
    pub state: AnchorState,
    /// It is in the extracted bundle; left out where it is.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub trusted: bool,
    /// End of validity.
    pub not_after: Time,
}

impl NodeStatus {
    /// What a report says in short.
    pub fn of(report: &Report) -> Self {
        let mut anchors: Vec<AnchorMark> = report.anchors.iter().map(mark).collect();
        // what leaves must not be cut off, since its removal is approved by this list; stable: the rest stays in the report's order
        anchors.sort_by_key(|mark| (mark.trusted, mark.state == AnchorState::Desired));
        Self {
            v: 1,
            desired: report.desired_digest.to_string(),
            sources_digest: Some(report.sources_digest)
                .filter(|digest| *digest != report.desired_digest)
                .map(|digest| digest.to_string()),
            effective: report.effective_digest.to_string(),
            anchors,
            more: 0,
            runtime_stale: report.runtime.as_ref().is_some_and(|runtime| runtime.stale),
            runtime_unknown: report.runtime_trust.state == RuntimeState::Unknown,
            stale: report.foreign.iter().filter_map(stale_mark).take(STALE_LIMIT).collect(),
            since: report.changed,
        }
    }

    /// The annotation's text, under [`ANNOTATION_LIMIT`]: first the names go, then the anchors that do not fit.
    pub fn text(mut self) -> String {
        let text = self.json();
        if text.len() < ANNOTATION_LIMIT {
            return text;
        }
        for anchor in &mut self.anchors {
            anchor.cn.clear();
        }
        let all = std::mem::take(&mut self.anchors);
        self.more = all.len();
        let mut room = ANNOTATION_LIMIT.saturating_sub(self.json().len() + 1);
        for anchor in all {
            let need = json(&anchor).len() + 1; // and a comma
            if need > room {
                break;
            }
            room -= need;
            self.more -= 1;
            self.anchors.push(anchor);
        }
        self.json()
    }

    /// Digest of what the sources want, without anchors in grace; None if the version that wrote it does not say.
    pub fn wanted_by_sources(&self) -> Option<&str> {
        let has_grace = self.anchors.iter().any(|mark| mark.state == AnchorState::Grace);
        self.sources_digest.as_deref().or((!has_grace).then_some(&self.desired))
    }

    /// Reads an annotation. None for what is no status of a version that we know.
    pub fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok().filter(|status: &Self| status.v == 1)
    }

    fn json(&self) -> String {
        json(self)
    }
}

fn mark(row: &AnchorRow) -> AnchorMark {
    AnchorMark {
        fp16: row.sha256.fp16(),
        cn: row.common_name.chars().take(NAME_LIMIT).collect(),
        state: row.state,
        trusted: row.trusted,
        not_after: row.not_after,
    }
}

fn stale_mark(row: &ForeignRow) -> Option<StaleMark> {
    let stale = row.stale?;
    let beyond = row.path.chars().count().saturating_sub(PATH_LIMIT);
    let path = row.path.chars().skip(beyond).collect();
    Some(StaleMark { path, fp16: stale.sha256.fp16(), reason: stale.reason })
}

/// These types are structures of strings, numbers and lists, which can always be written.
fn json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's form")]
fn is_true(value: &bool) -> bool {
    *value
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's form")]
fn is_false(value: &bool) -> bool {
    !*value
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's form")]
fn is_zero(value: &usize) -> bool {
    *value == 0
}
