//! The layouts of k3s, RKE2, k0s and MicroK8s over a real containerd: a small program as the unit that starts containerd as the
//! distribution does. What its process reads, whether it would start again, and whether it is the one that pulls.

use std::{fs, path::Path};

use crate::{
    runtime_files::{drop_in, import},
    runtimes::{K0S, K3S, K3S_CERTS, boot_distribution, boot_k3s, child},
    support::{
        following::{FAST, apply, assert_untrusted, configure, flat, install, ledger, starts, status, wait_trusted},
        machine::{Machine, MachineKind},
        must,
    },
};

const OTHER: &str = "/etc/containerd/other.d";

/// The program and its configuration on the host itself, and an image that cannot be pulled yet.
#[track_caller]
fn prepare(machine: &Machine) -> String {
    let image = machine.push("app:1");
    install(machine);
    configure(machine, "");
    assert_untrusted(machine, &image);
    image
}

/// A distribution of Rancher whose containerd takes in a drop-in with another registry directory than its own file names.
#[track_caller]
fn boot_with_drop_in(unit: &str, script: &str, dir: &str, program: Option<&str>) -> Machine {
    let config = format!("{dir}/config.toml");
    let certs = format!("{dir}/certs.d");
    let machine = boot_distribution(unit, script, (&config, &certs), "../k3s/containerd/containerd.sock");
    import(&machine, &config, &format!("{dir}/config.toml.d/*.toml"));
    machine.write(&format!("{dir}/config.toml.d/corp.toml"), drop_in(OTHER));
    if let Some(program) = program {
        let above = Path::new(program).parent().unwrap().display().to_string();
        machine.run(&["mkdir", "-p", &above]).expect(0);
        machine.run(&["ln", "-s", "/usr/bin/containerd", program]).expect(0);
    }
    machine.run(&["systemctl", "restart", unit]).expect(0);
    machine.wait_runtime();
    machine
}

const K3S_DIR: &str = "/var/lib/rancher/k3s/agent/etc/containerd";
const RKE2_DIR: &str = "/var/lib/rancher/rke2/agent/etc/containerd";

#[test]
fn simulated_k3s_pulls_by_the_directory_of_its_drop_in_as_its_own_program_says() {
    let machine =
        boot_with_drop_in("k3s.service", K3S, K3S_DIR, Some("/var/lib/rancher/k3s/data/current/bin/containerd"));
    let image = machine.push("app:1");
    assert_untrusted(&machine, &image);
    let before = child(&machine);
    // The command runs with the rights of the agent's pod.
    let agent = machine.agent(&[], FAST);
    machine.set_source_pem(&machine.registry_ca());
    let status = wait_trusted(&agent, &machine.registry_ca());
    assert_eq!((machine.pull(&image), child(&machine)), (Ok(()), before), "{status:#}");
    assert_eq!(status["runtime"]["certsDir"], OTHER);
    assert_eq!(ledger(&machine)["registry"]["setting"]["directory"], OTHER);
}

#[test]
fn simulated_k3s_whose_program_is_not_found_pulls_by_the_directory_of_its_drop_in_all_the_same() {
    let machine = boot_with_drop_in("k3s-agent.service", K3S, K3S_DIR, None);
    let image = prepare(&machine);
    let before = child(&machine);
    apply(&machine).expect(0);
    assert_eq!((machine.pull(&image), child(&machine)), (Ok(()), before));
    assert_eq!(status(&machine)["runtime"]["certsDir"], OTHER);
}

#[test]
fn simulated_rke2_pulls_by_the_directory_of_its_drop_in() {
    let script = K3S.replace("/rancher/k3s/", "/rancher/rke2/");
    let program = Some("/var/lib/rancher/rke2/bin/containerd");
    let machine = boot_with_drop_in("rke2-agent.service", &script, RKE2_DIR, program);
    let image = prepare(&machine);
    let before = child(&machine);
    apply(&machine).expect(0);
    assert_eq!((machine.pull(&image), child(&machine)), (Ok(()), before));
    assert_eq!(
        (&status(&machine)["runtime"]["kind"], &status(&machine)["runtime"]["certsDir"]),
        (&"rke2".into(), &OTHER.into())
    );
}

