//! The whole story on the stores over p11-kit, over each generation of their scripts, with the rights of the manifest and no others:
//! install, rotate, grace, drift, hostile foreign files, a distribution that distrusts roots of its own, uninstall.
//!
//! p11-kit and its trust module are real, and so are the distribution's roots in the form in which they are shipped; the scripts that
//! run p11-kit are simulated (scripts/node-roots).

use std::{collections::BTreeSet, fs, os::unix::fs::PermissionsExt, path::PathBuf, time::Duration};

use nodetrust_core::certificate::fingerprint::Fingerprint;
use serde_json::Value;

use crate::support::{
    node::{Done, Kind, Node},
    pki::Ca,
    rights, wait_for,
};

/// A store over p11-kit, with a generation of its script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Store {
    /// EL8, EL9 of 2023, Azure Linux 3.
    RhelOld,
    /// Fedora 37 to 41: `/etc/ssl/certs` is p11-kit's own directory, into which the script makes two links.
    RhelMiddle,
    /// Later Fedora, RHEL 10.
    RhelNew,
    Suse,
}

impl Store {
    fn node(self, more: &str) -> Node {
        let kind = if self == Self::Suse { Kind::Suselike } else { Kind::Rhelish };
        let node = Node::new(kind, more);
        let script = match self {
            Self::RhelOld | Self::Suse => return node,
            Self::RhelMiddle => "middle",
            Self::RhelNew => "new",
        };
        let script = fs::read(node.path(&format!("/usr/share/nodetrust-test/update-ca-trust.{script}"))).unwrap();
        fs::write(node.path("/usr/bin/update-ca-trust"), script).unwrap(); // writing keeps the mode
        if self == Self::RhelMiddle {
            let to = "/etc/pki/ca-trust/extracted/pem/directory-hash";
            node.run(&["ln", "-sfT", to, "/etc/ssl/certs"]).expect(0);
        }
        self.tool(&node).expect(0);
        node
    }

    /// Runs the distribution's tool, as a package's scripts do.
    fn tool(self, node: &Node) -> Done {
        node.run(&[node.kind.tool()])
    }

    /// The distribution's roots.
    fn shipped(self) -> &'static str {
        match self {
            Self::Suse => "/usr/share/pki/trust/ca-certificates-mozilla.trust.p11-kit",
            _ => "/usr/share/pki/ca-trust-source/ca-bundle.trust.p11-kit",
        }
    }

    /// What the tool writes.
    fn outputs(self) -> &'static [&'static str] {
        if self == Self::Suse {
            &["/var/lib/ca-certificates"]
        } else {
            &["/etc/pki/ca-trust/extracted", "/etc/pki/tls"]
        }
    }
}

fn sorted(node: &Node) -> BTreeSet<String> {
    let bundle = node.bundle();
    let set: BTreeSet<String> = bundle.iter().cloned().collect();
    assert_eq!(set.len(), bundle.len(), "certificates stand in the bundle twice");
    set
}

fn fingerprints(pem: &str) -> BTreeSet<String> {
    let blocks = nodetrust_core::certificate::pem::scan(pem.as_bytes()).blocks;
    blocks.iter().map(|block| Fingerprint::of_der(&block.der).to_string()).collect()
}

/// The certificates that the root keeps for its tests: `distrusted`, `email` or `neutral`.
fn special(node: &Node, kind: &str) -> BTreeSet<String> {
    fingerprints(&fs::read_to_string(node.path(&format!("/usr/share/nodetrust-test/{kind}.pem"))).unwrap())
}

fn apply(node: &Node, code: i32) -> Value {
    node.nodetrust(&["-o", "json", "apply"]).expect(code).json()
}

/// Runs `apply` and checks that it reports no problem.
#[track_caller]
fn applies(node: &Node) {
    let report = apply(node, 0);
    assert_eq!(report["problems"], Value::Array(Vec::new()), "{report:#}");
    node.nodetrust(&["plan"]).expect(0);
    node.nodetrust(&["status"]).expect(0);
}

