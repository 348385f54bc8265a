//! The container runtime is asked itself whether it trusts a registry: by a pull of an image that nobody can have, on booted nodes with
//! each generation of containerd, and with Docker.

use rcgen::date_time_ymd;
use serde_json::Value;

use crate::support::{
    following::{FAST, LIMIT, assert_untrusted, ledger, wait_trusted},
    machine::{Machine, MachineKind, PodAgent},
    pki::Ca,
    registry::{self, NAME, TestRegistry},
    wait_for,
};

const REGISTRY: &str = "registry.test:5443";

/// The ledger's entry of a registry; null if there is none.
#[track_caller]
fn witness(machine: &Machine, registry: &str) -> Value {
    let text = machine.read("/var/lib/nodetrust/ledger.json").unwrap_or_default();
    let ledger: Value = serde_json::from_str(&text).unwrap_or_default(); // the ledger is missing before the first anchor
    ledger["witnesses"][registry].clone()
}

/// Waits for this answer and returns the entry.
#[track_caller]
fn wait_witness(machine: &Machine, registry: &str, answer: &str) -> Value {
    wait_for(&format!("{answer} of {registry}"), LIMIT, || {
        Some(witness(machine, registry)).filter(|witness| witness["answer"] == answer)
    })
}

/// The runtime's answer about a registry, as the command gives it with the agent's rights.
#[track_caller]
fn probe(agent: &PodAgent, code: i32, registry: &str) -> Value {
    let done = agent.nodetrust(&["probe", "-o", "json", "--through", "runtime", registry]).expect(code);
    let answer = done.json();
    assert_eq!(answer["trusted"], code == 0);
    let probe = answer["probes"][0].clone();
    assert_eq!((&probe["target"], &probe["through"]), (&registry.into(), &"runtime".into()));
    probe
}

/// Everything that containerd stores of images: names, content, and content that is on the way.
#[track_caller]
fn stored(machine: &Machine) -> String {
    let list = "ctr -n k8s.io images ls; ctr -n k8s.io content ls -q; ctr -n k8s.io content active; \
                find /var/lib/containerd/io.containerd.content.v1.content -type f | sort";
    machine.run(&["sh", "-c", list]).expect(0).out
}

/// Gives an image that is on the node a name of the registry, as if it had come from there.
#[track_caller]
fn name_an_image(machine: &Machine) {
    machine
        .run(&["ctr", "-n", "k8s.io", "images", "tag", "rig.test/busybox:1", &format!("{REGISTRY}/app:0")])
        .expect(0);
}

/// From the first anchor on, without a word of configuration: the agent finds the registry by the node's images, asks, and is answered
/// by the process that it has restarted. The registry sees two requests.
fn a_registry_of_ours_is_found_and_asked(kind: MachineKind) {
    let machine = Machine::boot(kind);
    name_an_image(&machine);
    let image = machine.push("app:1");
    assert_untrusted(&machine, &image);
    let agent = machine.agent(&[], FAST);
    let (before, pushed) = (stored(&machine), machine.registry_log().len());

    machine.set_source_pem(&machine.registry_ca());
    wait_trusted(&agent, &machine.registry_ca());
    let witness = wait_witness(&machine, REGISTRY, "trusts");
    let invocation = machine.invocation("containerd");
    assert_eq!(witness["process"]["invocation"], invocation, "the process that runs");
    assert_eq!((&witness["verifiesTls"], &witness["ownRoots"]), (&true.into(), &true.into()), "{witness:#}");
    assert_eq!(witness["handshakeError"], Value::Null, "{witness:#}");
    assert_eq!(witness["anchor"], crate::support::following::sha256(&machine.registry_ca())[0]);
    assert!(witness["words"].as_str().unwrap().ends_with(": not found"), "{witness:#}");

    let asked = machine.registry_log().split_off(pushed);
    let digest = asked[0].rsplit('/').next().unwrap().to_owned();
    let expected = ["manifests", "blobs"].map(|what| format!("HEAD /v2/nodetrust/witness/{what}/{digest}")).to_vec();
    assert_eq!(asked, expected, "exactly what the documentation says");
    assert_eq!(stored(&machine), before, "something was stored");

    // It is asked once for each set in force.
    let other = Ca::new("Another CA");
    machine.set_source_pem(&(machine.registry_ca() + &other.pem()));
    wait_for("the second question", LIMIT, || {
        let now = self::witness(&machine, REGISTRY);
        (now["answer"] == "trusts" && now["set"] != witness["set"]).then_some(())
    });
    let asked = machine.registry_log().split_off(pushed);
    assert!(
        !asked.contains(&String::new()) && asked[2..].iter().all(|request| !request.contains(&digest)),
        "{asked:?}"
    );
    let cycles = agent.metric("nodetrust_reconciles_total{trigger=\"witness\",outcome=\"unchanged\"}").unwrap_or(0.0)
        + agent.metric("nodetrust_reconciles_total{trigger=\"witness\",outcome=\"changed\"}").unwrap_or(0.0);
    assert!(cycles >= 1.0, "an answer is followed by a cycle");
    assert_eq!(stored(&machine), before, "something was stored");
}

