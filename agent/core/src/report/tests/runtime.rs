//! The answer where it depends on the container runtime.

use super::*;

/// A node whose containerd started with these of its anchors in the bundle.
pub(super) fn with_runtime(has: &[&str]) -> ReportedNode {
    let mut node = good();
    let process =
        ServiceProcess { invocation: "1".into(), started: Uptime { boot_id: "one".into(), milliseconds: 400_000 } };
    let unit = "containerd.service";
    let runtime = Runtime {
        kind: RuntimeKind::Containerd,
        because: "containerd.service is active".into(),
        version: "1.7.24".into(),
        socket: "/run/containerd/containerd.sock".into(),
        service: Service { unit: unit.into(), state: ServiceState::Active, process: Some(process.clone()) },
        health: Ok(()),
        spares: Ok(()),
        certs: RegistryCerts { setting: Setting::NotConfigured, ..RegistryCerts::default() },
        elsewhere: None,
    };
    let has = has.iter().map(|name| fixed(name).fingerprint).collect();
    let [maybe_has, unproven, added_since, revoked] = std::array::from_fn(|_| BTreeSet::new());
    let record = ServiceRecord { process, has, maybe_has, unproven, added_since, revoked };
    node.ledger.services.insert(unit.into(), record);
    node.observed.as_mut().unwrap().services.runtime = Some(runtime);
    node
}

#[test]
fn a_runtime_that_follows_is_told_and_changes_no_answer() {
    let report = with_runtime(&["corp-2026", "inspection"]).report();
    assert_eq!(answer(&report), (NodeVerdict::Trusted, "2 anchors in the extracted bundle, proven by fingerprint"));
    assert!(report.anchors.iter().all(|row| row.runtime == Some(ByRuntime::Yes)));
    let runtime = report.runtime.unwrap();
    assert!(!runtime.stale && runtime.why.starts_with("no restart needed: "), "{}", runtime.why);
    assert_eq!(runtime.started, Some(Time(NOW - 600)));
}

#[test]
fn a_runtime_that_is_behind_is_the_answer() {
    let mut node = with_runtime(&["inspection"]);
    let report = node.report();
    let text = "containerd: 1 anchor newer than the process; a restart is due";
    assert_eq!(answer(&report), (NodeVerdict::NotTrustedByRuntime, text));
    assert!(report.converged && !report.is_healthy());
    let trusted: Vec<_> = report.anchors.iter().filter(|row| row.runtime == Some(ByRuntime::Yes)).collect();
    assert_eq!(trusted.len(), 1);
    assert_eq!(trusted[0].sha256, fixed("inspection").fingerprint);

    node.on_change = OnChange::Report;
    let report = node.report();
    let text = "containerd: 1 anchor newer than the process; its restart is held: runtime.onChange is report";
    assert_eq!(answer(&report), (NodeVerdict::NotTrustedByRuntime, text));
    assert_eq!(report.next, ["when it suits: systemctl restart containerd.service"]);

    node.on_change = OnChange::Auto;
    node.observed.as_mut().unwrap().services.runtime.as_mut().unwrap().health = Err("it does not answer".into());
    let report = node.report();
    let text = "containerd: 1 anchor newer than the process; its restart is held: containerd does not work: it does not answer";
    assert_eq!(answer(&report), (NodeVerdict::NotTrustedByRuntime, text));
    assert!(report.next[0].starts_with("mend it first: journalctl -u containerd.service"), "{:?}", report.next);
}

#[test]
fn a_registry_directory_that_covers_the_change_is_an_answer_without_a_restart() {
    let mut node = with_runtime(&["inspection"]);
    let served = [fixed("corp-2026").fingerprint, fixed("inspection").fingerprint].into();
    let certs = &mut node.observed.as_mut().unwrap().services.runtime.as_mut().unwrap().certs;
    certs.setting = Setting::Directory("/etc/containerd/certs.d".into());
    let path = certs.path().unwrap();
    certs.own.insert(path.clone(), OwnRegistryFile::Holds(served));
    node.ledger.certs_files.insert(path);
    let report = node.report();
    assert_eq!(report.verdict, NodeVerdict::Trusted);
    assert!(report.anchors.iter().all(|row| row.runtime == Some(ByRuntime::Yes)));
    assert!(report.pending.iter().all(Action::only_records), "{:?}", report.pending);
    let runtime = report.runtime.unwrap();
    assert_eq!(runtime.covered, [fixed("corp-2026").fingerprint]);
    assert!(runtime.why.contains("every pull reads 1 anchor newer than the process"), "{}", runtime.why);
}

