//! Every row of facts E.1, and what a hostile or careless author could write.

use super::*;

/// Not a certificate: the scanner does not look into blocks.
const DER: &[u8] = b"\x30\x03\x30\x01\x05";
const BODY: &str = "MAMwAQU=";

fn block() -> String {
    encode(DER)
}

/// The reasons and lines of all faults.
fn faults(text: impl AsRef<[u8]>) -> Vec<(usize, RejectReason)> {
    scan(text.as_ref()).faults.iter().map(|fault| (fault.line, fault.reason)).collect()
}

fn good(text: impl AsRef<[u8]>) -> usize {
    let scan = scan(text.as_ref());
    assert!(scan.blocks.iter().all(|block| block.der == DER), "{scan:?}");
    scan.blocks.len()
}

fn clean(text: impl AsRef<[u8]>) -> usize {
    assert_eq!(faults(&text), []);
    good(text)
}

#[test]
fn encodes_with_64_columns_and_a_final_newline() {
    let text = encode(&[0x30; 100]);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "-----BEGIN CERTIFICATE-----");
    assert_eq!(lines[1].len(), 64);
    assert_eq!(*lines.last().unwrap(), "-----END CERTIFICATE-----");
    assert!(text.ends_with("-----\n") && !text.contains('\r') && !text.contains("\n\n"));
    assert_eq!(scan(text.as_bytes()).blocks[0].der, [0x30; 100]);
}

#[test]
fn accepts_what_every_reader_accepts() {
    let one = block();
    assert_eq!(clean(&one), 1);
    assert_eq!(clean(format!("{one}{one}{one}")), 3);
    assert_eq!(clean(one.replace('\n', "\r\n")), 1, "CRLF");
    assert_eq!(clean(one.replace('\n', "\r")), 1, "CR");
    assert_eq!(clean(one.trim_end()), 1, "no newline at the end");
    assert_eq!(clean(format!("# Corp Root CA\nSubject: CN=x\n\n{one}trailing words\n")), 1);
    assert_eq!(clean(one.replace("-----\n", "-----  \t\n")), 1, "trailing blanks");
    assert_eq!(clean([b"\xe4\xf6\xfc\n".as_slice(), one.as_bytes()].concat()), 1, "text that is not UTF-8");
    let long = data_encoding::BASE64.encode(&[0x30; 3000]);
    assert_eq!(
        scan(format!("-----BEGIN CERTIFICATE-----\n{long}\n-----END CERTIFICATE-----\n").as_bytes()).blocks.len(),
        1
    );
}

#[test]
fn an_empty_file_says_nothing() {
    for empty in ["", "\n", " \t\r\n\n", "\u{feff}"] {
        assert_eq!(clean(empty), 0, "{empty:?}");
    }
}

#[test]
fn strips_a_byte_order_mark_and_says_so() {
    let text = format!("\u{feff}{}", block());
    assert_eq!(clean(&text), 1);
    assert!(scan(text.as_bytes()).notes[0].contains("byte order mark"));
}

#[test]
fn converts_legacy_labels_and_says_so() {
    for (label, kind) in [
        ("X509 CERTIFICATE", Label::Legacy),
        ("X.509 CERTIFICATE", Label::Legacy),
        ("TRUSTED CERTIFICATE", Label::Trusted),
    ] {
        let text = block().replace("CERTIFICATE", label);
        assert_eq!(clean(&text), 1, "{label}");
        let scan = scan(text.as_bytes());
        assert_eq!(scan.blocks[0].label, kind);
        assert!(scan.notes[0].contains(label));
    }
}

#[test]
fn a_broken_block_costs_only_itself() {
    let one = block();
    let broken = [
        ("missing END, then a good block", format!("-----BEGIN CERTIFICATE-----\n{BODY}\n{one}"), 1),
        ("labels differ", format!("-----BEGIN CERTIFICATE-----\n{BODY}\n-----END X509 CERTIFICATE-----\n{one}"), 1),
        ("headers", format!("-----BEGIN CERTIFICATE-----\nFoo: bar\n\n{BODY}\n-----END CERTIFICATE-----\n{one}"), 1),
        ("bad base64", format!("-----BEGIN CERTIFICATE-----\nMAMw*QU=\n-----END CERTIFICATE-----\n{one}"), 1),
        ("cut base64", format!("-----BEGIN CERTIFICATE-----\nMAMwA\n-----END CERTIFICATE-----\n{one}"), 1),
        ("padding inside", format!("-----BEGIN CERTIFICATE-----\n{BODY}{BODY}\n-----END CERTIFICATE-----\n{one}"), 1),
        ("indented", format!("  -----BEGIN CERTIFICATE-----\n  {BODY}\n  -----END CERTIFICATE-----\n{one}"), 1),
    ];
    for (what, text, line) in broken {
        let reasons = faults(&text);
        assert_eq!(reasons[0], (line, RejectReason::NotPemOrDer), "{what}: {:?}", scan(text.as_bytes()));
        assert_eq!(good(&text), 1, "{what}");
    }
}

#[test]
fn glued_blocks_lose_both_and_say_so() {
    let one = block();
    let glued = format!("{}{}{}", one.trim_end(), one, one);
    // The first block's END and the second's BEGIN share line 3; the third block is whole.
    assert_eq!(faults(&glued), [(1, RejectReason::NotPemOrDer), (3, RejectReason::NotPemOrDer)]);
    assert_eq!(good(&glued), 1);
}

