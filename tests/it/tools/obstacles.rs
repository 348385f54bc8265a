//! What stands in the way on real nodes: tools that are missing, hang or chatter, hooks that fail, full and read-only disks.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    time::Duration,
};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::{alone::ScriptGeneration, *};
use crate::support::wait_for;

/// The tool's path on the host.
pub(super) fn tool_path(node: &Node) -> &'static str {
    if node.kind == Kind::Rhelish { "/usr/bin/update-ca-trust" } else { "/usr/sbin/update-ca-certificates" }
}

/// Puts a script in the place of the tool, which moves to `PATH.real`.
pub(super) fn replace_tool(node: &Node, script: &str) {
    let path = node.path(tool_path(node));
    fs::rename(&path, path.with_extension("real")).unwrap();
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

pub(super) fn restore_tool(node: &Node) {
    let path = node.path(tool_path(node));
    fs::rename(path.with_extension("real"), &path).unwrap();
}

/// A mount in the node, gone with it.
pub(super) struct Mounted(PathBuf);

impl Mounted {
    /// A small tmpfs with the directory's present content.
    pub(super) fn tmpfs(node: &Node, dir: &str, size: &str) -> Self {
        let path = node.path(dir);
        fs::create_dir_all(&path).unwrap();
        node.run(&["cp", "-a", dir, "/tmp/copy"]).expect(0);
        let options = format!("size={size},mode=0755");
        mount(Some("tmpfs"), &path, Some("tmpfs"), MsFlags::empty(), Some(options.as_str())).unwrap();
        node.run(&["sh", "-c", &format!("cp -a /tmp/copy/. {dir}/ && rm -r /tmp/copy")]).expect(0);
        Self(path)
    }

    /// The directory itself, not writable.
    fn read_only(node: &Node, dir: &str) -> Self {
        let (path, none) = (node.path(dir), None::<&str>);
        mount(Some(&path), &path, none, MsFlags::MS_BIND, none).unwrap();
        let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount(none, &path, none, flags, none).unwrap();
        Self(path)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

/// Fills the file system of a directory and leaves this many bytes.
pub(super) fn fill(node: &Node, dir: &str, leave: u64) -> String {
    let path = format!("{dir}/filler");
    node.run(&["sh", "-c", &format!("head -c 100000000 /dev/zero >{path}")]);
    let file = fs::OpenOptions::new().write(true).open(node.path(&path)).unwrap();
    let size = file.metadata().unwrap().len();
    assert!(size < 100_000_000, "the file system is not small");
    file.set_len(size.saturating_sub(leave)).unwrap();
    path
}

/// Both generations of RHEL's script, with the links that the newer one makes.
#[test]
fn both_generations_of_update_ca_trust() {
    for generation in [ScriptGeneration::Old, ScriptGeneration::New] {
        let (old, new) = (Ca::new("Corp 2021"), Ca::new("Corp 2026"));
        let node = generation.node("rotation: {removalGrace: 0s}");
        node.set_source(&[&old]);
        apply(&node, 0);
        assert_right(&node, &[&old]);
        node.set_source(&[&old, &new]);
        apply(&node, 0);
        assert_right(&node, &[&old, &new]);
        if generation == ScriptGeneration::New {
            assert!(by_directory(&node, &old) && by_directory(&node, &new));
        }
        node.set_source(&[&new]);
        apply(&node, 0);
        assert_right(&node, &[&new]);
        assert!(!node.clients_trust(&old));
        if generation == ScriptGeneration::New {
            assert!(by_directory(&node, &new) && !by_directory(&node, &old));
        }
        node.nodetrust(&["uninstall"]).expect(0);
        assert!(!node.clients_trust(&new) && !by_directory(&node, &new));
    }
}

/// The newer script on a full disk takes all links away and then fails; they are back afterwards.
#[test]
fn a_full_disk_keeps_the_newer_scripts_links() {
    let ca = Ca::new("Corp");
    let alone = ScriptGeneration::New.node("");
    let links = |node: &Node| node.tree(&["/etc/pki/tls"]);
    for node in [&alone, &ScriptGeneration::New.node("")] {
        tool(node, &[]).expect(0);
        let full = Mounted::tmpfs(node, "/etc/pki/ca-trust/extracted", "4m");
        fill(node, "/etc/pki/ca-trust/extracted", 8192);
        let before = (links(node), sorted(node));
        if std::ptr::eq(node, &alone) {
            assert_ne!(tool(node, &[]).code, 0);
            assert!(links(node).len() + 100 < before.0.len(), "the tool alone leaves no links");
            drop(full);
            continue;
        }
        node.set_source(&[&ca]);
        apply(node, 1);
        assert!(links(node) == before.0, "the links are not as they were");
        assert_eq!(sorted(node), before.1);
        fs::remove_file(node.path("/etc/pki/ca-trust/extracted/filler")).unwrap();
        apply(node, 0);
        assert_right(node, &[&ca]);
        assert!(by_directory(node, &ca));
        drop(full);
    }
}

/// Without the tool nothing is written and the report says what to install; with it the node converges.
#[test]
fn a_missing_tool() {
    for kind in [DEBIAN, Kind::Rhelish] {
        let node = Node::new(kind, "");
        let ca = Ca::new("Corp");
        node.set_source(&[&ca]);
        let path = node.path(tool_path(&node));
        fs::rename(&path, node.path("/tmp/tool")).unwrap();
        let before = node.tree(&["/etc", "/usr/local"]);
        let report = apply(&node, 1);
        assert_problem(&report, "unsupported-store", &["ca-certificates"]);
        assert!(node.tree(&["/etc", "/usr/local"]) == before);
        node.nodetrust(&["stores"]).expect(2);
        node.nodetrust(&["status"]).expect(2);
        fs::rename(node.path("/tmp/tool"), path).unwrap();
        apply(&node, 0);
        assert_right(&node, &[&ca]);
    }
}

/// Debian's tool makes the bundle without OpenSSL's program, and no links.
#[test]
fn without_openssl_debian_names_it() {
    for kind in [Kind::Bookworm, Kind::Trixie] {
        let node = Node::new(kind, "");
        let ca = Ca::new("Corp");
        node.set_source(&[&ca]);
        node.run(&["mv", "/usr/bin/openssl", "/srv/openssl"]).expect(0);
        let report = apply(&node, 1);
        assert_problem(
            &report,
            "not-linked",
            &["Corp", "openssl, which makes the links", "install the package openssl"],
        );
        assert!(node.trusts(&ca));
        node.run(&["mv", "/srv/openssl", "/usr/bin/openssl"]).expect(0);
        apply(&node, 0);
        assert_right(&node, &[&ca]);
    }
}

/// Debian's tool reads names line by line.
#[test]
fn a_file_with_a_line_end_in_its_name_is_named() {
    for kind in [Kind::Bookworm, Kind::Trixie] {
        let node = Node::new(kind, "");
        let (ca, theirs) = (Ca::new("Corp"), Ca::new("Theirs"));
        node.set_source(&[&ca]);
        let before = bundle_bytes(&node);
        let path = put(&node, "site/my\ncorp.crt", theirs.pem());
        assert_ne!(tool(&node, &[]).code, 0, "the tool alone fails");
        let report = apply(&node, 1);
        assert_problem(&report, "extract", &["/usr/local/share/ca-certificates/site/my\\ncorp.crt", "another name"]);
        assert!(node.nodetrust(&["apply"]).expect(1).out.contains("my\\ncorp.crt"));
        assert!(bundle_bytes(&node) == before);
        fs::rename(node.path(&path), node.path("/usr/local/share/ca-certificates/site/my corp.crt")).unwrap();
        apply(&node, 0);
        assert!(node.trusts(&theirs));
        assert_right(&node, &[&ca]);
    }
}

/// A missing anchor directory is made, and goes again with what is ours.
#[test]
fn a_missing_anchor_directory() {
    for kind in [DEBIAN, Kind::Rhelish] {
        let node = Node::new(kind, "");
        let ca = Ca::new("Corp");
        node.set_source(&[&ca]);
        fs::remove_dir_all(node.path(kind.anchors_dir())).unwrap();
        apply(&node, 0);
        assert_right(&node, &[&ca]);
        let mode = fs::metadata(node.path(kind.anchors_dir())).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o755);
        node.nodetrust(&["uninstall"]).expect(0);
        assert!(!node.path(kind.anchors_dir()).exists(), "it was made by us");
    }
}

/// None of these processes runs any more; one that waits for its parent's attention does not.
fn assert_gone(pids: &str) {
    for pid in pids.lines() {
        wait_for(&format!("the end of process {pid}"), Duration::from_secs(60), || {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            (stat.is_empty() || stat.contains(") Z ")).then_some(())
        });
    }
}

/// A tool that never ends is stopped with its children; that is reported, and no process or file of it is left.
#[test]
fn simulated_hanging_tool() {
    for kind in [DEBIAN, Kind::Rhelish] {
        let node = Node::new(kind, "store: {extractTimeout: 5s}");
        let ca = Ca::new("Corp");
        node.set_source(&[&ca]);
        let before = bundle_bytes(&node);
        replace_tool(&node, "echo $$ >>/run/pids\nsleep 1000 &\necho $! >>/run/pids\nwait");
        let report = apply(&node, 1);
        assert_problem(&report, "extract", &[tool_path(&node), "5 s", "store.extractTimeout"]);
        let pids = fs::read_to_string(node.path("/run/pids")).unwrap();
        assert!(pids.lines().count() >= 2);
        assert_gone(&pids);
        assert_eq!(bundle_bytes(&node), before);
        assert_no_leftovers(&node);
        restore_tool(&node);
        // The real tool may need longer on a busy machine.
        node.configure("");
        apply(&node, 0);
        assert_right(&node, &[&ca]);
    }
}

/// A tool that does not heed SIGTERM either is killed.
#[test]
fn simulated_tool_that_ignores_sigterm() {
    let node = Node::new(DEBIAN, "store: {extractTimeout: 5s}");
    node.set_source(&[&Ca::new("Corp")]);
    replace_tool(&node, "trap '' TERM\necho $$ >>/run/pids\nwhile :; do sleep 1; done");
    let report = apply(&node, 1);
    assert_problem(&report, "extract", &[tool_path(&node)]);
    assert_gone(&fs::read_to_string(node.path("/run/pids")).unwrap());
    assert_no_leftovers(&node);
}

/// A tool that prints 10 MB on both outputs neither blocks nor fills the memory.
#[test]
fn simulated_chatty_tool() {
    let node = Node::new(DEBIAN, "");
    let ca = Ca::new("Corp");
    node.set_source(&[&ca]);
    let noise = "head -c 10000000 /dev/zero | tr '\\0' x";
    replace_tool(&node, &format!("{noise}; {noise} >&2\nexec {0}.real \"$@\"", tool_path(&node)));
    let done = node.nodetrust(&["apply"]).expect(0);
    assert!(done.out.len() + done.err.len() < 100_000);
    assert_right(&node, &[&ca]);

    // When it fails, the report has the end of its output.
    let node = Node::new(DEBIAN, "");
    node.set_source(&[&ca]);
    replace_tool(&node, &format!("{noise}; echo; echo the last words; exit 3"));
    let done = node.nodetrust(&["apply", "-o", "json"]).expect(1);
    assert!(done.out.len() < 100_000);
    assert_problem(&done.json(), "extract", &["exit code 3", "the last words"]);
}

fn write_hook(node: &Node, name: &str, script: &str) {
    let path = format!("/etc/ca-certificates/update.d/{name}");
    node.write(&path, format!("#!/bin/sh\n{script}\n"));
    fs::set_permissions(node.path(&path), fs::Permissions::from_mode(0o755)).unwrap();
}

/// A failing hook prints `E:` and does not change the tool's exit code. nodetrust reports it and tries again, and the hook
/// is then told of every change that it has missed.
#[test]
fn a_failing_hook() {
    let record = "cat >>/run/heard";
    let alone = Node::new(DEBIAN, "");
    write_hook(&alone, "fails", "exit 2");
    put(&alone, "corp.crt", Ca::new("Corp").pem());
    let done = tool(&alone, &[]).expect(0);
    assert!(done.out.contains("exited with code 2"), "{}", done.out);

    let node = Node::new(DEBIAN, "rotation: {removalGrace: 0s}");
    let ca = Ca::new("Corp");
    write_hook(&node, "fails", "cat >/dev/null; echo no disk for me; exit 2");
    write_hook(&node, "works", record);
    node.set_source(&[&ca]);
    let done = node.nodetrust(&["apply", "-o", "json"]);
    assert!(node.clients_trust(&ca), "trust does not depend on a hook");
    let report = done.json();
    assert_eq!(report["converged"], true);
    assert_problem(&report, "hook", &["update.d/fails", "exit code 2", "no disk for me"]);
    node.nodetrust(&["plan"]).expect(2);

    write_hook(&node, "fails", record);
    fs::remove_file(node.path("/run/heard")).unwrap();
    apply(&node, 0);
    assert_right(&node, &[&ca]);
    let line = format!("+/etc/ssl/certs/nodetrust-{}.pem\n", ca.fp16());
    let heard = fs::read_to_string(node.path("/run/heard")).unwrap();
    assert!(heard.contains(&line), "the cured hook must hear what it has missed: {heard}");
}

/// Hooks hear what came and what went, when the bundle is in place, in the environment that the tool would give them.
#[test]
fn hooks_hear_of_additions_and_removals() {
    let node = Node::new(DEBIAN, "rotation: {removalGrace: 0s}");
    let (old, new) = (Ca::new("Corp 2021"), Ca::new("Corp 2026"));
    let script = "cat >>/run/heard; env >/run/env; cp /etc/ssl/certs/ca-certificates.crt /run/bundle";
    write_hook(&node, "records", script);
    write_hook(&node, "not.a.hook", "touch /run/wrong"); // run-parts does not run such names
    let lines = || fs::read_to_string(node.path("/run/heard")).unwrap();
    let of = |sign: char, ca: &Ca| format!("{sign}/etc/ssl/certs/nodetrust-{}.pem", ca.fp16());

    node.set_source(&[&old]);
    apply(&node, 0);
    assert_eq!(lines().trim(), of('+', &old));
    assert_eq!(fs::read(node.path("/run/bundle")).unwrap(), bundle_bytes(&node), "the bundle was in place already");

    fs::remove_file(node.path("/run/heard")).unwrap();
    node.set_source(&[&new]);
    apply(&node, 0);
    let mut heard: Vec<String> = lines().lines().map(str::to_owned).collect();
    heard.sort();
    assert_eq!(heard, [of('+', &new), of('-', &old)]);
    assert_eq!(fs::read(node.path("/run/bundle")).unwrap(), bundle_bytes(&node));

    fs::remove_file(node.path("/run/heard")).unwrap();
    apply(&node, 0);
    assert!(!node.path("/run/heard").exists(), "nothing has changed: hooks are left alone");
    assert!(!node.path("/run/wrong").exists());
}

/// The tool and its hooks get a small environment: nothing of the agent's reaches them.
#[test]
fn the_environment_is_scrubbed() {
    for kind in [DEBIAN, Kind::Rhelish] {
        let node = Node::new(kind, "");
        node.set_source(&[&Ca::new("Corp")]);
        replace_tool(&node, &format!("env >/run/env\nexec {}.real \"$@\"", tool_path(&node)));
        let mut command = node.command(&["apply"]);
        for name in ["TRANSACTIONAL_UPDATE", "SSL_CERT_FILE", "SSL_CERT_DIR", "OPENSSL_CONF", "P11_KIT_NO_USER_CONFIG"]
        {
            command.env(name, "/nowhere");
        }
        assert_eq!(command.env("SECRET_TOKEN", "hush").output().unwrap().status.code(), Some(0));
        let text = fs::read_to_string(node.path("/run/env")).unwrap();
        let mut names: Vec<&str> = text.lines().filter_map(|line| line.split_once('=')).map(|pair| pair.0).collect();
        names.retain(|name| !matches!(*name, "PWD" | "_" | "SHLVL")); // set by the shell itself
        names.sort_unstable();
        assert_eq!(names, ["HOME", "LC_ALL", "PATH", "TMPDIR"], "{text}");
    }
}

/// A full disk at any of these places is reported, trust stays as before, and with free space the node converges.
#[test]
fn a_full_disk() {
    let cases = [
        (DEBIAN, "/usr/local/share/ca-certificates", "64k", 0),
        (DEBIAN, "/var/lib/nodetrust", "64k", 0),
        (DEBIAN, "/etc/ssl/certs", "4m", 100_000), // the tool begins its bundle and cannot finish it
        (Kind::Rhelish, "/var/lib/nodetrust", "64k", 0),
        (Kind::Rhelish, "/etc/pki/ca-trust", "4m", 100_000),
    ];
    for (kind, dir, size, leave) in cases {
        let node = Node::new(kind, "");
        let (first, second) = (Ca::new("First"), Ca::new("Second"));
        node.set_source(&[&first]);
        apply(&node, 0);
        let _full = Mounted::tmpfs(&node, dir, size);
        let filler = fill(&node, dir, leave);
        let before = bundle_bytes(&node);
        node.set_source(&[&first, &second]);
        let report = apply(&node, 1);
        assert!(!report["problems"].as_array().unwrap().is_empty(), "{dir}");
        assert!(report["problems"].to_string().contains("No space left"), "{dir}: {:#}", report["problems"]);
        assert_eq!(bundle_bytes(&node), before, "{dir}: trust is as it was");
        assert!(node.clients_trust(&first));
        fs::remove_file(node.path(&filler)).unwrap();
        apply(&node, 0);
        assert_right(&node, &[&first, &second]);
    }
}

/// A read-only file system at any of these places.
#[test]
fn a_read_only_file_system() {
    let cases = [
        (DEBIAN, "/usr/local/share/ca-certificates"),
        (DEBIAN, "/etc/ssl/certs"),
        (DEBIAN, "/var/lib"),
        (Kind::Rhelish, "/etc/pki/ca-trust"),
        (Kind::Rhelish, "/etc/pki/ca-trust/extracted"),
    ];
    for (kind, dir) in cases {
        let node = Node::new(kind, "");
        let ca = Ca::new("Corp");
        node.set_source(&[&ca]);
        let before = bundle_bytes(&node);
        let mounted = Mounted::read_only(&node, dir);
        let report = apply(&node, 1);
        let problems = report["problems"].to_string();
        assert!(problems.to_lowercase().contains("read-only"), "{dir}: {:#}", report["problems"]);
        assert_eq!(bundle_bytes(&node), before, "{dir}");
        node.nodetrust(&["status"]).expect(2);
        drop(mounted);
        apply(&node, 0);
        assert_right(&node, &[&ca]);
    }
}

/// Absolute links on the host lead to places on the host, not to ours.
#[test]
fn absolute_links_stay_on_the_host() {
    let node = Node::new(DEBIAN, "");
    let elsewhere = format!("/srv/nodetrust-test-{}", std::process::id());
    assert!(!Path::new(&elsewhere).exists());
    node.run(&["mkdir", &elsewhere]).expect(0);
    for (dir, name) in [("/etc/ssl/certs", "certs"), (node.kind.anchors_dir(), "anchors")] {
        node.run(&["mv", dir, &format!("{elsewhere}/{name}")]).expect(0);
        symlink(format!("{elsewhere}/{name}"), node.path(dir)).unwrap();
    }
    let ca = Ca::new("Corp");
    node.set_source(&[&ca]);
    apply(&node, 0);
    let there = node.path(&format!("{elsewhere}/anchors/nodetrust-{}.crt", ca.fp16()));
    assert_eq!(fs::read_to_string(there).unwrap(), ca.pem());
    for place in [&["-CAfile", node.kind.bundle(), "-no-CApath"], &["-CApath", "/etc/ssl/certs", "-no-CAfile"]] {
        assert!(verify(&node, &ca, place));
    }
    assert!(!Path::new(&elsewhere).exists(), "the machine itself must not be touched");
    node.nodetrust(&["plan"]).expect(0);
    node.nodetrust(&["uninstall"]).expect(0);
    assert!(!by_file(&node, &ca));
}
