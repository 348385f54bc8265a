//! Go: `x509.Certificate.Verify` and what crypto/tls does before it (crypto/x509/verify.go, crypto/tls/handshake_client.go).
//!
//! Names are compared byte by byte. Every way up is tried, and any certificate of the bundle may be its end. Where versions
//! differ, the newer one counts.

use super::{
    cert::{Cert, Extension, KEY_CERT_SIGN, Subtree},
    chain::{Chain, MAX_CHAIN, STRONGER, TrustPath, Verified, named, of_kind, server_usage},
    names::{dotted, shown_name},
    verdict::{ProbeFinding, ProbeReason},
};
use crate::certificate::{
    der::{element, elements},
    oid, readers,
};

/// Signatures that one search checks, as in Go.
const MAX_CHECKS: usize = 100;
/// Bits of the smallest RSA key whose signatures Go verifies (since 1.24), and of the largest that a server may show.
const RSA_BITS: std::ops::RangeInclusive<usize> = 1024..=8192;

struct PathSearch<'a> {
    chain: &'a Chain<'a>,
    checks: usize,
    /// the first fault of a way that led to the bundle
    fault: Option<ProbeFinding>,
}

/// The chain that Go finds; or why it refuses, None if there is no way to the bundle.
pub(super) fn verify<'a>(chain: &'a Chain<'a>) -> Verified<'a> {
    for (index, cert) in &chain.presented {
        if let Some(why) = readers::go_fault(cert.der()) {
            let text = format!("it does not parse certificate {index} of the chain, {} ({why})", named(cert));
            return Err(Some(ProbeFinding::new(
                ProbeReason::Malformed,
                text,
                "have this certificate issued anew without the fault",
            )));
        }
        if cert.key.kind == "RSA" && cert.key.bits > *RSA_BITS.end() {
            let text = format!(
                "certificate {index} of the chain, {}, has an RSA key of more than {} bits",
                named(cert),
                RSA_BITS.end()
            );
            return Err(Some(ProbeFinding::new(ProbeReason::Weak, text, "have it issued anew with a smaller key")));
        }
    }
    let leaf = chain.leaf();
    if let Some(fault) = own_fault(chain, leaf, 0) {
        return Err(Some(fault));
    }
    if let Some(own) = chain.candidates.iter().find(|anchor| anchor.fingerprint == leaf.fingerprint) {
        return match purpose_fault(&[leaf]) {
            Some(fault) => Err(Some(fault)),
            None => Ok(TrustPath { certs: vec![leaf], anchor: own }),
        };
    }
    let mut search = PathSearch { chain, checks: 0, fault: None };
    let found = search.above(&[leaf]);
    found.ok_or(search.fault)
}

