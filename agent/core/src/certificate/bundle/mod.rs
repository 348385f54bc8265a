//! The extracted bundle, read as its consumers read it.
//!
//! In: the bytes of the bundle. Out: [`Effective`]. Unlike the scanner for sources this one asks what the readers of bundles make
//! of the file, by their own rules: one block of whatever kind that OpenSSL cannot decode and it loads nothing (facts 0.5), and
//! so does GnuTLS for a certificate that it cannot import; text between blocks does no harm.

mod blanks;
mod effective;
mod gnutls;
mod known;
mod openssl;

use std::collections::{BTreeMap, BTreeSet};

use memchr::{memchr, memchr_iter};

use crate::certificate::{
    encoded,
    fingerprint::Fingerprint,
    pem::{self, Fault, RejectReason},
};
pub use effective::{BundleReader, Effective, KeyIdMark};
pub use known::KnownBlocks;
use openssl::{BundleItem, LoadedBlock};

/// The certificates that both Go and OpenSSL read, DER, in their order.
pub fn certificates(bytes: &[u8]) -> Vec<Vec<u8>> {
    certificates_after(bytes, &Effective::default())
}

/// The same after a bundle was read: what is to the byte a block of that one, and was in order there, is not judged again.
pub fn certificates_after(bytes: &[u8], earlier: &Effective) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    openssl::read(bytes, &earlier.known, |found| match found {
        BundleItem::Known(_, block) => all.extend(block.der()),
        BundleItem::Block(block) if is_read_by_go(&block) => all.push(block.der),
        BundleItem::Block(_) | BundleItem::Fault(..) | BundleItem::PrivateKey => {}
    });
    all
}

/// Reads a bundle back.
pub fn read(bytes: &[u8]) -> Effective {
    read_after(bytes, &Effective::default())
}

/// The same after another one was read: what is to the byte a block of that one, and was in order there, is not decoded again.
pub fn read_after(bytes: &[u8], earlier: &Effective) -> Effective {
    let mut effective = Effective { present: true, ..Effective::default() };
    let mut set = BTreeSet::new();
    let fault = |faults: &mut Vec<Fault>, line: usize, detail: String| {
        if faults.len() < pem::MAX_FAULTS {
            faults.push(Fault { line, reason: RejectReason::NotPemOrDer, detail });
        }
    };
    // where the blocks begin: those that were known, and those that GnuTLS may read as well
    let (mut known, mut loaded) = (BTreeSet::new(), BTreeMap::new());
    openssl::read(bytes, &earlier.known, |found| match found {
        BundleItem::PrivateKey => effective.private_key = true,
        BundleItem::Fault(line, detail) => fault(&mut effective.faults, line, detail),
        BundleItem::Known(at, block) => {
            effective.count += 1;
            set.insert(block.fingerprint);
            effective.key_ids.extend(earlier.key_ids.get_key_value(&block.fingerprint));
            effective.known.keep(&block);
            known.insert(at);
        }
        BundleItem::Block(block) => {
            if is_read_by_go(&block) {
                let fingerprint = Fingerprint::of_der(&block.der);
                effective.count += 1;
                set.insert(fingerprint);
                effective.key_ids.extend(encoded::key_id(&block.der).map(|id| (fingerprint, KeyIdMark::of(id))));
                loaded.insert(block.at, (block.text, fingerprint));
            }
        }
    });
    effective.set = set;
    let (mut line, mut counted) = (1, 0);
    gnutls::read(bytes, &known, |at, result| match (result, loaded.get(&at)) {
        (Ok(()), Some((text, fingerprint))) => effective.known.add(text, *fingerprint),
        (Ok(()), None) => {}
        (Err(detail), _) => {
            line += memchr_iter(b'\n', &bytes[counted..at]).count();
            counted = at;
            fault(&mut effective.gnutls_faults, line, detail);
        }
    });
    effective
}

