//! Standard input, output and error.

use std::{
    fs::File,
    io::{Read, Write as _},
    path::Path,
};

use anyhow::Context as _;

/// What messages call a file: `-` is standard input.
pub(super) fn name_of(path: &Path) -> String {
    if path == Path::new("-") { "standard input".to_owned() } else { path.display().to_string() }
}

/// The bytes of a file, or of standard input if it is called `-`; if there are more than `most`, the first of them, and one more than that.
///
/// # Errors
/// The file cannot be read.
pub(super) fn read_file(path: &Path, most: usize) -> anyhow::Result<Vec<u8>> {
    let failed = || format!("failed to read `{}`", path.display());
    let reader: Box<dyn Read> = match path == Path::new("-") {
        true => Box::new(std::io::stdin().lock()),
        false => Box::new(File::open(path).with_context(failed)?),
    };
    let mut bytes = Vec::new();
    reader.take(most as u64 + 1).read_to_end(&mut bytes).with_context(failed)?;
    Ok(bytes)
}

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
