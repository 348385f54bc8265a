//! `nodetrust stores`: which trust store was found, and why.

use nodetrust_core::store::{Evidence, Family};
use serde::Serialize;

use super::{
    context::Context,
    exit_code::{FINDINGS, OK},
};
use crate::{
    host::root::HostRoot,
    store::detect::{self, os_release},
    text::table::columns,
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Stores {
    family: Option<Family>,
    because: String,
    unsupported: Option<String>,
    advice: Option<String>,
    os: nodetrust_core::store::os_release::OsRelease,
    anchors_dir: Option<&'static str>,
    bundle: Option<&'static str>,
    tool: Vec<&'static str>,
    evidence: Vec<Evidence>,
}

pub(super) fn main(context: &Context) -> anyhow::Result<u8> {
    let wanted = context.rules_if_any()?.and_then(|settings| settings.family);
    let root = HostRoot::open(&context.host_root)?;
    let os = os_release(&root)?;
    let detection = detect::detect(&root, &os, wanted)?;
    let unsupported = detection.family.as_ref().err();
    let store = detection.family.as_ref().ok().map(|family| family.store());
    let stores = Stores {
        family: detection.family.as_ref().ok().copied(),
        because: detection.because.clone(),
        unsupported: unsupported.map(|unsupported| unsupported.reason.clone()),
        advice: unsupported.map(|unsupported| unsupported.advice.clone()),
        anchors_dir: store.map(|store| store.anchors_dir),
        bundle: store.map(|store| store.bundle),
        tool: store.map(|store| store.tool.programs().to_vec()).unwrap_or_default(),
        os,
        evidence: detection.evidence,
    };
    context.print(&stores, |style| {
        let mut rows = vec![vec!["FACT".to_owned(), "VALUE".to_owned()]];
        rows.extend(stores.evidence.iter().map(|evidence| vec![evidence.fact.clone(), evidence.value.clone()]));
        let head = match (&stores.family, &stores.unsupported, &stores.advice) {
            (Some(family), ..) => format!(
                "{family}   {}\n\nanchors  {}\nbundle   {}\n",
                stores.because,
                stores.anchors_dir.unwrap_or_default(),
                stores.bundle.unwrap_or_default()
            ),
            (None, Some(reason), Some(advice)) => format!("UNSUPPORTED   {reason}\n\nNEXT  {advice}\n"),
            (None, ..) => "UNSUPPORTED\n".to_owned(),
        };
        format!("{head}\n{}", columns(&rows, style))
    })?;
    Ok(if stores.family.is_some() { OK } else { FINDINGS })
}
