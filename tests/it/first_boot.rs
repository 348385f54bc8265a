//! The first boot: `nodetrust apply` as a unit before the runtime, the agent's image from where the node can have it, and an agent that
//! takes over what it finds.

use std::{fs, path::Path};

use crate::{
    manifests::configmap,
    support::{
        cluster::{IMAGE, PORT, TestCluster},
        following::{install, starts},
        machine::{Machine, MachineKind},
        must,
        node::Kind,
        program,
        rig::Access,
    },
};

const UNIT: &str = "/etc/systemd/system/nodetrust-apply.service";
const IMAGE_UNIT: &str = "/etc/systemd/system/nodetrust-image.service";
const ARCHIVE: &str = "/usr/local/share/nodetrust/image.tar";
const CA_ON_NODE: &str = "/etc/nodetrust/org.crt";

/// The unit of this name in docs/bootstrap.md.
fn documented(unit: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/bootstrap.md");
    let text = must("docs/bootstrap.md", fs::read_to_string(path));
    let block = text.split("```").find(|block| block.contains(&format!("# {unit}:")));
    let block = block.unwrap_or_else(|| panic!("docs/bootstrap.md has no {unit}"));
    block.split_once('\n').unwrap().1.to_owned()
}

/// Puts onto a node's disk what its first boot is to find: the program, the unit that `render` prints, configuration and CA.
fn prepare(node: &Access, ca: &str) {
    install(node);
    node.write(CA_ON_NODE, ca);
    node.write("/etc/nodetrust/config.yaml", format!("sources: [{{name: org, path: {CA_ON_NODE}}}]\n"));
    let unit = node.run(&["nodetrust", "render", "systemd"]).expect(0).out;
    node.write(UNIT, &unit);
    node.run(&["systemctl", "daemon-reload"]).expect(0);
    node.run(&["systemd-analyze", "verify", UNIT]).expect(0);
    node.run(&["systemctl", "enable", "nodetrust-apply"]).expect(0);
}

/// A property of a unit.
fn property(node: &Access, unit: &str, name: &str) -> String {
    node.run(&["systemctl", "show", "--value", "--property", name, unit]).expect(0).out.trim().to_owned()
}

/// When a unit became active, in microseconds since the boot.
fn activated(node: &Access, unit: &str, property_name: &str) -> u64 {
    property(node, unit, property_name).parse().unwrap()
}

/// The inode and time of every file of ours in the anchor directory, and of the bundle.
fn files(node: &Access) -> String {
    let kind = Kind::Bookworm;
    let pattern =
        format!("stat -c '%n %i %Y' {}/nodetrust-*.crt /etc/ssl/certs/ca-certificates.crt", kind.anchors_dir());
    node.run(&["sh", "-c", &pattern]).expect(0).out
}

/// A node boots with the unit, pulls the agent from the registry whose CA it has got, and the agent takes the files over: nothing is
/// written again, no tool runs, and the runtime is restarted by nobody.
#[test]
fn a_node_boots_with_the_unit_pulls_the_agent_and_is_taken_over_without_a_restart() {
    let cluster = TestCluster::boot(&[("one", MachineKind::Bookworm)]);
    let node = cluster.node("one");
    let image = cluster.push_program("nodetrust:1", program());
    let refused = node.pull(&image).unwrap_err();
    assert!(refused.contains("x509: certificate signed by unknown authority"), "{refused}");

    prepare(&node, &cluster.registry_ca());
    node.reboot();
    assert_eq!(property(&node, "nodetrust-apply", "Result"), "success");
    let (done, runtime) = (
        activated(&node, "nodetrust-apply", "ActiveEnterTimestampMonotonic"),
        activated(&node, "containerd", "InactiveExitTimestampMonotonic"),
    );
    assert!(done > 0 && done <= runtime, "applied at {done}, containerd began at {runtime}");
    let (before, boots, invocation) = (files(&node), starts(&node), node.invocation("containerd"));

    let manifests = configmap(&cluster.registry_ca(), "");
    assert!(manifests.contains(IMAGE));
    cluster.apply(&manifests.replace(IMAGE, &image));
    cluster.rolled_out();
    cluster.wait_condition("one", "True", "Trusted");
    let agent = cluster.agent_from_within("one", PORT);
    let status = agent.wait_status("rest", std::time::Duration::from_secs(120), |status| status["converged"] == true);
    assert_eq!(status["runtimeTrust"]["state"], "current", "{status:#}");
    assert_eq!(files(&node), before, "something was written again");
    assert_eq!((starts(&node), node.invocation("containerd")), (boots, invocation), "containerd was restarted");
    assert_eq!(agent.metric("nodetrust_extract_duration_seconds_count").unwrap_or(0.0), 0.0, "the store's tool ran");
}

