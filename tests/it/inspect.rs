//! `nodetrust inspect`: what people and scripts read. No node and no root needed: it looks at files only.

use std::{
    fs,
    io::Write,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use nodetrust_core::certificate::{fingerprint::Fingerprint, pem};
use rcgen::{IsCa, date_time_ymd};
use serde_json::Value;

use crate::support::{
    node::{Done, Kind, Node},
    pki::Ca,
};

/// A directory of files, where the program is run.
struct Desk(tempfile::TempDir);

impl Desk {
    fn new(config: &str) -> Self {
        let desk = Self(tempfile::tempdir().unwrap());
        desk.file("config.yaml", config);
        desk
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, content).unwrap();
        path
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(crate::support::program());
        command.current_dir(self.0.path()).env_remove("NODETRUST_CONFIG").env_remove("NODETRUST_HOST_ROOT");
        command.args(["--config", "config.yaml", "--host-root", "/nowhere", "inspect"]).args(args).stdin(Stdio::null());
        command
    }

    fn inspect(&self, args: &[&str]) -> Done {
        Done::new(self.command(args).output().unwrap())
    }

    fn inspect_from_stdin(&self, args: &[&str], input: &[u8]) -> Done {
        let mut command = self.command(args);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        Done::new(child.wait_with_output().unwrap())
    }
}

fn data(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "../tests/data", name].iter().collect()
}

/// A certificate whose fingerprint and dates never change.
fn fixed(name: &str) -> String {
    fs::read_to_string(data(&format!("pem/{name}.pem"))).unwrap()
}

fn der(text: &str) -> Vec<u8> {
    pem::scan(text.as_bytes()).blocks.remove(0).der
}

fn fingerprint(text: &str) -> String {
    Fingerprint::of_der(&der(text)).to_string()
}

/// Compares with a file of tests/data; UPDATE_GOLDEN=1 writes it anew. Read it in review: it is what people see.
#[track_caller]
fn assert_golden(name: &str, actual: &str) {
    if std::env::var_os("UPDATE_GOLDEN").is_some_and(|value| value == "1") {
        fs::write(data(name), actual).unwrap();
    }
    let expected = fs::read_to_string(data(name)).unwrap_or_default();
    assert!(expected == actual, "tests/data/{name} differs (UPDATE_GOLDEN=1 writes it anew):\n{actual}");
}

