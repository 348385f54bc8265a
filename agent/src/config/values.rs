//! The forms of the configuration's values. Each type is made of a text, and its error says what is expected.

use std::{path::PathBuf, time::Duration};

use nodetrust_core::{
    fleet::{
        gate::ApiOutage,
        limit::RestartLimit,
        selector::{BadSelector, NodeSelector},
    },
    node_status::{BadTaint, Taint},
    pod_bundle,
    probe::{Proxy, Target, Through},
    runtime::{
        kinds::{RuntimeKind, TABLE},
        registry::{MAX_REGISTRIES, Registry},
        settings::OnChange,
    },
    source::policy::{Acceptance, EmptySource, NotCa, OnRejection, RemovalGate, Unproven},
    store::Family,
};
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, SeqAccess, Visitor},
};

use tracing::level_filters::LevelFilter;

use super::{LogFormat, WitnessRegistries, words::did_you_mean};

/// `[a-z0-9-]{1,63}`.
#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct SourceName(pub(super) String);

/// `300ms`, `5m`, `24h`, `1h30m`.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Span(pub(super) Duration);

/// `host:port` with a numeric host.
#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Address(pub(super) std::net::SocketAddr);

/// `1` or `10%`.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Share(pub(super) RestartLimit);

/// A label selector.
#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct CanarySelector(pub(super) NodeSelector);

/// A duration of a second or more.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct LongSpan(pub(super) Duration);

/// `host:port` or `https://host[:port]`.
#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct ProbeTarget(pub(super) Target);

/// `http://[user:password@]host:port`.
#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct ProbeProxy(pub(super) Proxy);

/// `key[=value][:effect]`, or empty.
#[derive(Debug, Default, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct StartupTaint(pub(super) Option<Taint>);

/// A path from the root.
#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct AbsolutePath(pub(super) PathBuf);

/// The name of an exported file, or empty.
#[derive(Debug, Default, Deserialize)]
#[serde(try_from = "String")]
pub(super) enum ExportName {
    #[default]
    Unset,
    /// Where a file of that name lies.
    At(String),
    /// A path, which is what earlier versions took.
    Path(String),
}

/// `auto`, or a family.
#[derive(Debug, Default, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct FamilyChoice(pub(super) Option<Family>);

/// One of a few words.
#[derive(Debug, Deserialize)]
#[serde(try_from = "String", bound = "T: Keywords")]
pub(super) struct Keyword<T>(pub(super) T);

/// A type whose values are written as words.
pub(super) trait Keywords: Copy + 'static {
    const WORDS: &'static [(&'static str, Self)];
}

impl<T: Keywords> TryFrom<String> for Keyword<T> {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let found = T::WORDS.iter().find(|(word, _)| *word == text);
        found.map(|(_, value)| Self(*value)).ok_or_else(|| {
            let words: Vec<&str> = T::WORDS.iter().map(|(word, _)| *word).collect();
            format!("`{text}`: want one of {}{}", words.join(", "), did_you_mean(&text, &words))
        })
    }
}

impl Keywords for OnRejection {
    const WORDS: &'static [(&'static str, Self)] = &[("skip", Self::Skip), ("hold", Self::Hold)];
}

impl Keywords for NotCa {
    const WORDS: &'static [(&'static str, Self)] =
        &[("auto", Self::Auto), ("accept", Self::Accept), ("reject", Self::Reject)];
}

impl Keywords for Acceptance {
    const WORDS: &'static [(&'static str, Self)] = &[("accept", Self::Accept), ("reject", Self::Reject)];
}

impl Keywords for Unproven {
    const WORDS: &'static [(&'static str, Self)] = &[("warn", Self::Warn), ("reject", Self::Reject)];
}

impl Keywords for EmptySource {
    const WORDS: &'static [(&'static str, Self)] = &[("hold", Self::Hold), ("remove", Self::Remove)];
}

impl Keywords for OnChange {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("auto", Self::Auto),
        ("registry", Self::Registry),
        ("restart", Self::Restart),
        ("report", Self::Report),
        ("never", Self::Never),
    ];
}

impl Keywords for LevelFilter {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("error", Self::ERROR),
        ("warn", Self::WARN),
        ("info", Self::INFO),
        ("debug", Self::DEBUG),
        ("trace", Self::TRACE),
    ];
}

impl Keywords for LogFormat {
    const WORDS: &'static [(&'static str, Self)] = &[("auto", Self::Auto), ("json", Self::Json), ("text", Self::Text)];
}

