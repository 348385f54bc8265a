//! What it means how a runtime's pull of the witness ended: gRPC's code first, then the text (facts C.9).
//!
//! The texts are those of containerd 1.6, 1.7 and 2.1 and of Docker 20.10, as they were had from them; of CRI-O only what its source
//! says. Whatever is not known here proves nothing. What a server writes is never taken for the runtime's own words, nor what a proxy
//! answers for a registry's answer.

use super::witness::WitnessAnswer;
use crate::certificate::name;

/// The repository that a registry is asked for. It need not exist, and nobody should make it.
pub const REPOSITORY: &str = "nodetrust/witness";
/// Random bytes of the digest that is asked for: all of them.
pub const DIGEST_BYTES: usize = 32;

/// How a pull ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullEnd<'a> {
    /// The runtime says that it has the image now.
    Pulled,
    /// CRI: gRPC's code and the runtime's message.
    Grpc(u32, &'a str),
    /// The Docker engine's message.
    Docker(&'a str),
    /// The runtime did not answer, and why.
    NoAnswer(&'a str),
}

/// What the end of a pull proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullAnswer {
    /// What it proves.
    pub answer: WitnessAnswer,
    /// The runtime's own words about it, bounded and escaped.
    pub words: String,
    /// Whose certificate it refuses, if it refuses one.
    pub refused: Option<RefusedServer>,
}

/// Whose certificate a runtime refuses: that need not be the registry that it was asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RefusedServer {
    /// A server, as `host:port`: the registry, a mirror, a token server, or where one of them led to.
    Server(String),
    /// The proxy, with which it speaks TLS.
    Proxy,
    /// It does not say whose.
    Unnamed,
}

/// The image that is asked for: `digits` are random, so that nobody can have it. A tag would be pulled from a registry that answers to
/// every name, and stored.
pub fn image(registry: &str, digits: &str) -> String {
    format!("{registry}/{REPOSITORY}@sha256:{digits}")
}

/// Judges the end of a pull of [`image`] with these digits.
pub fn classify(end: PullEnd<'_>, digits: &str) -> PullAnswer {
    let nothing = |text: &str| (WitnessAnswer::NotReached, words(text, digits), None);
    let (answer, words, refused) = match end {
        PullEnd::Pulled => nothing("the runtime says that it has pulled an image that cannot be"),
        PullEnd::NoAnswer(why) => nothing(why),
        PullEnd::Grpc(code, text) if !may_be_a_registrys(code) => nothing(text),
        PullEnd::Grpc(_, text) | PullEnd::Docker(text) => {
            let refused = refused(text);
            let answer = match refused {
                Some(_) => WitnessAnswer::Refuses,
                None if is_an_answer(text, digits) => WitnessAnswer::Trusts,
                None => WitnessAnswer::NotReached,
            };
            (answer, words(text, digits), refused)
        }
    };
    PullAnswer { answer, words, refused }
}

/// gRPC's codes that a runtime gives for what a registry has said: `UNKNOWN`, which is also for everything that has no code,
/// `NOT_FOUND`, `PERMISSION_DENIED`, `FAILED_PRECONDITION`, `UNAUTHENTICATED`. Each can come from something else as well, so the text
/// has to say it too.
fn may_be_a_registrys(code: u32) -> bool {
    matches!(code, 2 | 5 | 7 | 9 | 16)
}

/// Where the text of a server begins: before it, the words are the runtime's own.
const QUOTING: [&str; 5] =
    ["unexpected status", "failed with status code", "unexpected HTTP status", "response body", "server message"];

/// Whose certificate is refused, in the runtime's own words.
fn refused(text: &str) -> Option<RefusedServer> {
    let own_end = QUOTING.iter().filter_map(|quoting| text.find(quoting)).min().unwrap_or(text.len());
    let own = &text[..own_end];
    let (before, _) = own.split_at(own.find("x509: ")?);
    // an error of Go's HTTP client: what was asked, `Head "https://host/path": `, and what came of it
    let Some((asked, between)) = before.rsplit_once("\": ") else { return Some(RefusedServer::Unnamed) };
    if between.contains("proxyconnect ") {
        return Some(RefusedServer::Proxy);
    }
    let server = asked.rsplit_once("\"https://").map(|(_, url)| url.split(['/', '?']).next().unwrap_or_default());
    Some(match server {
        Some(server) if !server.is_empty() && !server.starts_with(':') && !server.contains(char::is_whitespace) => {
            RefusedServer::Server(with_port(server))
        }
        _ => RefusedServer::Unnamed,
    })
}

