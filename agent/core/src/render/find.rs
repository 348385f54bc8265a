//! The certificates in the template of a node, whatever its format: PEM as it is, indented or in a string; base64 of PEM or DER, in one
//! line or several; data URLs; gzip; and these inside of each other.
//!
//! In: the bytes of a file. Out: the certificates that a node would get from it. Lines that are commented out do not count, nor do
//! entries of `settings.pki` that Bottlerocket would distrust. Of private keys nothing is kept. Everything is bounded: bytes that are
//! looked at, depth, certificates.

use std::{collections::BTreeMap, sync::Arc};

use memchr::memmem;
use percent_encoding::percent_decode;

use super::unpack;
use crate::certificate::{
    anchor::Anchor,
    encoded,
    fingerprint::Fingerprint,
    pem::{Block, Label, MAX_CERTIFICATES},
};

/// Largest template, in bytes.
pub const MAX_TEMPLATE_BYTES: usize = 16 << 20;
/// Bytes that are looked at in one template, with what its parts unpack to.
const MAX_LOOKED_AT: usize = 4 * MAX_TEMPLATE_BYTES;
/// Encodings inside of each other that are followed.
const MAX_DEPTH: usize = 6;
/// Fewest base64 digits in a line that are decoded; a certificate has far more.
const LEAST_DIGITS: usize = 40;
/// Notes that are kept.
const MAX_TEMPLATE_NOTES: usize = 20;
/// Bytes of a data URL before its comma: the type of its content.
const MAX_URL_TYPE: usize = 128;

/// Bytes before a value in which its field is looked for.
const MAX_KEY: usize = 40;
/// Bytes before a value in which the beginning of its line is looked for: a comment has few.
const MAX_COMMENT: usize = 1024;

const DASHES: &[u8] = b"-----";
const BEGIN: &[u8] = b"-----BEGIN ";

/// What a template holds.
#[derive(Debug, Default)]
pub struct FoundCertificates {
    /// The certificates.
    pub anchors: BTreeMap<Fingerprint, Arc<Anchor>>,
    /// What people should know: what could not be read, and what does not count.
    pub notes: Vec<String>,
}

/// Finds the certificates in a template.
pub fn find(bytes: &[u8]) -> FoundCertificates {
    let mut search = TemplateSearch { found: FoundCertificates::default(), budget: MAX_LOOKED_AT };
    if bytes.len() > MAX_TEMPLATE_BYTES {
        search.note(format!("more than the limit of {MAX_TEMPLATE_BYTES} bytes; nothing of it was read"));
    } else {
        search.look(bytes, 0);
    }
    search.found
}

struct TemplateSearch {
    found: FoundCertificates,
    /// bytes that may still be looked at
    budget: usize,
}

impl TemplateSearch {
    fn note(&mut self, note: String) {
        match self.found.notes.len() {
            _ if self.found.notes.contains(&note) => {}
            0..MAX_TEMPLATE_NOTES => self.found.notes.push(note),
            MAX_TEMPLATE_NOTES => self.found.notes.push("and more of the kind".to_owned()),
            _ => {}
        }
    }

    fn look(&mut self, bytes: &[u8], depth: usize) {
        let Some(budget) = self.budget.checked_sub(bytes.len()).filter(|_| depth <= MAX_DEPTH) else {
            self.note("it is packed too deeply, or unpacks to too much; the rest of it was not read".to_owned());
            return;
        };
        self.budget = budget;
        if unpack::is_gzip(bytes) {
            match unpack::gunzip(bytes, self.budget.min(MAX_TEMPLATE_BYTES)) {
                Some(content) => self.look(&content, depth + 1),
                None => self.note("a part is compressed by gzip and damaged".to_owned()),
            }
            return;
        }
        if is_der(bytes) {
            if encoded::subject(bytes).is_some() {
                self.certificate(Label::Certificate, bytes.to_vec());
            }
            return;
        }
        let entries = std::str::from_utf8(bytes).ok().and_then(bottlerocket_entries);
        if let Some(Entries { texts, distrusted }) = entries {
            for name in distrusted {
                self.note(format!("settings.pki.{name} has no `trusted = true`: Bottlerocket distrusts what is in it"));
            }
            texts.iter().for_each(|text| self.look(text.as_bytes(), depth + 1));
            return;
        }
        self.data_urls(bytes, depth);
        let rest = self.pem(bytes);
        self.base64_runs(&rest, depth);
        if memmem::find(bytes, b"\\n").is_some() {
            self.look(&unpack::with_line_ends(bytes), depth + 1);
        }
    }

