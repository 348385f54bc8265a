//! Taking everything of ours off a host.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

use nodetrust_core::{
    action::StoreAction,
    certificate::{bundle, fingerprint::Fingerprint},
    ledger::Ledger,
    observed::Observed,
    plan::Plan,
    planner::{Orphans, orphans, plan_uninstall, uninstall_problem},
    problem::{Problem, ProblemKind},
    report::Report,
    runtime::kinds::{RestartMeans, TABLE},
    source::Content,
    store::Tool,
    verify::verify,
};

use super::{
    ROUNDS, Reconciler,
    ledger_writer::{CarriedOut, LedgerWriter},
    lock_problem,
    observe::{Earlier, Observation},
};
use crate::{
    config::Settings,
    host::{exec::HostExec, ledger_file, lock::HostLock, obstacle::write_problem, own_paths},
    reconcile::execute::{Applied, apply},
    runtime,
    store::{
        bundle::bundle_bytes,
        distribution::with_a_source,
        hash_links,
        other_runs::await_other_runs,
        read::{ObserveError, at},
    },
};

/// Fingerprints that one problem names; the rest is counted.
const SHOWN: usize = 3;

/// A removal that is under way.
struct Removal<'a> {
    /// The configuration without sources.
    empty: &'a Settings,
    lock: &'a HostLock,
    /// What the sources hold.
    named: BTreeSet<Fingerprint>,
    problems: Vec<Problem>,
    /// Files that only a lost ledger would name.
    certs_files: BTreeSet<String>,
}

impl Reconciler {
    /// Removes all that is ours, and proves it.
    pub fn uninstall(&mut self, settings: &Settings) -> Report {
        let mut empty = Settings { sources: Vec::new(), ..settings.clone() };
        empty.policy.adopt.clear(); // what is put back stays
        empty.policy.distrust.clear();
        let lock = match HostLock::take(&self.observer.root, runtime::longest_cycle(settings.extract_timeout)) {
            Ok(lock) => lock,
            Err(error) => {
                let mut report = self.inspect(&empty);
                report.add_problem(lock_problem(&error));
                return report;
            }
        };
        self.observer.store.set_asks(Some(settings.extract_timeout));
        let named = self.named(settings);
        let mut removal =
            Removal { empty: &empty, lock: &lock, named, problems: Vec::new(), certs_files: BTreeSet::new() };
        let mut seen = self.observer.observe(&empty, &[], &Earlier::default());
        removal.problems.append(&mut seen.problems);
        for _ in 0..ROUNDS {
            match self.uninstall_round(&mut removal, &seen) {
                Some(next) => seen = next,
                None => break,
            }
        }
        let Removal { mut problems, certs_files, .. } = removal;
        if !problems.iter().any(|problem| problem.kind.is_failure())
            && let Err(error) = self.remove_own_directories(settings, certs_files)
        {
            problems.push(write_problem(own_paths::DIR, &error));
        }
        self.observer.store.set_asks(None);
        drop(lock); // looking waits for it
        let mut report = self.inspect(&empty);
        for problem in problems {
            report.add_problem(problem);
        }
        report
    }

    /// Takes off what was seen of ours. Returns what is seen then; None if nothing could be done, or nothing is left to do.
    fn uninstall_round(&mut self, removal: &mut Removal<'_>, seen: &Observation) -> Option<Observation> {
        let Some(observed) = &seen.observed else {
            removal.problems.extend(without_store(seen));
            return None;
        };
        let known = match self.with_orphans(removal, observed, &seen.ledger) {
            Ok((known, unproven)) => {
                removal.problems.extend(unproven);
                known
            }
            Err(error) => {
                removal.problems.push(error.problem());
                return None;
            }
        };
        let plan = plan_uninstall(observed, &known);
        removal.certs_files.extend(plan.ledger.certs_files.iter().cloned());
        if let Some(problem) = uninstall_problem(&plan, observed, &removal.empty.runtime) {
            removal.problems.push(problem);
            return None;
        }
        if !plan.changes_host() {
            removal.problems.extend(self.left_behind(&plan, observed));
            return None;
        }
        removal.problems.clear();
        let limit = removal.empty.extract_timeout;
        let exec = HostExec { root: &self.observer.root, lock: Some(removal.lock), limit };
        let applied = take_off(&plan, observed, &exec, seen.now.wall);
        await_other_runs(&self.observer.root, observed.store);
        let earlier = Earlier { services: Some(&observed.services), foreign: seen.ledger.known_foreign() };
        let mut next = self.observer.observe(removal.empty, &[], &earlier);
        self.settle_removal(removal, &plan, applied, &mut next, seen.now.wall);
        removal.problems.append(&mut next.problems);
        Some(next)
    }

