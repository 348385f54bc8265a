//! What the distribution's own sources ask for: the files that the store's tool makes its bundle of.

use std::{collections::BTreeSet, time::Duration};

use nodetrust_core::{
    certificate::{bundle, fingerprint::Fingerprint},
    store::{
        Family, TrustStore,
        anchor_file::is_own_name,
        p11kit::{self, TrustDirectory},
    },
};

use crate::{
    host::{
        file::{FileKind, is_missing},
        root::HostRoot,
    },
    store::{
        read::{MAX_BUNDLE_BYTES, ObserveError, at, usable},
        trust_list,
    },
};

/// Where Debian, Alpine, Flatcar and Photon keep the certificates that they ship.
pub(crate) const SHIPPED: &str = "/usr/share/ca-certificates";
/// Debian's and Alpine's list of what is selected among them.
pub(crate) const SELECTION: &str = "/etc/ca-certificates.conf";
/// Largest list that is read, in bytes.
pub(crate) const MAX_SELECTION: u64 = 1 << 20;
/// How deep a directory of certificates is searched.
const MAX_DEPTH: usize = 8;

/// Which of these certificates the tool should put into the bundle, since files that it reads still ask for them. The others have
/// left by somebody's will: their file was removed, or a distribution distrusts them. `asks`: p11-kit is asked, within this time.
///
/// # Errors
/// If one of those files is there and cannot be read: it may ask for any of them.
pub fn with_a_source(
    root: &HostRoot,
    store: &TrustStore,
    missing: BTreeSet<Fingerprint>,
    asks: Option<Duration>,
) -> Result<BTreeSet<Fingerprint>, ObserveError> {
    if missing.is_empty() {
        return Ok(missing);
    }
    let mut sources = BTreeSet::new();
    match store.family {
        Family::Redhat | Family::Suse | Family::Arch => {
            let answer = asks.and_then(|limit| trust_list::p11_kit(root, limit));
            let by_files = p11_kit_sources(root, store)?;
            let is_wanted = |fingerprint: &Fingerprint| match &answer {
                Some(answer) => answer.wants(fingerprint, by_files.is_anchor(fingerprint)),
                None => by_files.is_anchor(fingerprint),
            };
            return Ok(missing.into_iter().filter(is_wanted).collect());
        }
        Family::Debian | Family::Alpine => {
            certificates_below(root, store.anchors_dir, 0, &mut sources)?;
            let names = selected(root, store.family)?.names;
            if names.is_empty() {
                certificates_below(root, SHIPPED, 0, &mut sources)?;
            }
            for name in names {
                let path = format!("{SHIPPED}/{name}");
                if let Some(bytes) = usable(root.read(&path, MAX_BUNDLE_BYTES)).map_err(at(&path))? {
                    sources.extend(bundle::read(&bytes).set);
                }
            }
        }
        Family::Bottlerocket => {} // what its own bundle holds lies in the image, in no place that is documented
        Family::Flatcar | Family::Photon | Family::Directory => {
            certificates_below(root, SHIPPED, 0, &mut sources)?;
            // what lies there is a source, except for the bundle
            for (name, _) in root.names(store.anchors_dir).map_err(at(store.anchors_dir))? {
                let path = format!("{}/{name}", store.anchors_dir);
                if store.takes.matches(&name)
                    && !is_own_name(store, &name)
                    && path != store.bundle
                    && let Some(bytes) = usable(root.read(&path, MAX_BUNDLE_BYTES)).map_err(at(&path))?
                {
                    sources.extend(bundle::read(&bytes).set);
                }
            }
        }
    }
    Ok(missing.into_iter().filter(|fingerprint| sources.contains(fingerprint)).collect())
}

/// Which of these anchors lie in p11-kit's sources and are distrusted there by the distribution or the administrator.
///
/// # Errors
/// If a file is there and cannot be read.
pub fn overruled(
    root: &HostRoot,
    store: &TrustStore,
    anchors: &BTreeSet<Fingerprint>,
) -> Result<BTreeSet<Fingerprint>, ObserveError> {
    if !matches!(store.family, Family::Redhat | Family::Suse | Family::Arch) {
        return Ok(BTreeSet::new());
    }
    let sources = p11_kit_sources(root, store)?;
    Ok(anchors.iter().filter(|anchor| sources.is_overruled(anchor)).copied().collect())
}

