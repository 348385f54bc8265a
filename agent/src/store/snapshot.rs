//! What a run of the store's tool can damage, kept at hand to be put back.

use std::{collections::BTreeSet, ffi::OsString, io, path::Path};

use nodetrust_core::{
    certificate::{bundle, fingerprint::Fingerprint},
    observed::Effective,
    problem::{Problem, ProblemKind},
    store::{TrustStore, harm::harm},
};

use crate::{
    host::{file::FileKind, own_paths::RESTORE, root::HostRoot},
    store::{
        bundle::usable_bundle,
        failure::ExtractFailure,
        hash_links::{self, certificates},
        judge::BundleJudge,
        read::{MAX_BUNDLE_BYTES, ObserveError, at, usable},
    },
};

/// How much is put back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// What is gone or changed.
    All,
    /// Links that are gone or changed, and files that are gone.
    Links,
    /// What is gone, but for links to certificates that are not trusted any more: somebody has deselected them.
    Missing,
}

/// What a run can damage, as it was before the first try.
#[derive(Debug)]
pub(crate) struct StoreSnapshot {
    store: &'static TrustStore,
    pub(crate) outputs: SavedOutputs,
    /// The bundle's permission bits.
    mode: Option<u32>,
    /// Certificates that OpenSSL finds in its directories.
    linked: hash_links::Linked,
}

impl StoreSnapshot {
    /// Takes it. `before`: what is in the bundle need not be decoded again.
    ///
    /// # Errors
    /// If a part is there and cannot be read: it could neither be compared nor put back.
    pub(crate) fn take(root: &HostRoot, store: &'static TrustStore, before: &Effective) -> Result<Self, ObserveError> {
        let meta = usable(root.stat(store.bundle)).map_err(at(store.bundle))?.flatten();
        Ok(Self {
            store,
            outputs: SavedOutputs::save(root, store)?,
            mode: meta.map(|meta| meta.mode),
            linked: hash_links::linked(root, store, before)?,
        })
    }

    /// The bundle; None if no program could use it.
    pub(crate) fn bundle(&self) -> Option<&[u8]> {
        self.outputs.saved.iter().find_map(|(path, output)| match output {
            SavedOutput::File(bytes, _) if path == self.store.bundle => Some(bytes.as_slice()),
            SavedOutput::File(..) | SavedOutput::Link(..) => None,
        })
    }

    /// Who could read the bundle can still read it, and nobody else write it.
    pub(crate) fn keep_mode(&self, root: &HostRoot) -> Result<(), ExtractFailure> {
        let path = self.store.bundle;
        let failed = |error: io::Error| ExtractFailure::unwritten(path, &error);
        let Some(now) = root.stat(path).map_err(failed)? else { return Ok(()) };
        let before = self.mode.unwrap_or(0o644);
        let mode = (now.mode | before & 0o444) & !(0o7022 & !before);
        if mode == now.mode {
            return Ok(());
        }
        tracing::warn!("the tool left {path} with mode {:04o}; it is {mode:04o} again", now.mode);
        root.set_mode(path, mode).map_err(failed)
    }

