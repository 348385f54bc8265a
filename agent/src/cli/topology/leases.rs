//! The Leases of the fleet's restarts, by the user's own rights: read for the screen; a halt is ended by `--resume`.

use anyhow::{anyhow, bail};
use hyper::{Method, StatusCode};
use nodetrust_core::{
    fleet::{
        lease::{CANARY_LEASE, CanaryMark, FleetLeases, SlotChange, slot_name},
        slots::SlotTiming,
    },
    text::plural,
    time::{MicroTime, Time},
    topology::{Fleet, FleetRestarts},
};
use serde::Serialize;
use serde_json::Value;

use super::{
    cluster::{Cluster, words_of_refusal},
    screen::short_digest,
};
use crate::{
    cli::{context::Context, exit_code::OK},
    host,
    query::query_value,
    text::wrap::{answer, labelled},
};

/// The ConfigMap with the agents' configuration.
const CONFIG_MAP: &str = "nodetrust-config";

/// What `--resume` has done.
#[derive(Debug, Serialize)]
struct Resumed {
    /// The halts that were ended, in sentences.
    ended: Vec<String>,
    /// The set for which nobody waits for a canary any more; None if nobody waited.
    #[serde(skip_serializing_if = "Option::is_none")]
    passed: Option<String>,
}

impl Cluster {
    fn leases_path(&self) -> String {
        format!("/apis/coordination.k8s.io/v1/namespaces/{}/leases", self.namespace)
    }

    /// The Leases of the fleet; None if the user may not list them.
    async fn leases(&self) -> anyhow::Result<Option<FleetLeases>> {
        let doing = format!("list the Leases in the namespace {}", self.namespace);
        let (status, body) = self.call(Method::GET, &self.leases_path(), None, &doing).await?;
        if matches!(status, StatusCode::FORBIDDEN | StatusCode::NOT_FOUND) {
            return Ok(None);
        }
        if !status.is_success() {
            bail!("failed to {doing}: {} answers {}{}", self.server, status.as_u16(), words_of_refusal(&body));
        }
        let list: Value = serde_json::from_slice(&body)
            .map_err(|error| anyhow!("failed to {doing}: the answer is no list: {error}"))?;
        Ok(Some(FleetLeases::read(list["items"].as_array().into_iter().flatten())))
    }

    /// The restarts of the fleet as its Leases tell them; None if the user may not see them.
    pub(super) async fn restarts(&self) -> anyhow::Result<Option<FleetRestarts>> {
        Ok(self.leases().await?.as_ref().map(FleetRestarts::of))
    }

    /// `fleet.canarySelector` of the agents' configuration, if no Node matches it. What cannot be read says nothing.
    pub(super) async fn unmatched_canary(&self) -> Option<String> {
        let path = format!("/api/v1/namespaces/{}/configmaps/{CONFIG_MAP}", self.namespace);
        let object = self.object(&path).await?;
        let config: Value = serde_saphyr::from_str(object["data"]["config.yaml"].as_str()?).ok()?;
        let selector = config["fleet"]["canarySelector"].as_str().filter(|selector| !selector.is_empty())?;
        let mut path = "/api/v1/nodes?limit=1&labelSelector=".to_owned();
        path.extend(query_value(selector));
        let nodes = self.object(&path).await?;
        nodes["items"].as_array()?.is_empty().then(|| selector.to_owned())
    }

    async fn object(&self, path: &str) -> Option<Value> {
        let (status, body) = self.call(Method::GET, path, None, "read").await.ok()?;
        serde_json::from_slice(&body).ok().filter(|_| status.is_success())
    }

    async fn patch_lease(&self, lease: &str, patch: Value) -> anyhow::Result<()> {
        let doing = format!("write the Lease {}/{lease}", self.namespace);
        let path = format!("{}/{lease}", self.leases_path());
        let (status, body) = self.call(Method::PATCH, &path, Some(patch), &doing).await?;
        self.allowed(status, &body, &doing)
    }

    fn allowed(&self, status: StatusCode, body: &[u8], doing: &str) -> anyhow::Result<()> {
        let advice = match status {
            status if status.is_success() => return Ok(()),
            StatusCode::CONFLICT => "it has changed meanwhile: look again with `nodetrust topology`",
            StatusCode::FORBIDDEN => "have an administrator allow patch of Leases in that namespace",
            _ => "try again",
        };
        bail!("failed to {doing}: {} answers {}{}; {advice}", self.server, status.as_u16(), words_of_refusal(body))
    }
}

/// Ends every halt, and lets nobody wait any more for a canary that there is not.
pub(super) async fn resume(context: &Context, cluster: &Cluster, fleet: &Fleet) -> anyhow::Result<u8> {
    let Some(leases) = cluster.leases().await? else {
        bail!(
            "failed to list the Leases in the namespace {}: you may not, or there is none; name that of nodetrust with --namespace",
            cluster.namespace
        )
    };
    let now = MicroTime(host::wall_milliseconds().saturating_mul(1000));
    let mut resumed = Resumed { ended: Vec::new(), passed: None };
    for (slot, halt) in leases.halts() {
        let name = slot_name(slot.index);
        let patch = SlotChange::Resume.patch(&slot.version, SlotTiming::default().lease_seconds(), now);
        cluster.patch_lease(&name, patch).await?;
        resumed.ended.push(format!("the halt of {} since {} is ended: {}", halt.node, halt.since, halt.reason));
    }
    let wanted = fleet.sources_digest.clone();
    if let (Some(_), Some(digest)) = (cluster.unmatched_canary().await, wanted) {
        let mark = CanaryMark { digest: digest.clone(), healthy_since: Time(host::wall()).to_string(), passed: true };
        match &leases.canary {
            Some(lease) => cluster.patch_lease(CANARY_LEASE, mark.patch(&lease.version)).await?,
            None => {
                let doing = format!("create the Lease {}/{CANARY_LEASE}", cluster.namespace);
                let created = cluster.call(Method::POST, &cluster.leases_path(), Some(mark.object()), &doing).await?;
                cluster.allowed(created.0, &created.1, &doing)?;
            }
        }
        resumed.passed = Some(digest);
    }
    context.print(&resumed, |style| {
        let (word, text) = match resumed.ended.len() {
            0 if resumed.passed.is_none() => {
                (("NOTHING TO RESUME", "1"), "no halt, and nobody waits for a canary".to_owned())
            }
            count => {
                (("RESUMED", "1;32"), format!("{} ended; the others go on within a minute", plural(count, "halt")))
            }
        };
        let mut out = answer(&cluster.name, word, &text, style);
        for ended in &resumed.ended {
            out.push_str(&labelled("HALT", ended, style));
        }
        if let Some(digest) = &resumed.passed {
            let text = format!(
                "no Node matches fleet.canarySelector; nobody waits for one with the set {}",
                short_digest(digest)
            );
            out.push_str(&labelled("CANARY", &text, style));
        }
        out
    })?;
    Ok(OK)
}
