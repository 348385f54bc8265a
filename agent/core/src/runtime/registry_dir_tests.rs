//! What lies in a registry directory.

use super::*;

#[test]
fn a_folder_that_no_image_name_leads_to_hides_nothing() {
    for host in [
        "docker.io",
        "registry.corp:5000",
        "registry.corp_5000_",
        "registry:5000",
        "registry_5000_",
        "localhost",
        "localhost:5000",
        "10.0.0.1",
        "10.0.0.1:5000",
        "xn--bcher-kva.example",
        "Backup",
        "[2001:db8::1]:5000",
        "[2001:db8::1]_5000_",
    ] {
        assert!(is_registry_folder(host), "{host}");
    }
    for name in [
        "_default",
        "_backup",
        "lost+found",
        "backup",
        ".git",
        "a..b",
        "registry.corp.",
        "registry.corp:",
        "registry.corp:x",
        "registry_5000",
        "registry.corp_5000",
        "registry.corp_x_",
        "a_b_c_",
        "-a.b",
        "a-.b",
        "ü.de",
        "..data",
        "old files",
        "",
    ] {
        assert!(!is_registry_folder(name), "{name}");
    }
}

#[test]
fn what_hides_our_file_is_named() {
    let certs = RegistryCerts { setting: Setting::Directory("/certs".into()), ..RegistryCerts::default() };
    assert_eq!(certs.path().as_deref(), Some("/certs/_default/nodetrust-anchors.crt"));
    assert_eq!(certs.covers(), Ok(()));
    let hidden = RegistryCerts { hidden: true, ..certs.clone() };
    assert!(hidden.covers().unwrap_err().contains("/certs/_default/hosts.toml"));
    let elsewhere = RegistryCerts { elsewhere: vec!["a.test".into(), "b.test".into()], ..certs };
    assert!(elsewhere.covers().unwrap_err().contains("/certs/a.test and 1 more"));
    assert!(RegistryCerts::default().covers().is_err());
}
