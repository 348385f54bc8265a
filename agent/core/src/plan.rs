//! What to do: a pure function of what is wanted, what is there and what was written down.
//!
//! In: [`Resolved`], [`Observed`], [`Ledger`], policy, time. Out: a [`Plan`]: actions in the order in which they are done, each
//! with its reason; the ledger that records them; and what is held back, and why.
//!
//! Invariants (tests hold them for all inputs): only files with our kind of name are touched; additions come before
//! removals; an anchor in the target set is never removed; a source that says nothing removes nothing; planning again after
//! the actions were done gives no action.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use serde::Serialize;

use crate::{
    anchor::Anchor,
    fingerprint::Fingerprint,
    policy::Policy,
    source::{self, Resolved, SourceStatus},
    state::{AnchorState, Hazard, Ledger, LedgerAnchor, Moment, Observed, file_name},
    store::{ExtractMode, Tool},
};

/// Seconds for which a removed anchor is remembered: far longer than any run of a tool.
pub const REMEMBER_GONE: u64 = 600;

/// One thing to do on a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "action", rename_all = "kebab-case")]
pub enum Action {
    /// Write down what is about to be done, so that a crash is noticed.
    RecordLedger,
    /// Make the anchor directory.
    CreateDirectory {
        /// Absolute path.
        path: String,
    },
    /// Remove a temporary file that a killed run left behind.
    RemoveTemporary {
        /// Absolute path.
        path: String,
        /// Whose it was.
        why: &'static str,
    },
    /// Write an anchor file.
    WriteAnchor {
        /// Whose certificate.
        sha256: Fingerprint,
        /// Name in the anchor directory.
        file: String,
        /// Why.
        why: WriteReason,
    },
    /// Remove an anchor file.
    RemoveAnchor {
        /// Name in the anchor directory.
        file: String,
        /// Why.
        why: RemoveReason,
    },
    /// Run the distribution's tool.
    Extract {
        /// How thoroughly.
        mode: ExtractMode,
        /// Every reason.
        why: BTreeSet<ExtractReason>,
    },
    /// Tell the store's hooks, e.g. Java's key store, what came and went.
    RunHooks {
        /// Changes that they have not been told.
        changes: usize,
    },
}

/// Why an anchor file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum WriteReason {
    /// It is new.
    New,
    /// We had written it, and it is gone.
    Missing,
    /// It is there with another content, mode, owner or kind.
    Altered,
}

/// Why an anchor file is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RemoveReason {
    /// It left the sources and its grace is over.
    GraceOver,
    /// Policy denies it.
    Denied,
    /// Its name is ours, and it does not hold the certificate of that name.
    Damaged,
    /// Everything of ours is being removed.
    Uninstall,
}

/// Why the tool is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExtractReason {
    /// Anchor files change in this plan.
    AnchorsChange,
    /// An earlier change was not seen to be complete.
    Unfinished,
    /// The bundle does not exist or cannot be read.
    BundleMissing,
    /// The bundle lacks an anchor whose file is there.
    AnchorNotInBundle,
    /// The bundle still has an anchor whose file is gone.
    RemovedStillInBundle,
    /// OpenSSL's directory has no link to an anchor.
    LinkMissing,
    /// OpenSSL cannot load the bundle.
    BundleBroken,
    /// The bundle holds certificates more than once.
    BundleRepeats,
    /// The bundle holds a private key whose file is gone.
    KeyInBundle,
    /// The bundle lacks certificates that are not ours and whose sources are still there.
    ForeignMissing,
}

/// What is not done although it would be due.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Held {
    /// What.
    pub what: &'static str,
    /// Why.
    pub why: String,
    /// What a person should do.
    pub next: String,
}

/// An anchor that is to be trusted after the plan.
#[derive(Debug, Clone)]
pub struct Target {
    /// The certificate.
    pub anchor: Arc<Anchor>,
    /// Desired or in grace.
    pub state: AnchorState,
}

/// What to do, and what is then expected.
#[derive(Debug, Clone)]
pub struct Plan {
    /// In order.
    pub actions: Vec<Action>,
    /// What is held back.
    pub held: Vec<Held>,
    /// What must be in the bundle afterwards.
    pub targets: BTreeMap<Fingerprint, Target>,
    /// What must not be in it afterwards.
    pub retired: BTreeSet<Fingerprint>,
    /// The ledger to write before anything else is done.
    pub ledger: Ledger,
}

