//! The dashboard for Grafana: its form, and that its queries find something. It is not rendered here: no Grafana is at hand.

use serde_json::json;

use super::{scenarios::AlertScenarios, *};

/// Minutes of the simulated fleet after which the queries are asked.
const LATER: usize = 120;

fn dashboard() -> Value {
    must("dashboard.json", serde_json::from_str(&read("manifests/monitoring/dashboard.json")))
}

/// The panels that show something.
fn panels(dashboard: &Value) -> Vec<&Value> {
    array(&dashboard["panels"]).filter(|panel| panel["type"] != "row").collect()
}

/// A query as Grafana sends it when everything is selected.
fn sent(expression: &str) -> String {
    expression.replace("$__rate_interval", "5m").replace("$cluster", ".*").replace("$anchor", ".*")
}

/// Every query of every panel, as it is sent.
pub(super) fn expressions() -> Vec<String> {
    let dashboard = dashboard();
    let targets = panels(&dashboard).into_iter().flat_map(|panel| array(&panel["targets"]));
    targets.map(|target| sent(text(&target["expr"]))).collect()
}

#[test]
fn promtool_can_read_every_query_of_the_dashboard() {
    let all = expressions();
    assert!(all.len() > 30 && !all.iter().any(|expression| expression.contains('$')), "{all:?}");
    assert_expressions(&all);
}

/// What Grafana needs to show a panel, and what a person needs to understand an empty one.
#[test]
fn every_panel_has_a_place_a_title_and_a_text_for_when_it_is_empty() {
    let dashboard = dashboard();
    let mut ids = BTreeSet::new();
    let mut taken = BTreeSet::new();
    for panel in array(&dashboard["panels"]) {
        let title = text(&panel["title"]);
        assert!(!title.is_empty() && ids.insert(panel["id"].as_u64().unwrap()), "{panel}");
        let place = |name: &str| panel["gridPos"][name].as_u64().unwrap();
        assert!(place("x") + place("w") <= 24, "{title}");
        for x in place("x")..place("x") + place("w") {
            for y in place("y")..place("y") + place("h") {
                assert!(taken.insert((x, y)), "{title} covers another panel");
            }
        }
    }
    for panel in panels(&dashboard) {
        let title = text(&panel["title"]);
        assert!(!text(&panel["fieldConfig"]["defaults"]["noValue"]).is_empty(), "{title}: what an empty panel says");
        let mut refs = BTreeSet::new();
        for target in array(&panel["targets"]) {
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}");
            assert!(refs.insert(text(&target["refId"])), "{title}");
            assert!(text(&target["expr"]).contains("cluster=~\"$cluster\""), "{title}: of the selected cluster");
        }
        assert!(!refs.is_empty(), "{title}");
    }
    let variables: Vec<&str> =
        array(&dashboard["templating"]["list"]).map(|variable| text(&variable["name"])).collect();
    assert_eq!(variables, ["datasource", "cluster", "anchor"]);
}

/// Fleet trust in one row: a person sees at once whether there is something to do.
#[test]
fn the_first_row_is_the_answer() {
    let dashboard = dashboard();
    let first: Vec<&str> = panels(&dashboard)
        .into_iter()
        .filter(|panel| panel["gridPos"]["y"] == 1)
        .map(|panel| text(&panel["title"]))
        .collect();
    assert_eq!(first.len(), 8, "{first:?}");
    assert!(first.contains(&"Trusted") && first.contains(&"Runtime stale"), "{first:?}");
}

/// What a fleet that has everything at once would serve beside the healthy series of the scenarios.
fn busy() -> BTreeMap<String, Value> {
    let series = [
        (
            r#"nodetrust_anchor_info{@,fingerprint_sha256="LEFT",subject_cn="Left",issuer_cn="Left",state="grace"}"#,
            json!(1),
        ),
        (r#"nodetrust_anchor_grace_end_timestamp_seconds{@,fingerprint_sha256="LEFT"}"#, json!(90_000)),
        (r#"nodetrust_source_up{@,source="held"}"#, json!(0)),
        (r#"nodetrust_source_anchors{@,source="held"}"#, json!(1)),
        (r#"nodetrust_rejections{@,source="org",reason="weak"}"#, json!(1)),
        (r#"nodetrust_reconciles_total{@,trigger="resync",outcome="unchanged"}"#, json!("0+0.2")),
        (r#"nodetrust_reconcile_duration_seconds_bucket{@,le="0.1"}"#, json!("0+0.2")),
        (r#"nodetrust_reconcile_duration_seconds_bucket{@,le="+Inf"}"#, json!("0+0.2")),
        (r#"nodetrust_extract_duration_seconds_bucket{@,le="1"}"#, json!("0+0.2")),
        (r#"nodetrust_extract_duration_seconds_bucket{@,le="+Inf"}"#, json!("0+0.2")),
        (r#"nodetrust_drift_repaired_total{@,kind="link"}"#, json!("0+0.2")),
        (r#"nodetrust_errors_total{@,reason="extract"}"#, json!("0+0.2")),
        (r#"nodetrust_restart_held{@,reason="policy"}"#, json!(1)),
        (r#"nodetrust_probe_duration_seconds{@,target="registry.corp:5000",through="host"}"#, json!(0.1)),
        ("process_resident_memory_bytes{@}", json!(9_000_000)),
        ("process_cpu_seconds_total{@}", json!("0+0.1")),
        // a node that is behind
        (r#"nodetrust_converged{node="late",instance="late:9643"}"#, json!(0)),
        (r#"nodetrust_runtime_state{node="late",instance="late:9643",state="stale"}"#, json!(1)),
        (r#"nodetrust_runtime_state{node="dark",instance="dark:9643",state="unknown"}"#, json!(1)),
    ];
    series.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// A query that never finds anything, such as one that joins by labels that do not fit, makes a panel that is always empty.
#[test]
fn every_query_of_the_dashboard_finds_series_in_a_simulated_busy_fleet() {
    let finds = |expression: String| {
        json!({
            "expr": format!("count({expression}) > bool 0"), "eval_time": format!("{LATER}m"),
            "exp_samples": [{"labels": "{}", "value": 1}],
        })
    };
    let queries: Vec<Value> = expressions().into_iter().map(finds).collect();
    let series = AlertScenarios::read().healthy_with(&busy(), LATER, 1);
    let test = json!({"name": "a busy fleet", "interval": "1m", "input_series": series, "promql_expr_test": queries});
    scenarios::assert_tests(1, &[test]);
}
