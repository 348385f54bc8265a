//! The shell around `nodetrust-core`: it observes a host, does what the core has decided, and shows the report.
//!
//! One direction, once round: `sources` and `observe` give facts to the core, `apply` and `extract` do its plan, `reconcile` is the
//! cycle, `run` decides when, and `metrics`, `http` and `cli` show the result. Everything that touches the node's files or starts
//! a program is in `host`.

pub mod agent;
pub mod cli;
pub mod config;
pub mod error;
pub mod host;
pub mod jitter;
#[cfg(feature = "kubernetes")]
pub mod kubernetes;
#[doc(hidden)]
pub mod parsers;
pub mod pod_bundle;
pub mod probe;
pub mod reconcile;
pub mod resolve;
pub mod runtime;
pub mod serve;
pub mod sources;
pub mod store;
pub(crate) mod text;
pub mod tls;
