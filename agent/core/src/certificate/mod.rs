//! One certificate and every fact about it, and files of many.

pub mod anchor;
pub mod bundle;
pub(crate) mod der;
pub mod fingerprint;
pub mod name;
pub mod namesake;
pub mod pem;
pub mod readers;
pub(crate) mod signature;
