//! What the agent tells the cluster, and that trust does not wait for it.
//!
//! Long because each test tells a whole story of a node and its API server.

use std::{collections::BTreeSet, time::Duration};

use nodetrust_core::node_status::CONDITION;
use serde_json::Value;

use crate::support::{
    api::{self, Manner, SimulatedApi},
    cluster::{TestCluster, annotation, condition},
    machine,
    node::{self, Node, NodeAgent},
    pki::Ca,
    rights, wait_for,
};

/// Longest wait for events that take seconds; the machine may be busy.
const LIMIT: Duration = Duration::from_secs(240);
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
          capabilities: {{drop: [ALL], add: [{}]}}
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
        indent(&pem),
        rights::capabilities().join(", ")
    )
}

#[test]
fn a_real_api_server_shows_what_the_node_trusts() {
    let cluster = TestCluster::boot(&[("one", machine::MachineKind::Bookworm)]);
    cluster.image(IMAGE, crate::support::program());
    for taint in ["corp.test/no-trust=yes:NoSchedule", "corp.test/other=yes:PreferNoSchedule"] {
        cluster.kubectl(&["taint", "node", "one", taint]).expect(0);
    }
    let (old, new) = (Ca::new("Corp Root 2021"), Ca::new("Corp Root 2026"));
    let taint = "kubernetes: {startupTaint: \"corp.test/no-trust:NoSchedule\"}";
    cluster.apply(&manifests(&[&old], taint));
    cluster.wait_condition("one", "True", "Trusted");
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
    assert!(cluster.node("one").read("/etc/ssl/certs/ca-certificates.crt").unwrap().contains(old.pem().trim()));
    let others: Vec<&str> =
        node["status"]["conditions"].as_array().unwrap().iter().filter_map(|c| c["type"].as_str()).collect();
    assert!(others.contains(&"Ready") && others.contains(&"MemoryPressure"), "{others:?}");
    let node = cluster.wait("the startup taint's end", &["node", "one"], |node| {
        !node["spec"]["taints"].to_string().contains("no-trust")
    });
    assert!(node["spec"]["taints"].to_string().contains("corp.test/other"), "{}", node["spec"]["taints"]);
    wait_for("an event", LIMIT, || cluster.events("one", "TrustAnchorsChanged").pop());
    let raw: Value = cluster.kubectl(&["get", "--raw", "/api/v1/nodes/one"]).expect(0).json();
    let fields = raw["metadata"]["managedFields"].as_array().unwrap();
    let ours = |entry: &&Value| entry["manager"] == "nodetrust";
    assert!(fields.iter().any(|entry| ours(&entry)), "who has written the condition cannot be told: {fields:#?}");
    let described = cluster.kubectl(&["describe", "node", "one"]).expect(0).out;
    assert!(described.contains("TrustAnchorsChanged") && described.contains("TrustReady"), "{described}");

    // After a rotation the condition is True and has not changed in between.
    let agent = cluster.agent("one", PORT, "nodetrust", "daemonset/nodetrust");
    cluster.apply(&manifests(&[&old, &new], taint));
    cluster.wait("two anchors", &["node", "one"], has(&[&old, &new]));
    let then = cluster.wait_condition("one", "True", "Trusted");
    wait_for("a restart of containerd", LIMIT, || cluster.events("one", "RuntimeRestarted").pop());

    // Many cycles run without any change.
    let cycles = || agent.metric("nodetrust_reconcile_duration_seconds_count");
    let so_far = wait_for("the agent", LIMIT, cycles);
    wait_for("more cycles", LIMIT, || cycles().filter(|now| *now >= so_far + 5.0));
    let node = cluster.get(&["node", "one"]);
    assert_eq!(condition(&node, CONDITION), Some(&then), "written at rest");
    let status: Value = agent.status().unwrap();
    assert!(status["kubernetes"]["error"].is_null() && status["kubernetes"]["since"].is_string(), "{status}");
    assert_eq!(agent.metric("nodetrust_errors_total{reason=\"kubernetes\"}"), Some(0.0), "{}", agent.log_text());

    // A source that goes silent is reported, and its anchors stay.
    cluster.apply(&manifests(&[], taint));
    let held = cluster.wait_condition("one", "True", "SourceUnavailable");
    assert_eq!(held["lastTransitionTime"], then["lastTransitionTime"]);
    wait_for("an event of the rejection", LIMIT, || cluster.events("one", "SourceRejected").pop());
    assert_eq!(cluster.events("one", "SourceRejected").len(), 1);
}

