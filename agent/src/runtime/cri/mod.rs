//! The container runtime, over the CRI socket on which the kubelet talks to it.
//!
//! The few messages that are used have only the fields that are read. The client asks `runtime.v1`, and `runtime.v1alpha2` where a
//! runtime is older than that (containerd before 1.6).

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::Path,
    time::Duration,
};

use nodetrust_core::{fleet::exempt::RunningContainer, runtime::container_end::ContainerEnd};
use tokio::net::UnixStream;

use crate::host::{
    file::is_missing,
    root::HostRoot,
    socket::{connect, converse},
};

mod client;
mod messages;

use client::CriClient;
pub use client::GrpcError;
use messages as m;

/// What a container runtime says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CriStatus {
    /// `containerd`, `cri-o`, `docker` …
    pub runtime: String,
    /// Its version, as it writes it: `1.7.24`, `v2.1.9`, `1.6.20~ds1`.
    pub version: String,
    /// Whether it can run containers, else why not.
    pub runtime_ready: Result<(), String>,
    /// Whether pods get a network, else why not; that is not the runtime's fault alone.
    pub network_ready: Result<(), String>,
    /// Whether the service that pulls images answers, else why not: it can be missing where the other one is there (facts C.6).
    pub image_service: Result<(), String>,
    /// The ids of the containers that run.
    pub running: BTreeSet<String>,
}

/// Why a container runtime could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum CriError {
    /// No way to it.
    #[error("the host has no CRI socket {socket}")]
    NoSocket {
        /// Where it was looked for on the host.
        socket: String,
    },
    /// It runs, and does not serve CRI.
    #[error("the runtime at {socket} does not serve CRI: its CRI plugin is not loaded")]
    NotLoaded {
        /// The socket on the host.
        socket: String,
    },
    /// It could not be connected to.
    #[error("failed to connect to {socket}")]
    Connect {
        /// The socket on the host.
        socket: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A call failed.
    #[error("{call} failed at {socket}")]
    Call {
        /// The socket on the host.
        socket: String,
        /// What was asked.
        call: &'static str,
        /// What the runtime or the connection said.
        #[source]
        source: GrpcError,
    },
    /// No answer.
    #[error("the runtime at {socket} had not answered after {} s", limit.as_secs_f32())]
    TimedOut {
        /// The socket on the host.
        socket: String,
        /// How long it was waited for.
        limit: Duration,
    },
}

impl CriError {
    /// What to do about it.
    pub fn next(&self) -> &'static str {
        match self {
            Self::NoSocket { .. } => {
                "look whether the container runtime runs, and that the host's /run is mounted with the host's /"
            }
            Self::NotLoaded { .. } => {
                "look for `failed to load plugin` in the runtime's log: most often its configuration has both `mirrors` and \
                 `config_path`, or `disabled_plugins` names cri"
            }
            Self::Connect { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                "run as uid 0; SELinux: with type spc_t; AppArmor: unconfined"
            }
            Self::Connect { .. } | Self::Call { .. } | Self::TimedOut { .. } => {
                "look at the container runtime's log on the host"
            }
        }
    }
}

/// Asks a runtime how it is, by the path of its CRI socket on the host.
///
/// # Errors
/// If it does not answer, or does not serve CRI.
pub fn look(root: &HostRoot, socket: &str, limit: Duration) -> Result<CriStatus, CriError> {
    talk(root, socket, limit, async |mut cri| cri.look().await)
}

/// Pulls an image without credentials; the answer is its reference. The runtime pulls as it does for a pod.
///
/// # Errors
/// If it does not answer, or cannot pull: its own message is in the error.
pub fn pull(root: &HostRoot, socket: &str, image: &str, limit: Duration) -> Result<String, CriError> {
    talk(root, socket, limit, async |mut cri| {
        cri.version().await?;
        let request = m::PullImageRequest { image: Some(m::ImageSpec { image: image.to_owned() }) };
        let answer: m::PullImageResponse = cri.call("ImageService", "PullImage", request).await?;
        Ok(answer.image_ref)
    })
}

/// The references of the images on the node: tags and digests.
///
/// # Errors
/// If it does not answer.
pub fn images(root: &HostRoot, socket: &str, limit: Duration) -> Result<Vec<String>, CriError> {
    talk(root, socket, limit, async |mut cri| {
        cri.version().await?;
        let answer: m::ListImagesResponse = cri.call("ImageService", "ListImages", m::Empty {}).await?;
        let names = answer.images.into_iter().flat_map(|image| image.repo_tags.into_iter().chain(image.repo_digests));
        Ok(names.collect())
    })
}

