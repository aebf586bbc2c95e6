//! The interfaces of this network namespace, read from the kernel: links by rtnetlink, addresses by getifaddrs.
//!
//! Not from `/sys/class/net`: that shows the namespace which mounted it, and a speaker may have entered another.

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    net::{IpAddr, Ipv6Addr},
};

use nix::ifaddrs::getifaddrs;
use roadstead_layer2::{responder::Station, wire::Mac};
use socket2::{Domain, Protocol, Socket, Type};

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const DONE: u16 = 3;
const ERROR: u16 = 2;
/// `NLM_F_REQUEST | NLM_F_DUMP`.
const DUMP: u16 = 0x301;
const ETHERNET: u16 = 1;
const UP: u32 = 1;
const LOOPBACK: u32 = 1 << 3;
const NO_ARP: u32 = 1 << 7;
/// Attributes of a link: IFLA_ADDRESS, IFLA_IFNAME, IFLA_LINKINFO, and IFLA_INFO_SLAVE_KIND inside the last.
const ADDRESS: u16 = 1;
const NAME: u16 = 3;
const INFO: u16 = 18;
const PORT_KIND: u16 = 4;

/// Interfaces that belong to a container network or a hypervisor; only named explicitly are they announced on.
const INTERNAL: [&str; 10] =
    ["docker", "cbr", "cni", "virbr", "lxcbr", "lxc", "cali", "flannel", "kube-ipvs", "nodelocaldns"];

/// One interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) mac: Mac,
    /// Up, Ethernet, uses ARP, and is no port of a bridge or bond: its master announces. Members of a VRF stay.
    pub(crate) usable: bool,
    pub(crate) addresses: Vec<IpAddr>,
}

impl Link {
    /// Whether addresses are announced here when no interface is named: it stands in a subnet of its own.
    pub(crate) fn is_default(&self) -> bool {
        let routed = |ip: &IpAddr| match ip {
            IpAddr::V4(ip) => !ip.is_link_local(),
            IpAddr::V6(ip) => !ip.is_unicast_link_local(),
        };
        self.usable && self.addresses.iter().any(routed) && !INTERNAL.iter().any(|prefix| self.name.starts_with(prefix))
    }

    pub(crate) fn station(&self) -> Station {
        Station { mac: self.mac, link_local: self.addresses.iter().find_map(link_local) }
    }
}

fn link_local(ip: &IpAddr) -> Option<Ipv6Addr> {
    match ip {
        IpAddr::V6(ip) if ip.is_unicast_link_local() => Some(*ip),
        _ => None,
    }
}

/// All interfaces with their addresses, those without a hardware address of six bytes (tunnels) left out.
pub(crate) fn scan() -> io::Result<Vec<Link>> {
    let mut links = dump()?;
    let mut addresses: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
    for entry in getifaddrs()? {
        let Some(address) = entry.address else { continue };
        let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
        let v6 = || address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip()));
        if let Some(ip) = v4.or_else(v6) {
            addresses.entry(entry.interface_name).or_default().push(ip);
        }
    }
    for link in &mut links {
        link.addresses = addresses.remove(&link.name).unwrap_or_default();
    }
    Ok(links)
}

fn dump() -> io::Result<Vec<Link>> {
    let (domain, route) = (Domain::from(libc::AF_NETLINK), Protocol::from(libc::NETLINK_ROUTE));
    let mut socket = Socket::new(domain, Type::RAW.cloexec(), Some(route))?;
    socket.set_read_timeout(Some(std::time::Duration::from_secs(1)))?;
    // nlmsghdr (length 32, type, flags, sequence, port) and an empty ifinfomsg.
    let mut request = [0_u8; 32];
    let head = [&32_u32.to_ne_bytes()[..], &RTM_GETLINK.to_ne_bytes(), &DUMP.to_ne_bytes()].concat();
    request.iter_mut().zip(head).for_each(|(byte, value)| *byte = value);
    socket.write_all(&request)?;
    let mut links = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let length = socket.read(&mut buffer)?;
        if parse(buffer.get(..length).unwrap_or_default(), &mut links)? {
            return Ok(links);
        }
    }
}

