//! The programs and units of a composition, and its kubelet.

use super::*;

/// Which program the composition's unit runs.
pub(super) fn program(layout: &NodeLayout) -> String {
    match layout.unit {
        Starter::K3s | Starter::Rke2 | Starter::Edge | Starter::EdgeSaid => {
            "/var/lib/rancher/k3s/data/current/bin/containerd".to_owned()
        }
        Starter::K0s => "/var/lib/k0s/bin/containerd".to_owned(),
        Starter::Microk8s => "/snap/microk8s/current/bin/containerd".to_owned(),
        Starter::Parent | Starter::ParentSaid => "/opt/edge/containerd".to_owned(),
        _ if matches!(layout.program, Program::Local | Program::LocalOtherBeside) => {
            "/usr/local/bin/containerd".to_owned()
        }
        _ => "/usr/bin/containerd".to_owned(),
    }
}

/// The command line of containerd.
fn command(layout: &NodeLayout) -> String {
    let (config, socket) = (layout.config(), layout.socket_path());
    let own = program(layout);
    match layout.unit {
        // k3s starts it by its name alone.
        Starter::K3s | Starter::Rke2 | Starter::Edge | Starter::EdgeSaid => {
            format!("containerd -c {config} -a {socket} --state /run/k3s/containerd --root /var/lib/containerd")
        }
        Starter::K0s => {
            format!("{own} --root=/var/lib/containerd --state=/run/k0s/containerd --address={socket} --config={config}")
        }
        Starter::Microk8s => format!(
            "{own} --config {config} --root /var/lib/containerd --state /var/snap/microk8s/common/run/containerd --address {socket}"
        ),
        _ => {
            let mut command = own;
            if matches!(layout.place, ConfigPlace::Elsewhere | ConfigPlace::Decoy) {
                command += &format!(" --config {config}");
            }
            if layout.socket == Socket::Flag {
                command += &format!(" --address {socket}");
            }
            if layout.idle {
                command += " --state /run/cri";
            }
            command
        }
    }
}

/// A parent process: it starts containerd, stops it when it is stopped, and ends when containerd ends.
fn parent(layout: &NodeLayout) -> String {
    let path = "PATH=/var/lib/rancher/k3s/data/current/bin:$PATH\nexport PATH\n";
    let path = if command(layout).starts_with("containerd ") { path } else { "" };
    format!("#!/bin/sh\n{path}{} &\ntrap \"kill -KILL $!\" TERM\nwait\n", command(layout))
}

/// k0s starts its containerd again when that ends, and ends it when the folder of drop-ins has changed and is still for three seconds.
fn k0s(layout: &NodeLayout) -> String {
    format!(
        "#!/bin/sh\ndir=/etc/k0s/containerd.d\nmkdir -p $dir\nstate() {{ stat -c %y $dir; }}\nwhile :; do\n  {} &\n  child=$!\n  \
         trap \"kill -KILL $child; exit\" TERM\n  seen=$(state)\n  while kill -0 $child 2>/dev/null; do\n    sleep 0.2\n    \
         now=$(state)\n    [ \"$now\" != \"$seen\" ] || continue\n    until sleep 3; [ \"$now\" = \"$(state)\" ]; do now=$(state); done\n    \
         seen=$now\n    kill -HUP $child\n  done\n  wait $child\ndone\n",
        command(layout)
    )
}

pub(super) fn add_unit(layout: &NodeLayout, script: &mut Script) {
    let mut settings = String::new();
    match layout.roots {
        Roots::Usual => {}
        Roots::Environment => {
            settings += "Environment=SSL_CERT_FILE=/opt/roots/bundle.crt SSL_CERT_DIR=/opt/roots/none\n";
        }
        Roots::Mount => settings += "BindReadOnlyPaths=/var/pristine-certs:/etc/ssl/certs\n",
    }
    let executable = |script: &mut Script, path: &str, text: &str| {
        script.file(path, text);
        script.add(&format!("chmod 755 {path}"));
    };
    let start = match layout.unit {
        Starter::Plain | Starter::Renamed | Starter::RenamedSaid => command(layout),
        Starter::K3s | Starter::Edge | Starter::EdgeSaid => {
            executable(script, "/usr/local/bin/k3s", &parent(layout));
            "/usr/local/bin/k3s agent".to_owned()
        }
        Starter::Rke2 => {
            executable(script, "/usr/local/bin/rke2", &parent(layout));
            "/usr/local/bin/rke2 agent".to_owned()
        }
        Starter::K0s => {
            executable(script, "/usr/local/bin/k0s", &k0s(layout));
            "/usr/local/bin/k0s worker".to_owned()
        }
        Starter::Microk8s => {
            executable(script, "/usr/bin/snap", &format!("#!/bin/sh\nexec {}\n", command(layout)));
            "/usr/bin/snap run microk8s.daemon-containerd".to_owned()
        }
        Starter::Parent | Starter::ParentSaid => {
            executable(script, "/opt/edge/edge-node", &parent(layout));
            "/opt/edge/edge-node".to_owned()
        }
    };
    if layout.unit == Starter::Plain {
        if start != "/usr/bin/containerd" || !settings.is_empty() {
            let text = format!("[Service]\n{settings}ExecStart=\nExecStart={start}\n");
            script.file("/etc/systemd/system/containerd.service.d/layout.conf", &text);
        }
        return;
    }
    let kind = if matches!(layout.unit, Starter::Renamed | Starter::RenamedSaid) { "notify" } else { "exec" };
    let text = format!(
        "[Service]\nType={kind}\n{settings}ExecStart={start}\nKillMode=process\nDelegate=yes\nRestart=always\nRestartSec=5s\n\
         [Install]\nWantedBy=multi-user.target\n"
    );
    script.file(&format!("/etc/systemd/system/{}", layout.unit_name()), &text);
    if layout.idle {
        let idle =
            "[Service]\nExecStart=\nExecStart=/usr/bin/containerd --root /run/idle/root --state /run/idle/state\n";
        script.file("/etc/systemd/system/containerd.service.d/layout.conf", idle);
    }
}

pub(super) fn add_kubelet(layout: &NodeLayout, script: &mut Script) {
    let endpoint = format!("unix://{}", layout.socket_path());
    match layout.kubelet {
        Kubelet::Silent => {}
        Kubelet::File => {
            let text = format!(
                "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\ncontainerRuntimeEndpoint: {endpoint}\n"
            );
            script.file("/var/lib/kubelet/config.yaml", &text);
        }
        Kubelet::Flags => {
            let text = format!("KUBELET_KUBEADM_ARGS=\"--container-runtime-endpoint={endpoint}\"\n");
            script.file("/var/lib/kubelet/kubeadm-flags.env", &text);
        }
        Kubelet::Process => {
            // A process with that name and command line simulates it.
            script.file("/usr/bin/kubelet", "#!/bin/sh\nwhile :; do sleep 1000; done\n");
            script.add("chmod 755 /usr/bin/kubelet");
            let text = format!("[Service]\nExecStart=/usr/bin/kubelet --container-runtime-endpoint={endpoint}\n");
            script.file("/etc/systemd/system/kubelet.service", &text);
        }
    }
}
