//! Making a report.

use std::collections::BTreeSet;

use super::{
    anchors::{anchor_rows, unplanned_rows},
    denied,
    foreign::{distrusted_rows, foreign_rows},
    inputs::ReportInputs,
    model::{AnchorRow, NodeVerdict, Report, SourceRow, StoreView},
    runtime::{by_runtime, runtime_view},
};
use crate::{
    action::{Action, ExportFormat},
    certificate::fingerprint::{Fingerprint, SetDigest},
    ledger::Ledger,
    observed::{Observed, ToollessStore},
    plan::Plan,
    pod_bundle::PodBundlePlan,
    problem::{Problem, ProblemKind},
    runtime::{service_plan::ServicePlan, trust::RuntimeTrust},
    source::{Resolved, SourceState},
    store::{Detection, os_release::OsRelease},
    time::Time,
};

/// Makes a report.
pub fn build(inputs: ReportInputs<'_>) -> Report {
    let ReportInputs { node, now, os, detection, resolved, observed, plan, outlook, export, ledger, policy, .. } =
        inputs;
    let mut problems = inputs.problems.to_vec();
    if let Err(unsupported) = &detection.family {
        let kind = if unsupported.is_unknown { ProblemKind::Observe } else { ProblemKind::UnsupportedStore };
        problems.insert(0, Problem::new(kind, unsupported.reason.clone(), unsupported.advice.clone()));
    }
    problems.extend(export.iter().flat_map(|export| export.problems.clone()));
    problems.extend(
        observed.and_then(|observed| denied::still_trusted(observed, plan.map_or(ledger, |plan| &plan.ledger), policy)),
    );
    let failing = problems.iter().any(|problem| problem.kind.is_failure());
    let is_unfinished = plan.is_none_or(Plan::changes_store);
    let mut anchors = plan.map_or_else(|| unplanned_rows(inputs), |plan| anchor_rows(plan, inputs));
    let runtime = observed.and_then(|observed| observed.services.runtime.as_ref());
    let runtime = runtime.zip(outlook).map(|(runtime, outlook)| runtime_view(runtime, outlook, ledger, now));
    // A process that is seen for the first time has no record: nothing is said of what it trusts.
    let process = observed.and_then(|observed| observed.services.runtime.as_ref()?.service.process.as_ref());
    let record = runtime.as_ref().zip(plan).and_then(|(view, plan)| plan.ledger.services.get(&view.unit));
    let record = record.filter(|record| Some(&record.process) == process);
    for row in &mut anchors {
        row.runtime = runtime.as_ref().and_then(|view| by_runtime(view, row, record.is_some()));
    }
    let (desired_digest, effective_digest) = digests(inputs, &anchors);
    let converged = !failing && !is_unfinished && desired_digest == effective_digest;
    let distrusted = observed.zip(plan).map(|(observed, plan)| distrusted_rows(observed, plan)).unwrap_or_default();
    let foreign = observed.map(|observed| foreign_rows(observed, plan, policy, now)).unwrap_or_default();
    let mut report = Report {
        version: 1,
        node: node.to_owned(),
        time: Time(now.wall),
        verdict: NodeVerdict::NotTrusted,
        headline: String::new(),
        converged,
        desired_digest,
        sources_digest: SetDigest::of(&resolved.desired.keys().copied().collect()),
        effective_digest,
        sources: source_rows(resolved, ledger),
        anchors,
        store: store_view(os, detection, observed, inputs.without_tool),
        runtime,
        runtime_trust: outlook.map_or_else(RuntimeTrust::unseen, |outlook| outlook.trust.clone()),
        export: export.and_then(|export| export.views.get(&ExportFormat::Pem).cloned()),
        export_pkcs12: export.and_then(|export| export.views.get(&ExportFormat::Pkcs12).cloned()),
        foreign,
        distrusted,
        fleet: None,
        problems,
        pending: pending(plan, outlook, export),
        next: Vec::new(),
        cycle: None,
        changed: ledger.changed.map(Time),
    };
    report.conclude();
    report
}

/// What is still to be done, in the order in which it is done.
fn pending(plan: Option<&Plan>, services: Option<&ServicePlan>, export: Option<&PodBundlePlan>) -> Vec<Action> {
    let store = plan.into_iter().flat_map(|plan| &plan.actions).cloned().map(Action::Store);
    let services = services.into_iter().flat_map(|services| &services.actions).cloned().map(Action::Service);
    let export = export.into_iter().flat_map(|export| &export.actions).cloned().map(Action::PodBundle);
    store.chain(services).chain(export).collect()
}

/// Without a plan every row is of an anchor that should be trusted.
fn digests(inputs: ReportInputs<'_>, rows: &[AnchorRow]) -> (SetDigest, SetDigest) {
    let (desired, effective): (BTreeSet<Fingerprint>, BTreeSet<Fingerprint>) = match inputs.plan.zip(inputs.observed) {
        Some((plan, observed)) => {
            (plan.targets.keys().copied().collect(), plan.in_force(observed, &observed.effective.set))
        }
        None => {
            let trusted = rows.iter().filter(|row| row.trusted);
            (rows.iter().map(|row| row.sha256).collect(), trusted.map(|row| row.sha256).collect())
        }
    };
    (SetDigest::of(&desired), SetDigest::of(&effective))
}

fn source_rows(resolved: &Resolved, ledger: &Ledger) -> Vec<SourceRow> {
    let row = |source: &SourceState| SourceRow {
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

fn store_view(
    os: &OsRelease,
    detection: &Detection,
    observed: Option<&Observed>,
    without_tool: Option<&ToollessStore>,
) -> StoreView {
    let mut view = StoreView {
        because: detection.because.clone(),
        os_id: os.id.clone(),
        os_version: os.version_id.clone(),
        os_name: os.pretty_name.clone(),
        was_read: observed.is_some() || without_tool.is_some(),
        ..StoreView::default()
    };
    if let Ok(family) = detection.family {
        let store = family.store();
        view.family = Some(family);
        view.anchors_dir = store.anchors_dir.to_owned();
        view.bundle = store.bundle.to_owned();
    }
    if let Some(ToollessStore { store, effective }) = without_tool {
        view.anchors_dir = store.anchors_dir.to_owned();
        view.bundle = store.bundle.to_owned();
        view.certificates = effective.count;
    }
    if let Some(observed) = observed {
        view.certificates = observed.effective.count;
        view.foreign_files = observed.foreign.len();
        let own = observed.ours.values().filter_map(|own| own.anchor.as_ref());
        view.ours = own.filter(|anchor| observed.effective.set.contains(&anchor.fingerprint)).count();
    }
    view
}
