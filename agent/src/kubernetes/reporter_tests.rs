//! When the API is called, with a clock that the test winds. The calls themselves are tested against servers in tests/it.

use hyper::StatusCode;
use nodetrust_core::{
    certificate::fingerprint::SetDigest,
    report::{NodeVerdict, StoreView},
    runtime::trust::{RuntimeState, RuntimeTrust},
    store::Family,
};
use serde_json::json;
use tokio::time::sleep_until;

use super::*;
use crate::kubernetes::failure::FailureCause;

fn report(headline: &str) -> Arc<Report> {
    let digest = SetDigest::of(&std::collections::BTreeSet::new());
    Arc::new(Report {
        version: 1,
        node: "a17".into(),
        time: wall(),
        verdict: NodeVerdict::Trusted,
        headline: headline.into(),
        converged: true,
        desired_digest: digest,
        sources_digest: digest,
        effective_digest: digest,
        sources: Vec::new(),
        anchors: Vec::new(),
        store: StoreView { family: Some(Family::Debian), was_read: true, ..StoreView::default() },
        runtime: None,
        runtime_trust: RuntimeTrust::default(),
        export: None,
        export_pkcs12: None,
        foreign: Vec::new(),
        distrusted: Vec::new(),
        fleet: None,
        problems: Vec::new(),
        pending: Vec::new(),
        next: Vec::new(),
        cycle: None,
        changed: None,
    })
}

fn reporter(settings: Kubernetes) -> NodeReporter {
    let mut reporter = NodeReporter::new("a17".into(), Arc::new(Metrics::new()));
    reporter.follow(&Kubernetes { enabled: Some(true), ..settings });
    reporter
}

/// The Node as it is when all was written.
fn told(signals: &Signals) -> NodeObject {
    let (condition, _) = signals.condition.as_ref().unwrap();
    let object = json!({
        "metadata": {"name": "a17", "annotations": {node_status::ANNOTATION: signals.annotation}},
        "status": {"conditions": [{"type": node_status::CONDITION, "status": condition.status.as_str(),
            "reason": condition.reason.as_str(), "message": condition.message}]},
    });
    serde_json::from_value(object).unwrap()
}

fn answer(object: Result<(NodeObject, bool), ApiFailure>) -> RoundResult {
    round(Some(object.map(|(node, said)| WrittenNode { node, had_reason: said, untainted: false })), Vec::new(), None)
}

/// What came of calls that were made with the files that are there.
fn round(
    object: Option<Result<WrittenNode, ApiFailure>>,
    sent: Vec<NodeEvent>,
    events: Option<Result<(), ApiFailure>>,
) -> RoundResult {
    RoundResult { object, sent, events, account: AccountFiles::read() }
}

fn no_answer(text: &str) -> ApiFailure {
    ApiFailure::of(FailureCause::NoAnswer, text, None)
}

fn forbidden(text: &str) -> ApiFailure {
    ApiFailure::of(FailureCause::Refused(hyper::StatusCode::FORBIDDEN), text, None)
}

fn event(kind: EventKind) -> NodeEvent {
    NodeEvent { kind, warning: true, message: String::new(), time: wall() }
}

/// A reporter whose Node says what it should.
fn at_rest() -> NodeReporter {
    let mut reporter = reporter(Kubernetes::default());
    reporter.take(report("good"));
    let job = reporter.next_round().unwrap();
    assert!(job.known.is_none() && !job.periodic);
    reporter.done(answer(Ok((told(&reporter.signals), false))));
    reporter
}

#[tokio::test(start_paused = true)]
async fn at_rest_the_node_is_read_each_ten_to_fifteen_minutes_and_nothing_else() {
    let mut reporter = at_rest();
    for _ in 0..3 {
        let began = Instant::now();
        for _ in 0..20 {
            reporter.take(report("good"));
            assert!(reporter.next_round().is_none());
        }
        sleep_until(reporter.wake()).await;
        let waited = began.elapsed();
        assert!(waited >= RECHECK && waited <= RECHECK + RECHECK_SPREAD, "{waited:?}");
        let job = reporter.next_round().unwrap();
        assert!(job.periodic && job.known.is_none() && job.events.is_empty());
        reporter.done(answer(Ok((told(&reporter.signals), true))));
    }
}