/// The first line of each object in a `.p11-kit` file.
const HEADER: &str = "[p11-kit-object-v1]";

/// Rewrites the shipped file, which has an object for each root, and returns the fingerprints of those roots that were changed.
fn ship(node: &Node, store: Store, count: usize, change: impl Fn(&str) -> String) -> BTreeSet<String> {
    let path = node.path(store.shipped());
    let text = fs::read_to_string(&path).unwrap();
    let bundle = sorted(node);
    let mut changed = BTreeSet::new();
    let mut new = String::new();
    for (n, object) in text.split(HEADER).enumerate() {
        let prints = fingerprints(object);
        let object = if changed.len() < count && prints.len() == 1 && prints.is_subset(&bundle) {
            changed.extend(prints);
            change(object)
        } else {
            object.to_owned()
        };
        if n > 0 && !object.is_empty() {
            new.push_str(HEADER);
        }
        new.push_str(&object);
    }
    let temp = path.with_extension("new");
    fs::write(&temp, new).unwrap();
    fs::rename(temp, path).unwrap();
    assert_eq!(changed.len(), count);
    changed
}

/// Issuer and serial number of the certificate in an object, as the attributes of a p11-kit object.
fn names(node: &Node, object: &str) -> String {
    node.write("/tmp/root.pem", object);
    let show = |what: &str| {
        // The DER of the whole element, by openssl's own parser.
        let script = format!(
            "openssl x509 -in /tmp/root.pem -outform DER -out /tmp/root.der; openssl asn1parse -inform DER -in /tmp/root.der | {what}"
        );
        node.run(&["sh", "-ec", &script]).expect(0).out.trim().to_owned()
    };
    // Version, serial number, algorithm and issuer are the elements of depth 2.
    let offsets = show("grep 'd=2 ' | sed 's/^ *\\([0-9]*\\):.*hl=\\([0-9]*\\) *l= *\\([0-9]*\\) .*/\\1 \\2 \\3/'");
    let rows: Vec<Vec<usize>> =
        offsets.lines().map(|line| line.split(' ').map(|word| word.parse().unwrap()).collect()).collect();
    let der = fs::read(node.path("/tmp/root.der")).unwrap();
    let quoted = |row: &[usize]| -> String {
        der[row[0]..row[0] + row[1] + row[2]].iter().map(|byte| format!("%{byte:02x}")).collect()
    };
    let first = usize::from(der[rows[0][0]] == 0xa0);
    format!("issuer: \"{}\"\nserial-number: \"{}\"\n", quoted(&rows[first + 2]), quoted(&rows[first]))
}

