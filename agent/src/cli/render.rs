//! `nodetrust render`: the anchors as configuration for the first boot, and whether a template carries them.

use std::{fmt::Write as _, path::PathBuf};

use nodetrust_core::{
    certificate::name::visible,
    ledger::Ledger,
    render::{
        self, FirstBoot, RenderFormat,
        check::{TemplateCheck, TemplateDifference, TemplateVerdict},
        find::{self, MAX_TEMPLATE_BYTES},
    },
    source::{Resolved, SourceStatus, policy::Circumstances, resolve::resolve},
    text::plural,
};
use serde::Serialize;

use super::{
    context::Context,
    exit_code::{FINDINGS, OK},
    stdio::{complain, name_of, read_file, write_out},
};
use crate::{
    config::Settings,
    host::wall,
    sources::SourceReader,
    text::{colour::Style, report::rejection_text, time::day, wrap::labelled},
};

#[derive(Serialize)]
struct TemplateChecks {
    files: Vec<TemplateCheck>,
}

/// Prints the set in a format.
pub(super) fn main(context: &Context, format: RenderFormat) -> anyhow::Result<u8> {
    if !format.holds_anchors() {
        write_out(&render::apply_unit())?;
        return Ok(OK);
    }
    let settings = context.settings()?;
    let resolved = read_sources(&settings)?;
    let set = FirstBoot::new(&resolved, &settings.policy, settings.family);
    write_out(&render::render(&set, format))?;
    Ok(OK)
}

/// Compares templates with the set.
pub(super) fn check(context: &Context, files: &[PathBuf]) -> anyhow::Result<u8> {
    let settings = context.settings()?;
    let resolved = read_sources(&settings)?;
    let now = wall();
    let check = |path: &PathBuf| -> anyhow::Result<TemplateCheck> {
        let found = find::find(&read_file(path, MAX_TEMPLATE_BYTES)?);
        Ok(render::check::check(&name_of(path), found, &resolved, &settings.policy, now))
    };
    let checks = TemplateChecks { files: files.iter().map(check).collect::<anyhow::Result<_>>()? };
    context.print(&checks, |style| screen(&checks, style))?;
    let all_current = checks.files.iter().all(|check| check.verdict == TemplateVerdict::Current);
    Ok(if all_current { OK } else { FINDINGS })
}

/// What the sources want, from them alone: new nodes have no ledger, so nothing is held from earlier. What was not accepted is told
/// on stderr.
fn read_sources(settings: &Settings) -> anyhow::Result<Resolved> {
    let snapshots = SourceReader::default().read(settings);
    let drops_not_ca = settings.family.map(|family| family.store().drops_not_ca);
    let at = Circumstances { drops_not_ca, installed: &|_| false, now: wall() };
    let resolved = resolve(&snapshots, &Ledger::new(), &settings.policy, at);
    for source in &resolved.sources {
        for rejection in &source.rejections {
            complain(&format!("source {}: rejected: {}", source.name, rejection_text(rejection)));
        }
        if source.status == SourceStatus::Absent {
            complain(&format!("source {}: {}", source.name, source.detail));
        }
    }
    let failed: Vec<String> = resolved
        .sources
        .iter()
        .filter(|source| !matches!(source.status, SourceStatus::Ok | SourceStatus::Absent))
        .map(|source| format!("source {} ({}): {}", source.name, source.origin, source.detail))
        .collect();
    if !failed.is_empty() {
        anyhow::bail!(
            "cannot tell what new nodes are to trust: {}; correct the source, or make it optional",
            failed.join("; ")
        );
    }
    if resolved.desired.is_empty() {
        anyhow::bail!("the sources hold no certificate, so there is nothing to trust; put one into a source");
    }
    Ok(resolved)
}

fn screen(checks: &TemplateChecks, style: Style) -> String {
    let mut out = String::new();
    for check in &checks.files {
        let (word, colour) = match check.verdict {
            TemplateVerdict::Current => ("CURRENT", "32"),
            TemplateVerdict::Expired => ("EXPIRED", "31"),
            TemplateVerdict::Outdated => ("OUTDATED", "31"),
            TemplateVerdict::Empty => ("EMPTY", "31"),
        };
        let certificates = plural(check.certificates, "certificate");
        // writing to a `String` cannot fail
        let _ = writeln!(out, "{}   {}   {certificates}", visible(&check.file), style.paint(colour, word));
        check.missing.iter().for_each(|row| out.push_str(&difference('+', row)));
        check.extra.iter().for_each(|row| out.push_str(&difference('-', row)));
        check.notes.iter().for_each(|note| out.push_str(&labelled("NOTE", note, style)));
    }
    if checks.files.iter().any(|check| check.verdict != TemplateVerdict::Current) {
        out.push_str(&labelled(
            "NEXT",
            "make it carry the certificates with + and none with -: nodetrust render FORMAT prints them anew",
            style,
        ));
    }
    out
}

/// A line of the difference between a template and the set.
fn difference(sign: char, row: &TemplateDifference) -> String {
    let end = day(row.not_after);
    let end = if row.expired { format!("expired {end}") } else { format!("until {end}") };
    let detail = row.detail.as_ref().map(|detail| format!("   {detail}")).unwrap_or_default();
    format!("{sign} {}  {}   {end}{}\n", row.sha256, visible(&row.common_name), visible(&detail))
}
