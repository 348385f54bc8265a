//! The answer that people and machines get, for each way a node can stand.
//!
//! Long because the ways share one node, from which each differs in a line.

mod news;
mod runtime;

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::{
    action::Action,
    certificate::{anchor::Anchor, fingerprint::Fingerprint, pem::RejectReason},
    cycle::{CycleOutcome, Trigger},
    ledger::{AnchorState, Ledger},
    observed::{Effective, ForeignFile, Hazard, Observed, ToollessStore},
    plan::Plan,
    planner::{plan, settle},
    problem::{Problem, ProblemKind},
    runtime::{
        kinds::RuntimeKind,
        process::ServiceProcess,
        record::ServiceRecord,
        registry_dir::{OwnRegistryFile, RegistryCerts, Setting},
        service_plan::RestartGate,
        services::{Runtime, Service, ServiceState},
        settings::{OnChange, RuntimeSettings},
        staleness::decide,
        trust::RuntimeState,
        witness::{Witness, WitnessAnswer},
    },
    source::{
        Content, Resolved, Snapshot,
        policy::{Circumstances, Policy},
        resolve::resolve,
    },
    store::{Detection, Evidence, Family, PathKind, Unsupported, os_release::OsRelease},
    testing::{NOW, assert_golden, at, files, fixed, host, source, source_of},
    text::plural,
    time::{Moment, Time, Uptime},
};

/// A node at one moment; what is not set is in order.
struct ReportedNode {
    sources: Vec<Snapshot>,
    observed: Option<Observed>,
    without_tool: Option<ToollessStore>,
    ledger: Ledger,
    policy: Policy,
    problems: Vec<Problem>,
    detection: Detection,
    now: Moment,
    on_change: OnChange,
}

impl ReportedNode {
    fn new(sources: Vec<Snapshot>, observed: Observed) -> Self {
        let evidence = vec![Evidence { fact: "os-release ID".into(), value: "debian".into() }];
        let detection = Detection { family: Ok(observed.store.family), because: "a test says so".into(), evidence };
        let (ledger, policy, now) = (Ledger::new(), Policy::default(), at(NOW, 1000, "one"));
        let on_change = OnChange::Auto;
        let (observed, without_tool, problems) = (Some(observed), None, Vec::new());
        Self { sources, observed, without_tool, ledger, policy, problems, detection, now, on_change }
    }

    /// The node after a cycle without actions.
    fn settled(mut self) -> Self {
        let (plan, _) = self.decide();
        if let (Some(plan), Some(observed)) = (plan, &self.observed) {
            self.ledger = settle(&plan, observed, true, NOW);
        }
        self
    }

    fn decide(&self) -> (Option<Plan>, Resolved) {
        let installed = |fingerprint: &Fingerprint| self.ledger.anchors.contains_key(fingerprint);
        let at = Circumstances { drops_not_ca: Some(false), installed: &installed, now: self.now.wall };
        let resolved = resolve(&self.sources, &self.ledger, &self.policy, at);
        let plan = self
            .observed
            .as_ref()
            .map(|observed| plan(&resolved, observed, &self.ledger, &self.policy, &self.now, Default::default()));
        (plan, resolved)
    }

    fn report(&self) -> Report {
        let (plan, resolved) = self.decide();
        let mut problems = self.problems.clone();
        if let (Some(plan), Some(observed)) = (&plan, &self.observed) {
            problems.extend(crate::verify::verify(plan, observed));
        }
        let services = RuntimeSettings { on_change: self.on_change, ..RuntimeSettings::default() };
        let outlook = plan.as_ref().zip(self.observed.as_ref()).map(|(plan, observed)| {
            let bundle = &observed.effective.set;
            let wanted = plan.wanted(observed, bundle.clone());
            decide(&observed.services, &plan.ledger, &wanted, &services, &RestartGate::Open, &self.now)
        });
        build(ReportInputs {
            node: "node-a17",
            now: &self.now,
            os: &OsRelease::parse("ID=debian\nVERSION_ID=12\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n"),
            detection: &self.detection,
            resolved: &resolved,
            observed: self.observed.as_ref(),
            without_tool: self.without_tool.as_ref(),
            plan: plan.as_ref(),
            outlook: outlook.as_ref(),
            export: None,
            ledger: &self.ledger,
            policy: &self.policy,
            problems: &problems,
        })
    }
}

