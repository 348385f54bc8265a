//! What the sources say together, and what their silence means.

use proptest::prelude::*;
use rcgen::{CustomExtension, DnType, IsCa};

use super::*;
use crate::{
    ledger::{AnchorState, LedgerAnchor},
    source::{
        policy::{Acceptance, Circumstances, EmptySource, NotCa, OnRejection, Policy},
        resolve::{remember, resolve},
    },
    testing::{NOW, anchor, ca, files, fixed, self_signed, source, source_of},
};

fn at(installed: &(dyn Fn(&Fingerprint) -> bool + Sync)) -> Circumstances<'_> {
    Circumstances { drops_not_ca: Some(false), installed, now: NOW }
}

fn resolved(snapshots: &[Snapshot], ledger: &Ledger, policy: &Policy) -> Resolved {
    resolve(snapshots, ledger, policy, at(&|fingerprint| ledger.anchors.contains_key(fingerprint)))
}

fn fresh(snapshots: &[Snapshot]) -> Resolved {
    resolved(snapshots, &Ledger::new(), &Policy::default())
}

/// A ledger in which this source last said this.
fn said(name: &str, anchors: &[&Arc<Anchor>]) -> Ledger {
    let mut ledger = Ledger::new();
    for anchor in anchors {
        ledger.anchors.insert(anchor.fingerprint, LedgerAnchor::new(anchor, AnchorState::Desired));
    }
    ledger.sources.insert(name.into(), LedgerSource { anchors: prints(anchors), changed: 5 });
    ledger
}

fn prints(anchors: &[&Arc<Anchor>]) -> BTreeSet<Fingerprint> {
    anchors.iter().map(|anchor| anchor.fingerprint).collect()
}

fn desired(resolved: &Resolved) -> BTreeSet<Fingerprint> {
    resolved.desired.keys().copied().collect()
}

fn reasons(state: &SourceState) -> Vec<RejectReason> {
    state.rejections.iter().map(|rejection| rejection.reason).collect()
}

fn silences() -> Vec<Content> {
    vec![
        Content::Missing,
        Content::Unreadable("permission denied".into()),
        files(&[]),
        files(&["", "\n"]),
        files(&["words"]),
        files(&["-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"]),
    ]
}

#[test]
fn sources_are_merged_by_fingerprint() {
    let (a, b) = (fixed("corp-2026"), fixed("inspection"));
    let found = fresh(&[source("x", &[&a, &a]), source("y", &[&b, &a])]);
    assert_eq!(desired(&found), prints(&[&a, &b]));
    assert_eq!(found.desired[&a.fingerprint].sources, ["x".to_owned(), "y".to_owned()].into());
    assert_eq!(found.desired[&b.fingerprint].sources, ["y".to_owned()].into());
    assert!(found.sources.iter().all(|state| state.status == SourceStatus::Ok) && !found.has_findings());
    assert_eq!(found.sources[0].anchors, prints(&[&a]));
}

#[test]
fn a_certificate_in_der_or_under_another_label_is_the_same_anchor() {
    let root = fixed("corp-2021");
    let der = Arc::new(SourceFile::parse("ca.der", root.der()));
    let text = crate::testing::data("pem/trusted.pem");
    let found = fresh(&[source_of("x", Content::Files(vec![der])), source_of("y", files(&[&text]))]);
    assert_eq!(desired(&found), prints(&[&root]));
    assert!(found.sources[1].notes[0].starts_with("ca-0.crt: line 1"), "{:?}", found.sources[1].notes);
}

proptest! {
    /// The kubelet shuffles the certificates of a ClusterTrustBundle every few minutes.
    #[test]
    fn order_and_repetition_change_nothing(order in proptest::collection::vec(0usize..4, 4..12), cut in 0usize..12) {
        let names = ["corp-2021", "corp-2026", "inspection", "version-1"];
        let all: Vec<Arc<Anchor>> = names.iter().map(|name| fixed(name)).collect();
        let mut texts: Vec<String> = order.iter().map(|n| all[*n].pem()).chain(all.iter().map(|anchor| anchor.pem())).collect();
        let rest = texts.split_off(cut.min(texts.len()));
        let shuffled = fresh(&[source_of("x", files(&[&texts.concat(), &rest.concat()]))]);
        let plain = fresh(&[source("x", &all.iter().collect::<Vec<_>>())]);
        prop_assert_eq!(&shuffled.sources, &plain.sources);
        prop_assert_eq!(desired(&shuffled), desired(&plain));
        for (one, other) in shuffled.desired.values().zip(plain.desired.values()) {
            prop_assert_eq!(&one.warnings, &other.warnings);
        }
    }
}

