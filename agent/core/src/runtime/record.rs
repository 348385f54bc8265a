//! What is known of a process that read the roots when it started: which certificates it has, may have, or cannot have.
//!
//! A record is made once for each process, when it is first seen, from facts that neither a crash nor a reboot changes: what was in
//! the bundle at the last verified look, when that was, and when we last began to change it. All times are of the clock that does not
//! jump; no file's time is used. Decision 11 says why.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{certificate::fingerprint::Fingerprint, text::plural};
use crate::{
    runtime::{process::ServiceProcess, services::Services},
    time::Uptime,
};

/// What is known of the roots that a service's process has read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceRecord {
    /// The process.
    pub process: ServiceProcess,
    /// Anchors that the process has, or will read: they were in the bundle when it started.
    pub has: BTreeSet<Fingerprint>,
    /// Anchors that the process may have read: it started while we were changing the bundle.
    #[serde(default, rename = "doubt", skip_serializing_if = "BTreeSet::is_empty")]
    pub maybe_has: BTreeSet<Fingerprint>,
    /// Anchors that others had put into the bundle before the process was first seen, at an unknown time. No restart is due for
    /// them, and nothing is proven; only an answer of the runtime itself settles it.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub unproven: BTreeSet<Fingerprint>,
    /// Anchors of ours that were put into the bundle while the process ran. It has them if its first TLS verification came after
    /// that.
    #[serde(default, rename = "later", skip_serializing_if = "BTreeSet::is_empty")]
    pub added_since: BTreeSet<Fingerprint>,
    /// Anchors that were ours, that the process may have, and that are to be trusted no more.
    #[serde(default, rename = "left", skip_serializing_if = "BTreeSet::is_empty")]
    pub revoked: BTreeSet<Fingerprint>,
}

/// A service's lag behind the bundle.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lag {
    /// In the bundle, wanted, and newer than the process.
    pub missing: BTreeSet<Fingerprint>,
    /// Removed, and the process started with them.
    pub lingering: BTreeSet<Fingerprint>,
    /// In the bundle, wanted, and nobody knows whether they were there when the process started. They make no lag.
    pub unproven: BTreeSet<Fingerprint>,
}

/// The bundle, as a process that starts may have found it.
#[derive(Debug, Clone, Copy)]
pub struct BundleHistory<'a> {
    /// What was in it at the last verified look, None if there was none.
    pub before: Option<&'a BTreeSet<Fingerprint>>,
    /// Since when that has been so.
    pub since: Option<&'a Uptime>,
    /// When we last began to change it.
    pub begun: Option<&'a Uptime>,
    /// Anchors that we have put into it and nobody else had.
    pub ours: &'a BTreeSet<Fingerprint>,
    /// What is in it now.
    pub now: &'a BTreeSet<Fingerprint>,
}

impl Lag {
    /// Whether the process is surely up to date, but for what is unproven.
    pub fn is_none(&self) -> bool {
        self.missing.is_empty() && self.lingering.is_empty()
    }

    /// Takes out what every pull `reads` from the registry directory, and returns it.
    pub fn covered_by(&mut self, reads: &BTreeSet<Fingerprint>) -> BTreeSet<Fingerprint> {
        let covered = &(&self.missing | &self.unproven) & reads;
        self.missing.retain(|fingerprint| !covered.contains(fingerprint));
        self.unproven.retain(|fingerprint| !covered.contains(fingerprint));
        covered
    }

    /// Takes out what the runtime was `seen` to trust; returns whether that was anything. A process reads its roots all at once: where
    /// all that is unproven lay `together` when it was first seen, one of them speaks for all.
    pub fn proven(&mut self, seen: &BTreeSet<Fingerprint>, together: bool) -> bool {
        let before = self.missing.len() + self.unproven.len();
        self.missing.retain(|fingerprint| !seen.contains(fingerprint));
        let one_for_all = together && !self.unproven.is_disjoint(seen);
        self.unproven.retain(|fingerprint| !one_for_all && !seen.contains(fingerprint));
        self.missing.len() + self.unproven.len() < before
    }

    /// The lag in words.
    pub fn text(&self) -> String {
        let newer = format!("{} newer than the process", plural(self.missing.len(), "anchor"));
        let older = format!("{} that it started with", plural(self.lingering.len(), "removed anchor"));
        match (self.missing.is_empty(), self.lingering.is_empty()) {
            (true, true) => "nothing of ours changed since it started".into(),
            (false, true) => newer,
            (true, false) => older,
            (false, false) => format!("{newer}, {older}"),
        }
    }
}

