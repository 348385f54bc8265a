//! OpenSSL: `X509_verify_cert` for a TLS client (crypto/x509/x509_vfy.c and v3_purp.c of 3.0), with the defaults that curl, Python
//! and `openssl s_client` use: no partial chains, security level 2 as Debian, Fedora and SUSE set it.
//!
//! Names are compared by their canonical form. One way up is built, without trying again: the first issuer by name and key
//! identifier counts, the bundle before what the server sends.

use std::sync::Arc;

use super::{
    cert::{Cert, KEY_CERT_SIGN, SERVER_USAGES, Subtree},
    chain::{Chain, MAX_CHAIN, STRONGER, TrustPath, Verified, named, of_kind},
    names::{dotted, shown_name},
    verdict::{ProbeFinding, ProbeReason},
};
use crate::certificate::{
    der::{content_of, element, elements},
    oid, readers,
};

/// Bits of the smallest and largest RSA key.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=16_384;
/// Bits of the smallest elliptic curve.
const LEAST_CURVE_BITS: usize = 224;

/// The chain that OpenSSL builds; or why it refuses, None if there is no way to the bundle.
pub(super) fn verify<'a>(chain: &'a Chain<'a>) -> Verified<'a> {
    for (index, cert) in &chain.presented {
        if let Some(why) = readers::openssl_fault(cert.der()) {
            let text = format!("it does not decode certificate {index} of the chain, {} ({why})", named(cert));
            return Err(Some(ProbeFinding::new(
                ProbeReason::Malformed,
                text,
                "have this certificate issued anew without the fault",
            )));
        }
    }
    let path = build(chain)?;
    let TrustPath { certs, anchor } = &path;
    let is_own_end = certs.last().is_some_and(|last| last.fingerprint == anchor.fingerprint);
    let whole: Vec<&Cert> = certs.iter().copied().chain((!is_own_end).then_some(&***anchor)).collect();
    let fault = (0..whole.len())
        .find_map(|at| extension_fault(&whole, at))
        .or_else(|| key_fault(&whole))
        .or_else(|| constraint_fault(&whole))
        .or_else(|| signature_fault(&whole))
        .or_else(|| time_fault(chain, certs, anchor));
    match fault {
        Some(fault) => Err(Some(fault)),
        None => Ok(path),
    }
}

/// Builds the one way up that OpenSSL takes, to the root in the bundle where it ends.
fn build<'a>(chain: &'a Chain<'a>) -> Verified<'a> {
    let now = chain.facts.now.wall;
    let mut path: Vec<&Cert> = vec![chain.leaf()];
    let mut in_bundle: Option<&Arc<Cert>> = None;
    loop {
        let cert: &Cert = in_bundle.map_or(path[path.len() - 1], |anchor| anchor);
        if is_self_signed(cert) {
            let own = chain.candidates.iter().find(|anchor| anchor.fingerprint == cert.fingerprint);
            return own.map(|anchor| TrustPath { certs: path, anchor }).ok_or(None);
        }
        let valid_first = |mut fitting: Vec<&'a Arc<Cert>>| {
            fitting.sort_by_key(|issuer| !(issuer.not_before <= now && now <= issuer.not_after)); // stable
            fitting.first().copied()
        };
        let trusted = valid_first(chain.candidates.iter().filter(|issuer| may_issue(issuer, cert)).collect());
        match trusted {
            Some(anchor) if is_self_signed(anchor) => {
                return Ok(TrustPath { certs: path_of(path, in_bundle), anchor });
            }
            // one that is no root: what is above it must be in the bundle as well
            Some(anchor) if path.len() < MAX_CHAIN => {
                path = path_of(path, in_bundle);
                in_bundle = Some(anchor);
                continue;
            }
            _ => {}
        }
        if let Some(anchor) = in_bundle {
            return Err(Some(no_root(anchor)));
        }
        let above = chain.presented.iter().skip(1).map(|(_, issuer)| issuer);
        let mut fitting: Vec<&Cert> = above
            .filter(|issuer| may_issue(issuer, cert) && !path.iter().any(|used| used.fingerprint == issuer.fingerprint))
            .collect();
        fitting.sort_by_key(|issuer| !(issuer.not_before <= now && now <= issuer.not_after));
        match fitting.first() {
            Some(issuer) if path.len() < MAX_CHAIN => path.push(issuer),
            _ => {
                let held = chain.candidates.iter().find(|anchor| anchor.fingerprint == cert.fingerprint);
                return Err(held.map(|anchor| no_root(anchor)).or_else(|| misfit(chain, cert)));
            }
        }
    }
}

