//! The startup taint, which goes when the node trusts what it should.

use std::{fmt, str::FromStr, time::Duration};

use serde_json::Value;

/// How long a startup taint stays at most, once the store is proven, while it is not known whether the runtime trusts: a node must not stay
/// out of use for a doubt that nobody may be able to settle.
pub const TAINT_PATIENCE: Duration = Duration::from_secs(600);
/// How names of ours in the cluster begin.
const OWN: &str = "nodetrust.io/";

/// A taint that a node starts with, `key[=value][:effect]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taint {
    key: String,
    value: Option<String>,
    effect: Option<String>,
}

/// A text that is not a taint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a taint: want key[=value][:effect], such as nodetrust.io/not-ready:NoSchedule")]
pub struct BadTaint(pub String);

impl Taint {
    /// Whether it has a name of ours. Others may be forbidden to the agent: the admission policy of the installation does that.
    pub fn is_own(&self) -> bool {
        self.key.starts_with(OWN)
    }

    /// Whether a taint of a Node is this one; what is not said here may be anything there.
    pub(super) fn is(&self, taint: &Value) -> bool {
        let field = |name: &str| taint.get(name).and_then(Value::as_str).unwrap_or_default();
        field("key") == self.key
            && self.value.as_ref().is_none_or(|value| field("value") == value)
            && self.effect.as_ref().is_none_or(|effect| field("effect") == effect)
    }
}

impl FromStr for Taint {
    type Err = BadTaint;

    fn from_str(text: &str) -> Result<Self, BadTaint> {
        let bad = || BadTaint(text.to_owned());
        let (rest, effect) = match text.split_once(':') {
            Some((rest, effect)) => (rest, Some(effect)),
            None => (text, None),
        };
        let (key, value) = match rest.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (rest, None),
        };
        let (prefix, name) = key.rsplit_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let ends = |text: &str| {
            let edge = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
            edge(text.bytes().next()) && edge(text.bytes().last()) && text.bytes().all(inner) && text.len() <= 63
        };
        let domain =
            |text: &str| text.len() <= 253 && text.split('.').all(|part| ends(part) && !part.contains(['_', '.']));
        let fits = ends(name)
            && prefix.is_none_or(domain)
            && value.is_none_or(|value| value.is_empty() || ends(value))
            && effect.is_none_or(|effect| ["NoSchedule", "PreferNoSchedule", "NoExecute"].contains(&effect));
        let own = |text: Option<&str>| text.map(str::to_owned);
        fits.then(|| Self { key: key.to_owned(), value: own(value), effect: own(effect) }).ok_or_else(bad)
    }
}

impl fmt::Display for Taint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.key)?;
        self.value.iter().try_for_each(|value| write!(f, "={value}"))?;
        self.effect.iter().try_for_each(|effect| write!(f, ":{effect}"))
    }
}
