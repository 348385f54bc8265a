//! `nodetrust topology`: all nodes of a cluster side by side. Also what `kubectl nodetrust` runs.

mod approve;
mod cluster;
mod config_map;
mod proxy;
mod screen;

pub(crate) use cluster::{read_page, words_of_refusal};
pub(crate) use proxy::is_direct;

use nodetrust_core::topology::{FleetVerdict, fleet};

use super::{
    arguments::{ClusterAccess, FleetActs},
    context::Context,
    exit_code::{FINDINGS, OK},
};
use cluster::Cluster;

pub(super) fn main(context: &Context, access: &ClusterAccess, acts: &FleetActs) -> anyhow::Result<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    if let Some(request) = &acts.approve_removal {
        return runtime.block_on(async {
            let cluster = Cluster::connect(access).await?;
            approve::approve(context, &cluster, request, acts.force).await
        });
    }
    let (name, members) = runtime.block_on(async {
        let cluster = Cluster::connect(access).await?;
        let members = cluster.members().await?;
        anyhow::Ok((cluster.name, members))
    })?;
    let fleet = fleet(members, crate::host::wall());
    context.print(&fleet, |style| screen::screen(&name, &fleet, style))?;
    Ok(if fleet.verdict == FleetVerdict::Uniform { OK } else { FINDINGS })
}
