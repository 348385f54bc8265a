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
    planner::{Orphans, orphans, plan_uninstall, settle},
    problem::{Problem, ProblemKind},
    report::Report,
    source::Content,
    store::Tool,
    verify::verify,
};

use super::{Look, ROUNDS, Reconciler, lock_problem, patience};
use crate::{
    config::Settings,
    host::{exec::HostExec, ledger_file, lock::HostLock, obstacle::write_problem, own},
    reconcile::execute::{Applied, apply},
    store::{
        bundle::bundle_bytes,
        distribution::with_a_source,
        hash_links,
        observe::observe,
        other_runs::await_other_runs,
        read::{ObserveError, at},
    },
};

/// Fingerprints that one problem names; the rest is counted.
const SHOWN: usize = 3;

impl Reconciler {
    /// Removes all that is ours, and proves it.
    pub fn uninstall(&mut self, settings: &Settings) -> Report {
        let empty = Settings { sources: Vec::new(), ..settings.clone() };
        let lock = match HostLock::take(&self.root, patience(settings)) {
            Ok(lock) => lock,
            Err(error) => {
                let mut report = self.inspect(&empty);
                report.add_problem(lock_problem(&error));
                return report;
            }
        };
        self.cache.set_asks(Some(settings.extract_timeout));
        let named = self.named(settings);
        let mut problems = Vec::new();
        // files that only a lost ledger would name
        let mut certs_files = BTreeSet::new();
        for _ in 0..ROUNDS {
            let mut look = self.look(&empty, &[], None);
            problems.append(&mut look.problems);
            let Some(observed) = &look.observed else {
                problems.extend(without_store(&look));
                break;
            };
            let known = match self.with_orphans(settings, observed, &look.ledger, &named) {
                Ok((known, unproven)) => {
                    problems.extend(unproven);
                    known
                }
                Err(error) => {
                    problems.push(error.problem());
                    break;
                }
            };
            let plan = plan_uninstall(observed, &known);
            certs_files.extend(plan.ledger.certs_files.iter().cloned());
            if !plan.changes_host() {
                // A run that would do harm is not even planned, in a second call as little as in the first: what is left stays ours.
                let left = verify(&plan, observed);
                if left.iter().any(|problem| problem.kind == ProblemKind::StillTrusted) {
                    problems.extend(left.into_iter().filter(|problem| problem.kind.is_failure()));
                }
                // links whose files somebody else has removed: no run of the tool follows that would take them out
                if let Err(error) = hash_links::retire_dangling(&self.root, observed.store) {
                    problems.push(write_problem(observed.store.hash_dir.unwrap_or_default(), &error));
                }
                break;
            }
            problems.clear();
            let exec = HostExec { root: &self.root, lock: Some(&lock), limit: settings.extract_timeout };
            let applied = take_off(&plan, observed, &exec, look.now.wall);
            let failed = applied.problems.iter().any(|problem| problem.kind.is_failure());
            problems.extend(applied.problems);
            await_other_runs(&self.root, observed.store);
            match observe(&self.root, observed.store, &look.ledger.known_foreign(), &mut self.cache) {
                Ok(after) => {
                    problems.extend(verify(&plan, &after));
                    let mut ledger = settle(&plan, &after, !failed, look.now.wall);
                    if applied.hooks_done {
                        ledger.hooks.clear();
                    }
                    if let Err(error) = self.write_ledger(&ledger, look.now.wall)
                        && problems.iter().any(|problem| problem.kind.is_failure())
                    {
                        // where nothing is left it goes in a moment, and need not be up to date
                        problems.push(write_problem(own::LEDGER, &error));
                    }
                }
                Err(error) => problems.push(error.problem()),
            }
        }
        if !problems.iter().any(|problem| problem.kind.is_failure())
            && let Err(error) = self.remove_own_directories(settings, certs_files)
        {
            problems.push(write_problem(own::DIR, &error));
        }
        self.cache.set_asks(None);
        drop(lock); // looking waits for it
        let mut report = self.inspect(&empty);
        for problem in problems {
            report.add_problem(problem);
        }
        report
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
        settings: &Settings,
        observed: &Observed,
        ledger: &Ledger,
        named: &BTreeSet<Fingerprint>,
    ) -> Result<(Ledger, Option<Problem>), ObserveError> {
        let mut known = ledger.clone();
        // where the directory itself is what consumers read, what has no file is not trusted
        if !ledger.is_blank() || matches!(observed.store.tool, Tool::None) {
            return Ok((known, None));
        }
        let own = observed.ours.values().filter_map(|file| Some(file.anchor.as_ref()?.fingerprint));
        let own: BTreeSet<Fingerprint> = own.collect();
        let others = &observed.effective.set - &own;
        let sourced = with_a_source(&self.root, observed.store, others.clone(), Some(settings.extract_timeout))?;
        let linked = hash_links::dangling(&self.root, observed.store)?;
        let Orphans { ours, unproven } = orphans(&(&others - &sourced), &linked, named);
        if !ours.is_empty() {
            let bundle = observed.store.bundle;
            let bytes = bundle_bytes(&self.root, observed.store).map_err(at(bundle))?;
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
        let ledger = match ledger_file::read(&self.root)? {
            ledger_file::LedgerRead::Good(ledger) => ledger,
            ledger_file::LedgerRead::Damaged(_) => Arc::default(), // told; what is known without it goes all the same
        };
        let mut created = ledger.created.clone();
        // some that the ledger has lost too
        let in_place = crate::pod_bundle::in_place(&self.root)?;
        for path in ledger.exports.iter().chain(&settings.export).chain(&in_place) {
            crate::pod_bundle::remove(&self.root, path)?;
            let dirs = Path::new(path).ancestors().skip(1);
            let own = dirs.take_while(|dir| dir.starts_with(own::DIR) && *dir != Path::new(own::DIR));
            created.extend(own.map(|dir| dir.display().to_string()));
        }
        certs_files.extend(ledger.certs_files.iter().cloned());
        for path in &certs_files {
            crate::runtime::remove_file(&self.root, path)?;
        }
        // the deepest first
        for dir in created.iter().rev() {
            match self.root.remove_dir(dir) {
                Err(error) if error.kind() == std::io::ErrorKind::DirectoryNotEmpty => {}
                result => result?,
            }
        }
        ledger_file::remove(&self.root)?;
        self.root.remove_file(own::LOCK)
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

fn without_store(look: &Look) -> Option<Problem> {
    let unsupported = look.detection.family.as_ref().err()?;
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
        own::LEDGER,
        store.bundle,
        shown.join(", ")
    );
    let program = store.tool.programs().first().copied().unwrap_or("the store's tool");
    let next = format!(
        "run {program} on the host, which makes the bundle from the files that are there; or name the configuration whose sources the certificates came from (--config)"
    );
    Problem::new(ProblemKind::StillTrusted, text, next)
}
