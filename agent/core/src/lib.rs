//! The decisions of nodetrust, as pure functions over plain values.
//!
//! Bytes, facts and the time come in as arguments; decisions go out as data. Nothing here opens a file, reads a clock or
//! starts a process; the list of dependencies and `clippy.toml` enforce it. The flow:
//!
//! ```text
//! bytes ─ certificate → SourceFile ─ source::resolve → Resolved ┐
//! host ────────────────────────────────────────────→ Observed ──┼─ planner → Plan ─(the agent does it)→ Observed' ─ verify → Report
//! ledger ───────────────────────────────────────────────────────┘
//! ```
//!
//! Files use each other in one direction: vocabulary ([`time`], [`text`], [`problem`], [`certificate`]) → data ([`source`], [`store`],
//! [`ledger`], [`observed`], [`action`], [`plan`]) → decisions ([`planner`], [`runtime`], [`fleet`], [`pod_bundle`],
//! [`verify`]) → [`report`] → views
//! ([`node_status`], [`topology`]). Beside them: [`render`].

pub mod action;
pub mod certificate;
pub mod cycle;
pub mod dns;
pub mod fleet;
pub mod ledger;
pub mod node_status;
pub mod observed;
pub mod parallel;
pub mod plan;
pub mod planner;
pub mod pod_bundle;
pub mod probe;
pub mod problem;
pub mod render;
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
