//! The container runtime: which one a node has, what is known of its process, and what follows from that.
//!
//! Go programs read the system's roots once, at their first TLS verification (facts B.1). So a runtime that runs since before
//! a change of the bundle neither trusts what was added nor forgets what was removed.
//!
//! Data: [`services`] (what runs now), [`record`] (what a process has read), [`registry_dir`] (what is read at every pull), [`attempts`],
//! [`witness`] (what the runtime answered), [`service_plan`], [`trust`]. Decisions: [`testimony`] (what the answers prove),
//! [`evidence`] (whether pulls follow the bundle), [`staleness`] (whether a process is behind the bundle, and what is to be done).

pub mod attempts;
pub mod container_end;
pub mod containerd;
mod detect;
pub mod environment;
pub mod evidence;
pub mod kinds;
pub mod kubelet;
pub mod process;
pub mod pull_answer;
pub mod record;
pub mod registry;
pub mod registry_dir;
pub mod registry_way;
mod restart_hold;
pub mod service_plan;
pub mod services;
pub mod settings;
pub mod staleness;
pub mod testimony;
pub mod trust;
pub mod witness;

pub use detect::{CRI_DOCKERD, Clues, DetectedRuntime, RuntimeDetection, RuntimeEndpoint, detect, units};
