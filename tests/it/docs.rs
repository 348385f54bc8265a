//! What the reference pages say is what the program does: fields and defaults, metrics, names of problems, exit codes, examples, links.
//!
//! The names of an enumeration are read from the source: its variants in kebab-case are its public names.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use nodetrust::config::Settings;
use nodetrust_core::problem::ProblemKind;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{must, node::Done, program};

pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

pub fn read(path: impl AsRef<Path>) -> String {
    must(&path.as_ref().display().to_string(), fs::read_to_string(&path))
}

/// The files below a directory whose names have this ending, but for those that a build has made.
fn files(dir: &Path, ending: &str) -> Vec<PathBuf> {
    let entries = must(&dir.display().to_string(), fs::read_dir(dir)).map(|entry| entry.unwrap().path());
    let (dirs, files): (Vec<PathBuf>, Vec<PathBuf>) = entries.partition(|path| path.is_dir() && !path.is_symlink());
    let is_ours =
        |dir: &PathBuf| !dir.ends_with("target") && !dir.file_name().unwrap().as_encoded_bytes().starts_with(b".");
    let below = dirs.iter().filter(|dir| is_ours(dir)).flat_map(|dir| self::files(dir, ending));
    files.into_iter().filter(|path| path.to_string_lossy().ends_with(ending)).chain(below).collect()
}

/// The rows of the tables below a heading of a page, without their head; a cell keeps its Markdown.
#[track_caller]
pub fn rows(page: &str, heading: &str) -> Vec<Vec<String>> {
    let text = read(repository().join("docs").join(page));
    let section = text.split_once(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("{page} has no {heading}")).1;
    let section = section.split("\n#").next().unwrap();
    let is_row = |line: &&str| line.starts_with('|') && !line.starts_with("|-");
    let rows = section.split("\n|--").skip(1).flat_map(|table| table.lines().filter(is_row));
    let cells = |row: &str| row.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect();
    // The head of a table stands before its rule, so the head of a second table is no row of the first one.
    rows.filter(|row| row.contains('`') || row.contains('–')).map(cells).collect()
}

/// The texts in backticks.
fn words(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// The first words in backticks of a column.
pub fn column(rows: &[Vec<String>], number: usize) -> BTreeSet<String> {
    rows.iter().filter_map(|row| words(&row[number]).first().map(|word| (*word).to_owned())).collect()
}

/// The public names of the enumeration that has this variant.
#[track_caller]
fn names_beside(variant: &str) -> BTreeSet<String> {
    pascal_names_beside(variant).iter().map(|name| kebab(name)).collect()
}

#[track_caller]
fn pascal_names_beside(variant: &str) -> BTreeSet<String> {
    let sources = files(&repository().join("agent/core/src"), ".rs")
        .into_iter()
        .chain(files(&repository().join("agent/src"), ".rs"));
    let texts: Vec<String> = sources.map(read).collect();
    let enums =
        texts.iter().flat_map(|text| text.split("pub enum ").skip(1)).map(|after| after.split("\n}").next().unwrap());
    let is_name = |name: &&str| {
        name.starts_with(|c: char| c.is_ascii_uppercase()) && name.bytes().all(|b| b.is_ascii_alphanumeric())
    };
    let variants = |text: &str| {
        text.lines().filter_map(|line| line.trim().strip_suffix(',')).filter(is_name).map(str::to_owned).collect()
    };
    let mut found: Vec<BTreeSet<String>> =
        enums.map(variants).filter(|names: &BTreeSet<String>| names.contains(variant)).collect();
    assert_eq!(found.len(), 1, "enumerations with {variant}");
    found.remove(0)
}

fn kebab(name: &str) -> String {
    let mut text = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !text.is_empty() {
            text.push('-');
        }
        text.push(c.to_ascii_lowercase());
    }
    text
}

/// A configuration with one value at a path such as `http.tls.certFile` or `probes[].interval`.
fn config_with(path: &str, value: &str) -> String {
    let around = |inner: String, step: &str| match step.strip_suffix("[]") {
        Some(list) => format!("{{{list}: [{inner}]}}"),
        None => format!("{{{step}: {inner}}}"),
    };
    path.split('.').rev().fold(value.to_owned(), around)
}

/// The fields that the program expects at a path, by its own words about one that it does not know.
fn fields_at(path: &str) -> Option<Vec<String>> {
    let unknown = "{noSuchField: 1}";
    let error =
        Settings::parse(&if path.is_empty() { unknown.to_owned() } else { config_with(path, unknown) }).unwrap_err();
    let (_, expected) = error.split_once("unknown field `noSuchField`, expected ")?;
    let names = expected.split(" at line").next().unwrap().replace('`', "");
    Some(names.trim_start_matches("one of ").split(", ").map(str::to_owned).collect())
}

