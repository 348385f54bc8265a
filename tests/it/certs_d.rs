//! The registry directory that containerd reads at every pull: with it no restart is needed, unless something hides our file.

use crate::support::{
    following::{
        FAST, LIMIT, assert_untrusted, has_anchors, install, ledger, sha256, starts, wait_trusted, wait_two_cycles,
    },
    machine::{Machine, MachineKind, PodAgent},
    pki::Ca,
    wait_for,
};

const DIR: &str = "/etc/containerd/certs.d";
const FILE: &str = "/etc/containerd/certs.d/_default/nodetrust-anchors.crt";

/// The expected content of our file: the anchors in the order of their fingerprints.
fn served(pems: &[&str]) -> Option<String> {
    let mut pems: Vec<(Vec<String>, &str)> = pems.iter().map(|pem| (sha256(pem), *pem)).collect();
    pems.sort();
    Some(pems.iter().map(|(_, pem)| *pem).collect())
}

/// Waits until the operating system trusts exactly these, and our file says so.
#[track_caller]
fn wait_served(machine: &Machine, agent: &PodAgent, pems: &[&str]) {
    agent.wait_status("the anchors", LIMIT, |status| has_anchors(status, &pems.concat()));
    let wanted = served(pems).filter(|text| !text.is_empty());
    wait_for("our file", LIMIT, || (machine.read(FILE) == wanted).then_some(()));
}

/// All that is below a directory with its mode and owner, files with their content and time as well.
fn listing(machine: &Machine, dir: &str) -> String {
    let show = "cd \"$1\" && find . -printf '%p %y %m %U:%G\\n' | sort; find . -type f -printf '%p %TY-%Tm-%Td %TT\\n' | sort; \
                find . -type f -exec sha256sum {} + | sort -k2";
    machine.run(&["sh", "-c", show, "sh", dir]).expect(0).out
}

#[test]
fn pulls_follow_the_registry_directory_without_a_restart() {
    let machine = Machine::boot_with_config_path(MachineKind::Trixie, DIR);
    let image = machine.push("app:1");
    let (ours, other) = (machine.registry_ca(), Ca::new("Another CA").pem());
    assert_untrusted(&machine, &image);
    let config = listing(&machine, "/etc/containerd");
    assert!(!config.contains("certs.d"), "{config}");
    let before = starts(&machine);
    let agent = machine.agent(&[], &format!("{FAST}\npolicy: {{emptySource: remove}}"));
    wait_two_cycles(&agent);
    assert_eq!(listing(&machine, "/etc/containerd"), config, "there is nothing to serve");

    machine.set_source_pem(&ours);
    let status = wait_trusted(&agent, &ours);
    assert_eq!(machine.pull(&image), Ok(()));
    assert_eq!(machine.read(FILE), served(&[&ours]));
    assert_eq!(status["runtime"]["covered"][0], sha256(&ours)[0]);
    assert_eq!(status["runtime"]["certsDir"], DIR);
    machine.set_source_pem(&(ours.clone() + &other));
    wait_served(&machine, &agent, &[&ours, &other]);
    assert_eq!(machine.pull(&image), Ok(()));

    // A deleted or altered file comes back.
    machine.run(&["rm", FILE]).expect(0);
    wait_served(&machine, &agent, &[&ours, &other]);
    machine.write(FILE, "not ours");
    wait_served(&machine, &agent, &[&ours, &other]);
    machine.run(&["rm", "-r", DIR]).expect(0);
    wait_served(&machine, &agent, &[&ours, &other]);
    assert_eq!(machine.pull(&image), Ok(()));

    // The process did not start with the CA, so it no longer trusts it once the file is gone.
    machine.set_source_pem(&other);
    wait_served(&machine, &agent, &[&other]);
    assert_untrusted(&machine, &image);
    machine.set_source_pem("");
    wait_served(&machine, &agent, &[]);
    assert_untrusted(&machine, &image);
    wait_two_cycles(&agent);
    assert_eq!(starts(&machine), before, "nothing of this needs a restart");

    // A process that started while the store had the CA keeps it, so the removal needs one restart.
    machine.set_source_pem(&(ours.clone() + &other));
    wait_served(&machine, &agent, &[&ours, &other]);
    machine.run(&["systemctl", "restart", "containerd"]).expect(0);
    machine.wait_runtime();
    assert_eq!(machine.pull(&image), Ok(()));
    let before = starts(&machine);
    wait_two_cycles(&agent);
    machine.set_source_pem(&other);
    let status = wait_trusted(&agent, &other);
    wait_for("the restart", LIMIT, || (starts(&machine) == before + 1).then_some(()));
    machine.wait_runtime();
    assert_untrusted(&machine, &image);
    wait_two_cycles(&agent);
    assert_eq!(starts(&machine), before + 1, "{status:#}");

    // `uninstall` removes all our files.
    agent.kill();
    install(&machine);
    machine.run(&["nodetrust", "uninstall"]).expect(0);
    assert_eq!(listing(&machine, "/etc/containerd"), config, "traces in /etc/containerd");
}

