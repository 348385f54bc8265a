//! A real Prometheus scrapes three real agents on node roots. One of them is broken in several ways, one after the other, and exactly the
//! right alerts fire, and reach a real Alertmanager. Only the waiting is shorter: without the `for` of alerts that wait for less than hours.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    io::Write as _,
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

/// What no agent on a node root without a runtime or a cluster has to tell; the simulated busy fleet has it.
const ELSEWHERE: [&str; 5] = [
    "nodetrust_runtime_state",
    "nodetrust_fleet_",
    "nodetrust_restart_held",
    "nodetrust_anchor_grace_end",
    "nodetrust_probe_not_after",
];
/// The tool may be slow on a busy machine.
const LIMIT: Duration = Duration::from_secs(240);

/// A running Prometheus of Debian, and the Alertmanager that it tells; both are ended with the test.
struct PrometheusServer {
    child: Child,
    url: String,
    alertmanager: Child,
    alertmanager_url: String,
    dir: TempDir,
    /// queries of the dashboard that have found nothing so far
    empty: RefCell<Vec<String>>,
}

/// A port that nobody has.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Starts a server whose words go to a file.
fn start(command: &mut Command, log: &Path) -> Child {
    let log = must("a log", fs::File::create(log));
    must("a server", command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn())
}

/// Starts an Alertmanager that tells nobody of what it receives.
fn start_alertmanager(dir: &Path, port: u16) -> Child {
    let config = json!({"route": {"receiver": "nobody"}, "receivers": [{"name": "nobody"}]});
    must("a configuration", fs::write(dir.join("alertmanager.yml"), config.to_string()));
    let mut command = prometheus_program("prometheus-alertmanager");
    command.arg(format!("--config.file={}", dir.join("alertmanager.yml").display()));
    command.arg(format!("--storage.path={}", dir.join("alerts").display()));
    command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
    command.arg("--cluster.listen-address=");
    start(&mut command, &dir.join("alertmanager.log"))
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
        let alertmanager_port = free_port();
        let alertmanager = start_alertmanager(dir.path(), alertmanager_port);
        let config = json!({
            "alerting": {"alertmanagers": [{"static_configs": [{"targets": [format!("127.0.0.1:{alertmanager_port}")]}]}]},
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": ["rules.yml"],
            "scrape_configs": [{"job_name": "nodetrust", "static_configs": targets}],
        });
        must("a configuration", fs::write(dir.path().join("prometheus.yml"), config.to_string()));
        let port = free_port();
        let mut command = prometheus_program("prometheus");
        command.arg(format!("--config.file={}", dir.path().join("prometheus.yml").display()));
        command.arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()));
        command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
        let child = start(&mut command, &dir.path().join("log"));
        let [url, alertmanager_url] = [port, alertmanager_port].map(|port| format!("http://127.0.0.1:{port}"));
        Self { child, url, alertmanager, alertmanager_url, dir, empty: RefCell::new(dashboard::expressions()) }
    }

    /// What a query finds; None while the server does not answer.
    fn query(&self, expression: &str) -> Option<Vec<Value>> {
        let mut command = prometheus_program("promtool");
        command.args(["query", "instant", "--format=json", &self.url, expression]);
        let done = Done::new(must("promtool", command.output()));
        let found = |out: &str| serde_json::from_str::<Value>(out).ok();
        (done.code == 0).then(|| found(&done.out)).flatten().map(|found| array(&found).cloned().collect())
    }

    /// The alerts that fire.
    fn firing(&self) -> Option<BTreeSet<String>> {
        let alerts = self.query(r#"ALERTS{alertstate="firing"}"#)?;
        Some(alerts.iter().map(|alert| about(&alert["metric"])).collect())
    }

    /// The alerts that Alertmanager has, each with a summary and a section of the runbook.
    fn received(&self) -> Option<BTreeSet<String>> {
        let mut command = prometheus_program("amtool");
        command.args(["--alertmanager.url", &self.alertmanager_url, "--output=json", "alert", "query"]);
        let done = Done::new(must("amtool", command.output()));
        let alerts: Value = (done.code == 0).then(|| serde_json::from_str(&done.out).ok()).flatten()?;
        for alert in array(&alerts) {
            let annotations = &alert["annotations"];
            assert!(
                !text(&annotations["summary"]).is_empty() && !text(&annotations["summary"]).contains("{{"),
                "{alert}"
            );
            assert!(text(&annotations["runbook_url"]).contains("#nodetrust"), "{alert}");
        }
        Some(array(&alerts).map(|alert| about(&alert["labels"])).collect())
    }

    /// Asks what the dashboard asks, as far as it has found nothing yet.
    fn ask_the_dashboard(&self) {
        self.empty.borrow_mut().retain(|expression| {
            let mut command = Command::new("curl");
            command.args(["--disable", "--noproxy", "*", "--silent", "--data-urlencode"]);
            command.arg(format!("query={expression}")).arg(format!("{}/api/v1/query", self.url));
            let answer = Done::new(must("curl", command.output())).json();
            assert_eq!(answer["status"], "success", "{expression}: {answer}");
            array(&answer["data"]["result"]).next().is_none()
        });
    }

    /// Waits until exactly these alerts fire, and have reached Alertmanager.
    #[track_caller]
    fn wait_firing(&self, state: &str, wanted: &[&str]) {
        let wanted: BTreeSet<String> = wanted.iter().map(|name| (*name).to_owned()).collect();
        let end = Instant::now() + LIMIT;
        loop {
            let began = Instant::now();
            let firing = self.firing();
            let received = if firing.as_ref() == Some(&wanted) { self.received() } else { None };
            if received.as_ref() == Some(&wanted) {
                return self.ask_the_dashboard();
            }
            let log = || fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            assert!(
                began < end,
                "{state}: {wanted:?} should fire, {firing:?} do, Alertmanager has {received:?}; Prometheus:\n{}",
                log()
            );
            pause_after(began);
        }
    }
}

impl Drop for PrometheusServer {
    fn drop(&mut self) {
        for server in [&mut self.child, &mut self.alertmanager] {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

/// The name of an alert, with the node, source or target that it is about if it has one.
fn about(labels: &Value) -> String {
    let subject = ["node", "source", "target", "subject_cn"].iter().find_map(|name| labels[*name].as_str());
    format!("{} {}", text(&labels["alertname"]), subject.unwrap_or_default()).trim().to_owned()
}

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
    let mut command = prometheus_program("promtool");
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
        let empty: Vec<String> = prometheus.empty.take();
        let of_other_tests: Vec<&String> =
            empty.iter().filter(|query| !ELSEWHERE.iter().any(|metric| query.contains(metric))).collect();
        assert_eq!(of_other_tests, Vec::<&String>::new(), "queries of the dashboard that found nothing in any state");
        drop(others);
        prometheus.wait_firing("all agents are gone", &["NodetrustAbsent"]);
    });
}
