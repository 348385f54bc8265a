//! The commands: arguments in, text and an exit code out. One file a command; results to stdout, logs to stderr.

mod apply;
mod inspect;
mod plan;
mod probe;
mod run;
mod status;
mod stores;
pub mod table;
#[cfg(feature = "kubernetes")]
pub(crate) mod topology;
mod uninstall;
mod version;

use std::{
    io::{IsTerminal, Write},
    path::{Path, PathBuf},
};

use clap::{Parser, Subcommand, ValueEnum};
use nodetrust_core::problem::{Problem, ProblemKind};
use serde::Serialize;
use tracing::level_filters::LevelFilter;

use crate::{
    config::{ConfigError, DEFAULT_PATH, Settings},
    host::obstacle::way_out_of,
};

/// Everything is as it should be.
pub const OK: u8 = 0;
/// It failed.
pub const FAILURE: u8 = 1;
/// It works, and there is something to see: actions pending, rejections, not healthy.
pub const FINDINGS: u8 = 2;
/// Wrong usage or configuration (EX_USAGE of sysexits.h).
pub const USAGE: u8 = 64;

/// Keeps private CAs trusted by a node's operating system and container runtime.
#[derive(Debug, Parser)]
#[command(name = "nodetrust", version, arg_required_else_help = true)]
pub struct Cli {
    /// Configuration file
    #[arg(long, global = true, env = "NODETRUST_CONFIG", value_name = "FILE", help = format!("Configuration file [default: {DEFAULT_PATH}]"))]
    config: Option<PathBuf>,
    /// The node's `/` [default: /host if a host root is mounted there, else /]
    #[arg(long, global = true, env = "NODETRUST_HOST_ROOT", value_name = "DIR")]
    host_root: Option<PathBuf>,
    /// Form of what is printed
    #[arg(short, long, global = true, value_enum, default_value_t = Output::Table)]
    output: Output,
    /// More log lines on stderr
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    #[command(subcommand)]
    command: Command,
}

/// Forms of output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
    /// For both.
    Yaml,
}

/// Who is asked by `probe`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ProbedThrough {
    Host,
    Runtime,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The agent: watch, reconcile, serve HTTP
    Run,
    /// Print what `apply` would do; change nothing
    Plan,
    /// One full cycle, then exit
    Apply,
    /// Whether this node trusts what it should, why not, and what to do next
    Status,
    /// What would be made of these files: each certificate, each rejection
    Inspect {
        /// PEM or DER files, or directories of them; - for standard input
        #[arg(value_name = "FILE", default_value = "-")]
        files: Vec<PathBuf>,
    },
    /// Whether programs on this host would trust these servers; if not, why not and what to do
    Probe {
        /// host:port or https://host[:port]
        #[arg(value_name = "TARGET", required = true, num_args = 1..=32)]
        targets: Vec<String>,
        /// HTTP proxy that lets through by CONNECT, such as http://user:password@proxy.corp:3128
        #[arg(long, value_name = "URL")]
        via_proxy: Option<String>,
        /// Who is asked: programs on the host, or the container runtime itself, which then pulls an image that cannot be
        #[arg(long, value_enum, default_value_t = ProbedThrough::Host, value_name = "WHO")]
        through: ProbedThrough,
    },
    /// Which trust store was found, and every fact that decided it
    Stores,
    /// The fleet: which nodes trust what, who differs, and whether a rotation is safe
    #[cfg(feature = "kubernetes")]
    Topology(topology::Access),
    /// Remove all that is ours, and prove it
    Uninstall,
    /// Version, revision, target and compiler
    Version,
}

/// The same program as kubectl's plugin: what is of use away from a node.
#[cfg(feature = "kubernetes")]
#[derive(Debug, Parser)]
#[command(
    name = "kubectl nodetrust",
    bin_name = "kubectl nodetrust",
    version,
    about = "The fleet: which nodes trust what, who differs, and whether a rotation is safe"
)]
struct Plugin {
    #[command(flatten)]
    access: topology::Access,
    /// Form of what is printed
    #[arg(short, long, global = true, value_enum, default_value_t = Output::Table)]
    output: Output,
    /// More log lines on stderr
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    #[command(subcommand)]
    command: Option<PluginCommand>,
}

#[cfg(feature = "kubernetes")]
#[derive(Debug, Subcommand)]
enum PluginCommand {
    /// The fleet; the same without a command
    Topology,
    /// Version, revision, target and compiler
    Version,
}

#[cfg(feature = "kubernetes")]
impl From<Plugin> for Cli {
    fn from(plugin: Plugin) -> Self {
        let Plugin { access, output, verbose, command } = plugin;
        let command = match command {
            None | Some(PluginCommand::Topology) => Command::Topology(access),
            Some(PluginCommand::Version) => Command::Version,
        };
        Self { config: None, host_root: None, output, verbose, command }
    }
}

/// What every command gets.
#[derive(Debug)]
struct Context {
    config: Option<PathBuf>,
    host_root: PathBuf,
    output: Output,
}

