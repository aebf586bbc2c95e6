//! Heartbeats to everybody on the segment, for a while after a peer appeared or fell silent, or an interface changed.
//!
//! A datagram to a peer waits for ARP or NDP, and Linux asks again only after a second. Where the first question is lost, as
//! behind a port of a switch that has just come up, two nodes would not hear each other for so long, while every client
//! hears both: both would answer for the same addresses. What goes to everybody waits for nothing.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use nix::{ifaddrs::getifaddrs, net::if_::if_nametoindex};
use roadstead_layer2::{membership::PeerState, wire::ALL_NODES};

/// For how long: the second after which the kernel asks again, and that again.
const FOR: Duration = Duration::from_secs(2);

/// Whether heartbeats are for everybody now.
#[derive(Debug, Default)]
pub(crate) struct Loud {
    states: Vec<PeerState>,
    until: Duration,
    disturbed_until: Duration,
}

impl Loud {
    /// Something became of an interface: a peer that is not heard may be there again. Interfaces of pods come and go all
    /// the time; while all peers are heard that is no matter.
    pub(crate) fn disturbed(&mut self, now: Duration) {
        self.disturbed_until = now + FOR;
    }

    /// Takes in what is known of the peers; whether the heartbeat that is due goes to everybody too.
    pub(crate) fn follow(&mut self, now: Duration, states: impl Iterator<Item = PeerState>) -> bool {
        let states: Vec<PeerState> = states.collect();
        if states != self.states {
            self.states = states;
            self.until = now + FOR;
        }
        let unheard = |state: &PeerState| matches!(state, PeerState::Unheard | PeerState::Dead);
        now < self.until || (now < self.disturbed_until && self.states.iter().any(unheard))
    }
}

/// One way to everybody: the address of all, and for IPv6 the own address and interface, which peers know us by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Everybody {
    /// The broadcast address of a network.
    V4(Ipv4Addr, u16),
    /// All nodes of a link.
    V6 {
        /// `ff02::1`
        to: Ipv6Addr,
        port: u16,
        from: Ipv6Addr,
        interface: u32,
    },
}

/// How to reach everybody in the networks of this host in which a peer is.
pub(crate) fn everybody(peers: &BTreeSet<SocketAddr>) -> BTreeSet<Everybody> {
    let mut found = BTreeSet::new();
    for entry in getifaddrs().into_iter().flatten() {
        let (Some(address), Some(mask)) = (entry.address, entry.netmask) else { continue };
        let v4 = address.as_sockaddr_in().zip(mask.as_sockaddr_in());
        let v6 = address.as_sockaddr_in6().zip(mask.as_sockaddr_in6());
        for peer in peers {
            match peer.ip().to_canonical() {
                IpAddr::V4(ip) => {
                    let all = v4.and_then(|(own, mask)| broadcast(own.ip(), mask.ip(), ip));
                    found.extend(all.map(|all| Everybody::V4(all, peer.port())));
                }
                IpAddr::V6(ip) => {
                    let near = v6.filter(|(own, mask)| {
                        (own.ip().to_bits() ^ ip.to_bits()) & mask.ip().to_bits() == 0 && own.ip() != ip
                    });
                    let Some((own, _)) = near else { continue };
                    let Ok(interface) = if_nametoindex(entry.interface_name.as_str()) else { continue };
                    found.insert(Everybody::V6 { to: ALL_NODES, port: peer.port(), from: own.ip(), interface });
                }
            }
        }
    }
    found
}

/// The broadcast address of the network in which both are: the kernel routes it whether or not an address was given one.
fn broadcast(own: Ipv4Addr, mask: Ipv4Addr, peer: Ipv4Addr) -> Option<Ipv4Addr> {
    let (own, mask, peer) = (own.to_bits(), mask.to_bits(), peer.to_bits());
    let near = (own ^ peer) & mask == 0 && own != peer;
    // A network of two or one has no such address.
    (near && mask.count_zeros() > 1).then(|| Ipv4Addr::from_bits(own | !mask))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_loud_for_a_while_after_a_change() {
        let (mut loud, at) = (Loud::default(), Duration::from_millis);
        let cases = [
            (0, [PeerState::Unheard], true),
            (1_960, [PeerState::Unheard], true),
            (2_000, [PeerState::Unheard], false),
            (3_000, [PeerState::Alive], true),
            (4_960, [PeerState::Alive], true),
            (5_000, [PeerState::Alive], false),
        ];
        for (now, states, expected) in cases {
            assert_eq!(loud.follow(at(now), states.into_iter()), expected, "{now}");
        }
        loud.disturbed(at(6_000));
        assert!(!loud.follow(at(7_000), [PeerState::Alive].into_iter()), "everybody is heard");
        assert!(loud.follow(at(8_000), [PeerState::Dead].into_iter()));
        loud.disturbed(at(20_000));
        assert!(loud.follow(at(21_000), [PeerState::Dead].into_iter()));
        assert!(!loud.follow(at(22_000), [PeerState::Dead].into_iter()));
    }

    #[test]
    fn everybody_is_where_a_peer_is() {
        let cases = [
            ("192.0.2.11", "255.255.255.0", "192.0.2.12", Some("192.0.2.255")),
            ("192.0.2.11", "255.255.255.240", "192.0.2.12", Some("192.0.2.15")),
            ("192.0.2.11", "255.255.255.240", "192.0.2.16", None),
            ("192.0.2.11", "255.255.255.0", "192.0.2.11", None),
            ("192.0.2.10", "255.255.255.254", "192.0.2.11", None),
            ("192.0.2.10", "255.255.255.255", "192.0.2.11", None),
        ];
        for (own, mask, peer, expected) in cases {
            let [own_ip, mask_ip, peer_ip] = [own, mask, peer].map(|text| text.parse().unwrap());
            let expected = expected.map(|text| text.parse().unwrap());
            assert_eq!(broadcast(own_ip, mask_ip, peer_ip), expected, "{own} {mask} {peer}");
        }
        let peer = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 2), 7946));
        let expected = BTreeSet::from([Everybody::V4(Ipv4Addr::new(127, 255, 255, 255), 7946)]);
        assert_eq!(everybody(&BTreeSet::from([peer])), expected, "every host has 127.0.0.1/8");
    }
}
