//! The files that pods mount: they follow the node's bundle, under one path on every kind of node.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::Path,
    process::Command,
    time::Duration,
};

use serde_json::{Value, json};

use crate::support::{
    node::{Kind, Node, NodeAgent},
    pki::Ca,
    wait_for,
};

const LIMIT: Duration = Duration::from_secs(240);
const PATH: &str = "/var/lib/nodetrust/export/ca-certificates.crt";
/// The trust store for Java.
const JAVA: &str = "/var/lib/nodetrust/export/truststore.p12";
/// The directory of the node's own state.
const PLACES: [&str; 4] = ["/etc", "/usr/local", "/var/lib", "/run"];

/// A configuration whose bundle lies at a path in the directory of exported bundles.
fn to(path: &str) -> String {
    format!("rotation: {{removalGrace: 0s}}\nexport: {{bundle: {}}}\n", path.rsplit('/').next().unwrap())
}

fn fingerprints(node: &Node, path: &str) -> Vec<String> {
    let scan = nodetrust_core::certificate::pem::scan(&fs::read(node.path(path)).unwrap());
    assert!(scan.faults.is_empty(), "{:?}", scan.faults);
    let of = nodetrust_core::certificate::fingerprint::Fingerprint::of_der;
    scan.blocks.iter().map(|block| of(&block.der).to_string()).collect()
}

/// Whether the file has what the node trusts, each certificate once.
fn is_the_bundle(node: &Node, path: &str) -> bool {
    let exported = fingerprints(node, path);
    let as_set: BTreeSet<String> = exported.iter().cloned().collect();
    exported.len() == as_set.len() && as_set == node.bundle().into_iter().collect()
}

/// A configuration with both files.
const BOTH: &str = "rotation: {removalGrace: 0s}\nexport: {bundle: ca-certificates.crt, pkcs12: truststore.p12}\n";

/// What the real keytool finds in a trust store: the fingerprints of its trusted entries. `password`: as it is given.
fn trusted_by_java(file: &Path, password: &str) -> Result<BTreeSet<String>, String> {
    let keytool = Command::new("/usr/bin/keytool")
        .args(["-list", "-keystore"])
        .arg(file)
        .args(["-storepass", password])
        .env_remove("JAVA_TOOL_OPTIONS")
        .output()
        .expect("keytool of Debian's default-jre-headless: scripts/test installs it");
    let out = String::from_utf8_lossy(&keytool.stdout).into_owned();
    if !keytool.status.success() {
        return Err(out);
    }
    let prints = out.lines().filter_map(|line| line.strip_prefix("Certificate fingerprint (SHA-256): "));
    let prints: BTreeSet<String> = prints.map(|print| print.trim().replace(':', "").to_lowercase()).collect();
    assert_eq!(out.matches("trustedCertEntry").count(), prints.len(), "{out}");
    Ok(prints)
}

fn status(node: &Node, code: i32) -> Value {
    node.nodetrust(&["-o", "json", "status"]).expect(code).json()
}

