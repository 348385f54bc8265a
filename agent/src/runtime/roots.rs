//! Whether a runtime's process reads the node's bundle at all, or other roots.

use std::path::Path;

use nodetrust_core::runtime::environment::Environment;

use crate::{host::root::HostRoot, sources::subpath::Mounts};

/// Bytes of a table of mounts that are read.
const LIMIT: u64 = 4 << 20;
/// Directories in which Go looks for the system's roots (crypto/x509, root_linux.go), and to which its files there lead.
const PLACES: [&str; 6] = [
    "/etc/ssl/certs",
    "/etc/pki/tls/certs",
    "/etc/ssl",
    "/etc/pki/ca-trust/extracted/pem",
    "/var/lib/ca-certificates",
    "/etc/ca-certificates/extracted",
];

/// What says that this process of a unit reads other roots than the node's, in a sentence. None if nothing does, or nothing can be seen.
pub(crate) fn elsewhere(root: &HostRoot, pid: Option<u32>, unit: &str, environment: &Environment) -> Option<String> {
    // Go reads one file and all directories: only with both of them elsewhere it sees nothing of the node's
    let is_elsewhere = |name: &str| {
        let is_nodes = |path: &str| PLACES.iter().any(|place| Path::new(path).starts_with(place));
        environment.get(name).filter(|value| !value.split(':').any(is_nodes))
    };
    if let (Some(file), Some(directories)) = (is_elsewhere("SSL_CERT_FILE"), is_elsewhere("SSL_CERT_DIR")) {
        return Some(format!(
            "{unit} has it read SSL_CERT_FILE={file} and SSL_CERT_DIR={directories}, not the node's roots"
        ));
    }
    // any process may read another one's table (proc_pid_mountinfo(5))
    let table = |pid: u32| {
        let bytes = root.read(format!("/proc/{pid}/mountinfo"), LIMIT).ok()?;
        Some(Mounts::parse(&String::from_utf8_lossy(&bytes)))
    };
    let (of_node, of_process) = (table(1)?, table(pid?)?);
    let exists = |place: &&&str| matches!(root.stat(**place), Ok(Some(_)));
    let differs = |place: &&&str| of_node.place(Path::new(**place)) != of_process.place(Path::new(**place));
    let place = PLACES.iter().filter(exists).find(differs)?;
    Some(format!("its process has another {place} mounted than the node"))
}
