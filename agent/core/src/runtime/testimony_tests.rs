//! Which answers count, what they prove, and what becomes of them in the ledger.

use super::*;
use crate::{testing::at, time::Uptime};

fn process(started: u64) -> ServiceProcess {
    ServiceProcess {
        invocation: format!("run-{started}"),
        started: Uptime { boot_id: "one".into(), milliseconds: started },
    }
}

fn set(names: &str) -> BTreeSet<Fingerprint> {
    names.bytes().map(|byte| Fingerprint::from_bytes([byte; 32])).collect()
}

fn answer(started: u64, names: &str, answer: WitnessAnswer) -> Witness {
    Witness {
        process: process(started),
        set: SetDigest::of(&set(names)),
        answer,
        words: "so it says".into(),
        verifies_tls: true,
        anchor: set(names).first().copied(),
        own_roots: true,
        handshake_error: None,
        at: at(1_000, 100, "one"),
        restarted: None,
    }
}

fn refusal(started: u64, names: &str) -> Witness {
    answer(started, names, WitnessAnswer::Refuses)
}

const HOST: &str = "registry.test:5443";

fn ledger(witness: Witness) -> Ledger {
    Ledger { witnesses: [(HOST.to_owned(), witness)].into(), ..Ledger::new() }
}

fn wants_restart(ledger: &Ledger, started: u64, names: &str) -> bool {
    Testimony::of(&ledger.witnesses, &process(started), &SetDigest::of(&set(names))).wants_restart()
}

#[test]
fn an_answer_of_another_process_or_about_another_set_says_nothing() {
    let known = ledger(refusal(100, "a"));
    assert!(wants_restart(&known, 100, "a"));
    assert!(!wants_restart(&known, 200, "a") && !wants_restart(&known, 100, "ab"));
    let of = |started, names| {
        let testimony = Testimony::of(&known.witnesses, &process(started), &SetDigest::of(&set(names)));
        testimony.refusal().map(|(host, _)| host)
    };
    assert_eq!((of(100, "a"), of(200, "a"), of(100, "ab")), (Some(HOST), None, None));
}

#[test]
fn a_restart_is_wanted_only_where_programs_that_start_now_trust_the_registry() {
    let broken = Witness { handshake_error: Some("the leaf has expired".into()), ..refusal(100, "a") };
    assert!(!wants_restart(&ledger(broken.clone()), 100, "a"));
    let mut two = ledger(broken);
    two.witnesses.insert("other.test:443".into(), refusal(100, "a"));
    assert!(wants_restart(&two, 100, "a"), "the other one can be cured");
}

#[test]
fn trust_is_a_proof_only_if_it_is_the_process_s_own_and_ends_in_an_anchor_of_ours() {
    let proven = |edit: fn(&mut Witness), setting: Setting| {
        let mut witness = answer(100, "a", WitnessAnswer::Trusts);
        edit(&mut witness);
        let known = ledger(witness);
        Testimony::of(&known.witnesses, &process(100), &SetDigest::of(&set("a"))).proven(&setting)
    };
    assert_eq!(proven(|_| {}, Setting::NotConfigured), set("a"));
    let nothing = set("");
    assert_eq!(
        proven(|witness| witness.verifies_tls = false, Setting::NotConfigured),
        nothing,
        "a mirror may have served"
    );
    assert_eq!(proven(|witness| witness.anchor = None, Setting::NotConfigured), nothing, "a public CA");
    assert_eq!(proven(|witness| witness.answer = WitnessAnswer::NotReached, Setting::NotConfigured), nothing);
    let directory = || Setting::Directory("/etc/containerd/certs.d".into());
    assert_eq!(
        proven(|witness| witness.own_roots = false, directory()),
        nothing,
        "the directory may be hidden tomorrow"
    );
    assert_eq!(proven(|witness| witness.own_roots = false, Setting::Unknown("no TOML".into())), set("a"));
}

