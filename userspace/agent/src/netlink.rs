//! The kernel's devices, addresses and default routes by route netlink, and news of them; for `doctor` its packet filters.
//!
//! Netlink sockets belong to the network namespace of the process, whatever is mounted at /sys and /proc. News is a reason
//! to look again and nothing more: what the devices are is always read in full, so lost news costs time, never truth.

mod filters;
mod messages;

use std::{
    io,
    net::IpAddr,
    os::fd::{AsFd, AsRawFd as _, OwnedFd},
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::{
        socket::{
            AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt,
            socket, sockopt,
        },
        time::{TimeVal, TimeValLike as _},
    },
};
use tokio::{
    io::Interest,
    net::UdpSocket,
    time::{Instant, sleep_until, timeout_at},
};
use tracing::{debug, warn};

pub(crate) use self::{filters::Chain, messages::Link};

/// The kernel fills up to 32 KiB of a buffer with a dump.
const BUFFER: usize = 64 * 1024;
/// The kernel answers at once, unless somebody holds its lock on devices for long.
const ANSWER_WITHIN_SECONDS: i64 = 5;
/// How often to ask again when the list changes under the dump.
const ATTEMPTS: u32 = 10;
/// News that follows other news more closely waits for this long: a pod's start is a burst of it.
const REST: Duration = Duration::from_millis(20);
/// A look without any news, for the case that some was lost.
const POLL: Duration = Duration::from_secs(10);
/// Room for about as much news as a thousand devices make at once; beyond it the kernel says that some was lost.
const RECEIVE_BUFFER: usize = 1 << 20;
/// `RTMGRP_LINK`, `RTMGRP_IPV4_IFADDR`, `RTMGRP_IPV4_ROUTE`, `RTMGRP_IPV6_IFADDR`, `RTMGRP_IPV6_ROUTE`.
const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;

/// A socket for questions.
#[derive(Debug)]
pub(crate) struct Kernel {
    socket: OwnedFd,
    sequence: u32,
}

impl Kernel {
    /// Opens a socket in the network namespace of this process.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn open() -> io::Result<Self> {
        Self::open_protocol(SockProtocol::NetlinkRoute)
    }

    /// The same for questions about packet filters.
    ///
    /// # Errors
    /// When the kernel refuses, or has none.
    pub(crate) fn open_netfilter() -> io::Result<Self> {
        Self::open_protocol(SockProtocol::NetlinkNetFilter)
    }

    fn open_protocol(protocol: SockProtocol) -> io::Result<Self> {
        let socket = open(SockFlag::SOCK_CLOEXEC, protocol, 0)?;
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::seconds(ANSWER_WITHIN_SECONDS))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// All devices.
    pub(crate) fn links(&mut self) -> io::Result<Vec<Link>> {
        self.dump(messages::RTM_GETLINK, messages::RTM_NEWLINK, |body| messages::link(body).into_iter().collect())
    }

    /// All addresses, with the number of their device.
    pub(crate) fn addresses(&mut self) -> io::Result<Vec<(u32, IpAddr)>> {
        self.dump(messages::RTM_GETADDR, messages::RTM_NEWADDR, |body| messages::address(body).into_iter().collect())
    }

    /// Numbers of the devices that default routes lead through.
    pub(crate) fn default_routes(&mut self) -> io::Result<Vec<u32>> {
        self.dump(messages::RTM_GETROUTE, messages::RTM_NEWROUTE, messages::default_route)
    }

    /// All chains of nftables; of a kernel opened by [`Kernel::open_netfilter`].
    pub(crate) fn chains(&mut self) -> io::Result<Vec<Chain>> {
        self.dump(filters::GET_CHAIN, filters::NEW_CHAIN, |body| filters::chain(body).into_iter().collect())
    }

    fn dump<T>(&mut self, request: u16, answer: u16, parse: impl Fn(&[u8]) -> Vec<T>) -> io::Result<Vec<T>> {
        for _ in 0..ATTEMPTS {
            if let Some(found) = self.try_dump(request, answer, &parse)? {
                return Ok(found);
            }
        }
        Err(io::Error::other("the list changes faster than it can be read"))
    }

    /// `None` if the list changed under the dump.
    fn try_dump<T>(
        &mut self,
        request: u16,
        answer: u16,
        parse: impl Fn(&[u8]) -> Vec<T>,
    ) -> io::Result<Option<Vec<T>>> {
        self.sequence = self.sequence.wrapping_add(1);
        send(self.socket.as_raw_fd(), &messages::dump_request(request, self.sequence), MsgFlags::empty())?;
        let mut buffer = vec![0; BUFFER];
        let (mut found, mut interrupted) = (Vec::new(), false);
        loop {
            let received = receive(&self.socket, &mut buffer)?;
            let datagram = buffer.get(..received).ok_or_else(|| io::Error::other("an answer of more than 64 KiB"))?;
            // Answers to an earlier question that was given up are passed over.
            for message in messages::messages(datagram).filter(|message| message.sequence == self.sequence) {
                interrupted |= message.flags & messages::NLM_F_DUMP_INTR != 0;
                match message.kind {
                    messages::NLMSG_DONE | messages::NLMSG_ERROR if message.errno() != 0 => {
                        return Err(io::Error::from_raw_os_error(message.errno()));
                    }
                    messages::NLMSG_DONE | messages::NLMSG_ERROR => {
                        return Ok((!interrupted).then_some(found));
                    }
                    kind if kind == answer => found.extend(parse(message.body)),
                    _ => {}
                }
            }
        }
    }
}

