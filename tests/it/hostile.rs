//! Strangers on the agent's port: 256 hostile connections, with 1,000 anchors. The kubelet is answered
//! all the same, and memory stays bounded.
//!
//! Here for some seconds, with the kubelet's own patience; `scripts/hostile` takes two minutes and wants each answer within a second.

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};

use crate::{
    agent::fast,
    support::{
        node::{Kind, Node},
        pki::Ca,
        process::Running,
        wait_for,
    },
};

const LIMIT: Duration = Duration::from_secs(240);
const ANCHORS: usize = 1000;
const CONNECTIONS: usize = 256;
/// What the agent's memory may grow by, in KiB: buffers and the state of TLS for all connections, and each page once.
const GROWTH: u64 = 48 << 10;

fn number(name: &str, usual: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

/// A connection that can be spoken over.
trait Wire: Read + Write {}
impl<T: Read + Write> Wire for T {}

/// An agent with many anchors, in a store that has no tool.
struct HostileTarget {
    agent: Running,
    address: SocketAddr,
    tls: Option<Arc<ClientConfig>>,
    _node: Node,
}

impl HostileTarget {
    fn start(over_tls: bool) -> Self {
        let node = Node::new(Kind::Trixie, "");
        let cas: Vec<Ca> = (0..ANCHORS).map(|index| Ca::new(&format!("Corp Root {index}"))).collect();
        node.set_source(&cas.iter().collect::<Vec<_>>());
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let issuer = Ca::new("Issuer");
        let (cert, key) = (node.beside("config/tls.crt"), node.beside("config/tls.key"));
        let pair = issuer.leaf("agent.test");
        fs::write(&cert, pair.0).unwrap();
        fs::write(&key, pair.1).unwrap();
        let tls = format!(", tls: {{certFile: {}, keyFile: {}}}", cert.display(), key.display());
        let tls = if over_tls { tls.as_str() } else { "" };
        let more =
            format!("http: {{address: \"127.0.0.1:{port}\"{tls}}}\nstore: {{family: directory}}\n{}", fast("1h"));
        node.configure(&more);
        let log = fs::File::create(node.beside("agent.log")).unwrap();
        let agent = Running(node.command(&["run"]).stderr(log).stdout(Stdio::null()).spawn().unwrap());
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(issuer.pem().as_bytes()).unwrap()).unwrap();
        let config = ClientConfig::builder_with_provider(nodetrust::tls::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let target = Self { agent, address, tls: over_tls.then(|| Arc::new(config)), _node: node };
        wait_for("all anchors", LIMIT, || {
            let status = target.get("/status").ok()?;
            (status.contains("\"converged\": true") && status.matches("\"subject\"").count() >= ANCHORS).then_some(())
        });
        target
    }

    /// A connection, with the handshake of TLS done.
    fn connect(&self) -> std::io::Result<(TcpStream, Box<dyn Wire>)> {
        let mut stream = TcpStream::connect_timeout(&self.address, Duration::from_secs(30))?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let below = stream.try_clone()?;
        let Some(config) = &self.tls else { return Ok((below, Box::new(stream))) };
        let name = ServerName::try_from("agent.test").unwrap();
        let mut connection = ClientConnection::new(config.clone(), name).map_err(std::io::Error::other)?;
        connection.complete_io(&mut stream)?;
        Ok((below, Box::new(StreamOwned::new(connection, stream))))
    }

    /// A request as the kubelet and scrapers make it: a new connection for it.
    fn get(&self, path: &str) -> std::io::Result<String> {
        let (_, mut stream) = self.connect()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        match stream.read_to_string(&mut answer) {
            // rustls expects the end of TLS before the end of TCP.
            Err(error) if error.kind() != ErrorKind::UnexpectedEof => Err(error),
            _ => Ok(answer),
        }
    }

    /// Resident memory in KiB; 0 of an agent that has ended.
    fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.agent.0.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
        line.trim().trim_end_matches(" kB").parse().unwrap_or(0)
    }
}

/// What a hostile client does with a connection.
#[derive(Clone, Copy)]
enum Misbehaviour {
    /// Asks for the longest pages again and again, and reads nothing.
    Pipelines,
    /// Sends a head byte by byte.
    IsSlow,
    /// Sends a head that has no end.
    HasNoEnd,
    /// Begins a handshake of TLS, and says no more.
    HalfGreets,
    /// Says nothing.
    IsSilent,
}

