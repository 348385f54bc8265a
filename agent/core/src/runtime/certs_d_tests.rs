//! What a containerd configuration says of its registry directory.

use super::*;

#[test]
fn the_directory_is_found_in_every_format() {
    let of = |plugin: &str, path: &str| {
        let text = format!("version = 2\n[plugins.\"{plugin}\".registry]\n  config_path = \"{path}\"\n");
        setting(&text).unwrap()
    };
    let dir = Setting::Directory("/etc/containerd/certs.d".into());
    for plugin in ["cri", "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images"] {
        assert_eq!(of(plugin, "/etc/containerd/certs.d"), dir);
        assert_eq!(of(plugin, "/etc/containerd/certs.d/"), dir);
        assert_eq!(of(plugin, ""), Setting::NotConfigured);
    }
    let list = "/etc/containerd/certs.d:/etc/docker/certs.d";
    assert_eq!(of("cri", list), Setting::Several(list.into()));
    assert!(matches!(of("cri", "certs.d"), Setting::Unknown(_)));
    assert_eq!(setting("").unwrap(), Setting::NotConfigured);
    assert_eq!(setting("[plugins]\ncri = 3\n").unwrap(), Setting::NotConfigured);
    assert!(setting("[plugins").is_err());
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
