//! Files as people hand them over (`tests/data/files`): what is made of each, and what is said about it.

use super::*;
use crate::{source::SourceFile, testing::bytes};

/// One file: certificates that are accepted, and a word of each note or rejection in its order.
type Row = (&'static str, usize, &'static [&'static str], &'static [(RejectReason, &'static str)]);

use RejectReason::{MalformedCertificate, NoCertificate, NotPemOrDer, TrailingData};

const TABLE: &[Row] = &[
    // text around blocks
    ("bag-attributes.pem", 1, &[], &[]),
    ("text-dump.pem", 1, &[], &[]),
    ("p7-printed.pem", 2, &[], &[]),
    ("comment-dashes.pem", 2, &[], &[]),
    ("comment-mentions-begin.pem", 2, &["line 1: a BEGIN or END that is commented out"], &[]),
    ("prose-both.pem", 1, &["line 1: text that mentions BEGIN"], &[]),
    ("prose-key.pem", 1, &["line 1: text that mentions BEGIN"], &[]),
    ("commented-block.pem", 1, &["line 13: a BEGIN or END that is commented out", "line 22: "], &[]),
    ("slash-comment.pem", 1, &["line 2: a BEGIN or END that is commented out", "line 11: "], &[]),
    ("only-comments.pem", 0, &["line 2: ", "line 11: ", "nothing but comments"], &[]),
    ("half-commented.pem", 0, &[], &[(NotPemOrDer, "the BEGIN line is commented out, and the block behind it is not")]),
    ("mail-quoted.pem", 0, &[], &[(NotPemOrDer, "stand alone on its line")]),
    // line ends and white space
    ("dup.pem", 4, &[], &[]),
    ("mixed-eol.pem", 2, &[], &[]),
    ("cr-only.pem", 1, &[], &[]),
    ("tabs.pem", 1, &[], &[]),
    ("blank-lines-inside.pem", 1, &["line 1: blank lines inside the block were removed"], &[]),
    ("literal-n.pem", 0, &[], &[(NotPemOrDer, "line ends written as \\n")]),
    ("json.json", 0, &[], &[(NotPemOrDer, "line ends written as \\n, as in JSON")]),
    ("blanks-for-newlines.pem", 0, &[], &[(NotPemOrDer, "the lines of the block have become one line")]),
    ("yaml-configmap.yaml", 0, &[], &[(NotPemOrDer, "indented, as in YAML")]),
    // characters that nobody sees
    ("bom-middle.pem", 2, &["line 11: a byte order mark (BOM)"], &[]),
    ("ctrl-z-middle.pem", 2, &["line 11: a Ctrl-Z"], &[]),
    ("vt.pem", 2, &["line 11: a form feed"], &[]),
    ("zwsp-front.pem", 1, &["line 1: a zero-width space"], &[]),
    ("nbsp-tail.pem", 1, &["line 1: a no-break space", "line 10: a no-break space"], &[]),
    ("ctrl-z-end.pem", 2, &[], &[]),
    ("nul-tail.pem", 1, &[], &[]),
    // encodings
    ("utf16le-nobom.pem", 0, &[], &[(NotPemOrDer, "UTF-16")]),
    ("utf16le.pem", 0, &[], &[(NotPemOrDer, "UTF-16")]),
    ("utf16be.pem", 0, &[], &[(NotPemOrDer, "UTF-16")]),
    ("utf16be-nobom.pem", 0, &[], &[(NotPemOrDer, "UTF-16")]),
    ("utf32.pem", 0, &[], &[(NotPemOrDer, "UTF-32")]),
    ("utf32be-nobom.pem", 0, &[], &[(NotPemOrDer, "UTF-32")]),
    ("utf16-appended.pem", 1, &[], &[(NotPemOrDer, "a part of the file is UTF-16")]),
    // boundaries that are not quite right
    ("four-dashes.pem", 0, &[], &[(NotPemOrDer, "not five dashes")]),
    ("six-dashes.pem", 0, &[], &[(NotPemOrDer, "not five dashes")]),
    ("unicode-dashes.pem", 0, &[], &[(NotPemOrDer, "dashes are not ASCII")]),
    ("smart-quote-hyphen.pem", 0, &[], &[(NotPemOrDer, "dashes are not ASCII")]),
    ("lower-label.pem", 0, &[], &[(NotPemOrDer, "other letters or blanks than CERTIFICATE")]),
    ("space-before-dashes.pem", 0, &[], &[(NotPemOrDer, "other letters or blanks than CERTIFICATE")]),
    ("quoted.pem", 0, &[], &[(NotPemOrDer, "a quotation mark")]),
    // other forms
    ("der-newline.der", 1, &["white space behind the certificate"], &[]),
    ("der-two.der", 0, &[], &[(TrailingData, "several DER certificates")]),
    ("der-b64-one-line.cer", 0, &[], &[(NotPemOrDer, "base64 of a certificate without its BEGIN")]),
    ("no-armour.pem", 0, &[], &[(NotPemOrDer, "base64 of a certificate without its BEGIN")]),
    ("double-b64.pem", 0, &[], &[(NotPemOrDer, "encoded once more; decode it once")]),
    ("secret-manifest.yaml", 0, &[], &[(NotPemOrDer, "encoded once more; decode it once")]),
    ("certutil-of-pem.pem", 0, &[], &[(MalformedCertificate, "encoded once more; decode it once")]),
    ("p7.pem", 0, &[], &[(NoCertificate, "PKCS#7 (.p7b, .p7c), which is not read; convert it: openssl pkcs7")]),
    ("p7b-labelled-certificate.pem", 0, &[], &[(MalformedCertificate, "PKCS#7")]),
    ("p7.der", 0, &[], &[(NoCertificate, "PKCS#7")]),
    ("p7-bare.p7b", 0, &[], &[(NotPemOrDer, "PKCS#7")]),
    ("trailing-crl.pem", 1, &[], &[(NoCertificate, "revocation list")]),
    ("foreign-crl-broken.crt", 1, &[], &[(NoCertificate, "revocation list")]),
    ("request.pem", 0, &[], &[(NoCertificate, "certificate request")]),
    ("html.pem", 0, &[], &[(NotPemOrDer, "HTML")]),
];

#[test]
fn files_as_people_hand_them_over() {
    let mut wrong = Vec::new();
    for (file, accepted, notes, rejections) in TABLE {
        let part = SourceFile::parse(file, &bytes(&format!("files/{file}")));
        let all_notes =
            part.notes.len() == notes.len() && part.notes.iter().zip(*notes).all(|(note, word)| note.contains(word));
        let all_rejections = part.faults.len() == rejections.len()
            && part
                .faults
                .iter()
                .zip(*rejections)
                .all(|(fault, (reason, word))| fault.reason == *reason && fault.detail.contains(word));
        if part.anchors.len() != *accepted || !all_notes || !all_rejections {
            wrong.push(format!("{file}: {} accepted, {:#?} {:#?}", part.anchors.len(), part.notes, part.faults));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_file_of_the_table_is_there_and_none_is_left_out() {
    let there = crate::testing::names("files");
    let told: Vec<String> = TABLE.iter().map(|(file, ..)| (*file).to_owned()).collect();
    assert!(there.iter().all(|file| told.contains(file)) && there.len() == told.len(), "{there:?}");
}
