//! One run of the tool, nobody in its way, and the result is wrong: what lies in its directories leads it astray.

use std::fs;

use rcgen::{BasicConstraints, ExtendedKeyUsagePurpose, IsCa};

use super::*;

/// The first half of a certificate: broken off in the middle of a line.
fn truncated(ca: &Ca) -> String {
    let pem = ca.pem();
    pem[..pem.len() / 2].to_owned()
}

/// Two certificates in a file go into the bundle and get no link; other endings are ignored; exit code 0 (facts A.3).
#[test]
fn several_certificates_in_a_file() {
    let [one, two, three, four] = ["One", "Two", "Three", "Four"].map(Ca::new);
    let both = one.pem() + &two.pem();
    let without_end = three.pem().trim_end().to_owned();

    let alone = Node::new(DEBIAN, "");
    let multi = put(&alone, "multi.crt", &both);
    put(&alone, "no-newline.crt", &without_end);
    put(&alone, "ignored.pem", four.pem());
    tool(&alone, &[]).expect(0);
    assert!(by_file(&alone, &one) && by_file(&alone, &two), "both are in the bundle");
    assert!(!by_directory(&alone, &one) && !by_directory(&alone, &two), "and neither is in the directory");
    assert!(alone.clients_trust(&three));
    assert!(!alone.clients_trust(&four), "ignored without a word");

    let node = Node::new(DEBIAN, "");
    fs::write(node.source.join("multi.crt"), &both).unwrap();
    fs::write(node.source.join("no-newline.crt"), &without_end).unwrap();
    fs::write(node.source.join("other.pem"), four.pem()).unwrap();
    apply(&node, 0);
    assert_right(&node, &[&one, &two, &three, &four]);

    // Our files work beside the same file of somebody else, which the report names.
    let five = Ca::new("Five");
    alone.set_source(&[&five]);
    let report = apply(&alone, 0);
    assert_right(&alone, &[&five]);
    let row = report["foreign"].as_array().unwrap().iter().find(|row| row["path"] == multi.as_str()).unwrap();
    assert!(row["text"].as_str().unwrap().contains("2 certificates in one file"), "{row}");
}

/// Other content under the same name reaches the bundle and not the directory (facts 0.3).
#[test]
fn replaced_under_the_same_name() {
    let (old, new) = (Ca::new("Corp Root 2021"), Ca::new("Corp Root 2026"));

    let alone = Node::new(DEBIAN, "");
    put(&alone, "corp.crt", old.pem());
    tool(&alone, &[]).expect(0);
    assert!(alone.clients_trust(&old));
    put(&alone, "corp.crt", new.pem());
    let done = tool(&alone, &[]).expect(0);
    assert!(done.out.contains("0 added, 0 removed"), "{}", done.out);
    assert!(by_file(&alone, &new) && !by_directory(&alone, &new), "clients disagree");

    let node = Node::new(DEBIAN, "rotation: {removalGrace: 0s}");
    node.set_source(&[&old]);
    apply(&node, 0);
    node.set_source(&[&new]);
    apply(&node, 0);
    assert_right(&node, &[&new]);
    assert!(!node.clients_trust(&old));
}

/// Java's key store keeps a removed CA, also after `--fresh` (facts A.3).
#[test]
fn java_keeps_what_was_removed() {
    let ca = Ca::new("Corp Root");
    let java_has = |node: &Node, alias: &str| {
        let list = ["keytool", "-list", "-keystore", "/etc/ssl/certs/java/cacerts", "-storepass", "changeit", "-alias"];
        let done = node.run(&[&list[..], &[alias]].concat());
        assert!(done.code == 0 || done.out.contains("does not exist"), "{done:?}");
        done.code == 0
    };

    let alone = Node::new(Kind::Bookworm, "");
    let path = put(&alone, "corp.crt", ca.pem());
    tool(&alone, &[]).expect(0);
    assert!(java_has(&alone, "debian:corp.pem"));
    fs::remove_file(alone.path(&path)).unwrap();
    tool(&alone, &["--fresh"]).expect(0);
    assert!(!alone.clients_trust(&ca));
    assert!(java_has(&alone, "debian:corp.pem"), "Java still trusts what nobody else does");

    let node = Node::new(Kind::Bookworm, "rotation: {removalGrace: 0s}");
    let alias = format!("debian:nodetrust-{}.pem", ca.fp16());
    node.set_source(&[&ca]);
    apply(&node, 0);
    assert!(java_has(&node, &alias));
    node.set_source(&[&Ca::new("Another")]);
    apply(&node, 0);
    assert!(!java_has(&node, &alias), "Java must not trust a removed anchor");
    assert_right(&node, &[]);
}