/// A node that has what its one source wants.
fn good() -> ReportedNode {
    let (root, inspection) = (fixed("corp-2026"), fixed("inspection"));
    ReportedNode::new(vec![source("org", &[&root, &inspection])], host(Family::Debian, &[&root, &inspection])).settled()
}

fn answer(report: &Report) -> (NodeVerdict, &str) {
    (report.verdict, report.headline.as_str())
}

#[test]
fn trusted() {
    let report = good().report();
    assert_eq!(answer(&report), (NodeVerdict::Trusted, "2 anchors in the extracted bundle, proven by fingerprint"));
    assert!(report.converged && report.is_healthy() && report.next.is_empty() && report.pending.is_empty());
    assert_eq!(report.desired_digest, report.effective_digest);
    assert_eq!((report.store.certificates, report.store.ours), (3, 2));
}

#[test]
fn a_node_where_nothing_runs_any_more_says_so() {
    let advice = |cycle: Option<i64>| {
        let mut report = good().report();
        report.cycle = cycle.map(|ago| Cycle {
            trigger: Trigger::Resync,
            outcome: CycleOutcome::Unchanged,
            time: Time(report.time.0 - ago),
            milliseconds: 1,
            extract_milliseconds: 0,
            actions: Vec::new(),
            drift: BTreeSet::new(),
            problems: Vec::new(),
        });
        report.doubt_agent(900);
        (report.is_healthy(), report.next)
    };
    assert_eq!(advice(Some(900)), (true, Vec::new()));
    assert_eq!(advice(Some(-5)), (true, Vec::new()), "the clock was set back");
    for (cycle, since) in [(Some(901), "no cycle since 20"), (None, "no cycle since the node booted")] {
        let (is_healthy, next) = advice(cycle);
        assert!(is_healthy && next.len() == 1 && next[0].starts_with(since), "{next:?}");
    }
    let mut nothing = ReportedNode::new(Vec::new(), host(Family::Debian, &[])).report();
    nothing.cycle = None;
    nothing.doubt_agent(900);
    assert!(nothing.next.is_empty(), "{:?}", nothing.next);
}

#[test]
fn trusted_with_something_rejected_or_held() {
    let (root, inspection) = (fixed("corp-2026"), fixed("inspection"));
    let mut node = good();
    node.sources.push(source_of("extra", files(&[&root.pem(), "-----BEGIN CERTIFICATE-----\nAAAA\n"])));
    let node = node.settled();
    let report = node.report();
    assert_eq!(
        answer(&report),
        (NodeVerdict::TrustedWithFindings, "2 anchors in the extracted bundle; 1 certificate or block not accepted")
    );
    assert!(report.converged && !report.is_healthy());
    assert_eq!(report.next, ["source extra: ca-1.crt:1: the block has no END; is the file cut off?"]);
    assert_eq!(report.rejections(), [(("extra", RejectReason::NotPemOrDer), 1)].into());
    let mut node = good();
    node.sources = vec![source_of("org", Content::Missing), source("other", &[&inspection])];
    let report = node.settled().report();
    assert_eq!(
        answer(&report),
        (
            NodeVerdict::TrustedWithFindings,
            "2 anchors in the extracted bundle; source org is held at its last good set"
        )
    );
}

#[test]
fn each_kind_of_rejection_has_its_next_step() {
    let key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    let mut node = good();
    node.sources.push(source_of("extra", files(&["junk", "more junk", key, &fixed("corp-2026").pem()])));
    let next = node.settled().report().next;
    assert_eq!(next.len(), 2, "{next:?}");
    assert!(
        next[0].starts_with("source extra: ca-0.crt") && next[1].starts_with("source extra: ca-2.crt:1"),
        "{next:?}"
    );
}

