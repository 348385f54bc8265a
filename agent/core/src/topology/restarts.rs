//! The restarts of a fleet, as its Leases tell them: who restarts, what halts or pauses all, and how far the canary is.

use serde::Serialize;

use crate::fleet::lease::{CanaryMark, FleetLeases, SlotHolder, slot_name};

/// The restarts of a fleet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FleetRestarts {
    /// The slots that somebody holds. A node that has died holds one until another takes it over.
    pub held: Vec<HeldSlotRow>,
    /// What halts all restarts.
    pub halts: Vec<HaltRow>,
    /// The text of the pause; None if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paused: Option<String>,
    /// What the canary says; None if it says nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canary: Option<CanaryMark>,
    /// `fleet.canarySelector` selects no Node, so that all others wait for nobody; None if that is not known, or there is no selector.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_canary: Option<String>,
}

/// A slot that somebody holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HeldSlotRow {
    /// The name of its Lease.
    pub lease: String,
    /// The node.
    pub node: String,
    /// Since when, by that node's clock; empty if the Lease does not say.
    pub since: String,
}

/// A halt of all restarts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HaltRow {
    /// The name of the Lease that bears it.
    pub lease: String,
    /// The node that is not healthy.
    pub node: String,
    /// What is wrong there.
    pub reason: String,
    /// Since when, by that node's clock.
    pub since: String,
}

impl FleetRestarts {
    /// What the Leases say.
    pub fn of(leases: &FleetLeases) -> Self {
        let held = leases.slots.iter().filter(|slot| slot.halt.is_none()).filter_map(|slot| {
            let node = match &slot.holder {
                SlotHolder::Nobody => return None,
                SlotHolder::Node(node) => node.clone(),
                SlotHolder::Unreadable(why) => format!("unreadable: {why}"),
            };
            let since = slot.acquired.clone().unwrap_or_default();
            Some(HeldSlotRow { lease: slot_name(slot.index), node, since })
        });
        let halts = leases.halts().map(|(slot, halt)| HaltRow {
            lease: slot_name(slot.index),
            node: halt.node.clone(),
            reason: halt.reason.clone(),
            since: halt.since.clone(),
        });
        Self {
            held: held.collect(),
            halts: halts.collect(),
            paused: leases.pause().map(str::to_owned),
            canary: leases.canary.as_ref().and_then(|canary| canary.mark.clone()),
            no_canary: None,
        }
    }

    /// Whether a node halts the restarts of all.
    pub fn is_halted(&self) -> bool {
        !self.halts.is_empty()
    }

    /// Whether nobody restarts until a person says so.
    pub fn is_stopped(&self) -> bool {
        self.is_halted() || self.paused.is_some()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn leases_are_told_as_who_restarts_and_what_stops_the_others() {
        let lease = |name: &str, holder: &str, annotations: serde_json::Value| {
            json!({"metadata": {"name": name, "resourceVersion": "1", "annotations": annotations},
                "spec": {"holderIdentity": holder, "acquireTime": "2026-11-30T07:00:00.000000Z"}})
        };
        let halt = json!({"nodetrust.io/halted": "{\"node\":\"b\",\"reason\":\"not Ready\",\"since\":\"noon\"}"});
        let items = [
            lease("nodetrust-restart-0", "", json!({"nodetrust.io/pause": "freeze"})),
            lease("nodetrust-restart-1", "a", json!({})),
            lease("nodetrust-restart-2", "b", halt),
            lease("kube-scheduler", "c", json!({})),
        ];
        let restarts = FleetRestarts::of(&FleetLeases::read(&items));
        assert_eq!(restarts.held.iter().map(|slot| slot.node.as_str()).collect::<Vec<_>>(), ["a"]);
        assert_eq!((restarts.halts[0].node.as_str(), restarts.halts[0].reason.as_str()), ("b", "not Ready"));
        assert_eq!(restarts.halts[0].lease, "nodetrust-restart-2");
        assert_eq!(restarts.paused.as_deref(), Some("freeze"));
        assert!(restarts.is_stopped() && !FleetRestarts::default().is_stopped());
    }
}
