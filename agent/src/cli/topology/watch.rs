//! `nodetrust topology --watch`: a rotation as it goes, until every node is done or something stops it.

use std::{
    io::{IsTerminal, Write},
    time::Duration,
};

use nodetrust_core::{
    text::plural,
    time::Time,
    topology::{RotationPace, RotationProgress, fleet},
};
use tokio::time::{Instant, sleep};

use super::cluster::Cluster;
use crate::{
    cli::{
        arguments::OutputFormat,
        context::Context,
        exit_code::{FINDINGS, OK},
        stdio::{complain, write_out},
    },
    host,
};

/// Pause between two looks; longer where a look takes long, so that the API server works for us a tenth of the time at most.
const PAUSE: Duration = Duration::from_secs(5);
const SHARE: u32 = 10;
/// Width of the bar, in characters.
const BAR: usize = 30;

/// Shows the rotation until all nodes are done (0), or something stops it (2). After the first look, one that fails is told and repeated.
///
/// # Errors
/// If the first look fails, or nothing can be written.
pub(super) async fn watch(context: &Context, cluster: &Cluster) -> anyhow::Result<u8> {
    let on_terminal = std::io::stdout().is_terminal() && matches!(context.output, OutputFormat::Table);
    let (mut pace, mut shown) = (RotationPace::default(), None);
    loop {
        let began = Instant::now();
        let progress = match look(cluster, &mut pace).await {
            Err(error) if shown.is_some() => {
                complain(&format!("{error:#}; it is tried again"));
                sleep(PAUSE.max(began.elapsed() * SHARE)).await;
                continue;
            }
            progress => progress?,
        };
        // on a terminal the line is drawn anew; elsewhere it is written when it says something new
        if on_terminal {
            write_out(&format!("\r\x1b[K{}", line(&progress)))?;
            std::io::stdout().flush()?;
        } else if shown.as_ref().is_none_or(|before| is_news(before, &progress)) {
            let text = match context.output {
                OutputFormat::Json => serde_json::to_string(&progress)?,
                OutputFormat::Yaml => format!("---\n{}", serde_saphyr::to_string(&progress)?.trim_end()),
                _ => format!("{} {}", Time(host::wall()), line(&progress)),
            };
            write_out(&(text + "\n"))?;
        }
        if progress.is_complete() || progress.stopped.is_some() {
            if on_terminal {
                write_out("\n")?;
            }
            return Ok(if progress.is_complete() { OK } else { FINDINGS });
        }
        shown = Some(progress);
        sleep(PAUSE.max(began.elapsed() * SHARE)).await;
    }
}

async fn look(cluster: &Cluster, pace: &mut RotationPace) -> anyhow::Result<RotationProgress> {
    let now = host::wall();
    let mut fleet = fleet(cluster.members().await?, now);
    fleet.restarts = cluster.restarts().await?;
    Ok(RotationProgress::of(&fleet, pace, now))
}

/// Whether more than the estimate has changed.
fn is_news(before: &RotationProgress, now: &RotationProgress) -> bool {
    RotationProgress { seconds_left: None, ..before.clone() } != RotationProgress { seconds_left: None, ..now.clone() }
}

fn line(progress: &RotationProgress) -> String {
    let RotationProgress { nodes, done, restarting, waiting, stopped, seconds_left } = progress;
    let full = (done * BAR).checked_div(*nodes).unwrap_or(0);
    let bar = format!("{}{}", "#".repeat(full), ".".repeat(BAR - full));
    let counts =
        format!("[{bar}] {done} of {} done, {restarting} restarting, {waiting} waiting", plural(*nodes, "node"));
    match (stopped, seconds_left) {
        (Some(why), _) => format!("{counts}; {why}"),
        (None, Some(0)) | (None, None) => counts,
        (None, Some(seconds)) if *seconds < 120 => format!("{counts}; about {seconds} s left"),
        (None, Some(seconds)) => format!("{counts}; about {} min left", seconds.div_ceil(60)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_far_it_is_and_what_stops_it() {
        let mut progress = RotationProgress {
            nodes: 500,
            done: 250,
            restarting: 5,
            waiting: 245,
            stopped: None,
            seconds_left: Some(600),
        };
        let text =
            "[###############...............] 250 of 500 nodes done, 5 restarting, 245 waiting; about 10 min left";
        assert_eq!(line(&progress), text);
        progress.stopped = Some("halted by b: not Ready".into());
        assert!(line(&progress).ends_with("245 waiting; halted by b: not Ready"));
        let none = RotationProgress { nodes: 0, done: 0, restarting: 0, waiting: 0, stopped: None, seconds_left: None };
        assert_eq!(line(&none), format!("[{}] 0 of 0 nodes done, 0 restarting, 0 waiting", ".".repeat(BAR)));
    }

    #[test]
    fn an_estimate_alone_is_no_news() {
        let one =
            RotationProgress { nodes: 3, done: 1, restarting: 1, waiting: 1, stopped: None, seconds_left: Some(9) };
        assert!(!is_news(&one, &RotationProgress { seconds_left: Some(4), ..one.clone() }));
        assert!(is_news(&one, &RotationProgress { done: 2, waiting: 0, ..one.clone() }));
    }
}
