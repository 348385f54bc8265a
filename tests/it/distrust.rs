//! `policy.distrust` on real roots: a root of the distribution leaves by the distribution's own means, alone, and comes back.

use std::{
    collections::BTreeSet,
    fs,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    crash::Moments,
    support::{
        must,
        node::{Done, Kind, Node},
        pki::Ca,
    },
};

/// What the distribution's means change.
const PLACES: [&str; 3] = ["/etc/ca-certificates", "/etc/pki/ca-trust/source", "/etc/pki/trust"];
const LIST: &str = "/etc/ca-certificates.conf";

fn set(node: &Node) -> BTreeSet<String> {
    node.bundle().into_iter().collect()
}

fn distrust(prints: &[&str]) -> String {
    format!("policy: {{distrust: [{}]}}", prints.join(", "))
}

fn list(node: &Node) -> Vec<u8> {
    fs::read(node.path(LIST)).unwrap_or_default()
}

/// A node that has the store's directory for distrusted certificates where its family has one.
fn node(kind: Kind) -> Node {
    let node = Node::new(kind, "");
    match kind {
        Kind::Rhelish => fs::create_dir_all(node.path("/etc/pki/ca-trust/source/blocklist")).unwrap(),
        Kind::Suselike => fs::create_dir_all(node.path("/etc/pki/trust/blocklist")).unwrap(),
        Kind::Bookworm | Kind::Trixie => {}
    }
    node
}

fn whole_life(kind: Kind) {
    let node = node(kind);
    let ca = Ca::new("Corp Root");
    node.set_source(&[&ca]);
    if kind == Kind::Trixie {
        // an odd list: a comment of somebody's, a blank line, and no end of line at its end, so that Debian's tool passes over the last root
        let text = String::from_utf8(list(&node)).unwrap();
        node.write(LIST, format!("# of the site\n\n{}", text.trim_end()));
        node.run(&[kind.tool()]).expect(0);
    }
    let code = if kind == Kind::Trixie { 2 } else { 0 }; // the line that is passed over is a finding
    let shipped = set(&node);
    let mut names = shipped.iter();
    let (root, other) = (names.next().unwrap(), names.next().unwrap());
    let (before, tree) = (list(&node), node.tree(&PLACES));
    let with = |more: &[&String]| -> BTreeSet<String> {
        let all = shipped.iter().chain([&ca.sha256()]).cloned().collect::<BTreeSet<_>>();
        all.into_iter().filter(|print| !more.contains(&print)).collect()
    };

    node.configure(&distrust(&[root, other]));
    let plan = node.nodetrust(&["plan"]).expect(2).out;
    assert!(plan.contains(&format!("distrust {}", &root[..16])), "{plan}");
    assert_eq!((list(&node), node.tree(&PLACES)), (before.clone(), tree.clone()), "a plan changes nothing");
    node.nodetrust(&["apply"]).expect(code);
    assert_eq!(set(&node), with(&[root, other]), "{kind:?}: these two left, and nothing else");
    let screen = node.nodetrust(&["status"]).expect(code).out;
    assert!(screen.contains("DISTRUST") && screen.contains(&root[..16]) && screen.contains(&other[..16]), "{screen}");
    node.nodetrust(&["plan"]).expect(0);
    // the distribution's own run keeps it so
    node.run(&[kind.tool()]).expect(0);
    assert_eq!(set(&node), with(&[root, other]));
    // whoever looks without the configuration plans nothing
    let mut command = Command::new(crate::support::program());
    command.arg("--host-root").arg(&node.root).args(["status", "-o", "json"]).env_remove("NODETRUST_CONFIG");
    let blind = Done::new(must("nodetrust", command.output())).json();
    assert_eq!(blind["pending"], json!([]));

    // One leaves the list and is trusted again.
    node.configure(&distrust(&[other]));
    node.nodetrust(&["apply"]).expect(code);
    assert_eq!(set(&node), with(&[other]));

    node.nodetrust(&["uninstall"]).expect(0);
    assert_eq!(set(&node), shipped, "{kind:?}");
    assert_eq!((list(&node), node.tree(&PLACES)), (before, tree), "{kind:?}: byte for byte");
}

#[test]
fn bookworm_a_root_is_distrusted_and_trusted_again() {
    whole_life(Kind::Bookworm);
}

#[test]
fn trixie_a_root_is_distrusted_and_trusted_again() {
    whole_life(Kind::Trixie);
}

