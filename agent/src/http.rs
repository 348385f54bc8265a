//! HTTP: `/metrics`, `/livez`, `/readyz`, `/status` and a plain page for people (contract, section 6).
//!
//! Read-only: nothing that is sent here changes anything. Requests are small and answered from memory; a connection that is
//! silent is closed.

use std::{convert::Infallible, fmt::Write as _, sync::Arc, time::Duration};

use anyhow::Context as _;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ACCEPT, ALLOW, CONTENT_TYPE},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use nodetrust_core::report::Report;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use crate::{
    cli::table,
    config::Http,
    metrics::{ApiState, Metrics},
    probe::ProbeResult,
};

/// Connections at a time.
const MAX_CONNECTIONS: usize = 256;
/// How long a client may take for its request's head, and for the TLS handshake.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a connection may live: scrapers reconnect.
const LIFETIME: Duration = Duration::from_secs(300);

/// The last report.
pub type Latest = watch::Receiver<Option<Arc<Report>>>;

/// A bound server.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    tls: Option<Tls>,
}

/// Certificate and key, read again when they change.
#[derive(Clone)]
struct Tls {
    files: (std::path::PathBuf, std::path::PathBuf),
    acceptor: TlsAcceptor,
    digest: [u8; 32],
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tls({})", self.files.0.display())
    }
}

/// Binds the address; with TLS configured, reads certificate and key.
///
/// # Errors
/// If the address is taken, or the files are not a certificate and its key.
pub async fn bind(http: &Http) -> anyhow::Result<Server> {
    let tls = http.tls.clone().map(Tls::read).transpose()?;
    let listener = TcpListener::bind(http.address).await.with_context(|| {
        format!(
            "failed to listen on {}: is another agent running? `http.address` in the configuration changes it",
            http.address
        )
    })?;
    Ok(Server { listener, tls })
}

/// Serves for ever.
pub async fn serve(mut server: Server, report: Latest, metrics: Arc<Metrics>) {
    let free = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        // closed never: the semaphore lives as long as this loop
        let Ok(slot) = free.clone().acquire_owned().await else { return };
        let stream = match server.listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // out of file descriptors, or the client is gone already
                tracing::debug!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        if let Some(tls) = &mut server.tls {
            tls.follow_files();
        }
        let (tls, report, metrics) = (server.tls.clone(), report.clone(), metrics.clone());
        tokio::spawn(async move {
            let result = timeout(LIFETIME, connection(stream, tls, report, metrics)).await;
            if let Ok(Err(error)) = result {
                tracing::debug!(%error, "a connection ended early");
            }
            drop(slot);
        });
    }
}