#[test]
fn a_silent_source_keeps_its_last_good_set() {
    let (a, b) = (fixed("corp-2026"), fixed("inspection"));
    let ledger = said("org", &[&a]);
    for content in silences() {
        let what = format!("{content:?}");
        let found = resolved(&[source_of("org", content), source("other", &[&b])], &ledger, &Policy::default());
        assert_eq!(found.sources[0].status, SourceStatus::Held, "{what}");
        assert_eq!(desired(&found), prints(&[&a, &b]), "{what}");
        assert!(found.has_findings() && found.sources[0].detail.contains("last good set"), "{what}");
        assert_eq!(remember(&found, &ledger, NOW)["org"], ledger.sources["org"], "{what}");
    }
}

#[test]
fn a_silent_source_without_a_past_has_failed() {
    for content in silences() {
        let found = fresh(&[source_of("org", content)]);
        assert_eq!(found.sources[0].status, SourceStatus::Failed);
        assert!(found.desired.is_empty() && found.has_findings());
        assert!(remember(&found, &Ledger::new(), NOW).is_empty());
    }
}

/// The agent's readiness waits for these sources.
#[test]
fn a_source_is_awaited_until_it_has_given_an_anchor_on_this_node() {
    let root = fixed("corp-2026");
    let remove = Policy { empty_source: EmptySource::Remove, ..Policy::default() };
    for content in silences() {
        let awaited = |optional, ledger: &Ledger, policy: &Policy| {
            let snapshot = Snapshot { optional, ..source_of("org", content.clone()) };
            resolved(&[snapshot], ledger, policy).sources[0].awaited
        };
        let what = format!("{content:?}");
        assert!(awaited(false, &Ledger::new(), &Policy::default()), "{what}");
        assert!(awaited(false, &Ledger::new(), &remove), "{what}: it may be a typing error");
        assert!(awaited(false, &said("other", &[&root]), &Policy::default()), "{what}: another source has spoken");
        assert!(!awaited(true, &Ledger::new(), &Policy::default()), "{what}: nothing must come from an optional one");
        for policy in [&Policy::default(), &remove] {
            assert!(!awaited(false, &said("org", &[&root]), policy), "{what}: it has spoken before");
        }
    }
    assert!(!fresh(&[source("org", &[&root])]).sources[0].awaited);
}

#[test]
fn folders_are_named_whatever_the_source_says_beside_them() {
    let mut folders = NameList::default();
    folders.push("nested");
    let with = |content| Snapshot {
        layout: SourceLayout { folders: folders.clone(), ..SourceLayout::default() },
        ..source_of("org", content)
    };
    let root = fixed("corp-2026");
    let good = fresh(&[with(source("org", &[&root]).content)]);
    assert!(
        good.sources[0].detail.ends_with("the folders nested") && !good.has_findings(),
        "{}",
        good.sources[0].detail
    );
    for (ledger, says) in [(said("org", &[&root]), "last good set"), (Ledger::new(), "no earlier set")] {
        let detail = &resolved(&[with(files(&[]))], &ledger, &Policy::default()).sources[0].detail;
        assert!(detail.contains(says) && detail.ends_with("the folders nested"), "{detail}");
    }
}

#[test]
fn an_optional_source_may_be_missing_but_not_broken() {
    let optional = |content| Snapshot { optional: true, ..source_of("org", content) };
    let found = fresh(&[optional(Content::Missing)]);
    assert_eq!(found.sources[0].status, SourceStatus::Absent);
    assert!(!found.has_findings());
    assert_eq!(fresh(&[optional(files(&[]))]).sources[0].status, SourceStatus::Failed);
    let root = fixed("corp-2026");
    let remove = Policy { empty_source: EmptySource::Remove, ..Policy::default() };
    for policy in [Policy::default(), remove] {
        let found = resolved(&[optional(Content::Missing)], &said("org", &[&root]), &policy);
        assert_eq!(found.sources[0].status, SourceStatus::Held, "missing is never `remove` for an optional source");
        assert_eq!(desired(&found), prints(&[&root]));
    }
}

