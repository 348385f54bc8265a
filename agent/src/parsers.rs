//! Entry points of tests/fuzz: parsers that are private to their modules.

use std::collections::BTreeSet;

use nodetrust_core::{certificate::fingerprint::Fingerprint, observed::Hazard, report::Cycle, store::Family};

/// An answer of CRI: as every message that is read, and as an error.
pub fn grpc(bytes: &[u8]) {
    crate::runtime::cri::read_answers(bytes);
}

/// `/proc/PID/stat`: name and start of a process.
pub fn process(text: &str) -> Option<(String, u64)> {
    crate::runtime::read_stat(text)
}

/// `/proc/PID/stat`, as whoever ends what a tool has left reads it: parent and start.
pub fn descendant(text: &str) -> Option<(i32, u64)> {
    crate::host::processes::read_stat(text)
}

/// `/proc/PID/cmdline`: the configuration that a runtime was started with.
pub fn command_line(bytes: &[u8]) -> Option<String> {
    crate::runtime::read_command_line(bytes)
}

/// The head of an HTTP proxy's answer to CONNECT: its status.
pub fn proxy_answer(head: &[u8]) -> Option<u16> {
    crate::probe::proxy_status(head)
}

/// The note of a cycle in the lock's file.
pub fn note(text: &str) -> Option<Cycle> {
    crate::reconcile::read_note(text)
}

/// The last words of a program of the host, from what it printed.
pub fn last_words(output: &str) -> Option<String> {
    crate::store::tool_words::last_line(output)
}

/// `/etc/ca-certificates.conf`: the files that it selects.
pub fn selection(text: &str) -> Vec<String> {
    crate::store::distribution::read_selection(text, Family::Debian).names
}

/// A file that OpenSSL's directory of links leads to: its certificates.
pub fn linked(bytes: &[u8]) -> BTreeSet<Fingerprint> {
    crate::store::hash_links::certificates(bytes)
}

/// Somebody else's file in an anchor directory: what a tool that pastes it would do.
pub fn hazards(bytes: &[u8]) -> Vec<Hazard> {
    crate::store::hazards::of_file(bytes)
}

/// What an API server that refuses says, as the agent and as `topology` tells it.
#[cfg(feature = "kubernetes")]
pub fn refusal(body: &[u8]) -> [String; 2] {
    [crate::kubernetes::words_of_refusal(body), crate::cli::topology::words_of_refusal(body)]
}

/// A page of the list of Nodes, and where the next one begins.
#[cfg(feature = "kubernetes")]
pub fn page(body: &[u8]) -> Option<(Vec<nodetrust_core::topology::Member>, Option<String>)> {
    crate::cli::topology::read_page(body)
}

/// Whether a list as in `NO_PROXY` covers a host.
#[cfg(feature = "kubernetes")]
pub fn is_direct(host: &str, no_proxy: &str) -> bool {
    crate::cli::topology::is_direct(host, no_proxy)
}
