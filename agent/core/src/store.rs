//! The trust stores: one table, and which row fits a host.
//!
//! In: os-release and which paths exist. Out: a [`TrustStore`], or the named reason why there is none, with every fact that
//! decided. Sources of the rows: facts A.2 to A.12 (distribution scripts, packages and manual pages).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::os::OsRelease;

/// A kind of trust store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// Debian, Ubuntu, Gentoo: `update-ca-certificates`, a shell script.
    Debian,
    /// RHEL, Fedora, Amazon Linux, Azure Linux: `update-ca-trust` over p11-kit.
    Redhat,
    /// SLES, openSUSE: `update-ca-certificates` over p11-kit.
    Suse,
    /// Arch: `update-ca-trust` over p11-kit, with its own paths.
    Arch,
    /// Alpine, Wolfi: `update-ca-certificates`, a C program.
    Alpine,
    /// Flatcar: anchors lie in `/etc/ssl/certs` itself.
    Flatcar,
    /// Photon: as Flatcar, and the bundle is a concatenation.
    Photon,
    /// No tool: the directory that Go reads in addition to the bundle.
    Directory,
}

impl Family {
    /// The public name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Debian => "debian",
            Self::Redhat => "redhat",
            Self::Suse => "suse",
            Self::Arch => "arch",
            Self::Alpine => "alpine",
            Self::Flatcar => "flatcar",
            Self::Photon => "photon",
            Self::Directory => "directory",
        }
    }

    /// The row of the table.
    pub fn store(self) -> &'static TrustStore {
        match self {
            Self::Debian => &DEBIAN,
            Self::Redhat => &REDHAT,
            Self::Suse => &SUSE,
            Self::Arch => &ARCH,
            Self::Alpine => &ALPINE,
            Self::Flatcar => &FLATCAR,
            Self::Photon => &PHOTON,
            Self::Directory => &DIRECTORY,
        }
    }
}

impl std::fmt::Display for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Everything that differs between trust stores.
#[derive(Debug, PartialEq, Eq)]
pub struct TrustStore {
    /// Which row.
    pub family: Family,
    /// Where anchor files go, absolute in the host root.
    pub anchors_dir: &'static str,
    /// The tool looks below `anchors_dir` too.
    pub recursive: bool,
    /// The extension of our files.
    pub extension: &'static str,
    /// Which names in `anchors_dir` the tool takes.
    pub takes: Takes,
    /// Where an anchor file is written before its rename: on the same file system, and no tool scans it.
    pub temp_dir: &'static str,
    /// How the bundle is made.
    pub tool: Tool,
    /// The file that consumers read: the truth.
    pub bundle: &'static str,
    /// OpenSSL's directory of hash links, checked where it is in use.
    pub hash_dir: Option<&'static str>,
    /// What a run of the tool replaces, apart from `bundle`: files, and directories of certificates and links. Put back together
    /// with it if a run loses foreign certificates.
    pub outputs: &'static [&'static str],
    /// The store silently leaves out what is not a CA for servers (facts A.4).
    pub drops_not_ca: bool,
    /// The tool pastes files as they are, so a foreign private key or broken block ends in the bundle (facts A.3, A.7).
    pub pastes_files: bool,
}

/// Which file names a tool takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    /// Names with this ending.
    Ending(&'static str),
    /// Names that do not begin with a dot.
    Visible,
    /// Every name, also `.x` and `x~`.
    All,
}

impl Takes {
    /// Whether the tool takes this name.
    pub fn matches(self, name: &str) -> bool {
        match self {
            Self::Ending(ending) => name.ends_with(ending),
            Self::Visible => !name.starts_with('.'),
            Self::All => true,
        }
    }
}

