//! The agent on real distribution roots: it converges, stays so, and gives way.

mod drift;

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::{
    node::{Kind, Node, NodeAgent},
    pki::Ca,
    process::{descendants, is_alive},
    wait_for,
};

/// Twice `extractTimeout`, so that a tool that is merely slow shows in the report first; far below `resync`, so that only a hint
/// can be the reason for a cycle.
const LIMIT: Duration = Duration::from_secs(240);

/// Settings of an agent that reacts fast.
pub fn fast(grace: &str) -> String {
    format!("settle: 200ms\nrotation: {{removalGrace: {grace}}}\n")
}

/// An agent of which one of the kernel's limits for a user (`/proc/sys/user`) allows nothing, with this grace.
#[track_caller]
pub fn agent_without(node: &Node, limit: &str, grace: &str) -> NodeAgent {
    let none = format!("echo 0 >/proc/sys/user/{limit} && exec \"$@\"");
    node.agent_under(&["unshare", "--user", "--map-root-user", "sh", "-c", &none, "sh"], &fast(grace))
}

/// A node of Debian 13 whose agent has converged on one CA.
#[track_caller]
fn converged() -> (Node, Ca, NodeAgent) {
    let node = Node::new(Kind::Trixie, "");
    let ca = Ca::new("Corp Root");
    node.set_source(&[&ca]);
    let agent = node.agent(&fast("1h"));
    agent.wait_converged(&[&ca], LIMIT);
    (node, ca, agent)
}

/// Runs of the store's tool so far; several in one cycle count once.
pub fn extracts(agent: &NodeAgent) -> f64 {
    agent.metric("nodetrust_extract_duration_seconds_count").unwrap_or(0.0)
}

/// Repairs of a kind of drift so far.
fn repaired(agent: &NodeAgent, kind: &str) -> f64 {
    agent.metric(&format!("nodetrust_drift_repaired_total{{kind=\"{kind}\"}}")).unwrap_or(0.0)
}

/// Whether the report has a problem of a kind.
pub fn has_problem(status: &Value, kind: &str) -> bool {
    status["problems"].as_array().into_iter().flatten().any(|problem| problem["kind"] == kind)
}

/// The row of a CA.
fn row<'a>(status: &'a Value, ca: &Ca) -> Option<&'a Value> {
    status["anchors"].as_array()?.iter().find(|row| row["sha256"] == ca.sha256())
}

/// The state of a CA, or "" if the report does not know it.
fn state<'a>(status: &'a Value, ca: &Ca) -> &'a str {
    row(status, ca).and_then(|row| row["state"].as_str()).unwrap_or("")
}

/// The row of a source.
fn source<'a>(status: &'a Value, name: &str) -> &'a Value {
    status["sources"].as_array().unwrap().iter().find(|row| row["name"] == name).unwrap_or(&Value::Null)
}

fn seconds_of(time: &Value) -> i64 {
    time.as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_second()
}

#[test]
fn a_rotation_keeps_both_and_the_grace_ends_by_itself() {
    let node = Node::new(Kind::Bookworm, "");
    let (old, new) = (Ca::new("Corp Root 2021"), Ca::new("Corp Root 2026"));
    node.set_source(&[&old]);
    let agent = node.agent(&fast("40s")); // longer than a cycle takes on a busy machine
    agent.wait_converged(&[&old], LIMIT);
    assert!(node.clients_trust(&old));
    assert_eq!(agent.metric("nodetrust_reconciles_total{trigger=\"start\",outcome=\"changed\"}"), Some(1.0));

    node.set_source(&[&new]);
    let both = agent.wait_converged(&[&old, &new], LIMIT);
    assert_eq!((state(&both, &old), state(&both, &new)), ("grace", "desired"));
    assert!(node.trusts(&old) && node.trusts(&new));

    agent.wait_converged(&[&new], LIMIT);
    assert!(!node.clients_trust(&old) && node.clients_trust(&new));
    assert!(!node.anchor_file(&old).exists());
    assert_eq!(agent.metric("nodetrust_reconciles_total{trigger=\"grace\",outcome=\"changed\"}"), Some(1.0));
    assert_eq!(agent.metric("nodetrust_reconciles_total{trigger=\"resync\""), Some(0.0), "nothing waited for the poll");
}

/// Lowers a flag when it goes out of scope, so that a failed assertion does not leave a thread behind.
pub struct LoweredAtEnd<'a>(pub &'a AtomicBool);

impl Drop for LoweredAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

