//! One composition of a node's layout, drawn from a seed: which unit runs containerd, what its configuration says and where, what
//! lies in the registry directory, who restarts what and when, and what nodetrust was told.
//!
//! The same seed on the same kind of machine gives the same composition. Each seed has a subject that is certainly
//! unusual; every other subject is usual most of the time, or nearly all compositions would be odd in everything.

use std::fmt;

use super::choices::*;

use crate::support::machine::MachineKind;

/// A composition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeLayout {
    pub seed: u64,
    pub kind: MachineKind,
    pub subject: Subject,
    pub format: Format,
    pub section: Section,
    /// in the main file
    pub path: ConfigPath,
    pub import: Import,
    /// in the imported file
    pub imported: ConfigPath,
    pub life: Life,
    pub place: ConfigPlace,
    pub unit: Starter,
    pub socket: Socket,
    pub kubelet: Kubelet,
    /// a dead /run/dockershim.sock
    pub dockershim: bool,
    /// a socket in the usual place behind which nobody is
    pub stale_socket: bool,
    /// a containerd.service that serves somebody else
    pub idle: bool,
    pub program: Program,
    pub host: HostFolder,
    pub default: DefaultFolder,
    /// folders that no registry can be called
    pub no_hosts: bool,
    pub others: OtherRestarts,
    pub before: Before,
    /// nodetrust has seen the process before there was anything to trust
    pub seen_first: bool,
    /// containerd has verified TLS before apply
    pub warm: bool,
    pub on_change: ChangePolicy,
    pub asked: WitnessLayout,
    pub run_by: RunBy,
    pub roots: Roots,
    /// when somebody restarts the runtime during apply, in hundredths of a second after its begin
    pub moment: u64,
}

impl NodeLayout {
    /// The composition of a seed for one of these kinds of machines.
    pub fn of(seed: u64, kinds: &[MachineKind]) -> Self {
        let mut numbers = SeededNumbers::of(seed);
        let kind = numbers.pick(kinds);
        // Families take turns, so that consecutive seeds have each.
        let subject = Subject::ALL[usize::try_from(seed % Subject::ALL.len() as u64).unwrap()];
        let mut layout = Self::drawn(seed, kind, subject, &mut numbers);
        layout.agree();
        layout
    }

    fn drawn(seed: u64, kind: MachineKind, subject: Subject, n: &mut SeededNumbers) -> Self {
        use ConfigPath::{Directory, Empty, List, Other, Relative, Reversed, Slash, Unset};
        let is = |of| subject == of;
        let imports = is(Subject::Imports) || is(Subject::Child);
        let plain = match subject {
            // The imported file decides.
            Subject::Imports => n.pick(&[Unset, Empty, Empty, Directory, Other]),
            _ => n.pick(&[Unset, Unset, Empty, Directory, Directory, Directory]),
        };
        let path = n.odd(is(Subject::Path), 8, plain, &[Unset, Empty, Slash, Other, List, Reversed, Relative]);
        let import = n.odd(is(Subject::Imports), if imports { 2 } else { 6 }, Import::None, &Import::ALL[1..]);
        let life = n.odd(is(Subject::Imports), 3, Life::Before, Life::ALL);
        let imported = n.pick(&[Unset, Empty, Directory, Directory, Directory, Other, List]);
        let section = n.odd(is(Subject::Section), 12, Section::Right, &Section::ALL[1..]);
        let format = n.odd(
            is(Subject::Section),
            4,
            Format::Two,
            if kind == MachineKind::Containerd21 {
                &[Format::Three, Format::Three, Format::One]
            } else {
                &[Format::One]
            },
        );
        let unit = match subject {
            Subject::Unit => {
                n.pick(&[Starter::Renamed, Starter::Renamed, Starter::RenamedSaid, Starter::Parent, Starter::Edge])
            }
            Subject::Child => n.pick(&Starter::ALL[3..]),
            _ => n.odd(false, 5, Starter::Plain, &Starter::ALL[1..]),
        };
        let sockets = is(Subject::Socket);
        let folders = is(Subject::Folders);
        let before = is(Subject::Before);
        Self {
            seed,
            kind,
            subject,
            format,
            section,
            path,
            import,
            imported,
            life,
            place: n.odd(is(Subject::Place), 6, ConfigPlace::Usual, &ConfigPlace::ALL[1..]),
            unit,
            socket: n.odd(sockets, 8, Socket::Usual, &Socket::ALL[1..]),
            kubelet: n.odd(sockets, 4, Kubelet::Silent, Kubelet::ALL),
            dockershim: n.chance(if sockets { 6 } else { 1 }, 12),
            stale_socket: n.chance(if sockets { 6 } else { 1 }, 12),
            idle: n.chance(if matches!(subject, Subject::Unit | Subject::Child) { 4 } else { 1 }, 12),
            program: n.odd(is(Subject::Program), 8, Program::Usual, &Program::ALL[1..]),
            host: n.odd(folders, 8, HostFolder::None, &HostFolder::ALL[1..]),
            default: n.odd(folders && n.0.0.is_multiple_of(2), 10, DefaultFolder::None, &DefaultFolder::ALL[1..]),
            no_hosts: n.chance(if folders { 6 } else { 1 }, 12),
            others: n.odd(is(Subject::Others), 6, OtherRestarts::None, &OtherRestarts::ALL[1..]),
            before: n.odd(before, 7, Before::Nothing, &Before::ALL[1..]),
            seen_first: n.chance(1, 3),
            warm: n.chance(6, 7),
            on_change: n.odd(is(Subject::Policy), 8, ChangePolicy::Auto, &ChangePolicy::ALL[1..]),
            asked: n.pick(WitnessLayout::ALL),
            run_by: n.pick(&[RunBy::Root, RunBy::Root, RunBy::Pod, RunBy::Pod, RunBy::Agent]),
            roots: n.odd(is(Subject::Roots), 40, Roots::Usual, &Roots::ALL[1..]),
            moment: n.0.next() % 150,
        }
    }

