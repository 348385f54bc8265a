//! Why a chain ends nowhere: the way up is walked again, one signature at a time, and where it breaks is said.

use std::sync::Arc;

use x509_parser::{
    certificate::X509Certificate,
    extensions::{GeneralName, ParsedExtension},
    oid_registry::OID_PKIX_ACCESS_DESCRIPTOR_CA_ISSUERS,
    prelude::FromDer,
};

use super::{Chain, Finding, Reason, is_authority, named};
use crate::{
    anchor::{Anchor, Authority},
    report::Time,
    source::{Content, SourceStatus},
    state::AnchorState,
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
    anchor: Arc<Anchor>,
    /// what became of it
    fate: String,
    next: String,
}

type Refusal<T> = Result<T, Vec<Finding>>;

/// Why a certificate of the bundle cannot be the end of a chain, to Go.
pub(super) fn anchor_fault(anchor: &Anchor, now: i64) -> Option<(Reason, String)> {
    if let Some(fault) = time_fault(anchor, now) {
        return Some(fault);
    }
    let usage = |text: &str| Some((Reason::WrongUsage, text.to_owned()));
    match () {
        () if anchor.authority == Authority::Leaf => usage("is not a CA (CA:FALSE)"),
        () if !is_authority(anchor) => usage("does not say that it is a CA (no basicConstraints)"),
        () if anchor.cannot_sign => usage("may not sign certificates (keyUsage)"),
        () if anchor.not_for_servers => usage("is not for servers (extendedKeyUsage)"),
        () if !anchor.unknown_critical.is_empty() => {
            let text =
                format!("has a critical extension that Go does not know ({})", anchor.unknown_critical.join(", "));
            Some((Reason::Constraint, text))
        }
        () => None,
    }
}

/// Whether the time is outside of a certificate's validity.
pub(super) fn time_fault(cert: &Anchor, now: i64) -> Option<(Reason, String)> {
    match () {
        () if cert.not_after < now => {
            Some((Reason::Expired, format!("expired {} (now it is {})", Time(cert.not_after), Time(now))))
        }
        () if cert.not_before > now => Some((
            Reason::NotYetValid,
            format!("is not valid before {} (now it is {})", Time(cert.not_before), Time(now)),
        )),
        () => None,
    }
}

/// Whether a server's certificate is not for servers.
pub(super) fn server_usage(cert: &Anchor, index: usize) -> Option<Finding> {
    cert.not_for_servers.then(|| {
        let whose = if index == 0 { "the server's certificate" } else { "the CA certificate" };
        Finding::new(
            Reason::WrongUsage,
            format!("{whose} {} is not for servers: its extendedKeyUsage lacks serverAuth", named(cert)),
            "have it issued anew with the extendedKeyUsage serverAuth",
        )
    })
}

