//! A fleet that restarts its runtimes one after another: real nodes, a real API server, the manifests as they are shipped.

use std::{collections::BTreeSet, process::Stdio, time::Duration};

use nodetrust_core::fleet::lease::{CANARY, CANARY_LEASE, HALTED, PAUSE};
use serde_json::{Value, json};

use crate::{
    alerts::server::PrometheusServer,
    manifests::{configmap, objects},
    support::{
        cluster::{IMAGE, TestCluster, Watch, annotation, condition, items},
        machine::MachineKind,
        node::Done,
        pki::Ca,
        wait_for,
    },
};

/// Longest wait for restarts that come one after another; the machine may be busy.
const LONG: Duration = Duration::from_secs(600);
const NODES: [(&str, MachineKind); 3] =
    [("one", MachineKind::Bookworm), ("two", MachineKind::Bookworm), ("three", MachineKind::Bookworm)];
const ALL: [&str; 3] = ["one", "two", "three"];
/// An agent that looks quickly, and a fleet that gives up on a sick node quickly. It goes on with what `fleet:` of the base begins.
const QUICK: &str = "  healthyWithin: 20s\nresync: 10s\nsettle: 100ms\nrotation: {removalGrace: 0s}\n";
/// containerd does not start while the file is there.
const FRAGILE: &str = "mkdir -p /etc/systemd/system/containerd.service.d && \
    printf '[Service]\\nExecStartPre=/bin/sh -c \"test ! -e /run/broken\"\\nRestart=no\\n' >/etc/systemd/system/containerd.service.d/fragile.conf && \
    systemctl daemon-reload";

