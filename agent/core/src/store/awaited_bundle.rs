//! When a bundle that the system makes by itself is what a change was to make of it: the system writes it in place (facts A.13), so who looks
//! may see a part of it.

use std::collections::BTreeSet;

use crate::{certificate::fingerprint::Fingerprint, time::Uptime};

/// How long a bundle has to stay the same that lacks more than it should, in milliseconds: it is written within a few.
const SETTLED_MS: u64 = 2_000;

/// A bundle that a change was ordered of, and what it looked like so far.
#[derive(Debug)]
pub struct AwaitedBundle {
    /// What is to be in it.
    due: BTreeSet<Fingerprint>,
    /// What is to be out of it.
    gone: BTreeSet<Fingerprint>,
    /// All that is to be in it, unless somebody else takes something out.
    whole: BTreeSet<Fingerprint>,
    /// What was seen last, and since when.
    seen: Option<(Uptime, BTreeSet<Fingerprint>)>,
}

impl AwaitedBundle {
    /// A bundle that was not looked at yet.
    pub fn new(due: BTreeSet<Fingerprint>, gone: BTreeSet<Fingerprint>, whole: BTreeSet<Fingerprint>) -> Self {
        Self { due, gone, whole, seen: None }
    }

    /// Takes what is in the bundle now. Once that is what the change was to bring: since when, and what it is. While more is missing than
    /// the change takes out, this is so only after the bundle has stayed the same for two seconds.
    pub fn look(&mut self, now: Uptime, set: BTreeSet<Fingerprint>) -> Option<(Uptime, BTreeSet<Fingerprint>)> {
        let since = self.seen.take().filter(|(_, seen)| *seen == set).map_or_else(|| now.clone(), |(since, _)| since);
        let settled = now.milliseconds.saturating_sub(since.milliseconds) >= SETTLED_MS;
        let done = self.due.is_subset(&set) && self.gone.is_disjoint(&set);
        if done && (settled || self.whole.is_subset(&set)) {
            return Some((since, set));
        }
        self.seen = Some((since, set));
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: u64) -> Uptime {
        Uptime { boot_id: "a-boot".into(), milliseconds }
    }

    fn prints(names: &[&str]) -> BTreeSet<Fingerprint> {
        names.iter().map(|name| Fingerprint::of_der(name.as_bytes())).collect()
    }

    #[test]
    fn a_bundle_that_is_being_written_is_waited_for() {
        let mut awaited = AwaitedBundle::new(prints(&[]), prints(&["old"]), prints(&["root", "site"]));
        assert_eq!(awaited.look(at(0), prints(&["root", "site", "old"])), None, "not begun");
        assert_eq!(awaited.look(at(100), prints(&[])), None, "emptied");
        assert_eq!(awaited.look(at(200), prints(&["root"])), None, "half of it");
        let whole = prints(&["root", "site"]);
        assert_eq!(awaited.look(at(300), whole.clone()), Some((at(300), whole)));
    }

    #[test]
    fn what_somebody_else_took_out_is_waited_for_only_while_the_bundle_changes() {
        let mut awaited = AwaitedBundle::new(prints(&["new"]), prints(&[]), prints(&["root", "site", "new"]));
        assert_eq!(awaited.look(at(0), prints(&["new"])), None);
        assert_eq!(awaited.look(at(1_900), prints(&["root", "new"])), None, "it has changed");
        assert_eq!(awaited.look(at(3_800), prints(&["root", "new"])), None);
        assert_eq!(awaited.look(at(3_900), prints(&["root", "new"])), Some((at(1_900), prints(&["root", "new"]))));
    }

    #[test]
    fn what_does_not_come_or_does_not_go_is_never_settled() {
        let mut awaited = AwaitedBundle::new(prints(&["new"]), prints(&["old"]), prints(&["root", "new"]));
        for names in [&["root"][..], &["root", "old"], &["root", "new", "old"]] {
            assert_eq!(awaited.look(at(0), prints(names)), None);
            assert_eq!(awaited.look(at(60_000), prints(names)), None);
        }
    }
}