/// Every field of the configuration below a path.
fn fields_below(path: &str, found: &mut BTreeSet<String>) {
    let list = format!("{path}[]");
    match (fields_at(path), if path.is_empty() { None } else { fields_at(&list) }) {
        (Some(names), _) => {
            let dot = if path.is_empty() { "" } else { "." };
            names.iter().for_each(|name| fields_below(&format!("{path}{dot}{name}"), found));
        }
        (None, Some(names)) => {
            found.insert(path.to_owned());
            names.iter().for_each(|name| fields_below(&format!("{list}.{name}"), found));
        }
        (None, None) => drop(found.insert(path.to_owned())),
    }
}

fn documented_fields() -> Vec<Vec<String>> {
    rows("configuration.md", "## Configuration")
}

#[test]
fn every_field_of_the_configuration_is_documented_and_no_other() {
    let mut fields = BTreeSet::new();
    fields_below("", &mut fields);
    assert!(fields.contains("http.tls.certFile") && fields.contains("sources[].name"), "{fields:?}");
    assert_eq!(fields, column(&documented_fields(), 0));
}

#[test]
fn the_documented_defaults_are_the_programs_own() {
    for row in documented_fields() {
        let (field, default) = (words(&row[0])[0], words(&row[1]));
        let Some(default) = default.first() else { continue };
        let default = if default.contains("::") { format!("\"{default}\"") } else { (*default).to_owned() };
        // An element of a list gets its required fields.
        let (without, with) = match field.split_once("[].") {
            Some((list, name)) => {
                let rest = if list == "sources" { "name: a, path: /a" } else { "target: a.test:1" };
                let element = |more: &str| config_with(&format!("{list}[]"), &format!("{{{rest}{more}}}"));
                (element(""), element(&format!(", {name}: {default}")))
            }
            None => {
                let section = if field.starts_with("fleet.") { "fleet: {}" } else { "" };
                (section.to_owned(), config_with(field, &default))
            }
        };
        assert_eq!(Settings::parse(&with), Settings::parse(&without), "{field}: {default}");
        assert!(Settings::parse(&with).is_ok(), "{field}: {default}");
    }
}

#[test]
fn the_words_of_a_choice_are_documented() {
    let fields = documented_fields();
    let meaning = |name: &str| fields.iter().find(|row| words(&row[0])[0] == name).unwrap()[2].clone();
    for (field, page, heading, variant) in [
        ("store.family", "configuration.md", "## Trust stores", "Photon"),
        ("runtime.kind", "runtime.md", "## Which runtime", "Microk8s"),
    ] {
        let names = names_beside(variant);
        let told: BTreeSet<String> = words(&meaning(field)).iter().map(|word| (*word).to_owned()).collect();
        assert!(names.is_subset(&told), "{field}: {names:?}, told {told:?}");
        assert_eq!(column(&rows(page, heading), 0), names, "{page}");
    }
}

#[test]
fn every_problem_and_rejection_is_documented() {
    let problems = rows("troubleshooting.md", "## Problems");
    let told: BTreeMap<&str, &str> = problems.iter().map(|row| (words(&row[0])[0], row[2].as_str())).collect();
    let known = ProblemKind::ALL.map(|kind| (kind.as_str(), if kind.is_failure() { "yes" } else { "no" }));
    assert_eq!(told, BTreeMap::from(known));
    assert_eq!(column(&rows("troubleshooting.md", "## Reasons of rejections"), 0), names_beside("NotPemOrDer"));
}

#[test]
fn every_verdict_of_a_probe_is_documented() {
    let all: Vec<Vec<String>> =
        ["## Probes", "### Through the runtime"].iter().flat_map(|h| rows("troubleshooting.md", h)).collect();
    assert_eq!(column(&all, 1), names_beside("NameMismatch"));
    assert_eq!(column(&all, 0), names_beside("PullsWork"));
}

#[test]
fn every_state_and_hold_of_the_runtime_is_documented() {
    assert_eq!(column(&rows("runtime.md", "## When a restart is held"), 0), names_beside("KillMode"));
    assert_eq!(
        column(&rows("runtime.md", "## The four states"), 0),
        golden_metrics()["nodetrust_runtime_state"].1["state"]
    );
}

