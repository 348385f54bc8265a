//! What the witnesses prove of the process that runs, over the set that is in force, and how their answers are remembered.

use std::collections::{BTreeMap, BTreeSet};

use super::witness::{Witness, WitnessAnswer};
use crate::runtime::{process::ServiceProcess, registry_dir::Setting};
use crate::{
    certificate::fingerprint::{Fingerprint, SetDigest},
    ledger::Ledger,
};

/// Registries of which the last answer is remembered.
pub const MAX_WITNESSES: usize = 32;

/// The answers that count: those of the process that runs, about the set in force.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Testimony<'a> {
    /// By registry, `host:port`.
    pub answers: BTreeMap<&'a str, &'a Witness>,
    /// An earlier process was restarted because it refused a registry with this very set in force.
    pub restarted: bool,
}

impl<'a> Testimony<'a> {
    /// Picks the answers that count.
    pub fn of(witnesses: &'a BTreeMap<String, Witness>, process: &ServiceProcess, set: &SetDigest) -> Self {
        let of_set = || witnesses.iter().filter(|(_, witness)| witness.set == *set);
        let answers = of_set().filter(|(_, witness)| witness.process == *process);
        let restarted =
            of_set().any(|(_, witness)| witness.restarted.as_ref().is_some_and(|restarted| restarted != process));
        Self { answers: answers.map(|(host, witness)| (host.as_str(), witness)).collect(), restarted }
    }

    /// Registries whose certificate the process refuses.
    pub fn refusals(&self) -> impl Iterator<Item = (&'a str, &'a Witness)> {
        self.with(WitnessAnswer::Refuses)
    }

    /// The refusal that says most: one that a restart can cure, if there is any.
    pub fn refusal(&self) -> Option<(&'a str, &'a Witness)> {
        self.curable().or_else(|| self.refusals().next())
    }

    /// A refusal that a restart can cure: programs that start now trust the registry.
    pub fn curable(&self) -> Option<(&'a str, &'a Witness)> {
        self.refusals().find(|(_, witness)| witness.handshake_error.is_none())
    }

    /// Whether a restart is due because of a refusal: only where it can help, and once for a process and a set.
    pub fn wants_restart(&self) -> bool {
        !self.restarted && self.curable().is_some()
    }

    /// Anchors of ours that the process is seen to trust. Where it may read certificates from a registry directory, that proves nothing of its own
    /// roots; it counts all the same where nobody can tell what it reads.
    pub fn proven(&self, setting: &Setting) -> BTreeSet<Fingerprint> {
        let untold = matches!(setting, Setting::Unknown(_) | Setting::ChangedSince(_));
        let counts = |witness: &&Witness| witness.verifies_tls && (witness.own_roots || untold);
        let trusting = self.with(WitnessAnswer::Trusts).map(|(_, witness)| witness);
        trusting.filter(counts).filter_map(|witness| witness.anchor).collect()
    }

    /// A registry whose trust proves something of our anchors.
    pub fn trusting(&self) -> Option<&'a str> {
        let counts = |witness: &Witness| witness.verifies_tls && witness.anchor.is_some();
        self.with(WitnessAnswer::Trusts).find(|(_, witness)| counts(witness)).map(|(host, _)| host)
    }

    /// A registry from which pulls work, in a way that does not prove the trust in its CA.
    pub fn only_works(&self) -> Option<&'a str> {
        self.with(WitnessAnswer::Trusts).find(|(_, witness)| !witness.verifies_tls).map(|(host, _)| host)
    }

    /// A registry that could not be reached, and the runtime's words.
    pub fn unreached(&self) -> Option<(&'a str, &'a Witness)> {
        self.with(WitnessAnswer::NotReached).next()
    }

    fn with(&self, answer: WitnessAnswer) -> impl Iterator<Item = (&'a str, &'a Witness)> {
        let answers = self.answers.iter().map(|(host, witness)| (*host, *witness));
        answers.filter(move |(_, witness)| witness.answer == answer)
    }
}

/// Remembers an answer about a registry. An answer that says what the last one said leaves the ledger as it is, so that nothing is written
/// at rest.
///
/// "Not reached" does not replace a proof about the same process and set: a registry that goes down makes no runtime trust it. What
/// a restart was made for stays known until the registry is trusted.
pub fn note_answer(ledger: &mut Ledger, host: &str, answer: Witness) {
    let mut answer = answer;
    if let Some(earlier) = ledger.witnesses.get(host).filter(|earlier| earlier.set == answer.set) {
        if answer.answer != WitnessAnswer::Trusts && answer.restarted.is_none() {
            answer.restarted.clone_from(&earlier.restarted);
        }
        if answer.answer == WitnessAnswer::NotReached && earlier.process == answer.process {
            match earlier.answer {
                WitnessAnswer::Trusts => return,
                // the refusal stands, and a restart cannot be known to help
                WitnessAnswer::Refuses => {
                    let handshake_error = answer.handshake_error.or(Some(answer.words));
                    answer = Witness { handshake_error, ..earlier.clone() };
                }
                WitnessAnswer::NotReached => {}
            }
        }
        // the words name another digest each time, and those of an expired certificate the time
        let alike = Witness {
            words: earlier.words.clone(),
            handshake_error: earlier.handshake_error.clone(),
            at: earlier.at.clone(),
            ..answer.clone()
        };
        if alike == *earlier && answer.handshake_error.is_some() == earlier.handshake_error.is_some() {
            return;
        }
    }
    ledger.witnesses.insert(host.to_owned(), answer);
    while ledger.witnesses.len() > MAX_WITNESSES {
        let others = ledger.witnesses.iter().filter(|(name, _)| *name != host);
        let Some(oldest) = others.min_by_key(|(_, witness)| witness.at.wall).map(|(name, _)| name.clone()) else {
            break;
        };
        ledger.witnesses.remove(&oldest);
    }
}

/// Remembers, before a runtime is restarted, that it is, with all that this process refuses of this set. A crash between this and the
/// restart does no harm: while the same process runs, the restart is still due.
pub fn note_restart(ledger: &mut Ledger, process: &ServiceProcess, set: &SetDigest) {
    for witness in ledger.witnesses.values_mut() {
        if witness.set == *set && witness.process == *process && witness.answer == WitnessAnswer::Refuses {
            witness.restarted.get_or_insert_with(|| process.clone());
        }
    }
}

#[cfg(test)]
#[path = "testimony_tests.rs"]
mod tests;
