//! `nodetrust uninstall`: removes all that is ours, proves it, and leaves the rest byte for byte.

use super::{
    context::Context,
    exit_code::{FAILURE, OK},
};
use crate::{reconcile::Reconciler, text};

pub(super) fn main(context: &Context) -> anyhow::Result<u8> {
    // only the store's settings matter, and a node must be cleaned also when the configuration is gone
    let settings = context.earlier_rules_if_any()?.unwrap_or_default();
    let report = Reconciler::new(&context.host_root)?.uninstall(&settings);
    context.print(&report, |style| text::report::uninstalled(&report, style))?;
    let clean = report.anchors.is_empty() && !report.problems.iter().any(|problem| problem.kind.is_failure());
    Ok(if clean { OK } else { FAILURE })
}
