//! A strict scanner for certificate files: PEM (RFC 7468) or one DER certificate.
//!
//! In: the bytes of a file. Out: the DER of each block that is beyond doubt, and for everything else a [`Fault`] with a
//! reason and a line. Scanning never fails as a whole and never guesses: a block that one consumer reads and another one
//! drops (facts E.1) is a fault here, so that what gets installed is trusted by all of them or by none.
//!
//! The rule behind the scanner: every `-----BEGIN` in the file ends as exactly one block, one fault, or one note.
//!
//! A sentence or comment that mentions a BEGIN is a note, if no block follows it: RFC 7468 allows any text between blocks.
//!
//! A private key anywhere makes the whole file a single fault, and nothing of the file is returned.

mod kinds;
mod secret;
mod text;

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
/// Notes kept for one file.
pub const MAX_NOTES: usize = 20;

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
    /// The content of a block is no X.509 certificate, or one that would break readers of the bundle.
    MalformedCertificate,
    /// Bytes follow the certificate inside its block or file.
    TrailingData,
    /// Not a CA certificate, and the store or the policy refuses those.
    NotCa,
    /// Expired, and not installed yet.
    Expired,
    /// A weak key or signature, refused by policy.
    Weak,
    /// It names itself as issuer, and its own signature does not match or cannot be checked: refused by policy, or taken for a
    /// damaged copy of an anchor that leaves with the same change.
    SelfSignature,
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
    pub const ALL: [Self; 13] = [
        Self::NotPemOrDer,
        Self::NoCertificate,
        Self::PrivateKey,
        Self::MalformedCertificate,
        Self::TrailingData,
        Self::NotCa,
        Self::Expired,
        Self::Weak,
        Self::SelfSignature,
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
            Self::SelfSignature => "self-signature",
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
    if let Some((encoding, text)) = text::foreign_encoding(bytes) {
        match secret::line(text.as_bytes()) {
            Some(line) => scan.fault(line, Reason::PrivateKey, PRIVATE_KEY),
            None => scan.fault(1, Reason::NotPemOrDer, format!("the text is {encoding}; save it as ASCII or UTF-8")),
        }
        return scan;
    }
    let bytes = match bytes.strip_prefix(b"\xef\xbb\xbf") {
        Some(rest) => {
            scan.note("a UTF-8 byte order mark (BOM) was removed; Go would ignore the first certificate".into());
            rest
        }
        None => bytes,
    };
    if bytes.trim_ascii().is_empty() {
        return scan; // an empty file says nothing: that is the source's matter, not a rejection
    }
    // a DER SEQUENCE; the text of a PEM file may begin with the same byte, the digit 0
    if bytes[0] == 0x30 && (bytes.get(1).is_some_and(|length| length & 0x80 != 0) || first_integer(bytes).is_some()) {
        scan_der(bytes, &mut scan);
        return scan;
    }
    let key = if secret::is_key(bytes) { Some(0) } else { secret::line(bytes) };
    if let Some(line) = key {
        return Scan::of_key(line, PRIVATE_KEY);
    }
    scan_pem(bytes, &mut scan);
    if let Some(line) = scan.blocks.iter().find(|block| is_private_key(&block.der)).map(|block| block.line) {
        return Scan::of_key(
            line,
            "a block labelled as certificate holds a private key, so nothing of the file is used",
        );
    }
    if let Some(line) = text::utf16_begin(bytes) {
        let detail = "a part of the file is UTF-16, as PowerShell appends it; save the whole file as ASCII or UTF-8";
        scan.fault(line, Reason::NotPemOrDer, detail);
    }
    if scan.blocks.is_empty() && scan.faults.is_empty() {
        if lines(bytes).all(|(_, line)| line.is_empty() || text::commented(line).is_some()) {
            scan.note("it holds nothing but comments".into()); // as an empty file: it says nothing
        } else {
            scan.fault(0, Reason::NotPemOrDer, kinds::of_file(bytes));
        }
    }
    scan
}

