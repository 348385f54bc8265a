//! Which row fits a host.
//!
//! In: os-release and which paths exist. Out: a family, or the named reason why there is none, with every fact that decided.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{
    Family,
    table::{UPDATE_CA_CERTIFICATES, UPDATE_CA_TRUST},
};
use crate::os::OsRelease;

/// What the shell found at a path that detection asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Found {
    /// A directory.
    Directory,
    /// A file that begins with `#!`.
    Script,
    /// Any other file.
    File,
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
];

/// One fact of a detection and what it says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Evidence {
    /// What was looked at.
    pub fact: String,
    /// What was seen.
    pub value: String,
}

/// A system that has no trust store to write to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{reason}; {advice}")]
pub struct Unsupported {
    /// What it is and why.
    pub reason: String,
    /// The native way, or what to install.
    pub advice: String,
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

/// Finds the trust store of a host. Tools and directories decide; `ID` breaks ties and names systems without a store.
pub fn detect(os: &OsRelease, found: &BTreeMap<&str, Found>, wanted: Option<Family>) -> Detection {
    let mut evidence = vec![
        Evidence { fact: "os-release ID".into(), value: os.id.clone() },
        Evidence { fact: "os-release ID_LIKE".into(), value: os.id_like.join(" ") },
        Evidence { fact: "os-release VERSION_ID".into(), value: os.version_id.clone() },
    ];
    for path in PROBES {
        let value = match found.get(path) {
            Some(Found::Directory) => "directory",
            Some(Found::Script) => "script",
            Some(Found::File) => "file",
            None => "absent",
        };
        evidence.push(Evidence { fact: (*path).into(), value: value.into() });
    }
    let (family, because) = decide(os, found, wanted);
    Detection { family, because, evidence }
}

fn decide(
    os: &OsRelease,
    found: &BTreeMap<&str, Found>,
    wanted: Option<Family>,
) -> (Result<Family, Unsupported>, String) {
    let has = |path: &str| found.contains_key(path);
    let tool = |programs: &[&'static str]| programs.iter().copied().find(|program| found.contains_key(program));
    if let Some(family) = wanted {
        let programs = family.store().tool.programs();
        if programs.is_empty() || tool(programs).is_some() {
            return (Ok(family), format!("store.family is set to {family}"));
        }
        let missing = Unsupported {
            reason: format!("store.family is set to {family}, but the host has none of {}", programs.join(", ")),
            advice: "install the distribution's package ca-certificates, or set store.family to auto".into(),
        };
        return (Err(missing), "the configured family's tool is absent".into());
    }
    if let Some(unsupported) = without_store(os) {
        return (Err(unsupported), format!("os-release has ID={}", os.id));
    }
    for (id, family) in [("flatcar", Family::Flatcar), ("photon", Family::Photon)] {
        if os.id == id && tool(family.store().tool.programs()).is_some() {
            return (Ok(family), format!("os-release has ID={id}"));
        }
    }
    let certificates = tool(UPDATE_CA_CERTIFICATES);
    let trust = tool(UPDATE_CA_TRUST);
    // a tool counts together with the directory that it reads: Debian may have p11-kit's tools without their paths
    let mut candidates: Vec<(Family, String)> = Vec::new();
    if let Some(program) = trust {
        if has("/etc/pki/ca-trust/source") {
            candidates.push((Family::Redhat, format!("{program} and /etc/pki/ca-trust/source exist")));
        }
        if has("/etc/ca-certificates/trust-source") {
            candidates.push((Family::Arch, format!("{program} and /etc/ca-certificates/trust-source exist")));
        }
    }
    if let Some(program) = certificates {
        match (has("/etc/pki/trust"), found.get(program)) {
            (true, _) => candidates.push((Family::Suse, format!("{program} and /etc/pki/trust exist"))),
            (false, Some(Found::Script)) => {
                candidates.push((Family::Debian, format!("{program} is a script, and there is no /etc/pki/trust")))
            }
            (false, _) => candidates.push((Family::Alpine, format!("{program} is a program, not a script"))),
        }
    }
    let by_id = |family: Family| match family {
        Family::Redhat => ["rhel", "fedora", "centos", "amzn", "mariner", "azurelinux"].iter().any(|id| os.is_like(id)),
        Family::Suse => ["suse", "sles", "opensuse"].iter().any(|id| os.is_like(id)),
        Family::Debian => ["debian", "ubuntu", "gentoo"].iter().any(|id| os.is_like(id)),
        Family::Alpine => ["alpine", "wolfi"].iter().any(|id| os.is_like(id)),
        Family::Arch => os.is_like("arch"),
        Family::Flatcar | Family::Photon | Family::Directory => false,
    };
    if let [(family, because)] = candidates.as_slice() {
        return (Ok(*family), because.clone());
    }
    if let Some((family, because)) = candidates.iter().find(|(family, _)| by_id(*family)) {
        return (Ok(*family), format!("{because}; of several stores the one that fits ID={}", os.id));
    }
    if !candidates.is_empty() {
        let names: Vec<&str> = candidates.iter().map(|(family, _)| family.as_str()).collect();
        let several = Unsupported {
            reason: format!(
                "the host has the tools of several stores ({}) and ID={} fits none",
                names.join(", "),
                os.id
            ),
            advice: "set store.family to the one that is in use".into(),
        };
        return (Err(several), "several stores".into());
    }
    if found.is_empty() && *os == OsRelease::parse("") {
        return (Err(no_system()), "no os-release and no part of a trust store".into());
    }
    (Err(nothing_installed(os, certificates.or(trust))), "no tool together with its directory".into())
}

/// Systems that are recognised and have their own way.
fn without_store(os: &OsRelease) -> Option<Unsupported> {
    let (name, why, advice) = match os.id.as_str() {
        "bottlerocket" => (
            "Bottlerocket",
            "its trust store is changed only through its API, and /etc is made anew at each boot",
            "set settings.pki.<name>.data (base64 of the PEM) and settings.pki.<name>.trusted = true in the node's user data or with apiclient",
        ),
        "talos" => (
            "Talos",
            "its trust store is part of the machine configuration",
            "apply a TrustedRootsConfig document with talosctl",
        ),
        "nixos" => (
            "NixOS",
            "its trust store is built from the system configuration",
            "set security.pki.certificateFiles and rebuild the system",
        ),
        "cos" => (
            "Container-Optimized OS",
            "it ships no supported tool and forgets /etc at each reboot",
            "use the node pool's private registry access configuration (certificateAuthorityDomainConfig); or set store.family to directory, which covers programs in Go such as containerd",
        ),
        _ => return None,
    };
    Some(Unsupported { reason: format!("{name}: {why}"), advice: advice.into() })
}

/// An empty image without the node's files: a debug pod of a kind that may not mount them.
fn no_system() -> Unsupported {
    Unsupported {
        reason: "there is no operating system here: neither os-release nor any part of a trust store".into(),
        advice: "run it on the node, or in a pod that has the node's / at /host (kubectl debug node/NAME --profile=sysadmin); --host-root names another place".into(),
    }
}

fn nothing_installed(os: &OsRelease, program: Option<&str>) -> Unsupported {
    let install = match () {
        () if os.is_like("debian") => "apt-get install ca-certificates",
        () if os.is_like("fedora") || os.is_like("rhel") => "dnf install ca-certificates",
        () if os.id == "azurelinux" || os.id == "mariner" => "tdnf install ca-certificates ca-certificates-tools",
        () if os.is_like("suse") || os.id == "sles" => "zypper install ca-certificates",
        () if os.is_like("alpine") => "apk add ca-certificates",
        () if os.is_like("arch") => "pacman -S ca-certificates-utils",
        () => "install the package ca-certificates",
    };
    let reason = match program {
        Some(program) => format!("{program} exists, but none of the directories that such a tool reads"),
        None => "neither update-ca-certificates nor update-ca-trust is installed".into(),
    };
    Unsupported { reason, advice: format!("on the host: {install}") }
}
