//! Where log lines go, in which form, and from which level on.

use std::{io::IsTerminal, sync::OnceLock};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::{Registry, filter::Targets, fmt, prelude::*, registry, reload};

use crate::{
    config::{LogFormat, LogSettings},
    text::colour::may_be_coloured,
};

/// The level that the configuration may change while the agent runs; unset where the command line or `RUST_LOG` names one.
static FOLLOWED: OnceLock<reload::Handle<Targets, Registry>> = OnceLock::new();

/// What the command line says of the log.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LogArguments {
    /// `-v`, so many times
    pub(crate) verbose: u8,
    /// `--log-format`
    pub(crate) format: Option<LogFormat>,
}

/// Lets a command write its log to stderr: errors, and more of it with `-v`.
pub(crate) fn for_command(arguments: LogArguments) {
    let level = match arguments.verbose {
        0 => LevelFilter::ERROR,
        1 => LevelFilter::INFO,
        2 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    let format = arguments.format.unwrap_or(LogFormat::Text);
    let filter = named().unwrap_or_else(|| usual(level));
    start(filter, format, false);
}

/// Lets the agent write its log to stderr, as the configuration says unless the command line says something else.
pub(crate) fn for_agent(arguments: LogArguments, settings: LogSettings) {
    let format = match arguments.format.unwrap_or(settings.format) {
        // a log collector gets JSON, a person text
        LogFormat::Auto if std::io::stderr().is_terminal() => LogFormat::Text,
        LogFormat::Auto => LogFormat::Json,
        chosen => chosen,
    };
    let by_arguments = match arguments.verbose {
        0 => None,
        1 => Some(usual(LevelFilter::DEBUG)),
        _ => Some(usual(LevelFilter::TRACE)),
    };
    match named().or(by_arguments) {
        Some(filter) => drop(start(filter, format, true)),
        None => {
            let _ = FOLLOWED.set(start(usual(settings.level), format, true));
        }
    }
}

/// Follows a changed level of the configuration.
pub(crate) fn follow(settings: LogSettings) {
    if let Some(handle) = FOLLOWED.get()
        && let Err(error) = handle.reload(usual(settings.level))
    {
        tracing::warn!(%error, "the log keeps its level");
    }
}

/// The filter of `RUST_LOG`.
fn named() -> Option<Targets> {
    std::env::var("RUST_LOG").ok().and_then(|filter| filter.parse().ok())
}

fn usual(level: LevelFilter) -> Targets {
    // the library would log each failed call as an error; what counts of them we say ourselves
    Targets::new().with_default(level).with_target("kube_client", LevelFilter::OFF)
}

fn start(filter: Targets, format: LogFormat, timed: bool) -> reload::Handle<Targets, Registry> {
    let (filter, handle) = reload::Layer::new(filter);
    let log = registry().with(filter);
    // a log that cannot be written must not end the program, as it would if that were told
    let lines = fmt::layer().with_writer(std::io::stderr).log_internal_errors(false);
    let colour = may_be_coloured(std::io::stderr().is_terminal());
    match format {
        LogFormat::Json => {
            log.with(lines.json().flatten_event(true).with_current_span(false).with_span_list(false)).init();
        }
        _ if timed => log.with(lines.with_target(false).with_ansi(colour)).init(),
        _ => log.with(lines.without_time().with_target(false).with_ansi(colour)).init(),
    }
    handle
}
