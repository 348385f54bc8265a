//! The container runtime: which one a node has, what is known of its process, and what follows from that.
//!
//! Go programs read the system's roots once, at their first TLS verification (facts B.1). So a runtime that runs since before
//! a change of the bundle neither trusts what was added nor forgets what was removed. [`record`] says what a process has read, [`rule`] whether it
//! is behind the bundle and what is to be done; [`certs_d`] says what a registry directory that is read at every pull makes up for; [`evidence`]
//! says what is known of pulls at all, with what the runtime itself has answered ([`witness`], [`testimony`]).

pub mod certs_d;
pub mod containerd;
mod detect;
pub mod environment;
pub mod evidence;
pub mod kubelet;
pub mod pull_answer;
pub mod record;
pub mod registry;
pub mod registry_way;
pub mod rule;
pub mod testimony;
pub mod witness;

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use certs_d::{KnownSetting, RegistryCerts};
pub use detect::{CRI_DOCKERD, Clues, Found, RuntimeDetection, RuntimeEndpoint, detect, units};
use rule::RuntimeChoice;

/// The kinds of runtimes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// containerd on its own.
    Containerd,
    /// CRI-O.
    Crio,
    /// Docker behind cri-dockerd.
    Docker,
    /// k3s with its own containerd.
    K3s,
    /// RKE2 with its own containerd.
    Rke2,
    /// k0s with its own containerd.
    K0s,
    /// MicroK8s with its own containerd.
    Microk8s,
}

/// What is known of a kind (facts C.5).
#[derive(Debug)]
pub struct Row {
    /// Which.
    pub kind: Kind,
    /// systemd units that may run it; the first active one does.
    pub units: &'static [&'static str],
    /// CRI sockets on the host.
    pub sockets: &'static [&'static str],
    /// The name of the process that pulls, where that is a child of the unit's main process.
    pub child: Option<&'static str>,
    /// Where the program of that child is, from the directory of the distribution's data.
    pub program: Option<&'static str>,
    /// Where a containerd keeps its configuration when its command line does not say.
    pub config: Option<&'static str>,
    /// How its process is made anew.
    pub restart: Means,
    /// The containers' own processes are in the unit's control group, so that only `KillMode=process` spares them.
    pub shares_group: bool,
}

/// How a runtime's process is made anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Means {
    /// The service is restarted.
    Service,
    /// A file that comes and goes in this directory makes k0s restart its containerd and nothing else.
    DropIn(&'static str),
}

/// The distribution before the plain runtime: a k3s node may have an idle containerd too.
pub const TABLE: [Row; 7] = [
    Row {
        kind: Kind::K3s,
        units: &["k3s.service", "k3s-agent.service"],
        sockets: &["/run/k3s/containerd/containerd.sock"],
        child: Some("containerd"),
        program: Some("data/current/bin/containerd"),
        config: Some("/var/lib/rancher/k3s/agent/etc/containerd/config.toml"),
        restart: Means::Service,
        shares_group: true,
    },
    Row {
        kind: Kind::Rke2,
        units: &["rke2-agent.service", "rke2-server.service"],
        sockets: &["/run/k3s/containerd/containerd.sock"],
        child: Some("containerd"),
        program: Some("bin/containerd"),
        config: Some("/var/lib/rancher/rke2/agent/etc/containerd/config.toml"),
        restart: Means::Service,
        shares_group: true,
    },
    Row {
        kind: Kind::K0s,
        units: &["k0sworker.service", "k0scontroller.service"],
        sockets: &["/run/k0s/containerd.sock"],
        child: Some("containerd"),
        program: Some("bin/containerd"),
        config: Some("/etc/k0s/containerd.toml"),
        restart: Means::DropIn("/etc/k0s/containerd.d"),
        shares_group: false,
    },
    Row {
        kind: Kind::Microk8s,
        units: &["snap.microk8s.daemon-containerd.service"],
        sockets: &["/var/snap/microk8s/common/run/containerd.sock"],
        child: None,
        program: None,
        config: Some("/var/snap/microk8s/current/args/containerd.toml"),
        restart: Means::Service,
        shares_group: true,
    },
    Row {
        kind: Kind::Crio,
        units: &["crio.service", "cri-o.service"],
        sockets: &["/run/crio/crio.sock"],
        child: None,
        program: None,
        config: None,
        restart: Means::Service,
        shares_group: false,
    },
    Row {
        kind: Kind::Docker,
        units: &["docker.service"],
        // cri-dockerd's, the one of the kubelet's own shim (Kubernetes up to 1.23), and that of `k3s --docker`
        sockets: &["/run/cri-dockerd.sock", "/run/dockershim.sock", "/run/k3s/cri-dockerd/cri-dockerd.sock"],
        child: None,
        program: None,
        config: None,
        restart: Means::Service,
        shares_group: false,
    },
    Row {
        kind: Kind::Containerd,
        units: &["containerd.service"],
        sockets: &["/run/containerd/containerd.sock"],
        child: None,
        program: None,
        config: Some("/etc/containerd/config.toml"),
        restart: Means::Service,
        shares_group: true,
    },
];

