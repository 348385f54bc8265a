//! Which runtime the kubelet uses, and what else on a host speaks of one.

use std::collections::BTreeMap;

use nodetrust_core::runtime::{
    Clues, RuntimeDetection, RuntimeEndpoint,
    containerd::option,
    detect,
    kinds::{RuntimeKind, TABLE},
    kubelet,
    settings::RuntimeSettings,
};
use serde::{Deserialize, de::DeserializeOwned};

use super::{
    containerd,
    health::ANSWERING,
    launch::launch,
    processes,
    units::{pid, state},
};
use crate::{
    host::{
        file::{FileKind, is_missing},
        root::HostRoot,
        systemd::Unit,
    },
    runtime::cri,
};

/// Where kubeadm and most distributions keep the kubelet's configuration.
const KUBELET_CONFIG: &str = "/var/lib/kubelet/config.yaml";
/// What kubeadm adds to the kubelet's command line.
const KUBELET_FLAGS: &str = "/var/lib/kubelet/kubeadm-flags.env";
/// Largest of these files, in bytes.
const MAX_FILE: u64 = 1 << 20;
/// Where `k3s --docker` has its shim for Docker.
const K3S_DOCKER: &str = "/run/k3s/cri-dockerd/cri-dockerd.sock";
/// Sockets that are only asked if their unit runs: systemd would start the shim.
const ACTIVATED: &str = "/run/cri-dockerd.sock";
/// Programs that pull.
const RUNTIMES: [&str; 3] = ["containerd", "crio", "dockerd"];

/// What a unit serves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Served {
    /// Sockets on the host.
    pub(crate) sockets: Vec<String>,
    /// Its process or its configuration names them; else they are the usual ones.
    pub(crate) is_sure: bool,
}

/// What came of looking for the runtime.
pub(crate) struct Located {
    /// Which it is.
    pub(crate) detection: RuntimeDetection,
    /// The sockets of what was found, the kubelet's first.
    pub(crate) sockets: Vec<String>,
    /// The kubelet names one of them.
    pub(crate) is_kubelets: bool,
}

/// The fields of the kubelet's configuration that are read.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct KubeletFile {
    container_runtime_endpoint: Option<String>,
    image_service_endpoint: Option<String>,
}

/// The fields of k3s' and RKE2's configuration that are read.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct RancherFile {
    container_runtime_endpoint: Option<String>,
    docker: Option<bool>,
}

/// Finds the runtime among these units.
pub(crate) fn find(root: &HostRoot, units: &BTreeMap<String, Unit>, policy: &RuntimeSettings) -> Located {
    let mut endpoint = endpoint(root, units);
    let active: BTreeMap<String, bool> =
        units.iter().map(|(name, unit)| (name.clone(), !state(unit).is_down())).collect();
    let mut served: BTreeMap<String, Served> = TABLE
        .iter()
        .flat_map(|row| row.units.iter().map(|unit| (row.kind, *unit)))
        .filter_map(|(kind, name)| Some((name.to_owned(), serves(root, kind, units.get(name)?))))
        .collect();
    if let Some(endpoint) = &mut endpoint {
        match_endpoint(root, &endpoint.socket, &active, &mut served);
        let is_served = |unit: &str| served.get(unit).is_some_and(|served| served.sockets.contains(&endpoint.socket));
        let has_server = active.iter().any(|(unit, active)| *active && is_served(unit));
        endpoint.answers = !has_server && answers(root, &endpoint.socket);
    }
    let sockets = served.iter().map(|(unit, served)| (unit.clone(), served.sockets.clone())).collect();
    let clues = Clues { units: &active, served: &sockets, endpoint: endpoint.as_ref() };
    let detection = detect(&clues, policy.kind, policy.unit.as_deref());
    let RuntimeDetection::Known(found) = &detection else {
        return Located { detection, sockets: Vec::new(), is_kubelets: false };
    };
    // a unit that only the configuration names is not in the table
    let served = served.remove(&found.unit);
    let served = served.or_else(|| Some(serves(root, found.kind, units.get(&found.unit)?))).unwrap_or_default();
    let mut sockets = served.sockets;
    let named = endpoint.and_then(|endpoint| sockets.iter().position(|socket| *socket == endpoint.socket));
    if let Some(position) = named {
        sockets.swap(0, position);
    }
    Located { detection, sockets, is_kubelets: named.is_some() }
}

/// What a unit of this kind serves.
fn serves(root: &HostRoot, kind: RuntimeKind, unit: &Unit) -> Served {
    let launch = launch(root, kind, pid(root, kind, unit), unit);
    match launch.and_then(|launch| containerd::address(root, &launch)) {
        Some(address) => Served { sockets: vec![address], is_sure: true },
        None => {
            Served { sockets: kind.row().sockets.iter().map(|socket| (*socket).to_owned()).collect(), is_sure: false }
        }
    }
}

