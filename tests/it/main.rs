//! Tests of the whole program. One binary, one module a subject.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, unreachable_pub)]

mod support;

// the main job on real distribution roots, and the exact footprint there
mod roots;
// the exact footprint on a host, and that nothing of it stays
mod footprint;
// where the distributions' tools go wrong, and what stands in the way on real nodes
mod tools;
