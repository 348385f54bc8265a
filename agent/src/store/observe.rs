//! Looking at a host: what is there now, as a value for the core.
//!
//! Read-only. Every fact comes from a read in this look.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    io,
    path::Path,
    sync::{Arc, LazyLock},
    thread,
    time::{Duration, Instant},
};

use nodetrust_core::{
    certificate::{
        anchor::Anchor,
        bundle,
        fingerprint::{Fingerprint, content_digest},
        pem,
    },
    ledger::Ledger,
    observed::{Effective, Observed, OldStore, OwnAnchorFile},
    parallel::in_shares,
    runtime::services::Services,
    source::{Content, Resolved, Snapshot, SourceFile},
    store::{
        self, Detection, Family, PathKind, Tool, TrustStore,
        anchor_file::{file_name, is_own_name},
        hash_link,
        os_release::OsRelease,
        p11kit::{TrustDirectory, TrustSources},
    },
    time::Uptime,
};

use crate::{
    host::{
        directory::HostDirectory,
        file::{FileKind, FileMeta, is_missing},
        obstacle::way_out_or,
        own,
        root::HostRoot,
    },
    store::{foreign::KnownForeign, hash_links, hazards, trust_list},
};

/// Largest bundle that is read, in bytes: 30,000 certificates or more.
pub const MAX_BUNDLE_BYTES: u64 = 64 << 20;
/// Looks at a host whose files somebody changes meanwhile; the last one counts.
const LOOKS: usize = 3;
/// How deep a directory of certificates is searched.
const MAX_DEPTH: usize = 8;
/// A temporary file of the tool that nobody has written to for this long was left by a run that was killed: far longer than
/// any step of the tool, since taking the file from under a live run would make that run install a short bundle.
pub const STALE_AFTER: Duration = Duration::from_secs(600);
/// How long another run of the tool is waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// Fewer files than this are not worth a thread: about 10 ms of work.
const FILES_PER_THREAD: usize = 1024;
/// Same-hash links that are looked through.
const MAX_LINKS: usize = 64;

/// Something on the host that could not be looked at.
#[derive(Debug, thiserror::Error)]
#[error("failed to read `{path}` on the host")]
pub struct ObserveError {
    path: String,
    source: io::Error,
}

impl ObserveError {
    /// What to do about it, or something for all other cases.
    pub fn next(&self, otherwise: &str) -> String {
        way_out_or(&self.source, otherwise)
    }
}

pub(crate) fn at(path: &str) -> impl FnOnce(io::Error) -> ObserveError {
    let path = path.to_owned();
    move |source| ObserveError { path, source }
}

