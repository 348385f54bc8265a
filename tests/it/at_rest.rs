//! Agents at rest ask the API server for next to nothing and write nothing, by the API server's own audit log.
//!
//! The test watches ten minutes in which nothing may happen. By its name this module is among the first whose
//! tests start, so that the others run at the same time.

use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    manifests::configmap,
    support::{
        cluster::{IMAGE, PORT, TestCluster, annotation},
        machine::MachineKind,
        pki::Ca,
        served::AgentHttp,
        wait_for,
    },
};

/// Longest wait for events that take seconds; the machine may be busy.
const LIMIT: Duration = Duration::from_secs(240);
const WINDOW: Duration = Duration::from_secs(600);
/// Time between two reads of the log.
const PAUSE: Duration = Duration::from_secs(5);

const ACCOUNT: &str = "system:serviceaccount:nodetrust:nodetrust";
const NODES: [(&str, MachineKind); 2] = [("bookworm", MachineKind::Bookworm), ("trixie", MachineKind::Trixie)];

fn cycles(agents: &[AgentHttp]) -> Vec<f64> {
    let count = |agent: &AgentHttp| agent.metric("nodetrust_reconcile_duration_seconds_count");
    agents.iter().map(|agent| wait_for("an agent that answers", LIMIT, || count(agent))).collect()
}

/// The request in short: address, verb and path.
fn text(request: &Value) -> String {
    let part = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    format!("{} {} {}", part(&request["sourceIPs"][0]), part(&request["verb"]), part(&request["requestURI"]))
}

#[test]
fn the_audit_log_has_no_write_of_an_agent_in_ten_minutes() {
    let cluster = TestCluster::boot_audited(&NODES, ACCOUNT);
    cluster.image(IMAGE, crate::support::program());
    let ca = Ca::new("Corp Root");
    cluster.apply(&configmap(&ca.pem(), "resync: 10s\n"));
    cluster.rolled_out();
    for (node, _) in NODES {
        cluster.wait_condition(node, "True", "Trusted");
        cluster.wait("the annotation", &["node", node], |node| annotation(node).is_some());
        wait_for("the event of the first install", LIMIT, || cluster.events(node, "TrustAnchorsChanged").pop());
    }
    // The log exists and holds the requests of the installation.
    let so_far = cluster.audit();
    for (node, _) in NODES {
        let own = format!("{} patch /api/v1/nodes/{node}", cluster.address(node));
        assert!(so_far.iter().any(|request| text(request).starts_with(&own)), "{so_far:#?}");
    }
    assert!(so_far.iter().all(|request| request["user"]["username"] == ACCOUNT), "{so_far:#?}");

    // At rest several cycles run without any request.
    let agents: Vec<AgentHttp> =
        NODES.iter().map(|(node, _)| cluster.agent(node, PORT, "nodetrust", "daemonset/nodetrust")).collect();
    let mut quiet = (cluster.audit().len(), cycles(&agents));
    let end = Instant::now() + LIMIT;
    loop {
        let now = cycles(&agents);
        if cluster.audit().len() != quiet.0 {
            quiet = (cluster.audit().len(), now);
        } else if now.iter().zip(&quiet.1).all(|(now, then)| *now >= then + 3.0) {
            break;
        }
        assert!(Instant::now() < end, "no rest: {:#?}", cluster.audit());
        thread::sleep(PAUSE);
    }

    let before = cycles(&agents);
    let end = Instant::now() + WINDOW;
    loop {
        let is_last = Instant::now() >= end;
        let asked: Vec<String> = cluster.audit()[quiet.0..].iter().map(text).collect();
        let mut reads: BTreeMap<&str, usize> = BTreeMap::new();
        for request in &asked {
            let node = NODES.map(|(node, _)| node).into_iter().find(|node| {
                // It may read its own Node, from the API server's cache.
                *request == format!("{} get /api/v1/nodes/{node}?resourceVersion=0", cluster.address(node))
            });
            let Some(node) = node else { panic!("{request} is no read of the own Node: {asked:#?}") };
            *reads.entry(node).or_default() += 1;
        }
        assert!(reads.values().all(|count| *count <= 1), "{asked:#?}");
        if is_last {
            println!("reads in the window: {asked:#?}");
            break;
        }
        thread::sleep(PAUSE);
    }
    for (agent, before) in agents.iter().zip(before) {
        let now = agent.metric("nodetrust_reconcile_duration_seconds_count").unwrap();
        assert!(now >= before + 10.0, "only {} cycles", now - before);
        assert_eq!(agent.metric("nodetrust_errors_total{reason=\"kubernetes\"}"), Some(0.0), "{}", agent.log_text());
    }
    for pod in cluster.pods(&["-n", "nodetrust"]) {
        assert_eq!(pod["status"]["containerStatuses"][0]["restartCount"], 0, "{}", pod["status"]);
    }
}