fn story(store: Store) {
    let node = store.node("rotation: {removalGrace: 1h}");
    let (old, new, third) = (Ca::new("Corp Root 2021"), Ca::new("Corp Root 2026"), Ca::new("Inspection CA"));
    let shipped = sorted(&node);
    assert!(shipped.len() > 100, "{} certificates shipped", shipped.len());
    for kind in ["distrusted", "email", "neutral"] {
        assert!(special(&node, kind).is_disjoint(&shipped), "{kind} roots are no anchors for servers");
    }
    let tree = node.tree(store.outputs());

    // Install.
    node.set_source(&[&old]);
    applies(&node);
    assert!(node.clients_trust(&old));
    let installed = node.footprint();
    applies(&node);
    let without_lock = |mut footprint: std::collections::BTreeMap<String, String>| {
        footprint.remove("/run/nodetrust.lock"); // holds the time of the last cycle
        footprint
    };
    assert_eq!(without_lock(node.footprint()), without_lock(installed), "a second apply changes something");

    // Rotate, with a grace time.
    node.set_source(&[&new]);
    applies(&node);
    assert!(node.clients_trust(&old) && node.clients_trust(&new), "both are trusted in the grace time");

    // Drift: one of our files, the bundle, a directory of links.
    fs::remove_file(node.anchor_file(&new)).unwrap();
    store.tool(&node).expect(0);
    assert!(!node.trusts(&new));
    applies(&node);
    fs::write(node.path(node.kind.bundle()), new.pem()).unwrap();
    applies(&node);
    if node.path(node.kind.hash_dir()).join("..").join("openssl").exists() || store == Store::RhelMiddle {
        let links = "rm -f $(readlink -f \"$1\")/*.[0-9]";
        node.run(&["sh", "-ec", links, "sh", node.kind.hash_dir()]).expect(0);
    }
    applies(&node);
    assert!(node.clients_trust(&old) && node.clients_trust(&new));
    let all = sorted(&node);
    assert_eq!(all.len(), shipped.len() + 2);

    // Hostile foreign files: p11-kit ignores what it cannot use.
    let stranger = hostile_files(&node);
    node.set_source(&[&new, &third]);
    apply(&node, 0);
    assert!(node.clients_trust(&third));
    assert!(sorted(&node).is_superset(&all));
    node.nodetrust(&["plan"]).expect(0);

    let gone = distrust(&node, store, &[&old, &new, &third]);

    // The grace time ends.
    node.configure("rotation: {removalGrace: 0s}");
    apply(&node, 0);
    assert!(!node.clients_trust(&old) && node.clients_trust(&new) && node.clients_trust(&third));

    // Uninstall, just after the distribution has distrusted one more root.
    let more = ship(&node, store, 1, |object| object.replace("trusted: true", "x-distrusted: true"));
    node.nodetrust(&["uninstall"]).expect(0);
    let mut left = &(&shipped - &gone) - &more;
    left.insert(stranger.sha256());
    let now = sorted(&node);
    let (back, lost): (Vec<_>, Vec<_>) = (now.difference(&left).collect(), left.difference(&now).collect());
    assert!(back.is_empty() && lost.is_empty(), "back: {back:?}, lost: {lost:?}");
    let ours = |path: &&String| path.contains("nodetrust") && !path.starts_with("/tmp");
    assert_eq!(node.footprint().keys().find(ours), None);
    let modes = |tree: &std::collections::BTreeMap<String, String>| -> Vec<(String, String)> {
        let directories = tree.iter().filter(|(_, what)| what.starts_with("directory"));
        directories.map(|(path, what)| (path.clone(), what.clone())).collect()
    };
    assert_eq!(
        modes(&node.tree(store.outputs())),
        modes(&tree),
        "no directory has another mode than the tool gives it"
    );
}

/// Puts them into the anchor directory. Returns the one CA that p11-kit takes from them.
fn hostile_files(node: &Node) -> Ca {
    let put = |name: &str, content: &[u8]| {
        node.write(&format!("{}/{name}", node.kind.anchors_dir()), content);
    };
    let (stranger, key) = (Ca::new("Stranger"), Ca::new("Has a key"));
    put("empty.pem", b"");
    put("garbage.pem", &[0xff; 5000]);
    put("cut.pem", &stranger.pem().as_bytes()[..300]);
    put("broken.pem", stranger.pem().replace("MII", "M!I").as_bytes());
    put("key.pem", format!("{}{}", key.pem(), key.key_pem()).as_bytes());
    put("cut.p11-kit", b"[p11-kit-object-v1]\ntrusted: true\n-----BEGIN CERTIFICATE-----\nMIIB\n");
    let dir = node.path(node.kind.anchors_dir());
    std::os::unix::fs::symlink("loop.pem", dir.join("loop.pem")).unwrap();
    std::os::unix::fs::symlink("/nowhere", dir.join("dangling.pem")).unwrap();
    fs::create_dir(dir.join("folder.pem")).unwrap();
    key
}

