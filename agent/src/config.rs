//! The configuration: a YAML file becomes [`Settings`], or an error that names file, line, field and the expected form.
//!
//! Two layers: [`Raw`] is the file as it is written (contract: unknown fields are errors); [`Settings`] is what the rest of the
//! program sees, with nothing left to check.

mod forms;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::Duration,
};

use nodetrust_core::{
    fingerprint::Fingerprint,
    node::Taint,
    policy::{EmptySource, NotCa, OnRejection, Policy},
    runtime::rule,
    store::Family,
};
use serde::Deserialize;
use serde_saphyr::Spanned;

use crate::probe::{Every, MAX_PROBES};

use forms::{
    AbsolutePath, Address, EmptySourceWord, FamilyWord, FurtherUnit, HostFile, LongSpan, NotCaWord, OnChange,
    OnRejectionWord, ProbeProxy, ProbeTarget, RemovalGate, RuntimeWord, Share, SourceName, Span, StartupTaint, Switch,
    UnitName, VerdictWord, WhenUnavailable,
};

/// Where the configuration is looked for.
pub const DEFAULT_PATH: &str = "/etc/nodetrust/config.yaml";

/// How often a target is probed unless it is said.
const PROBE_INTERVAL: Duration = Duration::from_secs(300);

/// Largest configuration file, in bytes.
const LIMIT: u64 = 4 << 20;

/// A configuration that can be followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Where CAs come from.
    pub sources: Vec<Source>,
    /// What may become an anchor, and how long one stays.
    pub policy: Policy,
    /// The container runtime, and what may be done about it.
    pub runtime: rule::Policy,
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
    /// Servers to ask again and again.
    pub probes: Vec<Every>,
    /// What the cluster is told.
    pub kubernetes: Kubernetes,
    /// Where on the host the bundle for pods is kept.
    pub export: Option<String>,
    /// Fields that are set and have no effect in this version.
    pub without_effect: Vec<&'static str>,
}

/// One source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Its name.
    pub name: String,
    /// Where its certificates are.
    pub from: From,
    /// A missing path is expected.
    pub optional: bool,
}

/// Where a source's certificates are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum From {
    /// A file or directory in our own view, such as a mounted volume.
    Path(PathBuf),
    /// In the configuration itself.
    Inline(String),
}

/// The HTTP server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http {
    /// Address and port.
    pub address: std::net::SocketAddr,
    /// Certificate and key files, for HTTPS.
    pub tls: Option<(PathBuf, PathBuf)>,
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

/// A configuration that cannot be followed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{path}: {text}")]
pub struct ConfigError {
    path: String,
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
            runtime: rule::Policy::default(),
            family: None,
            extract_timeout: Duration::from_secs(60),
            resync: Duration::from_secs(300),
            settle: Duration::from_secs(2),
            http: Http { address: std::net::SocketAddr::from(([0, 0, 0, 0], 9643)), tls: None },
            probes: Vec::new(),
            kubernetes: Kubernetes::default(),
            export: None,
            without_effect: Vec::new(),
        }
    }
}