#[test]
fn not_trusted_says_how_many_are_missing_and_what_is_to_be_done() {
    let mut node = good();
    let observed = node.observed.as_mut().unwrap();
    observed.effective.set.remove(&fixed("corp-2026").fingerprint);
    let report = node.report();
    assert_eq!(
        answer(&report),
        (NodeVerdict::NotTrusted, "Corp Root CA (d5635b0f6e908f2c) is not in /etc/ssl/certs/ca-certificates.crt")
    );
    assert!(!report.converged && report.desired_digest != report.effective_digest);
    assert!(report.next.last().unwrap().contains("nodetrust apply"), "{:?}", report.next);
    let trusted: Vec<(&str, bool)> = report.anchors.iter().map(|row| (row.common_name.as_str(), row.trusted)).collect();
    assert_eq!(trusted, [("Corp Root CA", false), ("Inspection CA", true)]);
}

#[test]
fn work_that_is_left_is_never_called_converged() {
    let mut node = good();
    node.observed.as_mut().unwrap().leftovers.insert("/etc/ssl/certs/.nodetrust-bundle".into());
    let report = node.report();
    let text = "2 anchors in the extracted bundle, but 1 action still to be done: remove /etc/ssl/certs/.nodetrust-bundle \
                (left by a run of ours that was killed)";
    assert_eq!(
        answer(&report),
        (NodeVerdict::NotConverged, text),
        "they are trusted, and the report must not say otherwise"
    );
    assert!(!report.converged);
}

#[test]
fn a_source_that_never_spoke_is_no_trust() {
    let node = ReportedNode::new(vec![source_of("org", Content::Missing)], host(Family::Debian, &[]));
    let report = node.report();
    assert_eq!(answer(&report), (NodeVerdict::NotTrusted, "no source gives a usable certificate"));
    assert_eq!(
        report.next,
        ["source org: missing, and there is no earlier set to hold: see that its certificates are in /sources/org"]
    );
}

#[test]
fn nothing_desired_is_healthy() {
    let report = ReportedNode::new(Vec::new(), host(Family::Debian, &[])).report();
    assert_eq!(answer(&report), (NodeVerdict::NothingDesired, "no source asks for an anchor"));
    assert!(report.is_healthy() && report.converged);
}

#[test]
fn an_unsupported_store_names_the_native_way() {
    let mut node = good();
    node.observed = None;
    let unsupported = Unsupported {
        reason: "Talos: its trust store is part of …".into(),
        advice: "apply a TrustedRootsConfig".into(),
        is_unknown: false,
        without_tool: None,
    };
    node.detection.family = Err(unsupported);
    let report = node.report();
    assert_eq!(answer(&report), (NodeVerdict::UnsupportedStore, "Talos: its trust store is part of …"));
    assert_eq!(report.next, ["apply a TrustedRootsConfig"]);
    assert_eq!(report.anchors.len(), 2, "what the sources want is shown all the same");
    assert!(report.anchors.iter().all(|row| !row.trusted) && !report.converged);
}

/// Somebody removed the package: what is in the bundle works on.
#[test]
fn a_store_whose_tool_is_missing_shows_what_its_bundle_has() {
    let mut node = good();
    let mut effective = node.observed.take().map(|observed| observed.effective).unwrap_or_default();
    effective.set.remove(&fixed("inspection").fingerprint);
    node.without_tool = Some(ToollessStore { store: Family::Debian.store(), effective });
    let os = OsRelease::parse("ID=debian\nVERSION_ID=12\n");
    node.detection = crate::store::detect(&os, &BTreeMap::from([("/etc/ssl/certs", PathKind::Directory)]), None);
    assert_eq!(node.detection.family.as_ref().unwrap_err().without_tool, Some(Family::Debian));
    let report = node.report();
    let headline =
        "neither update-ca-certificates nor update-ca-trust is installed; 1 of 2 anchors in the bundle as it is";
    assert_eq!(answer(&report), (NodeVerdict::UnsupportedStore, headline));
    let trusted: Vec<bool> = report.anchors.iter().map(|row| row.trusted).collect();
    assert_eq!(trusted, [true, false], "{:?}", report.anchors);
    assert_eq!((report.store.family, report.store.certificates), (None, 3));
    assert!(!report.store.bundle.is_empty() && !report.converged && report.pending.is_empty());
    assert_ne!(report.effective_digest, report.desired_digest);
}