/// k0s writes a configuration file that only imports others.
fn k0s() -> String {
    let managed = "mkdir -p /etc/k0s\nprintf '# k0s_managed=true\\nversion = 2\\nimports = [\"%s\", \"%s\"]\\n' \
                   '/run/k0s/containerd-cri.toml' '/etc/k0s/containerd.d/*.toml' >/etc/k0s/containerd.toml\n";
    K0S.replace("dir=/etc/k0s/containerd.d\n", &format!("dir=/etc/k0s/containerd.d\n{managed}"))
}

#[test]
fn simulated_k0s_as_it_is_installed_is_not_restarted_where_its_registry_directory_serves() {
    let config = ("/run/k0s/containerd-cri.toml", "/etc/containerd/certs.d");
    let machine = boot_distribution("k0sworker.service", &k0s(), config, "../k0s/containerd.sock");
    let image = prepare(&machine);
    let before = child(&machine);
    apply(&machine).expect(0);
    assert_eq!((machine.pull(&image), child(&machine)), (Ok(()), before));
    assert_eq!(status(&machine)["runtime"]["certsDir"], "/etc/containerd/certs.d");
}

/// With a broken drop-in the process keeps running, and would not start again.
#[track_caller]
fn assert_left_alone(machine: &Machine, unit: &str) {
    let image = prepare(machine);
    let before = (machine.invocation(unit), child(machine));
    let done = apply(machine).expect(2);
    let said = flat(&done);
    assert!(said.contains("runs on and was not restarted, since it would not start again"), "{said}");
    assert_eq!((machine.invocation(unit), child(machine)), before);
    machine.wait_runtime();
    assert_untrusted(machine, &image);
}

fn k3s_with_a_broken_drop_in(program: bool) {
    let machine = boot_k3s("");
    import(&machine, &format!("{K3S_DIR}/config.toml"), &format!("{K3S_DIR}/config.toml.d/*.toml"));
    if program {
        machine.run(&["mkdir", "-p", "/var/lib/rancher/k3s/data/current/bin"]).expect(0);
        machine.run(&["ln", "-s", "/usr/bin/containerd", "/var/lib/rancher/k3s/data/current/bin/containerd"]).expect(0);
    }
    machine.run(&["systemctl", "restart", "k3s"]).expect(0);
    machine.wait_runtime();
    machine.write(&format!("{K3S_DIR}/config.toml.d/broken.toml"), "version = 2\n[plugins\n");
    assert_left_alone(&machine, "k3s");
}

#[test]
fn simulated_k3s_is_not_restarted_into_a_broken_drop_in() {
    k3s_with_a_broken_drop_in(true);
}

#[test]
fn simulated_k3s_whose_program_is_not_found_is_not_restarted_into_a_broken_drop_in() {
    k3s_with_a_broken_drop_in(false);
}

#[test]
fn simulated_k0s_is_not_asked_to_restart_over_a_broken_drop_in() {
    let config = ("/run/k0s/containerd-cri.toml", "");
    let machine = boot_distribution("k0sworker.service", &k0s(), config, "../k0s/containerd.sock");
    // Not in the folder of drop-ins: k0s watches that, and would end containerd by itself.
    machine.write("/run/k0s/containerd-cri.toml", "version = 2\n[plugins\n");
    assert_left_alone(&machine, "k0sworker");
}

