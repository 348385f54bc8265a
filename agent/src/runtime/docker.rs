//! The Docker engine, over its socket: whether its containers would live through a restart, and its pulls.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use hyper::{Method, StatusCode};
use serde::{Deserialize, de::DeserializeOwned};

use crate::{
    host::{
        http::{HttpError, HttpService},
        root::HostRoot,
    },
    query::query_value,
};

/// Its socket on the host.
pub const SOCKET: &str = "/run/docker.sock";

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

/// Asks the engine of the host.
///
/// # Errors
/// If it does not answer.
pub fn info(root: &HostRoot, limit: Duration) -> Result<Info, HttpError> {
    let engine = HttpService { root, socket: SOCKET, limit };
    let (status, bytes) = engine.ask(Method::GET, "/info", None)?;
    if status.is_success() { read(&engine, &bytes) } else { Err(engine.unusable(format!("HTTP status {status}"))) }
}

/// The references of the images on the node: tags and digests.
///
/// # Errors
/// If it does not answer.
pub fn images(root: &HostRoot, limit: Duration) -> Result<Vec<String>, HttpError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct ImageNames {
        #[serde(default)]
        repo_tags: Option<Vec<String>>,
        #[serde(default)]
        repo_digests: Option<Vec<String>>,
    }
    let engine = HttpService { root, socket: SOCKET, limit };
    let (status, bytes) = engine.ask(Method::GET, "/images/json", None)?;
    if !status.is_success() {
        return Err(engine.unusable(format!("HTTP status {status}")));
    }
    let images: Vec<ImageNames> = read(&engine, &bytes)?;
    Ok(images.into_iter().flat_map(|image| image.repo_tags.into_iter().chain(image.repo_digests)).flatten().collect())
}

/// Pulls an image without credentials.
///
/// # Errors
/// If it does not answer.
pub fn pull(root: &HostRoot, image: &str, limit: Duration) -> Result<Pull, HttpError> {
    let path = format!("/images/create?fromImage={}", query_value(image));
    let (status, bytes) = HttpService { root, socket: SOCKET, limit }.ask(Method::POST, &path, None)?;
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

fn read<T: DeserializeOwned>(engine: &HttpService<'_>, bytes: &[u8]) -> Result<T, HttpError> {
    serde_json::from_slice(bytes).map_err(|error| engine.unusable(error.to_string()))
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
        let config = serde_json::from_str::<Info>(text).unwrap().registry_config;
        assert!(config.is_secure("b:5000") && !config.is_secure("a:5000") && config.has_mirrors("docker.io"));
        assert!(!config.has_mirrors("a:5000") && !config.has_mirrors("b:5000"));
        let other = serde_json::from_str::<Info>(&text.replace("127.0.0.0/8", "10.0.0.0/8")).unwrap().registry_config;
        assert!(!other.is_secure("b:5000"));
        assert!(serde_json::from_str::<Info>(r#"{"ServerVersion":"1"}"#).unwrap().registry_config.is_secure("b"));
    }
}
