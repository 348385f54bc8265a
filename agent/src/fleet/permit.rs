//! The permit to restart services: what the cycle asks before a restart, and what the fleet's task has granted.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use nodetrust_core::runtime::{
    service_plan::{Hold, RestartGate},
    services::HoldReason,
};
use tokio::sync::Notify;

use crate::config::FleetSettings;

/// Whether this node may restart its services now. One value, which the cycle and the fleet's task share.
#[derive(Debug, Default)]
pub struct RestartPermit {
    state: Mutex<PermitState>,
    /// a restart has begun or ended
    used: Notify,
}

/// What a permit says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum PermitState {
    /// This node belongs to no fleet: nobody is asked.
    #[default]
    NotNeeded,
    /// Not now, and why.
    Refused(Hold),
    /// A restart may begin before this time.
    Granted(Instant),
    /// A restart has begun.
    AtWork,
    /// Restarts have ended.
    Ended,
}

impl PermitState {
    /// Before the first cycle, by the `fleet` section of the configuration.
    pub fn at_start(settings: Option<&FleetSettings>) -> Self {
        settings.map_or(Self::NotNeeded, |_| Self::not_asked())
    }

    /// What a cycle is told that finds a restart due before the fleet was asked.
    pub fn not_asked() -> Self {
        let why = "the other nodes are asked first whether this one may restart".to_owned();
        Self::Refused(Hold { reason: HoldReason::Slot, why, next: String::new(), wait: None })
    }
}

impl RestartPermit {
    /// A permit that says what an earlier cycle was told, for a command that only looks.
    pub fn of(gate: RestartGate) -> Self {
        Self::new(match gate {
            RestartGate::Open => PermitState::NotNeeded,
            RestartGate::Closed(hold) => PermitState::Refused(hold),
        })
    }

    /// A permit that says this.
    pub fn new(state: PermitState) -> Self {
        Self { state: Mutex::new(state), used: Notify::new() }
    }

    /// Ends when a restart has begun or ended since the last time.
    pub async fn used(&self) {
        self.used.notified().await;
    }

    fn state(&self) -> MutexGuard<'_, PermitState> {
        // a state is replaced whole, so what another thread left behind is one
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a plan is to assume.
    pub fn gate(&self) -> RestartGate {
        match &*self.state() {
            PermitState::NotNeeded | PermitState::AtWork => RestartGate::Open,
            PermitState::Refused(hold) => RestartGate::Closed(hold.clone()),
            PermitState::Granted(until) if Instant::now() < *until => RestartGate::Open,
            PermitState::Granted(_) => RestartGate::Closed(late()),
            PermitState::Ended => RestartGate::Closed(judged()),
        }
    }

    /// Right before a restart: from here on the slot is in use.
    ///
    /// # Errors
    /// If the permit does not hold any more: why.
    pub fn begin(&self) -> Result<(), Hold> {
        let mut state = self.state();
        match &*state {
            PermitState::NotNeeded | PermitState::AtWork => Ok(()),
            PermitState::Granted(until) if Instant::now() < *until => {
                *state = PermitState::AtWork;
                self.used.notify_one();
                Ok(())
            }
            PermitState::Granted(_) => Err(late()),
            PermitState::Refused(hold) => Err(hold.clone()),
            PermitState::Ended => Err(judged()),
        }
    }

    /// The cycle that has restarted services is over.
    pub fn end(&self) {
        let mut state = self.state();
        if *state == PermitState::AtWork {
            *state = PermitState::Ended;
            self.used.notify_one();
        }
    }

    /// What it says now.
    pub fn now(&self) -> PermitState {
        self.state().clone()
    }

    /// Says something else from now on, unless a restart has begun since it was looked at. Returns whether it was taken.
    pub fn set(&self, new: PermitState) -> bool {
        let mut state = self.state();
        let is_free = *state != PermitState::AtWork;
        if is_free {
            *state = new;
        }
        is_free
    }
}

fn late() -> Hold {
    let why = "the slot that was taken for this restart has run out".to_owned();
    Hold { reason: HoldReason::Slot, why, next: String::new(), wait: None }
}

fn judged() -> Hold {
    let why = "whether this node is well after its last restart is not known yet".to_owned();
    Hold { reason: HoldReason::Slot, why, next: String::new(), wait: None }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn refused() -> PermitState {
        PermitState::Refused(Hold { reason: HoldReason::Window, why: "closed".into(), next: String::new(), wait: None })
    }

    fn granted(milliseconds: u64) -> PermitState {
        PermitState::Granted(Instant::now() + Duration::from_millis(milliseconds))
    }

    #[test]
    fn a_restart_begins_only_with_a_permit_that_still_holds() {
        let permit = RestartPermit::default();
        assert_eq!((permit.gate(), permit.begin()), (RestartGate::Open, Ok(())));
        assert_eq!(permit.now(), PermitState::NotNeeded, "without a fleet nothing is counted");
        permit.set(refused());
        assert_eq!(permit.begin().unwrap_err().reason, HoldReason::Window);
        permit.set(granted(0));
        assert_eq!(permit.begin().unwrap_err().reason, HoldReason::Slot, "it has run out");
        assert!(matches!(permit.gate(), RestartGate::Closed(_)));
        permit.set(granted(60_000));
        assert_eq!((permit.gate(), permit.begin()), (RestartGate::Open, Ok(())));
        assert_eq!(permit.now(), PermitState::AtWork);
    }

    #[test]
    fn a_permit_is_not_taken_back_from_a_restart_that_has_begun() {
        let permit = RestartPermit::new(granted(60_000));
        permit.begin().unwrap();
        assert!(!permit.set(refused()));
        assert_eq!(permit.begin(), Ok(()), "a further service of the same cycle");
        permit.end();
        assert_eq!(permit.now(), PermitState::Ended);
        assert_eq!(permit.begin().unwrap_err().reason, HoldReason::Slot, "nothing more before the node is judged");
        assert!(permit.set(refused()));
        permit.end();
        assert_eq!(permit.now(), refused(), "a cycle without a restart changes nothing");
    }
}
