//! Metrics: the [`Report`] as gauges, and counters of what happened since the agent started.
//!
//! docs/metrics.md lists names and labels. Gauges are made from the last report at each scrape, so that a series
//! disappears with the thing that it is about; series whose labels are an enumeration are always all there.

use std::{
    collections::BTreeSet,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use nodetrust_core::{
    action::Drift,
    certificate::pem::RejectReason,
    cycle::{CycleOutcome, Trigger},
    fleet::view::FleetView,
    problem::ProblemKind,
    report::{AnchorRow, ForeignRow, Report, RuntimeView, StaleReason},
    runtime::{services::HoldReason, trust::RuntimeState},
    source::SourceStatus,
    time::Time,
};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, prometheus_text, text},
    metrics::{MetricType, counter::Counter, family::Family, gauge::ConstGauge, histogram::Histogram, info::Info},
    registry::Registry,
};
use serde::Serialize;

use super::process;
use crate::{
    probe::{LatestResult, LatestResults},
    reconcile::CycleResult,
};

/// The values of the label `outcome` of a restart.
const RESTART_OUTCOMES: [&str; 2] = ["done", "failed"];
/// Most stale copies with a series of their own.
const STALE_COPIES: usize = 20;
/// How a text in the form of OpenMetrics ends.
const END_OF_OPEN_METRICS: &[u8] = b"# EOF\n";

type Labels = Vec<(&'static str, String)>;

/// Everything that `/metrics` shows.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    reconciles: Family<Labels, Counter>,
    drift: Family<Labels, Counter>,
    errors: Family<Labels, Counter>,
    restarts: Family<Labels, Counter>,
    durations: Histogram,
    extracts: Histogram,
    last: Arc<Last>,
    probes: Arc<LatestResults>,
    api: Mutex<Option<ApiState>>,
    changes: AtomicU64,
}

/// Counters of changes. While they stay the same, the text of the metrics does.
pub type Changes = (u64, u64);

/// How the last calls to the Kubernetes API went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ApiState {
    /// Since when.
    pub since: Time,
    /// Why the last try failed; None if nothing is left to tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What a person can do about that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// The last report and the times that a report does not have.
#[derive(Debug, Default)]
struct Last(Mutex<Option<LastCycle>>);