#[test]
fn a_tool_that_fails_is_retried_with_growing_pauses() {
    let node = Node::new(Kind::Trixie, "");
    let (one, two) = (Ca::new("Corp Root"), Ca::new("Inspection CA"));
    node.set_source(&[&one]);
    let agent = node.agent(&fast("1h"));
    agent.wait_converged(&[&one], LIMIT);
    let tool = node.path("/usr/sbin/update-ca-certificates");
    let real = fs::read(&tool).unwrap();
    fs::write(&tool, "#!/bin/sh\necho simulated failure >&2\nexit 1\n").unwrap();
    let since = Instant::now();
    node.set_source(&[&two]);
    let failed = agent.wait_status("a failure", LIMIT, |status| status["converged"] == false);
    assert!(has_problem(&failed, "extract"), "{failed:#}");
    assert!(failed["headline"].as_str().unwrap().contains("simulated failure"), "{}", failed["headline"]);
    let before = extracts(&agent);
    agent.wait_status("two more tries", LIMIT, |_| extracts(&agent) >= before + 2.0);
    let (tries, seconds) = (extracts(&agent) - before, since.elapsed().as_secs_f64());
    assert!(seconds >= 12.0 && tries <= seconds / 5.0, "{tries} tries in {seconds} s: want pauses of 5 s, 10 s, …");
    assert!(node.trusts(&one), "nothing was lost");
    fs::write(&tool, real).unwrap();
    agent.wait_converged(&[&one, &two], LIMIT);
    assert_eq!(
        repaired(&agent, "anchor-deleted") + repaired(&agent, "bundle"),
        0.0,
        "our own unfinished work is no drift"
    );
}

#[test]
fn the_configuration_is_reloaded_and_a_bad_one_changes_nothing() {
    let node = Node::new(Kind::Trixie, "");
    let (one, two, three) = (Ca::new("Corp Root"), Ca::new("Inspection CA"), Ca::new("Pinned CA"));
    node.set_source(&[&one, &two]);
    let agent = node.agent(&fast("1h"));
    agent.wait_converged(&[&one, &two], LIMIT);
    node.set_source(&[&one]);
    let status = agent.wait_status("grace", LIMIT, |status| state(status, &two) == "grace");
    assert_eq!(status["converged"], true);

    // A bad configuration changes nothing but the report.
    node.configure("settle: sometimes\nrotation: {removalGrace: 0s}");
    let status = agent.wait_status("the problem", LIMIT, |status| has_problem(status, "config"));
    let problem = status["problems"][0]["text"].as_str().unwrap();
    assert!(problem.contains("config.yaml") && problem.contains("settle") && problem.contains("300ms"), "{problem}");
    assert_eq!((status["converged"] == true, state(&status, &two)), (true, "grace"), "{status:#}");
    assert!(agent.metric("nodetrust_errors_total{reason=\"config\"}").unwrap() >= 1.0);
    assert_eq!(agent.get("/readyz").unwrap().0, 200, "the node is as the last good configuration wants it");

    // The agent follows the corrected one, and the problem goes.
    let inline: String = three.pem().lines().map(|line| format!("    {line}\n")).collect();
    node.configure(&format!("- name: pinned\n  inline: |\n{inline}{}", fast("0s")));
    let status = agent.wait_converged(&[&one, &three], LIMIT);
    assert!(!has_problem(&status, "config"), "{status:#}");
    assert!(node.clients_trust(&three) && !node.clients_trust(&two));

    // A missing configuration counts as a bad one.
    fs::remove_file(&node.config).unwrap();
    let status = agent.wait_status("the problem", LIMIT, |status| has_problem(status, "config"));
    assert_eq!(status["converged"], true);
    assert!(node.trusts(&three));
    node.configure(&fast("0s"));
    agent.wait_converged(&[&one], LIMIT);
}

#[test]
fn a_configuration_from_a_config_map_is_reloaded() {
    let node = Node::new(Kind::Trixie, "");
    let (one, two) = (Ca::new("Corp Root"), Ca::new("Inspection CA"));
    node.set_source(&[&one, &two]);
    let dir = node.config.parent().unwrap();
    let agent = {
        let agent = node.agent(&fast("1h"));
        agent.wait_converged(&[&one, &two], LIMIT);
        agent
    };
    node.set_source(&[&one]);
    agent.wait_status("grace", LIMIT, |status| state(status, &two) == "grace");
    // The kubelet writes a new directory and swaps a link to it.
    fs::create_dir(dir.join("..2026_11_22_1")).unwrap();
    let text = fs::read_to_string(&node.config).unwrap().replace("removalGrace: 1h", "removalGrace: 0s");
    fs::write(dir.join("..2026_11_22_1/config.yaml"), text).unwrap();
    fs::remove_file(&node.config).unwrap();
    symlink("..data/config.yaml", &node.config).unwrap();
    symlink("..2026_11_22_1", dir.join("..data_tmp")).unwrap();
    fs::rename(dir.join("..data_tmp"), dir.join("..data")).unwrap();
    agent.wait_converged(&[&one], LIMIT);
}

