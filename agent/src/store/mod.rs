//! The node's trust store: what it is, what the distribution's tool makes of it, and what must not be lost.

pub(crate) mod adoption;
pub mod bundle;
pub mod detect;
pub mod distribution;
pub(crate) mod distrust;
pub mod extract;
pub(crate) mod failure;
pub(crate) mod foreign;
pub(crate) mod hash_links;
pub(crate) mod hazards;
pub mod judge;
pub mod namesakes;
pub mod observe;
pub mod other_runs;
pub(crate) mod own_files;
pub mod read;
pub(crate) mod settings;
pub(crate) mod snapshot;
pub(crate) mod tool_words;
pub(crate) mod trust_list;
