//! The commands: arguments in, text and an exit code out. One file for each command; results to stdout, logs to stderr.

mod apply;
mod arguments;
mod completion;
mod context;
mod exit_code;
mod inspect;
mod man;
#[cfg(feature = "kubernetes")]
mod node;
mod plan;
mod probe;
mod render;
mod run;
mod status;
mod stdio;
mod stores;
#[cfg(feature = "kubernetes")]
pub(crate) mod topology;
mod uninstall;
mod version;

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use arguments::Command;
use context::Context;
use exit_code::{FAILURE, OK, USAGE};
use stdio::{complain, printed};

use crate::{
    config::ConfigError,
    host::obstacle::way_out_of,
    log::{self, LogArguments},
};

/// Runs a command line and returns the exit code.
pub fn main() -> u8 {
    let cli = match arguments::parse() {
        Ok(cli) => cli,
        Err(error) => {
            let code = if error.use_stderr() { USAGE } else { OK };
            return match printed(error.print().and_then(|()| std::io::stdout().flush())) {
                Err(error) if code == OK => {
                    complain(&format!("{error:#}"));
                    FAILURE
                }
                _ => code, // nobody can read the text; the code says the same
            };
        }
    };
    let log = LogArguments { verbose: cli.verbose, format: cli.log_format };
    if !matches!(cli.command, Command::Run) {
        log::for_command(log); // the agent's needs the configuration
    }
    let context =
        Context { config: cli.config, host_root: cli.host_root.unwrap_or_else(default_host_root), output: cli.output };
    let result = match cli.command {
        Command::Run => run::main(&context, log),
        Command::Plan => plan::main(&context),
        Command::Apply { slot } => apply::main(&context, slot),
        Command::Status => status::main(&context),
        Command::Inspect { files } => inspect::main(&context, &files),
        Command::Probe { targets, via_proxy, through } => {
            probe::main(&context, &targets, via_proxy.as_deref(), through)
        }
        Command::Stores => stores::main(&context),
        #[cfg(feature = "kubernetes")]
        Command::Topology { access, acts } => topology::main(&context, &access, &acts),
        #[cfg(feature = "kubernetes")]
        Command::NodeStatus { access, node } => node::status(&context, &access, &node),
        Command::Completion { shell } => completion::main(shell),
        Command::Man { directory } => man::main(directory.as_deref()),
        Command::Render { format: Some(format), .. } => render::main(&context, format),
        Command::Render { format: None, check } => render::check(&context, &check),
        Command::Uninstall => uninstall::main(&context),
        Command::Version => version::main(&context),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            let code = if error.downcast_ref::<ConfigError>().is_some() { USAGE } else { FAILURE };
            match way_out_of(&error) {
                Some(next) => complain(&format!("{error:#}; {next}")),
                None => complain(&format!("{error:#}")),
            }
            code
        }
    }
}

/// A host root that is mounted into a pod is recognised by its os-release.
fn default_host_root() -> PathBuf {
    let mounted = ["/host/etc/os-release", "/host/usr/lib/os-release"]
        .iter()
        .any(|path| Path::new(path).symlink_metadata().is_ok());
    if mounted { "/host".into() } else { "/".into() }
}
