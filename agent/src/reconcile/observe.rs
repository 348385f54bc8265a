//! What a cycle sees of a host, and what it decides from that.

use std::{collections::BTreeSet, path::Path, sync::Arc, time::Duration};

use nodetrust_core::{
    certificate::{bundle, fingerprint::Fingerprint},
    fleet::removal::{ApprovalsRead, RemovalFacts},
    ledger::Ledger,
    observed::{Observed, ToollessStore},
    plan::Plan,
    planner::{RestartFacts, plan, tie_to_restart},
    pod_bundle::PodBundlePlan,
    problem::{Problem, ProblemKind},
    runtime::{
        service_plan::{RestartGate, ServicePlan},
        services::Services,
        staleness,
    },
    source::{
        Resolved, Snapshot,
        policy::Circumstances,
        resolve::{remember, resolve},
    },
    store::{Detection, Family, TrustStore, anchor_file::file_name, os_release::OsRelease},
    time::{Moment, Uptime},
};

use super::ledger_writer::LedgerWriter;
use crate::{
    approvals,
    config::Settings,
    error::chain,
    fleet::permit::RestartPermit,
    host::{self, exec::HostExec, ledger_file, obstacle::way_out_or, own_paths, root::HostRoot},
    pod_bundle, runtime,
    store::{
        bundle::bundle_bytes,
        detect, distrust,
        namesakes::NamesakeCache,
        observe::{StoreCache, observe, old_stores},
        read::ObserveError,
    },
};

/// How long a program that only looks may run.
pub(super) const PATIENCE_TO_LOOK: Duration = Duration::from_secs(3);

/// Looks at a host, with what was decoded in earlier looks.
#[derive(Debug)]
pub(super) struct Observer {
    pub(super) root: HostRoot,
    pub(super) store: StoreCache,
    ledger: ledger_file::LedgerCache,
    runtime: runtime::RuntimeCache,
    namesakes: NamesakeCache,
    /// Asked right before a restart.
    pub(super) permit: Arc<RestartPermit>,
}

/// What was read of a host at one moment.
#[derive(Debug, Clone)]
pub(super) struct Observation {
    pub(super) now: Moment,
    pub(super) os: OsRelease,
    pub(super) detection: Detection,
    pub(super) ledger: Arc<Ledger>,
    /// Why the ledger's file cannot be used, if it is damaged.
    pub(super) damaged: Option<String>,
    /// The store and the services; None if the store is not known or could not be read.
    pub(super) observed: Option<Observed>,
    /// What can be read of a store whose tool is missing.
    pub(super) without_tool: Option<ToollessStore>,
    /// The services were asked in this observation, and not taken from an earlier one.
    pub(super) services_asked: bool,
    /// What the fleet says of a restart.
    pub(super) gate: RestartGate,
    /// The fleet's approvals of removals.
    pub(super) approvals: ApprovalsRead,
    pub(super) problems: Vec<Problem>,
}

/// An observation with what is to be done about it.
#[derive(Debug)]
pub(super) struct Decision {
    pub(super) seen: Observation,
    pub(super) resolved: Resolved,
    /// For the store; None if what was read does not suffice.
    pub(super) plan: Option<Plan>,
    pub(super) service_plan: Option<ServicePlan>,
    pub(super) pod_bundle: PodBundlePlan,
}

/// When something is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deciding {
    /// At the beginning of a cycle, or without one.
    First,
    /// In a cycle that has decided before.
    Within,
}

/// What an observation takes from an earlier one.
#[derive(Debug, Default)]
pub(super) struct Earlier<'a> {
    /// Services that are not asked again.
    pub(super) services: Option<&'a Services>,
    /// Certificates of others that should be in the bundle, beside those that the ledger knows.
    pub(super) foreign: BTreeSet<Fingerprint>,
}

impl Observation {
    /// Takes the ledger that was just written for the one that was read.
    pub(super) fn follow(&mut self, ledger: Ledger) {
        self.ledger = Arc::new(ledger);
        self.forget_unknown_foreign();
    }

    /// Leaves of the lost certificates those that the ledger knows.
    pub(super) fn forget_unknown_foreign(&mut self) {
        let known = self.ledger.known_foreign();
        if let Some(observed) = &mut self.observed {
            observed.lost.retain(|fingerprint| known.contains(fingerprint));
            observed.gone.retain(|fingerprint| known.contains(fingerprint));
        }
    }
}

impl Decision {
    /// What is due for the services over the bundle that is there, whatever is planned for it.
    pub(super) fn services_due(&self, settings: &Settings) -> Option<ServicePlan> {
        let (plan, observed) = (self.plan.as_ref()?, self.seen.observed.as_ref()?);
        let wanted = plan.wanted(observed, observed.effective.set.clone());
        let Observation { gate, now, .. } = &self.seen;
        let due = staleness::decide(&observed.services, &plan.ledger, &wanted, &settings.runtime, gate, now);
        Some(ServicePlan { hold: due.hold.or_else(|| plan.awaits.clone()), ..due })
    }
}

