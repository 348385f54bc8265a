//! Approvals: how they are read, and when one counts.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::testing::NOW;

fn print(n: u8) -> Fingerprint {
    Fingerprint::of_der(&[n])
}

fn digest(n: u8) -> SetDigest {
    SetDigest::of(&[print(n)].into())
}

fn key(n: u8) -> AnchorKey {
    print(n).to_string().parse().unwrap()
}

fn approval(anchor: u8, set: u8, time: i64) -> Approval {
    Approval { fingerprint: key(anchor), desired: digest(set), time: Time(time) }
}

/// What becomes of anchor 1, in grace since `NOW`, where set 2 is wanted, a day later.
fn wait(approvals: &ApprovalsRead, runtime: Option<RuntimeState>) -> Option<RemovalWait> {
    let rule = RemovalRule { facts: RemovalFacts { approvals, runtime }, desired: digest(2), now: NOW + 86_400 };
    rule.wait(&print(1), NOW)
}

fn with(approvals: &[Approval]) -> Option<RemovalWait> {
    wait(&ApprovalsRead::Good(Approvals(approvals.to_vec())), Some(RuntimeState::Current))
}

#[test]
fn an_approval_counts_for_its_anchor_its_set_and_its_grace() {
    assert_eq!(with(&[]), Some(RemovalWait::NotApproved));
    assert_eq!(with(&[approval(1, 2, NOW + 60)]), None);
    assert_eq!(with(&[approval(3, 2, NOW + 60)]), Some(RemovalWait::NotApproved));
    assert_eq!(with(&[approval(1, 3, NOW + 60)]), Some(RemovalWait::OtherSet));
    // A rollback brought the anchor back and it left again: the approval of the first time does not count.
    assert_eq!(with(&[approval(1, 2, NOW - CLOCK_SKEW - 1)]), Some(RemovalWait::Outdated));
    assert_eq!(with(&[approval(1, 2, NOW - CLOCK_SKEW)]), None, "clocks may differ a little");
    assert_eq!(with(&[approval(1, 2, NOW + 86_400 + CLOCK_SKEW)]), None);
    assert_eq!(with(&[approval(1, 2, NOW + 86_400 + CLOCK_SKEW + 1)]), Some(RemovalWait::Postdated));
    // One that counts is enough; else the nearest one is told.
    assert_eq!(with(&[approval(1, 3, NOW), approval(1, 2, NOW - 9999), approval(1, 2, NOW)]), None);
    assert_eq!(with(&[approval(1, 3, NOW), approval(1, 2, NOW - 9999)]), Some(RemovalWait::Outdated));
    let short = Approval { fingerprint: print(1).fp16().parse().unwrap(), ..approval(1, 2, NOW) };
    assert_eq!(with(&[short]), None);
}

#[test]
fn grace_does_not_end_beside_a_runtime_that_does_not_follow() {
    let good = ApprovalsRead::Good(Approvals(vec![approval(1, 2, NOW)]));
    for (runtime, expected) in [
        (None, Some(RemovalWait::RuntimeNotJudged)),
        (Some(RuntimeState::Stale), Some(RemovalWait::RuntimeStale)),
        (Some(RuntimeState::Unknown), Some(RemovalWait::RuntimeUnknown)),
        (Some(RuntimeState::Current), None),
        (Some(RuntimeState::None), None),
    ] {
        assert_eq!(wait(&good, runtime), expected, "{runtime:?}");
    }
}

#[test]
fn what_cannot_be_read_approves_nothing() {
    for (approvals, expected) in [
        (ApprovalsRead::Absent, RemovalWait::NotApproved),
        (ApprovalsRead::Hidden, RemovalWait::Hidden),
        (ApprovalsRead::Unusable, RemovalWait::Unusable),
    ] {
        assert_eq!(wait(&approvals, Some(RuntimeState::Current)), Some(expected));
    }
}

