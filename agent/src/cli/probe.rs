//! `nodetrust probe`: would programs on this host trust these servers, and if not, why not and what to do.

use nodetrust_core::{
    probe::{BadTarget, Probe, Proxy, Target, Verdict},
    report::Time,
    state::AnchorState,
};
use serde::Serialize;

use super::{
    Context, FAILURE, FINDINGS, OK, USAGE, complain,
    table::{self, Style},
};
use crate::{
    host::root::HostRoot,
    probe::{answer, ask, check_bundle},
    reconcile::Reconciler,
};

/// What the command prints.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Probes {
    /// All of them are.
    trusted: bool,
    probes: Vec<Probe>,
}

pub(super) fn main(context: &Context, targets: &[String], proxy: Option<&str>) -> anyhow::Result<u8> {
    let read = || -> Result<_, BadTarget> {
        let targets = targets.iter().map(|text| Target::parse(text)).collect::<Result<Vec<_>, _>>()?;
        Ok((targets, proxy.map(Proxy::parse).transpose()?))
    };
    let (targets, proxy) = match read() {
        Ok(read) => read,
        Err(error) => {
            complain(&error.to_string());
            return Ok(USAGE);
        }
    };
    let settings = context.rules_if_any()?;
    let root = HostRoot::open(&context.host_root)?;
    if let Err(why) = check_bundle(&root, settings.as_ref()) {
        complain(&why);
        return Ok(FAILURE);
    }
    let mut reconciler = Reconciler::new(&context.host_root)?;
    let report = match &settings {
        Some(settings) => reconciler.inspect(settings),
        None => reconciler.inspect_by_ledger(),
    };
    let behind = report.behind();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let probes: Vec<Probe> = targets
        .iter()
        .map(|target| {
            let presented = runtime.block_on(ask(target, proxy.as_ref()));
            answer(target, &presented, &root, settings.as_ref(), behind.as_ref())
        })
        .collect();
    let probes = Probes { trusted: probes.iter().all(Probe::is_trusted), probes };
    context.print(&probes, |style| {
        let texts: Vec<String> = probes.probes.iter().map(|probe| screen(probe, style)).collect();
        texts.join("\n")
    })?;
    Ok(if probes.trusted { OK } else { FINDINGS })
}

fn screen(probe: &Probe, style: Style) -> String {
    let (verdict, colour) = match probe.verdict {
        Verdict::Trusted => ("TRUSTED", "1;32"),
        Verdict::NotTrustedByRuntime => ("TRUSTED, but not by the runtime yet", "1;33"),
        Verdict::PullsWork => ("PULLS WORK, trust is not proven", "1;33"),
        Verdict::NotTrusted => ("NOT TRUSTED", "1;31"),
        Verdict::NotReached => ("NOT REACHED", "1;31"),
    };
    let mut out = table::answer(&probe.target, (verdict, colour), &probe.text, style);
    for element in &probe.chain {
        let mut text = format!(
            "{} {} ({}, until {}, sha256 {})",
            element.index,
            element.common_name,
            element.key,
            day(element.not_after),
            element.sha256.fp16()
        );
        if element.index + 1 == probe.chain.len() && probe.anchor.is_none() {
            text.push_str(&format!(" – ends here; issuer \"{}\"", element.issuer_common_name));
        }
        out.push_str(&table::labelled(if element.index == 0 { "  chain" } else { "" }, &text, style));
    }
    if let Some(anchor) = &probe.anchor {
        let state = anchor.state.map_or("not one of ours", AnchorState::as_str);
        let mut text = format!(
            "{} (until {}, sha256 {}), {state}",
            anchor.common_name,
            day(anchor.not_after),
            anchor.sha256.fp16()
        );
        if let Some(end) = anchor.grace_end {
            text.push_str(&format!(", leaves {end}"));
        }
        out.push_str(&table::labelled("  anchor", &text, style));
    }
    for note in &probe.notes {
        out.push_str(&table::labelled("  note", note, style));
    }
    for next in &probe.next {
        out.push_str(&table::labelled("  next", next, style));
    }
    out
}

fn day(time: Time) -> String {
    time.to_string().chars().take(10).collect()
}
