//! Fleets: what is said of them, that the counts are exact, and that no annotation does harm.

use std::collections::BTreeMap;

use proptest::{collection::vec, option, prelude::*};
use serde_json::json;

use super::*;
use crate::{
    testing::{NOW, assert_golden},
    time::Time,
};

const DAY: i64 = 86_400;
const OLD: &str = "1be0447c9d2f6a35";
const NEW: &str = "9f3c51d2ab77e014";
const INSPECTION: &str = "77aa02c4e1905b8d";

/// An annotation with anchors as `(fp16, state)`; the digest is made of the letter.
fn says(digest: char, anchors: &[(&str, &str)]) -> String {
    said(digest, digest, anchors).to_string()
}

fn said(desired: char, effective: char, anchors: &[(&str, &str)]) -> serde_json::Value {
    let anchor = |(fp16, state): &(&str, &str)| {
        let name = match *fp16 {
            OLD => "Corp Root CA 2021",
            NEW => "Corp Root CA 2026",
            _ => "Inspection CA",
        };
        json!({"fp16": fp16, "state": state, "notAfter": Time(NOW + 1000 * DAY), "cn": name})
    };
    let digest = |digit: char| digit.to_string().repeat(64);
    let anchors: Vec<_> = anchors.iter().map(anchor).collect();
    json!({"v": 1, "desired": digest(desired), "effective": digest(effective), "anchors": anchors, "runtimeStale": false})
}

fn node(name: &str, annotation: impl Into<String>) -> Member {
    Member {
        name: name.into(),
        ready: Some(true),
        trust_ready: Some(TrustReady { holds: true, reason: "Trusted".into() }),
        annotation: Some(annotation.into()),
        template: None,
    }
}

/// Nodes with one annotation.
fn nodes(prefix: &str, count: usize, annotation: &str) -> Vec<Member> {
    (0..count).map(|n| node(&format!("{prefix}-{n:04}"), annotation)).collect()
}

fn look(members: Vec<Member>) -> Fleet {
    fleet(members, NOW)
}

fn kinds(fleet: &Fleet) -> Vec<FindingKind> {
    fleet.findings.iter().map(|finding| finding.kind).collect()
}

fn row<'a>(fleet: &'a Fleet, fp16: &str) -> &'a FleetAnchor {
    fleet.anchors.iter().find(|row| row.fp16 == fp16).unwrap()
}

#[test]
fn a_fleet_that_agrees_is_uniform() {
    let fleet = look(nodes("a", 12, &says('1', &[(NEW, "desired"), (OLD, "grace")])));
    assert_eq!(fleet.verdict, FleetVerdict::Uniform);
    assert_eq!(fleet.headline, "all 12 nodes trust the same 2 anchors");
    assert!(fleet.findings.is_empty());
    let alone = look(nodes("a", 1, &says('1', &[(NEW, "desired")])));
    assert_eq!((alone.verdict, &*alone.headline), (FleetVerdict::Uniform, "the only node trusts 1 anchor"));
    let new = row(&fleet, NEW);
    assert_eq!((new.trusted, new.lacking.count, new.unknown), (12, 0, 0));
    assert_eq!(new.states, BTreeMap::from([("desired", 12)]));
    assert_eq!(new.common_name.as_deref(), Some("Corp Root CA 2026"));
    assert_eq!(new.not_after, Some(Time(NOW + 1000 * DAY)));
}

