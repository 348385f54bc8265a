//! What can be done on a host, with the reasons for it, and how each is told.
//!
//! Each decision has its own type of action, and the agent one executor for it: the trust store ([`StoreAction`]), the services that
//! read it ([`ServiceAction`]), and the bundle for pods ([`PodBundleAction`]). [`Action`] wraps them for reports.

use std::{collections::BTreeSet, fmt};

use serde::Serialize;

use crate::{
    certificate::{fingerprint::Fingerprint, name::shown},
    store::{ExtractMode, Family, distrust::means_at},
    text::plural,
};

/// One thing to do on a host, or that was done, for reports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Action {
    /// In the trust store.
    Store(StoreAction),
    /// For a service that reads the bundle.
    Service(ServiceAction),
    /// For the bundle that pods mount.
    PodBundle(PodBundleAction),
}

impl Action {
    /// Whether it changes nothing but the ledger.
    pub fn only_records(&self) -> bool {
        *self == Self::Store(StoreAction::RecordLedger)
    }
}

impl From<StoreAction> for Action {
    fn from(action: StoreAction) -> Self {
        Self::Store(action)
    }
}

impl From<ServiceAction> for Action {
    fn from(action: ServiceAction) -> Self {
        Self::Service(action)
    }
}

impl From<PodBundleAction> for Action {
    fn from(action: PodBundleAction) -> Self {
        Self::PodBundle(action)
    }
}

/// One change of the trust store, or of what is remembered of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "action", rename_all = "kebab-case")]
pub enum StoreAction {
    /// Write down what is about to be done, so that a crash is noticed.
    RecordLedger,
    /// Make the anchor directory.
    CreateDirectory {
        /// Absolute path.
        path: String,
    },
    /// Remove a temporary file that a killed run left behind.
    RemoveTemporary {
        /// Absolute path.
        path: String,
        /// Whose it was.
        why: &'static str,
    },
    /// Write an anchor file.
    WriteAnchor {
        /// The fingerprint of its certificate.
        sha256: Fingerprint,
        /// Name in the anchor directory.
        file: String,
        /// The reason.
        why: WriteReason,
    },
    /// Remove an anchor file.
    RemoveAnchor {
        /// Name in the anchor directory.
        file: String,
        /// The reason.
        why: RemoveReason,
    },
    /// Remember a file of somebody else's that the configuration names, and remove it.
    AdoptFile {
        /// Its base name in the anchor directory.
        file: String,
        /// The reason.
        why: AdoptReason,
    },
    /// Put a file back that was taken over.
    ReturnFile {
        /// Absolute path.
        path: String,
    },
    /// Distrust a root of the distribution by the distribution's own means.
    DistrustRoot {
        /// Its fingerprint.
        sha256: Fingerprint,
        /// The line of the list that is deselected, or the copy in the blocklist, absolute.
        place: String,
    },
    /// Take that back.
    TrustRoot {
        /// As above.
        place: String,
    },
    /// Run the distribution's tool.
    Extract {
        /// How thoroughly.
        mode: ExtractMode,
        /// Every reason.
        why: BTreeSet<ExtractReason>,
    },
    /// Take everything of ours out of a store that is no longer the node's, as uninstall does there.
    #[serde(rename = "leave-store")]
    RetireStore {
        /// The store.
        family: Family,
        /// Our files in its anchor directory, by name.
        files: BTreeSet<String>,
    },
    /// Tell the store's hooks, e.g. Java's key store, what came and went.
    RunHooks {
        /// The number of changes that they have not been told of.
        changes: usize,
    },
}

impl StoreAction {
    /// Whether the bundle may have another content afterwards.
    pub fn may_change_bundle(&self) -> bool {
        matches!(
            self,
            Self::WriteAnchor { .. }
                | Self::RemoveAnchor { .. }
                | Self::AdoptFile { .. }
                | Self::ReturnFile { .. }
                | Self::DistrustRoot { .. }
                | Self::TrustRoot { .. }
                | Self::Extract { .. }
                | Self::RetireStore { .. }
        )
    }

    /// Whether it is a run of the tool that makes every link anew.
    pub fn is_fresh_extract(&self) -> bool {
        matches!(self, Self::Extract { mode: ExtractMode::Fresh, .. })
    }
}

/// One step after which a service follows the bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "action", rename_all = "kebab-case")]
pub enum ServiceAction {
    /// Write our anchors into the runtime's registry directory.
    WriteRegistryCerts {
        /// Absolute path.
        path: String,
        /// The number of anchors.
        anchors: usize,
    },
    /// Remove our file from a registry directory.
    RemoveRegistryCerts {
        /// Absolute path.
        path: String,
    },
    /// Restart a service that read an earlier bundle.
    Restart {
        /// The unit.
        unit: String,
        /// What its process lacks, or has and should not have.
        why: String,
    },
}

