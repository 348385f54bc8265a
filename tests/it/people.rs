//! What a person meets on the command line: help, completion, manual pages, and answers where something is missing.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    process::{Command, Stdio},
};

use serde_json::json;
use tempfile::TempDir;

use crate::{
    docs::rows,
    support::{
        must,
        node::{Done, Kind, Node},
        pki::Ca,
        program,
    },
};

fn run(args: &[&str]) -> Done {
    Done::new(must("nodetrust", Command::new(program()).args(args).env_remove("NODETRUST_CONFIG").output()))
}

/// A text without its line breaks.
fn closed_up(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// One table says them: docs/configuration.md.
#[test]
fn the_help_of_every_command_names_its_exit_codes() {
    for row in rows("configuration.md", "### Exit codes") {
        let command = row[0].trim_matches('`');
        let help = run(&[command, "--help"]).expect(0).out;
        let codes =
            help.split_once("Exit codes:").unwrap_or_else(|| panic!("{command} names no exit codes:\n{help}")).1;
        let documented = row[1..].iter().enumerate().filter(|(_, meaning)| *meaning != "–");
        let expected: String = documented.map(|(code, meaning)| format!("{code} {meaning} ")).collect();
        let codes = closed_up(codes);
        assert!(codes.starts_with(&format!("{expected}64 wrong usage")), "{command}: {codes}\ndocumented: {expected}");
        assert!(help.lines().all(|line| line.chars().count() <= 100), "{command}:\n{help}");
    }
    assert!(run(&["man", "--help"]).expect(0).out.contains("Exit codes:"));
}

/// bash is asked as it asks itself when somebody presses the tab key.
#[test]
fn a_shell_completes_commands_and_options() {
    let script = run(&["completion", "bash"]).expect(0).out;
    let asked = "source /dev/stdin; COMP_WORDS=(nodetrust \"$1\"); COMP_CWORD=1; _nodetrust nodetrust \"$1\" nodetrust; \
                 echo \"${COMPREPLY[@]}\"";
    for (typed, completed) in [("pla", "plan"), ("top", "topology"), ("--host", "--host-root"), ("comp", "completion")]
    {
        let mut bash = Command::new("bash");
        bash.args(["-c", asked, "bash", typed]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = must("bash", bash.spawn());
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), script.as_bytes()).unwrap();
        let done = Done::new(must("bash", child.wait_with_output())).expect(0);
        assert_eq!(done.out.trim(), completed, "{typed}: {}", done.err);
    }
    for (shell, first) in [("zsh", "#compdef nodetrust"), ("fish", "")] {
        let script = run(&["completion", shell]).expect(0).out;
        assert!(script.starts_with(first), "{shell}");
        assert!(["plan", "topology", "uninstall"].iter().all(|command| script.contains(command)), "{shell}");
    }
    assert!(run(&["completion", "csh"]).expect(64).err.contains("bash, zsh, fish"));
}

#[test]
fn the_manual_has_a_page_for_every_command() {
    let dir = TempDir::new().unwrap();
    let into = dir.path().join("man1");
    run(&["man", into.to_str().unwrap()]).expect(0);
    let page = |name: &str| must(name, fs::read_to_string(into.join(name)));
    for row in rows("configuration.md", "### Exit codes") {
        let command = row[0].trim_matches('`');
        let text = page(&format!("nodetrust-{command}.1"));
        assert!(
            text.contains(&format!(".TH nodetrust-{command} 1")) && text.contains("Exit codes"),
            "{command}:\n{text}"
        );
    }
    assert_eq!(run(&["man"]).expect(0).out, page("nodetrust.1"));
    assert!(page("nodetrust.1").contains(".TH nodetrust 1"));
    let done = run(&["man", "/proc/version/man"]).expect(1);
    assert!(done.err.contains("/proc/version/man"), "{}", done.err);
}

/// A home with the plugin and a kubectl that is simulated: it notes its arguments, prints pods, and exits as the command in a pod.
fn simulated_kubectl(pods: &serde_json::Value) -> TempDir {
    let home = TempDir::new().unwrap();
    fs::write(home.path().join("pods.json"), json!({"kind": "List", "items": pods}).to_string()).unwrap();
    let at = home.path().display();
    let script = format!(
        "#!/bin/sh\necho \"$*\" >>{at}/asked\ncase \" $* \" in\n*' get pods '*) cat {at}/pods.json;;\n\
         *' exec '*) echo 'node-a17   NOT TRUSTED   because'; exit 2;;\n*) exit 9;;\nesac\n"
    );
    fs::write(home.path().join("kubectl"), script).unwrap();
    fs::set_permissions(home.path().join("kubectl"), fs::Permissions::from_mode(0o755)).unwrap();
    symlink(program(), home.path().join("kubectl-nodetrust")).unwrap();
    home
}

