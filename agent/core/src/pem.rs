//! A strict scanner for certificate files: PEM (RFC 7468) or one DER certificate.
//!
//! In: the bytes of a file. Out: the DER of each block that is beyond doubt, and for everything else a [`Fault`] with a
//! reason and a line. Scanning never fails as a whole and never guesses: a block that one consumer reads and another one
//! drops (facts E.1) is a fault here, so that what gets installed is trusted by all of them or by none.
//!
//! The rule behind the scanner: every `-----BEGIN` in the file ends as exactly one block or one fault.
//!
//! A private key anywhere makes the whole file a single fault, and nothing of the file is returned.

use data_encoding::{BASE64, Specification};
use memchr::{memchr, memchr2, memmem};
use serde::{Deserialize, Serialize};
use std::sync::LazyLock;

/// Largest file that is read, in bytes. A ConfigMap holds 1 MiB; Mozilla's whole set is 0.22 MB.
pub const MAX_FILE_BYTES: usize = 4 << 20;
/// Largest number of certificates in one source.
pub const MAX_CERTIFICATES: usize = 10_000;
/// Faults kept for one file; a hostile file could else make a report of any size.
pub const MAX_FAULTS: usize = 1_000;

/// Why a block, a file or a certificate was not accepted. The names are part of the public interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// Neither PEM nor DER, or PEM whose structure is broken.
    NotPemOrDer,
    /// Readable, but there is no certificate in it.
    NoCertificate,
    /// The file holds a private key; nothing of it is used.
    PrivateKey,
    /// The content of a block is no X.509 certificate, or its own signature does not match.
    MalformedCertificate,
    /// Bytes follow the certificate inside its block or file.
    TrailingData,
    /// Not a CA certificate, and the store or the policy refuses those.
    NotCa,
    /// Expired, and not installed yet.
    Expired,
    /// A weak key or signature, refused by policy.
    Weak,
    /// Its fingerprint is in `deniedFingerprints`.
    Denied,
    /// `allowedFingerprints` is set and does not have it.
    NotAllowed,
    /// The file exceeds [`MAX_FILE_BYTES`], or the source what is read of one.
    TooLarge,
    /// The source exceeds [`MAX_CERTIFICATES`], or a directory has too many files.
    TooMany,
}

impl Reason {
    /// Every reason, in the order of the documentation; metrics have a series for each.
    pub const ALL: [Self; 12] = [
        Self::NotPemOrDer,
        Self::NoCertificate,
        Self::PrivateKey,
        Self::MalformedCertificate,
        Self::TrailingData,
        Self::NotCa,
        Self::Expired,
        Self::Weak,
        Self::Denied,
        Self::NotAllowed,
        Self::TooLarge,
        Self::TooMany,
    ];

    /// The public name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotPemOrDer => "not-pem-or-der",
            Self::NoCertificate => "no-certificate",
            Self::PrivateKey => "private-key",
            Self::MalformedCertificate => "malformed-certificate",
            Self::TrailingData => "trailing-data",
            Self::NotCa => "not-ca",
            Self::Expired => "expired",
            Self::Weak => "weak",
            Self::Denied => "denied",
            Self::NotAllowed => "not-allowed",
            Self::TooLarge => "too-large",
            Self::TooMany => "too-many",
        }
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Something in a file that was not accepted. Never quotes the file's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// 1-based line where it begins; 0 for the file as a whole.
    pub line: usize,
    /// Why.
    pub reason: Reason,
    /// What exactly, and what to do, in a sentence without its full stop.
    pub detail: String,
}

/// One accepted block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// 1-based line of its BEGIN; 0 in a DER file.
    pub line: usize,
    /// The label it had, which says how to read the DER.
    pub label: Label,
    /// Its decoded content.
    pub der: Vec<u8>,
}

/// The labels that can hold a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Label {
    /// `CERTIFICATE`, or a file that is DER itself.
    Certificate,
    /// `X509 CERTIFICATE`, `X.509 CERTIFICATE`: OpenSSL reads it, Go and p11-kit do not; same content.
    Legacy,
    /// `TRUSTED CERTIFICATE`, OpenSSL's own: auxiliary trust data follows the certificate.
    Trusted,
}

/// What a file holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scan {
    /// Blocks in the order of the file.
    pub blocks: Vec<Block>,
    /// Everything that was not accepted, in the order of the file.
    pub faults: Vec<Fault>,
    /// Harmless oddities that other readers may trip over, e.g. a byte order mark.
    pub notes: Vec<String>,
}

