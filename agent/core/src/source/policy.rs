//! Which certificates may become anchors, and with which warnings.
//!
//! In: an anchor, the policy, what the store does, the time. Out: warnings, or one reason against it (facts E.3).

use std::collections::BTreeSet;

use crate::{
    certificate::{
        anchor::{Anchor, Authority},
        fingerprint::Fingerprint,
        pem::RejectReason,
        signature::SelfSignature,
    },
    store::name_pattern::NamePattern,
    time::Time,
};

/// The configured rules: `policy` and `rotation` in docs/configuration.md.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// What a rejection means for its source.
    pub on_rejection: OnRejection,
    /// What is not a CA.
    pub not_ca: NotCa,
    /// Expired certificates that are not installed yet.
    pub expired: Acceptance,
    /// Weak keys and signatures.
    pub weak: Acceptance,
    /// Roots whose own signature does not match, or cannot be checked here.
    pub self_signature: Unproven,
    /// When not empty, nothing else is installed, and what is ours and not among them is removed without grace.
    pub allowed: BTreeSet<Fingerprint>,
    /// Never installed; removed without grace if ours.
    pub denied: BTreeSet<Fingerprint>,
    /// What an empty, missing or unreadable source means.
    pub empty_source: EmptySource,
    /// How long an anchor that left its sources stays trusted, in seconds.
    pub removal_grace: u64,
    /// What a removal waits for beside its grace.
    pub removal_gate: RemovalGate,
    /// `policy.distrust`: roots of the distribution that are to be distrusted.
    pub distrust: BTreeSet<Fingerprint>,
    /// `store.adopt`: files of others in the anchor directory that may be taken over.
    pub adopt: Vec<NamePattern>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            on_rejection: OnRejection::Skip,
            not_ca: NotCa::Auto,
            expired: Acceptance::Reject,
            weak: Acceptance::Accept,
            self_signature: Unproven::Warn,
            allowed: BTreeSet::new(),
            denied: BTreeSet::new(),
            empty_source: EmptySource::Hold,
            removal_grace: 24 * 3600,
            removal_gate: RemovalGate::None,
            distrust: BTreeSet::new(),
            adopt: Vec::new(),
        }
    }
}

/// `policy.onRejection`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnRejection {
    /// Take the good certificates.
    Skip,
    /// Keep the source's last good set.
    Hold,
}

/// `policy.notCa`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotCa {
    /// Accept where the store lets it through.
    Auto,
    /// Accept.
    Accept,
    /// Reject.
    Reject,
}

/// `accept` or `reject`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acceptance {
    /// Install it.
    Accept,
    /// Do not.
    Reject,
}

/// `policy.selfSignature`: what nothing but its place in a source speaks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unproven {
    /// Install it, and say so.
    Warn,
    /// Do not.
    Reject,
}

/// `policy.emptySource`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EmptySource {
    /// The last good set stays in force.
    Hold,
    /// Its anchors leave.
    Remove,
}

/// `rotation.removalGate`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemovalGate {
    /// Nothing.
    None,
    /// The fleet's approval: [`crate::fleet::removal`].
    Fleet,
}

/// What a judgement needs to know about the host.
#[derive(Clone, Copy)]
pub struct Circumstances<'a> {
    /// The store leaves out what is not a CA for servers; None where no store is known.
    pub drops_not_ca: Option<bool>,
    /// Whether we have installed an anchor; few judgements ask.
    pub installed: &'a (dyn Fn(&Fingerprint) -> bool + Sync),
    /// Seconds since the epoch.
    pub now: i64,
}

impl Policy {
    /// Whether the lists of fingerprints forbid an anchor: one of ours goes without grace then.
    pub fn forbids(&self, fingerprint: &Fingerprint) -> bool {
        self.denied.contains(fingerprint) || !self.allowed.is_empty() && !self.allowed.contains(fingerprint)
    }
}

