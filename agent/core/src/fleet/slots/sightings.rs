//! Which version of each slot's Lease this node has seen, and since when: the only ground on which a slot has expired.

use std::{collections::BTreeMap, time::Duration};

use super::super::lease::{ResourceVersion, SlotLease};

/// Since when each Lease has been seen unchanged, by this node's own clock. A Lease that vanishes is forgotten.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Sightings(BTreeMap<usize, (ResourceVersion, Duration)>);

impl Sightings {
    /// Takes note of a list that arrived at `now`.
    pub(super) fn note(&mut self, slots: &[SlotLease], now: Duration) {
        let mut before = std::mem::take(&mut self.0);
        for slot in slots {
            let sighting = before.remove(&slot.index).filter(|(version, _)| *version == slot.version);
            self.0.insert(slot.index, sighting.unwrap_or_else(|| (slot.version.clone(), now)));
        }
    }

    /// Forgets a Lease that has changed, as a refused write shows.
    pub(super) fn forget(&mut self, index: usize) {
        self.0.remove(&index);
    }

    /// Whether this version of the Lease has been seen for as long as `after`.
    pub(super) fn unchanged_for(&self, slot: &SlotLease, after: Duration, now: Duration) -> bool {
        let sighting = self.0.get(&slot.index).filter(|(version, _)| *version == slot.version);
        sighting.is_some_and(|(_, since)| now.saturating_sub(*since) >= after)
    }

    /// Every version with the time since when it was seen, for tests that shift time.
    #[cfg(test)]
    pub(super) fn each(&mut self, mut f: impl FnMut(usize, &mut ResourceVersion, &mut Duration)) {
        for (index, (version, since)) in &mut self.0 {
            f(*index, version, since);
        }
    }

    /// Keeps some versions only, for tests that bring equal states to the same form.
    #[cfg(test)]
    pub(super) fn retain(&mut self, keep: impl Fn(usize, &ResourceVersion) -> bool) {
        self.0.retain(|index, (version, _)| keep(*index, version));
    }
}
