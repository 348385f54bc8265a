//! Which row of the table fits which host: os-release values of facts A.1.

use super::*;
use crate::store::os_release::OsRelease;

const DEBIAN_HOST: &[(&str, PathKind)] = &[
    ("/usr/sbin/update-ca-certificates", PathKind::DebianScript),
    ("/usr/bin/openssl", PathKind::File),
    ("/usr/local/share/ca-certificates", PathKind::Directory),
    ("/usr/share/ca-certificates", PathKind::Directory),
    ("/etc/ca-certificates.conf", PathKind::File),
    ("/etc/ssl/certs", PathKind::Directory),
];
const RHEL_HOST: &[(&str, PathKind)] = &[
    ("/usr/bin/update-ca-trust", PathKind::Script),
    ("/etc/pki/ca-trust/source", PathKind::Directory),
    ("/etc/ssl/certs", PathKind::Directory),
];
const SUSE_HOST: &[(&str, PathKind)] = &[
    ("/usr/sbin/update-ca-certificates", PathKind::Script),
    ("/etc/pki/trust", PathKind::Directory),
    ("/etc/ssl/certs", PathKind::Directory),
];
const ALPINE_HOST: &[(&str, PathKind)] = &[
    ("/usr/sbin/update-ca-certificates", PathKind::File),
    ("/etc/ca-certificates.conf", PathKind::File),
    ("/usr/share/ca-certificates", PathKind::Directory),
];
const ARCH_HOST: &[(&str, PathKind)] =
    &[("/usr/bin/update-ca-trust", PathKind::Script), ("/etc/ca-certificates/trust-source", PathKind::Directory)];