#[test]
fn every_reason_that_the_cluster_reads_is_documented() {
    assert_eq!(column(&rows("kubernetes.md", "## Condition"), 1), pascal_names_beside("ExtractFailed"));
    assert_eq!(column(&rows("kubernetes.md", "## Events"), 0), pascal_names_beside("TrustAnchorsChanged"));
    assert_eq!(column(&rows("kubernetes.md", "## The fleet"), 0), names_beside("LoneDigest"));
}

/// The metrics of the golden file: type, labels with their values.
fn golden_metrics() -> BTreeMap<String, (String, BTreeMap<String, BTreeSet<String>>)> {
    let text = read(repository().join("tests/data/metrics.openmetrics"));
    let mut metrics = BTreeMap::new();
    for family in text.split("# HELP ").skip(1) {
        let kind = family.split("# TYPE ").nth(1).unwrap().lines().next().unwrap();
        let (name, kind) = kind.split_once(' ').unwrap();
        let ending = match kind {
            "counter" => "_total",
            "info" => "_info",
            _ => "",
        };
        let mut labels: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for sample in family.lines().filter_map(|line| line.split_once('{')).map(|(_, rest)| rest) {
            let pairs = sample.split("\",").filter_map(|pair| pair.split_once("=\""));
            for (label, value) in pairs.filter(|(label, _)| *label != "le") {
                labels.entry(label.to_owned()).or_default().insert(value.split('"').next().unwrap().to_owned());
            }
        }
        metrics.insert(format!("{name}{ending}"), (kind.to_owned(), labels));
    }
    metrics
}

#[test]
fn every_metric_is_documented_with_type_and_labels() {
    let table = rows("metrics.md", "## Metrics");
    let documented = column(&table, 0);
    let golden = golden_metrics();
    assert!(golden.len() > 20, "{golden:?}");
    for (name, (kind, labels)) in &golden {
        let row =
            table.iter().find(|row| words(&row[0]) == [name]).unwrap_or_else(|| panic!("{name} is not documented"));
        let told: BTreeSet<&str> = row[2].split(", ").filter(|label| *label != "–").collect();
        assert_eq!((row[1].as_str(), told), (kind.as_str(), labels.keys().map(String::as_str).collect()), "{name}");
    }
    // The golden file's node has neither a runtime nor probes, so the other metrics are looked for in the source.
    let serve = repository().join("agent/src/serve");
    let source = read(serve.join("metrics.rs")) + &read(serve.join("process.rs"));
    for name in &documented {
        let literal = name.trim_start_matches("nodetrust_").trim_end_matches("_total").trim_end_matches("_info");
        assert!(source.contains(&format!("\"{literal}\"")), "{name} is documented, and there is none");
    }
    for call in [".register(", ".gauge(", ".info("] {
        for literal in
            source.split(call).skip(1).filter_map(|after| after.trim_start().strip_prefix('"')?.split('"').next())
        {
            let is_told = ["", "_total", "_info"].iter().any(|ending| {
                ["nodetrust_", ""].iter().any(|prefix| documented.contains(&format!("{prefix}{literal}{ending}")))
            });
            assert!(is_told, "{literal} is not documented");
        }
    }
}

#[test]
fn every_value_of_a_label_is_documented() {
    let golden = golden_metrics();
    for row in rows("metrics.md", "### Values of labels") {
        let (label, metric) = (words(&row[0])[0], words(&row[1])[0]);
        let told: BTreeSet<String> = words(&row[2]).into_iter().map(str::to_owned).collect();
        assert_eq!(told, golden[metric].1[label], "{label} of {metric}");
    }
}

fn nodetrust(args: &[&str]) -> Done {
    Done::new(must("nodetrust", Command::new(program()).args(args).env_remove("NODETRUST_CONFIG").output()))
}

