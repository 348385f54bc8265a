//! The bundle that pods mount: it follows the node's, under one path on every kind of node.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    time::Duration,
};

use serde_json::Value;

use crate::support::{
    node::{Kind, Node},
    pki::Ca,
    wait_for,
};

const LIMIT: Duration = Duration::from_secs(120);
const PATH: &str = "/var/lib/nodetrust/export/ca-certificates.crt";
/// Where a node's own state is.
const PLACES: [&str; 4] = ["/etc", "/usr/local", "/var/lib", "/run"];

fn to(path: &str) -> String {
    format!("rotation: {{removalGrace: 0s}}\nexport: {{bundle: {path}}}\n")
}

fn fingerprints(node: &Node, path: &str) -> Vec<String> {
    let scan = nodetrust_core::pem::scan(&fs::read(node.path(path)).unwrap());
    assert!(scan.faults.is_empty(), "{:?}", scan.faults);
    let of = nodetrust_core::fingerprint::Fingerprint::of_der;
    scan.blocks.iter().map(|block| of(&block.der).to_string()).collect()
}

/// Whether the file has what the node trusts, each certificate once.
fn is_the_bundle(node: &Node, path: &str) -> bool {
    let exported = fingerprints(node, path);
    let as_set: BTreeSet<String> = exported.iter().cloned().collect();
    exported.len() == as_set.len() && as_set == node.bundle().into_iter().collect()
}

fn status(node: &Node, code: i32) -> Value {
    node.nodetrust(&["-o", "json", "status"]).expect(code).json()
}

fn follows_a_rotation(kind: Kind) {
    let node = Node::new(kind, &to(PATH));
    let before = node.tree(&PLACES);
    let (old, new) = (Ca::new("Corp Root 2021"), Ca::new("Corp Root 2026"));
    node.set_source(&[&old]);
    let plan = node.nodetrust(&["plan"]).expect(2).out;
    assert!(plan.contains(&format!("export   {PATH}")), "{plan}");
    for sources in [&[&old][..], &[&old, &new], &[&new]] {
        node.set_source(sources);
        node.nodetrust(&["apply"]).expect(0);
        assert!(is_the_bundle(&node, PATH));
        for ca in [&old, &new] {
            let wanted = sources.iter().any(|wanted| wanted.sha256() == ca.sha256());
            node.write("/tmp/leaf.pem", ca.leaf("registry.test").0);
            let verify = ["openssl", "verify", "-no-CAstore", "-no-CApath", "-CAfile", PATH, "/tmp/leaf.pem"];
            assert_eq!(node.run(&verify).code == 0, wanted);
        }
    }
    let python = "import ssl, sys; print(len(ssl.create_default_context(cafile=sys.argv[1]).get_ca_certs()))";
    let loaded = node.run(&["python3", "-c", python, PATH]).expect(0).out;
    assert_eq!(loaded.trim(), fingerprints(&node, PATH).len().to_string());
    let meta = fs::metadata(node.path(PATH)).unwrap();
    assert_eq!(meta.permissions().mode() & 0o7777, 0o644, "users of pods can read it");
    assert_eq!(fs::metadata(node.path(PATH).parent().unwrap()).unwrap().permissions().mode() & 0o7777, 0o755);
    let export = &status(&node, 0)["export"];
    assert_eq!((&export["path"], &export["current"]), (&PATH.into(), &true.into()), "{export}");
    node.nodetrust(&["plan"]).expect(0);

    node.nodetrust(&["uninstall"]).expect(0);
    let left = node.tree(&PLACES);
    let new: Vec<&String> = left.keys().filter(|path| !before.contains_key(*path)).collect();
    assert!(!new.iter().any(|path| path.contains("nodetrust")), "{new:?}");
}

#[test]
fn bookworm_pods_follow_a_rotation() {
    follows_a_rotation(Kind::Bookworm);
}

#[test]
fn rhelish_pods_follow_a_rotation() {
    follows_a_rotation(Kind::Rhelish);
}

#[test]
fn it_moves_with_the_configuration_and_goes_with_it() {
    let node = Node::new(Kind::Trixie, &to(PATH));
    let ca = Ca::new("Corp Root");
    node.set_source(&[&ca]);
    node.nodetrust(&["apply"]).expect(0);
    let other = "/etc/corp/trust/all.pem";
    node.configure(&to(other));
    node.nodetrust(&["apply"]).expect(0);
    assert!(is_the_bundle(&node, other) && !node.path(PATH).exists());
    node.configure("");
    node.nodetrust(&["apply"]).expect(0);
    assert!(!node.path(other).exists() && node.trusts(&ca));
    assert!(status(&node, 0)["export"].is_null());

    // a ledger that was lost: what lies at the configured path is known by its first line, and taken along
    node.configure(&to(other));
    node.nodetrust(&["apply"]).expect(0);
    fs::remove_file(node.path("/var/lib/nodetrust/ledger.json")).unwrap();
    node.nodetrust(&["uninstall"]).expect(0);
    assert!(!node.path(other).exists() && !node.trusts(&ca));
}

