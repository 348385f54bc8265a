//! When something fails in a cluster: nodes that come later, reboot, drift or are cut off, an API server that is gone or refuses.
//! Trust does not wait for any of it, and the cluster is told as soon as it can be.
//!
//! Long because each test boots a cluster and tells a whole outage, from before it to after it.

use std::time::{Duration, Instant};

use nodetrust_core::node_status::CONDITION;
use serde_json::{Value, json};

use crate::{
    manifests::kustomize_with,
    support::{
        cluster::{IMAGE, PORT, TestCluster, annotation, condition, items},
        following::{ledger, starts},
        machine::MachineKind,
        pki::Ca,
        rig::Access,
        served::AgentHttp,
        wait_for,
    },
};

/// Longest wait for events that take seconds; the machine may be busy.
const LIMIT: Duration = Duration::from_secs(240);
/// Longest wait for a node's next try, which may be a minute away.
const LONG: Duration = Duration::from_secs(400);

const TAINT: &str = "nodetrust.io/not-trusted";
/// With a registry directory no restart is needed, so that no test waits for the pause between two restarts.
const CERTS_D: &[(&str, &str)] = &[("RIG_CONFIG_PATH", "/etc/containerd/certs.d")];
const FAILED: &str = "nodetrust_errors_total{reason=\"kubernetes\"}";
const CANNOT: &str = "the Kubernetes API cannot be told";
const ANCHORS: &str = "/usr/local/share/ca-certificates";
const BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Two sources: the ConfigMap `nodetrust-ca`, and a folder on each node, which needs no kubelet.
const BOTH: &str = "sources:
- {name: org, path: /etc/nodetrust/sources/org}
- {name: host, path: /host/etc/nodetrust/sources/host, optional: true}
settle: 100ms
";

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("      {line}\n")).collect()
}

/// An overlay as people install it, with another configuration where one is given.
fn manifests(overlay: &str, config: &str) -> String {
    let patch = format!(
        "patches:\n- patch: |\n    apiVersion: v1\n    kind: ConfigMap\n    metadata: {{name: nodetrust-config, namespace: \
         nodetrust}}\n    data:\n      config.yaml: |\n{}",
        indented(&indented(config))
    );
    kustomize_with("new", overlay, &[], if config.is_empty() { "" } else { &patch })
}

/// The ConfigMap that is a source of every node.
fn set_source(cluster: &TestCluster, pems: &[String]) {
    let text = indented(&pems.concat());
    let metadata = "metadata: {name: nodetrust-ca, namespace: nodetrust}";
    cluster.apply(&format!("apiVersion: v1\nkind: ConfigMap\n{metadata}\ndata:\n  ca.crt: |\n{text}"));
}

/// The folder that is a source of one node.
fn add_to_host(node: &Access, ca: &Ca) {
    node.write(&format!("/etc/nodetrust/sources/host/{}.crt", ca.fp16()), ca.pem());
}

fn install(cluster: &TestCluster, pems: &[String]) {
    cluster.image(IMAGE, crate::support::program());
    cluster.apply(&manifests("base", BOTH));
    set_source(cluster, pems);
    cluster.rolled_out();
}

/// Whether a Node says that exactly these anchors are wanted and in force.
fn says(node: &Value, cas: &[&Ca]) -> bool {
    let is_ready = condition(node, CONDITION).is_some_and(|is| is["status"] == "True" && is["reason"] == "Trusted");
    let mut want: Vec<String> = cas.iter().map(|ca| ca.fp16()).collect();
    want.sort();
    is_ready
        && annotation(node).is_some_and(|status| {
            let mut has: Vec<String> = status.anchors.iter().map(|mark| mark.fp16.clone()).collect();
            has.sort();
            has == want && status.desired == status.effective && !status.runtime_stale
        })
}

#[track_caller]
fn wait_says(cluster: &TestCluster, node: &str, cas: &[&Ca]) -> Value {
    cluster.wait(&format!("node {node} to say that {} anchors are trusted", cas.len()), &["node", node], |object| {
        says(object, cas)
    })
}

/// Waits until a node trusts exactly these, by its agent's word and by its bundle.
#[track_caller]
fn wait_trusts(node: &Access, agent: &AgentHttp, cas: &[&Ca]) {
    let status = agent.wait_converged(cas, LIMIT);
    assert_eq!(status["verdict"], "trusted", "{status:#}");
    let bundle = node.read(BUNDLE).unwrap();
    assert!(cas.iter().all(|ca| bundle.contains(ca.pem().trim())));
    assert_eq!(agent.get("/readyz").map(|(code, _)| code), Some(200));
}

