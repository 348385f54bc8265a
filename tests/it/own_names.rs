//! What lies at a name that nodetrust uses is never followed and never hurt: a link, a pipe, a directory, a hard link, a socket.
//!
//! The names come from the program's own list (`host::own_paths::names`), so that a new one is covered.

mod changes;

use std::{
    collections::BTreeMap,
    fs,
    io::Read,
    os::unix::{
        fs::{MetadataExt, PermissionsExt, chown, symlink},
        net::UnixListener,
    },
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use nix::{
    fcntl::{AT_FDCWD, RenameFlags, renameat2},
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::stat::Mode,
    unistd::mkfifo,
};
use nodetrust::{
    host::{
        ledger_file,
        obstacle::way_out,
        own_paths::{self, OwnName},
        root::HostRoot,
    },
    runtime,
};
use nodetrust_core::{
    certificate::{anchor::Anchor, fingerprint::Fingerprint, pem},
    runtime::registry_dir,
    store::Family,
};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{
    must,
    node::{Done, Kind, Node},
    pki::Ca,
    wait_for,
};

/// No run may take longer, whatever it finds: a pipe without a reader would be waited for without end.
const LIMIT: Duration = Duration::from_secs(180);
/// The directory that must stay as it is.
const VICTIM: &str = "/srv/victim";
const EXPORTS: [&str; 2] = ["/var/lib/nodetrust/export/all.pem", "/var/lib/nodetrust/export/all.p12"];

fn settings() -> String {
    "rotation: {removalGrace: 0s}\nexport: {bundle: all.pem, pkcs12: all.p12}".to_owned()
}

/// The kinds of obstacles at a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Planted {
    LinkToDirectory,
    LinkToFile,
    Dangling,
    Pipe,
    Socket,
    HardLink,
    Directory,
    EmptyDirectory,
}

impl Planted {
    const ALL: [Self; 8] = [
        Self::LinkToDirectory,
        Self::LinkToFile,
        Self::Dangling,
        Self::Pipe,
        Self::Socket,
        Self::HardLink,
        Self::Directory,
        Self::EmptyDirectory,
    ];

    /// Links lead to `victim` as the host calls it.
    fn put(self, at: &Path, root: &Path, victim: &str) {
        fs::create_dir_all(at.parent().unwrap()).unwrap();
        match self {
            Self::LinkToDirectory => symlink(victim, at).unwrap(),
            Self::LinkToFile => symlink(format!("{victim}/file"), at).unwrap(),
            Self::Dangling => symlink(format!("{victim}/nothing"), at).unwrap(),
            Self::Pipe => mkfifo(at, Mode::from_bits_truncate(0o644)).unwrap(),
            Self::Socket => drop(UnixListener::bind(at).unwrap()),
            Self::HardLink => fs::hard_link(root.join(&victim[1..]).join("file"), at).unwrap(),
            Self::Directory => {
                fs::create_dir_all(at.join("below")).unwrap();
                fs::write(at.join("below/kept"), "somebody's").unwrap();
            }
            Self::EmptyDirectory => fs::create_dir(at).unwrap(),
        }
    }
}

/// A directory with a file, another directory and odd modes.
fn victim(at: &Path) {
    fs::create_dir_all(at.join("sub")).unwrap();
    fs::write(at.join("file"), "of the host").unwrap();
    fs::write(at.join("sub/ledger.json"), "also of the host").unwrap();
    fs::set_permissions(at.join("file"), fs::Permissions::from_mode(0o640)).unwrap();
}

/// Everything below a directory: kind, mode, owner, content. Not the number of links: hard links that were planted go.
fn state(dir: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(path) = todo.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        let content = if meta.is_file() { fs::read_to_string(&path).unwrap() } else { String::new() };
        if meta.is_dir() {
            todo.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        found.insert(path, format!("{:o} {}:{} {content}", meta.mode(), meta.uid(), meta.gid()));
    }
    found
}

