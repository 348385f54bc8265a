//! `nodetrust topology`: all nodes of a cluster side by side. Also what `kubectl nodetrust` runs.

mod cluster;
mod page;
mod proxy;
mod screen;

pub(crate) use cluster::{read_page, words_of_refusal};
pub(crate) use proxy::is_direct;

use nodetrust_core::{
    time::Time,
    topology::{FleetVerdict, fleet},
};

use super::{
    arguments::{ClusterAccess, OutputFormat},
    context::Context,
    exit_code::{FINDINGS, OK},
    stdio::write_out,
};
use cluster::Cluster;

pub(super) fn main(context: &Context, access: &ClusterAccess) -> anyhow::Result<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (name, members) = runtime.block_on(async {
        let cluster = Cluster::connect(access).await?;
        let members = cluster.members().await?;
        anyhow::Ok((cluster.name, members))
    })?;
    let now = crate::host::wall();
    let fleet = fleet(members, now);
    match context.output {
        OutputFormat::Html => write_out(&page::page(&name, &fleet, Time(now)))?,
        _ => context.print(&fleet, |style| screen::screen(&name, &fleet, style))?,
    }
    Ok(if fleet.verdict == FleetVerdict::Uniform { OK } else { FINDINGS })
}
