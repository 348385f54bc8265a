//! What the process of a containerd reads as its registry directory: its own program is asked, else its files are read here.
//!
//! containerd reads its configuration once. So what its files say counts only if none of them, and no directory that more of them can
//! come from, has changed since the process started: what came, changed or went after that is not what it reads. In doubt a
//! change counts as one that came after the start.

use std::collections::{BTreeSet, VecDeque};

use nodetrust_core::runtime::{
    containerd::{ContainerdFile, Generation, fits, import_place, is_pattern, joined, pattern_parts},
    registry_dir::Setting,
};

use super::{changes::Since, launch::Launch};
use crate::{
    error::chain,
    host::{exec::HostExec, file::FileKind, root::HostRoot},
};

/// Largest configuration file, in bytes.
const MAX_CONFIG: u64 = 4 << 20;
/// Files that a configuration may consist of.
const MAX_FILES: usize = 256;
/// Exit code of our helper, of shells and of the loader of programs, where a program cannot be run at all.
const CANNOT_RUN: i32 = 126;

/// What a program says of its configuration.
enum ProgramAnswer {
    /// What it makes of it.
    Dump(ContainerdFile),
    /// It does not take it.
    Refused(String),
    /// There is no program to ask: why.
    Nobody(String),
}

/// What the process reads. `version` is what it says its version is, empty if it says nothing; without a process nothing reads
/// anything, and the answer is what the next one will read.
pub(crate) fn setting(exec: &HostExec<'_>, launch: &Launch, version: &str, since: Option<&Since<'_>>) -> Setting {
    let told = ask(exec, launch, Some(version));
    // after the question: what changes meanwhile must be seen
    let sources = ConfigFiles::read(exec.root, &launch.config);
    if let Some(path) = since.and_then(|since| sources.watched.iter().find(|path| since.changed(path))) {
        return Setting::ChangedSince(path.clone());
    }
    match told {
        ProgramAnswer::Dump(file) => file.dumped(),
        ProgramAnswer::Refused(why) => Setting::Unknown(why),
        ProgramAnswer::Nobody(why) => sources.joined(Generation::of(version)).unwrap_or_else(|doubt| {
            Setting::Unknown(format!("{why}, and {} cannot be judged without it: {doubt}", launch.config))
        }),
    }
}

/// Whether the program would start with its configuration as it is now, as far as it tells beforehand: not what its plug-ins
/// make of it (facts C.6). Where it cannot be asked, only a file speaks against it that was changed since the process has read it, and
/// is no TOML now.
///
/// # Errors
/// Why it would not.
pub(crate) fn would_load(exec: &HostExec<'_>, launch: &Launch, since: Option<&Since<'_>>) -> Result<(), String> {
    let mut launch = launch.clone();
    launch.programs = launch.next_program.iter().chain(&launch.programs).cloned().collect();
    let told = ask(exec, &launch, None);
    let sources = ConfigFiles::read(exec.root, &launch.config);
    match told {
        ProgramAnswer::Refused(why) => return Err(why),
        ProgramAnswer::Dump(_) => {}
        ProgramAnswer::Nobody(why) => {
            tracing::debug!(why, "whether the runtime would start again could not be asked");
            let is_new = |path: &str| since.is_none_or(|since| since.changed(path));
            if let Some((path, why)) = sources.broken.iter().find(|(path, _)| is_new(path)) {
                return Err(format!("{path} {why}"));
            }
        }
    }
    // 2.1 prints its configuration all the same, and does not start
    sources.missing.first().map_or(Ok(()), |path| Err(format!("{} takes in {path}, which is not there", launch.config)))
}

/// The socket that its configuration names; None if it names none or cannot be read.
pub(crate) fn address(root: &HostRoot, launch: &Launch) -> Option<String> {
    let files = ConfigFiles::read(root, &launch.config).files;
    launch.address.clone().or_else(|| files.iter().rev().find_map(ContainerdFile::address))
}

/// Its configuration files as they are now.
///
/// # Errors
/// The first thing that was not understood.
pub(crate) fn files(root: &HostRoot, launch: &Launch) -> Result<Vec<ContainerdFile>, String> {
    let sources = ConfigFiles::read(root, &launch.config);
    sources.doubt.map_or(Ok(sources.files), Err)
}

/// Asks the first of its programs that runs here; of this version, if one is given.
fn ask(exec: &HostExec<'_>, launch: &Launch, version: Option<&str>) -> ProgramAnswer {
    let mut nobody = "the program that runs cannot be named".to_owned();
    for program in &launch.programs {
        // a program that does not even say its version fails for a reason of its own: another C library, say
        let its_version = match exec.run(program, &["--version"], None) {
            Ok(finished) if finished.code == Some(0) => finished.output,
            Ok(finished) => {
                nobody = match finished.output.lines().next_back() {
                    Some(line) if finished.code == Some(CANNOT_RUN + 1) => line.trim_end().to_owned(),
                    _ => format!("{program} cannot be run by itself"),
                };
                continue;
            }
            Err(error) => {
                nobody = chain(&error);
                continue;
            }
        };
        let runs = version.map(|version| version.trim_start_matches('v')).filter(|version| !version.is_empty());
        if let Some(runs) = runs
            && !its_version.split_whitespace().any(|word| word.trim_start_matches('v') == runs)
        {
            nobody = format!("{program} is another version than the process, which is {runs}");
            continue;
        }
        return dump(exec, launch, program);
    }
    ProgramAnswer::Nobody(nobody)
}

