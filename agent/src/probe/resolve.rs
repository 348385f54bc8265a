//! Resolving a name as `/etc/hosts` and `/etc/resolv.conf` of the place where we run say.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use nodetrust_core::probe::dns::{Answer, Kind, Resolv, answer, in_hosts, question};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

/// How long one server may take for one question.
const PATIENCE: Duration = Duration::from_secs(2);
/// Largest of the two files, in bytes.
const LIMIT: u64 = 1 << 20;
/// The port of the DNS.
const PORT: u16 = 53;

/// The addresses of a name, IPv4 and IPv6 in turns.
///
/// # Errors
/// A sentence that says who was asked and what became of it.
pub(crate) async fn resolve(name: &str) -> Result<Vec<IpAddr>, String> {
    if let Ok(address) = name.parse() {
        return Ok(vec![address]);
    }
    let listed = in_hosts(&read("/etc/hosts"), name);
    if !listed.is_empty() {
        return Ok(listed);
    }
    let resolv = Resolv::parse(&read("/etc/resolv.conf"));
    let mut failures = Vec::new();
    for full in resolv.names(name) {
        for server in &resolv.servers {
            let at = SocketAddr::new(*server, PORT);
            let (four, six) = tokio::join!(ask(at, &full, Kind::A), ask(at, &full, Kind::Aaaa));
            let found: Vec<Vec<IpAddr>> = [&four, &six]
                .into_iter()
                .map(|answer| match answer {
                    Ok(Answer::Addresses(addresses)) => addresses.clone(),
                    _ => Vec::new(),
                })
                .collect();
            let addresses = in_turns(&found[0], &found[1]);
            if !addresses.is_empty() {
                return Ok(addresses);
            }
            let why = match (four, six) {
                (Err(error), _) | (_, Err(error)) => format!("{server} does not answer for {full} ({error})"),
                (Ok(Answer::Failed(code)), _) | (_, Ok(Answer::Failed(code))) => {
                    format!("{server} fails for {full} (code {code})")
                }
                (Ok(Answer::NoName), _) => {
                    failures.push(format!("{server} knows no {full}"));
                    break; // an answer, which the others would give as well
                }
                _ => {
                    failures.push(format!("{full} has no address, says {server}"));
                    break;
                }
            };
            failures.push(why);
        }
    }
    // what the name itself is answered stands at the end, or at the beginning if it has many dots; a failure tells most
    failures.dedup();
    failures.truncate(4);
    Err(failures.join("; "))
}

fn read(path: &str) -> String {
    let file = nix::fcntl::open(
        path,
        nix::fcntl::OFlag::O_RDONLY | nix::fcntl::OFlag::O_NONBLOCK | nix::fcntl::OFlag::O_CLOEXEC,
        nix::sys::stat::Mode::empty(),
    );
    let bytes = file.map_err(io::Error::from).and_then(|file| crate::host::root::read_regular(file, LIMIT));
    String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned() // a file that is not there says nothing
}

async fn ask(server: SocketAddr, name: &str, kind: Kind) -> io::Result<Answer> {
    let mut id = [0; 2];
    let random = crate::tls::provider();
    random.secure_random.fill(&mut id).map_err(|_| io::Error::other("no random numbers"))?;
    let Some(question) = question(u16::from_be_bytes(id), name, kind) else { return Ok(Answer::NoName) };
    let answered = match timeout(PATIENCE, by_datagram(server, &question)).await {
        Ok(Ok(Answer::Truncated)) => timeout(PATIENCE, by_stream(server, &question)).await,
        other => other,
    };
    answered.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn by_datagram(server: SocketAddr, asked: &[u8]) -> io::Result<Answer> {
    let any: SocketAddr = if server.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(asked).await?;
    let mut message = [0; 1500];
    loop {
        let length = socket.recv(&mut message).await?;
        if let Some(answer) = answer(asked, &message[..length]) {
            return Ok(answer);
        }
    }
}

async fn by_stream(server: SocketAddr, asked: &[u8]) -> io::Result<Answer> {
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
