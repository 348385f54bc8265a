//! What a server presents, judged by what the host trusts.

mod connect;
mod results;
mod schedule;

use std::{io, sync::Arc};

use nodetrust_core::{
    certificate::bundle,
    ledger::Ledger,
    probe::{Facts, Probe, ProbeVerdict, SourceEvidence, Target, judge},
    report::Behind,
    source::{Snapshot, policy::Circumstances, resolve::resolve},
};

use crate::{
    config::Settings,
    host::{self, ledger_file, obstacle::way_out_or, own_paths, root::HostRoot},
    sources::SourceReader,
    store::{bundle::bundle_bytes, detect},
};

pub(crate) use connect::proxy_status;
pub use connect::{Presented, ask, ask_by};
pub use results::{LatestResult, LatestResults, Question};
pub use schedule::serve;

/// Judges what a server presented, by what the host trusts now and by what the last report says of its runtime. Blocks while it reads
/// files.
pub fn answer(
    target: &Target,
    presented: &Presented,
    root: &HostRoot,
    settings: Option<&Settings>,
    behind: Option<&Behind>,
) -> Probe {
    let Presented { chain, failure } = presented;
    match failure {
        Some(failure) if chain.is_empty() => return Probe::not_reached(target, failure),
        _ => {}
    }
    let host = match Host::read(root, settings) {
        Ok(host) => host,
        Err(why) => return Probe::without_bundle(target, &why),
    };
    let now = &host.now;
    let facts = Facts {
        bundle: &host.bundle,
        ledger: &host.ledger,
        sources: None,
        removal_grace: settings
            .map(|settings| settings.policy.removal_grace)
            .or(host.ledger.removal_grace)
            .unwrap_or(Settings::default().policy.removal_grace),
        now,
        behind,
    };
    let mut probe = judge(target, chain, facts);
    if probe.verdict == ProbeVerdict::NotTrusted {
        // Read only if needed: the sources tell where a missing CA went.
        let sources = host.sources(settings);
        probe = judge(target, chain, Facts { sources: Some(&sources), ..facts });
    }
    match failure {
        Some(failure) => probe.after(failure),
        None => probe,
    }
}

/// Whether the host's bundle can be read at all.
///
/// # Errors
/// A sentence that says why not.
pub fn check_bundle(root: &HostRoot, settings: Option<&Settings>) -> Result<(), String> {
    Host::read(root, settings).map(drop)
}

/// What the host trusts and remembers.
struct Host {
    bundle: Vec<Vec<u8>>,
    ledger: Arc<Ledger>,
    now: nodetrust_core::time::Moment,
    drops_not_ca: bool,
}

impl Host {
    fn read(root: &HostRoot, settings: Option<&Settings>) -> Result<Self, String> {
        let ledger = match ledger_file::read(root) {
            Ok(ledger_file::LedgerRead::Good(ledger)) => ledger,
            Ok(ledger_file::LedgerRead::Damaged(_)) => Arc::new(Ledger::new()), // `status` reports it
            Err(error) => {
                let next = way_out_or(&error, "look at the path on the host");
                return Err(format!("failed to read {}: {error}; {next}", own_paths::LEDGER));
            }
        };
        let wanted = settings.map_or(ledger.family, |settings| settings.family);
        let (_, detection) = detect::system(root, wanted);
        // a bundle can be read without the tool that makes it
        let readable = detection.family.or_else(|unsupported| unsupported.without_tool.ok_or(unsupported));
        let family = readable.map_err(|unsupported| {
            let what = if unsupported.is_unknown { "unknown" } else { "unsupported" };
            format!("the trust store is {what}: {}; {}", unsupported.reason, unsupported.advice)
        })?;
        let store = family.store();
        let bytes = bundle_bytes(root, store)
            .and_then(|bytes| bytes.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound)))
            .map_err(|error| format!("failed to read {} on the host: {error}", store.bundle))?;
        let now = host::moment(root)
            .map_err(|error| format!("failed to read the host's boot id: {error}; is /proc mounted?"))?;
        Ok(Self { bundle: bundle::certificates(&bytes), ledger, now, drops_not_ca: store.drops_not_ca })
    }

    fn sources(&self, settings: Option<&Settings>) -> SourceEvidence {
        let ledger = &self.ledger;
        let snapshots = match settings {
            Some(settings) => SourceReader::default().read(settings),
            None => ledger.sources.iter().map(|(name, source)| Snapshot::remembered(name, source, ledger)).collect(),
        };
        let installed = |print: &nodetrust_core::certificate::fingerprint::Fingerprint| {
            ledger.anchors.get(print).is_some_and(|entry| entry.settled)
        };
        let at = Circumstances { drops_not_ca: Some(self.drops_not_ca), installed: &installed, now: self.now.wall };
        let policy = settings.map(|settings| settings.policy.clone()).unwrap_or_default();
        let resolved = resolve(&snapshots, ledger, &policy, at);
        SourceEvidence { snapshots, resolved }
    }
}
