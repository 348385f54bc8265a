//! The services of a host that cache the trust roots when they start, as they are now.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize, Serializer};

use super::{
    kinds::RuntimeKind,
    process::ServiceProcess,
    registry_dir::{KnownSetting, RegistryCerts},
    settings::RuntimeChoice,
};

/// The state of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServiceState {
    /// It runs.
    Active,
    /// It is on the way up or down.
    Changing,
    /// It does not run. The service manager's word for that, such as `inactive`.
    Down(String),
    /// It was started and does not run: `failed` (org.freedesktop.systemd1(5), `ActiveState`), and the manager's reason if there is one.
    Failed(String),
}

impl fmt::Display for ServiceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Active => "active",
            Self::Changing => "starting or stopping",
            Self::Down(word) | Self::Failed(word) => word,
        })
    }
}

impl Serialize for ServiceState {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl ServiceState {
    /// Whether it does not run, whatever the cause.
    pub fn is_down(&self) -> bool {
        matches!(self, Self::Down(_) | Self::Failed(_))
    }
}

/// A service, as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// The unit's name.
    pub unit: String,
    /// Its state.
    pub state: ServiceState,
    /// The process that counts: the one that pulls.
    pub process: Option<ServiceProcess>,
}

/// The runtime, as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runtime {
    /// The kind.
    pub kind: RuntimeKind,
    /// The fact that decided it, in a sentence.
    pub because: String,
    /// What it says its version is; empty if it says nothing.
    pub version: String,
    /// The CRI socket, absolute on the host.
    pub socket: String,
    /// Its unit.
    pub service: Service,
    /// Whether it works: an error is why not.
    pub health: Result<(), String>,
    /// Whether a restart spares the containers: an error is why not, with the reason.
    pub spares: Result<(), (HoldReason, String)>,
    /// Its registry directory.
    pub certs: RegistryCerts,
    /// What says that its process reads other roots than the node's bundle, in a sentence; None if nothing does.
    pub elsewhere: Option<String>,
}

impl Runtime {
    /// What is known for good of its process's registry directory.
    pub fn known_setting(&self) -> Option<KnownSetting> {
        let setting = self.certs.setting.clone();
        let process = self.service.process.clone().filter(|_| setting.is_final())?;
        Some(KnownSetting { process, setting })
    }
}

/// Services that cache the trust roots when they start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Services {
    /// The runtime, None if there is none or nobody looks at it.
    pub runtime: Option<Runtime>,
    /// Where no runtime was found: what says all the same that there is one, in a sentence. None if nothing does.
    pub sign: Option<String>,
    /// Further units, by name.
    pub also: BTreeMap<String, Service>,
    /// How the runtime was looked for.
    pub choice: RuntimeChoice,
    /// This program is the agent in a pod of this node.
    pub in_pod: bool,
}

impl Services {
    /// Whether a container runtime runs, or is on its way up, as far as can be told.
    pub fn has_runtime(&self) -> bool {
        match &self.runtime {
            Some(runtime) => !matches!(runtime.service.state, ServiceState::Down(_) | ServiceState::Failed(_)),
            None => self.in_pod || self.sign.is_some(),
        }
    }
}

/// Why a restart that is due is held back; also the label `reason` of `nodetrust_restart_held`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HoldReason {
    /// The configuration says so.
    Policy,
    /// The runtime did not work before: a restart could make it worse.
    Unhealthy,
    /// It is on the way up or down.
    Busy,
    /// Restarts come too fast.
    RateLimit,
    /// The last try failed.
    Failed,
    /// A restart would end the containers.
    KillMode,
    /// Docker would stop the containers.
    LiveRestore,
    /// The service manager cannot be told from where the agent runs.
    NoAccess,
    /// Other nodes restart now, as many as may at a time.
    Slot,
    /// It is not the time of day or week for restarts.
    Window,
    /// The Nodes that go first have not been healthy for long enough.
    Canary,
    /// A person holds this Node.
    NodeHeld,
    /// A person has paused the restarts of all nodes.
    Paused,
    /// A node did not become healthy after its restart; a person has to look before others go on.
    Halted,
    /// Other nodes cannot be asked: the API server does not answer, or refuses.
    ApiUnavailable,
}

impl HoldReason {
    /// Every reason, for metrics.
    pub const ALL: [Self; 15] = [
        Self::Policy,
        Self::Unhealthy,
        Self::Busy,
        Self::RateLimit,
        Self::Failed,
        Self::KillMode,
        Self::LiveRestore,
        Self::NoAccess,
        Self::Slot,
        Self::Window,
        Self::Canary,
        Self::NodeHeld,
        Self::Paused,
        Self::Halted,
        Self::ApiUnavailable,
    ];

    /// Whether it is the fleet that holds the restart, and not the node's own state or configuration.
    pub fn is_of_fleet(self) -> bool {
        match self {
            Self::Slot
            | Self::Window
            | Self::Canary
            | Self::NodeHeld
            | Self::Paused
            | Self::Halted
            | Self::ApiUnavailable => true,
            Self::Policy
            | Self::Unhealthy
            | Self::Busy
            | Self::RateLimit
            | Self::Failed
            | Self::KillMode
            | Self::LiveRestore
            | Self::NoAccess => false,
        }
    }

    /// The public name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::Unhealthy => "unhealthy",
            Self::Busy => "busy",
            Self::RateLimit => "rate-limit",
            Self::Failed => "failed",
            Self::KillMode => "kill-mode",
            Self::LiveRestore => "live-restore",
            Self::NoAccess => "no-access",
            Self::Slot => "slot",
            Self::Window => "window",
            Self::Canary => "canary",
            Self::NodeHeld => "node-held",
            Self::Paused => "paused",
            Self::Halted => "halted",
            Self::ApiUnavailable => "api-unavailable",
        }
    }
}