/// A kind of drift: what somebody else changed and this plan repairs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Drift {
    /// An anchor file of ours was deleted.
    AnchorDeleted,
    /// An anchor file of ours was changed.
    AnchorAltered,
    /// The extracted bundle was changed.
    Bundle,
    /// A link in OpenSSL's directory was removed.
    Link,
}

impl Drift {
    /// Every kind, for metrics.
    pub const ALL: [Self; 4] = [Self::AnchorDeleted, Self::AnchorAltered, Self::Bundle, Self::Link];

    /// The public name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AnchorDeleted => "anchor-deleted",
            Self::AnchorAltered => "anchor-altered",
            Self::Bundle => "bundle",
            Self::Link => "link",
        }
    }
}

impl Plan {
    /// What the plan repairs that somebody else changed. Nothing is drift while a change of ours is unfinished.
    pub fn drift(&self, before: &Ledger) -> BTreeSet<Drift> {
        let mut kinds = BTreeSet::new();
        if before.pending {
            return kinds;
        }
        // what this plan itself takes out is still in the bundle, and nobody has put it there
        let removes = self.actions.iter().any(|action| matches!(action, Action::RemoveAnchor { .. }));
        for action in &self.actions {
            match action {
                Action::WriteAnchor { why: WriteReason::Missing, .. } => kinds.extend([Drift::AnchorDeleted]),
                Action::WriteAnchor { why: WriteReason::Altered, .. } => kinds.extend([Drift::AnchorAltered]),
                Action::Extract { why, .. } => kinds.extend(why.iter().filter_map(|why| match why {
                    ExtractReason::RemovedStillInBundle if removes => None,
                    ExtractReason::BundleMissing
                    | ExtractReason::AnchorNotInBundle
                    | ExtractReason::RemovedStillInBundle
                    | ExtractReason::BundleBroken
                    | ExtractReason::BundleRepeats
                    | ExtractReason::ForeignMissing
                    | ExtractReason::KeyInBundle => Some(Drift::Bundle),
                    ExtractReason::LinkMissing => Some(Drift::Link),
                    ExtractReason::AnchorsChange | ExtractReason::Unfinished => None,
                })),
                _ => {}
            }
        }
        kinds
    }

    /// Whether the trust store is touched: neither the ledger nor the hooks are part of it.
    pub fn changes_store(&self) -> bool {
        self.actions.iter().any(|action| !matches!(action, Action::RecordLedger | Action::RunHooks { .. }))
    }

    /// Whether the host is touched, not only the ledger.
    pub fn changes_host(&self) -> bool {
        self.actions.iter().any(|action| !matches!(action, Action::RecordLedger))
    }
}

/// Decides. See the module's description.
pub fn plan(resolved: &Resolved, observed: &Observed, ledger: &Ledger, policy: &Policy, now: &Moment) -> Plan {
    let mut next = ledger.clone();
    next.version = crate::state::LEDGER_VERSION;
    next.family = Some(observed.store.family);
    next.removal_grace = Some(policy.removal_grace);
    forget_gone(&mut next, observed, now.wall);
    next.sources = source::remember(resolved, ledger, now.wall);
    let targets = decide_states(resolved, observed, policy, now, &mut next);
    act(observed, ledger, next, targets, RemoveReason::GraceOver)
}

/// The plan that removes all that is ours. What remains in the ledger is gone from the host; the file itself may go then.
pub fn plan_uninstall(observed: &Observed, ledger: &Ledger) -> Plan {
    let mut next = ledger.clone();
    next.version = crate::state::LEDGER_VERSION;
    next.sources.clear();
    adopt_own_files(observed, &mut next, |_| AnchorState::Retired);
    for entry in next.anchors.values_mut() {
        entry.state = AnchorState::Retired;
    }
    act(observed, ledger, next, BTreeMap::new(), RemoveReason::Uninstall)
}

