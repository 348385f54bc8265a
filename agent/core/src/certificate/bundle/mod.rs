//! The extracted bundle, read as its consumers read it.
//!
//! In: the bytes of the bundle. Out: [`Effective`]. Unlike the scanner for sources this one asks what the readers of bundles make
//! of the file, by their own rules: one block of whatever kind that OpenSSL cannot decode and it loads nothing (facts 0.5), and
//! so does GnuTLS for a certificate that it cannot import; text between blocks does no harm.

mod effective;
mod gnutls;
mod openssl;

use std::collections::BTreeSet;

use memchr::{memchr, memchr_iter};

use crate::certificate::{
    fingerprint::Fingerprint,
    pem::{self, Fault, RejectReason},
};
pub use effective::{BundleReader, Effective};
use openssl::{BundleItem, LoadedBlock};

/// Reads a bundle back.
pub fn read(bytes: &[u8]) -> Effective {
    read_each(bytes, |_| {})
}

/// The certificates that both Go and OpenSSL read, DER, in their order.
pub fn certificates(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    read_each(bytes, |der| all.push(der.to_vec()));
    all
}

fn read_each(bytes: &[u8], mut each: impl FnMut(&[u8])) -> Effective {
    let mut effective = Effective { present: true, ..Effective::default() };
    let mut set = BTreeSet::new();
    let fault = |faults: &mut Vec<Fault>, line: usize, detail: String| {
        if faults.len() < pem::MAX_FAULTS {
            faults.push(Fault { line, reason: RejectReason::NotPemOrDer, detail });
        }
    };
    openssl::read(bytes, |found| match found {
        BundleItem::PrivateKey => effective.private_key = true,
        BundleItem::Fault(line, detail) => fault(&mut effective.faults, line, detail),
        BundleItem::Block(block) => {
            if is_read_by_go(&block) {
                effective.count += 1;
                each(&block.der);
                set.insert(Fingerprint::of_der(&block.der));
            }
        }
    });
    effective.set = set;
    let (mut line, mut counted) = (1, 0);
    gnutls::faults(bytes, |at, detail| {
        line += memchr_iter(b'\n', &bytes[counted..at]).count();
        counted = at;
        fault(&mut effective.gnutls_faults, line, detail);
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
        && body.iter().all(|byte| IS_DIGIT_OR_BLANK[usize::from(*byte)])
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
}