impl ServiceAction {
    /// Whether it is a restart; the others are changes of files.
    pub fn is_restart(&self) -> bool {
        matches!(self, Self::Restart { .. })
    }
}

/// The form of an exported file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExportFormat {
    /// Certificates in PEM, one after the other.
    Pem,
    /// A trust store for Java.
    Pkcs12,
}

impl ExportFormat {
    /// The field of the configuration that names the file.
    pub fn field(self) -> &'static str {
        match self {
            Self::Pem => "export.bundle",
            Self::Pkcs12 => "export.pkcs12",
        }
    }
}

/// One change of a file that pods mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "action")]
pub enum PodBundleAction {
    /// Write it.
    #[serde(rename = "write-export")]
    Write {
        /// Absolute path.
        path: String,
        /// Its form.
        format: ExportFormat,
        /// Certificates that it will have; those in the extracted bundle now, while that is about to change.
        certificates: usize,
    },
    /// Remove one that is no longer asked for.
    #[serde(rename = "remove-export")]
    Remove {
        /// Absolute path.
        path: String,
        /// Its form, where that is to be seen.
        #[serde(skip_serializing_if = "Option::is_none")]
        format: Option<ExportFormat>,
    },
}

/// Why an anchor file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum WriteReason {
    /// It is new.
    New,
    /// We had written it, and it is gone.
    Missing,
    /// It is there with another content, mode, owner or kind.
    Altered,
}

/// Why an anchor file is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RemoveReason {
    /// It left the sources and its grace is over.
    GraceOver,
    /// Policy denies it, or allows only others.
    Denied,
    /// Its name is ours, and it does not hold the certificate of that name.
    Damaged,
    /// An older version took its certificate, which would break readers of the bundle.
    Refused,
    /// Everything of ours is being removed.
    Uninstall,
    /// Its store is no longer the node's.
    StoreLeft,
}

/// Why a file of somebody else's is taken over: what holds for the certificates in it, the weightiest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum AdoptReason {
    /// One has expired, and no source has it: it leaves.
    Expired,
    /// The sources have a newer one of the same name: the old one gets its grace.
    Superseded,
    /// A source has it, or it is in grace: our own file keeps it trusted.
    InSource,
}

/// Why the tool is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExtractReason {
    /// Anchor files change in this plan.
    AnchorsChange,
    /// An earlier change was not seen to be complete.
    Unfinished,
    /// The bundle does not exist or cannot be read.
    BundleMissing,
    /// The bundle lacks an anchor whose file is there.
    AnchorNotInBundle,
    /// The bundle still has an anchor whose file is gone.
    RemovedStillInBundle,
    /// OpenSSL's directory has no link to an anchor.
    LinkMissing,
    /// OpenSSL's directory has lost links to certificates that are not ours.
    ForeignLinkMissing,
    /// OpenSSL or GnuTLS cannot load the bundle.
    BundleBroken,
    /// The bundle holds certificates more than once.
    BundleRepeats,
    /// The bundle holds a private key whose file is gone.
    KeyInBundle,
    /// The bundle lacks certificates that are not ours and whose sources are still there.
    ForeignMissing,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(action) => action.fmt(f),
            Self::Service(action) => action.fmt(f),
            Self::PodBundle(action) => action.fmt(f),
        }
    }
}

impl fmt::Display for StoreAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RecordLedger => write!(f, "record   the ledger"),
            Self::CreateDirectory { path } => write!(f, "create   {path}/"),
            Self::RemoveTemporary { path, why } => write!(f, "remove   {path} ({why})"),
            Self::WriteAnchor { file, why, .. } => {
                let why = match why {
                    WriteReason::New => "new",
                    WriteReason::Missing => "it was deleted",
                    WriteReason::Altered => "it was altered",
                };
                write!(f, "write    {file} ({why})")
            }
            Self::RemoveAnchor { file, why } => {
                let why = match why {
                    RemoveReason::GraceOver => "its grace is over",
                    RemoveReason::Denied => "denied by policy",
                    RemoveReason::Damaged => "it does not hold the certificate that its name says",
                    RemoveReason::Refused => "an older version took it, and it would break readers of the bundle",
                    RemoveReason::Uninstall => "uninstall",
                    RemoveReason::StoreLeft => "its store is no longer the node's",
                };
                write!(f, "remove   {file} ({why})")
            }
            Self::AdoptFile { file, why } => {
                let why = match why {
                    AdoptReason::Expired => "expired; uninstall puts it back",
                    AdoptReason::Superseded => {
                        "a newer certificate of its name is in the sources; uninstall puts it back"
                    }
                    AdoptReason::InSource => "its certificates are ours too; uninstall puts it back",
                };
                write!(f, "adopt    {} ({why})", shown(file))
            }
            Self::ReturnFile { path } => write!(f, "return   {} (it was taken over)", shown(path)),
            Self::DistrustRoot { sha256, place } => {
                write!(f, "distrust {} by {}", sha256.fp16(), shown(&means_at(place)))
            }
            Self::TrustRoot { place } => write!(f, "trust    again what {} distrusts", shown(&means_at(place))),
            Self::Extract { mode, why } => {
                let why: Vec<String> = why.iter().map(ToString::to_string).collect();
                let mode = if *mode == ExtractMode::Fresh { ", thoroughly" } else { "" };
                write!(f, "extract  ({}{mode})", why.join("; "))
            }
            Self::RetireStore { family, files } => {
                let (n, dir) = (files.len(), family.store().anchors_dir);
                write!(f, "leave    the {family} store, which is no longer the node's ({n} of our files in {dir})")
            }
            Self::RunHooks { changes } => write!(f, "hooks    tell the store's hooks of {changes} change(s)"),
        }
    }
}

