//! Names to addresses, as `/etc/hosts` and `/etc/resolv.conf` of the place where we run say. Whoever connects by name asks here.
//!
//! The C library is not asked: linked statically, it loads the modules that nsswitch.conf names from the host, and with another
//! version of itself that ends the process.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use nodetrust_core::dns::{DnsAnswer, RecordType, Resolv, answer, in_hosts, question};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

use crate::host::root::HostRoot;

/// How long a lookup may take in all.
const LIMIT: Duration = Duration::from_secs(10);
/// How long one server may take for one question.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often all servers are asked for a name that none of them answers: a datagram may get lost.
const ROUNDS: usize = 2;
/// Largest of the two files, in bytes.
const MAX_FILE: u64 = 1 << 20;
/// Largest answer in a datagram, in bytes; without EDNS servers send at most 512.
const MAX_DATAGRAM: usize = 1500;
/// Failures that an error names.
const MAX_TOLD: usize = 4;
/// The port of the DNS.
const PORT: u16 = 53;

const HOSTS: &str = "/etc/hosts";
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// The files by which names are looked up.
#[derive(Debug, Clone)]
pub struct Names {
    hosts: String,
    resolv: String,
}

impl Names {
    /// The files of the place where the agent runs.
    pub fn ours() -> Self {
        Self { hosts: read(HOSTS), resolv: read(RESOLV_CONF) }
    }

    /// The files of the host, as its own programs read them; where it has none, those of the place where the agent runs.
    pub fn of_host(root: &HostRoot) -> Self {
        let read_there = |path: &str| {
            let bytes = root.read(path, MAX_FILE).ok()?;
            Some(String::from_utf8_lossy(&bytes).into_owned())
        };
        Self {
            hosts: read_there(HOSTS).unwrap_or_else(|| read(HOSTS)),
            resolv: read_there(RESOLV_CONF).unwrap_or_else(|| read(RESOLV_CONF)),
        }
    }
}

/// The addresses of a host by our own files, IPv4 and IPv6 in turns.
///
/// # Errors
/// A sentence that says who was asked and what became of it.
pub async fn lookup(host: &str) -> Result<Vec<IpAddr>, String> {
    lookup_by(&Names::ours(), host).await
}

/// The addresses of a host by these files.
///
/// # Errors
/// As [`lookup`].
pub async fn lookup_by(names: &Names, host: &str) -> Result<Vec<IpAddr>, String> {
    if let Ok(address) = host.parse() {
        return Ok(vec![address]);
    }
    let listed = in_hosts(&names.hosts, host);
    if !listed.is_empty() {
        return Ok(listed);
    }
    let mut resolv = Resolv::parse(&names.resolv);
    let mut failures = Vec::new();
    let asked = timeout(LIMIT, ask_all(&mut resolv, host, &mut failures)).await;
    match asked {
        Ok(Some(addresses)) => return Ok(addresses),
        Ok(None) => {}
        Err(_) => failures.push(format!("no answer within {} s", LIMIT.as_secs())),
    }
    failures.dedup();
    if failures.len() > MAX_TOLD {
        // keep both ends: the failure for the name as it was given is the last one, or the first if the name has many dots
        failures.drain(1..failures.len() - (MAX_TOLD - 1));
    }
    Err(failures.join("; "))
}

/// Asks for the full names one after the other until one has addresses.
async fn ask_all(resolv: &mut Resolv, host: &str, failures: &mut Vec<String>) -> Option<Vec<IpAddr>> {
    for name in resolv.names(host) {
        'name: for _ in 0..ROUNDS {
            for n in 0..resolv.servers.len() {
                let server = resolv.servers[n];
                match ask_both(server, &name).await {
                    Ok(addresses) if addresses.is_empty() => {
                        // the other servers would give the same answer; the one that gave it is asked first for the next name
                        resolv.servers[..=n].rotate_right(1);
                        failures.push(format!("{server} knows no address of {name}"));
                        break 'name;
                    }
                    Ok(addresses) => return Some(addresses),
                    Err(why) => failures.push(why),
                }
            }
        }
    }
    None
}

/// The addresses that a server knows of a name, of both kinds; an empty list is an answer too.
async fn ask_both(server: IpAddr, name: &str) -> Result<Vec<IpAddr>, String> {
    let at = SocketAddr::new(server, PORT);
    let (four, six) = tokio::join!(ask(at, name, RecordType::A), ask(at, name, RecordType::Aaaa));
    let mut failure = None;
    let [four, six] = [four, six].map(|answer| {
        match answer {
            Ok(DnsAnswer::Addresses(addresses)) => return addresses,
            Ok(DnsAnswer::NoName) => {}
            Ok(DnsAnswer::Failed(code)) => failure = Some(format!("{server} fails for {name} ({code:?})")),
            Ok(DnsAnswer::Truncated) => failure = Some(format!("{server} cuts off its answer for {name}")),
            Err(error) => failure = Some(format!("{server} does not answer for {name} ({error})")),
        }
        Vec::new()
    });
    let addresses = in_turns(&four, &six);
    // one kind of address is enough, whatever became of the other
    failure.filter(|_| addresses.is_empty()).map_or(Ok(addresses), Err)
}

fn read(path: &str) -> String {
    let file = nix::fcntl::open(
        path,
        nix::fcntl::OFlag::O_RDONLY | nix::fcntl::OFlag::O_NONBLOCK | nix::fcntl::OFlag::O_CLOEXEC,
        nix::sys::stat::Mode::empty(),
    );
    let bytes = file.map_err(io::Error::from).and_then(|file| crate::host::file::read_regular(file, MAX_FILE));
    String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned() // a file that is missing counts as empty
}

async fn ask(server: SocketAddr, name: &str, kind: RecordType) -> io::Result<DnsAnswer> {
    let mut id = [0; 2];
    let random = crate::tls::provider();
    random.secure_random.fill(&mut id).map_err(|_| io::Error::other("no random numbers"))?;
    let Some(question) = question(u16::from_be_bytes(id), name, kind) else { return Ok(DnsAnswer::NoName) };
    let answered = match timeout(PATIENCE, by_datagram(server, &question)).await {
        Ok(Ok(DnsAnswer::Truncated)) => timeout(PATIENCE, by_stream(server, &question)).await,
        other => other,
    };
    answered.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn by_datagram(server: SocketAddr, asked: &[u8]) -> io::Result<DnsAnswer> {
    let any: SocketAddr = if server.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(asked).await?;
    let mut message = [0; MAX_DATAGRAM];
    loop {
        let length = socket.recv(&mut message).await?;
        if let Some(answer) = answer(asked, &message[..length]) {
            return Ok(answer);
        }
    }
}

async fn by_stream(server: SocketAddr, asked: &[u8]) -> io::Result<DnsAnswer> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(asked.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), asked].concat()).await?;
    let length = stream.read_u16().await?;
    let mut message = vec![0; usize::from(length)];
    stream.read_exact(&mut message).await?;
    answer(asked, &message).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn in_turns(one: &[IpAddr], other: &[IpAddr]) -> Vec<IpAddr> {
    let longest = one.len().max(other.len());
    (0..longest).flat_map(|n| [one.get(n), other.get(n)]).flatten().copied().collect()
}