    /// Removes choices that exclude each other.
    fn agree(&mut self) {
        if self.subject == Subject::Path && self.import != Import::None && self.imported != ConfigPath::Unset {
            self.imported = ConfigPath::Unset; // else the imported value would count
        }
        if self.format == Format::One && self.section == Section::Both {
            self.section = Section::Right;
        }
        // containerd does not start without a file that it imports by name.
        let glob = matches!(self.import, Import::Glob | Import::RelativeGlob);
        self.life = match self.life {
            _ if self.import == Import::None => Life::Before,
            Life::Appears if !glob => Life::Changes,
            Life::AppearsLate if !glob => Life::GoesLate,
            life => life,
        };
        if self.is_distribution() {
            // Each distribution has its own paths and its own socket.
            self.place = ConfigPlace::Usual;
            self.socket = Socket::Usual;
            self.stale_socket &= self.unit != Starter::Plain;
        }
        if self.place == ConfigPlace::Absent {
            (self.path, self.import, self.life) = (ConfigPath::Unset, Import::None, Life::Before);
            self.section = Section::Right;
            self.format = Format::Two;
            if self.socket == Socket::Configured {
                self.socket = Socket::Flag;
            }
        }
        // A second containerd.service cannot exist beside it, and the kubelet names the runtime then.
        self.idle &= self.unit != Starter::Plain;
        if self.idle {
            self.stale_socket = false;
            if !self.is_distribution() {
                self.socket = Socket::Flag; // the idle one reads the usual file
            }
            if self.kubelet == Kubelet::Silent {
                self.kubelet = Kubelet::ALL[1 + usize::try_from(self.seed / 13 % 3).unwrap()];
            }
        }
        self.stale_socket &= self.socket != Socket::Usual || self.is_distribution();
        if self.roots == Roots::Mount && self.run_by == RunBy::Agent {
            self.run_by = RunBy::Pod;
        }
    }

    /// The same with one subject after the other as usual, where that makes a difference.
    pub fn simpler(&self) -> Vec<Self> {
        let usual: [fn(&mut Self); 23] = [
            |layout| layout.run_by = RunBy::Root,
            |layout| layout.asked = WitnessLayout::Never,
            |layout| layout.others = OtherRestarts::None,
            |layout| layout.before = Before::Nothing,
            |layout| layout.seen_first = false,
            |layout| layout.on_change = ChangePolicy::Auto,
            |layout| layout.host = HostFolder::None,
            |layout| layout.default = DefaultFolder::None,
            |layout| layout.no_hosts = false,
            |layout| layout.import = Import::None,
            |layout| layout.life = Life::Before,
            |layout| layout.section = Section::Right,
            |layout| layout.format = Format::Two,
            |layout| layout.path = ConfigPath::Unset,
            |layout| layout.place = ConfigPlace::Usual,
            |layout| layout.program = Program::Usual,
            |layout| layout.idle = false,
            |layout| layout.dockershim = false,
            |layout| layout.stale_socket = false,
            |layout| layout.kubelet = Kubelet::Silent,
            |layout| layout.socket = Socket::Usual,
            |layout| layout.unit = Starter::Plain,
            |layout| layout.roots = Roots::Usual,
        ];
        let simpler = usual.into_iter().map(|make_usual| {
            let mut layout = self.clone();
            make_usual(&mut layout);
            layout.agree();
            layout
        });
        simpler.filter(|layout| layout != self).collect()
    }

