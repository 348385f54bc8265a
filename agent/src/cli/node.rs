//! `kubectl nodetrust status NODE`: what `nodetrust status` says on a node, asked of the agent's pod there.
//!
//! kubectl itself is run, whose plugin we are: it knows every way to log in, and carries a command into a pod.

use std::process::{Command, Stdio};

use anyhow::{Context as _, anyhow, bail};
use nodetrust_core::certificate::name::visible;
use serde::Deserialize;

use super::{
    arguments::{ClusterAccess, OutputFormat},
    context::Context,
    exit_code::FAILURE,
};

/// The program that we are a plugin of.
const KUBECTL: &str = "kubectl";
/// The namespace of the shipped manifests.
const USUAL_NAMESPACE: &str = "nodetrust";
/// The agent's container in its pod, whatever the DaemonSet is called.
const CONTAINER: &str = "nodetrust";
/// How long the API server may take to list the pods of a node.
const LIST_TIMEOUT: &str = "--request-timeout=60s";

#[derive(Deserialize)]
struct PodList {
    #[serde(default)]
    items: Vec<Pod>,
}

#[derive(Deserialize)]
struct Pod {
    metadata: PodMetadata,
    #[serde(default)]
    spec: PodSpec,
    #[serde(default)]
    status: PodState,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodMetadata {
    name: String,
    deletion_timestamp: Option<String>,
    #[serde(default)]
    owner_references: Vec<PodOwner>,
}

#[derive(Deserialize)]
struct PodOwner {
    kind: String,
}

#[derive(Default, Deserialize)]
struct PodSpec {
    #[serde(default)]
    containers: Vec<PodContainer>,
}

#[derive(Deserialize)]
struct PodContainer {
    name: String,
}

#[derive(Default, Deserialize)]
struct PodState {
    #[serde(default)]
    phase: String,
}

impl Pod {
    /// Whether it is an agent: of a DaemonSet, with the agent's container.
    fn is_agent(&self) -> bool {
        self.metadata.owner_references.iter().any(|owner| owner.kind == "DaemonSet")
            && self.spec.containers.iter().any(|container| container.name == CONTAINER)
    }

    fn can_be_asked(&self) -> bool {
        self.status.phase == "Running" && self.metadata.deletion_timestamp.is_none()
    }
}

pub(super) fn status(context: &Context, access: &ClusterAccess, node: &str) -> anyhow::Result<u8> {
    let namespace = access.namespace.as_deref().unwrap_or(USUAL_NAMESPACE);
    let pods = pods_on(access, namespace, node)?;
    let agents: Vec<&Pod> = pods.items.iter().filter(|pod| pod.is_agent()).collect();
    let Some(agent) = agents.iter().find(|pod| pod.can_be_asked()) else {
        let next = "`kubectl nodetrust` lists the nodes with an agent; --namespace says where nodetrust is installed";
        match agents.first() {
            Some(pod) => {
                let name = visible(&pod.metadata.name);
                let phase = visible(&pod.status.phase);
                bail!(
                    "the agent's pod {name} on node {node} cannot be asked: it is {phase} or ends; see `kubectl -n {namespace} describe pod {name}`"
                )
            }
            None => bail!("node {node} has no agent in the namespace {namespace}; {next}"),
        }
    };
    let form = match context.output {
        OutputFormat::Json => "json",
        OutputFormat::Yaml => "yaml",
        OutputFormat::Table | OutputFormat::Html => "table",
    };
    let mut exec = kubectl(access, namespace);
    exec.args(["exec", &agent.metadata.name, "-c", CONTAINER, "--", "nodetrust", "status", "-o", form]);
    let done = exec.stdin(Stdio::null()).status().with_context(not_run)?;
    // the exit code of the command in the pod; kubectl's own failures are 1
    Ok(done.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(FAILURE))
}

/// The pods of a node in the agents' namespace.
fn pods_on(access: &ClusterAccess, namespace: &str, node: &str) -> anyhow::Result<PodList> {
    let mut list = kubectl(access, namespace);
    list.args(["get", "pods", "-o", "json", LIST_TIMEOUT, "--field-selector", &format!("spec.nodeName={node}")]);
    // what kubectl says on stderr is for the user
    let done = list.stdin(Stdio::null()).stderr(Stdio::inherit()).output().with_context(not_run)?;
    if !done.status.success() {
        bail!("failed to list the pods of node {node} in the namespace {namespace}: kubectl says why");
    }
    serde_json::from_slice(&done.stdout).map_err(|error| anyhow!("what kubectl prints is no list of pods: {error}"))
}

/// kubectl, on the cluster that the user means.
fn kubectl(access: &ClusterAccess, namespace: &str) -> Command {
    let mut command = Command::new(KUBECTL);
    command.args(["--namespace", namespace]);
    if let Some(file) = &access.kubeconfig {
        command.arg("--kubeconfig").arg(file);
    }
    if let Some(context) = &access.context {
        command.args(["--context", context]);
    }
    command
}

fn not_run() -> String {
    format!("failed to run `{KUBECTL}`, by which the agent's pod is asked; it must be in $PATH")
}
