//! A judge of the verdict: layouts of nodes are composed by a seed, over a real containerd of each version, and after everything that
//! nodetrust says a real pull is made from a registry behind the CA. "Trusted" while that pull is refused must be impossible.
//!
//! Here a fixed sample; `scripts/layouts` composes hundreds. Distributions that start a containerd of their own are simulated: their
//! units, paths and manners, over the real containerd. So is the agent's pod, by its rights and namespaces.

mod choices;
mod judge;
mod layout;
mod stage;
mod tally;

use std::{
    collections::BTreeMap,
    env,
    panic::{AssertUnwindSafe, catch_unwind},
    thread,
};

use self::{
    judge::{JudgedLayout, judge},
    layout::NodeLayout,
    stage::Stage,
    tally::LayoutTally,
};
use crate::support::machine::MachineKind;

/// Each version, and each subject. Seeds 4, 7, 30, 51, 65 and 92 were called trusted while their pull was refused: a relative import of
/// k3s' configuration; containerd under a unit that nothing names, beside a containerd.service that serves another socket, or does not
/// run; `SSL_CERT_FILE` and `SSL_CERT_DIR` in the unit's environment.
const SAMPLE: [(u64, MachineKind); 14] = [
    (1, MachineKind::Containerd21),
    (3, MachineKind::Bookworm),
    (4, MachineKind::Bookworm),
    (6, MachineKind::Trixie),
    (7, MachineKind::Bookworm),
    (8, MachineKind::Containerd21),
    (10, MachineKind::Trixie),
    (11, MachineKind::Bookworm),
    (30, MachineKind::Trixie),
    (51, MachineKind::Bookworm),
    (65, MachineKind::Trixie),
    (92, MachineKind::Trixie),
    (4178, MachineKind::Containerd21),
    (7269, MachineKind::Containerd21),
];

/// `NODETRUST_LAYOUTS`: the first seed, how many, and the kinds of machines.
fn asked() -> Option<Vec<NodeLayout>> {
    let text = env::var("NODETRUST_LAYOUTS").ok()?;
    let mut words = text.split_whitespace();
    let (first, count): (u64, u64) = (words.next()?.parse().unwrap(), words.next()?.parse().unwrap());
    let kinds: Vec<MachineKind> = words.map(kind).collect();
    Some((first..first + count).map(|seed| NodeLayout::of(seed, &kinds)).collect())
}

fn kind(word: &str) -> MachineKind {
    [MachineKind::Bookworm, MachineKind::Trixie, MachineKind::Containerd21]
        .into_iter()
        .find(|kind| kind.name() == word)
        .unwrap_or_else(|| {
            panic!("no kind {word}: there are bookworm (containerd 1.6), trixie (1.7) and containerd21 (2.1)")
        })
}

#[test]
fn a_node_that_is_called_trusted_pulls_whatever_its_layout() {
    judge_by_kind(asked().unwrap_or_else(|| layouts_of(&SAMPLE)));
}

fn layouts_of(seeds: &[(u64, MachineKind)]) -> Vec<NodeLayout> {
    seeds.iter().map(|(seed, kind)| NodeLayout::of(*seed, &[*kind])).collect()
}

/// Judges layouts, those of each kind of machine beside those of the others, prints the figures, and fails if a verdict was wrong.
fn judge_by_kind(layouts: Vec<NodeLayout>) {
    let mut by_kind: BTreeMap<&str, Vec<NodeLayout>> = BTreeMap::new();
    for layout in layouts {
        by_kind.entry(layout.kind.name()).or_default().push(layout);
    }
    let judges: Vec<_> = by_kind
        .into_iter()
        .map(|(name, layouts)| {
            let test = thread::current().name().unwrap_or_default().to_owned();
            thread::Builder::new().name(format!("{test} {name}")).spawn(move || judge_all(&layouts)).unwrap()
        })
        .collect();
    let mut tally = LayoutTally::default();
    for judge in judges {
        match judge.join() {
            Ok(of) => tally.add(of),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
    println!("{}", tally.table());
    assert!(tally.wrong().is_empty(), "{}", tally.wrong().join("\n\n"));
}

/// Judges layouts one after the other on one machine of their kind.
fn judge_all(layouts: &[NodeLayout]) -> LayoutTally {
    let stage = Stage::boot(layouts[0].kind);
    let shrinks = env::var_os("NODETRUST_LAYOUTS_SHRINK").is_some();
    let mut tally = LayoutTally::default();
    for layout in layouts {
        match catch_unwind(AssertUnwindSafe(|| judge(&stage, layout))) {
            Ok(judged) => {
                tally.count(&judged);
                if shrinks && judged.is_wrong() {
                    tally.count_simplest(&shrunk(&stage, judged));
                }
            }
            Err(_) => tally.count_unjudged(layout),
        }
    }
    tally
}

/// Makes one subject after the other as usual, as long as the verdict stays wrong.
fn shrunk(stage: &Stage, mut judged: JudgedLayout) -> JudgedLayout {
    'simpler: loop {
        for layout in judged.layout.simpler() {
            let simpler = judge(stage, &layout);
            if simpler.is_wrong() {
                judged = simpler;
                continue 'simpler;
            }
        }
        return judged;
    }
}
