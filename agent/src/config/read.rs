//! Reading a configuration: text becomes [`Settings`], or an error that names line and field.

use std::path::Path;

use nodetrust_core::certificate::name::visible;
use serde::Deserialize;

use super::{
    ConfigError, Settings,
    raw::{ConfigVersion, Misfit, RawConfig},
    words::PlainWords,
};
use crate::host::file::read_file;

/// Largest configuration file, in bytes.
const MAX_CONFIG_BYTES: u64 = 4 << 20;
/// Longest field name or value that an error quotes, in characters.
const MAX_QUOTED: usize = 48;

impl Settings {
    /// Reads and checks a configuration file that a node is to follow: with at least one source, since a file that was cut
    /// short must not let every anchor go.
    ///
    /// # Errors
    /// If it cannot be read, is no YAML, has an unknown field, a value out of form, or no source.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let settings = Self::read_rules(path)?;
        if settings.sources.is_empty() {
            let text = "sources: want at least one source".to_owned();
            return Err(ConfigError { path: path.display().to_string(), text, missing: false });
        }
        Ok(settings)
    }

    /// Reads and checks a configuration file for its rules only.
    ///
    /// # Errors
    /// As [`Settings::read`], but for the sources.
    pub fn read_rules(path: &Path) -> Result<Self, ConfigError> {
        Self::read_as(path, ConfigVersion::Current)
    }

    /// The same for a file that may have been written for an earlier version, which took a path in `export.bundle`.
    ///
    /// # Errors
    /// As [`Settings::read_rules`].
    pub fn read_earlier_rules(path: &Path) -> Result<Self, ConfigError> {
        Self::read_as(path, ConfigVersion::Earlier)
    }

    fn read_as(path: &Path, version: ConfigVersion) -> Result<Self, ConfigError> {
        let error = |text: String, missing| ConfigError { path: path.display().to_string(), text, missing };
        let bytes = read_file(path, MAX_CONFIG_BYTES);
        let bytes =
            bytes.map_err(|e| error(format!("cannot be read: {e}"), e.kind() == std::io::ErrorKind::NotFound))?;
        let text = String::from_utf8(bytes).map_err(|_| error("is no UTF-8 text".into(), false))?;
        Self::parse_as(&text, version).map_err(|text| error(text, false))
    }

    /// Checks a configuration's text.
    ///
    /// # Errors
    /// A sentence with line, field and the expected form.
    pub fn parse(text: &str) -> Result<Self, String> {
        Self::parse_as(text, ConfigVersion::Current)
    }

    fn parse_as(text: &str, version: ConfigVersion) -> Result<Self, String> {
        // an empty file is an empty configuration, not a null
        let text = if text.trim().is_empty() { "{}" } else { text };
        let mut options = serde_saphyr::Options::default();
        options.with_snippet = false; // a configuration may hold what should not be quoted
        let mut field = String::new();
        let read = serde_saphyr::with_deserializer_from_str_with_options(text, options, |yaml| {
            let mut track = serde_path_to_error::Track::new();
            let read = RawConfig::deserialize(serde_path_to_error::Deserializer::new(yaml, &mut track));
            field = field_name(&track.path());
            read
        });
        let misfit = |field: &str, text: &str| match field {
            "" => visible(&without_values(text)),
            field => visible(&format!("{field}: {}", without_values(text))),
        };
        let raw = read.map_err(|error| misfit(&field, &error.render_with_formatter(&PlainWords)))?;
        raw.check(version).map_err(|Misfit { field, line, text }| misfit(&field, &format!("{text} at line {line}")))
    }
}

/// The name of a field, such as `sources[0].name`; empty for the text as a whole. A key of the text can be anything, such as the first
/// line of a key file that was pasted in: a name that may be one is left out.
fn field_name(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    let mut name = String::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => name.push_str(&format!("[{index}]")),
            // `Spanned` reads its value as if that were a field
            Segment::Map { key } if key == "value" => {}
            Segment::Map { key } if name.is_empty() => name.push_str(key),
            Segment::Map { key } => name.extend([".", key]),
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    let may_be_shown = name.chars().count() <= MAX_QUOTED && !name.contains("-----");
    if may_be_shown { name } else { String::new() }
}

/// An error's text without long or many-line values: somebody may have put a key where it does not belong.
fn without_values(text: &str) -> String {
    let mut out = String::new();
    for (number, part) in text.split('`').enumerate() {
        match (number, number % 2) {
            (0, _) => out.push_str(&without_quoted(part)),
            (_, 1) if part.chars().count() > MAX_QUOTED || part.contains(['\n', '\r']) || part.contains("-----") => {
                out.push_str("`(a long value, not shown)");
            }
            (_, 1) => out.extend(["`", part]),
            _ => out.extend(["`", &without_quoted(part)]),
        }
    }
    out
}

/// The same for values in double quotes, which reach to the last quote of the text.
fn without_quoted(text: &str) -> String {
    match (text.find('"'), text.rfind('"')) {
        (Some(first), Some(last)) if last - first > MAX_QUOTED => {
            format!("{}\"(a long value, not shown){}", &text[..first], &text[last..])
        }
        _ if text.contains("-----") => "(a long value, not shown)".to_owned(),
        _ => text.to_owned(),
    }
}
