//! Waiting for other files of the service account.
//!
//! A call that failed because of the token or the CA is made again as soon as the files change: its pause may have minutes to go.

use std::time::Duration;

use tokio::time::sleep;

use super::account::{ACCOUNT, AccountFiles};
use crate::agent::watch::Hints;
use nodetrust_core::cycle::Trigger;

/// Time between two looks where the kernel does not tell of changes: no inotify instance or watch is left.
const POLL: Duration = Duration::from_secs(10);
/// And where it does: an event may be lost.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// Waits for the files to change. It holds an inotify instance while it does.
#[derive(Debug, Default)]
pub(super) struct AccountWatch(Hints);

impl AccountWatch {
    /// Returns the files as soon as they differ from these. The future may be dropped and called again.
    pub(super) async fn changed(&mut self, from: &AccountFiles) -> AccountFiles {
        loop {
            self.0.watch(&[(ACCOUNT.into(), Trigger::Retry)]); // before the look: a change after it is an event
            let now = AccountFiles::read();
            if now != *from {
                return now;
            }
            let is_told = self.0.see_all();
            tokio::select! {
                Some(_) = self.0.next() => {}
                // also if the kernel stops telling
                () = sleep(if is_told { LONGEST_SLEEP } else { POLL }) => {}
            }
        }
    }

    /// Gives the inotify instance back.
    pub(super) fn rest(&mut self) {
        self.0 = Hints::default();
    }
}
