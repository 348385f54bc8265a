//! Talking to a service of the host over its socket.
//!
//! The callers are threads that own the host and wait for an answer, so each conversation gets a small runtime of its own: it is
//! connected, used under one deadline and dropped with all that it opened. At rest nothing is connected and nothing wakes up.

use std::{io, os::fd::AsRawFd, path::Path, time::Duration};

use nix::errno::Errno;
use tokio::net::UnixStream;

use super::root::HostRoot;

/// Time between two tries at a socket whose queue is full.
const PAUSE: Duration = Duration::from_millis(20);

/// Has a conversation; None if it had not ended in time.
///
/// # Errors
/// If there is nothing left to make a runtime with (file descriptors).
pub fn converse<T>(limit: Duration, conversation: impl Future<Output = T>) -> io::Result<Option<T>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    Ok(runtime.block_on(async { tokio::time::timeout(limit, conversation).await.ok() }))
}

/// Connects to a socket of the host.
///
/// The path is resolved in the host's root, and the socket is reached through the handle on what was found: so the limit of 107
/// bytes that a socket's path has does not matter, nor where the host's root lies in our view.
///
/// # Errors
/// As `connect(2)`.
pub async fn connect(root: &HostRoot, path: &Path) -> io::Result<UnixStream> {
    let socket = root.handle(path)?;
    let path = format!("/proc/self/fd/{}", socket.as_raw_fd());
    loop {
        match UnixStream::connect(&path).await {
            // too many wait to be accepted; the conversation's deadline ends this
            Err(error) if error.raw_os_error() == Some(Errno::EAGAIN as i32) => tokio::time::sleep(PAUSE).await,
            result => return result,
        }
    }
}
