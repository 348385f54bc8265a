//! What is to be written to the Node, what was written, and when the next calls are due.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use nodetrust_core::{
    node_status::{self, ConditionStatus, EventKind, NodeEvent, NodeObject, NodeStatus, Signals, TAINT_PATIENCE},
    problem::ProblemKind,
    report::Report,
    time::Time,
};
use tokio::time::Instant;

use super::{
    account::{AccountFiles, is_in_cluster},
    backoff::Backoff,
    failure::ApiFailure,
    round::{Round, RoundResult, WrittenNode},
};
use crate::{
    config::Kubernetes,
    host,
    jitter::part_of,
    serve::metrics::{ApiState, Metrics},
};

/// The Node is read again after this time at the earliest: somebody may have taken away what was written.
const RECHECK: Duration = Duration::from_secs(600);
/// And after this much more at the latest.
const RECHECK_SPREAD: Duration = Duration::from_secs(300);
/// Seconds after which an event that could not be sent is dropped: it tells nobody anything any more.
const STALE: i64 = 3600;
/// Another token or CA ends a pause at once, but not more often than this.
const RENEWALS_APART: Duration = Duration::from_secs(1);
/// How long a loop sleeps that has nothing to do.
const IDLE: Duration = Duration::from_secs(3600);

/// Pending and confirmed Node writes, with their retry times.
pub(super) struct NodeReporter {
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
    object: Backoff,
    events: Backoff,
    /// the files of the service account, as the last calls or the last look found them
    pub(super) account: AccountFiles,
    /// when others last ended a pause
    renewed: Option<Instant>,
    recheck: Instant,
    rechecks: u32,
    /// what is shown of the API, and since when
    shown: Option<(Time, Option<ApiFailure>)>,
}

impl NodeReporter {
    /// A reporter that has written nothing yet.
    pub(super) fn new(node: String, metrics: Arc<Metrics>) -> Self {
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
            object: Backoff::default(),
            events: Backoff::default(),
            account: AccountFiles::default(),
            renewed: None,
            recheck: Instant::now(),
            rechecks: 0,
            shown: None,
        }
    }

    /// Follows other settings.
    pub(super) fn follow(&mut self, settings: &Kubernetes) {
        self.settings = settings.clone();
        self.enabled = settings.enabled.unwrap_or_else(is_in_cluster);
        if !self.settings.events {
            self.waiting.clear();
        }
        self.update();
        self.show();
    }

    /// Takes a report over: what it asks the Node to say, and what has happened since the one before.
    pub(super) fn take(&mut self, report: Arc<Report>) {
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

    /// The calls that are due now; None if none is.
    pub(super) fn next_round(&mut self) -> Option<Round> {
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
        (wants || !ready.is_empty()).then(|| Round {
            node: self.node.clone(),
            signals: wants.then(|| self.signals.clone()),
            known: self.known.clone().filter(|_| self.recheck > now),
            periodic: self.known.is_some(),
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
    pub(super) fn wake(&self) -> Instant {
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

    /// Takes note of what came of a round.
    pub(super) fn done(&mut self, told: RoundResult) {
        let now = Instant::now();
        self.account = told.account;
        for event in told.sent {
            self.sent.insert(event.kind, now);
            if self.waiting.get(&event.kind) == Some(&event) {
                self.waiting.remove(&event.kind);
            }
        }
        let mut failed = false;
        // the events of this round were not tried
        let unheard = matches!(&told.object, Some(Err(failure)) if failure.next_call_would_fail());
        match told.object {
            Some(Ok(WrittenNode { node, had_reason, untainted })) => {
                self.object = Backoff::default();
                if untainted {
                    self.tell_of_doubt();
                }
                if !self.met && had_reason {
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
            Some(Ok(())) => self.events = Backoff::default(),
            Some(Err(failure)) => {
                failed = true;
                self.events.failed(now, &self.node, failure);
            }
            None => {}
        }
        // What fails for both is tried again together. Otherwise each failure would be met twice.
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
    pub(super) fn awaits_account(&self) -> bool {
        let waits = |backoff: &Backoff| backoff.error.as_ref().is_some_and(AccountFiles::may_matter_to);
        self.enabled && [&self.object, &self.events].into_iter().any(waits)
    }

    /// The files of the service account are others than before: what failed for want of them is due.
    pub(super) fn renew(&mut self, files: AccountFiles) {
        let now = Instant::now();
        let soonest = self.renewed.map_or(now, |last| now.max(last + RENEWALS_APART));
        for backoff in [&mut self.object, &mut self.events] {
            if backoff.error.as_ref().is_some_and(|error| self.account.may_be_cured_by(&files, error)) {
                backoff.not_before = Some(soonest);
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
            (Some((_, Some(before))), Some(error)) => error.is_same_news(before),
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

fn wall() -> Time {
    Time(host::wall())
}

#[cfg(test)]
#[path = "reporter_tests.rs"]
mod tests;
