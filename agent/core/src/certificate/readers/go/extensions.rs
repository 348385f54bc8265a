//! The extensions that Go parses.

use super::{text::Text, url};
use crate::certificate::{
    oid,
    readers::fault::{At, Checked, Decoded, TRAILING},
};

/// Parses all of them.
pub(super) fn extensions(mut tagged: Text<'_>) -> Checked {
    let mut all = tagged.sequence().at("extensions")?;
    let mut seen: Vec<(&[u8], bool, Text<'_>)> = Vec::new();
    while !all.0.is_empty() {
        let mut extension = all.sequence().at("extensions")?;
        let oid = extension.oid().at("extensions")?;
        let critical = extension.peek(0x01) && extension.boolean().at("extensions")?;
        let value = extension.read(0x04).at("extensions")?;
        if seen.iter().any(|(known, ..)| *known == oid) {
            return Err("one of them is there twice").at("extensions");
        }
        seen.push((oid, critical, value));
    }
    for (oid, critical, value) in seen {
        let (place, checked) = match oid {
            oid::KEY_USAGE => ("keyUsage", { value }.bits().map(|_| ())),
            oid::BASIC_CONSTRAINTS => ("basicConstraints", basic_constraints(value)),
            oid::SUBJECT_NAMES => ("subjectAltName", alternative_names(value)),
            oid::NAME_CONSTRAINTS => ("nameConstraints", name_constraints(value)),
            oid::CRL_POINTS => ("cRLDistributionPoints", crl_points(value)),
            oid::AUTHORITY_KEY_ID => ("authorityKeyIdentifier", authority_key(value, critical)),
            oid::POLICY_CONSTRAINTS => ("policyConstraints", policy_constraints(value)),
            oid::EXTENDED_KEY_USAGE => ("extendedKeyUsage", key_purposes(value)),
            oid::SUBJECT_KEY_ID if critical => ("subjectKeyIdentifier", Err(CRITICAL)),
            oid::SUBJECT_KEY_ID => ("subjectKeyIdentifier", { value }.read(0x04).map(|_| ())),
            oid::POLICIES => ("certificatePolicies", policies(value)),
            oid::POLICY_MAPPINGS => ("policyMappings", policy_mappings(value)),
            oid::INHIBIT_ANY_POLICY => ("inhibitAnyPolicy", { value }.small_integer(0x02)),
            oid::AUTHORITY_INFO => ("authorityInfoAccess", authority_info(value, critical)),
            _ => continue,
        };
        checked.at(place)?;
    }
    Ok(())
}

const CRITICAL: &str = "it is marked as critical";

fn basic_constraints(mut value: Text<'_>) -> Decoded<()> {
    let mut constraints = value.sequence()?;
    if constraints.peek(0x01) {
        constraints.boolean()?;
    }
    if constraints.peek(0x02) {
        let length = constraints.integer()?;
        if length.len() > 8 || length[0] & 0x80 != 0 {
            return Err("a path length that is negative or too large");
        }
    }
    Ok(())
}

fn alternative_names(mut value: Text<'_>) -> Decoded<()> {
    let mut names = value.sequence()?;
    while !names.0.is_empty() {
        match names.any()? {
            (0x81 | 0x82 | 0x86, text) if !text.is_ascii() => {
                return Err("a mail address, domain name or URI with other characters than ASCII's");
            }
            (0x86, uri) if !url::is_uri(uri) => return Err("a URI that it cannot parse"),
            (0x87, address) => match address.len() {
                4 => {}
                16 if is_mapped(address) => return Err("an IPv4 address written as IPv6"),
                16 => {}
                _ => return Err("an IP address of another length"),
            },
            _ => {}
        }
    }
    Ok(())
}

fn is_mapped(address: &[u8]) -> bool {
    address.starts_with(b"\0\0\0\0\0\0\0\0\0\0\xff\xff")
}

fn name_constraints(mut value: Text<'_>) -> Decoded<()> {
    let mut constraints = value.sequence()?;
    let mut parts = [Text(&[]); 2];
    for (part, tag) in parts.iter_mut().zip([0xa0, 0xa1]) {
        if constraints.peek(tag) {
            *part = constraints.read(tag)?;
        }
    }
    if !constraints.0.is_empty() || !value.0.is_empty() {
        return Err(TRAILING);
    }
    if parts.iter().all(|part| part.0.is_empty()) {
        return Err("there are none in it");
    }
    for mut part in parts {
        while !part.0.is_empty() {
            let (tag, text) = part.sequence()?.any()?;
            let fits = match tag {
                0x81 => {
                    text.is_ascii() && if text.contains(&b'@') { is_mailbox(text) } else { url::is_domain(text, true) }
                }
                0x82 => text.is_ascii() && url::is_domain(text, true),
                0x86 => {
                    let text_of = |text| std::str::from_utf8(text).unwrap_or_default();
                    // an address with a zone is none for Go either
                    let address = text_of(text).parse::<std::net::IpAddr>().is_ok();
                    text.is_ascii() && !address && url::is_domain(text, true)
                }
                0x87 if matches!(text.len(), 8 | 32) => {
                    let (address, mask) = text.split_at(text.len() / 2);
                    is_mask(mask) && !(address.len() == 16 && is_mapped(address))
                }
                0x87 => return Err("an IP address of another length"),
                _ => true,
            };
            if !fits {
                return Err("a name that it cannot parse");
            }
        }
    }
    Ok(())
}

/// Ones, then zeros.
fn is_mask(mask: &[u8]) -> bool {
    let ones = mask.iter().take_while(|byte| **byte == 0xff).count();
    let (edge, zeros) = mask[ones..].split_first().map_or((0, &[][..]), |(edge, zeros)| (*edge, zeros));
    edge.leading_ones() + edge.trailing_zeros() == 8 && zeros.iter().all(|byte| *byte == 0)
}

/// `parseRFC2821Mailbox`.
fn is_mailbox(text: &[u8]) -> bool {
    let mut rest = text;
    if let Some(quoted) = rest.strip_prefix(b"\"") {
        rest = quoted;
        loop {
            let [byte, after @ ..] = rest else { return false };
            rest = after;
            match byte {
                b'"' => break,
                b'\\' => match rest {
                    [11 | 12 | 1..=9 | 14..=127, after @ ..] => rest = after,
                    _ => return false,
                },
                11 | 12 | 32 | 33 | 127 | 1..=8 | 14..=31 | 35..=91 | 93..=126 => {}
                _ => return false,
            }
        }
    } else {
        let mut local = Vec::new();
        while let [byte, after @ ..] = rest {
            match (byte, after) {
                (b'\\', [escaped, after @ ..]) => {
                    local.push(*escaped);
                    rest = after;
                }
                (b'\\', []) => return false,
                _ if byte.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~.".contains(byte) => {
                    local.push(*byte);
                    rest = after;
                }
                _ => break,
            }
        }
        let dots = local.starts_with(b".") || local.ends_with(b".") || local.windows(2).any(|pair| pair == b"..");
        if local.is_empty() || dots {
            return false;
        }
    }
    let Some(domain) = rest.strip_prefix(b"@") else { return false };
    url::is_domain(domain, false) && !domain.contains(&b'@')
}