/// Nothing can be removed there, so what was in grace stays, and is no less wanted than on the nodes that have the tool.
#[test]
fn a_store_whose_tool_is_missing_keeps_what_is_in_grace() {
    let mut node = good();
    let before = node.report().desired_digest;
    node.sources = vec![source("org", &[&fixed("corp-2026")])];
    node = node.settled();
    let effective = node.observed.take().map(|observed| observed.effective).unwrap_or_default();
    node.without_tool = Some(ToollessStore { store: Family::Debian.store(), effective });
    node.detection.family = Err(Unsupported {
        reason: "update-ca-certificates is not installed".into(),
        advice: "install ca-certificates".into(),
        is_unknown: false,
        without_tool: Some(Family::Debian),
    });
    let report = node.report();
    let rows: Vec<_> = report.anchors.iter().map(|row| (row.state, row.trusted, row.grace_end.is_some())).collect();
    assert_eq!(rows, [(AnchorState::Desired, true, false), (AnchorState::Grace, true, true)]);
    assert_eq!((report.desired_digest, report.effective_digest), (before, before));
    node.sources = vec![source("org", &[&fixed("corp-2026"), &fixed("inspection")])];
    assert_eq!(node.report().anchors.len(), 2, "a source wants it again: it has one row");
}

#[test]
fn a_host_that_could_not_be_looked_at_is_not_trusted() {
    let mut node = good();
    node.observed = None;
    node.problems.push(Problem::new(ProblemKind::Observe, "failed to read `/etc/ssl/certs`", "look at the path"));
    assert_eq!(answer(&node.report()), (NodeVerdict::NotTrusted, "failed to read `/etc/ssl/certs`"));
}

#[test]
fn a_host_that_could_not_be_told_is_not_called_unsupported() {
    let mut node = good();
    node.observed = None;
    let detection =
        crate::store::Detection::unreadable("failed to read `/etc/pki/trust` on the host".into(), String::new());
    node.detection.family = detection.family;
    let report = node.report();
    assert_eq!(answer(&report), (NodeVerdict::NotTrusted, "failed to read `/etc/pki/trust` on the host"));
    assert!(report.problems.iter().all(|problem| problem.kind == ProblemKind::Observe) && !report.converged);
}

#[test]
fn a_problem_that_is_no_failure_is_a_finding() {
    for kind in ProblemKind::ALL {
        let mut report = good().report();
        report.add_problem(Problem::new(kind, "something", "do something"));
        let verdict = match (kind.is_failure(), kind.is_about_trust()) {
            (true, true) => NodeVerdict::NotTrusted,
            (true, false) => NodeVerdict::NotConverged,
            (false, true) => NodeVerdict::NotTrusted,
            (false, false) => NodeVerdict::TrustedWithFindings,
        };
        assert_eq!(report.verdict, verdict, "{kind:?}");
        assert_eq!(report.converged, !kind.is_failure(), "{kind:?}");
        assert!(report.headline.contains("something") && report.next.contains(&"do something".to_owned()), "{kind:?}");
    }
}

#[test]
fn grace_shows_its_end_in_absolute_time() {
    let mut node = good();
    node.sources = vec![source("org", &[&fixed("corp-2026")])];
    let mut node = node.settled();
    node.now = at(NOW + 3600, 4600, "one");
    let report = node.report();
    assert_eq!(report.verdict, NodeVerdict::Trusted);
    let row = &report.anchors[1];
    assert_eq!((row.state, row.grace_end), (AnchorState::Grace, Some(Time(NOW + 24 * 3600))));
    assert!(row.sources.is_empty());
    assert_eq!(report.anchors[0].grace_end, None);
    // While a source is unknown no grace begins, and the row says so.
    let mut node = good();
    node.sources = vec![source("org", &[&fixed("corp-2026")]), source_of("new", Content::Missing)];
    let report = node.settled().report();
    assert_eq!((report.anchors[1].state, report.anchors[1].grace_end), (AnchorState::Grace, None));
    assert!(report.anchors[1].warnings[0].contains("grace has not begun"), "{:?}", report.anchors[1]);
}

