//! A model of a host and of a node through time, on which plans are tried.

mod adoption;
mod distrust;
mod lifecycle;
mod properties;
mod removals;
mod repairs;

use std::{
    collections::BTreeSet,
    sync::{Arc, LazyLock},
};

use rcgen::{DnType, IsCa};

use super::*;
use crate::{
    action::{Drift, StoreAction},
    certificate::{
        anchor::Anchor,
        fingerprint::Fingerprint,
        pem::{Fault, RejectReason},
    },
    fleet::removal::{Approval, Approvals, ApprovalsRead, RemovalWait},
    ledger::{AnchorState, LedgerAnchor, LedgerSource},
    observed::{Effective, FileForm, ForeignFile, Hazard, OwnAnchorFile},
    plan::Plan,
    problem::ProblemKind,
    runtime::trust::RuntimeState,
    source::{
        Content, Snapshot,
        policy::{Circumstances, EmptySource, NotCa},
        resolve::resolve,
    },
    store::{
        ExtractMode, Family, Tool,
        adopted::AdoptedFile,
        anchor_file::{file_name, is_own_name},
    },
    testing::{NOW, anchor, assert_golden, at, ca, files, fixed, host, self_signed, source, source_of},
    time::Time,
    verify::verify,
};

const DAY: u64 = 24 * 3600;

/// A host as far as trust goes: what the distribution ships, and what is observed.
#[derive(Debug, Clone)]
struct SimulatedHost {
    shipped: BTreeSet<Fingerprint>,
    seen: Observed,
}

impl SimulatedHost {
    /// A fresh host whose distribution ships one root.
    fn new(family: Family) -> Self {
        Self { shipped: BTreeSet::from([fixed("rsa-2048").fingerprint]), seen: host(family, &[]) }
    }

    /// What an action does to a host.
    fn simulate(mut self, plan: &Plan, action: &StoreAction) -> Self {
        let seen = &mut self.seen;
        match action {
            StoreAction::RecordLedger | StoreAction::RunHooks { .. } => {}
            StoreAction::CreateDirectory { path } => {
                assert_eq!(path, seen.store.anchors_dir);
                seen.anchors_dir_exists = true;
            }
            StoreAction::RemoveTemporary { path, .. } => {
                let ours = seen.leftovers.remove(path);
                assert!(ours || seen.stale_temp.take().as_ref() == Some(path), "{path} is nobody's left-over");
            }
            StoreAction::WriteAnchor { sha256, file, .. } => {
                assert!(seen.anchors_dir_exists);
                assert_eq!(*file, file_name(seen.store, sha256));
                let anchor = Some(plan.targets[sha256].anchor.clone());
                seen.ours.insert(file.clone(), OwnAnchorFile { anchor, intact: true });
            }
            StoreAction::RemoveAnchor { file, .. } => assert!(seen.ours.remove(file).is_some(), "{file} is not ours"),
            StoreAction::Extract { mode, .. } => self.extract(*mode),
            StoreAction::AdoptFile { file, .. } => {
                let at = seen.foreign.iter().position(|foreign| seen.base_name(foreign) == Some(file)).unwrap();
                let FileForm { regular, links, .. } = seen.foreign[at].form.clone().unwrap();
                assert!(regular && links == 1);
                let path = seen.foreign.remove(at).path;
                seen.adopted.insert(path.clone(), AdoptedFile { path, mode: 0o644, content: Arc::from([]) });
            }
            StoreAction::ReturnFile { path } => {
                let file = seen.adopted.remove(path).unwrap();
                seen.foreign.push(ForeignFile { path: file.path, taken: true, ..ForeignFile::default() });
            }
            StoreAction::DistrustRoot { sha256, place } => {
                self.shipped.remove(sha256);
                seen.distrust.in_effect.insert(place.clone());
                if let Some(root) = seen.distrust.roots.get_mut(sha256) {
                    root.deselected = true;
                    root.selected.clear();
                }
            }
            StoreAction::TrustRoot { place } => {
                assert!(seen.distrust.in_effect.remove(place));
                self.shipped.insert(fixed("rsa-2048").fingerprint);
            }
            StoreAction::RetireStore { family, .. } => seen.old.retain(|old| old.family != *family),
        }
        if matches!(self.seen.store.tool, Tool::None) {
            self.extract(ExtractMode::Fresh); // consumers read the directory itself
        }
        self
    }