impl Settings {
    /// Reads and checks a configuration file that a node is to follow: with at least one source, since a file that was cut
    /// short must not let every anchor go.
    ///
    /// # Errors
    /// If it cannot be read, is no YAML, has an unknown field, a value out of form, or no source.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let settings = Self::read_rules(path)?;
        if settings.sources.is_empty() {
            let text = "sources: want at least one source".to_owned();
            return Err(ConfigError { path: path.display().to_string(), text, missing: false });
        }
        Ok(settings)
    }

    /// Reads and checks a configuration file for its rules only.
    ///
    /// # Errors
    /// As [`Settings::read`], but for the sources.
    pub fn read_rules(path: &Path) -> Result<Self, ConfigError> {
        let error = |text: String, missing| ConfigError { path: path.display().to_string(), text, missing };
        let file = nix::fcntl::open(
            path,
            nix::fcntl::OFlag::O_RDONLY | nix::fcntl::OFlag::O_NONBLOCK | nix::fcntl::OFlag::O_CLOEXEC,
            nix::sys::stat::Mode::empty(),
        );
        let bytes = file.map_err(std::io::Error::from).and_then(|file| crate::host::root::read_regular(file, LIMIT));
        let bytes =
            bytes.map_err(|e| error(format!("cannot be read: {e}"), e.kind() == std::io::ErrorKind::NotFound))?;
        let text = String::from_utf8(bytes).map_err(|_| error("is no UTF-8 text".into(), false))?;
        Self::parse(&text).map_err(|text| error(text, false))
    }

    /// Checks a configuration's text.
    ///
    /// # Errors
    /// A sentence with line, field and the expected form.
    pub fn parse(text: &str) -> Result<Self, String> {
        // an empty file is an empty configuration, not a null
        let text = if text.trim().is_empty() { "{}" } else { text };
        let mut options = serde_saphyr::Options::default();
        options.with_snippet = false; // a configuration may hold what should not be quoted
        let mut field = String::new();
        let raw: Raw = serde_saphyr::with_deserializer_from_str_with_options(text, options, |deserializer| {
            serde_path_to_error::deserialize(deserializer).map_err(|error| {
                field = error.path().to_string();
                error.into_inner()
            })
        })
        .map_err(|error| match field.as_str() {
            // "." is the document itself; what cannot be parsed at all has no field
            "" | "." => without_values(&error.to_string()),
            field if field.chars().count() > SHOWN => without_values(&error.to_string()),
            field => format!("{field}: {}", without_values(&error.to_string())),
        })?;
        raw.check().map_err(|error| without_values(&error))
    }
}

/// Values in an error's text that are longer than this are not shown.
const SHOWN: usize = 48;

/// An error's text without long or many-line values: somebody may have put a key where it does not belong.
fn without_values(text: &str) -> String {
    let mut out = String::new();
    for (number, part) in text.split('`').enumerate() {
        match (number, number % 2) {
            (0, _) => out.push_str(&without_quoted(part)),
            (_, 1) if part.chars().count() > SHOWN || part.contains(['\n', '\r']) || part.contains("-----") => {
                out.push_str("`(a long value, not shown)");
            }
            (_, 1) => out.extend(["`", part]),
            _ => out.extend(["`", &without_quoted(part)]),
        }
    }
    out
}

