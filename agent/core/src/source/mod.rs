//! From what the sources hold to what is desired.
//!
//! In: one [`Snapshot`] a source, the ledger, the policy. Out: [`Resolved`], the desired anchors and a state for each source.
//! A source that says nothing (missing, empty, unreadable, wholly rejected) never removes: its last good set is held.

pub(crate) mod damage;
mod empty_source;
mod layout;
pub mod policy;
pub mod resolve;

pub use layout::{KubeletVolume, NameList, SourceLayout};

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde::Serialize;

use crate::{
    certificate::{
        anchor::Anchor,
        fingerprint::Fingerprint,
        name::shown,
        pem::{self, Fault, MAX_CERTIFICATES, MAX_FAULTS, RejectReason},
    },
    ledger::{Ledger, LedgerSource},
};

/// One file of a source, decoded. It depends on the bytes only, so that it can be kept while they are the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// Its path, for reports.
    pub file: String,
    /// Certificates with the line that each begins on.
    pub anchors: Vec<(usize, Arc<Anchor>)>,
    /// What is none.
    pub faults: Vec<Fault>,
    /// Harmless oddities.
    pub notes: Vec<String>,
}

impl SourceFile {
    /// A file that was not read because of its size.
    pub fn too_large(file: &str) -> Self {
        let detail = format!("more than the limit of {} bytes; split the file", pem::MAX_FILE_BYTES);
        let fault = Fault { line: 0, reason: RejectReason::TooLarge, detail };
        Self { file: shown(file), anchors: Vec::new(), faults: vec![fault], notes: Vec::new() }
    }

    /// Decodes a file.
    pub fn parse(file: &str, bytes: &[u8]) -> Self {
        let scan = pem::scan(bytes);
        let mut part = Self { file: shown(file), anchors: Vec::new(), faults: scan.faults, notes: scan.notes };
        // one certificate too many is enough to refuse the source
        let blocks = scan.blocks.get(..=MAX_CERTIFICATES).unwrap_or(&scan.blocks);
        for (block, anchor) in blocks.iter().zip(Anchor::from_blocks(blocks)) {
            match anchor {
                Ok(anchor) => part.anchors.push((block.line, Arc::new(anchor))),
                Err(error) => part.faults.push(Fault { line: block.line, reason: error.reason, detail: error.detail }),
            }
        }
        part.faults.sort_by_key(|fault| fault.line);
        if part.faults.len() > MAX_FAULTS {
            part.faults.truncate(MAX_FAULTS);
            let line = part.faults.last().map_or(0, |fault| fault.line);
            let detail = format!("more than {MAX_FAULTS} faults; the rest is not listed");
            part.faults.push(Fault { line, reason: RejectReason::TooMany, detail });
        }
        part
    }
}

/// What a source was found to hold.
#[derive(Debug, Clone)]
pub enum Content {
    /// Its files, none for an empty directory.
    Files(Vec<Arc<SourceFile>>),
    /// Its path does not exist.
    Missing,
    /// Something is there and cannot be read.
    Unreadable(String),
    /// There is more than is read of one source: which limit, and what exactly.
    Excess(RejectReason, String),
}

/// A source at one moment.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Its name in the configuration.
    pub name: String,
    /// Where it comes from, for people: a path, or `inline`.
    pub origin: String,
    /// A missing path is expected.
    pub optional: bool,
    /// What was found.
    pub content: Content,
    /// How its files lie there.
    pub layout: SourceLayout,
    /// What people should know about how it is mounted.
    pub notes: Vec<String>,
}

impl Snapshot {
    /// The anchors that were read.
    pub(crate) fn anchors(&self) -> impl Iterator<Item = &Anchor> {
        let parts = match &self.content {
            Content::Files(parts) => parts.as_slice(),
            _ => &[],
        };
        parts.iter().flat_map(|part| &part.anchors).map(|(_, anchor)| &**anchor)
    }

    /// What the ledger remembers of a source, for looking at a host without its configuration.
    pub fn remembered(name: &str, source: &LedgerSource, ledger: &Ledger) -> Self {
        let anchors = source.anchors.iter().filter_map(|fingerprint| ledger.anchors.get(fingerprint)?.anchor());
        let part = SourceFile {
            file: "ledger".to_owned(),
            anchors: anchors.map(|anchor| (0, Arc::new(anchor))).collect(),
            faults: Vec::new(),
            notes: Vec::new(),
        };
        let content = Content::Files(vec![Arc::new(part)]);
        Self {
            name: name.to_owned(),
            origin: "as the ledger remembers it".to_owned(),
            optional: false,
            content,
            layout: SourceLayout::default(),
            notes: Vec::new(),
        }
    }
}

/// The state of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceStatus {
    /// It speaks, and is followed.
    Ok,
    /// It says nothing usable; its last good set stays in force.
    Held,
    /// Optional, missing, and never seen: it says nothing.
    Absent,
    /// It says nothing usable, and there is no earlier set to hold.
    Failed,
}

impl SourceStatus {
    /// The public name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Held => "held",
            Self::Absent => "absent",
            Self::Failed => "failed",
        }
    }
}

/// A source after its resolution.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceState {
    /// Its name.
    pub name: String,
    /// Where it comes from.
    pub origin: String,
    /// Its state.
    pub status: SourceStatus,
    /// By the ledger it has never given an anchor on this node, and it is not optional: what it would want is not there yet.
    pub awaited: bool,
    /// The anchors that it puts in force.
    pub anchors: BTreeSet<Fingerprint>,
    /// Why it is not `ok`, or what is odd.
    pub detail: String,
    /// What was not accepted.
    pub rejections: Vec<Rejection>,
    /// Harmless oddities.
    pub notes: Vec<String>,
}

/// A block, file or certificate that was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rejection {
    /// The file.
    pub file: String,
    /// The line, 0 for the file as a whole.
    pub line: usize,
    /// The reason.
    pub reason: RejectReason,
    /// What exactly.
    pub detail: String,
    /// Whom it names, if it could be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Its fingerprint, if it could be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Fingerprint>,
}

/// An anchor that is desired.
#[derive(Debug, Clone)]
pub struct DesiredAnchor {
    /// The certificate.
    pub anchor: Arc<Anchor>,
    /// The sources that want it.
    pub sources: BTreeSet<String>,
    /// What is odd about it.
    pub warnings: Vec<String>,
}

/// What the sources want, taken together.
#[derive(Debug, Clone, Default)]
pub struct Resolved {
    /// The desired anchors.
    pub desired: BTreeMap<Fingerprint, DesiredAnchor>,
    /// The sources, in the order of the configuration.
    pub sources: Vec<SourceState>,
}

impl Resolved {
    /// Whether anything was rejected or held, which `apply` and `status` report.
    pub fn has_findings(&self) -> bool {
        self.sources.iter().any(|source| {
            !source.rejections.is_empty() || matches!(source.status, SourceStatus::Held | SourceStatus::Failed)
        })
    }
}

/// The anchors of one source that are accepted, with what is odd about each.
type Accepted = BTreeMap<Fingerprint, (Arc<Anchor>, Vec<String>)>;

#[cfg(test)]
mod tests;
