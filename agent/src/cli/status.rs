//! `nodetrust status`: one screen, from facts read off the host. Works with no agent running and without a configuration.

use super::{Context, FINDINGS, OK, table};
use crate::reconcile::Reconciler;

pub(super) fn main(context: &Context) -> anyhow::Result<u8> {
    let mut reconciler = Reconciler::new(&context.host_root)?;
    let (settings, problem) = context.settings_or_problem();
    let mut report = match settings {
        Some(settings) => reconciler.inspect(&settings),
        None => reconciler.inspect_by_ledger(),
    };
    if let Some(problem) = problem {
        report.add_problem(problem);
    }
    context.print(&report, |style| table::status(&report, style))?;
    Ok(if report.is_healthy() { OK } else { FINDINGS })
}
