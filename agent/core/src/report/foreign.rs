//! What people should know of files that are not ours.

use super::model::ForeignRow;
use crate::{
    certificate::name::{sentence, shown},
    observed::{Hazard, Observed},
    plan::Plan,
    time::{Moment, Time},
};

/// The files in the anchor directory that are not ours and that are worth a word.
pub(super) fn foreign_rows(observed: &Observed, plan: Option<&Plan>, now: &Moment) -> Vec<ForeignRow> {
    let mut rows = Vec::new();
    let mut add = |path: &str, text: String| rows.push(ForeignRow { path: shown(path), text: sentence(&text) });
    for file in &observed.foreign {
        match &file.hazard {
            Some(Hazard::PrivateKey(line)) => {
                add(&file.path, format!("line {line}: a private key lies in the anchor directory"))
            }
            Some(Hazard::Broken(fault) | Hazard::BrokenGnuTls(fault)) => {
                add(&file.path, format!("line {}: {}", fault.line, fault.detail));
            }
            None => {}
        }
        for anchor in &file.anchors {
            let Some(plan) = plan else { continue };
            let same_name = plan.targets.values().find(|target| {
                target.anchor.subject.raw == anchor.subject.raw && target.anchor.fingerprint != anchor.fingerprint
            });
            let name = &anchor.subject.common;
            let expired = anchor.not_after < now.wall;
            if plan.retired.contains(&anchor.fingerprint) {
                add(
                    &file.path,
                    format!(
                        "a copy of {name} ({}), which is retired or denied, keeps it trusted; not ours, so it stays: remove it by hand",
                        anchor.fingerprint.fp16()
                    ),
                );
            } else if let Some(same) = same_name {
                let expiry = if expired { format!("expired {}, ", Time(anchor.not_after)) } else { String::new() };
                add(
                    &file.path,
                    format!(
                        "{expiry}same subject as {} ({}) and another key or certificate: left by a node template?",
                        name,
                        same.anchor.fingerprint.fp16()
                    ),
                );
            } else if expired {
                add(&file.path, format!("{name} expired {}", Time(anchor.not_after)));
            }
        }
        if file.taken && file.anchors.len() > 1 && observed.store.pastes_files {
            add(
                &file.path,
                format!(
                    "{} certificates in one file: OpenSSL's directory gets a link to none of them",
                    file.anchors.len()
                ),
            );
        }
    }
    rows
}
