//! What keeps a server from showing its certificates, in words that help.

use super::{
    target::Target,
    verdict::{Probe, ProbeFinding, ProbeReason, ProbeVerdict},
};
use crate::certificate::name::sentence;

/// What went wrong before a server had shown its certificates, or after it had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The name of the target or proxy cannot be resolved: which name, and the resolver's words.
    Dns(String, String),
    /// Nobody listens: which address.
    Refused(String),
    /// No answer: what was waited for.
    Timeout(String),
    /// Another failure of the network.
    Network(String),
    /// The proxy itself is not reached: which one, and why.
    ProxyUnreached(String, Box<Failure>),
    /// The proxy said no: its status, and whether it was given a password.
    ProxyStatus(u16, bool),
    /// The proxy's answer does not come or cannot be understood.
    ProxyAnswer(&'static str),
    /// The server answers with something else than TLS.
    NotTls,
    /// The server speaks no TLS that is still accepted.
    TlsVersion,
    /// The server ended the handshake with an alert, by its name in the standard (RFC 8446, 6), such as `handshake_failure`.
    Alert(String),
    /// The server closed the connection without a word.
    Closed,
    /// The server's proof does not fit its certificate's key.
    NotItsKey,
    /// Another failure of the handshake.
    Handshake(String),
}

impl Failure {
    /// What happened, in a sentence.
    pub fn text(&self) -> String {
        match self {
            Self::Dns(name, why) => format!("the name {name} cannot be resolved: {why}"),
            Self::Refused(address) => {
                format!("{address} refuses connections: nobody listens there, or a firewall says no")
            }
            Self::Timeout(what) => format!("no answer in time: {what}"),
            Self::Network(why) => format!("no connection: {why}"),
            Self::ProxyUnreached(proxy, why) => format!("the proxy {proxy} is not reached: {}", why.text()),
            Self::ProxyStatus(status, _) => format!("the proxy refuses with status {status}"),
            Self::ProxyAnswer(why) => format!("the proxy gives no usable answer: {why}"),
            Self::NotTls => "it answers, but not with TLS".to_owned(),
            Self::TlsVersion => "it speaks neither TLS 1.2 nor 1.3".to_owned(),
            Self::Alert(name) => format!("it ended the TLS handshake with the alert {name}"),
            Self::Closed => "it closed the connection within the TLS handshake".to_owned(),
            Self::NotItsKey => "it cannot prove that it has the key of its certificate".to_owned(),
            Self::Handshake(why) => format!("the TLS handshake failed: {why}"),
        }
    }

    fn finding(&self, target: &Target) -> ProbeFinding {
        let (reason, next) = match self {
            Self::Dns(..) => (ProbeReason::Dns, "check the name, and /etc/hosts and /etc/resolv.conf of the place where this runs".to_owned()),
            Self::ProxyUnreached(_, why) => (why.finding(target).reason, "check the name and port of the proxy, that it runs, and the way to it from this node; the server itself was not asked".to_owned()),
            Self::Refused(_) => (ProbeReason::Refused, "check the port, that the server runs, and whether a proxy is needed (--via-proxy)".to_owned()),
            Self::Timeout(_) => (ProbeReason::Timeout, "check route and firewall from this node, and whether a proxy is needed (--via-proxy)".to_owned()),
            Self::Network(_) => (ProbeReason::Unreachable, "check route and firewall from this node".to_owned()),
            Self::ProxyStatus(407, true) => (ProbeReason::Proxy, "the proxy does not take this user and password: correct them".to_owned()),
            Self::ProxyStatus(407, false) => (ProbeReason::Proxy, "the proxy wants a user and password: http://user:password@host:port".to_owned()),
            Self::ProxyStatus(403 | 405, _) => (ProbeReason::Proxy, format!("have the proxy allow CONNECT to {}", target.authority())),
            Self::ProxyStatus(502..=504, _) => (ProbeReason::Proxy, format!("the proxy itself does not reach {}: check from there", target.authority())),
            Self::ProxyStatus(..) | Self::ProxyAnswer(_) => (ProbeReason::Proxy, "check that this is an HTTP proxy which allows CONNECT, and look at its log".to_owned()),
            Self::NotTls => (ProbeReason::NotTls, "check the port; a registry without TLS must be configured as such in the runtime (an http:// host)".to_owned()),
            Self::TlsVersion => (ProbeReason::TlsVersion, "have the server speak TLS 1.2 or 1.3: programs in Go and OpenSSL refuse older versions as well".to_owned()),
            Self::Alert(name) if name == "unrecognized_name" => (ProbeReason::Handshake, "the server has no certificate for this name: check the name, and what stands before the server".to_owned()),
            Self::Alert(name) if name == "handshake_failure" => (ProbeReason::Handshake, "server and probe share no cipher suite (TLS 1.2 with ECDHE and AES-GCM or ChaCha20, or TLS 1.3), or the server wants something else: look at its log".to_owned()),
            Self::Alert(_) | Self::Closed | Self::Handshake(_) | Self::NotItsKey => (ProbeReason::Handshake, "look at the server's log, and at what stands between: a proxy or firewall may cut the connection".to_owned()),
        };
        ProbeFinding::new(reason, self.text(), next)
    }
}

impl Probe {
    /// A target that showed no certificates.
    pub fn not_reached(target: &Target, failure: &Failure) -> Self {
        let probe = Self::new(target).refused([failure.finding(target)]);
        Self { verdict: ProbeVerdict::NotReached, ..probe }
    }

    /// Adds what went wrong in a handshake after the server had shown its certificates. Only a wrong signature speaks against
    /// them: then the server does not have the key.
    #[must_use]
    pub fn after(mut self, failure: &Failure) -> Self {
        match failure {
            Failure::NotItsKey => {
                if self.verdict == ProbeVerdict::NotTrustedByRuntime {
                    self.verdict = ProbeVerdict::Trusted; // the smaller fault
                    self.notes.push(std::mem::take(&mut self.text));
                }
                self.refused([ProbeFinding::new(
                    ProbeReason::BadSignature,
                    "the server cannot prove that it has the key of its certificate",
                    "give the server the key that belongs to its certificate",
                )])
            }
            failure => {
                self.notes.push(sentence(&format!("after it had shown its certificates: {}", failure.text())));
                self
            }
        }
    }
}
