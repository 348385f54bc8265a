//! What is on a host now.

pub use crate::certificate::bundle::{BundleReader, Effective};
use crate::{
    certificate::{anchor::Anchor, fingerprint::Fingerprint, pem::Fault},
    runtime::services::Services,
    store::{Family, TrustStore, adopted::AdoptedFile, distrust::DistrustView},
    time::Uptime,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// A store whose tool is missing: its bundle can be read, and not made.
#[derive(Debug, Clone)]
pub struct ToollessStore {
    /// The store that the system has.
    pub store: &'static TrustStore,
    /// What consumers read.
    pub effective: Effective,
}

/// Everything that an observation of a host found.
#[derive(Debug, Clone)]
pub struct Observed {
    /// The host's trust store.
    pub store: &'static TrustStore,
    /// The anchor directory exists.
    pub anchors_dir_exists: bool,
    /// Files in the anchor directory with our kind of name, by file name.
    pub ours: BTreeMap<String, OwnAnchorFile>,
    /// Other people's files in the anchor directory that the tool takes or that hold certificates.
    pub foreign: Vec<ForeignFile>,
    /// Files of others that we have taken over, by their paths: what is remembered of them.
    pub adopted: BTreeMap<String, AdoptedFile>,
    /// Roots of the distribution that are to be distrusted, or are by us.
    pub distrust: DistrustView,
    /// Left-overs of ours: temporary files and staged bundles, absolute.
    pub leftovers: BTreeSet<String>,
    /// The tool's own temporary file, left by a run that was killed, absolute.
    pub stale_temp: Option<String>,
    /// What consumers read.
    pub effective: Effective,
    /// Further hazards: a second one in a foreign file, and those of files that the tool pastes and that lie elsewhere.
    pub hazards: Vec<SourceHazard>,
    /// Anchors of ours in the bundle for which OpenSSL's directory has no link.
    pub unlinked: BTreeSet<Fingerprint>,
    /// Other certificates of the bundle for which that directory, where it is in use, has no link.
    pub unlinked_foreign: BTreeSet<Fingerprint>,
    /// The program that makes those links is not on the host: which. Looked for only where one is missing.
    pub no_linker: Option<&'static str>,
    /// Certificates that are not ours, were in the bundle at the last good look, and are not now, though their sources are.
    pub lost: BTreeSet<Fingerprint>,
    /// Those whose sources are gone too, and that nobody has deselected.
    pub gone: BTreeSet<Fingerprint>,
    /// Files that the distribution's list selects, that exist, and that hold no certificate: somebody or a failing disk emptied them.
    pub hollow: Vec<String>,
    /// What the distribution's list names in a last line without its end, over which the tool passes.
    pub passed_over: Option<String>,
    /// Stores that were in use before and still have something of ours.
    pub old: Vec<OldStore>,
    /// The container runtime and further services that read the bundle.
    pub services: Services,
    /// When this was seen.
    pub at: Uptime,
}

/// A trust store that was in use before, with what it still has of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OldStore {
    /// The store.
    pub family: Family,
    /// Our files in its anchor directory, by name.
    pub files: BTreeSet<String>,
    /// Anchors of ours that only its bundle still has.
    pub in_bundle: BTreeSet<Fingerprint>,
    /// Its tool is there, or it needs none: what is ours can be taken out.
    pub can_be_left: bool,
}

/// A file with our kind of name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnAnchorFile {
    /// The certificate in it, if it holds exactly one.
    pub anchor: Option<Arc<Anchor>>,
    /// Content, name, mode, owner and kind are as we write them.
    pub intact: bool,
}

/// Somebody else's file in the anchor directory.
#[derive(Debug, Clone, Default)]
pub struct ForeignFile {
    /// Absolute path on the host.
    pub path: String,
    /// Certificates in it.
    pub anchors: Vec<Arc<Anchor>>,
    /// The tool takes a file of this name.
    pub taken: bool,
    /// What a run of the tool would do with it.
    pub hazard: Option<Hazard>,
    /// What kind of file it is, if it lies in the anchor directory itself.
    pub form: Option<FileForm>,
}

