//! Bare checks of signatures for scripts/bench: `check-signatures ROUNDS FILE…` has aws-lc-rs verify each self-signed P-256 or RSA
//! certificate of PEM files under its own key, ROUNDS times.

#![expect(clippy::disallowed_methods, reason = "a program of its own, which reads and writes files; the core does not")]

use std::{env, fs};

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey, VerificationAlgorithm,
};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use x509_parser::parse_x509_certificate;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = env::args().skip(1);
    let rounds: usize = args.next().ok_or("usage: check-signatures ROUNDS FILE…")?.parse()?;
    for file in args {
        let text = fs::read(&file)?;
        for der in CertificateDer::pem_slice_iter(&text) {
            let der = der?;
            let (_, certificate) = parse_x509_certificate(&der)?;
            let info = certificate.public_key();
            let algorithm: &dyn VerificationAlgorithm = match info.algorithm.algorithm.to_id_string().as_str() {
                "1.2.840.10045.2.1" => &ECDSA_P256_SHA256_ASN1,
                _ => &RSA_PKCS1_2048_8192_SHA256,
            };
            let key = UnparsedPublicKey::new(algorithm, &info.subject_public_key.data);
            for _ in 0..rounds {
                key.verify(certificate.tbs_certificate.as_ref(), &certificate.signature_value.data)
                    .map_err(|_| format!("{file}: a signature does not verify"))?;
            }
        }
    }
    Ok(())
}
