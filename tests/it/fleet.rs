//! A rotation over several nodes: through the ConfigMap that all of them mount, as nodes, API server and `topology` show it.

use std::time::{Duration, Instant};

use nodetrust_core::ledger::AnchorState;
use serde_json::{Value, json};

use crate::{
    manifests::configmap,
    support::{
        cluster::{IMAGE, TestCluster, annotation},
        machine::MachineKind,
        node::Done,
        pki::Ca,
        wait_for,
    },
};

/// Longest wait for events that take seconds; the machine may be busy.
const LIMIT: Duration = Duration::from_secs(240);
const NODES: [(&str, MachineKind); 3] =
    [("bookworm", MachineKind::Bookworm), ("trixie", MachineKind::Trixie), ("rhelish", MachineKind::Rhelish)];

/// Whether programs of a node accept a certificate that this CA has issued: OpenSSL there, with the node's bundle.
fn accepts(cluster: &TestCluster, (node, kind): (&str, MachineKind), ca: &Ca) -> bool {
    let (leaf, _) = ca.leaf("server.corp");
    let verify = ["openssl", "verify", "-no-CApath", "-no-CAstore", "-CAfile", kind.system().bundle()];
    let done = cluster.node(node).run_with(&verify, leaf.as_bytes());
    assert!(done.code == 0 || done.err.contains("local issuer certificate"), "{done:?}");
    done.code == 0
}

/// Waits until a Node says that its anchors are these, in these states, and that all is in force.
#[track_caller]
fn wait_says(cluster: &TestCluster, node: &str, anchors: &[(&Ca, AnchorState)]) {
    let mut wanted: Vec<_> = anchors.iter().map(|(ca, state)| (ca.fp16(), *state, true)).collect();
    wanted.sort();
    cluster.wait(&format!("{node} with {wanted:?}"), &["node", node], |node| {
        annotation(node).is_some_and(|status| {
            let marks = status.anchors.iter().map(|mark| (mark.fp16.clone(), mark.state, mark.trusted));
            let mut has: Vec<_> = marks.collect();
            has.sort();
            has == wanted && status.desired == status.effective && !status.runtime_stale
        })
    });
    cluster.wait_condition(node, "True", "Trusted");
}

/// Waits until an event says on a node that its anchors have changed so.
#[track_caller]
fn wait_event(cluster: &TestCluster, node: &str, message: &str) {
    wait_for(&format!("an event of {node}: {message}"), LIMIT, || {
        cluster
            .events(node, "TrustAnchorsChanged")
            .into_iter()
            .find(|event| event["type"] == "Normal" && event["message"] == message)
    });
}

fn finding<'a>(fleet: &'a Value, kind: &str) -> Option<&'a Value> {
    fleet["findings"].as_array()?.iter().find(|finding| finding["kind"] == kind)
}

/// Waits until `topology` gives this word, and returns it as JSON and as people see it.
#[track_caller]
fn wait_verdict(cluster: &TestCluster, verdict: &str, code: i32) -> (Value, String) {
    let admin = cluster.kubeconfig();
    let done = wait_for(verdict, LIMIT, || {
        let done = cluster.topology(&admin, &["-o", "json"]);
        (done.json()["verdict"] == verdict).then_some(done)
    });
    let fleet = Done::expect(done, code).json();
    (fleet, cluster.topology(&admin, &[]).expect(code).out)
}

