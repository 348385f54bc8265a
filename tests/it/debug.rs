//! The screen of a node without a login there: by `kubectl exec` in the agent's pod, and, when no agent runs, in a debug pod.
//!
//! `kubectl debug node/…` is the real one, of both ages, against the real API server 1.20. Pods with fewer rights than it gives are written by hand.

use std::{process::Command, time::Duration};

use serde_json::{Value, json};

use crate::{
    manifests::{configmap, tool_path},
    support::{
        cluster::{IMAGE, TestCluster},
        machine::MachineKind,
        must,
        node::Done,
        pki::Ca,
        wait_for,
    },
};

/// Longest wait for events that take seconds; the machine may be busy.
const LIMIT: Duration = Duration::from_secs(240);
const NODE: &str = "trixie";

/// The command in docs/troubleshooting.md, without the node's name and the image.
const TYPED: &str = "kubectl debug node/NODE --profile=sysadmin -it --image=IMAGE -- nodetrust status";

/// Runs a command line on a terminal, with this version of kubectl; returns what the terminal shows.
#[track_caller]
fn type_line(cluster: &TestCluster, age: &str, line: &str) -> String {
    let kubectl = format!("{} --kubeconfig {}", tool_path(age, "kubectl").display(), cluster.kubeconfig().display());
    let line = line.replacen("kubectl", &kubectl, 1).replace("NODE", NODE).replace("IMAGE", IMAGE);
    let mut command: Command = cluster.beside("timeout".as_ref());
    command.args(["120", "script", "--quiet", "--return", "--command", &line, "/dev/null"]);
    Done::new(must("kubectl debug", command.output())).expect(0).out
}

/// Waits until a pod has ended; returns the exit code and what it printed.
#[track_caller]
fn ended(cluster: &TestCluster, pod: &str) -> Done {
    let terminated = |pod: &Value| pod["status"]["containerStatuses"][0]["state"]["terminated"].clone();
    let pod_now = cluster.wait(&format!("the end of {pod}"), &["pod", pod], |pod| terminated(pod).is_object());
    let code = terminated(&pod_now)["exitCode"].as_i64().unwrap();
    let log = cluster.kubectl(&["logs", pod]).expect(0);
    cluster.kubectl(&["delete", "pod", pod, "--wait=false"]).expect(0);
    Done { code: i32::try_from(code).unwrap(), ..log }
}

/// `nodetrust status` in a pod that kubectl makes so, by the pod's log.
#[track_caller]
fn debug(cluster: &TestCluster, age: &str, line: &str) -> Done {
    let shown = type_line(cluster, age, line);
    let name = shown.split_whitespace().find(|word| word.starts_with("node-debugger-"));
    // The log and not the terminal: on a busy node the program may end before kubectl listens, as the document says.
    ended(cluster, name.unwrap_or_else(|| panic!("no pod is named: {shown}")))
}

/// `nodetrust status` in a pod with these rights and the node's root read-only at /host.
#[track_caller]
fn by_hand(cluster: &TestCluster, name: &str, rights: Value) -> Done {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {
            "nodeName": NODE, "restartPolicy": "Never", "tolerations": [{"operator": "Exists"}],
            "containers": [{
                "name": "nodetrust", "image": IMAGE, "imagePullPolicy": "IfNotPresent", "args": ["status"], "securityContext": rights,
                "volumeMounts": [{"name": "host", "mountPath": "/host", "readOnly": true}],
            }],
            "volumes": [{"name": "host", "hostPath": {"path": "/"}}],
        },
    });
    cluster.apply(&pod.to_string());
    ended(cluster, name)
}

/// What `nodetrust -o json status` says in a debug pod of today's kubectl, as the document says to make one.
#[track_caller]
pub(crate) fn status_as_json(cluster: &TestCluster, node: &str) -> Value {
    assert_eq!(node, NODE, "the line is for this node");
    let line = "kubectl debug node/NODE --profile=sysadmin --image=IMAGE -- nodetrust -o json status";
    debug(cluster, "new", line).json()
}

