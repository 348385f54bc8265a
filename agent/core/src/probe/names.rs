//! Names in certificates: for people, and whether they are for a host.

use x509_parser::{prelude::FromDer, x509::X509Name};

use super::{
    cert::Cert,
    chain::named,
    target::Target,
    verdict::{ProbeFinding, ProbeReason},
};
use crate::certificate::name;

/// Names of a certificate that are shown.
const MAX_NAMES: usize = 8;

/// What is wrong with the names of a server's certificate; None if one of them is for the target.
pub(super) fn name_finding(target: &Target, leaf: &Cert) -> Option<ProbeFinding> {
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
        return Some(ProbeFinding::new(
            ProbeReason::NameMismatch,
            text,
            format!("have it issued with the subjectAltName {host}"),
        ));
    }
    let mut names: Vec<String> = all.iter().take(MAX_NAMES).map(|(kind, name)| shown_name(*kind, name)).collect();
    if all.len() > MAX_NAMES {
        names.push(format!("and {} more", all.len() - MAX_NAMES));
    }
    let text = format!("the server's certificate is not for {host}, but for {}", names.join(", "));
    let next = format!("use a name that the certificate has, or have it issued for {host} as well");
    Some(ProbeFinding::new(ProbeReason::NameMismatch, text, next))
}

/// OpenSSL looks at the common name of a certificate that has no dNSName.
pub(super) fn is_for_host_by_common_name(target: &Target, leaf: &Cert) -> bool {
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

/// An object identifier with its numbers.
pub(super) fn dotted(oid: &[u8]) -> String {
    let mut numbers: Vec<u64> = Vec::new();
    let mut number = 0u64;
    for byte in oid {
        number = number << 7 | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            if numbers.is_empty() {
                let first = (number / 40).min(2);
                numbers.push(first);
                number -= first * 40;
            }
            numbers.push(number);
            number = 0;
        }
    }
    name::shown(&numbers.iter().map(u64::to_string).collect::<Vec<_>>().join("."))
}

/// A name of subjectAltName for people, by the number of its kind.
pub(super) fn shown_name(kind: u8, name: &[u8]) -> String {
    match (kind, name.len()) {
        (7, 4) => std::net::Ipv4Addr::new(name[0], name[1], name[2], name[3]).to_string(),
        (7, 16) => {
            <[u8; 16]>::try_from(name).map(|octets| std::net::Ipv6Addr::from(octets).to_string()).unwrap_or_default()
        }
        (7, _) => "an address of another length".to_owned(),
        (4, _) => directory_name(name),
        _ => name::shown(&String::from_utf8_lossy(name)),
    }
}

/// A directory name for people.
pub(super) fn directory_name(raw: &[u8]) -> String {
    X509Name::from_der(raw).map_or_else(|_| "a directory name".to_owned(), |(_, parsed)| name::display(&parsed))
}