/// Adds the kubelet's socket to what a unit serves, where it is another name of one of the unit's, or where the runtime that answers
/// there can only be that unit's.
fn match_endpoint(
    root: &HostRoot,
    endpoint: &str,
    active: &BTreeMap<String, bool>,
    served: &mut BTreeMap<String, Served>,
) {
    let place = root.location(endpoint).ok();
    let is_same = |socket: &String| socket == endpoint || place.is_some() && root.location(socket).ok() == place;
    let mut is_known = false;
    for served in served.values_mut().filter(|served| served.sockets.iter().any(is_same)) {
        is_known = true;
        if !served.sockets.iter().any(|socket| socket == endpoint) {
            served.sockets.push(endpoint.to_owned());
        }
    }
    if is_known || place.is_none() {
        return;
    }
    let Ok(status) = cri::look(root, endpoint, ANSWERING) else { return };
    let name = status.runtime;
    let is_of = |kind: RuntimeKind| match kind {
        RuntimeKind::Crio => name == "cri-o",
        RuntimeKind::Docker => name == "docker",
        _ => name == "containerd",
    };
    let kind_of = |unit: &str| TABLE.iter().find(|row| row.units.contains(&unit)).map(|row| row.kind);
    // a unit whose own socket answers serves no other one: somebody else does
    let has_own = |served: &Served| served.sockets.iter().any(|socket| answers(root, socket));
    let mut fitting = served.iter_mut().filter(|(unit, served)| {
        active.get(*unit) == Some(&true) && !served.is_sure && kind_of(unit).is_some_and(is_of) && !has_own(served)
    });
    if let (Some((_, served)), None) = (fitting.next(), fitting.next()) {
        served.sockets.push(endpoint.to_owned());
    }
}

/// The socket that the kubelet uses, or would use.
fn endpoint(root: &HostRoot, units: &BTreeMap<String, Unit>) -> Option<RuntimeEndpoint> {
    let found = |socket: String, said_by: &str, in_use| {
        Some(RuntimeEndpoint { socket, said_by: said_by.to_owned(), in_use, answers: false })
    };
    if let Some(command) = kubelet_command(root, units) {
        if let Some(socket) = kubelet::endpoint_of_command(&command) {
            return found(socket, "the kubelet's command line", true);
        }
        let config = option(&command, &["config"]).unwrap_or(KUBELET_CONFIG);
        return found(endpoint_of_config(root, config)?, &format!("the kubelet's configuration {config}"), true);
    }
    if let Some(endpoint) = TABLE.iter().find_map(|row| endpoint_of_distribution(root, row.kind, units)) {
        return Some(endpoint);
    }
    let flags = text(root, KUBELET_FLAGS).and_then(|text| kubelet::endpoint_of_flags(&text));
    match flags {
        Some(socket) => found(socket, KUBELET_FLAGS, false),
        None => found(endpoint_of_config(root, KUBELET_CONFIG)?, KUBELET_CONFIG, false),
    }
}

/// The command line of the host's kubelet: its init system has started it, or a distribution has.
fn kubelet_command(root: &HostRoot, units: &BTreeMap<String, Unit>) -> Option<Vec<String>> {
    let distributions = TABLE.iter().filter(|row| row.child.is_some()).flat_map(|row| row.units);
    let of_distribution = || {
        let mut mains = distributions.filter_map(|unit| units.get(*unit)?.main_pid);
        mains.find_map(|main| processes::child(root, main, "kubelet"))
    };
    let pid = processes::by_name(root, "kubelet").or_else(of_distribution)?;
    processes::command(root, pid).ok().filter(|command| !command.is_empty())
}

fn endpoint_of_config(root: &HostRoot, path: &str) -> Option<String> {
    let file: KubeletFile = yaml(root, path)?;
    file.image_service_endpoint.or(file.container_runtime_endpoint).as_deref().and_then(kubelet::socket_path)
}

/// A distribution that runs and was told to use somebody else's runtime; its own is then not started.
fn endpoint_of_distribution(
    root: &HostRoot,
    kind: RuntimeKind,
    units: &BTreeMap<String, Unit>,
) -> Option<RuntimeEndpoint> {
    let row = kind.row();
    let is_up = |unit: &&Unit| !state(unit).is_down();
    let unit = row.units.iter().filter_map(|name| units.get(*name)).find(is_up)?;
    if pid(root, kind, unit).is_some() {
        return None; // it has started its own
    }
    // they hide what they were started with from /proc, since it may hold secrets: the unit says it
    let socket = match kind {
        RuntimeKind::K3s | RuntimeKind::Rke2 => endpoint_of_rancher(root, kind, &unit.command),
        RuntimeKind::K0s => kubelet::endpoint_of_k0s(&unit.command),
        _ => None,
    }?;
    let said_by = format!("the configuration of {}", unit.name);
    Some(RuntimeEndpoint { socket, said_by, in_use: true, answers: false })
}

