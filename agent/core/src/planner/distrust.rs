//! Roots of the distribution that `policy.distrust` names: what is done so that they leave, and what is undone for those that it names no
//! more.
//!
//! Only the distribution's own means are used, and only what the ledger remembers as ours is undone.

use std::collections::BTreeSet;

use crate::{
    action::StoreAction,
    certificate::{fingerprint::Fingerprint, name::shown},
    ledger::Ledger,
    observed::Observed,
    problem::{Problem, ProblemKind},
    source::Resolved,
    store::{
        anchor_file::PREFIX,
        distrust::{DistrustMeans, ShippedRoot, is_copy},
    },
};

/// What is done about the distribution's roots.
#[derive(Debug, Default)]
pub(super) struct Distrust {
    pub(super) actions: Vec<StoreAction>,
    pub(super) problems: Vec<Problem>,
    /// The roots that are distrusted.
    pub(super) roots: BTreeSet<Fingerprint>,
}

/// The plan for what the configuration names; the ledger remembers it before it is done.
pub(super) fn plan(
    wanted: &BTreeSet<Fingerprint>,
    resolved: &Resolved,
    observed: &Observed,
    next: &mut Ledger,
) -> Distrust {
    let mut distrust = Distrust::default();
    for print in wanted {
        match changes(print, resolved, observed, next) {
            Ok(places) => {
                distrust.roots.insert(*print);
                distrust
                    .actions
                    .extend(places.into_iter().map(|place| StoreAction::DistrustRoot { sha256: *print, place }));
            }
            Err((why, action)) => {
                let text = format!("policy.distrust names {}, and nothing is done: {why}", print.fp16());
                distrust.problems.push(Problem::new(ProblemKind::NotDistrusted, text, action));
            }
        }
    }
    distrust.undo_others(observed, next);
    distrust
}

/// The plan that takes back all that is ours.
pub(super) fn undo(observed: &Observed, next: &mut Ledger) -> Distrust {
    let mut distrust = Distrust::default();
    distrust.undo_others(observed, next);
    distrust
}

/// Forgets roots that are not distrusted any more and of whose change nothing is left.
pub(super) fn forget_undone(wanted: &BTreeSet<Fingerprint>, observed: &Observed, ledger: &mut Ledger) {
    let in_effect = &observed.distrust.in_effect;
    ledger.distrusted.retain(|print, root| wanted.contains(print) || !root.places.is_disjoint(in_effect));
}

/// What must be changed for a root to leave, entered into the ledger. Or why nothing is done, and what a person can do.
fn changes(
    print: &Fingerprint,
    resolved: &Resolved,
    observed: &Observed,
    next: &mut Ledger,
) -> Result<Vec<String>, (String, String)> {
    let view = &observed.distrust;
    let none = ShippedRoot::default();
    let root = view.roots.get(print).unwrap_or(&none);
    let family = observed.store.family;
    let out = || "take it out of policy.distrust".to_owned();
    if resolved.desired.contains_key(print) || next.anchors.get(print).is_some_and(|entry| entry.gone.is_none()) {
        let why = "it is an anchor of ours, of a source".to_owned();
        return Err((why, "policy.deniedFingerprints removes an anchor of ours".to_owned()));
    }
    if let Some(file) = observed.foreign.iter().find(|file| file.gives(print)) {
        let path = shown(&file.path);
        return Err((
            format!("it comes from {path}, and is no root of the distribution's"),
            format!("remove {path} by hand"),
        ));
    }
    let unknown = || {
        let why = format!("no root of the distribution's in {} has this fingerprint", observed.store.bundle);
        Err((why, out()))
    };
    match &view.means {
        DistrustMeans::None => Err((
            format!("the {family} store has no means of its own to distrust a root; that is not possible here"),
            "take it out of policy.distrust for these nodes".to_owned(),
        )),
        DistrustMeans::MissingBlocklist(dir) => Err((
            format!("this host has no directory {dir}, nor one of its older name"),
            format!("make {dir} on the host if its p11-kit reads it (0.24 or later)"),
        )),
        DistrustMeans::Selection => {
            if root.shares_file {
                let why = "it shares a file with other certificates, which would leave with it".to_owned();
                return Err((why, out()));
            }
            let is_ours = next.distrusted.contains_key(print);
            if root.selected.is_empty() && !root.deselected && !is_ours {
                return unknown();
            }
            if !root.selected.is_empty() {
                next.distrusted.entry(*print).or_default().places.extend(root.selected.iter().cloned());
            }
            Ok(root.selected.iter().cloned().collect())
        }
        DistrustMeans::Blocklist(dir) => {
            let place = format!("{dir}/{PREFIX}{}.pem", print.fp16());
            if view.in_effect.contains(&place) {
                next.distrusted.entry(*print).or_default().places.insert(place); // also where the ledger was lost
                return Ok(Vec::new());
            }
            let der = root.der.clone().map(|der| der.to_vec());
            let known = next.distrusted.get(print).map(|root| root.der()).filter(|der| !der.is_empty());
            let Some(der) = der.or(known) else {
                return if root.deselected { Ok(Vec::new()) } else { unknown() };
            };
            let entry = next.distrusted.entry(*print).or_default();
            entry.keep(&der);
            entry.places.insert(place.clone());
            Ok(vec![place])
        }
    }
}

impl Distrust {
    /// Undoes what is in effect, ours, and not wanted.
    fn undo_others(&mut self, observed: &Observed, next: &mut Ledger) {
        let places = |wanted: bool| -> BTreeSet<&String> {
            let roots = next.distrusted.iter().filter(|(print, _)| self.roots.contains(print) == wanted);
            roots.flat_map(|(_, root)| &root.places).collect()
        };
        let (kept, dropped) = (places(true), places(false));
        // a copy has our name; of a line only the ledger knows that it is ours
        let is_over = |place: &&String| !kept.contains(*place) && (is_copy(place) || dropped.contains(*place));
        let over: Vec<String> = observed.distrust.in_effect.iter().filter(is_over).cloned().collect();
        self.actions.extend(over.into_iter().map(|place| StoreAction::TrustRoot { place }));
        forget_undone(&self.roots, observed, next);
    }
}
