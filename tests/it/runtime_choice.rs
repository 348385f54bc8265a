//! Which runtime a node has: the one that the kubelet uses, at the socket that its configuration names. And what speaks of a runtime
//! where none is found.

use nodetrust::{
    host::{self, exec::HostExec, root::HostRoot},
    runtime,
};
use nodetrust_core::{
    ledger::Ledger,
    runtime::{services::Services, settings::RuntimeSettings},
};

use crate::{
    runtimes::boot_docker,
    support::{
        following::{LIMIT, apply, assert_untrusted, configure, install, starts, status},
        machine::{Machine, MachineKind},
        wait_for,
    },
};

const SOCKET: &str = "/run/containerd/containerd.sock";

#[track_caller]
fn prepare(machine: &Machine, more: &str) -> String {
    let image = machine.push("app:1");
    install(machine);
    configure(machine, more);
    image
}

/// The tests' own way to a containerd that listens elsewhere, open for one look only.
#[track_caller]
fn through<T>(machine: &Machine, socket: &str, work: impl FnOnce() -> T) -> T {
    machine.run(&["mkdir", "-p", "/run/containerd"]).expect(0);
    machine.run(&["ln", "-sfn", &format!("../..{socket}"), SOCKET]).expect(0);
    machine.wait_runtime();
    let answer = work();
    machine.run(&["rm", SOCKET]).expect(0);
    answer
}

/// The set-up of Amazon's node images until Kubernetes 1.24.
#[test]
fn a_containerd_at_the_socket_that_its_configuration_names_is_restarted() {
    let machine = Machine::boot(MachineKind::Trixie);
    let shim = "/run/dockershim.sock";
    machine
        .run(&["sed", "-i", &format!("1i [grpc]\\naddress = \"{shim}\"\\n"), "/etc/containerd/config.toml"])
        .expect(0);
    // The table comes first: a version after it would belong to the table.
    let config = machine.read("/etc/containerd/config.toml").unwrap().replacen("version = 2\n", "", 1);
    machine.write("/etc/containerd/config.toml", format!("version = 2\n{config}"));
    machine.run(&["systemctl", "stop", "containerd"]).expect(0);
    machine.run(&["rm", "-f", SOCKET]).expect(0);
    machine.run(&["systemctl", "start", "containerd"]).expect(0);
    let image = prepare(&machine, "");
    through(&machine, shim, || assert_untrusted(&machine, &image));
    let before = starts(&machine);
    apply(&machine).expect(0);
    assert_eq!(starts(&machine), before + 1);
    assert_eq!(through(&machine, shim, || machine.pull(&image)), Ok(()));
    assert_eq!(status(&machine)["runtime"]["socket"], shim);
}

#[test]
fn a_socket_that_somebody_has_left_is_not_asked() {
    let machine = Machine::boot(MachineKind::Trixie);
    let image = prepare(&machine, "");
    assert_untrusted(&machine, &image);
    let leave = "import socket; socket.socket(socket.AF_UNIX).bind('/run/dockershim.sock')";
    if machine.run(&["python3", "-c", leave]).code != 0 {
        machine
            .run(&[
                "perl",
                "-MSocket",
                "-e",
                "socket(S,AF_UNIX,SOCK_STREAM,0); bind(S,sockaddr_un('/run/dockershim.sock')) or die",
            ])
            .expect(0);
    }
    // kubeadm leaves this file as well.
    machine.write(
        "/var/lib/kubelet/kubeadm-flags.env",
        "KUBELET_KUBEADM_ARGS=\"--container-runtime-endpoint=unix:///run/dockershim.sock\"\n",
    );
    apply(&machine).expect(0);
    assert_eq!(machine.pull(&image), Ok(()));
    assert_eq!(status(&machine)["runtime"]["socket"], SOCKET);
}

/// A unit that runs and does nothing else.
#[track_caller]
fn start_unit(machine: &Machine, name: &str, command: &str) {
    machine
        .write(&format!("/etc/systemd/system/{name}"), format!("[Service]\nExecStart={command}\nKillMode=process\n"));
    machine.run(&["systemctl", "daemon-reload"]).expect(0);
    machine.run(&["systemctl", "restart", name]).expect(0);
}

#[test]
fn the_runtime_that_a_simulated_kubelet_uses_is_restarted_and_not_the_one_beside_it() {
    let machine = Machine::boot(MachineKind::Bookworm);
    let image = prepare(&machine, "");
    assert_untrusted(&machine, &image);
    // An idle CRI-O comes before containerd in the table.
    start_unit(&machine, "crio.service", "/bin/sleep infinity");
    machine.write("/usr/local/bin/kubelet", "#!/bin/sh\nwhile :; do sleep 1; done\n");
    machine.run(&["chmod", "755", "/usr/local/bin/kubelet"]).expect(0);
    start_unit(&machine, "kubelet.service", "/usr/local/bin/kubelet --config=/etc/corp/kubelet.yaml");
    machine.write(
        "/etc/corp/kubelet.yaml",
        "kind: KubeletConfiguration\ncontainerRuntimeEndpoint: unix:///var/run/containerd/containerd.sock\n",
    );
    let before = (starts(&machine), machine.invocation("crio"));
    apply(&machine).expect(0);
    assert_eq!(machine.pull(&image), Ok(()));
    assert_eq!((starts(&machine), machine.invocation("crio")), (before.0 + 1, before.1));
    let now = status(&machine);
    let because = "the kubelet's configuration /etc/corp/kubelet.yaml names /run/containerd/containerd.sock, and containerd.service serves it";
    assert_eq!(now["runtime"]["because"], because);
}

