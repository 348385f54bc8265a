//! Makes test data for scripts/bench: `make-certs DIR COUNT PER_FILE` writes COUNT self-signed P-256 CAs into files of DIR; with a
//! fourth word, `issued`, CAs that another CA has signed.

use std::{env, fmt::Write as _, fs, path::PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = env::args().skip(1);
    let (Some(dir), Some(count), Some(per_file)) = (args.next(), args.next(), args.next()) else {
        return Err("usage: make-certs DIR COUNT PER_FILE [issued]".into());
    };
    let (dir, count, per_file) = (PathBuf::from(dir), count.parse::<usize>()?, per_file.parse::<usize>()?);
    let issuer = match args.next() {
        Some(_) => Some(CertifiedIssuer::self_signed(params("Bench Issuer".to_owned()), KeyPair::generate()?)?),
        None => None,
    };
    fs::create_dir_all(&dir)?;
    let mut text = String::new();
    for number in 0..count {
        let (params, key) = (params(format!("Bench Root CA {number:05}")), KeyPair::generate()?);
        let certificate = match &issuer {
            Some(issuer) => params.signed_by(&key, issuer)?,
            None => params.self_signed(&key)?,
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