#[derive(Debug)]
struct LastCycle {
    report: Arc<Report>,
    success: Option<i64>,
    /// some cycle was verified, and no source was awaited then
    was_ready: bool,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Metrics of an agent that has done nothing yet.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("nodetrust");
        let build = Info::new(vec![
            ("version", env!("CARGO_PKG_VERSION")),
            ("revision", env!("NODETRUST_REVISION")),
            ("rustc", env!("NODETRUST_RUSTC")),
        ]);
        registry.register("build", "The running program", build);
        let [reconciles, drift, errors, restarts] = std::array::from_fn(|_| Family::<Labels, Counter>::default());
        for outcome in RESTART_OUTCOMES {
            touch(&restarts, &[("outcome", outcome)]);
        }
        for trigger in Trigger::ALL {
            for outcome in CycleOutcome::ALL {
                touch(&reconciles, &[("trigger", trigger.as_str()), ("outcome", outcome.as_str())]);
            }
        }
        for kind in Drift::ALL {
            touch(&drift, &[("kind", kind.as_str())]);
        }
        for kind in ProblemKind::ALL {
            touch(&errors, &[("reason", kind.as_str())]);
        }
        let buckets = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0];
        let (durations, extracts) = (Histogram::new(buckets), Histogram::new(buckets));
        registry.register("reconciles", "Cycles since the agent started", reconciles.clone());
        registry.register("drift_repaired", "Repairs of what somebody else had changed", drift.clone());
        registry.register(
            "errors",
            "Cycles that met this kind of problem; for kubernetes, tries that failed",
            errors.clone(),
        );
        registry.register(
            "runtime_restarts",
            "Restarts of the runtime and of further services, by whether they work since",
            restarts.clone(),
        );
        registry.register("reconcile_duration_seconds", "Duration of a cycle", durations.clone());
        registry.register("extract_duration_seconds", "Time that the store's tool ran in a cycle", extracts.clone());
        let last = Arc::new(Last::default());
        registry.register_collector(Box::new(ReportCollector(last.clone())));
        let probes = Arc::new(LatestResults::default());
        registry.register_collector(Box::new(ProbeCollector(probes.clone())));
        Self {
            registry,
            reconciles,
            drift,
            errors,
            restarts,
            durations,
            extracts,
            last,
            probes,
            api: Mutex::default(),
            changes: AtomicU64::new(1),
        }
    }

    /// While this stays the same, so does every text that is made of the metrics and the last report.
    pub fn changes(&self) -> Changes {
        (self.changes.load(Ordering::Acquire), self.probes.changes())
    }

    fn has_changed(&self) {
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// The answers of the configured probes.
    pub fn probes(&self) -> &Arc<LatestResults> {
        &self.probes
    }

    /// Counts a problem that no cycle has met.
    pub fn count(&self, kind: ProblemKind) {
        self.errors.get_or_create(&vec![("reason", kind.as_str().to_owned())]).inc();
        self.has_changed();
    }

    /// How the last calls to the Kubernetes API went; None if it is not called.
    pub fn api(&self) -> Option<ApiState> {
        self.api.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sets how the last calls to the Kubernetes API went.
    pub fn show_api(&self, state: Option<ApiState>) {
        *self.api.lock().unwrap_or_else(PoisonError::into_inner) = state;
        self.has_changed();
    }

    /// Counts a cycle and shows its report from now on; the caller publishes the same report at once.
    pub fn record(&self, result: &CycleResult, report: Arc<Report>) {
        let labels =
            vec![("trigger", result.trigger.as_str().to_owned()), ("outcome", result.outcome.as_str().to_owned())];
        self.reconciles.get_or_create(&labels).inc();
        for kind in &result.drift {
            self.drift.get_or_create(&vec![("kind", kind.as_str().to_owned())]).inc();
        }
        let kinds: BTreeSet<ProblemKind> = report.problems.iter().map(|problem| problem.kind).collect();
        for kind in kinds {
            self.errors.get_or_create(&vec![("reason", kind.as_str().to_owned())]).inc();
        }
        for works in &result.restarts {
            let [done, failed] = RESTART_OUTCOMES;
            let outcome = if *works { done } else { failed };
            self.restarts.get_or_create(&vec![("outcome", outcome.to_owned())]).inc();
        }
        self.durations.observe(result.duration.as_secs_f64());
        if let Some(extract) = result.extract {
            self.extracts.observe(extract.as_secs_f64());
        }
        let mut last = self.last.0.lock().unwrap_or_else(PoisonError::into_inner);
        let success = match result.outcome {
            CycleOutcome::Failed => last.as_ref().and_then(|last| last.success),
            CycleOutcome::Changed | CycleOutcome::Unchanged => Some(report.time.0),
        };
        let is_ready = result.outcome != CycleOutcome::Failed && report.awaited_source().is_none();
        let was_ready = is_ready || last.as_ref().is_some_and(|last| last.was_ready);
        *last = Some(LastCycle { report, success, was_ready });
        self.has_changed();
    }

    /// Whether, since the agent started, a cycle was verified in which no source was awaited ([`Report::awaited_source`]). Later failures
    /// do not take that back.
    pub fn was_ready(&self) -> bool {
        self.last.0.lock().unwrap_or_else(PoisonError::into_inner).as_ref().is_some_and(|last| last.was_ready)
    }

    /// The metrics as OpenMetrics text.
    pub fn open_metrics(&self) -> String {
        text_of(|out| text::encode(out, &self.registry))
    }

    /// The metrics as Prometheus text, version 0.0.4.
    pub fn prometheus(&self) -> String {
        text_of(|out| prometheus_text::encode(out, &self.registry))
    }

    /// Text of [`open_metrics`](Self::open_metrics) with the process's own metrics, as they are now.
    pub fn open_metrics_with_process(metrics: &[u8]) -> Vec<u8> {
        let metrics = metrics.strip_suffix(END_OF_OPEN_METRICS).unwrap_or(metrics);
        [metrics, text_of(|out| text::encode(out, &process::registry())).as_bytes()].concat()
    }

    /// Text of [`prometheus`](Self::prometheus) with the process's own metrics, as they are now.
    pub fn prometheus_with_process(metrics: &[u8]) -> Vec<u8> {
        [metrics, text_of(|out| prometheus_text::encode(out, &process::registry())).as_bytes()].concat()
    }
}

fn text_of(encode: impl FnOnce(&mut String) -> fmt::Result) -> String {
    let mut out = String::new();
    if encode(&mut out).is_err() {
        // Writing to a `String` cannot fail. An empty answer would be taken for a target without metrics.
        out.push_str("# the metrics could not be encoded\n# EOF\n");
    }
    out
}

fn touch(family: &Family<Labels, Counter>, labels: &[(&'static str, &str)]) {
    let labels: Labels = labels.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    drop(family.get_or_create(&labels));
}

#[derive(Debug)]
struct ReportCollector(Arc<Last>);

impl Collector for ReportCollector {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let last = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(last) = &*last else { return Ok(()) };
        Exposition(encoder).report(&last.report, last.success)
    }
}

#[derive(Debug)]
struct ProbeCollector(Arc<LatestResults>);

impl Collector for ProbeCollector {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let results = self.0.all();
        let target = |result: &LatestResult| {
            vec![("target", result.probe.target.clone()), ("through", result.probe.through.as_str().to_owned())]
        };
        let mut out = Exposition(encoder);
        out.gauge(
            "probe_success",
            "1 if programs on the host trust the target; through the runtime, if that does",
            results.iter().map(|result| (target(result), flag(result.probe.is_trusted_there()))),
        )?;
        #[expect(clippy::cast_precision_loss, reason = "milliseconds of a bounded probe")]
        let duration = |result: &LatestResult| result.milliseconds as f64 / 1000.0;
        out.gauge(
            "probe_duration_seconds",
            "How long the last probe took",
            results.iter().map(|result| (target(result), duration(result))),
        )?;
        out.gauge(
            "probe_not_after_timestamp_seconds",
            "First end of validity in the chain that was used",
            results.iter().filter_map(|result| Some((target(result), seconds(result.probe.not_after?.0)))),
        )
    }
}

/// Writes families made of a report; the registry puts its prefix before the names.
struct Exposition<'a>(DescriptorEncoder<'a>);

