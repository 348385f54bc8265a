//! The four states of the runtime: green only by evidence, and what is unknown is said, restarts nothing and is told alike by everybody.
//!
//! In the tests that say `simulated`, the runtime's own answer is written into the ledger as the agent would write it; the asking itself is
//! tested in `witnesses`.

use serde_json::{Value, json};

use crate::{
    manifests::configmap,
    support::{
        cluster::{IMAGE, TestCluster},
        following::{
            FAST, LIMIT, LONG, assert_untrusted, has_anchors, install, ledger, starts, wait_trusted, wait_two_cycles,
        },
        machine::{Machine, MachineKind, PodAgent},
        rig::Access,
        wait_for,
    },
};

const CONFIG: &str = "/etc/containerd/config.toml";
const LEDGER: &str = "/var/lib/nodetrust/ledger.json";
const HOST: &str = "registry.test:5443";

/// A text field of a report.
fn text<'a>(status: &'a Value, path: &str) -> &'a str {
    status.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

/// Waits until the agent says that the system trusts exactly these anchors, and that the runtime's state is this.
#[track_caller]
fn wait_state(agent: &PodAgent, pem: &str, state: &str) -> Value {
    let status = agent.wait_status(&format!("the state {state}"), LONG, |status| {
        has_anchors(status, pem) && status["runtimeTrust"]["state"] == state
    });
    for series in ["current", "stale", "unknown", "none"] {
        let metric = agent.metric(&format!("nodetrust_runtime_state{{state=\"{series}\"}}"));
        assert_eq!(metric, Some(if series == state { 1.0 } else { 0.0 }), "{series} of {state}");
    }
    assert_eq!(agent.get("/readyz").map(|(code, _)| code), Some(200), "readiness is about the store");
    status
}

/// What status says without an agent and without a configuration, as in a debug session.
#[track_caller]
fn debug(machine: &Machine) -> Value {
    let done = machine.run(&["nodetrust", "-o", "json", "status"]);
    assert!(done.code == 0 || done.code == 2, "{}", done.err);
    let status = done.json();
    assert_eq!(done.code == 0, ["trusted", "nothing-desired"].contains(&text(&status, "/verdict")), "{status:#}");
    status
}

/// Writes an answer of the runtime into the ledger, as if it had been asked about the registry.
#[track_caller]
fn simulate_answer(machine: &Access, status: &Value, answer: &str, more: &Value) {
    let mut ledger = ledger(machine);
    let record = &ledger["services"]["containerd.service"];
    let mut witness = json!({
        "process": record["process"], "set": status["effectiveDigest"], "answer": answer, "verifiesTls": true, "ownRoots": true,
        "words": "tls: failed to verify certificate: x509: certificate signed by unknown authority",
        "anchor": status["anchors"][0]["sha256"], "at": {"wall": 1, "boottime": 1, "boot_id": ""},
    });
    witness.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    ledger["witnesses"] = json!({HOST: witness});
    machine.write(LEDGER, ledger.to_string());
}

/// A node whose image has the CA in it: containerd has started over it, and no agent was ever there.
#[track_caller]
fn golden(kind: MachineKind) -> (Machine, String) {
    let machine = Machine::boot(kind);
    let image = machine.push("app:1");
    machine.trust_by_hand("registry", &machine.registry_ca());
    machine.run(&["systemctl", "restart", "containerd"]).expect(0);
    machine.wait_runtime();
    (machine, image)
}

