//! The stores without a real root at hand: the distributions' directories and a stand-in for their tool, which does its work with the
//! real p11-kit or OpenSSL where theirs does. What is simulated is in each test's name.

use std::{fs, os::unix::fs::PermissionsExt};

use crate::support::{
    node::{Kind, Node},
    pki::Ca,
};

/// A root that looks like a distribution.
struct Distribution {
    name: &'static str,
    kind: Kind,
    os_release: &'static str,
    /// shell script, run in the root, that lays out the store
    layout: &'static str,
    tool: (&'static str, &'static str),
    bundle: &'static str,
    anchors_dir: &'static str,
    extension: &'static str,
}

fn whole_life(family: &Distribution) {
    let set = if family.name == "alpine" { "store: {family: alpine}\n" } else { "" };
    let node = Node::new(family.kind, &format!("{set}rotation: {{removalGrace: 0s}}"));
    fs::remove_file(node.path("/etc/os-release")).unwrap();
    node.write("/etc/os-release", family.os_release);
    node.run(&["sh", "-ec", family.layout]).expect(0);
    let (path, script) = family.tool;
    if !script.is_empty() {
        node.write(path, script);
        fs::set_permissions(node.path(path), fs::Permissions::from_mode(0o755)).unwrap();
        node.run(&[path]).expect(0);
    }
    let stores = node.nodetrust(&["-o", "json", "stores"]).expect(0).json();
    assert_eq!(stores["family"], family.name, "{stores:#}");
    let digest = |ca: &Ca| ca.sha256();
    let bundle = || -> Vec<String> {
        let text = fs::read(node.path(family.bundle)).unwrap();
        let blocks = nodetrust_core::certificate::pem::scan(&text).blocks;
        blocks
            .iter()
            .map(|block| nodetrust_core::certificate::fingerprint::Fingerprint::of_der(&block.der).to_string())
            .collect()
    };
    let shipped = bundle();
    assert!(shipped.len() > 100, "{} certificates shipped", shipped.len());

    let (old, new) = (Ca::new("Corp Root 2021"), Ca::new("Corp Root 2026"));
    node.set_source(&[&old]);
    // the script for the first boot does what the agent does, and the agent takes its file over
    node.write("/tmp/first-boot.sh", node.nodetrust(&["render", "script"]).expect(0).out);
    node.run(&["sh", "/tmp/first-boot.sh"]).expect(0);
    assert!(bundle().contains(&digest(&old)));
    assert!(node.run(&["sh", "/tmp/first-boot.sh"]).expect(0).err.contains("already"));
    node.nodetrust(&["apply"]).expect(0);
    assert!(bundle().contains(&digest(&old)));
    let file = node.path(&format!("{}/nodetrust-{}.{}", family.anchors_dir, old.fp16(), family.extension));
    assert_eq!(fs::read_to_string(file).unwrap(), old.pem());
    node.nodetrust(&["plan"]).expect(0);

    node.set_source(&[&new]);
    node.nodetrust(&["apply"]).expect(0);
    assert!(!bundle().contains(&digest(&old)) && bundle().contains(&digest(&new)));
    node.nodetrust(&["status"]).expect(0);

    node.nodetrust(&["uninstall"]).expect(0);
    let (mut left, mut before) = (bundle(), shipped);
    left.sort();
    before.sort();
    assert_eq!(left, before);
    assert!(
        !node.footprint().keys().any(|path| path.contains("nodetrust") && !path.starts_with("/tmp")),
        "{:#?}",
        node.footprint()
    );
}

