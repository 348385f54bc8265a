//! Which runtime a node has.

use super::*;

fn units<'a>(active: &[&'a str], installed: &[&'a str]) -> BTreeMap<String, bool> {
    let all = active.iter().map(|unit| (*unit, true)).chain(installed.iter().map(|unit| (*unit, false)));
    all.map(|(unit, active)| (unit.to_owned(), active)).collect()
}

/// What each unit serves, by the table.
fn served(units: &BTreeMap<String, bool>) -> BTreeMap<String, Vec<String>> {
    let sockets = |unit: &String| {
        let rows = TABLE.iter().filter(|row| row.units.contains(&unit.as_str()));
        rows.flat_map(|row| row.sockets).map(|socket| (*socket).to_owned()).collect()
    };
    units.keys().map(|unit| (unit.clone(), sockets(unit))).collect()
}

fn by_kubelet(units: &BTreeMap<String, bool>, socket: &str, in_use: bool) -> RuntimeDetection {
    let endpoint = RuntimeEndpoint { socket: socket.to_owned(), said_by: "the kubelet".into(), in_use, answers: false };
    detect(&Clues { units, served: &served(units), endpoint: Some(&endpoint) }, None, None)
}

fn known(detection: RuntimeDetection) -> Option<(RuntimeKind, String)> {
    match detection {
        RuntimeDetection::Known(found) => Some((found.kind, found.unit)),
        RuntimeDetection::Sign(_) | RuntimeDetection::Nothing => None,
    }
}

fn found(active: &[&str], installed: &[&str]) -> Option<(RuntimeKind, String)> {
    let units = units(active, installed);
    known(detect(&Clues { units: &units, served: &served(&units), endpoint: None }, None, None))
}

#[test]
fn the_unit_that_is_active_decides() {
    let is = |kind, unit: &str| Some((kind, unit.to_owned()));
    assert_eq!(found(&["containerd.service"], &[]), is(RuntimeKind::Containerd, "containerd.service"));
    assert_eq!(found(&["crio.service"], &["containerd.service"]), is(RuntimeKind::Crio, "crio.service"));
    assert_eq!(found(&["k3s-agent.service"], &["k3s.service"]), is(RuntimeKind::K3s, "k3s-agent.service"));
    // A distribution's own containerd counts, and not an idle one beside it.
    assert_eq!(found(&["k3s.service", "containerd.service"], &[]), is(RuntimeKind::K3s, "k3s.service"));
    assert_eq!(
        found(&["rke2-server.service", "containerd.service"], &[]),
        is(RuntimeKind::Rke2, "rke2-server.service")
    );
    assert_eq!(found(&[], &["containerd.service"]), is(RuntimeKind::Containerd, "containerd.service"));
    assert_eq!(found(&["ssh.service"], &[]), None);
}

#[test]
fn docker_counts_only_where_the_kubelet_uses_it() {
    let kind = |active: &[&str]| found(active, &[]).map(|(kind, _)| kind);
    assert_eq!(kind(&["docker.service", "containerd.service"]), Some(RuntimeKind::Containerd), "docker on the side");
    for shim in CRI_DOCKERD {
        assert_eq!(kind(&["docker.service", "containerd.service", shim]), Some(RuntimeKind::Docker), "{shim}");
    }
    assert_eq!(kind(&["docker.service"]), Some(RuntimeKind::Docker));
}

#[test]
fn the_configuration_overrides() {
    let units = units(&["containerd.service", "corp-containerd.service"], &["crio.service"]);
    let said_by = "the kubelet".to_owned();
    let kubelet = RuntimeEndpoint { socket: "/run/other.sock".into(), said_by, in_use: true, answers: false };
    let clues = Clues { units: &units, served: &served(&units), endpoint: Some(&kubelet) };
    let found = |kind, unit| known(detect(&clues, kind, unit));
    assert_eq!(found(Some(RuntimeKind::Crio), None), Some((RuntimeKind::Crio, "crio.service".into())));
    assert_eq!(
        found(None, Some("corp-containerd.service")),
        Some((RuntimeKind::Containerd, "corp-containerd.service".into()))
    );
    assert_eq!(found(Some(RuntimeKind::K3s), None), None, "what is not there is not found");
    assert_eq!(
        found(Some(RuntimeKind::Containerd), Some("corp-containerd.service")),
        Some((RuntimeKind::Containerd, "corp-containerd.service".into()))
    );
}

