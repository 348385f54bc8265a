//! What a trust store is: its family, its files, and how its bundle is made.

use serde::{Deserialize, Serialize};

use crate::certificate::anchor::Anchor;

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
    /// Bottlerocket: anchors are settings, and its API makes the bundle of them.
    Bottlerocket,
    /// No tool: the directory that Go reads in addition to the bundle.
    Directory,
}

impl Family {
    /// Every family, in the order of the table in the documentation.
    pub const ALL: [Self; 9] = [
        Self::Debian,
        Self::Redhat,
        Self::Suse,
        Self::Arch,
        Self::Alpine,
        Self::Flatcar,
        Self::Photon,
        Self::Bottlerocket,
        Self::Directory,
    ];

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
            Self::Bottlerocket => "bottlerocket",
            Self::Directory => "directory",
        }
    }
}

impl std::fmt::Display for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Everything in which trust stores differ: a row of the table.
#[derive(Debug, PartialEq, Eq)]
pub struct TrustStore {
    /// Which row.
    pub family: Family,
    /// Where anchor files go, absolute in the host root. Where anchors are no files ([`Tool::SettingsApi`]), the setting below which they
    /// are: it is no path, and only the client of the API writes there.
    pub anchors_dir: &'static str,
    /// The tool looks below `anchors_dir` too.
    pub recursive: bool,
    /// The extension of our files; empty where their names have none.
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

impl TrustStore {
    /// Whether files in the anchor directory that are not ours are somebody's; where the extracted links and the bundle lie there too, they
    /// are the distribution's.
    pub fn has_foreign_files(&self) -> bool {
        self.anchors_dir != "/etc/ssl/certs" && !self.is_behind_api()
    }

    /// Whether anchors are settings of the system, which its API applies, and no files. Applying them restarts the container runtime.
    pub fn is_behind_api(&self) -> bool {
        matches!(self.tool, Tool::SettingsApi { .. })
    }

    /// Where an anchor is, for messages: a path, or the name of a setting.
    pub fn anchor_place(&self, name: &str) -> String {
        let separator = if self.is_behind_api() { '.' } else { '/' };
        format!("{}{separator}{name}", self.anchors_dir)
    }

    /// Why the store silently leaves an anchor out of its bundle; None if it takes it.
    pub fn leaves_out(&self, anchor: &Anchor) -> Option<&'static str> {
        if self.drops_not_ca { anchor.dropped_by_p11_kit() } else { None }
    }
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
    /// The system's API takes anchors as settings and makes the bundle itself; with it, it restarts the container runtime (facts A.13).
    SettingsApi {
        /// Its socket, absolute in the host root.
        socket: &'static str,
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
            Self::SettingsApi { .. } | Self::None => &[],
        }
    }

    /// The arguments of a run.
    pub fn args(&self, mode: ExtractMode) -> &'static [&'static str] {
        match (self, mode) {
            (Self::Direct { args, .. } | Self::Staged { args, .. }, ExtractMode::Plain) => args,
            (Self::Direct { fresh, .. } | Self::Staged { fresh, .. }, ExtractMode::Fresh) => fresh,
            (Self::Concatenate { args, .. }, _) => args,
            (Self::SettingsApi { .. } | Self::None, _) => &[],
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