/// The agent sees, for the first time, a process that has all anchors.
fn an_image_with_the_ca_in_it_is_not_restarted(kind: MachineKind) {
    let (machine, image) = golden(kind);
    let (before, ours) = (starts(&machine), machine.registry_ca());
    let agent = machine.agent(&[], &format!("{FAST}\nruntime: {{witness: never}}"));
    machine.set_source_pem(&ours);
    let status = wait_state(&agent, &ours, "unknown");
    assert_eq!(text(&status, "/verdict"), "runtime-unknown");
    assert_eq!((&status["anchors"][0]["runtime"], &status["runtime"]["stale"]), (&"unknown".into(), &false.into()));
    assert!(text(&status, "/runtimeTrust/next").contains("nodetrust probe --through runtime HOST"), "{status:#}");
    wait_two_cycles(&agent);
    let screen = agent.nodetrust(&["status"]).expect(2).out;
    let first = screen.lines().next().unwrap();
    assert!(first.contains("RUNTIME UNKNOWN") && !first.contains("TRUSTED"), "{screen}");
    assert!(screen.contains("NEXT      ask the runtime") && !screen.contains("nothing to do"), "{screen}");
    let plan = agent.nodetrust(&["plan"]).expect(0).out.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(!plan.contains("nothing to do") && plan.contains("--through runtime"), "{plan}");
    assert_eq!(
        (starts(&machine), &ledger(&machine)["tries"]),
        (before, &Value::Null),
        "restarted by first sight alone"
    );
    assert_eq!(machine.pull(&image), Ok(()), "a restart would have been needless");

    // Without the agent and its configuration the ledger gives the same answer.
    agent.kill();
    install(&machine);
    let told = debug(&machine);
    assert_eq!((&told["verdict"], &told["runtimeTrust"]), (&status["verdict"], &status["runtimeTrust"]));

    simulate_answer(&machine, &status, "trusts", &json!({}));
    let agent = machine.start_agent();
    let status = wait_trusted(&agent, &ours);
    assert!(text(&status, "/runtime/why").contains("the runtime trusts registry.test:5443"), "{status:#}");
    agent.nodetrust(&["status"]).expect(0);
    assert_eq!(starts(&machine), before);
    agent.kill();
    let told = debug(&machine);
    assert_eq!((text(&told, "/verdict"), &told["runtimeTrust"]), ("trusted", &status["runtimeTrust"]));
}

#[test]
fn an_image_with_the_ca_in_it_is_unknown_until_a_simulated_answer_and_not_restarted_1_6() {
    an_image_with_the_ca_in_it_is_not_restarted(MachineKind::Bookworm);
}

#[test]
fn an_image_with_the_ca_in_it_is_unknown_until_a_simulated_answer_and_not_restarted_2_1() {
    an_image_with_the_ca_in_it_is_not_restarted(MachineKind::Containerd21);
}

/// The agent sees, for the first time, a process that lacks an anchor. By its facts it looks like the one above.
#[test]
fn a_runtime_that_refuses_by_a_simulated_answer_is_restarted_once_and_only_where_that_can_help() {
    let machine = Machine::boot(MachineKind::Trixie);
    let image = machine.push("app:1");
    assert_untrusted(&machine, &image);
    let (before, ours) = (starts(&machine), machine.registry_ca());
    machine.trust_by_hand("registry", &ours);
    let agent = machine.agent(&[], &format!("{FAST}\nruntime: {{witness: never}}"));
    machine.set_source_pem(&ours);
    let status = wait_state(&agent, &ours, "unknown");
    wait_two_cycles(&agent);
    assert_untrusted(&machine, &image);
    assert_eq!(starts(&machine), before, "nothing is known that a restart would follow from");

    // A refusal that no restart cures.
    agent.kill();
    simulate_answer(
        &machine,
        &status,
        "refuses",
        &json!({"handshakeError": "the certificate of registry.test has expired"}),
    );
    let agent = machine.start_agent();
    let status = wait_state(&agent, &ours, "stale");
    assert_eq!(text(&status, "/verdict"), "not-trusted-by-runtime");
    for part in ["refuses registry.test:5443", "unknown authority", "no restart would help", "has expired"] {
        assert!(text(&status, "/headline").contains(part), "{part}: {status:#}");
    }
    wait_two_cycles(&agent);
    assert_eq!(starts(&machine), before);

    // A refusal that a restart cures.
    agent.kill();
    let process = ledger(&machine)["services"]["containerd.service"]["process"].clone();
    simulate_answer(&machine, &status, "refuses", &json!({}));
    let agent = machine.start_agent();
    let status = wait_trusted(&agent, &ours);
    assert_eq!(machine.pull(&image), Ok(()), "{status:#}");
    assert_eq!((starts(&machine), ledger(&machine)["tries"].as_array().map(Vec::len)), (before + 1, Some(1)));
    assert_eq!(ledger(&machine)["witnesses"][HOST]["restarted"], process, "written down before it was made");

    // The next process refuses as well, so a restart does not help.
    agent.kill();
    simulate_answer(&machine, &status, "refuses", &json!({"restarted": process}));
    let agent = machine.start_agent();
    let status = wait_state(&agent, &ours, "stale");
    assert!(text(&status, "/headline").ends_with("a restart did not help"), "{status:#}");
    assert!(text(&status, "/runtimeTrust/next").contains("token server"), "{status:#}");
    assert!(agent.log_text().contains("contradicts what was inferred"), "{}", agent.log_text());
    wait_two_cycles(&agent);
    assert_eq!(starts(&machine), before + 1);
}

