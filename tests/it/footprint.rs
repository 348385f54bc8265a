//! What is on the host afterwards, exactly: the footprint of an installation as a golden file, and nothing after uninstall.
//!
//! The lines are what the overlay's upper layer holds: ours, and what the distribution's own tool and hooks write whenever they
//! run. `UPDATE_GOLDEN=1` writes the files anew; the difference then shows in review.

use std::{collections::BTreeMap, fmt::Write, fs};

use crate::support::node::{Kind, Node};

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/footprint");
/// The directory of the node's own state.
const PLACES: [&str; 5] = ["/etc", "/usr/local", "/var", "/run", "/tmp"];

/// The footprint as text. The content of anchor files is part of it; the others hold times, keys of their own, or the
/// distribution's certificates.
fn text_of(node: &Node, footprint: &BTreeMap<String, String>) -> String {
    let mut text = String::new();
    for (path, what) in footprint {
        let what = match what.strip_prefix("file ").and_then(|rest| rest.split_once(' ')) {
            Some((_, mode)) if !path.starts_with(node.kind.anchors_dir()) => format!("file {mode}"),
            _ => what.clone(),
        };
        writeln!(text, "{path} {what}").unwrap();
    }
    text
}

fn footprint(kind: Kind) {
    let node = Node::new(kind, "");
    assert_eq!(node.footprint(), BTreeMap::new(), "the fixture itself leaves something");
    let before = node.tree(&PLACES);
    fs::copy(format!("{DATA}/corp-root.pem"), node.source.join("ca.crt")).unwrap();
    node.nodetrust(&["apply"]).expect(0);
    let installed = node.footprint();
    let actual = text_of(&node, &installed);
    let golden = format!("{DATA}/{}.txt", format!("{kind:?}").to_lowercase());
    if std::env::var_os("UPDATE_GOLDEN").is_some_and(|value| value == "1") {
        fs::write(&golden, &actual).unwrap();
    }
    let expected = fs::read_to_string(&golden).unwrap();
    assert!(actual == expected, "{golden} differs (UPDATE_GOLDEN=1 writes it anew); actual:\n{actual}");

    node.nodetrust(&["apply"]).expect(0);
    let contents = |footprint: &BTreeMap<String, String>| {
        let mut all = footprint.clone();
        all.remove("/run/nodetrust.lock"); // it holds the time of the last cycle
        all
    };
    assert_eq!(contents(&node.footprint()), contents(&installed), "a second apply changes something");

    node.nodetrust(&["uninstall"]).expect(0);
    let after = node.tree(&PLACES);
    for path in before.keys() {
        assert!(after.contains_key(path), "{path} of the distribution is gone after uninstall");
    }
    for (path, what) in after.iter().filter(|(path, _)| !before.contains_key(*path)) {
        assert!(!path.contains("nodetrust") && !what.contains("nodetrust"), "{path} {what} stays after uninstall");
        // The Java hook writes these.
        let hook = ["/var/lib/dpkg/", "/var/log/dpkg.log", "/tmp/hsperfdata_"];
        assert!(hook.iter().any(|start| path.starts_with(start)), "{path} is new: {what}");
    }
}

#[test]
fn bookworm_footprint() {
    footprint(Kind::Bookworm);
}

#[test]
fn trixie_footprint() {
    footprint(Kind::Trixie);
}

#[test]
fn rhelish_footprint() {
    footprint(Kind::Rhelish);
}
