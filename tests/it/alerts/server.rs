//! Debian's Prometheus and Alertmanager, which scrape real agents and evaluate the rules as they are shipped. Only the waiting is shorter:
//! without the `for` of alerts that wait for less than hours.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    net::TcpListener,
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use serde_json::json;

use super::*;
use crate::support::{
    cluster::{PORT, TestCluster},
    pause_after,
};

/// What an agent on a node root, without a runtime or a cluster, has nothing to tell of.
const OF_A_FLEET: [&str; 5] = [
    "nodetrust_runtime_state",
    "nodetrust_fleet_",
    "nodetrust_restart_held",
    "nodetrust_anchor_grace_end",
    "nodetrust_probe_not_after",
];
/// The tool may be slow on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(240);

/// A running Prometheus of Debian, and the Alertmanager that it tells; both are ended with the test.
pub struct PrometheusServer<'a> {
    child: Child,
    url: String,
    alertmanager: Child,
    alertmanager_url: String,
    dir: TempDir,
    /// makes the command of a program that reaches the agents
    reach: Box<dyn Fn(&Path) -> Command + 'a>,
    /// queries of the dashboard that have found nothing so far
    empty: RefCell<Vec<String>>,
}

fn is_of_a_fleet(query: &str) -> bool {
    OF_A_FLEET.iter().any(|metric| query.contains(metric))
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
fn start_alertmanager(mut command: Command, dir: &Path, port: u16) -> Child {
    let config = json!({"route": {"receiver": "nobody"}, "receivers": [{"name": "nobody"}]});
    must("a configuration", fs::write(dir.join("alertmanager.yml"), config.to_string()));
    command.arg(format!("--config.file={}", dir.join("alertmanager.yml").display()));
    command.arg(format!("--storage.path={}", dir.join("alerts").display()));
    command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
    command.arg("--cluster.listen-address=");
    start(&mut command, &dir.join("alertmanager.log"))
}

impl<'a> PrometheusServer<'a> {
    /// Scrapes agents of this machine, by the names of their nodes, and evaluates the rules, each second.
    pub fn start(agents: &[(&str, u16)]) -> Self {
        let agents: Vec<_> = agents.iter().map(|(node, port)| (*node, format!("127.0.0.1:{port}"))).collect();
        Self::start_with(&agents, Box::new(|path| Command::new(path)))
    }

    /// The same for the agents of a cluster's nodes, in the network beside it.
    pub fn beside(cluster: &'a TestCluster, nodes: &[&str]) -> Self {
        let agents: Vec<_> = nodes.iter().map(|node| (*node, format!("{}:{PORT}", cluster.address(node)))).collect();
        Self::start_with(&agents, Box::new(|path| cluster.beside(path)))
    }

    fn start_with(agents: &[(&str, String)], reach: Box<dyn Fn(&Path) -> Command + 'a>) -> Self {
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
        let targets: Vec<Value> =
            agents.iter().map(|(node, address)| json!({"targets": [address], "labels": {"node": node}})).collect();
        let alertmanager_port = free_port();
        let command = reach(&installed("prometheus-alertmanager"));
        let alertmanager = start_alertmanager(command, dir.path(), alertmanager_port);
        let config = json!({
            "alerting": {"alertmanagers": [{"static_configs": [{"targets": [format!("127.0.0.1:{alertmanager_port}")]}]}]},
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": ["rules.yml"],
            "scrape_configs": [{"job_name": "nodetrust", "static_configs": targets}],
        });
        must("a configuration", fs::write(dir.path().join("prometheus.yml"), config.to_string()));
        let port = free_port();
        let mut command = reach(&installed("prometheus"));
        command.arg(format!("--config.file={}", dir.path().join("prometheus.yml").display()));
        command.arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()));
        command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
        let child = start(&mut command, &dir.path().join("log"));
        let [url, alertmanager_url] = [port, alertmanager_port].map(|port| format!("http://127.0.0.1:{port}"));
        let empty = RefCell::new(dashboard::expressions());
        Self { child, url, alertmanager, alertmanager_url, dir, reach, empty }
    }

    /// What a query finds; None while the server does not answer.
    fn query(&self, expression: &str) -> Option<Vec<Value>> {
        let mut command = (self.reach)(&installed("promtool"));
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
        let mut command = (self.reach)(&installed("amtool"));
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

    /// The queries of the dashboard that an agent without a fleet answers, as far as they have found nothing in any state so far.
    pub fn empty_panels(&self) -> Vec<String> {
        self.empty.borrow().iter().filter(|query| !is_of_a_fleet(query)).cloned().collect()
    }

    /// Waits until every other query of the dashboard has found something in one state or another.
    #[track_caller]
    pub fn wait_fleet_panels(&self) {
        let end = Instant::now() + LIMIT;
        loop {
            let began = Instant::now();
            self.ask_the_dashboard();
            let empty: Vec<String> = self.empty.borrow().iter().filter(|query| is_of_a_fleet(query)).cloned().collect();
            if empty.is_empty() {
                return;
            }
            assert!(began < end, "queries of the dashboard that found nothing in any state: {empty:#?}");
            pause_after(began);
        }
    }

    /// Asks what the dashboard asks, as far as it has found nothing yet.
    fn ask_the_dashboard(&self) {
        self.empty.borrow_mut().retain(|expression| {
            let mut command = (self.reach)(Path::new("curl"));
            command.args(["--disable", "--noproxy", "*", "--silent", "--data-urlencode"]);
            command.arg(format!("query={expression}")).arg(format!("{}/api/v1/query", self.url));
            let answer = Done::new(must("curl", command.output())).json();
            assert_eq!(answer["status"], "success", "{expression}: {answer}");
            array(&answer["data"]["result"]).next().is_none()
        });
    }

    /// What the server has said.
    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Waits until these alerts fire among others.
    #[track_caller]
    pub fn wait_among(&self, state: &str, wanted: &[&str]) {
        let end = Instant::now() + LIMIT;
        loop {
            let began = Instant::now();
            let firing = self.firing().unwrap_or_default();
            if wanted.iter().all(|name| firing.contains(*name)) {
                break;
            }
            assert!(began < end, "{state}: {wanted:?} should fire, {firing:?} do; Prometheus:\n{}", self.log());
            pause_after(began);
        }
        self.ask_the_dashboard();
    }

    /// Waits until exactly these alerts fire, and have reached Alertmanager.
    #[track_caller]
    pub fn wait_firing(&self, state: &str, wanted: &[&str]) {
        let wanted: BTreeSet<String> = wanted.iter().map(|name| (*name).to_owned()).collect();
        let end = Instant::now() + LIMIT;
        loop {
            let began = Instant::now();
            let firing = self.firing();
            let received = if firing.as_ref() == Some(&wanted) { self.received() } else { None };
            if received.as_ref() == Some(&wanted) {
                return self.ask_the_dashboard();
            }
            assert!(
                began < end,
                "{state}: {wanted:?} should fire, {firing:?} do, Alertmanager has {received:?}; Prometheus:\n{}",
                self.log()
            );
            pause_after(began);
        }
    }
}

impl Drop for PrometheusServer<'_> {
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
