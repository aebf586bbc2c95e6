//! rtnetlink sockets: lists of links and addresses, and word of every change of them.
//!
//! What the messages hold is parsed by the parent; here are the sockets, the request and the frame around each message.

use std::{
    collections::BTreeSet,
    io::{self, Read, Write},
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    time::Duration,
};

use nix::sys::socket::{AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, socket};
use socket2::Socket;

use super::{RTM_DELLINK, index_of};

const DONE: u16 = 3;
const ERROR: u16 = 2;
/// `NLM_F_REQUEST | NLM_F_DUMP`.
const DUMP: u16 = 0x301;
/// Longer than any datagram that the kernel fills, of a list and of a change.
const LIST: usize = 64 * 1024;
const CHANGE: usize = 16 * 1024;
/// Datagrams read at once; what is left makes the socket readable again.
const A_TURN: usize = 64;
/// `RTMGRP_LINK`, `RTMGRP_IPV4_IFADDR`, `RTMGRP_IPV6_IFADDR` (linux/rtnetlink.h).
const GROUPS: u32 = 0x1 | 0x10 | 0x100;

/// Asks for a list and hands over kind and body of each message of it.
pub(super) fn dump(kind: u16, mut take: impl FnMut(u16, &[u8])) -> io::Result<()> {
    let mut socket = open(SockFlag::SOCK_CLOEXEC)?;
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    // nlmsghdr (length 32, type, flags, sequence, port) and an empty ifinfomsg, which does for ifaddrmsg too.
    let mut request = [0_u8; 32];
    let head = [&32_u32.to_ne_bytes()[..], &kind.to_ne_bytes(), &DUMP.to_ne_bytes()].concat();
    request.iter_mut().zip(head).for_each(|(byte, value)| *byte = value);
    socket.write_all(&request)?;
    let mut buffer = vec![0; LIST];
    loop {
        let length = socket.read(&mut buffer)?;
        let mut done = false;
        each_message(buffer.get(..length).unwrap_or_default(), |kind, body| {
            match kind {
                DONE => done = true,
                ERROR => return Err(io::Error::other("the kernel refused to list")),
                kind => take(kind, body),
            }
            Ok(())
        })?;
        if done {
            return Ok(());
        }
    }
}

/// Becomes readable when a link or an address of this namespace changes.
#[derive(Debug)]
pub(crate) struct Watch(Socket);

/// What a [`Watch`] told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Anything.
    pub(crate) changed: bool,
    /// Links that were removed: one that has the same number now is another one.
    pub(crate) gone: BTreeSet<u32>,
}

impl Watch {
    /// Misses nothing from now on.
    pub(crate) fn open() -> io::Result<Self> {
        let socket = open(SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, GROUPS))?;
        Ok(Self(socket))
    }

    /// What has changed since the last call.
    pub(crate) fn drain(&self) -> Seen {
        let mut seen = Seen::default();
        let mut buffer = [0; CHANGE];
        for _ in 0..A_TURN {
            match (&self.0).read(&mut buffer) {
                Ok(length) => seen.take(buffer.get(..length).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // ENOBUFS: more changed than the kernel could keep for us.
                Err(_) => seen.changed = true,
            }
        }
        seen
    }
}

impl Seen {
    fn take(&mut self, bytes: &[u8]) {
        self.changed = true;
        // A message cut short still tells that something changed.
        let _cut = each_message(bytes, |kind, body| {
            self.gone.extend((kind == RTM_DELLINK).then(|| index_of(body)).flatten());
            Ok(())
        });
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn open(flags: SockFlag) -> io::Result<Socket> {
    Ok(socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?.into())
}

/// Hands over kind and body of each message of a datagram.
fn each_message(mut bytes: &[u8], mut take: impl FnMut(u16, &[u8]) -> io::Result<()>) -> io::Result<()> {
    while let Some((length, rest)) = bytes.split_first_chunk::<4>() {
        let length = usize::try_from(u32::from_ne_bytes(*length)).map_err(io::Error::other)?;
        let (Some(kind), Some(body)) = (rest.first_chunk::<2>(), bytes.get(16..length)) else {
            return Err(io::Error::other("a message of the kernel is cut short"));
        };
        take(u16::from_ne_bytes(*kind), body)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(16 + body.len()).unwrap();
        let mut bytes = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &[0; 10], body].concat();
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn a_removed_link_is_named_and_anything_is_a_change() {
        let removed = [&[0_u8; 4][..], &7_u32.to_ne_bytes(), &[0; 8]].concat();
        let both = [message(16, &removed), message(RTM_DELLINK, &removed)].concat();
        for (bytes, gone) in [(message(20, &removed), &[][..]), (both, &[7]), (vec![9, 0, 0], &[]), (vec![9; 30], &[])]
        {
            let mut seen = Seen::default();
            seen.take(&bytes);
            assert_eq!(seen, Seen { changed: true, gone: gone.iter().copied().collect() }, "{bytes:?}");
        }
    }

    #[test]
    fn a_message_cut_short_is_an_error_and_no_panic() {
        let whole = [message(16, &[1; 5]), message(DONE, &[0; 4])].concat();
        let read = |bytes: &[u8]| {
            let mut kinds = Vec::new();
            each_message(bytes, |kind, body| {
                kinds.push((kind, body.len()));
                Ok(())
            })
            .map(|()| kinds)
        };
        assert_eq!(read(&whole).unwrap(), [(16, 5), (DONE, 4)]);
        for length in 0..whole.len() {
            let _no_panic = read(&whole[..length]);
        }
        assert!(read(&whole[..20]).is_err());
        assert_eq!(Watch::open().unwrap().drain().gone, BTreeSet::new());
    }
}