impl<'a> PathSearch<'a> {
    fn above(&mut self, below: &[&'a Cert]) -> Option<TrustPath<'a>> {
        let cert = *below.last()?;
        for anchor in self.chain.candidates.iter().filter(|anchor| anchor.subject.raw == cert.issuer.raw) {
            if is_in(anchor, below) {
                continue;
            }
            if let Some(why) = readers::go_fault(anchor.der()) {
                self.note(|| {
                    ProbeFinding::new(
                        ProbeReason::Unsupported,
                        format!(
                            "it leaves the CA {} of the bundle out, since it does not parse it ({why})",
                            named(anchor)
                        ),
                        "have the CA's certificate issued anew without the fault: no program in Go can use it",
                    )
                });
                continue;
            }
            if !self.consider(anchor, below, true) {
                continue;
            }
            let chain: Vec<&Cert> = below.iter().copied().chain([&**anchor]).collect();
            match purpose_fault(&chain).or_else(|| policy_fault(&chain)) {
                Some(fault) => self.note(|| fault),
                None => return Some(TrustPath { certs: below.to_vec(), anchor }),
            }
        }
        let above = self.chain.presented.iter().skip(1).map(|(_, cert)| cert);
        for issuer in above.filter(|issuer| issuer.subject.raw == cert.issuer.raw) {
            if below.len() < MAX_CHAIN && !is_in(issuer, below) && self.consider(issuer, below, false) {
                let longer: Vec<&Cert> = below.iter().copied().chain([issuer]).collect();
                let found = self.above(&longer);
                if found.is_some() {
                    return found;
                }
            }
        }
        None
    }

    fn note(&mut self, fault: impl FnOnce() -> ProbeFinding) {
        self.fault.get_or_insert_with(fault);
    }

    /// Whether a certificate may stand above these.
    fn consider(&mut self, issuer: &Cert, below: &[&'a Cert], is_anchor: bool) -> bool {
        self.checks += 1;
        let Some(cert) = below.last().filter(|_| self.checks <= MAX_CHECKS) else { return false };
        if issuer.has_signed(cert) == Some(false) {
            return false; // another key of this name has signed it
        }
        match signer_fault(issuer, cert, is_anchor).or_else(|| self.place_fault(issuer, below, is_anchor)) {
            Some(fault) => {
                self.note(|| fault);
                false
            }
            None => true,
        }
    }

    /// What speaks against a certificate in this place of the chain.
    fn place_fault(&self, issuer: &Cert, below: &[&'a Cert], is_anchor: bool) -> Option<ProbeFinding> {
        let presented = self.chain.presented.iter().find(|(_, cert)| cert.fingerprint == issuer.fingerprint);
        let own = match is_anchor {
            true => anchor_fault(self.chain, issuer),
            false => own_fault(self.chain, issuer, presented.map_or(0, |(index, _)| *index)),
        };
        if own.is_some() {
            return own;
        }
        let whose = if is_anchor { "the CA in the store," } else { "the CA" };
        let refused_name = issuer.subtrees().and_then(|subtrees| {
            let bound = [below.first().copied(), Some(issuer)];
            bound.into_iter().flatten().find_map(|cert| constraint_fault(cert, &subtrees))
        });
        if let Some(name) = refused_name {
            let text = format!("{whose} {} may not issue for {name} (nameConstraints)", named(issuer));
            return Some(ProbeFinding::new(ProbeReason::Constraint, text, ANEW));
        }
        let constraints = issuer.constraints();
        if !is_anchor && !constraints.is_some_and(|(is_ca, _)| is_ca) {
            let text = format!("{} has signed the certificate below it, and is not a CA", named(issuer));
            let next = "have the server's certificate issued by a CA";
            return Some(ProbeFinding::new(ProbeReason::WrongUsage, text, next));
        }
        let length = constraints.and_then(|(_, length)| length).and_then(|length| usize::try_from(length).ok());
        length.filter(|length| below.len() - 1 > *length).map(|_| {
            let text = format!("the chain is longer than {whose} {} allows (pathLenConstraint)", named(issuer));
            let next = "have the server's certificate issued by a CA further up";
            ProbeFinding::new(ProbeReason::Constraint, text, next)
        })
    }
}

const ANEW: &str = "have the server's certificate issued anew within the CA's limits";

/// `alreadyInChain`: the same name, key and alternative names.
fn is_in(cert: &Cert, chain: &[&Cert]) -> bool {
    chain.iter().any(|other| cert.is_same(other))
}

/// `CheckSignatureFrom`, but for the signature itself.
fn signer_fault(issuer: &Cert, cert: &Cert, is_anchor: bool) -> Option<ProbeFinding> {
    let (place, next) = match is_anchor {
        true => (" in the store", "give a source the CA that issued it, or one that is made for this use"),
        false => ("", "have this CA's certificate issued anew"),
    };
    let issuer_name = named(issuer);
    if let Some(why) = issuer.no_authority() {
        return Some(ProbeFinding::new(ProbeReason::WrongUsage, format!("the CA {issuer_name}{place} {why}"), next));
    }
    // an empty keyUsage counts as none
    if issuer.usage().is_some_and(|usage| usage != 0 && usage & KEY_CERT_SIGN == 0) {
        let text = format!("the CA {issuer_name}{place} may not sign certificates: its keyUsage lacks keyCertSign");
        return Some(ProbeFinding::new(ProbeReason::WrongUsage, text, next));
    }
    if let Some(algorithm) = cert.weak_signature() {
        let text = format!("{} is signed with {algorithm}", named(cert));
        return Some(ProbeFinding::new(ProbeReason::Weak, text, STRONGER));
    }
    if issuer.key.kind == "RSA" && issuer.key.bits < *RSA_BITS.start() {
        let text = format!("the key of {issuer_name} ({}) is too small", issuer.key);
        return Some(ProbeFinding::new(ProbeReason::Weak, text, STRONGER));
    }
    (!is_known(cert.algorithm())).then(|| {
        let text = format!("{} is signed with an algorithm that Go does not have", named(cert));
        ProbeFinding::new(ProbeReason::Unsupported, text, STRONGER)
    })
}

/// Signature algorithms that Go verifies, encoded.
fn is_known(algorithm: &[u8]) -> bool {
    const KNOWN: [&[u8]; 8] = [
        b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b", // RSA with SHA-256, 384, 512
        b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0c",
        b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0d",
        b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0a", // RSA-PSS
        b"\x2a\x86\x48\xce\x3d\x04\x03\x02",     // ECDSA with the same
        b"\x2a\x86\x48\xce\x3d\x04\x03\x03",
        b"\x2a\x86\x48\xce\x3d\x04\x03\x04",
        b"\x2b\x65\x70", // Ed25519
    ];
    KNOWN.contains(&algorithm)
}

/// What speaks against a certificate of the bundle wherever it stands.
fn anchor_fault(chain: &Chain<'_>, anchor: &Cert) -> Option<ProbeFinding> {
    if let Some(oid) = unhandled(anchor) {
        let text =
            format!("the CA {} in the store has a critical extension that Go does not handle ({oid})", named(anchor));
        return Some(ProbeFinding::new(
            ProbeReason::Constraint,
            text,
            "give a source the CA that issued it, or one that is made for this use",
        ));
    }
    chain.anchor_time_fault(anchor)
}

/// The same for one that the server has sent.
fn own_fault(chain: &Chain<'_>, cert: &Cert, index: usize) -> Option<ProbeFinding> {
    if let Some(oid) = unhandled(cert) {
        let text = format!(
            "certificate {index} of the chain, {}, has a critical extension that Go does not handle ({oid})",
            named(cert)
        );
        return Some(ProbeFinding::new(ProbeReason::Constraint, text, ANEW));
    }
    chain.time_finding(cert, index)
}

/// A critical extension that Go parses and does not handle, or does not know.
fn unhandled(cert: &Cert) -> Option<String> {
    let handled = |extension: &&Extension| match &*extension.oid {
        oid::SUBJECT_NAMES => cert.alternative_names().iter().any(|(kind, _)| matches!(kind, 1 | 2 | 6 | 7)),
        oid::NAME_CONSTRAINTS => cert
            .subtrees()
            .is_none_or(|both| both.iter().flatten().all(|subtree| matches!(subtree.kind, 1 | 2 | 6 | 7))),
        oid::KEY_USAGE
        | oid::BASIC_CONSTRAINTS
        | oid::CRL_POINTS
        | oid::AUTHORITY_KEY_ID
        | oid::EXTENDED_KEY_USAGE
        | oid::SUBJECT_KEY_ID
        | oid::POLICIES
        | oid::POLICY_MAPPINGS
        | oid::POLICY_CONSTRAINTS
        | oid::INHIBIT_ANY_POLICY
        | oid::AUTHORITY_INFO => true,
        _ => false,
    };
    cert.extensions
        .iter()
        .filter(|extension| extension.critical)
        .find(|extension| !handled(extension))
        .map(|extension| dotted(&extension.oid))
}

/// Purposes are nested: each certificate that names some takes the others away.
fn purpose_fault(chain: &[&Cert]) -> Option<ProbeFinding> {
    chain.iter().enumerate().rev().find_map(|(index, cert)| {
        let purposes = cert.purposes().filter(|purposes| !purposes.is_empty())?;
        let serves = purposes.iter().any(|purpose| [oid::SERVER_AUTH, oid::ANY_PURPOSE].contains(purpose));
        (!serves).then(|| server_usage(cert, index))?
    })
}

/// Since Go 1.24: a CA that wants explicit policies (policyConstraints, requireExplicitPolicy), and a chain that has none.
fn policy_fault(chain: &[&Cert]) -> Option<ProbeFinding> {
    let wants = |cert: &&&Cert| {
        let constraints = cert.extension(oid::POLICY_CONSTRAINTS).and_then(element);
        constraints.is_some_and(|constraints| elements(constraints.content).any(|field| field.tag == 0x80))
    };
    let strict = chain.iter().skip(1).find(wants)?;
    let bare = chain.iter().rev().skip(1).find(|cert| cert.extension(oid::POLICIES).is_none())?;
    let text = format!(
        "the CA {} wants certificatePolicies in all that it issues, and {} has none",
        named(strict),
        named(bare)
    );
    Some(ProbeFinding::new(ProbeReason::Constraint, text, ANEW))
}

/// A name of a certificate that these constraints do not allow.
fn constraint_fault(cert: &Cert, [permitted, excluded]: &[Vec<Subtree<'_>>; 2]) -> Option<String> {
    cert.alternative_names().into_iter().find_map(|(kind, name)| {
        let matches = |subtree: &&Subtree<'_>| match kind {
            2 => domain_matches(name, subtree.base),
            7 => address_matches(name, subtree.base),
            1 => mail_matches(name, subtree.base),
            6 => uri_host(name).is_some_and(|host| domain_matches(host, subtree.base)),
            _ => false,
        };
        let (permitted, excluded) = (of_kind(permitted, kind), of_kind(excluded, kind));
        let fits = matches!(kind, 1 | 2 | 6 | 7);
        let refused = excluded.iter().any(|subtree| matches(&subtree))
            || (!permitted.is_empty() && !permitted.iter().any(|subtree| matches(&subtree)));
        (fits && refused).then(|| shown_name(kind, name))
    })
}

/// Labels from the right, in any case; a leading dot wants one label more.
fn domain_matches(domain: &[u8], constraint: &[u8]) -> bool {
    let (deeper, constraint) = match constraint.strip_prefix(b".") {
        _ if constraint.is_empty() => return true,
        Some(rest) => (true, rest),
        None => (false, constraint),
    };
    let Some(at) = domain.len().checked_sub(constraint.len()) else { return false };
    let (before, end) = domain.split_at(at);
    end.eq_ignore_ascii_case(constraint) && if before.is_empty() { !deeper } else { before.ends_with(b".") }
}

fn address_matches(address: &[u8], constraint: &[u8]) -> bool {
    let (base, mask) = constraint.split_at(constraint.len() / 2);
    address.len() == base.len()
        && address.iter().zip(base).zip(mask).all(|((byte, base), mask)| byte & mask == base & mask)
}

fn mail_matches(mail: &[u8], constraint: &[u8]) -> bool {
    let host = mail.iter().rposition(|byte| *byte == b'@').map_or(mail, |at| &mail[at + 1..]);
    if constraint.contains(&b'@') { mail == constraint } else { domain_matches(host, constraint) }
}

fn uri_host(uri: &[u8]) -> Option<&[u8]> {
    let at = memchr::memmem::find(uri, b"://")? + 3;
    let rest = &uri[at..];
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?' | b'#' | b':')).unwrap_or(rest.len());
    Some(&rest[..end])
}