#[test]
fn containerd_1_6_is_asked_about_the_registries_of_its_images() {
    a_registry_of_ours_is_found_and_asked(MachineKind::Bookworm);
}

#[test]
fn containerd_1_7_is_asked_about_the_registries_of_its_images() {
    a_registry_of_ours_is_found_and_asked(MachineKind::Trixie);
}

#[test]
fn containerd_2_1_is_asked_about_the_registries_of_its_images() {
    a_registry_of_ours_is_found_and_asked(MachineKind::Containerd21);
}

/// What each kind of registry proves, with a containerd that has the CA, asked as a person asks.
fn every_kind_of_registry_is_judged(kind: MachineKind) {
    let (corp, other) = (Ca::new("Corp Root"), Ca::new("Unknown Root"));
    let machine = Machine::boot(kind);
    let agent = machine.agent(&[&corp], &format!("{FAST}\nruntime: {{witness: never}}"));
    wait_trusted(&agent, &corp.pem());
    let before = stored(&machine);

    let serve = |leaf: (String, String), reply: fn(&registry::RegistryRequest) -> registry::Reply| {
        TestRegistry::serve(&machine, &leaf, &[], reply)
    };
    let good = || corp.leaf(NAME);
    // Any answer of the registry proves trust.
    let (knows_nothing, has_everything) = (serve(good(), registry::not_found), serve(good(), registry::everything));
    let wants_a_password = serve(good(), registry::basic);
    let says_no = TestRegistry::serve(&machine, &good(), &[], registry::status(403));
    for registry in [&knows_nothing, &has_everything, &wants_a_password, &says_no] {
        let probe = probe(&agent, 0, &registry.name);
        assert_eq!(probe["verdict"], "trusted", "{probe:#}");
        let witness = wait_witness(&machine, &registry.name, "trusts");
        assert_eq!(witness["anchor"], corp.sha256());
        let asked = registry.take_log();
        assert!(asked.iter().all(|asked| asked.path.starts_with("/v2/nodetrust/witness/")), "{asked:?}");
        assert!(asked.iter().all(|asked| !asked.is_authorized), "there are no credentials to give away: {asked:?}");
        assert!(asked.len() <= 3, "{asked:?}");
    }

    // Its certificate is refused, and programs on the host refuse it too, so no restart helps.
    let past = corp.leaf_with(NAME, |params| params.not_after = date_time_ymd(2024, 2, 29));
    let issuing = corp.below("Corp Issuing CA");
    for (registry, words) in [
        (serve(other.leaf(NAME), registry::not_found), "Unknown Root"),
        (serve(past, registry::not_found), "2024-02-29"),
        (serve(corp.leaf("elsewhere.test"), registry::not_found), "elsewhere.test"),
        (serve(issuing.leaf(NAME), registry::not_found), "Corp Issuing CA"),
    ] {
        let probe = probe(&agent, 2, &registry.name);
        assert_eq!(
            (&probe["verdict"], &probe["reason"]),
            (&"not-trusted".into(), &"runtime-refuses".into()),
            "{probe:#}"
        );
        assert!(probe["text"].as_str().unwrap().contains("x509: "), "{probe:#}");
        let witness = wait_witness(&machine, &registry.name, "refuses");
        assert!(witness["handshakeError"].as_str().unwrap().contains(words), "{words}: {witness:#}");
        assert!(registry.take_log().is_empty(), "a request without trust");
    }

    // The registry is trusted and its token server is not: the answer names the token server, and our handshake is with it.
    let tokens = serve(other.leaf(NAME), registry::not_found);
    let leads_there = TestRegistry::serve(&machine, &good(), &[], registry::bearer(&tokens.name));
    let answer = probe(&agent, 2, &leads_there.name);
    assert_eq!(answer["reason"], "runtime-refuses", "{answer:#}");
    assert!(answer["notes"].to_string().contains(&format!("that of {}, to which", tokens.name)), "{answer:#}");
    let witness = wait_witness(&machine, &leads_there.name, "refuses");
    assert!(witness["handshakeError"].as_str().unwrap().contains("Unknown Root"), "{witness:#}");
    assert_eq!(witness["anchor"], Value::Null, "{witness:#}");

    // These answers prove nothing.
    let breaks = TestRegistry::serve(&machine, &good(), &[], registry::status(500));
    let plain = TestRegistry::serve_plain(&machine, registry::not_found);
    let tokens_break = TestRegistry::serve(&machine, &good(), &[], registry::bearer(&breaks.name));
    for name in [&breaks.name, &plain.name, &tokens_break.name, "registry.test:1", "nosuch.test:443"] {
        let probe = probe(&agent, 2, name);
        assert_eq!(
            (&probe["verdict"], &probe["reason"]),
            (&"not-reached".into(), &"runtime-not-reached".into()),
            "{probe:#}"
        );
        wait_witness(&machine, name, "not-reached");
    }
    wait_for("the end of what was on the way", LIMIT, || (stored(&machine) == before).then_some(()));
}

