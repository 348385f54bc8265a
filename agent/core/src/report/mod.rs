//! The one value that everybody sees: metrics, `/status`, the commands and the Node are views of a [`Report`].
//!
//! In: everything that a cycle decided and saw. Out: plain data, ordered, with absolute times.

mod denied;
mod services;
mod verdict;

pub use services::{Behind, ByRuntime, HoldView, LastRestart, RuntimeView};

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::{
    action::{Action, Drift},
    certificate::{
        anchor::{Anchor, Authority},
        fingerprint::{Fingerprint, SetDigest},
        name::{sentence, shown},
        pem::RejectReason,
    },
    ledger::{AnchorState, Ledger},
    observed::{Hazard, Observed},
    plan::Plan,
    pod_bundle::{PodBundlePlan, PodBundleView},
    problem::{Problem, ProblemKind},
    runtime::{service_plan::ServicePlan, trust::RuntimeTrust},
    source::{
        Rejection, Resolved, SourceStatus,
        policy::{self, Policy},
    },
    store::{Detection, Family, os_release::OsRelease},
    time::{Moment, Time},
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
    /// Somebody else's files that people should know of.
    pub foreign: Vec<ForeignRow>,
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
    /// The fact that decided.
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
}

/// Somebody else's file that is called out.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ForeignRow {
    /// Its path.
    pub path: String,
    /// Why.
    pub text: String,
}

/// One run of the agent's loop.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Cycle {
    /// Why it ran.
    pub trigger: String,
    /// How it ended: `unchanged`, `changed`, `failed`.
    pub outcome: String,
    /// When it ended.
    pub time: Time,
    /// How long it took.
    pub milliseconds: u64,
    /// How long the distribution's tool took of that.
    pub extract_milliseconds: u64,
    /// What it did.
    pub actions: Vec<Action>,
    /// What others had changed and it repaired.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub drift: BTreeSet<Drift>,
}

/// What a report is made of.
#[derive(Debug, Clone, Copy)]
pub struct ReportInputs<'a> {
    /// The node's name.
    pub node: &'a str,
    /// When the host was looked at.
    pub now: &'a Moment,
    /// os-release of the host.
    pub os: &'a OsRelease,
    /// How the store was found.
    pub detection: &'a Detection,
    /// What the sources want.
    pub resolved: &'a Resolved,
    /// What is there; None if the store is unsupported or could not be looked at.
    pub observed: Option<&'a Observed>,
    /// The plan made from that very observation: what is still to be done.
    pub plan: Option<&'a Plan>,
    /// What is to be done so that services follow the bundle.
    pub outlook: Option<&'a ServicePlan>,
    /// What is to be done about the bundle for pods.
    pub export: Option<&'a PodBundlePlan>,
    /// The ledger in force.
    pub ledger: &'a Ledger,
    /// The policy.
    pub policy: &'a Policy,
    /// What is wrong.
    pub problems: &'a [Problem],
}

/// Makes a report.
pub fn build(inputs: ReportInputs<'_>) -> Report {
    let ReportInputs { node, now, os, detection, resolved, observed, plan, outlook, export, ledger, policy, problems } =
        inputs;
    let mut problems = problems.to_vec();
    if let Err(unsupported) = &detection.family {
        let kind = if unsupported.is_unknown { ProblemKind::Observe } else { ProblemKind::UnsupportedStore };
        problems.insert(0, Problem::new(kind, unsupported.reason.clone(), unsupported.advice.clone()));
    }
    let mut pending: Vec<Action> = plan.map(|plan| plan.actions.clone()).unwrap_or_default();
    pending.extend(outlook.iter().flat_map(|outlook| outlook.actions.clone()));
    pending.extend(export.iter().flat_map(|export| export.actions.clone()));
    problems.extend(export.iter().flat_map(|export| export.problems.clone()));
    problems.extend(
        observed.and_then(|observed| denied::still_trusted(observed, plan.map_or(ledger, |plan| &plan.ledger), policy)),
    );
    let failing = problems.iter().any(|problem| problem.kind.is_failure());
    let left = plan.is_none_or(Plan::changes_store);
    let mut anchors = plan.map_or_else(|| desired_rows(resolved, inputs), |plan| anchor_rows(plan, inputs));
    let runtime = observed.and_then(|observed| observed.services.runtime.as_ref());
    let runtime = runtime.zip(outlook).map(|(runtime, outlook)| services::view(runtime, outlook, ledger, now));
    // a process that was not seen yet has no record, and nothing is said of what it trusts
    let process = observed.and_then(|observed| observed.services.runtime.as_ref()?.service.process.as_ref());
    let record = runtime.as_ref().zip(plan).and_then(|(view, plan)| plan.ledger.services.get(&view.unit));
    let record = record.filter(|record| Some(&record.process) == process);
    for row in &mut anchors {
        row.runtime = runtime.as_ref().and_then(|view| view.of(row, record.is_some()));
    }
    let (desired_digest, effective_digest) = digests(plan, observed, resolved);
    let converged = !failing && !left && desired_digest == effective_digest;
    let foreign = observed.map(|observed| foreign_rows(observed, plan, now)).unwrap_or_default();
    let mut report = Report {
        version: 1,
        node: node.to_owned(),
        time: Time(now.wall),
        verdict: NodeVerdict::NotTrusted,
        headline: String::new(),
        converged,
        desired_digest,
        effective_digest,
        sources: source_rows(resolved, ledger),
        anchors,
        store: store_view(os, detection, observed, policy),
        runtime,
        runtime_trust: outlook.map_or_else(RuntimeTrust::unseen, |outlook| outlook.trust.clone()),
        export: export.and_then(|export| export.view.clone()),
        foreign,
        problems,
        pending,
        next: Vec::new(),
        cycle: None,
        changed: ledger.changed.map(Time),
    };
    report.conclude();
    report
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

    /// Adds a problem and draws the conclusions anew.
    pub fn add_problem(&mut self, problem: Problem) {
        if problem.kind.is_failure() {
            self.converged = false;
        }
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
        self.conclude();
    }
}

