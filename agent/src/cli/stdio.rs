//! Standard output and standard error.

use std::io::Write as _;

/// Prints a result. A command that could not print its result fails.
pub(super) fn write_out(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    printed(out.write_all(text.as_bytes()).and_then(|()| out.flush()))
}

/// The outcome of an attempt to print. That the reader has gone, such as `head`, is no failure.
pub(super) fn printed(result: std::io::Result<()>) -> anyhow::Result<()> {
    match result {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            // Not as a cause of the error: the advice for a full disk of the node does not help here.
            Err(anyhow::anyhow!("failed to write to standard output: {error}"))
        }
        _ => Ok(()),
    }
}

/// Prints an error. Where standard error cannot be written, only the exit code tells it.
pub(super) fn complain(text: &str) {
    // The text may quote what others wrote.
    let lines: Vec<String> = text.lines().map(nodetrust_core::certificate::name::visible).collect();
    let _ = writeln!(std::io::stderr().lock(), "nodetrust: {}", lines.join("\n"));
}
