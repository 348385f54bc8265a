//! The ledger: what is remembered on the host.
//!
//! What is observed decides. The ledger holds only what cannot be observed: since when an anchor is in grace, what each source said
//! last, that a change was begun, and what processes have read.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use crate::{
    certificate::{
        anchor::{Anchor, AnchorError},
        fingerprint::Fingerprint,
        signature::SelfSignature,
    },
    runtime::{
        attempts::{AttemptOutcome, RestartAttempt, with_attempt},
        record::ServiceRecord,
        registry_dir::KnownSetting,
        settings::RuntimeChoice,
        witness::Witness,
    },
    store::{Family, distrust::DistrustedRoot},
    time::{Moment, Uptime},
};

/// The state of an anchor that is or was ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AnchorState {
    /// A source wants it.
    Desired,
    /// It left the sources and stays trusted for a while.
    Grace,
    /// Its grace has ended; it should be gone.
    Retired,
    /// Denied by policy; it should be gone.
    Denied,
}

impl AnchorState {
    /// The public name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Desired => "desired",
            Self::Grace => "grace",
            Self::Retired => "retired",
            Self::Denied => "denied",
        }
    }
}

/// `/var/lib/nodetrust/ledger.json`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ledger {
    /// Format version, 1.
    pub version: u32,
    /// Wall clock of the last change of this file.
    #[serde(default)]
    pub updated: i64,
    /// The store that the anchors were put into.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub family: Option<Family>,
    /// Stores that were in use before and may still have something of ours.
    #[serde(default, rename = "left", skip_serializing_if = "BTreeSet::is_empty")]
    pub old_families: BTreeSet<Family>,
    /// Anchors that are or were ours.
    #[serde(default)]
    pub anchors: BTreeMap<Fingerprint, LedgerAnchor>,
    /// What each source said last.
    #[serde(default)]
    pub sources: BTreeMap<String, LedgerSource>,
    /// A change was begun and not yet seen to be complete.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pending: bool,
    /// Directories that we made, to be removed by `uninstall`.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub created: BTreeSet<String>,
    /// Changes that the store's hooks have not been told of: true for an addition.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub hooks: BTreeMap<Fingerprint, bool>,
    /// The same for files of others that we have taken over or put back: the names of their links, without the extension.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub hook_names: BTreeMap<String, bool>,
    /// Roots of the distribution that we have distrusted, and what was changed for it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub distrusted: BTreeMap<Fingerprint, DistrustedRoot>,
    /// The bundle's certificates that are not ours, as the last good look found them: what must not get lost.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub foreign: BTreeSet<Fingerprint>,
    /// Many of those that were there left at once, with their sources and without being deselected: which.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub gone: BTreeSet<Fingerprint>,
    /// Wall clock of when that was seen first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone_since: Option<i64>,
    /// Certificates that are not ours and to which the tool makes no link in OpenSSL's directory.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub linkless: BTreeSet<Fingerprint>,
    /// Repetitions in the bundle after our last run of the tool: they come from the distribution's own sources.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repeated: Option<usize>,
    /// The grace time in force, in seconds, for whoever looks without the configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removal_grace: Option<u64>,
    /// Removals wait for the fleet's approval, for whoever looks without the configuration.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fleet_gate: bool,
    /// Wall clock of the last verified change of the set that is in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed: Option<i64>,
    /// The time since when the bundle is known to hold what it holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published: Option<Uptime>,
    /// When we last began to change the bundle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begun: Option<Uptime>,
    /// Processes that read the bundle when they start, by unit.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub services: BTreeMap<String, ServiceRecord>,
    /// The last attempts to restart them.
    #[serde(default, rename = "tries", skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<RestartAttempt>,
    /// What the runtime answered last when it was asked about a registry, by `host:port`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub witnesses: BTreeMap<String, Witness>,
    /// How the runtime is looked for, for whoever looks without the configuration; None for the defaults.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<RuntimeChoice>,
    /// The boot in which the agent last ran in a pod of this node: then there is a runtime.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// What the runtime's process reads as its registry directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registry: Option<KnownSetting>,
    /// Files that we wrote into registry directories.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub certs_files: BTreeSet<String>,
    /// Exported bundles that we wrote.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub exports: BTreeSet<String>,
}

/// The format version that this program writes.
pub const LEDGER_VERSION: u32 = 1;