#[test]
fn sigterm_ends_the_agent_with_0_also_during_an_extract() {
    let node = Node::new(Kind::Bookworm, "");
    let (one, two) = (Ca::new("Corp Root"), Ca::new("Inspection CA"));
    node.set_source(&[&one]);
    let mut agent = node.agent(&fast("1h"));
    agent.wait_converged(&[&one], LIMIT);
    wait_for("rest", LIMIT, || descendants(agent.pid()).is_empty().then_some(()));
    let started = Instant::now();
    agent.signal(Signal::SIGTERM);
    assert_eq!(agent.wait(), 0);
    // The agent would wait this long for a running cycle.
    assert!(started.elapsed() < Duration::from_secs(10), "at rest it ends at once, not after {:?}", started.elapsed());

    node.set_source(&[&one, &two]);
    let mut agent = node.agent(&fast("1h"));
    let tool = wait_for("the tool", LIMIT, || descendants(agent.pid()).last().copied());
    let below = descendants(agent.pid());
    let started = Instant::now();
    agent.signal(Signal::SIGTERM);
    assert_eq!(agent.wait(), 0, "{}", agent.log_text());
    assert!(
        started.elapsed() < Duration::from_secs(30),
        "{:?} is longer than a pod's grace allows for",
        started.elapsed()
    );
    wait_for("the tool's end", LIMIT, || (!is_alive(tool) && !below.iter().any(|pid| is_alive(*pid))).then_some(()));
    node.nodetrust(&["plan"]).expect(0);
    assert!(node.trusts(&two), "the cycle that was under way was finished");
}

#[test]
fn grace_survives_restarts_of_the_agent_and_is_not_begun_anew() {
    let node = Node::new(Kind::Trixie, "");
    let (old, new) = (Ca::new("Corp Root 2021"), Ca::new("Corp Root 2026"));
    node.set_source(&[&old]);
    let agent = node.agent(&fast("30s"));
    agent.wait_converged(&[&old], LIMIT);
    node.set_source(&[&new]);
    let status = agent.wait_converged(&[&old, &new], LIMIT);
    let end = seconds_of(&row(&status, &old).unwrap()["graceEnd"]);
    drop(agent); // SIGKILL

    let agent = node.agent(&fast("30s"));
    let status = agent.wait_converged(&[&old, &new], LIMIT);
    let again = seconds_of(&row(&status, &old).unwrap()["graceEnd"]);
    assert!((end - again).abs() <= 2, "the end of the grace moved by {} s", again - end);
    agent.wait_converged(&[&new], LIMIT);
    let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap();
    assert!(now >= end - 1, "it ended {} s early", end - now);
}

/// A source falls silent, the agent is restarted, the anchor file is deleted: trust stays. Then it speaks again.
fn a_silent_source_is_held(kind: Kind) {
    let node = Node::new(kind, "");
    let (one, two) = (Ca::new("Corp Root"), Ca::new("Corp Root 2"));
    let away = node.beside("away");
    let silences: [(&str, &str, &dyn Fn()); 3] = [
        ("missing", "missing", &|| fs::rename(&node.source, &away).unwrap()),
        ("empty", "empty", &|| fs::remove_file(node.source.join("ca.crt")).unwrap()),
        ("garbage", "nothing in it was accepted", &|| {
            fs::write(node.source.join("ca.crt"), "<html>404</html>").unwrap()
        }),
    ];
    node.set_source(&[&one]);
    for (name, detail, fall_silent) in silences {
        node.set_source(&[&one]);
        let agent = node.agent(&fast("0s"));
        agent.wait_converged(&[&one], LIMIT);
        fall_silent();
        let held = |status: &Value| source(status, "org")["status"] == "held";
        let status = agent.wait_status(name, LIMIT, held);
        assert!(source(&status, "org")["detail"].as_str().unwrap().contains(detail), "{status:#}");
        assert_eq!((status["converged"] == true, state(&status, &one)), (true, "desired"), "{name}: {status:#}");
        assert_eq!(status["verdict"], "trusted-with-findings");
        assert_eq!(agent.metric("nodetrust_source_up{source=\"org\"}"), Some(0.0));
        drop(agent);

        let agent = node.agent(&fast("0s"));
        agent.wait_status("the first report of a new agent", LIMIT, |status| {
            held(status) && state(status, &one) == "desired"
        });
        assert!(node.trusts(&one), "{name}");
        fs::remove_file(node.anchor_file(&one)).unwrap();
        wait_for("the ledger's copy", LIMIT, || (repaired(&agent, "anchor-deleted") == 1.0).then_some(()));
        agent.wait_converged(&[&one], LIMIT);
        assert_eq!(fs::read_to_string(node.anchor_file(&one)).unwrap(), one.pem(), "{name}");
        assert!(node.clients_trust(&one), "{name}");

        // The source gives its anchors again.
        if name == "missing" {
            fs::rename(&away, &node.source).unwrap();
        }
        node.set_source(&[&two]);
        let status = agent.wait_converged(&[&two], LIMIT);
        assert_eq!(source(&status, "org")["status"], "ok");
    }
}

