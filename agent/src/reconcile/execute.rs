//! Doing what a plan says, in its order, until something fails.
//!
//! No decision is made here. What could not be done is a problem for the report; what was done is looked at afterwards.

use std::{
    cell::Cell,
    collections::BTreeSet,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use nodetrust_core::{
    action::StoreAction,
    certificate::{bundle, fingerprint::Fingerprint},
    observed::Observed,
    plan::Plan,
    planner::{foreign_repeats, plan_retire},
    problem::{Problem, ProblemKind},
    runtime::{services::ServiceState, staleness::failure},
    store::{ExtractMode, Family, Tool, anchor_file::PREFIX, awaited_bundle::AwaitedBundle, distrust::DistrustedRoot},
    time::Uptime,
    verify::verify,
};

use super::ledger_writer::LedgerWriter;
use crate::{
    error::chain,
    host::{self, exec::HostExec, file::FileKind, obstacle::write_problem, own_paths},
    runtime::{Ordered, restart_by},
    store::{
        adoption,
        bundle::bundle_bytes,
        distrust,
        extract::extract,
        hash_links,
        judge::BundleJudge,
        observe::{StoreCache, observe},
        other_runs::await_other_runs,
        settings::{self, Committed, PkiChanges},
    },
};

/// Pause between two looks at a bundle that the system makes.
const PAUSE: Duration = Duration::from_millis(20);

/// What became of a plan.
#[derive(Debug, Default)]
pub struct Applied {
    /// What was done.
    pub done: Vec<StoreAction>,
    /// What went wrong.
    pub problems: Vec<Problem>,
    /// How long the store's tool ran.
    pub extract: Duration,
    /// The hooks have been told everything.
    pub hooks_done: bool,
    /// Retrying immediately cannot succeed.
    pub retry_is_pointless: bool,
    /// The runtime's unit, if the change has restarted it, and why it does not work since, if it does not.
    pub restarted: Option<(String, Option<String>)>,
    /// What was in the bundle when a change by the store's API had come about, and when that was seen.
    pub published: Option<(Uptime, BTreeSet<Fingerprint>)>,
    /// Settings to change with the next run of the store's API.
    settings: PkiChanges,
}

/// Carries out a plan.
pub fn apply(plan: &Plan, observed: &Observed, exec: &HostExec<'_>, wall: i64) -> Applied {
    let mut applied = Applied::default();
    for action in &plan.actions {
        match execute(action, plan, observed, exec, wall, &mut applied) {
            Ok(()) => applied.done.push(action.clone()),
            Err(problem) => {
                // Hooks come last, and nothing rests on the absence of a temporary file or of somebody's file, or on the old store.
                let go_on = problem.kind == ProblemKind::Hook
                    || problem.kind == ProblemKind::NotAdopted
                    || matches!(action, StoreAction::RemoveTemporary { .. } | StoreAction::RetireStore { .. });
                applied.problems.push(problem);
                if !go_on {
                    break; // what follows rests on it: nothing is removed when nothing could be added
                }
            }
        }
    }
    applied
}

/// Carries out one action.
fn execute(
    action: &StoreAction,
    plan: &Plan,
    observed: &Observed,
    exec: &HostExec<'_>,
    wall: i64,
    applied: &mut Applied,
) -> Result<(), Problem> {
    let (root, store) = (exec.root, observed.store);
    let failed = |path: &str| {
        let path = path.to_owned();
        move |error: std::io::Error| write_problem(&path, &error)
    };
    match action {
        StoreAction::RecordLedger => LedgerWriter::begin_change(root, plan, wall).map_err(failed(own_paths::LEDGER)),
        StoreAction::CreateDirectory { path } => root.create_dir_all(path).map_err(failed(path)),
        StoreAction::RemoveTemporary { path, .. } => {
            let removed = if path == own_paths::TEMP_DIR { root.remove_tree(path) } else { root.remove_file(path) };
            removed.map_err(failed(path))
        }
        StoreAction::WriteAnchor { sha256, file, .. } => {
            let path = store.anchor_place(file);
            // the plan makes this action for targets only
            let Some(target) = plan.targets.get(sha256) else { return Ok(()) };
            if store.is_behind_api() {
                applied.settings.insert(file.clone(), Some(Arc::clone(&target.anchor)));
                return Ok(());
            }
            let temp = own_paths::anchor_temp(sha256);
            root.write_atomic(&path, store.temp_dir, &temp, 0o644, target.anchor.pem().as_bytes())
                .map_err(failed(&path))
        }
        StoreAction::RemoveAnchor { file, .. } => {
            if store.is_behind_api() {
                applied.settings.insert(file.clone(), None);
                return Ok(());
            }
            let path = store.anchor_place(file);
            // First its links: once they dangle, they hide others of the same name. What cannot be removed here, the tool removes.
            let _ = hash_links::retire(root, store, file);
            root.remove_file(&path).map_err(failed(&path))
        }
        StoreAction::AdoptFile { file, .. } => adoption::take_over(root, observed, file),
        StoreAction::ReturnFile { path } => match observed.adopted.get(path) {
            Some(file) => adoption::give_back(root, file),
            None => Ok(()), // the plan makes this action for what is remembered only
        },
        StoreAction::DistrustRoot { sha256, place } => {
            let der = plan.ledger.distrusted.get(sha256).map(DistrustedRoot::der).unwrap_or_default();
            distrust::distrust(root, store, place, sha256, &der).map_err(failed(distrust::file_of(place)))
        }
        StoreAction::TrustRoot { place } => distrust::trust(root, place).map_err(failed(distrust::file_of(place))),
        StoreAction::Extract { mode, .. } => match store.tool {
            Tool::SettingsApi { socket } => apply_settings(socket, plan, observed, exec, applied),
            _ => run_tool(*mode, plan, observed, exec, applied),
        },
        StoreAction::RetireStore { family, files } => retire(*family, files, plan, exec, wall, &mut applied.extract),
        StoreAction::RunHooks { .. } => run_hooks(plan, observed, exec).map(|()| applied.hooks_done = true),
    }
}

/// Runs the store's tool.
fn run_tool(
    mode: ExtractMode,
    plan: &Plan,
    observed: &Observed,
    exec: &HostExec<'_>,
    applied: &mut Applied,
) -> Result<(), Problem> {
    let ours: BTreeSet<Fingerprint> = plan.ledger.anchors.keys().copied().collect();
    let expected: BTreeSet<Fingerprint> = plan.due(observed.store).copied().collect();
    let leaving = plan.leaving(observed);
    let judge = BundleJudge {
        exec,
        store: observed.store,
        before: &observed.effective,
        ours: &ours,
        expected: &expected,
        leaving: &leaving,
        repeats: foreign_repeats(observed),
    };
    let extracted = extract(&judge, mode);
    applied.extract += extracted.duration;
    applied.retry_is_pointless |= extracted.retry_is_pointless;
    extracted.problem.map_or(Ok(()), Err)
}

/// Has the system apply the settings, and waits for the bundle, and for the runtime that the system restarts.
fn apply_settings(
    socket: &str,
    plan: &Plan,
    observed: &Observed,
    exec: &HostExec<'_>,
    applied: &mut Applied,
) -> Result<(), Problem> {
    let changes = std::mem::take(&mut applied.settings);
    if changes.is_empty() {
        return Ok(()); // the settings are as they should be: what else is wrong, the next look tells
    }
    let started = Instant::now();
    let published = Cell::new(None);
    let refusal = Cell::new(None);
    let order = || match settings::change(exec.root, socket, &changes) {
        Ok(Committed::Unchanged) => Ok(Ordered::Needless),
        Ok(Committed::Applied) => {
            published.set(await_bundle(plan, observed, exec));
            Ok(Ordered::Begun)
        }
        Err(error) => {
            let why = format!("failed to change {}: {}", observed.store.anchors_dir, chain(&error));
            refusal.set(Some(why.clone()));
            Err(why)
        }
    };
    let runtime = observed.services.runtime.as_ref();
    let restarted = match runtime.filter(|runtime| runtime.service.state == ServiceState::Active) {
        Some(runtime) => Some((runtime, restart_by(exec, &runtime.service.unit, Some(runtime), &order))),
        None => order().map(|_| None).unwrap_or_default(), // an error is the refusal
    };
    if let Some(why) = refusal.take() {
        let next = "look at the API on the host: journalctl -u apiserver; the agent tries again";
        return Err(Problem::new(ProblemKind::Extract, why, next));
    }
    applied.extract += started.elapsed();
    applied.published = published.take();
    let Some((runtime, mut restarted)) = restarted else { return Ok(()) };
    applied.problems.append(&mut restarted.problems);
    let unit = runtime.service.unit.clone();
    let told = restarted.failed.as_ref().map(|why| failure(&unit, format!("{why}{}", restarted.log)));
    applied.restarted = Some((unit, restarted.failed));
    told.map_or(Ok(()), Err)
}

/// Waits until the bundle is what the plan makes of it: what is in it then, and since when. A process of the runtime that starts later has
/// read it, which is why it is looked at often.
fn await_bundle(plan: &Plan, observed: &Observed, exec: &HostExec<'_>) -> Option<(Uptime, BTreeSet<Fingerprint>)> {
    let end = Instant::now() + exec.limit;
    let whole = plan.expected_bundle(observed);
    let gone = plan.retired.iter().filter(|print| !whole.contains(print)).copied().collect();
    let mut awaited = AwaitedBundle::new(plan.due(observed.store).copied().collect(), gone, whole);
    loop {
        let bytes = bundle_bytes(exec.root, observed.store).ok().flatten().unwrap_or_default();
        let now = host::uptime(exec.root).ok()?;
        if let Some(published) = awaited.look(now, bundle::read(&bytes).set) {
            return Some(published);
        }
        if Instant::now() > end {
            return None; // the next look tells what is missing
        }
        thread::sleep(PAUSE);
    }
}

/// Takes everything of ours out of a store that is no longer the node's, and looks whether it is out.
fn retire(
    family: Family,
    files: &BTreeSet<String>,
    plan: &Plan,
    exec: &HostExec<'_>,
    wall: i64,
    extract: &mut Duration,
) -> Result<(), Problem> {
    let store = family.store();
    let look =
        || observe(exec.root, store, &BTreeSet::new(), &mut StoreCache::default()).map_err(|error| error.problem());
    let told = |problem: Problem| Problem { text: format!("leaving the {family} store: {}", problem.text), ..problem };
    let mut old = look().map_err(told)?;
    old.ours.retain(|name, _| files.contains(name)); // the tool of another store may have made links of these names
    let part = plan_retire(&old, &plan.ledger);
    let applied = apply(&part, &old, exec, wall);
    *extract += applied.extract;
    await_other_runs(exec.root, store);
    let wrong = if matches!(store.tool, Tool::None) { Vec::new() } else { verify(&part, &look().map_err(told)?) };
    match applied.problems.into_iter().chain(wrong).find(|problem| problem.kind.is_failure()) {
        Some(problem) => Err(told(problem)),
        None => {
            if plan.ledger.created.contains(store.anchors_dir) {
                match exec.root.remove_dir(store.anchors_dir) {
                    Err(error) if error.kind() == std::io::ErrorKind::DirectoryNotEmpty => {} // other people's files
                    removed => removed.map_err(|error| told(write_problem(store.anchors_dir, &error)))?,
                }
            }
            Ok(())
        }
    }
}

/// Tells the hooks of a staged store what came and went, in the form of the tool: `+path` and `-path` lines of its links. The
/// tool itself says nothing of anchors whose files vanished, so a key store such as Java's would keep them (facts A.3).
fn run_hooks(plan: &Plan, observed: &Observed, exec: &HostExec<'_>) -> Result<(), Problem> {
    let Tool::Staged { hooks, .. } = observed.store.tool else { return Ok(()) };
    let problem = |text: String| {
        let next = "the bundle is right, but programs with a key store of their own (Java) may not follow; the agent tries again";
        Problem::new(ProblemKind::Hook, text, next)
    };
    let listing = exec.root.list(hooks).map_err(|error| problem(format!("failed to read {hooks}: {error}")))?;
    let names: Vec<String> = listing
        .unwrap_or_default()
        .into_iter()
        .filter(|(name, meta)| is_hook_name(name) && (meta.kind == FileKind::Link || meta.mode & 0o111 != 0))
        .map(|(name, _)| name)
        .collect();
    if names.is_empty() {
        return Ok(());
    }
    let links = observed.store.hash_dir.unwrap_or_default();
    let ours = plan.ledger.hooks.iter().map(|(print, added)| (format!("{PREFIX}{}", print.fp16()), *added));
    let of_others = plan.ledger.hook_names.iter().map(|(name, added)| (name.clone(), *added));
    let line = |(name, added): (String, bool)| format!("{}{links}/{name}.pem\n", if added { '+' } else { '-' });
    let lines: String = ours.chain(of_others).map(line).collect();
    let input = format!("{}/{}", own_paths::TEMP_DIR, own_paths::HOOK_INPUT);
    let prepared = exec.root.create_dir_all(own_paths::TEMP_DIR).and_then(|()| {
        exec.root.write_atomic(&input, own_paths::TEMP_DIR, own_paths::HOOK_INPUT_TEMP, 0o600, lines.as_bytes())
    });
    prepared.map_err(|error| problem(format!("failed to write {input}: {error}")))?;
    let mut failure = None;
    for name in names {
        let hook = format!("{hooks}/{name}");
        match exec.run(&hook, &[], Some(&input)) {
            Ok(finished) if finished.code == Some(0) => {}
            Ok(finished) => {
                let said = finished.output.trim().lines().next_back().unwrap_or("it printed nothing").to_owned();
                let code = finished.code.map_or_else(|| "a signal".to_owned(), |code| format!("exit code {code}"));
                failure = Some(problem(format!("hook {hook} failed ({code}): {said}")));
            }
            Err(error) => failure = Some(problem(chain(&error))),
        }
    }
    // what cannot be removed now is removed in the next cycle
    let _ = exec.root.remove_tree(own_paths::TEMP_DIR);
    failure.map_or(Ok(()), Err)
}

/// run-parts(8): names of letters, digits, hyphens and underscores.
fn is_hook_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}