/// A node whose containerd does not run.
fn with_runtime_in(state: ServiceState) -> ReportedNode {
    let mut node = with_runtime(&[]);
    let runtime = node.observed.as_mut().unwrap().services.runtime.as_mut().unwrap();
    runtime.service = Service { unit: "containerd.service".into(), state, process: None };
    runtime.health = Err("it does not run".into());
    node
}

#[test]
fn a_runtime_that_does_not_run_yet_needs_nothing() {
    let report = with_runtime_in(ServiceState::Down("inactive".into())).report();
    assert_eq!((report.verdict, report.runtime_trust.state), (NodeVerdict::Trusted, RuntimeState::None));
    let view = report.runtime.unwrap();
    assert_eq!((view.state.to_string().as_str(), view.stale, view.started), ("inactive", false, None));
    assert_eq!(view.why, "no restart needed: it reads the bundle when it starts");
}

#[test]
fn a_runtime_of_which_nothing_is_known_is_never_trusted_and_never_nothing_to_do() {
    let node = with_runtime_in(ServiceState::Failed("failed (start-limit-hit)".into()));
    let report = node.report();
    let text = "2 anchors in the extracted bundle; whether pulls follow is not known: containerd.service is failed (start-limit-hit)";
    assert_eq!(answer(&report), (NodeVerdict::RuntimeUnknown, text));
    assert!(report.converged && !report.is_healthy(), "the store is what it should be");
    assert!(report.next[0].contains("journalctl -u containerd.service"), "{:?}", report.next);
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!((&json["verdict"], &json["runtimeTrust"]["state"]), (&"runtime-unknown".into(), &"unknown".into()));
    // Without wanted anchors the runtime is unknown as well.
    let mut nothing = ReportedNode::new(Vec::new(), host(Family::Debian, &[]));
    nothing.observed.as_mut().unwrap().services = node.observed.unwrap().services;
    let report = nothing.report();
    assert_eq!(report.verdict, NodeVerdict::RuntimeUnknown);
    assert!(report.headline.starts_with("no source asks for an anchor; whether pulls follow"), "{}", report.headline);
    // The worse verdict comes first.
    nothing.sources = vec![source_of("org", Content::Missing)];
    assert_eq!(nothing.report().verdict, NodeVerdict::NotTrusted);
}

#[test]
fn a_node_that_could_not_be_looked_at_has_no_runtime_that_is_known() {
    let mut node = good();
    node.observed = None;
    assert_eq!(node.report().runtime_trust.state, RuntimeState::Unknown);
}

#[test]
fn an_anchor_that_was_there_at_first_sight_is_neither_trusted_by_the_runtime_nor_not() {
    let mut node = with_runtime(&["inspection"]);
    let record = node.ledger.services.get_mut("containerd.service").unwrap();
    record.unproven.insert(fixed("corp-2026").fingerprint);
    let report = node.report();
    assert_eq!(report.verdict, NodeVerdict::RuntimeUnknown, "{}", report.headline);
    let rows: BTreeMap<_, _> = report.anchors.iter().map(|row| (row.sha256, row.runtime)).collect();
    assert_eq!(rows[&fixed("corp-2026").fingerprint], Some(ByRuntime::Unknown));
    assert_eq!(rows[&fixed("inspection").fingerprint], Some(ByRuntime::Yes));
    assert!(report.pending.iter().all(Action::only_records), "{:?}", report.pending);
    assert!(!report.runtime.unwrap().stale);
}

#[test]
fn a_refusal_by_the_runtime_itself_is_the_answer_whatever_was_inferred() {
    let mut node = with_runtime(&["corp-2026", "inspection"]);
    let trusted = node.report();
    assert_eq!(trusted.verdict, NodeVerdict::Trusted);
    let witness = Witness {
        process: node.ledger.services["containerd.service"].process.clone(),
        set: trusted.effective_digest,
        answer: WitnessAnswer::Refuses,
        words: "x509: certificate signed by unknown authority".into(),
        verifies_tls: true,
        anchor: None,
        own_roots: true,
        handshake_error: Some("the server sends no intermediate".into()),
        at: node.now.clone(),
        restarted: None,
    };
    node.ledger.witnesses.insert("registry.test:5443".into(), witness);
    let report = node.report();
    let text = "containerd: it refuses registry.test:5443: x509: certificate signed by unknown authority; no restart would help: \
                programs that start now do not trust it either: the server sends no intermediate";
    assert_eq!(answer(&report), (NodeVerdict::NotTrustedByRuntime, text));
    assert!(report.runtime.as_ref().unwrap().stale && report.runtime_trust.misled.is_some());
    assert!(report.next[0].contains("nodetrust probe registry.test:5443"), "{:?}", report.next);
    assert!(report.pending.iter().all(Action::only_records), "{:?}", report.pending);
    // Our own handshake works, so a restart is due.
    node.ledger.witnesses.get_mut("registry.test:5443").unwrap().handshake_error = None;
    let report = node.report();
    assert!(report.headline.ends_with("unknown authority; a restart is due"), "{}", report.headline);
}

