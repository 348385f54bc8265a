//! `tests/data/alerts/scenarios.yaml`, as test files for `promtool test rules`: a fleet in a state, and exactly the alerts that fire. The
//! series of kube-state-metrics are simulated there, and so is the fleet.

use std::thread;

use serde::Deserialize;
use serde_json::json;

use super::*;

/// A state of a fleet through time, and what fires when.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AlertScenario {
    name: String,
    nodes: Option<Vec<String>>,
    #[serde(default)]
    changes: BTreeMap<String, Value>,
    expect: BTreeMap<String, Vec<ExpectedAlert>>,
}

/// An alert that fires.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExpectedAlert {
    alert: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    summary: String,
}

/// The whole file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AlertScenarios {
    nodes: Vec<String>,
    healthy: BTreeMap<String, Value>,
    scenarios: Vec<AlertScenario>,
}

/// Words for fingerprints, and their first 16 digits.
const FINGERPRINTS: [(&str, &str); 4] = [
    ("OLD", "1be0447c9d2f6a35"),
    ("NEW", "9f3c51d2ab77e014"),
    ("LEFT", "1ef7000000000000"),
    ("ODD", "dd00000000000000"),
];
/// Minutes from which on a scenario goes in steps of five minutes, so that a day is soon over.
const LONG: usize = 200;

impl AlertScenarios {
    pub(super) fn read() -> Self {
        must("scenarios", serde_saphyr::from_str(&read("tests/data/alerts/scenarios.yaml")))
    }

    /// The series of the healthy fleet with these in place of its own or beside them, for promtool.
    pub(super) fn healthy_with(&self, changes: &BTreeMap<String, Value>, end: usize, step: usize) -> Vec<Value> {
        let mut series = expanded(&self.healthy, &self.nodes);
        series.extend(expanded(changes, &self.nodes));
        input(&series, end, step)
    }

    fn test(&self, scenario: &AlertScenario, rules: &[Value]) -> (usize, Value) {
        let nodes = scenario.nodes.as_ref().unwrap_or(&self.nodes);
        let end = scenario.expect.keys().map(|time| minutes(time)).max().unwrap();
        let step = if end >= LONG { 5 } else { 1 };
        let mut series = if nodes.is_empty() { BTreeMap::new() } else { expanded(&self.healthy, nodes) };
        series.extend(expanded(&scenario.changes, nodes));
        let mut checks = Vec::new();
        for (time, expected) in &scenario.expect {
            assert_eq!(minutes(time) % step, 0, "{}: {time} is between two steps", scenario.name);
            // Of every rule, so that nothing else fires.
            for rule in rules {
                let fires = expected.iter().filter(|alert| rule["alert"] == alert.alert);
                let alerts: Vec<Value> = fires.map(|alert| alert.of(rule)).collect();
                checks.push(json!({"eval_time": time, "alertname": rule["alert"], "exp_alerts": alerts}));
            }
        }
        let input = input(&series, end, step);
        let test = json!({
            "name": scenario.name, "interval": format!("{step}m"), "input_series": input, "alert_rule_test": checks
        });
        (step, test)
    }
}

impl ExpectedAlert {
    fn of(&self, rule: &Value) -> Value {
        let mut labels = rule["labels"].clone();
        for (name, value) in &self.labels {
            labels[name] = json!(fingerprint(value).unwrap_or_else(|| value.clone()));
        }
        let mut annotations = rule["annotations"].clone();
        annotations["summary"] = json!(self.summary);
        json!({"exp_labels": labels, "exp_annotations": annotations})
    }
}

fn fingerprint(word: &str) -> Option<String> {
    let (_, digits) = FINGERPRINTS.iter().find(|(name, _)| *name == word)?;
    Some(format!("{digits:0<64}"))
}

/// Minutes of a time such as `1h30m`.
fn minutes(time: &str) -> usize {
    let (hours, rest) = time.split_once('h').unwrap_or(("0", time));
    let rest = rest.strip_suffix('m').unwrap_or(rest);
    let number = |text: &str| if text.is_empty() { 0 } else { must(time, text.parse::<usize>()) };
    number(hours) * 60 + number(rest)
}

/// Series with every short form written out.
fn expanded(series: &BTreeMap<String, Value>, nodes: &[String]) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    for (name, value) in series {
        let mut name = name.clone();
        for (word, _) in FINGERPRINTS {
            name = name.replace(&format!("\"{word}\""), &format!("\"{}\"", fingerprint(word).unwrap()));
        }
        if !name.contains('@') && !name.contains("NODE") {
            all.insert(name, value.clone());
            continue;
        }
        for node in nodes {
            let ours = format!(r#"node="{node}",instance="{node}:9643",job="nodetrust",pod="nodetrust-{node}""#);
            all.insert(name.replace('@', &ours).replace("NODE", node), value.clone());
        }
    }
    all
}

