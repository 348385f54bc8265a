//! The command line.

use std::path::PathBuf;

use clap::{
    CommandFactory, Parser, Subcommand, ValueEnum,
    builder::{PossibleValuesParser, TypedValueParser},
    error::ErrorKind,
};
use nodetrust_core::render::RenderFormat;

#[cfg(feature = "kubernetes")]
use nodetrust_core::{fleet::removal::BadAnchorKey, topology::RemovalRequest};

use super::exit_code::help;
use crate::config::{DEFAULT_PATH, LogFormat};

/// Keeps private CAs trusted by a node's operating system and container runtime.
#[derive(Debug, Parser)]
#[command(name = "nodetrust", version, arg_required_else_help = true)]
pub(super) struct Cli {
    /// Configuration file
    #[arg(long, global = true, env = "NODETRUST_CONFIG", value_name = "FILE", help = format!("Configuration file [default: {DEFAULT_PATH}]"))]
    pub(super) config: Option<PathBuf>,
    /// The node's `/` [default: /host if a host root is mounted there, else /]
    #[arg(long, global = true, env = "NODETRUST_HOST_ROOT", value_name = "DIR")]
    pub(super) host_root: Option<PathBuf>,
    /// Form of what is printed
    #[arg(short, long, global = true, value_enum, default_value_t = OutputFormat::Table)]
    pub(super) output: OutputFormat,
    /// More log lines on stderr
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(super) verbose: u8,
    /// Form of log lines on stderr [default: what `log.format` says; json where `run` writes to no terminal, else text]
    #[arg(long, global = true, value_enum, value_name = "FORM")]
    pub(super) log_format: Option<LogFormat>,
    #[command(subcommand)]
    pub(super) command: Command,
}

/// The form of what is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum OutputFormat {
    /// For people.
    Table,
    /// For programs.
    Json,
    /// For both.
    Yaml,
    /// A page in one file, such as for a change ticket; of `topology` only.
    Html,
}

/// Whose trust `probe` asks about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum ProbedThrough {
    Host,
    Runtime,
}

/// Shells that a completion is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum CompletionShell {
    Bash,
    Zsh,
    Fish,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// The agent: watch, reconcile, serve HTTP
    #[command(after_help = help("run"))]
    Run,
    /// Print what `apply` would do; change nothing
    #[command(after_help = help("plan"))]
    Plan,
    /// One full cycle, then exit
    #[command(after_help = help("apply"))]
    Apply {
        /// Restart the runtime in this node's turn among those of its fleet, as the agent does, and wait for that: in a pod with the agent's
        /// account. Without it, a restart that is due is made at once
        #[arg(long)]
        slot: bool,
    },
    /// Whether this node trusts what it should, why not, and what to do next
    #[command(after_help = help("status"))]
    Status,
    /// What would be made of these files: each certificate, each rejection
    #[command(after_help = help("inspect"))]
    Inspect {
        /// PEM or DER files, or directories of them; - for standard input
        #[arg(value_name = "FILE", default_value = "-")]
        files: Vec<PathBuf>,
    },
    /// Whether programs on this host would trust these servers; if not, why not and what to do
    #[command(after_help = help("probe"))]
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
    #[command(after_help = help("stores"))]
    Stores,
    /// The fleet: which nodes trust what, who differs, and whether a rotation is safe
    #[cfg(feature = "kubernetes")]
    #[command(after_help = help("topology"))]
    Topology {
        #[command(flatten)]
        access: ClusterAccess,
        #[command(flatten)]
        acts: FleetActs,
    },
    /// The same sources as configuration for the first boot of a node; or, with --check, whether a template carries what they hold
    #[command(after_help = help("render"))]
    #[command(group(clap::ArgGroup::new("what").required(true).args(["format", "check"])))]
    Render {
        /// kubeadm (Cluster API), cloud-init, eks-al2023, bottlerocket, talos, ignition, script (POSIX sh), trust-manager, or systemd
        #[arg(value_name = "FORMAT", value_parser = render_format(), hide_possible_values = true)]
        format: Option<RenderFormat>,
        /// Compare the certificates in these templates with the sources; - for standard input
        #[arg(long, value_name = "FILE", num_args = 1..)]
        check: Vec<PathBuf>,
    },
    /// Remove all that is ours, and prove it
    #[command(after_help = help("uninstall"))]
    Uninstall,
    /// What a shell completes our command lines by
    #[command(after_help = help("completion"))]
    Completion {
        /// The shell
        #[arg(value_name = "SHELL")]
        shell: CompletionShell,
    },
    /// Manual pages, for packages: all of them into a directory, or that of the program to standard output
    #[command(hide = true, after_help = help("man"))]
    Man {
        /// Where the pages are written
        #[arg(value_name = "DIR")]
        directory: Option<PathBuf>,
    },
    /// Version, revision, target and compiler
    #[command(after_help = help("version"))]
    Version,
    /// What `status` says on another node; of kubectl's plugin only
    #[cfg(feature = "kubernetes")]
    #[command(skip)]
    NodeStatus { access: ClusterAccess, node: String },
}

/// The same program as kubectl's plugin: what is of use away from a node.
#[cfg(feature = "kubernetes")]
#[derive(Debug, Parser)]
#[command(
    name = "kubectl nodetrust",
    bin_name = "kubectl nodetrust",
    version,
    about = "The fleet: which nodes trust what, who differs, and whether a rotation is safe",
    after_help = help("topology")
)]
pub(super) struct Plugin {
    #[command(flatten)]
    access: ClusterAccess,
    #[command(flatten)]
    acts: FleetActs,
    /// Form of what is printed
    #[arg(short, long, global = true, value_enum, default_value_t = OutputFormat::Table)]
    output: OutputFormat,
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
    #[command(after_help = help("topology"))]
    Topology(FleetActs),
    /// Whether a node trusts what it should, why not, and what to do next: asked of the agent's pod on that node
    #[command(after_help = help("kubectl nodetrust status"))]
    Status {
        /// The name of the Node
        #[arg(value_name = "NODE", value_parser = node_name)]
        node: String,
    },
    /// Version, revision, target and compiler
    #[command(after_help = help("version"))]
    Version,
}