/// Whether Go's `pem.Decode` finds a certificate in a block that OpenSSL has read: it knows one label, no headers, and none of
/// the blanks but spaces and tabs. Whether it parses what is in it is another matter ([`readers`](crate::certificate::readers)).
fn is_read_by_go(block: &LoadedBlock<'_>) -> bool {
    let Some((first, rest)) = line(block.text) else { return false };
    let mut at = 0;
    let mut body = rest;
    while !body[at..].starts_with(b"-----END ") {
        match memchr(b'\n', &body[at..]) {
            Some(end) => at += end + 1,
            None => return false,
        }
    }
    let last = line(&body[at..]).map_or(trimmed(&body[at..]), |(last, _)| last);
    body = &body[..at];
    let header = line(body).is_some_and(|(first, _)| first.contains(&b':'));
    block.begins_line
        && block.label == b"CERTIFICATE"
        && first == b"-----BEGIN CERTIFICATE-----"
        && last == b"-----END CERTIFICATE-----"
        && !header
        // to the end in any case: without a way out in the middle it takes a third of the time
        && body.iter().fold(true, |all, byte| all & IS_DIGIT_OR_BLANK[usize::from(*byte)])
}

/// The bytes that Go skips or decodes in the body of a block. A table: every byte of every bundle is looked up here.
const IS_DIGIT_OR_BLANK: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        table[byte as usize] =
            byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=' | b' ' | b'\t' | b'\r' | b'\n');
        byte += 1;
    }
    table
};

/// A line without its end and the blanks before that, and what follows it.
fn line(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr(b'\n', text)?;
    let line = text[..end].strip_suffix(b"\r").unwrap_or(&text[..end]);
    Some((trimmed(line), &text[end + 1..]))
}

