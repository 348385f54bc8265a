//! Booted nodes with real systemd and containerd, before any agent: that a pull from a registry with a private CA fails as it
//! does in clusters, and that what people do by hand against it works. What the agent is tested with must be real.

use std::time::Duration;

use crate::support::{
    machine::{Machine, MachineKind},
    wait_for,
};

/// Longest wait for events that take a second; the machine may be busy.
const LIMIT: Duration = Duration::from_secs(240);

/// A pull that fails because the registry's CA is unknown.
#[track_caller]
fn assert_untrusted(machine: &Machine, image: &str) {
    let error = machine.pull(image).unwrap_err();
    assert!(error.contains("x509: certificate signed by unknown authority"), "{error}");
}

/// CA file, the distribution's tool, restart of containerd: then pulls work, and what ran before runs on.
fn pulls_after_work_by_hand(kind: MachineKind) {
    let machine = Machine::boot(kind);
    let image = machine.push("app:1");
    assert_untrusted(&machine, &image);
    let container = machine.container();
    let process = machine.process(&container);
    assert!(process.is_some());

    machine.trust_by_hand("registry", &machine.registry_ca());
    assert_untrusted(&machine, &image); // containerd keeps the roots that it has loaded
    let before = machine.invocation("containerd");
    machine.run(&["systemctl", "restart", "containerd"]).expect(0);
    machine.wait_runtime();
    assert_ne!(machine.invocation("containerd"), before);
    assert_eq!(machine.pull(&image), Ok(()));
    assert_eq!(machine.process(&container), process, "the container did not live on");
}

#[test]
fn containerd_1_6_of_debian_12_pulls_after_work_by_hand() {
    pulls_after_work_by_hand(MachineKind::Bookworm);
}

#[test]
fn containerd_1_7_of_debian_13_pulls_after_work_by_hand() {
    pulls_after_work_by_hand(MachineKind::Trixie);
}

#[test]
fn containerd_1_7_on_rhels_trust_store_pulls_after_work_by_hand() {
    pulls_after_work_by_hand(MachineKind::Rhelish);
}

#[test]
fn containerd_2_1_pulls_after_work_by_hand() {
    pulls_after_work_by_hand(MachineKind::Containerd21);
}

/// The proxy signs with a CA of its own: the registry's CA does not help then, and the proxy's does.
#[test]
fn pulls_through_an_inspecting_proxy_need_the_proxys_ca() {
    let machine = Machine::boot(MachineKind::Trixie);
    let image = machine.push("app:1");
    machine.trust_by_hand("registry", &machine.registry_ca());
    machine.proxy(true);
    assert_untrusted(&machine, &image);
    machine.trust_by_hand("inspection", &machine.inspection_ca());
    machine.run(&["systemctl", "restart", "containerd"]).expect(0);
    machine.wait_runtime();
    assert_eq!(machine.pull(&image), Ok(()));
    machine.proxy(false);
    assert_eq!(machine.pull(&image), Ok(()));
}

/// The agent as its DaemonSet runs it. It has no more rights than it needs, and with those it puts the trust store right.
#[test]
fn the_agent_works_in_a_pod_with_two_capabilities() {
    let machine = Machine::boot(MachineKind::Bookworm);
    let image = machine.push("app:1");
    let agent = machine.agent(&[], "settle: 100ms");
    machine.set_source_pem(&machine.registry_ca());
    agent.wait_status("an anchor", LIMIT, |status| {
        status["converged"] == true && status["anchors"].as_array().is_some_and(|rows| rows.len() == 1)
    });
    // This is the first pull of this containerd, which loads the roots now.
    assert_eq!(machine.pull(&image), Ok(()));

    let (pid, _) = machine.process(&agent.container).unwrap();
    let status = machine.read(&format!("/proc/{pid}/status")).unwrap();
    // DAC_OVERRIDE and SYS_CHROOT, capabilities(7)
    let given = format!("{:016x}", 1 << 1 | 1 << 18);
    for line in [&format!("CapBnd:\t{given}"), &format!("CapEff:\t{given}"), "NoNewPrivs:\t1", "Seccomp:\t2"] {
        assert!(status.contains(line), "no {line} in {status}");
    }
    assert!(
        machine.read(&format!("/proc/{pid}/root/host/run/systemd/container")).is_some(),
        "no host's mounts in the pod"
    );
    assert_eq!(agent.nodetrust(&["version"]).code, 0);

    // The agent restarts the runtime that runs the agent itself.
    let process = machine.process(&agent.container);
    machine.run(&["systemctl", "restart", "containerd"]).expect(0);
    machine.wait_runtime();
    assert_eq!(machine.process(&agent.container), process);
    machine.set_source_pem(&(machine.registry_ca() + &machine.inspection_ca()));
    agent.wait_status("two anchors", LIMIT, |status| {
        status["converged"] == true && status["anchors"].as_array().is_some_and(|rows| rows.len() == 2)
    });
    wait_for("the log of both changes", LIMIT, || {
        (agent.log_text().matches("trust changed and verified").count() == 2).then_some(())
    });

    agent.kill();
    let agent = machine.start_agent();
    agent.wait_status("the same anchors", LIMIT, |status| {
        status["anchors"].as_array().is_some_and(|rows| rows.len() == 2)
    });
    assert_eq!(agent.stop(), 0, "{}", agent.log_text());
}

/// What a reboot keeps and what it does not.
#[test]
fn a_machine_that_reboots_has_its_disk_and_no_containers() {
    let machine = Machine::boot(MachineKind::Bookworm);
    machine.write("/etc/kept", "kept");
    machine.write("/run/lost", "lost");
    let container = machine.container();
    machine.reboot();
    assert_eq!(machine.read("/etc/kept").as_deref(), Some("kept"));
    assert_eq!(machine.read("/run/lost"), None);
    assert_eq!(machine.process(&container), None);
}

/// With `config_path` a CA in certs.d serves the next pull, without a restart.
#[test]
fn containerd_with_a_config_path_reads_certs_d_at_each_pull() {
    let machine = Machine::boot_with_config_path(MachineKind::Trixie, "/etc/containerd/certs.d");
    let image = machine.push("app:1");
    assert_untrusted(&machine, &image);
    machine.write("/etc/containerd/certs.d/_default/registry.crt", machine.registry_ca());
    assert_eq!(machine.pull(&image), Ok(()));
}

/// With two directories containerd 1.7 takes the first that has a folder for the host; 2.1 reads neither.
#[test]
fn containerd_2_1_ignores_a_config_path_of_two_directories() {
    let two = "/etc/containerd/certs.d:/etc/docker/certs.d";
    for (kind, works) in [(MachineKind::Trixie, true), (MachineKind::Containerd21, false)] {
        let machine = Machine::boot_with_config_path(kind, two);
        let image = machine.push("app:1");
        machine.write("/etc/containerd/certs.d/_default/registry.crt", machine.registry_ca());
        assert_eq!(machine.pull(&image).is_ok(), works, "{kind:?}");
    }
}