#[test]
fn every_command_is_documented_with_its_exit_codes() {
    let help = nodetrust(&["--help"]).expect(0).out;
    let commands = help.split_once("Commands:\n").unwrap().1.split("\n\n").next().unwrap();
    let is_name = |line: &&str| line.starts_with("  ") && !line.starts_with("   ");
    let names = commands
        .lines()
        .filter(is_name)
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help");
    let names: BTreeSet<String> = names.map(str::to_owned).collect();
    let first = |heading: &str| -> BTreeSet<String> {
        let cells = column(&rows("configuration.md", heading), 0);
        cells.iter().map(|cell| cell.split(' ').next().unwrap().to_owned()).collect()
    };
    assert_eq!(first("## Commands"), names);
    assert_eq!(first("### Exit codes"), names);
    // These exit codes need no node.
    let empty = TempDir::new().unwrap();
    let root = format!("--host-root={}", empty.path().display());
    fs::write(empty.path().join("bad.pem"), "-----BEGIN CERTIFICATE-----\n").unwrap();
    fs::write(empty.path().join("bad.yaml"), "noSuchField: 1\n").unwrap();
    let (pem, yaml) = (empty.path().join("bad.pem"), empty.path().join("bad.yaml"));
    for (args, code) in [
        (vec!["version"], 0),
        (vec!["no-such-command"], 64),
        (vec!["stores"], 2),
        (vec!["render", "systemd"], 0),
        (vec!["render", "no-such-format"], 64),
        (vec!["inspect", pem.to_str().unwrap()], 2),
        (vec!["inspect", "/no/such/file"], 1),
        (vec!["--config", yaml.to_str().unwrap(), "plan"], 64),
        (vec!["--config", yaml.to_str().unwrap(), "status"], 64),
    ] {
        assert_eq!(nodetrust(&[&[root.as_str()], &args[..]].concat()).code, code, "{args:?}");
    }
}

/// Every field of a configuration, as the reference writes it.
fn fields_of(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            let dot = if path.is_empty() { "" } else { "." };
            map.iter().for_each(|(name, value)| fields_of(value, &format!("{path}{dot}{name}"), found));
        }
        Value::Array(list) if list.iter().any(Value::is_object) => {
            list.iter().for_each(|value| fields_of(value, &format!("{path}[]"), found));
        }
        _ => drop(found.insert(path.to_owned())),
    }
}

#[test]
fn every_example_is_a_configuration_that_the_program_follows() {
    let documented = column(&documented_fields(), 0);
    let listed = read(repository().join("examples/README.md"));
    let empty = TempDir::new().unwrap();
    let root = empty.path().to_str().unwrap();
    let examples = files(&repository().join("examples"), ".yaml");
    assert!(examples.len() > 5, "{examples:?}");
    for example in examples {
        let name = example.file_name().unwrap().to_str().unwrap();
        assert!(listed.contains(&format!("]({name})")), "examples/README.md does not list {name}");
        // The root is no node. Only a valid configuration gets as far as this error.
        let done = nodetrust(&["--config", example.to_str().unwrap(), "--host-root", root, "plan"]);
        assert_eq!(done.code, 1, "{name}: {}", done.err);
        assert!(done.err.contains("there is no operating system here"), "{name}: {}", done.err);
        let settings = Settings::read(&example).unwrap_or_else(|error| panic!("{error}"));
        assert!(settings.without_effect.is_empty(), "{name}: {:?}", settings.without_effect);
        let mut fields = BTreeSet::new();
        fields_of(&serde_saphyr::from_str(&read(&example)).unwrap(), "", &mut fields);
        assert!(!fields.is_empty() && fields.is_subset(&documented), "{name}: {fields:?}");
    }
}

/// A heading's anchor, as code hosts make it.
pub fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// A page without its code blocks.
pub fn prose(page: &Path) -> String {
    read(page).split("```").step_by(2).collect()
}

#[test]
fn every_link_of_the_pages_leads_somewhere() {
    let pages = files(&repository(), ".md");
    assert!(pages.len() > 15, "{pages:?}");
    for page in &pages {
        for link in prose(page).split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.starts_with("https://") {
                continue;
            }
            let (path, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() { page.clone() } else { page.parent().unwrap().join(path) };
            assert!(target.exists(), "{}: {link}", page.display());
            let leads = |line: &str| line.starts_with('#') && anchor(line) == heading;
            assert!(
                heading.is_empty() || prose(&target).lines().any(leads),
                "{}: no heading for {link}",
                page.display()
            );
        }
    }
}

#[test]
fn every_path_that_the_pages_name_exists() {
    let pages = files(&repository().join("docs"), ".md")
        .into_iter()
        .filter(|page| !page.to_string_lossy().contains("/decisions/"));
    for page in pages.chain([repository().join("CONTRIBUTING.md")]) {
        let text = prose(&page);
        let is_path = |word: &&str| {
            let top = word.split('/').next().unwrap();
            word.contains('/')
                && matches!(top, "agent" | "tests" | "scripts" | "docs" | "manifests" | "examples")
                && !word.contains(' ')
        };
        for path in words(&text).into_iter().filter(is_path) {
            assert!(repository().join(path).exists(), "{} names {path}", page.display());
        }
    }
}
