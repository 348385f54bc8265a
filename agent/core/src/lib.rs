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

pub mod anchor;
pub mod bundle;
mod damage;
mod der;
pub mod dns;
pub mod export;
pub mod fingerprint;
pub mod link;
pub mod name;
pub mod namesake;
pub mod node;
pub mod os;
pub mod p11kit;
pub mod pem;
pub mod plan;
pub mod policy;
pub mod probe;
pub mod readers;
pub mod report;
pub mod runtime;
pub mod shares;
mod signature;
pub mod source;
pub mod state;
pub mod store;
#[cfg(test)]
mod testing;
pub mod topology;
pub mod verify;

pub use signature::SelfSignature;