#[tokio::test(start_paused = true)]
async fn news_is_told_at_once_from_what_is_known() {
    let mut reporter = at_rest();
    reporter.take(report("better"));
    assert!(reporter.wake() <= Instant::now());
    assert!(reporter.next_round().unwrap().known.is_some(), "no read is needed");
}

#[tokio::test(start_paused = true)]
async fn failures_are_paced_and_news_does_not_hurry_them() {
    let mut reporter = at_rest();
    let mut last = Duration::ZERO;
    for failures in 1..12 {
        reporter.take(report(&format!("news {failures}")));
        reporter.done(answer(Err(no_answer("no answer"))));
        reporter.take(report("more news"));
        assert!(reporter.next_round().is_none());
        let began = Instant::now();
        sleep_until(reporter.wake()).await;
        last = began.elapsed();
        assert!(reporter.next_round().unwrap().known.is_none(), "what the Node says is in doubt");
    }
    assert!(last >= Duration::from_secs(150) && last <= Duration::from_secs(300), "{last:?}");
    reporter.done(answer(Ok((told(&reporter.signals), true))));
    assert!(reporter.next_round().is_none());
    let wish = ApiFailure { retry_after: Some(Duration::from_secs(77)), ..no_answer("busy") };
    reporter.take(report("again"));
    reporter.done(answer(Err(wish)));
    let began = Instant::now();
    sleep_until(reporter.wake()).await;
    assert!(began.elapsed() >= Duration::from_secs(77));
}

/// A renewed token is tried at once, whatever the pause after the refused one. In an outage tokens do not matter.
#[tokio::test(start_paused = true)]
async fn another_token_or_ca_ends_the_pause_that_it_may_cure() {
    let refused = |status| ApiFailure::of(FailureCause::Refused(status), "refused", None);
    let patient = |failure| ApiFailure { retry_after: Some(Duration::from_secs(300)), ..failure };
    let [none, token, ca, both] =
        [(None, None), (Some([1; 32]), None), (None, Some([1; 32])), (Some([2; 32]), Some([2; 32]))]
            .map(|(token, ca)| AccountFiles { token, ca });
    for (failure, files, cures) in [
        (refused(StatusCode::UNAUTHORIZED), &token, true),
        (refused(StatusCode::FORBIDDEN), &token, true),
        (refused(StatusCode::UNPROCESSABLE_ENTITY), &token, true),
        (ApiFailure::of(FailureCause::Account, "no token", None), &token, true),
        (ApiFailure::of(FailureCause::Account, "no CA", None), &ca, true),
        (no_answer("unknown issuer"), &ca, true),
        (refused(StatusCode::UNAUTHORIZED), &both, true),
        (refused(StatusCode::UNAUTHORIZED), &ca, false),
        (refused(StatusCode::UNAUTHORIZED), &none, false),
        (no_answer("refused"), &token, false),
        (refused(StatusCode::TOO_MANY_REQUESTS), &both, false),
        (refused(StatusCode::INTERNAL_SERVER_ERROR), &both, false),
    ] {
        let mut reporter = at_rest();
        reporter.take(report("news"));
        let events = Some(Err(patient(ApiFailure { of_event: true, ..failure.clone() })));
        let told = round(Some(Err(patient(failure.clone()))), Vec::new(), events);
        reporter.done(RoundResult { account: none.clone(), ..told });
        assert!(reporter.next_round().is_none());
        assert_eq!(reporter.awaits_account(), AccountFiles::may_matter_to(&failure));
        reporter.renew(files.clone());
        assert_eq!(reporter.next_round().is_some(), cures, "{failure:?} {files:?}");
        assert_eq!(reporter.wake() <= Instant::now(), cures, "{failure:?} {files:?}");
    }
    assert!(!at_rest().awaits_account());
    // A token that keeps changing is tried a limited number of times.
    let mut reporter = at_rest();
    reporter.take(report("news"));
    for n in 0..3 {
        reporter.done(RoundResult { account: none.clone(), ..answer(Err(patient(refused(StatusCode::UNAUTHORIZED)))) });
        reporter.renew(AccountFiles { token: Some([n + 1; 32]), ca: None });
        let began = Instant::now();
        sleep_until(reporter.wake()).await;
        assert!(reporter.next_round().is_some() && began.elapsed() <= RENEWALS_APART);
        assert_eq!(began.elapsed() == Duration::ZERO, n == 0, "{n}");
    }
}