impl Exposition<'_> {
    fn report(&mut self, report: &Report, success: Option<i64>) -> Result<(), fmt::Error> {
        let store = &report.store;
        if let Some(family) = store.family {
            self.info(
                "store",
                "The trust store of the host",
                [vec![
                    ("family", family.to_string()),
                    ("os_id", store.os_id.clone()),
                    ("os_version", store.os_version.clone()),
                    ("anchors_dir", store.anchors_dir.clone()),
                    ("extracted_bundle", store.bundle.clone()),
                ]],
            )?;
        }
        let none = Labels::new;
        self.gauge(
            "store_certificates",
            "Certificates in the extracted bundle",
            [(none(), count(store.certificates))],
        )?;
        let sources = |value: fn(&nodetrust_core::report::SourceRow) -> f64| -> Vec<(Labels, f64)> {
            report.sources.iter().map(|row| (vec![("source", row.name.clone())], value(row))).collect()
        };
        self.gauge(
            "source_up",
            "1 if the source is read and followed, 0 if it is held or gives nothing usable",
            sources(|row| flag(matches!(row.status, SourceStatus::Ok | SourceStatus::Absent))),
        )?;
        self.gauge("source_anchors", "Anchors that the source puts in force", sources(|row| count(row.anchors)))?;
        let rejections = report.rejections();
        let by_reason = report.sources.iter().flat_map(|row| {
            RejectReason::ALL.map(|reason| {
                let number = rejections.get(&(row.name.as_str(), reason)).copied().unwrap_or(0);
                (vec![("source", row.name.clone()), ("reason", reason.to_string())], count(number))
            })
        });
        self.gauge("rejections", "Files, blocks and certificates that were not accepted", by_reason)?;
        self.anchors(&report.anchors)?;
        self.stale_copies(&report.foreign)?;
        self.info(
            "desired_set",
            "Digest of the set that should be trusted",
            [vec![("digest", report.desired_digest.to_string())]],
        )?;
        self.info(
            "effective_set",
            "Digest of our anchors that are trusted",
            [vec![("digest", report.effective_digest.to_string())]],
        )?;
        self.gauge(
            "converged",
            "1 if the node trusts what it should and nothing is left to do",
            [(none(), flag(report.converged))],
        )?;
        let states = RuntimeState::ALL
            .map(|state| (vec![("state", state.as_str().to_owned())], flag(report.runtime_trust.state == state)));
        self.gauge("runtime_state", "1 for what is known of pulls by the container runtime", states)?;
        self.runtime(report.runtime.as_ref())?;
        self.fleet(report.fleet.as_ref())?;
        let at = |time: Option<i64>| time.map(|time| (none(), seconds(time)));
        self.gauge("last_success_timestamp_seconds", "When the last verified cycle ended", at(success))?;
        self.gauge(
            "last_change_timestamp_seconds",
            "When the set in force last changed",
            at(report.changed.map(|time| time.0)),
        )
    }

    fn runtime(&mut self, runtime: Option<&RuntimeView>) -> Result<(), fmt::Error> {
        let Some(runtime) = runtime else { return Ok(()) };
        self.info(
            "runtime",
            "The container runtime of the host",
            [vec![
                ("runtime", runtime.kind.to_string()),
                ("unit", runtime.unit.clone()),
                ("version", runtime.version.clone()),
            ]],
        )?;
        self.gauge(
            "runtime_trust_stale",
            "1 if pulls by the runtime do not follow the extracted bundle",
            [(Labels::new(), flag(runtime.stale))],
        )?;
        let held = HoldReason::ALL.map(|reason| {
            let is = runtime.held.as_ref().is_some_and(|held| held.reason == reason);
            (vec![("reason", reason.as_str().to_owned())], flag(is))
        });
        self.gauge("restart_held", "1 if a restart is due and held back for this reason", held)
    }

    fn fleet(&mut self, fleet: Option<&FleetView>) -> Result<(), fmt::Error> {
        let Some(fleet) = fleet else { return Ok(()) };
        let none = Labels::new;
        self.gauge("fleet_slots", "Nodes that may restart at once", [(none(), count(fleet.slots))])?;
        self.gauge(
            "fleet_slots_held",
            "Nodes that restart, as this one saw it last",
            [(none(), count(fleet.slots_held))],
        )?;
        self.gauge(
            "fleet_halted",
            "1 if all restarts are halted, as this node saw it last",
            [(none(), flag(fleet.halted.is_some()))],
        )
    }

    fn anchors(&mut self, anchors: &[AnchorRow]) -> Result<(), fmt::Error> {
        let labels = |row: &AnchorRow| vec![("fingerprint_sha256", row.sha256.to_string())];
        let info = anchors.iter().map(|row| {
            vec![
                ("fingerprint_sha256", row.sha256.to_string()),
                ("subject_cn", row.common_name.clone()),
                ("issuer_cn", row.issuer_common_name.clone()),
                ("serial", row.serial.clone()),
                ("state", row.state.as_str().to_owned()),
            ]
        });
        self.info("anchor", "An anchor that is or was ours", info)?;
        let each = |value: fn(&AnchorRow) -> f64| -> Vec<(Labels, f64)> {
            anchors.iter().map(|row| (labels(row), value(row))).collect()
        };
        self.gauge("anchor_trusted", "1 if the anchor is in the extracted bundle", each(|row| flag(row.trusted)))?;
        self.gauge("anchor_not_before_timestamp_seconds", "Start of validity", each(|row| seconds(row.not_before.0)))?;
        self.gauge("anchor_not_after_timestamp_seconds", "End of validity", each(|row| seconds(row.not_after.0)))?;
        let grace = anchors.iter().filter_map(|row| Some((labels(row), seconds(row.grace_end?.0))));
        self.gauge("anchor_grace_end_timestamp_seconds", "When the anchor's grace ends", grace)
    }

    /// Copies of CAs that should not be there any more, in files of others.
    fn stale_copies(&mut self, rows: &[ForeignRow]) -> Result<(), fmt::Error> {
        let copies = || rows.iter().filter_map(|row| Some((row.path.clone(), row.stale?)));
        let label = |reason: StaleReason| ("reason", reason.as_str().to_owned());
        let alike = |reason| copies().filter(|(_, stale)| stale.reason == reason).count();
        let by_reason = StaleReason::ALL.map(|reason| (vec![label(reason)], count(alike(reason))));
        self.gauge("stale_copies", "Stale copies of CAs in files of others in the anchor directory", by_reason)?;
        let distinct: BTreeSet<_> = copies().map(|(path, stale)| (path, stale.sha256, stale.reason)).collect();
        let labels = distinct.into_iter().take(STALE_COPIES).map(|(path, print, reason)| {
            vec![("path", path), ("fingerprint_sha256", print.to_string()), label(reason)]
        });
        self.info("stale_copy", "A stale copy of a CA in somebody else's file", labels)
    }

    /// Help ends in a full stop, as the registry makes it for its own metrics.
    fn gauge(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = (Labels, f64)>,
    ) -> Result<(), fmt::Error> {
        let mut series = series.into_iter().peekable();
        if series.peek().is_none() {
            return Ok(());
        }
        let mut encoder = self.0.encode_descriptor(name, &format!("{help}."), None, MetricType::Gauge)?;
        for (labels, value) in series {
            let value = ConstGauge::new(value);
            match labels.as_slice() {
                [] => return value.encode(encoder), // the only series of its family
                labels => value.encode(encoder.encode_family(&labels)?)?,
            }
        }
        Ok(())
    }

    fn info(&mut self, name: &str, help: &str, series: impl IntoIterator<Item = Labels>) -> Result<(), fmt::Error> {
        let mut series = series.into_iter().peekable();
        if series.peek().is_none() {
            return Ok(());
        }
        let mut encoder = self.0.encode_descriptor(name, &format!("{help}."), None, MetricType::Info)?;
        for labels in series {
            encoder.encode_info(&labels)?;
        }
        Ok(())
    }
}

fn flag(holds: bool) -> f64 {
    if holds { 1.0 } else { 0.0 }
}

#[expect(clippy::cast_precision_loss, reason = "counts and seconds are far below 2^52")]
fn count(number: usize) -> f64 {
    number as f64
}

#[expect(clippy::cast_precision_loss, reason = "counts and seconds are far below 2^52")]
fn seconds(time: i64) -> f64 {
    time as f64
}