/// Of two files with one base name only one gets a link, the other one at the next run.
#[test]
fn one_name_in_two_directories() {
    let (one, two) = (Ca::new("One"), Ca::new("Two"));

    let alone = Node::new(DEBIAN, "");
    put(&alone, "x/ca.crt", one.pem());
    put(&alone, "y/ca.crt", two.pem());
    for _ in 0..2 {
        let done = tool(&alone, &[]).expect(0);
        assert!(done.out.contains("2 added"), "{}", done.out);
    }
    assert!(by_file(&alone, &one) && by_file(&alone, &two));
    assert!(by_directory(&alone, &one) != by_directory(&alone, &two), "only one has a link");

    let node = Node::new(DEBIAN, "");
    let second = node.beside("sources/second");
    fs::create_dir_all(&second).unwrap();
    let text = fs::read_to_string(&node.config).unwrap();
    fs::write(&node.config, format!("{text}- {{name: second, path: {}}}\n", second.display())).unwrap();
    fs::write(node.source.join("ca.crt"), one.pem()).unwrap();
    fs::write(second.join("ca.crt"), two.pem()).unwrap();
    apply(&node, 0);
    assert_right(&node, &[&one, &two]);
}

/// With one broken file no program with OpenSSL can load the bundle; exit code 0 (facts 0.5).
#[test]
fn one_broken_file_breaks_the_bundle() {
    let (good, broken, ours) = (Ca::new("Good"), Ca::new("Broken"), Ca::new("Ours"));

    let alone = Node::new(DEBIAN, "");
    assert!(python_loads(&alone));
    put(&alone, "a-good.crt", good.pem());
    put(&alone, "b-broken.crt", truncated(&broken));
    put(&alone, "c-garbage.crt", "no certificate at all\n");
    tool(&alone, &[]).expect(0);
    assert!(!python_loads(&alone) && !by_file(&alone, &good), "the whole bundle is lost to OpenSSL");

    let node = Node::new(DEBIAN, "");
    put(&node, "c-garbage.crt", "no certificate at all\n");
    let path = put(&node, "b-broken.crt", truncated(&broken));
    let before = bundle_bytes(&node);
    node.set_source(&[&ours]);
    for _ in 0..3 {
        let report = apply(&node, 1);
        assert_problem(&report, "held", &[&path, "mend", "update-ca-certificates"]);
        assert_eq!(bundle_bytes(&node), before, "the bundle must stay as it was");
    }
    node.nodetrust(&["status"]).expect(2);
    fs::remove_file(node.path(&path)).unwrap();
    apply(&node, 0);
    assert_right(&node, &[&ours]);

    // Somebody has run the tool already, so nothing can get worse. The bundle is reported as broken until the file is repaired.
    alone.set_source(&[&ours]);
    let report = apply(&alone, 2);
    assert_problem(&report, "foreign-broken", &["b-broken.crt", "mend"]);
    assert!(alone.trusts(&ours), "for those that still read it");
    put(&alone, "b-broken.crt", broken.pem());
    apply(&alone, 0);
    assert_right(&alone, &[&ours, &good, &broken]);
}

/// The same file in a source: the broken block is rejected by name, and the good certificates are trusted.
#[test]
fn a_broken_block_in_a_source() {
    for kind in [DEBIAN, Kind::Rhelish] {
        let (good, broken) = (Ca::new("Good"), Ca::new("Broken"));
        let node = Node::new(kind, "");
        fs::write(node.source.join("good.crt"), good.pem()).unwrap();
        fs::write(node.source.join("broken.crt"), truncated(&broken)).unwrap();
        let report = apply(&node, 2);
        let rejections = report["sources"][0]["rejections"].as_array().unwrap();
        assert_eq!(rejections.len(), 1);
        assert!(rejections[0]["file"].as_str().unwrap().ends_with("broken.crt"));
        assert_right(&node, &[&good]);
        assert!(python_loads(&node));
    }
}