const PRIVATE_KEY: &str = "the file holds a private key, so nothing of it is used; give only certificates, and treat the key as exposed if others can read this source";

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
    /// A file that holds a private key: nothing else is said of it.
    fn of_key(line: usize, detail: &str) -> Self {
        Self { faults: vec![Fault { line, reason: Reason::PrivateKey, detail: detail.to_owned() }], ..Self::default() }
    }

    fn note(&mut self, note: String) {
        match self.notes.len() {
            0..MAX_NOTES => self.notes.push(note),
            MAX_NOTES => self.notes.push("and more of the kind".into()),
            _ => {}
        }
    }

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
    // what tools append to a file that they take for text
    let whole = kinds::next(bytes).filter(|rest| {
        !rest.is_empty() && rest.iter().all(|byte| byte.is_ascii_whitespace() || matches!(byte, b'\0' | b'\x1a'))
    });
    let der = match whole {
        Some(rest) => {
            scan.note(format!("{} bytes of white space behind the certificate were removed", rest.len()));
            &bytes[..bytes.len() - rest.len()]
        }
        None => bytes,
    };
    let mut rest = Some(der);
    while let Some(element) = rest.filter(|element| element.first() == Some(&0x30)) {
        if is_private_key(element) || secret::is_key(element) {
            *scan = Scan::of_key(0, "the file is a private key in DER, or holds one; give only certificates");
            return;
        }
        rest = kinds::next(element);
    }
    // a key in PEM that was appended to it
    if rest.is_some_and(|rest| !rest.is_empty() && secret::line(rest).is_some()) {
        *scan = Scan::of_key(0, PRIVATE_KEY);
        return;
    }
    match kinds::of_der(der) {
        Some(kind @ (kinds::Kind::Pkcs7 | kinds::Kind::Crl | kinds::Kind::Request | kinds::Kind::PublicKey)) => {
            scan.fault(0, Reason::NoCertificate, kind.sentence());
        }
        Some(kind @ kinds::Kind::Pkcs12) => scan.fault(0, Reason::NotPemOrDer, kind.sentence()),
        Some(kinds::Kind::Certificate)
            if kinds::next(der).is_some_and(|rest| kinds::of_der(rest) == Some(kinds::Kind::Certificate)) =>
        {
            let detail = "several DER certificates in one file; give each in a file of its own, or all of them as PEM";
            scan.fault(0, Reason::TrailingData, detail);
        }
        _ => scan.blocks.push(Block { line: 0, label: Label::Certificate, der: der.to_vec() }),
    }
}

/// An open block.
struct Open<'a> {
    line: usize,
    label: &'a [u8],
    base64: Vec<u8>,
    /// the first thing wrong with it
    fault: Option<(usize, String)>,
    /// harmless things about it, by name
    odd: Option<&'static str>,
    has_blank_line: bool,
}