    /// Judges what has come about, and writes it down.
    fn settle_removal(
        &self,
        removal: &mut Removal<'_>,
        plan: &Plan,
        applied: Applied,
        seen: &mut Observation,
        wall: i64,
    ) {
        let failed = applied.problems.iter().any(|problem| problem.kind.is_failure());
        removal.problems.extend(applied.problems);
        let Some(after) = &seen.observed else { return };
        removal.problems.extend(verify(plan, after));
        let carried_out = CarriedOut { without_error: !failed, hooks_done: applied.hooks_done, published: None };
        match LedgerWriter::settle(&self.observer.root, plan, after, carried_out, wall) {
            Ok(Some(ledger)) => seen.follow(ledger),
            Ok(None) => seen.forget_unknown_foreign(),
            // where nothing is left it goes in a moment, and need not be up to date
            Err(error) if removal.problems.iter().any(|problem| problem.kind.is_failure()) => {
                removal.problems.push(write_problem(own_paths::LEDGER, &error));
            }
            Err(_) => {}
        }
    }

    /// What is wrong though nothing is left to do.
    fn left_behind(&self, plan: &Plan, observed: &Observed) -> Vec<Problem> {
        let mut problems = Vec::new();
        // A run that would do harm is not even planned, in a second call as little as in the first: what is left stays ours.
        let left = verify(plan, observed);
        if left.iter().any(|problem| problem.kind == ProblemKind::StillTrusted) {
            problems.extend(left.into_iter().filter(|problem| problem.kind.is_failure()));
        }
        // links whose files somebody else has removed: no run of the tool follows that would take them out
        if let Err(error) = hash_links::retire_dangling(&self.observer.root, observed.store) {
            problems.push(write_problem(observed.store.hash_dir.unwrap_or_default(), &error));
        }
        problems
    }

    /// What the sources of the configuration hold, as far as they can be read.
    fn named(&mut self, settings: &Settings) -> BTreeSet<Fingerprint> {
        let mut named = BTreeSet::new();
        for snapshot in self.reader.read(settings) {
            if let Content::Files(parts) = snapshot.content {
                named.extend(parts.iter().flat_map(|part| &part.anchors).map(|(_, anchor)| anchor.fingerprint));
            }
        }
        named
    }

    /// The ledger; where there is none, one that knows what is ours in the bundle all the same, and a problem if that cannot be told.
    fn with_orphans(
        &self,
        removal: &Removal<'_>,
        observed: &Observed,
        ledger: &Ledger,
    ) -> Result<(Ledger, Option<Problem>), ObserveError> {
        let mut known = ledger.clone();
        // where the directory itself is what consumers read, what has no file is not trusted
        if !ledger.is_blank() || matches!(observed.store.tool, Tool::None) {
            return Ok((known, None));
        }
        let own = observed.ours.values().filter_map(|file| Some(file.anchor.as_ref()?.fingerprint));
        let own: BTreeSet<Fingerprint> = own.collect();
        let others = &observed.effective.set - &own;
        let sourced =
            with_a_source(&self.observer.root, observed.store, others.clone(), Some(removal.empty.extract_timeout))?;
        let linked = hash_links::dangling(&self.observer.root, observed.store)?;
        let Orphans { ours, unproven } = orphans(&(&others - &sourced), &linked, &removal.named);
        if !ours.is_empty() {
            let bundle = observed.store.bundle;
            let bytes = bundle_bytes(&self.observer.root, observed.store).map_err(at(bundle))?;
            let all = bundle::certificates(&bytes.unwrap_or_default());
            let by_print: BTreeMap<Fingerprint, &Vec<u8>> =
                all.iter().map(|der| (Fingerprint::of_der(der), der)).collect();
            for der in ours.iter().filter_map(|print| by_print.get(print)) {
                known.adopt_for_removal(der);
            }
        }
        let problem = (!unproven.is_empty()).then(|| unproven_problem(observed, &unproven));
        Ok((known, problem))
    }