#[test]
fn a_retired_anchor_that_others_keep_is_called_out() {
    let (root, old) = (fixed("corp-2026"), fixed("corp-2021"));
    let mut node = good();
    node.sources = vec![source("org", &[&root])];
    node.policy.removal_grace = 0;
    let mut observed = host(Family::Debian, &[&root]);
    observed.effective.set.insert(old.fingerprint);
    let path = "/usr/local/share/ca-certificates/domain.crt".to_owned();
    observed.foreign =
        vec![ForeignFile { path: path.clone(), anchors: vec![old.clone()], taken: true, ..ForeignFile::default() }];
    node.observed = Some(observed);
    let report = node.settled().report();
    assert_eq!(report.verdict, NodeVerdict::Trusted);
    assert!(report.foreign[0].text.contains("same subject as Corp Root CA (d5635b0f6e908f2c)"), "{:?}", report.foreign);
    // The same file, when the old root was ours and is retired.
    let mut node = good();
    node.sources = vec![source("org", &[&old, &root])];
    node.observed = Some(host(Family::Debian, &[&old, &root]));
    let mut node = node.settled();
    node.sources = vec![source("org", &[&root])];
    node.policy.removal_grace = 0;
    let mut observed = host(Family::Debian, &[&root]);
    observed.effective.set.insert(old.fingerprint);
    observed.foreign = vec![ForeignFile { path, anchors: vec![old.clone()], taken: true, ..ForeignFile::default() }];
    node.observed = Some(observed);
    let report = node.settled().report();
    assert_eq!(report.verdict, NodeVerdict::TrustedWithFindings);
    assert!(report.headline.contains("kept trusted by a file that is not ours"), "{}", report.headline);
    assert!(report.foreign[0].text.contains("remove it by hand"), "{:?}", report.foreign);
    assert_eq!(report.anchors.last().map(|row| (row.state, row.trusted)), Some((AnchorState::Retired, true)));
    assert_eq!(report.desired_digest, report.effective_digest, "what others keep is not ours");
}

#[test]
fn foreign_files_that_do_harm_are_called_out() {
    let mut node = good();
    let root = fixed("foreign");
    let file = |name: &str, anchors, hazard| ForeignFile {
        path: format!("/x/{name}"),
        anchors,
        taken: true,
        hazard,
        form: None,
    };
    let fault =
        crate::certificate::pem::Fault { line: 7, reason: RejectReason::NotPemOrDer, detail: "broken base64".into() };
    node.observed.as_mut().unwrap().foreign = vec![
        file("key.crt", vec![], Some(Hazard::PrivateKey(3))),
        file("broken.crt", vec![], Some(Hazard::Broken(fault))),
        file("two.crt", vec![root.clone(), root.clone()], None),
        file("fine.crt", vec![root], None),
    ];
    let rows: Vec<(String, String)> = node.report().foreign.into_iter().map(|row| (row.path, row.text)).collect();
    let find = |path: &str| rows.iter().find(|row| row.0 == path).map(|row| row.1.as_str());
    assert_eq!(find("/x/key.crt"), Some("line 3: a private key lies in the anchor directory"));
    assert_eq!(find("/x/broken.crt"), Some("line 7: broken base64"));
    assert!(find("/x/two.crt").unwrap().contains("2 certificates in one file"));
    assert_eq!(find("/x/fine.crt"), None);
}