/// What was read; None if there is nothing that a tool could use: a dangling link or one to itself, a socket, a huge file. Whatever
/// else keeps it from being read is an error, and never the same as absence.
pub(crate) fn usable<T>(read: io::Result<T>) -> io::Result<Option<T>> {
    use nix::libc::{ELOOP, ENODEV, ENXIO};
    match read {
        Ok(read) => Ok(Some(read)),
        Err(error) if is_missing(&error) || error.kind() == io::ErrorKind::InvalidData => Ok(None),
        Err(error) if matches!(error.raw_os_error(), Some(ELOOP | ENXIO | ENODEV)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Remembers what files held, by their content: what is the same is not decoded again.
#[derive(Debug, Default)]
pub struct Cache {
    /// the bundle
    effective: Option<(Digest, Effective)>,
    /// our files
    own: HashMap<Digest, Own>,
    /// the other files, where a directory itself is what consumers read
    beside: HashMap<Digest, Effective>,
    /// where OpenSSL's directory leads
    links: hash_links::LinkCache,
    /// what the files that the distribution's list selects would do
    hazards: hazards::PastedCache,
    /// what other people's files in the anchor directory hold
    foreign: KnownForeign,
    /// what the sources hold: our files are made of it
    sources: Vec<Arc<SourceFile>>,
    /// how long a program of the host may take that is asked
    asks: Option<Duration>,
}

/// SHA-256 of a file's content.
pub(crate) type Digest = [u8; 32];

/// A file that holds one certificate.
#[derive(Debug, Clone)]
struct Own {
    anchor: Arc<Anchor>,
    /// to the byte as we write it
    as_written: bool,
}

impl Cache {
    /// Takes note of what the sources hold, so that a file with the same certificate need not be decoded.
    pub fn expect(&mut self, snapshots: &[Snapshot]) {
        let parts = snapshots.iter().filter_map(|snapshot| match &snapshot.content {
            Content::Files(parts) => Some(parts),
            _ => None,
        });
        self.sources = parts.flatten().cloned().collect();
    }

    /// Whether the host's p11-kit is asked what is an anchor, and how long that may take. It writes to a directory of ours, so the lock
    /// is needed; without, its files are read.
    pub fn set_asks(&mut self, asks: Option<Duration>) {
        self.asks = asks;
    }

    /// Keeps one copy of an anchor that is in a source and in a file of ours, the source's.
    pub fn share(&mut self, resolved: &Resolved) {
        for own in self.own.values_mut() {
            if let Some(wanted) = resolved.desired.get(&own.anchor.fingerprint) {
                own.anchor.clone_from(&wanted.anchor);
            }
        }
    }
}

/// Reads os-release; without one, nothing is known of the system.
///
/// # Errors
/// If it is there and cannot be read.
pub fn os_release(root: &HostRoot) -> Result<OsRelease, ObserveError> {
    // os-release(5): the first that exists
    for path in ["/etc/os-release", "/usr/lib/os-release"] {
        match root.read(path, 1 << 20) {
            Ok(bytes) => return Ok(OsRelease::parse(&String::from_utf8_lossy(&bytes))),
            Err(error) if is_missing(&error) => {}
            Err(error) => return Err(at(path)(error)),
        }
    }
    Ok(OsRelease::parse(""))
}

/// Finds the host's trust store.
///
/// # Errors
/// If one of the paths that decide could not be looked at: it may be there or not.
pub fn detect(root: &HostRoot, os: &OsRelease, wanted: Option<Family>) -> Result<Detection, ObserveError> {
    let mut found = BTreeMap::new();
    for path in store::PROBES {
        let what = match root.stat(path).map_err(at(path))?.map(|meta| meta.kind) {
            Some(FileKind::Directory) => PathKind::Directory,
            Some(FileKind::File) => kind_of_program(root, path).map_err(at(path))?,
            Some(FileKind::Link | FileKind::Other) | None => continue,
        };
        found.insert(*path, what);
    }
    let mut detection = store::detect(os, &found, wanted);
    if let Err(unsupported) = &mut detection.family
        && found.is_empty()
        && *os == OsRelease::parse("")
    {
        unsupported.reason.push_str(&format!(" (in {})", root.path().display()));
    }
    Ok(detection)
}

/// os-release and the trust store; where one of them cannot be read, a detection that says so, with which nothing is done.
pub fn system(root: &HostRoot, wanted: Option<Family>) -> (OsRelease, Detection) {
    let unreadable = |error: &ObserveError| {
        let next = error.next("look at the path on the host; nothing is changed until it can be read");
        Detection::unreadable(crate::store::extract::chain(error), next)
    };
    match os_release(root) {
        Ok(os) => {
            let detection = detect(root, &os, wanted).unwrap_or_else(|error| unreadable(&error));
            (os, detection)
        }
        Err(error) => (OsRelease::parse(""), unreadable(&error)),
    }
}

/// Looks at a host's trust store.
///
/// # Errors
/// If a file or directory that matters is there and cannot be read.
pub fn observe(
    root: &HostRoot,
    store: &'static TrustStore,
    known_foreign: &BTreeSet<Fingerprint>,
    cache: &mut Cache,
) -> Result<Observed, ObserveError> {
    // A file of ours that somebody changes while the rest is read would show as a fault of the bundle or of a link to it: such a look is
    // of no one moment, and is made again.
    for _ in 1..LOOKS {
        let observed = observe_once(root, store, known_foreign, cache)?;
        if is_as_it_should(&observed) || read_own_files(root, store, cache)? == observed.ours {
            return Ok(observed);
        }
    }
    observe_once(root, store, known_foreign, cache)
}

/// Whether our files, the bundle and the links to them fit together.
fn is_as_it_should(observed: &Observed) -> bool {
    observed.unlinked.is_empty()
        && observed.ours.values().all(|own| {
            let trusted = own.anchor.as_ref().is_some_and(|own| observed.effective.set.contains(&own.fingerprint));
            own.intact && trusted
        })
}

/// Our files as they are now.
fn read_own_files(
    root: &HostRoot,
    store: &TrustStore,
    cache: &mut Cache,
) -> Result<BTreeMap<String, OwnAnchorFile>, ObserveError> {
    let Some(dir) = root.directory(store.anchors_dir).map_err(at(store.anchors_dir))? else {
        return Ok(BTreeMap::new());
    };
    let names = dir.names().map_err(at(store.anchors_dir))?;
    own_files(&dir, store, &names, cache)
}

fn observe_once(
    root: &HostRoot,
    store: &'static TrustStore,
    known_foreign: &BTreeSet<Fingerprint>,
    cache: &mut Cache,
) -> Result<Observed, ObserveError> {
    let dir = root.directory(store.anchors_dir).map_err(at(store.anchors_dir))?;
    let names = dir.as_ref().map_or(Ok(Vec::new()), HostDirectory::names).map_err(at(store.anchors_dir))?;
    let ours = dir.as_ref().map(|dir| own_files(dir, store, &names, cache)).transpose()?;
    let mut observed = Observed {
        store,
        anchors_dir_exists: dir.is_some(),
        ours: ours.unwrap_or_default(),
        foreign: Vec::new(),
        leftovers: leftovers(root, store, &names)?,
        stale_temp: None,
        effective: Effective::default(),
        hazards: Vec::new(),
        unlinked: BTreeSet::new(),
        unlinked_foreign: BTreeSet::new(),
        no_linker: None,
        lost: BTreeSet::new(),
        gone: BTreeSet::new(),
        hollow: Vec::new(),
        old: Vec::new(),
        services: Services::default(),
        at: Uptime::default(),
    };
    // in a directory that holds the extracted links and bundle too, other people's files are the distribution's
    if store.anchors_dir != "/etc/ssl/certs" {
        cache.foreign.look(root, &names, &mut observed)?;
    }
    observed.effective = match store.tool {
        Tool::None => directory_effective(root, store, &names, &observed.ours, cache)?,
        _ => effective(root, store, cache).map_err(at(store.bundle))?,
    };
    if let Tool::Staged { foreign_temp, .. } = store.tool {
        let age = age(root, foreign_temp).map_err(at(foreign_temp))?;
        observed.stale_temp = age.filter(|age| *age >= STALE_AFTER).map(|_| foreign_temp.to_owned());
    }
    let (hazards, hollow) = hazards::elsewhere(root, store, &mut cache.hazards)?;
    observed.hazards.extend(hazards);
    observed.hollow = hollow;
    blame(root, &mut observed)?;
    observed.unlinked = unlinked(root, &observed, cache)?;
    observed.unlinked_foreign = unlinked_foreign(root, &observed, cache)?;
    if !observed.unlinked.is_empty() || !observed.unlinked_foreign.is_empty() {
        observed.no_linker = hash_links::missing_program(root, store).map_err(at("openssl"))?;
    }
    let missing: BTreeSet<Fingerprint> = known_foreign.difference(&observed.effective.set).copied().collect();
    observed.lost = with_a_source(root, store, missing.clone(), cache.asks)?;
    if missing.len() > observed.lost.len() {
        let deselected = hazards::deselected(root, store)?;
        let left = missing.difference(&observed.lost).filter(|fingerprint| !deselected.contains(fingerprint));
        observed.gone = left.copied().collect();
    }
    Ok(observed)
}

/// What the stores that were in use before still have of ours. `store` is the node's now.
///
/// # Errors
/// As [`observe`].
pub fn old_stores(root: &HostRoot, store: &TrustStore, ledger: &Ledger) -> Result<Vec<OldStore>, ObserveError> {
    let families: BTreeSet<Family> = ledger.left.iter().chain(&ledger.family).copied().collect();
    // in a directory that both stores read, the files are not left, they are wanted
    let old = families.into_iter().filter(|family| family.store().anchors_dir != store.anchors_dir);
    let mut found = Vec::new();
    for family in old {
        let before = family.store();
        let names = root.names(before.anchors_dir).map_err(at(before.anchors_dir))?;
        // a link of such a name is the work of another store's tool
        let own = names.into_iter().filter(|(name, kind)| *kind == FileKind::File && is_own_name(before, name));
        let files: BTreeSet<String> = own.map(|(name, _)| name).collect();
        let mut in_bundle = BTreeSet::new();
        if before.bundle != store.bundle && !matches!(before.tool, Tool::None) {
            let effective = effective(root, before, &mut Cache::default()).map_err(at(before.bundle))?;
            in_bundle =
                effective.set.into_iter().filter(|fingerprint| ledger.anchors.contains_key(fingerprint)).collect();
            let with_a_source = with_a_source(root, before, in_bundle.clone(), None)?;
            in_bundle.retain(|fingerprint| !with_a_source.contains(fingerprint));
        }
        if !files.is_empty() || !in_bundle.is_empty() {
            let mut can_be_left = matches!(before.tool, Tool::None);
            for path in before.tool.programs() {
                can_be_left |= root.stat(path).map_err(at(path))?.is_some_and(|meta| meta.kind == FileKind::File);
            }
            found.push(OldStore { family, files, in_bundle, can_be_left });
        }
    }
    Ok(found)
}

/// Waits until no other run of the tool is in flight, so that what is read next is not about to be replaced by what that run
/// saw earlier. Bounded: a temporary file that nobody writes to counts as left behind.
pub fn await_other_runs(root: &HostRoot, store: &TrustStore) {
    let Tool::Staged { foreign_temp, .. } = store.tool else { return };
    let end = Instant::now() + PATIENCE;
    // what cannot be looked at is not waited for: the look that follows says so
    let is_written = || age(root, foreign_temp).ok().flatten().is_some_and(|age| age < PATIENCE);
    while Instant::now() < end && is_written() {
        thread::sleep(Duration::from_millis(5));
    }
}

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
            match selected(root)? {
                Some(names) => {
                    for name in names {
                        let path = format!("/usr/share/ca-certificates/{name}");
                        if let Some(bytes) = usable(root.read(&path, MAX_BUNDLE_BYTES)).map_err(at(&path))? {
                            sources.extend(bundle::read(&bytes).set);
                        }
                    }
                }
                None => certificates_below(root, "/usr/share/ca-certificates", 0, &mut sources)?,
            }
        }
        Family::Flatcar | Family::Photon | Family::Directory => {
            certificates_below(root, "/usr/share/ca-certificates", 0, &mut sources)?;
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
fn p11_kit_sources(root: &HostRoot, store: &TrustStore) -> Result<TrustSources, ObserveError> {
    let dirs: [&str; 2] = match store.family {
        Family::Suse => ["/usr/share/pki/trust", "/etc/pki/trust"],
        Family::Arch => ["/usr/share/ca-certificates/trust-source", "/etc/ca-certificates/trust-source"],
        _ => ["/usr/share/pki/ca-trust-source", "/etc/pki/ca-trust/source"],
    };
    let mut sources = TrustSources::default();
    for dir in dirs {
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

/// The shipped certificates that `/etc/ca-certificates.conf` selects. None if it selects nothing: nobody deselects everything,
/// so the list is gone or was cut.
///
/// # Errors
/// If it is there and cannot be read.
pub fn selected(root: &HostRoot) -> Result<Option<Vec<String>>, ObserveError> {
    const CONF: &str = "/etc/ca-certificates.conf";
    let text = match root.read(CONF, 1 << 20) {
        Err(error) if is_missing(&error) => Vec::new(),
        read => read.map_err(at(CONF))?,
    };
    let names = read_selection(&String::from_utf8_lossy(&text));
    Ok((!names.is_empty()).then_some(names))
}

/// The names in the distribution's list; `#` begins a comment, `!` what is deselected.
pub(crate) fn read_selection(text: &str) -> Vec<String> {
    let names = text.lines().filter(|line| !line.is_empty() && !line.starts_with(['#', '!']));
    names.map(str::to_owned).collect()
}

/// Certificates in the files below some directories of the host, for telling whether one that was lost still has a source.
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

/// The bundle as it is now.
///
/// # Errors
/// If it is there and cannot be read.
pub fn effective(root: &HostRoot, store: &TrustStore, cache: &mut Cache) -> io::Result<Effective> {
    let Some(bytes) = bundle_bytes(root, store)? else { return Ok(Effective::default()) };
    let digest = content_digest(&bytes);
    match &cache.effective {
        Some((known, effective)) if *known == digest => Ok(effective.clone()),
        _ => {
            let effective = bundle::read(&bytes);
            cache.effective = Some((digest, effective.clone()));
            Ok(effective)
        }
    }
}

/// What consumers read, None if it does not exist.
///
/// # Errors
/// If it is there and cannot be read.
pub fn bundle_bytes(root: &HostRoot, store: &TrustStore) -> io::Result<Option<Vec<u8>>> {
    match store.tool {
        Tool::None => directory_bytes(root, store.bundle).map(Some),
        _ => match root.read(store.bundle, MAX_BUNDLE_BYTES) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if crate::host::file::is_missing(&error) => Ok(None),
            Err(error) => Err(error),
        },
    }
}

/// Where a directory itself is what consumers read: all its files, one after the other.
fn directory_bytes(root: &HostRoot, dir: &str) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    for (name, _) in root.names(dir)? {
        if let Some(bytes) = usable(root.read(format!("{dir}/{name}"), MAX_BUNDLE_BYTES))?
            && stands_for_itself(&bundle::read(&bytes))
        {
            all.extend_from_slice(&bytes);
            all.push(b'\n');
        }
    }
    Ok(all)
}

/// What is in [`directory_bytes`], with our files as they were just read.
fn directory_effective(
    root: &HostRoot,
    store: &TrustStore,
    names: &[(String, FileKind)],
    ours: &BTreeMap<String, OwnAnchorFile>,
    cache: &mut Cache,
) -> Result<Effective, ObserveError> {
    let before = std::mem::take(&mut cache.beside);
    let mut all = Vec::new();
    let mut count = 0;
    for (name, _) in names {
        if let Some(OwnAnchorFile { anchor: Some(anchor), intact: true }) = ours.get(name) {
            all.push(anchor.fingerprint);
            count += 1;
            continue;
        }
        let path = format!("{}/{name}", store.bundle);
        if let Some(bytes) = usable(root.read(&path, MAX_BUNDLE_BYTES)).map_err(at(&path))? {
            let digest = content_digest(&bytes);
            let read = cache.beside.entry(digest).or_insert_with(|| match before.get(&digest) {
                Some(known) => known.clone(),
                None => bundle::read(&bytes),
            });
            if stands_for_itself(read) {
                all.extend(&read.set);
                count += read.count;
            }
        }
    }
    Ok(Effective { present: true, set: all.into_iter().collect(), count, ..Effective::default() })
}

/// Each file of such a directory stands for itself: what breaks one does not break the next, and a key in one is not in a bundle.
fn stands_for_itself(read: &Effective) -> bool {
    read.faults.is_empty() && !read.private_key
}

/// The files with our kind of name.
fn own_files(
    dir: &HostDirectory,
    store: &TrustStore,
    names: &[(String, FileKind)],
    cache: &mut Cache,
) -> Result<BTreeMap<String, OwnAnchorFile>, ObserveError> {
    let known = std::mem::take(&mut cache.own);
    let sources = &cache.sources;
    let by_name: LazyLock<HashMap<String, &Arc<Anchor>>, _> = LazyLock::new(|| {
        let anchors = sources.iter().flat_map(|part| &part.anchors);
        anchors.map(|(_, anchor)| (file_name(store, &anchor.fingerprint), anchor)).collect()
    });
    let look = OwnFiles { dir, store, known: &known };
    let own: Vec<&(String, FileKind)> = names.iter().filter(|(name, _)| is_own_name(store, name)).collect();
    let files = in_shares(&own, FILES_PER_THREAD, |share| {
        let mut bytes = Vec::new();
        let expected = |name: &str| by_name.get(name).copied();
        share.iter().map(|(name, kind)| look.file(name, *kind, expected, &mut bytes)).collect()
    });
    let read = own.into_iter().zip(files).filter_map(|((name, _), file)| match file {
        // somebody has removed it since the directory was listed
        Err(error) if is_missing(&error) => None,
        file => Some((name, file.map_err(at(&format!("{}/{name}", store.anchors_dir))))),
    });
    let read = read.map(|(name, file)| {
        let file = file?.map_or(OwnAnchorFile { anchor: None, intact: false }, |(file, digest, own)| {
            cache.own.insert(digest, own);
            file
        });
        Ok((name.clone(), file))
    });
    read.collect()
}

/// A file of ours as it was read: what it is, and what is to be remembered of it.
type ReadOwn = (OwnAnchorFile, Digest, Own);

/// What our files are read with.
struct OwnFiles<'a> {
    dir: &'a HostDirectory,
    store: &'a TrustStore,
    known: &'a HashMap<Digest, Own>,
}

impl OwnFiles<'_> {
    /// A file with our kind of name, and what is to be remembered of it; None if it does not hold exactly one certificate. What is
    /// known by its digest, or to the byte what a source's certificate gives under this name, is not decoded. `NotFound` if it is gone.
    fn file<'a>(
        &self,
        name: &str,
        kind: FileKind,
        expected: impl Fn(&str) -> Option<&'a Arc<Anchor>>,
        bytes: &mut Vec<u8>,
    ) -> io::Result<Option<ReadOwn>> {
        if kind != FileKind::File {
            return Ok(None);
        }
        let Some((meta, digest, own)) = self.read(name, expected, bytes)? else { return Ok(None) };
        let right_name = file_name(self.store, &own.anchor.fingerprint) == name;
        let right_owner = meta.owner == (0, 0) || !nix::unistd::geteuid().is_root();
        let intact = right_name && right_owner && meta.mode == 0o644 && meta.links == 1 && own.as_written;
        let anchor = right_name.then(|| own.anchor.clone());
        Ok(Some((OwnAnchorFile { anchor, intact }, digest, own)))
    }

    fn read<'a>(
        &self,
        name: &str,
        expected: impl Fn(&str) -> Option<&'a Arc<Anchor>>,
        bytes: &mut Vec<u8>,
    ) -> io::Result<Option<(FileMeta, Digest, Own)>> {
        let read = match self.dir.read(name, pem::MAX_FILE_BYTES as u64, bytes) {
            Err(error) if is_missing(&error) => return Err(error),
            read => usable(read)?,
        };
        let Some(meta) = read else { return Ok(None) };
        let digest = content_digest(bytes);
        let as_expected = || {
            let anchor = expected(name).filter(|anchor| anchor.pem().as_bytes() == bytes.as_slice())?;
            Some(Own { anchor: Arc::clone(anchor), as_written: true })
        };
        let own = match self.known.get(&digest).cloned().or_else(as_expected) {
            Some(own) => own,
            None => match SourceFile::parse(name, bytes).anchors.as_slice() {
                [(_, anchor)] => {
                    Own { anchor: anchor.clone(), as_written: anchor.pem().as_bytes() == bytes.as_slice() }
                }
                _ => return Ok(None),
            },
        };
        Ok(Some((meta, digest, own)))
    }
}

