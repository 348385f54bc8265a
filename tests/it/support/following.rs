//! Whether a machine's container runtime follows the bundle: what its agent says, what systemd says, what a pull says.

use std::{fs, time::Duration};

use nodetrust_core::source::SourceFile;
use serde_json::Value;

use super::{
    machine::{Machine, PodAgent},
    node::Done,
    rig::Access,
    served::AgentHttp,
};

/// Longest wait for events that take seconds; the machine may be busy.
pub const LIMIT: Duration = Duration::from_secs(240);
/// Longest wait for a held restart, which takes up to a minute; the machine may be busy.
pub const LONG: Duration = Duration::from_secs(300);
/// Settings of an agent that settles and looks quickly.
pub const FAST: &str = "settle: 100ms\nresync: 2s\nrotation: {removalGrace: 0s}";

/// A pull that fails because the registry's CA is unknown.
#[track_caller]
pub fn assert_untrusted(machine: &Machine, image: &str) {
    let error = machine.pull(image).unwrap_err();
    assert!(error.contains("x509: certificate signed by unknown authority"), "{error}");
}

/// The fingerprints of the certificates in a PEM text, sorted.
pub fn sha256(pem: &str) -> Vec<String> {
    let anchors = SourceFile::parse("test", pem.as_bytes()).anchors;
    let mut prints: Vec<String> = anchors.iter().map(|(_, anchor)| anchor.fingerprint.to_string()).collect();
    prints.sort();
    prints
}

/// Whether a report's anchors are exactly those of a PEM text.
pub fn has_anchors(status: &Value, pem: &str) -> bool {
    let rows = status["anchors"].as_array().into_iter().flatten();
    let mut prints: Vec<&str> = rows.filter_map(|row| row["sha256"].as_str()).collect();
    prints.sort_unstable();
    status["converged"] == true && prints == sha256(pem)
}

/// Waits until the agent says that the operating system trusts exactly these anchors, and that this is true of the runtime too.
#[track_caller]
pub fn wait_trusted(agent: &PodAgent, pem: &str) -> Value {
    agent.wait_status("a runtime that trusts what it should", LONG, |status| {
        let by_runtime = status["anchors"].as_array().is_some_and(|rows| rows.iter().all(|row| row["runtime"] == true));
        let is_known = status["runtimeTrust"]["state"] == "current" && status["runtime"]["stale"] == false;
        has_anchors(status, pem) && by_runtime && is_known
    })
}

/// Waits until the agent says that a restart is held for this reason.
#[track_caller]
pub fn wait_held(agent: &PodAgent, reason: &str) -> Value {
    let status = agent.wait_status(&format!("a restart held: {reason}"), LIMIT, |status| {
        status["runtime"]["held"]["reason"] == reason && status["runtime"]["stale"] == true
    });
    assert_eq!(agent.metric(&format!("nodetrust_restart_held{{reason=\"{reason}\"}}")), Some(1.0));
    assert_eq!(agent.metric("nodetrust_runtime_trust_stale"), Some(1.0));
    status
}

/// Waits for the end of two more cycles.
#[track_caller]
pub fn wait_two_cycles(agent: &AgentHttp) {
    let cycles = || {
        let (_, text) = agent.get("/metrics")?;
        let counts = text.lines().filter(|line| line.starts_with("nodetrust_reconciles_total"));
        Some(counts.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>())
    };
    let before = super::wait_for("metrics", LIMIT, cycles);
    super::wait_for("two cycles", LIMIT, || cycles().filter(|now| *now >= before + 2.0));
}

/// How often systemd has started containerd, of all boots.
#[track_caller]
pub fn starts(machine: &Access) -> usize {
    machine.run(&["journalctl", "--sync"]).expect(0);
    let journal = machine.run(&["journalctl", "--no-pager", "-o", "cat", "_PID=1", "-u", "containerd"]).expect(0).out;
    journal.lines().filter(|line| line.starts_with("Started containerd")).count()
}

/// The ledger on the host.
#[track_caller]
pub fn ledger(machine: &Access) -> Value {
    let text = machine.read("/var/lib/nodetrust/ledger.json").unwrap_or_default();
    super::must("the ledger", serde_json::from_str(&text))
}

/// Puts the program on the host itself, as a person would who has no pod.
#[track_caller]
pub fn install(machine: &Access) {
    machine.write("/usr/local/bin/nodetrust", super::must("the program", fs::read(super::program())));
    machine.run(&["chmod", "755", "/usr/local/bin/nodetrust"]).expect(0);
}

/// Configures the program on the host itself, with this additional configuration.
#[track_caller]
pub fn configure(machine: &Machine, more: &str) {
    let text = format!(
        "sources: [{{name: org, path: /etc/nodetrust/org.crt}}]\npolicy: {{emptySource: remove}}\n\
         rotation: {{removalGrace: 0s}}\n{more}\n"
    );
    machine.write("/etc/nodetrust/config.yaml", text);
}

/// Puts the registry's CA into the host's source and runs `apply`.
#[track_caller]
pub fn apply(machine: &Machine) -> Done {
    machine.write("/etc/nodetrust/org.crt", machine.registry_ca());
    let done = machine.run(&["nodetrust", "apply"]);
    println!("apply: {}\n{}{}", done.code, done.out, done.err);
    done
}

/// What `nodetrust status` says on the host itself.
#[track_caller]
pub fn status(machine: &Machine) -> Value {
    let done = machine.run(&["nodetrust", "status", "-o", "json"]);
    super::must("the status", serde_json::from_str(&done.out))
}

/// What a run has printed, without the breaks of its lines.
pub fn flat(done: &Done) -> String {
    done.out.split_whitespace().collect::<Vec<_>>().join(" ")
}
