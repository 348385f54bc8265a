//! The exported bundle: everything that the node trusts in one PEM file, under one path on every node, for pods to mount.
//!
//! It lies in one directory of ours and nowhere else: whoever edits the configuration chooses a name, not a place, since a file
//! that root writes at a place of one's choice is as good as being root. Versions before took a path. What they wrote is kept
//! current until the file in our directory is there, and goes then.
//!
//! In: the extracted bundle as it is, and what lies where the file belongs. Out: the file's content, and what is to be done. It
//! follows the extracted bundle and decides nothing about trust. A bundle that OpenSSL cannot load, or that has lost
//! certificates, is not handed on: the file stays as it was.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::{
    action::Action,
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
    /// In order.
    pub actions: Vec<Action>,
    /// What `WriteExport` writes.
    pub content: String,
    /// How it stands, if one is wanted.
    pub view: Option<PodBundleView>,
    /// What is in the way.
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

/// Decides. `want` is the path of the configured name; `found` has it, and every path that was written before. `content` is the
/// bundle's, `None` while the store is about to change: then what will be written is not known yet, only that it will.
pub fn decide(
    want: Option<&str>,
    found: &BTreeMap<String, ExistingFile>,
    content: Option<String>,
    observed: &Observed,
) -> PodBundlePlan {
    let mut export = PodBundlePlan::default();
    let certificates = observed.effective.set.len();
    let write = |path: &str| Action::WriteExport { path: path.to_owned(), certificates };
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
    // an earlier one goes when the new one is there or comes now
    let succeeded = export.view.as_ref().is_none_or(|view| view.current || !export.actions.is_empty());
    let left = found.iter().filter(|(path, _)| Some(path.as_str()) != want);
    for (path, found) in left {
        match found {
            ExistingFile::Ours(_) if succeeded => export.actions.push(Action::RemoveExport { path: path.clone() }),
            // nothing is in its place yet: whoever reads it still does
            ExistingFile::Ours(bytes)
                if unfit(observed).is_none() && content.as_ref().is_none_or(|content| content.as_bytes() != *bytes) =>
            {
                export.actions.push(write(path));
            }
            _ => {}
        }
    }
    if export.actions.iter().any(|action| matches!(action, Action::WriteExport { .. })) {
        export.content = content.unwrap_or_default();
    }
    export
}

/// Why the extracted bundle is not one to hand on.
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
