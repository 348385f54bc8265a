//! Whether a template carries the set that the sources want.

use std::{collections::BTreeMap, sync::Arc};

use serde::Serialize;

use super::find::FoundCertificates;
use crate::{
    certificate::{anchor::Anchor, fingerprint::Fingerprint},
    source::{Resolved, policy::Policy},
    time::Time,
};

/// What a template is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum TemplateVerdict {
    /// It has the set, and nothing else.
    Current,
    /// It has a certificate that has expired and that the sources do not want.
    Expired,
    /// It has another set: fewer certificates, or others.
    Outdated,
    /// It has no certificate.
    Empty,
}

/// A certificate in which a template and the set differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TemplateDifference {
    /// Its identity.
    pub sha256: Fingerprint,
    /// Its common name.
    pub common_name: String,
    /// End of validity.
    pub not_after: Time,
    /// It has expired.
    pub expired: bool,
    /// What is known of it beyond that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// A template, compared with the set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TemplateCheck {
    /// The file.
    pub file: String,
    /// The answer.
    pub verdict: TemplateVerdict,
    /// How many certificates it has.
    pub certificates: usize,
    /// What the sources want and it does not have.
    pub missing: Vec<TemplateDifference>,
    /// What it has and the sources do not want.
    pub extra: Vec<TemplateDifference>,
    /// What could not be read, and what does not count.
    pub notes: Vec<String>,
}

/// Compares what was found in a file with what the sources want, at a time in seconds since the epoch.
pub fn check(file: &str, found: FoundCertificates, resolved: &Resolved, policy: &Policy, now: i64) -> TemplateCheck {
    let wanted: BTreeMap<Fingerprint, &Arc<Anchor>> =
        resolved.desired.iter().map(|(print, wanted)| (*print, &wanted.anchor)).collect();
    let missing: Vec<TemplateDifference> = wanted
        .iter()
        .filter(|(print, _)| !found.anchors.contains_key(print))
        .map(|(_, anchor)| difference(anchor, None, now))
        .collect();
    let extra: Vec<TemplateDifference> = found
        .anchors
        .iter()
        .filter(|(print, _)| !wanted.contains_key(print))
        .map(|(_, anchor)| difference(anchor, detail_of_extra(anchor, &wanted, policy), now))
        .collect();
    let verdict = match (found.anchors.is_empty(), missing.is_empty() && extra.is_empty()) {
        (true, _) => TemplateVerdict::Empty,
        (false, true) => TemplateVerdict::Current,
        (false, false) if extra.iter().any(|row| row.expired) => TemplateVerdict::Expired,
        (false, false) => TemplateVerdict::Outdated,
    };
    let certificates = found.anchors.len();
    TemplateCheck { file: file.to_owned(), verdict, certificates, missing, extra, notes: found.notes }
}

fn difference(anchor: &Anchor, detail: Option<String>, now: i64) -> TemplateDifference {
    TemplateDifference {
        sha256: anchor.fingerprint,
        common_name: anchor.subject.common.clone(),
        not_after: Time(anchor.not_after),
        expired: anchor.not_after < now,
        detail,
    }
}

/// Why a certificate is not wanted, as far as it can be told.
fn detail_of_extra(anchor: &Anchor, wanted: &BTreeMap<Fingerprint, &Arc<Anchor>>, policy: &Policy) -> Option<String> {
    if policy.denied.contains(&anchor.fingerprint) {
        return Some("denied (policy.deniedFingerprints)".to_owned());
    }
    if policy.forbids(&anchor.fingerprint) {
        return Some("not allowed (policy.allowedFingerprints)".to_owned());
    }
    let successor = wanted.iter().find(|(_, other)| other.subject.raw == anchor.subject.raw);
    successor.map(|(print, _)| format!("same subject as {}, which the sources want", print.fp16()))
}