impl Chain<'_> {
    /// Says why there is no chain. A server's certificate that is marked as a CA is all right with Go and OpenSSL: then there is one.
    pub(super) fn diagnose(&self, error: &webpki::Error) -> Refusal<(Vec<&Anchor>, Arc<Anchor>)> {
        let (mut path, mut time) = (vec![0], Vec::new());
        loop {
            let (index, cert) = &self.presented[path[path.len() - 1]];
            time.extend(self.time_finding(cert, *index));
            if path.len() > 1
                && let Some(anchor) = self.candidates.iter().find(|anchor| anchor.fingerprint == cert.fingerprint)
            {
                path.pop();
                return self.reached(&path, anchor, time, error);
            }
            if let Some(anchor) = self.anchor_of(cert) {
                return self.reached(&path, anchor, time, error);
            }
            let above = self.presented.iter().enumerate().position(|(at, (_, issuer))| {
                !path.contains(&at) && issuer.subject.raw == cert.issuer.raw && self.signed(cert, issuer) != Signed::No
            });
            match above {
                Some(above) => path.push(above),
                None => {
                    let mut findings = vec![self.dead_end(*index, cert)];
                    findings.extend(time);
                    return Err(findings);
                }
            }
        }
    }

    /// The certificate of the bundle that has signed this one; one that can be an anchor if there are several.
    fn anchor_of(&self, cert: &Anchor) -> Option<&Arc<Anchor>> {
        let signers = || {
            self.candidates
                .iter()
                .filter(|anchor| anchor.subject.raw == cert.issuer.raw && self.signed(cert, anchor) != Signed::No)
        };
        signers().find(|anchor| anchor_fault(anchor, self.facts.now.wall).is_none()).or_else(|| signers().next())
    }

    /// The way leads to an anchor, and still the chain was refused.
    fn reached(
        &self,
        path: &[usize],
        anchor: &Arc<Anchor>,
        mut findings: Vec<Finding>,
        error: &webpki::Error,
    ) -> Refusal<(Vec<&Anchor>, Arc<Anchor>)> {
        let certs: Vec<&(usize, Anchor)> = path.iter().map(|at| &self.presented[*at]).collect();
        if let Some((reason, text)) = anchor_fault(anchor, self.facts.now.wall) {
            let next = match reason {
                Reason::Expired => "give a source the CA's renewed certificate",
                Reason::NotYetValid => "compare this node's clock with the time",
                _ => "give a source the CA that issued it, or one that is made for this use",
            };
            findings.push(Finding::new(reason, format!("the CA {} in the store {text}", named(anchor)), next));
        }
        for (index, cert) in &certs {
            if *index > 0 && !is_authority(cert) {
                let text = format!("{} has signed the certificate below it, and is not a CA", named(cert));
                findings.push(Finding::new(Reason::WrongUsage, text, "have the server's certificate issued by a CA"));
            } else if *index > 0 && cert.cannot_sign {
                let text = format!("the CA {} may not sign certificates: its keyUsage lacks keyCertSign", named(cert));
                findings.push(Finding::new(
                    Reason::WrongUsage,
                    text,
                    "have this CA's certificate issued anew with keyCertSign",
                ));
            }
            findings.extend(server_usage(cert, *index));
        }
        let weak = certs.iter().enumerate().find_map(|(at, (_, cert))| {
            let issuer = certs.get(at + 1).map_or(&**anchor, |(_, issuer)| issuer);
            weak_signature(cert, issuer).filter(|_| self.signed(cert, issuer) == Signed::Unknown)
        });
        findings.extend(weak);
        if findings.is_empty() {
            match error {
                webpki::Error::CaUsedAsEndEntity => {
                    return Ok((certs.into_iter().map(|(_, cert)| cert).collect(), anchor.clone()));
                }
                error => findings.push(of_webpki(error)),
            }
        }
        Err(findings)
    }

    /// Nothing in the store and nothing that was presented has signed this certificate.
    fn dead_end(&self, index: usize, cert: &Anchor) -> Finding {
        let issuer = &cert.issuer.common;
        let known = self.known(cert);
        let namesakes: Vec<&Arc<Anchor>> =
            self.candidates.iter().filter(|anchor| anchor.subject.raw == cert.issuer.raw).collect();
        let signer = known.iter().find(|known| {
            known.anchor.fingerprint == cert.fingerprint
                || (!cert.is_root() && self.signed(cert, &known.anchor) == Signed::Yes)
        });
        if let Some(namesake) = namesakes.first().filter(|namesake| namesake.fingerprint != cert.fingerprint) {
            if names_key_of(cert, namesake) {
                return Finding::new(
                    Reason::BadSignature,
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
                Some(signer) => format!(
                    "{} ({}); or have the server send the chain of the CA in the store",
                    signer.next, signer.fate
                ),
                None => format!(
                    "add the \"{issuer}\" that signed it to a source, or have the server use a certificate and chain of the CA in the store"
                ),
            };
            return Finding::new(Reason::OtherKey, format!("unknown issuer: {below}; {store}"), next);
        }
        if let Some(signer) = signer {
            let text = format!("its CA {} is not in the store: {}", named(&signer.anchor), signer.fate);
            return Finding::new(Reason::NotInstalled, text, signer.next.clone());
        }
        let impostor = self.presented.iter().find(|(at, other)| {
            *at != index && other.subject.raw == cert.issuer.raw && self.signed(cert, other) == Signed::No
        });
        if let Some((at, other)) = impostor {
            let text = format!(
                "certificate {at} of the chain, {}, has the name of the issuer of {}, and has not signed it",
                named(other),
                named(cert)
            );
            let next =
                format!("have the server send the \"{issuer}\" that signed its certificate: it has several keys");
            return Finding::new(Reason::BadSignature, text, next);
        }
        if cert.is_root() {
            return match index {
                0 => Finding::new(
                    Reason::SelfSigned,
                    format!("the server's certificate {} has signed itself, and is not in the store", named(cert)),
                    "give the server a certificate of a CA in the store, or add this certificate to a source",
                ),
                _ => Finding::new(
                    Reason::UnknownIssuer,
                    format!("unknown root {}: the server sends it, and the store does not have it", named(cert)),
                    "get this root from its owner (not from the server), and add it to a source",
                ),
            };
        }
        let namesake = known.first().map(|known| {
            format!(
                " (nodetrust knows {} under that name, which has not signed it: {})",
                named(&known.anchor),
                known.fate
            )
        });
        let text = format!("unknown issuer \"{issuer}\" of {}{}", named(cert), namesake.unwrap_or_default());
        match (index, self.presented.len(), above(cert)) {
            (0, 1, Some(hint)) => Finding::new(
                Reason::IncompleteChain,
                format!("{text}; the server sent no chain, and {hint}"),
                format!("have the server send its chain: its certificate followed by \"{issuer}\""),
            ),
            (0, 1, None) => Finding::new(
                Reason::UnknownIssuer,
                format!("{text}; the server sent no chain"),
                format!(
                    "if \"{issuer}\" is an intermediate CA, have the server send it with its certificate; if it is a root, add it to a source"
                ),
            ),
            _ => Finding::new(
                Reason::UnknownIssuer,
                text,
                format!("add \"{issuer}\" to a source, or have the server send the rest of its chain"),
            ),
        }
    }

    /// CAs of the name of a certificate's issuer that are not in the store and of which ledger or sources know.
    fn known(&self, cert: &Anchor) -> Vec<Known> {
        let facts = &self.facts;
        let fits = |anchor: &Anchor| {
            anchor.subject.raw == cert.issuer.raw
                && !self.candidates.iter().any(|other| other.fingerprint == anchor.fingerprint)
        };
        let mut found: Vec<Known> = Vec::new();
        if let Some(said) = facts.said {
            for (snapshot, state) in said.snapshots.iter().zip(&said.resolved.sources) {
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
                    found.push(Known { anchor: anchor.clone(), fate, next });
                }
            }
        }
        for entry in facts.ledger.anchors.values() {
            let Some(anchor) = entry.anchor().filter(|anchor| fits(anchor)) else { continue };
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

    fn signed(&self, cert: &Anchor, issuer: &Anchor) -> Signed {
        let Ok((_, parsed)) = X509Certificate::from_der(cert.der()) else { return Signed::Unknown };
        let Ok((_, above)) = X509Certificate::from_der(issuer.der()) else { return Signed::Unknown };
        let key = above.public_key();
        let (Some(key_algorithm), Some(algorithm)) =
            (crate::der::first_in(key.raw), crate::der::signature_algorithm(cert.der()))
        else {
            return Signed::Unknown;
        };
        let fitting = self.facts.algorithms.iter().filter(|known| {
            known.public_key_alg_id().as_ref() == key_algorithm && known.signature_alg_id().as_ref() == algorithm
        });
        let mut answer = Signed::Unknown;
        for known in fitting {
            let signature = &parsed.signature_value.data;
            if known.verify_signature(&key.subject_public_key.data, parsed.tbs_certificate.as_ref(), signature).is_ok()
            {
                return Signed::Yes;
            }
            answer = Signed::No;
        }
        // what is too small for the library is no wrong signature
        if issuer.key.is_weak() { Signed::Unknown } else { answer }
    }
}

fn weak_signature(cert: &Anchor, issuer: &Anchor) -> Option<Finding> {
    let text = match (cert.weak_signature, issuer.key.is_weak()) {
        (Some(algorithm), _) => format!("{} is signed with {algorithm}, which Go and OpenSSL refuse", named(cert)),
        (None, true) => format!("the key of {} ({}) is too small", named(issuer), issuer.key),
        (None, false) => return None,
    };
    Some(Finding::new(Reason::Weak, text, "have it issued anew with SHA-256 and a key of 2048 bits or more"))
}

/// Whether a certificate says by its key identifiers (RFC 5280, 4.2.1.1) that this one's key has signed it.
fn names_key_of(cert: &Anchor, issuer: &Anchor) -> bool {
    let ids = |anchor: &Anchor| {
        let (mut own, mut signer) = (None, None);
        if let Ok((_, parsed)) = X509Certificate::from_der(anchor.der()) {
            for extension in parsed.extensions() {
                match extension.parsed_extension() {
                    ParsedExtension::SubjectKeyIdentifier(id) => own = Some(id.0.to_vec()),
                    ParsedExtension::AuthorityKeyIdentifier(id) => {
                        signer = id.key_identifier.as_ref().map(|id| id.0.to_vec());
                    }
                    _ => {}
                }
            }
        }
        (own, signer)
    };
    let (own, signer) = (ids(issuer).0, ids(cert).1);
    own.is_some() && own == signer
}

/// What a certificate says of what is above its issuer.
fn above(cert: &Anchor) -> Option<String> {
    let (_, parsed) = X509Certificate::from_der(cert.der()).ok()?;
    for extension in parsed.extensions() {
        match extension.parsed_extension() {
            // RFC 5280, 4.2.1.1: the name of the issuer's own issuer
            ParsedExtension::AuthorityKeyIdentifier(id) => {
                let names = id.authority_cert_issuer.iter().flatten();
                for name in names {
                    if let GeneralName::DirectoryName(name) = name
                        && name.as_raw() != &*cert.issuer.raw
                    {
                        let name = crate::name::display(name);
                        return Some(format!("it names an intermediate CA as its issuer, which \"{name}\" has issued"));
                    }
                }
            }
            ParsedExtension::AuthorityInfoAccess(access) => {
                let at = access.accessdescs.iter().find_map(|access| match &access.access_location {
                    GeneralName::URI(uri) if access.access_method == OID_PKIX_ACCESS_DESCRIPTOR_CA_ISSUERS => Some(uri),
                    _ => None,
                });
                if let Some(uri) = at {
                    return Some(format!("it names the place of its issuer's certificate: {uri}"));
                }
            }
            _ => {}
        }
    }
    None
}

/// What `webpki` found where nothing else is wrong.
fn of_webpki(error: &webpki::Error) -> Finding {
    use webpki::Error;
    let anew = "have the server's certificate issued anew within the CA's limits";
    match error {
        Error::NameConstraintViolation => {
            Finding::new(Reason::Constraint, "a CA of the chain may not issue for this name (nameConstraints)", anew)
        }
        Error::PathLenConstraintViolated => Finding::new(
            Reason::Constraint,
            "the chain is longer than a CA of it allows (pathLenConstraint)",
            "have the server's certificate issued by a CA further up",
        ),
        Error::UnsupportedCriticalExtension => {
            Finding::new(Reason::Constraint, "a certificate has a critical extension that is not understood", anew)
        }
        Error::InvalidSignatureForPublicKey => Finding::new(
            Reason::BadSignature,
            "a signature of the chain does not match",
            "have the server send its own chain, undamaged",
        ),
        Error::UnsupportedCertVersion => {
            let text = "the server's certificate is of X.509 version 1 or 2, which cannot hold the server's name";
            Finding::new(Reason::Unsupported, text, "have it issued anew as version 3")
        }
        other => {
            let text = format!("a check of the chain failed: {other}");
            Finding::new(Reason::Unsupported, text, "show the chain to whoever runs the CA")
        }
    }
}
