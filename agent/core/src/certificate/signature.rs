//! Signatures: does a self-issued certificate verify under its own key, and which algorithms are broken.
//!
//! The check catches files that were cut, edited or mixed up. An algorithm or key size that the library does not know is
//! reported as such and never taken for a wrong signature.

use aws_lc_rs::signature::{self as algorithms, UnparsedPublicKey, VerificationAlgorithm};
use serde::Serialize;
use x509_parser::{
    der_parser::{Oid, oid},
    oid_registry as oids,
    prelude::FromDer,
    public_key::PublicKey,
    signature_algorithm::SignatureAlgorithm,
    x509::{AlgorithmIdentifier, SubjectPublicKeyInfo},
};

use super::encoded::{Identity, SignedParts};

/// What became of the check of a certificate's own signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SelfSignature {
    /// Subject and issuer differ: nothing to check.
    NotSelfIssued,
    /// Subject and issuer are one name, but it says that another key has signed it.
    OtherKey,
    /// It verifies.
    Verified,
    /// The algorithm or key size is not supported here.
    Unchecked,
    /// It does not verify: the certificate is damaged, or another key of the same name has signed it without saying so.
    Wrong,
}

/// The size of a big-endian number.
pub(crate) fn significant_bits(number: &[u8]) -> usize {
    let significant = number.iter().position(|byte| *byte != 0).map_or(&[][..], |at| &number[at..]);
    significant.first().map_or(0, |first| significant.len() * 8 - first.leading_zeros() as usize)
}

/// Verifies a self-issued certificate in DER under its own key. One that cannot be taken apart is not checked.
pub(crate) fn verify_own(certificate: &[u8]) -> SelfSignature {
    match is_signed_with(certificate, certificate) {
        Some(true) => SelfSignature::Verified,
        Some(false) => SelfSignature::Wrong,
        None => SelfSignature::Unchecked,
    }
}

/// Whether one certificate is signed by another one's key, DER both; false where that cannot be checked.
pub(crate) fn is_signed_by(certificate: &[u8], issuer: &[u8]) -> bool {
    is_signed_with(certificate, issuer) == Some(true)
}

/// None: the algorithm or key size is not supported here.
fn is_signed_with(certificate: &[u8], issuer: &[u8]) -> Option<bool> {
    let (signed, key) = (SignedParts::of(certificate)?, Identity::of(issuer)?.key);
    let verified = verify(signed.algorithm, key, signed.content, signed.signature)?;
    Some(verified && signed.unused_bits == 0)
}

/// Whether a key has signed a message, all in DER; None: the algorithm or key size is not supported here.
pub(crate) fn verify(identifier: &[u8], key: &[u8], message: &[u8], signature: &[u8]) -> Option<bool> {
    let (_, identifier) = AlgorithmIdentifier::from_der(identifier).ok()?;
    let (_, info) = SubjectPublicKeyInfo::from_der(key).ok()?;
    let key = UnparsedPublicKey::new(algorithm(&identifier, &info)?, &info.subject_public_key.data);
    Some(key.verify(message, signature).is_ok())
}

/// [`weakness`] of an algorithm in DER.
pub(crate) fn weakness_of(identifier: &[u8]) -> Option<&'static str> {
    AlgorithmIdentifier::from_der(identifier).ok().and_then(|(_, identifier)| weakness(&identifier.algorithm))
}

