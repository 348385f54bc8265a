//! Somebody else runs the tool without a pause beside the agent, which rotates.
//!
//! What is claimed, and how it is checked:
//!
//! - **Always**: every version of the bundle that a reader can see parses under OpenSSL's strict rules, has each certificate
//!   once, has all of the distribution's certificates and the anchor that is wanted all the time. (Both runners publish by
//!   rename, and never into each other's temporary file.)
//! - **Whenever the report says converged**: `/status` is read, then the bundle, then `/status` again. If both are the same
//!   report (same cycle: every field equal), if it says converged, and if no change was ordered since before the first (the
//!   sources were last changed before it, and its anchors are those ordered, so no cycle with another aim can be under way),
//!   then the bundle between holds exactly the distribution's certificates and the report's anchors.
//!
//! The second is not a matter of luck: a foreign run lists the anchor directory after it has begun its temporary file, and
//! the agent reads the bundle back only after it has seen no such file. A run that lists before our last change is therefore
//! waited for, and a later one lists what is right.

use std::{
    collections::BTreeSet,
    fs,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::{
    agent::{LoweredAtEnd, fast},
    support::{
        node::{Kind, Node, NodeAgent},
        pki::Ca,
        watchman::{Watchman, judge},
    },
};

const LIMIT: Duration = Duration::from_secs(240);

/// Looks as described above for a while, and returns how often the claim could be checked.
#[track_caller]
fn check_claim(node: &Node, agent: &NodeAgent, foreign: &BTreeSet<String>, set: &[&Ca], span: Duration) -> usize {
    let ours: BTreeSet<String> = set.iter().map(|ca| ca.sha256()).collect();
    let wanted: BTreeSet<String> = foreign.union(&ours).cloned().collect();
    let (end, mut checked) = (Instant::now() + span, 0);
    while Instant::now() < end {
        let before = agent.status().unwrap();
        let bytes = fs::read(node.path(node.kind.bundle())).unwrap();
        let after = agent.status().unwrap();
        let reported: BTreeSet<String> = before["anchors"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|row| row["trusted"] == true)
            .map(|row| row["sha256"].as_str().unwrap().to_owned())
            .collect();
        if before == after && before["converged"] == true && reported == ours {
            let has: BTreeSet<String> =
                nodetrust_core::certificate::bundle::read(&bytes).set.iter().map(ToString::to_string).collect();
            let (more, less) = (has.difference(&wanted).count(), wanted.difference(&has).count());
            assert!(
                (more, less) == (0, 0) && judge(&bytes, &wanted).is_none(),
                "the report says converged, and the bundle has {more} too many and lacks {less}: {:?}\n{before:#}\n{}",
                judge(&bytes, &wanted),
                agent.log_text()
            );
            checked += 1;
        }
        thread::sleep(Duration::from_millis(10));
    }
    checked
}

fn beside_a_foreign_runner(kind: Kind, span: Duration) {
    let node = Node::new(kind, "");
    let (stable, one, two) = (Ca::new("Always Wanted"), Ca::new("Corp Root 2021"), Ca::new("Corp Root 2026"));
    let foreign: BTreeSet<String> = node.bundle().into_iter().collect();
    node.set_source(&[&stable, &one]);
    let agent = node.agent(&fast("1s"));
    agent.wait_converged(&[&stable, &one], LIMIT);
    let mut always = foreign.clone();
    always.insert(stable.sha256());
    let watchman = Watchman::start(node.path(kind.bundle()), always);
    let goes_on = AtomicBool::new(true);
    let sets: [&[&Ca]; 4] = [&[&stable, &two], &[&stable], &[&stable, &one, &two], &[&stable, &one]];
    let (mut rotations, mut checked, runs) = (0, 0, AtomicUsize::new(0));
    thread::scope(|scope| {
        let stop = LoweredAtEnd(&goes_on);
        let runner = scope.spawn(|| {
            while goes_on.load(Ordering::Relaxed) {
                // Its exit code does not matter: beside another runner its `openssl rehash` may fail.
                node.run(&[kind.tool()]);
                runs.fetch_add(1, Ordering::Relaxed);
                thread::sleep(Duration::from_millis(100));
            }
        });
        let end = Instant::now() + span;
        // on a busy machine it takes longer until something was seen
        let is_enough = |rotations, checked| rotations >= 3 && checked >= 30 && runs.load(Ordering::Relaxed) >= 10;
        while Instant::now() < end || !is_enough(rotations, checked) {
            assert!(Instant::now() < end + LIMIT, "{rotations} rotations, {runs:?} runs, {checked} checks");
            let set = sets[rotations % sets.len()];
            node.set_source(set);
            agent.wait_converged(set, LIMIT);
            checked += check_claim(&node, &agent, &foreign, set, Duration::from_secs(2));
            rotations += 1;
        }
        drop(stop);
        runner.join().unwrap();
    });
    println!("{rotations} rotations beside {runs:?} foreign runs, {checked} checks of converged reports");
    let versions = watchman.stop();
    assert!(versions > rotations, "the bundle was watched: {versions} versions");

    // The final state, at rest.
    let set = [&stable, &two];
    node.set_source(&set);
    agent.wait_converged(&set, LIMIT);
    check_claim(&node, &agent, &foreign, &set, Duration::from_secs(1));
    for ca in set {
        assert!(node.clients_trust(ca));
    }
    assert!(!node.clients_trust(&one));
    node.nodetrust(&["plan"]).expect(0);
}

#[test]
fn trixie_beside_a_foreign_runner() {
    beside_a_foreign_runner(Kind::Trixie, Duration::from_secs(60));
}

#[test]
fn rhelish_beside_a_foreign_runner() {
    beside_a_foreign_runner(Kind::Rhelish, Duration::from_secs(30));
}
