//! What is probed, and through which proxy.

use std::fmt;

use percent_encoding::percent_decode_str;
use rustls_pki_types::ServerName;

use crate::certificate::name;

/// A server: host and port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    text: String,
    host: String,
    port: u16,
}

/// An HTTP proxy that lets us through by CONNECT. Its password is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    host: String,
    port: u16,
    authorization: Option<String>,
}

/// A text that is no target or proxy. It does not quote what may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadTarget(String);

impl Target {
    /// Reads `host:port` or `https://host[:port][/…]`; an IPv6 address stands in brackets.
    ///
    /// # Errors
    /// A sentence with the expected form.
    pub fn parse(text: &str) -> Result<Self, BadTarget> {
        let form = "want host:port or https://host, with an IPv6 address in brackets, such as registry.corp:443 or [fd00::1]:5000";
        let (rest, default) = match text.strip_prefix("https://") {
            Some(rest) => (rest.split(['/', '?', '#']).next().unwrap_or_default(), Some(443)),
            None => (text, None),
        };
        if rest.contains('@') {
            return Err(BadTarget(format!("a target has no user or password: {form}")));
        }
        let (host, port) = host_and_port(rest, default)
            .ok_or_else(|| BadTarget(format!("`{}` is no target: {form}", name::shown(text))))?;
        Ok(Self { text: name::shown(text), host, port })
    }

    /// A host and port that were read before.
    pub(crate) fn of(host: &str, port: u16) -> Self {
        Self { text: authority(host, port), host: host.to_owned(), port }
    }

    /// As it was written, escaped and bounded by [`name::shown`].
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The name or address, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `host:port` as HTTP writes it.
    pub fn authority(&self) -> String {
        authority(&self.host, self.port)
    }
}

impl Proxy {
    /// Reads `http://[user:password@]host:port`.
    ///
    /// # Errors
    /// A sentence with the expected form, without the text.
    pub fn parse(text: &str) -> Result<Self, BadTarget> {
        let bad = || BadTarget("not a proxy: want http://host:port or http://user:password@host:port".into());
        let rest = text.strip_prefix("http://").ok_or_else(bad)?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (user, rest) = match rest.rsplit_once('@') {
            Some((user, rest)) => (Some(user), rest),
            None => (None, rest),
        };
        let (host, port) = host_and_port(rest, None).ok_or_else(bad)?;
        let authorization = match user {
            None => None,
            Some(user) => {
                let (name, password) = user.split_once(':').unwrap_or((user, ""));
                let mut pair = percent_decoded(name).ok_or_else(bad)?;
                pair.push(b':');
                pair.extend(percent_decoded(password).ok_or_else(bad)?);
                Some(format!("Basic {}", data_encoding::BASE64.encode(&pair)))
            }
        };
        Ok(Self { host, port, authorization })
    }

    /// The name or address, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What is sent to be let through to a target.
    pub fn request(&self, target: &Target) -> String {
        let authority = target.authority();
        let authorization = self.authorization.as_ref().map(|value| format!("Proxy-Authorization: {value}\r\n"));
        format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n{}\r\n", authorization.unwrap_or_default())
    }

    /// Whether it is told who we are.
    pub fn has_password(&self) -> bool {
        self.authorization.is_some()
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&authority(&self.host, self.port))
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({self})")
    }
}

fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn host_and_port(text: &str, default: Option<u16>) -> Option<(String, u16)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            (host, port)
        }
        None => {
            let at = text.find(':').unwrap_or(text.len());
            text.split_at(at)
        }
    };
    let port = match (port.strip_prefix(':'), default) {
        // digits only: a number's own reader takes a sign too
        (Some(digits), _) if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().ok()?,
        (None, Some(default)) if port.is_empty() => default,
        _ => return None,
    };
    let fits = port > 0 && ServerName::try_from(host).is_ok();
    fits.then(|| (host.to_owned(), port))
}

/// A text with `%41` as `A`; None where a percent sign has no two digits, as Go refuses it.
fn percent_decoded(text: &str) -> Option<Vec<u8>> {
    let is_escape =
        |after: &str| matches!(after.as_bytes(), [a, b, ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit());
    text.split('%').skip(1).all(is_escape).then(|| percent_decode_str(text).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read_in_every_form() {
        for (text, host, port) in [
            ("registry.corp:5000", "registry.corp", 5000),
            ("https://registry.corp", "registry.corp", 443),
            ("https://registry.corp:8443/v2/?x=1", "registry.corp", 8443),
            ("https://registry.corp/v2/a:b", "registry.corp", 443),
            ("127.0.0.1:443", "127.0.0.1", 443),
            ("[fd00::1]:443", "fd00::1", 443),
            ("https://[::1]/", "::1", 443),
            ("localhost:1", "localhost", 1),
        ] {
            let target = Target::parse(text).unwrap();
            assert_eq!((target.host(), target.port(), target.text()), (host, port, text));
        }
        assert_eq!(Target::parse("[fd00::1]:443").unwrap().authority(), "[fd00::1]:443");
        for bad in [
            "",
            "registry",
            "registry:",
            ":443",
            "registry:0",
            "registry:70000",
            "registry:+1",
            "http://registry:80",
            "fd00::1:443",
            "[fd00::1",
            "[registry]:443",
            "a b:443",
            "registry:443/x",
            "https://",
            "https://u@h",
            "https://h:x",
        ] {
            assert!(Target::parse(bad).is_err(), "{bad}");
        }
        let error = Target::parse("https://me:secret@registry").unwrap_err();
        assert!(!error.to_string().contains("secret"), "{error}");
    }

    #[test]
    fn a_proxys_password_goes_to_the_proxy_only() {
        let proxy = Proxy::parse("http://me:p%40ss%2fword@proxy.corp:3128").unwrap();
        assert_eq!((proxy.host(), proxy.port(), proxy.to_string().as_str()), ("proxy.corp", 3128, "proxy.corp:3128"));
        let request = proxy.request(&Target::parse("[::1]:443").unwrap());
        assert_eq!(
            request,
            // me:p@ss/word
            "CONNECT [::1]:443 HTTP/1.1\r\nHost: [::1]:443\r\nProxy-Authorization: Basic bWU6cEBzcy93b3Jk\r\n\r\n"
        );
        assert_eq!(format!("{proxy:?}"), "Proxy(proxy.corp:3128)");
        let plain = Proxy::parse("http://[::1]:8080/").unwrap();
        assert!(!plain.has_password() && !plain.request(&Target::parse("a:1").unwrap()).contains("Authorization"));
        for bad in [
            "proxy:3128",
            "https://proxy:3128",
            "http://proxy",
            "http://me:secret@",
            "http://me:secret%4@proxy:1",
            "http://me:secret%zz@proxy:1",
        ] {
            let error = Proxy::parse(bad).unwrap_err().to_string();
            assert!(!error.contains("secret") && error.contains("http://host:port"), "{error}");
        }
    }
}
