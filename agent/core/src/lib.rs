//! The decisions of nodetrust, as pure functions over plain values.
//!
//! Bytes, facts and the time come in as arguments; decisions go out as data. Nothing here opens a file, reads a clock or
//! starts a process: the list of dependencies and `clippy.toml` see to it. The way through:
//!
//! ```text
//! bytes ─pem, anchor→ Part ─source (policy)→ Resolved ┐
//! host ─────────────────────────────────→ Observed ───┼─ plan ─→ Plan ─(the agent does it)→ Observed' ─ verify ─→ Report
//! ledger ─────────────────────────────────────────────┘
//! ```

pub mod action;
pub mod certificate;
pub mod cycle;
pub mod dns;
pub mod ledger;
pub mod node_status;
pub mod observed;
pub mod parallel;
pub mod plan;
pub mod planner;
pub mod pod_bundle;
pub mod probe;
pub mod problem;
pub mod report;
pub mod runtime;
pub mod source;
pub mod store;
#[cfg(test)]
mod testing;
pub mod text;
pub mod time;
pub mod topology;
pub mod verify;

pub use certificate::signature::SelfSignature;
