//! Addresses and networks of the standard library in the form of the maps and back.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use roadstead_abi::{Addr, Be16, Network};
use roadstead_model::Port;

pub use crate::node::NodeAddresses;

/// The form of the maps: IPv4 is mapped into IPv6.
#[must_use]
pub fn to_map(ip: IpAddr) -> Addr {
    match ip {
        IpAddr::V4(ip) => Addr::v4(ip.octets()),
        IpAddr::V6(ip) => Addr::v6(ip.octets()),
    }
}

/// The form of the standard library.
#[must_use]
pub fn from_map(addr: &Addr) -> IpAddr {
    let octets = addr.octets();
    if addr.is_v4() {
        return IpAddr::V4(Ipv4Addr::new(octets[12], octets[13], octets[14], octets[15]));
    }
    IpAddr::V6(Ipv6Addr::from(octets))
}

/// A port in the form of the maps.
#[must_use]
pub fn port(port: Port) -> Be16 {
    Be16::new(port.get())
}

/// A network in the form of the maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    /// Bits that count, of 128; an IPv4 network has 96 more than it is written with.
    pub bits: u32,
    /// The network's address, host bits 0.
    pub addr: Addr,
}

impl Prefix {
    /// A network.
    #[must_use]
    pub fn of(network: &IpNet) -> Self {
        let before = if network.addr().is_ipv4() { 96 } else { 0 };
        Self { bits: before + u32::from(network.prefix_len()), addr: to_map(network.network()) }
    }

    /// A single address.
    #[must_use]
    pub fn host(ip: IpAddr) -> Self {
        Self { bits: 128, addr: to_map(ip) }
    }

    /// The form in which it is compared at once.
    #[must_use]
    pub fn network(self) -> Network {
        let mask = u128::MAX.checked_shl(128 - self.bits.min(128)).unwrap_or(0);
        Network { addr: self.addr, mask: Addr::v6(mask.to_be_bytes()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_the_way_into_the_maps_and_back() {
        for text in ["192.0.2.1", "2001:db8::1", "::1", "0.0.0.0"] {
            let ip: IpAddr = text.parse().unwrap();
            assert_eq!(from_map(&to_map(ip)), ip);
        }
    }

    #[test]
    fn networks_hold_what_they_held() {
        let cases = [
            ("10.96.0.0/12", "10.111.255.255", "10.112.0.0"),
            ("0.0.0.0/0", "192.0.2.1", "::1"),
            ("fd00:10:96::/112", "fd00:10:96::ffff", "fd00:10:97::"),
            ("::/0", "2001:db8::1", ""),
            ("192.0.2.1/32", "192.0.2.1", "192.0.2.2"),
        ];
        for (text, inside, outside) in cases {
            let network = Prefix::of(&text.parse().unwrap()).network();
            assert!(network.contains(&to_map(inside.parse().unwrap())), "{text} {inside}");
            if let Ok(outside) = outside.parse() {
                assert!(!network.contains(&to_map(outside)), "{text} {outside}");
            }
        }
    }
}
