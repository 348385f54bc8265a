//! When cycles run: settling, starvation, back-off, grace, fights. No clock is waited for: tokio's is paused and moved by hand.

use nodetrust_core::{
    planner::Drift,
    report::{Inputs, Report, build},
};

use super::*;

const SETTLE: Duration = Duration::from_secs(2);
const RESYNC: Duration = Duration::from_secs(300);

fn settings() -> Settings {
    Settings { settle: SETTLE, resync: RESYNC, ..Settings::default() }
}

/// A report that nobody looks at.
fn report() -> Report {
    let now = nodetrust_core::time::Moment { wall: 0, boottime: 0, boot_id: String::new() };
    let os = nodetrust_core::store::os_release::OsRelease::parse("");
    let detection = nodetrust_core::store::detect(&os, &std::collections::BTreeMap::new(), None);
    build(Inputs {
        node: "n",
        now: &now,
        os: &os,
        detection: &detection,
        resolved: &nodetrust_core::source::Resolved::default(),
        observed: None,
        plan: None,
        outlook: None,
        export: None,
        ledger: &nodetrust_core::ledger::Ledger::new(),
        policy: &nodetrust_core::source::policy::Policy::default(),
        problems: &[],
    })
}

fn result(outcome: Outcome) -> CycleResult {
    CycleResult {
        report: report(),
        trigger: Trigger::Drift,
        outcome,
        duration: Duration::ZERO,
        extract: None,
        drift: BTreeSet::new(),
        unsettled: false,
        restarts: Vec::new(),
        next_grace: None,
        next_try: None,
        watch: Vec::new(),
        subject: None,
    }
}

/// A cycle that ran the tool, and failed for this reason.
fn failure(kind: ProblemKind) -> CycleResult {
    let mut failed = CycleResult { extract: Some(Duration::from_secs(1)), ..result(Outcome::Failed) };
    failed.report.problems = vec![Problem::new(kind, format!("it says {:?}", Instant::now()), "")];
    failed
}

fn repair() -> CycleResult {
    CycleResult { drift: [Drift::AnchorDeleted].into(), ..result(Outcome::Changed) }
}

/// A pace at rest: the first cycle is done.
fn at_rest() -> Pace {
    let mut pace = Pace::new(&settings());
    pace.now(Trigger::Start);
    assert_eq!(pace.due(), Some(Trigger::Start));
    assert!(pace.done(&result(Outcome::Unchanged)).is_none());
    pace
}

fn hint(pace: &mut Pace, trigger: Trigger) {
    pace.hint(&[trigger].into());
}

async fn pass(seconds: f64) {
    tokio::time::advance(Duration::from_secs_f64(seconds)).await;
}

