//! A root of the distribution leaves by the distribution's own means and comes back, and nothing else of the distribution is touched.

use super::*;
use crate::store::distrust::{DistrustMeans, ShippedRoot};

const LINE: &str = "mozilla/rsa-2048.crt";

fn root() -> Fingerprint {
    fixed("rsa-2048").fingerprint
}

/// A node whose list selects the root, and whose configuration distrusts it.
fn node() -> PlannedNode {
    let mut node = PlannedNode::new().wants(&["corp-2026"]);
    node.policy.distrust = [root()].into();
    let shipped = ShippedRoot { selected: [LINE.to_owned()].into(), ..ShippedRoot::default() };
    node.world.seen.distrust.means = DistrustMeans::Selection;
    node.world.seen.distrust.roots.insert(root(), shipped);
    node
}

#[test]
fn a_root_leaves_and_comes_back_when_it_leaves_the_list() {
    let mut node = node();
    let plan = node.cycle();
    assert!(plan.distrusts(&root()) && !plan.expected_bundle(&node.world.seen).contains(&root()));
    assert_eq!(node.ledger.distrusted[&root()].places, [LINE.to_owned()].into());
    assert_eq!(verify(&node.converge(), &node.world.seen), []);
    assert!(!node.trusts("rsa-2048") && node.trusts("corp-2026"));
    node.policy.distrust.clear();
    node.converge();
    assert!(node.trusts("rsa-2048") && node.ledger.distrusted.is_empty());
}

#[test]
fn uninstall_takes_back_what_is_ours_and_no_deselection_of_others() {
    let mut node = node();
    node.converge();
    let plan = plan_uninstall(&node.world.seen, &node.ledger);
    node.carry_out(&plan, plan.actions.len());
    assert!(node.trusts("rsa-2048") && node.ledger.distrusted.is_empty());

    let mut others = self::node();
    others.world.shipped.clear();
    others.world.seen.distrust.roots.insert(root(), ShippedRoot { deselected: true, ..ShippedRoot::default() });
    others.world.extract(ExtractMode::Fresh);
    let plan = others.converge();
    assert_eq!(verify(&plan, &others.world.seen), [], "somebody has deselected it before");
    let gone = plan_uninstall(&others.world.seen, &others.ledger);
    assert!(!gone.actions.iter().any(|action| matches!(action, StoreAction::TrustRoot { .. })), "{:?}", gone.actions);
}

#[test]
fn killed_after_any_action_it_leaves_and_comes_back_all_the_same() {
    let whole = node();
    let plan = whole.plan();
    for count in 0..=plan.actions.len() {
        let mut node = whole.clone();
        node.carry_out(&plan, count);
        node.converge();
        assert!(!node.trusts("rsa-2048"), "{count}");
        node.policy.distrust.clear();
        let back = node.plan();
        for count in 0..=back.actions.len() {
            let mut node = node.clone();
            node.carry_out(&back, count);
            node.converge();
            assert!(node.trusts("rsa-2048") && node.ledger.distrusted.is_empty(), "{count}");
        }
    }
}

#[test]
fn what_cannot_be_distrusted_is_told_and_nothing_is_done() {
    let told = |change: &dyn Fn(&mut PlannedNode), why: &str| {
        let mut node = node();
        change(&mut node);
        let plan = node.converge();
        assert!(node.trusts("rsa-2048") && node.ledger.distrusted.is_empty(), "{why}");
        let problems = verify(&plan, &node.world.seen);
        assert_eq!(problems.iter().map(|problem| problem.kind).collect::<Vec<_>>(), [ProblemKind::NotDistrusted]);
        assert!(problems[0].text.contains(why), "{}", problems[0].text);
    };
    told(&|node| node.world.seen.distrust.means = DistrustMeans::None, "not possible here");
    told(&|node| node.world.seen.distrust.means = DistrustMeans::MissingBlocklist("/x/blocklist"), "/x/blocklist");
    told(&|node| node.world.seen.distrust.roots.clear(), "no root of the distribution's");
    told(&|node| node.world.seen.distrust.roots.get_mut(&root()).unwrap().shares_file = true, "shares a file");
    told(&|node| node.world.seen.foreign.push(foreign("theirs.crt", vec![fixed("rsa-2048")], None)), "theirs.crt");
    told(&|node| node.policy.distrust = [fixed("corp-2026").fingerprint].into(), "an anchor of ours");
}
