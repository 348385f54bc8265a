//! The agent: waits for reasons, runs cycles, serves what they found.
//!
//! Cycles run one after the other, each on a thread of its own; the loop here starts them when the schedule says so. It sleeps on
//! events of directories, the table of mounts, signals and one timer: nothing polls while nothing happens.

mod schedule;
pub mod watch;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context as _;
use nodetrust_core::{
    action::Action,
    problem::{Problem, ProblemKind},
    report::{LogLine, LogMemory, Report},
    source::policy::RemovalGate,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{Notify, oneshot, watch as broadcast},
    task::JoinHandle,
    time::sleep_until,
};

use crate::{
    agent::{schedule::Schedule, watch::Hints},
    config::{FleetSettings, Settings, SourceLocation},
    fleet::{self, FleetInputs, FleetLine, facts::NodeFacts},
    host::{self, root::HostRoot, threads},
    log, probe,
    reconcile::{CycleResult, Reconciler},
    runtime::witness::{self, Subject},
    serve::{self, metrics::Metrics},
};
use nodetrust_core::cycle::{CycleOutcome, Trigger};

/// How long a running cycle may go on after SIGTERM, of the 30 s that the manifest gives to the pod. The tool itself is then left to end on
/// its own, under the lock.
const SHUTDOWN: Duration = Duration::from_secs(20);

/// Runs the agent until SIGTERM or SIGINT.
///
/// # Errors
/// If the host root cannot be opened or the address cannot be bound.
pub fn run(settings: Settings, config: PathBuf, host_root: &Path) -> anyhow::Result<()> {
    // A relative path has no directory that can be watched.
    let config = std::path::absolute(&config).unwrap_or(config);
    let reconciler = Reconciler::new(host_root)
        .with_context(|| format!("failed to open the host root `{}`", host_root.display()))?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("failed to start the runtime")?;
    let open = || HostRoot::open(host_root).context("failed to open the host root for probes");
    let roots = [open()?, open()?, open()?];
    let result = runtime.block_on(async { Agent::start(settings, config, reconciler, roots).await?.run().await });
    runtime.shutdown_background();
    result
}

/// Longest text of a cycle's actions in the log, in bytes: a line stays below 2 KB.
const MAX_ACTIONS: usize = 1500;

/// The loop's state.
struct Agent {
    settings: Arc<Settings>,
    config: PathBuf,
    /// what is wrong with the configuration, while the last good one is followed
    config_error: Option<Problem>,
    /// what the log has been told
    told: LogMemory,
    runner: CycleRunner,
    schedule: Schedule,
    hints: Hints,
    metrics: Arc<Metrics>,
    outlets: Outlets,
    tasks: Vec<JoinHandle<()>>,
}

/// Where the loop's findings go: HTTP, probes, questions to the runtime and the cluster run beside it and take them from here.
struct Outlets {
    settings: broadcast::Sender<Arc<Settings>>,
    report: broadcast::Sender<Option<Arc<Report>>>,
    subject: broadcast::Sender<Option<Subject>>,
    /// the runtime has answered
    answered: Arc<Notify>,
    fleet: FleetLine,
    fleet_settings: broadcast::Sender<Option<FleetSettings>>,
    facts: broadcast::Sender<Option<NodeFacts>>,
}

impl Agent {
    /// Binds the address and starts what runs beside the loop.
    async fn start(
        settings: Settings,
        config: PathBuf,
        mut reconciler: Reconciler,
        [probing, asking, listing]: [HostRoot; 3],
    ) -> anyhow::Result<Self> {
        let settings = Arc::new(settings);
        let metrics = Arc::new(Metrics::new());
        let server = serve::bind(&settings.http).await?;
        let (to_report, report) = broadcast::channel(None);
        let (to_settings, follow) = broadcast::channel(settings.clone());
        let (to_subject, subjects) = broadcast::channel(None);
        let answered = Arc::new(Notify::new());
        let node = host::node_name(&probing);
        let (fleet_settings, follow_fleet) = broadcast::channel(settings.fleet.clone());
        let (facts, follow_facts) = broadcast::channel(None);
        let fleet = FleetLine::at_start(settings.fleet.as_ref());
        reconciler.follow_permit(fleet.permit.clone());
        let inputs = FleetInputs { settings: follow_fleet, facts: follow_facts };
        let line = witness::RuntimeLine { subjects, answered: answered.clone() };
        let tasks = vec![
            tokio::spawn(serve::serve(server, report.clone(), metrics.clone())),
            #[cfg(feature = "kubernetes")]
            tokio::spawn(crate::kubernetes::serve(node.clone(), follow.clone(), report.clone(), metrics.clone())),
            #[cfg(feature = "kubernetes")]
            tokio::spawn(fleet::of_cluster(node.clone(), inputs, fleet.clone(), listing)),
            tokio::spawn(witness::serve(asking, node.clone(), follow.clone(), line.clone())),
            tokio::spawn(probe::serve(probing, node.clone(), follow, report, metrics.probes().clone(), line)),
        ];
        Ok(Self {
            schedule: Schedule::new(&node, &settings),
            settings,
            config,
            config_error: None,
            told: LogMemory::default(),
            runner: CycleRunner { reconciler: Arc::new(Mutex::new(reconciler)), running: None },
            hints: Hints::default(),
            metrics,
            outlets: Outlets {
                settings: to_settings,
                report: to_report,
                subject: to_subject,
                answered,
                fleet,
                fleet_settings,
                facts,
            },
            tasks,
        })
    }

