//! The configuration file as it is written, and the checks that concern more than one field.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use nodetrust_core::{
    action::ExportFormat,
    certificate::fingerprint::Fingerprint,
    fleet::{gate::ApiOutage, window::RestartWindow},
    pod_bundle::ExportPaths,
    probe::Through,
    runtime::settings::{OnChange, RuntimeSettings},
    source::policy::{Acceptance, EmptySource, NotCa, OnRejection, Policy, RemovalGate, Unproven},
};
use serde::Deserialize;
use serde_saphyr::{Location, Spanned};
use tracing::level_filters::LevelFilter;

use super::{
    FleetSettings, Http, Kubernetes, LogFormat, LogSettings, MAX_PROBES, ProbeSettings, Settings, Source,
    SourceLocation, TlsFiles, WitnessRegistries,
    lists::{AdoptedNames, DistrustedPrints},
    values::{
        AbsolutePath, Address, CanarySelector, ExportName, FamilyChoice, FurtherUnit, Keyword, LongSpan, ProbeProxy,
        ProbeTarget, RuntimeKindChoice, Share, SourceName, Span, StartupTaint, UnitName, WitnessChoice,
    },
};

/// How often a target is probed unless the configuration says it.
const PROBE_INTERVAL: Duration = Duration::from_secs(300);
/// Longest `settle`.
const MAX_SETTLE: Duration = Duration::from_secs(60);

/// Which version's ways of writing a configuration are accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ConfigVersion {
    /// This version's.
    Current,
    /// And those that only earlier versions had.
    Earlier,
}

/// A field that does not fit what stands elsewhere in the configuration.
pub(super) struct Misfit {
    /// Its name, such as `sources[0].name`.
    pub(super) field: String,
    /// Its line, from 1.
    pub(super) line: u64,
    /// What is wrong, and what is expected.
    pub(super) text: String,
}

impl Misfit {
    fn new(field: impl Into<String>, at: Location, text: impl Into<String>) -> Self {
        Self { field: field.into(), line: at.line(), text: text.into() }
    }
}

