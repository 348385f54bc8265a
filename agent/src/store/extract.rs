//! Running the store's tool so that the bundle gets better or stays as it is.
//!
//! What a tool leaves behind is read and judged before consumers see it (Debian, where the bundle can be staged) or right after,
//! with the old files at hand to put them back (the others). A run that lost other people's certificates or links, or broke the file
//! for a reader that could load it, does not stand.

use std::{
    collections::BTreeSet,
    io,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use nodetrust_core::{
    certificate::{bundle, fingerprint::Fingerprint, pem},
    observed::{Effective, Hazard, Observed, SourceHazard},
    problem::{Problem, ProblemKind},
    store::{
        ExtractMode, Family, Tool, TrustStore,
        anchor_file::file_name,
        harm::{Departed, Harm, harm},
    },
    verify::{lost_foreign, roots_advice},
};

use crate::{
    host::{
        exec::{ExecError, Finished, HostExec},
        file::{FileKind, is_missing},
        obstacle::way_out_or,
        own,
        root::HostRoot,
    },
    store::{
        hash_links, hazards,
        observe::{
            self, MAX_BUNDLE_BYTES, ObserveError, at, await_other_runs, certificates_below, usable, with_a_source,
        },
        snapshot::{Extent, Outputs},
        tool_words::{exit_problem, last_words},
    },
};

/// Tries for one extract: a second one after a lost race with another runner (apt, a dpkg trigger, a path unit).
const TRIES: usize = 2;
/// Pause before the second try.
const PAUSE: Duration = Duration::from_millis(300);
/// What makes hash links, on every system that has them and Debian's tool.
const OPENSSL: &str = "/usr/bin/openssl";

/// Where p11-kit finds out which modules there are.
const P11_KIT_MODULES: &str = "/usr/share/p11-kit/modules";

/// What an extract needs to know.
#[derive(Debug)]
pub struct Extraction<'a> {
    /// Runs programs on the host.
    pub exec: &'a HostExec<'a>,
    /// The store.
    pub store: &'static TrustStore,
    /// The bundle before.
    pub before: &'a Effective,
    /// Every anchor that is or was ours: their leaving the bundle is no loss.
    pub ours: &'a BTreeSet<Fingerprint>,
    /// Anchors whose files are in place.
    pub expected: &'a BTreeSet<Fingerprint>,
    /// How many repetitions other people's files explain.
    pub repeats: usize,
}

/// What became of an extract.
#[derive(Debug, Default)]
pub struct Extracted {
    /// What went wrong, if it did.
    pub problem: Option<Problem>,
    /// Another try at once would end the same.
    pub is_final: bool,
    /// How long the tool ran.
    pub duration: Duration,
}

impl Extracted {
    /// What the tool replaces, or the tool itself, could not be read: nothing was run, since nothing could be put back.
    fn unobserved(error: &ObserveError) -> Self {
        Self { problem: Some(observe_problem(error)), is_final: true, ..Self::default() }
    }
}

