//! Removals that wait for the fleet.

use super::*;

/// A node with both roots of a rotation whose old root has left the sources, at the end of its grace.
fn at_the_end_of_grace() -> PlannedNode {
    let mut node = PlannedNode::new().wants(&["corp-2021", "corp-2026"]);
    node.policy.removal_gate = RemovalGate::Fleet;
    node.converge();
    node = node.wants(&["corp-2026"]);
    node.converge();
    node.later(DAY);
    node
}

fn digest(names: &[&str]) -> SetDigest {
    SetDigest::of(&names.iter().map(|name| fixed(name).fingerprint).collect())
}

fn approved(name: &str, set: &[&str], time: i64) -> ApprovalsRead {
    let fingerprint = fixed(name).fingerprint.to_string().parse().unwrap();
    ApprovalsRead::Good(Approvals(vec![Approval { fingerprint, desired: digest(set), time: Time(time) }]))
}

#[test]
fn an_anchor_stays_after_its_grace_until_it_is_approved() {
    let mut node = at_the_end_of_grace();
    let old = fixed("corp-2021").fingerprint;
    for (approvals, wait) in [
        (ApprovalsRead::Absent, RemovalWait::NotApproved),
        (ApprovalsRead::Hidden, RemovalWait::Hidden),
        (ApprovalsRead::Unusable, RemovalWait::Unusable),
        (approved("corp-2026", &["corp-2026"], NOW + 60), RemovalWait::NotApproved),
        // the digest of the whole set, with the anchor in grace, is another one
        (approved("corp-2021", &["corp-2021", "corp-2026"], NOW + 60), RemovalWait::OtherSet),
        (approved("corp-2021", &["corp-2026"], NOW - 3600), RemovalWait::Outdated),
    ] {
        node.approvals = approvals;
        let plan = node.converge();
        assert_eq!(plan.waiting, [(old, wait)].into());
        assert!(node.trusts("corp-2021") && node.state("corp-2021") == Some(AnchorState::Grace));
    }
    node.approvals = approved("corp-2021", &["corp-2026"], NOW + 60);
    node.converge();
    assert!(!node.trusts("corp-2021") && node.trusts("corp-2026"));
}

#[test]
fn an_approval_does_not_shorten_the_grace() {
    let mut node = at_the_end_of_grace();
    node.now.boottime -= 1;
    node.approvals = approved("corp-2021", &["corp-2026"], NOW + 60);
    let plan = node.converge();
    assert!(plan.waiting.is_empty() && node.trusts("corp-2021"));
    node.later(1);
    node.converge();
    assert!(!node.trusts("corp-2021"));
}

#[test]
fn grace_does_not_end_beside_a_runtime_that_does_not_follow() {
    let mut node = at_the_end_of_grace();
    node.approvals = approved("corp-2021", &["corp-2026"], NOW + 60);
    for (runtime, wait) in [
        (None, RemovalWait::RuntimeNotJudged),
        (Some(RuntimeState::Stale), RemovalWait::RuntimeStale),
        (Some(RuntimeState::Unknown), RemovalWait::RuntimeUnknown),
    ] {
        node.runtime = runtime;
        let plan = node.converge();
        assert_eq!(plan.waiting.values().collect::<Vec<_>>(), [&wait]);
        assert_eq!(plan.asks_runtime(), runtime.is_none());
        assert!(node.trusts("corp-2021"));
    }
    // Once the removal has begun, the runtime is behind by it, and that does not stop it.
    node.runtime = Some(RuntimeState::Current);
    let plan = node.plan();
    node.carry_out(&plan, 1);
    node.runtime = Some(RuntimeState::Stale);
    node.converge();
    assert!(!node.trusts("corp-2021"));
}

/// Nodes with different anchors in grace agree on what an approval means.
#[test]
fn a_node_that_joined_late_follows_the_same_approval() {
    let mut late = PlannedNode::new().wants(&["corp-2021"]);
    late.policy.removal_gate = RemovalGate::Fleet;
    late.converge();
    late = late.wants(&["corp-2026"]);
    late.converge();
    let mut early = PlannedNode::new().wants(&["inspection", "corp-2021"]);
    early.policy.removal_gate = RemovalGate::Fleet;
    early.converge();
    early = early.wants(&["corp-2026"]);
    early.converge();
    for mut node in [late, early] {
        node.later(DAY);
        node.approvals = approved("corp-2021", &["corp-2026"], NOW + 60);
        node.converge();
        assert!(!node.trusts("corp-2021") && node.trusts("corp-2026"));
        let stays = node.ledger.anchors.contains_key(&fixed("inspection").fingerprint);
        assert_eq!(node.trusts("inspection"), stays, "what was not approved stays");
    }
}

#[test]
fn an_old_approval_does_not_count_after_a_rollback() {
    let mut node = at_the_end_of_grace();
    let old = approved("corp-2021", &["corp-2026"], NOW + 60);
    // Back to both, and a day later again without the old one.
    node = node.wants(&["corp-2021", "corp-2026"]);
    node.converge();
    node.later(DAY);
    node = node.wants(&["corp-2026"]);
    node.approvals = old;
    node.converge();
    node.later(DAY);
    let plan = node.converge();
    assert_eq!(plan.waiting.values().collect::<Vec<_>>(), [&RemovalWait::Outdated]);
    assert!(node.trusts("corp-2021"));
}

#[test]
fn what_the_policy_forbids_leaves_at_once_and_uninstall_asks_nobody() {
    for forbid in [
        |policy: &mut Policy| policy.denied.extend([fixed("corp-2021").fingerprint]),
        |policy: &mut Policy| policy.allowed.extend([fixed("corp-2026").fingerprint]),
    ] {
        let mut node = at_the_end_of_grace();
        forbid(&mut node.policy);
        node.converge();
        assert!(!node.trusts("corp-2021") && node.trusts("corp-2026"));
    }
    let mut node = at_the_end_of_grace();
    for _ in 0..3 {
        let plan = plan_uninstall(&node.world.seen, &node.ledger);
        node.carry_out(&plan, plan.actions.len());
    }
    assert!(!node.trusts("corp-2021") && !node.trusts("corp-2026"));
}

#[test]
fn without_the_gate_approvals_mean_nothing() {
    let mut node = at_the_end_of_grace();
    node.policy.removal_gate = RemovalGate::None;
    node.approvals = ApprovalsRead::Unusable;
    node.runtime = Some(RuntimeState::Stale);
    assert!(node.converge().waiting.is_empty());
    assert!(!node.trusts("corp-2021"));
}