fn scan_pem(bytes: &[u8], scan: &mut Scan) {
    let mut open: Option<Open<'_>> = None;
    let mut lines = lines(bytes);
    while let Some((number, line)) = lines.next() {
        let (line, invisible) = text::without_invisible(line);
        let boundary = boundary(line);
        if let (Some(name), Boundary::Begin(_) | Boundary::End(_)) = (invisible, &boundary) {
            scan.note(format!(
                "line {number}: {name} beside the BEGIN or END was removed; other readers may find nothing here"
            ));
        }
        match (open.take(), boundary) {
            (None, Boundary::None) => {} // text between blocks is allowed (RFC 7468, section 2)
            (None, Boundary::Begin(label)) => open = Some(Open::new(number, label)),
            (None, Boundary::End(_)) => scan.fault(number, Reason::NotPemOrDer, "an END line without its BEGIN"),
            (None, Boundary::Mention(mention)) => match mention.what(lines.clone()) {
                Ok(note) => scan.note(format!("line {number}: {note}")),
                // the block behind such a line cannot be trusted to be what its author meant
                Err(why) => open = Some(Open::faulty(number, odd_label(line), why)),
            },
            (None, Boundary::Odd(why)) => {
                if contains(line, BEGIN) {
                    open = Some(Open::faulty(number, odd_label(line), why));
                } else {
                    scan.fault(number, Reason::NotPemOrDer, why);
                }
            }
            (None, Boundary::LookAlike(text::Side::Begin, why)) if is_followed_by_body(lines.clone()) => {
                open = Some(Open::faulty(number, b"", why));
            }
            (None, Boundary::LookAlike(..)) => {}
            (Some(mut block), Boundary::None) => {
                block.odd = block.odd.or(invisible);
                block.take_line(number, line);
                open = Some(block);
            }
            (Some(mut block), Boundary::Mention(Mention { is_comment: true, .. })) => {
                block.fault.get_or_insert_with(|| (number, "a comment inside the block".into()));
                open = Some(block);
            }
            (Some(block), Boundary::End(label)) => close(block, Some(label), number, scan),
            (Some(mut block), Boundary::LookAlike(text::Side::End, why)) => {
                block.fault.get_or_insert_with(|| (number, why.into()));
                close(block, Some(b""), number, scan);
            }
            (Some(block), Boundary::LookAlike(text::Side::Begin, why)) => {
                close(block, None, number, scan);
                open = Some(Open::faulty(number, b"", why));
            }
            (Some(block), Boundary::Begin(label)) => {
                close(block, None, number, scan);
                open = Some(Open::new(number, label));
            }
            (Some(mut block), boundary @ (Boundary::Odd(_) | Boundary::Mention(_))) => {
                let why = match boundary {
                    Boundary::Odd(why) => why,
                    _ => "a BEGIN or END line with something else on it; each must stand alone on its line",
                };
                block.fault.get_or_insert((number, why.into()));
                let begins = contains(line, BEGIN);
                close(block, Some(b""), number, scan);
                if begins {
                    let why = "begins in the middle of a line; put each BEGIN and END on a line of its own";
                    open = Some(Open::faulty(number, odd_label(line), why));
                }
            }
        }
    }
    if let Some(block) = open {
        close(block, None, 0, scan);
    }
}

/// Whether the next line that is not empty could be the body of a block.
fn is_followed_by_body(mut lines: Lines<'_>) -> bool {
    let is_text = |line: &&[u8]| !line.trim_ascii().is_empty();
    lines.by_ref().map(|(_, line)| line).find(is_text).is_some_and(|line| {
        let line = line.trim_ascii_start();
        text::is_body(line.strip_prefix(b"> ").or_else(|| line.strip_prefix(b">")).unwrap_or(line))
    })
}

impl<'a> Open<'a> {
    fn new(line: usize, label: &'a [u8]) -> Self {
        Self { line, label, base64: Vec::new(), fault: None, odd: None, has_blank_line: false }
    }

