//! `nodetrust inspect`: what would be made of these files.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use nodetrust_core::{
    certificate::{anchor::Anchor, fingerprint::Fingerprint, name::visible, namesake::Others, pem::MAX_FILE_BYTES},
    ledger::AnchorState,
    observed::Effective,
    parallel::in_shares,
    report::{AnchorRow, anchor_row},
    source::{
        Rejection, SourceFile,
        policy::{Circumstances, Policy, judge},
    },
    store::TrustStore,
};
use serde::Serialize;

use super::{
    context::Context,
    exit_code::{FINDINGS, OK},
    stdio::{name_of, read_file},
};
use crate::{
    host::{ledger_file, root::HostRoot},
    sources,
    store::{detect, namesakes},
    text::{
        colour::Style,
        report::rejection_text,
        table::{columns, narrow, row},
        time::day,
        wrap::labelled,
    },
};

#[derive(Serialize)]
struct Inspection {
    files: Vec<File>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct File {
    file: String,
    certificates: Vec<Certificate>,
    rejections: Vec<Rejection>,
    notes: Vec<String>,
    /// It is a directory, whose files have entries of their own.
    #[serde(skip)]
    is_directory: bool,
}

#[derive(Serialize)]
struct Certificate {
    line: usize,
    /// Subject and issuer are one name, as of roots.
    #[serde(skip)]
    is_self_issued: bool,
    #[serde(flatten)]
    row: AnchorRow,
}

pub(super) fn main(context: &Context, files: &[PathBuf]) -> anyhow::Result<u8> {
    let settings = context.rules_if_any()?;
    let policy = settings.as_ref().map_or_else(Policy::default, |settings| settings.policy.clone());
    // on a machine that is no node the store is unknown; what some stores drop is then a warning
    let host = HostRoot::open(&context.host_root).ok().and_then(|root| {
        let wanted = settings.as_ref().and_then(|settings| settings.family);
        let (_, detection) = detect::system(&root, wanted);
        let store = detection.family.ok()?.store();
        Some((root, store))
    });
    let drops_not_ca = host.as_ref().map(|(_, store)| store.drops_not_ca);
    let others = host.map(|(root, store)| others(&root, store)).unwrap_or_default();
    let now = crate::host::wall();
    let at = Circumstances { drops_not_ca, installed: &|_| false, now };
    let listed = files.iter().map(|path| Argument::of(path)).collect::<anyhow::Result<Vec<_>>>()?;
    let files: Vec<PathBuf> = listed.iter().flat_map(|argument| argument.files.clone()).collect();
    let files = files.as_slice();
    // standard input comes when it comes: one after the other then, and no further than the first error
    let files: anyhow::Result<Vec<File>> = match files.iter().any(|path| path == Path::new("-")) {
        true => files.iter().map(|path| inspect(path, &policy, at, &others)).collect(),
        false => {
            let each =
                in_shares(files, 1, |share| share.iter().map(|path| inspect(path, &policy, at, &others)).collect());
            each.into_iter().collect()
        }
    };
    let mut inspected = files?.into_iter();
    let files = listed.into_iter().flat_map(|Argument { directory, files }| {
        let files: Vec<File> = inspected.by_ref().take(files.len()).collect();
        directory.into_iter().chain(files).collect::<Vec<_>>()
    });
    let inspection = Inspection { files: files.collect() };
    context.print(&inspection, |style| screen(&inspection, now, style))?;
    let clean = inspection.files.iter().all(|file| file.rejections.is_empty());
    Ok(if clean { OK } else { FINDINGS })
}

fn screen(inspection: &Inspection, now: i64, style: Style) -> String {
    let accepted: usize = inspection.files.iter().map(|file| file.certificates.len()).sum();
    let rejected: usize = inspection.files.iter().map(|file| file.rejections.len()).sum();
    let mut out = format!("{accepted} accepted, {rejected} rejected\n");
    for file in &inspection.files {
        let mut rows = vec![row(["LINE", "CERTIFICATE", "SHA-256", "KEY", "NOT AFTER", "ISSUER"])];
        for certificate in &file.certificates {
            let anchor = &certificate.row;
            let expiry = match anchor.not_after.0 < now {
                true => format!("{} (expired)", day(anchor.not_after)),
                false => day(anchor.not_after),
            };
            let line = match certificate.line {
                0 => "DER".to_owned(),
                line => line.to_string(),
            };
            let issuer = if certificate.is_self_issued { "itself" } else { &anchor.issuer_common_name };
            rows.push(row([&line, &anchor.common_name, &anchor.sha256.fp16(), &anchor.key, &expiry, issuer]));
        }
        let _ = write!(out, "\n{}\n", style.paint("1", &visible(&file.file))); // writing to a `String` cannot fail
        if rows.len() > 1 {
            narrow(&mut rows, 1, style);
            out.push_str(&columns(&rows, style));
        }
        for certificate in &file.certificates {
            for warning in &certificate.row.warnings {
                out.push_str(&labelled(
                    "NOTE",
                    &format!("line {}: {}: {warning}", certificate.line, certificate.row.common_name),
                    style,
                ));
            }
        }
        for note in &file.notes {
            out.push_str(&labelled("NOTE", note, style));
        }
        for rejection in &file.rejections {
            out.push_str(&labelled("REJECTED", &rejection_text(rejection), style));
        }
        if file.certificates.is_empty() && file.rejections.is_empty() && !file.is_directory {
            out.push_str("empty: it says nothing\n");
        }
    }
    out
}

/// What one argument stands for: a file for itself, a directory for the files that a source at its path has.
struct Argument {
    /// What there is to say of a directory.
    directory: Option<File>,
    files: Vec<PathBuf>,
}

impl Argument {
    fn of(path: &Path) -> anyhow::Result<Self> {
        use anyhow::Context as _;
        let itself = || Self { directory: None, files: vec![path.to_owned()] };
        if path == Path::new("-") || !path.is_dir() {
            return Ok(itself());
        }
        let listed = sources::files_in(path).with_context(|| format!("failed to read `{}`", path.display()))?;
        let Some((files, layout)) = listed else { return Ok(itself()) }; // a file since
        let empty = files.is_empty().then(|| layout.emptiness());
        let notes: Vec<String> = empty.into_iter().chain(layout.passed_over()).collect();
        let file = path.display().to_string();
        let directory = File { file, certificates: Vec::new(), rejections: Vec::new(), notes, is_directory: true };
        Ok(Self { directory: (!directory.notes.is_empty()).then_some(directory), files })
    }
}

/// What is in this host's bundle and not ours.
fn others(root: &HostRoot, store: &TrustStore) -> Others {
    let ledger = match ledger_file::read(root) {
        Ok(ledger_file::LedgerRead::Good(ledger)) => ledger,
        _ => Arc::default(),
    };
    let is_foreign = |print: &Fingerprint| ledger.anchors.get(print).is_none_or(|entry| entry.shared);
    namesakes::others(root, store, &Effective::default(), is_foreign)
}

fn inspect(path: &Path, policy: &Policy, at: Circumstances<'_>, others: &Others) -> anyhow::Result<File> {
    let (name, bytes) = (name_of(path), read_file(path, MAX_FILE_BYTES)?);
    let part = match bytes.len() > MAX_FILE_BYTES {
        true => SourceFile::too_large(&name),
        false => SourceFile::parse(&name, &bytes),
    };
    let mut file = File {
        file: name.clone(),
        certificates: Vec::new(),
        rejections: Vec::new(),
        notes: part.notes,
        is_directory: false,
    };
    let mut seen = BTreeSet::new();
    for fault in part.faults {
        file.rejections.push(Rejection {
            file: name.clone(),
            line: fault.line,
            reason: fault.reason,
            detail: fault.detail,
            subject: None,
            sha256: None,
        });
    }
    Anchor::check_signatures(&part.anchors.iter().map(|(_, anchor)| &**anchor).collect::<Vec<_>>());
    for (line, anchor) in part.anchors {
        match judge(&anchor, policy, at) {
            Ok(mut warnings) => {
                warnings.extend(others.warning(&anchor));
                if !seen.insert(anchor.fingerprint) {
                    warnings.push("the same certificate stands above; it is installed once".into());
                }
                let row = AnchorRow { warnings, ..anchor_row(&anchor, AnchorState::Desired, false) };
                let is_self_issued = anchor.issuer == anchor.subject;
                file.certificates.push(Certificate { line, is_self_issued, row });
            }
            Err((reason, detail)) => file.rejections.push(Rejection {
                file: name.clone(),
                line,
                reason,
                detail,
                subject: Some(anchor.subject.text.clone()),
                sha256: Some(anchor.fingerprint),
            }),
        }
    }
    file.rejections.sort_by_key(|rejection| rejection.line);
    Ok(file)
}
