//! The main job on real distribution roots.

use std::fs;

use crate::support::{
    node::{Kind, Node},
    pki::Ca,
};

/// Before: untrusted. Then installed, rotated, in grace, removed, uninstalled; all clients agree at each step.
fn whole_life(kind: Kind) {
    let node = Node::new(kind, "rotation: {removalGrace: 1h}");
    let (old, new) = (Ca::new("Corp Root 2021"), Ca::new("Corp Root 2026"));
    let before = node.tree(&["/etc", "/usr/local", "/var/lib", "/usr/share/pki"]);
    assert!(!node.clients_trust(&old));

    node.set_source(&[&old]);
    assert_eq!(node.nodetrust(&["plan"]).expect(2).err, "");
    assert!(!node.trusts(&old), "plan must change nothing");
    node.nodetrust(&["apply"]).expect(0);
    assert!(node.clients_trust(&old));
    assert_eq!(fs::read_to_string(node.anchor_file(&old)).unwrap(), old.pem());
    node.nodetrust(&["plan"]).expect(0);
    node.nodetrust(&["status"]).expect(0);

    node.set_source(&[&new]);
    node.nodetrust(&["apply"]).expect(0);
    assert!(node.clients_trust(&old) && node.clients_trust(&new), "both are trusted in the grace time");

    node.configure("rotation: {removalGrace: 0s}");
    node.nodetrust(&["apply"]).expect(0);
    assert!(!node.clients_trust(&old) && node.clients_trust(&new));
    assert!(!node.anchor_file(&old).exists());

    node.nodetrust(&["uninstall"]).expect(0);
    assert!(!node.clients_trust(&new));
    let after = node.tree(&["/etc", "/usr/local", "/var/lib", "/usr/share/pki"]);
    // The distribution's own tools write these at each run, with or without us.
    let own_noise =
        |path: &str| path.starts_with("/var/lib/dpkg/") || path.ends_with("/cacerts") || path.ends_with("cacerts.bin");
    let changed: Vec<_> = before
        .keys()
        .chain(after.keys())
        .filter(|path| before.get(*path) != after.get(*path) && !own_noise(path))
        .collect();
    assert!(changed.is_empty(), "the tree after uninstall differs: {changed:#?}");
}

#[test]
fn bookworm_whole_life() {
    whole_life(Kind::Bookworm);
}

#[test]
fn trixie_whole_life() {
    whole_life(Kind::Trixie);
}

#[test]
fn rhelish_whole_life() {
    whole_life(Kind::Rhelish);
}
