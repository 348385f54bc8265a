//! Is a certificate that comes a damaged copy of an anchor that leaves with the same change?
//!
//! Nobody verifies an anchor's own signature, so that a root which was cut, edited or mixed up passes for one that its owner has
//! made. What gives it away is the moment: it comes in place of its original. In: the sources, and what the ledger says that they
//! held last. Out: which newcomers are taken for damage, and of what. The ledger keeps the original as what the source said last,
//! so every later cycle finds the same, until the source changes again.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    certificate::{
        anchor::Anchor,
        encoded::{self, SignedParts},
        fingerprint::Fingerprint,
        pem::RejectReason,
        signature::{SelfSignature, is_signed_by},
    },
    ledger::Ledger,
    source::{
        Content, Snapshot,
        policy::{Circumstances, Policy, judge, unproven},
    },
};

/// Certificates of one name that are tried as the signer of a newcomer.
const MAX_SIGNERS: usize = 8;

/// What a newcomer is taken for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Damage {
    /// The anchor that stays in its place.
    pub original: Fingerprint,
    /// Its common name.
    pub name: String,
    /// How the two are alike.
    pub likeness: Likeness,
}

/// How a newcomer and an anchor that leaves are alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Likeness {
    /// Both are roots of one name, and the newcomer's own signature proves nothing.
    Name,
    /// All that is signed is the same to the byte, or the signature is: no two certificates that were issued are so.
    Copy,
}

impl Damage {
    /// The public reason.
    pub(crate) fn reason(&self) -> RejectReason {
        match self.likeness {
            Likeness::Name => RejectReason::SelfSignature,
            Likeness::Copy => RejectReason::MalformedCertificate,
        }
    }

    /// Why the newcomer is not accepted, and what to do if it is right.
    pub(crate) fn text(&self, newcomer: &Anchor) -> String {
        let (name, print) = (&self.name, self.original.fp16());
        let why = match (self.likeness, unproven(newcomer)) {
            (Likeness::Name, Some(unproven)) => format!("{unproven}; it came"),
            (_, _) => "most of it is to the byte that of another certificate; it came".to_owned(),
        };
        format!(
            "{why} with the change in which {name} ({print}) left, and is taken for a damaged copy of that one, which stays; \
             if it is what its owner has made, put both into the source first, then take the old one out"
        )
    }
}

/// Newcomers of the sources that are taken for damage. Empty in nearly every cycle, and then nothing but a scan was done.
pub(crate) fn find(
    snapshots: &[Snapshot],
    ledger: &Ledger,
    policy: &Policy,
    at: Circumstances<'_>,
) -> BTreeMap<Fingerprint, Damage> {
    let known = |fingerprint: &Fingerprint| ledger.sources.values().any(|source| source.anchors.contains(fingerprint));
    let suspects: BTreeMap<Fingerprint, &Anchor> = snapshots
        .iter()
        .flat_map(Snapshot::anchors)
        .filter(|anchor| !known(&anchor.fingerprint) && anchor.self_signature() != SelfSignature::Verified)
        .filter(|anchor| !policy.denied.contains(&anchor.fingerprint))
        .map(|anchor| (anchor.fingerprint, anchor))
        .collect();
    if suspects.is_empty() {
        return BTreeMap::new();
    }
    let leaving = leaving(snapshots, ledger);
    let originals = Originals::of(&leaving, ledger);
    let damage = |newcomer: &Anchor| {
        originals.like(newcomer).find_map(|(likeness, print)| {
            let original = ledger.anchors.get(&print)?.decode(&print).ok()?;
            // one that may not stay cannot be kept in its place
            judge(&original, policy, Circumstances { installed: &|_| true, ..at }).ok()?;
            Some(Damage { original: print, name: original.subject.common.clone(), likeness })
        })
    };
    let mut found: BTreeMap<Fingerprint, Damage> =
        suspects.iter().filter_map(|(print, newcomer)| Some((*print, damage(newcomer)?))).collect();
    if found.is_empty() {
        return found;
    }
    let mut by_name: BTreeMap<&[u8], Vec<&Anchor>> = BTreeMap::new();
    for anchor in snapshots.iter().flat_map(Snapshot::anchors) {
        by_name.entry(&anchor.subject.raw).or_default().push(anchor);
    }
    // the link between two generations of a CA that kept its name (RFC 4210, 4.4), where it does not say so itself
    let is_link = |newcomer: &Anchor, damage: &Damage| {
        let namesakes = by_name.get(&*newcomer.issuer.raw).into_iter().flatten().map(|anchor| anchor.der());
        let original = ledger.anchors.get(&damage.original).map(|entry| &*entry.der);
        let mut signers = original.into_iter().chain(namesakes.filter(|der| *der != newcomer.der())).take(MAX_SIGNERS);
        damage.likeness == Likeness::Name && signers.any(|der| is_signed_by(newcomer.der(), der))
    };
    found.retain(|print, damage| suspects.get(print).is_none_or(|newcomer| !is_link(newcomer, damage)));
    found
}

/// The anchors that leave, by what a copy of one has in common with it.
#[derive(Default)]
struct Originals<'a> {
    by_name: BTreeMap<&'a [u8], Vec<Fingerprint>>,
    by_signed_part: BTreeMap<&'a [u8], Fingerprint>,
    by_signature: BTreeMap<&'a [u8], Fingerprint>,
}

impl<'a> Originals<'a> {
    fn of(leaving: &BTreeSet<Fingerprint>, ledger: &'a Ledger) -> Self {
        let mut originals = Self::default();
        for print in leaving {
            let Some(entry) = ledger.anchors.get(print) else { continue };
            if let Some(name) = encoded::subject(&entry.der) {
                originals.by_name.entry(name).or_default().push(*print);
            }
            if let Some(signed) = SignedParts::of(&entry.der) {
                originals.by_signed_part.insert(signed.content, *print);
                originals.by_signature.insert(signed.signature, *print);
            }
        }
        originals
    }

    /// Those that a newcomer may be a copy of.
    fn like(&self, newcomer: &Anchor) -> impl Iterator<Item = (Likeness, Fingerprint)> {
        let by_name = self.by_name.get(&*newcomer.subject.raw).filter(|_| unproven(newcomer).is_some());
        let copies = SignedParts::of(newcomer.der()).into_iter().flat_map(|signed| {
            [self.by_signed_part.get(signed.content), self.by_signature.get(signed.signature)].into_iter().flatten()
        });
        let named = by_name.into_iter().flatten().map(|print| (Likeness::Name, *print));
        named.chain(copies.map(|print| (Likeness::Copy, *print)))
    }
}

/// What a source said last, and none says now. A source that is silent is held, so nothing of it leaves.
fn leaving(snapshots: &[Snapshot], ledger: &Ledger) -> BTreeSet<Fingerprint> {
    let speaks = |name: &str| {
        let now = snapshots.iter().find(|snapshot| snapshot.name == name);
        now.is_none_or(|snapshot| matches!(snapshot.content, Content::Files(_)))
    };
    let (speaking, silent): (Vec<_>, Vec<_>) = ledger.sources.iter().partition(|(name, _)| speaks(name));
    let mut leaving: BTreeSet<Fingerprint> =
        speaking.into_iter().flat_map(|(_, source)| &source.anchors).copied().collect();
    for stays in silent.into_iter().flat_map(|(_, source)| &source.anchors) {
        leaving.remove(stays);
    }
    for anchor in snapshots.iter().flat_map(Snapshot::anchors) {
        leaving.remove(&anchor.fingerprint);
    }
    leaving
}

#[cfg(test)]
#[path = "damage_tests.rs"]
mod tests;
