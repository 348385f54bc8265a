//! Running the store's tool so that the bundle gets better or stays as it is.
//!
//! What a tool leaves behind is read and judged before consumers see it (Debian, where the bundle can be staged) or right after,
//! with the old files at hand to put them back (the others). A run that lost other people's certificates, or broke the file
//! for OpenSSL, does not stand.

use std::{
    collections::BTreeSet,
    ffi::OsString,
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
        root::{HostRoot, Kind},
    },
    observe::{MAX_BUNDLE_BYTES, await_other_runs, certificates_below},
};

/// Tries for one extract: a second one after a lost race with another runner (apt, a dpkg trigger, a path unit).
const TRIES: usize = 2;
/// Debian's and Alpine's list of the distribution's certificates, below [`SHIPPED`].
const SELECTED: &str = "/etc/ca-certificates.conf";
const SHIPPED: &str = "/usr/share/ca-certificates";
/// Temporary name of what is put back.
const RESTORE: &str = ".nodetrust-restore.tmp";
/// Pause before the second try.
const PAUSE: Duration = Duration::from_millis(300);

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
}

/// What became of an extract.
#[derive(Debug, Default)]
pub struct Extracted {
    /// What went wrong, if it did.
    pub problem: Option<Problem>,
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
                Err(Failure::Final(problem)) => return Extracted { problem: Some(problem), ..result },
                Err(Failure::Again(problem)) => Some(problem),
            };
            if result.problem.is_none() {
                break;
            }
        }
        result
    }

    fn attempt(&self, program: &str, mode: ExtractMode, spent: &mut Duration) -> Result<(), Failure> {
        self.refuse_cut_list(program)?;
        self.root().create_dir_all(ledger::TEMP).map_err(|error| write_failure(ledger::TEMP, &error))?;
        let done = match &self.store.tool {
            Tool::Staged { staged, .. } => self.staged(program, mode, staged, spent),
            Tool::Direct { .. } => self.direct(program, self.store.tool.args(mode), spent),
            Tool::Concatenate { .. } => self.concatenate(program, spent),
            Tool::None => Ok(()),
        };
        // the tool's own temporary files, if it was killed; what stays is removed in the next cycle
        let _ = self.root().remove_flat_dir(ledger::TEMP);
        done
    }

    /// The tool writes beside the bundle; what it wrote is published if it is good.
    fn staged(&self, program: &str, mode: ExtractMode, staged: &str, spent: &mut Duration) -> Result<(), Failure> {
        let (dir, name) = split(self.store.bundle);
        let path = format!("{dir}/{staged}");
        let remove = || {
            let _ = self.root().remove_file(&path);
            let _ = self.root().remove_file(format!("{path}.new"));
        };
        remove();
        let finished = self.execute(program, self.store.tool.args(mode), spent).inspect_err(|_| remove())?;
        if finished.code != Some(0) {
            remove();
            return Err(Failure::Again(exit_problem(program, &finished)));
        }
        let Ok(bytes) = self.root().read(&path, MAX_BUNDLE_BYTES) else {
            // a tool that does not know the option prints its usage and exits 0
            let plain: &[&str] = if mode == ExtractMode::Fresh { &["--fresh"] } else { &[] };
            return self.direct(program, plain, spent);
        };
        let after = bundle::read(&bytes);
        if let Err(failure) = self.judge(&after, program) {
            remove();
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
        let run = self.execute(program, args, spent);
        let bytes = self.root().read(self.store.bundle, MAX_BUNDLE_BYTES);
        let after = bytes.map(|bytes| bundle::read(&bytes)).unwrap_or_default();
        let judged = match self.judge(&after, program) {
            Err(Failure::Final(mut problem)) => {
                if let Err((path, error)) = outputs.put_back(self.root(), Extent::All) {
                    problem.text = format!("{}; putting {path} back failed: {error}", problem.text);
                }
                return Err(Failure::Final(problem));
            }
            other => other,
        };
        match (&judged, &run) {
            (Err(_), Ok(finished)) if finished.code == Some(0) => {}
            // RHEL's newer script takes all links away first and makes them at its end, which this run has not reached.
            // What cannot be put back now, the next run makes.
            (Err(_), _) | (Ok(()), Err(_)) => drop(outputs.put_back(self.root(), Extent::Missing)),
            (Ok(()), Ok(_)) => {}
        }
        match (judged, run?) {
            (Err(failure), _) => Err(failure),
            // a hook that failed, a lost race: the bundle is what counts, and it is right
            (Ok(()), finished) if finished.code != Some(0) && self.store.family != Family::Alpine => {
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
        let written = self.root().write_atomic(self.store.bundle, to, ".nodetrust-bundle.tmp", 0o644, &all);
        written.map_err(|error| write_failure(self.store.bundle, &error))
    }

    /// Is this bundle one that may stand?
    fn judge(&self, after: &Effective, program: &str) -> Result<(), Failure> {
        let lost = lost_foreign(self.before, after, self.ours);
        let without_reason = if lost.is_empty() { 0 } else { self.still_have_a_source(&lost) };
        if without_reason > 0 {
            let text = format!(
                "{program} left out {without_reason} of {} certificates that are not ours, though their sources are still there; the bundle stays as it was",
                self.before.set.len()
            );
            return Err(self.foreign_lost(text));
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
        let missing = self.expected.difference(&after.set).count();
        if missing > 0 {
            let text = format!("{program} left out {missing} of our anchors");
            return Err(Failure::Again(Problem::new(ProblemKind::NotTrusted, text, "")));
        }
        Ok(())
    }

    fn foreign_lost(&self, text: String) -> Failure {
        let next = match self.store.family {
            Family::Debian => {
                "on the host: is /etc/ca-certificates.conf there and complete? dpkg-reconfigure ca-certificates writes it anew"
            }
            Family::Redhat | Family::Suse | Family::Arch => {
                "on the host: is p11-kit's trust module installed (package p11-kit-trust)? `trust list` should print the distribution's CAs"
            }
            _ => "on the host: run the tool by hand and look at its output",
        };
        Failure::Final(Problem::new(ProblemKind::ForeignLost, text, next))
    }

    /// Without its list of the distribution's certificates the tool takes their links away before its bundle can be judged, so
    /// it is not run at all.
    fn refuse_cut_list(&self, program: &str) -> Result<(), Failure> {
        if !matches!(self.store.family, Family::Debian | Family::Alpine) || !self.selected().is_empty() {
            return Ok(());
        }
        let mut shipped = BTreeSet::new();
        certificates_below(self.root(), SHIPPED, 0, &mut shipped);
        match shipped.intersection(&self.before.set).filter(|fingerprint| !self.ours.contains(fingerprint)).count() {
            0 => Ok(()),
            n => Err(self.foreign_lost(format!(
                "{SELECTED} is missing or selects nothing: {program} would leave out {n} of {} certificates that are not ours; it was not run",
                self.before.set.len()
            ))),
        }
    }

    /// The distribution's certificates that the administrator has selected: files below [`SHIPPED`].
    fn selected(&self) -> Vec<String> {
        let list = self.root().read(SELECTED, 1 << 20).unwrap_or_default();
        let list = String::from_utf8_lossy(&list);
        list.lines().filter(|line| !line.is_empty() && !line.starts_with(['#', '!'])).map(str::to_owned).collect()
    }

    /// How many of these certificates are still in files that the tool should have read. Others have left by somebody's will.
    fn still_have_a_source(&self, lost: &BTreeSet<Fingerprint>) -> usize {
        let root = self.root();
        let mut sources = BTreeSet::new();
        let mut blocked = BTreeSet::new();
        match self.store.family {
            Family::Debian | Family::Alpine => {
                certificates_below(root, self.store.anchors_dir, 0, &mut sources);
                for name in self.selected() {
                    if let Ok(bytes) = root.read(format!("{SHIPPED}/{name}"), MAX_BUNDLE_BYTES) {
                        sources.extend(bundle::read(&bytes).set);
                    }
                }
            }
            Family::Redhat => {
                for dir in ["/usr/share/pki/ca-trust-source", "/etc/pki/ca-trust/source"] {
                    certificates_below(root, dir, 0, &mut sources);
                    for name in ["blocklist", "blacklist"] {
                        certificates_below(root, &format!("{dir}/{name}"), 0, &mut blocked);
                    }
                }
            }
            Family::Suse => {
                for dir in ["/usr/share/pki/trust", "/etc/pki/trust"] {
                    certificates_below(root, dir, 0, &mut sources);
                    for name in ["blocklist", "blacklist"] {
                        certificates_below(root, &format!("{dir}/{name}"), 0, &mut blocked);
                    }
                }
            }
            Family::Arch => {
                for dir in ["/usr/share/ca-certificates/trust-source", "/etc/ca-certificates/trust-source"] {
                    certificates_below(root, dir, 0, &mut sources);
                    certificates_below(root, &format!("{dir}/blocklist"), 0, &mut blocked);
                }
            }
            Family::Flatcar | Family::Photon | Family::Directory => {
                certificates_below(root, SHIPPED, 0, &mut sources);
            }
        }
        lost.iter().filter(|fingerprint| sources.contains(fingerprint) && !blocked.contains(fingerprint)).count()
    }

    fn execute(&self, program: &str, args: &[&str], spent: &mut Duration) -> Result<Finished, Failure> {
        let started = Instant::now();
        let result = self.exec.run(program, args, None);
        *spent += started.elapsed();
        result.map_err(|error| {
            let next = match &error {
                ExecError::Start { .. } => "does the agent have CAP_SYS_CHROOT, and is the host's root mounted?",
                ExecError::TimedOut { .. } => {
                    "see what the tool waits for on the host; store.extractTimeout sets the limit"
                }
            };
            Failure::Again(Problem::new(ProblemKind::Extract, chain(&error), next))
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

/// How much is put back.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Extent {
    /// What is gone or changed.
    All,
    /// What is gone.
    Missing,
}

/// What a run of the tool replaces, as it was: the store's files, and the files and links in its directories.
struct Outputs {
    /// on the outputs' file system, and looked through for what a killed run left
    temp_dir: &'static str,
    saved: Vec<(String, Output)>,
}

enum Output {
    File(Vec<u8>, u32),
    Link(OsString),
}

impl Outputs {
    /// What cannot be read is not saved: the tool may still do its work, and mostly does.
    fn save(root: &HostRoot, store: &'static TrustStore) -> Self {
        let mut saved = Vec::new();
        let mut save = |path: String, mode: u32| {
            if let Ok(bytes) = root.read(&path, MAX_BUNDLE_BYTES) {
                saved.push((path, Output::File(bytes, mode)));
            }
        };
        let mut links = Vec::new();
        for path in std::iter::once(&store.bundle).chain(store.outputs) {
            let Ok(Some(meta)) = root.stat(path) else { continue };
            if meta.kind == Kind::File {
                save((*path).to_owned(), meta.mode);
                continue;
            }
            for (name, meta) in root.list(path).ok().flatten().unwrap_or_default() {
                let path = format!("{path}/{name}");
                match meta.kind {
                    // other files in such a directory are not the tool's
                    Kind::File if name.ends_with(".pem") => save(path, meta.mode),
                    Kind::Link => links.extend(root.link_target(&path).map(|target| (path, Output::Link(target)))),
                    _ => {}
                }
            }
        }
        saved.extend(links); // after the files that they lead to
        Self { temp_dir: split(store.bundle).0, saved }
    }

    /// Puts back as much as can be; the first path that could not be, and why.
    fn put_back(&self, root: &HostRoot, extent: Extent) -> Result<(), (&str, io::Error)> {
        let mut result = Ok(());
        for (path, output) in &self.saved {
            let put = match output {
                Output::File(bytes, mode) => match root.read(path, MAX_BUNDLE_BYTES) {
                    Ok(now) if extent == Extent::Missing || now == *bytes => continue,
                    _ => root.write_atomic(path, self.temp_dir, RESTORE, *mode, bytes),
                },
                Output::Link(target) => match root.link_target(path) {
                    Some(now) if extent == Extent::Missing || now == *target => continue,
                    _ => root.link_atomic(path, self.temp_dir, RESTORE, target),
                },
            };
            if let (Ok(()), Err(error)) = (&result, put) {
                result = Err((path.as_str(), error));
            }
        }
        result
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

fn exit_problem(program: &str, finished: &Finished) -> Problem {
    let how = match finished.code {
        Some(code) => format!("exit code {code}"),
        None => "ended by a signal".to_owned(),
    };
    let said = finished.output.trim().lines().next_back().unwrap_or("it printed nothing").to_owned();
    Problem::new(
        ProblemKind::Extract,
        format!("{program}: {how}: {said}"),
        format!("run {program} on the host and look at its output"),
    )
}

fn write_failure(path: &str, error: &std::io::Error) -> Failure {
    Failure::Final(write_problem(path, error))
}

/// A file of the host could not be written.
pub fn write_problem(path: &str, error: &std::io::Error) -> Problem {
    use std::io::ErrorKind;
    let next = match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "free space on the host's file system",
        ErrorKind::ReadOnlyFilesystem => {
            "the directory is on a read-only file system: use the system's own way to add a CA"
        }
        ErrorKind::PermissionDenied => "run as root; with SELinux the container needs the type spc_t",
        _ => "look at the path on the host",
    };
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
