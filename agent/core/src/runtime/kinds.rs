//! The kinds of container runtimes.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The kinds of runtimes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RuntimeKind {
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
pub struct RuntimeRow {
    /// The kind.
    pub kind: RuntimeKind,
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
    pub restart: RestartMeans,
    /// The containers' own processes are in the unit's control group, so that only `KillMode=process` spares them.
    pub shares_group: bool,
}

/// How a runtime's process is made anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestartMeans {
    /// The service is restarted.
    Service,
    /// A file that comes and goes in this directory makes k0s restart its containerd and nothing else.
    DropIn(&'static str),
}

/// The distribution before the plain runtime: a k3s node may have an idle containerd too.
pub const TABLE: [RuntimeRow; 7] = [
    RuntimeRow {
        kind: RuntimeKind::K3s,
        units: &["k3s.service", "k3s-agent.service"],
        sockets: &["/run/k3s/containerd/containerd.sock"],
        child: Some("containerd"),
        program: Some("data/current/bin/containerd"),
        config: Some("/var/lib/rancher/k3s/agent/etc/containerd/config.toml"),
        restart: RestartMeans::Service,
        shares_group: true,
    },
    RuntimeRow {
        kind: RuntimeKind::Rke2,
        units: &["rke2-agent.service", "rke2-server.service"],
        sockets: &["/run/k3s/containerd/containerd.sock"],
        child: Some("containerd"),
        program: Some("bin/containerd"),
        config: Some("/var/lib/rancher/rke2/agent/etc/containerd/config.toml"),
        restart: RestartMeans::Service,
        shares_group: true,
    },
    RuntimeRow {
        kind: RuntimeKind::K0s,
        units: &["k0sworker.service", "k0scontroller.service"],
        sockets: &["/run/k0s/containerd.sock"],
        child: Some("containerd"),
        program: Some("bin/containerd"),
        config: Some("/etc/k0s/containerd.toml"),
        restart: RestartMeans::DropIn("/etc/k0s/containerd.d"),
        shares_group: false,
    },
    RuntimeRow {
        kind: RuntimeKind::Microk8s,
        units: &["snap.microk8s.daemon-containerd.service"],
        sockets: &["/var/snap/microk8s/common/run/containerd.sock"],
        child: None,
        program: None,
        config: Some("/var/snap/microk8s/current/args/containerd.toml"),
        restart: RestartMeans::Service,
        shares_group: true,
    },
    RuntimeRow {
        kind: RuntimeKind::Crio,
        units: &["crio.service", "cri-o.service"],
        sockets: &["/run/crio/crio.sock"],
        child: None,
        program: None,
        config: None,
        restart: RestartMeans::Service,
        shares_group: false,
    },
    RuntimeRow {
        kind: RuntimeKind::Docker,
        units: &["docker.service"],
        // cri-dockerd's, the one of the kubelet's own shim (Kubernetes up to 1.23), and that of `k3s --docker`
        sockets: &["/run/cri-dockerd.sock", "/run/dockershim.sock", "/run/k3s/cri-dockerd/cri-dockerd.sock"],
        child: None,
        program: None,
        config: None,
        restart: RestartMeans::Service,
        shares_group: false,
    },
    RuntimeRow {
        kind: RuntimeKind::Containerd,
        units: &["containerd.service"],
        sockets: &["/run/containerd/containerd.sock"],
        child: None,
        program: None,
        config: Some("/etc/containerd/config.toml"),
        restart: RestartMeans::Service,
        shares_group: true,
    },
];

impl RuntimeKind {
    /// What is known of it.
    pub fn row(self) -> &'static RuntimeRow {
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

impl fmt::Display for RuntimeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
#[path = "kinds_tests.rs"]
mod tests;
