//! An ingress certificate is replaced at its source, and a node template goes on leaving the old copy in the anchor directory: nodes
//! follow, the copy and the template are called out, and the copy is taken over on request and comes back at the end, byte for byte.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink},
    process::Stdio,
    thread,
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    agent::fast,
    crash::Moments,
    support::{
        must,
        node::{Kind, Node},
        pki::Ca,
    },
};

const LIMIT: Duration = Duration::from_secs(240);
const RECORDS: &str = "/var/lib/nodetrust/adopted";

/// The file that the template leaves.
fn path(kind: Kind) -> String {
    format!("{}/domain.crt", kind.anchors_dir())
}

/// What the template does on a node that boots: a file with a comment, for root alone, and a run of the tool.
fn boot(node: &Node, ca: &Ca) {
    let content = format!("# written by the node template\n{}", ca.pem());
    node.write(&path(node.kind), content);
    fs::set_permissions(node.path(&path(node.kind)), fs::Permissions::from_mode(0o600)).unwrap();
    node.run(&[node.kind.tool()]).expect(0);
}

fn status(node: &Node) -> Value {
    node.nodetrust(&["status", "-o", "json"]).json()
}

const ADOPT: &str = "store: {adopt: [domain.crt]}\n";

fn story(kind: Kind) {
    let grace = |more: &str| format!("rotation: {{removalGrace: 1h}}\n{more}");
    let (old, new) = (Ca::new("Ingress CA"), Ca::new("Ingress CA"));
    let node = Node::new(kind, &grace(""));
    node.set_source(&[&old]);
    let template = node.beside("template.yaml");
    let render = || fs::write(&template, node.nodetrust(&["render", "kubeadm"]).expect(0).out).unwrap();
    let check = || node.nodetrust(&["render", "--check", template.to_str().unwrap()]);
    render();
    boot(&node, &old);
    let before = node.tree(&[kind.anchors_dir()]);
    node.nodetrust(&["apply"]).expect(0);
    assert!(!status(&node)["foreign"].to_string().contains("stale"), "a current copy is not called out");
    check().expect(0);

    // The source is replaced: the existing node follows, and the copy and the template are called out.
    node.set_source(&[&new]);
    node.nodetrust(&["apply"]).expect(0);
    assert!(node.clients_trust(&old) && node.clients_trust(&new));
    let told = status(&node);
    let rows: Vec<&Value> = told["foreign"].as_array().unwrap().iter().filter(|row| !row["stale"].is_null()).collect();
    assert_eq!(rows.len(), 1, "{told:#}");
    assert_eq!((&rows[0]["path"], &rows[0]["stale"]["reason"]), (&json!(path(kind)), &json!("superseded")));
    let screen = node.nodetrust(&["status"]).out;
    assert!(screen.contains("FOREIGN") && screen.contains(&path(kind)) && screen.contains("node template"), "{screen}");
    assert!(check().expect(2).out.contains(&old.sha256()));

    // The configuration lets nodetrust take the copy over.
    node.configure(&grace(ADOPT));
    let plan = node.nodetrust(&["plan"]).expect(2).out;
    assert!(plan.contains("adopt    domain.crt"), "{plan}");
    assert!(node.path(&path(kind)).exists(), "a plan changes nothing");
    node.nodetrust(&["apply"]).expect(0);
    assert!(!node.path(&path(kind)).exists());
    assert!(node.clients_trust(&old) && node.clients_trust(&new), "the old one is in its grace");
    assert_eq!(status(&node)["foreign"], json!([]));
    let records: Vec<_> = fs::read_dir(node.path(RECORDS)).unwrap().map(|entry| entry.unwrap()).collect();
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].metadata().unwrap().mode() & 0o777, 0o600);
    node.nodetrust(&["plan"]).expect(0);
    let healthy = node.nodetrust(&["status"]).expect(0).out;
    assert!(!healthy.contains("FOREIGN"), "{healthy}");

    // The template boots the node once more: it is corrected again, until the template is mended.
    boot(&node, &old);
    node.nodetrust(&["apply"]).expect(0);
    assert!(!node.path(&path(kind)).exists());
    node.configure(&format!("rotation: {{removalGrace: 0s}}\n{ADOPT}"));
    node.nodetrust(&["apply"]).expect(0);
    assert!(!node.clients_trust(&old) && node.clients_trust(&new));
    render();
    check().expect(0);

    node.nodetrust(&["uninstall"]).expect(0);
    assert_eq!(node.tree(&[kind.anchors_dir()]), before, "bytes, mode and owner are as they were");
    assert!(!node.path("/var/lib/nodetrust").exists());
    assert!(node.clients_trust(&old) && !node.clients_trust(&new), "what the template had set up");
}