/// Judges one certificate.
///
/// # Errors
/// The reason and a sentence against it.
pub fn judge(anchor: &Anchor, policy: &Policy, at: Circumstances<'_>) -> Result<Vec<String>, (RejectReason, String)> {
    let mut warnings = Vec::new();
    let fingerprint = &anchor.fingerprint;
    if policy.denied.contains(fingerprint) {
        return Err((RejectReason::Denied, "its fingerprint is in policy.deniedFingerprints".into()));
    }
    if !policy.allowed.is_empty() && !policy.allowed.contains(fingerprint) {
        return Err((
            RejectReason::NotAllowed,
            "policy.allowedFingerprints is set and does not have its fingerprint".into(),
        ));
    }
    check_authority(anchor, policy, at, &mut warnings)?;
    if anchor.not_after < at.now {
        let installed = (at.installed)(fingerprint);
        if policy.expired == Acceptance::Reject && !installed {
            return Err((
                RejectReason::Expired,
                format!(
                    "it has expired on {}; policy.expired: accept would install it all the same",
                    Time(anchor.not_after).date()
                ),
            ));
        }
        let since = Time(anchor.not_after).date();
        warnings.push(format!(
            "it has expired on {since}: chains that end in it fail; a reissue with the same key would help"
        ));
    } else if anchor.not_before > at.now {
        warnings.push(format!("it is not valid yet, but from {} on", Time(anchor.not_before).date()));
    }
    let weak = match &anchor.weak_signature {
        _ if anchor.key.is_weak() => Some(format!("its key is weak ({})", anchor.key)),
        Some(algorithm) => Some(format!("its signature uses {algorithm}")),
        None => None,
    };
    if let Some(weak) = weak {
        if policy.weak == Acceptance::Reject {
            return Err((RejectReason::Weak, format!("{weak}; policy.weak is reject")));
        }
        warnings.push(weak);
    }
    if let Some(unproven) = unproven(anchor) {
        if policy.self_signature == Unproven::Reject {
            return Err((RejectReason::SelfSignature, format!("{unproven}; policy.selfSignature is reject")));
        }
        warnings.push(format!("{unproven}; no reader checks the signature of an anchor, so it works all the same"));
    }
    warnings.extend(oddities(anchor));
    Ok(warnings)
}

/// What is missing to prove that a root is what its owner has made.
pub(crate) fn unproven(anchor: &Anchor) -> Option<&'static str> {
    match anchor.self_signature() {
        SelfSignature::Wrong => {
            Some("it names itself as issuer, and its own signature does not match its key (damaged, or mixed up?)")
        }
        SelfSignature::Unchecked => {
            Some("its own signature could not be checked: its algorithm or key size is not known here")
        }
        SelfSignature::NotSelfIssued | SelfSignature::OtherKey | SelfSignature::Verified => None,
    }
}

/// Why programs in Go, container runtimes among them, make nothing of an anchor; None if they read it.
pub fn go_warning(anchor: &Anchor) -> Option<String> {
    let why = anchor.go_refuses.as_ref()?;
    Some(format!(
        "Go does not read it ({why}): containerd and other Go programs will not trust it, whatever is restarted"
    ))
}

fn check_authority(
    anchor: &Anchor,
    policy: &Policy,
    at: Circumstances<'_>,
    warnings: &mut Vec<String>,
) -> Result<(), (RejectReason, String)> {
    let Some(why) = anchor.dropped_by_p11_kit() else { return Ok(()) };
    // a CA that is not for servers is a CA: policy.notCa does not speak of it, but p11-kit drops it
    let is_ca = matches!(anchor.authority, Authority::Ca | Authority::Version1);
    let detail = format!("{why}; stores over p11-kit (RHEL, SUSE, Arch) silently leave it out");
    match (policy.not_ca, at.drops_not_ca) {
        (NotCa::Reject, _) if !is_ca => Err((RejectReason::NotCa, format!("{why}; policy.notCa is reject"))),
        (NotCa::Accept, _) | (_, Some(false)) | (NotCa::Reject, None) => {
            warnings.push(detail);
            Ok(())
        }
        (NotCa::Auto, None) => {
            warnings.push(detail);
            Ok(())
        }
        (_, Some(true)) => Err((
            RejectReason::NotCa,
            format!("{why}, and this store would silently leave it out; give the CA that issued it"),
        )),
    }
}

fn oddities(anchor: &Anchor) -> impl Iterator<Item = String> {
    [
        (anchor.cannot_sign, "its keyUsage lacks keyCertSign: Go and OpenSSL refuse what it has issued"),
        (anchor.name_constraints, "it has nameConstraints: only names inside them will verify"),
        (anchor.constraints_not_critical, "its basicConstraints is not critical, against RFC 5280, 4.2.1.9"),
        (anchor.subject.is_empty(), "its subject is empty"),
        (anchor.serial.is_empty(), "its serial number is empty"),
        (
            !anchor.is_root(),
            "it is an intermediate, not a root: OpenSSL follows chains to its issuer unless told to stop at any anchor",
        ),
    ]
    .into_iter()
    .filter(|(holds, _)| *holds)
    .map(|(_, text)| text.to_owned())
    .chain(go_warning(anchor))
    .chain((!anchor.unknown_critical.is_empty()).then(|| {
        format!(
            "it has critical extensions that verifiers may not know ({}): Go refuses such chains",
            anchor.unknown_critical.join(", ")
        )
    }))
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;
