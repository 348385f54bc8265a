//! What containerd's configuration files say together: its registry directory and its socket (containerd-config.toml(5), facts C.2).
//!
//! The program itself is asked first: `containerd config dump`. What is here serves where it cannot be named, and always for
//! the list of files and directories in which a change would matter, which the dump of 1.x does not have: it prints only the files
//! that a pattern fits now.

use std::collections::BTreeSet;

use toml::{Table, Value};

use crate::runtime::registry_dir::Setting;

/// The plug-in that has the registry directory, by version of the configuration: 3 and later, 2, and 1.
const PLUGINS: [&str; 3] = ["io.containerd.cri.v1.images", "io.containerd.grpc.v1.cri", "cri"];
/// The plug-in that has the socket in version 4.
const GRPC_PLUGIN: &str = "io.containerd.server.v1.grpc";
/// Letters that make a pattern of a path, where the generation makes one of it at all.
const WILDCARDS: [char; 4] = ['*', '?', '[', '\\'];

/// How a containerd joins its files: 1.x takes a plug-in's whole section from the last file that has it, 2.x only the fields that
/// this file has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Generation {
    /// containerd 1.x.
    One,
    /// containerd 2.x.
    Two,
}

impl Generation {
    /// The generation of a version as CRI or `containerd --version` writes it: `1.7.24~ds1`, `v2.1.9`. None if it is neither.
    pub fn of(version: &str) -> Option<Self> {
        match version.trim_start_matches('v').split_once('.')?.0 {
            "1" => Some(Self::One),
            "2" => Some(Self::Two),
            _ => None,
        }
    }
}

/// One configuration file of containerd.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ContainerdFile(Table);

impl ContainerdFile {
    /// Reads a file, or what `config dump` prints.
    ///
    /// # Errors
    /// If the text is no TOML.
    pub fn parse(text: &str) -> Result<Self, String> {
        text.parse().map(Self).map_err(|error: toml::de::Error| error.message().to_owned())
    }

    /// What it takes in, as it is written: names, or patterns with `*`, from its own directory or from the root.
    pub fn imports(&self) -> Vec<String> {
        let imports = self.0.get("imports").and_then(Value::as_array).into_iter().flatten();
        imports.filter_map(|import| Some(import.as_str()?.to_owned())).collect()
    }

    /// The socket that it names.
    pub fn address(&self) -> Option<String> {
        address_in(self.0.get("grpc")).or_else(|| address_in(self.plugin(GRPC_PLUGIN))).map(str::to_owned)
    }

    /// The registry directory, in what `config dump` prints. The program prints the fields that it reads, and prints them under the
    /// name by which it reads them; a section of another name, which it may print as well, has no meaning for it.
    pub fn dumped(&self) -> Setting {
        let path = PLUGINS.iter().find_map(|plugin| config_path(self.plugin(plugin)?));
        setting_of(path.unwrap_or_default())
    }

    /// Every section about registries, whichever version of containerd reads it.
    pub fn registry_sections(&self) -> impl Iterator<Item = &Table> {
        let plugins = self.0.get("plugins").and_then(Value::as_table).into_iter().flatten();
        plugins.filter_map(|(_, plugin)| plugin.get("registry")?.as_table())
    }

    /// Every registry directory that it names, whichever version of containerd reads it.
    pub fn registry_dirs(&self) -> impl Iterator<Item = &str> {
        let paths = self.registry_sections().filter_map(|section| section.get("config_path")?.as_str());
        paths.flat_map(|list| list.split(':')).filter(|dir| dir.starts_with('/'))
    }

    fn plugin(&self, name: &str) -> Option<&Value> {
        self.0.get("plugins")?.get(name)
    }

    fn version(&self) -> Option<i64> {
        self.0.get("version").and_then(Value::as_integer)
    }

    /// The plug-in section in which a program of this generation finds the registry directory.
    ///
    /// # Errors
    /// If nobody has tried what it makes of this.
    fn section(&self, generation: Generation) -> Result<Option<&Value>, String> {
        let unclear = || Err("it has plug-ins whose meaning under its version is not known".to_owned());
        let there: Vec<&str> = PLUGINS.into_iter().filter(|plugin| self.plugin(plugin).is_some()).collect();
        let read = match (self.version(), generation) {
            _ if there.is_empty() => return Ok(None),
            (Some(2), _) => PLUGINS[1],
            (Some(3 | 4), Generation::Two) => PLUGINS[0],
            (None | Some(1), Generation::One) => PLUGINS[2],
            _ => return unclear(),
        };
        if there == [read] { Ok(self.plugin(read)) } else { unclear() }
    }
}

