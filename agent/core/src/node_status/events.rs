//! Events: what has happened since the last report, at most one of each kind.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{
    condition::MESSAGE_LIMIT,
    taint::{TAINT_PATIENCE, Taint},
};
use crate::{
    action::{Action, RemoveReason, StoreAction, WriteReason},
    certificate::fingerprint::{Fingerprint, content_digest, hex},
    report::{LastRestart, Report},
    runtime::{attempts::AttemptOutcome, services::HoldReason},
    store::anchor_file::PREFIX,
    text::{certificates_or_blocks, clip, plural},
    time::Time,
};

/// Who sends the events.
pub const REPORTER: &str = "nodetrust";
/// Anchors that are named in a message; the rest is counted.
const NAMED: usize = 4;
/// Where events of objects without a namespace are kept.
const NAMESPACE: &str = "default";

/// The kinds of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EventKind {
    /// The set of our anchors in the bundle is another one.
    TrustAnchorsChanged,
    /// The runtime was restarted and works.
    RuntimeRestarted,
    /// The runtime was restarted and does not work, or could not be restarted; or the node halts the fleet's restarts after it.
    RuntimeRestartFailed,
    /// A source has something new that was not accepted.
    SourceRejected,
    /// Somebody else had changed the store, and it was put right.
    DriftRepaired,
    /// A restart that is due is held back.
    RestartHeld,
    /// The startup taint went although it is not known whether the runtime trusts.
    RuntimeUnknown,
}

impl EventKind {
    /// Every kind.
    pub const ALL: [Self; 7] = [
        Self::TrustAnchorsChanged,
        Self::RuntimeRestarted,
        Self::RuntimeRestartFailed,
        Self::SourceRejected,
        Self::DriftRepaired,
        Self::RestartHeld,
        Self::RuntimeUnknown,
    ];

    /// The public name: the event's `reason`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TrustAnchorsChanged => "TrustAnchorsChanged",
            Self::RuntimeRestarted => "RuntimeRestarted",
            Self::RuntimeRestartFailed => "RuntimeRestartFailed",
            Self::SourceRejected => "SourceRejected",
            Self::DriftRepaired => "DriftRepaired",
            Self::RestartHeld => "RestartHeld",
            Self::RuntimeUnknown => "RuntimeUnknown",
        }
    }

    /// Whether it tells of how things stand, which the condition tells as well, rather than of something that was done.
    pub fn is_standing(self) -> bool {
        matches!(self, Self::SourceRejected | Self::RestartHeld)
    }

    /// Seconds that the next one of its kind waits, so that a fight over the store does not fill the cluster's events.
    pub fn pause(self) -> u64 {
        match self {
            Self::DriftRepaired => 600,
            _ => 60,
        }
    }
}

/// One event on the Node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeEvent {
    /// Its kind.
    pub kind: EventKind,
    /// Somebody should look at it.
    pub warning: bool,
    /// What happened, in a sentence.
    pub message: String,
    /// The time.
    pub time: Time,
}

/// What has happened between two reports. Without an earlier one: what the report's own cycle did, and what stands.
pub fn events(report: &Report, previous: Option<&Report>) -> Vec<NodeEvent> {
    let found = [
        anchors_changed(report, previous),
        halts(report, previous).or_else(|| restarted(report, previous)),
        rejected(report, previous),
        repaired(report),
        held(report, previous),
    ];
    let event = |(kind, warning, message): (EventKind, bool, String)| NodeEvent {
        kind,
        warning,
        message: clip(&message, MESSAGE_LIMIT),
        time: report.time,
    };
    found.into_iter().flatten().map(event).collect()
}

/// The startup taint was taken away after [`TAINT_PATIENCE`], without proof that pulls trust what they should.
pub fn taint_without_proof(report: &Report, taint: &Taint, now: Time) -> NodeEvent {
    let minutes = TAINT_PATIENCE.as_secs() / 60;
    let message = format!("the startup taint {taint} was taken away after {minutes} minutes: {}", report.headline);
    NodeEvent { kind: EventKind::RuntimeUnknown, warning: true, message: clip(&message, MESSAGE_LIMIT), time: now }
}

type Draft = Option<(EventKind, bool, String)>;

