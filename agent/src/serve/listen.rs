//! Where the agent listens: on every network of the node, IPv4 and IPv6 alike.
//!
//! The kubelet probes the agent at the node's first address, which is IPv6 in a cluster that is IPv6-only or prefers it. One socket of
//! IPv6 takes both families, whatever `net.ipv6.bindv6only` says (ipv6(7), RFC 3493 section 5.3).

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
};

use nix::errno::Errno;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpSocket};

/// Clients that wait for the agent to accept them.
const BACKLOG: u32 = 1024;
/// Send buffer of a connection, in bytes; the kernel doubles it (socket(7)). By default it grows to megabytes.
const SEND_BUFFER: u32 = 64 << 10;
/// Receive buffer of a connection, in bytes.
const RECEIVE_BUFFER: u32 = 16 << 10;

/// Listens at an address. `[::]` is every address of both families; on a node without IPv6 it is every one of IPv4.
///
/// # Errors
/// If the address is taken, or the node does not have it.
pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    match listen_at(address) {
        Err(error) if address.ip() == Ipv6Addr::UNSPECIFIED && is_without_ipv6(&error) => {
            let every = SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()));
            tracing::info!(%error, "the node has no IPv6; the agent listens on {every} instead of {address}");
            listen_at(every)
        }
        listened => listened,
    }
}

/// Whether the error means that IPv6 is not in the kernel, was switched off at boot (`ipv6.disable=1`), or is off for every interface.
fn is_without_ipv6(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL))
}

fn listen_at(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if address.is_ipv6() {
        SockRef::from(&socket).set_only_v6(false)?;
    }
    socket.set_reuseaddr(true)?;
    // connections inherit these
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}
