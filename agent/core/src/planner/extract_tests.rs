//! What is not ours: links that are missing, most roots gone at once, and hazards for each reader.

use super::*;
use crate::{
    action::StoreAction,
    certificate::pem::{Fault, RejectReason},
    observed::SourceHazard,
    plan::Plan,
    planner::{plan, settle},
    problem::ProblemKind,
    source::{
        policy::{Circumstances, Policy},
        resolve::resolve,
    },
    store::{ExtractMode, Family, harm::MANY},
    testing::{NOW, at, fixed, host, source},
    verify::verify,
};

/// The plan for a host that wants one anchor.
fn planned(observed: &Observed, ledger: &Ledger) -> Plan {
    let policy = Policy::default();
    let at_now = Circumstances { drops_not_ca: Some(false), installed: &|_| false, now: NOW };
    let resolved = resolve(&[source("org", &[&fixed("corp-2026")])], ledger, &policy, at_now);
    plan(&resolved, observed, ledger, &policy, &at(NOW, 1, "one"), Default::default())
}

/// A host that has what it should, and its ledger.
fn settled() -> (Observed, Ledger) {
    let observed = host(Family::Debian, &[&fixed("corp-2026")]);
    let first = planned(&observed, &Ledger::new());
    let ledger = settle(&first, &observed, true, NOW);
    assert_eq!(planned(&observed, &ledger).actions, []);
    (observed, ledger)
}

fn reasons(plan: &Plan) -> Vec<(ExtractMode, BTreeSet<ExtractReason>)> {
    let extract = |action: &StoreAction| match action {
        StoreAction::Extract { mode, why } => Some((*mode, why.clone())),
        _ => None,
    };
    plan.actions.iter().filter_map(extract).collect()
}

fn print(n: u8) -> Fingerprint {
    Fingerprint::of_der(&[n])
}

#[test]
fn a_lost_link_is_made_anew_and_what_gets_none_is_written_down() {
    let (mut observed, ledger) = settled();
    let shipped = fixed("rsa-2048").fingerprint;
    observed.unlinked_foreign = [shipped].into();
    let plan = planned(&observed, &ledger);
    assert_eq!(reasons(&plan), [(ExtractMode::Fresh, [ExtractReason::ForeignLinkMissing].into())]);

    // A failed run proves nothing.
    let failed = settle(&plan, &observed, false, NOW);
    assert_eq!(reasons(&planned(&observed, &failed)).len(), 1);
    // A completed run shows that the tool makes no link.
    let ledger = settle(&plan, &observed, true, NOW);
    assert_eq!(ledger.linkless, [shipped].into());
    assert_eq!(planned(&observed, &ledger).actions, []);
    assert_eq!(verify(&planned(&observed, &ledger), &observed), []);

    // A link that exists must not get lost again.
    observed.unlinked_foreign.clear();
    let ledger = planned(&observed, &ledger).ledger;
    observed.unlinked_foreign = [shipped].into();
    assert_eq!(reasons(&planned(&observed, &ledger)).len(), 1);
}

#[test]
fn most_roots_gone_at_once_are_remembered_until_they_are_back() {
    let (mut observed, mut ledger) = settled();
    let roots: BTreeSet<Fingerprint> = (0..100).map(print).collect();
    let few = |n: usize| roots.iter().take(n).copied().collect::<BTreeSet<_>>();
    ledger.foreign.extend(&roots);
    let told = |observed: &Observed, plan: &Plan| {
        verify(plan, observed).iter().any(|problem| problem.kind == ProblemKind::ForeignGone)
    };

    // A few missing roots are an upgrade.
    let mut upgraded = observed.clone();
    upgraded.gone = few(MANY - 1);
    assert!(!told(&upgraded, &planned(&upgraded, &ledger)));

    observed.gone = roots.clone();
    let first = planned(&observed, &ledger);
    assert!(told(&observed, &first) && first.ledger.gone == roots);
    assert!(reasons(&first).is_empty(), "nothing that a run of ours could mend");
    // The next look still misses them, and the ledger knows them.
    assert_eq!(&first.ledger.known_foreign() & &roots, roots);
    let second = planned(&observed, &first.ledger);
    assert!(told(&observed, &second) && second.ledger.same_as(&first.ledger));
    // Their sources are back.
    observed.gone.clear();
    observed.lost = roots.clone();
    assert_eq!(reasons(&planned(&observed, &second.ledger)).len(), 1);
    observed.lost.clear();
    observed.effective.set.extend(&roots);
    let last = planned(&observed, &second.ledger);
    assert!(!told(&observed, &last) && last.ledger.gone.is_empty());
}