fn digests(plan: Option<&Plan>, observed: Option<&Observed>, resolved: &Resolved) -> (SetDigest, SetDigest) {
    let desired = match plan {
        Some(plan) => plan.targets.keys().copied().collect(),
        None => resolved.desired.keys().copied().collect(),
    };
    let effective = match (plan, observed) {
        (Some(plan), Some(observed)) => plan.in_force(observed, &observed.effective.set),
        _ => Default::default(),
    };
    (SetDigest::of(&desired), SetDigest::of(&effective))
}

fn source_rows(resolved: &Resolved, ledger: &Ledger) -> Vec<SourceRow> {
    let row = |source: &crate::source::SourceState| SourceRow {
        name: source.name.clone(),
        origin: source.origin.clone(),
        status: source.status,
        awaited: source.awaited,
        anchors: source.anchors.len(),
        changed: ledger.sources.get(&source.name).map(|source| Time(source.changed)),
        detail: source.detail.clone(),
        rejections: source.rejections.clone(),
        notes: source.notes.clone(),
    };
    resolved.sources.iter().map(row).collect()
}

fn anchor_rows(plan: &Plan, inputs: ReportInputs<'_>) -> Vec<AnchorRow> {
    let trusted = |fingerprint: &Fingerprint| {
        inputs.observed.is_some_and(|observed| observed.effective.set.contains(fingerprint))
    };
    // looked up in the order of the sets that are looked through, and sorted while they are small: rows are long
    let mut targets: Vec<_> = plan
        .targets
        .iter()
        .map(|(fingerprint, target)| {
            let wanted = inputs.resolved.desired.get(fingerprint);
            let left = plan.ledger.anchors.get(fingerprint).and_then(|entry| entry.left.as_ref());
            (target, trusted(fingerprint), wanted, left)
        })
        .collect();
    targets.sort_unstable_by_key(|(target, ..)| {
        (target.state, &target.anchor.subject.common, target.anchor.not_after, target.anchor.fingerprint)
    });
    let mut rows = Vec::with_capacity(targets.len());
    for (target, trusted, wanted, left) in targets {
        let mut row = anchor_row(&target.anchor, target.state, trusted);
        if let Some(wanted) = wanted {
            row.sources = wanted.sources.iter().cloned().collect();
            row.warnings.clone_from(&wanted.warnings);
        } else {
            row.warnings.extend(policy::go_warning(&target.anchor));
        }
        if target.state == AnchorState::Grace && left.is_none() {
            row.warnings
                .push("its grace has not begun: a source that is missing or gives nothing usable may want it".into());
        }
        row.grace_end = left.map(|left| {
            let passed = inputs.now.elapsed_since(left, inputs.ledger.updated);
            let remains = inputs.policy.removal_grace.saturating_sub(passed);
            Time(inputs.now.wall.saturating_add(i64::try_from(remains).unwrap_or(i64::MAX)))
        });
        rows.push(row);
    }
    for fingerprint in plan.retired.iter().filter(|fingerprint| trusted(fingerprint)) {
        let Some(entry) = plan.ledger.anchors.get(fingerprint) else { continue };
        let Some(anchor) = entry.anchor() else { continue };
        let mut row = anchor_row(&anchor, entry.state, true);
        if entry.shared {
            row.warnings.push("still trusted: the distribution or somebody else's file has it too".into());
        }
        rows.push(row);
    }
    sort(&mut rows);
    rows
}