impl Extraction<'_> {
    /// Runs the tool, twice at most.
    pub fn run(&self, mode: ExtractMode) -> Extracted {
        let mut result = Extracted::default();
        let program = match self.program() {
            Ok(program) => program,
            Err(error) => return Extracted::unobserved(&error),
        };
        let Some(program) = program else {
            let names = self.store.tool.programs().join(" nor ");
            let next = "install the distribution's package ca-certificates on the host";
            result.problem =
                Some(Problem::new(ProblemKind::Extract, format!("neither {names} exists on the host"), next));
            return result;
        };
        await_other_runs(self.root(), self.store);
        // as it was before the first try, whatever that one leaves behind
        let first = match FirstLook::take(self.root(), self.store) {
            Ok(first) => first,
            Err(error) => return Extracted::unobserved(&error),
        };
        for attempt in 0..TRIES {
            if attempt > 0 {
                thread::sleep(PAUSE);
            }
            await_other_runs(self.root(), self.store);
            let links = match (attempt, mode) {
                (0, ExtractMode::Plain) => Links::Added,
                (0, ExtractMode::Fresh) => Links::Checked,
                // what was wrong with the first try may be gone with links made anew
                _ => Links::Anew,
            };
            result.problem = match self.attempt(program, links, &first, &mut result.duration) {
                Ok(()) => None,
                Err(Failure::Final(problem)) => return Extracted { problem: Some(problem), is_final: true, ..result },
                Err(Failure::Again(problem)) => Some(problem),
            };
            if result.problem.is_none() {
                break;
            }
        }
        result
    }

    fn attempt(&self, program: &str, links: Links, first: &FirstLook, spent: &mut Duration) -> Result<(), Failure> {
        self.precondition(program)?;
        self.root().create_dir_all(own::TEMP_DIR).map_err(|error| write_failure(own::TEMP_DIR, &error))?;
        // what a killed run has left of ours would hide others of the same name; if that fails, the tool says why
        let _ = hash_links::retire_dangling(self.root(), self.store);
        let _ = hash_links::retire_nameless(self.root(), self.store); // as above
        let done = match &self.store.tool {
            Tool::Staged { staged, .. } => self.staged(program, links, staged, first, spent),
            Tool::Direct { .. } => self.direct(program, self.store.tool.args(links.mode()), first, spent),
            Tool::Concatenate { .. } => self.concatenate(program, first, spent),
            Tool::None => Ok(()),
        };
        // the tool's own temporary files, if it was killed; what stays is removed in the next cycle
        let _ = self.root().remove_tree(own::TEMP_DIR);
        done
    }

    /// The tool writes beside the bundle; what it wrote is published if it is good.
    fn staged(
        &self,
        program: &str,
        links: Links,
        staged: &str,
        first: &FirstLook,
        spent: &mut Duration,
    ) -> Result<(), Failure> {
        let (dir, name) = split(self.store.bundle);
        let path = format!("{dir}/{staged}");
        let new = format!("{path}.new");
        // the tool writes to the first two names and runs what is in the last: it must not be led elsewhere, nor wait for a pipe's reader
        for path in [path.as_str(), &new, own::NO_HOOKS] {
            self.root().remove_file(path).map_err(|error| write_failure(path, &error))?;
        }
        let executed = self.execute(program, self.store.tool.args(links.mode()), spent);
        let bytes = match executed {
            Ok(finished) if finished.code == Some(0) => match self.root().own_read(&path, MAX_BUNDLE_BYTES) {
                Ok(bytes) => bytes,
                Err(error) if is_missing(&error) => return self.not_staged(program, links, first, spent),
                Err(error) => {
                    let _ = self.root().remove_file(&path); // what stays is removed in the next cycle, or told then
                    let text = format!("what {program} wrote cannot be judged: failed to read {path}: {error}");
                    let next = format!("look for a huge file in {} on the host", self.store.anchors_dir);
                    let problem = Problem::new(ProblemKind::Extract, text, way_out_or(&error, &next));
                    return Err(self.undo(Failure::Final(problem), first));
                }
            },
            failed => {
                // what stays is removed in the next cycle, or told then
                let _ = self.root().remove_file(&path);
                let _ = self.root().remove_file(&new);
                let failure = failed.map_or_else(
                    |failure| failure,
                    |done| Failure::Again(exit_problem(self.root(), self.store, program, &done)),
                );
                return Err(self.undo(failure, first));
            }
        };
        let judged = self.judge_pasted(bytes, program).and_then(|(after, mended)| {
            if let Some(bytes) = mended {
                let written = self.root().write_atomic(&path, dir, own::BUNDLE, 0o644, &bytes);
                written.map_err(|error| write_failure(&path, &error))?;
            }
            if links == Links::Checked {
                self.rehash(spent);
            }
            self.keep_links(program, &after, first)
        });
        if let Err(failure) = judged {
            let _ = self.root().remove_file(&path); // as above
            let failure =
                failure.map(|problem| Problem { text: format!("{}; it was not published", problem.text), ..problem });
            return Err(self.undo(failure, first));
        }
        self.root().publish(dir, staged, name).map_err(|error| {
            let _ = self.root().remove_file(&path); // as above
            self.undo(write_failure(self.store.bundle, &error), first)
        })
    }

    /// The tool has exited 0 and not written where it should. One that does not know the option prints its usage and does nothing; a
    /// wrapper that drops its arguments has written the bundle itself.
    fn not_staged(&self, program: &str, links: Links, first: &FirstLook, spent: &mut Duration) -> Result<(), Failure> {
        if self.live_bytes().map_err(|error| self.undo(observe_failure(&error), first))? != first.bundle {
            return self.judge_live(program, None, first);
        }
        let args: &[&str] = if links == Links::Added { &[] } else { &["--fresh"] };
        self.direct(program, args, first, spent)
    }

    /// The tool writes the bundle; if that made things worse, the old files are put back.
    fn direct(&self, program: &str, args: &[&str], first: &FirstLook, spent: &mut Duration) -> Result<(), Failure> {
        let failed = match self.execute(program, args, spent) {
            // Alpine's code is that of its hooks: the bundle is what counts
            Ok(done) if done.code == Some(0) || self.store.family == Family::Alpine => {
                return self.judge_live(program, last_words(&done), first);
            }
            Ok(done) => Failure::Again(exit_problem(self.root(), self.store, program, &done)),
            Err(failure) => failure,
        };
        // a tool that was stopped may have done half of its work
        Err(self.undo(failed, first))
    }

    /// Judges what consumers read now; what is worse than it was does not stay.
    fn judge_live(&self, program: &str, said: Option<String>, first: &FirstLook) -> Result<(), Failure> {
        let bytes = self.live_bytes().map_err(|error| observe_failure(&error));
        let judged = bytes.and_then(|bytes| self.judge_pasted(bytes.unwrap_or_default(), program));
        let judged = judged.and_then(|(after, mended)| {
            if let Some(bytes) = mended {
                let (dir, _) = split(self.store.bundle);
                let written = self.root().write_atomic(self.store.bundle, dir, own::BUNDLE, 0o644, &bytes);
                written.map_err(|error| write_failure(self.store.bundle, &error))?;
            }
            self.keep_links(program, &after, first)
        });
        let failure = match judged.and_then(|()| self.keep_mode(first)) {
            Ok(()) => return Ok(()),
            Err(failure) => failure,
        };
        let failure = failure.map(|problem| match said {
            Some(said) => Problem { text: format!("{}; it said: {said}", problem.text), ..problem },
            None => problem,
        });
        Err(self.undo(failure, first))
    }

    /// Who could read the bundle can still read it, and nobody else write it.
    fn keep_mode(&self, first: &FirstLook) -> Result<(), Failure> {
        let path = self.store.bundle;
        let failed = |error: io::Error| write_failure(path, &error);
        let Some(now) = self.root().stat(path).map_err(failed)? else { return Ok(()) };
        let before = first.mode.unwrap_or(0o644);
        let mode = (now.mode | before & 0o444) & !(0o7022 & !before);
        if mode == now.mode {
            return Ok(());
        }
        tracing::warn!("the tool left {path} with mode {:04o}; it is {mode:04o} again", now.mode);
        self.root().set_mode(path, mode).map_err(failed)
    }

    /// Makes hash links by the tool and the bundle by ourselves, in one rename.
    fn concatenate(&self, program: &str, first: &FirstLook, spent: &mut Duration) -> Result<(), Failure> {
        let finished =
            self.execute(program, self.store.tool.args(ExtractMode::Plain), spent).map_err(|e| self.undo(e, first))?;
        let mut all = Vec::new();
        let mut seen = BTreeSet::new();
        let dir = self.store.anchors_dir;
        let listing = self.root().list(dir).map_err(|error| write_failure(dir, &error))?.unwrap_or_default();
        for (name, _) in listing.iter().filter(|(name, _)| self.store.takes.matches(name)) {
            let path = format!("{dir}/{name}");
            let read = usable(self.root().read(&path, MAX_BUNDLE_BYTES)).map_err(at(&path));
            let Some(bytes) = read.map_err(|error| self.undo(observe_failure(&error), first))? else { continue };
            for block in nodetrust_core::certificate::pem::scan(&bytes).blocks {
                if seen.insert(Fingerprint::of_der(&block.der)) {
                    all.extend_from_slice(nodetrust_core::certificate::pem::encode(&block.der).as_bytes());
                }
            }
        }
        let judged = self.judge(&all, program).and_then(|after| {
            // a file that is no certificate gives another code: the links are what counts
            let linked = hash_links::linked(self.root(), self.store).map_err(|error| observe_failure(&error))?;
            if finished.code != Some(0) && !linked.values().all(|linked| self.expected.is_subset(linked)) {
                return Err(Failure::Again(exit_problem(self.root(), self.store, program, &finished)));
            }
            self.keep_links(program, &after, first)
        });
        judged.map_err(|failure| self.undo(failure, first))?;
        let (to, _) = split(self.store.bundle);
        let written = self.root().write_atomic(self.store.bundle, to, own::BUNDLE, 0o644, &all);
        written.map_err(|error| self.undo(write_failure(self.store.bundle, &error), first))
    }

    /// Makes every hash link that is missing, without taking one away first as `--fresh` does. Its exit code says little: a file that
    /// is no certificate gives another one. What has no link afterwards is seen.
    fn rehash(&self, spent: &mut Duration) {
        let Some(dir) = self.store.hash_dir else { return };
        match self.execute(OPENSSL, &["rehash", dir], spent) {
            Ok(finished) if finished.code == Some(0) => {}
            Ok(finished) => tracing::debug!(code = ?finished.code, output = finished.output, "openssl rehash"),
            Err(_) => tracing::warn!("{OPENSSL} rehash did not come to its end"),
        }
    }

    /// The links to other people's certificates that the run has lost are put back.
    fn keep_links(&self, program: &str, after: &Effective, first: &FirstLook) -> Result<(), Failure> {
        let dir = self.store.hash_dir.unwrap_or_default();
        if hash_links::retire_nameless(self.root(), self.store).map_err(|error| write_failure(dir, &error))? {
            let text = format!("{program} could not name a link in {dir}: one of its programs failed or was killed");
            let next = format!("look for a full process table or memory on the host, then run {program} there");
            return Err(Failure::Again(Problem::new(ProblemKind::Extract, text, next)));
        }
        let lost = || -> Result<usize, Failure> {
            let linked = hash_links::linked(self.root(), self.store).map_err(|error| observe_failure(&error))?;
            let mut lost = BTreeSet::new();
            for (dir, before) in &first.linked {
                let none = BTreeSet::new();
                lost.extend(before.difference(linked.get(dir).unwrap_or(&none)).copied());
            }
            lost.retain(|print| after.set.contains(print) && !self.ours.contains(print));
            let names = first.outputs.lost_names(self.root(), &after.set);
            Ok(lost.len() + names.map_err(|error| observe_failure(&error))?)
        };
        let count = lost()?;
        if count == 0 {
            return Ok(());
        }
        let put_back = first.outputs.put_back(self.root(), Extent::Missing, &after.set);
        let left = lost()?;
        if left == 0 {
            tracing::warn!(count, "{program} lost links to certificates that are not ours; they were put back");
            return Ok(());
        }
        let dir = first.linked.keys().copied().collect::<Vec<_>>().join(" and ");
        let why =
            put_back.err().map_or_else(String::new, |(path, error)| format!("; putting {path} back failed: {error}"));
        let text = format!("{program} lost the links in {dir} to {left} certificates that are not ours{why}");
        let next = format!("run {program} on the host and look at its output");
        Err(Failure::Again(Problem::new(ProblemKind::ForeignLost, text, next)))
    }

    /// After a run that failed: what it has made worse becomes what it was, all of it; otherwise what is missing is put back. The
    /// problem says so.
    fn undo(&self, failure: Failure, first: &FirstLook) -> Failure {
        let bytes = self.live_bytes();
        let now = bytes.as_ref().ok().and_then(Option::as_deref).map(bundle::read).unwrap_or_default();
        // what cannot be told counts as worse
        let harm = || self.departed(&now).map(|departed| harm(self.before, &now, departed));
        let is_worse = match bytes {
            Ok(bytes) => bytes != first.bundle && !matches!(harm(), Ok(None)),
            Err(_) => true,
        };
        let (extent, trusted) = match &failure {
            _ if is_worse => (Extent::All, &self.before.set),
            Failure::Final(_) => (Extent::Links, &now.set),
            Failure::Again(_) => (Extent::Missing, &now.set),
        };
        let put_back = first.outputs.put_back(self.root(), extent, trusted);
        // the same bytes may have another mode than before
        let mode = match self.keep_mode(first) {
            Ok(()) => String::new(),
            Err(Failure::Final(problem) | Failure::Again(problem)) => format!("; {}", problem.text),
        };
        failure.map(|problem| {
            let what = match put_back {
                Err((path, error)) => format!("; putting {path} back failed: {error}"),
                Ok(()) if is_worse => format!("; {} was put back as it was", self.store.bundle),
                Ok(()) => String::new(),
            };
            Problem { text: format!("{}{what}{mode}", problem.text), ..problem }
        })
    }

    /// Is this bundle one that may stand?
    fn judge(&self, bytes: &[u8], program: &str) -> Result<Effective, Failure> {
        let after = if bytes.is_empty() { Effective::default() } else { bundle::read(bytes) };
        let departed = self.departed(&after)?;
        if let Some(harm) = harm(self.before, &after, departed) {
            return Err(Failure::Final(self.harm_problem(&harm, departed, bytes, &after, program)));
        }
        if departed.dropped > 0 {
            // somebody had put them into the bundle itself, or has removed their files: the tool knows nothing of them
            tracing::warn!(count = departed.dropped, "certificates without a source have left the bundle");
        }
        if after.repeated() > self.repeats.max(self.before.repeated()) {
            let text = format!("{program} wrote {} certificates twice: did two runs of it overlap?", after.repeated());
            return Err(Failure::Again(Problem::new(ProblemKind::Extract, text, "")));
        }
        let missing: BTreeSet<Fingerprint> = self.expected.difference(&after.set).copied().collect();
        if !missing.is_empty() {
            let text = format!("{program} left out {} of our anchors", missing.len());
            // only for the words: an error there is no reason to say nothing
            let overruled = observe::overruled(self.root(), self.store, &missing).unwrap_or_default();
            let Some(first) = overruled.first() else {
                return Err(Failure::Again(Problem::new(ProblemKind::NotTrusted, text, "")));
            };
            let text = format!(
                "{text}; {} of them, such as {}, are distrusted by the distribution or in its blocklist",
                overruled.len(),
                first.fp16()
            );
            let next =
                "take it out of the source, or lift the distrust: `trust list --filter=blocklist` on the host shows it";
            return Err(Failure::Again(Problem::new(ProblemKind::NotTrusted, text, next)));
        }
        Ok(after)
    }

    /// The same for a tool that pastes files. Somebody else's block without an end, which was in the bundle before us, swallows what
    /// follows; then our anchors go to the front, and the bundle with them comes back.
    fn judge_pasted(&self, bytes: Vec<u8>, program: &str) -> Result<(Effective, Option<Vec<u8>>), Failure> {
        let after = bundle::read(&bytes);
        let mut front = Vec::new();
        if self.store.pastes_files && !after.faults.is_empty() {
            for missing in self.expected.difference(&after.set) {
                let file = format!("{}/{}", self.store.anchors_dir, file_name(self.store, missing));
                let own = usable(self.root().own_read(&file, pem::MAX_FILE_BYTES as u64)).map_err(at(&file));
                let own = own.map_err(|error| observe_failure(&error))?.unwrap_or_default();
                if bundle::read(&own).set.contains(missing) {
                    front.extend_from_slice(&own);
                }
            }
        }
        if front.is_empty() {
            return Ok((self.judge(&bytes, program)?, None));
        }
        front.extend_from_slice(&bytes);
        Ok((self.judge(&front, program)?, Some(front)))
    }

    /// Foreign certificates that are in the bundle no more.
    fn departed(&self, after: &Effective) -> Result<Departed, Failure> {
        let failed = |error: ObserveError| observe_failure(&error);
        let lost = lost_foreign(self.before, after, self.ours);
        let of = self.before.set.difference(self.ours).count();
        let dropped = lost.len();
        let with_source =
            with_a_source(self.root(), self.store, lost.clone(), Some(self.exec.limit)).map_err(failed)?;
        let gone = if dropped > with_source.len() {
            let deselected = hazards::deselected(self.root(), self.store).map_err(failed)?;
            lost.difference(&with_source).filter(|print| !deselected.contains(print)).count()
        } else {
            0
        };
        Ok(Departed { lost: with_source.len(), gone, of, dropped })
    }

    fn harm_problem(&self, harm: &Harm, departed: Departed, bytes: &[u8], after: &Effective, program: &str) -> Problem {
        let Departed { lost, gone, of, .. } = departed;
        match harm {
            Harm::NoBundle => Problem::new(
                ProblemKind::BundleBroken,
                format!("{program} left no {}", self.store.bundle),
                format!("run {program} on the host and look at its output"),
            ),
            Harm::Lost => {
                let text = format!(
                    "{program} left out {lost} of {of} certificates that are not ours, though their sources are still there"
                );
                Problem::new(ProblemKind::ForeignLost, text, self.lost_advice())
            }
            Harm::MostGone => {
                let text = format!(
                    "{program} left out {gone} of {of} certificates that are not ours: their sources are gone, and nobody has deselected them"
                );
                Problem::new(ProblemKind::ForeignLost, text, roots_advice(self.store.family))
            }
            Harm::Broken(reader, fault) => {
                let found = self.culprits(bytes, after);
                let named = found.iter().filter_map(|found| {
                    let fault = found.hazard.fault_for(*reader)?;
                    Some((found.path.as_str(), fault.line, fault.detail.as_str()))
                });
                let named = hazards::name_them(named);
                let (why, next) = if named.is_empty() {
                    (
                        format!("line {}: {}", fault.line, fault.detail),
                        "look for a broken file in the anchor directories".into(),
                    )
                } else {
                    (format!("because of {named}"), format!("mend what is named, or move it away: {named}"))
                };
                let text = format!("{program} made a bundle that {reader} cannot load at all, {why}");
                Problem::new(ProblemKind::BundleBroken, text, next)
            }
            Harm::PrivateKey => {
                let found = self.culprits(bytes, after);
                let named = hazards::name_them(found.iter().filter_map(|found| match found.hazard {
                    Hazard::PrivateKey(line) => Some((found.path.as_str(), line, "")),
                    _ => None,
                }));
                let next = if named.is_empty() {
                    "look for a private key in the anchor directories".to_owned()
                } else {
                    format!("take the private key out of {named}, or move the file away")
                };
                let text = format!("{program} copied a private key into its bundle");
                Problem::new(ProblemKind::BundlePrivateKey, text, next)
            }
        }
    }

    /// What lies in the sources now and may have come in since the plan was made.
    fn culprits(&self, bytes: &[u8], after: &Effective) -> Vec<SourceHazard> {
        if !self.store.pastes_files {
            // only for the words: an error there is no reason to say nothing
            return hazards::holders(self.root(), self.store, bytes, after).unwrap_or_default();
        }
        let observed = observe::observe(self.root(), self.store, &BTreeSet::new(), &mut observe::Cache::default());
        let all = |observed: Observed| {
            let all = observed.all_hazards();
            all.map(|(path, hazard)| SourceHazard { path: path.to_owned(), hazard: hazard.clone() }).collect()
        };
        observed.map(all).unwrap_or_default() // as above
    }

    fn lost_advice(&self) -> &'static str {
        match self.store.family {
            Family::Debian => {
                "on the host: is /etc/ca-certificates.conf there and complete? dpkg-reconfigure ca-certificates writes it anew"
            }
            Family::Redhat | Family::Suse | Family::Arch => {
                "on the host: is p11-kit's trust module installed (package p11-kit-trust)? `trust list` should print the distribution's CAs"
            }
            _ => "on the host: run the tool by hand and look at its output",
        }
    }

    /// What consumers read now, None if there is nothing that they could.
    fn live_bytes(&self) -> Result<Option<Vec<u8>>, ObserveError> {
        live_bytes(self.root(), self.store)
    }

    /// What would make a run of the tool harmful from its beginning: it takes links away before it writes anything.
    fn precondition(&self, program: &str) -> Result<(), Failure> {
        let root = self.root();
        let refuse = |why: &str, next: &str| {
            let text = format!("{why}: {program} would leave out the distribution's certificates; it was not run");
            Err(Failure::Final(Problem::new(ProblemKind::ForeignLost, text, next)))
        };
        let selected = || observe::selected(root).map_err(|error| observe_failure(&error));
        match self.store.family {
            Family::Debian | Family::Alpine if selected()?.is_none() => {
                let mut shipped = BTreeSet::new();
                certificates_below(root, "/usr/share/ca-certificates", 0, &mut shipped)
                    .map_err(|error| observe_failure(&error))?;
                if shipped.is_disjoint(&self.before.set) {
                    return Ok(()); // none of them is trusted anyway
                }
                refuse(
                    "/etc/ca-certificates.conf is missing or selects nothing",
                    "on the host: dpkg-reconfigure ca-certificates, or reinstall the package, writes it anew",
                )
            }
            Family::Redhat | Family::Suse | Family::Arch => {
                let modules = root.list(P11_KIT_MODULES).map_err(|error| {
                    let text = format!("failed to read {P11_KIT_MODULES}: {error}");
                    Failure::Final(Problem::new(ProblemKind::Observe, text, "look at the path on the host"))
                })?;
                // a layout that is not known is given the benefit of the doubt
                if modules.is_none_or(|names| names.iter().any(|(name, _)| name.contains("trust"))) {
                    return Ok(());
                }
                refuse("p11-kit has no trust module", "on the host: install the package p11-kit-trust")
            }
            _ => Ok(()),
        }
    }

    fn execute(&self, program: &str, args: &[&str], spent: &mut Duration) -> Result<Finished, Failure> {
        let started = Instant::now();
        let result = self.exec.run(program, args, None);
        *spent += started.elapsed();
        result.map_err(|error| {
            let problem = |next: &str| Problem::new(ProblemKind::Extract, chain(&error), next);
            match &error {
                ExecError::Start { source, .. } => {
                    let next = "does the agent have CAP_SYS_CHROOT, and is the host's root mounted?";
                    Failure::Again(problem(&way_out_or(source, next)))
                }
                // others wait for the lock no longer than one run may take
                ExecError::TimedOut { .. } => {
                    let next = "see what the tool waits for on the host; store.extractTimeout sets the limit";
                    let text = format!("time-out (store.extractTimeout): {}", chain(&error));
                    Failure::Final(Problem::new(ProblemKind::Extract, text, next))
                }
            }
        })
    }

    /// The store's tool, None if the host has none of its names.
    fn program(&self) -> Result<Option<&'static str>, ObserveError> {
        for path in self.store.tool.programs() {
            let found = usable(self.root().stat(path)).map_err(at(path))?.flatten();
            if found.is_some_and(|meta| meta.kind == FileKind::File) {
                return Ok(Some(path));
            }
        }
        Ok(None)
    }

    fn root(&self) -> &HostRoot {
        self.exec.root
    }
}