const BEGIN: &[u8] = b"-----BEGIN ";
const END: &[u8] = b"-----END ";
const DASHES: &[u8] = b"-----";

/// Reads a file's bytes. See the module's description.
pub fn scan(bytes: &[u8]) -> Scan {
    let mut scan = Scan::default();
    if bytes.len() > MAX_FILE_BYTES {
        let detail = format!("{} bytes are more than the limit of {MAX_FILE_BYTES}; split the file", bytes.len());
        scan.fault(0, Reason::TooLarge, detail);
        return scan;
    }
    let bytes = match bytes.strip_prefix(b"\xef\xbb\xbf") {
        Some(rest) => {
            scan.notes.push("a UTF-8 byte order mark was removed; Go would ignore the first certificate".into());
            rest
        }
        None => bytes,
    };
    if bytes.trim_ascii().is_empty() {
        return scan; // an empty file says nothing: that is the source's matter, not a rejection
    }
    if looks_like_utf16(bytes) {
        scan.fault(1, Reason::NotPemOrDer, "the text is UTF-16; save it as ASCII or UTF-8");
        return scan;
    }
    // a DER SEQUENCE; the text of a PEM file may begin with the same byte, the digit 0
    if bytes[0] == 0x30 && (bytes.get(1).is_some_and(|length| length & 0x80 != 0) || first_integer(bytes).is_some()) {
        scan_der(bytes, &mut scan);
        return scan;
    }
    if let Some(line) = private_key_line(bytes) {
        scan.fault(
            line,
            Reason::PrivateKey,
            "the file holds a private key, so nothing of it is used; give only certificates, and treat the key as exposed if others can read this source",
        );
        return scan;
    }
    scan_pem(bytes, &mut scan);
    if let Some(line) = scan.blocks.iter().find(|block| is_private_key(&block.der)).map(|block| block.line) {
        // a key under a certificate's label
        return Scan {
            faults: vec![Fault {
                line,
                reason: Reason::PrivateKey,
                detail: "a block labelled as certificate holds a private key, so nothing of the file is used".into(),
            }],
            ..Scan::default()
        };
    }
    if scan.blocks.is_empty() && scan.faults.is_empty() {
        let detail = match bytes.starts_with(b"\xfe\xed\xfe\xed") {
            true => "a Java key store, which is not read; give the PEM file instead",
            false => "neither a PEM block nor a DER certificate was found",
        };
        scan.fault(0, Reason::NotPemOrDer, detail);
    }
    scan
}

/// Encodes one certificate: label `CERTIFICATE`, 64 columns, LF, final newline (RFC 7468, section 3). Everything that is
/// written to a host goes through here.
pub fn encode(der: &[u8]) -> String {
    static WRAPPED: LazyLock<Option<data_encoding::Encoding>> = LazyLock::new(|| {
        let mut spec: Specification = BASE64.specification();
        spec.wrap.width = 64;
        spec.wrap.separator.push('\n');
        spec.encoding().ok()
    });
    let mut out = String::with_capacity(der.len() * 4 / 3 + der.len() / 48 + 64);
    out.push_str("-----BEGIN CERTIFICATE-----\n");
    match &*WRAPPED {
        Some(encoding) => encoding.encode_append(der, &mut out), // ends with a separator
        None => {
            // the specification above is a constant and valid; this arm only spares a panic
            for line in BASE64.encode(der).as_bytes().chunks(64) {
                out.extend(line.iter().map(|byte| char::from(*byte)));
                out.push('\n');
            }
        }
    }
    out.push_str("-----END CERTIFICATE-----\n");
    out
}

impl Scan {
    fn fault(&mut self, line: usize, reason: Reason, detail: impl Into<String>) {
        match self.faults.len() {
            0..MAX_FAULTS => self.faults.push(Fault { line, reason, detail: detail.into() }),
            MAX_FAULTS => {
                let detail = format!("more than {MAX_FAULTS} faults; the rest is not listed");
                self.faults.push(Fault { line, reason: Reason::TooMany, detail });
            }
            _ => {}
        }
    }
}

fn scan_der(bytes: &[u8], scan: &mut Scan) {
    if is_private_key(bytes) {
        scan.fault(0, Reason::PrivateKey, "the file is a private key in DER; give only certificates");
        return;
    }
    if first_integer(bytes) == Some(3) {
        scan.fault(0, Reason::NotPemOrDer, "a PKCS#12 key store, which is not read; give the PEM file instead");
        return;
    }
    scan.blocks.push(Block { line: 0, label: Label::Certificate, der: bytes.to_vec() });
}

