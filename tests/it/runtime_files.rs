//! What the process of a containerd reads as its registry directory: all of its configuration as it was when the process started, and
//! nothing that came, changed or went after that. The judge is always a pull.

use crate::support::{
    following::{apply, assert_untrusted, configure, flat, install, starts, status},
    machine::{Machine, MachineKind},
    pki::Ca,
};

const CONFIG: &str = "/etc/containerd/config.toml";
const DIR: &str = "/etc/containerd/certs.d";
const DROP_IN: &str = "/etc/containerd/conf.d/10-corp.toml";

/// A drop-in that sets the registry directory, with what containers need here: 1.x takes the section as a whole.
pub fn drop_in(config_path: &str) -> String {
    format!(
        "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = \"rig.test/busybox:1\"\nrestrict_oom_score_adj = true\n\
         [plugins.\"io.containerd.grpc.v1.cri\".cni]\nbin_dir = \"/usr/lib/cni\"\nconf_dir = \"/etc/cni/net.d\"\n\
         [plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = \"{config_path}\"\n"
    )
}

/// Has a configuration take in these files.
#[track_caller]
pub fn import(machine: &Machine, config: &str, imports: &str) {
    machine.run(&["sed", "-i", &format!("1i imports = [\"{imports}\"]"), config]).expect(0);
}

#[track_caller]
fn restart(machine: &Machine) {
    machine.run(&["systemctl", "restart", "containerd"]).expect(0);
    machine.wait_runtime();
}

/// The program and its configuration on the host itself, and an image that cannot be pulled yet: containerd has loaded its roots.
#[track_caller]
fn prepare(machine: &Machine) -> String {
    let image = machine.push("app:1");
    install(machine);
    configure(machine, "");
    assert_untrusted(machine, &image);
    image
}

/// The process does not read a drop-in as it is now: only a restart brings the CA.
#[track_caller]
fn assert_restarted(machine: &Machine, image: &str) {
    let before = starts(machine);
    let done = apply(machine).expect(0);
    assert!(done.out.contains("restart  containerd.service"), "{}", done.out);
    assert_eq!(machine.pull(image), Ok(()));
    assert_eq!(starts(machine), before + 1);
}

/// A drop-in unsets the registry directory when containerd starts, and goes after that.
fn a_drop_in_that_went(kind: MachineKind, imports: &str) {
    let machine = Machine::boot_with_config_path(kind, DIR);
    import(&machine, CONFIG, imports);
    machine.write(DROP_IN, drop_in(""));
    restart(&machine);
    let image = prepare(&machine);
    machine.run(&["rm", DROP_IN]).expect(0);
    assert_restarted(&machine, &image);
}

#[test]
fn containerd_1_6_does_not_read_what_a_drop_in_that_went_has_hidden() {
    a_drop_in_that_went(MachineKind::Bookworm, "/etc/containerd/conf.d/*.toml");
}

#[test]
fn containerd_1_7_does_not_read_what_a_drop_in_that_went_has_hidden() {
    a_drop_in_that_went(MachineKind::Trixie, "conf.d/*.toml");
}

#[test]
fn containerd_2_1_does_not_read_what_a_drop_in_that_went_has_hidden() {
    a_drop_in_that_went(MachineKind::Containerd21, "conf.d/*.toml");
}

#[test]
fn containerd_2_1_does_not_read_a_drop_in_that_came_after_its_start() {
    let machine = Machine::boot(MachineKind::Containerd21);
    import(&machine, CONFIG, "conf.d/*.toml");
    restart(&machine);
    let image = prepare(&machine);
    machine.write(DROP_IN, drop_in(DIR));
    assert_restarted(&machine, &image);
}

/// A file that is taken in by its name and has gone: 2.1 prints its configuration all the same, and does not start with it.
fn a_drop_in_that_would_be_missed(kind: MachineKind) {
    let machine = Machine::boot(kind);
    import(&machine, CONFIG, "conf.d/10-corp.toml");
    machine.write(DROP_IN, drop_in(""));
    restart(&machine);
    let image = prepare(&machine);
    machine.run(&["rm", DROP_IN]).expect(0);
    let before = starts(&machine);
    let done = apply(&machine).expect(2);
    assert!(flat(&done).contains("not restarted, since it would not start again"), "{}", done.out);
    assert_eq!(starts(&machine), before);
    assert_untrusted(&machine, &image);
}

#[test]
fn containerd_1_7_is_not_restarted_without_a_file_that_it_takes_in() {
    a_drop_in_that_would_be_missed(MachineKind::Trixie);
}

#[test]
fn containerd_2_1_is_not_restarted_without_a_file_that_it_takes_in() {
    a_drop_in_that_would_be_missed(MachineKind::Containerd21);
}

#[test]
fn containerd_2_1_does_not_read_a_drop_in_of_a_drop_in_that_changed_after_its_start() {
    let machine = Machine::boot(MachineKind::Containerd21);
    import(&machine, CONFIG, "conf.d/10-corp.toml");
    machine.write(DROP_IN, "version = 2\nimports = [\"more/a.toml\"]\n");
    let more = "/etc/containerd/conf.d/more/a.toml";
    machine.write(more, drop_in(""));
    restart(&machine);
    let image = prepare(&machine);
    machine.write(more, drop_in(DIR));
    assert_restarted(&machine, &image);
}

