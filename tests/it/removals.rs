//! Removals that wait for the fleet, on real roots and nodes: without an approval nothing leaves, and with one it does.

use std::{process::Command, time::Duration};

use serde_json::{Value, json};

use crate::manifests::{configmap_with, objects};
use crate::support::{
    cluster::{IMAGE, TestCluster, annotation},
    following::{LIMIT as RUNTIME_LIMIT, has_anchors, sha256, starts, wait_trusted, wait_two_cycles},
    machine::{Machine, MachineKind},
    must,
    node::{Done, Kind, Node},
    pki::Ca,
};

/// Longest wait for events that take seconds; the machine may be busy.
const LIMIT: Duration = Duration::from_secs(240);
/// An anchor leaves as soon as it is approved.
const GATE: &str = "settle: 200ms\nrotation: {removalGrace: 0s, removalGate: fleet}\n";

/// Approvals of these fingerprints for a set, given a number of seconds ago.
fn approvals(prints: &[&str], desired: &Value, ago: i64) -> String {
    let time = jiff::Timestamp::from_second(jiff::Timestamp::now().as_second() - ago).unwrap().to_string();
    let entry = |print: &&str| json!({"fingerprint": print, "desired": desired, "time": time});
    json!({"version": 1, "approvals": prints.iter().map(entry).collect::<Vec<_>>()}).to_string()
}

/// Digest of what the sources want, by the report.
fn wanted(status: &Value) -> Value {
    status["sourcesDigest"].clone()
}

fn status(node: &Node) -> Value {
    node.nodetrust(&["status", "-o", "json"]).json()
}

fn row<'a>(status: &'a Value, print: &str) -> &'a Value {
    status["anchors"].as_array().unwrap().iter().find(|row| row["sha256"] == print).unwrap_or(&Value::Null)
}

/// A node with both CAs of a rotation, whose sources want the new one alone.
#[track_caller]
fn rotated(kind: Kind) -> (Node, Ca, Ca) {
    let node = Node::new(kind, GATE);
    node.show_approvals();
    let (old, new) = (Ca::new("Corp Root 2021"), Ca::new("Corp Root 2026"));
    node.set_source(&[&old]);
    node.nodetrust(&["apply"]).expect(0);
    node.set_source(&[&new]);
    node.nodetrust(&["apply"]).expect(0);
    (node, old, new)
}

#[test]
fn an_anchor_whose_grace_is_over_stays_until_the_fleet_approves_it() {
    let (node, old, new) = rotated(Kind::Bookworm);
    let stays = |wait: &str| {
        let status = status(&node);
        assert_eq!(
            (&row(&status, &old.sha256())["waits"], &status["converged"]),
            (&json!(wait), &json!(true)),
            "{status:#}"
        );
        assert!(node.clients_trust(&old) && node.clients_trust(&new), "{wait}");
        status
    };
    let before = stays("not-approved");
    assert_eq!(row(&before, &old.sha256())["needsApproval"], true);
    assert_ne!(before["sourcesDigest"], before["desiredDigest"], "anchors in grace are no part of what is approved");
    let screen = node.nodetrust(&["status"]).expect(0).out;
    assert!(screen.contains("stays: not approved by the fleet") && screen.contains("--approve-removal"), "{screen}");
    let plan = node.nodetrust(&["plan"]).expect(0).out;
    assert!(plan.contains("WAITS") && plan.contains("Corp Root 2021"), "{plan}");

    for (text, wait) in [
        (approvals(&[&old.sha256()], &before["desiredDigest"], 0), "other-set"),
        (approvals(&[&new.sha256()], &wanted(&before), 0), "not-approved"),
        (approvals(&[&old.sha256()], &wanted(&before), 3600), "outdated"),
        (approvals(&[&old.sha256()], &wanted(&before), -3600), "postdated"),
    ] {
        node.approve(&text);
        node.nodetrust(&["apply"]).expect(0);
        stays(wait);
    }
    // Somebody has cut the file.
    let good = approvals(&[&old.fp16()], &wanted(&before), 0);
    node.approve(&good[..good.len() / 2]);
    node.nodetrust(&["apply"]).expect(2);
    let cut = stays("unusable");
    assert_eq!(cut["problems"][0]["kind"], "approvals", "{cut:#}");

    node.approve(&good);
    node.nodetrust(&["apply"]).expect(0);
    assert!(!node.clients_trust(&old) && node.clients_trust(&new));
    assert!(!node.anchor_file(&old).exists());
    let after = status(&node);
    assert_eq!(after["sourcesDigest"], after["desiredDigest"]);
    node.nodetrust(&["status"]).expect(0);
}