#[test]
fn status_tells_the_truth_by_exec_and_in_debug_pods_without_an_agent() {
    let cluster = TestCluster::boot(&[(NODE, MachineKind::Trixie)]);
    cluster.image(IMAGE, crate::support::program());
    let ca = Ca::new("Corp Root");
    let install = configmap(&ca.pem(), "");
    cluster.apply(&install);
    cluster.rolled_out();
    cluster.wait_condition(NODE, "True", "Trusted");
    let exec = ["-n", "nodetrust", "exec", "ds/nodetrust", "--", "nodetrust", "status"];
    let done = cluster.kubectl(&exec).expect(0);
    let documents = include_str!("../../docs/troubleshooting.md");
    assert!(documents.contains(&TYPED.replace("IMAGE", IMAGE)));
    assert!(done.out.starts_with("trixie   TRUSTED   1 anchor "), "{}", done.out);

    // The agent is removed and its work stays. The screen needs neither the agent nor its configuration.
    cluster.kubectl_with(&["delete", "-f", "-"], &install).expect(0);
    wait_for("no agent", LIMIT, || cluster.pods(&["-n", "nodetrust"]).is_empty().then_some(()));
    let detached = "kubectl debug node/NODE --image=IMAGE -- nodetrust status";
    let as_documented = ("new", TYPED);
    for (age, line) in [as_documented, ("new", detached), ("old", detached)] {
        let done = debug(&cluster, age, line).expect(0);
        assert!(done.out.contains("TRUSTED") && !done.out.contains("NOT TRUSTED"), "{age} {line}: {}", done.out);
        assert!(done.out.contains("Corp Root") && done.out.contains("containerd.service"), "{}", done.out);
    }
    let few =
        json!({"readOnlyRootFilesystem": true, "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}});
    let done = by_hand(&cluster, "few-rights", few.clone()).expect(0);
    assert!(done.out.starts_with("trixie   TRUSTED   1 anchor "), "{}", done.out);
    // The pod may not run the runtime's program. The ledger remembers what the agent found of the running process.
    assert!(done.out.contains("certs.d: not configured"), "{}", done.out);

    // The machine boots again, without an agent.
    cluster.node(NODE).run(&["rm", "/run/nodetrust.lock"]).expect(0);
    let done = by_hand(&cluster, "since-boot", few.clone()).expect(0);
    assert!(done.out.contains("NEXT      no cycle since the node booted"), "{}", done.out);

    // A person adds the file by hand first, and then also runs the distribution's tool.
    let system = MachineKind::Trixie.system();
    let file = format!("{}/nodetrust-{}.{}", system.anchors_dir(), ca.fp16(), system.extension());
    cluster.node(NODE).run(&["rm", &file]).expect(0);
    let done = by_hand(&cluster, "file-gone", few.clone()).expect(2);
    assert!(done.out.starts_with("trixie   NOT CONVERGED   ") && done.out.contains("it was deleted"), "{}", done.out);
    cluster.node(NODE).run(&[system.tool()]).expect(0);
    for done in [debug(&cluster, "new", TYPED), by_hand(&cluster, "bundle-too", few)] {
        let text = done.expect(2).out;
        assert!(text.contains("NOT TRUSTED") && text.contains("Corp Root"), "{text}");
    }

    // A pod without the rights says which it lacks, and says nothing about the node.
    let done = debug(&cluster, "new", "kubectl debug node/NODE --profile=baseline --image=IMAGE -- nodetrust status");
    assert!(done.out.contains("no operating system here") && done.out.contains("--profile=sysadmin"), "{}", done.out);
    assert_eq!(done.code, 2);
    let nobody = json!({"runAsUser": 65534, "runAsGroup": 65534, "capabilities": {"drop": ["ALL"]}});
    let done = by_hand(&cluster, "nobody", nobody).expect(2);
    assert!(done.out.contains("ledger.json: Permission denied") && done.out.contains("run as root"), "{}", done.out);
}
