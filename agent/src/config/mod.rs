//! The configuration: a YAML file becomes [`Settings`], or an error that names file, line, field and the expected form.
//!
//! Two layers: [`Raw`] is the file as it is written (contract: unknown fields are errors); [`Settings`] is what the rest of the
//! program sees, with nothing left to check.

mod places;
mod values;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::Duration,
};

use nodetrust_core::{
    certificate::{fingerprint::Fingerprint, name::visible},
    node_status::Taint,
    probe::Through,
    runtime::settings::{self, RuntimeSettings},
    source::policy::{Acceptance, EmptySource, NotCa, OnRejection, Policy, Unproven},
    store::Family,
};
use serde::Deserialize;

use crate::{
    probe::{Every, MAX_PROBES},
    runtime::witness::Registries,
};

use values::{
    AbsolutePath, Address, ExportName, FamilyWord, FurtherUnit, Given, LongSpan, Needed, ProbeProxy, ProbeTarget,
    RemovalGate, RuntimeWord, Share, SourceName, Span, StartupTaint, UnitName, WhenUnavailable, WitnessChoice, Word,
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
    pub runtime: RuntimeSettings,
    /// Registries that the container runtime is asked about.
    pub witness: Registries,
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
    /// Where on the host the bundle for pods is kept: in the directory of exported bundles.
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
            runtime: RuntimeSettings::default(),
            witness: Registries::default(),
            family: None,
            extract_timeout: Duration::from_secs(60),
            resync: Duration::from_secs(300),
            settle: Duration::from_secs(2),
            http: Http { address: (std::net::Ipv6Addr::UNSPECIFIED, 9643).into(), tls: None },
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
        Self::read_as(path, Ways::Present)
    }

    /// The same for a file that may have been written for an earlier version, which took a path in `export.bundle`.
    ///
    /// # Errors
    /// As [`Settings::read_rules`].
    pub fn read_earlier_rules(path: &Path) -> Result<Self, ConfigError> {
        Self::read_as(path, Ways::Earlier)
    }

    fn read_as(path: &Path, ways: Ways) -> Result<Self, ConfigError> {
        let error = |text: String, missing| ConfigError { path: path.display().to_string(), text, missing };
        let bytes = crate::host::file::read_file(path, LIMIT);
        let bytes =
            bytes.map_err(|e| error(format!("cannot be read: {e}"), e.kind() == std::io::ErrorKind::NotFound))?;
        let text = String::from_utf8(bytes).map_err(|_| error("is no UTF-8 text".into(), false))?;
        Self::parse_as(&text, ways).map_err(|text| error(text, false))
    }

    /// Checks a configuration's text.
    ///
    /// # Errors
    /// A sentence with line, field and the expected form.
    pub fn parse(text: &str) -> Result<Self, String> {
        Self::parse_as(text, Ways::Present)
    }

    fn parse_as(text: &str, ways: Ways) -> Result<Self, String> {
        // an empty file is an empty configuration, not a null
        let text = if text.trim().is_empty() { "{}" } else { text };
        let mut options = serde_saphyr::Options::default();
        options.with_snippet = false; // a configuration may hold what should not be quoted
        let raw: Raw = serde_saphyr::from_str_with_options(text, options).map_err(|error| {
            let field = error.location().and_then(|place| places::field_at(text, place.line(), place.column()));
            // a key of the text can be anything as well, such as the first line of a block that was not indented
            match field.filter(|field| field.chars().count() <= SHOWN && !field.contains("-----")) {
                Some(field) => visible(&format!("{field}: {}", without_values(&error.to_string()))),
                None => visible(&without_values(&error.to_string())),
            }
        })?;
        raw.check(ways).map_err(|Unfit { field, text: why }| {
            let line = places::line_of(text, &field);
            let at = line.map_or_else(String::new, |line| format!(" at line {line}"));
            visible(&format!("{field}: {}{at}", without_values(&why)))
        })
    }
}

/// Whose ways of writing a configuration are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ways {
    Present,
    /// And those that versions before had.
    Earlier,
}

/// A field that does not fit what stands elsewhere.
struct Unfit {
    field: String,
    text: String,
}