    fn remove_own_directories(&self, settings: &Settings, mut certs_files: BTreeSet<String>) -> std::io::Result<()> {
        let ledger = match ledger_file::read(&self.observer.root)? {
            ledger_file::LedgerRead::Good(ledger) => ledger,
            ledger_file::LedgerRead::Damaged(_) => Arc::default(), // told; what is known without it goes all the same
        };
        let mut created = ledger.created.clone();
        // some that the ledger has lost too
        let in_place = crate::pod_bundle::in_place(&self.observer.root)?;
        for path in ledger.exports.iter().chain(settings.export.values()).chain(&in_place) {
            crate::pod_bundle::remove(&self.observer.root, path)?;
            let dirs = Path::new(path).ancestors().skip(1);
            let own = dirs.take_while(|dir| dir.starts_with(own_paths::DIR) && *dir != Path::new(own_paths::DIR));
            created.extend(own.map(|dir| dir.display().to_string()));
        }
        certs_files.extend(ledger.certs_files.iter().cloned());
        for path in &certs_files {
            runtime::remove_file(&self.observer.root, path)?;
        }
        for row in &TABLE {
            let RestartMeans::DropIn(dir) = row.restart else { continue };
            for own in own_paths::drop_in_names(dir) {
                self.observer.root.remove_file(own.path)?; // of a restart that was killed
            }
        }
        // the deepest first
        for dir in created.iter().rev() {
            match self.observer.root.remove_dir(dir) {
                Err(error) if error.kind() == std::io::ErrorKind::DirectoryNotEmpty => {}
                result => result?,
            }
        }
        ledger_file::remove(&self.observer.root)?;
        self.observer.root.remove_file(own_paths::LOCK)
    }
}

/// Carries out the plan. What the ledger says already suffices, should this be interrupted: where it cannot be written, as on a full disk,
/// what is ours goes all the same, and takes the ledger along.
fn take_off(plan: &Plan, observed: &Observed, exec: &HostExec<'_>, wall: i64) -> Applied {
    let applied = apply(plan, observed, exec, wall);
    let first = plan.actions.first();
    if !applied.done.is_empty() || first != Some(&StoreAction::RecordLedger) {
        return applied;
    }
    let mut rest = plan.clone();
    rest.actions.remove(0);
    let Applied { mut problems, .. } = applied;
    let mut applied = apply(&rest, observed, exec, wall);
    if applied.problems.iter().any(|problem| problem.kind.is_failure()) {
        // both are told: the first may well be the cause
        problems.append(&mut applied.problems);
        applied.problems = problems;
    }
    applied
}

fn without_store(seen: &Observation) -> Option<Problem> {
    let unsupported = seen.detection.family.as_ref().err()?;
    let text = format!("what is ours cannot be found without the trust store: {}", unsupported.reason);
    let kind = match unsupported.is_unknown {
        true => ProblemKind::Observe,
        false => ProblemKind::UnsupportedStore,
    };
    Some(Problem::new(kind, text, unsupported.advice.clone()))
}

fn unproven_problem(observed: &Observed, unproven: &BTreeSet<Fingerprint>) -> Problem {
    let store = observed.store;
    let mut shown: Vec<String> = unproven.iter().take(SHOWN).map(Fingerprint::fp16).collect();
    if unproven.len() > SHOWN {
        shown.push(format!("{} more", unproven.len() - SHOWN));
    }
    let text = format!(
        "{} is gone, and certificates of {} lie in no file that is there ({}): whether nodetrust has put them there cannot be proven",
        own_paths::LEDGER,
        store.bundle,
        shown.join(", ")
    );
    let program = store.tool.programs().first().copied().unwrap_or("the store's tool");
    let next = format!(
        "run {program} on the host, which makes the bundle from the files that are there; or name the configuration whose sources the certificates came from (--config)"
    );
    Problem::new(ProblemKind::StillTrusted, text, next)
}
