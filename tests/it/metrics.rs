//! `/metrics` in both formats: every promised name, type, help and label, and nothing that a scraper would choke on.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
    time::Duration,
};

use crate::{
    agent::fast,
    support::{
        node::{Kind, Node, NodeAgent},
        pki::Ca,
    },
};

const LIMIT: Duration = Duration::from_secs(240);
const OPEN: &str = "Accept: application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5\r\n";

fn prometheus(agent: &NodeAgent) -> String {
    agent.get("/metrics").unwrap().1
}

fn open_metrics(agent: &NodeAgent) -> String {
    agent.get_with("/metrics", OPEN).unwrap().1
}

/// One sample line.
#[derive(Debug, PartialEq)]
struct Sample {
    name: String,
    labels: Vec<(String, String)>,
    value: f64,
}

/// Reads a sample strictly: `name{label="value",…} value`.
fn sample(line: &str) -> Sample {
    let end = line.find(['{', ' ']).unwrap_or_else(|| panic!("no value: {line}"));
    let name = line[..end].to_owned();
    let is_name = |text: &str| {
        !text.is_empty()
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
            && !text.as_bytes()[0].is_ascii_digit()
    };
    assert!(is_name(&name), "{line}");
    let (mut labels, mut rest) = (Vec::new(), &line[end..]);
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        while !rest.starts_with('}') {
            let (label, after) = rest.split_once("=\"").unwrap_or_else(|| panic!("no label: {line}"));
            assert!(is_name(label), "{line}");
            let (mut value, mut chars) = (String::new(), after.char_indices());
            let close = loop {
                match chars.next().unwrap_or_else(|| panic!("an open quote: {line}")) {
                    (at, '"') => break at,
                    (_, '\\') => value.push(match chars.next().unwrap().1 {
                        'n' => '\n',
                        c @ ('\\' | '"') => c,
                        c => panic!("the escape \\{c}: {line}"),
                    }),
                    (_, c) => value.push(c),
                }
            };
            labels.push((label.to_owned(), value));
            rest = after[close + 1..].trim_start_matches(',');
        }
        rest = &rest[1..];
    }
    let value = rest.strip_prefix(' ').unwrap_or_else(|| panic!("no blank before the value: {line}"));
    Sample { name, labels, value: value.parse().unwrap_or_else(|_| panic!("no number: {line}")) }
}

/// A family: type, help and samples.
#[derive(Debug, Default)]
struct MetricFamily {
    kind: String,
    help: String,
    samples: Vec<Sample>,
}

/// Reads an exposition and fails on whatever either format forbids.
fn read(text: &str, open: bool) -> BTreeMap<String, MetricFamily> {
    assert!(text.ends_with('\n'));
    assert_eq!(text.matches("# EOF").count(), usize::from(open));
    assert_eq!(text.ends_with("\n# EOF\n"), open, "OpenMetrics ends in # EOF, and only that does");
    let (mut families, mut current) = (BTreeMap::<String, MetricFamily>::new(), String::new());
    let mut series = BTreeSet::new();
    for line in text.lines().filter(|line| *line != "# EOF") {
        assert!(!line.is_empty() && line.trim() == line, "{line:?}");
        if let Some(meta) = line.strip_prefix("# ") {
            let mut words = meta.splitn(3, ' ');
            let (what, name, rest) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap_or_default());
            if name != current {
                assert!(!families.contains_key(name), "{name} comes in two places");
                name.clone_into(&mut current);
            }
            let family = families.entry(name.to_owned()).or_default();
            assert!(family.samples.is_empty(), "{what} of {name} after its samples");
            match what {
                "HELP" => rest.clone_into(&mut family.help),
                "TYPE" => rest.clone_into(&mut family.kind),
                "UNIT" if open => {}
                _ => panic!("{line}"),
            }
            continue;
        }
        let sample = sample(line);
        let family = families.get_mut(&current).unwrap_or_else(|| panic!("a sample without a family: {line}"));
        let suffixes: &[&str] = match (family.kind.as_str(), open) {
            ("counter", true) => &["_total"],
            ("info", true) => &["_info"],
            ("counter" | "gauge", _) => &[""],
            ("histogram", _) => &["_bucket", "_sum", "_count"],
            (kind, _) => panic!("{current} has the type {kind:?}"),
        };
        let suffix = sample.name.strip_prefix(&current).unwrap_or_else(|| panic!("{line} within {current}"));
        assert!(suffixes.contains(&suffix), "{line} within {current}");
        if family.kind == "counter" {
            assert!(sample.name.ends_with("_total") && sample.value >= 0.0, "{line}");
        }
        let mut labels = sample.labels.clone();
        labels.sort();
        let names: BTreeSet<&String> = labels.iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), labels.len(), "a label twice: {line}");
        assert!(series.insert((sample.name.clone(), labels)), "the series is there twice: {line}");
        family.samples.push(sample);
    }
    for (name, family) in &families {
        assert!(!family.help.is_empty() && !family.kind.is_empty() && !family.samples.is_empty(), "{name}: {family:?}");
        if family.kind == "histogram" {
            let buckets: Vec<&Sample> = family.samples.iter().filter(|s| s.name.ends_with("_bucket")).collect();
            assert!(buckets.windows(2).all(|pair| pair[0].value <= pair[1].value), "{name} is not cumulative");
            assert_eq!(buckets.last().unwrap().labels, [("le".to_owned(), "+Inf".to_owned())]);
            let total = family.samples.iter().find(|s| s.name.ends_with("_count")).unwrap().value;
            assert!(buckets.last().unwrap().value == total, "{name}");
        }
    }
    families
}