#[test]
fn trixie_silent_source_is_held() {
    a_silent_source_is_held(Kind::Trixie);
}

#[test]
fn rhelish_silent_source_is_held() {
    a_silent_source_is_held(Kind::Rhelish);
}

#[test]
fn a_damaged_ledger_is_set_aside_and_rebuilt_from_the_host() {
    let node = Node::new(Kind::Trixie, "");
    let (one, two) = (Ca::new("Corp Root"), Ca::new("Inspection CA"));
    let ledger = node.path("/var/lib/nodetrust/ledger.json");
    let aside = node.path("/var/lib/nodetrust/ledger.json.damaged");
    node.set_source(&[&one, &two]);
    let agent = node.agent(&fast("1h"));
    agent.wait_converged(&[&one, &two], LIMIT);
    drop(agent);
    let damaged = &fs::read(&ledger).unwrap()[..200];
    fs::write(&ledger, damaged).unwrap();
    // One of them leaves the sources while the ledger is lost. It gets its grace all the same.
    node.set_source(&[&one]);
    let agent = node.agent(&fast("1h"));
    let status = agent.wait_converged(&[&one, &two], LIMIT);
    assert_eq!((state(&status, &one), state(&status, &two)), ("desired", "grace"));
    assert_eq!(fs::read(&aside).unwrap(), damaged);
    assert!(agent.metric("nodetrust_errors_total{reason=\"ledger\"}").unwrap() >= 1.0);
    assert!(node.clients_trust(&one) && node.clients_trust(&two));
    let text: Value = serde_json::from_slice(&fs::read(&ledger).unwrap()).unwrap();
    assert_eq!(text["anchors"].as_object().unwrap().len(), 2);
    // The loss is reported once and does not stay a finding.
    node.set_source(&[&one, &two]);
    let status = agent.wait_status("both wanted", LIMIT, |status| state(status, &two) == "desired");
    assert!(!has_problem(&status, "ledger"), "{status:#}");
}

#[test]
fn two_agents_on_one_node_do_no_harm() {
    let node = Node::new(Kind::Trixie, "");
    let (one, two) = (Ca::new("Corp Root"), Ca::new("Inspection CA"));
    node.set_source(&[&one]);
    let foreign = node.bundle().len();
    // The second agent rewrites the configuration with its own port; the first one warns that it keeps its port.
    let first = node.agent(&fast("0s"));
    first.wait_converged(&[&one], LIMIT);
    let second = node.agent(&fast("0s"));
    second.wait_converged(&[&one], LIMIT);
    for (set, others) in [(vec![&one, &two], 2), (vec![&two], 1), (vec![&one], 1)] {
        node.set_source(&set);
        first.wait_converged(&set, LIMIT);
        second.wait_converged(&set, LIMIT);
        let bundle = node.bundle();
        assert_eq!(bundle.len(), foreign + others);
        assert!(set.iter().all(|ca| bundle.contains(&ca.sha256())));
    }
    for agent in [&first, &second] {
        for kind in ["anchor-deleted", "anchor-altered", "bundle", "link"] {
            assert_eq!(repaired(agent, kind), 0.0, "what the other agent does is no drift: {kind}");
        }
    }
}

#[test]
fn a_second_agent_on_the_same_port_says_so() {
    let (node, _, agent) = converged();
    let second = node.nodetrust(&["run"]).expect(1);
    let address = format!("127.0.0.1:{}", agent.port());
    assert!(second.err.contains(&address) && second.err.contains("is another agent running?"), "{}", second.err);
    assert!(second.err.contains("http.address"), "{}", second.err);
}