/// A node with a simulated API server that listens.
fn simulated() -> (Node, SimulatedApi) {
    let mut node = Node::new(node::Kind::Bookworm, "");
    let api = SimulatedApi::start(&mut node);
    (node, api)
}

/// These roots have no runtime, unlike any node of a pod, so the configuration asks for none.
const NO_RUNTIME: &str = "runtime: {kind: none}\n";
const FAST: &str = "settle: 100ms\nrotation: {removalGrace: 1h}\nruntime: {kind: none}\n";

/// The number of failed tries so far.
fn errors(agent: &NodeAgent) -> f64 {
    agent.metric("nodetrust_errors_total{reason=\"kubernetes\"}").unwrap_or(0.0)
}

/// Waits until the Node says that these anchors, and no others, are trusted.
#[track_caller]
fn wait_told(api: &SimulatedApi, agent: &NodeAgent, cas: &[&Ca]) -> Value {
    let mut want: Vec<String> = cas.iter().map(|ca| ca.fp16()).collect();
    want.sort();
    wait_for("a Node that says it", LIMIT, || {
        let node = api.node();
        let is_ready = condition(&node, CONDITION).is_some_and(|is| is["status"] == "True");
        let mut has: Vec<String> = annotation(&node)?.anchors.iter().map(|mark| mark.fp16.clone()).collect();
        has.sort();
        let quiet = agent.status()?["kubernetes"]["error"].is_null();
        (is_ready && has == want && quiet).then_some(node)
    })
}

#[test]
fn simulated_api_may_fail_in_any_way_and_trust_does_not_wait() {
    let (node, api) = simulated();
    let first = Ca::new("First");
    node.set_source(&[&first]);
    let agent = node.agent(FAST);
    wait_told(&api, &agent, &[&first]);

    let manners = [
        Manner::Refuses(403, ""),
        Manner::Refuses(404, ""),
        Manner::Refuses(409, ""),
        Manner::Refuses(410, ""),
        Manner::Refuses(422, ""),
        Manner::Refuses(429, "Retry-After: 2\r\n"),
        Manner::Refuses(500, ""),
        Manner::Refuses(503, "Retry-After: 99999999999999999999\r\n"),
        Manner::Refuses(301, "Location: /elsewhere\r\n"),
        Manner::Garbage,
        Manner::Page,
        Manner::OtherNode,
        Manner::Cut,
        Manner::Forgets,
        Manner::Slow,
    ];
    let mut cas = vec![first];
    for manner in manners {
        cas.push(Ca::new(&format!("{manner:?}").chars().take(40).collect::<String>()));
        let all: Vec<&Ca> = cas.iter().collect();
        let (before, failed) = (api.requests().len(), errors(&agent));
        api.answer(manner.clone());
        node.set_source(&all);
        let status = agent.wait_converged(&all, LIMIT);
        assert_eq!(status["verdict"], "trusted", "{manner:?} is no matter of trust: {status}");
        wait_for(&format!("failures ({manner:?})"), LIMIT, || (errors(&agent) >= failed + 1.0).then_some(()));
        let status = agent.status().unwrap();
        assert!(status["kubernetes"]["error"].is_string(), "{manner:?}: {}", status["kubernetes"]);
        // A try makes at most the patches and the event, and each failed try is counted.
        let (requests, tries) = (api.requests().len() - before, errors(&agent) - failed + 1.0);
        assert!(requests as f64 <= 4.0 * tries, "{requests} requests in {tries} tries: {manner:?}");
        api.answer(Manner::Good);
        wait_told(&api, &agent, &all);
    }
    let told = agent.log_text().matches("the Kubernetes API cannot be told").count();
    assert!(told <= 2 * cas.len(), "{told} log lines: once a change, not once a try");
    let conditions = api.node()["status"]["conditions"].clone();
    assert_eq!(conditions.as_array().unwrap().len(), 2, "{conditions}");
    assert_eq!(api.node()["metadata"]["annotations"]["somebody"], "else's");
}