/// The same two processes, of which nothing inferred tells one from the other, and the runtime itself is asked.
#[test]
fn first_sight_is_settled_by_what_the_runtime_answers_itself() {
    for knows in [true, false] {
        let machine = Machine::boot(MachineKind::Trixie);
        let (image, ours) = (machine.push("app:1"), machine.registry_ca());
        if !knows {
            assert_untrusted(&machine, &image);
        }
        machine.trust_by_hand("registry", &ours);
        if knows {
            machine.run(&["systemctl", "restart", "containerd"]).expect(0);
            machine.wait_runtime();
        }
        let before = starts(&machine);
        let agent = machine.agent(&[], &format!("{FAST}\nruntime: {{witness: [\"{HOST}\"]}}"));
        machine.set_source_pem(&ours);
        let status = wait_trusted(&agent, &ours);
        assert_eq!(machine.pull(&image), Ok(()), "{status:#}");
        wait_two_cycles(&agent);
        assert_eq!(starts(&machine), before + usize::from(!knows), "{status:#}");
        let why = text(&status, "/runtime/why");
        assert!(!knows || why.contains("the runtime trusts registry.test:5443"), "{why}");
    }
}

#[test]
fn a_runtime_that_does_not_work_is_never_nothing_to_do() {
    let machine = Machine::boot(MachineKind::Trixie);
    install(&machine);
    let ours = machine.registry_ca();
    let agent = machine.agent(&[], FAST);
    machine.set_source_pem(&ours);
    wait_trusted(&agent, &ours);
    wait_state(&agent, &ours, "current");

    // It runs and does not serve the kubelet: `mirrors` and `config_path` exclude each other.
    let config = machine.read(CONFIG).unwrap();
    let both = "config_path = \"/etc/containerd/certs.d\"\n\
                [plugins.\"io.containerd.grpc.v1.cri\".registry.mirrors.\"mirror.test\"]\nendpoint = [\"https://mirror.test\"]";
    machine.write(CONFIG, config.replace("config_path = \"\"", both));
    machine.run(&["systemctl", "restart", "containerd"]).expect(0);
    let status = agent.wait_status("a runtime that does not work", LIMIT, |status| {
        text(status, "/verdict") == "runtime-unknown" && text(status, "/headline").contains("containerd does not work")
    });
    assert!(text(&status, "/runtimeTrust/next").contains("journalctl -u containerd.service"), "{status:#}");
    let screen = machine.run(&["nodetrust", "status"]).expect(2).out; // its containers run no program now
    assert!(screen.contains("NEXT      mend it") && !screen.contains("nothing to do"), "{screen}");
    machine.write(CONFIG, &config);
    machine.run(&["systemctl", "restart", "containerd"]).expect(0);
    wait_state(&agent, &ours, "current");

    // The runtime was stopped; it reads the bundle when it starts.
    machine.run(&["systemctl", "stop", "containerd"]).expect(0);
    wait_state(&agent, &ours, "none");
    // The runtime cannot start.
    let drop_in = "[Service]\nRestart=no\nExecStartPre=/bin/sh -c \"exit 1\"\n";
    machine.write("/etc/systemd/system/containerd.service.d/test.conf", drop_in);
    machine.run(&["systemctl", "daemon-reload"]).expect(0);
    assert_ne!(machine.run(&["systemctl", "start", "containerd"]).code, 0);
    agent.wait_status("a unit that has failed", LIMIT, |status| {
        text(status, "/verdict") == "runtime-unknown"
            && text(status, "/headline").contains("containerd.service is failed")
    });
    machine.run(&["rm", "/etc/systemd/system/containerd.service.d/test.conf"]).expect(0);
    machine.run(&["systemctl", "daemon-reload"]).expect(0);
    machine.run(&["systemctl", "restart", "containerd"]).expect(0);
    machine.wait_runtime();
    wait_state(&agent, &ours, "current");
}

