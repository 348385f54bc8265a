//! Asking a server for its certificates, over the network and through a proxy.
//!
//! The handshake accepts every chain and keeps it; `nodetrust_core::probe` judges it. Every step has its own limit.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use nodetrust_core::probe::{Failure, Proxy, Target};
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use crate::resolve::{Names, lookup_by};

/// How long connecting to one address may take.
const CONNECT: Duration = Duration::from_secs(5);
/// Addresses of a name that are tried.
const MAX_ADDRESSES: usize = 4;
/// How long a proxy's answer, and how long the TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Largest head of a proxy's answer, in bytes.
const MAX_ANSWER: usize = 16 << 10;

/// What one target presented: its certificates, its own first, and what went wrong.
#[derive(Debug)]
pub struct Presented {
    pub(super) chain: Vec<Vec<u8>>,
    pub(super) failure: Option<Failure>,
}

/// Connects to a server and captures the certificates that it presents.
pub async fn ask(target: &Target, proxy: Option<&Proxy>) -> Presented {
    ask_by(&Names::ours(), target, proxy).await
}

/// The same, with names looked up by other files.
pub async fn ask_by(names: &Names, target: &Target, proxy: Option<&Proxy>) -> Presented {
    match connect(names, target, proxy).await {
        Ok(stream) => handshake(stream, target).await,
        Err(failure) => Presented { chain: Vec::new(), failure: Some(failure) },
    }
}

async fn connect(names: &Names, target: &Target, proxy: Option<&Proxy>) -> Result<TcpStream, Failure> {
    let (host, port) = proxy.map_or((target.host(), target.port()), |proxy| (proxy.host(), proxy.port()));
    let mut stream = connect_to(names, host, port).await.map_err(|failure| match proxy {
        Some(proxy) => Failure::ProxyUnreached(proxy.to_string(), Box::new(failure)),
        None => failure,
    })?;
    if let Some(proxy) = proxy {
        let passed = timeout(HANDSHAKE, pass(&mut stream, proxy, target)).await;
        passed.map_err(|_| Failure::ProxyAnswer("none came in time"))??;
    }
    Ok(stream)
}

async fn connect_to(names: &Names, host: &str, port: u16) -> Result<TcpStream, Failure> {
    let addresses = lookup_by(names, host).await.map_err(|why| Failure::Dns(host.to_owned(), why))?;
    let mut last = Failure::Dns(host.to_owned(), "it has no address".to_owned());
    let addresses = addresses.into_iter().take(MAX_ADDRESSES).map(|address| SocketAddr::new(address, port));
    for address in addresses {
        last = match timeout(CONNECT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => Failure::Refused(address.to_string()),
            Ok(Err(error)) => Failure::Network(format!("{address}: {error}")),
            Err(_) => Failure::Timeout(format!("no connection to {address} within {} s", CONNECT.as_secs())),
        };
    }
    Err(last)
}

/// Asks a proxy for a way to the target (RFC 9110, 9.3.6).
async fn pass(stream: &mut TcpStream, proxy: &Proxy, target: &Target) -> Result<(), Failure> {
    let network = |error: io::Error| Failure::Network(format!("the proxy {proxy}: {error}"));
    stream.write_all(proxy.request(target).as_bytes()).await.map_err(network)?;
    let mut head = Vec::new();
    let end = loop {
        if let Some(end) = head.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        if head.len() >= MAX_ANSWER {
            return Err(Failure::ProxyAnswer("its head does not end within 16 KiB"));
        }
        let mut piece = [0; 1024];
        match stream.read(&mut piece).await.map_err(network)? {
            0 => return Err(Failure::ProxyAnswer("it closed the connection")),
            n => head.extend_from_slice(&piece[..n]),
        }
    };
    match proxy_status(&head) {
        // The server speaks only after the client has.
        Some(200..=299) if head.len() == end => Ok(()),
        Some(200..=299) => Err(Failure::ProxyAnswer("something follows its head")),
        Some(status) => Err(Failure::ProxyStatus(status, proxy.has_password())),
        None => Err(Failure::ProxyAnswer("it is not HTTP")),
    }
}

/// The status in the first line of a proxy's answer; None if that is not HTTP/1.
pub(crate) fn proxy_status(head: &[u8]) -> Option<u16> {
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let mut words = std::str::from_utf8(line).unwrap_or_default().split(' ');
    let is_http = words.next().is_some_and(|word| word.starts_with("HTTP/1."));
    words.next().and_then(|word| word.parse().ok()).filter(|_| is_http)
}

