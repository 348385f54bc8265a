//! When cycles run: settling, starvation, back-off, grace, fights. No clock is waited for: tokio's is paused and moved by hand.

use nodetrust_core::{
    action::Drift,
    report::{Report, ReportInputs, build},
};

use super::*;
use crate::config::FleetSettings;

const SETTLE: Duration = Duration::from_secs(2);
const RESYNC: Duration = Duration::from_secs(300);

fn settings() -> Settings {
    Settings { settle: SETTLE, resync: RESYNC, ..Settings::default() }
}

/// A report whose content does not matter.
fn report() -> Report {
    let now = nodetrust_core::time::Moment { wall: 0, boottime: 0, boot_id: String::new() };
    let os = nodetrust_core::store::os_release::OsRelease::parse("");
    let detection = nodetrust_core::store::detect(&os, &std::collections::BTreeMap::new(), None);
    build(ReportInputs {
        node: "n",
        now: &now,
        os: &os,
        detection: &detection,
        resolved: &nodetrust_core::source::Resolved::default(),
        observed: None,
        without_tool: None,
        plan: None,
        outlook: None,
        export: None,
        ledger: &nodetrust_core::ledger::Ledger::new(),
        policy: &nodetrust_core::source::policy::Policy::default(),
        problems: &[],
    })
}

fn result(outcome: CycleOutcome) -> CycleResult {
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
    let mut failed = CycleResult { extract: Some(Duration::from_secs(1)), ..result(CycleOutcome::Failed) };
    failed.report.problems = vec![Problem::new(kind, format!("it says {:?}", Instant::now()), "")];
    failed
}

fn repair() -> CycleResult {
    CycleResult { drift: [Drift::AnchorDeleted].into(), ..result(CycleOutcome::Changed) }
}

/// A schedule at rest: the first cycle is done.
fn at_rest() -> Schedule {
    let mut schedule = Schedule::new("n", &settings());
    schedule.now(Trigger::Start);
    assert_eq!(schedule.due(), Some(Trigger::Start));
    assert!(schedule.done(&result(CycleOutcome::Unchanged)).is_none());
    schedule
}

fn hint(schedule: &mut Schedule, trigger: Trigger) {
    schedule.hint(&[trigger].into());
}

async fn pass(seconds: f64) {
    tokio::time::advance(Duration::from_secs_f64(seconds)).await;
}

