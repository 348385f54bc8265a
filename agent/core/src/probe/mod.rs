//! Would a program on this host trust that server, and if not, exactly why not?
//!
//! In: the certificates that a server presented, the host's extracted bundle, what is remembered and wanted, the time. Out: a
//! [`Probe`]. The chain is verified twice, as Go does it and as OpenSSL does it (`go`, `openssl`), since nearly every program on a
//! node verifies by one of the two, and they differ. Trusted means that Go trusts it, and with it the container runtime; where
//! OpenSSL sees it otherwise, a note says so.

mod cert;
mod diagnose;
mod failure;
mod go;
mod openssl;
mod target;
mod through;

use std::{collections::BTreeSet, sync::Arc};

use serde::Serialize;

use crate::{
    certificate::{fingerprint::Fingerprint, name::sentence},
    ledger::{AnchorState, Ledger},
    report::Behind,
    source::{Resolved, Snapshot},
    time::{Moment, Time},
};

use cert::Cert;
pub use failure::Failure;
pub use target::{BadTarget, Proxy, Target};
pub use through::{Testimonial, Through};

/// Certificates of a presented chain that are looked at.
pub const MAX_CHAIN: usize = 10;
/// Names of a certificate that are shown.
const MAX_NAMES: usize = 8;

/// The answer for one target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Probe {
    /// The target, as it was asked for.
    pub target: String,
    /// Who was asked.
    pub through: Through,
    /// The answer.
    pub verdict: Verdict,
    /// Why not; the most important reason, None if it is trusted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// The answer in a sentence.
    pub text: String,
    /// What the server presented, in its order.
    pub chain: Vec<Element>,
    /// What the chain ends in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub anchor: Option<End>,
    /// The earliest end of validity in the chain that was used, anchor included; of what was presented if none was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Time>,
    /// What else is to be known.
    pub notes: Vec<String>,
    /// What to do, most important first.
    pub next: Vec<String>,
}

/// Whether a target is trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Its chain ends in the host's bundle, and its name fits.
    Trusted,
    /// Programs that read the host's bundle trust it, the running container runtime does not yet.
    NotTrustedByRuntime,
    /// The running container runtime pulls from it, in a way that does not prove trust in its CA.
    PullsWork,
    /// It showed its certificates, and programs on this host refuse them.
    NotTrusted,
    /// It showed no certificates.
    NotReached,
}

/// Why a target is not trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// Nobody here knows the CA in which the chain ends.
    UnknownIssuer,
    /// The store has a CA of that name, with another key.
    OtherKey,
    /// The CA is known to nodetrust, and not in the store.
    NotInstalled,
    /// The server leaves out certificates between its own and the root.
    IncompleteChain,
    /// The server's certificate has signed itself and is not in the store.
    SelfSigned,
    /// A certificate of the chain has expired.
    Expired,
    /// A certificate of the chain is not valid yet.
    NotYetValid,
    /// The server's certificate is for other names.
    NameMismatch,
    /// A certificate says that it is not for this use.
    WrongUsage,
    /// A limit that a CA set is not kept: names, length, an extension that must be understood.
    Constraint,
    /// A signature does not match.
    BadSignature,
    /// A key or signature that Go or OpenSSL refuse.
    Weak,
    /// An algorithm that is not supported here.
    Unsupported,
    /// The server's certificate cannot be decoded.
    Malformed,
    /// The store trusts it, the running container runtime does not yet.
    RuntimeStale,
    /// The running container runtime was asked, and refuses a certificate.
    RuntimeRefuses,
    /// The running container runtime was asked, and did not reach it.
    RuntimeNotReached,
    /// The running container runtime goes to a mirror, or verifies no certificate.
    NotVerified,
    /// The host's bundle cannot be read.
    NoBundle,
    /// The name cannot be resolved.
    Dns,
    /// Nobody listens there.
    Refused,
    /// No answer in time.
    Timeout,
    /// The network does not lead there.
    Unreachable,
    /// The proxy does not let us through.
    Proxy,
    /// It answers, and not with TLS.
    NotTls,
    /// It speaks no TLS that is still accepted.
    TlsVersion,
    /// It ended the handshake.
    Handshake,
}