/// News of devices, addresses and default routes.
#[derive(Debug)]
pub(crate) struct Watch {
    /// `None` after a failure, until the next poll opens another.
    socket: Option<UdpSocket>,
    buffer: Vec<u8>,
    pending: bool,
    /// Not before, for the sake of bursts.
    rest_until: Instant,
    poll_at: Instant,
}

impl Watch {
    /// Begins to listen; called inside a runtime, before the first look.
    ///
    /// # Errors
    /// When the kernel refuses the socket.
    pub(crate) fn open() -> io::Result<Self> {
        let now = Instant::now();
        Ok(Self {
            socket: Some(subscribe()?),
            buffer: vec![0; BUFFER],
            pending: false,
            rest_until: now,
            poll_at: now + POLL,
        })
    }

    /// Returns when the devices are to be looked at: at once after the first news, at most every 20 ms while there is
    /// more, and after 10 s without any. Nothing is lost if it is cancelled.
    pub(crate) async fn changed(&mut self) {
        if !self.pending {
            self.await_news().await;
            self.pending = true;
        }
        sleep_until(self.rest_until).await;
        // What has come until now, the look will see.
        if let Some(socket) = &self.socket {
            while matches!(receive(socket, &mut self.buffer), Ok(_) | Err(Errno::ENOBUFS)) {}
        }
        self.pending = false;
        let now = Instant::now();
        (self.rest_until, self.poll_at) = (now + REST, now + POLL);
    }

    async fn await_news(&mut self) {
        let Some(socket) = &self.socket else {
            sleep_until(self.poll_at).await;
            self.socket = subscribe()
                .inspect_err(|error| warn!(%error, "cannot follow the devices, looking every 10 s instead"))
                .ok();
            return;
        };
        match timeout_at(self.poll_at, news(socket, &mut self.buffer)).await {
            Ok(Ok(())) | Err(_) => {}
            Ok(Err(error)) => {
                warn!(%error, "following the devices failed, will be tried again");
                self.socket = None;
            }
        }
    }
}

/// Waits for news that concerns the devices, or for word that some was lost.
async fn news(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<()> {
    loop {
        socket.readable().await?;
        match socket.try_io(Interest::READABLE, || Ok(receive(socket, buffer)?)) {
            Ok(received) => {
                // What was cut off may be anything.
                let Some(datagram) = buffer.get(..received) else { return Ok(()) };
                if messages::messages(datagram).any(|message| message.concerns_devices()) {
                    return Ok(());
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => {
                debug!("news of devices was lost");
                return Ok(());
            }
            Err(error) => return Err(error),
        }
    }
}

/// The runtime has no socket for netlink, and its way to wait for any descriptor is unsafe. To its datagram socket the
/// family is nothing; only reading is done past it, for that cut-off datagrams are told.
fn subscribe() -> io::Result<UdpSocket> {
    let socket = open(SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, SockProtocol::NetlinkRoute, GROUPS)?;
    // The system's limit on the size does not bind CAP_NET_ADMIN; without either, more news is lost, and noticed.
    let _ = setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER)
        .or_else(|_| setsockopt(&socket, sockopt::RcvBuf, &RECEIVE_BUFFER));
    UdpSocket::from_std(socket.into())
}

fn open(flags: SockFlag, protocol: SockProtocol, groups: u32) -> io::Result<OwnedFd> {
    let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
    Ok(socket)
}

/// The length of the next datagram, which is more than the buffer holds if it was cut off.
fn receive(socket: impl AsFd, buffer: &mut [u8]) -> Result<usize, Errno> {
    loop {
        match recv(socket.as_fd().as_raw_fd(), buffer, MsgFlags::MSG_TRUNC) {
            Err(Errno::EINTR) => {}
            outcome => return outcome,
        }
    }
}

#[cfg(test)]
#[path = "netlink/tests.rs"]
mod tests;
