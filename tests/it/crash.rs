//! `kill -9` at any moment, of the agent or of the tool: nothing is lost meanwhile, and the next run puts it right.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use crate::{
    agent::fast,
    support::{
        node::{Kind, Node},
        pki::Ca,
        process::{descendants, is_alive, kill_9},
        wait_for,
        watchman::Watchman,
    },
};

const LIMIT: Duration = Duration::from_secs(180);

/// Random moments by xorshift64*. `NODETRUST_SEED` repeats a run.
pub struct Moments(u64);

impl Moments {
    /// Seeded from the environment or the clock; prints the seed.
    pub fn new() -> Self {
        let clock = || u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros()).unwrap();
        let seed = std::env::var("NODETRUST_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(clock);
        println!("NODETRUST_SEED={seed}");
        Self(seed | 1)
    }

    /// A random number below the limit.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % limit
    }
}

/// Every temporary file of ours, and of Debian's tool, that lies about on the node. p11-kit, when it is killed, leaves NAME.XXXXXX
/// beside its outputs; these names are not ours to remove, and nobody reads them.
fn left_behind(node: &Node) -> Vec<String> {
    let named = |path: &str| {
        let name = path.rsplit('/').next().unwrap_or_default();
        name.starts_with(".nodetrust-")
            || name.starts_with(".ledger.json")
            || name.starts_with("ca-certificates.tmp.")
            || name == "ca-certificates.crt.new"
            || path.starts_with("/var/lib/nodetrust/tmp")
    };
    node.footprint()
        .into_iter()
        .filter(|(path, what)| !what.starts_with("deleted") && named(path))
        .map(|(path, _)| path)
        .collect()
}

struct Toll {
    agents: usize,
    tools: usize,
}

/// Rotates and kills until enough have died, one to four in a row; after each row the next run must converge.
fn kill_at_random(kind: Kind, kills: usize, tool_milliseconds: u64) {
    let mut random = Moments::new();
    let node = Node::new(kind, "");
    let (stable, one, two) = (Ca::new("Always Wanted"), Ca::new("Corp Root 2021"), Ca::new("Corp Root 2026"));
    let foreign: BTreeSet<String> = node.bundle().into_iter().collect();
    assert!(foreign.len() > 100, "the distribution's certificates");
    node.set_source(&[&stable, &one]);
    let mut agent = node.agent(&fast("0s"));
    agent.wait_converged(&[&stable, &one], LIMIT);

    let mut always = foreign.clone();
    always.insert(stable.sha256());
    let watchman = Watchman::start(node.path(kind.bundle()), always);
    let sets: [&[&Ca]; 4] = [&[&stable, &two], &[&stable, &one, &two], &[&stable, &one], &[&stable]];
    let mut toll = Toll { agents: 0, tools: 0 };
    let mut started = Vec::new();
    let mut round = 0;
    // the tool of a small store is over in a moment: chance may need more kills than that to meet it
    let enough = |toll: &Toll| toll.agents + toll.tools >= kills && toll.agents > 0 && toll.tools > 0;
    while !enough(&toll) && toll.agents + toll.tools < 8 * kills {
        let set = sets[round % sets.len()];
        round += 1;
        for _ in 0..=random.below(4) {
            node.set_source(sets[usize::try_from(random.below(4)).unwrap()]);
            if random.below(2) == 0 {
                // Kill at a random moment while the tool runs, if this change needs the tool.
                let end = Instant::now() + Duration::from_secs(2);
                while descendants(agent.pid()).is_empty() && Instant::now() < end {
                    thread::sleep(Duration::from_millis(1));
                }
                thread::sleep(Duration::from_millis(random.below(tool_milliseconds)));
            } else {
                // Kill at a random moment between noticing the change and finishing it.
                thread::sleep(Duration::from_millis(random.below(500 + tool_milliseconds)));
            }
            let below = descendants(agent.pid());
            started.extend(below.iter().copied());
            if random.below(2) == 0 && !below.is_empty() {
                kill_9(below[usize::try_from(random.below(below.len() as u64)).unwrap()]);
                toll.tools += 1;
                // Not covered: a helper and its agent that are killed in one instant, and a tool that is not. Whoever kills a
                // container kills all three.
                thread::sleep(Duration::from_millis(150));
            } else {
                kill_9(agent.pid());
                toll.agents += 1;
                drop(agent);
                agent = node.agent(&fast("0s"));
            }
        }
        node.set_source(set);
        agent.wait_converged(set, LIMIT);
        let wanted: BTreeSet<String> = foreign.iter().cloned().chain(set.iter().map(|ca| ca.sha256())).collect();
        // A program that the tool had started, and that outlived it, may still publish what it has read: nobody can tell, it is
        // healed as drift.
        let end = Instant::now() + LIMIT;
        loop {
            let bundle = node.bundle();
            let has: BTreeSet<String> = bundle.iter().cloned().collect();
            let found = (has.difference(&wanted).count(), wanted.difference(&has).count(), bundle.len());
            if found == (0, 0, wanted.len()) {
                break;
            }
            let log = agent.log_text();
            assert!(Instant::now() < end, "too many, too few, and all: {found:?} after {round} rounds; log:\n{log}");
            thread::sleep(Duration::from_millis(50));
        }
    }
    assert!(toll.agents > 0 && toll.tools > 0, "{} agents and {} tools died", toll.agents, toll.tools);
    println!("{} agents and {} tools died in {round} rounds", toll.agents, toll.tools);
    // The work that a killed agent had begun ends by itself, under the lock.
    wait_for("the end of all tools", LIMIT, || (!started.iter().any(|pid| is_alive(*pid))).then_some(()));
    drop(agent);
    node.set_source(&[&stable, &two]);
    node.nodetrust(&["apply"]).expect(0);
    for ca in [&stable, &two] {
        assert!(node.clients_trust(ca));
    }
    assert!(!node.clients_trust(&one));
    let versions = watchman.stop();
    assert!(versions > round, "the bundle was watched: {versions} versions in {round} rounds");
    let left = left_behind(&node);
    assert!(left.is_empty(), "left behind: {left:#?}");
}

