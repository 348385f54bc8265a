//! Roots that are damaged, mixed up, forbidden, or unreadable for one program or for all: on real distribution roots with the
//! distributions' own tools, and for the runtime on booted nodes.

use std::{collections::BTreeMap, fs, path::PathBuf};

use nodetrust_core::{
    SelfSignature,
    certificate::{anchor::Anchor, fingerprint::Fingerprint, pem},
};
use rcgen::KeyIdMethod;
use serde_json::{Value, json};

use crate::support::{
    following::{FAST, LIMIT, assert_untrusted, starts, wait_two_cycles},
    machine::{Machine, MachineKind},
    node::{Kind, Node},
    pki::Ca,
    wait_for,
};

fn data(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "../tests/data", name].iter().collect()
}

fn der(text: &str) -> Vec<u8> {
    pem::scan(text.as_bytes()).blocks.remove(0).der
}

/// A root with one bit of its signature turned over, in PEM, and its fingerprint.
fn damaged(ca: &Ca) -> (String, String) {
    let mut der = der(&ca.pem());
    *der.last_mut().unwrap() ^= 1;
    assert_eq!(Anchor::from_der(&der).unwrap().self_signature(), SelfSignature::Wrong);
    (pem::encode(&der), Fingerprint::of_der(&der).to_string())
}

/// A screen without the places where its lines are broken.
fn on_one_line(screen: &str) -> String {
    screen.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn status(node: &Node) -> Value {
    node.nodetrust(&["-o", "json", "status"]).json()
}

fn states(status: &Value) -> BTreeMap<String, String> {
    let rows = status["anchors"].as_array().into_iter().flatten();
    rows.map(|row| (row["sha256"].as_str().unwrap().to_owned(), row["state"].as_str().unwrap().to_owned())).collect()
}

/// Whether the node's own OpenSSL verifies a server's certificate by the bundle; its error if it cannot load that.
fn openssl_verifies(node: &Node, leaf: &str) -> Result<bool, String> {
    node.write("/tmp/leaf.pem", leaf);
    let bundle = node.kind.bundle();
    let done = node.run(&["openssl", "verify", "-no-CAstore", "-no-CApath", "-CAfile", bundle, "/tmp/leaf.pem"]);
    if done.err.contains("Error loading file") { Err(done.err) } else { Ok(done.code == 0) }
}

/// Certificates that are no anchors by today's rules, and that an older version took.
fn refused() -> Vec<(String, Vec<u8>)> {
    let mut names: Vec<PathBuf> = fs::read_dir(data("refused")).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    let all = names.into_iter().map(|path| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        (name, der(&fs::read_to_string(path).unwrap()))
    });
    let refused: Vec<_> = all.filter(|(_, der)| Anchor::from_der(der).is_err()).collect();
    assert!(refused.iter().any(|(name, _)| name == "name-bad-utf8.pem"), "{refused:?}");
    refused
}

/// Puts it on the node as an older version left it: its file, a bundle with it, and a ledger that protects it in every way.
fn what_breaks_a_reader_is_taken_out(kind: Kind) {
    let refused = refused();
    for (state, silent) in [("desired", true), ("grace", false), ("desired", false)] {
        let node = Node::new(kind, "");
        let good = Ca::new("Good Root");
        node.set_source(&[&good]);
        node.nodetrust(&["apply"]).expect(0);
        let path = "/var/lib/nodetrust/ledger.json";
        let mut ledger: Value = serde_json::from_slice(&fs::read(node.path(path)).unwrap()).unwrap();
        let template = ledger["anchors"][good.sha256()].clone();
        let mut files = Vec::new();
        for (_, der) in &refused {
            let print = Fingerprint::of_der(der);
            let mut entry = template.clone();
            entry["state"] = json!(state);
            let lines = pem::encode(der);
            entry["der"] = json!(lines.lines().filter(|line| !line.starts_with('-')).collect::<String>());
            if state == "grace" {
                entry["left"] = json!({"wall": 1_900_000_000, "boottime": 0, "boot_id": "another"});
            }
            ledger["anchors"][print.to_string()] = entry;
            ledger["sources"]["org"]["anchors"].as_array_mut().unwrap().push(json!(print.to_string()));
            let name = format!("{}/nodetrust-{}.{}", kind.anchors_dir(), print.fp16(), kind.extension());
            node.write(&name, pem::encode(der));
            files.push(name);
        }
        node.write(path, serde_json::to_vec(&ledger).unwrap());
        node.run(&[kind.tool()]).expect(0);
        let (leaf, _) = good.leaf("registry.test");
        let broken = openssl_verifies(&node, &leaf);
        if kind == Kind::Bookworm {
            assert!(broken.is_err(), "the bundle should be broken before: {broken:?}");
        }
        if silent {
            fs::remove_file(node.source.join("ca.crt")).unwrap();
        }
        let done = node.nodetrust(&["apply"]).expect(if silent { 2 } else { 0 });
        assert!(on_one_line(&done.out).contains("would break readers of the bundle"), "{}", done.out);
        assert_eq!(openssl_verifies(&node, &leaf), Ok(true), "{state} {silent}");
        let status = status(&node);
        assert_eq!(states(&status), [(good.sha256(), "desired".to_owned())].into(), "{status:#}");
        for file in files {
            assert!(!node.path(&file).exists(), "{file}");
        }
        let ledger: Value = serde_json::from_slice(&fs::read(node.path(path)).unwrap()).unwrap();
        for (name, der) in &refused {
            let entry = &ledger["anchors"][Fingerprint::of_der(der).to_string()];
            assert!(entry.is_null() || entry["state"] == "retired", "{name}: {entry}");
        }
        node.nodetrust(&["plan"]).expect(0);
    }
}