#[test]
fn a_runtime_that_reads_other_roots_than_the_node_s_is_never_called_trusted() {
    let machine = Machine::boot(MachineKind::Trixie);
    let (image, ours) = (machine.push("app:1"), machine.registry_ca());
    let bundle = "/etc/ssl/certs/ca-certificates.crt";
    machine.run(&["cp", "-r", "/etc/ssl/certs", "/srv/roots"]).expect(0);
    machine.run(&["cp", "--remove-destination", bundle, "/srv/roots/ca-certificates.crt"]).expect(0);
    machine.write("/srv/roots.env", "SSL_CERT_FILE=/srv/roots/ca-certificates.crt\nSSL_CERT_DIR='/srv/none'\n");
    let agent = machine.agent(&[], FAST);
    wait_two_cycles(&agent);
    for (line, says) in [
        (
            "Environment=SSL_CERT_FILE=/srv/roots/ca-certificates.crt SSL_CERT_DIR=/srv/none",
            "containerd.service has it read SSL_CERT_FILE=",
        ),
        ("EnvironmentFile=/srv/roots.env", "containerd.service has it read SSL_CERT_FILE="),
        ("BindReadOnlyPaths=/srv/roots:/etc/ssl/certs", "its process has another /etc/ssl/certs mounted"),
    ] {
        let drop_in = "/etc/systemd/system/containerd.service.d/test.conf";
        machine.write(drop_in, format!("[Service]\n{line}\n"));
        machine.run(&["systemctl", "daemon-reload"]).expect(0);
        machine.run(&["systemctl", "restart", "containerd"]).expect(0);
        machine.wait_runtime();
        let before = starts(&machine);
        machine.set_source_pem(&ours);
        agent.wait_status(line, LIMIT, |status| {
            text(status, "/verdict") == "runtime-unknown" && text(status, "/headline").contains(says)
        });
        wait_two_cycles(&agent);
        assert_untrusted(&machine, &image);
        assert_eq!(starts(&machine), before, "{line}: a restart brings nothing");
        machine.run(&["rm", drop_in]).expect(0);
        machine.run(&["systemctl", "daemon-reload"]).expect(0);
        machine.run(&["systemctl", "restart", "containerd"]).expect(0);
        machine.wait_runtime();
        wait_trusted(&agent, &ours);
    }
    assert_eq!(machine.pull(&image), Ok(()));
}

#[test]
fn who_looks_without_the_configuration_finds_the_runtime_that_the_agent_was_told_of() {
    let machine = Machine::boot(MachineKind::Bookworm);
    let ours = machine.registry_ca();
    install(&machine);
    for (runtime, state) in [("kind: none", "none"), ("unit: containerd.service, onChange: report", "stale")] {
        let agent = machine.agent(&[], &format!("{FAST}\nruntime: {{{runtime}}}"));
        machine.set_source_pem(&ours);
        let status = wait_state(&agent, &ours, state);
        agent.kill();
        let told = debug(&machine);
        assert_eq!(
            (&told["verdict"], &told["runtimeTrust"]),
            (&status["verdict"], &status["runtimeTrust"]),
            "{told:#}"
        );
    }
}

/// In a cluster: the condition, the fleet, the agent's own screen and a debug pod say the same of a node whose image has the CA in it.
#[test]
fn a_runtime_of_which_nothing_is_known_is_told_alike_to_the_cluster_and_in_debug_pods() {
    const NODE: &str = "trixie";
    let cluster = TestCluster::boot(&[(NODE, MachineKind::Trixie)]);
    cluster.image(IMAGE, crate::support::program());
    let (node, ours) = (cluster.node(NODE), cluster.registry_ca());
    node.write("/usr/local/share/ca-certificates/by-hand.crt", &ours);
    node.run(&["update-ca-certificates"]).expect(0);
    let before = node.invocation("containerd");

    let manifests = configmap(&ours, "");
    cluster.apply(&manifests);
    cluster.rolled_out();
    let condition = cluster.wait_condition(NODE, "Unknown", "RuntimeUnknown");
    let message = text(&condition, "/message");
    assert!(message.contains("whether pulls follow is not known"), "{condition:#}");
    let fleet = cluster.topology(&cluster.kubeconfig(), &[]).expect(2).out;
    assert!(fleet.contains("whether the container runtime of 1 node follows the store is not known"), "{fleet}");
    let exec = ["-n", "nodetrust", "exec", "ds/nodetrust", "--", "nodetrust", "-o", "json", "status"];
    let told = cluster.kubectl(&exec).json();
    assert_eq!((text(&told, "/verdict"), text(&told, "/headline")), ("runtime-unknown", message));
    assert_eq!(node.invocation("containerd"), before, "restarted by first sight alone");

    cluster.kubectl_with(&["delete", "-f", "-"], &manifests).expect(0);
    wait_for("no agent", LIMIT, || cluster.pods(&["-n", "nodetrust"]).is_empty().then_some(()));
    let pod = crate::debug::status_as_json(&cluster, NODE);
    assert_eq!((&pod["verdict"], &pod["runtimeTrust"]), (&told["verdict"], &told["runtimeTrust"]), "{pod:#}");
}