#[test]
fn stale_copies_are_named_with_their_path_and_change_no_verdict() {
    let mut annotation = said('1', '1', &[(NEW, "desired")]);
    let path = "/usr/local/share/ca-certificates/domain.crt";
    annotation["stale"] = json!([{"path": path, "fp16": OLD, "reason": "superseded"}]);
    let mut all = nodes("a", 3, &says('1', &[(NEW, "desired")]));
    let of_template = |member: Member| Member { template: Some("nodetrust.io/template=workers-1".into()), ..member };
    all.extend(nodes("template", 2, &annotation.to_string()).into_iter().map(of_template));
    let fleet = look(all);
    assert_eq!((fleet.verdict, kinds(&fleet)), (FleetVerdict::Uniform, vec![FindingKind::StaleCopy]));
    let finding = &fleet.findings[0];
    assert_eq!(finding.nodes.names, ["template-0000", "template-0001"]);
    for part in ["2 nodes have", path, OLD, "superseded"] {
        assert!(finding.text.contains(part), "{}", finding.text);
    }
    assert_eq!(finding.templates, [TemplateCount { name: "nodetrust.io/template=workers-1".into(), nodes: 2 }]);
}

#[test]
fn a_node_that_is_not_ready_is_named_and_its_word_counts() {
    let mut members = nodes("a", 3, &says('1', &[(NEW, "desired")]));
    members[1].ready = Some(false);
    members[2].ready = None;
    let fleet = look(members);
    assert_eq!((fleet.verdict, fleet.agreeing), (FleetVerdict::Uniform, 3));
    assert_eq!(kinds(&fleet), [FindingKind::NodeNotReady]);
    assert_eq!(fleet.findings[0].nodes.names, ["a-0001", "a-0002"]);
}

#[test]
fn an_anchor_that_leaves_some_nodes_and_not_others_is_told() {
    let mut members = nodes("stays", 2, &says('1', &[(NEW, "desired"), (OLD, "desired")]));
    let mut leaving = said('1', '1', &[(NEW, "desired"), (OLD, "grace")]);
    leaving["sourcesDigest"] = "2".repeat(64).into();
    members.push(node("leaves", leaving.to_string()));
    let fleet = look(members);
    let expected = vec![FindingKind::SourcesDiffer, FindingKind::LeavesSome, FindingKind::LoneDigest];
    assert_eq!((fleet.verdict, kinds(&fleet)), (FleetVerdict::Split, expected));
    let leaves = format!("Corp Root CA 2021 ({OLD}) leaves 1 node after its grace, and the sources of 2 nodes want it");
    assert_eq!(fleet.headline, "2 of 3 nodes trust the same and are done, 1 differs or is not done");
    let finding = &fleet.findings[1];
    assert_eq!((finding.text.as_str(), finding.nodes.names.as_slice()), (&*leaves, &["leaves".to_owned()][..]));
    assert!(finding.next.contains("`kubectl nodetrust status leaves` says when"), "{}", finding.next);
    // while a removal travels, those that have followed it are done
    let mut members = nodes("leaves", 4, &leaving.to_string());
    members.push(node("stays", says('1', &[(NEW, "desired"), (OLD, "desired")])));
    assert_eq!(look(members).agreeing, 4);
}

/// The sources are equal again; what one node still has in grace needs nobody.
#[test]
fn an_anchor_in_grace_alone_makes_no_difference() {
    let mut members = nodes("a", 2, &says('1', &[(NEW, "desired")]));
    let mut leaving = said('2', '2', &[(NEW, "desired"), (OLD, "grace")]);
    leaving["sourcesDigest"] = "1".repeat(64).into();
    members.push(node("leaving", leaving.to_string()));
    let fleet = look(members);
    assert_eq!((fleet.verdict, fleet.agreeing, kinds(&fleet)), (FleetVerdict::Uniform, 3, vec![]));
    let headline =
        "all 3 nodes trust what their sources want, the same everywhere; some have anchors in grace beside it";
    assert_eq!(fleet.headline, headline);
    assert_eq!(row(&fleet, OLD).lacking.count, 2);
}