/// The name of a signature algorithm that verifiers refuse, for certificates that are not self-signed.
pub(crate) fn weakness(algorithm: &Oid<'_>) -> Option<&'static str> {
    static SHA1: [Oid<'_>; 5] = [
        oids::OID_PKCS1_SHA1WITHRSA,
        oids::OID_SHA1_WITH_RSA,
        oid!(1.2.840.10045.4.1), // ecdsa-with-SHA1
        oids::OID_SIG_DSA_WITH_SHA1,
        oid!(1.3.14.3.2.27), // dsaWithSHA1
    ];
    static MD: [Oid<'_>; 3] =
        [oids::OID_PKCS1_MD5WITHRSAENC, oids::OID_PKCS1_MD4WITHRSAENC, oids::OID_PKCS1_MD2WITHRSAENC];
    if SHA1.contains(algorithm) {
        return Some("SHA-1");
    }
    MD.contains(algorithm).then_some("MD5 or older")
}

/// The size of a named curve in bits, 0 for others.
pub(crate) fn curve_bits(info: &SubjectPublicKeyInfo<'_>) -> usize {
    let Some(curve) = curve(info) else { return 0 };
    CURVES.iter().find(|(known, _)| *known == curve).map_or(0, |(_, bits)| *bits)
}

const SECP256K1: Oid<'_> = oid!(1.3.132.0.10);
/// Named curves with their sizes in bits.
static CURVES: [(Oid<'_>, usize); 5] = [
    (oids::OID_EC_P256, 256),
    (oids::OID_NIST_EC_P384, 384),
    (oids::OID_NIST_EC_P521, 521),
    (oid!(1.3.132.0.33), 224), // P-224
    (SECP256K1, 256),
];

fn curve<'a>(info: &'a SubjectPublicKeyInfo<'_>) -> Option<Oid<'a>> {
    info.algorithm.parameters.as_ref()?.as_oid().ok()
}

fn algorithm(
    identifier: &AlgorithmIdentifier<'_>,
    info: &SubjectPublicKeyInfo<'_>,
) -> Option<&'static dyn VerificationAlgorithm> {
    let oid = &identifier.algorithm;
    // the library takes RSA keys of 1024 to 8192 bits with exponents of up to 33; what it refuses is not a wrong signature
    let bits = match info.parsed() {
        Ok(PublicKey::RSA(key)) if significant_bits(key.exponent) <= 33 => significant_bits(key.modulus),
        _ => 0,
    };
    let rsa = (1024..=8192).contains(&bits);
    // asked first: the parser prints a line for each algorithm that it does not know
    if *oid == oids::OID_PKCS1_RSASSAPSS {
        let Ok(SignatureAlgorithm::RSASSA_PSS(pss)) = SignatureAlgorithm::try_from(identifier) else {
            return None;
        };
        let hash = pss.hash_algorithm_oid();
        let one_hash = pss.mask_gen_algorithm().is_ok_and(|mask| mask.hash == *hash);
        if !(2048..=8192).contains(&bits) || info.algorithm.algorithm != oids::OID_PKCS1_RSAENCRYPTION || !one_hash {
            return None;
        }
        let known = RSA_PSS.iter().find(|(id, salt, _)| id == hash && *salt == pss.salt_length());
        return known.map(|(_, _, algorithm)| *algorithm);
    }
    let key = curve(info);
    let ecdsa = ECDSA.iter().find(|(id, curve, _)| id == oid && Some(curve) == key.as_ref());
    let rsa = RSA.iter().find(|(id, least, _)| id == oid && rsa && bits >= *least);
    match (rsa, ecdsa) {
        (Some((_, _, algorithm)), _) => Some(*algorithm),
        (_, Some((_, _, algorithm))) => Some(*algorithm),
        _ if *oid == oids::OID_SIG_ED25519 => Some(&algorithms::ED25519),
        _ => None,
    }
}

/// RSA's signatures (PKCS#1, 1.5), with the least size of a key that the library takes.
static RSA: [(Oid<'_>, usize, &dyn VerificationAlgorithm); 4] = [
    (oids::OID_PKCS1_SHA1WITHRSA, 1024, &algorithms::RSA_PKCS1_1024_8192_SHA1_FOR_LEGACY_USE_ONLY),
    (oids::OID_PKCS1_SHA256WITHRSA, 1024, &algorithms::RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY),
    (oids::OID_PKCS1_SHA384WITHRSA, 2048, &algorithms::RSA_PKCS1_2048_8192_SHA384),
    (oids::OID_PKCS1_SHA512WITHRSA, 1024, &algorithms::RSA_PKCS1_1024_8192_SHA512_FOR_LEGACY_USE_ONLY),
];

/// RSA-PSS by its hash, with the salt of the same length in bytes.
static RSA_PSS: [(Oid<'_>, u32, &dyn VerificationAlgorithm); 3] = [
    (oids::OID_NIST_HASH_SHA256, 32, &algorithms::RSA_PSS_2048_8192_SHA256),
    (oids::OID_NIST_HASH_SHA384, 48, &algorithms::RSA_PSS_2048_8192_SHA384),
    (oids::OID_NIST_HASH_SHA512, 64, &algorithms::RSA_PSS_2048_8192_SHA512),
];

/// Signatures with elliptic curves, with their curve. OpenSSL signs with SHA-256 unless told otherwise, whatever the curve.
static ECDSA: [(Oid<'_>, Oid<'_>, &dyn VerificationAlgorithm); 10] = [
    (oids::OID_SIG_ECDSA_WITH_SHA256, oids::OID_EC_P256, &algorithms::ECDSA_P256_SHA256_ASN1),
    (oids::OID_SIG_ECDSA_WITH_SHA384, oids::OID_EC_P256, &algorithms::ECDSA_P256_SHA384_ASN1),
    (oids::OID_SIG_ECDSA_WITH_SHA512, oids::OID_EC_P256, &algorithms::ECDSA_P256_SHA512_ASN1),
    (oids::OID_SIG_ECDSA_WITH_SHA256, oids::OID_NIST_EC_P384, &algorithms::ECDSA_P384_SHA256_ASN1),
    (oids::OID_SIG_ECDSA_WITH_SHA384, oids::OID_NIST_EC_P384, &algorithms::ECDSA_P384_SHA384_ASN1),
    (oids::OID_SIG_ECDSA_WITH_SHA512, oids::OID_NIST_EC_P384, &algorithms::ECDSA_P384_SHA512_ASN1),
    (oids::OID_SIG_ECDSA_WITH_SHA256, oids::OID_NIST_EC_P521, &algorithms::ECDSA_P521_SHA256_ASN1),
    (oids::OID_SIG_ECDSA_WITH_SHA384, oids::OID_NIST_EC_P521, &algorithms::ECDSA_P521_SHA384_ASN1),
    (oids::OID_SIG_ECDSA_WITH_SHA512, oids::OID_NIST_EC_P521, &algorithms::ECDSA_P521_SHA512_ASN1),
    (oids::OID_SIG_ECDSA_WITH_SHA256, SECP256K1, &algorithms::ECDSA_P256K1_SHA256_ASN1),
];
