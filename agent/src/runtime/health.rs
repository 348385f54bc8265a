//! Whether a runtime works, by its own word.

use std::time::Duration;

use nodetrust_core::runtime::{kinds::RuntimeKind, services::Runtime};

use super::{cri, docker};
use crate::{error::chain, host::root::HostRoot};

/// How long the runtime may take to answer.
pub(crate) const ANSWERING: Duration = Duration::from_secs(5);

/// Whether the runtime does its work for the kubelet. `version` becomes what it says of itself.
///
/// # Errors
/// A sentence that says why not.
pub(crate) fn look_at_cri(
    root: &HostRoot,
    kind: RuntimeKind,
    socket: &str,
    version: &mut String,
) -> Result<(), String> {
    let status =
        cri::look(root, socket, ANSWERING).map_err(|error| format!("{kind} does not answer: {}", chain(&error)))?;
    *version = status.version;
    status.runtime_ready?;
    // with a configuration that its plug-in refuses, containerd 2.1 serves everything but the images (facts C.6)
    status.image_service
}

/// Whether the runtime answers and works.
///
/// # Errors
/// A sentence that says why not.
pub(crate) fn works(root: &HostRoot, runtime: &Runtime) -> Result<(), String> {
    if runtime.kind == RuntimeKind::Docker {
        return docker::info(root, ANSWERING).map(drop).map_err(|error| chain(&error));
    }
    look_at_cri(root, runtime.kind, &runtime.socket, &mut String::new())
}