    /// The links to other people's certificates that the run has lost are put back.
    pub(crate) fn keep_links(
        &self,
        judge: &BundleJudge<'_>,
        program: &str,
        after: &Effective,
    ) -> Result<(), ExtractFailure> {
        let root = judge.exec.root;
        let dir = self.store.hash_dir.unwrap_or_default();
        if hash_links::retire_nameless(root, self.store).map_err(|error| ExtractFailure::unwritten(dir, &error))? {
            let text = format!("{program} could not name a link in {dir}: one of its programs failed or was killed");
            let next = format!("look for a full process table or memory on the host, then run {program} there");
            return Err(ExtractFailure::Again(Problem::new(ProblemKind::Extract, text, next)));
        }
        let lost = || -> Result<usize, ExtractFailure> {
            let linked = hash_links::linked(root, self.store, after).map_err(|error| ExtractFailure::unread(&error))?;
            let mut lost = BTreeSet::new();
            for (dir, before) in &self.linked {
                let none = BTreeSet::new();
                lost.extend(before.difference(linked.get(dir).unwrap_or(&none)).copied());
            }
            lost.retain(|print| after.set.contains(print) && !judge.ours.contains(print));
            let names = self.outputs.lost_names(root, &after.set);
            Ok(lost.len() + names.map_err(|error| ExtractFailure::unread(&error))?)
        };
        let count = lost()?;
        if count == 0 {
            return Ok(());
        }
        let put_back = self.outputs.put_back(root, Extent::Missing, &after.set);
        let left = lost()?;
        if left == 0 {
            tracing::warn!(count, "{program} lost links to certificates that are not ours; they were put back");
            return Ok(());
        }
        let dir = self.linked.keys().copied().collect::<Vec<_>>().join(" and ");
        let why =
            put_back.err().map_or_else(String::new, |(path, error)| format!("; putting {path} back failed: {error}"));
        let text = format!("{program} lost the links in {dir} to {left} certificates that are not ours{why}");
        let next = format!("run {program} on the host and look at its output");
        Err(ExtractFailure::Again(Problem::new(ProblemKind::ForeignLost, text, next)))
    }

    /// After a run that failed: what it has made worse becomes what it was, all of it; otherwise what is missing is put back. The
    /// problem says so.
    pub(crate) fn undo(&self, judge: &BundleJudge<'_>, failure: ExtractFailure) -> ExtractFailure {
        let root = judge.exec.root;
        let bytes = usable_bundle(root, self.store);
        let now = bytes.as_ref().ok().and_then(Option::as_deref).map(bundle::read).unwrap_or_default();
        // what cannot be told counts as worse
        let harm = || judge.departed(&now).map(|departed| harm(judge.before, &now, departed));
        let is_worse = match bytes {
            Ok(bytes) => bytes.as_deref() != self.bundle() && !matches!(harm(), Ok(None)),
            Err(_) => true,
        };
        let (extent, trusted) = match &failure {
            _ if is_worse => (Extent::All, &judge.before.set),
            ExtractFailure::Final(_) => (Extent::Links, &now.set),
            ExtractFailure::Again(_) => (Extent::Missing, &now.set),
        };
        let put_back = self.outputs.put_back(root, extent, trusted);
        // the same bytes may have another mode than before
        let mode = match self.keep_mode(root) {
            Ok(()) => String::new(),
            Err(ExtractFailure::Final(problem) | ExtractFailure::Again(problem)) => format!("; {}", problem.text),
        };
        failure.map(|problem| {
            let what = match put_back {
                Err((path, error)) => format!("; putting {path} back failed: {error}"),
                Ok(()) if is_worse => format!("; {} was put back as it was", self.store.bundle),
                Ok(()) => String::new(),
            };
            Problem { text: format!("{}{what}{mode}", problem.text), ..problem }
        })
    }
}

/// What a run of the tool replaces, as it was: the store's files, and the files and links in its directories.
#[derive(Debug)]
pub(crate) struct SavedOutputs {
    /// on the outputs' file system, and looked through for what a killed run left
    temp_dir: &'static str,
    saved: Vec<(String, SavedOutput)>,
}

#[derive(Debug)]
enum SavedOutput {
    File(Vec<u8>, u32),
    /// Where it leads, and the content there. It is decoded only if the link is lost: all links of a store are as much work as two
    /// bundles.
    Link(OsString, Vec<u8>),
}