/// The ledger after a cycle whose result was read back: what is settled, what is gone for good, what others keep alive.
/// `carried_out`: every action was done without an error. Whether it had its effect is judged here.
pub fn settle(plan: &Plan, after: &Observed, carried_out: bool, now: i64) -> Ledger {
    let mut ledger = plan.ledger.clone();
    let trusted = &after.effective.set;
    let had_extract = plan.actions.iter().any(|action| matches!(action, Action::Extract { .. }));
    let removed = |file: &str| {
        plan.actions.iter().any(|action| matches!(action, Action::RemoveAnchor { file: gone, .. } if gone == file))
    };
    let mut changed = false;
    let mut unfinished = !carried_out || !plan.held.is_empty();
    for fingerprint in plan.targets.keys() {
        unfinished |= !trusted.contains(fingerprint) || after.unlinked.contains(fingerprint);
        let entry = ledger.anchors.get_mut(fingerprint).filter(|entry| !entry.settled && trusted.contains(fingerprint));
        if let Some(entry) = entry {
            entry.settled = true;
            changed = true;
        }
    }
    let own: BTreeSet<Fingerprint> =
        after.ours.values().filter_map(|file| file.anchor.as_ref().map(|anchor| anchor.fingerprint)).collect();
    for fingerprint in
        plan.retired.iter().filter(|fingerprint| trusted.contains(fingerprint) && !foreign_copy(after, fingerprint))
    {
        let Some(entry) = ledger.anchors.get_mut(fingerprint) else { continue };
        // Our file was gone before the tool ran, and it is still trusted: the distribution ships it, or somebody's copy lies
        // where we do not look. That takes a second run to believe, and no third one.
        let second_run = had_extract && carried_out && !removed(&file_name(after.store, fingerprint));
        entry.shared |= second_run && !own.contains(fingerprint);
        unfinished |= !entry.shared;
    }
    for (fingerprint, entry) in &mut ledger.anchors {
        let gone = plan.retired.contains(fingerprint)
            && !own.contains(fingerprint)
            && after.effective.present
            && !trusted.contains(fingerprint);
        if gone && entry.gone.is_none() {
            entry.gone = Some(now);
            entry.settled = false;
            changed = true;
        }
    }
    if after.effective.present && carried_out && after.lost.is_empty() && !ledger.is_blank() {
        ledger.foreign = foreign_in_bundle(after, &ledger);
        ledger.repeated = if had_extract { Some(after.effective.repeated()) } else { ledger.repeated };
    }
    ledger.pending &= unfinished;
    if changed {
        // what was read back counts, also when something else is still wrong: it is not seen as a change a second time
        ledger.changed = Some(now);
    }
    ledger
}

/// Certificates in the bundle that are not ours.
fn foreign_in_bundle(observed: &Observed, ledger: &Ledger) -> BTreeSet<Fingerprint> {
    let ours = |fingerprint: &&Fingerprint| ledger.anchors.get(fingerprint).is_some_and(|entry| !entry.shared);
    observed.effective.set.iter().filter(|fingerprint| !ours(fingerprint)).copied().collect()
}

/// Removed anchors are forgotten when they have stayed away long enough, and found again when they are back. What others
/// add to the bundle and take from it, with its source, is followed.
fn forget_gone(ledger: &mut Ledger, observed: &Observed, now: i64) {
    ledger.anchors.retain(|fingerprint, entry| {
        let back = observed.effective.set.contains(fingerprint);
        let long_ago = entry.gone.is_some_and(|gone| now.abs_diff(gone) >= REMEMBER_GONE);
        back || !long_ago
    });
    if observed.effective.present && observed.lost.is_empty() && !ledger.is_blank() {
        ledger.foreign = foreign_in_bundle(observed, ledger);
    }
}