/// The agents' pods are ready, and none of their containers was ever restarted.
#[track_caller]
fn assert_no_restarts(cluster: &TestCluster) {
    for pod in cluster.pods(&["-n", "nodetrust"]) {
        let status = &pod["status"]["containerStatuses"][0];
        assert_eq!((&status["restartCount"], &status["ready"]), (&0.into(), &true.into()), "{status:#}");
    }
}

fn failed(agent: &AgentHttp) -> f64 {
    agent.metric(FAILED).unwrap_or(0.0)
}

/// How often it has logged that the API cannot be told.
fn complaints(agent: &AgentHttp) -> usize {
    agent.log_text().matches(CANNOT).count()
}

/// The most tries that fit into a time if each pause is as short as it may be: half of 1 s, 2 s, 4 s …
fn most_tries(time: Duration) -> f64 {
    let mut tries = 1.0;
    let (mut pause, mut passed) = (0.5, 0.0);
    while passed + pause <= time.as_secs_f64() {
        passed += pause;
        pause = f64::min(2.0 * pause, 150.0);
        tries += 1.0;
    }
    tries
}

/// Watches the tries fail, at least this many more, and not more often than the documented pauses allow.
#[track_caller]
fn assert_paced(agent: &AgentHttp, before: f64, since: Instant, at_least: f64) {
    wait_for("more failed tries", LIMIT, || (failed(agent) >= before + at_least).then_some(()));
    let tries = failed(agent) - before;
    // One more try is for an event that came after the first failure.
    let most = most_tries(since.elapsed()) + 1.0;
    assert!(tries <= most, "{tries} tries in {:?}, at most {most} are announced", since.elapsed());
}

/// The problem of the API in `/status`: text and advice.
#[track_caller]
fn trouble(agent: &AgentHttp, part: &str) -> (String, String) {
    let status = agent.wait_status(part, LIMIT, |status| {
        status["kubernetes"]["error"].as_str().is_some_and(|error| error.contains(part))
    });
    let text = |name: &str| status["kubernetes"][name].as_str().unwrap_or_default().to_owned();
    assert_ne!(status["verdict"], "not-trusted", "{status:#}");
    (text("error"), text("next"))
}

