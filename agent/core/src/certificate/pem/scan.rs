//! The scanner: looks at the file as a whole, then at its lines.

use super::{
    block::{BlockEnd, OpenBlock},
    boundary::{BEGIN, Boundary, Mention, boundary, contains, is_followed_by_body, odd_label},
    content::{Block, Label, MAX_FILE_BYTES, Scan},
    fault::RejectReason,
    kinds::{self, ContentKind},
    secret,
    text::{self, lines},
};
use crate::certificate::der::{after, header};

const PRIVATE_KEY: &str = "the file holds a private key, so nothing of it is used; give only certificates, and treat the key as exposed if others can read this source";

/// Reads a file's bytes. See the description of [`pem`](super).
pub fn scan(bytes: &[u8]) -> Scan {
    let mut scan = Scan::default();
    if bytes.len() > MAX_FILE_BYTES {
        let detail = format!("{} bytes are more than the limit of {MAX_FILE_BYTES}; split the file", bytes.len());
        scan.fault(0, RejectReason::TooLarge, detail);
        return scan;
    }
    if let Some((encoding, text)) = text::foreign_encoding(bytes) {
        match secret::line(text.as_bytes()) {
            Some(line) => scan.fault(line, RejectReason::PrivateKey, PRIVATE_KEY),
            None => {
                scan.fault(1, RejectReason::NotPemOrDer, format!("the text is {encoding}; save it as ASCII or UTF-8"))
            }
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
        scan.fault(line, RejectReason::NotPemOrDer, detail);
    }
    if scan.blocks.is_empty() && scan.faults.is_empty() {
        if lines(bytes).all(|(_, line)| line.is_empty() || text::commented(line).is_some()) {
            scan.note("it holds nothing but comments".into()); // as an empty file: it says nothing
        } else {
            scan.fault(0, RejectReason::NotPemOrDer, kinds::of_file(bytes));
        }
    }
    scan
}

fn scan_der(bytes: &[u8], scan: &mut Scan) {
    // tools that take the file for text append blanks
    let whole = after(bytes).filter(|rest| {
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
        rest = after(element);
    }
    // a key in PEM that was appended to it
    if rest.is_some_and(|rest| !rest.is_empty() && secret::line(rest).is_some()) {
        *scan = Scan::of_key(0, PRIVATE_KEY);
        return;
    }
    match kinds::of_der(der) {
        Some(kind @ (ContentKind::Pkcs7 | ContentKind::Crl | ContentKind::Request | ContentKind::PublicKey)) => {
            scan.fault(0, RejectReason::NoCertificate, kind.sentence());
        }
        Some(kind @ ContentKind::Pkcs12) => scan.fault(0, RejectReason::NotPemOrDer, kind.sentence()),
        Some(ContentKind::Certificate)
            if after(der).is_some_and(|rest| kinds::of_der(rest) == Some(ContentKind::Certificate)) =>
        {
            let detail = "several DER certificates in one file; give each in a file of its own, or all of them as PEM";
            scan.fault(0, RejectReason::TrailingData, detail);
        }
        _ => scan.blocks.push(Block { line: 0, label: Label::Certificate, der: der.to_vec() }),
    }
}

fn scan_pem(bytes: &[u8], scan: &mut Scan) {
    let mut open: Option<OpenBlock<'_>> = None;
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
            (None, Boundary::Begin(label)) => open = Some(OpenBlock::new(number, label)),
            (None, Boundary::End(_)) => scan.fault(number, RejectReason::NotPemOrDer, "an END line without its BEGIN"),
            (None, Boundary::Mention(mention)) => match mention.what(lines.clone()) {
                Ok(note) => scan.note(format!("line {number}: {note}")),
                // the block behind such a line cannot be trusted to be what its author meant
                Err(why) => open = Some(OpenBlock::faulty(number, odd_label(line), why)),
            },
            (None, Boundary::Odd(why)) => {
                if contains(line, BEGIN) {
                    open = Some(OpenBlock::faulty(number, odd_label(line), why));
                } else {
                    scan.fault(number, RejectReason::NotPemOrDer, why);
                }
            }
            (None, Boundary::LookAlike(text::Side::Begin, why)) if is_followed_by_body(lines.clone()) => {
                open = Some(OpenBlock::faulty(number, b"", why));
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
            (Some(block), Boundary::End(label)) => block.close(&BlockEnd::End(label, number), scan),
            (Some(mut block), Boundary::LookAlike(text::Side::End, why)) => {
                block.fault.get_or_insert_with(|| (number, why.into()));
                block.close(&BlockEnd::End(b"", number), scan);
            }
            (Some(block), Boundary::LookAlike(text::Side::Begin, why)) => {
                block.close(&BlockEnd::Begin(number), scan);
                open = Some(OpenBlock::faulty(number, b"", why));
            }
            (Some(block), Boundary::Begin(label)) => {
                block.close(&BlockEnd::Begin(number), scan);
                open = Some(OpenBlock::new(number, label));
            }
            (Some(mut block), boundary @ (Boundary::Odd(_) | Boundary::Mention(_))) => {
                let why = match boundary {
                    Boundary::Odd(why) => why,
                    _ => "a BEGIN or END line with something else on it; each must stand alone on its line",
                };
                block.fault.get_or_insert((number, why.into()));
                let begins = contains(line, BEGIN);
                block.close(&BlockEnd::End(b"", number), scan);
                if begins {
                    let why = "begins in the middle of a line; put each BEGIN and END on a line of its own";
                    open = Some(OpenBlock::faulty(number, odd_label(line), why));
                }
            }
        }
    }
    if let Some(block) = open {
        block.close(&BlockEnd::File, scan);
    }
}

/// PKCS#8 (RFC 5958), PKCS#1 (RFC 8017) and SEC 1 (RFC 5915) keys are sequences that begin with the integer 0 or 1;
/// a certificate begins with a sequence.
fn is_private_key(der: &[u8]) -> bool {
    matches!(first_integer(der), Some(0 | 1))
}

/// The value of a one-byte INTEGER that is the first element of a DER SEQUENCE.
fn first_integer(der: &[u8]) -> Option<u8> {
    let sequence = header(der).filter(|_| der.first() == Some(&0x30))?;
    match der.get(sequence.size..sequence.size + 3)? {
        [0x02, 0x01, value] => Some(*value),
        _ => None,
    }
}
