//! Anchors as settings of Bottlerocket: what its API says of `settings.pki`, and what it is told (facts A.13).

use std::collections::BTreeMap;

use data_encoding::BASE64;
use serde::Deserialize;

use crate::certificate::anchor::Anchor;

/// `settings.pki`, by the names of its entries.
pub type PkiSettings = BTreeMap<String, PkiEntry>;

/// An entry of `settings.pki`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct PkiEntry {
    /// PEM in base64; empty in an entry that was taken back, since the API deletes none.
    #[serde(default)]
    pub data: String,
    /// Its certificates are trusted. Without this, the same certificates of the system are taken out of the bundle.
    #[serde(default)]
    pub trusted: bool,
}

impl PkiEntry {
    /// The entry of an anchor as we write it; None for one that is taken back. That stays `trusted`: should somebody fill it, nothing of
    /// the system's is distrusted by our name.
    pub fn of(anchor: Option<&Anchor>) -> Self {
        Self { data: anchor.map(|anchor| BASE64.encode(anchor.pem().as_bytes())).unwrap_or_default(), trusted: true }
    }

    /// It holds nothing.
    pub fn is_blank(&self) -> bool {
        self.data.trim().is_empty()
    }

    /// The PEM in it; None if it is no base64.
    pub fn pem(&self) -> Option<Vec<u8>> {
        BASE64.decode(self.data.trim().as_bytes()).ok()
    }
}

/// Reads the answer to `GET /settings?prefix=pki`: `{"pki": {NAME: {"data": …, "trusted": …}}}`, without `pki` where there is none. The same
/// within `settings`, as the API's whole model has it, is taken too.
///
/// # Errors
/// If it is something else: what is wrong with it.
pub fn read_pki(json: &[u8]) -> Result<PkiSettings, String> {
    #[derive(Deserialize)]
    struct PkiAnswer {
        #[serde(default)]
        pki: PkiSettings,
        settings: Option<Box<PkiAnswer>>,
    }
    let answer: PkiAnswer = serde_json::from_slice(json).map_err(|error| error.to_string())?;
    Ok(answer.settings.map_or(answer.pki, |whole| whole.pki))
}

/// The body of `PATCH /settings` that sets one entry.
pub fn patch(name: &str, entry: &PkiEntry) -> String {
    serde_json::json!({ "pki": { name: { "data": entry.data, "trusted": entry.trusted } } }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::ca;

    #[test]
    fn what_is_set_is_read_back() {
        let anchor = ca("Settings CA");
        let entry = PkiEntry::of(Some(&anchor));
        assert_eq!(entry.pem().unwrap(), anchor.pem().as_bytes());
        let settings = read_pki(patch("nodetrust-0123456789abcdef", &entry).as_bytes()).unwrap();
        assert_eq!(settings, BTreeMap::from([("nodetrust-0123456789abcdef".to_owned(), entry)]));
    }

    #[test]
    fn an_answer_without_entries_and_an_entry_without_fields_are_read() {
        assert_eq!(read_pki(b"{}").unwrap(), PkiSettings::new());
        assert_eq!(read_pki(br#"{"settings":{"pki":{"a":{}}}}"#).unwrap().len(), 1);
        let settings = read_pki(br#"{"pki":{"a":{},"b":{"data":"%"}}}"#).unwrap();
        assert!(settings["a"].is_blank() && !settings["a"].trusted && settings["b"].pem().is_none());
        assert!(read_pki(b"<html>").is_err() && read_pki(br#"{"pki":[]}"#).is_err());
    }
}