#[test]
fn simulated_api_gets_no_request_at_rest() {
    let (node, api) = simulated();
    let ca = Ca::new("Corp Root");
    node.set_source(&[&ca]);
    let agent = node.agent(&format!("settle: 100ms\nresync: 1s\n{NO_RUNTIME}"));
    let first = wait_told(&api, &agent, &[&ca]);
    wait_for("the event of the first install", LIMIT, || (api.events() == ["TrustAnchorsChanged"]).then_some(()));
    let requests: Vec<String> = api.requests().into_iter().map(|r| format!("{} {}", r.method, r.path)).collect();
    let own = "/api/v1/nodes/node-under-test";
    assert_eq!(
        requests,
        [
            format!("GET {own}"),
            format!("PATCH {own}/status?fieldManager=nodetrust"),
            format!("PATCH {own}?fieldManager=nodetrust"),
            "POST /api/v1/namespaces/default/events?fieldManager=nodetrust".to_owned()
        ]
    );
    // Audit logs and limits on requests see the program's name and version.
    let names: BTreeSet<String> = api.requests().into_iter().map(|request| request.agent).collect();
    assert_eq!(names, [concat!("nodetrust/", env!("CARGO_PKG_VERSION")).to_owned()].into());
    // Each event is about the own Node; the admission policy refuses others.
    for event in api.event_objects() {
        let about = &event["involvedObject"];
        assert_eq!([&about["kind"], &about["name"], &about["uid"]], ["Node", api::NODE, api::NODE], "{event:#}");
        assert_eq!((&about["namespace"], &event["metadata"]["namespace"]), (&Value::Null, &"default".into()));
    }
    let cycles = || agent.metric("nodetrust_reconcile_duration_seconds_count").unwrap_or(0.0);
    let so_far = cycles();
    wait_for("ten more cycles", LIMIT, || (cycles() >= so_far + 10.0).then_some(()));
    assert_eq!(api.requests().len(), requests.len(), "{:?}", api.requests());

    // Another agent finds the Node up to date: it reads once and sends no event of the first one's work.
    drop(agent);
    let agent = node.agent(&format!("settle: 100ms\nresync: 1s\n{NO_RUNTIME}"));
    wait_told(&api, &agent, &[&ca]);
    let so_far = cycles_of(&agent);
    wait_for("more cycles", LIMIT, || (cycles_of(&agent) >= so_far + 3.0).then_some(()));
    assert_eq!(api.requests().len(), requests.len() + 1, "{:?}", api.requests());
    assert_eq!(api.node(), first);
}

fn cycles_of(agent: &NodeAgent) -> f64 {
    agent.metric("nodetrust_reconcile_duration_seconds_count").unwrap_or(0.0)
}

#[test]
fn simulated_api_may_be_unreachable_when_the_agent_starts() {
    let mut node = Node::new(node::Kind::Bookworm, "");
    let api = SimulatedApi::new(&mut node);
    let ca = Ca::new("Corp Root");
    node.set_source(&[&ca]);
    let agent = node.agent(FAST);
    agent.wait_converged(&[&ca], LIMIT);
    wait_for("failures", LIMIT, || (errors(&agent) >= 2.0).then_some(()));
    assert!(node.trusts(&ca) && api.requests().is_empty());
    assert_eq!(agent.get("/readyz").unwrap().0, 200);
    api.listen();
    wait_told(&api, &agent, &[&ca]);
    wait_for("the event", LIMIT, || (api.events() == ["TrustAnchorsChanged"]).then_some(()));
}

#[test]
fn simulated_api_takes_another_token_after_a_while() {
    let (node, api) = simulated();
    let (one, two) = (Ca::new("One"), Ca::new("Two"));
    node.set_source(&[&one]);
    let agent = node.agent(FAST);
    wait_told(&api, &agent, &[&one]);
    // The round ends with the token that it began with.
    wait_for("the event of the first install", LIMIT, || (api.events() == ["TrustAnchorsChanged"]).then_some(()));
    api.token("second");
    node.set_source(&[&one, &two]);
    wait_told(&api, &agent, &[&one, &two]);
    assert_eq!(errors(&agent), 0.0, "the new token was there: {}", agent.log_text());
}

