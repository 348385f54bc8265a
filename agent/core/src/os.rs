//! os-release(5): which system a root belongs to.

use std::collections::BTreeMap;

use serde::Serialize;

/// The fields of os-release that decisions and reports use.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct OsRelease {
    /// `ID`, e.g. `debian`; `linux` where absent, as the manual page says.
    pub id: String,
    /// `ID_LIKE`, in its order.
    pub id_like: Vec<String>,
    /// `VERSION_ID`.
    pub version_id: String,
    /// `VARIANT_ID`, e.g. `coreos`.
    pub variant_id: String,
    /// `PRETTY_NAME`, for people.
    pub pretty_name: String,
}

impl OsRelease {
    /// Reads the file's text; lines that are none of the form `KEY=value` are passed over.
    pub fn parse(text: &str) -> Self {
        let fields: BTreeMap<&str, String> = text
            .lines()
            .filter_map(|line| {
                let line = line.trim();
                let (key, value) = line.split_once('=')?;
                (!line.starts_with('#')).then(|| (key, crate::name::shown(&unquote(value))))
            })
            .collect();
        let get = |key: &str| fields.get(key).cloned().unwrap_or_default();
        let or = |value: String, other: &str| if value.is_empty() { other.to_owned() } else { value };
        Self {
            id: or(get("ID"), "linux"),
            id_like: get("ID_LIKE").split_whitespace().map(str::to_owned).collect(),
            version_id: get("VERSION_ID"),
            variant_id: get("VARIANT_ID"),
            pretty_name: or(get("PRETTY_NAME"), &or(get("NAME"), "Linux")),
        }
    }

    /// Whether `ID` or one of `ID_LIKE` is this.
    pub fn is_like(&self, id: &str) -> bool {
        self.id == id || self.id_like.iter().any(|like| like == id)
    }
}

/// Shell quoting as os-release(5) allows it: single quotes, double quotes with backslashes, or none.
fn unquote(value: &str) -> String {
    let value = value.trim();
    let inner = |quote: char| value.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
    if let Some(inner) = inner('\'') {
        return inner.to_owned();
    }
    let Some(inner) = inner('"') else { return value.to_owned() };
    let mut out = String::new();
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        out.push(if c == '\\' { chars.next().unwrap_or(c) } else { c });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_quotes_and_defaults() {
        let os = OsRelease::parse(
            "# x\nID=\"sles\"\nID_LIKE='suse opensuse'\nVERSION_ID=15.3\nPRETTY_NAME=\"A \\\"b\\\"\"\nbroken\n",
        );
        assert_eq!((os.id.as_str(), os.version_id.as_str(), os.pretty_name.as_str()), ("sles", "15.3", "A \"b\""));
        assert!(os.is_like("suse") && os.is_like("sles") && !os.is_like("debian"));
        let none = OsRelease::parse("");
        assert_eq!((none.id.as_str(), none.pretty_name.as_str()), ("linux", "Linux"));
    }
}
