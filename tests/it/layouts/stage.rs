//! Puts a composition on a booted node, and takes it off again: files, units, sockets, and what others do at their moments.

mod configuration;
mod units;

use std::{fs, os::unix::net::UnixListener, path::PathBuf, time::Duration};

use self::{
    configuration::{add_configuration, import_path, import_text},
    units::{add_kubelet, add_unit, program},
};
use super::{
    choices::{
        Before, ConfigPath, ConfigPlace, DefaultFolder, Format, HostFolder, Import, Kubelet, Life, Program, Roots,
        Section, Socket, Starter,
    },
    layout::{DOCKERS, NodeLayout, OTHER},
};
use crate::support::{
    cri::Message,
    machine::{Machine, MachineKind},
    must,
    node::{self, Done},
    pki::Ca,
    wait_for,
};

/// Longest wait for events that take seconds; the machine may be busy.
pub const LIMIT: Duration = Duration::from_secs(60);
/// Longest wait for a containerd that may never start.
const PATIENCE: Duration = Duration::from_secs(12);
/// The registry whose CA the tests install.
pub const HOST: &str = "registry.test:5443";

/// Runs a program in the node's `/` as the agent's pod would: its own mounts and PID namespace, the node at /host, and the
/// capabilities of the manifest.
const IN_POD: &str = "#!/bin/sh\n\
    exec unshare --mount --pid --fork --kill-child --propagation slave -- sh -c 'mount --rbind / /host && mount -t proc proc /proc && \
    exec setpriv --no-new-privs --inh-caps=-all --bounding-set=-all@CAPABILITIES@ -- \"$@\"' sh \"$@\"\n";

