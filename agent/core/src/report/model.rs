//! The types of a report.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize, Serializer, ser::SerializeStruct};

use crate::{
    action::{Action, Drift},
    certificate::{
        anchor::Authority,
        fingerprint::{Fingerprint, SetDigest},
        pem::RejectReason,
    },
    cycle::{CycleOutcome, Trigger},
    fleet::{removal::RemovalWait, view::FleetView},
    ledger::AnchorState,
    pod_bundle::PodBundleView,
    problem::Problem,
    runtime::{
        attempts::AttemptOutcome,
        kinds::RuntimeKind,
        services::{HoldReason, ServiceState},
        trust::RuntimeTrust,
    },
    source::{Rejection, SourceStatus},
    store::Family,
    time::Time,
};

/// The whole state of a node's trust, as of one moment.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Version of this format.
    pub version: u32,
    /// The node's name.
    pub node: String,
    /// When the host was looked at.
    pub time: Time,
    /// The answer.
    pub verdict: NodeVerdict,
    /// The answer in a sentence.
    pub headline: String,
    /// Every anchor that should be trusted is in the extracted bundle, nothing else of ours is, and nothing is left to do.
    pub converged: bool,
    /// Digest of the set that should be trusted: desired and in grace.
    pub desired_digest: SetDigest,
    /// Digest of what the sources want, without anchors in grace: what an approval of a removal names.
    pub sources_digest: SetDigest,
    /// Digest of our anchors that are trusted; equal to the other one when converged.
    pub effective_digest: SetDigest,
    /// The sources.
    pub sources: Vec<SourceRow>,
    /// The anchors.
    pub anchors: Vec<AnchorRow>,
    /// The trust store.
    pub store: StoreView,
    /// The container runtime, if one was found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime: Option<RuntimeView>,
    /// Whether pulls by the container runtime follow, and by which evidence.
    pub runtime_trust: RuntimeTrust,
    /// The bundle for pods, if one is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub export: Option<PodBundleView>,
    /// The trust store for Java in pods, if one is asked for.
    #[serde(rename = "exportPkcs12", skip_serializing_if = "Option::is_none")]
    pub export_pkcs12: Option<PodBundleView>,
    /// Somebody else's files that people should know of.
    pub foreign: Vec<ForeignRow>,
    /// Roots of the distribution that the configuration distrusts here.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub distrusted: Vec<DistrustedRow>,
    /// The restarts of the fleet, if this node takes part in one and has seen it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fleet: Option<FleetView>,
    /// What is wrong.
    pub problems: Vec<Problem>,
    /// What is still to be done, as text, in order.
    pub pending: Vec<Action>,
    /// What a person should do next, most important first.
    pub next: Vec<String>,
    /// The last cycle, if one is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cycle: Option<Cycle>,
    /// When the set in force last changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changed: Option<Time>,
}

/// The answer to "does this node trust what it should?".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeVerdict {
    /// Yes.
    Trusted,
    /// Yes, and something was rejected or held, or needs a look.
    TrustedWithFindings,
    /// No.
    NotTrusted,
    /// Yes, but something is still to be done or could not be done.
    NotConverged,
    /// The operating system does, the container runtime does not yet.
    NotTrustedByRuntime,
    /// The operating system does, and whether the container runtime does is not known.
    RuntimeUnknown,
    /// There is nothing that it should trust.
    NothingDesired,
    /// It has no store that can be written.
    UnsupportedStore,
}

/// A source, for people and metrics.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceRow {
    /// Its name.
    pub name: String,
    /// Where it comes from.
    pub origin: String,
    /// Its state.
    pub status: SourceStatus,
    /// By the ledger it has never given an anchor on this node, and it is not optional: the agent is not ready yet. Told by
    /// `/readyz`.
    #[serde(skip)]
    pub awaited: bool,
    /// Anchors that it puts in force.
    pub anchors: usize,
    /// When what it says last changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changed: Option<Time>,
    /// Why it is not `ok`.
    pub detail: String,
    /// What was not accepted.
    pub rejections: Vec<Rejection>,
    /// Harmless oddities.
    pub notes: Vec<String>,
}

