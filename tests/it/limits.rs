//! What a node can run out of: threads, processes, watches, open files, disk; and where the output goes.

use std::{
    fs::{self, File},
    io::Read,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    unistd::Pid,
};
use serde_json::Value;

use crate::{
    agent::{agent_without, fast},
    support::{
        must,
        node::{Done, Kind, Node},
        pki::Ca,
        process::is_alive,
        wait_for,
    },
};

const LIMIT: Duration = Duration::from_secs(240);

/// A control group that limits how many processes and threads are in it.
struct Cgroup(PathBuf);

impl Cgroup {
    #[track_caller]
    fn new(name: &str) -> Self {
        let name = format!("nodetrust-test-{}-{name}", std::process::id());
        let (first, second) = (Path::new("/sys/fs/cgroup/pids"), Path::new("/sys/fs/cgroup"));
        if first.is_dir() {
            let group = first.join(name);
            must("a cgroup with the controller `pids`", fs::create_dir(&group));
            return Self(group);
        }
        must("the controller `pids`", fs::write(second.join("cgroup.subtree_control"), "+pids"));
        let group = second.join(name);
        must("a cgroup", fs::create_dir(&group));
        Self(group)
    }

    fn limit(&self, most: &str) {
        must("pids.max", fs::write(self.0.join("pids.max"), most));
    }

    /// The command line prefix that runs a program in it.
    fn entering(&self) -> [String; 4] {
        let enter = format!("echo $$ >{}/cgroup.procs && exec \"$@\"", self.0.display());
        ["sh".to_owned(), "-c".to_owned(), enter, "sh".to_owned()]
    }

