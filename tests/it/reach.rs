//! What a writer of the configuration reaches: files are read as certificates, and nothing is opened that is no file.

use std::{fs, os::unix::fs::symlink, path::Path};

use nix::{
    errno::Errno,
    sys::{
        inotify::{AddWatchFlags, InitFlags, Inotify},
        stat::{Mode, SFlag, makedev, mknod},
    },
    unistd::mkfifo,
};
use serde_json::Value;

use crate::support::{
    node::{Kind, Node},
    pki::Ca,
};

/// The names in a directory that were opened during the call.
fn opened(dir: &Path, meanwhile: impl FnOnce()) -> Vec<String> {
    let inotify = Inotify::init(InitFlags::IN_NONBLOCK).unwrap();
    inotify.add_watch(dir, AddWatchFlags::IN_OPEN).unwrap();
    meanwhile();
    let mut names = Vec::new();
    loop {
        match inotify.read_events() {
            Ok(events) => names.extend(events.into_iter().filter_map(|event| event.name?.into_string().ok())),
            Err(Errno::EAGAIN) => return names,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Opening a watchdog starts it, opening a tape rewinds it, and opening a FIFO unblocks its writer.
#[test]
fn devices_and_fifos_in_a_source_are_not_opened() {
    let node = Node::new(Kind::Trixie, "");
    let ca = Ca::new("Corp Root");
    node.set_source(&[&ca]);
    let inside = |name: &str| node.source.join(name);
    mkfifo(&inside("fifo.pem"), Mode::from_bits_truncate(0o644)).unwrap();
    // No driver has this number, so it cannot be opened.
    mknod(&inside("device.pem"), SFlag::S_IFCHR, Mode::from_bits_truncate(0o644), makedev(240, 77)).unwrap();
    symlink("fifo.pem", inside("link.pem")).unwrap();
    let names = opened(&node.source, || {
        node.nodetrust(&["apply"]).expect(0);
    });
    assert!(node.trusts(&ca));
    assert!(names.iter().any(|name| name == "ca.crt"), "{names:?}: opening is seen");
    assert!(!names.iter().any(|name| name.ends_with(".pem")), "{names:?}");

    // The same if the source itself is one: its last good set stays in force.
    for odd in ["fifo.pem", "device.pem", "link.pem"] {
        let path = inside(odd).display().to_string();
        fs::write(&node.config, format!("sources:\n- {{name: org, path: {path}}}\n")).unwrap();
        let names = opened(&node.source, || {
            node.nodetrust(&["apply"]).expect(2);
        });
        assert!(!names.iter().any(|name| name.ends_with(".pem")), "{names:?}");
        let status: Value = node.nodetrust(&["-o", "json", "status"]).expect(2).json();
        let text = status["sources"][0].to_string();
        assert!(text.contains("neither a file nor a directory") && node.trusts(&ca), "{status:#}");
    }
}

/// A file of the node that holds no certificate: no output shows its content.
#[test]
fn a_file_that_holds_no_certificate_is_not_told() {
    let node = Node::new(Kind::Trixie, "");
    let secret = "root:$6$SECRETSALT$SECRETHASH:19000:0:99999:7:::";
    let lines = format!("{secret}\ntoken = SECRETTOKEN\n-----BEGIN SECRETLABEL-----\nU0VDUkVU\n");
    node.write("/etc/shadow.copy", lines);
    let path = node.path("/etc/shadow.copy").display().to_string();
    fs::write(&node.config, format!("sources:\n- {{name: org, path: {path}}}\n")).unwrap();
    for command in ["plan", "apply", "status", "inspect"] {
        let args: &[&str] = if command == "inspect" { &["inspect", &path] } else { &[command] };
        for output in ["table", "json"] {
            let done = node.nodetrust(&[&["-vv", "-o", output], args].concat());
            for quoted in ["SALT", "HASH", "TOKEN", "U0VDUkVU"] {
                assert!(
                    !done.out.contains(quoted) && !done.err.contains(quoted),
                    "{command}: {} {}",
                    done.out,
                    done.err
                );
            }
        }
    }
}
