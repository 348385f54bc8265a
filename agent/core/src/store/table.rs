//! The rows of the table. Sources: facts A.2 to A.12, read off the distributions' scripts, packages and manual pages.

use super::trust_store::{Family, Takes, Tool, TrustStore};

pub(super) const UPDATE_CA_CERTIFICATES: &[&str] =
    &["/usr/sbin/update-ca-certificates", "/usr/bin/update-ca-certificates"];
pub(super) const UPDATE_CA_TRUST: &[&str] = &["/usr/bin/update-ca-trust", "/usr/sbin/update-ca-trust"];

impl Family {
    /// The row of the table for this family.
    pub fn store(self) -> &'static TrustStore {
        match self {
            Self::Debian => &DEBIAN,
            Self::Redhat => &REDHAT,
            Self::Suse => &SUSE,
            Self::Arch => &ARCH,
            Self::Alpine => &ALPINE,
            Self::Flatcar => &FLATCAR,
            Self::Photon => &PHOTON,
            Self::Bottlerocket => &BOTTLEROCKET,
            Self::Directory => &DIRECTORY,
        }
    }
}

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
    outputs: &["/etc/ssl/certs"],
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
    outputs: &["/etc/ssl/certs"],
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
    outputs: &["/etc/ssl/certs"],
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
    outputs: &["/etc/ssl/certs"],
    drops_not_ca: false,
    pastes_files: true,
};

/// Where Bottlerocket's API listens (facts A.13).
pub const SETTINGS_SOCKET: &str = "/run/api.sock";

static BOTTLEROCKET: TrustStore = TrustStore {
    family: Family::Bottlerocket,
    anchors_dir: "settings.pki",
    recursive: false,
    extension: "",
    takes: Takes::All,
    temp_dir: "settings.pki",
    tool: Tool::SettingsApi { socket: SETTINGS_SOCKET },
    bundle: "/etc/pki/tls/certs/ca-bundle.crt",
    hash_dir: None,
    outputs: &[],
    drops_not_ca: false,
    pastes_files: false,
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
