//! Running the store's tool so that the bundle gets better or stays as it is.
//!
//! What a tool leaves behind is read and judged before consumers see it (Debian, where the bundle can be staged) or right after,
//! with the old files at hand to put them back (the others). A run that lost other people's certificates, or broke the file
//! for OpenSSL, does not stand.

use std::{
    collections::BTreeSet,
    io,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use nodetrust_core::{
    bundle,
    fingerprint::Fingerprint,
    state::Effective,
    store::{ExtractMode, Family, Tool, TrustStore},
    verify::{Problem, ProblemKind, lost_foreign},
};

use crate::{
    host::{
        exec::{ExecError, Finished, HostExec},
        ledger,
        obstacle::way_out_or,
        own,
        root::{HostRoot, Kind},
    },
    observe::{self, MAX_BUNDLE_BYTES, await_other_runs, certificates_below, with_a_source},
    outputs::{Extent, Outputs},
};

/// Tries for one extract: a second one after a lost race with another runner (apt, a dpkg trigger, a path unit).
const TRIES: usize = 2;
/// Pause before the second try.
const PAUSE: Duration = Duration::from_millis(300);

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

impl Extraction<'_> {
    /// Runs the tool, twice at most.
    pub fn run(&self, mode: ExtractMode) -> Extracted {
        let mut result = Extracted::default();
        let Some(program) = self.program() else {
            let names = self.store.tool.programs().join(" nor ");
            let next = "install the distribution's package ca-certificates on the host";
            result.problem =
                Some(Problem::new(ProblemKind::Extract, format!("neither {names} exists on the host"), next));
            return result;
        };
        for attempt in 0..TRIES {
            if attempt > 0 {
                thread::sleep(PAUSE);
            }
            await_other_runs(self.root(), self.store);
            // what was wrong with the first try may be gone with links made anew
            let mode = if attempt == 0 { mode } else { ExtractMode::Fresh };
            result.problem = match self.attempt(program, mode, &mut result.duration) {
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

    fn attempt(&self, program: &str, mode: ExtractMode, spent: &mut Duration) -> Result<(), Failure> {
        self.precondition(program)?;
        self.root().create_dir_all(ledger::TEMP).map_err(|error| write_failure(ledger::TEMP, &error))?;
        let done = match &self.store.tool {
            Tool::Staged { staged, .. } => self.staged(program, mode, staged, spent),
            Tool::Direct { .. } => self.direct(program, self.store.tool.args(mode), spent),
            Tool::Concatenate { .. } => self.concatenate(program, spent),
            Tool::None => Ok(()),
        };
        // the tool's own temporary files, if it was killed; what stays is removed in the next cycle
        let _ = self.root().remove_tree(ledger::TEMP);
        done
    }

    /// The tool writes beside the bundle; what it wrote is published if it is good.
    fn staged(&self, program: &str, mode: ExtractMode, staged: &str, spent: &mut Duration) -> Result<(), Failure> {
        let (dir, name) = split(self.store.bundle);
        let path = format!("{dir}/{staged}");
        let new = format!("{path}.new");
        // the tool writes to the first two names and runs what is in the last: it must not be led elsewhere, nor wait for a pipe's reader
        for path in [path.as_str(), &new, own::NO_HOOKS] {
            self.root().remove_file(path).map_err(|error| write_failure(path, &error))?;
        }
        let remove = || {
            // what stays is removed in the next cycle, or told then
            let _ = self.root().remove_file(&path);
            let _ = self.root().remove_file(&new);
        };
        let outputs = Outputs::save(self.root(), self.store);
        // with `--fresh` the tool takes all links away first; a run that failed has not made them anew
        let undo = |extent| {
            remove();
            let _ = outputs.put_back(self.root(), extent);
        };
        let args = self.store.tool.args(mode);
        let finished = self.execute(program, args, spent).inspect_err(|_| undo(Extent::Missing))?;
        if finished.code != Some(0) {
            undo(Extent::Missing);
            return Err(Failure::Again(exit_problem(program, &finished)));
        }
        let Ok(bytes) = self.root().own_read(&path, MAX_BUNDLE_BYTES) else {
            // a tool that does not know the option prints its usage and exits 0
            let plain: &[&str] = if mode == ExtractMode::Fresh { &["--fresh"] } else { &[] };
            return self.direct(program, plain, spent);
        };
        let after = bundle::read(&bytes);
        if let Err(failure) = self.judge(&after, program) {
            undo(if matches!(failure, Failure::Final(_)) { Extent::All } else { Extent::Missing });
            return Err(failure);
        }
        self.root().publish(dir, staged, name).map_err(|error| {
            remove();
            write_failure(self.store.bundle, &error)
        })
    }

    /// The tool writes the bundle; if that made things worse, the old files are put back.
    fn direct(&self, program: &str, args: &[&str], spent: &mut Duration) -> Result<(), Failure> {
        let outputs = Outputs::save(self.root(), self.store);
        let executed = self.execute(program, args, spent);
        let bytes = self.root().read(self.store.bundle, MAX_BUNDLE_BYTES);
        let after = bytes.map(|bytes| bundle::read(&bytes)).unwrap_or_default();
        // a tool that was stopped may have done half of its work
        match (self.judge(&after, program), executed) {
            (Err(Failure::Final(mut problem)), _) => {
                if let Err((path, error)) = outputs.put_back(self.root(), Extent::All) {
                    problem.text = format!("{}; putting {path} back failed: {error}", problem.text);
                }
                Err(Failure::Final(problem))
            }
            (Ok(()) | Err(Failure::Again(_)), Err(failure)) => {
                // what cannot be put back now, the next run makes
                let _ = outputs.put_back(self.root(), Extent::Missing);
                Err(failure)
            }
            (Err(Failure::Again(_)), Ok(finished)) if finished.code != Some(0) => {
                let _ = outputs.put_back(self.root(), Extent::Missing);
                Err(Failure::Again(exit_problem(program, &finished)))
            }
            // the old scripts of RHEL exit with the code of their last part
            (Err(Failure::Again(mut problem)), Ok(finished)) => {
                if let Some(said) = last_words(&finished) {
                    problem.text = format!("{}; it said: {said}", problem.text);
                }
                Err(Failure::Again(problem))
            }
            // Alpine's code is that of its hooks: the bundle is what counts, and it is right
            (Ok(()), Ok(finished)) if finished.code != Some(0) && self.store.family != Family::Alpine => {
                Err(Failure::Again(exit_problem(program, &finished)))
            }
            (Ok(()), _) => Ok(()),
        }
    }

    /// Makes hash links by the tool and the bundle by ourselves, in one rename.
    fn concatenate(&self, program: &str, spent: &mut Duration) -> Result<(), Failure> {
        let finished = self.execute(program, self.store.tool.args(ExtractMode::Plain), spent)?;
        if finished.code != Some(0) {
            return Err(Failure::Again(exit_problem(program, &finished)));
        }
        let mut all = Vec::new();
        let mut seen = BTreeSet::new();
        let dir = self.store.anchors_dir;
        let listing = self.root().list(dir).map_err(|error| write_failure(dir, &error))?.unwrap_or_default();
        for (name, _) in listing.iter().filter(|(name, _)| self.store.takes.matches(name)) {
            let Ok(bytes) = self.root().read(format!("{dir}/{name}"), MAX_BUNDLE_BYTES) else { continue };
            for block in nodetrust_core::pem::scan(&bytes).blocks {
                if seen.insert(Fingerprint::of_der(&block.der)) {
                    all.extend_from_slice(nodetrust_core::pem::encode(&block.der).as_bytes());
                }
            }
        }
        self.judge(&bundle::read(&all), program)?;
        let (to, _) = split(self.store.bundle);
        let written = self.root().write_atomic(self.store.bundle, to, own::BUNDLE, 0o644, &all);
        written.map_err(|error| write_failure(self.store.bundle, &error))
    }

    /// Is this bundle one that may stand?
    fn judge(&self, after: &Effective, program: &str) -> Result<(), Failure> {
        let lost = lost_foreign(self.before, after, self.ours);
        let dropped = lost.len();
        let without_reason = with_a_source(self.root(), self.store, lost, Some(self.exec.limit));
        let without_reason = without_reason.map_err(|error| observe_failure(&error))?.len();
        if without_reason > 0 {
            let text = format!(
                "{program} left out {without_reason} of {} certificates that are not ours, though their sources are still there; the bundle stays as it was",
                self.before.set.len()
            );
            let next = match self.store.family {
                Family::Debian => {
                    "on the host: is /etc/ca-certificates.conf there and complete? dpkg-reconfigure ca-certificates writes it anew"
                }
                Family::Redhat | Family::Suse | Family::Arch => {
                    "on the host: is p11-kit's trust module installed (package p11-kit-trust)? `trust list` should print the distribution's CAs"
                }
                _ => "on the host: run the tool by hand and look at its output",
            };
            return Err(Failure::Final(Problem::new(ProblemKind::ForeignLost, text, next)));
        }
        if let (true, Some(fault)) = (self.before.present && self.before.faults.is_empty(), after.faults.first()) {
            let text = format!(
                "{program} made a bundle that OpenSSL cannot load (line {}: {}); the old one stays",
                fault.line, fault.detail
            );
            let problem =
                Problem::new(ProblemKind::BundleBroken, text, "look for a broken file in the anchor directories");
            return Err(Failure::Final(problem));
        }
        if after.private_key && !self.before.private_key {
            let text = format!("{program} copied a private key into its bundle; the old one stays");
            let problem =
                Problem::new(ProblemKind::BundlePrivateKey, text, "look for a private key in the anchor directories");
            return Err(Failure::Final(problem));
        }
        if dropped > 0 {
            // somebody had put them into the bundle itself, or has removed their files: the tool knows nothing of them
            tracing::warn!(count = dropped, "certificates without a source have left the bundle");
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
        Ok(())
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
                ExecError::TimedOut { .. } => Failure::Final(problem(
                    "see what the tool waits for on the host; store.extractTimeout sets the limit",
                )),
            }
        })
    }

    fn program(&self) -> Option<&'static str> {
        let is_there = |path: &&&str| self.root().stat(path).ok().flatten().is_some_and(|meta| meta.kind == Kind::File);
        self.store.tool.programs().iter().find(is_there).copied()
    }

    fn root(&self) -> &HostRoot {
        self.exec.root
    }
}