/// An anchor, for people and metrics.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AnchorRow {
    /// Its identity.
    pub sha256: Fingerprint,
    /// Its common name.
    pub common_name: String,
    /// Its subject.
    pub subject: String,
    /// Its issuer's common name.
    pub issuer_common_name: String,
    /// Its serial number.
    pub serial: String,
    /// Its key.
    pub key: String,
    /// Whether it is a CA.
    pub authority: Authority,
    /// Where it stands.
    pub state: AnchorState,
    /// It is in the extracted bundle.
    pub trusted: bool,
    /// Whether pulls by the container runtime trust it; None if there is no runtime, or nothing is known of its process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime: Option<ByRuntime>,
    /// Why programs in Go, container runtimes among them, do not read it; None if they do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub go_refuses: Option<String>,
    /// Start of validity.
    pub not_before: Time,
    /// End of validity.
    pub not_after: Time,
    /// When its grace ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grace_end: Option<Time>,
    /// It leaves only with the fleet's approval.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub needs_approval: bool,
    /// Why it stays although its grace is over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waits: Option<RemovalWait>,
    /// The sources that want it.
    pub sources: Vec<String>,
    /// What is odd about it.
    pub warnings: Vec<String>,
}

/// The trust store, for people and metrics.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StoreView {
    /// Its family; None if it is unsupported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub family: Option<Family>,
    /// The fact that decided it, in a sentence.
    pub because: String,
    /// `ID` of os-release.
    pub os_id: String,
    /// `VERSION_ID`.
    pub os_version: String,
    /// `PRETTY_NAME`.
    pub os_name: String,
    /// The anchor directory.
    pub anchors_dir: String,
    /// The extracted bundle.
    pub bundle: String,
    /// Certificates in it.
    pub certificates: usize,
    /// How many of them are ours.
    pub ours: usize,
    /// Files in the anchor directory that are not ours.
    pub foreign_files: usize,
    /// The bundle was read for this report, so that it is known which anchors are trusted.
    #[serde(skip)]
    pub was_read: bool,
}

/// A file that is not ours and that people should know of.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ForeignRow {
    /// Its path.
    pub path: String,
    /// The reason, in a sentence.
    pub text: String,
    /// It is a stale copy of a CA; None for what else is to be said of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stale: Option<StaleCopy>,
}

/// A root of the distribution that the configuration distrusts.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DistrustedRow {
    /// The root.
    pub sha256: Fingerprint,
    /// It is in the extracted bundle all the same.
    pub trusted: bool,
    /// By which means, in a sentence.
    pub text: String,
}

/// A copy of a certificate that should not be there any more, in somebody else's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StaleCopy {
    /// The certificate.
    pub sha256: Fingerprint,
    /// What makes it stale.
    pub reason: StaleReason,
}

/// What makes a copy stale; the first that holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StaleReason {
    /// The policy denies it.
    Denied,
    /// It was ours, left the sources, and its grace is over.
    Retired,
    /// It has expired.
    Expired,
    /// The sources have one of the same name that is not older.
    Superseded,
}

impl StaleReason {
    /// Every reason, for metrics.
    pub const ALL: [Self; 4] = [Self::Denied, Self::Retired, Self::Expired, Self::Superseded];

    /// The public name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::Retired => "retired",
            Self::Expired => "expired",
            Self::Superseded => "superseded",
        }
    }
}

/// One run of the agent's loop.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Cycle {
    /// Why it ran.
    pub trigger: Trigger,
    /// How it ended.
    pub outcome: CycleOutcome,
    /// When it ended.
    pub time: Time,
    /// How long it took.
    pub milliseconds: u64,
    /// How long the distribution's tool took of that.
    pub extract_milliseconds: u64,
    /// What it did.
    pub actions: Vec<Action>,
    /// Changes by others that it repaired.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub drift: BTreeSet<Drift>,
    /// What went wrong in it, for whoever looks without having run it: the report of the agent itself has it among its problems.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
}