/// One anchor in the ledger. Its certificate is kept, so that it can be healed when its source is silent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LedgerAnchor {
    /// Where it stands.
    pub state: AnchorState,
    /// DER, in the file in base64; empty if that was damaged by hand.
    #[serde(with = "base64")]
    pub der: Arc<[u8]>,
    /// Since when no source wants it.
    #[serde(default, rename = "left", skip_serializing_if = "Option::is_none")]
    pub unwanted_since: Option<Moment>,
    /// It has been seen in the extracted bundle since we installed it.
    #[serde(default)]
    pub settled: bool,
    /// Since when it is gone from host and bundle. It is remembered for a while: a run of the tool that began before our
    /// removal may bring it back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone: Option<i64>,
    /// Somebody else's copy keeps it in the bundle: it was there before us, or stayed after our file was removed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shared: bool,
    /// That copy is a file in the anchor directory, as far as is known: once the file is gone, nothing keeps the anchor there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub copied: bool,
    /// Found on the host and in no ledger: which source wanted it is not known.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub adopted: bool,
    /// Its own signature was checked when it was entered, and matches.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub verified: bool,
}

/// What a source said last.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LedgerSource {
    /// Its last good set.
    pub anchors: BTreeSet<Fingerprint>,
    /// Wall clock of its last change.
    pub changed: i64,
}

impl Ledger {
    /// An empty ledger.
    pub fn new() -> Self {
        Self { version: LEDGER_VERSION, ..Self::default() }
    }

    /// Reads the file's bytes.
    ///
    /// # Errors
    /// A sentence, if it is damaged or of a newer version.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let ledger: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if ledger.version != LEDGER_VERSION {
            return Err(format!("version {} is not {LEDGER_VERSION}", ledger.version));
        }
        Ok(ledger)
    }

    /// The file's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Maps with string-like keys and plain values cannot fail to serialise.
        let mut bytes = serde_json::to_vec_pretty(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }

    /// Shares the certificates of these anchors instead of keeping copies of them.
    pub fn share<'a>(&mut self, anchors: impl Iterator<Item = &'a Arc<Anchor>>) {
        for anchor in anchors {
            if let Some(entry) = self.anchors.get_mut(&anchor.fingerprint)
                && *entry.der == *anchor.der()
            {
                entry.der = anchor.shared_der();
            }
        }
    }

    /// Adds a certificate that was found to be ours, for its removal. It need not be an anchor by today's rules.
    pub fn adopt_for_removal(&mut self, der: &[u8]) {
        self.anchors.entry(Fingerprint::of_der(der)).or_insert_with(|| LedgerAnchor {
            state: AnchorState::Retired,
            der: der.into(),
            unwanted_since: None,
            settled: true,
            gone: None,
            shared: false,
            copied: false,
            adopted: true,
            verified: false,
        });
    }

    /// Whether it records nothing of ours, so that its file is not needed.
    pub fn is_blank(&self) -> bool {
        let Self {
            old_families,
            anchors,
            sources,
            pending,
            created,
            hooks,
            hook_names,
            distrusted,
            certs_files,
            exports,
            ..
        } = self;
        let no_files_of_ours = created.is_empty() && certs_files.is_empty() && exports.is_empty();
        anchors.is_empty()
            && old_families.is_empty()
            && no_files_of_ours
            && sources.is_empty()
            && !pending
            && hooks.is_empty()
            && hook_names.is_empty()
            && distrusted.is_empty()
    }

    /// What the bundle held at the last good look, None if there was none.
    pub fn bundle(&self) -> Option<BTreeSet<Fingerprint>> {
        let ours = self.anchors.iter().filter(|(_, entry)| entry.settled && entry.gone.is_none());
        let all: BTreeSet<Fingerprint> =
            ours.map(|(fingerprint, _)| *fingerprint).chain(self.foreign.clone()).collect();
        (!all.is_empty()).then_some(all)
    }

    /// Certificates that are not ours and should be in the bundle as far as is known.
    pub fn known_foreign(&self) -> BTreeSet<Fingerprint> {
        &self.foreign | &self.gone
    }

    /// Whether two ledgers say the same, whenever they were written.
    pub fn same_as(&self, other: &Self) -> bool {
        // Field by field, so that no certificate is copied. A new field does not compile until it is listed here.
        let Self {
            version,
            updated: _,
            family,
            anchors,
            sources,
            pending,
            created,
            hooks,
            hook_names,
            distrusted,
            foreign,
            gone,
            gone_since,
            linkless,
            repeated,
            removal_grace,
            fleet_gate,
            changed,
            old_families,
            published,
            begun,
            services,
            attempts,
            certs_files,
            exports,
            witnesses,
            runtime,
            pod,
            registry,
        } = self;
        *version == other.version
            && *family == other.family
            && *anchors == other.anchors
            && *sources == other.sources
            && *pending == other.pending
            && *created == other.created
            && *hooks == other.hooks
            && *hook_names == other.hook_names
            && *distrusted == other.distrusted
            && *foreign == other.foreign
            && *gone == other.gone
            && *gone_since == other.gone_since
            && *linkless == other.linkless
            && *repeated == other.repeated
            && *removal_grace == other.removal_grace
            && *fleet_gate == other.fleet_gate
            && *changed == other.changed
            && *old_families == other.old_families
            && *published == other.published
            && *begun == other.begun
            && *services == other.services
            && *attempts == other.attempts
            && *certs_files == other.certs_files
            && *exports == other.exports
            && *witnesses == other.witnesses
            && *runtime == other.runtime
            && *pod == other.pod
            && *registry == other.registry
    }
}

