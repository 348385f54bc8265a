//! Makes test data for scripts/bench: `make-certs DIR COUNT PER_FILE` writes COUNT self-signed P-256 CAs into files of DIR; with a
//! fourth word, `issued`, CAs that another CA has signed, or `rsa`, self-signed ones that share one RSA key of 2048 bits.

#![expect(clippy::disallowed_methods, reason = "a program of its own, which reads and writes files; the core does not")]

use std::{env, fmt::Write as _, fs, path::PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair, PKCS_RSA_SHA256,
    RsaKeySize,
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = env::args().skip(1);
    let (Some(dir), Some(count), Some(per_file)) = (args.next(), args.next(), args.next()) else {
        return Err("usage: make-certs DIR COUNT PER_FILE [issued | rsa]".into());
    };
    let (dir, count, per_file) = (PathBuf::from(dir), count.parse::<usize>()?, per_file.parse::<usize>()?);
    let (mut issuer, mut shared) = (None, None);
    match args.next().as_deref() {
        Some("issued") => {
            issuer = Some(CertifiedIssuer::self_signed(params("Bench Issuer".to_owned()), KeyPair::generate()?)?);
        }
        // one key: making ten thousand takes minutes
        Some("rsa") => shared = Some(KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)?),
        _ => {}
    }
    fs::create_dir_all(&dir)?;
    let mut text = String::new();
    for number in 0..count {
        let params = params(format!("Bench Root CA {number:05}"));
        let certificate = match (&issuer, &shared) {
            (Some(issuer), _) => params.signed_by(&KeyPair::generate()?, issuer)?,
            (None, Some(key)) => params.self_signed(key)?,
            (None, None) => params.self_signed(&KeyPair::generate()?)?,
        };
        write!(text, "{}", certificate.pem())?;
        if (number + 1) % per_file == 0 || number + 1 == count {
            fs::write(dir.join(format!("{:05}.pem", number / per_file)), &text)?;
            text.clear();
        }
    }
    Ok(())
}

fn params(name: String) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}
