//! Runtimes that are not Debian's containerd under systemd: Docker, containerd under OpenRC, and the distributions that start a
//! containerd of their own.
//!
//! Docker, dockerd's containers, OpenRC and each containerd are real. Simulated, and named so: cri-dockerd, k3s and k0s, of which
//! Debian has no packages. A simulated cri-dockerd is its socket with containerd's CRI behind it. A simulated k3s or k0s is a shell
//! script with the unit, the paths and the manners of the real one towards the real containerd that it starts.

use std::{process::Command, time::Duration};

use serde_json::Value;

use crate::support::{
    machine::{Machine, MachineKind, PodAgent},
    must, wait_for,
};

/// Longest wait for events that take seconds; the machine may be busy.
const LIMIT: Duration = Duration::from_secs(240);
/// Settings of an agent that settles and looks quickly.
const FAST: &str = "settle: 100ms\nresync: 5s\nrotation: {removalGrace: 0s}";
const UNKNOWN: &str = "x509: certificate signed by unknown authority";

/// The pull that fails now, and thereby has the runtime load its roots.
#[track_caller]
fn assert_untrusted(machine: &Machine, image: &str) {
    let error = machine.pull(image).unwrap_err();
    assert!(error.contains(UNKNOWN), "{error}");
}

/// Waits until the operating system and the runtime trust the one anchor.
#[track_caller]
fn wait_trusted(agent: &PodAgent) -> Value {
    agent.wait_status("one anchor, trusted by the runtime", LIMIT, |status| {
        status["converged"] == true
            && status["runtimeTrust"]["state"] == "current"
            && status["runtime"]["stale"] == false
            && status["anchors"].as_array().is_some_and(|rows| rows.len() == 1 && rows[0]["runtime"] == true)
    })
}

/// An agent that has nothing to install yet.
#[track_caller]
fn idle_agent(machine: &Machine) -> PodAgent {
    let agent = machine.agent(&[], FAST);
    agent.wait_status("a first look", LIMIT, |status| status["runtime"]["kind"].is_string());
    agent
}

fn restarts(agent: &PodAgent) -> Option<f64> {
    agent.metric("nodetrust_runtime_restarts_total{outcome=\"done\"}")
}

// --- OpenRC -----------------------------------------------------------------------------------------------------------

/// The pids of containerd; empty if none runs.
fn daemon(machine: &Machine) -> String {
    machine.run(&["pidof", "containerd"]).out
}

#[test]
fn containerd_under_openrc_pulls_once_apply_has_restarted_it() {
    let machine = Machine::boot(MachineKind::OpenRc);
    let image = machine.push("app:1");
    assert_untrusted(&machine, &image);
    let container = machine.container();
    let process = machine.process(&container).unwrap();
    let before = daemon(&machine);

    machine.write("/usr/local/bin/nodetrust", must("our program", std::fs::read(crate::support::program())));
    machine.run(&["chmod", "755", "/usr/local/bin/nodetrust"]).expect(0);
    machine.write("/etc/nodetrust/config.yaml", "sources: [{name: org, path: /etc/nodetrust/org.crt}]\n");
    machine.write("/etc/nodetrust/org.crt", machine.registry_ca());
    let done = machine.run(&["nodetrust", "apply"]).expect(0);
    assert!(done.out.contains("restart  containerd.service (1 anchor newer than the process)"), "{}", done.out);
    assert_eq!(machine.pull(&image), Ok(()));
    assert_ne!(daemon(&machine), before, "a containerd that has loaded its roots needs a restart");
    assert_eq!(machine.process(&container).unwrap(), process, "the container did not live on");

    // A service that OpenRC was told to stop is not started.
    machine.run(&["rc-service", "containerd", "stop"]).expect(0);
    machine.write("/etc/nodetrust/org.crt", [machine.registry_ca(), machine.inspection_ca()].concat());
    let done = machine.run(&["nodetrust", "apply"]).expect(0);
    assert!(done.out.starts_with("openrc   TRUSTED   2 anchors"), "{}", done.out);
    assert_eq!(daemon(&machine), "");
}

