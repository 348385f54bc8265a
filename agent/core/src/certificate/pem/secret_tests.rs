//! Keys in the forms in which they turn up, each alone and among certificates; and that nothing else is taken for one.

use data_encoding::{BASE64, BASE64URL_NOPAD};
use rcgen::KeyPair;

use super::super::{RejectReason, encode, scan};

/// DER of this tag, with the length in its shortest form.
fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let head = match length {
        0..0x80 => vec![tag, length as u8],
        0x80..0x100 => vec![tag, 0x81, length as u8],
        _ => vec![tag, 0x82, (length >> 8) as u8, length as u8],
    };
    [head, content.to_vec()].concat()
}

fn number(bytes: usize, first: u8) -> Vec<u8> {
    let mut value: Vec<u8> = (0..bytes).map(|at| (at * 37 + 11) as u8).collect();
    value[0] = first;
    tlv(0x02, &value)
}

/// Keys of every structure, by name. Their numbers are made up: the structure is what is looked at.
fn keys() -> Vec<(&'static str, Vec<u8>)> {
    let filler = |bytes: usize| (0..bytes).map(|at| (at * 53 + 7) as u8).collect::<Vec<u8>>();
    let rsa = |bytes: usize| {
        let half = bytes / 2;
        let numbers = [
            tlv(0x02, &[0]),
            tlv(0x02, &[&[0], filler(bytes).as_slice()].concat()),
            tlv(0x02, &[1, 0, 1]),
            number(bytes, 0x11),
            number(half, 0x71),
            number(half, 0x72),
            number(half, 0x13),
            number(half, 0x14),
            number(half, 0x15),
        ];
        tlv(0x30, &numbers.concat())
    };
    let oid = |bytes: &[u8]| tlv(0x06, bytes);
    let rsa_oid = oid(b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01");
    let pkcs8 = |oid: &[u8], more: &[u8], key: &[u8]| {
        tlv(0x30, &[tlv(0x02, &[0]), tlv(0x30, &[oid, more].concat()), tlv(0x04, key)].concat())
    };
    let sec1 = tlv(
        0x30,
        &[tlv(0x02, &[1]), tlv(0x04, &filler(32)), tlv(0xa0, &oid(b"\x2a\x86\x48\xce\x3d\x03\x01\x07"))].concat(),
    );
    let kdf = tlv(0x30, &[oid(b"\x2a\x86\x48\x86\xf7\x0d\x01\x05\x0d"), tlv(0x30, &filler(60))].concat());
    let old_kdf = tlv(0x30, &[oid(b"\x2a\x86\x48\x86\xf7\x0d\x01\x0c\x01\x03"), tlv(0x30, &filler(14))].concat());
    let pgp_rsa = [&[0x95, 0x01, 0xd8, 4, 0x5f, 1, 2, 3, 1, 0x08, 0x00, 0x91], filler(400).as_slice()].concat();
    let pgp_ed25519 =
        [&[0x94, 0x58, 4, 0x5f, 1, 2, 3, 22, 9, 0x2b, 6, 1, 4, 1, 0xda, 0x47, 0x0f, 1], filler(70).as_slice()].concat();
    vec![
        ("PKCS#8, P-256, made by a library", KeyPair::generate().unwrap().serialize_der()),
        ("PKCS#8, Ed25519", KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap().serialize_der()),
        ("PKCS#8, RSA", pkcs8(&rsa_oid, &[5, 0], &rsa(256))),
        ("PKCS#8, Ed448", pkcs8(&oid(b"\x2b\x65\x71"), &[], &tlv(0x04, &filler(57)))),
        ("PKCS#1", rsa(256)),
        ("PKCS#1, 4096 bits", rsa(512)),
        ("SEC 1", sec1),
        ("encrypted PKCS#8", tlv(0x30, &[kdf, tlv(0x04, &filler(320))].concat())),
        ("encrypted PKCS#8 of PKCS#12", tlv(0x30, &[old_kdf, tlv(0x04, &filler(320))].concat())),
        ("OpenSSH", [b"openssh-key-v1\0\0\0\0\x04none".as_slice(), &filler(300)].concat()),
        ("OpenPGP, RSA", pgp_rsa),
        ("OpenPGP, Ed25519", pgp_ed25519),
    ]
}

fn wrapped(text: &str, columns: usize) -> String {
    text.as_bytes().chunks(columns).map(|line| format!("{}\n", std::str::from_utf8(line).unwrap())).collect()
}

fn certificate() -> String {
    encode(&crate::testing::self_signed(|_| {}))
}

#[track_caller]
fn is_refused(what: &str, bytes: &[u8], secret: &str) {
    let scan = scan(bytes);
    let shown = String::from_utf8_lossy(bytes).chars().take(600).collect::<String>();
    assert!(scan.blocks.is_empty() && scan.notes.is_empty(), "{what}: {scan:?}\n{shown}");
    let reasons: Vec<RejectReason> = scan.faults.iter().map(|fault| fault.reason).collect();
    assert_eq!(reasons, [RejectReason::PrivateKey], "{what}: {scan:?}\n{shown}");
    assert!(!format!("{scan:?}").contains(secret), "{what}: quoted in {scan:?}");
}

#[test]
fn a_key_without_a_label_is_a_key_in_every_form_and_wrapping() {
    let cert = certificate();
    for (name, der) in keys() {
        let base64 = BASE64.encode(&der);
        let secret = &base64[base64.len() / 2..base64.len() / 2 + 16];
        let (lines, one) = (wrapped(&base64, 64), base64.clone());
        let pem = format!("-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n{lines}");
        let indented = lines.replace('\n', "\n    ");
        let forms: Vec<(&str, Vec<u8>)> = vec![
            ("DER", der.clone()),
            ("lines of 64", lines.clone().into()),
            ("lines of 8", wrapped(&base64, 8).into()),
            ("lines of 76 with CRLF", wrapped(&base64, 76).replace('\n', "\r\n").into()),
            ("one line", one.clone().into()),
            ("base64 for URLs", BASE64URL_NOPAD.encode(&der).into()),
            ("behind a certificate", format!("{cert}{lines}").into()),
            ("before a certificate", format!("{lines}{cert}").into()),
            ("behind a comment", format!("# the key\n{lines}\n{cert}").into()),
            ("commented out", lines.lines().map(|line| format!("# {line}\n")).collect::<String>().into()),
            ("YAML, one line", format!("data:\n  tls.key: {one}\n").into()),
            ("YAML, a block", format!("key: |\n    {indented}\n{cert}").into()),
            ("JSON", format!("{{\"crt\": \"x\", \"key\": \"{one}\"}}").into()),
            ("JSON with line ends", format!("{{\"key\":\"{}\"}}", lines.replace('\n', "\\n")).into()),
            ("JSON with slashes escaped", format!("{{\"key\":\"{}\"}}", one.replace('/', "\\/")).into()),
            ("a variable", format!("export KEY={one}\n").into()),
            ("a variable in quotes", format!("KEY='{one}'\n").into()),
            ("base64 of base64", BASE64.encode(lines.as_bytes()).into()),
            ("base64 of base64 in lines", wrapped(&BASE64.encode(lines.as_bytes()), 76).into()),
            ("base64 of PEM with a certificate first", wrapped(&BASE64.encode(pem.as_bytes()), 76).into()),
            ("UTF-16", lines.encode_utf16().flat_map(u16::to_le_bytes).collect()),
            (
                "UTF-16 with its mark",
                [b"\xfe\xff".to_vec(), lines.encode_utf16().flat_map(u16::to_be_bytes).collect()].concat(),
            ),
            ("under a certificate's label", encode(&der).into()),
        ];
        for (form, bytes) in forms {
            is_refused(&format!("{name}, {form}"), &bytes, secret);
        }
    }
    // A key in DER behind a certificate in DER.
    let (_, key) = keys().remove(2);
    is_refused("DER behind DER", &[crate::testing::self_signed(|_| {}), key.clone()].concat(), "MII");
    let pem = encode(&key).replace("CERTIFICATE", "PRIVATE KEY");
    is_refused("PEM behind DER", &[crate::testing::self_signed(|_| {}), pem.into_bytes()].concat(), "MII");
}

#[test]
fn a_begin_of_a_key_that_is_not_quite_one_is_one() {
    let cert = certificate();
    // The content of an encrypted key of the old form has no structure.
    let body = "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00112233445566778899AABBCCDDEEFF\n\n3q2+7wABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4fICEiIyQlJicoKSor\n";
    let secret = "3q2+7wABAgME";
    for (begin, end) in [
        ("-----BEGIN RSA PRIVATE KEY-----", "-----END RSA PRIVATE KEY-----"),
        ("----BEGIN PRIVATE KEY----", "----END PRIVATE KEY----"),
        ("---BEGIN PRIVATE KEY---", "---END PRIVATE KEY---"),
        ("-BEGIN PRIVATE KEY-", ""),
        ("------BEGIN PRIVATE KEY------", ""),
        ("---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ----", "---- END SSH2 ENCRYPTED PRIVATE KEY ----"),
        ("-----BEGIN PGP PRIVATE KEY BLOCK-----", ""),
        ("\u{2014}\u{2014}-BEGIN PRIVATE KEY-----", ""),
        ("\u{2011}\u{2011}\u{2011}\u{2011}\u{2011}BEGIN PRIVATE KEY\u{2011}\u{2011}\u{2011}\u{2011}\u{2011}", ""),
        ("\u{2013}\u{2013}BEGIN RSA PRIVATE KEY\u{2013}\u{2013}", ""),
        ("-----begin private key-----", "-----end private key-----"),
        ("-----Begin Rsa Private Key-----", ""),
        ("-----BEGIN  PRIVATE  KEY -----", ""),
        ("----- BEGIN PRIVATE KEY -----", ""),
        ("-----BEGIN\u{a0}PRIVATE\u{a0}KEY-----", ""),
        ("-----BEGIN PRIVATEKEY-----", ""),
        ("-----BEGIN PRIVATE_KEY-----", ""),
        ("-----BEGIN PRIVATE KEY", ""),
        ("BEGIN PRIVATE KEY", "END PRIVATE KEY"),
        ("  -----BEGIN PRIVATE KEY-----", "  -----END PRIVATE KEY-----"),
        ("\t-----BEGIN EC PRIVATE KEY-----", ""),
        ("\"-----BEGIN PRIVATE KEY-----", ""),
        ("key: -----BEGIN PRIVATE KEY-----", ""),
        ("tls.key: \"-----BEGIN PRIVATE KEY-----", ""),
        ("# -----BEGIN PRIVATE KEY-----", ""),
        ("> -----BEGIN PRIVATE KEY-----", ""),
        ("my key, -----BEGIN PRIVATE KEY-----", ""),
        ("\u{200b}-----BEGIN PRIVATE KEY-----", ""),
        ("PuTTY-User-Key-File-3: ssh-rsa", ""),
        ("Private-Key: (2048 bit, 2 primes)", ""),
        ("ED25519 Private-Key:", ""),
        ("-----BEGIN_PRIVATE_KEY-----", ""),
        ("AGE-SECRET-KEY-1QQPZRY9X8GF2TVDW0S3JN54KHCE6MUA7LQQPZRY9X8GF2TVDW0S3JN54KH", ""),
    ] {
        for text in
            [format!("{begin}\n{body}{end}\n{cert}"), format!("{cert}{begin}\r\n{}", body.replace('\n', "\r\n"))]
        {
            is_refused(begin, text.as_bytes(), secret);
            is_refused(begin, BASE64.encode(text.as_bytes()).as_bytes(), secret);
        }
        let json = format!("{{\"key\": \"{}\"}}", format!("{begin}\n{body}").replace('"', "\\\"").replace('\n', "\\n"));
        is_refused(begin, json.as_bytes(), secret);
    }
    is_refused(
        "commented out",
        format!(
            "# -----BEGIN PRIVATE KEY-----\n{}{cert}",
            body.lines().map(|line| format!("# {line}\n")).collect::<String>()
        )
        .as_bytes(),
        secret,
    );
    is_refused(
        "one line",
        format!("-----BEGIN RSA PRIVATE KEY----- {} -----END RSA PRIVATE KEY-----\n", body.replace('\n', " "))
            .as_bytes(),
        secret,
    );
    is_refused(
        "URL",
        format!("key=-----BEGIN%20RSA%20PRIVATE%20KEY-----%0A{}", body.replace('\n', "%0A").replace(' ', "%20"))
            .as_bytes(),
        secret,
    );
}

#[test]
fn keys_of_the_web_are_keys() {
    let d = "jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI";
    for text in [
        format!(
            "{{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU\",\"d\":\"{d}\"}}"
        ),
        format!("{{ \"d\" : \"{d}\", \"kty\" : \"OKP\" }}"),
        format!("{{\"keys\":[{{\"kty\":\"oct\",\"k\":\"{d}\"}}]}}"),
        format!("kty: RSA\nd: {d}\n"),
        format!("jwk: \"{{\\\"kty\\\":\\\"EC\\\",\\\"d\\\":\\\"{d}\\\"}}\"\n"),
        BASE64.encode(format!("{{\"kty\":\"EC\",\"d\":\"{d}\"}}").as_bytes()),
        format!("<RSAKeyValue><Modulus>AQAB</Modulus><D>{d}</D></RSAKeyValue>"),
    ] {
        is_refused("JWK", text.as_bytes(), d);
    }
    let public = r#"{"kty":"EC","kid":"d","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#;
    assert_ne!(scan(public.as_bytes()).faults[0].reason, RejectReason::PrivateKey);
}

#[test]
fn certificates_and_words_are_no_keys() {
    let one = certificate();
    for words in [
        "Never commit a -----BEGIN PRIVATE KEY----- block.",
        "# do not put -----BEGIN RSA PRIVATE KEY----- here",
        "we BEGIN with the PRIVATE KEY",
        "The BEGIN PRIVATE KEY line belongs elsewhere",
        "this file has no PRIVATE KEY",
        "see https://docs.corp.example/how-to/remove-a-private-key-from-git before you BEGIN",
        "# private key: kept in the vault, kty d",
        "The Private-Key: kept elsewhere",
        "see AGE-SECRET-KEY in its manual",
    ] {
        let scan = scan(format!("{words}\n\n{one}").as_bytes());
        assert_eq!((scan.blocks.len(), scan.faults.len()), (1, 0), "{words}: {scan:?}");
    }
    // Bare base64 of bytes that are no key.
    for der in [crate::testing::self_signed(|_| {}), b"\x30\x05\x02\x01\x03\x30\x00".to_vec()] {
        let text = BASE64.encode(&der);
        assert_ne!(scan(text.as_bytes()).faults[0].reason, RejectReason::PrivateKey);
    }
}

proptest::proptest! {
    /// Any bytes in base64 lines, as the signatures and keys of certificates are, are no key; nor does anything panic.
    #[test]
    fn no_bytes_by_chance_are_a_key(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..2000), columns in 1usize..100) {
        let text = wrapped(&BASE64.encode(&[&[0x30, 0x82], bytes.as_slice()].concat()), columns);
        let block = format!("-----BEGIN CERTIFICATE-----\n{text}-----END CERTIFICATE-----\n");
        let found = scan(block.as_bytes()).faults.iter().any(|fault| fault.reason == RejectReason::PrivateKey);
        // Random bytes may be a sequence that begins with the integer 0 or 1.
        proptest::prop_assert!(!found || bytes.iter().take(12).any(|byte| *byte == 2));
        super::line(&bytes);
        super::super::kinds::of_der(&bytes);
    }
}
