//! The new program over what an older one has left: its ledger is read, and nothing follows from the upgrade alone, no run of the
//! tool, no restart, no other verdict.
//!
//! The states in `tests/data/upgrade` are what revision c6db2c8 has written; what depends on the node (the distribution's
//! certificates, boot ids, times) is put in again here. The tests with two programs run the old one for real; they are run by
//! scripts/upgrade-test, which builds it from the project's history.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use nodetrust_core::{
    action::ExportFormat,
    certificate::{fingerprint::Fingerprint, pem},
    ledger::Ledger,
    pod_bundle,
    source::SourceFile,
};
use serde_json::{Value, json};

use crate::{
    manifests::kustomize_text,
    support::{
        cluster::{IMAGE, PORT, TestCluster, condition, items},
        following::{FAST, LIMIT, LONG, has_anchors, ledger as ledger_of, starts, wait_trusted, wait_two_cycles},
        machine::{self, Machine},
        must,
        node::{Done, Kind, Node},
        pki::Ca,
    },
};

const LEDGER: &str = "/var/lib/nodetrust/ledger.json";
const LOCK: &str = "/run/nodetrust.lock";
/// The path of the bundle for pods.
const EXPORT: &str = "/var/lib/nodetrust/export/ca-certificates.crt";
/// How the old program's configuration names it, and how ours does.
const OLD_EXPORT: &str = "export: {bundle: /var/lib/nodetrust/export/ca-certificates.crt}\n";
const NEW_EXPORT: &str = "export: {bundle: ca-certificates.crt}\n";
/// A path that only the old program accepts.
const FREE: &str = "/opt/pods/ca.crt";
const GRACE: &str = "rotation: {removalGrace: 24h}\n";

/// The old program, for the tests that run it.
fn old_program() -> PathBuf {
    let path = std::env::var_os("NODETRUST_OLD").map(PathBuf::from);
    path.filter(|path| path.is_file()).expect("NODETRUST_OLD names no program: run scripts/upgrade-test")
}

/// Runs the old program on a node to its end.
#[track_caller]
fn old(node: &Node, args: &[&str]) -> Done {
    let ours = node.command(args);
    // A program that drops rights may start it.
    let swap = |word: &OsStr| match word == crate::support::program() {
        true => old_program().into_os_string(),
        false => word.to_owned(),
    };
    let mut command = Command::new(swap(ours.get_program()));
    command.args(ours.get_args().map(swap)).envs(ours.get_envs().filter_map(|(name, value)| Some((name, value?))));
    Done::new(must("the old program", command.stdin(Stdio::null()).output()))
}

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/upgrade").join(name)
}

fn denied(fingerprint: &str) -> String {
    format!("policy: {{deniedFingerprints: [{fingerprint}]}}\n")
}

/// Everything that differs from the pristine root, but for ledger and lock.
fn remains(node: &Node) -> Vec<(String, String)> {
    // The overlay has the lock's directory whenever it has the lock.
    let skipped = [LEDGER, LOCK, "/run"];
    node.footprint().into_iter().filter(|(path, _)| !skipped.contains(&path.as_str())).collect()
}

/// What identifies one version of the bundle, which is replaced by rename.
fn version(node: &Node) -> (u64, i64, i64) {
    let meta = fs::metadata(node.path(node.kind.bundle())).unwrap();
    (meta.ino(), meta.mtime(), meta.mtime_nsec())
}

fn read_ledger(node: &Node) -> Value {
    serde_json::from_slice(&fs::read(node.path(LEDGER)).unwrap()).unwrap()
}

/// What a ledger says of anchors and sources.
fn memory(ledger: &Value) -> Value {
    json!({"anchors": ledger["anchors"], "sources": ledger["sources"], "exports": ledger["exports"]})
}