/// How a run of Debian's tool treats the hash links. The other tools know one way only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Links {
    /// It adds what is missing, if a file came or went.
    Added,
    /// The same, and then all are looked through.
    Checked,
    /// It takes all away first and makes them anew: the last resort, since meanwhile there are none.
    Anew,
}

impl Links {
    fn mode(self) -> ExtractMode {
        match self {
            Self::Added | Self::Checked => ExtractMode::Plain,
            Self::Anew => ExtractMode::Fresh,
        }
    }
}

/// What a run can damage, as it was before the first try.
struct FirstLook {
    outputs: Outputs,
    bundle: Option<Vec<u8>>,
    /// the bundle's permission bits
    mode: Option<u32>,
    /// certificates that OpenSSL finds in its directories
    linked: hash_links::Linked,
}

impl FirstLook {
    /// What cannot be read could neither be compared nor put back.
    fn take(root: &HostRoot, store: &'static TrustStore) -> Result<Self, ObserveError> {
        let meta = usable(root.stat(store.bundle)).map_err(at(store.bundle))?.flatten();
        Ok(Self {
            outputs: Outputs::save(root, store)?,
            bundle: live_bytes(root, store)?,
            mode: meta.map(|meta| meta.mode),
            linked: hash_links::linked(root, store)?,
        })
    }
}