/// One certificate of a chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Element {
    /// Its place in what was presented, from 0.
    pub index: usize,
    /// Its common name.
    pub common_name: String,
    /// Its subject.
    pub subject: String,
    /// Its issuer's common name.
    pub issuer_common_name: String,
    /// Its identity.
    pub sha256: Fingerprint,
    /// Its key.
    pub key: String,
    /// Start of validity.
    pub not_before: Time,
    /// End of validity.
    pub not_after: Time,
}

/// The anchor in which a chain ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct End {
    /// Its common name.
    pub common_name: String,
    /// Its subject.
    pub subject: String,
    /// Its identity.
    pub sha256: Fingerprint,
    /// End of validity.
    pub not_after: Time,
    /// Its state if it is ours, None if it is the distribution's or somebody else's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<AnchorState>,
    /// When its grace ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grace_end: Option<Time>,
}

/// What the sources say, for finding out where a CA went that the store does not have.
#[derive(Debug, Clone, Default)]
pub struct Said {
    /// What they hold.
    pub snapshots: Vec<Snapshot>,
    /// What was made of it.
    pub resolved: Resolved,
}

/// What is known of the host.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The certificates of the extracted bundle, DER.
    pub bundle: &'a [Vec<u8>],
    /// The ledger.
    pub ledger: &'a Ledger,
    /// What the sources say, if anybody has looked.
    pub said: Option<&'a Said>,
    /// The grace time in force, in seconds.
    pub removal_grace: u64,
    /// Now.
    pub now: &'a Moment,
    /// What the running container runtime does not know yet; None if nobody has looked, or nothing is missing.
    pub behind: Option<&'a Behind>,
}

/// A reason with its sentence and what to do about it. Of a reader: why it refuses.
type Fault = Finding;

/// A reason with its sentence and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    reason: Reason,
    text: String,
    next: String,
}

impl Finding {
    fn new(reason: Reason, text: impl Into<String>, next: impl Into<String>) -> Self {
        Self { reason, text: sentence(&text.into()), next: sentence(&next.into()) }
    }
}

/// The certificates that matter: what was presented, and what in the bundle could have issued it or is part of it.
struct Chain<'a> {
    /// what was presented and can be decoded, with its place
    presented: Vec<(usize, Cert)>,
    candidates: Vec<Arc<Cert>>,
    facts: Facts<'a>,
}

/// The algorithm of a certificate's key and the key itself, as in its SubjectPublicKeyInfo: the content of the algorithm, and the bits
/// of the key. None if it is no certificate.
pub fn key_of(der: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    Cert::decode(der)?.key_parts()
}

