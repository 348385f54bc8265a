//! Tests of the whole program. One binary, one module a subject.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, unreachable_pub)]

mod support;

// the main job on real distribution roots, and the exact footprint there
mod roots;
// stores whose distribution is not at hand
mod families;
// certificates from elsewhere, with OpenSSL as the judge
mod corpus;
// what people and scripts read of `inspect`
mod inspect;