#[test]
fn what_breaks_a_reader_is_taken_out_at_once_whatever_the_ledger_says() {
    what_breaks_a_reader_is_taken_out(Kind::Bookworm);
}

#[test]
fn what_breaks_a_reader_is_taken_out_at_once_on_rhelish() {
    what_breaks_a_reader_is_taken_out(Kind::Rhelish);
}

#[test]
fn a_damaged_copy_does_not_take_the_place_of_its_original() {
    let node = Node::new(Kind::Trixie, "");
    let (root, other) = (Ca::new("Corp Root"), Ca::new("Other Root"));
    let (copy, print) = damaged(&root);
    node.set_source(&[&root, &other]);
    node.nodetrust(&["apply"]).expect(0);
    fs::write(node.source.join("ca.crt"), copy.clone() + &other.pem()).unwrap();
    for _ in 0..2 {
        let done = node.nodetrust(&["apply"]).expect(2);
        assert!(done.out.contains("self-signature") && done.out.contains(&root.fp16()), "{}", done.out);
        assert!(node.clients_trust(&root) && node.clients_trust(&other));
        assert!(!node.bundle().contains(&print));
        let status = status(&node);
        let wanted = [root.sha256(), other.sha256()].map(|print| (print, "desired".to_owned()));
        assert_eq!(states(&status), wanted.into(), "{status:#}");
        assert_eq!(status["sources"][0]["status"], "ok");
        assert_eq!(status["sources"][0]["rejections"][0]["sha256"], print);
    }
    // The advice is to put both into the source if that is intended.
    fs::write(node.source.join("ca.crt"), copy + &other.pem() + &root.pem()).unwrap();
    node.nodetrust(&["apply"]).expect(0);
    assert!(node.bundle().contains(&print));
    // The original leaves like any other anchor.
    node.set_source(&[&other]);
    node.nodetrust(&["apply"]).expect(0);
    assert_eq!(states(&status(&node))[&root.sha256()], "grace");
}

#[test]
fn a_root_whose_own_signature_does_not_match_works_and_is_told_or_refused_by_policy() {
    for kind in [Kind::Trixie, Kind::Rhelish] {
        let node = Node::new(kind, "");
        let root = Ca::new("Corp Root");
        let (pem, print) = damaged(&root);
        fs::write(node.source.join("ca.crt"), &pem).unwrap();
        node.nodetrust(&["apply"]).expect(0);
        assert!(node.bundle().contains(&print));
        assert_eq!(openssl_verifies(&node, &root.leaf("registry.test").0), Ok(true), "no reader checks it");
        let screen = on_one_line(&node.nodetrust(&["status"]).expect(0).out);
        assert!(screen.contains("its own signature does not match its key"), "{screen}");

        node.configure("policy: {selfSignature: reject}\nrotation: {removalGrace: 0s}");
        node.set_source(&[&root]);
        node.nodetrust(&["apply"]).expect(0);
        fs::write(node.source.join("more.crt"), damaged(&Ca::new("Another Root")).0).unwrap();
        let done = node.nodetrust(&["apply"]).expect(2);
        assert!(on_one_line(&done.out).contains("self-signature: CN=Another Root"), "{}", done.out);
        assert!(node.trusts(&root) && !node.bundle().contains(&print));
    }
}