/// Neither its digests nor its runtime, of which nothing is known there, are the cause.
#[test]
fn a_node_without_a_store_is_told_as_such() {
    let mut members = nodes("good", 2, &says('1', &[(NEW, "desired")]));
    let mut annotation = said('2', '1', &[(NEW, "desired")]);
    annotation["runtimeUnknown"] = true.into();
    let condition = Some(TrustReady { holds: false, reason: "UnsupportedStore".into() });
    members.push(Member { trust_ready: condition, ..node("bare", annotation.to_string()) });
    let fleet = look(members);
    let told = fleet.findings.iter().find(|finding| finding.kind == FindingKind::TrustNotReady).unwrap();
    assert_eq!(told.text, "1 node is not ready to trust: UnsupportedStore");
    assert_eq!(told.next, "run `kubectl nodetrust status bare`: the first line says why");
    assert!(!kinds(&fleet).iter().any(|kind| matches!(kind, FindingKind::NotConverged | FindingKind::RuntimeUnknown)));
}

#[test]
fn a_node_that_trusts_with_findings_is_a_note() {
    let mut members = nodes("good", 2, &says('1', &[(NEW, "desired")]));
    members[1].trust_ready = Some(TrustReady { holds: true, reason: "ExtractFailed".into() });
    let fleet = look(members);
    assert_eq!((fleet.verdict, kinds(&fleet)), (FleetVerdict::Uniform, vec![FindingKind::TrustedWithFindings]));
    let finding = &fleet.findings[0];
    assert_eq!(finding.text, "1 node trusts what it should, and something wants a look: ExtractFailed");
    assert_eq!(finding.nodes.names, ["good-0001"]);
}

#[test]
fn whoever_is_not_done_is_named_with_the_reason() {
    let good = says('1', &[(NEW, "desired")]);
    let mut members = nodes("good", 4, &good);
    members.push(Member { name: "bare".into(), ready: Some(true), ..Member::default() });
    let mut behind = said('1', '2', &[(NEW, "desired")]);
    behind["anchors"][0]["trusted"] = false.into();
    members.push(node("behind", behind.to_string()));
    let mut stale = said('1', '1', &[(NEW, "desired")]);
    stale["runtimeStale"] = true.into();
    members.push(node("stale", stale.to_string()));
    // The annotation alone decides where the condition is switched off.
    let mut unknown = said('1', '1', &[(NEW, "desired")]);
    unknown["runtimeUnknown"] = true.into();
    members.push(node("unknown", unknown.to_string()));
    let mut held = node("rejecting", &*good);
    held.trust_ready = Some(TrustReady { holds: false, reason: "SourceRejected".into() });
    members.push(held);
    let mut future = said('1', '1', &[]);
    future["v"] = 7.into();
    members.push(node("future", future.to_string()));
    members.push(node("odd", "who are you?"));
    let mut silent = node("silent", "");
    silent.annotation = None;
    members.push(silent);

    let fleet = look(members);
    assert_eq!((fleet.verdict, fleet.nodes, fleet.reporting, fleet.agreeing), (FleetVerdict::Split, 12, 8, 4));
    assert_eq!(fleet.headline, "4 of 12 nodes trust the same and are done, 4 differ or are not done, 4 do not report");
    let named: Vec<(FindingKind, &str)> =
        fleet.findings.iter().map(|finding| (finding.kind, finding.nodes.names[0].as_str())).collect();
    let expected = [
        (FindingKind::NotConverged, "behind"),
        (FindingKind::RuntimeStale, "stale"),
        (FindingKind::RuntimeUnknown, "unknown"),
        (FindingKind::TrustNotReady, "rejecting"),
        (FindingKind::OtherVersion, "future"),
        (FindingKind::Unreadable, "odd"),
        (FindingKind::Unreadable, "silent"),
        (FindingKind::NoAgent, "bare"),
    ];
    assert_eq!(named.len(), expected.len());
    for pair in expected {
        assert!(named.contains(&pair), "{pair:?} in {named:?}");
    }
    let new = row(&fleet, NEW);
    assert_eq!((new.trusted, new.lacking.count, new.unknown), (7, 1, 4));
    assert_eq!(new.lacking.names, ["behind"]);
}