fn path_of<'a>(mut path: Vec<&'a Cert>, in_bundle: Option<&'a Arc<Cert>>) -> Vec<&'a Cert> {
    path.extend(in_bundle.map(|anchor| &**anchor));
    path
}

fn no_root(anchor: &Cert) -> ProbeFinding {
    let text =
        format!("{} in the store is no root, and OpenSSL only takes such an end with partial chains", named(anchor));
    ProbeFinding::new(ProbeReason::UnknownIssuer, text, "add its root to a source as well")
}

/// Why a CA of the right name in the bundle is none for OpenSSL.
fn misfit(chain: &Chain<'_>, cert: &Cert) -> Option<ProbeFinding> {
    let anchor = chain
        .candidates
        .iter()
        .find(|anchor| anchor.subject.hash == cert.issuer.hash && anchor.has_signed(cert) != Some(false))?;
    let why = if let Some(extension) = invalid(anchor) {
        format!("has an extension that OpenSSL takes for invalid ({extension})")
    } else if anchor.cannot_sign() {
        "may not sign certificates: its keyUsage lacks keyCertSign".to_owned()
    } else if !fits_key_id(anchor, cert) {
        format!("has another key identifier than {} names", named(cert))
    } else {
        format!("has another kind of key than the signature of {}", named(cert))
    };
    let text = format!("the CA {} in the store {why}", named(anchor));
    Some(ProbeFinding::new(
        ProbeReason::WrongUsage,
        text,
        "give a source the CA that issued it, or one that is made for this use",
    ))
}

/// `X509_check_issued`, which looks at everything but the signature.
fn may_issue(issuer: &Cert, cert: &Cert) -> bool {
    issuer.subject.hash == cert.issuer.hash
        && invalid(issuer).is_none()
        && fits_key_id(issuer, cert)
        && !issuer.cannot_sign()
        && is_kind_of(issuer.key_algorithm(), cert.algorithm())
        && readers::openssl_fault(issuer.der()).is_none()
}

/// `X509_check_akid`.
fn fits_key_id(issuer: &Cert, cert: &Cert) -> bool {
    let wanted = cert.authority_key();
    if let (Some(wanted), Some(own)) = (wanted.key_id, issuer.key_id())
        && wanted != own
    {
        return false;
    }
    if wanted.serial.is_some_and(|serial| serial != &*issuer.serial) {
        return false;
    }
    wanted.directory_name().is_none_or(|name| name == &*issuer.issuer.raw)
}

/// `EXFLAG_SS`.
fn is_self_signed(cert: &Cert) -> bool {
    cert.subject.hash == cert.issuer.hash
        && fits_key_id(cert, cert)
        && is_kind_of(cert.key_algorithm(), cert.algorithm())
}

/// Whether a signature's algorithm is of this kind of key.
fn is_kind_of(key: &[u8], algorithm: &[u8]) -> bool {
    const RSA: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x01";
    const ECDSA: &[u8] = b"\x2a\x86\x48\xce\x3d\x04";
    const DSA: [&[u8]; 2] = [b"\x2a\x86\x48\xce\x38\x04", b"\x60\x86\x48\x01\x65\x03\x04\x03"];
    match key {
        // RSA, and RSA-PSS
        [rest @ .., 1] if rest == RSA => {
            algorithm.starts_with(RSA) && algorithm.len() == RSA.len() + 1 || algorithm == b"\x2b\x0e\x03\x02\x1d"
        }
        [rest @ .., 10] if rest == RSA => algorithm == b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0a",
        b"\x2a\x86\x48\xce\x3d\x02\x01" => algorithm.starts_with(ECDSA),
        b"\x2a\x86\x48\xce\x38\x04\x01" => DSA.iter().any(|dsa| algorithm.starts_with(dsa)),
        // the Edwards curves, whose key and signature have one identifier
        [0x2b, 0x65, 0x70 | 0x71] => key == algorithm,
        _ => false,
    }
}