/// The new program comes to a node that the old one has left in order: it finds nothing to do, by a command and as an agent.
#[track_caller]
fn goes_on(node: &Node, grace: &str) {
    let (before, bundle, remembered) = (remains(node), version(node), memory(&read_ledger(node)));
    let anchors = || {
        let status = node.nodetrust(&["-o", "json", "status"]);
        let status = status.expect(0).json();
        assert_eq!(status["verdict"], "trusted", "{status:#}");
        let rows = status["anchors"].as_array().unwrap().clone();
        rows.iter().map(|row| (row["sha256"].clone(), row["state"].clone())).collect::<Vec<_>>()
    };
    let seen = anchors();
    assert!(seen.iter().any(|(sha256, state)| sha256 == grace && state == "grace"), "{seen:?}");
    let plan = node.nodetrust(&["plan"]).expect(0).out;
    assert!(plan.contains("nothing to do"), "{plan}");
    let cycle = node.nodetrust(&["-o", "json", "apply"]).expect(0).json();
    assert_eq!(cycle["cycle"]["extractMilliseconds"], 0, "{cycle:#}");
    assert_eq!(cycle["cycle"]["actions"], json!([]), "{cycle:#}");
    assert_eq!((remains(node), version(node)), (before.clone(), bundle));
    assert_eq!((memory(&read_ledger(node)), anchors()), (remembered.clone(), seen.clone()));

    let config = fs::read_to_string(&node.config).unwrap();
    let more = config.split_once('\n').unwrap().1.split_once('\n').unwrap().1.to_owned();
    let agent = node.agent(&format!("settle: 100ms\nresync: 1s\n{more}"));
    agent.wait_status("two quiet cycles", LIMIT, |status| {
        let cycles = agent.metric("nodetrust_reconciles_total{trigger=\"resync\",outcome=\"unchanged\"}");
        status["converged"] == true && cycles.is_some_and(|cycles| cycles >= 2.0)
    });
    assert_eq!(agent.get("/readyz").map(|(code, _)| code), Some(200));
    assert_eq!(agent.metric("nodetrust_extract_duration_seconds_count"), Some(0.0), "{}", agent.log_text());
    drop(agent);
    assert_eq!((remains(node), version(node)), (before, bundle));
    assert_eq!((memory(&read_ledger(node)), anchors()), (remembered, seen));
    // The next rotation and the uninstall still work.
    let next = Ca::new("Corp Root 2031");
    fs::write(node.source.join("next.crt"), next.pem()).unwrap();
    node.nodetrust(&["apply"]).expect(0);
    assert!(node.trusts(&next));
    node.nodetrust(&["uninstall"]).expect(0);
    assert!(!node.path("/var/lib/nodetrust").exists());
    assert!(!node.path(EXPORT).exists() && !node.anchor_file(&next).exists());
}

