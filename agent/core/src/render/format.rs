//! The formats.

use std::str::FromStr;

/// A format of configuration for the first boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RenderFormat {
    /// Part of a KubeadmConfigTemplate or KubeadmControlPlane of Cluster API.
    Kubeadm,
    /// User data of cloud-init.
    CloudInit,
    /// User data of EKS nodes with Amazon Linux 2023: a MIME part that runs before nodeadm.
    EksAl2023,
    /// User data of Bottlerocket.
    Bottlerocket,
    /// A document of Talos' machine configuration.
    Talos,
    /// Ignition, for Fedora CoreOS and Flatcar.
    Ignition,
    /// A POSIX shell script.
    Script,
    /// A Bundle of trust-manager, for pods.
    TrustManager,
    /// The unit that runs `nodetrust apply` at each boot. It reads the sources itself, so it holds no anchors.
    Systemd,
}

/// A word that names no format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no format")]
pub struct BadRenderFormat(pub String);

impl RenderFormat {
    /// All of them, in the order of the documentation.
    pub const ALL: [Self; 9] = [
        Self::Kubeadm,
        Self::CloudInit,
        Self::EksAl2023,
        Self::Bottlerocket,
        Self::Talos,
        Self::Ignition,
        Self::Script,
        Self::TrustManager,
        Self::Systemd,
    ];

    /// The public name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Kubeadm => "kubeadm",
            Self::CloudInit => "cloud-init",
            Self::EksAl2023 => "eks-al2023",
            Self::Bottlerocket => "bottlerocket",
            Self::Talos => "talos",
            Self::Ignition => "ignition",
            Self::Script => "script",
            Self::TrustManager => "trust-manager",
            Self::Systemd => "systemd",
        }
    }

    /// Whether the text holds the anchors themselves.
    pub fn holds_anchors(self) -> bool {
        self != Self::Systemd
    }
}

impl FromStr for RenderFormat {
    type Err = BadRenderFormat;

    fn from_str(text: &str) -> Result<Self, BadRenderFormat> {
        Self::ALL.into_iter().find(|format| format.as_str() == text).ok_or_else(|| BadRenderFormat(text.to_owned()))
    }
}