/// How the extracted bundle comes about.
#[derive(Debug, PartialEq, Eq)]
pub enum Tool {
    /// The distribution's tool writes the bundle itself.
    Direct {
        /// Where it may lie; the first that exists is run.
        programs: &'static [&'static str],
        /// Arguments for a plain run.
        args: &'static [&'static str],
        /// Arguments after a removal.
        fresh: &'static [&'static str],
    },
    /// Debian's tool, told to write its bundle under a name of ours beside the real one. What it wrote is read, and only a good
    /// bundle takes the real name. So a killed or racing run, which would poison the next one through the tool's fixed
    /// temporary name (facts 0.1, 0.2), cannot reach the real bundle. Hooks run afterwards, when the bundle is in place.
    Staged {
        /// As in `Direct`.
        programs: &'static [&'static str],
        /// Arguments for a plain run.
        args: &'static [&'static str],
        /// Arguments after a removal.
        fresh: &'static [&'static str],
        /// The staged bundle's name.
        staged: &'static str,
        /// The temporary file that runs by others use, absolute.
        foreign_temp: &'static str,
        /// Directory of the hooks.
        hooks: &'static str,
    },
    /// We concatenate `anchors_dir` ourselves, after this program has made the hash links: the distribution's own way is
    /// to `cat` onto the live bundle (facts A.10).
    Concatenate {
        /// As in `Direct`.
        programs: &'static [&'static str],
        /// Arguments.
        args: &'static [&'static str],
    },
    /// Nothing to run: the directory itself is read by consumers.
    None,
}

impl Tool {
    /// The places of the program, empty where there is none.
    pub fn programs(&self) -> &'static [&'static str] {
        match self {
            Self::Direct { programs, .. } | Self::Staged { programs, .. } | Self::Concatenate { programs, .. } => {
                programs
            }
            Self::None => &[],
        }
    }

    /// The arguments of a run.
    pub fn args(&self, mode: ExtractMode) -> &'static [&'static str] {
        match (self, mode) {
            (Self::Direct { args, .. } | Self::Staged { args, .. }, ExtractMode::Plain) => args,
            (Self::Direct { fresh, .. } | Self::Staged { fresh, .. }, ExtractMode::Fresh) => fresh,
            (Self::Concatenate { args, .. }, _) => args,
            (Self::None, _) => &[],
        }
    }
}

/// How thorough a run of the tool is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExtractMode {
    /// Enough after an addition.
    Plain,
    /// After a removal or when something is wrong: links are made anew (`--fresh`, `-f`).
    Fresh,
}

const UPDATE_CA_CERTIFICATES: &[&str] = &["/usr/sbin/update-ca-certificates", "/usr/bin/update-ca-certificates"];
const UPDATE_CA_TRUST: &[&str] = &["/usr/bin/update-ca-trust", "/usr/sbin/update-ca-trust"];

static DEBIAN: TrustStore = TrustStore {
    family: Family::Debian,
    anchors_dir: "/usr/local/share/ca-certificates",
    recursive: true,
    extension: "crt",
    takes: Takes::Ending(".crt"),
    temp_dir: "/usr/local/share/ca-certificates",
    tool: Tool::Staged {
        programs: UPDATE_CA_CERTIFICATES,
        args: &["--certbundle", ".nodetrust-bundle", "--hooksdir", "/var/lib/nodetrust/no-hooks"],
        fresh: &["--fresh", "--certbundle", ".nodetrust-bundle", "--hooksdir", "/var/lib/nodetrust/no-hooks"],
        staged: ".nodetrust-bundle",
        foreign_temp: "/etc/ssl/certs/ca-certificates.crt.new",
        hooks: "/etc/ca-certificates/update.d",
    },
    bundle: "/etc/ssl/certs/ca-certificates.crt",
    hash_dir: Some("/etc/ssl/certs"),
    outputs: &[],
    drops_not_ca: false,
    pastes_files: true,
};

static REDHAT: TrustStore = TrustStore {
    family: Family::Redhat,
    anchors_dir: "/etc/pki/ca-trust/source/anchors",
    recursive: false,
    extension: "pem",
    takes: Takes::All,
    temp_dir: "/etc/pki/ca-trust",
    // every generation takes the word `extract`; one of 2023 ignores it (facts A.4)
    tool: Tool::Direct { programs: UPDATE_CA_TRUST, args: &["extract"], fresh: &["extract"] },
    bundle: "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    hash_dir: Some("/etc/pki/ca-trust/extracted/pem/directory-hash"),
    outputs: &[
        "/etc/pki/ca-trust/extracted/openssl/ca-bundle.trust.crt",
        "/etc/pki/ca-trust/extracted/pem/email-ca-bundle.pem",
        "/etc/pki/ca-trust/extracted/pem/objsign-ca-bundle.pem",
        "/etc/pki/ca-trust/extracted/java/cacerts",
        "/etc/pki/ca-trust/extracted/edk2/cacerts.bin",
        "/etc/pki/ca-trust/extracted/pem/directory-hash",
        "/etc/pki/tls/certs",
    ],
    drops_not_ca: true,
    pastes_files: false,
};