#[test]
fn containerd_1_6_proves_what_its_answers_prove_and_no_more() {
    every_kind_of_registry_is_judged(MachineKind::Bookworm);
}

#[test]
fn containerd_1_7_proves_what_its_answers_prove_and_no_more() {
    every_kind_of_registry_is_judged(MachineKind::Trixie);
}

#[test]
fn containerd_2_1_proves_what_its_answers_prove_and_no_more() {
    every_kind_of_registry_is_judged(MachineKind::Containerd21);
}

/// A runtime that runs since before the CA refuses, and the host does not: the ledger says so, a probe says so, and after a restart it
/// is the other way round.
fn a_process_without_the_ca_testifies_against_itself(kind: MachineKind) {
    let machine = Machine::boot(kind);
    let image = machine.push("app:1");
    assert_untrusted(&machine, &image);
    let agent = machine.agent(
        &[],
        &format!(
            "{FAST}\nruntime: {{onChange: never, witness: [\"{REGISTRY}\"]}}\n\
             probes:\n- {{target: \"{REGISTRY}\", interval: 1h}}\n- {{target: \"{REGISTRY}\", interval: 1h, through: runtime}}"
        ),
    );
    let success = |through: &str| {
        agent.metric(&format!("nodetrust_probe_success{{target=\"{REGISTRY}\",through=\"{through}\"}}"))
    };
    machine.set_source_pem(&machine.registry_ca());
    let witness = wait_witness(&machine, REGISTRY, "refuses");
    let witness = match witness["handshakeError"] {
        Value::Null => witness,
        // The runtime was asked before the CA was in force as well.
        _ => wait_for("an answer over the new set", LIMIT, || {
            Some(self::witness(&machine, REGISTRY)).filter(|witness| witness["handshakeError"] == Value::Null)
        }),
    };
    assert_eq!(witness["process"]["invocation"], machine.invocation("containerd"));
    assert!(witness["words"].as_str().unwrap().contains("certificate signed by unknown authority"), "{witness:#}");
    let answer = probe(&agent, 2, REGISTRY);
    assert_eq!((&answer["verdict"], &answer["reason"]), (&"not-trusted-by-runtime".into(), &"runtime-refuses".into()));
    wait_for("the probes", LIMIT, || (success("runtime") == Some(0.0)).then_some(()));
    let status = agent.wait_status("the probes", LIMIT, |status| {
        let row = |through: &str| {
            let rows = status["probes"].as_array().into_iter().flatten();
            rows.filter(|row| row["through"] == through).map(|row| row["verdict"].clone()).next()
        };
        row("runtime") == Some("not-trusted-by-runtime".into()) && row("host").is_some()
    });
    assert_eq!(status["probes"].as_array().map(Vec::len), Some(2), "{status:#}");

    machine.run(&["systemctl", "restart", "containerd"]).expect(0);
    machine.wait_runtime();
    let witness = wait_witness(&machine, REGISTRY, "trusts");
    assert_eq!(witness["process"]["invocation"], machine.invocation("containerd"));
    wait_for("the probe of the new process", LIMIT, || (success("runtime") == Some(1.0)).then_some(()));
    wait_for("the probe of the host", LIMIT, || (success("host") == Some(1.0)).then_some(()));
    assert_eq!(machine.pull(&image), Ok(()));
    let screen = agent.nodetrust(&["probe", "--through", "runtime", REGISTRY]).expect(0).out;
    assert!(screen.contains("   TRUSTED   ") && screen.contains("containerd.service asked it"), "{screen}");
}

