//! A cluster of booted nodes: a real API server, scheduler, controller manager and kubelets of `scripts/node up --kubernetes`.
//!
//! As with a machine, each test has its own, and what is left of it is taken down when the test ends, however it ends.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::Value;

use super::{
    machine::{Access, Kind, Rig, connect, script},
    must,
    node::Done,
    served::Served,
    wait_for,
};

/// For what a healthy cluster does in seconds, on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

/// A running cluster.
pub struct Cluster {
    rig: Rig,
    nodes: Vec<String>,
}

impl Cluster {
    /// Boots a cluster of nodes with these names. All are Ready when this returns.
    #[track_caller]
    pub fn boot(nodes: &[(&str, Kind)]) -> Self {
        let words: Vec<String> = nodes.iter().map(|(name, kind)| format!("{name}={}", kind.name())).collect();
        let words: Vec<&str> = ["--kubernetes"].into_iter().chain(words.iter().map(String::as_str)).collect();
        // a changed ConfigMap is in its pods after a second or two
        let rig = Rig::up(&words, &[("RIG_SYNC", "1s")]);
        Self { rig, nodes: nodes.iter().map(|(name, _)| (*name).to_owned()).collect() }
    }

    /// A way into a node.
    pub fn node(&self, name: &str) -> Access {
        assert!(self.nodes.iter().any(|known| known == name), "no node {name}");
        Access::new(&self.rig.name, name)
    }

    /// The CA that has signed the registry's certificate.
    pub fn registry_ca(&self) -> String {
        let path = self.rig.up.out.trim().rsplit(' ').next().unwrap_or_default();
        must("the registry's CA", std::fs::read_to_string(path))
    }

    /// Pushes an image `NAME:TAG` to the registry and returns its whole name.
    #[track_caller]
    pub fn push(&self, image: &str) -> String {
        Done::new(must("scripts/node push", script(&self.rig.name, &["push", image]).output())).expect(0);
        format!("registry.test:5443/{image}")
    }

    /// A node's address, as pods, the API server and tests see it.
    pub fn address(&self, name: &str) -> String {
        let index = self.nodes.iter().position(|known| known == name).unwrap();
        format!("198.51.100.{}", 11 + index)
    }

    /// The agent that serves HTTP on a node, with the log of its pod.
    pub fn agent(&self, name: &str, port: u16, namespace: &str, pod: &str) -> Served {
        let (rig, address) = (self.rig.name.clone(), self.address(name));
        let (log_rig, words) = (self.rig.name.clone(), ["kubectl", "-n", namespace, "logs", pod].map(str::to_owned));
        let log = move || {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            script(&log_rig, &words).output().map(|output| Done::new(output).out).unwrap_or_default()
        };
        Served::new(move || connect(&rig, &address, port), log)
    }

    /// Loads an image with this one static program into every node; pods want `imagePullPolicy: Never`.
    #[track_caller]
    pub fn image(&self, name: &str, program: &str) {
        Done::new(must("scripts/node image", script(&self.rig.name, &["image", name, program]).output())).expect(0);
    }

    /// The administrator's kubeconfig, of use only in the network beside the cluster.
    pub fn kubeconfig(&self) -> PathBuf {
        let ca = self.rig.up.out.trim().rsplit(' ').next().map(PathBuf::from);
        ca.as_deref().and_then(Path::parent).map(|pki| pki.join("admin.kubeconfig")).unwrap()
    }

    /// A program of this machine, run in the network beside the cluster.
    pub fn beside(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}-hub", self.rig.name)).arg("--").arg(program).stdin(Stdio::null());
        command
    }

    /// Runs kubectl as the cluster's administrator.
    #[track_caller]
    pub fn kubectl(&self, words: &[&str]) -> Done {
        self.kubectl_with(words, "")
    }

    /// Runs kubectl with this on its standard input.
    #[track_caller]
    pub fn kubectl_with(&self, words: &[&str], input: &str) -> Done {
        let words: Vec<&str> = ["kubectl"].iter().chain(words).copied().collect();
        let mut command = script(&self.rig.name, &words);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = must("scripts/node kubectl", command.spawn());
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes()); // it need not read all of it
        Done::new(must("scripts/node kubectl", child.wait_with_output()))
    }

    /// Applies manifests.
    #[track_caller]
    pub fn apply(&self, manifests: &str) {
        self.kubectl_with(&["apply", "-f", "-"], manifests).expect(0);
    }

    /// `kubectl get` with these words, as JSON.
    #[track_caller]
    pub fn get(&self, words: &[&str]) -> Value {
        let words: Vec<&str> = ["get", "-o", "json"].iter().chain(words).copied().collect();
        self.kubectl(&words).expect(0).json()
    }

    /// The events on a node with this reason.
    #[track_caller]
    pub fn events(&self, node: &str, reason: &str) -> Vec<Value> {
        let all = self.get(&["events", "-n", "default"]);
        let is = |event: &&Value| event["involvedObject"]["name"] == node && event["reason"] == reason;
        all["items"].as_array().unwrap().iter().filter(is).cloned().collect()
    }

    /// Waits until an object, as `kubectl get` gives it, satisfies a condition.
    #[track_caller]
    pub fn wait(&self, what: &str, words: &[&str], holds: impl Fn(&Value) -> bool) -> Value {
        let all: Vec<&str> = ["get", "-o", "json"].iter().chain(words).copied().collect();
        let look = || {
            let done = self.kubectl(&all);
            (done.code == 0).then(|| done.json()).filter(|value| holds(value))
        };
        wait_for(what, LIMIT, look)
    }
}

/// A condition of a Node object.
pub fn condition<'a>(node: &'a Value, kind: &str) -> Option<&'a Value> {
    node["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == kind)
}