#[test]
fn simulated_api_that_forbids_one_part_gets_the_others() {
    let (node, api) = simulated();
    api.answer(Manner::RefusesAt("/status", 403));
    let ca = Ca::new("Corp Root");
    node.set_source(&[&ca]);
    let agent = node.agent(FAST);
    wait_for("annotation and event", LIMIT, || {
        (annotation(&api.node()).is_some() && !api.events().is_empty()).then_some(())
    });
    assert!(condition(&api.node(), CONDITION).is_none());
    let error = wait_for("an error", LIMIT, || Some(agent.status()?["kubernetes"]["error"].as_str()?.to_owned()));
    assert_eq!(error, "failed to write the Node's condition: the API server answers 403: a test says so");
    api.answer(Manner::Good);
    wait_told(&api, &agent, &[&ca]);

    api.answer(Manner::RefusesAt("/events", 403));
    let new = Ca::new("Corp Root 2");
    node.set_source(&[&ca, &new]);
    wait_for("the anchors", LIMIT, || annotation(&api.node()).filter(|status| status.anchors.len() == 2));
}

#[test]
fn simulated_api_loses_the_startup_taint_and_no_other() {
    let (node, api) = simulated();
    api.edit(|node| {
        node["spec"]["taints"] = serde_json::json!([
            {"key": "corp.test/no-trust", "effect": "NoSchedule"},
            {"key": "other", "effect": "NoSchedule"},
        ]);
    });
    let ca = Ca::new("Corp Root");
    // No source is usable yet, so the taint stays.
    let taint = format!("{FAST}kubernetes: {{startupTaint: \"corp.test/no-trust\"}}\n");
    let agent = node.agent(&taint);
    wait_for("a condition that is False", LIMIT, || {
        condition(&api.node(), CONDITION)
            .filter(|is| is["status"] == "False" && is["reason"] == "SourceUnavailable")
            .is_some()
            .then_some(())
    });
    assert!(api.node()["spec"]["taints"].to_string().contains("no-trust"));
    node.set_source(&[&ca]);
    wait_told(&api, &agent, &[&ca]);
    let other = serde_json::json!([{"key": "other", "effect": "NoSchedule"}]);
    wait_for("the other taint alone", LIMIT, || (api.node()["spec"]["taints"] == other).then_some(()));
}

/// On a busy node somebody writes to the Node all the time: a taint that names a version comes too late again and again.
#[test]
fn simulated_api_on_which_others_write_loses_the_startup_taint_in_the_first_try() {
    let (node, api) = simulated();
    api.edit(|node| node["spec"]["taints"] = serde_json::json!([{"key": "nodetrust.io/new", "effect": "NoSchedule"}]));
    api.conflict(7);
    let ca = Ca::new("Corp Root");
    node.set_source(&[&ca]);
    let agent = node.agent(&format!("{FAST}kubernetes: {{startupTaint: nodetrust.io/new}}\n"));
    wait_told(&api, &agent, &[&ca]);
    wait_for("the taint's end", LIMIT, || (api.node()["spec"]["taints"] == serde_json::json!([])).then_some(()));
    assert_eq!(errors(&agent), 0.0, "no pause: {}", agent.log_text());

    // A write that never comes in time is tried a few times only.
    api.edit(|node| node["spec"]["taints"] = serde_json::json!([{"key": "nodetrust.io/new", "effect": "NoSchedule"}]));
    api.conflict(u32::MAX);
    let before = api.requests().len();
    let new = Ca::new("Corp Root 2");
    node.set_source(&[&ca, &new]);
    wait_for("a failure", LIMIT, || (errors(&agent) >= 1.0).then_some(()));
    let (requests, tries) = (api.requests().len() - before, errors(&agent) + 1.0);
    assert!(requests as f64 <= 24.0 * tries, "{requests} requests in {tries} tries");
    let status = agent.status().unwrap();
    assert!(status["kubernetes"]["next"].as_str().unwrap().contains("managedFields"), "{}", status["kubernetes"]);
    api.conflict(0);
    wait_told(&api, &agent, &[&ca, &new]);
}

/// The kubelet renews a token long before its end; a pod that was suspended, or whose ServiceAccount was made anew, has an old one.
#[test]
fn simulated_api_is_told_at_once_when_a_refused_token_is_renewed() {
    let (node, api) = simulated();
    let (one, two) = (Ca::new("One"), Ca::new("Two"));
    node.set_source(&[&one]);
    let agent = node.agent(FAST);
    wait_told(&api, &agent, &[&one]);
    // The pause is longer than the test's wait.
    api.answer(Manner::Refuses(401, "Retry-After: 600\r\n"));
    node.set_source(&[&one, &two]);
    wait_for("a failure", LIMIT, || (errors(&agent) >= 1.0).then_some(()));
    api.answer(Manner::Good);
    api.token("second");
    wait_told(&api, &agent, &[&one, &two]);
}

