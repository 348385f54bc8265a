//! containerd's registry directory: what it covers and what hides it (facts C.2).
//!
//! containerd looks for `<dir>/<host>/` at every pull and falls back to `<dir>/_default/`; the first directory that exists wins.
//! Every `*.crt` file in it is trusted in addition to the system's roots, and one that is empty or no PEM fails every pull. So
//! our anchors lie there in one file, written at once, and there is no file when there are no anchors.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde::{Deserialize, Serialize};

use crate::{certificate::fingerprint::Fingerprint, runtime::process::ServiceProcess};

/// Our file in the directory for hosts without one of their own.
pub const FILE: &str = "nodetrust-anchors.crt";
/// The directory for hosts without one of their own.
pub const DEFAULT: &str = "_default";

/// What the running runtime reads at every pull.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Setting {
    /// This kind of runtime has no directory for all registries.
    Unsupported,
    /// It has one, and it is not configured.
    NotConfigured,
    /// This one.
    Directory(String),
    /// A list, which some versions do not read at all (facts C.2).
    Several(String),
    /// The configuration was changed after the process started: what that reads is not known.
    ChangedSince(String),
    /// The configuration could not be read.
    Unknown(String),
}

impl Setting {
    /// Whether this is what a process reads for as long as it lives: it reads its configuration once.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::NotConfigured | Self::Directory(_) | Self::Several(_))
    }
}

/// What a process reads, as it was found while nothing had changed since its start. A later change of the configuration does not change
/// this, and would hide it from whoever looks for the first time after that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KnownSetting {
    /// The process.
    pub process: ServiceProcess,
    /// What it reads.
    pub setting: Setting,
}

/// What our file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OwnRegistryFile {
    /// Exactly these certificates.
    Holds(BTreeSet<Fingerprint>),
    /// Something else.
    Altered,
}

/// A registry directory, as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryCerts {
    /// What the runtime reads.
    pub setting: Setting,
    /// Our files by path: where one should be, and where one was written before.
    pub own: BTreeMap<String, OwnRegistryFile>,
    /// A `hosts.toml` in `_default/`, which makes containerd ignore the `*.crt` files there.
    pub hidden: bool,
    /// Somebody else's file in `_default/` that fails every pull.
    pub broken: Option<String>,
    /// Hosts with a directory of their own.
    pub elsewhere: Vec<String>,
    /// Why it could not be looked through.
    pub unreadable: Option<String>,
    /// Our file in it could not be written just now.
    pub unwritten: bool,
}

impl Default for RegistryCerts {
    fn default() -> Self {
        Self {
            setting: Setting::Unsupported,
            own: BTreeMap::new(),
            hidden: false,
            broken: None,
            elsewhere: Vec::new(),
            unreadable: None,
            unwritten: false,
        }
    }
}

impl RegistryCerts {
    /// Where our file belongs, if the runtime reads it.
    pub fn path(&self) -> Option<String> {
        match &self.setting {
            Setting::Directory(dir) => Some(format!("{dir}/{DEFAULT}/{FILE}")),
            _ => None,
        }
    }

    /// What our file holds for pulls.
    pub fn served(&self) -> BTreeSet<Fingerprint> {
        match self.path().and_then(|path| self.own.get(&path)) {
            Some(OwnRegistryFile::Holds(served)) => served.clone(),
            Some(OwnRegistryFile::Altered) | None => BTreeSet::new(),
        }
    }

    /// Whether every pull reads our file.
    ///
    /// # Errors
    /// What is in the way.
    pub fn covers(&self) -> Result<(), String> {
        match &self.setting {
            Setting::Directory(dir) if let Some(why) = &self.unreadable => Err(format!("{dir} cannot be read: {why}")),
            Setting::Directory(dir) if self.unwritten => {
                Err(format!("our file in {dir}/{DEFAULT} could not be written"))
            }
            Setting::Directory(dir) if self.hidden => {
                Err(format!("{dir}/{DEFAULT}/hosts.toml makes the runtime ignore the certificates beside it"))
            }
            Setting::Directory(dir) => match &*self.elsewhere {
                [] => Ok(()),
                [host] => Err(format!("{dir}/{host} hides {DEFAULT}/ for pulls from that host")),
                [host, rest @ ..] => Err(format!("{dir}/{host} and {} more hide {DEFAULT}/", rest.len())),
            },
            other => Err(other.to_string()),
        }
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsupported => f.write_str("none for all registries"),
            Self::NotConfigured => f.write_str("not configured"),
            Self::Directory(dir) => f.write_str(dir),
            Self::Several(list) => write!(f, "a list ({list}), which some versions ignore"),
            Self::ChangedSince(file) => write!(f, "{file} was changed after the process started"),
            Self::Unknown(why) => write!(f, "unknown: {why}"),
        }
    }
}

/// Whether a folder can be the one of a registry: whether an image can be named so that containerd looks into it. It does for `host`,
/// `host:port` and `host_port_` (facts C.2), where the host is one by the grammar of image references: a word without a dot, a port or
/// a capital letter is no host there, unless it is `localhost`.
pub fn is_registry_folder(name: &str) -> bool {
    if name.starts_with('[') {
        return true; // an address of IPv6
    }
    let (host, port) = match name.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => match name.strip_suffix('_').and_then(|name| name.split_once('_')) {
            Some((host, port)) => (host, Some(port)),
            None => (name, None),
        },
    };
    let is_label = |label: &str| {
        let letters = |letter: u8| letter.is_ascii_alphanumeric() || letter == b'-';
        !label.is_empty() && label.bytes().all(letters) && !label.starts_with('-') && !label.ends_with('-')
    };
    let is_port = |port: &str| !port.is_empty() && port.bytes().all(|digit| digit.is_ascii_digit());
    let is_named =
        || host.contains('.') || host == "localhost" || host.bytes().any(|letter| letter.is_ascii_uppercase());
    host.split('.').all(is_label) && port.map_or_else(is_named, is_port)
}

#[cfg(test)]
#[path = "registry_dir_tests.rs"]
mod tests;
