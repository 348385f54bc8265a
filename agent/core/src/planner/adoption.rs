//! Files of others that `store.adopt` names: which of them are taken over, and why the others stay.
//!
//! A file is taken over if root owns it, it has one name, and it holds nothing but certificates, each of which a source has, or has
//! expired, or was replaced: the sources have one of the same name that is not older. What a source has stays trusted by our own file;
//! what was replaced gets its grace as if it had left a source; what has expired leaves.

use std::sync::Arc;

use crate::{
    action::{AdoptReason, StoreAction},
    certificate::{anchor::Anchor, fingerprint::Fingerprint, name::shown},
    ledger::{AnchorState, Ledger, LedgerAnchor},
    observed::{FileForm, ForeignFile, Observed},
    plan::RefusedFile,
    source::{Resolved, policy::Policy},
    store::{
        adopted::{MAX_ADOPTED_BYTES, MAX_ADOPTED_FILES},
        anchor_file::link_stem,
    },
};

/// A file that is taken over.
#[derive(Debug)]
pub(super) struct Adoptable<'a> {
    name: &'a str,
    why: AdoptReason,
    /// What is in it that the sources have replaced.
    superseded: Vec<&'a Arc<Anchor>>,
    anchors: &'a [Arc<Anchor>],
}

/// What is done about the files that the configuration names.
#[derive(Debug, Default)]
pub(super) struct Adoption<'a> {
    pub(super) files: Vec<Adoptable<'a>>,
    pub(super) refused: Vec<RefusedFile>,
}

/// Judges every file that the configuration names.
pub(super) fn judge<'a>(
    resolved: &Resolved,
    observed: &'a Observed,
    ledger: &Ledger,
    policy: &Policy,
    now: i64,
) -> Adoption<'a> {
    let mut adoption = Adoption::default();
    let store = observed.store;
    if !store.has_foreign_files() && !policy.adopt.is_empty() {
        let what = if store.is_behind_api() {
            "anchors are settings there, and no files"
        } else {
            "what lies there beside our files is the distribution's"
        };
        let why = format!("store.adopt takes over nothing in {}: {what}", store.anchors_dir);
        let next = "take store.adopt out of the configuration for these nodes";
        adoption.refused.push(RefusedFile { path: store.anchors_dir.to_owned(), why, next: next.to_owned() });
    }
    let mut remembered = observed.adopted.len();
    for file in &observed.foreign {
        let Some(name) = observed.base_name(file) else { continue };
        if !policy.adopt.iter().any(|pattern| pattern.matches(name)) {
            continue;
        }
        let is_known = observed.adopted.contains_key(&file.path);
        let judged = match !is_known && remembered >= MAX_ADOPTED_FILES {
            true => Err(format!("{MAX_ADOPTED_FILES} files have been taken over already")),
            false => judge_file(file, name, resolved, ledger, now),
        };
        match judged {
            Ok(adoptable) => {
                remembered += usize::from(!is_known);
                adoption.files.push(adoptable);
            }
            Err(why) => {
                let path = shown(&file.path);
                let why = format!("store.adopt names {path}, and it stays: {why}");
                let next = format!("mend {path} or what puts it there, or take its name out of store.adopt");
                adoption.refused.push(RefusedFile { path, why, next });
            }
        }
    }
    adoption
}

fn judge_file<'a>(
    file: &'a ForeignFile,
    name: &'a str,
    resolved: &Resolved,
    ledger: &Ledger,
    now: i64,
) -> Result<Adoptable<'a>, String> {
    check_form(file)?;
    let mut why = AdoptReason::InSource;
    let mut superseded = Vec::new();
    for anchor in &file.anchors {
        let print = &anchor.fingerprint;
        let is_kept = resolved.desired.contains_key(print)
            || ledger
                .anchors
                .get(print)
                .is_some_and(|entry| matches!(entry.state, AnchorState::Desired | AnchorState::Grace));
        if is_kept {
            continue;
        }
        let desired = resolved.desired.values().map(|wanted| &wanted.anchor);
        let reason = if anchor.not_after < now {
            AdoptReason::Expired
        } else if successor(anchor, desired).is_some() {
            superseded.push(anchor);
            AdoptReason::Superseded
        } else {
            return Err(format!(
                "no source has {} ({}), it has not expired, and the sources have no newer certificate of its name",
                anchor.subject.common,
                print.fp16()
            ));
        };
        why = why.min(reason);
    }
    Ok(Adoptable { name, why, superseded, anchors: &file.anchors })
}

/// Whether a file is one that can be remembered and put back whole.
fn check_form(file: &ForeignFile) -> Result<(), String> {
    let Some(FileForm { regular, links, owned_by_root, size, other, .. }) = &file.form else {
        return Err("it could not be looked at".to_owned());
    };
    let faults = [
        (!regular, "it is no regular file".to_owned()),
        (*links != 1, format!("it has {links} names (hard links)")),
        (!owned_by_root, "others than root:root own it (`chown root:root` it)".to_owned()),
        (*size > MAX_ADOPTED_BYTES, format!("it is larger than {MAX_ADOPTED_BYTES} bytes")),
        (!file.taken, "the store's tool does not read a file of this name".to_owned()),
        (file.anchors.is_empty(), "it holds no certificate".to_owned()),
        (file.hazard.is_some(), "a run of the tool would do harm with it".to_owned()),
    ];
    match (faults.into_iter().find(|(holds, _)| *holds), other) {
        (_, Some(other)) => Err(format!("it holds something else than certificates: {other}")),
        (Some((_, fault)), None) => Err(fault),
        (None, None) => Ok(()),
    }
}

/// The certificate that has taken a certificate's place: of the same name, and not older. None if it is itself among them.
pub fn successor<'a>(anchor: &Anchor, desired: impl Iterator<Item = &'a Arc<Anchor>>) -> Option<&'a Arc<Anchor>> {
    let mut newest: Option<&Arc<Anchor>> = None;
    for other in desired.filter(|other| other.subject.raw == anchor.subject.raw) {
        if other.fingerprint == anchor.fingerprint {
            return None;
        }
        if other.not_before >= anchor.not_before && newest.is_none_or(|newest| other.not_before > newest.not_before) {
            newest = Some(other);
        }
    }
    newest
}

impl Adoptable<'_> {
    /// The action that takes it over, noted for the store's hooks.
    pub(super) fn action(&self, next: &mut Ledger) -> StoreAction {
        next.hook_names.insert(link_stem(self.name), false);
        StoreAction::AdoptFile { file: self.name.to_owned(), why: self.why }
    }
}

impl Adoption<'_> {
    /// Enters what was replaced into the ledger, as anchors that have just left a source. A copy that goes keeps nothing trusted any more.
    pub(super) fn enter(&self, observed: &Observed, policy: &Policy, next: &mut Ledger) {
        for file in &self.files {
            for anchor in &file.superseded {
                let print: Fingerprint = anchor.fingerprint;
                let state = if policy.forbids(&print) { AnchorState::Denied } else { AnchorState::Grace };
                next.anchors.entry(print).or_insert_with(|| LedgerAnchor {
                    settled: observed.effective.set.contains(&print),
                    adopted: true,
                    ..LedgerAnchor::new(anchor, state)
                });
            }
            for anchor in file.anchors {
                if let Some(entry) = next.anchors.get_mut(&anchor.fingerprint) {
                    (entry.shared, entry.copied) = (false, false);
                }
            }
        }
    }
}