async fn handshake(stream: TcpStream, target: &Target) -> Presented {
    let verifier = Arc::new(CapturingVerifier { provider: crate::tls::provider(), chain: Mutex::default() });
    let failure = match connector(&verifier, target) {
        Ok((connector, name)) => match timeout(HANDSHAKE, connector.connect(name, stream)).await {
            Ok(Ok(_)) => None,
            Ok(Err(error)) => Some(failure_of(&error)),
            Err(_) => Some(Failure::Timeout(format!("no TLS handshake within {} s", HANDSHAKE.as_secs()))),
        },
        Err(why) => Some(Failure::Handshake(why)),
    };
    let chain = std::mem::take(&mut *verifier.chain.lock().unwrap_or_else(PoisonError::into_inner));
    Presented { chain, failure }
}

fn connector(
    verifier: &Arc<CapturingVerifier>,
    target: &Target,
) -> Result<(TlsConnector, ServerName<'static>), String> {
    let config = ClientConfig::builder_with_provider(verifier.provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(verifier.clone())
        .with_no_client_auth();
    let name = ServerName::try_from(target.host().to_owned()).map_err(|error| error.to_string())?;
    Ok((TlsConnector::from(Arc::new(config)), name))
}

fn failure_of(error: &io::Error) -> Failure {
    use rustls::{CertificateError, Error, PeerIncompatible};
    let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) else {
        return match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                Failure::Closed
            }
            _ => Failure::Network(error.to_string()),
        };
    };
    match tls {
        Error::InvalidMessage(_) => Failure::NotTls,
        Error::AlertReceived(rustls::AlertDescription::ProtocolVersion)
        | Error::PeerIncompatible(PeerIncompatible::ServerDoesNotSupportTls12Or13) => Failure::TlsVersion,
        Error::AlertReceived(alert) => Failure::Alert(alert_name(*alert)),
        Error::InvalidCertificate(CertificateError::BadSignature) => Failure::NotItsKey,
        other => Failure::Handshake(words(other)),
    }
}

/// An alert's name in the standard (RFC 8446, 6): the library writes it as one word.
fn alert_name(alert: rustls::AlertDescription) -> String {
    let word = format!("{alert:?}");
    if word.contains('(') {
        return "one without a name".to_owned();
    }
    let mut name = String::new();
    for c in word.chars() {
        if c.is_ascii_uppercase() && !name.is_empty() && !name.ends_with('_') {
            name.push('_');
        }
        name.push(c.to_ascii_lowercase());
    }
    name.replace("unrecognised", "unrecognized").replace("b_a_d", "bad").replace("p_s_k", "psk").replace("c_a", "ca")
}

/// The library's error, without the names of its types.
fn words(error: &rustls::Error) -> String {
    use rustls::Error;
    match error {
        Error::PeerIncompatible(_) => "it shares no cipher suite, group or signature scheme with this probe",
        Error::PeerMisbehaved(_) | Error::InappropriateMessage { .. } | Error::InappropriateHandshakeMessage { .. } => {
            "it does not keep to the protocol"
        }
        Error::InvalidCertificate(_) => "the proof of its key is of a kind that is not supported here",
        Error::NoCertificatesPresented => "it sent no certificate",
        Error::DecryptError | Error::EncryptError => {
            "a message could not be decrypted: does something between change it?"
        }
        Error::PeerSentOversizedRecord => "it sent a record that is too large",
        Error::NoApplicationProtocol => "it wants another application protocol",
        Error::General(text) => return text.clone(),
        _ => "the library gives no reason",
    }
    .to_owned()
}

/// Accepts every chain and keeps it. It does check that the server has the key of its certificate.
#[derive(Debug)]
struct CapturingVerifier {
    provider: Arc<CryptoProvider>,
    chain: Mutex<Vec<Vec<u8>>>,
}

impl CapturingVerifier {
    /// Checks that the server has the key of its certificate. The library's own check refuses to read some certificates that Go and
    /// OpenSSL accept.
    fn verify(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        use rustls::CertificateError;
        let encoding = rustls::Error::InvalidCertificate(CertificateError::BadEncoding);
        let (algorithm, key) = nodetrust_core::probe::key_of(cert).ok_or(encoding.clone())?;
        let supported = &self.provider.signature_verification_algorithms;
        let of_scheme = supported.mapping.iter().find(|(scheme, _)| *scheme == dss.scheme);
        let mut fitting = of_scheme
            .into_iter()
            .flat_map(|(_, all)| all.iter())
            .filter(|known| known.public_key_alg_id().as_ref() == algorithm)
            .peekable();
        if fitting.peek().is_none() {
            return Err(encoding);
        }
        if fitting.any(|known| known.verify_signature(&key, message, dss.signature()).is_ok()) {
            return Ok(HandshakeSignatureValid::assertion());
        }
        Err(rustls::Error::InvalidCertificate(CertificateError::BadSignature))
    }
}

impl ServerCertVerifier for CapturingVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let chain = [end_entity].into_iter().chain(intermediates).map(|der| der.to_vec()).collect();
        *self.chain.lock().unwrap_or_else(PoisonError::into_inner) = chain;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verify(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verify(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