impl Observer {
    /// Writes the ledger that was seen.
    pub(super) fn ledger_writer(&self, seen: &Observation) -> LedgerWriter<'_> {
        LedgerWriter::new(&self.root, Ledger::clone(&seen.ledger), seen.now.wall)
    }

    /// Takes a host.
    ///
    /// # Errors
    /// If the host root cannot be opened.
    pub(super) fn new(host_root: &Path) -> std::io::Result<Self> {
        Ok(Self {
            root: HostRoot::open(host_root)?,
            store: StoreCache::default(),
            ledger: ledger_file::LedgerCache::default(),
            runtime: runtime::RuntimeCache::default(),
            namesakes: NamesakeCache::default(),
            permit: Arc::default(),
        })
    }

    /// Reads the host: its system, clocks, ledger, trust store and services. Decides nothing.
    pub(super) fn observe(
        &mut self,
        settings: &Settings,
        snapshots: &[Snapshot],
        earlier: &Earlier<'_>,
    ) -> Observation {
        let (approvals, unusable) = approvals::read(settings);
        let mut problems = Vec::from_iter(unusable);
        let (os, detection) = detect::system(&self.root, settings.family);
        let now = self.moment(&mut problems);
        let (ledger, damaged) = self.ledger(snapshots, &mut problems);
        self.store.expect(snapshots);
        let mut observed = detection.family.as_ref().ok().and_then(|family| {
            let known = &ledger.known_foreign() | &earlier.foreign;
            let seen = self.observe_store(family.store(), &known, &ledger, &settings.policy.distrust);
            let next = "look at the path on the host";
            let problem = |error: ObserveError| Problem::new(ProblemKind::Observe, chain(&error), error.next(next));
            seen.map_err(|error| problems.push(problem(error))).ok()
        });
        let without_tool = detection.family.as_ref().err().and_then(|unsupported| unsupported.without_tool);
        let without_tool = without_tool.and_then(|family| self.bundle_without_tool(family, &mut problems));
        // without the boot id, which `moment` has told, nothing is decided
        if let Some(observed) = observed.as_mut().filter(|_| !now.boot_id.is_empty()) {
            observed.at = host::uptime_in(now.boot_id.clone());
            observed.services = match earlier.services {
                Some(services) => services.clone(),
                None => self.services(settings, &ledger, &observed.at, &mut problems),
            };
        }
        Observation {
            now,
            os,
            detection,
            ledger,
            damaged,
            observed,
            without_tool,
            services_asked: earlier.services.is_none(),
            gate: self.permit.gate(),
            approvals,
            problems,
        }
    }

    fn moment(&self, problems: &mut Vec<Problem>) -> Moment {
        host::moment(&self.root).unwrap_or_else(|error| {
            problems.push(Problem::new(
                ProblemKind::Observe,
                format!("failed to read the host's boot id: {error}"),
                way_out_or(&error, "is /proc mounted?"),
            ));
            Moment { wall: host::wall(), boottime: 0, boot_id: String::new() }
        })
    }

    /// The ledger, and why its file is damaged, if it is.
    fn ledger(&mut self, snapshots: &[Snapshot], problems: &mut Vec<Problem>) -> (Arc<Ledger>, Option<String>) {
        match ledger_file::read_again(&self.root, &mut self.ledger, snapshots) {
            Ok(ledger_file::LedgerRead::Good(ledger)) => (ledger, None),
            Ok(ledger_file::LedgerRead::Damaged(why)) => (Arc::new(Ledger::new()), Some(why)),
            Err(error) => {
                let text = format!("failed to read {}: {error}", own_paths::LEDGER);
                problems.push(Problem::new(
                    ProblemKind::Observe,
                    text,
                    way_out_or(&error, "look at the path on the host"),
                ));
                (Arc::new(Ledger::new()), None)
            }
        }
    }

    /// Whether somebody else, a command, has followed what the sources say now and not what they said `before`: the ledger tells.
    pub(super) fn is_followed_already(&mut self, settings: &Settings, now: &[Snapshot], before: &[Snapshot]) -> bool {
        let Ok(ledger_file::LedgerRead::Good(ledger)) = ledger_file::read_again(&self.root, &mut self.ledger, now)
        else {
            return false;
        };
        let installed = |print: &Fingerprint| ledger.anchors.get(print).is_some_and(|entry| entry.settled);
        let drops_not_ca = ledger.family.map(|family| family.store().drops_not_ca);
        let at = Circumstances { drops_not_ca, installed: &installed, now: host::wall() };
        let is_remembered = |snapshots| {
            let resolved = resolve(snapshots, &ledger, &settings.policy, at);
            remember(&resolved, &ledger, at.now) == ledger.sources
        };
        is_remembered(now) && !is_remembered(before)
    }

    fn observe_store(
        &mut self,
        store: &'static TrustStore,
        known_foreign: &BTreeSet<Fingerprint>,
        ledger: &Ledger,
        distrust: &BTreeSet<Fingerprint>,
    ) -> Result<Observed, ObserveError> {
        let observed = observe(&self.root, store, known_foreign, &mut self.store)?;
        let old = old_stores(&self.root, store, ledger)?;
        let distrust = distrust::look(&self.root, distrust, ledger, &observed)?;
        Ok(Observed { old, distrust, ..observed })
    }

    /// The bundle of a store whose tool is missing: it is shown, and nothing is done.
    fn bundle_without_tool(&self, family: Family, problems: &mut Vec<Problem>) -> Option<ToollessStore> {
        let store = family.store();
        match bundle_bytes(&self.root, store) {
            Ok(bytes) => Some(ToollessStore { store, effective: bundle::read(&bytes?) }),
            Err(error) => {
                let text = format!("failed to read {} on the host: {error}", store.bundle);
                problems.push(Problem::new(
                    ProblemKind::Observe,
                    text,
                    way_out_or(&error, "look at the path on the host"),
                ));
                None
            }
        }
    }

    fn services(&mut self, settings: &Settings, ledger: &Ledger, at: &Uptime, problems: &mut Vec<Problem>) -> Services {
        let exec = HostExec { root: &self.root, lock: None, limit: PATIENCE_TO_LOOK };
        let (services, odd) = runtime::look(&exec, &settings.runtime, ledger, at, &mut self.runtime);
        problems.extend(odd);
        Services { choice: (&settings.runtime).into(), in_pod: is_in_pod(settings), ..services }
    }

    /// Decides what is to be done about what was seen.
    pub(super) fn decide(
        &mut self,
        settings: &Settings,
        snapshots: &[Snapshot],
        seen: Observation,
        moment: Deciding,
    ) -> Decision {
        let (ledger, observed) = (&seen.ledger, seen.observed.as_ref());
        let installed = |fingerprint: &Fingerprint| {
            let is_there = |observed: &Observed| {
                let file = observed.ours.get(&file_name(observed.store, fingerprint));
                file.and_then(|own| own.anchor.as_ref()).is_some_and(|anchor| anchor.fingerprint == *fingerprint)
            };
            ledger.anchors.get(fingerprint).is_some_and(|entry| entry.settled) || observed.is_some_and(is_there)
        };
        let drops_not_ca = seen.detection.family.as_ref().ok().map(|family| family.store().drops_not_ca);
        let at = Circumstances { drops_not_ca, installed: &installed, now: seen.now.wall };
        let mut resolved = resolve(snapshots, ledger, &settings.policy, at);
        if let Some(observed) = observed {
            self.namesakes.warn(&self.root, observed, ledger, &mut resolved);
        }
        self.store.share(&resolved);
        // an unreadable ledger must not be taken for an empty one
        let blind = seen.problems.iter().any(|problem| problem.kind == ProblemKind::Observe);
        let (plan, service_plan) = observed.filter(|_| !blind).map_or((None, None), |observed| {
            let (plan, service_plan) = plans(&resolved, &seen, observed, settings, moment);
            (Some(plan), Some(service_plan))
        });
        let pod_bundle = match (&plan, observed) {
            (Some(plan), Some(observed)) => {
                pod_bundle::look(&self.root, &settings.export, ledger, observed, plan.changes_store())
            }
            _ => PodBundlePlan::default(),
        };
        Decision { seen, resolved, plan, service_plan, pod_bundle }
    }
}

