//! The Docker engine, over its socket: whether its containers would live through a restart, and its pulls.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::Path,
    time::Duration,
};

use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Method, Request, StatusCode, body::Bytes, client::conn::http1, header::HOST};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, de::DeserializeOwned};

use crate::{
    host::{
        file::is_missing,
        root::HostRoot,
        socket::{connect, converse},
    },
    query::query_value,
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
    /// Its registries, as the process knows them.
    #[serde(default)]
    pub registry_config: RegistryConfig,
}

/// What the engine knows of registries. What it does not name, it asks by TLS that it verifies.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct RegistryConfig {
    /// By name.
    index_configs: BTreeMap<String, IndexConfig>,
    /// Networks whose registries need not be secure; by default the node itself.
    #[serde(rename = "InsecureRegistryCIDRs")]
    insecure_networks: Option<BTreeSet<String>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct IndexConfig {
    secure: bool,
    #[serde(default)]
    mirrors: Option<Vec<String>>,
}

impl RegistryConfig {
    /// Whether a registry must be secure. In doubt it need not be: an address may lie in one of the networks.
    pub fn is_secure(&self, name: &str) -> bool {
        const USUAL: [&str; 2] = ["127.0.0.0/8", "::1/128"];
        let others = self.insecure_networks.iter().flatten().any(|network| !USUAL.contains(&network.as_str()));
        !others && self.index_configs.get(name).is_none_or(|index| index.secure)
    }

    /// Whether it is asked by way of mirrors.
    pub fn has_mirrors(&self, name: &str) -> bool {
        let mirrors = self.index_configs.get(name).and_then(|index| index.mirrors.as_ref());
        mirrors.is_some_and(|mirrors| !mirrors.is_empty())
    }
}

/// How a pull ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pull {
    /// The image is there.
    Done,
    /// The engine's own message.
    Failed(String),
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
    let (status, bytes) = ask(root, Method::GET, "/info", limit)?;
    if status.is_success() { read(&bytes) } else { Err(DockerError::Answer(format!("HTTP status {status}"))) }
}

/// The references of the images on the node: tags and digests.
///
/// # Errors
/// If it does not answer.
pub fn images(root: &HostRoot, limit: Duration) -> Result<Vec<String>, DockerError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct ImageNames {
        #[serde(default)]
        repo_tags: Option<Vec<String>>,
        #[serde(default)]
        repo_digests: Option<Vec<String>>,
    }
    let (status, bytes) = ask(root, Method::GET, "/images/json", limit)?;
    if !status.is_success() {
        return Err(DockerError::Answer(format!("HTTP status {status}")));
    }
    let images: Vec<ImageNames> = read(&bytes)?;
    Ok(images.into_iter().flat_map(|image| image.repo_tags.into_iter().chain(image.repo_digests)).flatten().collect())
}

/// Pulls an image without credentials.
///
/// # Errors
/// If it does not answer.
pub fn pull(root: &HostRoot, image: &str, limit: Duration) -> Result<Pull, DockerError> {
    let path = format!("/images/create?fromImage={}", query_value(image));
    let (status, bytes) = ask(root, Method::POST, &path, limit)?;
    Ok(read_pull(status, &bytes))
}

/// An error that the engine meets at once has a status; later it is the last of the lines in which it tells how far it is.
fn read_pull(status: StatusCode, bytes: &[u8]) -> Pull {
    #[derive(Deserialize)]
    struct Progress {
        message: Option<String>,
        error: Option<String>,
    }
    let mut lines = serde_json::Deserializer::from_slice(bytes).into_iter::<Progress>().map_while(Result::ok);
    match lines.find_map(|line| line.error.or(line.message)) {
        Some(message) => Pull::Failed(message),
        None if status.is_success() => Pull::Done,
        None => Pull::Failed(format!("HTTP status {status}")),
    }
}

fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DockerError> {
    serde_json::from_slice(bytes).map_err(|error| DockerError::Answer(error.to_string()))
}

fn ask(root: &HostRoot, method: Method, path: &str, limit: Duration) -> Result<(StatusCode, Bytes), DockerError> {
    let answer = converse(limit, conversation(root, method, path)).map_err(DockerError::Connect)?;
    answer.unwrap_or(Err(DockerError::TimedOut { limit }))
}

async fn conversation(root: &HostRoot, method: Method, path: &str) -> Result<(StatusCode, Bytes), DockerError> {
    let stream = connect(root, Path::new(SOCKET))
        .await
        .map_err(|error| if is_missing(&error) { DockerError::NoSocket } else { DockerError::Connect(error) })?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // how it ends is seen by the request
    tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, "docker")
        .body(Empty::<Bytes>::new())
        .map_err(|error| DockerError::Answer(error.to_string()))?;
    let answer = sender.send_request(request).await?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
    Ok((status, body.map_err(|error| DockerError::Answer(error.to_string()))?.to_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_pull_is_found_in_both_forms() {
        let failed = |text: &str| Pull::Failed(text.to_owned());
        let refused = br#"{"message":"Get \"https://a/v2/\": x509: certificate signed by unknown authority"}"#;
        let expected = failed("Get \"https://a/v2/\": x509: certificate signed by unknown authority");
        assert_eq!(read_pull(StatusCode::INTERNAL_SERVER_ERROR, refused), expected);
        let lines = b"{\"status\":\"Pulling from x\"}\r\n{\"errorDetail\":{\"message\":\"no\"},\"error\":\"no\"}\r\n";
        assert_eq!(read_pull(StatusCode::OK, lines), failed("no"));
        assert_eq!(read_pull(StatusCode::OK, b"{\"status\":\"Pulling from x\"}\n"), Pull::Done);
        assert_eq!(read_pull(StatusCode::BAD_GATEWAY, b"<html>"), failed("HTTP status 502 Bad Gateway"));
    }

    #[test]
    fn a_registry_is_secure_unless_the_engine_says_something_else() {
        let text = r#"{"ServerVersion":"20.10.24","RegistryConfig":{"InsecureRegistryCIDRs":["127.0.0.0/8"],"IndexConfigs":{
            "docker.io":{"Name":"docker.io","Mirrors":["https://m/"],"Secure":true,"Official":true},
            "a:5000":{"Name":"a:5000","Mirrors":[],"Secure":false,"Official":false}}}}"#;
        let config = read::<Info>(text.as_bytes()).unwrap().registry_config;
        assert!(config.is_secure("b:5000") && !config.is_secure("a:5000") && config.has_mirrors("docker.io"));
        assert!(!config.has_mirrors("a:5000") && !config.has_mirrors("b:5000"));
        let other = read::<Info>(text.replace("127.0.0.0/8", "10.0.0.0/8").as_bytes()).unwrap().registry_config;
        assert!(!other.is_secure("b:5000"));
        assert!(read::<Info>(br#"{"ServerVersion":"1"}"#).unwrap().registry_config.is_secure("b"));
    }
}
