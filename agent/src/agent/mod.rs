//! The agent: waits for reasons, runs cycles, serves what they found.
//!
//! Cycles run one after the other, each on a thread of its own; this module's loop decides when. It sleeps on inotify, the table of
//! mounts, signals and one timer: nothing polls while nothing happens.

pub mod watch;
use std::{
    collections::{BTreeSet, VecDeque},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context as _;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{Notify, oneshot, watch as broadcast},
    time::{Instant, sleep_until},
};

use nodetrust_core::{
    action::Action,
    problem::{Problem, ProblemKind},
    runtime::trust::RuntimeState,
};

use crate::{
    agent::watch::Hints,
    config::{Settings, SourceLocation},
    host::{self, root::HostRoot, threads},
    probe,
    reconcile::{CycleResult, Failures, Reconciler},
    runtime::witness,
    serve::{self, metrics::Metrics},
};
use nodetrust_core::cycle::{CycleOutcome, Trigger};

/// A stream of hints is waited out for no longer than this many times `settle`.
const MAX_SETTLES: u32 = 10;
/// Drift repairs within this time that count as a fight.
const FIGHT_WINDOW: Duration = Duration::from_secs(600);
/// How many of them.
const FIGHT_REPAIRS: usize = 5;
/// First pause after a failed cycle; it doubles up to `resync`, and twice where the tool was run and the cycle failed as the one
/// before.
const FIRST_RETRY: Duration = Duration::from_secs(5);
/// Longest pause before a tool is run again that has failed in the same way, where `resync` is shorter.
const LONGEST_RETRY: Duration = Duration::from_secs(300);
/// Longest time between two cycles where the kernel does not tell of every change: no inotify instance or watch is left.
const BLIND_RESYNC: Duration = Duration::from_secs(30);
/// How long a running cycle may go on after SIGTERM. The tool itself is then left to end on its own, under the lock.
const SHUTDOWN: Duration = Duration::from_secs(10);

/// Runs the agent until SIGTERM or SIGINT.
///
/// # Errors
/// If the host root cannot be opened or the address cannot be bound.
pub fn run(settings: Settings, config: PathBuf, host_root: &Path) -> anyhow::Result<()> {
    // a relative path has no directory that could be watched
    let config = std::path::absolute(&config).unwrap_or(config);
    let reconciler = Reconciler::new(host_root)
        .with_context(|| format!("failed to open the host root `{}`", host_root.display()))?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("failed to start the runtime")?;
    let open = || HostRoot::open(host_root).context("failed to open the host root for probes");
    let result = runtime.block_on(agent(Arc::new(settings), config, reconciler, [open()?, open()?]));
    runtime.shutdown_background();
    result
}

/// The host, of which one cycle may run.
struct Owner {
    reconciler: Arc<Mutex<Reconciler>>,
    running: Option<oneshot::Receiver<CycleResult>>,
}