/// In a cluster a ConfigMap that need not exist is an empty volume.
#[test]
fn an_optional_source_may_be_the_empty_volume_of_a_configmap_or_secret() {
    let root = fixed("corp-2026");
    let volume = |kind| Snapshot {
        optional: true,
        layout: SourceLayout { volume: Some(kind), ..SourceLayout::default() },
        ..source_of("org", files(&[]))
    };
    for kind in [KubeletVolume::ConfigMap, KubeletVolume::Secret] {
        let found = fresh(&[volume(kind)]);
        assert_eq!((found.sources[0].status, found.has_findings()), (SourceStatus::Absent, false));
        let found = resolved(&[volume(kind)], &said("org", &[&root]), &Policy::default());
        assert_eq!((found.sources[0].status, desired(&found)), (SourceStatus::Held, prints(&[&root])));
        let remove = Policy { empty_source: EmptySource::Remove, ..Policy::default() };
        assert_eq!(
            desired(&resolved(&[volume(kind)], &said("org", &[&root]), &remove)),
            prints(&[]),
            "emptied by intention"
        );
        assert_eq!(fresh(&[Snapshot { optional: false, ..volume(kind) }]).sources[0].status, SourceStatus::Failed);
    }
    let projected = fresh(&[volume(KubeletVolume::Projected)]);
    assert_eq!(projected.sources[0].status, SourceStatus::Failed, "a source of it may have been dropped");
}

#[test]
fn emptiness_removes_where_the_policy_says_so_and_stays_in_order() {
    let root = fixed("corp-2026");
    let policy = Policy { empty_source: EmptySource::Remove, ..Policy::default() };
    for content in [Content::Missing, Content::Unreadable("EIO".into()), files(&[])] {
        let mut ledger = said("org", &[&root]);
        for cycle in 0..3 {
            let found = resolved(&[source_of("org", content.clone())], &ledger, &policy);
            assert_eq!((found.sources[0].status, found.desired.len()), (SourceStatus::Ok, 0), "cycle {cycle}");
            assert!(found.sources[0].detail.contains("emptySource: remove"));
            ledger.sources = remember(&found, &ledger, NOW);
        }
        assert_eq!(
            resolved(&[source_of("org", content)], &Ledger::new(), &policy).sources[0].status,
            SourceStatus::Failed
        );
    }
    let rejected = resolved(&[source_of("org", files(&["words"]))], &said("org", &[&root]), &policy);
    assert_eq!(rejected.sources[0].status, SourceStatus::Held, "what is rejected is not empty");
}

#[test]
fn a_rejection_costs_only_itself_or_the_whole_change() {
    let (old, new) = (fixed("corp-2021"), fixed("corp-2026"));
    let ledger = said("org", &[&old]);
    let broken = [source_of("org", files(&[&new.pem(), "-----BEGIN CERTIFICATE-----\nAAAA\n"]))];
    let skip = resolved(&broken, &ledger, &Policy::default());
    assert_eq!((skip.sources[0].status, desired(&skip)), (SourceStatus::Ok, prints(&[&new])));
    assert_eq!(reasons(&skip.sources[0]), [RejectReason::NotPemOrDer]);
    assert_eq!((skip.sources[0].rejections[0].file.as_str(), skip.sources[0].rejections[0].line), ("ca-1.crt", 1));
    let policy = Policy { on_rejection: OnRejection::Hold, ..Policy::default() };
    let hold = resolved(&broken, &ledger, &policy);
    assert_eq!((hold.sources[0].status, desired(&hold)), (SourceStatus::Held, prints(&[&old])));
    assert_eq!(reasons(&hold.sources[0]), [RejectReason::NotPemOrDer]);
    let first = resolved(&broken, &Ledger::new(), &policy);
    assert_eq!((first.sources[0].status, first.desired.len()), (SourceStatus::Failed, 0));
}

