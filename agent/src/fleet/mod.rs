//! This node's part in a fleet that restarts its runtimes a few at a time.
//!
//! A task of its own runs beside the cycles. It learns from each cycle whether a restart is due, asks the other nodes over Leases, and
//! gives or takes back the permit that the cycle asks for right before the restart. What is asked, and what follows from an answer, is
//! decided by `nodetrust_core::fleet`; `member` brings both together, and `calls` makes the calls.

pub mod call;
#[cfg(feature = "kubernetes")]
pub mod calls;
pub mod clock;
pub mod facts;
pub mod line;
mod member;
pub mod permit;
mod work;

#[cfg(feature = "kubernetes")]
use std::sync::Arc;

use nodetrust_core::fleet::slots::SlotTiming;
use tokio::time::sleep;

#[cfg(feature = "kubernetes")]
use crate::{fleet::calls::ClusterCaller, host::root::HostRoot, kubernetes::FleetApi};

use clock::FleetClock;
use member::FleetMember;

pub use call::{Caller, FleetAnswer, FleetCall};
pub use line::{FleetInputs, FleetLine};

/// Takes part in the fleet of the cluster in which this agent is a pod, for ever.
#[cfg(feature = "kubernetes")]
pub async fn of_cluster(node: String, inputs: FleetInputs, line: FleetLine, root: HostRoot) {
    let timing = SlotTiming::default();
    let named = node.clone();
    let connect = Box::new(move || FleetApi::new(&named));
    let caller = ClusterCaller::new(connect, timing, Some(Arc::new(root)));
    serve(node, inputs, line, FleetClock::of_machine(), timing, caller).await;
}

/// Takes part in a fleet, for ever, or until nobody tells of the node any more.
pub async fn serve(
    node: String,
    mut inputs: FleetInputs,
    line: FleetLine,
    clock: FleetClock,
    timing: SlotTiming,
    mut caller: impl Caller,
) {
    let permit = line.permit.clone();
    let mut member = FleetMember::new(node, line, clock, timing);
    member.follow(inputs.settings.borrow_and_update().clone());
    inputs.facts.mark_changed(); // what is there already counts
    loop {
        // facts are taken once: only those of a later look say how a node is after its restart
        if inputs.facts.has_changed().unwrap_or(false) {
            let facts = inputs.facts.borrow_and_update().clone();
            facts.into_iter().for_each(|facts| member.take(facts));
        }
        member.turn();
        if let Some(call) = member.next_call() {
            // no event is lost meanwhile: the channels keep the last value, and the permit its state
            let answer = caller.call(call).await;
            member.answered(answer);
            continue;
        }
        tokio::select! {
            changed = inputs.facts.changed() => {
                if changed.is_err() {
                    return;
                }
                inputs.facts.mark_changed(); // taken above
            }
            changed = inputs.settings.changed() => {
                if changed.is_err() {
                    return;
                }
                member.follow(inputs.settings.borrow_and_update().clone());
            }
            () = permit.used() => {}
            () = sleep(member.sleep()) => {}
        }
    }
}