impl Owner {
    /// Starts a cycle. It has a thread of its own, since the allocator keeps what a thread has freed until the thread ends; on a node
    /// that has none left it runs here, and nobody is served meanwhile.
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

async fn agent(
    mut settings: Arc<Settings>,
    config: PathBuf,
    reconciler: Reconciler,
    [probing, asking]: [HostRoot; 2],
) -> anyhow::Result<()> {
    let metrics = Arc::new(Metrics::new());
    let (publish, report) = broadcast::channel(None);
    let server = serve::bind(&settings.http).await?;
    let server = tokio::spawn(serve::serve(server, report.clone(), metrics.clone()));
    let (followed, follow) = broadcast::channel(settings.clone());
    let node = host::node_name(&probing);
    let (introduce, subjects) = broadcast::channel(None);
    let answered = Arc::new(Notify::new());
    let line = witness::RuntimeLine { subjects, answered: answered.clone() };
    #[cfg(feature = "kubernetes")]
    let cluster = tokio::spawn(crate::kubernetes::serve(node.clone(), follow.clone(), report.clone(), metrics.clone()));
    let witnesses = tokio::spawn(witness::serve(asking, node.clone(), follow.clone(), line.clone()));
    let probes = tokio::spawn(probe::serve(probing, node, follow, report, metrics.probes().clone(), line));
    let mut hints = Hints::default();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut owner = Owner { reconciler: Arc::new(Mutex::new(reconciler)), running: None };
    warn_without_effect(&settings);

    let mut pace = Pace::new(&settings);
    let mut config_error: Option<Problem> = None;
    hints.watch(&watch_list(&settings, &config, &[])); // before they are read for the first time
    pace.now(Trigger::Start);
    tracing::info!(version = env!("CARGO_PKG_VERSION"), http = %settings.http.address, config = %config.display(), "agent started");
    loop {
        if let Some(trigger) = pace.due() {
            // also at each slow look, should an event have been missed; at the start for what is wrong with one that was written for
            // an earlier version
            if matches!(trigger, Trigger::Config | Trigger::Resync | Trigger::Retry | Trigger::Start) {
                reload(&mut settings, &config, &mut config_error, &mut pace);
                followed.send_if_modified(|known| {
                    let changed = !Arc::ptr_eq(known, &settings);
                    known.clone_from(&settings);
                    changed
                });
            }
            tracing::debug!(%trigger, "cycle begins");
            owner.start(settings.clone(), trigger);
        }
        tokio::select! {
            Some(triggers) = hints.next() => pace.hint(&triggers),
            result = owner.result() => {
                let mut result = result?;
                let unwatched = hints.watch(&watch_list(&settings, &config, &result.watch));
                pace.is_blind = !hints.see_all();
                if let Some(fight) = pace.done(&result) {
                    result.report.add_problem(fight);
                }
                if let Some(problem) = &config_error {
                    result.report.add_problem(problem.clone());
                }
                if !unwatched.is_empty() {
                    pace.hint(&unwatched);
                }
                log(&result);
                // a copy, in this thread's heap: the original would keep the other thread's from shrinking
                let report = Arc::new(result.report.clone());
                metrics.record(&result, report.clone());
                introduce.send_replace(result.subject.clone());
                publish.send_replace(Some(report));
            },
            () = answered.notified() => pace.answered(),
            () = sleep_until(pace.wake()), if !pace.running => {}
            _ = hangup.recv() => pace.hint(&BTreeSet::from([Trigger::Config])),
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    tracing::info!("agent stops");
    server.abort();
    probes.abort();
    witnesses.abort();
    #[cfg(feature = "kubernetes")]
    cluster.abort();
    // a cycle that is under way is let finish: stopping between a write and its extract only makes work for the next start
    if owner.running.is_some() && tokio::time::timeout(SHUTDOWN, owner.result()).await.is_err() {
        tracing::warn!("a cycle is still running; its tool ends on its own, under the lock");
    }
    Ok(())
}

fn reload(settings: &mut Arc<Settings>, config: &Path, error: &mut Option<Problem>, pace: &mut Pace) {
    match Settings::read(config) {
        Ok(new) if new == **settings => *error = None,
        Ok(new) => {
            if new.http != settings.http {
                tracing::warn!("a changed http section is followed after a restart of the agent");
            }
            tracing::info!("configuration reloaded");
            *settings = Arc::new(new);
            *error = None;
            pace.follow(settings);
            warn_without_effect(settings);
        }
        Err(bad) => {
            let next = "correct the configuration; until then the last good one is followed";
            let problem = Problem::new(ProblemKind::Config, bad.to_string(), next);
            if error.as_ref() != Some(&problem) {
                tracing::error!(error = %bad, "the configuration is invalid; the old one stays in force");
            }
            *error = Some(problem);
        }
    }
}

fn warn_without_effect(settings: &Settings) {
    for field in &settings.without_effect {
        tracing::warn!(field, "this part of the configuration has no effect in this version");
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
    list.extend(host.iter().map(|dir| (dir.clone(), Trigger::Drift)));
    list
}

fn log(result: &CycleResult) {
    let report = &result.report;
    let milliseconds = result.duration.as_millis();
    match result.outcome {
        CycleOutcome::Unchanged => tracing::debug!(trigger = %result.trigger, milliseconds, "cycle without changes"),
        CycleOutcome::Changed => {
            // in one line, without the columns of the screen
            let text = |action: &Action| action.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
            let actions: Vec<String> = report.cycle.iter().flat_map(|cycle| &cycle.actions).map(text).collect();
            tracing::info!(trigger = %result.trigger, milliseconds, actions = actions.join("; "), "trust changed and verified");
        }
        CycleOutcome::Failed => {
            tracing::error!(trigger = %result.trigger, milliseconds, reason = report.headline, "the node is not as it should be")
        }
    }
    for drift in &result.drift {
        tracing::warn!(kind = drift.as_str(), "drift: somebody else changed the store");
    }
    let trust = &report.runtime_trust;
    if let Some(inferred) = &trust.misled {
        tracing::warn!(inferred, "the runtime's own word contradicts what was inferred: {}", trust.why);
    }
    if trust.state == RuntimeState::Unknown {
        tracing::warn!(next = trust.next, "whether pulls follow is {}", trust.why);
    }
    for problem in &report.problems {
        tracing::warn!(kind = problem.kind.as_str(), next = problem.next, "{}", problem.text);
    }
}

/// When the next cycle runs, and why.
#[derive(Debug)]
struct Pace {
    settle: Duration,
    resync: Duration,
    /// hints that wait for things to settle
    hints: BTreeSet<Trigger>,
    first_hint: Option<Instant>,
    last_hint: Option<Instant>,
    /// the next cycle without any hint
    next: (Instant, Trigger),
    failures: u32,
    ended: Failures,
    repairs: VecDeque<Instant>,
    running: bool,
    /// the runtime has answered since the last cycle began
    answered: bool,
    /// not every change will be told
    is_blind: bool,
}

impl Pace {
    fn new(settings: &Settings) -> Self {
        Self {
            settle: settings.settle,
            resync: settings.resync,
            hints: BTreeSet::new(),
            first_hint: None,
            last_hint: None,
            next: (Instant::now() + settings.resync, Trigger::Resync),
            failures: 0,
            ended: Failures::default(),
            repairs: VecDeque::new(),
            running: false,
            answered: false,
            is_blind: false,
        }
    }

    fn follow(&mut self, settings: &Settings) {
        (self.settle, self.resync) = (settings.settle, settings.resync);
    }

    /// Time until a cycle that nothing has asked for.
    fn resync(&self) -> Duration {
        if self.is_blind { self.resync.min(BLIND_RESYNC) } else { self.resync }
    }

    /// A cycle is due at once.
    fn now(&mut self, trigger: Trigger) {
        self.next = (Instant::now(), trigger);
    }

    /// The runtime has answered: a cycle is due at once, or when the one that runs has ended.
    fn answered(&mut self) {
        self.answered = true;
        if !self.running {
            self.now(Trigger::Witness);
        }
    }

    fn hint(&mut self, hints: &BTreeSet<Trigger>) {
        let now = Instant::now();
        self.hints.extend(hints);
        self.first_hint.get_or_insert(now);
        self.last_hint = Some(now);
    }

    /// When hints have settled.
    fn settled(&self) -> Option<Instant> {
        let (first, last) = (self.first_hint?, self.last_hint?);
        let only_drift = self.hints.iter().all(|hint| *hint == Trigger::Drift);
        if only_drift && self.failures > 0 {
            // a cycle that fails leaves traces of its own in the store: they must not shorten the pause before the next try
            return Some((last + self.settle).max(self.next.0));
        }
        let settle = if only_drift && self.is_fight() { self.fight_pause() } else { self.settle };
        Some((last + settle).min(first + settle.saturating_mul(MAX_SETTLES)))
    }

    /// When to look again whether a cycle is due.
    fn wake(&self) -> Instant {
        self.settled().map_or(self.next.0, |settled| settled.min(self.next.0))
    }

    /// The trigger of a cycle that is due now, if no cycle is running.
    fn due(&mut self) -> Option<Trigger> {
        if self.running || self.wake() > Instant::now() {
            return None;
        }
        let by_hint = self.settled().is_some_and(|settled| settled <= Instant::now());
        let trigger = if by_hint {
            let hints = std::mem::take(&mut self.hints);
            (self.first_hint, self.last_hint) = (None, None);
            // what a failed cycle has left behind is no drift
            let other = if self.failures > 0 { Trigger::Retry } else { Trigger::Drift };
            // the configuration first: it says where the sources are
            [Trigger::Config, Trigger::Source].into_iter().find(|trigger| hints.contains(trigger)).unwrap_or(other)
        } else {
            self.next.1
        };
        self.running = true;
        self.answered = false;
        self.next = (Instant::now() + self.resync, Trigger::Resync);
        Some(trigger)
    }

    /// A cycle has ended. Returns a problem if somebody keeps undoing what the agent does.
    fn done(&mut self, result: &CycleResult) -> Option<Problem> {
        let now = Instant::now();
        self.running = false;
        self.next = (now + self.resync(), Trigger::Resync);
        if let Some(seconds) = result.next_grace {
            // one second more: the clock that counts is a whole number of seconds
            let ends = now + Duration::from_secs(seconds.saturating_add(1).min(self.resync.as_secs() + 1));
            if ends < self.next.0 {
                self.next = (ends, Trigger::Grace);
            }
        }
        if let Some(seconds) = result.next_try {
            let again = now + Duration::from_secs(seconds.saturating_add(1));
            if again < self.next.0 {
                self.next = (again, Trigger::Retry);
            }
        }
        if result.unsettled && now + self.settle < self.next.0 {
            self.next = (now + self.settle, Trigger::Resync);
        }
        self.ended.note(&result.report);
        if result.outcome == CycleOutcome::Failed {
            let again = if result.extract.is_some() { self.ended.alike() } else { 0 };
            let doublings = self.failures.saturating_add(again).min(16);
            let pause = FIRST_RETRY.saturating_mul(2u32.saturating_pow(doublings));
            self.failures += 1;
            // the tool is not run over and over only to fail in the same way, however short `resync` is
            let nothing_else_waits = self.next.1 == Trigger::Resync && !result.unsettled && !self.is_blind;
            let is_again = again > 0 && nothing_else_waits;
            let pause = pause.min(if is_again { self.resync.max(LONGEST_RETRY) } else { self.resync });
            if is_again || now + pause < self.next.0 {
                self.next = (now + pause, Trigger::Retry);
            }
        } else {
            self.failures = 0;
        }
        if self.answered {
            self.now(Trigger::Witness);
        }
        if !result.drift.is_empty() {
            self.repairs.push_back(now);
        }
        while self.repairs.front().is_some_and(|first| now.duration_since(*first) > FIGHT_WINDOW) {
            self.repairs.pop_front();
        }
        self.is_fight().then(|| {
            let text = format!(
                "the store was repaired {} times in {} minutes: somebody keeps undoing it",
                self.repairs.len(),
                FIGHT_WINDOW.as_secs() / 60
            );
            let next = "find the other owner of the anchor directory or bundle (configuration management, an image's own service) and let one of the two do it";
            Problem::new(ProblemKind::DriftFight, text, next)
        })
    }

    fn is_fight(&self) -> bool {
        self.repairs.len() >= FIGHT_REPAIRS
    }

    /// While two owners fight, repairs come more and more rarely.
    fn fight_pause(&self) -> Duration {
        let excess = u32::try_from(self.repairs.len() - FIGHT_REPAIRS.min(self.repairs.len())).unwrap_or(16);
        self.settle.max(Duration::from_secs(1)).saturating_mul(2u32.saturating_pow(excess.min(16) + 1)).min(self.resync)
    }
}

#[cfg(test)]
mod tests;