async fn connection(stream: TcpStream, tls: Option<Tls>, report: Latest, metrics: Arc<Metrics>) -> anyhow::Result<()> {
    let service = service_fn(|request: Request<Incoming>| {
        let answer = answer(&request, &report, &metrics);
        async move { Ok::<_, Infallible>(answer) }
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(PATIENCE).max_buf_size(16 << 10);
    match tls {
        None => server.serve_connection(TokioIo::new(stream), service).await?,
        Some(tls) => {
            let stream = timeout(PATIENCE, tls.acceptor.accept(stream)).await.context("TLS handshake timed out")??;
            server.serve_connection(TokioIo::new(stream), service).await?;
        }
    }
    Ok(())
}

fn answer(request: &Request<Incoming>, report: &Latest, metrics: &Metrics) -> Response<Full<Bytes>> {
    const TEXT: &str = "text/plain; charset=utf-8";
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refusal = response(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET\n".into());
        refusal.headers_mut().insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
        return refusal;
    }
    let report = report.borrow().clone();
    match request.uri().path() {
        "/metrics" => {
            let accept = request.headers().get_all(ACCEPT);
            let open = accept.iter().any(|value| value.as_bytes().windows(12).any(|word| word == b"openmetrics-"));
            if open {
                let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
                response(StatusCode::OK, kind, metrics.open_metrics())
            } else {
                response(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", metrics.prometheus())
            }
        }
        "/livez" => response(StatusCode::OK, TEXT, "ok\n".into()),
        "/readyz" => match report {
            // a node that gets worse later is told by its metrics, which must not vanish from a Service for it
            Some(_) if metrics.has_succeeded() => response(StatusCode::OK, TEXT, "ok\n".into()),
            Some(report) => response(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("{}\n", report.headline)),
            None => response(StatusCode::SERVICE_UNAVAILABLE, TEXT, "no cycle has ended yet\n".into()),
        },
        "/status" => match report.as_deref().map(|report| status(report, metrics)) {
            Some(Ok(json)) => response(StatusCode::OK, "application/json", json + "\n"),
            Some(Err(error)) => response(StatusCode::INTERNAL_SERVER_ERROR, TEXT, format!("{error}\n")),
            None => response(StatusCode::SERVICE_UNAVAILABLE, TEXT, "no cycle has ended yet\n".into()),
        },
        "/" => response(StatusCode::OK, "text/html; charset=utf-8", page(report.as_deref(), metrics)),
        _ => response(StatusCode::NOT_FOUND, TEXT, "there are /, /status, /metrics, /livez and /readyz\n".into()),
    }
}

fn response(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    response
}

/// The report, and beside it the answers of the configured probes.
fn status(report: &Report, metrics: &Metrics) -> serde_json::Result<String> {
    #[derive(serde::Serialize)]
    struct Status<'a> {
        #[serde(flatten)]
        report: &'a Report,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        probes: Vec<ProbeResult>,
        #[serde(skip_serializing_if = "Option::is_none")]
        kubernetes: Option<ApiState>,
    }
    serde_json::to_string_pretty(&Status { report, probes: metrics.probes().all(), kubernetes: metrics.api() })
}

/// The status screen as a page.
fn page(report: Option<&Report>, metrics: &Metrics) -> String {
    let mut out = String::from(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\"><title>nodetrust</title>\
         <style>body{font:14px/1.5 monospace;margin:2em;color-scheme:light dark}pre{white-space:pre-wrap}</style>",
    );
    let mut text = report
        .map_or_else(|| "no cycle has ended yet\n".to_owned(), |report| table::status(report, table::Style::plain()));
    let probes = metrics.probes().all();
    if !probes.is_empty() {
        let row = |result: &ProbeResult| {
            vec![result.probe.target.clone(), result.probe.verdict.as_str().to_owned(), result.probe.text.clone()]
        };
        let head = ["PROBE", "VERDICT", "DETAIL"].map(str::to_owned).to_vec();
        let rows: Vec<_> = [head].into_iter().chain(probes.iter().map(row)).collect();
        text.push('\n');
        text.push_str(&table::columns(&rows, table::Style::plain()));
    }
    if let Some(ApiState { error: Some(error), next, .. }) = metrics.api() {
        let row = |words: [&str; 2]| words.map(str::to_owned).to_vec();
        let rows = [row(["KUBERNETES", &format!("cannot be told: {error}")]), row(["", &next.unwrap_or_default()])];
        text.push('\n');
        text.push_str(&table::columns(&rows, table::Style::plain()));
    }
    let links = "<p><a href=/status>/status</a> <a href=/metrics>/metrics</a> <a href=/readyz>/readyz</a></p>";
    let _ = writeln!(out, "<pre>{}</pre>{links}</html>", escape(&text)); // a String takes everything
    out
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

impl Tls {
    fn read(files: (std::path::PathBuf, std::path::PathBuf)) -> anyhow::Result<Self> {
        use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
        let read = |path: &std::path::Path| {
            std::fs::read(path).with_context(|| format!("failed to read `{}` (http.tls)", path.display()))
        };
        let (cert, key) = (read(&files.0)?, read(&files.1)?);
        let digest = nodetrust_core::fingerprint::content_digest(&[cert.as_slice(), key.as_slice()].concat());
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&cert)
            .collect::<Result<_, _>>()
            .with_context(|| format!("`{}` (http.tls.certFile) is no PEM file", files.0.display()))?;
        // the error of the key's parser is dropped: it could quote the key
        let key = PrivateKeyDer::from_pem_slice(&key)
            .map_err(|_| anyhow::anyhow!("`{}` (http.tls.keyFile) holds no private key in PEM", files.1.display()))?;
        let config = rustls::ServerConfig::builder_with_provider(crate::tls::provider())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .with_context(|| {
                format!(
                    "`{}` (http.tls.certFile) and `{}` (http.tls.keyFile) are no certificate and its key",
                    files.0.display(),
                    files.1.display()
                )
            })?;
        Ok(Self { files, acceptor: TlsAcceptor::from(Arc::new(config)), digest })
    }

    /// Certificates are renewed under the same name; a pair that cannot be read (the swap is under way) leaves the old one.
    fn follow_files(&mut self) {
        match Self::read(self.files.clone()) {
            Ok(new) if new.digest != self.digest => *self = new,
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(error = format!("{error:#}"), "the certificate for HTTPS could not be read again")
            }
        }
    }
}
