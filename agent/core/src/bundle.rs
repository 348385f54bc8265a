//! The extracted bundle, read as its consumers read it.
//!
//! In: the bytes of the bundle. Out: [`Effective`]. Unlike the scanner for sources this one asks what OpenSSL makes of the
//! file: one block that it cannot decode and it loads nothing (facts 0.5), while text between blocks, other kinds of blocks
//! and labels that only OpenSSL knows do no harm.

use std::collections::BTreeSet;

use data_encoding::BASE64;

use crate::{
    fingerprint::Fingerprint,
    pem::{self, Fault, Reason},
    state::Effective,
};

/// A block that has begun: line, label, base64, what is wrong with it.
type Open<'a> = (usize, &'a [u8], Vec<u8>, Option<&'static str>);

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
    let mut open: Option<Open<'_>> = None;
    let mut fault = |line: usize, detail: &str| {
        if effective.faults.len() < pem::MAX_FAULTS {
            effective.faults.push(Fault { line, reason: Reason::NotPemOrDer, detail: detail.to_owned() });
        }
    };
    for (number, line) in pem::lines(bytes) {
        let begin = label(line, b"-----BEGIN ");
        let Some((from, name, mut body, mut wrong)) = open.take() else {
            if let Some(name) = begin {
                effective.private_key |= name.ends_with(b"PRIVATE KEY");
                open = Some((number, name, Vec::new(), None));
            }
            continue;
        };
        if line.starts_with(b"-----END ") {
            if label(line, b"-----END ") != Some(name) {
                fault(from, "its END does not fit its BEGIN");
                continue;
            }
            if !matches!(name, b"CERTIFICATE" | b"X509 CERTIFICATE" | b"TRUSTED CERTIFICATE") {
                continue;
            }
            let der = match (wrong, BASE64.decode(&body)) {
                (Some(wrong), _) => {
                    fault(from, wrong);
                    continue;
                }
                (None, Ok(der)) if is_certificate(&der) => der,
                (None, _) => {
                    fault(from, "the block does not decode to a certificate");
                    continue;
                }
            };
            if name == b"CERTIFICATE" {
                effective.count += 1;
                each(&der);
                set.insert(Fingerprint::of_der(&der)); // the other labels are nothing to Go
            }
            continue;
        }
        if begin.is_some() {
            wrong = Some("the block has no END before the next BEGIN");
        } else if line.contains(&b':') {
            wrong = wrong.or(Some("header lines inside the block"));
        }
        for word in line.split(u8::is_ascii_whitespace) {
            body.extend_from_slice(word);
        }
        open = Some((from, name, body, wrong));
    }
    if let Some((from, ..)) = open {
        fault(from, "the block has no END");
    }
    effective.set = set;
    effective
}

fn label<'a>(line: &'a [u8], boundary: &[u8]) -> Option<&'a [u8]> {
    line.strip_prefix(boundary)?.strip_suffix(b"-----")
}

/// The frame of a certificate: a sequence that begins with two sequences. Not more, since what OpenSSL and Go make of the
/// details of other people's certificates is not ours to guess. A `TRUSTED CERTIFICATE` may go on behind it.
fn is_certificate(der: &[u8]) -> bool {
    let Some((content, _)) = sequence(der) else { return false };
    sequence(content).is_some_and(|(_, rest)| sequence(rest).is_some_and(|(_, rest)| rest.first() == Some(&0x03)))
}

/// Splits a DER SEQUENCE off the front.
fn sequence(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&0x30, &first) = (der.first()?, der.get(1)?) else { return None };
    let (header, length) = match first {
        0..=0x7f => (2, usize::from(first)),
        0x81..=0x84 => {
            let count = usize::from(first & 0x7f);
            (2 + count, der.get(2..2 + count)?.iter().fold(0usize, |sum, byte| sum << 8 | usize::from(*byte)))
        }
        _ => return None,
    };
    Some((der.get(header..header.checked_add(length)?)?, der.get(header + length..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The frame of a certificate, nothing in it.
    const DER: &[u8] = b"\x30\x08\x30\x01\x05\x30\x00\x03\x01\x00";

    fn block() -> String {
        pem::encode(DER)
    }

    #[test]
    fn counts_and_names_what_both_readers_read() {
        let text = format!(
            "# Corp: Root\nsubject -----BEGIN nothing\n{0}{0}{1}",
            block(),
            block().replace("CERT", "TRUSTED CERT")
        );
        let effective = read(text.as_bytes());
        assert_eq!((effective.count, effective.set.len(), effective.repeated()), (2, 1, 1));
        assert_eq!(effective.faults, []);
        assert!(effective.present && !effective.private_key);
    }

    #[test]
    fn a_block_that_openssl_refuses_is_a_fault() {
        let one = block();
        for (what, text) in [
            ("cut", format!("-----BEGIN CERTIFICATE-----\nMIIB\n{one}")),
            ("end of file", format!("{one}-----BEGIN CERTIFICATE-----\nMIIB")),
            ("garbage", format!("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n{one}")),
            ("label", one.replace("END CERT", "END X509 CERT")),
            ("glued", format!("{}{one}", one.trim_end())),
            ("header", one.replace("BEGIN CERTIFICATE-----\n", "BEGIN CERTIFICATE-----\na: b\n\n")),
        ] {
            assert!(!read(text.as_bytes()).faults.is_empty(), "{what}");
        }
    }

    #[test]
    fn a_private_key_is_noticed_and_the_rest_still_read() {
        let text = format!("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n{}", block());
        let effective = read(text.as_bytes());
        assert!(effective.private_key);
        assert_eq!((effective.count, effective.faults.len()), (1, 0));
    }
}
