//! Names what a file or block holds instead of a certificate, and says what to do.

use data_encoding::{BASE64, BASE64_NOPAD};
use memchr::memmem;

use super::secret;
use crate::certificate::der::{after, element_begun};

/// Bytes of bare base64 that are decoded to find out what it is.
const MAX_BARE_BYTES: usize = 1 << 20;

/// Longest label that is quoted, in bytes.
const MAX_LABEL: usize = 40;

/// Something that people hand over instead of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ContentKind {
    Certificate,
    Pkcs7,
    Pkcs12,
    Crl,
    Request,
    PublicKey,
    Pem,
    Key,
}

impl ContentKind {
    /// What it is and what to do, in a sentence without its full stop.
    pub(crate) fn sentence(self) -> &'static str {
        match self {
            Self::Certificate => "a certificate",
            Self::Pkcs7 => {
                "PKCS#7 (.p7b, .p7c), which is not read; convert it: openssl pkcs7 -print_certs -in FILE -out ca.pem (with -inform DER if the file is binary)"
            }
            Self::Pkcs12 => {
                "a PKCS#12 key store, which is not read; give the PEM file instead: openssl pkcs12 -in FILE -nokeys -out ca.pem"
            }
            Self::Crl => "a certificate revocation list (CRL), not a certificate; only certificates are used",
            Self::Request => {
                "a certificate request (CSR), not a certificate; give the certificate of the CA that is asked by it (openssl req -in FILE -noout -subject shows who asks)"
            }
            Self::PublicKey => "a public key, not a certificate; give the certificate of the CA",
            Self::Pem => {
                "PEM text that was encoded once more; decode it once (base64 -d FILE > ca.pem), and give the text that then begins with -----BEGIN CERTIFICATE-----"
            }
            Self::Key => "a private key",
        }
    }
}

/// Recognises DER or BER by its first elements.
pub(crate) fn of_der(der: &[u8]) -> Option<ContentKind> {
    if secret::is_key(der) {
        return Some(ContentKind::Key);
    }
    if der.trim_ascii_start().starts_with(b"-----BEGIN") || der.starts_with(b"\xef\xbb\xbf-----BEGIN") {
        return Some(ContentKind::Pem);
    }
    let (0x30, content) = element_begun(der)? else { return None };
    // signedData, and the older envelope around it
    if content.starts_with(b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07") {
        return Some(ContentKind::Pkcs7);
    }
    match element_begun(content)? {
        (0x02, value) if value.first() == Some(&3) => Some(ContentKind::Pkcs12),
        (0x30, inner)
            if inner.first() == Some(&0x06) && after(content).is_some_and(|rest| rest.first() == Some(&0x03)) =>
        {
            Some(ContentKind::PublicKey)
        }
        (0x30, to_be_signed) => of_signed(to_be_signed),
        _ => None,
    }
}

/// Tells certificate, CRL and request apart: the elements of the signed part come in another order.
fn of_signed(to_be_signed: &[u8]) -> Option<ContentKind> {
    let mut tags = Vec::new();
    let mut rest = Some(to_be_signed);
    while let Some((&tag, _)) = rest.and_then(|rest| rest.split_first()) {
        tags.push(tag);
        if tags.len() == 5 {
            break;
        }
        rest = rest.and_then(after);
    }
    match tags.as_slice() {
        [0xa0, 0x02, 0x30, 0x30, 0x30, ..] | [0x02, 0x30, 0x30, 0x30, 0x30, ..] => Some(ContentKind::Certificate),
        [0x02, 0x30, 0x30, 0x17 | 0x18, ..] | [0x30, 0x30, 0x17 | 0x18, ..] => Some(ContentKind::Crl),
        [0x02, 0x30, 0x30, 0xa0, ..] | [0x02, 0x30, 0x30] => Some(ContentKind::Request),
        _ => None,
    }
}