#[test]
fn an_agent_in_a_pod_says_that_openrc_needs_a_person() {
    let machine = Machine::boot(MachineKind::OpenRc);
    let image = machine.push("app:1");
    assert_untrusted(&machine, &image);
    let before = daemon(&machine);

    let agent = idle_agent(&machine);
    machine.set_source_pem(&machine.registry_ca());
    let status = agent.wait_status("a held restart", LIMIT, |status| {
        status["converged"] == true && status["runtime"]["held"]["reason"] == "no-access"
    });
    assert_eq!(status["verdict"], "not-trusted-by-runtime");
    assert_eq!(daemon(&machine), before);
    assert_untrusted(&machine, &image);

    machine.run(&["rc-service", "containerd", "restart"]).expect(0);
    wait_trusted(&agent);
    assert_eq!(machine.pull(&image), Ok(()));
    assert_eq!(restarts(&agent), Some(0.0));
}

// --- Docker -----------------------------------------------------------------------------------------------------------

/// A node whose kubelet would use Docker: Docker, and a simulated cri-dockerd under this name.
#[track_caller]
pub fn boot_docker(shim: &str, live_restore: bool) -> Machine {
    let machine = Machine::boot(MachineKind::Docker);
    let edit = format!("s/^{{/{{\"live-restore\": {live_restore}, /");
    machine.run(&["sed", "-i", &edit, "/etc/docker/daemon.json"]).expect(0);
    machine.run(&["systemctl", "restart", "docker"]).expect(0);
    let socket = "[Socket]\nListenStream=/run/cri-dockerd.sock\n";
    let service = "[Service]\nExecStart=/lib/systemd/systemd-socket-proxyd /run/containerd/containerd.sock\n";
    machine.write(&format!("/etc/systemd/system/{shim}.socket"), socket);
    machine.write(&format!("/etc/systemd/system/{shim}.service"), service);
    machine.run(&["systemctl", "daemon-reload"]).expect(0);
    machine.run(&["systemctl", "start", &format!("{shim}.socket"), &format!("{shim}.service")]).expect(0);
    machine
}

/// Starts a container of Docker and returns its process.
#[track_caller]
fn docker_container(machine: &Machine) -> String {
    let busybox = must("tar", Command::new("tar").args(["-C", "/", "-c", "bin/busybox"]).output());
    machine.run_with(&["docker", "import", "-", "sleeper"], &busybox.stdout).expect(0);
    let run = ["docker", "run", "--detach", "--name=sleeper", "--network=none", "sleeper"];
    machine.run(&[&run[..], &["/bin/busybox", "sleep", "2147483647"]].concat()).expect(0);
    docker_process(machine)
}

#[track_caller]
fn docker_process(machine: &Machine) -> String {
    machine.run(&["docker", "inspect", "--format={{.State.Status}} {{.State.Pid}}", "sleeper"]).expect(0).out
}

#[track_caller]
fn assert_docker_refuses(machine: &Machine, image: &str) {
    let pull = machine.run(&["docker", "pull", image]);
    assert!(pull.code != 0 && pull.err.contains(UNKNOWN), "{}{}", pull.out, pull.err);
}

#[test]
fn docker_that_would_stop_its_containers_is_not_restarted() {
    let machine = boot_docker("cri-docker", false);
    let image = machine.push("app:1");
    assert_docker_refuses(&machine, &image);
    let process = docker_container(&machine);
    let before = machine.invocation("docker");

    let agent = idle_agent(&machine);
    machine.set_source_pem(&machine.registry_ca());
    let held = "nodetrust_restart_held{reason=\"live-restore\"}";
    let status = agent.wait_status("a held restart", LIMIT, |status| {
        status["converged"] == true && status["runtime"]["held"]["reason"] == "live-restore"
    });
    assert_eq!(status["runtime"]["kind"], "docker");
    assert_eq!((agent.metric(held), agent.metric("nodetrust_runtime_trust_stale")), (Some(1.0), Some(1.0)));
    assert_eq!((machine.invocation("docker"), docker_process(&machine)), (before, process));
    assert_docker_refuses(&machine, &image);

    // A person follows the hold's advice, and the agent sees that.
    machine.run(&["systemctl", "restart", "docker"]).expect(0);
    wait_trusted(&agent);
    machine.run(&["docker", "pull", &image]).expect(0);
    assert_eq!((agent.metric(held), restarts(&agent)), (Some(0.0), Some(0.0)));
}