fn input(series: &BTreeMap<String, Value>, end: usize, step: usize) -> Vec<Value> {
    series.iter().map(|(name, value)| json!({"series": name, "values": samples(value, end, step)})).collect()
}

/// A value of a scenario in promtool's notation.
fn samples(value: &Value, end: usize, step: usize) -> String {
    let word = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let mut parts: Vec<(usize, String)> = match value {
        Value::Object(map) => map.iter().map(|(time, value)| (minutes(time), word(value))).collect(),
        value => vec![(0, word(value))],
    };
    parts.sort();
    parts.retain(|(from, _)| *from <= end);
    let ends = parts.iter().skip(1).map(|(from, _)| *from).chain([end + 2 * step]).collect::<Vec<_>>();
    let mut out = Vec::new();
    for ((from, value), until) in parts.iter().zip(ends) {
        assert_eq!(from % step, 0, "{value} from minute {from} on: between two steps");
        let more = (until - from) / step - 1;
        out.push(match (value.as_str(), value.split_once('+')) {
            ("stale", _) if more > 0 => format!("stale _x{more}"),
            ("stale", _) => "stale".to_owned(),
            ("_", _) => format!("_x{}", more + 1),
            #[expect(clippy::cast_precision_loss, reason = "one or five")]
            (_, Some((start, rise))) => {
                format!("{start}+{}x{more}", must("a rise", rise.parse::<f64>()) * step as f64)
            }
            (value, None) => format!("{value}x{more}"),
        });
    }
    out.join(" ")
}

/// Runs a test file of promtool over the rules.
#[track_caller]
pub(super) fn assert_tests(step: usize, tests: &[Value]) {
    let dir = must("a directory", TempDir::new());
    let path = dir.path().join("test.yml");
    let rules = must("the rules", fs::canonicalize(repository().join("manifests/monitoring/rules.yml")));
    let file = json!({"rule_files": [rules], "evaluation_interval": format!("{step}m"), "tests": tests});
    must("a test file", fs::write(&path, file.to_string()));
    promtool(&["test", "rules", path.to_str().unwrap()]);
}

/// The first alert of each cause, and nothing that only follows from it.
#[test]
fn exactly_the_right_alerts_fire_with_simulated_kube_state_metrics() {
    let (all, rules) = (AlertScenarios::read(), rules());
    let tests: Vec<(usize, Value)> = all.scenarios.iter().map(|scenario| all.test(scenario, &rules)).collect();
    assert!(tests.len() > 40, "{}", tests.len());
    thread::scope(|scope| {
        for step in [1, 5] {
            let tests: Vec<Value> = tests.iter().filter(|(of, _)| *of == step).map(|(_, test)| test.clone()).collect();
            scope.spawn(move || assert_tests(step, &tests));
        }
    });
}

/// Each scenario in which an alert fires has a time at which it does not.
#[test]
fn every_alert_has_a_scenario_in_which_it_comes_or_goes() {
    let all = AlertScenarios::read();
    for rule in rules() {
        let name = text(&rule["alert"]);
        let fires = |alerts: &Vec<ExpectedAlert>| alerts.iter().any(|alert| alert.alert == name);
        let comes_or_goes =
            |scenario: &&AlertScenario| scenario.expect.values().any(fires) && !scenario.expect.values().all(fires);
        assert!(all.scenarios.iter().any(|scenario| comes_or_goes(&scenario)), "{name}");
    }
    let known: BTreeSet<String> = rules().iter().map(|rule| text(&rule["alert"]).to_owned()).collect();
    for alert in all.scenarios.iter().flat_map(|scenario| scenario.expect.values().flatten()) {
        assert!(known.contains(&alert.alert), "{}", alert.alert);
    }
}

#[test]
fn a_promise_about_time_is_read_as_it_is_written() {
    assert_eq!((minutes("90m"), minutes("1h30m"), minutes("24h")), (90, 90, 1440));
    assert_eq!(samples(&json!({"0m": 1, "10m": "stale", "15m": "0+2"}), 20, 5), "1x1 stale 0+10x2");
    assert_eq!(samples(&json!({"0m": "_", "10m": 1}), 20, 5), "_x2 1x3");
}
