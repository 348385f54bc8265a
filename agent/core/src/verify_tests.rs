//! Each problem that a look at a host can show, and that none is shown without its cause.

use super::*;
use crate::{
    certificate::pem::{Fault, RejectReason},
    ledger::Ledger,
    observed::{ForeignFile, SourceHazard},
    planner::plan,
    problem::ProblemKind,
    source::{
        policy::{Circumstances, Policy},
        resolve::resolve,
    },
    store::Family,
    testing::{NOW, at, fixed, host, source},
};

/// A host that has what its source wants, and the plan for it.
fn good(family: Family) -> (Plan, Observed) {
    let (root, inspection) = (fixed("corp-2026"), fixed("inspection"));
    let observed = host(family, &[&root, &inspection]);
    let circumstances = Circumstances { drops_not_ca: Some(false), installed: &|_| false, now: NOW };
    let (ledger, policy) = (Ledger::new(), Policy::default());
    let resolved = resolve(&[source("org", &[&root, &inspection])], &ledger, &policy, circumstances);
    (plan(&resolved, &observed, &ledger, &policy, &at(NOW, 1, "one"), Default::default()), observed)
}

fn kinds(plan: &Plan, observed: &Observed) -> Vec<ProblemKind> {
    verify(plan, observed).into_iter().map(|problem| problem.kind).collect()
}

fn foreign(hazard: Option<Hazard>) -> ForeignFile {
    let path = "/usr/local/share/ca-certificates/theirs.crt".to_owned();
    ForeignFile { path, anchors: vec![fixed("corp-2021")], taken: true, hazard, form: None }
}

fn fault() -> Fault {
    Fault { line: 44, reason: RejectReason::NotPemOrDer, detail: "broken base64".into() }
}

#[test]
fn a_host_that_is_right_has_no_problem() {
    for family in [Family::Debian, Family::Redhat, Family::Directory] {
        let (plan, observed) = good(family);
        assert_eq!(verify(&plan, &observed), [], "{family}");
    }
}

#[test]
fn an_anchor_that_is_not_in_the_bundle_is_named() {
    let (plan, mut observed) = good(Family::Debian);
    let root = fixed("corp-2026");
    observed.effective.set.remove(&root.fingerprint);
    let [problem] = verify(&plan, &observed).try_into().unwrap();
    assert_eq!((problem.kind, problem.sha256), (ProblemKind::NotTrusted, Some(root.fingerprint)));
    assert_eq!(problem.text, "Corp Root CA (d5635b0f6e908f2c) is not in /etc/ssl/certs/ca-certificates.crt");
}

#[test]
fn an_anchor_without_a_link_is_named_once() {
    let (plan, mut observed) = good(Family::Debian);
    let root = fixed("corp-2026");
    observed.unlinked.insert(root.fingerprint);
    assert_eq!(kinds(&plan, &observed), [ProblemKind::NotLinked]);
    observed.effective.set.remove(&root.fingerprint);
    assert_eq!(kinds(&plan, &observed), [ProblemKind::NotTrusted], "the greater problem is enough");
}

#[test]
fn a_removed_anchor_is_still_trusted_unless_somebody_else_has_it() {
    let (mut plan, mut observed) = good(Family::Debian);
    let old = fixed("corp-2021");
    plan.retired.insert(old.fingerprint);
    assert_eq!(verify(&plan, &observed), [], "gone");
    observed.effective.set.insert(old.fingerprint);
    assert_eq!(kinds(&plan, &observed), [ProblemKind::StillTrusted]);
    observed.foreign = vec![foreign(None)];
    assert_eq!(verify(&plan, &observed), []);
    observed.foreign[0].taken = false;
    assert_eq!(kinds(&plan, &observed), [ProblemKind::StillTrusted], "the tool does not take that file");
    let entry = crate::ledger::LedgerAnchor {
        shared: true,
        ..crate::ledger::LedgerAnchor::new(&old, crate::ledger::AnchorState::Retired)
    };
    plan.ledger.anchors.insert(old.fingerprint, entry);
    assert_eq!(verify(&plan, &observed), [], "the distribution ships it");
}

#[test]
fn a_bundle_that_is_gone_is_told_before_its_consequences() {
    let (plan, mut observed) = good(Family::Debian);
    observed.effective = Effective::default();
    assert_eq!(kinds(&plan, &observed), [ProblemKind::BundleBroken, ProblemKind::NotTrusted, ProblemKind::NotTrusted]);
}

