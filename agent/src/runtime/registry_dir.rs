//! The runtime's registry directory on the host: what its process reads, what lies there, and our file in it.

use std::{collections::BTreeSet, io, path::Path, sync::Arc};

use nodetrust_core::{
    certificate::{anchor::Anchor, bundle},
    ledger::Ledger,
    runtime::registry_dir::{DEFAULT, FILE, OwnRegistryFile, RegistryCerts, Setting, is_registry_folder},
};

use crate::host::{
    file::{FileKind, is_missing},
    obstacle::Obstacle,
    own_paths,
    root::HostRoot,
};

/// Largest file in a registry directory that is looked at, in bytes.
const MAX_CERTS: u64 = 64 << 20;
/// Hosts with a directory of their own that are told; the rest is not read.
const MAX_HOSTS: usize = 100;

/// What lies in the registry directory.
pub(crate) fn look(root: &HostRoot, setting: Setting, ledger: &Ledger) -> RegistryCerts {
    let mut certs = RegistryCerts { setting, ..RegistryCerts::default() };
    let paths: BTreeSet<String> = ledger.certs_files.iter().cloned().chain(certs.path()).collect();
    for path in paths {
        certs.own.extend(own_file(root, &path).map(|own| (path, own)));
    }
    let Setting::Directory(dir) = &certs.setting else { return certs };
    let listing = match root.list(dir) {
        Ok(listing) => listing.unwrap_or_default(),
        Err(error) => {
            certs.unreadable = Some(error.to_string());
            return certs;
        }
    };
    let is_dir = |name: &String, kind| match kind {
        FileKind::Directory => true,
        FileKind::Link => {
            matches!(root.stat(format!("{dir}/{name}")), Ok(Some(meta)) if meta.kind == FileKind::Directory)
        }
        FileKind::File | FileKind::Other => false,
    };
    let hosts = listing.into_iter().filter(|(name, meta)| is_registry_folder(name) && is_dir(name, meta.kind));
    certs.elsewhere = hosts.map(|(name, _)| name).take(MAX_HOSTS).collect();
    let default = match root.list(format!("{dir}/{DEFAULT}")) {
        Ok(listing) => listing.unwrap_or_default(),
        Err(error) => {
            certs.unreadable = Some(error.to_string());
            return certs;
        }
    };
    for (name, _) in default {
        let path = format!("{dir}/{DEFAULT}/{name}");
        certs.hidden |= name == "hosts.toml";
        if name.ends_with(".crt") && name != FILE && certs.broken.is_none() {
            // one certificate that Go reads is enough for the runtime to take the file
            let go_reads = |der: &Vec<u8>| Anchor::from_der(der).map_or(true, |anchor| anchor.go_reads());
            let is_read = |bytes: Vec<u8>| bundle::certificates(&bytes).iter().any(go_reads);
            certs.broken = (!root.read(&path, MAX_CERTS).is_ok_and(is_read)).then_some(path);
        }
    }
    if certs.hidden {
        certs.broken = None; // nobody reads it
    }
    certs
}

/// None if there is no such file.
fn own_file(root: &HostRoot, path: &str) -> Option<OwnRegistryFile> {
    let meta = root.own_meta(path).ok()??;
    let bytes = match root.own_read(path, MAX_CERTS) {
        Ok(bytes) if meta.mode == 0o644 && meta.links == 1 => bytes,
        _ => return Some(OwnRegistryFile::Altered),
    };
    let read = bundle::read(&bytes);
    let sound = !read.set.is_empty() && read.faults.is_empty() && !read.private_key && read.count == read.set.len();
    Some(if sound { OwnRegistryFile::Holds(read.set) } else { OwnRegistryFile::Altered })
}

fn content<'a>(anchors: impl Iterator<Item = &'a Arc<Anchor>>) -> String {
    anchors.map(|anchor| anchor.pem()).collect()
}

/// Removes our file, and what a run that was killed has left beside it.
///
/// # Errors
/// As [`HostRoot::remove_file`].
pub fn remove_file(root: &HostRoot, path: &str) -> io::Result<()> {
    let temporary = Path::new(path).with_file_name(own_paths::CERTS);
    root.remove_file(temporary)?;
    root.remove_file(path)
}

/// Writes our file. `anchors` are in the order of their fingerprints, and there is at least one.
///
/// # Errors
/// As [`HostRoot::write_atomic`].
pub fn write_file<'a>(root: &HostRoot, path: &str, anchors: impl Iterator<Item = &'a Arc<Anchor>>) -> io::Result<()> {
    let dir = Path::new(path).parent().unwrap_or(Path::new("/"));
    keep_what_others_have(root, dir)?;
    root.create_dir_all(dir)?;
    root.write_atomic(path, dir, own_paths::CERTS, 0o644, content(anchors).as_bytes())
}

/// A link in the place of our directory is replaced by the directory, unless the runtime reads somebody else's files by way of it.
fn keep_what_others_have(root: &HostRoot, dir: &Path) -> io::Result<()> {
    let Some(target) = root.link_target(dir)? else { return Ok(()) };
    let names = match root.list(dir) {
        Ok(names) => names.unwrap_or_default(),
        Err(error) if is_missing(&error) => Vec::new(),
        Err(error) => return Err(error),
    };
    if names.is_empty() {
        return Ok(());
    }
    let (dir, target) = (dir.display(), target.display());
    Err(Obstacle::error(
        io::ErrorKind::AlreadyExists,
        format!("{dir} is a link to {target}, where other files are; nodetrust enters no link"),
        format!(
            "on the host: make {dir} a directory with these files in it, or remove the link; or set runtime.onChange to restart"
        ),
    ))
}

/// Directories of the host where a change would matter, in our own view.
pub fn watched(root: &HostRoot, certs: &RegistryCerts) -> Vec<std::path::PathBuf> {
    let Setting::Directory(dir) = &certs.setting else { return Vec::new() };
    let dirs = [dir.clone(), format!("{dir}/{DEFAULT}")];
    dirs.iter().filter_map(|dir| root.location(dir).ok()).collect()
}