#[test]
fn simulated_k3s_that_uses_another_containerd_has_that_one_restarted() {
    let machine = Machine::boot(MachineKind::Trixie);
    let image = prepare(&machine);
    machine.write("/usr/local/bin/k3s", "#!/bin/sh\nexec sleep infinity\n");
    machine.run(&["chmod", "755", "/usr/local/bin/k3s"]).expect(0);
    let start = |args: &str| {
        let service = format!("[Service]\nExecStart=/usr/local/bin/k3s agent {args}\nKillMode=process\n");
        machine.write("/etc/systemd/system/k3s.service", service);
        machine.run(&["systemctl", "daemon-reload"]).expect(0);
        machine.run(&["systemctl", "restart", "k3s"]).expect(0);
    };
    start("--container-runtime-endpoint unix:///run/containerd/containerd.sock");
    let before = (starts(&machine), machine.invocation("k3s"));
    apply(&machine).expect(0);
    assert_eq!(machine.pull(&image), Ok(()));
    assert_eq!((starts(&machine), machine.invocation("k3s")), (before.0 + 1, before.1));

    // The same by a setting in its configuration.
    start("");
    machine.write(
        "/etc/rancher/k3s/config.yaml",
        "token: secret\nnode-label: [a=b]\ncontainer-runtime-endpoint: /run/containerd/containerd.sock\n",
    );
    let now = status(&machine);
    assert_eq!(now["runtime"]["unit"], "containerd.service", "{now:#}");
    assert!(
        now["runtime"]["because"].as_str().unwrap().starts_with("the configuration of k3s.service names"),
        "{now:#}"
    );
}

/// A unit that starts the snap's wrapper, and containerd 2.1 beside the distribution's 1.7.
#[test]
fn simulated_microk8s_with_another_containerd_beside_it_is_restarted() {
    let machine = Machine::boot(MachineKind::Trixie);
    machine.run(&["systemctl", "disable", "--now", "containerd"]).expect(0);
    let roots = must("HOME", std::env::var("HOME"));
    let two = Path::new(&roots).join(".cache/nodetrust/root/boot-containerd21/usr/bin/containerd");
    machine.write("/snap/microk8s/77/bin/containerd", must("containerd 2.1", fs::read(two)));
    let data = "/var/snap/microk8s/77/args/containerd.toml";
    // containerd 1.7 does not read this form.
    machine.write(data, "version = 3\n[plugins.'io.containerd.cri.v1.images'.registry]\nconfig_path = ''\n");
    let socket = "/var/snap/microk8s/common/run/containerd.sock";
    let wrapper = format!(
        "#!/bin/sh\nmkdir -p /var/snap/microk8s/common/run\nexec /snap/microk8s/77/bin/containerd --config {data} \
         --root /var/lib/containerd --state /var/snap/microk8s/common/run/containerd --address {socket}\n"
    );
    machine.write("/usr/bin/snap", wrapper);
    machine.run(&["chmod", "755", "/usr/bin/snap", "/snap/microk8s/77/bin/containerd"]).expect(0);
    let unit = "snap.microk8s.daemon-containerd.service";
    let service =
        "[Service]\nExecStart=/usr/bin/snap run microk8s.daemon-containerd\nKillMode=process\nRestart=always\n";
    machine.write(&format!("/etc/systemd/system/{unit}"), service);
    machine.run(&["mkdir", "-p", "/run/containerd"]).expect(0);
    machine.run(&["ln", "-sf", &format!("../..{socket}"), "/run/containerd/containerd.sock"]).expect(0);
    machine.run(&["systemctl", "enable", "--now", unit]).expect(0);
    machine.wait_runtime();
    let image = prepare(&machine);
    let before = machine.invocation(unit);
    let done = apply(&machine).expect(0);
    assert!(done.out.contains(&format!("restart  {unit}")), "{}", done.out);
    assert_ne!(machine.invocation(unit), before);
    assert_eq!(machine.pull(&image), Ok(()));
    assert_eq!(status(&machine)["runtime"]["kind"], "microk8s");
}

#[test]
fn simulated_k3s_keeps_its_registry_directory_as_the_overlay_promises() {
    let machine = boot_k3s(K3S_CERTS);
    let image = prepare(&machine);
    configure(&machine, "runtime: {onChange: registry}");
    let before = child(&machine);
    apply(&machine).expect(0);
    assert_eq!((machine.pull(&image), child(&machine)), (Ok(()), before));
}