#[cfg(feature = "kubernetes")]
impl From<Plugin> for Cli {
    fn from(plugin: Plugin) -> Self {
        let Plugin { access, acts, output, verbose, command } = plugin;
        let command = match command {
            None => Command::Topology { access, acts },
            Some(PluginCommand::Topology(acts)) => Command::Topology { access, acts },
            Some(PluginCommand::Status { node }) => Command::NodeStatus { access, node },
            Some(PluginCommand::Version) => Command::Version,
        };
        Self { config: None, host_root: None, output, verbose, log_format: None, command }
    }
}

/// How the cluster is reached, in kubectl's words.
#[cfg(feature = "kubernetes")]
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct ClusterAccess {
    /// kubeconfig [default: $KUBECONFIG, else ~/.kube/config, else the pod's service account]
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig [default: the current one]
    #[arg(long, global = true, value_name = "NAME")]
    pub(super) context: Option<String>,
    /// Namespace of nodetrust, where its approvals are [default: nodetrust; in a pod, the pod's own]
    #[arg(short, long, global = true, value_name = "NAME", value_parser = namespace_name)]
    pub(super) namespace: Option<String>,
}

/// What `topology` does beside looking.
#[cfg(feature = "kubernetes")]
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct FleetActs {
    /// Let an anchor in grace leave all nodes, if that is safe: a fingerprint (16 or 64 digits), or `all`
    #[arg(long, value_name = "FP|all", value_parser = removal_request)]
    pub(super) approve_removal: Option<RemovalRequest>,
    /// Follow a rotation until every node is done, or something stops it
    #[arg(long, conflicts_with_all = ["approve_removal", "resume"])]
    pub(super) watch: bool,
    /// End every halt, so that the fleet goes on with its restarts; and wait no more for a canary if no Node is one
    #[arg(long, conflicts_with = "approve_removal")]
    pub(super) resume: bool,
    /// Approve although it is not known to be safe; says what it overrides
    #[arg(long, requires = "approve_removal")]
    pub(super) force: bool,
}

/// Longest name of a namespace, in characters (RFC 1123, a label).
#[cfg(feature = "kubernetes")]
const NAMESPACE_LENGTH: usize = 63;

#[cfg(feature = "kubernetes")]
fn namespace_name(text: &str) -> Result<String, String> {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if (1..=NAMESPACE_LENGTH).contains(&text.len()) && text.bytes().all(fits) {
        return Ok(text.to_owned());
    }
    Err(format!("expected 1 to {NAMESPACE_LENGTH} of a-z, 0-9 and -"))
}

/// Longest name of a Node, in characters (RFC 1123, a subdomain).
#[cfg(feature = "kubernetes")]
const NODE_LENGTH: usize = 253;

/// A name that kubectl cannot take for an option or a second condition of its selector.
#[cfg(feature = "kubernetes")]
fn node_name(text: &str) -> Result<String, String> {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
    let ends = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    if bytes.len() <= NODE_LENGTH && bytes.iter().copied().all(fits) && ends(bytes.first()) && ends(bytes.last()) {
        return Ok(text.to_owned());
    }
    Err(format!("expected the name of a Node: at most {NODE_LENGTH} of a-z, 0-9, - and ."))
}

#[cfg(feature = "kubernetes")]
fn removal_request(text: &str) -> Result<RemovalRequest, BadAnchorKey> {
    match text {
        "all" => Ok(RemovalRequest::All),
        text => text.parse().map(RemovalRequest::One),
    }
}

/// The program's command line, for whoever describes it.
pub(super) fn description() -> clap::Command {
    Cli::command()
}

/// Takes the name of a format.
fn render_format() -> impl TypedValueParser<Value = RenderFormat> {
    PossibleValuesParser::new(RenderFormat::ALL.map(RenderFormat::as_str)).try_map(|text| text.parse::<RenderFormat>())
}

/// The command line, as kubectl's plugin if that is the name we are called by.
pub(super) fn parse() -> Result<Cli, clap::Error> {
    #[cfg(feature = "kubernetes")]
    {
        let program = std::env::args_os().next().unwrap_or_default();
        if std::path::Path::new(&program).file_name().is_some_and(|name| name == "kubectl-nodetrust") {
            return Plugin::try_parse().map(Cli::from).and_then(with_a_form);
        }
    }
    Cli::try_parse().and_then(with_a_form)
}

/// Refuses `-o html` where there is no page, and any `-o` where the command says itself what is printed.
fn with_a_form(cli: Cli) -> Result<Cli, clap::Error> {
    #[cfg(feature = "kubernetes")]
    let has_page = matches!(cli.command, Command::Topology { .. });
    #[cfg(not(feature = "kubernetes"))]
    let has_page = false;
    if cli.output == OutputFormat::Html && !has_page {
        let text = "`--output html` is for `topology` only: expected table, json or yaml";
        return Err(Cli::command().error(ErrorKind::InvalidValue, text));
    }
    if let Command::Render { format: Some(format), .. } = &cli.command
        && cli.output != OutputFormat::Table
    {
        let text = format!("`render {}` has a form of its own: `--output` is for `render --check`", format.as_str());
        return Err(Cli::command().error(ErrorKind::ArgumentConflict, text));
    }
    Ok(cli)
}