/// By its command line, else by its configuration: a file, and a directory of more, of which the last counts.
fn endpoint_of_rancher(root: &HostRoot, kind: RuntimeKind, command: &[String]) -> Option<String> {
    if let Some(socket) = kubelet::endpoint_of_command(command) {
        return Some(socket);
    }
    if command.iter().any(|word| word == "--docker") {
        return Some(K3S_DOCKER.to_owned());
    }
    let usual = format!("/etc/rancher/{kind}/config.yaml");
    let config = option(command, &["config", "c"]).unwrap_or(&usual);
    let dir = format!("{config}.d");
    let more = root.list(&dir).ok().flatten().unwrap_or_default();
    let more = more.into_iter().filter(|(name, _)| name.ends_with(".yaml") || name.ends_with(".yml"));
    let paths = std::iter::once(config.to_owned()).chain(more.map(|(name, _)| format!("{dir}/{name}")));
    let mut all = RancherFile::default();
    for file in paths.filter_map(|path| yaml::<RancherFile>(root, &path)) {
        all.container_runtime_endpoint = file.container_runtime_endpoint.or(all.container_runtime_endpoint);
        all.docker = file.docker.or(all.docker);
    }
    let socket = all.container_runtime_endpoint.as_deref().and_then(kubelet::socket_path);
    socket.or_else(|| all.docker.unwrap_or(false).then(|| K3S_DOCKER.to_owned()))
}

/// What on the host says that there is a runtime, where none was found: a socket at which one answers, or a process.
pub(crate) fn sign(root: &HostRoot) -> Option<String> {
    let mut sockets: Vec<&str> = TABLE.iter().flat_map(|row| row.sockets).copied().collect();
    sockets.retain(|socket| *socket != ACTIVATED);
    sockets.dedup();
    let answers = sockets.into_iter().filter(|socket| is_socket(root, socket)).find_map(|socket| {
        let status = cri::look(root, socket, ANSWERING).ok()?;
        Some(format!("{} {} answers at {socket}, and no unit that is known runs it", status.runtime, status.version))
    });
    let runs = || {
        RUNTIMES.iter().find_map(|name| {
            let pid = processes::by_name(root, name)?;
            let unit = processes::unit(root, pid).map_or_else(String::new, |unit| format!(" in {unit}"));
            Some(format!("{name} runs{unit} as process {pid}, and no unit that is known has started it"))
        })
    };
    let set = |fact: String| format!("{fact}: set runtime.unit and runtime.kind");
    answers.or_else(runs).map(set)
}

/// The first of these sockets that is there, else the first of the kind's that is, else the first.
pub(crate) fn socket(root: &HostRoot, kind: RuntimeKind, sockets: &[String]) -> String {
    let usual = kind.row().sockets.iter().copied();
    let there = sockets.iter().map(String::as_str).chain(usual.clone()).find(|path| is_socket(root, path));
    there.or(sockets.first().map(String::as_str)).or(usual.clone().next()).unwrap_or_default().to_owned()
}

/// Whether a runtime answers there. A socket that systemd would start a shim for is not asked.
fn answers(root: &HostRoot, socket: &str) -> bool {
    socket != ACTIVATED && is_socket(root, socket) && cri::look(root, socket, ANSWERING).is_ok()
}

fn is_socket(root: &HostRoot, path: &str) -> bool {
    matches!(root.stat(path), Ok(Some(meta)) if meta.kind == FileKind::Other)
}

fn yaml<T: DeserializeOwned>(root: &HostRoot, path: &str) -> Option<T> {
    let text = text(root, path)?;
    match serde_saphyr::from_str(&text) {
        Ok(value) => Some(value),
        Err(_) => {
            // the error may quote the file, which may hold a token
            tracing::debug!(path, "a configuration of the host is not understood");
            None
        }
    }
}

fn text(root: &HostRoot, path: &str) -> Option<String> {
    match root.read(path, MAX_FILE) {
        Ok(bytes) => String::from_utf8(bytes).ok(),
        Err(error) if is_missing(&error) => None,
        Err(error) => {
            tracing::debug!(path, %error, "a configuration of the host cannot be read");
            None
        }
    }
}