/// Where nobody answers, or everything is forbidden, the Node and the events are tried together: one failure a try.
#[tokio::test(start_paused = true)]
async fn events_wait_for_the_next_try_as_the_node_does() {
    for (object, events) in [(no_answer("refused"), None), (forbidden("forbidden"), Some(forbidden("forbidden")))] {
        let mut reporter = at_rest();
        reporter.take(report("news"));
        // The event comes a moment after the change and is tried alone once where the server answers.
        reporter.done(answer(Err(object.clone())));
        reporter.waiting.insert(EventKind::DriftRepaired, event(EventKind::DriftRepaired));
        if events.is_some() {
            assert!(reporter.next_round().unwrap().signals.is_none());
            reporter.done(round(None, Vec::new(), Some(Err(forbidden("forbidden")))));
        }
        for _ in 0..6 {
            assert!(reporter.next_round().is_none() && reporter.wake() > Instant::now());
            sleep_until(reporter.wake()).await;
            let job = reporter.next_round().unwrap();
            assert!(job.signals.is_some() && job.events.len() == 1);
            let (object, events) = (Some(Err(object.clone())), events.clone().map(Err));
            reporter.done(round(object, Vec::new(), events));
        }
    }
}

/// An outage has many errors: refused, no route, timed out; and each call meets a missing right. It is one problem, and
/// its text is the latest error.
#[tokio::test(start_paused = true)]
async fn an_outage_is_one_piece_of_news() {
    let mut reporter = at_rest();
    reporter.take(report("news"));
    let long_ago = Time(1);
    for [first, second] in
        [[no_answer("refused"), no_answer("timed out")], [forbidden("to write"), forbidden("to read")]]
    {
        reporter.done(answer(Err(first)));
        if let Some((since, _)) = &mut reporter.shown {
            assert!(*since > long_ago, "other news than before");
            *since = long_ago;
        }
        reporter.done(answer(Err(second.clone())));
        let state = reporter.metrics.api().unwrap();
        assert_eq!((state.since, state.error), (long_ago, Some(second.text)));
    }
    assert!(reporter.metrics.api().unwrap().next.unwrap().contains("rights"));

    // The Node may be written again, and events not yet.
    let of_event = ApiFailure { of_event: true, ..forbidden("to send an event") };
    let told = answer(Ok((told(&reporter.signals), true)));
    reporter.done(RoundResult { events: Some(Err(of_event)), ..told });
    let state = reporter.metrics.api().unwrap();
    assert!(state.since > long_ago && state.error.unwrap().contains("event"));
    reporter.done(round(None, Vec::new(), Some(Ok(()))));
    assert_eq!(reporter.metrics.api().unwrap().error, None);
}

