//! Which programs can decode a certificate: OpenSSL, GnuTLS and Go, each by its own rules.
//!
//! In: the DER of one certificate, as it stands in a bundle. Out: [`Readers`]. What OpenSSL or GnuTLS cannot decode makes it
//! refuse the whole bundle, so that every client that uses it fails. What Go cannot parse it skips without an error, and a container
//! runtime with such a file in its registry directory refuses every pull (docs/facts.md).
//!
//! The rules are those of the libraries' own code, and as lenient: an odd certificate may still be read. Where versions differ, the
//! stricter one counts: OpenSSL 3.0 and 3.5, GnuTLS 3.7 and 3.8, Go 1.19 and 1.27. `scripts/readers` runs the
//! real ones over the same certificates.

mod fault;
mod gnutls;
mod go;
mod java;
mod openssl;

use fault::Checked;
pub use openssl::{crl_fault, trusted_fault};

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

/// Which of the three decode a certificate.
pub fn verdict(der: &[u8]) -> Readers {
    Readers { openssl: openssl_fault(der), gnutls: gnutls_fault(der), go: go_fault(der) }
}

/// Why OpenSSL does not decode a certificate. It ignores what follows it.
pub fn openssl_fault(der: &[u8]) -> Option<String> {
    sentence(openssl::certificate(der))
}

/// Why GnuTLS does not decode a certificate.
pub fn gnutls_fault(der: &[u8]) -> Option<String> {
    sentence(gnutls::certificate(der))
}

/// Why Go does not parse a certificate.
pub fn go_fault(der: &[u8]) -> Option<String> {
    sentence(go::certificate(der))
}

/// Why a certificate may not be read by Java, which then reads nothing of a trust store that has it. Stricter than Java itself.
pub fn java_fault(der: &[u8]) -> Option<String> {
    sentence(java::certificate(der))
}

fn sentence(checked: Checked) -> Option<String> {
    checked.err().map(|fault| fault.to_string())
}

#[cfg(test)]
mod tests;
