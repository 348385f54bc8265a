//! The unit that runs `nodetrust apply` at each boot.

/// What pulls images or needs a CA at the boot: runtimes, kubelet, and what sets a node of EKS up. A unit that is not there does no harm.
pub(super) const BEFORE: &str = "containerd.service crio.service docker.service kubelet.service k3s.service k3s-agent.service \
    rke2-server.service rke2-agent.service nodeadm-run.service";

/// The unit. It holds no anchors: `apply` reads the sources that the configuration on the node names.
///
/// Exit code 2 of `apply` says that the node converged and something is left to look at: the boot goes on.
pub fn apply_unit() -> String {
    format!(
        "\
# /etc/systemd/system/nodetrust-apply.service: nodetrust's anchors, before anything pulls an image
[Unit]
Description=Private CAs in the trust store of the node (nodetrust apply)
ConditionPathExists=/etc/nodetrust/config.yaml
Before={BEFORE}

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/local/bin/nodetrust apply
SuccessExitStatus=2
TimeoutStartSec=300

[Install]
WantedBy=multi-user.target
"
    )
}