/// Old, then old and new, then new: two nodes follow each step, while the third gets no word of it, until it comes back. The
/// old CA stays trusted everywhere for its grace, and nothing restarts.
#[test]
fn a_rotation_with_a_node_that_lags_is_seen_by_topology() {
    let cluster = TestCluster::boot(&NODES);
    cluster.image(IMAGE, crate::support::program());
    let (old, new) = (Ca::new("Corp Root 2021"), Ca::new("Corp Root 2026"));
    let (prompt, late) = NODES.split_at(2);
    let late = late[0];
    let give = |cas: &[&Ca], grace: &str| {
        let pem: String = cas.iter().map(|ca| ca.pem()).collect();
        cluster.apply(&configmap(&pem, &format!("rotation: {{removalGrace: {grace}}}\nresync: 10s\n")));
    };
    give(&[&old], "1h");
    cluster.rolled_out();
    for (node, _) in NODES {
        wait_says(&cluster, node, &[(&old, AnchorState::Desired)]);
        wait_event(&cluster, node, &format!("+Corp Root 2021 ({}); 1 anchor in force", old.fp16()));
    }
    let (fleet, screen) = wait_verdict(&cluster, "uniform", 0);
    assert_eq!((&fleet["nodes"], &fleet["agreeing"]), (&json!(3), &json!(3)), "{fleet:#}");
    assert!(screen.starts_with("rig   UNIFORM   all 3 nodes trust the same 1 anchor"), "{screen}");
    let agents = cluster.pods(&["-n", "nodetrust"]);

    // The kubelet is stopped, so its ConfigMaps do not change, while the agent there keeps running.
    let hold = |signal: &str| {
        cluster.node(late.0).run(&["systemctl", "kill", "-s", signal, "kubelet"]).expect(0);
    };
    hold("STOP");
    let came = format!("+Corp Root 2026 ({}); 2 anchors in force", new.fp16());
    give(&[&old, &new], "1h");
    for (node, _) in prompt {
        wait_says(&cluster, node, &[(&old, AnchorState::Desired), (&new, AnchorState::Desired)]);
        wait_event(&cluster, node, &came);
    }
    let (fleet, screen) = wait_verdict(&cluster, "split", 2);
    assert_eq!(fleet["agreeing"], 2, "{fleet:#}");
    for kind in ["sources-differ", "lone-digest"] {
        assert_eq!(finding(&fleet, kind).unwrap()["nodes"]["names"], json!([late.0]), "{fleet:#}");
    }
    let row = fleet["anchors"].as_array().unwrap().iter().find(|row| row["fp16"] == *new.fp16()).unwrap();
    assert_eq!((&row["trusted"], &row["lacking"]["names"]), (&json!(2), &json!([late.0])), "{row:#}");
    assert!(screen.starts_with("rig   SPLIT   2 of 3 nodes trust the same and are done, 1 differs"), "{screen}");
    println!("{screen}");

    // The old CA leaves too early: one node does not know the new one yet.
    give(&[&new], "1h");
    for (node, _) in prompt {
        wait_says(&cluster, node, &[(&old, AnchorState::Grace), (&new, AnchorState::Desired)]);
    }
    let left = Instant::now();
    let (fleet, screen) = wait_verdict(&cluster, "violation", 2);
    let needed = finding(&fleet, "grace-needed").unwrap();
    assert_eq!(needed["nodes"]["names"], json!([late.0]), "{fleet:#}");
    assert!(needed["text"].as_str().unwrap().contains("Corp Root 2026"), "{needed:#}");
    assert!(screen.starts_with("rig   VIOLATION   1 violation"), "{screen}");
    println!("{screen}");
    for node in NODES {
        assert!(accepts(&cluster, node, &old), "{} has lost the old CA", node.0);
        assert_eq!(accepts(&cluster, node, &new), node != late, "{}", node.0);
    }

    // The node comes back and has missed the middle step. The old CA gets its grace there too.
    hold("CONT");
    for node in NODES {
        wait_says(&cluster, node.0, &[(&old, AnchorState::Grace), (&new, AnchorState::Desired)]);
        assert!(accepts(&cluster, node, &old) && accepts(&cluster, node, &new), "{}", node.0);
        wait_event(&cluster, node.0, &came); // events are sent once a minute: the next one would replace it
    }
    let (_, screen) = wait_verdict(&cluster, "uniform", 0);
    assert!(screen.contains("grace"), "{screen}");
    println!("{screen}");

    // The grace ends a while from now, by the configuration that the agents follow.
    give(&[&new], &format!("{}s", left.elapsed().as_secs() + 20));
    for node in NODES {
        wait_says(&cluster, node.0, &[(&new, AnchorState::Desired)]);
        assert!(!accepts(&cluster, node, &old) && accepts(&cluster, node, &new), "{}", node.0);
    }
    let (fleet, screen) = wait_verdict(&cluster, "uniform", 0);
    assert_eq!(fleet["anchors"].as_array().unwrap().len(), 1, "{fleet:#}");
    assert!(screen.starts_with("rig   UNIFORM   all 3 nodes trust the same 1 anchor"), "{screen}");

    for (node, _) in NODES {
        wait_event(&cluster, node, &format!("-Corp Root 2021 ({}); 1 anchor in force", old.fp16()));
        assert_eq!(cluster.events(node, "DriftRepaired"), [Value::Null; 0]);
    }
    let uids = |pods: &[Value]| pods.iter().map(|pod| pod["metadata"]["uid"].clone()).collect::<Vec<_>>();
    let now = cluster.pods(&["-n", "nodetrust"]);
    assert_eq!(uids(&now), uids(&agents));
    assert!(now.iter().all(|pod| pod["status"]["containerStatuses"][0]["restartCount"] == 0), "{now:#?}");
}
