//! A node whose store becomes another one.

use std::sync::Arc;

use super::*;
use crate::{
    action::ExtractReason,
    certificate::anchor::Anchor,
    ledger::{AnchorState, LedgerAnchor, LedgerSource},
    observed::OldStore,
    planner::{plan, plan_uninstall},
    problem::ProblemKind,
    source::{
        policy::{Circumstances, Policy},
        resolve::resolve,
    },
    testing::{NOW, at, fixed, host, source},
    verify::verify,
};

/// The ledger of a Debian node with one desired anchor and one in grace.
fn debian(desired: &Anchor, leaving: &Anchor) -> Ledger {
    let mut ledger = Ledger { family: Some(Family::Debian), repeated: Some(3), ..Ledger::new() };
    for (anchor, state) in [(desired, AnchorState::Desired), (leaving, AnchorState::Grace)] {
        let unwanted_since = (state == AnchorState::Grace).then(|| at(NOW - 60, 940, "one"));
        let entry = LedgerAnchor { settled: true, unwanted_since, ..LedgerAnchor::new(anchor, state) };
        ledger.anchors.insert(anchor.fingerprint, entry);
    }
    ledger.sources.insert("org".into(), LedgerSource { anchors: [desired.fingerprint].into(), changed: NOW });
    ledger.foreign.insert(fixed("inspection").fingerprint);
    ledger
}

fn old(can_be_left: bool) -> OldStore {
    let files = BTreeSet::from(["nodetrust-0123456789abcdef.crt".to_owned()]);
    OldStore { family: Family::Debian, files, in_bundle: BTreeSet::new(), can_be_left }
}

fn planned(observed: &Observed, ledger: &Ledger, wanted: &Arc<Anchor>) -> Plan {
    let policy = Policy::default();
    let at_now = Circumstances { drops_not_ca: Some(false), installed: &|_| false, now: NOW };
    let resolved = resolve(&[source("org", &[wanted])], ledger, &policy, at_now);
    plan(&resolved, observed, ledger, &policy, &at(NOW, 1000, "one"), Default::default())
}

fn leaves(plan: &Plan) -> usize {
    plan.actions.iter().filter(|action| matches!(action, StoreAction::RetireStore { .. })).count()
}

#[test]
fn the_old_store_is_left_before_anything_else_is_done() {
    let (keep, leaving) = (fixed("corp-2026"), fixed("corp-2021"));
    let ledger = debian(&keep, &leaving);
    let mut observed = host(Family::Directory, &[]);
    observed.old = vec![old(true)];
    let first = planned(&observed, &ledger, &keep);
    assert_eq!(first.actions.len(), 2, "{:?}", first.actions);
    assert!(first.actions[0] == StoreAction::RecordLedger && leaves(&first) == 1);
    assert_eq!(
        first.ledger,
        Ledger { old_families: [Family::Debian].into(), ..ledger.clone() },
        "nothing else is forgotten"
    );

    // The old store is left: its anchors come into the new one, the one in grace as well.
    observed.old.clear();
    let second = planned(&observed, &first.ledger, &keep);
    let written = second.actions.iter().filter(|action| matches!(action, StoreAction::WriteAnchor { .. })).count();
    assert_eq!((written, leaves(&second)), (2, 0), "{:?}", second.actions);
    assert!(second.drift(&first.ledger).is_empty(), "what is new to this store is no drift");
    assert_eq!((second.ledger.family, second.ledger.old_families.len()), (Some(Family::Directory), 0));
    assert_eq!(
        second.ledger.anchors[&leaving.fingerprint].unwanted_since,
        ledger.anchors[&leaving.fingerprint].unwanted_since
    );
    assert_eq!((second.ledger.foreign, second.ledger.repeated), (observed.effective.set, None), "of this bundle");
}

#[test]
fn a_store_that_could_not_be_left_is_tried_again_beside_the_new_one() {
    let (keep, leaving) = (fixed("corp-2026"), fixed("corp-2021"));
    let mut observed = host(Family::Directory, &[]);
    observed.old = vec![old(true)];
    let first = planned(&observed, &debian(&keep, &leaving), &keep);
    let second = planned(&observed, &first.ledger, &keep);
    assert!(matches!(second.actions.last(), Some(StoreAction::RetireStore { .. })), "{:?}", second.actions);
    assert!(second.actions.iter().any(|action| matches!(action, StoreAction::WriteAnchor { .. })));
    assert_eq!(second.ledger.old_families, [Family::Debian].into());
    assert!(second.changes_store(), "the node has not converged");
}

#[test]
fn without_its_tool_the_old_store_is_named_and_the_new_one_filled() {
    let (keep, leaving) = (fixed("corp-2026"), fixed("corp-2021"));
    let mut observed = host(Family::Directory, &[&keep, &leaving]);
    observed.old = vec![OldStore { in_bundle: [leaving.fingerprint].into(), ..old(false) }];
    let found = planned(&observed, &debian(&keep, &leaving), &keep);
    assert_eq!((leaves(&found), found.changes_store()), (0, false), "{:?}", found.actions);
    assert_eq!(found.ledger.old_families, [Family::Debian].into());
    let [problem] = verify(&found, &observed).try_into().unwrap();
    assert_eq!((problem.kind, problem.kind.is_failure()), (ProblemKind::OldStore, false));
    let file = "/usr/local/share/ca-certificates/nodetrust-0123456789abcdef.crt";
    for words in [file, &leaving.fingerprint.fp16(), "/etc/ssl/certs/ca-certificates.crt"] {
        assert!(problem.text.contains(words), "{}", problem.text);
    }
    assert!(problem.next.contains("/usr/sbin/update-ca-certificates") && problem.next.contains("by hand"));
}

#[test]
fn what_the_old_store_has_is_taken_out_as_a_whole_and_remembered_for_the_new_one() {
    let (keep, leaving) = (fixed("corp-2026"), fixed("corp-2021"));
    let ledger = debian(&keep, &leaving);
    let part = plan_retire(&host(Family::Debian, &[&keep, &leaving]), &ledger);
    let removed = part.actions.iter().filter(|action| matches!(action, StoreAction::RemoveAnchor { .. })).count();
    assert_eq!(removed, 2);
    assert!(part.actions.iter().any(
        |action| matches!(action, StoreAction::Extract { why, .. } if why.contains(&ExtractReason::RemovedStillInBundle))
    ));
    assert!(!part.actions.contains(&StoreAction::RecordLedger), "the ledger keeps its anchors");
    assert_eq!(part.ledger.anchors, ledger.anchors);
}

#[test]
fn uninstall_takes_what_is_left_in_old_stores_too() {
    let keep = fixed("corp-2026");
    let mut observed = host(Family::Directory, &[&keep]);
    observed.old = vec![old(true)];
    let ledger = Ledger { old_families: [Family::Debian].into(), ..debian(&keep, &fixed("corp-2021")) };
    assert_eq!(leaves(&plan_uninstall(&observed, &ledger)), 1);
}