impl Keywords for Through {
    const WORDS: &'static [(&'static str, Self)] = &[("host", Self::Host), ("runtime", Self::Runtime)];
}

impl Keywords for RemovalGate {
    const WORDS: &'static [(&'static str, Self)] = &[("none", Self::None), ("fleet", Self::Fleet)];
}

impl Keywords for ApiOutage {
    const WORDS: &'static [(&'static str, Self)] = &[("wait", Self::Wait), ("proceed", Self::Proceed)];
}

/// `auto`, or a truth value.
impl Keywords for Option<bool> {
    const WORDS: &'static [(&'static str, Self)] = &[("auto", None), ("true", Some(true)), ("false", Some(false))];
}

impl TryFrom<String> for SourceName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if (1..=63).contains(&text.len()) && text.bytes().all(fits) {
            return Ok(Self(text));
        }
        Err(format!("`{text}` is not a source name: want 1 to 63 of a-z, 0-9 and -"))
    }
}

/// A century, in milliseconds: enough for everybody, and it keeps all sums of times in range.
const CENTURY: u64 = 100 * 366 * 24 * 3600 * 1000;

/// A unit of durations in milliseconds.
fn milliseconds_of(unit: &str) -> Option<u64> {
    Some(match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60 * 1000,
        "h" => 3600 * 1000,
        "d" => 24 * 3600 * 1000,
        _ => return None,
    })
}

impl TryFrom<String> for Span {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let bad = || {
            format!(
                "`{text}` is not a duration: want whole numbers with units, the largest first, such as 300ms, 2s, 5m, 24h or 1h30m"
            )
        };
        if text == "0" {
            return Ok(Self(Duration::ZERO));
        }
        let (mut rest, mut total, mut before) = (text.as_str(), 0_u64, u64::MAX);
        while !rest.is_empty() {
            let (number, behind) = rest.split_at(rest.bytes().take_while(u8::is_ascii_digit).count());
            let (unit, behind) = behind.split_at(behind.bytes().take_while(u8::is_ascii_alphabetic).count());
            let number: u64 = number.parse().map_err(|_| bad())?;
            let milliseconds = milliseconds_of(unit).filter(|unit| *unit < before).ok_or_else(bad)?;
            total = total.saturating_add(number.saturating_mul(milliseconds));
            (rest, before) = (behind, milliseconds);
        }
        match total {
            _ if before == u64::MAX => Err(bad()), // an empty text
            total if total > CENTURY => Err(format!("`{text}` is longer than a century")),
            total => Ok(Self(Duration::from_millis(total))),
        }
    }
}

impl TryFrom<String> for Address {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let read = text.parse().map(Self);
        read.map_err(|_| {
            format!("`{text}` is not an address: want an IP address and a port, such as [::]:9643 (every address, of IPv4 too) or 0.0.0.0:9643")
        })
    }
}

impl TryFrom<String> for ProbeTarget {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Target::parse(&text).map(Self).map_err(|error| error.to_string())
    }
}

impl TryFrom<String> for ProbeProxy {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Proxy::parse(&text).map(Self).map_err(|error| error.to_string())
    }
}

impl TryFrom<String> for Share {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse().map(Self)
    }
}

impl TryFrom<String> for CanarySelector {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let read = text.parse().map(Self);
        read.map_err(|error: BadSelector| format!("`{text}` is no label selector: {error}"))
    }
}

impl TryFrom<String> for LongSpan {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let Span(span) = text.clone().try_into()?;
        if span >= Duration::from_secs(1) {
            Ok(Self(span))
        } else {
            Err(format!("`{text}` is too short: want at least 1s"))
        }
    }
}

impl TryFrom<String> for StartupTaint {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "" => Ok(Self(None)),
            text => text.parse().map(|taint| Self(Some(taint))).map_err(|error: BadTaint| error.to_string()),
        }
    }
}

impl TryFrom<String> for AbsolutePath {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let path = PathBuf::from(&text);
        if path.is_absolute() { Ok(Self(path)) } else { Err(format!("`{text}` is not an absolute path")) }
    }
}

impl TryFrom<String> for ExportName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let fits = |name: &str| !matches!(name, "" | "." | "..") && !name.chars().any(char::is_control);
        let is_path = text.strip_prefix('/').is_some_and(|names| names.split('/').all(fits));
        match pod_bundle::path_of(&text) {
            _ if text.is_empty() => Ok(Self::Unset),
            Some(path) => Ok(Self::At(path)),
            None if is_path => Ok(Self::Path(text)),
            None => Err(format!("`{text}` is not a file name: {}", Self::wanted())),
        }
    }
}

