//! The runtime's registry directory on the host: what its process reads, what lies there, and our file in it.

use std::{collections::BTreeSet, io, path::Path, sync::Arc};

use nodetrust_core::{
    anchor::Anchor,
    bundle,
    runtime::{
        Kind, Process,
        certs_d::{self, DEFAULT, FILE, OwnFile, RegistryCerts, Setting},
    },
    state::Ledger,
};

use super::processes;
use crate::{
    extract::chain,
    host::{
        self,
        exec::HostExec,
        obstacle::Obstacle,
        own,
        root::{HostRoot, Kind as FileKind, is_missing},
        systemd::Unit,
    },
};

/// Largest configuration of a runtime, in bytes.
const MAX_CONFIG: u64 = 4 << 20;
/// Largest file in a registry directory that is looked at, in bytes.
const MAX_CERTS: u64 = 64 << 20;
/// Hosts with a directory of their own that are told; the rest is not read.
const MAX_HOSTS: usize = 100;
/// A file that changed this much before a process started may still have been read by it: the clock tick of starts, in milliseconds.
const TICK: i64 = 10;

/// What the process reads as its registry directory, as the running binary understands its own configuration.
pub(super) fn setting(
    exec: &HostExec<'_>,
    kind: Kind,
    pid: Option<u32>,
    unit: &Unit,
    process: Option<&Process>,
) -> Setting {
    let root = exec.root;
    let Some((program, config)) = configured(root, kind, pid, unit) else { return Setting::Unsupported };
    // one that is gone shows by its directory
    let looked_at = match root.stat(&config) {
        Ok(None) => Path::new(&config).parent().map_or_else(|| config.clone(), |dir| dir.display().to_string()),
        _ => config.clone(),
    };
    if process.is_some_and(|process| changed_since(root, &looked_at, process)) {
        return Setting::ChangedSince(config);
    }
    let text = match program {
        Some(program) => dump(exec, &program, &config),
        // a child whose program cannot be named from here: its file, which its parent has written
        None => match root.read(&config, MAX_CONFIG) {
            Ok(bytes) => String::from_utf8(bytes).map_err(|_| format!("{config} is no UTF-8 text")),
            Err(error) => Err(format!("failed to read {config}: {error}")),
        },
    };
    let changed = |text: &str| {
        let process = process?;
        certs_d::imports(text).into_iter().find(|path| changed_since(root, path, process))
    };
    match text {
        Ok(text) => match (changed(&text), certs_d::setting(&text)) {
            (Some(path), _) => Setting::ChangedSince(path),
            (None, Ok(setting)) => setting,
            (None, Err(error)) => Setting::Unknown(format!("{config} is no TOML: {error}")),
        },
        Err(why) => Setting::Unknown(why),
    }
}

/// Whether a file, or one that fits a pattern `DIR/*…`, was changed after the process started.
fn changed_since(root: &HostRoot, path: &str, process: &Process) -> bool {
    let Ok(now) = host::uptime(root) else { return true };
    let since = i64::try_from(now.milliseconds.saturating_sub(process.started.milliseconds)).unwrap_or(i64::MAX);
    let wall = host::wall_milliseconds();
    let is_younger = |path: &str| {
        let age = root.stat(path).ok().flatten().map(|meta| wall.saturating_sub(meta.changed));
        age.is_some_and(|age| age < since.saturating_sub(TICK))
    };
    let Some((dir, _)) = path.split_once('*').and_then(|(before, _)| before.rsplit_once('/')) else {
        return is_younger(path);
    };
    let names = root.list(dir).ok().flatten().unwrap_or_default();
    is_younger(dir) || names.iter().any(|(name, _)| is_younger(&format!("{dir}/{name}")))
}

/// Whether the program would start with its configuration as it is now, as far as it tells beforehand: not what its plugins
/// make of it (facts C.6).
pub(super) fn would_load(exec: &HostExec<'_>, kind: Kind, pid: Option<u32>, unit: &Unit) -> Result<(), String> {
    match configured(exec.root, kind, pid, unit) {
        Some((Some(program), config)) => dump(exec, &program, &config).map(drop),
        _ => Ok(()),
    }
}

