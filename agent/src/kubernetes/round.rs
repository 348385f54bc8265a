//! One round of calls to the API server: what is due together.

use std::collections::BTreeSet;

use hyper::StatusCode;
use nodetrust_core::{
    node_status::{self, NodeEvent, NodeObject, Signals},
    time::Time,
};

use super::{
    account::AccountFiles,
    api::Api,
    failure::{ApiFailure, FailureCause},
};
use crate::host;

/// How often a write is repeated at once because somebody else has changed the Node since it was read (409).
const CONFLICT_RETRIES: u32 = 8;

/// Calls that are due together.
pub(super) struct Round {
    pub(super) node: String,
    pub(super) signals: Option<Signals>,
    pub(super) known: Option<NodeObject>,
    /// the Node is read because it is time to, not because a write failed
    pub(super) periodic: bool,
    pub(super) events: Vec<NodeEvent>,
}

/// What came of the calls.
pub(super) struct RoundResult {
    pub(super) object: Option<Result<WrittenNode, ApiFailure>>,
    pub(super) sent: Vec<NodeEvent>,
    pub(super) events: Option<Result<(), ApiFailure>>,
    /// the files that the calls were made with
    pub(super) account: AccountFiles,
}

/// The Node, after every write.
pub(super) struct WrittenNode {
    /// as the server shows it
    pub(super) node: NodeObject,
    /// its condition had the same reason when it was read
    pub(super) had_reason: bool,
    /// it had the startup taint, which is gone
    pub(super) untainted: bool,
}

impl Round {
    /// Makes the calls.
    pub(super) async fn run(self) -> RoundResult {
        let account = AccountFiles::read();
        let mut told = RoundResult { object: None, sent: Vec::new(), events: None, account };
        let api = match Api::new(&self.node) {
            Ok(api) => api,
            Err(failure) => {
                told.object = self.signals.as_ref().map(|_| Err(failure.clone()));
                told.events = (!self.events.is_empty()).then_some(Err(failure));
                return told;
            }
        };
        if let Some(signals) = &self.signals {
            told.object = Some(bring(&api, signals, self.known, self.periodic).await);
        }
        if matches!(&told.object, Some(Err(failure)) if failure.next_call_would_fail()) {
            return told; // the events wait
        }
        for event in self.events {
            let result = api.tell(&event).await;
            let ends = result.is_err();
            told.events = Some(result);
            if ends {
                break;
            }
            told.sent.push(event);
        }
        told
    }
}

/// Writes to the Node what differs from the wanted signals.
async fn bring(
    api: &Api,
    signals: &Signals,
    known: Option<NodeObject>,
    periodic: bool,
) -> Result<WrittenNode, ApiFailure> {
    let mut node = match known {
        Some(node) => node,
        None => api.read(periodic).await?,
    };
    let had_reason = node
        .condition()
        .zip(signals.condition.as_ref())
        .is_some_and(|(is, (wanted, _))| is.reason == wanted.reason.as_str());
    let mut tried = BTreeSet::new();
    let mut failure = None;
    let mut conflicts = 0;
    // Computed again after each patch: the next patch names the version that the last one made.
    while let Some(write) =
        node_status::writes(signals, &node, Time(host::wall())).into_iter().find(|write| !tried.contains(write.what))
    {
        match api.write(&write).await {
            Ok(new) => node = new,
            Err(refused)
                if refused.cause == FailureCause::Refused(StatusCode::CONFLICT) && conflicts < CONFLICT_RETRIES =>
            {
                conflicts += 1;
                node = api.read(false).await?;
                continue;
            }
            // One part may be forbidden while the others are allowed.
            Err(refused) if matches!(refused.cause, FailureCause::Refused(is) if is.is_client_error() && is != 429) => {
                let of_foreign_taint = write.what == node_status::TAINT && signals.takes_foreign_taint();
                failure.get_or_insert(ApiFailure { of_foreign_taint, ..refused });
            }
            Err(other) => return Err(other),
        }
        tried.insert(write.what);
        conflicts = 0;
    }
    if let Some(failure) = failure {
        return Err(failure);
    }
    match node_status::writes(signals, &node, Time(host::wall())).first() {
        None => Ok(WrittenNode { node, had_reason, untainted: tried.contains(node_status::TAINT) }),
        Some(write) => Err(ApiFailure::of(
            FailureCause::Content,
            &format!("the Node's {} is not as it was written", write.what),
            None,
        )),
    }
}
