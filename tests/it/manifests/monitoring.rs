//! What Prometheus and Grafana get, by kustomize and by the chart: the same objects, that fit the agents.

use super::*;

const MONITORED: &str =
    "monitoring.podMonitor.enabled=true,monitoring.prometheusRule.enabled=true,monitoring.dashboard.enabled=true";

#[test]
fn the_chart_makes_the_same_objects_for_prometheus_and_grafana() {
    let wanted = comparable(kustomize("new", "base", &["monitoring", "grafana-dashboard"]));
    for name in ["PodMonitor nodetrust", "PrometheusRule nodetrust", "ConfigMap nodetrust-dashboard"] {
        assert!(wanted.contains_key(name), "{name}");
        assert!(!objects(&helm("new", "1.29.0", &[]).expect(0).out).contains_key(name), "{name}: nobody asked for it");
    }
    assert_same(&comparable(kustomize("old", "base", &["monitoring", "grafana-dashboard"])), &wanted, "old kubectl");
    for age in AGES {
        let rendered = helm(age, "1.29.0", &["--set", MONITORED]).expect(0);
        assert_same(&comparable(objects(&rendered.out)), &wanted, age);
    }
    let page = must("README.md", fs::read_to_string(Path::new(MANIFESTS).join("README.md")));
    for component in ["monitoring", "grafana-dashboard"] {
        assert!(page.contains(&format!("| `components/{component}` |")), "no row for {component}");
    }
}

/// A PodMonitor that selects no pod, or asks a port that they do not have, finds no agent and gives no error.
#[test]
fn the_pod_monitor_finds_the_agents_and_names_their_nodes() {
    for overlay in overlays().iter().filter(|name| !name.contains("uninstall")) {
        let all = kustomize("new", overlay, &["monitoring"]);
        let monitor = &all["PodMonitor nodetrust"];
        let template = pod(&all);
        assert_eq!(monitor["metadata"]["namespace"], all["DaemonSet nodetrust"]["metadata"]["namespace"], "{overlay}");
        for (label, value) in monitor["spec"]["selector"]["matchLabels"].as_object().unwrap() {
            assert_eq!(template["metadata"]["labels"][label], *value, "{overlay}");
        }
        // The alerts look for job="nodetrust" and for the label `node`.
        let job = text(&monitor["spec"]["jobLabel"]);
        assert_eq!(template["metadata"]["labels"][job], "nodetrust", "{overlay}");
        let endpoint = &monitor["spec"]["podMetricsEndpoints"][0];
        let ports = array(&template["spec"]["containers"][0]["ports"]);
        assert!(ports.into_iter().any(|port| port["name"] == endpoint["port"]), "{overlay}");
        let relabelled: Vec<&str> = array(&endpoint["relabelings"]).map(|rule| text(&rule["targetLabel"])).collect();
        assert_eq!(relabelled, ["node"], "{overlay}");
    }
}

#[test]
fn the_charts_values_for_monitoring_reach_the_objects() {
    for age in AGES {
        let values = "monitoring.runbookBase=https://git.corp/x/,monitoring.labels.release=kps,tlsSecret=a,\
                      monitoring.podMonitor.interval=60s,monitoring.podMonitor.tlsConfig.insecureSkipVerify=true,\
                      monitoring.podMonitor.metricRelabelings[0].action=labeldrop,monitoring.podMonitor.metricRelabelings[0].regex=serial";
        let all =
            objects(&helm(age, "1.29.0", &["--set", MONITORED, "--set", values, "-n", "elsewhere"]).expect(0).out);
        for name in ["PodMonitor nodetrust", "PrometheusRule nodetrust"] {
            assert_eq!(all[name]["metadata"]["labels"]["release"], "kps", "{name}");
            assert_eq!(all[name]["metadata"]["namespace"], "elsewhere", "{name}");
        }
        let endpoint = &all["PodMonitor nodetrust"]["spec"]["podMetricsEndpoints"][0];
        assert_eq!(endpoint["scheme"], "https");
        assert_eq!(endpoint["interval"], "60s");
        assert_eq!(endpoint["tlsConfig"], json!({"insecureSkipVerify": true}));
        assert_eq!(endpoint["metricRelabelings"], json!([{"action": "labeldrop", "regex": "serial"}]));
        let rules: Vec<&Value> = array(&all["PrometheusRule nodetrust"]["spec"]["groups"])
            .flat_map(|group| array(&group["rules"]))
            .collect();
        assert!(rules.len() > 20);
        for rule in rules {
            let url = text(&rule["annotations"]["runbook_url"]);
            assert!(url.starts_with("https://git.corp/x/docs/troubleshooting.md#"), "{url}");
        }
        for refused in ["monitoring.runbookBase=docs", "monitoring.rules=true", "monitoring.podMonitor.interval=often"]
        {
            assert_ne!(helm(age, "1.29.0", &["--set", refused]).code, 0, "{refused}");
        }
    }
}

/// With both, every agent would be scraped twice, and counted twice by some.
#[test]
fn annotations_for_scraping_come_if_asked_for_and_not_beside_a_pod_monitor() {
    for age in AGES {
        let annotations = |values: &str| {
            let all = objects(&helm(age, "1.29.0", &["--set", values]).expect(0).out);
            let all = pod(&all)["metadata"]["annotations"].as_object().unwrap().clone();
            all.into_iter().filter(|(key, _)| key.starts_with("prometheus.io/")).collect::<serde_json::Map<_, _>>()
        };
        assert!(annotations("").is_empty());
        let wanted = |port: &str, scheme: &str| {
            json!({
                "prometheus.io/scrape": "true", "prometheus.io/port": port, "prometheus.io/path": "/metrics",
                "prometheus.io/scheme": scheme,
            })
        };
        assert_eq!(json!(annotations("monitoring.scrapeAnnotations=true")), wanted("9643", "http"));
        let more = "monitoring.scrapeAnnotations=true,port=9000,tlsSecret=a";
        assert_eq!(json!(annotations(more)), wanted("9000", "https"));
        let both =
            helm(age, "1.29.0", &["--set", "monitoring.scrapeAnnotations=true,monitoring.podMonitor.enabled=true"]);
        assert!(both.code != 0 && both.err.contains("scrapeAnnotations"), "{both:?}");
    }
}
