//! `nodetrust topology --approve-removal`: says whether anchors in grace may leave, and writes it where every agent reads it.

use anyhow::bail;
use nodetrust_core::{
    fleet::removal::APPROVALS_CONFIG_MAP,
    text::plural,
    topology::{RemovalDecision, RemovalRequest, RemovalVerdict, decide_removal},
};
use serde::Serialize;

use super::{
    cluster::Cluster,
    config_map::WriteEnd,
    screen::{finding_lines, short_digest},
};
use crate::{
    cli::{
        context::Context,
        exit_code::{FINDINGS, OK},
        stdio::complain,
    },
    text::{
        colour::Style,
        wrap::{answer, labelled, section},
    },
};

/// How often the ConfigMap is read anew because somebody else has written it meanwhile.
const CONFLICTS: usize = 5;

/// The result for programs.
#[derive(Serialize)]
struct ApprovalReport<'a> {
    #[serde(flatten)]
    decision: &'a RemovalDecision,
    /// The ConfigMap was changed.
    written: bool,
}

/// Decides about a request, writes the approvals, and prints both.
pub(super) async fn approve(
    context: &Context,
    cluster: &Cluster,
    request: &RemovalRequest,
    force: bool,
) -> anyhow::Result<u8> {
    let decision = decide_removal(cluster.members().await?, request, force, crate::host::wall());
    let written = decision.is_effective() && write(cluster, &decision).await?;
    let report = ApprovalReport { decision: &decision, written };
    context.print(&report, |style| screen(cluster, &decision, written, style))?;
    Ok(if decision.verdict == RemovalVerdict::Refused { FINDINGS } else { OK })
}

/// Writes what was decided, and says whether anything had to be written.
async fn write(cluster: &Cluster, decision: &RemovalDecision) -> anyhow::Result<bool> {
    for _ in 0..CONFLICTS {
        let known = cluster.approvals().await?;
        if let Some(why) = &known.damaged {
            complain(&format!("the approvals that were there cannot be read, and are written anew: {why}"));
        }
        let next = match decision.merge(&known.approvals, crate::host::wall()) {
            None if known.damaged.is_none() => return Ok(false),
            None => known.approvals.clone(),
            Some(next) => next,
        };
        if cluster.write_approvals(known, &next).await? == WriteEnd::Written {
            return Ok(true);
        }
    }
    bail!(
        "failed to write the ConfigMap {}/{APPROVALS_CONFIG_MAP}: somebody else wrote it {CONFLICTS} times meanwhile; see who, by its \
         managedFields, and try again",
        cluster.namespace
    )
}

fn screen(cluster: &Cluster, decision: &RemovalDecision, written: bool, style: Style) -> String {
    let verdict = match decision.verdict {
        RemovalVerdict::Approved => ("APPROVED", "1;32"),
        RemovalVerdict::Overridden => ("APPROVED BY FORCE", "1;33"),
        RemovalVerdict::Refused => ("REFUSED", "1;31"),
        RemovalVerdict::NothingToDo => ("NOTHING TO APPROVE", "1"),
    };
    let mut out = answer(&cluster.name, verdict, &decision.headline, style);
    let anchors = decision.anchors.iter().map(|anchor| {
        let sets: Vec<String> = anchor.desired_digests.iter().map(|digest| short_digest(&digest.to_string())).collect();
        let text = format!(
            "{} leaves {} that {} it in grace, where the sources want the set {}",
            anchor.called(),
            plural(anchor.in_grace, "node"),
            if anchor.in_grace == 1 { "has" } else { "have" },
            sets.join(" or "),
        );
        labelled("REMOVAL", &text, style)
    });
    section(&mut out, &anchors.collect::<String>());
    let (mut lines, mut nexts) = finding_lines(&decision.blocking, style);
    if decision.verdict == RemovalVerdict::Overridden {
        nexts = vec!["watch `nodetrust topology`: what was overridden is listed above"];
    } else if decision.verdict == RemovalVerdict::Refused && !decision.blocking.is_empty() {
        nexts.push("approve again when nothing is in the way; --force approves all the same");
    } else if decision.is_effective() {
        nexts = match (decision.verdict, written) {
            (RemovalVerdict::Approved, true) => {
                vec!["the agents follow within two minutes, each when its own grace is over and its runtime follows"]
            }
            (RemovalVerdict::Approved, false) => vec!["nothing to do: it is approved already"],
            _ => vec!["nothing to do"],
        };
    }
    for next in nexts {
        lines.push_str(&labelled("NEXT", next, style));
    }
    section(&mut out, &lines);
    out
}