/// Without `--fresh` the links of a removed file stay and lead nowhere.
#[test]
fn removed_without_its_links() {
    let (kept, gone) = (Ca::new("Kept"), Ca::new("Gone"));
    let dangling = |node: &Node| {
        let links = fs::read_dir(node.path("/etc/ssl/certs")).unwrap().flatten();
        let names = links.filter(|link| {
            let inside = fs::read_link(link.path()).ok().map(|target| node.path("/etc/ssl/certs").join(target));
            inside.is_some_and(|target| {
                let target = target.strip_prefix(&node.root).map_or_else(
                    |_| node.path(&target.to_string_lossy()), // an absolute target lies in the node
                    |_| target.clone(),
                );
                target.symlink_metadata().is_err()
            })
        });
        names.count()
    };

    let alone = Node::new(DEBIAN, "");
    assert_eq!(dangling(&alone), 0);
    let path = put(&alone, "corp.crt", gone.pem());
    tool(&alone, &[]).expect(0);
    fs::remove_file(alone.path(&path)).unwrap();
    let done = tool(&alone, &[]).expect(0);
    assert!(done.out.contains("0 removed"), "{}", done.out);
    assert!(!by_file(&alone, &gone));
    assert!(dangling(&alone) > 0);

    let node = Node::new(DEBIAN, "rotation: {removalGrace: 0s}");
    node.set_source(&[&kept, &gone]);
    apply(&node, 0);
    node.set_source(&[&kept]);
    apply(&node, 0);
    assert_right(&node, &[&kept]);
    assert!(!node.clients_trust(&gone));
    assert_eq!(dangling(&node), 0);
}

/// A private key alone fails the first run; the second run copies it into the world-readable bundle, exit code 0 (facts 0.4).
#[test]
fn a_private_key_leaks_at_the_second_run() {
    let (corp, ours) = (Ca::new("Corp"), Ca::new("Ours"));
    let key = corp.key_pem();

    let alone = Node::new(DEBIAN, "");
    put(&alone, "corp-key.crt", &key);
    tool(&alone, &[]).expect(1);
    assert!(!leaked(&alone, &key));
    tool(&alone, &[]).expect(0);
    assert!(leaked(&alone, &key), "now everyone can read it");

    never_leaks(&key, &ours, &[]);

    // The key has leaked already: it is reported at once, and the bundle is cleaned as soon as the file is gone.
    alone.set_source(&[&ours]);
    let report = apply(&alone, 1);
    assert_problem(&report, "bundle-private-key", &["corp-key.crt", "replace the key"]);
    fs::remove_file(alone.path(&format!("{}/corp-key.crt", alone.kind.anchors_dir()))).unwrap();
    apply(&alone, 0);
    assert!(!leaked(&alone, &key));
    assert_right(&alone, &[&ours]);
}

/// A certificate with its key leaks the key at the first run.
#[test]
fn a_certificate_with_its_key_leaks_it() {
    let (corp, ours) = (Ca::new("Corp"), Ca::new("Ours"));
    let both = corp.pem() + &corp.key_pem();

    let alone = Node::new(DEBIAN, "");
    put(&alone, "corp.crt", &both);
    tool(&alone, &[]).expect(0);
    assert!(leaked(&alone, &corp.key_pem()));

    never_leaks(&both, &ours, &[]);

    // p11-kit takes the certificate and ignores the key, so nothing is held back.
    let node = Node::new(Kind::Rhelish, "");
    put(&node, "corp.crt", &both);
    node.set_source(&[&ours]);
    apply(&node, 0);
    assert!(!leaked(&node, &corp.key_pem()));
    assert_right(&node, &[&ours, &corp]);
}

/// The secret part of a PEM text is readable in the bundle.
fn leaked(node: &Node, pem: &str) -> bool {
    let secret = pem.lines().skip_while(|line| !line.contains("PRIVATE KEY")).nth(1).unwrap();
    String::from_utf8_lossy(&bundle_bytes(node)).contains(secret)
}

