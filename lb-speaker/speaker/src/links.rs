//! The interfaces of this network namespace, as the kernel tells them by rtnetlink: links, their addresses, whether
//! addresses can be announced there.
//!
//! Not from `/sys/class/net`: that shows the namespace which mounted it, and a speaker may have entered another.

mod netlink;

use std::{
    collections::BTreeMap,
    fmt, io,
    net::{IpAddr, Ipv6Addr},
};

use roadstead_layer2::{responder::Station, wire::Mac};

pub(crate) use netlink::{Seen, Watch};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const ETHERNET: u16 = 1;
/// `IFF_UP`, `IFF_LOOPBACK`, `IFF_RUNNING`, `IFF_NOARP`, `IFF_LOWER_UP` (linux/if.h).
const UP: u32 = 1;
const LOOPBACK: u32 = 1 << 3;
const RUNNING: u32 = 1 << 6;
const NO_ARP: u32 = 1 << 7;
const LOWER_UP: u32 = 1 << 16;
/// Attributes of a link: `IFLA_ADDRESS`, `IFLA_IFNAME`, `IFLA_LINKINFO`, and `IFLA_INFO_SLAVE_KIND` inside the last.
const ADDRESS: u16 = 1;
const NAME: u16 = 3;
const INFO: u16 = 18;
const PORT_KIND: u16 = 4;
/// Attributes of an address: `IFA_ADDRESS`, `IFA_LOCAL`, `IFA_FLAGS`.
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_FLAGS: u16 = 8;
/// `IFA_F_DADFAILED`, `IFA_F_TENTATIVE` (linux/if_addr.h).
const NOT_OURS_YET: u32 = 0x08 | 0x40;

/// One interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    /// Zeros where the interface has no Ethernet address.
    pub(crate) mac: Mac,
    /// Why nothing can be announced here, if so.
    pub(crate) lack: Option<Lack>,
    pub(crate) addresses: Vec<IpAddr>,
    /// The link-local address that may be used: IPv6 works here.
    pub(crate) link_local: Option<Ipv6Addr>,
}

/// Why nothing can be announced on an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Lack {
    NotEthernet,
    Loopback,
    /// The flag NOARP: nobody asks here.
    NoArp,
    /// A port of a bridge or bond, by the driver's name for it: its master announces. Members of a VRF are no ports.
    Port(String),
    Down,
    /// No cable, or its other end is down: nobody would hear.
    NoCarrier,
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotEthernet => f.write_str("it has no Ethernet address"),
            Self::Loopback => f.write_str("it is the loopback device"),
            Self::NoArp => f.write_str("it does not use ARP"),
            Self::Port(kind) => write!(f, "it is a port of a {kind}, whose master announces"),
            Self::Down => f.write_str("it is down"),
            Self::NoCarrier => f.write_str("it has no carrier"),
        }
    }
}

impl Link {
    /// Whether it stands in a subnet of its own, as what addresses are announced on when no interface is named.
    pub(crate) fn is_in_a_subnet(&self) -> bool {
        self.addresses.iter().any(|ip| match ip {
            IpAddr::V4(ip) => !ip.is_link_local(),
            IpAddr::V6(ip) => !ip.is_unicast_link_local(),
        })
    }

    /// Advertisements come from the address that they tell about, as those of Linux do for an address of its own.
    /// `ndisc6` hears no others, and traffic from that address must pass every switch anyway.
    pub(crate) fn station(&self) -> Station {
        Station { mac: self.mac, link_local: None }
    }

    fn add(&mut self, address: &Address) {
        self.addresses.push(address.ip);
        if let (IpAddr::V6(ip), None, true) = (address.ip, self.link_local, address.usable) {
            self.link_local = ip.is_unicast_link_local().then_some(ip);
        }
    }
}

/// All interfaces with their addresses, by index.
pub(crate) fn scan() -> io::Result<Vec<Link>> {
    let mut links: BTreeMap<u32, Link> = BTreeMap::new();
    netlink::dump(RTM_GETLINK, |kind, body| {
        let link = (kind == RTM_NEWLINK).then(|| link(body)).flatten();
        links.extend(link.map(|link| (link.index, link)));
    })?;
    netlink::dump(RTM_GETADDR, |kind, body| {
        let Some(address) = (kind == RTM_NEWADDR).then(|| address(body)).flatten() else { return };
        if let Some(link) = links.get_mut(&address.index) {
            link.add(&address);
        }
    })?;
    Ok(links.into_values().collect())
}

/// The number of the link in an ifinfomsg.
fn index_of(body: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(*body.get(4..)?.first_chunk()?))
}

/// Reads an ifinfomsg (family, type, index, flags, change) and its attributes.
fn link(body: &[u8]) -> Option<Link> {
    let hardware = u16::from_ne_bytes(*body.get(2..)?.first_chunk()?);
    let index = index_of(body)?;
    let flags = u32::from_ne_bytes(*body.get(8..)?.first_chunk()?);
    let attributes = || attributes(body.get(16..).unwrap_or_default());
    let of = |wanted| attributes().find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    let text = |value: &[u8]| String::from_utf8_lossy(value).trim_end_matches('\0').to_owned();
    let port_kind = of(INFO).and_then(|info| self::attributes(info).find(|(kind, _)| *kind == PORT_KIND));
    let port = port_kind.map(|(_, value)| text(value)).filter(|kind| kind != "vrf");
    let mac = of(ADDRESS).and_then(|mac| <[u8; 6]>::try_from(mac).ok()).filter(|_| hardware == ETHERNET);
    let lack = match port {
        _ if flags & LOOPBACK != 0 => Some(Lack::Loopback),
        _ if mac.is_none() => Some(Lack::NotEthernet),
        _ if flags & NO_ARP != 0 => Some(Lack::NoArp),
        Some(kind) => Some(Lack::Port(kind)),
        None if flags & UP == 0 => Some(Lack::Down),
        None if flags & (LOWER_UP | RUNNING) != LOWER_UP | RUNNING => Some(Lack::NoCarrier),
        None => None,
    };
    let (name, mac) = (text(of(NAME)?), Mac(mac.unwrap_or_default()));
    Some(Link { index, name, mac, lack, addresses: Vec::new(), link_local: None })
}