#[test]
fn trixie_kill_9_at_random_moments() {
    kill_at_random(Kind::Trixie, 32, 900);
}

#[test]
fn rhelish_kill_9_at_random_moments() {
    kill_at_random(Kind::Rhelish, 16, 400);
}

/// The helper holds the lock for the tool. When only the helper dies, the tool must not go on beside the next run.
#[test]
fn a_tool_whose_helper_was_killed_does_not_overlap_with_the_next_run() {
    let node = Node::new(Kind::Trixie, "");
    let (one, two) = (Ca::new("Corp Root"), Ca::new("Inspection CA"));
    node.set_source(&[&one]);
    let agent = node.agent(&fast("1h"));
    agent.wait_converged(&[&one], LIMIT);
    let always: BTreeSet<String> = node.bundle().into_iter().collect();
    let watchman = Watchman::start(node.path(node.kind.bundle()), always);
    node.set_source(&[&one, &two]);
    // The helper, the shell that it started, and the program that the shell runs now.
    let below = wait_for("the tool at work", LIMIT, || Some(descendants(agent.pid())).filter(|below| below.len() >= 3));
    kill_9(below[0]);
    wait_for("the orphaned shell's end", LIMIT, || (!is_alive(below[1])).then_some(()));
    agent.wait_converged(&[&one, &two], LIMIT);
    assert!(node.clients_trust(&one) && node.clients_trust(&two));
    watchman.stop();
    drop(agent);
    assert!(left_behind(&node).is_empty());
}

/// Simulated left-overs: each place where a killed run can leave a file, filled by hand.
fn leftovers_by_hand_are_cleared(kind: Kind) {
    let node = Node::new(kind, "");
    let ca = Ca::new("Corp Root");
    node.set_source(&[&ca]);
    node.nodetrust(&["apply"]).expect(0);
    let bundle_dir = Path::new(kind.bundle()).parent().unwrap().display().to_string();
    let mut places = vec![
        "/var/lib/nodetrust/.ledger.json.tmp".to_owned(),
        "/var/lib/nodetrust/tmp/ca-certificates.tmp.a1B2c3".to_owned(),
    ];
    if kind == Kind::Rhelish {
        places.push("/etc/pki/ca-trust/.nodetrust-0123456789abcdef.tmp".to_owned());
        places.push(format!("{bundle_dir}/.nodetrust-restore.tmp"));
        places.push("/etc/pki/ca-trust/extracted/java/.nodetrust-restore.tmp".to_owned());
        places.push("/etc/pki/ca-trust/extracted/openssl/.nodetrust-restore.tmp".to_owned());
    } else {
        places.push(format!("{}/.nodetrust-0123456789abcdef.tmp", kind.anchors_dir()));
        places.push(format!("{bundle_dir}/.nodetrust-bundle"));
        places.push(format!("{bundle_dir}/.nodetrust-bundle.new"));
    }
    for place in &places {
        node.write(place, "half of something");
    }
    let before = node.bundle();
    node.nodetrust(&["apply"]).expect(0);
    let left = left_behind(&node);
    assert!(left.is_empty(), "left behind: {left:#?}");
    assert_eq!(node.bundle(), before);
    node.nodetrust(&["plan"]).expect(0);
}

#[test]
fn trixie_simulated_leftovers_are_cleared() {
    leftovers_by_hand_are_cleared(Kind::Trixie);
}

#[test]
fn rhelish_simulated_leftovers_are_cleared() {
    leftovers_by_hand_are_cleared(Kind::Rhelish);
}

#[test]
fn a_simulated_stale_new_of_somebody_elses_killed_run_is_not_appended_to() {
    let node = Node::new(Kind::Trixie, "");
    let ca = Ca::new("Corp Root");
    node.set_source(&[&ca]);
    node.nodetrust(&["apply"]).expect(0);
    let whole = node.bundle();
    let stale = node.path("/etc/ssl/certs/ca-certificates.crt.new");
    let bytes = fs::read(node.path(node.kind.bundle())).unwrap();
    fs::write(&stale, &bytes[..bytes.len() / 2]).unwrap();
    let long_ago = SystemTime::now() - Duration::from_secs(3600);
    fs::File::options().write(true).open(&stale).unwrap().set_modified(long_ago).unwrap();
    node.nodetrust(&["apply"]).expect(0);
    assert!(!stale.exists());
    // apt runs the tool next.
    node.run(&[node.kind.tool()]).expect(0);
    assert_eq!(node.bundle(), whole);
}