/// An open block.
struct Open<'a> {
    line: usize,
    label: &'a [u8],
    base64: Vec<u8>,
    /// the first thing wrong with it
    fault: Option<(usize, String)>,
}

fn scan_pem(bytes: &[u8], scan: &mut Scan) {
    let mut open: Option<Open<'_>> = None;
    for (number, line) in lines(bytes) {
        let boundary = boundary(line);
        match (open.take(), boundary) {
            (None, Boundary::None) => {} // text between blocks is allowed (RFC 7468, section 2)
            (None, Boundary::Begin(label)) => open = Some(Open::new(number, label)),
            (None, Boundary::End(_)) => scan.fault(number, Reason::NotPemOrDer, "an END line without its BEGIN"),
            (None, Boundary::Odd(why)) => {
                if contains(line, BEGIN) {
                    // the block behind such a line cannot be trusted to be what its author meant
                    open = Some(Open { fault: Some((number, why.into())), ..Open::new(number, odd_label(line)) });
                } else {
                    scan.fault(number, Reason::NotPemOrDer, why);
                }
            }
            (Some(mut block), Boundary::None) => {
                block.take_line(number, line);
                open = Some(block);
            }
            (Some(block), Boundary::End(label)) => close(block, Some(label), number, scan),
            (Some(block), Boundary::Begin(label)) => {
                close(block, None, number, scan);
                open = Some(Open::new(number, label));
            }
            (Some(mut block), Boundary::Odd(why)) => {
                block.fault.get_or_insert((number, why.into()));
                let begins = contains(line, BEGIN);
                close(block, Some(b""), number, scan);
                if begins {
                    let why = "begins in the middle of a line; put each BEGIN and END on a line of its own";
                    open = Some(Open { fault: Some((number, why.into())), ..Open::new(number, odd_label(line)) });
                }
            }
        }
    }
    if let Some(block) = open {
        close(block, None, 0, scan);
    }
}

impl<'a> Open<'a> {
    fn new(line: usize, label: &'a [u8]) -> Self {
        Self { line, label, base64: Vec::new(), fault: None }
    }

    fn take_line(&mut self, number: usize, line: &[u8]) {
        if self.fault.is_some() {
            return;
        }
        if memchr(b':', line).is_some() {
            let why = "header lines inside the block; OpenSSL refuses such a file as a whole and Go skips the block";
            self.fault = Some((number, why.into()));
            return;
        }
        for word in line.split(u8::is_ascii_whitespace) {
            if !word.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=')) {
                self.fault = Some((number, "a character that is not base64".into()));
                return;
            }
            self.base64.extend_from_slice(word);
        }
    }
}

/// Ends a block at `end`: the label of the END line, or None if another BEGIN or the end of the file came first.
fn close(block: Open<'_>, end: Option<&[u8]>, line: usize, scan: &mut Scan) {
    let begun = block.line;
    let label = match block.label {
        b"CERTIFICATE" => Some(Label::Certificate),
        b"X509 CERTIFICATE" | b"X.509 CERTIFICATE" => Some(Label::Legacy),
        b"TRUSTED CERTIFICATE" => Some(Label::Trusted),
        _ => None,
    };
    if let Some((at, why)) = block.fault {
        let at = if at == begun { String::new() } else { format!("line {at}: ") };
        return scan.fault(begun, Reason::NotPemOrDer, format!("{at}{why}"));
    }
    match end {
        None if line == 0 => {
            return scan.fault(begun, Reason::NotPemOrDer, "the block has no END; is the file cut off?");
        }
        None => return scan.fault(begun, Reason::NotPemOrDer, format!("the block has no END before line {line}")),
        Some(end) if end != block.label => {
            return scan.fault(begun, Reason::NotPemOrDer, format!("its END, line {line}, has another label"));
        }
        Some(_) => {}
    }
    let Some(label) = label else {
        let detail = "a PEM block of another kind, not a certificate; only CERTIFICATE blocks are used";
        return scan.fault(begun, Reason::NoCertificate, detail);
    };
    // padding ends the text for other readers; the library would go on behind it
    let padding = memchr(b'=', &block.base64).map_or(&[][..], |at| &block.base64[at..]);
    let padded = padding.iter().any(|byte| *byte != b'=');
    let decoded = if padded { None } else { BASE64.decode(&block.base64).ok() };
    match decoded {
        Some(der) if der.is_empty() => scan.fault(begun, Reason::MalformedCertificate, "the block is empty"),
        Some(der) => {
            if label != Label::Certificate {
                let name = String::from_utf8_lossy(block.label).into_owned();
                scan.notes.push(format!("line {begun}: label `{name}` was converted; Go and p11-kit would ignore it"));
            }
            scan.blocks.push(Block { line: begun, label, der });
        }
        None => scan.fault(begun, Reason::NotPemOrDer, "broken base64: cut off, or characters are missing"),
    }
}

