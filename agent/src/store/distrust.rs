//! Distrusting roots of the distribution by the distribution's own means: looking, changing, and changing back.

use std::{collections::BTreeSet, io, sync::Arc};

use nodetrust_core::{
    certificate::{bundle, fingerprint::Fingerprint, pem},
    ledger::Ledger,
    observed::Observed,
    store::{
        Family, TrustStore,
        anchor_file::PREFIX,
        distrust::{DistrustMeans, DistrustView, ShippedRoot, blocklists, is_copy},
    },
};

use crate::{
    host::{file::FileKind, obstacle::Obstacle, own_paths, root::HostRoot},
    store::{
        bundle::bundle_bytes,
        distribution::{MAX_SELECTION, SELECTION, SHIPPED, read_selection},
        read::{MAX_BUNDLE_BYTES, ObserveError, at, usable},
    },
};

/// What is seen of the roots that the configuration names, and of those that the ledger remembers.
///
/// # Errors
/// If a file that says it is there and cannot be read.
pub(crate) fn look(
    root: &HostRoot,
    wanted: &BTreeSet<Fingerprint>,
    ledger: &Ledger,
    observed: &Observed,
) -> Result<DistrustView, ObserveError> {
    let store = observed.store;
    let mut view = DistrustView { means: means(root, store)?, ..DistrustView::default() };
    let remembered = || ledger.distrusted.values().flat_map(|root| &root.places);
    if remembered().any(|place| !is_copy(place)) || !wanted.is_empty() && view.means == DistrustMeans::Selection {
        look_at_selection(root, store.family, wanted, ledger, &mut view)?;
    }
    for path in remembered().filter(|place| is_copy(place)) {
        if root.own_meta(path).map_err(at(path))?.is_some() {
            view.in_effect.insert(path.clone());
        }
    }
    if let DistrustMeans::Blocklist(dir) = view.means.clone() {
        look_at_blocklist(root, store, &dir, wanted, &mut view)?;
    }
    Ok(view)
}

/// The means of this host.
fn means(root: &HostRoot, store: &TrustStore) -> Result<DistrustMeans, ObserveError> {
    if matches!(store.family, Family::Debian | Family::Alpine) {
        return Ok(DistrustMeans::Selection);
    }
    for dir in blocklists(store.family) {
        let found = usable(root.stat(dir)).map_err(at(dir))?.flatten();
        if found.is_some_and(|meta| meta.kind == FileKind::Directory) {
            return Ok(DistrustMeans::Blocklist((*dir).to_owned()));
        }
    }
    Ok(blocklists(store.family).first().map_or(DistrustMeans::None, |dir| DistrustMeans::MissingBlocklist(dir)))
}

fn look_at_selection(
    root: &HostRoot,
    family: Family,
    wanted: &BTreeSet<Fingerprint>,
    ledger: &Ledger,
    view: &mut DistrustView,
) -> Result<(), ObserveError> {
    let text = usable(root.read(SELECTION, MAX_SELECTION)).map_err(at(SELECTION))?.unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let ours: BTreeSet<&String> = ledger.distrusted.values().flat_map(|root| &root.places).collect();
    let deselected: Vec<String> = text.lines().filter_map(|line| Some(line.strip_prefix('!')?.to_owned())).collect();
    view.in_effect.extend(deselected.iter().filter(|name| ours.contains(name)).cloned());
    if wanted.is_empty() {
        return Ok(());
    }
    let selected = read_selection(&text, family).names.into_iter().map(|name| (name, true));
    for (name, is_selected) in selected.chain(deselected.into_iter().map(|name| (name, false))) {
        let path = format!("{SHIPPED}/{name}");
        let Some(bytes) = usable(root.read(&path, MAX_BUNDLE_BYTES)).map_err(at(&path))? else { continue };
        let prints = bundle::read(&bytes).set;
        for print in prints.iter().filter(|print| wanted.contains(print)) {
            let shipped = view.roots.entry(*print).or_default();
            shipped.deselected |= !is_selected;
            shipped.shares_file |= is_selected && prints.len() > 1;
            if is_selected {
                shipped.selected.insert(name.clone());
            }
        }
    }
    Ok(())
}