/// Lets time pass until a cycle is due; returns its trigger and how long that took.
async fn next_cycle(pace: &mut Pace) -> (Trigger, Duration) {
    let started = Instant::now();
    loop {
        if let Some(trigger) = pace.due() {
            return (trigger, started.elapsed());
        }
        let wake = pace.wake();
        assert!(wake > Instant::now(), "it would spin");
        tokio::time::advance(wake - Instant::now()).await;
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[tokio::test(start_paused = true)]
async fn an_answer_of_the_runtime_is_followed_by_a_cycle_at_once() {
    let mut pace = at_rest();
    assert_eq!(pace.due(), None);
    pace.answered();
    assert_eq!(pace.due(), Some(Trigger::Witness));
    // one that comes while a cycle runs may have come too late for it
    pace.answered();
    assert_eq!(pace.due(), None);
    pace.done(&result(Outcome::Failed));
    assert_eq!(pace.due(), Some(Trigger::Witness));
    pace.done(&result(Outcome::Unchanged));
    assert_eq!(pace.due(), None, "once");
}

#[tokio::test(start_paused = true)]
async fn at_rest_only_the_slow_poll_wakes() {
    let mut pace = at_rest();
    assert_eq!(next_cycle(&mut pace).await, (Trigger::Resync, RESYNC));
    pace.done(&result(Outcome::Unchanged));
    assert_eq!(next_cycle(&mut pace).await, (Trigger::Resync, RESYNC));
}

#[tokio::test(start_paused = true)]
async fn a_hint_counts_when_all_is_quiet_for_settle() {
    let mut pace = at_rest();
    hint(&mut pace, Trigger::Source);
    pass(1.9).await;
    assert_eq!(pace.due(), None);
    hint(&mut pace, Trigger::Source); // and again: the wait begins anew
    pass(1.9).await;
    assert_eq!(pace.due(), None);
    pass(0.2).await;
    assert_eq!(pace.due(), Some(Trigger::Source));
    assert_eq!(pace.due(), None, "one cycle at a time");
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_hints_is_not_waited_out_for_ever() {
    let mut pace = at_rest();
    let started = Instant::now();
    while pace.due().is_none() {
        hint(&mut pace, Trigger::Source);
        pass(1.0).await;
        assert!(started.elapsed() <= SETTLE * (MAX_SETTLES + 1), "starved");
    }
    assert!(started.elapsed() >= SETTLE * MAX_SETTLES, "it is waited out for a while");
}

#[tokio::test(start_paused = true)]
async fn the_configuration_comes_before_sources_and_these_before_drift() {
    let mut pace = at_rest();
    for (hints, expected) in [
        (vec![Trigger::Drift, Trigger::Config, Trigger::Source], Trigger::Config),
        (vec![Trigger::Drift, Trigger::Source], Trigger::Source),
        (vec![Trigger::Drift], Trigger::Drift),
    ] {
        pace.hint(&hints.into_iter().collect());
        assert_eq!(next_cycle(&mut pace).await, (expected, SETTLE));
        pace.done(&result(Outcome::Unchanged));
    }
}

#[tokio::test(start_paused = true)]
async fn hints_during_a_cycle_lead_to_another_one() {
    let mut pace = at_rest();
    hint(&mut pace, Trigger::Source);
    assert_eq!(next_cycle(&mut pace).await.0, Trigger::Source);
    hint(&mut pace, Trigger::Drift);
    pass(60.0).await;
    assert_eq!(pace.due(), None, "a cycle is running");
    pace.done(&result(Outcome::Changed));
    assert_eq!(pace.due(), Some(Trigger::Drift), "it has settled long ago");
    pace.done(&result(Outcome::Unchanged));
    assert_eq!(next_cycle(&mut pace).await, (Trigger::Resync, RESYNC), "nothing is left over");
}

#[tokio::test(start_paused = true)]
async fn failures_are_retried_with_pauses_that_double_up_to_resync() {
    let mut pace = at_rest();
    hint(&mut pace, Trigger::Source);
    next_cycle(&mut pace).await;
    for expected in [5, 10, 20, 40, 80, 160] {
        pace.done(&result(Outcome::Failed));
        // the failing cycle has left traces in the store; they do not shorten the pause
        hint(&mut pace, Trigger::Drift);
        assert_eq!(next_cycle(&mut pace).await.1, seconds(expected));
    }
    for _ in 0..20 {
        pace.done(&result(Outcome::Failed));
        hint(&mut pace, Trigger::Drift);
        assert_eq!(next_cycle(&mut pace).await.1, RESYNC);
    }
    // a change of the sources is followed at once, also now
    pace.done(&result(Outcome::Failed));
    hint(&mut pace, Trigger::Source);
    assert_eq!(next_cycle(&mut pace).await, (Trigger::Source, SETTLE));
    // and success forgets the past
    pace.done(&result(Outcome::Changed));
    hint(&mut pace, Trigger::Drift);
    assert_eq!(next_cycle(&mut pace).await, (Trigger::Drift, SETTLE));
    pace.done(&result(Outcome::Failed));
    assert_eq!(next_cycle(&mut pace).await, (Trigger::Retry, seconds(5)));
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_grace_wakes() {
    let grace = |seconds| CycleResult { next_grace: Some(seconds), ..result(Outcome::Changed) };
    let mut pace = at_rest();
    hint(&mut pace, Trigger::Source);
    next_cycle(&mut pace).await;
    pace.done(&grace(60));
    assert_eq!(next_cycle(&mut pace).await, (Trigger::Grace, seconds(61)), "not a second too early");
    pace.done(&grace(0));
    assert_eq!(next_cycle(&mut pace).await, (Trigger::Grace, seconds(1)), "and it does not spin");
    for far in [299, 300, 86_400, u64::MAX] {
        pace.done(&grace(far));
        assert_eq!(next_cycle(&mut pace).await, (Trigger::Resync, RESYNC), "{far}");
    }
    // a failure is not retried later than a grace ends, nor the other way round
    pace.done(&CycleResult { next_grace: Some(2), ..result(Outcome::Failed) });
    assert_eq!(next_cycle(&mut pace).await, (Trigger::Grace, seconds(3)));
    pace.done(&CycleResult { next_grace: Some(60), ..result(Outcome::Failed) });
    assert_eq!(next_cycle(&mut pace).await, (Trigger::Retry, seconds(10)));
}

#[tokio::test(start_paused = true)]
async fn repairs_over_and_over_are_a_fight_and_become_rare() {
    let mut pace = at_rest();
    let mut pauses = Vec::new();
    for n in 1..=12 {
        hint(&mut pace, Trigger::Drift);
        pauses.push(next_cycle(&mut pace).await.1);
        let fight = pace.done(&repair());
        assert_eq!(fight.is_some(), n >= FIGHT_REPAIRS, "after {n} repairs: {fight:?}");
        if let Some(fight) = fight {
            assert_eq!(fight.kind, ProblemKind::DriftFight);
            assert!(fight.text.contains(&format!("{n} times")) && !fight.next.is_empty(), "{fight:?}");
        }
    }
    let expected = [2, 2, 2, 2, 2, 4, 8, 16, 32, 64, 128, 256].map(seconds);
    assert_eq!(pauses, expected);
    // sources and the configuration are not part of the quarrel
    for trigger in [Trigger::Source, Trigger::Config] {
        pace.hint(&[trigger, Trigger::Drift].into());
        assert_eq!(next_cycle(&mut pace).await, (trigger, SETTLE));
        pace.done(&result(Outcome::Unchanged));
    }
    // ten quiet minutes end it
    pass(FIGHT_WINDOW.as_secs_f64() + 1.0).await;
    while pace.due().is_none() {
        pass(1.0).await;
    }
    assert!(pace.done(&result(Outcome::Unchanged)).is_none());
    hint(&mut pace, Trigger::Drift);
    assert_eq!(next_cycle(&mut pace).await, (Trigger::Drift, SETTLE));
}

#[tokio::test(start_paused = true)]
async fn no_pause_of_a_fight_is_longer_than_resync() {
    let mut pace = at_rest();
    for _ in 0..200 {
        hint(&mut pace, Trigger::Drift);
        let (_, pause) = next_cycle(&mut pace).await;
        assert!(pause <= RESYNC, "{pause:?}");
        pace.done(&repair());
    }
}

#[tokio::test(start_paused = true)]
async fn a_reloaded_configuration_changes_the_pace() {
    let mut pace = at_rest();
    pace.follow(&Settings { settle: seconds(7), resync: seconds(60), ..Settings::default() });
    hint(&mut pace, Trigger::Source);
    assert_eq!(next_cycle(&mut pace).await, (Trigger::Source, seconds(7)));
    pace.done(&result(Outcome::Unchanged));
    assert_eq!(next_cycle(&mut pace).await, (Trigger::Resync, seconds(60)));
}

/// How long a failing cycle is followed by another one, the pauses one after the other.
async fn pauses(pace: &mut Pace, failures: impl IntoIterator<Item = CycleResult>) -> Vec<u64> {
    let mut pauses = Vec::new();
    for failure in failures {
        assert!(pace.running || pace.due().is_some());
        pace.done(&failure);
        hint(pace, Trigger::Drift); // what the failed run of the tool has left
        let (trigger, pause) = next_cycle(pace).await;
        assert!(matches!(trigger, Trigger::Retry | Trigger::Resync), "a failure's traces are no drift: {trigger}");
        pauses.push(pause.as_secs());
    }
    pauses
}

#[tokio::test(start_paused = true)]
async fn a_tool_that_fails_again_in_the_same_way_is_run_more_and_more_rarely() {
    let mut pace = Pace::new(&settings());
    pace.now(Trigger::Start);
    let same = std::iter::repeat_with(|| failure(ProblemKind::NotLinked)).take(6);
    assert_eq!(pauses(&mut pace, same).await, [5, 20, 80, 300, 300, 300], "and no more rarely than resync");

    let mut pace = Pace::new(&Settings { resync: Duration::from_secs(2), ..settings() });
    pace.now(Trigger::Start);
    let same = std::iter::repeat_with(|| failure(ProblemKind::NotLinked)).take(5);
    assert_eq!(pauses(&mut pace, same).await, [2, 20, 80, 300, 300], "however short resync is");

    let mut pace = Pace::new(&settings());
    pace.now(Trigger::Start);
    let kinds = [ProblemKind::NotLinked, ProblemKind::Extract].into_iter().cycle().take(6);
    assert_eq!(pauses(&mut pace, kinds.map(failure)).await, [5, 10, 20, 40, 80, 160], "another failure each time");

    let mut pace = Pace::new(&settings());
    pace.now(Trigger::Start);
    let idle = std::iter::repeat_with(|| CycleResult { extract: None, ..failure(ProblemKind::Lock) }).take(4);
    assert_eq!(pauses(&mut pace, idle).await, [5, 10, 20, 40], "the tool did not run");
}
