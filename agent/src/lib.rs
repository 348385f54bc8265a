//! The shell around `nodetrust-core`: it observes a host, does what the core has decided, and shows the report.
//!
//! The modules use each other in one direction: `config` and `host` are below everything; `sources`, `store` and `runtime` observe the
//! node and change it; `reconcile` is the cycle; `serve`, `kubernetes` and `probe` show what it found; `agent` decides when it runs; `cli`
//! is on top. Everything that touches the node's files or starts a program goes through `host`.

pub mod agent;
mod approvals;
pub mod cli;
pub mod config;
pub mod error;
pub mod fleet;
pub mod host;
pub mod jitter;
#[cfg(feature = "kubernetes")]
pub mod kubernetes;
pub(crate) mod log;
#[doc(hidden)]
pub mod parsers;
pub mod pod_bundle;
pub mod probe;
mod query;
pub mod reconcile;
pub mod resolve;
pub mod runtime;
pub mod serve;
pub mod sources;
pub mod store;
pub(crate) mod text;
pub mod tls;
