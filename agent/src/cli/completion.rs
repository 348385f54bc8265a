//! `nodetrust completion`: what a shell completes our command lines by.

use clap_complete::{Shell, generate};

use super::{
    arguments::{CompletionShell, description},
    exit_code::OK,
    stdio::write_out,
};

pub(super) fn main(shell: CompletionShell) -> anyhow::Result<u8> {
    let shell = match shell {
        CompletionShell::Bash => Shell::Bash,
        CompletionShell::Zsh => Shell::Zsh,
        CompletionShell::Fish => Shell::Fish,
    };
    let mut script = Vec::new();
    generate(shell, &mut description(), "nodetrust", &mut script);
    write_out(&String::from_utf8_lossy(&script))?;
    Ok(OK)
}