/// A half-damaged file and an upgrade that removes many roots look the same: it is reported, for a limited time.
#[test]
fn many_roots_gone_at_once_are_told_for_a_day() {
    let (mut observed, mut ledger) = settled();
    let roots: BTreeSet<Fingerprint> = (0..100).map(print).collect();
    let many: BTreeSet<Fingerprint> = roots.iter().take(MANY).copied().collect();
    ledger.foreign.extend(&roots);
    observed.effective.set.extend(&roots - &many);
    observed.gone = many.clone();
    let told = |plan: &Plan| verify(plan, &observed).iter().any(|problem| problem.kind == ProblemKind::ForeignGone);
    let later = |ledger: &Ledger, seconds: i64| {
        let policy = Policy::default();
        let at_now = Circumstances { drops_not_ca: Some(false), installed: &|_| false, now: NOW };
        let resolved = resolve(&[source("org", &[&fixed("corp-2026")])], ledger, &policy, at_now);
        plan(&resolved, &observed, ledger, &policy, &at(NOW + seconds, 1, "one"), Default::default())
    };
    let first = planned(&observed, &ledger);
    assert!(told(&first) && first.ledger.gone == many && first.ledger.gone_since == Some(NOW));
    let ledger = settle(&first, &observed, true, NOW + 1);
    let next = later(&ledger, 86_399);
    assert!(told(&next) && next.ledger.same_as(&ledger), "nothing is written at rest");
    let last = later(&next.ledger, 86_400);
    assert!(!told(&last) && last.ledger.gone.is_empty() && last.ledger.gone_since.is_none());
    assert!(last.ledger.known_foreign().is_disjoint(&many), "they are missed no more");
    assert!(last.ledger.known_foreign().is_superset(&(&roots - &many)), "and the others still are");
}

#[test]
fn a_hazard_holds_back_for_the_reader_that_still_reads() {
    let fault = Fault { line: 3, reason: RejectReason::NotPemOrDer, detail: "broken".into() };
    let (openssl, gnutls) = (Hazard::Broken(fault.clone()), Hazard::BrokenGnuTls(fault.clone()));
    let held = |hazard: &Hazard, broken: [bool; 2]| {
        let mut observed = host(Family::Debian, &[]);
        let path = "/usr/share/ca-certificates/corp/root.crt".to_owned();
        observed.hazards = vec![SourceHazard { path, hazard: hazard.clone() }];
        let of = |broken: bool| if broken { vec![fault.clone()] } else { Vec::new() };
        (observed.effective.faults, observed.effective.gnutls_faults) = (of(broken[0]), of(broken[1]));
        let plan = planned(&observed, &Ledger::new());
        assert_eq!(plan.held.is_empty(), !reasons(&plan).is_empty());
        plan.held.first().map(|held| held.why.clone())
    };
    let why = held(&gnutls, [true, false]).unwrap();
    assert!(why.contains("corp/root.crt:3") && why.contains("GnuTLS could then not load"), "{why}");
    assert!(held(&openssl, [false, true]).unwrap().contains("OpenSSL"));
    assert_eq!(held(&openssl, [true, false]), None, "it was broken before us");
    assert_eq!(held(&gnutls, [false, true]), None);
}
