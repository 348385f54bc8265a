//! `uninstall` proves that nothing of ours is left, or says that it cannot.

use std::fs;

use super::{
    obstacles::{Mounted, fill},
    *,
};

/// What is left of our links in OpenSSL's directory.
fn own_links(node: &Node) -> Vec<String> {
    let all = node.tree(&["/etc/ssl/certs"]);
    let own = all.iter().filter(|(path, what)| path.contains("nodetrust-") || what.contains("nodetrust-"));
    own.map(|(path, _)| path.clone()).collect()
}

/// A node with a CA of ours whose ledger and anchor file somebody has removed: the bundle still has it.
fn forgotten(kind: Kind, ca: &Ca) -> Node {
    let node = Node::new(kind, "export: {bundle: pods.pem}");
    node.set_source(&[ca]);
    apply(&node, 0);
    for dir in fs::read_dir(node.path("/var/lib/nodetrust")).unwrap().flatten() {
        if dir.file_name() != "export" {
            fs::remove_file(dir.path()).unwrap();
        }
    }
    fs::remove_file(node.anchor_file(ca)).unwrap();
    assert!(node.trusts(ca));
    node
}

/// Checks that nothing of ours is left and that the report says so.
#[track_caller]
fn assert_gone(node: &Node, ca: &Ca, before: &[String]) {
    let done = node.nodetrust(&["uninstall"]).expect(0);
    assert!(done.out.contains("nothing of nodetrust is left"), "{}", done.out);
    assert!(!node.clients_trust(ca) && sorted(node) == before);
    assert_eq!(own_links(node), Vec::<String>::new());
    assert!(!node.path("/var/lib/nodetrust").exists(), "the bundle for pods is ours too");
}

#[test]
fn a_ca_whose_ledger_and_file_are_gone_is_found_by_the_tools_link_to_its_file() {
    let ca = Ca::new("Corp Root");
    let before = sorted(&Node::new(DEBIAN, ""));
    let node = forgotten(DEBIAN, &ca);
    assert!(!own_links(&node).is_empty());
    // No source names it any more.
    fs::remove_file(node.source.join("ca.crt")).unwrap();
    assert_gone(&node, &ca, &before);
}

#[test]
fn a_ca_whose_ledger_and_file_are_gone_is_found_by_the_source_that_names_it() {
    for kind in [DEBIAN, Kind::Rhelish] {
        let ca = Ca::new("Corp Root");
        let before = sorted(&Node::new(kind, ""));
        let node = forgotten(kind, &ca);
        for link in own_links(&node) {
            fs::remove_file(node.path(&link)).unwrap();
        }
        assert_gone(&node, &ca, &before);
    }
}

#[test]
fn what_cannot_be_proven_to_be_gone_is_said() {
    for kind in [DEBIAN, Kind::Rhelish] {
        let ca = Ca::new("Corp Root");
        let before = sorted(&Node::new(kind, ""));
        let node = forgotten(kind, &ca);
        for link in own_links(&node) {
            fs::remove_file(node.path(&link)).unwrap();
        }
        fs::remove_file(node.source.join("ca.crt")).unwrap();
        for _ in 0..2 {
            let done = node.nodetrust(&["uninstall"]).expect(1);
            for part in ["cannot be proven", &ca.fp16(), node.kind.tool()] {
                assert!(done.out.contains(part), "`{part}` is not in: {}", done.out);
            }
            assert!(!done.out.contains("nothing of nodetrust is left"), "{}", done.out);
        }
        // The message names this way out.
        tool(&node, if kind == DEBIAN { &[] } else { &["extract"] }).expect(0);
        assert_gone(&node, &ca, &before);
    }
}

/// A node on which it never was, and one that it has left: every certificate of the bundle lies in a file that is there.
#[test]
fn a_node_without_anything_of_ours_is_left_alone() {
    for kind in [Kind::Bookworm, Kind::Trixie, Kind::Rhelish, Kind::Suselike] {
        let node = Node::new(kind, "");
        let before = node.footprint();
        let done = node.nodetrust(&["uninstall"]).expect(0);
        assert!(done.out.contains("nothing of nodetrust is left"), "{}", done.out);
        let mut after = node.footprint();
        // Our files lie here for a moment: the lock, and p11-kit's answer.
        after.retain(|path, _| before.contains_key(path) || !matches!(path.as_str(), "/run" | "/var" | "/var/lib"));
        assert_eq!(after, before, "{kind:?}");
    }
}

/// A link to a file of ours that is gone, and nothing in the bundle: the link goes too.
#[test]
fn a_link_that_leads_to_no_file_of_ours_goes_too() {
    let node = Node::new(DEBIAN, "");
    let links = node.path("/etc/ssl/certs");
    let name = "nodetrust-0123456789abcdef.pem";
    std::os::unix::fs::symlink(format!("/usr/local/share/ca-certificates/{name}"), links.join(name)).unwrap();
    std::os::unix::fs::symlink(name, links.join("0123abcd.0")).unwrap();
    std::os::unix::fs::symlink("nowhere", links.join("0123abcd.1")).unwrap();
    node.nodetrust(&["uninstall"]).expect(0);
    assert_eq!(own_links(&node), Vec::<String>::new());
    assert_eq!(fs::read_link(links.join("0123abcd.0")).unwrap().to_str(), Some("nowhere"), "it is reachable now");
}

#[test]
fn what_holds_an_uninstall_back_is_told_once() {
    let node = Node::new(DEBIAN, "");
    let ca = Ca::new("Corp Root");
    node.set_source(&[&ca]);
    apply(&node, 0);
    put(&node, "server.crt", ca.leaf("registry.test").1);
    for _ in 0..2 {
        let done = node.nodetrust(&["uninstall", "-o", "json"]).expect(1);
        let mut texts: Vec<String> = done.json()["problems"].as_array().unwrap().iter().map(Value::to_string).collect();
        assert!(texts.iter().any(|text| text.contains("server.crt")), "{texts:#?}");
        let all = texts.len();
        texts.sort();
        texts.dedup();
        assert_eq!(texts.len(), all, "{texts:#?}");
    }
}

/// The file system of the ledger is full: removing needs no space there.
#[test]
fn a_full_state_directory_keeps_no_ca_trusted() {
    for kind in [DEBIAN, Kind::Rhelish] {
        let node = Node::new(kind, "");
        let before = sorted(&node);
        let ca = Ca::new("Corp Root");
        node.set_source(&[&ca]);
        apply(&node, 0);
        // Many nodes have /var on a file system of its own; its other files do not matter here.
        let other = node.path("/var/lib/other");
        fs::create_dir_all(&other).unwrap();
        for entry in fs::read_dir(node.path("/var/lib")).unwrap().flatten() {
            if !["nodetrust", "other", "dpkg"].iter().any(|name| entry.file_name() == *name) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        let _ = fs::remove_dir_all(node.path("/var/lib/dpkg"));
        let full = Mounted::tmpfs(&node, "/var/lib", "64k");
        let filler = fill(&node, "/var/lib", 0);
        let done = node.nodetrust(&["uninstall"]);
        assert_eq!(done.code, 0, "{}\n{}", done.out, done.err);
        assert!(!node.clients_trust(&ca) && sorted(&node) == before);
        assert!(!node.path("/var/lib/nodetrust").exists());
        fs::remove_file(node.path(&filler)).unwrap();
        drop(full);
    }
}
