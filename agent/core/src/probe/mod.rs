//! Would a program on this host trust a server, and if not, why not?
//!
//! In: the certificates that a server presented, the host's extracted bundle, what is remembered and wanted, the time. Out: a
//! [`Probe`]. The chain is verified twice, as Go does it and as OpenSSL does it (`go`, `openssl`), since nearly every program on a
//! node verifies by one of the two, and they differ. Trusted means that Go trusts it, and with it the container runtime; where
//! OpenSSL sees it otherwise, a note says so.

mod cert;
mod chain;
mod diagnose;
mod failure;
mod go;
mod judge;
mod names;
mod openssl;
mod target;
mod through;
mod verdict;

pub use chain::{Facts, MAX_CHAIN, SourceEvidence};
pub use failure::Failure;
pub use judge::{judge, key_of};
pub use target::{BadTarget, Proxy, Target};
pub use through::Testimonial;
pub use verdict::{ChainAnchor, ChainCertificate, Probe, ProbeReason, ProbeVerdict, Through};

#[cfg(test)]
mod tests;