#[test]
fn a_cut_file_keeps_what_came_before() {
    let text = format!("{}-----BEGIN CERTIFICATE-----\n{BODY}", block());
    assert_eq!(faults(&text), [(4, RejectReason::NotPemOrDer)]);
    assert_eq!(good(&text), 1);
}

#[test]
fn utf16_is_named() {
    for big in [false, true] {
        let unit = |c: u16| if big { c.to_be_bytes() } else { c.to_le_bytes() };
        let mut text: Vec<u8> = block().encode_utf16().flat_map(unit).collect();
        assert_eq!(faults(&text), [(1, RejectReason::NotPemOrDer)]);
        text.splice(0..0, unit(0xfeff));
        assert_eq!(faults(&text), [(1, RejectReason::NotPemOrDer)]);
        assert!(scan(&text).faults[0].detail.contains("UTF-16"));
    }
}

#[test]
fn other_blocks_are_not_certificates() {
    let text = format!("-----BEGIN CERTIFICATE REQUEST-----\n{BODY}\n-----END CERTIFICATE REQUEST-----\n{}", block());
    assert_eq!(faults(&text), [(1, RejectReason::NoCertificate)]);
    assert_eq!(good(&text), 1);
    assert_eq!(faults("just words\n"), [(0, RejectReason::NotPemOrDer)]);
    assert_eq!(faults(b"\xfe\xed\xfe\xed\x00\x00\x00\x02"), [(0, RejectReason::NotPemOrDer)]);
}

#[test]
fn a_private_key_rejects_the_whole_file_and_is_never_quoted() {
    let secret = "c2VjcmV0a2V5";
    let one = block();
    let keys = [
        format!("{one}-----BEGIN PRIVATE KEY-----\n{secret}\n-----END PRIVATE KEY-----\n"),
        format!("-----BEGIN RSA PRIVATE KEY-----\n{secret}\n-----END RSA PRIVATE KEY-----\n{one}"),
        format!("-----BEGIN ENCRYPTED PRIVATE KEY-----\n{secret}\n{one}"),
        format!("{}-----BEGIN EC PRIVATE KEY-----\n{secret}\n", one.trim_end()), // glued to an END
        format!("   -----BEGIN OPENSSH PRIVATE KEY-----\n{secret}\n{one}"),
        format!("\u{feff}-----BEGIN PRIVATE KEY-----\n{secret}\n{one}"),
        // a PKCS#8 key under a certificate's label
        format!("{one}{}", encode(b"\x30\x0a\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70")),
    ];
    for text in keys {
        let scan = scan(text.as_bytes());
        assert_eq!(scan.blocks, [], "{text}");
        assert_eq!(scan.faults.len(), 1, "{text}");
        assert_eq!(scan.faults[0].reason, RejectReason::PrivateKey);
        assert!(!format!("{scan:?}").contains(secret));
    }
    // DER: PKCS#8, SEC 1
    assert_eq!(faults(b"\x30\x0a\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70"), [(0, RejectReason::PrivateKey)]);
    assert_eq!(faults(b"\x30\x05\x02\x01\x01\x04\x00"), [(0, RejectReason::PrivateKey)]);
    assert_eq!(faults(b"\x30\x05\x02\x01\x03\x30\x00"), [(0, RejectReason::NotPemOrDer)], "PKCS#12");
}

#[test]
fn words_about_a_private_key_are_just_words() {
    assert_eq!(clean(format!("this file has no PRIVATE KEY\n{}", block())), 1);
}

#[test]
fn limits_hold() {
    assert_eq!(faults(vec![b'x'; MAX_FILE_BYTES + 1]), [(0, RejectReason::TooLarge)]);
    let many = "-----END CERTIFICATE-----\n".repeat(MAX_FAULTS + 50);
    let found = faults(&many);
    assert_eq!(found.len(), MAX_FAULTS + 1);
    assert_eq!(found.last().unwrap().1, RejectReason::TooMany);
}

proptest::proptest! {
    /// Any bytes: no panic, and no more blocks than BEGIN lines.
    #[test]
    fn any_bytes(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..2000)) {
        scan(&bytes);
    }

    /// Pieces of PEM in any order: every BEGIN ends as one block, one fault or one note.
    #[test]
    fn every_begin_is_accounted_for(pieces in proptest::collection::vec(0usize..9, 0..30)) {
        let text: String = pieces.iter().map(|piece| [
            "-----BEGIN CERTIFICATE-----\n", "-----END CERTIFICATE-----\n", "MAMwAQU=\n", "-----BEGIN CERTIFICATE-----",
            "-----END CERTIFICATE-----", "-----BEGIN X509 CERTIFICATE-----\n", "-----END X509 CERTIFICATE-----\n", "\r\n", "  ",
        ][*piece]).collect();
        let begins = text.matches("-----BEGIN ").count();
        let scan = scan(text.as_bytes());
        let glued_twice = text.lines().any(|line| line.matches("-----BEGIN ").count() > 1);
        proptest::prop_assert!(scan.blocks.len() <= begins);
        if !glued_twice {
            proptest::prop_assert!(scan.blocks.len() + scan.faults.len() + scan.notes.len() >= begins, "{text:?} {scan:?}");
        }
        proptest::prop_assert!(scan.blocks.iter().all(|block| block.der == DER));
    }
}
