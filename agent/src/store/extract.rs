//! Running the store's tool so that the bundle gets better or stays as it is.
//!
//! What a tool leaves behind is read and judged before consumers see it (Debian, where the bundle can be staged) or right after,
//! with the old files at hand to put them back (the others). A run that lost other people's certificates or links, or broke the file
//! for a reader that could load it, does not stand.

use std::{
    collections::BTreeSet,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use nodetrust_core::{
    certificate::{
        fingerprint::Fingerprint,
        pem::{encode, scan},
    },
    problem::{Problem, ProblemKind},
    store::{ExtractMode, Family, Tool, TrustStore},
};

use crate::{
    error::chain,
    host::{
        exec::{ExecError, Finished, HostExec},
        file::{FileKind, is_missing},
        obstacle::way_out_or,
        own_paths,
        root::HostRoot,
    },
    store::{
        bundle::usable_bundle,
        distribution::{SHIPPED, certificates_below, selected},
        failure::ExtractFailure,
        hash_links,
        judge::BundleJudge,
        other_runs::await_other_runs,
        read::{MAX_BUNDLE_BYTES, ObserveError, at, usable},
        snapshot::StoreSnapshot,
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

/// What became of an extract.
#[derive(Debug, Default)]
pub struct Extracted {
    /// What went wrong, if it did.
    pub problem: Option<Problem>,
    /// Retrying immediately cannot succeed.
    pub retry_is_pointless: bool,
    /// How long the tool ran.
    pub duration: Duration,
}

impl Extracted {
    /// What the tool replaces, or the tool itself, could not be read: nothing was run, since nothing could be put back.
    fn unobserved(error: &ObserveError) -> Self {
        Self { problem: Some(error.problem()), retry_is_pointless: true, ..Self::default() }
    }
}

/// Runs the store's tool, twice at most.
pub fn extract(judge: &BundleJudge<'_>, mode: ExtractMode) -> Extracted {
    let (exec, store) = (judge.exec, judge.store);
    let program = match program_of(exec.root, store) {
        Ok(Some(program)) => program,
        Ok(None) => {
            let text = format!("neither {} exists on the host", store.tool.programs().join(" nor "));
            let next = "install the distribution's package ca-certificates on the host";
            return Extracted { problem: Some(Problem::new(ProblemKind::Extract, text, next)), ..Extracted::default() };
        }
        Err(error) => return Extracted::unobserved(&error),
    };
    await_other_runs(exec.root, store);
    // as it was before the first try, whatever that one leaves behind
    let first = match StoreSnapshot::take(exec.root, store, judge.before) {
        Ok(first) => first,
        Err(error) => return Extracted::unobserved(&error),
    };
    let mut run = ToolRun { judge, exec, store, program, first: &first, spent: Duration::ZERO };
    let mut problem = None;
    for attempt in 0..TRIES {
        if attempt > 0 {
            thread::sleep(PAUSE);
        }
        await_other_runs(exec.root, store);
        let links = match (attempt, mode) {
            (0, ExtractMode::Plain) => Links::Added,
            (0, ExtractMode::Fresh) => Links::Checked,
            // what was wrong with the first try may be gone with links made anew
            _ => Links::Anew,
        };
        problem = match run.attempt(links) {
            Ok(()) => None,
            Err(ExtractFailure::Final(problem)) => {
                return Extracted { problem: Some(problem), retry_is_pointless: true, duration: run.spent };
            }
            Err(ExtractFailure::Again(problem)) => Some(problem),
        };
        if problem.is_none() {
            break;
        }
    }
    Extracted { problem, retry_is_pointless: false, duration: run.spent }
}

/// Runs of the store's tool from one snapshot.
struct ToolRun<'a> {
    judge: &'a BundleJudge<'a>,
    exec: &'a HostExec<'a>,
    store: &'static TrustStore,
    /// The tool, absolute on the host.
    program: &'static str,
    /// What a run can damage, as it was before the first try.
    first: &'a StoreSnapshot,
    /// How long the tool ran.
    spent: Duration,
}

impl ToolRun<'_> {
    fn attempt(&mut self, links: Links) -> Result<(), ExtractFailure> {
        self.precondition()?;
        self.exec
            .root
            .create_dir_all(own_paths::TEMP_DIR)
            .map_err(|error| ExtractFailure::unwritten(own_paths::TEMP_DIR, &error))?;
        // what a killed run has left of ours would hide others of the same name; if that fails, the tool says why
        let _ = hash_links::retire_dangling(self.exec.root, self.store);
        let _ = hash_links::retire_nameless(self.exec.root, self.store); // as above
        let done = match &self.store.tool {
            Tool::Staged { staged, .. } => self.staged(links, staged),
            Tool::Direct { .. } => self.direct(self.store.tool.args(links.mode())),
            Tool::Concatenate { .. } => self.concatenate(),
            // nothing is run: see `super::settings` for what the API does
            Tool::SettingsApi { .. } | Tool::None => Ok(()),
        };
        // the tool's own temporary files, if it was killed; what stays is removed in the next cycle
        let _ = self.exec.root.remove_tree(own_paths::TEMP_DIR);
        done
    }

    /// The tool writes beside the bundle; what it wrote is published if it is good.
    fn staged(&mut self, links: Links, staged: &str) -> Result<(), ExtractFailure> {
        let program = self.program;
        let (dir, name) = split(self.store.bundle);
        let path = format!("{dir}/{staged}");
        let new = format!("{path}.new");
        // the tool writes to the first two names and runs what is in the last: it must not be led elsewhere, nor wait for a pipe's reader
        for path in [path.as_str(), &new, own_paths::NO_HOOKS] {
            self.exec.root.remove_file(path).map_err(|error| ExtractFailure::unwritten(path, &error))?;
        }
        let executed = self.execute(program, self.store.tool.args(links.mode()));
        let bytes = match executed {
            Ok(finished) if finished.code == Some(0) => match self.exec.root.own_read(&path, MAX_BUNDLE_BYTES) {
                Ok(bytes) => bytes,
                Err(error) if is_missing(&error) => return self.not_staged(links),
                Err(error) => {
                    let _ = self.exec.root.remove_file(&path); // what stays is removed in the next cycle, or told then
                    let text = format!("what {program} wrote cannot be judged: failed to read {path}: {error}");
                    let next = format!("look for a huge file in {} on the host", self.store.anchors_dir);
                    let problem = Problem::new(ProblemKind::Extract, text, way_out_or(&error, &next));
                    return Err(self.undo(ExtractFailure::Final(problem)));
                }
            },
            failed => {
                // what stays is removed in the next cycle, or told then
                let _ = self.exec.root.remove_file(&path);
                let _ = self.exec.root.remove_file(&new);
                let failure = failed.map_or_else(
                    |failure| failure,
                    |done| ExtractFailure::Again(exit_problem(self.exec.root, self.store, program, &done)),
                );
                return Err(self.undo(failure));
            }
        };
        let judged = self.judge.judge_pasted(bytes, program).and_then(|(after, mended)| {
            if let Some(bytes) = mended {
                let written = self.exec.root.write_atomic(&path, dir, own_paths::BUNDLE, 0o644, &bytes);
                written.map_err(|error| ExtractFailure::unwritten(&path, &error))?;
            }
            if links == Links::Checked {
                self.rehash();
            }
            self.first.keep_links(self.judge, program, &after)
        });
        if let Err(failure) = judged {
            let _ = self.exec.root.remove_file(&path); // as above
            let failure =
                failure.map(|problem| Problem { text: format!("{}; it was not published", problem.text), ..problem });
            return Err(self.undo(failure));
        }
        self.exec.root.publish(dir, staged, name).map_err(|error| {
            let _ = self.exec.root.remove_file(&path); // as above
            self.undo(ExtractFailure::unwritten(self.store.bundle, &error))
        })
    }

    /// The tool has exited 0 and not written where it should. One that does not know the option prints its usage and does nothing; a
    /// wrapper that drops its arguments has written the bundle itself.
    fn not_staged(&mut self, links: Links) -> Result<(), ExtractFailure> {
        let now =
            usable_bundle(self.exec.root, self.store).map_err(|error| self.undo(ExtractFailure::unread(&error)))?;
        if now.as_deref() != self.first.bundle() {
            return self.judge_live(None);
        }
        let args: &[&str] = if links == Links::Added { &[] } else { &["--fresh"] };
        self.direct(args)
    }

    /// The tool writes the bundle; if that made things worse, the old files are put back.
    fn direct(&mut self, args: &[&str]) -> Result<(), ExtractFailure> {
        let program = self.program;
        let failed = match self.execute(program, args) {
            // Alpine's code is that of its hooks: the bundle is what counts
            Ok(done) if done.code == Some(0) || self.store.family == Family::Alpine => {
                return self.judge_live(last_words(&done));
            }
            Ok(done) => ExtractFailure::Again(exit_problem(self.exec.root, self.store, program, &done)),
            Err(failure) => failure,
        };
        // a tool that was stopped may have done half of its work
        Err(self.undo(failed))
    }

    /// Judges what consumers read now; what is worse than it was does not stay.
    fn judge_live(&self, said: Option<String>) -> Result<(), ExtractFailure> {
        let program = self.program;
        let bytes = usable_bundle(self.exec.root, self.store).map_err(|error| ExtractFailure::unread(&error));
        let judged = bytes.and_then(|bytes| self.judge.judge_pasted(bytes.unwrap_or_default(), program));
        let judged = judged.and_then(|(after, mended)| {
            if let Some(bytes) = mended {
                let (dir, _) = split(self.store.bundle);
                let written = self.exec.root.write_atomic(self.store.bundle, dir, own_paths::BUNDLE, 0o644, &bytes);
                written.map_err(|error| ExtractFailure::unwritten(self.store.bundle, &error))?;
            }
            self.first.keep_links(self.judge, program, &after)
        });
        let failure = match judged.and_then(|()| self.first.keep_mode(self.exec.root)) {
            Ok(()) => return Ok(()),
            Err(failure) => failure,
        };
        let failure = failure.map(|problem| match said {
            Some(said) => Problem { text: format!("{}; it said: {said}", problem.text), ..problem },
            None => problem,
        });
        Err(self.undo(failure))
    }

    /// Makes hash links by the tool and the bundle by ourselves, in one rename.
    fn concatenate(&mut self) -> Result<(), ExtractFailure> {
        let program = self.program;
        let finished =
            self.execute(program, self.store.tool.args(ExtractMode::Plain)).map_err(|failure| self.undo(failure))?;
        let mut all = Vec::new();
        let mut seen = BTreeSet::new();
        let dir = self.store.anchors_dir;
        let listing =
            self.exec.root.list(dir).map_err(|error| ExtractFailure::unwritten(dir, &error))?.unwrap_or_default();
        for (name, _) in listing.iter().filter(|(name, _)| self.store.takes.matches(name)) {
            let path = format!("{dir}/{name}");
            let read = usable(self.exec.root.read(&path, MAX_BUNDLE_BYTES)).map_err(at(&path));
            let Some(bytes) = read.map_err(|error| self.undo(ExtractFailure::unread(&error)))? else { continue };
            for block in scan(&bytes).blocks {
                if seen.insert(Fingerprint::of_der(&block.der)) {
                    all.extend_from_slice(encode(&block.der).as_bytes());
                }
            }
        }
        let judged = self.judge.judge(&all, program).and_then(|after| {
            // a file that is no certificate gives another code: the links are what counts
            let linked = hash_links::linked(self.exec.root, self.store, &after)
                .map_err(|error| ExtractFailure::unread(&error))?;
            if finished.code != Some(0) && !linked.values().all(|linked| self.judge.expected.is_subset(linked)) {
                return Err(ExtractFailure::Again(exit_problem(self.exec.root, self.store, program, &finished)));
            }
            self.first.keep_links(self.judge, program, &after)
        });
        judged.map_err(|failure| self.undo(failure))?;
        let (to, _) = split(self.store.bundle);
        let written = self.exec.root.write_atomic(self.store.bundle, to, own_paths::BUNDLE, 0o644, &all);
        written.map_err(|error| self.undo(ExtractFailure::unwritten(self.store.bundle, &error)))
    }

    /// Makes every hash link that is missing, without taking one away first as `--fresh` does. Its exit code says little: a file that
    /// is no certificate gives another one. What has no link afterwards is seen.
    fn rehash(&mut self) {
        let Some(dir) = self.store.hash_dir else { return };
        match self.execute(OPENSSL, &["rehash", dir]) {
            Ok(finished) if finished.code == Some(0) => {}
            Ok(finished) => tracing::debug!(code = ?finished.code, output = finished.output, "openssl rehash"),
            Err(_) => tracing::warn!("{OPENSSL} rehash did not come to its end"),
        }
    }

    /// What would make a run of the tool harmful from its beginning: it takes links away before it writes anything.
    fn precondition(&self) -> Result<(), ExtractFailure> {
        let (root, program) = (self.exec.root, self.program);
        let refuse = |why: &str, next: &str| {
            let text = format!("{why}: {program} would leave out the distribution's certificates; it was not run");
            Err(ExtractFailure::Final(Problem::new(ProblemKind::ForeignLost, text, next)))
        };
        let family = self.store.family;
        let selected = || selected(root, family).map_err(|error| ExtractFailure::unread(&error));
        match family {
            Family::Debian | Family::Alpine if selected()?.names.is_empty() => {
                let mut shipped = BTreeSet::new();
                certificates_below(root, SHIPPED, 0, &mut shipped).map_err(|error| ExtractFailure::unread(&error))?;
                if shipped.is_disjoint(&self.judge.before.set) {
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
                    ExtractFailure::Final(Problem::new(ProblemKind::Observe, text, "look at the path on the host"))
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

    fn execute(&mut self, program: &str, args: &[&str]) -> Result<Finished, ExtractFailure> {
        let started = Instant::now();
        let result = self.exec.run(program, args, None);
        self.spent += started.elapsed();
        result.map_err(|error| {
            let problem = |next: &str| Problem::new(ProblemKind::Extract, chain(&error), next);
            match &error {
                ExecError::Start { source, .. } => {
                    let next = "is /proc mounted, and may more processes be started here?";
                    ExtractFailure::Again(problem(&way_out_or(source, next)))
                }
                // others wait for the lock no longer than one run may take
                ExecError::TimedOut { .. } => {
                    let next = "see what the tool waits for on the host; store.extractTimeout sets the limit";
                    let text = format!("time-out (store.extractTimeout): {}", chain(&error));
                    ExtractFailure::Final(Problem::new(ProblemKind::Extract, text, next))
                }
            }
        })
    }

    fn undo(&self, failure: ExtractFailure) -> ExtractFailure {
        self.first.undo(self.judge, failure)
    }
}

/// The store's tool, None if the host has none of its names.
fn program_of(root: &HostRoot, store: &TrustStore) -> Result<Option<&'static str>, ObserveError> {
    for path in store.tool.programs() {
        let found = usable(root.stat(path)).map_err(at(path))?.flatten();
        if found.is_some_and(|meta| meta.kind == FileKind::File) {
            return Ok(Some(path));
        }
    }
    Ok(None)
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