/// A node as c6db2c8 has left it: two anchors wanted, one in grace, one denied and gone, a bundle for pods.
#[track_caller]
fn left_behind(kind: Kind) -> (Node, String) {
    let name = format!("{kind:?}").to_lowercase();
    let bytes = must(&name, fs::read(data(&format!("{name}.json"))));
    let (mut ledger, read): (Value, Ledger) = (serde_json::from_slice(&bytes).unwrap(), Ledger::parse(&bytes).unwrap());
    let node = Node::new(kind, "");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap().trim().to_owned();
    let uptime: f64 = fs::read_to_string("/proc/uptime").unwrap().split(' ').next().unwrap().parse().unwrap();

    let (mut grace, mut denials) = (String::new(), String::new());
    let mut ours = BTreeSet::new();
    for (fingerprint, entry) in ledger["anchors"].as_object_mut().unwrap() {
        match entry["state"].as_str().unwrap() {
            "grace" => {
                grace = fingerprint.clone();
                // One hour ago, or when this machine started.
                let ago = 3600.min(uptime as u64);
                entry["left"] = json!({"wall": now - ago, "boottime": uptime as u64 - ago, "boot_id": boot_id});
            }
            "denied" => denials = fingerprint.clone(),
            _ => {}
        }
        if entry.get("gone").is_some() {
            entry["gone"] = json!(now - 10); // the ledger forgets it after a while
            continue;
        }
        let der = &read.anchors[&fingerprint.parse::<Fingerprint>().unwrap()].der;
        let file = format!("{}/nodetrust-{}.{}", kind.anchors_dir(), &fingerprint[..16], kind.extension());
        node.write(&file, pem::encode(der));
        fs::set_permissions(node.path(&file), fs::Permissions::from_mode(0o644)).unwrap();
        ours.insert(fingerprint.clone());
    }
    node.run(&[kind.tool()]).expect(0);
    let bundle = node.bundle();
    let set: BTreeSet<String> = bundle.iter().cloned().collect();
    assert!(ours.is_subset(&set), "the tool has installed them");
    ledger["foreign"] = json!(set.difference(&ours).collect::<Vec<_>>());
    ledger["repeated"] = json!(bundle.len() - set.len());
    for moment in ["published", "begun"] {
        if ledger.get(moment).is_some() {
            ledger[moment] = json!({"bootId": boot_id, "milliseconds": 1});
        }
    }
    node.write(LEDGER, serde_json::to_vec_pretty(&ledger).unwrap());
    fs::set_permissions(node.path(LEDGER), fs::Permissions::from_mode(0o600)).unwrap();
    let content = pod_bundle::content(ExportFormat::Pem, &fs::read(node.path(kind.bundle())).unwrap());
    node.write(EXPORT, content.bytes);
    fs::copy(data(&format!("{name}.pem")), node.source.join("ca.crt")).unwrap();
    node.configure(&format!("{GRACE}{NEW_EXPORT}{}", denied(&denials)));
    (node, grace)
}

#[test]
fn bookworm_goes_on_from_what_c6db2c8_has_left() {
    let (node, grace) = left_behind(Kind::Bookworm);
    goes_on(&node, &grace);
}

#[test]
fn rhelish_goes_on_from_what_c6db2c8_has_left() {
    let (node, grace) = left_behind(Kind::Rhelish);
    goes_on(&node, &grace);
}

/// The old program could be told any path. What it wrote there moves to the directory of exports, and goes with `uninstall`.
#[test]
fn a_bundle_for_pods_at_a_free_path_is_still_looked_after() {
    for uninstall in [false, true] {
        let (node, _) = left_behind(Kind::Bookworm);
        let mut ledger = read_ledger(&node);
        ledger["exports"] = json!([FREE]);
        node.write(LEDGER, serde_json::to_vec_pretty(&ledger).unwrap());
        let content = fs::read(node.path(EXPORT)).unwrap();
        fs::remove_file(node.path(EXPORT)).unwrap();
        node.write(FREE, &content);
        if uninstall {
            node.nodetrust(&["uninstall"]).expect(0);
            assert!(!node.path(FREE).exists() && !node.path("/var/lib/nodetrust").exists());
            continue;
        }
        let bundle = version(&node);
        node.nodetrust(&["apply"]).expect(0);
        assert_eq!(fs::read(node.path(EXPORT)).unwrap(), content);
        assert!(!node.path(FREE).exists());
        assert_eq!(version(&node), bundle, "the store is not touched for it");
        node.nodetrust(&["plan"]).expect(0);
    }
}

