//! Certificate authorities and what they issue.

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, SerialNumber, date_time_ymd,
};

/// The parameters of a CA.
fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// A CA with its key.
pub struct Ca(CertifiedIssuer<'static, KeyPair>);

impl Ca {
    /// A CA of this common name, with a new key.
    pub fn new(name: &str) -> Self {
        Self::with(name, |_| {})
    }

    /// A CA whose parameters are changed before it is signed.
    pub fn with(name: &str, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = authority(name);
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    /// An intermediate CA that this one has issued.
    pub fn below(&self, name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::signed_by(authority(name), key, &self.0).unwrap())
    }

    /// The certificate.
    pub fn pem(&self) -> String {
        self.0.pem().replace("\r\n", "\n")
    }

    /// Its SHA-256, in hexadecimal digits.
    pub fn sha256(&self) -> String {
        nodetrust_core::certificate::fingerprint::Fingerprint::of_der(self.0.der()).to_string()
    }

    /// The first 16 of them.
    pub fn fp16(&self) -> String {
        self.sha256()[..16].to_owned()
    }

    /// A server certificate for a name, and its key, in PEM.
    pub fn leaf(&self, name: &str) -> (String, String) {
        self.leaf_with(name, |_| {})
    }

    /// A server certificate whose parameters are changed before it is signed.
    pub fn leaf_with(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> (String, String) {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }

    /// An empty revocation list, DER.
    pub fn revocation_list(&self) -> Vec<u8> {
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2026, 1, 1),
            next_update: date_time_ymd(2036, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: Vec::new(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.0).unwrap().der().to_vec()
    }

    /// The private key in PEM, for showing that it goes nowhere.
    pub fn key_pem(&self) -> String {
        self.0.key().serialize_pem()
    }
}