#[test]
fn what_is_no_longer_allowed_goes_without_grace() {
    let (kept, dropped) = (Ca::new("Kept"), Ca::new("Dropped"));
    let lists = |cas: &[&Ca]| {
        let prints: Vec<String> = cas.iter().map(|ca| ca.sha256()).collect();
        format!("policy: {{allowedFingerprints: [{}]}}", prints.join(", "))
    };
    let node = Node::new(Kind::Trixie, &lists(&[&kept, &dropped]));
    node.set_source(&[&kept, &dropped]);
    node.nodetrust(&["apply"]).expect(0);
    assert!(node.trusts(&kept) && node.trusts(&dropped));
    node.configure(&lists(&[&kept]));
    let done = node.nodetrust(&["apply"]).expect(2);
    assert!(done.out.contains("not-allowed"), "{}", done.out);
    assert!(node.clients_trust(&kept) && !node.clients_trust(&dropped));
    assert!(!node.anchor_file(&dropped).exists());
}

#[test]
fn a_denied_root_of_the_distribution_is_told_until_the_distribution_takes_it_out() {
    let ca = Ca::new("Corp Root");
    let node = Node::new(Kind::Bookworm, "");
    let listed = fs::read_to_string(node.path("/etc/ca-certificates.conf")).unwrap();
    let line = listed.lines().find(|line| line.starts_with("mozilla/")).unwrap();
    let file = fs::read_to_string(node.path(&format!("/usr/share/ca-certificates/{line}"))).unwrap();
    let print = Fingerprint::of_der(&der(&file)).to_string();
    node.configure(&format!("policy: {{deniedFingerprints: [{print}]}}"));
    node.set_source(&[&ca]);
    let done = node.nodetrust(&["apply"]).expect(2);
    assert!(done.out.contains(&print[..16]) && done.out.contains("/etc/ca-certificates.conf"), "{}", done.out);
    let status = status(&node);
    assert_eq!(status["problems"][0]["kind"], "denied-trusted");
    assert_eq!((&status["verdict"], &status["converged"]), (&"trusted-with-findings".into(), &true.into()));
    assert!(node.bundle().contains(&print) && node.clients_trust(&ca), "nothing is done about it");
    // The advice works.
    node.write("/etc/ca-certificates.conf", listed.replace(line, &format!("!{line}")));
    node.run(&["update-ca-certificates"]).expect(0);
    assert!(!node.bundle().contains(&print));
    node.nodetrust(&["apply"]).expect(0);
    node.nodetrust(&["status"]).expect(0);
}

#[test]
fn a_ca_that_poses_as_a_root_of_the_distribution_is_told() {
    let node = Node::new(Kind::Trixie, "");
    let named = |name| Ca::with(name, |params| params.key_identifier_method = KeyIdMethod::PreSpecified(vec![7; 20]));
    let (public, ours) = (named("Public Root"), named("Public Root"));
    node.write("/usr/share/ca-certificates/public.crt", public.pem());
    let conf = node.path("/etc/ca-certificates.conf");
    let listed = fs::read_to_string(&conf).unwrap();
    fs::write(conf, listed + "public.crt\n").unwrap();
    node.run(&["update-ca-certificates"]).expect(0);
    node.set_source(&[&ours]);
    let says = |text: &str| text.contains("the name and the key identifier of") && text.contains(&public.fp16());
    let inspected =
        on_one_line(&node.nodetrust(&["inspect", node.source.join("ca.crt").to_str().unwrap()]).expect(0).out);
    assert!(says(&inspected), "{inspected}");
    node.nodetrust(&["apply"]).expect(0);
    for _ in 0..2 {
        let screen = on_one_line(&node.nodetrust(&["status"]).expect(0).out);
        assert!(says(&screen), "{screen}");
    }
    node.set_source(&[&public]);
    let screen = on_one_line(&node.nodetrust(&["status"]).out);
    assert!(!says(&screen), "it is that root itself: {screen}");
}

const DIR: &str = "/etc/containerd/certs.d";

/// CAs with one oddity each that OpenSSL and GnuTLS take and Go does not, in one text, and how many they are.
fn go_refuses() -> (String, usize) {
    let text = fs::read(data("readers/certificates.pem")).unwrap();
    let anchors = pem::scan(&text).blocks.into_iter().filter_map(|block| Anchor::from_der(&block.der).ok());
    let odd: Vec<String> = anchors.filter(|anchor| !anchor.go_reads()).map(|anchor| anchor.pem()).collect();
    (odd.concat(), odd.len())
}