#[test]
fn docker_with_a_simulated_shim_of_either_name_is_the_one_that_pulls() {
    let machine = boot_docker("cri-dockerd", true);
    let image = prepare(&machine, "runtime: {onChange: registry}");
    let refused = machine.run(&["docker", "pull", &image]);
    assert!(refused.code != 0 && refused.err.contains("x509"), "{}", refused.err);
    // CRI-O has no registry directory for all registries.
    apply(&machine).expect(2);
    let now = status(&machine);
    assert_eq!(
        (&now["runtime"]["kind"], &now["runtime"]["held"]["reason"]),
        (&"docker".into(), &"policy".into()),
        "{now:#}"
    );
    let why = "runtime.onChange is registry, and docker has no registry directory for all registries";
    assert_eq!(now["runtime"]["held"]["why"], why);
    configure(&machine, "");
    apply(&machine).expect(0);
    machine.run(&["docker", "pull", &image]).expect(0);
}

#[test]
fn docker_that_no_kubelet_uses_is_asked_itself() {
    let machine = Machine::boot(MachineKind::Docker);
    machine.run(&["systemctl", "mask", "--now", "containerd"]).expect(0);
    machine.run(&["sed", "-i", "s/^{/{\"live-restore\": true, /", "/etc/docker/daemon.json"]).expect(0);
    // It starts a containerd of its own if it is told of no other.
    let unit = machine.read("/lib/systemd/system/docker.service").unwrap();
    let unit = unit.replace("containerd.service", "").replace("--containerd=/run/containerd/containerd.sock", "");
    machine.write("/etc/systemd/system/docker.service", unit);
    machine.run(&["systemctl", "daemon-reload"]).expect(0);
    machine.run(&["systemctl", "restart", "docker"]).expect(0);
    let image = prepare(&machine, "");
    assert_ne!(machine.run(&["docker", "pull", &image]).code, 0);
    apply(&machine).expect(0);
    machine.run(&["docker", "pull", &image]).expect(0);
    assert_eq!(status(&machine)["runtime"]["kind"], "docker");
}

#[test]
fn a_unit_of_another_name_is_followed_to_the_socket_of_its_command_line() {
    let machine = Machine::boot(MachineKind::Bookworm);
    machine.run(&["systemctl", "mask", "--now", "containerd"]).expect(0);
    machine.run(&["rm", "-f", SOCKET]).expect(0);
    let corp = "/run/corp/containerd.sock";
    start_unit(&machine, "corp-runtime.service", &format!("/usr/bin/containerd --address {corp}"));
    let image = prepare(&machine, "runtime: {unit: corp-runtime.service}");
    through(&machine, corp, || assert_untrusted(&machine, &image));
    let before = machine.invocation("corp-runtime");
    apply(&machine).expect(0);
    assert_ne!(machine.invocation("corp-runtime"), before);
    assert_eq!(through(&machine, corp, || machine.pull(&image)), Ok(()));
}

/// What is seen of a machine's services by whoever has no configuration.
#[track_caller]
fn look(machine: &Machine) -> Services {
    let root = HostRoot::open(&machine.root()).unwrap();
    let exec = HostExec { root: &root, lock: None, limit: std::time::Duration::from_secs(60) };
    let now = host::uptime(&root).unwrap();
    let mut cache = runtime::RuntimeCache::default();
    runtime::look(&exec, &RuntimeSettings::default(), &Ledger::new(), &now, &mut cache).0
}

#[test]
fn a_runtime_that_no_known_unit_runs_leaves_a_sign() {
    let machine = Machine::boot(MachineKind::Bookworm);
    let services = look(&machine);
    assert!(services.runtime.is_some() && services.sign.is_none(), "{services:?}");
    machine.run(&["systemctl", "mask", "--now", "containerd"]).expect(0);
    let sign = |what: &str| {
        let services = look(&machine);
        assert_eq!(services.runtime, None, "{what}");
        services.sign
    };
    assert_eq!(sign("a masked unit, and a socket that nobody listens at"), None);

    start_unit(&machine, "corp-runtime.service", "/usr/bin/containerd");
    machine.wait_runtime();
    let answers = sign("a runtime that answers").unwrap();
    assert!(answers.starts_with("containerd 1.6"), "{answers}");
    assert!(answers.contains(&format!("answers at {SOCKET}, and no unit that is known runs it")), "{answers}");

    start_unit(&machine, "corp-runtime.service", "/usr/bin/containerd --address /run/corp.sock");
    machine.run(&["rm", "-f", SOCKET]).expect(0);
    // systemd has forked the process, which may not have executed containerd yet.
    let runs = wait_for("the sign of a process", LIMIT, || sign("a process"));
    assert!(runs.starts_with("containerd runs in corp-runtime.service as process "), "{runs}");
    machine.run(&["systemctl", "stop", "corp-runtime"]).expect(0);
    assert_eq!(sign("nothing"), None);

    machine.write("/var/lib/kubelet/config.yaml", format!("containerRuntimeEndpoint: unix://{SOCKET}\n"));
    let kubelet = sign("a kubelet's setting").unwrap();
    assert!(kubelet.starts_with(&format!("/var/lib/kubelet/config.yaml names the socket {SOCKET}")), "{kubelet}");
}