/// What the files say that p11-kit reads on this family: each directory flat, with its anchors and its blocklist.
fn p11_kit_sources(root: &HostRoot, store: &TrustStore) -> Result<p11kit::TrustSources, ObserveError> {
    let mut sources = p11kit::TrustSources::default();
    for dir in p11_kit_directories(store.family) {
        let below = [
            ("/anchors", TrustDirectory::Anchors),
            ("/blocklist", TrustDirectory::Blocklist),
            ("/blacklist", TrustDirectory::Blocklist),
        ];
        for (name, place) in [("", TrustDirectory::Top)].into_iter().chain(below) {
            let dir = format!("{dir}{name}");
            for (name, kind) in root.names(&dir).map_err(at(&dir))? {
                let path = format!("{dir}/{name}");
                if matches!(kind, FileKind::File | FileKind::Link)
                    && let Some(bytes) = usable(root.read(&path, MAX_BUNDLE_BYTES)).map_err(at(&path))?
                {
                    sources.add(place, &bytes);
                }
            }
        }
    }
    Ok(sources)
}

/// What the distribution's list selects.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// The names of files. If there are none, the list is gone or was cut: nobody deselects everything.
    pub names: Vec<String>,
    /// A last line without its end, which Debian's script reads by `read` and so passes over.
    pub passed_over: Option<String>,
}

/// The shipped certificates that `/etc/ca-certificates.conf` selects.
///
/// # Errors
/// If it is there and cannot be read.
pub fn selected(root: &HostRoot, family: Family) -> Result<Selection, ObserveError> {
    let text = match root.read(SELECTION, MAX_SELECTION) {
        Err(error) if is_missing(&error) => Vec::new(),
        read => read.map_err(at(SELECTION))?,
    };
    Ok(read_selection(&String::from_utf8_lossy(&text), family))
}

/// The names in the distribution's list; `#` begins a comment, `!` what is deselected.
pub(crate) fn read_selection(text: &str, family: Family) -> Selection {
    let is_read = |line: &&str| family != Family::Debian || line.ends_with('\n');
    let lines = text.split_inclusive('\n').filter(|line| !line.trim_end_matches(['\r', '\n']).is_empty());
    let (read, passed_over): (Vec<&str>, Vec<&str>) =
        lines.filter(|line| !line.starts_with(['#', '!'])).partition(is_read);
    let name = |line: &str| line.lines().collect::<String>();
    Selection { names: read.into_iter().map(name).collect(), passed_over: passed_over.first().map(|line| name(line)) }
}

/// Adds the certificates in the files below a directory of the host to `found`.
///
/// # Errors
/// If a directory or file is there and cannot be read.
pub fn certificates_below(
    root: &HostRoot,
    dir: &str,
    depth: usize,
    found: &mut BTreeSet<Fingerprint>,
) -> Result<(), ObserveError> {
    if depth > MAX_DEPTH {
        return Ok(());
    }
    for (name, kind) in root.names(dir).map_err(at(dir))? {
        let path = format!("{dir}/{name}");
        match kind {
            FileKind::Directory => certificates_below(root, &path, depth + 1, found)?,
            FileKind::File | FileKind::Link => {
                if let Some(bytes) = usable(root.read(&path, MAX_BUNDLE_BYTES)).map_err(at(&path))? {
                    found.extend(bundle::read(&bytes).set);
                }
            }
            FileKind::Other => {}
        }
    }
    Ok(())
}

/// Certificates that somebody has deselected by the distribution's own means.
///
/// # Errors
/// If what says so is there and cannot be read.
pub(crate) fn deselected(root: &HostRoot, store: &TrustStore) -> Result<BTreeSet<Fingerprint>, ObserveError> {
    let mut found = BTreeSet::new();
    match store.family {
        Family::Debian | Family::Alpine => {
            let text = usable(root.read(SELECTION, MAX_SELECTION)).map_err(at(SELECTION))?.unwrap_or_default();
            for name in String::from_utf8_lossy(&text).lines().filter_map(|line| line.strip_prefix('!')) {
                let path = format!("{SHIPPED}/{name}");
                if let Some(bytes) = usable(root.read(&path, MAX_BUNDLE_BYTES)).map_err(at(&path))? {
                    found.extend(bundle::read(&bytes).set);
                }
            }
        }
        _ => {
            for dir in p11_kit_directories(store.family) {
                for name in ["blocklist", "blacklist"] {
                    certificates_below(root, &format!("{dir}/{name}"), 0, &mut found)?;
                }
            }
        }
    }
    Ok(found)
}

/// Where p11-kit reads its sources; nowhere for families without p11-kit.
pub(crate) fn p11_kit_directories(family: Family) -> &'static [&'static str] {
    match family {
        Family::Redhat => &["/etc/pki/ca-trust/source", "/usr/share/pki/ca-trust-source"],
        Family::Suse => &["/etc/pki/trust", "/usr/share/pki/trust"],
        Family::Arch => &["/etc/ca-certificates/trust-source", "/usr/share/ca-certificates/trust-source"],
        _ => &[],
    }
}