impl Unfit {
    fn new(field: impl Into<String>, text: impl Into<String>) -> Self {
        Self { field: field.into(), text: text.into() }
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
    resync: Given<LongSpan>,
    settle: Given<Span>,
    http: RawHttp,
    kubernetes: RawKubernetes,
    export: RawExport,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawSource {
    name: Needed<SourceName>,
    #[serde(default)]
    path: Given<AbsolutePath>,
    inline: Option<String>,
    #[serde(default)]
    optional: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct RawPolicy {
    on_rejection: Given<Word<OnRejection>>,
    not_ca: Given<Word<NotCa>>,
    expired: Given<Word<Acceptance>>,
    weak: Given<Word<Acceptance>>,
    self_signature: Given<Word<Unproven>>,
    allowed_fingerprints: BTreeSet<Fingerprint>,
    denied_fingerprints: BTreeSet<Fingerprint>,
    empty_source: Given<Word<EmptySource>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct RawRotation {
    removal_grace: Given<Span>,
    removal_gate: Given<Word<RemovalGate>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct RawStore {
    family: Given<FamilyWord>,
    extract_timeout: Given<LongSpan>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct RawRuntime {
    kind: Given<RuntimeWord>,
    unit: Given<UnitName>,
    on_change: Given<Word<settings::OnChange>>,
    also_restart: Vec<Needed<FurtherUnit>>,
    witness: WitnessChoice,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct RawFleet {
    max_concurrent_restarts: Given<Share>,
    window: Option<RawWindow>,
    halt_on_failure: Option<bool>,
    when_api_unavailable: Given<Word<WhenUnavailable>>,
    api_timeout: Given<Span>,
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
    target: Needed<ProbeTarget>,
    #[serde(default)]
    interval: Given<LongSpan>,
    #[serde(default)]
    via_proxy: Given<ProbeProxy>,
    #[serde(default)]
    through: Given<Word<Through>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct RawHttp {
    address: Given<Address>,
    tls: Option<RawTls>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct RawTls {
    cert_file: PathBuf,
    key_file: PathBuf,
    #[serde(rename = "clientCAFile")]
    client_ca_file: PathBuf,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct RawKubernetes {
    enabled: Given<Word<Option<bool>>>,
    condition: Option<bool>,
    annotations: Option<bool>,
    events: Option<bool>,
    startup_taint: Given<StartupTaint>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct RawExport {
    bundle: Given<ExportName>,
}

impl Raw {
    fn check(mut self, ways: Ways) -> Result<Settings, Unfit> {
        let without_effect = self.without_effect();
        let mut names = BTreeSet::new();
        let mut sources = Vec::with_capacity(self.sources.len());
        for (index, source) in self.sources.into_iter().enumerate() {
            let Needed(SourceName(name)) = source.name;
            let field = format!("sources[{index}]");
            if !names.insert(name.clone()) {
                return Err(Unfit::new(format!("{field}.name"), format!("`{name}` is taken; names must be unique")));
            }
            let from = match (source.path.0, source.inline) {
                (Some(AbsolutePath(path)), None) => From::Path(path),
                (None, Some(text)) => From::Inline(text),
                _ => return Err(Unfit::new(field, format!("`{name}` wants exactly one of `path` and `inline`"))),
            };
            sources.push(Source { name, from, optional: source.optional });
        }
        let defaults = Policy::default();
        let Span(grace) = self.rotation.removal_grace.or(Span(Duration::from_secs(defaults.removal_grace)));
        let policy = Policy {
            on_rejection: self.policy.on_rejection.or(Word(defaults.on_rejection)).0,
            not_ca: self.policy.not_ca.or(Word(defaults.not_ca)).0,
            expired: self.policy.expired.or(Word(defaults.expired)).0,
            weak: self.policy.weak.or(Word(defaults.weak)).0,
            self_signature: self.policy.self_signature.or(Word(defaults.self_signature)).0,
            allowed: self.policy.allowed_fingerprints,
            denied: self.policy.denied_fingerprints,
            empty_source: self.policy.empty_source.or(Word(defaults.empty_source)).0,
            // the ledger counts whole seconds; rounding up keeps an anchor rather longer than shorter
            removal_grace: grace.as_secs() + u64::from(grace.subsec_nanos() > 0),
        };
        let usual = Settings::default();
        let LongSpan(resync) = self.resync.or(LongSpan(usual.resync));
        let Span(settle) = self.settle.or(Span(usual.settle));
        let LongSpan(extract_timeout) = self.store.extract_timeout.or(LongSpan(usual.extract_timeout));
        if settle > Duration::from_secs(60) || settle > resync {
            return Err(Unfit::new("settle", "want at most 1m, and no more than `resync`"));
        }
        let tls = self.http.tls.unwrap_or_default().check()?;
        if self.probes.len() > MAX_PROBES {
            let text = format!("want at most {MAX_PROBES}, not {}", self.probes.len());
            return Err(Unfit::new("probes", text));
        }
        let mut probes: Vec<Every> = Vec::with_capacity(self.probes.len());
        for (index, probe) in self.probes.into_iter().enumerate() {
            let Needed(ProbeTarget(target)) = probe.target;
            let Word(through) = probe.through.or(Word(Through::Host));
            if probes.iter().any(|known| known.target.text() == target.text() && known.through == through) {
                let text = format!("`{}` is taken; targets must be unique for each `through`", target.text());
                return Err(Unfit::new(format!("probes[{index}].target"), text));
            }
            let proxy = probe.via_proxy.0.map(|ProbeProxy(proxy)| proxy);
            if through == Through::Runtime && proxy.is_some() {
                let text = "the runtime goes through the proxy in its own environment: want no `viaProxy` with `through: runtime`";
                return Err(Unfit::new(format!("probes[{index}].viaProxy"), text));
            }
            let LongSpan(interval) = probe.interval.or(LongSpan(PROBE_INTERVAL));
            probes.push(Every { target, through, interval, proxy });
        }
        Ok(Settings {
            sources,
            policy,
            witness: std::mem::take(&mut self.runtime.witness).0,
            runtime: self.runtime.check(),
            family: self.store.family.or_default().0,
            extract_timeout,
            resync,
            settle,
            http: Http { address: self.http.address.or(Address(usual.http.address)).0, tls },
            probes,
            kubernetes: self.kubernetes.check(),
            export: self.export.check(ways)?,
            without_effect,
        })
    }

    /// Fields that a later version follows, where they ask for something else than their default. Accepting them silently would
    /// be a lie.
    fn without_effect(&self) -> Vec<&'static str> {
        let fleet = &self.fleet;
        let fleet_set = !matches!(fleet.max_concurrent_restarts.0, None | Some(Share::Nodes(1)))
            || fleet.window.as_ref().is_some_and(|window| !window.is_always())
            || fleet.halt_on_failure == Some(false)
            || matches!(fleet.when_api_unavailable.0, Some(Word(WhenUnavailable::Proceed)))
            || fleet.api_timeout.0.is_some();
        let kubernetes = &self.kubernetes;
        let kubernetes_set = matches!(kubernetes.enabled.0, Some(Word(Some(true))))
            || matches!(kubernetes.startup_taint.0, Some(StartupTaint(Some(_))));
        [
            (fleet_set, "fleet"),
            (kubernetes_set && cfg!(not(feature = "kubernetes")), "kubernetes"),
            (matches!(self.rotation.removal_gate.0, Some(Word(RemovalGate::Fleet))), "rotation.removalGate"),
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
            enabled: self.enabled.or(Word(usual.enabled)).0,
            condition: self.condition.unwrap_or(usual.condition),
            annotations: self.annotations.unwrap_or(usual.annotations),
            events: self.events.unwrap_or(usual.events),
            startup_taint: self.startup_taint.or_default().0,
        }
    }
}

impl RawTls {
    fn check(self) -> Result<Option<TlsFiles>, Unfit> {
        let given = |path: PathBuf| (!path.as_os_str().is_empty()).then_some(path);
        match (given(self.cert_file), given(self.key_file), given(self.client_ca_file)) {
            (None, None, None) => Ok(None),
            (Some(cert), Some(key), client_ca) => Ok(Some(TlsFiles { cert, key, client_ca })),
            (None, None, Some(_)) => Err(Unfit::new("http.tls", "want `certFile` and `keyFile` with `clientCAFile`")),
            _ => Err(Unfit::new("http.tls", "want both `certFile` and `keyFile`, or neither")),
        }
    }
}

impl RawExport {
    fn check(self, ways: Ways) -> Result<Option<String>, Unfit> {
        match self.bundle.or_default() {
            ExportName::Unset => Ok(None),
            ExportName::At(path) => Ok(Some(path)),
            ExportName::Path(path) if ways == Ways::Earlier => Ok(Some(path)),
            ExportName::Path(path) => {
                let text = format!("`{path}` is a path, which earlier versions took: {}", ExportName::wanted());
                Err(Unfit::new("export.bundle", text))
            }
        }
    }
}

impl RawRuntime {
    fn check(self) -> RuntimeSettings {
        let kind = self.kind.or_default();
        RuntimeSettings {
            ignored: kind == RuntimeWord::None,
            kind: match kind {
                RuntimeWord::Auto | RuntimeWord::None => None,
                RuntimeWord::Kind(kind) => Some(kind),
            },
            unit: self.unit.0.map(|UnitName(unit)| unit).filter(|unit| !unit.is_empty()),
            on_change: self.on_change.or(Word(settings::OnChange::Auto)).0,
            also: self.also_restart.into_iter().map(|Needed(FurtherUnit(unit))| unit).collect(),
        }
    }
}

#[cfg(test)]
mod tests;
