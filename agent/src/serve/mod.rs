//! HTTP: `/metrics`, `/livez`, `/readyz`, `/status` and a page for people.
//!
//! Read-only: nothing that is sent here changes anything. Requests are small and answered from memory; a connection that is
//! silent, or does not read, is closed. Anybody may connect: what a client may hold is bounded (`connections.rs`), and a long answer
//! is made once, however many ask for it.

mod connections;
mod listen;
pub mod metrics;
mod page;
mod process;
mod tls;

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context as _;
use connections::{ClientStream, ConnectionHandle, Connections};
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{
        ACCEPT, ALLOW, CONNECTION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, REFERRER_POLICY, RETRY_AFTER,
        X_CONTENT_TYPE_OPTIONS,
    },
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use nodetrust_core::{report::Report, time::Time};
use tls::Tls;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::watch,
    time::timeout,
};

use crate::{
    config::Http,
    probe::LatestResult,
    serve::{
        metrics::{ApiState, Changes, Metrics},
        page::{PageFacts, page},
    },
    text::html,
};

/// How long a client may take for the head of a request, between two requests, and for the TLS handshake.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a connection may live: scrapers reconnect.
const LIFETIME: Duration = Duration::from_secs(300);

const TEXT: &str = "text/plain; charset=utf-8";

/// The last report.
pub type Latest = watch::Receiver<Option<Arc<Report>>>;

/// A bound server.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    tls: Option<Tls>,
}

/// Binds the address; with TLS configured, reads certificate and key.
///
/// # Errors
/// If the address is taken, or the files are not a certificate and its key.
pub async fn bind(http: &Http) -> anyhow::Result<Server> {
    let tls = http.tls.clone().map(Tls::read).transpose()?;
    let listener = listen::listen(http.address).with_context(|| {
        format!(
            "failed to listen on {}: is another agent running? `http.address` in the configuration changes it",
            http.address
        )
    })?;
    Ok(Server { listener, tls })
}

/// Serves for ever.
pub async fn serve(mut server: Server, report: Latest, metrics: Arc<Metrics>) {
    let (connections, pages) = (
        Arc::new(Connections::default()),
        Arc::new(Pages { report, metrics, made: Mutex::default(), shown: Mutex::default() }),
    );
    loop {
        let (stream, address) = match server.listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // out of file descriptors, or the client is gone already
                tracing::debug!(%error, "a connection could not be accepted");
                connections.close_one();
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        if let Some(tls) = &mut server.tls {
            tls.follow_files();
        }
        let (handle, gone) = connections.accept(address.ip());
        let (tls, pages) = (server.tls.clone(), pages.clone());
        tokio::spawn(async move {
            tokio::select! {
                ended = timeout(LIFETIME, serve_connection(stream, handle, tls, pages)) => if let Ok(Err(error)) = ended {
                    tracing::debug!(%error, "a connection ended early");
                },
                _ = gone => tracing::debug!(%address, "a connection was closed: there are too many"),
            }
        });
    }
}

async fn serve_connection(
    stream: TcpStream,
    handle: ConnectionHandle,
    tls: Option<Tls>,
    pages: Arc<Pages>,
) -> anyhow::Result<()> {
    let Some(tls) = tls else { return converse(stream, handle, true, pages).await };
    let stream = timeout(PATIENCE, tls.acceptor.accept(stream)).await.context("TLS handshake timed out")??;
    let has_shown = stream.get_ref().1.peer_certificates().is_some_and(|chain| !chain.is_empty());
    let is_known = has_shown || !tls.asks_clients();
    converse(stream, handle, is_known, pages).await
}

/// Answers a client's requests. A client without the certificate that is asked for gets only `/livez` and `/readyz`.
async fn converse<S>(stream: S, handle: ConnectionHandle, is_known: bool, pages: Arc<Pages>) -> anyhow::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let handle = Arc::new(handle);
    let stream = ClientStream::new(stream, handle.clone());
    let service = service_fn(move |request: Request<Incoming>| {
        let (pages, handle) = (pages.clone(), handle.clone());
        async move { Ok::<_, Infallible>(pages.answer(&request, is_known, &handle).await) }
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(PATIENCE).max_buf_size(16 << 10);
    server.writev(true); // a long answer is not copied
    Ok(server.serve_connection(TokioIo::new(stream), service).await?)
}

/// What answers are made of, and the long ones that were made.
struct Pages {
    report: Latest,
    metrics: Arc<Metrics>,
    /// long answers, each made once and kept until something changes
    made: Mutex<(Changes, BTreeMap<PageKind, Bytes>)>,
    /// the page for people, which is kept for a second: its ages are those of the request
    shown: Mutex<Option<(Changes, Time, Bytes)>>,
}

/// The long answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum PageKind {
    OpenMetrics,
    Prometheus,
    Status,
}