#[test]
fn a_containerd_1_6_that_is_older_than_the_ca_says_so_itself() {
    a_process_without_the_ca_testifies_against_itself(MachineKind::Bookworm);
}

#[test]
fn a_containerd_2_1_that_is_older_than_the_ca_says_so_itself() {
    a_process_without_the_ca_testifies_against_itself(MachineKind::Containerd21);
}

/// Behind a proxy that inspects TLS, the registry's certificate is the proxy's: both the runtime and our own handshake go that way, with
/// the proxy from the unit's environment or from a file that it names.
fn the_runtimes_proxy_is_followed(kind: MachineKind) {
    let machine = Machine::boot(kind);
    name_an_image(&machine);
    machine.proxy(true);
    let agent = machine.agent(&[], FAST);
    machine.set_source_pem(&machine.inspection_ca());
    wait_trusted(&agent, &machine.inspection_ca());
    let witness = wait_witness(&machine, REGISTRY, "trusts");
    assert_eq!(witness["anchor"], crate::support::following::sha256(&machine.inspection_ca())[0], "{witness:#}");
    assert_eq!(witness["handshakeError"], Value::Null);

    let drop_in = "/etc/systemd/system/containerd.service.d/proxy.conf";
    let restart = || {
        let restart = "systemctl daemon-reload && systemctl reset-failed containerd; systemctl restart containerd";
        machine.run(&["sh", "-c", restart]).expect(0);
        machine.wait_runtime();
    };
    // The proxy comes from a file and does not serve this registry, which shows a certificate of an unknown CA.
    machine.write(drop_in, "[Service]\nEnvironmentFile=/etc/default/proxy\nEnvironmentFile=-/etc/default/nosuch\n");
    machine.write("/etc/default/proxy", "# ours\nHTTPS_PROXY=\"http://198.51.100.1:3128\"\nNO_PROXY=127.0.0.1\n");
    restart();
    let probe_at = |code| probe(&agent, code, REGISTRY);
    assert_eq!(probe_at(0)["verdict"], "trusted");
    machine.write("/etc/default/proxy", "HTTPS_PROXY=http://198.51.100.1:3128\nNO_PROXY=.test\n");
    restart();
    let direct = probe_at(2);
    assert_eq!(
        (&direct["verdict"], &direct["reason"]),
        (&"not-trusted".into(), &"runtime-refuses".into()),
        "{direct:#}"
    );
    // The proxy does not exist.
    machine.write(drop_in, "[Service]\nEnvironment=HTTPS_PROXY=http://198.51.100.1:9\n");
    restart();
    let down = probe_at(2);
    assert_eq!(down["reason"], "runtime-not-reached", "{down:#}");
    assert!(down["notes"].to_string().contains("198.51.100.1:9"), "our own handshake goes the same way: {down:#}");
    // A proxy of another kind: the runtime can be asked, and our own handshake cannot compare.
    machine.write(drop_in, "[Service]\nEnvironment=HTTPS_PROXY=socks5://198.51.100.1:9\n");
    restart();
    let socks = probe_at(2);
    assert_eq!(socks["reason"], "runtime-not-reached", "{socks:#}");
    assert!(socks["notes"].to_string().contains("one of socks5"), "{socks:#}");
}