    /// Runs cycles until SIGTERM or SIGINT.
    async fn run(mut self) -> anyhow::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hangup = signal(SignalKind::hangup())?;
        warn_without_effect(&self.settings);
        self.hints.watch(&watch_list(&self.settings, &self.config, &[])); // before they are read for the first time
        self.schedule.now(Trigger::Start);
        tracing::info!(version = env!("CARGO_PKG_VERSION"), http = %self.settings.http.address, config = %self.config.display(), "agent started");
        if self.settings.http.address.ip().is_loopback() {
            tracing::info!(
                "only this host reaches the agent's metrics and page, since `http.address` is a loopback address"
            );
        }
        loop {
            if let Some(trigger) = self.schedule.due() {
                self.begin_cycle(trigger);
            }
            tokio::select! {
                Some(triggers) = self.hints.next() => self.schedule.hint(&triggers),
                result = self.runner.result() => self.end_cycle(result?),
                () = self.outlets.answered.notified() => self.schedule.answered(Trigger::Witness),
                () = self.outlets.fleet.word.notified() => self.schedule.answered(Trigger::Fleet),
                () = sleep_until(self.schedule.wake()), if !self.schedule.running => {}
                _ = hangup.recv() => self.schedule.hint(&BTreeSet::from([Trigger::Config])),
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
            }
        }
        tracing::info!("agent stops");
        self.tasks.iter().for_each(JoinHandle::abort);
        // a cycle that is under way may finish: stopping between a write and its extract only makes work for the next start
        if self.runner.running.is_some() && tokio::time::timeout(SHUTDOWN, self.runner.result()).await.is_err() {
            tracing::warn!("a cycle is still running; its tool ends on its own, under the lock");
        }
        Ok(())
    }

    fn begin_cycle(&mut self, trigger: Trigger) {
        // Also at each resync, because an event may be missed; and at the start, because `run` may follow a configuration that was
        // written for an earlier version, and what is wrong with it is told.
        if matches!(trigger, Trigger::Config | Trigger::Resync | Trigger::Retry | Trigger::Start) {
            self.reload();
        }
        tracing::debug!(%trigger, "cycle begins");
        self.runner.start(self.settings.clone(), trigger);
    }

    fn end_cycle(&mut self, mut result: CycleResult) {
        let unwatched = self.hints.watch(&watch_list(&self.settings, &self.config, &result.watch));
        self.schedule.is_blind = !self.hints.see_all();
        if let Some(fight) = self.schedule.done(&result) {
            result.report.add_problem(fight);
        }
        if let Some(problem) = &self.config_error {
            result.report.add_problem(problem.clone());
        }
        if !unwatched.is_empty() {
            self.schedule.hint(&unwatched);
        }
        if let Some(view) = self.outlets.fleet.view.borrow().clone() {
            result.report.add_fleet(view);
        }
        tell(&result, &mut self.told);
        // a copy, in this thread's heap: the original would keep the other thread's heap from shrinking
        let report = Arc::new(result.report.clone());
        self.metrics.record(&result, report.clone());
        self.outlets.facts.send_replace(Some(NodeFacts::of(&report)));
        self.outlets.subject.send_replace(result.subject);
        self.outlets.report.send_replace(Some(report));
    }

    /// Reads the configuration again. While it is invalid, the last good one is followed.
    fn reload(&mut self) {
        match Settings::read(&self.config) {
            Ok(new) if new == *self.settings => self.config_error = None,
            Ok(new) => {
                if new.http != self.settings.http {
                    tracing::warn!("a changed http section is followed after a restart of the agent");
                }
                tracing::info!("configuration reloaded");
                self.config_error = None;
                self.schedule.follow(&new);
                warn_without_effect(&new);
                if new.log.level != self.settings.log.level {
                    log::follow(new.log);
                }
                if new.log.format != self.settings.log.format {
                    tracing::warn!("a changed log.format is followed after a restart of the agent");
                }
                if new.fleet != self.settings.fleet {
                    self.outlets.fleet_settings.send_replace(new.fleet.clone());
                }
                self.settings = Arc::new(new);
                self.outlets.settings.send_replace(self.settings.clone());
            }
            Err(bad) => {
                let next = "correct the configuration; until then the last good one is followed";
                let problem = Problem::new(ProblemKind::Config, bad.to_string(), next);
                if self.config_error.as_ref() != Some(&problem) {
                    tracing::error!(error = %bad, "the configuration is invalid; the old one stays in force");
                }
                self.config_error = Some(problem);
            }
        }
    }
}