/// The distribution distrusts roots of its own, in every form in which it may say so; each leaves for good, holds nothing back and is
/// no problem. Returns those that have left.
fn distrust(node: &Node, store: Store, ours: &[&Ca]) -> BTreeSet<String> {
    let source_dir = PathBuf::from(store.shipped()).parent().unwrap().to_str().unwrap().to_owned();
    let mut gone = BTreeSet::new();
    let check = |what: &str, left: &BTreeSet<String>| {
        let expected = &sorted(node) - left;
        let report = apply(node, 0);
        assert_eq!(report["problems"], Value::Array(Vec::new()), "{what}: {report:#}");
        let now = sorted(node);
        assert!(now.is_disjoint(left), "{what}: a root that the distribution distrusts is back");
        assert_eq!(now, expected, "{what}");
        for ca in ours {
            assert!(node.trusts(ca), "{what}");
        }
        node.nodetrust(&["plan"]).expect(0);
        node.nodetrust(&["status"]).expect(0);
    };

    // The scripts of a package upgrade run the tool.
    let left = ship(node, store, 2, |object| object.replace("trusted: true", "x-distrusted: true"));
    store.tool(node).expect(0);
    check("x-distrusted", &left);
    gone.extend(left);
    let left = ship(node, store, 1, |object| object.replace("trusted: true\n", ""));
    store.tool(node).expect(0);
    check("no attribute", &left);
    gone.extend(left);
    // The file is removed without a run of the tool; our next change runs it.
    let more = Ca::new("More");
    let left = ship(node, store, 1, |_| String::new());
    node.write(&format!("{}/more.pem", node.kind.anchors_dir()), more.pem());
    node.run(&["rm", &format!("{}/more.pem", node.kind.anchors_dir())]).expect(0);
    fs::remove_file(node.anchor_file(ours[1])).unwrap();
    check_after_our_run(node, &left, &check);
    gone.extend(left);

    // A stapled extension limits the root to e-mail.
    let left = ship(node, store, 1, |object| {
        node.write("/tmp/root.pem", object);
        let key = node.run(&["openssl", "x509", "-in", "/tmp/root.pem", "-noout", "-pubkey"]).expect(0).out;
        let value = "%30%13%06%03%55%1d%25%04%0c%30%0a%06%08%2b%06%01%05%05%07%03%04";
        format!(
            "{object}\n[p11-kit-object-v1]\nclass: x-certificate-extension\nobject-id: 2.5.29.37\nvalue: \"{value}\"\n{key}\n"
        )
    });
    store.tool(node).expect(0);
    check("for e-mail", &left);
    gone.extend(left);

    // A file of its own distrusts the root by issuer and serial number, before our run of the tool.
    let mut object = String::new();
    let left = {
        let text = fs::read_to_string(node.path(store.shipped())).unwrap();
        let bundle = sorted(node);
        let found = text.split(HEADER).find(|object| {
            let prints = fingerprints(object);
            prints.len() == 1 && prints.is_subset(&bundle)
        });
        object.push_str(found.unwrap());
        fingerprints(&object)
    };
    let distrust = format!(
        "[p11-kit-object-v1]\nclass: certificate\ncertificate-type: x-509\nx-distrusted: true\n{}",
        names(node, &object)
    );
    node.write(&format!("{source_dir}/distrust.p11-kit"), distrust);
    store.tool(node).expect(0);
    check("by issuer and serial number", &left);
    gone.extend(left);

    // The administrator puts a certificate into the blocklist.
    let anchors = node.kind.anchors_dir();
    let blocklist = anchors.replace("anchors", "blocklist");
    let shipped = fingerprints(&fs::read_to_string(node.path(store.shipped())).unwrap());
    let text = fs::read_to_string(node.path(node.kind.bundle())).unwrap();
    let block = text.split_inclusive("-----END CERTIFICATE-----\n").find(|block| {
        let prints = fingerprints(block);
        prints.len() == 1 && prints.is_subset(&shipped)
    });
    let left = fingerprints(block.unwrap());
    node.write(&format!("{blocklist}/x.pem"), block.unwrap());
    store.tool(node).expect(0);
    check("blocklist", &left);
    gone.extend(left);
    gone
}

/// The same as `check`, for our own run of the tool.
fn check_after_our_run(node: &Node, left: &BTreeSet<String>, check: &impl Fn(&str, &BTreeSet<String>)) {
    assert!(sorted(node).is_superset(left), "the tool has not run yet");
    check("gone from the file", left);
}

