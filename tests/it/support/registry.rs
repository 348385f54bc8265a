//! Simulated registries beside a booted node: real TLS with any certificate, and whatever answers a test wants. Each notes what it was
//! asked. They run on the node's network, under the name `registry.test` and a port of their own.

use std::{
    io::{self, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

use super::{machine::Machine, must};

/// The name under which nodes know the registries.
pub const NAME: &str = "registry.test";

/// A request: its method, its path and whether it has credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryRequest {
    /// The method: `HEAD`, `GET`, …
    pub method: String,
    /// The path, from the first slash.
    pub path: String,
    /// Whether it has credentials.
    pub is_authorized: bool,
}

/// An answer: status, header lines without their ends, body.
pub type Reply = (u16, Vec<String>, Vec<u8>);

/// A registry that is running. It ends with the test process.
pub struct TestRegistry {
    /// `registry.test:PORT`.
    pub name: String,
    log: Arc<Mutex<Vec<RegistryRequest>>>,
}

impl TestRegistry {
    /// Serves with this certificate and key, and these further certificates.
    #[track_caller]
    pub fn serve(
        machine: &Machine,
        (leaf, key): &(String, String),
        chain: &[String],
        reply: impl Fn(&RegistryRequest) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let pem: String = [leaf.clone()].into_iter().chain(chain.iter().cloned()).collect();
        let certs: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes()).map(|cert| cert.unwrap()).collect();
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let config = ServerConfig::builder_with_provider(nodetrust::tls::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(certs, key)
            .unwrap();
        let config = Arc::new(config);
        Self::listen(machine, move |stream, log| {
            let connection = ServerConnection::new(config.clone()).map_err(io::Error::other)?;
            converse(StreamOwned::new(connection, stream), &reply, log)
        })
    }

    /// Serves without TLS.
    #[track_caller]
    pub fn serve_plain(machine: &Machine, reply: impl Fn(&RegistryRequest) -> Reply + Send + Sync + 'static) -> Self {
        Self::listen(machine, move |stream, log| converse(stream, &reply, log))
    }

    #[track_caller]
    fn listen(
        machine: &Machine,
        serve: impl Fn(TcpStream, &Mutex<Vec<RegistryRequest>>) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let listener: TcpListener = must("a port beside the machine", machine.listen());
        let port = listener.local_addr().unwrap().port();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (noted, serve) = (log.clone(), Arc::new(serve));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (noted, serve) = (noted.clone(), serve.clone());
                thread::spawn(move || {
                    let _ = stream.set_read_timeout(Some(Duration::from_secs(30)));
                    let _ = serve(stream, &noted); // a client may close the connection at any time
                });
            }
        });
        Self { name: format!("{NAME}:{port}"), log }
    }

    /// The requests since the last call.
    pub fn take_log(&self) -> Vec<RegistryRequest> {
        std::mem::take(&mut self.log.lock().unwrap())
    }
}

/// One request and its answer; then the connection is closed.
fn converse(
    mut stream: impl Read + Write,
    reply: &impl Fn(&RegistryRequest) -> Reply,
    log: &Mutex<Vec<RegistryRequest>>,
) -> io::Result<()> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte)? == 0 || head.len() > 16 << 10 {
            return Ok(());
        }
        head.push(byte[0]);
    }
    let text = String::from_utf8_lossy(&head).into_owned();
    let mut words = text.split(' ');
    let (method, path) = (words.next().unwrap_or_default().to_owned(), words.next().unwrap_or_default().to_owned());
    let is_authorized = text.to_lowercase().contains("\r\nauthorization:");
    let asked = RegistryRequest { method, path, is_authorized };
    log.lock().unwrap().push(asked.clone());
    let (status, headers, body) = reply(&asked);
    let lines: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
    write!(stream, "HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {}\r\n{lines}\r\n", body.len())?;
    if asked.method != "HEAD" {
        stream.write_all(&body)?;
    }
    stream.flush()
}

/// Answers that nothing exists.
pub fn not_found(_: &RegistryRequest) -> Reply {
    (404, vec!["Content-Type: application/json".into()], br#"{"errors":[{"code":"MANIFEST_UNKNOWN"}]}"#.to_vec())
}

/// Answers every request with the same manifest.
pub fn everything(_: &RegistryRequest) -> Reply {
    let manifest = br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","layers":[]}"#;
    (200, vec!["Content-Type: application/vnd.oci.image.manifest.v1+json".into()], manifest.to_vec())
}

/// Asks for a user and a password.
pub fn basic(_: &RegistryRequest) -> Reply {
    (401, vec!["WWW-Authenticate: Basic realm=\"x\"".into()], br#"{"errors":[{"code":"UNAUTHORIZED"}]}"#.to_vec())
}

/// Asks for a token from another server.
pub fn bearer(server: &str) -> impl Fn(&RegistryRequest) -> Reply + Send + Sync + 'static {
    let header = format!("WWW-Authenticate: Bearer realm=\"https://{server}/token\",service=\"x\"");
    move |_| (401, vec![header.clone()], br#"{"errors":[{"code":"UNAUTHORIZED"}]}"#.to_vec())
}

/// Answers with this status and nothing more.
pub fn status(status: u16) -> impl Fn(&RegistryRequest) -> Reply + Send + Sync + 'static {
    move |_| (status, Vec::new(), Vec::new())
}