/// `EXFLAG_INVALID`: an extension that OpenSSL uses, and cannot read; by its name.
pub(super) fn invalid(cert: &Cert) -> Option<&'static str> {
    type Rule = (&'static [u8], &'static str, fn(&[u8]) -> bool);
    let known: [Rule; 8] = [
        (oid::BASIC_CONSTRAINTS, "basicConstraints", is_constraints),
        (oid::KEY_USAGE, "keyUsage", is_usage),
        (oid::EXTENDED_KEY_USAGE, "extendedKeyUsage", |value| is_list(value, |tag| tag == 0x06)),
        (oid::SUBJECT_KEY_ID, "subjectKeyIdentifier", |value| content_of(0x04, value).is_some_and(|id| !id.is_empty())),
        (oid::AUTHORITY_KEY_ID, "authorityKeyIdentifier", |value| {
            is_list(value, |tag| matches!(tag, 0x80 | 0xa1 | 0x82))
        }),
        (oid::SUBJECT_NAMES, "subjectAltName", |value| is_list(value, is_name)),
        (oid::NAME_CONSTRAINTS, "nameConstraints", |value| is_list(value, |tag| matches!(tag, 0xa0 | 0xa1))),
        (oid::CRL_POINTS, "cRLDistributionPoints", |value| is_list(value, |tag| tag == 0x30)),
    ];
    known.into_iter().find_map(|(oid, name, fits)| {
        let mut all = cert.extensions.iter().filter(|extension| *extension.oid == *oid);
        let first = all.next()?;
        (all.next().is_some() || !cert.extension(&first.oid).is_some_and(fits)).then_some(name)
    })
}

fn is_list(value: &[u8], fits: fn(u8) -> bool) -> bool {
    content_of(0x30, value)
        .is_some_and(|list| elements(list).all(|element| fits(element.tag)) && elements(list).are_whole())
}

fn is_name(tag: u8) -> bool {
    matches!(tag, 0xa0 | 0x81 | 0x82 | 0xa3 | 0xa4 | 0xa5 | 0x86 | 0x87 | 0x88)
}

fn is_constraints(value: &[u8]) -> bool {
    let Some(constraints) = content_of(0x30, value) else { return false };
    let mut fields = elements(constraints);
    let boolean = fields.next_if(0x01);
    let length = fields.next_if(0x02);
    boolean.is_none_or(|boolean| boolean.content.len() == 1)
        && length.is_none_or(|length| length.content.first().is_some_and(|first| first & 0x80 == 0))
        && fields.next().is_none()
        && fields.are_whole()
}

/// At least one bit is set.
fn is_usage(value: &[u8]) -> bool {
    content_of(0x03, value).and_then(|bits| bits.get(1..)).is_some_and(|bytes| bytes.iter().any(|byte| *byte != 0))
}

/// Certificates between the server's own and this one that count for a path's length.
fn below(whole: &[&Cert], at: usize) -> usize {
    whole.iter().take(at).skip(1).filter(|cert| cert.subject.hash != cert.issuer.hash).count()
}

