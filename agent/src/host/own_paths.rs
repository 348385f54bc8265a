//! Every name that nodetrust uses on a host, in one place.
//!
//! From the first of our own directories on a path down, and for every file of ours, no part of the path may be a link: what has
//! the name of ours and is a link is removed, never entered. [`names`] lists them all, and the tests put an obstacle of each kind at
//! each of them: a new name belongs here.

use std::path::{Component, Path};

use nodetrust_core::{
    certificate::fingerprint::Fingerprint,
    runtime::registry_dir,
    store::{
        Tool, TrustStore,
        anchor_file::{PREFIX, file_name},
    },
};

/// The directory of the ledger and of all that is only ours.
pub const DIR: &str = "/var/lib/nodetrust";
/// The ledger.
pub const LEDGER: &str = "/var/lib/nodetrust/ledger.json";
/// The name of a damaged ledger that was set aside; one is kept.
pub const LEDGER_DAMAGED: &str = "ledger.json.damaged";
/// The ledger before it has its name.
pub const LEDGER_TEMP: &str = "/var/lib/nodetrust/.ledger.json.tmp";
/// Temporary files of the store's tool, under the lock.
pub const TEMP_DIR: &str = "/var/lib/nodetrust/tmp";
/// What is remembered of files that were taken over: a record for each.
pub const ADOPTED_DIR: &str = "/var/lib/nodetrust/adopted";
/// Such a record before it has its name, beside the ledger.
pub const ADOPTED_TEMP: &str = ".adopted.json.tmp";
/// Such a file before it has its name again, in the store's directory for temporary files.
pub const ADOPTED_BACK_TEMP: &str = ".nodetrust-adopted.tmp";
/// The distribution's list before it has its name, in its directory.
pub const SELECTION_TEMP: &str = ".nodetrust-selection.tmp";
/// The directory of that.
pub const SELECTION_TEMP_DIR: &str = "/etc";
/// The lock; it is gone after a reboot.
pub const LOCK: &str = "/run/nodetrust.lock";
/// The beginning of the names of our temporary files and of the staged bundle, where other people's files are.
pub const HIDDEN: &str = ".nodetrust-";
/// What is put back after a run of the tool, before it has its name.
pub const RESTORE: &str = ".nodetrust-restore.tmp";
/// A bundle that is made here and not by the tool, before it has its name.
pub const BUNDLE: &str = ".nodetrust-bundle.tmp";
/// An exported file, before it has its name.
pub const EXPORT: &str = ".nodetrust-export.tmp";
/// The file in a registry directory, before it has its name. containerd takes only names that end in `.crt`, `.cert` and `.key`.
pub const CERTS: &str = ".nodetrust-anchors.tmp";
/// The file that comes and goes in a runtime's directory of drop-ins.
pub const DROP_IN: &str = "nodetrust-restart.toml";
/// The same before it has its name.
pub const DROP_IN_TEMP: &str = ".nodetrust-restart.toml.tmp";
/// The directory in which the tool looks for hooks: it does not exist, since we run the hooks when the bundle is in place.
pub const NO_HOOKS: &str = "/var/lib/nodetrust/no-hooks";
/// What hooks are told, in [`TEMP_DIR`].
pub const HOOK_INPUT: &str = "hook-input";
/// The same before it has its name.
pub const HOOK_INPUT_TEMP: &str = "hook-input.tmp";

/// Whether a name in the blocklist is one that we give to a copy there.
pub fn is_copy_name(name: &str) -> bool {
    let digits = name.strip_prefix(PREFIX).and_then(|rest| rest.strip_suffix(".pem"));
    digits.is_some_and(|digits| digits.len() == 16 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
}

/// The name of an anchor file before it has its own.
pub fn anchor_temp(fingerprint: &Fingerprint) -> String {
    format!(".{PREFIX}{}.tmp", fingerprint.fp16())
}

/// A name that the program uses on a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnName {
    /// Absolute on the host.
    pub path: String,
    /// It is a directory of ours, else a file.
    pub is_dir: bool,
}

