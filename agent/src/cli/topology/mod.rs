//! `nodetrust topology`: all nodes of a cluster side by side. Also what `kubectl nodetrust` runs.

mod approve;
mod calls;
mod cluster;
mod config_map;
mod leases;
mod page;
mod proxy;
mod screen;
mod watch;

pub(crate) use cluster::{read_page, words_of_refusal};
pub(crate) use proxy::is_direct;

use nodetrust_core::{
    time::Time,
    topology::{FleetRestarts, FleetVerdict, fleet},
};

use super::{
    arguments::{ClusterAccess, FleetActs, OutputFormat},
    context::Context,
    exit_code::{FINDINGS, OK},
    stdio::write_out,
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
    runtime.block_on(async {
        let cluster = Cluster::connect(access).await?;
        if acts.watch {
            return watch::watch(context, &cluster).await;
        }
        let now = crate::host::wall();
        let mut fleet = fleet(cluster.members().await?, now);
        if acts.resume {
            return leases::resume(context, &cluster, &fleet).await;
        }
        fleet.restarts = cluster.restarts().await?;
        if let Some(restarts) = &mut fleet.restarts {
            restarts.no_canary = cluster.unmatched_canary().await;
        }
        match context.output {
            OutputFormat::Html => write_out(&page::page(&cluster.name, &fleet, Time(now)))?,
            _ => context.print(&fleet, |style| screen::screen(&cluster.name, &fleet, style))?,
        }
        let is_stopped = fleet.restarts.as_ref().is_some_and(FleetRestarts::is_halted);
        Ok(if fleet.verdict == FleetVerdict::Uniform && !is_stopped { OK } else { FINDINGS })
    })
}