#[test]
fn a_private_key_rejects_its_file_and_nothing_else() {
    let (a, b) = (fixed("corp-2026"), fixed("inspection"));
    let key = format!("{}-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n", a.pem());
    let found = fresh(&[source_of("org", files(&[&key, &b.pem()]))]);
    assert_eq!(desired(&found), prints(&[&b]));
    assert_eq!(reasons(&found.sources[0]), [RejectReason::PrivateKey]);
    assert!(!format!("{found:?}").contains("c2VjcmV0"));
}

#[test]
fn a_held_set_obeys_a_denial_and_keeps_what_has_expired() {
    let old = anchor(&self_signed(|params| params.not_after = rcgen::date_time_ymd(2021, 1, 1)));
    let (bad, lost) = (fixed("inspection"), fixed("corp-2021"));
    let mut ledger = said("org", &[&old, &bad, &lost]);
    ledger.anchors.remove(&lost.fingerprint);
    let policy = Policy { denied: prints(&[&bad]), ..Policy::default() };
    let found = resolve(&[source_of("org", Content::Missing)], &ledger, &policy, at(&|_| false));
    assert_eq!(desired(&found), prints(&[&old]));
    let notes = found.sources[0].notes.join("\n");
    assert!(notes.contains("now refused (denied)") && notes.contains("has lost its certificate"), "{notes}");
    assert_eq!(remember(&found, &ledger, NOW)["org"].anchors.len(), 3, "the set itself is not forgotten");
}

#[test]
fn time_alone_removes_nothing() {
    let old = anchor(&self_signed(|params| params.not_after = rcgen::date_time_ymd(2021, 1, 1)));
    let snapshots = [source("org", &[&old])];
    let found = fresh(&snapshots);
    assert_eq!(reasons(&found.sources[0]), [RejectReason::Expired]);
    assert_eq!(found.sources[0].rejections[0].sha256, Some(old.fingerprint));
    let ledger = said("org", &[&old]);
    assert_eq!(desired(&resolved(&snapshots, &ledger, &Policy::default())), prints(&[&old]), "installed");
    let accept = Policy { expired: Acceptance::Accept, ..Policy::default() };
    assert_eq!(desired(&resolved(&snapshots, &Ledger::new(), &accept)), prints(&[&old]));
}

#[test]
fn a_leaf_is_judged_by_the_store() {
    let leaf = anchor(&self_signed(|params| params.is_ca = IsCa::ExplicitNoCa));
    let snapshots = [source("org", &[&leaf])];
    let count = |not_ca, drops_not_ca| {
        let policy = Policy { not_ca, ..Policy::default() };
        resolve(&snapshots, &Ledger::new(), &policy, Circumstances { drops_not_ca, ..at(&|_| false) }).desired.len()
    };
    assert_eq!((count(NotCa::Auto, Some(false)), count(NotCa::Auto, Some(true)), count(NotCa::Auto, None)), (1, 0, 1));
    assert_eq!((count(NotCa::Accept, Some(true)), count(NotCa::Reject, Some(false))), (1, 0));
}

#[test]
fn allowed_and_denied_fingerprints_bind_every_source() {
    let (a, b, c) = (fixed("corp-2021"), fixed("corp-2026"), fixed("inspection"));
    let snapshots = [source("x", &[&a, &b]), source("y", &[&b, &c])];
    let policy = Policy { allowed: prints(&[&a, &b]), denied: prints(&[&b]), ..Policy::default() };
    let found = resolved(&snapshots, &Ledger::new(), &policy);
    assert_eq!(desired(&found), prints(&[&a]));
    assert_eq!(reasons(&found.sources[0]), [RejectReason::Denied]);
    assert_eq!(reasons(&found.sources[1]), [RejectReason::Denied, RejectReason::NotAllowed]);
}

#[test]
fn too_many_certificates_hold_the_source() {
    let root = fixed("corp-2026");
    let text = root.pem().repeat(10);
    let part = Arc::new(SourceFile::parse("many.crt", text.as_bytes()));
    let content = |n| source_of("org", Content::Files(vec![part.clone(); n]));
    let limit = MAX_CERTIFICATES / 10;
    assert_eq!(fresh(&[content(limit)]).sources[0].status, SourceStatus::Ok);
    let found = resolved(&[content(limit + 1)], &said("org", &[&root]), &Policy::default());
    assert_eq!(
        (found.sources[0].status, reasons(&found.sources[0])),
        (SourceStatus::Held, vec![RejectReason::TooMany])
    );
}