fn plugin(home: &TempDir, args: &[&str]) -> Done {
    let mut command = Command::new(home.path().join("kubectl-nodetrust"));
    command.env_clear().env("PATH", format!("{}:/usr/bin:/bin", home.path().display())).env("HOME", home.path());
    Done::new(must("the plugin", command.args(args).stdin(Stdio::null()).output()))
}

#[test]
fn a_nodes_status_is_asked_of_its_agent_by_a_simulated_kubectl() {
    let pod = |name: &str, owner: &str, container: &str, phase: &str| {
        json!({"metadata": {"name": name, "ownerReferences": [{"kind": owner}]}, "spec": {"containers": [{"name": container}]},
            "status": {"phase": phase}})
    };
    let pods = json!([
        pod("nodetrust-approver-1", "Job", "nodetrust", "Succeeded"),
        pod("other", "DaemonSet", "other", "Running"),
        pod("edge-nodetrust-old", "DaemonSet", "nodetrust", "Failed"),
        pod("edge-nodetrust-x7k2p", "DaemonSet", "nodetrust", "Running"),
    ]);
    let home = simulated_kubectl(&pods);
    let done = plugin(&home, &["--context", "prod", "-n", "trust", "status", "node-a17.corp", "-o", "json"]).expect(2);
    assert!(done.out.starts_with("node-a17   NOT TRUSTED"), "{done:?}");
    let asked = fs::read_to_string(home.path().join("asked")).unwrap();
    let asked: Vec<&str> = asked.lines().collect();
    assert_eq!(
        asked,
        [
            "--namespace trust --context prod get pods -o json --request-timeout=60s --field-selector spec.nodeName=node-a17.corp",
            "--namespace trust --context prod exec edge-nodetrust-x7k2p -c nodetrust -- nodetrust status -o json",
        ]
    );
    // no agent, or none that can be asked
    let none = simulated_kubectl(&json!([pod("other", "DaemonSet", "other", "Running")]));
    let done = plugin(&none, &["status", "node-b"]).expect(1);
    assert!(done.err.contains("node node-b has no agent in the namespace nodetrust"), "{}", done.err);
    let pending = simulated_kubectl(&json!([pod("nodetrust-1", "DaemonSet", "nodetrust", "Pending")]));
    let done = plugin(&pending, &["status", "node-b"]).expect(1);
    assert!(done.err.contains("nodetrust-1") && done.err.contains("Pending") && done.err.contains("describe pod"));
    // what is no name of a Node cannot become an option or a second selector
    for name in ["--all-namespaces", "a,metadata.name=b", "Node_1", ""] {
        plugin(&none, &["status", "--", name]).expect(64);
    }
    fs::remove_file(none.path().join("kubectl")).unwrap();
    let mut alone = Command::new(none.path().join("kubectl-nodetrust"));
    let done = Done::new(alone.env_clear().env("PATH", none.path()).args(["status", "node-b"]).output().unwrap());
    assert!(done.code == 1 && done.err.contains("failed to run `kubectl`"), "{done:?}");
}

/// The first question of whoever sets it up: what will it do?
#[test]
fn a_plan_without_its_only_source_says_so_and_fails() {
    let node = Node::new(Kind::Bookworm, "");
    fs::remove_dir_all(&node.source).unwrap();
    let done = node.nodetrust(&["plan"]).expect(1);
    assert!(done.out.starts_with("nothing can be done: no certificate yet from org\n"), "{}", done.out);
    assert!(done.out.contains("SOURCE") && done.out.contains("missing"), "{}", done.out);
    let next = done.out.split_once("NEXT").map(|(_, next)| closed_up(next).replace(' ', ""));
    let path = node.source.display().to_string();
    assert!(next.is_some_and(|next| next.contains(&path)), "where it is looked for: {}", done.out);
    let json = node.nodetrust(&["plan", "-o", "json"]).expect(1);
    assert_eq!(json.json(), json!([]));
    assert!(json.err.contains("source org: missing"), "the list alone would say that all is well: {}", json.err);
    // with a source, actions are pending; then a source that goes is held, and nothing is to be done
    let corp = Ca::new("Corp Root CA");
    fs::create_dir(&node.source).unwrap();
    node.set_source(&[&corp]);
    node.nodetrust(&["plan"]).expect(2);
    node.nodetrust(&["apply"]).expect(0);
    fs::remove_dir_all(&node.source).unwrap();
    assert!(node.nodetrust(&["plan"]).expect(0).out.contains("org is held"));
}

