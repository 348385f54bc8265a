//! What keeps a server from showing its certificates, in words that help.

use super::{Finding, Reason, Target};

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

    pub(super) fn finding(&self, target: &Target) -> Finding {
        let (reason, next) = match self {
            Self::Dns(..) => (Reason::Dns, "check the name, and /etc/hosts and /etc/resolv.conf of the place where this runs".to_owned()),
            Self::Refused(_) => (Reason::Refused, "check the port, that the server runs, and whether a proxy is needed (--via-proxy)".to_owned()),
            Self::Timeout(_) => (Reason::Timeout, "check route and firewall from this node, and whether a proxy is needed (--via-proxy)".to_owned()),
            Self::Network(_) => (Reason::Unreachable, "check route and firewall from this node".to_owned()),
            Self::ProxyStatus(407, true) => (Reason::Proxy, "the proxy does not take this user and password: correct them".to_owned()),
            Self::ProxyStatus(407, false) => (Reason::Proxy, "the proxy wants a user and password: http://user:password@host:port".to_owned()),
            Self::ProxyStatus(403 | 405, _) => (Reason::Proxy, format!("have the proxy allow CONNECT to {}", target.authority())),
            Self::ProxyStatus(502..=504, _) => (Reason::Proxy, format!("the proxy itself does not reach {}: check from there", target.authority())),
            Self::ProxyStatus(..) | Self::ProxyAnswer(_) => (Reason::Proxy, "check that this is an HTTP proxy which allows CONNECT, and look at its log".to_owned()),
            Self::NotTls => (Reason::NotTls, "check the port; a registry without TLS must be configured as such in the runtime (an http:// host)".to_owned()),
            Self::TlsVersion => (Reason::TlsVersion, "have the server speak TLS 1.2 or 1.3: programs in Go and OpenSSL refuse older versions as well".to_owned()),
            Self::Alert(name) if name == "unrecognized_name" => (Reason::Handshake, "the server has no certificate for this name: check the name, and what stands before the server".to_owned()),
            Self::Alert(name) if name == "handshake_failure" => (Reason::Handshake, "server and probe share no cipher suite (TLS 1.2 with ECDHE and AES-GCM or ChaCha20, or TLS 1.3), or the server wants something else: look at its log".to_owned()),
            Self::Alert(_) | Self::Closed | Self::Handshake(_) | Self::NotItsKey => (Reason::Handshake, "look at the server's log, and at what stands between: a proxy or firewall may cut the connection".to_owned()),
        };
        Finding::new(reason, self.text(), next)
    }
}
