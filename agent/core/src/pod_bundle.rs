//! The exported files: everything that the node trusts, under one path on every node, for pods to mount. One is a PEM file, the other a
//! trust store for Java.
//!
//! They lie in a directory of ours and nowhere else. The configuration chooses names, not paths: whoever can make root write a file
//! anywhere is root. Earlier versions took a path. A file at such a path is kept current until the file in our directory exists, and
//! is then removed.
//!
//! In: the extracted bundle, and what lies where the files belong. Out: the files' content, and what is to be done. The files follow
//! the extracted bundle; nothing is decided here about trust. If OpenSSL cannot load the extracted bundle, or it has lost
//! certificates, the files stay as they were.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::{
    action::{ExportFormat, PodBundleAction},
    certificate::{bundle, fingerprint::Fingerprint, pem, pkcs12, readers},
    observed::Observed,
    problem::{Problem, ProblemKind},
    text::plural,
};

/// The directory of exported files on the host, which pods mount.
pub const DIRECTORY: &str = "/var/lib/nodetrust/export";

/// Longest name of an exported file, in bytes.
pub const MAX_NAME: usize = 128;

/// The first line of the PEM file. One without it is not ours.
pub const HEADER: &str =
    "# Written by nodetrust: the certificates that this node trusts. Do not edit: it is written anew.\n";

/// The paths of the files that are wanted.
pub type ExportPaths = BTreeMap<ExportFormat, String>;

/// What lies at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExistingFile {
    /// Nothing.
    Nothing,
    /// A file that we wrote, or that takes nothing from anybody when it is replaced.
    Ours {
        /// Its form, where that is to be seen.
        format: Option<ExportFormat>,
        /// Its bytes, or none if its mode or links are not as we leave them.
        bytes: Vec<u8>,
    },
    /// Something that must not be touched, and why.
    Other(String),
}

/// What belongs into an exported file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExportContent {
    /// The file.
    pub bytes: Vec<u8>,
    /// Certificates in it.
    pub certificates: usize,
    /// Certificates of the extracted bundle that are not in it, since whoever reads the file would then read nothing of it.
    pub left_out: usize,
}

/// What is to be done about exported files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodBundlePlan {
    /// The actions, in order.
    pub actions: Vec<PodBundleAction>,
    /// What [`PodBundleAction::Write`] writes.
    pub contents: BTreeMap<ExportFormat, ExportContent>,
    /// The state of each file that is wanted.
    pub views: BTreeMap<ExportFormat, PodBundleView>,
    /// What prevents it.
    pub problems: Vec<Problem>,
}

/// An exported file, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PodBundleView {
    /// Its path on the host.
    pub path: String,
    /// It holds what the extracted bundle holds.
    pub current: bool,
    /// Certificates in it, as far as it is ours.
    pub certificates: usize,
    /// Why it is not current, or what is not in it; empty otherwise.
    pub detail: String,
}

/// Where an exported file of this name lies; None if it is no name of 1 to [`MAX_NAME`] of `A-Z a-z 0-9 . _ -`, or begins with a dot.
pub fn path_of(name: &str) -> Option<String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let is_name = (1..=MAX_NAME).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(fits);
    is_name.then(|| format!("{DIRECTORY}/{name}"))
}

/// The form of a file that we wrote; None for other files.
pub fn format_of(bytes: &[u8]) -> Option<ExportFormat> {
    match bytes {
        _ if bytes.starts_with(HEADER.as_bytes()) => Some(ExportFormat::Pem),
        _ if pkcs12::entries(bytes) > 0 => Some(ExportFormat::Pkcs12),
        _ => None,
    }
}

/// Whether a path is that of an exported file in our directory.
pub fn is_in_place(path: &str) -> bool {
    path.strip_prefix(DIRECTORY).and_then(|rest| rest.strip_prefix('/')).and_then(path_of).is_some()
}

/// The content of a file: each certificate of an extracted bundle once, in its order, which is the order in which OpenSSL tries them
/// (facts E.5). In a trust store for Java without those that Java may not read: it would read nothing of the file.
pub fn content(format: ExportFormat, bundle: &[u8]) -> ExportContent {
    let mut seen = BTreeSet::new();
    let mut all = bundle::certificates(bundle);
    all.retain(|der| seen.insert(Fingerprint::of_der(der)));
    if format == ExportFormat::Pkcs12 {
        all.retain(|der| readers::java_fault(der).is_none());
    }
    let bytes = match format {
        ExportFormat::Pem => {
            let blocks = all.iter().map(|der| pem::encode(der));
            std::iter::once(HEADER.to_owned()).chain(blocks).collect::<String>().into_bytes()
        }
        ExportFormat::Pkcs12 => pkcs12::trust_store(all.iter().map(Vec::as_slice)),
    };
    ExportContent { bytes, certificates: all.len(), left_out: seen.len() - all.len() }
}

