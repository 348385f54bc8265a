//! What decides which store a node has: a path that cannot be looked at is not absent, and os-release is a witness. In each case here a
//! node that took the one for the other would leave its store, and take our anchors out of it.

use std::{fs, os::unix::fs::symlink};

use serde_json::Value;

use crate::support::{
    node::{Kind, Node},
    pki::Ca,
};

fn apply(node: &Node, code: i32) -> Value {
    node.nodetrust(&["-o", "json", "apply"]).expect(code).json()
}

/// Everything but the lock, which holds the time of the last cycle.
fn tree(node: &Node) -> std::collections::BTreeMap<String, String> {
    node.tree(&["/etc", "/usr/local", "/usr/share/pki", "/var/lib"])
}

/// Moves a file or directory of the node; directories of the lower layer cannot be renamed.
fn moved(node: &Node, from: &str, to: &str) {
    node.run(&["mv", "-T", from, to]).expect(0);
}

/// A simulated fault: the path is a link to itself, and whoever looks at it gets an error that is not "there is none".
#[test]
fn with_a_simulated_fault_at_a_path_that_decides_nothing_is_changed() {
    for kind in [Kind::Trixie, Kind::Rhelish, Kind::Suselike] {
        let node = Node::new(kind, "rotation: {removalGrace: 0s}");
        let (old, new) = (Ca::new("Corp Root 2021"), Ca::new("Corp Root 2026"));
        node.set_source(&[&old]);
        apply(&node, 0);
        let installed = tree(&node);
        node.set_source(&[&new]);
        for path in nodetrust_core::store::PROBES.iter().copied().chain(["/etc/os-release"]) {
            let there = node.path(path);
            let was_there = fs::symlink_metadata(&there).is_ok();
            if was_there {
                moved(&node, path, "/srv/aside");
            } else {
                fs::create_dir_all(there.parent().unwrap()).unwrap();
            }
            symlink(there.file_name().unwrap(), &there).unwrap();
            let report = apply(&node, 1);
            assert_eq!(report["problems"][0]["kind"], "observe", "{kind:?} {path}: {report:#}");
            assert!(report["problems"][0]["text"].as_str().unwrap().contains(path), "{kind:?} {path}: {report:#}");
            assert_ne!(report["verdict"], "unsupported-store", "{kind:?} {path}: it may well have a store");
            node.nodetrust(&["uninstall"]).expect(1);
            node.nodetrust(&["stores"]).expect(1);
            fs::remove_file(&there).unwrap();
            if was_there {
                moved(&node, "/srv/aside", path);
            }
            let now = tree(&node);
            let changed: Vec<_> = installed.iter().filter(|(path, what)| now.get(*path) != Some(what)).collect();
            assert!(changed.is_empty(), "{kind:?} {path}: {changed:#?}");
        }
        apply(&node, 0);
        assert!(node.clients_trust(&new) && !node.clients_trust(&old), "{kind:?}");
    }
}

/// Parts that are really gone, or replaced, while os-release says what the node is.
#[test]
fn a_node_does_not_become_one_of_another_family() {
    // The directory of SUSE's sources is gone; the rest looks like Debian's.
    let node = Node::new(Kind::Suselike, "");
    let ca = Ca::new("Corp Root");
    node.set_source(&[&ca]);
    apply(&node, 0);
    let bundle = node.bundle();
    moved(&node, "/etc/pki/trust", "/etc/pki/moved");
    let report = apply(&node, 1);
    assert_eq!(report["verdict"], "unsupported-store", "{report:#}");
    assert!(report["headline"].as_str().unwrap().contains("nothing is changed"), "{report:#}");
    assert_eq!(node.bundle(), bundle);
    assert!(!node.path("/usr/local/share/ca-certificates").exists());
    moved(&node, "/etc/pki/moved", "/etc/pki/trust");
    apply(&node, 0);
    assert!(node.clients_trust(&ca));

    // os-release names another system, over Debian's own tool.
    for id in ["photon", "flatcar", "alpine"] {
        let node = Node::new(Kind::Trixie, "");
        node.set_source(&[&ca]);
        fs::remove_file(node.path("/etc/os-release")).unwrap();
        node.write("/etc/os-release", format!("ID={id}\n"));
        let before = tree(&node);
        let report = apply(&node, 1);
        assert_eq!(report["verdict"], "unsupported-store", "{report:#}");
        let headline = report["headline"].as_str().unwrap();
        assert!(headline.contains("Debian's script") && headline.contains("nothing is changed"), "{headline}");
        assert_eq!(tree(&node), before);
        node.configure("store: {family: debian}");
        apply(&node, 0);
        assert!(node.clients_trust(&ca));
    }

    // A stray directory does not make a Debian node a SUSE node.
    let node = Node::new(Kind::Trixie, "");
    node.set_source(&[&ca]);
    apply(&node, 0);
    fs::create_dir_all(node.path("/etc/pki/trust")).unwrap();
    assert_eq!(apply(&node, 0)["store"]["family"], "debian");
    assert!(node.clients_trust(&ca));
}

/// A directory of the store that is read-only: the advice is the system's own way.
#[test]
fn on_an_immutable_system_the_advice_is_its_own_way() {
    for (kind, dir, release, way) in [
        (Kind::Suselike, "/etc/pki", "ID=sl-micro\nID_LIKE=suse\n", "transactional-update"),
        (
            Kind::Rhelish,
            "/etc/pki/ca-trust",
            "ID=azurelinux\nVERSION_ID=3.0\nVARIANT_ID=osguard\n",
            "build the node image anew",
        ),
    ] {
        let node = Node::new(kind, "");
        fs::remove_file(node.path("/etc/os-release")).unwrap();
        node.write("/etc/os-release", release);
        node.set_source(&[&Ca::new("Corp Root")]);
        let dir = &node.path(dir);
        let none: Option<&str> = None;
        let flags = nix::mount::MsFlags::MS_BIND;
        nix::mount::mount(Some(dir), dir, none, flags, none).unwrap();
        let read_only = flags | nix::mount::MsFlags::MS_REMOUNT | nix::mount::MsFlags::MS_RDONLY;
        nix::mount::mount(none, dir, none, read_only, none).unwrap();
        let report = apply(&node, 1);
        nix::mount::umount(dir).unwrap();
        assert_eq!(report["problems"][0]["kind"], "write", "{report:#}");
        assert!(report["next"][0].as_str().unwrap().contains(way), "{report:#}");
    }
}