    fn faulty(line: usize, label: &'a [u8], why: &str) -> Self {
        Self { fault: Some((line, why.into())), ..Self::new(line, label) }
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
        self.has_blank_line |= line.is_empty();
        for word in line.split(u8::is_ascii_whitespace) {
            if !word.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=')) {
                let why = match text::invisible_in(word) {
                    Some(name) => format!("{name} in the middle of the base64"),
                    None if word.contains(&b'\\') => {
                        "line ends written as \\n, as in JSON; write real line ends".to_owned()
                    }
                    None => "a character that is not base64".to_owned(),
                };
                self.fault = Some((number, why));
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
        if label.is_none() && at != begun && !is_nearly_certificate(block.label) {
            return scan.fault(begun, Reason::NoCertificate, kinds::of_label(block.label));
        }
        let at = if at == begun { String::new() } else { format!("line {at}: ") };
        return scan.fault(begun, Reason::NotPemOrDer, format!("{at}{why}"));
    }
    match end {
        None if line == 0 => {
            return scan.fault(begun, Reason::NotPemOrDer, "the block has no END; is the file cut off?");
        }
        None => return scan.fault(begun, Reason::NotPemOrDer, format!("the block has no END before line {line}")),
        Some(_) if label.is_none() && is_nearly_certificate(block.label) => {
            let detail = "its label has other letters or blanks than CERTIFICATE, so no reader finds it; write -----BEGIN CERTIFICATE-----";
            return scan.fault(begun, Reason::NotPemOrDer, detail);
        }
        Some(end) if end != block.label => {
            return scan.fault(begun, Reason::NotPemOrDer, format!("its END, line {line}, has another label"));
        }
        Some(_) => {}
    }
    let Some(label) = label else {
        return scan.fault(begun, Reason::NoCertificate, kinds::of_label(block.label));
    };
    // padding ends the text for other readers; the library would go on behind it
    let padding = memchr(b'=', &block.base64).map_or(&[][..], |at| &block.base64[at..]);
    let padded = padding.iter().any(|byte| *byte != b'=');
    let decoded = if padded { None } else { BASE64.decode(&block.base64).ok() };
    match decoded {
        Some(der) if der.is_empty() => scan.fault(begun, Reason::MalformedCertificate, "the block is empty"),
        Some(der) => {
            match kinds::of_der(&der) {
                None | Some(kinds::Kind::Certificate | kinds::Kind::Key) => {}
                Some(kind) => {
                    let detail = format!("labelled as certificate, but {}", kind.sentence());
                    return scan.fault(begun, Reason::MalformedCertificate, detail);
                }
            }
            if let Some(odd) = block.odd {
                scan.note(format!("line {begun}: {odd} inside the block was removed; other readers may refuse it"));
            } else if block.has_blank_line {
                scan.note(format!(
                    "line {begun}: blank lines inside the block were removed; OpenSSL would refuse the file"
                ));
            }
            if label != Label::Certificate {
                let name = String::from_utf8_lossy(block.label).into_owned();
                scan.note(format!("line {begun}: label `{name}` was converted; Go and p11-kit would ignore it"));
            }
            scan.blocks.push(Block { line: begun, label, der });
        }
        None => scan.fault(begun, Reason::NotPemOrDer, "broken base64: cut off, or characters are missing"),
    }
}

/// Whether a label means `CERTIFICATE` and is written otherwise.
fn is_nearly_certificate(label: &[u8]) -> bool {
    let letters = label.iter().filter(|byte| byte.is_ascii_alphanumeric()).map(u8::to_ascii_uppercase);
    let letters: Vec<u8> = letters.collect();
    let known: [&[u8]; 5] = [b"CERTIFICATE", b"CERTIFICATES", b"X509CERTIFICATE", b"TRUSTEDCERTIFICATE", b"CERT"];
    known.contains(&letters.as_slice())
}

enum Boundary<'a> {
    None,
    Begin(&'a [u8]),
    End(&'a [u8]),
    /// Looks like a boundary and is none.
    Odd(&'static str),
    /// A line whose author meant a boundary, without the five dashes that all readers look for.
    LookAlike(text::Side, &'static str),
    /// A sentence or comment with a BEGIN or END in it.
    Mention(Mention),
}

/// What a line with a BEGIN or END in its text is, if it is no boundary.
#[derive(Clone, Copy)]
struct Mention {
    is_comment: bool,
    begins: bool,
}

impl Mention {
    /// A note; or, if a block follows that would belong to it, why the line is none.
    fn what(self, lines: Lines<'_>) -> Result<&'static str, &'static str> {
        match (self.begins && is_followed_by_body(lines), self.is_comment) {
            (true, true) => {
                Err("the BEGIN line is commented out, and the block behind it is not; comment out all of it or nothing")
            }
            (true, false) => Err("a BEGIN or END line with something else on it; each must stand alone on its line"),
            (false, true) => Ok("a BEGIN or END that is commented out; not taken for a block"),
            (false, false) => Ok("text that mentions BEGIN or END; not taken for a block"),
        }
    }
}

fn boundary(line: &[u8]) -> Boundary<'_> {
    // nearly all lines are base64, which has no dash
    if memchr(b'-', line).is_none() && line.is_ascii() {
        return Boundary::None;
    }
    if !contains(line, b"-----BEGIN") && !contains(line, b"-----END") {
        let is_comment = text::commented(line).is_some();
        return match text::look_alike(line) {
            Some((side, why)) if !is_comment => Boundary::LookAlike(side, why),
            _ => Boundary::None,
        };
    }
    let label = |prefix| {
        let label = line.strip_prefix(prefix)?.strip_suffix(DASHES)?;
        let clean = label.iter().all(|byte| (b' '..=b'~').contains(byte) && *byte != b'-');
        (clean && !label.is_empty()).then_some(label)
    };
    match (label(BEGIN), label(END)) {
        (Some(label), _) => Boundary::Begin(label),
        (_, Some(label)) => Boundary::End(label),
        _ => no_boundary(line),
    }
}

/// What a line is that has a BEGIN or END of five dashes and does not consist of it.
fn no_boundary(line: &[u8]) -> Boundary<'static> {
    let begins = contains(line, b"-----BEGIN");
    if text::commented(line).is_some() {
        return Boundary::Mention(Mention { is_comment: true, begins });
    }
    let trimmed = line.trim_ascii_start();
    let is_whole = trimmed.ends_with(DASHES) && (trimmed.starts_with(BEGIN) || trimmed.starts_with(END));
    let words = || text::unescaped(line).split(u8::is_ascii_whitespace).any(text::is_body);
    match () {
        () if trimmed.len() != line.len() && is_whole => Boundary::Odd(
            "the BEGIN or END line is indented, as in YAML; give the text without its indentation, most readers would silently find nothing here",
        ),
        () if contains(line, b"\\n") => {
            Boundary::Odd("line ends written as \\n, as in JSON; give the text itself, with real line ends")
        }
        () if words() => Boundary::Odd("the lines of the block have become one line; give the text with its line ends"),
        () => match text::look_alike(line) {
            Some((_, why)) => Boundary::Odd(why),
            None if is_sentence(line) => Boundary::Mention(Mention { is_comment: false, begins }),
            None => Boundary::Odd("a BEGIN or END line with something else on it; each must stand alone on its line"),
        },
    }
}

/// Whether a line has words outside of its BEGIN and END.
fn is_sentence(line: &[u8]) -> bool {
    let mut outside = Vec::new();
    let mut rest = line;
    while let Some(at) = memmem::find(rest, DASHES) {
        outside.extend_from_slice(&rest[..at]);
        outside.push(b' ');
        let label = &rest[at..];
        let label = &label[label.iter().take_while(|byte| **byte == b'-').count()..];
        // the label ends at its five dashes; one that has none goes to the end of the line
        let end = memmem::find(label, DASHES).map_or(label.len(), |end| end + DASHES.len());
        rest = &label[end..];
    }
    outside.extend_from_slice(rest);
    outside.iter().any(u8::is_ascii_alphabetic)
}

/// The label behind the last BEGIN of a line that is not a proper boundary.
fn odd_label(line: &[u8]) -> &[u8] {
    let at = memmem::rfind(line, BEGIN).map_or(line.len(), |at| at + BEGIN.len());
    let label = &line[at..];
    label.strip_suffix(DASHES).unwrap_or(label)
}

/// Lines with their 1-based numbers, without line ends (LF, CRLF or CR) and trailing blanks.
pub(crate) fn lines(bytes: &[u8]) -> Lines<'_> {
    Lines { rest: Some(bytes), number: 0 }
}

/// See [`lines`].
#[derive(Debug, Clone)]
pub(crate) struct Lines<'a> {
    rest: Option<&'a [u8]>,
    number: usize,
}

impl<'a> Iterator for Lines<'a> {
    type Item = (usize, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let bytes = self.rest?;
        self.number += 1;
        let line = match memchr2(b'\n', b'\r', bytes) {
            Some(end) => {
                let skip = if bytes[end..].starts_with(b"\r\n") { 2 } else { 1 };
                self.rest = Some(&bytes[end + skip..]);
                &bytes[..end]
            }
            None => {
                self.rest = None;
                bytes
            }
        };
        Some((self.number, line.trim_ascii_end()))
    }
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

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    memmem::find(haystack, needle).is_some()
}

#[cfg(test)]
mod people_tests;
#[cfg(test)]
mod tests;
