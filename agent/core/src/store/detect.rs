//! Which row fits a host.
//!
//! In: os-release and which paths exist. Out: a family, or the named reason why there is none, with every fact that decided. A path
//! that could not be looked at never gets here as an absent one.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{
    advice::{self, Unsupported},
    os_release::OsRelease,
    table::{SETTINGS_SOCKET, UPDATE_CA_CERTIFICATES, UPDATE_CA_TRUST},
    trust_store::{Family, Tool},
};

/// What the shell found at a path that detection asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PathKind {
    /// A directory.
    Directory,
    /// A file that begins with `#!`.
    Script,
    /// The same, and Debian's `update-ca-certificates` by what it says (see [`is_debian_script`]).
    #[serde(rename = "Debian's script")]
    DebianScript,
    /// Any other file.
    File,
    /// A socket.
    Socket,
}

/// Whether a script is Debian's `update-ca-certificates`, which keeps the local directory in a variable of its own; no wrapper and no
/// other distribution's script does.
pub fn is_debian_script(bytes: &[u8]) -> bool {
    bytes.starts_with(b"#!") && memchr::memmem::find(bytes, b"LOCALCERTSDIR=").is_some()
}

/// The paths that the shell must look at for [`detect`].
pub const PROBES: &[&str] = &[
    "/usr/sbin/update-ca-certificates",
    "/usr/bin/update-ca-certificates",
    "/usr/bin/update-ca-trust",
    "/usr/sbin/update-ca-trust",
    "/usr/bin/openssl",
    "/usr/local/share/ca-certificates",
    "/usr/share/ca-certificates",
    "/etc/ca-certificates.conf",
    "/etc/pki/ca-trust/source",
    "/etc/pki/trust",
    "/etc/ca-certificates/trust-source",
    "/etc/ssl/certs",
    SETTINGS_SOCKET,
];

/// One fact of a detection and what it says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Evidence {
    /// What was looked at.
    pub fact: String,
    /// What was seen.
    pub value: String,
}

/// The result of a detection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Detection {
    /// The family, or why there is none.
    pub family: Result<Family, Unsupported>,
    /// The sentence that names the deciding fact.
    pub because: String,
    /// All facts that were looked at.
    pub evidence: Vec<Evidence>,
}

/// Finds the trust store of a host. Tools and directories say what there is, os-release says what should be: where it names a
/// family, no other one is taken. A tool that is missing, replaced or renamed must not make the node one of another family.
pub fn detect(os: &OsRelease, found: &BTreeMap<&str, PathKind>, wanted: Option<Family>) -> Detection {
    let mut evidence = vec![
        Evidence { fact: "os-release ID".into(), value: os.id.clone() },
        Evidence { fact: "os-release ID_LIKE".into(), value: os.id_like.join(" ") },
        Evidence { fact: "os-release VERSION_ID".into(), value: os.version_id.clone() },
    ];
    if !os.variant_id.is_empty() {
        evidence.push(Evidence { fact: "os-release VARIANT_ID".into(), value: os.variant_id.clone() });
    }
    for path in PROBES {
        let value = match found.get(path) {
            Some(PathKind::Directory) => "directory",
            Some(PathKind::Script) => "script",
            Some(PathKind::DebianScript) => "Debian's script",
            Some(PathKind::File) => "file",
            Some(PathKind::Socket) => "socket",
            None => "absent",
        };
        evidence.push(Evidence { fact: (*path).into(), value: value.into() });
    }
    let (family, because) = decide(os, found, wanted);
    Detection { family, because, evidence }
}

impl Detection {
    /// The result where a fact could not be read: nothing is known, and nothing may be done.
    pub fn unreadable(error: String, next: String) -> Self {
        let unsupported = Unsupported { reason: error, advice: next, is_unknown: true, without_tool: None };
        Self { family: Err(unsupported), because: "the host could not be looked at".into(), evidence: Vec::new() }
    }
}