#[test]
fn containerd_1_6_is_asked_behind_its_proxy() {
    the_runtimes_proxy_is_followed(MachineKind::Bookworm);
}

#[test]
fn containerd_1_7_is_asked_behind_its_proxy() {
    the_runtimes_proxy_is_followed(MachineKind::Trixie);
}

#[test]
fn containerd_2_1_is_asked_behind_its_proxy() {
    the_runtimes_proxy_is_followed(MachineKind::Containerd21);
}

/// Pulls that work without any trust in the CA prove that pulls work.
#[test]
fn a_registry_that_is_not_verified_proves_nothing_of_its_ca() {
    let dir = "/etc/containerd/certs.d";
    let machine = Machine::boot_with_config_path(MachineKind::Trixie, dir);
    let (corp, other) = (Ca::new("Corp Root"), Ca::new("Unknown Root"));
    // A folder for one host hides the anchors for all hosts, which would need a restart.
    let agent = machine.agent(&[&corp], &format!("{FAST}\nruntime: {{onChange: registry, witness: never}}"));
    wait_trusted(&agent, &corp.pem());
    let registry = TestRegistry::serve(&machine, &corp.leaf(NAME), &[], registry::not_found);
    let mirror = TestRegistry::serve(&machine, &corp.leaf(NAME), &[], registry::not_found);
    let stranger = TestRegistry::serve(&machine, &other.leaf(NAME), &[], registry::not_found);

    // Our own file in `_default` counts for every pull, and proves nothing about the process's own roots.
    assert_eq!(probe(&agent, 0, &registry.name)["verdict"], "trusted");
    let witness = wait_witness(&machine, &registry.name, "trusts");
    assert_eq!((&witness["verifiesTls"], &witness["ownRoots"]), (&true.into(), &false.into()), "{witness:#}");

    for (of, hosts) in [
        (&stranger, format!("server = \"https://{}\"\nskip_verify = true\n[host]\n", stranger.name)),
        (
            &registry,
            format!(
                "server = \"https://{}\"\n[host.\"https://{}\"]\n capabilities = [\"pull\", \"resolve\"]\n",
                registry.name, mirror.name
            ),
        ),
    ] {
        machine.write(&format!("{dir}/{}/hosts.toml", of.name), hosts);
        let answer = probe(&agent, 2, &of.name);
        assert_eq!(
            (&answer["verdict"], &answer["reason"]),
            (&"pulls-work".into(), &"not-verified".into()),
            "{answer:#}"
        );
        assert_eq!(wait_witness(&machine, &of.name, "trusts")["verifiesTls"], false);
    }
    assert!(!mirror.take_log().is_empty());

    // Somebody's certificate for one host makes pulls work; the host's programs do not trust it.
    machine.write(&format!("{dir}/{}/hosts.toml", stranger.name), "[host]\n");
    assert_eq!(probe(&agent, 2, &stranger.name)["verdict"], "not-trusted");
    machine.run(&["rm", &format!("{dir}/{}/hosts.toml", stranger.name)]).expect(0);
    machine.write(&format!("{dir}/{}/theirs.crt", stranger.name), other.pem());
    let answer = probe(&agent, 0, &stranger.name);
    assert!(answer["notes"].to_string().contains("for programs on this host"), "{answer:#}");
    let witness = wait_witness(&machine, &stranger.name, "trusts");
    assert_eq!((&witness["ownRoots"], &witness["anchor"]), (&false.into(), &Value::Null), "{witness:#}");
}