#[test]
fn docker_that_spares_its_containers_is_restarted() {
    let machine = boot_docker("cri-docker", true);
    let image = machine.push("app:1");
    assert_docker_refuses(&machine, &image);
    let process = docker_container(&machine);
    let (before, containerd) = (machine.invocation("docker"), machine.invocation("containerd"));

    let agent = idle_agent(&machine);
    machine.set_source_pem(&machine.registry_ca());
    let status = wait_trusted(&agent);
    machine.run(&["docker", "pull", &image]).expect(0);
    assert_ne!(machine.invocation("docker"), before);
    assert_eq!(docker_process(&machine), process, "the container did not live on");
    assert_eq!(machine.invocation("containerd"), containerd, "containerd pulls nothing here");
    assert_eq!(status["runtime"]["certsDir"], "none for all registries");
    assert_eq!(restarts(&agent), Some(1.0));
}

// --- distributions with a containerd of their own -----------------------------------------------------------------------

/// Ends Debian's containerd and has this unit start its own, with all that the node's containerd knows.
#[track_caller]
pub fn boot_distribution(unit: &str, script: &str, config: (&str, &str), socket: &str) -> Machine {
    let machine = Machine::boot(MachineKind::Trixie);
    machine.run(&["systemctl", "disable", "--now", "containerd"]).expect(0);
    let sed = format!("s|config_path = .*|config_path = \"{}\"|", config.1);
    let text = machine.run(&["sed", &sed, "/etc/containerd/config.toml"]).expect(0).out;
    machine.write(config.0, text);
    machine.write("/usr/local/bin/simulated", script);
    machine.run(&["chmod", "755", "/usr/local/bin/simulated"]).expect(0);
    let service = "[Service]\nType=exec\nExecStart=/usr/local/bin/simulated\nKillMode=process\nDelegate=yes\nRestart=always\n\
                   RestartSec=5s\n[Install]\nWantedBy=multi-user.target\n";
    machine.write(&format!("/etc/systemd/system/{unit}"), service);
    // The tests reach it by this socket.
    machine.run(&["ln", "-sf", socket, "/run/containerd/containerd.sock"]).expect(0);
    machine.run(&["systemctl", "enable", "--now", unit]).expect(0);
    machine.wait_runtime();
    machine
}

/// k3s starts containerd by its name alone; each of the two ends when the other one ends.
pub const K3S: &str = r#"#!/bin/sh
config=/var/lib/rancher/k3s/agent/etc/containerd/config.toml
containerd -c $config -a /run/k3s/containerd/containerd.sock --state /run/k3s/containerd --root /var/lib/containerd &
trap "kill -KILL $!" TERM
wait
"#;
pub const K3S_CERTS: &str = "/var/lib/rancher/k3s/agent/etc/containerd/certs.d";

#[track_caller]
pub fn boot_k3s(config_path: &str) -> Machine {
    let config = ("/var/lib/rancher/k3s/agent/etc/containerd/config.toml", config_path);
    boot_distribution("k3s.service", K3S, config, "../k3s/containerd/containerd.sock")
}

/// The containerd of a distribution: the pid that pulls.
#[track_caller]
pub fn child(machine: &Machine) -> String {
    machine.run(&["pidof", "containerd"]).expect(0).out
}

#[test]
fn simulated_k3s_is_restarted_and_pulls() {
    let machine = boot_k3s("");
    let image = machine.push("app:1");
    assert_untrusted(&machine, &image);
    let container = machine.container();
    let process = machine.process(&container).unwrap();
    let before = (machine.invocation("k3s"), child(&machine));

    let agent = idle_agent(&machine);
    machine.set_source_pem(&machine.registry_ca());
    let status = wait_trusted(&agent);
    assert_eq!(machine.pull(&image), Ok(()), "{status:#}");
    let after = (machine.invocation("k3s"), child(&machine));
    assert!(after.0 != before.0 && after.1 != before.1, "{before:?} {after:?}");
    assert_eq!(machine.process(&container).unwrap(), process, "the container did not live on");
    assert_eq!((&status["runtime"]["kind"], &status["runtime"]["unit"]), (&"k3s".into(), &"k3s.service".into()));
    assert_eq!(restarts(&agent), Some(1.0));
}