/// `host:port` of an address for HTTPS.
pub fn with_port(authority: &str) -> String {
    let has_port = match authority.rsplit_once(':') {
        // the colons of an IPv6 address are in brackets
        Some((_, port)) => !port.contains(']'),
        None => false,
    };
    if has_port { authority.to_owned() } else { format!("{authority}:443") }
}

/// Whether a registry has answered.
fn is_an_answer(text: &str, digits: &str) -> bool {
    is_not_found(text, digits)
        || is_another_digest(text, digits)
        || is_a_refusal(text)
        || is_an_error_of_a_registry(text)
}

/// The registry has no such image. What else a runtime does not find, such as a snapshotter, has no name of ours at its end.
fn is_not_found(text: &str, digits: &str) -> bool {
    let image = format!("{REPOSITORY}@sha256:{digits}");
    let Some(before) = text.strip_suffix(": not found") else {
        return text.starts_with("manifest for ") && text.contains(&format!("{image} not found: manifest unknown"));
    };
    // the second where the registry has said to HEAD that it has it
    before.ends_with(&image) || before.ends_with(&format!("/manifests/sha256:{digits} not found"))
}

/// The registry gave something else: it answers to every name.
fn is_another_digest(text: &str, digits: &str) -> bool {
    text.contains("unexpected commit digest sha256:") && text.contains(&format!(", expected sha256:{digits}"))
        || text == format!("manifest verification failed for digest sha256:{digits}")
}

/// The registry or its token server wants to know who asks, or says no.
fn is_a_refusal(text: &str) -> bool {
    if text.contains("pull access denied, repository does not exist or may require authorization")
        || text.starts_with("pull access denied for ")
        || text.ends_with("\": no basic auth credentials")
    {
        return true;
    }
    let quoted = QUOTING[..3].iter().find_map(|quoting| text.split_once(quoting)).map(|(_, after)| after);
    // what a proxy answers to CONNECT comes without its number
    matches!(quoted.and_then(status), Some(401 | 403))
        || matches!(text.strip_prefix("error parsing HTTP ").and_then(status), Some(401 | 403 | 404))
}

/// The status in a text such as `: 403 Forbidden`: the first number of three digits that stands for itself.
fn status(text: &str) -> Option<u16> {
    text.split(' ').filter(|word| word.len() == 3).find_map(|word| word.parse().ok())
}

/// The code of a registry's error, which Docker and CRI-O give without the status: `manifest unknown`, `unauthorized: …`.
fn is_an_error_of_a_registry(text: &str) -> bool {
    // after what was asked, if that is said: the code of a registry, in lower case; a proxy's answer begins with a capital letter
    let said = text.rsplit_once("\": ").map_or(text, |(_, said)| said);
    let said = said.rsplit_once(&format!("/{REPOSITORY}: ")).map_or(said, |(_, said)| said);
    let code = said.split(':').next().unwrap_or_default();
    matches!(
        code,
        "manifest unknown"
            | "name unknown"
            | "unauthorized"
            | "denied"
            | "authentication required"
            | "requested access to the resource is denied"
    )
}

/// What of a message says what happened: the image is known to whoever reads it, and its digest is long.
fn words(text: &str, digits: &str) -> String {
    let after = |beginning: &str, end: &str| text.split_once(beginning)?.1.split_once(end).map(|(_, rest)| rest);
    let said = after("failed to resolve image", ": ")
        .or_else(|| after("failed to resolve reference \"", "\": "))
        .or_else(|| after("failed to pull and unpack image \"", "\": "));
    name::sentence(&said.unwrap_or(text).replace(digits, "…"))
}

#[cfg(test)]
#[path = "pull_answer_tests.rs"]
mod tests;
