//! `nodetrust topology`: all nodes of a cluster side by side. Also what `kubectl nodetrust` runs.

mod cluster;
mod proxy;
mod screen;

pub(crate) use cluster::{read_page, words_of_refusal};
pub(crate) use proxy::is_direct;

use std::{
    path::PathBuf,
    time::{SystemTime, UNIX_EPOCH},
};

use nodetrust_core::topology::{FleetVerdict, fleet};

use super::{Context, FINDINGS, OK};
use cluster::Cluster;

/// How the cluster is reached, in kubectl's words.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct Access {
    /// kubeconfig [default: $KUBECONFIG, else ~/.kube/config, else the pod's service account]
    #[arg(long, global = true, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig [default: the current one]
    #[arg(long, global = true, value_name = "NAME")]
    context: Option<String>,
}

pub(super) fn main(context: &Context, access: &Access) -> anyhow::Result<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (name, members) = runtime.block_on(async {
        let cluster = Cluster::connect(access).await?;
        let members = cluster.members().await?;
        anyhow::Ok((cluster.name, members))
    })?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let fleet = fleet(members, i64::try_from(now).unwrap_or(i64::MAX));
    context.print(&fleet, |style| screen::screen(&name, &fleet, style))?;
    Ok(if fleet.verdict == FleetVerdict::Uniform { OK } else { FINDINGS })
}
