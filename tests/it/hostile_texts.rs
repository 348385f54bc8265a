//! Certificates whose texts are megabytes, or draw on a terminal: what people, scrapers and the cluster read of them stays small
//! and plain.

use std::{fs, time::Duration};

use nodetrust_core::certificate::name::{MAX_SENTENCE_CHARS, MAX_TEXT_CHARS};

use crate::{
    agent::fast,
    oddities::forge::{CertDraft, CertKey, SIGNER_ID, extension, name_of, oid, seq, tlv},
    probe::TlsServer,
    support::node::{Kind, Node},
};

const LIMIT: Duration = Duration::from_secs(300);
/// Characters that draw on a terminal, turn the direction of writing, or are invisible.
const EVIL: &str = "\u{1b}[2J\u{1b}]0;x\u{7}\u{202e}\u{2066}\u{200b}\r\n\t\u{0}\u{e0041}\u{feff}";

fn common(text: &str) -> Vec<u8> {
    tlv(0x30, &tlv(0x31, &tlv(0x30, &[oid(&[2, 5, 4, 3]), tlv(0x0c, text.as_bytes())].concat())))
}

/// Self-signed CAs, each with the name of its hostile part.
fn hostile(key: &CertKey) -> Vec<(&'static str, CertDraft)> {
    let with = |name: &str, edit: &dyn Fn(&mut CertDraft)| {
        let mut draft = CertDraft::ca(name, key);
        edit(&mut draft);
        draft.issuer.clone_from(&draft.subject);
        draft
    };
    let evil = EVIL.repeat(50_000);
    let place = |tag: u8, text: &str| tlv(tag, format!("http://x/{text}").as_bytes());
    vec![
        ("a serial number of 2.5 MB", with("serial", &|draft| draft.serial = tlv(0x02, &vec![0x11; 2_500_000]))),
        ("a name of 1 MB", with("x", &|draft| draft.subject = common(&"long ".repeat(200_000)))),
        ("a name of control characters", with("x", &|draft| draft.subject = common(&format!("evil {EVIL}{evil}")))),
        (
            "20,000 attributes",
            with("x", &|draft| {
                let one = name_of(10, 0x0c, format!("org {EVIL}").as_bytes());
                let one = &one[2..];
                draft.subject = tlv(0x30, &one.repeat(20_000));
            }),
        ),
        (
            "attributes of unknown types",
            with("x", &|draft| {
                let one = tlv(0x31, &seq(&[oid(&[1, 3, 6, 1, 4, 1, 99999, 0x7fff_ffff]), tlv(0x0c, EVIL.as_bytes())]));
                draft.subject = tlv(0x30, &one.repeat(5_000));
            }),
        ),
        (
            "control characters as Latin-1",
            with("x", &|draft| draft.subject = name_of(3, 0x14, b"t61 \x1b[31m \x9b31m \x07")),
        ),
        (
            "places of 300 KB",
            with("places", &|draft| {
                let info = tlv(
                    0x30,
                    &tlv(0x30, &[oid(&[1, 3, 6, 1, 5, 5, 7, 48, 2]), place(0x86, &EVIL.repeat(10_000))].concat()),
                );
                let mut value = oid(&[1, 3, 6, 1, 5, 5, 7, 1, 1]);
                value.extend(tlv(0x04, &info));
                draft.extensions.push(tlv(0x30, &value));
            }),
        ),
        (
            "3,000 critical extensions",
            with("critical", &|draft| {
                for number in 0..3_000 {
                    draft.extensions.push(extension(&[1, 3, 6, 1, 4, 1, 99999, number], true, &[5, 0]));
                }
            }),
        ),
    ]
}

/// Fails if a text would draw on a terminal.
#[track_caller]
fn is_plain(what: &str, text: &str) {
    let is_odd = |c: char| {
        c.is_control() && c != '\n'
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e0fff}')
    };
    let found = text.chars().find(|c| is_odd(*c));
    assert_eq!(found, None, "{what}");
}

