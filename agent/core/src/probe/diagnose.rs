//! Why a chain ends nowhere: walks the way up again, one signature at a time, and says where it breaks.

use std::sync::Arc;

use super::{
    cert::Cert,
    chain::{Chain, STRONGER, named, outside_validity, server_usage},
    names::directory_name,
    verdict::{ProbeFinding, ProbeReason},
};
use crate::{
    certificate::{
        der::{element, elements},
        name, oid,
    },
    ledger::AnchorState,
    source::{Content, SourceStatus},
    time::Time,
};

/// Whether one certificate has signed another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Signed {
    Yes,
    No,
    /// The algorithm or key size is not supported here.
    Unknown,
}

/// A CA that nodetrust knows, and why the store does not have it.
struct Known {
    anchor: Arc<Cert>,
    /// what became of it
    fate: String,
    next: String,
}

/// Why a certificate of the bundle cannot be the end of a chain.
fn anchor_fault(anchor: &Cert, now: i64) -> Option<(ProbeReason, String)> {
    if let Some(fault) = outside_validity(anchor, now) {
        return Some(fault);
    }
    let is_bound = |cert: &Cert| cert.purposes().is_some_and(|purposes| !purposes.is_empty());
    let why = if let Some(why) = anchor.no_authority() {
        why
    } else if anchor.usage() != Some(0) && anchor.cannot_sign() {
        "may not sign certificates (keyUsage)"
    } else if anchor.not_for_servers() && is_bound(anchor) {
        "is not for servers (extendedKeyUsage)"
    } else {
        return None;
    };
    Some((ProbeReason::WrongUsage, why.to_owned()))
}