/// A foreign file with a key holds the run and is reported; no output and no file gets the key. Without the file the node converges.
#[track_caller]
fn never_leaks(content: &str, ours: &Ca, trusted: &[&Ca]) {
    let node = Node::new(DEBIAN, "");
    let path = put(&node, "secret.crt", content);
    let before = bundle_bytes(&node);
    node.set_source(&[ours]);
    let secret = content.lines().skip_while(|line| !line.contains("PRIVATE KEY")).nth(1).unwrap();
    for command in ["plan", "apply", "apply", "apply", "status", "uninstall", "apply"] {
        let done = node.nodetrust(&["-vvv", command]);
        assert!(!done.out.contains(secret) && !done.err.contains(secret), "{command} prints the key");
        assert!(!leaked(&node, content), "{command} leaks the key");
        assert_eq!(bundle_bytes(&node), before);
    }
    let ledger = fs::read_to_string(node.path("/var/lib/nodetrust/ledger.json")).unwrap();
    assert!(!ledger.contains(secret));
    let report = apply(&node, 1);
    assert_problem(&report, "held", &[&path, "private key", "take the key out"]);
    assert_no_leftovers(&node);
    fs::remove_file(node.path(&path)).unwrap();
    apply(&node, 0);
    assert_right(&node, &[&[ours], trusted].concat());
}

/// Without its trust module p11-kit writes empty bundles, exit code 0; with both generations of the script.
#[test]
fn p11_kit_without_its_module_empties_everything() {
    let module = "/usr/lib/x86_64-linux-gnu/pkcs11/p11-kit-trust.so";
    let its_configuration = "/usr/share/p11-kit/modules/p11-kit-trust.module";
    for (generation, module) in
        [(ScriptGeneration::Old, module), (ScriptGeneration::New, module), (ScriptGeneration::New, its_configuration)]
    {
        let ours = Ca::new("Ours");
        let away = |node: &Node| fs::rename(node.path(module), node.path("/tmp/module")).unwrap();

        let alone = generation.node("");
        assert!(alone.bundle().len() > 100);
        away(&alone);
        tool(&alone, &[]).expect(0);
        assert_eq!(alone.bundle().len(), 0, "everybody's trust is gone");

        let node = generation.node("");
        if generation == ScriptGeneration::New {
            tool(&node, &[]).expect(0); // the script makes its links
        }
        let before = (sorted(&node), node.tree(&["/etc/pki"]));
        away(&node);
        node.set_source(&[&ours]);
        let report = apply(&node, 1);
        assert_problem(&report, "foreign-lost", &["update-ca-trust", "p11-kit-trust"]);
        assert_eq!(sorted(&node), before.0);
        let mut after = node.tree(&["/etc/pki"]);
        after.remove(&format!("{}/nodetrust-{}.pem", node.kind.anchors_dir(), ours.fp16()));
        assert!(after == before.1, "{generation:?}: what the tool writes is not as it was");
        assert_no_leftovers(&node);

        fs::rename(node.path("/tmp/module"), node.path(module)).unwrap();
        apply(&node, 0);
        assert_right(&node, &[&ours]);
    }
}

/// The two generations of RHEL's script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ScriptGeneration {
    Old,
    New,
}

impl ScriptGeneration {
    /// A node with it.
    pub(super) fn node(self, more: &str) -> Node {
        let node = Node::new(Kind::Rhelish, more);
        if self == Self::New {
            let script = fs::read(node.path("/usr/share/nodetrust-test/update-ca-trust.new")).unwrap();
            fs::write(node.path("/usr/bin/update-ca-trust"), script).unwrap(); // writing keeps the mode
        }
        node
    }
}

/// On Debian an emptied or lost list of the distribution's CAs removes all of them, exit code 0.
#[test]
fn an_emptied_list_drops_the_distributions_roots() {
    let conf = "/etc/ca-certificates.conf";
    for kind in [Kind::Bookworm, Kind::Trixie] {
        let ours = Ca::new("Ours");
        let alone = Node::new(kind, "");
        fs::write(alone.path(conf), "").unwrap();
        put(&alone, "corp.crt", ours.pem());
        tool(&alone, &[]).expect(0);
        assert_eq!(alone.bundle(), [ours.sha256()], "everything else is gone");

        let node = Node::new(kind, "");
        let list = fs::read(node.path(conf)).unwrap();
        let before = (bundle_bytes(&node), node.tree(&["/etc/ssl"]));
        node.set_source(&[&ours]);
        for emptied in [true, false] {
            if emptied {
                fs::write(node.path(conf), "").unwrap();
            } else {
                fs::remove_file(node.path(conf)).unwrap();
            }
            let report = apply(&node, 1);
            assert_problem(&report, "foreign-lost", &["update-ca-certificates", conf]);
            assert_eq!(bundle_bytes(&node), before.0);
            assert!(node.tree(&["/etc/ssl"]) == before.1, "the directory of links is not as it was");
        }
        fs::write(node.path(conf), &list).unwrap();
        apply(&node, 0);
        assert_right(&node, &[&ours]);
    }
}

