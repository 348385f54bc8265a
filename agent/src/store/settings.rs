//! Anchors as settings of the system: reading and changing them over its API (facts A.13).
//!
//! A change is one transaction of our own, so nobody else's pending settings are applied with it, and none of ours is left half done: what a
//! killed run has left in it is dropped before the next change.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::Arc,
    time::Duration,
};

use hyper::{Method, StatusCode, body::Bytes};
use nodetrust_core::{
    certificate::{anchor::Anchor, fingerprint::Fingerprint},
    observed::{ForeignFile, Observed, OwnAnchorFile},
    source::SourceFile,
    store::{
        TrustStore,
        anchor_file::{file_name, is_own_name},
        settings::{PkiEntry, PkiSettings, patch, read_pki},
    },
};

use crate::{
    host::{
        http::{HttpError, HttpService},
        root::HostRoot,
    },
    store::{
        adoption,
        bundle::{BundleCache, effective},
        own_files::leftovers,
        read::{ObserveError, at},
    },
};

/// How long an answer may take. What a commit starts goes on behind it.
const ANSWER: Duration = Duration::from_secs(10);
/// The name of our transaction.
const TRANSACTION: &str = "nodetrust";
/// Characters of an answer that an error quotes.
const QUOTED: usize = 200;

/// Entries of `settings.pki` to set; None for one that is to be blank.
pub(crate) type PkiChanges = BTreeMap<String, Option<Arc<Anchor>>>;

/// What became of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Committed {
    /// The system applies the change, and restarts the container runtime.
    Applied,
    /// The settings were as wanted already: nothing is done.
    Unchanged,
}

/// Looks at a store whose anchors are settings.
///
/// # Errors
/// If the API does not answer, or what counts is there and cannot be read.
pub(crate) fn observe(
    root: &HostRoot,
    store: &'static TrustStore,
    socket: &str,
    known_foreign: &BTreeSet<Fingerprint>,
    bundle: &mut BundleCache,
) -> Result<Observed, ObserveError> {
    let settings = read(root, socket).map_err(|error| at(socket)(io::Error::other(error)))?;
    let mut observed = Observed {
        anchors_dir_exists: true, // a setting needs no directory
        leftovers: leftovers(root, store, &[])?,
        adopted: adoption::remembered(root)?,
        effective: effective(root, store, bundle).map_err(at(store.bundle))?,
        ..Observed::empty(store)
    };
    let mut distrusted = BTreeSet::new();
    for (name, entry) in settings.iter().filter(|(_, entry)| !entry.is_blank()) {
        let anchors = anchors_of(name, entry);
        if is_own_name(store, name) {
            observed.ours.insert(name.clone(), own_entry(store, name, entry, &anchors));
            continue;
        }
        if !entry.trusted {
            distrusted.extend(anchors.iter().map(|anchor| anchor.fingerprint));
        }
        let path = store.anchor_place(name);
        observed.foreign.push(ForeignFile { path, anchors, taken: entry.trusted, ..ForeignFile::default() });
    }
    let missing = known_foreign.difference(&observed.effective.set);
    observed.gone = missing.filter(|print| !distrusted.contains(print)).copied().collect();
    Ok(observed)
}

/// Sets entries, and has the system apply them.
///
/// # Errors
/// If the API does not answer, or refuses: its own word. Nothing is applied then.
pub(crate) fn change(root: &HostRoot, socket: &str, changes: &PkiChanges) -> Result<Committed, HttpError> {
    let api = HttpService { root, socket, limit: ANSWER };
    let in_transaction = |path: &str| format!("{path}?tx={TRANSACTION}");
    // nothing of ours may be pending, which some versions may call missing
    drop_transaction(&api, &in_transaction("/tx"))?;
    for (name, anchor) in changes {
        let entry = PkiEntry::of(anchor.as_deref());
        expect(&api, Method::PATCH, &in_transaction("/settings"), Some(patch(name, &entry)))?;
    }
    let path = in_transaction("/tx/commit_and_apply");
    match api.ask(Method::POST, &path, None)? {
        (status, _) if status.is_success() => Ok(Committed::Applied),
        (StatusCode::UNPROCESSABLE_ENTITY, _) => Ok(Committed::Unchanged),
        (status, body) => Err(refused(&api, &Method::POST, &path, status, &body)),
    }
}

fn drop_transaction(api: &HttpService<'_>, path: &str) -> Result<(), HttpError> {
    match api.ask(Method::DELETE, path, None)? {
        (status, _) if status.is_success() || status == StatusCode::NOT_FOUND => Ok(()),
        (status, body) => Err(refused(api, &Method::DELETE, path, status, &body)),
    }
}

fn read(root: &HostRoot, socket: &str) -> Result<PkiSettings, HttpError> {
    let api = HttpService { root, socket, limit: ANSWER };
    let body = expect(&api, Method::GET, "/settings?prefix=pki", None)?;
    read_pki(&body).map_err(|error| api.unusable(error))
}

fn expect(api: &HttpService<'_>, method: Method, path: &str, json: Option<String>) -> Result<Bytes, HttpError> {
    let (status, body) = api.ask(method.clone(), path, json)?;
    if status.is_success() { Ok(body) } else { Err(refused(api, &method, path, status, &body)) }
}

fn refused(api: &HttpService<'_>, method: &Method, path: &str, status: StatusCode, body: &[u8]) -> HttpError {
    let said: String = String::from_utf8_lossy(body).chars().take(QUOTED).collect();
    api.unusable(format!("{method} {path}: HTTP status {status}: {}", said.escape_debug()))
}

fn anchors_of(name: &str, entry: &PkiEntry) -> Vec<Arc<Anchor>> {
    let pem = entry.pem().unwrap_or_default();
    SourceFile::parse(name, &pem).anchors.into_iter().map(|(_, anchor)| anchor).collect()
}

/// An entry of ours. What was changed in it is written anew.
fn own_entry(store: &TrustStore, name: &str, entry: &PkiEntry, anchors: &[Arc<Anchor>]) -> OwnAnchorFile {
    let anchor = match anchors {
        [anchor] if file_name(store, &anchor.fingerprint) == name => Some(Arc::clone(anchor)),
        _ => None,
    };
    let intact = anchor.as_ref().is_some_and(|anchor| *entry == PkiEntry::of(Some(anchor)));
    OwnAnchorFile { anchor, intact }
}