/// The file.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct RawConfig {
    sources: Vec<RawSource>,
    policy: RawPolicy,
    rotation: RawRotation,
    store: RawStore,
    runtime: RawRuntime,
    fleet: Option<RawFleet>,
    probes: Option<Spanned<Vec<RawProbe>>>,
    resync: Option<LongSpan>,
    settle: Option<Spanned<Option<Span>>>,
    http: RawHttp,
    kubernetes: RawKubernetes,
    export: RawExport,
    log: RawLog,
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
    on_rejection: Option<Keyword<OnRejection>>,
    not_ca: Option<Keyword<NotCa>>,
    expired: Option<Keyword<Acceptance>>,
    weak: Option<Keyword<Acceptance>>,
    self_signature: Option<Keyword<Unproven>>,
    allowed_fingerprints: BTreeSet<Fingerprint>,
    denied_fingerprints: BTreeSet<Fingerprint>,
    distrust: DistrustedPrints,
    empty_source: Option<Keyword<EmptySource>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct RawRotation {
    removal_grace: Option<Span>,
    removal_gate: Option<Keyword<RemovalGate>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct RawStore {
    family: Option<FamilyChoice>,
    adopt: AdoptedNames,
    extract_timeout: Option<LongSpan>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct RawRuntime {
    kind: Option<RuntimeKindChoice>,
    unit: Option<UnitName>,
    on_change: Option<Keyword<OnChange>>,
    also_restart: Vec<FurtherUnit>,
    witness: Option<WitnessChoice>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct RawFleet {
    max_concurrent_restarts: Option<Share>,
    window: Option<Spanned<Option<RawWindow>>>,
    halt_on_failure: Option<bool>,
    when_api_unavailable: Option<Keyword<ApiOutage>>,
    api_timeout: Option<LongSpan>,
    healthy_within: Option<LongSpan>,
    canary_selector: Option<CanarySelector>,
    canary_soak: Option<Span>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct RawWindow {
    days: Vec<String>,
    start: String,
    end: String,
    time_zone: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawProbe {
    target: Spanned<ProbeTarget>,
    interval: Option<LongSpan>,
    via_proxy: Option<Spanned<Option<ProbeProxy>>>,
    through: Option<Keyword<Through>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct RawHttp {
    address: Option<Address>,
    tls: Option<Spanned<Option<RawTls>>>,
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
    enabled: Option<Keyword<Option<bool>>>,
    condition: Option<bool>,
    annotations: Option<bool>,
    events: Option<bool>,
    startup_taint: Option<StartupTaint>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct RawExport {
    bundle: Option<Spanned<Option<ExportName>>>,
    pkcs12: Option<Spanned<Option<ExportName>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct RawLog {
    level: Option<Keyword<LevelFilter>>,
    format: Option<Keyword<LogFormat>>,
}

impl RawConfig {
    /// Makes settings of the file.
    pub(super) fn check(self, version: ConfigVersion) -> Result<Settings, Misfit> {
        let usual = Settings::default();
        let without_effect = self.without_effect();
        let sources = sources(self.sources)?;
        let resync = self.resync.map_or(usual.resync, |LongSpan(span)| span);
        let (settle, settle_at) = match self.settle {
            Some(Spanned { value: Some(Span(span)), referenced, .. }) => (span, referenced),
            _ => (usual.settle, Location::UNKNOWN),
        };
        if settle > MAX_SETTLE || settle > resync {
            return Err(Misfit::new("settle", settle_at, "want at most 1m, and no more than `resync`"));
        }
        let tls = match self.http.tls {
            Some(Spanned { value: Some(tls), referenced, .. }) => {
                tls.check().map_err(|text| Misfit::new("http.tls", referenced, text))?
            }
            _ => None,
        };
        Ok(Settings {
            sources,
            policy: self.policy.check(self.rotation, self.store.adopt),
            witness: self.runtime.witness.as_ref().map_or(usual.witness, |WitnessChoice(chosen)| chosen.clone()),
            runtime: self.runtime.check(),
            family: self.store.family.and_then(|FamilyChoice(family)| family),
            extract_timeout: self.store.extract_timeout.map_or(usual.extract_timeout, |LongSpan(span)| span),
            resync,
            settle,
            http: Http { address: self.http.address.map_or(usual.http.address, |Address(address)| address), tls },
            probes: self.probes.map_or(Ok(Vec::new()), probes)?,
            kubernetes: self.kubernetes.check(),
            export: self.export.check(version)?,
            fleet: self.fleet.map(RawFleet::check).transpose()?,
            log: LogSettings {
                level: keyword(self.log.level, usual.log.level),
                format: keyword(self.log.format, usual.log.format),
            },
            approvals: usual.approvals,
            without_effect,
        })
    }

    /// Fields that are set to something else than their default, and that do nothing: by this build, or by what stands elsewhere. Every
    /// command warns of them: to accept them silently would be a lie.
    fn without_effect(&self) -> Vec<&'static str> {
        let taint = self.kubernetes.startup_taint.as_ref().and_then(|StartupTaint(taint)| taint.as_ref());
        let is_told = matches!(self.kubernetes.enabled, Some(Keyword(Some(true)))) || taint.is_some();
        let is_silent = matches!(self.kubernetes.enabled, Some(Keyword(Some(false))));
        let ignores_runtime = self.runtime.kind == Some(RuntimeKindChoice::None);
        let unit = self.runtime.unit.as_ref().is_some_and(|UnitName(unit)| !unit.is_empty());
        let asked = matches!(self.runtime.witness, Some(WitnessChoice(WitnessRegistries::These(_))));
        [
            (is_told && cfg!(not(feature = "kubernetes")), "kubernetes"),
            (is_silent && taint.is_some(), "kubernetes.startupTaint"),
            (ignores_runtime && unit, "runtime.unit"),
            (ignores_runtime && asked, "runtime.witness"),
        ]
        .into_iter()
        .filter_map(|(is_set, name)| is_set.then_some(name))
        .collect()
    }
}

fn sources(raw: Vec<RawSource>) -> Result<Vec<Source>, Misfit> {
    let mut names = BTreeSet::new();
    let mut sources = Vec::with_capacity(raw.len());
    for (index, RawSource { name, path, inline, optional }) in raw.into_iter().enumerate() {
        let Spanned { value: SourceName(name), referenced, .. } = name;
        if !names.insert(name.clone()) {
            let text = format!("`{name}` is taken; names must be unique");
            return Err(Misfit::new(format!("sources[{index}].name"), referenced, text));
        }
        let from = match (path, inline) {
            (Some(AbsolutePath(path)), None) => SourceLocation::Path(path),
            (None, Some(text)) => SourceLocation::Inline(text),
            _ => {
                let text = format!("`{name}` wants exactly one of `path` and `inline`");
                return Err(Misfit::new(format!("sources[{index}]"), referenced, text));
            }
        };
        sources.push(Source { name, from, optional });
    }
    Ok(sources)
}

fn probes(raw: Spanned<Vec<RawProbe>>) -> Result<Vec<ProbeSettings>, Misfit> {
    let Spanned { value: raw, referenced, .. } = raw;
    if raw.len() > MAX_PROBES {
        return Err(Misfit::new("probes", referenced, format!("want at most {MAX_PROBES}, not {}", raw.len())));
    }
    let mut probes: Vec<ProbeSettings> = Vec::with_capacity(raw.len());
    for (index, probe) in raw.into_iter().enumerate() {
        let Spanned { value: ProbeTarget(target), referenced, .. } = probe.target;
        let through = probe.through.map_or(Through::Host, |Keyword(through)| through);
        if probes.iter().any(|known| known.target.text() == target.text() && known.through == through) {
            let text = format!("`{}` is taken; targets must be unique for each `through`", target.text());
            return Err(Misfit::new(format!("probes[{index}].target"), referenced, text));
        }
        let proxy = match probe.via_proxy {
            Some(Spanned { value: Some(_), referenced, .. }) if through == Through::Runtime => {
                let text = "the runtime goes through the proxy in its own environment: want no `viaProxy` with `through: runtime`";
                return Err(Misfit::new(format!("probes[{index}].viaProxy"), referenced, text));
            }
            Some(Spanned { value, .. }) => value.map(|ProbeProxy(proxy)| proxy),
            None => None,
        };
        let interval = probe.interval.map_or(PROBE_INTERVAL, |LongSpan(span)| span);
        probes.push(ProbeSettings { target, through, interval, proxy });
    }
    Ok(probes)
}

impl RawPolicy {
    fn check(self, rotation: RawRotation, AdoptedNames(adopt): AdoptedNames) -> Policy {
        let usual = Policy::default();
        Policy {
            on_rejection: keyword(self.on_rejection, usual.on_rejection),
            not_ca: keyword(self.not_ca, usual.not_ca),
            expired: keyword(self.expired, usual.expired),
            weak: keyword(self.weak, usual.weak),
            self_signature: keyword(self.self_signature, usual.self_signature),
            allowed: self.allowed_fingerprints,
            denied: self.denied_fingerprints,
            empty_source: keyword(self.empty_source, usual.empty_source),
            // The ledger counts whole seconds. Rounding up keeps an anchor longer rather than shorter.
            removal_grace: rotation
                .removal_grace
                .map_or(usual.removal_grace, |Span(grace)| grace.as_secs() + u64::from(grace.subsec_nanos() > 0)),
            removal_gate: keyword(rotation.removal_gate, usual.removal_gate),
            distrust: self.distrust.0,
            adopt,
        }
    }
}

impl RawRuntime {
    fn check(self) -> RuntimeSettings {
        let kind = self.kind.unwrap_or_default();
        RuntimeSettings {
            ignored: kind == RuntimeKindChoice::None,
            kind: match kind {
                RuntimeKindChoice::Auto | RuntimeKindChoice::None => None,
                RuntimeKindChoice::Kind(kind) => Some(kind),
            },
            unit: self.unit.map(|UnitName(unit)| unit).filter(|unit| !unit.is_empty()),
            on_change: keyword(self.on_change, OnChange::Auto),
            also: self.also_restart.into_iter().map(|FurtherUnit(unit)| unit).collect(),
        }
    }
}

impl RawFleet {
    fn check(self) -> Result<FleetSettings, Misfit> {
        let usual = FleetSettings::default();
        let window = match self.window {
            Some(Spanned { value: Some(window), referenced, .. }) => window.check(referenced)?,
            _ => None,
        };
        let long = |given: Option<LongSpan>, usual| given.map_or(usual, |LongSpan(span)| span);
        Ok(FleetSettings {
            limit: self.max_concurrent_restarts.map_or(usual.limit, |Share(limit)| limit),
            outage: keyword(self.when_api_unavailable, usual.outage),
            api_timeout: long(self.api_timeout, usual.api_timeout),
            healthy_within: long(self.healthy_within, usual.healthy_within),
            halt_on_failure: self.halt_on_failure.unwrap_or(usual.halt_on_failure),
            canary: self.canary_selector.map_or(usual.canary, |CanarySelector(selector)| selector),
            canary_soak: self.canary_soak.map_or(usual.canary_soak, |Span(span)| span),
            window,
        })
    }
}

impl RawWindow {
    fn check(self, at: Location) -> Result<Option<RestartWindow>, Misfit> {
        let Self { days, start, end, time_zone } = self;
        RestartWindow::parse(&days, &start, &end, &time_zone).map_err(|bad| {
            let text = format!("`{}`: want {}", bad.found, bad.expected);
            Misfit::new(format!("fleet.window.{}", bad.field), at, text)
        })
    }
}

impl RawTls {
    fn check(self) -> Result<Option<TlsFiles>, &'static str> {
        let given = |path: PathBuf| (!path.as_os_str().is_empty()).then_some(path);
        match (given(self.cert_file), given(self.key_file), given(self.client_ca_file)) {
            (None, None, None) => Ok(None),
            (Some(cert), Some(key), client_ca) => Ok(Some(TlsFiles { cert, key, client_ca })),
            (None, None, Some(_)) => Err("want `certFile` and `keyFile` with `clientCAFile`"),
            _ => Err("want both `certFile` and `keyFile`, or neither"),
        }
    }
}

impl RawKubernetes {
    fn check(self) -> Kubernetes {
        let usual = Kubernetes::default();
        Kubernetes {
            enabled: keyword(self.enabled, usual.enabled),
            condition: self.condition.unwrap_or(usual.condition),
            annotations: self.annotations.unwrap_or(usual.annotations),
            events: self.events.unwrap_or(usual.events),
            startup_taint: self.startup_taint.and_then(|StartupTaint(taint)| taint),
        }
    }
}

impl RawExport {
    fn check(self, version: ConfigVersion) -> Result<ExportPaths, Misfit> {
        let mut paths = ExportPaths::new();
        for (format, given) in [(ExportFormat::Pem, self.bundle), (ExportFormat::Pkcs12, self.pkcs12)] {
            let Some(Spanned { value: Some(name), referenced, .. }) = given else { continue };
            let misfit = |text| Misfit::new(format.field(), referenced, text);
            let path = match name {
                ExportName::Unset => continue,
                ExportName::At(path) => path,
                // there was no other field then
                ExportName::Path(path) if version == ConfigVersion::Earlier && format == ExportFormat::Pem => path,
                ExportName::Path(path) => {
                    let text = format!("`{path}` is a path, which earlier versions took: {}", ExportName::wanted());
                    return Err(misfit(text));
                }
            };
            if let Some(other) = paths.iter().find_map(|(other, taken)| (*taken == path).then_some(*other)) {
                return Err(misfit(format!("its file is that of `{}`: want another name", other.field())));
            }
            paths.insert(format, path);
        }
        Ok(paths)
    }
}

fn keyword<T>(given: Option<Keyword<T>>, usual: T) -> T {
    given.map_or(usual, |Keyword(value)| value)
}
