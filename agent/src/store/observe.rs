//! Looking at a host: what is there now, as a value for the core.
//!
//! Read-only. Every fact comes from a read in this look.

use std::{collections::BTreeSet, time::Duration};

use nodetrust_core::{
    certificate::fingerprint::Fingerprint,
    ledger::Ledger,
    observed::{Observed, OldStore},
    source::{Resolved, Snapshot},
    store::{Family, Tool, TrustStore, anchor_file::is_own_name},
};

use crate::{
    host::{directory::HostDirectory, file::FileKind, root::HostRoot},
    store::{
        adoption,
        bundle::{BundleCache, bundle_bytes, directory_effective, effective},
        distribution::{deselected, with_a_source},
        foreign::ForeignCache,
        hash_links, hazards,
        other_runs::{STALE_AFTER, age},
        own_files::{OwnFileCache, leftovers, own_files, read_own_files},
        read::{ObserveError, at},
        settings,
    },
};

/// Looks at a host whose files somebody changes meanwhile; the last one counts.
const LOOKS: usize = 3;

/// What the host's files held when they were read last, by their content. The same content is not decoded again.
#[derive(Debug, Default)]
pub struct StoreCache {
    bundle: BundleCache,
    own_files: OwnFileCache,
    links: hash_links::LinkCache,
    pasted: hazards::PastedCache,
    foreign: ForeignCache,
    /// How long the host's p11-kit may take to answer; None if it is not asked.
    asks: Option<Duration>,
}

impl StoreCache {
    /// Takes note of what the sources hold, so that a file with the same certificate need not be decoded.
    pub fn expect(&mut self, snapshots: &[Snapshot]) {
        self.own_files.expect(snapshots);
    }

    /// Whether the host's p11-kit is asked what is an anchor, and how long that may take. It writes to a directory of ours, so the lock
    /// is needed; without, its files are read.
    pub fn set_asks(&mut self, asks: Option<Duration>) {
        self.asks = asks;
    }

    /// Keeps one copy of an anchor that is in a source and in a file of ours, the source's.
    pub fn share(&mut self, resolved: &Resolved) {
        self.own_files.share(resolved);
    }
}

/// Looks at a host's trust store.
///
/// # Errors
/// If a file or directory that matters is there and cannot be read.
pub fn observe(
    root: &HostRoot,
    store: &'static TrustStore,
    known_foreign: &BTreeSet<Fingerprint>,
    cache: &mut StoreCache,
) -> Result<Observed, ObserveError> {
    if let Tool::SettingsApi { socket } = store.tool {
        return settings::observe(root, store, socket, known_foreign, &mut cache.bundle);
    }
    // A file of ours that somebody changes while the rest is read would show as a fault of the bundle or of a link to it: such a look is
    // of no one moment, and is made again.
    for _ in 1..LOOKS {
        let observed = observe_once(root, store, known_foreign, cache)?;
        if is_as_it_should(&observed) || read_own_files(root, store, &mut cache.own_files)? == observed.ours {
            return Ok(observed);
        }
    }
    observe_once(root, store, known_foreign, cache)
}

/// Whether our files, the bundle and the links to them fit together.
fn is_as_it_should(observed: &Observed) -> bool {
    observed.unlinked.is_empty()
        && observed.ours.values().all(|own| {
            let trusted = own.anchor.as_ref().is_some_and(|own| observed.effective.set.contains(&own.fingerprint));
            own.intact && trusted
        })
}