/// All names that the program uses on a host with this store, for one anchor, a registry directory and exported files.
pub fn names(store: &TrustStore, anchor: &Fingerprint, certs_d: Option<&str>, exports: &[&str]) -> Vec<OwnName> {
    let directory = |path: String| OwnName { path, is_dir: true };
    let file = |path: String| OwnName { path, is_dir: false };
    let mut names = vec![
        directory(DIR.to_owned()),
        file(LEDGER.to_owned()),
        file(LEDGER_TEMP.to_owned()),
        file(format!("{}/{}", DIR, LEDGER_DAMAGED)),
        directory(TEMP_DIR.to_owned()),
        file(format!("{}/{HOOK_INPUT}", TEMP_DIR)),
        file(format!("{}/{HOOK_INPUT_TEMP}", TEMP_DIR)),
        directory(ADOPTED_DIR.to_owned()),
        file(format!("{}/{ADOPTED_TEMP}", DIR)),
        file(format!("{SELECTION_TEMP_DIR}/{SELECTION_TEMP}")),
        file(LOCK.to_owned()),
    ];
    if !store.is_behind_api() {
        names.extend([
            file(format!("{}/{ADOPTED_BACK_TEMP}", store.temp_dir)),
            file(format!("{}/{}", store.anchors_dir, file_name(store, anchor))),
            file(format!("{}/{}", store.temp_dir, anchor_temp(anchor))),
        ]);
    }
    if let Some(dir) = Path::new(store.bundle).parent().and_then(Path::to_str) {
        match store.tool {
            Tool::Staged { staged, .. } => {
                names.extend([file(format!("{dir}/{staged}")), file(format!("{dir}/{staged}.new"))]);
                names.extend([file(format!("{dir}/{RESTORE}")), file(NO_HOOKS.to_owned())]);
            }
            Tool::Direct { .. } => names.push(file(format!("{dir}/{RESTORE}"))),
            Tool::Concatenate { .. } => names.push(file(format!("{dir}/{BUNDLE}"))),
            Tool::SettingsApi { .. } | Tool::None => {}
        }
    }
    if let Some(dir) = certs_d {
        let dir = format!("{dir}/{}", registry_dir::DEFAULT);
        names.extend([file(format!("{dir}/{}", registry_dir::FILE)), file(format!("{dir}/{CERTS}"))]);
        names.push(directory(dir));
    }
    for path in exports {
        let dir = Path::new(path).parent().filter(|dir| directories_above(dir).is_some());
        let dir = dir.map(|dir| directory(dir.display().to_string()));
        let temp = file(Path::new(path).with_file_name(EXPORT).display().to_string());
        for name in dir.into_iter().chain([temp, file((*path).to_owned())]) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    names
}

/// The names that it uses in a runtime's directory of drop-ins, for a restart.
pub fn drop_in_names(dir: &str) -> [OwnName; 2] {
    [DROP_IN, DROP_IN_TEMP].map(|name| OwnName { path: format!("{dir}/{name}"), is_dir: false })
}

/// How many of a path's names come before the first directory of ours; None if none of them is ours.
pub(super) fn directories_above(path: &Path) -> Option<usize> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => names.push(name),
            Component::RootDir | Component::CurDir => {}
            // such a path is nobody's that we make
            Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    let own: Vec<_> = Path::new(DIR).components().skip(1).map(Component::as_os_str).collect();
    if names.starts_with(&own) {
        return Some(own.len() - 1);
    }
    names.iter().position(|name| *name == registry_dir::DEFAULT)
}

/// Whether a path is that of a file or directory of ours: what is at it may be replaced.
pub(super) fn is_own(path: &Path) -> bool {
    let has_our_name = path.file_name().and_then(|name| name.to_str()).is_some_and(|name| {
        name.starts_with(HIDDEN) || name.starts_with(PREFIX) || Path::new(LOCK).file_name() == path.file_name()
    });
    has_our_name || directories_above(path).is_some()
}

#[cfg(test)]
mod tests {
    use nodetrust_core::store::Family;

    use super::*;

    #[test]
    fn the_tool_gets_no_hooks() {
        for family in [Family::Debian, Family::Redhat, Family::Suse, Family::Alpine] {
            if let Tool::Staged { args, fresh, .. } = family.store().tool {
                assert!(args.contains(&NO_HOOKS) && fresh.contains(&NO_HOOKS));
            }
        }
    }

    #[test]
    fn where_our_part_of_a_path_begins() {
        let above = |path: &str| directories_above(Path::new(path));
        assert_eq!(above("/var/lib/nodetrust"), Some(2));
        assert_eq!(above("/var/lib/nodetrust/tmp/hook-input"), Some(2));
        assert_eq!(above("/etc/containerd/certs.d/_default/nodetrust-anchors.crt"), Some(3));
        for foreign in ["/", "/var/lib", "/var/lib/nodetrust-else", "/var/lib/nodetrust/../x", "/etc/ssl/certs/a.pem"] {
            assert_eq!(above(foreign), None, "{foreign}");
        }
        let ours = ["/etc/ssl/certs/.nodetrust-bundle", "/run/nodetrust.lock", "/x/nodetrust-0123456789abcdef.crt"];
        assert!(ours.iter().all(|path| is_own(Path::new(path))));
        assert!(!is_own(Path::new("/etc/ssl/certs/ca-certificates.crt")));
    }
}
