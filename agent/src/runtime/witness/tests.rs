//! What is written down of answers, and when.

use nodetrust_core::{ledger::LedgerSource, probe::Failure, runtime::witness::WitnessAnswer, time::Uptime};

use super::*;

fn asked(answer: WitnessAnswer, words: &str, wall: i64) -> Asked {
    let registry = Registry::parse("registry.corp").unwrap();
    let started = Uptime { boot_id: "boot".into(), milliseconds: 1 };
    let witness = Witness {
        process: ServiceProcess { invocation: "i".into(), started },
        set: SetDigest::of(&BTreeSet::new()),
        answer,
        words: words.into(),
        verifies_tls: true,
        anchor: None,
        own_roots: true,
        handshake_error: None,
        at: Moment { wall, boottime: u64::try_from(wall).unwrap(), boot_id: "boot".into() },
        restarted: None,
    };
    Asked { probe: Probe::not_reached(&registry.server(), &Failure::NotTls), registry, witness }
}

#[test]
fn an_answer_is_written_down_once_and_changes_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let root = HostRoot::open(dir.path()).unwrap();
    std::fs::create_dir(dir.path().join("run")).unwrap();
    let note = |answer: &Asked| {
        let is_new = remember(&root, std::slice::from_ref(answer), Duration::from_secs(1)).unwrap();
        let ledger_file::LedgerRead::Good(ledger) = ledger_file::read(&root).unwrap() else { panic!("damaged") };
        (is_new, ledger.witnesses.get("registry.corp:443").map(|witness| (witness.answer, witness.at.wall)))
    };
    let trusts = |wall| asked(WitnessAnswer::Trusts, "not found", wall);
    assert_eq!(note(&trusts(1)), (false, None), "nothing of ours is on the node");
    assert!(!dir.path().join("var").exists() && !dir.path().join("run/nodetrust.lock").exists());

    let ledger = Ledger { sources: [("org".to_owned(), LedgerSource::default())].into(), ..Ledger::new() };
    ledger_file::write(&root, &ledger).unwrap();
    assert_eq!(note(&trusts(1)), (true, Some((WitnessAnswer::Trusts, 1))));
    assert_eq!(note(&trusts(300)), (false, Some((WitnessAnswer::Trusts, 1))), "nothing is written for the time alone");
    let refuses = asked(WitnessAnswer::Refuses, "x509", 600);
    assert_eq!(note(&refuses), (true, Some((WitnessAnswer::Refuses, 600))));
    let other = |words: &str, wall| Asked {
        registry: Registry::parse("other.corp").unwrap(),
        ..asked(WitnessAnswer::NotReached, words, wall)
    };
    assert!(note(&other("from port 1", 600)).0);
    assert!(!note(&other("from port 2", 900)).0, "only the words differ");

    let ledger_file::LedgerRead::Good(kept) = ledger_file::read(&root).unwrap() else { panic!("damaged") };
    assert_eq!(kept.sources, ledger.sources, "what else is in the ledger stays");

    std::fs::write(dir.path().join("var/lib/nodetrust/ledger.json"), "{").unwrap();
    assert!(!remember(&root, &[refuses], Duration::from_secs(1)).unwrap(), "a damaged ledger is the next cycle's");
}

#[test]
fn no_two_questions_ask_for_the_same() {
    let (one, other) = (digits(), digits());
    assert!(one != other && one.len() == 64 && one.bytes().all(|digit| digit.is_ascii_hexdigit()));
}
