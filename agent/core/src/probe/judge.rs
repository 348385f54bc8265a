//! The judgement of a chain: Go and OpenSSL verify it, and where they agree on nothing, [`diagnose`](super::diagnose) says why.

use super::{
    cert::Cert,
    chain::{Chain, Facts, MAX_CHAIN, TrustPath, named},
    go,
    names::{is_for_host_by_common_name, name_finding},
    openssl,
    target::Target,
    verdict::{ChainAnchor, ChainCertificate, Probe, ProbeFinding, ProbeReason, ProbeVerdict},
};
use crate::time::Time;

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
    let chain = match decode(presented) {
        Ok(decoded) => Chain::new(decoded, facts),
        Err(finding) => return probe.refused([finding]),
    };
    probe.chain = chain.presented.iter().map(|(index, cert)| ChainCertificate::new(*index, cert)).collect();
    probe.not_after = chain.presented.iter().map(|(_, cert)| Time(cert.not_after)).min();
    let name = name_finding(target, chain.leaf());
    match (go::verify(&chain), openssl::verify(&chain)) {
        (Ok(path), openssl) => {
            probe.notes.extend(match openssl {
                Ok(_) if name.is_some() && is_for_host_by_common_name(target, chain.leaf()) => Some(
                    "OpenSSL accepts it, Go refuses: only the common name of the server's certificate is for this host, and Go does not \
                     look at it"
                        .to_owned(),
                ),
                Ok(_) => None,
                Err(Some(finding)) => Some(format!("Go accepts it, OpenSSL refuses: {}", finding.text)),
                Err(None) => Some(
                    "Go accepts it, OpenSSL refuses: it finds no way from the server's certificate to the bundle".to_owned(),
                ),
            });
            accepted_by_go(probe, &chain, &path, name)
        }
        (Err(finding), Ok(path)) => accepted_by_openssl_alone(probe, &chain, finding, path.anchor, name),
        (Err(go), Err(openssl)) => {
            let mut findings = chain.diagnose(go, openssl);
            findings.extend(name);
            probe.refused(findings)
        }
    }
}

/// Takes apart what was presented, each with its place; or says why a client ends the handshake.
fn decode(presented: &[Vec<u8>]) -> Result<Vec<(usize, Cert)>, ProbeFinding> {
    let mut decoded = Vec::new();
    for (index, der) in presented.iter().take(MAX_CHAIN).enumerate() {
        let Some(cert) = Cert::decode(der) else {
            let text = match index {
                0 => "the server's certificate cannot be used: it is no X.509 certificate".to_owned(),
                _ => format!(
                    "certificate {index} of the chain cannot be used: it is no X.509 certificate, and clients end the handshake for it"
                ),
            };
            let next = "give the server certificates without damage";
            return Err(ProbeFinding::new(ProbeReason::Malformed, text, next));
        };
        decoded.push((index, cert));
    }
    match decoded.is_empty() {
        false => Ok(decoded),
        true => {
            let next = "look at the server's TLS setup";
            Err(ProbeFinding::new(ProbeReason::Malformed, "the server sent no certificate", next))
        }
    }
}

/// Go finds a way to the bundle. What is left are the name, and whether the runtime has read the anchor yet.
fn accepted_by_go(mut probe: Probe, chain: &Chain<'_>, path: &TrustPath<'_>, name: Option<ProbeFinding>) -> Probe {
    let TrustPath { certs, anchor } = path;
    let end = chain.end(anchor);
    probe.not_after = certs.iter().map(|cert| cert.not_after).chain([anchor.not_after]).min().map(Time);
    probe.notes.extend(chain.notes(&end, anchor));
    probe.anchor = Some(end);
    if let Some(finding) = name {
        return probe.refused([finding]);
    }
    if let Some(behind) = chain.facts.behind.filter(|behind| behind.missing.contains(&anchor.fingerprint)) {
        let text = format!("the store trusts {}; {}", named(anchor), behind.why);
        let refused = probe.refused([ProbeFinding::new(ProbeReason::RuntimeStale, text, behind.next.clone())]);
        return Probe { verdict: ProbeVerdict::NotTrustedByRuntime, ..refused };
    }
    probe.text = probe.anchor.as_ref().map(ChainAnchor::sentence).unwrap_or_default();
    probe
}

/// Go refuses what OpenSSL accepts: the container runtime does not pull from there.
fn accepted_by_openssl_alone(
    mut probe: Probe,
    chain: &Chain<'_>,
    finding: Option<ProbeFinding>,
    anchor: &Cert,
    name: Option<ProbeFinding>,
) -> Probe {
    let finding = finding.unwrap_or_else(|| chain.unlike_names(anchor));
    probe.anchor = Some(chain.end(anchor));
    let note = format!("OpenSSL accepts it, Go refuses: {}", finding.text);
    let text = format!("programs in Go, such as the container runtime, refuse it: {}", finding.text);
    let mut refused = probe.refused([ProbeFinding { text, ..finding }].into_iter().chain(name));
    refused.notes.insert(0, note);
    refused
}