/// Lets time pass until a cycle is due; returns its trigger and how long that took.
async fn next_cycle(schedule: &mut Schedule) -> (Trigger, Duration) {
    let started = Instant::now();
    loop {
        if let Some(trigger) = schedule.due() {
            return (trigger, started.elapsed());
        }
        let wake = schedule.wake();
        assert!(wake > Instant::now(), "it would spin");
        tokio::time::advance(wake - Instant::now()).await;
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[tokio::test(start_paused = true)]
async fn an_answer_of_the_runtime_is_followed_by_a_cycle_at_once() {
    let mut schedule = at_rest();
    assert_eq!(schedule.due(), None);
    schedule.answered(Trigger::Witness);
    assert_eq!(schedule.due(), Some(Trigger::Witness));
    // A hint during a cycle may have come too late for it.
    schedule.answered(Trigger::Witness);
    assert_eq!(schedule.due(), None);
    schedule.done(&result(CycleOutcome::Failed));
    assert_eq!(schedule.due(), Some(Trigger::Witness));
    schedule.done(&result(CycleOutcome::Unchanged));
    assert_eq!(schedule.due(), None, "once");
}

#[tokio::test(start_paused = true)]
async fn at_rest_only_the_slow_poll_wakes() {
    let mut schedule = at_rest();
    assert_eq!(next_cycle(&mut schedule).await, (Trigger::Resync, RESYNC));
    schedule.done(&result(CycleOutcome::Unchanged));
    assert_eq!(next_cycle(&mut schedule).await, (Trigger::Resync, RESYNC));
}

#[tokio::test(start_paused = true)]
async fn a_hint_counts_when_all_is_quiet_for_settle() {
    let mut schedule = at_rest();
    hint(&mut schedule, Trigger::Source);
    pass(1.9).await;
    assert_eq!(schedule.due(), None);
    hint(&mut schedule, Trigger::Source); // the wait begins anew
    pass(1.9).await;
    assert_eq!(schedule.due(), None);
    pass(0.2).await;
    assert_eq!(schedule.due(), Some(Trigger::Source));
    assert_eq!(schedule.due(), None, "one cycle at a time");
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_hints_is_not_waited_out_for_ever() {
    let mut schedule = at_rest();
    let started = Instant::now();
    while schedule.due().is_none() {
        hint(&mut schedule, Trigger::Source);
        pass(1.0).await;
        assert!(started.elapsed() <= SETTLE * (MAX_SETTLES + 1), "starved");
    }
    assert!(started.elapsed() >= SETTLE * MAX_SETTLES, "it is waited out for a while");
}

#[tokio::test(start_paused = true)]
async fn the_configuration_comes_before_sources_and_these_before_drift() {
    let mut schedule = at_rest();
    for (hints, expected) in [
        (vec![Trigger::Drift, Trigger::Config, Trigger::Source], Trigger::Config),
        (vec![Trigger::Drift, Trigger::Source], Trigger::Source),
        (vec![Trigger::Drift], Trigger::Drift),
    ] {
        schedule.hint(&hints.into_iter().collect());
        assert_eq!(next_cycle(&mut schedule).await, (expected, SETTLE));
        schedule.done(&result(CycleOutcome::Unchanged));
    }
}

#[tokio::test(start_paused = true)]
async fn hints_during_a_cycle_lead_to_another_one() {
    let mut schedule = at_rest();
    hint(&mut schedule, Trigger::Source);
    assert_eq!(next_cycle(&mut schedule).await.0, Trigger::Source);
    hint(&mut schedule, Trigger::Drift);
    pass(60.0).await;
    assert_eq!(schedule.due(), None, "a cycle is running");
    schedule.done(&result(CycleOutcome::Changed));
    assert_eq!(schedule.due(), Some(Trigger::Drift), "it has settled long ago");
    schedule.done(&result(CycleOutcome::Unchanged));
    assert_eq!(next_cycle(&mut schedule).await, (Trigger::Resync, RESYNC), "nothing is left over");
}

#[tokio::test(start_paused = true)]
async fn failures_are_retried_with_pauses_that_double_up_to_resync() {
    let mut schedule = at_rest();
    hint(&mut schedule, Trigger::Source);
    next_cycle(&mut schedule).await;
    for expected in [5, 10, 20, 40, 80, 160] {
        schedule.done(&result(CycleOutcome::Failed));
        // The failed cycle has changed the store; those hints do not shorten the pause.
        hint(&mut schedule, Trigger::Drift);
        assert_eq!(next_cycle(&mut schedule).await.1, seconds(expected));
    }
    for _ in 0..20 {
        schedule.done(&result(CycleOutcome::Failed));
        hint(&mut schedule, Trigger::Drift);
        assert_eq!(next_cycle(&mut schedule).await.1, RESYNC);
    }
    // A change of the sources is followed at once, also during the pause.
    schedule.done(&result(CycleOutcome::Failed));
    hint(&mut schedule, Trigger::Source);
    assert_eq!(next_cycle(&mut schedule).await, (Trigger::Source, SETTLE));
    // A success resets the pauses.
    schedule.done(&result(CycleOutcome::Changed));
    hint(&mut schedule, Trigger::Drift);
    assert_eq!(next_cycle(&mut schedule).await, (Trigger::Drift, SETTLE));
    schedule.done(&result(CycleOutcome::Failed));
    assert_eq!(next_cycle(&mut schedule).await, (Trigger::Retry, seconds(5)));
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_grace_wakes() {
    let grace = |seconds| CycleResult { next_grace: Some(seconds), ..result(CycleOutcome::Changed) };
    let mut schedule = at_rest();
    hint(&mut schedule, Trigger::Source);
    next_cycle(&mut schedule).await;
    schedule.done(&grace(60));
    assert_eq!(next_cycle(&mut schedule).await, (Trigger::Grace, seconds(61)), "not a second too early");
    schedule.done(&grace(0));
    assert_eq!(next_cycle(&mut schedule).await, (Trigger::Grace, seconds(1)), "and it does not spin");
    for far in [299, 300, 86_400, u64::MAX] {
        schedule.done(&grace(far));
        assert_eq!(next_cycle(&mut schedule).await, (Trigger::Resync, RESYNC), "{far}");
    }
    // The earlier of retry and end of a grace comes first.
    schedule.done(&CycleResult { next_grace: Some(2), ..result(CycleOutcome::Failed) });
    assert_eq!(next_cycle(&mut schedule).await, (Trigger::Grace, seconds(3)));
    schedule.done(&CycleResult { next_grace: Some(60), ..result(CycleOutcome::Failed) });
    assert_eq!(next_cycle(&mut schedule).await, (Trigger::Retry, seconds(10)));
}

#[tokio::test(start_paused = true)]
async fn repairs_over_and_over_are_a_fight_and_become_rare() {
    let mut schedule = at_rest();
    let mut pauses = Vec::new();
    for n in 1..=12 {
        hint(&mut schedule, Trigger::Drift);
        pauses.push(next_cycle(&mut schedule).await.1);
        let fight = schedule.done(&repair());
        assert_eq!(fight.is_some(), n >= FIGHT_REPAIRS, "after {n} repairs: {fight:?}");
        if let Some(fight) = fight {
            assert_eq!(fight.kind, ProblemKind::DriftFight);
            assert!(fight.text.contains(&format!("{n} times")) && !fight.next.is_empty(), "{fight:?}");
        }
    }
    let expected = [2, 2, 2, 2, 2, 4, 8, 16, 32, 64, 128, 256].map(seconds);
    assert_eq!(pauses, expected);
    // Changes of sources and configuration do not count as a fight.
    for trigger in [Trigger::Source, Trigger::Config] {
        schedule.hint(&[trigger, Trigger::Drift].into());
        assert_eq!(next_cycle(&mut schedule).await, (trigger, SETTLE));
        schedule.done(&result(CycleOutcome::Unchanged));
    }
    // Ten quiet minutes end the fight.
    pass(FIGHT_WINDOW.as_secs_f64() + 1.0).await;
    while schedule.due().is_none() {
        pass(1.0).await;
    }
    assert!(schedule.done(&result(CycleOutcome::Unchanged)).is_none());
    hint(&mut schedule, Trigger::Drift);
    assert_eq!(next_cycle(&mut schedule).await, (Trigger::Drift, SETTLE));
}

#[tokio::test(start_paused = true)]
async fn no_pause_of_a_fight_is_longer_than_resync() {
    let mut schedule = at_rest();
    for _ in 0..200 {
        hint(&mut schedule, Trigger::Drift);
        let (_, pause) = next_cycle(&mut schedule).await;
        assert!(pause <= RESYNC, "{pause:?}");
        schedule.done(&repair());
    }
}

#[tokio::test(start_paused = true)]
async fn a_reloaded_configuration_changes_the_pace() {
    let mut schedule = at_rest();
    schedule.follow(&Settings { settle: seconds(7), resync: seconds(60), ..Settings::default() });
    hint(&mut schedule, Trigger::Source);
    assert_eq!(next_cycle(&mut schedule).await, (Trigger::Source, seconds(7)));
    schedule.done(&result(CycleOutcome::Unchanged));
    assert_eq!(next_cycle(&mut schedule).await, (Trigger::Resync, seconds(60)));
}

/// How long a failing cycle is followed by another one, the pauses one after the other.
async fn pauses(schedule: &mut Schedule, failures: impl IntoIterator<Item = CycleResult>) -> Vec<u64> {
    let mut pauses = Vec::new();
    for failure in failures {
        assert!(schedule.running || schedule.due().is_some());
        schedule.done(&failure);
        hint(schedule, Trigger::Drift); // the failed run of the tool causes this hint
        let (trigger, pause) = next_cycle(schedule).await;
        assert!(matches!(trigger, Trigger::Retry | Trigger::Resync), "a failure's traces are no drift: {trigger}");
        pauses.push(pause.as_secs());
    }
    pauses
}

#[tokio::test(start_paused = true)]
async fn a_tool_that_fails_again_in_the_same_way_is_run_more_and_more_rarely() {
    let mut schedule = Schedule::new("n", &settings());
    schedule.now(Trigger::Start);
    let same = std::iter::repeat_with(|| failure(ProblemKind::NotLinked)).take(6);
    assert_eq!(pauses(&mut schedule, same).await, [5, 20, 80, 300, 300, 300], "and no more rarely than resync");

    let mut schedule = Schedule::new("n", &Settings { resync: Duration::from_secs(2), ..settings() });
    schedule.now(Trigger::Start);
    let same = std::iter::repeat_with(|| failure(ProblemKind::NotLinked)).take(5);
    assert_eq!(pauses(&mut schedule, same).await, [2, 20, 80, 300, 300], "however short resync is");

    let mut schedule = Schedule::new("n", &settings());
    schedule.now(Trigger::Start);
    let kinds = [ProblemKind::NotLinked, ProblemKind::Extract].into_iter().cycle().take(6);
    assert_eq!(pauses(&mut schedule, kinds.map(failure)).await, [5, 10, 20, 40, 80, 160], "another failure each time");

    let mut schedule = Schedule::new("n", &settings());
    schedule.now(Trigger::Start);
    let idle = std::iter::repeat_with(|| CycleResult { extract: None, ..failure(ProblemKind::Lock) }).take(4);
    assert_eq!(pauses(&mut schedule, idle).await, [5, 10, 20, 40], "the tool did not run");
}

#[tokio::test(start_paused = true)]
async fn nodes_of_a_fleet_do_not_all_follow_a_new_source_at_once() {
    let settings = Settings { fleet: Some(FleetSettings::default()), ..settings() };
    let mut waits = Vec::new();
    for node in ["a", "b", "c", "d"] {
        let mut schedule = Schedule::new(node, &settings);
        hint(&mut schedule, Trigger::Source);
        let (trigger, waited) = next_cycle(&mut schedule).await;
        assert_eq!(trigger, Trigger::Source);
        assert!((SETTLE..=SETTLE + SOURCE_SPREAD).contains(&waited), "{node}: {waited:?}");
        schedule.done(&result(CycleOutcome::Unchanged));
        hint(&mut schedule, Trigger::Drift);
        assert_eq!(next_cycle(&mut schedule).await, (Trigger::Drift, SETTLE), "a repair does not wait");
        waits.push(waited);
    }
    waits.dedup();
    assert_eq!(waits.len(), 4, "{waits:?}");
}