/// Runs a command line and returns the exit code.
pub fn main() -> u8 {
    let cli = match parse() {
        Ok(cli) => cli,
        Err(error) => {
            let code = if error.use_stderr() { USAGE } else { OK };
            return match printed(error.print().and_then(|()| std::io::stdout().flush())) {
                Err(error) if code == OK => {
                    complain(&format!("{error:#}"));
                    FAILURE
                }
                _ => code, // the code says what the text, which nobody can read, would say
            };
        }
    };
    init_log(&cli);
    let context =
        Context { config: cli.config, host_root: cli.host_root.unwrap_or_else(default_host_root), output: cli.output };
    let result = match cli.command {
        Command::Run => run::main(&context),
        Command::Plan => plan::main(&context),
        Command::Apply => apply::main(&context),
        Command::Status => status::main(&context),
        Command::Inspect { files } => inspect::main(&context, &files),
        Command::Probe { targets, via_proxy, through } => {
            probe::main(&context, &targets, via_proxy.as_deref(), through)
        }
        Command::Stores => stores::main(&context),
        #[cfg(feature = "kubernetes")]
        Command::Topology(access) => topology::main(&context, &access),
        Command::Uninstall => uninstall::main(&context),
        Command::Version => version::main(&context),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            let code = if error.downcast_ref::<crate::config::ConfigError>().is_some() { USAGE } else { FAILURE };
            match way_out_of(&error) {
                Some(next) => complain(&format!("{error:#}; {next}")),
                None => complain(&format!("{error:#}")),
            }
            code
        }
    }
}

/// The command line, as kubectl's plugin if that is the name we are called by.
fn parse() -> Result<Cli, clap::Error> {
    #[cfg(feature = "kubernetes")]
    {
        let program = std::env::args_os().next().unwrap_or_default();
        if Path::new(&program).file_name().is_some_and(|name| name == "kubectl-nodetrust") {
            return Plugin::try_parse().map(Cli::from);
        }
    }
    Cli::try_parse()
}

impl Context {
    /// The configuration, which must be there.
    fn settings(&self) -> anyhow::Result<Settings> {
        Ok(Settings::read(&self.config_path())?)
    }

    /// The configuration, None if none was named and there is none in the usual place.
    fn settings_if_any(&self) -> anyhow::Result<Option<Settings>> {
        self.if_any(Settings::read(&self.config_path()))
    }

    /// The same for commands that only want its rules.
    fn rules_if_any(&self) -> anyhow::Result<Option<Settings>> {
        self.if_any(Settings::read_rules(&self.config_path()))
    }

    /// And for one that takes what was written for an earlier version, too.
    fn earlier_rules_if_any(&self) -> anyhow::Result<Option<Settings>> {
        self.if_any(Settings::read_earlier_rules(&self.config_path()))
    }

    fn if_any(&self, read: Result<Settings, ConfigError>) -> anyhow::Result<Option<Settings>> {
        match read {
            Ok(settings) => Ok(Some(settings)),
            Err(error) if error.missing && self.config.is_none() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The configuration for commands that must work on a broken one too; what is wrong with it is a problem for the report.
    fn settings_or_problem(&self) -> (Option<Settings>, Option<Problem>) {
        match self.settings_if_any() {
            Ok(settings) => (settings, None),
            Err(error) => {
                let next = "correct the configuration; a running agent follows the last good one";
                (None, Some(Problem::new(ProblemKind::Config, format!("{error:#}"), next)))
            }
        }
    }

    fn config_path(&self) -> PathBuf {
        self.config.clone().unwrap_or_else(|| DEFAULT_PATH.into())
    }

    /// Prints a value in the wanted form.
    fn print(&self, value: &impl Serialize, table: impl FnOnce(table::Style) -> String) -> anyhow::Result<()> {
        let text = match self.output {
            Output::Json => serde_json::to_string_pretty(value)? + "\n",
            Output::Yaml => serde_saphyr::to_string(value)?,
            Output::Table => table(table::Style::of_stdout()),
        };
        write_out(&text)
    }
}

/// A host root that was mounted into a pod shows by its os-release.
fn default_host_root() -> PathBuf {
    let mounted = ["/host/etc/os-release", "/host/usr/lib/os-release"]
        .iter()
        .any(|path| Path::new(path).symlink_metadata().is_ok());
    if mounted { "/host".into() } else { "/".into() }
}

/// Prints a result. The exit code promises that it was printed.
fn write_out(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    printed(out.write_all(text.as_bytes()).and_then(|()| out.flush()))
}

/// What counts of an attempt to print: a reader that has gone, such as `head`, is no failure of ours.
fn printed(result: std::io::Result<()>) -> anyhow::Result<()> {
    match result {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            // not as a cause: what helps with a full disk of the node does not help here
            Err(anyhow::anyhow!("failed to write to standard output: {error}"))
        }
        _ => Ok(()),
    }
}

/// Tells an error. Where standard error cannot be written, the exit code has to do.
fn complain(text: &str) {
    // what it quotes may be somebody else's text
    let lines: Vec<String> = text.lines().map(nodetrust_core::certificate::name::visible).collect();
    let _ = writeln!(std::io::stderr().lock(), "nodetrust: {}", lines.join("\n"));
}

fn init_log(cli: &Cli) {
    use tracing_subscriber::{filter::Targets, fmt, prelude::*, registry};
    let agent = matches!(cli.command, Command::Run);
    let level = match (agent, cli.verbose) {
        (false, 0) => LevelFilter::ERROR,
        (true, 0) | (false, 1) => LevelFilter::INFO,
        (true, 1) | (false, 2) => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    let named = std::env::var("RUST_LOG").ok().and_then(|filter| filter.parse::<Targets>().ok());
    // the library would log each failed call as an error; what counts of them we say ourselves
    let usual = || Targets::new().with_default(level).with_target("kube_client", LevelFilter::OFF);
    let log = registry().with(named.unwrap_or_else(usual));
    // a log that cannot be written must not end the program, as it would if that were told
    let lines = fmt::layer().with_writer(std::io::stderr).log_internal_errors(false);
    // a log collector gets JSON, a person text
    if agent && !std::io::stderr().is_terminal() {
        log.with(lines.json().flatten_event(true).with_current_span(false).with_span_list(false)).init();
    } else {
        let colour =
            std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        log.with(lines.without_time().with_target(false).with_ansi(colour)).init();
    }
}
