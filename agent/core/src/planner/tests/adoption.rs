//! Files of others that the configuration names are taken over if they hold stale or double copies, and nothing is trusted less for it.

use super::*;
use crate::action::AdoptReason;

const NAME: &str = "domain.crt";

/// Somebody's file with these certificates, as it can be taken over.
fn copy(anchors: Vec<Arc<Anchor>>) -> ForeignFile {
    let form = FileForm { regular: true, links: 1, owned_by_root: true, size: 1000, digest: [7; 32], other: None };
    ForeignFile { form: Some(form), ..foreign(NAME, anchors, None) }
}

/// A node that wants these, may take the file over, and has it with these certificates in the bundle.
fn node(wants: &[&str], anchors: Vec<Arc<Anchor>>) -> PlannedNode {
    let mut node = PlannedNode::new().wants(wants);
    node.policy.adopt = vec![NAME.parse().unwrap()];
    node.world.seen.foreign.push(copy(anchors));
    node.world.extract(ExtractMode::Fresh);
    node
}

fn adopted(plan: &Plan) -> Vec<AdoptReason> {
    let why = |action: &StoreAction| match action {
        StoreAction::AdoptFile { file, why } => {
            assert_eq!(file, NAME);
            Some(*why)
        }
        _ => None,
    };
    plan.actions.iter().filter_map(why).collect()
}

#[test]
fn a_copy_of_what_a_source_has_goes_and_our_file_keeps_it_trusted() {
    let mut node = node(&["corp-2026"], vec![fixed("corp-2026")]);
    let plan = node.cycle();
    assert_eq!(adopted(&plan), [AdoptReason::InSource]);
    let places: Vec<u8> = plan.actions.iter().map(|action| action_kind(action).0).collect();
    assert!(places.is_sorted(), "our file is written before theirs goes: {:?}", plan.actions);
    assert_eq!(verify(&node.converge(), &node.world.seen), []);
    assert!(node.trusts("corp-2026") && node.world.seen.foreign.is_empty());
    // It is ours alone by now: when it leaves its source, it goes.
    node.policy.removal_grace = 0;
    let mut node = node.wants(&["inspection"]);
    node.converge();
    assert!(!node.trusts("corp-2026"));
}

#[test]
fn a_superseded_copy_gets_its_grace_on_a_node_that_never_had_its_source() {
    let mut node = node(&["corp-2026"], vec![fixed("corp-2021")]);
    assert_eq!(adopted(&node.cycle()), [AdoptReason::Superseded]);
    node.converge();
    assert!(node.trusts("corp-2021") && node.trusts("corp-2026"));
    assert_eq!(node.state("corp-2021"), Some(AnchorState::Grace));
    node.later(DAY + 1);
    node.converge();
    assert!(!node.trusts("corp-2021") && node.trusts("corp-2026"));
}

#[test]
fn a_copy_of_an_anchor_in_grace_goes_and_one_that_is_denied_leaves_at_once() {
    let mut node = node(&["corp-2021"], vec![fixed("corp-2021")]);
    node.policy.adopt.clear();
    node.converge();
    let mut node = node.wants(&["inspection"]); // of another name
    node.converge();
    node.policy.adopt = vec![NAME.parse().unwrap()];
    assert_eq!(adopted(&node.cycle()), [AdoptReason::InSource]);
    node.converge();
    assert!(node.trusts("corp-2021"));

    let mut node = self::node(&["corp-2026"], vec![fixed("corp-2021")]);
    node.policy.denied = [fixed("corp-2021").fingerprint].into();
    node.converge();
    assert!(!node.trusts("corp-2021") && node.trusts("corp-2026"));
}

#[test]
fn an_expired_copy_leaves_and_is_no_loss() {
    let expired = POOL[4].clone();
    let mut node = node(&["corp-2026"], vec![expired.clone()]);
    let plan = node.plan();
    assert_eq!(adopted(&plan), [AdoptReason::Expired]);
    assert!(plan.leaving(&node.world.seen).contains(&expired.fingerprint));
    node.converge();
    assert!(!node.world.seen.effective.set.contains(&expired.fingerprint));
}