    /// Whether a distribution of Kubernetes, simulated, starts containerd with its own paths.
    pub fn is_distribution(&self) -> bool {
        use Starter::{Edge, EdgeSaid, K0s, K3s, Microk8s, Rke2};
        matches!(self.unit, K3s | Rke2 | K0s | Microk8s | Edge | EdgeSaid)
    }

    /// Whether containerd is the child of the unit's main process.
    pub fn is_child(&self) -> bool {
        !matches!(self.unit, Starter::Plain | Starter::Renamed | Starter::RenamedSaid | Starter::Microk8s)
    }

    /// The unit's name.
    pub fn unit_name(&self) -> &'static str {
        match self.unit {
            Starter::Plain => "containerd.service",
            Starter::Renamed | Starter::RenamedSaid => "cri-runtime.service",
            Starter::K3s => "k3s.service",
            Starter::Rke2 => "rke2-agent.service",
            Starter::K0s => "k0sworker.service",
            Starter::Microk8s => "snap.microk8s.daemon-containerd.service",
            Starter::Edge | Starter::EdgeSaid => "k3s-edge.service",
            Starter::Parent | Starter::ParentSaid => "edge-node.service",
        }
    }

    /// What the configuration calls it, where the composition says so.
    pub fn said_unit(&self) -> Option<&'static str> {
        matches!(self.unit, Starter::RenamedSaid | Starter::EdgeSaid | Starter::ParentSaid).then(|| self.unit_name())
    }

    /// Where containerd listens.
    pub fn socket_path(&self) -> &'static str {
        match (self.unit, self.socket) {
            (Starter::K3s | Starter::Rke2 | Starter::Edge | Starter::EdgeSaid, _) => {
                "/run/k3s/containerd/containerd.sock"
            }
            (Starter::K0s, _) => "/run/k0s/containerd.sock",
            (Starter::Microk8s, _) => "/var/snap/microk8s/common/run/containerd.sock",
            (_, Socket::Usual) => "/run/containerd/containerd.sock",
            (_, Socket::Configured | Socket::Flag) => "/run/cri/containerd.sock",
        }
    }

    /// The folder of its configuration.
    pub fn folder(&self) -> &'static str {
        match (self.unit, self.place) {
            (Starter::K3s | Starter::Edge | Starter::EdgeSaid, _) => "/var/lib/rancher/k3s/agent/etc/containerd",
            (Starter::Rke2, _) => "/var/lib/rancher/rke2/agent/etc/containerd",
            (Starter::K0s, _) => "/etc/k0s",
            (Starter::Microk8s, _) => "/var/snap/microk8s/current/args",
            (_, ConfigPlace::Usual | ConfigPlace::Absent) => "/etc/containerd",
            (_, ConfigPlace::Elsewhere | ConfigPlace::Decoy) => "/opt/cri/etc",
        }
    }

    /// The name of its main file.
    pub fn config(&self) -> String {
        let name =
            if matches!(self.unit, Starter::K0s | Starter::Microk8s) { "containerd.toml" } else { "config.toml" };
        format!("{}/{name}", self.folder())
    }

    /// The registry directory that `config_path` means where it names one.
    pub fn directory(&self) -> String {
        match self.unit {
            Starter::K0s => "/etc/k0s/certs.d".to_owned(),
            _ if self.is_distribution() => format!("{}/certs.d", self.folder()),
            _ => "/etc/containerd/certs.d".to_owned(),
        }
    }

    /// Every registry directory that the composition's files name.
    pub fn directories(&self) -> Vec<String> {
        let named = |path| match path {
            ConfigPath::Unset | ConfigPath::Empty => Vec::new(),
            ConfigPath::Directory | ConfigPath::Slash | ConfigPath::Relative => vec![self.directory()],
            ConfigPath::Other => vec![OTHER.to_owned()],
            ConfigPath::List | ConfigPath::Reversed => vec![self.directory(), DOCKERS.to_owned()],
        };
        let mut all = named(self.path);
        if self.import != Import::None {
            all.extend(named(self.imported));
        }
        if matches!(self.section, Section::Wrong | Section::Both) || self.place == ConfigPlace::Decoy {
            all.push(self.directory());
        }
        all.sort();
        all.dedup();
        all
    }
}