#[test]
fn a_source_that_is_too_big_to_be_read_is_rejected_as_a_whole_and_held() {
    let root = fixed("corp-2026");
    let content = || source_of("org", Content::Excess(RejectReason::TooLarge, "more than the limit of 7 bytes".into()));
    for policy in [Policy::default(), Policy { empty_source: EmptySource::Remove, ..Policy::default() }] {
        let found = resolved(&[content()], &said("org", &[&root]), &policy);
        assert_eq!(desired(&found), prints(&[&root]), "it is not empty");
        let state = &found.sources[0];
        assert_eq!((state.status, reasons(state)), (SourceStatus::Held, vec![RejectReason::TooLarge]));
        assert!(state.detail.starts_with("more than the limit of 7 bytes"), "{}", state.detail);
    }
    assert_eq!(fresh(&[content()]).sources[0].status, SourceStatus::Failed);
}

#[test]
fn what_one_file_can_make_of_a_report_is_bounded() {
    let block = "-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n";
    let part = SourceFile::parse("many.crt", block.repeat(pem::MAX_FAULTS * 3).as_bytes());
    assert_eq!(part.faults.len(), pem::MAX_FAULTS + 1);
    assert_eq!(part.faults.last().unwrap().reason, RejectReason::TooMany);
    assert!(part.faults[..pem::MAX_FAULTS].iter().all(|fault| fault.reason == RejectReason::MalformedCertificate));
}

/// Facts E.4 and E.5.
#[test]
fn a_rotation_of_one_name_is_told_with_its_trap() {
    let (old, new, other) = (fixed("corp-2021"), fixed("corp-2026"), fixed("inspection"));
    let found = fresh(&[source("org", &[&old, &new, &other])]);
    assert_eq!(
        found.desired[&old.fingerprint].warnings,
        [format!("same subject as {}: taken for a rotation", new.fingerprint.fp16())]
    );
    assert_eq!(found.desired[&new.fingerprint].warnings.len(), 1);
    assert_eq!(found.desired[&other.fingerprint].warnings, [""; 0]);
    let keyless = anchor(&self_signed(|params| {
        params.distinguished_name.push(DnType::CommonName, "a");
        params.is_ca = IsCa::NoCa;
        params.custom_extensions = vec![CustomExtension::from_oid_content(&[2, 5, 29, 19], vec![0x30, 3, 1, 1, 0xff])];
    }));
    let found = fresh(&[source("x", &[&keyless]), source("y", &[&ca("a")])]);
    for wanted in found.desired.values() {
        let warning = wanted.warnings.last().unwrap();
        assert!(
            warning.contains("subjectKeyIdentifier") && warning.contains("OpenSSL would try only the first"),
            "{warning}"
        );
    }
}

#[test]
fn many_anchors_of_one_name_are_named_in_part() {
    let same: Vec<_> = (0..40).map(|_| ca("Corp Root")).collect();
    let found = fresh(&[source("org", &same.iter().collect::<Vec<_>>())]);
    for wanted in found.desired.values() {
        assert!(wanted.warnings[0].contains(" and 34 more: taken for a rotation"), "{:?}", wanted.warnings);
    }
}

#[test]
fn what_is_remembered_is_what_was_followed_and_since_when() {
    let (a, b) = (fixed("corp-2021"), fixed("corp-2026"));
    let ledger = said("org", &[&a]);
    let same = resolved(&[source("org", &[&a, &a])], &ledger, &Policy::default());
    assert_eq!(remember(&same, &ledger, NOW)["org"].changed, 5, "unchanged");
    let other = resolved(&[source("org", &[&b])], &ledger, &Policy::default());
    assert_eq!(remember(&other, &ledger, NOW)["org"], LedgerSource { anchors: prints(&[&b]), changed: NOW });
    let renamed = resolved(&[source("new", &[&a])], &ledger, &Policy::default());
    assert_eq!(remember(&renamed, &ledger, NOW).keys().collect::<Vec<_>>(), ["new"], "no longer configured");
}
