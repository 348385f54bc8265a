//! What the cluster is told, and that nothing waits for it.

use std::time::Duration;

use nodetrust_core::node::{ANNOTATION, CONDITION, NodeStatus};
use serde_json::Value;

use crate::support::{
    cluster::{Cluster, condition},
    machine::Kind,
    pki::Ca,
    wait_for,
};

/// For what takes seconds, on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);
const IMAGE: &str = "nodetrust.test/nodetrust:test";
const PORT: u16 = 9643;

/// An agent on every node with no more rights than it needs, its ConfigMap and its configuration.
fn manifests(cas: &[&Ca], more: &str) -> String {
    let indent = |text: &str| text.lines().map(|line| format!("    {line}\n")).collect::<String>();
    let pem: String = cas.iter().map(|ca| ca.pem()).collect();
    let pem = if pem.is_empty() { "words".to_owned() } else { pem };
    let config = format!("sources:\n- {{name: org, path: /sources/org}}\nsettle: 100ms\nresync: 2s\n{more}\n");
    format!(
        r#"
apiVersion: v1
kind: Namespace
metadata: {{name: nodetrust}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {{name: nodetrust, namespace: nodetrust}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {{name: nodetrust}}
rules:
- {{apiGroups: [""], resources: [nodes], verbs: [get, patch]}}
- {{apiGroups: [""], resources: [nodes/status], verbs: [patch]}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {{name: nodetrust}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: nodetrust}}
subjects: [{{kind: ServiceAccount, name: nodetrust, namespace: nodetrust}}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {{name: nodetrust-events, namespace: default}}
rules:
- {{apiGroups: [""], resources: [events], verbs: [create]}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {{name: nodetrust-events, namespace: default}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: nodetrust-events}}
subjects: [{{kind: ServiceAccount, name: nodetrust, namespace: nodetrust}}]
---
apiVersion: v1
kind: ConfigMap
metadata: {{name: config, namespace: nodetrust}}
data:
  config.yaml: |
{}
---
apiVersion: v1
kind: ConfigMap
metadata: {{name: org, namespace: nodetrust}}
data:
  ca.crt: |
{}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {{name: nodetrust, namespace: nodetrust}}
spec:
  selector: {{matchLabels: {{app: nodetrust}}}}
  template:
    metadata: {{labels: {{app: nodetrust}}}}
    spec:
      serviceAccountName: nodetrust
      hostNetwork: true
      priorityClassName: system-node-critical
      tolerations: [{{operator: Exists}}]
      containers:
      - name: nodetrust
        image: {IMAGE}
        imagePullPolicy: Never
        args: [-v, run]
        env:
        - {{name: NODE_NAME, valueFrom: {{fieldRef: {{fieldPath: spec.nodeName}}}}}}
        securityContext:
          readOnlyRootFilesystem: true
          allowPrivilegeEscalation: false
          capabilities: {{drop: [ALL], add: [SYS_CHROOT]}}
        volumeMounts:
        - {{name: host, mountPath: /host, mountPropagation: HostToContainer}}
        - {{name: config, mountPath: /etc/nodetrust}}
        - {{name: org, mountPath: /sources/org}}
      volumes:
      - {{name: host, hostPath: {{path: /}}}}
      - {{name: config, configMap: {{name: config}}}}
      - {{name: org, configMap: {{name: org}}}}
"#,
        indent(&config),
        indent(&pem)
    )
}

/// Waits until a node's condition has this status and reason.
#[track_caller]
fn wait_condition(cluster: &Cluster, node: &str, status: &str, reason: &str) -> Value {
    let holds =
        |node: &Value| condition(node, CONDITION).is_some_and(|is| is["status"] == status && is["reason"] == reason);
    let node = cluster.wait(&format!("{status} {reason}"), &["node", node], holds);
    condition(&node, CONDITION).unwrap().clone()
}

/// What a node's annotation says.
fn annotation(node: &Value) -> Option<NodeStatus> {
    NodeStatus::parse(node["metadata"]["annotations"][ANNOTATION].as_str()?)
}

#[test]
fn a_real_api_server_shows_what_the_node_trusts() {
    let cluster = Cluster::boot(&[("one", Kind::Bookworm)]);
    cluster.image(IMAGE, env!("CARGO_BIN_EXE_nodetrust"));
    for taint in ["corp.test/no-trust=yes:NoSchedule", "corp.test/other=yes:PreferNoSchedule"] {
        cluster.kubectl(&["taint", "node", "one", taint]).expect(0);
    }
    let (old, new) = (Ca::new("Corp Root 2021"), Ca::new("Corp Root 2026"));
    let taint = "kubernetes: {startupTaint: \"corp.test/no-trust:NoSchedule\"}";
    cluster.apply(&manifests(&[&old], taint));
    let first = wait_condition(&cluster, "one", "True", "Trusted");
    let has = |cas: &[&Ca]| {
        let want: Vec<String> = cas.iter().map(|ca| ca.fp16()).collect();
        move |node: &Value| {
            annotation(node).is_some_and(|status| {
                let mut has: Vec<String> = status.anchors.iter().map(|mark| mark.fp16.clone()).collect();
                has.sort();
                let mut want = want.clone();
                want.sort();
                has == want && status.desired == status.effective && !status.runtime_stale
            })
        }
    };
    let node = cluster.wait("one anchor", &["node", "one"], has(&[&old]));
    assert_eq!(annotation(&node).unwrap().anchors[0].cn, "Corp Root 2021");
    let others: Vec<&str> =
        node["status"]["conditions"].as_array().unwrap().iter().filter_map(|c| c["type"].as_str()).collect();
    assert!(others.contains(&"Ready") && others.contains(&"MemoryPressure"), "{others:?}");
    let node = cluster.wait("the startup taint's end", &["node", "one"], |node| {
        !node["spec"]["taints"].to_string().contains("no-trust")
    });
    assert!(node["spec"]["taints"].to_string().contains("corp.test/other"), "{}", node["spec"]["taints"]);
    wait_for("an event", LIMIT, || cluster.events("one", "TrustAnchorsChanged").pop());
    let described = cluster.kubectl(&["describe", "node", "one"]).expect(0).out;
    assert!(described.contains("TrustAnchorsChanged") && described.contains("TrustReady"), "{described}");

    // a rotation: the condition stays True at its end, and has not turned since
    let agent = cluster.agent("one", PORT, "nodetrust", "daemonset/nodetrust");
    cluster.apply(&manifests(&[&old, &new], taint));
    cluster.wait("two anchors", &["node", "one"], has(&[&old, &new]));
    let then = wait_condition(&cluster, "one", "True", "Trusted");
    wait_for("a restart of containerd", LIMIT, || cluster.events("one", "RuntimeRestarted").pop());

    // many cycles without any news
    let cycles = || agent.metric("nodetrust_reconcile_duration_seconds_count");
    let so_far = wait_for("the agent", LIMIT, cycles);
    wait_for("more cycles", LIMIT, || cycles().filter(|now| *now >= so_far + 5.0));
    let node = cluster.get(&["node", "one"]);
    assert_eq!(condition(&node, CONDITION), Some(&then), "written at rest");
    let status: Value = agent.status().unwrap();
    assert!(status["kubernetes"]["error"].is_null() && status["kubernetes"]["since"].is_string(), "{status}");
    assert_eq!(agent.metric("nodetrust_errors_total{reason=\"kubernetes\"}"), Some(0.0), "{}", agent.log_text());
    println!("first {first}\nthen {then}");

    // a source that goes silent is told, and what it said stays
    cluster.apply(&manifests(&[], taint));
    let held = wait_condition(&cluster, "one", "True", "SourceUnavailable");
    assert_eq!(held["lastTransitionTime"], then["lastTransitionTime"]);
    wait_for("an event of the rejection", LIMIT, || cluster.events("one", "SourceRejected").pop());
    assert_eq!(cluster.events("one", "SourceRejected").len(), 1);
}