#[test]
fn the_file_is_read_whole_or_not_at_all() {
    let good = Approvals(vec![
        approval(1, 2, NOW),
        Approval { fingerprint: "0123456789abcdef".parse().unwrap(), ..approval(1, 2, NOW) },
    ]);
    assert_eq!(Approvals::parse(good.text().as_bytes()), Ok(good.clone()));
    let entry =
        json!({"fingerprint": print(1), "desired": digest(2), "time": "2026-11-30T08:00:00Z", "by": "somebody"});
    let later = json!({"version": 1, "approvals": [entry], "note": "of a later version"});
    assert_eq!(Approvals::parse(later.to_string().as_bytes()).unwrap().0.len(), 1);
    for (field, bad) in [
        ("fingerprint", json!("0123")),
        ("fingerprint", json!("all")),
        ("fingerprint", json!("0123456789abcdeg")),
        ("desired", json!("0123456789abcdef")),
        ("time", json!("soon")),
        ("time", json!(null)),
    ] {
        let mut one = later.clone();
        one["approvals"][0][field] = bad;
        assert!(Approvals::parse(one.to_string().as_bytes()).is_err(), "{one}");
    }
    for bad in ["", "{}", "[]", "null", r#"{"version":2,"approvals":[]}"#, r#"{"version":1}"#] {
        assert!(Approvals::parse(bad.as_bytes()).is_err(), "{bad}");
    }
    let many = |count| Approvals(vec![approval(1, 2, NOW); count]);
    assert!(many(MAX_APPROVALS).text().len() <= APPROVALS_LIMIT, "as many as are allowed fit");
    assert!(Approvals::parse(many(MAX_APPROVALS).text().as_bytes()).is_ok());
    assert!(Approvals::parse(many(MAX_APPROVALS + 1).text().as_bytes()).unwrap_err().contains("more than"));
    let padded = good.text() + &" ".repeat(APPROVALS_LIMIT);
    assert!(Approvals::parse(padded.as_bytes()).unwrap_err().contains("larger than"));
}

#[test]
fn an_anchor_is_named_by_16_or_64_digits() {
    let whole = print(1).to_string();
    for text in [whole.clone(), whole.to_uppercase(), whole[..16].to_owned(), format!(" {} ", &whole[..16])] {
        let key: AnchorKey = text.parse().unwrap();
        assert!(key.names(&print(1)) && !key.names(&print(2)), "{text}");
        assert_eq!(key.fp16(), print(1).fp16());
    }
    for text in ["", "all", &whole[..15], &whole[..17], &whole[..63], "zzzzzzzzzzzzzzzz", "éééééééé"] {
        assert!(text.parse::<AnchorKey>().is_err(), "{text}");
    }
}

proptest! {
    #[test]
    fn no_text_does_harm(text in ".*", bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Approvals::parse(text.as_bytes());
        let _ = Approvals::parse(&bytes);
        let _ = text.parse::<AnchorKey>();
    }

    /// Whatever was approved: nothing leaves by an approval that names another anchor or another set.
    #[test]
    fn only_an_approval_of_this_anchor_for_this_set_counts(
        entries in proptest::collection::vec((0u8..3, 0u8..3, -1000i64..1000), 0..6), since in -1000i64..1000, now in -1000i64..1000,
    ) {
        let approvals = Approvals(entries.iter().map(|(anchor, set, time)| approval(*anchor, *set, NOW + time)).collect());
        let read = ApprovalsRead::Good(approvals);
        let facts = RemovalFacts { approvals: &read, runtime: Some(RuntimeState::Current) };
        let rule = RemovalRule { facts, desired: digest(2), now: NOW + now };
        let counts = |(anchor, set, time): &(u8, u8, i64)| {
            *anchor == 1 && *set == 2 && *time >= since - CLOCK_SKEW && *time <= now + CLOCK_SKEW
        };
        prop_assert_eq!(rule.wait(&print(1), NOW + since).is_none(), entries.iter().any(counts));
    }
}