impl Chain<'_> {
    /// Says why there is no chain, where neither Go nor OpenSSL finds one.
    pub(super) fn diagnose(&self, go: Option<ProbeFinding>, openssl: Option<ProbeFinding>) -> Vec<ProbeFinding> {
        // what cannot even be parsed says nothing by its signatures
        if let Some(fault) = go.as_ref().filter(|fault| fault.reason == ProbeReason::Malformed) {
            return vec![fault.clone()];
        }
        let (mut path, mut time) = (vec![0], Vec::new());
        loop {
            let (index, cert) = &self.presented[path[path.len() - 1]];
            time.extend(self.time_finding(cert, *index));
            if path.len() > 1
                && let Some(anchor) = self.candidates.iter().find(|anchor| anchor.fingerprint == cert.fingerprint)
            {
                path.pop();
                return self.reached(&path, anchor, time, go.or(openssl));
            }
            if path.len() == 1
                && let Some(anchor) = self.candidates.iter().find(|anchor| anchor.fingerprint == cert.fingerprint)
            {
                let usage = server_usage(cert, 0);
                return or_else(time.into_iter().chain(usage).collect(), go.or(openssl), anchor);
            }
            if let Some(anchor) = self.anchor_of(cert) {
                return self.reached(&path, anchor, time, go.or(openssl));
            }
            let above = self.presented.iter().enumerate().position(|(at, (_, issuer))| {
                !path.contains(&at) && issuer.subject.raw == cert.issuer.raw && signed(cert, issuer) != Signed::No
            });
            match above {
                Some(above) => path.push(above),
                None => {
                    let mut findings = vec![self.dead_end(*index, cert)];
                    findings.extend(time);
                    return findings;
                }
            }
        }
    }

    /// The certificate of the bundle that has signed this one; one that can be an anchor if there are several.
    fn anchor_of(&self, cert: &Cert) -> Option<&Arc<Cert>> {
        let signers = || {
            self.candidates
                .iter()
                .filter(|anchor| anchor.subject.raw == cert.issuer.raw && signed(cert, anchor) != Signed::No)
        };
        signers().find(|anchor| anchor_fault(anchor, self.facts.now.wall).is_none()).or_else(|| signers().next())
    }

    /// The way leads to an anchor, and still the chain was refused.
    fn reached(
        &self,
        path: &[usize],
        anchor: &Arc<Cert>,
        mut findings: Vec<ProbeFinding>,
        fault: Option<ProbeFinding>,
    ) -> Vec<ProbeFinding> {
        let certs: Vec<&(usize, Cert)> = path.iter().map(|at| &self.presented[*at]).collect();
        if let Some((reason, text)) = anchor_fault(anchor, self.facts.now.wall) {
            let next = match reason {
                ProbeReason::Expired => "give a source the CA's renewed certificate",
                ProbeReason::NotYetValid => "compare this node's clock with the time",
                _ => "give a source the CA that issued it, or one that is made for this use",
            };
            findings.push(ProbeFinding::new(reason, format!("the CA {} in the store {text}", named(anchor)), next));
        }
        for (index, cert) in &certs {
            if *index > 0 && !cert.constraints().is_some_and(|(is_ca, _)| is_ca) {
                let text = format!("{} has signed the certificate below it, and is not a CA", named(cert));
                findings.push(ProbeFinding::new(
                    ProbeReason::WrongUsage,
                    text,
                    "have the server's certificate issued by a CA",
                ));
            } else if *index > 0 && cert.cannot_sign() {
                let text = format!("the CA {} may not sign certificates: its keyUsage lacks keyCertSign", named(cert));
                findings.push(ProbeFinding::new(
                    ProbeReason::WrongUsage,
                    text,
                    "have this CA's certificate issued anew with keyCertSign",
                ));
            }
            findings.extend(server_usage(cert, *index));
        }
        let weak = certs.iter().enumerate().find_map(|(at, (_, cert))| {
            let issuer = certs.get(at + 1).map_or(&**anchor, |(_, issuer)| issuer);
            weak_signature(cert, issuer)
        });
        findings.extend(weak);
        or_else(findings, fault, anchor)
    }

    /// Nothing in the store and nothing that was presented has signed this certificate.
    fn dead_end(&self, index: usize, cert: &Cert) -> ProbeFinding {
        let known = self.known(cert);
        let signer = known.iter().find(|known| {
            known.anchor.fingerprint == cert.fingerprint
                || (!cert.is_root() && signed(cert, &known.anchor) == Signed::Yes)
        });
        let namesake = self.candidates.iter().find(|anchor| anchor.subject.raw == cert.issuer.raw);
        if let Some(namesake) = namesake.filter(|namesake| namesake.fingerprint != cert.fingerprint) {
            return other_key(cert, namesake, signer);
        }
        if let Some(signer) = signer {
            let text = format!("its CA {} is not in the store: {}", named(&signer.anchor), signer.fate);
            return ProbeFinding::new(ProbeReason::NotInstalled, text, signer.next.clone());
        }
        let impostor = self.presented.iter().find(|(at, other)| {
            *at != index && other.subject.raw == cert.issuer.raw && signed(cert, other) == Signed::No
        });
        if let Some((at, other)) = impostor {
            let text = format!(
                "certificate {at} of the chain, {}, has the name of the issuer of {}, and has not signed it",
                named(other),
                named(cert)
            );
            let issuer = &cert.issuer.common;
            let next =
                format!("have the server send the \"{issuer}\" that signed its certificate: it has several keys");
            return ProbeFinding::new(ProbeReason::BadSignature, text, next);
        }
        if cert.is_root() { unknown_root(index, cert) } else { self.unknown_issuer(index, cert, known.first()) }
    }

    /// Nobody here knows the CA that has signed a certificate; `namesake` has its name and another key.
    fn unknown_issuer(&self, index: usize, cert: &Cert, namesake: Option<&Known>) -> ProbeFinding {
        let issuer = &cert.issuer.common;
        let namesake = namesake.map(|known| {
            format!(
                " (nodetrust knows {} under that name, which has not signed it: {})",
                named(&known.anchor),
                known.fate
            )
        });
        let text = format!("unknown issuer \"{issuer}\" of {}{}", named(cert), namesake.unwrap_or_default());
        match (index, self.presented.len(), above(cert)) {
            (0, 1, Some(hint)) => ProbeFinding::new(
                ProbeReason::IncompleteChain,
                format!("{text}; the server sent no chain, and {hint}"),
                format!("have the server send its chain: its certificate followed by \"{issuer}\""),
            ),
            (0, 1, None) => ProbeFinding::new(
                ProbeReason::UnknownIssuer,
                format!("{text}; the server sent no chain"),
                format!(
                    "if \"{issuer}\" is an intermediate CA, have the server send it with its certificate; if it is a root, add it to a source"
                ),
            ),
            _ => ProbeFinding::new(
                ProbeReason::UnknownIssuer,
                text,
                format!("add \"{issuer}\" to a source, or have the server send the rest of its chain"),
            ),
        }
    }

    /// CAs of the name of a certificate's issuer that are not in the store and of which ledger or sources know.
    fn known(&self, cert: &Cert) -> Vec<Known> {
        let facts = &self.facts;
        let fits = |anchor: &crate::certificate::anchor::Anchor| {
            anchor.subject.raw == cert.issuer.raw
                && !self.candidates.iter().any(|other| other.fingerprint == anchor.fingerprint)
        };
        let mut found: Vec<Known> = Vec::new();
        if let Some(evidence) = facts.sources {
            for (snapshot, state) in evidence.snapshots.iter().zip(&evidence.resolved.sources) {
                let Content::Files(parts) = &snapshot.content else { continue };
                for (line, anchor) in parts.iter().flat_map(|part| &part.anchors).filter(|(_, anchor)| fits(anchor)) {
                    let rejection =
                        state.rejections.iter().find(|rejection| rejection.sha256 == Some(anchor.fingerprint));
                    let source = &snapshot.name;
                    let (fate, next) = match rejection {
                        Some(rejection) => (
                            format!(
                                "source {source} has it (line {line}), and it was rejected as {}: {}",
                                rejection.reason, rejection.detail
                            ),
                            format!(
                                "source {source}: give a certificate of this CA that is accepted, or change the policy"
                            ),
                        ),
                        None if matches!(state.status, SourceStatus::Held | SourceStatus::Failed) => (
                            format!("source {source} has it, and is {}: {}", state.status.as_str(), state.detail),
                            format!("correct source {source}"),
                        ),
                        None => (
                            format!("source {source} wants it, and it is not installed yet"),
                            "run `nodetrust status`, which says what keeps it; or `nodetrust apply`".to_owned(),
                        ),
                    };
                    let decoded = Cert::decode(anchor.der());
                    found.extend(decoded.map(|anchor| Known { anchor: Arc::new(anchor), fate, next }));
                }
            }
        }
        for entry in facts.ledger.anchors.values() {
            let Some(anchor) = entry.anchor().filter(|anchor| fits(anchor)) else { continue };
            let Some(anchor) = Cert::decode(anchor.der()) else { continue };
            let back = format!("add {} to a source again", named(&anchor));
            let (fate, next) = match (entry.state, entry.gone) {
                (AnchorState::Denied, _) => (
                    "policy.deniedFingerprints has it".to_owned(),
                    "give the server a certificate of another CA".to_owned(),
                ),
                (_, Some(gone)) => (format!("it left the sources, and was removed {}", Time(gone)), back),
                (AnchorState::Retired, None) => ("it left the sources, and its grace is over".to_owned(), back),
                (AnchorState::Grace, None) => {
                    ("it left the sources and is in grace, but the store lost it".to_owned(), back)
                }
                (AnchorState::Desired, None) => (
                    "it should be there".to_owned(),
                    "run `nodetrust status`, which says what keeps it; or `nodetrust apply`".to_owned(),
                ),
            };
            if !found.iter().any(|known| known.anchor.fingerprint == anchor.fingerprint) {
                found.push(Known { anchor: Arc::new(anchor), fate, next });
            }
        }
        found
    }
}