#[test]
fn a_crash_neither_forgets_a_restart_nor_repeats_one() {
    let mut known = ledger(refusal(100, "a"));
    note_restart(&mut known, &process(100), &SetDigest::of(&set("a")));
    // The agent was killed before the restart: the same process runs.
    assert!(wants_restart(&known, 100, "a"));
    // The runtime was restarted, and the new process refuses as well.
    note_answer(&mut known, HOST, refusal(200, "a"));
    assert!(!wants_restart(&known, 200, "a"), "once is enough");
    // A second registry that it refuses is no reason either: the process started over this set.
    known.witnesses.insert("other.test:443".into(), refusal(200, "a"));
    assert!(!wants_restart(&known, 200, "a"));
    // Somebody restarts it by hand.
    note_answer(&mut known, HOST, refusal(300, "a"));
    assert!(!wants_restart(&known, 300, "a"));
    // Another set is judged anew.
    note_answer(&mut known, HOST, refusal(300, "ab"));
    assert!(wants_restart(&known, 300, "ab"));
}

#[test]
fn a_registry_that_was_trusted_meanwhile_may_cost_another_restart() {
    let mut known = ledger(refusal(100, "a"));
    note_restart(&mut known, &process(100), &SetDigest::of(&set("a")));
    note_answer(&mut known, HOST, answer(200, "a", WitnessAnswer::Trusts));
    note_answer(&mut known, HOST, refusal(300, "a"));
    assert!(wants_restart(&known, 300, "a"));
}

#[test]
fn only_what_this_process_refuses_of_this_set_is_noted_as_restarted() {
    for witness in [refusal(50, "a"), refusal(100, "ab"), answer(100, "a", WitnessAnswer::Trusts)] {
        let mut known = ledger(witness.clone());
        note_restart(&mut known, &process(100), &SetDigest::of(&set("a")));
        assert_eq!(known.witnesses[HOST], witness);
    }
}

#[test]
fn a_registry_that_goes_down_makes_no_runtime_trust_it() {
    let mut known = ledger(refusal(100, "a"));
    let down = Witness { words: "connection refused".into(), ..answer(100, "a", WitnessAnswer::NotReached) };
    note_answer(&mut known, HOST, down.clone());
    let kept = &known.witnesses[HOST];
    assert_eq!((kept.answer, kept.words.as_str()), (WitnessAnswer::Refuses, "so it says"));
    assert_eq!(kept.handshake_error.as_deref(), Some("connection refused"), "a restart cannot be known to help now");
    note_answer(&mut known, HOST, refusal(100, "a"));
    assert!(wants_restart(&known, 100, "a"), "it is there again");
    // It does not erase an earlier trusted answer either.
    let trusts = answer(100, "a", WitnessAnswer::Trusts);
    let mut known = ledger(trusts.clone());
    note_answer(&mut known, HOST, down.clone());
    assert_eq!(known.witnesses[HOST], trusts);
    // Of a new process it is the only answer.
    note_answer(&mut known, HOST, Witness { process: process(200), ..down });
    assert_eq!(known.witnesses[HOST].answer, WitnessAnswer::NotReached);
}

#[test]
fn the_same_answer_again_writes_nothing() {
    let first = Witness { handshake_error: Some("expired at noon".into()), ..refusal(100, "a") };
    let mut known = ledger(first.clone());
    let again = Witness {
        words: "sha256:fedc: so it says".into(),
        handshake_error: Some("expired at noon, and now it is one".into()),
        at: at(2_000, 1_100, "one"),
        ..first.clone()
    };
    note_answer(&mut known, HOST, again.clone());
    assert_eq!(known.witnesses[HOST], first);
    note_answer(&mut known, HOST, Witness { handshake_error: None, ..again });
    assert!(wants_restart(&known, 100, "a"));
}

#[test]
fn answers_are_kept_of_a_bounded_number_of_registries() {
    let mut known = Ledger::new();
    for n in 0..100 {
        let witness = Witness { at: at(n, 100, "one"), ..refusal(100, "a") };
        note_answer(&mut known, &format!("registry-{n}.test:443"), witness);
    }
    assert_eq!(known.witnesses.len(), MAX_WITNESSES);
    assert!(
        known.witnesses.contains_key("registry-99.test:443") && !known.witnesses.contains_key("registry-0.test:443")
    );
}