static SUSE: TrustStore = TrustStore {
    family: Family::Suse,
    anchors_dir: "/etc/pki/trust/anchors",
    recursive: false,
    extension: "pem",
    takes: Takes::All,
    temp_dir: "/etc/pki",
    // -f always: a plain run skips the bundle when its time lies in the future (facts A.6)
    tool: Tool::Direct { programs: UPDATE_CA_CERTIFICATES, args: &["-f"], fresh: &["-f"] },
    bundle: "/var/lib/ca-certificates/ca-bundle.pem",
    hash_dir: Some("/var/lib/ca-certificates/openssl"),
    outputs: &[
        "/var/lib/ca-certificates/java-cacerts",
        "/var/lib/ca-certificates/openssl",
        "/var/lib/ca-certificates/pem",
    ],
    drops_not_ca: true,
    pastes_files: false,
};

static ARCH: TrustStore = TrustStore {
    family: Family::Arch,
    anchors_dir: "/etc/ca-certificates/trust-source/anchors",
    recursive: false,
    extension: "pem",
    takes: Takes::All,
    temp_dir: "/etc/ca-certificates",
    tool: Tool::Direct { programs: UPDATE_CA_TRUST, args: &["extract"], fresh: &["extract"] },
    bundle: "/etc/ca-certificates/extracted/tls-ca-bundle.pem",
    hash_dir: Some("/etc/ssl/certs"),
    outputs: &[
        "/etc/ca-certificates/extracted/email-ca-bundle.pem",
        "/etc/ca-certificates/extracted/objsign-ca-bundle.pem",
        "/etc/ca-certificates/extracted/ca-bundle.trust.crt",
        "/etc/ca-certificates/extracted/edk2-cacerts.bin",
        "/etc/ca-certificates/extracted/cadir",
        "/etc/ssl/certs",
    ],
    drops_not_ca: true,
    pastes_files: false,
};

static ALPINE: TrustStore = TrustStore {
    family: Family::Alpine,
    anchors_dir: "/usr/local/share/ca-certificates",
    recursive: false,
    extension: "crt",
    takes: Takes::Visible,
    temp_dir: "/usr/local/share/ca-certificates",
    tool: Tool::Direct { programs: UPDATE_CA_CERTIFICATES, args: &[], fresh: &[] },
    bundle: "/etc/ssl/certs/ca-certificates.crt",
    hash_dir: Some("/etc/ssl/certs"),
    outputs: &[],
    drops_not_ca: false,
    pastes_files: true,
};

static FLATCAR: TrustStore = TrustStore {
    family: Family::Flatcar,
    anchors_dir: "/etc/ssl/certs",
    recursive: false,
    extension: "pem",
    takes: Takes::Ending(".pem"),
    temp_dir: "/etc/ssl",
    // any other argument prints the usage and exits 0 without doing anything (facts A.11)
    tool: Tool::Direct { programs: UPDATE_CA_CERTIFICATES, args: &[], fresh: &[] },
    bundle: "/etc/ssl/certs/ca-certificates.crt",
    hash_dir: Some("/etc/ssl/certs"),
    outputs: &[],
    drops_not_ca: false,
    pastes_files: true,
};

static PHOTON: TrustStore = TrustStore {
    family: Family::Photon,
    anchors_dir: "/etc/ssl/certs",
    recursive: false,
    extension: "pem",
    takes: Takes::Ending(".pem"),
    temp_dir: "/etc/ssl",
    tool: Tool::Concatenate { programs: &["/usr/bin/openssl"], args: &["rehash", "/etc/ssl/certs"] },
    bundle: "/etc/pki/tls/certs/ca-bundle.crt",
    hash_dir: Some("/etc/ssl/certs"),
    outputs: &[],
    drops_not_ca: false,
    pastes_files: true,
};

static DIRECTORY: TrustStore = TrustStore {
    family: Family::Directory,
    anchors_dir: "/etc/ssl/certs",
    recursive: false,
    extension: "pem",
    takes: Takes::Visible,
    temp_dir: "/etc/ssl",
    tool: Tool::None,
    bundle: "/etc/ssl/certs",
    hash_dir: None,
    outputs: &[],
    drops_not_ca: false,
    pastes_files: false,
};

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

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
