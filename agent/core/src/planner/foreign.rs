//! What the ledger remembers of the bundle's certificates that are not ours.

use std::collections::BTreeSet;

use crate::{certificate::fingerprint::Fingerprint, ledger::Ledger, observed::Observed, store::harm::Departed};

/// Seconds for which a report says that many certificates left at once: a day.
const REPORTED_FOR: u64 = 86_400;

/// Follows what others add to the bundle, and what they take from it together with its source.
pub(super) fn follow_foreign(observed: &Observed, ledger: &mut Ledger, now: i64) {
    if observed.effective.present && observed.lost.is_empty() && !ledger.is_blank() {
        note_gone(observed, ledger, now);
        ledger.foreign = foreign_in_bundle(observed, ledger);
    }
    // A certificate that has a link now must not lose it again.
    ledger.linkless.retain(|fingerprint| observed.unlinked_foreign.contains(fingerprint));
}

/// Follows the files of others that keep anchors of ours in the bundle. If the file goes, a run of the tool takes the anchor out; if it
/// stays all the same, there is another copy, and that is learned after the run.
pub(super) fn follow_copies(observed: &Observed, ledger: &mut Ledger) {
    for (fingerprint, entry) in &mut ledger.anchors {
        let is_there = observed.foreign_copy(fingerprint);
        entry.shared &= is_there || !entry.copied;
        entry.copied = is_there && entry.shared;
    }
}

/// Certificates in the bundle that are not ours.
pub(super) fn foreign_in_bundle(observed: &Observed, ledger: &Ledger) -> BTreeSet<Fingerprint> {
    let ours = |fingerprint: &&Fingerprint| ledger.anchors.get(fingerprint).is_some_and(|entry| !entry.shared);
    observed.effective.set.iter().filter(|fingerprint| !ours(fingerprint)).copied().collect()
}

/// Notes which certificates are gone, if many of those that are not ours left at once (see [`Ledger::gone`]). If most are gone, the
/// note stays until that is repaired. Fewer may be a package's upgrade: the note is dropped after [`REPORTED_FOR`].
pub(super) fn note_gone(observed: &Observed, ledger: &mut Ledger, now: i64) {
    let adopted = observed.adopted_certificates();
    let gone: BTreeSet<Fingerprint> = observed.gone.difference(&adopted).copied().collect();
    let departed = Departed { gone: gone.len(), of: ledger.known_foreign().len(), ..Departed::default() };
    let since = ledger.gone_since.unwrap_or(now);
    let is_news = departed.is_many() && now.abs_diff(since) < REPORTED_FOR;
    (ledger.gone, ledger.gone_since) = match departed.is_most() || is_news {
        true => (gone, Some(since)),
        false => (BTreeSet::new(), None),
    };
}