/// One of them in a registry directory makes every pull fail.
#[test]
fn what_go_refuses_breaks_no_pull_and_restarts_nothing() {
    let machine = Machine::boot_with_config_path(MachineKind::Trixie, DIR);
    let image = machine.push("app:1");
    let odd = fs::read_to_string(data("pem/ec-k256.pem")).unwrap();
    let ours = machine.registry_ca();
    let file = format!("{DIR}/_default/nodetrust-anchors.crt");
    assert_untrusted(&machine, &image);
    // Shows what it would do in the registry directory.
    machine.write(&format!("{DIR}/_default/odd.crt"), &odd);
    let error = machine.pull(&image).unwrap_err();
    assert!(error.contains("unable to load"), "{error}");
    let before = starts(&machine);
    let agent = machine.agent(&[], FAST);
    let problem = agent.wait_status("somebody's file that ends every pull", LIMIT, |status| {
        status["problems"][0]["kind"] == "registry-certs"
    });
    let text = problem["problems"][0]["text"].as_str().unwrap();
    assert!(text.contains("_default/odd.crt") && text.contains("fails every pull"), "{text}");
    machine.run(&["rm", &format!("{DIR}/_default/odd.crt")]).expect(0);

    machine.set_source_pem(&odd);
    let is_told = |status: &Value| {
        status["anchors"]
            .as_array()
            .is_some_and(|rows| rows.iter().any(|row| row["runtime"] == "cannot" && row["trusted"] == true))
    };
    agent.wait_status("an anchor that the runtime cannot use", LIMIT, |status| {
        is_told(status) && status["problems"].as_array().is_some_and(Vec::is_empty)
    });
    assert_eq!(machine.read(&file), None, "alone it would end every pull");
    assert_untrusted(&machine, &image);

    let (all, count) = go_refuses();
    assert!(count > 20, "{count}");
    machine.set_source_pem(&(all + &ours));
    wait_for("our file", LIMIT, || (machine.read(&file).as_deref() == Some(&*ours)).then_some(()));
    let status = agent.wait_status("all of them", LIMIT, |status| {
        let rows = status["anchors"].as_array().into_iter().flatten();
        rows.filter(|row| row["runtime"] == "cannot" && row["trusted"] == true).count() > 20
    });
    assert_eq!(machine.pull(&image), Ok(()), "{status:#}");
    wait_two_cycles(&agent);
    let status = agent.status().unwrap();
    assert_eq!((&status["verdict"], &status["runtime"]["stale"]), (&"trusted-with-findings".into(), &false.into()));
    assert!(is_told(&status), "{status:#}");
    assert_eq!(agent.metric("nodetrust_runtime_trust_stale"), Some(0.0));
    let screen = agent.nodetrust(&["status"]).expect(2).out;
    let first = screen.lines().take(3).collect::<Vec<_>>().join(" ");
    assert!(first.contains("cannot use") && screen.lines().any(|line| line.contains("yes      cannot")), "{screen}");
    // Its removal restarts nothing either.
    machine.set_source_pem(&ours);
    agent.wait_status("one", LIMIT, |status| {
        status["anchors"].as_array().is_some_and(|rows| rows.len() == 1) && status["verdict"] == "trusted"
    });
    wait_two_cycles(&agent);
    assert_eq!(starts(&machine), before, "nothing of this needs a restart");
}

/// The same on a node without a registry directory, where a restart brings the anchors that the runtime can read.
#[test]
fn a_runtime_without_a_registry_directory_is_not_restarted_for_what_go_refuses() {
    let machine = Machine::boot(MachineKind::Bookworm);
    let image = machine.push("app:1");
    assert_untrusted(&machine, &image);
    let before = starts(&machine);
    let agent = machine.agent(&[], FAST);
    machine.set_source_pem(&fs::read_to_string(data("pem/ec-k256.pem")).unwrap());
    agent.wait_status("an anchor that the runtime cannot use", LIMIT, |status| {
        status["anchors"][0]["runtime"] == "cannot" && status["converged"] == true
    });
    wait_two_cycles(&agent);
    agent.nodetrust(&["status"]).expect(2);
    assert_eq!(starts(&machine), before);
    machine.set_source_pem("");
    wait_two_cycles(&agent);
    assert_eq!(starts(&machine), before);
}