impl fmt::Display for ServiceAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WriteRegistryCerts { path, anchors } => {
                write!(f, "write    {path} ({})", plural(*anchors, "anchor"))
            }
            Self::RemoveRegistryCerts { path } => write!(f, "remove   {path} (nothing is to be served there)"),
            Self::Restart { unit, why } => write!(f, "restart  {unit} ({why})"),
        }
    }
}

impl fmt::Display for PodBundleAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Write { path, certificates, .. } => {
                write!(f, "export   {path} ({})", plural(*certificates, "certificate"))
            }
            Self::Remove { path, .. } => write!(f, "remove   {path} (no longer named in export)"),
        }
    }
}

impl fmt::Display for ExtractReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AnchorsChange => "anchor files change",
            Self::Unfinished => "an earlier change was not seen to be complete",
            Self::BundleMissing => "there is no bundle",
            Self::AnchorNotInBundle => "the bundle lacks an anchor",
            Self::RemovedStillInBundle => "the bundle still has a removed anchor",
            Self::LinkMissing => "a hash link is missing",
            Self::ForeignLinkMissing => "hash links to certificates that are not ours are missing",
            Self::BundleBroken => "OpenSSL or GnuTLS cannot load the bundle",
            Self::BundleRepeats => "the bundle repeats certificates",
            Self::KeyInBundle => "the bundle holds a private key",
            Self::ForeignMissing => "the bundle has lost certificates that are not ours",
        })
    }
}

/// A kind of drift: what somebody else changed and this plan repairs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Drift {
    /// An anchor file of ours was deleted.
    AnchorDeleted,
    /// An anchor file of ours was changed.
    AnchorAltered,
    /// The extracted bundle was changed.
    Bundle,
    /// A link in OpenSSL's directory was removed.
    Link,
}

impl Drift {
    /// Every kind, for metrics.
    pub const ALL: [Self; 4] = [Self::AnchorDeleted, Self::AnchorAltered, Self::Bundle, Self::Link];

    /// The public name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AnchorDeleted => "anchor-deleted",
            Self::AnchorAltered => "anchor-altered",
            Self::Bundle => "bundle",
            Self::Link => "link",
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Programs read these words.
    #[test]
    fn actions_are_serialised_under_their_public_names() {
        let path = || "/p".to_owned();
        let words = |action: Action| serde_json::to_value(action).unwrap();
        let retire = StoreAction::RetireStore { family: Family::Debian, files: BTreeSet::new() };
        let restart = ServiceAction::Restart { unit: "u".into(), why: "w".into() };
        for (action, expected) in [
            (Action::from(StoreAction::RecordLedger), json!({"action": "record-ledger"})),
            (StoreAction::CreateDirectory { path: path() }.into(), json!({"action": "create-directory", "path": "/p"})),
            (retire.into(), json!({"action": "leave-store", "family": "debian", "files": []})),
            (
                ServiceAction::WriteRegistryCerts { path: path(), anchors: 2 }.into(),
                json!({"action": "write-registry-certs", "path": "/p", "anchors": 2}),
            ),
            (
                StoreAction::AdoptFile { file: "domain.crt".into(), why: AdoptReason::InSource }.into(),
                json!({"action": "adopt-file", "file": "domain.crt", "why": "in-source"}),
            ),
            (StoreAction::ReturnFile { path: path() }.into(), json!({"action": "return-file", "path": "/p"})),
            (
                StoreAction::TrustRoot { place: "mozilla/a.crt".into() }.into(),
                json!({"action": "trust-root", "place": "mozilla/a.crt"}),
            ),
            (restart.into(), json!({"action": "restart", "unit": "u", "why": "w"})),
            (
                PodBundleAction::Write { path: path(), format: ExportFormat::Pkcs12, certificates: 1 }.into(),
                json!({"action": "write-export", "path": "/p", "format": "pkcs12", "certificates": 1}),
            ),
            (
                PodBundleAction::Remove { path: path(), format: None }.into(),
                json!({"action": "remove-export", "path": "/p"}),
            ),
        ] {
            assert_eq!(words(action), expected);
        }
    }
}