#[test]
fn a_link_in_the_place_of_the_configuration_that_led_elsewhere_when_containerd_started_is_seen() {
    let machine = Machine::boot(MachineKind::Trixie);
    let config = machine.read(CONFIG).unwrap();
    machine.write("/opt/with.toml", config.replace("config_path = \"\"", &format!("config_path = \"{DIR}\"")));
    machine.run(&["mv", CONFIG, "/opt/without.toml"]).expect(0);
    machine.run(&["ln", "-s", "/opt/without.toml", CONFIG]).expect(0);
    restart(&machine);
    let image = prepare(&machine);
    machine.run(&["ln", "-sfn", "/opt/with.toml", CONFIG]).expect(0);
    assert_restarted(&machine, &image);
}

#[test]
fn a_section_of_another_version_s_name_is_not_what_containerd_2_1_reads() {
    let machine = Machine::boot(MachineKind::Containerd21);
    let config = machine.read(CONFIG).unwrap();
    machine.write(CONFIG, config + &format!("\n[plugins.cri.registry]\nconfig_path = \"{DIR}\"\n"));
    restart(&machine);
    let image = prepare(&machine);
    assert_restarted(&machine, &image);
}

#[test]
fn a_configuration_that_is_changed_later_does_not_make_pulls_need_a_restart() {
    let machine = Machine::boot_with_config_path(MachineKind::Trixie, DIR);
    let image = prepare(&machine);
    let before = starts(&machine);
    apply(&machine).expect(0);
    assert_eq!(machine.pull(&image), Ok(()));
    // Somebody prepares the next restart. The running process keeps its configuration.
    let config = machine.read(CONFIG).unwrap();
    machine.write(CONFIG, config.replace(DIR, "/etc/containerd/other.d"));
    let now = status(&machine);
    assert_eq!((&now["runtime"]["certsDir"], &now["runtime"]["stale"]), (&DIR.into(), &false.into()), "{now:#}");
    apply(&machine).expect(0);
    assert_eq!((machine.pull(&image), starts(&machine)), (Ok(()), before));
    // The next process reads the other directory.
    restart(&machine);
    assert_eq!(status(&machine)["runtime"]["certsDir"], "/etc/containerd/other.d");
}

/// containerd starts without a configuration, and 1.x does not print what it makes of none.
fn no_configuration(kind: MachineKind) {
    let machine = Machine::boot(kind);
    machine.run(&["rm", CONFIG]).expect(0);
    restart(&machine);
    let image = prepare(&machine);
    assert_restarted(&machine, &image);
}

#[test]
fn containerd_1_6_without_a_configuration_is_restarted() {
    no_configuration(MachineKind::Bookworm);
}

#[test]
fn containerd_2_1_without_a_configuration_is_restarted() {
    no_configuration(MachineKind::Containerd21);
}

#[test]
fn folders_that_no_registry_can_be_called_cost_no_restart() {
    let machine = Machine::boot_with_config_path(MachineKind::Trixie, DIR);
    for folder in ["_backup", "lost+found", "old", ".git", "registry.test:5443.bak"] {
        machine.run(&["mkdir", "-p", &format!("{DIR}/{folder}")]).expect(0);
    }
    let image = prepare(&machine);
    let before = starts(&machine);
    apply(&machine).expect(0);
    assert_eq!((machine.pull(&image), starts(&machine)), (Ok(()), before));
    assert_eq!(status(&machine)["runtime"]["notCovered"], serde_json::json!([]));
}

#[test]
fn where_restarts_are_forbidden_pulls_follow_the_registry_directory_and_the_rest_is_told() {
    let machine = Machine::boot_with_config_path(MachineKind::Trixie, DIR);
    let image = prepare(&machine);
    configure(&machine, "runtime: {onChange: registry}");
    let before = starts(&machine);
    let done = apply(&machine).expect(0);
    assert!(done.out.contains("write"), "{}", done.out);
    assert_eq!((machine.pull(&image), starts(&machine)), (Ok(()), before));

    // A host with a folder of its own does not reach `_default`.
    machine.run(&["mkdir", &format!("{DIR}/registry.test:5443")]).expect(0);
    assert_untrusted(&machine, &image);
    apply(&machine).expect(2);
    let now = status(&machine);
    assert_eq!(now["runtime"]["held"]["reason"], "policy", "{now:#}");
    let why =
        format!("runtime.onChange is registry, and {DIR}/registry.test:5443 hides _default/ for pulls from that host");
    assert_eq!(now["runtime"]["held"]["why"], why);
    machine.run(&["rmdir", &format!("{DIR}/registry.test:5443")]).expect(0);

    // `uninstall` removes the directory.
    machine.write("/etc/nodetrust/org.crt", Ca::new("Another CA").pem());
    machine.run(&["nodetrust", "apply"]).expect(0);
    assert_untrusted(&machine, &image);
    assert_eq!(starts(&machine), before);
}