#[test]
fn apply_works_while_the_agent_runs() {
    let node = Node::new(Kind::Trixie, "");
    let (one, two) = (Ca::new("Corp Root"), Ca::new("Inspection CA"));
    node.set_source(&[&one]);
    let agent = node.agent(&fast("1h"));
    node.nodetrust(&["apply"]).expect(0);
    agent.wait_converged(&[&one], LIMIT);
    node.set_source(&[&one, &two]);
    node.nodetrust(&["apply"]).expect(0);
    assert!(node.trusts(&two));
    agent.wait_converged(&[&one, &two], LIMIT);
    node.nodetrust(&["plan"]).expect(0);
}

/// A run of our program as in a debug session: only the host root is named.
fn without_config(node: &Node, args: &[&str]) -> (i32, String) {
    let mut command = Command::new(crate::support::program());
    command.arg("--host-root").arg(&node.root).args(args).stdin(Stdio::null());
    let output = command
        .env_remove("NODETRUST_CONFIG")
        .env_remove("NODETRUST_HOST_ROOT")
        .env("NODE_NAME", "n")
        .output()
        .unwrap();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn status_tells_the_truth_without_a_configuration_and_without_an_agent() {
    let node = Node::new(Kind::Trixie, "");
    let ca = Ca::new("Corp Root");
    node.set_source(&[&ca]);
    node.nodetrust(&["apply"]).expect(0);
    let before = node.footprint();
    let (code, json) = without_config(&node, &["status", "-o", "json"]);
    let status: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((code, &status["verdict"]), (0, &Value::from("trusted")), "{status:#}");
    assert_eq!((state(&status, &ca), row(&status, &ca).unwrap()["trusted"] == true), ("desired", true));
    assert_eq!(status["cycle"]["outcome"], "changed", "the last cycle is known from the host");

    // Somebody takes it out of the bundle. No agent runs, and `status` sees it.
    let bundle = node.path(node.kind.bundle());
    let text = fs::read_to_string(&bundle).unwrap();
    fs::write(&bundle, text.replace(&ca.pem(), "")).unwrap();
    assert!(!node.trusts(&ca));
    let (code, text) = without_config(&node, &["status"]);
    assert_eq!(code, 2);
    assert!(text.lines().next().unwrap().contains("NOT TRUSTED"), "{text}");
    assert!(text.contains(&ca.fp16()), "{text}");
    let (code, json) = without_config(&node, &["status", "-o", "json"]);
    let status: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((code, row(&status, &ca).unwrap()["trusted"] == false), (2, true), "{status:#}");
    let mut after = node.footprint();
    after.insert("/etc/ssl/certs/ca-certificates.crt".into(), before["/etc/ssl/certs/ca-certificates.crt"].clone());
    assert_eq!(before, after, "status changes nothing");
}

#[test]
fn usage_and_configuration_errors_exit_64_and_say_where() {
    let node = Node::new(Kind::Trixie, "");
    let before = node.footprint();
    for args in [&["--no-such-flag"][..], &["no-such-command"], &["status", "-o", "xml"], &["apply", "extra"], &[]] {
        let done = node.nodetrust(args).expect(64);
        assert!(
            done.out.is_empty() && (done.err.contains("--help") || done.err.contains("Usage")),
            "{args:?}: {} {}",
            done.out,
            done.err
        );
    }
    let config = node.config.display().to_string();
    let cases = [
        ("settle: soon", "settle", "300ms"),
        ("polcy: {}", "polcy", "policy"),
        ("store: {family: windows}", "windows", "debian"),
        ("http: {address: localhost}", "localhost", "0.0.0.0:9643"),
        ("sources: [", "line", ""),
    ];
    for (text, field, form) in cases {
        node.configure(text);
        for command in ["run", "plan", "apply", "status", "uninstall"] {
            let done = node.nodetrust(&[command]).expect(64);
            // Only `status` still has something to show: the host.
            assert_eq!(done.out.is_empty(), command != "status", "{command}: {}", done.out);
            let says = |what: &str| done.err.contains(what);
            assert!(says(&config) && says(field) && says(form), "{command} with {text}: {}", done.err);
        }
    }
    fs::remove_file(&node.config).unwrap();
    for command in ["run", "plan", "apply", "status", "uninstall"] {
        let done = node.nodetrust(&[command]).expect(64);
        assert!(done.err.contains(&config), "{command}: {}", done.err);
    }
    assert_eq!(node.footprint(), before, "nothing was done");
}
