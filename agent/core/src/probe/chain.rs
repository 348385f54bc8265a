//! The certificates of one probe, and the findings that every reader has in common.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    cert::{Cert, Subtree},
    verdict::{ChainAnchor, ChainCertificate, ProbeFinding, ProbeReason},
};
use crate::{
    ledger::{AnchorState, Ledger},
    report::Behind,
    source::{Resolved, Snapshot},
    time::{Moment, Time},
};

/// Certificates of a presented chain that are looked at.
pub const MAX_CHAIN: usize = 10;
/// What to do about a weak key or signature.
pub(super) const STRONGER: &str = "have it issued anew with SHA-256 and a key of 2048 bits or more";

/// What the sources say, for finding out where a CA went that the store does not have.
#[derive(Debug, Clone, Default)]
pub struct SourceEvidence {
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
    /// What the sources say; None if nobody has looked.
    pub sources: Option<&'a SourceEvidence>,
    /// The grace time in force, in seconds.
    pub removal_grace: u64,
    /// Now.
    pub now: &'a Moment,
    /// What the running container runtime does not know yet; None if nobody has looked, or nothing is missing.
    pub behind: Option<&'a Behind>,
}

/// The certificates that matter: what was presented, and what in the bundle could have issued it or is part of it.
pub(super) struct Chain<'a> {
    /// what was presented and can be decoded, with its place
    pub(super) presented: Vec<(usize, Cert)>,
    pub(super) candidates: Vec<Arc<Cert>>,
    pub(super) facts: Facts<'a>,
}

/// A way from the server's certificate to the bundle, as a reader finds it.
pub(super) struct TrustPath<'a> {
    /// The server's certificate and those above it that are used, up to the anchor.
    pub(super) certs: Vec<&'a Cert>,
    pub(super) anchor: &'a Arc<Cert>,
}

/// The way that a reader finds; or why it refuses the chain, None if there is no way to the bundle.
pub(super) type Verified<'a> = Result<TrustPath<'a>, Option<ProbeFinding>>;

impl<'a> Chain<'a> {
    /// Finds what in the bundle matters to what was presented, of which there is at least one.
    pub(super) fn new(presented: Vec<(usize, Cert)>, facts: Facts<'a>) -> Self {
        let candidates = candidates(&presented, facts.bundle);
        Self { presented, candidates, facts }
    }
}

impl Chain<'_> {
    /// The server's own certificate.
    pub(super) fn leaf(&self) -> &Cert {
        &self.presented[0].1 // `Chain::new` is given at least one
    }

    /// What is told of the anchor in which the chain ends.
    pub(super) fn end(&self, anchor: &Cert) -> ChainAnchor {
        let entry = self.facts.ledger.anchors.get(&anchor.fingerprint).filter(|entry| entry.gone.is_none());
        let since =
            entry.filter(|entry| entry.state == AnchorState::Grace).and_then(|entry| entry.unwanted_since.as_ref());
        ChainAnchor {
            common_name: anchor.subject.common.clone(),
            subject: anchor.subject.text.clone(),
            sha256: anchor.fingerprint,
            not_after: Time(anchor.not_after),
            state: entry.map(|entry| entry.state),
            grace_end: since.map(|since| self.facts.grace_end(since)),
        }
    }

    /// What people should know of a chain that is trusted.
    pub(super) fn notes(&self, end: &ChainAnchor, anchor: &Cert) -> Vec<String> {
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

    /// The finding where OpenSSL finds a way and Go, which compares names byte by byte, does not.
    pub(super) fn unlike_names(&self, anchor: &Cert) -> ProbeFinding {
        let text = format!(
            "the name of {} is not written, byte for byte, as the certificate below it writes its issuer's",
            named(anchor)
        );
        ProbeFinding::new(
            ProbeReason::UnknownIssuer,
            text,
            "have the CA issue with its own name as it is written in its certificate",
        )
    }

    /// What is wrong with the time of a certificate of the bundle.
    pub(super) fn anchor_time_fault(&self, anchor: &Cert) -> Option<ProbeFinding> {
        outside_validity(anchor, self.facts.now.wall).map(|(reason, text)| {
            let next = match reason {
                ProbeReason::Expired => "give a source the CA's renewed certificate",
                _ => "compare this node's clock with the time",
            };
            ProbeFinding::new(reason, format!("the CA {} in the store {text}", named(anchor)), next)
        })
    }

    /// What is wrong with the time of a presented certificate, by its place.
    pub(super) fn time_finding(&self, cert: &Cert, index: usize) -> Option<ProbeFinding> {
        outside_validity(cert, self.facts.now.wall).map(|(reason, text)| {
            let next = match (reason, index) {
                (ProbeReason::NotYetValid, _) => {
                    "compare this node's clock with the time; if it is right, wait or have the certificate issued anew"
                }
                (_, 0) => "renew the server's certificate (and compare this node's clock)",
                _ => "have the server send the renewed certificate of this CA (and compare this node's clock)",
            };
            ProbeFinding::new(reason, format!("{}, certificate {index} of the chain, {text}", named(cert)), next)
        })
    }
}

impl Facts<'_> {
    fn grace_end(&self, since: &Moment) -> Time {
        let passed = self.now.elapsed_since(since, self.ledger.updated);
        let remains = self.removal_grace.saturating_sub(passed);
        Time(self.now.wall.saturating_add(i64::try_from(remains).unwrap_or(i64::MAX)))
    }
}

/// `"Corp Root CA" (sha256 9f3c51d2ab77e014)`.
pub(super) fn named(anchor: &Cert) -> String {
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

impl ChainCertificate {
    /// What is shown of a certificate at this place of the chain.
    pub(super) fn new(index: usize, cert: &Cert) -> Self {
        Self {
            index,
            common_name: cert.subject.common.clone(),
            subject: cert.subject.text.clone(),
            issuer_common_name: cert.issuer.common.clone(),
            sha256: cert.fingerprint,
            key: cert.key.to_string(),
            not_before: Time(cert.not_before),
            not_after: Time(cert.not_after),
        }
    }
}

/// Whether the time is outside of a certificate's validity.
pub(super) fn outside_validity(cert: &Cert, now: i64) -> Option<(ProbeReason, String)> {
    let (from, to) = (Time(cert.not_before), Time(cert.not_after));
    if to.0 < now {
        Some((ProbeReason::Expired, format!("expired {to} (now it is {})", Time(now))))
    } else if from.0 > now {
        Some((ProbeReason::NotYetValid, format!("is not valid before {from} (now it is {})", Time(now))))
    } else {
        None
    }
}

/// Whether a server's certificate is not for servers.
pub(super) fn server_usage(cert: &Cert, index: usize) -> Option<ProbeFinding> {
    cert.not_for_servers().then(|| {
        let whose = if index == 0 { "the server's certificate" } else { "the CA certificate" };
        ProbeFinding::new(
            ProbeReason::WrongUsage,
            format!("{whose} {} is not for servers: its extendedKeyUsage lacks serverAuth", named(cert)),
            "have it issued anew with the extendedKeyUsage serverAuth",
        )
    })
}

/// The constraints of one kind of name.
pub(super) fn of_kind<'a>(subtrees: &[Subtree<'a>], kind: u8) -> Vec<Subtree<'a>> {
    subtrees.iter().filter(|subtree| subtree.kind == kind).copied().collect()
}
