//! A file in OpenSSL's directory of hash links, as OpenSSL reads it.
//!
//! Unlike a bundle, such a file may hold `TRUSTED CERTIFICATE` blocks (SUSE's openssl-directory, facts A.17): OpenSSL takes the
//! certificate and its trust settings, and nobody else reads the directory.

use std::collections::BTreeSet;

use crate::certificate::{anchor::Anchor, bundle, fingerprint::Fingerprint, pem};

/// Certificates of the file that OpenSSL trusts for servers.
pub fn trusted(bytes: &[u8]) -> BTreeSet<Fingerprint> {
    let blocks = pem::scan(bytes).blocks;
    let anchors = blocks.iter().filter_map(|block| Anchor::from_block(block.label, &block.der).ok());
    let with_settings = anchors.map(|anchor| anchor.fingerprint);
    with_settings.chain(bundle::read(bytes).set).collect()
}

#[cfg(test)]
mod tests {
    use data_encoding::BASE64;

    use super::*;
    use crate::testing::fixed;

    fn labelled(label: &str, der: &[u8]) -> String {
        format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", BASE64.encode(der))
    }

    #[test]
    fn trust_settings_are_read_and_may_exclude_servers() {
        let anchor = fixed("rsa-2048");
        let with = |settings: &[u8]| labelled("TRUSTED CERTIFICATE", &[anchor.der(), settings].concat());
        // p11-kit writes: trusted for any use
        let any = with(b"\x30\x08\x30\x06\x06\x04\x55\x1d\x25\x00");
        let rejected = with(b"\x30\x0c\xa0\x0a\x06\x08\x2b\x06\x01\x05\x05\x07\x03\x01");
        for (text, is_trusted) in [
            (anchor.pem(), true),
            (labelled("X509 CERTIFICATE", anchor.der()), true),
            (with(b""), true),
            (format!("# Corp Root\n{any}"), true),
            (rejected, false),
            (labelled("CERTIFICATE REQUEST", anchor.der()), false),
        ] {
            assert_eq!(trusted(text.as_bytes()).contains(&anchor.fingerprint), is_trusted, "{text}");
        }
    }
}