#[test]
fn trixie_a_stale_copy_is_called_out_taken_over_and_put_back() {
    story(Kind::Trixie);
}

#[test]
fn rhelish_a_stale_copy_is_called_out_taken_over_and_put_back() {
    story(Kind::Rhelish);
}

#[test]
fn a_new_node_from_a_stale_template_is_corrected() {
    for (kind, expired) in
        [(Kind::Bookworm, false), (Kind::Bookworm, true), (Kind::Suselike, false), (Kind::Rhelish, true)]
    {
        let node = Node::new(kind, &format!("rotation: {{removalGrace: 0s}}\n{ADOPT}"));
        let old = Ca::with("Ingress CA", |params| {
            if expired {
                params.not_after = rcgen::date_time_ymd(2021, 1, 1);
            }
        });
        let new = Ca::new(if expired { "Another CA" } else { "Ingress CA" });
        boot(&node, &old);
        node.set_source(&[&new]);
        assert!(node.trusts(&old));
        let shipped = node.bundle().len() - 1;
        node.nodetrust(&["apply"]).expect(0);
        assert!(!node.trusts(&old) && node.clients_trust(&new), "{kind:?}");
        assert_eq!(node.bundle().len(), shipped + 1, "{kind:?}");
        node.nodetrust(&["plan"]).expect(0);
    }
}

#[test]
fn what_is_not_a_copy_that_may_go_stays_and_is_told() {
    let kind = Kind::Rhelish;
    let (ours, theirs) = (Ca::new("Corp Root"), Ca::new("Somebody's CA"));
    let node = Node::new(kind, ADOPT);
    node.set_source(&[&ours]);
    let file = node.path(&path(kind));
    let refused = |why: &str| {
        let before = fs::symlink_metadata(&file).unwrap();
        let report = node.nodetrust(&["-o", "json", "apply"]).expect(2).json();
        assert_eq!(report["problems"][0]["kind"], "not-adopted", "{report:#}");
        assert!(report["problems"][0]["text"].as_str().unwrap().contains(why), "{why}: {report:#}");
        assert!(node.trusts(&ours));
        let after = fs::symlink_metadata(&file).unwrap();
        assert_eq!((before.ino(), before.mode(), before.size()), (after.ino(), after.mode(), after.size()));
        assert!(!node.path(RECORDS).exists());
        fs::remove_file(&file).unwrap();
    };
    fs::write(&file, theirs.pem()).unwrap();
    refused("no source has Somebody's CA");
    fs::write(&file, ours.pem() + &theirs.pem()).unwrap();
    refused("no source has Somebody's CA");
    fs::write(&file, ours.pem() + &ours.key_pem()).unwrap();
    refused("something else than certificates");
    fs::write(&file, ours.pem() + "-----BEGIN CERTIFICATE-----\nAAAA\n").unwrap();
    refused("something else than certificates");
    fs::write(node.path("/srv/ca.pem"), ours.pem()).unwrap();
    symlink("/srv/ca.pem", &file).unwrap();
    refused("no regular file");
    fs::hard_link(node.path("/srv/ca.pem"), &file).unwrap();
    refused("2 names");
    assert!(node.path("/srv/ca.pem").exists());
    fs::write(&file, ours.pem()).unwrap();
    chown(&file, Some(1000), Some(1000)).unwrap();
    refused("root:root");
}

/// Who has written something else there since has replaced the file.
#[test]
fn uninstall_leaves_what_has_the_name_by_then_and_says_so() {
    let (ours, theirs) = (Ca::new("Corp Root"), Ca::new("Somebody's CA"));
    let node = Node::new(Kind::Trixie, ADOPT);
    node.set_source(&[&ours]);
    boot(&node, &ours);
    node.nodetrust(&["apply"]).expect(0);
    assert!(!node.path(&path(node.kind)).exists() && node.clients_trust(&ours));
    boot(&node, &theirs);
    let done = node.nodetrust(&["uninstall"]).expect(0);
    assert!(done.out.contains("is not put back") && done.out.contains("domain.crt"), "{done:?}");
    assert!(fs::read_to_string(node.path(&path(node.kind))).unwrap().contains(&theirs.pem()));
    assert!(node.clients_trust(&theirs) && !node.clients_trust(&ours));
    assert!(!node.path("/var/lib/nodetrust").exists());
}