/// `check_extensions`, for one certificate of the chain.
fn extension_fault(whole: &[&Cert], at: usize) -> Option<ProbeFinding> {
    let (cert, is_leaf, is_last) = (whole[at], at == 0, at + 1 == whole.len());
    let next = "have it issued anew, or use another CA";
    let fault = |reason, text: String| Some(ProbeFinding::new(reason, format!("{} {text}", named(cert)), next));
    let supported: [&[u8]; 15] = [
        oid::NETSCAPE_TYPE,
        oid::KEY_USAGE,
        oid::SUBJECT_NAMES,
        oid::BASIC_CONSTRAINTS,
        oid::POLICIES,
        oid::CRL_POINTS,
        oid::EXTENDED_KEY_USAGE,
        oid::ADDRESS_BLOCKS,
        oid::AS_NUMBERS,
        oid::NO_CHECK,
        oid::POLICY_CONSTRAINTS,
        oid::PROXY_INFO,
        oid::NAME_CONSTRAINTS,
        oid::POLICY_MAPPINGS,
        oid::INHIBIT_ANY_POLICY,
    ];
    if let Some(extension) =
        cert.extensions.iter().find(|extension| extension.critical && !supported.contains(&&*extension.oid))
    {
        return fault(
            ProbeReason::Constraint,
            format!("has a critical extension that OpenSSL does not handle ({})", dotted(&extension.oid)),
        );
    }
    if let Some(name) = invalid(cert) {
        return fault(ProbeReason::Constraint, format!("has an extension that OpenSSL takes for invalid ({name})"));
    }
    let constraints = cert.constraints();
    // without basicConstraints: an old root, or one that its keyUsage makes a CA
    let is_old_root = cert.version == 1 && is_self_signed(cert);
    let is_ca = match constraints {
        Some((is_ca, _)) => is_ca,
        // what is between must say so itself
        None if !is_last => false,
        None => is_old_root || cert.usage().is_some_and(|usage| usage & KEY_CERT_SIGN != 0) || is_netscape_ca(cert),
    };
    if !is_leaf && !is_ca {
        let why = cert.no_authority().unwrap_or("does not say that it is a CA");
        return fault(ProbeReason::WrongUsage, why.to_owned());
    }
    if let Some(purposes) = cert.purposes()
        && !purposes.iter().any(|purpose| SERVER_PURPOSES.contains(purpose))
    {
        return fault(ProbeReason::WrongUsage, "is not for servers: its extendedKeyUsage lacks serverAuth".to_owned());
    }
    if is_leaf && cert.usage().is_some_and(|usage| usage & SERVER_USAGES == 0) {
        return fault(
            ProbeReason::WrongUsage,
            "is not for servers: its keyUsage has neither digitalSignature, keyEncipherment nor keyAgreement"
                .to_owned(),
        );
    }
    let length = constraints.and_then(|(_, length)| length).and_then(|length| usize::try_from(length).ok());
    if at > 1 && length.is_some_and(|length| below(whole, at) > length) {
        return fault(ProbeReason::Constraint, "allows no chain of this length (pathLenConstraint)".to_owned());
    }
    None
}

/// The purposes that make a certificate one for servers: serverAuth, and server-gated cryptography as Microsoft (msSGC) and Netscape
/// (nsSGC) named it. anyExtendedKeyUsage is not among them.
const SERVER_PURPOSES: [&[u8]; 3] =
    [oid::SERVER_AUTH, b"\x2b\x06\x01\x04\x01\x82\x37\x0a\x03\x03", b"\x60\x86\x48\x01\x86\xf8\x42\x04\x01"];

/// Netscape's old mark of a CA for servers.
fn is_netscape_ca(cert: &Cert) -> bool {
    cert.extension(oid::NETSCAPE_TYPE).is_some_and(|value| value.get(3).is_some_and(|bits| bits & 0x04 != 0))
}

/// `check_auth_level`: keys, and signatures but for the root's own.
fn key_fault(whole: &[&Cert]) -> Option<ProbeFinding> {
    let level = "at its security level 2, which Debian, Fedora and SUSE set";
    whole.iter().enumerate().find_map(|(at, cert)| {
        let too_small = match cert.key.kind.as_str() {
            "RSA" => cert.key.bits < *RSA_BITS.start(),
            "EC" => cert.key.bits > 0 && cert.key.bits < LEAST_CURVE_BITS,
            _ => false,
        };
        let text = if too_small {
            format!("the key of {} ({}) is too small {level}", named(cert), cert.key)
        } else if cert.key.kind == "RSA" && cert.key.bits > *RSA_BITS.end() {
            format!("the key of {} ({}) is too large", named(cert), cert.key)
        } else {
            let algorithm = cert.weak_signature().filter(|_| at + 1 < whole.len())?;
            format!("{} is signed with {algorithm}, which is too weak {level}", named(cert))
        };
        Some(ProbeFinding::new(ProbeReason::Weak, text, STRONGER))
    })
}

fn signature_fault(whole: &[&Cert]) -> Option<ProbeFinding> {
    whole.windows(2).find_map(|pair| {
        let (cert, issuer) = (pair[0], pair[1]);
        let wrong = !cert.has_one_algorithm() || issuer.has_signed(cert) == Some(false);
        wrong.then(|| {
            let text = format!("{} is not signed by the key of {}, the first CA of that name that OpenSSL finds, and it tries no other", named(cert), named(issuer));
            ProbeFinding::new(ProbeReason::BadSignature, text, "have certificates issued with an authorityKeyIdentifier, and CAs with a subjectKeyIdentifier")
        })
    })
}