/// What is to be done. `found` holds each path that is wanted and every path that was written before. `contents` are those of the files
/// that are wanted, made of the extracted bundle; None while the store is about to change, when only that a file will be written is known.
pub fn decide(
    want: &ExportPaths,
    found: &BTreeMap<String, ExistingFile>,
    contents: Option<&BTreeMap<ExportFormat, ExportContent>>,
    observed: &Observed,
) -> PodBundlePlan {
    let mut plan = PodBundlePlan::default();
    for (format, path) in want {
        let content = contents.and_then(|contents| contents.get(format));
        plan.follow(*format, path, found.get(path), content, observed);
    }
    // An earlier file goes when the new one of its form exists or is written now.
    let is_wanted = |path: &str| want.values().any(|wanted| wanted == path);
    for (path, found) in found.iter().filter(|(path, _)| !is_wanted(path)) {
        let ExistingFile::Ours { format, bytes } = found else { continue };
        let waits = format.filter(|format| plan.views.get(format).is_some_and(|view| !view.is_there(&plan.actions)));
        let Some(format) = waits else {
            plan.actions.push(PodBundleAction::Remove { path: path.clone(), format: *format });
            continue;
        };
        // The new file does not exist yet, so pods still read this one.
        let content = contents.and_then(|contents| contents.get(&format));
        if unfit(observed).is_none() && content.is_none_or(|content| content.bytes != *bytes) {
            plan.actions.push(write(format, path, content, observed));
        }
    }
    if plan.actions.iter().any(|action| matches!(action, PodBundleAction::Write { .. })) {
        plan.contents = contents.cloned().unwrap_or_default();
    }
    plan
}

impl PodBundlePlan {
    /// A file that is wanted.
    fn follow(
        &mut self,
        format: ExportFormat,
        path: &str,
        found: Option<&ExistingFile>,
        content: Option<&ExportContent>,
        observed: &Observed,
    ) {
        let mut view = PodBundleView { path: path.to_owned(), current: false, certificates: 0, detail: String::new() };
        if let Some(ExistingFile::Ours { format: Some(there), bytes }) = found {
            view.certificates = match there {
                ExportFormat::Pem => bundle::read(bytes).set.len(),
                ExportFormat::Pkcs12 => pkcs12::entries(bytes),
            };
        }
        match (found, unfit(observed), content) {
            (Some(ExistingFile::Other(why)), ..) => {
                view.detail = format!("not written: {why}");
                let text = format!("the bundle cannot be exported to {path}: {why}");
                let next = format!("give another name in {}, or move what is there away", format.field());
                self.problems.push(Problem::new(ProblemKind::Export, text, next));
            }
            (_, Some(why), _) => view.detail = format!("stays as it was: {why}"),
            (_, None, Some(content)) if content.certificates == 0 => {
                view.detail = "stays as it was: Java may not read any certificate of the extracted bundle".to_owned();
            }
            (_, None, None) => {
                view.detail = "follows when the store has changed".to_owned();
                self.actions.push(write(format, path, None, observed));
            }
            (Some(ExistingFile::Ours { bytes, .. }), None, Some(content)) if *bytes == content.bytes => {
                view.current = true;
                if content.left_out > 0 {
                    view.detail = format!("without {} that Java may not read", plural(content.left_out, "certificate"));
                }
            }
            (_, None, Some(content)) => {
                view.detail = "not written yet".to_owned();
                self.actions.push(write(format, path, Some(content), observed));
            }
        }
        self.views.insert(format, view);
    }
}

impl PodBundleView {
    /// How it is, in a few words.
    pub fn how(&self) -> String {
        match (self.current, self.detail.is_empty()) {
            (true, true) => "as the extracted bundle".to_owned(),
            (true, false) => format!("as the extracted bundle {}", self.detail),
            (false, _) => self.detail.clone(),
        }
    }

    /// Whether the file is as it should be, or will be by these actions.
    fn is_there(&self, actions: &[PodBundleAction]) -> bool {
        let writes =
            |action: &PodBundleAction| matches!(action, PodBundleAction::Write { path, .. } if *path == self.path);
        self.current || actions.iter().any(writes)
    }
}

fn write(format: ExportFormat, path: &str, content: Option<&ExportContent>, observed: &Observed) -> PodBundleAction {
    let certificates = content.map_or(observed.effective.set.len(), |content| content.certificates);
    PodBundleAction::Write { path: path.to_owned(), format, certificates }
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
