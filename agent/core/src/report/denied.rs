//! What `policy.deniedFingerprints` names and the node trusts all the same, because it is not ours to take away.

use crate::{
    certificate::fingerprint::Fingerprint,
    ledger::Ledger,
    observed::Observed,
    problem::{Problem, ProblemKind},
    source::policy::Policy,
    store::Family,
};

/// Fingerprints in one text; the rest is counted.
const SHOWN: usize = 5;

/// Denied certificates in the bundle that never were ours. Those that were have a row of their own.
pub(super) fn still_trusted(observed: &Observed, ledger: &Ledger, policy: &Policy) -> Option<Problem> {
    let bundle = &observed.effective.set;
    let is_foreign = |print: &&Fingerprint| bundle.contains(print) && !ledger.anchors.contains_key(print);
    let found: Vec<&Fingerprint> = policy.denied.iter().filter(is_foreign).collect();
    let first = found.first()?;
    let mut named: Vec<String> = found.iter().take(SHOWN).map(|print| print.fp16()).collect();
    if found.len() > SHOWN {
        named.push(format!("{} more", found.len() - SHOWN));
    }
    let text = format!(
        "policy.deniedFingerprints names {}, which {} in {} and not ours: it stays trusted, since nodetrust takes out its own anchors only",
        named.join(", "),
        if found.len() == 1 { "is" } else { "are" },
        observed.store.bundle
    );
    let holds = |file: &&crate::observed::ForeignFile| {
        file.taken && file.anchors.iter().any(|anchor| anchor.fingerprint == **first)
    };
    let next = match observed.foreign.iter().find(holds) {
        Some(file) => format!("to distrust it on this node, remove {} and run the distribution's tool", file.path),
        None => {
            let family = observed.store.family;
            // by these means policy.distrust does it
            let itself = if has_means(family) { "name it in policy.distrust, or " } else { "" };
            format!("to distrust it on this node, {itself}{}", way(family))
        }
    };
    Some(Problem { kind: ProblemKind::DeniedTrusted, sha256: Some(**first), text, next })
}

/// Whether `policy.distrust` can take a root of the distribution out there.
fn has_means(family: Family) -> bool {
    !matches!(family, Family::Flatcar | Family::Photon | Family::Bottlerocket | Family::Directory)
}

/// How the administrator of a distribution takes one of its roots out.
fn way(family: Family) -> &'static str {
    match family {
        Family::Debian | Family::Alpine => {
            "put `!` before its line in /etc/ca-certificates.conf and run update-ca-certificates"
        }
        Family::Redhat => {
            "put a copy of it into /etc/pki/ca-trust/source/blocklist (EL 8: blacklist) and run update-ca-trust"
        }
        Family::Suse => {
            "put a copy of it into /etc/pki/trust/blocklist (older releases: blacklist) and run update-ca-certificates"
        }
        Family::Arch => "put a copy of it into /etc/ca-certificates/trust-source/blocklist and run update-ca-trust",
        Family::Flatcar | Family::Photon => "remove its file from /etc/ssl/certs and run the distribution's tool",
        Family::Bottlerocket => "set an entry of settings.pki with it and trusted = false by apiclient",
        Family::Directory => "remove its file from /etc/ssl/certs",
    }
}