/// Judges the certificates that a server presented, its own first.
pub fn judge(target: &Target, presented: &[Vec<u8>], facts: Facts<'_>) -> Probe {
    let mut probe = Probe::new(target);
    if presented.len() > MAX_CHAIN {
        let note = format!("the server sent {} certificates; the first {MAX_CHAIN} were looked at", presented.len());
        probe.notes.push(note);
    }
    let mut decoded = Vec::new();
    for (index, der) in presented.iter().take(MAX_CHAIN).enumerate() {
        match Cert::decode(der) {
            Some(cert) => decoded.push((index, cert)),
            None => {
                let text = match index {
                    0 => "the server's certificate cannot be used: it is no X.509 certificate".to_owned(),
                    _ => format!(
                        "certificate {index} of the chain cannot be used: it is no X.509 certificate, and clients end the handshake for it"
                    ),
                };
                return probe.refused([Finding::new(
                    Reason::Malformed,
                    text,
                    "give the server certificates without damage",
                )]);
            }
        }
    }
    let Some((_, leaf)) = decoded.first() else {
        let finding =
            Finding::new(Reason::Malformed, "the server sent no certificate", "look at the server's TLS setup");
        return probe.refused([finding]);
    };
    probe.chain = decoded.iter().map(|(index, anchor)| Element::new(*index, anchor)).collect();
    probe.not_after = decoded.iter().map(|(_, anchor)| Time(anchor.not_after)).min();
    let name = name_finding(target, leaf);
    let by_common_name = name.is_some() && is_for_host_by_common_name(target, leaf);
    let candidates = candidates(&decoded, facts.bundle);
    let chain = Chain { presented: decoded, candidates, facts };
    let go = go::verify(&chain);
    let openssl = openssl::verify(&chain);
    let (used, anchor) = match (go, openssl) {
        (Ok(found), Ok(_)) => {
            if by_common_name {
                let why =
                    "only the common name of the server's certificate is for this host, and Go does not look at it";
                probe.notes.push(format!("OpenSSL accepts it, Go refuses: {why}"));
            }
            found
        }
        (Ok(found), Err(fault)) => {
            let why = fault.map_or_else(
                || "it finds no way from the server's certificate to the bundle".to_owned(),
                |fault| fault.text,
            );
            probe.notes.push(format!("Go accepts it, OpenSSL refuses: {why}"));
            found
        }
        (Err(fault), Ok((_, anchor))) => {
            let fault = fault.unwrap_or_else(|| chain.unlike_names(anchor));
            probe.anchor = Some(chain.end(anchor));
            let note = format!("OpenSSL accepts it, Go refuses: {}", fault.text);
            let text = format!("programs in Go, such as the container runtime, refuse it: {}", fault.text);
            let mut refused = probe.refused([Finding { text, ..fault }].into_iter().chain(name));
            refused.notes.insert(0, note);
            return refused;
        }
        (Err(go), Err(openssl)) => {
            let mut findings = chain.diagnose(go, openssl);
            findings.extend(name);
            return probe.refused(findings);
        }
    };
    let end = chain.end(anchor);
    probe.not_after = used.iter().map(|cert| cert.not_after).chain([anchor.not_after]).min().map(Time);
    probe.notes.extend(chain.notes(&end, anchor));
    probe.anchor = Some(end);
    if let Some(finding) = name {
        return probe.refused([finding]);
    }
    if let Some(behind) = facts.behind.filter(|behind| behind.missing.contains(&anchor.fingerprint)) {
        let text = format!("the store trusts {}; {}", named(anchor), behind.why);
        let refused = probe.refused([Finding::new(Reason::RuntimeStale, text, behind.next.clone())]);
        return Probe { verdict: Verdict::NotTrustedByRuntime, ..refused };
    }
    probe.text = probe.anchor.as_ref().map(End::sentence).unwrap_or_default();
    probe
}

impl Probe {
    /// A trusted target about which nothing is known yet.
    fn new(target: &Target) -> Self {
        Self::named(target.text().to_owned())
    }

    fn named(target: String) -> Self {
        Self {
            target,
            through: Through::Host,
            verdict: Verdict::Trusted,
            reason: None,
            text: String::new(),
            chain: Vec::new(),
            anchor: None,
            not_after: None,
            notes: Vec::new(),
            next: Vec::new(),
        }
    }

    /// A target that showed no certificates.
    pub fn not_reached(target: &Target, failure: &Failure) -> Self {
        let probe = Self::new(target).refused([failure.finding(target)]);
        Self { verdict: Verdict::NotReached, ..probe }
    }

    /// A target that cannot be judged, since the host's bundle cannot be read.
    pub fn without_bundle(target: &Target, why: &str) -> Self {
        let finding = Finding::new(Reason::NoBundle, why, "look at `nodetrust stores` and `nodetrust status`");
        Self { verdict: Verdict::NotReached, ..Self::new(target).refused([finding]) }
    }

