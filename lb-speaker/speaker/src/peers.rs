//! The other speakers: where they are, and the UDP socket between us.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, IoSlice},
    net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket},
    os::fd::{AsFd, AsRawFd as _, BorrowedFd},
    str::FromStr,
};

use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrIn6, sendmsg};
use roadstead_layer2::membership::{MAX_DATAGRAM, MAX_NAME};
use roadstead_model::Node;
use socket2::{Domain, Protocol, Socket, Type};

use crate::loud::Everybody;

/// MetalLB's port for the same purpose.
const PORT: u16 = 7946;

/// One `--peer NAME=ADDR[:PORT]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PeerAddress {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
}

impl FromStr for PeerAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, address) = text.split_once('=').ok_or("expected NAME=ADDR or NAME=ADDR:PORT")?;
        if name.is_empty() || name.len() > MAX_NAME {
            return Err(format!("a node name has 1 to {MAX_NAME} bytes"));
        }
        let bare = address.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        let parsed = bare.map(|ip| SocketAddr::new(ip, PORT)).or_else(|_| address.parse());
        let address = parsed.map_err(|_| format!("{address:?} is no address, with or without a port"))?;
        Ok(Self { name: name.to_owned(), address })
    }
}

impl PeerAddress {
    /// The speaker of a node, at the first of the node's internal addresses.
    pub(crate) fn of_node(node: &Node, port: u16) -> Option<Self> {
        let ip = *node.internal_ips.first()?;
        let name = node.meta.name.name.to_string();
        (name.len() <= MAX_NAME).then(|| Self { name, address: SocketAddr::new(ip, port) })
    }
}

/// The socket for heartbeats and the addresses that they go to.
#[derive(Debug)]
pub(crate) struct PeerSocket {
    socket: UdpSocket,
    is_v6: bool,
    /// By name; the addresses are of the socket's own family.
    peers: BTreeMap<String, SocketAddr>,
    everybody: BTreeSet<Everybody>,
}

impl PeerSocket {
    /// Listens; an unspecified IPv6 address takes IPv4 peers too. On a host without IPv6 it becomes its IPv4 sibling.
    pub(crate) fn open(listen: SocketAddr, peers: &[PeerAddress]) -> io::Result<Self> {
        let unspecified = IpAddr::from([0; 4]);
        let socket = bind(listen).or_else(|error| match error.raw_os_error() {
            Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL) if listen.ip() == Ipv6Addr::UNSPECIFIED => {
                bind(SocketAddr::new(unspecified, listen.port()))
            }
            _ => Err(error),
        })?;
        let is_v6 = socket.local_addr()?.is_ipv6();
        let mut opened = Self { socket, is_v6, peers: BTreeMap::new(), everybody: BTreeSet::new() };
        opened.set_peers(peers);
        Ok(opened)
    }

    /// Whom it speaks with from now on.
    pub(crate) fn set_peers(&mut self, peers: &[PeerAddress]) {
        let of_family = |peer: &PeerAddress| if self.is_v6 { mapped(peer.address) } else { peer.address };
        self.peers = peers.iter().map(|peer| (peer.name.clone(), of_family(peer))).collect();
    }

    /// Sends to one peer. One that cannot be reached now is no reason to stop: its silence is what counts.
    pub(crate) fn send_to(&self, peer: &str, datagram: &[u8]) {
        let Some(address) = self.peers.get(peer) else { return };
        if let Err(error) = self.socket.send_to(datagram, address) {
            tracing::debug!(peer, %address, %error, "datagram not sent");
        }
    }

    /// Takes how to reach everybody in the networks where peers are.
    pub(crate) fn set_everybody(&mut self, everybody: BTreeSet<Everybody>) {
        self.everybody = everybody;
    }

    /// Sends to everybody in the networks where peers are. Who is none drops it, or has nothing at this port.
    pub(crate) fn send_to_everybody(&self, datagram: &[u8]) {
        for everybody in &self.everybody {
            if let Err(error) = self.send_to_all(datagram, *everybody) {
                tracing::debug!(?everybody, %error, "datagram not sent to everybody");
            }
        }
    }

    fn send_to_all(&self, datagram: &[u8], everybody: Everybody) -> io::Result<()> {
        match everybody {
            Everybody::V4(all, port) => {
                let address = SocketAddr::from((all, port));
                let to = if self.socket.local_addr()?.is_ipv6() { mapped(address) } else { address };
                self.socket.send_to(datagram, to)?;
            }
            Everybody::V6 { to, port, from, interface } => {
                // Left to itself the kernel would take the link-local address, by which no peer knows us.
                let source =
                    libc::in6_pktinfo { ipi6_addr: libc::in6_addr { s6_addr: from.octets() }, ipi6_ifindex: interface };
                let to = SockaddrIn6::from(SocketAddrV6::new(to, port, 0, interface));
                let (parts, source) = ([IoSlice::new(datagram)], [ControlMessage::Ipv6PacketInfo(&source)]);
                sendmsg(self.socket.as_raw_fd(), &parts, &source, MsgFlags::empty(), Some(&to))?;
            }
        }
        Ok(())
    }

    /// Where the peer is.
    pub(crate) fn address(&self, peer: &str) -> Option<IpAddr> {
        self.peers.get(peer).map(|address| address.ip().to_canonical())
    }

    /// Whether the peer is configured to be there. Ports are not compared: what counts is the host.
    pub(crate) fn is_at(&self, peer: &str, sender: SocketAddr) -> bool {
        self.peers.get(peer).is_some_and(|address| address.ip().to_canonical() == sender.ip().to_canonical())
    }

    /// The next datagram and its sender, or `None` when there is no more. One that is longer than any message comes
    /// with a byte too many, so that it is refused.
    pub(crate) fn receive<'a>(&self, buffer: &'a mut [u8; MAX_DATAGRAM + 1]) -> Option<(&'a [u8], SocketAddr)> {
        let (length, sender) = loop {
            match self.socket.recv_from(buffer) {
                Ok(received) => break received,
                // ICMP answers to earlier heartbeats; each is reported once and then gone, and datagrams may lie behind.
                Err(error) if matches!(error.raw_os_error(), Some(libc::ECONNREFUSED | libc::EHOSTUNREACH)) => {}
                Err(_) => return None,
            }
        };
        buffer.get(..length).map(|datagram| (datagram, sender))
    }
}

