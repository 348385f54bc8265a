//! The exported bundle: everything that the node trusts in one PEM file, under one path on every node, for pods to mount.
//!
//! It lies in a directory of ours and nowhere else. The configuration chooses a name, not a path: whoever can make root write a file
//! anywhere is root. Earlier versions took a path. A file at such a path is kept current until the file in our directory exists, and
//! is then removed.
//!
//! In: the extracted bundle, and what lies where the file belongs. Out: the file's content, and what is to be done. The file follows
//! the extracted bundle; nothing is decided here about trust. If OpenSSL cannot load the extracted bundle, or it has lost
//! certificates, the file stays as it was.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::{
    action::PodBundleAction,
    certificate::{bundle, fingerprint::Fingerprint, pem},
    observed::Observed,
    problem::{Problem, ProblemKind},
};

/// The directory of exported bundles on the host, which pods mount.
pub const DIRECTORY: &str = "/var/lib/nodetrust/export";

/// Longest name of an exported bundle, in bytes.
pub const MAX_NAME: usize = 128;

/// The first line of the file. A file without it is not ours.
pub const HEADER: &str =
    "# Written by nodetrust: the certificates that this node trusts. Do not edit: it is written anew.\n";

/// What lies at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExistingFile {
    /// Nothing.
    Nothing,
    /// A file with our first line: its bytes, or none if its mode or links are not as we leave them.
    Ours(Vec<u8>),
    /// Something that must not be touched, and why.
    Other(String),
}

/// What is to be done about exported bundles.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodBundlePlan {
    /// The actions, in order.
    pub actions: Vec<PodBundleAction>,
    /// What [`PodBundleAction::Write`] writes.
    pub content: String,
    /// The state of the file, if one is wanted.
    pub view: Option<PodBundleView>,
    /// What prevents it.
    pub problems: Vec<Problem>,
}

/// The exported bundle, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PodBundleView {
    /// Its path on the host.
    pub path: String,
    /// It holds what the extracted bundle holds.
    pub current: bool,
    /// Certificates in it, as far as it is ours.
    pub certificates: usize,
    /// Why it is not current; empty otherwise.
    pub detail: String,
}

/// Where an exported bundle of this name lies; None if it is no name of 1 to [`MAX_NAME`] of `A-Z a-z 0-9 . _ -`, or begins with a dot.
pub fn path_of(name: &str) -> Option<String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let is_name = (1..=MAX_NAME).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(fits);
    is_name.then(|| format!("{DIRECTORY}/{name}"))
}

/// Whether a path is that of an exported bundle in our directory.
pub fn is_in_place(path: &str) -> bool {
    path.strip_prefix(DIRECTORY).and_then(|rest| rest.strip_prefix('/')).and_then(path_of).is_some()
}

/// The file's content: each certificate of an extracted bundle once, in its order, which is the order in which OpenSSL tries
/// them (facts E.5), freshly encoded.
pub fn content(bundle: &[u8]) -> String {
    let mut seen = BTreeSet::new();
    let mut text = HEADER.to_owned();
    for der in bundle::certificates(bundle) {
        if seen.insert(Fingerprint::of_der(&der)) {
            text.push_str(&pem::encode(&der));
        }
    }
    text
}

/// What is to be done. `want` is the path of the configured name. `found` holds that path and every path that was written before.
/// `content` is that of the extracted bundle; None while the store is about to change, when only that a file will be written is known.
pub fn decide(
    want: Option<&str>,
    found: &BTreeMap<String, ExistingFile>,
    content: Option<String>,
    observed: &Observed,
) -> PodBundlePlan {
    let mut export = PodBundlePlan::default();
    let certificates = observed.effective.set.len();
    let write = |path: &str| PodBundleAction::Write { path: path.to_owned(), certificates };
    if let Some(path) = want {
        let mut view = PodBundleView { path: path.to_owned(), current: false, certificates: 0, detail: String::new() };
        if let Some(ExistingFile::Ours(bytes)) = found.get(path) {
            view.certificates = bundle::read(bytes).set.len();
        }
        match (found.get(path), unfit(observed), content.as_deref()) {
            (Some(ExistingFile::Other(why)), ..) => {
                view.detail = format!("not written: {why}");
                let text = format!("the bundle cannot be exported to {path}: {why}");
                let next = "give another name in export.bundle, or move what is there away";
                export.problems.push(Problem::new(ProblemKind::Export, text, next));
            }
            (_, Some(why), _) => view.detail = format!("stays as it was: {why}"),
            (_, None, None) => {
                view.detail = "follows when the store has changed".to_owned();
                export.actions.push(write(path));
            }
            (Some(ExistingFile::Ours(bytes)), None, Some(content)) if *bytes == content.as_bytes() => {
                view.current = true
            }
            (_, None, Some(_)) => {
                view.detail = "not written yet".to_owned();
                export.actions.push(write(path));
            }
        }
        export.view = Some(view);
    }
    // An earlier file goes when the new one exists or is written now.
    let succeeded = export.view.as_ref().is_none_or(|view| view.current || !export.actions.is_empty());
    let left = found.iter().filter(|(path, _)| Some(path.as_str()) != want);
    for (path, found) in left {
        match found {
            ExistingFile::Ours(_) if succeeded => export.actions.push(PodBundleAction::Remove { path: path.clone() }),
            // The new file does not exist yet, so pods still read this one.
            ExistingFile::Ours(bytes)
                if unfit(observed).is_none() && content.as_ref().is_none_or(|content| content.as_bytes() != *bytes) =>
            {
                export.actions.push(write(path));
            }
            _ => {}
        }
    }
    if export.actions.iter().any(|action| matches!(action, PodBundleAction::Write { .. })) {
        export.content = content.unwrap_or_default();
    }
    export
}

/// Why the extracted bundle must not be given to pods.
fn unfit(observed: &Observed) -> Option<&'static str> {
    let effective = &observed.effective;
    if effective.set.is_empty() {
        return Some("the extracted bundle has no certificates");
    }
    if !effective.faults.is_empty() {
        return Some("OpenSSL cannot load the extracted bundle");
    }
    (!observed.lost.is_empty()).then_some("the extracted bundle has lost certificates")
}

#[cfg(test)]
#[path = "pod_bundle_tests.rs"]
mod tests;