fn anchors_changed(report: &Report, previous: Option<&Report>) -> Draft {
    if !report.store.was_read {
        return None;
    }
    let previous = previous.filter(|previous| previous.store.was_read);
    let now = trusted(report);
    let in_force = format!("{} in force", plural(now.len(), "anchor"));
    let Some(previous) = previous else {
        let changes = done(report);
        let text = || format!("{}; {in_force}", changes.join(", "));
        return (!changes.is_empty()).then(|| (EventKind::TrustAnchorsChanged, false, text()));
    };
    let before = trusted(previous);
    let came = names(&now, &before, '+');
    let left = names(&before, &now, '-');
    let wanted: BTreeSet<Fingerprint> =
        report.anchors.iter().filter(|row| !row.trusted).map(|row| row.sha256).collect();
    let lost = before.keys().any(|fingerprint| wanted.contains(fingerprint));
    let changes: Vec<String> = came.into_iter().chain(left).collect();
    let text = || format!("{}; {in_force}", changes.join(", "));
    (!changes.is_empty()).then(|| (EventKind::TrustAnchorsChanged, lost, text()))
}

/// What the report's own cycle did to the set, by name where that is known still.
fn done(report: &Report) -> Vec<String> {
    let mut came = BTreeMap::new();
    let mut left = Vec::new();
    for action in report.cycle.iter().flat_map(|cycle| &cycle.actions) {
        match action {
            Action::Store(StoreAction::WriteAnchor { sha256, why: WriteReason::New, .. }) => {
                let row = report.anchors.iter().find(|row| row.sha256 == *sha256);
                came.insert(*sha256, row.map_or("", |row| row.common_name.as_str()));
            }
            Action::Store(StoreAction::RemoveAnchor {
                file,
                why: RemoveReason::GraceOver | RemoveReason::Denied | RemoveReason::Refused,
            }) => {
                left.push(format!("-{}", file.trim_start_matches(PREFIX).split('.').next().unwrap_or_default()));
            }
            _ => {}
        }
    }
    let more = left.split_off(left.len().min(NAMED)).len();
    left.extend((more > 0).then(|| format!("-{more} more")));
    names(&came, &BTreeMap::new(), '+').into_iter().chain(left).collect()
}

fn trusted(report: &Report) -> BTreeMap<Fingerprint, &str> {
    report.anchors.iter().filter(|row| row.trusted).map(|row| (row.sha256, row.common_name.as_str())).collect()
}

/// Those of one set that are not in another, by name.
fn names(of: &BTreeMap<Fingerprint, &str>, without: &BTreeMap<Fingerprint, &str>, sign: char) -> Vec<String> {
    let all: Vec<_> = of.iter().filter(|(fingerprint, _)| !without.contains_key(*fingerprint)).collect();
    let mut names: Vec<String> =
        all.iter().take(NAMED).map(|(print, name)| format!("{sign}{name} ({})", print.fp16())).collect();
    if all.len() > NAMED {
        names.push(format!("{sign}{} more", all.len() - NAMED));
    }
    names
}

/// This node is not healthy after its restart, and halts the restarts of the fleet since.
fn halts(report: &Report, previous: Option<&Report>) -> Draft {
    let own = |report: &Report| report.fleet.as_ref().and_then(|fleet| fleet.halted.clone()).filter(|halt| halt.own);
    let halt = own(report)?;
    if previous.is_some_and(|previous| own(previous).is_some()) {
        return None;
    }
    let unit = report.runtime.as_ref().map_or("the runtime", |runtime| runtime.unit.as_str());
    let text =
        format!("{unit} was restarted, and this node halts the restarts of the whole fleet since: {}", halt.reason);
    Some((EventKind::RuntimeRestartFailed, true, text))
}

fn restarted(report: &Report, previous: Option<&Report>) -> Draft {
    let runtime = report.runtime.as_ref()?;
    let last = runtime.last_restart.as_ref()?;
    // a report without a runtime, such as one of a node whose store's tool is missing, says nothing of restarts before it
    let is_new = match previous.and_then(|previous| previous.runtime.as_ref()) {
        Some(previous) => {
            let before = previous.last_restart.as_ref();
            before.is_none_or(|before| (before.time, &before.outcome) != (last.time, &last.outcome))
        }
        None => is_of_this_cycle(report, last),
    };
    if !is_new {
        return None;
    }
    match last.outcome.as_ref()? {
        AttemptOutcome::Done => {
            let text = format!("{} was restarted so that it trusts what the bundle says", runtime.unit);
            Some((EventKind::RuntimeRestarted, false, text))
        }
        AttemptOutcome::Failed(why) => {
            Some((EventKind::RuntimeRestartFailed, true, format!("{}: {why}", runtime.unit)))
        }
    }
}