fn follows_a_rotation(kind: Kind) {
    let node = Node::new(kind, BOTH);
    let before = node.tree(&PLACES);
    let (old, new) = (Ca::new("Corp Root 2021"), Ca::new("Corp Root 2026"));
    node.set_source(&[&old]);
    let plan = node.nodetrust(&["plan"]).expect(2).out;
    assert!([PATH, JAVA].iter().all(|path| plan.contains(&format!("export   {path}"))), "{plan}");
    for sources in [&[&old][..], &[&old, &new], &[&new]] {
        node.set_source(sources);
        node.nodetrust(&["apply"]).expect(0);
        assert!(is_the_bundle(&node, PATH));
        let java = trusted_by_java(&node.path(JAVA), "changeit").unwrap();
        assert_eq!(java, node.bundle().into_iter().collect());
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
    for path in [PATH, JAVA] {
        let meta = fs::metadata(node.path(path)).unwrap();
        assert_eq!(meta.permissions().mode() & 0o7777, 0o644, "users of pods can read it");
    }
    assert_eq!(fs::metadata(node.path(PATH).parent().unwrap()).unwrap().permissions().mode() & 0o7777, 0o755);
    let export = &status(&node, 0)["export"];
    assert_eq!((&export["path"], &export["current"]), (&PATH.into(), &true.into()), "{export}");
    let export = &status(&node, 0)["exportPkcs12"];
    assert_eq!((&export["path"], &export["current"]), (&JAVA.into(), &true.into()), "{export}");
    assert_eq!(export["certificates"], fingerprints(&node, PATH).len(), "{export}");
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
    let other = "/var/lib/nodetrust/export/all.pem";
    node.configure(&to(other));
    node.nodetrust(&["apply"]).expect(0);
    assert!(is_the_bundle(&node, other) && !node.path(PATH).exists());
    node.configure("");
    node.nodetrust(&["apply"]).expect(0);
    assert!(!node.path(other).exists() && node.trusts(&ca));
    assert!(status(&node, 0)["export"].is_null());

    // The ledger is lost. The file at the configured path is recognised by its first line and kept current.
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

    node.nodetrust(&["apply"]).expect(0);
    assert!(is_the_bundle(&node, PATH));
    node.nodetrust(&["uninstall"]).expect(0);
}

/// Files that the system runs or obeys: whoever can write one becomes root. No form of the name leads there.
#[test]
fn the_configuration_chooses_no_place() {
    let node = Node::new(Kind::Trixie, "");
    let ca = Ca::new("Corp Root");
    node.set_source(&[&ca]);
    node.nodetrust(&["apply"]).expect(0);
    let before = node.tree(&PLACES);
    for place in [
        "/etc/ld.so.preload",
        "/etc/cron.d/x",
        "/var/lib/nodetrust/export/ca-certificates.crt",
        "/var/lib/nodetrust/ledger.json",
        "../../../../etc/ld.so.preload",
        "../ledger.json",
        "a/b",
        "..",
        ".bashrc",
    ] {
        node.configure(&format!("export: {{bundle: \"{place}\"}}"));
        for command in ["plan", "apply", "run"] {
            let done = node.nodetrust(&[command]).expect(64);
            let says = |what: &str| done.err.contains(what);
            assert!(says("export.bundle") && says("bare name") && says("/var/lib/nodetrust/export/"), "{}", done.err);
            assert!(says(&node.config.display().to_string()) && says("line 3"), "{}", done.err);
        }
        assert_eq!(node.tree(&PLACES), before, "{place}");
    }
}

/// Makes by hand what a version that took a path has left: the ledger names the file.
fn simulate_an_earlier_version(node: &Node, path: &str) {
    let ledger = node.path("/var/lib/nodetrust/ledger.json");
    let mut text: Value = serde_json::from_slice(&fs::read(&ledger).unwrap()).unwrap();
    text["exports"] = json!([path]);
    fs::write(&ledger, text.to_string()).unwrap();
    node.write(path, fs::read(node.path(PATH)).unwrap());
    fs::set_permissions(node.path(path), fs::Permissions::from_mode(0o644)).unwrap();
    fs::remove_file(node.path(PATH)).unwrap();
}

const EARLIER: &str = "/etc/corp/trust/all.pem";

#[test]
fn a_file_of_a_simulated_earlier_version_stays_current_until_the_new_one_is_there() {
    let node = Node::new(Kind::Trixie, &to(PATH));
    let (one, two) = (Ca::new("Corp Root"), Ca::new("Second Root"));
    node.set_source(&[&one]);
    node.nodetrust(&["apply"]).expect(0);
    simulate_an_earlier_version(&node, EARLIER);
    // An obstacle lies at the new path.
    fs::create_dir_all(node.path(PATH).join("below")).unwrap();
    node.set_source(&[&one, &two]);
    node.nodetrust(&["apply"]).expect(2);
    assert!(node.trusts(&two) && is_the_bundle(&node, EARLIER));
    fs::remove_dir_all(node.path(PATH)).unwrap();
    node.nodetrust(&["apply"]).expect(0);
    assert!(is_the_bundle(&node, PATH) && !node.path(EARLIER).exists());
    node.nodetrust(&["plan"]).expect(0);

    // `uninstall` takes both, also with the old configuration
    simulate_an_earlier_version(&node, EARLIER);
    node.write(PATH, fs::read(node.path(EARLIER)).unwrap());
    node.configure(&to(PATH));
    node.nodetrust(&["uninstall"]).expect(0);
    assert!(!node.path(EARLIER).exists() && !node.path(PATH).exists() && !node.trusts(&one));
}

#[test]
fn uninstall_takes_the_configuration_of_a_simulated_earlier_version() {
    let node = Node::new(Kind::Trixie, &to(PATH));
    let ca = Ca::new("Corp Root");
    node.set_source(&[&ca]);
    node.nodetrust(&["apply"]).expect(0);
    simulate_an_earlier_version(&node, EARLIER);
    let theirs = "/etc/corp/theirs.pem";
    node.write(theirs, ca.pem());
    node.configure(&format!("export: {{bundle: {theirs}}}")); // the ledger names the right file
    node.nodetrust(&["uninstall"]).expect(0);
    assert!(!node.path(EARLIER).exists() && node.path(theirs).exists() && !node.trusts(&ca));
}

#[test]
fn an_agent_bears_a_path_in_its_configuration() {
    let node = Node::new(Kind::Trixie, &to(PATH));
    let (one, two) = (Ca::new("Corp Root"), Ca::new("Second Root"));
    node.set_source(&[&one]);
    let base = "settle: 200ms\nresync: 1h\nrotation: {removalGrace: 0s}\n";
    let agent = node.agent(&format!("{base}export: {{bundle: ca-certificates.crt}}\n"));
    agent.wait_status("an export", LIMIT, |status| status["export"]["current"] == true);
    let listen = format!("http: {{address: \"127.0.0.1:{}\"}}\n{base}", agent.port());
    let refused = |agent: &NodeAgent| {
        let status = agent.wait_status("the error", LIMIT, |status| status["problems"][0]["kind"] == "config");
        let problem = &status["problems"][0]["text"];
        let says = |what: &str| problem.as_str().unwrap().contains(what);
        assert!(says("export.bundle") && says("/var/lib/nodetrust/export/"), "{problem}");
    };
    // While the agent runs, the old configuration stays in force and its file current.
    node.configure(&format!("{listen}export: {{bundle: {EARLIER}}}\n"));
    refused(&agent);
    node.set_source(&[&one, &two]);
    agent.wait_converged(&[&one, &two], LIMIT);
    wait_for("both in the file", LIMIT, || is_the_bundle(&node, PATH).then_some(()));
    assert!(!node.path(EARLIER).exists());
    drop(agent);

    // After an upgrade the path and the configuration of the earlier version are still there.
    simulate_an_earlier_version(&node, EARLIER);
    let agent = node.agent(&format!("{base}export: {{bundle: {EARLIER}}}\n"));
    refused(&agent);
    assert_eq!(agent.get("/readyz").map(|(code, _)| code), Some(200), "the upgrade alone makes no node unready");
    node.set_source(&[&two]);
    agent.wait_converged(&[&two], LIMIT);
    wait_for("the file of that version", LIMIT, || is_the_bundle(&node, EARLIER).then_some(()));
    assert!(!node.path(PATH).exists());
    let listen = format!("http: {{address: \"127.0.0.1:{}\"}}\n{base}", agent.port());
    node.configure(&format!("{listen}export: {{bundle: all.pem}}\n"));
    let new = "/var/lib/nodetrust/export/all.pem";
    wait_for("the new file", LIMIT, || (node.path(new).exists() && !node.path(EARLIER).exists()).then_some(()));
    assert!(is_the_bundle(&node, new));
    agent.wait_status("no problem", LIMIT, |status| status["problems"] == json!([]));
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
    let agent = node.agent(&format!("settle: 200ms\n{}", to(PATH)));
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

    // A change by the distribution reaches pods too.
    let other = Ca::new("Somebody Else");
    node.write("/usr/local/share/ca-certificates/other.crt", other.pem());
    node.run(&[node.kind.tool()]).expect(0);
    wait_for("somebody else's CA", LIMIT, || fingerprints(&node, PATH).contains(&other.sha256()).then_some(()));
    assert!(is_the_bundle(&node, PATH));
    let drift = agent.metric("nodetrust_drift_repaired_total{kind=\"bundle\"}");
    assert_eq!(drift, Some(0.0), "none of this was the store's matter");
}

/// A trust store that changed although nothing else did would be copied and read again by everybody who watches it.
#[test]
fn the_trust_store_is_written_only_when_the_certificates_differ() {
    let node = Node::new(Kind::Bookworm, BOTH);
    let (one, two) = (Ca::new("Corp Root"), Ca::new("Corp Root"));
    let file = || (fs::read(node.path(JAVA)).unwrap(), fs::metadata(node.path(JAVA)).unwrap().ino());
    let in_force = |sources: &[&Ca]| {
        node.set_source(sources);
        node.nodetrust(&["apply"]).expect(0);
        file()
    };
    let first = in_force(&[&one]);
    node.nodetrust(&["apply"]).expect(0);
    assert_eq!(file(), first);
    node.write(PATH, "");
    fs::remove_file(node.path(PATH)).unwrap();
    node.nodetrust(&["apply"]).expect(0);
    assert_eq!(file(), first, "the other file was missing, not this one");
    // two CAs of one name are two entries
    let second = in_force(&[&one, &two]);
    let java = trusted_by_java(&node.path(JAVA), "changeit").unwrap();
    assert!(second != first && java.contains(&one.sha256()) && java.contains(&two.sha256()));
    // what Java says to a password that is another one: the seal is there
    let error = trusted_by_java(&node.path(JAVA), "changeme").unwrap_err();
    assert!(error.contains("ntegrity"), "{error}");
}

#[test]
fn a_trust_store_that_is_damaged_or_gone_is_healed() {
    let node = Node::new(Kind::Trixie, "");
    let ca = Ca::new("Corp Root");
    node.set_source(&[&ca]);
    let agent = node.agent(&format!("settle: 200ms\n{BOTH}"));
    agent.wait_status("an export", LIMIT, |status| status["exportPkcs12"]["current"] == true);
    let file = node.path(JAVA);
    let good = fs::read(&file).unwrap();
    let mut flipped = good.clone();
    let middle = good.len() / 2;
    flipped[middle] ^= 1;
    let last = good.len() - 1;
    for damaged in [Some(&good[..good.len() / 2]), Some(&good[..last]), Some(&flipped[..]), None] {
        match damaged {
            Some(bytes) => fs::write(&file, bytes).unwrap(),
            None => fs::remove_file(&file).unwrap(),
        }
        wait_for("the trust store", LIMIT, || (fs::read(&file).is_ok_and(|bytes| bytes == good)).then_some(()));
    }
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    wait_for("its mode", LIMIT, || (fs::metadata(&file).unwrap().permissions().mode() & 0o777 == 0o644).then_some(()));
    assert!(trusted_by_java(&file, "changeit").unwrap().contains(&ca.sha256()));
}

#[test]
fn somebody_elses_key_store_stays_and_is_told() {
    let node = Node::new(Kind::Trixie, BOTH);
    let ca = Ca::new("Corp Root");
    node.set_source(&[&ca]);
    let path = node.path(JAVA);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut keytool = Command::new("/usr/bin/keytool");
    keytool.args(["-genkeypair", "-alias", "theirs", "-keyalg", "EC", "-dname", "CN=theirs", "-storepass", "changeit"]);
    let made = keytool.arg("-keystore").arg(&path).env_remove("JAVA_TOOL_OPTIONS").output().unwrap();
    assert!(made.status.success(), "{made:?}");
    let theirs = fs::read(&path).unwrap();
    node.nodetrust(&["apply"]).expect(2);
    assert_eq!(fs::read(&path).unwrap(), theirs);
    let report = status(&node, 2);
    let problem = &report["problems"][0];
    assert_eq!(problem["kind"], "export", "{report:#}");
    assert!(problem["next"].as_str().unwrap().contains("export.pkcs12"), "{problem}");
    assert!(is_the_bundle(&node, PATH), "the other file is there all the same");
    node.nodetrust(&["uninstall"]).expect(0);
    assert_eq!(fs::read(&path).unwrap(), theirs);
}

#[test]
fn a_trust_store_moves_with_the_configuration_and_goes_with_it() {
    let node = Node::new(Kind::Trixie, BOTH);
    let ca = Ca::new("Corp Root");
    node.set_source(&[&ca]);
    node.nodetrust(&["apply"]).expect(0);
    node.configure("rotation: {removalGrace: 0s}\nexport: {pkcs12: all.p12}");
    node.nodetrust(&["apply"]).expect(0);
    let other = node.path("/var/lib/nodetrust/export/all.p12");
    assert!(trusted_by_java(&other, "changeit").unwrap().contains(&ca.sha256()));
    assert!(!node.path(JAVA).exists() && !node.path(PATH).exists());
    // the names change places
    node.configure("rotation: {removalGrace: 0s}\nexport: {bundle: all.p12, pkcs12: all.pem}");
    node.nodetrust(&["apply"]).expect(0);
    assert!(is_the_bundle(&node, "/var/lib/nodetrust/export/all.p12"));
    assert!(trusted_by_java(&node.path("/var/lib/nodetrust/export/all.pem"), "changeit").is_ok());

    // The ledger is lost, and so is the configuration: the directory is ours, and each file is known by its content.
    node.configure("rotation: {removalGrace: 0s}\nexport: {pkcs12: all.p12}");
    node.nodetrust(&["apply"]).expect(0);
    fs::remove_file(node.path("/var/lib/nodetrust/ledger.json")).unwrap();
    node.configure("");
    node.nodetrust(&["uninstall"]).expect(0);
    assert!(!other.exists() && !node.trusts(&ca));
}
