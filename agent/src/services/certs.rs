//! The runtime's registry directory on the host: what its process reads, what lies there, and our file in it.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::Path,
    sync::Arc,
};

use nodetrust_core::{
    anchor::Anchor,
    bundle,
    fingerprint::Fingerprint,
    runtime::{
        Kind, Process,
        certs_d::{self, DEFAULT, FILE, OwnFile, RegistryCerts, Setting},
    },
    source::Part,
    state::{Ledger, PREFIX},
};

use super::processes;
use crate::{
    extract::chain,
    host::{
        self,
        exec::HostExec,
        root::{HostRoot, Kind as FileKind},
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
    if let (Ok(Some(meta)), Some(process)) = (root.stat(&config), process)
        && let Ok(now) = host::uptime(root)
    {
        let age = host::wall_milliseconds().saturating_sub(meta.changed);
        let since = i64::try_from(now.milliseconds.saturating_sub(process.started.milliseconds)).unwrap_or(i64::MAX);
        if age < since.saturating_sub(TICK) {
            return Setting::ChangedSince(config);
        }
    }
    let text = match program {
        Some(program) => dump(exec, &program, &config),
        // a child whose program cannot be named from here: its file, which its parent has written
        None => match root.read(&config, MAX_CONFIG) {
            Ok(bytes) => String::from_utf8(bytes).map_err(|_| format!("{config} is no UTF-8 text")),
            Err(error) => Err(format!("failed to read {config}: {error}")),
        },
    };
    text.and_then(|text| certs_d::setting(&text).map_err(|error| format!("{config} is no TOML: {error}")))
        .unwrap_or_else(Setting::Unknown)
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
    let program = command.first().filter(|program| Path::new(program).is_absolute());
    let program = program.or(unit.command.first().filter(|_| kind.row().child.is_none()));
    Some((program.filter(|program| program.ends_with("containerd")).cloned(), config))
}

/// The configuration as the program itself understands it.
fn dump(exec: &HostExec<'_>, program: &str, config: &str) -> Result<String, String> {
    match exec.ask(program, &["--config", config, "config", "dump"]) {
        Ok(finished) if finished.code == Some(0) => Ok(finished.stdout),
        Ok(finished) => {
            let last = finished.output.trim().lines().next_back().unwrap_or("it printed nothing").to_owned();
            Err(format!("`{program} --config {config} config dump` failed: {last}"))
        }
        Err(error) => Err(chain(&error)),
    }
}

/// `--config FILE`, `--config=FILE`, `-c FILE` or `-c=FILE`.
fn config_of(command: &[String]) -> Option<String> {
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
    let listing = root.list(dir).ok().flatten().unwrap_or_default();
    let is_dir = |name: &String, kind| match kind {
        FileKind::Directory => true,
        FileKind::Link => {
            matches!(root.stat(format!("{dir}/{name}")), Ok(Some(meta)) if meta.kind == FileKind::Directory)
        }
        FileKind::File | FileKind::Other => false,
    };
    let hosts = listing.into_iter().filter(|(name, meta)| name != DEFAULT && is_dir(name, meta.kind));
    certs.elsewhere = hosts.map(|(name, _)| name).take(MAX_HOSTS).collect();
    for (name, _) in root.list(format!("{dir}/{DEFAULT}")).ok().flatten().unwrap_or_default() {
        let path = format!("{dir}/{DEFAULT}/{name}");
        certs.hidden |= name == "hosts.toml";
        if name.ends_with(".crt") && name != FILE && certs.broken.is_none() {
            let holds_one = root.read(&path, MAX_CERTS).is_ok_and(|bytes| !bundle::read(&bytes).set.is_empty());
            certs.broken = (!holds_one).then_some(path);
        }
    }
    if certs.hidden {
        certs.broken = None; // nobody reads it
    }
    certs
}

/// None if there is no such file.
fn own_file(root: &HostRoot, path: &str) -> Option<OwnFile> {
    let meta = root.stat(path).ok()??;
    let bytes = match root.read(path, MAX_CERTS) {
        Ok(bytes) if meta.mode == 0o644 && meta.links == 1 => bytes,
        _ => return Some(OwnFile::Altered),
    };
    let anchors: BTreeMap<Fingerprint, Arc<Anchor>> =
        Part::parse(path, &bytes).anchors.into_iter().map(|(_, anchor)| (anchor.fingerprint, anchor)).collect();
    let as_we_write = !anchors.is_empty() && content(anchors.values()).as_bytes() == bytes;
    Some(if as_we_write { OwnFile::Holds(anchors.into_keys().collect()) } else { OwnFile::Altered })
}

fn content<'a>(anchors: impl Iterator<Item = &'a Arc<Anchor>>) -> String {
    anchors.map(|anchor| anchor.pem()).collect()
}

/// Directories above a file of ours that do not exist yet, to be removed by `uninstall`.
pub fn missing_directories(root: &HostRoot, path: &str) -> Vec<String> {
    let above = Path::new(path).ancestors().skip(1).filter(|dir| *dir != Path::new("/"));
    above.take_while(|dir| matches!(root.stat(dir), Ok(None))).map(|dir| dir.display().to_string()).collect()
}

/// Writes our file. `anchors` are in the order of their fingerprints, and there is at least one.
///
/// # Errors
/// As [`HostRoot::write_atomic`].
pub fn write_file<'a>(root: &HostRoot, path: &str, anchors: impl Iterator<Item = &'a Arc<Anchor>>) -> io::Result<()> {
    let dir = Path::new(path).parent().unwrap_or(Path::new("/"));
    root.create_dir_all(dir)?;
    // beside the file: containerd takes only names that end in `.crt`, `.cert` or `.key`
    root.write_atomic(path, dir, &format!(".{PREFIX}anchors.tmp"), 0o644, content(anchors).as_bytes())
}

/// Directories of the host where a change would matter, in our own view.
pub fn watched(root: &HostRoot, certs: &RegistryCerts) -> Vec<std::path::PathBuf> {
    let Setting::Directory(dir) = &certs.setting else { return Vec::new() };
    let dirs = [dir.clone(), format!("{dir}/{DEFAULT}")];
    dirs.iter().filter_map(|dir| root.location(dir).ok()).collect()
}
