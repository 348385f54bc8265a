//! `nodetrust status`: one screen, from facts read off the host. Works with no agent running and without a configuration.

use std::time::Duration;

use super::{
    context::Context,
    exit_code::{FINDINGS, OK, USAGE},
    stdio::complain,
};
use crate::{reconcile::Reconciler, text};

/// An agent whose `resync` is not known runs a cycle in this time.
const PATIENCE: Duration = Duration::from_secs(3600);

pub(super) fn main(context: &Context) -> anyhow::Result<u8> {
    let mut reconciler = Reconciler::new(&context.host_root)?;
    let (settings, problem) = context.settings_or_problem();
    let (mut report, patience) = match settings {
        Some(settings) => (reconciler.inspect(&settings), settings.resync * 3),
        None => (reconciler.inspect_by_ledger(), PATIENCE),
    };
    report.doubt_agent(patience.as_secs());
    let broken = problem.is_some();
    if let Some(problem) = problem {
        complain(&problem.text);
        report.add_problem(problem);
    }
    context.print(&report, |style| text::status::screen(&report, style))?;
    Ok(match (broken, report.is_healthy()) {
        (true, _) => USAGE, // what is on the host is shown all the same
        (false, true) => OK,
        (false, false) => FINDINGS,
    })
}