/// What a reader says counts where nothing else was found.
fn or_else(mut findings: Vec<ProbeFinding>, fault: Option<ProbeFinding>, anchor: &Cert) -> Vec<ProbeFinding> {
    if findings.is_empty() {
        findings.push(fault.unwrap_or_else(|| {
            let text = format!("a check of the chain to {} failed", named(anchor));
            ProbeFinding::new(ProbeReason::Unsupported, text, "show the chain to whoever runs the CA")
        }));
    }
    findings
}

fn signed(cert: &Cert, issuer: &Cert) -> Signed {
    match issuer.has_signed(cert) {
        Some(true) => Signed::Yes,
        Some(false) => Signed::No,
        None => Signed::Unknown,
    }
}

/// The store has the CA that a certificate names as its issuer, with another key; `signer` is the CA that has signed it, if known.
fn other_key(cert: &Cert, namesake: &Cert, signer: Option<&Known>) -> ProbeFinding {
    let issuer = &cert.issuer.common;
    if names_key_of(cert, namesake) {
        return ProbeFinding::new(
            ProbeReason::BadSignature,
            format!(
                "{} names the key of {} in the store as its signer, and the signature does not match",
                named(cert),
                named(namesake)
            ),
            "have the certificate issued or installed anew: it is damaged or forged",
        );
    }
    let store = format!("the store has {} under that name, with another key", named(namesake));
    let below = if cert.is_root() {
        format!("the chain ends in the root {}", named(cert))
    } else {
        format!("{} was signed by a \"{issuer}\"", named(cert))
    };
    let next = match signer {
        Some(signer) => {
            format!("{} ({}); or have the server send the chain of the CA in the store", signer.next, signer.fate)
        }
        None => format!(
            "add the \"{issuer}\" that signed it to a source, or have the server use a certificate and chain of the CA in the store"
        ),
    };
    ProbeFinding::new(ProbeReason::OtherKey, format!("unknown issuer: {below}; {store}"), next)
}