    /// Runs our program in it.
    fn run(&self, node: &Node, args: &[&str]) -> Done {
        let ours = node.command(args);
        let words = self.entering();
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).arg(ours.get_program()).args(ours.get_args()).stdin(Stdio::null());
        command.envs(ours.get_envs().filter_map(|(name, value)| Some((name, value?))));
        Done::new(must("nodetrust", command.output()))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

fn said(report: &Value) -> String {
    let problems = report["problems"].as_array().unwrap();
    problems.iter().map(|problem| format!("{} → {}\n", problem["text"], problem["next"])).collect()
}

/// With any limit on threads the agent survives, loses nothing, and reports what it could not start.
#[test]
fn a_cycle_without_threads_or_processes_ends_and_says_so() {
    let group = Cgroup::new("apply");
    for most in ["1", "2", "3", "4", "6"] {
        let node = Node::new(Kind::Trixie, "");
        let ca = Ca::new("Corp Root");
        node.set_source(&[&ca]);
        let foreign = node.bundle();
        group.limit(most);
        let done = group.run(&node, &["apply", "-o", "json"]);
        assert!(matches!(done.code, 0 | 1), "pids.max {most}: {done:?}");
        let told = said(&done.json());
        if most == "1" {
            assert_eq!(done.code, 1, "the tool cannot run: {told}");
            assert!(told.contains("failed to start `/usr/sbin/update-ca-certificates`"), "{told}");
            assert!(told.contains("pids.max"), "{told}");
        }
        let status = group.run(&node, &["status", "-o", "json"]);
        assert!(matches!(status.code, 0 | 2), "{status:?}");
        group.limit("max");
        group.run(&node, &["apply"]).expect(0);
        assert!(node.trusts(&ca));
        assert!(foreign.iter().all(|print| node.bundle().contains(print)), "pids.max {most}");
    }
}

/// More anchors than one thread would decode, and a probe: the only thread does the work of all.
#[test]
fn an_agent_without_threads_goes_on() {
    let node = Node::new(Kind::Trixie, "");
    let (one, two) = (Ca::new("Corp Root"), Ca::new("Corp Root 2026"));
    node.set_source(&[&one]);
    let group = Cgroup::new("run");
    group.limit("1");
    let words = group.entering();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let probes = "probes: [{target: \"127.0.0.1:9\", interval: 10s}]\nresync: 2s\n";
    let mut agent = node.agent_under(&words, &format!("{}{probes}", fast("0s")));
    let status = agent.wait_status("a report", LIMIT, |status| status["problems"].to_string().contains("pids.max"));
    assert_eq!(status["converged"], false, "{status:#}");
    agent.wait_status("a probe", LIMIT, |status| status["probes"].as_array().is_some_and(|probes| !probes.is_empty()));
    assert_eq!(agent.get("/livez").unwrap().0, 200);
    group.limit("max");
    agent.wait_converged(&[&one], LIMIT);
    group.limit("1");
    node.set_source(&[&one, &two]);
    agent.wait_status("the problem", LIMIT, |status| status["problems"].to_string().contains("pids.max"));
    group.limit("max");
    agent.wait_converged(&[&one, &two], LIMIT);
    agent.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(agent.wait(), 0);
}

fn script(node: &Node, path: &str, text: &str) {
    node.write(path, format!("#!/bin/sh\n{text}\n"));
    fs::set_permissions(node.path(path), fs::Permissions::from_mode(0o755)).unwrap();
}

#[track_caller]
fn all_end(node: &Node, least: usize) {
    let pids = fs::read_to_string(node.path("/run/pids")).unwrap();
    assert!(pids.lines().count() >= least, "{pids}");
    for pid in pids.lines().map(|pid| Pid::from_raw(pid.parse().unwrap())) {
        wait_for(&format!("the end of {pid}"), LIMIT, || (!is_alive(pid)).then_some(()));
    }
}

/// A child that has left the session, has lost its parents and ignores SIGTERM.
const AWAY: &str = "setsid sh -c 'trap \"\" TERM; (echo $(exec sh -c \"echo \\$PPID\") >>/run/pids; while :; do sleep 1; done) & \
                    echo $! >>/run/pids' </dev/null >/dev/null 2>&1 &";

/// Processes that the tool or hooks start do not outlive the time-out, whatever session they are in.
#[test]
fn simulated_tool_whose_child_calls_setsid_is_ended_with_it() {
    let node = Node::new(Kind::Trixie, "store: {extractTimeout: 6s}");
    let ca = Ca::new("Corp");
    node.set_source(&[&ca]);
    let tool = "/usr/sbin/update-ca-certificates";
    let real = fs::read(node.path(tool)).unwrap();
    script(&node, tool, &format!("{AWAY}\nsleep 1\necho $$ >>/run/pids\nsleep 1000"));
    node.nodetrust(&["apply"]).expect(1);
    all_end(&node, 2);

    // A failed tool is not run again while its children still run.
    fs::remove_file(node.path("/run/pids")).unwrap();
    script(&node, tool, &format!("{AWAY}\nsleep 1\nexit 3"));
    node.nodetrust(&["apply"]).expect(1);
    all_end(&node, 1);

    fs::write(node.path(tool), real).unwrap();
    fs::remove_file(node.path("/run/pids")).unwrap();
    // The tool itself needs this long on a busy machine.
    node.configure("store: {extractTimeout: 20s}");
    node.nodetrust(&["apply"]).expect(0);
    script(&node, "/etc/ca-certificates/update.d/hangs", &format!("{AWAY}\nsleep 1\nsleep 1000"));
    node.set_source(&[&ca, &Ca::new("Another")]);
    node.nodetrust(&["apply"]);
    all_end(&node, 1);
}

/// A daemon that a successful hook leaves on purpose lives.
#[test]
fn what_a_successful_hook_leaves_lives() {
    let node = Node::new(Kind::Trixie, "");
    script(
        &node,
        "/etc/ca-certificates/update.d/leaves",
        "cat >/dev/null; setsid sh -c 'echo $$ >/run/pids; exec sleep 1000' </dev/null >/dev/null 2>&1 &",
    );
    node.set_source(&[&Ca::new("Corp")]);
    node.nodetrust(&["apply"]).expect(0);
    let pid = wait_for("its number", LIMIT, || fs::read_to_string(node.path("/run/pids")).ok()?.trim().parse().ok());
    let pid = Pid::from_raw(pid);
    assert!(is_alive(pid));
    crate::support::process::kill_9(pid);
}

/// An exit code of success promises that the result was printed.
#[test]
fn output_that_cannot_be_written_is_a_failure_and_a_closed_pipe_is_none() {
    let node = Node::new(Kind::Trixie, "");
    let ca = Ca::new("Corp");
    node.set_source(&[&ca]);
    node.nodetrust(&["apply"]).expect(0);
    let file = node.source.join("ca.crt");
    let file = file.to_str().unwrap();
    let commands: [&[&str]; 11] = [
        &["status"],
        &["status", "-o", "json"],
        &["plan"],
        &["plan", "-o", "yaml"],
        &["inspect", file],
        &["stores"],
        &["probe", "127.0.0.1:9"],
        &["version"],
        &["--help"],
        &["--version"],
        &["apply"],
    ];
    for command in commands {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let output = node.command(command).stdout(full).stderr(Stdio::piped()).output().unwrap();
        let done = Done::new(output).expect(1);
        assert!(done.err.contains("failed to write to standard output: No space left on device"), "{done:?}");

        let usual = node.nodetrust(command).code;
        let mut child = node.command(command).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let done = Done::new(child.wait_with_output().unwrap());
        assert_eq!((done.code, done.err.as_str()), (usual, ""), "{command:?}");
    }
    // Nobody reads the output, so the exit code reports the failure.
    let full = || File::options().write(true).open("/dev/full").unwrap();
    let status = node.command(&["nonsense"]).stdout(full()).stderr(full()).status().unwrap();
    assert_eq!(status.code(), Some(64));
    let status = node.command(&["uninstall"]).stdout(full()).stderr(full()).status().unwrap();
    assert_eq!(status.code(), Some(1));
    assert!(!node.trusts(&ca), "it was done all the same");
}

/// Every inotify watch may be taken by others.
#[test]
fn without_inotify_watches_it_polls() {
    let node = Node::new(Kind::Trixie, "");
    let (one, two) = (Ca::new("Corp Root"), Ca::new("Inspection CA"));
    node.set_source(&[&one]);
    let agent = agent_without(&node, "max_inotify_watches", "1h");
    agent.wait_converged(&[&one], LIMIT);
    let log = agent.log_text();
    assert!(log.contains("cannot watch a directory") && log.contains("fs.inotify.max_user_watches"), "{log}");
    node.set_source(&[&one, &two]);
    agent.wait_converged(&[&one, &two], LIMIT);
    assert_eq!(agent.metric("nodetrust_reconciles_total{trigger=\"source\",outcome=\"changed\"}"), Some(0.0));
    let log = agent.log_text();
    let told = log.lines().filter(|line| line.contains("cannot watch a directory")).count();
    let paths: std::collections::BTreeSet<&str> = log
        .lines()
        .filter(|line| line.contains("cannot watch a directory"))
        .filter_map(|line| line.split("\"path\":").nth(1))
        .collect();
    assert_eq!(told, paths.len(), "once for each: {log}");
}

/// inotify says nothing of a mount over a watched directory, be it the source or the store's.
#[test]
fn a_source_that_is_mounted_over_is_seen_and_so_is_its_end() {
    let node = Node::new(Kind::Trixie, "");
    let (below, above) = (Ca::new("Below"), Ca::new("Above"));
    node.set_source(&[&below]);
    let agent = node.agent(&format!("{}resync: 1h\n", fast("0s")));
    agent.wait_converged(&[&below], LIMIT);
    let tmpfs = |at: &Path| {
        must("a tmpfs", mount(Some("tmpfs"), at, Some("tmpfs"), MsFlags::empty(), Some("mode=0755")));
    };
    tmpfs(&node.source);
    fs::write(node.source.join("ca.crt"), above.pem()).unwrap();
    agent.wait_converged(&[&above], LIMIT);
    umount2(&node.source, MntFlags::MNT_DETACH).unwrap();
    agent.wait_converged(&[&below], LIMIT);

    // A bind mount of a directory that already has files causes no other event.
    let other = node.beside("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("ca.crt"), above.pem()).unwrap();
    let none: Option<&str> = None;
    mount(Some(&other), &node.source, none, MsFlags::MS_BIND, none).unwrap();
    agent.wait_converged(&[&above], LIMIT);
    umount2(&node.source, MntFlags::MNT_DETACH).unwrap();
    agent.wait_converged(&[&below], LIMIT);

    let anchors = node.path(node.kind.anchors_dir());
    tmpfs(&anchors);
    wait_for("our file in what was mounted", LIMIT, || node.anchor_file(&below).exists().then_some(()));
    agent.wait_converged(&[&below], LIMIT);
    umount2(&anchors, MntFlags::MNT_DETACH).unwrap();
}

/// With too few open files the message names the limit wherever it is met, and no file counts as absent.
#[test]
fn too_few_open_files_are_told() {
    let node = Node::new(Kind::Trixie, "");
    let (one, two) = (Ca::new("Corp Root"), Ca::new("Corp Root 2026"));
    node.set_source(&[&one]);
    node.nodetrust(&["apply"]).expect(0);
    node.set_source(&[&one, &two]);
    let mut told = 0;
    for most in 4..=24 {
        let ours = node.command(&["apply", "-o", "json"]);
        let mut command = Command::new("prlimit");
        command.arg(format!("--nofile={most}")).arg(ours.get_program()).args(ours.get_args());
        let done = Done::new(command.env("NODE_NAME", "node-under-test").output().unwrap());
        assert!(matches!(done.code, 0 | 1 | 2 | 64), "{most}: {done:?}");
        if done.code != 0 {
            let all = format!("{}{}", done.out, done.err);
            assert!(all.contains("os error 24") || all.contains("Too many open files"), "{most}: {done:?}");
            told += 1;
        }
        assert!(node.trusts(&one), "{most}");
    }
    assert!(told > 0);
    node.nodetrust(&["apply"]).expect(0);
    assert!(node.trusts(&two));
}

/// The error for a path that is no host root names the path and the way out.
#[test]
fn a_wrong_host_root_is_told() {
    let node = Node::new(Kind::Trixie, "");
    let (empty, file, nothing) = (node.beside("empty"), node.beside("file"), node.beside("nothing"));
    fs::create_dir(&empty).unwrap();
    fs::write(&file, "").unwrap();
    for root in [&empty, &file, &nothing] {
        for command in ["status", "plan", "apply", "uninstall", "stores", "run"] {
            if command == "run" && root == &empty {
                continue; // the agent waits for a node to appear there, and its report says the same
            }
            let mut ours = Command::new(crate::support::program());
            ours.arg("--config").arg(&node.config).arg("--host-root").arg(root).arg(command).arg("-o").arg("json");
            let done = Done::new(ours.output().unwrap());
            assert!(matches!(done.code, 1 | 2), "{command}: {done:?}");
            let all = format!("{}{}", done.out, done.err);
            assert!(all.contains(root.to_str().unwrap()) && all.contains("--host-root"), "{command}: {done:?}");
        }
    }
    assert_eq!(fs::read_dir(&empty).unwrap().count(), 0, "nothing was made there");
}

/// The ledger's file system is full: nothing is changed, and the message says where space is needed.
#[test]
fn a_full_disk_is_named_with_the_way_out() {
    let node = Node::new(Kind::Trixie, "");
    let ca = Ca::new("Corp Root");
    node.set_source(&[&ca]);
    let dir = node.path("/var/lib/nodetrust");
    fs::create_dir(&dir).unwrap();
    must("a small tmpfs", mount(Some("tmpfs"), &dir, Some("tmpfs"), MsFlags::empty(), Some("size=16k,mode=0755")));
    let mut zeros = vec![0; 16 << 10];
    File::open("/dev/zero").unwrap().read_exact(&mut zeros).unwrap();
    let _ = fs::write(dir.join("filler"), &zeros);
    let before = node.tree(&["/etc", "/usr/local"]);
    let done = node.nodetrust(&["apply", "-o", "json"]).expect(1);
    let told = said(&done.json());
    assert!(told.contains("/var/lib/nodetrust/ledger.json") && told.contains("free space"), "{told}");
    assert!(node.tree(&["/etc", "/usr/local"]) == before);
    fs::remove_file(dir.join("filler")).unwrap();
    node.nodetrust(&["apply"]).expect(0);
    umount2(&dir, MntFlags::MNT_DETACH).unwrap();
}
