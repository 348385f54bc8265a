//! Exit codes, and what each means for each command.

/// Everything is as it should be.
pub(super) const OK: u8 = 0;
/// It failed.
pub(super) const FAILURE: u8 = 1;
/// It worked, and there is something to look at: actions pending, rejections, not healthy.
pub(super) const FINDINGS: u8 = 2;
/// Wrong usage or configuration (EX_USAGE of sysexits.h).
pub(super) const USAGE: u8 = 64;

use crate::text::{colour::Style, wrap::wrap};

/// Columns before the meaning of a code in the help.
const INDENT: usize = 6;

/// Each command with what 0, 1 and 2 mean, empty where it never exits so: the table of docs/configuration.md.
const MEANINGS: [(&str, [&str; 3]); 14] = [
    ("run", ["SIGTERM or SIGINT", "the agent cannot start", ""]),
    ("plan", ["nothing to do", "failure, or a source that is required is missing", "actions pending"]),
    (
        "apply",
        [
            "converged",
            "failure",
            "converged, but something was rejected, is held or needs attention, or the runtime is stale or unknown",
        ],
    ),
    ("status", ["healthy", "failure", "not healthy, or the state of the runtime is unknown"]),
    ("inspect", ["everything accepted", "a file cannot be read", "at least one rejection"]),
    ("probe", ["all trusted", "the bundle cannot be read", "at least one not trusted"]),
    (
        "topology",
        [
            "uniform; with `--watch`: all nodes are done; with `--approve-removal`: approved, or nothing to approve",
            "the API server cannot be asked, or does not take the approvals",
            "split, violation, or a halt of restarts; with `--watch`: a halt or a pause; with `--approve-removal`: refused",
        ],
    ),
    ("stores", ["a store was found", "failure", "no supported store"]),
    (
        "render",
        [
            "rendered; with `--check`: every file carries the current set",
            "a source, or a file of `--check`, cannot be read, or there is no anchor",
            "with `--check`: a file carries another set",
        ],
    ),
    ("uninstall", ["nothing of ours is left", "something is left, or could not be verified", ""]),
    ("completion", ["always", "", ""]),
    ("version", ["always", "", ""]),
    ("man", ["written", "a page cannot be written", ""]),
    (
        "kubectl nodetrust status",
        [
            "healthy",
            "no agent was found on that node, or it cannot be asked",
            "not healthy, or the state of the runtime is unknown",
        ],
    ),
];

/// The exit codes of a command, as its help shows them.
pub(super) fn help(command: &str) -> String {
    let meanings = MEANINGS.iter().find(|(name, _)| *name == command).map(|(_, meanings)| meanings);
    let codes = meanings.into_iter().flatten().zip([OK, FAILURE, FINDINGS]).filter(|(meaning, _)| !meaning.is_empty());
    let usage = match command {
        "status" => "wrong usage or an invalid configuration (the screen is printed all the same)",
        _ => "wrong usage or an invalid configuration",
    };
    let width = Style::of_stdout().width() - INDENT;
    let mut out = "Exit codes:".to_owned();
    for (meaning, code) in codes.chain([(&usage, USAGE)]) {
        out.push_str(&format!("\n  {code:<4}{}", wrap(meaning, width, INDENT)));
    }
    out
}