/// The longest text in a JSON value.
fn longest(value: &serde_json::Value) -> usize {
    use serde_json::Value;
    match value {
        Value::String(text) => text.chars().count(),
        Value::Array(all) => all.iter().map(longest).max().unwrap_or(0),
        Value::Object(all) => all.iter().map(|(key, value)| longest(value).max(key.len())).max().unwrap_or(0),
        _ => 0,
    }
}

#[test]
fn texts_of_certificates_are_bounded_and_plain_wherever_they_are_told() {
    let node = Node::new(Kind::Bookworm, "");
    let key = CertKey::new();
    let all = hostile(&key);
    for (at, (_, draft)) in all.iter().enumerate() {
        // A path is a text too.
        fs::write(
            node.source.join(format!("{at}\u{1b}[2J\u{202e}.crt")),
            nodetrust_core::certificate::pem::encode(&draft.signed(&key)),
        )
        .unwrap();
    }
    let files: Vec<String> =
        fs::read_dir(&node.source).unwrap().map(|entry| entry.unwrap().path().to_str().unwrap().to_owned()).collect();
    for file in &files {
        let json = node.nodetrust(&["inspect", "-o", "json", file]);
        assert!(json.code == 0 || json.code == 2, "{} {}", json.code, json.err);
        assert!(json.out.len() < 20_000, "{file}: {} bytes", json.out.len());
        assert!(longest(&json.json()) <= MAX_SENTENCE_CHARS, "{file}");
        let table = node.nodetrust(&["inspect", file]);
        assert!(table.out.len() < 10_000, "{file}: {} bytes", table.out.len());
        is_plain(file, &table.out);
        is_plain(file, &table.err);
    }
    let agent = node.agent(&format!("{}policy: {{notCa: accept}}\n", fast("1h")));
    agent.wait_status("all told", LIMIT, |status| status["sources"][0]["anchors"].as_u64().unwrap_or(0) > 0);
    let (_, status) = agent.get("/status").unwrap();
    let value: serde_json::Value = serde_json::from_str(&status).unwrap();
    let rows = value["anchors"].as_array().unwrap().len();
    assert!(rows >= 4, "most of them are anchors: {status}");
    assert!(status.len() < 100_000 && longest(&value) <= MAX_SENTENCE_CHARS, "{} bytes", status.len());
    for path in ["/metrics", "/"] {
        let (_, text) = agent.get(path).unwrap();
        assert!(text.len() < 200_000, "{path}: {} bytes", text.len());
        is_plain(path, &text);
        let most = text.lines().map(|line| line.chars().count()).max().unwrap_or(0);
        assert!(path != "/metrics" || most <= 4 * MAX_TEXT_CHARS, "a line of {most}");
    }
    let screen = node.nodetrust(&["status"]);
    is_plain("status", &screen.out);
    assert!(screen.out.len() < 50_000);
    let log = agent.log_text();
    is_plain("the log", &log);
    assert!(log.len() < 500_000, "{}", log.len());

    // A server's certificate below such a CA names the place of its issuer.
    let leaf_key = CertKey::new();
    let mut unknown = CertDraft::ca("x", &key);
    unknown.subject = common(&format!("unknown {EVIL}"));
    let mut leaf = CertDraft::leaf(&unknown, &leaf_key);
    leaf.set(SIGNER_ID, Vec::new());
    let place = tlv(0x86, format!("http://x/{}", EVIL.repeat(1_000)).as_bytes());
    let info = seq(&[seq(&[oid(&[1, 3, 6, 1, 5, 5, 7, 48, 2]), place])]);
    leaf.extensions.push(extension(&[1, 3, 6, 1, 5, 5, 7, 1, 1], false, &info));
    let server = TlsServer::of(&node, &leaf.pem(&key), &leaf_key.pem(), "", &[]);
    let done = node.nodetrust(&["probe", &server.target()]).expect(2);
    assert!(done.out.len() < 10_000, "{}", done.out.len());
    is_plain("probe", &done.out);
    let json = node.nodetrust(&["probe", "-o", "json", &server.target()]).expect(2);
    assert!(longest(&json.json()) <= MAX_SENTENCE_CHARS && json.out.contains("http://x/"), "{}", json.out);
}