#[test]
fn sources_that_differ_are_a_split_and_a_lone_set_is_called_out() {
    let mut members = nodes("a", 5, &says('1', &[(NEW, "desired")]));
    members.extend(nodes("b", 2, &says('2', &[(NEW, "desired"), (INSPECTION, "desired")])));
    members.push(node("lone", says('3', &[])));
    let fleet = look(members);
    assert_eq!((fleet.verdict, fleet.agreeing), (FleetVerdict::Split, 5));
    assert_eq!(kinds(&fleet), [FindingKind::SourcesDiffer, FindingKind::LoneDigest]);
    assert_eq!(fleet.findings[0].nodes.names, ["b-0000", "b-0001", "lone"]);
    assert_eq!(fleet.findings[1].nodes.names, ["lone"]);
    let sizes: Vec<(usize, usize)> = fleet.groups.iter().map(|group| (group.nodes.count, group.anchors)).collect();
    assert_eq!(sizes, [(5, 1), (2, 2), (1, 0)]);
    assert_eq!(row(&fleet, INSPECTION).lacking.count, 6);
}

#[test]
fn an_anchor_in_grace_is_needed_where_its_replacement_is_missing() {
    let rotated = says('2', &[(NEW, "desired"), (OLD, "grace")]);
    let mut members = nodes("new", 5, &rotated);
    members.extend(nodes("old", 2, &says('1', &[(OLD, "desired")])));
    members.push(node("neither", says('3', &[(INSPECTION, "desired")])));
    let fleet = look(members);
    assert_eq!(fleet.verdict, FleetVerdict::Violation);
    let finding = &fleet.findings[0];
    assert_eq!(finding.kind, FindingKind::GraceNeeded);
    assert_eq!(finding.nodes.names, ["old-0000", "old-0001"], "a node without either loses nothing");
    let text = format!(
        "Corp Root CA 2021 ({OLD}) leaves (in grace on 5 nodes), and 2 nodes that still have it lack Corp Root CA 2026 ({NEW})"
    );
    assert_eq!(finding.text, text);
    // The same rotation after it has reached every node.
    assert_eq!(look(nodes("new", 8, &rotated)).verdict, FleetVerdict::Uniform);
}

#[test]
fn a_namesake_is_what_replaces_an_anchor() {
    let mut rotated = said('2', '2', &[(NEW, "desired"), (OLD, "grace"), (INSPECTION, "desired")]);
    let mut without = said('3', '3', &[(NEW, "desired"), (OLD, "grace")]);
    for annotation in [&mut rotated, &mut without] {
        annotation["anchors"][0]["cn"] = "Corp Root CA".into();
        annotation["anchors"][1]["cn"] = "Corp Root CA".into();
    }
    let mut members = nodes("all", 3, &rotated.to_string());
    members.push(node("without", without.to_string()));
    // The node lacks another anchor than the one that leaves.
    let fleet = look(members);
    assert_eq!(kinds(&fleet), [FindingKind::SourcesDiffer, FindingKind::LoneDigest]);
    assert_eq!(fleet.findings[0].text, "2 different sets are wanted; 1 node wants another one than most");
}

#[test]
fn one_name_for_two_anchors_matters_where_only_one_is_trusted() {
    let both = |digest: char, anchors: &[(&str, &str)]| {
        let mut annotation = said(digest, digest, anchors);
        for anchor in annotation["anchors"].as_array_mut().unwrap() {
            anchor["cn"] = "Corp Root CA".into();
        }
        annotation.to_string()
    };
    let mut members = nodes("a", 3, &both('1', &[(NEW, "desired"), (OLD, "desired")]));
    assert_eq!(look(members.clone()).verdict, FleetVerdict::Uniform);
    members.push(node("one", both('2', &[(OLD, "desired")])));
    let fleet = look(members);
    assert_eq!(fleet.findings[0].kind, FindingKind::SameName);
    assert_eq!(fleet.findings[0].nodes.names, ["one"]);
}