fn data(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "../tests/data", name].iter().collect()
}

/// Compares with a file in `tests/data`, which is written anew with `UPDATE_GOLDEN=1`. Read it in review.
fn assert_golden(name: &str, actual: &str) {
    if std::env::var_os("UPDATE_GOLDEN").is_some_and(|value| value == "1") {
        return fs::write(data(name), actual).unwrap();
    }
    let expected = fs::read_to_string(data(name)).unwrap_or_default();
    assert!(expected == actual, "tests/data/{name} differs (UPDATE_GOLDEN=1 writes it anew); actual:\n{actual}");
}

/// An exposition without what differs from run to run: values, fingerprints, digests, serial numbers, the build, and the
/// order of a counter's series.
fn normalised(text: &str, cas: &[(&str, &Ca)]) -> String {
    let mut lines = Vec::new();
    for line in text.lines() {
        let mut out = String::new();
        if line.starts_with('#') {
            out.push_str(line);
        } else {
            let sample = sample(line);
            out.push_str(&sample.name);
            let labels: Vec<String> = sample
                .labels
                .iter()
                .map(|(name, value)| {
                    let value = match name.as_str() {
                        "fingerprint_sha256" => cas.iter().find(|(_, ca)| ca.sha256() == *value).unwrap().0,
                        "digest" | "serial" | "version" | "revision" | "rustc" => "…",
                        _ => value,
                    };
                    format!("{name}={value:?}")
                })
                .collect();
            if !labels.is_empty() {
                out.push_str(&format!("{{{}}}", labels.join(",")));
            }
            out.push_str(" …");
        }
        lines.push(out);
    }
    for series in lines.chunk_by_mut(|a, b| a.starts_with('#') == b.starts_with('#')) {
        // The buckets of a histogram keep their order.
        if series.iter().all(|line| line.contains("_total{")) {
            series.sort();
        }
    }
    lines.join("\n") + "\n"
}

