//! When a removal is approved, what stands against one, and what is written.

use proptest::{collection::vec, prelude::*};
use serde_json::{Value, json};

use super::*;
use crate::{testing::NOW, topology::TrustReady};

const OLD: &str = "1be0447c9d2f6a35";
const NEW: &str = "9f3c51d2ab77e014";
const OTHER: &str = "77aa02c4e1905b8d";

fn digest(digit: char) -> SetDigest {
    digit.to_string().repeat(64).parse().unwrap()
}

/// A node whose sources want the set of this digit, with `OLD` in grace.
fn rotated(sources: char) -> Value {
    json!({
        "v": 1, "desired": "e".repeat(64), "sourcesDigest": sources.to_string().repeat(64), "effective": "e".repeat(64), "runtimeStale": false,
        "anchors": [
            {"fp16": OLD, "state": "grace", "notAfter": Time(NOW + 1000), "cn": "Corp Root CA 2021"},
            {"fp16": NEW, "state": "desired", "notAfter": Time(NOW + 1000), "cn": "Corp Root CA 2026"},
        ],
    })
}

fn node(name: &str, annotation: &Value) -> Member {
    Member {
        name: name.into(),
        ready: Some(true),
        trust_ready: Some(TrustReady { holds: true, reason: "Trusted".into() }),
        annotation: Some(annotation.to_string()),
        template: None,
    }
}

fn with(change: impl FnOnce(&mut Value)) -> Value {
    let mut annotation = rotated('2');
    change(&mut annotation);
    annotation
}

fn all(members: &[Member], force: bool) -> RemovalDecision {
    decide_removal(members.to_vec(), &RemovalRequest::All, force, NOW)
}

fn one(members: &[Member], key: &str) -> RemovalDecision {
    decide_removal(members.to_vec(), &RemovalRequest::One(key.parse().unwrap()), false, NOW)
}

fn entry(fp16: &str, digit: char, time: i64) -> Approval {
    Approval { fingerprint: fp16.parse().unwrap(), desired: digest(digit), time: Time(time) }
}

#[test]
fn a_fleet_that_holds_everything_may_lose_what_is_in_grace() {
    let members = [node("a", &rotated('2')), node("b", &rotated('2'))];
    let decision = all(&members, false);
    assert_eq!(decision.verdict, RemovalVerdict::Approved, "{decision:?}");
    assert_eq!(
        decision.headline,
        format!("the removal of Corp Root CA 2021 ({OLD}) is safe: 2 nodes hold every anchor that the sources want")
    );
    assert_eq!((decision.anchors[0].in_grace, &decision.anchors[0].desired_digests), (2, &[digest('2')].into()));
    let written = decision.merge(&Approvals::default(), NOW).unwrap();
    assert_eq!(written, Approvals(vec![entry(OLD, '2', NOW)]));
    // a whole fingerprint is kept whole
    let whole = format!("{OLD}{}", "0".repeat(48));
    let decision = one(&members, &whole);
    assert_eq!(decision.merge(&Approvals::default(), NOW).unwrap().0[0].fingerprint.to_string(), whole);
}

/// The trap of a rotation: nodes that joined at different times have other anchors in grace, so other sets in force, and want the same.
#[test]
fn nodes_with_other_anchors_in_grace_agree() {
    let late = json!({
        "v": 1, "desired": "2".repeat(64), "effective": "2".repeat(64), "runtimeStale": false,
        "anchors": [{"fp16": NEW, "state": "desired", "notAfter": Time(NOW + 1000)}],
    });
    let more = with(|annotation| {
        annotation["desired"] = "d".repeat(64).into();
        annotation["effective"] = "d".repeat(64).into();
        let anchors = annotation["anchors"].as_array_mut().unwrap();
        anchors.push(json!({"fp16": OTHER, "state": "grace", "notAfter": Time(NOW + 1000)}));
    });
    let decision = all(&[node("a", &rotated('2')), node("late", &late), node("more", &more)], false);
    assert_eq!(decision.verdict, RemovalVerdict::Approved, "{decision:?}");
    let written = decision.merge(&Approvals::default(), NOW).unwrap();
    assert_eq!(written, Approvals(vec![entry(OLD, '2', NOW), entry(OTHER, '2', NOW)]));
}

