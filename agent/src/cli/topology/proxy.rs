//! Whether a server is reached without the proxy that the environment names, as curl and Go read `NO_PROXY`.

use std::net::IpAddr;

/// Whether `NO_PROXY` (a list with commas) covers a host. This machine is never reached through a proxy.
pub(crate) fn is_direct(host: &str, no_proxy: &str) -> bool {
    let host = host.trim_matches(['[', ']']).to_ascii_lowercase();
    let address: Option<IpAddr> = host.parse().ok();
    if host == "localhost" || address.is_some_and(|address| address.is_loopback()) {
        return true;
    }
    no_proxy.split(',').map(|entry| entry.trim().to_ascii_lowercase()).any(|entry| {
        if entry == "*" {
            return true;
        }
        match address {
            Some(address) => covers(&entry, address),
            None => {
                let name = entry.trim_start_matches("*.").trim_start_matches('.');
                !name.is_empty() && (host == name || host.strip_suffix(name).is_some_and(|rest| rest.ends_with('.')))
            }
        }
    })
}

/// Whether an address, or a network such as `10.0.0.0/8`, has this address.
fn covers(entry: &str, address: IpAddr) -> bool {
    let (network, bits) = entry.split_once('/').map_or((entry, None), |(network, bits)| (network, Some(bits)));
    let Ok(network) = network.parse::<IpAddr>() else { return false };
    let (network, address, width) = match (network, address) {
        (IpAddr::V4(network), IpAddr::V4(address)) => (network.to_bits().into(), address.to_bits().into(), 32),
        (IpAddr::V6(network), IpAddr::V6(address)) => (network.to_bits(), address.to_bits(), 128),
        _ => return false,
    };
    let bits = match bits.map(str::parse::<u32>) {
        None => width,
        Some(Ok(bits)) if bits <= width => bits,
        Some(_) => return false,
    };
    let differs: u128 = network ^ address;
    differs.checked_shr(width - bits).unwrap_or(0) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_names_addresses_and_networks() {
        let list = "corp.example, .inner.test,*.star.test,10.0.0.0/8,2001:db8::/32,192.0.2.7,,bad/99";
        for host in [
            "corp.example",
            "API.corp.example",
            "a.inner.test",
            "x.star.test",
            "10.200.1.1",
            "[2001:db8::5]",
            "192.0.2.7",
        ] {
            assert!(is_direct(host, list), "{host}");
        }
        for host in ["notcorp.example", "example", "11.0.0.1", "192.0.2.8", "2001:db9::1"] {
            assert!(!is_direct(host, list), "{host}");
        }
        assert!(is_direct("anything.at.all", "*") && is_direct("203.0.113.1", "0.0.0.0/0"));
        assert!(is_direct("127.0.0.1", "") && is_direct("localhost", "") && !is_direct("a.test", ""));
    }
}
