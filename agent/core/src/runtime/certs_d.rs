//! containerd's registry directory: what it covers and what hides it (facts C.2).
//!
//! containerd looks for `<dir>/<host>/` at every pull and falls back to `<dir>/_default/`; the first directory that exists wins.
//! Every `*.crt` file in it is trusted in addition to the system's roots, and one that is empty or no PEM fails every pull. So
//! our anchors lie there in one file, written at once, and there is no file when there are no anchors.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use crate::fingerprint::Fingerprint;

/// Our file in the directory for hosts without one of their own.
pub const FILE: &str = "nodetrust-anchors.crt";
/// The directory for hosts without one of their own.
pub const DEFAULT: &str = "_default";

/// What the running runtime reads at every pull.
#[derive(Debug, Clone, PartialEq, Eq)]
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

/// What our file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OwnFile {
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
    pub own: BTreeMap<String, OwnFile>,
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
            Some(OwnFile::Holds(served)) => served.clone(),
            Some(OwnFile::Altered) | None => BTreeSet::new(),
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

/// Files that a containerd configuration takes in: names, or patterns with `*`.
pub fn imports(text: &str) -> Vec<String> {
    let table: toml::Table = text.parse().unwrap_or_default();
    let imports = table.get("imports").and_then(toml::Value::as_array).cloned().unwrap_or_default();
    imports.iter().filter_map(|path| Some(path.as_str()?.to_owned())).filter(|path| path.starts_with('/')).collect()
}

/// The registry directory in a containerd configuration: version 1 and 2 name the plugin `cri`, version 3 splits it.
///
/// # Errors
/// If the text is no TOML.
pub fn setting(text: &str) -> Result<Setting, String> {
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| error.message().to_owned())?;
    let plugins = table.get("plugins").and_then(toml::Value::as_table);
    let path = ["io.containerd.cri.v1.images", "io.containerd.grpc.v1.cri", "cri"].iter().find_map(|plugin| {
        let path = plugins?.get(*plugin)?.get("registry")?.get("config_path")?.as_str()?;
        (!path.is_empty()).then(|| path.to_owned())
    });
    Ok(match path {
        None => Setting::NotConfigured,
        Some(list) if list.contains(':') => Setting::Several(list),
        Some(dir) if dir.starts_with('/') => Setting::Directory(dir.trim_end_matches('/').to_owned()),
        Some(dir) => Setting::Unknown(format!("config_path `{dir}` is not absolute")),
    })
}

#[cfg(test)]
#[path = "certs_d_tests.rs"]
mod tests;