/// Other people's files stay byte for byte and keep their effect.
fn the_directory_is_shared(kind: MachineKind) {
    let machine = Machine::boot_with_config_path(kind, DIR);
    let image = machine.push("app:1");
    let (ours, other) = (machine.registry_ca(), Ca::new("Somebody's CA").pem());
    machine.write(&format!("{DIR}/_default/other.crt"), &other);
    machine.write(&format!("{DIR}/notes.txt"), "mine");
    assert_untrusted(&machine, &image);
    let before = starts(&machine);
    let agent = machine.agent(&[], FAST);
    let theirs = listing(&machine, DIR);
    machine.set_source_pem(&ours);
    wait_trusted(&agent, &ours);
    assert_eq!(machine.pull(&image), Ok(()));
    assert_eq!(ledger(&machine)["certsFiles"][0], FILE);
    wait_two_cycles(&agent);
    assert_eq!(starts(&machine), before);
    agent.kill();
    install(&machine);
    machine.run(&["nodetrust", "uninstall"]).expect(0);
    assert_eq!(listing(&machine, DIR), theirs, "others' files");
    assert_untrusted(&machine, &image);
}

#[test]
fn containerd_1_6_follows_a_directory_with_files_of_others() {
    the_directory_is_shared(MachineKind::Bookworm);
}

#[test]
fn containerd_2_1_follows_a_directory_with_files_of_others() {
    the_directory_is_shared(MachineKind::Containerd21);
}

/// Where not every pull reads our file, the restart follows as without a directory. Returns what the agent says then.
#[track_caller]
fn restarts_all_the_same(machine: &Machine) -> serde_json::Value {
    let image = machine.push("app:1");
    let ours = machine.registry_ca();
    assert_untrusted(machine, &image);
    let before = starts(machine);
    let agent = machine.agent(&[], FAST);
    machine.set_source_pem(&ours);
    let status = wait_trusted(&agent, &ours);
    assert_eq!(machine.pull(&image), Ok(()), "{status:#}");
    assert_eq!(starts(machine), before + 1);
    status
}

#[test]
fn a_directory_for_one_host_hides_ours_and_is_told() {
    let machine = Machine::boot_with_config_path(MachineKind::Trixie, DIR);
    machine.run(&["mkdir", "-p", &format!("{DIR}/registry.test:5443")]).expect(0);
    let status = restarts_all_the_same(&machine);
    assert_eq!(status["runtime"]["notCovered"], serde_json::json!(["registry.test:5443"]));
}

#[test]
fn a_hosts_toml_hides_ours_and_stays() {
    let machine = Machine::boot_with_config_path(MachineKind::Bookworm, DIR);
    let text = "server = \"https://registry.test:5443\"\n[host.\"https://registry.test:5443\"]\n";
    machine.write(&format!("{DIR}/_default/hosts.toml"), text);
    restarts_all_the_same(&machine);
    assert_eq!(machine.read(&format!("{DIR}/_default/hosts.toml")).as_deref(), Some(text));
}

#[test]
fn a_list_of_directories_is_not_relied_on() {
    let machine = Machine::boot_with_config_path(MachineKind::Containerd21, &format!("{DIR}:/etc/docker/certs.d"));
    let status = restarts_all_the_same(&machine);
    let dir = status["runtime"]["certsDir"].as_str().unwrap();
    assert!(dir.starts_with("a list ("), "{dir}");
    assert_eq!(machine.read(FILE), None);
}
