//! Which runtime a node has.

use super::*;

fn found(active: &[&str], installed: &[&str]) -> Option<(Kind, String)> {
    let all = active.iter().map(|unit| (*unit, true)).chain(installed.iter().map(|unit| (*unit, false)));
    let units = all.map(|(unit, active)| (unit.to_owned(), active)).collect();
    detect(&units, None, None).map(|found| (found.kind, found.unit))
}

#[test]
fn every_kind_has_its_row() {
    for row in &TABLE {
        assert_eq!(row.kind.row().kind, row.kind);
        assert!(!row.units.is_empty() && !row.sockets.is_empty());
    }
}

#[test]
fn the_unit_that_is_active_decides() {
    let is = |kind, unit: &str| Some((kind, unit.to_owned()));
    assert_eq!(found(&["containerd.service"], &[]), is(Kind::Containerd, "containerd.service"));
    assert_eq!(found(&["crio.service"], &["containerd.service"]), is(Kind::Crio, "crio.service"));
    assert_eq!(found(&["k3s-agent.service"], &["k3s.service"]), is(Kind::K3s, "k3s-agent.service"));
    // a distribution's own containerd counts, and not one that idles beside it
    assert_eq!(found(&["k3s.service", "containerd.service"], &[]), is(Kind::K3s, "k3s.service"));
    assert_eq!(found(&["rke2-server.service", "containerd.service"], &[]), is(Kind::Rke2, "rke2-server.service"));
    assert_eq!(found(&[], &["containerd.service"]), is(Kind::Containerd, "containerd.service"));
    assert_eq!(found(&["ssh.service"], &[]), None);
}

#[test]
fn docker_counts_only_where_the_kubelet_uses_it() {
    let kind = |active: &[&str]| found(active, &[]).map(|(kind, _)| kind);
    assert_eq!(kind(&["docker.service", "containerd.service"]), Some(Kind::Containerd), "docker on the side");
    assert_eq!(kind(&["docker.service", "containerd.service", CRI_DOCKERD]), Some(Kind::Docker));
    assert_eq!(kind(&["docker.service"]), Some(Kind::Docker));
}

#[test]
fn the_configuration_overrides() {
    let units: BTreeMap<String, bool> =
        [("containerd.service", true), ("crio.service", false), ("corp-containerd.service", true)]
            .map(|(unit, active)| (unit.to_owned(), active))
            .into();
    let found = |kind, unit| detect(&units, kind, unit).map(|found| (found.kind, found.unit));
    assert_eq!(found(Some(Kind::Crio), None), Some((Kind::Crio, "crio.service".into())));
    assert_eq!(
        found(None, Some("corp-containerd.service")),
        Some((Kind::Containerd, "corp-containerd.service".into()))
    );
    assert_eq!(found(Some(Kind::K3s), None), None, "what is not there is not found");
    assert_eq!(
        found(Some(Kind::Containerd), Some("corp-containerd.service")),
        Some((Kind::Containerd, "corp-containerd.service".into()))
    );
}