/// Brings the ledger's anchors to their new states and returns those that are to be trusted.
fn decide_states(
    resolved: &Resolved,
    observed: &Observed,
    policy: &Policy,
    now: &Moment,
    next: &mut Ledger,
) -> BTreeMap<Fingerprint, Target> {
    let latest = next.updated;
    let denied = |fingerprint: &Fingerprint| policy.denied.contains(fingerprint);
    let state = |fingerprint: &Fingerprint| if denied(fingerprint) { AnchorState::Denied } else { AnchorState::Grace };
    adopt_own_files(observed, next, state);
    // a source that cannot be read, and whose last set is not known, may want any of them: no grace begins
    let unknown = resolved.sources.iter().any(|source| source.status == SourceStatus::Failed);
    let mut targets = BTreeMap::new();
    for (fingerprint, wanted) in &resolved.desired {
        let entry = next.anchors.entry(*fingerprint).or_insert_with(|| LedgerAnchor {
            shared: observed.effective.set.contains(fingerprint),
            ..LedgerAnchor::new(&wanted.anchor, AnchorState::Desired)
        });
        if matches!(entry.state, AnchorState::Retired | AnchorState::Denied) {
            entry.settled = false; // it comes back: from now on it is new
        }
        entry.state = AnchorState::Desired;
        entry.left = None;
        entry.gone = None;
        targets.insert(*fingerprint, Target { anchor: wanted.anchor.clone(), state: AnchorState::Desired });
    }
    let mut lost = Vec::new();
    for (fingerprint, entry) in &mut next.anchors {
        if targets.contains_key(fingerprint) {
            continue;
        }
        entry.state = match entry.state {
            _ if denied(fingerprint) => AnchorState::Denied,
            AnchorState::Retired => AnchorState::Retired,
            // no longer denied, and nobody wants it
            AnchorState::Denied => AnchorState::Retired,
            AnchorState::Desired | AnchorState::Grace => {
                if !unknown {
                    // a clock that is behind what was written down would make the grace seem to have begun long ago
                    entry.left.get_or_insert_with(|| Moment { wall: now.wall.max(latest), ..now.clone() });
                }
                let passed = entry.left.as_ref().map(|left| now.elapsed_since(left, latest));
                if passed.is_some_and(|passed| passed >= policy.removal_grace) {
                    AnchorState::Retired
                } else {
                    AnchorState::Grace
                }
            }
        };
        if entry.state == AnchorState::Grace {
            let own = observed.ours.get(&file_name(observed.store, fingerprint)).and_then(|file| file.anchor.clone());
            match own.filter(|own| own.fingerprint == *fingerprint).or_else(|| entry.anchor().map(Arc::new)) {
                Some(anchor) => {
                    targets.insert(*fingerprint, Target { anchor, state: AnchorState::Grace });
                }
                // neither the host nor the ledger has its certificate: nothing is left to keep
                None => lost.push(*fingerprint),
            }
        }
    }
    for fingerprint in lost {
        next.anchors.remove(&fingerprint);
    }
    targets
}

/// Own files that the ledger does not know (it was lost, or another installation left them) enter it. A file that holds
/// another certificate than its name says was never written by us, and gets no grace.
fn adopt_own_files(observed: &Observed, next: &mut Ledger, state: impl Fn(&Fingerprint) -> AnchorState) {
    for (file, own) in &observed.ours {
        let Some(anchor) = own.anchor.as_ref().filter(|anchor| *file == file_name(observed.store, &anchor.fingerprint))
        else {
            continue;
        };
        next.anchors
            .entry(anchor.fingerprint)
            .or_insert_with(|| LedgerAnchor { settled: true, ..LedgerAnchor::new(anchor, state(&anchor.fingerprint)) });
    }
}

