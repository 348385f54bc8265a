//! The identity of a service's process.

use serde::{Deserialize, Serialize};

use crate::time::Uptime;

/// A process of a service. A new process has a new identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceProcess {
    /// systemd's `InvocationID`; empty where there is no systemd.
    pub invocation: String,
    /// When it started, rounded down to the clock tick (10 ms).
    pub started: Uptime,
}
