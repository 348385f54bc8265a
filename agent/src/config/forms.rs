//! The forms of the configuration's values: each says what it expects.

use std::{path::PathBuf, str::FromStr, time::Duration};

use nodetrust_core::{
    node::{BadTaint, Taint},
    policy::Verdict,
    probe::{Proxy, Target},
    runtime::{Kind, TABLE},
    store::Family,
};
use serde::{Deserialize, Deserializer, de::Error as _};

/// `[a-z0-9-]{1,63}`.
#[derive(Debug)]
pub(super) struct SourceName(pub(super) String);

/// `300ms`, `5m`, `24h`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span(pub(super) Duration);

/// `host:port` with a numeric host.
#[derive(Debug)]
pub(super) struct Address(pub(super) std::net::SocketAddr);

/// `1` or `10%`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Share {
    Nodes(u32),
    Percent(u32),
}

/// `auto`, or a truth value.
#[derive(Debug)]
pub(super) struct Switch(pub(super) Option<bool>);

/// A duration of a second or more.
#[derive(Debug, Clone, Copy)]
pub(super) struct LongSpan(pub(super) Duration);

/// `host:port` or `https://host[:port]`.
#[derive(Debug)]
pub(super) struct ProbeTarget(pub(super) Target);

/// `http://[user:password@]host:port`.
#[derive(Debug)]
pub(super) struct ProbeProxy(pub(super) Proxy);

/// `key[=value][:effect]`, or empty.
#[derive(Debug, Default)]
pub(super) struct StartupTaint(pub(super) Option<Taint>);

/// A path from the root.
#[derive(Debug)]
pub(super) struct AbsolutePath(pub(super) PathBuf);

/// A file on the host, or empty.
#[derive(Debug, Default)]
pub(super) struct HostFile(pub(super) Option<String>);

/// `auto`, or a family.
#[derive(Debug, Default)]
pub(super) struct FamilyWord(pub(super) Option<Family>);

/// Deserialises from a scalar's text by a function that explains what it expects.
fn from_text<'de, D: Deserializer<'de>, T>(
    deserializer: D,
    read: fn(&str) -> Result<T, String>,
) -> Result<T, D::Error> {
    read(&String::deserialize(deserializer)?).map_err(D::Error::custom)
}

impl<'de> Deserialize<'de> for SourceName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_text(deserializer, |text| {
            let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            if (1..=63).contains(&text.len()) && text.bytes().all(fits) {
                return Ok(Self(text.to_owned()));
            }
            Err(format!("`{text}` is not a source name: want 1 to 63 of a-z, 0-9 and -"))
        })
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_text(deserializer, |text| text.parse())
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad =
            || format!("`{text}` is not a duration: want a whole number with a unit, such as 300ms, 2s, 5m or 24h");
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().map_err(|_| bad())?;
        let milliseconds = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60 * 1000,
            "h" => 3600 * 1000,
            "d" => 24 * 3600 * 1000,
            "" if number == 0 => 1,
            _ => return Err(bad()),
        };
        // a century is enough for everybody and keeps all sums of times in range
        let total = number.checked_mul(milliseconds).filter(|total| *total <= 100 * 366 * 24 * 3600 * 1000);
        total
            .map(|total| Self(Duration::from_millis(total)))
            .ok_or_else(|| format!("`{text}` is longer than a century"))
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_text(deserializer, |text| {
            let read = text.parse().map(Self);
            read.map_err(|_| {
                format!("`{text}` is not an address: want an IP address and a port, such as 0.0.0.0:9643 or [::]:9643")
            })
        })
    }
}

impl<'de> Deserialize<'de> for ProbeTarget {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_text(deserializer, |text| Target::parse(text).map(Self).map_err(|error| error.to_string()))
    }
}

impl<'de> Deserialize<'de> for ProbeProxy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_text(deserializer, |text| Proxy::parse(text).map(Self).map_err(|error| error.to_string()))
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_text(deserializer, |text| {
            let (number, top, share): (_, _, fn(u32) -> Self) = match text.strip_suffix('%') {
                Some(number) => (number, 100, Self::Percent),
                None => (text, 100_000, Self::Nodes),
            };
            match number.parse::<u32>() {
                Ok(number) if (1..=top).contains(&number) => Ok(share(number)),
                _ => Err(format!("`{text}` is not a number of nodes: want a whole number from 1, or 1% to 100%")),
            }
        })
    }
}

impl<'de> Deserialize<'de> for Switch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_text(deserializer, |text| match text {
            "auto" => Ok(Self(None)),
            "true" => Ok(Self(Some(true))),
            "false" => Ok(Self(Some(false))),
            _ => Err(format!("`{text}`: want auto, true or false")),
        })
    }
}

