//! Route netlink's messages: framing, requests, and the few attributes of devices, addresses and routes that are read.
//!
//! Layouts and numbers are those of include/uapi/linux/netlink.h, rtnetlink.h, if_link.h and if_addr.h, in the byte order
//! of the host. Crates with types for every attribute refuse a whole message for one attribute that a newer kernel lays
//! out differently, and a device that is not listed would be let go; here what is not understood is passed over.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(super) const NLMSG_ERROR: u16 = 2;
pub(super) const NLMSG_DONE: u16 = 3;
pub(super) const RTM_NEWLINK: u16 = 16;
pub(super) const RTM_DELLINK: u16 = 17;
pub(super) const RTM_GETLINK: u16 = 18;
pub(super) const RTM_NEWADDR: u16 = 20;
pub(super) const RTM_DELADDR: u16 = 21;
pub(super) const RTM_GETADDR: u16 = 22;
pub(super) const RTM_NEWROUTE: u16 = 24;
pub(super) const RTM_DELROUTE: u16 = 25;
pub(super) const RTM_GETROUTE: u16 = 26;

/// The list changed while it was dumped.
pub(super) const NLM_F_DUMP_INTR: u16 = 0x10;
const NLM_F_REQUEST_DUMP: u16 = 0x1 | 0x300;

const HEADER: usize = 16;
const LINK_BODY: usize = 16;
const ADDRESS_BODY: usize = 8;
const ROUTE_BODY: usize = 12;
const NEXT_HOP: usize = 8;

const ARPHRD_ETHER: u16 = 1;
const IFF_UP: u32 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_EXT_MASK: u16 = 29;
const IFLA_INFO_KIND: u16 = 1;
const RTEXT_FILTER_SKIP_STATS: u32 = 8;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RTA_OIF: u16 = 4;
const RTA_MULTIPATH: u16 = 9;
const RTN_UNICAST: u8 = 1;
const RT_TABLE_MAIN: u8 = 254;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// The upper bits of an attribute's type say how its value is laid out.
const NLA_TYPE_MASK: u16 = 0x3fff;

/// A device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Link {
    /// Its number in this network namespace.
    pub(crate) index: u32,
    /// Its name.
    pub(crate) name: String,
    /// It carries Ethernet frames.
    pub(crate) ethernet: bool,
    /// It is administratively up.
    pub(crate) up: bool,
    /// The bridge or bond that it is a port of.
    pub(crate) master: Option<u32>,
    /// What kind of virtual device it is, as in `ip link add type`; empty for hardware.
    pub(crate) kind: String,
}

/// One message of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Message<'a> {
    pub(super) kind: u16,
    pub(super) flags: u16,
    pub(super) sequence: u32,
    pub(super) body: &'a [u8],
}

/// The messages of a datagram, up to the first that is cut off.
pub(super) fn messages(mut rest: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = usize::try_from(u32_at(rest, 0)?).ok()?;
        let message = Message {
            kind: u16_at(rest, 4)?,
            flags: u16_at(rest, 6)?,
            sequence: u32_at(rest, 8)?,
            body: rest.get(HEADER..length)?,
        };
        rest = rest.get(aligned(length)..).unwrap_or_default();
        Some(message)
    })
}

impl Message<'_> {
    /// What an error message reports, or a final one that ends a dump early; 0 for none.
    pub(super) fn errno(&self) -> i32 {
        u32_at(self.body, 0).map_or(0, u32::cast_signed).saturating_neg()
    }

    /// Whether the message tells of something that a look at the devices depends on. Of routes only the default ones are
    /// looked at; a router's others may change all the time.
    pub(super) fn concerns_devices(&self) -> bool {
        match self.kind {
            RTM_NEWLINK | RTM_DELLINK | RTM_NEWADDR | RTM_DELADDR => true,
            RTM_NEWROUTE | RTM_DELROUTE => self.body.get(1) == Some(&0),
            _ => false,
        }
    }
}

/// A dump of devices without their counters, of addresses, of routes or of chains, in all families.
pub(super) fn dump_request(kind: u16, sequence: u32) -> Vec<u8> {
    let body_length = match kind {
        RTM_GETLINK => LINK_BODY,
        RTM_GETADDR => ADDRESS_BODY,
        super::filters::GET_CHAIN => super::filters::BODY,
        _ => ROUTE_BODY,
    };
    let mut body = vec![0; body_length];
    if kind == RTM_GETLINK {
        push_attribute(&mut body, IFLA_EXT_MASK, &RTEXT_FILTER_SKIP_STATS.to_ne_bytes());
    }
    message(kind, NLM_F_REQUEST_DUMP, sequence, &body)
}

fn message(kind: u16, flags: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADER + body.len()).unwrap_or(u32::MAX);
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes.extend(body);
    bytes.resize(aligned(bytes.len()), 0);
    bytes
}

