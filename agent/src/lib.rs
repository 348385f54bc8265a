//! The shell around `nodetrust-core`: it observes a host, does what the core has decided, and shows the report.
//!
//! One direction, once round: `sources` and `observe` give facts to the core, `apply` and `extract` do its plan, `reconcile` is the
//! cycle, `run` decides when, and `metrics`, `http` and `cli` show the result. Everything that touches the node's files or starts
//! a program is in `host`.

pub mod apply;
mod ask;
pub mod cli;
pub mod config;
pub mod cri;
pub mod docker;
pub mod export;
pub mod extract;
mod foreign;
mod hazards;
pub mod host;
pub mod http;
#[cfg(feature = "kubernetes")]
pub mod kubernetes;
mod links;
pub mod metrics;
pub mod mounts;
pub mod namesakes;
pub mod observe;
mod outputs;
#[doc(hidden)]
pub mod parsers;
pub mod probe;
pub mod reconcile;
pub mod resolve;
pub mod run;
pub mod services;
pub mod sources;
pub mod threads;
pub mod tls;
mod tool_words;
pub mod watch;
pub mod witness;