    /// Takes what should be a certificate.
    fn certificate(&mut self, label: Label, der: Vec<u8>) {
        let block = Block { line: 0, label, der };
        let fingerprint = Fingerprint::of_der(block.certificate());
        if self.found.anchors.contains_key(&fingerprint) {
            return;
        }
        if self.found.anchors.len() >= MAX_CERTIFICATES {
            self.note(format!("more than {MAX_CERTIFICATES} certificates; the rest was not read"));
            return;
        }
        match Anchor::from_block(label, &block.der) {
            Ok(anchor) => {
                self.found.anchors.insert(anchor.fingerprint, Arc::new(anchor));
            }
            Err(error) => self.note(format!("a certificate in it cannot be read: {error}")),
        }
    }

    /// Takes the blocks of PEM. Returns the text with blanks in place of all blocks, those of keys included.
    fn pem(&mut self, text: &[u8]) -> Vec<u8> {
        let mut without = text.to_vec();
        let mut from = 0;
        while let Some(begin) = find_from(text, BEGIN, from) {
            let label_at = begin + BEGIN.len();
            from = label_at;
            let Some(label_end) = find_from(text, DASHES, label_at) else { break };
            let body_at = label_end + DASHES.len();
            let label = Label::of(&text[label_at..label_end]);
            let Some(end) = find_from(text, DASHES, body_at) else { break };
            if !text[end..].starts_with(b"-----END ") {
                continue; // the next BEGIN is looked at by itself
            }
            from = end + DASHES.len();
            without[begin..end].fill(b' ');
            let Some(label) = label.filter(|_| !is_commented(text, begin)) else { continue };
            match unpack::body_digits(&text[body_at..end]).and_then(|digits| unpack::base64(&digits)) {
                Some(der) => self.certificate(label, der),
                None => self.note("a block of PEM in it is broken".to_owned()),
            }
        }
        without
    }

    /// Looks into base64, in one line or wrapped as in a mail or in YAML.
    fn base64_runs(&mut self, text: &[u8], depth: usize) {
        let mut run = WrappedRun::default();
        for line in text.split(|byte| *byte == b'\n') {
            let line = line.trim_ascii();
            if run.takes(line) {
                continue;
            }
            self.end_run(&mut run, depth);
            if line.starts_with(b"#") {
                continue; // a comment
            }
            for word in words(line) {
                let key = &line[..line.len() - word.rest.len() - word.digits.len()];
                if let Some(name) = cluster_key(key) {
                    self.note(format!("the cluster's own CA ({name}) is no anchor of a node and does not count"));
                } else if word.rest.is_empty() {
                    run = WrappedRun { digits: word.digits.to_vec(), first: word.digits.len() };
                } else {
                    self.packed(word.digits, depth);
                }
            }
        }
        self.end_run(&mut run, depth);
    }

    fn end_run(&mut self, run: &mut WrappedRun, depth: usize) {
        let WrappedRun { digits, first } = std::mem::take(run);
        if !self.packed(&digits, depth) && first < digits.len() {
            self.packed(&digits[..first], depth); // the other lines are words of something else
        }
    }

    /// Looks at what base64 stands for, if it can hold a certificate. Says whether it can.
    fn packed(&mut self, digits: &[u8], depth: usize) -> bool {
        let Some(content) = unpack::base64(digits).filter(|_| digits.len() >= LEAST_DIGITS) else { return false };
        let can_hold = unpack::is_gzip(&content) || is_der(&content) || is_text(&content);
        if can_hold {
            self.look(&content, depth + 1);
        }
        can_hold
    }

    /// Looks at the content of data URLs (RFC 2397), which Ignition has for files.
    fn data_urls(&mut self, text: &[u8], depth: usize) {
        let mut from = 0;
        while let Some(at) = find_from(text, b"data:", from) {
            from = at + b"data:".len();
            let url = &text[from..];
            let is_end = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b'"' | b'\'');
            let head = &url[..url.len().min(MAX_URL_TYPE)];
            let head = &head[..head.iter().position(is_end).unwrap_or(head.len())];
            let Some(comma) = head.iter().position(|byte| *byte == b',') else { continue };
            let content = &url[comma + 1..];
            let content = &content[..content.iter().position(is_end).unwrap_or(content.len())];
            from += comma + 1 + content.len();
            if is_commented(text, at) || !content.contains(&b'%') {
                continue; // what is not escaped is found without this
            }
            let content: Vec<u8> = percent_decode(content).collect(); // a sign without two digits stays
            match head[..comma].ends_with(b";base64") {
                true => {
                    self.packed(&content, depth);
                }
                false => self.look(&content, depth + 1),
            }
        }
    }
}

/// Base64 that may go on in the next line.
#[derive(Default)]
struct WrappedRun {
    digits: Vec<u8>,
    /// how many of the digits are of the first line
    first: usize,
}

