//! Limits on what clients may hold of the agent: connections and long answers.
//!
//! Every connection is accepted. It holds little memory, a small buffer and perhaps the state of TLS, until it asks for a long answer.
//! A long answer takes a slot until it is written or its time is up; slots are few, for each peer and in all. `/livez` and `/readyz`
//! take none. When there are too many connections, the peer with the most of them loses its oldest one that has no slot. So a client
//! that connects and asks at once is answered, whatever others do.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    net::{IpAddr, Ipv6Addr},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::{Notify, oneshot},
    time::{Instant, Sleep, sleep, timeout_at},
};

/// Connections at a time.
const MAX_CONNECTIONS: usize = 256;
/// Long answers at a time.
const MAX_SLOTS: usize = 64;
/// Long answers at a time to one peer.
const MAX_SLOTS_OF_A_PEER: usize = 16;
/// How long a request waits for a slot.
const SLOT_PATIENCE: Duration = Duration::from_secs(2);
/// How long a client may take to read an answer. Prometheus waits as long for the whole answer.
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);

/// The connections and slots of all clients.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    open: Mutex<OpenConnections>,
    freed: Notify,
}

#[derive(Debug, Default)]
struct OpenConnections {
    next: u64,
    /// in the order in which they came
    all: BTreeMap<u64, OpenConnection>,
}

#[derive(Debug)]
struct OpenConnection {
    peer: IpAddr,
    has_slot: bool,
    /// dropped when the connection has to go
    _keep: oneshot::Sender<()>,
}

/// One connection. Dropping it gives its place and its slot back.
#[derive(Debug)]
pub(crate) struct ConnectionHandle {
    connections: Arc<Connections>,
    id: u64,
}

impl Connections {
    /// Accepts a client. The receiver ends when its connection must be closed.
    pub(crate) fn accept(self: &Arc<Self>, address: IpAddr) -> (ConnectionHandle, oneshot::Receiver<()>) {
        let mut open = self.lock();
        while open.all.len() >= MAX_CONNECTIONS && open.close_one() {}
        let id = open.next;
        open.next += 1;
        let (keep, gone) = oneshot::channel();
        open.all.insert(id, OpenConnection { peer: peer(address), has_slot: false, _keep: keep });
        (ConnectionHandle { connections: self.clone(), id }, gone)
    }

    /// Closes one connection, because file descriptors have run out.
    pub(crate) fn close_one(&self) {
        self.lock().close_one();
    }

    fn take_slot(&self, id: u64) -> bool {
        let mut open = self.lock();
        let Some(peer) = open.all.get(&id).map(|connection| connection.peer) else { return false };
        let taken = || open.all.iter().filter(|(other, connection)| connection.has_slot && **other != id);
        if taken().count() >= MAX_SLOTS
            || taken().filter(|(_, connection)| connection.peer == peer).count() >= MAX_SLOTS_OF_A_PEER
        {
            return false;
        }
        if let Some(connection) = open.all.get_mut(&id) {
            connection.has_slot = true;
        }
        true
    }

    fn lock(&self) -> MutexGuard<'_, OpenConnections> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OpenConnections {
    /// Closes the oldest connection without a slot, of the peer that has the most. False if every connection has a slot.
    fn close_one(&mut self) -> bool {
        let mut waiting: HashMap<IpAddr, (usize, u64)> = HashMap::new(); // how many of a peer, and the oldest
        for (id, connection) in self.all.iter().filter(|(_, connection)| !connection.has_slot) {
            waiting.entry(connection.peer).or_insert((0, *id)).0 += 1;
        }
        let oldest = waiting.into_values().max_by_key(|(number, id)| (*number, std::cmp::Reverse(*id)));
        oldest.is_some_and(|(_, id)| self.all.remove(&id).is_some())
    }
}

impl ConnectionHandle {
    /// Waits for a slot and takes it; false if there is none within [`SLOT_PATIENCE`].
    pub(crate) async fn slot(&self) -> bool {
        let end = Instant::now() + SLOT_PATIENCE;
        loop {
            let freed = self.connections.freed.notified(); // before the try: a slot that is freed after it must wake us
            if self.connections.take_slot(self.id) {
                return true;
            }
            if timeout_at(end, freed).await.is_err() {
                return false;
            }
        }
    }

    /// Gives the slot back: the answer is written.
    fn give_slot_back(&self) {
        let had =
            self.connections.lock().all.get_mut(&self.id).map(|connection| std::mem::take(&mut connection.has_slot));
        if had == Some(true) {
            self.connections.freed.notify_waiters();
        }
    }
}

impl Drop for ConnectionHandle {
    fn drop(&mut self) {
        if self.connections.lock().all.remove(&self.id).is_some_and(|connection| connection.has_slot) {
            self.connections.freed.notify_waiters();
        }
    }
}

/// What counts as one peer: an IPv4 address, also in its IPv6 form, or the /64 network of an IPv6 address.
fn peer(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
    }
}

/// A client's stream. It fails if an answer is not read in time, and gives the slot back when an answer is written.
#[derive(Debug)]
pub(crate) struct ClientStream<S> {
    stream: S,
    handle: Arc<ConnectionHandle>,
    /// while an answer cannot be written
    deadline: Option<Pin<Box<Sleep>>>,
}

impl<S> ClientStream<S> {
    pub(crate) fn new(stream: S, handle: Arc<ConnectionHandle>) -> Self {
        Self { stream, handle, deadline: None }
    }

    fn in_time<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_pending() {
            ready!(self.deadline.get_or_insert_with(|| Box::pin(sleep(ANSWER_PATIENCE))).as_mut().poll(cx));
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        written
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ClientStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ClientStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.in_time(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.in_time(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// The server flushes when all of an answer is written.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        let flushed = self.in_time(cx, flushed);
        if let Poll::Ready(Ok(())) = flushed {
            self.deadline = None;
            self.handle.give_slot_back();
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.in_time(cx, shut)
    }
}

#[cfg(test)]
#[path = "connections_tests.rs"]
mod tests;
