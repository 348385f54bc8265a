//! Files of others that are taken over, and put back by `uninstall`.
//!
//! The record of a file is on the disk before the file goes, and goes only after the file is back: whoever kills us in between leaves
//! the file, or a record from which it is put back. A file that somebody changes between the last look and its removal is left alone.

use std::collections::BTreeMap;

use nodetrust_core::{
    certificate::{fingerprint::content_digest, name::shown},
    observed::Observed,
    problem::{Problem, ProblemKind},
    store::adopted::{AdoptedFile, MAX_ADOPTED_BYTES, MAX_ADOPTED_FILES, MAX_RECORD_BYTES},
};

use crate::{
    host::{
        file::{FileKind, is_missing},
        obstacle::write_problem,
        own_paths,
        root::HostRoot,
    },
    store::{
        hash_links,
        read::{ObserveError, at, usable},
    },
};

/// What is remembered of files that were taken over, by their paths. What is no record is left for people to look at.
///
/// # Errors
/// If a record is there and cannot be read.
pub(crate) fn remembered(root: &HostRoot) -> Result<BTreeMap<String, AdoptedFile>, ObserveError> {
    let dir = own_paths::ADOPTED_DIR;
    let is_directory = root.own_meta(dir).map_err(at(dir))?.is_some_and(|meta| meta.kind == FileKind::Directory);
    let mut files = BTreeMap::new();
    let names = if is_directory { root.names(dir).map_err(at(dir))? } else { Vec::new() };
    for (name, _) in names.into_iter().take(2 * MAX_ADOPTED_FILES) {
        let path = format!("{dir}/{name}");
        let Some(bytes) = usable(root.own_read(&path, MAX_RECORD_BYTES)).map_err(at(&path))? else { continue };
        if let Some(file) = AdoptedFile::parse(&bytes).filter(|file| AdoptedFile::record_name(&file.path) == name) {
            files.insert(file.path.clone(), file);
        }
    }
    Ok(files)
}

/// Takes a file of the anchor directory over: its record is written, then its links and the file itself go.
///
/// # Errors
/// If the record cannot be written, the file cannot be removed, or it is not what was seen.
pub(crate) fn take_over(root: &HostRoot, observed: &Observed, name: &str) -> Result<(), Problem> {
    let path = format!("{}/{name}", observed.store.anchors_dir);
    let seen = observed.foreign.iter().find(|file| file.path == path).and_then(|file| file.form.as_ref());
    let read = match root.own_read_with_meta(&path, MAX_ADOPTED_BYTES as u64) {
        Err(error) if is_missing(&error) => return Ok(()), // somebody was faster
        read => read.map_err(|error| write_problem(&path, &error))?,
    };
    let (meta, bytes) = read;
    let is_roots = meta.owner == (0, 0) || !nix::unistd::geteuid().is_root();
    if seen.is_none_or(|seen| seen.digest != content_digest(&bytes)) || meta.links != 1 || !is_roots {
        let text = format!("{} was changed while it was taken over, and stays", shown(&path));
        return Err(Problem::new(ProblemKind::NotAdopted, text, "the agent looks at it again"));
    }
    let file = AdoptedFile { path: path.clone(), mode: meta.mode, content: bytes.into() };
    if observed.adopted.get(&path) != Some(&file) {
        let record = record_of(&path);
        root.create_dir_all(own_paths::ADOPTED_DIR)
            .and_then(|()| root.write_atomic(&record, own_paths::DIR, own_paths::ADOPTED_TEMP, 0o600, &file.to_bytes()))
            .map_err(|error| write_problem(&record, &error))?;
    }
    // as for a file of ours: once they dangle, its links hide others of the same name; what stays, the tool removes
    let _ = hash_links::retire_links_to(root, observed.store, &path);
    root.remove_file(&path).map_err(|error| write_problem(&path, &error))
}

/// Puts a file back that was taken over, and forgets it. What has its name by now stays: whoever put it there has replaced the file.
///
/// # Errors
/// If the file cannot be written or the record cannot be removed; and a problem that is no failure, if something else has the name.
pub(crate) fn give_back(root: &HostRoot, file: &AdoptedFile) -> Result<(), Problem> {
    let path = &file.path;
    // a record that leads elsewhere is not read in the first place
    let Some(store) = file.store() else { return Ok(()) };
    let failed = |error: std::io::Error| write_problem(path, &error);
    root.create_dir_all(store.anchors_dir).map_err(failed)?;
    let (dir, temp) = (store.temp_dir, own_paths::ADOPTED_BACK_TEMP);
    let is_back = root.write_new(path, dir, temp, file.mode, &file.content).map_err(failed)?;
    let is_same = || root.own_read(path, MAX_ADOPTED_BYTES as u64).is_ok_and(|now| now == *file.content);
    let is_replaced = !is_back && !is_same();
    let record = record_of(path);
    root.remove_file(&record).map_err(|error| write_problem(&record, &error))?;
    if is_replaced {
        let text = format!(
            "{} was taken over, and something else has its name by now: it stays, and what was taken over is not put back",
            shown(path)
        );
        return Err(Problem::new(ProblemKind::NotAdopted, text, "nothing, if that is what should be there"));
    }
    Ok(())
}

fn record_of(path: &str) -> String {
    format!("{}/{}", own_paths::ADOPTED_DIR, AdoptedFile::record_name(path))
}
