//! One certificate that could become an anchor, with every fact that a decision or a report needs.
//!
//! In: DER. Out: an [`Anchor`], or the reason why the bytes are none. Only [`Anchor::from_der`] makes one, so whoever holds
//! an `Anchor` holds a certificate that OpenSSL, Go and p11-kit can all decode.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use serde::Serialize;
use x509_parser::{
    certificate::X509Certificate,
    extensions::ParsedExtension,
    oid_registry as oids,
    prelude::FromDer,
    public_key::PublicKey,
    x509::{SubjectPublicKeyInfo, X509Name, X509Version},
};

use crate::{
    certificate::{
        der, encoded,
        fingerprint::Fingerprint,
        name,
        pem::{Block, Label, RejectReason},
        readers,
        signature::{self, SelfSignature},
    },
    parallel::in_shares,
};

/// Blocks of one thread at least: about 10 ms of work.
const BLOCKS_PER_THREAD: usize = 256;

/// Bits of an RSA key; OpenSSL refuses to use a larger one (`OPENSSL_RSA_MAX_MODULUS_BITS`).
const MAX_RSA_BITS: usize = 16_384;

/// Extensions of one certificate that are named; a hostile one has thousands.
const MAX_NAMED_EXTENSIONS: usize = 8;

/// A certificate, decoded once.
#[derive(Clone)]
pub struct Anchor {
    der: Arc<[u8]>,
    /// Whether it signed itself; empty until that is asked: the check takes longer than everything else.
    self_signature: OnceLock<SelfSignature>,
    /// Verifiers take it for one that its own key has signed.
    is_root: bool,
    /// Its identity.
    pub fingerprint: Fingerprint,
    /// Who it is.
    pub subject: Name,
    /// Who signed it.
    pub issuer: Name,
    /// The serial number in lower-case hexadecimal digits; of a very long one the beginning and the end.
    pub serial: String,
    /// Start of validity, seconds since the epoch.
    pub not_before: i64,
    /// End of validity, seconds since the epoch.
    pub not_after: i64,
    /// Whether it may act as a CA.
    pub authority: Authority,
    /// Its public key, e.g. `RSA 2048`.
    pub key: Key,
    /// Broken signature algorithm on a certificate that is not self-signed, e.g. `SHA-1`.
    pub weak_signature: Option<&'static str>,
    /// keyUsage is present and lacks keyCertSign.
    pub cannot_sign: bool,
    /// extendedKeyUsage is present and has neither serverAuth nor anyExtendedKeyUsage.
    pub not_for_servers: bool,
    /// basicConstraints is present and not critical (RFC 5280, 4.2.1.9 wants it critical).
    pub constraints_not_critical: bool,
    /// It has nameConstraints.
    pub name_constraints: bool,
    /// Object identifiers of critical extensions that verifiers are not known to handle.
    pub unknown_critical: Vec<String>,
    /// Why Go's crypto/x509 does not parse it; None: it does. Go leaves such a certificate out of its
    /// roots without a word, and a runtime that meets it in its registry directory refuses every pull.
    pub go_refuses: Option<String>,
}

/// A distinguished name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// The whole name for people, e.g. `CN=Corp Root CA, O=Corp`.
    pub text: String,
    /// The common name, or the best substitute; never empty.
    pub common: String,
    /// OpenSSL's hash of it, which names the links in a certificate directory (facts E.6).
    pub hash: u32,
    /// The encoded name, for comparing.
    pub raw: Box<[u8]>,
}

/// Whether a certificate may act as a CA.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Authority {
    /// basicConstraints with CA:TRUE.
    Ca,
    /// X.509 version 1 and self-issued, from before basicConstraints existed; stores accept it.
    Version1,
    /// CA:FALSE: a leaf.
    Leaf,
    /// Version 3 without basicConstraints, or version 1 and not self-issued.
    Unmarked,
}

