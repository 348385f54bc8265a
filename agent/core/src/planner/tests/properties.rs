//! What holds for every plan, on any host that could be found and after any history.

use proptest::{
    collection::vec,
    option,
    prelude::*,
    sample::{select, subsequence},
};

use super::*;

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
    let gate = prop_oneof![Just(RemovalGate::None), Just(RemovalGate::Fleet)];
    (subsequence(POOL.clone(), 0..=2), grace, gate, empty, not_ca).prop_map(
        |(denied, removal_grace, removal_gate, empty_source, not_ca)| Policy {
            denied: prints(&denied),
            removal_grace,
            removal_gate,
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
    let family = prop_oneof![2 => Just(Family::Debian), 8 => select(&Family::ALL[..])];
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

/// Approvals of anything for any set, and what may be known of the runtime.
fn any_consent() -> impl Strategy<Value = (ApprovalsRead, Option<RuntimeState>)> {
    let approval = (select(POOL.clone()), some_of_pool(), any::<bool>(), -400_000i64..400_000).prop_map(
        |(anchor, desired, short, jump)| {
            let print = anchor.fingerprint;
            let key = if short { print.fp16() } else { print.to_string() };
            Approval {
                fingerprint: key.parse().unwrap(),
                desired: SetDigest::of(&prints(&desired)),
                time: Time(NOW + jump),
            }
        },
    );
    let read = prop_oneof![
        1 => Just(ApprovalsRead::Absent),
        1 => Just(ApprovalsRead::Unusable),
        6 => vec(approval, 0..8).prop_map(|approvals| ApprovalsRead::Good(Approvals(approvals))),
    ];
    (read, option::of(select(&RuntimeState::ALL[..])))
}

prop_compose! {
    fn any_node()(
        world in any_world(), ledger in any_ledger(), policy in any_policy(), now in any_moment(), sources in any_sources(any_content(), 0..3),
        (approvals, runtime) in any_consent(),
    ) -> PlannedNode {
        PlannedNode { world, ledger, policy, now, sources, approvals, runtime }
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
    for fingerprint in plan.waiting.keys() {
        prop_assert!(plan.targets[fingerprint].state == AnchorState::Grace, "what waits stays");
    }
    check_gate(node, plan)
}

/// Under the gate nothing begins to leave without an approval of this anchor for this set, beside a runtime that does not follow, or
/// before its grace is over. What the policy forbids, what the store leaves out and what breaks readers leaves all the same.
fn check_gate(node: &PlannedNode, plan: &Plan) -> Result<(), TestCaseError> {
    if node.policy.removal_gate == RemovalGate::None {
        prop_assert!(plan.waiting.is_empty());
        return Ok(());
    }
    let desired = SetDigest::of(&node.resolved().desired.keys().copied().collect());
    let is_kept = |state| matches!(state, AnchorState::Desired | AnchorState::Grace);
    for (print, entry) in &node.ledger.anchors {
        let leaves = is_kept(entry.state) && plan.ledger.anchors.get(print).is_some_and(|next| !is_kept(next.state));
        let is_unused = is_dropped(print) && node.world.seen.store.drops_not_ca;
        if !leaves || node.policy.forbids(print) || is_unused {
            continue;
        }
        let ApprovalsRead::Good(Approvals(approvals)) = &node.approvals else {
            return Err(TestCaseError::fail(format!("{print} leaves without any approval")));
        };
        let names = |approval: &&Approval| approval.fingerprint.names(print) && approval.desired == desired;
        prop_assert!(approvals.iter().any(|approval| names(&approval)), "{} leaves without its approval", print);
        prop_assert!(node.runtime.is_some_and(RuntimeState::is_green), "{} leaves beside {:?}", print, node.runtime);
    }
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
    // A host without anchors of ours keeps the temporary file of somebody else's run.
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
        steps in vec((any_sources(any_content(), 0..3), any_policy(), any_moment(), any_consent(), 0usize..12), 1..5),
    ) {
        for (sources, policy, now, (approvals, runtime), count) in steps {
            node = PlannedNode { sources, policy, now, approvals, runtime, ..node };
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
        // The policy refuses anchors that the store leaves out, also those of a held set.
        kept.retain(|print| !(world.seen.store.drops_not_ca && is_dropped(print)));
        if sources.iter().any(|source| ledger.sources.get(&source.name).is_none_or(|last| last.anchors.is_empty())) {
            let unknown = world.seen.ours.iter().filter_map(|(file, own)| Some((file, own.anchor.as_ref()?.fingerprint)));
            kept.extend(
                unknown
                    .filter(|(file, print)| **file == file_name(world.seen.store, print) && !ledger.anchors.contains_key(print))
                    .map(|(_, print)| print),
            );
        }
        let mut node = PlannedNode { world, ledger, policy, sources, now: at(NOW, 0, "one"), ..PlannedNode::new() };
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