/// Where the tool reads its sources instead of pasting them: whose certificates the bundle's faults are.
fn blame(root: &HostRoot, observed: &mut Observed) -> Result<(), ObserveError> {
    let (store, effective) = (observed.store, &observed.effective);
    if store.pastes_files || effective.faults.is_empty() && effective.gnutls_faults.is_empty() {
        return Ok(());
    }
    if let Some(bytes) = bundle_bytes(root, store).map_err(at(store.bundle))? {
        observed.hazards = hazards::holders(root, store, &bytes, &observed.effective)?;
    }
    Ok(())
}

/// Temporary files of ours that a killed run left behind. `names` are those in the anchor directory.
fn leftovers(
    root: &HostRoot,
    store: &TrustStore,
    names: &[(String, FileKind)],
) -> Result<BTreeSet<String>, ObserveError> {
    let mut left = BTreeSet::new();
    let elsewhere;
    let names = if store.temp_dir == store.anchors_dir {
        names
    } else {
        elsewhere = root.names(store.temp_dir).map_err(at(store.temp_dir))?;
        &elsewhere
    };
    for (name, _) in names {
        if name.starts_with(own::HIDDEN) && name.ends_with(".tmp") {
            left.insert(format!("{}/{name}", store.temp_dir));
        }
    }
    if !matches!(store.tool, Tool::None) {
        let outputs = store.outputs.iter().chain([&store.bundle]);
        let dirs: BTreeSet<&Path> = outputs.filter_map(|path| Path::new(path).parent()).collect();
        for dir in dirs {
            let dir = dir.display().to_string();
            for (name, _) in root.names(&dir).map_err(at(&dir))? {
                if name.starts_with(".nodetrust-") {
                    left.insert(format!("{dir}/{name}"));
                }
            }
        }
    }
    for path in [own::TEMP_DIR, own::LEDGER_TEMP] {
        if root.own_meta(path).map_err(at(path))?.is_some() {
            left.insert(path.to_owned());
        }
    }
    Ok(left)
}