/// The record of a process, from the earlier record and what is observed.
///
/// For a process without a record, in this order:
/// 1. What was in the bundle at the last verified look before it started, and is in it now, it has.
/// 2. If our last change of the bundle was begun in an earlier boot, it has what that change has put there.
/// 3. What we have put there later, it may have missed because of us: it counts as missing.
/// 4. Everything else was put there by others, nobody knows when: it is unproven.
pub fn follow(record: Option<&ServiceRecord>, process: &ServiceProcess, bundle: BundleHistory<'_>) -> ServiceRecord {
    if let Some(known) = record.filter(|record| record.process == *process) {
        return known.clone();
    }
    let started = &process.started;
    let is_earlier = |time: &Uptime| time.boot_id != started.boot_id || time.milliseconds < started.milliseconds;
    let before = bundle.before.filter(|_| bundle.since.is_some_and(is_earlier));
    if before == Some(bundle.now) {
        return ServiceRecord { has: bundle.now.clone(), ..ServiceRecord::unknown(process) };
    }
    let mut has = before.map(|before| before & bundle.now).unwrap_or_default();
    let mut maybe_has = bundle.before.map_or_else(|| bundle.now.clone(), |before| before | bundle.now);
    if bundle.begun.is_some_and(|begun| begun.boot_id != started.boot_id) {
        // That change is complete: its additions are in the bundle, and its removals are not.
        has.extend(bundle.now & bundle.ours);
        maybe_has.retain(|fingerprint| !bundle.ours.contains(fingerprint));
    } else {
        maybe_has.extend(record.iter().flat_map(|record| &record.revoked));
    }
    maybe_has.retain(|fingerprint| !has.contains(fingerprint));
    let by_us = |fingerprint: &Fingerprint| bundle.begun.is_some() && bundle.ours.contains(fingerprint);
    let (unproven, maybe_has) = maybe_has.into_iter().partition(|print| bundle.now.contains(print) && !by_us(print));
    ServiceRecord { has, maybe_has, unproven, ..ServiceRecord::unknown(process) }
}

impl ServiceRecord {
    fn unknown(process: &ServiceProcess) -> Self {
        Self {
            process: process.clone(),
            has: BTreeSet::new(),
            maybe_has: BTreeSet::new(),
            unproven: BTreeSet::new(),
            added_since: BTreeSet::new(),
            revoked: BTreeSet::new(),
        }
    }

    /// Notes which of ours are in the bundle now.
    pub fn note_served(&mut self, ours: impl Iterator<Item = Fingerprint>) {
        self.added_since.extend(ours.filter(|fingerprint| !self.has.contains(fingerprint)));
    }

    /// Notes which of our anchors are to be trusted no more, and which of these are denied; those that are `wanted`, or that the
    /// process cannot have read, do not count. One that it started with, it may have. One that came later, it may have if it verified TLS for the first time after that: for a denied one that is
    /// reason enough, since nobody can tell.
    pub fn note_revoked(
        &mut self,
        retired: &BTreeSet<Fingerprint>,
        denied: impl Fn(&Fingerprint) -> bool,
        wanted: impl Fn(&Fingerprint) -> bool,
    ) {
        let may_have = |fingerprint: &&Fingerprint| {
            self.has.contains(fingerprint)
                || self.maybe_has.contains(fingerprint)
                || self.unproven.contains(fingerprint)
                || denied(fingerprint) && self.added_since.contains(fingerprint)
        };
        let revoked: Vec<Fingerprint> = retired.iter().filter(may_have).copied().collect();
        self.revoked.extend(revoked);
        self.revoked.retain(|fingerprint| !wanted(fingerprint));
    }

    /// How far the process is behind.
    pub fn lag(&self, wanted: &BTreeSet<Fingerprint>, bundle: &BTreeSet<Fingerprint>) -> Lag {
        let lacks = wanted.iter().filter(|print| bundle.contains(print) && !self.has.contains(print)).copied();
        let (unproven, missing) = lacks.partition(|print| self.unproven.contains(print));
        Lag { missing, lingering: self.revoked.difference(bundle).copied().collect(), unproven }
    }
}

/// The records of all services' processes. A process that cannot be observed now keeps its record until the next boot.
pub fn follow_all(
    services: &Services,
    known: &BTreeMap<String, ServiceRecord>,
    bundle: BundleHistory<'_>,
    now: &Uptime,
) -> BTreeMap<String, ServiceRecord> {
    let mut records = known.clone();
    records.retain(|_, record| record.process.started.boot_id == now.boot_id);
    let all = services.runtime.iter().map(|runtime| &runtime.service).chain(services.also.values());
    for service in all {
        if let Some(process) = &service.process {
            let record = follow(known.get(&service.unit), process, bundle);
            records.insert(service.unit.clone(), record);
        }
    }
    records
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
