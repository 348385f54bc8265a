//! The distributions' tools get things wrong; nodetrust does not, or says why it cannot.
//!
//! Each test first shows on a real root what the tool alone does, so that it fails when the tool gets better, and then what
//! nodetrust makes of the same set-up. A test that simulates a part says so in its name.

mod alone;
mod foreign;
mod links;
mod obstacles;
mod readers;
mod resolution;
mod runs;
mod undone;
mod uninstalled;

use std::{fs, path::Path};

use serde_json::Value;

use crate::support::{
    node::{Done, Kind, Node},
    pki::Ca,
};

/// Runs the distribution's tool.
fn tool(node: &Node, args: &[&str]) -> Done {
    let mut command = vec![node.kind.tool()];
    command.extend(args);
    node.run(&command)
}

/// Puts somebody else's file into the anchor directory; returns its path on the host.
fn put(node: &Node, name: &str, content: impl AsRef<[u8]>) -> String {
    let path = format!("{}/{name}", node.kind.anchors_dir());
    node.write(&path, content);
    path
}

/// The bytes of the extracted bundle.
fn bundle_bytes(node: &Node) -> Vec<u8> {
    fs::read(node.path(node.kind.bundle())).unwrap_or_default()
}

/// Whether a server of this CA is trusted by a client that reads the bundle.
fn by_file(node: &Node, ca: &Ca) -> bool {
    verify(node, ca, &["-CAfile", node.kind.bundle(), "-no-CApath"])
}

/// Whether a server of this CA is trusted by a client that looks in OpenSSL's directory.
fn by_directory(node: &Node, ca: &Ca) -> bool {
    verify(node, ca, &["-CApath", "/etc/ssl/certs", "-no-CAfile"])
}

fn verify(node: &Node, ca: &Ca, place: &[&str]) -> bool {
    node.write("/tmp/leaf.pem", ca.leaf("registry.test").0);
    let mut command = vec!["openssl", "verify", "-no-CAstore"];
    command.extend(place);
    command.push("/tmp/leaf.pem");
    node.run(&command).code == 0
}

/// Whether Python's ssl takes the bundle at all.
fn python_loads(node: &Node) -> bool {
    let script = "import ssl,sys; ssl.create_default_context(cafile=sys.argv[1])";
    node.run(&["python3", "-c", script, node.kind.bundle()]).code == 0
}

/// Whether each certificate stands in the bundle once.
fn without_repetition(node: &Node) -> bool {
    let all = node.bundle();
    let mut once = all.clone();
    once.sort();
    once.dedup();
    once.len() == all.len()
}

/// The certificates of the bundle, each once, in an order of their own.
fn sorted(node: &Node) -> Vec<String> {
    let mut all = node.bundle();
    all.sort();
    all
}

/// `apply`, its exit code and its report.
#[track_caller]
fn apply(node: &Node, code: i32) -> Value {
    node.nodetrust(&["apply", "-o", "json"]).expect(code).json()
}

/// The first problem of this kind, which must say all of this, in its text or in its advice.
#[track_caller]
fn assert_problem(report: &Value, kind: &str, says: &[&str]) {
    let problems = report["problems"].as_array().unwrap();
    let Some(problem) = problems.iter().find(|problem| problem["kind"] == kind) else {
        panic!("no problem `{kind}` in {problems:#?}")
    };
    let said = format!("{} {}", problem["text"].as_str().unwrap(), problem["next"].as_str().unwrap());
    for part in says {
        assert!(said.contains(part), "`{part}` is not in: {said}");
    }
}

/// Nothing of a run that did not come to its end is left.
#[track_caller]
fn assert_no_leftovers(node: &Node) {
    let dirs = ["/etc/ssl/certs", "/etc/pki", "/usr/local/share/ca-certificates", "/var/lib/nodetrust", "/tmp"];
    for path in node.tree(&dirs).keys() {
        let name = Path::new(path).file_name().unwrap().to_string_lossy().into_owned();
        let left = name.starts_with(".nodetrust-") || name.ends_with(".tmp") || name.ends_with(".new");
        assert!(!left && !name.contains("tmp."), "{path} is left over");
        assert_ne!(path, "/var/lib/nodetrust/tmp");
    }
}

/// The CA is trusted by all clients, the bundle is whole, and there is nothing left to do.
#[track_caller]
fn assert_right(node: &Node, trusted: &[&Ca]) {
    for ca in trusted {
        assert!(node.clients_trust(ca));
    }
    assert!(without_repetition(node));
    assert_no_leftovers(node);
    node.nodetrust(&["plan"]).expect(0);
}

const DEBIAN: Kind = Kind::Trixie;
