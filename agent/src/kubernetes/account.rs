//! The pod's service account as files: a token, which the kubelet renews, and the CA of the API server.
//!
//! A try that failed for want of another token, or of another CA, is made again as soon as the files change: its pause may have
//! minutes to go.

use std::{path::Path, time::Duration};

use hyper::StatusCode;
use nodetrust_core::certificate::fingerprint::content_digest;
use tokio::time::sleep;

use super::api::{Cause, Failure};
use crate::{agent::watch::Hints, host::file::read_file, reconcile::Trigger};

/// Where a pod finds its token and the API server's CA.
pub(super) const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Largest file that is looked at, in bytes.
const LIMIT: u64 = 1 << 20;
/// Time between two looks where the kernel does not tell of changes: no inotify instance or watch is left.
const POLL: Duration = Duration::from_secs(10);
/// And where it does, should it have lost an event.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// What the files hold, as digests: a token is a secret. None for a file that cannot be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct AccountFiles {
    pub(super) token: Option<[u8; 32]>,
    pub(super) ca: Option<[u8; 32]>,
}

impl AccountFiles {
    /// Reads them.
    pub(super) fn read() -> Self {
        let digest = |name| read_file(&Path::new(ACCOUNT).join(name), LIMIT).ok().map(|bytes| content_digest(&bytes));
        Self { token: digest("token"), ca: digest("ca.crt") }
    }

    /// Whether a failure is one that other files may cure.
    pub(super) fn may_matter_to(failure: &Failure) -> bool {
        let [none, some] = [None, Some([0; 32])].map(|digest| Self { token: digest, ca: digest });
        none.may_be_cured_by(&some, failure)
    }

    /// Whether a try that failed with these files may do better with others.
    pub(super) fn may_be_cured_by(&self, others: &Self, failure: &Failure) -> bool {
        match failure.cause {
            Cause::Account => self != others,
            // an admission policy reads the token's claims too, such as the Node that it is bound to
            Cause::Refused(StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::UNPROCESSABLE_ENTITY) => {
                self.token != others.token
            }
            // the server's certificate may not have been trusted
            Cause::NoAnswer => self.ca != others.ca,
            Cause::Refused(_) | Cause::Content => false,
        }
    }
}

/// Waits for the files to change. It holds an inotify instance while it does.
#[derive(Debug, Default)]
pub(super) struct AccountWatch(Hints);

impl AccountWatch {
    /// Returns the files as soon as they are others than these. It may be dropped and called again.
    pub(super) async fn changed(&mut self, from: &AccountFiles) -> AccountFiles {
        loop {
            self.0.watch(&[(ACCOUNT.into(), Trigger::Retry)]); // before the look: what changes after it is told
            let now = AccountFiles::read();
            if now != *from {
                return now;
            }
            let is_told = self.0.see_all();
            tokio::select! {
                Some(_) = self.0.next() => {}
                // also where the kernel stops telling
                () = sleep(if is_told { LONGEST_SLEEP } else { POLL }) => {}
            }
        }
    }

    /// Gives the inotify instance back.
    pub(super) fn rest(&mut self) {
        self.0 = Hints::default();
    }
}
