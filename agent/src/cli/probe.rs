//! `nodetrust probe`: would programs on this host trust these servers, and if not, why not and what to do.

use std::time::Duration;

use nodetrust_core::{
    certificate::name,
    ledger::AnchorState,
    probe::{BadTarget, Probe, ProbeVerdict, Proxy, Target},
    report::Report,
    runtime::registry::Registry,
};
use serde::Serialize;

use super::{
    arguments::ProbedThrough,
    context::Context,
    exit_code::{FAILURE, FINDINGS, OK, USAGE},
    stdio::complain,
};
use crate::{
    config::Settings,
    host::root::HostRoot,
    probe::{answer, ask, check_bundle},
    reconcile::Reconciler,
    runtime::witness::{self, Asked, Subject},
    text::{
        colour::Style,
        time::day,
        wrap::{answer as answer_line, labelled},
    },
};

/// How long a cycle that is running is waited for, before the answer goes untold to `status`.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the command prints.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Probes {
    /// All of them are.
    trusted: bool,
    probes: Vec<Probe>,
}

pub(super) fn main(
    context: &Context,
    targets: &[String],
    proxy: Option<&str>,
    through: ProbedThrough,
) -> anyhow::Result<u8> {
    let probes = match through {
        ProbedThrough::Host => through_host(context, targets, proxy)?,
        ProbedThrough::Runtime if proxy.is_some() => {
            complain("--via-proxy does not go with --through runtime, which uses the proxy in its own environment");
            return Ok(USAGE);
        }
        ProbedThrough::Runtime => through_runtime(context, targets)?,
    };
    let probes = match probes {
        Ok(probes) => Probes { trusted: probes.iter().all(Probe::is_trusted), probes },
        Err(code) => return Ok(code),
    };
    context.print(&probes, |style| {
        let texts: Vec<String> = probes.probes.iter().map(|probe| screen(probe, style)).collect();
        texts.join("\n")
    })?;
    Ok(if probes.trusted { OK } else { FINDINGS })
}

/// What programs on the host make of the targets, or an exit code.
fn through_host(context: &Context, targets: &[String], proxy: Option<&str>) -> anyhow::Result<Result<Vec<Probe>, u8>> {
    let read = || -> Result<_, BadTarget> {
        let targets = targets.iter().map(|text| Target::parse(text)).collect::<Result<Vec<_>, _>>()?;
        Ok((targets, proxy.map(Proxy::parse).transpose()?))
    };
    let (targets, proxy) = match read() {
        Ok(read) => read,
        Err(error) => {
            complain(&error.to_string());
            return Ok(Err(USAGE));
        }
    };
    let settings = context.rules_if_any()?;
    let root = HostRoot::open(&context.host_root)?;
    if let Err(why) = check_bundle(&root, settings.as_ref()) {
        complain(&why);
        return Ok(Err(FAILURE));
    }
    let (report, _) = inspect(context, settings.as_ref())?;
    let behind = report.behind();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let probe = |target: &Target| {
        let presented = runtime.block_on(ask(target, proxy.as_ref()));
        answer(target, &presented, &root, settings.as_ref(), behind.as_ref())
    };
    Ok(Ok(targets.iter().map(probe).collect()))
}

/// What the container runtime says when it is asked about the targets, or an exit code.
fn through_runtime(context: &Context, targets: &[String]) -> anyhow::Result<Result<Vec<Probe>, u8>> {
    // a registry's name is enough, as images have it
    let read =
        |text: &String| Target::parse(text).map(|target| Registry::of(&target)).or_else(|_| Registry::parse(text));
    let registries = match targets.iter().map(read).collect::<Result<Vec<_>, _>>() {
        Ok(registries) => registries,
        Err(why) => {
            complain(&why);
            return Ok(Err(USAGE));
        }
    };
    let settings = context.rules_if_any()?;
    let root = HostRoot::open(&context.host_root)?;
    let (report, subject) = inspect(context, settings.as_ref())?;
    let Some(subject) = subject else {
        let why = match &report.runtime {
            Some(runtime) => {
                format!("{} cannot be asked: it is {}", runtime.unit, runtime.sick.as_ref().unwrap_or(&runtime.state))
            }
            None => "no container runtime was found on this node".to_owned(),
        };
        return Ok(Ok(targets.iter().map(|target| Probe::without_runtime(&name::shown(target), &why)).collect()));
    };
    let asked: Vec<Asked> =
        registries.iter().map(|registry| witness::ask(&root, settings.as_ref(), &subject, registry)).collect();
    if let Err(error) = witness::remember(&root, &asked, PATIENCE) {
        // the answer is told all the same
        complain(&format!("what the runtime answered could not be written down for `nodetrust status`: {error}"));
    }
    let named = |(target, asked): (&String, Asked)| Probe { target: name::shown(target), ..asked.probe };
    Ok(Ok(targets.iter().zip(asked).map(named).collect()))
}

/// What `status` says, and the runtime that can be asked.
fn inspect(context: &Context, settings: Option<&Settings>) -> anyhow::Result<(Report, Option<Subject>)> {
    let mut reconciler = Reconciler::new(&context.host_root)?;
    let report = match settings {
        Some(settings) => reconciler.inspect(settings),
        None => reconciler.inspect_by_ledger(),
    };
    let subject = reconciler.subject().cloned();
    Ok((report, subject))
}

fn screen(probe: &Probe, style: Style) -> String {
    let (verdict, colour) = match probe.verdict {
        ProbeVerdict::Trusted => ("TRUSTED", "1;32"),
        ProbeVerdict::NotTrustedByRuntime => ("TRUSTED, but not by the runtime yet", "1;33"),
        ProbeVerdict::PullsWork => ("PULLS WORK, trust is not proven", "1;33"),
        ProbeVerdict::NotTrusted => ("NOT TRUSTED", "1;31"),
        ProbeVerdict::NotReached => ("NOT REACHED", "1;31"),
    };
    let mut out = answer_line(&probe.target, (verdict, colour), &probe.text, style);
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
        out.push_str(&labelled(if element.index == 0 { "  chain" } else { "" }, &text, style));
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
        out.push_str(&labelled("  anchor", &text, style));
    }
    for note in &probe.notes {
        out.push_str(&labelled("  note", note, style));
    }
    for next in &probe.next {
        out.push_str(&labelled("  next", next, style));
    }
    out
}
