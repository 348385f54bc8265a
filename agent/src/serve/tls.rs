//! The certificate for HTTPS, its key, and the CA of clients: read when they change.

use std::{
    os::unix::fs::MetadataExt,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use tokio_rustls::TlsAcceptor;

use crate::{
    config::TlsFiles,
    host::{self, file::read_file},
};

/// Largest of the files, in bytes.
const LIMIT: u64 = 4 << 20;
/// Files that have just changed may change again and keep their times. They are read again after this time.
const AGAIN: Duration = Duration::from_secs(1);

/// A file that changed less than this many seconds ago may change once more and keep its times: kernels count those in steps of up to
/// 10 ms, some file systems in seconds.
const TICK: i64 = 3;

/// Certificate and key, read again when they change.
#[derive(Clone)]
pub(crate) struct Tls {
    files: TlsFiles,
    pub(crate) acceptor: TlsAcceptor,
    digest: [u8; 32],
    seen: Seen,
}

/// Device, inode, size, and time of the last change in seconds and nanoseconds.
type Stamp = (u64, u64, u64, i64, i64);

/// How the files were when they were last read.
#[derive(Clone)]
struct Seen {
    /// None if there is no such file
    stamps: Vec<Option<Stamp>>,
    /// every later change changes the stamps
    settled: bool,
    at: Instant,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tls({})", self.files.cert.display())
    }
}

impl Tls {
    pub(crate) fn read(files: TlsFiles) -> anyhow::Result<Self> {
        let seen = Seen::look(&files); // before the read: a later change is read again
        let (config, digest) = read(&files)?;
        Ok(Self { files, acceptor: TlsAcceptor::from(Arc::new(config)), digest, seen })
    }

    /// Whether clients are asked for a certificate.
    pub(crate) fn asks_clients(&self) -> bool {
        self.files.client_ca.is_some()
    }

    /// Certificates are renewed under the same name; files that cannot be used (the swap is under way) leave the old ones.
    pub(crate) fn follow_files(&mut self) {
        let now = Seen::look(&self.files);
        if now.stamps == self.seen.stamps && (self.seen.settled || self.seen.at.elapsed() < AGAIN) {
            return;
        }
        let is_new = now.stamps != self.seen.stamps;
        self.seen = now;
        match read(&self.files) {
            Ok((config, digest)) if digest != self.digest => {
                (self.acceptor, self.digest) = (TlsAcceptor::from(Arc::new(config)), digest);
            }
            Ok(_) => {}
            Err(error) => {
                self.seen.settled = false; // it is tried again, also if the files stay as they are
                if is_new {
                    tracing::warn!(error = format!("{error:#}"), "the certificate for HTTPS could not be read again");
                }
            }
        }
    }
}

impl Seen {
    fn look(files: &TlsFiles) -> Self {
        let metas = files.all().map(|path| std::fs::metadata(path).ok());
        let stamp = |meta: &std::fs::Metadata| -> Stamp {
            (meta.dev(), meta.ino(), meta.size(), meta.ctime(), meta.ctime_nsec())
        };
        let stamps: Vec<_> = metas.map(|meta| meta.as_ref().map(stamp)).collect();
        let now = host::wall();
        let settled = stamps.iter().flatten().all(|(.., changed, _)| *changed < now.saturating_sub(TICK));
        Self { stamps, settled, at: Instant::now() }
    }
}

fn read(files: &TlsFiles) -> anyhow::Result<(ServerConfig, [u8; 32])> {
    let read =
        |path: &Path| read_file(path, LIMIT).with_context(|| format!("failed to read `{}` (http.tls)", path.display()));
    let (cert, key) = (read(&files.cert)?, read(&files.key)?);
    let clients = files.client_ca.as_deref().map(read).transpose()?;
    let parts = [&cert, &key, clients.as_deref().unwrap_or_default()];
    let digest = nodetrust_core::certificate::fingerprint::content_digest(
        &parts.map(nodetrust_core::certificate::fingerprint::content_digest).concat(),
    );
    let chain = certificates(&cert, &files.cert, "http.tls.certFile")?;
    // the error of the key's parser is dropped: it could quote the key
    let key = PrivateKeyDer::from_pem_slice(&key)
        .map_err(|_| anyhow::anyhow!("`{}` (http.tls.keyFile) holds no private key in PEM", files.key.display()))?;
    let builder = ServerConfig::builder_with_provider(crate::tls::provider()).with_safe_default_protocol_versions()?;
    let builder = match files.client_ca.as_deref().zip(clients) {
        None => builder.with_no_client_auth(),
        Some((path, bytes)) => {
            let what = || format!("`{}` (http.tls.clientCAFile) holds no CA certificate in PEM", path.display());
            let mut roots = RootCertStore::empty();
            for cert in certificates(&bytes, path, "http.tls.clientCAFile")? {
                roots.add(cert).with_context(what)?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), crate::tls::provider());
            // the kubelet's probes cannot show one; whoever shows none gets `/livez` and `/readyz`
            builder.with_client_cert_verifier(verifier.allow_unauthenticated().build().with_context(what)?)
        }
    };
    let config = builder.with_single_cert(chain, key).with_context(|| {
        format!(
            "`{}` (http.tls.certFile) and `{}` (http.tls.keyFile) are no certificate and its key",
            files.cert.display(),
            files.key.display()
        )
    })?;
    Ok((config, digest))
}

fn certificates(pem: &[u8], path: &Path, field: &str) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let read: Result<_, _> = CertificateDer::pem_slice_iter(pem).collect();
    read.with_context(|| format!("`{}` ({field}) is no PEM file", path.display()))
}