fn crl_points(mut value: Text<'_>) -> Decoded<()> {
    let mut points = value.sequence()?;
    while !points.0.is_empty() {
        let mut point = points.sequence()?;
        if !point.peek(0xa0) {
            continue;
        }
        let mut names = point.read(0xa0)?.read(0xa0)?;
        while names.peek(0x86) {
            names.read(0x86)?;
        }
    }
    Ok(())
}

fn authority_key(mut value: Text<'_>, critical: bool) -> Decoded<()> {
    if critical {
        return Err(CRITICAL);
    }
    value.sequence()?.skip_optional(0x80)
}

fn policy_constraints(mut value: Text<'_>) -> Decoded<()> {
    let mut constraints = value.sequence()?;
    for tag in [0x80, 0x81] {
        if constraints.peek(tag) {
            constraints.small_integer(tag)?;
        }
    }
    Ok(())
}

fn key_purposes(mut value: Text<'_>) -> Decoded<()> {
    let mut purposes = value.sequence()?;
    while !purposes.0.is_empty() {
        purposes.oid()?;
    }
    Ok(())
}

fn policies(mut value: Text<'_>) -> Decoded<()> {
    let mut policies = value.sequence()?;
    let mut seen: Vec<&[u8]> = Vec::new();
    while !policies.0.is_empty() {
        let oid = policies.sequence()?.oid()?;
        if seen.contains(&oid) {
            return Err("one of them is there twice");
        }
        seen.push(oid);
    }
    Ok(())
}

fn policy_mappings(mut value: Text<'_>) -> Decoded<()> {
    let mut mappings = value.sequence()?;
    while !mappings.0.is_empty() {
        let mut mapping = mappings.sequence()?;
        mapping.read(0x06)?;
        mapping.read(0x06)?;
    }
    Ok(())
}

fn authority_info(mut value: Text<'_>, critical: bool) -> Decoded<()> {
    if critical {
        return Err(CRITICAL);
    }
    let mut all = value.sequence()?;
    while !all.0.is_empty() {
        let mut info = all.sequence()?;
        info.oid()?;
        info.skip_optional(0x86)?;
    }
    Ok(())
}