#[test]
fn what_stands_against_a_removal_is_named_with_its_node() {
    let good = node("good", &rotated('2'));
    let bare = Member { name: "bad".into(), ready: Some(true), ..Member::default() };
    let not_ready = Member {
        trust_ready: Some(TrustReady { holds: false, reason: "SourceUnavailable".into() }),
        ..node("bad", &rotated('2'))
    };
    let lacks = with(|annotation| {
        annotation["effective"] = "f".repeat(64).into();
        annotation["anchors"][1]["trusted"] = false.into();
    });
    let mut old_version = rotated('2');
    old_version.as_object_mut().unwrap().remove("sourcesDigest");
    let cases = [
        (bare, FindingKind::NoAgent),
        (not_ready, FindingKind::TrustNotReady),
        (node("bad", &lacks), FindingKind::GraceNeeded),
        (node("bad", &with(|annotation| annotation["effective"] = "f".repeat(64).into())), FindingKind::NotConverged),
        (node("bad", &with(|annotation| annotation["runtimeStale"] = true.into())), FindingKind::RuntimeStale),
        (node("bad", &with(|annotation| annotation["runtimeUnknown"] = true.into())), FindingKind::RuntimeUnknown),
        (node("bad", &with(|annotation| annotation["v"] = 2.into())), FindingKind::OtherVersion),
        (node("bad", &old_version), FindingKind::OtherVersion),
        (node("bad", &json!("x")), FindingKind::Unreadable),
        (node("bad", &rotated('3')), FindingKind::SourcesDiffer),
    ];
    for (bad, kind) in cases {
        let members = [good.clone(), node("third", &rotated('2')), bad];
        let decision = all(&members, false);
        assert_eq!(decision.verdict, RemovalVerdict::Refused, "{kind:?}");
        assert!(decision.anchors.is_empty() && !decision.is_effective());
        assert_eq!((decision.blocking[0].kind, &decision.blocking[0].nodes.names[..]), (kind, &["bad".to_owned()][..]));
        assert!(!decision.blocking[0].next.is_empty());
        let forced = all(&members, true);
        assert_eq!(forced.verdict, RemovalVerdict::Overridden, "{kind:?}");
        assert!(!forced.blocking.is_empty(), "what was overridden is told");
        assert!(forced.merge(&Approvals::default(), NOW).unwrap().0.contains(&entry(OLD, '2', NOW)));
    }
}

#[test]
fn what_is_no_danger_does_not_stand_against_a_removal() {
    let away = Member { ready: Some(false), ..node("away", &rotated('2')) };
    let expired = with(|annotation| annotation["anchors"][0]["notAfter"] = json!(Time(NOW - 1)));
    let namesake = json!({
        "v": 1, "desired": "2".repeat(64), "effective": "2".repeat(64), "runtimeStale": false,
        "anchors": [{"fp16": NEW, "state": "desired", "notAfter": Time(NOW + 1000), "cn": "Corp Root CA 2021"}],
    });
    for other in [away, node("expired", &expired), node("namesake", &namesake)] {
        let decision = all(&[node("good", &rotated('2')), other], false);
        assert_eq!(decision.verdict, RemovalVerdict::Approved, "{decision:?}");
    }
}

#[test]
fn only_what_is_in_grace_is_approved() {
    let members = [node("a", &rotated('2'))];
    let unknown = one(&members, OTHER);
    assert_eq!(
        (unknown.verdict, unknown.headline.as_str()),
        (RemovalVerdict::Refused, &*format!("no node that reports has {OTHER}: it has left, or was never there"))
    );
    let wanted = one(&members, NEW);
    assert_eq!(
        (wanted.verdict, wanted.headline.as_str()),
        (RemovalVerdict::Refused, &*format!("{NEW} is in grace on no node: the sources of 1 node want it"))
    );
    let leaving = with(|annotation| annotation["anchors"][0]["state"] = "retired".into());
    assert_eq!(one(&[node("a", &leaving)], OLD).verdict, RemovalVerdict::NothingToDo);
    let nothing = all(&[node("a", &leaving)], false);
    assert_eq!(nothing.verdict, RemovalVerdict::NothingToDo);
    // No node has it in grace any more: its approval is forgotten.
    assert_eq!(nothing.merge(&Approvals(vec![entry(OLD, '2', NOW)]), NOW), Some(Approvals::default()));
    assert_eq!(nothing.merge(&Approvals::default(), NOW), None);
}