impl LedgerAnchor {
    /// A new entry for an anchor.
    pub fn new(anchor: &Anchor, state: AnchorState) -> Self {
        Self {
            state,
            der: anchor.shared_der(),
            unwanted_since: None,
            settled: false,
            gone: None,
            shared: false,
            copied: false,
            adopted: false,
            verified: anchor.self_signature() == SelfSignature::Verified,
        }
    }

    /// The certificate; None if the entry was damaged by hand, or is no anchor by today's rules.
    pub fn anchor(&self) -> Option<Anchor> {
        Anchor::from_der(&self.der).ok()
    }

    /// The certificate of this fingerprint.
    ///
    /// # Errors
    /// None: the entry does not hold it. Some: it does, and it is no anchor by today's rules: an older version took what would
    /// break readers of the bundle.
    pub fn decode(&self, fingerprint: &Fingerprint) -> Result<Anchor, Option<AnchorError>> {
        match Anchor::from_der(&self.der) {
            Ok(anchor) if anchor.fingerprint == *fingerprint => {
                if self.verified {
                    anchor.was_verified();
                }
                Ok(anchor)
            }
            Err(refused) if Fingerprint::of_der(&self.der) == *fingerprint => Err(Some(refused)),
            _ => Err(None),
        }
    }
}

/// How the ledger's file holds a certificate.
mod base64 {
    use std::{borrow::Cow, sync::Arc};

    use data_encoding::BASE64;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(der: &Arc<[u8]>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64.encode(der))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<[u8]>, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        Ok(BASE64.decode(text.as_bytes()).unwrap_or_default().into())
    }
}

/// Transitions of the ledger: each one is written down before, or right after, what it tells of.
impl Ledger {
    /// The ledger that is on the host, with what a plan knows of the services and their registry directories.
    pub fn with_services_of(&self, planned: &Self) -> Self {
        Self {
            services: planned.services.clone(),
            published: planned.published.clone(),
            certs_files: planned.certs_files.clone(),
            registry: planned.registry.clone(),
            ..self.clone()
        }
    }

    /// Changes that the store's hooks have not been told of.
    pub fn untold_hooks(&self) -> usize {
        self.hooks.len() + self.hook_names.len()
    }

    /// The store's hooks have been told of every change.
    pub fn hooks_done(&mut self) {
        self.hooks.clear();
        self.hook_names.clear();
    }

    /// A file of ours is about to be written into a registry directory. `missing`: the directories that are made for it.
    pub fn begin_registry_file(&mut self, path: &str, missing: Vec<String>) {
        self.certs_files.insert(path.to_owned());
        self.created.extend(missing);
    }

    /// A file of ours has left a registry directory.
    pub fn forget_registry_file(&mut self, path: &str) {
        self.certs_files.remove(path);
    }

    /// An exported bundle is about to be written. `missing`: the directories that are made for it.
    pub fn begin_export(&mut self, path: &str, missing: Vec<String>) {
        self.exports.insert(path.to_owned());
        self.created.extend(missing);
    }

    /// An exported bundle of ours is gone.
    pub fn forget_export(&mut self, path: &str) {
        self.exports.remove(path);
    }

    /// A restart is about to be tried. The restarts of one cycle count as one try.
    pub fn begin_restart_attempt(&mut self, now: &Moment) {
        self.attempts = with_attempt(&self.attempts, now);
    }

    /// What became of a restart of the last try. One failure makes the whole try a failure.
    pub fn end_restart_attempt(&mut self, outcome: AttemptOutcome) {
        if let Some(last) = self.attempts.last_mut()
            && !matches!(last.outcome, Some(AttemptOutcome::Failed(_)))
        {
            last.outcome = Some(outcome);
        }
    }
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