/// Keeps a connection, and comes again whenever it is closed.
fn harass(target: &HostileTarget, manner: Misbehaviour, end: &AtomicBool, came: &AtomicUsize) {
    let requests = "GET /status HTTP/1.1\r\nHost: x\r\n\r\nGET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".repeat(16);
    let pause = Duration::from_millis(if matches!(manner, Misbehaviour::Pipelines) { 20 } else { 200 });
    while !end.load(Ordering::Relaxed) {
        let connected = match manner {
            Misbehaviour::HalfGreets | Misbehaviour::IsSilent => TcpStream::connect(target.address)
                .and_then(|stream| Ok((stream.try_clone()?, Box::new(stream) as Box<dyn Wire>))),
            _ => target.connect(),
        };
        let Ok((below, mut stream)) = connected else {
            thread::sleep(pause);
            continue;
        };
        came.fetch_add(1, Ordering::Relaxed);
        below.set_nonblocking(true).unwrap();
        let mut sent = 0usize;
        while !end.load(Ordering::Relaxed) {
            let bytes: &[u8] = match manner {
                Misbehaviour::Pipelines => requests.as_bytes(),
                Misbehaviour::IsSlow => &b"GET /status HTTP/1.1\r\nX: y"[sent.min(25)..][..1],
                Misbehaviour::HasNoEnd if sent == 0 => b"GET / HTTP/1.1\r\n",
                Misbehaviour::HasNoEnd => b"X-Header: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n",
                Misbehaviour::HalfGreets if sent == 0 => b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
                Misbehaviour::HalfGreets | Misbehaviour::IsSilent => b"",
            };
            match stream.write(bytes) {
                Ok(number) => sent += number,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => break,
            }
            thread::sleep(pause);
            // True if the agent has closed the connection.
            if matches!(below.peek(&mut [0]), Ok(0)) {
                break;
            }
        }
    }
}

fn the_kubelet_is_answered(over_tls: bool) {
    let target = HostileTarget::start(over_tls);
    let span = Duration::from_secs(number("NODETRUST_HOSTILE_SECONDS", 15));
    let patience = Duration::from_millis(number("NODETRUST_HOSTILE_MILLISECONDS", 5000)); // timeoutSeconds of the manifests
    let before = target.memory();
    let (end, came) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (mut slowest, mut asked, mut most) = (Duration::ZERO, 0, before);
    let failed = thread::scope(|scope| {
        for index in 0..CONNECTIONS {
            let manner = match index % 8 {
                0..=3 => Misbehaviour::Pipelines,
                4 => Misbehaviour::IsSlow,
                5 => Misbehaviour::HasNoEnd,
                6 => Misbehaviour::HalfGreets,
                _ => Misbehaviour::IsSilent,
            };
            let (target, end, came) = (&target, &end, &came);
            let client = thread::Builder::new().stack_size(256 << 10);
            client.spawn_scoped(scope, move || harass(target, manner, end, came)).unwrap();
        }
        let begin = Instant::now();
        let mut failed = None;
        while begin.elapsed() < span && failed.is_none() {
            let asks = Instant::now();
            match target.get("/livez") {
                Ok(answer) if answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("ok\n") => {}
                other => failed = Some((begin.elapsed(), other)),
            }
            slowest = slowest.max(asks.elapsed());
            most = most.max(target.memory());
            asked += 1;
            thread::sleep(Duration::from_millis(100));
        }
        end.store(true, Ordering::Relaxed);
        failed
    });
    println!(
        "{}: {CONNECTIONS} hostile connections, made {} times in {} s, {ANCHORS} anchors: /livez answered {asked} times, the \
         slowest after {} ms; memory {before} KiB before, {most} KiB at most",
        if over_tls { "HTTPS" } else { "HTTP" },
        came.into_inner(),
        span.as_secs(),
        slowest.as_millis(),
    );
    assert!(failed.is_none(), "{failed:?}");
    assert!(slowest <= patience, "{slowest:?}");
    assert!(most <= before + GROWTH, "{before} KiB, then {most} KiB");
    // When they have gone, everybody is served.
    for path in ["/metrics", "/status", "/"] {
        wait_for(path, LIMIT, || target.get(path).ok().filter(|answer| answer.starts_with("HTTP/1.1 200")));
    }
}

#[test]
fn hostile_clients_over_http_do_not_keep_the_kubelet_from_its_answer() {
    the_kubelet_is_answered(false);
}

#[test]
fn hostile_clients_over_https_do_not_keep_the_kubelet_from_its_answer() {
    the_kubelet_is_answered(true);
}
