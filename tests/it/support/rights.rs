//! The rights of the DaemonSet, read from the manifest that is installed: tests run the program with these and no others.

use std::{fs, process::Command};

use serde_json::Value;

use super::must;

const DAEMONSET: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../manifests/base/daemonset.yaml");

/// The capabilities that the container is given, e.g. `SYS_CHROOT`; it drops all others.
pub fn capabilities() -> Vec<String> {
    let text = must(DAEMONSET, fs::read_to_string(DAEMONSET));
    let daemonset: Value = must("YAML", serde_saphyr::from_str(&text));
    let context = &daemonset["spec"]["template"]["spec"]["containers"][0]["securityContext"];
    assert_eq!((&context["runAsUser"], &context["privileged"]), (&0.into(), &false.into()), "{context}");
    assert_eq!(context["allowPrivilegeEscalation"], false, "{context}");
    assert_eq!(context["capabilities"]["drop"][0], "ALL", "{context}");
    let add = context["capabilities"]["add"].as_array().expect("capabilities to add");
    add.iter().map(|name| name.as_str().expect("a name").to_owned()).collect()
}

/// A command that runs a program as uid 0 with these capabilities, which it cannot leave: setpriv(1) of util-linux.
pub fn confined(program: &str, capabilities: &[String]) -> Command {
    let kept: String = capabilities.iter().map(|name| format!(",+{}", name.to_lowercase())).collect();
    let mut command = Command::new("setpriv");
    command.args(["--no-new-privs", "--inh-caps=-all", &format!("--bounding-set=-all{kept}"), "--", program]);
    command
}

#[test]
fn the_rights_of_the_manifest_are_the_rights_of_the_tests() {
    let status = confined("cat", &capabilities()).arg("/proc/self/status").output().unwrap();
    let status = String::from_utf8(status.stdout).unwrap();
    let field = |name: &str| {
        status.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned()).unwrap()
    };
    let (dac_override, sys_chroot) = (1 << 1, 1 << 18);
    for name in ["CapPrm:", "CapEff:", "CapBnd:"] {
        assert_eq!(u64::from_str_radix(&field(name), 16).unwrap(), dac_override | sys_chroot, "{name}");
    }
    assert_eq!((field("CapInh:").trim_matches('0'), field("NoNewPrivs:").as_str()), ("", "1"));
}
