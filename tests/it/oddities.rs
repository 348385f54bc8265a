//! `nodetrust probe` against real programs: a real TLS server below each of many odd CAs, asked by our program, by the node's own
//! `openssl s_client`, and by a program in Go. Where both trust it so must we, where neither does we must not, and where they
//! differ we say so.

mod cases;
pub mod forge;

use std::{fs, path::Path, process::Command, sync::OnceLock};

use cases::cases;
use nodetrust_core::certificate::pem;

use crate::{
    probe::TlsServer,
    support::node::{Kind, Node},
};

/// One case: what lies in the bundle, and what the server sends.
struct Case {
    name: &'static str,
    bundle: Vec<String>,
    /// the server's certificate, its key, and what it sends behind it
    leaf: String,
    key: String,
    chain: Vec<String>,
    /// versions of Go differ here, and we say what the newer one does
    versions_differ: bool,
}

/// The program of tests/readers/verify.go; NODETRUST_GO names a newer compiler than Debian's, whose word then counts everywhere. What a
/// newer Go does without a module is set by GODEBUG=x509negativeserial=0,rsa1024min=1,x509usepolicies=1.
fn go_client() -> &'static Path {
    static BUILT: OnceLock<std::path::PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let compiler = std::env::var("NODETRUST_GO").unwrap_or_else(|_| "/usr/lib/go-1.19/bin/go".to_owned());
        let (target, source) = (
            Path::new(env!("CARGO_TARGET_TMPDIR")),
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/readers/verify.go"),
        );
        let program = target.join("go-verify");
        let done = Command::new(&compiler)
            .args(["build", "-o"])
            .arg(&program)
            .arg(source)
            .envs([
                ("CGO_ENABLED", "0"),
                ("GO111MODULE", "off"),
                ("GOTOOLCHAIN", "local"),
                ("GOFLAGS", ""),
                ("GOPROXY", "off"),
            ])
            .env("GOCACHE", target.join("go-cache"))
            .env("HOME", target)
            .output()
            .unwrap_or_else(|error| panic!("{compiler}: {error}; scripts/test installs golang-1.19-go"));
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        program
    })
}

/// The answers to one case, as text where they are wrong.
fn compare(node: &Node, case: &Case) -> Result<&'static str, String> {
    // Each case has a bundle of its own: some of them make OpenSSL refuse a whole bundle.
    fs::write(node.path(node.kind.bundle()), case.bundle.concat()).unwrap();
    let server = TlsServer::of(node, &case.leaf, &case.key, &case.chain.concat(), &["-cipher", "DEFAULT@SECLEVEL=0"]);
    let openssl = server.openssl_trusts(node, "localhost");
    let go = Command::new(go_client())
        .arg(node.path(node.kind.bundle()))
        .args([&format!("127.0.0.1:{}", server.port()), "localhost"])
        .output()
        .unwrap();
    let why = String::from_utf8_lossy(&go.stdout).trim().to_owned();
    let go = go.status.code() == Some(0);
    let done = node.nodetrust(&["probe", "-o", "json", &server.target()]);
    let answer = done.json()["probes"][0].clone();
    let all = answer.to_string();
    let says = |words: &str| {
        answer["notes"]
            .as_array()
            .is_some_and(|notes| notes.iter().any(|note| note.as_str().unwrap().starts_with(words)))
    };
    let differs = (says("Go accepts it, OpenSSL refuses: "), says("OpenSSL accepts it, Go refuses: "));
    let trusted = answer["verdict"] == "trusted";
    let enums =
        ["UnknownIssuer", "Other(", "Error(", "InvalidCert", "BadSignature", "Unsupported", "NotValid", "Malformed"];
    let context = |what: &str| Err(format!("{}: {what}; openssl {openssl}, go {go} ({why}): {answer:#}", case.name));
    if enums.iter().any(|word| all.contains(word)) {
        return context("the name of an enum");
    }
    if !["trusted", "not-trusted"].iter().any(|verdict| answer["verdict"] == *verdict) {
        return context("not reached");
    }
    // Debian's Go is older than the version that we describe.
    let is_older = case.versions_differ && std::env::var_os("NODETRUST_GO").is_none();
    let (go, wanted) = match is_older {
        true => (trusted, if trusted == openssl { (false, false) } else { (trusted, openssl) }),
        false => (go, if go == openssl { (false, false) } else { (go, openssl) }),
    };
    match () {
        () if trusted != go => context(if trusted { "trusted, and Go refuses" } else { "not trusted, and Go accepts" }),
        () if differs != wanted => context("the note is missing or wrong"),
        () if go && openssl => Ok("both accept"),
        () if go => Ok("only Go accepts"),
        () if openssl => Ok("only OpenSSL accepts"),
        () => Ok("both refuse"),
    }
}

#[test]
fn probe_agrees_with_real_openssl_and_go_on_odd_certificates() {
    let node = Node::new(Kind::Bookworm, "");
    let cases = cases();
    assert!(cases.len() >= 40, "{}", cases.len());
    let mut counts = std::collections::BTreeMap::new();
    let mut wrong = Vec::new();
    for case in &cases {
        match compare(&node, case) {
            Ok(how) => *counts.entry(how).or_insert(0) += 1,
            Err(why) => wrong.push(why),
        }
    }
    println!("{} cases: {counts:?}", cases.len());
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    assert_eq!(pem::scan(cases[0].leaf.as_bytes()).blocks.len(), 1);
}
