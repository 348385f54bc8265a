//! A fleet of simulated nodes that run the agent's own fleet code against a real API server: `scripts/fleet-sim` starts one and runs this.
//!
//! What is real: the protocol, the task that carries it, its HTTP calls, the API server and its etcd. What is simulated: the nodes, their
//! restarts, crashes, health and clocks, and faults of the API server (a call that fails before or after it was carried out). The Node
//! object is answered here, as Ready. `naive` is a loop beside it that does without all of that, to compare what both cost the API server.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    reason = "a program of the tests: a panic of one thread ends the run as it should"
)]

use std::{
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use nodetrust::{
    config::FleetSettings,
    fleet::{
        Caller, FleetAnswer, FleetCall, FleetInputs, FleetLine, calls::ClusterCaller, clock::FleetClock,
        facts::NodeFacts, permit::PermitState, serve,
    },
    kubernetes::FleetApi,
};
use nodetrust_core::{
    fleet::{
        lease::{HALTED, slot_name},
        limit::RestartLimit,
        slots::{SlotAnswer, SlotRequest, SlotTiming},
    },
    node_status::NodeObject,
};
use tokio::sync::watch;

use random::Random;

mod naive;
#[allow(dead_code, unreachable_pub, reason = "it is a file of the tests, which use all of it")]
#[path = "../../../tests/it/support/random.rs"]
mod random;

/// What is simulated.
#[derive(Debug, Clone)]
struct SimulationPlan {
    nodes: usize,
    slots: u32,
    /// From the beginning of a restart to its end.
    restart: Duration,
    timing: SlotTiming,
    seed: u64,
    /// Parts of a hundred: restarts in which the agent dies, calls that fail, by how much clocks run fast or slow.
    crashes: u64,
    faults: u64,
    skew: u64,
    /// The restart, counted from one, after which its node is not healthy; none if it is 0.
    sick: usize,
    /// Run the naive loop, and not the agent's.
    naive: bool,
    limit: Duration,
}

/// Numbers of a run.
#[derive(Default)]
struct RunTally {
    in_flight: AtomicUsize,
    most_in_flight: AtomicUsize,
    done: AtomicUsize,
    calls: Mutex<BTreeMap<&'static str, u64>>,
    writes: Mutex<Vec<u64>>,
    conflicts: AtomicU64,
    crashed: AtomicUsize,
    /// Restarts that have begun.
    begun: AtomicUsize,
    /// When the fleet was halted, and how many restarts had begun by then.
    halted: Mutex<Option<(Instant, usize)>>,
    /// Seconds and restarts in flight.
    history: Mutex<Vec<(u64, usize)>>,
}

/// Whether something happens that happens so many times of a hundred.
fn happens(random: &mut Random, of_a_hundred: u64) -> bool {
    random.next() % 100 < of_a_hundred
}

/// The agent's own caller, with faults, and counted.
struct SimulatedFaults {
    real: ClusterCaller,
    name: String,
    index: usize,
    lots: Random,
    faults: u64,
    tally: Arc<RunTally>,
}

impl SimulatedFaults {
    async fn make(&mut self, call: FleetCall) -> FleetAnswer {
        match &call {
            FleetCall::Node => {
                let ready = serde_json::json!({"metadata": {"name": self.name}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
                return FleetAnswer::Node(serde_json::from_value::<NodeObject>(ready).ok().map(Box::new));
            }
            FleetCall::Workload(_) => return FleetAnswer::Workload(false),
            FleetCall::Slot(request) => {
                let verb = match request {
                    SlotRequest::List { consistent: false } => "list from the cache",
                    SlotRequest::List { consistent: true } => "list",
                    SlotRequest::Create { .. } => "create",
                    SlotRequest::Update { .. } => "patch",
                };
                *self.tally.calls.lock().unwrap().entry(verb).or_default() += 1;
                if !matches!(request, SlotRequest::List { .. }) {
                    self.tally.writes.lock().unwrap()[self.index] += 1;
                }
            }
            FleetCall::Count | FleetCall::Mark(..) => {}
        }
        if happens(&mut self.lots, self.faults) {
            return FleetAnswer::Slot(SlotAnswer::Unknown("a simulated fault before the call".to_owned()));
        }
        let answer = self.real.call(call).await;
        if matches!(answer, FleetAnswer::Slot(SlotAnswer::Conflict)) {
            self.tally.conflicts.fetch_add(1, Ordering::Relaxed);
        }
        if happens(&mut self.lots, self.faults) {
            return FleetAnswer::Slot(SlotAnswer::Unknown("a simulated fault after the call".to_owned()));
        }
        answer
    }
}

impl Caller for SimulatedFaults {
    fn call(&mut self, call: FleetCall) -> Pin<Box<dyn Future<Output = FleetAnswer> + Send + '_>> {
        Box::pin(self.make(call))
    }
}

fn facts(wants_restart: bool, restarted: Option<i64>, is_sick: bool) -> NodeFacts {
    NodeFacts {
        wants_restart,
        digest: "simulated".to_owned(),
        is_healthy: !wants_restart && !is_sick,
        sick: is_sick.then(|| "it is simulated to be sick".to_owned()),
        refuses: None,
        lost: None,
        last_restart: restarted
            .map(|time| nodetrust_core::report::LastRestart { time: nodetrust_core::time::Time(time), outcome: None }),
        socket: None,
        time: nodetrust::host::wall(),
    }
}

/// A simulated node, until it has restarted and is judged.
async fn node(
    index: usize,
    plan: SimulationPlan,
    client: kube::Client,
    tally: Arc<RunTally>,
    began: Instant,
) -> anyhow::Result<()> {
    let name = format!("sim-{index:05}");
    let mut lots = Random(plan.seed ^ u64::try_from(index).unwrap_or(0).wrapping_mul(0x2545_f491_4f6c_dd1d));
    let rate = 1.0 + (lots.next() % 201) as f64 / 100.0 * plan.skew as f64 / 100.0 - plan.skew as f64 / 100.0;
    let (mut wants, mut restarted, mut dies) = (true, None, happens(&mut lots, plan.crashes));
    let mut is_sick = false;
    // every pass of this loop is a life of the agent
    loop {
        let fleet = FleetSettings {
            limit: RestartLimit::Nodes(plan.slots),
            healthy_within: plan.timing.lease,
            ..FleetSettings::default()
        };
        let line = FleetLine::at_start(Some(&fleet));
        let permit = line.permit.clone();
        let (word, view) = (line.word.clone(), line.view.clone());
        let (settings, follow) = watch::channel(Some(fleet));
        let (tell, told) = watch::channel(Some(facts(wants, restarted, is_sick)));
        let named = name.clone();
        let own = client.clone();
        let connect = Box::new(move || Ok(FleetApi::with(own.clone(), &named, "nodetrust")));
        let caller = SimulatedFaults {
            real: ClusterCaller::new(connect, plan.timing, None),
            name: name.clone(),
            index,
            lots: lots.clone(),
            faults: plan.faults,
            tally: tally.clone(),
        };
        let inputs = FleetInputs { settings: follow, facts: told };
        let clock = FleetClock::of_machine().at_rate(rate);
        let task = tokio::spawn(serve(name.clone(), inputs, line, clock, plan.timing, caller));
        let ended = loop {
            let _ = tokio::time::timeout(Duration::from_secs(1), word.notified()).await;
            if wants && permit.begin().is_ok() {
                is_sick = enter(&tally, began) == plan.sick;
                restarted = Some(nodetrust::host::wall());
                let dies_now = std::mem::take(&mut dies);
                let time = plan.restart.mul_f64(0.5 + (lots.next() % 1001) as f64 / 1000.0);
                tokio::time::sleep(if dies_now { time / 2 } else { time }).await;
                leave(&tally, began);
                wants = false;
                if dies_now {
                    tally.crashed.fetch_add(1, Ordering::Relaxed);
                    break false;
                }
                permit.end();
            }
            tell.send_replace(Some(facts(wants, restarted, is_sick)));
            let halts = view.borrow().as_ref().is_some_and(|view| view.halted.as_ref().is_some_and(|halt| halt.own));
            if halts && tally.halted.lock().unwrap().is_none() {
                *tally.halted.lock().unwrap() = Some((Instant::now(), tally.begun.load(Ordering::SeqCst)));
            }
            if !wants && (halts || !is_sick) && matches!(permit.now(), PermitState::Refused(_)) {
                break true;
            }
        };
        if ended {
            // the slot is given back by the task
            tokio::time::sleep(plan.timing.lease / 3).await;
        }
        task.abort();
        drop(settings);
        if ended {
            tally.done.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        tokio::time::sleep(plan.timing.lease / 10).await; // the kubelet starts the agent again
    }
}

/// A restart begins. Returns how many have begun.
fn enter(tally: &RunTally, began: Instant) -> usize {
    let now = tally.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
    tally.most_in_flight.fetch_max(now, Ordering::SeqCst);
    tally.history.lock().unwrap().push((began.elapsed().as_secs(), now));
    tally.begun.fetch_add(1, Ordering::SeqCst) + 1
}

/// Once the fleet is halted: waits longer than anything of it may take, ends the halt as `topology --resume` does, and returns how many
/// restarts have begun after it.
async fn resume(plan: &SimulationPlan, client: &kube::Client, tally: &RunTally) -> anyhow::Result<usize> {
    let (since, before) = loop {
        tokio::time::sleep(Duration::from_millis(100)).await;
        if let Some(halted) = *tally.halted.lock().unwrap() {
            break halted;
        }
    };
    tokio::time::sleep_until((since + plan.timing.lease * 2 + plan.timing.poll * 2).into()).await;
    let later = tally.begun.load(Ordering::SeqCst) - before;
    for slot in 0..plan.slots as usize {
        let patch = serde_json::json!({"metadata": {"annotations": {HALTED: null}}}).to_string();
        let path = format!("{}/{}", naive::LEASES, slot_name(slot));
        let request = hyper::Request::patch(path).header("content-type", "application/merge-patch+json");
        match client.request_text(request.body(patch.into_bytes())?).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(later)
}

fn leave(tally: &RunTally, began: Instant) {
    let now = tally.in_flight.fetch_sub(1, Ordering::SeqCst) - 1;
    tally.history.lock().unwrap().push((began.elapsed().as_secs(), now));
}

fn number(arguments: &BTreeMap<String, String>, name: &str, usual: u64) -> anyhow::Result<u64> {
    match arguments.get(name) {
        Some(text) => text.parse().with_context(|| format!("--{name}: want a whole number")),
        None => Ok(usual),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let mut arguments = BTreeMap::new();
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let Some(name) = word.strip_prefix("--") else { bail!("unknown argument {word}") };
        arguments.insert(name.to_owned(), words.next().with_context(|| format!("--{name}: want a value"))?);
    }
    let milliseconds = |name, usual| number(&arguments, name, usual).map(Duration::from_millis);
    let plan = SimulationPlan {
        nodes: usize::try_from(number(&arguments, "nodes", 100)?)?,
        slots: u32::try_from(number(&arguments, "slots", 10)?)?,
        restart: milliseconds("restart", 5_000)?,
        timing: SlotTiming::new(milliseconds("lease", 60_000)?, milliseconds("poll", 15_000)?),
        seed: number(&arguments, "seed", 1)?,
        crashes: number(&arguments, "crashes", 0)?,
        faults: number(&arguments, "faults", 0)?,
        skew: number(&arguments, "skew", 0)?,
        sick: usize::try_from(number(&arguments, "sick", 0)?)?,
        naive: number(&arguments, "naive", 0)? > 0,
        limit: Duration::from_secs(number(&arguments, "limit", 1_800)?),
    };
    println!("{plan:?}");
    let config = kube::Config::from_kubeconfig(&kube::config::KubeConfigOptions::default()).await?;
    let client = kube::Client::try_from(config)?;
    let tally = Arc::new(RunTally { writes: Mutex::new(vec![0; plan.nodes]), ..RunTally::default() });
    let began = Instant::now();
    let nodes: Vec<_> = (0..plan.nodes)
        .map(|index| match plan.naive {
            true => tokio::spawn(naive::node(index, plan.clone(), client.clone(), tally.clone(), began)),
            false => tokio::spawn(node(index, plan.clone(), client.clone(), tally.clone(), began)),
        })
        .collect();
    let all = async {
        if plan.sick > 0 {
            let later = resume(&plan, &client, &tally).await?;
            println!("{later} restarts began after the halt, of nodes that had their slot already");
            ensure!(later < plan.slots as usize, "restarts began after the halt by nodes that had no slot");
        }
        for node in nodes {
            node.await??;
        }
        anyhow::Ok(())
    };
    let finished = tokio::time::timeout(plan.limit, all).await;
    let took = began.elapsed();
    let mut by_ten_seconds: BTreeMap<u64, usize> = BTreeMap::new();
    for (second, in_flight) in tally.history.lock().unwrap().iter() {
        let most = by_ten_seconds.entry(second / 10).or_default();
        *most = (*most).max(*in_flight);
    }
    let line: Vec<String> = by_ten_seconds.iter().map(|(ten, most)| format!("{} s: {most}", ten * 10)).collect();
    println!("most restarts in flight, by ten seconds: {}", line.join(", "));
    for (verb, count) in tally.calls.lock().unwrap().iter() {
        println!("{verb}: {count} ({:.1} for each node)", *count as f64 / plan.nodes as f64);
    }
    let writes = tally.writes.lock().unwrap();
    let most_writes = writes.iter().max().copied().unwrap_or(0);
    println!(
        "writes for each node: {:.2} in the mean, {most_writes} at most",
        writes.iter().sum::<u64>() as f64 / plan.nodes as f64
    );
    let (done, crashed) = (tally.done.load(Ordering::Relaxed), tally.crashed.load(Ordering::Relaxed));
    let most = tally.most_in_flight.load(Ordering::SeqCst);
    println!(
        "{done} of {} nodes are done after {:.1} s; at most {most} of {} slots in use; {crashed} agents died; {} conflicts",
        plan.nodes,
        took.as_secs_f64(),
        plan.slots,
        tally.conflicts.load(Ordering::Relaxed)
    );
    ensure!(most <= plan.slots as usize, "more restarts in flight than slots");
    ensure!(finished.is_ok() && done == plan.nodes, "not every node is done");
    finished??;
    Ok(())
}