    /// Adds what went wrong in a handshake after the server had shown its certificates. Only a wrong signature speaks against
    /// them: then the server does not have the key.
    #[must_use]
    pub fn after(mut self, failure: &Failure) -> Self {
        match failure {
            Failure::NotItsKey => {
                if self.verdict == Verdict::NotTrustedByRuntime {
                    self.verdict = Verdict::Trusted; // the smaller fault
                    self.notes.push(std::mem::take(&mut self.text));
                }
                self.refused([Finding::new(
                    Reason::BadSignature,
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

    /// Whether it is trusted.
    pub fn is_trusted(&self) -> bool {
        self.verdict == Verdict::Trusted
    }

    fn refused(mut self, findings: impl IntoIterator<Item = Finding>) -> Self {
        for finding in findings {
            if self.verdict == Verdict::Trusted {
                self.verdict = Verdict::NotTrusted;
                self.reason = Some(finding.reason);
                self.text = finding.text;
            } else {
                self.notes.push(finding.text);
            }
            self.next.extend(Some(finding.next).filter(|next| !next.is_empty()));
        }
        self
    }
}

impl Verdict {
    /// The public name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trusted => "trusted",
            Self::NotTrustedByRuntime => "not-trusted-by-runtime",
            Self::PullsWork => "pulls-work",
            Self::NotTrusted => "not-trusted",
            Self::NotReached => "not-reached",
        }
    }
}

impl Element {
    fn new(index: usize, anchor: &Cert) -> Self {
        Self {
            index,
            common_name: anchor.subject.common.clone(),
            subject: anchor.subject.text.clone(),
            issuer_common_name: anchor.issuer.common.clone(),
            sha256: anchor.fingerprint,
            key: anchor.key.to_string(),
            not_before: Time(anchor.not_before),
            not_after: Time(anchor.not_after),
        }
    }
}

impl End {
    fn sentence(&self) -> String {
        let whose = match (self.state, self.grace_end) {
            (None, _) => "not one of ours".to_owned(),
            (Some(state), None) => state.as_str().to_owned(),
            (Some(state), Some(end)) => format!("{} until {end}", state.as_str()),
        };
        format!("by \"{}\" (sha256 {}), {whose}", self.common_name, self.sha256.fp16())
    }
}

impl Chain<'_> {
    fn leaf(&self) -> &Cert {
        &self.presented[0].1 // `judge` ends where there is none
    }

    fn end(&self, anchor: &Cert) -> End {
        let entry = self.facts.ledger.anchors.get(&anchor.fingerprint).filter(|entry| entry.gone.is_none());
        let left = entry.filter(|entry| entry.state == AnchorState::Grace).and_then(|entry| entry.left.as_ref());
        End {
            common_name: anchor.subject.common.clone(),
            subject: anchor.subject.text.clone(),
            sha256: anchor.fingerprint,
            not_after: Time(anchor.not_after),
            state: entry.map(|entry| entry.state),
            grace_end: left.map(|left| self.facts.grace_end(left)),
        }
    }

    /// What people should know of a chain that is trusted.
    fn notes(&self, end: &End, anchor: &Cert) -> Vec<String> {
        let mut notes = Vec::new();
        match (end.state, end.grace_end) {
            (Some(AnchorState::Grace), Some(end)) => notes.push(format!(
                "its CA is in no source any more and stays trusted until {end} only: renew the server's certificate under another CA, or put this one back"
            )),
            (Some(AnchorState::Grace), None) => notes.push("its CA is in no source any more; its grace has not begun".into()),
            (Some(state @ (AnchorState::Retired | AnchorState::Denied)), _) => notes.push(format!(
                "its CA is {} and should not be trusted any more: `nodetrust status` says what keeps it", state.as_str()
            )),
            _ => {}
        }
        if anchor.fingerprint == self.leaf().fingerprint {
            notes.push(
                "the server's own certificate is in the bundle: it must be replaced there with every renewal".into(),
            );
        }
        notes
    }

    /// Go finds no way where OpenSSL does: it compares names byte by byte.
    fn unlike_names(&self, anchor: &Cert) -> Fault {
        let text = format!(
            "the name of {} is not written, byte for byte, as the certificate below it writes its issuer's",
            named(anchor)
        );
        Fault::new(
            Reason::UnknownIssuer,
            text,
            "have the CA issue with its own name as it is written in its certificate",
        )
    }

    fn anchor_time_fault(&self, anchor: &Cert) -> Option<Fault> {
        diagnose::time_fault(anchor, self.facts.now.wall).map(|(reason, text)| {
            let next = match reason {
                Reason::Expired => "give a source the CA's renewed certificate",
                _ => "compare this node's clock with the time",
            };
            Fault::new(reason, format!("the CA {} in the store {text}", named(anchor)), next)
        })
    }

    fn time_finding(&self, cert: &Cert, index: usize) -> Option<Finding> {
        diagnose::time_fault(cert, self.facts.now.wall).map(|(reason, text)| {
            let next = match (reason, index) {
                (Reason::NotYetValid, _) => {
                    "compare this node's clock with the time; if it is right, wait or have the certificate issued anew"
                }
                (_, 0) => "renew the server's certificate (and compare this node's clock)",
                _ => "have the server send the renewed certificate of this CA (and compare this node's clock)",
            };
            Finding::new(reason, format!("{}, certificate {index} of the chain, {text}", named(cert)), next)
        })
    }
}

impl Facts<'_> {
    fn grace_end(&self, left: &Moment) -> Time {
        let passed = self.now.elapsed_since(left, self.ledger.updated);
        let remains = self.removal_grace.saturating_sub(passed);
        Time(self.now.wall.saturating_add(i64::try_from(remains).unwrap_or(i64::MAX)))
    }
}

/// `"Corp Root CA" (sha256 9f3c51d2ab77e014)`.
fn named(anchor: &Cert) -> String {
    format!("\"{}\" (sha256 {})", anchor.subject.common, anchor.fingerprint.fp16())
}

/// What in the bundle could be part of this chain: certificates of the right names, and what is above them.
fn candidates(presented: &[(usize, Cert)], bundle: &[Vec<u8>]) -> Vec<Arc<Cert>> {
    let mut seen = BTreeSet::new();
    let all: Vec<Arc<Cert>> = bundle
        .iter()
        .filter_map(|der| Cert::decode(der))
        .filter(|cert| seen.insert(cert.fingerprint))
        .map(Arc::new)
        .collect();
    let mut names: BTreeSet<u32> = presented.iter().map(|(_, cert)| cert.issuer.hash).collect();
    // an intermediate in the bundle has a root above it
    for _ in 0..MAX_CHAIN {
        let before = names.len();
        let above = all.iter().filter(|cert| names.contains(&cert.subject.hash)).map(|cert| cert.issuer.hash);
        let above: Vec<u32> = above.collect();
        names.extend(above);
        if names.len() == before {
            break;
        }
    }
    let fits = |cert: &&Arc<Cert>| {
        names.contains(&cert.subject.hash) || presented.iter().any(|(_, shown)| shown.fingerprint == cert.fingerprint)
    };
    all.iter().filter(fits).cloned().collect()
}

fn name_finding(target: &Target, leaf: &Cert) -> Option<Finding> {
    let host = target.host();
    let address: Option<std::net::IpAddr> = host.parse().ok();
    let octets = address.map(|address| match address {
        std::net::IpAddr::V4(address) => address.octets().to_vec(),
        std::net::IpAddr::V6(address) => address.octets().to_vec(),
    });
    let all: Vec<(u8, &[u8])> =
        leaf.alternative_names().into_iter().filter(|(kind, _)| matches!(kind, 2 | 7)).collect();
    let fits = |(kind, name): &(u8, &[u8])| match (&octets, kind) {
        (Some(octets), 7) => name == octets,
        (None, 2) => is_for_host(name, host.as_bytes()),
        _ => false,
    };
    if all.iter().any(fits) {
        return None;
    }
    if all.is_empty() {
        let text = format!(
            "the server's certificate {} has no subjectAltName that could be {host}; its common name is not looked at",
            named(leaf)
        );
        return Some(Finding::new(
            Reason::NameMismatch,
            text,
            format!("have it issued with the subjectAltName {host}"),
        ));
    }
    let mut names: Vec<String> =
        all.iter().take(MAX_NAMES).map(|(kind, name)| diagnose::shown_name(*kind, name)).collect();
    if all.len() > MAX_NAMES {
        names.push(format!("and {} more", all.len() - MAX_NAMES));
    }
    let text = format!("the server's certificate is not for {host}, but for {}", names.join(", "));
    let next = format!("use a name that the certificate has, or have it issued for {host} as well");
    Some(Finding::new(Reason::NameMismatch, text, next))
}

/// OpenSSL looks at the common name of a certificate that has no dNSName.
fn is_for_host_by_common_name(target: &Target, leaf: &Cert) -> bool {
    let has_names = leaf.alternative_names().iter().any(|(kind, _)| *kind == 2);
    let is_address = target.host().parse::<std::net::IpAddr>().is_ok();
    !has_names && !is_address && is_for_host(leaf.subject.common.as_bytes(), target.host().as_bytes())
}

/// Whether a dNSName is for a host: the same labels in any case, or an asterisk in place of the first (RFC 6125, 6.4.3).
fn is_for_host(name: &[u8], host: &[u8]) -> bool {
    let host = host.strip_suffix(b".").unwrap_or(host);
    if name.eq_ignore_ascii_case(host) {
        return !host.is_empty();
    }
    let rest = host.iter().position(|byte| *byte == b'.').map(|at| &host[at..]);
    match (name.strip_prefix(b"*"), rest) {
        (Some(name), Some(rest)) => name.len() > 1 && name.eq_ignore_ascii_case(rest),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