#[tokio::test(start_paused = true)]
async fn events_of_a_kind_wait_for_each_other_and_are_told_as_one() {
    let mut reporter = at_rest();
    let send = |reporter: &mut NodeReporter| {
        let job = reporter.next_round().unwrap();
        reporter.done(round(None, job.events.clone(), Some(Ok(()))));
        job.events.into_iter().map(|event| event.message).collect::<Vec<_>>()
    };
    let drift = |message: &str| NodeEvent { message: message.into(), ..event(EventKind::DriftRepaired) };
    reporter.tell_of(drift("1"));
    assert_eq!(send(&mut reporter), ["1"]);
    for message in ["2", "3"] {
        reporter.tell_of(drift(message));
        assert!(reporter.next_round().is_none());
    }
    let began = Instant::now();
    sleep_until(reporter.wake()).await;
    assert!(began.elapsed() >= Duration::from_secs(EventKind::DriftRepaired.pause()));
    assert_eq!(send(&mut reporter), ["2; then 3"]);
    assert!(reporter.waiting.is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_stood_before_the_agent_started_is_no_event() {
    for (said, expected) in [(true, 0), (false, 1)] {
        let mut reporter = reporter(Kubernetes::default());
        reporter.take(report("good"));
        reporter.waiting.insert(EventKind::SourceRejected, event(EventKind::SourceRejected));
        assert!(reporter.next_round().unwrap().events.is_empty(), "the Node is read first");
        reporter.done(answer(Ok((told(&reporter.signals), said))));
        assert_eq!(reporter.next_round().map_or(0, |job| job.events.len()), expected);
    }
}

/// A report of a node whose store is proven, or not, and whose runtime is unknown.
fn doubtful(verdict: NodeVerdict) -> Arc<Report> {
    let mut report = Report::clone(&report("1 anchor in the extracted bundle; whether pulls follow is not known"));
    report.verdict = verdict;
    report.runtime_trust.state = RuntimeState::Unknown;
    Arc::new(report)
}

fn tainted() -> Kubernetes {
    let taint = Some("nodetrust.io/not-ready:NoSchedule".parse().unwrap());
    Kubernetes { condition: true, annotations: true, events: true, startup_taint: taint, ..Kubernetes::default() }
}

#[tokio::test(start_paused = true)]
async fn a_doubt_keeps_a_startup_taint_for_ten_minutes_and_an_event_tells() {
    let mut reporter = reporter(tainted());
    // The ten minutes begin when the store is proven.
    reporter.take(doubtful(NodeVerdict::NotTrusted));
    reporter.done(answer(Ok((told(&reporter.signals), false))));
    tokio::time::advance(TAINT_PATIENCE).await;
    reporter.take(doubtful(NodeVerdict::RuntimeUnknown));
    reporter.done(answer(Ok((told(&reporter.signals), false))));
    assert!(reporter.signals.done_with.is_none() && reporter.next_round().is_none());
    let began = Instant::now();
    while reporter.signals.done_with.is_none() {
        assert!(began.elapsed() < TAINT_PATIENCE);
        sleep_until(reporter.wake()).await;
        if let Some(job) = reporter.next_round() {
            assert!(job.events.is_empty());
            let told = answer(Ok((told(job.signals.as_ref().unwrap()), true)));
            reporter.done(told);
        }
    }
    assert_eq!(began.elapsed(), TAINT_PATIENCE);
    let node = told(&reporter.signals);
    reporter.done(round(Some(Ok(WrittenNode { node, had_reason: true, untainted: true })), Vec::new(), None));
    let event = reporter.waiting.remove(&EventKind::RuntimeUnknown).unwrap();
    assert!(event.warning && event.message.contains("nodetrust.io/not-ready:NoSchedule"), "{event:?}");
    assert!(event.message.contains("after 10 minutes") && event.message.contains("is not known"), "{event:?}");
}

#[tokio::test(start_paused = true)]
async fn a_startup_taint_goes_at_once_with_a_proof_and_tells_of_no_doubt() {
    let new = || reporter(tainted());
    let mut reporter = new();
    reporter.take(doubtful(NodeVerdict::RuntimeUnknown));
    reporter.take(report("good"));
    assert!(reporter.signals.done_with.is_some());
    let node = told(&reporter.signals);
    reporter.done(round(Some(Ok(WrittenNode { node, had_reason: false, untainted: true })), Vec::new(), None));
    assert!(!reporter.waiting.contains_key(&EventKind::RuntimeUnknown));
    // A store that is not proven keeps the taint, however long it takes.
    let mut untrue = new();
    let mut report = Report::clone(&doubtful(NodeVerdict::NotConverged));
    report.verdict = NodeVerdict::NotTrusted;
    untrue.take(Arc::new(report));
    tokio::time::advance(TAINT_PATIENCE * 2).await;
    assert!(untrue.doubt_ends().is_none() && untrue.signals.done_with.is_none());
}

#[tokio::test(start_paused = true)]
async fn what_is_switched_off_is_not_told_and_wakes_nobody() {
    let nothing = Kubernetes { condition: false, annotations: false, events: false, ..Kubernetes::default() };
    let mut quiet = reporter(nothing);
    quiet.take(report("good"));
    assert!(quiet.next_round().is_none() && quiet.wake() > Instant::now() + IDLE / 2);
    let mut reporter = at_rest();
    reporter.follow(&Kubernetes { enabled: Some(false), ..Kubernetes::default() });
    reporter.take(report("news"));
    assert!(reporter.next_round().is_none() && reporter.wake() > Instant::now() + IDLE / 2);
    assert_eq!(reporter.metrics.api(), None);
}
