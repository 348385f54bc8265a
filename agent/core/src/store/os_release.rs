//! os-release(5): which system a root belongs to.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::store::Family;

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
                (!line.starts_with('#')).then(|| (key, crate::certificate::name::shown(&unquote(value))))
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

    /// The family of trust stores that this system says it is of: by `ID`, then by `ID_LIKE` in its order, whose first known name
    /// counts (os-release(5): the closest one comes first). None if no name is known.
    pub fn family(&self) -> Option<Family> {
        by_id(&self.id).or_else(|| {
            let like = self.id_like.iter().find_map(|id| by_id(id));
            // what is only like them has the usual store of its base: `coreos` alone does not make a Flatcar
            like.filter(|family| !matches!(family, Family::Flatcar | Family::Photon | Family::Bottlerocket))
        })
    }
}

/// The systems of each family (facts A.1): an `ID`, or with `*` the beginning of several.
pub(crate) const SYSTEMS: [(Family, &[&str]); 8] = [
    (Family::Debian, &["debian", "ubuntu", "gentoo"]),
    (
        Family::Redhat,
        &[
            "rhel",
            "fedora",
            "centos",
            "rocky",
            "almalinux",
            "ol",
            "amzn",
            "mariner",
            "azurelinux",
            "rhcos",
            "openeuler",
            "euleros",
            "hce",
            "anolis",
            "alinux",
            "opencloudos",
            "tencentos",
        ],
    ),
    (Family::Suse, &["suse", "sles", "sled", "sles_sap", "sle_hpc", "sle-micro", "sl-micro", "opensuse", "opensuse-*"]),
    (Family::Alpine, &["alpine", "wolfi", "chainguard"]),
    (Family::Arch, &["arch"]),
    (Family::Flatcar, &["flatcar"]),
    (Family::Photon, &["photon"]),
    (Family::Bottlerocket, &["bottlerocket"]),
];

fn by_id(id: &str) -> Option<Family> {
    let id = id.to_ascii_lowercase(); // `openEuler` does not follow the manual page
    let is_named = |name: &&str| match name.strip_suffix('*') {
        Some(beginning) => id.starts_with(beginning),
        None => id == *name,
    };
    SYSTEMS.iter().find(|(_, names)| names.iter().any(is_named)).map(|(family, _)| *family)
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
        assert_eq!(os.family(), Some(Family::Suse));
        let none = OsRelease::parse("");
        assert_eq!((none.id.as_str(), none.pretty_name.as_str()), ("linux", "Linux"));
    }
}
