//! The alerts and the dashboard: valid, about metrics that exist, explained, and firing when they must and only then. Prometheus' own
//! `promtool` judges them, and a real Prometheus that scrapes real agents.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    docs::{anchor, column, prose, rows},
    support::{must, node::Done},
};

// The dashboard's form, and what its queries find.
mod dashboard;
// A real Prometheus beside real agents on node roots.
mod live;
// The Prometheus.
pub(crate) mod server;
// What fires in which state of a fleet.
mod scenarios;

/// Series of others.
const FOREIGN: [&str; 4] =
    ["up", "kube_node_info", "kube_node_status_condition", "kube_daemonset_status_desired_number_scheduled"];

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    must(path, fs::read_to_string(repository().join(path)))
}

fn yaml(path: &str) -> Value {
    must(path, serde_saphyr::from_str(&read(path)))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn array(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// The path of a program of Debian's packages `prometheus` and `prometheus-alertmanager`.
fn installed(name: &str) -> PathBuf {
    let path = Path::new("/usr/bin").join(name);
    assert!(path.exists(), "no {}: scripts/test installs prometheus and prometheus-alertmanager", path.display());
    path
}

/// `promtool` with these arguments, which must end well.
#[track_caller]
fn promtool(args: &[&str]) -> Done {
    Done::new(must("promtool", Command::new(installed("promtool")).args(args).output())).expect(0)
}

/// Has `promtool` read each expression as that of a rule.
#[track_caller]
fn assert_expressions(expressions: &[String]) {
    let rules: Vec<Value> = expressions
        .iter()
        .enumerate()
        .map(|(index, expression)| serde_json::json!({"record": format!("query:{index}"), "expr": expression}))
        .collect();
    let file = serde_json::json!({"groups": [{"name": "queries", "rules": rules}]});
    let dir = must("a directory", TempDir::new());
    let path = dir.path().join("queries.yml");
    must("a rule file", fs::write(&path, file.to_string()));
    promtool(&["check", "rules", path.to_str().unwrap()]);
}

/// Every rule of the rule file.
fn rules() -> Vec<Value> {
    let file = yaml("manifests/monitoring/rules.yml");
    let all: Vec<Value> = array(&file["groups"]).flat_map(|group| array(&group["rules"]).cloned()).collect();
    assert!(all.len() > 20, "{}", all.len());
    all
}

/// The names of metrics in an expression: words that begin as ours, kube-state-metrics' or a process's do, and `up`.
fn metrics_in(expression: &str) -> BTreeSet<String> {
    let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':');
    let is_metric =
        |word: &&str| *word == "up" || ["nodetrust_", "kube_", "process_"].iter().any(|p| word.starts_with(p));
    let base = |word: &str| {
        let histogram = ["_bucket", "_sum", "_count"].iter().find_map(|ending| word.strip_suffix(ending));
        histogram.filter(|name| name.ends_with("_seconds")).unwrap_or(word).to_owned()
    };
    words.filter(is_metric).map(base).collect()
}

#[test]
fn promtool_accepts_the_rules() {
    let path = repository().join("manifests/monitoring/rules.yml");
    let done = promtool(&["check", "rules", path.to_str().unwrap()]);
    assert!(done.out.contains(&format!("SUCCESS: {} rules found", rules().len())), "{}", done.out);
}

/// An alert about a metric that nobody serves would never fire.
#[test]
fn every_metric_of_alerts_and_dashboard_is_one_that_exists() {
    let documented = column(&rows("metrics.md", "## Metrics"), 0);
    let expressions = rules().iter().map(|rule| text(&rule["expr"]).to_owned()).collect::<Vec<_>>();
    let summaries = rules().iter().map(|rule| text(&rule["annotations"]["summary"]).to_owned()).collect::<Vec<_>>();
    let mut used = BTreeSet::new();
    for expression in expressions.iter().chain(&summaries).chain(&dashboard::expressions()) {
        used.extend(metrics_in(expression));
    }
    assert!(used.len() > 20, "{used:?}");
    let unknown: Vec<&String> =
        used.iter().filter(|name| !documented.contains(*name) && !FOREIGN.contains(&name.as_str())).collect();
    assert_eq!(unknown, [""; 0], "in no row of docs/metrics.md");
}

/// The budget is what the golden file's node serves: nobody plans a Prometheus by it otherwise.
#[test]
fn the_documented_number_of_series_is_the_real_one() {
    let golden = read("tests/data/metrics.prom");
    let is_of = |line: &str, starts: &[&str]| starts.iter().any(|start| line.starts_with(start));
    let sources = ["nodetrust_source_", "nodetrust_rejections"];
    let samples = || golden.lines().filter(|line| !line.starts_with('#'));
    let of_sources = samples().filter(|line| is_of(line, &sources)).count();
    let of_anchors = samples().filter(|line| is_of(line, &["nodetrust_anchor_"])).count();
    let page = read("docs/metrics.md");
    let told = |what: &str| {
        let row = page.lines().find_map(|line| line.strip_prefix(&format!("| {what} | ")));
        let row = row.unwrap_or_else(|| panic!("no row for {what}"));
        must(what, row.split([' ', ',']).next().unwrap().parse::<usize>())
    };
    assert_eq!(told("in any case"), samples().count() - of_sources - of_anchors);
    assert_eq!(told("each source"), of_sources, "one source");
    assert_eq!(2 * told("each anchor") + 1, of_anchors, "two anchors, one of them in grace");
}

/// What wakes a person at night: how bad it is, about what, and a page that says what to do.
#[test]
fn every_alert_has_a_severity_a_summary_and_a_section_of_the_runbook() {
    let page = repository().join("docs/troubleshooting.md");
    let prose = prose(&page);
    let runbook = prose.split("\n## Alerts\n").nth(1).expect("a section").split("\n## ").next().unwrap();
    let sections: BTreeMap<String, &str> =
        runbook.split("\n### ").skip(1).map(|section| (section.lines().next().unwrap().to_owned(), section)).collect();
    let mut names = BTreeSet::new();
    for rule in rules() {
        let name = text(&rule["alert"]).to_owned();
        assert!(name.starts_with("Nodetrust"), "{rule}");
        assert!(matches!(text(&rule["labels"]["severity"]), "critical" | "warning"), "{name}");
        for annotation in ["summary", "description"] {
            let told = text(&rule["annotations"][annotation]);
            assert!(told.len() > 20 && !told.contains('\n') && !told.contains("  "), "{name}: {annotation}: {told:?}");
        }
        assert!(!text(&rule["annotations"]["description"]).contains("{{"), "{name}: the scenarios take it as it is");
        assert_eq!(rule["annotations"]["runbook_url"], format!("docs/troubleshooting.md#{}", anchor(&name)), "{name}");
        let section = sections.get(&name).unwrap_or_else(|| panic!("{name} has no section in the runbook"));
        for part in ["**Means**", "**Look**", "do**"] {
            assert!(section.to_lowercase().contains(&part.to_lowercase()), "{name}: {part}");
        }
        assert!(names.insert(name.clone()), "{name} twice");
    }
    let explained: BTreeSet<String> = sections.keys().cloned().collect();
    assert_eq!(names, explained, "alerts, and sections of the runbook");
    // Names of alerts elsewhere in the runbook are those of alerts.
    for word in runbook.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| word.starts_with("Nodetrust")) {
        assert!(names.contains(word), "{word}");
    }
}

/// What is installed by kustomize and by the chart is made of the one rule file.
#[test]
fn every_copy_of_the_rules_and_of_the_dashboard_is_up_to_date() {
    let rules = yaml("manifests/monitoring/rules.yml");
    assert_eq!(yaml("manifests/components/monitoring/prometheusrule.yaml")["spec"], rules, "run scripts/alerts");
    for (source, copies) in [
        ("manifests/monitoring/rules.yml", &["manifests/chart/rules.yml"][..]),
        (
            "manifests/monitoring/dashboard.json",
            &["manifests/chart/dashboard.json", "manifests/components/grafana-dashboard/dashboard.json"],
        ),
    ] {
        for copy in copies {
            assert!(read(source) == read(copy), "{copy} is not {source}: run scripts/alerts");
        }
    }
}