#[test]
fn a_bundle_that_openssl_cannot_load_names_the_culprit() {
    let (plan, mut observed) = good(Family::Debian);
    observed.effective.faults = vec![fault()];
    let [problem] = verify(&plan, &observed).try_into().unwrap();
    assert_eq!((problem.kind, problem.next.as_str()), (ProblemKind::BundleBroken, ""), "the agent mends it");
    assert!(problem.text.contains("line 44: broken base64"), "{problem:?}");
    observed.foreign = vec![foreign(Some(Hazard::Broken(fault())))];
    let [problem] = verify(&plan, &observed).try_into().unwrap();
    assert_eq!(problem.kind, ProblemKind::ForeignBroken, "not by us, and not ours to mend");
    assert!(problem.text.contains("theirs.crt:44") && problem.next.contains("theirs.crt"), "{problem:?}");
}

#[test]
fn a_bundle_that_gnutls_cannot_load_is_told_on_its_own() {
    let (plan, mut observed) = good(Family::Debian);
    observed.effective.gnutls_faults = vec![fault()];
    assert_eq!(kinds(&plan, &observed), [ProblemKind::BundleBroken]);
    // A fault for OpenSSL does not explain one for GnuTLS.
    observed.foreign = vec![foreign(Some(Hazard::Broken(fault())))];
    assert_eq!(kinds(&plan, &observed), [ProblemKind::BundleBroken]);
    let hazard = Hazard::BrokenGnuTls(fault());
    observed.hazards = vec![SourceHazard { path: "/usr/share/ca-certificates/corp/root.crt".into(), hazard }];
    let [problem] = verify(&plan, &observed).try_into().unwrap();
    assert_eq!(problem.kind, ProblemKind::ForeignBroken);
    assert!(problem.text.contains("GnuTLS") && problem.text.contains("corp/root.crt:44"), "{problem:?}");
}

#[test]
fn links_that_others_lost_are_told_unless_the_tool_makes_none() {
    let (mut plan, mut observed) = good(Family::Debian);
    let shipped = fixed("rsa-2048").fingerprint;
    observed.unlinked_foreign = [shipped].into();
    assert_eq!(kinds(&plan, &observed), [ProblemKind::NotLinked]);
    plan.ledger.linkless = [shipped].into();
    assert_eq!(kinds(&plan, &observed), []);
}

#[test]
fn a_private_key_in_the_bundle_is_told_with_its_file() {
    let (plan, mut observed) = good(Family::Debian);
    observed.effective.private_key = true;
    assert!(verify(&plan, &observed)[0].next.contains("replace the key"));
    observed.foreign = vec![foreign(Some(Hazard::PrivateKey(3)))];
    let [problem] = verify(&plan, &observed).try_into().unwrap();
    assert_eq!(problem.kind, ProblemKind::BundlePrivateKey);
    assert!(problem.next.contains("theirs.crt"), "{problem:?}");
}

#[test]
fn what_is_held_back_is_a_problem_with_a_way_out() {
    let (mut plan, observed) = good(Family::Debian);
    plan.held.push(crate::plan::Held { what: "extract", why: "a key lies there".into(), next: "take it out".into() });
    let [problem] = verify(&plan, &observed).try_into().unwrap();
    assert_eq!(
        (problem.kind, problem.text.as_str(), problem.next.as_str()),
        (ProblemKind::Held, "a key lies there", "take it out")
    );
}

#[test]
fn a_host_that_is_none_of_our_business_is_left_in_peace() {
    let mut observed = host(Family::Debian, &[]);
    observed.effective = Effective { faults: vec![fault()], private_key: true, ..Effective::default() };
    let (ledger, policy) = (Ledger::new(), Policy::default());
    let plan = plan(&Default::default(), &observed, &ledger, &policy, &at(NOW, 1, "one"), Default::default());
    assert_eq!((verify(&plan, &observed), plan.actions), (vec![], vec![]));
}

#[test]
fn a_shrunk_bundle_shows_what_was_lost_but_for_ours() {
    let (a, b, ours) = (fixed("rsa-2048").fingerprint, fixed("foreign").fingerprint, fixed("corp-2026").fingerprint);
    let bundle =
        |set: &[Fingerprint]| Effective { present: true, set: set.iter().copied().collect(), ..Effective::default() };
    let lost = lost_foreign(&bundle(&[a, b, ours]), &bundle(&[a]), &[ours].into());
    assert_eq!(lost, [b].into());
    assert_eq!(lost_foreign(&bundle(&[a]), &bundle(&[a, b]), &BTreeSet::new()), BTreeSet::new());
}

#[test]
fn names_of_problems_are_what_json_and_metrics_say() {
    let names: BTreeSet<&str> = ProblemKind::ALL.iter().map(|kind| kind.as_str()).collect();
    assert_eq!(names.len(), ProblemKind::ALL.len());
    for kind in ProblemKind::ALL {
        assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
    }
}
