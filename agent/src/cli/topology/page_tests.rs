//! The page of a fleet, made of annotations as nodes write them.

use nodetrust_core::topology::{FleetRestarts, HaltRow, Member, TrustReady, fleet};
use serde_json::json;

use super::*;

const NOW: Time = Time(1_800_000_000);
const DAY: i64 = 86_400;
/// What a mail server or a ticket system takes as an attachment, in bytes.
const LIMIT: usize = 1_000_000;

fn member(name: &str, digest: char, anchors: &[(String, String)]) -> Member {
    let anchor = |(fp16, name): &(String, String)| json!({"fp16": fp16, "state": "desired", "notAfter": Time(NOW.0 + 1000 * DAY), "cn": name});
    let digest = digest.to_string().repeat(64);
    let anchors: Vec<_> = anchors.iter().map(anchor).collect();
    let annotation = json!({"v": 1, "desired": digest, "effective": digest, "anchors": anchors, "runtimeStale": false});
    Member {
        name: name.into(),
        ready: Some(true),
        trust_ready: Some(TrustReady { holds: true, reason: "Trusted".into() }),
        annotation: Some(annotation.to_string()),
        template: None,
    }
}

fn anchor(number: usize, name: &str) -> (String, String) {
    (format!("{number:016x}"), name.to_owned())
}

#[test]
fn a_group_that_lacks_an_anchor_is_seen_beside_the_one_that_has_it() {
    let (old, new) = (anchor(1, "Corp Root CA 2021"), anchor(2, "Corp Root CA 2026"));
    let mut members: Vec<Member> =
        (0..7).map(|n| member(&format!("a-{n}"), 'a', &[old.clone(), new.clone()])).collect();
    members.push(member("late", 'b', std::slice::from_ref(&old)));
    let text = page("prod", &fleet(members, NOW.0), NOW);
    let row = |word: &str| text.lines().find(|line| line.starts_with("<tr><td>") && line.contains(word)).unwrap();
    let of_new = row("Corp Root CA 2026");
    for cell in ["<span class=\"bad\">7/8</span>", "<span class=\"good\">7/7</span>", "<span class=\"bad\">0/1</span>"]
    {
        assert!(of_new.contains(cell), "{cell}: {of_new}");
    }
    assert!(of_new.contains("<td>late</td>"), "{of_new}");
    assert!(row("Corp Root CA 2021").contains("<span class=\"good\">8/8</span>"), "{text}");
    assert!(text.contains("SPLIT") && text.contains("<h2>Next</h2>") && text.contains("<h2>Findings</h2>"), "{text}");
}

#[test]
fn a_uniform_fleet_has_nothing_to_do() {
    let members = vec![member("a", 'a', &[anchor(1, "Corp Root")])];
    let text = page("prod", &fleet(members, NOW.0), NOW);
    assert!(text.contains("UNIFORM") && text.contains("<li>nothing to do</li>"), "{text}");
    assert!(!text.contains("<h2>Findings</h2>"), "{text}");
}

/// A change ticket of a rotation that stands still must not read as one that goes on.
#[test]
fn a_halt_is_the_verdict_and_its_end_the_first_step() {
    let halt = HaltRow {
        lease: "nodetrust-restart-2".into(),
        node: "b".into(),
        reason: "the Node is not Ready: <b>".into(),
        since: "2026-11-30T07:00:00Z".into(),
    };
    let mut fleet = fleet(vec![member("a", 'a', &[anchor(1, "Corp Root")])], NOW.0);
    fleet.restarts = Some(FleetRestarts { halts: vec![halt], ..FleetRestarts::default() });
    let text = page("prod", &fleet, NOW);
    assert!(text.contains("<b class=\"bad\">HALTED</b>"), "{text}");
    assert!(text.contains("<li>mend that node, then: nodetrust topology --resume</li>"), "{text}");
    assert!(text.contains("b halts the restarts of all nodes since 2026-11-30T07:00:00Z: the Node is not Ready: &lt;b&gt; (nodetrust-restart-2)"), "{text}");
}

/// Whoever may patch a node may write any text into its annotation.
#[test]
fn nothing_of_an_annotation_or_a_name_becomes_markup() {
    let evil = "<script>alert(1)</script>\"'&";
    let members = vec![
        member(evil, 'a', &[anchor(1, evil)]),
        member("other", 'b', &[anchor(2, &"x".repeat(4000))]),
        Member { annotation: Some(evil.into()), ..member("broken", 'a', &[]) },
    ];
    let text = page(evil, &fleet(members, NOW.0), NOW);
    assert!(!text.contains("<script") && !text.contains("alert(1)</script"), "{text}");
    assert!(text.contains("&lt;script&gt;"), "{text}");
    for loads in ["src=", "href=", "url(", "@import", "onclick", "http://", "https://"] {
        assert!(!text.contains(loads), "{loads}: nothing is fetched from elsewhere");
    }
    assert!(text.contains("http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'"), "{text}");
}

#[test]
fn the_page_of_five_thousand_nodes_stays_small() {
    let name =
        |n: usize| format!("ip-10-{}-{}-worker-pool-with-a-long-name.eu-central-1.compute.internal", n / 250, n % 250);
    // Forty groups of nodes, each with anchors of its own beside the common ones.
    let digits: Vec<char> = ('a'..='f').chain('0'..='9').collect();
    let members = (0..5000).map(|n| {
        let own = (0..30).map(|k| anchor(1000 + (n % 40) * 40 + k, "Corp Issuing CA with a long name of its own"));
        let anchors: Vec<_> = (0..30).map(|k| anchor(k, "Corp Root CA with a long name")).chain(own).collect();
        member(&name(n), digits[n % digits.len()], &anchors)
    });
    let fleet = fleet(members.collect(), NOW.0);
    assert_eq!((fleet.nodes, fleet.reporting), (5000, 5000));
    let text = page("prod", &fleet, NOW);
    assert!(text.len() < LIMIT, "{}", text.len());
    assert!(text.contains("more anchors (-o json)"), "what is left out is said");
}
