//! Whether Go takes a URI in subjectAltName: what `url.Parse` parses (net/url, and net/netip for addresses in brackets), with a
//! host that is a domain name.

/// `domainNameValid`: labels of visible ASCII, none empty; a constraint may begin with a dot.
pub(crate) fn is_domain(name: &[u8], constraint: bool) -> bool {
    if name.is_empty() {
        return true;
    }
    let labels = if constraint { name.strip_prefix(b".").unwrap_or(name) } else { name };
    labels
        .split(|byte| *byte == b'.')
        .all(|label| !label.is_empty() && label.iter().all(|byte| (33..=126).contains(byte)))
}

/// Whether Go parses the URI, which is ASCII, and takes its host for a domain name.
pub(crate) fn is_uri(uri: &[u8]) -> bool {
    host(uri).is_some_and(|host| is_domain(&host, false))
}

/// The host of a URI, empty without one; None if Go does not parse it.
fn host(uri: &[u8]) -> Option<Vec<u8>> {
    let (uri, fragment) = cut(uri, b'#');
    if uri.iter().any(|byte| *byte < b' ' || *byte == 0x7f) || unescape(fragment, UrlPart::Other).is_none() {
        return None;
    }
    if uri == b"*" {
        return Some(Vec::new());
    }
    let (scheme, rest) = scheme(uri)?;
    let rest = cut(rest, b'?').0;
    if !rest.starts_with(b"/") {
        if !scheme.is_empty() {
            return Some(Vec::new()); // opaque
        }
        if cut(rest, b'/').0.contains(&b':') {
            return None;
        }
    }
    let mut host = Vec::new();
    let mut path = rest;
    if rest.starts_with(b"//") && (!scheme.is_empty() || !rest.starts_with(b"///")) {
        let authority = &rest[2..];
        let end = authority.iter().position(|byte| *byte == b'/').unwrap_or(authority.len());
        host = authority_host(scheme, &authority[..end])?;
        path = &authority[end..];
    }
    unescape(path, UrlPart::Other)?;
    Some(host)
}

/// The scheme, empty without one, and what follows it.
fn scheme(uri: &[u8]) -> Option<(&[u8], &[u8])> {
    for (at, byte) in uri.iter().enumerate() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' => {}
            b'0'..=b'9' | b'+' | b'-' | b'.' if at > 0 => {}
            b':' => return (at > 0).then_some((&uri[..at], &uri[at + 1..])),
            _ => break,
        }
    }
    Some((&[], uri))
}

fn authority_host(scheme: &[u8], authority: &[u8]) -> Option<Vec<u8>> {
    let (user, host) = match authority.iter().rposition(|byte| *byte == b'@') {
        Some(at) => (&authority[..at], &authority[at + 1..]),
        None => (&[][..], authority),
    };
    let host = parse_host(scheme, host)?;
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._:~!$&'()*+,;=%@".contains(byte);
    (user.iter().all(allowed) && unescape(user, UrlPart::Other).is_some()).then_some(host)
}

fn parse_host(scheme: &[u8], host: &[u8]) -> Option<Vec<u8>> {
    match host.iter().rposition(|byte| *byte == b'[') {
        Some(0) => {
            let close = host.iter().rposition(|byte| *byte == b']')?;
            let port = &host[close + 1..];
            if !is_port(port) {
                return None;
            }
            let name = &host[1..close];
            let address = match memchr::memmem::find(name, b"%25") {
                Some(zone) => {
                    [unescape(&name[..zone], UrlPart::Host)?, unescape(&name[zone..], UrlPart::Zone)?].concat()
                }
                None => unescape(name, UrlPart::Host)?,
            };
            is_ipv6(&address).then(|| [b"[", &address[..], b"]", port].concat())
        }
        Some(_) => None,
        None => {
            if let Some(first) = host.iter().position(|byte| *byte == b':') {
                // only the web's own schemes want the port behind the first colon
                let web = scheme.eq_ignore_ascii_case(b"http") || scheme.eq_ignore_ascii_case(b"https");
                let last = host.iter().rposition(|byte| *byte == b':').unwrap_or(first);
                if !is_port(&host[if web { first } else { last }..]) {
                    return None;
                }
            }
            unescape(host, UrlPart::Host)
        }
    }
}

fn is_port(port: &[u8]) -> bool {
    match port {
        [] => true,
        [b':', digits @ ..] => digits.iter().all(u8::is_ascii_digit),
        _ => false,
    }
}

/// `netip.ParseAddr`, for addresses that are not IPv4.
fn is_ipv6(address: &[u8]) -> bool {
    // the first of these decides what is tried
    if address.iter().find(|byte| b".:%".contains(byte)) != Some(&b':') {
        return false;
    }
    let (address, zone) = match address.iter().position(|byte| *byte == b'%') {
        Some(at) => (&address[..at], Some(&address[at + 1..])),
        None => (address, None),
    };
    if zone.is_some_and(<[u8]>::is_empty) {
        return false;
    }
    std::str::from_utf8(address).is_ok_and(|text| text.parse::<std::net::Ipv6Addr>().is_ok())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum UrlPart {
    Host,
    Zone,
    /// Path, fragment, user: any escape will do.
    Other,
}

fn unescape(text: &[u8], part: UrlPart) -> Option<Vec<u8>> {
    let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b"!$&'()*+,;=:[]<>\"-_.~".contains(&byte);
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [byte, after @ ..] = rest {
        rest = after;
        if *byte != b'%' {
            if part != UrlPart::Other && byte.is_ascii() && !is_host(*byte) {
                return None;
            }
            out.push(*byte);
            continue;
        }
        let [high, low, after @ ..] = rest else { return None };
        let digit = |byte: &u8| char::from(*byte).to_digit(16).map(|digit| digit as u8);
        let value = digit(high)? << 4 | digit(low)?;
        let allowed = match part {
            _ if (high, low) == (&b'2', &b'5') => true,
            UrlPart::Host => value >= 0x80,
            UrlPart::Zone => value == b' ' || is_host(value),
            UrlPart::Other => true,
        };
        if !allowed {
            return None;
        }
        out.push(value);
        rest = after;
    }
    Some(out)
}

fn cut(text: &[u8], at: u8) -> (&[u8], &[u8]) {
    match memchr::memchr(at, text) {
        Some(end) => (&text[..end], &text[end + 1..]),
        None => (text, &[]),
    }
}
