//! Roots of the distribution that `policy.distrust` names: by which means of the distribution they leave, what is seen of them, and
//! what is remembered of the change, so that only that is undone.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use data_encoding::BASE64;
use serde::{Deserialize, Serialize};

use crate::{certificate::fingerprint::Fingerprint, store::Family};

/// Most roots that a configuration distrusts.
pub const MAX_DISTRUSTED: usize = 10;

/// How an administrator of the distribution distrusts one of its roots.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum DistrustMeans {
    /// Not at all.
    #[default]
    None,
    /// By `!` before its line in `/etc/ca-certificates.conf`.
    Selection,
    /// By a copy in this directory, absolute.
    Blocklist(String),
    /// By a copy in a directory that this host does not have: what it should be called.
    MissingBlocklist(&'static str),
}

/// A root of the distribution as it is now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ShippedRoot {
    /// Lines of the list that select it.
    pub selected: BTreeSet<String>,
    /// A line of the list deselects it.
    pub deselected: bool,
    /// A selected file that has it has further certificates too.
    pub shares_file: bool,
    /// Its DER, as the bundle has it.
    pub der: Option<Arc<[u8]>>,
}

/// What is seen of the roots that are to be distrusted, or are distrusted by us.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DistrustView {
    /// The means.
    pub means: DistrustMeans,
    /// The roots that the configuration names.
    pub roots: BTreeMap<Fingerprint, ShippedRoot>,
    /// Changes of ours that are in effect: lines of the list that are deselected, and copies in the blocklist, absolute.
    pub in_effect: BTreeSet<String>,
}

/// What is remembered of a root that we have distrusted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DistrustedRoot {
    /// Lines of the list, or the copy in the blocklist: what we have changed.
    pub places: BTreeSet<String>,
    /// Its DER in base64, so that a lost copy is put back; empty where no copy is needed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub der: String,
}

impl DistrustedRoot {
    /// Its DER; empty if there is none.
    pub fn der(&self) -> Vec<u8> {
        BASE64.decode(self.der.as_bytes()).unwrap_or_default()
    }

    /// Remembers its DER.
    pub fn keep(&mut self, der: &[u8]) {
        self.der = BASE64.encode(der);
    }
}

/// Whether a place is a file of ours; otherwise it is a line of the list.
pub fn is_copy(place: &str) -> bool {
    place.starts_with('/')
}

/// What is at a place, for people.
pub fn means_at(place: &str) -> String {
    match is_copy(place) {
        true => place.to_owned(),
        false => format!("`!{place}` in /etc/ca-certificates.conf"),
    }
}

/// The names that the directory of distrusted certificates has on this family, the newer first; none for one that has no such
/// directory.
pub fn blocklists(family: Family) -> &'static [&'static str] {
    match family {
        Family::Redhat => &["/etc/pki/ca-trust/source/blocklist", "/etc/pki/ca-trust/source/blacklist"],
        Family::Suse => &["/etc/pki/trust/blocklist", "/etc/pki/trust/blacklist"],
        Family::Arch => &["/etc/ca-certificates/trust-source/blocklist", "/etc/ca-certificates/trust-source/blacklist"],
        Family::Debian
        | Family::Alpine
        | Family::Flatcar
        | Family::Photon
        | Family::Bottlerocket
        | Family::Directory => &[],
    }
}
