//! The formats in YAML. All values are fixed words, or a text in a literal block, which needs no quoting.

use super::{
    FirstBoot,
    comment::head,
    script::{RESTART, SCRIPT_PATH, script},
};

/// Part of the spec of a KubeadmConfigTemplate or KubeadmControlPlane of Cluster API.
pub(super) fn kubeadm(set: &FirstBoot<'_>) -> String {
    format!(
        "{}# Merge it into spec.template.spec of a KubeadmConfigTemplate, or into spec.kubeadmConfigSpec of a KubeadmControlPlane.\n\
         files:\n{}preKubeadmCommands:\n- sh {SCRIPT_PATH} {RESTART}\n",
        head(set),
        script_file(set)
    )
}

/// User data of cloud-init.
pub(super) fn cloud_init(set: &FirstBoot<'_>) -> String {
    format!("#cloud-config\n{}write_files:\n{}runcmd:\n- [sh, {SCRIPT_PATH}, {RESTART}]\n", head(set), script_file(set))
}

/// The document TrustedRootsConfig of Talos' machine configuration.
pub(super) fn talos(set: &FirstBoot<'_>) -> String {
    format!(
        "{}apiVersion: v1alpha1\nkind: TrustedRootsConfig\nname: nodetrust\ncertificates: |\n{}",
        head(set),
        indented(&set.pem(), 2)
    )
}

/// A Bundle of trust-manager: the public roots and the set, for pods.
pub(super) fn trust_manager(set: &FirstBoot<'_>) -> String {
    format!(
        "{}apiVersion: trust.cert-manager.io/v1alpha1\nkind: Bundle\nmetadata:\n  name: nodetrust\nspec:\n  sources:\n\
         \x20 - useDefaultCAs: true\n  - inLine: |\n{}  target:\n    configMap:\n      key: ca-certificates.crt\n",
        head(set),
        indented(&set.pem(), 6)
    )
}

/// The script as an entry of a list of files; cloud-init and Cluster API have the same fields.
fn script_file(set: &FirstBoot<'_>) -> String {
    format!(
        "- path: {SCRIPT_PATH}\n  owner: root:root\n  permissions: \"0755\"\n  content: |\n{}",
        indented(&script(set), 4)
    )
}

/// The lines of a text behind blanks. Empty lines stay empty.
fn indented(text: &str, indent: usize) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 8);
    for line in text.lines() {
        if !line.is_empty() {
            out.extend(std::iter::repeat_n(' ', indent));
            out.push_str(line);
        }
        out.push('\n');
    }
    out
}
