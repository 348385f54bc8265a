//! What the agent is for: a pull through the runtime that failed works, for every kind of node, and nothing is restarted
//! without need.

use std::time::Duration;

use crate::support::machine::{Agent, Kind, Machine};

/// For what takes seconds, on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);
/// Quick to settle, quick to look.
const FAST: &str = "settle: 100ms\nresync: 5s\nrotation: {removalGrace: 0s}";

/// A pull that fails because the registry's CA is unknown.
#[track_caller]
fn assert_untrusted(machine: &Machine, image: &str) {
    let error = machine.pull(image).unwrap_err();
    assert!(error.contains("x509: certificate signed by unknown authority"), "{error}");
}

/// Waits until the agent says that the operating system and the runtime trust `n` anchors.
#[track_caller]
fn wait_trusted(agent: &Agent, n: usize) -> serde_json::Value {
    agent.wait_status(&format!("{n} anchors, trusted by the runtime"), LIMIT, |status| {
        let rows = status["anchors"].as_array().map_or(0, Vec::len);
        let by_runtime = status["anchors"].as_array().is_some_and(|rows| rows.iter().all(|row| row["runtime"] == true));
        status["converged"] == true && status["runtime"]["stale"] == false && rows == n && by_runtime
    })
}

/// The pull fails, the agent acts, the pull works; what ran before runs on. Once with a containerd that has loaded its roots.
fn a_pull_works_once_the_agent_has_acted(kind: Kind) {
    let machine = Machine::boot(kind);
    let image = machine.push("app:1");
    assert_untrusted(&machine, &image);
    let container = machine.container();
    let process = machine.process(&container).unwrap();
    let before = machine.invocation("containerd");

    let agent = machine.agent(&[], FAST);
    machine.set_source_pem(&machine.registry_ca());
    let status = wait_trusted(&agent, 1);
    assert_eq!(machine.pull(&image), Ok(()), "{status:#}");
    assert_ne!(machine.invocation("containerd"), before, "a containerd that has loaded its roots needs a restart");
    assert_eq!(machine.process(&container).unwrap(), process, "the container did not live on");
    assert_eq!(status["runtime"]["kind"], "containerd");
    assert_eq!(agent.metric("nodetrust_runtime_restarts_total{outcome=\"done\"}"), Some(1.0));
    assert_eq!(agent.metric("nodetrust_runtime_trust_stale"), Some(0.0));
}

#[test]
fn debian_12_with_containerd_1_6_pulls_once_the_agent_has_acted() {
    a_pull_works_once_the_agent_has_acted(Kind::Bookworm);
}

#[test]
fn debian_13_with_containerd_1_7_pulls_once_the_agent_has_acted() {
    a_pull_works_once_the_agent_has_acted(Kind::Trixie);
}

#[test]
fn a_rhel_like_node_pulls_once_the_agent_has_acted() {
    a_pull_works_once_the_agent_has_acted(Kind::Rhelish);
}

#[test]
fn containerd_2_1_pulls_once_the_agent_has_acted() {
    a_pull_works_once_the_agent_has_acted(Kind::Containerd21);
}