#[test]
fn an_expired_anchor_that_is_trusted_is_a_violation() {
    let mut annotation = said('1', '1', &[(OLD, "desired")]);
    annotation["anchors"][0]["notAfter"] = json!(Time(NOW - DAY));
    let fleet = look(nodes("a", 2, &annotation.to_string()));
    assert_eq!((fleet.verdict, kinds(&fleet)), (FleetVerdict::Violation, vec![FindingKind::Expired]));
    assert!(fleet.findings[0].text.contains("2026-11-30"), "{}", fleet.findings[0].text);
}

#[test]
fn anchors_that_did_not_fit_are_unknown_and_not_missing() {
    let mut many = said('1', '1', &[(NEW, "desired")]);
    many["more"] = 40.into();
    let mut members = nodes("many", 2, &many.to_string());
    members.push(node("other", says('1', &[(NEW, "desired"), (OLD, "desired")])));
    let fleet = look(members);
    let old = row(&fleet, OLD);
    assert_eq!((old.trusted, old.lacking.count, old.unknown), (1, 0, 2));
    assert_eq!(fleet.groups[0].anchors, 41);
}

#[test]
fn no_nodes_and_no_reports_are_no_success() {
    assert_eq!(look(Vec::new()).verdict, FleetVerdict::Split);
    let bare = Member { name: "bare".into(), ready: Some(true), ..Member::default() };
    let fleet = look(vec![bare]);
    assert_eq!(fleet.verdict, FleetVerdict::Split);
    assert_eq!(fleet.headline, "none of 1 node reports: is the agent installed, and may it patch its node?");
}

#[test]
fn five_thousand_nodes_are_counted_exactly_and_named_in_part() {
    let mut members = nodes("new", 4_200, &says('2', &[(NEW, "desired"), (OLD, "grace"), (INSPECTION, "desired")]));
    members.extend(nodes("old", 700, &says('1', &[(OLD, "desired"), (INSPECTION, "desired")])));
    members.extend((0..100).map(|n| Member { name: format!("bare-{n:04}"), ready: Some(n > 3), ..Member::default() }));
    let fleet = look(members);
    assert_eq!((fleet.nodes, fleet.reporting, fleet.agreeing), (5_000, 4_900, 4_200));
    assert_eq!(row(&fleet, NEW).lacking.count, 700);
    assert_eq!(row(&fleet, NEW).lacking.names.len(), NAMES);
    let new = &fleet.findings[0];
    assert_eq!((new.kind, new.nodes.count, new.nodes.names.len()), (FindingKind::GraceNeeded, 700, NAMES));
}