/// The containers that run, with their pods. A container whose pod the runtime does not know has an empty one.
///
/// # Errors
/// If it does not answer.
pub fn workload(root: &HostRoot, socket: &str, limit: Duration) -> Result<Vec<RunningContainer>, CriError> {
    talk(root, socket, limit, async |mut cri| {
        cri.version().await?;
        let running = cri.containers(Some(m::CONTAINER_RUNNING)).await?;
        let pods = cri.pods().await?;
        let pods: BTreeMap<String, m::PodSandbox> = pods.into_iter().map(|pod| (pod.id.clone(), pod)).collect();
        let of_pod = |container: m::Container| {
            let pod = pods.get(&container.pod_sandbox_id).cloned().unwrap_or_default();
            let metadata = pod.metadata.unwrap_or_default();
            RunningContainer {
                name: container.metadata.unwrap_or_default().name,
                namespace: metadata.namespace,
                labels: pod.labels,
                source: pod.annotations.get(CONFIG_SOURCE).cloned().unwrap_or_default(),
            }
        };
        Ok(running.into_iter().map(of_pod).collect())
    })
}

/// Those of these containers that do not run any more.
///
/// # Errors
/// If it does not answer.
pub fn ends(
    root: &HostRoot,
    socket: &str,
    before: &BTreeSet<String>,
    limit: Duration,
) -> Result<Vec<ContainerEnd>, CriError> {
    talk(root, socket, limit, async |mut cri| {
        cri.version().await?;
        let containers = cri.containers(None).await?;
        let runs = |container: &&m::Container| container.state == m::CONTAINER_RUNNING;
        let running: BTreeSet<String> = containers.iter().filter(runs).map(|container| container.id.clone()).collect();
        if before.is_subset(&running) {
            return Ok(Vec::new());
        }
        let pod_of: BTreeMap<&str, &str> =
            containers.iter().map(|container| (container.id.as_str(), container.pod_sandbox_id.as_str())).collect();
        let pods = cri.pods().await?;
        let is_ready = |pod: &str| pods.iter().any(|known| known.id == pod && known.state == m::SANDBOX_READY);
        let mut ends = Vec::new();
        for id in before.difference(&running) {
            ends.push(match pod_of.get(id.as_str()) {
                Some(pod) => ContainerEnd { has_sandbox: is_ready(pod), ..cri.end(id).await? },
                None => ContainerEnd::default(),
            });
        }
        Ok(ends)
    })
}

fn talk<T>(
    root: &HostRoot,
    socket: &str,
    limit: Duration,
    work: impl AsyncFnOnce(Cri<'_>) -> Result<T, CriError>,
) -> Result<T, CriError> {
    let connect_error = |source: io::Error| {
        let socket = socket.to_owned();
        if is_missing(&source) { CriError::NoSocket { socket } } else { CriError::Connect { socket, source } }
    };
    let conversation = async {
        let stream: UnixStream = connect(root, Path::new(socket)).await.map_err(connect_error)?;
        let failed = |source| CriError::Call { socket: socket.to_owned(), call: "the HTTP/2 handshake", source };
        let client = CriClient::open(stream).await.map_err(failed)?;
        work(Cri { client, socket, package: V1 }).await
    };
    converse(limit, conversation)
        .map_err(connect_error)?
        .unwrap_or_else(|| Err(CriError::TimedOut { socket: socket.to_owned(), limit }))
}

/// The kubelet's annotation of a pod that says where it has it from (pkg/kubelet/types/pod_update.go).
const CONFIG_SOURCE: &str = "kubernetes.io/config.source";

const V1: &str = "runtime.v1";
const V1ALPHA2: &str = "runtime.v1alpha2";

/// A conversation with a runtime.
struct Cri<'a> {
    client: CriClient,
    socket: &'a str,
    package: &'static str,
}

