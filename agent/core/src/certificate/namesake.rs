//! CAs of ours that have the name and the key identifier of a certificate which is not ours, and another key.
//!
//! That is what an inspecting proxy's copy of a public root looks like, or two files that were mixed up. OpenSSL picks an issuer by
//! name and key identifier and tries only the one that it finds first (facts E.5), so that chains under the other one fail.

use std::collections::BTreeMap;

use x509_parser::{certificate::X509Certificate, extensions::ParsedExtension, prelude::FromDer};

use crate::certificate::{
    anchor::Anchor,
    fingerprint::{Fingerprint, content_digest},
    name,
};

/// Certificates that are not ours, to be found by name.
#[derive(Debug, Clone, Default)]
pub struct Others {
    /// by OpenSSL's hash of the name
    by_name: BTreeMap<u32, Vec<Other>>,
}

#[derive(Debug, Clone)]
struct Other {
    fingerprint: Fingerprint,
    key: KeyIdentity,
}

/// What says which key a certificate is about.
#[derive(Debug, Clone, PartialEq, Eq)]
struct KeyIdentity {
    /// its subjectKeyIdentifier
    id: Vec<u8>,
    /// digest of the key itself
    digest: [u8; 32],
}

impl Others {
    /// Certificates that are not ours, DER. What has no key identifier, or cannot be read, is left out.
    pub fn of<'a>(certificates: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut others = Self::default();
        for der in certificates {
            let Ok((_, certificate)) = X509Certificate::from_der(der) else { continue };
            if let (Some(key), Ok(hash)) = (KeyIdentity::of(&certificate), name::openssl_hash(certificate.subject())) {
                let other = Other { fingerprint: Fingerprint::of_der(der), key };
                others.by_name.entry(hash).or_default().push(other);
            }
        }
        others
    }

    /// A warning about an anchor that has the name and key identifier of one of these, and another key.
    pub fn warning(&self, anchor: &Anchor) -> Option<String> {
        let namesakes = self.by_name.get(&anchor.subject.hash)?;
        let (_, certificate) = X509Certificate::from_der(anchor.der()).ok()?;
        let key = KeyIdentity::of(&certificate)?;
        let other = namesakes.iter().find(|other| other.key.id == key.id && other.key.digest != key.digest)?;
        Some(format!(
            "it has the name and the key identifier of {}, which is in the bundle and not ours, and another key: an inspecting proxy's copy, or mixed up? \
             OpenSSL tries only one of the two, so chains under the other may fail",
            other.fingerprint.fp16()
        ))
    }
}

impl KeyIdentity {
    fn of(certificate: &X509Certificate<'_>) -> Option<Self> {
        let id = certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
            _ => None,
        })?;
        Some(Self { id, digest: content_digest(certificate.public_key().raw) })
    }
}

#[cfg(test)]
#[path = "namesake_tests.rs"]
mod tests;
