//! `nodetrust run`: the agent.

use nodetrust_core::action::ExportFormat;

use super::{context::Context, exit_code::OK};
use crate::{
    config::Settings,
    host::{ledger_file, root::HostRoot},
    log::{self, LogArguments},
};

pub(super) fn main(context: &Context, log: LogArguments) -> anyhow::Result<u8> {
    // fields without effect are told in the log
    let settings = Settings::read(&context.config_path());
    let settings = settings.or_else(|error| of_an_earlier_version(context).ok_or(error))?;
    log::for_agent(log, settings.log);
    crate::agent::run(settings, context.config_path(), &context.host_root)?;
    Ok(OK)
}

/// The configuration as the version before understood it, if that has exported a bundle on this node to the path that is in it. So
/// an upgrade does not end the agent: it says that the path is an error, keeps that file current, and follows everything else.
fn of_an_earlier_version(context: &Context) -> Option<Settings> {
    let settings = Settings::read_earlier_rules(&context.config_path()).ok()?;
    let root = HostRoot::open(&context.host_root).ok()?;
    let ledger_file::LedgerRead::Good(ledger) = ledger_file::read(&root).ok()? else { return None };
    let is_known = ledger.exports.contains(settings.export.get(&ExportFormat::Pem)?);
    (is_known && !settings.sources.is_empty()).then_some(settings)
}