#[test]
fn arch_with_real_p11_kit_and_a_simulated_tool() {
    whole_life(&Distribution {
        name: "arch",
        kind: Kind::Rhelish,
        os_release: "ID=arch\n",
        layout: "rm -r /etc/pki/ca-trust; mkdir -p /etc/ca-certificates/trust-source/anchors /etc/ca-certificates/extracted
            mkdir -p /usr/share/ca-certificates/trust-source
            mv /usr/share/pki/ca-trust-source/*.p11-kit /usr/share/ca-certificates/trust-source/
            sed -i \"s|^x-init-reserved:.*|x-init-reserved: paths='/etc/ca-certificates/trust-source:/usr/share/ca-certificates/trust-source'|\" \
                /usr/share/p11-kit/modules/p11-kit-trust.module",
        tool: (
            "/usr/bin/update-ca-trust",
            "#!/bin/sh\nset -eu\n\
             trust extract --format=pem-bundle --purpose=server-auth --filter=ca-anchors --overwrite /etc/ca-certificates/extracted/tls-ca-bundle.pem\n",
        ),
        bundle: "/etc/ca-certificates/extracted/tls-ca-bundle.pem",
        anchors_dir: "/etc/ca-certificates/trust-source/anchors",
        extension: "pem",
    });
}

/// Alpine's tool is a C program; here a script of the same behaviour, so the family is set and not detected.
#[test]
fn alpine_with_a_simulated_tool() {
    whole_life(&Distribution {
        name: "alpine",
        kind: Kind::Trixie,
        os_release: "ID=alpine\nVERSION_ID=3.19.8\n",
        layout: "rm -f /etc/ssl/certs/*",
        tool: (
            "/usr/sbin/update-ca-certificates",
            "#!/bin/sh\ncd /etc/ssl/certs || exit 1\nt=$(mktemp bundle.XXXXXX)\n{\n\
             for f in $(sed '/^[!#]/d' /etc/ca-certificates.conf); do cat /usr/share/ca-certificates/$f; echo; ln -sf /usr/share/ca-certificates/$f ca-cert-$(basename $f .crt).pem; done\n\
             for f in /usr/local/share/ca-certificates/*; do [ ! -f \"$f\" ] || { cat \"$f\"; echo; ln -sf \"$f\" ca-cert-$(basename \"$f\" .crt).pem; }; done\n\
             } >$t\nfind . -xtype l -delete\nchmod 644 $t; mv $t ca-certificates.crt\nopenssl rehash . >/dev/null 2>&1\n",
        ),
        bundle: "/etc/ssl/certs/ca-certificates.crt",
        anchors_dir: "/usr/local/share/ca-certificates",
        extension: "crt",
    });
}

#[test]
fn flatcar_with_real_openssl_and_a_simulated_tool() {
    whole_life(&Distribution {
        name: "flatcar",
        kind: Kind::Trixie,
        os_release: "ID=flatcar\nID_LIKE=coreos\n",
        layout: "rm -r /usr/local/share/ca-certificates /etc/ca-certificates.conf",
        tool: (
            "/usr/sbin/update-ca-certificates",
            "#!/bin/sh\ncd /etc/ssl/certs || exit 1\n[ $# = 0 ] || { echo usage; exit 0; }\nfind . -xtype l -delete\n\
             openssl rehash . >/dev/null 2>&1\nt=$(mktemp ../bundle.XXXXXX)\nfor f in *.[0-9]; do cat \"$f\"; echo; done >$t\n\
             chmod 644 $t; mv $t ca-certificates.crt\n",
        ),
        bundle: "/etc/ssl/certs/ca-certificates.crt",
        anchors_dir: "/etc/ssl/certs",
        extension: "pem",
    });
}

#[test]
fn photon_with_real_openssl() {
    whole_life(&Distribution {
        name: "photon",
        kind: Kind::Trixie,
        os_release: "ID=photon\n",
        layout: "rm -r /usr/sbin/update-ca-certificates /usr/local/share/ca-certificates; mkdir -p /etc/pki/tls/certs
            cat /etc/ssl/certs/*.pem >/etc/pki/tls/certs/ca-bundle.crt",
        tool: ("", ""),
        bundle: "/etc/pki/tls/certs/ca-bundle.crt",
        anchors_dir: "/etc/ssl/certs",
        extension: "pem",
    });
}

#[test]
fn a_directory_without_any_tool_is_what_go_reads() {
    let node = Node::new(Kind::Trixie, "rotation: {removalGrace: 0s}\nstore: {family: directory}");
    node.run(&["rm", "/usr/sbin/update-ca-certificates"]).expect(0);
    let before = node.tree(&["/etc", "/var/lib"]);
    let ca = Ca::new("Corp Root");
    node.set_source(&[&ca]);
    node.nodetrust(&["apply"]).expect(0);
    let file = node.path(&format!("/etc/ssl/certs/nodetrust-{}.pem", ca.fp16()));
    assert_eq!(fs::read_to_string(&file).unwrap(), ca.pem());
    let status = node.nodetrust(&["-o", "json", "status"]).expect(0).json();
    assert_eq!(status["anchors"][0]["trusted"], true);
    node.nodetrust(&["uninstall"]).expect(0);
    assert_eq!(node.tree(&["/etc", "/var/lib"]), before);
}

/// Systems that set trust in their own way: the answer names it, and nothing is changed.
#[test]
fn systems_without_a_store_are_left_alone() {
    for (id, native) in [
        ("bottlerocket", "settings.pki"), // without its API
        ("talos", "TrustedRootsConfig"),
        ("nixos", "security.pki"),
        ("cos", "registry access"),
        ("clear-linux-os", "clrtrust"),
        ("guix", "guix system reconfigure"),
        ("ubuntu-core", "/var/snap"),
    ] {
        let node = Node::new(Kind::Trixie, "");
        fs::remove_file(node.path("/etc/os-release")).unwrap();
        node.write("/etc/os-release", format!("ID={id}\n"));
        node.set_source(&[&Ca::new("Corp Root")]);
        let before = node.footprint();
        let status = node.nodetrust(&["-o", "json", "status"]).expect(2).json();
        assert_eq!(status["verdict"], "unsupported-store");
        assert!(status["next"].to_string().contains(native), "{id}: {status:#}");
        node.nodetrust(&["stores"]).expect(2);
        node.nodetrust(&["apply"]).expect(1);
        let mut after = node.footprint();
        after.retain(|path, _| !path.starts_with("/run"));
        assert_eq!(after, before, "{id}");
    }
}