/// A public key's kind and size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// `RSA`, `EC`, `Ed25519`, `DSA`, or the algorithm's object identifier.
    pub kind: String,
    /// Its size in bits, 0 where unknown.
    pub bits: usize,
}

/// Why some DER is no anchor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {detail}")]
pub struct AnchorError {
    /// The public reason.
    pub reason: RejectReason,
    /// What exactly.
    pub detail: String,
}

/// Everything else follows from the bytes.
impl PartialEq for Anchor {
    fn eq(&self, other: &Self) -> bool {
        self.der == other.der
    }
}

impl Eq for Anchor {}

impl Anchor {
    /// Decodes one certificate, which must fill the bytes to the end.
    ///
    /// # Errors
    /// `malformed-certificate` if it cannot be decoded; `trailing-data` if bytes follow. A signature of its own that does not match
    /// is no error: nobody verifies an anchor's own signature, and it is for the policy to judge.
    pub fn from_der(der: &[u8]) -> Result<Self, AnchorError> {
        let malformed = |detail: String| AnchorError { reason: RejectReason::MalformedCertificate, detail };
        let readers = readers::verdict(der);
        let (rest, cert) = X509Certificate::from_der(der).map_err(|error| {
            let is_like_one = encoded::subject(der).is_some();
            let fault = readers.bundle_fault().filter(|_| is_like_one);
            malformed(fault.unwrap_or_else(|| format!("not an X.509 certificate ({})", describe(&error))))
        })?;
        if !rest.is_empty() {
            let detail = format!("{} bytes follow the certificate", rest.len());
            return Err(AnchorError { reason: RejectReason::TrailingData, detail });
        }
        if let Some(fault) = readers.bundle_fault() {
            return Err(malformed(fault));
        }
        let subject = Name::new(cert.subject()).map_err(malformed)?;
        let self_issued = cert.subject().as_raw() == cert.issuer().as_raw();
        let issuer = if self_issued { subject.clone() } else { Name::new(cert.issuer()).map_err(malformed)? };
        let by_another = match self_issued {
            false => Some(SelfSignature::NotSelfIssued),
            true => names_another_key(&cert).then_some(SelfSignature::OtherKey),
        };
        let key = Key::new(&cert);
        if key.kind == "RSA" && key.bits > MAX_RSA_BITS {
            let bits = key.bits;
            return Err(malformed(format!("its RSA key has {bits} bits; no reader can use one above 16,384 bits")));
        }
        let mut anchor = Self {
            der: der.into(),
            fingerprint: Fingerprint::of_der(der),
            serial: name::shown_hex(cert.raw_serial()),
            not_before: cert.validity().not_before.timestamp(),
            not_after: cert.validity().not_after.timestamp(),
            authority: if self_issued && cert.version() == X509Version::V1 {
                Authority::Version1
            } else {
                Authority::Unmarked
            },
            // readers do not verify an anchor's own signature, so its algorithm does not matter (facts E.3)
            weak_signature: by_another.and_then(|_| signature::weakness(&cert.signature_algorithm.algorithm)),
            subject,
            issuer,
            is_root: by_another.is_none(),
            self_signature: by_another.map_or_else(OnceLock::new, OnceLock::from),
            key,
            cannot_sign: false,
            not_for_servers: false,
            constraints_not_critical: false,
            name_constraints: false,
            unknown_critical: Vec::new(),
            go_refuses: readers.go,
        };
        anchor.read_extensions(&cert).map_err(malformed)?;
        Ok(anchor)
    }

    /// Decodes the content of a PEM block. What OpenSSL appends under `TRUSTED CERTIFICATE` is cut off.
    ///
    /// # Errors
    /// As [`Anchor::from_der`]; `not-ca` if such trust settings exclude servers.
    pub fn from_block(label: Label, der: &[u8]) -> Result<Self, AnchorError> {
        match label {
            Label::Certificate | Label::Legacy => Self::from_der(der),
            Label::Trusted => {
                let first = der::element(der);
                let (certificate, trust) = first.map_or((der, &[][..]), |first| (first.whole, first.rest));
                if encoded::is_distrusted_for_servers(trust) {
                    let detail = "its trust settings (TRUSTED CERTIFICATE) exclude servers".to_owned();
                    return Err(AnchorError { reason: RejectReason::NotCa, detail });
                }
                Self::from_der(certificate)
            }
        }
    }