/// Our anchors in the bundle to which OpenSSL's directory has no link, where that directory is in use at all.
fn unlinked(root: &HostRoot, observed: &Observed, cache: &Cache) -> Result<BTreeSet<Fingerprint>, ObserveError> {
    let Some(dir) = observed.store.hash_dir else { return Ok(BTreeSet::new()) };
    let names = root.names(dir).map_err(at(dir))?;
    // in a directory that only p11-kit fills, files without links have lost them
    let is_filled = matches!(observed.store.family, Family::Redhat | Family::Suse)
        && names.iter().any(|(name, _)| name.ends_with(".pem"));
    let names: HashSet<String> = names.into_iter().map(|(name, _)| name).filter(|name| is_hash_link(name)).collect();
    if names.is_empty() && observed.store.drops_not_ca && !is_filled {
        return Ok(BTreeSet::new()); // stores over p11-kit: the older scripts make none
    }
    let mut unlinked = BTreeSet::new();
    let own = observed.ours.values().filter_map(|file| file.anchor.as_ref());
    for anchor in own.filter(|anchor| observed.effective.set.contains(&anchor.fingerprint)) {
        let links = (0..MAX_LINKS).map(|n| format!("{:08x}.{n}", anchor.subject.hash));
        let mut is_linked = false;
        // OpenSSL counts up and stops at the first number that is missing
        for link in links.take_while(|link| names.contains(link)) {
            let path = format!("{dir}/{link}");
            let bytes = usable(root.read(&path, pem::MAX_FILE_BYTES as u64)).map_err(at(&path))?.unwrap_or_default();
            is_linked = match cache.own.get(&content_digest(&bytes)) {
                Some(own) if own.as_written => own.anchor.fingerprint == anchor.fingerprint,
                _ => hash_link::trusted(&bytes).contains(&anchor.fingerprint),
            };
            if is_linked {
                break;
            }
        }
        if !is_linked {
            unlinked.insert(anchor.fingerprint);
        }
    }
    Ok(unlinked)
}

