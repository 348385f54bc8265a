//! One certificate and every fact about it, and files of many.

pub mod anchor;
pub mod bundle;
pub(crate) mod der;
pub(crate) mod encoded;
pub mod fingerprint;
pub mod name;
pub mod namesake;
pub(crate) mod oid;
pub mod pem;
pub mod pkcs12;
pub mod readers;
pub(crate) mod signature;