fn trimmed(line: &[u8]) -> &[u8] {
    let length = line.iter().rposition(|byte| !matches!(byte, b' ' | b'\t')).map_or(0, |last| last + 1);
    &line[..length]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block() -> String {
        crate::testing::ca("Corp Root").pem()
    }

    /// A block of some kind.
    fn other(label: &str, body: &str) -> String {
        format!("-----BEGIN {label}-----\n{body}-----END {label}-----\n")
    }

    #[test]
    fn counts_and_names_what_both_readers_read() {
        let one = block();
        let trusted = one.replace("CERT", "TRUSTED CERT");
        let text = format!("# Corp: Root\nsubject -----BEGIN nothing\n{one}{one}{trusted}");
        let effective = read(text.as_bytes());
        assert_eq!((effective.count, effective.set.len(), effective.repeated()), (2, 1, 1));
        assert_eq!((effective.faults, effective.gnutls_faults), (vec![], vec![]));
        assert!(effective.present && !effective.private_key);
    }

    #[test]
    fn a_block_that_openssl_refuses_is_a_fault_with_its_line() {
        let one = block();
        let lines: Vec<&str> = one.lines().collect();
        let insert = |at: usize, line: &str| {
            let mut lines = lines.clone();
            lines.insert(at, line);
            lines.join("\n") + "\n"
        };
        for (what, text) in [
            ("cut", format!("-----BEGIN CERTIFICATE-----\nMIIB\n{one}")),
            ("end of file", "-----BEGIN CERTIFICATE-----\nMIIB".into()),
            ("garbage", other("CERTIFICATE", "AAAA\n")),
            ("label", one.replace("END CERT", "END X509 CERT")),
            ("glued", format!("{}{one}", one.trim_end())),
            ("header", one.replace("BEGIN CERTIFICATE-----\n", "BEGIN CERTIFICATE-----\na: b\n\n")),
            ("blank line in the middle", insert(3, "")),
            ("blank line before END", insert(lines.len() - 1, "")),
            ("form feed alone on its line", insert(3, "\x0c")),
            ("form feed within", one.replacen("MII", "M\x0cII", 1)),
            ("vertical tab within", one.replacen("MII", "M\x0bII", 1)),
            ("NUL within", one.replacen("MII", "M\0II", 1)),
            ("four dashes at END", one.replace("TE-----\n", "TE----\n").replacen("TE----\n", "TE-----\n", 1)),
            ("empty block of another kind", other("DH PARAMETERS", "")),
            ("broken block of another kind", other("ANYTHING", "AAA\n")),
            ("revocation list", other("X509 CRL", "MAMCAQA=\n")),
            ("trusted certificate", one.replace(" CERT", " TRUSTED CERT").replacen("MII", "MIA", 1)),
            ("private key", other("PRIVATE KEY", "AAAA\n")),
        ] {
            let effective = read(format!("{one}# comment\n{text}{one}").as_bytes());
            let begins = lines.len() + 2;
            assert_eq!(effective.faults.first().map(|fault| fault.line), Some(begins), "{what}: {effective:?}");
        }
    }

    #[test]
    fn what_openssl_does_not_mind_is_no_fault() {
        let one = block();
        for (what, text) in [
            ("carriage returns", one.replace('\n', "\r\n")),
            ("blanks at line ends", one.replace('\n', " \t\n")),
            ("blank line behind BEGIN", one.replacen("-----\n", "-----\n\n", 1)),
            (
                "one long line",
                one.replace('\n', "")
                    .replace("CERTIFICATE-----", "CERTIFICATE-----\n")
                    .replace("-----END", "\n-----END"),
            ),
            ("byte order mark", format!("\u{feff}{one}")),
            ("unknown kind", other("ANYTHING", "AAAA\n")),
            ("text behind BEGIN", one.replacen("-----\n", "----- x\n", 1)),
            ("indented BEGIN", one.replacen("-----BEGIN", " -----BEGIN", 1).replace("-----END", " -----END")),
        ] {
            let effective = read(format!("{text}{one}").as_bytes());
            assert_eq!(effective.faults, [], "{what}");
            assert!(effective.count >= 1, "{what}");
        }
    }

    /// To OpenSSL a file without line feeds is text, and what it is glued to goes with it.
    #[test]
    fn what_has_no_line_feeds_is_no_certificate() {
        let (one, other) = (block(), block());
        for end in ["", "\n"] {
            let effective = read(format!("{}{end}{other}", one.replace('\n', "\r")).as_bytes());
            assert_eq!((effective.count, effective.faults.len()), (end.len(), 0), "{effective:?}");
        }
    }

    #[test]
    fn what_gnutls_refuses_the_file_for_is_named_apart() {
        let one = block();
        let request = other("CERTIFICATE REQUEST", "MAA=\n");
        for (what, text) in [
            ("a request begins with the same words", request.as_str()),
            ("a comment with these words", "see -----BEGIN CERTIFICATE in the file\n"),
        ] {
            let effective = read(format!("{one}{text}{one}").as_bytes());
            assert_eq!(effective.faults, [], "{what}");
            assert_eq!(effective.gnutls_faults.len(), 1, "{what}: {:?}", effective.gnutls_faults);
            assert_eq!(effective.gnutls_faults[0].line, one.lines().count() + 1, "{what}");
        }
    }

    #[test]
    fn a_private_key_is_noticed_and_the_rest_still_read() {
        let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
        let effective = read(format!("{key}{}", block()).as_bytes());
        assert!(effective.private_key);
        assert_eq!((effective.count, effective.faults.len()), (1, 0));
    }

    /// Many blocks without an end, or with one far away: the time does not grow with their square.
    #[test]
    fn a_hostile_file_is_read_in_one_go() {
        for text in [
            "-----BEGIN CERTIFICATE-----\n".repeat(150_000),
            format!("{}-----END CERTIFICATE-----\n", "-----BEGIN CERTIFICATE-----\n".repeat(150_000)),
            format!(
                "{}{}",
                "-----BEGIN CERTIFICATE-----\n!\n-----END \n".repeat(90_000),
                block().replace(" CERT", " X509 CERT")
            ),
        ] {
            let effective = read(text.as_bytes());
            assert!(!effective.faults.is_empty() && effective.faults.len() <= pem::MAX_FAULTS);
        }
    }

    /// A block whose base64 has unused bits that are set: OpenSSL reads it, GnuTLS does not.
    fn with_unused_bits() -> String {
        let padded = (0..).map(|n| crate::testing::ca(&"x".repeat(n)).pem()).find(|pem| pem.contains('='));
        let padded = padded.unwrap_or_default();
        let at = padded.find('=').unwrap_or_default() - 1;
        // the last digit of one '=' has two unused bits, that of two has four
        let next = char::from(padded.as_bytes()[at] + 1);
        format!("{}{next}{}", &padded[..at], &padded[at + 1..])
    }

    #[test]
    fn a_block_that_is_in_order_is_not_decoded_again() {
        let (one, other) = (block(), block());
        let mut earlier = read(one.as_bytes());
        let another = Fingerprint::of_der(b"another");
        earlier.known.add(one.as_bytes(), another);
        let effective = read_after(format!("# a comment\n{one}{other}").as_bytes(), &earlier);
        assert!(
            effective.set.contains(&another) && effective.set.len() == 2,
            "it was found by its text: {effective:?}"
        );
    }

    #[test]
    fn what_is_known_of_an_earlier_bundle_changes_nothing() {
        let (one, other) = (block(), block());
        let earlier = read(format!("{one}{other}").as_bytes());
        let end = "-----END CERTIFICATE-----\n";
        let texts = [
            one.clone(),
            one.trim_end().to_owned(),
            one.replace('\n', "\r\n"),
            one.replacen("-----\n", "-----\n\n", 1),
            one.replacen("-----\n", "----- \n", 1),
            one.replace(end, ""),
            one.replace(end, "-----END CERTIFICATE-----"),
            one.replace(end, "-----END CERTIFICATE----- \n"),
            one.replace(end, "-----END X509 CERTIFICATE-----\n"),
            one.replace(" CERT", " X509 CERT"),
            one.replace(" CERT", " TRUSTED CERT"),
            one.replacen("-----\n", "-----\na: b\n\n", 1),
            with_unused_bits(),
            format!("\u{feff}{one}"),
            format!(" {one}"),
            format!("no line end{one}"),
            format!("\0{one}"),
            format!("{}{one}", "x".repeat(300)),
            format!("-----BEGIN ANYTHING-----\n{one}"),
            format!("-----BEGIN CERTIFICATE-----\nMIIB\n{one}"),
            format!("-----BEGIN CERTIFICATE REQUEST-----\nMAA=\n-----END CERTIFICATE REQUEST-----\n{one}"),
            "see -----BEGIN CERTIFICATE in the file\n".to_owned(),
            "-----BEGIN PRIVATE KEY-----\nMAMCAQA=\n-----END PRIVATE KEY-----\n".to_owned(),
        ];
        for text in &texts {
            for next in texts.iter().chain([&other]) {
                for file in
                    [format!("{text}{next}"), format!("{one}{text}\n{next}{other}"), format!("{text}{other}\n{next}")]
                {
                    let known = read_after(file.as_bytes(), &earlier);
                    assert_eq!(known, read(file.as_bytes()), "{file}");
                    assert_eq!(known, read_after(file.as_bytes(), &known), "{file}");
                    let ders = certificates_after(file.as_bytes(), &known);
                    assert_eq!(ders, certificates(file.as_bytes()), "{file}");
                }
            }
        }
        for at in 0..one.len() {
            for byte in [b'A', b'-', b'\n', b'\0', b':', b' '] {
                let mut file = format!("{one}{other}").into_bytes();
                file[at] = byte;
                assert_eq!(read_after(&file, &earlier), read(&file), "{}", String::from_utf8_lossy(&file));
            }
        }
    }

    /// GnuTLS passes over a block that it cannot decode if a good one under the older label follows: not so in the next bundle.
    #[test]
    fn a_block_that_gnutls_reads_only_beside_another_is_not_known() {
        let (odd, one) = (with_unused_bits(), block());
        let beside = read(format!("{odd}{}", one.replace(" CERT", " X509 CERT")).as_bytes());
        assert_eq!((beside.count, beside.faults.len(), beside.gnutls_faults.len()), (1, 0, 0), "{odd}");
        let alone = read_after(odd.as_bytes(), &beside);
        assert_eq!((alone.count, alone.faults.len(), alone.gnutls_faults.len()), (1, 0, 1));
    }
}