/// The program, where it can be named, and its configuration.
fn configured(root: &HostRoot, kind: Kind, pid: Option<u32>, unit: &Unit) -> Option<(Option<String>, String)> {
    let usual = kind.row().config?;
    let command = pid.and_then(|pid| processes::command(root, pid).ok()).filter(|command| !command.is_empty());
    let command = command.unwrap_or_else(|| unit.command.clone());
    let config = config_of(&command).unwrap_or_else(|| usual.to_owned());
    // the one that the unit names, or the usual one: a process may call itself what it likes
    let named = unit.command.first().filter(|program| program.starts_with('/') && program.ends_with("/containerd"));
    let there = |program: &String| matches!(root.stat(program), Ok(Some(_)));
    let usual_places = ["/usr/bin/containerd", "/usr/local/bin/containerd"].map(str::to_owned);
    let program = match kind.row().child {
        Some(_) => None,
        None => named.cloned().or_else(|| usual_places.into_iter().find(there)),
    };
    Some((program, config))
}

/// The configuration as the program itself understands it.
fn dump(exec: &HostExec<'_>, program: &str, config: &str) -> Result<String, String> {
    match exec.ask(program, &["--config", config, "config", "dump"]) {
        Ok(finished) if finished.code == Some(0) => Ok(finished.stdout),
        // our own helper's words: it may not change its root, or the program is not there
        Ok(finished) if finished.code == Some(127) && finished.output.starts_with("cannot run ") => {
            Err(finished.output.trim_end().to_owned())
        }
        Ok(finished) => {
            // what it says may quote the configuration, which may hold credentials
            tracing::debug!(output = finished.output, "the runtime cannot read its own configuration");
            Err(format!("`{program} --config {config} config dump` fails: run it on the node to see why"))
        }
        Err(error) => Err(chain(&error)),
    }
}

/// `--config FILE`, `--config=FILE`, `-c FILE` or `-c=FILE`.
pub(super) fn config_of(command: &[String]) -> Option<String> {
    let mut words = command.iter().skip(1);
    while let Some(word) = words.next() {
        if matches!(word.as_str(), "--config" | "-c" | "-config") {
            return words.next().cloned();
        }
        if let Some(file) = ["--config=", "-c=", "-config="].iter().find_map(|flag| word.strip_prefix(flag)) {
            return Some(file.to_owned());
        }
    }
    None
}

/// What lies in the registry directory.
pub(super) fn look(root: &HostRoot, setting: Setting, ledger: &Ledger) -> RegistryCerts {
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
    let hosts = listing.into_iter().filter(|(name, meta)| name != DEFAULT && is_dir(name, meta.kind));
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
fn own_file(root: &HostRoot, path: &str) -> Option<OwnFile> {
    let meta = root.own_meta(path).ok()??;
    let bytes = match root.own_read(path, MAX_CERTS) {
        Ok(bytes) if meta.mode == 0o644 && meta.links == 1 => bytes,
        _ => return Some(OwnFile::Altered),
    };
    let read = bundle::read(&bytes);
    let sound = !read.set.is_empty() && read.faults.is_empty() && !read.private_key && read.count == read.set.len();
    Some(if sound { OwnFile::Holds(read.set) } else { OwnFile::Altered })
}

fn content<'a>(anchors: impl Iterator<Item = &'a Arc<Anchor>>) -> String {
    anchors.map(|anchor| anchor.pem()).collect()
}

/// Removes our file, and what a run that was killed has left beside it.
///
/// # Errors
/// As [`HostRoot::remove_file`].
pub fn remove_file(root: &HostRoot, path: &str) -> io::Result<()> {
    let temporary = Path::new(path).with_file_name(own::CERTS);
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
    root.write_atomic(path, dir, own::CERTS, 0o644, content(anchors).as_bytes())
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
