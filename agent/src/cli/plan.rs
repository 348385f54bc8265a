//! `nodetrust plan`: what `apply` would do.

use super::{
    context::Context,
    exit_code::{FAILURE, FINDINGS, OK},
    stdio::complain,
};
use crate::{reconcile::Reconciler, text};

pub(super) fn main(context: &Context) -> anyhow::Result<u8> {
    let settings = context.settings()?;
    let report = Reconciler::new(&context.host_root)?.inspect(&settings);
    context.print(&report.pending, |style| text::report::plan(&report, style))?;
    let awaited = report.awaited_source().filter(|_| report.pending.is_empty());
    if let Some(source) = awaited {
        complain(&format!("source {}: {} ({})", source.name, source.detail, source.origin));
    }
    for problem in report.problems.iter().filter(|_| report.pending.is_empty()) {
        let next = if problem.next.is_empty() { String::new() } else { format!("; {}", problem.next) };
        complain(&format!("{}{next}", problem.text)); // the list of actions alone would say that all is well
    }
    let fails = awaited.is_some() || report.problems.iter().any(|problem| problem.kind.is_failure());
    let blocked = report.pending.is_empty() && fails;
    Ok(match (report.pending.is_empty(), blocked) {
        (_, true) => FAILURE,
        (true, false) => OK,
        (false, false) => FINDINGS,
    })
}
