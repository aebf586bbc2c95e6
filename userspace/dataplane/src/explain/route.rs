//! Where an address is by this host's routing table: route netlink (RTM_GETROUTE), in the place of `bpf_fib_lookup`.

use std::{
    collections::BTreeSet,
    io,
    os::fd::{AsRawFd as _, OwnedFd},
};

use aya::maps::{HashMap, MapData};
use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket};
use roadstead_abi::{Addr, DropReason, map_names};
use roadstead_datapath::way::Place;

use super::{Routes, ViewError};
use crate::{
    maps::MapError,
    pins::{Pins, open_map},
};

/// The routing table of this thread's network namespace.
pub struct KernelRoutes {
    netlink: OwnedFd,
    uplinks: BTreeSet<u32>,
}

const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_ENCAP: u16 = 22;
const RTN_UNICAST: u8 = 1;
/// Length of `struct nlmsghdr`, and of `struct rtmsg`.
const NLMSG_LEN: usize = 16;
const RTMSG_LEN: usize = 12;

impl KernelRoutes {
    /// With the uplinks that the pinned map names.
    ///
    /// # Errors
    /// When the map or the socket cannot be opened.
    pub fn open(pins: &Pins) -> Result<Self, ViewError> {
        let uplinks: HashMap<MapData, u32, u32> = open_map(pins, map_names::UPLINKS)?;
        let failed = |source| MapError { map: map_names::UPLINKS, operation: "read", source: Box::new(source) };
        Self::with_uplinks(uplinks.keys().collect::<Result<_, _>>().map_err(failed)?)
    }

    /// With these uplinks, by index.
    ///
    /// # Errors
    /// When the socket cannot be opened.
    pub fn with_uplinks(uplinks: BTreeSet<u32>) -> Result<Self, ViewError> {
        let netlink = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)
            .map_err(|error| ViewError::Routes(error.into()))?;
        Ok(Self { netlink, uplinks })
    }

    /// The devices towards the network, by index.
    #[must_use]
    pub fn uplinks(&self) -> &BTreeSet<u32> {
        &self.uplinks
    }

    fn ask(&self, destination: &Addr) -> io::Result<Answer> {
        let fd = self.netlink.as_raw_fd();
        sendto(fd, &question(destination), &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
        let mut buffer = [0_u8; 4_096];
        let length = recv(fd, &mut buffer, MsgFlags::empty())?;
        answer(buffer.get(..length).unwrap_or_default()).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

impl Routes for KernelRoutes {
    fn place(&self, _source: &Addr, destination: &Addr) -> Result<Result<(Place, u32), DropReason>, ViewError> {
        Ok(match self.ask(destination).map_err(ViewError::Routes)? {
            Answer::Stack => Ok((Place::Here, 0)),
            _ if !forwards(destination) => Ok((Place::Here, 0)),
            Answer::Device(index) if self.uplinks.contains(&index) => Ok((Place::Beyond, index)),
            Answer::Device(index) => Ok((Place::Behind, index)),
            Answer::Refused => Err(DropReason::NoRoute),
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Stack,
    Device(u32),
    Refused,
}

fn question(destination: &Addr) -> Vec<u8> {
    let octets = destination.octets();
    let (family, bytes) = match octets.split_last_chunk::<4>() {
        Some((_, v4)) if destination.is_v4() => (libc::AF_INET, v4.as_slice()),
        _ => (libc::AF_INET6, octets.as_slice()),
    };
    let byte = |number: usize| u8::try_from(number).unwrap_or(u8::MAX);
    let attribute = u16::from(byte(4 + bytes.len()));
    let length = NLMSG_LEN + RTMSG_LEN + 4 + bytes.len();
    let mut message = Vec::with_capacity(length);
    message.extend(u32::from(byte(length)).to_ne_bytes());
    message.extend(RTM_GETROUTE.to_ne_bytes());
    message.extend(NLM_F_REQUEST.to_ne_bytes());
    message.extend([0; 8]);
    // Family and destination length in bits; the rest of `struct rtmsg` is nothing to a question.
    message.extend([u8::try_from(family).unwrap_or(0), byte(bytes.len() * 8)]);
    message.extend([0; RTMSG_LEN - 2]);
    message.extend(attribute.to_ne_bytes());
    message.extend(RTA_DST.to_ne_bytes());
    message.extend(bytes);
    message
}

/// Reads the kernel's answer. What a program hears as "not forwarded" is the stack's to deliver: addresses of the node,
/// broadcasts, routes with an encapsulation, and addresses that no route leads to.
fn answer(message: &[u8]) -> Option<Answer> {
    let kind = u16::from_ne_bytes(*message.get(4..)?.first_chunk()?);
    if kind == NLMSG_ERROR {
        let error = i32::from_ne_bytes(*message.get(NLMSG_LEN..)?.first_chunk()?);
        // Blackhole, unreachable and prohibited routes; -ENETUNREACH says that there is none at all.
        let refused = [libc::EINVAL, libc::EHOSTUNREACH, libc::EACCES].contains(&-error);
        return Some(if refused { Answer::Refused } else { Answer::Stack });
    }
    if kind != RTM_NEWROUTE {
        return None;
    }
    if *message.get(NLMSG_LEN + 7)? != RTN_UNICAST {
        return Some(Answer::Stack);
    }
    let mut found = Answer::Stack;
    let mut attributes = message.get(NLMSG_LEN + RTMSG_LEN..)?;
    while let Some([a, b, c, d]) = attributes.first_chunk() {
        let (length, kind) = (usize::from(u16::from_ne_bytes([*a, *b])), u16::from_ne_bytes([*c, *d]));
        match kind {
            RTA_OIF => found = Answer::Device(u32::from_ne_bytes(*attributes.get(4..)?.first_chunk()?)),
            RTA_ENCAP => return Some(Answer::Stack),
            _ => {}
        }
        attributes = attributes.get(length.max(4).next_multiple_of(4)..).unwrap_or_default();
    }
    Some(found)
}

/// Without forwarding a program is told nothing but that.
fn forwards(destination: &Addr) -> bool {
    let name = if destination.is_v4() { "ipv4/ip_forward" } else { "ipv6/conf/all/forwarding" };
    let value = std::fs::read_to_string(std::path::Path::new("/proc/sys/net").join(name));
    value.is_ok_and(|value| value.trim() == "1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_network_is_here() {
        let routes = KernelRoutes::with_uplinks(BTreeSet::new()).unwrap();
        let own = Addr::v4([127, 0, 0, 9]);
        assert_eq!(routes.place(&Addr::UNSPECIFIED, &own).unwrap(), Ok((Place::Here, 0)));
    }

    #[test]
    fn foreign_bytes_are_no_answer() {
        for length in 0..64 {
            for byte in [0, 2, 24, 255] {
                // Only that it ends.
                let _ = answer(&vec![byte; length]);
            }
        }
    }
}