enum Boundary<'a> {
    None,
    Begin(&'a [u8]),
    End(&'a [u8]),
    /// Looks like a boundary and is none.
    Odd(&'static str),
}

fn boundary(line: &[u8]) -> Boundary<'_> {
    // nearly all lines are base64, which has no dash
    if memchr(b'-', line).is_none() || (!contains(line, b"-----BEGIN") && !contains(line, b"-----END")) {
        return Boundary::None;
    }
    let label = |prefix| {
        let label = line.strip_prefix(prefix)?.strip_suffix(DASHES)?;
        let clean = label.iter().all(|byte| (b' '..=b'~').contains(byte) && *byte != b'-');
        (clean && !label.is_empty()).then_some(label)
    };
    match (label(BEGIN), label(END)) {
        (Some(label), _) => Boundary::Begin(label),
        (_, Some(label)) => Boundary::End(label),
        _ if line.first().is_some_and(u8::is_ascii_whitespace) => {
            Boundary::Odd("the BEGIN or END line is indented; most readers would silently find nothing here")
        }
        _ => Boundary::Odd("a BEGIN or END line with something else on it; each must stand alone on its line"),
    }
}

/// The label behind the last BEGIN of a line that is not a proper boundary.
fn odd_label(line: &[u8]) -> &[u8] {
    let at = line.windows(BEGIN.len()).rposition(|window| window == BEGIN).map_or(line.len(), |at| at + BEGIN.len());
    let label = &line[at..];
    label.strip_suffix(DASHES).unwrap_or(label)
}

/// Lines with their 1-based numbers, without line ends (LF, CRLF or CR) and trailing blanks.
pub(crate) fn lines(bytes: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let mut rest = Some(bytes);
    let mut number = 0;
    std::iter::from_fn(move || {
        let bytes = rest?;
        number += 1;
        let line = match memchr2(b'\n', b'\r', bytes) {
            Some(end) => {
                let skip = if bytes[end..].starts_with(b"\r\n") { 2 } else { 1 };
                rest = Some(&bytes[end + skip..]);
                &bytes[..end]
            }
            None => {
                rest = None;
                bytes
            }
        };
        Some((number, line.trim_ascii_end()))
    })
}

/// The first line with the BEGIN of any kind of private key, wherever it stands on the line.
fn private_key_line(bytes: &[u8]) -> Option<usize> {
    if !contains(bytes, b"PRIVATE KEY") {
        return None;
    }
    lines(bytes).find(|(_, line)| contains(line, b"-----BEGIN") && contains(line, b"PRIVATE KEY")).map(|(n, _)| n)
}

/// PKCS#8 (RFC 5958), PKCS#1 (RFC 8017) and SEC 1 (RFC 5915) keys are sequences that begin with the integer 0 or 1;
/// a certificate begins with a sequence.
fn is_private_key(der: &[u8]) -> bool {
    matches!(first_integer(der), Some(0 | 1))
}

/// The value of a one-byte INTEGER that is the first element of a DER SEQUENCE.
fn first_integer(der: &[u8]) -> Option<u8> {
    let (0x30, length) = (*der.first()?, *der.get(1)?) else { return None };
    let header = if length < 0x80 { 2 } else { 2 + usize::from(length & 0x7f) };
    match der.get(header..header + 3)? {
        [0x02, 0x01, value] => Some(*value),
        _ => None,
    }
}

fn looks_like_utf16(bytes: &[u8]) -> bool {
    let head = &bytes[..bytes.len().min(64)];
    bytes.starts_with(b"\xff\xfe")
        || bytes.starts_with(b"\xfe\xff")
        || (head.len() >= 8 && [0, 1].iter().any(|half| head.iter().skip(*half).step_by(2).all(|byte| *byte == 0)))
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    memmem::find(haystack, needle).is_some()
}

#[cfg(test)]
#[path = "pem_tests.rs"]
mod tests;