/// The hooks of the store hear of a link that goes and comes, as Java's key store must.
#[test]
fn hooks_are_told_of_a_file_that_is_taken_over() {
    let node = Node::new(Kind::Bookworm, ADOPT);
    let hook = "/etc/ca-certificates/update.d/told";
    node.write(hook, "#!/bin/sh\ncat >>/srv/told\n");
    fs::set_permissions(node.path(hook), fs::Permissions::from_mode(0o755)).unwrap();
    let ca = Ca::new("Corp Root");
    node.set_source(&[&ca]);
    boot(&node, &ca);
    let told = |line: &str| fs::read_to_string(node.path("/srv/told")).unwrap_or_default().lines().any(|l| l == line);
    fs::remove_file(node.path("/srv/told")).unwrap();
    node.nodetrust(&["apply"]).expect(0);
    assert!(told("-/etc/ssl/certs/domain.pem"));
    fs::remove_file(node.path("/srv/told")).unwrap();
    node.nodetrust(&["uninstall"]).expect(0);
    assert!(told("+/etc/ssl/certs/domain.pem"));
}

#[test]
fn killed_at_random_moments_no_byte_is_lost() {
    let mut random = Moments::new();
    for kind in [Kind::Trixie, Kind::Rhelish] {
        let node = Node::new(kind, ADOPT);
        let (ours, old) = (Ca::new("Corp Root"), Ca::new("Corp Root"));
        node.set_source(&[&ours]);
        node.nodetrust(&["apply"]).expect(0);
        boot(&node, &old);
        let before = fs::read(node.path(&path(kind))).unwrap();
        let shipped = node.bundle().len();
        for _ in 0..12 {
            boot(&node, &old);
            let mut child = must("apply", node.command(&["apply"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn());
            thread::sleep(Duration::from_millis(random.below(900)));
            let _ = child.kill();
            child.wait().unwrap();
            let is_there = fs::read(node.path(&path(kind))).is_ok_and(|now| now == before);
            let records = fs::read_dir(node.path(RECORDS)).map_or(0, |entries| entries.count());
            assert!(is_there || records == 1, "{kind:?}: the file is there, or remembered");
            assert!(node.bundle().len() >= shipped, "{kind:?}: nothing is trusted less");
            node.nodetrust(&["apply"]).expect(0);
            assert!(node.clients_trust(&ours) && node.clients_trust(&old), "{kind:?}: one in force, one in its grace");
        }
        node.nodetrust(&["uninstall"]).expect(0);
        assert_eq!(fs::read(node.path(&path(kind))).unwrap(), before, "{kind:?}");
        assert!(!node.path("/var/lib/nodetrust").exists());
    }
}

#[test]
fn metrics_name_a_stale_copy_until_it_is_gone() {
    let node = Node::new(Kind::Trixie, "");
    let (old, new) = (Ca::new("Ingress CA"), Ca::new("Ingress CA"));
    boot(&node, &old);
    node.set_source(&[&new]);
    let agent = node.agent(&fast("1h"));
    agent.wait_converged(&[&new], LIMIT);
    let copies = |reason: &str| agent.metric(&format!("nodetrust_stale_copies{{reason=\"{reason}\"}}"));
    assert_eq!((copies("superseded"), copies("expired")), (Some(1.0), Some(0.0)));
    let series = format!(
        "nodetrust_stale_copy_info{{path=\"{}\",fingerprint_sha256=\"{}\",reason=\"superseded\"}}",
        path(node.kind),
        old.sha256()
    );
    assert_eq!(agent.metric(&series), Some(1.0));
    fs::remove_file(node.path(&path(node.kind))).unwrap();
    agent.wait_status("no stale copy", LIMIT, |status| status["foreign"] == json!([]));
    crate::support::wait_for("the end of its series", LIMIT, || (copies("superseded") == Some(0.0)).then_some(()));
    assert_eq!(agent.metric(&series), None);
}

/// A denied CA and a removed one, which the node template had made trusted before: as long as its file is there they stay trusted, and
/// that is told; once somebody has removed the file, as the runbook says, they go.
#[test]
fn without_its_file_a_ca_of_the_template_is_trusted_no_more() {
    for kind in [Kind::Bookworm, Kind::Rhelish] {
        for denied in [true, false] {
            let node = Node::new(kind, "rotation: {removalGrace: 0s}");
            let (old, new) = (Ca::new("Template CA"), Ca::new("New CA"));
            boot(&node, &old);
            node.set_source(&[&old]);
            node.nodetrust(&["apply"]).expect(0);
            if denied {
                let print = old.sha256();
                node.configure(&format!("policy: {{deniedFingerprints: [{print}]}}\nrotation: {{removalGrace: 0s}}"));
            } else {
                node.set_source(&[&new]);
            }
            node.nodetrust(&["apply"]);
            node.nodetrust(&["status"]).expect(2);
            assert!(node.trusts(&old), "{kind:?}: the template's file keeps it");
            fs::remove_file(node.path(&path(kind))).unwrap();
            assert!(node.nodetrust(&["plan"]).expect(2).out.contains("extract"), "{kind:?} {denied}");
            node.nodetrust(&["apply"]);
            assert!(!node.trusts(&old), "{kind:?} {denied}");
            node.nodetrust(&["plan"]).expect(0);
        }
    }
}
