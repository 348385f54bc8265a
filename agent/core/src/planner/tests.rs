//! Plans against a model of a host: stories as golden texts, and properties over anything that could be found.

use std::{
    collections::BTreeSet,
    sync::{Arc, LazyLock},
};

use proptest::{
    collection::vec,
    option,
    prelude::*,
    sample::{select, subsequence},
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
    ledger::{AnchorState, LedgerAnchor, LedgerSource},
    observed::{Effective, ForeignFile, Hazard, OwnAnchorFile},
    plan::Plan,
    problem::ProblemKind,
    source::{
        Content, Snapshot,
        policy::{Circumstances, EmptySource, NotCa},
        resolve::resolve,
    },
    store::{
        ExtractMode, Family, Tool,
        anchor_file::{file_name, is_own_name},
    },
    testing::{NOW, anchor, assert_golden, at, ca, files, fixed, host, self_signed, source, source_of},
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
            StoreAction::RetireStore { family, .. } => seen.old.retain(|old| old.family != *family),
        }
        if matches!(self.seen.store.tool, Tool::None) {
            self.extract(ExtractMode::Fresh); // the directory is what consumers read
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
        // where we join the files ourselves, only certificates get in
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
    ForeignFile { path: format!("/usr/local/share/ca-certificates/{path}"), anchors, taken: true, hazard }
}

fn broken() -> Option<Hazard> {
    Some(Hazard::Broken(Fault { line: 7, reason: RejectReason::NotPemOrDer, detail: "broken base64".into() }))
}