fn decide(
    os: &OsRelease,
    found: &BTreeMap<&str, PathKind>,
    wanted: Option<Family>,
) -> (Result<Family, Unsupported>, String) {
    let tool = |programs: &[&'static str]| programs.iter().copied().find(|program| found.contains_key(program));
    if wanted.or_else(|| os.family()) == Some(Family::Bottlerocket)
        && let Tool::SettingsApi { socket } = Family::Bottlerocket.store().tool
    {
        return match found.get(socket) {
            Some(PathKind::Socket) => (Ok(Family::Bottlerocket), format!("the API's socket {socket} exists")),
            _ => (Err(advice::no_settings_api(socket)), format!("there is no socket {socket}")),
        };
    }
    if let Some(family) = wanted {
        let programs = family.store().tool.programs();
        if programs.is_empty() || tool(programs).is_some() {
            return (Ok(family), format!("store.family is set to {family}"));
        }
        let missing = Unsupported {
            reason: format!("store.family is set to {family}, but the host has none of {}", programs.join(", ")),
            advice: "install the distribution's package ca-certificates, or set store.family to auto".into(),
            is_unknown: false,
            without_tool: Some(family),
        };
        return (Err(missing), "the configured family's tool is absent".into());
    }
    if let Some(unsupported) = advice::without_store(os) {
        return (Err(unsupported), format!("os-release has ID={}", os.id));
    }
    let named = os.family();
    if let Some(family @ (Family::Flatcar | Family::Photon | Family::Alpine)) = named
        && let Some(program) =
            UPDATE_CA_CERTIFICATES.iter().find(|path| found.get(*path) == Some(&PathKind::DebianScript))
    {
        return contradiction(os, family, &format!("{program} is Debian's script"));
    }
    if let Some(family @ (Family::Flatcar | Family::Photon)) = named {
        return match tool(family.store().tool.programs()) {
            Some(_) => (Ok(family), format!("os-release has ID={}", os.id)),
            None => (Err(advice::nothing_installed(os, None)), format!("os-release has ID={}, and no tool", os.id)),
        };
    }
    let candidates = candidates(found, named);
    if let Some(family) = named
        && !candidates.is_empty()
    {
        if let Some((family, because)) = candidates.iter().find(|(candidate, _)| *candidate == family) {
            return (Ok(*family), format!("{because}; it fits ID={}", os.id));
        }
        let there: Vec<&str> = candidates.iter().map(|(_, because)| because.as_str()).collect();
        return contradiction(os, family, &there.join("; "));
    }
    match candidates.as_slice() {
        [(family, because)] => (Ok(*family), because.clone()),
        [] if found.is_empty() && *os == OsRelease::parse("") => {
            (Err(advice::no_system()), "no os-release and no part of a trust store".into())
        }
        [] => {
            let program = tool(UPDATE_CA_CERTIFICATES).or(tool(UPDATE_CA_TRUST));
            (Err(advice::nothing_installed(os, program)), "no tool together with its directory".into())
        }
        several => {
            let names: Vec<&str> = several.iter().map(|(family, _)| family.as_str()).collect();
            let several = Unsupported {
                reason: format!(
                    "the host has the tools of several stores ({}) and ID={} fits none",
                    names.join(", "),
                    os.id
                ),
                advice: "set store.family to the one that is in use".into(),
                is_unknown: false,
                without_tool: None,
            };
            (Err(several), "several stores".into())
        }
    }
}

/// os-release names one family, and what is there is another one's.
fn contradiction(os: &OsRelease, named: Family, there: &str) -> (Result<Family, Unsupported>, String) {
    let unsupported = Unsupported {
        reason: format!(
            "os-release (ID={}) means the {named} store, but what is there is another one: {there}; nothing is changed",
            os.id
        ),
        advice: format!(
            "repair the store on the host ({}); or set store.family to the one that is in use",
            advice::install(os)
        ),
        is_unknown: false,
        without_tool: None,
    };
    (Err(unsupported), "os-release and the tools contradict each other".into())
}

/// The families whose tool and directory are there, with what was seen. A tool counts together with the directory that it reads:
/// Debian may have p11-kit's tools without their paths.
fn candidates(found: &BTreeMap<&str, PathKind>, named: Option<Family>) -> Vec<(Family, String)> {
    let has = |path: &str| found.contains_key(path);
    let tool = |programs: &[&'static str]| programs.iter().copied().find(|program| found.contains_key(program));
    let mut candidates = Vec::new();
    if let Some(program) = tool(UPDATE_CA_TRUST) {
        if has("/etc/pki/ca-trust/source") {
            candidates.push((Family::Redhat, format!("{program} and /etc/pki/ca-trust/source exist")));
        }
        if has("/etc/ca-certificates/trust-source") {
            candidates.push((Family::Arch, format!("{program} and /etc/ca-certificates/trust-source exist")));
        }
    }
    if let Some(program) = tool(UPDATE_CA_CERTIFICATES) {
        let is_script = matches!(found.get(program), Some(PathKind::Script | PathKind::DebianScript));
        let kind = if is_script { "a script" } else { "a program, not a script" };
        candidates.push(match named {
            // a wrapper of the site's is no other distribution
            Some(family @ (Family::Debian | Family::Alpine)) => (family, format!("{program} is {kind}")),
            _ if has("/etc/pki/trust") => (Family::Suse, format!("{program} and /etc/pki/trust exist")),
            _ if is_script => (Family::Debian, format!("{program} is a script, and there is no /etc/pki/trust")),
            _ => (Family::Alpine, format!("{program} is a program, not a script")),
        });
    }
    candidates
}