/// The policy of the installation lets go of `nodetrust.io/…` only.
#[test]
fn simulated_api_whose_policy_keeps_a_taint_is_quoted_with_the_way_out() {
    let (node, api) = simulated();
    let ca = Ca::new("Corp Root");
    node.set_source(&[&ca]);
    let why = "nodes \"node-under-test\" is forbidden: ValidatingAdmissionPolicy 'nodetrust' with binding 'nodetrust' denied request: \
               nodetrust may only take a taint of its own, nodetrust.io/…, from a Node";
    for (status, taint, advice) in [
        (422, "corp.test/new", "begin with nodetrust.io/"),
        (403, "corp.test/new", "begin with nodetrust.io/"),
        (422, "nodetrust.io/new", "have it allow this"),
    ] {
        api.edit(|node| node["spec"]["taints"] = serde_json::json!([{"key": taint, "effect": "NoSchedule"}]));
        api.answer(Manner::KeepsTaints(status, why));
        let agent = node.agent(&format!("{FAST}kubernetes: {{startupTaint: {taint}}}\n"));
        let told = agent.wait_status("an error", LIMIT, |status| status["kubernetes"]["error"].is_string());
        let (error, next) =
            (told["kubernetes"]["error"].as_str().unwrap(), told["kubernetes"]["next"].as_str().unwrap());
        assert!(error.contains("startup taint") && error.contains("of its own, nodetrust.io/…"), "{error}");
        assert!(next.contains("ValidatingAdmissionPolicy `nodetrust`") && next.contains(advice), "{next}");
        // Everything else is written.
        let is_told = || annotation(&api.node()).is_some() && condition(&api.node(), CONDITION).is_some();
        wait_for("the rest", LIMIT, || is_told().then_some(()));
    }
}

#[test]
fn simulated_api_is_told_that_a_pod_without_a_known_runtime_proves_nothing() {
    let (node, api) = simulated();
    api.edit(|node| {
        node["spec"]["taints"] = serde_json::json!([{"key": "corp.test/no-trust", "effect": "NoSchedule"}])
    });
    let ca = Ca::new("Corp Root");
    node.set_source(&[&ca]);
    let taint = "settle: 100ms\nkubernetes: {startupTaint: \"corp.test/no-trust\"}\n";
    let agent = node.agent(taint);
    let told = wait_for("a condition", LIMIT, || condition(&api.node(), CONDITION).cloned());
    assert_eq!((&told["status"], &told["reason"]), (&"Unknown".into(), &"RuntimeUnknown".into()), "{told}");
    let status = agent.status().unwrap();
    assert_eq!((&status["verdict"], &status["converged"]), (&"runtime-unknown".into(), &true.into()), "{status}");
    let text = status["headline"].as_str().unwrap();
    assert!(text.contains("this agent runs in a pod") && text.contains("none was found"), "{text}");
    assert_eq!(agent.get("/readyz").unwrap().0, 200);
    wait_for("the annotation", LIMIT, || annotation(&api.node()).filter(|status| status.runtime_unknown));
    assert!(api.node()["spec"]["taints"].to_string().contains("no-trust"), "it stays for ten minutes");
    // The command runs without the pod's environment, as in a debug session.
    let ledger: Value =
        serde_json::from_str(&std::fs::read_to_string(node.path("/var/lib/nodetrust/ledger.json")).unwrap()).unwrap();
    assert!(ledger["pod"].is_string(), "{ledger}");
    // The configuration says that there is no runtime.
    node.configure(&format!("{taint}{NO_RUNTIME}"));
    wait_told(&api, &agent, &[&ca]);
    wait_for("no taint", LIMIT, || (api.node()["spec"]["taints"] == serde_json::json!([])).then_some(()));
}

#[test]
fn simulated_api_is_left_alone_where_nobody_asks_for_it() {
    let (node, api) = simulated();
    let ca = Ca::new("Corp Root");
    node.set_source(&[&ca]);
    let agent = node.agent(&format!("{FAST}kubernetes: {{enabled: false}}\n"));
    let status = agent.wait_converged(&[&ca], LIMIT);
    assert!(status["kubernetes"].is_null());
    node.set_source(&[&ca, &Ca::new("Other")]);
    agent.wait_status("two anchors", LIMIT, |status| {
        status["converged"] == true && status["anchors"].as_array().is_some_and(|rows| rows.len() == 2)
    });
    assert!(api.requests().is_empty(), "{:?}", api.requests());
}
