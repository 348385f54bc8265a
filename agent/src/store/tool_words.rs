//! What a store's tool says when it fails, and what we can add to that.

use std::io;

use nodetrust_core::{
    problem::{Problem, ProblemKind},
    store::{Family, TrustStore},
};

use crate::host::{exec::Finished, file::FileKind, root::HostRoot};

/// How deep the anchor directory is looked through for a name.
const MAX_DEPTH: usize = 8;

/// The last line of what a tool printed.
pub(crate) fn last_words(finished: &Finished) -> Option<String> {
    last_line(&finished.output)
}

/// The last line of a tool's output. p11-kit leaves system errors as numbers.
pub(crate) fn last_line(output: &str) -> Option<String> {
    let said = output.trim().lines().next_back()?;
    let number = said.rsplit_once("Unknown error ").and_then(|(_, number)| number.parse().ok());
    Some(match number {
        Some(number) => format!("{said} ({})", io::Error::from_raw_os_error(number)),
        None => said.to_owned(),
    })
}

/// A run that ended in an error.
pub(crate) fn exit_problem(root: &HostRoot, store: &TrustStore, program: &str, finished: &Finished) -> Problem {
    let how = match finished.code {
        Some(code) => format!("exit code {code}"),
        None => "ended by a signal".to_owned(),
    };
    let said = last_words(finished).unwrap_or_else(|| "it printed nothing".to_owned());
    let text = format!("{program}: {how}: {said}");
    match broken_name(root, store) {
        Some(path) => Problem::new(
            ProblemKind::Extract,
            format!("{text}; it reads names line by line, and there is a line end in the name of {path}"),
            format!("give {path} another name on the host, or move it away"),
        ),
        None => {
            let usual = || format!("run {program} on the host and look at its output");
            let next = finished.why_not_run().map_or_else(usual, str::to_owned);
            Problem::new(ProblemKind::Extract, text, next)
        }
    }
}

/// A file that Debian's tool takes and cannot open: it reads a list of names from a pipe, each up to the end of its line. What cannot be
/// looked at is passed over, since it is only for the words.
fn broken_name(root: &HostRoot, store: &TrustStore) -> Option<String> {
    let mut dirs = match store.family {
        Family::Debian => vec![(store.anchors_dir.to_owned(), 0)],
        _ => Vec::new(),
    };
    while let Some((dir, depth)) = dirs.pop() {
        for (name, kind) in root.names(&dir).unwrap_or_default() {
            let path = format!("{dir}/{name}");
            match kind {
                FileKind::Directory if depth < MAX_DEPTH => dirs.push((path, depth + 1)),
                _ if path.contains('\n') && store.takes.matches(&name) => return Some(path),
                _ => {}
            }
        }
    }
    None
}