fn on(release: &str, host: &[(&'static str, PathKind)], wanted: Option<Family>) -> Detection {
    detect(&OsRelease::parse(&release.replace(' ', "\n")), &host.iter().copied().collect(), wanted)
}

#[test]
fn every_distribution_of_the_list_finds_its_family() {
    for (release, host, family) in [
        ("ID=debian VERSION_ID=12", DEBIAN_HOST, Family::Debian),
        ("ID=ubuntu ID_LIKE=debian", DEBIAN_HOST, Family::Debian),
        ("ID=gentoo", DEBIAN_HOST, Family::Debian),
        ("ID=rhel ID_LIKE=fedora", RHEL_HOST, Family::Redhat),
        ("ID=amzn VERSION_ID=2", RHEL_HOST, Family::Redhat),
        ("ID=azurelinux", RHEL_HOST, Family::Redhat),
        ("ID=fedora VARIANT_ID=coreos", RHEL_HOST, Family::Redhat),
        ("ID=sles", SUSE_HOST, Family::Suse),
        ("ID=opensuse-leap", SUSE_HOST, Family::Suse),
        ("ID=alpine", ALPINE_HOST, Family::Alpine),
        ("ID=wolfi", ALPINE_HOST, Family::Alpine),
        ("ID=arch", ARCH_HOST, Family::Arch),
        ("ID=flatcar ID_LIKE=coreos", ALPINE_HOST, Family::Flatcar),
        ("ID=photon", &[("/usr/bin/openssl", PathKind::File)], Family::Photon),
        ("ID=\"openEuler\"", RHEL_HOST, Family::Redhat),
        ("ID=rhcos ID_LIKE=rhel VARIANT_ID=coreos", RHEL_HOST, Family::Redhat),
        ("ID=azurelinux VARIANT_ID=osguard", RHEL_HOST, Family::Redhat),
        ("ID=sl-micro ID_LIKE=suse", SUSE_HOST, Family::Suse),
        ("ID=sle-micro", SUSE_HOST, Family::Suse),
        ("ID=opensuse-microos", SUSE_HOST, Family::Suse),
        ("ID=manjaro ID_LIKE=arch", ARCH_HOST, Family::Arch),
        ("ID=something-new", DEBIAN_HOST, Family::Debian),
    ] {
        let found = on(release, host, None);
        assert_eq!(found.family, Ok(family), "{release}: {}", found.because);
    }
}

#[test]
fn a_tool_without_its_directory_does_not_count() {
    let mut host = DEBIAN_HOST.to_vec();
    host.push(("/usr/bin/update-ca-trust", PathKind::Script)); // p11-kit's tools on Debian
    assert_eq!(on("ID=debian", &host, None).family, Ok(Family::Debian));
    let found = on("ID=rhel", &[("/usr/bin/update-ca-trust", PathKind::Script)], None);
    assert!(found.family.unwrap_err().advice.contains("dnf install ca-certificates"));
}

/// Each error would give the node another family, and the plan would take our anchors out of the old store.
#[test]
fn os_release_is_a_witness() {
    let without = |host: &[(&'static str, PathKind)], path: &str| -> Vec<(&'static str, PathKind)> {
        host.iter().copied().filter(|(name, _)| *name != path).collect()
    };
    let with = |host: &[(&'static str, PathKind)], path: &'static str, what: PathKind| {
        [without(host, path), vec![(path, what)]].concat()
    };
    let wrapper = with(DEBIAN_HOST, "/usr/sbin/update-ca-certificates", PathKind::File);
    assert_eq!(on("ID=debian", &wrapper, None).family, Ok(Family::Debian), "a site's wrapper that is a program");
    let script = with(ALPINE_HOST, "/usr/sbin/update-ca-certificates", PathKind::Script);
    assert_eq!(on("ID=alpine", &script, None).family, Ok(Family::Alpine), "a site's wrapper that is a script");
    let stray = with(DEBIAN_HOST, "/etc/pki/trust", PathKind::Directory);
    assert_eq!(on("ID=ubuntu ID_LIKE=debian", &stray, None).family, Ok(Family::Debian), "a stray directory");

    let headless = without(SUSE_HOST, "/etc/pki/trust");
    let no_tool = [without(RHEL_HOST, "/usr/bin/update-ca-trust"), DEBIAN_HOST.to_vec()].concat();
    for (release, host) in [("ID=sles", headless.as_slice()), ("ID=new ID_LIKE=suse", &headless), ("ID=rhel", &no_tool)]
    {
        let found = on(release, host, None);
        let unsupported = found.family.unwrap_err();
        assert!(unsupported.reason.contains("nothing is changed"), "{release}: {unsupported}");
        assert!(unsupported.advice.contains("store.family"), "{release}: {unsupported}");
        assert_eq!(on(release, host, Some(Family::Debian)).family, Ok(Family::Debian), "who says so may");
    }
    // An unknown ID says nothing, so tools and directories decide.
    assert_eq!(on("ID=something-new", &headless, None).family, Ok(Family::Debian));
}

/// A container image of Debian with another system's os-release, or the other way round.
#[test]
fn debians_script_is_no_other_systems_tool() {
    for (id, way) in [("photon", "tdnf"), ("flatcar", "update the system"), ("alpine", "apk add"), ("wolfi", "apk add")]
    {
        let release = format!("ID={id}");
        let unsupported = on(&release, DEBIAN_HOST, None).family.unwrap_err();
        assert!(unsupported.reason.contains("Debian's script") && unsupported.reason.contains("nothing is changed"));
        assert!(unsupported.advice.contains(way) && unsupported.advice.contains("store.family"), "{id}: {unsupported}");
        assert_eq!(on(&release, DEBIAN_HOST, Some(Family::Debian)).family, Ok(Family::Debian), "who says so may");
    }
    assert!(is_debian_script(b"#!/bin/sh -e\nCERTSCONF=/etc/ca-certificates.conf\nLOCALCERTSDIR=/usr/local/x\n"));
    assert!(!is_debian_script(b"#!/bin/sh\nexec /usr/sbin/update-ca-certificates.real \"$@\"\n"));
    assert!(!is_debian_script(b"\x7fELF LOCALCERTSDIR="));
}

#[test]
fn of_two_stores_the_id_decides() {
    let host = [DEBIAN_HOST, RHEL_HOST].concat();
    assert_eq!(on("ID=rocky ID_LIKE=rhel", &host, None).family, Ok(Family::Redhat));
    assert_eq!(on("ID=debian", &host, None).family, Ok(Family::Debian));
    assert!(on("ID=other", &host, None).family.unwrap_err().advice.contains("store.family"));
}

#[test]
fn systems_with_their_own_way_are_named() {
    for (id, advice) in [
        ("talos", "TrustedRootsConfig"),
        ("nixos", "security.pki.certificateFiles"),
        ("cos", "certificateAuthorityDomainConfig"),
        ("clear-linux-os", "clrtrust add"),
        ("guix", "guix system reconfigure"),
        ("ubuntu-core", "/var/snap"),
    ] {
        let unsupported = on(&format!("ID={id}"), DEBIAN_HOST, None).family.unwrap_err();
        assert!(unsupported.advice.contains(advice), "{id}: {unsupported}");
    }
    assert_eq!(
        on("ID=cos", &[("/etc/ssl/certs", PathKind::Directory)], Some(Family::Directory)).family,
        Ok(Family::Directory)
    );
}

#[test]
fn the_configured_family_wins_if_its_tool_is_there() {
    assert_eq!(on("ID=talos", DEBIAN_HOST, Some(Family::Debian)).family, Ok(Family::Debian));
    assert!(on("ID=debian", DEBIAN_HOST, Some(Family::Redhat)).family.is_err());
}

#[test]
fn nothing_installed_says_what_to_install() {
    for (release, advice) in [
        ("ID=ubuntu ID_LIKE=debian", "apt-get install ca-certificates"),
        ("ID=gentoo", "emerge"),
        ("ID=rocky ID_LIKE=rhel", "dnf install ca-certificates"),
        ("ID=openEuler", "dnf install ca-certificates"),
        ("ID=amzn VERSION_ID=2", "yum install"),
        ("ID=azurelinux VERSION_ID=3.0", "ca-certificates-tools"),
        ("ID=azurelinux VERSION_ID=3.0 VARIANT_ID=osguard", "build the node image anew"),
        ("ID=sles ID_LIKE=suse", "zypper install"),
        ("ID=sl-micro ID_LIKE=suse", "transactional-update"),
        ("ID=sle-micro ID_LIKE=suse", "transactional-update"),
        ("ID=opensuse-microos ID_LIKE=suse", "transactional-update"),
        ("ID=opensuse-leap-micro ID_LIKE=suse", "transactional-update"),
        ("ID=wolfi", "apk add ca-certificates"),
        ("ID=alpine", "apk add ca-certificates"),
        ("ID=arch", "pacman"),
        ("ID=photon VERSION_ID=5.0", "tdnf install openssl"),
        ("ID=fedora VARIANT_ID=coreos", "rpm-ostree"),
        ("ID=rhcos VARIANT_ID=coreos", "Machine Config Operator"),
        ("ID=unknown", "install the package ca-certificates"),
    ] {
        let unsupported = on(release, &[], None).family.unwrap_err();
        assert!(unsupported.advice.contains(advice), "{release}: {unsupported}");
    }
    // Another store's tool does not make a Photon without OpenSSL another family.
    let photon = on("ID=photon", SUSE_HOST, None).family.unwrap_err();
    assert!(photon.reason.contains("openssl") && photon.advice.contains("tdnf install openssl"), "{photon}");
}

#[test]
fn immutable_systems_have_a_way_of_their_own() {
    for (release, way) in [
        ("ID=sl-micro ID_LIKE=suse", Some("transactional-update")),
        ("ID=azurelinux VARIANT_ID=osguard", Some("build the node image anew")),
        ("ID=rhcos VARIANT_ID=coreos", Some("trustedCA")),
        ("ID=sles", None),
        ("ID=azurelinux", None),
        ("ID=debian", None),
    ] {
        let os = OsRelease::parse(&release.replace(' ', "\n"));
        let said = where_read_only(&os);
        assert_eq!(said.is_some(), way.is_some(), "{release}");
        assert!(way.is_none_or(|way| said.unwrap().contains(way)), "{release}: {said:?}");
    }
}

#[test]
fn what_could_not_be_looked_at_is_not_called_unsupported() {
    let detection = Detection::unreadable("failed to read `/etc/pki/trust` on the host".into(), String::new());
    assert!(detection.family.unwrap_err().is_unknown);
}

#[test]
fn an_empty_root_is_told_from_a_node_without_a_store() {
    let empty = on("", &[], None).family.unwrap_err();
    assert!(empty.reason.contains("no operating system") && empty.advice.contains("/host"), "{empty}");
    let bare = on("NAME=Linux PRETTY_NAME=Custom", &[], None).family.unwrap_err();
    assert!(bare.advice.contains("install the package"), "{bare}");
}

/// A row that contradicts itself would be found only on that distribution.
#[test]
fn the_table_is_consistent() {
    use Family::*;
    for family in [Debian, Redhat, Suse, Arch, Alpine, Flatcar, Photon, Directory] {
        let store = family.store();
        assert!(store.anchors_dir.starts_with('/') && !store.is_behind_api(), "{family}");
        assert_eq!(store.family, family);
        assert!(store.takes.matches(&format!("nodetrust-0123456789abcdef.{}", store.extension)), "{family}");
        // The tool must not take the temporary name where it is written.
        let scanned = store.temp_dir == store.anchors_dir;
        assert!(!scanned || !store.takes.matches(".nodetrust-0123456789abcdef.tmp"), "{family}");
        for path in store.tool.programs() {
            assert!(PROBES.contains(path), "{family}: {path} is not probed");
        }
    }
}