pub(super) fn push_attribute(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    bytes.extend(u16::try_from(4 + value.len()).unwrap_or(u16::MAX).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(aligned(bytes.len()), 0);
}

/// The device of an RTM_NEWLINK.
pub(super) fn link(body: &[u8]) -> Option<Link> {
    let mut link = Link {
        index: u32_at(body, 4)?,
        ethernet: u16_at(body, 2)? == ARPHRD_ETHER,
        up: u32_at(body, 8)? & IFF_UP != 0,
        ..Link::default()
    };
    for (kind, value) in attributes(body.get(LINK_BODY..)?) {
        match kind {
            IFLA_IFNAME => link.name = text(value),
            IFLA_MASTER => link.master = u32_at(value, 0),
            IFLA_LINKINFO => {
                let info = attributes(value).find(|(kind, _)| *kind == IFLA_INFO_KIND);
                link.kind = info.map(|(_, value)| text(value)).unwrap_or_default();
            }
            _ => {}
        }
    }
    (!link.name.is_empty()).then_some(link)
}

/// Device number and address of an RTM_NEWADDR. Where there is a peer, it is the `IFA_ADDRESS` and we are the
/// `IFA_LOCAL`.
pub(super) fn address(body: &[u8]) -> Option<(u32, IpAddr)> {
    let (mut local, mut other) = (None, None);
    for (kind, value) in attributes(body.get(ADDRESS_BODY..)?) {
        match kind {
            IFA_LOCAL => local = ip(value),
            IFA_ADDRESS => other = ip(value),
            _ => {}
        }
    }
    Some((u32_at(body, 4)?, local.or(other)?))
}

/// The devices that an RTM_NEWROUTE leads through, if it is a default route of the main table: those of other tables serve
/// some packets only.
pub(super) fn default_route(body: &[u8]) -> Vec<u32> {
    let field = |at| body.get(at).copied();
    let is_ip = matches!(field(0), Some(AF_INET | AF_INET6));
    let is_default = field(1) == Some(0) && field(4) == Some(RT_TABLE_MAIN) && field(7) == Some(RTN_UNICAST);
    if !is_ip || !is_default {
        return Vec::new();
    }
    let mut devices = Vec::new();
    for (kind, value) in attributes(body.get(ROUTE_BODY..).unwrap_or_default()) {
        match kind {
            RTA_OIF => devices.extend(u32_at(value, 0)),
            RTA_MULTIPATH => devices.extend(next_hops(value)),
            _ => {}
        }
    }
    devices
}

/// The devices of `struct rtnexthop`s.
fn next_hops(mut rest: &[u8]) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(rest, 0)?).max(NEXT_HOP);
        let index = u32_at(rest, 4)?;
        rest = rest.get(aligned(length)..).unwrap_or_default();
        Some(index)
    })
}

/// Types and values of attributes, up to the first that is cut off.
pub(super) fn attributes(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(rest, 0)?);
        let kind = u16_at(rest, 2)? & NLA_TYPE_MASK;
        let value = rest.get(4..length)?;
        rest = rest.get(aligned(length)..).unwrap_or_default();
        Some((kind, value))
    })
}

fn aligned(length: usize) -> usize {
    length.saturating_add(3) & !3
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().copied().map(u16::from_ne_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_ne_bytes)
}

pub(super) fn text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(value.get(..end).unwrap_or_default()).into_owned()
}