/// The container runtime, for people and metrics.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RuntimeView {
    /// The kind.
    pub kind: RuntimeKind,
    /// The fact that decided it, in a sentence.
    pub because: String,
    /// Its version; empty if it does not say.
    pub version: String,
    /// Its unit.
    pub unit: String,
    /// Its unit's state.
    pub state: ServiceState,
    /// Its CRI socket on the host.
    pub socket: String,
    /// When the process that pulls started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started: Option<Time>,
    /// Why it does not work; None if it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sick: Option<String>,
    /// Its registry directory, or why there is none to use.
    pub certs_dir: String,
    /// Hosts whose own directory in it hides our anchors.
    pub not_covered: Vec<String>,
    /// Its process does not know what the bundle says, and nothing makes up for it.
    pub stale: bool,
    /// Anchors that it does not trust yet.
    pub missing: Vec<Fingerprint>,
    /// Removed anchors that it may still trust.
    pub lingering: Vec<Fingerprint>,
    /// Anchors of which nobody knows whether they were there when its process started.
    pub unproven: Vec<Fingerprint>,
    /// Anchors newer than its process that every pull gets from the registry directory.
    pub covered: Vec<Fingerprint>,
    /// Anchors that it cannot read, so that no restart would help.
    pub cannot: Vec<Fingerprint>,
    /// The fact that decided whether it must be restarted.
    pub why: String,
    /// Why a restart that is due is not made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held: Option<HoldView>,
    /// Our last try to restart it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_restart: Option<LastRestart>,
}

/// A restart that is held back.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HoldView {
    /// The reason in a word.
    pub reason: HoldReason,
    /// The reason, in a sentence.
    pub why: String,
    /// What a person should do.
    pub next: String,
}

/// Our last attempt to restart the runtime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastRestart {
    /// The time.
    pub time: Time,
    /// How it ended; None if the agent was killed meanwhile.
    /// It is serialised in the words of [`outcome_text`](Self::outcome_text).
    pub outcome: Option<AttemptOutcome>,
}

impl Serialize for LastRestart {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("LastRestart", 2)?;
        fields.serialize_field("time", &self.time)?;
        fields.serialize_field("outcome", &self.outcome_text())?;
        fields.end()
    }
}

impl LastRestart {
    /// `done`, `failed: …`, or `unknown`.
    pub fn outcome_text(&self) -> String {
        match &self.outcome {
            Some(AttemptOutcome::Done) => "done".to_owned(),
            Some(AttemptOutcome::Failed(why)) => format!("failed: {why}"),
            None => "unknown".to_owned(),
        }
    }
}

/// Whether pulls by the container runtime trust an anchor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ByRuntime {
    /// They do.
    Yes,
    /// Not yet.
    No,
    /// Nobody knows: it was in the bundle before the process was first seen.
    Unknown,
    /// They never will: the runtime cannot read it.
    Cannot,
}

impl ByRuntime {
    /// The word on a screen.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::No => "no",
            Self::Unknown => "unknown",
            Self::Cannot => "cannot",
        }
    }
}

impl Serialize for ByRuntime {
    /// A truth value, or the word `unknown` or `cannot`.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Yes | Self::No => serializer.serialize_bool(*self == Self::Yes),
            Self::Unknown | Self::Cannot => serializer.serialize_str(self.as_str()),
        }
    }
}

/// What pulls do not trust yet although the store does, and what becomes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Behind {
    /// The anchors.
    pub missing: Vec<Fingerprint>,
    /// Why, and whether a restart follows, in a sentence.
    pub why: String,
    /// What to do.
    pub next: String,
}

impl Report {
    /// Whether everything is as it should be and nothing was rejected or held.
    pub fn is_healthy(&self) -> bool {
        matches!(self.verdict, NodeVerdict::Trusted | NodeVerdict::NothingDesired)
    }

    /// Anything that was rejected or held, or that the runtime cannot use.
    pub fn has_findings(&self) -> bool {
        self.sources.iter().any(|source| {
            !source.rejections.is_empty() || matches!(source.status, SourceStatus::Held | SourceStatus::Failed)
        }) || self.beyond_runtime().next().is_some()
    }

    /// Anchors that the container runtime cannot use, whatever is done.
    pub fn beyond_runtime(&self) -> impl Iterator<Item = &AnchorRow> {
        self.anchors.iter().filter(|row| row.runtime == Some(ByRuntime::Cannot))
    }

    /// The first source without which the agent does not become ready: it must give an anchor, and never has on this node.
    pub fn awaited_source(&self) -> Option<&SourceRow> {
        self.sources.iter().find(|source| source.awaited)
    }

    /// Rejections by source and reason.
    pub fn rejections(&self) -> BTreeMap<(&str, RejectReason), usize> {
        let mut counts = BTreeMap::new();
        for source in &self.sources {
            for rejection in &source.rejections {
                *counts.entry((source.name.as_str(), rejection.reason)).or_default() += 1;
            }
        }
        counts
    }
}