impl WrappedRun {
    /// Takes a line if the run goes on in it.
    fn takes(&mut self, line: &[u8]) -> bool {
        let goes_on = !self.digits.is_empty() && !self.digits.ends_with(b"=");
        let fits = goes_on && !line.is_empty() && line.iter().all(|byte| is_digit(byte) || *byte == b'=');
        if fits {
            self.digits.extend_from_slice(line);
        }
        fits
    }
}

/// Base64 digits in a line, with their padding, and what follows them.
struct Base64Word<'a> {
    digits: &'a [u8],
    rest: &'a [u8],
}

/// The runs of at least [`LEAST_DIGITS`] base64 digits in a line.
fn words(line: &[u8]) -> impl Iterator<Item = Base64Word<'_>> {
    let mut rest = line;
    std::iter::from_fn(move || {
        loop {
            let start = rest.iter().position(is_digit)?;
            let tail = &rest[start..];
            let length = tail.iter().position(|byte| !is_digit(byte)).unwrap_or(tail.len());
            let padding = tail[length..].iter().take(2).take_while(|byte| **byte == b'=').count();
            let digits;
            (digits, rest) = tail.split_at(length + padding);
            if digits.len() >= LEAST_DIGITS {
                return Some(Base64Word { digits, rest });
            }
        }
    })
}

/// Fields and variables of templates that hold the CA of the cluster's own API server: another domain of trust.
const CLUSTER_CA_KEYS: [&str; 6] = [
    "certificateAuthority",
    "certificate-authority-data",
    "cluster-certificate",
    "B64_CLUSTER_CA",
    "b64-cluster-ca",
    "cluster-ca",
];

/// The name of the field that a text before a value ends with, if the value is the cluster's own CA.
fn cluster_key(before: &[u8]) -> Option<&'static str> {
    let before = &before[before.len().saturating_sub(MAX_KEY)..];
    CLUSTER_CA_KEYS.into_iter().find(|key| memmem::rfind(before, key.as_bytes()).is_some())
}

fn is_digit(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/')
}

/// A DER SEQUENCE with a long length, as every certificate is.
fn is_der(bytes: &[u8]) -> bool {
    matches!(bytes, [0x30, 0x81..=0x84, ..])
}

/// Whether bytes may be text: base64 of anything else is no template.
fn is_text(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(|text| !text.chars().any(|c| c.is_control() && !c.is_whitespace()))
}

/// Whether the line before a place begins with `#`, the comment of YAML, TOML and shells. In a string, `\n` begins a line too.
fn is_commented(text: &[u8], at: usize) -> bool {
    let before = &text[at.saturating_sub(MAX_COMMENT)..at];
    let line = memchr::memrchr(b'\n', before).map_or(0, |end| end + 1);
    if line == 0 && at > MAX_COMMENT {
        return false;
    }
    let before = &before[line..];
    let line = memmem::rfind(before, b"\\n").map_or(0, |end| end + 2);
    before[line..].trim_ascii_start().starts_with(b"#")
}

fn find_from(text: &[u8], needle: &[u8], from: usize) -> Option<usize> {
    Some(from + memmem::find(text.get(from..)?, needle)?)
}

/// User data of Bottlerocket.
struct Entries {
    /// every text in it that counts
    texts: Vec<String>,
    /// the names of entries of `settings.pki` that are not trusted
    distrusted: Vec<String>,
}

/// The texts of a TOML file with `settings.pki`; None if it is none.
fn bottlerocket_entries(text: &str) -> Option<Entries> {
    if !text.contains("pki") {
        return None;
    }
    let mut file: toml::Table = text.parse().ok()?;
    let mut entries = Entries { texts: Vec::new(), distrusted: Vec::new() };
    let pki = file.get_mut("settings")?.as_table_mut()?.get_mut("pki")?.as_table_mut()?;
    pki.retain(|name, entry| {
        let is_trusted = entry.get("trusted").and_then(toml::Value::as_bool) == Some(true);
        if !is_trusted {
            entries.distrusted.push(crate::certificate::name::shown(name));
        }
        is_trusted
    });
    let mut values: Vec<toml::Value> = file.into_iter().map(|(_, value)| value).collect();
    while let Some(value) = values.pop() {
        match value {
            toml::Value::String(text) => entries.texts.push(text),
            toml::Value::Array(list) => values.extend(list),
            toml::Value::Table(table) => {
                let counts = |key: &String| !CLUSTER_CA_KEYS.contains(&key.as_str());
                values.extend(table.into_iter().filter(|(key, _)| counts(key)).map(|(_, value)| value));
            }
            _ => {}
        }
    }
    Some(entries)
}