#[test]
fn names_types_help_and_labels_are_the_contracts() {
    let node = Node::new(Kind::Trixie, "");
    let (one, two) = (Ca::new("Corp Root 2021"), Ca::new("Corp Root 2026"));
    let cas = [("<Corp Root 2021>", &one), ("<Corp Root 2026>", &two)];
    node.set_source(&[&one]);
    let agent = node.agent(&fast("1h"));
    agent.wait_converged(&[&one], LIMIT);
    node.set_source(&[&two]);
    agent.wait_converged(&[&one, &two], LIMIT);
    assert_golden("metrics.prom", &normalised(&prometheus(&agent), &cas));
    assert_golden("metrics.openmetrics", &normalised(&open_metrics(&agent), &cas));

    let (text, open) = (read(&prometheus(&agent), false), read(&open_metrics(&agent), true));
    // All metrics but those of a runtime and of probes, which this node does not have.
    let promised: [(&str, &str, &[&str]); 31] = [
        ("nodetrust_build_info", "info", &["version", "revision", "rustc"]),
        ("nodetrust_store_info", "info", &["family", "os_id", "os_version", "anchors_dir", "extracted_bundle"]),
        ("nodetrust_store_certificates", "gauge", &[]),
        ("nodetrust_source_up", "gauge", &["source"]),
        ("nodetrust_source_anchors", "gauge", &["source"]),
        ("nodetrust_rejections", "gauge", &["source", "reason"]),
        ("nodetrust_anchor_info", "info", &["fingerprint_sha256", "subject_cn", "issuer_cn", "serial", "state"]),
        ("nodetrust_anchor_trusted", "gauge", &["fingerprint_sha256"]),
        ("nodetrust_anchor_not_before_timestamp_seconds", "gauge", &["fingerprint_sha256"]),
        ("nodetrust_anchor_not_after_timestamp_seconds", "gauge", &["fingerprint_sha256"]),
        ("nodetrust_anchor_grace_end_timestamp_seconds", "gauge", &["fingerprint_sha256"]),
        ("nodetrust_stale_copies", "gauge", &["reason"]),
        ("nodetrust_desired_set_info", "info", &["digest"]),
        ("nodetrust_effective_set_info", "info", &["digest"]),
        ("nodetrust_converged", "gauge", &[]),
        ("nodetrust_reconciles_total", "counter", &["trigger", "outcome"]),
        ("nodetrust_reconcile_duration_seconds", "histogram", &[]),
        ("nodetrust_extract_duration_seconds", "histogram", &[]),
        ("nodetrust_last_success_timestamp_seconds", "gauge", &[]),
        ("nodetrust_last_change_timestamp_seconds", "gauge", &[]),
        ("nodetrust_drift_repaired_total", "counter", &["kind"]),
        ("nodetrust_errors_total", "counter", &["reason"]),
        ("nodetrust_runtime_restarts_total", "counter", &["outcome"]),
        ("nodetrust_runtime_state", "gauge", &["state"]),
        ("process_cpu_seconds_total", "counter", &[]),
        ("process_start_time_seconds", "gauge", &[]),
        ("process_virtual_memory_bytes", "gauge", &[]),
        ("process_resident_memory_bytes", "gauge", &[]),
        ("process_threads", "gauge", &[]),
        ("process_open_fds", "gauge", &[]),
        ("process_max_fds", "gauge", &[]),
    ];
    for (name, kind, labels) in promised {
        let base = name.trim_end_matches("_total").trim_end_matches("_info");
        let in_open = open.get(if matches!(kind, "counter" | "info") { base } else { name });
        let in_text = text.get(name);
        let (in_open, in_text) = (in_open.expect(name), in_text.expect(name));
        assert_eq!(in_open.kind, kind, "{name}");
        assert_eq!(in_text.kind, if kind == "info" { "gauge" } else { kind }, "{name}");
        assert_eq!(in_open.help, in_text.help, "{name}");
        for family in [in_open, in_text] {
            for sample in family.samples.iter().filter(|_| kind != "histogram") {
                let names: Vec<&str> = sample.labels.iter().map(|(name, _)| name.as_str()).collect();
                assert_eq!(names, labels, "{name}");
            }
        }
    }
    assert_eq!(text.len(), promised.len(), "nothing that is not promised: {:?}", text.keys());
}