impl Pages {
    async fn answer(
        &self,
        request: &Request<Incoming>,
        is_known: bool,
        handle: &ConnectionHandle,
    ) -> Response<Full<Bytes>> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut refusal = response(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET\n");
            refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refusal;
        }
        let page = match request.uri().path() {
            "/livez" => return last(response(StatusCode::OK, TEXT, "ok\n")),
            "/readyz" => return last(self.readiness()),
            _ if !is_known => {
                let text = "want a client certificate of the CA in http.tls.clientCAFile; without one there are /livez and /readyz\n";
                return last(response(StatusCode::FORBIDDEN, TEXT, text));
            }
            "/metrics" => {
                let accept = request.headers().get_all(ACCEPT);
                let open = accept.iter().any(|value| value.as_bytes().windows(12).any(|word| word == b"openmetrics-"));
                if open { PageKind::OpenMetrics } else { PageKind::Prometheus }
            }
            "/status" => PageKind::Status,
            "/" => return self.for_people(handle).await,
            _ => return response(StatusCode::NOT_FOUND, TEXT, "there are /, /status, /metrics, /livez and /readyz\n"),
        };
        if handle.slot().await { self.page(page) } else { too_many() }
    }

    /// The page for people.
    async fn for_people(&self, handle: &ConnectionHandle) -> Response<Full<Bytes>> {
        if !handle.slot().await {
            return too_many();
        }
        let report = self.report.borrow().clone();
        let (changes, now) = (self.metrics.changes(), Time(crate::host::wall()));
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = shown.as_ref().filter(|(of, at, _)| (*of, at.0) == (changes, now.0)).map(|(.., body)| body.clone());
        let body = kept.unwrap_or_else(|| {
            let (probes, api) = (self.metrics.probes().all(), self.metrics.api());
            let facts = PageFacts { report: report.as_deref(), probes: &probes, api: api.as_ref(), now };
            Bytes::from(page(&facts))
        });
        *shown = Some((changes, now, body.clone()));
        drop(shown);
        let mut response = response(StatusCode::OK, "text/html; charset=utf-8", body);
        let headers = response.headers_mut();
        headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(html::SERVED_POLICY));
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        response
    }

    fn readiness(&self) -> Response<Full<Bytes>> {
        let report = self.report.borrow();
        let why = match report.as_deref() {
            // Ready once is ready for good. A node that gets worse shows it in its metrics, which are scraped through a Service: that
            // drops an agent that is not ready.
            Some(_) if self.metrics.was_ready() => return response(StatusCode::OK, TEXT, "ok\n"),
            Some(report) => match report.awaited_source() {
                Some(source) if report.converged => format!(
                    "source {} has never given an anchor on this node ({}: {}); the agent is ready when it does, or when the \
                     configuration says `optional: true` of it and its path is missing\n",
                    source.name, source.origin, source.detail
                ),
                _ => format!("{}\n", report.headline),
            },
            None => return no_report(),
        };
        response(StatusCode::SERVICE_UNAVAILABLE, TEXT, why)
    }

    fn page(&self, page: PageKind) -> Response<Full<Bytes>> {
        let report = self.report.borrow().clone();
        let kind = match page {
            PageKind::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            PageKind::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            PageKind::Status if report.is_none() => return no_report(),
            PageKind::Status => "application/json",
        };
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let changes = self.metrics.changes();
        if made.0 != changes {
            *made = (changes, BTreeMap::new());
        }
        if let Some(body) = made.1.get(&page) {
            return response(StatusCode::OK, kind, with_process(page, body.clone()));
        }
        let body = match (page, report.as_deref()) {
            (PageKind::OpenMetrics, _) => self.metrics.open_metrics(),
            (PageKind::Prometheus, _) => self.metrics.prometheus(),
            (PageKind::Status, None) => return no_report(),
            (PageKind::Status, Some(report)) => match status_json(report, &self.metrics) {
                Ok(json) => json + "\n",
                Err(error) => return response(StatusCode::INTERNAL_SERVER_ERROR, TEXT, format!("{error}\n")),
            },
        };
        let body = made.1.entry(page).or_insert(Bytes::from(body)).clone();
        response(StatusCode::OK, kind, with_process(page, body))
    }
}

/// A page of metrics with those of the process, which are of the moment; every other page as it is.
fn with_process(page: PageKind, body: Bytes) -> Bytes {
    match page {
        PageKind::OpenMetrics => Metrics::open_metrics_with_process(&body).into(),
        PageKind::Prometheus => Metrics::prometheus_with_process(&body).into(),
        PageKind::Status => body,
    }
}

fn no_report() -> Response<Full<Bytes>> {
    response(StatusCode::SERVICE_UNAVAILABLE, TEXT, "no cycle has ended yet\n")
}

fn too_many() -> Response<Full<Bytes>> {
    let mut refusal = response(StatusCode::SERVICE_UNAVAILABLE, TEXT, "too many others are being answered\n");
    refusal.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("10"));
    last(refusal)
}

/// An answer after which the connection is closed.
fn last(mut response: Response<Full<Bytes>>) -> Response<Full<Bytes>> {
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

fn response(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// The report, and beside it the answers of the configured probes.
fn status_json(report: &Report, metrics: &Metrics) -> serde_json::Result<String> {
    #[derive(serde::Serialize)]
    struct Status<'a> {
        #[serde(flatten)]
        report: &'a Report,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        probes: Vec<LatestResult>,
        #[serde(skip_serializing_if = "Option::is_none")]
        kubernetes: Option<ApiState>,
    }
    serde_json::to_string_pretty(&Status { report, probes: metrics.probes().all(), kubernetes: metrics.api() })
}
