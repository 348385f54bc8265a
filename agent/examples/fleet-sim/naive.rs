//! What a fleet does that watches the Leases and takes a free one as soon as it sees it: no turn, no pause, no halt.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use http_body_util::BodyExt as _;
use hyper::Request;
use kube::client::Body;
use nodetrust_core::fleet::lease::slot_name;
use serde_json::{Value, json};

use super::{RunTally, SimulationPlan, enter, leave};

/// Where the Leases are.
pub(crate) const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/nodetrust/leases";

/// A node that wants to restart once.
pub(crate) async fn node(
    index: usize,
    plan: SimulationPlan,
    client: kube::Client,
    tally: Arc<RunTally>,
    began: Instant,
) -> anyhow::Result<()> {
    let name = format!("sim-{index:05}");
    loop {
        count(&tally, "list", None);
        let list: Value = client.request(Request::get(LEASES).body(Vec::new())?).await?;
        if let Some(slot) = free(&list, plan.slots as usize)
            && take(&client, &slot, &name, &tally, index).await?
        {
            enter(&tally, began);
            tokio::time::sleep(plan.restart).await;
            leave(&tally, began);
            count(&tally, "patch", Some(index));
            let patch = json!({"spec": {"holderIdentity": ""}});
            let _: Value = client.request(patch_of(&slot_name(slot.0), &patch)?).await?;
            tally.done.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        // until anything changes
        count(&tally, "watch", None);
        let version = list["metadata"]["resourceVersion"].as_str().unwrap_or_default();
        let watch = format!("{LEASES}?watch=1&resourceVersion={version}&timeoutSeconds=300");
        let mut events = client.send(Request::get(watch).body(Body::empty())?).await?.into_body();
        let _ = events.frame().await; // whatever it says, and also if it ends: the list says what is so
    }
}

/// A slot that nobody holds, and the version of its Lease if it has one.
type FreeSlot = (usize, Option<String>);

fn free(list: &Value, slots: usize) -> Option<FreeSlot> {
    let items = list["items"].as_array()?;
    (0..slots).find_map(|index| {
        let Some(lease) = items.iter().find(|lease| lease["metadata"]["name"] == slot_name(index).as_str()) else {
            return Some((index, None));
        };
        let version = lease["metadata"]["resourceVersion"].as_str()?.to_owned();
        lease["spec"]["holderIdentity"].as_str().unwrap_or_default().is_empty().then_some((index, Some(version)))
    })
}

async fn take(
    client: &kube::Client,
    (slot, version): &FreeSlot,
    name: &str,
    tally: &RunTally,
    index: usize,
) -> anyhow::Result<bool> {
    let lease = slot_name(*slot);
    let request = match version {
        Some(version) => {
            count(tally, "patch", Some(index));
            let patch = json!({"metadata": {"resourceVersion": version}, "spec": {"holderIdentity": name}});
            patch_of(&lease, &patch)?
        }
        None => {
            count(tally, "create", Some(index));
            let object = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": lease}, "spec": {"holderIdentity": name}});
            Request::post(LEASES).header("content-type", "application/json").body(object.to_string().into_bytes())?
        }
    };
    match client.request::<Value>(request).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 409 => {
            tally.conflicts.fetch_add(1, Ordering::Relaxed);
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}

fn patch_of(lease: &str, patch: &Value) -> Result<Request<Vec<u8>>, hyper::http::Error> {
    let request = Request::patch(format!("{LEASES}/{lease}")).header("content-type", "application/merge-patch+json");
    request.body(patch.to_string().into_bytes())
}

fn count(tally: &RunTally, verb: &'static str, writer: Option<usize>) {
    *tally.calls.lock().unwrap().entry(verb).or_default() += 1;
    if let Some(index) = writer {
        tally.writes.lock().unwrap()[index] += 1;
    }
}