/// The chain ends in a root that nobody here knows.
fn unknown_root(index: usize, cert: &Cert) -> ProbeFinding {
    match index {
        0 => ProbeFinding::new(
            ProbeReason::SelfSigned,
            format!("the server's certificate {} has signed itself, and is not in the store", named(cert)),
            "give the server a certificate of a CA in the store, or add this certificate to a source",
        ),
        _ => ProbeFinding::new(
            ProbeReason::UnknownIssuer,
            format!("unknown root {}: the server sends it, and the store does not have it", named(cert)),
            "get this root from its owner (not from the server), and add it to a source",
        ),
    }
}

fn weak_signature(cert: &Cert, issuer: &Cert) -> Option<ProbeFinding> {
    let text = match (cert.weak_signature(), issuer.key.is_weak()) {
        (Some(algorithm), _) => format!("{} is signed with {algorithm}, which Go and OpenSSL refuse", named(cert)),
        (None, true) => format!("the key of {} ({}) is too small", named(issuer), issuer.key),
        (None, false) => return None,
    };
    Some(ProbeFinding::new(ProbeReason::Weak, text, STRONGER))
}

/// Whether a certificate says by its key identifiers (RFC 5280, 4.2.1.1) that this one's key has signed it.
fn names_key_of(cert: &Cert, issuer: &Cert) -> bool {
    issuer.key_id().is_some_and(|own| cert.authority_key().key_id == Some(own))
}

/// What a certificate says of what is above its issuer.
fn above(cert: &Cert) -> Option<String> {
    if let Some(name) = cert.authority_key().directory_name().filter(|name| **name != *cert.issuer.raw) {
        let name = directory_name(name);
        return Some(format!("it names an intermediate CA as its issuer, which \"{name}\" has issued"));
    }
    // authorityInfoAccess: caIssuers (RFC 5280, 4.2.2.1)
    let access = element(cert.extension(oid::AUTHORITY_INFO)?)?;
    elements(access.content).find_map(|description| {
        let mut fields = elements(description.content);
        let (method, place) = (fields.next()?, fields.next()?);
        (method.content == oid::CA_ISSUERS && place.tag == 0x86).then(|| {
            let place = name::shown(&String::from_utf8_lossy(place.content));
            format!("it names the place of its issuer's certificate: {place}")
        })
    })
}