/// The registry directory that these files set together, given in the order in which containerd reads them; of the generation that
/// reads them, or of both where it is not known.
///
/// # Errors
/// If it cannot be told.
pub fn joined(files: &[ContainerdFile], generation: Option<Generation>) -> Result<Setting, String> {
    let by = |generation| {
        let mut path = None;
        for file in files {
            let Some(section) = file.section(generation)? else { continue };
            path = match generation {
                Generation::One => config_path(section),
                Generation::Two => config_path(section).or(path),
            };
        }
        Ok(setting_of(path.unwrap_or_default()))
    };
    match generation {
        Some(generation) => by(generation),
        None => match (by(Generation::One)?, by(Generation::Two)?) {
            (one, two) if one == two => Ok(one),
            _ => Err("containerd 1 and 2 join its files in different ways, and it does not say which it is".into()),
        },
    }
}

fn address_in(table: Option<&Value>) -> Option<&str> {
    table?.get("address")?.as_str().filter(|address| !address.is_empty())
}

fn config_path(plugin: &Value) -> Option<&str> {
    plugin.get("registry")?.get("config_path")?.as_str()
}

fn setting_of(path: &str) -> Setting {
    match path {
        "" => Setting::NotConfigured,
        list if list.contains(':') => Setting::Several(list.to_owned()),
        dir if dir.starts_with('/') => Setting::Directory(dir.trim_end_matches('/').to_owned()),
        dir => Setting::Unknown(format!("config_path `{dir}` is not absolute")),
    }
}

/// An import's place, from the file that has it: without `.` and `..`, from the root.
pub fn import_place(file: &str, import: &str) -> String {
    let dir = file.rsplit_once('/').map_or("", |(dir, _)| dir);
    let whole = if import.starts_with('/') { import.to_owned() } else { format!("{dir}/{import}") };
    let mut names: Vec<&str> = Vec::new();
    for name in whole.split('/') {
        match name {
            "" | "." => {}
            ".." => drop(names.pop()),
            name => names.push(name),
        }
    }
    format!("/{}", names.join("/"))
}

/// Whether containerd looks for the files that a place fits, instead of for one file of this name.
pub fn is_pattern(place: &str) -> bool {
    place.contains('*')
}

/// The directory that surely holds all that a pattern fits, and the names below it that fit, one for each level.
pub fn pattern_parts(pattern: &str) -> (String, Vec<&str>) {
    let names: Vec<&str> = pattern.split('/').filter(|name| !name.is_empty()).collect();
    let fixed = names.iter().take_while(|name| !name.contains(WILDCARDS)).count().min(names.len().saturating_sub(1));
    let (dir, below) = names.split_at(fixed);
    (format!("/{}", dir.join("/")), below.to_vec())
}

/// Whether a name fits one level of a pattern: `*` is any text, `?` one letter. None for what else may stand there (classes and
/// escapes).
pub fn fits(pattern: &str, name: &str) -> Option<bool> {
    if pattern.contains(['[', '\\']) {
        return None;
    }
    let name: Vec<char> = name.chars().collect();
    // the lengths of the name's beginnings that fit what was read of the pattern
    let mut ends = BTreeSet::from([0]);
    for letter in pattern.chars() {
        ends = match letter {
            '*' => ends.first().map(|first| (*first..=name.len()).collect()).unwrap_or_default(),
            '?' => ends.iter().filter(|end| **end < name.len()).map(|end| end + 1).collect(),
            letter => ends.iter().filter(|end| name.get(**end) == Some(&letter)).map(|end| end + 1).collect(),
        };
    }
    Some(ends.contains(&name.len()))
}

/// The value of an option of containerd's command line, in any of the forms that it takes: `--config FILE`, `-c=FILE`.
pub fn option<'a>(command: &'a [String], names: &[&str]) -> Option<&'a str> {
    let mut words = command.iter().skip(1);
    while let Some(word) = words.next() {
        let bare = word.trim_start_matches('-');
        if bare.len() == word.len() {
            continue;
        }
        match bare.split_once('=') {
            Some((name, value)) if names.contains(&name) => return Some(value),
            None if names.contains(&bare) => return words.next().map(String::as_str),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
#[path = "containerd_tests.rs"]
mod tests;