impl ExportName {
    /// The expected form, and where such a file lies.
    pub(super) fn wanted() -> String {
        format!(
            "want a bare name such as ca-certificates.crt or truststore.p12 (1 to {} of A-Z, a-z, 0-9, `.`, `_` and `-`, no dot first); the file is \
             kept in {}/ on the node",
            pod_bundle::MAX_NAME,
            pod_bundle::DIRECTORY
        )
    }
}

impl TryFrom<String> for UnitName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        // systemd.unit(5)
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte);
        if text.is_empty() || text.len() <= 255 && text.bytes().all(fits) && text.ends_with(".service") {
            Ok(Self(text))
        } else {
            Err(format!("`{text}` is not the name of a service: want such as kubelet.service"))
        }
    }
}

impl TryFrom<String> for FamilyChoice {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "auto" => Ok(Self(None)),
            _ => Family::deserialize(serde::de::value::StrDeserializer::<serde::de::value::Error>::new(&text))
                .map(|family| Self(Some(family)))
                .map_err(|_| {
                    let known = "auto, debian, redhat, suse, arch, alpine, flatcar, photon, bottlerocket, directory";
                    let near = did_you_mean(&text, &known.split(", ").collect::<Vec<_>>());
                    format!("`{text}` is not a store family: want one of {known}{near}")
                }),
        }
    }
}

/// A systemd service that is no container runtime: those have conditions of their own for a restart.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct FurtherUnit(pub(super) String);

impl TryFrom<String> for FurtherUnit {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let UnitName(unit) = text.try_into()?;
        if unit.is_empty() || nodetrust_core::runtime::units().any(|known| known == unit) {
            return Err(format!(
                "`{unit}` is no further unit: want a service that is no container runtime, such as kubelet.service"
            ));
        }
        Ok(Self(unit))
    }
}

/// A systemd service, or empty.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct UnitName(pub(super) String);

/// `auto`, `none`, or a kind of runtime.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) enum RuntimeKindChoice {
    #[default]
    Auto,
    None,
    Kind(RuntimeKind),
}

impl TryFrom<String> for RuntimeKindChoice {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "auto" => Ok(Self::Auto),
            "none" => Ok(Self::None),
            _ => TABLE.iter().map(|row| row.kind).find(|kind| kind.as_str() == text).map(Self::Kind).ok_or_else(|| {
                let kinds: Vec<&str> = TABLE.iter().map(|row| row.kind.as_str()).collect();
                let near = did_you_mean(&text, &kinds);
                format!("`{text}` is not a kind of runtime: want auto, none, {}{near}", kinds.join(", "))
            }),
        }
    }
}

/// `auto`, `never`, or a list of registries.
#[derive(Debug)]
pub(super) struct WitnessChoice(pub(super) WitnessRegistries);

impl<'de> Deserialize<'de> for WitnessChoice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(WitnessVisitor)
    }
}

struct WitnessVisitor;

impl<'de> Visitor<'de> for WitnessVisitor {
    type Value = WitnessChoice;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("auto, never, or a list of registries such as [registry.corp, registry.corp:5000]")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<WitnessChoice, E> {
        match text {
            "auto" => Ok(WitnessChoice(WitnessRegistries::OfImages)),
            "never" => Ok(WitnessChoice(WitnessRegistries::None)),
            _ => Err(E::custom(format!(
                "`{text}`: want auto, never, or a list of registries such as [registry.corp, registry.corp:5000]"
            ))),
        }
    }

    // YAML makes a truth value of `off` and `no`
    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<WitnessChoice, E> {
        self.visit_str(if value { "true" } else { "false" })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<WitnessChoice, A::Error> {
        let mut registries: Vec<Registry> = Vec::new();
        while let Some(RegistryName(registry)) = list.next_element()? {
            if registries.iter().any(|known| known.key() == registry.key()) {
                return Err(A::Error::custom(format!("`{registry}` is taken; registries must be unique")));
            }
            if registries.len() == MAX_REGISTRIES {
                return Err(A::Error::custom(format!("want at most {MAX_REGISTRIES} registries")));
            }
            registries.push(registry);
        }
        match registries.is_empty() {
            true => Err(A::Error::custom("want a registry in the list; `never` asks about none")),
            false => Ok(WitnessChoice(WitnessRegistries::These(registries))),
        }
    }
}

/// `host` or `host:port`.
#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
struct RegistryName(Registry);

impl TryFrom<String> for RegistryName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Registry::parse(&text).map(Self)
    }
}
