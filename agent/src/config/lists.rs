//! The forms of values that are lists of texts, each with its own form and bound.

use std::collections::BTreeSet;

use nodetrust_core::{
    certificate::fingerprint::Fingerprint,
    store::{
        distrust::MAX_DISTRUSTED,
        name_pattern::{MAX_PATTERNS, NamePattern},
    },
};
use serde::{Deserialize, Deserializer, de::Error as _};

/// The base names that `store.adopt` lists.
#[derive(Debug, Default)]
pub(super) struct AdoptedNames(pub(super) Vec<NamePattern>);

impl<'de> Deserialize<'de> for AdoptedNames {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        if texts.len() > MAX_PATTERNS {
            return Err(D::Error::custom(format!("want at most {MAX_PATTERNS} names")));
        }
        texts.iter().map(|text| text.parse()).collect::<Result<_, String>>().map(Self).map_err(D::Error::custom)
    }
}

/// The fingerprints that `policy.distrust` lists.
#[derive(Debug, Default)]
pub(super) struct DistrustedPrints(pub(super) BTreeSet<Fingerprint>);

impl<'de> Deserialize<'de> for DistrustedPrints {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let prints = BTreeSet::<Fingerprint>::deserialize(deserializer)?;
        if prints.len() > MAX_DISTRUSTED {
            return Err(D::Error::custom(format!("want at most {MAX_DISTRUSTED} fingerprints")));
        }
        Ok(Self(prints))
    }
}
