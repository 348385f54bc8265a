//! Removals that wait for the fleet: `rotation.removalGate: fleet`.
//!
//! `nodetrust topology --approve-removal` writes an approval after it has seen every Node: this anchor may leave while the sources want the
//! set of this digest. The digest is that of the desired set alone, without anchors in grace: nodes that joined at different times have
//! different anchors in grace, and want the same.
//!
//! An approval counts on a node only if it names the anchor, names the set that the node's sources want now, and is not older than the
//! anchor's grace on that node: a set may come back after a rollback, and the old approval must not count then.

use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

use crate::{
    certificate::{
        fingerprint::{Fingerprint, SetDigest},
        name::shown,
    },
    runtime::trust::RuntimeState,
    time::Time,
};

/// The ConfigMap of the approvals.
pub const APPROVALS_CONFIG_MAP: &str = "nodetrust-approvals";
/// Its key, and so the name of the file in the agent's pod.
pub const APPROVALS_FILE: &str = "approvals.json";
/// Largest file, in bytes.
pub const APPROVALS_LIMIT: usize = 256 << 10;
/// Most approvals in it. One takes about 200 bytes.
pub const MAX_APPROVALS: usize = 1000;
/// Difference between the clocks of a node and of whoever approves that does no harm, in seconds.
pub const CLOCK_SKEW: i64 = 300;
/// Version of the file's format.
const FORMAT: u32 = 1;
/// Digits of a short fingerprint, the part that Node annotations have.
const SHORT: usize = 16;

/// Which anchor is meant: its whole fingerprint, or the first 16 digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct AnchorKey(String);

/// A text that names no anchor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no fingerprint: expected its first 16 hexadecimal digits or all 64")]
pub struct BadAnchorKey(String);

/// One approval.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// The anchor that may leave.
    pub fingerprint: AnchorKey,
    /// Digest of the set that the sources wanted on every node.
    pub desired: SetDigest,
    /// When it was given.
    pub time: Time,
}

/// What the file holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Approvals(pub Vec<Approval>);

/// The file as it is written. Unknown fields are for later versions.
#[derive(Serialize, Deserialize)]
struct ApprovalsDocument {
    version: u32,
    approvals: Vec<Approval>,
}

/// What came of reading the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ApprovalsRead {
    /// There is none: nothing is approved.
    #[default]
    Absent,
    /// Whoever looks cannot see it: it is mounted in the agent's pod only.
    Hidden,
    /// It cannot be read, or is damaged: nothing is approved.
    Unusable,
    /// It was read.
    Good(Approvals),
}

/// What is known about consent to removals when a plan is made.
#[derive(Debug, Clone, Copy)]
pub struct RemovalFacts<'a> {
    /// The approvals.
    pub approvals: &'a ApprovalsRead,
    /// Whether the runtime follows the store before the removal; None if that was not judged yet.
    pub runtime: Option<RuntimeState>,
}

impl Default for RemovalFacts<'_> {
    fn default() -> Self {
        Self { approvals: &ApprovalsRead::Absent, runtime: None }
    }
}

/// Why an anchor stays although its grace is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RemovalWait {
    /// The approvals cannot be used.
    Unusable,
    /// The approvals cannot be seen from here.
    Hidden,
    /// No approval names it.
    NotApproved,
    /// It is approved for another set than the sources want here.
    OtherSet,
    /// The approval is older than the anchor's grace here.
    Outdated,
    /// The approval was given later than this node's clock says it is.
    Postdated,
    /// It is approved; whether the runtime follows the store was not judged yet.
    RuntimeNotJudged,
    /// It is approved, and the runtime does not follow the store.
    RuntimeStale,
    /// It is approved, and whether the runtime follows the store is not known.
    RuntimeUnknown,
}

/// The rule of one plan.
#[derive(Debug, Clone, Copy)]
pub struct RemovalRule<'a> {
    /// What is known.
    pub facts: RemovalFacts<'a>,
    /// Digest of the set that the sources want, without anchors in grace.
    pub desired: SetDigest,
    /// Seconds since the epoch.
    pub now: i64,
}

