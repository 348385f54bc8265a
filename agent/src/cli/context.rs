//! What every command is given: the configuration, the host root, and the form of the output.

use std::path::PathBuf;

use nodetrust_core::problem::{Problem, ProblemKind};
use serde::Serialize;

use super::{
    arguments::OutputFormat,
    stdio::{complain, write_out},
};
use crate::{
    config::{ConfigError, DEFAULT_PATH, Settings},
    text::colour::Style,
};

/// What every command gets.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) config: Option<PathBuf>,
    pub(super) host_root: PathBuf,
    pub(super) output: OutputFormat,
}

impl Context {
    /// The configuration, which must be there.
    pub(super) fn settings(&self) -> anyhow::Result<Settings> {
        let settings = Settings::read(&self.config_path())?;
        self.warn_without_effect(&settings);
        Ok(settings)
    }

    /// The configuration; None if none was named and there is none at [`DEFAULT_PATH`].
    pub(super) fn settings_if_any(&self) -> anyhow::Result<Option<Settings>> {
        self.if_any(Settings::read(&self.config_path()))
    }

    /// The same, for a command that needs the rules only and no source.
    pub(super) fn rules_if_any(&self) -> anyhow::Result<Option<Settings>> {
        self.if_any(Settings::read_rules(&self.config_path()))
    }

    /// The same, for a command that also accepts what earlier versions wrote.
    pub(super) fn earlier_rules_if_any(&self) -> anyhow::Result<Option<Settings>> {
        self.if_any(Settings::read_earlier_rules(&self.config_path()))
    }

    fn if_any(&self, read: Result<Settings, ConfigError>) -> anyhow::Result<Option<Settings>> {
        match read {
            Ok(settings) => {
                self.warn_without_effect(&settings);
                Ok(Some(settings))
            }
            Err(error) if error.missing && self.config.is_none() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The configuration, for a command that must also work with a broken one: what is wrong with it is a problem of the report.
    pub(super) fn settings_or_problem(&self) -> (Option<Settings>, Option<Problem>) {
        match self.settings_if_any() {
            Ok(settings) => (settings, None),
            Err(error) => {
                let next = "correct the configuration; a running agent follows the last good one";
                (None, Some(Problem::new(ProblemKind::Config, format!("{error:#}"), next)))
            }
        }
    }

    /// Says which fields are set and do nothing: whoever has set one expects something of it.
    fn warn_without_effect(&self, settings: &Settings) {
        for field in &settings.without_effect {
            complain(&format!(
                "{}: `{field}` has no effect with the rest of the configuration",
                self.config_path().display()
            ));
        }
    }

    pub(super) fn config_path(&self) -> PathBuf {
        self.config.clone().unwrap_or_else(|| DEFAULT_PATH.into())
    }

    /// Prints a value in the form that was asked for.
    pub(super) fn print(&self, value: &impl Serialize, table: impl FnOnce(Style) -> String) -> anyhow::Result<()> {
        let text = match self.output {
            OutputFormat::Json => serde_json::to_string_pretty(value)? + "\n",
            OutputFormat::Yaml => serde_saphyr::to_string(value)?,
            // html comes here from no command: those without a page refuse it
            OutputFormat::Table | OutputFormat::Html => table(Style::of_stdout()),
        };
        write_out(&text)
    }
}