#[test]
fn an_agent_follows_an_approval_at_once_and_rests_while_it_waits() {
    let node = Node::new(Kind::Trixie, "");
    node.show_approvals();
    let (old, new) = (Ca::new("Corp Root 2021"), Ca::new("Corp Root 2026"));
    node.set_source(&[&old]);
    let agent = node.agent(GATE);
    agent.wait_converged(&[&old], LIMIT);
    node.set_source(&[&new]);
    let both = agent.wait_converged(&[&old, &new], LIMIT);
    assert_eq!(row(&both, &old.sha256())["waits"], "not-approved");
    node.approve(&approvals(&[&old.sha256()], &wanted(&both), 0));
    agent.wait_converged(&[&new], LIMIT);
    assert!(!node.clients_trust(&old));
    let cycles = |outcome: &str| {
        agent.metric(&format!("nodetrust_reconciles_total{{trigger=\"grace\",outcome=\"{outcome}\"}}")).unwrap_or(0.0)
    };
    agent.wait_status("the approval's own cycle", LIMIT, |_| cycles("changed") + cycles("unchanged") >= 1.0);
    // one for the approval, which a cycle for another reason may have followed already; a grace that is over starts none by itself
    assert_eq!(cycles("changed") + cycles("unchanged"), 1.0);
}

#[test]
fn whoever_looks_without_the_configuration_is_told_that_a_removal_waits() {
    let (node, old, _) = rotated(Kind::Trixie);
    node.approve(&approvals(&[&old.sha256()], &wanted(&status(&node)), 0));
    let mut command = Command::new(crate::support::program());
    command.arg("--host-root").arg(&node.root).args(["status", "-o", "json"]).env_remove("NODETRUST_CONFIG");
    let told = Done::new(must("nodetrust", command.output())).json();
    assert_eq!(row(&told, &old.sha256())["waits"], "hidden", "{told:#}");
    assert_eq!(told["pending"], json!([]), "{told:#}");
}

#[test]
fn what_is_denied_leaves_at_once_and_uninstall_asks_nobody() {
    let (node, old, new) = rotated(Kind::Bookworm);
    node.configure(&format!("{GATE}policy: {{deniedFingerprints: [{}]}}\n", old.sha256()));
    node.nodetrust(&["apply"]).expect(0);
    assert!(!node.clients_trust(&old) && node.clients_trust(&new));

    let (node, old, new) = rotated(Kind::Bookworm);
    node.nodetrust(&["uninstall"]).expect(0);
    assert!(!node.trusts(&old) && !node.trusts(&new));
}

/// The store trusts both, the runtime's process was started before the new one came, and nobody restarts it for a while.
#[test]
fn grace_does_not_end_beside_a_runtime_that_is_stale() {
    let machine = Machine::boot(MachineKind::Bookworm);
    let image = machine.push("app:1");
    assert!(machine.pull(&image).is_err(), "containerd has read the roots");
    let (old, new) = (machine.registry_ca(), Ca::new("The next CA").pem());
    let gate =
        "settle: 100ms\nresync: 2s\nrotation: {removalGrace: 0s, removalGate: fleet}\nruntime: {onChange: report}";
    machine.write_approvals("{\"version\": 1, \"approvals\": []}");
    let agent = machine.agent(&[], gate);
    let restart = || {
        machine.run(&["systemctl", "reset-failed", "containerd"]);
        machine.run(&["systemctl", "restart", "containerd"]).expect(0);
        machine.wait_runtime();
    };
    machine.set_source_pem(&old);
    agent.wait_status("the old CA", RUNTIME_LIMIT, |status| has_anchors(status, &old));
    restart();
    wait_trusted(&agent, &old);

    machine.set_source_pem(&new);
    let both = old.clone() + &new;
    let status = agent.wait_status("both, and a stale runtime", RUNTIME_LIMIT, |status| {
        has_anchors(status, &both) && status["runtime"]["stale"] == true
    });
    let print = sha256(&old).remove(0);
    machine.write_approvals(&approvals(&[&print], &wanted(&status), 0));
    agent.wait_status("an approved anchor that waits", RUNTIME_LIMIT, |status| {
        row(status, &print)["waits"] == "runtime-stale"
    });
    let before = starts(&machine);
    wait_two_cycles(&agent);
    agent.wait_status("both, still", RUNTIME_LIMIT, |status| has_anchors(status, &both));
    assert_eq!(starts(&machine), before);

    restart();
    agent.wait_status("the new CA alone", RUNTIME_LIMIT, |status| has_anchors(status, &new));
    let bundle = machine.read("/etc/ssl/certs/ca-certificates.crt").unwrap();
    let prints = sha256(&bundle);
    assert!(!prints.contains(&print) && prints.contains(&sha256(&new)[0]));
    // Its own removal makes the runtime stale, and brings nothing back.
    wait_two_cycles(&agent);
    agent.wait_status("the new CA alone, still", RUNTIME_LIMIT, |status| has_anchors(status, &new));
}