/// What a block with another label is, and what to do.
pub(crate) fn of_label(label: &[u8]) -> String {
    let known = match label {
        b"PKCS7" | b"PKCS #7 SIGNED DATA" | b"CMS" => ContentKind::Pkcs7.sentence(),
        b"X509 CRL" => ContentKind::Crl.sentence(),
        b"CERTIFICATE REQUEST" | b"NEW CERTIFICATE REQUEST" => ContentKind::Request.sentence(),
        b"PUBLIC KEY" | b"RSA PUBLIC KEY" | b"SSH2 PUBLIC KEY" => ContentKind::PublicKey.sentence(),
        b"PKCS12" => ContentKind::Pkcs12.sentence(),
        b"PGP PUBLIC KEY BLOCK" | b"PGP MESSAGE" | b"PGP SIGNATURE" | b"PGP SIGNED MESSAGE" => {
            "a PGP block, not a certificate; only CERTIFICATE blocks are used"
        }
        _ => {
            let name = shown_label(label).map(|name| format!(" ({name})")).unwrap_or_default();
            return format!("a PEM block of another kind{name}, not a certificate; only CERTIFICATE blocks are used");
        }
    };
    known.to_owned()
}

/// A label that may be quoted: short, and of the characters that labels are made of. Nothing else of a file is.
fn shown_label(label: &[u8]) -> Option<String> {
    let fits = |byte: &u8| {
        byte.is_ascii_uppercase() || byte.is_ascii_digit() || matches!(byte, b' ' | b'.' | b'#' | b'_' | b'-')
    };
    let is_short = (1..=MAX_LABEL).contains(&label.len());
    (is_short && label.iter().all(fits)).then(|| format!("`{}`", String::from_utf8_lossy(label)))
}

/// What a file without blocks and faults is.
pub(crate) fn of_file(bytes: &[u8]) -> String {
    let nothing = "neither a PEM block nor a DER certificate was found";
    let magic: [(&[u8], &str); 9] = [
        (b"\xfe\xed\xfe\xed", "a Java key store, which is not read; give the PEM file instead"),
        (b"\xce\xce\xce\xce", "a Java key store (JCEKS), which is not read; give the PEM file instead"),
        (b"PK\x03\x04", "a ZIP archive, which is not read; unpack it"),
        (b"\x1f\x8b", "gzip, which is not read; unpack it"),
        (b"\xfd7zXZ\0", "xz, which is not read; unpack it"),
        (b"\x28\xb5\x2f\xfd", "zstd, which is not read; unpack it"),
        (b"BZh", "bzip2, which is not read; unpack it"),
        (b"%PDF-", "a PDF, which is not read; give the PEM file instead"),
        (b"SQLite format 3\0", "a database such as NSS keeps, which is not read; give the PEM file instead"),
    ];
    if let Some((_, text)) = magic.iter().find(|(magic, _)| bytes.starts_with(magic)) {
        return (*text).to_owned();
    }
    match bare(bytes) {
        Some(ContentKind::Certificate) => {
            return "base64 of a certificate without its BEGIN and END lines; put -----BEGIN CERTIFICATE----- before it and -----END CERTIFICATE----- behind it, each on a line of its own".to_owned();
        }
        Some(kind) => return format!("base64 of {}", kind.sentence()),
        None => {}
    }
    let head = bytes.trim_ascii_start();
    let starts = |word: &[u8]| head.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word));
    let has = |word: &[u8]| memmem::find(bytes, word).is_some();
    // "-----BEGIN" in base64, from any of the three places where it can stand
    if [b"LS0tLS1CRUdJT".as_slice(), b"tLS0tLUJFR0lO", b"LS0tLUJFR0lO"].into_iter().any(has) {
        format!("base64 of {}", ContentKind::Pem.sentence())
    } else if has(b"pkcs7-mime") || has(b"pkcs7-signature") {
        format!("S/MIME, {}", ContentKind::Pkcs7.sentence())
    } else if starts(b"<!doctype html") || starts(b"<html") {
        format!("{nothing}; it is an HTML page, perhaps the answer to a download that failed")
    } else if starts(b"<") {
        format!("{nothing}; it looks like XML or HTML")
    } else if starts(b"{") || starts(b"[") {
        format!("{nothing}; it looks like JSON")
    } else {
        nothing.to_owned()
    }
}

/// What a file of base64 alone encodes.
fn bare(bytes: &[u8]) -> Option<ContentKind> {
    let marks = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b'"' | b'\'' | b'\0' | b'\x1a');
    let digits: Vec<u8> = bytes.iter().filter(|byte| !marks(byte)).take(MAX_BARE_BYTES).copied().collect();
    let digits = digits.strip_suffix(b"==").or_else(|| digits.strip_suffix(b"=")).unwrap_or(&digits);
    let whole = digits.len() / 4 * 4;
    let decoded = BASE64_NOPAD.decode(digits).or_else(|_| BASE64.decode(&digits[..whole])).ok()?;
    of_der(&decoded)
}