fn live_bytes(root: &HostRoot, store: &TrustStore) -> Result<Option<Vec<u8>>, ObserveError> {
    usable(root.read(store.bundle, MAX_BUNDLE_BYTES)).map_err(at(store.bundle))
}

enum Failure {
    /// A second try may do better.
    Again(Problem),
    /// It would end the same.
    Final(Problem),
}

impl Failure {
    fn map(self, change: impl FnOnce(Problem) -> Problem) -> Self {
        match self {
            Self::Again(problem) => Self::Again(change(problem)),
            Self::Final(problem) => Self::Final(change(problem)),
        }
    }
}

/// An error with its causes, on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// What the tool reads could not be read: whether it may lose something is not known.
fn observe_failure(error: &ObserveError) -> Failure {
    Failure::Final(observe_problem(error))
}

fn observe_problem(error: &ObserveError) -> Problem {
    Problem::new(ProblemKind::Observe, chain(error), error.next("look at the path on the host"))
}

fn write_failure(path: &str, error: &std::io::Error) -> Failure {
    Failure::Final(write_problem(path, error))
}

/// A file of the host could not be written.
pub fn write_problem(path: &str, error: &std::io::Error) -> Problem {
    let next = way_out_or(error, "look at the path on the host");
    Problem::new(ProblemKind::Write, format!("failed to write {path}: {error}"), next)
}

fn split(path: &str) -> (&str, &str) {
    let path = Path::new(path);
    // every path of the table has a directory and a name
    (
        path.parent().and_then(Path::to_str).unwrap_or("/"),
        path.file_name().and_then(|name| name.to_str()).unwrap_or_default(),
    )
}

#[cfg(test)]
#[path = "extract_tests.rs"]
mod tests;