/// The job of components/approve-removals, run once and on the node's own network: the rig's API server is too old for a CronJob of
/// `batch/v1`, and its pods reach no API server.
#[track_caller]
fn run_approver(cluster: &TestCluster, cron_job: &Value, name: &str) -> Done {
    let mut spec = cron_job["spec"]["jobTemplate"]["spec"].clone();
    spec["template"]["spec"]["hostNetwork"] = true.into();
    let metadata = json!({"name": name, "namespace": "nodetrust"});
    let job = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec});
    cluster.apply(&job.to_string());
    let label = format!("job-name={name}");
    let ended = |pods: &Value| {
        let state = &pods["items"][0]["status"]["containerStatuses"][0]["state"]["terminated"];
        state["exitCode"].as_i64()
    };
    let words = ["pods", "-n", "nodetrust", "-l", &label];
    let pods = cluster.wait(&format!("the end of {name}"), &words, |pods| ended(pods).is_some());
    let log = cluster.kubectl(&["-n", "nodetrust", "logs", "-l", &label, "--tail=-1"]).expect(0);
    Done { code: i32::try_from(ended(&pods).unwrap()).unwrap(), ..log }
}

/// A rotation over two nodes, of which one gets no word of it for a while.
#[test]
fn a_removal_is_refused_while_a_node_lacks_the_replacement_and_approved_by_the_job_after() {
    let nodes = [("prompt", MachineKind::Bookworm), ("late", MachineKind::Trixie)];
    let cluster = TestCluster::boot(&nodes);
    cluster.image(IMAGE, crate::support::program());
    let (old, new) = (Ca::new("Corp Root 2021"), Ca::new("Corp Root 2026"));
    let give = |cas: &[&Ca]| {
        let pem: String = cas.iter().map(|ca| ca.pem()).collect();
        let mut all = objects(&configmap_with(&pem, &format!("resync: 10s\n{GATE}"), &["approve-removals"]));
        let cron_job = all.remove("CronJob nodetrust-approver").unwrap();
        let namespace = all.remove("Namespace nodetrust");
        let items: Vec<Value> = namespace.into_iter().chain(all.into_values()).collect();
        let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
        cluster.apply(&list.to_string());
        cron_job
    };
    let says = |node: &str, cas: &[&Ca]| {
        let mut wanted: Vec<String> = cas.iter().map(|ca| ca.fp16()).collect();
        wanted.sort();
        cluster.wait(&format!("{node} with {wanted:?}"), &["node", node], |node| {
            annotation(node).is_some_and(|status| {
                let mut has: Vec<String> = status.anchors.iter().map(|mark| mark.fp16.clone()).collect();
                has.sort();
                has == wanted && status.desired == status.effective
            })
        });
    };
    give(&[&old]);
    cluster.rolled_out();
    nodes.iter().for_each(|(node, _)| says(node, &[&old]));

    let late = |signal: &str| {
        cluster.node("late").run(&["systemctl", "kill", "-s", signal, "kubelet"]).expect(0);
    };
    late("STOP");
    let job = give(&[&new]);
    says("prompt", &[&old, &new]);
    cluster.wait_condition("prompt", "True", "Trusted"); // its runtime follows too, and blocks nothing
    let admin = cluster.kubeconfig();
    let refused = cluster.topology(&admin, &["--approve-removal", "all"]).expect(2).out;
    assert!(refused.starts_with("rig   REFUSED   ") && refused.contains("[late]"), "{refused}");
    println!("{refused}");

    let account = "--as=system:serviceaccount:nodetrust:nodetrust-approver";
    let own = "configmaps/nodetrust-approvals";
    for (words, may) in [
        (&["list", "nodes"][..], true),
        (&["get", own, "-n", "nodetrust"], true),
        (&["update", own, "-n", "nodetrust"], true),
        (&["create", "configmaps", "-n", "nodetrust"], false),
        (&["update", "configmaps/nodetrust-ca", "-n", "nodetrust"], false),
        (&["delete", own, "-n", "nodetrust"], false),
        (&["patch", "nodes/late"], false),
        (&["get", "secrets", "-n", "nodetrust"], false),
    ] {
        let done = cluster.kubectl(&[&["auth", "can-i", account], words].concat());
        assert_eq!(done.out.trim() == "yes", may, "{words:?}: {done:?}");
    }

    // The node comes back, and has missed nothing that it needs.
    late("CONT");
    says("late", &[&old, &new]);
    let approvals =
        || cluster.get(&["configmap", "nodetrust-approvals", "-n", "nodetrust"])["data"]["approvals.json"].clone();
    assert_eq!(approvals(), Value::Null);
    let done = crate::support::wait_for("an approval by the job", LIMIT, {
        let mut count = 0;
        let (cluster, job) = (&cluster, &job);
        move || {
            count += 1;
            let done = run_approver(cluster, job, &format!("approver-{count}"));
            // Whether the runtimes follow is known a moment later.
            assert!(done.code == 0 || done.out.contains("REFUSED"), "{done:?}");
            (done.code == 0).then_some(done)
        }
    });
    assert!(done.out.starts_with("this cluster   APPROVED   "), "{done:?}");
    assert!(approvals().as_str().unwrap().contains(&old.fp16()));
    for (node, _) in nodes {
        says(node, &[&new]);
    }
    // Afterwards there is nothing to approve, and the approval goes.
    cluster.topology(&admin, &["--approve-removal", "all"]).expect(0);
    assert!(!approvals().as_str().unwrap().contains(&old.fp16()));
}
