//! The exported files on the host: what lies at their paths, and writing and removing them.
//!
//! A path outside of the directory of exported files is one of an earlier version: it is known from the ledger, and only what
//! that version has written there is read, kept current or removed.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::Path,
};

use nodetrust_core::{
    action::ExportFormat,
    ledger::Ledger,
    observed::Observed,
    pod_bundle::{self, ExistingFile, ExportPaths, PodBundlePlan},
    problem::{Problem, ProblemKind},
};

use crate::{
    host::{file::FileKind, obstacle::way_out_or, own_paths, root::HostRoot},
    store::{bundle::bundle_bytes, read::MAX_BUNDLE_BYTES},
};

/// Looks at what is exported, and decides. While the store `is_changing`, what will be written is not known yet.
pub fn look(
    root: &HostRoot,
    want: &ExportPaths,
    ledger: &Ledger,
    observed: &Observed,
    is_changing: bool,
) -> PodBundlePlan {
    // the configuration cannot name such a place; here for whoever forgets that
    let is_ours = |path: &String| pod_bundle::is_in_place(path) || ledger.exports.contains(path);
    let want: ExportPaths =
        want.iter().filter(|(_, path)| is_ours(path)).map(|(format, path)| (*format, path.clone())).collect();
    let paths: BTreeSet<&String> = ledger.exports.iter().chain(want.values()).collect();
    if paths.is_empty() {
        return PodBundlePlan::default();
    }
    let found: BTreeMap<String, ExistingFile> =
        paths.into_iter().map(|path| (path.clone(), find(root, path))).collect();
    let contents = match bundle_bytes(root, observed.store) {
        _ if is_changing || want.is_empty() => None,
        Ok(bytes) => {
            let bytes = bytes.unwrap_or_default();
            Some(want.keys().map(|format| (*format, pod_bundle::content(*format, &bytes))).collect())
        }
        Err(error) => {
            let text =
                format!("the bundle for pods is not looked after: failed to read {}: {error}", observed.store.bundle);
            let next = way_out_or(&error, "look at the path on the host; the agent tries again");
            return PodBundlePlan {
                problems: vec![Problem::new(ProblemKind::Export, text, next)],
                ..PodBundlePlan::default()
            };
        }
    };
    pod_bundle::decide(&want, &found, contents.as_ref(), observed)
}

/// The files in the directory of exported files: for whoever cannot ask the ledger.
///
/// # Errors
/// If the directory is there and cannot be read.
pub fn in_place(root: &HostRoot) -> io::Result<Vec<String>> {
    let is_dir = root.own_meta(pod_bundle::DIRECTORY)?.is_some_and(|meta| meta.kind == FileKind::Directory);
    let names = if is_dir { root.names(pod_bundle::DIRECTORY)? } else { Vec::new() };
    let paths = names.into_iter().map(|(name, _)| format!("{}/{name}", pod_bundle::DIRECTORY));
    Ok(paths.filter(|path| pod_bundle::is_in_place(path)).collect())
}

/// The files that are wanted, for whoever has no configuration: those that the ledger names, one of each form, in our directory if it can be.
pub fn by_ledger(root: &HostRoot, ledger: &Ledger) -> ExportPaths {
    let (in_place, earlier): (Vec<&String>, _) = ledger.exports.iter().partition(|path| pod_bundle::is_in_place(path));
    let mut want = ExportPaths::new();
    for path in in_place.into_iter().chain(earlier) {
        let format = match find(root, path) {
            ExistingFile::Ours { format: Some(format), .. } => format,
            _ => ExportFormat::Pem, // it is not there, which is told of the one as of the other
        };
        want.entry(format).or_insert_with(|| path.clone());
    }
    want
}

/// What lies at a path.
fn find(root: &HostRoot, path: &str) -> ExistingFile {
    let in_own_dir = Path::new(path).starts_with(own_paths::DIR);
    let meta = match root.own_meta(path) {
        Ok(None) => return ExistingFile::Nothing,
        Ok(Some(meta)) if meta.kind == FileKind::Directory && root.names(path).is_ok_and(|names| !names.is_empty()) => {
            return ExistingFile::Other(format!("{path} is a directory with something in it: move it away"));
        }
        // what is no file's only name is lost without loss, and replaced where nobody else keeps anything
        Ok(Some(meta)) if in_own_dir && (meta.kind != FileKind::File || meta.links > 1) => {
            return ExistingFile::Ours { format: None, bytes: Vec::new() };
        }
        Ok(Some(meta)) if meta.kind == FileKind::File => meta,
        Ok(Some(_)) => return ExistingFile::Other("something that is no regular file is there".to_owned()),
        Err(error) => return ExistingFile::Other(error.to_string()),
    };
    match root.own_read(path, MAX_BUNDLE_BYTES) {
        Ok(bytes) => match pod_bundle::format_of(&bytes) {
            None => ExistingFile::Other("a file that nodetrust did not write is there".to_owned()),
            format if meta.mode == 0o644 && meta.links == 1 => ExistingFile::Ours { format, bytes },
            format => ExistingFile::Ours { format, bytes: Vec::new() },
        },
        Err(error) => ExistingFile::Other(error.to_string()),
    }
}

/// Writes the file.
///
/// # Errors
/// As [`HostRoot::write_atomic`].
pub fn write(root: &HostRoot, path: &str, content: &[u8]) -> io::Result<()> {
    let dir = Path::new(path).parent().unwrap_or(Path::new("/"));
    root.create_dir_all(dir)?;
    root.write_atomic(path, dir, own_paths::EXPORT, 0o644, content)
}

/// Removes the file if it is ours, and what a run that was killed has left beside it.
///
/// # Errors
/// As [`HostRoot::remove_file`].
pub fn remove(root: &HostRoot, path: &str) -> io::Result<()> {
    root.remove_file(Path::new(path).with_file_name(own_paths::EXPORT))?;
    match find(root, path) {
        ExistingFile::Ours { .. } => root.remove_file(path),
        ExistingFile::Nothing | ExistingFile::Other(_) => Ok(()),
    }
}
