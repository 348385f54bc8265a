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
    /// the name of a harmless thing about it
    pub(super) odd: Option<&'static str>,
    has_blank_line: bool,
}

impl<'a> OpenBlock<'a> {
    pub(super) fn new(line: usize, label: &'a [u8]) -> Self {
        Self { line, label, base64: Vec::new(), fault: None, odd: None, has_blank_line: false }
    }

    /// A block that is wrong from its BEGIN on.
    pub(super) fn faulty(line: usize, label: &'a [u8], why: &str) -> Self {
        Self { fault: Some((line, why.into())), ..Self::new(line, label) }
    }

    /// Takes the next line of the body.
    pub(super) fn take_line(&mut self, number: usize, line: &[u8]) {
        if self.fault.is_some() {
            return;
        }
        // nearly all lines
        if !line.is_empty() && text::are_digits(line) {
            self.base64.extend_from_slice(line);
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

/// Where a block ends.
pub(super) enum BlockEnd<'a> {
    /// In a line that is its END, or was meant to be: the label there, and the line.
    End(&'a [u8], usize),
    /// Before another BEGIN, in this line.
    Begin(usize),
    /// With the file.
    File,
}

/// A reason why a block is not accepted, and the sentence for it.
type Refusal = (RejectReason, String);

impl OpenBlock<'_> {
    /// Ends the block: the scan gets a block or a fault.
    pub(super) fn close(self, end: &BlockEnd<'_>, scan: &mut Scan) {
        match self.label_at(end).and_then(|label| Ok((label, self.decode()?))) {
            Ok((label, der)) => {
                self.note_oddities(label, scan);
                scan.blocks.push(Block { line: self.line, label, der });
            }
            Err((reason, detail)) => scan.fault(self.line, reason, detail),
        }
    }

    /// The label of a block whose lines are in order.
    fn label_at(&self, end: &BlockEnd<'_>) -> Result<Label, Refusal> {
        let label = Label::of(self.label);
        let of_other_kind = || (RejectReason::NoCertificate, kinds::of_label(self.label));
        let broken = |why: String| Err((RejectReason::NotPemOrDer, why));
        let is_misspelt = label.is_none() && is_nearly_certificate(self.label);
        if let Some((at, why)) = &self.fault {
            return match *at == self.line {
                true => broken(why.clone()),
                false if label.is_none() && !is_misspelt => Err(of_other_kind()),
                false => broken(format!("line {at}: {why}")),
            };
        }
        match *end {
            BlockEnd::File => broken("the block has no END; is the file cut off?".into()),
            BlockEnd::Begin(line) => broken(format!("the block has no END before line {line}")),
            BlockEnd::End(..) if is_misspelt => broken(
                "its label has other letters or blanks than CERTIFICATE, so no reader finds it; write -----BEGIN CERTIFICATE-----".into(),
            ),
            BlockEnd::End(end, line) if end != self.label => broken(format!("its END, line {line}, has another label")),
            BlockEnd::End(..) => label.ok_or_else(of_other_kind),
        }
    }

    /// What its base64 encodes.
    fn decode(&self) -> Result<Vec<u8>, Refusal> {
        // other readers stop at padding; the library would decode what follows it
        let padding = memchr(b'=', &self.base64).map_or(&[][..], |at| &self.base64[at..]);
        let is_whole = padding.iter().all(|byte| *byte == b'=');
        let Some(der) = BASE64.decode(&self.base64).ok().filter(|_| is_whole) else {
            return Err((RejectReason::NotPemOrDer, "broken base64: cut off, or characters are missing".into()));
        };
        if der.is_empty() {
            return Err((RejectReason::MalformedCertificate, "the block is empty".into()));
        }
        match kinds::of_der(&der) {
            None | Some(ContentKind::Certificate | ContentKind::Key) => Ok(der),
            Some(kind) => {
                let detail = format!("labelled as certificate, but {}", kind.sentence());
                Err((RejectReason::MalformedCertificate, detail))
            }
        }
    }

    /// Notes what was removed or converted, and what other readers would have made of it.
    fn note_oddities(&self, label: Label, scan: &mut Scan) {
        let line = self.line;
        if let Some(odd) = self.odd {
            scan.note(format!("line {line}: {odd} inside the block was removed; other readers may refuse it"));
        } else if self.has_blank_line {
            scan.note(format!("line {line}: blank lines inside the block were removed; OpenSSL would refuse the file"));
        }
        if label != Label::Certificate {
            let name = String::from_utf8_lossy(self.label);
            scan.note(format!("line {line}: label `{name}` was converted; Go and p11-kit would ignore it"));
        }
    }
}

/// Whether a label means `CERTIFICATE` and is written otherwise.
fn is_nearly_certificate(label: &[u8]) -> bool {
    let letters = label.iter().filter(|byte| byte.is_ascii_alphanumeric()).map(u8::to_ascii_uppercase);
    let letters: Vec<u8> = letters.collect();
    let known: [&[u8]; 5] = [b"CERTIFICATE", b"CERTIFICATES", b"X509CERTIFICATE", b"TRUSTEDCERTIFICATE", b"CERT"];
    known.contains(&letters.as_slice())
}
