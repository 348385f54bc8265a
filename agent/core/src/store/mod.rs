//! The trust stores: one table, and which row fits a host.
//!
//! In: os-release and which paths exist. Out: a [`TrustStore`], or the named reason why there is none, with every fact that
//! decided. Sources of the rows: facts A.2 to A.12 (distribution scripts, packages and manual pages).

pub mod adopted;
pub(crate) mod advice;
pub mod anchor_file;
pub mod awaited_bundle;
mod detect;
pub mod distrust;
pub mod harm;
pub mod hash_link;
pub mod name_pattern;
pub mod os_release;
pub mod p11kit;
pub mod settings;
mod table;
mod trust_store;

pub use advice::{Unsupported, where_read_only};
pub use detect::{Detection, Evidence, PROBES, PathKind, detect, is_debian_script};
pub use table::SETTINGS_SOCKET;
pub use trust_store::{ExtractMode, Family, Takes, Tool, TrustStore};

#[cfg(test)]
mod tests;