fn is_of_this_cycle(report: &Report, last: &LastRestart) -> bool {
    report.cycle.as_ref().is_some_and(|cycle| {
        let seconds = i64::try_from(cycle.milliseconds / 1000).unwrap_or(i64::MAX);
        last.time.0 >= cycle.time.0.saturating_sub(seconds).saturating_sub(1)
    })
}

fn rejected(report: &Report, previous: Option<&Report>) -> Draft {
    let now = report.rejections();
    let before = previous.map(Report::rejections).unwrap_or_default();
    let worse = |(key, count): (&(&str, _), &usize)| before.get(key).is_none_or(|known| known < count);
    if !now.iter().any(worse) {
        return None;
    }
    let row = report.sources.iter().find(|source| !source.rejections.is_empty())?;
    let first = row.rejections.first()?;
    let total: usize = now.values().sum();
    let text = format!(
        "{} not accepted; source {}, {}: {}",
        certificates_or_blocks(total),
        row.name,
        first.file,
        first.detail
    );
    Some((EventKind::SourceRejected, true, text))
}

fn repaired(report: &Report) -> Draft {
    let drift = &report.cycle.as_ref()?.drift;
    let kinds: Vec<&str> = drift.iter().map(|drift| drift.as_str()).collect();
    let text = || format!("somebody else had changed the trust store ({}); it was put right", kinds.join(", "));
    (!kinds.is_empty()).then(|| (EventKind::DriftRepaired, true, text()))
}

fn held(report: &Report, previous: Option<&Report>) -> Draft {
    let runtime = report.runtime.as_ref().filter(|runtime| runtime.stale)?;
    let held = runtime.held.as_ref()?;
    let before = previous.and_then(|previous| previous.runtime.as_ref()).and_then(|runtime| runtime.held.as_ref());
    let text = || format!("{} is not restarted although that is due: {}", runtime.unit, held.why);
    // to wait for one's turn is how a fleet restarts
    let warning = !matches!(held.reason, HoldReason::Slot | HoldReason::Window | HoldReason::Canary);
    before.is_none_or(|before| before.reason != held.reason).then(|| (EventKind::RestartHeld, warning, text()))
}

impl NodeEvent {
    /// One event in place of two of a kind, of which the earlier has not been told. How things stand is told as it is now.
    #[must_use]
    pub fn after(self, earlier: &Self) -> Self {
        if self.kind.is_standing() {
            return self;
        }
        let both = match earlier.message.ends_with(&self.message) {
            true => earlier.message.clone(), // once more the same
            false => format!("{}; then {}", earlier.message, self.message),
        };
        let message = match both.len() <= MESSAGE_LIMIT {
            true => both,
            false => clip(&format!("after more changes than fit here: {}", self.message), MESSAGE_LIMIT),
        };
        Self { message, warning: self.warning || earlier.warning, ..self }
    }

    /// The object for `POST /api/v1/namespaces/default/events`. Its name is the same at each try, so that an answer that got
    /// lost does not lead to a second event.
    pub fn object(&self, node: &str) -> Value {
        let seed = format!("{node}\n{}\n{}\n{}", self.kind.as_str(), self.time, self.message);
        let id = hex(&content_digest(seed.as_bytes())[..8]);
        let short = node.chars().take(200).collect::<String>(); // a name has at most 253 characters
        let time = self.time.to_string();
        json!({
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": format!("{short}.{id}"), "namespace": NAMESPACE},
            // the name as uid is the kubelet's way too, and `kubectl describe node` looks for it
            "involvedObject": {"apiVersion": "v1", "kind": "Node", "name": node, "uid": node},
            "reason": self.kind.as_str(),
            "message": self.message,
            "type": if self.warning { "Warning" } else { "Normal" },
            "count": 1,
            "firstTimestamp": time,
            "lastTimestamp": time,
            "source": {"component": REPORTER, "host": node},
            "reportingComponent": REPORTER,
            "reportingInstance": node,
        })
    }
}