impl Kind {
    /// What is known of it.
    pub fn row(self) -> &'static Row {
        match TABLE.iter().find(|row| row.kind == self) {
            Some(row) => row,
            None => &TABLE[0], // every kind has a row; a test holds it
        }
    }

    /// The public name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Containerd => "containerd",
            Self::Crio => "crio",
            Self::Docker => "docker",
            Self::K3s => "k3s",
            Self::Rke2 => "rke2",
            Self::K0s => "k0s",
            Self::Microk8s => "microk8s",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Milliseconds since a boot, of the clock that does not jump (CLOCK_BOOTTIME): what starts of processes and changes of the
/// bundle are compared by, never the times of files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Uptime {
    /// Which boot.
    pub boot_id: String,
    /// Milliseconds since then.
    pub milliseconds: u64,
}

/// A process of a service: another one has another identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Process {
    /// systemd's `InvocationID`; empty where there is no systemd.
    pub invocation: String,
    /// When it started, to the clock tick (10 ms) below.
    pub started: Uptime,
}

/// The state of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServiceState {
    /// It runs.
    Active,
    /// It is on the way up or down.
    Changing,
    /// It does not run, and this is what the service manager says of it.
    Down(String),
}

impl ServiceState {
    /// Whether it does not run although it was started: systemd's first word for that is `failed` (org.freedesktop.systemd1(5),
    /// `ActiveState`).
    pub fn has_failed(&self) -> bool {
        matches!(self, Self::Down(word) if word.starts_with("failed"))
    }
}

/// A service, as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// The unit's name.
    pub unit: String,
    /// Its state.
    pub state: ServiceState,
    /// The process that counts: the one that pulls.
    pub process: Option<Process>,
}

/// The runtime, as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runtime {
    /// Which.
    pub kind: Kind,
    /// The fact that decided.
    pub because: String,
    /// What it says its version is; empty if it says nothing.
    pub version: String,
    /// The CRI socket, absolute on the host.
    pub socket: String,
    /// Its unit.
    pub service: Service,
    /// Whether it works: an error is why not.
    pub health: Result<(), String>,
    /// Whether a restart spares the containers: an error is why not, with the reason.
    pub spares: Result<(), (HoldReason, String)>,
    /// Its registry directory.
    pub certs: RegistryCerts,
    /// What says that its process reads other roots than the node's bundle, in a sentence; None if nothing does.
    pub elsewhere: Option<String>,
}

impl Runtime {
    /// What is known for good of its process's registry directory.
    pub fn known_setting(&self) -> Option<KnownSetting> {
        let setting = self.certs.setting.clone();
        let process = self.service.process.clone().filter(|_| setting.is_final())?;
        Some(KnownSetting { process, setting })
    }
}

/// What is there to be kept young.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Services {
    /// The runtime, None if there is none or nobody looks at it.
    pub runtime: Option<Runtime>,
    /// Where no runtime was found: what says all the same that there is one, in a sentence. None if nothing does.
    pub sign: Option<String>,
    /// Further units, by name.
    pub also: BTreeMap<String, Service>,
    /// How the runtime was looked for.
    pub choice: RuntimeChoice,
    /// This program is the agent in a pod of this node.
    pub in_pod: bool,
}

/// Why a restart that is due is held back; also the label `reason` of `nodetrust_restart_held`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HoldReason {
    /// The configuration says so.
    Policy,
    /// The runtime did not work before: a restart could make it worse.
    Unhealthy,
    /// It is on the way up or down.
    Busy,
    /// Restarts come too fast.
    RateLimit,
    /// The last try failed.
    Failed,
    /// A restart would end the containers.
    KillMode,
    /// Docker would stop the containers.
    LiveRestore,
    /// The service manager cannot be told from where the agent runs.
    NoAccess,
}

impl HoldReason {
    /// Every reason, for metrics.
    pub const ALL: [Self; 8] = [
        Self::Policy,
        Self::Unhealthy,
        Self::Busy,
        Self::RateLimit,
        Self::Failed,
        Self::KillMode,
        Self::LiveRestore,
        Self::NoAccess,
    ];

    /// The public name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::Unhealthy => "unhealthy",
            Self::Busy => "busy",
            Self::RateLimit => "rate-limit",
            Self::Failed => "failed",
            Self::KillMode => "kill-mode",
            Self::LiveRestore => "live-restore",
            Self::NoAccess => "no-access",
        }
    }
}

#[cfg(test)]
#[path = "runtime_tests.rs"]
mod tests;