impl SavedOutputs {
    /// Reads them. What no tool could use (a socket, a link to itself, a huge file) is nobody's loss.
    ///
    /// # Errors
    /// If one of them is there and cannot be read: it could not be put back.
    pub(crate) fn save(root: &HostRoot, store: &'static TrustStore) -> Result<Self, ObserveError> {
        let mut saved = Vec::new();
        let mut links = Vec::new();
        let read = |path: &str| usable(root.read(path, MAX_BUNDLE_BYTES)).map_err(at(path));
        for path in std::iter::once(&store.bundle).chain(store.outputs) {
            let Some(meta) = usable(root.stat(path)).map_err(at(path))?.flatten() else { continue };
            if meta.kind == FileKind::File {
                saved.extend(read(path)?.map(|bytes| ((*path).to_owned(), SavedOutput::File(bytes, meta.mode))));
                continue;
            }
            let is_source = *path == store.anchors_dir;
            let Some(dir) = root.directory(path).map_err(at(path))? else { continue };
            for (name, kind) in dir.names().map_err(at(path))? {
                let path = format!("{path}/{name}");
                match kind {
                    // other files in such a directory are not the tool's, and where it reads them, none is
                    FileKind::File if name.ends_with(".pem") && !is_source => {
                        let mut bytes = Vec::new();
                        let meta = usable(dir.read(&name, MAX_BUNDLE_BYTES, &mut bytes)).map_err(at(&path))?;
                        saved.extend(meta.map(|meta| (path, SavedOutput::File(bytes, meta.mode))));
                    }
                    FileKind::Link => {
                        let content = read(&path)?;
                        // one that leads nowhere is nobody's loss
                        if content.is_some() || usable(root.stat(&path)).map_err(at(&path))?.flatten().is_some() {
                            let target = dir.link_target(&name).map_err(at(&path))?;
                            let link = target.map(|to| (path, SavedOutput::Link(to, content.unwrap_or_default())));
                            links.extend(link);
                        }
                    }
                    FileKind::File | FileKind::Directory | FileKind::Other => {}
                }
            }
        }
        saved.extend(links); // after the files that they lead to
        Ok(Self { temp_dir: Path::new(store.bundle).parent().and_then(Path::to_str).unwrap_or("/"), saved })
    }

    /// How many links, but for hash links, are gone though what they led to is there and trusted.
    ///
    /// # Errors
    /// If a link, or what it led to, cannot be looked at.
    pub(crate) fn lost_names(&self, root: &HostRoot, trusted: &BTreeSet<Fingerprint>) -> Result<usize, ObserveError> {
        let mut lost = 0;
        for (path, output) in &self.saved {
            let SavedOutput::Link(target, content) = output else { continue };
            let (dir, name) = path.rsplit_once('/').unwrap_or_default();
            if hash_links::is_hash_link(name)
                || root.link_target(path).map_err(at(path))?.is_some()
                || certificates(content).is_disjoint(trusted)
            {
                continue;
            }
            let leads = usable(root.stat(Path::new(dir).join(target))).map_err(at(path))?.flatten().is_some();
            lost += usize::from(leads);
        }
        Ok(lost)
    }

    /// Puts back as much as can be; the first path that could not be, and why. `trusted` is in the bundle now.
    pub(crate) fn put_back(
        &self,
        root: &HostRoot,
        extent: Extent,
        trusted: &BTreeSet<Fingerprint>,
    ) -> Result<(), (&str, io::Error)> {
        let mut result = Ok(());
        for (path, output) in &self.saved {
            let put = match output {
                SavedOutput::File(bytes, mode) => match root.read(path, MAX_BUNDLE_BYTES) {
                    Ok(now) if extent != Extent::All || now == *bytes => continue,
                    _ => root.write_atomic(path, self.temp_dir, RESTORE, *mode, bytes),
                },
                // what cannot be read is written anew
                SavedOutput::Link(target, content) => match root.link_target(path).unwrap_or_default() {
                    Some(now) if extent == Extent::Missing || now == *target => continue,
                    None if extent == Extent::Missing && is_deselected(content, trusted) => continue,
                    _ => root.link_atomic(path, self.temp_dir, RESTORE, target),
                },
            };
            if let (Ok(()), Err(error)) = (&result, put) {
                result = Err((path.as_str(), error));
            }
        }
        result
    }
}

/// Whether a link led to certificates of which none is trusted any more.
fn is_deselected(content: &[u8], trusted: &BTreeSet<Fingerprint>) -> bool {
    let led_to = certificates(content);
    !led_to.is_empty() && led_to.is_disjoint(trusted)
}
