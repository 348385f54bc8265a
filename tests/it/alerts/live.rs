//! A real Prometheus scrapes two real agents on node roots. One of them is broken in several ways, one after the other, and exactly the
//! right alerts fire. Only the waiting is shorter: without the `for` of alerts that wait for less than hours.

use std::{
    collections::BTreeSet,
    net::TcpListener,
    process::{Child, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant, SystemTime},
};

use serde_json::json;

use super::*;
use crate::{
    agent::fast,
    support::{
        node::{Kind, Node, NodeAgent},
        pause_after,
        pki::Ca,
        wait_for,
    },
};

/// The tool may be slow on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

/// A running Prometheus of Debian; it is ended with the test.
struct PrometheusServer {
    child: Child,
    url: String,
    dir: TempDir,
}

impl PrometheusServer {
    /// Scrapes agents, by the names of their nodes, and evaluates the rules, each second.
    fn start(agents: &[(&str, u16)]) -> Self {
        let dir = must("a directory", TempDir::new());
        let mut rules = yaml("manifests/monitoring/rules.yml");
        for group in rules["groups"].as_array_mut().unwrap() {
            group.as_object_mut().unwrap().remove("interval");
            for rule in group["rules"].as_array_mut().unwrap() {
                let waits_long = text(&rule["for"]).ends_with("4h") || rule["alert"] == "NodetrustProblem";
                if !waits_long {
                    rule.as_object_mut().unwrap().remove("for");
                }
            }
        }
        must("rules", fs::write(dir.path().join("rules.yml"), rules.to_string()));
        let targets: Vec<Value> = agents
            .iter()
            .map(|(node, port)| json!({"targets": [format!("127.0.0.1:{port}")], "labels": {"node": node}}))
            .collect();
        let config = json!({
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": ["rules.yml"],
            "scrape_configs": [{"job_name": "nodetrust", "static_configs": targets}],
        });
        must("a configuration", fs::write(dir.path().join("prometheus.yml"), config.to_string()));
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let log = must("a log", fs::File::create(dir.path().join("log")));
        let mut command = prometheus_program("prometheus");
        command.arg(format!("--config.file={}", dir.path().join("prometheus.yml").display()));
        command.arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()));
        command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        Self { child: must("prometheus", command.spawn()), url: format!("http://127.0.0.1:{port}"), dir }
    }

    /// What a query finds; None while the server does not answer.
    fn query(&self, expression: &str) -> Option<Vec<Value>> {
        let mut command = prometheus_program("promtool");
        command.args(["query", "instant", "--format=json", &self.url, expression]);
        let done = Done::new(must("promtool", command.output()));
        let found = |out: &str| serde_json::from_str::<Value>(out).ok();
        (done.code == 0).then(|| found(&done.out)).flatten().map(|found| array(&found).cloned().collect())
    }

    /// The names of the alerts that fire, with their node or source if they have one.
    fn firing(&self) -> Option<BTreeSet<String>> {
        let alerts = self.query(r#"ALERTS{alertstate="firing"}"#)?;
        let about = |labels: &Value| {
            let subject = ["node", "source", "target", "subject_cn"].iter().find_map(|name| labels[*name].as_str());
            format!("{} {}", text(&labels["alertname"]), subject.unwrap_or_default()).trim().to_owned()
        };
        Some(alerts.iter().map(|alert| about(&alert["metric"])).collect())
    }

    /// Waits until exactly these alerts fire.
    #[track_caller]
    fn wait_firing(&self, state: &str, wanted: &[&str]) {
        let wanted: BTreeSet<String> = wanted.iter().map(|name| (*name).to_owned()).collect();
        let end = Instant::now() + LIMIT;
        loop {
            let began = Instant::now();
            let firing = self.firing();
            if firing.as_ref() == Some(&wanted) {
                return;
            }
            let log = || fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            assert!(began < end, "{state}: {wanted:?} should fire, and {firing:?} do; Prometheus:\n{}", log());
            pause_after(began);
        }
    }
}

impl Drop for PrometheusServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The configuration of an agent that runs already, with its address and this more.
fn reconfigure(node: &Node, agent: &NodeAgent, more: &str) {
    node.configure(&format!("http: {{address: \"127.0.0.1:{}\"}}\n{}{more}", agent.port(), fast("0s")));
}

/// Breaks and mends a node; after each step exactly the alerts that it should cause fire.
fn broken_in_many_ways(prometheus: &PrometheusServer, node: &Node, agent: &NodeAgent, ca: &Ca) {
    prometheus.wait_firing("two agents that are well", &[]);

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

#[test]
fn a_real_prometheus_fires_exactly_the_right_alerts_about_real_agents() {
    let ca = &Ca::new("Corp Root");
    let (port, second) = mpsc::channel();
    let (done, ended) = mpsc::channel::<()>();
    thread::scope(|scope| {
        // Each node has the mount namespace of its thread.
        scope.spawn(move || {
            let node = Node::new(Kind::Trixie, "");
            node.set_source(&[ca]);
            let agent = node.agent(&fast("0s"));
            agent.wait_converged(&[ca], LIMIT);
            let _ = port.send(agent.port());
            // until the other thread is done, however it ends
            let _ = ended.recv();
        });
        let done = done;
        let node = Node::new(Kind::Bookworm, "");
        node.set_source(&[ca]);
        let mut agent = node.agent(&fast("0s"));
        agent.wait_converged(&[ca], LIMIT);
        let other = must("the second agent", second.recv());
        let prometheus = PrometheusServer::start(&[("one", agent.port()), ("two", other)]);
        broken_in_many_ways(&prometheus, &node, &agent, ca);

        agent.signal(nix::sys::signal::Signal::SIGKILL);
        agent.wait();
        prometheus.wait_firing("an agent that is gone", &["NodetrustAgentDown one"]);
        drop(done);
        prometheus.wait_firing("both agents are gone", &["NodetrustAbsent"]);
    });
}
