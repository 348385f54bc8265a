//! The only writer of the ledger.
//!
//! Each method is one transition: what it tells of is written down before the host is changed, or after the second look. What a transition
//! does to the ledger is a pure function of [`Ledger`].

use std::io;

use nodetrust_core::{
    certificate::fingerprint::SetDigest,
    ledger::Ledger,
    observed::Observed,
    plan::Plan,
    planner::settle,
    problem::{Problem, ProblemKind},
    runtime::{
        attempts::AttemptOutcome,
        process::ServiceProcess,
        testimony::{note_answer, note_restart},
        witness::Witness,
    },
    time::{Moment, Uptime},
};

use crate::host::{ledger_file, own_paths, root::HostRoot};

/// Writes the ledger of a host.
#[derive(Debug)]
pub struct LedgerWriter<'a> {
    root: &'a HostRoot,
    /// The wall clock that is written down as the time of the change.
    wall: i64,
    ledger: Ledger,
}

impl<'a> LedgerWriter<'a> {
    /// Takes the ledger as it is on the host.
    pub fn new(root: &'a HostRoot, ledger: Ledger, wall: i64) -> Self {
        Self { root, wall, ledger }
    }

    /// The ledger as it was written last.
    pub fn into_ledger(self) -> Ledger {
        self.ledger
    }

    /// Before the first change of the store: what is about to be done, so that a crash is noticed.
    ///
    /// # Errors
    /// As [`ledger_file::write`].
    pub fn begin_change(root: &HostRoot, plan: &Plan, wall: i64) -> io::Result<()> {
        ledger_file::write(root, &Ledger { updated: wall, ..plan.ledger.clone() })
    }

    /// After the second look: what has come about. Returns the ledger that was written, None if there was nothing to write.
    ///
    /// # Errors
    /// As [`ledger_file::write`].
    pub fn settle(
        root: &HostRoot,
        plan: &Plan,
        after: &Observed,
        carried_out: CarriedOut,
        wall: i64,
    ) -> io::Result<Option<Ledger>> {
        let mut ledger = settle(plan, after, carried_out.without_error, wall);
        if carried_out.hooks_done {
            ledger.hooks_done();
        }
        if carried_out.published.is_some() {
            ledger.published = carried_out.published;
        }
        if ledger.same_as(&plan.ledger) {
            return Ok(None);
        }
        ledger.updated = wall;
        ledger_file::write(root, &ledger)?;
        Ok(Some(ledger))
    }

    /// Moves a damaged ledger out of the way. Returns the problem that tells it.
    pub(crate) fn set_aside(root: &HostRoot, why: &str) -> Problem {
        let mut problem = damaged_problem(why);
        if let Err(error) = ledger_file::set_aside(root) {
            problem.text = format!("{}; it could not be set aside: {error}", problem.text);
        }
        problem
    }

    /// Takes over what a plan knows of the services; it is written with the next transition.
    pub fn follow_services(&mut self, plan: &Plan) {
        self.ledger = self.ledger.with_services_of(&plan.ledger);
    }

    /// Which processes run, as a plan that has nothing to do knows them.
    ///
    /// # Errors
    /// As [`ledger_file::write`].
    pub fn record_processes(&mut self, plan: &Plan) -> io::Result<()> {
        self.record(|ledger| ledger.clone_from(&plan.ledger))
    }

    /// Before a file is written into a registry directory.
    ///
    /// # Errors
    /// As [`ledger_file::write`].
    pub fn begin_registry_file(&mut self, path: &str, missing: Vec<String>) -> io::Result<()> {
        self.record(|ledger| ledger.begin_registry_file(path, missing))
    }

    /// After a file was removed from a registry directory.
    ///
    /// # Errors
    /// As [`ledger_file::write`].
    pub fn forget_registry_file(&mut self, path: &str) -> io::Result<()> {
        self.record(|ledger| ledger.forget_registry_file(path))
    }

    /// Before a restart. `is_first`: of this cycle; `refuses`: the runtime's process and the set in force, of which the ledger knows what
    /// it refuses.
    ///
    /// # Errors
    /// As [`ledger_file::write`]. What cannot be written down must not be done: nothing would keep it from being done again and again.
    pub fn record_restart_attempt(
        &mut self,
        now: &Moment,
        is_first: bool,
        refuses: Option<(&ServiceProcess, &SetDigest)>,
    ) -> io::Result<()> {
        self.record(|ledger| {
            if is_first {
                ledger.begin_restart_attempt(now);
            }
            if let Some((process, set)) = refuses {
                note_restart(ledger, process, set);
            }
        })
    }

    /// After a restart.
    ///
    /// # Errors
    /// As [`ledger_file::write`].
    pub fn record_restart_outcome(&mut self, outcome: AttemptOutcome) -> io::Result<()> {
        self.record(|ledger| ledger.end_restart_attempt(outcome))
    }

    /// Before an exported bundle is written.
    ///
    /// # Errors
    /// As [`ledger_file::write`].
    pub fn begin_export(&mut self, path: &str, missing: Vec<String>) -> io::Result<()> {
        self.record(|ledger| ledger.begin_export(path, missing))
    }

    /// After an exported bundle was removed.
    ///
    /// # Errors
    /// As [`ledger_file::write`].
    pub fn forget_export(&mut self, path: &str) -> io::Result<()> {
        self.record(|ledger| ledger.forget_export(path))
    }

    /// What the runtime answered when it was asked about registries, by `host:port`.
    ///
    /// # Errors
    /// As [`ledger_file::write`].
    pub fn record_answers(&mut self, answers: impl IntoIterator<Item = (String, Witness)>) -> io::Result<()> {
        self.record(|ledger| answers.into_iter().for_each(|(host, answer)| note_answer(ledger, &host, answer)))
    }

    /// Writes a changed ledger; one that says the same is not written.
    fn record(&mut self, change: impl FnOnce(&mut Ledger)) -> io::Result<()> {
        let mut next = self.ledger.clone();
        change(&mut next);
        if next.same_as(&self.ledger) {
            return Ok(());
        }
        next.updated = self.wall;
        ledger_file::write(self.root, &next)?;
        self.ledger = next;
        Ok(())
    }
}

/// How a plan was carried out.
#[derive(Debug, Clone)]
pub struct CarriedOut {
    /// Every action was done without an error.
    pub without_error: bool,
    /// The hooks have been told everything.
    pub hooks_done: bool,
    /// Since when the bundle has been as it is, where that was seen before the second look.
    pub published: Option<Uptime>,
}

/// What is told of a damaged ledger.
pub(crate) fn damaged_problem(why: &str) -> Problem {
    let text =
        format!("{} is damaged ({why}); it is set aside and made anew from what is on the host", own_paths::LEDGER);
    Problem::new(ProblemKind::Ledger, text, "anchors that no source has any more begin their grace time again")
}