/// Runs once for each machine: installs programs, and saves the state that a reset restores.
const PREPARE: &str = "set -e
systemctl disable --now --quiet containerd
rm -f /etc/systemd/system/kubelet.service
cp -a /etc/ssl/certs /var/pristine-certs
mkdir -p /host /opt/versions/own /opt/versions/other
mv /opt/other-containerd /opt/versions/other/containerd
cp /usr/bin/containerd /opt/versions/own/containerd
chmod 755 /usr/local/bin/nodetrust /usr/local/bin/in-pod /opt/versions/*/containerd
systemctl daemon-reload
";

/// Stops what a composition has started, and removes its files.
const RESET: &str = "
units='containerd cri-runtime k3s rke2-agent k0sworker snap.microk8s.daemon-containerd k3s-edge edge-node kubelet'
systemctl stop $units 2>/dev/null
for _ in 1 2 3 4 5 6 7 8 9 10; do
  pids=$(pidof containerd nodetrust in-pod) || break
  kill -9 $pids 2>/dev/null; sleep 0.05
done
systemctl reset-failed
cd /etc/systemd/system
rm -rf cri-runtime.service k3s.service rke2-agent.service k0sworker.service snap.microk8s.daemon-containerd.service \
  k3s-edge.service edge-node.service kubelet.service containerd.service.d
rm -rf /etc/containerd /etc/k0s /etc/docker /etc/nodetrust /etc/nodetrust.away /opt/cri /opt/registries /opt/edge /opt/roots /var/lib/nodetrust \
  /run/nodetrust.lock /var/lib/rancher /var/lib/k0s /var/snap /snap /run/cri /run/k3s /run/k0s /run/idle /run/containerd \
  /run/dockershim.sock /usr/bin/snap /usr/bin/kubelet /usr/local/bin/k3s /usr/local/bin/k0s /usr/local/bin/rke2 \
  /usr/local/bin/containerd /var/lib/kubelet/config.yaml /var/lib/kubelet/kubeadm-flags.env /certs.d
ln -f /opt/versions/own/containerd /usr/bin/containerd
rm -rf /usr/local/share/ca-certificates/* /etc/ssl/certs
cp -a /var/pristine-certs /etc/ssl/certs
systemctl daemon-reload
";

/// A booted node on which compositions are put, one after the other.
pub struct Stage {
    pub machine: Machine,
    /// the image that is pulled
    pub image: String,
    /// the CA of the registry
    pub ca: String,
    /// a CA that has signed nothing
    other_ca: String,
    /// `runtime.witness` and `runtime.onChange: registry` are known
    pub takes_witness: bool,
    pub takes_registry: bool,
}

impl Stage {
    /// Boots a machine and prepares it.
    pub fn boot(kind: MachineKind) -> Self {
        let machine = Machine::boot(kind);
        let image = machine.push("app:1");
        machine.write("/usr/local/bin/nodetrust", must("our program", fs::read(crate::support::program())));
        let other = if kind == MachineKind::Trixie { "boot-containerd21" } else { "boot-trixie" };
        let other = node::roots().join(other).join("usr/bin/containerd");
        machine.write("/opt/other-containerd", must("another containerd", fs::read(other)));
        let kept: String =
            crate::support::rights::capabilities().iter().map(|name| format!(",+{}", name.to_lowercase())).collect();
        machine.write("/usr/local/bin/in-pod", IN_POD.replace("@CAPABILITIES@", &kept));
        machine.run(&["sh", "-c", PREPARE]).expect(0);
        let takes = |runtime: &str| {
            machine.write(
                "/tmp/config.yaml",
                format!("sources: [{{name: org, path: /x, optional: true}}]\nruntime: {{{runtime}}}\n"),
            );
            machine.run(&["nodetrust", "--config", "/tmp/config.yaml", "status"]).code != 64
        };
        let (takes_witness, takes_registry) = (takes("witness: never"), takes("onChange: registry"));
        let ca = machine.registry_ca();
        Self { machine, image, ca, other_ca: Ca::new("Somebody's CA").pem(), takes_witness, takes_registry }
    }

    /// Runs a shell script on the node.
    pub fn sh(&self, script: &str) -> Done {
        self.machine.run_with(&["sh", "-s"], script.as_bytes())
    }

    /// Resets the node and writes the composition's files; starts nothing.
    pub fn set(&self, layout: &NodeLayout) {
        let mut script = Script(RESET.to_owned());
        self.add_programs(layout, &mut script);
        add_configuration(layout, &mut script);
        add_unit(layout, &mut script);
        self.add_folders(layout, false, &mut script);
        add_kubelet(layout, &mut script);
        script.add("systemctl daemon-reload");
        self.sh(&script.0).expect(0);
        for path in
            [(layout.dockershim, "/run/dockershim.sock"), (layout.stale_socket, "/run/containerd/containerd.sock")]
        {
            if let (true, path) = path {
                self.dead_socket(path);
            }
        }
    }

    /// A leftover socket: nobody listens on it.
    fn dead_socket(&self, path: &str) {
        let path: PathBuf = self.machine.root().join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        drop(must("a socket", UnixListener::bind(path)));
    }

    fn add_programs(&self, layout: &NodeLayout, script: &mut Script) {
        let (usr, local) = match (layout.program, layout.is_distribution()) {
            (Program::Usual, _) => ("own", None),
            (Program::Local, false) => ("own", Some("own")),
            (Program::Local, true) => ("other", None), // the distribution runs its own program
            (Program::OtherBeside, _) => ("own", Some("other")),
            (Program::LocalOtherBeside, _) => ("other", Some("own")),
        };
        let link = |version: &str, to: &str| {
            format!("mkdir -p \"$(dirname {to})\" && ln -f /opt/versions/{version}/containerd {to}")
        };
        script.add(&link(usr, "/usr/bin/containerd"));
        if let Some(version) = local {
            script.add(&link(version, "/usr/local/bin/containerd"));
        }
        if layout.is_distribution() || layout.is_child() {
            script.add(&link("own", &program(layout)));
        }
        if layout.roots == Roots::Environment {
            script.add("mkdir -p /opt/roots/none && cp /var/pristine-certs/ca-certificates.crt /opt/roots/bundle.crt");
        }
    }

    /// What somebody else has put into the registry directories, at the beginning or late.
    fn add_folders(&self, layout: &NodeLayout, late: bool, script: &mut Script) {
        let https = format!("https://{HOST}");
        let toml = |more: &str| format!("server = \"{https}\"\n[host.\"{https}\"]\n{more}");
        for dir in layout.directories() {
            if !late {
                script.add(&format!("mkdir -p {dir}"));
                if layout.no_hosts {
                    script.add(&format!("mkdir -p {dir}/_backup {dir}/lost+found && echo note >{dir}/README"));
                }
            }
            let host = format!("{dir}/{HOST}");
            match (layout.host, late) {
                (HostFolder::Empty, false) | (HostFolder::LateEmpty, true) => script.add(&format!("mkdir -p {host}")),
                (HostFolder::Underscores, false) => script.add(&format!("mkdir -p {dir}/registry.test_5443_")),
                (HostFolder::Portless, false) => script.add(&format!("mkdir -p {dir}/registry.test")),
                (HostFolder::Toml, false) => script.file(&format!("{host}/hosts.toml"), &toml("")),
                (HostFolder::SkipVerify, false) => {
                    script.file(&format!("{host}/hosts.toml"), &toml("  skip_verify = true\n"));
                }
                (HostFolder::TheirCa | HostFolder::OurCa, false) => {
                    let ca = if layout.host == HostFolder::OurCa { &self.ca } else { &self.other_ca };
                    script.file(&format!("{host}/theirs.pem"), ca);
                    script.file(
                        &format!("{host}/hosts.toml"),
                        &format!("ca = \"{host}/theirs.pem\"\n{}", toml(&format!("  ca = \"{host}/theirs.pem\"\n"))),
                    );
                }
                (HostFolder::TheirCrt, false) => script.file(&format!("{host}/theirs.crt"), &self.other_ca),
                _ => {}
            }
            let default = format!("{dir}/_default");
            match (layout.default, late) {
                (DefaultFolder::Toml, false) | (DefaultFolder::LateToml, true) => {
                    script.file(&format!("{default}/hosts.toml"), "[host.\"https://mirror.test\"]\n");
                }
                (DefaultFolder::TheirCrt, false) => script.file(&format!("{default}/theirs.crt"), &self.other_ca),
                (DefaultFolder::BadCrt, false) => script.file(&format!("{default}/theirs.crt"), ""),
                (DefaultFolder::OurCrt, false) => script.file(&format!("{default}/theirs.crt"), &self.ca),
                _ => {}
            }
        }
    }

    /// Starts what the composition runs. False if its containerd does not serve the kubelet.
    pub fn start(&self, layout: &NodeLayout) -> bool {
        let idle = if layout.idle { "systemctl start containerd\n" } else { "" };
        let kubelet = if layout.kubelet == Kubelet::Process { "systemctl start kubelet\n" } else { "" };
        self.sh(&format!("{idle}{kubelet}systemctl start {}", layout.unit_name()));
        self.serves(layout)
    }

    /// Whether containerd serves the kubelet, once it has had its time.
    pub fn serves(&self, layout: &NodeLayout) -> bool {
        let end = std::time::Instant::now() + PATIENCE;
        let serves = || {
            let request = Message::new();
            self.machine.cri_at(layout.socket_path(), "RuntimeService/ListPodSandbox", &request)
        };
        loop {
            match serves() {
                Ok(_) => return true,
                // A plug-in that has failed to load does not load later.
                Err(error) if error.contains("unknown service") || std::time::Instant::now() > end => return false,
                Err(_) => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }

    /// Somebody else restarts the runtime.
    pub fn restart(&self, layout: &NodeLayout) -> bool {
        let unit = layout.unit_name();
        let before = self.processes(layout);
        self.sh(&format!("systemctl reset-failed {unit} 2>/dev/null; systemctl restart {unit}"));
        // none, where it does not start with what its configuration has become
        let is_another = |now: String| now != before || now.trim().is_empty();
        wait_for("another process", LIMIT, || is_another(self.processes(layout)).then_some(()));
        self.serves(layout)
    }

    /// The process that pulls: its pid and start time.
    pub fn processes(&self, layout: &NodeLayout) -> String {
        let script = "idle=$(systemctl show --value --property MainPID containerd)
            for p in $(pidof containerd); do
              tr '\\0' ' ' </proc/$p/cmdline 2>/dev/null | grep -q 'config dump' && continue
              [ \"$1\" = idle ] && [ \"$p\" = \"$idle\" ] && continue
              echo $p $(sed 's/.*) //' /proc/$p/stat 2>/dev/null | cut -d' ' -f20)
            done";
        let word = if layout.idle { "idle" } else { "" };
        self.machine.run(&["sh", "-c", script, "sh", word]).out
    }

    /// The images of the node: with one of the registry, or without.
    pub fn set_images(&self, layout: &NodeLayout, named: bool) {
        let ctr = format!("ctr -a {} -n k8s.io images", layout.socket_path());
        let tag = if named { format!("{ctr} tag --force rig.test/busybox:1 {HOST}/app:0") } else { "true".to_owned() };
        self.sh(&format!("{ctr} rm {HOST}/app:0 {} >/dev/null 2>&1; {tag}", self.image));
    }

    /// What a person does by hand: a CA into the anchor directory, and the distribution's tool.
    pub fn trust_by_hand(&self) {
        self.machine.trust_by_hand("corp", &self.ca);
    }

    /// What happens to the imported file after the start.
    pub fn age_import(&self, layout: &NodeLayout, late: bool) {
        let mut script = Script(String::new());
        match (layout.life, late) {
            (Life::Appears | Life::Changes, false) | (Life::AppearsLate, true) => {
                script.file(&import_path(layout), &import_text(layout, layout.imported));
            }
            (Life::Goes, false) | (Life::GoesLate, true) => script.add(&format!("rm {}", import_path(layout))),
            _ => return,
        }
        self.sh(&script.0).expect(0);
    }

    /// Folders that somebody makes after nodetrust has run.
    pub fn add_late_folders(&self, layout: &NodeLayout) {
        let mut script = Script(String::new());
        self.add_folders(layout, true, &mut script);
        self.sh(&script.0).expect(0);
    }

    /// Whether every pull reads what lies in `_default`: puts the CA there, pulls, and takes it away again.
    pub fn directory_works(&self, layout: &NodeLayout, pull: impl FnOnce() -> bool) -> bool {
        let dir = layout.directory();
        let put = format!(
            "[ -d {dir}/_default ] && touch /run/was-there; mkdir -p {dir}/_default && cat >{dir}/_default/judge.crt"
        );
        self.machine.run_with(&["sh", "-c", &put], self.ca.as_bytes()).expect(0);
        let works = pull();
        let take =
            format!("rm {dir}/_default/judge.crt; [ -e /run/was-there ] || rmdir {dir}/_default; rm -f /run/was-there");
        self.sh(&take).expect(0);
        works
    }

    /// Has the source hold these many of: another CA, and the registry's.
    pub fn set_source(&self, layout: &NodeLayout, with_registry: bool) {
        let other = layout.seen_first && layout.before == Before::Applied;
        let text = match (other, with_registry) {
            (true, true) => [self.other_ca.clone(), self.ca.clone()].concat(),
            (true, false) => self.other_ca.clone(),
            (false, true) => self.ca.clone(),
            (false, false) => String::new(),
        };
        self.machine.write("/etc/nodetrust/org/.new", &text);
        self.sh("mv /etc/nodetrust/org/.new /etc/nodetrust/org/ca.crt").expect(0);
    }
}

/// A shell script that is being written.
struct Script(String);

impl Script {
    fn add(&mut self, line: &str) {
        self.0 += line;
        self.0.push('\n');
    }

    fn file(&mut self, path: &str, text: &str) {
        let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
        self.add(&format!("mkdir -p \"$(dirname '{path}')\"; cat >'{path}' <<'END-OF-FILE'\n{text}{end}END-OF-FILE"));
    }
}