impl<'de> Deserialize<'de> for LongSpan {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_text(deserializer, |text| match text.parse()? {
            Span(span) if span >= Duration::from_secs(1) => Ok(Self(span)),
            Span(_) => Err(format!("`{text}` is too short: want at least 1s")),
        })
    }
}

impl<'de> Deserialize<'de> for StartupTaint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_text(deserializer, |text| match text {
            "" => Ok(Self(None)),
            text => text.parse().map(|taint| Self(Some(taint))).map_err(|error: BadTaint| error.to_string()),
        })
    }
}

impl<'de> Deserialize<'de> for AbsolutePath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_text(deserializer, |text| {
            let path = PathBuf::from(text);
            if path.is_absolute() { Ok(Self(path)) } else { Err(format!("`{text}` is not an absolute path")) }
        })
    }
}

impl<'de> Deserialize<'de> for HostFile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_text(deserializer, |text| {
            // as it is written is how it is compared: one way to write each path
            let fits = |name: &str| !matches!(name, "" | "." | "..") && !name.chars().any(char::is_control);
            match text.strip_prefix('/') {
                None if text.is_empty() => Ok(Self(None)),
                Some(names) if names.split('/').all(fits) => Ok(Self(Some(text.to_owned()))),
                _ => Err(format!(
                    "`{text}` is not the path of a file: want such as /var/lib/nodetrust/export/ca-certificates.crt"
                )),
            }
        })
    }
}

impl<'de> Deserialize<'de> for UnitName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_text(deserializer, |text| {
            // systemd.unit(5)
            let fits = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte);
            if text.is_empty() || text.len() <= 255 && text.bytes().all(fits) && text.ends_with(".service") {
                Ok(Self(text.to_owned()))
            } else {
                Err(format!("`{text}` is not the name of a service: want such as kubelet.service"))
            }
        })
    }
}

impl<'de> Deserialize<'de> for FamilyWord {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_text(deserializer, |text| {
            match text {
            "auto" => Ok(Self(None)),
            "bottlerocket" => Err(
                "bottlerocket has no files to write; use its API (settings.pki) until it is supported here".to_owned(),
            ),
            _ => Family::deserialize(serde::de::value::StrDeserializer::<serde::de::value::Error>::new(text))
                .map(|family| Self(Some(family)))
                .map_err(|_| {
                    format!("`{text}` is not a store family: want auto, debian, redhat, suse, arch, alpine, flatcar, photon, bottlerocket or directory")
                }),
        }
        })
    }
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum OnRejectionWord {
    Skip,
    Hold,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum NotCaWord {
    Auto,
    Accept,
    Reject,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum VerdictWord {
    Accept,
    Reject,
}

impl VerdictWord {
    pub(super) fn verdict(self) -> Verdict {
        match self {
            Self::Accept => Verdict::Accept,
            Self::Reject => Verdict::Reject,
        }
    }
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum EmptySourceWord {
    Hold,
    Remove,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum RemovalGate {
    None,
    Fleet,
}

/// A systemd service that is no container runtime: those have conditions of their own for a restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FurtherUnit(pub(super) String);

impl<'de> Deserialize<'de> for FurtherUnit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let UnitName(unit) = UnitName::deserialize(deserializer)?;
        if unit.is_empty() || nodetrust_core::runtime::units().any(|known| known == unit) {
            let text = format!(
                "`{unit}` is no further unit: want a service that is no container runtime, such as kubelet.service"
            );
            return Err(serde::de::Error::custom(text));
        }
        Ok(Self(unit))
    }
}

/// A systemd service, or empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UnitName(pub(super) String);

/// `auto`, `none`, or a kind of runtime.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum RuntimeWord {
    #[default]
    Auto,
    None,
    Kind(Kind),
}

impl<'de> Deserialize<'de> for RuntimeWord {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_text(deserializer, |text| match text {
            "auto" => Ok(Self::Auto),
            "none" => Ok(Self::None),
            _ => TABLE.iter().map(|row| row.kind).find(|kind| kind.as_str() == text).map(Self::Kind).ok_or_else(|| {
                let kinds: Vec<&str> = TABLE.iter().map(|row| row.kind.as_str()).collect();
                format!("`{text}` is not a kind of runtime: want auto, none, {}", kinds.join(", "))
            }),
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum OnChange {
    Auto,
    Restart,
    Report,
    Never,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum WhenUnavailable {
    Wait,
    Proceed,
}
