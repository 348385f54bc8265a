//! A real Prometheus scrapes three real agents on node roots. One of them is broken in several ways, one after the other, and exactly the
//! right alerts fire, and reach a real Alertmanager.

use std::{
    io::Write as _,
    process::Stdio,
    sync::mpsc,
    thread,
    time::{Duration, SystemTime},
};

use super::{
    server::{LIMIT, PrometheusServer},
    *,
};
use crate::{
    agent::fast,
    support::{
        node::{Kind, Node, NodeAgent},
        pki::Ca,
        wait_for,
    },
};

/// The configuration of an agent that runs already, with its address and this more.
fn reconfigure(node: &Node, agent: &NodeAgent, more: &str) {
    node.configure(&format!("http: {{address: \"127.0.0.1:{}\"}}\n{}{more}", agent.port(), fast("0s")));
}

/// Breaks and mends a node; after each step exactly the alerts that it should cause fire.
fn broken_in_many_ways(prometheus: &PrometheusServer, node: &Node, agent: &NodeAgent, ca: &Ca) {
    prometheus.wait_firing("three agents that are well", &[]);

    fs::write(node.source.join("key.pem"), ca.key_pem()).unwrap();
    prometheus.wait_firing("a private key in a file of the source", &["NodetrustSourceRejected org"]);
    fs::remove_file(node.source.join("key.pem")).unwrap();

    fs::rename(node.source.join("ca.crt"), node.source.join(".ca.crt")).unwrap();
    prometheus.wait_firing("an emptied source", &["NodetrustSourceDown org"]);
    fs::rename(node.source.join(".ca.crt"), node.source.join("ca.crt")).unwrap();
    prometheus.wait_firing("the source is back", &[]);

    let ending = Ca::with("Ending CA", |parameters| {
        parameters.not_after = SystemTime::now().checked_add(Duration::from_hours(240)).unwrap().into();
    });
    node.set_source(&[ca, &ending]);
    prometheus.wait_firing("an anchor that ends in ten days", &["NodetrustAnchorExpiresSoon Ending CA"]);
    node.set_source(&[ca]);
    prometheus.wait_firing("it has left", &[]);

    reconfigure(node, agent, "probes: [{target: \"127.0.0.1:1\"}]\n");
    prometheus.wait_firing("a probed server that nobody is", &["NodetrustProbeFailing 127.0.0.1:1"]);
    reconfigure(node, agent, "");
    prometheus.wait_firing("it is not probed any more", &[]);

    let tool = "/usr/sbin/update-ca-certificates";
    let program = fs::read(node.path(tool)).unwrap();
    node.write(tool, "#!/bin/sh\necho simulated failure; exit 1\n");
    let added = Ca::new("Added CA");
    node.set_source(&[ca, &added]);
    prometheus.wait_firing("the tool fails, and an anchor is missing", &["NodetrustAnchorNotTrusted one"]);
    node.write(tool, program);
    prometheus.wait_firing("the tool works again", &[]);

    for round in 1..=3 {
        fs::remove_file(node.anchor_file(ca)).unwrap();
        let repaired = || {
            let metric = agent.metric("nodetrust_drift_repaired_total{kind=\"anchor-deleted\"}");
            metric.filter(|count| *count >= f64::from(round))
        };
        wait_for("a repair", LIMIT, repaired);
    }
    prometheus.wait_firing("somebody deletes the anchor again and again", &["NodetrustDriftRepeating one"]);
}

/// What `promtool` thinks of the metrics that an agent serves.
fn check_metrics(agent: &NodeAgent) {
    let (status, metrics) = must("metrics", agent.get("/metrics").ok_or("no answer"));
    assert_eq!(status, 200);
    let mut command = Command::new(installed("promtool"));
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = must("promtool", command.spawn());
    must("its input", child.stdin.take().unwrap().write_all(metrics.as_bytes()));
    let done = Done::new(must("promtool", child.wait_with_output()));
    assert_eq!((done.code, done.out.as_str(), done.err.as_str()), (0, "", ""));
}

#[test]
fn a_real_prometheus_fires_exactly_the_right_alerts_about_real_agents() {
    let ca = &Ca::new("Corp Root");
    thread::scope(|scope| {
        // Each node has the mount namespace of its thread.
        let others = [Kind::Trixie, Kind::Rhelish].map(|kind| {
            let (tell, port) = mpsc::channel();
            let (done, ended) = mpsc::channel::<()>();
            scope.spawn(move || {
                let node = Node::new(kind, "");
                node.set_source(&[ca]);
                let agent = node.agent(&fast("0s"));
                agent.wait_converged(&[ca], LIMIT);
                let _ = tell.send(agent.port());
                // until the test is done, however it ends
                let _ = ended.recv();
            });
            (port, done)
        });
        let node = Node::new(Kind::Bookworm, "");
        node.set_source(&[ca]);
        let mut agent = node.agent(&fast("0s"));
        agent.wait_converged(&[ca], LIMIT);
        check_metrics(&agent);
        let [two, three] = others.each_ref().map(|(port, _)| must("another agent", port.recv()));
        let prometheus = PrometheusServer::start(&[("one", agent.port()), ("two", two), ("three", three)]);
        broken_in_many_ways(&prometheus, &node, &agent, ca);

        agent.signal(nix::sys::signal::Signal::SIGKILL);
        agent.wait();
        prometheus.wait_firing("an agent that is gone", &["NodetrustAgentDown one"]);
        let empty = prometheus.empty_panels();
        assert_eq!(empty, [""; 0], "queries of the dashboard that found nothing in any state");
        drop(others);
        prometheus.wait_firing("all agents are gone", &["NodetrustAbsent"]);
    });
}
