//! Object identifiers, encoded: the content of their element.

/// `subjectKeyIdentifier`.
pub(crate) const SUBJECT_KEY_ID: &[u8] = b"\x55\x1d\x0e";
/// `keyUsage`.
pub(crate) const KEY_USAGE: &[u8] = b"\x55\x1d\x0f";
/// `subjectAltName`.
pub(crate) const SUBJECT_NAMES: &[u8] = b"\x55\x1d\x11";
/// `issuerAltName`.
pub(crate) const ISSUER_NAMES: &[u8] = b"\x55\x1d\x12";
/// `basicConstraints`.
pub(crate) const BASIC_CONSTRAINTS: &[u8] = b"\x55\x1d\x13";
/// `nameConstraints`.
pub(crate) const NAME_CONSTRAINTS: &[u8] = b"\x55\x1d\x1e";
/// `cRLDistributionPoints`.
pub(crate) const CRL_POINTS: &[u8] = b"\x55\x1d\x1f";
/// `certificatePolicies`.
pub(crate) const POLICIES: &[u8] = b"\x55\x1d\x20";
/// `policyMappings`.
pub(crate) const POLICY_MAPPINGS: &[u8] = b"\x55\x1d\x21";
/// `authorityKeyIdentifier`.
pub(crate) const AUTHORITY_KEY_ID: &[u8] = b"\x55\x1d\x23";
/// `policyConstraints`.
pub(crate) const POLICY_CONSTRAINTS: &[u8] = b"\x55\x1d\x24";
/// `extendedKeyUsage`.
pub(crate) const EXTENDED_KEY_USAGE: &[u8] = b"\x55\x1d\x25";
/// `inhibitAnyPolicy`.
pub(crate) const INHIBIT_ANY_POLICY: &[u8] = b"\x55\x1d\x36";
/// `authorityInfoAccess`.
pub(crate) const AUTHORITY_INFO: &[u8] = b"\x2b\x06\x01\x05\x05\x07\x01\x01";
/// `nsCertType`, Netscape's mark of what a certificate is for.
pub(crate) const NETSCAPE_TYPE: &[u8] = b"\x60\x86\x48\x01\x86\xf8\x42\x01\x01";
/// `id-pkix-ocsp-nocheck`.
pub(crate) const NO_CHECK: &[u8] = b"\x2b\x06\x01\x05\x05\x07\x30\x01\x05";
/// `proxyCertInfo`.
pub(crate) const PROXY_INFO: &[u8] = b"\x2b\x06\x01\x05\x05\x07\x01\x0e";
/// `ipAddrBlocks`.
pub(crate) const ADDRESS_BLOCKS: &[u8] = b"\x2b\x06\x01\x05\x05\x07\x01\x07";
/// `autonomousSysIds`.
pub(crate) const AS_NUMBERS: &[u8] = b"\x2b\x06\x01\x05\x05\x07\x01\x08";
/// The purpose `serverAuth`.
pub(crate) const SERVER_AUTH: &[u8] = b"\x2b\x06\x01\x05\x05\x07\x03\x01";
/// The purpose `anyExtendedKeyUsage`.
pub(crate) const ANY_PURPOSE: &[u8] = b"\x55\x1d\x25\x00";
/// The access method `caIssuers`.
pub(crate) const CA_ISSUERS: &[u8] = b"\x2b\x06\x01\x05\x05\x07\x30\x02";
/// Of a public key: `rsaEncryption` (RFC 3279), `id-ecPublicKey` (RFC 5480), `id-Ed25519` (RFC 8410).
pub(crate) const RSA: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01";
pub(crate) const EC: &[u8] = b"\x2a\x86\x48\xce\x3d\x02\x01";
pub(crate) const ED25519: &[u8] = b"\x2b\x65\x70";
