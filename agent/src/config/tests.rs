//! Every field with its default, and an error that helps for every value out of form.
//!
//! Long because each field has its error here, in the order of the reference.

use super::*;
use nodetrust_core::{
    action::ExportFormat,
    certificate::fingerprint::Fingerprint,
    fleet::{gate::ApiOutage, limit::RestartLimit, window::RestartWindow},
    runtime::{kinds::RuntimeKind, settings::OnChange},
    source::policy::{Acceptance, EmptySource, NotCa, OnRejection, RemovalGate, Unproven},
};

#[track_caller]
fn parse(text: &str) -> Settings {
    Settings::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// Every field with a value of its own, and both kinds of source.
const COMPLETE: &str = r#"
sources:
  - name: org
    path: /etc/nodetrust/sources/org
    optional: false
  - name: pinned
    inline: |
      -----BEGIN CERTIFICATE-----
policy:
  onRejection: skip
  notCa: auto
  expired: reject
  weak: accept
  selfSignature: warn
  allowedFingerprints: []
  deniedFingerprints: []
  distrust: []
  emptySource: hold
rotation:
  removalGrace: 24h
  removalGate: none
store:
  family: auto
  adopt: []
  extractTimeout: 60s
runtime:
  kind: auto
  unit: ""
  onChange: auto
  witness: auto
  alsoRestart: []
fleet:
  maxConcurrentRestarts: 1
  window: {days: [], start: "", end: "", timeZone: UTC}
  haltOnFailure: true
  whenApiUnavailable: wait
  apiTimeout: 1h
  healthyWithin: 5m
  canarySelector: ""
  canarySoak: 10m
probes: []
resync: 5m
settle: 2s
http: {address: "[::]:9643", tls: {certFile: "", keyFile: "", clientCAFile: ""}}
kubernetes: {enabled: auto, condition: true, annotations: true, events: true, startupTaint: ""}
export: {bundle: "", pkcs12: ""}
log: {level: info, format: auto}
"#;

#[test]
fn the_contracts_example_is_the_defaults() {
    let settings = parse(COMPLETE);
    let sources = vec![
        Source { name: "org".into(), from: SourceLocation::Path("/etc/nodetrust/sources/org".into()), optional: false },
        Source {
            name: "pinned".into(),
            from: SourceLocation::Inline("-----BEGIN CERTIFICATE-----\n".into()),
            optional: false,
        },
    ];
    let fleet = Some(FleetSettings::default());
    assert_eq!(settings, Settings { sources, fleet, ..Settings::default() }, "and asks for nothing that has no effect");
    for empty in ["", "\n", "{}", "sources: []\n", "# nothing yet\n{}\n"] {
        assert_eq!(parse(empty), Settings::default(), "{empty:?}");
    }
    let defaults = Settings::default();
    assert_eq!(
        (defaults.settle.as_secs(), defaults.resync.as_secs(), defaults.extract_timeout.as_secs()),
        (2, 300, 60)
    );
    assert_eq!(defaults.policy.removal_grace, 24 * 3600);
    assert_eq!(defaults.http.address.to_string(), "[::]:9643");
}

#[test]
fn every_field_reaches_the_settings() {
    let one = Fingerprint::of_der(b"one");
    let two = Fingerprint::of_der(b"two");
    let settings = parse(&format!(
        "
sources: [{{name: a-1, path: /a, optional: true}}]
policy: {{onRejection: hold, notCa: reject, expired: accept, weak: reject, selfSignature: reject, emptySource: remove,
  allowedFingerprints: [{one}], distrust: [{one}], deniedFingerprints: [\"{}\"]}}
rotation: {{removalGrace: 1500ms, removalGate: fleet}}
store: {{family: redhat, extractTimeout: 2m, adopt: [domain.crt, \"corp-*.crt\"]}}
resync: 10m
settle: 300ms
runtime: {{kind: k3s, unit: edge-k3s.service, onChange: restart, alsoRestart: [kubelet.service],
  witness: [registry.corp, \"[::1]:5000\"]}}
probes:
- {{target: \"registry.corp:443\", interval: 1m, viaProxy: \"http://me:secret@proxy.corp:3128\"}}
- {{target: \"registry.corp:443\", through: runtime}}
- {{target: \"https://[::1]/\", through: host}}
log: {{level: debug, format: json}}
fleet: {{maxConcurrentRestarts: 10%, whenApiUnavailable: proceed, apiTimeout: 2h, healthyWithin: 1m, haltOnFailure: false,
  canarySelector: \"canary in (true,yes)\", canarySoak: 30m, window: {{days: [Sat], start: \"22:00\", end: \"04:00\", timeZone: Europe/Berlin}}}}
kubernetes: {{enabled: false, condition: false, annotations: false, events: false,
  startupTaint: \"corp.test/no-trust=yes:NoSchedule\"}}
http: {{address: \"[::1]:80\", tls: {{certFile: /c, keyFile: /k, clientCAFile: /a}}}}
export: {{bundle: all.pem, pkcs12: all.p12}}
",
        two.to_string()
            .to_uppercase()
            .as_bytes()
            .chunks(2)
            .map(|pair| String::from_utf8_lossy(pair))
            .collect::<Vec<_>>()
            .join(":")
    ));
    let expected = Settings {
        sources: vec![Source { name: "a-1".into(), from: SourceLocation::Path("/a".into()), optional: true }],
        policy: Policy {
            adopt: vec!["domain.crt".parse().unwrap(), "corp-*.crt".parse().unwrap()],
            on_rejection: OnRejection::Hold,
            not_ca: NotCa::Reject,
            expired: Acceptance::Accept,
            weak: Acceptance::Reject,
            self_signature: Unproven::Reject,
            allowed: [one].into(),
            denied: [two].into(),
            distrust: [one].into(),
            empty_source: EmptySource::Remove,
            removal_grace: 2, // rounded up to whole seconds
            removal_gate: RemovalGate::Fleet,
        },
        runtime: RuntimeSettings {
            ignored: false,
            kind: Some(RuntimeKind::K3s),
            unit: Some("edge-k3s.service".into()),
            on_change: OnChange::Restart,
            also: vec!["kubelet.service".into()],
        },
        witness: WitnessRegistries::These(vec![
            Registry::parse("registry.corp").unwrap(),
            Registry::parse("[::1]:5000").unwrap(),
        ]),
        family: Some(Family::Redhat),
        extract_timeout: Duration::from_secs(120),
        resync: Duration::from_secs(600),
        settle: Duration::from_millis(300),
        http: Http {
            address: std::net::SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, 80)),
            tls: Some(TlsFiles { cert: "/c".into(), key: "/k".into(), client_ca: Some("/a".into()) }),
        },
        probes: vec![
            ProbeSettings {
                target: Target::parse("registry.corp:443").unwrap(),
                through: Through::Host,
                interval: Duration::from_secs(60),
                proxy: Some(Proxy::parse("http://me:secret@proxy.corp:3128").unwrap()),
            },
            ProbeSettings {
                target: Target::parse("registry.corp:443").unwrap(),
                through: Through::Runtime,
                interval: Duration::from_secs(300),
                proxy: None,
            },
            ProbeSettings {
                target: Target::parse("https://[::1]/").unwrap(),
                through: Through::Host,
                interval: Duration::from_secs(300),
                proxy: None,
            },
        ],
        kubernetes: Kubernetes {
            enabled: Some(false),
            condition: false,
            annotations: false,
            events: false,
            startup_taint: Some("corp.test/no-trust=yes:NoSchedule".parse().unwrap()),
        },
        export: ExportPaths::from([
            (ExportFormat::Pem, "/var/lib/nodetrust/export/all.pem".into()),
            (ExportFormat::Pkcs12, "/var/lib/nodetrust/export/all.p12".into()),
        ]),
        log: LogSettings { level: LevelFilter::DEBUG, format: LogFormat::Json },
        fleet: Some(FleetSettings {
            limit: RestartLimit::Percent(10),
            outage: ApiOutage::Proceed,
            api_timeout: Duration::from_secs(7200),
            healthy_within: Duration::from_secs(60),
            halt_on_failure: false,
            canary: "canary in (true,yes)".parse().unwrap(),
            canary_soak: Duration::from_secs(1800),
            window: RestartWindow::parse(&["Sat".into()], "22:00", "04:00", "Europe/Berlin").unwrap(),
        }),
        approvals: Some("/etc/nodetrust/approvals".into()),
        without_effect: WITHOUT_API.to_vec(), // the taint: the cluster is told nothing
    };
    assert_eq!(settings, expected);
    assert!(!format!("{settings:?}").contains("secret"));
    assert_eq!(parse("policy: {notCa: accept}").policy.not_ca, NotCa::Accept);
    assert_eq!(parse("rotation: {removalGrace: 0s}").policy.removal_grace, 0);
    for family in ["debian", "redhat", "suse", "arch", "alpine", "flatcar", "photon", "directory"] {
        let found = parse(&format!("store: {{family: {family}}}")).family.unwrap();
        assert_eq!(found.to_string(), family);
    }
}

#[test]
fn durations_are_whole_numbers_with_a_unit() {
    let cases = [
        ("1000ms", 1000),
        ("2s", 2000),
        ("5m", 300_000),
        ("24h", 86_400_000),
        ("7d", 604_800_000),
        ("1h30m", 5_400_000),
        ("1d2h3m4s5ms", 93_784_005),
    ];
    for (text, milliseconds) in cases {
        assert_eq!(parse(&format!("resync: {text}\nsettle: 0s")).resync, Duration::from_millis(milliseconds), "{text}");
        assert_eq!(
            parse(&format!("resync: \"{text}\"\nsettle: 0")).resync,
            Duration::from_millis(milliseconds),
            "{text}"
        );
    }
    for text in ["2m", "90s"] {
        assert!(Settings::parse(&format!("settle: {text}")).unwrap_err().contains("at most 1m"), "{text}");
    }
    assert!(Settings::parse("settle: 30s\nresync: 10s").unwrap_err().contains("resync"));
    for text in [
        "5",
        "1.5h",
        "-1s",
        "s",
        "1 s",
        "1w",
        "30m1h",
        "1h1h",
        "1h30",
        "1h 30m",
        "",
        "99999999999999999999s",
        "200000d",
    ] {
        let error = Settings::parse(&format!("settle: \"{text}\"")).unwrap_err();
        assert!(error.contains("settle") && error.contains("line 1"), "{text}: {error}");
    }
}

/// Each value out of form, on the last line of its text: the message has that line, the field and what is wanted.
#[test]
fn an_error_names_line_field_and_form() {
    let cases = [
        // unknown fields, at every level
        ("\nsorces: []", "sorces", "sources"),
        ("sources:\n- {name: a, path: /a, file: /b}", "file", "path"),
        ("\npolicy: {weaks: reject}", "weaks", "weak"),
        ("\nrotation: {grace: 1h}", "grace", "removalGrace"),
        ("\nstore: {kind: debian}", "kind", "family"),
        ("\nruntime: {restart: true}", "restart", "onChange"),
        ("\nfleet: {max: 1}", "max", "maxConcurrentRestarts"),
        ("\nfleet: {window: {from: 1}}", "from", "start"),
        ("probes:\n- {url: x}", "url", "target"),
        ("\nhttp: {port: 1}", "port", "address"),
        ("\nhttp: {tls: {cert: /x}}", "cert", "certFile"),
        ("\nkubernetes: {on: true}", "on", "enabled"),
        ("\nexport: {file: x}", "file", "bundle"),
        // values
        // A path in any form: whoever chooses where root writes is root.
        ("\nexport: {bundle: /etc/ld.so.preload}", "export.bundle", "kept in /var/lib/nodetrust/export/ on the node"),
        ("\nexport:\n  bundle: /var/lib/nodetrust/export/x.crt", "export.bundle", "a bare name"),
        ("\nexport: {bundle: ../../../etc/ld.so.preload}", "export.bundle", "a bare name"),
        ("\nexport: {bundle: /etc/../x}", "export.bundle", "a bare name"),
        ("\nexport: {bundle: /etc/corp/}", "export.bundle", "a bare name"),
        ("\nexport: {bundle: corp/all.pem}", "export.bundle", "a bare name"),
        ("\nexport: {bundle: ..}", "export.bundle", "a bare name"),
        ("\nexport: {bundle: .nodetrust-export.tmp}", "export.bundle", "no dot first"),
        ("\nexport: {bundle: \"all.pem\\n\"}", "export.bundle", "a bare name"),
        ("\nexport: {bundle: \"all pem\"}", "export.bundle", "a bare name"),
        ("\nexport: {pkcs12: /etc/ld.so.preload}", "export.pkcs12", "kept in /var/lib/nodetrust/export/ on the node"),
        ("\nexport: {pkcs12: ../all.p12}", "export.pkcs12", "a bare name"),
        ("\nexport: {bundle: all, pkcs12: all}", "export.pkcs12", "another name"),
        ("probes:\n- {target: registry}", "probes[0].target", "host:port"),
        ("probes:\n- {target: \"a:1\", interval: 500ms}", "probes[0].interval", "at least 1s"),
        ("probes:\n- {target: \"a:1\", viaProxy: \"socks://p:1\"}", "probes[0].viaProxy", "http://host:port"),
        ("probes:\n- {target: \"a:1\"}\n- {target: \"a:1\"}", "probes[1].target", "unique"),
        ("probes:\n- {target: \"a:1\", through: kubelet}", "probes[0].through", "host, runtime"),
        (
            "probes:\n- {target: \"a:1\", through: runtime, viaProxy: \"http://p:1\"}",
            "probes[0].viaProxy",
            "no `viaProxy` with `through: runtime`",
        ),
        ("runtime:\n  witness: off", "runtime.witness", "auto, never, or a list"),
        ("runtime:\n  witness: false", "runtime.witness", "auto, never, or a list"),
        ("runtime:\n  witness: registry.corp", "runtime.witness", "auto, never, or a list"),
        ("runtime:\n  witness: []", "runtime.witness", "never"),
        ("runtime:\n  witness: [\"https://registry.corp\"]", "runtime.witness", "registry.corp:5000"),
        ("runtime:\n  witness: [a.corp, \"a.corp:443\"]", "runtime.witness", "unique"),
        ("sources:\n- {name: Org, path: /a}", "sources[0].name", "1 to 63 of a-z, 0-9 and -"),
        ("sources:\n- {name: \"\", path: /a}", "sources[0].name", "1 to 63 of a-z, 0-9 and -"),
        ("sources:\n- {path: /a}", "sources[0]", "name"),
        ("sources:\n- {name: a}", "sources[0]", "exactly one of `path` and `inline`"),
        ("sources:\n- {name: a, path: /a, inline: x}", "sources[0]", "exactly one of `path` and `inline`"),
        ("sources:\n- {name: a, path: etc/a}", "sources[0].path", "absolute path"),
        ("sources:\n- {name: a, path: /a}\n- {name: a, path: /b}", "sources[1].name", "unique"),
        ("sources:\n- {name: a, path: /a, optional: perhaps}", "sources[0].optional", "true or false"),
        ("\nsources: /etc/ssl", "sources", "expected a list"),
        ("policy:\n  onRejection: drop", "policy.onRejection", "skip, hold"),
        ("policy:\n  notCa: maybe", "policy.notCa", "auto, accept, reject"),
        ("policy:\n  expired: no", "policy.expired", "accept, reject"),
        ("policy:\n  selfSignature: accept", "policy.selfSignature", "warn, reject"),
        ("policy:\n  weak: \"yes\"", "policy.weak", "accept, reject"),
        ("policy:\n  emptySource: keep", "policy.emptySource", "hold, remove"),
        ("policy:\n  allowedFingerprints: [abc]", "policy.allowedFingerprints", "64"),
        ("policy:\n  deniedFingerprints: [\"AB:CD\"]", "policy.deniedFingerprints", "64"),
        ("policy:\n  distrust: [abc]", "policy.distrust", "64"),
        ("rotation:\n  removalGrace: soon", "rotation.removalGrace", "24h"),
        ("rotation:\n  removalGate: all", "rotation.removalGate", "none, fleet"),
        ("store:\n  family: windows", "store.family", "debian, redhat"),
        ("store:\n  adopt: [../domain.crt]", "store.adopt", "base name"),
        ("store:\n  adopt: [\"*\"]", "store.adopt", "not alone"),
        ("store:\n  extractTimeout: 10ms", "store.extractTimeout", "at least 1s"),
        ("runtime:\n  kind: podman", "runtime.kind", "containerd"),
        ("runtime:\n  unit: containerd", "runtime.unit", "kubelet.service"),
        ("runtime:\n  alsoRestart: [\"a b.service\"]", "runtime.alsoRestart", "kubelet.service"),
        ("runtime:\n  onChange: reload", "runtime.onChange", "restart, report"),
        ("fleet:\n  maxConcurrentRestarts: 0", "fleet.maxConcurrentRestarts", "1% to 100%"),
        ("fleet:\n  maxConcurrentRestarts: 101%", "fleet.maxConcurrentRestarts", "1% to 100%"),
        ("fleet:\n  whenApiUnavailable: fail", "fleet.whenApiUnavailable", "wait, proceed"),
        ("fleet:\n  canarySelector: a in b", "fleet.canarySelector", "at character"),
        ("fleet:\n  window: {days: [Someday]}", "fleet.window.days", "Mon, Tue"),
        ("fleet:\n  window: {start: \"9\", end: \"10:00\"}", "fleet.window.start", "22:00"),
        ("fleet:\n  window: {timeZone: Mars/Base}", "fleet.window.timeZone", "Mars/Base"),
        ("log:\n  level: loud", "log.level", "error, warn"),
        ("\nresync: 10ms", "resync", "at least 1s"),
        ("\nsettle: 5", "settle", "300ms"),
        ("http:\n  address: localhost:9643", "http.address", "0.0.0.0:9643"),
        ("http:\n  address: \"9643\"", "http.address", "0.0.0.0:9643"),
        ("http:\n  tls: {certFile: /c}", "http.tls", "both `certFile` and `keyFile`"),
        ("http:\n  tls: {clientCAFile: /a}", "http.tls", "with `clientCAFile`"),
        ("http:\n  tls: {certFile: /c, clientCAFile: /a}", "http.tls", "both `certFile` and `keyFile`"),
        ("http:\n  tls: {certFile: /c, keyFile: /k, clientCaFile: /a}", "clientCaFile", "clientCAFile"),
        ("http:\n  tls: {keyFile: /k}", "http.tls", "both `certFile` and `keyFile`"),
        ("kubernetes:\n  enabled: perhaps", "kubernetes.enabled", "auto, true, false"),
    ];
    let mut wrong = Vec::new();
    for (text, field, form) in cases {
        let line = format!("line {}", text.lines().count());
        match Settings::parse(text) {
            Ok(_) => wrong.push(format!("{text:?} was taken")),
            Err(error) => {
                let lacks: Vec<&str> =
                    [line.as_str(), field, form].into_iter().filter(|w| !error.contains(w)).collect();
                if !lacks.is_empty() {
                    wrong.push(format!("{text:?}: {error:?} lacks {lacks:?}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn what_is_no_configuration_at_all_is_refused_with_its_line() {
    for text in ["sources: [", "a: b: c", "- just\n- a list", "settle: 2s\nsettle: 3s", "\"", "&a *a"] {
        let error = Settings::parse(text).expect_err(text);
        assert!(error.contains("line"), "{text:?}: {error}");
    }
    // Errors quote no value: it may be a private key that somebody put there by mistake.
    let secret = "sources:\n- name: a\n  inlin: |\n    -----BEGIN PRIVATE KEY-----\n    c2VjcmV0\n";
    let error = Settings::parse(secret).unwrap_err();
    assert!(error.contains("inlin") && !error.contains("c2VjcmV0"), "{error}");
    // A block that is not indented becomes part of a key.
    let pasted = "policy: {notCa |\n      -----BEGIN CERTIFICATE: auto}";
    let error = Settings::parse(pasted).unwrap_err();
    assert!(error.contains("line") && !error.contains("-----"), "{error}");
}

#[test]
fn what_was_probably_meant_is_offered() {
    let cases = [
        ("sorces: []", "`sources`"),
        ("policy: {not_ca: auto}", "`notCa`"),
        ("policy: {onRejection: Skip}", "`skip`"),
        ("rotation: {grace: 1h}", "`removalGrace`"),
        ("store: {family: debain}", "`debian`"),
        ("runtime: {kind: cri-o}", "`crio`"),
        ("log: {level: warning}", "`warn`"),
        ("probes: [{target: \"a:1\", throgh: host}]", "`through`"),
    ];
    for (text, meant) in cases {
        let error = Settings::parse(text).unwrap_err();
        assert!(error.contains(&format!("did you mean {meant}?")) && error.contains("line 1"), "{text}: {error}");
    }
    let error = Settings::parse("policy: {onRejection: drop}").unwrap_err();
    assert!(!error.contains("did you mean"), "{error}");
}

/// What the library that reads YAML calls things tells a person nothing.
#[test]
fn errors_have_the_words_of_configurations() {
    let texts = [
        "sources: /etc/ssl",
        "sources: [1]",
        "sources: [[a]]",
        "sources: {a: b}",
        "policy: auto",
        "policy: [a]",
        "policy:",
        "policy: {expired: [a]}",
        "policy: {expired: {a: b}}",
        "sources: [{name: a, path: /a, optional: 7}]",
        "sources: [{name: [a], path: /a}]",
        "sources: [{path: /a}]",
        "runtime: {alsoRestart: kubelet.service}",
        "runtime: {witness: {a: b}}",
        "resync: [5m]",
        "settle: 2s\nsettle: 3s",
        "a: b: c",
        "- just",
        "[",
        "{",
        "sources: [",
        "sources: [a",
        "x: {a: b",
        "&a *b",
        "x: *b",
        "a: 1\n---\nb: 2",
        "\"",
        "x: |\ny",
        "\tx: 1",
    ];
    for text in texts {
        let error = Settings::parse(text).expect_err(text);
        for word in [
            "scalar",
            "sequence",
            "mapping",
            "struct ",
            "Raw",
            "serde",
            "Options",
            "Policy",
            "node",
            "event",
            "invalid type",
        ] {
            assert!(!error.contains(word), "{text:?}: {error}");
        }
        assert!(error.contains("line "), "{text:?}: {error}");
    }
}

#[test]
fn an_error_does_not_draw_on_the_terminal() {
    for text in ["\"a\\e[31m\": 1", "settle: \"\\e[2J\"", "policy: {expired: \"\\u202e\"}", "\u{1b}[0m"] {
        let error = Settings::parse(text).expect_err(text);
        assert!(!error.chars().any(|c| c.is_control() || c == '\u{202e}'), "{error:?}");
    }
}

#[test]
fn a_file_is_read_within_limits_and_named_in_errors() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.yaml");
    let missing = Settings::read(&path).unwrap_err();
    assert!(missing.missing && missing.to_string().starts_with(&path.display().to_string()), "{missing}");
    let refuses = |bytes: &[u8], what: &str| {
        std::fs::write(&path, bytes).unwrap();
        let error = Settings::read(&path).unwrap_err();
        assert!(!error.missing && error.to_string().contains(what), "{error}");
        assert!(error.to_string().starts_with(&path.display().to_string()), "{error}");
    };
    refuses(b"settle: \xff", "UTF-8");
    refuses(&vec![b'#'; (4 << 20) + 1], "larger than");
    refuses(b"settle: x", "settle");
    refuses(b"settle: 1s", "at least one source");
    assert_eq!(Settings::read_rules(&path).unwrap().settle, Duration::from_secs(1));
    std::fs::write(&path, "settle: 1s\nsources: [{name: a, path: /a}]").unwrap();
    assert_eq!(Settings::read(&path).unwrap().settle, Duration::from_secs(1));
    let not_a_file = Settings::read(dir.path()).unwrap_err();
    assert!(not_a_file.to_string().contains("not a regular file"), "{not_a_file}");
}

#[test]
fn fields_without_effect_are_checked_for_form_and_called_out() {
    let cases: [(&str, &[&str]); 10] = [
        ("probes: [{target: \"registry.corp:443\", interval: 5m}]", &[]),
        ("kubernetes: {enabled: true}", KUBERNETES),
        ("kubernetes: {enabled: auto}", &[]),
        ("kubernetes: {enabled: false, startupTaint: x}", WITHOUT_API),
        ("runtime: {kind: none, unit: edge.service, witness: [a.corp]}", &["runtime.unit", "runtime.witness"]),
        ("runtime: {kind: none, unit: \"\", witness: never}", &[]),
        ("runtime: {kind: k3s, unit: edge.service, witness: [a.corp]}", &[]),
        ("kubernetes: {startupTaint: x}", KUBERNETES),
        ("rotation: {removalGate: fleet}", &[]),
        ("rotation: {removalGate: none}\nexport: {bundle: x}\nkubernetes: {enabled: false}", &[]),
    ];
    for (text, expected) in cases {
        assert_eq!(parse(text).without_effect, expected, "{text}");
    }
}

const WITHOUT_API: &[&str] = if cfg!(feature = "kubernetes") {
    &["kubernetes.startupTaint"]
} else {
    &["kubernetes", "kubernetes.startupTaint"]
};

/// The field that has no effect in a program without the feature.
const KUBERNETES: &[&str] = if cfg!(feature = "kubernetes") { &[] } else { &["kubernetes"] };

/// A key that was put where a name or path belongs.
#[test]
fn long_values_are_never_quoted() {
    let key = "-----BEGIN PRIVATE KEY-----\\nMC4CAQAwBQYDK2VwBCIEIJ1hsZ3v\\n-----END PRIVATE KEY-----";
    let body = "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgevZzL1gdAFr88hb2";
    for secret in [key, body] {
        for text in [
            "sources: [{name: \"@\", path: /a}]",
            "sources: [{name: a, path: \"@\"}]",
            "policy: {expired: \"@\"}",
            "policy: {deniedFingerprints: [\"@\"]}",
            "settle: \"@\"",
            "store: {family: \"@\"}",
            "http: {address: \"@\"}",
            "\"@\": 1",
        ] {
            let error = Settings::parse(&text.replace('@', secret)).unwrap_err();
            assert!(!error.contains("MC4CAQ") && !error.contains("MIGHAg"), "{error}");
        }
    }
}

/// A template leaves such a text when its value is not set.
#[test]
fn a_field_without_a_value_has_its_default() {
    for text in [
        "resync:",
        "settle: ~",
        "policy: {weak: , onRejection: null}",
        "rotation: {removalGrace: , removalGate: }",
        "store: {family: , extractTimeout: }",
        "runtime: {kind: , unit: , onChange: , witness: }",
        "fleet:",
        "http: {address: , tls: }",
        "kubernetes: {enabled: , condition: , startupTaint: }",
        "export: {bundle: , pkcs12: }",
    ] {
        assert_eq!(parse(text), Settings::default(), "{text}");
    }
    let fleet = "fleet: {maxConcurrentRestarts: , window: , whenApiUnavailable: }";
    assert_eq!(parse(fleet).fleet, Some(FleetSettings::default()), "the section is there");
    // A mapping or list that was cut off does not count as the default.
    for text in ["policy:", "sources:", "runtime: {alsoRestart: }"] {
        let error = Settings::parse(text).unwrap_err();
        assert!(error.contains("expected") && error.contains("line 1"), "{text}: {error}");
    }
}

/// A mistake is told by its field whatever stands before it, and a big text costs no more than its size.
#[test]
fn the_field_of_an_error_is_found_in_any_yaml() {
    let keys = "sources:\n- &a {? &k name : one, path: /a}\n- {*k : two, path: rel}";
    let error = Settings::parse(keys).unwrap_err();
    assert!(error.starts_with("sources[1].path: "), "{error}");
    for odd in ["? {a: b}\n: 1", "? [a]\n: {b: c}", "*x : 1", "- - - a"] {
        assert!(Settings::parse(odd).is_err(), "{odd}");
    }
    let list = "1,".repeat(100_000);
    for big in [format!("{}: [{list}]", "k".repeat(1000)), format!("sources: [{list}]"), "[".repeat(1 << 16)] {
        let error = Settings::parse(&big).unwrap_err();
        assert!(error.len() < 500, "{}", error.len());
    }
}
