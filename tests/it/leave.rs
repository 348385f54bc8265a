//! A living node whose store becomes another one: what is ours leaves the old store and comes into the new one.

use std::{collections::BTreeSet, fs};

use serde_json::Value;

use crate::support::{
    node::{Kind, Node},
    pki::Ca,
};

fn family(name: &str) -> String {
    format!("store: {{family: {name}}}\nrotation: {{removalGrace: 1h}}")
}

fn status(node: &Node, code: i32) -> Value {
    node.nodetrust(&["-o", "json", "status"]).expect(code).json()
}

/// Trusted anchors in the report.
fn trusted(status: &Value) -> BTreeSet<String> {
    let rows = status["anchors"].as_array().unwrap().iter().filter(|row| row["trusted"] == true);
    rows.map(|row| row["sha256"].as_str().unwrap().to_owned()).collect()
}

/// The file of an anchor in the directory that Go reads, if it is a file; seen from inside, since `/etc/ssl/certs` may be a link.
fn in_directory(node: &Node, ca: &Ca) -> Option<String> {
    let path = format!("/etc/ssl/certs/nodetrust-{}.pem", ca.fp16());
    let read = node.run(&["sh", "-c", "test ! -h \"$1\" && cat \"$1\"", "sh", &path]);
    (read.code == 0).then_some(read.out)
}

fn there_and_back(kind: Kind, own: &str) {
    let node = Node::new(kind, &family(own));
    let pristine: BTreeSet<String> = node.bundle().into_iter().collect();
    let (old, new) = (Ca::new("Corp Root 2021"), Ca::new("Corp Root 2026"));
    let both = BTreeSet::from([old.sha256(), new.sha256()]);
    node.set_source(&[&old]);
    node.nodetrust(&["apply"]).expect(0);
    node.set_source(&[&new]);
    node.nodetrust(&["apply"]).expect(0); // the old anchor is in grace
    assert!(node.trusts(&old) && node.trusts(&new));

    node.configure(&family("directory"));
    let told = node.nodetrust(&["plan"]).expect(2).out;
    assert!(told.contains(&format!("leave    the {own} store")) && told.contains("2 of our files"), "{told}");
    let told = node.nodetrust(&["apply"]).expect(0).out;
    assert!(told.contains(&format!("the {own} store")), "{told}");
    let now: BTreeSet<String> = node.bundle().into_iter().collect();
    assert_eq!(now, pristine, "the old bundle is as it was before us");
    for ca in [&old, &new] {
        assert!(!node.anchor_file(ca).exists());
        assert_eq!(in_directory(&node, ca), Some(ca.pem()));
    }
    let found = status(&node, 0);
    assert_eq!((trusted(&found), &found["store"]["family"]), (both.clone(), &Value::from("directory")));
    assert!(found["anchors"].to_string().contains("\"state\":\"grace\""), "its grace goes on: {found:#}");
    assert_eq!(node.nodetrust(&["plan"]).expect(0).code, 0, "nothing is left to do");

    node.configure(&family(own));
    node.nodetrust(&["apply"]).expect(0);
    assert!(node.clients_trust(&new) && node.clients_trust(&old));
    assert_eq!((in_directory(&node, &old), in_directory(&node, &new)), (None, None));
    assert_eq!(trusted(&status(&node, 0)), both);
    node.nodetrust(&["uninstall"]).expect(0);
    assert_eq!(node.bundle().into_iter().collect::<BTreeSet<_>>(), pristine);
    let ours: Vec<String> =
        node.footprint().into_iter().filter(|(_, what)| !what.starts_with("deleted")).map(|(path, _)| path).collect();
    assert!(!ours.iter().any(|path| path.contains("nodetrust") && !path.starts_with("/tmp")), "{ours:#?}");
}

#[test]
fn bookworm_from_debian_to_directory_and_back() {
    there_and_back(Kind::Bookworm, "debian");
}

#[test]
fn rhelish_from_redhat_to_directory_and_back() {
    there_and_back(Kind::Rhelish, "redhat");
}

#[test]
fn without_its_tool_the_old_store_is_named_until_it_can_be_left() {
    let node = Node::new(Kind::Trixie, &family("debian"));
    let ca = Ca::new("Corp Root");
    node.set_source(&[&ca]);
    node.nodetrust(&["apply"]).expect(0);
    let tool = node.path("/usr/sbin/update-ca-certificates");
    let aside = tool.with_extension("aside");
    fs::rename(&tool, &aside).unwrap();

    node.configure(&family("directory"));
    node.nodetrust(&["apply"]).expect(2);
    assert_eq!(in_directory(&node, &ca), Some(ca.pem()), "the new store does not wait for the old one");
    let found = status(&node, 2);
    let problem = &found["problems"][0];
    assert_eq!(problem["kind"], "old-store", "{found:#}");
    let file = format!("/usr/local/share/ca-certificates/nodetrust-{}.crt", ca.fp16());
    assert!(problem["text"].as_str().unwrap().contains(&file), "{found:#}");
    assert!(problem["next"].as_str().unwrap().contains("update-ca-certificates"), "{found:#}");
    assert_eq!(trusted(&found), [ca.sha256()].into());
    assert!(node.anchor_file(&ca).exists(), "without the tool nothing is half removed");

    // The tool is back and fails: the node does not converge, and keeps its trust.
    fs::write(&tool, "#!/bin/sh\necho simulated failure >&2\nexit 1\n").unwrap();
    fs::set_permissions(&tool, fs::metadata(&aside).unwrap().permissions()).unwrap();
    let told = node.nodetrust(&["apply"]).expect(1);
    assert!(told.out.contains("leaving the debian store"), "{told:?}");
    assert_eq!(in_directory(&node, &ca), Some(ca.pem()));

    fs::rename(&aside, &tool).unwrap();
    node.nodetrust(&["apply"]).expect(0);
    assert!(!node.anchor_file(&ca).exists() && !node.trusts(&ca));
    assert_eq!(in_directory(&node, &ca), Some(ca.pem()));
    status(&node, 0);
}