/// Somebody removed the package that has the tool; what the bundle holds is trusted all the same.
#[test]
fn without_its_tool_the_bundle_is_still_read() {
    let (corp, new) = (Ca::new("Corp Root CA"), Ca::new("New Root CA"));
    for (kind, tool) in
        [(Kind::Bookworm, "/usr/sbin/update-ca-certificates"), (Kind::Rhelish, "/usr/bin/update-ca-trust")]
    {
        let node = Node::new(kind, "");
        node.set_source(&[&corp]);
        node.nodetrust(&["apply"]).expect(0);
        let (tool, away) = (node.path(tool), node.path(&format!("{tool}.away")));
        fs::rename(&tool, &away).unwrap();
        node.set_source(&[&corp, &new]);
        let before = node.footprint();
        let report = node.nodetrust(&["status", "-o", "json"]).expect(2).json();
        assert_eq!(report["verdict"], "unsupported-store", "{kind:?}: {report:#}");
        let trusted = |ca: &Ca| {
            let row = report["anchors"].as_array().unwrap().iter().find(|row| row["sha256"] == ca.sha256()).unwrap();
            row["trusted"] == true
        };
        assert!(trusted(&corp) && !trusted(&new), "{kind:?}: {report:#}");
        let screen = closed_up(&node.nodetrust(&["status"]).expect(2).out);
        assert!(screen.contains("1 of 2 anchors in the") && screen.contains("its tool is missing"), "{screen}");
        // the probe reads the bundle too: nobody listens, so that is what it says
        let probe = node.nodetrust(&["probe", "127.0.0.1:1"]).expect(2);
        assert!(probe.out.contains("NOT REACHED") && probe.err.is_empty(), "{kind:?}: {probe:?}");
        node.nodetrust(&["apply"]).expect(1);
        let after = node.footprint();
        let changed: Vec<_> = before.iter().filter(|(path, what)| after.get(*path) != Some(what)).collect();
        assert!(changed.iter().all(|(path, _)| path.contains("nodetrust")), "{kind:?}: nothing is done: {changed:?}");
        fs::rename(&away, &tool).unwrap();
        node.nodetrust(&["apply"]).expect(0);
        assert!(node.trusts(&new), "{kind:?}");
    }
}

/// A mistyped host root is named by every command that looks at a host, with the way out.
#[test]
fn a_host_root_that_is_not_there_is_named() {
    let dir = TempDir::new().unwrap();
    let config = dir.path().join("config.yaml");
    fs::write(&config, "sources: [{name: org, path: /a}]\n").unwrap();
    let config = config.to_str().unwrap();
    for args in [&["plan"][..], &["apply"], &["status"], &["stores"], &["probe", "a.test:1"], &["uninstall"]] {
        let done = run(&[&["--config", config, "--host-root", "/nope"], args].concat());
        assert_eq!(done.code, 1, "{args:?}: {done:?}");
        assert!(done.err.contains("/nope") && done.err.contains("--host-root"), "{args:?}: {}", done.err);
        assert!(!done.err.contains("run as root"), "{args:?}: {}", done.err);
    }
    assert!(Path::new("/nope").symlink_metadata().is_err());
}

/// A field that does nothing is named by every command that reads the configuration.
#[test]
fn a_field_without_effect_is_named_by_every_command() {
    let node = Node::new(Kind::Bookworm, "runtime: {kind: none, unit: edge.service}");
    node.set_source(&[&Ca::new("Corp Root CA")]);
    for args in [&["plan"][..], &["apply"], &["status"], &["stores"], &["probe", "127.0.0.1:1"], &["uninstall"]] {
        let done = node.nodetrust(args);
        assert!(done.err.contains("`runtime.unit` has no effect"), "{args:?}: {done:?}");
    }
}

/// The tool cannot be run in the node's root without this capability, and no look at the tool would tell.
#[test]
fn without_sys_chroot_the_missing_capability_is_named() {
    let node = Node::new(Kind::Bookworm, "");
    node.set_source(&[&Ca::new("Corp Root CA")]);
    let mut apply = node.command_with(&["DAC_OVERRIDE".to_owned()], &["apply", "-o", "json"]);
    let done = Done::new(must("apply", apply.output())).expect(1);
    assert!(done.out.contains("give the container the capability SYS_CHROOT"), "{}", done.out);
    assert!(!done.out.contains("and look at its output"), "{}", done.out);
}

/// `status` looks at what is there: why it is not what it should be, only the cycle knows that has failed.
#[test]
fn status_says_why_the_last_cycle_failed_with_a_simulated_tool() {
    let node = Node::new(Kind::Trixie, "");
    node.set_source(&[&Ca::new("Corp Root")]);
    node.write("/usr/sbin/update-ca-certificates", "#!/bin/sh\necho boom; exit 1\n");
    node.nodetrust(&["apply"]).expect(1);
    let status = node.nodetrust(&["status"]).expect(2).out;
    let cycle = status.split_once("CYCLE").unwrap_or_else(|| panic!("no cycle: {status}")).1;
    assert!(cycle.contains("extract: ") && cycle.contains("boom"), "{status}");
    let noted = node.nodetrust(&["status", "-o", "json"]).json()["cycle"]["problems"].clone();
    assert_eq!(noted[0]["kind"], "extract", "{noted}");
}