impl Cri<'_> {
    /// Asks for the version, and so learns which CRI the runtime speaks.
    async fn version(&mut self) -> Result<m::VersionResponse, CriError> {
        let request = m::VersionRequest { version: String::new() };
        for package in [V1, V1ALPHA2] {
            self.package = package;
            match self.call("RuntimeService", "Version", request.clone()).await {
                Err(CriError::Call { source, .. }) if source.is_unimplemented() => {}
                answer => return answer,
            }
        }
        Err(CriError::NotLoaded { socket: self.socket.to_owned() })
    }

    async fn look(&mut self) -> Result<CriStatus, CriError> {
        let version = self.version().await?;
        let answer: m::StatusResponse =
            self.call("RuntimeService", "Status", m::StatusRequest { verbose: false }).await?;
        let conditions = answer.status.unwrap_or_default().conditions;
        let image_service = self.call::<_, m::Empty>("ImageService", "ImageFsInfo", m::Empty {}).await;
        let running = self.containers(Some(m::CONTAINER_RUNNING)).await?;
        Ok(CriStatus {
            runtime: version.runtime_name,
            version: version.runtime_version,
            runtime_ready: condition(&conditions, "RuntimeReady"),
            network_ready: condition(&conditions, "NetworkReady"),
            image_service: match image_service {
                Ok(_) => Ok(()),
                Err(CriError::Call { source, .. }) => Err(source.to_string()),
                Err(error) => return Err(error),
            },
            running: running.into_iter().map(|container| container.id).collect(),
        })
    }

    /// The containers in this state; None: all.
    async fn containers(&mut self, state: Option<i32>) -> Result<Vec<m::Container>, CriError> {
        let filter = state.map(|state| m::ContainerFilter { state: Some(m::ContainerStateValue { state }) });
        let request = m::ListContainersRequest { filter };
        let answer: m::ListContainersResponse = self.call("RuntimeService", "ListContainers", request).await?;
        Ok(answer.containers)
    }

    async fn pods(&mut self) -> Result<Vec<m::PodSandbox>, CriError> {
        let answer: m::ListPodSandboxResponse = self.call("RuntimeService", "ListPodSandbox", m::Empty {}).await?;
        Ok(answer.items)
    }

    /// How a container has ended, as far as its own status tells. One of which the runtime tells nothing counts as removed.
    async fn end(&mut self, id: &str) -> Result<ContainerEnd, CriError> {
        let request = m::ContainerStatusRequest { container_id: id.to_owned() };
        match self.call::<_, m::ContainerStatusResponse>("RuntimeService", "ContainerStatus", request).await {
            Ok(answer) => {
                let m::ContainerStatus { state, exit_code, reason } = answer.status.unwrap_or_default();
                let is_unknown = state == m::CONTAINER_UNKNOWN;
                Ok(ContainerEnd { has_sandbox: false, is_unknown, exit_code, reason })
            }
            Err(CriError::Call { source, .. }) if source.is_answer() => Ok(ContainerEnd::default()),
            Err(error) => Err(error),
        }
    }

    async fn call<Q: prost::Message + 'static, A: prost::Message + Default + 'static>(
        &mut self,
        service: &'static str,
        method: &'static str,
        request: Q,
    ) -> Result<A, CriError> {
        let path = format!("/{}.{service}/{method}", self.package);
        let answer = self.client.call(&path, request).await;
        answer.map_err(|source| CriError::Call { socket: self.socket.to_owned(), call: method, source })
    }
}

/// Reads bytes as every answer that a runtime gives, for tests/fuzz: as a message of each kind, and as a refusal in words.
pub(crate) fn read_answers(message: &[u8]) {
    let (code, words) = message.split_at(message.len().min(2));
    let refusal = tonic::Status::new(tonic::Code::from_bytes(code), String::from_utf8_lossy(words));
    let _ = GrpcError::from(refusal).to_string();
    let status = decoded::<m::StatusResponse>(message).and_then(|answer| answer.status).unwrap_or_default();
    for kind in ["RuntimeReady", "NetworkReady"] {
        let _ = condition(&status.conditions, kind);
    }
    let _ = decoded::<m::VersionResponse>(message);
    let _ = decoded::<m::ListContainersResponse>(message);
    let _ = decoded::<m::PullImageResponse>(message);
    let _ = decoded::<m::ListImagesResponse>(message);
    let _ = decoded::<m::ListPodSandboxResponse>(message);
    let _ = decoded::<m::ContainerStatusResponse>(message);
}

fn decoded<A: prost::Message + Default>(bytes: &[u8]) -> Option<A> {
    A::decode(bytes).ok()
}

fn condition(conditions: &[m::RuntimeCondition], kind: &str) -> Result<(), String> {
    match conditions.iter().find(|condition| condition.kind == kind) {
        Some(condition) if condition.status => Ok(()),
        Some(m::RuntimeCondition { reason, message, .. }) if message.is_empty() => Err(reason.clone()),
        Some(m::RuntimeCondition { reason, message, .. }) if reason.is_empty() => Err(message.clone()),
        Some(m::RuntimeCondition { reason, message, .. }) => Err(format!("{reason}: {message}")),
        None => Err("the runtime does not say".to_owned()),
    }
}

#[cfg(test)]
mod tests;