fn time_fault(chain: &Chain<'_>, path: &[&Cert], anchor: &Cert) -> Option<ProbeFinding> {
    let odd = path.iter().copied().chain([anchor]).find(|cert| !cert.plain_times);
    if let Some(cert) = odd {
        let text =
            format!("{} has a time that is not written as OpenSSL wants it (to the second, in UTC)", named(cert));
        return Some(ProbeFinding::new(ProbeReason::Malformed, text, "have it issued anew"));
    }
    let place = |cert: &Cert| {
        chain.presented.iter().find(|(_, other)| other.fingerprint == cert.fingerprint).map(|(index, _)| *index)
    };
    path.iter()
        .find_map(|cert| chain.time_finding(cert, place(cert).unwrap_or(0)))
        .or_else(|| chain.anchor_time_fault(anchor))
}

/// `check_name_constraints`: every certificate but self-issued ones in between, under those of all above it.
fn constraint_fault(whole: &[&Cert]) -> Option<ProbeFinding> {
    whole.iter().enumerate().rev().find_map(|(at, cert)| {
        if at > 0 && cert.subject.hash == cert.issuer.hash {
            return None;
        }
        whole.iter().skip(at + 1).rev().find_map(|issuer| {
            let subtrees = issuer.subtrees()?;
            let name = refused_name(cert, &subtrees)?;
            let text = format!("the CA {} may not issue for {name} (nameConstraints)", named(issuer));
            Some(ProbeFinding::new(
                ProbeReason::Constraint,
                text,
                "have the server's certificate issued anew within the CA's limits",
            ))
        })
    })
}

/// A name of a certificate, its subject among them, that these constraints do not allow.
fn refused_name(cert: &Cert, [permitted, excluded]: &[Vec<Subtree<'_>>; 2]) -> Option<String> {
    let subject = (!is_empty_name(&cert.subject.raw)).then_some((4, &*cert.subject.raw));
    let mut names: Vec<(u8, &[u8])> = subject.into_iter().collect();
    names.extend(cert.alternative_names());
    names.into_iter().find_map(|(kind, name)| {
        let (permitted, excluded) = (of_kind(permitted, kind), of_kind(excluded, kind));
        if permitted.iter().chain(&excluded).any(|subtree| subtree.has_distances) {
            return Some(shown_name(kind, name));
        }
        let refused = excluded.iter().any(|subtree| matches(kind, name, subtree.base))
            || (!permitted.is_empty() && !permitted.iter().any(|subtree| matches(kind, name, subtree.base)));
        refused.then(|| shown_name(kind, name))
    })
}

fn is_empty_name(raw: &[u8]) -> bool {
    raw == b"\x30\x00"
}

fn matches(kind: u8, name: &[u8], base: &[u8]) -> bool {
    match kind {
        2 => {
            let Some(at) = name.len().checked_sub(base.len()) else { return false };
            let (before, end) = name.split_at(at);
            let at_label = before.is_empty() || base.starts_with(b".") || before.ends_with(b".");
            base.is_empty() || (at_label && end.eq_ignore_ascii_case(base))
        }
        7 => {
            let (address, mask) = base.split_at(base.len() / 2);
            name.len() == address.len()
                && name.iter().zip(address).zip(mask).all(|((byte, base), mask)| (byte ^ base) & mask == 0)
        }
        1 => {
            let host = name.iter().rposition(|byte| *byte == b'@').map_or(name, |at| &name[at + 1..]);
            match base {
                base if base.starts_with(b".") => {
                    host.len() > base.len() && host.to_ascii_lowercase().ends_with(&base.to_ascii_lowercase())
                }
                base if base.contains(&b'@') => name.eq_ignore_ascii_case(base),
                base => host.eq_ignore_ascii_case(base),
            }
        }
        6 => {
            let Some(at) = memchr::memmem::find(name, b"://") else { return false };
            let rest = &name[at + 3..];
            let end = rest.iter().position(|byte| matches!(byte, b'/' | b':')).unwrap_or(rest.len());
            let host = &rest[..end];
            match base {
                base if base.starts_with(b".") => {
                    host.len() > base.len() && host.to_ascii_lowercase().ends_with(&base.to_ascii_lowercase())
                }
                base => host.eq_ignore_ascii_case(base),
            }
        }
        // directory names: the base is the beginning
        4 => match (element(name), element(base)) {
            (Some(name), Some(base)) => name.content.starts_with(base.content),
            _ => false,
        },
        _ => false,
    }
}
