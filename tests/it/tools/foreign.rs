//! Other people's files: never touched, and told of where they matter.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown, symlink},
};

use nix::sys::stat::Mode;

use super::*;

/// Files of every kind stay as they are, byte for byte, through a whole life.
#[test]
fn files_of_every_kind_stay() {
    for kind in [DEBIAN, Kind::Rhelish] {
        let node = Node::new(kind, "rotation: {removalGrace: 0s}");
        let dir = node.path(kind.anchors_dir());
        let theirs = Ca::new("Theirs");
        put(&node, "theirs.crt", theirs.pem());
        put(&node, "with blanks, (and) more.crt", Ca::new("Blanks").pem());
        put(&node, "crlf.pem", Ca::new("CRLF").pem().replace('\n', "\r\n"));
        put(&node, "empty.txt", "");
        put(&node, ".hidden", "x");
        put(&node, "README", [0, 159, 146, 150]);
        put(&node, "nodetrust-notes.txt", "mine, whatever it begins with");
        put(&node, "nodetrust-0123456789abcdef.bak", Ca::new("Backup").pem());
        put(&node, "nodetrust-0123456789ABCDEF.crt", Ca::new("Upper case").pem());
        put(&node, "team/nested.crt", Ca::new("Nested").pem());
        put(&node, "team/deeper/secret.txt", "x");
        fs::set_permissions(dir.join("theirs.crt"), fs::Permissions::from_mode(0o600)).unwrap();
        chown(dir.join("crlf.pem"), Some(1000), Some(1000)).unwrap();
        fs::hard_link(dir.join("theirs.crt"), dir.join("team/hard.txt")).unwrap();
        symlink("/nowhere/at-all", dir.join("dangling")).unwrap();
        symlink("theirs.crt", dir.join("relative")).unwrap();
        symlink("team", dir.join("directory")).unwrap();
        if kind == DEBIAN {
            // nobody can read a pipe; p11-kit would wait without end
            nix::unistd::mkfifo(&dir.join("pipe.crt"), Mode::S_IRUSR).unwrap();
        }
        let theirs_now = || node.tree(&[kind.anchors_dir()]);
        let before = theirs_now();
        let (old, new) = (Ca::new("Old"), Ca::new("New"));
        node.set_source(&[&old]);
        apply(&node, 0);
        assert!(node.trusts(&theirs));
        node.set_source(&[&new]);
        apply(&node, 0);
        let mut now = theirs_now();
        let own = format!("{}/nodetrust-{}.{}", kind.anchors_dir(), new.fp16(), kind.extension());
        assert!(now.remove(&own).is_some());
        assert_eq!(now, before);
        node.nodetrust(&["uninstall"]).expect(0);
        assert_eq!(theirs_now(), before);
        assert!(node.trusts(&theirs) && !node.trusts(&new));
    }
}

/// Somebody else's copy of a retired anchor keeps it trusted: it is reported and stays.
#[test]
fn a_copy_of_a_retired_anchor_is_called_out() {
    for kind in [DEBIAN, Kind::Rhelish] {
        let (old, new) = (Ca::new("Corp 2021"), Ca::new("Corp 2026"));
        let node = Node::new(kind, "rotation: {removalGrace: 0s}");
        node.set_source(&[&old]);
        apply(&node, 0);
        let path = put(&node, "template.crt", old.pem());
        node.set_source(&[&new]);
        let report = apply(&node, 0);
        assert!(!node.anchor_file(&old).exists(), "ours goes");
        assert!(node.clients_trust(&new) && node.clients_trust(&old), "his copy keeps it");
        let row = report["foreign"].as_array().unwrap().iter().find(|row| row["path"] == path.as_str()).unwrap();
        let text = row["text"].as_str().unwrap();
        assert!(text.contains(&old.fp16()) && text.contains("remove it by hand"), "{text}");
        let status = node.nodetrust(&["status"]).expect(2);
        assert!(status.out.contains("template.crt"), "{}", status.out);
        node.nodetrust(&["plan"]).expect(0);

        fs::remove_file(node.path(&path)).unwrap();
        apply(&node, 0);
        assert!(!node.clients_trust(&old));
        assert_right(&node, &[&new]);
        node.nodetrust(&["status"]).expect(0);
    }
}

/// A CA that the distribution ships as well comes and goes without taking the distribution's away.
#[test]
fn a_shipped_root_leaves_cleanly() {
    for kind in [Kind::Bookworm, Kind::Trixie, Kind::Rhelish] {
        let node = Node::new(kind, "rotation: {removalGrace: 0s}");
        let before = sorted(&node);
        let data = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/pem/mozilla/ISRG_Root_X1.crt");
        let shipped = fs::read_to_string(data).unwrap();
        let ours = Ca::new("Ours");
        fs::write(node.source.join("ca.crt"), ours.pem() + &shipped).unwrap();
        apply(&node, 0);
        node.nodetrust(&["plan"]).expect(0);
        let places: &[&[&str]] = if kind == Kind::Rhelish {
            &[&["-CAfile", kind.bundle(), "-no-CApath"]]
        } else {
            &[&["-CAfile", kind.bundle(), "-no-CApath"], &["-CApath", "/etc/ssl/certs", "-no-CAfile"]]
        };
        let still_trusted = || {
            node.write("/tmp/shipped.pem", &shipped);
            for place in places {
                node.run(&[&["openssl", "verify", "-no-CAstore"], *place, &["/tmp/shipped.pem"]].concat()).expect(0);
            }
        };
        still_trusted();
        node.set_source(&[&ours]);
        apply(&node, 0);
        still_trusted();
        assert_right(&node, &[&ours]);
        node.nodetrust(&["uninstall"]).expect(0);
        still_trusted();
        assert_eq!(sorted(&node), before);
    }
}