/// The configuration as the program understands it.
fn dump(exec: &HostExec<'_>, launch: &Launch, program: &str) -> ProgramAnswer {
    let is_missing = matches!(exec.root.stat(&launch.config), Ok(None));
    // 1.x starts without a file that it was not told of, and refuses to print what it makes of that
    let args: &[&str] = if is_missing && !launch.names_config {
        &["config", "default"]
    } else {
        &["--config", &launch.config, "config", "dump"]
    };
    match exec.ask(program, args) {
        Ok(finished) if finished.code == Some(0) => match ContainerdFile::parse(&finished.stdout) {
            Ok(file) => ProgramAnswer::Dump(file),
            Err(why) => {
                ProgramAnswer::Nobody(format!("what `{program}` prints of its configuration is no TOML: {why}"))
            }
        },
        Ok(finished) if finished.code.is_some_and(|code| code < CANNOT_RUN) => {
            // what it says may quote the configuration, which may hold credentials
            tracing::debug!(output = finished.output, "the runtime cannot read its own configuration");
            ProgramAnswer::Refused(format!("`{program} {}` fails: run it on the node to see why", args.join(" ")))
        }
        Ok(_) => ProgramAnswer::Nobody(format!("{program} was ended while it read its configuration")),
        Err(error) => ProgramAnswer::Nobody(chain(&error)),
    }
}

/// The files of a configuration, and where a change of it would show.
#[derive(Debug, Default)]
struct ConfigFiles {
    /// In the order in which containerd reads them: a file, then what it and the others before it take in.
    files: Vec<ContainerdFile>,
    /// Files, and directories that more of them may come from, or from which one went.
    watched: BTreeSet<String>,
    /// Files that are taken in by their name and are not there: no containerd starts then.
    missing: Vec<String>,
    /// Files that are no TOML, and why.
    broken: Vec<(String, String)>,
    /// The first thing that was not understood; then what the files say together is not known.
    doubt: Option<String>,
}

impl ConfigFiles {
    fn read(root: &HostRoot, config: &str) -> Self {
        let mut sources = Self::default();
        let mut seen = BTreeSet::new();
        let mut pending = VecDeque::from([config.to_owned()]);
        while let Some(path) = pending.pop_front() {
            if !seen.insert(path.clone()) {
                continue;
            }
            if seen.len() > MAX_FILES {
                sources.doubts(format!("it consists of more than {MAX_FILES} files"));
                break;
            }
            let Some(file) = sources.file(root, &path, path == config) else { continue };
            for import in file.imports() {
                let place = import_place(&path, &import);
                if !is_pattern(&place) {
                    pending.push_back(place);
                } else {
                    if !import.starts_with('/') {
                        // 1.6 looks for it from the process's directory
                        sources.doubts(format!("`{import}` in {path} is a pattern without a place"));
                    }
                    pending.extend(sources.expand(root, &place));
                }
            }
            sources.files.push(file);
        }
        sources
    }

    /// Reads a file; None if it is not there or is no configuration.
    fn file(&mut self, root: &HostRoot, path: &str, is_first: bool) -> Option<ContainerdFile> {
        let bytes = match root.read(path, MAX_CONFIG) {
            Ok(bytes) => bytes,
            Err(error) => {
                if crate::host::file::is_missing(&error) {
                    self.watched.insert(nearest_directory(root, path));
                    if is_first {
                        return None; // then nothing is configured
                    }
                    self.missing.push(path.to_owned());
                } else {
                    self.watched.insert(path.to_owned());
                }
                self.doubts(format!("failed to read {path}: {error}"));
                return None;
            }
        };
        self.watched.insert(path.to_owned());
        match String::from_utf8(bytes)
            .map_err(|_| "no UTF-8 text".to_owned())
            .and_then(|text| ContainerdFile::parse(&text))
        {
            Ok(file) => Some(file),
            Err(why) => {
                let why = format!("is no TOML: {why}");
                self.doubts(format!("{path} {why}"));
                self.broken.push((path.to_owned(), why));
                None
            }
        }
    }

    /// The files that a pattern fits now. Each directory in which it looks for them is watched.
    fn expand(&mut self, root: &HostRoot, pattern: &str) -> Vec<String> {
        let (base, names) = pattern_parts(pattern);
        let mut places = vec![base];
        for (level, wanted) in names.iter().enumerate() {
            let mut fitting = Vec::new();
            for place in places {
                match root.list(&place) {
                    Ok(Some(listing)) => {
                        for (name, _) in listing {
                            match fits(wanted, &name) {
                                Some(true) => fitting.push(format!("{}/{name}", place.trim_end_matches('/'))),
                                Some(false) => {}
                                None => self.doubts(format!("`{pattern}` is a pattern that is not understood here")),
                            }
                        }
                        self.watched.insert(place);
                    }
                    Ok(None) => drop(self.watched.insert(nearest_directory(root, &place))),
                    Err(error) => self.doubts(format!("failed to list {place}: {error}")),
                }
            }
            let is_last = level + 1 == names.len();
            let is_dir =
                |place: &String| matches!(root.stat(place), Ok(Some(meta)) if meta.kind == FileKind::Directory);
            fitting.retain(|place| is_last || is_dir(place));
            places = fitting;
        }
        places
    }

    fn doubts(&mut self, why: String) {
        self.doubt.get_or_insert(why);
    }

    fn joined(self, generation: Option<Generation>) -> Result<Setting, String> {
        self.doubt.map_or_else(|| joined(&self.files, generation), Err)
    }
}

/// The directory that a path's absence shows by: the nearest one that is there.
fn nearest_directory(root: &HostRoot, path: &str) -> String {
    let mut place = path;
    while let Some((above, _)) = place.rsplit_once('/').filter(|(above, _)| !above.is_empty()) {
        if matches!(root.stat(above), Ok(Some(meta)) if meta.kind == FileKind::Directory) {
            return above.to_owned();
        }
        place = above;
    }
    "/".to_owned()
}