fn look_at_blocklist(
    root: &HostRoot,
    store: &TrustStore,
    dir: &str,
    wanted: &BTreeSet<Fingerprint>,
    view: &mut DistrustView,
) -> Result<(), ObserveError> {
    let is_copy_of = |print: &Fingerprint, name: &str| name == format!("{PREFIX}{}.pem", print.fp16());
    for (name, _) in root.names(dir).map_err(at(dir))? {
        let path = format!("{dir}/{name}");
        let bytes = usable(root.read(&path, MAX_BUNDLE_BYTES)).map_err(at(&path))?.unwrap_or_default();
        let prints = bundle::read(&bytes).set;
        let of = wanted.iter().find(|print| is_copy_of(print, &name));
        let is_ours = own_paths::is_copy_name(&name);
        if is_ours && of.is_none_or(|print| prints.contains(print)) {
            view.in_effect.insert(path);
        } else {
            view.in_effect.remove(&path); // what has our name holds something else
        }
        for print in prints.iter().filter(|print| wanted.contains(print)) {
            view.roots.entry(*print).or_default().deselected = true;
        }
    }
    if wanted.is_empty() {
        return Ok(());
    }
    let bytes = bundle_bytes(root, store).map_err(at(store.bundle))?.unwrap_or_default();
    for der in bundle::certificates(&bytes) {
        let print = Fingerprint::of_der(&der);
        if wanted.contains(&print) {
            let shipped: &mut ShippedRoot = view.roots.entry(print).or_default();
            shipped.der = Some(Arc::from(der));
        }
    }
    Ok(())
}

/// Distrusts a root at a place: a line of the list, or a copy of this certificate in the blocklist.
///
/// # Errors
/// As [`HostRoot::write_atomic`]; an [`Obstacle`] for a list that is no plain file of root's.
pub(crate) fn distrust(
    root: &HostRoot,
    store: &TrustStore,
    place: &str,
    print: &Fingerprint,
    der: &[u8],
) -> io::Result<()> {
    match is_copy(place) {
        true => {
            let temp = own_paths::anchor_temp(print);
            root.write_atomic(place, store.temp_dir, &temp, 0o644, pem::encode(der).as_bytes())
        }
        false => replace_line(root, place, &format!("!{place}")),
    }
}

/// Takes that back.
///
/// # Errors
/// As [`distrust`].
pub(crate) fn trust(root: &HostRoot, place: &str) -> io::Result<()> {
    match is_copy(place) {
        true => root.remove_file(place),
        false => replace_line(root, &format!("!{place}"), place),
    }
}

/// Replaces a line of the distribution's list; all other bytes stay.
fn replace_line(root: &HostRoot, from: &str, to: &str) -> io::Result<()> {
    let (meta, bytes) = root.own_read_with_meta(SELECTION, MAX_SELECTION)?;
    if meta.links != 1 || meta.owner != (0, 0) && nix::unistd::geteuid().is_root() {
        return Err(Obstacle::error(
            io::ErrorKind::InvalidData,
            format!("{SELECTION} is no plain file of root:root with one name: it was not changed"),
            format!("look at {SELECTION} on the host"),
        ));
    }
    let lines = bytes.split(|byte| *byte == b'\n');
    let lines: Vec<&[u8]> = lines.map(|line| if line == from.as_bytes() { to.as_bytes() } else { line }).collect();
    let new = lines.join(&b'\n');
    if new == bytes {
        return Ok(());
    }
    root.write_atomic(SELECTION, own_paths::SELECTION_TEMP_DIR, own_paths::SELECTION_TEMP, meta.mode, &new)
}

/// The file that is changed for a place.
pub(crate) fn file_of(place: &str) -> &str {
    if is_copy(place) { place } else { SELECTION }
}
