//! The Docker engine, over its socket: whether its containers would live through a restart.

use std::{io, path::Path, time::Duration};

use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, body::Bytes, client::conn::http1, header::HOST};
use hyper_util::rt::TokioIo;
use serde::Deserialize;

use crate::host::{
    root::{HostRoot, is_missing},
    socket::{connect, converse},
};

/// Its socket on the host.
pub const SOCKET: &str = "/run/docker.sock";

/// Bytes of an answer, which has some kilobytes.
const MAX_ANSWER: usize = 4 << 20;

/// What the engine says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Info {
    /// Its version.
    pub server_version: String,
    /// Whether containers live on while the engine is away. Without it, a restart ends them all (facts C.4).
    #[serde(default)]
    pub live_restore_enabled: bool,
}

/// Why the engine could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum DockerError {
    /// No way to it.
    #[error("the host has no {SOCKET}")]
    NoSocket,
    /// It could not be connected to, or the conversation broke.
    #[error("failed to connect to {SOCKET}")]
    Connect(#[source] io::Error),
    /// The conversation broke.
    #[error("failed to ask {SOCKET}")]
    Http(#[from] hyper::Error),
    /// An answer that is none of the engine's.
    #[error("{SOCKET} gave an answer that cannot be used: {0}")]
    Answer(String),
    /// No answer.
    #[error("{SOCKET} had not answered after {} s", limit.as_secs_f32())]
    TimedOut {
        /// How long it was waited for.
        limit: Duration,
    },
}

impl DockerError {
    /// What to do about it.
    pub fn next(&self) -> &'static str {
        match self {
            Self::NoSocket => {
                "look whether docker.socket and docker.service run, and that the host's /run is mounted with the host's /"
            }
            Self::Connect(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                "run as uid 0; SELinux: with type spc_t; AppArmor: unconfined"
            }
            Self::Connect(_) | Self::Http(_) | Self::Answer(_) | Self::TimedOut { .. } => {
                "look at `docker info` and the journal of docker.service on the host"
            }
        }
    }
}

/// Asks the engine of the host.
///
/// # Errors
/// If it does not answer.
pub fn info(root: &HostRoot, limit: Duration) -> Result<Info, DockerError> {
    let answer = converse(limit, ask(root)).map_err(DockerError::Connect)?;
    answer.unwrap_or(Err(DockerError::TimedOut { limit }))
}

async fn ask(root: &HostRoot) -> Result<Info, DockerError> {
    let stream = connect(root, Path::new(SOCKET))
        .await
        .map_err(|error| if is_missing(&error) { DockerError::NoSocket } else { DockerError::Connect(error) })?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // how it ends is seen by the request
    tokio::spawn(connection);
    let request = Request::get("/info")
        .header(HOST, "docker")
        .body(Empty::<Bytes>::new())
        .map_err(|error| DockerError::Answer(error.to_string()))?;
    let answer = sender.send_request(request).await?;
    if !answer.status().is_success() {
        return Err(DockerError::Answer(format!("HTTP status {}", answer.status())));
    }
    let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
    let bytes = body.map_err(|error| DockerError::Answer(error.to_string()))?.to_bytes();
    serde_json::from_slice(&bytes).map_err(|error| DockerError::Answer(error.to_string()))
}
