//! Telling the cluster what the node trusts: the condition, annotation, events and startup taint of `nodetrust_core::node_status`.
//!
//! A task of its own takes each report as it is published; the latest one wins and nothing queues. No cycle waits for it: while the
//! API server is slow, refuses or is gone, trust is installed all the same, and the Node is written when that works again. What was
//! written is remembered as the server's answer has it, so that at rest there is one read each quarter of an hour and no write.

mod account;
mod account_watch;
mod api;
mod backoff;
mod failure;
mod leases;
mod reporter;
mod round;

use std::{future::Future, pin::Pin, sync::Arc};

use tokio::{sync::watch, time::sleep_until};

use crate::{
    config::Settings,
    serve::{Latest, metrics::Metrics},
};
use account_watch::AccountWatch;
use reporter::NodeReporter;
use round::RoundResult;

pub(crate) use account::{is_in_cluster, namespace};
pub(crate) use api::USER_AGENT_NAME;
pub(crate) use failure::words_of_refusal;
pub(crate) use leases::LeaseWritten;
pub use leases::{FleetApi, FleetCallFailure};

/// Writes to the Node for ever. The first time after the first cycle.
pub async fn serve(
    node: String,
    mut settings: watch::Receiver<Arc<Settings>>,
    mut report: Latest,
    metrics: Arc<Metrics>,
) {
    let mut reporter = NodeReporter::new(node, metrics);
    reporter.follow(&settings.borrow_and_update().kubernetes);
    let mut round: Option<Pin<Box<dyn Future<Output = RoundResult> + Send>>> = None;
    let mut account = AccountWatch::default();
    loop {
        if round.is_none()
            && let Some(due) = reporter.next_round()
        {
            round = Some(Box::pin(due.run()));
        }
        let awaits_account = round.is_none() && reporter.awaits_account();
        if !awaits_account {
            account.rest();
        }
        tokio::select! {
            changed = report.changed() => {
                if changed.is_err() {
                    return;
                }
                let latest = report.borrow_and_update().clone();
                if let Some(latest) = latest {
                    reporter.take(latest);
                }
            }
            changed = settings.changed() => {
                if changed.is_err() {
                    return;
                }
                reporter.follow(&settings.borrow_and_update().kubernetes);
            }
            told = async { match round.as_mut() { Some(round) => round.await, None => std::future::pending().await } } => {
                round = None;
                reporter.done(told);
            }
            files = account.changed(&reporter.account), if awaits_account => reporter.renew(files),
            () = sleep_until(reporter.wake()), if round.is_none() => {}
        }
    }
}