/// Without a store there is no plan: what the sources want is all there is to show.
fn desired_rows(resolved: &Resolved, _: ReportInputs<'_>) -> Vec<AnchorRow> {
    let mut rows: Vec<AnchorRow> = resolved
        .desired
        .values()
        .map(|wanted| AnchorRow {
            sources: wanted.sources.iter().cloned().collect(),
            warnings: wanted.warnings.clone(),
            ..anchor_row(&wanted.anchor, AnchorState::Desired, false)
        })
        .collect();
    sort(&mut rows);
    rows
}

fn sort(rows: &mut [AnchorRow]) {
    rows.sort_by(|a, b| {
        (a.state, &a.common_name, b.not_after, a.sha256).cmp(&(b.state, &b.common_name, a.not_after, b.sha256))
    });
}

/// The row of a certificate.
pub fn anchor_row(anchor: &Anchor, state: AnchorState, trusted: bool) -> AnchorRow {
    AnchorRow {
        sha256: anchor.fingerprint,
        common_name: anchor.subject.common.clone(),
        subject: anchor.subject.text.clone(),
        issuer_common_name: anchor.issuer.common.clone(),
        serial: anchor.serial.clone(),
        key: anchor.key.to_string(),
        authority: anchor.authority,
        state,
        trusted,
        runtime: None,
        go_refuses: anchor.go_refuses.clone(),
        not_before: Time(anchor.not_before),
        not_after: Time(anchor.not_after),
        grace_end: None,
        sources: Vec::new(),
        warnings: Vec::new(),
    }
}

fn store_view(os: &OsRelease, detection: &Detection, observed: Option<&Observed>, _: &Policy) -> StoreView {
    let mut view = StoreView {
        because: detection.because.clone(),
        os_id: os.id.clone(),
        os_version: os.version_id.clone(),
        os_name: os.pretty_name.clone(),
        ..StoreView::default()
    };
    if let Ok(family) = detection.family {
        let store = family.store();
        view.family = Some(family);
        view.anchors_dir = store.anchors_dir.to_owned();
        view.bundle = store.bundle.to_owned();
    }
    if let Some(observed) = observed {
        view.certificates = observed.effective.count;
        view.foreign_files = observed.foreign.len();
        let own = observed.ours.values().filter_map(|own| own.anchor.as_ref());
        view.ours = own.filter(|anchor| observed.effective.set.contains(&anchor.fingerprint)).count();
    }
    view
}

fn foreign_rows(observed: &Observed, plan: Option<&Plan>, now: &Moment) -> Vec<ForeignRow> {
    let mut rows = Vec::new();
    let mut add = |path: &str, text: String| rows.push(ForeignRow { path: shown(path), text: sentence(&text) });
    for file in &observed.foreign {
        match &file.hazard {
            Some(Hazard::PrivateKey(line)) => {
                add(&file.path, format!("line {line}: a private key lies in the anchor directory"))
            }
            Some(Hazard::Broken(fault) | Hazard::BrokenGnuTls(fault)) => {
                add(&file.path, format!("line {}: {}", fault.line, fault.detail));
            }
            None => {}
        }
        for anchor in &file.anchors {
            let Some(plan) = plan else { continue };
            let same_name = plan.targets.values().find(|target| {
                target.anchor.subject.raw == anchor.subject.raw && target.anchor.fingerprint != anchor.fingerprint
            });
            let name = &anchor.subject.common;
            let expired = anchor.not_after < now.wall;
            if plan.retired.contains(&anchor.fingerprint) {
                add(
                    &file.path,
                    format!(
                        "a copy of {name} ({}), which is retired or denied, keeps it trusted; not ours, so it stays: remove it by hand",
                        anchor.fingerprint.fp16()
                    ),
                );
            } else if let Some(same) = same_name {
                let expiry = if expired { format!("expired {}, ", Time(anchor.not_after)) } else { String::new() };
                add(
                    &file.path,
                    format!(
                        "{expiry}same subject as {} ({}) and another key or certificate: left by a node template?",
                        name,
                        same.anchor.fingerprint.fp16()
                    ),
                );
            } else if expired {
                add(&file.path, format!("{name} expired {}", Time(anchor.not_after)));
            }
        }
        if file.taken && file.anchors.len() > 1 && observed.store.pastes_files {
            add(
                &file.path,
                format!(
                    "{} certificates in one file: OpenSSL's directory gets a link to none of them",
                    file.anchors.len()
                ),
            );
        }
    }
    rows
}

#[cfg(test)]
mod tests;