enum Failure {
    /// A second try may do better.
    Again(Problem),
    /// It would end the same.
    Final(Problem),
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

/// The last line of what a tool printed. p11-kit leaves system errors as numbers.
fn last_words(finished: &Finished) -> Option<String> {
    let said = finished.output.trim().lines().next_back()?;
    let number = said.rsplit_once("Unknown error ").and_then(|(_, number)| number.parse().ok());
    Some(match number {
        Some(number) => format!("{said} ({})", io::Error::from_raw_os_error(number)),
        None => said.to_owned(),
    })
}

fn exit_problem(program: &str, finished: &Finished) -> Problem {
    let how = match finished.code {
        Some(code) => format!("exit code {code}"),
        None => "ended by a signal".to_owned(),
    };
    let said = last_words(finished).unwrap_or_else(|| "it printed nothing".to_owned());
    Problem::new(
        ProblemKind::Extract,
        format!("{program}: {how}: {said}"),
        format!("run {program} on the host and look at its output"),
    )
}

/// What the tool reads could not be read: whether it may lose something is not known.
fn observe_failure(error: &observe::ObserveError) -> Failure {
    let text = format!("{}; the bundle stays as it was", chain(error));
    Failure::Final(Problem::new(ProblemKind::Observe, text, "look at the path on the host"))
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
