//! How anchors come, are kept and leave, by what the sources and the policy say.

use super::*;

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
    // An anchor in its grace, one of a held source, and one that the ledger has lost.
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
        // Its source still has it, is silent, or is gone from the configuration.
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

        // No program has trusted it, so it gets no grace.
        node.sources = alone;
        node.cycle();
        assert_eq!(node.world.seen.ours.len(), 1, "its file goes with its source");
        let plan = node.plan();
        assert_eq!((plan.actions, verify(&node.plan(), &node.world.seen)), (vec![], vec![]));
    }
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

    // An anchor that this ledger has seen a source want gets its grace, although the optional source is still away.
    node.sources = away(&node, "corp-2021");
    node.converge();
    node.later(2 * DAY);
    node.converge();
    assert!(!node.trusts("corp-2026") && node.trusts("inspection"));

    // The optional source comes and does not want it: its grace begins and ends.
    node = node.wants(&["corp-2021"]);
    node.converge();
    assert!(node.trusts("inspection"));
    node.later(2 * DAY);
    node.converge();
    assert!(!node.trusts("inspection"));
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
    // An anchor is gone only when neither a file nor the bundle has it.
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