/// A unit of the documentation imports the agent's image from the node's own disk, before the kubelet wants it: no registry is asked.
#[test]
fn the_documented_unit_imports_the_agents_image_before_the_kubelet_starts() {
    let machine = Machine::boot(MachineKind::Bookworm);
    machine.write(ARCHIVE, must("an archive", fs::read(machine.image_archive(IMAGE))));
    machine.run(&["ctr", "--namespace", "k8s.io", "images", "rm", "--sync", IMAGE]).expect(0);
    machine.write(IMAGE_UNIT, documented(IMAGE_UNIT));
    machine.run(&["systemctl", "daemon-reload"]).expect(0);
    machine.run(&["systemd-analyze", "verify", IMAGE_UNIT]).expect(0);
    machine.run(&["systemctl", "enable", "nodetrust-image"]).expect(0);
    let listed = || machine.run(&["ctr", "--namespace", "k8s.io", "images", "ls", "-q"]).expect(0).out;
    assert!(!listed().contains(IMAGE), "{}", listed());
    machine.reboot();
    machine.run(&["systemctl", "start", "nodetrust-image"]).expect(0); // waits for it, if the boot still has it to do
    assert_eq!(property(&machine, "nodetrust-image", "Result"), "success");
    assert!(property(&machine, "nodetrust-image", "Before").contains("kubelet.service"));
    assert!(listed().lines().any(|name| name == IMAGE), "{}", listed());
    assert!(machine.registry_log().is_empty(), "{:?}", machine.registry_log());
}

/// A system whose `/etc` and `/usr` are those of its image after each boot, and whose `/var` stays: simulated by a unit that puts back what
/// the image had. The anchors are there again before the runtime starts, and the ledger does not take their absence for a removal.
#[test]
fn a_node_with_a_simulated_stateless_etc_trusts_again_at_each_boot_before_its_runtime_starts() {
    let machine = Machine::boot(MachineKind::Bookworm);
    let image = machine.push("app:1");
    prepare(&machine, &machine.registry_ca());
    let reset = "[Unit]\nBefore=nodetrust-apply.service\n[Service]\nType=oneshot\nExecStart=/bin/sh -c \
        'rm -f /usr/local/share/ca-certificates/nodetrust-*; rm -rf /etc/ssl/certs; cp -a /var/image-certs /etc/ssl/certs'\n\
        [Install]\nWantedBy=multi-user.target\n";
    machine.write("/etc/systemd/system/reset-etc.service", reset);
    machine.run(&["sh", "-c", "cp -a /etc/ssl/certs /var/image-certs && systemctl enable reset-etc"]).expect(0);
    for _ in 0..2 {
        machine.reboot();
        assert_eq!(property(&machine, "reset-etc", "Result"), "success");
        assert_eq!(property(&machine, "nodetrust-apply", "ExecMainStatus"), "0");
        assert_eq!(machine.pull(&image), Ok(()));
        let status = machine.run(&["nodetrust", "status", "-o", "json"]).expect(0).json();
        assert_eq!(
            (&status["verdict"], &status["runtimeTrust"]["state"]),
            (&"trusted".into(), &"current".into()),
            "{status:#}"
        );
        machine.run(&["ctr", "--namespace", "k8s.io", "images", "rm", "--sync", &image]).expect(0);
    }
}