/// Docker itself pulls, whoever asks.
#[test]
fn docker_is_asked_by_its_own_api() {
    let machine = Machine::boot(MachineKind::Docker);
    machine.write("/etc/docker/daemon.json", "{\"iptables\": false, \"ip6tables\": false, \"bridge\": \"none\"}");
    machine.run(&["systemctl", "restart", "docker"]).expect(0);
    let (corp, other) = (Ca::new("Corp Root"), Ca::new("Unknown Root"));
    let agent =
        machine.agent(&[&corp], &format!("{FAST}\nruntime: {{kind: docker, onChange: report, witness: never}}"));
    agent.wait_status("the anchor", LIMIT, |status| status["converged"] == true);
    machine.run(&["systemctl", "restart", "docker"]).expect(0);
    wait_trusted(&agent, &corp.pem());
    let list = || machine.run(&["docker", "images", "-a", "--digests"]).expect(0).out;
    let before = list();
    let serve = |leaf: (String, String), reply: fn(&registry::RegistryRequest) -> registry::Reply| {
        TestRegistry::serve(&machine, &leaf, &[], reply)
    };
    for reply in [registry::not_found, registry::basic] {
        let registry = serve(corp.leaf(NAME), reply);
        let answer = probe(&agent, 0, &registry.name);
        assert!(answer["text"].as_str().unwrap().starts_with("docker.service asked it"), "{answer:#}");
        let asked = registry.take_log();
        assert!(asked.iter().all(|asked| asked.method == "GET"), "{asked:?}");
    }
    let stranger = serve(other.leaf(NAME), registry::not_found);
    assert_eq!(probe(&agent, 2, &stranger.name)["reason"], "runtime-refuses");
    machine.write(&format!("/etc/docker/certs.d/{}/ca.crt", stranger.name), other.pem());
    assert_eq!(probe(&agent, 0, &stranger.name)["verdict"], "trusted");
    assert_eq!(wait_witness(&machine, &stranger.name, "trusts")["ownRoots"], false);
    assert_eq!(probe(&agent, 2, "registry.test:1")["reason"], "runtime-not-reached");
    assert_eq!(list(), before, "something was stored");
}

/// Commands that only look ask nobody.
#[test]
fn status_and_plan_ask_nobody_and_a_node_without_a_runtime_says_so() {
    let machine = Machine::boot(MachineKind::Trixie);
    name_an_image(&machine);
    let agent = machine.agent(&[], &format!("{FAST}\nruntime: {{witness: never}}"));
    machine.set_source_pem(&machine.registry_ca());
    wait_trusted(&agent, &machine.registry_ca());
    let before = machine.registry_log();
    agent.nodetrust(&["status"]);
    agent.nodetrust(&["plan"]).expect(0);
    assert_eq!(machine.registry_log(), before);
    assert_eq!(ledger(&machine)["witnesses"], Value::Null, "never means never");
    let usage = agent.nodetrust(&["probe", "--through", "runtime", "--via-proxy", "http://p:1", REGISTRY]).expect(64);
    assert!(usage.err.contains("--via-proxy"), "{}", usage.err);
    let usage = agent.nodetrust(&["probe", "--through", "runtime", "registry.test/app"]).expect(64);
    assert!(usage.err.contains("is no registry"), "{}", usage.err);
}