/// Each block of it deserves another word; and the fingerprint that is denied, and those that are made anew each time.
fn mixed() -> (String, String, [String; 2]) {
    let denied = fixed("inspection");
    let expired = Ca::with("Old Root", |params| {
        params.not_before = date_time_ymd(2001, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
    });
    let leaf = Ca::with("ingress.local", |params| params.is_ca = IsCa::ExplicitNoCa);
    let good = fixed("corp-2026");
    let mut damaged = der(&fixed("corp-2021"));
    *damaged.last_mut().unwrap() ^= 1;
    let mut longer = der(&fixed("corp-2021"));
    longer.extend(b"more");
    let text = [
        "The roots of Corp, with a comment, which is allowed.\n".to_owned(),
        good.clone(),
        fixed("rsa-1024"),
        denied.clone(),
        expired.pem(),
        leaf.pem(),
        pem::encode(&damaged),
        pem::encode(&longer),
        pem::encode(b"\x30\x03\x0c\x01x"),
        "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n".to_owned(),
        good.replace("-----BEGIN CERTIFICATE-----\n", "-----BEGIN CERTIFICATE-----\nName: value\n\n"),
        good.replace("END CERTIFICATE", "END X509 CERTIFICATE"),
        format!("  {}", good.lines().next().unwrap()) + "\n",
        fixed("name-umlaut-utf8"),
        good.clone(),
        format!("{}\n", good.lines().take(3).collect::<Vec<_>>().join("\n")),
    ];
    (text.concat(), fingerprint(&denied), [expired.fp16(), leaf.fp16()])
}

#[test]
fn the_table_of_a_mixed_set_of_files() {
    let (mixed, denied, made_anew) = mixed();
    let desk = Desk::new(&format!(
        "policy: {{notCa: reject, weak: reject, selfSignature: reject, deniedFingerprints: [{denied}]}}"
    ));
    let key = Ca::new("Key Root");
    desk.file("mixed.pem", &mixed);
    desk.file("with-key.pem", format!("{}{}", fixed("corp-2021"), key.key_pem()));
    desk.file("one.der", der(&fixed("corp-2021")));
    desk.file("bom.pem", [b"\xef\xbb\xbf".as_slice(), fixed("foreign").as_bytes()].concat());
    desk.file("trusted.pem", fixed("trusted"));
    desk.file("utf16.pem", fixed("foreign").encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>());
    desk.file("text.pem", "no certificates today\n");
    desk.file("empty.pem", "");
    desk.file("huge.pem", vec![b'#'; pem::MAX_FILE_BYTES + 1]);
    let files =
        ["mixed.pem", "with-key.pem", "one.der", "bom.pem", "trusted.pem", "utf16.pem", "text.pem", "empty.pem"];
    let done = desk.inspect(&[&files[..], &["huge.pem"]].concat()).expect(2);
    assert_eq!(done.err, "");
    let text = made_anew.iter().fold(done.out, |text, fp16| text.replace(fp16.as_str(), "0123456789abcdef"));
    assert_golden("inspect.txt", &text);

    // Each named line is the line where a block begins.
    let json = desk.inspect(&["-o", "json", "mixed.pem"]).expect(2).json();
    let file = &json["files"][0];
    let lines: Vec<&str> = mixed.lines().collect();
    for found in file["certificates"].as_array().unwrap().iter().chain(file["rejections"].as_array().unwrap()) {
        let line = lines[usize::try_from(found["line"].as_u64().unwrap()).unwrap() - 1];
        assert!(line.contains("-----BEGIN "), "{found}: {line}");
    }
    let blocks = lines.iter().filter(|line| line.contains("-----BEGIN ")).count();
    let verdicts = [&file["certificates"], &file["rejections"]].map(|list| list.as_array().unwrap().len());
    assert_eq!(verdicts.iter().sum::<usize>(), blocks, "each BEGIN gets one verdict");
}

#[test]
fn the_table_tells_an_intermediate_from_a_root_by_its_issuer() {
    let desk = Desk::new("");
    let root = Ca::new("Chain Root");
    desk.file("chain.pem", root.pem() + &root.below("Chain Intermediate").pem());
    let out = desk.inspect(&["chain.pem"]).expect(0).out;
    let issuer = |name: &str| {
        let row = out.lines().find(|line| line.contains(&format!("  {name}  ")));
        row.unwrap_or_else(|| panic!("no row of {name}: {out}")).rsplit("  ").next().unwrap().trim().to_owned()
    };
    assert_eq!([issuer("Chain Root"), issuer("Chain Intermediate")], ["itself", "Chain Root"]);
}

#[test]
fn json_and_yaml_say_the_same_with_every_field() {
    let (mixed, denied, _) = mixed();
    let desk = Desk::new(&format!("policy: {{deniedFingerprints: [{denied}]}}"));
    desk.file("mixed.pem", mixed);
    let json = desk.inspect(&["-o", "json", "mixed.pem"]).expect(2).json();
    let yaml = desk.inspect(&["-o", "yaml", "mixed.pem"]).expect(2).out;
    assert_eq!(serde_saphyr::from_str::<Value>(&yaml).unwrap(), json);
    let first = &json["files"][0]["certificates"][0];
    assert_eq!(first["line"], 2);
    assert_eq!(first["sha256"], fingerprint(&fixed("corp-2026")));
    assert_eq!(first["commonName"], "Corp Root CA");
    assert_eq!(first["subject"], "O=Corp, CN=Corp Root CA");
    assert_eq!(first["key"], "EC 256");
    assert_eq!(first["authority"], "ca");
    assert_eq!(first["notAfter"], "2036-11-19T03:30:32Z");
    let rejections = json["files"][0]["rejections"].as_array().unwrap();
    let of = |reason: &str| rejections.iter().find(|rejection| rejection["reason"] == reason).unwrap();
    assert_eq!(of("denied")["sha256"].as_str(), Some(denied.as_str()));
    assert_eq!(of("expired")["subject"], "CN=Old Root");
    assert_eq!(of("no-certificate")["sha256"], Value::Null);
    // By default a leaf and a weak key pass with a warning, since this machine has no known store.
    let warnings = |name: &str| {
        let all = json["files"][0]["certificates"].as_array().unwrap();
        all.iter().find(|row| row["commonName"] == name).unwrap()["warnings"].to_string()
    };
    assert!(warnings("ingress.local").contains("CA:FALSE"));
    assert!(warnings("RSA 1024").contains("RSA 1024"));
}

#[test]
fn standard_input_by_a_dash_or_by_nothing_and_beside_files() {
    let desk = Desk::new("");
    let text = fixed("corp-2026");
    desk.file("other.pem", fixed("corp-2021"));
    for args in [&["-"][..], &[]] {
        let done = desk.inspect_from_stdin(args, text.as_bytes()).expect(0);
        assert!(done.out.starts_with("1 accepted, 0 rejected\n"), "{}", done.out);
        assert!(done.out.contains("standard input"), "{}", done.out);
    }
    let done = desk.inspect_from_stdin(&["-o", "json", "other.pem", "-"], &der(&text)).expect(0);
    let files = done.json()["files"].clone();
    assert_eq!(files[0]["file"], "other.pem");
    assert_eq!(files[1]["certificates"][0]["sha256"], fingerprint(&text));
}

#[test]
fn exit_codes_and_what_is_said_when_a_file_cannot_be_read() {
    let desk = Desk::new("");
    desk.file("good.pem", fixed("corp-2026"));
    desk.file("bad.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n");
    desk.inspect(&["good.pem"]).expect(0);
    desk.inspect(&["good.pem", "bad.pem"]).expect(2);
    let done = desk.inspect(&["good.pem", "missing.pem"]).expect(1);
    assert_eq!(done.err, "nodetrust: failed to read `missing.pem`: No such file or directory (os error 2)\n");
    desk.inspect(&["."]).expect(2);
    desk.inspect(&["--no-such-option"]).expect(64);
    desk.file("config.yaml", "policy: {expired: perhaps}");
    let done = desk.inspect(&["good.pem"]).expect(64);
    assert!(done.err.contains("config.yaml") && done.err.contains("accept, reject"), "{}", done.err);
}

/// A directory stands for what a source at its path would read; the rest is named, so that nobody takes it for installed.
#[test]
fn a_directory_is_its_files_and_its_folders_are_said_to_be_passed_over() {
    let desk = Desk::new("");
    let volume = desk.0.path().join("volume");
    fs::create_dir_all(volume.join("..2026/nested")).unwrap();
    desk.file("volume/..2026/a.crt", fixed("corp-2026"));
    desk.file("volume/..2026/nested/b.crt", fixed("inspection"));
    for (name, target) in [("..data", "..2026"), ("a.crt", "..data/a.crt"), ("nested", "..data/nested")] {
        symlink(target, volume.join(name)).unwrap();
    }
    let files = desk.inspect(&["-o", "json", "volume"]).expect(0).json()["files"].clone();
    let names: Vec<_> = files.as_array().unwrap().iter().map(|file| file["file"].as_str().unwrap()).collect();
    assert_eq!(names, ["volume", "volume/a.crt"], "{files:#}");
    assert!(files[0]["notes"][0].as_str().unwrap().ends_with("the folders nested"), "{files:#}");
    assert_eq!(files[1]["certificates"].as_array().unwrap().len(), 1);
    let text = desk.inspect(&["volume"]).expect(0).out;
    assert!(text.contains("nested") && !text.contains("it says nothing"), "{text}");
    // The file has no valid certificate.
    fs::remove_file(volume.join("..2026/a.crt")).unwrap();
    let text = desk.inspect(&["volume"]).expect(0).out;
    assert!(text.contains("folders and no file"), "{text}");
}

#[test]
fn only_listed_fingerprints_pass_when_some_are_listed() {
    let desk = Desk::new(&format!("policy: {{allowedFingerprints: [{}]}}", fingerprint(&fixed("corp-2026"))));
    desk.file("ca.pem", fixed("corp-2021") + &fixed("corp-2026"));
    let file = desk.inspect(&["-o", "json", "ca.pem"]).expect(2).json()["files"][0].clone();
    assert_eq!(file["certificates"].as_array().unwrap().len(), 1);
    assert_eq!(file["certificates"][0]["commonName"], "Corp Root CA");
    assert_eq!((&file["rejections"][0]["reason"], &file["rejections"][0]["line"]), (&"not-allowed".into(), &1.into()));
}

/// The store of the host decides what happens to a certificate that is no CA.
#[test]
fn a_leaf_is_rejected_where_the_store_would_drop_it() {
    let leaf = Ca::with("ingress.local", |params| params.is_ca = IsCa::ExplicitNoCa);
    let node = Node::new(Kind::Rhelish, "");
    let file = node.beside("leaf.pem");
    fs::write(&file, leaf.pem()).unwrap();
    let done = node.nodetrust(&["inspect", file.to_str().unwrap()]).expect(2);
    assert!(done.out.contains("not-ca: CN=ingress.local"), "{}", done.out);
}

/// No byte of a private key is shown or passed on: PEM in its forms, DER, and a key under another label.
#[test]
fn a_private_key_is_called_out_and_never_shown() {
    let ca = Ca::new("Key Root");
    let key = ca.key_pem();
    let body: String = key.lines().filter(|line| !line.starts_with('-')).collect();
    let desk = Desk::new("");
    desk.file("pkcs8.pem", format!("{}{key}", ca.pem()));
    desk.file("openssl.pem", format!("{}{}", ca.pem(), key.replace("PRIVATE KEY", "EC PRIVATE KEY")));
    desk.file("indented.pem", format!("{}  {}", ca.pem(), key.replace('\n', "\n  ")));
    desk.file("glued.pem", format!("{}{key}", ca.pem().trim_end()));
    desk.file("cut.pem", format!("{}{}", ca.pem(), key.lines().take(2).collect::<Vec<_>>().join("\n")));
    desk.file("renamed.pem", key.replace("PRIVATE KEY", "CERTIFICATE"));
    desk.file("key.der", from_base64(&body));
    let files = ["pkcs8.pem", "openssl.pem", "indented.pem", "glued.pem", "cut.pem", "renamed.pem", "key.der"];
    for form in ["table", "json", "yaml"] {
        for file in files {
            let done = desk.inspect(&["-o", form, file]).expect(2);
            let said = format!("{}{}", done.out, done.err);
            assert!(said.contains("private-key"), "{file}: {said}");
            assert!(!said.contains(&ca.sha256()[..16]), "{file}: nothing of such a file is used: {said}");
            for piece in body.as_bytes().windows(16) {
                assert!(!said.contains(std::str::from_utf8(piece).unwrap()), "{file} shows the key: {said}");
            }
        }
    }
}

fn from_base64(text: &str) -> Vec<u8> {
    let mut command = Command::new("openssl");
    command.args(["base64", "-d", "-A"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    child.wait_with_output().unwrap().stdout
}

#[test]
fn faults_beyond_the_limit_are_counted_not_listed() {
    let desk = Desk::new("");
    desk.file("many.pem", "-----END CERTIFICATE-----\n".repeat(5000));
    let file = desk.inspect(&["-o", "json", "many.pem"]).expect(2).json()["files"][0].clone();
    let rejections = file["rejections"].as_array().unwrap();
    assert_eq!(rejections.len(), pem::MAX_FAULTS + 1);
    assert_eq!(rejections.last().unwrap()["reason"], "too-many");
}

/// Names are written by whoever made the certificate or the file; they must not draw on the reader's terminal, nor turn its
/// text around.
#[test]
fn names_cannot_write_to_the_terminal() {
    let evil = "Corp\u{1b}[2J\u{1b}]0;owned\u{7}\r\nREJECTED  \u{9b}31m\u{202e}toor\u{2066}\u{200b}";
    let desk = Desk::new("policy: {expired: reject}");
    let accepted = Ca::new(evil);
    let rejected = Ca::with(evil, |params| params.not_after = date_time_ymd(2001, 1, 1));
    let name = "ca\u{1b}[31m\n\u{202e}x.pem";
    desk.file(name, accepted.pem() + &rejected.pem());
    for form in ["table", "json", "yaml"] {
        let done = desk.inspect(&["-o", form, name]).expect(2);
        // JSON and YAML have the exact name of the file.
        let bad =
            |c: char| (c.is_control() && c != '\n') || (form == "table" && "\u{202e}\u{2066}\u{200b}".contains(c));
        assert!(!done.out.contains(bad), "{form}: {:?}", done.out);
        assert!(form != "table" || done.out.contains(r"\u{1b}[2J"), "{:?}", done.out);
    }
    let done = desk.inspect(&["missing\u{1b}[31m"]).expect(1);
    assert!(!done.err.contains('\u{1b}'), "{:?}", done.err);
}

#[test]
fn no_line_is_longer_than_a_hundred_columns_and_none_has_trailing_blanks() {
    let desk = Desk::new("policy: {notCa: accept}");
    let words = "Corporate Root Certification Authority of the Department of Long Names, Second Generation, ".repeat(3);
    let long = Ca::new(&words);
    let odd = Ca::with(&words, |params| {
        params.is_ca = IsCa::NoCa;
        params.not_after = date_time_ymd(2001, 1, 1);
    });
    let dir = "a-directory-with-a-name-of-some-length/".repeat(2);
    fs::create_dir_all(desk.0.path().join(&dir)).unwrap();
    desk.file("ca.pem", long.pem() + &odd.pem() + &fixed("intermediate-sha1") + &fixed("rsa-pss-key"));
    let far = format!("{dir}ca.pem");
    desk.file(&far, odd.pem());
    for policy in ["reject", "accept"] {
        desk.file("config.yaml", format!("policy: {{notCa: accept, expired: {policy}}}"));
        let done = desk.inspect(&["ca.pem", far.as_str()]);
        for line in done.out.lines() {
            assert!(line.chars().count() <= 100, "{} columns: {line}", line.chars().count());
            assert_eq!(line, line.trim_end(), "trailing blanks");
        }
        let joined = done.out.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(
            policy == "accept" || joined.contains(words.trim_end()),
            "the whole name is shown when it is rejected: {}",
            done.out
        );
    }
}

/// The same files as a source of a node: `inspect` has promised what `apply` does.
#[test]
fn apply_does_what_inspect_has_said() {
    let (mixed, denied, _) = mixed();
    let node = Node::new(Kind::Trixie, &format!("policy: {{weak: reject, deniedFingerprints: [{denied}]}}"));
    let file = node.source.join("mixed.pem");
    fs::write(&file, mixed).unwrap();
    let promised = node.nodetrust(&["-o", "json", "inspect", file.to_str().unwrap()]).expect(2).json();
    let report = node.nodetrust(&["-o", "json", "apply"]).expect(2).json();
    let set = |rows: &Value| {
        let mut all: Vec<String> =
            rows.as_array().unwrap().iter().map(|row| row["sha256"].as_str().unwrap().to_owned()).collect();
        all.sort();
        all.dedup();
        all
    };
    assert_eq!(set(&promised["files"][0]["certificates"]), set(&report["anchors"]));
    let mut said = report["sources"][0]["rejections"].as_array().unwrap().clone();
    said.sort_by_key(|rejection| rejection["line"].as_u64());
    assert_eq!(Value::from(said), promised["files"][0]["rejections"]);
    assert!(Path::new(&node.path(node.kind.bundle())).exists());
}