/// Another registry directory.
pub const OTHER: &str = "/opt/registries";
/// Docker's registry directory, which lists of directories name.
pub const DOCKERS: &str = "/etc/docker/certs.d";

impl fmt::Display for NodeLayout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |words: &str| (!words.is_empty()).then(|| words.to_owned());
        let flag = |is: bool, words: &str| is.then(|| words.to_owned());
        let import = (self.import != Import::None).then(|| {
            let life = text(self.life.words()).map(|life| format!(" that {life}")).unwrap_or_default();
            format!("{} ({}){life}", self.import.words(), self.imported.words())
        });
        let parts = [
            text(self.unit.words()),
            flag(self.idle, "an idle containerd.service"),
            text(self.place.words()),
            text(self.format.words()),
            Some(format!("config_path {}", self.path.words())),
            text(self.section.words()),
            import,
            text(self.socket.words()),
            flag(self.dockershim, "dead dockershim.sock"),
            flag(self.stale_socket, "stale usual socket"),
            text(self.kubelet.words()),
            text(self.program.words()),
            text(self.host.words()),
            text(self.default.words()),
            flag(self.no_hosts, "folders that are no hosts"),
            text(self.roots.words()),
            text(self.before.words()),
            flag(self.seen_first, "seen before"),
            flag(!self.warm, "no pull before apply"),
            text(self.others.words()),
            text(self.on_change.words()),
            text(self.asked.words()),
            text(self.run_by.words()),
        ];
        f.write_str(&parts.into_iter().flatten().collect::<Vec<_>>().join(", "))
    }
}

#[test]
fn a_seed_always_gives_the_same_layout_and_a_row_of_seeds_gives_every_family_and_every_choice() {
    let kinds = [MachineKind::Bookworm, MachineKind::Trixie, MachineKind::Containerd21];
    let all: Vec<NodeLayout> = (0..2000).map(|seed| NodeLayout::of(seed, &kinds)).collect();
    assert_eq!(all, (0..2000).map(|seed| NodeLayout::of(seed, &kinds)).collect::<Vec<_>>());
    let seen = |words: &str| all.iter().any(|layout| layout.to_string().split(", ").any(|part| part.contains(words)));
    let choices: [Vec<&str>; 17] = [
        ConfigPath::ALL.iter().map(|choice| choice.words()).collect(),
        RunBy::ALL.iter().map(|choice| choice.words()).collect(),
        Section::ALL.iter().map(|choice| choice.words()).collect(),
        Format::ALL.iter().map(|choice| choice.words()).collect(),
        Import::ALL.iter().map(|choice| choice.words()).collect(),
        Life::ALL.iter().map(|choice| choice.words()).collect(),
        ConfigPlace::ALL.iter().map(|choice| choice.words()).collect(),
        Starter::ALL.iter().map(|choice| choice.words()).collect(),
        Socket::ALL.iter().map(|choice| choice.words()).collect(),
        Kubelet::ALL.iter().map(|choice| choice.words()).collect(),
        Program::ALL.iter().map(|choice| choice.words()).collect(),
        HostFolder::ALL.iter().map(|choice| choice.words()).collect(),
        DefaultFolder::ALL.iter().map(|choice| choice.words()).collect(),
        OtherRestarts::ALL.iter().map(|choice| choice.words()).collect(),
        Before::ALL.iter().map(|choice| choice.words()).collect(),
        WitnessLayout::ALL.iter().map(|choice| choice.words()).collect(),
        Roots::ALL.iter().map(|choice| choice.words()).collect(),
    ];
    for words in choices.iter().flatten() {
        let last = words.rsplit(", ").next().unwrap(); // the words themselves may hold a comma
        assert!(seen(last), "no layout has: {words}");
    }
    for subject in Subject::ALL {
        for kind in kinds {
            assert!(all.iter().any(|layout| layout.subject == *subject && layout.kind == kind), "{subject:?} {kind:?}");
        }
    }
}