fn version(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

fn waits_for_image(pod: &Value) -> bool {
    let statuses = pod["status"]["containerStatuses"].as_array().into_iter().flatten();
    statuses.map(|status| &status["state"]["waiting"]["reason"]).any(|reason| {
        let reason = reason.as_str().unwrap_or_default();
        reason.contains("ErrImage") || reason.contains("ImagePull")
    })
}

/// A DaemonSet, and a Deployment whose second replica has no room until there is a second node. Neither tolerates the taint.
fn apps(image: &str) -> String {
    let template = |more: &str| {
        format!(
            "
  selector: {{matchLabels: {{app: app}}}}
  template:
    metadata: {{labels: {{app: app}}}}
    spec:
      containers: [{{name: app, image: \"{image}\", command: [/bin/sleep, \"2147483647\"]}}]
      terminationGracePeriodSeconds: 1
{more}"
        )
    };
    let apart = "      affinity:
        podAntiAffinity:
          requiredDuringSchedulingIgnoredDuringExecution:
          - {topologyKey: kubernetes.io/hostname, labelSelector: {matchExpressions: [{key: app, operator: In, values: [spread]}]}}
";
    let everywhere = template("");
    let spread = template(apart).replace("app: app", "app: spread");
    format!(
        "apiVersion: apps/v1\nkind: DaemonSet\nmetadata: {{name: app}}\nspec:{everywhere}---\napiVersion: apps/v1\nkind: \
         Deployment\nmetadata: {{name: spread}}\nspec:\n  replicas: 2{spread}"
    )
}

/// The order is by the API server's own count of changes, not by any clock.
#[test]
fn a_node_that_joins_later_has_its_trust_before_its_first_private_image() {
    let tainted: &[(&str, &str)] = &[("RIG_TAINTS", "nodetrust.io/not-trusted:NoSchedule")];
    let mut cluster = TestCluster::boot_with(&[("first", MachineKind::Bookworm)], tainted);
    let image = cluster.push("app:1");
    cluster.apply(&apps(&image));
    cluster.image(IMAGE, crate::support::program());
    cluster.apply(&manifests("overlays/startup-taint", ""));
    set_source(&cluster, &[cluster.registry_ca()]);
    let ready = |count: usize| {
        move |list: &Value| {
            let ready = |pod: &Value| pod["status"]["containerStatuses"][0]["ready"] == true;
            items(list).iter().filter(|pod| ready(pod)).count() == count
        }
    };
    cluster.wait("pods on the first node", &["pods", "-n", "default"], ready(2));

    let nodes = cluster.watch(&["nodes"]);
    let pods = cluster.watch(&["pods", "-n", "default"]);
    cluster.join("later", MachineKind::Trixie);
    cluster.wait("pods on both nodes", &["pods", "-n", "default"], ready(4));
    cluster.rolled_out();

    let states = wait_for("the watch of the node", LIMIT, || {
        let states = nodes.states("later");
        states.iter().any(|node| !node["spec"]["taints"].to_string().contains(TAINT)).then_some(states)
    });
    assert!(states[0]["spec"]["taints"].to_string().contains(TAINT), "registered without: {}", states[0]["spec"]);
    let is_ready = |node: &&Value| condition(node, CONDITION).is_some_and(|is| is["status"] == "True");
    let trusted = version(states.iter().find(is_ready).unwrap());
    let is_free = |node: &&Value| !node["spec"]["taints"].to_string().contains(TAINT);
    let free = version(states.iter().find(is_free).unwrap());
    assert!(trusted < free, "the taint went before the trust was told");

    let here = |pod: &Value| pod["spec"]["nodeName"] == "later";
    let bound = wait_for("the watch of the pods", LIMIT, || {
        let bound: Vec<Value> = pods.all().into_iter().filter(here).collect();
        let ready = bound.iter().filter(|pod| pod["status"]["containerStatuses"][0]["ready"] == true);
        let mut names: Vec<String> = ready.map(|pod| pod["metadata"]["name"].to_string()).collect();
        names.sort();
        names.dedup();
        (names.len() == 2).then_some(bound)
    });
    for pod in &bound {
        assert!(version(pod) > free, "a pod was bound before the taint went");
        assert!(!waits_for_image(pod), "{}", pod["status"]);
    }
    let on_later: Vec<&Value> = bound.iter().map(|pod| &pod["metadata"]["name"]).collect();
    for event in items(&cluster.get(&["events", "-n", "default"])) {
        let is_theirs = on_later.contains(&&event["involvedObject"]["name"]);
        assert!(!is_theirs || !matches!(event["reason"].as_str(), Some("Failed" | "BackOff")), "{event:#}");
    }
    assert_no_restarts(&cluster);
}

/// What a hand has broken is mended, and nobody who watches the condition is woken up. A reboot loses nothing and writes nothing.
#[test]
fn a_node_heals_and_reboots_without_a_false_word() {
    let cluster = TestCluster::boot(&[("one", MachineKind::Bookworm)]);
    let (first, second) = (cluster.push("app:1"), cluster.push("app:2"));
    let node = cluster.node("one");
    let agent = cluster.agent_from_within("one", PORT);
    let ca = Ca::new("Corp Root");
    install(&cluster, &[cluster.registry_ca(), ca.pem()]);
    cluster.wait_condition("one", "True", "Trusted");
    let settled = cluster.wait("the runtime in the annotation", &["node", "one"], |node| {
        annotation(node).is_some_and(|status| status.anchors.len() == 2 && !status.runtime_stale)
    });
    let before = condition(&settled, CONDITION).unwrap().clone();
    cluster.kubectl(&["run", "first", "--image", &first, "--", "/bin/sleep", "1000000"]).expect(0);
    let runs = |name: &str| {
        cluster.wait(name, &["pod", name], |pod| pod["status"]["containerStatuses"][0]["ready"] == true);
    };
    runs("first");

    // Drift: a file is deleted. Then one is deleted and the tool is run, so that the bundle lacks it too.
    let watch = cluster.watch(&["node", "one"]);
    let file = format!("{ANCHORS}/nodetrust-{}.crt", ca.fp16());
    let healed = |kind: &str, many: f64| {
        let metric = format!("nodetrust_drift_repaired_total{{kind=\"{kind}\"}}");
        wait_for(&metric, LIMIT, || agent.metric(&metric).filter(|count| *count >= many));
        assert_eq!(node.read(&file), Some(ca.pem()));
        assert!(node.read(BUNDLE).unwrap().contains(ca.pem().trim()));
    };
    node.run(&["rm", &file]).expect(0);
    healed("anchor-deleted", 1.0);
    let event = wait_for("an event of the repair", LIMIT, || cluster.events("one", "DriftRepaired").pop());
    assert_eq!(event["type"], "Warning");
    node.run(&["sh", "-c", &format!("rm {file} && update-ca-certificates")]).expect(0);
    healed("anchor-deleted", 2.0);
    agent.wait_status("rest", LIMIT, |status| status["converged"] == true && status["verdict"] == "trusted");
    assert_eq!(cluster.events("one", "DriftRepaired").len(), 1, "one in ten minutes");
    assert_eq!(condition(&cluster.get(&["node", "one"]), CONDITION), Some(&before));

    // The node reboots.
    let (written, boots) = (ledger(&node), starts(&node));
    let restarts = cluster.events("one", "RuntimeRestarted").len();
    let pods = cluster.pods(&["-n", "nodetrust"]);
    node.reboot();
    cluster.wait("the agent's next container", &["pods", "-n", "nodetrust"], |list| {
        let status = &items(list)[0]["status"]["containerStatuses"][0];
        status["restartCount"] == 1 && status["ready"] == true
    });
    let status = agent.wait_status("the agent", LIMIT, |status| status["verdict"] == "trusted");
    assert_eq!((&status["converged"], &status["runtime"]["stale"]), (&true.into(), &false.into()), "{status:#}");
    runs("first");
    cluster.kubectl(&["run", "second", "--image", &second, "--", "/bin/sleep", "1000000"]).expect(0);
    runs("second");

    let now = ledger(&node);
    for part in ["anchors", "sources", "foreign"] {
        assert_eq!(now[part], written[part], "{part}");
    }
    assert_eq!(starts(&node), boots + 1, "somebody has restarted containerd since the boot");
    assert_eq!(agent.metric("nodetrust_runtime_restarts_total{outcome=\"done\"}").unwrap_or(0.0), 0.0);
    assert_eq!(cluster.events("one", "RuntimeRestarted").len(), restarts);
    assert_eq!(cluster.pods(&["-n", "nodetrust"])[0]["metadata"]["uid"], pods[0]["metadata"]["uid"]);
    wait_for("a word to the API after the boot", LIMIT, || {
        agent.status()?["kubernetes"]["since"].is_string().then_some(())
    });
    assert_eq!(failed(&agent), 0.0, "{}", agent.log_text());
    let object = cluster.get(&["node", "one"]);
    assert_eq!(condition(&object, CONDITION), Some(&before), "written without news");
    assert_eq!(annotation(&object), annotation(&settled));
    for state in watch.states("one") {
        assert_eq!(condition(&state, CONDITION), Some(&before), "it flapped");
    }
}

/// A cable is pulled while the CAs change: what the node has at hand it installs at once, what it is to get from the API server it
/// gets later, and its Node tells of both.
#[test]
fn a_node_cut_off_trusts_what_it_has_and_catches_up_later() {
    let cluster = TestCluster::boot_with(&[("near", MachineKind::Trixie), ("far", MachineKind::Bookworm)], CERTS_D);
    let (far, near) = (cluster.node("far"), cluster.node("near"));
    let agent = cluster.agent_from_within("far", PORT);
    let [map, map_2, host, host_2] = ["Map", "Map 2", "Host", "Host 2"].map(Ca::new);
    add_to_host(&near, &host);
    add_to_host(&far, &host);
    install(&cluster, &[map.pem()]);
    for name in ["near", "far"] {
        wait_says(&cluster, name, &[&map, &host]);
    }
    assert_eq!((failed(&agent), complaints(&agent)), (0.0, 0), "{}", agent.log_text());

    let since = Instant::now();
    cluster.link("far", false);
    for node in [&near, &far] {
        add_to_host(node, &host_2);
    }
    set_source(&cluster, &[map.pem(), map_2.pem()]);
    wait_says(&cluster, "near", &[&map, &map_2, &host, &host_2]);
    wait_trusts(&far, &agent, &[&map, &host, &host_2]);
    assert_paced(&agent, 0.0, since, 2.0);
    let (error, next) = trouble(&agent, "no answer from the API server at 198.19.0.1");
    assert!(next.contains("reaches the API server"), "{error}: {next}");
    assert_eq!(complaints(&agent), 1, "{}", agent.log_text());
    assert!(says(&cluster.get(&["node", "far"]), &[&map, &host]), "the cable was not pulled");

    cluster.link("far", true);
    cluster.wait("the cut node", &["node", "far"], |node| {
        condition(node, "Ready").is_some_and(|is| is["status"] == "True") && says(node, &[&map, &map_2, &host, &host_2])
    });
    wait_trusts(&far, &agent, &[&map, &map_2, &host, &host_2]);
    wait_for("the end of the trouble", LIMIT, || agent.status()?["kubernetes"]["error"].is_null().then_some(()));
    assert_eq!(complaints(&agent), 1, "{}", agent.log_text());
    assert_no_restarts(&cluster);
}

/// The API server is killed, the CAs change, and everything is as with it, but for what nobody could be told.
#[test]
fn an_api_server_that_is_killed_in_a_rotation_changes_nothing_but_who_is_told() {
    let nodes = [("one", MachineKind::Bookworm), ("two", MachineKind::Rhelish)];
    let cluster = TestCluster::boot_with(&nodes, CERTS_D);
    let [map, host, host_2] = ["Map", "Host", "Host 2"].map(Ca::new);
    for (name, _) in nodes {
        add_to_host(&cluster.node(name), &host);
    }
    install(&cluster, &[map.pem()]);
    let agents: Vec<_> = nodes.map(|(name, _)| (name, cluster.agent_from_within(name, PORT))).into_iter().collect();
    for (name, agent) in &agents {
        wait_says(&cluster, name, &[&map, &host]);
        assert_eq!((failed(agent), complaints(agent)), (0.0, 0), "{}", agent.log_text());
    }

    let since = Instant::now();
    cluster.api_server(false);
    for (name, _) in &agents {
        add_to_host(&cluster.node(name), &host_2);
    }
    for (name, agent) in &agents {
        let status = agent.wait_converged(&[&map, &host, &host_2], LIMIT);
        assert_eq!(status["verdict"], "trusted", "{name}: {status:#}");
    }
    for (name, agent) in &agents {
        assert_paced(agent, 0.0, since, 4.0);
        let (error, next) = trouble(agent, "no answer from the API server at 198.19.0.1");
        assert!(error.contains("refused") && next.contains("reaches the API server"), "{error}: {next}");
        assert_eq!(complaints(agent), 1, "{name}: {}", agent.log_text());
        let (_, page) = agent.get("/").unwrap();
        assert!(page.contains("<h2>Kubernetes</h2>") && page.contains("cannot be told"), "{page}");
        assert_eq!(agent.get("/readyz").map(|(code, _)| code), Some(200));
    }

    cluster.api_server(true);
    for (name, agent) in &agents {
        wait_says(&cluster, name, &[&map, &host, &host_2]);
        wait_for("the event of a change that nobody could be told", LIMIT, || {
            let events = cluster.events(name, "TrustAnchorsChanged").into_iter();
            events.into_iter().find(|event| event["message"].as_str().unwrap().contains(&host_2.fp16()))
        });
        wait_for("the end of the trouble", LIMIT, || agent.status()?["kubernetes"]["error"].is_null().then_some(()));
        let (_, page) = agent.get("/").unwrap();
        assert!(!page.contains("<h2>Kubernetes</h2>"), "{page}");
    }
    cluster.rolled_out();
    assert_no_restarts(&cluster);
}

/// Manifests without the objects of these kinds.
fn without(text: &str, kinds: &[&str]) -> String {
    let is_kept = |object: &&str| !kinds.iter().any(|kind| object.contains(&format!("\nkind: {kind}\n")));
    text.split("\n---\n").filter(is_kept).collect::<Vec<_>>().join("\n---\n")
}

/// How many requests the API server could not authenticate.
fn unauthenticated(cluster: &TestCluster) -> f64 {
    let text = cluster.kubectl(&["get", "--raw", "/metrics"]).expect(0).out;
    let is_bad = |line: &&str| line.starts_with("authentication_attempts{") && !line.contains("success");
    text.lines().filter(is_bad).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// Rights never given, taken away, a ServiceAccount that is gone, a token that is none: each is said once, with what helps, and
/// what is said helps.
#[test]
fn missing_rights_and_wrong_tokens_are_named_and_trust_does_not_need_them() {
    let cluster = TestCluster::boot_with(&[("one", MachineKind::Trixie)], CERTS_D);
    let node = cluster.node("one");
    let agent = cluster.agent_from_within("one", PORT);
    let everything = manifests("base", BOTH);
    let ca = Ca::new("Rights");
    cluster.image(IMAGE, crate::support::program());
    let since = Instant::now();
    cluster.apply(&without(&everything, &["ClusterRoleBinding", "RoleBinding"]));
    set_source(&cluster, &[ca.pem()]);
    cluster.rolled_out();
    wait_trusts(&node, &agent, &[&ca]);
    let (error, next) = trouble(&agent, "403");
    assert!(
        error.contains("failed to read the Node: the API server answers 403: nodes \"one\" is forbidden")
            && error.contains("cannot get resource \"nodes\"")
            && next.contains("ClusterRole"),
        "{error}: {next}"
    );
    assert_paced(&agent, 0.0, since, 3.0);
    assert_eq!(complaints(&agent), 1, "{}", agent.log_text());
    cluster.apply(&everything);
    wait_says(&cluster, "one", &[&ca]);
    let event = wait_for("an event", LIMIT, || cluster.events("one", "TrustAnchorsChanged").pop());
    assert!(event["message"].as_str().unwrap().contains(&format!("+Rights ({})", ca.fp16())), "{event:#}");

    // Somebody deletes the role.
    let (before, since) = (failed(&agent), Instant::now());
    cluster.kubectl(&["delete", "clusterrole", "nodetrust"]).expect(0);
    let more = Ca::new("Without a role");
    add_to_host(&node, &more);
    wait_trusts(&node, &agent, &[&ca, &more]);
    trouble(&agent, "403");
    assert_paced(&agent, before, since, 3.0);
    assert_eq!(complaints(&agent), 2, "{}", agent.log_text());
    cluster.apply(&everything);
    wait_says(&cluster, "one", &[&ca, &more]);
    assert_no_restarts(&cluster);

    // Somebody deletes the account, so its token is void. The message says that the pod must be made anew.
    cluster.kubectl(&["-n", "nodetrust", "delete", "serviceaccount", "nodetrust"]).expect(0);
    let (before, since, requests) = (failed(&agent), Instant::now(), unauthenticated(&cluster));
    let third = Ca::new("Without an account");
    add_to_host(&node, &third);
    wait_trusts(&node, &agent, &[&ca, &more, &third]);
    let (error, next) = trouble(&agent, "401");
    assert!(next.contains("ServiceAccount") && next.contains("delete the pod"), "{error}: {next}");
    assert_paced(&agent, before, since, 3.0);
    let (tries, requests) = (failed(&agent) - before, unauthenticated(&cluster) - requests);
    // One read of the Node and one event.
    assert!(requests <= 2.0 * (tries + 1.0), "{requests} requests in {tries} tries");
    assert_no_restarts(&cluster);
    cluster.apply(&everything);
    cluster.kubectl(&["-n", "nodetrust", "delete", "pods", "--all"]).expect(0);
    cluster.rolled_out();
    wait_says(&cluster, "one", &[&ca, &more, &third]);

    // Somebody mounts a wrong token from a Secret.
    let account = cluster.get(&["-n", "nodetrust", "serviceaccount", "nodetrust"]);
    let secret = cluster.get(&["-n", "nodetrust", "secret", account["secrets"][0]["name"].as_str().unwrap()]);
    let mut token = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "token", "namespace": "nodetrust"},
        "data": {"ca.crt": secret["data"]["ca.crt"], "namespace": secret["data"]["namespace"]},
        "stringData": {"token": "not-a-token"},
    });
    cluster.apply(&token.to_string());
    let mount = json!({"spec": {"template": {"spec": {
        "automountServiceAccountToken": false,
        "containers": [{"name": "nodetrust", "volumeMounts":
            [{"name": "token", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": true}]}],
        "volumes": [{"name": "token", "secret": {"secretName": "token"}}],
    }}}});
    cluster.kubectl(&["-n", "nodetrust", "patch", "daemonset", "nodetrust", "-p", &mount.to_string()]).expect(0);
    cluster.rolled_out();
    let fourth = Ca::new("With a wrong token");
    add_to_host(&node, &fourth);
    wait_trusts(&node, &agent, &[&ca, &more, &third, &fourth]);
    trouble(&agent, "401");
    wait_for("failed tries", LIMIT, || (failed(&agent) >= 2.0).then_some(()));
    assert_eq!(complaints(&agent), 1, "{}", agent.log_text());
    token["stringData"] = Value::Null;
    token["data"]["token"] = secret["data"]["token"].clone();
    cluster.apply(&token.to_string());
    wait_for("the anchors", LONG, || {
        says(&cluster.get(&["node", "one"]), &[&ca, &more, &third, &fourth]).then_some(())
    });
    wait_for("the end of the trouble", LIMIT, || agent.status()?["kubernetes"]["error"].is_null().then_some(()));
    assert_no_restarts(&cluster);
}