/// The plan for the store and that for the services.
///
/// An anchor leaves by approval only where the runtime follows the store before that, which the second plan tells; and only in a cycle
/// that begins so: what a restart in this cycle has cured counts for the next one.
fn plans(
    resolved: &Resolved,
    seen: &Observation,
    observed: &Observed,
    settings: &Settings,
    moment: Deciding,
) -> (Plan, ServicePlan) {
    let planned = |runtime| {
        let removal = RemovalFacts { approvals: &seen.approvals, runtime };
        plan(resolved, observed, &seen.ledger, &settings.policy, &seen.now, removal)
    };
    let services = |plan: &Plan| {
        let wanted = plan.wanted(observed, plan.expected_bundle(observed));
        staleness::decide(&observed.services, &plan.ledger, &wanted, &settings.runtime, &seen.gate, &seen.now)
    };
    let first = planned(None);
    let service_plan = services(&first);
    let runtime = service_plan.trust.state;
    let (mut plan, mut service_plan) = match !first.asks_runtime() || moment == Deciding::Within && runtime.is_green() {
        true => (first, service_plan),
        false => {
            let second = planned(Some(runtime));
            let service_plan = services(&second);
            (second, service_plan)
        }
    };
    let (ledger, policy, gate, now) = (&*seen.ledger, &settings.runtime, &seen.gate, &seen.now);
    tie_to_restart(&mut plan, &mut service_plan, RestartFacts { observed, ledger, policy, gate, now });
    (plan, service_plan)
}

/// Whether this is the agent in a pod of the node: then the node has a container runtime.
fn is_in_pod(settings: &Settings) -> bool {
    #[cfg(feature = "kubernetes")]
    return settings.kubernetes.enabled != Some(false) && crate::kubernetes::is_in_cluster();
    #[cfg(not(feature = "kubernetes"))]
    return false;
}