    /// Decodes blocks, on several threads if there are many. Returns one result for each block, in order.
    pub fn from_blocks(blocks: &[Block]) -> Vec<Result<Self, AnchorError>> {
        let decode = |block: &Block| Self::from_block(block.label, &block.der);
        in_shares(blocks, BLOCKS_PER_THREAD, |share| share.iter().map(decode).collect())
    }

    /// Whether it signed itself. The first question checks the signature, which takes longer than everything else.
    pub fn self_signature(&self) -> SelfSignature {
        *self.self_signature.get_or_init(|| signature::verify_own(&self.der))
    }

    /// Checks the own signatures of anchors that will be asked for them, on several threads if there are many.
    pub fn check_signatures(anchors: &[&Self]) {
        in_shares(anchors, BLOCKS_PER_THREAD, |share| share.iter().map(|anchor| anchor.self_signature()).collect());
    }

    /// Its own signature was checked before, and matched. The fingerprint covers it, so it matches still.
    pub(crate) fn was_verified(&self) {
        // whoever has checked it meanwhile found the same
        let _: Result<(), SelfSignature> = self.self_signature.set(SelfSignature::Verified);
    }

    /// Its subjectKeyIdentifier, if it has one.
    pub fn key_id(&self) -> Option<&[u8]> {
        encoded::key_id(&self.der)
    }

    /// Whether Go's crypto/x509 parses it.
    pub fn go_reads(&self) -> bool {
        self.go_refuses.is_none()
    }

    /// The certificate's DER.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The certificate's DER, shared instead of copied.
    pub fn shared_der(&self) -> Arc<[u8]> {
        self.der.clone()
    }

    /// The certificate as the host's files hold it.
    pub fn pem(&self) -> String {
        crate::certificate::pem::encode(&self.der)
    }

    /// Whether it is a root, the end of a chain: verifiers take it for one that its own key has signed. They do not check that for an
    /// anchor (facts E.3).
    pub fn is_root(&self) -> bool {
        self.is_root
    }