    /// The tool: shipped, other people's and our files. Most tools paste them one after the other; p11-kit takes each certificate once,
    /// leaves out what is not a CA, and makes all links anew in every run.
    fn extract(&mut self, mode: ExtractMode) {
        let store = self.seen.store;
        let taken = || self.seen.foreign.iter().filter(|file| file.taken);
        let mut all: Vec<Fingerprint> = self.shipped.iter().copied().collect();
        all.extend(taken().flat_map(|file| &file.anchors).map(|anchor| anchor.fingerprint));
        all.extend(self.seen.ours.values().filter_map(|own| Some(own.anchor.as_ref()?.fingerprint)));
        all.retain(|print| !(store.drops_not_ca && is_dropped(print)));
        // Where nodetrust itself joins the files, it takes only certificates.
        let pasted = store.pastes_files && !matches!(store.tool, Tool::Concatenate { .. });
        let faults = taken().filter_map(|file| match &file.hazard {
            Some(Hazard::Broken(fault)) if pasted => Some(fault.clone()),
            _ => None,
        });
        let (faults, set): (Vec<Fault>, BTreeSet<Fingerprint>) = (faults.collect(), all.iter().copied().collect());
        self.seen.effective = Effective {
            present: true,
            count: if store.pastes_files { all.len() } else { set.len() },
            faults,
            private_key: pasted && taken().any(|file| matches!(file.hazard, Some(Hazard::PrivateKey(_)))),
            set,
            ..Effective::default()
        };
        if mode == ExtractMode::Fresh || !store.pastes_files {
            self.seen.unlinked.clear(); // another plain run leaves links alone (facts 0.3)
        }
    }

    fn forget(&mut self, name: &str) {
        self.seen.ours.remove(&own(name)).unwrap();
    }
}

fn own(name: &str) -> String {
    file_name(Family::Debian.store(), &fixed(name).fingerprint)
}

fn foreign(path: &str, anchors: Vec<Arc<Anchor>>, hazard: Option<Hazard>) -> ForeignFile {
    ForeignFile { path: format!("/usr/local/share/ca-certificates/{path}"), anchors, taken: true, hazard, form: None }
}

fn broken() -> Option<Hazard> {
    Some(Hazard::Broken(Fault { line: 7, reason: RejectReason::NotPemOrDer, detail: "broken base64".into() }))
}

/// A node through time: host, ledger, policy, clock and sources.
#[derive(Debug, Clone)]
struct PlannedNode {
    world: SimulatedHost,
    ledger: Ledger,
    policy: Policy,
    now: Moment,
    sources: Vec<Snapshot>,
    approvals: ApprovalsRead,
    runtime: Option<RuntimeState>,
}

impl PlannedNode {
    fn new() -> Self {
        let (now, sources) = (at(NOW, 1000, "one"), Vec::new());
        Self {
            world: SimulatedHost::new(Family::Debian),
            ledger: Ledger::new(),
            policy: Policy::default(),
            now,
            sources,
            approvals: ApprovalsRead::Absent,
            runtime: Some(RuntimeState::Current),
        }
    }

    fn wants(mut self, names: &[&str]) -> Self {
        let anchors: Vec<Arc<Anchor>> = names.iter().map(|name| fixed(name)).collect();
        self.sources = vec![source("org", &anchors.iter().collect::<Vec<_>>())];
        self
    }

    fn later(&mut self, seconds: u64) {
        self.now.wall += i64::try_from(seconds).unwrap();
        self.now.boottime += seconds;
    }

    fn resolved(&self) -> Resolved {
        // Anchors that were seen in the bundle, and own files that the ledger has lost.
        let settled = self.ledger.anchors.iter().filter(|(_, entry)| entry.settled).map(|(print, _)| *print);
        let own = self.world.seen.ours.values().filter_map(|own| Some(own.anchor.as_ref()?.fingerprint));
        let all: BTreeSet<Fingerprint> = settled.chain(own).collect();
        let installed = |fingerprint: &Fingerprint| all.contains(fingerprint);
        let store = self.world.seen.store;
        let at = Circumstances { drops_not_ca: Some(store.drops_not_ca), installed: &installed, now: self.now.wall };
        resolve(&self.sources, &self.ledger, &self.policy, at)
    }

    fn plan(&self) -> Plan {
        let removal = RemovalFacts { approvals: &self.approvals, runtime: self.runtime };
        plan(&self.resolved(), &self.world.seen, &self.ledger, &self.policy, &self.now, removal)
    }