#[test]
fn rhelish_a_root_is_distrusted_and_trusted_again() {
    whole_life(Kind::Rhelish);
}

#[test]
fn suselike_a_root_is_distrusted_and_trusted_again() {
    whole_life(Kind::Suselike);
}

#[test]
fn what_somebody_else_has_deselected_stays_so() {
    let node = node(Kind::Bookworm);
    let ca = Ca::new("Corp Root");
    node.set_source(&[&ca]);
    let text = String::from_utf8(list(&node)).unwrap();
    let line = text.lines().find(|line| line.starts_with("mozilla/")).unwrap();
    let shipped = set(&node);
    node.write(LIST, text.replace(&format!("\n{line}\n"), &format!("\n!{line}\n")));
    node.run(&["update-ca-certificates"]).expect(0);
    let before = list(&node);
    let gone: Vec<String> = shipped.difference(&set(&node)).cloned().collect();
    assert_eq!(gone.len(), 1);
    node.configure(&distrust(&[&gone[0]]));
    node.nodetrust(&["apply"]).expect(0);
    node.configure("");
    node.nodetrust(&["apply"]).expect(0);
    node.nodetrust(&["uninstall"]).expect(0);
    assert_eq!(list(&node), before);
    assert!(!set(&node).contains(&gone[0]));
}

#[test]
fn what_is_no_root_of_the_distribution_is_told() {
    for kind in [Kind::Trixie, Kind::Rhelish] {
        let node = node(kind);
        let (ours, theirs) = (Ca::new("Corp Root"), Ca::new("Somebody's CA"));
        node.set_source(&[&ours]);
        node.write(&format!("{}/theirs.crt", kind.anchors_dir()), theirs.pem());
        node.run(&[kind.tool()]).expect(0);
        let before = (list(&node), set(&node));
        for (print, why) in [
            ("ab".repeat(32), "no root of the distribution's"),
            (theirs.sha256(), "theirs.crt"),
            (ours.sha256(), "an anchor of ours"),
        ] {
            node.configure(&distrust(&[&print]));
            let report: Value = node.nodetrust(&["-o", "json", "apply"]).expect(2).json();
            assert_eq!(report["problems"][0]["kind"], "not-distrusted", "{report:#}");
            assert!(report["problems"][0]["text"].as_str().unwrap().contains(why), "{why}: {report:#}");
            node.nodetrust(&["status"]).expect(2);
        }
        assert_eq!(list(&node), before.0);
        assert!(before.1.is_subset(&set(&node)));
    }
    // p11-kit's directory is missing, and a family without any means
    let node = Node::new(Kind::Trixie, "");
    node.set_source(&[&Ca::new("Corp Root")]);
    let root = node.bundle()[0].clone();
    node.configure(&format!("{}\nstore: {{family: directory}}", distrust(&[&root])));
    let report = node.nodetrust(&["-o", "json", "apply"]).expect(2).json();
    assert!(report["problems"].to_string().contains("not possible here"), "{report:#}");
}

#[test]
fn killed_at_random_moments_nothing_else_leaves_and_uninstall_takes_all_back() {
    let mut random = Moments::new();
    for kind in [Kind::Trixie, Kind::Rhelish] {
        let node = node(kind);
        let ca = Ca::new("Corp Root");
        node.set_source(&[&ca]);
        let shipped = set(&node);
        let root = shipped.first().unwrap();
        let (before, tree) = (list(&node), node.tree(&PLACES));
        for round in 0..10 {
            node.configure(&if round % 2 == 0 { distrust(&[root]) } else { String::new() });
            let mut child = must("apply", node.command(&["apply"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn());
            thread::sleep(Duration::from_millis(random.below(900)));
            let _ = child.kill();
            child.wait().unwrap();
            let missing: Vec<String> = shipped.difference(&set(&node)).cloned().collect();
            assert!(missing.iter().all(|print| print == root), "{kind:?}: {missing:?}");
            node.nodetrust(&["apply"]).expect(0);
            assert_eq!(set(&node).contains(root), round % 2 == 1, "{kind:?}, round {round}");
        }
        node.configure(&distrust(&[root]));
        node.nodetrust(&["apply"]).expect(0);
        node.nodetrust(&["uninstall"]).expect(0);
        assert_eq!((list(&node), node.tree(&PLACES), set(&node)), (before, tree, shipped), "{kind:?}");
    }
}