    /// Whether p11-kit would silently leave it out of the bundle for servers (facts A.4).
    pub fn dropped_by_p11_kit(&self) -> Option<&'static str> {
        match self.authority {
            Authority::Leaf => Some("it is not a CA (CA:FALSE)"),
            Authority::Unmarked => Some("it does not say that it is a CA (no basicConstraints)"),
            Authority::Ca | Authority::Version1 if self.not_for_servers => {
                Some("its extendedKeyUsage does not include serverAuth")
            }
            Authority::Ca | Authority::Version1 => None,
        }
    }

    fn read_extensions(&mut self, cert: &X509Certificate<'_>) -> Result<(), String> {
        for extension in cert.extensions() {
            match extension.parsed_extension() {
                ParsedExtension::BasicConstraints(constraints) => {
                    self.authority = if constraints.ca { Authority::Ca } else { Authority::Leaf };
                    self.constraints_not_critical = constraints.ca && !extension.critical;
                }
                ParsedExtension::KeyUsage(usage) => self.cannot_sign = !usage.key_cert_sign(),
                ParsedExtension::ExtendedKeyUsage(usage) => self.not_for_servers = !(usage.server_auth || usage.any),
                ParsedExtension::NameConstraints(_) => self.name_constraints = true,
                ParsedExtension::ParseError { .. } if extension.oid == oids::OID_X509_EXT_BASIC_CONSTRAINTS => {
                    return Err("its basicConstraints extension cannot be read".into());
                }
                ParsedExtension::UnsupportedExtension { .. } | ParsedExtension::ParseError { .. }
                    if extension.critical && self.unknown_critical.len() < MAX_NAMED_EXTENSIONS =>
                {
                    self.unknown_critical.push(name::shown(&extension.oid.to_id_string()));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl Name {
    /// A name for people and for comparing.
    ///
    /// # Errors
    /// If a text in it does not fit its type.
    pub(crate) fn new(name: &X509Name<'_>) -> Result<Self, String> {
        let text = name::display(name);
        let common =
            [name.iter_common_name().next(), name.iter_organizational_unit().next(), name.iter_organization().next()]
                .into_iter()
                .flatten()
                .find_map(|attribute| name::text(attribute.attr_value()).filter(|text| !text.trim().is_empty()))
                .or_else(|| Some(text.clone()).filter(|text| !text.is_empty()))
                .unwrap_or_else(|| "(no name)".into());
        Ok(Self { hash: name::openssl_hash(name)?, common, raw: name.as_raw().into(), text })
    }

    /// Whether the name is empty, which no directory link can tell from another empty one.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }
}

impl Key {
    fn new(cert: &X509Certificate<'_>) -> Self {
        Self::of(cert.public_key())
    }

    /// The kind and size of a certificate's key.
    pub(crate) fn of(info: &SubjectPublicKeyInfo<'_>) -> Self {
        let (kind, bits) = match info.parsed() {
            Ok(PublicKey::RSA(key)) => ("RSA".into(), signature::significant_bits(key.modulus)),
            Ok(PublicKey::EC(_)) => ("EC".into(), signature::curve_bits(info)),
            Ok(PublicKey::DSA(_)) => ("DSA".into(), 0),
            _ if info.algorithm.algorithm == oids::OID_PKCS1_RSASSAPSS => ("RSA-PSS".into(), 0),
            _ if info.algorithm.algorithm == oids::OID_SIG_ED25519 => ("Ed25519".into(), 256),
            _ if info.algorithm.algorithm == oids::OID_SIG_ED448 => ("Ed448".into(), 456),
            _ => (info.algorithm.algorithm.to_id_string(), 0),
        };
        Self { kind, bits }
    }

    /// Too small for OpenSSL's default security level.
    pub fn is_weak(&self) -> bool {
        self.kind == "RSA" && self.bits < 2048
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.bits {
            0 => f.write_str(&self.kind),
            bits => write!(f, "{} {bits}", self.kind),
        }
    }
}

impl fmt::Debug for Anchor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Anchor({} {})", self.fingerprint.fp16(), self.subject.text)
    }
}

/// Whether a certificate says that another key than its own has signed it: the link between two generations of a CA that
/// kept its name (RFC 4210, 4.4).
fn names_another_key(cert: &X509Certificate<'_>) -> bool {
    let (mut own, mut signer) = (None, None);
    for extension in cert.extensions() {
        match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => own = Some(id.0),
            ParsedExtension::AuthorityKeyIdentifier(id) => signer = id.key_identifier.as_ref().map(|id| id.0),
            _ => {}
        }
    }
    own.is_some() && signer.is_some() && own != signer
}

/// The parser's error for people, without the bytes that it may carry.
fn describe(error: &x509_parser::nom::Err<x509_parser::error::X509Error>) -> String {
    use x509_parser::error::X509Error;
    match error {
        x509_parser::nom::Err::Incomplete(_) => "cut off".into(),
        x509_parser::nom::Err::Error(X509Error::Der(_) | X509Error::NomError(_))
        | x509_parser::nom::Err::Failure(X509Error::Der(_) | X509Error::NomError(_)) => {
            "damaged, or something else such as a CRL, a request or a key".into()
        }
        x509_parser::nom::Err::Error(error) | x509_parser::nom::Err::Failure(error) => error.to_string(),
    }
}

#[cfg(test)]
#[path = "anchor_tests.rs"]
mod tests;