#[test]
fn what_may_not_be_taken_over_stays_and_is_told_with_the_reason() {
    let refused = |change: &dyn Fn(&mut ForeignFile), reason: &str| {
        let mut node = node(&["corp-2026"], vec![fixed("corp-2026")]);
        change(&mut node.world.seen.foreign[0]);
        let plan = node.converge();
        assert_eq!(node.world.seen.foreign.len(), 1, "{reason}");
        let problems = verify(&plan, &node.world.seen);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!(problems[0].kind, ProblemKind::NotAdopted);
        assert!(problems[0].text.contains(reason) && problems[0].text.contains(NAME), "{}", problems[0].text);
    };
    let form = |change: fn(&mut FileForm)| move |file: &mut ForeignFile| change(file.form.as_mut().unwrap());
    refused(&form(|form| form.regular = false), "no regular file");
    refused(&form(|form| form.links = 2), "2 names");
    refused(&form(|form| form.owned_by_root = false), "root:root");
    refused(&form(|form| form.size = 2 << 20), "larger");
    refused(&form(|form| form.other = Some("line 9: a private key".into())), "line 9: a private key");
    refused(&|file| file.taken = false, "does not read");
    refused(&|file| file.anchors.clear(), "no certificate");
    refused(&|file| file.form = None, "looked at");
    refused(&|file| file.anchors.push(fixed("foreign")), "no source has");
    // The template is ahead of the sources.
    let newer = anchor(&self_signed(|params| {
        params.distinguished_name.push(DnType::CommonName, "a");
        params.not_before = rcgen::date_time_ymd(2025, 1, 1);
    }));
    let mut node = node(&[], vec![newer.clone()]);
    node.sources = vec![source("org", &[&POOL[0]])];
    let plan = node.converge();
    assert!(plan.refused[0].why.contains("no source has"), "{:?}", plan.refused);
    assert!(node.world.seen.effective.set.contains(&newer.fingerprint));
}

#[test]
fn only_the_named_files_of_the_directory_itself_are_touched() {
    for path in ["other.crt", "sub/domain.crt", "domain.crt.bak"] {
        let mut node = node(&["corp-2026"], vec![fixed("corp-2026")]);
        node.world.seen.foreign[0].path = format!("/usr/local/share/ca-certificates/{path}");
        let plan = node.converge();
        assert_eq!((node.world.seen.foreign.len(), plan.refused), (1, Vec::new()), "{path}");
    }
}

#[test]
fn a_file_waits_while_the_tool_must_not_run() {
    let mut node = node(&["corp-2026"], vec![fixed("corp-2026")]);
    node.world.seen.foreign.push(foreign("key.crt", Vec::new(), Some(Hazard::PrivateKey(1))));
    assert_eq!(adopted(&node.cycle()), []);
    node.world.seen.foreign.pop();
    node.converge();
    assert!(node.world.seen.foreign.is_empty() && node.trusts("corp-2026"));
}

#[test]
fn killed_after_any_action_the_next_cycles_end_in_the_same() {
    let whole = node(&["corp-2026", "inspection"], vec![fixed("corp-2021")]);
    let plan = whole.plan();
    for count in 0..=plan.actions.len() {
        let mut node = whole.clone();
        node.carry_out(&plan, count);
        let kept = node.world.seen.foreign.len() + node.world.seen.adopted.len();
        assert_eq!(kept, 1, "after {count} actions the file is there or remembered");
        node.converge();
        assert!(node.trusts("corp-2021") && node.trusts("corp-2026") && node.trusts("inspection"), "{count}");
        assert_eq!(node.world.seen.adopted.len(), 1);
    }
}

#[test]
fn uninstall_and_a_change_of_the_store_put_the_file_back() {
    let mut node = node(&["corp-2026"], vec![fixed("corp-2026")]);
    node.converge();
    let plan = plan_uninstall(&node.world.seen, &node.ledger);
    node.carry_out(&plan, plan.actions.len());
    assert_eq!((node.world.seen.foreign.len(), node.world.seen.adopted.len()), (1, 0));
    let again = plan_uninstall(&node.world.seen, &node.ledger);
    assert!(!again.changes_host(), "{:?}", again.actions);

    let mut left = self::node(&["corp-2026"], vec![fixed("corp-2026")]);
    left.converge();
    let plan = plan_retire(&left.world.seen, &left.ledger);
    assert!(plan.actions.iter().any(|action| matches!(action, StoreAction::ReturnFile { .. })), "{:?}", plan.actions);
}
