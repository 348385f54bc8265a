//! What the configuration says of the runtime, and the part of it that the ledger keeps.

use serde::{Deserialize, Serialize};

use super::kinds::RuntimeKind;

/// `runtime.onChange`: what may be done when the runtime does not know what the bundle says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnChange {
    /// Write the registry directory; restart for what that does not cover.
    #[default]
    Auto,
    /// Write the registry directory; report what that does not cover, and never restart.
    Registry,
    /// Restart.
    Restart,
    /// Report staleness; never restart.
    Report,
    /// As `Report`; only the reason of the hold names the other word.
    Never,
}

/// The section `runtime` of the configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RuntimeSettings {
    /// `kind: none`: the node's runtime is not looked for.
    pub ignored: bool,
    /// The runtime's kind; None to detect it.
    pub kind: Option<RuntimeKind>,
    /// The runtime's unit, where it has an unusual name.
    pub unit: Option<String>,
    /// What may be done.
    pub on_change: OnChange,
    /// Further units that read the bundle when they start.
    pub also: Vec<String>,
}

/// The part of [`RuntimeSettings`] that the ledger keeps, so that a command without the configuration finds the same runtime and
/// gives the same answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RuntimeChoice {
    /// As [`RuntimeSettings::ignored`].
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub ignored: bool,
    /// As [`RuntimeSettings::kind`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<RuntimeKind>,
    /// As [`RuntimeSettings::unit`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// As [`RuntimeSettings::on_change`].
    pub on_change: OnChange,
}

impl From<&RuntimeSettings> for RuntimeChoice {
    fn from(settings: &RuntimeSettings) -> Self {
        let RuntimeSettings { ignored, kind, unit, on_change, .. } = settings;
        Self { ignored: *ignored, kind: *kind, unit: unit.clone(), on_change: *on_change }
    }
}

impl From<RuntimeChoice> for RuntimeSettings {
    fn from(RuntimeChoice { ignored, kind, unit, on_change }: RuntimeChoice) -> Self {
        Self { ignored, kind, unit, on_change, ..Self::default() }
    }
}