/// A node through time.
#[derive(Debug, Clone)]
struct PlannedNode {
    world: SimulatedHost,
    ledger: Ledger,
    policy: Policy,
    now: Moment,
    sources: Vec<Snapshot>,
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
        // what was seen in the bundle, and what lies there though the ledger has lost it
        let settled = self.ledger.anchors.iter().filter(|(_, entry)| entry.settled).map(|(print, _)| *print);
        let own = self.world.seen.ours.values().filter_map(|own| Some(own.anchor.as_ref()?.fingerprint));
        let all: BTreeSet<Fingerprint> = settled.chain(own).collect();
        let installed = |fingerprint: &Fingerprint| all.contains(fingerprint);
        let store = self.world.seen.store;
        let at = Circumstances { drops_not_ca: Some(store.drops_not_ca), installed: &installed, now: self.now.wall };
        resolve(&self.sources, &self.ledger, &self.policy, at)
    }

    fn plan(&self) -> Plan {
        plan(&self.resolved(), &self.world.seen, &self.ledger, &self.policy, &self.now)
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
                ledger.hooks.clear();
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

#[test]
fn a_first_install() {
    let mut node = PlannedNode::new().wants(&["corp-2026", "inspection"]);
    node.world.seen.anchors_dir_exists = false;
    let mut story = PlanStory::default();
    story.cycle("first cycle on a host without the anchor directory", &mut node);
    story.cycle("second cycle", &mut node);
    story.check("first-install");
    assert!(node.trusts("corp-2026") && node.ledger.anchors.values().all(|entry| entry.settled));
    assert_eq!(node.ledger.created, ["/usr/local/share/ca-certificates".to_owned()].into());
    assert_eq!(node.ledger.changed, Some(NOW));
}

#[test]
fn a_rotation_with_its_grace() {
    let mut node = PlannedNode::new().wants(&["corp-2021"]);
    let mut story = PlanStory::default();
    story.cycle("the old root", &mut node);
    node.later(60);
    node = node.wants(&["corp-2021", "corp-2026"]);
    story.cycle("both roots", &mut node);
    node.later(60);
    node = node.wants(&["corp-2026"]);
    story.cycle("the old root leaves its source", &mut node);
    node.later(DAY - 1);
    story.cycle("a second before its grace is over", &mut node);
    assert!(node.trusts("corp-2021") && node.trusts("corp-2026"));
    node.later(1);
    story.cycle("its grace is over", &mut node);
    story.cycle("afterwards", &mut node);
    story.check("rotation");
    assert!(!node.trusts("corp-2021") && node.trusts("corp-2026"));
    node.later(REMEMBER_GONE);
    node.converge();
    assert_eq!(node.state("corp-2021"), None, "nothing of it is kept");
}

#[test]
fn a_denied_anchor_leaves_without_grace() {
    let mut node = PlannedNode::new().wants(&["corp-2026", "inspection"]);
    node.converge();
    let mut story = PlanStory::default();
    node.policy.denied = [fixed("inspection").fingerprint].into();
    story.cycle("denied while its source still has it", &mut node);
    story.cycle("afterwards", &mut node);
    assert!(!node.trusts("inspection"));
    node.policy.denied.clear();
    story.cycle("no longer denied, and its source still has it", &mut node);
    story.check("denied");
    assert!(node.trusts("inspection"));
}

#[test]
fn an_anchor_that_is_dropped_from_those_allowed_leaves_without_grace() {
    let mut node = PlannedNode::new().wants(&["corp-2026", "inspection"]);
    node.policy.allowed = [fixed("corp-2026").fingerprint, fixed("inspection").fingerprint].into();
    node.converge();
    assert!(node.trusts("corp-2026") && node.trusts("inspection"));
    node.policy.allowed.remove(&fixed("inspection").fingerprint);
    let plan = node.cycle();
    let removed = StoreAction::RemoveAnchor { file: own("inspection"), why: RemoveReason::Denied };
    assert!(plan.actions.contains(&removed), "{:?}", plan.actions);
    assert!(node.trusts("corp-2026") && !node.trusts("inspection"));
    // one that is in its grace already, one that a held source wants, and one that the ledger has lost
    let mut in_grace = PlannedNode::new().wants(&["corp-2026", "inspection"]);
    in_grace.converge();
    in_grace = in_grace.wants(&["corp-2026"]);
    in_grace.converge();
    let mut held = PlannedNode::new().wants(&["corp-2026", "inspection"]);
    held.converge();
    held.sources = vec![source_of("org", Content::Missing)];
    let mut lost = PlannedNode::new().wants(&["corp-2026", "inspection"]);
    lost.converge();
    lost.ledger = Ledger::new();
    lost = lost.wants(&["corp-2026"]);
    for mut node in [in_grace, held, lost] {
        assert!(node.trusts("inspection"));
        node.policy.allowed = [fixed("corp-2026").fingerprint].into();
        node.cycle();
        assert!(node.trusts("corp-2026") && !node.trusts("inspection"));
    }
}

/// Bytes that are no anchor by today's rules, as an older version may have taken them.
fn refused() -> (Fingerprint, LedgerAnchor) {
    let mut der = fixed("inspection").der().to_vec();
    der.push(0);
    assert!(Anchor::from_der(&der).is_err());
    let entry = LedgerAnchor {
        der: der.clone().into(),
        settled: true,
        ..LedgerAnchor::new(&fixed("inspection"), AnchorState::Desired)
    };
    (Fingerprint::of_der(&der), entry)
}

#[test]
fn what_breaks_a_reader_goes_at_once_whatever_the_ledger_says() {
    let (print, entry) = refused();
    let file = file_name(Family::Debian.store(), &print);
    let long_left = Some(at(NOW, 1000, "one"));
    let entries = [
        entry.clone(),
        LedgerAnchor { state: AnchorState::Grace, unwanted_since: long_left, ..entry.clone() },
        LedgerAnchor { state: AnchorState::Grace, adopted: true, ..entry.clone() },
        LedgerAnchor { shared: true, ..entry.clone() },
        LedgerAnchor { state: AnchorState::Retired, ..entry.clone() },
    ];
    for entry in entries {
        // its source has it still, is silent, has never been seen, or is gone from the configuration
        for content in [Some(files(&[&fixed("corp-2026").pem()])), Some(Content::Missing), None] {
            let mut node = PlannedNode::new().wants(&["corp-2026"]);
            node.converge();
            if let Some(content) = content {
                node.sources = vec![source_of("org", content)];
            }
            node.policy.empty_source = EmptySource::Hold;
            node.ledger.sources.get_mut("org").unwrap().anchors.insert(print);
            node.ledger.anchors.insert(print, entry.clone());
            let own = OwnAnchorFile { anchor: None, intact: false };
            node.world.seen.ours.insert(file.clone(), own);
            let fault = Fault { line: 9, reason: RejectReason::MalformedCertificate, detail: "no certificate".into() };
            node.world.seen.effective.faults.push(fault);
            let plan = node.plan();
            assert!(!plan.targets.contains_key(&print) && plan.targets.contains_key(&fixed("corp-2026").fingerprint));
            let remove = StoreAction::RemoveAnchor { file: file.clone(), why: RemoveReason::Refused };
            assert!(plan.actions.contains(&remove), "{:?}", plan.actions);
            let extracts = plan
                .actions
                .iter()
                .filter(|action| matches!(action, StoreAction::Extract { mode: ExtractMode::Fresh, .. }));
            assert_eq!(extracts.count(), 1, "{:?}", plan.actions);
            assert!(plan.drift(&node.ledger).is_empty(), "nobody else has changed anything");
            node.cycle();
            assert_eq!(node.world.seen.effective.faults, [], "the bundle is healed");
            assert!(verify(&node.plan(), &node.world.seen).is_empty());
            let entry = node.ledger.anchors.get(&print).unwrap();
            assert!(entry.state == AnchorState::Retired && entry.gone.is_some(), "{entry:?}");
            node.later(REMEMBER_GONE);
            node.converge();
            assert_eq!(node.ledger.anchors.get(&print), None, "nothing of it is kept");
        }
    }
}

#[test]
fn the_ledger_cannot_give_one_anchor_the_certificate_of_another() {
    let mut node = PlannedNode::new().wants(&["corp-2026", "inspection"]);
    node.converge();
    let other = fixed("foreign").shared_der();
    node.ledger.anchors.get_mut(&fixed("inspection").fingerprint).unwrap().der = other;
    node.world.forget("inspection");
    node.sources = vec![source_of("org", Content::Missing)];
    let plan = node.converge();
    assert!(plan.targets.iter().all(|(print, target)| target.anchor.fingerprint == *print));
    assert!(!node.trusts("foreign"));
}

#[test]
fn what_somebody_deletes_or_alters_is_healed() {
    let mut node = PlannedNode::new().wants(&["corp-2026", "inspection"]);
    node.converge();
    let before = node.ledger.clone();
    let mut story = PlanStory::default();
    node.world.forget("corp-2026");
    let plan = node.cycle();
    assert_eq!(plan.drift(&before), [Drift::AnchorDeleted].into());
    story.tell("an anchor file was deleted", &plan);
    let other = fixed("foreign");
    node.world.seen.ours.insert(own("corp-2026"), OwnAnchorFile { anchor: Some(other.clone()), intact: false });
    node.world.extract(ExtractMode::Plain);
    let plan = node.cycle();
    assert_eq!(plan.drift(&before), [Drift::AnchorAltered].into());
    story.tell("an anchor file holds another certificate", &plan);
    assert!(!node.trusts("foreign"), "and that one gets no grace");
    node.world.seen.ours.get_mut(&own("inspection")).unwrap().intact = false;
    story.cycle("an anchor file has another mode", &mut node);
    node.world.seen.effective.set.remove(&fixed("corp-2026").fingerprint);
    let plan = node.cycle();
    assert_eq!(plan.drift(&before), [Drift::Bundle].into());
    story.tell("the bundle lacks an anchor", &plan);
    node.world.seen.unlinked.insert(fixed("corp-2026").fingerprint);
    let plan = node.cycle();
    assert_eq!(plan.drift(&before), [Drift::Link].into());
    story.tell("a hash link is gone", &plan);
    node.world.seen.effective = Effective::default();
    story.cycle("the bundle is gone", &mut node);
    node.world.seen.effective.count *= 2;
    story.cycle("the bundle has everything twice", &mut node);
    node.world.seen.effective.faults.push(Fault {
        line: 9,
        reason: RejectReason::NotPemOrDer,
        detail: "no END".into(),
    });
    story.cycle("OpenSSL cannot load the bundle", &mut node);
    story.cycle("afterwards", &mut node);
    story.check("healed");
    assert_eq!(node.ledger.changed, before.changed, "healing changes no set");
}

#[test]
fn left_overs_of_killed_runs_are_removed() {
    let mut node = PlannedNode::new().wants(&["corp-2026"]);
    node.converge();
    node.world.seen.leftovers =
        ["/etc/ssl/certs/.nodetrust-bundle".into(), "/usr/local/share/ca-certificates/.nodetrust-x.tmp".into()].into();
    node.world.seen.stale_temp = Some("/etc/ssl/certs/ca-certificates.crt.new".into());
    let mut story = PlanStory::default();
    story.cycle("a run of ours and one of the tool were killed", &mut node);
    node.ledger.pending = true;
    let plan = node.cycle();
    assert_eq!(
        plan.drift(&Ledger { pending: true, ..node.ledger.clone() }),
        [].into(),
        "our own unfinished work is no drift"
    );
    story.tell("an earlier change was not seen to be complete", &plan);
    story.cycle("afterwards", &mut node);
    story.check("left-overs");
}

#[test]
fn uninstall_removes_all_that_is_ours_and_nothing_else() {
    let mut node = PlannedNode::new().wants(&["corp-2021", "corp-2026"]);
    node.world.seen.foreign.push(foreign("theirs.crt", vec![fixed("foreign")], None));
    node.converge();
    node.world.seen.ours.insert(own("inspection"), OwnAnchorFile { anchor: None, intact: false });
    let plan = plan_uninstall(&node.world.seen, &node.ledger);
    let mut story = PlanStory::default();
    story.tell("uninstall", &plan);
    node.carry_out(&plan, plan.actions.len());
    assert!(node.ledger.anchors.values().all(|entry| entry.gone.is_some()), "{:?}", node.ledger);
    let again = plan_uninstall(&node.world.seen, &node.ledger);
    story.tell("uninstall again", &again);
    story.tell(
        "uninstall on a host without us",
        &plan_uninstall(&SimulatedHost::new(Family::Debian).seen, &Ledger::new()),
    );
    story.check("uninstall");
    assert!(node.trusts("foreign") && node.trusts("rsa-2048") && !node.trusts("corp-2026"));
    assert_eq!((node.world.seen.ours.len(), node.world.seen.foreign.len()), (0, 1));
}

#[test]
fn a_foreign_file_that_the_tool_would_turn_into_damage_holds_the_extract() {
    let mut story = PlanStory::default();
    let mut node = PlannedNode::new().wants(&["corp-2026"]);
    node.world.seen.foreign.push(foreign("server.crt", vec![fixed("foreign")], Some(Hazard::PrivateKey(12))));
    story.cycle("somebody's private key lies in the anchor directory", &mut node);
    assert!(!node.world.seen.effective.private_key && !node.trusts("corp-2026"));
    story.cycle("it still lies there", &mut node);
    node.world.seen.foreign[0] = foreign("server.crt", Vec::new(), broken());
    story.cycle("now it is a broken block", &mut node);
    node.world.seen.foreign.clear();
    story.cycle("it is gone", &mut node);
    assert!(node.trusts("corp-2026") && !node.ledger.pending);
    story.cycle("afterwards", &mut node);
    story.check("hazards");
}

#[test]
fn damage_that_is_already_done_holds_nothing_back() {
    let mut story = PlanStory::default();
    for (title, hazard) in [("a key", Some(Hazard::PrivateKey(1))), ("a broken block", broken())] {
        let mut node = PlannedNode::new().wants(&["corp-2026"]);
        node.world.seen.foreign.push(foreign("server.crt", Vec::new(), hazard));
        node.world.extract(ExtractMode::Plain); // somebody ran the tool
        story.cycle(&format!("{title} is in the bundle already"), &mut node);
        assert!(node.trusts("corp-2026"));
        story.cycle("afterwards", &mut node);
        node.world.seen.foreign.clear();
        story.cycle("its file is gone", &mut node);
        assert!(!node.world.seen.effective.private_key && node.world.seen.effective.faults.is_empty());
    }
    story.check("hazards-done");
}

#[test]
fn own_files_that_the_ledger_does_not_know() {
    let mut story = PlanStory::default();
    let mut node = PlannedNode::new().wants(&["corp-2026"]);
    for name in ["corp-2021", "inspection"] {
        node.world.seen.ours.insert(own(name), OwnAnchorFile { anchor: Some(fixed(name)), intact: true });
    }
    node.world.seen.ours.insert(own("dsa"), OwnAnchorFile { anchor: None, intact: false });
    node.policy.denied = [fixed("inspection").fingerprint].into();
    node.world.extract(ExtractMode::Fresh);
    story.cycle("the ledger was lost: one file is unknown, one is denied, one is damaged", &mut node);
    assert!(node.trusts("corp-2021") && !node.trusts("inspection"));
    node.later(DAY);
    story.cycle("the grace of the unknown one is over", &mut node);
    assert!(!node.trusts("corp-2021"));
    story.cycle("afterwards", &mut node);
    story.check("adopted");
}

/// `policy.notCa: accept` asks for it, and a store over p11-kit leaves it out all the same.
#[test]
fn the_tool_is_not_run_for_ever_for_what_the_store_leaves_out() {
    for family in [Family::Redhat, Family::Suse, Family::Arch] {
        let leaf = POOL.iter().find(|anchor| is_dropped(&anchor.fingerprint)).unwrap();
        let mut node = PlannedNode { world: SimulatedHost::new(family), ..PlannedNode::new() }.wants(&["corp-2026"]);
        node.policy.not_ca = NotCa::Accept;
        let alone = node.sources.clone();
        node.sources.push(source("odd", &[leaf]));
        node.cycle();
        let plan = node.plan();
        assert_eq!((&plan.actions[..], node.ledger.pending), (&[][..], false), "one run shows what the store takes");
        assert!(node.trusts("corp-2026") && plan.targets.contains_key(&leaf.fingerprint));
        let [problem] = verify(&plan, &node.world.seen).try_into().unwrap();
        assert_eq!((problem.kind, problem.sha256), (ProblemKind::NotTrusted, Some(leaf.fingerprint)));
        assert!(problem.next.starts_with("it is not a CA") && problem.next.ends_with("give the CA that issued it"));

        // no program has trusted it, so nothing is kept for a grace
        node.sources = alone;
        node.cycle();
        assert_eq!(node.world.seen.ours.len(), 1, "its file goes with its source");
        let plan = node.plan();
        assert_eq!((plan.actions, verify(&node.plan(), &node.world.seen)), (vec![], vec![]));
    }
}

#[test]
fn a_store_without_a_tool_or_with_its_own_hooks() {
    let mut story = PlanStory::default();
    for family in [Family::Directory, Family::Redhat, Family::Flatcar] {
        let mut node = PlannedNode { world: SimulatedHost::new(family), ..PlannedNode::new() }.wants(&["corp-2026"]);
        story.cycle(&format!("{family}: install"), &mut node);
        story.cycle("afterwards", &mut node);
        node.policy.removal_grace = 0;
        node = node.wants(&["inspection"]);
        story.cycle("replaced without grace", &mut node);
        assert!(node.trusts("inspection") && !node.trusts("corp-2026"), "{family}");
    }
    story.check("families");
}

#[test]
fn an_anchor_that_comes_back_in_its_grace_is_desired_again() {
    let mut node = PlannedNode::new().wants(&["corp-2021", "corp-2026"]);
    node.converge();
    node = node.wants(&["corp-2026"]);
    node.converge();
    assert_eq!(node.state("corp-2021"), Some(AnchorState::Grace));
    node.later(DAY - 10);
    node = node.wants(&["corp-2021", "corp-2026"]);
    let plan = node.cycle();
    assert_eq!(plan.actions, [StoreAction::RecordLedger], "only written down");
    assert_eq!(node.state("corp-2021"), Some(AnchorState::Desired));
    node = node.wants(&["corp-2026"]);
    node.later(20);
    node.cycle();
    assert_eq!(node.state("corp-2021"), Some(AnchorState::Grace), "its grace begins anew");
}

#[test]
fn no_grace_removes_at_once_but_after_the_new_ones() {
    let mut node = PlannedNode::new().wants(&["corp-2021"]);
    node.policy.removal_grace = 0;
    node.converge();
    node = node.wants(&["corp-2026"]);
    let plan = node.cycle();
    let kinds: Vec<&str> = plan.actions.iter().map(|action| action_kind(action).1).collect();
    assert_eq!(kinds, ["record", "write", "remove", "extract", "hooks"]);
    assert!(!node.trusts("corp-2021") && node.trusts("corp-2026"));
}

#[test]
fn no_clock_can_end_a_grace_early() {
    let graced = || {
        let mut node = PlannedNode::new().wants(&["corp-2021", "corp-2026"]);
        node.converge();
        let mut node = node.wants(&["corp-2026"]);
        node.converge();
        node
    };
    let in_grace_at = |now: Moment| {
        let mut node = graced();
        node.now = now;
        node.cycle();
        node.trusts("corp-2021")
    };
    let day = i64::try_from(DAY).unwrap();
    for wall in [NOW + 100 * day, NOW - 100 * day, 0, i64::MAX, i64::MIN] {
        assert!(in_grace_at(at(wall, 1000 + DAY - 1, "one")), "the wall clock jumps to {wall} in one boot");
        assert!(!in_grace_at(at(wall, 1000 + DAY, "one")), "{wall}");
    }
    assert!(in_grace_at(at(NOW + day - 1, 5, "two")), "after a reboot the wall clock counts");
    assert!(!in_grace_at(at(NOW + day, 5, "two")));
    assert!(in_grace_at(at(NOW - 1, DAY - 1, "two")), "a clock behind the ledger's last entry counts for nothing");
    assert!(in_grace_at(at(0, 5, "two")));
    assert!(in_grace_at(at(0, DAY, "two")), "a node in a container: the kernel's clock has not begun anew");
}

#[test]
fn a_source_that_falls_silent_removes_nothing_even_when_the_ledger_is_lost() {
    for silent in [Content::Missing, Content::Unreadable("EIO".into()), files(&[]), files(&["words"])] {
        let mut node = PlannedNode::new().wants(&["corp-2026"]);
        node.policy.removal_grace = 0;
        node.converge();
        node.sources = vec![source_of("org", silent)];
        node.later(1000 * DAY);
        assert_eq!(node.cycle().actions, []);
        node.ledger = Ledger::new();
        node.converge();
        node.later(1000 * DAY);
        node.converge();
        assert!(node.trusts("corp-2026"), "{:?}", node.sources);
        let mut node = node.wants(&["inspection"]);
        node.converge();
        assert!(!node.trusts("corp-2026"), "once it speaks, it is followed");
    }
}

/// An optional source that is away says nothing about files that are in no ledger. What is known to be another source's leaves.
#[test]
fn an_optional_source_that_is_away_keeps_what_the_lost_ledger_knew() {
    let away = |node: &PlannedNode, wants: &str| {
        let optional = Snapshot { optional: true, ..source_of("later", Content::Missing) };
        vec![node.clone().wants(&[wants]).sources.remove(0), optional]
    };
    let mut node = PlannedNode::new().wants(&["corp-2026", "inspection"]);
    node.policy.removal_grace = DAY;
    node.converge();
    node.ledger = Ledger::new();
    node.sources = away(&node, "corp-2026");
    for _ in 0..3 {
        node.converge();
        node.later(10 * DAY);
    }
    assert!(node.trusts("inspection"), "nobody knows whose it is");

    // what a source wanted before this ledger's eyes follows the rule, although the other one is still away
    node.sources = away(&node, "corp-2021");
    node.converge();
    node.later(2 * DAY);
    node.converge();
    assert!(!node.trusts("corp-2026") && node.trusts("inspection"));

    // it comes, and does not want it: the grace begins, and ends
    node = node.wants(&["corp-2021"]);
    node.converge();
    assert!(node.trusts("inspection"));
    node.later(2 * DAY);
    node.converge();
    assert!(!node.trusts("inspection"));
}

#[test]
fn an_anchor_that_the_distribution_ships_too_stays_after_us() {
    let mut node = PlannedNode::new().wants(&["corp-2026"]);
    node.world.shipped.insert(fixed("corp-2026").fingerprint);
    node.world.extract(ExtractMode::Fresh);
    node.converge();
    node.policy.removal_grace = 0;
    node = node.wants(&["inspection"]);
    let plan = node.converge();
    assert!(node.trusts("corp-2026") && node.world.seen.ours.len() == 1);
    assert_eq!(verify(&plan, &node.world.seen), []);
    assert!(node.ledger.anchors[&fixed("corp-2026").fingerprint].shared);
}

#[test]
fn settle_believes_only_what_was_read_back() {
    let mut node = PlannedNode::new().wants(&["corp-2026"]);
    let plan = node.plan();
    let fingerprint = fixed("corp-2026").fingerprint;
    let unchanged = settle(&plan, &node.world.seen, true, NOW);
    assert!(unchanged.pending && !unchanged.anchors[&fingerprint].settled && unchanged.changed.is_none());
    node.carry_out(&plan, plan.actions.len());
    let failed = settle(&plan, &node.world.seen, false, NOW);
    assert!(failed.anchors[&fingerprint].settled && failed.pending, "in the bundle, and something else went wrong");
    assert_eq!(failed.changed, Some(NOW));
    assert!(!settle(&plan, &node.world.seen, true, NOW).pending);
    let mut unlinked = node.world.seen.clone();
    unlinked.unlinked.insert(fingerprint);
    assert!(settle(&plan, &unlinked, true, NOW).pending);
    // removal: gone only when both the file and the bundle say so
    node.policy.removal_grace = 0;
    let node = node.wants(&["inspection"]);
    let plan = node.plan();
    let knows = |seen: &Observed, plan: &Plan| {
        settle(plan, seen, true, NOW).anchors.get(&fingerprint).map(|entry| entry.shared)
    };
    assert_eq!(knows(&node.world.seen, &plan), Some(false), "the file is still there");
    let mut seen = node.world.seen.clone();
    seen.ours.clear();
    assert_eq!(knows(&seen, &plan), Some(false), "the bundle still has it, and one run proves nothing");
    let again = Plan {
        actions: vec![plan.actions.iter().find(|a| action_kind(a).1 == "extract").unwrap().clone()],
        ..plan.clone()
    };
    assert_eq!(knows(&seen, &again), Some(true), "it outlives a second run: somebody else's copy");
    seen.effective.present = false;
    seen.effective.set.clear();
    assert_eq!(knows(&seen, &plan), Some(false), "no bundle says nothing");
    seen.effective.present = true;
    let gone = |plan: &Plan| settle(plan, &seen, true, NOW).anchors[&fingerprint].gone;
    assert_eq!(gone(&plan), Some(NOW), "remembered: a run that began earlier may bring it back");
    assert_eq!(settle(&plan, &seen, false, NOW + 5).changed, Some(NOW + 5));
}

/// The ledger is lost, so nobody knows any more that the distribution shipped it before us.
#[test]
fn the_tool_is_not_run_for_ever_for_what_it_cannot_remove() {
    let mut node = PlannedNode::new().wants(&["inspection"]);
    node.world.shipped.insert(fixed("corp-2026").fingerprint);
    node.world.seen.ours.insert(own("corp-2026"), OwnAnchorFile { anchor: Some(fixed("corp-2026")), intact: true });
    node.world.extract(ExtractMode::Fresh);
    node.policy.removal_grace = 0;
    let first = node.cycle();
    let problems = verify(&first, &node.world.seen);
    assert_eq!(problems[0].kind, ProblemKind::StillTrusted);
    assert!(!node.ledger.anchors[&fixed("corp-2026").fingerprint].shared, "one run proves nothing");
    assert!(
        node.cycle()
            .actions
            .iter()
            .any(|action| matches!(action, StoreAction::Extract { mode: ExtractMode::Fresh, .. }))
    );
    let last = node.converge();
    assert_eq!(verify(&last, &node.world.seen), []);
}

#[test]
fn a_removed_copy_of_somebody_else_is_not_fought_over() {
    let mut node = PlannedNode::new().wants(&["corp-2026"]);
    node.policy.removal_grace = 0;
    node.converge();
    node.world.seen.foreign.push(foreign("theirs.crt", vec![fixed("corp-2026")], None));
    let mut node = node.wants(&["inspection"]);
    let plan = node.converge();
    assert!(node.trusts("corp-2026"), "their file stays, and what is in it");
    assert_eq!(verify(&plan, &node.world.seen), []);
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

/// A store of each kind: Debian's, those over p11-kit, the plain ones, and the directory without a tool.
const FAMILIES: [Family; 8] = [
    Family::Debian,
    Family::Redhat,
    Family::Suse,
    Family::Arch,
    Family::Alpine,
    Family::Flatcar,
    Family::Photon,
    Family::Directory,
];

/// Whether p11-kit leaves a certificate of the pool out.
fn is_dropped(print: &Fingerprint) -> bool {
    POOL.iter().any(|anchor| anchor.fingerprint == *print && anchor.dropped_by_p11_kit().is_some())
}

fn some_of_pool() -> impl Strategy<Value = Vec<Arc<Anchor>>> {
    subsequence(POOL.clone(), 0..=POOL.len())
}

fn prints(anchors: &[Arc<Anchor>]) -> BTreeSet<Fingerprint> {
    anchors.iter().map(|anchor| anchor.fingerprint).collect()
}

fn any_moment() -> impl Strategy<Value = Moment> {
    (-400_000i64..400_000, 0u64..400_000, prop_oneof![Just("one"), Just("two")])
        .prop_map(|(jump, up, boot)| at(NOW + jump, up, boot))
}

fn silence() -> impl Strategy<Value = Content> {
    prop_oneof![
        Just(Content::Missing),
        Just(Content::Unreadable("EIO".into())),
        Just(files(&[])),
        Just(files(&["words"]))
    ]
}

fn any_content() -> impl Strategy<Value = Content> {
    let speech = some_of_pool().prop_map(|anchors| source("x", &anchors.iter().collect::<Vec<_>>()).content);
    prop_oneof![3 => speech, 1 => silence()]
}

fn any_sources(
    content: impl Strategy<Value = Content> + 'static,
    count: std::ops::Range<usize>,
) -> impl Strategy<Value = Vec<Snapshot>> {
    vec((content, any::<bool>()), count).prop_map(|sources| {
        let name = |(n, (content, optional)): (usize, (Content, bool))| Snapshot {
            optional,
            ..source_of(["x", "y", "z"][n], content)
        };
        sources.into_iter().enumerate().map(name).collect()
    })
}

fn any_policy() -> impl Strategy<Value = Policy> {
    let grace = prop_oneof![Just(0), Just(100), Just(DAY)];
    let empty = prop_oneof![Just(EmptySource::Hold), Just(EmptySource::Remove)];
    let not_ca = prop_oneof![Just(NotCa::Auto), Just(NotCa::Accept)];
    (subsequence(POOL.clone(), 0..=2), grace, empty, not_ca).prop_map(
        |(denied, removal_grace, empty_source, not_ca)| Policy {
            denied: prints(&denied),
            removal_grace,
            empty_source,
            not_ca,
            ..Policy::default()
        },
    )
}

/// Any ledger that an earlier run could have left, wherever it was stopped.
fn any_ledger() -> impl Strategy<Value = Ledger> {
    let state = prop_oneof![
        Just(AnchorState::Desired),
        Just(AnchorState::Grace),
        Just(AnchorState::Retired),
        Just(AnchorState::Denied)
    ];
    let entry = (state, option::of(any_moment()), any::<bool>());
    let anchors = vec(option::of(entry), POOL.len());
    (anchors, option::of(some_of_pool()), option::of(some_of_pool()), any::<bool>(), any_moment()).prop_map(
        |(anchors, x, y, pending, updated)| {
            let mut ledger = Ledger { pending, updated: updated.wall, ..Ledger::new() };
            for (anchor, entry) in POOL.iter().zip(anchors) {
                if let Some((state, unwanted_since, settled)) = entry {
                    let unwanted_since = unwanted_since.filter(|_| state != AnchorState::Desired);
                    ledger.anchors.insert(
                        anchor.fingerprint,
                        LedgerAnchor { unwanted_since, settled, ..LedgerAnchor::new(anchor, state) },
                    );
                }
            }
            for (name, last) in [("x", x), ("y", y)] {
                let Some(last) = last else { continue };
                for anchor in &last {
                    let new = LedgerAnchor::new(anchor, AnchorState::Desired);
                    ledger.anchors.entry(anchor.fingerprint).or_insert(new);
                }
                ledger.sources.insert(name.into(), LedgerSource { anchors: prints(&last), changed: NOW });
            }
            ledger
        },
    )
}

/// What can become of a file of ours: gone, as it was, altered, damaged, another certificate in it.
fn any_world() -> impl Strategy<Value = SimulatedHost> {
    let family = prop_oneof![2 => Just(Family::Debian), 8 => select(&FAMILIES[..])];
    let hazard = prop_oneof![4 => Just(None), 1 => Just(Some(Hazard::PrivateKey(3))), 1 => Just(broken())];
    let foreign_files = vec((some_of_pool(), any::<bool>(), hazard), 0..3);
    let effective = (any::<bool>(), some_of_pool(), 0usize..9, any::<bool>());
    (
        (family, vec(0..5u8, POOL.len()), foreign_files, some_of_pool(), effective),
        (some_of_pool(), any::<bool>(), any::<bool>(), any::<bool>()),
    )
        .prop_map(|((family, ours, others, shipped, effective), (unlinked, leftover, stale, dir))| {
            let mut world = SimulatedHost::new(family);
            world.shipped.extend(prints(&shipped));
            let seen = &mut world.seen;
            for (n, (anchor, fate)) in POOL.iter().zip(ours).enumerate() {
                let (anchor_in_it, intact) = match fate {
                    1 => (Some(anchor.clone()), true),
                    2 => (Some(anchor.clone()), false),
                    3 => (None, false),
                    4 => (Some(POOL[(n + 1) % POOL.len()].clone()), false),
                    _ => continue,
                };
                seen.ours
                    .insert(file_name(seen.store, &anchor.fingerprint), OwnAnchorFile { anchor: anchor_in_it, intact });
            }
            seen.anchors_dir_exists = dir || !seen.ours.is_empty() || !others.is_empty();
            for (n, (anchors, taken, hazard)) in others.into_iter().enumerate() {
                seen.foreign
                    .push(ForeignFile { taken, ..foreign(&format!("{n}.crt"), anchors, hazard.filter(|_| taken)) });
            }
            seen.leftovers = leftover.then(|| "/etc/ssl/certs/.nodetrust-bundle".to_owned()).into_iter().collect();
            seen.stale_temp = match seen.store.tool {
                Tool::Staged { foreign_temp, .. } if stale => Some(foreign_temp.to_owned()),
                _ => None,
            };
            let (present, set, more, private_key) = effective;
            seen.unlinked = prints(&unlinked);
            if present {
                let set = &prints(&set) | &world.shipped;
                seen.effective =
                    Effective { present, count: set.len() + more, set, private_key, ..Effective::default() };
            } else {
                seen.effective = Effective::default();
            }
            if matches!(seen.store.tool, Tool::None) {
                world.seen.unlinked.clear();
                world.extract(ExtractMode::Fresh);
            }
            world
        })
}

prop_compose! {
    fn any_node()(
        world in any_world(), ledger in any_ledger(), policy in any_policy(), now in any_moment(), sources in any_sources(any_content(), 0..3),
    ) -> PlannedNode {
        PlannedNode { world, ledger, policy, now, sources }
    }
}

/// The place of an action in a plan, and its word.
fn action_kind(action: &StoreAction) -> (u8, &'static str) {
    match action {
        StoreAction::RecordLedger => (0, "record"),
        StoreAction::CreateDirectory { .. } => (1, "create"),
        StoreAction::RemoveTemporary { .. } => (1, "clean"),
        StoreAction::WriteAnchor { .. } => (2, "write"),
        StoreAction::RemoveAnchor { .. } => (3, "remove"),
        StoreAction::Extract { .. } => (4, "extract"),
        StoreAction::RunHooks { .. } => (5, "hooks"),
        StoreAction::RetireStore { .. } => (6, "retire"),
    }
}

/// What holds for every single plan.
fn check_plan(node: &PlannedNode, plan: &Plan) -> Result<(), TestCaseError> {
    let seen = &node.world.seen;
    let order: Vec<u8> = plan.actions.iter().map(|action| action_kind(action).0).collect();
    prop_assert!(order.is_sorted(), "written down, then additions, then removals, then the tool: {:?}", plan.actions);
    prop_assert!(plan.actions.len() <= plan.targets.len() + seen.ours.len() + seen.leftovers.len() + 5);
    let wanted: BTreeSet<String> = plan.targets.keys().map(|fingerprint| file_name(seen.store, fingerprint)).collect();
    for action in &plan.actions {
        match action {
            StoreAction::WriteAnchor { file, sha256, .. } => {
                prop_assert!(is_own_name(seen.store, file) && wanted.contains(file));
                prop_assert!(!node.policy.denied.contains(sha256));
            }
            StoreAction::RemoveAnchor { file, .. } => {
                prop_assert!(is_own_name(seen.store, file) && seen.ours.contains_key(file));
                prop_assert!(!wanted.contains(file), "a target is never removed");
            }
            StoreAction::RemoveTemporary { path, .. } => {
                prop_assert!(seen.leftovers.contains(path) || seen.stale_temp.as_ref() == Some(path));
            }
            _ => {}
        }
    }
    let written_down = plan.actions.first() == Some(&StoreAction::RecordLedger)
        || plan.actions.is_empty()
        || plan.ledger.same_as(&node.ledger);
    prop_assert!(written_down, "nothing is done before it is written down");
    for fingerprint in node.resolved().desired.keys() {
        prop_assert!(plan.targets.contains_key(fingerprint));
    }
    prop_assert!(plan.targets.keys().all(|fingerprint| !plan.retired.contains(fingerprint)));
    Ok(())
}

/// What holds when nothing is left to do.
fn check_end(node: &PlannedNode) -> Result<(), TestCaseError> {
    let plan = node.plan();
    prop_assert_eq!(&plan.actions, &[], "held: {:?}", plan.held);
    if !plan.held.is_empty() {
        return Ok(());
    }
    let seen = &node.world.seen;
    let own: BTreeSet<Fingerprint> = seen.ours.values().map(|own| own.anchor.as_ref().unwrap().fingerprint).collect();
    prop_assert_eq!(&own, &plan.targets.keys().copied().collect(), "our files are the targets, each intact");
    prop_assert!(plan.due(seen.store).all(|target| seen.effective.set.contains(target)));
    let theirs = seen.foreign.iter().filter(|file| file.taken).flat_map(|file| prints(&file.anchors));
    let theirs: BTreeSet<Fingerprint> = theirs.chain(node.world.shipped.iter().copied()).collect();
    for retired in plan.retired.iter().filter(|retired| seen.effective.set.contains(retired)) {
        prop_assert!(theirs.contains(retired), "{} is still trusted because of us", retired);
    }
    prop_assert!(seen.leftovers.is_empty());
    // where nothing is ours and nothing is wanted, what the tool of others left behind is theirs
    let concerned = !plan.targets.is_empty() || !node.ledger.is_blank();
    prop_assert!(seen.stale_temp.is_none() || !concerned);
    Ok(())
}

proptest! {
    /// From anything that could be found on a host, three rounds lead to the end, and foreign files are as they were.
    #[test]
    fn every_host_converges(mut node in any_node()) {
        let before = format!("{:?}", node.world.seen.foreign);
        for _ in 0..3 {
            let plan = node.plan();
            check_plan(&node, &plan)?;
            node.carry_out(&plan, plan.actions.len());
        }
        check_end(&node)?;
        prop_assert_eq!(before, format!("{:?}", node.world.seen.foreign));
    }

    /// Sources, clocks and rules change, runs are cut off after any action: the end is the same.
    #[test]
    fn every_history_converges(
        mut node in any_node(),
        steps in vec((any_sources(any_content(), 0..3), any_policy(), any_moment(), 0usize..12), 1..5),
    ) {
        for (sources, policy, now, count) in steps {
            node = PlannedNode { sources, policy, now, ..node };
            let plan = node.plan();
            check_plan(&node, &plan)?;
            node.carry_out(&plan, count);
        }
        for _ in 0..3 {
            node.cycle();
        }
        check_end(&node)?;
    }

    /// Whatever the clock says: silent sources lose none of what they last said, and none of what nobody knows the owner of.
    #[test]
    fn a_silent_source_never_removes(
        world in any_world(), ledger in any_ledger(), moments in vec(any_moment(), 1..4), sources in any_sources(silence(), 1..3),
        grace in prop_oneof![Just(0), Just(DAY)],
    ) {
        let policy = Policy { removal_grace: grace, ..Policy::default() };
        let mut kept: BTreeSet<Fingerprint> =
            sources.iter().filter_map(|source| ledger.sources.get(&source.name)).flat_map(|last| last.anchors.clone()).collect();
        // the policy refuses anchors that the store leaves out, also those of a held set
        kept.retain(|print| !(world.seen.store.drops_not_ca && is_dropped(print)));
        if sources.iter().any(|source| ledger.sources.get(&source.name).is_none_or(|last| last.anchors.is_empty())) {
            let unknown = world.seen.ours.iter().filter_map(|(file, own)| Some((file, own.anchor.as_ref()?.fingerprint)));
            kept.extend(
                unknown
                    .filter(|(file, print)| **file == file_name(world.seen.store, print) && !ledger.anchors.contains_key(print))
                    .map(|(_, print)| print),
            );
        }
        let mut node = PlannedNode { world, ledger, policy, now: at(NOW, 0, "one"), sources };
        for now in moments {
            node.now = now;
            let plan = node.cycle();
            for print in &kept {
                prop_assert!(plan.targets.contains_key(print));
            }
        }
    }

    /// Uninstall leaves nothing of ours, from any state.
    #[test]
    fn uninstall_ends_without_us(mut node in any_node()) {
        for _ in 0..3 {
            let plan = plan_uninstall(&node.world.seen, &node.ledger);
            prop_assert!(plan.targets.is_empty());
            node.carry_out(&plan, plan.actions.len());
        }
        prop_assert!(node.world.seen.ours.is_empty());
        let plan = plan_uninstall(&node.world.seen, &node.ledger);
        prop_assert_eq!(&plan.actions, &[]);
        let theirs = node.world.seen.foreign.iter().filter(|file| file.taken).flat_map(|file| prints(&file.anchors));
        let theirs: BTreeSet<Fingerprint> = theirs.chain(node.world.shipped.iter().copied()).collect();
        if plan.held.is_empty() {
            prop_assert!(plan.retired.iter().all(|print| !node.world.seen.effective.set.contains(print) || theirs.contains(print)));
        }
    }
}

/// A run of somebody else's that began before a removal publishes what it had read then.
#[test]
fn a_removed_anchor_that_comes_back_is_removed_again() {
    let mut node = PlannedNode::new().wants(&["corp-2021", "corp-2026"]);
    node.converge();
    node.policy.denied.insert(fixed("corp-2021").fingerprint);
    node.converge();
    assert!(!node.trusts("corp-2021"));
    node.later(60);
    node.world.seen.effective.set.insert(fixed("corp-2021").fingerprint);
    let plan = node.cycle();
    assert!(plan.actions.iter().any(|action| matches!(action, StoreAction::Extract { .. })), "{:?}", plan.actions);
    assert!(!node.trusts("corp-2021"));
    node.later(REMEMBER_GONE + 1);
    node.converge();
    assert!(!node.ledger.anchors.contains_key(&fixed("corp-2021").fingerprint), "and forgotten in the end");
}

#[test]
fn a_shrunk_bundle_is_noticed_though_ours_are_in_it() {
    let mut node = PlannedNode::new().wants(&["corp-2026"]);
    node.converge();
    assert!(node.ledger.foreign.contains(&fixed("rsa-2048").fingerprint));
    node.world.seen.effective.set.remove(&fixed("rsa-2048").fingerprint);
    node.world.seen.lost.insert(fixed("rsa-2048").fingerprint); // what the shell finds out: its source is still there
    let plan = node.cycle();
    let ledger = node.ledger.clone();
    assert_eq!(plan.drift(&Ledger { pending: false, ..ledger }), [Drift::Bundle].into());
}