impl AsFd for PeerSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn bind(listen: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(listen), Type::DGRAM.cloexec().nonblocking(), Some(Protocol::UDP))?;
    if listen.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_broadcast(true)?;
    socket.bind(&listen.into())?;
    Ok(socket.into())
}

fn mapped(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), address.port()),
        IpAddr::V6(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_a_name_and_an_address_with_or_without_a_port() {
        let cases = [
            ("n1=192.0.2.1", Some("192.0.2.1:7946")),
            ("n1=192.0.2.1:1", Some("192.0.2.1:1")),
            ("n1=2001:db8::1", Some("[2001:db8::1]:7946")),
            ("n1=[2001:db8::1]", Some("[2001:db8::1]:7946")),
            ("n1=[2001:db8::1]:1", Some("[2001:db8::1]:1")),
            ("=192.0.2.1", None),
            ("192.0.2.1", None),
            ("n1=host", None),
        ];
        for (text, expected) in cases {
            let address = text.parse::<PeerAddress>().ok().map(|peer| peer.address);
            assert_eq!(address, expected.map(|address| address.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn a_peer_is_where_it_is_configured_to_be() {
        let peers = ["n1=192.0.2.1", "n2=[2001:db8::2]:7000"].map(|peer| peer.parse().unwrap());
        let cases = [
            ("n1", "192.0.2.1:7946", true),
            ("n1", "[::ffff:192.0.2.1]:9", true),
            ("n1", "192.0.2.2:7946", false),
            ("n2", "192.0.2.1:7946", false),
            ("n3", "192.0.2.1:7946", false),
        ];
        for listen in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(socket) = PeerSocket::open(listen.parse().unwrap(), &peers) else {
                eprintln!("skipped for want of IPv6: {listen}");
                continue;
            };
            for (peer, sender, expected) in cases {
                assert_eq!(socket.is_at(peer, sender.parse().unwrap()), expected, "{peer} {sender} on {listen}");
            }
        }
    }
}