#[test]
fn values_tell_what_is_and_series_leave_with_their_anchor() {
    let node = Node::new(Kind::Trixie, "");
    let (one, two) = (Ca::new("Corp Root 2021"), Ca::new("Corp Root 2026"));
    node.set_source(&[&one]);
    let agent = node.agent(&fast("15s"));
    let before = agent.metric("nodetrust_converged");
    assert!(before.is_none_or(|value| value == 1.0), "nothing is claimed before the first cycle has ended");
    let status = agent.wait_converged(&[&one], LIMIT);
    let seconds = |time: &serde_json::Value| time.as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_second();
    #[expect(clippy::cast_precision_loss, reason = "seconds are far below 2^52")]
    let is = |name: &str, expected: i64| assert_eq!(agent.metric(&format!("{name} ")), Some(expected as f64), "{name}");
    let of = |name: &str, ca: &Ca| agent.metric(&format!("{name}{{fingerprint_sha256=\"{}\"}}", ca.sha256()));
    is("nodetrust_converged", 1);
    is("nodetrust_store_certificates", i64::try_from(node.bundle().len()).unwrap());
    is("nodetrust_last_change_timestamp_seconds", seconds(&status["changed"]));
    assert!(agent.metric("nodetrust_last_success_timestamp_seconds").unwrap() >= seconds(&status["changed"]) as f64);
    assert_eq!(of("nodetrust_anchor_trusted", &one), Some(1.0));
    assert_eq!(
        of("nodetrust_anchor_not_after_timestamp_seconds", &one).map(|value| value as i64),
        Some(seconds(&status["anchors"][0]["notAfter"]))
    );
    assert_eq!(
        of("nodetrust_anchor_not_before_timestamp_seconds", &one).map(|value| value as i64),
        Some(seconds(&status["anchors"][0]["notBefore"]))
    );
    assert_eq!(of("nodetrust_anchor_grace_end_timestamp_seconds", &one), None);
    let digest = status["desiredDigest"].as_str().unwrap();
    for name in ["desired", "effective"] {
        assert_eq!(agent.metric(&format!("nodetrust_{name}_set_info{{digest=\"{digest}\"}}")), Some(1.0));
    }

    // The grace is visible and ends; all series of the anchor go with it.
    node.set_source(&[&two]);
    let status = agent.wait_converged(&[&one, &two], LIMIT);
    let row = status["anchors"].as_array().unwrap().iter().find(|row| row["sha256"] == one.sha256()).unwrap();
    let end = of("nodetrust_anchor_grace_end_timestamp_seconds", &one).unwrap() as i64;
    assert!((end - seconds(&row["graceEnd"])).abs() <= 1);
    assert_ne!(status["desiredDigest"].as_str().unwrap(), digest);
    agent.wait_converged(&[&two], LIMIT);
    assert!(!prometheus(&agent).contains(&one.sha256()), "a removed anchor leaves no series");

    // After a failure: not converged, an error of its kind, and the time of the last success stays.
    let success = agent.metric("nodetrust_last_success_timestamp_seconds");
    node.write("/usr/sbin/update-ca-certificates", "#!/bin/sh\necho simulated failure; exit 1\n");
    node.set_source(&[&one]);
    agent.wait_status("the failure", LIMIT, |status| status["converged"] == false);
    is("nodetrust_converged", 0);
    assert_eq!(of("nodetrust_anchor_trusted", &one), Some(0.0));
    assert!(agent.metric("nodetrust_errors_total{reason=\"extract\"}").unwrap() >= 1.0);
    assert!(agent.metric("nodetrust_reconciles_total{trigger=\"source\",outcome=\"failed\"}").unwrap() >= 1.0);
    let now = agent.metric("nodetrust_last_success_timestamp_seconds");
    assert!(now.unwrap() - success.unwrap() <= 3.0, "a failed cycle is no success");
    read(&prometheus(&agent), false);
    read(&open_metrics(&agent), true);
}

#[test]
fn colliding_and_odd_names_do_not_break_a_scrape() {
    let node = Node::new(Kind::Trixie, "");
    let odd = "Evil \"CA\" \\ with\nnew line, {braces} # and ünïcode";
    let cas = [Ca::new("Corp Root"), Ca::new("Corp Root"), Ca::new(odd), Ca::new(odd)];
    node.set_source(&cas.each_ref());
    let agent = node.agent(&fast("1h"));
    agent.wait_converged(&cas.each_ref(), LIMIT);
    for (text, open) in [(prometheus(&agent), false), (open_metrics(&agent), true)] {
        let families = read(&text, open);
        let infos = &families[if open { "nodetrust_anchor" } else { "nodetrust_anchor_info" }].samples;
        assert_eq!(infos.len(), 4, "{infos:?}");
        let named = |name: &str| infos.iter().filter(|s| s.labels[1] == ("subject_cn".into(), name.into())).count();
        assert_eq!(named("Corp Root"), 2);
        let odd: Vec<&str> =
            infos.iter().map(|s| s.labels[1].1.as_str()).filter(|name| name.contains("Evil")).collect();
        assert_eq!(odd.len(), 2, "{infos:?}");
        assert_eq!(families["nodetrust_anchor_trusted"].samples.len(), 4);
    }
}