fn ip(value: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(value).ok().map(|octets| Ipv4Addr::from(octets).into());
    v4.or_else(|| <[u8; 16]>::try_from(value).ok().map(|octets| Ipv6Addr::from(octets).into()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The body of a message: the fixed part, then attributes.
    fn body(fixed: &[&[u8]], attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut bytes = fixed.concat();
        attributes.iter().for_each(|(kind, value)| push_attribute(&mut bytes, *kind, value));
        bytes
    }

    fn link_body(link: &Link) -> Vec<u8> {
        let arphrd: u16 = if link.ethernet { ARPHRD_ETHER } else { 772 };
        let flags: u32 = if link.up { 0x1003 } else { 0x1002 };
        let fixed: [&[u8]; 5] =
            [&[0, 0], &arphrd.to_ne_bytes(), &link.index.to_ne_bytes(), &flags.to_ne_bytes(), &[0xff; 4]];
        let name = [link.name.as_bytes(), &[0]].concat();
        let info = body(&[], &[(IFLA_INFO_KIND, [link.kind.as_bytes(), &[0]].concat().as_slice()), (2, &[1; 7])]);
        let master = link.master.map(u32::to_ne_bytes);
        let mut attributes: Vec<(u16, &[u8])> = vec![(IFLA_IFNAME, &name), (0x8000 | IFLA_LINKINFO, &info)];
        attributes.extend(master.as_ref().map(|master| (IFLA_MASTER, master.as_slice())));
        body(&fixed, &attributes)
    }

    fn route_body(family: u8, length: u8, table: u8, kind: u8, attributes: &[(u16, &[u8])]) -> Vec<u8> {
        body(&[&[family, length, 0, 0, table, 3, 0, kind, 0, 0, 0, 0]], attributes)
    }

    #[test]
    fn the_address_of_this_end_is_read() {
        let (here, peer) = ([10, 0, 0, 1], [10, 0, 0, 2]);
        let fixed: [&[u8]; 2] = [&[AF_INET, 32, 0, 0], &7_u32.to_ne_bytes()];
        let v6: Ipv6Addr = "2001:db8::1".parse().unwrap();
        type Attributes<'a> = Vec<(u16, &'a [u8])>;
        let octets = v6.octets();
        let cases: [(Attributes<'_>, Option<IpAddr>); 4] = [
            (vec![(IFA_ADDRESS, &peer), (IFA_LOCAL, &here)], Some(here.into())),
            (vec![(IFA_ADDRESS, &octets)], Some(v6.into())),
            (vec![(IFA_ADDRESS, &[1, 2, 3])], None),
            (vec![], None),
        ];
        for (attributes, expected) in cases {
            assert_eq!(address(&body(&fixed, &attributes)), expected.map(|ip| (7, ip)), "{attributes:?}");
        }
    }

    #[test]
    fn default_routes_are_those_of_the_main_table_that_lead_somewhere() {
        let oif = [(RTA_OIF, 3_u32.to_ne_bytes())];
        let oif: Vec<(u16, &[u8])> = oif.iter().map(|(kind, value)| (*kind, value.as_slice())).collect();
        let hop = |index: u32| [[12, 0, 0, 0], index.to_ne_bytes(), [0; 4]].concat();
        let hops = [hop(4), hop(5)].concat();
        let cases: [(Vec<u8>, &[u32]); 7] = [
            (route_body(AF_INET, 0, RT_TABLE_MAIN, RTN_UNICAST, &oif), &[3]),
            (route_body(AF_INET6, 0, RT_TABLE_MAIN, RTN_UNICAST, &oif), &[3]),
            (route_body(AF_INET, 0, RT_TABLE_MAIN, RTN_UNICAST, &[(RTA_MULTIPATH, &hops)]), &[4, 5]),
            (route_body(AF_INET, 24, RT_TABLE_MAIN, RTN_UNICAST, &oif), &[]),
            (route_body(AF_INET, 0, 100, RTN_UNICAST, &oif), &[]),
            (route_body(AF_INET6, 0, RT_TABLE_MAIN, 7, &oif), &[]),
            (route_body(28, 0, RT_TABLE_MAIN, RTN_UNICAST, &oif), &[]),
        ];
        for (body, expected) in cases {
            assert_eq!(default_route(&body), expected, "{body:?}");
        }
    }

    #[test]
    fn news_of_devices_is_told_from_news_of_other_routes() {
        let route = |length| route_body(AF_INET, length, RT_TABLE_MAIN, RTN_UNICAST, &[]);
        let cases = [
            (RTM_NEWLINK, Vec::new(), true),
            (RTM_DELADDR, Vec::new(), true),
            (RTM_DELROUTE, route(0), true),
            (RTM_NEWROUTE, route(24), false),
            (RTM_NEWROUTE, Vec::new(), false),
            (NLMSG_DONE, vec![0; 4], false),
        ];
        for (kind, body, expected) in cases {
            let bytes = message(kind, 0, 0, &body);
            let told: Vec<_> = messages(&bytes).map(|message| message.concerns_devices()).collect();
            assert_eq!(told, [expected], "{kind}");
        }
    }

    prop_compose! {
        fn any_link()(
            index in 1_u32.., name in "[a-z0-9.@-]{1,15}", kind in "[a-z]{0,10}", ethernet: bool, up: bool,
            master in proptest::option::of(1_u32..),
        ) -> Link {
            Link { index, name, ethernet, up, master, kind }
        }
    }

    proptest! {
        #[test]
        fn links_survive_the_way_there_and_back(links in proptest::collection::vec(any_link(), 0..5)) {
            let datagram: Vec<u8> =
                links.iter().flat_map(|link| message(RTM_NEWLINK, 2, 9, &link_body(link))).collect();
            let read: Vec<_> = messages(&datagram).map(|message| (message.sequence, link(message.body))).collect();
            let expected: Vec<_> = links.into_iter().map(|link| (9, Some(link))).collect();
            prop_assert_eq!(read, expected);
        }

        #[test]
        fn no_bytes_are_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), cut in 0_usize..80) {
            let body = link_body(&Link { name: "eth0".to_owned(), kind: "veth".to_owned(), ..Link::default() });
            let whole = message(RTM_NEWLINK, 0, 0, &body);
            let mangled = [whole.get(..cut).unwrap_or(&whole), &bytes].concat();
            for datagram in [&bytes, &mangled] {
                for message in messages(datagram) {
                    let _ = (link(message.body), address(message.body), default_route(message.body), message.errno());
                }
                let _ = (link(datagram), address(datagram), default_route(datagram));
            }
        }
    }
}