/// The digests tell the same as `converged` as long as nothing else is wrong.
#[test]
fn digests_are_equal_exactly_when_the_bundle_is_right() {
    let all = [fixed("corp-2021"), fixed("corp-2026"), fixed("inspection")];
    for wanted in 0..8u8 {
        for trusted in 0..8u8 {
            let pick =
                |mask: u8| (0..3).filter(move |n| mask & (1 << n) != 0).map(|n: usize| &all[n]).collect::<Vec<_>>();
            let mut node = ReportedNode::new(vec![source("org", &pick(wanted))], host(Family::Debian, &pick(wanted)));
            if wanted == 0 {
                node.sources.clear();
            }
            let mut node = node.settled();
            let observed = node.observed.as_mut().unwrap();
            observed.effective = Effective {
                set: pick(trusted).iter().map(|a| a.fingerprint).collect(),
                present: true,
                ..Effective::default()
            };
            let report = node.report();
            let right = wanted & !trusted == 0;
            assert_eq!(report.desired_digest == report.effective_digest, right, "{wanted:03b} {trusted:03b}");
            assert_eq!(report.converged, right, "{wanted:03b} {trusted:03b}: {:?}", report.problems);
        }
    }
}

#[test]
fn a_report_s_json_is_stable() {
    let mut node = good();
    node.sources = vec![
        source("org", &[&fixed("corp-2026"), &fixed("rsa-1024")]),
        Snapshot { notes: vec!["a subPath mount never changes".into()], ..source_of("legacy", files(&["words"])) },
    ];
    let mut node = node.settled();
    node.observed.as_mut().unwrap().foreign = vec![ForeignFile {
        path: "/usr/local/share/ca-certificates/domain.crt".into(),
        anchors: vec![fixed("corp-2021")],
        taken: true,
        hazard: None,
        form: None,
    }];
    let mut report = node.report();
    report.cycle = Some(Cycle {
        trigger: Trigger::Source,
        outcome: CycleOutcome::Changed,
        time: Time(NOW),
        milliseconds: 812,
        extract_milliseconds: 790,
        actions: report.pending.clone(),
        drift: BTreeSet::new(),
        problems: Vec::new(),
    });
    let json = serde_json::to_string_pretty(&report).unwrap() + "\n";
    assert_golden("report.json", &json);
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(value["version"], 1);
    assert_eq!(value["time"], "2026-12-01T00:00:00Z");
}

#[test]
fn times_beyond_all_calendars_are_printed_as_seconds() {
    assert_eq!(Time(0).to_string(), "1970-01-01T00:00:00Z");
    assert_eq!(Time(i64::MAX).to_string(), format!("@{}", i64::MAX));
    assert_eq!((plural(1, "thing"), plural(0, "thing")), ("1 thing".into(), "0 things".into()));
    let counts: BTreeSet<String> = (0..3).map(|n| plural(n, "x")).collect();
    assert_eq!(counts.len(), 3);
}

#[test]
fn a_denied_root_of_the_distribution_is_told_with_the_distribution_s_own_way() {
    let root = fixed("rsa-2048").fingerprint; // shipped, in every bundle of these tests
    for (family, way) in [
        (Family::Debian, "/etc/ca-certificates.conf"),
        (Family::Alpine, "/etc/ca-certificates.conf"),
        (Family::Redhat, "/etc/pki/ca-trust/source/blocklist"),
        (Family::Suse, "/etc/pki/trust/blocklist"),
        (Family::Arch, "/etc/ca-certificates/trust-source/blocklist"),
        (Family::Flatcar, "/etc/ssl/certs"),
        (Family::Photon, "/etc/ssl/certs"),
        (Family::Directory, "/etc/ssl/certs"),
    ] {
        let ours = fixed("corp-2026");
        let mut node = ReportedNode::new(vec![source("org", &[&ours])], host(family, &[&ours])).settled();
        node.policy.denied = [root, fixed("foreign").fingerprint].into();
        let report = node.report();
        let problem = report.problems.iter().find(|problem| problem.kind == ProblemKind::DeniedTrusted).unwrap();
        assert!(problem.text.contains(&root.fp16()) && problem.next.contains(way), "{problem:?}");
        assert!(!problem.text.contains(&fixed("foreign").fingerprint.fp16()), "{}", problem.text);
        assert_eq!((report.verdict, report.converged), (NodeVerdict::TrustedWithFindings, true), "{family}");
        assert!(report.next.contains(&problem.next), "{:?}", report.next);
        // Its own row tells of a denied anchor of ours.
        node.policy.denied = [ours.fingerprint].into();
        assert!(node.report().problems.iter().all(|problem| problem.kind != ProblemKind::DeniedTrusted));
    }
}