impl RemovalRule<'_> {
    /// Why an anchor whose grace is over must stay; None if it may leave. `since`: when its grace began, in seconds since the epoch.
    pub fn wait(&self, fingerprint: &Fingerprint, since: i64) -> Option<RemovalWait> {
        let approvals = match self.facts.approvals {
            ApprovalsRead::Good(Approvals(approvals)) => approvals.as_slice(),
            ApprovalsRead::Absent => &[],
            ApprovalsRead::Hidden => return Some(RemovalWait::Hidden),
            ApprovalsRead::Unusable => return Some(RemovalWait::Unusable),
        };
        let named = approvals.iter().filter(|approval| approval.fingerprint.names(fingerprint));
        // of several approvals the one that is nearest to counting
        match named.map(|approval| self.flaw(approval, since)).max_by_key(|flaw| (flaw.is_none(), *flaw)) {
            None => Some(RemovalWait::NotApproved),
            Some(Some(flaw)) => Some(flaw),
            Some(None) => match self.facts.runtime {
                None => Some(RemovalWait::RuntimeNotJudged),
                Some(RuntimeState::Stale) => Some(RemovalWait::RuntimeStale),
                Some(RuntimeState::Unknown) => Some(RemovalWait::RuntimeUnknown),
                Some(RuntimeState::Current | RuntimeState::None) => None,
            },
        }
    }

    /// Why an approval that names the anchor does not count.
    fn flaw(&self, approval: &Approval, since: i64) -> Option<RemovalWait> {
        if approval.desired != self.desired {
            Some(RemovalWait::OtherSet)
        } else if approval.time.0.saturating_add(CLOCK_SKEW) < since {
            Some(RemovalWait::Outdated)
        } else if approval.time.0 > self.now.saturating_add(CLOCK_SKEW) {
            Some(RemovalWait::Postdated)
        } else {
            None
        }
    }
}

impl RemovalWait {
    /// The reason, in a few words.
    pub fn why(self) -> &'static str {
        match self {
            Self::Unusable => "the fleet's approvals cannot be used",
            Self::Hidden => "the fleet's approvals are seen only in the agent's pod",
            Self::NotApproved => "not approved by the fleet",
            Self::OtherSet => "approved for another set than this node's sources want",
            Self::Outdated => "its approval is older than its grace",
            Self::Postdated => "its approval is dated in the future",
            Self::RuntimeNotJudged => "approved; the next cycle removes it if the runtime follows the store then",
            Self::RuntimeStale => "approved; the runtime does not follow the store",
            Self::RuntimeUnknown => "approved; whether the runtime follows the store is not known",
        }
    }

    /// What a person should do; empty where it goes on by itself, or another line says it.
    pub fn next(self) -> &'static str {
        match self {
            Self::Unusable | Self::RuntimeNotJudged => "",
            Self::Hidden => "run `nodetrust status` in the agent's pod, which sees the approvals",
            Self::NotApproved => {
                "run `nodetrust topology --approve-removal all` with a kubeconfig: it approves, or names what blocks on each node"
            }
            Self::OtherSet => {
                "see with `nodetrust topology` which nodes want another set; once all want the same, run `nodetrust topology --approve-removal all` again"
            }
            Self::Outdated => {
                "run `nodetrust topology --approve-removal all` again: the approval was given before this node knew of the removal"
            }
            Self::Postdated => "compare the clock of this node with that of the machine which approved",
            Self::RuntimeStale => "the removal follows the restart of the runtime that is due",
            Self::RuntimeUnknown => "the removal follows once it is known that the runtime trusts what replaces it",
        }
    }
}

impl Approvals {
    /// Reads the file's bytes.
    ///
    /// # Errors
    /// A sentence, if it is too large, damaged, or of another version.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() > APPROVALS_LIMIT {
            return Err(format!("larger than {APPROVALS_LIMIT} bytes"));
        }
        let ApprovalsDocument { version, approvals } =
            serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if version != FORMAT {
            return Err(format!("format version {version} is not {FORMAT}"));
        }
        if approvals.len() > MAX_APPROVALS {
            return Err(format!("{} approvals are more than {MAX_APPROVALS}", approvals.len()));
        }
        Ok(Self(approvals))
    }

    /// The file's text.
    pub fn text(&self) -> String {
        let document = ApprovalsDocument { version: FORMAT, approvals: self.0.clone() };
        // strings and numbers, which can always be written
        serde_json::to_string(&document).unwrap_or_default()
    }
}

impl AnchorKey {
    /// The first 16 digits.
    pub fn fp16(&self) -> &str {
        self.0.get(..SHORT).unwrap_or(&self.0)
    }

    /// Whether it names this certificate.
    pub fn names(&self, fingerprint: &Fingerprint) -> bool {
        fingerprint.to_string().starts_with(&self.0)
    }
}

impl std::fmt::Display for AnchorKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for AnchorKey {
    type Err = BadAnchorKey;

    /// Reads 16 or 64 hexadecimal digits, with or without colons.
    fn from_str(text: &str) -> Result<Self, BadAnchorKey> {
        let digits: String = text.trim().chars().filter(|letter| *letter != ':').collect();
        let is_whole = digits.len() == 2 * size_of::<Fingerprint>();
        if (is_whole || digits.len() == SHORT) && digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Ok(Self(digits.to_ascii_lowercase()));
        }
        Err(BadAnchorKey(shown(text)))
    }
}

impl<'de> Deserialize<'de> for AnchorKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
#[path = "removal_tests.rs"]
mod tests;