#[test]
fn programs_read_this() {
    let mut members = nodes("new", 5, &says('2', &[(NEW, "desired"), (OLD, "grace"), (INSPECTION, "desired")]));
    members.extend(nodes("old", 2, &says('1', &[(OLD, "desired"), (INSPECTION, "desired")])));
    members.push(Member { name: "bare".into(), ready: Some(true), ..Member::default() });
    assert_golden(
        "topology/rotation.json",
        &(serde_json::to_string_pretty(&look(members)).unwrap()
            + "
"),
    );
}

#[test]
fn hostile_annotations_are_bounded_and_cannot_draw() {
    let anchors = |node: usize| -> Vec<_> {
        (0..70).map(|n| json!({"fp16": format!("{:016x}", node * 1000 + n), "state": "desired", "notAfter": Time(i64::MAX), "cn": "\u{1b}[2J"})).collect()
    };
    let hostile = |n: usize| {
        let digest = format!("{n:064x}");
        let text =
            json!({"v": 1, "desired": digest, "effective": digest, "anchors": anchors(n), "runtimeStale": false})
                .to_string();
        Member {
            trust_ready: Some(TrustReady { holds: false, reason: format!("\u{202e}{n}{}", "x".repeat(100_000)) }),
            ..node(&format!("n{n}"), text)
        }
    };
    let fleet = look((0..500).map(hostile).collect());
    assert_eq!(fleet.reporting, 500);
    assert_eq!((fleet.anchors.len(), fleet.anchors_left_out), (ANCHORS, ANCHORS));
    assert_eq!((fleet.groups.len(), fleet.groups_left_out), (GROUPS, 400));
    assert!(fleet.findings.len() < 50, "{}", fleet.findings.len());
    let text = serde_json::to_string(&fleet).unwrap();
    assert!(!text.contains('\u{1b}') && !text.contains('\u{202e}'));
    assert!(text.len() < 20 << 20, "{}", text.len());
}

fn annotation() -> impl Strategy<Value = String> {
    let anchor = (0u8..6, prop_oneof!["desired", "grace", "retired", "denied"], -5i64..5, "[ABC]?", any::<bool>());
    let good = (0u8..4, 0u8..4, vec(anchor, 0..5), 0usize..2, any::<bool>()).prop_map(|(desired, effective, anchors, more, stale)| {
        let anchors: Vec<_> = anchors
            .into_iter()
            .map(|(n, state, end, cn, trusted)| json!({"fp16": format!("{n:016x}"), "state": state, "notAfter": Time(NOW + end), "trusted": trusted, "cn": cn}))
            .collect();
        let digest = |n: u8| format!("{n:064x}");
        json!({"v": 1, "desired": digest(desired), "effective": digest(effective), "anchors": anchors, "more": more, "runtimeStale": stale}).to_string()
    });
    prop_oneof![8 => good, 1 => any::<String>(), 1 => r#"\{"v":[0-9]{1,30},"desired":"[0-9a-g]{60,66}","anchors":[\[{]?.*"#]
}

fn member() -> impl Strategy<Value = Member> {
    let condition = option::of((any::<bool>(), "[a-z]{0,3}"))
        .prop_map(|condition| condition.map(|(holds, reason)| TrustReady { holds, reason }));
    ("[a-z]{1,4}", option::of(any::<bool>()), condition, option::weighted(0.9, annotation())).prop_map(
        |(name, ready, trust_ready, annotation)| Member { name, ready, trust_ready, annotation, template: None },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn whatever_the_nodes_say_the_numbers_add_up(members in vec(member(), 0..90)) {
        let total = members.len();
        let result = look(members);
        prop_assert_eq!(result.nodes, total);
        prop_assert!(result.agreeing <= result.reporting && result.reporting <= total);
        prop_assert_eq!(result.groups.iter().map(|group| group.nodes.count).sum::<usize>(), result.reporting);
        for row in &result.anchors {
            prop_assert_eq!(row.trusted + row.lacking.count + row.unknown, total);
        }
        for finding in &result.findings {
            prop_assert!(finding.nodes.count > 0 && finding.nodes.names.len() == finding.nodes.count.min(NAMES));
        }
        let worst = result.findings.iter().map(|finding| finding.severity).min();
        let expected = match worst {
            _ if total == 0 => FleetVerdict::Split,
            Some(Severity::Violation) => FleetVerdict::Violation,
            Some(Severity::Split) => FleetVerdict::Split,
            _ => FleetVerdict::Uniform,
        };
        prop_assert_eq!(result.verdict, expected);
        // Either all nodes agree, or a finding names one that does not.
        prop_assert_eq!(result.agreeing == total && total > 0, result.verdict == FleetVerdict::Uniform || total > 0 && worst == Some(Severity::Violation) && result.agreeing == total);
    }

    #[test]
    fn the_order_of_the_list_changes_nothing(members in vec(member(), 0..40)) {
        let mut unique = members;
        unique.sort_by(|one, two| one.name.cmp(&two.name));
        unique.dedup_by(|one, two| one.name == two.name);
        let mut turned = unique.clone();
        turned.reverse();
        prop_assert_eq!(serde_json::to_string(&look(unique)).unwrap(), serde_json::to_string(&look(turned)).unwrap());
    }

    #[test]
    fn no_text_does_harm(text in any::<String>(), cut in 0usize..400) {
        let good = says('1', &[(NEW, "desired"), (OLD, "grace")]);
        let cut: String = good.chars().take(cut).collect();
        look(vec![node("a", text), node("b", cut)]);
    }
}