/// The actions that bring the host from what is observed to the targets.
fn act(
    observed: &Observed,
    ledger: &Ledger,
    mut next: Ledger,
    targets: BTreeMap<Fingerprint, Target>,
    over: RemoveReason,
) -> Plan {
    let store = observed.store;
    let mut actions = Vec::new();
    let retired: BTreeSet<Fingerprint> =
        next.anchors.keys().filter(|key| !targets.contains_key(key)).copied().collect();

    if !observed.anchors_dir_exists && !targets.is_empty() {
        actions.push(Action::CreateDirectory { path: store.anchors_dir.to_owned() });
        next.created.insert(store.anchors_dir.to_owned());
    }
    for path in &observed.leftovers {
        actions.push(Action::RemoveTemporary { path: path.clone(), why: "left by a run of ours that was killed" });
    }
    if let Some(path) = observed.stale_temp.as_ref().filter(|_| !targets.is_empty() || !ledger.is_blank()) {
        let why = "left by a run of the tool that was killed; the next run would append to it";
        actions.push(Action::RemoveTemporary { path: path.clone(), why });
    }

    let mut changes = false;
    let mut by_file: BTreeMap<String, Fingerprint> = BTreeMap::new();
    for fingerprint in targets.keys() {
        let file = file_name(store, fingerprint);
        let settled = next.anchors.get(fingerprint).is_some_and(|entry| entry.settled);
        let why = match observed.ours.get(&file) {
            Some(own) if own.intact && own.anchor.as_ref().is_some_and(|a| a.fingerprint == *fingerprint) => None,
            Some(_) => Some(WriteReason::Altered),
            None if settled => Some(WriteReason::Missing),
            None => Some(WriteReason::New),
        };
        if let Some(why) = why {
            actions.push(Action::WriteAnchor { sha256: *fingerprint, file: file.clone(), why });
            next.hooks.insert(*fingerprint, true);
            changes = true;
        }
        by_file.insert(file, *fingerprint);
    }
    for (file, own) in &observed.ours {
        if by_file.contains_key(file) {
            continue;
        }
        let fingerprint = own.anchor.as_ref().map(|anchor| anchor.fingerprint);
        let named = fingerprint.filter(|fingerprint| *file == file_name(store, fingerprint));
        let why = match named.and_then(|fingerprint| next.anchors.get(&fingerprint)).map(|entry| entry.state) {
            Some(AnchorState::Denied) => RemoveReason::Denied,
            Some(_) => over,
            None => RemoveReason::Damaged,
        };
        actions.push(Action::RemoveAnchor { file: file.clone(), why });
        if let Some(fingerprint) = fingerprint.filter(|fingerprint| !targets.contains_key(fingerprint)) {
            next.hooks.insert(fingerprint, false);
        }
        changes = true;
    }

    let concerned = !targets.is_empty() || !ledger.is_blank() || changes;
    let why =
        if concerned { extract_reasons(observed, ledger, &next, &targets, &retired, changes) } else { BTreeSet::new() };
    let mut held = Vec::new();
    if !why.is_empty() {
        held = hazards(observed);
        next.pending = true;
        if held.is_empty() {
            let only_additions = why.iter().all(|why| match why {
                // another content under the same name keeps its old link in a plain run (facts 0.3)
                ExtractReason::AnchorsChange => !actions.iter().any(|a| {
                    matches!(a, Action::RemoveAnchor { .. } | Action::WriteAnchor { why: WriteReason::Altered, .. })
                }),
                ExtractReason::AnchorNotInBundle | ExtractReason::BundleMissing => true,
                _ => false,
            });
            let mode = if only_additions { ExtractMode::Plain } else { ExtractMode::Fresh };
            actions.push(Action::Extract { mode, why });
        }
    }
    if !matches!(store.tool, Tool::Staged { .. }) {
        next.hooks.clear(); // the tool of this store runs its hooks itself
    } else if !next.hooks.is_empty() && held.is_empty() {
        actions.push(Action::RunHooks { changes: next.hooks.len() });
    }
    let both_blank = next.is_blank() && ledger.is_blank();
    if !next.same_as(ledger) && !both_blank {
        actions.insert(0, Action::RecordLedger);
    }
    Plan { actions, held, targets, retired, ledger: next }
}

fn extract_reasons(
    observed: &Observed,
    ledger: &Ledger,
    next: &Ledger,
    targets: &BTreeMap<Fingerprint, Target>,
    retired: &BTreeSet<Fingerprint>,
    changes: bool,
) -> BTreeSet<ExtractReason> {
    let mut why = BTreeSet::new();
    let mut add = |holds: bool, reason| {
        if holds {
            why.insert(reason);
        }
    };
    let effective = &observed.effective;
    if matches!(observed.store.tool, Tool::None) {
        return why; // nothing to run: the files are what consumers read
    }
    add(changes, ExtractReason::AnchorsChange);
    add(ledger.pending, ExtractReason::Unfinished);
    add(!effective.present, ExtractReason::BundleMissing);
    if effective.present {
        let files: BTreeSet<Fingerprint> =
            observed.ours.values().filter_map(|own| own.anchor.as_ref().map(|a| a.fingerprint)).collect();
        let lacks = |fingerprint: &&Fingerprint| !effective.set.contains(fingerprint) && files.contains(fingerprint);
        add(targets.keys().any(|fingerprint| lacks(&fingerprint)), ExtractReason::AnchorNotInBundle);
        let lingers = |fingerprint: &Fingerprint| {
            effective.set.contains(fingerprint)
                && !next.anchors.get(fingerprint).is_some_and(|entry| entry.shared)
                && !foreign_copy(observed, fingerprint)
        };
        add(retired.iter().any(lingers), ExtractReason::RemovedStillInBundle);
        add(observed.unlinked.iter().any(|fingerprint| targets.contains_key(fingerprint)), ExtractReason::LinkMissing);
        let broken_by_others = observed.foreign.iter().any(|file| matches!(file.hazard, Some(Hazard::Broken(_))));
        add(!effective.faults.is_empty() && !broken_by_others, ExtractReason::BundleBroken);
        let doubled = effective.repeated() > ledger.repeated.unwrap_or(0).max(foreign_repeats(observed));
        add(!observed.lost.is_empty(), ExtractReason::ForeignMissing);
        add(doubled, ExtractReason::BundleRepeats);
        let key_by_others = observed.foreign.iter().any(|file| matches!(file.hazard, Some(Hazard::PrivateKey(_))));
        add(effective.private_key && !key_by_others, ExtractReason::KeyInBundle);
    }
    why
}

