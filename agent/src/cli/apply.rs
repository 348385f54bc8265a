//! `nodetrust apply`: one full cycle, for boot, cloud-init, kubeadm or a systemd oneshot.

use std::sync::Arc;

use super::{
    context::Context,
    exit_code::{FAILURE, FINDINGS, OK},
};
use crate::{reconcile::Reconciler, text::report};
use nodetrust_core::cycle::Trigger;

pub(super) fn main(context: &Context) -> anyhow::Result<u8> {
    let settings = Arc::new(context.settings()?);
    let result = Reconciler::new(&context.host_root)?.cycle(&settings, Trigger::Command);
    context.print(&result.report, |style| report::applied(&result.report, style))?;
    let report = &result.report;
    // a restart that is held is a finding too, and so is a runtime of which it is not known whether it trusts
    let held = report.runtime.as_ref().is_some_and(|runtime| runtime.held.is_some());
    let doubtful = held || !report.runtime_trust.state.is_green();
    Ok(match (report.converged, report.has_findings() || !report.problems.is_empty() || doubtful) {
        (false, _) => FAILURE,
        (true, true) => FINDINGS,
        (true, false) => OK,
    })
}
