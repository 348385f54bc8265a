//! The choices that a composition is made of, and the numbers by which a seed decides them.

use crate::support::random::Random;

/// The numbers by which a seed decides a composition.
#[derive(Debug)]
pub struct SeededNumbers(pub(super) Random);

impl SeededNumbers {
    /// The numbers of a seed.
    pub fn of(seed: u64) -> Self {
        Self(Random(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ 0x6e6f_6465))
    }

    /// Returns true with a probability of `times` in `of`.
    pub fn chance(&mut self, times: u64, of: u64) -> bool {
        self.0.next() % of < times
    }

    /// Picks one of these.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::try_from(self.0.next() % from.len() as u64).unwrap()]
    }

    /// Picks the usual value, one of the others if this is the seed's subject, else one of the others once in `rarity`.
    pub(super) fn odd<T: Copy>(&mut self, certainly: bool, rarity: u64, usual: T, others: &[T]) -> T {
        let odd = self.chance(1, rarity);
        let other = self.pick(others);
        if certainly || odd { other } else { usual }
    }
}

/// A closed list of values, each with the words by which a composition is told.
macro_rules! choices {
    ($(#[$doc:meta])* $name:ident { $($(#[$of:meta])* $value:ident $words:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name { $($(#[$of])* $value),+ }

        impl $name {
            /// Every value; the first is the usual one.
            pub const ALL: &[Self] = &[$(Self::$value),+];

            /// The words for it; empty for the usual value.
            pub fn words(self) -> &'static str {
                match self { $(Self::$value => $words),+ }
            }
        }
    };
}

choices! {
    /// The subject that is certainly unusual.
    Subject {
        Path "config_path", Section "section", Imports "imports", Place "place", Unit "unit", Child "child", Socket "socket",
        Program "binary", Folders "folders", Others "others", Before "before", Policy "policy", Roots "roots",
    }
}

choices! {
    /// What `config_path` says, in the main file or in an imported one.
    ConfigPath {
        Unset "unset", Empty "empty", Directory "directory", Slash "directory/", Other "another directory", List "list",
        Reversed "reversed list", Relative "relative",
    }
}

choices! {
    /// Under which plugin `config_path` stands.
    Section { Right "", Wrong "in the wrong section", Both "in both sections", Bare "under [plugins.cri]" }
}

choices! {
    /// The `version` of the configuration.
    Format { Two "", One "version 1", Three "version 3" }
}

choices! {
    /// How the main file takes in another one.
    Import {
        None "", Absolute "absolute import", Relative "relative import", Glob "import by glob", RelativeGlob "import by relative glob",
        Nested "nested import",
    }
}

choices! {
    /// What becomes of the imported file.
    Life { Before "", Appears "appears after the start", Goes "goes after the start", Changes "changes after the start",
        AppearsLate "appears after apply", GoesLate "goes after apply" }
}

choices! {
    /// Where the configuration lies.
    ConfigPlace {
        Usual "", Elsewhere "config elsewhere", Decoy "config elsewhere, and a decoy in the usual place",
        Absent "no config file",
    }
}

choices! {
    /// What runs containerd.
    Starter {
        Plain "", Renamed "unit of another name", RenamedSaid "unit of another name, runtime.unit set",
        K3s "simulated k3s", Rke2 "simulated RKE2", K0s "simulated k0s", Microk8s "simulated MicroK8s",
        Edge "simulated k3s of another name", EdgeSaid "simulated k3s of another name, runtime.unit set",
        Parent "unknown parent", ParentSaid "unknown parent, runtime.unit set",
    }
}

choices! {
    /// Where containerd listens.
    Socket { Usual "", Configured "[grpc] address elsewhere", Flag "--address elsewhere" }
}

choices! {
    /// What a kubelet says of its runtime.
    Kubelet { Silent "", File "kubelet's config.yaml", Flags "kubeadm-flags.env", Process "kubelet's command line" }
}

choices! {
    /// Which program runs, and which other one lies beside it.
    Program {
        Usual "", Local "/usr/local/bin runs", OtherBeside "/usr/bin runs, another version in /usr/local/bin",
        LocalOtherBeside "/usr/local/bin runs, another version in /usr/bin",
    }
}

choices! {
    /// A folder for the registry, made by somebody else.
    HostFolder {
        None "", Empty "empty folder for the host", Toml "hosts.toml for the host", TheirCa "hosts.toml with their ca",
        OurCa "hosts.toml with the right ca", TheirCrt "their *.crt for the host", SkipVerify "hosts.toml with skip_verify",
        Underscores "empty folder host_port_", Portless "empty folder without port", LateEmpty "empty folder for the host after apply",
    }
}

choices! {
    /// What somebody else has put into `_default`.
    DefaultFolder { None "", Toml "_default/hosts.toml", TheirCrt "_default/their.crt", BadCrt "_default/empty.crt",
        OurCrt "_default/right.crt", LateToml "_default/hosts.toml after apply" }
}

choices! {
    /// Restarts of the runtime by somebody else.
    OtherRestarts { None "", BeforeApply "restarted before apply", During "restarted during apply", AfterApply "restarted after apply",
        Both "restarted before and after apply" }
}

choices! {
    /// The CA on the node before this run of nodetrust.
    Before {
        Nothing "", Golden "CA by hand before the start", ByHand "CA by hand after the start",
        Applied "apply before the start", AppliedAndLost "apply before the start, ledger lost",
        AppliedWarm "apply after the start, ledger lost",
    }
}

choices! {
    /// `runtime.onChange`.
    ChangePolicy { Auto "", Restart "onChange restart", Report "onChange report", Never "onChange never", Registry "onChange registry" }
}

choices! {
    /// `runtime.witness`, and whether an image on the node names the registry.
    WitnessLayout { Never "no witness", Auto "witness auto, no image", AutoImage "witness auto, image", Named "witness named" }
}

choices! {
    /// Who runs nodetrust.
    RunBy { Root "", Pod "in a simulated pod", Agent "agent in a simulated pod" }
}

choices! {
    /// Which roots containerd reads.
    Roots { Usual "", Environment "SSL_CERT_FILE of the unit", Mount "/etc/ssl/certs of the unit's own" }
}
