//! The only encoder of certificates.

use std::sync::LazyLock;

use data_encoding::{BASE64, Specification};

/// Encodes one certificate: label `CERTIFICATE`, 64 columns, LF, final newline (RFC 7468, section 3). Everything that is
/// written to a host goes through here.
pub fn encode(der: &[u8]) -> String {
    static WRAPPED: LazyLock<Option<data_encoding::Encoding>> = LazyLock::new(|| {
        let mut spec: Specification = BASE64.specification();
        spec.wrap.width = 64;
        spec.wrap.separator.push('\n');
        spec.encoding().ok()
    });
    let mut out = String::with_capacity(der.len() * 4 / 3 + der.len() / 48 + 64);
    out.push_str("-----BEGIN CERTIFICATE-----\n");
    match &*WRAPPED {
        Some(encoding) => encoding.encode_append(der, &mut out), // ends with a separator
        None => {
            // the specification above is a constant and valid; this arm only spares a panic
            for line in BASE64.encode(der).as_bytes().chunks(64) {
                out.extend(line.iter().map(|byte| char::from(*byte)));
                out.push('\n');
            }
        }
    }
    out.push_str("-----END CERTIFICATE-----\n");
    out
}