#[test]
fn simulated_k3s_with_a_registry_directory_pulls_without_a_restart() {
    let machine = boot_k3s(K3S_CERTS);
    let image = machine.push("app:1");
    assert_untrusted(&machine, &image);
    let before = (machine.invocation("k3s"), child(&machine));

    let agent = idle_agent(&machine);
    machine.set_source_pem(&machine.registry_ca());
    let status = wait_trusted(&agent);
    assert_eq!(machine.pull(&image), Ok(()), "{status:#}");
    assert_eq!((machine.invocation("k3s"), child(&machine)), before);
    assert_eq!(status["runtime"]["certsDir"], K3S_CERTS);
    assert_eq!(status["runtime"]["covered"].as_array().map(Vec::len), Some(1));
    assert_eq!(restarts(&agent), Some(0.0));
}

/// k0s has its containerd under its own folder, watches the folder of drop-ins, waits three seconds for more and sends SIGHUP, which
/// ends containerd; what ends is started again.
pub const K0S: &str = r#"#!/bin/sh
dir=/etc/k0s/containerd.d
mkdir -p $dir /var/lib/k0s/bin
ln -sf /usr/bin/containerd /var/lib/k0s/bin/containerd
state() { stat -c %y $dir; }
while :; do
  /var/lib/k0s/bin/containerd --root=/var/lib/containerd --state=/run/k0s/containerd --address=/run/k0s/containerd.sock \
    --config=/etc/k0s/containerd.toml &
  child=$!
  trap "kill -KILL $child; exit" TERM
  seen=$(state)
  while kill -0 $child 2>/dev/null; do
    sleep 0.2
    now=$(state)
    [ "$now" != "$seen" ] || continue
    until sleep 3; [ "$now" = "$(state)" ]; do now=$(state); done
    seen=$now
    kill -HUP $child
  done
  wait $child
done
"#;

#[test]
fn simulated_k0s_is_asked_to_restart_its_containerd_and_nothing_else() {
    let config = ("/etc/k0s/containerd.toml", "");
    let machine = boot_distribution("k0sworker.service", K0S, config, "../k0s/containerd.sock");
    let image = machine.push("app:1");
    assert_untrusted(&machine, &image);
    let container = machine.container();
    let process = machine.process(&container).unwrap();
    let (unit, before) = (machine.invocation("k0sworker"), child(&machine));

    let agent = idle_agent(&machine);
    machine.set_source_pem(&machine.registry_ca());
    let status = wait_trusted(&agent);
    assert_eq!(machine.pull(&image), Ok(()), "{status:#}");
    assert_ne!(child(&machine), before);
    assert_eq!(machine.invocation("k0sworker"), unit, "k0s itself was restarted");
    assert_eq!(machine.process(&container).unwrap(), process, "the container did not live on");
    assert_eq!(machine.run(&["ls", "-A", "/etc/k0s/containerd.d"]).expect(0).out, "", "the drop-in stayed");
    assert_eq!(status["runtime"]["kind"], "k0s");
    assert_eq!(restarts(&agent), Some(1.0));

    // A new containerd of the same k0s is a new process, which has read the current bundle.
    let pid = child(&machine);
    machine.run(&["kill", "-KILL", pid.trim()]).expect(0);
    wait_for("another containerd", LIMIT, || {
        let now = machine.run(&["pidof", "containerd"]).out;
        (!now.is_empty() && now != pid).then_some(())
    });
    let seen = &status["runtime"]["started"];
    agent.wait_status("a look at the new process", LIMIT, |status| {
        let started = &status["runtime"]["started"];
        started.is_string() && started != seen && status["runtime"]["stale"] == false && status["converged"] == true
    });
    assert_eq!(restarts(&agent), Some(1.0));
}