/// Somebody else's file in the anchor directory holds it too.
pub(crate) fn foreign_copy(observed: &Observed, fingerprint: &Fingerprint) -> bool {
    observed
        .foreign
        .iter()
        .any(|file| file.taken && file.anchors.iter().any(|anchor| anchor.fingerprint == *fingerprint))
}

/// How many repetitions in the bundle come from several files that hold one certificate, ours included (facts A.3).
pub fn foreign_repeats(observed: &Observed) -> usize {
    observed.foreign.iter().filter(|file| file.taken).map(|file| file.anchors.len()).sum::<usize>()
        + observed.ours.len()
}

/// Foreign files that a run of the tool would turn into damage that is not there yet. Damage that is already done is no
/// reason to hold back.
fn hazards(observed: &Observed) -> Vec<Held> {
    if !observed.store.pastes_files {
        return Vec::new();
    }
    let effective = &observed.effective;
    let tool = observed.store.tool.programs().first().copied().unwrap_or("the tool");
    observed
        .foreign
        .iter()
        .filter_map(|file| match &file.hazard {
            Some(Hazard::PrivateKey(line)) if !effective.private_key => Some(Held {
                what: "extract",
                why: format!(
                    "{}:{line} holds a private key, which {tool} would copy into the world-readable {}",
                    file.path, observed.store.bundle
                ),
                next: format!("take the key out of {}, or move the file away", file.path),
            }),
            Some(Hazard::Broken(fault)) if effective.present && effective.faults.is_empty() => Some(Held {
                what: "extract",
                why: format!(
                    "{}:{} is broken ({}), and {tool} would copy it into {}, which OpenSSL could then not load at all",
                    file.path, fault.line, fault.detail, observed.store.bundle
                ),
                next: format!("mend {}, or move it away", file.path),
            }),
            _ => None,
        })
        .collect()
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RecordLedger => write!(f, "record   the ledger"),
            Self::CreateDirectory { path } => write!(f, "create   {path}/"),
            Self::RemoveTemporary { path, why } => write!(f, "remove   {path} ({why})"),
            Self::WriteAnchor { file, why, .. } => {
                let why = match why {
                    WriteReason::New => "new",
                    WriteReason::Missing => "it was deleted",
                    WriteReason::Altered => "it was altered",
                };
                write!(f, "write    {file} ({why})")
            }
            Self::RemoveAnchor { file, why } => {
                let why = match why {
                    RemoveReason::GraceOver => "its grace is over",
                    RemoveReason::Denied => "denied by policy",
                    RemoveReason::Damaged => "it does not hold the certificate that its name says",
                    RemoveReason::Uninstall => "uninstall",
                };
                write!(f, "remove   {file} ({why})")
            }
            Self::Extract { mode, why } => {
                let why: Vec<String> = why.iter().map(ToString::to_string).collect();
                let mode = if *mode == ExtractMode::Fresh { ", thoroughly" } else { "" };
                write!(f, "extract  ({}{mode})", why.join("; "))
            }
            Self::RunHooks { changes } => write!(f, "hooks    tell the store's hooks of {changes} change(s)"),
        }
    }
}

impl fmt::Display for ExtractReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AnchorsChange => "anchor files change",
            Self::Unfinished => "an earlier change was not seen to be complete",
            Self::BundleMissing => "there is no bundle",
            Self::AnchorNotInBundle => "the bundle lacks an anchor",
            Self::RemovedStillInBundle => "the bundle still has a removed anchor",
            Self::LinkMissing => "a hash link is missing",
            Self::BundleBroken => "OpenSSL cannot load the bundle",
            Self::BundleRepeats => "the bundle repeats certificates",
            Self::KeyInBundle => "the bundle holds a private key",
            Self::ForeignMissing => "the bundle has lost certificates that are not ours",
        })
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