fn observe_once(
    root: &HostRoot,
    store: &'static TrustStore,
    known_foreign: &BTreeSet<Fingerprint>,
    cache: &mut StoreCache,
) -> Result<Observed, ObserveError> {
    let dir = root.directory(store.anchors_dir).map_err(at(store.anchors_dir))?;
    let names = dir.as_ref().map_or(Ok(Vec::new()), HostDirectory::names).map_err(at(store.anchors_dir))?;
    let ours = dir.as_ref().map(|dir| own_files(dir, store, &names, &mut cache.own_files)).transpose()?;
    let mut observed = Observed {
        anchors_dir_exists: dir.is_some(),
        ours: ours.unwrap_or_default(),
        leftovers: leftovers(root, store, &names)?,
        ..Observed::empty(store)
    };
    // in a directory that holds the extracted links and bundle too, other people's files are the distribution's
    if store.has_foreign_files()
        && let Some(dir) = &dir
    {
        cache.foreign.look(root, dir, &names, &mut observed)?;
    }
    observed.adopted = adoption::remembered(root)?;
    observed.effective = match store.tool {
        Tool::None => directory_effective(root, store, &names, &observed.ours, &mut cache.bundle)?,
        _ => effective(root, store, &mut cache.bundle).map_err(at(store.bundle))?,
    };
    if let Tool::Staged { foreign_temp, .. } = store.tool {
        let age = age(root, foreign_temp).map_err(at(foreign_temp))?;
        observed.stale_temp = age.filter(|age| *age >= STALE_AFTER).map(|_| foreign_temp.to_owned());
    }
    let elsewhere = hazards::elsewhere(root, store, &observed.effective, &mut cache.pasted)?;
    observed.hazards.extend(elsewhere.hazards);
    observed.hollow = elsewhere.hollow;
    observed.passed_over = elsewhere.passed_over;
    blame(root, &mut observed)?;
    observed.unlinked = hash_links::unlinked(root, &observed, &cache.own_files)?;
    observed.unlinked_foreign = hash_links::unlinked_foreign(root, &observed, &mut cache.links)?;
    if !observed.unlinked.is_empty() || !observed.unlinked_foreign.is_empty() {
        observed.no_linker = hash_links::missing_program(root, store).map_err(at("openssl"))?;
    }
    let missing: BTreeSet<Fingerprint> = known_foreign.difference(&observed.effective.set).copied().collect();
    observed.lost = with_a_source(root, store, missing.clone(), cache.asks)?;
    if missing.len() > observed.lost.len() {
        let deselected = deselected(root, store)?;
        let left = missing.difference(&observed.lost).filter(|fingerprint| !deselected.contains(fingerprint));
        observed.gone = left.copied().collect();
    }
    Ok(observed)
}

/// What the stores that were in use before still have of ours. `store` is the node's now.
///
/// # Errors
/// As [`observe`].
pub fn old_stores(root: &HostRoot, store: &TrustStore, ledger: &Ledger) -> Result<Vec<OldStore>, ObserveError> {
    let families: BTreeSet<Family> = ledger.old_families.iter().chain(&ledger.family).copied().collect();
    // in a directory that both stores read, the files are not left, they are wanted
    let is_left = |family: &Family| {
        let before = family.store();
        // the settings of a system went with it
        before.anchors_dir != store.anchors_dir && !before.is_behind_api()
    };
    let old = families.into_iter().filter(is_left);
    let mut found = Vec::new();
    for family in old {
        let before = family.store();
        let names = root.names(before.anchors_dir).map_err(at(before.anchors_dir))?;
        // a link of such a name is the work of another store's tool
        let own = names.into_iter().filter(|(name, kind)| *kind == FileKind::File && is_own_name(before, name));
        let files: BTreeSet<String> = own.map(|(name, _)| name).collect();
        let mut in_bundle = BTreeSet::new();
        if before.bundle != store.bundle && !matches!(before.tool, Tool::None) {
            let effective = effective(root, before, &mut BundleCache::default()).map_err(at(before.bundle))?;
            in_bundle =
                effective.set.into_iter().filter(|fingerprint| ledger.anchors.contains_key(fingerprint)).collect();
            let with_a_source = with_a_source(root, before, in_bundle.clone(), None)?;
            in_bundle.retain(|fingerprint| !with_a_source.contains(fingerprint));
        }
        if !files.is_empty() || !in_bundle.is_empty() {
            let mut can_be_left = matches!(before.tool, Tool::None);
            for path in before.tool.programs() {
                can_be_left |= root.stat(path).map_err(at(path))?.is_some_and(|meta| meta.kind == FileKind::File);
            }
            found.push(OldStore { family, files, in_bundle, can_be_left });
        }
    }
    Ok(found)
}

/// Where the tool reads its sources instead of pasting them: whose certificates the bundle's faults are.
fn blame(root: &HostRoot, observed: &mut Observed) -> Result<(), ObserveError> {
    let (store, effective) = (observed.store, &observed.effective);
    if store.pastes_files || effective.faults.is_empty() && effective.gnutls_faults.is_empty() {
        return Ok(());
    }
    if let Some(bytes) = bundle_bytes(root, store).map_err(at(store.bundle))? {
        observed.hazards = hazards::holders(root, store, &bytes, &observed.effective)?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "observe_tests.rs"]
mod tests;