/// A pod on every node that a restart could disturb: a node that runs nothing needs no slot.
const WORK: &str = "
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: work}
spec:
  selector: {matchLabels: {app: work}}
  template:
    metadata: {labels: {app: work}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - {name: work, image: \"rig.test/busybox:1\", imagePullPolicy: Never, command: [/bin/sleep, \"2147483647\"]}
";

/// Waits until every node works on something.
#[track_caller]
fn wait_work(cluster: &TestCluster, nodes: usize) {
    cluster.apply(WORK);
    cluster.wait("work on every node", &["pods", "-l", "app=work"], |list| {
        items(list).iter().filter(|pod| pod["status"]["containerStatuses"][0]["ready"] == true).count() == nodes
    });
}

/// How often a node's containerd has started, by its log.
fn starts(cluster: &TestCluster, node: &str) -> usize {
    let words = ["journalctl", "--no-pager", "-q", "-o", "cat", "-u", "containerd", "--grep", "^Started "];
    cluster.node(node).run(&words).out.lines().count()
}

fn all_starts(cluster: &TestCluster) -> [usize; 3] {
    NODES.map(|(node, _)| starts(cluster, node))
}

/// Gives every node these CAs.
fn give(cluster: &TestCluster, cas: &[&Ca], more: &str) {
    let pem: String = cas.iter().map(|ca| ca.pem()).collect();
    cluster.apply(&configmap(&pem, &format!("{more}{QUICK}")));
}

/// Waits until every node trusts these CAs, its runtime too.
#[track_caller]
fn wait_trusted(cluster: &TestCluster, nodes: &[&str], cas: &[&Ca]) {
    let wanted: BTreeSet<String> = cas.iter().map(|ca| ca.fp16()).collect();
    for name in nodes {
        let holds = |node: &Value| {
            let is_ready = condition(node, "nodetrust.io/TrustReady").is_some_and(|is| is["status"] == "True");
            let has = annotation(node).map(|status| status.anchors.iter().map(|mark| mark.fp16.clone()).collect());
            is_ready && has.as_ref() == Some(&wanted)
        };
        wait_for(&format!("{name} to trust {wanted:?}"), LONG, || {
            let node = cluster.get(&["node", name]);
            holds(&node).then_some(())
        });
    }
}

/// Waits until a node's restart is held for this reason; returns its status.
#[track_caller]
fn wait_held(cluster: &TestCluster, nodes: &[&str], reason: &str) {
    for name in nodes {
        wait_for(&format!("{name} to be held: {reason}"), LONG, || held(cluster, name).filter(|held| held == reason));
    }
}

/// Why a node's restart is held, if it is.
fn held(cluster: &TestCluster, node: &str) -> Option<String> {
    let agent = cluster.agent(node, crate::support::cluster::PORT, "nodetrust", &pod(cluster, node));
    let status = agent.status()?;
    Some(status["runtime"]["held"]["reason"].as_str()?.to_owned())
}

/// The agent's pod on a node.
fn pod(cluster: &TestCluster, node: &str) -> String {
    let pods = cluster.pods(&["-n", "nodetrust", "-l", "app.kubernetes.io/name=nodetrust"]);
    let pod = pods.iter().find(|pod| pod["spec"]["nodeName"] == node);
    pod.and_then(|pod| pod["metadata"]["name"].as_str()).unwrap_or_default().to_owned()
}

/// Pauses all restarts with this text, or none.
fn pause(cluster: &TestCluster, text: Value) {
    let patch = json!({"metadata": {"annotations": {PAUSE: text}}}).to_string();
    let words = ["-n", "nodetrust", "patch", "lease", "nodetrust-restart-0", "--type=merge", "-p", &patch];
    cluster.kubectl(&words).expect(0);
}

/// Who held the slot, in order, as the API server's history of the Lease has it.
fn holders(watch: &Watch) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for lease in watch.states("nodetrust-restart-0") {
        let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned();
        if names.last() != Some(&holder) {
            names.push(holder);
        }
    }
    names
}

/// A new CA restarts every runtime, one after another; a node whose runtime does not come back stops the others, until a person says that
/// they may go on; a pause holds all, a label one node. A real Prometheus sees all of it, and so does the dashboard.
#[test]
fn a_new_ca_restarts_runtimes_one_after_another_and_a_sick_node_stops_the_others() {
    let cluster = TestCluster::boot(&NODES);
    cluster.image(IMAGE, crate::support::program());
    for (node, _) in NODES {
        cluster.node(node).run(&["sh", "-c", FRAGILE]).expect(0);
    }
    wait_work(&cluster, NODES.len());
    let watch = cluster.watch(&["leases", "-n", "nodetrust"]);
    let [first, second, third] = ["First CA", "Second CA", "Third CA"].map(Ca::new);
    let admin = cluster.kubeconfig();

    // one after another
    let before = all_starts(&cluster);
    give(&cluster, &[&first], "");
    cluster.rolled_out();
    let mut topology = cluster.beside(std::path::Path::new(crate::support::program()));
    topology.args(["topology", "--watch", "--kubeconfig"]).arg(&admin).stdout(Stdio::piped());
    let follower = topology.spawn().unwrap();
    wait_trusted(&cluster, &ALL, &[&first]);
    let prometheus = PrometheusServer::beside(&cluster, &ALL);
    let followed = Done::new(follower.wait_with_output().unwrap()).expect(0).out;
    let last = followed.lines().last().unwrap_or_default();
    assert!(last.contains("3 of 3 nodes done"), "{followed}");
    assert_eq!(all_starts(&cluster), before.map(|starts| starts + 1), "each runtime was restarted once");
    let order = holders(&watch);
    let held_by: Vec<&String> = order.iter().filter(|holder| !holder.is_empty()).collect();
    assert_eq!(held_by.len(), 3, "{order:?}");
    assert_eq!(held_by.iter().collect::<BTreeSet<_>>().len(), 3, "{order:?}");
    assert!(
        items(&cluster.get(&["leases", "-n", "nodetrust"]))
            .iter()
            .filter(|lease| lease["metadata"]["name"]
                .as_str()
                .is_some_and(|name| name.starts_with("nodetrust-restart-")))
            .count()
            == 1,
        "one slot: {order:?}"
    );

    // a runtime that does not come back stops the others
    for (node, _) in NODES {
        cluster.node(node).run(&["touch", "/run/broken"]).expect(0);
    }
    give(&cluster, &[&second], "");
    let slot = wait_for("a halt", LONG, || {
        let lease = cluster.get(&["lease", "-n", "nodetrust", "nodetrust-restart-0"]);
        lease["metadata"]["annotations"][HALTED].is_string().then_some(lease)
    });
    let halt: Value = serde_json::from_str(slot["metadata"]["annotations"][HALTED].as_str().unwrap()).unwrap();
    let sick = halt["node"].as_str().unwrap().to_owned();
    let well: Vec<&str> = NODES.iter().map(|(node, _)| *node).filter(|node| *node != sick).collect();
    assert_eq!(well.len(), 2, "{halt}");
    wait_held(&cluster, &well, "halted");
    let topology = cluster.topology(&admin, &[]).expect(2).out;
    assert!(topology.contains("HALTED") && topology.contains(&sick), "{topology}");
    assert!(topology.contains("nodetrust topology --resume"), "{topology}");
    let followed = cluster.topology(&admin, &["--watch"]).expect(2).out;
    assert!(followed.contains(&format!("halted by {sick}: ")), "{followed}");
    let halted = cluster.agent(well[0], crate::support::cluster::PORT, "nodetrust", &pod(&cluster, well[0]));
    assert_eq!(halted.metric("nodetrust_fleet_halted"), Some(1.0));
    prometheus.wait_among("a halt", &["NodetrustFleetHalted"]);

    // the sick node is mended, and a person lets the others go on
    let counts = well.iter().map(|node| starts(&cluster, node)).collect::<Vec<_>>();
    for (node, _) in NODES {
        cluster
            .node(node)
            .run(&["sh", "-c", "rm /run/broken; systemctl is-active -q containerd || systemctl start containerd"])
            .expect(0);
    }
    cluster.wait("the mended node to be Ready", &["node", &sick], |node| {
        condition(node, "Ready").is_some_and(|is| is["status"] == "True")
    });
    std::thread::sleep(Duration::from_secs(20));
    assert_eq!(
        well.iter().map(|node| starts(&cluster, node)).collect::<Vec<_>>(),
        counts,
        "a mended node ends no halt by itself"
    );
    cluster.topology(&admin, &["--resume"]).expect(0);
    prometheus.wait_among("the halt is over", &[&format!("NodetrustRestartFailed {sick}")]);
    wait_trusted(&cluster, &ALL, &[&second]);

    // a pause holds all of them, a label one; the runtime that failed is left alone for ten minutes
    pause(&cluster, json!("change freeze"));
    let before = well.iter().map(|node| starts(&cluster, node)).collect::<Vec<_>>();
    give(&cluster, &[&third], "");
    wait_held(&cluster, &well, "paused");
    cluster.kubectl(&["label", "node", well[1], "nodetrust.io/hold=true"]).expect(0);
    pause(&cluster, Value::Null);
    wait_trusted(&cluster, &well[..1], &[&third]);
    wait_held(&cluster, &well[1..], "node-held");
    assert_eq!(well.iter().map(|node| starts(&cluster, node)).collect::<Vec<_>>(), [before[0] + 1, before[1]]);
    cluster.kubectl(&["label", "node", well[1], "nodetrust.io/hold-"]).expect(0);
    wait_trusted(&cluster, &well, &[&third]);

    // what else the dashboard asks for: an anchor in its grace, a server that is probed
    let more = QUICK.replace("removalGrace: 0s", "removalGrace: 1h") + "probes: [{target: \"registry.test:5443\"}]\n";
    cluster.apply(&configmap(&first.pem(), &more));
    prometheus.wait_fleet_panels();
}

/// The canary restarts first, and the others wait until they have watched it for a while. Where no Node is one, `topology` says so, and a
/// person lets the others go on.
#[test]
fn a_canary_restarts_first_and_a_person_goes_on_without_one() {
    let cluster = TestCluster::boot(&NODES[..2]);
    cluster.image(IMAGE, crate::support::program());
    wait_work(&cluster, 2);
    let admin = cluster.kubeconfig();
    cluster.kubectl(&["label", "node", "two", "canary=yes"]).expect(0);
    let watch = cluster.watch(&["leases", "-n", "nodetrust"]);
    let [first, second] = ["First CA", "Second CA"].map(Ca::new);
    let fleet = "  canarySelector: canary=yes\n  canarySoak: 30s\n";
    let before = ["one", "two"].map(|node| starts(&cluster, node));
    give(&cluster, &[&first], fleet);
    cluster.rolled_out();
    wait_held(&cluster, &["one"], "canary");
    wait_trusted(&cluster, &["two"], &[&first]);
    assert_eq!(starts(&cluster, "one"), before[0], "the canary is watched before others restart");
    wait_trusted(&cluster, &["one"], &[&first]);
    let order: Vec<String> = holders(&watch).into_iter().filter(|holder| !holder.is_empty()).collect();
    assert_eq!(order, ["two", "one"]);
    let mark = &cluster.get(&["lease", "-n", "nodetrust", CANARY_LEASE])["metadata"]["annotations"][CANARY];
    let mark: Value = serde_json::from_str(mark.as_str().unwrap()).unwrap();
    let digest = annotation(&cluster.get(&["node", "one"])).unwrap().desired;
    assert_eq!(mark["digest"], digest.as_str());

    cluster.kubectl(&["label", "node", "two", "canary-"]).expect(0);
    give(&cluster, &[&second], fleet);
    wait_held(&cluster, &["one", "two"], "canary");
    let topology = cluster.topology(&admin, &[]).out;
    assert!(topology.contains("no Node matches fleet.canarySelector (canary=yes)"), "{topology}");
    cluster.topology(&admin, &["--resume"]).expect(0);
    wait_trusted(&cluster, &["one", "two"], &[&second]);
    assert_eq!(["one", "two"].map(|node| starts(&cluster, node)), before.map(|starts| starts + 2));
}

/// Outside of the window nobody restarts; when it opens, they do. A command that asks for a slot waits as the agent does.
#[test]
fn restarts_wait_for_the_window_and_a_command_for_its_slot() {
    let cluster = TestCluster::boot(&NODES[..1]);
    cluster.image(IMAGE, crate::support::program());
    wait_work(&cluster, 1);
    let [first, second] = ["First CA", "Second CA"].map(Ca::new);
    let clock = |hours: i64| {
        jiff::Timestamp::now()
            .checked_add(jiff::SignedDuration::from_hours(hours))
            .unwrap()
            .strftime("%H:%M")
            .to_string()
    };
    let window = |from: i64, to: i64| {
        format!("  window: {{start: \"{}\", end: \"{}\", timeZone: UTC}}\n", clock(from), clock(to))
    };
    give(&cluster, &[&first], &window(-1, 1));
    cluster.rolled_out();
    cluster.wait_condition("one", "True", "Trusted");
    let before = starts(&cluster, "one");
    give(&cluster, &[&first, &second], &window(3, 5));
    wait_held(&cluster, &["one"], "window");
    cluster.wait_condition("one", "False", "RestartHeld");
    assert_eq!(starts(&cluster, "one"), before);
    give(&cluster, &[&first, &second], &window(-1, 1));
    cluster.wait_condition("one", "True", "Trusted");
    assert_eq!(starts(&cluster, "one"), before + 1);

    // without an agent, by a command that waits for its turn
    let agent = cluster.get(&["daemonset", "nodetrust", "-n", "nodetrust"]);
    cluster.kubectl(&["-n", "nodetrust", "delete", "daemonset", "nodetrust", "--cascade=foreground"]).expect(0);
    let third = Ca::new("Third CA");
    let mut all = objects(&configmap(&third.pem(), &format!("{}{QUICK}", window(-1, 1))));
    cluster.apply(&all.remove("ConfigMap nodetrust-ca").unwrap().to_string());
    pause(&cluster, json!("change freeze"));
    let mut spec = agent["spec"]["template"]["spec"].clone();
    spec["nodeName"] = "one".into();
    spec["restartPolicy"] = "Never".into();
    spec["containers"][0]["args"] = json!(["apply", "--slot"]);
    for field in ["livenessProbe", "readinessProbe", "startupProbe", "ports"] {
        spec["containers"][0][field].take();
    }
    let metadata = json!({"name": "by-hand", "namespace": "nodetrust"});
    cluster.apply(&json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}).to_string());
    let log = || cluster.kubectl(&["-n", "nodetrust", "logs", "by-hand"]).out;
    wait_for("a command that is held", LONG, || log().contains("change freeze").then_some(()));
    assert_eq!(starts(&cluster, "one"), before + 1);
    pause(&cluster, Value::Null);
    let words = ["pod", "-n", "nodetrust", "by-hand"];
    let ended = cluster.wait("the end of the command", &words, |pod| {
        pod["status"]["containerStatuses"][0]["state"]["terminated"].is_object()
    });
    assert_eq!(ended["status"]["phase"], "Succeeded", "{}", log());
    assert_eq!(starts(&cluster, "one"), before + 2);
    let slot = cluster.get(&["lease", "-n", "nodetrust", "nodetrust-restart-0"]);
    assert_eq!(slot["spec"]["holderIdentity"].as_str().unwrap_or_default(), "", "the slot was given back");
}