/// A node that was rebooted, and whose agent is replaced: the record of its runtime is of a process of another boot.
#[test]
fn a_booted_node_goes_on_from_what_c6db2c8_has_left_without_a_restart() {
    let machine = Machine::boot(machine::MachineKind::Trixie);
    let system = machine.kind.system();
    let mut ledger: Value = serde_json::from_slice(&fs::read(data("booted.json")).unwrap()).unwrap();
    let source = fs::read_to_string(data("booted.pem")).unwrap();
    let own = SourceFile::parse("test", source.as_bytes()).anchors[0].1.clone();
    machine.trust_by_hand(&format!("nodetrust-{}", own.fingerprint.fp16()), &own.pem());
    let bundle = machine.read(system.bundle()).unwrap();
    let foreign = nodetrust_core::certificate::bundle::read(bundle.as_bytes()).set;
    ledger["foreign"] = json!(foreign.iter().filter(|print| **print != own.fingerprint).collect::<Vec<_>>());
    machine.write(LEDGER, serde_json::to_vec_pretty(&ledger).unwrap());
    machine.run(&["chmod", "600", LEDGER]).expect(0);
    machine.write(EXPORT, pod_bundle::content(ExportFormat::Pem, bundle.as_bytes()).bytes);
    machine.reboot();

    let before = (starts(&machine), machine.invocation("containerd"));
    machine.load_agent(Path::new(crate::support::program()));
    machine.configure_agent(&format!("{FAST}\n{NEW_EXPORT}"));
    machine.set_source_pem(&source);
    let agent = machine.start_agent();
    wait_trusted(&agent, &source);
    wait_two_cycles(&agent);
    assert_eq!(agent.metric("nodetrust_extract_duration_seconds_count"), Some(0.0), "{}", agent.log_text());
    assert_eq!((starts(&machine), machine.invocation("containerd")), before);
    let now = ledger_of(&machine);
    assert_eq!((&now["tries"], memory(&now)), (&ledger["tries"], memory(&ledger)));
}

/// Every ledger that is kept here is read, and written again as the same.
#[test]
fn old_ledgers_are_read_whole() {
    let mut count = 0;
    for entry in fs::read_dir(data("")).unwrap().flatten() {
        if entry.path().extension().is_some_and(|extension| extension == "json") {
            let bytes = fs::read(entry.path()).unwrap();
            let ledger = must(&entry.path().display().to_string(), Ledger::parse(&bytes));
            let old: Value = serde_json::from_slice(&bytes).unwrap();
            let new: Value = serde_json::from_slice(&ledger.to_bytes()).unwrap();
            for (field, value) in old.as_object().unwrap() {
                assert_eq!(new[field], *value, "{field} of {}", entry.path().display());
            }
            count += 1;
        }
    }
    assert!(count >= 3, "{count} ledgers");
}

/// The old program's story on a node: an installation, a rotation with grace, a denial.
#[track_caller]
fn old_story(kind: Kind) -> (Node, String) {
    let node = Node::new(kind, &format!("{GRACE}{OLD_EXPORT}"));
    let [stable, leaving, bad, new] = ["Always Wanted", "Corp Root 2021", "Taken Over", "Corp Root 2026"].map(Ca::new);
    node.set_source(&[&stable, &leaving, &bad]);
    old(&node, &["apply"]).expect(0);
    node.configure(&format!("{GRACE}{OLD_EXPORT}{}", denied(&bad.sha256())));
    node.set_source(&[&stable, &new]);
    old(&node, &["apply"]).expect(0);
    old(&node, &["plan"]).expect(0);
    assert!(node.trusts(&stable) && node.trusts(&leaving) && node.trusts(&new) && !node.trusts(&bad));
    assert!(node.path(EXPORT).exists());
    keep(&format!("{kind:?}").to_lowercase(), &read_ledger(&node), &fs::read(node.source.join("ca.crt")).unwrap());
    node.configure(&format!("{GRACE}{NEW_EXPORT}{}", denied(&bad.sha256())));
    (node, leaving.sha256())
}

/// Keeps a state for the tests without the old program, if `NODETRUST_KEEP` names a directory: how tests/data/upgrade was made.
/// Of the distribution's certificates, which are put in again from the node, only some are kept.
fn keep(name: &str, ledger: &Value, source: &[u8]) {
    let Some(dir) = std::env::var_os("NODETRUST_KEEP").map(PathBuf::from) else { return };
    let mut ledger = ledger.clone();
    let lists = ["/foreign", "/services/containerd.service/has"];
    for list in lists {
        ledger.pointer_mut(list).and_then(Value::as_array_mut).into_iter().for_each(|list| list.truncate(3));
    }
    fs::write(dir.join(format!("{name}.json")), serde_json::to_vec_pretty(&ledger).unwrap()).unwrap();
    fs::write(dir.join(format!("{name}.pem")), source).unwrap();
}

