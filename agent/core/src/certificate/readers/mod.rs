//! Which programs can decode a certificate: OpenSSL, GnuTLS and Go, each by its own rules.
//!
//! In: the DER of one certificate, as it stands in a bundle. Out: [`Readers`]. What OpenSSL or GnuTLS cannot decode makes it
//! refuse the whole bundle, and so ends every client that uses it; what Go cannot parse it leaves out without a word, and a
//! container runtime that meets it in a registry directory refuses every pull (docs/facts.md).
//!
//! The rules are those of the libraries' own code, with the leniency of each: a certificate may be odd and still be read. Where
//! versions differ, the stricter one counts: OpenSSL 3.0 and 3.5, GnuTLS 3.7 and 3.8, Go 1.19 and 1.27. `scripts/readers` runs the
//! real ones over the same certificates.

mod curve;
mod gnutls;
mod go;
mod openssl;
mod url;

pub use openssl::{crl_fault, trusted_fault};

use std::fmt;

/// Why a reader cannot decode a certificate, in plain words; None: it can.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Readers {
    /// OpenSSL's `d2i_X509`. It then loads nothing of a bundle.
    pub openssl: Option<String>,
    /// GnuTLS's `gnutls_x509_crt_import`. It then loads nothing of a file.
    pub gnutls: Option<String>,
    /// Go's `x509.ParseCertificate`. It leaves the certificate out.
    pub go: Option<String>,
}

impl Readers {
    /// Whether a bundle with this certificate still loads everywhere.
    pub fn keep_bundles_whole(&self) -> bool {
        self.openssl.is_none() && self.gnutls.is_none()
    }

    /// What is wrong with it for the readers of bundles, and who they are; None where bundles stay whole.
    pub fn bundle_fault(&self) -> Option<String> {
        let (who, why) = match (&self.openssl, &self.gnutls) {
            (None, None) => return None,
            (Some(why), None) => ("OpenSSL", why),
            (None, Some(why)) => ("GnuTLS", why),
            (Some(why), Some(_)) => ("OpenSSL and GnuTLS", why),
        };
        Some(format!("{who} would refuse it, and with it a whole bundle ({why})"))
    }
}

/// Asks all three.
pub fn verdict(der: &[u8]) -> Readers {
    let text = |result: Checked| result.err().map(|fault| fault.to_string());
    Readers { openssl: openssl_fault(der), gnutls: gnutls_fault(der), go: text(go::certificate(der)) }
}

/// Why OpenSSL does not decode a certificate. It ignores what follows it.
pub fn openssl_fault(der: &[u8]) -> Option<String> {
    openssl::certificate(der).err().map(|fault| fault.to_string())
}

/// Why GnuTLS does not decode a certificate.
pub fn gnutls_fault(der: &[u8]) -> Option<String> {
    gnutls::certificate(der).err().map(|fault| fault.to_string())
}

/// Why Go does not parse a certificate.
pub fn go_fault(der: &[u8]) -> Option<String> {
    go::certificate(der).err().map(|fault| fault.to_string())
}

/// Where a certificate is wrong, and what is wrong there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fault {
    place: &'static str,
    what: &'static str,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

type Checked = Result<(), Fault>;

/// Says where something is wrong.
trait At<T> {
    fn at(self, place: &'static str) -> Result<T, Fault>;
}

impl<T> At<T> for Result<T, &'static str> {
    fn at(self, place: &'static str) -> Result<T, Fault> {
        self.map_err(|what| Fault { place, what })
    }
}

impl<T> At<T> for Option<T> {
    fn at(self, place: &'static str) -> Result<T, Fault> {
        self.ok_or(Fault { place, what: MALFORMED })
    }
}

const MALFORMED: &str = "damaged or not encoded as it must be";
const MISSING: &str = "missing or of another type";
const PADDED: &str = "a number that is empty or not in its shortest form";
const BAD_OID: &str = "an object identifier that is empty, cut off or not in its shortest form";
const BAD_BITS: &str = "a bit string without its count of unused bits, or with a wrong one";
const BAD_BOOLEAN: &str = "a truth value of another length than one byte";
const BAD_NULL: &str = "a NULL with content";
const BAD_TEXT: &str = "a text whose bytes do not fit its type";
const OTHER_TYPE: &str = "a value of a type that is none of texts";
const TRAILING: &str = "more than belongs there";

/// An INTEGER's content is in its shortest form.
fn is_integer(content: &[u8]) -> bool {
    match content {
        [] => false,
        [_] => true,
        [0, second, ..] => second & 0x80 != 0,
        [0xff, second, ..] => second & 0x80 == 0,
        _ => true,
    }
}

/// An OBJECT IDENTIFIER's content: each part complete and in its shortest form.
fn is_oid(content: &[u8]) -> bool {
    content.last().is_some_and(|last| last & 0x80 == 0)
        && content.iter().enumerate().all(|(at, byte)| *byte != 0x80 || (at > 0 && content[at - 1] & 0x80 != 0))
}

/// Object identifiers of extensions, encoded.
mod extension {
    pub(crate) const SUBJECT_KEY_ID: &[u8] = b"\x55\x1d\x0e";
    pub(crate) const KEY_USAGE: &[u8] = b"\x55\x1d\x0f";
    pub(crate) const SUBJECT_NAMES: &[u8] = b"\x55\x1d\x11";
    pub(crate) const ISSUER_NAMES: &[u8] = b"\x55\x1d\x12";
    pub(crate) const BASIC_CONSTRAINTS: &[u8] = b"\x55\x1d\x13";
    pub(crate) const NAME_CONSTRAINTS: &[u8] = b"\x55\x1d\x1e";
    pub(crate) const CRL_POINTS: &[u8] = b"\x55\x1d\x1f";
    pub(crate) const POLICIES: &[u8] = b"\x55\x1d\x20";
    pub(crate) const POLICY_MAPPINGS: &[u8] = b"\x55\x1d\x21";
    pub(crate) const AUTHORITY_KEY_ID: &[u8] = b"\x55\x1d\x23";
    pub(crate) const POLICY_CONSTRAINTS: &[u8] = b"\x55\x1d\x24";
    pub(crate) const EXTENDED_KEY_USAGE: &[u8] = b"\x55\x1d\x25";
    pub(crate) const INHIBIT_ANY_POLICY: &[u8] = b"\x55\x1d\x36";
    pub(crate) const AUTHORITY_INFO: &[u8] = b"\x2b\x06\x01\x05\x05\x07\x01\x01";
}

#[cfg(test)]
mod tests;
