//! What the tests stand on: throw-away node roots, booted nodes, a private PKI, and waiting for a level with a deadline.

pub mod api;
pub mod cluster;
pub mod cri;
pub mod following;
pub mod machine;
pub mod node;
pub mod pki;
pub mod process;
pub mod random;
pub mod registry;
pub mod rig;
pub mod rights;
pub mod served;
pub mod simulated_bottlerocket;
pub mod watchman;

use std::{
    env,
    fmt::Debug,
    sync::LazyLock,
    thread,
    time::{Duration, Instant},
};

/// The path of the program under test: `NODETRUST_BIN`, which `scripts/test` sets to the release build that ships, or
/// without it the build that `cargo test` has made.
pub fn program() -> &'static str {
    static PROGRAM: LazyLock<String> =
        LazyLock::new(|| env::var("NODETRUST_BIN").unwrap_or_else(|_| env!("CARGO_BIN_EXE_nodetrust").to_owned()));
    &PROGRAM
}

/// Waits until `look` gives something; fails the test after `limit`, saying what was awaited.
#[track_caller]
pub fn wait_for<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + limit;
    loop {
        let began = Instant::now();
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "gave up waiting for {what}");
        pause_after(began);
    }
}

/// Sleeps until the next look: the longer, the more the look has taken since `began`, so that waiting leaves the processor to others.
pub fn pause_after(began: Instant) {
    thread::sleep((2 * began.elapsed()).clamp(Duration::from_millis(20), Duration::from_secs(1)));
}

/// `Result::unwrap` that says what was tried.
#[track_caller]
pub fn must<T, E: Debug>(what: &str, result: Result<T, E>) -> T {
    result.unwrap_or_else(|error| panic!("{what}: {error:?}"))
}