/// Runs our program; fails the test if it does not come to its end.
#[track_caller]
fn run(node: &Node, args: &[&str]) -> Done {
    let mut command = node.command(args);
    let mut child = must("nodetrust", command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn());
    let (mut out, mut err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let text = |stream: &mut dyn Read| {
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    };
    let reader = thread::spawn(move || text(&mut err));
    let reading = thread::spawn(move || text(&mut out));
    let status = wait_for(&format!("the end of {args:?}"), LIMIT, || child.try_wait().unwrap());
    Done { code: status.code().unwrap_or(-1), out: reading.join().unwrap(), err: reader.join().unwrap() }
}

#[track_caller]
fn apply(node: &Node) -> (i32, Value) {
    let done = run(node, &["apply", "-o", "json"]);
    (done.code, done.json())
}

/// All that a report says of what is wrong, with the advice.
fn said(report: &Value) -> String {
    let problems = report["problems"].as_array().unwrap();
    problems.iter().map(|problem| format!("{} → {}\n", problem["text"], problem["next"])).collect()
}

fn names(kind: Kind, ca: &Ca) -> Vec<OwnName> {
    let family = if kind == Kind::Rhelish { Family::Redhat } else { Family::Debian };
    let fingerprint: Fingerprint = ca.sha256().parse().unwrap();
    own_paths::names(family.store(), &fingerprint, None, &EXPORTS)
}

/// Names that can have an obstacle at the same time: none is below another one.
fn leaves(names: &[OwnName]) -> Vec<&OwnName> {
    let is_above =
        |name: &OwnName| names.iter().any(|other| other != name && Path::new(&other.path).starts_with(&name.path));
    names.iter().filter(|name| !is_above(name)).collect()
}

struct Scene {
    node: Node,
    ca: Ca,
    before: BTreeMap<PathBuf, String>,
}

impl Scene {
    fn new(kind: Kind) -> Self {
        let node = Node::new(kind, &settings());
        let ca = Ca::new("Corp Root");
        node.set_source(&[&ca]);
        victim(&node.path(VICTIM));
        let before = state(&node.path(VICTIM));
        Self { node, ca, before }
    }

    #[track_caller]
    fn plant(&self, what: Planted, name: &str) {
        what.put(&self.node.path(name), &self.node.root, VICTIM);
    }

    #[track_caller]
    fn is_untouched(&self, after: &str) {
        assert_eq!(state(&self.node.path(VICTIM)), self.before, "{after}");
    }

    /// Runs the commands that only read: they end, and change nothing.
    #[track_caller]
    fn look(&self, what: &str) {
        for command in ["plan", "status"] {
            run(&self.node, &[command]);
            self.is_untouched(&format!("{command} with {what}"));
        }
    }
}

/// Obstacles without data are replaced at all names; the node converges, and `uninstall` leaves nothing.
fn obstacles_are_replaced(kind: Kind) {
    for what in [
        Planted::LinkToDirectory,
        Planted::LinkToFile,
        Planted::Dangling,
        Planted::Pipe,
        Planted::Socket,
        Planted::HardLink,
        Planted::EmptyDirectory,
    ] {
        let scene = Scene::new(kind);
        let names = names(kind, &scene.ca);
        for name in leaves(&names) {
            // A file in the place of a directory is kept; a test below covers it.
            if !(name.is_dir && what == Planted::HardLink) {
                scene.plant(what, &name.path);
            }
        }
        scene.look(&format!("{what:?}"));
        let (code, report) = apply(&scene.node);
        assert!(matches!(code, 0 | 2), "{what:?}: {code}: {}", said(&report));
        scene.is_untouched(&format!("apply with {what:?}"));
        assert_eq!(apply(&scene.node).0, 0, "{what:?}");
        run(&scene.node, &["status"]).expect(0);
        assert!(scene.node.trusts(&scene.ca));
        // The obstacles come back one by one while nodetrust is installed.
        for name in leaves(&names).into_iter().filter(|name| !name.is_dir || what != Planted::HardLink) {
            let path = scene.node.path(&name.path);
            let _ = fs::remove_file(&path);
            let _ = fs::remove_dir_all(&path);
            scene.plant(what, &name.path);
        }
        run(&scene.node, &["uninstall"]).expect(0);
        scene.is_untouched(&format!("uninstall with {what:?}"));
        for name in &names {
            assert!(scene.node.path(&name.path).symlink_metadata().is_err(), "{what:?}: {} stays", name.path);
        }
    }
}

#[test]
fn obstacles_at_every_name_are_replaced_on_debian() {
    obstacles_are_replaced(Kind::Trixie);
}

#[test]
fn obstacles_at_every_name_are_replaced_over_p11_kit() {
    obstacles_are_replaced(Kind::Rhelish);
}

/// The directories of ours have what is below them in the other test; here they are obstacles themselves.
#[test]
fn a_link_in_the_place_of_a_directory_of_ours_is_replaced_and_never_entered() {
    for (what, dir) in [
        (Planted::LinkToDirectory, own_paths::TEMP_DIR),
        (Planted::LinkToDirectory, own_paths::DIR),
        (Planted::LinkToDirectory, "/var/lib/nodetrust/export"),
        (Planted::Dangling, own_paths::DIR),
        (Planted::Pipe, own_paths::DIR),
        (Planted::Socket, own_paths::TEMP_DIR),
    ] {
        let scene = Scene::new(Kind::Trixie);
        scene.plant(what, dir);
        scene.look(dir);
        let (code, report) = apply(&scene.node);
        assert!(matches!(code, 0 | 2), "{what:?} at {dir}: {}", said(&report));
        scene.is_untouched(dir);
        assert_eq!(apply(&scene.node).0, 0);
        let _ = fs::remove_dir_all(scene.node.path(dir));
        scene.plant(what, dir);
        run(&scene.node, &["uninstall"]);
        scene.is_untouched(&format!("uninstall with {what:?} at {dir}"));
        assert!(scene.node.path(dir).symlink_metadata().is_err(), "{what:?} at {dir} stays");
    }
}

/// The same while an agent runs. What the tool itself writes to is left out: while it runs, it follows whatever root puts there.
#[test]
fn an_agent_enters_no_link_at_any_name() {
    let scene = Scene::new(Kind::Trixie);
    let names = names(Kind::Trixie, &scene.ca);
    for name in leaves(&names) {
        scene.plant(Planted::LinkToDirectory, &name.path);
    }
    let agent =
        scene.node.agent("settle: 200ms\nexport: {bundle: all.pem, pkcs12: all.p12}\nrotation: {removalGrace: 0s}");
    agent.wait_converged(&[&scene.ca], LIMIT);
    scene.is_untouched("start");
    let file = scene.node.anchor_file(&scene.ca);
    for what in [Planted::LinkToDirectory, Planted::Dangling] {
        for name in leaves(&names).into_iter().filter(|name| !name.path.contains("/.nodetrust-bundle")) {
            let path = scene.node.path(&name.path);
            let _ = fs::remove_file(&path);
            let _ = fs::remove_dir_all(&path);
            scene.plant(what, &name.path);
        }
        wait_for(&format!("the anchor file instead of {what:?}"), LIMIT, || {
            file.symlink_metadata().is_ok_and(|meta| meta.is_file()).then_some(())
        });
        agent.wait_converged(&[&scene.ca], LIMIT);
        scene.is_untouched(&format!("{what:?} beside the agent"));
    }
    assert_eq!(agent.get("/livez").unwrap().0, 200);
}

/// Somebody's files are never removed: the message names them and the way out, which works.
fn directories_are_told(kind: Kind) {
    let count = names(kind, &Ca::new("any")).len();
    for index in 0..count {
        let scene = Scene::new(kind);
        let name = &names(kind, &scene.ca)[index];
        if name.is_dir || name.path.starts_with(own_paths::TEMP_DIR) {
            continue;
        }
        scene.plant(Planted::Directory, &name.path);
        let there = scene.node.path(&name.path);
        let before = state(&there);
        scene.look(&name.path);
        let (code, report) = apply(&scene.node);
        if name.path == own_paths::LEDGER {
            // A damaged ledger is set aside.
            assert_eq!(code, 2, "{}", said(&report));
            let aside = scene.node.path(own_paths::DIR).join(own_paths::LEDGER_DAMAGED);
            assert_eq!(fs::read_to_string(aside.join("below/kept")).unwrap(), "somebody's");
            let done = run(&scene.node, &["uninstall", "-o", "json"]).expect(1);
            assert!(said(&done.json()).contains("ledger.json.damaged is a directory"), "{}", done.out);
            continue;
        }
        let is_used = !name.path.ends_with(own_paths::LEDGER_DAMAGED) && !name.path.ends_with(own_paths::RESTORE);
        if is_used {
            assert_ne!(code, 0, "{}: {}", name.path, said(&report));
            let said = said(&report);
            assert!(said.contains(&format!("{} is a directory", name.path)), "{}: {said}", name.path);
            assert!(said.contains("move it away"), "{}: {said}", name.path);
        }
        assert_eq!(state(&there), before, "{}", name.path);
        fs::rename(&there, scene.node.path("/srv/moved")).unwrap();
        let (code, report) = apply(&scene.node);
        assert_eq!(code, 0, "{} after the way out: {}", name.path, said(&report));
    }
}

#[test]
fn a_directory_at_a_files_name_is_told_and_kept_on_debian() {
    directories_are_told(Kind::Trixie);
}

#[test]
fn a_directory_at_a_files_name_is_told_and_kept_over_p11_kit() {
    directories_are_told(Kind::Rhelish);
}

#[test]
fn a_file_in_the_place_of_our_directory_is_told_and_kept() {
    let scene = Scene::new(Kind::Trixie);
    scene.node.write(own_paths::DIR, "somebody's");
    let (code, report) = apply(&scene.node);
    assert_eq!(code, 1);
    assert!(said(&report).contains("/var/lib/nodetrust is a file") && said(&report).contains("move it away"));
    assert_eq!(fs::read_to_string(scene.node.path(own_paths::DIR)).unwrap(), "somebody's");
    run(&scene.node, &["uninstall"]);
    assert_eq!(fs::read_to_string(scene.node.path(own_paths::DIR)).unwrap(), "somebody's");
}

/// What is mounted in our temporary directory is not emptied, be it of the same file system.
#[test]
fn a_mount_below_our_directory_is_not_emptied() {
    let scene = Scene::new(Kind::Trixie);
    let none: Option<&str> = None;
    for place in ["/var/lib/nodetrust/tmp", "/var/lib/nodetrust/tmp/deep/er"] {
        let at = scene.node.path(place);
        fs::create_dir_all(&at).unwrap();
        mount(Some(&scene.node.path(VICTIM)), &at, none, MsFlags::MS_BIND, none).unwrap();
        let (_, report) = apply(&scene.node);
        scene.is_untouched(place);
        let said = said(&report);
        assert!(said.contains(&format!("mounted at {place}")) && said.contains(&format!("unmount {place}")), "{said}");
        umount2(&at, MntFlags::MNT_DETACH).unwrap();
        assert_eq!(apply(&scene.node).0, 0, "after the way out");
    }
}

/// A directory on the way that others can write is refused by name; root's own links are followed as ever.
#[test]
fn nothing_is_done_by_way_of_a_directory_that_others_can_write() {
    let lower = |node: &Node| node.tree(&["/srv", "/tmp"]);
    type Spoil = fn(&Path);
    let by_mode: Spoil = |dir| fs::set_permissions(dir, fs::Permissions::from_mode(0o1777)).unwrap();
    let by_group: Spoil = |dir| {
        chown(dir, Some(0), Some(1000)).unwrap();
        fs::set_permissions(dir, fs::Permissions::from_mode(0o775)).unwrap();
    };
    let by_owner: Spoil = |dir| chown(dir, Some(1000), Some(1000)).unwrap();
    for (moved, spoil) in [
        ("/var/lib", by_mode),
        ("/var/lib", by_owner),
        ("/usr/local/share/ca-certificates", by_group),
        ("/usr/local/share/ca-certificates", by_mode),
        ("/run", by_owner),
    ] {
        let node = Node::new(Kind::Trixie, "");
        let ca = Ca::new("Corp Root");
        node.set_source(&[&ca]);
        let there = node.path("/srv/elsewhere");
        fs::create_dir_all(&there).unwrap();
        // The directory's content stays in place.
        node.run(&[
            "sh",
            "-c",
            &format!("cp -a {moved}/. /srv/elsewhere/ && rm -r {moved} && ln -s /srv/elsewhere {moved}"),
        ])
        .expect(0);
        run(&node, &["apply"]).expect(0);
        run(&node, &["uninstall"]).expect(0);
        spoil(&there);
        let before = lower(&node);
        let (code, report) = apply(&node);
        let said = said(&report);
        assert_eq!(code, 1, "{moved}: {said}");
        assert!(said.contains("others than root can write /srv/elsewhere") && said.contains("chmod go-w"), "{said}");
        assert_eq!(lower(&node), before, "{moved}");
        chown(&there, Some(0), Some(0)).unwrap();
        fs::set_permissions(&there, fs::Permissions::from_mode(0o755)).unwrap();
        run(&node, &["apply"]).expect(0);
        assert!(node.trusts(&ca));
    }
}

/// Debian systems that began long ago let the group `staff` write below /usr/local (policy 9.1.2).
#[test]
fn debians_group_staff_counts_as_root_below_usr_local() {
    let node = Node::new(Kind::Bookworm, "");
    let ca = Ca::new("Corp Root");
    node.set_source(&[&ca]);
    for dir in ["/usr/local", "/usr/local/share", "/usr/local/share/ca-certificates"] {
        chown(node.path(dir), Some(0), Some(50)).unwrap();
        fs::set_permissions(node.path(dir), fs::Permissions::from_mode(0o2775)).unwrap();
    }
    run(&node, &["apply"]).expect(0);
    assert!(node.trusts(&ca));
}