/// A CA that the administrator has deselected leaves; nodetrust does not hold it.
#[test]
fn a_deselected_root_leaves() {
    let node = Node::new(DEBIAN, "");
    let ours = Ca::new("Ours");
    node.set_source(&[&ours]);
    let conf = node.path("/etc/ca-certificates.conf");
    let name = "mozilla/ISRG_Root_X1.crt";
    let list = fs::read_to_string(&conf).unwrap();
    assert!(list.contains(name));
    let before = node.bundle().len();
    fs::write(&conf, list.replace(name, &format!("!{name}"))).unwrap();
    apply(&node, 0);
    assert_eq!(node.bundle().len(), before, "one less, and ours");
    let pem = fs::read_to_string(node.path("/usr/share/ca-certificates/mozilla/ISRG_Root_X1.crt")).unwrap();
    assert!(!String::from_utf8_lossy(&bundle_bytes(&node)).contains(pem.lines().nth(3).unwrap()));
    assert_right(&node, &[&ours]);
}

/// Certificates that are no CA for servers never reach the bundle on RHEL, without a message. On Debian the same files do.
#[test]
fn what_is_no_ca_for_servers() {
    let leaf = Ca::with("Leaf", |params| params.is_ca = IsCa::ExplicitNoCa);
    let none = Ca::with("Without basicConstraints", |params| params.is_ca = IsCa::NoCa);
    let mail = Ca::with("For mail", |params| {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::EmailProtection];
    });
    let good = Ca::new("Good");
    let odd = [&leaf, &none, &mail];

    let alone = Node::new(Kind::Rhelish, "");
    for (n, ca) in odd.iter().enumerate() {
        put(&alone, &format!("odd-{n}.pem"), ca.pem());
    }
    let done = tool(&alone, &[]).expect(0);
    assert_eq!((done.out, done.err), (String::new(), String::new()), "not a word");
    assert!(odd.iter().all(|ca| !alone.trusts(ca)));

    let node = Node::new(Kind::Rhelish, "");
    node.set_source(&[&leaf, &none, &mail, &good]);
    let report = apply(&node, 2);
    let rejections = report["sources"][0]["rejections"].as_array().unwrap();
    assert_eq!(rejections.len(), 3);
    for (rejection, ca) in rejections.iter().zip(odd) {
        assert_eq!(rejection["reason"], "not-ca");
        assert!(rejection.to_string().contains(&ca.fp16()), "{rejection} names no certificate");
    }
    assert_right(&node, &[&good]);

    // `notCa: accept` asks for them all the same: they are reported, and nothing is left to do.
    let node = Node::new(Kind::Rhelish, "policy: {notCa: accept}");
    node.set_source(&[&leaf, &none, &mail, &good]);
    let report = apply(&node, 1);
    let problems = report["problems"].as_array().unwrap();
    assert_eq!(problems.len(), odd.len(), "{problems:#?}");
    assert!(problems.iter().all(|problem| problem["next"].to_string().contains("give the CA that issued it")));
    assert!(node.trusts(&good) && report["pending"].as_array().unwrap().is_empty(), "{report:#}");
    node.set_source(&[&good]);
    apply(&node, 0);
    assert_right(&node, &[&good]);

    let node = Node::new(DEBIAN, "");
    node.set_source(&[&leaf, &none, &mail, &good]);
    let report = apply(&node, 0);
    assert!(odd.iter().all(|ca| node.trusts(ca)));
    for ca in odd {
        let row = report["anchors"].as_array().unwrap().iter().find(|row| row["sha256"] == ca.sha256().as_str());
        let warnings = row.unwrap()["warnings"].to_string();
        assert!(warnings.contains("silently leave it out"), "{warnings}");
    }
}
