//! A cluster of booted nodes: a real API server, scheduler, controller manager and kubelets of `scripts/node up --kubernetes`.
//!
//! As with a machine, each test has its own, and what is left of it is taken down when the test ends, however it ends.

use std::{
    io::Write as _,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use nodetrust_core::node_status::{ANNOTATION, CONDITION, NodeStatus};
use serde_json::Value;

use super::{
    machine::MachineKind,
    must,
    node::Done,
    rig::{Access, Rig, connect, connect_from, script},
    served::AgentHttp,
    wait_for,
};

/// Longest wait for what a healthy cluster does in seconds; the machine may be busy.
const LIMIT: Duration = Duration::from_secs(300);

/// The image that our manifests name.
pub const IMAGE: &str = "ghcr.io/nodetrust/nodetrust:0.1.0";
/// Where an agent of our manifests serves HTTP.
pub const PORT: u16 = 9643;

/// A running cluster.
pub struct TestCluster {
    rig: Rig,
    nodes: Vec<String>,
    environment: Vec<(&'static str, &'static str)>,
}

impl TestCluster {
    /// Boots a cluster of nodes with these names. All are Ready when this returns.
    #[track_caller]
    pub fn boot(nodes: &[(&str, MachineKind)]) -> Self {
        Self::boot_with(nodes, &[])
    }

    /// The same with an audit log of what this user asks of the API server: see [`Self::audit`].
    #[track_caller]
    pub fn boot_audited(nodes: &[(&str, MachineKind)], user: &'static str) -> Self {
        Self::boot_with(nodes, &[("RIG_AUDIT", user)])
    }

    /// The same with these additions to the environment of `up`.
    #[track_caller]
    pub fn boot_with(nodes: &[(&str, MachineKind)], environment: &[(&'static str, &'static str)]) -> Self {
        let words: Vec<String> = nodes.iter().map(|(name, kind)| format!("{name}={}", kind.name())).collect();
        let words: Vec<&str> = ["--kubernetes"].into_iter().chain(words.iter().map(String::as_str)).collect();
        // A changed ConfigMap reaches its pods within two seconds.
        let environment = [&[("RIG_SYNC", "1s")], environment].concat();
        let rig = Rig::up(&words, &environment);
        Self { rig, nodes: nodes.iter().map(|(name, _)| (*name).to_owned()).collect(), environment }
    }

    /// Boots one more node and has it join. It is Ready when this returns.
    #[track_caller]
    pub fn join(&mut self, name: &str, kind: MachineKind) {
        let mut command = script(&self.rig.name, &["join", &format!("{name}={}", kind.name())]);
        Done::new(must("scripts/node join", command.envs(self.environment.iter().copied()).output())).expect(0);
        self.nodes.push(name.to_owned());
    }

    /// Pulls a node's network cable, or plugs it in again.
    #[track_caller]
    pub fn link(&self, name: &str, on: bool) {
        let word = if on { "on" } else { "off" };
        Done::new(must("scripts/node link", script(&self.rig.name, &["link", word, name]).output())).expect(0);
    }

    /// Kills the API server with SIGKILL, or starts it again with what it knew.
    #[track_caller]
    pub fn api_server(&self, on: bool) {
        let word = if on { "start" } else { "kill" };
        let mut command = script(&self.rig.name, &["service", word, "apiserver"]);
        Done::new(must("scripts/node service", command.output())).expect(0);
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
        self.push_with(image, &[])
    }

    /// The same of an image with this program.
    #[track_caller]
    pub fn push_program(&self, image: &str, program: &str) -> String {
        self.push_with(image, &[program])
    }

    #[track_caller]
    fn push_with(&self, image: &str, program: &[&str]) -> String {
        let words = [&["push", image], program].concat();
        Done::new(must("scripts/node push", script(&self.rig.name, &words).output())).expect(0);
        format!("registry.test:5443/{image}")
    }

    /// A node's address, as pods, the API server and tests see it.
    pub fn address(&self, name: &str) -> String {
        let index = self.nodes.iter().position(|known| known == name).unwrap();
        format!("198.51.100.{}", 11 + index)
    }

    /// The agent that serves HTTP on a node, with the log of its pod.
    pub fn agent(&self, name: &str, port: u16, namespace: &str, pod: &str) -> AgentHttp {
        let (rig, address) = (self.rig.name.clone(), self.address(name));
        let (log_rig, words) = (self.rig.name.clone(), ["kubectl", "-n", namespace, "logs", pod].map(str::to_owned));
        let log = move || {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            script(&log_rig, &words).output().map(|output| Done::new(output).out).unwrap_or_default()
        };
        AgentHttp::new(move || connect(&rig, &address, port), log)
    }

    /// The same, from within its node and with the log as it lies there: this needs neither network nor API server.
    pub fn agent_from_within(&self, name: &str, port: u16) -> AgentHttp {
        let (network, node) = (format!("{}-{name}", self.rig.name), self.node(name));
        let log =
            move || node.run(&["sh", "-c", "cat \"$(ls -td /var/log/pods/nodetrust_* | head -n 1)\"/*/*.log"]).out;
        AgentHttp::new(move || connect_from(&network, "127.0.0.1", port), log)
    }

    /// Follows what `kubectl get` with these words shows, from now on.
    #[track_caller]
    pub fn watch(&self, words: &[&str]) -> Watch {
        let words: Vec<&str> = ["kubectl", "get", "--watch", "-o", "json"].iter().chain(words).copied().collect();
        let mut command = script(&self.rig.name, &words);
        let mut child = must("scripts/node kubectl", command.process_group(0).stdout(Stdio::piped()).spawn());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (out, into) = (child.stdout.take().unwrap(), seen.clone());
        thread::spawn(move || {
            for object in serde_json::Deserializer::from_reader(out).into_iter::<Value>().map_while(Result::ok) {
                into.lock().unwrap().push(object);
            }
        });
        Watch { child, seen }
    }

    /// Waits until a node's condition of ours has this status and reason.
    #[track_caller]
    pub fn wait_condition(&self, node: &str, status: &str, reason: &str) -> Value {
        let holds = |node: &Value| {
            condition(node, CONDITION).is_some_and(|is| is["status"] == status && is["reason"] == reason)
        };
        let node = self.wait(&format!("{status} {reason}"), &["node", node], holds);
        condition(&node, CONDITION).unwrap().clone()
    }

    /// Waits until the agent has rolled out on every node.
    #[track_caller]
    pub fn rolled_out(&self) {
        let done = self.kubectl(&["-n", "nodetrust", "rollout", "status", "daemonset/nodetrust", "--timeout=300s"]);
        if done.code != 0 {
            let told = self.kubectl(&["-n", "nodetrust", "describe", "pods"]);
            let logs = self.kubectl(&[
                "-n",
                "nodetrust",
                "logs",
                "-l",
                "app.kubernetes.io/name=nodetrust",
                "--all-containers",
            ]);
            panic!("{done:?}\n{}\n{}", told.out, logs.out);
        }
    }

    /// The pods that `kubectl get pods` lists with these words.
    #[track_caller]
    pub fn pods(&self, words: &[&str]) -> Vec<Value> {
        items(&self.get(&[&["pods"], words].concat()))
    }

    /// Loads an image with this one static program into every node; pods want `imagePullPolicy: Never`. In place of the one that our
    /// manifests name, it is the archive that `NODETRUST_IMAGE` names, if that is set: see `scripts/image`.
    #[track_caller]
    pub fn image(&self, name: &str, program: &str) {
        let built = std::env::var("NODETRUST_IMAGE").ok().filter(|_| name == IMAGE);
        let program = built.as_deref().unwrap_or(program);
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

    /// `nodetrust topology` with this kubeconfig, run where the API server can be reached.
    pub fn topology(&self, kubeconfig: &Path, args: &[&str]) -> Done {
        let mut command = self.beside(Path::new(super::program()));
        command.args(["topology", "--kubeconfig"]).arg(kubeconfig).args(args);
        Done::new(must("nodetrust topology", command.output()))
    }

    /// What the API server has written into its audit log so far.
    #[track_caller]
    pub fn audit(&self) -> Vec<Value> {
        let kubeconfig = self.kubeconfig();
        let log = kubeconfig.parent().and_then(Path::parent).map(|state| state.join("log/audit.log")).unwrap();
        let text = must("the audit log", std::fs::read_to_string(log));
        let end = text.rfind('\n').map_or(0, |end| end + 1); // the last line may be half written
        text[..end].lines().map(|line| must("a line of the audit log", serde_json::from_str(line))).collect()
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
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes()); // kubectl need not read all of it
        Done::new(must("scripts/node kubectl", child.wait_with_output()))
    }

    /// Applies manifests.
    #[track_caller]
    pub fn apply(&self, manifests: &str) {
        self.kubectl_with(&["apply", "-f", "-"], manifests).expect(0);
    }

    /// What `kubectl get` shows with these words, as JSON.
    #[track_caller]
    pub fn get(&self, words: &[&str]) -> Value {
        self.look(words).expect(0).json()
    }

    /// The same, also if there is no such thing. Where `curl` can ask, it does: tests look often, and kubectl takes ten times as long.
    fn look(&self, words: &[&str]) -> Done {
        let Some(path) = path_of(words) else {
            let words: Vec<&str> = ["get", "-o", "json"].iter().chain(words).copied().collect();
            return self.kubectl(&words);
        };
        let pki = self.kubeconfig().parent().map(Path::to_owned).unwrap_or_default();
        let mut command = self.beside(Path::new("curl"));
        // for an agent named curl the server indents its answer, and one of 1.20 that Go 1.19 has built dies of that
        command.args(["--disable", "--user-agent", "rig", "--noproxy", "*", "--silent", "--show-error"]);
        command.args(["--fail-with-body", "--max-time", "20"]);
        for (option, file) in [("--cacert", "kubernetes-ca.crt"), ("--cert", "admin.crt"), ("--key", "admin.key")] {
            command.arg(option).arg(pki.join(file));
        }
        command.arg(format!("https://198.51.100.1{path}"));
        Done::new(must("curl", command.output()))
    }

    /// The events on a node with this reason.
    #[track_caller]
    pub fn events(&self, node: &str, reason: &str) -> Vec<Value> {
        let is = |event: &Value| event["involvedObject"]["name"] == node && event["reason"] == reason;
        items(&self.get(&["events", "-n", "default"])).into_iter().filter(is).collect()
    }

    /// Waits until an object, as `kubectl get` gives it, satisfies a condition.
    #[track_caller]
    pub fn wait(&self, what: &str, words: &[&str], holds: impl Fn(&Value) -> bool) -> Value {
        let look = || {
            let done = self.look(words);
            (done.code == 0).then(|| done.json()).filter(|value| holds(value))
        };
        wait_for(what, LIMIT, look)
    }
}

/// The path of what `kubectl get` shows with these words; None for words that are not known here.
fn path_of(words: &[&str]) -> Option<String> {
    let (mut namespace, mut query, mut names) = ("default", String::new(), Vec::new());
    let mut rest = words.iter().copied();
    while let Some(word) = rest.next() {
        match word {
            "-n" => namespace = rest.next()?,
            "-l" => query = format!("?labelSelector={}", rest.next()?.replace('=', "%3D").replace(',', "%2C")),
            _ if word.starts_with('-') || word.contains(['/', ',']) => return None,
            _ => names.push(word),
        }
    }
    let (kind, name) = match *names.as_slice() {
        [kind] => (kind, String::new()),
        [kind, name] => (kind, format!("/{name}")),
        _ => return None,
    };
    let kind = kind.trim_end_matches('s');
    let api = match kind {
        "node" => return Some(format!("/api/v1/nodes{name}{query}")),
        "pod" | "event" | "configmap" | "secret" | "serviceaccount" => "/api/v1",
        "daemonset" => "/apis/apps/v1",
        "lease" => "/apis/coordination.k8s.io/v1",
        _ => return None,
    };
    Some(format!("{api}/namespaces/{namespace}/{kind}s{name}{query}"))
}

/// A condition of a Node object.
pub fn condition<'a>(node: &'a Value, kind: &str) -> Option<&'a Value> {
    node["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == kind)
}

/// What a node's annotation says.
pub fn annotation(node: &Value) -> Option<NodeStatus> {
    NodeStatus::parse(node["metadata"]["annotations"][ANNOTATION].as_str()?)
}

/// The objects of a list.
pub fn items(list: &Value) -> Vec<Value> {
    list["items"].as_array().cloned().unwrap_or_default()
}

/// What a running `kubectl get --watch` has shown so far: every state of every object, in the order of their making.
pub struct Watch {
    child: Child,
    seen: Arc<Mutex<Vec<Value>>>,
}

impl Watch {
    /// The states of the objects of this name.
    pub fn states(&self, name: &str) -> Vec<Value> {
        self.seen.lock().unwrap().iter().filter(|object| object["metadata"]["name"] == name).cloned().collect()
    }

    /// Every state of every object.
    pub fn all(&self) -> Vec<Value> {
        self.seen.lock().unwrap().clone()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let group = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
        let _ = self.child.wait();
    }
}