#[test]
fn rhel_of_the_old_generation() {
    story(Store::RhelOld);
}

#[test]
fn rhel_of_the_middle_generation() {
    story(Store::RhelMiddle);
}

#[test]
fn rhel_of_the_new_generation() {
    story(Store::RhelNew);
}

#[test]
fn suse() {
    story(Store::Suse);
}

const STORES: [Store; 4] = [Store::RhelOld, Store::RhelMiddle, Store::RhelNew, Store::Suse];

/// "Never worse" where p11-kit leaves directories with mode 0555: a run that loses roots is undone to the byte.
#[test]
fn a_run_that_loses_roots_is_undone_in_directories_without_the_right_to_write() {
    for store in STORES {
        let node = store.node("");
        let (before, bundle) = (node.tree(store.outputs()), sorted(&node));
        // p11-kit loses half of the certificates and exits 0.
        fs::rename(node.path("/usr/bin/trust"), node.path("/usr/bin/trust.real")).unwrap();
        let wrapper = "#!/bin/sh\nfor last; do :; done\n/usr/bin/trust.real \"$@\" || exit\n[ ! -f \"$last\" ] || \
                       case $last in *.pem) t=$(head -c 60000 \"$last\"); rm -f \"$last\"; echo \"$t\" | sed '/-END/!{$d}' >\"$last\" ;; esac\n\
                       [ ! -d \"$last\" ] || { chmod 755 \"$last\"; rm -f $(ls -d \"$last\"/*.pem | head -n 60); chmod 555 \"$last\"; }\n";
        for name in ["trust", "p11-kit"] {
            let path = format!("/usr/bin/{name}");
            let _ = fs::rename(node.path(&path), node.path(&format!("{path}.real")));
            node.write(&path, wrapper);
            fs::set_permissions(node.path(&path), fs::Permissions::from_mode(0o755)).unwrap();
        }
        let ours = Ca::new("Corp Root");
        node.set_source(&[&ours]);
        let report = apply(&node, 1);
        let problem = &report["problems"][0];
        let text = problem["text"].as_str().unwrap();
        assert!(problem["kind"] == "foreign-lost" || problem["kind"] == "bundle-broken", "{store:?}: {report:#}");
        assert!(!text.contains("putting"), "{store:?}: {text}");
        assert_eq!(sorted(&node), bundle, "{store:?}");
        let after = node.tree(store.outputs());
        let changed: Vec<_> = before.iter().filter(|(path, what)| after.get(*path) != Some(what)).collect();
        assert!(changed.is_empty(), "{store:?}: what the tool writes is not as it was: {changed:#?}");
    }
}

/// Why DAC_OVERRIDE is among the rights: without it, Fedora's script of the middle generation fails half-way.
#[test]
fn without_dac_override_the_middle_generation_fails() {
    let ours = Ca::new("Corp Root");
    let link = "/etc/ssl/certs/ca-certificates.crt"; // Go reads this file first
    for (capabilities, code) in [(vec!["SYS_CHROOT".to_owned()], 1), (rights::capabilities(), 0)] {
        let node = Store::RhelMiddle.node("");
        node.set_source(&[&ours]);
        let done = Done::new(node.command_with(&capabilities, &["apply"]).output().unwrap());
        done.expect(code);
        assert_eq!(node.run(&["test", "-s", link]).code, code, "{capabilities:?}");
    }
}

