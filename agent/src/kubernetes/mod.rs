//! Telling the cluster what the node trusts: the condition, annotation, events and startup taint of `nodetrust_core::node_status`.
//!
//! A task of its own takes each report as it is published; the latest one wins and nothing queues. It waits for nobody, and no
//! cycle waits for it: with the API server slow, refusing or gone, trust is installed all the same, and the Node is told when
//! that works again. What was written is remembered as the server's answer has it, so that at rest there is one read each
//! quarter of an hour and no write.

mod account;
mod api;

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use hyper::StatusCode;
use nodetrust_core::{
    node_status::{self, ConditionStatus, EventKind, NodeEvent, NodeObject, NodeStatus, Signals, TAINT_PATIENCE},
    problem::ProblemKind,
    report::Report,
    time::Time,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use crate::{
    config::{Kubernetes, Settings},
    host,
    jitter::part_of,
    serve::{
        Latest,
        metrics::{ApiState, Metrics},
    },
};
use account::{AccountFiles, AccountWatch};
pub(crate) use api::is_in_cluster;
use api::{Api, Cause, Failure};

/// The Node is looked at again after this time at the earliest: somebody may have taken away what it said.
const RECHECK: Duration = Duration::from_secs(600);
/// And after this much more at the latest.
const RECHECK_SPREAD: Duration = Duration::from_secs(300);
/// A server's wish for a pause is followed up to this.
const LONGEST_WISH: Duration = Duration::from_secs(600);
/// Events that could not be sent for so long tell nobody anything.
const STALE: i64 = 3600;
/// How often a part is written anew at once because somebody else has changed the Node since it was read (409).
const CONFLICT_RETRIES: u32 = 8;
/// Another token or CA ends a pause at once, but not more often than this.
const RENEWALS_APART: Duration = Duration::from_secs(1);
/// How every request calls the program.
pub(crate) const AGENT: &str = concat!("nodetrust/", env!("CARGO_PKG_VERSION"));
/// How long a loop sleeps that has nothing to do.
const IDLE: Duration = Duration::from_secs(3600);

/// What an API server that refuses says in words, for tests/fuzz.
pub(crate) fn words_of_refusal(body: &[u8]) -> String {
    api::reason(body)
}

/// Tells for ever. The first time after the first cycle.
pub async fn serve(
    node: String,
    mut settings: watch::Receiver<Arc<Settings>>,
    mut report: Latest,
    metrics: Arc<Metrics>,
) {
    let mut desk = Desk::new(node, metrics);
    desk.follow(&settings.borrow_and_update().kubernetes);
    let mut round: Option<Pin<Box<dyn Future<Output = Told> + Send>>> = None;
    let mut account = AccountWatch::default();
    loop {
        if round.is_none()
            && let Some(job) = desk.job()
        {
            round = Some(Box::pin(job.run()));
        }
        let awaits_account = round.is_none() && desk.awaits_account();
        if !awaits_account {
            account.rest();
        }
        tokio::select! {
            changed = report.changed() => {
                if changed.is_err() {
                    return;
                }
                let latest = report.borrow_and_update().clone();
                if let Some(latest) = latest {
                    desk.take(latest);
                }
            }
            changed = settings.changed() => {
                if changed.is_err() {
                    return;
                }
                desk.follow(&settings.borrow_and_update().kubernetes);
            }
            told = async { match round.as_mut() { Some(round) => round.await, None => std::future::pending().await } } => {
                round = None;
                desk.done(told);
            }
            files = account.changed(&desk.account), if awaits_account => desk.renew(files),
            () = sleep_until(desk.wake()), if round.is_none() => {}
        }
    }
}

/// What there is to tell, what has been told, and when to go on.
struct Desk {
    node: String,
    metrics: Arc<Metrics>,
    settings: Kubernetes,
    enabled: bool,
    latest: Option<Arc<Report>>,
    /// since when the condition has its status
    turned: Option<(ConditionStatus, Time)>,
    /// since when the store is proven, as far as this agent knows
    proven: Option<Instant>,
    signals: Signals,
    /// the Node as the server last showed it
    known: Option<NodeObject>,
    /// the Node has been read once, and what it said has been compared
    met: bool,
    waiting: BTreeMap<EventKind, NodeEvent>,
    sent: BTreeMap<EventKind, Instant>,
    object: Track,
    events: Track,
    /// the files of the service account, as the last calls or the last look found them
    account: AccountFiles,
    /// when others last ended a pause
    renewed: Option<Instant>,
    recheck: Instant,
    rechecks: u32,
    /// what is shown of the API, and since when
    shown: Option<(Time, Option<Failure>)>,
}

/// Failures in a row, and when to try again.
#[derive(Debug, Default)]
struct Track {
    failures: u32,
    not_before: Option<Instant>,
    error: Option<Failure>,
}

/// Calls that are due together.
struct Job {
    node: String,
    signals: Option<Signals>,
    known: Option<NodeObject>,
    /// a look at how things are, not because of a doubt
    routine: bool,
    events: Vec<NodeEvent>,
}

/// What came of them.
struct Told {
    object: Option<Result<Brought, Failure>>,
    sent: Vec<NodeEvent>,
    events: Option<Result<(), Failure>>,
    /// what the calls were made with
    account: AccountFiles,
}

/// A Node that says what it should.
struct Brought {
    /// as the server shows it
    node: NodeObject,
    /// its condition had the same reason before
    said: bool,
    /// it had the startup taint, which is gone
    untainted: bool,
}

impl Desk {
    fn new(node: String, metrics: Arc<Metrics>) -> Self {
        Self {
            node,
            metrics,
            settings: Kubernetes::default(),
            enabled: false,
            latest: None,
            turned: None,
            proven: None,
            signals: Signals::default(),
            known: None,
            met: false,
            waiting: BTreeMap::new(),
            sent: BTreeMap::new(),
            object: Track::default(),
            events: Track::default(),
            account: AccountFiles::default(),
            renewed: None,
            recheck: Instant::now(),
            rechecks: 0,
            shown: None,
        }
    }

    fn follow(&mut self, settings: &Kubernetes) {
        self.settings = settings.clone();
        self.enabled = settings.enabled.unwrap_or_else(is_in_cluster);
        if !self.settings.events {
            self.waiting.clear();
        }
        self.update();
        self.show();
    }

    /// Takes a report over: what it asks the Node to say, and what has happened since the one before.
    fn take(&mut self, report: Arc<Report>) {
        if self.enabled && self.settings.events {
            for event in node_status::events(&report, self.latest.as_deref()) {
                self.tell_of(event);
            }
        }
        self.latest = Some(report);
        self.update();
    }

    /// Has an event wait to be sent, together with one of its kind that does.
    fn tell_of(&mut self, event: NodeEvent) {
        let event = match self.waiting.get(&event.kind) {
            Some(earlier) => event.after(earlier),
            None => event,
        };
        self.waiting.insert(event.kind, event);
    }

    /// The startup taint has gone: an event tells if there was no proof that it may.
    fn tell_of_doubt(&mut self) {
        let is_unknown = self.turned.is_some_and(|(status, _)| status == ConditionStatus::Unknown);
        if let (true, true, Some(report), Some(taint)) =
            (is_unknown, self.settings.events, &self.latest, &self.settings.startup_taint)
        {
            self.tell_of(node_status::taint_without_proof(report, taint, wall()));
        }
    }

    fn update(&mut self) {
        let Some(report) = &self.latest else { return };
        let condition = node_status::condition(report);
        let status = condition.status;
        let since = self.turned.filter(|(before, _)| *before == status).map_or(report.time, |(_, since)| since);
        self.turned = Some((status, since));
        self.proven = condition.proves_store().then(|| self.proven.unwrap_or_else(Instant::now));
        let overdue = self.doubt_ends().is_some_and(|end| end <= Instant::now());
        let may_go = status == ConditionStatus::True || overdue;
        self.signals = Signals {
            condition: self.settings.condition.then_some((condition, since)),
            annotation: self.settings.annotations.then(|| NodeStatus::of(report).text()),
            done_with: self.settings.startup_taint.clone().filter(|_| may_go),
        };
    }

    /// When the startup taint goes although it is not known whether the runtime trusts. None if that is known, or there is no taint.
    fn doubt_ends(&self) -> Option<Instant> {
        let is_unknown = self.turned.is_some_and(|(status, _)| status == ConditionStatus::Unknown);
        let proven = self.proven.filter(|_| is_unknown && self.settings.startup_taint.is_some())?;
        Some(proven + TAINT_PATIENCE)
    }

    /// When the startup taint goes for that reason and has not been told to go yet.
    fn taint_due(&self) -> Option<Instant> {
        self.doubt_ends().filter(|_| self.signals.done_with.is_none())
    }

    /// The calls that are due now.
    fn job(&mut self) -> Option<Job> {
        if !self.enabled || self.latest.is_none() {
            return None;
        }
        let now = Instant::now();
        if self.taint_due().is_some_and(|due| due <= now) {
            self.update();
        }
        let wall = wall();
        self.waiting.retain(|_, event| wall.0.saturating_sub(event.time.0) < STALE);
        let wants = self.wants_object(now) && self.object.is_due(now);
        let ready: Vec<NodeEvent> = self
            .waiting
            .values()
            .filter(|event| self.may_tell(event.kind) && self.sendable(event.kind).is_none_or(|when| when <= now))
            .cloned()
            .collect();
        let ready = if self.events.is_due(now) { ready } else { Vec::new() };
        (wants || !ready.is_empty()).then(|| Job {
            node: self.node.clone(),
            signals: wants.then(|| self.signals.clone()),
            known: self.known.clone().filter(|_| self.recheck > now),
            routine: self.known.is_some(),
            events: ready,
        })
    }

    fn wants_object(&self, now: Instant) -> bool {
        self.says_something()
            && (self.recheck <= now
                || self
                    .known
                    .as_ref()
                    .is_none_or(|known| !node_status::writes(&self.signals, known, Time(0)).is_empty()))
    }

    fn says_something(&self) -> bool {
        self.signals != Signals::default()
    }

    /// What stands may have been told by an agent before this one: that shows once the Node has been read.
    fn may_tell(&self, kind: EventKind) -> bool {
        self.met || !kind.is_standing() || self.signals.condition.is_none()
    }

    /// When the next event of a kind may be sent, if one was sent before.
    fn sendable(&self, kind: EventKind) -> Option<Instant> {
        self.sent.get(&kind).map(|sent| *sent + Duration::from_secs(kind.pause()))
    }

    /// When to look again whether something is due.
    fn wake(&self) -> Instant {
        let now = Instant::now();
        if !self.enabled || self.latest.is_none() {
            return now + IDLE;
        }
        let object = match (self.says_something(), self.wants_object(now)) {
            (false, _) => now + IDLE,
            (true, true) => self.object.not_before.unwrap_or(now),
            (true, false) => self.recheck,
        };
        let telling = self.waiting.keys().filter(|kind| self.may_tell(**kind));
        let events = telling.map(|kind| self.sendable(*kind).max(self.events.not_before).unwrap_or(now)).min();
        events.into_iter().chain(self.taint_due()).fold(object, Instant::min)
    }

    fn done(&mut self, told: Told) {
        let now = Instant::now();
        self.account = told.account;
        for event in told.sent {
            self.sent.insert(event.kind, now);
            if self.waiting.get(&event.kind) == Some(&event) {
                self.waiting.remove(&event.kind);
            }
        }
        let mut failed = false;
        // the events of this round were not even tried
        let unheard = matches!(&told.object, Some(Err(failure)) if failure.is_final());
        match told.object {
            Some(Ok(Brought { node, said, untainted })) => {
                self.object = Track::default();
                if untainted {
                    self.tell_of_doubt();
                }
                if !self.met && said {
                    self.waiting.retain(|kind, _| !kind.is_standing());
                }
                self.met = true;
                self.rechecks = self.rechecks.wrapping_add(1);
                self.recheck =
                    now + RECHECK + part_of(RECHECK_SPREAD, &format!("{}\nrecheck\n{}", self.node, self.rechecks));
                self.known = Some(node);
            }
            Some(Err(failure)) => {
                failed = true;
                self.known = None;
                self.object.failed(now, &self.node, failure);
            }
            None => {}
        }
        match told.events {
            Some(Ok(())) => self.events = Track::default(),
            Some(Err(failure)) => {
                failed = true;
                self.events.failed(now, &self.node, failure);
            }
            None => {}
        }
        // what fails in both goes on together: otherwise each failure would be met twice
        if unheard || (self.object.error.is_some() && self.events.error.is_some()) {
            let later = self.object.not_before.max(self.events.not_before);
            (self.object.not_before, self.events.not_before) = (later, later);
        }
        if failed {
            self.metrics.count(ProblemKind::Kubernetes);
        }
        self.show();
    }

    /// Whether something waits that other files of the service account may end.
    fn awaits_account(&self) -> bool {
        let waits = |track: &Track| track.error.as_ref().is_some_and(AccountFiles::may_matter_to);
        self.enabled && [&self.object, &self.events].into_iter().any(waits)
    }

    /// The files of the service account are others than before: what failed for want of them is due.
    fn renew(&mut self, files: AccountFiles) {
        let now = Instant::now();
        let soonest = self.renewed.map_or(now, |last| now.max(last + RENEWALS_APART));
        for track in [&mut self.object, &mut self.events] {
            if track.error.as_ref().is_some_and(|error| self.account.may_be_cured_by(&files, error)) {
                track.not_before = Some(soonest);
                self.renewed = Some(soonest);
            }
        }
        self.account = files;
    }

    /// Shows how it stands, and logs it if it is another than before.
    fn show(&mut self) {
        let error = self.object.error.as_ref().or(self.events.error.as_ref()).filter(|_| self.enabled);
        let is_same = match (&self.shown, error) {
            (Some((_, None)), None) => true,
            (Some((_, Some(before))), Some(error)) => error.is_as(before),
            _ => false,
        };
        let since = self.shown.as_ref().map(|(since, _)| *since).filter(|_| is_same).unwrap_or_else(wall);
        self.shown = self.enabled.then(|| (since, error.cloned()));
        self.metrics.show_api(self.enabled.then(|| ApiState {
            since,
            error: error.map(|error| error.text.clone()),
            next: error.map(|error| error.next().into_owned()),
        }));
        match error {
            _ if is_same => {}
            Some(error) => {
                tracing::warn!(
                    error = error.text,
                    next = &*error.next(),
                    "the Kubernetes API cannot be told; it is tried again, and trust does not wait for it"
                );
            }
            None if self.known.is_some() => tracing::info!(node = self.node, "the Node says what it should"),
            None => {}
        }
    }
}

impl Track {
    fn is_due(&self, now: Instant) -> bool {
        self.not_before.is_none_or(|not_before| not_before <= now)
    }

    fn failed(&mut self, now: Instant, node: &str, failure: Failure) {
        self.failures = self.failures.saturating_add(1);
        let wish = failure.retry_after.unwrap_or_default().min(LONGEST_WISH);
        self.not_before = Some(now + node_status::pause(node, self.failures).max(wish));
        self.error = Some(failure);
    }
}

impl Job {
    async fn run(self) -> Told {
        let account = AccountFiles::read();
        let mut told = Told { object: None, sent: Vec::new(), events: None, account };
        let api = match Api::new(&self.node) {
            Ok(api) => api,
            Err(failure) => {
                told.object = self.signals.as_ref().map(|_| Err(failure.clone()));
                told.events = (!self.events.is_empty()).then_some(Err(failure));
                return told;
            }
        };
        if let Some(signals) = &self.signals {
            told.object = Some(bring(&api, signals, self.known, self.routine).await);
        }
        if matches!(&told.object, Some(Err(failure)) if failure.is_final()) {
            return told; // nobody is there: the events wait
        }
        for event in self.events {
            let result = api.tell(&event).await;
            let ends = result.is_err();
            told.events = Some(result);
            if ends {
                break;
            }
            told.sent.push(event);
        }
        told
    }
}

/// Makes the Node say what it should.
async fn bring(api: &Api, signals: &Signals, known: Option<NodeObject>, routine: bool) -> Result<Brought, Failure> {
    let mut node = match known {
        Some(node) => node,
        None => api.read(routine).await?,
    };
    let said = node
        .condition()
        .zip(signals.condition.as_ref())
        .is_some_and(|(is, (wanted, _))| is.reason == wanted.reason.as_str());
    let mut tried = BTreeSet::new();
    let mut failure = None;
    let mut conflicts = 0;
    // anew after each patch: the next one names the version that the last one has made
    while let Some(write) =
        node_status::writes(signals, &node, wall()).into_iter().find(|write| !tried.contains(write.what))
    {
        match api.write(&write).await {
            Ok(new) => node = new,
            Err(refused) if refused.cause == Cause::Refused(StatusCode::CONFLICT) && conflicts < CONFLICT_RETRIES => {
                conflicts += 1;
                node = api.read(false).await?;
                continue;
            }
            // one part may be forbidden and the others not
            Err(refused) if matches!(refused.cause, Cause::Refused(is) if is.is_client_error() && is != 429) => {
                let of_foreign_taint = write.what == node_status::TAINT && signals.takes_foreign_taint();
                failure.get_or_insert(Failure { of_foreign_taint, ..refused });
            }
            Err(other) => return Err(other),
        }
        tried.insert(write.what);
        conflicts = 0;
    }
    if let Some(failure) = failure {
        return Err(failure);
    }
    match node_status::writes(signals, &node, wall()).first() {
        None => Ok(Brought { node, said, untainted: tried.contains(node_status::TAINT) }),
        Some(write) => {
            Err(Failure::of(Cause::Content, &format!("the Node's {} is not as it was written", write.what), None))
        }
    }
}

fn wall() -> Time {
    Time(host::wall())
}

#[cfg(test)]
mod tests;