/// The same for values in double quotes, which reach to the last quote of the text.
fn without_quoted(text: &str) -> String {
    match (text.find('"'), text.rfind('"')) {
        (Some(first), Some(last)) if last - first > SHOWN => {
            format!("{}\"(a long value, not shown){}", &text[..first], &text[last..])
        }
        _ if text.contains("-----") => "(a long value, not shown)".to_owned(),
        _ => text.to_owned(),
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Raw {
    sources: Vec<RawSource>,
    policy: RawPolicy,
    rotation: RawRotation,
    store: RawStore,
    runtime: RawRuntime,
    fleet: RawFleet,
    probes: Vec<RawProbe>,
    resync: Option<LongSpan>,
    settle: Option<Span>,
    http: RawHttp,
    kubernetes: RawKubernetes,
    export: RawExport,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawSource {
    name: Spanned<SourceName>,
    path: Option<AbsolutePath>,
    inline: Option<String>,
    #[serde(default)]
    optional: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct RawPolicy {
    on_rejection: Option<OnRejectionWord>,
    not_ca: Option<NotCaWord>,
    expired: Option<VerdictWord>,
    weak: Option<VerdictWord>,
    allowed_fingerprints: BTreeSet<Fingerprint>,
    denied_fingerprints: BTreeSet<Fingerprint>,
    empty_source: Option<EmptySourceWord>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct RawRotation {
    removal_grace: Option<Span>,
    removal_gate: Option<RemovalGate>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct RawStore {
    family: FamilyWord,
    extract_timeout: Option<LongSpan>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct RawRuntime {
    kind: RuntimeWord,
    unit: Option<UnitName>,
    on_change: Option<OnChange>,
    also_restart: Vec<FurtherUnit>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct RawFleet {
    max_concurrent_restarts: Option<Share>,
    window: Option<RawWindow>,
    halt_on_failure: Option<bool>,
    when_api_unavailable: Option<WhenUnavailable>,
    api_timeout: Option<Span>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct RawWindow {
    days: Vec<String>,
    start: String,
    end: String,
    time_zone: String,
}

impl RawWindow {
    /// As it is by default: it excludes no time.
    fn is_always(&self) -> bool {
        let Self { days, start, end, time_zone } = self;
        days.is_empty() && start.is_empty() && end.is_empty() && matches!(time_zone.as_str(), "" | "UTC")
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawProbe {
    target: Spanned<ProbeTarget>,
    interval: Option<LongSpan>,
    via_proxy: Option<ProbeProxy>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct RawHttp {
    address: Option<Address>,
    tls: Option<Spanned<RawTls>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct RawTls {
    cert_file: PathBuf,
    key_file: PathBuf,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct RawKubernetes {
    enabled: Option<Switch>,
    condition: Option<bool>,
    annotations: Option<bool>,
    events: Option<bool>,
    startup_taint: StartupTaint,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct RawExport {
    bundle: HostFile,
}

impl Raw {
    fn check(self) -> Result<Settings, String> {
        let without_effect = self.without_effect();
        let mut names = BTreeSet::new();
        let mut sources = Vec::with_capacity(self.sources.len());
        for (index, source) in self.sources.into_iter().enumerate() {
            let line = source.name.referenced.line();
            let SourceName(name) = source.name.value;
            let field = format!("sources[{index}]");
            if !names.insert(name.clone()) {
                return Err(format!("{field}.name: `{name}` is taken; names must be unique at line {line}"));
            }
            let from = match (source.path, source.inline) {
                (Some(AbsolutePath(path)), None) => From::Path(path),
                (None, Some(text)) => From::Inline(text),
                _ => return Err(format!("{field}: `{name}` wants exactly one of `path` and `inline` at line {line}")),
            };
            sources.push(Source { name, from, optional: source.optional });
        }
        let defaults = Policy::default();
        let span = |span: Option<Span>, default| span.map_or(default, |Span(span)| span);
        let grace = span(self.rotation.removal_grace, Duration::from_secs(defaults.removal_grace));
        let policy = Policy {
            on_rejection: self.policy.on_rejection.map_or(defaults.on_rejection, |word| match word {
                OnRejectionWord::Skip => OnRejection::Skip,
                OnRejectionWord::Hold => OnRejection::Hold,
            }),
            not_ca: self.policy.not_ca.map_or(defaults.not_ca, |word| match word {
                NotCaWord::Auto => NotCa::Auto,
                NotCaWord::Accept => NotCa::Accept,
                NotCaWord::Reject => NotCa::Reject,
            }),
            expired: self.policy.expired.map_or(defaults.expired, VerdictWord::verdict),
            weak: self.policy.weak.map_or(defaults.weak, VerdictWord::verdict),
            allowed: self.policy.allowed_fingerprints,
            denied: self.policy.denied_fingerprints,
            empty_source: self.policy.empty_source.map_or(defaults.empty_source, |word| match word {
                EmptySourceWord::Hold => EmptySource::Hold,
                EmptySourceWord::Remove => EmptySource::Remove,
            }),
            // the ledger counts whole seconds; rounding up keeps an anchor rather longer than shorter
            removal_grace: grace.as_secs() + u64::from(grace.subsec_nanos() > 0),
        };
        let usual = Settings::default();
        let long_span = |span: Option<LongSpan>, default| span.map_or(default, |LongSpan(span)| span);
        let resync = long_span(self.resync, usual.resync);
        let settle = span(self.settle, usual.settle);
        if settle > Duration::from_secs(60) || settle > resync {
            return Err("settle: want at most 1m, and no more than `resync`".into());
        }
        let tls = match self.http.tls {
            None => None,
            Some(tls) => match (tls.value.cert_file, tls.value.key_file) {
                (cert, key) if cert.as_os_str().is_empty() && key.as_os_str().is_empty() => None,
                (cert, key) if !cert.as_os_str().is_empty() && !key.as_os_str().is_empty() => Some((cert, key)),
                _ => {
                    let line = tls.referenced.line();
                    return Err(format!("http.tls: want both `certFile` and `keyFile`, or neither at line {line}"));
                }
            },
        };
        if self.probes.len() > MAX_PROBES {
            return Err(format!("probes: want at most {MAX_PROBES}, not {}", self.probes.len()));
        }
        let mut probes: Vec<Every> = Vec::with_capacity(self.probes.len());
        for (index, probe) in self.probes.into_iter().enumerate() {
            let line = probe.target.referenced.line();
            let ProbeTarget(target) = probe.target.value;
            if probes.iter().any(|known| known.target.text() == target.text()) {
                return Err(format!(
                    "probes[{index}].target: `{}` is taken; targets must be unique at line {line}",
                    target.text()
                ));
            }
            let interval = long_span(probe.interval, PROBE_INTERVAL);
            probes.push(Every { target, interval, proxy: probe.via_proxy.map(|ProbeProxy(proxy)| proxy) });
        }
        Ok(Settings {
            sources,
            policy,
            runtime: self.runtime.check(),
            family: self.store.family.0,
            extract_timeout: long_span(self.store.extract_timeout, usual.extract_timeout),
            resync,
            settle,
            http: Http { address: self.http.address.map_or(usual.http.address, |Address(address)| address), tls },
            probes,
            kubernetes: self.kubernetes.check(),
            export: self.export.bundle.0,
            without_effect,
        })
    }

    /// Fields that a later version follows, where they ask for something else than their default. Accepting them silently would
    /// be a lie.
    fn without_effect(&self) -> Vec<&'static str> {
        let fleet = &self.fleet;
        let fleet_set = !matches!(fleet.max_concurrent_restarts, None | Some(Share::Nodes(1)))
            || fleet.window.as_ref().is_some_and(|window| !window.is_always())
            || fleet.halt_on_failure == Some(false)
            || fleet.when_api_unavailable == Some(WhenUnavailable::Proceed)
            || fleet.api_timeout.is_some();
        let kubernetes = &self.kubernetes;
        let kubernetes_set =
            matches!(kubernetes.enabled, Some(Switch(Some(true)))) || kubernetes.startup_taint.0.is_some();
        [
            (fleet_set, "fleet"),
            (kubernetes_set && cfg!(not(feature = "kubernetes")), "kubernetes"),
            (self.rotation.removal_gate == Some(RemovalGate::Fleet), "rotation.removalGate"),
        ]
        .into_iter()
        .filter_map(|(set, name)| set.then_some(name))
        .collect()
    }
}

impl RawKubernetes {
    fn check(self) -> Kubernetes {
        let usual = Kubernetes::default();
        Kubernetes {
            enabled: self.enabled.map_or(usual.enabled, |Switch(enabled)| enabled),
            condition: self.condition.unwrap_or(usual.condition),
            annotations: self.annotations.unwrap_or(usual.annotations),
            events: self.events.unwrap_or(usual.events),
            startup_taint: self.startup_taint.0,
        }
    }
}

impl RawRuntime {
    fn check(self) -> rule::Policy {
        rule::Policy {
            ignored: self.kind == RuntimeWord::None,
            kind: match self.kind {
                RuntimeWord::Auto | RuntimeWord::None => None,
                RuntimeWord::Kind(kind) => Some(kind),
            },
            unit: self.unit.map(|UnitName(unit)| unit).filter(|unit| !unit.is_empty()),
            on_change: match self.on_change.unwrap_or(OnChange::Auto) {
                OnChange::Auto => rule::OnChange::Auto,
                OnChange::Restart => rule::OnChange::Restart,
                OnChange::Report => rule::OnChange::Report,
                OnChange::Never => rule::OnChange::Never,
            },
            also: self.also_restart.into_iter().map(|FurtherUnit(unit)| unit).collect(),
        }
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