/// Certificates of the bundle that are not in files of ours and to which one of OpenSSL's directories does not lead. Those that share a
/// file get no link from a tool that pastes files.
fn unlinked_foreign(
    root: &HostRoot,
    observed: &Observed,
    cache: &mut Cache,
) -> Result<BTreeSet<Fingerprint>, ObserveError> {
    let mut linked = cache.links.linked(root, observed.store)?.into_values();
    let Some(mut known) = linked.next() else { return Ok(BTreeSet::new()) };
    for other in linked {
        known.retain(|fingerprint| other.contains(fingerprint));
    }
    known.extend(observed.ours.values().filter_map(|file| Some(file.anchor.as_ref()?.fingerprint)));
    let shared = observed.foreign.iter().filter(|file| file.anchors.len() > 1 && observed.store.pastes_files);
    known.extend(shared.flat_map(|file| &file.anchors).map(|anchor| anchor.fingerprint));
    Ok(observed.effective.set.difference(&known).copied().collect())
}

fn is_hash_link(name: &str) -> bool {
    name.split_once('.').is_some_and(|(hash, number)| {
        hash.len() == 8
            && hash.bytes().all(|byte| byte.is_ascii_hexdigit())
            && !number.is_empty()
            && number.bytes().all(|byte| byte.is_ascii_digit())
    })
}

fn kind_of_program(root: &HostRoot, path: &str) -> io::Result<PathKind> {
    // tools are small; a program of more than this is none of the scripts
    let bytes = usable(root.read(path, 1 << 20))?.unwrap_or_default();
    Ok(match bytes.as_slice() {
        script if store::is_debian_script(script) => PathKind::DebianScript,
        script if script.starts_with(b"#!") => PathKind::Script,
        _ => PathKind::File,
    })
}

/// How long ago a file was written, None if it does not exist. A time in the future counts as a distance too: a clock that was
/// set back must not make a dead file look alive for ever.
fn age(root: &HostRoot, path: &str) -> io::Result<Option<Duration>> {
    let now = crate::host::wall();
    Ok(root.stat(path)?.map(|meta| Duration::from_secs(now.abs_diff(meta.modified))))
}

#[cfg(test)]
#[path = "observe_tests.rs"]
mod tests;