#[test]
fn what_somebody_else_has_there_stays_and_is_told() {
    let node = Node::new(Kind::Trixie, &to(PATH));
    let ca = Ca::new("Corp Root");
    node.set_source(&[&ca]);
    let path = node.path(PATH);
    node.write(PATH, "somebody else's\n");
    let told = |why: &str| {
        node.nodetrust(&["apply"]).expect(2);
        let status = status(&node, 2);
        let problem = &status["problems"][0];
        assert_eq!(problem["kind"], "export", "{status:#}");
        let text = problem["text"].as_str().unwrap();
        assert!(text.contains(why) && problem["next"].as_str().unwrap().contains("export.bundle"), "{problem}");
        assert!(status["converged"] == true && node.trusts(&ca), "{status:#}");
    };
    told("a file that nodetrust did not write");
    assert_eq!(fs::read_to_string(&path).unwrap(), "somebody else's\n");

    fs::remove_file(&path).unwrap();
    node.write("/etc/target", "not to be touched\n");
    symlink("/etc/target", &path).unwrap();
    node.nodetrust(&["apply"]).expect(0); // a link in our directory is replaced, not followed
    assert_eq!(fs::read_to_string(node.path("/etc/target")).unwrap(), "not to be touched\n");
    assert!(path.symlink_metadata().unwrap().is_file());

    fs::remove_file(&path).unwrap();
    fs::create_dir_all(path.join("below")).unwrap();
    told("is a directory");
    fs::remove_dir_all(&path).unwrap();

    // the store would read it as one of its own, also by way of a link
    symlink("/usr/local/share", node.path("/etc/share")).unwrap();
    for inside in
        ["/etc/ssl/certs/all.pem", "/usr/local/share/ca-certificates/a/b.crt", "/etc/share/ca-certificates/b.crt"]
    {
        node.configure(&to(inside));
        told("a directory of the trust store");
        assert!(!node.path(inside).exists());
    }

    node.configure(&to(PATH));
    node.nodetrust(&["apply"]).expect(0);
    assert!(is_the_bundle(&node, PATH));
    node.nodetrust(&["uninstall"]).expect(0);
}

#[test]
fn a_bundle_that_cannot_be_loaded_is_not_handed_on() {
    let node = Node::new(Kind::Trixie, &to(PATH));
    let ca = Ca::new("Corp Root");
    node.set_source(&[&ca]);
    node.nodetrust(&["apply"]).expect(0);
    let good = fs::read(node.path(PATH)).unwrap();
    let tool = node.path("/usr/sbin/update-ca-certificates");
    fs::write(&tool, "#!/bin/sh\necho simulated failure >&2\nexit 1\n").unwrap();
    let bundle = node.path(node.kind.bundle());
    let whole = fs::read(&bundle).unwrap();
    for broken in [&whole[..whole.len() / 2], b"", b"-----BEGIN CERTIFICATE-----\n"] {
        fs::write(&bundle, broken).unwrap();
        node.nodetrust(&["apply"]).expect(1);
        assert_eq!(fs::read(node.path(PATH)).unwrap(), good);
        let export = status(&node, 2)["export"].clone();
        assert_eq!(export["current"], false);
        assert!(export["detail"].as_str().unwrap().starts_with("stays as it was: "), "{export}");
    }
}

#[test]
fn the_agent_keeps_it_as_it_should_be() {
    let node = Node::new(Kind::Trixie, "");
    let ca = Ca::new("Corp Root");
    node.set_source(&[&ca]);
    let agent = node.agent(&format!("settle: 200ms\nexport: {{bundle: {PATH}}}\n"));
    agent.wait_status("an export", LIMIT, |status| status["export"]["current"] == true);
    let file = node.path(PATH);
    let good = fs::read(&file).unwrap();
    let back = |what: &str| {
        wait_for(what, LIMIT, || (fs::read(&file).is_ok_and(|bytes| bytes == good)).then_some(()));
        agent.wait_converged(&[&ca], LIMIT);
    };
    fs::remove_file(&file).unwrap();
    back("a deleted file");
    fs::write(&file, &good[..good.len() / 2]).unwrap();
    back("a cut file");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    wait_for("its mode", LIMIT, || (fs::metadata(&file).unwrap().permissions().mode() & 0o777 == 0o644).then_some(()));

    // the distribution's own change reaches pods too
    let other = Ca::new("Somebody Else");
    node.write("/usr/local/share/ca-certificates/other.crt", other.pem());
    node.run(&[node.kind.tool()]).expect(0);
    wait_for("somebody else's CA", LIMIT, || fingerprints(&node, PATH).contains(&other.sha256()).then_some(()));
    assert!(is_the_bundle(&node, PATH));
    let drift = agent.metric("nodetrust_drift_repaired_total{kind=\"bundle\"}");
    assert_eq!(drift, Some(0.0), "none of this was the store's matter");
}
