//! What is done on a host that somebody else has changed, or that a killed run has left.

use super::*;

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
    node.world.seen.lost.insert(fixed("rsa-2048").fingerprint); // the shell has found its source still there
    let plan = node.cycle();
    let ledger = node.ledger.clone();
    assert_eq!(plan.drift(&Ledger { pending: false, ..ledger }), [Drift::Bundle].into());
}