/// Reads one datagram of the dump; true at its end.
fn parse(mut bytes: &[u8], links: &mut Vec<Link>) -> io::Result<bool> {
    while let Some((length, rest)) = bytes.split_first_chunk::<4>() {
        let length = usize::try_from(u32::from_ne_bytes(*length)).map_err(io::Error::other)?;
        let (Some(kind), Some(body)) = (rest.first_chunk::<2>(), bytes.get(16..length)) else {
            return Err(io::Error::other("the kernel's list of links is truncated"));
        };
        match u16::from_ne_bytes(*kind) {
            DONE => return Ok(true),
            ERROR => return Err(io::Error::other("the kernel refused to list the links")),
            RTM_NEWLINK => links.extend(link(body)),
            _ => {}
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

/// Reads an ifinfomsg (family, type, index, flags, change) and its attributes.
fn link(body: &[u8]) -> Option<Link> {
    let hardware = u16::from_ne_bytes(*body.get(2..)?.first_chunk()?);
    let index = u32::from_ne_bytes(*body.get(4..)?.first_chunk()?);
    let flags = u32::from_ne_bytes(*body.get(8..)?.first_chunk()?);
    let attributes = || attributes(body.get(16..).unwrap_or_default());
    let of = |wanted| attributes().find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    let text = |value: &[u8]| String::from_utf8_lossy(value).trim_end_matches('\0').to_owned();
    let port_kind = of(INFO).and_then(|info| self::attributes(info).find(|(kind, _)| *kind == PORT_KIND));
    let is_port = port_kind.is_some_and(|(_, value)| text(value) != "vrf");
    let mac = of(ADDRESS)?;
    let mac = Mac(*mac.first_chunk::<6>().filter(|_| mac.len() == 6)?);
    let wanted = flags & (UP | LOOPBACK | NO_ARP) == UP && hardware == ETHERNET;
    Some(Link { index, name: text(of(NAME)?), mac, usable: wanted && !is_port, addresses: Vec::new() })
}

/// Type and value of each attribute; a malformed one ends the walk.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(*bytes.first_chunk()?));
        let kind = u16::from_ne_bytes(*bytes.get(2..)?.first_chunk()?) & 0x3fff;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_device_is_there_and_not_used() {
        let links = scan().unwrap();
        let lo = links.iter().find(|link| link.name == "lo").expect("every namespace has lo");
        assert!(!lo.usable);
        assert_eq!(lo.index, 1);
    }

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(4 + value.len()).unwrap();
        let mut bytes = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat();
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn message(flags: u32, hardware: u16, port_kind: Option<&str>) -> Vec<u8> {
        let head = [&[0_u8, 0][..], &hardware.to_ne_bytes(), &7_u32.to_ne_bytes(), &flags.to_ne_bytes(), &[0; 4]];
        let info = port_kind.map(|kind| attribute(INFO, &attribute(PORT_KIND, kind.as_bytes()))).unwrap_or_default();
        [head.concat(), attribute(NAME, b"eth7\0"), attribute(ADDRESS, &[2, 0, 0, 0, 0, 7]), info].concat()
    }

    #[test]
    fn ports_and_links_without_arp_are_not_used() {
        let cases = [
            (message(UP, ETHERNET, None), true),
            (message(UP, ETHERNET, Some("vrf")), true),
            (message(UP, ETHERNET, Some("bridge")), false),
            (message(UP, ETHERNET, Some("bond")), false),
            (message(UP | NO_ARP, ETHERNET, None), false),
            (message(UP | LOOPBACK, ETHERNET, None), false),
            (message(0, ETHERNET, None), false),
            (message(UP, 772, None), false),
        ];
        for (bytes, usable) in cases {
            let read = link(&bytes).unwrap();
            assert_eq!((read.usable, read.index, read.name.as_str()), (usable, 7, "eth7"));
            for length in 0..bytes.len() {
                let _no_panic = link(&bytes[..length]);
            }
        }
    }

    #[test]
    fn without_a_name_given_only_links_in_a_subnet_are_used() {
        let with = |name: &str, ip: &str| Link {
            name: name.to_owned(),
            addresses: vec![ip.parse().unwrap()],
            ..link(&message(UP, ETHERNET, None)).unwrap()
        };
        let cases = [
            (with("eth0", "192.0.2.1"), true),
            (with("eth0", "2001:db8::1"), true),
            (with("eth0", "fe80::1"), false),
            (with("eth0", "169.254.0.1"), false),
            (with("docker0", "172.17.0.1"), false),
        ];
        for (link, expected) in cases {
            assert_eq!(link.is_default(), expected, "{link:?}");
        }
    }
}
