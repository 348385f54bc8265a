//! The environment of a unit, as far as the runtime's way to a registry depends on it: which proxy Go's HTTP client takes.
//!
//! The environment of another process of root cannot be read with the agent's rights. What can be known is what the service manager
//! gives to a process that it starts now.

use std::{collections::BTreeMap, net::IpAddr};

use crate::probe::{Proxy, Target};

/// Variables by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// Takes in assignments `NAME=value`; later ones win. What is none is passed over, as systemd does.
    pub fn assign<'a>(&mut self, assignments: impl IntoIterator<Item = &'a str>) {
        for assignment in assignments {
            if let Some((name, value)) = assignment.split_once('=').filter(|(name, _)| is_name(name)) {
                self.0.insert(name.to_owned(), value.to_owned());
            }
        }
    }

    /// Takes away variables: `NAME`, or `NAME=value` if it has that value.
    pub fn unset<'a>(&mut self, names: impl IntoIterator<Item = &'a str>) {
        for name in names {
            match name.split_once('=') {
                Some((name, value)) => self.0.retain(|known, has| known != name || has != value),
                None => drop(self.0.remove(name)),
            }
        }
    }

    /// Takes in a file of a unit's `EnvironmentFile` (systemd.exec(5)).
    pub fn assign_file(&mut self, text: &str) {
        let lines = file_lines(text);
        self.assign(lines.iter().map(String::as_str));
    }

    /// Gives variables with this beginning the name without it, as k3s does for its containerd.
    pub fn without_prefix(&mut self, prefix: &str) {
        let named: Vec<(String, String)> = self
            .0
            .iter()
            .filter_map(|(name, value)| Some((name.strip_prefix(prefix)?.to_owned(), value.clone())))
            .collect();
        self.0.extend(named);
    }

    /// The value of a variable.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    fn first(&self, names: [&str; 2]) -> &str {
        let values = names.iter().filter_map(|name| self.0.get(*name));
        values.map(String::as_str).find(|value| !value.is_empty()).unwrap_or_default()
    }

    /// The proxy through which a program in Go asks a server for HTTPS, None if it goes there itself (golang.org/x/net/http/httpproxy).
    ///
    /// # Errors
    /// A sentence, without the value, if it is of a kind that is not followed here.
    pub fn proxy_for(&self, target: &Target) -> Result<Option<Proxy>, String> {
        let proxy = self.first(["HTTPS_PROXY", "https_proxy"]);
        if proxy.is_empty() || !uses_proxy(target, self.first(["NO_PROXY", "no_proxy"])) {
            return Ok(None);
        }
        let (scheme, rest) = proxy.split_once("://").unwrap_or(("http", proxy));
        if !scheme.eq_ignore_ascii_case("http") {
            let scheme = if matches!(scheme, "https" | "socks5" | "socks5h") { scheme } else { "another scheme" };
            return Err(format!(
                "its HTTPS_PROXY is one of {scheme}, through which only the runtime itself can be asked"
            ));
        }
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let (user, server) = authority.rsplit_once('@').map_or(("", authority), |(user, server)| (user, server));
        let has_port = server.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']'));
        let port = if has_port { "" } else { ":80" };
        let at = if user.is_empty() { "" } else { "@" };
        let read = Proxy::parse(&format!("http://{user}{at}{server}{port}"));
        read.map(Some).map_err(|_| "its HTTPS_PROXY is no address of a proxy".to_owned())
    }
}

fn is_name(name: &str) -> bool {
    let fits = |letter: u8| letter.is_ascii_alphanumeric() || letter == b'_';
    !name.is_empty() && name.bytes().all(fits) && !name.starts_with(|first: char| first.is_ascii_digit())
}

/// `config.useProxy`.
fn uses_proxy(target: &Target, no_proxy: &str) -> bool {
    let host = target.host().to_ascii_lowercase();
    let address: Option<IpAddr> = host.parse().ok();
    if host == "localhost" || address.is_some_and(|address| address.is_loopback()) {
        return false;
    }
    !no_proxy
        .split(',')
        .map(|word| word.trim().to_ascii_lowercase())
        .any(|word| excludes(&word, &host, address, target.port()))
}

/// Whether a word of NO_PROXY is for this host.
fn excludes(word: &str, host: &str, address: Option<IpAddr>, port: u16) -> bool {
    if word == "*" {
        return true;
    }
    if let Some((network, bits)) = word.split_once('/')
        && let (Ok(network), Ok(bits)) = (network.parse(), bits.parse())
    {
        return address.is_some_and(|address| is_within(address, network, bits));
    }
    let (name, wanted) = match word.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((name, rest)) => (name, rest.strip_prefix(':')),
        // an address of IPv6 without a port has more than one colon
        None if word.matches(':').count() == 1 => {
            word.split_once(':').map_or((word, None), |(name, port)| (name, Some(port)))
        }
        None => (word, None),
    };
    if name.is_empty() || wanted.is_some_and(|wanted| wanted != port.to_string()) {
        return false;
    }
    if let Ok(named) = name.parse::<IpAddr>() {
        return address == Some(named);
    }
    let name = name.strip_prefix('*').filter(|rest| rest.starts_with('.')).unwrap_or(name);
    if address.is_some() {
        return false;
    }
    match name.strip_prefix('.') {
        Some(_) => host.ends_with(name),
        None => host == name || host.strip_suffix(name).is_some_and(|before| before.ends_with('.')),
    }
}

fn is_within(address: IpAddr, network: IpAddr, bits: u32) -> bool {
    let top = |value: u128, width: u32| value.checked_shr(width - bits.min(width)).unwrap_or(0);
    match (address, network) {
        (IpAddr::V4(address), IpAddr::V4(network)) if bits <= 32 => {
            top(address.to_bits().into(), 32) == top(network.to_bits().into(), 32)
        }
        (IpAddr::V6(address), IpAddr::V6(network)) if bits <= 128 => {
            top(address.to_bits(), 128) == top(network.to_bits(), 128)
        }
        _ => false,
    }
}

/// The assignments of an environment file without their quotes: a line each, but for one that a backslash continues or that ends
/// within quotes.
fn file_lines(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut letters = text.chars().peekable();
    while letters.peek().is_some() {
        let mut line = String::new();
        let (mut quote, mut kept) = (None, 0); // what is kept of spaces at the end
        while let Some(letter) = letters.next() {
            match (letter, quote) {
                ('\n', None) => break,
                ('#' | ';', None) if line.is_empty() => {
                    for _ in letters.by_ref().take_while(|letter| *letter != '\n') {}
                    break;
                }
                ('\'' | '"', None) if line.ends_with('=') || line.len() == kept && line.contains('=') => {
                    quote = Some(letter)
                }
                (letter, Some(open)) if letter == open => {
                    quote = None;
                    kept = line.len();
                }
                ('\\', open) if open != Some('\'') => match letters.next() {
                    Some('\n') | None => {}
                    // within double quotes, only what has a meaning there is escaped
                    Some(next) if open.is_some() && !"\"\\`$".contains(next) => line.extend(['\\', next]),
                    Some(next) => line.push(next),
                },
                (letter, None) if letter.is_whitespace() && line.is_empty() => {}
                (letter, _) => line.push(letter),
            }
            if quote.is_some() || !line.ends_with(char::is_whitespace) {
                kept = line.len();
            }
        }
        line.truncate(kept);
        if !line.is_empty() {
            lines.push(line);
        }
    }
    lines
}

#[cfg(test)]
#[path = "environment_tests.rs"]
mod tests;
