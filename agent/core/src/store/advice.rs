//! What to do on systems that have no store for us, or lack a part of it: in each system's own way.

use serde::Serialize;

use super::{os_release::OsRelease, trust_store::Family};

/// A system that has no trust store to write to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{reason}; {advice}")]
pub struct Unsupported {
    /// What it is and why.
    pub reason: String,
    /// The native way, or what to install.
    pub advice: String,
    /// The host could not be looked at: it may well have a store.
    #[serde(skip)]
    pub is_unknown: bool,
    /// Only the tool is missing: the store that the system has, whose bundle can be read and not made.
    #[serde(skip)]
    pub without_tool: Option<Family>,
}

/// A system that sets trust in its own way.
pub(crate) struct NativeSystem {
    /// Its `ID` in os-release.
    pub(crate) id: &'static str,
    name: &'static str,
    why: &'static str,
    advice: &'static str,
}

/// Systems that are recognised and have their own way.
pub(crate) const NATIVE_SYSTEMS: [NativeSystem; 6] = [
    NativeSystem {
        id: "talos",
        name: "Talos",
        why: "its trust store is part of the machine configuration",
        advice: "apply a TrustedRootsConfig document with talosctl",
    },
    NativeSystem {
        id: "nixos",
        name: "NixOS",
        why: "its trust store is built from the system configuration",
        advice: "set security.pki.certificateFiles and rebuild the system",
    },
    NativeSystem {
        id: "guix",
        name: "Guix System",
        why: "its trust store is built from the system configuration",
        advice: "make a package of the certificates, add it to the packages of the operating-system declaration, and run guix system reconfigure",
    },
    NativeSystem {
        id: "clear-linux-os",
        name: "Clear Linux",
        why: "its trust store is generated below /var by a tool of its own",
        advice: "run clrtrust add FILE for each certificate",
    },
    NativeSystem {
        id: "ubuntu-core",
        name: "Ubuntu Core",
        why: "its root file system is a read-only snap, the trust store with it",
        advice: "give the certificates to the snaps that need them (microk8s and k8s read certs.d below their own /var/snap directory), or build a base snap with them; snapd itself takes `snap set system store-certs.NAME=PEM`",
    },
    NativeSystem {
        id: "cos",
        name: "Container-Optimized OS",
        why: "it ships no supported tool and forgets /etc at each reboot",
        advice: "use the node pool's private registry access configuration (certificateAuthorityDomainConfig); or set store.family to directory, which covers programs in Go such as containerd",
    },
];

impl NativeSystem {
    /// Why there is no store for us, and what to do.
    fn unsupported(&self) -> Unsupported {
        Unsupported {
            reason: format!("{}: {}", self.name, self.why),
            advice: self.advice.into(),
            is_unknown: false,
            without_tool: None,
        }
    }
}

pub(super) fn without_store(os: &OsRelease) -> Option<Unsupported> {
    let id = os.id.to_ascii_lowercase();
    NATIVE_SYSTEMS.iter().find(|system| system.id == id).map(NativeSystem::unsupported)
}

/// An empty image without the node's files: a debug pod of a kind that may not mount them.
pub(super) fn no_system() -> Unsupported {
    Unsupported {
        reason: "there is no operating system here: neither os-release nor any part of a trust store".into(),
        advice: "run it on the node, or in a pod that has the node's / at /host (kubectl debug node/NAME --profile=sysadmin); --host-root names another place".into(),
        is_unknown: false,
        without_tool: None,
    }
}

/// Bottlerocket, whose API cannot be reached.
pub(super) fn no_settings_api(socket: &str) -> Unsupported {
    Unsupported {
        reason: format!("Bottlerocket: its trust store is changed only through its API, whose socket {socket} is not there"),
        advice: "give the agent the host's / with its /run, as the manifests do; or set settings.pki.<name>.data (base64 of the PEM) and \
                 settings.pki.<name>.trusted = true in the node's user data or with apiclient"
            .into(),
        is_unknown: false,
        without_tool: Some(Family::Bottlerocket),
    }
}