#[test]
fn approving_again_writes_nothing_until_the_approval_is_old() {
    let members = [node("a", &rotated('2'))];
    let decision = all(&members, false);
    let first = decision.merge(&Approvals::default(), NOW).unwrap();
    for later in [0, 1, RENEW_AFTER] {
        assert_eq!(decision.merge(&first, NOW + later), None, "{later} s later");
    }
    let renewed = Approvals(vec![entry(OLD, '2', NOW + RENEW_AFTER + 1)]);
    assert_eq!(decision.merge(&first, NOW + RENEW_AFTER + 1), Some(renewed));
    // Another set, what is in grace nowhere, and what is dated in the future make way.
    for old in [entry(OLD, '3', NOW), entry(OTHER, '2', NOW), entry(OLD, '2', NOW + CLOCK_SKEW + 1)] {
        assert_eq!(decision.merge(&Approvals(vec![old]), NOW), Some(first.clone()));
    }
    // What the request does not name stays as it is.
    let two = with(|annotation| {
        let anchors = annotation["anchors"].as_array_mut().unwrap();
        anchors.push(json!({"fp16": OTHER, "state": "grace", "notAfter": Time(NOW + 1000)}));
    });
    let kept = Approvals(vec![entry(OTHER, '2', NOW - 9999)]);
    let both = Approvals(vec![entry(OLD, '2', NOW), entry(OTHER, '2', NOW - 9999)]);
    let mut merged = one(&[node("a", &two)], OLD).merge(&kept, NOW).unwrap();
    merged.0.sort_by(|a, b| a.fingerprint.cmp(&b.fingerprint));
    assert_eq!(merged, both);
}

proptest! {
    /// Whatever nodes say: without force, an approval means that all report one set and have it in force, and no runtime lags.
    #[test]
    fn nothing_is_approved_over_a_node_that_is_not_ready_for_it(
        nodes in vec((0u8..3, any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>()), 0..6),
    ) {
        let members: Vec<Member> = nodes.iter().enumerate().map(|(index, (set, grace, stale, unknown, converged, reports))| {
            let annotation = with(|annotation| {
                let digit = char::from(b'2' + set);
                annotation["sourcesDigest"] = digit.to_string().repeat(64).into();
                annotation["runtimeStale"] = (*stale).into();
                annotation["runtimeUnknown"] = (*unknown).into();
                if !converged {
                    annotation["effective"] = "f".repeat(64).into();
                }
                if !grace {
                    annotation["anchors"].as_array_mut().unwrap().remove(0);
                }
            });
            let member = node(&format!("n{index}"), &annotation);
            if *reports { member } else { Member { annotation: None, ..member } }
        }).collect();
        let decision = all(&members, false);
        let sound = nodes.iter().all(|(set, _, stale, unknown, converged, reports)| {
            *set == nodes[0].0 && !stale && !unknown && *converged && *reports
        });
        let any_grace = nodes.iter().any(|(_, grace, .., reports)| *grace && *reports);
        let expected = match (any_grace, sound) {
            (false, _) => RemovalVerdict::NothingToDo,
            (true, true) => RemovalVerdict::Approved,
            (true, false) => RemovalVerdict::Refused,
        };
        prop_assert_eq!(decision.verdict, expected);
        if expected == RemovalVerdict::Approved {
            let written = decision.merge(&Approvals::default(), NOW).unwrap();
            prop_assert_eq!(written, Approvals(vec![entry(OLD, char::from(b'2' + nodes[0].0), NOW)]));
        }
    }
}