#[test]
#[ignore = "needs the old program: scripts/upgrade-test"]
fn two_programs_on_bookworm() {
    let (node, grace) = old_story(Kind::Bookworm);
    goes_on(&node, &grace);
}

#[test]
#[ignore = "needs the old program: scripts/upgrade-test"]
fn two_programs_on_rhelish() {
    let (node, grace) = old_story(Kind::Rhelish);
    goes_on(&node, &grace);
}

/// The agent's pod is replaced, as by a rolling update, on a node whose runtime has followed the old one.
#[track_caller]
fn a_pod_is_replaced(kind: machine::MachineKind, config_path: &str) {
    let machine = Machine::boot_with_config_path(kind, config_path);
    let image = machine.push("app:1");
    machine.pull(&image).unwrap_err();
    machine.load_agent(&old_program());
    let ours = machine.registry_ca();
    machine.configure_agent(&format!("{FAST}\n{OLD_EXPORT}"));
    machine.set_source_pem(&ours);
    let agent = machine.start_agent();
    // its report has no word yet for what the runtime itself says
    let status = agent.wait_status("the old program's word that all is well", LONG, |status| {
        status["verdict"] == "trusted" && status["runtime"]["stale"] == false && has_anchors(status, &ours)
    });
    let restarted = status["runtime"]["covered"].as_array().is_none_or(Vec::is_empty);
    assert_eq!(restarted, config_path.is_empty(), "{status:#}");
    assert_eq!(machine.pull(&image), Ok(()));
    wait_two_cycles(&agent);
    let (before, invocation, remembered) = (starts(&machine), machine.invocation("containerd"), ledger_of(&machine));
    assert_eq!(agent.stop(), 0);
    let name = if config_path.is_empty() { "booted" } else { "registry-directory" };
    keep(name, &remembered, ours.as_bytes());

    machine.load_agent(Path::new(crate::support::program()));
    machine.configure_agent(&format!("{FAST}\n{NEW_EXPORT}"));
    let agent = machine.start_agent();
    let first = agent.wait_status("a first report", LIMIT, |_| true);
    assert_eq!((first["verdict"].as_str(), first["converged"].as_bool()), (Some("trusted"), Some(true)), "{first:#}");
    wait_trusted(&agent, &ours);
    wait_two_cycles(&agent);
    assert_eq!(agent.get("/readyz").map(|(code, _)| code), Some(200));
    assert_eq!(agent.metric("nodetrust_extract_duration_seconds_count"), Some(0.0), "{}", agent.log_text());
    assert_eq!((starts(&machine), machine.invocation("containerd")), (before, invocation));
    let now = ledger_of(&machine);
    assert_eq!((&now["tries"], &now["certsFiles"]), (&remembered["tries"], &remembered["certsFiles"]));
    assert_eq!(memory(&now), memory(&remembered));
    assert_eq!(machine.pull(&image), Ok(()));
    // The runtime follows the next change as before.
    let more = ours.clone() + &Ca::new("The next CA").pem();
    machine.set_source_pem(&more);
    agent.wait_status("the next anchor", Duration::from_secs(200), |status| {
        let anchors = SourceFile::parse("test", more.as_bytes()).anchors.len();
        status["converged"] == true && status["anchors"].as_array().is_some_and(|rows| rows.len() == anchors)
    });
}

#[test]
#[ignore = "needs the old program: scripts/upgrade-test"]
fn two_programs_on_a_booted_node() {
    a_pod_is_replaced(machine::MachineKind::Trixie, "");
}

#[test]
#[ignore = "needs the old program: scripts/upgrade-test"]
fn two_programs_on_a_booted_node_with_a_registry_directory() {
    a_pod_is_replaced(machine::MachineKind::Bookworm, "/etc/containerd/certs.d");
}