/// As [`with_runtime`], with these anchors instead.
fn with_runtime_over(has: &[&str], ours: &[&std::sync::Arc<Anchor>]) -> ReportedNode {
    let ReportedNode { observed, ledger, .. } = with_runtime(has);
    let services = observed.unwrap().services;
    let mut node = ReportedNode::new(vec![source("org", ours)], Observed { services, ..host(Family::Debian, ours) });
    node.ledger.services = ledger.services;
    node.settled()
}

#[test]
fn an_anchor_that_the_runtime_cannot_read_is_a_finding_and_nothing_else() {
    let (plain, odd) = (fixed("corp-2026"), fixed("ec-k256"));
    let mut node = with_runtime_over(&["corp-2026"], &[&plain, &odd]);
    let report = node.report();
    assert_eq!(report.verdict, NodeVerdict::TrustedWithFindings, "{}", report.headline);
    let named = format!("containerd cannot use {} ({}): ", odd.subject.common, odd.fingerprint.fp16());
    assert!(report.headline.contains(&named) && report.headline.contains("elliptic curve"), "{}", report.headline);
    let rows: Vec<_> = report.anchors.iter().map(|row| (row.sha256, row.runtime, row.trusted)).collect();
    assert!(rows.contains(&(odd.fingerprint, Some(ByRuntime::Cannot), true)), "{rows:?}");
    assert!(rows.contains(&(plain.fingerprint, Some(ByRuntime::Yes), true)), "{rows:?}");
    let json = serde_json::to_value(&report).unwrap();
    let words: Vec<_> = json["anchors"].as_array().unwrap().iter().map(|row| row["runtime"].clone()).collect();
    assert!(words.contains(&"cannot".into()) && words.contains(&true.into()), "{words:?}");
    let view = report.runtime.as_ref().unwrap();
    assert_eq!((view.stale, view.held.is_none(), view.cannot.as_slice()), (false, true, &[odd.fingerprint][..]));
    assert!(report.behind().is_none() && report.converged && report.has_findings() && !report.is_healthy());
    assert!(report.next.iter().any(|next| next.contains("issued anew")), "{:?}", report.next);
    // The cluster is told: ready, with the name.
    let condition = crate::node_status::condition(&report);
    assert_eq!((condition.status.as_str(), condition.reason), ("True", crate::node_status::ConditionReason::Trusted));
    assert!(condition.message.contains(&odd.fingerprint.fp16()), "{}", condition.message);
    // It leaves, and nothing is stale then.
    node.sources = vec![source("org", &[&plain])];
    let report = node.report();
    let row = report.anchors.iter().find(|row| row.sha256 == odd.fingerprint).unwrap();
    assert_eq!((row.state, row.runtime), (AnchorState::Grace, Some(ByRuntime::Cannot)));
    assert!(row.warnings.iter().any(|warning| warning.contains("Go does not read it")), "{:?}", row.warnings);
    node.policy.removal_grace = 0;
    assert!(!node.report().runtime.unwrap().stale);
    // A node without a runtime has no finding about one.
    node.observed.as_mut().unwrap().services.runtime = None;
    node.sources = vec![source("org", &[&plain, &odd])];
    let report = node.report();
    assert_eq!(report.verdict, NodeVerdict::Trusted, "{}", report.headline);
    assert!(report.anchors.iter().all(|row| row.runtime.is_none()));
}

#[test]
fn a_process_that_started_over_what_it_cannot_read_is_not_behind_when_that_goes() {
    for (odd, stale) in [("ec-k256", false), ("inspection", true)] {
        let (plain, odd) = (fixed("corp-2026"), fixed(odd));
        let mut node = with_runtime_over(&["corp-2026", "ec-k256", "inspection"], &[&plain, &odd]);
        node.policy.removal_grace = 0;
        node.sources = vec![source("org", &[&plain])];
        let services = node.observed.take().unwrap().services;
        node.observed = Some(Observed { services, ..host(Family::Debian, &[&plain]) });
        let report = node.report();
        assert_eq!(report.runtime.unwrap().stale, stale, "{}", report.headline);
    }
}
