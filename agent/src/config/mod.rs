//! The configuration. [`Settings`] is what the rest of the program sees: complete, with nothing left to check.
//!
//! `raw` is the file as it is written; unknown fields are errors. `values` has the form of each value, `lists` that of lists, `words` those of errors. `read` makes settings of a
//! file, or an error that names file, line, field and the expected form.

mod lists;
mod raw;
mod read;
mod values;
mod words;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use nodetrust_core::{
    fleet::{gate::ApiOutage, limit::RestartLimit, selector::NodeSelector, window::RestartWindow},
    node_status::Taint,
    pod_bundle::ExportPaths,
    probe::{Proxy, Target, Through},
    runtime::{registry::Registry, settings::RuntimeSettings},
    source::policy::Policy,
    store::Family,
};

use tracing::level_filters::LevelFilter;

/// Where the configuration is looked for.
pub const DEFAULT_PATH: &str = "/etc/nodetrust/config.yaml";

/// Where the fleet's approvals of removals are mounted.
pub const APPROVALS_DIRECTORY: &str = "/etc/nodetrust/approvals";

/// Most probes that a configuration may have.
pub const MAX_PROBES: usize = 32;

/// A configuration that can be followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Where CAs come from.
    pub sources: Vec<Source>,
    /// What may become an anchor, and how long one stays.
    pub policy: Policy,
    /// The container runtime, and what may be done about it.
    pub runtime: RuntimeSettings,
    /// Registries that the container runtime is asked about.
    pub witness: WitnessRegistries,
    /// The trust store, None to detect it.
    pub family: Option<Family>,
    /// How long the store's tool may run.
    pub extract_timeout: Duration,
    /// Time between two full cycles when nothing happens.
    pub resync: Duration,
    /// How long a source must be unchanged before it counts.
    pub settle: Duration,
    /// Where HTTP is served.
    pub http: Http,
    /// Servers that are probed periodically.
    pub probes: Vec<ProbeSettings>,
    /// What the cluster is told.
    pub kubernetes: Kubernetes,
    /// The files for pods: their paths on the host, in the directory of exported files.
    pub export: ExportPaths,
    /// The log of the agent.
    pub log: LogSettings,
    /// How this node takes turns with others; None if it asks nobody.
    pub fleet: Option<FleetSettings>,
    /// Directory of the fleet's approvals in our own view; None for whoever cannot see it.
    pub approvals: Option<PathBuf>,
    /// Fields that are set and have no effect: in this build, or by what stands elsewhere in the configuration.
    pub without_effect: Vec<&'static str>,
}

/// One source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Its name.
    pub name: String,
    /// Where its certificates are.
    pub from: SourceLocation,
    /// A missing path is expected.
    pub optional: bool,
}

/// Where a source's certificates are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceLocation {
    /// A file or directory in our own view, such as a mounted volume.
    Path(PathBuf),
    /// In the configuration itself.
    Inline(String),
}

/// Which registries the container runtime is asked about, beside the probes that go through it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum WitnessRegistries {
    /// Those of the node's images whose certificate ends in an anchor of ours.
    #[default]
    OfImages,
    /// The runtime is not asked.
    None,
    /// The registries that are named.
    These(Vec<Registry>),
}

/// A probe that is repeated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeSettings {
    /// The server.
    pub target: Target,
    /// Who is asked whether it trusts the server.
    pub through: Through,
    /// Time between two probes.
    pub interval: Duration,
    /// The proxy on the way to the server.
    pub proxy: Option<Proxy>,
}

/// The HTTP server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http {
    /// Address and port; `[::]` is every address, of IPv4 too.
    pub address: std::net::SocketAddr,
    /// For HTTPS.
    pub tls: Option<TlsFiles>,
}

/// The files for HTTPS, in our own view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, with its chain.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// CAs of clients; None if clients need no certificate.
    pub client_ca: Option<PathBuf>,
}

impl TlsFiles {
    /// Each of them.
    pub fn all(&self) -> impl Iterator<Item = &Path> {
        [&self.cert, &self.key].into_iter().chain(&self.client_ca).map(PathBuf::as_path)
    }
}

/// What the cluster is told of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kubernetes {
    /// Whether at all; None if there is a service account.
    pub enabled: Option<bool>,
    /// The Node's condition.
    pub condition: bool,
    /// The Node's annotation.
    pub annotations: bool,
    /// Events on the Node.
    pub events: bool,
    /// A taint that goes when the node trusts what it should.
    pub startup_taint: Option<Taint>,
}

/// How nodes take turns with their restarts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FleetSettings {
    /// How many may restart at once.
    pub limit: RestartLimit,
    /// What happens while the API server cannot be reached for `api_timeout`.
    pub outage: ApiOutage,
    /// How long the API server may be out of reach before that counts.
    pub api_timeout: Duration,
    /// How long a node may take until it is healthy after its restart.
    pub healthy_within: Duration,
    /// Whether a node that is not healthy after its restart stops the others.
    pub halt_on_failure: bool,
    /// The Nodes that go first; empty for none.
    pub canary: NodeSelector,
    /// How long they must have been healthy before the others follow.
    pub canary_soak: Duration,
    /// When restarts may begin; None for at any time.
    pub window: Option<RestartWindow>,
}

impl Default for FleetSettings {
    fn default() -> Self {
        Self {
            limit: RestartLimit::Nodes(1),
            outage: ApiOutage::Wait,
            api_timeout: Duration::from_secs(3600),
            healthy_within: Duration::from_secs(300),
            halt_on_failure: true,
            canary: NodeSelector::default(),
            canary_soak: Duration::from_secs(600),
            window: None,
        }
    }
}

/// The log of the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogSettings {
    /// From which level on lines are written.
    pub level: LevelFilter,
    /// The form of a line.
    pub format: LogFormat,
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// JSON where stderr is no terminal, else text.
    #[default]
    Auto,
    /// For log collectors: one JSON object on each line.
    Json,
    /// For people.
    Text,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { level: LevelFilter::INFO, format: LogFormat::Auto }
    }
}

/// A configuration that cannot be followed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{path}: {text}")]
pub struct ConfigError {
    /// The file.
    path: String,
    /// What is wrong with it.
    text: String,
    /// The file does not exist.
    pub missing: bool,
}

impl Default for Kubernetes {
    fn default() -> Self {
        Self { enabled: None, condition: true, annotations: true, events: true, startup_taint: None }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            sources: Vec::new(),
            policy: Policy::default(),
            runtime: RuntimeSettings::default(),
            witness: WitnessRegistries::default(),
            family: None,
            extract_timeout: Duration::from_secs(60),
            resync: Duration::from_secs(300),
            settle: Duration::from_secs(2),
            http: Http { address: (std::net::Ipv6Addr::UNSPECIFIED, 9643).into(), tls: None },
            probes: Vec::new(),
            kubernetes: Kubernetes::default(),
            export: ExportPaths::new(),
            log: LogSettings::default(),
            fleet: None,
            approvals: Some(APPROVALS_DIRECTORY.into()),
            without_effect: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests;