/// A rolling update of a cluster whose nodes start with a taint: manifests and program of then, and those of now.
#[test]
#[ignore = "needs the old program: scripts/upgrade-test"]
fn two_programs_in_a_cluster() {
    const TAINT: &str = "nodetrust.io/not-trusted";
    const NEW: &str = "ghcr.io/nodetrust/nodetrust:next";
    let nodes = [("one", machine::MachineKind::Bookworm), ("two", machine::MachineKind::Trixie)];
    let taints = format!("{TAINT}:NoSchedule");
    let cluster = TestCluster::boot_with(&nodes, &[("RIG_TAINTS", String::leak(taints))]);
    let set_source = || {
        let pem: String = cluster.registry_ca().lines().map(|line| format!("    {line}\n")).collect();
        let metadata = "metadata: {name: nodetrust-ca, namespace: nodetrust}";
        cluster.apply(&format!("apiVersion: v1\nkind: ConfigMap\n{metadata}\ndata:\n  ca.crt: |\n{pem}"));
    };
    let old_manifests =
        std::env::var_os("NODETRUST_OLD_MANIFESTS").map(PathBuf::from).expect("NODETRUST_OLD_MANIFESTS");
    cluster.image(IMAGE, old_program().to_str().unwrap());
    cluster.apply(&kustomize_text("new", &old_manifests.join("overlays/startup-taint")));
    set_source();
    cluster.rolled_out();
    for (name, _) in nodes {
        cluster.wait_condition(name, "True", "Trusted");
        cluster
            .wait("the end of the taint", &["node", name], |node| !node["spec"]["taints"].to_string().contains(TAINT));
    }
    let runs = || nodes.map(|(name, _)| (starts(&cluster.node(name)), cluster.node(name).invocation("containerd")));
    let restarts = || nodes.map(|(name, _)| cluster.events(name, "RuntimeRestarted").len());
    let before = (runs(), restarts());
    let watch = cluster.watch(&["nodes"]);

    cluster.image(NEW, crate::support::program());
    let manifests =
        kustomize_text("new", &Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/overlays/startup-taint"));
    assert!(manifests.contains(IMAGE), "{manifests}");
    cluster.apply(&manifests.replace(IMAGE, NEW));
    set_source();
    cluster.rolled_out();
    let is_new = |pod: &Value| pod["spec"]["containers"][0]["image"] == NEW;
    let ready = |pod: &Value| pod["status"]["containerStatuses"][0]["ready"] == true;
    let pods = cluster.wait("the new pods", &["pods", "-n", "nodetrust"], |list| {
        let pods = items(list);
        pods.len() == nodes.len() && pods.iter().all(|pod| is_new(pod) && ready(pod))
    });
    for pod in items(&pods) {
        assert_eq!(pod["status"]["containerStatuses"][0]["restartCount"], 0, "{pod:#}");
        let node = pod["spec"]["nodeName"].as_str().unwrap();
        let agent = cluster.agent(node, PORT, "nodetrust", pod["metadata"]["name"].as_str().unwrap());
        agent.wait_status("a trusted node", LIMIT, |status| status["verdict"] == "trusted");
        assert_eq!(agent.metric("nodetrust_extract_duration_seconds_count"), Some(0.0), "{}", agent.log_text());
    }
    for (name, _) in nodes {
        cluster.wait_condition(name, "True", "Trusted");
    }
    assert_eq!((runs(), restarts()), before);
    let states = watch.all();
    assert!(states.len() >= nodes.len(), "the watch has seen the nodes");
    for node in states {
        for kind in ["Ready", "nodetrust.io/TrustReady"] {
            let is = condition(&node, kind).unwrap_or_else(|| panic!("lost {kind}: {node:#}"));
            assert_eq!(is["status"], "True", "{node:#}");
        }
        assert!(!node["spec"]["taints"].to_string().contains(TAINT), "{node:#}");
    }
}
