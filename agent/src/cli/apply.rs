//! `nodetrust apply`: one full cycle, for boot, cloud-init, kubeadm or a systemd oneshot.

use std::sync::Arc;
#[cfg(feature = "kubernetes")]
use std::time::Duration;

#[cfg(feature = "kubernetes")]
use anyhow::Context as _;
#[cfg(feature = "kubernetes")]
use tokio::sync::watch;

use super::{
    context::Context,
    exit_code::{FAILURE, FINDINGS, OK, USAGE},
    stdio::complain,
};
use crate::{
    config::Settings,
    reconcile::{CycleResult, Reconciler},
    text::report,
};
#[cfg(feature = "kubernetes")]
use crate::{
    fleet::{self, FleetInputs, FleetLine, facts::NodeFacts, permit::PermitState},
    host::{self, root::HostRoot, threads},
};
use nodetrust_core::cycle::Trigger;

/// How long a slot may take to be given back. One that is not runs out by itself.
#[cfg(feature = "kubernetes")]
const GIVING_BACK: Duration = Duration::from_secs(30);

/// `slot`: a restart that is due waits for the other nodes, as the agent does.
pub(super) fn main(context: &Context, slot: bool) -> anyhow::Result<u8> {
    let settings = Arc::new(context.settings()?);
    if slot && settings.fleet.is_none() {
        let config = context.config_path();
        complain(&format!(
            "--slot: {} has no `fleet` section, which says how many nodes may restart",
            config.display()
        ));
        return Ok(USAGE);
    }
    let result = if slot {
        in_turn(context, &settings)?
    } else {
        Reconciler::new(&context.host_root)?.cycle(&settings, Trigger::Command)
    };
    context.print(&result.report, |style| report::applied(&result.report, style))?;
    let report = &result.report;
    // a restart that is held is a finding too, and so is a runtime of which it is not known whether it trusts
    let held = report.runtime.as_ref().is_some_and(|runtime| runtime.held.is_some());
    let doubtful = held || !report.runtime_trust.state.is_green();
    Ok(match (report.converged, report.has_findings() || !report.problems.is_empty() || doubtful) {
        (false, _) => FAILURE,
        (true, true) => FINDINGS,
        (true, false) => OK,
    })
}

/// A cycle, and more of them until this node has had its turn among the others: it has restarted and was seen to be healthy or not, or
/// what holds a restart back ends neither by itself nor by the fleet. The result is the last cycle's.
#[cfg(feature = "kubernetes")]
fn in_turn(context: &Context, settings: &Arc<Settings>) -> anyhow::Result<CycleResult> {
    let root = HostRoot::open(&context.host_root)
        .with_context(|| format!("failed to open the host root `{}`", context.host_root.display()))?;
    let node = host::node_name(&root);
    let line = FleetLine::at_start(settings.fleet.as_ref());
    let permit = line.permit.clone();
    let mut reconciler = Reconciler::new(&context.host_root)?;
    reconciler.follow_permit(permit.clone());
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("failed to start the runtime")?;
    let result = runtime.block_on(async {
        let (_settings, follow) = watch::channel(settings.fleet.clone());
        let (facts, told) = watch::channel(None);
        let task =
            tokio::spawn(fleet::of_cluster(node, FleetInputs { settings: follow, facts: told }, line.clone(), root));
        let (mut trigger, mut told) = (Trigger::Command, None);
        let mut result = loop {
            let settings = settings.clone();
            let cycle = threads::beside(move || {
                let result = reconciler.cycle(&settings, trigger);
                (reconciler, result)
            });
            let result;
            (reconciler, result) = cycle.await.context("a cycle has ended without a result; see the log above")?;
            facts.send_replace(Some(NodeFacts::of(&result.report)));
            let held = result.report.runtime.as_ref().and_then(|runtime| runtime.held.as_ref());
            let for_others = held.is_some_and(|held| held.reason.is_of_fleet());
            // such as the minute between two restarts
            let for_a_while = result.next_try.filter(|_| held.is_some());
            if !for_others && for_a_while.is_none() && matches!(permit.now(), PermitState::Refused(_)) {
                break result;
            }
            if let Some(held) = held
                && told.replace(held.reason) != Some(held.reason)
            {
                complain(&format!("the restart waits: {}", held.why));
            }
            trigger = match for_a_while {
                Some(seconds) => {
                    tokio::time::sleep(Duration::from_secs(seconds.saturating_add(1))).await;
                    Trigger::Retry
                }
                None => {
                    line.word.notified().await;
                    Trigger::Fleet
                }
            };
        };
        drop(facts); // the task ends once it has given its slot back
        let _ = tokio::time::timeout(GIVING_BACK, task).await;
        if let Some(view) = line.view.borrow().clone() {
            result.report.add_fleet(view);
        }
        anyhow::Ok(result)
    });
    runtime.shutdown_background();
    result
}

#[cfg(not(feature = "kubernetes"))]
fn in_turn(_: &Context, _: &Arc<Settings>) -> anyhow::Result<CycleResult> {
    anyhow::bail!("--slot: this program was built without the Kubernetes API, by which the other nodes are asked")
}
