//! The one provider of cryptography for TLS.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

/// The provider, for servers and clients.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}