struct Address {
    index: u32,
    ip: IpAddr,
    /// Duplicate address detection found nobody.
    usable: bool,
}

/// Reads an ifaddrmsg (family, prefix length, flags, scope, index) and its attributes.
fn address(body: &[u8]) -> Option<Address> {
    let ([_family, _prefix, flags, _scope], _) = body.split_first_chunk()?;
    let index = index_of(body)?;
    let attributes = || attributes(body.get(8..).unwrap_or_default());
    let of = |wanted| attributes().find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    // On a point-to-point link IFA_ADDRESS is the other end.
    let bytes = of(IFA_LOCAL).or_else(|| of(IFA_ADDRESS))?;
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    let ip = v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()?;
    let more = of(IFA_FLAGS).and_then(|flags| <[u8; 4]>::try_from(flags).ok()).map(u32::from_ne_bytes);
    Some(Address { index, ip, usable: more.unwrap_or(u32::from(*flags)) & NOT_OURS_YET == 0 })
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
pub(crate) mod tests {
    use super::*;

    const WORKS: u32 = UP | LOWER_UP | RUNNING;

    #[test]
    fn the_loopback_device_is_there_and_not_used() {
        let links = scan().unwrap();
        let lo = links.iter().find(|link| link.name == "lo").expect("every namespace has lo");
        assert_eq!(lo.lack, Some(Lack::Loopback));
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

    /// A link that works, with this name and these addresses.
    pub(crate) fn working(name: &str, ips: &[&str]) -> Link {
        let mut link = Link { name: name.to_owned(), ..link(&message(WORKS, ETHERNET, None)).unwrap() };
        for ip in ips {
            link.add(&Address { index: link.index, ip: ip.parse().unwrap(), usable: true });
        }
        link
    }

    #[test]
    fn ports_and_links_that_nobody_hears_are_not_used() {
        let port = |kind: &str| Some(Lack::Port(kind.to_owned()));
        let cases = [
            (message(WORKS, ETHERNET, None), None),
            (message(WORKS, ETHERNET, Some("vrf")), None),
            (message(WORKS, ETHERNET, Some("bridge")), port("bridge")),
            (message(WORKS, ETHERNET, Some("bond")), port("bond")),
            (message(WORKS | NO_ARP, ETHERNET, None), Some(Lack::NoArp)),
            (message(WORKS | LOOPBACK, ETHERNET, None), Some(Lack::Loopback)),
            (message(0, ETHERNET, None), Some(Lack::Down)),
            (message(LOWER_UP, ETHERNET, None), Some(Lack::Down)),
            (message(UP, ETHERNET, None), Some(Lack::NoCarrier)),
            (message(UP | LOWER_UP, ETHERNET, None), Some(Lack::NoCarrier)),
            (message(WORKS, 772, None), Some(Lack::NotEthernet)),
        ];
        for (bytes, lack) in cases {
            let read = link(&bytes).unwrap();
            assert_eq!((read.lack, read.index, read.name.as_str()), (lack, 7, "eth7"));
            for length in 0..bytes.len() {
                let _no_panic = link(&bytes[..length]);
            }
        }
    }

    #[test]
    fn addresses_are_read_with_the_word_whether_they_may_be_used() {
        let message = |flags: u8, attributes: &[Vec<u8>]| {
            [&[10, 64, flags, 0][..], &7_u32.to_ne_bytes(), &attributes.concat()].concat()
        };
        let v6 = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        let (other, own) = (attribute(IFA_ADDRESS, &[192, 0, 2, 2]), attribute(IFA_LOCAL, &[192, 0, 2, 1]));
        let tentative = attribute(IFA_FLAGS, &0x40_u32.to_ne_bytes());
        let cases = [
            (message(0, &[other.clone(), own]), "192.0.2.1", true),
            (message(0, &[other]), "192.0.2.2", true),
            (message(0x80, &[attribute(IFA_ADDRESS, &v6)]), "fe80::1", true),
            (message(0x08, &[attribute(IFA_ADDRESS, &v6)]), "fe80::1", false),
            (message(0, &[attribute(IFA_ADDRESS, &v6), tentative]), "fe80::1", false),
        ];
        for (bytes, ip, usable) in cases {
            let read = address(&bytes).unwrap();
            assert_eq!((read.index, read.ip.to_string().as_str(), read.usable), (7, ip, usable));
            for length in 0..bytes.len() {
                let _no_panic = address(&bytes[..length]);
            }
        }
    }

    #[test]
    fn a_link_in_a_subnet_is_told_from_one_with_link_local_addresses_alone() {
        let cases = [("192.0.2.1", true), ("2001:db8::1", true), ("fe80::1", false), ("169.254.0.1", false)];
        for (ip, expected) in cases {
            assert_eq!(working("eth0", &[ip]).is_in_a_subnet(), expected, "{ip}");
        }
    }
}