/// SUSE's directory for OpenSSL holds TRUSTED CERTIFICATE, which counts as a link; nothing is repaired over and over.
#[test]
fn an_agent_on_suse_becomes_ready_and_rests() {
    let node = Node::new(Kind::Suselike, "");
    let tool = "/usr/sbin/update-ca-certificates";
    fs::rename(node.path(tool), node.path("/usr/sbin/real")).unwrap();
    node.write(tool, "#!/bin/sh\necho run >>/tmp/runs\nexec /usr/sbin/real \"$@\"\n");
    fs::set_permissions(node.path(tool), fs::Permissions::from_mode(0o755)).unwrap();
    let runs = || fs::read_to_string(node.path("/tmp/runs")).unwrap_or_default().lines().count();
    let (old, new) = (Ca::new("Corp Root 2021"), Ca::new("Corp Root 2026"));
    node.set_source(&[&old]);
    let limit = Duration::from_secs(120);
    let agent = node.agent("rotation: {removalGrace: 0s}\nresync: 2s\nsettle: 100ms");
    agent.wait_converged(&[&old], limit);
    wait_for("readiness", limit, || agent.get("/readyz").filter(|(code, _)| *code == 200));
    node.set_source(&[&new]);
    agent.wait_converged(&[&new], limit);
    let after_rotation = runs();
    // After several quiet cycles.
    let cycles = |agent: &crate::support::node::NodeAgent| {
        agent.metric("nodetrust_reconciles_total{trigger=\"resync\",outcome=\"unchanged\"}")
    };
    let before = cycles(&agent).unwrap_or(0.0);
    wait_for("quiet cycles", limit, || cycles(&agent).filter(|now| *now >= before + 3.0));
    assert_eq!(runs(), after_rotation, "the tool runs though nothing has changed");
    assert!(after_rotation <= 4, "{after_rotation} runs for an installation and a rotation");
    assert_eq!(agent.metric("nodetrust_drift_repaired_total{kind=\"link\"}").unwrap_or(0.0), 0.0);
    assert!(node.clients_trust(&new) && !node.clients_trust(&old));
}

/// A p11-kit that says nothing at all is not the will of the distribution.
#[test]
fn roots_that_p11_kit_has_not_read_are_not_taken_for_distrusted() {
    for store in [Store::RhelOld, Store::Suse] {
        let node = store.node("");
        let (one, two) = (Ca::new("One"), Ca::new("Two"));
        node.set_source(&[&one]);
        applies(&node);
        let bundle = sorted(&node);
        // The module does not read the directory of the distribution's roots.
        let module = fs::read_to_string(node.path("/usr/share/p11-kit/modules/p11-kit-trust.module")).unwrap();
        let blind = module.replace("/usr/share/pki/", "/usr/share/nowhere/");
        node.write("/usr/share/p11-kit/modules/p11-kit-trust.module", &blind);
        node.set_source(&[&one, &two]);
        let report = apply(&node, 1);
        assert_eq!(report["problems"][0]["kind"], "foreign-lost", "{store:?}: {report:#}");
        assert_eq!(sorted(&node), bundle, "{store:?}");
        node.write("/usr/share/p11-kit/modules/p11-kit-trust.module", &module);
        apply(&node, 0);
        assert!(node.clients_trust(&two) && sorted(&node).is_superset(&bundle), "{store:?}");
    }
}

/// A CA of ours that the distribution distrusts: it does not arrive, the reason is told, and the others are not held back.
#[test]
fn an_anchor_that_the_distribution_distrusts_is_named_and_holds_nothing_back() {
    for store in [Store::RhelOld, Store::Suse] {
        let node = store.node("");
        let (good, more) = (Ca::new("Good"), Ca::new("More"));
        let bundle = sorted(&node);
        let distrusted = fs::read(node.path("/usr/share/nodetrust-test/distrusted.pem")).unwrap();
        fs::write(node.source.join("public.crt"), distrusted).unwrap();
        node.set_source(&[&good, &more]);
        let report = apply(&node, 1);
        let problem = &report["problems"][0];
        assert_eq!(problem["kind"], "not-trusted", "{store:?}: {report:#}");
        assert!(problem["text"].as_str().unwrap().contains("distrusted by the distribution"), "{store:?}: {report:#}");
        assert!(problem["next"].as_str().unwrap().contains("trust list --filter=blocklist"), "{store:?}: {report:#}");
        assert!(node.clients_trust(&good) && node.clients_trust(&more), "{store:?}");
        assert!(sorted(&node).is_superset(&bundle), "{store:?}");
        fs::remove_file(node.source.join("public.crt")).unwrap();
        node.configure("rotation: {removalGrace: 0s}");
        apply(&node, 0);
    }
}