/// The store's tool is absent, or, with `program`, the directory that it reads.
pub(super) fn nothing_installed(os: &OsRelease, program: Option<&str>) -> Unsupported {
    let reason = match (program, os.family()) {
        (Some(program), _) => format!("{program} exists, but none of the directories that such a tool reads"),
        (None, Some(Family::Photon)) => {
            "Photon: /usr/bin/openssl is not installed, which makes the hash links (openssl rehash)".into()
        }
        (None, Some(Family::Flatcar)) => "Flatcar: update-ca-certificates is missing in this image".into(),
        (None, _) => "neither update-ca-certificates nor update-ca-trust is installed".into(),
    };
    // a package whose file somebody has removed is installed all the same
    let again = match os.family() {
        Some(Family::Flatcar | Family::Bottlerocket) => "",
        _ if of_immutable(os).is_some() => "",
        _ => "; if the package is installed already, reinstall it",
    };
    let advice = format!("on the host: {}{again}", install(os));
    Unsupported { reason, advice, is_unknown: false, without_tool: os.family().filter(|_| program.is_none()) }
}

/// How the parts of the store are installed on a system.
pub(super) fn install(os: &OsRelease) -> String {
    if let Some(way) = of_immutable(os) {
        return way.install.to_owned();
    }
    let id = os.id.to_ascii_lowercase();
    let command = match (os.family(), id.as_str()) {
        (_, "gentoo") => "emerge app-misc/ca-certificates",
        (Some(Family::Debian), _) => "apt-get install ca-certificates",
        (_, "azurelinux" | "mariner") => "tdnf install ca-certificates ca-certificates-tools",
        (_, "amzn") if os.version_id == "2" => "yum install ca-certificates",
        (Some(Family::Redhat), _) => "dnf install ca-certificates",
        (Some(Family::Suse), _) => "zypper install ca-certificates ca-certificates-mozilla",
        (Some(Family::Alpine), _) => "apk add ca-certificates",
        (Some(Family::Arch), _) => "pacman -S ca-certificates-utils",
        (Some(Family::Photon), _) => "tdnf install openssl ca-certificates",
        (Some(Family::Flatcar | Family::Bottlerocket), _) => "update the system, whose image has the tool",
        _ => "install the package ca-certificates",
    };
    command.to_owned()
}

/// The ways of a system whose `/usr` is read-only while it runs.
struct Immutable {
    install: &'static str,
    /// when a directory of the store is read-only too
    add: &'static str,
}

fn of_immutable(os: &OsRelease) -> Option<Immutable> {
    let lower = |text: &str| text.to_ascii_lowercase();
    let (id, variant) = (lower(&os.id), lower(&os.variant_id).replace(['-', '_'], ""));
    let is_micro = ["micro", "aeon", "kalpa"].iter().any(|word| id.contains(word)) || variant.contains("micro");
    Some(match os.family()? {
        Family::Suse if is_micro => Immutable {
            install: "/usr is read-only: transactional-update pkg install ca-certificates ca-certificates-mozilla, then reboot",
            add: "the system is immutable: put the certificate into /etc/pki/trust/anchors in a transactional-update shell and reboot, or build the image with it",
        },
        Family::Redhat if variant.contains("osguard") || lower(&os.pretty_name).contains("os guard") => Immutable {
            install: "/usr is read-only and verified: build the node image anew with ca-certificates-tools in it, and replace the nodes",
            add: "the system is immutable and verified: build the node image anew with the certificate in /etc/pki/ca-trust/source/anchors, and replace the nodes",
        },
        Family::Redhat if id == "rhcos" || (id == "rhel" && variant == "coreos") => Immutable {
            install: "/usr is read-only and belongs to the Machine Config Operator: its image has ca-certificates, so the node needs repair",
            add: "the Machine Config Operator owns this system: name the certificates in proxy/cluster, spec.trustedCA",
        },
        Family::Redhat if matches!(variant.as_str(), "coreos" | "iot" | "silverblue" | "kinoite") => Immutable {
            install: "/usr is read-only: rpm-ostree install ca-certificates, then reboot",
            add: "the system is immutable: put the certificate into /etc/pki/ca-trust/source/anchors by Ignition, or build the image with it",
        },
        _ => return None,
    })
}

/// What to do where a directory of the store is read-only, if the system has a way of its own.
pub fn where_read_only(os: &OsRelease) -> Option<&'static str> {
    of_immutable(os).map(|way| way.add)
}
