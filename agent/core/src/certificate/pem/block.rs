//! A block of PEM while its lines are read, and what becomes of it at its end.

use data_encoding::BASE64;
use memchr::memchr;

use super::{
    content::{Block, Label, Scan},
    fault::RejectReason,
    kinds::{self, ContentKind},
    text,
};

/// A block whose END has not come yet.
pub(super) struct OpenBlock<'a> {
    line: usize,
    label: &'a [u8],
    base64: Vec<u8>,
    /// the first thing wrong with it
    pub(super) fault: Option<(usize, String)>,
    /// harmless things about it, by name
    pub(super) odd: Option<&'static str>,
    has_blank_line: bool,
}

impl<'a> OpenBlock<'a> {
    pub(super) fn new(line: usize, label: &'a [u8]) -> Self {
        Self { line, label, base64: Vec::new(), fault: None, odd: None, has_blank_line: false }
    }

    pub(super) fn faulty(line: usize, label: &'a [u8], why: &str) -> Self {
        Self { fault: Some((line, why.into())), ..Self::new(line, label) }
    }

    pub(super) fn take_line(&mut self, number: usize, line: &[u8]) {
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

/// Ends a block, as a block of the scan or as a fault. `end` is the label of the END line `line`; it is None if another BEGIN came
/// first, at `line`, or the end of the file, where `line` is 0.
pub(super) fn close(block: OpenBlock<'_>, end: Option<&[u8]>, line: usize, scan: &mut Scan) {
    let begun = block.line;
    let label = match block.label {
        b"CERTIFICATE" => Some(Label::Certificate),
        b"X509 CERTIFICATE" | b"X.509 CERTIFICATE" => Some(Label::Legacy),
        b"TRUSTED CERTIFICATE" => Some(Label::Trusted),
        _ => None,
    };
    if let Some((at, why)) = block.fault {
        if label.is_none() && at != begun && !is_nearly_certificate(block.label) {
            return scan.fault(begun, RejectReason::NoCertificate, kinds::of_label(block.label));
        }
        let at = if at == begun { String::new() } else { format!("line {at}: ") };
        return scan.fault(begun, RejectReason::NotPemOrDer, format!("{at}{why}"));
    }
    match end {
        None if line == 0 => {
            return scan.fault(begun, RejectReason::NotPemOrDer, "the block has no END; is the file cut off?");
        }
        None => {
            return scan.fault(begun, RejectReason::NotPemOrDer, format!("the block has no END before line {line}"));
        }
        Some(_) if label.is_none() && is_nearly_certificate(block.label) => {
            let detail = "its label has other letters or blanks than CERTIFICATE, so no reader finds it; write -----BEGIN CERTIFICATE-----";
            return scan.fault(begun, RejectReason::NotPemOrDer, detail);
        }
        Some(end) if end != block.label => {
            return scan.fault(begun, RejectReason::NotPemOrDer, format!("its END, line {line}, has another label"));
        }
        Some(_) => {}
    }
    let Some(label) = label else {
        return scan.fault(begun, RejectReason::NoCertificate, kinds::of_label(block.label));
    };
    // padding ends the text for other readers; the library would go on behind it
    let padding = memchr(b'=', &block.base64).map_or(&[][..], |at| &block.base64[at..]);
    let padded = padding.iter().any(|byte| *byte != b'=');
    let decoded = if padded { None } else { BASE64.decode(&block.base64).ok() };
    match decoded {
        Some(der) if der.is_empty() => scan.fault(begun, RejectReason::MalformedCertificate, "the block is empty"),
        Some(der) => {
            match kinds::of_der(&der) {
                None | Some(ContentKind::Certificate | ContentKind::Key) => {}
                Some(kind) => {
                    let detail = format!("labelled as certificate, but {}", kind.sentence());
                    return scan.fault(begun, RejectReason::MalformedCertificate, detail);
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
        None => scan.fault(begun, RejectReason::NotPemOrDer, "broken base64: cut off, or characters are missing"),
    }
}

/// Whether a label means `CERTIFICATE` and is written otherwise.
fn is_nearly_certificate(label: &[u8]) -> bool {
    let letters = label.iter().filter(|byte| byte.is_ascii_alphanumeric()).map(u8::to_ascii_uppercase);
    let letters: Vec<u8> = letters.collect();
    let known: [&[u8]; 5] = [b"CERTIFICATE", b"CERTIFICATES", b"X509CERTIFICATE", b"TRUSTEDCERTIFICATE", b"CERT"];
    known.contains(&letters.as_slice())
}