/// What a file is beside its certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileForm {
    /// It is a regular file, and no link.
    pub regular: bool,
    /// Names that it has.
    pub links: u64,
    /// Root owns it, user and group.
    pub owned_by_root: bool,
    /// Bytes.
    pub size: usize,
    /// SHA-256 of its content.
    pub digest: [u8; 32],
    /// The first thing in it that is no certificate that we read, with its line.
    pub other: Option<String>,
}

/// What is wrong with a foreign file, if the tool would copy it into the bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hazard {
    /// A private key, at this line, would become readable for everyone.
    PrivateKey(usize),
    /// A broken block makes OpenSSL refuse the whole bundle.
    Broken(Fault),
    /// A certificate makes GnuTLS refuse the whole bundle.
    BrokenGnuTls(Fault),
}

impl Hazard {
    /// What makes this reader refuse the bundle with this file in it.
    pub fn fault_for(&self, reader: BundleReader) -> Option<&Fault> {
        match (reader, self) {
            (BundleReader::OpenSsl, Self::Broken(fault)) | (BundleReader::GnuTls, Self::BrokenGnuTls(fault)) => {
                Some(fault)
            }
            _ => None,
        }
    }
}

/// A hazard and the file that it is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceHazard {
    /// Absolute path on the host.
    pub path: String,
    /// What is wrong with it.
    pub hazard: Hazard,
}

impl ForeignFile {
    /// The tool puts this certificate into the bundle because of the file.
    pub(crate) fn gives(&self, fingerprint: &Fingerprint) -> bool {
        self.taken && self.anchors.iter().any(|anchor| anchor.fingerprint == *fingerprint)
    }
}

impl Observed {
    /// A host with this store, on which nothing else was seen.
    pub fn empty(store: &'static TrustStore) -> Self {
        Self {
            store,
            anchors_dir_exists: false,
            ours: BTreeMap::new(),
            foreign: Vec::new(),
            adopted: BTreeMap::new(),
            distrust: DistrustView::default(),
            leftovers: BTreeSet::new(),
            stale_temp: None,
            effective: Effective::default(),
            hazards: Vec::new(),
            unlinked: BTreeSet::new(),
            unlinked_foreign: BTreeSet::new(),
            no_linker: None,
            lost: BTreeSet::new(),
            gone: BTreeSet::new(),
            hollow: Vec::new(),
            passed_over: None,
            old: Vec::new(),
            services: Services::default(),
            at: Uptime::default(),
        }
    }

    /// Somebody else's file in the anchor directory holds it too.
    pub(crate) fn foreign_copy(&self, fingerprint: &Fingerprint) -> bool {
        self.foreign.iter().any(|file| file.gives(fingerprint))
    }

    /// The base name of somebody else's file that lies in the anchor directory itself.
    pub fn base_name<'a>(&self, file: &'a ForeignFile) -> Option<&'a str> {
        let name = file.path.strip_prefix(self.store.anchors_dir)?.strip_prefix('/')?;
        (!name.contains('/')).then_some(name)
    }

    /// Certificates of files that were taken over.
    pub fn adopted_certificates(&self) -> BTreeSet<Fingerprint> {
        self.adopted.values().flat_map(AdoptedFile::certificates).collect()
    }

    /// Every hazard with its file.
    pub fn all_hazards(&self) -> impl Iterator<Item = (&str, &Hazard)> {
        let files = self.foreign.iter().filter_map(|file| Some((file.path.as_str(), file.hazard.as_ref()?)));
        files.chain(self.hazards.iter().map(|found| (found.path.as_str(), &found.hazard)))
    }

    /// What a reader chokes on in source files that are not ours: path and fault.
    pub fn broken_for(&self, reader: BundleReader) -> impl Iterator<Item = (&str, &Fault)> {
        self.all_hazards().filter_map(move |(path, hazard)| Some((path, hazard.fault_for(reader)?)))
    }
}