#[test]
fn the_runtime_that_the_kubelet_uses_counts_and_not_another_that_runs() {
    let is = |kind, unit: &str| Some((kind, unit.to_owned()));
    let (containerd, crio) = ("containerd.service", "crio.service");
    let both = units(&[containerd, crio], &[]);
    let socket = "/run/containerd/containerd.sock";
    assert_eq!(known(by_kubelet(&both, socket, true)), is(RuntimeKind::Containerd, containerd));
    assert_eq!(known(by_kubelet(&both, "/run/crio/crio.sock", false)), is(RuntimeKind::Crio, crio));
    // k3s is told to use another containerd.
    let k3s = units(&["k3s.service", containerd], &[]);
    assert_eq!(known(by_kubelet(&k3s, socket, true)), is(RuntimeKind::Containerd, containerd));
    // The kubelet's own shim for Docker runs beside Docker's containerd.
    let docker = units(&["docker.service", containerd], &[]);
    assert_eq!(known(by_kubelet(&docker, "/run/dockershim.sock", true)), is(RuntimeKind::Docker, "docker.service"));
    assert_eq!(known(by_kubelet(&docker, socket, true)), is(RuntimeKind::Containerd, containerd));
    // The runtime has not started yet.
    let early = units(&[crio], &[containerd]);
    assert_eq!(known(by_kubelet(&early, socket, true)), is(RuntimeKind::Containerd, containerd));
}

#[test]
fn a_socket_that_nobody_known_serves_is_a_sign_and_no_runtime_is_guessed() {
    let node = units(&["containerd.service"], &[]);
    let RuntimeDetection::Sign(sign) = by_kubelet(&node, "/run/corp.sock", true) else { panic!() };
    assert_eq!(
        sign,
        "the kubelet names the socket /run/corp.sock, and no unit that is known serves it: set runtime.unit and runtime.kind"
    );
    // A setting in a file alone may be a leftover.
    let kind = known(by_kubelet(&node, "/run/corp.sock", false));
    assert_eq!(kind, Some((RuntimeKind::Containerd, "containerd.service".into())));
    assert!(matches!(by_kubelet(&units(&[], &[]), "/run/corp.sock", false), RuntimeDetection::Sign(_)));
}

#[test]
fn the_fact_that_decided_is_told() {
    let units = units(&["containerd.service"], &[]);
    let clues = Clues { units: &units, served: &served(&units), endpoint: None };
    let RuntimeDetection::Known(found) = detect(&clues, None, None) else { panic!() };
    assert_eq!(found.because, "containerd.service is active");
    let RuntimeDetection::Known(found) = by_kubelet(&units, "/run/containerd/containerd.sock", true) else { panic!() };
    assert_eq!(found.because, "the kubelet names /run/containerd/containerd.sock, and containerd.service serves it");
}

#[test]
fn a_socket_that_answers_is_not_served_by_a_unit_that_does_not_run() {
    let units = units(&["ssh.service"], &["containerd.service"]);
    let of = |answers, in_use| {
        let socket = "/run/containerd/containerd.sock".to_owned();
        let endpoint = RuntimeEndpoint { socket, said_by: "the kubelet".into(), in_use, answers };
        detect(&Clues { units: &units, served: &served(&units), endpoint: Some(&endpoint) }, None, None)
    };
    for in_use in [true, false] {
        assert!(matches!(of(true, in_use), RuntimeDetection::Sign(_)));
        // Before its unit has started, it is the runtime that will serve.
        assert_eq!(known(of(false, in_use)), Some((RuntimeKind::Containerd, "containerd.service".to_owned())));
    }
}