fn warn_without_effect(settings: &Settings) {
    for field in &settings.without_effect {
        tracing::warn!(field, "this field of the configuration has no effect with the rest of it");
    }
}

/// Runs one cycle at a time.
struct CycleRunner {
    reconciler: Arc<Mutex<Reconciler>>,
    running: Option<oneshot::Receiver<CycleResult>>,
}

impl CycleRunner {
    /// Starts a cycle on a thread of its own: the allocator keeps what a thread has freed until the thread ends. On a node that has no
    /// thread left the cycle runs here, and nobody is served meanwhile.
    fn start(&mut self, settings: Arc<Settings>, trigger: Trigger) {
        let reconciler = self.reconciler.clone();
        self.running = Some(threads::beside(move || {
            let mut reconciler = reconciler.lock().unwrap_or_else(PoisonError::into_inner);
            reconciler.cycle(&settings, trigger)
        }));
    }

    /// Waits for the running cycle's end, for ever if there is none.
    ///
    /// # Errors
    /// If it has panicked.
    async fn result(&mut self) -> anyhow::Result<CycleResult> {
        let Some(running) = &mut self.running else { return std::future::pending().await };
        let result = running.await;
        self.running = None;
        result.context("a cycle has ended without a result; see the log above")
    }
}

/// Which directories to watch and why.
fn watch_list(settings: &Settings, config: &Path, host: &[PathBuf]) -> Vec<(PathBuf, Trigger)> {
    let mut list = Vec::new();
    if let Some(dir) = config.parent() {
        list.push((dir.to_owned(), Trigger::Config));
    }
    for source in &settings.sources {
        if let SourceLocation::Path(path) = &source.from {
            // a file is watched through its directory
            let dir = if path.is_dir() { Some(path.as_path()) } else { path.parent() };
            list.extend(dir.map(|dir| (dir.to_owned(), Trigger::Source)));
        }
    }
    if settings.policy.removal_gate == RemovalGate::Fleet {
        list.extend(settings.approvals.iter().map(|dir| (dir.clone(), Trigger::Grace)));
    }
    list.extend(host.iter().map(|dir| (dir.clone(), Trigger::Drift)));
    list
}

/// Tells the log what a cycle did, and what has gone wrong or is over since the one before.
fn tell(result: &CycleResult, memory: &mut LogMemory) {
    let report = &result.report;
    let milliseconds = u64::try_from(result.duration.as_millis()).unwrap_or(u64::MAX);
    let fails_anew = memory.fails_anew(report);
    match result.outcome {
        CycleOutcome::Unchanged => tracing::debug!(trigger = %result.trigger, milliseconds, "cycle without changes"),
        CycleOutcome::Changed => {
            let actions = report.cycle.as_ref().map(|cycle| shown_actions(&cycle.actions)).unwrap_or_default();
            tracing::info!(trigger = %result.trigger, milliseconds, actions, "trust changed and verified");
        }
        CycleOutcome::Failed if !fails_anew => {
            tracing::debug!(trigger = %result.trigger, milliseconds, reason = report.headline, "the node still is not as it should be");
        }
        CycleOutcome::Failed => {
            tracing::error!(trigger = %result.trigger, milliseconds, reason = report.headline, "the node is not as it should be")
        }
    }
    for drift in &result.drift {
        tracing::warn!(kind = drift.as_str(), "drift: somebody else changed the store");
    }
    for LogLine { over, kind, about, text, next } in memory.take(report) {
        if over {
            tracing::info!(kind, about, "over: {text}");
        } else {
            tracing::warn!(kind, about, next, "{text}");
        }
    }
}

/// The actions on one line, without the columns of the screen, in at most [`MAX_ACTIONS`] bytes.
fn shown_actions(actions: &[Action]) -> String {
    let mut shown = String::new();
    for (index, action) in actions.iter().enumerate() {
        let text = action.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        if shown.len() + text.len() > MAX_ACTIONS {
            return format!("{shown}; and {} more", actions.len() - index);
        }
        if !shown.is_empty() {
            shown.push_str("; ");
        }
        shown.push_str(&text);
    }
    shown
}