    /// Does the first `count` actions, and reads the host back if none is left.
    fn carry_out(&mut self, plan: &Plan, count: usize) {
        let before = self.ledger.clone();
        for action in plan.actions.iter().take(count) {
            if *action == StoreAction::RecordLedger {
                self.ledger = Ledger { updated: self.now.wall, ..plan.ledger.clone() };
            }
            self.world = self.world.clone().simulate(plan, action);
        }
        if count >= plan.actions.len() {
            let mut ledger = settle(plan, &self.world.seen, true, self.now.wall);
            if plan.actions.iter().any(|action| matches!(action, StoreAction::RunHooks { .. })) {
                ledger.hooks_done();
            }
            ledger.updated = if ledger.same_as(&before) { before.updated } else { self.now.wall };
            self.ledger = ledger;
        }
    }

    /// One cycle.
    fn cycle(&mut self) -> Plan {
        let plan = self.plan();
        self.carry_out(&plan, plan.actions.len());
        plan
    }

    /// Cycles until nothing is left to do; more than three are a failure.
    fn converge(&mut self) -> Plan {
        for _ in 0..3 {
            self.cycle();
        }
        let plan = self.plan();
        assert_eq!(plan.actions, [], "after three rounds");
        plan
    }

    fn trusts(&self, name: &str) -> bool {
        self.world.seen.effective.set.contains(&fixed(name).fingerprint)
    }

    fn state(&self, name: &str) -> Option<AnchorState> {
        self.ledger.anchors.get(&fixed(name).fingerprint).map(|entry| entry.state)
    }
}

/// Cycles as text.
#[derive(Default)]
struct PlanStory(String);

impl PlanStory {
    fn tell(&mut self, title: &str, plan: &Plan) {
        let mut line = |text: String| {
            self.0.push_str(&text);
            self.0.push('\n');
        };
        line(format!("== {title}"));
        if plan.actions.is_empty() {
            line("nothing to do".into());
        }
        for action in &plan.actions {
            line(action.to_string());
        }
        for held in &plan.held {
            line(format!("held     {}: {}\n         next: {}", held.what, held.why, held.next));
        }
        for (fingerprint, target) in &plan.targets {
            line(format!("trusted  {} {} {}", fingerprint.fp16(), target.state.as_str(), target.anchor.subject.common));
        }
        for fingerprint in &plan.retired {
            let state = plan.ledger.anchors[fingerprint].state.as_str();
            line(format!("gone     {} {state}", fingerprint.fp16()));
        }
    }

    fn cycle(&mut self, title: &str, node: &mut PlannedNode) {
        let plan = node.cycle();
        self.tell(title, &plan);
    }

    fn check(&self, name: &str) {
        assert_golden(&format!("plans/{name}.txt"), &self.0);
    }
}

/// Certificates of every kind that matters here: three roots, one more of the first one's name, an expired one, a leaf.
static POOL: LazyLock<Vec<Arc<Anchor>>> = LazyLock::new(|| {
    let expired = self_signed(|params| {
        params.distinguished_name.push(DnType::CommonName, "expired");
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    });
    let leaf = self_signed(|params| {
        params.distinguished_name.push(DnType::CommonName, "leaf");
        params.is_ca = IsCa::ExplicitNoCa;
    });
    vec![ca("a"), ca("b"), ca("c"), ca("a"), anchor(&expired), anchor(&leaf)]
});

/// Whether p11-kit leaves a certificate of the pool out.
fn is_dropped(print: &Fingerprint) -> bool {
    POOL.iter().any(|anchor| anchor.fingerprint == *print && anchor.dropped_by_p11_kit().is_some())
}

/// The place of an action in a plan, and its word.
fn action_kind(action: &StoreAction) -> (u8, &'static str) {
    match action {
        StoreAction::RecordLedger => (0, "record"),
        StoreAction::CreateDirectory { .. } => (1, "create"),
        StoreAction::RemoveTemporary { .. } => (1, "clean"),
        StoreAction::WriteAnchor { .. } => (2, "write"),
        StoreAction::RemoveAnchor { .. } => (3, "remove"),
        StoreAction::AdoptFile { .. } => (3, "adopt"),
        StoreAction::ReturnFile { .. } => (3, "return"),
        StoreAction::DistrustRoot { .. } => (3, "distrust"),
        StoreAction::TrustRoot { .. } => (3, "trust"),
        StoreAction::Extract { .. } => (4, "extract"),
        StoreAction::RunHooks { .. } => (5, "hooks"),
        StoreAction::RetireStore { .. } => (6, "retire"),
    }
}
